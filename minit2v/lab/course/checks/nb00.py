"""Checks of notebook 00, Take-off: shapes, when a run comes close, a pipeline by hand, the way of a thing, one seed a clip."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch

import minit2v
from minit2v import presets
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided
from minit2v.lab.course.comparing import called, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise
from minit2v.lab.course.questions import Question

EQUATIONS = {}  # this notebook looks from the outside; the equations begin in 01

QUIZ = [
    (
        "How often does the autoencoder's decoder work while one clip is made with 50 steps?",
        ["Once, at the end", "50 times", "100 times, because of guidance"],
        0,
        "The loop works on latents from its first step to its last. Only a recording decodes in between, to show you.",
    ),
    (
        "Two prompts are given the same noise, and their first beliefs x0 differ. Where does the difference come from?",
        ["From the sampler's random numbers", "From the words", "From the decoder"],
        1,
        "DDIM draws nothing, and the decoder is the same for both. Only the context that the UNet reads is different.",
    ),
    (
        "A clip twice as high and twice as wide: how many times more numbers does the UNet work on?",
        ["2", "4", "32"],
        1,
        "Latents have an eighth of the height and an eighth of the width, whatever these are: four times the pixels "
        "are four times the latents.",
    ),
]

PREDICTIONS = {
    "0.a": Question("A cell of the latent video stands for 8 × 8 pixels. How many times fewer numbers than the clip does "
                    "the latent video have?", "48", ("8", "48", "64", "192")),
    "0.b": Question("At which of the steps 0 to 11 is there first something red in most frames of the belief x0?",
                    "in step 0", ("in step 0", "in steps 1 to 4", "in steps 5 to 8", "in steps 9 to 11")),
    "0.c": Question("Words reach the UNet through the embedding alone. What does the clip still get right?",
                    "how the thing looks", ("how the thing looks", "how it moves", "both", "neither")),
}  # fmt: skip


def _habit(found: list, given: Iterable[tuple], mistakes: dict[str, Callable]) -> str:
    """The first mistake that gives what was found for everything given, or no cause: one equal answer may be chance."""
    given = list(given)
    for cause, ways in mistakes.items():
        for wrong in ways if isinstance(ways, tuple) else (ways,):
            if all(_same(wrong(*arguments), one) for arguments, one in zip(given, found)):
                return cause
    return ""


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _answers(student: Callable, given: Iterable[tuple], of: Callable = lambda answer: answer) -> list:
    """What the student answers for everything given; where that fails, the error, which equals no answer."""
    answers = []
    for arguments in given:
        try:
            answers.append(of(student(*(one.copy() if isinstance(one, np.ndarray) else one for one in arguments))))
        except Exception as error:  # the student's code may raise anything
            answers.append(error)
    return answers


# --- 0.1


def shapes(preset, b, frames, height, width):
    """The shapes that pass between the parts of the pipeline, as a dictionary of tuples."""
    factor, c = preset.autoencoder.factor, preset.autoencoder.latent_channels
    h, w = height // factor, width // factor
    return {
        "context": (b, preset.text.context_length, preset.text.width),
        "noise": (b, c, frames, h, w),
        "latent frames": (b * frames, c, h, w),
        "pixels": (b, frames, height, width, 3),
    }


def _mistaken_shapes(preset, b, f, H, W) -> dict[str, dict[str, tuple]]:
    """What people write for each shape: key -> cause -> shape."""
    c, s, n, d = preset.autoencoder.latent_channels, preset.autoencoder.factor, preset.text.context_length, preset.text.width
    h, w = H // s, W // s
    mistakes = {
        "context": {
            "the batch is missing": (n, d),
            "tokens come before their numbers": (b, d, n),
            "the batch comes first": (n, b, d),
            "a text belongs to a clip, not to each frame": (b * f, n, d),
            "embed_dim belongs to another part of the text encoder; the tokens have its width": (b, n, preset.text.embed_dim),
            "n is the number of tokens, not of frames": (b, f, d),
            "this is the UNet's width for texts; the text encoder has its own": (b, n, preset.unet.context_dim),
        },
        "noise": {
            "noise has the size of latents, not of pixels": (b, c, f, H, W),
            "the frames were divided by the factor too": (b, c, f // s, h, w),
            "channels come before frames": (b, f, c, h, w),
            "channels come second, not last": (b, f, h, w, c),
            "height comes before width": (b, c, f, w, h),
            "latents have their own number of channels, not three colours": (b, 3, f, h, w),
            "the batch is missing": (c, f, h, w),
            "frames and clips were put in one row; here they stay apart": (b * f, c, h, w),
            "only one side was divided": (b, c, f, h, W),
        },
        "latent frames": {
            "clips and frames still stand apart; they go into one row": (b, f, c, h, w),
            "these are the frames of one clip; there are several": (f, c, h, w),
            "one for each clip; every clip has several frames": (b, c, h, w),
            "clips and frames were added": (b + f, c, h, w),
            "channels come before height and width": (b * f, h, w, c),
            "these are pixels; the frames here are still latent": (b * f, 3, H, W),
            "height and width are those of pixels": (b * f, c, H, W),
            "height comes before width": (b * f, c, w, h),
        },
        "pixels": {
            "colours come last": (b, f, 3, H, W),
            "colours come last, frames second": (b, 3, f, H, W),
            "height and width are those of latents": (b, f, h, w, 3),
            "height and width were multiplied; they are in pixels already": (b, f, H * s, W * s, 3),
            "pixels have three colours, however many channels latents have": (b, f, H, W, preset.autoencoder.latent_channels),
            "frames and clips were put in one row; here they stay apart": (b * f, H, W, 3),
            "height comes before width": (b, f, W, H, 3),
            "the batch is missing": (f, H, W, 3),
        },
    }
    constant = {
        "b is an argument; here it is 1 whatever is asked": shapes(preset, 1, f, H, W),
        "frames is an argument; here there are 16 whatever is asked": shapes(preset, b, 16, H, W),
        "height and width are arguments; here they are 64 whatever is asked": shapes(preset, b, f, 64, 64),
        "height is used for both sides": shapes(preset, b, f, H, H),
        "width is used for both sides": shapes(preset, b, f, W, W),
        "these are mini's numbers; the preset is an argument": shapes(presets.get("mini"), b, f, H, W),
        "height, width or frames of the preset; here the arguments count":
            shapes(preset, b, preset.frames, preset.height, preset.width),
    }  # fmt: skip
    return {key: ones | {cause: all_[key] for cause, all_ in constant.items()} for key, ones in mistakes.items()}


@exercise("0.1", name="shapes", solution=shapes, minutes=6, difficulty=1, importance=5)
def check_shapes(student):
    """At models of different factors and channels, and sizes no two of which can be taken for one another."""
    mini = presets.get("mini")
    other = replace(mini, autoencoder=replace(mini.autoencoder, latent_channels=6, multipliers=(1, 2, 4)),
                    text=replace(mini.text, context_length=24, width=96, embed_dim=80))  # fmt: skip
    models = {"mini": mini, "modelscope-1.7b": presets.get("modelscope-1.7b"), "a made-up model": other}
    sizes = ((2, 5, 96, 128), (7, 9, 96, 32), (2, 11, 48, 80), (1, 16, 64, 64), (3, 2, 24, 160))
    for name, (b, frames, height, width) in zip((*models, "mini", "a made-up model"), sizes):
        arguments = models[name], b, frames, height, width
        found, expected = student(*arguments), shapes(*arguments)
        if not isinstance(found, dict) or set(found) != set(expected):
            keys = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
            cause = "the function does not return its result" if found is None else ""
            if isinstance(found, dict):
                cause = "a key is missing or misspelt" if set(expected) - set(found) else "a key too many"
            raise Failed(f"a dictionary with the keys {sorted(expected)}", keys, cause)
        for key, shape in expected.items():
            wanted = f"{key} {shape} for {name}, b={b}, frames={frames}, {height}x{width}"
            if not isinstance(found[key], tuple):
                raise Failed(wanted, f"{type(found[key]).__name__} {found[key]}", "each shape is a tuple")
            if found[key] != shape:
                mistakes = _mistaken_shapes(*arguments)[key]
                raise Failed(wanted, found[key], next((cause for cause, one in mistakes.items() if one == found[key]), ""))
            if not all(isinstance(size, Integral) for size in found[key]):
                broken = any(isinstance(size, float) for size in found[key])
                raise Failed(wanted, found[key], "/ gives a number with a point, // a whole one" if broken else "")
    return "all four shapes, for mini, for the released model and for one that nobody has built"


# --- 0.2


def first_close(videos, share):
    """Index of the first step from which on all beliefs (s, f, H, W, 3) are close to the last one."""
    videos = videos.astype(float)
    distance = abs(videos - videos[-1]).reshape(len(videos), -1).mean(axis=1)
    first = len(videos) - 1
    while first > 0 and distance[first - 1] <= share * distance[0]:
        first -= 1
    return first


def _closing(of=lambda d: abs(d).mean(), *, to=lambda v, i: v[-1], limit=lambda d, share: share * d[0],
             near=np.less_equal, dtype=float, once=False, late=0, none=lambda last: last + 1):  # fmt: skip
    """first_close with another distance `of` the differences, another video to compare with, another idea of close."""

    def first(videos, share):
        videos = videos.astype(dtype)
        distance = np.array([of(one - to(videos, i)) for i, one in enumerate(videos)], float)
        is_near = near(distance, limit(distance, share))
        if once:
            return int(is_near.argmax()) + late
        found = int(max([-1, *np.flatnonzero(~is_near)])) + 1 + late
        return found if found < len(videos) else none(len(videos) - 1)

    return first


def _zero_where_the_ends_agree(videos, share):
    return 0 if (videos[0] == videos[-1]).all() else first_close(videos, share)


STEP_MISTAKES = {
    "uint8 numbers were subtracted: 3 - 5 is 254 there": _closing(dtype=np.uint8),
    "the differences keep their signs and cancel one another": _closing(lambda d: d.mean()),
    "the sign was dropped after the mean, when the differences had cancelled one another": _closing(lambda d: abs(d.mean())),
    "the median of the differences, not their mean": _closing(lambda d: np.median(abs(d))),
    "the largest difference, not their mean": _closing(lambda d: abs(d).max()),
    "the differences were squared": _closing(lambda d: (d**2).mean()),
    "the differences were squared, and a root was taken": _closing(lambda d: (d**2).mean() ** 0.5),
    "only the first of the three colours was compared": _closing(lambda d: abs(d[..., 0]).mean()),
    "only the second of the three colours was compared": _closing(lambda d: abs(d[..., 1]).mean()),
    "only the third of the three colours was compared": _closing(lambda d: abs(d[..., 2]).mean()),
    "only the first frame was compared": _closing(lambda d: abs(d[0]).mean()),
    "only the last frame was compared": _closing(lambda d: abs(d[-1]).mean()),
    "one close step was enough, though a later one is far away again": _closing(once=True),
    "a distance that is exactly the share counts as close, too": (
        _closing(near=np.less), _closing(near=np.less, none=lambda last: last), _closing(near=np.less, none=lambda last: 0),
        _closing(near=np.less, none=lambda last: None)),
    "step 0 is equal to the last one, and steps between them are not: the beliefs are close for good only after these":
        _zero_where_the_ends_agree,
    "the share was taken of the largest distance": _closing(limit=lambda d, share: share * d.max()),
    "the distance was compared with the share alone": _closing(limit=lambda d, share: share),
    "the distance was compared with share times 255": _closing(limit=lambda d, share: 255 * share),
    "1 - share stands where share should": _closing(limit=lambda d, share: (1 - share) * d[0]),
    "each step was compared with the first or with the one before it, not with the last": _closing(to=lambda v, i: v[0]),
    "steps count from 0": _closing(late=1),
    "this is the last step that is not close": _closing(late=-1),
}  # fmt: skip


def _made_up_runs() -> Iterable[tuple[str, np.ndarray, float, int]]:
    """What a run is, its videos, the share, and the step."""
    runs = {
        "a run that falls evenly": ([100, 80, 60, 40, 20, 0], 0.5, 3),
        "a run that comes near and leaves again": ([100, 10, 90, 30, 10, 0], 0.5, 3),
        "a run in which nothing changes": ([7, 7, 7], 0.5, 0),
        "a run that begins like its end and leaves it in between": ([0, 50, 0], 0.25, 2),
        "share 0.25 of a run with a step at exactly 25 %": ([80, 60, 20, 10, 0], 0.25, 2),
        "share 0 of a run that falls to its end": ([80, 60, 40, 20], 0.0, 3),
        "share 1 of a run that falls": ([80, 60, 20], 1.0, 0),
        "a run of one step": ([5], 0.5, 0),
        "a run that misses a half by a hair": ([200, 100, 0], 0.5, 2),
    }
    for what, (levels, share, expected) in runs.items():
        videos = 250 - np.array(levels, np.uint8)[:, None, None, None, None] * np.ones((1, 2, 8, 8, 3), np.uint8)
        if share == 0.5 and levels[-1] == 0:
            videos[-1, 0, 0, 0, 0] += 1  # the distances are no whole numbers
        yield what, videos, share, expected
    random = np.random.default_rng(0)
    for share in random.random(200):  # frames and colours differ more or less from the last: no other distance agrees on all
        shape = random.integers(1, 20), 3, 4, 5, 3
        changed = random.random(shape) < random.random((shape[0], 3, 1, 1, 3)) ** 2
        videos = np.where(changed, random.integers(0, 256, shape), random.integers(0, 256, shape[1:])).astype(np.uint8)
        yield f"a random run, share {share:.3f}", videos, share, first_close(videos, share)


@exercise("0.2", name="first_close", solution=first_close, minutes=6, difficulty=2, importance=3)
def check_first_close(student):
    """On made-up runs whose distances are known: falling, falling and rising again, standing still; then on random ones."""
    runs = list(_made_up_runs())
    for what, videos, share, expected in runs:
        given = videos.copy()
        found = student(given, share)
        whole = isinstance(found, Integral) and not isinstance(found, bool)
        cause = ""
        if found != expected:
            all_given = [(one, part) for _, one, part, _ in runs]
            answers = _answers(student, all_given, lambda answer: None if answer is None else int(answer))
            nothing = all(answer is None for answer in answers)
            cause = "the function does not return its result" if nothing else _habit(answers, all_given, STEP_MISTAKES)
        if not whole:
            raise Failed(f"step {expected}, a whole number, for {what}",
                         "None" if found is None else f"{type(found).__name__} {found}", cause)
        if not np.array_equal(given, videos):
            raise Failed("the videos as they were", "they were changed", "an operation in place, such as videos -= …")
        if found != expected:
            raise Failed(f"step {expected} for {what}", found, cause)
    return f"right on {len(runs)} made-up runs, some of which come near and leave again"


# --- 0.3


def generate(pipe, prompt, seed):
    """The pixels (f, H, W, 3), uint8, of the pipeline's clip for a prompt and a seed."""
    context, nothing = pipe.text.encode([prompt]), pipe.text.encode([""])
    noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(seed)).to(pipe.device)
    model = guided(pipe.unet, context, nothing, pipe.preset.guidance)
    with torch.inference_mode():
        for step in SAMPLERS["ddim"](model, noise, pipe.diffusion, pipe.preset.steps):
            pass
    return pipe.decode(step.x)[0]


