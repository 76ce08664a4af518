"""Checks of notebook 06, Un-destroying it: the posterior step, the DDIM step, the loop around it, noise at the end.

None of the checks trusts the formula it asks for: the posterior is integrated on a grid, the samples of a Gaussian
must have its mean and its spread, and a network that knows the clip must lead to exactly that clip.
"""

import torch

from minit2v.diffusion import samplers
from minit2v.diffusion.process import Diffusion
from minit2v.lab.course.comparing import called, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.presets import DiffusionConfig

TESTS = "tests/test_samplers.py::"
EQUATIONS = {
    "6.1": ("mean of the posterior", TESTS + "test_ddpm_equals_diffusers"),
    "6.2": ("variance of the posterior", TESTS + "test_ddpm_equals_diffusers"),
    "6.3": ("variance of DDIM's fresh noise", TESTS + "test_ddim_equals_diffusers"),
    "6.4": ("the DDIM step", TESTS + "test_ddim_equals_diffusers"),
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


def ddpm_step(x, x0, a, a_next, noise):
    """One step of DDPM: from x at alpha_bar a to alpha_bar a_next > a, if the clip is x0."""
    beta = 1 - a / a_next
    mean = a_next**0.5 * beta / (1 - a) * x0 + (1 - beta) ** 0.5 * (1 - a_next) / (1 - a) * x
    return mean + (beta * (1 - a_next) / (1 - a)) ** 0.5 * noise


@exercise("6.1", name="ddpm_step", solution=ddpm_step, minutes=10, difficulty=3, importance=5)
def check_ddpm_step(student):
    """Each factor against the product of the two bells on a grid, then tensors of several shapes."""
    one, nothing = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for a, a_next in ((0.3, 0.6), (0.7, 0.95), (0.0, 0.2), (0.004, 0.9996)):
        (of_x, spread), (of_x0, _) = (_product_of_bells(*bell, a, a_next) for bell in ((1.0, 0.0), (0.0, 1.0)))
        beta, left = 1 - a / a_next, (1 - a_next) / (1 - a)
        slips = {
            "x": {"the weights of x and x0 are exchanged": of_x0, "sqrt(1 - beta), not 1 - beta": (1 - beta) * left},
            "x0": {"the weights of x and x0 are exchanged": of_x, "the root of a_next is missing": of_x0 * a_next**0.5,
                   "the root of a was taken where a_next belongs": of_x0 * (a / a_next) ** 0.5},
            "noise": {"the noise is multiplied by the variance; it wants the square root": spread**2,
                      "this is sqrt(beta); the posterior's variance is beta (1 - a_next) / (1 - a)": beta**0.5,
                      "the noise is not added": 0.0},
        }  # fmt: skip
        ask = lambda *given: called(lambda x, x0, noise: student(x, x0, a, a_next, noise), *given)  # noqa: E731
        for i, (name, right) in enumerate({"x": of_x, "x0": of_x0, "noise": spread}.items()):
            found = ask(*(one if i == j else nothing for j in range(3)))
            wrong = {cause: (lambda value=value: value * one) for cause, value in slips[name].items()}
            recognised(f"what {name} is multiplied by at a = {a}, a_next = {a_next}", found, right * one, wrong, 1e-4)
        for shape, dtype in (((2, 4, 3, 5, 6), torch.float32), ((4, 4), torch.float64)):
            x, x0, noise = (5 * normal(*shape, seed=seed).to(dtype) for seed in range(3))
            what = f"x' at a = {a}, a_next = {a_next}, for tensors of shape {shape}"
            found = ask(x, x0, noise)
            recognised(what, found, of_x * x + of_x0 * x0 + spread * noise, {}, 1e-4)
            same_dtype(what, found, dtype)
    x, x0, noise = (5 * normal(2, 4, 3, 5, 5, seed=seed) for seed in range(3))
    found = student(x, x0, 0.5, 1.0, noise)
    close("the step to a_next = 1", found, x0, 1e-9, "the last step ends at x0, without noise: its variance is 0")
    return "mean and variance agree with two bells multiplied on a grid, and the last step ends at x0"


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
    _check_aim(student)
    for (a, a_next), dtype in (((0.2, 0.5), torch.float64), ((0.6, 0.97), torch.float32), ((0.0, 0.3), torch.float64),
                               ((0.004, 0.9996), torch.float64), ((0.5, 1.0), torch.float64)):  # fmt: skip
        for eta in (1.0, 0.5, 0.0, 0.3, 0.8)[a == 0 :]:  # at a = 0 and eta 1 rounding can end below 0 under the root
            _check_fresh_noise(student, a, a_next, eta, dtype)
    diffusion = Diffusion(DiffusionConfig(prediction="x0", spacing="trailing"))
    for step, (x0, eps, a, a_next) in _library_steps(diffusion, steps=8):
        close(f"x after step {step.index} of the library's ddim", student(x0, eps, a, a_next), step.x, 1e-5)
    mean, spread = _samples_of_a_gaussian(student)
    close("mean of the samples from the oracle of a Gaussian", mean, 0.7, 0.01)
    close("their standard deviation", spread, 0.4, 0.01)
    return "it aims right, is DDPM's at eta 1 and the library's at 0, and a Gaussian's samples have its mean and spread"


def _check_fresh_noise(student, a, a_next, eta, dtype):
    x, x0, noise = (5 * normal(2, 4, 3, 5, 6, seed=seed).to(dtype) for seed in range(3))
    eps = (x - a**0.5 * x0) / (1 - a) ** 0.5
    found = called(lambda *given: student(*given[:2], a, a_next, eta, given[2]), x0, eps, noise if eta else None)
    variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)
    aim, shrunk = a_next**0.5 * x0, (1 - a_next - variance) ** 0.5 * eps
    slips = {
        "the variance grows with eta**2, not with eta": lambda: ddim_step(x0, eps, a, a_next, eta**0.5, noise),
        "the variance is to be taken away from 1 - a_next, under the root of eps":
            lambda: aim + (1 - a_next) ** 0.5 * eps + variance**0.5 * noise,
        "the noise is multiplied by the variance; it wants the square root": lambda: aim + shrunk + variance * noise,
        "the noise is not added": lambda: aim + shrunk,
    }  # fmt: skip
    what = f"the step with eta {eta:g}{' (it should be DDPM)' if eta == 1 else ''} at a = {a}, a_next = {a_next}"
    expected = ddpm_step(x, x0, a, a_next, noise) if eta == 1 else ddim_step(x0, eps, a, a_next, eta, noise)
    recognised(what, found, expected, slips, 1e-4 if dtype == torch.float32 else 1e-8)
    same_dtype(what, found, dtype)


