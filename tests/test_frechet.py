"""The Fréchet distance and what qualifies it, against closed forms and against simulations."""

import numpy as np
import pytest

from minit2v.errors import UserError
from minit2v.evaluation import frechet
from minit2v.evaluation.estimates import mean_estimate
from minit2v.evaluation.frechet import frechet_distance, frechet_estimate, kernel_distance, kernel_estimate


def normal(n, d=4, shift=0.0, scale=1.0, seed=0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


def test_is_the_closed_form_for_gaussians_with_axes_in_common():
    """|m1 - m2|² + sum (s1 - s2)² when the covariances commute."""
    x = normal(500)
    x = np.concatenate([x, -x])  # mean exactly 0
    turn = np.linalg.qr(normal(4, seed=1))[0]
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    a = whitened * [1, 2, 3, 4] @ turn
    b = whitened * [2, 2, 1, 7] @ turn + [1, 0, 0, 2]
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 0 + 4 + 9, abs=1e-8)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b)) and frechet_distance(a, a) == 0


def test_agrees_with_the_general_matrix_root_also_where_the_covariance_is_singular():
    torchmetrics = pytest.importorskip("torchmetrics.image.fid")
    import torch

    for n in (200, 3):  # fewer rows than columns: singular
        x, y = normal(n), normal(n, shift=0.5, scale=2, seed=1)
        moments = [torch.from_numpy(a) for rows in (x, y) for a in (rows.mean(0), np.cov(rows.T))]
        expected = torchmetrics._compute_fid(moments[0], moments[1], moments[2], moments[3]).item()
        assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_frames_make_one_set():
    x = normal(12).reshape(4, 3, 4)
    y = normal(12, seed=1).reshape(4, 3, 4)
    assert frechet_distance(x, y) == frechet_distance(x.reshape(12, 4), y.reshape(12, 4))


def test_floor_and_limit_tell_the_bias_from_the_distance():
    """Equal distributions: the value is pure bias, as the floor is, and the limit is near the truth, 0."""
    real = normal(20000, seed=99)
    same = [frechet_estimate(normal(200, seed=s), real, normal(200, seed=50 + s)) for s in range(12)]
    value, floor, limit = (np.mean([getattr(e, name) for e in same]) for name in ("value", "floor", "limit"))
    assert value == pytest.approx(floor, rel=0.3) and abs(limit) < 0.3 * value
    other = frechet_estimate(normal(200, shift=1), real, normal(200, seed=2))
    assert other.low < other.value < other.high and other.value > 20 * other.floor
    assert other.limit == pytest.approx(4, rel=0.15)  # four columns, each shifted by 1


def test_the_interval_covers_the_expected_value():
    """19 of 20 intervals should hold the mean distance of sets of this size; 30 of 40 is five standard errors off."""
    real = normal(20000, seed=99)
    estimates = [frechet_estimate(normal(100, shift=0.5, seed=seed), real) for seed in range(40)]
    truth = np.mean([estimate.value for estimate in estimates])
    assert sum(e.low <= truth <= e.high for e in estimates) >= 31


def test_the_kernel_distance_is_the_mean_over_pairs_of_different_clips(monkeypatch):
    x, y = normal(7), normal(5, shift=1, seed=1)
    k = lambda a, b: (a @ b / 4 + 1) ** 3
    own = [np.mean([k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j]) for a in (x, y)]
    expected = sum(own) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(expected) == kernel_estimate(x, y).value
    monkeypatch.setattr(frechet, "BLOCK", 3)
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_the_kernel_distance_is_unbiased_and_sees_shapes():
    zero = [kernel_distance(normal(50, seed=s), normal(50, seed=s + 100)) for s in range(200)]
    assert abs(np.mean(zero)) < 4 * np.std(zero) / 200**0.5
    skewed = np.random.default_rng(0).exponential(size=(2000, 4)) - 1  # same mean and covariance, another shape
    chance = [kernel_distance(normal(2000, seed=s), normal(2000, seed=s + 9)) for s in range(4)]
    assert kernel_distance(skewed, normal(2000)) > 5 * np.std(chance)


def test_the_kernel_interval_covers_the_expected_value():
    """As above; and the floor is what real clips have, about 0."""
    real, other = normal(2000, seed=99), normal(200, seed=98)
    estimates = [kernel_estimate(normal(100, shift=0.5, seed=seed), real, other) for seed in range(40)]
    truth = np.mean([estimate.value for estimate in estimates])
    assert sum(e.low <= truth <= e.high for e in estimates) >= 31
    assert abs(estimates[0].floor) < 0.1 * truth


def test_mean_has_its_standard_error():
    estimate = mean_estimate(np.array([0.0, 1.0] * 50))
    assert estimate.value == 0.5 and estimate.high - 0.5 == pytest.approx(1.96 * 0.0503, rel=0.01)


@pytest.mark.parametrize("bad", [np.zeros((3,)), np.zeros((0, 4)), np.full((3, 4), np.nan), np.zeros((1, 4))])
def test_refuses_what_has_no_covariance(bad):
    with pytest.raises(UserError, match="expected"):
        frechet_distance(bad, normal(5))
