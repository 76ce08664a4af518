"""Checks of notebook 06, Un-destroying it: the posterior step, the DDIM step, two loops around it, noise at the end.

Where it can be had, the truth comes from elsewhere than from the formula that is asked for: the posterior is integrated
on a grid, the samples of a Gaussian must have its mean and its spread, and a network that knows the clip must lead to
exactly that clip.
"""

import math

import torch

from minit2v.diffusion import samplers
from minit2v.diffusion.process import Diffusion
from minit2v.lab.course.comparing import called, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, close, counted, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.presets import DiffusionConfig

TESTS = "tests/test_samplers.py::"
EQUATIONS = {
    "6.1": ("mean of the posterior", TESTS + "test_ddpm_equals_diffusers"),
    "6.2": ("variance of the posterior", TESTS + "test_ddpm_equals_diffusers"),
    "6.3": ("the DDIM step", TESTS + "test_ddim_equals_diffusers"),
    "6.4": ("variance of DDIM's fresh noise", TESTS + "test_ddim_equals_diffusers"),
    "6.5": ("second order from the last two beliefs", TESTS + "test_dpm_solver_equals_diffusers"),
    "6.6": ("guidance", TESTS + "test_guidance"),
}

QUIZ = [
    (
        "A perfect network is asked once, at pure noise, and its x0 is decoded. Why is the result a smear?",
        [
            "The network was not trained long enough",
            "Pure noise says nothing, so the answer with the least squared error is the average of all clips",
            "The decoder was trained on clean latents only",
        ],
        1,
        "The smear is the right answer to the question that was asked. Only a less noisy question has a sharper one.",
    ),
    (
        "From one noise you make two clips with DDIM, eta 0, and two with DDPM and fresh dice. Which clips agree?",
        ["Both pairs", "Only the two of DDIM", "Neither pair"],
        1,
        "At eta 0 nothing random happens after the start. DDPM throws dice at every step; the start decides little.",
    ),
    (
        "A clip looks right, but every frame is strewn with crumbs that differ from frame to frame. x0 of the last "
        "step is clean. Where do you look first?",
        ["At the noise of the last step", "At the learning rate", "At the number of frames"],
        0,
        "The network saw a clean clip, and what was handed on was not clean: something was added after the prediction.",
    ),
]

PREDICTIONS = {
    "6.a": Question("Instead of the middle of the ring, somebody names some real point of the world, drawn at random. How "
                    "large is the mean squared error of that guess, compared with that of the middle?", "about twice as large",
                    ["smaller", "as large", "about twice as large", "more than five times as large"]),
    "6.b": Question("DDPM is run twice from the same two thousand noises, each time with other dice. How many of the points "
                    "end in the same blob both times?",
                    "about one in six", ["nearly all", "about half", "about one in six", "none"]),
    "6.c": Question("DDIM takes twice as many steps. How far does it now end from where infinitely many steps would lead?",
                    "about half as far", ["as far as before", "about 0.7 times as far", "about half as far",
                                          "about a quarter as far"]),
    "6.d": Question("After two of six steps, how much of the change in the finest details is still to come? (As a squared "
                    "distance to the last belief; at the first step it is all.)", "most of it",
                    ["under 10 %", "about 30 %", "most of it"]),
}  # fmt: skip


def ddpm_step(x, x0, a, a_next, noise):
    """One step of DDPM: from x at alpha_bar a to alpha_bar a_next > a, if the clip is x0."""
    beta = 1 - a / a_next
    mean = a_next**0.5 * beta / (1 - a) * x0 + (1 - beta) ** 0.5 * (1 - a_next) / (1 - a) * x
    return mean + (beta * (1 - a_next) / (1 - a)) ** 0.5 * noise


