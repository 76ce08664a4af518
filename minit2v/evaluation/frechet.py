"""How far apart two sets of clips are: distances between their features, with everything needed to read them.

    clips ─ network ─> features (n d) ─> mean m, covariance C        d² = |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)
    real  ─ network ─> features (N d) ─> mean m, covariance C

The Fréchet distance is one between two Gaussians, so it is 0 only for equal means and covariances, and it is *biased*:
an estimate from n clips is too large by about a constant over n. So a value never stands alone: `frechet_estimate`
adds its 95 % interval, the *floor* (real against real, with as many clips) and the *limit* (n -> infinity).
`kernel_estimate`, the squared maximum mean discrepancy, cross-checks it: no Gaussians, no bias.

References: FID, arXiv 1706.08500, equation 6; FVD, arXiv 1812.01717, section 2; the bias and the extrapolation,
arXiv 1911.07023, sections 3 and 4; polynomial MMD (KID), arXiv 1801.01401, section 4; of clips (KVD), arXiv
1812.01717; its variance, Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012), 723-773; bootstrap intervals, Efron
and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from typing import Annotated

import numpy as np

from minit2v.errors import UserError
from minit2v.evaluation.estimates import NORMAL, Estimate
from minit2v.ranges import Array, Seed, public

Features = Annotated[np.ndarray, Array("n d …", finite=True)]
ROUNDS = 100  # resamplings of the bootstrap
SHARES = (0.5, 0.6, 0.7, 0.8, 1.0)  # of the clips, used for the extrapolation
BLOCK = 1024  # rows whose kernels with all others are in memory at the same time


@public
def frechet_distance(x: Features, y: Features) -> float:
    """Fréchet distance (squared, like FID and FVD) between features (n, d), or (n, f, d) with all frames as one set.

    Computed in float64. Raises UserError for other shapes, fewer than two rows, and NaN.

    >>> frechet_distance(np.eye(3), np.eye(3) + 2)
    12.0
    """
    x, y = _rows(x), _rows(y)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"expected features of one width, found {x.shape[1]} and {y.shape[1]}; use one network")
    return float(round(_distance(*_moments(x), *_moments(y)), 10))


@public
def kernel_distance(x: Features, y: Features) -> float:
    """Squared maximum mean discrepancy with the kernel (x·y/d + 1)³, unbiased (KID): 0 on average for equal sets, so a
    value may be negative.

    Takes features (n, d) or (n, f, d) and assumes nothing about their distribution. Raises UserError like
    `frechet_distance`.

    >>> kernel_distance(np.eye(3), np.eye(3) + 2) > 0
    True
    """
    return _discrepancy(_rows(x), _rows(y))[0]


@public
def frechet_estimate(
    x: Features, reference: Features, other_reference: Features | None = None, seed: Seed = 0
) -> Estimate:
    """Distance of features x (n, d) or (n, f, d) from those of real clips, with interval, floor and limit.

    `other_reference` are features of further real clips, n or more: the distance of the first n from the reference is
    the floor. The interval resamples clips, not frames, as the frames of one clip are alike. A resampled set has fewer
    different clips and so lies farther away; the interval is shifted back by the mean excess.
    """
    generator, n = np.random.default_rng(seed), len(x)
    value, real = frechet_distance(x, reference), _moments(_rows(reference))
    again = np.array([_distance(*_moments(_rows(x[generator.integers(n, size=n)])), *real) for _ in range(ROUNDS)])
    low, high = np.quantile(again, (0.025, 0.975)) - again.mean() + value
    floor = None
    if other_reference is not None:
        if len(other_reference) < n:
            raise UserError(f"floor: expected at least {n} real clips, found {len(other_reference)}; give more")
        floor = frechet_distance(other_reference[:n], reference)
    return Estimate(value, max(0.0, float(low)), float(high), n, floor, _limit(x, real, generator))


@public
def kernel_estimate(x: Features, reference: Features, other_reference: Features | None = None) -> Estimate:
    """`kernel_distance` of features x (n, d) from those of real clips, with interval and floor like `frechet_estimate`;
    it needs no limit, as it has no bias. The variance of the interval is 4 var(h) / n, where h is the contribution of
    each clip to the distance."""
    value, added = _discrepancy(_rows(x), _rows(reference))
    half = NORMAL * 2 * added.std(ddof=1) / len(x) ** 0.5
    floor = None if other_reference is None else kernel_distance(other_reference[: len(x)], reference)
    return Estimate(value, value - half, value + half, len(x), floor)


def _discrepancy(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The squared discrepancy, and h of each row of x: its mean kernel with other rows of x minus that with y."""
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    blocks = lambda a: np.array_split(a, -(-len(a) // BLOCK))
    means = lambda a, b: np.concatenate([kernel(block, b).mean(1) for block in blocks(a)])
    alone = lambda a: (np.square(a).sum(1) / a.shape[1] + 1) ** 3  # of a row with itself: no pair
    inside = lambda a: (len(a) * means(a, a) - alone(a)) / (len(a) - 1)
    own, across = inside(x), means(x, y)
    return float(own.mean() + inside(y).mean() - 2 * across.mean()), own - across


def _limit(x: np.ndarray, real: tuple, generator: np.random.Generator) -> float | None:
    """The distance for n -> infinity: intercept of the line through distances of random parts of x against 1 / n; None
    if x is too small for parts of different sizes."""
    sizes = [int(share * len(x)) for share in SHARES]
    if min(sizes) < 2 or len(set(sizes)) < len(SHARES):
        return None
    distances = [
        np.mean([_distance(*_moments(_rows(x[generator.permutation(len(x))[:n]])), *real) for _ in range(5)])
        for n in sizes
    ]
    return float(np.polyfit(1 / np.array(sizes), distances, 1)[1])  # eq (13.4) · Chong and Forsyth section 4


def _rows(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim not in (2, 3) or features.size == 0:
        raise UserError(f"expected features (n, d) or (n, f, d), found {features.shape}; pass those of a network")
    rows = features.reshape(-1, features.shape[-1])  # (n f d) -> ((n f) d)
    if len(rows) < 2 or not np.isfinite(rows).all():
        raise UserError(f"expected two rows or more of finite features, found {len(rows)}, or NaN; check the clips")
    return rows


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(0), np.cov(rows.T).reshape(rows.shape[1], rows.shape[1])


def _distance(m1: np.ndarray, c1: np.ndarray, m2: np.ndarray, c2: np.ndarray) -> float:
    """tr (C1 C2)^½ is the sum of the roots of the eigenvalues of A C2 A with A = C1^½. That matrix is symmetric, so no
    complex numbers occur, as they do in the general matrix root."""
    values, axes = np.linalg.eigh(c1)
    root = (axes * np.sqrt(values.clip(0))) @ axes.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    apart = float((m1 - m2) @ (m1 - m2) + np.trace(c1) + np.trace(c2) - 2 * overlap)  # eq (13.3) · FID (6)
    return max(0.0, apart)
