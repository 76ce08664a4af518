"""The exercises of notebook 20: right solutions pass however they are written, wrong ones do not."""

import pytest
import torch
from answers import assert_refused

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb20
from minit2v.lab.course.checks.nb20 import conv_change, ranks_needed

zeros, randn, ones = torch.zeros, torch.randn, torch.ones
scaled = lambda scale: lambda W, A, B, alpha: W + scale(W, A, B, alpha) * (B @ A)
WRONG = {
    "20.1": {
        "the least axis is the rank": scaled(lambda W, A, B, alpha: alpha / min(A.shape)),
        "the rank of the product": scaled(lambda W, A, B, alpha: alpha / torch.linalg.matrix_rank(B @ A)),
        "always double": lambda *given: nb20.changed(*given).double(),
        "by the outputs": scaled(lambda W, A, B, alpha: alpha / len(B)), "upside down": scaled(lambda W, A, B, alpha: len(A) / alpha),
        "in place": lambda W, A, B, alpha: W.add_(B @ A, alpha=alpha / len(A)),
    },
    "20.2": {
        "always double": lambda A, B: conv_change(A, B).double(), "taps summed": lambda A, B: conv_change(A, B).sum(2, keepdim=True),
        "square ones transposed": lambda A, B: conv_change(A, B if len(B) != len(A) else B.transpose(0, 1)),
        "square changes transposed": lambda A, B: conv_change(A, B).transpose(0, 1) if len(B) == A.shape[1] else conv_change(A, B),
    },
    "20.3": {
        "at most 4": lambda D, share: min(4, ranks_needed(D, share)), "changes it": lambda D, share: ranks_needed(D.mul_(2), share),
        "the rank": lambda D, share: int(torch.linalg.matrix_rank(D)), "a float": lambda D, share: float(ranks_needed(D, share)),
    },
    "20.B": {
        "both zero": lambda out, into, r: (zeros(r, into), zeros(out, r)), "ones": lambda out, into, r: (ones(r, into), zeros(out, r)),
        "ones in B": lambda out, into, r: (zeros(r, into), ones(out, r)), "both random": lambda out, into, r: (randn(r, into), randn(out, r)),
        "one row for all": lambda out, into, r: (randn(1, into).repeat(r, 1), zeros(out, r)),
        "one rank alone": lambda out, into, r: (torch.cat([randn(1, into), zeros(r - 1, into)]), zeros(out, r)),
        "far too large": lambda out, into, r: (100 * randn(r, into), zeros(out, r)),
    },
}  # fmt: skip
ALL = [(number, name) for number, known in WRONG.items() for name in known]


@pytest.mark.parametrize("number, name", ALL, ids=[" ".join(one) for one in ALL])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


@pytest.mark.parametrize("cause", nb20.RANK_MISTAKES)
def test_a_known_mistake_in_the_rank_is_named(cause):
    outcome = exercises.run("20.3", lambda D, share: nb20.RANK_MISTAKES[cause](torch.linalg.svdvals(D).tolist(), share))
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


@pytest.mark.parametrize("number, right", [
    ("20.1", lambda W, A, B, alpha: torch.addmm(W, B, A, alpha=alpha / A.shape[0])),
    ("20.2", lambda A, B: torch.einsum("orab,rikw->oikw", B, A)),
    ("20.3", lambda D, share: 1 + sum(kept < share for kept in (torch.linalg.svdvals(D) ** 2 / (D**2).sum()).cumsum(0).tolist())),
    ("20.B", lambda out, into, r: (torch.nn.Parameter(zeros(r, into)), torch.nn.Parameter(0.1 * randn(out, r)))),
    ("20.B", nb20.start),
])  # fmt: skip
def test_other_ways_to_write_it_pass(number, right):
    outcome = exercises.run(number, right)
    assert outcome.passed, outcome.message
