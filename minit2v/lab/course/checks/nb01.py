"""Checks of notebook 01, Video is a tensor: a fold for temporal layers, differences, flicker, and one wrong unfold.

The references are loops that say what is meant, one number at a time; the solutions say the same in two lines. Where a
result equals that of a well-known mistake, the check names the mistake.
"""

from itertools import product

import torch
from torch import Tensor

from minit2v.lab.course.comparing import called, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape

_TESTS = "tests/test_ranges_and_folds.py::"
EQUATIONS = {
    "1.1": ("uint8 to [-1, 1]", _TESTS + "test_signed_pixels_are_exact_and_come_back"),
    "1.2": ("[-1, 1] to uint8", _TESTS + "test_what_is_cut_off_is_at_most_one_step_darker"),
    "1.3": ("frames seen as clips", _TESTS + "test_views_of_frames_and_clips_are_inverse"),
    "1.4": ("clips seen as frames", _TESTS + "test_views_of_frames_and_clips_are_inverse"),
    "1.5": ("centroid", _TESTS + "test_centroid_and_line_are_those_of_the_drawing"),
    "1.6": ("velocity", _TESTS + "test_centroid_and_line_are_those_of_the_drawing"),
}

QUIZ = [
    (
        "Two clips, x (2, 3, 16, 64, 64), go into a layer that looks within a frame. Which shape does it get?",
        ["(32, 3, 64, 64)", "(8192, 16, 3)", "(2, 48, 64, 64)"],
        0,
        "Frames become the batch: (b f) c h w with b f = 32. The second is what a layer along time gets: a batch of "
        "pixels. The third would make colours of different frames into channels.",
    ),
    (
        "With a batch of one everything is right; with two clips the videos are mixed. Where do you look first?",
        ["At the range of the numbers", "At the order of the names in a bracket, (b f) or (f b)", "At the frame rate"],
        1,
        "With b = 1 both orders are the same, so the mistake shows only with company. Test folds with sizes that are "
        "all different and larger than one.",
    ),
    (
        "Which clip gets the best possible flicker, zero, and is still the worst answer to “a circle moves left”?",
        ["A shuffled one", "A reversed one", "A frozen one"],
        2,
        "Nothing changes in it, so nothing flickers. A measure of smoothness needs a measure of motion beside it.",
    ),
]


def _cause(found, mistakes, otherwise):
    """The name of the mistake that gives this result."""
    found = found.double()
    for cause, wrong in mistakes.items():
        if wrong.shape == found.shape and torch.allclose(found, wrong.double(), atol=1e-6):
            return cause
    return otherwise