class _Parts:
    """A pipeline without the methods that do it all, and with settings of its own. Nothing in it may be set."""

    def __init__(self, pipe, preset):
        vars(self).update(_pipe=pipe, preset=preset)

    def __getattr__(self, name):
        if name in ("stream", "sampled", "steps"):
            raise Failed("the parts put together", f"pipe.{name}", "use text.encode, gaussian, guided and SAMPLERS")
        return getattr(self._pipe, name)

    def __setattr__(self, name, value):
        raise Failed("pipe as it was", f"pipe.{name} was set")

    def __call__(self, *_, **__):
        raise Failed("the parts put together", "pipe(…)", "use text.encode, gaussian, guided and SAMPLERS")


NOTEBOOKS_PROMPT = "a large red circle moves left quickly"  # of the cells above the exercise


@exercise("0.3", name="generate", solution=generate, minutes=8, difficulty=3, importance=5)
def check_generate(student):
    """Against the pipeline itself, which must not be called."""
    pipe = minit2v.load("mini", device="cpu")
    preset = replace(pipe.preset, steps=4, guidance=pipe.preset.guidance + 1)  # others than a student can have written down
    networks = {name: getattr(pipe, name) for name in ("text", "unet", "autoencoder")}
    weights = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in networks.items()}
    for prompt, seed in (("a small green square moves down", 3), ("a large red ring moves left", 11)):
        settings = {"seed": seed, "steps": preset.steps, "guidance": preset.guidance}
        expected = pipe(prompt, **settings).pixels
        found = student(_Parts(pipe, preset), prompt, seed)
        for name, part in networks.items():
            if not all(torch.equal(value, weights[name][key]) for key, value in part.state_dict().items()):
                raise Failed(f"the weights of pipe.{name} as they were", "they were changed")
        wrong_shapes = {(1, *expected.shape): "decode returns a batch; take its only clip",
                        (1, 4, 16, 8, 8): "these are latents; pipe.decode turns them into pixels",
                        (4, 16, 8, 8): "these are latents; pipe.decode turns them into pixels"}  # fmt: skip
        cause = wrong_shapes.get(tuple(getattr(found, "shape", ())), "")
        if tuple(getattr(found, "shape", ())) == expected.shape and not np.allclose(found, expected, atol=1):
            cause = _cause_of_pixels(pipe, preset, prompt, seed, found)
        close("pixels", found, expected, 1, cause)
        if (differ := (np.asarray(found) != expected).mean()) > 0.01:  # another order of sums may round a few otherwise
            raise Failed("the pixels of the library", f"{differ:.0%} of them one more or less")
        if getattr(found, "dtype", None) != np.uint8 or not isinstance(found, np.ndarray):
            raise Failed("pixels as a numpy array of uint8", f"{type(found).__name__} {getattr(found, 'dtype', '')}".strip())
    return f"{expected.size:,} numbers as the library makes them"


