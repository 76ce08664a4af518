"""Checks of notebook 05, Destroying a video: closed form, schedule, variance, the timestep of an SNR, and a wrong root."""

import sys

import torch

from minit2v.datasets.moving_things import MovingThings
from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.process import betas as library_betas
from minit2v.lab.course.comparing import called, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, counted, exercise, same_shape
from minit2v.lab.course.questions import Question
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
        ("5.6", "v, as a target", _VIEWS),
        ("5.7", "the clip from the noise", _VIEWS),
        ("5.8", "clip and noise from v", _VIEWS),
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

MYSTERY_SEED = 55


def mystery():
    """The sample that section 6 hides in noise: one of test_seen, drawn from a seed."""
    data = MovingThings("test_seen")
    return data[int(torch.randint(len(data), (), generator=torch.Generator().manual_seed(MYSTERY_SEED)))]


def _direction_of_mystery():
    return mystery().spec.things[0].motion


PREDICTIONS = {
    "5.a": Question("The first steps take away a thousandth of the clip's variance, the last ones 1.2 %. After how many of the "
                    "1000 steps is half of it left?",
                    "about 350", ["about 100", "about 350", "about 500", "about 900"]),
    "5.b": Question("Which way does the thing in this noise move?", _direction_of_mystery, ["left", "right", "up", "down"]),
    "5.c": Question("You want clips of 32 pixels to be as hard to read, at every t, as clips of 8 pixels that show the same. "
                    "By how much must the SNR of the larger clips be divided?",
                    "by 16", ["by nothing, an SNR is an SNR", "by 2", "by 4", "by 16"]),
}  # fmt: skip


# --- 5.1


