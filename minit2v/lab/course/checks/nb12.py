"""Checks of notebook 12, Full weights: decoding in parts, memory against frames, a prompt study, the noise of a seed."""

import math
from numbers import Integral

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from minit2v.evaluation.estimates import NORMAL, wilson
from minit2v.lab.course.comparing import called, normal, recognised
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.memory.plan import Live
from minit2v.pixels import to_pixels
from minit2v.presets import get

EQUATIONS = {
    "12.1": ("a number from its byte",
             "tests/test_recording.py::test_numbers_are_right_within_half_of_a_255th_of_their_steps_range"),
    "12.2": ("frames are decoded one by one",
             "tests/test_pipeline.py::test_frames_are_decoded_in_chunks_with_the_same_result"),
    "12.3": ("the interval of a share", "tests/test_report.py::test_wilson"),
}  # fmt: skip

QUIZ = [
    (
        "The decoder runs out of memory, and the UNet did not. What changes least of your clip?",
        ["Fewer sampling steps", "Decoding fewer frames at a time", "Fewer frames"],
        1,
        "Frames do not see one another in the decoder, so parts give the same numbers. Steps take no memory at all.",
    ),
    (
        "You change a word and the clip changes. When do you know that it was the word?",
        ["When the change is large", "When the same prompt with another seed changes less, over several seeds",
         "When the other clip is better"],
        1,
        "A seed changes a clip as well. Keep the seeds, change the word, and count over pairs.",
    ),
    (
        "A colleague's GPU makes another clip from your seed, with the same weights. What is the first thing to look at?",
        ["Where and in which precision the noise was drawn", "The version of the driver", "The order of the frames"],
        0,
        "A generator gives other numbers on another device, or in another dtype. Rounding changes a clip far less.",
    ),
]


def asked():
    """How often the UNet of the release sees one clip."""
    preset = get("modelscope-1.7b")
    return preset.steps * (2 if preset.guidance != 1 else 1)


PREDICTIONS = {
    "12.a": Question("The released model makes one clip, with its 50 steps and with guidance. How many times does its UNet "
                     "look at the latents of the clip, with and without the prompt counted separately?", asked),
    "12.b": Question("The decoder may get the frames in parts. Somebody gives the UNet its 16 frames in four parts of four, "
                     "too. What comes out?", "four clips that know nothing of one another",
                     choices=("the same clip", "an error", "four clips that know nothing of one another")),
    "12.c": Question("`mini` takes 8 steps, and all of them are kept in a list. The peak of memory becomes …",
                     "a little larger", choices=("8 times as large", "a little larger", "no larger")),
}  # fmt: skip


# --- 12.1


def decode_in_parts(decode, latents, chunk):
    """decode: (n, c, h, w) -> (n, 3, H, W) in [-1, 1]; latents (b, c, f, h, w) -> uint8 (b, f, H, W, 3)."""
    frames, parts = latents.transpose(1, 2).flatten(0, 1), []
    for part in frames.split(chunk):
        parts.append(to_pixels(decode(part)))
    return torch.cat(parts).unflatten(0, (len(latents), -1))


class Decoder:
    """A decoder for the check: each frame on its own, twice as high and wide; it keeps count of its calls."""

    def __init__(self, c: int):
        self.mix, self.calls = normal(3, c, seed=c) / c, []

    def __call__(self, z: Tensor) -> Tensor:
        if z.ndim != 4 or z.shape[1] != self.mix.shape[1]:
            raise Failed(f"latents (n, {self.mix.shape[1]}, h, w) for the decoder", f"{tuple(z.shape)}",
                         "frames go into the batch: (b c f h w) -> ((b f) c h w)")  # fmt: skip
        self.calls.append(len(z))
        mixed = torch.einsum("kc,nchw->nkhw", self.mix.to(z.dtype), z)
        return F.interpolate(mixed, scale_factor=2, mode="nearest").tanh()


