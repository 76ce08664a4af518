"""Checks of notebook 00, Take-off: shapes, the step at which a subject appears, a pipeline by hand, one seed a clip."""

from dataclasses import replace

import numpy as np
import torch

import minit2v
from minit2v import presets
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided
from minit2v.lab.course.comparing import called, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape

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


@exercise("0.1", name="shapes", solution=shapes, minutes=6, difficulty=1, importance=5)
def check_shapes(student):
    """At models of different factors and channels, and sizes no two of which can be taken for one another."""
    causes = {
        "context": "the order is (b, n, d): context_length tokens of width d; frames play no part in it",
        "noise": "height and width are divided by the factor, frames are not; the order is b c f h w",
        "latent frames": "all frames of all clips in one row: b times frames",
        "pixels": "pixels keep the full height and width, colours are the last axis, and there are 3",
    }
    mini = presets.get("mini")
    other = replace(mini, autoencoder=replace(mini.autoencoder, latent_channels=6, multipliers=(1, 2, 4)),
                    text=replace(mini.text, context_length=24, width=96))  # fmt: skip
    models = {"mini": mini, "modelscope-1.7b": presets.get("modelscope-1.7b"), "a made-up model": other}
    sizes = ((2, 5, 64, 128), (7, 9, 96, 32), (2, 11, 48, 80), (1, 16, 64, 64))
    for name, (b, frames, height, width) in zip((*models, "mini"), sizes):
        arguments = models[name], b, frames, height, width
        found, expected = student(*arguments), shapes(*arguments)
        if not isinstance(found, dict) or set(found) != set(expected):
            keys = sorted(found) if isinstance(found, dict) else type(found).__name__
            cause = "a key is missing or misspelt" if isinstance(found, dict) and set(expected) - set(found) else ""
            raise Failed(f"a dictionary with the keys {sorted(expected)}", keys, cause)
        for key, shape in expected.items():
            wanted = f"{key} {shape} for {name}, b={b}, frames={frames}, {height}x{width}"
            if not isinstance(found[key], tuple):
                raise Failed(wanted, found[key], "each shape is a tuple")
            if found[key] != shape:
                raise Failed(wanted, found[key], causes[key])
            if not all(isinstance(size, int) for size in found[key]):
                raise Failed(wanted, found[key], "/ gives a number with a point, // a whole one")
    return "all four shapes, for mini and for the released size"


def first_close(videos, share):
    """Index of the first step from which on all beliefs (s, f, H, W, 3) are close to the last one."""
    videos = videos.astype(float)
    distance = abs(videos - videos[-1]).reshape(len(videos), -1).mean(axis=1)
    first = len(videos) - 1
    while first > 0 and distance[first - 1] <= share * distance[0]:
        first -= 1
    return first


@exercise("0.2", name="first_close", solution=first_close, minutes=6, difficulty=2, importance=3)
def check_first_close(student):
    """On made-up runs whose distances are known: falling, falling and rising again, standing still; then on random ones."""
    runs = {
        "a run that falls evenly": ([100, 80, 60, 40, 20, 0], 0.5, 3, "compare with share * the distance of step 0"),
        "a run that comes near and leaves again": (
            [100, 10, 90, 30, 10, 0], 0.5, 3, "all later steps must be close too, not only this one",
        ),
        "a run in which nothing changes": ([7, 7, 7], 0.5, 0, "if step 0 equals the last, the answer is 0"),
        "share 0.25 of a run with a step at exactly 25 %": ([80, 60, 20, 10, 0], 0.25, 2, "at most: <= and not <"),
        "share 0 of a run that falls to its end": ([80, 60, 40, 20], 0.0, 3, "the last step is close in every run"),
        "share 1 of a run that falls": ([80, 60, 20], 1.0, 0, "step 0 differs as much as step 0: it is close, too"),
        "a run of one step": ([5], 0.5, 0, "the last step is close in every run"),
        "a run that misses a half by a hair": ([200, 100, 0], 0.5, 2, "compare the distances as they are, not rounded"),
    }  # fmt: skip
    for what, (levels, share, expected, cause) in runs.items():
        videos = 250 - np.array(levels, np.uint8)[:, None, None, None, None] * np.ones((1, 2, 8, 8, 3), np.uint8)
        if share == 0.5 and levels[-1] == 0:
            videos[-1, 0, 0, 0, 0] += 1  # the distances are no whole numbers
        _same_step(student, what, videos, share, expected, cause)
    random = np.random.default_rng(0)
    for share in random.random(200):  # frames and colours differ more or less from the last: no other distance agrees on all
        shape = random.integers(1, 20), 3, 4, 5, 3
        changed = random.random(shape) < random.random((shape[0], 3, 1, 1, 3)) ** 2
        videos = np.where(changed, random.integers(0, 256, shape), random.integers(0, 256, shape[1:])).astype(np.uint8)
        cause = "the mean of the absolute differences of all numbers, each step compared with the last"
        _same_step(student, f"a random run, share {share:.3f}", videos, share, first_close(videos, share), cause)
    return "right on three made-up runs, one of which leaves again"


def _same_step(student, what, videos, share, expected, cause):
    """Raise Failed unless `student` finds the step; its cause is uint8 if the same numbers as float give the answer."""
    given = videos.copy()
    found = student(given, share)
    if not isinstance(found, (int, np.integer)):
        cause = "the function does not return its result" if found is None else ""
        raise Failed(f"step {expected}, a whole number, for {what}", f"{type(found).__name__} {found}", cause)
    if found != expected:
        if student(videos.astype(float), share) == expected:
            cause = "uint8 numbers were subtracted: 3 - 5 is 254 there"
        raise Failed(f"step {expected} for {what}", found, cause)
    if not np.array_equal(given, videos):
        raise Failed("the videos as they were", "they were changed", "an operation in place, such as videos -= …")


