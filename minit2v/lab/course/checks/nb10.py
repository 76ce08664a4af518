"""Checks of notebook 10, Steering: guidance in one call, the rescaled answer, a solver of second order, swapped halves."""

import math
import re

import torch

from minit2v.diffusion import guiders, samplers
from minit2v.lab.course.comparing import called, keeps_float32, normal, recognised
from minit2v.lab.course.exercises import Failed, close, counted, exercise, same_shape
from minit2v.lab.course.questions import Question

_TESTS = "tests/test_guiders.py::"
EQUATIONS = {
    "10.1": ("from the worse answer beyond the better", _TESTS + "test_guiders_combine_two_answers"),
    "10.2": ("rescaled guidance", _TESTS + "test_rescaled_answers_have_the_spread_of_the_better"),
    "10.3": ("guidance within an interval of noise", _TESTS + "test_the_interval_is_one_of_noise"),
    "10.4": ("the straight way", _TESTS + "test_a_velocity_gives_back_clip_and_noise"),
    "10.5": ("its velocity, the target", _TESTS + "test_a_velocity_gives_back_clip_and_noise"),
    "10.6": ("clip and noise of a velocity", _TESTS + "test_a_velocity_gives_back_clip_and_noise"),
    "10.7": ("the same signal-to-noise ratio on both ways", _TESTS + "test_euler_on_the_straight_way_is_ddim"),
    "10.8": ("Euler's step", _TESTS + "test_euler_on_the_straight_way_is_ddim"),
}

QUIZ = [
    (
        "A port of guidance makes fine clips at scale 0, clips of anything at scale 1, and worse ones above. What is "
        "wrong?",
        ["The scale is w and not 1 + w", "Conditional and unconditional answers are swapped", "The sampler draws noise"],
        1,
        "At scale 0 the answer should be the unconditional one. If the prompt rules there, it sits in the other half.",
    ),
    (
        "Guidance with a large scale makes clips of one prompt more alike. Why does the same scale within a middle "
        "interval of noise do less harm?",
        [
            "Fewer steps are guided, so it is a smaller scale in effect, and no more than that",
            "While there is only noise, the kind of clip is still open; guidance there pushes all noises the same way",
            "The unconditional model is better at low noise",
        ],
        1,
        "What makes clips differ is decided early. Without guidance there, each noise goes its own way; later, "
        "guidance corrects what has been decided.",
    ),
    (
        "A network trained with v is sampled by Euler's method on the straight way, at the noise levels of a DDIM run. "
        "The clips are",
        ["those of DDIM", "those of DDIM, but smoother", "noise, for the network has not learnt velocities"],
        0,
        "Both hold the clip and the noise that the network believes in and mix them anew. Only the size of x differs.",
    ),
]

PREDICTIONS = {
    "10.a": Question("A model of the three blobs on the right is guided away from all six blobs, with scale 8. Of its "
                     "points, one in three was near the middle one of the three. What is it now?",
                     "more, nearly all", ("fewer, nearly none", "one in three, as before", "more, nearly all")),
    "10.b": Question("Two seeds give two noises, each of variance 1. What is the variance of their mean?", 0.5, None, 0.01),
    "10.c": Question("In a world of one single point, and with a perfect network: how many of Euler's steps on the "
                     "straight way are needed to hit it?", 1),
}  # fmt: skip


# --- 10.1


def in_one_call(unet, words, nothing, scale):
    """unet (x, t, context) -> output; words and nothing (b, n, d) -> a model (x, t) -> output, one call of the unet."""

    def model(x, t):
        times = torch.full((2 * len(x),), t)
        u, c = unet(torch.cat([x, x]), times, torch.cat([nothing, words])).chunk(2)
        return u + scale * (c - u)

    return model


class Witness:
    """A UNet of which every input matters; it counts its calls and remembers their shapes."""

    def __init__(self):
        self.shapes = []

    def __call__(self, x, t, context):
        self.shapes.append((tuple(x.shape), tuple(getattr(t, "shape", ())), tuple(context.shape)))
        told = context.mean((1, 2)).reshape(-1, *[1] * (x.ndim - 1))
        return torch.tanh(x * (1 + told)) + told * x.flip(-1) + t.to(x.dtype).reshape(told.shape) / 500


def _answers(x, t, words, nothing):
    times = torch.full((len(x),), t)
    return Witness()(x, times, nothing), Witness()(x, times, words)


