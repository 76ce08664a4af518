"""Samplers: from noise to latents, one generator per method, every step visible.

    noise x --> model(x, t) --> (x0, eps) --> x at the next t --> ... --> latents
                                    |
                                yield Step

A model is any callable (x, t) -> output with x (b, c, f, h, w) and t an int; `guided` makes one of a UNet. A
sampler computes a step when it is asked for it, and in float32 (float64 if x is) whatever the network's
dtype: half-precision latents drift. With `clip` (b or 1, c, f, h, w) and `skip` a sampler leaves out its first steps
and begins with the clip, as noisy as the first step that is left expects it (SDEdit, arXiv 2108.01073, algorithm 1).

References: DDPM (arXiv 2006.11239) section 3.2; DDIM (2010.02502) sections 4.1 and 5; DPM-Solver++
(2211.01095) algorithm 2; classifier-free guidance (2207.12598) section 3.2; Lin et al. (2305.08891) sections
3.3 and 3.4.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from minit2v.diffusion.process import Diffusion, split
from minit2v.errors import UserError

OFFSET = 1  # the release visits 981, 961, ..., 1, not 980, 960, ..., 0

Model = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """One denoising step; the tensors are (b, c, f, h, w), float32."""

    index: int  # 0 .. steps - 1
    t: int  # the timestep that the network was asked at, T-1 .. 0
    x: Tensor  # latents after the step
    eps: Tensor  # the noise that the network saw in the latents before the step
    x0: Tensor  # the clip that it saw in them


def timesteps(diffusion: Diffusion, steps: int, intervals: int | None = None) -> list[int]:
    """The timesteps that a sampler visits: exactly `steps` falling ints in 0..T-1, by diffusers' rule.

    leading    1, 1 + T//n, 1 + 2 T//n, ...: the release; below T-1, and lower still if n does not divide T
    trailing   T-1, T-1 - T/n, ...: for zero terminal SNR, as only T-1 is pure noise; Lin et al. section 3.3

    `intervals` n (leading only) is how many parts T is cut into, if not `steps`. Raises UserError for steps
    outside 1..T.

    >>> from minit2v.presets import DiffusionConfig
    >>> timesteps(Diffusion(DiffusionConfig()), 5)
    [801, 601, 401, 201, 1]
    >>> timesteps(Diffusion(DiffusionConfig(spacing="trailing")), 5)
    [999, 799, 599, 399, 199]
    """
    T = diffusion.config.steps
    if not 1 <= steps <= T:
        raise UserError(f"steps: expected 1 to {T}, found {steps}")
    if diffusion.config.spacing == "trailing":
        return (np.arange(T, 0, -T / steps).round().astype(int)[:steps] - 1).tolist()
    n = intervals or steps
    ladder = np.arange(n)[::-1][:steps] * max(T // n, 1)
    return (ladder + min(OFFSET, T - 1 - ladder[0])).tolist()  # 1000 steps have no room for the offset


def gaussian(shape: Sequence[int], generator: Generator | Sequence[Generator] | None) -> Tensor:
    """Standard normal noise, float32, drawn on the CPU so that a seed means the same on every device.

    A list has one generator per clip: then the noise of a clip does not depend on the rest of its batch.
    """
    if generator is None:
        raise UserError("generator: expected a torch.Generator (this sampler draws noise), found None")
    if isinstance(generator, Generator):
        return torch.randn(tuple(shape), generator=generator)
    return torch.cat([torch.randn(1, *shape[1:], generator=one) for one in generator])


def _start(x: Tensor, diffusion: Diffusion, ladder: list[int], final: float, clip: Tensor | None, skip: int):
    # x in float32 or float64, and (index, (t, alpha_bar before the step, alpha_bar after it)) for each step
    levels = [*diffusion.alpha_bar[ladder].tolist(), final]
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if clip is not None:
        x = diffusion.add_noise(clip.to(x), x, [ladder[skip]])
    return x, list(enumerate(zip(ladder, levels, levels[1:])))[skip:]


def _predict(model: Model, x: Tensor, t: int, diffusion: Diffusion, a: float) -> tuple[Tensor, Tensor]:
    return split(diffusion.config.prediction, model(x, t).to(x.dtype), x, a**0.5, (1 - a) ** 0.5)


@torch.no_grad()
def ddim(model: Model, x: Tensor, diffusion: Diffusion, steps: int = 50, eta: float = 0.0,
         generator: Generator | Sequence[Generator] | None = None,
         clip: Tensor | None = None, skip: int = 0) -> Iterator[Step]:
    """DDIM, as released, from normal noise x (b, c, f, h, w): deterministic at eta 0, as noisy as DDPM at 1.

    Each step aims at the next timestep; the last one ends at `diffusion.final` (the release: alpha_bar[0]).
    """
    x, levels = _start(x, diffusion, timesteps(diffusion, steps), diffusion.final, clip, skip)
    for index, (t, a, a_next) in levels:
        x0, eps = _predict(model, x, t, diffusion, a)
        variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)  # eq (6.3) · DDIM (16)
        x = a_next**0.5 * x0 + max(1 - a_next - variance, 0) ** 0.5 * eps  # eq (6.4) · DDIM (12)
        if eta > 0:
            x = x + variance**0.5 * gaussian(x.shape, generator).to(x)
        yield Step(index, t, x, eps, x0)


@torch.no_grad()
def ddpm(model: Model, x: Tensor, diffusion: Diffusion, steps: int = 1000,
         generator: Generator | Sequence[Generator] | None = None,
         clip: Tensor | None = None, skip: int = 0) -> Iterator[Step]:
    """DDPM's own sampling, with its smaller variance. Fewer steps than T jump; ends at alpha_bar 1, without noise."""
    x, levels = _start(x, diffusion, timesteps(diffusion, steps), 1.0, clip, skip)
    for index, (t, a, a_next) in levels:
        x0, eps = _predict(model, x, t, diffusion, a)
        beta = 1 - a / a_next
        x = a_next**0.5 * beta / (1 - a) * x0 + (1 - beta) ** 0.5 * (1 - a_next) / (1 - a) * x  # eq (6.1) · DDPM (7)
        variance = (1 - a_next) / (1 - a) * beta  # eq (6.2) · DDPM (7)
        x = x + variance**0.5 * gaussian(x.shape, generator).to(x)
        yield Step(index, t, x, eps, x0)