@exercise("6.1", name="ddpm_step", solution=ddpm_step, minutes=10, difficulty=3, importance=5)
def check_ddpm_step(student):
    """Each factor against the product of the two bells on a grid, then tensors of several shapes, then the last step."""
    one, nothing = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    ask = lambda a, a_next, *given: called(lambda x, x0, noise: student(x, x0, a, a_next, noise), *given)  # noqa: E731
    for a, a_next in ((0.3, 0.6), (0.7, 0.95), (0.0, 0.2), (0.004, 0.9996)):
        (of_x, spread), (of_x0, _) = (_product_of_bells(*bell, a, a_next) for bell in ((1.0, 0.0), (0.0, 1.0)))
        slips = _slips_of_ddpm(of_x, of_x0, spread, a, a_next)
        for i, (name, right) in enumerate({"x": of_x, "x0": of_x0, "noise": spread}.items()):
            found = ask(a, a_next, *(one if i == j else nothing for j in range(3)))
            wrong = {cause: (lambda value=value: value * one) for cause, value in slips[name].items()}
            recognised(f"what {name} is multiplied by, for a = {a}, a_next = {a_next}", found, right * one, wrong, 1e-4)
        for shape, dtype in (((2, 4, 3, 5, 6), torch.float32), ((4, 4), torch.float64)):
            x, x0, noise = (5 * normal(*shape, seed=seed).to(dtype) for seed in range(3))
            what = f"x' for a = {a}, a_next = {a_next} and tensors of shape {shape}"
            found = ask(a, a_next, x, x0, noise)
            recognised(what, found, of_x * x + of_x0 * x0 + spread * noise, {}, 1e-4)
            same_dtype(what, found, dtype)
    for a in (0.5, 0.0, 0.98):
        x, x0, noise = (5 * normal(2, 4, 3, 5, 5, seed=seed) for seed in range(3))
        found = ask(a, 1.0, x, x0, noise)
        added = {f"fresh noise is added in the last step as well, {share:.2g} times": (lambda k=share: x0 + k * noise)
                 for share in _share_of_noise(found, x0, noise)}  # fmt: skip
        recognised(f"the last step, from a = {a} to a_next = 1", found, x0, added, 1e-9)
    return "mean and variance agree with two bells multiplied on a grid, and the last step ends at x0"


def _slips_of_ddpm(of_x, of_x0, spread, a, a_next):
    """What people multiply by instead: {"x" and so on: {cause: factor}}."""
    beta, left = 1 - a / a_next, (1 - a_next) / (1 - a)
    return {
        "x": {"the weights of x and x0 are exchanged": of_x0,
              "a root is missing in the weight of x": (1 - beta) * left,
              "the weight of x is that of the forward process": (1 - beta) ** 0.5,
              "the weight of x has lost its factor 1 - a_next": (1 - beta) ** 0.5 / (1 - a)},
        "x0": {"the weights of x and x0 are exchanged": of_x, "a root is missing in the weight of x0": of_x0 * a_next**0.5,
               "the root of a was taken where a_next belongs": of_x0 * (a / a_next) ** 0.5,
               "the weight of x0 is that of the forward process": a_next**0.5,
               "1 - a_next stands below the line where 1 - a belongs": of_x0 / left},
        "noise": {"the noise is multiplied by the variance; it wants the square root": spread**2,
                  "this is the forward step's variance; the posterior's is smaller": beta**0.5,
                  "the noise is as large as if x said nothing of x'": (1 - a_next) ** 0.5, "the noise is not added": 0.0},
    }  # fmt: skip


def _share_of_noise(found, x0, noise):
    """How many times the noise is in what was found beside x0: one number, or none if it is not there."""
    if found.shape != x0.shape or found.is_complex():
        return []
    share = ((found - x0) * noise).sum().item() / noise.square().sum().item()
    return [share] if abs(share) > 1e-3 else []


def _product_of_bells(x, x0, a, a_next):
    """Mean and standard deviation of q(x_next | x, x0) by brute force: two bells times each other on a fine grid."""
    grid = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    forward = (x - (a / a_next) ** 0.5 * grid) ** 2 / (1 - a / a_next)
    prior = (grid - a_next**0.5 * x0) ** 2 / (1 - a_next)
    weight = torch.softmax(-(forward + prior) / 2, 0)
    mean = (weight * grid).sum()
    return mean.item(), (weight * (grid - mean) ** 2).sum().sqrt().item()


