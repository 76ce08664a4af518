"""Samplers against diffusers' schedulers, an oracle, and their own definitions."""

import functools
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from minit2v.diffusion import samplers
from minit2v.diffusion.process import Diffusion, split
from minit2v.diffusion.samplers import SAMPLERS, levels
from minit2v.errors import UserError
from minit2v.presets import DiffusionConfig

RELEASED = DiffusionConfig()
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers
ZERO_SNR = replace(RELEASED, prediction="v", zero_terminal_snr=True, spacing="trailing")
THEIR_SCHEDULE = {"scaled_linear": "scaled_linear", "linear": "linear", "cosine": "squaredcos_cap_v2"}
THEIR_PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SHAPE = (2, 4, 3, 4, 4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def start():
    return torch.randn(SHAPE, generator=seeded())


def analytic(x, t):
    """A fixed, smooth stand-in for the network: it depends on x, on t and on the place."""
    place = torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).reshape(x.shape[1:])
    return 0.8 * torch.tanh(x) + 0.3 * torch.sin(place + t / 300)


def settings(schedule, prediction, zero_snr, shift=1.0, spacing=None):
    """Our configuration, and the arguments that make a diffusers scheduler the same."""
    zero_snr, spacing = bool(zero_snr), spacing or ("trailing" if zero_snr else "leading")
    ours = replace(RELEASED, schedule=schedule, prediction=prediction, zero_terminal_snr=zero_snr,
                   spacing=spacing, snr_shift=shift)
    theirs = dict(beta_start=RELEASED.beta_start, beta_end=RELEASED.beta_end,
                  beta_schedule=THEIR_SCHEDULE[schedule], prediction_type=THEIR_PREDICTION[prediction],
                  rescale_betas_zero_snr=zero_snr, timestep_spacing=spacing, steps_offset=int(spacing == "leading"))
    return Diffusion(ours), theirs


def run(scheduler, steps, **options):
    scheduler.set_timesteps(steps)
    x = start()
    for t in scheduler.timesteps:
        x = scheduler.step(analytic(x, int(t)), t, x, **options).prev_sample
    return x


def last(steps):
    *_, step = steps
    return step


def assert_equal(ours, theirs):
    assert (ours - theirs).norm() / theirs.norm() < 1e-5


combinations = pytest.mark.parametrize(
    "schedule, prediction, zero_snr, spacing",
    [(s, p, z, g) for s in THEIR_SCHEDULE for p in THEIR_PREDICTION for z in (0, 1) for g in ("leading", "trailing", "linspace")
     if (p, z) != ("eps", 1)],
)  # fmt: skip


def predictor(diffusion):
    """What `Sampler` hands to a rule, for the stand-in of a network."""
    def predict(x, level):
        a = level.alpha_bar
        return split(diffusion.config.prediction, analytic(x, level.t), x, a**0.5, (1 - a) ** 0.5)
    return predict


@combinations
@pytest.mark.parametrize("steps", [1, 4, 12, 25, 37, 50])
def test_ddim_equals_diffusers(schedule, prediction, zero_snr, spacing, steps):
    """The one difference is on purpose: diffusers' step aims at t - 1000 // steps, ours at the timestep that is visited
    next, which is another one where the steps do not divide 1000, and with linspace. So the rule is compared on their levels, and then the levels."""
    diffusion, theirs = settings(schedule, prediction, zero_snr, spacing=spacing)
    scheduler = DDIMScheduler(**theirs, clip_sample=False, set_alpha_to_one=False)
    # their float32 table, equal to ours within 2e-6 (test_diffusion), has three digits of 1 - alpha_bar[0]
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = diffusion.alpha_bar, diffusion.alpha_bar[0]
    ours = levels(diffusion, steps, SAMPLERS["ddim"])
    aims = [level.t - 1000 // steps for level in ours]
    their = [replace(level, after=diffusion.alpha_bar[aim].item() if aim >= 0 else diffusion.final)
             for level, aim in zip(ours, aims)]  # fmt: skip
    for eta in (0.0, 0.5, 0.9 if zero_snr else 1.0):  # theirs is not a number at eta 1 where alpha_bar is 0
        made = last(samplers.ddim(predictor(diffusion), start(), their, eta, seeded(1)))
        assert_equal(made.x, run(scheduler, steps, eta=eta, generator=seeded(1)))
    assert ours == their or (spacing == "trailing" and 1000 % steps) or (spacing == "linspace" and steps > 1)
    for level, after in zip(ours, ours[1:]):
        assert level.after == after.alpha_bar


@combinations
@pytest.mark.parametrize("steps", [1, 7, 12, 30, 37, 50])
def test_ddpm_equals_diffusers(schedule, prediction, zero_snr, spacing, steps):
    diffusion, theirs = settings(schedule, prediction, zero_snr, spacing=spacing)
    scheduler = DDPMScheduler(**theirs, clip_sample=False, variance_type="fixed_small")
    scheduler.alphas_cumprod = diffusion.alpha_bar  # as above
    ours = last(SAMPLERS["ddpm"](analytic, start(), diffusion, steps, generator=seeded(1)))
    assert_equal(ours.x, run(scheduler, steps, generator=seeded(1)))


@combinations
@pytest.mark.parametrize("steps", [1, 2, 12, 25, 37])
def test_dpm_solver_equals_diffusers(schedule, prediction, zero_snr, spacing, steps):
    """alpha_bar has a floor only where it is zero: the cosine schedule ends below 2**-24 and above it."""
    diffusion, theirs = settings(schedule, prediction, zero_snr, spacing=spacing)
    scheduler = DPMSolverMultistepScheduler(**theirs, algorithm_type="dpmsolver++", solver_order=2)
    assert_equal(last(SAMPLERS["dpm++"](analytic, start(), diffusion, steps)).x, run(scheduler, steps))


@pytest.mark.parametrize("prediction", THEIR_PREDICTION)
def test_shifted_schedule_equals_diffusers_with_its_betas(prediction):
    diffusion, theirs = settings("scaled_linear", prediction, False, shift=3.0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), diffusion.alpha_bar[:-1]])
    theirs["trained_betas"] = (1 - diffusion.alpha_bar / before).tolist()
    ddim = run(DDIMScheduler(**theirs, clip_sample=False, set_alpha_to_one=True), 20)
    assert_equal(last(SAMPLERS["ddim"](analytic, start(), diffusion, 20)).x, ddim)
    ddpm = run(DDPMScheduler(**theirs, clip_sample=False), 20, generator=seeded(1))
    assert_equal(last(SAMPLERS["ddpm"](analytic, start(), diffusion, 20, generator=seeded(1))).x, ddpm)
    dpm = run(DPMSolverMultistepScheduler(**theirs), 20)
    assert_equal(last(SAMPLERS["dpm++"](analytic, start(), diffusion, 20)).x, dpm)