def q_sample(x0, noise, alpha_bar_t):
    """x0 (b, c, f, h, w), noise alike, alpha_bar_t (b,) -> x_t (b, c, f, h, w)."""
    a = alpha_bar_t[:, None, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


SAMPLE_MISTAKES = {  # cause -> (x0, noise, a: the levels (b, 1, 1, 1, 1)) -> x_t
    "the factors are the shares of the variance, and a factor counts squared": lambda x, n, a: a * x + (1 - a) * n,
    "the factor of the clip is right, that of the noise is its share of the variance":
        lambda x, n, a: a.sqrt() * x + (1 - a) * n,
    "the factor of the noise is right, that of the clip is its share of the variance":
        lambda x, n, a: a * x + (1 - a).sqrt() * n,
    "the factor of the noise is what the clip's factor lacks to 1; it is the variances that add up to 1":
        lambda x, n, a: a.sqrt() * x + (1 - a.sqrt()) * n,
    "clip and noise have the same factor": lambda x, n, a: a.sqrt() * (x + n),
    "clip and noise are exchanged": lambda x, n, a: (1 - a).sqrt() * x + a.sqrt() * n,
    "the noise is subtracted": lambda x, n, a: a.sqrt() * x - (1 - a).sqrt() * n,
    "the clip is not made smaller, so the variance grows": lambda x, n, a: x + (1 - a).sqrt() * n,
    "the noise is added as it is": lambda x, n, a: a.sqrt() * x + n,
    "the factors are squared": lambda x, n, a: a**2 * x + (1 - a) ** 2 * n,
    "all clips got the level of the first one": lambda x, n, a: q_sample(x, n, a[:1].flatten().expand(len(x))),
    "all clips got the mean of the levels": lambda x, n, a: q_sample(x, n, a.mean().expand(len(x))),
    "the levels went along the last axis, which is the width; each belongs to a clip, and clips are the first axis":
        lambda x, n, a: a.flatten().sqrt() * x + (1 - a.flatten()).sqrt() * n,
    "the levels came in the opposite order": lambda x, n, a: q_sample(x, n, a.flatten().flip(0)),
}  # fmt: skip


@exercise("5.1", name="q_sample", solution=q_sample, minutes=8, difficulty=2, importance=5)
def check_q_sample(student):
    """Batches of three, one and five; three clips are as wide, so that a level along the wrong axis raises nothing."""
    for shape, values, dtype in (((3, 4, 2, 5, 3), (0.9, 0.5, 0.04), torch.float64),
                                 ((1, 3, 2, 4, 5), (0.3,), torch.float64),
                                 ((5, 2, 3, 1, 4), (1.0, 0.9996, 0.7, 2e-4, 0.0), torch.float32)):  # fmt: skip
        x0, noise, levels_of = normal(*shape).to(dtype), normal(*shape, seed=1).to(dtype), torch.tensor(values, dtype=dtype)
        a = levels_of[:, None, None, None, None]
        mistakes = {cause: (lambda one=one: one(x0, noise, a)) for cause, one in SAMPLE_MISTAKES.items()}
        what = f"x_t for clips {shape} with alpha_bar {', '.join(map(str, values))}"
        found = called(student, x0, noise, levels_of)
        same_dtype(what, found, dtype)
        recognised(what, found, q_sample(x0, noise, levels_of), mistakes, 1e-5)
    return "three clips at three noise levels, each with its own"


# --- 5.2


def alpha_bar_from(betas):
    """betas (T,) -> alpha_bar (T,): the share of the clip's variance that is left after each step."""
    return torch.cumprod(1 - betas, 0)


LEFT_MISTAKES = {  # cause -> betas -> what the mistake gives
    "what the steps take was added up; but each step takes a share of what is left": lambda b: 1 - b.cumsum(0),
    "this is what each step leaves on its own, without the steps before it": lambda b: 1 - b,
    "this is the product of what the steps take away, not of what they leave": lambda b: torch.cumprod(b, 0),
    "this is the factor of the clip; its share of the variance is asked": lambda b: torch.cumprod(1 - b, 0).sqrt(),
    "this is the share of the noise; that of the clip is asked": lambda b: 1 - torch.cumprod(1 - b, 0),
    "everything comes one step late: entry 0 is what is left after the first step":
        lambda b: torch.cat([b.new_ones(1), torch.cumprod(1 - b, 0)[:-1]]),
    "everything comes one step late, and one entry is too many":
        lambda b: torch.cat([b.new_ones(1), torch.cumprod(1 - b, 0)]),
    "the product runs from the last step to the first": lambda b: torch.cumprod((1 - b).flip(0), 0).flip(0),
    "the product starts with the last step": lambda b: torch.cumprod((1 - b).flip(0), 0),
    "every entry is what is left at the end": lambda b: (1 - b).prod().expand(len(b)),
    "only what is left at the end, not after each step": lambda b: (1 - b).prod(),
    "the exponential of minus the sum is only nearly the product": lambda b: torch.exp(-b.cumsum(0)),
    "the root of beta is the factor of the noise; a share of the variance is asked": lambda b: torch.cumprod(1 - b.sqrt(), 0),
    "each step was counted twice": lambda b: torch.cumprod((1 - b) ** 2, 0),
    "all steps were taken to be like the last one": lambda b: (1 - b) ** torch.arange(1, len(b) + 1),
    "all steps were taken to be like the first one": lambda b: (1 - b[0]) ** torch.arange(1, len(b) + 1),
}  # fmt: skip


@exercise("5.2", name="alpha_bar_from", solution=alpha_bar_from, minutes=6, difficulty=1, importance=5)
def check_alpha_bar_from(student):
    """First at three betas, where every mistake has its own answer; then at one, at another schedule and the release's."""
    for what, betas in {
        "alpha_bar of 0.1, 0.2, 0.5": torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64),
        "alpha_bar of 0.3 alone in float32": torch.tensor([0.3]),
        "alpha_bar of 400 betas of the cosine schedule": library_betas(DiffusionConfig(schedule="cosine", timesteps=400)),
        "alpha_bar of 250 betas of the linear schedule in float32":
            library_betas(DiffusionConfig(schedule="linear", timesteps=250)).float(),
        "alpha_bar of the release": library_betas(DiffusionConfig()),
    }.items():
        found, right = called(student, betas), alpha_bar_from(betas)
        mistakes = {cause: (lambda one=one: one(betas)) for cause, one in LEFT_MISTAKES.items()}
        same_dtype(what, found, betas.dtype)
        recognised(what, found, right, mistakes, 1e-6 if betas.dtype == torch.float32 else 1e-9)
    return f"falls from {float(found[0]):.5f} to {float(found[-1]):.5f} in {len(found)} steps, as released"