def ddim_step(x0, eps, a, a_next, eta=0.0, noise=None):
    """One step of DDIM from alpha_bar a to a_next, with eta of DDPM's fresh noise."""
    variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)
    x = a_next**0.5 * x0 + max(1 - a_next - variance, 0) ** 0.5 * eps
    return x if noise is None else x + variance**0.5 * noise


@exercise("6.2", name="ddim_step", solution=ddim_step, minutes=12, difficulty=3, importance=5)
def check_ddim_step(student):
    """Where it aims, DDPM at eta 1, what lies between, the library's own steps, and the samples of a Gaussian."""
    _does_without_noise(student)
    _check_aim(student)
    for (a, a_next), dtype in (((0.2, 0.5), torch.float64), ((0.6, 0.97), torch.float32), ((0.0, 0.3), torch.float64),
                               ((0.004, 0.9996), torch.float64), ((0.5, 1.0), torch.float64)):  # fmt: skip
        for eta in (1.0, 0.5, 0.0, 0.3, 0.8)[a == 0 :]:  # at a = 0 and eta 1 rounding can end below 0 under the root
            _check_fresh_noise(student, a, a_next, eta, dtype)
    diffusion = Diffusion(DiffusionConfig(prediction="x0", spacing="trailing"))
    for step, (x0, eps, a, a_next) in _library_steps(diffusion, steps=8):
        close(f"x after step {step.index} of the library's ddim", student(x0, eps, a, a_next), step.x, 1e-5)
    mean, spread = _samples_of_a_gaussian(student)
    close("the mean of the samples from the oracle of a Gaussian", mean, 0.7, 0.01)
    close("their standard deviation", spread, 0.4, 0.01)
    return "it aims right, is DDPM's at eta 1 and the library's at 0, and a Gaussian's samples have its mean and spread"


def _check_fresh_noise(student, a, a_next, eta, dtype):
    x, x0, noise = (5 * normal(2, 4, 3, 5, 6, seed=seed).to(dtype) for seed in range(3))
    eps = (x - a**0.5 * x0) / (1 - a) ** 0.5
    found = called(lambda *given: student(*given[:2], a, a_next, eta, given[2]), x0, eps, noise if eta else None)
    variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)
    aim, shrunk = a_next**0.5 * x0, (1 - a_next - variance) ** 0.5 * eps
    of_power = lambda power: ddim_step(x0, eps, a, a_next, eta ** (power / 2), noise if eta else None)  # noqa: E731
    slips = {
        "the variance of the fresh noise grows in proportion to eta": lambda: of_power(1),
        "the variance of the fresh noise grows with the root of eta": lambda: of_power(0.5),
        "the variance of the fresh noise grows with the fourth power of eta": lambda: of_power(4),
        "eta has no effect on the variance of the fresh noise": lambda: of_power(0),
        "eps keeps all of its weight, and no room is made for the fresh noise":
            lambda: aim + (1 - a_next) ** 0.5 * eps + variance**0.5 * noise,
        "the standard deviation was taken away where the variance belongs":
            lambda: aim + max(1 - a_next - variance**0.5, 0) ** 0.5 * eps + variance**0.5 * noise,
        "roots were subtracted from one another; variances add up, and roots do not":
            lambda: aim + ((1 - a_next) ** 0.5 - variance**0.5) * eps + variance**0.5 * noise,
        "the noise is multiplied by the variance; it wants the square root": lambda: aim + shrunk + variance * noise,
        "the noise is multiplied by eta alone": lambda: aim + shrunk + eta * noise,
        "the noise is not added": lambda: aim + shrunk,
    } if eta else {"room is made for fresh noise although eta is 0": lambda: of_power(0)}  # fmt: skip
    what = f"the step with eta {eta:g}{' (it should be DDPM)' if eta == 1 else ''} for a = {a}, a_next = {a_next}"
    expected = ddpm_step(x, x0, a, a_next, noise) if eta == 1 else ddim_step(x0, eps, a, a_next, eta, noise)
    recognised(what, found, expected, slips, 1e-4 if dtype == torch.float32 else 1e-8)
    same_dtype(what, found, dtype)


