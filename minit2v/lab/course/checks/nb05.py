"""Checks of notebook 05, Destroying a video: closed form, schedule, variance, and the root of the wrong term."""

import torch

from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.process import betas as library_betas
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.presets import DiffusionConfig

_SCHEDULES, _SHIFT = "test_schedules_equal_diffusers", "test_shift_divides_the_signal_to_noise_ratio"
_VIEWS, _LOSS = "test_the_target_gives_back_clip_and_noise", "test_loss_weighs_every_clip_alike"

EQUATIONS = {
    number: (title, f"tests/test_diffusion.py::{test}")
    for number, title, test in (
        ("5.1", "the noisy clip at t, in one step", _SCHEDULES),
        ("5.2", "alpha-bar: what is left after t steps", _SCHEDULES),
        ("5.3", "the cosine schedule", _SCHEDULES),
        ("5.4", "zero terminal SNR", _SCHEDULES),
        ("5.5", "the shifted SNR", _SHIFT),
        ("5.6", "the clip from the noise", _VIEWS),
        ("5.7", "clip and noise from v", _VIEWS),
        ("5.8", "v, as a target", _VIEWS),
        ("5.9", "the loss", _LOSS),
    )
}

QUIZ = [
    (
        "alpha-bar is 0.25. What is the clip multiplied by, and what is the noise multiplied by?",
        ["0.25 and 0.75", "0.5 and 0.87", "0.5 and 0.5"],
        1,
        "The square roots of 0.25 and of 0.75. The variances 0.25 and 0.75 add up to 1; the factors need not.",
    ),
    (
        "A video model is trained with the same noise on all 16 frames of a clip. What will it not learn?",
        ["To find movement in noise", "To draw the background", "To use the timestep"],
        0,
        "Subtract one frame from the next and the shared noise is gone: the movement is always there to be read off.",
    ),
    (
        "You go from latents of 32 x 32 to latents of 64 x 64 and keep the schedule. What happens at a given t?",
        ["The clip is easier to recognise", "The clip is harder to recognise", "Nothing: the SNR is the same"],
        0,
        "The SNR of each number is the same, but there are four numbers where there was one, and averaging them "
        "halves the noise. A shift of 2 makes up for it.",
    ),
]


def _gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _recognise(what, found, expected, mistakes, cause):
    """`close`, with the cause of the first mistake {cause: what it gives} that gives just what was found."""
    same_shape(what, found, expected.shape, cause)
    values = torch.as_tensor(found).detach().double()
    for known, wrong in mistakes.items():
        if torch.allclose(values, wrong.double(), rtol=1e-4, atol=1e-6):
            cause = known
            break
    close(what, found, expected, 1e-5, cause)


def q_sample(x0, noise, alpha_bar_t):
    """x0 (b, c, f, h, w), noise alike, alpha_bar_t (b,) -> x_t (b, c, f, h, w)."""
    a = alpha_bar_t[:, None, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


@exercise("5.1", name="q_sample", solution=q_sample, minutes=8, difficulty=2, importance=5)
def check_q_sample(student):
    """Three clips as wide as the batch is long, so that a level that lands on the wrong axis raises nothing."""
    x0, noise = _gaussian(3, 4, 2, 5, 3), _gaussian(3, 4, 2, 5, 3, seed=1)
    levels = torch.tensor([0.9, 0.5, 0.04], dtype=torch.float64)
    a, along_w = levels[:, None, None, None, None], levels
    mistakes = {
        "take the square root of alpha_bar_t, and of 1 - alpha_bar_t": a * x0 + (1 - a) * noise,
        "take the square root of 1 - alpha_bar_t as well": a.sqrt() * x0 + (1 - a) * noise,
        "take the square root of alpha_bar_t as well": a * x0 + (1 - a).sqrt() * noise,
        "the noise has the root of 1 - alpha_bar_t, not 1 - the root": a.sqrt() * x0 + (1 - a.sqrt()) * noise,
        "both factors are the root of alpha_bar_t; this is the bug of exercise 5.B": a.sqrt() * (x0 + noise),
        "clip and noise are exchanged": (1 - a).sqrt() * x0 + a.sqrt() * noise,
        "alpha_bar_t (b,) went along the last axis; give it the shape (b, 1, 1, 1, 1)":
            along_w.sqrt() * x0 + (1 - along_w).sqrt() * noise,
    }  # fmt: skip
    before = x0.clone()
    found = student(x0, noise, levels)
    if not torch.equal(x0, before):
        raise Failed("x0 as it was", "x0 changed", "an operation in place, such as x0 *= …")
    _recognise("x_t", found, q_sample(before, noise, levels), mistakes, "x_t = √alpha_bar x0 + √(1 - alpha_bar) noise")
    return "three clips at three noise levels, each with its own"


def alpha_bar_from(betas):
    """betas (T,) -> alpha_bar (T,): the share of the clip's variance that is left after each step."""
    return torch.cumprod(1 - betas, 0)


@exercise("5.2", name="alpha_bar_from", solution=alpha_bar_from, minutes=6, difficulty=1, importance=5)
def check_alpha_bar_from(student):
    """First at three betas, where every mistake has its own answer, then at the thousand of the release."""
    betas = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
    kept = torch.cumprod(1 - betas, 0)
    mistakes = {
        "shares multiply, they do not add up": 1 - betas.cumsum(0),
        "1 - beta is what one step leaves; multiply all of them up to t": 1 - betas,
        "multiply 1 - beta, not beta": torch.cumprod(betas, 0),
        "this is the signal's factor; alpha_bar is its square": kept.sqrt(),
        "this is the noise's share; alpha_bar is the clip's": 1 - kept,
        "alpha_bar[0] comes after the first step, so it is 1 - betas[0] and not 1":
            torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]]),
    }  # fmt: skip
    found = student(betas.clone())
    _recognise("alpha_bar of 0.1, 0.2, 0.5", found, kept, mistakes, "alpha_bar[t] is the product of 1 - betas[0…t]")
    betas = library_betas(DiffusionConfig())
    found = student(betas)
    close("alpha_bar of the release", found, torch.cumprod(1 - betas, 0), 1e-6, "keep float64, and all 1000 values")
    return f"falls from {float(found[0]):.5f} to {float(found[-1]):.5f} in {len(found)} steps, as released"