# --- 5.3


def variance_along(add_noise, x0, ts, generator):
    """The variance of x_t over everything in it, for each t of a list: (len(ts),)."""
    found = []
    for t in ts:
        noise = torch.randn(x0.shape, generator=generator)
        found.append(add_noise(x0, noise, torch.full((len(x0),), t)).var())
    return torch.stack(found)


VARIANCE_MISTAKES = {  # cause -> one x_t (b, c, f, h, w) -> what was measured of it
    "this is the standard deviation, the root of the variance": torch.std,
    "this is the mean square; the variance is measured from the mean": lambda x: x.square().mean(),
    "this is the mean of the numbers": torch.mean,
    "these are the variances of the clips, each on its own": lambda x: x.flatten(1).var(1),
    "this is the mean of the clips' own variances; the means of the clips differ too": lambda x: x.flatten(1).var(1).mean(),
    "these are the variances of the channels, each on its own": lambda x: x.var((0, 2, 3, 4)),
    "this is the mean of the channels' own variances; their means differ too": lambda x: x.var((0, 2, 3, 4)).mean(),
    "these are the variances of the frames, each on its own": lambda x: x.var((0, 1, 3, 4)),
    "this is the mean of the frames' own variances; their means differ too": lambda x: x.var((0, 1, 3, 4)).mean(),
    "this is the mean of the variances of every frame of every clip; their means differ too": lambda x: x.var((1, 3, 4)).mean(),
    "this is the mean of the variances of single pictures; their means differ too": lambda x: x.var((3, 4)).mean(),
    "these are the variances of the pixels, each on its own": lambda x: x.var((0, 1, 2)),
    "this is the mean of the pixels' own variances; their means differ too": lambda x: x.var((0, 1, 2)).mean(),
    "this is the mean of the variances over the clips, taken for every number on its own": lambda x: x.var(0).mean(),
    "this is the mean of the variances over the frames, taken for every number on its own": lambda x: x.var(2).mean(),
    "this is the variance of the first clip alone": lambda x: x[0].var(),
    "this is the variance of the last clip alone": lambda x: x[-1].var(),
    "this is the variance of the first frames alone": lambda x: x[:, :, 0].var(),
    "this is the variance of the first channel alone": lambda x: x[:, 0].var(),
}


@exercise("5.3", name="variance_along", solution=variance_along, minutes=8, difficulty=2, importance=4)
def check_variance_along(student):
    """Clips whose every axis has means of its own, a process that loses variance, timesteps in any order."""
    process = Diffusion(DiffusionConfig())

    def rootless(x0, noise, t):
        level = process.alpha_bar[t].float()[:, None, None, None, None]
        return level * x0 + (1 - level) * noise

    clips = normal(6, 4, 5, 9, 8).float()
    uneven = 2 * clips + 3 + sum(torch.linspace(-1, 1, n).reshape(-1, *[1] * i) for i, n in enumerate((8, 9, 5, 4, 6)))
    for add_noise, x0, ts in (
        (process.add_noise, uneven, [700, 0, 999]),
        (process.add_noise, clips, [0, 300, 600, 999]),
        (rootless, uneven[:2, :, :, 1:], [1, 998, 500, 30, 500]),
        (process.add_noise, uneven[:3], [40]),
    ):
        noises = [_measured(student, add_noise, x0, ts, seed) for seed in (0, 0, 1)]
        if torch.equal(noises[0], noises[2]):
            raise Failed("other noise from another generator", "the same noise")
        if not torch.equal(noises[0], noises[1]):
            raise Failed("the same noise from the same generator", "other noise")
        _is_normal_and_fresh(noises[0])
    return "1 at every t for the library, and it notices a process that loses variance"


