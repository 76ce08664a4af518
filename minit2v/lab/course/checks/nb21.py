"""Checks of notebook 21, One step: guidance folded in, three targets of a flow map, a loop that asks for the wrong end.

A target is compared twice: with the library's, for a network that answers anything, and with a flow map that is known
exactly, of which each target must make nothing but itself.
"""

import torch

from minit2v.lab.course.comparing import called, normal, recognised
from minit2v.lab.course.exercises import Failed, close, counted, exercise
from minit2v.lab.course.flow_maps import NOISE, Gaussian, jump, v_between
from minit2v.lab.course.questions import Question
from minit2v.training.distillation import TARGETS, Rotations

_TESTS, _OWN = "tests/test_distillation.py::", "tests/test_lab_one_step.py::"
EQUATIONS = {
    "21.1": ("a jump", _TESTS + "test_a_jump_is_a_step_of_ddim"),
    "21.2": ("the v of a jump", _OWN + "test_a_jump_and_its_v_are_inverse"),
    "21.3": ("guidance folded into the target", _OWN + "test_the_library_folds_in_the_guidance_of_its_sampler"),
    "21.4": ("two halves make a whole", _TESTS + "test_the_exact_flow_map_is_its_own_target"),
    "21.5": ("a short step along the path, then a jump", _TESTS + "test_the_exact_flow_map_is_its_own_target"),
    "21.6": ("the end must not move with the start", _TESTS + "test_the_exact_flow_map_is_its_own_target"),
    "21.7": ("how far an end has to move", _TESTS + "test_ends_move_to_where_the_clips_of_the_teacher_are"),
}

QUIZ = [
    (
        "A flow map was trained with jumps of every length but never with jumps of length 0. The loss of its targets is "
        "nearly zero. What does it make of noise?",
        [
            "Clips, for its jumps agree with one another",
            "Possibly nothing at all: staying where one is agrees with itself as well",
            "The average of all clips",
        ],
        1,
        "The targets say only that jumps fit together. Where the path leads is said by the jumps of length 0, which follow "
        "the teacher's v.",
    ),
    (
        "Guidance 1.5 was folded into a distilled model. Somebody samples it with guidance 1.5 again. The clips are",
        ["the same", "pushed twice, and the network was asked twice for it", "those of guidance 1"],
        1,
        "The network answers what the guided teacher would. Another push goes beyond, at twice the cost. That is why its "
        "preset says 1.",
    ),
    (
        "A distilled model has half as much diversity again as its teacher, and fewer clips are right. What is likely?",
        ["It has learnt more than its teacher", "Some clips are broken, each in its own way", "It answers with averages"],
        1,
        "Averages are alike and lower the diversity. Broken clips differ from all others and raise it.",
    ),
]

PREDICTIONS = {
    "21.a": Question("The short step of the consistency target is made half as long. How many times smaller is the distance "
                     "between a true flow map and the target that is made of it, about?", 4, None, 0.5),
    "21.b": Question("A network always stays where it is, x_r = x_t. Which of the three targets notices, if its steps are "
                     "short?", "none",
                     ("none", "the shortcut", "consistency and mean flow", "all three")),
    "21.c": Question("mini makes a clip in 12 steps with guidance. How many answers of the network is that?", 24),
}  # fmt: skip


# --- 21.1


def folded(teacher, x, t, words, nothing, scale):
    """teacher (x, t, context) -> v; x (b, …), t (b,), words (b, n, d), nothing (1, n, d) -> the target (b, …)."""
    with torch.no_grad():
        u, c = teacher(x, t, nothing.expand_as(words)), teacher(x, t, words)
    return u + scale * (c - u)


