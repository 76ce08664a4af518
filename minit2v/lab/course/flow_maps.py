"""Flow maps of notebook 21: worlds of points in which the true jump from any angle to any other is known.

    clip ── x = cos(t) clip + sin(t) noise ── noise         t: an angle, 0 at the clip, pi / 2 at the noise
            jump(x, v, t, r): from t to r < t               v = model(x, t, r), at r = t the velocity of the path

Angles take the place of the library's timesteps (`training.distillation.Rotations`), so that a jump may have any length.

References: rotations: TrigFlow, Lu and Song, arXiv 2410.11081, section 3; paths of a Gaussian: Karras et al., arXiv
2206.00364, section 3; Runge and Kutta's method as in notebook 06.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

FlowMap = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x (n, d), t (n, 1), r (n, 1)) -> v (n, d)
Velocity = Callable[[Tensor, Tensor], Tensor]  # (x (n, d), t (n, 1)) -> v (n, d)

NOISE = math.pi / 2  # the angle of pure noise
ROUNDS = 60  # of Runge and Kutta's method, for a jump of any length
SHORTEST = 1e-7  # a jump is told from none


def jump(x: Tensor, v: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """The end at angle r of a jump from x (n, d) at angle t with v (n, d)."""
    return (t - r).cos() * x - (t - r).sin() * v


def v_between(x: Tensor, end: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """The v of the jump that leads from x (n, d) at angle t to `end` (n, d) at angle r < t."""
    return ((t - r).cos() * x - end) / (t - r).sin()


class Blobs:
    """A world of round blobs that are equally likely, and a perfect network for it.

    Args:
        centres: (blobs, d).
        spread: standard deviation of a blob.
    """

    def __init__(self, centres: Tensor, spread: float):
        self.centres, self.spread = centres, spread

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points (n, d)."""
        blob = torch.randint(len(self.centres), (n,), generator=generator, device="cpu")
        noise = torch.randn(n, self.centres.shape[1], generator=generator, dtype=self.centres.dtype, device="cpu")
        return self.centres[blob] + self.spread * noise

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """v of the path through x (n, d) at angle t (n, 1): each blob has its own, and a belief says how much of each."""
        centres = self.centres.to(x)
        variance = (self.spread * t.cos()) ** 2 + t.sin() ** 2  # of a blob after noising
        distance = ((x[:, None] - t.cos()[..., None] * centres) ** 2).sum(-1)  # (n, blobs)
        middle = torch.softmax(-distance / (2 * variance), 1) @ centres
        away = x - t.cos() * middle
        return (1 - self.spread**2) * t.sin() * t.cos() / variance * away - t.sin() * middle

    def flow_map(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """v of the true jump from angle t to r: the path, followed in many small rounds."""
        end = followed(self.velocity, x, t, r)
        short = t - r < SHORTEST
        return torch.where(short, self.velocity(x, t), v_between(x, end, t, torch.where(short, t - 1, r)))


def followed(velocity: Velocity, x: Tensor, t: Tensor, r: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Where the path through x (n, d) at angle t is at angle r, by Runge and Kutta's method."""
    h = (r - t) / rounds
    for i in range(rounds):
        at = t + i * h
        k1 = velocity(x, at)
        k2 = velocity(x + h / 2 * k1, at + h / 2)
        k3 = velocity(x + h / 2 * k2, at + h / 2)
        k4 = velocity(x + h * k3, at + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


class Gaussian:
    """A world of one Gaussian, whose true flow map is a formula: what is left of x after mean and spread stays the same.

    Args:
        mean, spread: of the points, (d,).
    """

    def __init__(self, mean: Tensor, spread: Tensor):
        self.mean, self.spread = mean, spread

    def deviation(self, t: Tensor) -> Tensor:
        """Standard deviation at angle t (n, 1): (n, d)."""
        return ((self.spread * t.cos()) ** 2 + t.sin() ** 2).sqrt()

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """v of the path through x (n, d) at angle t."""
        growth = (1 - self.spread**2) * t.sin() * t.cos() / self.deviation(t) ** 2
        return growth * (x - t.cos() * self.mean) - t.sin() * self.mean

    def end(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """Where the path through x (n, d) at angle t is at angle r."""
        return r.cos() * self.mean + self.deviation(r) / self.deviation(t) * (x - t.cos() * self.mean)

    def flow_map(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """v of the true jump from angle t to r."""
        short = t - r < SHORTEST
        far = torch.where(short, t - 1, r)
        return torch.where(short, self.velocity(x, t), v_between(x, self.end(x, t, far), t, far))


def ring(blobs: int = 6, radius: float = 1.35, spread: float = 0.25) -> Blobs:
    """The world of notebook 06: blobs on a ring."""
    angles = torch.arange(blobs, dtype=torch.float64, device="cpu") * 2 * math.pi / blobs
    return Blobs(radius * torch.stack([angles.cos(), angles.sin()], 1), spread)


class Net(torch.nn.Module):
    """A small flow map of points (n, d): v from x, t and the length of the jump."""

    def __init__(self, d: int = 2, width: int = 128):
        super().__init__()
        sizes = [d + 4, width, width, width, d]
        layers = [part for pair in zip(sizes, sizes[1:]) for part in (torch.nn.Linear(*pair), torch.nn.SiLU())]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        told = [t.cos(), t.sin(), (t - r).cos(), (t - r).sin()]
        return self.layers(torch.cat([x, *told], 1))
