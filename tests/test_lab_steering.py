"""The exercises of notebook 10: right solutions pass however they are written, wrong ones do not."""

import math

import pytest
import torch
from answers import assert_refused

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb10
from minit2v.lab.course.comparing import normal


def combining(combine, order="nothing first"):
    """Guidance in one call with a way to combine the halves."""

    def guided(unet, words, nothing, scale):
        def model(x, t):
            texts = [nothing, words] if order == "nothing first" else [words, nothing]
            halves = unet(torch.cat([x, x]), torch.full((2 * len(x),), t), torch.cat(texts)).chunk(2)
            return combine(*halves, scale)

        return model

    return guided


def calling(call):
    """Guidance whose question to the UNet is call(unet, x, t, words, nothing) -> both halves."""
    return lambda unet, words, nothing, scale: lambda x, t: combine(*call(unet, x, t, words, nothing), scale)


def combine(u, c, scale):
    return u + scale * (c - u)


def times(x, t, n=2):
    return torch.full((n * len(x),), t)


def one_after_the_other(unet, x, t, words, nothing):
    return unet(x, times(x, t, 1), nothing), unet(x, times(x, t, 1), words)


def keeping(what):
    """Guidance that keeps something of its first step: both answers, the one without the prompt, or the timesteps."""

    def guided(unet, words, nothing, scale):
        kept = {}

        def model(x, t):
            at = kept.setdefault("times", times(x, t)) if what == "times" else times(x, t)
            u, c = unet(torch.cat([x, x]), at, torch.cat([nothing, words])).chunk(2)
            u = kept.setdefault("u", u) if what in ("both", "u") else u
            return combine(u, kept.setdefault("c", c) if what == "both" else c, scale)

        return model

    return guided


def in_place(unet, words, nothing, scale):
    def model(x, t):
        x *= 1 + 1e-9
        return nb10.in_one_call(unet, words, nothing, scale)(x, t)

    return model


GUIDED = {
    "swapped": combining(lambda u, c, s: c + s * (u - c)),
    "swapped by the order of the texts": combining(combine, "words first"),
    "w in the place of 1 + w": combining(lambda u, c, s: c + s * (c - u)),
    "away from the prompt": combining(lambda u, c, s: u - s * (c - u)),
    "the prompt times the scale": combining(lambda u, c, s: s * c),
    "a share of each, the wrong way": combining(lambda u, c, s: s * u + (1 - s) * c),
    "the mean": combining(lambda u, c, s: (u + c) / 2),
    "the better alone": combining(lambda u, c, s: c),
    "scale clamped to 1": combining(lambda u, c, s: combine(u, c, min(s, 1))),
    "scale never negative": combining(lambda u, c, s: combine(u, c, abs(s))),
    "a constant scale": combining(lambda u, c, s: combine(u, c, 2.5)),
    "w = 1 - s": combining(lambda u, c, s: combine(u, c, s - 1)),
    "cut to a range": combining(lambda u, c, s: combine(u, c, s).clamp(-3, 3)),
    "in half precision": combining(lambda u, c, s: combine(u.half(), c.half(), s).double()),
    "rescaled without being asked": combining(lambda u, c, s: combine(u, c, s) * c.std() / combine(u, c, s).std()),
    "both halves returned": combining(lambda u, c, s: torch.cat([u, c])),
    "two calls": calling(one_after_the_other),
    "clips repeated one by one, texts as blocks": calling(lambda unet, x, t, w, n: unet(
        x.repeat_interleave(2, 0), times(x, t), torch.cat([n, w])).chunk(2)),
    "the halves are every other clip": calling(lambda unet, x, t, w, n: (
        lambda both: (both[::2], both[1::2]))(unet(torch.cat([x, x]), times(x, t), torch.cat([n, w])))),
    "the first prompt for all clips": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]), times(x, t), torch.cat([n, w[:1].expand_as(w)])).chunk(2)),
    "a constant timestep": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]), times(x, 500), torch.cat([n, w])).chunk(2)),
    "one timestep too early": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]), times(x, t - 1), torch.cat([n, w])).chunk(2)),
    "a timestep without an axis": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]), torch.tensor([t]), torch.cat([n, w])).chunk(2)),
    "texts added and not stacked": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]), times(x, t), torch.cat([n, w + n])).chunk(2)),
    "the int in a list of tensors": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]), torch.cat([t, t]), torch.cat([n, w])).chunk(2)),
    "the int repeated": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]), t.repeat(2), torch.cat([n, w])).chunk(2)),
    "three questions": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x, x]), times(x, t, 3), torch.cat([n, w, w])).chunk(3)[:2]),
    "the answer and not the model": lambda unet, words, nothing, scale: unet(words, words, words),
    "x is changed": in_place,
    **{f"kept from the first step: {what}": keeping(what) for what in ("both", "u", "times")},
    "always double": combining(lambda u, c, s: combine(u, c, s).double()),
    "the size of one clip": calling(lambda unet, x, t, w, n: unet(
        torch.cat([x, x]).reshape(-1, 4, 2, 3, 5), times(x, t), torch.cat([n, w])).chunk(2)),
    "nothing is returned": lambda unet, words, nothing, scale: lambda x, t: None,
}  # fmt: skip