def _does_without_noise(student):
    """Raise Failed for a step that adds the noise also where it is None."""
    x0, eps, nothing = (torch.full((3, 2), value, dtype=torch.float64) for value in (1.0, 1.0, 0.0))
    try:
        student(x0, eps, 0.3, 0.55, 0.0, None)
    except TypeError as error:
        try:
            right = torch.allclose(student(x0, eps, 0.3, 0.55, 0.0, nothing), ddim_step(x0, eps, 0.3, 0.55))
        except Exception:  # the student's code may raise anything
            right = False
        if right:
            raise Failed("a step for eta = 0, where noise is None", f"TypeError: {error}",
                         "None is no tensor: add the noise only if it is given") from None  # fmt: skip


def _check_aim(student):
    """The two weights at eta 0, one after the other."""
    one, nothing = torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    a, a_next = 0.3, 0.55
    room = (1 - a_next) / (1 - a) * (1 - a / a_next)
    slips = {
        "x0": {"a square root is missing": a_next, "the root of a was taken where a_next belongs": a**0.5,
               "the weights of x0 and eps are exchanged": (1 - a_next) ** 0.5, "x0 is not multiplied by anything": 1.0},
        "eps": {"a square root is missing": 1 - a_next, "the root of 1 - a was taken where a_next belongs": (1 - a) ** 0.5,
                "the weights of x0 and eps are exchanged": a_next**0.5, "eps is not multiplied by anything": 1.0,
                "1 minus a root was taken; it is the root of 1 minus": 1 - a_next**0.5,
                "room is made for fresh noise although eta is 0": (1 - a_next - room) ** 0.5},
    }  # fmt: skip
    for what, inputs, right in (("x0", (one, nothing), a_next**0.5), ("eps", (nothing, one), (1 - a_next) ** 0.5)):
        found = called(lambda x0, eps: student(x0, eps, a, a_next), *inputs)
        wrong = {cause: (lambda value=value: value * one) for cause, value in slips[what].items()}
        recognised(f"what {what} is multiplied by, for a = {a}, a_next = {a_next}, eta = 0", found, right * one, wrong, 1e-6)


def _library_steps(diffusion, steps):
    timesteps = samplers.timesteps(diffusion, steps)
    levels = [*diffusion.alpha_bar[timesteps].tolist(), diffusion.final]
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    run = samplers.SAMPLERS["ddim"](lambda x, t: torch.tanh(x) + t / 2000, x, diffusion, steps)
    return [(step, (step.x0, step.eps, levels[i], levels[i + 1])) for i, step in enumerate(run)]


def _samples_of_a_gaussian(step, mean=0.7, spread=0.4, steps=200):
    """Mean and spread of 1,000 samples; the oracle of a Gaussian is a straight line, so it is written down here."""
    levels = torch.linspace(0, torch.pi / 2, steps + 1, dtype=torch.float64).sin() ** 2
    x = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)  # as normal as 1,000 can be
    for a, a_next in zip(levels.tolist(), levels[1:].tolist()):
        gain = a**0.5 * spread**2 / (a * spread**2 + 1 - a)
        x0 = mean + gain * (x - a**0.5 * mean)
        x = step(x0, (x - a**0.5 * x0) / (1 - a) ** 0.5, a, a_next)
    return x.mean(), x.std()


def ddim_sample(model, x, alpha_bar, steps):
    """DDIM with eta 0 over evenly spaced timesteps, from T - 1 on; ends at alpha_bar 1."""
    T = len(alpha_bar)
    timesteps = [round(T - i * T / steps) - 1 for i in range(steps)]
    levels = [*alpha_bar[timesteps].tolist(), 1.0]
    for i, t in enumerate(timesteps):
        x0, eps = model(x, t)
        x = ddim_step(x0, eps, levels[i], levels[i + 1])
    return x


RUNS = ((1, 1000, "cosine", (6, 2), torch.float32), (4, 1000, "scaled_linear", (2, 4, 3, 2, 5), torch.float64),
        (12, 1000, "cosine", (6, 2), torch.float32), (50, 1000, "scaled_linear", (3,), torch.float32),
        (60, 60, "cosine", (1, 4, 1, 3, 2), torch.float64), (2, 64, "scaled_linear", (3, 5), torch.float64),
        (7, 64, "cosine", (5, 4), torch.float64))  # fmt: skip


