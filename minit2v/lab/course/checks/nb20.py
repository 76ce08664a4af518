"""Checks of notebook 20, Your own adapter: a low-rank change, that of a convolution, the ranks that are needed, a start."""

from numbers import Integral

import torch
import torch.nn.functional as F

from minit2v.lab.course.comparing import called, keeps_float32, normal, recognised
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.lab.course.questions import Question

_TESTS = "tests/test_adapters.py::"
EQUATIONS = {
    "20.1": ("a weight and its low-rank change", _TESTS + "test_peft_and_this_library_open_each_others_adapters"),
    "20.2": ("the scale of the change", _TESTS + "test_files_with_names_are_read"),
}

QUIZ = [
    (
        "Someone gives you an adapter that was trained on another model of the same sizes. It loads without an error. What "
        "will it do?",
        [
            "The same as on its own model, for it holds all that was learnt",
            "It adds a change that was right for other weights: anything from something similar to rubbish",
            "Nothing, as B starts at zero",
        ],
        1,
        "B A is a difference. It means something only together with the weights that it was learnt on; relatives of one "
        "model often share enough of them, strangers do not.",
    ),
    (
        "Two adapters are merged into one model, each at strength 1: one for a shape, one for a colour. The clips are worse "
        "than with each alone. What do you try first?",
        ["Merge them in the other order", "Lower strengths, such as 0.6 each", "A higher guidance scale"],
        1,
        "Sums do not know an order. But each was trained as if it were alone, and where both push the same weights the sum "
        "overshoots.",
    ),
    (
        "A file holds matrices lora_down (8, 64) and lora_up (64, 8) and alpha = 4. Another program applies it without "
        "reading alpha. Its change is",
        ["half as strong as it should be", "twice as strong as it should be", "as it should be"],
        1,
        "The scale is alpha / r = 4 / 8. Without it the product is added whole. This is the most common mistake in readers "
        "of such files.",
    ),
]

PREDICTIONS = {
    "20.a": Question("A linear layer has 64 x 64 weights, that is 4,096. How many numbers has its adapter of rank 8?", 1024),
    "20.b": Question("B is zero and A is random. After the first backward pass, which gradients are zero?", "that of A",
                     ("none", "that of A", "that of B", "both")),
}  # fmt: skip


# --- 20.1


def changed(W, A, B, alpha):
    """W (out, in), A (r, in), B (out, r), alpha a number -> the weight with its change, (out, in)."""
    return W + alpha / len(A) * (B @ A)


@exercise("20.1", name="changed", solution=changed, minutes=5, difficulty=1, importance=5)
def check_changed(student):
    """Wide and tall weights, ranks below and above their sizes, alpha below and above the rank; inputs stay as they are."""
    for out, into, r, alpha in ((6, 4, 2, 2.0), (3, 7, 1, 0.5), (5, 5, 5, 20.0), (4, 6, 3, 1.0), (6, 2, 4, 8), (2, 6, 4, 3)):
        W, A, B = normal(out, into), normal(r, into, seed=1), normal(out, r, seed=2)
        mistakes = {
            "alpha is divided by the rank, the number of rows of A": lambda: W + alpha * (B @ A),
            "it is the root of the rank; that is rsLoRA": lambda: W + alpha / r**0.5 * (B @ A),
            "alpha is divided by the wrong axis: r is the number of rows of A": lambda: W + alpha / into * (B @ A),
            "only the change; the weight itself is missing": lambda: alpha / r * (B @ A),
            "alpha is not used": lambda: W + B @ A,
            "the change has the wrong sign": lambda: W - alpha / r * (B @ A),
        }  # fmt: skip
        found = called(lambda *given, alpha=alpha: student(*given, alpha), W, A, B, what="the weight")
        recognised(f"the weight {out} x {into} with rank {r}, alpha {alpha:g}", found, W + alpha / r * (B @ A), mistakes)
        keeps_float32(lambda *given, alpha=alpha: student(*given, alpha), W, A, B)
    return "the weight with its change for six sizes, ranks 1 to 5"


# --- 20.2


def conv_change(A, B):
    """A (r, in, taps, 1), B (out, r, 1, 1) -> the change of the convolution's weight, (out, in, taps, 1)."""
    return (B.flatten(1) @ A.flatten(1)).view(len(B), *A.shape[1:])


