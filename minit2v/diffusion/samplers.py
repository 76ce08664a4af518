"""Samplers: from noise to latents, one generator per method, every step visible.

    noise x --> model(x, t) --> (x0, eps) --> rule --> x at the next level --> ... --> latents
                                    |
                                yield Step

A *model* is any callable (x, t) -> output with x (b, c, f, h, w) and t an int; `guided` makes one of a UNet. The noise
*levels* are made outside (`levels`), so a method is only its rule: ``ddim(predict, x, levels)``. `SAMPLERS` has a row for
each method: its rule, where its levels end, whether it takes eta, whether it draws noise. A row is called as
``SAMPLERS["ddim"](model, x, diffusion, steps)``. A new method is a function and a row.

A step is computed when it is asked for, in float32 (float64 if x is) whatever the network's dtype: half-precision
latents drift. To start from a clip is to leave out the first levels (SDEdit, arXiv 2108.01073, algorithm 1).

References: DDPM (arXiv 2006.11239) section 3.2; DDIM (2010.02502) sections 4.1 and 5; DPM-Solver++
(2211.01095) algorithm 2; classifier-free guidance (2207.12598) section 3.2; Lin et al. (2305.08891) sections
3.3 and 3.4.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from torch import Generator, Tensor

from minit2v.diffusion.process import Diffusion, split
from minit2v.errors import UserError
from minit2v.ranges import Array, Count, Number, Share, Size, public

SMALLEST = 2**-24  # stands for alpha_bar 0 in DPM-Solver++, as in diffusers: its lambda would be infinite

Tensors = Annotated[Tensor, Array("b …")]
Tokens = Annotated[Tensor, Array("b n d")]
Model = Callable[[Tensor, int], Tensor]  # (x, t) -> output
Generators = Generator | Sequence[Generator]  # one for all clips, or one for each


@dataclass(frozen=True, eq=False)
class Step:
    """One denoising step; the tensors are (b, c, f, h, w), float32. A system that predicts something else than noise
    leaves out `eps`, and `x0` where it has none."""

    index: int  # 0 .. steps - 1
    t: int  # the timestep that the network was asked at, T-1 .. 0
    x: Tensor  # latents after the step
    eps: Tensor | None = None  # predicted noise
    x0: Tensor | None = None  # predicted clean latents


@dataclass(frozen=True)
class Level:
    """Where a sampler takes a step, and how noisy the latents are before and after it."""

    index: int  # 0 .. steps - 1
    t: int  # timestep, T-1 .. 0
    alpha_bar: float  # share of the clip's variance before the step
    after: float  # the same after the step


Predict = Callable[[Tensor, Level], tuple[Tensor, Tensor]]  # (x, level) -> (x0, eps)


@public
def timesteps(diffusion: Diffusion, steps: int, intervals: Size | None = None) -> list[int]:
    """The timesteps that a sampler visits: exactly `steps` falling ints in 0..T-1, by diffusers' rule.

    leading    1, 1 + T//n, 1 + 2 T//n, ...: the release; below T-1, and lower still if n does not divide T
    trailing   T-1, T-1 - T/n, ...: for zero terminal SNR, as only T-1 is pure noise; Lin et al. section 3.3
    linspace   n places from 0 to T-1, both included

    The 1 of leading is `steps_offset`. `intervals` n (not for trailing) is how many parts T is cut into, if not `steps`.
    Raises UserError for steps outside 1..T.

    >>> from minit2v.presets import DiffusionConfig
    >>> timesteps(Diffusion(DiffusionConfig()), 5)
    [801, 601, 401, 201, 1]
    >>> timesteps(Diffusion(DiffusionConfig(spacing="trailing")), 5)
    [999, 799, 599, 399, 199]
    """
    T = diffusion.config.timesteps
    if not 1 <= steps <= T:
        raise UserError(f"steps: expected 1 to {T}, found {steps}")
    if diffusion.config.spacing == "trailing":
        return (np.arange(T, 0, -T / steps).round().astype(int)[:steps] - 1).tolist()
    n = intervals or steps
    if diffusion.config.spacing == "linspace":
        return np.linspace(0, T - 1, min(n, T)).round().astype(int)[::-1][:steps].tolist()
    visited = np.arange(n)[::-1][:steps] * max(T // n, 1)
    offset = diffusion.config.steps_offset  # released 1: 981, 961, ..., 1, not 980, 960, ..., 0
    return (visited + min(offset, T - 1 - visited[0])).tolist()  # 1000 steps have no room for the offset


def levels(diffusion: Diffusion, steps: int, sampler: "Sampler") -> list[Level]:
    """The levels of a run, from noise to clip. Every step aims at the next timestep that is visited, also where `steps`
    does not divide T; diffusers' DDIM and DDPM aim at t - T // steps there, which they may never visit.
    """
    visited = timesteps(diffusion, steps, steps + sampler.extra_intervals)
    end = 1.0 if sampler.ends_clean else diffusion.final
    noisiness = [*diffusion.alpha_bar[visited].tolist(), end]
    return [Level(i, t, *noisiness[i : i + 2]) for i, t in enumerate(visited)]


def gaussian(shape: Sequence[int], generator: Generators | None) -> Tensor:
    """Standard normal noise, float32, drawn on the CPU so that a seed means the same on every device.

    A list has one generator per clip: then the noise of a clip does not depend on the rest of its batch.
    """
    if generator is None:
        raise UserError("generator: expected a torch.Generator (this sampler draws noise), found None")
    draw = lambda shape, one: torch.randn(tuple(shape), generator=one, dtype=torch.float32, device="cpu")
    if isinstance(generator, Generator):
        return draw(shape, generator)
    return torch.cat([draw((1, *shape[1:]), one) for one in generator])


def ddim(predict: Predict, x: Tensor, levels: list[Level], eta: float = 0.0,
         generator: Generators | None = None) -> Iterator[Step]:  # fmt: skip
    """DDIM, as released, from normal noise x (b, c, f, h, w): deterministic at eta 0, as noisy as DDPM at 1.

    Its last step ends at `diffusion.final` (the release: alpha_bar[0]).
    """
    for level in levels:
        a, a_next = level.alpha_bar, level.after
        x0, eps = predict(x, level)
        variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)  # eq (6.4) · DDIM (16)
        x = a_next**0.5 * x0 + max(1 - a_next - variance, 0) ** 0.5 * eps  # eq (6.3) · DDIM (12)
        if eta > 0:
            x = x + variance**0.5 * gaussian(x.shape, generator).to(x)
        yield Step(level.index, level.t, x, eps, x0)


def ddpm(predict: Predict, x: Tensor, levels: list[Level], generator: Generators | None = None) -> Iterator[Step]:
    """DDPM's own sampling, with its smaller variance. Fewer steps than T jump; ends at alpha_bar 1, without noise."""
    for level in levels:
        a, a_next = level.alpha_bar, level.after
        x0, eps = predict(x, level)
        beta = 1 - a / a_next
        x = a_next**0.5 * beta / (1 - a) * x0 + (1 - beta) ** 0.5 * (1 - a_next) / (1 - a) * x  # eq (6.1) · DDPM (7)
        variance = (1 - a_next) / (1 - a) * beta  # eq (6.2) · DDPM (7)
        x = x + variance**0.5 * gaussian(x.shape, generator).to(x)
        yield Step(level.index, level.t, x, eps, x0)