def rescaling(f):
    return lambda guided, plain, share: f(guided, plain, share, tuple(range(1, guided.ndim)))


def ratio(g, p, axes, power=1.0):
    return (p.std(axes, keepdim=True) / g.std(axes, keepdim=True)) ** power


RESCALED = {
    "of the whole batch": lambda g, p, s: s * g * p.std() / g.std() + (1 - s) * g,
    "upside down": rescaling(lambda g, p, s, a: s * g / ratio(g, p, a) + (1 - s) * g),
    "variances": rescaling(lambda g, p, s, a: s * g * ratio(g, p, a, 2.0) + (1 - s) * g),
    "the share turned round": rescaling(lambda g, p, s, a: (1 - s) * g * ratio(g, p, a) + s * g),
    "mixed with plain": rescaling(lambda g, p, s, a: s * g * ratio(g, p, a) + (1 - s) * p),
    "no share": rescaling(lambda g, p, s, a: g * ratio(g, p, a)),
    "always seven tenths": rescaling(lambda g, p, s, a: 0.7 * g * ratio(g, p, a) + 0.3 * g),
    "the mean stays": rescaling(lambda g, p, s, a: s * ((g - g.mean(a, keepdim=True)) * ratio(g, p, a)
                                                         + g.mean(a, keepdim=True)) + (1 - s) * g),
    "the mean of plain too": rescaling(lambda g, p, s, a: s * ((g - g.mean(a, keepdim=True)) * ratio(g, p, a)
                                                                + p.mean(a, keepdim=True)) + (1 - s) * g),
    "each channel": rescaling(lambda g, p, s, a: s * g * ratio(g, p, a[1:] or a) + (1 - s) * g),
    "over the batch": lambda g, p, s: s * g * ratio(g, p, (0,)) + (1 - s) * g,
    "not about the mean": rescaling(lambda g, p, s, a: s * g * (p.square().mean(a, keepdim=True)
                                                                 / g.square().mean(a, keepdim=True)) ** 0.5 + (1 - s) * g),
    "ranges": rescaling(lambda g, p, s, a: s * g * (p.amax(a, keepdim=True) - p.amin(a, keepdim=True))
                        / (g.amax(a, keepdim=True) - g.amin(a, keepdim=True)) + (1 - s) * g),
    "a mean of the ratios": rescaling(lambda g, p, s, a: s * g * ratio(g, p, a).mean() + (1 - s) * g),
    "a power of the ratio": rescaling(lambda g, p, s, a: g * ratio(g, p, a) ** s),
    "guided is forgotten": rescaling(lambda g, p, s, a: s * g * ratio(g, p, a)),
    "five axes only": lambda g, p, s: s * g * ratio(g, p, (1, 2, 3, 4)) + (1 - s) * g,
    "plain": lambda g, p, s: p,
    "guided": lambda g, p, s: g,
    "only downwards": rescaling(lambda g, p, s, a: s * g * ratio(g, p, a).clamp(max=1) + (1 - s) * g),
    "in place": rescaling(lambda g, p, s, a: g.mul_(s * ratio(g, p, a) + 1 - s)),
    "one clip is left alone": rescaling(lambda g, p, s, a: s * g * ratio(g, p, a) + (1 - s) * g if len(g) > 1 else g),
    "three axes are one clip": rescaling(lambda g, p, s, a: s * g * (p.std() / g.std() if g.ndim == 3 else ratio(g, p, a))
                                         + (1 - s) * g),
    "in double precision": rescaling(lambda g, p, s, a: (s * g * ratio(g, p, a) + (1 - s) * g).double()),
    "nothing": lambda g, p, s: None,
}  # fmt: skip