def _cause_of_pixels(pipe, preset, prompt, seed, found):
    """The mistake that gives these pixels, if it is a known one."""
    own = pipe.preset

    def made(*, steps=preset.steps, scale=preset.guidance, words=prompt, other="", start=seed, sampler="ddim", noise=gaussian,
             end=lambda every: every[-1].x):  # fmt: skip
        context, nothing = pipe.text.encode([words]), pipe.text.encode([other])
        x = noise((1, 4, 16, 8, 8), torch.Generator().manual_seed(start))
        with torch.inference_mode():
            every = list(SAMPLERS[sampler](guided(pipe.unet, context, nothing, scale), x, pipe.diffusion, steps))
        return pipe.decode(end(every))[0]

    mistakes = {
        "guidance is that of pipe.preset; the check has changed it": lambda: made(scale=own.guidance),
        "this is the clip of seed 0": lambda: made(start=0),
        "this is the clip of the notebook's prompt": lambda: made(words=NOTEBOOKS_PROMPT),
        "prompt and empty prompt are exchanged": lambda: made(words="", other=prompt),
        "this is a clip without guidance": lambda: made(scale=1.0),
        "this is the clip of the empty prompt": lambda: made(words=""),
        "the loop ended after its first step": lambda: made(end=lambda every: every[0].x),
        "the belief x0 of the first step was decoded": lambda: made(end=lambda every: every[0].x0),
        "the belief x0 was decoded, not the video x": lambda: made(end=lambda every: every[-1].x0),
        "the loop ended one step too early": lambda: made(end=lambda every: every[-2].x),
        "the noise is drawn evenly between 0 and 1": lambda: made(noise=lambda shape, rng: torch.rand(shape, generator=rng)),
        "steps and guidance are those of pipe.preset; the check has changed them":
            lambda: made(steps=own.steps, scale=own.guidance),
        "the number of steps is that of pipe.preset; the check has changed it": lambda: made(steps=own.steps),
    }  # fmt: skip
    return next((cause for cause, wrong in mistakes.items() if np.allclose(found, wrong(), atol=1)), "")