def _measured(student, add_noise, x0, ts, seed):
    """All noise that was drawn, where each call of add_noise, and each number that came of it, is what it should be."""
    noises, clips = [], []

    def watched(x, noise, t):
        if len(noises) == len(ts):
            raise Failed(f"{counted(len(ts), 'call')} of add_noise, one for each t", "more")
        if tuple(getattr(t, "shape", ())) != (len(x0),):
            raise Failed(f"t of shape ({len(x0)},), one timestep for each clip", tuple(t.shape) if hasattr(t, "shape") else t)
        if t.tolist() != [ts[len(noises)]] * len(x0):
            raise Failed(f"t = {ts[len(noises)]} in call {len(noises) + 1} of add_noise for ts {ts}", t.tolist())
        if not torch.equal(x, x0):
            raise Failed("add_noise to be given x0 as it is", "other clips")
        same_shape("the noise", noise, x0.shape)
        noises.append(noise.clone())
        clips.append(add_noise(x, noise, t))
        return clips[-1].clone()

    given, generator, torchs_own = list(ts), torch.Generator().manual_seed(seed), torch.random.get_rng_state()
    found = called(lambda x: student(watched, x, given, generator), x0)
    if given != ts:
        raise Failed("ts as it was", "it was changed")
    if len(noises) < len(ts):
        raise Failed(f"{counted(len(ts), 'call')} of add_noise, one for each t", f"{len(noises)}")
    _from_the_generator(generator, seed, torchs_own, noises)
    mistakes = {cause: (lambda one=one: torch.stack([one(x) for x in clips])) for cause, one in VARIANCE_MISTAKES.items()}
    mistakes |= {
        "the variance of the noise was measured, not that of x_t": lambda: torch.stack([one.var() for one in noises]),
        "the variance of x0 was measured, not that of x_t": lambda: x0.var().expand(len(ts)),
        "the variance of what was added to x0 was measured, not that of x_t":
            lambda: torch.stack([(one - x0).var() for one in clips]),
        "one variance over all timesteps together": lambda: torch.stack(clips).var(),
        "the mean over the timesteps": lambda: torch.stack([x.var() for x in clips]).mean(),
        "only the last timestep": lambda: clips[-1].var(),
        "the order of the timesteps is lost: the results are sorted by t":
            lambda: torch.stack([clips[i].var() for i in sorted(range(len(ts)), key=ts.__getitem__)]),
    }  # fmt: skip
    variances = torch.stack([x.var() for x in clips])
    recognised(f"the variances for ts {ts}", found, variances, mistakes, 4e-4 * variances.max().item())  # over n, or n - 1
    if found.dtype not in (variances.dtype, torch.float64):
        raise Failed(f"variances of dtype {variances.dtype}", f"{found.dtype}")
    return torch.stack(noises)


def _from_the_generator(generator, seed, torchs_own, noises):
    """Noise came from the generator that was given, and was drawn more than once where there are several timesteps."""
    drawn = torch.Generator().manual_seed(seed)
    if torch.equal(generator.get_state(), drawn.get_state()):
        other = not torch.equal(torchs_own, torch.random.get_rng_state())
        raise Failed("noise from the generator that is given", "none was drawn from it",
                     "it came from torch's own generator, which all cells share" if other else "")  # fmt: skip
    torch.randn(noises[0].shape, generator=drawn)
    if len(noises) > 1 and torch.equal(generator.get_state(), drawn.get_state()):
        alike = all(torch.equal(noises[0], one) for one in noises)
        raise Failed("fresh noise for each t", "the same noise for every t" if alike else "numbers of one drawing for all t")