def generate(pipe, prompt, seed):
    """The pixels (f, H, W, 3), uint8, of the pipeline's clip for a prompt and a seed."""
    context, nothing = pipe.text.encode([prompt]), pipe.text.encode([""])
    noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(seed))
    model = guided(pipe.unet, context, nothing, pipe.preset.guidance)
    with torch.inference_mode():
        for step in SAMPLERS["ddim"](model, noise, pipe.diffusion, pipe.preset.steps):
            pass
    return pipe.decode(step.x)[0]


@exercise("0.3", name="generate", solution=generate, minutes=8, difficulty=3, importance=5)
def check_generate(student):
    """Against the pipeline itself, which must not be called."""
    pipe = minit2v.load("mini", device="cpu")
    preset = replace(pipe.preset, steps=9, guidance=pipe.preset.guidance + 1)  # others than a student can have written down

    class Parts:  # the pipeline without the methods that do it all
        def __getattr__(self, name):
            if name in ("stream", "sampled", "steps"):
                raise Failed("the parts put together", f"pipe.{name}", "use text.encode, gaussian, guided and SAMPLERS")
            return preset if name == "preset" else getattr(pipe, name)

        def __call__(self, *_, **__):
            raise Failed("the parts put together", "pipe(…)", "use text.encode, gaussian, guided and SAMPLERS")

    for prompt, seed in (("a small green square moves down", 3), ("a large red ring moves left", 11)):
        settings = {"seed": seed, "steps": preset.steps, "guidance": preset.guidance}
        found, expected = student(Parts(), prompt, seed), pipe(prompt, **settings).pixels
        causes = {(1, *expected.shape): "decode returns a batch; take its only clip",
                  (1, 4, 16, 8, 8): "these are latents; pipe.decode turns them into pixels"}
        shape = tuple(getattr(found, "shape", ()))
        if shape == expected.shape:
            causes[shape] = _cause_of_pixels(pipe, prompt, settings, found)
        close("pixels", found, expected, 1, causes.get(shape, ""))
        if (differ := (np.asarray(found) != expected).mean()) > 0.01:  # another order of sums may round a few otherwise
            raise Failed("the pixels of the library", f"{differ:.0%} of them one more or less")
        if getattr(found, "dtype", None) != np.uint8:
            raise Failed("pixels as a numpy array of uint8", f"{type(found).__name__} {getattr(found, 'dtype', '')}".strip())
    return f"{expected.size:,} numbers as the library makes them"


def _cause_of_pixels(pipe, prompt, settings, found):
    """The mistake that gives these pixels, or what to look at."""
    own = pipe.preset
    mistakes = {
        "steps and guidance are those of pipe.preset; the check has changed them":
            {"steps": own.steps, "guidance": own.guidance},
        "the number of steps is that of pipe.preset; the check has changed it": {"steps": own.steps},
        "guidance is that of pipe.preset; the check has changed it": {"guidance": own.guidance},
        "this is the clip of seed 0": {"seed": 0},
    }
    for cause, other in mistakes.items():
        if np.allclose(np.asarray(found, float), pipe(prompt, **settings | other).pixels, atol=1):
            return cause
    return "is the noise seeded with `seed`, are guidance and steps the preset's, does guided get the prompt first?"


def noises(prompts, seed):
    """Starting noise (b, 4, 16, 8, 8); that of prompt i depends on seed + i alone."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return torch.cat([torch.randn(1, 4, 16, 8, 8, generator=one) for one in generators])


@exercise("0.B", name="noises", solution=noises, minutes=5, difficulty=2, importance=4)
def check_noises(student):
    """Against noise made as asked; the three usual mistakes are known by their results."""
    together, expected = _noise(student, ["a", "b", "c"], 7), noises("abc", 7)
    same_shape("the noise of three prompts", together, expected.shape,
               "torch.cat joins parts of shape (1, 4, 16, 8, 8), one for each prompt")
    shared = torch.Generator().manual_seed(7)
    mistakes = {
        "all prompts share one generator": torch.cat([torch.randn(1, 4, 16, 8, 8, generator=shared) for _ in "abc"]),
        "every generator has the same seed": expected[:1].expand_as(expected),
        "prompts are counted from 0: the first one has the seed itself": noises("abc", 8),
    }
    for cause, noise in mistakes.items():
        if torch.equal(together, noise):
            raise Failed("noise of prompt i from the seed seed + i", "other noise", cause)
    close("the noise", together, expected, 0, "prompt i has a generator of its own, seeded with seed + i")
    close("the noise of one prompt", _noise(student, ["x"], 8), expected[1:2], 0, "nothing but seed + i may matter")
    for prompts, seed in ((["b", "a"], 0), (["a", "b", "b", "a", "b"], 1000)):  # the same ones again, in no order
        what = f"the noise of the prompts {prompts} from the seed {seed}"
        close(what, _noise(student, prompts, seed), noises(prompts, seed), 0, "nothing but seed + i may matter, not the words")
    return "the same noise alone and in company, and another for each prompt"


def _noise(student, prompts, seed):
    """The student's float32 noise of prompts. Raises Failed for anything else, and if the list of prompts was changed."""
    given = list(prompts)
    found = called(student, given, seed, what="the noise")
    if given != prompts:
        raise Failed("the prompts as they were", "they were changed", "an operation in place, such as prompts.pop()")
    same_dtype("the noise", found, torch.float32)
    return found
