"""Checks of notebook 05, Destroying a video: closed form, schedule, variance, and the root of the wrong term."""

import torch

from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.process import betas as library_betas
from minit2v.lab.course.comparing import called, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, exercise, same_shape
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


def q_sample(x0, noise, alpha_bar_t):
    """x0 (b, c, f, h, w), noise alike, alpha_bar_t (b,) -> x_t (b, c, f, h, w)."""
    a = alpha_bar_t[:, None, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


@exercise("5.1", name="q_sample", solution=q_sample, minutes=8, difficulty=2, importance=5)
def check_q_sample(student):
    """Batches of three, one and five; three clips are as wide, so that a level along the wrong axis raises nothing."""
    for shape, values, dtype in (((3, 4, 2, 5, 3), (0.9, 0.5, 0.04), torch.float64),
                                 ((1, 3, 2, 4, 5), (0.3,), torch.float64),
                                 ((5, 2, 3, 1, 4), (1.0, 0.9996, 0.7, 2e-4, 0.0), torch.float32)):  # fmt: skip
        x0, noise, along_w = normal(*shape).to(dtype), normal(*shape, seed=1).to(dtype), torch.tensor(values, dtype=dtype)
        a = along_w[:, None, None, None, None]
        mistakes = {
            "take the square root of alpha_bar_t, and of 1 - alpha_bar_t": lambda: a * x0 + (1 - a) * noise,
            "take the square root of 1 - alpha_bar_t as well": lambda: a.sqrt() * x0 + (1 - a) * noise,
            "take the square root of alpha_bar_t as well": lambda: a * x0 + (1 - a).sqrt() * noise,
            "the noise has the root of 1 - alpha_bar_t, not 1 - the root": lambda: a.sqrt() * x0 + (1 - a.sqrt()) * noise,
            "both factors are the root of alpha_bar_t; this is the bug of exercise 5.B": lambda: a.sqrt() * (x0 + noise),
            "clip and noise are exchanged": lambda: (1 - a).sqrt() * x0 + a.sqrt() * noise,
            "alpha_bar_t (b,) went along the last axis; give it the shape (b, 1, 1, 1, 1)":
                lambda: along_w.sqrt() * x0 + (1 - along_w).sqrt() * noise,
        }  # fmt: skip
        what = f"x_t of clips {shape} at alpha_bar {', '.join(map(str, values))}"
        found = called(student, x0, noise, along_w)
        recognised(what, found, q_sample(x0, noise, along_w), mistakes, 1e-5)
        same_dtype(what, found, dtype)
    return "three clips at three noise levels, each with its own"


def alpha_bar_from(betas):
    """betas (T,) -> alpha_bar (T,): the share of the clip's variance that is left after each step."""
    return torch.cumprod(1 - betas, 0)


@exercise("5.2", name="alpha_bar_from", solution=alpha_bar_from, minutes=6, difficulty=1, importance=5)
def check_alpha_bar_from(student):
    """First at three betas, where every mistake has its own answer; then at one, at another schedule and the release's."""
    for what, betas in {
        "alpha_bar of 0.1, 0.2, 0.5": torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64),
        "alpha_bar of 0.3 alone, float32,": torch.tensor([0.3]),
        "alpha_bar of 400 betas of the cosine schedule": library_betas(DiffusionConfig(schedule="cosine", timesteps=400)),
        "alpha_bar of the release": library_betas(DiffusionConfig()),
    }.items():
        kept = torch.cumprod(1 - betas, 0)
        mistakes = {
            "shares multiply, they do not add up": lambda: 1 - betas.cumsum(0),
            "1 - beta is what one step leaves; multiply all of them up to t": lambda: 1 - betas,
            "multiply 1 - beta, not beta": lambda: torch.cumprod(betas, 0),
            "this is the signal's factor; alpha_bar is its square": lambda: kept.sqrt(),
            "this is the noise's share; alpha_bar is the clip's": lambda: 1 - kept,
            "alpha_bar[0] comes after the first step, so it is 1 - betas[0] and not 1":
                lambda: torch.cat([kept.new_ones(1), kept[:-1]]),
        }  # fmt: skip
        found = called(student, betas)
        same_shape(what, found, kept.shape)
        same_dtype(what, found, betas.dtype)
        recognised(what, found, kept, mistakes, 1e-6 if betas.dtype == torch.float32 else 1e-9)
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
    """Clips whose every axis has means of its own, a process that loses variance, timesteps in any order."""
    process = Diffusion(DiffusionConfig())

    def rootless(x0, noise, t):
        level = process.alpha_bar[t].float()[:, None, None, None, None]
        return level * x0 + (1 - level) * noise

    clips = normal(6, 4, 5, 9, 8).float()
    uneven = 2 * clips + 3 + sum(torch.linspace(-1, 1, n).reshape(-1, *[1] * i) for i, n in enumerate((8, 9, 5, 4, 6)))
    for add_noise, x0, ts in ((process.add_noise, clips, [0, 300, 600, 999]), (process.add_noise, uneven, [700, 0, 999]),
                              (rootless, uneven[:2, :, :, 1:], [1, 998, 500, 30, 500])):  # fmt: skip
        noises = [_measured(student, add_noise, x0, ts, seed) for seed in (0, 0, 1)]
        draw = "torch.randn(x0.shape, generator=generator)"
        if not torch.equal(noises[0], noises[1]):
            raise Failed("the same noise from the same generator", "other noise", draw)
        if torch.equal(noises[0], noises[2]):
            raise Failed("other noise from another generator", "the same noise", draw)
        _is_normal_and_fresh(noises[0])
    return "1 at every t for the library, and it notices a process that loses variance"