def _check_aim(student):
    one, nothing = torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    a, a_next = 0.36, 0.64
    same_shape("the result for x0 and eps (3, 2)", student(one, one, a, a_next), (3, 2), "all is elementwise")
    for what, inputs, right in (("x0", (one, nothing), 0.8), ("eps", (nothing, one), 0.6)):
        found = student(*inputs, a, a_next).mean().item()
        slips = {0.64: "the square root is missing", 0.36: "the square root is missing", 0.8: "the root of 1 - a was "
                 "taken where a_next belongs", 0.6: "the root of a was taken where a_next belongs"}
        cause = next((text for wrong, text in slips.items() if abs(found - wrong) < 1e-6), "")
        close(f"what {what} is multiplied by at a = {a}, a_next = {a_next}, eta = 0", found, right, 1e-6, cause)


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


@exercise("6.3", name="ddim_sample", solution=ddim_sample, minutes=10, difficulty=3, importance=4)
def check_ddim_sample(student):
    """Two schedules, three lengths, points and clips: the timesteps, the calls, the last level, and twice the same."""
    for steps, T, schedule, shape, dtype in ((1, 1000, "cosine", (6, 2), torch.float32),
                                             (4, 1000, "scaled_linear", (2, 4, 3, 2, 5), torch.float64),
                                             (12, 1000, "cosine", (6, 2), torch.float32),
                                             (50, 1000, "scaled_linear", (3,), torch.float32),
                                             (60, 60, "cosine", (1, 4, 1, 3, 2), torch.float64),
                                             (7, 64, "cosine", (5, 4), torch.float64)):  # fmt: skip
        diffusion = Diffusion(DiffusionConfig(prediction="x0", spacing="trailing", schedule=schedule, timesteps=T))
        start, asked, timesteps = normal(*shape, seed=8).to(dtype), [], samplers.timesteps(diffusion, steps)

        def model(x, t):
            asked.append(int(t))
            return diffusion.to_x0_eps(torch.tanh(x) + t / 2000, x, t)

        sample = lambda: called(lambda x, a: student(model, x, a, steps), start, diffusion.alpha_bar)  # noqa: E731
        end, what = sample(), f"the end of {steps} steps of {T}"
        same_shape("the result", end, shape)
        _check_timesteps(asked, steps, timesteps)
        close("a second run from the same noise", sample(), end, 0, "nothing random may happen between start and end")
        levels = diffusion.alpha_bar[timesteps].tolist()
        slips = {
            "the last step goes to alpha_bar 1, so that its result is x0":
                lambda: _walk(model, start, timesteps, [*levels[1:], diffusion.alpha_bar[0].item()]),
            "each step goes to the level of the next timestep": lambda: _walk(model, start, timesteps, levels),
        }  # fmt: skip
        *_, last = samplers.SAMPLERS["ddim"](lambda x, t: torch.tanh(x) + t / 2000, start, diffusion, steps)
        recognised(what, end, last.x0, slips, 1e-4 if dtype == torch.float32 else 1e-8)
        same_dtype(what, end, dtype)
    return "the right timesteps, one call each, the same clip twice, and it ends clean, for 1, 4, 12 and 50 steps"