PART_MISTAKES = {
    "clips and channels were exchanged before they were flattened: transpose axes 1 and 2 first":
        lambda d, z: _mistaken(d, z, lambda z: z.reshape(-1, z.shape[1], *z.shape[3:])),
    "frames came back as (f b): they are (b f), a clip's frames beside one another":
        lambda d, z: _mistaken(d, z, lambda z: z.permute(2, 0, 1, 3, 4).flatten(0, 1)),
    "the last frames are missing or repeated": lambda d, z: None,
}  # fmt: skip


def _mistaken(decode, z, fold):
    return to_pixels(decode(fold(z))).unflatten(0, (len(z), -1))


@exercise("12.1", name="decode_in_parts", solution=decode_in_parts, minutes=20, difficulty=3, importance=5)
def check_decode_in_parts(student):
    """Several clips, parts that do not divide the frames, one frame, more than there are; then the memory is counted."""
    for b, c, f, h, w, chunk in ((1, 4, 6, 2, 3, 2), (2, 4, 5, 3, 2, 3), (3, 2, 4, 2, 5, 5), (2, 3, 1, 2, 4, 1),
                                 (1, 4, 7, 3, 2, 16), (2, 4, 6, 2, 3, 4)):  # fmt: skip
        latents, decoder, plain = normal(b, c, f, h, w, seed=f).float(), Decoder(c), Decoder(c)
        expected = to_pixels(plain(latents.transpose(1, 2).flatten(0, 1))).unflatten(0, (b, f))
        what = f"the frames of latents {tuple(latents.shape)}, chunk {chunk}"
        found = called(lambda z: student(decoder, z, chunk), latents, what=what)
        if decoder.calls and max(decoder.calls) > chunk:
            each = b > 1 and max(decoder.calls) == b * min(chunk, f)
            raise Failed(f"at most {chunk} frames in a call of decode", f"{max(decoder.calls)} of {b * f}",
                         "all clips together are (b f) frames: split those" if each else "")  # fmt: skip
        if sum(decoder.calls) != b * f:
            raise Failed(f"{b * f} frames decoded once each, latents {tuple(latents.shape)}, chunk {chunk}",
                         f"{sum(decoder.calls)}", "the last part may be smaller than the others"
                         if set(decoder.calls) == {chunk} and (b * f) % chunk else "")  # fmt: skip
        if len(decoder.calls) > b * math.ceil(f / chunk):
            raise Failed(f"no more calls than parts of {chunk} frames", f"{len(decoder.calls)} calls for {b * f} frames",
                         "chunk frames go through the decoder together")  # fmt: skip
        same_shape(what, found, expected.shape, "pixels are b f H W 3")
        if found.dtype != torch.uint8:
            raise Failed("pixels as torch.uint8", f"{found.dtype}", "to_pixels makes them")
        mistakes = {cause: (lambda one=one: one(Decoder(c), latents)) for cause, one in list(PART_MISTAKES.items())[:2]}
        recognised(what, found, expected, mistakes)
    _small(student)
    return "six sizes, equal to decoding at once; the memory does not hold more than the parts and the pixels"


def _small(student):
    """The peak of a long clip in small parts, counted in bytes of live tensors."""
    latents, decoder, chunk = normal(2, 4, 60, 4, 6).float(), Decoder(4), 3
    pixels, part = 2 * 60 * 3 * 8 * 12, 4 * chunk * 3 * 8 * 12
    most = 3 * latents.nbytes + 2 * pixels + 8 * part
    with Live(nn.Identity()) as live:
        student(decoder, latents, chunk)
    if live.peak > most:
        raise Failed(f"at most {most:,} bytes of tensors for 120 frames in parts of {chunk}", f"{live.peak:,}",
                     "more is kept than pixels: make them of each part before the next one is decoded")  # fmt: skip


# --- 12.2


def most_frames(sizes, memory):
    """{frames: bytes of the peak}, two or more, nearly on a line; bytes of the card -> the most frames that fit."""
    n = len(sizes)
    mean_f, mean_s = sum(sizes) / n, sum(sizes.values()) / n
    each = sum((f - mean_f) * (s - mean_s) for f, s in sizes.items()) / sum((f - mean_f) ** 2 for f in sizes)
    fixed = mean_s - each * mean_f
    return max(0, math.floor((memory - fixed) / each + 1e-9))