def _is_normal_and_fresh(noises):
    """Noise (len(ts), b, c, f, h, w)."""
    if any(torch.equal(one, other) for one, other in zip(noises, noises[1:])):
        raise Failed("fresh noise for each t", "the same noise again")
    if len(noises.abs().unique()) < 0.9 * noises.numel():
        raise Failed("a number of its own for every place of every x_t", "numbers that come back in other places")
    cause = "all of it lies between 0 and 1, as uniform noise does" if 0 <= noises.min() < noises.max() <= 1 else ""
    for power, wanted in ((1, 0), (2, 1), (4, 3)):
        if abs((found := noises.pow(power).mean().item()) - wanted) > 0.1 * power:
            raise Failed(f"standard normal noise, whose mean power {power} is {wanted}", f"{found:.2f}", cause)


# --- 5.4


def timestep_at(alpha_bar, snr, shift=1.0):
    """alpha_bar (T,) falling, snr of any shape -> the timesteps at which the SNR, divided by shift², is snr."""
    table = (alpha_bar / (1 - alpha_bar) / shift**2).log()
    wanted = snr.log().clamp(table[-1], table[0])
    low = torch.zeros_like(wanted, dtype=torch.long)
    high = torch.full_like(low, len(table) - 1)
    while (high - low).max() > 1:
        middle = (low + high) // 2
        enough = table[middle] >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low + (table[low] - wanted) / (table[low] - table[high])


def _looked_up(alpha_bar, snr, shift, *, ratio=lambda a: a / (1 - a), by=lambda s: s**2, scale=torch.log, share=lambda w: w,
               clamped=True):  # fmt: skip
    """The timestep of an SNR with one thing wrong."""
    table, wanted = scale(ratio(alpha_bar) / by(shift)), scale(snr)
    if clamped:
        wanted = wanted.clamp(table[-1], table[0])
    low = ((table[:, None] >= wanted.flatten()).sum(0) - 1).clamp(0, len(table) - 2)
    low = low.reshape(wanted.shape)
    return low + share((table[low] - wanted) / (table[low] - table[low + 1]))


TIMESTEP_MISTAKES = {  # cause -> (alpha_bar, snr, shift) -> what the mistake gives
    "the shift has no effect: not used, or used on both sides": lambda a, s, shift: _looked_up(a, s, 1.0),
    "the table was multiplied where the shift divides": lambda a, s, shift: _looked_up(a, s, 1 / shift),
    "the shift was used, but not squared": lambda a, s, shift: _looked_up(a, s, shift, by=lambda s: s),
    "alpha_bar was divided by the shift, and not the SNR": lambda a, s, shift: _looked_up(a / shift**2, s, 1.0),
    "this is the last whole timestep at which the SNR is still that high": lambda a, s, shift: _looked_up(a, s, shift).floor(),
    "this is the first whole timestep at which the SNR is no longer above it":
        lambda a, s, shift: _looked_up(a, s, shift).ceil(),
    "this is the nearest whole timestep": lambda a, s, shift: _looked_up(a, s, shift).round(),
    "the line between two entries was drawn in the SNR itself, not in its logarithm": lambda a, s, shift: _looked_up(
        a, s, shift, scale=lambda x: x),
    "the line between two entries was drawn in alpha_bar, not in the logarithm of the SNR": lambda a, s, shift: _looked_up(
        a, s, shift, scale=lambda x: x / (1 + x)),
    "the way between two entries was counted from the wrong end": lambda a, s, shift: _looked_up(
        a, s, shift, share=lambda w: torch.where((w > 0) & (w < 1), 1 - w, w)),
    "always half-way between two entries": lambda a, s, shift: _looked_up(
        a, s, shift, share=lambda w: torch.where((w > 0) & (w < 1), 0.5, w)),
    "alpha_bar was taken for the SNR": lambda a, s, shift: _looked_up(a, s, shift, ratio=lambda a: a),
    "the ratio of the factors was taken, and not that of the variances": lambda a, s, shift: _looked_up(
        a, s, shift, ratio=lambda a: (a / (1 - a)).sqrt()),
    "noise over signal was taken, and not signal over noise": lambda a, s, shift: _looked_up(a, 1 / s, 1 / shift),
    "an SNR outside of the table goes on beyond its ends": lambda a, s, shift: _looked_up(a, s, shift, clamped=False),
    "counted from the end of the table": lambda a, s, shift: len(a) - 1 - _looked_up(a, s, shift),
    "timesteps were counted from 1": lambda a, s, shift: _looked_up(a, s, shift) + 1,
    "a share of all timesteps, between 0 and 1": lambda a, s, shift: _looked_up(a, s, shift) / (len(a) - 1),
}  # fmt: skip