def dpm_solver_pp(predict: Predict, x: Tensor, levels: list[Level]) -> Iterator[Step]:
    """DPM-Solver++(2M): second order, by extrapolating x0 from the last two steps; 20 to 25 steps are enough.

    Its first and last steps are first order, which is DDIM. Ends at alpha_bar 1.
    """
    last_x0 = last_h = None
    for level in levels:
        level = level if level.alpha_bar else replace(level, alpha_bar=SMALLEST)
        a, a_next = level.alpha_bar, level.after
        x0, eps = predict(x, level)
        h = _half_log_snr(a_next) - _half_log_snr(a)
        guess = x0
        if last_h is not None and level.index < levels[-1].index:
            guess = x0 + h / (2 * last_h) * (x0 - last_x0)  # eq (6.5) · DPM-Solver++ algorithm 2
        x = ((1 - a_next) / (1 - a)) ** 0.5 * x - a_next**0.5 * math.expm1(-h) * guess
        last_x0, last_h = x0, h
        yield Step(level.index, level.t, x, eps, x0)


def _half_log_snr(a: float) -> float:
    return 0.5 * math.log(a / (1 - a)) if a < 1 else math.inf  # lambda of the DPM-Solver papers


@dataclass(frozen=True)
class Sampler:
    """A row of `SAMPLERS`: a rule, and what it needs."""

    rule: Callable[..., Iterator[Step]]  # (predict, x, levels, and eta and generator if the next fields say so)
    ends_clean: bool = True  # levels end at alpha_bar 1; False: at `diffusion.final`, as released
    takes_eta: bool = False  # has a parameter eta, 0 to 1: how much fresh noise
    draws_noise: bool = False  # has a parameter generator
    extra_intervals: int = 0  # T is cut into so many intervals more than there are steps

    @public
    @torch.no_grad()
    def __call__(self, model: Model, x: Tensors, diffusion: Diffusion, steps: Size, eta: Share = 0.0,
                 generator: Generators | None = None, init: Tensors | None = None,
                 skip: Count = 0) -> Iterator[Step]:  # fmt: skip
        """The steps of a run from normal noise x (b, c, f, h, w). With `init`, latents (b or 1, c, f, h, w), it begins
        at level number `skip` with them, as noisy as that level is. eta and generator are for rules that take them.
        """
        run = levels(diffusion, steps, self)[skip:]
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if init is not None:
            x = diffusion.add_noise(init.to(x), x, [run[0].t])

        def predict(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            a, output = level.alpha_bar, model(x, level.t).to(x.dtype)
            return split(diffusion.config.prediction, output, x, a**0.5, (1 - a) ** 0.5)

        options = ({"eta": eta} if self.takes_eta else {}) | ({"generator": generator} if self.draws_noise else {})
        yield from self.rule(predict, x, run, **options)


SAMPLERS = {
    "ddim": Sampler(ddim, ends_clean=False, takes_eta=True, draws_noise=True),
    "ddpm": Sampler(ddpm, draws_noise=True),
    "dpm++": Sampler(dpm_solver_pp, extra_intervals=1),
}


@public
def guided(unet: Callable[[Tensor, Tensor, Tensor], Tensor], context: Tokens,
           unconditional: Tokens | None = None, scale: Number = 1.0, batched: bool = True) -> Model:
    """A model for the samplers: the UNet with its text, under classifier-free guidance u + scale (c - u).

    c and u are the UNet's outputs (eps, x0 or v alike) for `context` and `unconditional`, both (b, n, d),
    combined in float32; the UNet itself runs in the dtype of `context`. Scale 1 asks for c only, 0 for u only.

    `batched` runs u and c as one batch; else one after the other: slower, half the memory. Raises UserError for a scale that
    needs tokens which are not there.
    """
    if scale != 1 and unconditional is None:
        raise UserError(f"unconditional: expected tokens for a scale of {scale:g}, found None")

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