def test_released_timesteps():
    released, trailing = Diffusion(RELEASED), Diffusion(replace(RELEASED, spacing="trailing"))
    assert samplers.timesteps(released, 50) == list(range(981, 0, -20))
    assert samplers.timesteps(trailing, 50) == list(range(999, 0, -20))
    assert samplers.timesteps(released, 30)[0] == 958


def test_every_number_of_steps_is_exact():
    for spacing in ("leading", "trailing"):
        diffusion = Diffusion(replace(RELEASED, spacing=spacing))
        scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=1)
        for steps in range(1, 1001):
            for intervals in (None, steps + 1):
                ladder = samplers.timesteps(diffusion, steps, intervals)
                assert len(set(ladder)) == steps and ladder == sorted(ladder, reverse=True)
                assert 0 <= ladder[-1] and ladder[0] < 1000
            scheduler.set_timesteps(steps)
            theirs = scheduler.timesteps[:steps].tolist()  # 63 trailing steps are 64 there, the last at -1
            if theirs[0] < 1000:  # 1000 leading steps leave the table there
                assert samplers.timesteps(diffusion, steps) == theirs
    for steps in (0, -1, 1001):
        with pytest.raises(UserError, match="1 to 1000"):
            samplers.timesteps(diffusion, steps)


SEEDED = {
    "ddim": SAMPLERS["ddim"],
    "ddim eta 1": functools.partial(SAMPLERS["ddim"], eta=1.0, generator=seeded(1)),
    "ddpm": functools.partial(SAMPLERS["ddpm"], generator=seeded(1)),
    "dpm++": SAMPLERS["dpm++"],
}


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("config", [RELEASED, ZERO_SNR], ids=["released", "zero_snr"])
def test_an_oracle_is_recovered(name, frames, config):
    """A network that knows the clip leads every sampler to it; DDIM keeps the noise of alpha_bar[0]."""
    diffusion = Diffusion(config)
    clip = torch.randn(2, 4, frames, 4, 4, generator=seeded(5))

    def oracle(x, t):
        a = diffusion.alpha_bar[t].item()
        eps = (x - a**0.5 * clip) / (1 - a) ** 0.5
        return diffusion.target(clip, eps, torch.tensor([t, t]))

    steps = list(SEEDED[name](oracle, torch.randn(clip.shape, generator=seeded()), diffusion, steps=10))
    assert [step.index for step in steps] == list(range(10))
    for step in steps:
        torch.testing.assert_close(step.x0, clip, atol=2e-3, rtol=0)
        assert step.x.dtype == torch.float32 and step.x.shape == clip.shape
    left = (1 - diffusion.final) ** 0.5 if "ddim" in name else 0.0
    error = (steps[-1].x - diffusion.final**0.5 * clip if left else steps[-1].x - clip).std().item()
    assert error == pytest.approx(left, rel=0.2, abs=1e-5)