def to_time(frames: Tensor, f: int) -> Tensor:
    """Frames ((b f) c h w) as a batch of pixels ((b h w) f c), with reshape and permute alone."""
    n, c, h, w = frames.shape
    clips = frames.reshape(n // f, f, c, h, w)  # ((b f) c h w) -> (b f c h w)
    return clips.permute(0, 3, 4, 1, 2).reshape(-1, f, c)  # (b f c h w) -> (b h w f c) -> ((b h w) f c)


def to_time_by_loops(frames: Tensor, f: int) -> Tensor:
    """The same, one pixel at a time."""
    n, c, h, w = frames.shape
    rows = torch.empty(n // f * h * w, f, c, dtype=frames.dtype)
    for i, t, y, x in product(range(n // f), range(f), range(h), range(w)):
        rows[(i * h + y) * w + x, t] = frames[i * f + t, :, y, x]
    return rows


@exercise("1.1", name="to_time", solution=to_time, minutes=8, difficulty=2, importance=5)
def check_to_time(student):
    """On numbered elements, sizes that are all different, in both memory formats and in three dtypes."""
    sizes = {(2, 5, 3, 4, 6): torch.float32, (3, 2, 1, 2, 7): torch.float64, (1, 4, 2, 3, 3): torch.uint8}
    for (b, f, c, h, w), dtype in sizes.items():
        frames = torch.arange(b * f * c * h * w, dtype=dtype).reshape(b * f, c, h, w)
        swapped = frames.reshape(f, b, c, h, w)
        mistakes = {
            "a reshape alone keeps the order in which the numbers are read; permute between two reshapes":
                frames.reshape(b * h * w, f, c),
            "the rows run (h w b); the clip must be outermost, (b h w)":
                frames.reshape(b, f, c, h, w).permute(3, 4, 0, 1, 2).reshape(-1, f, c),
            "the rows run (b w h); w is the fastest, (b h w)":
                frames.reshape(b, f, c, h, w).permute(0, 4, 3, 1, 2).reshape(-1, f, c),
            "the frames were taken for (f b); they lie as (b f), so the first reshape is (b, f, c, h, w)":
                swapped.permute(1, 3, 4, 0, 2).reshape(-1, f, c),
        }  # fmt: skip
        wanted = to_time_by_loops(frames, f)
        for layout in (torch.contiguous_format, torch.channels_last):
            found = called(student, frames.contiguous(memory_format=layout), f, what="rows")
            what = f"(with b={b}, f={f}, c={c}, h={h}, w={w}) rows"
            same_shape(what, found, wanted.shape, "the result is (b h w, f, c): pixels, then frames, then c")
            cause = _cause(found, mistakes, "write the five names above every line; which of them is fastest?")
            close(what, found, wanted, 0, cause)
            same_dtype(what, found, dtype)
    return "every number in its place, for three batches in two memory formats"


def temporal_difference(clips: Tensor) -> Tensor:
    """Frame t + 1 minus frame t: (b c f h w) of any dtype -> (b c f-1 h w) float."""
    clips = clips.float()
    return clips[:, :, 1:] - clips[:, :, :-1]


@exercise("1.2", name="temporal_difference", solution=temporal_difference, minutes=5, difficulty=1, importance=4)
def check_temporal_difference(student):
    """On whole numbers as uint8 and as float: the first wraps around if it is subtracted as it is."""
    generator = torch.Generator().manual_seed(0)
    for shape, dtype in product(((2, 3, 5, 4, 6), (1, 1, 2, 3, 2), (3, 2, 8, 1, 3)), (torch.float32, torch.uint8)):
        numbers = torch.randint(0, 256, shape, generator=generator)
        expected = torch.zeros(*shape[:2], shape[2] - 1, *shape[3:])
        for t in range(shape[2] - 1):
            expected[:, :, t] = (numbers[:, :, t + 1] - numbers[:, :, t]) / (255 if dtype == torch.float32 else 1)
        clips = numbers.to(dtype) / 255 if dtype == torch.float32 else numbers.to(dtype)
        found = called(student, clips, what="differences")
        what = f"differences of {'uint8' if dtype == torch.uint8 else 'float'} clips"
        same_shape(what, found, expected.shape, "f frames have f - 1 differences, and f is axis 2 of b c f h w")
        if not found.is_floating_point():
            cause = "uint8 has no negative numbers: 24 - 235 is 45 there; convert to float before you subtract"
            cause = cause if found.dtype == torch.uint8 else ""
            raise Failed(f"{what} as float", str(found.dtype).removeprefix("torch."), cause)
        mistakes = {
            "the sign: what comes later minus what was before": -expected,
            "sizes without directions: leave out the absolute value": expected.abs(),
            "uint8 was subtracted before it became float, and 24 - 235 wraps around to 45": expected % 256,
        }
        cause = _cause(found, mistakes, "subtract along axis 2: all frames but the first, minus all but the last")
        close(what, found, expected, 1e-6, cause)
    return "right for uint8 and float, and negative where it becomes darker"


def flicker(clips: Tensor) -> Tensor:
    """Mean of what the next frame takes back: clips (b c f h w), f >= 3 -> (b,) float."""
    difference = temporal_difference(clips)
    first, second = difference[:, :, :-1], difference[:, :, 1:]
    taken_back = torch.minimum(first.abs(), second.abs()) * (first * second < 0)
    return taken_back.mean(dim=(1, 2, 3, 4))


def flicker_by_loops(clips: Tensor) -> Tensor:
    """The same, one number at a time."""
    b, c, f, h, w = clips.shape
    result = torch.zeros(b)
    for i, k, t, y, x in product(range(b), range(c), range(1, f - 1), range(h), range(w)):
        before, now, after = clips[i, k, t - 1 : t + 2, y, x].tolist()
        if (now - before) * (after - now) < 0:
            result[i] += min(abs(now - before), abs(after - now))
    return result / (c * (f - 2) * h * w)


@exercise("1.3", name="flicker", solution=flicker, minutes=10, difficulty=3, importance=4)
def check_flicker(student):
    """On clips whose flicker is known without computing, then on random ones against the loops."""
    still, up = torch.ones(1, 1, 6, 2, 2), torch.arange(6.0)[:, None, None] * torch.ones(1, 1, 6, 2, 2)
    lamp = up % 2
    known = {
        "a still clip": (still, 0.0, "nothing changes, so nothing is taken back"),
        "a clip that gets steadily brighter": (up, 0.0, "a change counts only if the next one has the other sign"),
        "a lamp, on and off, 0 1 0 1 0 1": (lamp, 1.0,
                                            "every change is taken back: its size counts, and the mean is over f - 2"),
        "0 3 1 3 0 0": (torch.tensor([0.0, 3, 1, 3, 0, 0]).reshape(1, 1, 6, 1, 1), 1.5,
                        "of +3 -2 +2 -3 0 the parts 2, 2, 2 and 0 are taken back: the smaller of two neighbours"),
    }  # fmt: skip
    for what, (clip, wanted, cause) in known.items():
        found = called(student, clip, what=f"flicker of {what}")
        same_shape(f"flicker of {what}", found, (1,), "one number a clip: take the mean over every axis but the first")
        close(f"flicker of {what}", found, [wanted], 1e-6, cause)
    generator = torch.Generator().manual_seed(0)
    for shape, size in (((3, 2, 5, 4, 3), 1.0), ((2, 1, 3, 2, 5), 0.01), ((4, 3, 6, 1, 2), 100.0)):  # f = 3 is the least
        clips = size * torch.randn(shape, generator=generator)
        what = f"flicker of {len(clips)} random clips"
        found = called(student, clips, what=what)
        same_shape(what, found, (len(clips),), "one number a clip: take the mean over every axis but the first")
        close(what, found, flicker_by_loops(clips), 1e-5 * size, "compare with the loops on a clip of one pixel")
    return "nothing for stillness and steady change, all of a lamp, and the loops' numbers on random clips"


def unfold(frames: Tensor, f: int) -> Tensor:
    """Frames ((b f) c h w) as clips (b c f h w)."""
    clips = frames.reshape(-1, f, *frames.shape[1:])  # ((b f) c h w) -> (b f c h w)
    return clips.permute(0, 2, 1, 3, 4)  # (b f c h w) -> (b c f h w)


@exercise("1.B", name="unfold", solution=unfold, minutes=5, difficulty=2, importance=5)
def check_unfold(student):
    """On numbered elements: with one clip, which proves little, and with two and three."""
    sizes = {(1, 4, 3, 2, 5): torch.float32, (2, 4, 3, 3, 2): torch.float64, (3, 5, 2, 2, 3): torch.uint8,
             (4, 2, 1, 3, 2): torch.float32}  # fmt: skip
    for (b, f, c, h, w), dtype in sizes.items():
        frames = torch.arange(b * f * c * h * w, dtype=dtype).reshape(b * f, c, h, w)
        wanted = torch.stack([torch.stack([frames[i * f + t] for t in range(f)], dim=1) for i in range(b)])
        what = f"clips for b={b}"
        found = called(student, frames, f, what=what)
        same_shape(what, found, wanted.shape, "the result is (b c f h w)")
        swapped = frames.reshape(f, b, c, h, w).permute(1, 2, 0, 3, 4)
        mistakes = {"where does frame t of clip i lie in (b f), and where does the reshape look for it?": swapped}
        cause = _cause(found, mistakes, "first cut the axis (b f) in two, then move c before f")
        begins = [int(n) // (c * h * w) for n in found[0, 0, :3, 0, 0].tolist()]
        if begins != [0, 1, 2][:f]:
            sequence = ", ".join(f"clip {n // f} frame {n % f}" for n in begins)
            raise Failed(f"clip 0 of {b} to begin with its frames {[0, 1, 2][:f]}", sequence, cause)
        close(what, found, wanted, 0, cause)
        same_dtype(what, found, dtype)
    return "every frame in its own clip, for batches of 1, 2 and 3"