def solver(**mistake):
    return lambda ask, x, alphas: nb10._solver(ask, x, alphas, **mistake)


def popping(ask, x, alphas):
    end = nb10.dpm_sample(ask, x, alphas)
    alphas.pop()
    return end


def changed(f):
    return lambda ask, x, alphas: f(nb10.dpm_sample(ask, x, alphas))


def eager(ask, x, alphas):
    """Second order with a look ahead: two questions a step."""
    for a, after in zip(alphas, alphas[1:]):
        x0 = ask(x, a)
        there = _step(x, x0, a, after)
        x = _step(x, (x0 + ask(there, after)) / 2, a, after) if after < 1 else there
    return x


def _step(x, x0, a, after):
    eps = (x - a**0.5 * x0) / (1 - a) ** 0.5
    return after**0.5 * x0 + (1 - after) ** 0.5 * eps


def late(ask, x, alphas):
    """Asks at the level where a step ends."""
    return nb10.dpm_sample(lambda y, a: ask(y, alphas[alphas.index(a) + 1]), x, alphas)


def short(ask, x, alphas):
    """Returns the last x0."""
    kept = []
    nb10.dpm_sample(lambda y, a: kept.append(ask(y, a)) or kept[-1], x, alphas)
    return kept[-1]


def wasteful(ask, x, alphas):
    ask(x, alphas[0])
    return nb10.dpm_sample(ask, x, alphas)