@exercise("6.3", name="ddim_sample", solution=ddim_sample, minutes=10, difficulty=3, importance=4)
def check_ddim_sample(student):
    """Two schedules, several lengths, points and clips: the timesteps, the calls, the last level, and twice the same."""
    for steps, T, schedule, shape, dtype in RUNS:
        run = _Run(student, steps, T, schedule, shape, dtype)
        slips = {
            "the last step ends at alpha_bar[0], where a little noise is left":
                lambda run=run: run.ended_at([*run.levels[1:-1], run.alpha_bar[0].item()]),
            "each step stays at its own level, where it should go to the next": lambda run=run: run.ended_at(run.levels[:-1]),
            "all steps go straight to alpha_bar 1": lambda run=run: run.ended_at([1.0] * run.steps),
        }  # fmt: skip
        run.compare(samplers.ddim, slips)
    return "the right timesteps, one call each, the same clip twice, and it ends clean, for 1 to 60 steps"


class _Run:
    """What a reader's sampler does with a model that is no straight line and depends on t; its calls are checked at once."""

    def __init__(self, student, steps, T, schedule, shape, dtype):
        self.diffusion = Diffusion(DiffusionConfig(prediction="x0", spacing="trailing", schedule=schedule, timesteps=T))
        self.steps, self.alpha_bar, self.dtype = steps, self.diffusion.alpha_bar, dtype
        self.timesteps = samplers.timesteps(self.diffusion, steps)
        self.levels = [*self.alpha_bar[self.timesteps].tolist(), 1.0]
        self.start, self.asked, self.seen = normal(*shape, seed=8).to(dtype), [], []
        once = lambda: called(lambda x, a: student(self.model, x, a, steps), self.start, self.alpha_bar)  # noqa: E731
        self.end, self.what = once(), f"the end of {counted(steps, 'step')} over {T} timesteps"
        same_shape("the result", self.end, shape)
        _check_timesteps(self.asked, steps, T, self.timesteps)
        if self.end.isfinite().all():
            close("the same end in a second run from the same noise", once(), self.end, 0)

    def model(self, x, t):
        self.asked.append(int(t))
        self.seen.append(x.detach().clone())
        return self.diffusion.to_x0_eps(torch.tanh(x) + t / 2000, x, t)

    def ended_at(self, after):
        """DDIM with eta 0 where step i ends at after[i]."""
        x = self.start
        for t, a_next in zip(self.timesteps, after):
            x = ddim_step(*self.model(x, t), 0.0, a_next)
        return x

    def compare(self, rule, slips):
        """Raise Failed unless the end is that of the library's rule."""
        levels = [samplers.Level(i, t, *self.levels[i : i + 2]) for i, t in enumerate(self.timesteps)]
        *_, last = rule(lambda x, level: self.model(x, level.t), self.start, levels)
        recognised(self.what, self.end, last.x, slips, 1e-4 if self.dtype == torch.float32 else 1e-10)
        same_dtype(self.what, self.end, self.dtype)


