"""Flow matching, as one more thing to predict: the velocity of a straight way from the clip to the noise.

      x_0 ─────────────── x ───────────────► eps       x = (1 - tau) x_0 + tau eps,   tau from 0 to 1
     a clip          velocity u = eps - x_0

The way of `process` runs on a circle: signal and sigma are cosine and sine of an angle, and v is its velocity. Here they are
1 - tau and tau. Where the signal-to-noise ratio is equal, the two differ only in size: `tau_of` and `length` lead from one
to the other, so a model of the one is a model of the other (`as_flow`).

In the papers, time runs the other way, from noise at 0 to data at 1; here noise is at the end, as in the rest of the
library.

References: Lipman et al. (arXiv 2210.02747) sections 3 and 4; rectified flow, Liu et al. (2209.03003) section 2.1.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from minit2v.diffusion.process import Diffusion, split
from minit2v.diffusion.samplers import Model

Velocity = Callable[[Tensor, float], Tensor]  # (x, tau) -> u of x's shape


def straight(x0: Tensor, noise: Tensor, tau) -> Tensor:
    """The place at tau, 0 (clip) to 1 (noise), on the straight way; tau is a number, or (b, 1, …) to broadcast."""
    return (1 - tau) * x0 + tau * noise  # eq (10.4) · Lipman et al. (22), Liu et al. section 2.1


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """What a network of flow matching learns by a squared error: the same at every tau."""
    return noise - x0  # eq (10.5) · Lipman et al. (23), Liu et al. (1)


def split_velocity(u: Tensor, x: Tensor, tau) -> tuple[Tensor, Tensor]:
    """(x0, eps) that a velocity stands for at x, tau."""
    return x - tau * u, x + (1 - tau) * u  # eq (10.6) · the two above, solved


def tau_of(alpha_bar):
    """The tau with the signal-to-noise ratio of alpha_bar, 1 (clip) to 0 (noise); numbers or tensors.

    >>> tau_of(0.5)
    0.5
    """
    signal, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    return sigma / (signal + sigma)  # eq (10.7) · equal ratios of signal and noise


def length(tau):
    """How long (signal, sigma) is on the straight way; on the circle it is 1. x of the circle = x / length."""
    return ((1 - tau) ** 2 + tau**2) ** 0.5


def as_flow(model: Model, diffusion: Diffusion) -> Velocity:
    """The velocity that a model of the circle, (x, t) -> output, stands for; asked at the timestep nearest to tau.

    At timesteps of the diffusion (`tau_of` its alpha_bar) nothing is lost.
    """
    taus = tau_of(diffusion.alpha_bar)

    def run(x: Tensor, tau: float) -> Tensor:
        t = int((taus - tau).abs().argmin())
        a, x = diffusion.alpha_bar[t].item(), x / length(tau)
        x0, eps = split(diffusion.config.prediction, model(x, t).to(x.dtype), x, a**0.5, (1 - a) ** 0.5)
        return velocity(x0, eps)

    return run


@torch.no_grad()
def euler(run: Velocity, x: Tensor, taus: Sequence[float]) -> Iterator[Tensor]:
    """x after each step from normal noise x: straight ahead from one of the falling taus to the next; the last is 0."""
    for tau, after in zip(taus, taus[1:]):
        x = x + (after - tau) * run(x, tau)  # eq (10.8) · Liu et al. section 2.1, Euler's method
        yield x