STRICT = ("the SNR equals an entry, which is still high enough: >=, not >; with > both fences end at the same entry, "
          "and 0 / 0 is NaN")


def _by_strict_bisection(alpha_bar, snr, shift):
    """The solution with > in the place of >=: where an SNR equals an entry, both fences can end there."""
    table = (alpha_bar / (1 - alpha_bar) / shift**2).log()
    wanted = snr.log().clamp(table[-1], table[0])
    low = torch.zeros_like(wanted, dtype=torch.long)
    high = torch.full_like(low, len(table) - 1)
    while (high - low).max() > 1:
        middle = (low + high) // 2
        enough = table[middle] > wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low + (table[low] - wanted) / (table[low] - table[high])


@exercise("5.4", name="timestep_at", solution=timestep_at, minutes=20, difficulty=4, importance=4)
def check_timestep_at(student):
    """Tables of 2 to 1500 entries; SNRs between entries, on them and outside; several shifts; numbers, rows and tables."""
    student, released = _ending(student), Diffusion(DiffusionConfig()).alpha_bar
    cosine = Diffusion(DiffusionConfig(schedule="cosine", timesteps=400)).alpha_bar
    longer = Diffusion(DiffusionConfig(timesteps=1500)).alpha_bar
    few = torch.tensor([0.9, 0.8, 0.35, 0.3, 0.02], dtype=torch.float64)
    on_entries = few[[4, 0, 2]] / (1 - few[[4, 0, 2]])
    table = lambda *values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    for what, alpha_bar, snr, shift in (
        ("of a table of five entries", few, table(5.0, 1.7, 0.5, 0.1, 0.46), 1.0),
        ("of a table of five entries, shift 2", few, table(1.3, 0.3, 0.11, 0.01), 2.0),
        ("of a table of five entries, shift 0.5", few, table(30.0, 12.0, 2.2, 0.7), 0.5),
        ("of SNRs that stand in the table", few, on_entries, 1.0),
        ("of SNRs above, inside and below the table", few, table(1e4, 9.5, 1.0, 0.019, 1e-5), 1),
        ("of one number", few, torch.tensor(2.0, dtype=torch.float64), 1.0),
        ("of a table of two entries", few[1:3], table(3.0, 1.0), 1.0),
        ("of the released schedule, (2, 3)", released, table(900.0, 1.0, 0.3, 0.02, 0.0048, 3.0).reshape(2, 3), 1.0),
        ("of the released schedule, shift 3.7", released, table(40.0, 1.0, 0.001, 0.0005, 200.0, 1e-9), 3.7),
        ("of 1500 timesteps", longer, table(0.5, 1e-4, 0.0003, 7e-5), 1.0),
        ("of 400 timesteps of cosine, (2, 1, 2)", cosine, table(500.0, 1e-4, 1.0, 0.07).reshape(2, 1, 2), 0.6),
        ("of the released schedule, float32", released.float(), table(30.0, 1.0, 0.1).float(), 2.0),
    ):  # fmt: skip
        what = f"the timesteps {what}"
        found, right = called(lambda a, s: student(a, s, shift), alpha_bar, snr), timestep_at(alpha_bar, snr, shift)
        if found.isnan().any():
            strict = _by_strict_bisection(alpha_bar, snr, shift)
            met = found.shape == strict.shape and torch.allclose(found, strict, rtol=0, atol=1e-5, equal_nan=True)
            raise Failed(f"{what} as numbers", f"NaN in {found.isnan().sum()} of {found.numel()}", STRICT if met else "")
        mistakes = {cause: (lambda one=one: one(alpha_bar, snr, shift)) for cause, one in TIMESTEP_MISTAKES.items()}
        recognised(what, found, right, mistakes, 0.02 if snr.dtype == torch.float32 else 1e-6)
        same_dtype(what, found, snr.dtype)
    found = called(student, few, on_entries)
    recognised("the timesteps where no shift is given", found, timestep_at(few, on_entries), {}, 1e-6)
    one = timestep_at(released, table(1.0)).item()
    return f"SNR 1 at t = {one:.1f} as released; between the entries, on them and beyond, shifted or not"