@exercise("10.1", name="in_one_call", solution=in_one_call, minutes=10, difficulty=2, importance=5)
def check_in_one_call(student):
    """Several clips with prompts of their own, sizes, scales; one call a step, in several steps; which half is which."""
    for b, size, t, scale in ((3, (4, 2, 3, 5), 700, 2.5), (1, (3, 4, 2, 2), 40, 9.0), (2, (1, 3, 4, 2), 999, 1.0),
                              (3, (4, 2, 3, 5), 0, 0.0), (2, (2, 1, 5, 3), 350, -1.5)):  # fmt: skip
        words, nothing = normal(b, 6, 7, seed=t + 1), normal(b, 6, 7, seed=t + 2)
        unet = Witness()
        model = student(unet, words, nothing, scale)
        if not callable(model):
            raise Failed("a function of x and t", type(model).__name__, "return the model, not its answer")
        for step, time in enumerate((t, t // 2, 20)):
            given = unet, normal(b, *size, seed=b + step), time, words, nothing, scale
            try:
                _check_step(model, *given)
            except Failed as failed:
                if step == 0:
                    raise
                _check_step(student(unet, words, nothing, scale), *given)
                raise Failed(failed.expected, failed.found, f"a new model answers step {step + 1} right: something is kept "
                             "from the steps before") from None  # fmt: skip
    x, words, nothing = (normal(2, *size).float() for size in ((4, 2, 3, 5), (6, 7), (6, 7)))
    keeps_float32(lambda y: student(Witness(), words, nothing, 2.0)(y, 7), x)
    return "one call a step for one, two and three clips with prompts of their own; scales above, at and below 0"


def _check_step(model, unet, x, t, words, nothing, scale):
    """One answer of a model: its numbers, the question to the UNet, and that texts stay as they were."""
    b, kept = len(x), [one.clone() for one in (words, nothing)]
    unet.shapes.clear()
    try:
        found = called(lambda y: model(y, t), x, what="the answer of the model")
    except (TypeError, AttributeError) as error:
        if not re.search(r"got int|'int' object", str(error)):
            raise
        raise Failed(f"an answer at t = {t}, an int", f"{type(error).__name__}: {error}",
                     "t is no tensor: torch.full((2 * len(x),), t) makes one of it") from None  # fmt: skip
    u, c = _answers(x, t, words, nothing)
    blocks = [torch.cat(texts) for texts in ((nothing, words), (words, nothing))]
    swapped = _answers(x.repeat_interleave(2, 0), t, *blocks)
    mistakes = {
        "the two answers are swapped: which half of the batch had the prompt?": lambda: c + scale * (u - c),
        "it starts at the answer with the prompt; it starts at the one without, u + scale (c - u)":
            lambda: c + scale * (c - u),
        "the clips of the batch and the texts are in different orders: x x' x x' beside 0 0 c c'":
            lambda: _mixed(*swapped, scale),
        "the difference has the wrong sign": lambda: u - scale * (c - u),
        "scale times the answer with the prompt, and the rest is missing": lambda: scale * c,
        "it is the mean of both, as a share": lambda: (1 - scale) * c + scale * u,
    }  # fmt: skip
    recognised(f"the answer for {counted(b, 'clip')} at t = {t}, scale {scale}", found, u + scale * (c - u), mistakes)
    if len(unet.shapes) != 1:
        raise Failed("one call of the UNet", len(unet.shapes), "put both questions into one batch, torch.cat")
    if unet.shapes[0] != ((2 * b, *x.shape[1:]), (2 * b,), (2 * b, 6, 7)):
        raise Failed(f"a call with x, t and texts of {2 * b} clips", unet.shapes[0],
                     "twice the clips, a timestep for each of them, and both texts")
    if not all(torch.equal(now, then) for now, then in zip((words, nothing), kept)):
        raise Failed("the texts as they were", "they were changed", "an operation in place")


def _mixed(u, c, scale):
    """What comes of x x x' x' beside the texts 0 0 c c, cut in the middle."""
    return (u + scale * (c - u)).chunk(2)[0]


# --- 10.2


def rescale(guided, plain, share):
    """guided, plain (b, …): two answers; share 0 to 1 -> guided, brought back to plain's spread by that share."""
    axes = tuple(range(1, guided.ndim))
    ratio = plain.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return share * (ratio * guided) + (1 - share) * guided


def _ratio(guided, plain, axes, power=1.0):
    return (plain.std(axes, keepdim=True) / guided.std(axes, keepdim=True)) ** power


@exercise("10.2", name="rescale", solution=rescale, minutes=10, difficulty=2, importance=4)
def check_rescale(student):
    """Clips of very different spread in one batch, means that are not 0, no, half and whole shares, points too."""
    for shape, share in (((3, 4, 2, 3, 5), 0.7), ((2, 4, 3, 2, 2), 1.0), ((2, 3, 2, 2, 4), 0.0), ((4, 9), 0.25),
                         ((1, 4, 2, 3, 3), 0.6), ((1, 7), 0.4), ((3, 2, 4), 0.8)):  # fmt: skip
        size = torch.tensor([1.0, 5.0, 0.3, 2.0], dtype=torch.float64)[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
        plain = 0.8 * normal(*shape, seed=1) + 0.5
        guided = size * normal(*shape, seed=2) + size
        axes = tuple(range(1, len(shape)))
        expected = guiders.rescaled(lambda x, t: plain, lambda x, t: guided, 0.0, share)(None, 0)  # scale 0: guided
        blend = lambda other, share=share, guided=guided: share * other + (1 - share) * guided  # noqa: E731
        mistakes = {
            "the spread of the whole batch was taken; each clip has its own": lambda: blend(
                _ratio(guided, plain, tuple(range(len(shape)))) * guided),
            "the ratio is upside down: plain over guided": lambda: blend(guided / _ratio(guided, plain, axes)),
            "the ratio of variances was taken; it is one of standard deviations":
                lambda: blend(_ratio(guided, plain, axes, 2.0) * guided),
            "the share is of the rescaled answer, not of the guided one":
                lambda: (1 - share) * _ratio(guided, plain, axes) * guided + share * guided,
            "the rest is made of plain; it is made of guided":
                lambda: share * _ratio(guided, plain, axes) * guided + (1 - share) * plain,
            "the mean was taken off; only the spread is divided": lambda: blend(
                guided.mean(axes, keepdim=True) + _ratio(guided, plain, axes) * (guided - guided.mean(axes, keepdim=True))),
            "each channel got a spread of its own; it is one for the clip":
                lambda: blend(_ratio(guided, plain, axes[1:]) * guided) if len(shape) > 2 else guided,
            "the share is not used": lambda: _ratio(guided, plain, axes) * guided,
        }  # fmt: skip
        found = called(lambda g, p, share=share: student(g, p, share), guided, plain)
        recognised(f"the answer for {counted(shape[0], 'clip')} of shape {shape[1:]}, share {share}", found, expected, mistakes)
        half = keeps_float32(lambda g, p, share=share: student(g, p, share), guided, plain)
        close("the answer for float32", half, expected, 1e-4)
    return "each clip has the spread of its own plain answer at share 1, is unchanged at 0, and in between in proportion"


# --- 10.3


def dpm_sample(ask, x, alphas):
    """DPM-Solver++(2M) over rising alphas, of which the last may be 1; ask (x, a) -> x0."""
    half_log_snr = lambda a: 0.5 * math.log(a / (1 - a)) if a < 1 else math.inf  # noqa: E731
    last_x0 = last_h = None
    for i, (a, after) in enumerate(zip(alphas, alphas[1:])):
        x0, h = ask(x, a), half_log_snr(after) - half_log_snr(a)
        guess = x0
        if last_x0 is not None and i < len(alphas) - 2:
            guess = x0 + h / (2 * last_h) * (x0 - last_x0)
        x = ((1 - after) / (1 - a)) ** 0.5 * x - after**0.5 * math.expm1(-h) * guess
        last_x0, last_h = x0, h
    return x


def _solver(ask, x, alphas, *, first=True, ratio=lambda h, last: h / (2 * last), sign=1, half=0.5, reuse=False,
            last_too=False):  # fmt: skip
    """The solver with one thing wrong."""
    lam = lambda a: half * math.log(a / (1 - a)) if a < 1 else math.inf  # noqa: E731
    old = None
    for i, (a, after) in enumerate(zip(alphas, alphas[1:])):
        x0, h = ask(x, a), lam(after) - lam(a)
        guess = x0
        if old is not None and first is not None and (i < len(alphas) - 2 or last_too):
            guess = x0 + sign * ratio(h, old[1]) * (x0 - old[0])
        x = ((1 - after) / (1 - a)) ** 0.5 * x - after**0.5 * math.expm1(-h) * guess
        old = (guess if reuse else x0), h
    return x


SOLVER_MISTAKES = {
    "every step is of first order, as DDIM's: the change of x0 since the last step is not used":
        lambda *given: _solver(*given, first=None),
    "the ratio of the steps is upside down: h / (2 h before)":
        lambda *given: _solver(*given, ratio=lambda h, last: last / (2 * h)),
    "the half is missing: h / (2 h before)": lambda *given: _solver(*given, ratio=lambda h, last: h / last),
    "the steps are taken to be of equal length; they are not, h / (2 h before)":
        lambda *given: _solver(*given, ratio=lambda h, last: 0.5),
    "it leans back: x0 + … (x0 - x0 before)": lambda *given: _solver(*given, sign=-1),
    "lambda is half the logarithm of a / (1 - a)": lambda *given: _solver(*given, half=1.0),
    "what is remembered is the extrapolated guess; it is the network's x0": lambda *given: _solver(*given, reuse=True),
    "the last step extrapolates too; it is of first order": lambda *given: _solver(*given, last_too=True),
}  # fmt: skip


@exercise("10.3", name="dpm_sample", solution=dpm_sample, minutes=20, difficulty=4, importance=4)
def check_dpm_sample(student):
    """Against the library, with uneven levels that end clean or not; the levels asked at; the order of its error."""
    start = normal(7, 3)
    for alphas in ([0.02, 0.1, 0.5, 0.6, 0.97, 1.0], [0.3, 0.35, 0.8, 0.9], [0.01, 0.4, 1.0], [0.2, 1.0], [0.1, 0.7]):
        asked = []

        def ask(x, a):
            asked.append(float(a))
            return torch.tanh(1.5 * x) + a * x.flip(-1) - a

        given = list(alphas)
        found = called(lambda x: student(ask, x, given), start)
        told = f"levels {alphas}"
        if given != alphas:
            raise Failed("the list of levels as it was", "it was changed", "pop and append change the caller's list")
        if len(asked) != len(alphas) - 1:
            raise Failed(f"{len(alphas) - 1} questions for the {told}", len(asked), "one for each step")
        if asked != alphas[:-1]:
            raise Failed(f"questions at {alphas[:-1]}", asked, "a step asks at the level where it begins")
        wrong = {cause: (lambda one=one: one(ask, start, alphas)) for cause, one in SOLVER_MISTAKES.items()}
        recognised(f"the end for the {told}", found, _library(ask, start, alphas), wrong)
    keeps_float32(lambda x: student(ask, x, [0.1, 0.3, 0.8, 1.0]), normal(2, 3, 4))
    error = {n: _miss_of_a_gaussian(student, n) for n in (32, 64)}
    if not error[64] < error[32] / 3:
        ratio = error[32] / error[64]
        raise Failed("twice the steps to quarter the error", f"{ratio:.1f} times less",
                     "first order halves it" if 1.6 < ratio < 2.4 else "")
    return "the library's samples for even and uneven levels, also of one step; twice the steps quarter its error"


def _library(ask, x, alphas):
    run = [samplers.Level(i, i, a, after) for i, (a, after) in enumerate(zip(alphas, alphas[1:]))]
    predict = lambda x, level: (ask(x, level.alpha_bar), None)  # noqa: E731
    *_, last = samplers.dpm_solver_pp(predict, x, run)
    return last.x


def _miss_of_a_gaussian(student, steps, mean=0.7, spread=0.4):
    """How far the samples of a Gaussian, whose perfect x0 is known, are from where the exact way leads."""
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    low, high = (0.5 * math.log(a / (1 - a)) for a in (1e-3, 0.999))
    alphas = [1 / (1 + math.exp(-2 * (low + (high - low) * i / steps))) for i in range(steps + 1)]

    def ask(x, a):
        return mean + a**0.5 * spread**2 / (a * spread**2 + 1 - a) * (x - a**0.5 * mean)

    width = [(a * spread**2 + 1 - a) ** 0.5 for a in (alphas[0], alphas[-1])]
    exact = alphas[-1] ** 0.5 * mean + width[1] * (x - alphas[0] ** 0.5 * mean) / width[0]
    return (student(ask, x, alphas) - exact).abs().max().item()


# --- 10.B


def combined(output, scale):
    """output ((2 b), …), answers without the prompt first, then those with it -> the guided answers (b, …)."""
    u, c = output.chunk(2)
    return u + scale * (c - u)


@exercise("10.B", name="combined", solution=combined, minutes=5, difficulty=1, importance=5)
def check_combined(student):
    """One, two and three clips; scales 0 and 1, where one of the answers must come out alone, and others."""
    for b in (1, 2, 3):
        output = normal(2 * b, 4, 2, 3, seed=b)
        u, c = output[:b], output[b:]
        for scale in (0.0, 1.0, 3.5, -2.0):
            found = called(lambda y, scale=scale: student(y, scale), output)
            what = f"the answer for {counted(b, 'clip')} at scale {scale:g}"
            same_shape(what, found, u.shape, "one answer for each clip, half as many as there are in the batch")
            mistakes = {
                "still swapped: at scale 0 the answer is the one without the prompt, the first half":
                    lambda: c + scale * (u - c),
                "the halves are taken from every other clip; the first half of the batch is one, the second the other":
                    lambda: output[::2] + scale * (output[1::2] - output[::2]),
                "it starts at the answer with the prompt": lambda: c + scale * (c - u),
                "the difference has the wrong sign": lambda: u - scale * (c - u),
            }  # fmt: skip
            recognised(what, found, u + scale * (c - u), mistakes)
    keeps_float32(lambda y: student(y, 3.5), normal(4, 3, 5))
    close("the answer at scale 1", student(normal(2, 3), 1.0), normal(2, 3)[1:], 1e-12)
    return "at scale 0 the first half, at 1 the second, beyond and before them on the same line"