# --- 0.4


def which_way(pixels, least):
    """Where the thing of a clip (f, H, W, 3) is in each frame, (f, 2), and "left", "right", "up", "down" or None."""
    clip = pixels.astype(np.float64)
    unlike = abs(clip - np.median(clip, axis=(0, 1, 2))).sum(axis=3)
    unlike[unlike < least] = 0
    centres = np.full((len(clip), 2), np.nan)
    for t, frame in enumerate(unlike):
        if frame.any():
            centres[t] = [np.average(np.arange(frame.shape[1 - i]), weights=frame.sum(axis=i)) for i in (0, 1)]
    shown = centres[~np.isnan(centres[:, 0])]
    if len(shown) < 2:
        return centres, None
    dx, dy = shown[-1] - shown[0]
    if max(abs(dx), abs(dy)) < 1:
        return centres, None
    if abs(dx) > abs(dy):
        return centres, "right" if dx > 0 else "left"
    return centres, "down" if dy > 0 else "up"


def _centres(pixels, least, *, ground=lambda clip: np.median(clip, axis=(0, 1, 2)), signed=False, dtype=float, even=False,
             near=np.less, colours=lambda d: d.sum(axis=3), order=1, first=0):  # fmt: skip
    """Centres (f, 2) with one thing wrong; zeros where nothing is."""
    clip = pixels.astype(dtype)
    difference = clip - ground(clip).astype(dtype)
    unlike = colours(difference if signed else abs(difference))
    unlike = np.where(near(unlike, least), 0, (unlike * 0 + 1) if even else unlike).astype(float)
    with np.errstate(all="ignore"):
        mass = unlike.sum(axis=(1, 2))
        x, y = (unlike.sum(axis=axis) @ np.arange(first, unlike.shape[3 - axis] + first) / mass for axis in (1, 2))
    return np.nan_to_num(np.stack([x, y][::order], axis=1), nan=0.0, posinf=0.0, neginf=0.0)