def _measured(student, add_noise, x0, ts, seed):
    """All noise that was drawn, where each call of add_noise, and each number that came of it, is what it should be."""
    noises, clips = [], []

    def watched(x, noise, t):
        if len(noises) == len(ts):
            raise Failed(f"{len(ts)} calls of add_noise, one for each t", "more")
        if tuple(getattr(t, "shape", ())) != (len(x0),):
            raise Failed(f"t of shape ({len(x0)},)", getattr(t, "shape", t), "one t a clip: torch.full((len(x0),), t)")
        if t.tolist() != [ts[len(noises)]] * len(x0):
            raise Failed(f"t = {ts[len(noises)]} in call {len(noises) + 1} of add_noise for ts {ts}", t.tolist())
        if not torch.equal(x, x0):
            raise Failed("add_noise to be given x0 as it is", "other clips")
        same_shape("the noise", noise, x0.shape)
        noises.append(noise.clone())
        clips.append(add_noise(x, noise, t))
        return clips[-1].clone()

    given = list(ts)
    found = called(lambda x: student(watched, x, given, torch.Generator().manual_seed(seed)), x0)
    if given != ts:
        raise Failed("ts as it was", "it was changed")
    if len(noises) < len(ts):
        raise Failed(f"{len(ts)} calls of add_noise, one for each t", f"{len(noises)}",
                     "" if noises else "measure, do not compute")
    over = lambda measure: lambda: torch.stack([measure(x) for x in clips])  # noqa: E731
    mistakes = {
        "the mean square is not the variance": over(lambda x: x.square().mean()),
        "this is the standard deviation, its root": over(torch.std),
        "this is the mean of the clips' own variances; their means differ too": over(lambda x: x.flatten(1).var(1).mean()),
        "this is the variance of the first clip alone": over(lambda x: x[0].var()),
    }
    variances = over(torch.var)()
    recognised(f"the variance at {ts}", found, variances, mistakes, 4e-4 * variances.max().item())  # over n, or n - 1
    return torch.stack(noises)


def _is_normal_and_fresh(noises):
    """Noise (len(ts), b, c, f, h, w)."""
    if any(torch.equal(one, other) for one, other in zip(noises, noises[1:])):
        raise Failed("fresh noise for each t", "the same noise again", "draw it inside the loop")
    if len(noises.abs().unique()) < 0.9 * noises.numel():
        raise Failed("a number of its own for every place of every x_t", "numbers that come back in other places")
    cause = "torch.rand is uniform, from 0 to 1; torch.randn is normal" if 0 <= noises.min() < noises.max() <= 1 else ""
    for power, wanted in ((1, 0), (2, 1), (4, 3)):
        if abs((found := noises.pow(power).mean().item()) - wanted) > 0.1 * power:
            raise Failed(f"standard normal noise, whose mean power {power} is {wanted}", f"{found:.2f}", cause)


def levels(alpha_bar):
    """alpha_bar (T,) -> the factor of the clip and the factor of the noise, both (T,)."""
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@exercise("5.B", name="levels", solution=levels, minutes=5, difficulty=1, importance=3)
def check_levels(student):
    """Both factors, at both ends too, of four numbers and of seven."""
    for a in (torch.tensor([1.0, 0.75, 0.36, 0.0], dtype=torch.float64), torch.linspace(0.0004, 0.9996, 7)):
        mistakes = {
            "signal": {"signal and sigma are exchanged": lambda: (1 - a).sqrt(), "the square root is missing": lambda: a},
            "sigma": {"the bug is still there: the root of alpha_bar": lambda: a.sqrt(),
                      "take the root of the difference, not 1 minus the root": lambda: 1 - a.sqrt(),
                      "the square root is missing": lambda: 1 - a},
        }  # fmt: skip
        for i, (name, expected) in enumerate({"signal": a.sqrt(), "sigma": (1 - a).sqrt()}.items()):
            found = called(lambda x: _both(student(x))[i], a, what=name)
            recognised(name, found, expected, mistakes[name], 1e-5)
            same_dtype(name, found, a.dtype)
    return "the squares of the two factors add up to 1 at every t"


def _both(result):
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Failed("two factors, (signal, sigma)", type(result).__name__, "return both, separated by a comma")
    return result
