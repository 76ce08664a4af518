"""The exercises of notebook 21: right solutions pass however they are written, wrong ones do not; and the worlds in which
the true flow map is known."""

import math
from types import SimpleNamespace

import pytest
import torch
from answers import assert_refused

from minit2v.diffusion.samplers import guided
from minit2v.lab.course import exercises, flow_maps
from minit2v.lab.course.checks import nb21
from minit2v.lab.course.comparing import normal
from minit2v.lab.course.flow_maps import NOISE, Blobs, followed, jump, ring, v_between
from minit2v.training.distillation import DistillationTask


def teaching(combine, asked=None):
    """Guidance folded in by a way to combine the answers without and with the prompt."""

    def folded(teacher, x, t, words, nothing, scale):
        with torch.no_grad():
            u, c = (asked or both)(teacher, x, t, words, nothing)
        return combine(u, c, scale)

    return folded


def both(teacher, x, t, words, nothing):
    return teacher(x, t, nothing.expand_as(words)), teacher(x, t, words)


def push(u, c, scale):
    return u + scale * (c - u)


def with_gradient(teacher, x, t, words, nothing, scale):
    return push(*both(teacher, x, t, words, nothing), scale)


FOLDED = {
    "the prompt alone": teaching(lambda u, c, s: c),
    "without the prompt": teaching(lambda u, c, s: u),
    "swapped": teaching(lambda u, c, s: c + s * (u - c)),
    "w in the place of 1 + w": teaching(lambda u, c, s: c + s * (c - u)),
    "away from the prompt": teaching(lambda u, c, s: u - s * (c - u)),
    "the prompt times the scale": teaching(lambda u, c, s: s * c),
    "the push alone": teaching(lambda u, c, s: s * (c - u)),
    "the mean": teaching(lambda u, c, s: (u + c) / 2),
    "a share the wrong way": teaching(lambda u, c, s: s * u + (1 - s) * c),
    "a constant scale": teaching(lambda u, c, s: push(u, c, 1.5)),
    "never more than 1": teaching(lambda u, c, s: push(u, c, min(s, 1))),
    "a gradient to the teacher": with_gradient,
    "the first prompt for all": teaching(push, lambda teacher, x, t, w, n: both(teacher, x, t, w[:1].expand_as(w), n)),
    "the first timestep for all": teaching(push, lambda teacher, x, t, w, n: both(teacher, x, t[:1].expand_as(t), w, n)),
    "one text for several clips": teaching(push, lambda teacher, x, t, w, n: (teacher(x, t, n), teacher(x, t, w))),
    "words taken off the texts": teaching(push, lambda teacher, x, t, w, n: (teacher(x, t, w - n), teacher(x, t, w))),
    "the texts are mixed, not the answers": lambda teacher, x, t, w, n, s: teacher(x, t, n + s * (w - n)).detach(),
    "in half precision": teaching(lambda u, c, s: push(u.half(), c.half(), s).double()),
    "x is changed": lambda teacher, x, t, w, n, s: nb21.folded(teacher, x.mul_(1 + 1e-9), t, w, n, s),
    "nothing is returned": lambda teacher, x, t, w, n, s: None,
}


def known(mistakes):
    return {f"known: {cause[:70]}": mistake for cause, mistake in mistakes.items()}


def after(target, f):
    return lambda *given: f(target(*given))


def through(target, change):
    """A target whose inputs (x, t, r, …) are changed first."""
    return lambda model, *given: target(model, *change(*given))


SHORTCUT = known(nb21.SHORTCUT_MISTAKES) | {
    "a third instead of the half": lambda model, x, t, r: _at(model, x, t, r, (2 * t + r) / 3),
    "half of the length, not the middle": lambda model, x, t, r: _at(model, x, t, r, (t - r) / 2),
    "half of t": lambda model, x, t, r: _at(model, x, t, r, t / 2),
    "Euler's steps": lambda model, x, t, r: (x - _euler(model, x, t, r)) / (t - r),
    "divided by the angle": lambda model, x, t, r: ((t - r).cos() * x - _end(model, x, t, r)) / (t - r),
    "the end less x": lambda model, x, t, r: (x - _end(model, x, t, r)) / (t - r).sin(),
    "the wrong sign": after(nb21.shortcut, torch.neg),
    "the sum of both": lambda model, x, t, r: 2 * nb21.shortcut(model, x, t, r),
    "in float32": after(nb21.shortcut, lambda v: v.float().double()),
    "x is changed": through(nb21.shortcut, lambda x, t, r: (x.add_(1e-6), t, r)),
    "nothing is returned": after(nb21.shortcut, lambda v: None),
    "a mean over all points": after(nb21.shortcut, lambda v: v.mean(0, keepdim=True)),
}