def test_more_steps_approach_the_same_ode():
    """DDIM and DPM-Solver++ solve one equation: both come to one answer, the second order sooner."""
    diffusion = Diffusion(replace(RELEASED, prediction="v", spacing="trailing"))
    exact = last(SAMPLERS["ddim"](analytic, start(), diffusion, 1000)).x0

    def error(sampler, steps):
        return (last(sampler(analytic, start(), diffusion, steps)).x0 - exact).norm()

    assert error(SAMPLERS["ddim"], 40) < error(SAMPLERS["ddim"], 10) / 2
    assert error(SAMPLERS["dpm++"], 40) < error(SAMPLERS["dpm++"], 10) / 4
    assert error(SAMPLERS["dpm++"], 10) < error(SAMPLERS["ddim"], 10) / 2


def test_ddim_is_deterministic_and_eta_one_is_as_noisy_as_ddpm():
    diffusion = Diffusion(RELEASED)
    first, second = (last(SAMPLERS["ddim"](analytic, start(), diffusion, 10)).x for _ in range(2))
    assert torch.equal(first, second)

    def zero(x, t):
        return torch.zeros_like(x)

    noise = torch.zeros(1, 4, 16, 32, 32)
    for index, (a, b) in enumerate(zip(SAMPLERS["ddim"](zero, noise, diffusion, 10, 1.0, seeded()),
                                       SAMPLERS["ddpm"](zero, noise, diffusion, 10, generator=seeded()))):
        if index < 9:  # DDIM ends at alpha_bar[0], DDPM at 1
            torch.testing.assert_close(a.x, b.x)


def test_steps_are_lazy():
    calls = []

    def counting(x, t):
        calls.append(t)
        return x

    steps = SAMPLERS["ddim"](counting, start(), Diffusion(RELEASED), 5)
    assert calls == []
    next(steps)
    next(steps)
    assert calls == [801, 601]


def test_half_precision_network_leaves_the_arithmetic_in_float32():
    def half(x, t):
        return analytic(x, t).half()

    for name, sampler in SAMPLERS.items():
        options = {"generator": seeded()} if name == "ddpm" else {}
        step = last(sampler(half, start().half(), Diffusion(RELEASED), 5, **options))
        assert (step.x.dtype, step.x0.dtype, step.eps.dtype) == (torch.float32,) * 3


def test_one_generator_per_clip_makes_clips_independent():
    both = samplers.gaussian(SHAPE, [seeded(1), seeded(2)])
    alone = samplers.gaussian((1, *SHAPE[1:]), seeded(2))
    assert torch.equal(both[1:], alone)
    with pytest.raises(UserError, match="generator"):
        last(SAMPLERS["ddpm"](analytic, start(), Diffusion(RELEASED), 2))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_begins_with_a_clip_as_noisy_as_its_first_step_expects(name, spacing):
    diffusion, clip = Diffusion(replace(RELEASED, spacing=spacing)), torch.full((1, *SHAPE[1:]), 2.0)
    asked = []
    options = {"generator": seeded()} if name == "ddpm" else {}
    sampler = functools.partial(SAMPLERS[name], lambda x, t: (asked.append((t, x)), x)[1], start(), diffusion)
    whole = [step.t for step in sampler(10, **options)]
    asked.clear()
    steps = list(sampler(10, init=clip, skip=6, **options))
    assert [step.t for step in steps] == whole[6:] and [step.index for step in steps] == [6, 7, 8, 9]
    t, x = asked[0]
    torch.testing.assert_close(x, diffusion.add_noise(clip, start(), torch.tensor([t, t])))


def linear_unet(x, t, context):
    return x * context.mean((1, 2)).reshape(-1, 1, 1, 1, 1) + t.reshape(-1, 1, 1, 1, 1) / 1000 + torch.tanh(x)


def test_guidance():
    context, unconditional, x = torch.full((2, 5, 8), 2.0), torch.full((2, 5, 8), 0.5), start()
    t = torch.tensor([7, 7])
    u, c = linear_unet(x, t, unconditional), linear_unet(x, t, context)
    model = samplers.guided(linear_unet, context, unconditional, 9.0)
    torch.testing.assert_close(model(x, 7), u + 9 * (c - u))
    one_by_one = samplers.guided(linear_unet, context, unconditional, 9.0, batched=False)
    torch.testing.assert_close(one_by_one(x, 7), model(x, 7))
    assert torch.equal(samplers.guided(linear_unet, context)(x, 7), c)  # scale 1: no unconditional
    assert torch.equal(samplers.guided(linear_unet, context, unconditional, 0.0)(x, 7), u)  # scale 0: nothing else


def test_guidance_runs_the_network_in_its_own_dtype_and_combines_in_float32():
    seen = []

    def unet(x, t, context):
        seen.append((x.dtype, tuple(t.shape), len(x)))
        return x

    context = torch.zeros(2, 5, 8, dtype=torch.bfloat16)
    output = samplers.guided(unet, context, context, 3.0)(start(), 3)
    assert seen == [(torch.bfloat16, (4,), 4)] and output.dtype == torch.float32
