"""Figures with their 95 % interval: a mean, a share, a ratio. Without one, a figure says nothing about the next sample.

References: E. B. Wilson, Probable inference, JASA 22 (1927), 209-212; the variance of a ratio, Cochran, Sampling
Techniques (1977), section 6.3.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from minit2v.errors import UserError
from minit2v.ranges import Array, Count, Length, Positive, Size, public

Values = Annotated[np.ndarray, Array("n")] | Annotated[list[float | bool], Length(1, 2**31)]
NORMAL = 1.959964  # standard errors of a 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A figure with everything needed to read it; None where that does not apply."""

    value: float
    low: float  # 95 % interval over the clips
    high: float
    n: int  # clips
    floor: float | None = None  # real against real with as many clips
    limit: float | None = None  # for n -> infinity


@public
def mean_estimate(values: Values) -> Estimate:
    """Mean of the values of each clip, (n,), with ± 1.96 standard errors."""
    values = np.asarray(values, np.float64)
    half = NORMAL * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else math.inf
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half), len(values))


@public
def share_estimate(right: Values) -> Estimate:
    """Share of the clips (n,) bool that are True, in %, with Wilson's interval.

    >>> share = share_estimate(np.array([True, True, True, False]))
    >>> share.value, round(share.low), round(share.high)
    (75.0, 30, 95)
    """
    right = np.asarray(right, bool)
    low, high = wilson(int(right.sum()), len(right))
    return Estimate(100 * float(right.mean()), 100 * low, 100 * high, len(right))


@public
def ratio_estimate(x: Values, real: Values) -> Estimate:
    """mean(x) / mean(real) with ± 1.96 standard errors: r = x̄/ȳ, var r = var(x - r y) / (n ȳ²) if both have n values,
    which then belong to the same prompts.

    >>> ratio_estimate(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    Estimate(value=0.5, low=0.5, high=0.5, n=3, floor=None, limit=None)
    """
    x, real = np.asarray(x, float), np.asarray(real, float)
    ratio = x.mean() / real.mean()
    if min(len(x), len(real)) < 2:
        variance = math.inf
    elif len(x) == len(real):
        variance = (x - ratio * real).var(ddof=1) / len(x)
    else:
        variance = x.var(ddof=1) / len(x) + ratio**2 * real.var(ddof=1) / len(real)
    half = NORMAL * variance**0.5 / abs(real.mean())
    return Estimate(float(ratio), float(ratio - half), float(ratio + half), len(x))


@public
def wilson(right: Count, n: Size, z: Positive = NORMAL) -> tuple[float, float]:
    """Wilson's interval for a share, with `right` of n observed; z = 1.96 gives 95 %.

    (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z sqrt(p (1 - p)/n) it also holds at 0 and 1.

    >>> [round(bound, 4) for bound in wilson(512, 512)]
    [0.9926, 1.0]
    """
    if right > n:
        raise UserError(f"right: expected at most n, which is {n}, found {right}")
    p, spread = right / n, z * z / n
    middle, half = p + spread / 2, z * math.sqrt(p * (1 - p) / n + spread / (4 * n))  # eq (12.3) · Wilson 1927
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)  # eq (13.1) · Wilson, Probable inference
    return max(0.0, low), min(1.0, high)