def _at(model, x, t, r, middle):
    place = jump(x, model(x, t, middle), t, middle)
    return v_between(x, jump(place, model(place, middle, r), middle, r), t, r)


def _end(model, x, t, r):
    return jump(x, nb21.shortcut(model, x, t, r), t, r)


def _euler(model, x, t, r):
    half = (t + r) / 2
    middle = x - (t - half) * model(x, t, half)
    return middle - (half - r) * model(middle, half, r)


CONSISTENCY = known(nb21.CONSISTENCY_MISTAKES) | {
    "Euler's step in the place of a rotation": lambda model, x, t, r, h: nb21._stepped(
        model, x, t, r, h, v=((h.cos() * x - x + h * model(x, t, t)) / h.sin())),
    "two short steps": lambda model, x, t, r, h: nb21.consistency(model, x, t, r, 2 * h),
    "half a short step": lambda model, x, t, r, h: nb21.consistency(model, x, t, r, h / 2),
    "always an eighth": lambda model, x, t, r, h: nb21.consistency(model, x, t, r, (t - r) / 8 + 1e-3),
    "v from the moved place": lambda model, x, t, r, h: v_between(
        jump(x, model(x, t, t), t, t - h), jump(x, nb21.consistency(model, x, t, r, h), t, r), t - h, r),
    "the step is at the end of the jump": lambda model, x, t, r, h: _stepped_last(model, x, t, r, h),
    "the wrong sign": after(nb21.consistency, torch.neg),
    "to the clip whatever r is": through(nb21.consistency, lambda x, t, r, h: (x, t, 0 * r, h)),
    "in float32": after(nb21.consistency, lambda v: v.float().double()),
    "x is changed": through(nb21.consistency, lambda x, t, r, h: (x.add_(1e-6), t, r, h)),
    "nothing is returned": after(nb21.consistency, lambda v: None),
}


def _stepped_last(model, x, t, r, h):
    near = jump(x, model(x, t, r + h), t, r + h)
    return v_between(x, jump(near, model(near, r + h, r + h), r + h, r), t, r)


MEAN_FLOW = known(nb21.MEAN_FLOW_MISTAKES) | {
    "solved for v, with a tangent": lambda model, x, t, r, h: nb21._flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: v - sin / (cos + 1e-12) * (x + change)),
    "the step goes towards the noise": lambda model, x, t, r, h: nb21.mean_flow(model, x, t, r, -h),
    "Euler's step along the path": lambda model, x, t, r, h: nb21._flow(
        model, x, t, r, h, after=lambda moved: model(x - h * model(x, t, t), t - h, r)),
    "twice the derivative": lambda model, x, t, r, h: nb21._flow(model, x, t, r, h, size=h / 2),
    "the velocity changes, not the jump's v": lambda model, x, t, r, h: nb21._flow(
        model, x, t, r, h, after=lambda moved: model(moved, t - h, t - h)),
    "no angle": lambda model, x, t, r, h: nb21._flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: u - (u - v) - (x + change)),
    "the wrong sign": after(nb21.mean_flow, torch.neg),
    "in float32": after(nb21.mean_flow, lambda v: v.float().double()),
    "x is changed": through(nb21.mean_flow, lambda x, t, r, h: (x.add_(1e-6), t, r, h)),
    "nothing is returned": after(nb21.mean_flow, lambda v: None),
}


def popping(model, x, levels):
    end = nb21.sampled(model, x, levels)
    levels.pop()
    return end