def variance_along(add_noise, x0, ts, generator):
    """The variance of x_t over everything in it, for each t of a list: (len(ts),)."""
    found = []
    for t in ts:
        noise = torch.randn(x0.shape, generator=generator)
        found.append(add_noise(x0, noise, torch.full((len(x0),), t)).var())
    return torch.stack(found)


@exercise("5.3", name="variance_along", solution=variance_along, minutes=8, difficulty=2, importance=4)
def check_variance_along(student):
    """On the library's process and on two that do not preserve the variance: an answer of ones is not enough."""
    process, ts = Diffusion(DiffusionConfig()), [0, 300, 600, 999]
    a = process.alpha_bar[ts]
    x0 = _gaussian(8, 4, 16, 16, 16).float()
    seen = []

    def library(x0, noise, t):
        if tuple(getattr(t, "shape", ())) != (len(x0),):
            raise Failed(f"t of shape ({len(x0)},)", getattr(t, "shape", t), "one t a clip: torch.full((len(x0),), t)")
        if seen and noise.shape == seen[-1].shape and torch.equal(noise, seen[-1]):
            raise Failed("fresh noise for each t", "the same noise again", "draw it inside the loop")
        seen.append(noise)
        return process.add_noise(x0, noise, t)

    def rootless(x0, noise, t):
        level = process.alpha_bar[t].float()[:, None, None, None, None]
        return level * x0 + (1 - level) * noise

    def measure(add_noise, x0):
        return student(add_noise, x0, list(ts), torch.Generator().manual_seed(0))

    close("variance with the library", measure(library, x0), torch.ones(4), 0.03, "noise must be normal: torch.randn")
    if len(seen) < len(ts):
        raise Failed(f"{len(ts)} calls of add_noise, one for each t", f"{len(seen)}", "measure, do not compute")
    raised = measure(library, x0 + 3)
    close("variance of clips with mean 3", raised, torch.ones(4), 0.03, "the mean square is not the variance; use .var")
    wrong = a**2 + (1 - a) ** 2
    close("variance without the roots", measure(rootless, x0), wrong, 0.03, "measure the x_t of the given add_noise")
    wide = 4 * a + 1 - a
    close("variance of clips with variance 4", measure(library, 2 * x0), wide, 0.1, "do not normalise x0 or x_t")
    return "1 at every t for the library, and it notices a process that loses variance"


def levels(alpha_bar):
    """alpha_bar (T,) -> the factor of the clip and the factor of the noise, both (T,)."""
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@exercise("5.B", name="levels", solution=levels, minutes=5, difficulty=1, importance=3)
def check_levels(student):
    """Both factors, at both ends too."""
    a = torch.tensor([1.0, 0.75, 0.36, 0.0], dtype=torch.float64)
    result = student(a)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Failed("two factors, (signal, sigma)", type(result).__name__, "return both, separated by a comma")
    signal, sigma = result
    _recognise("signal", signal, a.sqrt(), {"signal and sigma are exchanged": (1 - a).sqrt()}, "the root of alpha_bar")
    mistakes = {
        "the bug is still there: the root of alpha_bar": a.sqrt(),
        "take the root of the difference, not 1 minus the root": 1 - a.sqrt(),
        "the square root is missing": 1 - a,
    }
    _recognise("sigma", sigma, (1 - a).sqrt(), mistakes, "the root of 1 - alpha_bar")
    return "the squares of the two factors add up to 1 at every t"