class Teacher(torch.nn.Module):
    """A network of which every input matters, and whose weight would like a gradient."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, t, context):
        if len(t) != len(x) or len(context) != len(x):
            found = f"{len(x)} clips, {len(t)} timesteps and {len(context)} texts"
            raise Failed("as many timesteps and texts as clips in a call of the teacher", found,
                         "nothing is one text for all")
        told = context.mean((1, 2)).reshape(-1, *[1] * (x.ndim - 1))
        return torch.tanh(self.weight * x * (1 + told)) + told * x.flip(-1) + t.to(x).reshape(told.shape) / 500


@exercise("21.1", name="folded", solution=folded, minutes=8, difficulty=2, importance=4)
def check_folded(student):
    """Clips with prompts and timesteps of their own, several scales; no gradient leads to the teacher."""
    teacher = Teacher()
    for b, scale in ((3, 1.5), (1, 4.0), (2, 1.0), (3, 0.0)):
        x, words, nothing = normal(b, 4, 2, 3, 5, seed=b), normal(b, 6, 7, seed=9), normal(1, 6, 7, seed=8)
        t = torch.tensor([999, 400, 30])[:b]
        found = called(lambda *given, scale=scale: student(teacher, *given, scale), x, t, words, nothing, what="the target")
        with torch.no_grad():
            u, c = teacher(x, t, nothing.expand_as(words)), teacher(x, t, words)
        mistakes = {
            "the answer with the prompt alone: guidance is missing": lambda: c,
            "the two answers are swapped": lambda: c + scale * (u - c),
            "it starts at the answer with the prompt; it starts at the one without": lambda: c + scale * (c - u),
            "the difference has the wrong sign": lambda: u - scale * (c - u),
            "scale times the answer with the prompt, and the rest is missing": lambda: scale * c,
            "only the push; the answer without the prompt is missing": lambda: scale * (c - u),
        }  # fmt: skip
        recognised(f"the target of {counted(b, 'clip')}, scale {scale:g}", found, u + scale * (c - u), mistakes)
        if found.requires_grad:
            raise Failed("a target without a gradient", "one that leads to the teacher",
                         "a target is a number to be met: with torch.no_grad(), or .detach() at the end")
    return "the guided answer, each clip with its own prompt and timestep, and no gradient"


# --- what the targets are compared with

TIMESTEPS = 640  # of the library's path here: so many that halves, eighths and thirty-seconds of jumps are whole numbers
JUMPS = ((639, -1), (479, 159), (319, -1), (95, 31), (639, 447))  # (t, r) in timesteps


class EvenPath(Rotations):
    """The library's path with evenly spaced angles, float64."""

    def __init__(self):
        self.angles = torch.linspace(0, NOISE, TIMESTEPS + 1, dtype=torch.float64)

    def between(self, t, r):
        return (self.angles[t + 1] - self.angles[r + 1])[:, None, None, None, None]


PATH = EvenPath()
WORLD = Gaussian(torch.tensor([0.7, -0.4, 0.1], dtype=torch.float64), torch.tensor([0.5, 1.6, 0.2], dtype=torch.float64))


def angle(timesteps):
    """Angles (n, 1) of the library's timesteps (n,)."""
    return PATH.angles[timesteps + 1][:, None]


def library(target, model, x, t, r):
    """The library's target "shortcut", "consistency" or "mean-flow" for points x (n, d) and timesteps t, r (n,)."""
    clip = lambda points: points[..., None, None, None]  # (n, d) -> (n, d, 1, 1, 1)
    points = lambda clip: clip[..., 0, 0, 0]
    asked = lambda x, t, r: clip(model(points(x), angle(t), angle(r)))
    return points(TARGETS[target](PATH, asked, clip(x), t, r))


def wild(x, t, r):
    """A network that is no flow map: any mistake shows."""
    return torch.tanh(x * (1 + t) - r) + t.cos() * x.flip(-1) - 0.7 * (t - r).sin() + 0.3 * r * x


def starts():
    """Points (n, 3), t and r in timesteps (n,), several for each of JUMPS."""
    t, r = torch.tensor(JUMPS * 3).T
    return normal(len(t), 3, seed=4), t, r


def _miss(target, part=None):
    """How far the target of the true flow map is from it, at most; with short steps that are a part of the jump."""
    x, t, r = starts()
    given = (angle(t), angle(r)) + (() if part is None else (part * (angle(t) - angle(r)),))
    return (target(WORLD.flow_map, x, *given) - WORLD.flow_map(x, *given[:2])).abs().max().item()


# --- 21.2


def shortcut(model, x, t, r):
    """model (x, t, r) -> v; x (n, d), t and r (n, 1) -> the v of two jumps of half the length, (n, d)."""
    half = (t + r) / 2
    middle = jump(x, model(x, t, half), t, half)
    end = jump(middle, model(middle, half, r), half, r)
    return v_between(x, end, t, r)


def _halves(model, x, t, r, *, first=None, second=None, start=None):
    """The shortcut with one thing wrong."""
    half = (t + r) / 2
    middle = jump(x, model(x, t, half) if first is None else first, t, half)
    v = model(middle, half, r) if second is None else second(middle, half)
    return v_between(x, jump(middle if start is None else start, v, half, r), t, r)