SAMPLED = known(nb21.SAMPLED_MISTAKES) | {
    "one step whatever is asked for": lambda model, x, levels: nb21.sampled(model, x, [levels[0], levels[-1]]),
    "always ends at the clip": lambda model, x, levels: nb21.sampled(model, x, [*levels[:-1], 0.0]),
    "always begins at noise": lambda model, x, levels: nb21.sampled(model, x, [NOISE, *levels[1:]]),
    "even steps": lambda model, x, levels: nb21.sampled(
        model, x, torch.linspace(levels[0], levels[-1], len(levels), dtype=torch.float64).tolist()),
    "upwards": lambda model, x, levels: nb21.sampled(model, x, levels[::-1]),
    "asks twice": lambda model, x, levels: nb21.sampled(lambda *given: (model(*given) + model(*given)) / 2, x, levels),
    "returns v": lambda model, x, levels: model(x, *(torch.full((len(x), 1), one, dtype=x.dtype) for one in levels[:2])),
    "its input": lambda model, x, levels: x,
    "the list is changed": popping,
    "in float32": lambda model, x, levels: nb21.sampled(model, x, levels).float().double(),
    "x is changed": lambda model, x, levels: nb21.sampled(model, x.add_(1e-6), levels),
    "nothing is returned": lambda model, x, levels: None,
}
WRONG = {"21.1": FOLDED, "21.2": SHORTCUT, "21.3": CONSISTENCY, "21.4": MEAN_FLOW, "21.B": SAMPLED}
ALL = [(number, name) for number, wrong in WRONG.items() for name in wrong]


@pytest.mark.parametrize("number, name", ALL, ids=[" ".join(one) for one in ALL])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


KNOWN = [(number, cause, mistake) for number, mistakes in
         (("21.2", nb21.SHORTCUT_MISTAKES), ("21.3", nb21.CONSISTENCY_MISTAKES), ("21.4", nb21.MEAN_FLOW_MISTAKES),
          ("21.B", nb21.SAMPLED_MISTAKES)) for cause, mistake in mistakes.items()]  # fmt: skip


@pytest.mark.parametrize("number, cause, mistake", KNOWN, ids=[f"{number} {cause[:40]}" for number, cause, _ in KNOWN])
def test_a_known_mistake_is_named(number, cause, mistake):
    assert exercises.run(number, mistake).message.endswith(f"Likely cause: {cause}")


@pytest.mark.parametrize("name, told", [
    ("swapped", "the two answers are swapped"), ("the prompt alone", "guidance is missing"),
    ("a gradient to the teacher", "a target is a number to be met"), ("one text for several clips", "one text for all"),
])  # fmt: skip
def test_a_cause_is_named(name, told):
    assert told in exercises.run("21.1", FOLDED[name]).message


def in_one_call(teacher, x, t, words, nothing, scale):
    texts = torch.cat([words, nothing.repeat(len(words), 1, 1)])
    c, u = teacher(x.repeat(2, *[1] * (x.ndim - 1)), t.repeat(2), texts).detach().split(len(x))
    return torch.lerp(u, c, scale)


def by_complex_numbers(model, x, t, r):
    """Real part x, imaginary part v: a jump is the real part of x turned back."""
    turned = lambda x, v, angle: (torch.complex(x, v) * torch.exp(1j * angle)).real
    half, quarter = r + (t - r) / 2, (t - r) / 2
    middle = turned(x, model(x, t, half), quarter)
    end = turned(middle, model(middle, half, r), quarter)
    return x / (t - r).tan() - end / (t - r).sin()


def by_the_end(model, x, t, r, h):
    """The end of the jump from the moved place, solved for v."""
    y = h.cos() * x - h.sin() * model(x, t, t) if isinstance(h, torch.Tensor) else jump(x, model(x, t, t), t, t - h)
    rest = t - h - r
    end = rest.cos() * y - rest.sin() * model(y, t - h, r)
    return (torch.cos(t - r) * x - end) / torch.sin(t - r)


def by_the_end_that_must_not_move(model, x, t, r, h):
    """The derivative of the end cos(a) x - sin(a) u along the path, taken off u."""
    a, u, v = t - r, model(x, t, r), model(x, t, t)
    change = (model(jump(x, v, t, t - h), t - h, r) - u) / -h
    moving = -a.sin() * x + a.cos() * v - a.cos() * u - a.sin() * change
    return u + moving


def by_index(model, x, levels):
    ones = torch.ones(len(x), 1, dtype=x.dtype)
    for i in range(1, len(levels)):
        v, length = model(x, levels[i - 1] * ones, levels[i] * ones), levels[i - 1] - levels[i]
        x = math.cos(length) * x - math.sin(length) * v
    return x


@pytest.mark.parametrize("number, right", [
    ("21.1", in_one_call), ("21.2", by_complex_numbers), ("21.3", by_the_end), ("21.4", by_the_end_that_must_not_move),
    ("21.B", by_index),
])  # fmt: skip
def test_other_ways_to_write_it_pass(number, right):
    outcome = exercises.run(number, right)
    assert outcome.passed, outcome.message


