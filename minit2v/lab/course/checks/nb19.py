"""Checks of notebook 19, Seven systems: McNemar's exact test, Holm's correction, Kendall's tau, and pairs that are pairs.

The bug hunt is a script that takes line i of two logs for one prompt, though the lines stand in another order and one of the
logs was made with other seeds.
"""

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import torch

from minit2v.files import data_dir
from minit2v.lab.course.comparing import recognised
from minit2v.lab.course.exercises import Failed, exercise
from minit2v.lab.course.questions import Question

_OWN = "tests/test_lab_systems.py::"
EQUATIONS = {
    "19.1": ("McNemar's exact test", _OWN + "test_mcnemar_counts_every_way_to_fall_at_least_as_unevenly"),
    "19.2": ("Holm's correction", _OWN + "test_holm_is_closed_testing"),
    "19.3": ("Kendall's tau with ties", _OWN + "test_kendall_of_pairs_one_by_one"),
    "19.4": ("its p by all orders", _OWN + "test_kendall_of_pairs_one_by_one"),
}

QUIZ = [
    (
        "On the same 512 prompts A is right in 310 clips and B in 285. The two intervals overlap. Is the difference only "
        "chance?",
        ["Yes, for the intervals overlap", "That depends on how many prompts exactly one of them gets right",
         "No, for 25 clips are many"],
        1,
        "The intervals know nothing of the pairs. If B is hardly ever right where A is wrong, 25 is far beyond chance; if "
        "each is often right where the other is wrong, it is not.",
    ),
    (
        "Somebody tests all 21 pairs of seven systems, and reports the one pair with p = 0.01. What is missing?",
        ["The other 20 tests", "A larger test set", "A t-test"],
        0,
        "Among 21 tests a p of 0.01 is no surprise, even where nothing differs: Holm's correction makes 0.21 of it.",
    ),
    (
        "Three systems stand in the same order in a published column and in our table. What does that prove?",
        ["That both protocols measure the same thing", "That our systems are faithful",
         "Hardly anything: one random order of six does it"],
        2,
        "Three systems have 3! = 6 orders. Full agreement, or full disagreement, comes by chance in 2 of 6.",
    ),
]  # fmt: skip

ROWS = {  # shipped name -> its row in the paper's table
    "nuwa": "NÜWA", "cogvideo-zh": "CogVideo (Chinese)", "cogvideo": "CogVideo (English)", "magicvideo": "MagicVideo",
    "videoldm": "Video LDM", "makeavideo": "Make-A-Video", "modelscope": "ModelScopeT2V",
}  # fmt: skip
COMPARISONS, LEVEL = 6, 0.05  # the six others with ModelScopeT2V, and the chance of a false alarm in one


def first_of_ours() -> str:
    """The system with the largest share of clips in which all is right, on the prompts of test_seen."""
    rows = json.loads((data_dir() / "systems.json").read_text(encoding="utf-8"))["rows"]
    known = [name for name in ROWS if name in rows]
    return ROWS[max(known, key=lambda name: rows[name]["verdicts"]["test_seen"].count("1"))]


PREDICTIONS = {
    "19.a": Question("All seven learn from the same data, on the same machine, in one or two hours each. Which one makes "
                     "most clips in which everything is as the prompt says?", first_of_ours, tuple(ROWS.values())),
    "19.b": Question("Of 512 prompts, both systems get 400 right, only the first 20, only the second 8. Suppose that both "
                     "get 40 right instead of 400, and the rest wrong, with 20 and 8 as before. If the two are equally "
                     "good, what becomes of a split as uneven as 20 to 8?", "equally surprising",
                     ("less surprising", "equally surprising", "more surprising")),
    "19.c": Question("Six comparisons of systems among which nothing differs, each with a chance of 5 % to say that "
                     "something does. How likely is at least one false alarm, in percent, if the six are independent?",
                     round(100 * (1 - (1 - LEVEL) ** COMPARISONS), 1), tolerance=3.0),
    "19.d": Question("Four systems stand in exactly the same order in two tables. Suppose that the order in one of them is "
                     "pure chance. How likely is it, in percent, that the two then agree fully or disagree fully?",
                     round(100 * 2 / math.factorial(4), 1), tolerance=1.0),
}  # fmt: skip