SHORTCUT_MISTAKES = {
    "the first half is asked for the whole way: its jump ends at the middle":
        lambda model, x, t, r: _halves(model, x, t, r, first=model(x, t, r)),
    "the second half is asked as if it began at t": lambda model, x, t, r: _halves(
        model, x, t, r, second=lambda middle, half: model(middle, t, half)),
    "the second half is asked about x; it begins where the first one has ended": lambda model, x, t, r: _halves(
        model, x, t, r, second=lambda middle, half: model(x, half, r)),
    "the second jump starts at x again": lambda model, x, t, r: _halves(model, x, t, r, start=x),
    "the same v is used for both halves; the network is to be asked again in the middle": lambda model, x, t, r: _halves(
        model, x, t, r, second=lambda middle, half: model(x, t, half)),
    "the mean of the two v's is right on a straight way; here it runs on a circle: take the v that leads to the end":
        lambda model, x, t, r: (model(x, t, (t + r) / 2) + model(
            jump(x, model(x, t, (t + r) / 2), t, (t + r) / 2), (t + r) / 2, r)) / 2,
    "this is where the jumps end; the target is the v that leads there, v_between": lambda model, x, t, r: jump(
        x, shortcut(model, x, t, r), t, r),
    "the network's own answer came back": lambda model, x, t, r: model(x, t, r),
    "the velocities of the path were followed; the halves are jumps": lambda model, x, t, r: _halves(
        lambda y, a, b: model(y, a, a), x, t, r),
}  # fmt: skip


@exercise("21.2", name="shortcut", solution=shortcut, minutes=12, difficulty=3, importance=5)
def check_shortcut(student):
    """The library's for any network; and the true flow map of a Gaussian is its own target."""
    x, t, r = starts()
    own = lambda model: lambda *given: student(model, *given)
    found = called(own(wild), x, angle(t), angle(r), what="the target")
    wrong = {cause: (lambda one=one: one(wild, x, angle(t), angle(r))) for cause, one in SHORTCUT_MISTAKES.items()}
    recognised("the target", found, library("shortcut", wild, x, t, r), wrong)
    close("the distance of a true flow map from its target", _miss(student), 0, 1e-9, "two true halves make the true whole")
    return "the library's for any network, and of a true flow map exactly itself"


# --- 21.3


def consistency(model, x, t, r, h):
    """h (n, 1) or a number, short beside t - r -> the v of a step of length h along the path, then one jump, (n, d)."""
    near = t - h
    moved = jump(x, model(x, t, t), t, near)
    end = jump(moved, model(moved, near, r), near, r)
    return v_between(x, end, t, r)


def _stepped(model, x, t, r, h, *, v=None, ask=None, start=None, sign=1):
    """Consistency with one thing wrong."""
    near = t - sign * h
    moved = jump(x, model(x, t, t) if v is None else v, t, near)
    said = model(moved, near, r) if ask is None else ask(moved, near)
    return v_between(x, jump(moved if start is None else start, said, near, r), t, r)


CONSISTENCY_MISTAKES = {
    "the short step follows the jump to r; it follows the path, whose v is the answer for a jump of length 0":
        lambda model, x, t, r, h: _stepped(model, x, t, r, h, v=model(x, t, r)),
    "the short step is a jump of length h; it follows the path, whose v is the answer for a jump of length 0":
        lambda model, x, t, r, h: _stepped(model, x, t, r, h, v=model(x, t, t - h)),
    "the jump is asked about x; it begins where the short step has ended":
        lambda model, x, t, r, h: _stepped(model, x, t, r, h, ask=lambda moved, near: model(x, near, r)),
    "the jump is asked as if it began at t": lambda model, x, t, r, h: _stepped(
        model, x, t, r, h, ask=lambda moved, near: model(moved, t, r)),
    "the jump starts at x again": lambda model, x, t, r, h: _stepped(model, x, t, r, h, start=x),
    "the short step goes towards the noise": lambda model, x, t, r, h: _stepped(model, x, t, r, h, sign=-1),
    "after the short step the path is followed on; the rest is one jump": lambda model, x, t, r, h: _stepped(
        model, x, t, r, h, ask=lambda moved, near: model(moved, near, near)),
    "the v of the second jump came back; the target is the v from x to where it ends": lambda model, x, t, r, h: model(
        jump(x, model(x, t, t), t, t - h), t - h, r),
    "this is where the jumps end; the target is the v that leads there, v_between": lambda model, x, t, r, h: jump(
        x, consistency(model, x, t, r, h), t, r),
    "the network's own answer came back": lambda model, x, t, r, h: model(x, t, r),
}  # fmt: skip