@torch.no_grad()
def dpm_solver_pp(model: Model, x: Tensor, diffusion: Diffusion, steps: int = 25,
                  clip: Tensor | None = None, skip: int = 0) -> Iterator[Step]:
    """DPM-Solver++(2M): second order, by extrapolating x0 from the last two steps; 20 to 25 steps are enough.

    Its first and last steps are first order, which is DDIM. Ends at alpha_bar 1.
    """
    x, levels = _start(x, diffusion, timesteps(diffusion, steps, steps + 1), 1.0, clip, skip)
    last_x0 = last_h = None
    for index, (t, a, a_next) in levels:
        a = max(a, 2**-24)  # diffusers' floor: with zero terminal SNR lambda would be infinite
        x0, eps = _predict(model, x, t, diffusion, a)
        h = _half_log_snr(a_next) - _half_log_snr(a)
        guess = x0
        if last_h is not None and index < steps - 1:
            guess = x0 + h / (2 * last_h) * (x0 - last_x0)  # eq (6.5) · DPM-Solver++ algorithm 2
        x = ((1 - a_next) / (1 - a)) ** 0.5 * x - a_next**0.5 * math.expm1(-h) * guess
        last_x0, last_h = x0, h
        yield Step(index, t, x, eps, x0)


def _half_log_snr(a: float) -> float:
    return 0.5 * math.log(a / (1 - a)) if a < 1 else math.inf  # lambda of the DPM-Solver papers


SAMPLERS = {"ddim": ddim, "ddpm": ddpm, "dpm++": dpm_solver_pp}


def guided(unet: Callable[[Tensor, Tensor, Tensor], Tensor], context: Tensor,
           unconditional: Tensor | None = None, scale: float = 1.0, batched: bool = True) -> Model:
    """A model for the samplers: the UNet with its text, under classifier-free guidance u + scale (c - u).

    c and u are the UNet's outputs (eps, x0 or v alike) for `context` and `unconditional`, both (b, n, d),
    combined in float32; the UNet itself runs in the dtype of `context`. Scale 1 asks for c only, 0 for u only.

    `batched` runs u and c as one batch; else one after the other: slower, half the memory.
    """
    def run(x, t, text):
        return unet(x.to(text.dtype), torch.full((len(x),), t, device=x.device), text).float()

    def model(x, t):
        if scale in (0, 1):
            return run(x, t, context if scale else unconditional)
        if batched:
            u, c = run(torch.cat([x, x]), t, torch.cat([unconditional, context])).chunk(2)
        else:
            u, c = run(x, t, unconditional), run(x, t, context)
        return u + scale * (c - u)  # eq (6.6) · classifier-free guidance (6), scale = 1 + w

    return model