def _walk(model, x, timesteps, levels):
    """DDIM with eta 0 where step i ends at levels[i]."""
    for t, a_next in zip(timesteps, levels):
        x = ddim_step(*model(x, t), 0.0, a_next)
    return x


def _check_timesteps(asked, steps, expected):
    if len(asked) != steps:
        raise Failed(f"{steps} calls of the model for {steps} steps", len(asked), "one call for each step")
    if asked[0] != expected[0]:
        raise Failed(f"the first call at t = {expected[0]}", asked[0], "x is pure noise, and only T - 1 is pure noise")
    if asked != expected:
        raise Failed(f"the timesteps {expected[:4]} …", f"{asked[:4]} …", "T - i T / steps, rounded, less 1")


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
        same_shape(f"the table for a of shape ({len(a)},)", found, (len(a) - 1,), "one number for each step")
        found = torch.as_tensor(found)  # a list is as good
        miss = _miss_of_one_point(levels, found.tolist())
        if not miss < 1e-6:
            raise Failed(f"a world of one single point to be hit in {len(a) - 1} steps", f"it is missed by {miss:.2f}",
                         "the network's last belief is right, so look at what is done after it")
        expected = [_product_of_bells(0.0, 0.0, *pair)[1] for pair in zip(levels, levels[1:-1])]
        if expected:
            close("the noise of the steps before the last", found[:-1], expected, 1e-4, "these were right: the "
                  "variance is (1 - a_next) / (1 - a) beta")
    return "a world of one point is hit, also in a single step, and the steps before the last are as they were"


def _miss_of_one_point(levels, table, point=0.7):
    """How far DDPM with these spreads ends from a point that the network knows, on average."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, generator=generator, dtype=torch.float64)
    for a, a_next, spread in zip(levels, levels[1:], table):
        noise = torch.randn(1000, generator=generator, dtype=torch.float64)
        x = ddpm_step(x, point, a, a_next, 0 * noise) + spread * noise
    return (x - point).square().mean().sqrt().item()