def _check_timesteps(asked, steps, T, expected):
    if len(asked) != steps:
        raise Failed(f"{counted(steps, 'call')} of the model for {counted(steps, 'step')}", len(asked))
    if asked == expected:
        return
    even = [T - i * T / steps for i in range(steps)]
    slips = {
        "the order is from little noise to much": expected[::-1],
        "they are counted from 0, so that the first one is not T - 1": [i * (T // steps) for i in range(steps)][::-1],
        "they run from T - 1 to 0, both included": [round((T - 1) * (1 - i / max(steps - 1, 1))) for i in range(steps)],
        "they are cut off where they should be rounded": [int(one) - 1 for one in even],
        "T - 1 is divided into equal parts; it is T": [round((T - 1) * (1 - i / steps)) for i in range(steps)],
        "all are one too small": [one - 1 for one in expected],
    }
    cause = next((text for text, wrong in slips.items() if asked == wrong), "")
    few = lambda ts: ", ".join(map(str, ts[:4])) + (", …" if steps > 4 else "")  # noqa: E731
    raise Failed(f"the timestep{'s' * (steps > 1)} {few(expected)} for {counted(steps, 'step')}, T = {T}", few(asked), cause)


def second_order_sample(model, x, alpha_bar, steps):
    """DPM-Solver++ of second order over the timesteps of `ddim_sample`: DDIM, with x0 as it will be half a step later."""
    T, last_x0, last_h = len(alpha_bar), None, None
    timesteps = [round(T - i * T / steps) - 1 for i in range(steps)]
    levels = [*alpha_bar[timesteps].tolist(), 1.0]
    for i, t in enumerate(timesteps):
        a, a_next = levels[i], levels[i + 1]
        x0, _ = model(x, t)
        guess = x0
        if i < steps - 1:
            h = _half_log_snr(a_next) - _half_log_snr(a)
            if i > 0:
                guess = x0 + h / (2 * last_h) * (x0 - last_x0)
            last_x0, last_h = x0, h
        x = ddim_step(guess, (x - a**0.5 * guess) / (1 - a) ** 0.5, a, a_next)
    return x


def _half_log_snr(a):
    return 0.5 * math.log(a / (1 - a))


def _with_memory(run, *, share=lambda h, last: h / (2 * last), along=lambda t, a: _half_log_snr(a), begins=1, ends=1,
                 remembers="x0", noise="guess", end=1.0, old=False):  # fmt: skip
    """What a sampler of second order with one thing wrong makes of a run."""
    x, before, last = run.start, None, None
    after = [*run.levels[1:-1], end]
    for i, (t, a, a_next) in enumerate(zip(run.timesteps, run.levels, after)):
        x0, eps = run.model(x, t)
        guess, later = x0, run.timesteps[i + 1] if i + 1 < run.steps else 0
        h = along(later, min(a_next, 1 - 1e-12)) - along(t, a)
        if begins <= i < run.steps - ends:
            guess = x0 + share(h, last) * (x0 - before)
        if not (old and i):
            before, last = guess if remembers == "guess" else x0, h
        level = a_next if noise == "next" and a_next < 1 else a
        if noise != "answer":
            eps = (x - level**0.5 * guess) / (1 - level) ** 0.5
        x = ddim_step(guess, eps, a, a_next)
    return x


EARLY = "ε was computed with a_next; it is the noise in x, before the step: only a is in it"
SECOND_ORDER_MISTAKES = {
    "it is DDIM: the answer before has no effect": dict(begins=10**6),
    "x0 is moved back towards the answer before, where it should go on": dict(share=lambda h, last: -h / (2 * last)),
    "x0 is guessed for the end of the step; it is wanted for the middle": dict(share=lambda h, last: h / last),
    "the lengths of the two steps are exchanged": dict(share=lambda h, last: last / (2 * h)),
    "the two steps are taken to be of one length, as they are along t; measure them along λ": dict(share=lambda h, last: 0.5),
    "the length of the new step is missing": dict(share=lambda h, last: 1 / (2 * last)),
    "the length of the last step is missing": dict(share=lambda h, last: h / 2),
    "steps are measured in timesteps, not in λ": dict(along=lambda t, a: t),
    "steps are measured in alpha_bar, not in λ": dict(along=lambda t, a: a),
    "steps are measured in the logarithm of alpha_bar, not in λ": dict(along=lambda t, a: math.log(a)),
    "what is remembered is the guess, not what the model answered": dict(remembers="guess"),
    EARLY: dict(noise="next"),
    "x0 was replaced, and the noise still is the one that belongs to the old x0": dict(noise="answer"),
    "the first answer is remembered to the end; it is replaced in each step": dict(old=True),
    "the second step has no memory either; only the first has none": dict(begins=2),
    "the last step but one has no memory; it should have": dict(ends=2),
    "the last step ends at alpha_bar[0], where a little noise is left": dict(end=None),
}


@exercise("6.4", name="second_order_sample", solution=second_order_sample, minutes=20, difficulty=4, importance=4)
def check_second_order_sample(student):
    """The runs of 6.3 and one of three steps, where the memory is used once: calls, levels, and the library's end."""
    for steps, T, schedule, shape, dtype in (*RUNS, (3, 500, "scaled_linear", (2, 3), torch.float64)):
        run = _Run(student, steps, T, schedule, shape, dtype)
        if not run.end.isfinite().all():
            raise Failed(f"{run.what} as numbers", "NaN or infinity", _why_infinite(student))
        slips = {cause: (lambda how=how: _with_memory(run, **how | ({"end": run.alpha_bar[0].item()} if "end" in how else {})))
                 for cause, how in SECOND_ORDER_MISTAKES.items()}  # fmt: skip
        run.compare(samplers.dpm_solver_pp, slips)
    return "the library's ends for 1 to 60 steps, one call each, with DDIM's first and last step"


def _why_infinite(student):
    """The cause of an end that is no number, if what the model is shown on the way tells it."""
    run = _Run(student, 4, 1000, "cosine", (6, 2), torch.float64)
    found, run.seen = run.seen[:4], []
    _with_memory(run, noise="next")
    return EARLY if all(torch.allclose(one, other, rtol=0, atol=1e-8) for one, other in zip(found, run.seen)) else ""


def noise_table(a):
    """Standard deviation of each step's noise (s,), from alpha_bar before each step and after the last (s + 1,)."""
    beta = 1 - a[:-1] / a[1:]
    variance = (1 - a[1:]) / (1 - a[:-1]) * beta
    return variance.sqrt()


@exercise("6.B", name="noise_table", solution=noise_table, minutes=8, difficulty=2, importance=4)
def check_noise_table(student):
    """A world of one point must be hit, and the steps before the last keep the posterior's own spread."""
    for levels in ([0.0, 0.1, 0.4, 0.8, 1.0], [0.02, 0.5, 1.0], [0.3, 1.0], [0.001, 0.01, 0.1, 0.3, 0.35, 0.9, 0.96, 1.0]):
        a = torch.tensor(levels, dtype=torch.float64)
        found = student(a)
        if a.tolist() != levels:
            raise Failed("a as it was", "it was changed")
        same_shape(f"the table for a of shape ({len(a)},)", found, (len(a) - 1,))
        found = torch.as_tensor(found).double()  # a list is as good
        before = [_product_of_bells(0.0, 0.0, *pair)[1] for pair in zip(levels, levels[1:-1])]
        expected = torch.tensor([*before, 0.0], dtype=torch.float64)
        slips = _slips_of_the_table(a, expected, found)
        miss = _miss_of_one_point(levels, found.tolist())
        if not miss < 1e-6:
            cause = next((text for text, wrong in slips.items() if torch.allclose(found, wrong, rtol=0, atol=1e-4)), "")
            raise Failed(f"a world of one single point to be hit in {counted(len(a) - 1, 'step')}",
                         f"it is missed by {miss:.2g}", cause)  # fmt: skip
        wrong = {cause: (lambda value=value: value) for cause, value in slips.items()}
        recognised(f"the table for a = {levels}", found, expected, wrong, 1e-4)
    return "a world of one point is hit, also in a single step, and the steps before the last are as they were"


def _slips_of_the_table(a, expected, found):
    """cause -> the table that it gives."""
    beta = 1 - a[:-1] / a[1:]
    return {
        "the last entry repeats the one before it": torch.cat([expected[:-1], expected[max(0, len(a) - 3):][:1]]),
        "only the last entry is wrong": torch.cat([expected[:-1], found[-1:]]),
        "these are variances; a standard deviation is the root": expected**2,
        "this is the noise that the forward process adds": beta.sqrt(),
        "the steps before the last have lost their noise": torch.zeros_like(expected),
    }


def _miss_of_one_point(levels, table, point=0.7):
    """How far DDPM with these spreads ends from a point that the network knows, on average."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, generator=generator, dtype=torch.float64)
    for a, a_next, spread in zip(levels, levels[1:], table):
        noise = torch.randn(1000, generator=generator, dtype=torch.float64)
        x = ddpm_step(x, point, a, a_next, 0 * noise) + spread * noise
    return (x - point).square().mean().sqrt().item()