FRAME_MISTAKES = {
    "the weights are there whatever the clip: a line has a start, so one clip's size by its frames is not enough":
        lambda s, m: math.floor(m * min(s) / s[min(s)] + 1e-9),
    "a part of a frame does not help: round down": lambda s, m: max(0, math.ceil(_room(s, m) - 1e-9)),
    "where even the rest does not fit, it is 0 frames": lambda s, m: math.floor(_room(s, m) + 1e-9),
    "what the clip shares with all others was not taken away": lambda s, m: max(0, math.floor(m / _line(s)[1] + 1e-9)),
    "the result is a whole number": lambda s, m: max(0.0, _room(s, m)),
    "fewer frames than were counted may be right: the line goes on": lambda s, m: max(min(s), most_frames(s, m)),
    "more frames than were counted may be right: the line goes on": lambda s, m: min(max(s), most_frames(s, m)),
}  # fmt: skip


def _line(sizes):
    each, fixed = np.polyfit(list(sizes), list(sizes.values()), 1)
    return fixed, each


def _room(sizes, memory):
    fixed, each = _line(sizes)
    return (memory - fixed) / each


@exercise("12.2", name="most_frames", solution=most_frames, minutes=10, difficulty=2, importance=4)
def check_most_frames(student):
    """Lines of two and of many points, with noise; cards that are full to the byte, too small, and far larger."""
    exact = lambda fixed, each, frames: {f: fixed + each * f for f in frames}
    uneven = {8: 5_010_000, 16: 5_390_000, 32: 6_230_000, 64: 7_770_000}  # about 4.6e6 + 5e4 f
    noisy = {64: 7_400_000, 8: 5_010_000, 16: 5_690_000, 32: 6_030_000, 48: 7_370_000}  # each other line gives another count
    cases = [(exact(4000, 100, (16, 32)), 6000), (exact(4000, 100, (16, 32)), 6099), (exact(4000, 100, (16, 32)), 4100),
             (exact(4000, 100, (16, 32)), 4099), (exact(4000, 100, (16, 32)), 900), (exact(90, 7, (24, 8, 1)), 1000),
             (exact(0, 33, (2, 5)), 990), (uneven, 8_000_000), (uneven, 5_200_000), (uneven, 20_000_000),
             (noisy, 6_500_000), (noisy, 12_000_000), (noisy, 30_000_000)]  # fmt: skip
    results = []
    for sizes, memory in cases:
        given = dict(sizes)
        found = student(given, memory)
        if given != sizes:
            raise Failed("the dictionary as it was", "it was changed")
        if isinstance(found, bool) or not isinstance(found, (Integral, float)):
            cause = "the function does not return its result" if found is None else ""
            raise Failed("a whole number", f"{found!r:.60}", cause)
        results.append(found)
    for (sizes, memory), found in zip(cases, results):
        expected = most_frames(sizes, memory)
        if found != expected:
            cause = next((text for text, one in FRAME_MISTAKES.items() if _same(one, cases, results)), "")
            if not cause and all(map(_but_full, cases, results)):
                cause = "a card that is full to the byte fits: floating point may lose that frame, so add 1e-9 before you round"
            raise Failed(f"{expected} frames for {sizes} and a card of {memory:,}", f"{found}", cause)
    if not all(isinstance(found, Integral) for found in results):
        raise Failed("whole numbers", "3.0 is no int in Python", "math.floor or int")
    return "thirteen cards: full to the byte, too small, and larger than all that was counted"


def _but_full(case, found):
    """Right, or one frame less for a card that is full to the byte."""
    right = most_frames(*case)
    return found == right or found == right - 1 and abs(_room(*case) - right) < 1e-6


def _same(wrong, cases, results):
    try:
        return all(math.isclose(wrong(*case), found) for case, found in zip(cases, results))
    except (ZeroDivisionError, ValueError):
        return False


# --- 12.3