CENTRE_MISTAKES = {
    "y stands before x": dict(order=-1),
    "columns and rows count from 0": dict(first=1),
    "uint8 numbers were subtracted: 3 - 5 is 254 there": dict(dtype=np.uint8),
    "the differences keep their signs: a thing that is darker than the ground is lost": dict(signed=True),
    "all pixels of the thing count alike; they should count by how unlike the ground they are": dict(even=True),
    "no pixel was set to 0, so the ground pulls as well": dict(near=lambda unlike, least: unlike < 0),
    "a pixel that is unlike by exactly `least` belongs to the thing": dict(near=np.less_equal),
    "the ground was taken as black": dict(ground=lambda clip: np.zeros(3)),
    "the ground is the median, not the mean": dict(ground=lambda clip: clip.mean(axis=(0, 1, 2))),
    "the ground was taken from a corner; a thing may be there": dict(ground=lambda clip: clip[0, 0, 0]),
    "the ground was taken from the first frame, the thing included": dict(ground=lambda clip: clip[0]),
    "the ground was taken from each frame by itself; it is the median of all frames together":
        dict(ground=lambda clip: np.median(clip, axis=(1, 2), keepdims=True)),
    "the ground was taken from each pixel over time; a thing that is slow hides there":
        dict(ground=lambda clip: np.median(clip, axis=0)),
    "the ground has one number for all three colours": dict(ground=lambda clip: np.full(3, np.median(clip))),
    "the three colours were averaged, not added, before they were compared with `least`":
        dict(colours=lambda d: d.mean(axis=3)),
    "the largest of the three colours was taken, not their sum": dict(colours=lambda d: d.max(axis=3)),
    "the squares were added, and a root was taken": dict(colours=lambda d: (d**2).sum(axis=3) ** 0.5),
    "only the first of the three colours was compared": dict(colours=lambda d: d[..., 0]),
}  # fmt: skip