SOLVED = {f"known: {cause[:60]}": mistake for cause, mistake in nb10.SOLVER_MISTAKES.items()} | {
    "DDIM": solver(first=None),
    "twice the correction": solver(ratio=lambda h, last: h / last),
    "half the correction": solver(ratio=lambda h, last: h / (4 * last)),
    "the square of the ratio": solver(ratio=lambda h, last: (h / last) ** 2 / 2),
    "the last step of the step before": solver(ratio=lambda h, last: 1.0),
    "lambda with another base": solver(half=0.5 / math.log(10)),
    "the list is changed": popping,
    "Heun": eager,
    "asks too late": late,
    "asks once too often": wasteful,
    "returns the last belief": short,
    "stops one step before": lambda ask, x, alphas: nb10.dpm_sample(ask, x, alphas[:-1]),
    "levels turned round": lambda ask, x, alphas: nb10.dpm_sample(ask, x, alphas[::-1]),
    "always ends clean": lambda ask, x, alphas: nb10.dpm_sample(ask, x, [*alphas[:-1], 1.0]),
    "a little off": changed(lambda x: x * (1 + 1e-6)),
    "in float32": changed(lambda x: x.float().double()),
    "always double": changed(lambda x: x.double()),
    "nothing": changed(lambda x: None),
    "its input": lambda ask, x, alphas: x,
    "in place": lambda ask, x, alphas: nb10.dpm_sample(ask, x.add_(1), alphas),
}
HALVES = {
    "swapped": lambda y, s: combine(*y.chunk(2)[::-1], s),
    "every other": lambda y, s: combine(y[::2], y[1::2], s),
    "w": lambda y, s: y.chunk(2)[1] + s * (y.chunk(2)[1] - y.chunk(2)[0]),
    "minus": lambda y, s: y.chunk(2)[0] - s * (y.chunk(2)[1] - y.chunk(2)[0]),
    "1 - s": lambda y, s: combine(*y.chunk(2), 1 - s),
    "the first alone": lambda y, s: y.chunk(2)[0],
    "the second alone": lambda y, s: y.chunk(2)[1],
    "the mean": lambda y, s: sum(y.chunk(2)) / 2,
    "along another axis": lambda y, s: combine(*y.chunk(2, 1), s),
    "a batch of two": lambda y, s: combine(y[:1], y[1:2], s),
    "not less than 0": lambda y, s: combine(*y.chunk(2), max(s, 0)),
    "one clip, kept as two": lambda y, s: torch.cat([combine(*y.chunk(2), s)] * 2),
    "no axis of clips": lambda y, s: combine(y[0], y[len(y) // 2], s),
    "in float32": lambda y, s: combine(*y.float().chunk(2), s).double(),
    "always double": lambda y, s: combine(*y.chunk(2), s).double(),
    "in place": lambda y, s: y.chunk(2)[0].add_(s * (y.chunk(2)[1] - y.chunk(2)[0])),
    "nothing": lambda y, s: None,
    "the difference": lambda y, s: s * (y.chunk(2)[1] - y.chunk(2)[0]),
}
WRONG = {"10.1": GUIDED, "10.2": RESCALED, "10.3": SOLVED, "10.B": HALVES}
ALL = [(number, name) for number, known in WRONG.items() for name in known]


@pytest.mark.parametrize("number, name", ALL, ids=[" ".join(one) for one in ALL])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


def by_repeating(unet, words, nothing, scale):
    """Other order of the texts, another way to stack, another formula, a times tensor of floats."""

    def model(x, t):
        shape = (2, *[1] * (x.ndim - 1))
        c, u = unet(x.repeat(shape), torch.full((2 * len(x),), float(t)), torch.cat((words, nothing))).split(len(x))
        return scale * c + (1 - scale) * u

    return model


def by_flattening(guided, plain, share):
    sizes = [one.flatten(1).std(1, unbiased=False) for one in (plain, guided)]
    factor = share * sizes[0] / sizes[1] + 1 - share
    return guided * factor.reshape(-1, *[1] * (guided.ndim - 1))


def as_published(ask, x, alphas):
    """Algorithm 2 of the paper with r, D and logarithms."""
    beliefs, lambdas = [], [math.log((a / (1 - a)) ** 0.5) if a < 1 else math.inf for a in alphas]
    for i in range(1, len(alphas)):
        beliefs.append(ask(x, alphas[i - 1]))
        h = lambdas[i] - lambdas[i - 1]
        D = beliefs[-1]
        if 1 < i < len(alphas) - 1:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            D = (1 + 1 / (2 * r)) * beliefs[-1] - 1 / (2 * r) * beliefs[-2]
        sigma, before = (math.sqrt(1 - a) for a in (alphas[i], alphas[i - 1]))
        x = sigma / before * x - math.sqrt(alphas[i]) * (math.exp(-h) - 1) * D
    return x


@pytest.mark.parametrize("number, right", [
    ("10.1", by_repeating), ("10.2", by_flattening), ("10.3", as_published),
    ("10.B", lambda y, s: torch.lerp(*y.chunk(2), s)),
])  # fmt: skip
def test_other_ways_to_write_it_pass(number, right):
    outcome = exercises.run(number, right)
    assert outcome.passed, outcome.message


@pytest.mark.parametrize("number, name, told", [
    ("10.1", "swapped by the order of the texts", "the two answers are swapped"),
    ("10.1", "w in the place of 1 + w", "it starts at the answer with the prompt"),
    ("10.1", "two calls", "put both questions into one batch"),
    ("10.1", "the int in a list of tensors", "t is no tensor"),
    ("10.1", "the int repeated", "t is no tensor"),
    ("10.2", "of the whole batch", "each clip has its own"),
    ("10.2", "variances", "standard deviations"),
    ("10.2", "mixed with plain", "it is made of guided"),
    ("10.B", "swapped", "still swapped"),
])  # fmt: skip
def test_a_cause_is_named(number, name, told):
    assert told in exercises.run(number, WRONG[number][name]).message


@pytest.mark.parametrize("cause", nb10.SOLVER_MISTAKES)
def test_a_known_mistake_of_the_solver_is_named(cause):
    assert exercises.run("10.3", nb10.SOLVER_MISTAKES[cause]).message.endswith(f"Likely cause: {cause}")


def test_predictions_are_true():
    x = (normal(20_000) + normal(20_000, seed=1)) / 2
    assert abs(x.var().item() - nb10.PREDICTIONS["10.b"].answer) < nb10.PREDICTIONS["10.b"].tolerance
