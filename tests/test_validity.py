"""The validity table at small N, and that its two kinds of claims can fail. In full: make validity."""

import json
from pathlib import Path

import numpy as np
import pytest

from minit2v.errors import UserError
from minit2v.evaluation.validity.corruptions import CORRUPTIONS, LEVELS
from minit2v.evaluation.validity.matrix import (
    BLIND,
    DISTANCES,
    METRICS,
    MISLED,
    cells,
    curves,
    floor,
    matched_pair,
    spearman,
)

ROOT = Path(__file__).parent.parent


def test_the_page_is_that_of_the_kept_figures_and_no_claim_is_broken(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import validity

    kept = json.loads((ROOT / "docs/validity.json").read_text())
    assert validity.markdown(kept) == (ROOT / "docs/validity.md").read_text(encoding="utf-8")
    assert not validity.broken(kept) and kept["n"] == 128
    assert kept["networks"] == validity.networks(), "make validity: the metrics have other weights now"


def test_spearman_of_ranks():
    x = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    assert spearman(x, np.exp(x)) == 1 and spearman(x, -(x**3)) == -1 and spearman(x, np.ones(5)) == 0
    y = np.array([2.0, 7.0, 1.0, 8.0, 2.5])  # ranks 4 2... of x are 3 1 4 2 5; 1 - 6 sum d² / (n (n² - 1))
    d = np.array([3, 1, 4, 2, 5]) - np.array([2, 4, 1, 5, 3])
    assert spearman(x, y) == pytest.approx(1 - 6 * (d @ d) / 120)
    assert spearman(np.arange(4), np.array([0, 0, 1, 1])) == pytest.approx(2 / 5**0.5)  # shared ranks 1.5 1.5 3.5 3.5


def test_the_table_notices_a_false_claim():
    """A metric that is said to see and does not, and one that is said to be blind and is not."""
    rising = np.array([LEVELS] * 3)
    seen = {(metric, name): rising * (METRICS[metric] or 1) for metric in METRICS for name in CORRUPTIONS}
    found = cells(seen, {})
    assert all(cell.holds == (cell.kind == "sees") for cell in found.values())
    declared = {claim[0] for claim in (*BLIND, *MISLED)}
    assert {cell.reason for cell in found.values() if not cell.holds} == declared
    flat = cells(seen | {("FVD-mini", "blur"): 0.01 * rising[:, ::-1], ("FVD-mini", "reversal"): 0 * rising}, {})
    assert not flat["FVD-mini", "blur"].holds and flat["FVD-mini", "reversal"].holds


@pytest.mark.parametrize("values, spread, holds, least", [
    ([0, 1, 2, 3, 4, 5], 0, True, 0.2), ([0, 1, 3, 2, 4, 5], 0, False, 0.2), ([0, 0, 0, 3, 4, 5], 0, True, 0.6),
    ([0, 0, 0, 0, 4, 5], 0, False, 0.6), ([0, -1, 2, 3, 4, 5], 0, False, 0.2), ([0, -1, 2, 3, 4, 5], 2, True, 0.4),
    ([0, 0, 0, 0, 0, 0], 0, False, 0.6), ([5, 4, 3, 2, 1, 0], 0, False, 0.2),
])  # fmt: skip
def test_what_counts_as_order(values, spread, holds, least):
    """One pair the wrong way round is disorder; a small severity that changes nothing, or nothing certain, is none."""
    curve = np.array(values) + spread * np.outer([-1, 0, 1], [0, 1, 0, 0, 0, 0])
    cell = cells({("FVD-mini", "blur"): curve}, {})["FVD-mini", "blur"]
    assert (cell.holds, cell.least) == (holds, least)


def test_a_little_damage_that_misleads():
    up_first, down = -np.array([[0, 1, 0.5, -3, -6, -9]] * 3), -np.array([[0, -1, -2, -3, -4, -5]] * 3)
    key, other = ("CLIPSIM", "noise"), ("CLIPSIM", "blur")
    assert cells({key: -up_first, other: down}, {})[key].holds
    assert not cells({key: -down, other: -down}, {})[key].holds  # in order, so it is not misled


def test_blindness_is_declared_of_what_there_is():
    assert all(set(metrics) <= set(METRICS) and set(names) <= set(CORRUPTIONS) for _, metrics, names in BLIND)
    assert all(metric in METRICS and name in CORRUPTIONS for _, pairs in MISLED for metric, name in pairs)


@pytest.mark.parametrize("n, metrics", [
    (8, (*DISTANCES, "motion amplitude", "identity drift", "flicker")),
    (24, ("video similarity", "direction gap")),
])  # fmt: skip
def test_every_metric_sees_what_it_is_said_to_see_and_no_more(n, metrics):
    """CLIPSIM changes too little with some corruptions, and R-precision and the judge say yes or no for each clip, so
    these three need a larger N: `make validity`."""
    found = cells(*curves(n, metrics=metrics))
    wrong = {key: (cell.kind, cell.correlation, cell.share) for key, cell in found.items() if not cell.holds}
    assert len(found) == len(metrics) * len(CORRUPTIONS) and not wrong


def test_the_pair_that_fools_a_metric_of_content_does_not_fool_fvd_mini():
    pair = matched_pair(64)
    spatial, temporal = pair["FVD-content"]
    assert temporal < spatial
    spatial, temporal = pair["FVD-mini"]
    assert temporal > 1.2 * spatial


def test_the_floor_is_low():
    """Of 256 clips each; the floor is a bias that falls as 1 / N, so that of 1,024 is a quarter."""
    real, noise = floor(256)
    assert 0 < real / 4 < 0.02 * noise


def test_refuses_too_few_clips():
    with pytest.raises(UserError, match="whole number from 8"):
        curves(4)