def _called(function: Callable, *given):
    """What the reader's function returns for copies of arrays and lists. Raises Failed for None and for a changed input."""
    passed = [one.copy() for one in given]
    found = function(*passed)
    for i, (now, then) in enumerate(zip(passed, given)):
        same = np.array_equal(now, then) if isinstance(then, np.ndarray) else now == then
        if not same:
            raise Failed(f"input {i + 1} as it was", "it was changed", "an operation in place, such as p *= … or x.sort()")
    if found is None:
        raise Failed("a result", "None", "the function does not return its result")
    return found


def _tensor(what: str, found) -> torch.Tensor:
    try:
        array = np.asarray(found)
        if array.dtype.kind not in "biuf":
            raise TypeError
        return torch.as_tensor(array.astype(np.float64))
    except (TypeError, ValueError):
        raise Failed(f"{what} as numbers", f"{type(found).__name__} {found!r:.80}") from None


def _recognised(what: str, found, expected, mistakes: dict[str, Callable], *given) -> None:
    exact = lambda value: torch.as_tensor(np.asarray(value, np.float64))
    wrong = {cause: (lambda one=one: exact(one(*given))) for cause, one in mistakes.items()}
    recognised(what, _tensor(what, found), exact(expected), wrong)


# --- 19.1


def mcnemar(first, second):
    """Verdicts (n,) bool on the same prompts -> prompts that only the first gets right, only the second, two-sided p."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    return only_first, only_second, min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def _counts(first, second):
    """(both right, only the first, only the second, none)."""
    return tuple(int(one.sum()) for one in (first & second, first & ~second, second & ~first, ~first & ~second))


def _tail(n, k):
    """The chance of at most k heads in n tosses."""
    return sum(math.comb(n, i) for i in range(k + 1)) / 2**n


def _normal_p(z):
    return math.erfc(abs(z) / math.sqrt(2))


def _mcnemar(p):
    """The two counts, and another p (both, only first, only second, none)."""

    def wrong(first, second):
        both, b, c, none = _counts(first, second)
        return b, c, p(both, b, c, none)

    return wrong


def _of_shares(both, b, c, none):
    """The z-test of two shares that have nothing to do with each other."""
    n = both + b + c + none
    one, other = (both + b) / n, (both + c) / n
    pooled = (one + other) / 2
    return _normal_p((one - other) / math.sqrt(max(2 * pooled * (1 - pooled) / n, 1e-300)))


MCNEMAR_MISTAKES = {
    "that is one-sided; a split that is as uneven the other way is as surprising, so twice":
        _mcnemar(lambda both, b, c, none: _tail(b + c, min(b, c))),
    "one-sided, and the side was fixed: the smaller count may be either of the two":
        _mcnemar(lambda both, b, c, none: _tail(b + c, b)),
    "the sum begins at the smaller count, which counts as well": _mcnemar(
        lambda both, b, c, none: min(1.0, 2 * _tail(b + c, min(b, c) - 1))),
    "that is the chance of this one split; those that are more uneven count as well": _mcnemar(
        lambda both, b, c, none: min(1.0, 2 * math.comb(b + c, b) / 2 ** (b + c))),
    "the coin was tossed for all prompts; those that both get right, or both wrong, say nothing about the difference":
        _mcnemar(lambda both, b, c, none: min(1.0, 2 * _tail(both + b + c + none, min(b, c)))),
    "the prompts that both get right were counted as well": _mcnemar(
        lambda both, b, c, none: min(1.0, 2 * _tail(2 * both + b + c, both + min(b, c)))),
    "that is the chi-squared approximation; the exact p adds up binomial coefficients": _mcnemar(
        lambda both, b, c, none: _normal_p((b - c) / math.sqrt(max(b + c, 1e-300)))),
    "that is the chi-squared approximation, with Yates' correction; the exact p adds up binomial coefficients": _mcnemar(
        lambda both, b, c, none: _normal_p((abs(b - c) - 1) / math.sqrt(max(b + c, 1e-300)))),
    "two shares were compared as if they came from different prompts; the pairs say more": _mcnemar(_of_shares),
    "half of the chance of this split was left out (that is called the mid-p); it counts in full": _mcnemar(
        lambda both, b, c, none: 2 * _tail(b + c, min(b, c)) - math.comb(b + c, b) / 2 ** (b + c)),
    "the two counts are exchanged": lambda first, second: mcnemar(second, first),
    "the counts are those of all that each gets right; only prompts on which they differ are asked for":
        lambda first, second: (first.sum(), second.sum(), mcnemar(first, second)[2]),
    "p alone: the two counts come first": lambda first, second: mcnemar(first, second)[2],
}  # fmt: skip


def _verdicts(both, b, c, none, seed):
    """Two arrays of verdicts with these counts, the prompts in any order."""
    order = np.random.default_rng(seed).permutation(both + b + c + none)
    first = np.repeat([True, True, False, False], (both, b, c, none))
    return first[order], np.repeat([True, False, True, False], (both, b, c, none))[order]


MCNEMAR_CASES = ((17, 9, 3, 11), (40, 4, 11, 5), (3, 0, 6, 2), (9, 5, 5, 1), (6, 0, 0, 3), (0, 1, 0, 0), (0, 0, 2, 30),
                 (30, 12, 14, 8), (2100, 724, 661, 40), (5, 40, 21, 80))  # fmt: skip


@exercise("19.1", name="mcnemar", solution=mcnemar, minutes=8, difficulty=2, importance=5)
def check_mcnemar(student):
    """Uneven splits both ways, even ones, none at all, a single prompt, and thousands."""
    for seed, counts in enumerate(MCNEMAR_CASES):
        given = _verdicts(*counts, seed)
        what = f"the counts and p of {len(given[0])} prompts, {counts[0]} of which both get right"
        _recognised(what, _called(student, *given), mcnemar(*given), MCNEMAR_MISTAKES, *given)
    return "exact for 1 to 3,525 prompts, and 1 where nothing differs"


# --- 19.2


def holm(p):
    """p-values (m,) in any order -> Holm's, (m,), in the same order."""
    order = np.argsort(p)
    stepped = (len(p) - np.arange(len(p))) * p[order]
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(stepped).clip(max=1)
    return adjusted