def _as_the_librarys(student, target, solution, mistakes, its_own, another):
    """Compare a target with the library's, whose short step is the part `its_own` of a jump, and with `another` part."""
    x, t, r = starts()
    for part in (its_own, another):
        h = part * (angle(t) - angle(r))
        found = called(lambda *given: student(wild, *given), x, angle(t), angle(r), h, what="the target")
        expected = library(target, wild, x, t, r) if part == its_own else solution(wild, x, angle(t), angle(r), h)
        wrong = {cause: (lambda one=one: one(wild, x, angle(t), angle(r), h)) for cause, one in mistakes.items()}
        recognised("the target", found, expected, wrong)


@exercise("21.3", name="consistency", solution=consistency, minutes=10, difficulty=3, importance=4)
def check_consistency(student):
    """The library's for any network; of a true flow map nearly itself, and four times as nearly with half the step."""
    _as_the_librarys(student, "consistency", consistency, CONSISTENCY_MISTAKES, its_own=1 / 8, another=0.3)
    near, nearer = _miss(student, 1e-3), _miss(student, 5e-4)
    if not (near < 1e-3 and 3.5 < near / nearer < 4.5):
        raise Failed("a true flow map nearly its own target, four times as nearly with half the step",
                     f"distances {near:.2g} and {nearer:.2g}")
    return "the library's for any network; of a true flow map itself, with an error that falls with the square of the step"


# --- 21.4


def mean_flow(model, x, t, r, h):
    """h (n, 1) or a number, very short -> what v must be so that the end of the jump does not move with its start."""
    u, v = model(x, t, r), model(x, t, t)
    moved = jump(x, v, t, t - h)
    change = (u - model(moved, t - h, r)) / h
    return u - (t - r).cos() * (u - v) - (t - r).sin() * (x + change)


def _flow(model, x, t, r, h, *, along=None, after=None, size=None, sign=1, form=None):
    """Mean flow with one thing wrong."""
    u, v = model(x, t, r), model(x, t, t)
    moved = jump(x, v if along is None else along(u), t, t - h)
    later = model(moved, t - h, r) if after is None else after(moved)
    change = sign * (u - later) / (h if size is None else size)
    cos, sin = (t - r).cos(), (t - r).sin()
    return u - cos * (u - v) - sin * (x + change) if form is None else form(u, v, change, cos, sin)


MEAN_FLOW_MISTAKES = {
    "x stays where it is while t moves; the derivative is along the path":
        lambda model, x, t, r, h: _flow(model, x, t, r, h, after=lambda moved: model(x, t - h, r)),
    "x moves and t does not; the derivative is along the path, in both":
        lambda model, x, t, r, h: _flow(model, x, t, r, h, after=lambda moved: model(moved, t, r)),
    "r moves too; the end stays where it is":
        lambda model, x, t, r, h: _flow(model, x, t, r, h, after=lambda moved: model(moved, t - h, r - h)),
    "x moves with the v of the jump; it moves along the path, with the answer for length 0":
        lambda model, x, t, r, h: _flow(model, x, t, r, h, along=lambda u: u),
    "the derivative has the wrong sign: t grows towards the noise, and the step went the other way":
        lambda model, x, t, r, h: _flow(model, x, t, r, h, sign=-1),
    "the difference is not divided by the length of the step": lambda model, x, t, r, h: _flow(model, x, t, r, h, size=1.0),
    "the difference is divided by the length of the jump; it is one of the short step":
        lambda model, x, t, r, h: _flow(model, x, t, r, h, size=t - r),
    "sine and cosine are swapped": lambda model, x, t, r, h: _flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: u - sin * (u - v) - cos * (x + change)),
    "x is missing beside the derivative: a jump turns x as well": lambda model, x, t, r, h: _flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: u - cos * (u - v) - sin * change),
    "this is the formula of the straight way, v - (t - r) · derivative; here it runs on a circle":
        lambda model, x, t, r, h: _flow(
            model, x, t, r, h, form=lambda u, v, change, cos, sin: v - (t - r) * change),
    "this is what the target takes from the network's answer; subtract it from u": lambda model, x, t, r, h: _flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: cos * (u - v) + sin * (x + change)),
    "it goes the wrong way: what has to be taken from the network's answer was added": lambda model, x, t, r, h: _flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: u + cos * (u - v) + sin * (x + change)),
    "the derivative is missing": lambda model, x, t, r, h: _flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: u - cos * (u - v) - sin * x),
    "it starts at the velocity; it starts at the network's answer for the jump": lambda model, x, t, r, h: _flow(
        model, x, t, r, h, form=lambda u, v, change, cos, sin: v - cos * (u - v) - sin * (x + change)),
    "the network's own answer came back": lambda model, x, t, r, h: model(x, t, r),
}  # fmt: skip