def _word(centres, *, up=1, right=1, swap=False, sides=None, still=1.0, shown=True, ends=lambda c: c[-1] - c[0], axes=(0, 1),
          length=np.max):  # fmt: skip
    """The word for right centres, with one thing wrong."""
    seen = centres[~np.isnan(centres[:, 0])] if shown else np.nan_to_num(centres)
    if len(seen) < 2:
        return None
    way = ends(seen)
    if not length(abs(way)) >= still:
        return None
    dx, dy = (way / (1 if sides is None else sides))[list(axes)]
    if (abs(dx) > abs(dy)) != swap:
        return "right" if right * dx > 0 else "left"
    return "down" if up * dy > 0 else "up"


def _lost(word, counted):
    """The word of a way from nan or to nan, with which every comparison is false; `counted`: if two centres are there."""
    def told(centres, size):
        enough = (~np.isnan(centres[:, 0])).sum() > 1 or not counted
        return word if enough and np.isnan(centres[[0, -1]]).any() else _word(centres)

    return told


WORD_MISTAKES = {
    "a thing that moves along one of the two sides alone moves too: it stands still if both ways are shorter than a pixel":
        lambda c, size: _word(c, length=np.min),
    "the length of the whole way was compared with a pixel; x and y are compared each on its own":
        lambda c, size: _word(c, length=lambda way: np.hypot(*way)),
    "x and y were added before they were compared with a pixel; they are compared each on its own":
        lambda c, size: _word(c, length=np.sum),
    "the first or the last centre is nan where that frame shows nothing; take the first and the last that are not nan":
        tuple(_lost(word, counted) for word in ("left", "right", "up", "down", None) for counted in (True, False)),
    "rows count from the top: a thing whose y grows moves down": lambda c, size: _word(c, up=-1),
    "columns count from the left: a thing whose x grows moves right": lambda c, size: _word(c, right=-1),
    "the way was read backwards, from the end to the start": lambda c, size: _word(c, up=-1, right=-1),
    "the shorter of the two ways was taken": lambda c, size: _word(c, swap=True),
    "x and y are exchanged": lambda c, size: _word(c, axes=(1, 0)),
    "a thing that moves less than a pixel stands still": lambda c, size: _word(c, still=1e-9),
    "frames that show nothing were taken as places": lambda c, size: _word(c, shown=False),
    "the ways were divided by width and height; count in pixels": lambda c, size: _word(c, sides=np.array(size)),
    "the first two centres alone decided": lambda c, size: _word(c, ends=lambda c: c[1] - c[0]),
    "the last two centres alone decided": lambda c, size: _word(c, ends=lambda c: c[-1] - c[-2]),
    "a thing that stands still gets no word, None": lambda c, size: _word(c) or "still",
}