LINES = 150_000  # of code that an answer may run through, each time that it is called


def _ending(function):
    """The function, which fails after so many lines: a bisection whose fences stay where they are never ends."""

    def watched(*given):
        left, before = LINES, sys.gettrace()

        def watch(frame, event, _):
            nonlocal left
            left -= event == "line"
            if left < 0:
                raise Failed("a result", f"a loop that has not ended after {LINES:,} lines of code")
            return watch

        sys.settrace(watch)
        try:
            return function(*given)
        finally:
            sys.settrace(before)

    return watched


# --- 5.B


def levels(alpha_bar):
    """alpha_bar (T,) -> the factor of the clip and the factor of the noise, both (T,)."""
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


LEVELS_MISTAKES = {  # which of the two -> cause -> alpha_bar -> what the mistake gives
    "signal": {
        "signal and sigma are exchanged": lambda a: (1 - a).sqrt(),
        "this is the share of the variance, not the factor": lambda a: a,
        "this is the share of the noise in the variance": lambda a: 1 - a,
        "the share was squared": lambda a: a**2,
    },
    "sigma": {
        "the bug is still there: this is the factor of the clip": lambda a: a.sqrt(),
        "this is what the clip's factor lacks to 1; it is the variances that add up to 1": lambda a: 1 - a.sqrt(),
        "this is the share of the variance, not the factor": lambda a: 1 - a,
        "this is the share of the clip in the variance": lambda a: a,
        "the share was squared": lambda a: (1 - a) ** 2,
        "this is the negative factor": lambda a: -(1 - a).sqrt(),
    },
}


@exercise("5.B", name="levels", solution=levels, minutes=5, difficulty=1, importance=3)
def check_levels(student):
    """Both factors, at both ends too, of four numbers, of seven and of one."""
    for a in (torch.tensor([1.0, 0.75, 0.36, 0.0], dtype=torch.float64), torch.linspace(0.0004, 0.9996, 7),
              torch.tensor([0.2], dtype=torch.float64)):  # fmt: skip
        for i, (name, expected) in enumerate(zip(("signal", "sigma"), levels(a))):
            found = called(lambda x: _both(student(x))[i], a, what=name)
            mistakes = {cause: (lambda one=one: one(a)) for cause, one in LEVELS_MISTAKES[name].items()}
            same_dtype(name, found, a.dtype)
            recognised(name, found, expected, mistakes, 1e-5)
    return "the squares of the two factors add up to 1 at every t"


def _both(result):
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Failed("two factors, (signal, sigma)", "None" if result is None else type(result).__name__)
    return result
