"""The forward process against diffusers, against its own inverse, and at its edges."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import Normal, kl_divergence

from minit2v.diffusion.process import Diffusion, bound_weights, shift_snr
from minit2v.errors import UserError
from minit2v.presets import DiffusionConfig

RELEASED = DiffusionConfig()
THEIR_SCHEDULE = {"scaled_linear": "scaled_linear", "linear": "linear", "cosine": "squaredcos_cap_v2"}
THEIR_PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_released_values():
    diffusion = Diffusion(RELEASED)
    assert diffusion.alpha_bar.dtype == torch.float64
    expected = {0: 0.99915, 1: 0.998296, 981: 0.0057755, 999: 0.0046601}
    for t, value in expected.items():
        assert diffusion.alpha_bar[t].item() == pytest.approx(value, rel=1e-4)
    assert diffusion.final == diffusion.alpha_bar[0]


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("schedule", THEIR_SCHEDULE)
def test_schedules_equal_diffusers(schedule, zero_snr):
    ours = Diffusion(replace(RELEASED, schedule=schedule, zero_terminal_snr=zero_snr, prediction="v"))
    theirs = DDIMScheduler(beta_start=RELEASED.beta_start, beta_end=RELEASED.beta_end,
                           beta_schedule=THEIR_SCHEDULE[schedule], rescale_betas_zero_snr=zero_snr)
    assert (ours.alpha_bar - theirs.alphas_cumprod).abs().max() < 2e-6
    assert (ours.alpha_bar[-1] == 0) == zero_snr
    x0, noise = gaussian(5, 4, 3, 2, 2), gaussian(5, 4, 3, 2, 2, seed=1)
    t = torch.tensor([0, 1, 500, 981, 999])
    assert (ours.add_noise(x0, noise, t) - theirs.add_noise(x0, noise, t)).abs().max() < 1e-4
    assert (ours.target(x0, noise, t) - theirs.get_velocity(x0, noise, t)).abs().max() < 1e-4


@pytest.mark.parametrize("shift", [1.0, 2.0, 3.0])
def test_shift_divides_the_signal_to_noise_ratio(shift):
    plain, shifted = Diffusion(RELEASED).alpha_bar, Diffusion(replace(RELEASED, snr_shift=shift)).alpha_bar
    torch.testing.assert_close(shifted / (1 - shifted) * shift**2, plain / (1 - plain))
    torch.testing.assert_close(shift_snr(shifted, 1 / shift), plain)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", THEIR_PREDICTION)
def test_the_target_gives_back_clip_and_noise(prediction, zero_snr):
    if prediction == "eps" and zero_snr:
        with pytest.raises(UserError, match="prediction.*zero_terminal_snr"):
            Diffusion(replace(RELEASED, prediction=prediction, zero_terminal_snr=True))
        return
    diffusion = Diffusion(replace(RELEASED, prediction=prediction, zero_terminal_snr=zero_snr))
    x0, noise = gaussian(4, 4, 2, 3, 3), gaussian(4, 4, 2, 3, 3, seed=1)
    t = torch.tensor([0, 300, 981, 999])
    x_t = diffusion.add_noise(x0, noise, t)
    found_x0, found_noise = diffusion.to_x0_eps(diffusion.target(x0, noise, t), x_t, t)
    torch.testing.assert_close(found_x0, x0)
    torch.testing.assert_close(found_noise, noise)
    for one, each in zip(diffusion.to_x0_eps(noise, x_t, 300), diffusion.to_x0_eps(noise, x_t, t)):
        torch.testing.assert_close(one[1], each[1])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "scaled_linear"])
def test_the_bound_weighs_by_the_signal_that_a_step_wins(schedule):
    """Against the divergence of two posteriors of DDPM (7), computed from their means and their variance."""
    alpha_bar = Diffusion(replace(RELEASED, schedule=schedule)).alpha_bar
    weights, x, x0, guess = bound_weights(alpha_bar), 0.3, -0.8, 0.5
    assert weights[0] == math.inf and (weights > 0).all() and weights.dtype == torch.float64
    for t in (1, 300, 700, 998):
        a, before = alpha_bar[t], alpha_bar[t - 1]
        beta = 1 - a / before
        variance = beta * (1 - before) / (1 - a)
        posteriors = [Normal((before.sqrt() * beta * one + (1 - beta).sqrt() * (1 - before) * x) / (1 - a), variance.sqrt())
                      for one in (x0, guess)]  # fmt: skip
        torch.testing.assert_close(kl_divergence(*posteriors), weights[t] * (x0 - guess) ** 2)


@pytest.mark.parametrize("prediction", THEIR_PREDICTION)
def test_loss_weighs_every_clip_alike(prediction):
    diffusion = Diffusion(replace(RELEASED, prediction=prediction))
    x0, noise = gaussian(2, 4, 2, 3, 3).float(), gaussian(2, 4, 2, 3, 3, seed=1).float()
    t = torch.tensor([100, 900])
    target = diffusion.target(x0, noise, t)
    assert diffusion.loss(target, x0, noise, t) == 0
    wrong = target + torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(diffusion.loss(wrong, x0, noise, t, per_clip=True), torch.tensor([1.0, 9.0]))
    torch.testing.assert_close(diffusion.loss(wrong, x0, noise, t), torch.tensor(5.0))
    assert diffusion.loss(wrong.half(), x0, noise, t).dtype == torch.float32


@pytest.mark.parametrize(
    "name, value", [("schedule", "sigmoid"), ("prediction", "flow"), ("spacing", "even"), ("snr_shift", 0.0)])
def test_unknown_settings_are_named(name, value):
    with pytest.raises(UserError, match=name) as error:
        Diffusion(replace(RELEASED, **{name: value}))
    assert "\n" not in str(error.value)