def changed_share(before, after):
    """Readings of n clips of a prompt and of another, seed by seed, dictionaries -> {attribute: (share, low, high)}."""
    result, n = {}, len(before)
    for name in before[0]:
        p, z = sum(one[name] != other[name] for one, other in zip(before, after)) / n, NORMAL
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        result[name] = (p, middle - half, middle + half)
    return result


def _shares(before, after, *, unread="differs", interval="wilson", pairs=True, times=1):
    """`changed_share` with one thing wrong."""
    result = {}
    for name in before[0]:
        if pairs:
            both = [(a[name], b[name]) for a, b in zip(before, after)]
        else:
            both = list(zip(sorted((a[name] for a in before), key=str), sorted((b[name] for b in after), key=str)))
        if unread == "left out":
            both = [(a, b) for a, b in both if a is not None and b is not None]
        elif unread == "ignored":
            both = [(a, a if None in (a, b) else b) for a, b in both]
        elif unread == "always":
            both = [(a, b if None not in (a, b) else object()) for a, b in both]
        count = max(len(both), 1)
        p, z = sum(a != b for a, b in both) / count, NORMAL
        low, high = wilson(round(p * count), count)
        middle, half = (low + high) / 2, (high - low) / 2
        if interval == "normal":
            middle, half = p, z * math.sqrt(p * (1 - p) / count)
        elif interval == "deviation":
            middle, half = p, math.sqrt(p * (1 - p) / count)
        elif interval == "no square":
            half = z / (1 + z**2 / count) * (p * (1 - p) / count + z**2 / (4 * count**2))
        elif interval == "1 - p":
            p, middle = 1 - p, 1 - middle
        result[name] = (times * p, times * (middle - half), times * (middle + half))
    return result


STUDY_MISTAKES = {
    "clips are compared in pairs, seed by seed; sorting or counting each side alone loses them": {"pairs": False},
    "clips that the judge cannot read were left out: None beside a colour is a change, None beside None is none":
        {"unread": "left out"},
    "None beside None counts as unchanged": {"unread": "always"},
    "None beside a text is a change, and was not counted": {"unread": "ignored"},
    "these are percent; shares go from 0 to 1": {"times": 100},
    "this is the plain interval, p ± z √(p (1 - p) / n), which has no width at 0 of n": {"interval": "normal"},
    "one standard error, without z": {"interval": "deviation"},
    "the square root is missing": {"interval": "no square"},
    "this is the share that stayed the same": {"interval": "1 - p"},
}  # fmt: skip


@exercise("12.3", name="changed_share", solution=changed_share, minutes=15, difficulty=3, importance=4)
def check_changed_share(student):
    """None, some and all changed; unread attributes; the same values on both sides in another order."""
    read = lambda text: "".join([*text]) or None  # a text of its own each time: equal ones are not the same object
    colour = lambda texts: [{"colour": read(t)} for t in texts]
    both = lambda shapes, motions: [{"shape": read(3 * s), "motion": read(3 * m)} for s, m in zip(shapes, motions)]
    cases = [
        (colour(["red"] * 8), colour(["red"] * 8)), (colour(["red"] * 5), colour(["blue"] * 5)),
        (colour(["red", "blue", "green", "red", "red", "blue"]), colour(["blue", "red", "green", "red", "green", "red"])),
        (colour(["red", "", "", "blue", "red", "", "red"]), colour(["red", "", "red", "", "red", "", "red"])),
        (both("abcab", "lrlrr"), both("abccb", "rrlrl")), (colour(["red"]), colour(["blue"])),
        (colour(["red"] * 60 + ["blue"] * 40), colour(["red"] * 90 + ["blue"] * 10)),
    ]  # fmt: skip
    found_all = []
    for before, after in cases:
        given = [dict(one) for one in before], [dict(one) for one in after]
        found = student(*given)
        if given != (before, after):
            raise Failed("the readings as they were", "they were changed")
        if not isinstance(found, dict) or set(found) != set(before[0]):
            raise Failed(f"a dictionary of {', '.join(before[0])}", f"{found!r:.80}",
                         "the function does not return its result" if found is None else "")  # fmt: skip
        for name, triple in found.items():
            if not isinstance(triple, (tuple, list)) or len(triple) != 3:
                raise Failed(f"(share, low, high) of {name}", f"{triple!r:.60}")
        found_all.append(_values(found))
    for (before, after), found in zip(cases, found_all):
        wrong = {cause: (lambda options=options: torch.cat([_values(_shares(*case, **options)) for case in cases]))
                 for cause, options in STUDY_MISTAKES.items()}  # fmt: skip
        expected = changed_share(before, after)
        if (found - _values(expected)).abs().max() > 1e-4:
            together = torch.cat(found_all)
            cause = next((c for c, make in wrong.items() if torch.allclose(make(), together, rtol=0, atol=1e-6)), "")
            close(f"share, low and high for {len(before)} pairs", found, _values(expected), 1e-4, cause)
    return "seven studies of 1 to 100 pairs, with clips that the judge cannot read"