# --- the worlds


def places(n=40, least=0.05):
    """Points (n, 2) and angles t > r (n, 1)."""
    generator = torch.Generator().manual_seed(0)
    r = 1.2 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    t = r + least + torch.rand(n, 1, generator=generator, dtype=torch.float64) * (NOISE - r - least)
    return normal(n, 2, seed=1), t, r


def test_a_jump_and_its_v_are_inverse():
    x, t, r = places()
    v = normal(*x.shape, seed=2)
    torch.testing.assert_close(v_between(x, jump(x, v, t, r), t, r), v)


def test_the_velocity_of_blobs_is_that_of_a_perfect_denoiser():
    """v = (cos(t) x - x0) / sin(t), where x0 is the mean of all clips that could be behind x, here by brute force."""
    world, t = ring(), torch.tensor([[0.9]], dtype=torch.float64)
    clips = world.draw(200_000, torch.Generator().manual_seed(1))
    for place in (torch.tensor([[0.5, 0.4]], dtype=torch.float64), torch.tensor([[-0.1, 0.9]], dtype=torch.float64)):
        weight = torch.softmax(-((place - t.cos() * clips) ** 2).sum(1) / (2 * t.sin() ** 2), 1)
        x0 = (weight.T * clips).sum(0)
        torch.testing.assert_close(world.velocity(place, t)[0], (t.cos() * place - x0)[0] / t.sin()[0], atol=0.01, rtol=0)


def test_the_formula_of_a_gaussian_is_where_its_path_leads_and_one_blob_is_one():
    x, t, r = places()
    mean, spread = torch.tensor([0.3, -0.8], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    world, blob = flow_maps.Gaussian(mean, spread), Blobs(mean[None], 0.5)
    torch.testing.assert_close(world.end(x, t, r), followed(world.velocity, x, t, r), atol=1e-7, rtol=0)
    torch.testing.assert_close(world.velocity(x, t), blob.velocity(x, t))
    torch.testing.assert_close(blob.flow_map(x, t, r), world.flow_map(x, t, r), atol=1e-5, rtol=0)
    torch.testing.assert_close(world.flow_map(x, t, t), world.velocity(x, t))


def test_a_true_flow_map_is_what_each_target_makes_of_it_also_on_the_ring():
    (x, t, r), world = places(), ring()
    true = world.flow_map(x, t, r)
    apart = lambda target: (target - true).abs().max().item()
    assert apart(nb21.shortcut(world.flow_map, x, t, r)) < 1e-5
    assert apart(nb21.consistency(world.flow_map, x, t, r, 1e-3)) < 1e-3
    assert apart(nb21.mean_flow(world.flow_map, x, t, r, 1e-3)) < 1e-2
    assert apart(world.velocity(x, t)) > 0.1


def test_predictions_are_true():
    question = nb21.PREDICTIONS["21.a"]
    ratio = nb21._miss(nb21.consistency, 1e-2) / nb21._miss(nb21.consistency, 5e-3)
    assert abs(ratio - question.answer) < question.tolerance
    x, t, r = places()
    stays = lambda x, t, r: -((t - r) / 2).tan() * x
    torch.testing.assert_close(jump(x, stays(x, t, r), t, r), x)
    made = (nb21.shortcut(stays, x, t, r), *(target(stays, x, t, r, 1e-4) for target in (nb21.consistency, nb21.mean_flow)))
    for target in made:
        torch.testing.assert_close(target, stays(x, t, r), atol=1e-3, rtol=0)


def test_the_library_folds_in_the_guidance_of_its_sampler():
    teacher = nb21.Teacher()
    x, words, nothing = normal(2, 4, 2, 3, 5), normal(2, 6, 7, seed=1), normal(1, 6, 7, seed=2)
    task = SimpleNamespace(cache={"contexts": nothing}, teacher=SimpleNamespace(unet=teacher), guidance=1.5,
                           config=SimpleNamespace(bfloat16=False))  # fmt: skip
    with torch.no_grad():
        found = DistillationTask.teacher_v(task, x, torch.tensor([400, 400]), words)
        expected = guided(teacher, words, nothing.expand_as(words), 1.5)(x, 400)
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-5, rtol=1e-5)
    ours = nb21.folded(teacher, x, torch.tensor([400, 400]), words, nothing, 1.5)
    torch.testing.assert_close(ours, expected.double(), atol=1e-5, rtol=1e-5)