def _in_order(p, values):
    """Values for the sorted p, (m,) -> in the order of p."""
    found = np.empty(len(p))
    found[np.argsort(p)] = values
    return found


def _falling(p, start=0):
    return len(p) - start - np.arange(len(p))


def _least_from_the_end(values):
    return np.minimum.accumulate(values[::-1])[::-1].clip(max=1)


HOLM_MISTAKES = {
    "all were multiplied by m: that is Bonferroni's correction": lambda p: (len(p) * p).clip(max=1),
    "a larger p may not become smaller than a smaller one: take the largest so far":
        lambda p: _in_order(p, (_falling(p) * np.sort(p)).clip(max=1)),
    "they are in order of size; they are wanted in the order in which they came":
        lambda p: np.maximum.accumulate(_falling(p) * np.sort(p)).clip(max=1),
    "the way back was taken twice: adjusted[order] = … puts each where it came from, and … = adjusted[order] does not":
        lambda p: np.maximum.accumulate(_falling(p) * np.sort(p)).clip(max=1)[np.argsort(p)],
    "a probability is at most 1": lambda p: _in_order(p, np.maximum.accumulate(_falling(p) * np.sort(p))),
    "they were not sorted: the smallest p is multiplied by m, wherever it stands":
        lambda p: np.maximum.accumulate(_falling(p) * p).clip(max=1),
    "they were not sorted, and none is the largest so far": lambda p: (_falling(p) * p).clip(max=1),
    "the smallest p is multiplied by m, and not by m - 1": lambda p: _in_order(
        p, np.maximum.accumulate(_falling(p, 1) * np.sort(p)).clip(max=1)),
    "the smallest p is multiplied by m, and the largest by 1; here it is the other way round": lambda p: _in_order(
        p, np.maximum.accumulate((1 + np.arange(len(p))) * np.sort(p)).clip(max=1)),
    "each was multiplied by m over its place: that is Benjamini and Hochberg's rate of false discoveries":
        lambda p: _in_order(p, _least_from_the_end(len(p) / (1 + np.arange(len(p))) * np.sort(p))),
    "the smallest so far was taken from the largest p down: that is Hochberg's step up":
        lambda p: _in_order(p, _least_from_the_end(_falling(p) * np.sort(p))),
    "1 - (1 - p) ^ k holds for independent tests; k p holds for all": lambda p: _in_order(
        p, np.maximum.accumulate(1 - (1 - np.sort(p)) ** _falling(p))),
    "nothing was corrected": lambda p: p,
    "it is the largest of all; each has the largest of those up to its own": lambda p: np.full(
        len(p), (_falling(p) * np.sort(p)).max().clip(max=1)),
}  # fmt: skip
HOLM_CASES = (
    (0.030, 0.004, 0.21, 0.011, 0.028, 0.90),
    (0.004, 0.011, 0.028, 0.030, 0.31, 0.90),
    (0.04, 0.02, 0.04, 0.02, 0.02, 0.50),
    (0.9, 0.5, 0.6),
    (0.013,),
    (1.0, 1.0, 0.2, 1.0),
    (0.2, 0.0, 0.001, 0.0),
    (0.6, 0.3, 0.2, 0.05, 0.009, 0.0004),
    (0.012, 0.049),
)