def _values(shares):
    return torch.tensor([shares[name] for name in sorted(shares)], dtype=torch.float64)


# --- 12.B


def start_noise(shape, seed, dtype, device):
    """Standard normal noise of a seed, the same numbers on every device and in every precision."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).to(device, dtype)


@exercise("12.B", name="start_noise", solution=start_noise, minutes=8, difficulty=2, importance=5)
def check_start_noise(student):
    """Four precisions, several seeds and shapes, two seeds of one; where it was drawn; others' generators stay as they were."""
    for shape, seed in (((1, 4, 3, 8, 6), 0), ((2, 4, 5, 4, 8), 7), ((3, 2), 123), ((3, 2), 5),
                        ((1, 4, 3, 3, 5), 3_000_000_011)):  # fmt: skip
        plain = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            state = torch.get_rng_state()
            found = student(shape, seed, dtype, torch.device("cpu") if dtype == torch.float16 else "cpu")
            if not isinstance(found, Tensor):
                raise Failed("a tensor", type(found).__name__, "the function does not return its result")
            same_shape(f"the noise of {shape}", found.double(), shape)
            if not torch.equal(state, torch.get_rng_state()):
                raise Failed("torch's own generator as it was", "it was used or seeded", "draw with generator=…")
            if found.dtype != dtype:
                raise Failed(f"noise in {dtype}", f"{found.dtype}")
            cause = next((f"it was drawn in {one}: other numbers come out. Draw in float32, then cast"
                          for one in (dtype, torch.float64, torch.float16, torch.bfloat16)
                          if torch.equal(_drawn_in(one, shape, seed).to(dtype), found)), "")  # fmt: skip
            close(f"the noise of seed {seed} in {dtype}", found.double(), plain.to(dtype).double(), 1e-9, cause)
    try:
        with Drawn() as drawn:
            placed = student((2, 3), 1, torch.float16, "meta")  # a device that is everywhere, and is not the CPU
    except RuntimeError as error:  # this device cannot draw
        raise Failed("numbers drawn on the CPU, also for another device", f"{type(error).__name__}: {error}",
                     "they are drawn on the device: draw on the CPU, then .to(device, dtype)") from None  # fmt: skip
    if (str(placed.device), placed.dtype) != ("meta", torch.float16):
        raise Failed("noise in torch.float16 on the device that was asked for", f"{placed.dtype} on {placed.device}",
                     ".to(device, dtype)")  # fmt: skip
    if drawn.places != {"cpu"}:
        raise Failed("numbers drawn on the CPU, also for another device", f"drawn on {', '.join(drawn.places) or 'none'}",
                     "a generator gives other numbers elsewhere: draw here, then .to(device, dtype)")  # fmt: skip
    return "five seeds, four precisions: the same numbers, rounded; drawn on the CPU for another device too"


def _drawn_in(dtype, shape, seed):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=dtype)


class Drawn(TorchDispatchMode):
    """Remembers on which devices random numbers are drawn."""

    def __init__(self):
        super().__init__()
        self.places = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in function.tags:
            self.places.add(result.device.type)
        return result