@exercise("21.4", name="mean_flow", solution=mean_flow, minutes=20, difficulty=4, importance=4)
def check_mean_flow(student):
    """The library's for any network; of a true flow map nearly itself, and twice as nearly with half the step."""
    _as_the_librarys(student, "mean-flow", mean_flow, MEAN_FLOW_MISTAKES, its_own=1 / 32, another=0.2)
    near, nearer = _miss(student, 1e-3), _miss(student, 5e-4)
    if not (near < 1e-2 and 1.8 < near / nearer < 2.2):
        raise Failed("a true flow map nearly its own target, twice as nearly with half the step",
                     f"distances {near:.2g} and {nearer:.2g}")
    return "the library's for any network; of a true flow map itself, with an error that falls with the step"


# --- 21.B


def sampled(model, x, levels):
    """model (x, t, r) -> v; x (n, d) at the first of the levels, falling angles -> the points at the last, (n, d)."""
    for pair in zip(levels, levels[1:]):
        t, r = (torch.full((len(x), 1), one, dtype=x.dtype) for one in pair)
        x = jump(x, model(x, t, r), t, r)
    return x


SAMPLED_MISTAKES = {
    "it is still asked for the jump to the last level, of which a part is gone: the v of a jump is right for its own end":
        lambda model, x, levels: sampled(lambda x, t, r: model(x, t, 0 * r + levels[-1]), x, levels),
    "it is asked for the velocity of the path: a jump of length 0":
        lambda model, x, levels: sampled(lambda x, t, r: model(x, t, t), x, levels),
    "every step goes all the way to the last level": lambda model, x, levels: _to_the_end(model, x, levels),
    "the last step is missing": lambda model, x, levels: sampled(model, x, levels[:-1]),
    "t and r are swapped in the question": lambda model, x, levels: sampled(lambda x, t, r: model(x, r, t), x, levels),
}  # fmt: skip


def _to_the_end(model, x, levels):
    last = torch.full((len(x), 1), levels[-1], dtype=x.dtype)
    for level in levels[:-1]:
        t = torch.full((len(x), 1), level, dtype=x.dtype)
        x = jump(x, model(x, t, last), t, last)
    return x


@exercise("21.B", name="sampled", solution=sampled, minutes=8, difficulty=2, importance=4)
def check_sampled(student):
    """One to five steps, even and uneven, down to the clip or not so far; a true flow map ends where one jump ends."""
    x = normal(9, 3, seed=5)
    for levels in ([NOISE, 0.0], [NOISE, 0.8, 0.0], [NOISE, 1.5, 1.1, 0.4, 0.1, 0.0], [1.2, 0.7, 0.3]):
        asked = []

        def watched(x, t, r):
            asked.append((round(t.flatten()[0].item(), 9), round(r.flatten()[0].item(), 9)))
            return wild(x, t, r)

        given = list(levels)
        found = called(lambda x: student(watched, x, given), x)
        steps = len(levels) - 1
        told = f"{steps} step{'s' * (steps > 1)} from {levels[0]:.2f} to {levels[-1]:.2f}"
        if given != levels:
            raise Failed("the list of levels as it was", "it was changed", "pop and append change the caller's list")
        wrong = {cause: (lambda one=one: one(wild, x, levels)) for cause, one in SAMPLED_MISTAKES.items()}
        recognised(f"the end of {told}", found, sampled(wild, x, levels), wrong)
        if len(asked) != steps:
            raise Failed(f"{steps} questions for {told}", len(asked), "one for each step")
        t, r = (torch.full((len(x), 1), one, dtype=x.dtype) for one in (levels[0], levels[-1]))
        close(f"the end of {told} of a true flow map", student(WORLD.flow_map, x, list(levels)), WORLD.end(x, t, r), 1e-9)
    return "a true flow map ends at the same place after any number of steps"