def _holm_cases():
    yield from (np.array(case) for case in HOLM_CASES)
    rng = np.random.default_rng(5)
    for m in (21, 8):
        yield rng.permutation(np.concatenate([rng.uniform(0, 0.01, m // 2), rng.uniform(0, 1, m - m // 2)]))


@exercise("19.2", name="holm", solution=holm, minutes=10, difficulty=3, importance=5)
def check_holm(student):
    """Any order, ties, one test, zeros and ones, and all pairs of seven systems."""
    for p in _holm_cases():
        what = f"Holm's p of {len(p)} tests"
        _recognised(what, _called(student, p), holm(p), HOLM_MISTAKES, p)
    return "1 to 21 tests, in the order in which they came"


# --- 19.3


def kendall(x, y):
    """Figures (n,) of the same n <= 7 systems -> Kendall's tau with ties, and its two-sided p by all n! orders of y."""
    x_signs, y_signs = (np.sign(v[:, None] - v) for v in (x, y))
    orders = np.array(list(itertools.permutations(range(len(x)))))  # (n!, n), the first is 0, 1, 2, …
    agreements = (x_signs * y_signs[orders[:, :, None], orders[:, None]]).sum((1, 2))
    tau = agreements[0] / np.sqrt(np.square(x_signs).sum() * np.square(y_signs).sum())
    return tau, np.mean(abs(agreements) >= abs(agreements[0]))


def _signs(v):
    return np.sign(np.subtract.outer(v, v))


def _pairs(x, y):
    """How many of the n (n - 1) / 2 pairs agree, disagree, are tied in x, are tied in y."""
    upper = np.triu_indices(len(x), 1)
    a, b = _signs(x)[upper], _signs(y)[upper]
    return int((a * b > 0).sum()), int((a * b < 0).sum()), int((a == 0).sum()), int((b == 0).sum())


def _tau(x, y):
    return kendall(x, y)[0]


def _p(x, y):
    return kendall(x, y)[1]


def _share_of_orders(x, y, counts):
    """The share of the orders of y that `counts` (their agreements, that which is there) lets through."""
    others = y[np.array(list(itertools.permutations(range(len(y)))))]
    agreements = (_signs(x) * np.sign(others[:, :, None] - others[:, None])).sum((1, 2))
    return np.mean(counts(agreements, agreements[0]))


def _ranks(v):
    return np.array([(v < one).sum() + ((v == one).sum() - 1) / 2 for one in v])


def _normal_tau_p(x, y):
    agree, disagree, *_ = _pairs(x, y)
    n = len(x)
    return _normal_p((agree - disagree) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18))


def _ratio(above, below):
    return above / below if below else 0.0


def _shares(x, y):
    """(agreeing minus disagreeing, all pairs)."""
    agree, disagree, *_ = _pairs(x, y)
    return agree - disagree, len(x) * (len(x) - 1) / 2


KENDALL_MISTAKES = {
    "the sum was divided by the number of all pairs; a tied pair cannot agree, so it does not count below either":
        lambda x, y: (_ratio(*_shares(x, y)), _p(x, y)),
    "a pair that is tied was counted as one that disagrees; it is neither":
        lambda x, y: (2 * _pairs(x, y)[0] / _shares(x, y)[1] - 1, _p(x, y)),
    "pairs that are tied in either list were left out: that is Goodman and Kruskal's gamma":
        lambda x, y: (_ratio(_shares(x, y)[0], sum(_pairs(x, y)[:2])), _p(x, y)),
    "the ties of x were taken off twice, and those of y were not: the root has a factor for each list":
        lambda x, y: (_ratio(_shares(x, y)[0], _shares(x, y)[1] - _pairs(x, y)[2]), _p(x, y)),
    "the ties of y were taken off twice, and those of x were not: the root has a factor for each list":
        lambda x, y: (_ratio(_shares(x, y)[0], _shares(x, y)[1] - _pairs(x, y)[3]), _p(x, y)),
    "the root below the line is missing": lambda x, y: (
        _ratio(4 * _shares(x, y)[0], np.square(_signs(x)).sum() * np.square(_signs(y)).sum()), _p(x, y)),
    "that is the correlation of the figures themselves; only their order counts":
        lambda x, y: (np.corrcoef(x, y)[0, 1], _p(x, y)),
    "that is Spearman's, the correlation of places": lambda x, y: (np.corrcoef(_ranks(x), _ranks(y))[0, 1], _p(x, y)),
    "the sign is the wrong one: tau is positive where the orders agree": lambda x, y: (-_tau(x, y), _p(x, y)),
    "p is one-sided; orders that disagree as clearly count as well, so compare sizes":
        lambda x, y: (_tau(x, y), _share_of_orders(x, y, lambda other, here: other >= here)),
    "p is one-sided, of orders that agree less": lambda x, y: (
        _tau(x, y), _share_of_orders(x, y, lambda other, here: other <= here)),
    "orders that agree exactly as well were left out of p; they count": lambda x, y: (
        _tau(x, y), _share_of_orders(x, y, lambda other, here: abs(other) > abs(here))),
    "p was made two-sided by doubling; with ties the two sides differ, so compare sizes": lambda x, y: (
        _tau(x, y), min(1.0, 2 * _share_of_orders(x, y, lambda other, here: other * np.sign(here or 1) >= abs(here)))),
    "p comes from a bell curve, which knows nothing of so few systems; count the orders":
        lambda x, y: (_tau(x, y), _normal_tau_p(x, y)),
    "the order that is there was left out of p; it is one of the n! orders": lambda x, y: (
        _tau(x, y), (math.factorial(len(x)) * _p(x, y) - 1) / (math.factorial(len(x)) - 1)),
    "tau alone: p comes second": _tau,
    "p and tau are exchanged": lambda x, y: kendall(x, y)[::-1],
}  # fmt: skip
KENDALL_CASES = (
    ((3.0, 1.0, 4.0, 1.0, 5.0, 9.0), (2.0, 7.0, 1.0, 3.0, 7.0, 3.0)),
    ((0.2439, 0.2614, 0.2631, 0.2929, 0.3049, 0.2930), (31.5, 62.0, 60.5, 78.0, 55.0, 81.0)),
    ((47.68, 24.78, 23.59, 13.17, 11.09), (14.0, 9.5, 9.8, 2.5, 3.5)),
    ((1.0, 2.0), (5.0, 4.0)),
    ((1.0, 1.0, 2.0), (3.0, 4.0, 4.0)),
    ((2.0, 1.0, 1.0, 1.0, 1.0), (3.0, 2.0, 1.0, 3.0, 2.0)),
    ((1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 30.0, 400.0)),
    ((1.0, 1.0, 1.0, 1.0, 2.0), (1.0, 2.0, 2.0, 2.0, 9.0)),
    ((1, 3, 2, 5, 4, 7, 6), (7, 6, 3, 5, 4, 2, 1)),
    ((5.0, 5.0, 1.0, 1.0), (1.0, 2.0, 1.0, 2.0)),
    ((0.1, 0.2, 0.30000000000000004, 0.3, 0.3), (1e-9, -2e-9, 0.0, 1e9, 3e-9)),
)


@exercise("19.3", name="kendall", solution=kendall, minutes=20, difficulty=4, importance=4)
def check_kendall(student):
    """Ties in one list and in both, agreement and the reverse, whole numbers, two to seven systems."""
    for x, y in KENDALL_CASES:
        given = np.array(x), np.array(y)
        what = f"tau and p of {len(x)} systems"
        _recognised(what, _called(student, *given), kendall(*given), KENDALL_MISTAKES, *given)
    return "tau and p of two to seven systems, with ties and without"


# --- 19.B


def paired(first, second):
    """Logs [(prompt, seed, right), …] -> the verdicts of both on what both have done, in the order of the first."""
    other = {(prompt, seed): right for prompt, seed, right in second}
    both = [(right, other[prompt, seed]) for prompt, seed, right in first if (prompt, seed) in other]
    return [one for one, _ in both], [one for _, one in both]


def _by(key, first, second):
    """The verdicts on lines that `key` (prompt, seed) takes for one another."""
    other = {key(prompt, seed): right for prompt, seed, right in second}
    both = [(right, other[key(prompt, seed)]) for prompt, seed, right in first if key(prompt, seed) in other]
    return list(zip(*both))


def _sorted(first, second):
    """Line by line, after both logs were sorted."""
    both = list(zip(sorted(first), sorted(second)))
    return [one[2] for one, _ in both], [other[2] for _, other in both]


def _in_the_order_of_the_second(first, second):
    return paired(second, first)[::-1]


def _with_gaps(first, second):
    """What the second log has not done counts as wrong."""
    other = {line[:2]: line[2] for line in second}
    return [line[2] for line in first], [other.get(line[:2], False) for line in first]


PAIRED_MISTAKES = {
    "line i of one log was taken for line i of the other, as in the script": lambda a, b: list(zip(*(
        (one[2], other[2]) for one, other in zip(a, b)))),
    "the prompts are the same, but not the seeds: a pair is the same prompt and the same seed":
        lambda a, b: _by(lambda prompt, seed: prompt, a, b),
    "the seeds are the same, but not the prompts: a pair is the same prompt and the same seed":
        lambda a, b: _by(lambda prompt, seed: seed, a, b),
    "sorting helps only if both logs have the same lines: leave out what one of them lacks": _sorted,
    "lines are in the order of the second log; they are wanted in that of the first": _in_the_order_of_the_second,
    "the two lists are exchanged": lambda a, b: paired(a, b)[::-1],
    "what is missing in the second log was counted as wrong; it was never tried": _with_gaps,
    "the first log's verdicts stand in both lists": lambda a, b: (paired(a, b)[0], paired(a, b)[0]),
}  # fmt: skip


def _logs(prompts, seeds, other_seeds, missing, seed):
    """Two logs; the second in another order, and without some of its lines."""
    rng = np.random.default_rng(seed)
    names = [f"a thing of kind {i} moves" for i in rng.permutation(10 * prompts)[:prompts].tolist()]
    first = [(name, s, bool(rng.uniform() < 0.6)) for s in seeds for name in names]
    second = [(name, s, bool(rng.uniform() < 0.5)) for s in other_seeds for name in names]
    return first, [second[i] for i in rng.permutation(len(second))[missing:].tolist()]


LOG_CASES = ((12, (0, 1), (1, 2), 5, 0), (9, (0,), (0,), 0, 1), (7, (3, 4, 5), (5, 4), 2, 2),
             (1, (0, 1, 2, 3), (2, 7, 0), 0, 3), (30, (8,), (8, 9), 11, 4))  # fmt: skip


@exercise("19.B", name="paired", solution=paired, minutes=10, difficulty=3, importance=5)
def check_paired(student):
    """Other orders, other seeds, one prompt with several seeds, and lines that only one of the logs has."""
    for case in LOG_CASES:
        given = _logs(*case)
        found = _called(student, *given)
        what = f"the pairs of logs of {len(given[0])} and {len(given[1])} lines"
        try:
            found = list(found)
            lengths = [len(one) for one in found]
        except TypeError:
            raise Failed(f"{what}: two lists", f"{type(found).__name__} {found!r:.60}") from None
        if len(lengths) == 2 and lengths[0] != lengths[1]:
            raise Failed(f"{what}: two lists of one length", f"{lengths[0]} and {lengths[1]} verdicts",
                         "a line without its twin in the other log belongs to neither list")  # fmt: skip
        _recognised(what, found, paired(*given), PAIRED_MISTAKES, *given)
    return "the same prompt and the same seed in every pair, whatever the order of the lines"
