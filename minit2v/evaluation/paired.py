"""Two systems on the same prompts, several comparisons at once, and two orders of few systems.

    verdicts of both ── discordant ──► only one of them is right ── mcnemar ──► p ── holm, of all comparisons ──► p
    figures of n systems in two tables ── kendall ──► tau, and its p by all n! orders

References: McNemar, Psychometrika 12 (1947), 153-157, in the exact form; Holm, Scandinavian Journal of Statistics 6 (1979),
65-70; Kendall, Biometrika 30 (1938), 81-93, and for ties 33 (1945), 239-251.
"""

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from minit2v.errors import UserError

MOST = 7  # systems whose orders are all tried


def discordant(a: Sequence[bool], b: Sequence[bool]) -> tuple[int, int, int]:
    """(number of pairs, pairs that are right in a only, in b only), over the first prompts that both have."""
    pairs = [(bool(x), bool(y)) for x, y in zip(a, b)]
    return len(pairs), sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test: the probability of a split at least this uneven, if both sides are equally
    likely to be the one that is right.

    >>> mcnemar(5, 5), round(mcnemar(0, 6), 5)
    (1.0, 0.03125)
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)  # eq (19.1) · McNemar 1947, exact


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values of several tests (m,), corrected so that any false alarm among them is as rare as in one test.

    >>> holm([0.03, 0.01, 0.5]).round(3).tolist()
    [0.06, 0.03, 0.5]
    """
    p = np.asarray(p, np.float64)
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    stepped = (len(p) - np.arange(len(p))) * p[order]
    adjusted[order] = np.maximum.accumulate(stepped).clip(max=1)  # eq (19.2) · Holm 1979
    return adjusted


def kendall(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Kendall's tau (b) of figures of the same n systems, and its two-sided p by all n! orders, ties included.

    Raises UserError for fewer than 2 or more than 7, for lists of two lengths, and where all figures of a list are equal.

    >>> kendall([1, 2, 3, 4], [2, 3, 5, 7])
    (1.0, 0.08333333333333333)
    """
    a, b = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(x, np.float64), np.asarray(y, np.float64)))
    if not 2 <= len(a) == len(b) <= MOST or not a.any() or not b.any():
        raise UserError(f"kendall: expected figures of 2 to {MOST} systems, not all equal, found {list(x)} and {list(y)}")
    orders = np.array(list(permutations(range(len(a)))))  # (n! n), the first is the one that is there
    agreements = (a * b[orders[:, :, None], orders[:, None]]).sum((1, 2))
    tau = agreements[0] / np.sqrt(np.square(a).sum() * np.square(b).sum())  # eq (19.3) · Kendall 1938, ties 1945
    p = np.mean(abs(agreements) >= abs(agreements[0]))  # eq (19.4) · Kendall 1938
    return float(tau), float(p)