def _scenes():
    """(what, clip uint8 (f, H, W, 3), least): grounds of all kinds, things that shade, leave and come back."""
    random = np.random.default_rng(0)

    def drawn(H, W, ground, places, size, thing, noise=3, shade=0.0):
        clip = np.array(ground) + random.integers(-noise, noise + 1, (len(places), H, W, 3))
        for frame, place in zip(clip, places):
            if place is not None:
                (x, y), (h, w) = place, size
                strength = 1 - shade * np.arange(w) / w  # fades to the right
                frame[y : y + h, x : x + w] = ground + (np.array(thing) - ground) * strength[None, :, None]
        return clip.clip(0, 255).astype(np.uint8)

    def crept(dx, dy):
        """A thing of 7 x 6 pixels that moves by less than one: pixels at its edges are covered in part."""
        clip = drawn(18, 22, dark, [(7, 6)] * 3, (6, 7), (230, 210, 250))
        x, y = (np.diff(np.clip(np.arange(n + 1), start, end)) for n, start, end in (
            (22, 7 + dx, 14 + dx), (18, 6 + dy, 12 + dy)))  # fmt: skip
        clip[2] = (np.array(dark) + np.outer(y, x)[..., None] * (np.array((230, 210, 250)) - dark)).round()
        return clip

    dark, pale, sea = (20, 22, 26), (210, 190, 230), (30, 90, 160)
    yield "a thing that moves right over a dark ground", drawn(
        20, 44, dark, [(2 + 3 * t, 7) for t in range(8)], (6, 9), (120, 60, 230), shade=0.6), 60
    yield "a dark thing that moves up over a pale ground", drawn(
        40, 26, pale, [(9 - t // 2, 30 - 3 * t) for t in range(9)], (7, 6), (40, 30, 90), shade=0.4), 90
    yield "a thing that comes from the corner of the first frame and moves down", drawn(
        36, 24, sea, [(t // 3, 3 * t) for t in range(7)], (5, 8), (250, 240, 60)), 75.5
    yield "a thing that appears late and is gone before the end, moving left", drawn(
        18, 50, dark, [None, None, *((38 - 4 * t, 6) for t in range(7)), None], (5, 7), (60, 200, 90), shade=0.5), 50
    yield "a thing that appears late and moves right", drawn(
        18, 50, dark, [None, *((4 + 4 * t, 6) for t in range(7))], (5, 7), (60, 200, 90), shade=0.5), 50
    yield "a thing that goes out and comes back", drawn(
        22, 30, sea, [(3, 5), (8, 5), (14, 6), (9, 5), (3, 5)], (6, 6), (240, 120, 40)), 80
    for dx, dy in ((0.85, 0.7), (0.7, 0.5)):
        yield f"a thing that moves by less than a pixel both in x and in y, {dx} and {dy}", crept(dx, dy), 60
    large = drawn(20, 30, dark, [(2 + 3 * t, 8) for t in range(7)], (5, 6), (90, 200, 240))
    large[2:4, :18, :] = large[2:4, :18, :] // 2 + np.array((120, 30, 30), np.uint8)
    yield "a thing that is larger than half of the frame in two frames of seven", large, 70
    yield "a thing in one frame only", drawn(16, 20, dark, [None, (6, 4), None], (5, 5), (90, 90, 250)), 60
    yield "a clip that shows nothing", drawn(12, 18, pale, [None] * 3, (1, 1), pale), 40
    yield "a thing that stands still while it changes its shade", np.concatenate([drawn(
        24, 20, dark, [(6, 9)], (7, 8), (200, 180, 60), shade=shade) for shade in (0.0, 0.2, 0.3, 0.4)]), 60
    yield "a thing that moves down more than right in a clip that is high and narrow", drawn(
        64, 20, dark, [(1 + 2 * t, 20 + 3 * t) for t in range(6)], (6, 5), (250, 80, 190)), 55
    yield "a thing that moves down a long way and turns a little back up at last", drawn(
        60, 18, sea, [(5, 4), (5, 3), (6, 18), (6, 33), (7, 48), (7, 46)], (6, 7), (250, 250, 250)), 120
    two = drawn(21, 33, dark, [(2 + 5 * t, 9) for t in range(5)], (4, 6), (220, 40, 60), noise=0)
    for t in range(5):  # a shade that is too pale by 1 moves the other way; one that is just dark enough moves along
        two[t, 2:5, 25 - 5 * t : 30 - 5 * t] = np.array(dark) + (33, 33, 33)
        two[t, 15:18, 3 + 5 * t : 6 + 5 * t] = np.array(dark) + (30, 40, 30)
    yield "a clip with a shade just above and one just below `least`", two, 100
    yield "a clip whose `least` is no whole number", two, 99.5
    for _ in range(20):
        f, H, W = random.integers((3, 24, 24), (9, 48, 48))
        ground, thing = random.integers(0, 256, (2, 3))
        if abs(ground - thing).sum() > 200:
            step = random.integers(-12, 13, 2) / (f - 1)
            places = [tuple(np.array([W // 2 - 3, H // 2 - 3]) + (step * (t - f / 2)).round().astype(int)) for t in range(f)]
            yield "a random clip", drawn(H, W, ground, places, (5, 6), thing, shade=0.3), 50


def _decided(pixels, least):
    """Whether no rounding can change the word: not near a pixel of way, nor near as far across as up and down."""
    seen = which_way(pixels, least)[0]
    seen = seen[~np.isnan(seen[:, 0])]
    if len(seen) < 2:
        return True
    dx, dy = abs(seen[-1] - seen[0])
    return not 0.9 < max(dx, dy) < 1.1 and (max(dx, dy) < 1 or abs(dx - dy) > 0.05)


@exercise("0.4", name="which_way", solution=which_way, minutes=20, difficulty=3, importance=4)
def check_which_way(student):
    """Grounds that are dark, pale and coloured; things that shade, leave and come back; sizes that are not square."""
    scenes = [scene for scene in _scenes() if _decided(*scene[1:])]
    for what, pixels, least in scenes:
        given = pixels.copy()
        found, (centres, word) = student(given, least), which_way(pixels, least)
        if not (isinstance(found, tuple) and len(found) == 2):
            cause = "the function does not return its result" if found is None else ""
            raise Failed(f"two results for {what}: centres, word", f"{type(found).__name__}", cause)
        if not np.array_equal(given, pixels):
            raise Failed("the pixels as they were", "they were changed", "an operation in place, such as pixels[…] = 0")
        _same_centres(what, found[0], centres, pixels, least)
        if not _same(_plain(found[1]), word):
            arguments, sizes = [one[1:] for one in scenes], [(one[1].shape[2], one[1].shape[1]) for one in scenes]
            known = [(which_way(*one)[0], size) for one, size in zip(arguments, sizes)]
            answers = _answers(student, arguments, lambda answer: _plain(answer[1]))
            raise Failed(f"{word!r} for {what}", f"{found[1]!r}", _habit(answers, known, WORD_MISTAKES))
    return f"centres and words of {len(scenes)} clips, wide and high, dark and pale"


def _plain(word):
    return str(word) if isinstance(word, str) else word  # numpy has texts of its own


def _same_centres(what, found, expected, pixels, least):
    """Raise Failed unless the centres are right, and nan where a frame shows nothing."""
    name = f"the centres of {what}"
    if not isinstance(found, np.ndarray):
        cause = "np.array makes one of a list" if isinstance(found, list) else ""
        raise Failed(f"{name} as a numpy array", type(found).__name__, cause)
    tensor = lambda array: torch.from_numpy(np.nan_to_num(np.asarray(array, np.float64), nan=0.0))  # noqa: E731
    mistakes = {cause: (lambda wrong=wrong: tensor(_centres(pixels, least, **wrong)))
                for cause, wrong in CENTRE_MISTAKES.items()}  # fmt: skip
    mistakes["y and x are rows of the array; each frame has a row of its own"] = lambda: tensor(expected.T)
    if found.dtype.kind != "f":
        raise Failed(f"{name} as float numbers", f"dtype {found.dtype}")
    if found.shape == expected.shape:
        differ = (np.isnan(found) != np.isnan(expected)).any(axis=1)
        if differ.any():
            t = int(differ.argmax())
            wanted = "nan twice, for it shows nothing" if np.isnan(expected[t]).all() else f"{expected[t].round(2).tolist()}"
            raise Failed(f"{name}: frame {t} {wanted}", f"{found[t].round(2).tolist()}")
    recognised(name, tensor(found), tensor(expected), mistakes, tolerance=2e-3)


# --- 0.B


def noises(prompts, seed):
    """Starting noise (b, 4, 16, 8, 8); that of prompt i depends on seed + i alone."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return torch.cat([torch.randn(1, 4, 16, 8, 8, generator=one) for one in generators])


def _drawn(seeds, draw=torch.randn):
    return torch.cat([draw(1, 4, 16, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _of_one_generator(prompts, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(1, 4, 16, 8, 8, generator=generator) for _ in prompts])


NOISE_MISTAKES = {
    "all prompts share one generator": _of_one_generator,
    "every prompt has the same noise": lambda prompts, seed: _drawn([seed] * len(prompts)),
    "prompts are counted from 0: the first one has the seed itself":
        lambda prompts, seed: _drawn(seed + 1 + i for i in range(len(prompts))),
    "the seed is not used": lambda prompts, seed: _drawn(range(len(prompts))),
    "seeds fall from prompt to prompt": lambda prompts, seed: _drawn(seed - i for i in range(len(prompts))),
    "the prompts are in the opposite order": lambda prompts, seed: noises(prompts, seed).flip(0),
    "the numbers are drawn evenly between 0 and 1, not from the normal distribution":
        lambda prompts, seed: _drawn((seed + i for i in range(len(prompts))), torch.rand),
    "equal prompts have equal noise; only their places may matter":
        lambda prompts, seed: _drawn(seed + list(prompts).index(one) for one in prompts),
    "the order of the alphabet decides; only places may matter":
        lambda prompts, seed: _drawn(seed + sorted(prompts).index(one) for one in prompts),
    "the clips are stacked on a new axis; they are joined along the first":
        lambda prompts, seed: noises(prompts, seed)[:, None],
    "this is the noise of one prompt": lambda prompts, seed: noises("a", seed),
}  # fmt: skip


@exercise("0.B", name="noises", solution=noises, minutes=5, difficulty=2, importance=4)
def check_noises(student):
    """Against noise made as asked, alone and in company; the usual mistakes are known by their results."""
    for prompts, seed in ((["a", "b", "c"], 7), (["x"], 8), (["b", "c", "a"], 3), (["a", "b", "b", "a", "b"], 1000)):
        what = f"the noise of the prompts {prompts} from the seed {seed}"
        given = list(prompts)
        found = called(student, given, seed, what="the noise")
        if given != prompts:
            raise Failed("the prompts as they were", "they were changed", "an operation in place, such as prompts.pop()")
        mistakes = {cause: (lambda wrong=wrong: wrong(prompts, seed)) for cause, wrong in NOISE_MISTAKES.items()}
        recognised(what, found, noises(prompts, seed), mistakes, tolerance=0)
        same_dtype("the noise", found, torch.float32)
    return "the same noise alone and in company, and another for each prompt"