@exercise("20.2", name="conv_change", solution=conv_change, minutes=10, difficulty=2, importance=3)
def check_conv_change(student):
    """Three, one and five taps; one convolution with the change is as good as A's followed by B's."""
    for out, into, r, taps in ((4, 3, 2, 3), (2, 5, 3, 1), (3, 2, 1, 5), (3, 3, 3, 3)):
        A, B = normal(r, into, taps, 1), normal(out, r, 1, 1, seed=1)
        expected = torch.einsum("or,rikw->oikw", B[..., 0, 0], A)
        what = f"the change of a convolution with {taps} taps"
        found = called(student, A, B, what="the change")
        same_shape(what, found, expected.shape, "the shape of a weight: outputs, inputs, taps, 1")
        mistakes = {
            "the taps are in reverse order": lambda: expected.flip(2),
            "channels and taps were mixed when the product was cut: A.flatten(1) runs over inputs, then taps":
                lambda: (B.flatten(1) @ A.transpose(1, 2).flatten(1)).view(out, into, taps, 1),
            "divided by the number of taps": lambda: expected / taps,
        }  # fmt: skip
        recognised(what, found, expected, mistakes)
        keeps_float32(student, A, B)
        x = normal(1, into, 7, 2, seed=2)
        one, two = F.conv2d(x, found, padding=(taps // 2, 0)), F.conv2d(F.conv2d(x, A, padding=(taps // 2, 0)), B)
        close("the output of one convolution with the change", one, two, 1e-10, "A's taps come first, then B mixes channels")
    return "the change for one, three and five taps; one convolution with it is A's convolution, then B's"


# --- 20.3


def ranks_needed(D, share):
    """D (out, in), share above 0 and below 1 -> the least r for which a matrix of rank r can keep that share of D."""
    energy = torch.linalg.svdvals(D) ** 2
    kept = energy.cumsum(0) / energy.sum()
    return int((kept < share).sum()) + 1


def _counted(values, share, power=2, below=lambda kept, share: kept < share):
    """The rank for singular values, with one thing wrong."""
    energy = torch.tensor(values, dtype=torch.float64) ** power
    return int(below(energy.cumsum(0) / energy.sum(), share).sum()) + 1


RANK_MISTAKES = {
    "the singular values were not squared: a matrix' size is the sum of their squares":
        lambda values, share: _counted(values, share, power=1),
    "one too few: that many keep less than the share": lambda values, share: _counted(values, share) - 1,
    "one too many": lambda values, share: _counted(values, share) + 1,
    "a rank that keeps exactly the share is enough":
        lambda values, share: _counted(values, share, below=lambda kept, share: kept <= share),
    "the least singular values were counted first": lambda values, share: _counted(values[::-1], share),
}  # fmt: skip


@exercise("20.3", name="ranks_needed", solution=ranks_needed, minutes=10, difficulty=3, importance=4)
def check_ranks_needed(student):
    """Matrices whose singular values are known, wide and tall; shares between all steps, and one on a step."""
    turn = lambda n, seed: torch.linalg.qr(normal(n, n, seed=seed))[0]  # noqa: E731
    cases = [(torch.diag(torch.tensor([5.0, 4.0, 3.0], dtype=torch.float64)), [5.0, 4.0, 3.0], 0.5)]  # 25 of 50
    for out, into, values in ((5, 4, [4.0, 2.0, 1.0, 0.0]), (3, 6, [3.0, 3.0, 3.0]), (4, 4, [9.0, 0.1, 0.1, 0.1]),
                              (9, 12, [3.0, 2.9, 2.8, 2.5, 2.0, 2.0, 1.5, 1.0, 0.5])):  # fmt: skip
        middle = torch.zeros(out, into, dtype=torch.float64)
        middle[range(len(values)), range(len(values))] = torch.tensor(values, dtype=torch.float64)
        D, energy = turn(out, 1) @ middle @ turn(into, 2).T, torch.tensor(values, dtype=torch.float64) ** 2
        steps = [0.0, *(energy.cumsum(0) / energy.sum()).tolist()]
        cases += [(D, values, (low + high) / 2) for low, high in zip(steps, steps[1:]) if high - low > 1e-9]
    results = []
    for D, values, share in cases:
        given = D.clone()
        found = student(given, share)
        if not torch.equal(given, D):
            raise Failed("the matrix as it was", "it was changed", "an operation in place")
        if isinstance(found, bool) or not isinstance(found, Integral):
            raise Failed("a whole number", type(found).__name__, "int(…) of a count")
        results.append(found)
    for (D, values, share), found in zip(cases, results):
        if found != (r := _counted(values, share)):
            told = f"{r} for singular values {', '.join(f'{v:g}' for v in values)} and a share of {share:.3f}"
            same = lambda one: all(one(v, s) == n for (_, v, s), n in zip(cases, results))  # noqa: E731
            raise Failed(told, found, next((cause for cause, one in RANK_MISTAKES.items() if same(one)), ""))
    return "the least rank for shares between the steps of four matrices, wide and tall, and for one on a step"


# --- 20.B


def start(out, into, r):
    """-> A (r, in), B (out, r) of an adapter that changes nothing yet, and can learn."""
    return torch.randn(r, into) / into**0.5, torch.zeros(out, r)


@exercise("20.B", name="start", solution=start, minutes=5, difficulty=1, importance=5)
def check_start(student):
    """No change at first; ranks that differ; a gradient that is not zero; one step of it makes the error smaller."""
    for out, into, r in ((6, 4, 2), (3, 8, 1), (48, 64, 8)):
        A, B = (one.detach().double().clone().requires_grad_() for one in student(out, into, r))
        same_shape("A", A.detach(), (r, into), "rank first, then the layer's inputs")
        same_shape("B", B.detach(), (out, r), "the layer's outputs first, then the rank")
        if (change := B @ A).any():
            raise Failed("no change at first", f"{change.abs().max().item():.3g}",
                         "one of the two is to be zero" if A.any() and B.any() else "")  # fmt: skip
        W, x, y = normal(out, into), normal(into, 9, seed=1), normal(out, 9, seed=2)
        error = lambda A=A, B=B, W=W, x=x, y=y: (((W + B @ A) @ x - y) ** 2).mean()  # noqa: E731
        error().backward()
        if not (A.grad.any() or B.grad.any()):
            raise Failed("a gradient", "zero for A and for B", "if both are zero, each one's gradient is a multiple of the other")
        if (ranks := torch.linalg.matrix_rank(torch.cat([A, B.T], 1).detach()).item()) < r:
            raise Failed(f"{r} ranks of which none is made of the others", f"{ranks}",
                         "ranks that start alike have the same gradients, and stay alike")
        better = error(A - 0.01 * A.grad, B - 0.01 * B.grad)
        if not better < error():
            most = max(A.abs().max().item(), B.abs().max().item())
            raise Failed("a smaller error after a step", f"{better.item():.6f} after {error().item():.6f}",
                         f"numbers up to {most:.3g} are far too large" if most > 5 else "")  # fmt: skip
    return "nothing changes at first, every rank can learn its own, and a first step makes the error smaller"
