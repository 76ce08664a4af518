"""Checks of notebook 03, Training a tiny VQGAN: commitment, perplexity, the discriminator's warm-up, dead codes."""

import math

import torch

from minit2v.lab.course.comparing import called, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.networks import bottleneck

EQUATIONS = {
    "3.1": ("commitment loss",
            "tests/test_autoencoder.py::test_commitment_draws_vectors_to_their_codes_and_moves_no_code"),
    "3.2": ("codes as moving averages", "tests/test_autoencoder.py::test_codes_are_running_means_of_their_vectors"),
    "3.3": ("perplexity of a codebook", "tests/test_autoencoder.py::test_perplexity_counts_the_codes_in_use"),
    "3.4": ("Laplacian pyramid as a loss",
            "tests/test_autoencoder.py::test_pyramid_loss_counts_a_lost_edge_more_than_a_shifted_colour"),
    "3.5": ("hinge loss of the discriminator",
            "tests/test_autoencoder.py::test_hinge_and_adversarial_loss_of_known_scores"),
    "3.6": ("adversarial loss of the decoder",
            "tests/test_autoencoder.py::test_hinge_and_adversarial_loss_of_known_scores"),
    "3.7": ("warm-up of the adversarial term",
            "tests/test_autoencoder.py::test_the_adversarial_term_grows_from_nothing_to_its_weight"),
}  # fmt: skip

QUIZ = [
    (
        "An autoencoder is not sure in which of many places a small thing was. Which picture makes its L1 smallest?",
        ["A sharp thing in one of the places", "A soft thing in the most likely place", "The empty background"],
        2,
        "The best answer to L1 is the median of every pixel, and each pixel is background in most of the cases.",
    ),
    (
        "A codebook has 128 codes and a perplexity of 3, and every code is used at least once. What does that mean?",
        ["The codebook has collapsed", "Most vectors take few of the codes", "The perplexity was computed wrongly"],
        1,
        "Usage counts a code that is taken once like one that is taken always; perplexity does not. With a plain "
        "background in most cells, both numbers can be healthy.",
    ),
    (
        "The discriminator starts after 70 % of the training. What does it give the decoder that L1 cannot?",
        ["A higher PSNR", "A reason to choose one sharp answer", "More codes"],
        1,
        "A smear is a safe answer for L1 and an obvious fake for the discriminator. PSNR hardly moves.",
    ),
]


def commitment_loss(features, codes, beta=0.25):
    """beta times the mean squared distance of features to their codes, (n c h w) each, with no gradient for codes."""
    return beta * ((features - codes.detach()) ** 2).mean()


@exercise("3.1", name="commitment_loss", solution=commitment_loss, minutes=6, difficulty=2, importance=4)
def check_commitment_loss(student):
    """The value, then whom its gradient reaches."""
    generator = torch.Generator().manual_seed(3)
    for shape, beta in (((3, 2, 2, 4), 2.0), ((2, 4, 3, 5), 0.25), ((2, 4, 3, 5), 1.0)):
        features, codes = (torch.randn(shape, generator=generator, requires_grad=True) for _ in range(2))
        mean = ((features - codes) ** 2).mean().item()
        found = called(student, features, codes, beta, what="the loss")
        same_dtype("the loss", found, torch.float32)
        same_shape("the loss", found, (), "take the mean over everything: one number")
        cause = "beta times the mean of the squared differences"
        if math.isclose(found.item(), beta * mean * features.numel(), rel_tol=1e-4):
            cause = "the sum instead of the mean"
        close(f"the loss for beta {beta}", found, beta * mean, 1e-5, cause)
        _moves_features_only(student, features, codes, beta)
    close("the loss without beta", student(features, codes), 0.25 * mean, 1e-5, "the default is beta=0.25")
    return "the right size; it moves the features and leaves the codes alone"


def _moves_features_only(student, features, codes, beta):
    """Raise Failed unless the gradient is the features' alone, and the codes are still part of their graph."""
    given, to_features, to_codes = codes.clone(), None, None
    loss = student(features, given, beta)
    if not given.requires_grad:
        raise Failed("the codes as they were", "they were detached", "detach_() changes its tensor, detach() makes another")
    if loss.requires_grad:
        to_features, to_codes = torch.autograd.grad(loss, (features, codes), allow_unused=True)
    if to_features is None:
        cause = "nothing but the codes is detached" if to_codes is None else "detach the codes, not the features"
        raise Failed("a gradient for the features", "none", cause)
    if to_codes is not None and to_codes.abs().max() > 0:
        raise Failed("no gradient for the codes", "one", "codes.detach(): they follow by their moving average")
    expected = 2 * beta * (features - codes).detach() / features.numel()
    close("the gradient", to_features, expected, 1e-6, "only one detach is needed, around the codes")


def perplexity(share):
    """exp of the entropy of shares (k,), which add up to 1: between 1 and k."""
    used = share[share > 0]
    return (-(used * used.log()).sum()).exp()


@exercise("3.2", name="perplexity", solution=perplexity, minutes=6, difficulty=2, importance=4)
def check_perplexity(student):
    """Shares whose answer is known, one with zeros, then random ones against the library."""
    uniform = student(torch.full((64,), 1 / 64))
    same_shape("perplexity of 64 codes used alike", uniform, ())
    together = "natural logarithm and exp belong together"
    mistakes = {math.log(64): "this is the entropy; exp of it is missing", 1 / 64: "a minus sign is missing",
                math.exp(6): together, 2 ** math.log(64): together, math.exp(math.log10(64)): together}  # fmt: skip
    cause = "exp of minus the sum of p log p"
    for value, mistake in mistakes.items():
        if math.isclose(float(uniform), value, rel_tol=1e-3):
            cause = mistake
    close("perplexity of 64 codes used alike", uniform, 64.0, 1e-3, cause)
    found = student(torch.tensor([0.5, 0.5, 0.0, 0.0]))
    if not math.isfinite(float(found)):
        raise Failed("2 for the shares [0.5, 0.5, 0, 0]", f"{float(found)}", "0 log 0 counts as 0; leave zeros out")
    close("perplexity of [0.5, 0.5, 0, 0]", found, 2.0, 1e-4, "unused codes add nothing to the entropy")
    close("perplexity of one code", student(torch.eye(8)[3]), 1.0, 1e-4, "the entropy of a certainty is 0")
    generator = torch.Generator().manual_seed(3)
    for k in (3, 128, 50, 7, 8):
        share = torch.rand(k, generator=generator) ** 4
        share[1 :: 4 if k == 50 else k] = 0
        share /= share.sum()
        given, expected = share.clone(), bottleneck.perplexity(share)
        close(f"perplexity of {k} random shares", student(given), expected, 2e-5 * k, "exp of minus the sum of p log p")
        if not torch.equal(given, share):
            raise Failed("the shares as they were", "they were changed", "an operation in place, such as share += …")
    return "between 1 and k, zeros and all"


def warm_up(progress, start=0.7, ramp=0.1):
    """Factor on the adversarial term: 0 until `start`, then rising in a straight line to 1 at start + ramp."""
    return min(1.0, max(0.0, (progress - start) / ramp))


@exercise("3.3", name="warm_up", solution=warm_up, minutes=5, difficulty=1, importance=3)
def check_warm_up(student):
    """At the corners and between them, for four settings, one without a pause and one whose ramp outlasts the training."""
    nothing = "nothing before `start`: a negative factor would reward what the discriminator dislikes"
    straight = "a straight line: the share of the ramp that is done"
    done = "1 from the end of the ramp on"
    for start, ramp in ((0.7, 0.1), (0.2, 0.5), (0.0, 0.3), (0.6, 0.8)):
        places = {
            0.0: (0.0, nothing),
            0.9 * start: (0.0, nothing),
            start: (0.0, "the rise begins at `start`, from 0"),
            start + ramp / 300: (1 / 300, straight),
            start + 0.25 * ramp: (0.25, straight),
            start + 0.123 * ramp: (0.123, straight),
            start + 0.6 * ramp: (0.6, straight),
            start + 0.875 * ramp: (0.875, straight),
            start + ramp: (1.0, done),
            start + 1.25 * ramp: (1.0, done),
            1.0: (min(1.0, (1 - start) / ramp), done if start + ramp < 1 else straight),
        }
        for progress, (expected, cause) in places.items():
            if progress > 1:
                continue
            close(f"warm_up({progress:g}, {start}, {ramp})", student(progress, start, ramp), expected, 1e-6, cause)
    for progress, expected in ((0.35, 0.0), (0.725, 0.25), (0.8, 1.0)):
        close(f"warm_up({progress})", student(progress), expected, 1e-6, "the defaults are start=0.7 and ramp=0.1")
    return "0, a straight rise, 1, for two settings"


def update(codes, usage, sums, vectors, generator):
    """Codes (k c), usage (k,), sums (k c) after a batch of vectors (m c); dead codes restart on vectors of it."""
    k = len(codes)
    index = torch.cdist(vectors, codes).argmin(dim=1)
    share = torch.bincount(index, minlength=k) / len(vectors)
    usage = 0.99 * usage + 0.01 * share
    sums = 0.99 * sums + 0.01 * torch.zeros_like(sums).index_add(0, index, vectors) / len(vectors)
    dead = usage * k < 0.01
    picks = torch.randint(len(vectors), (int(dead.sum()),), generator=generator)
    usage[dead], sums[dead] = 1 / k, vectors[picks] / k
    return sums / usage[:, None], usage, sums


@exercise("3.B", name="update", solution=update, minutes=12, difficulty=4, importance=5)
def check_update(student):
    """One step for living and dead codes, then vectors in eight far clusters, which later move away."""
    for k, c in ((20, 3), (30, 3), (20_000, 2)):
        _one_step(student, k, c)
    generator, k = torch.Generator().manual_seed(3), 32
    codes = (2 * torch.rand(k, 2, generator=generator) - 1) / k
    state = codes, torch.full((k,), 1 / k), codes / k
    angles = torch.arange(8) * math.pi / 4
    centres = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)
    for place, moved in (("where the features begin", 0.0), ("after the features have moved", 20.0)):
        for _ in range(700):  # a code that nobody chooses is dead after 460
            vectors = (centres + moved).repeat(16, 1) + 0.1 * torch.randn(128, 2, generator=generator)
            state = _three(student(*state, vectors, generator), k, 2)
        index = torch.cdist(vectors, state[0]).argmin(dim=1)
        found = bottleneck.perplexity(torch.bincount(index, minlength=k) / len(vectors)).item()
        if not found > 12:
            cause = "a dead code must be put on one of the vectors, each on another: sums / usage is its place"
            if moved:
                cause = "a good start is not enough: look for dead codes at every step, by their running usage"
            raise Failed(f"a perplexity above 12 of 32 {place}", f"{found:.1f}", cause)
    return "dead codes come back, also when the features move away, and living ones stay"


def _three(found, k, c):
    """What an update returns. Raises Failed for something else than codes, usage and sums."""
    shapes = type(found).__name__
    if isinstance(found, (tuple, list)):
        shapes = [tuple(one.shape) if torch.is_tensor(one) else type(one).__name__ for one in found]
    if shapes != [(k, c), (k,), (k, c)]:
        raise Failed("codes (k c), usage (k,) and sums (k c)", shapes, "return all three, in order")
    return found


def _one_step(student, k, c):
    """Of k codes the first ten are in use, the second ten are rare, and the others dead. The vectors take a few of them."""
    generator, drawn = torch.Generator().manual_seed(k), torch.Generator()
    codes, ratio = 9 * torch.randn(k, c, generator=generator), torch.full((k,), 1e-5)  # usage in units of a fair share
    ratio[:10], ratio[10:20] = 2.7, 0.3
    before = codes, ratio / k, codes * ratio[:, None] / k
    vectors = codes[:5].repeat(40, 1) + 0.01 * torch.randn(200, c, generator=generator)
    given, results = [one.clone() for one in (*before, vectors)], []
    for seed in (0, 1, 2):  # of PyTorch's own random numbers, which may not matter
        if seed < 2:
            drawn.manual_seed(5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(_three(student(*given, drawn), k, c))
        if not (torch.equal(given[0], codes) and torch.equal(given[3], vectors)):
            raise Failed("the codes and vectors of before as they were", "they were changed", "an operation in place")
        given = [one.clone() for one in (*before, vectors)]
    (places, usage, sums), dead = results[0], torch.arange(k) >= 20
    _living(results[0], update(*before, vectors, torch.Generator()), k, vectors)
    if not dead.any():
        return
    exact = "donot_use_mm_for_euclid_dist"  # the vectors of a cluster are closer to each other than the error of the other way
    distance, picks = torch.cdist(places[dead].float(), vectors, compute_mode=exact).min(dim=1)
    if not distance.max() < 0.1:
        cause = "a dead code is put on one of the vectors of the batch; sums / usage is its place"
        raise Failed("dead codes on vectors of the batch", f"one at a distance of {distance.max():.2g}", cause)
    if (many := len(picks.unique())) < (200 if k > 200 else 5):
        raise Failed("dead codes on vectors from all over the batch", f"{len(picks)} of them on {many} of 200",
                     "each vector must have its chance")  # fmt: skip
    if torch.equal(places, results[2][0]):
        raise Failed("other vectors at the next call", "the same", "draw random numbers from `generator`, as it comes")
    share = usage[dead] * k
    if not (share.min() > 0.02 and share.max() < 2):
        cause = "more than a fair share is no share" if share.max() > 1 else "with so little a code is soon dead again"
        found = f"{share.min():.2g} to {share.max():.2g} times that"
        raise Failed("a usage near 1 / k for codes that begin again", found, cause)
    close("sums of codes that begin again", sums[dead], places[dead] * usage[dead, None], 1e-4, "a code is sums / usage")
    for name, one, other in zip(("codes", "usage", "sums"), *results[:2]):
        close(f"{name} drawn again from the same generator", one, other, 1e-6, "draw random numbers from `generator`")
        same_dtype(name, one, torch.float32)


def _living(found, expected, k, vectors):
    """Raise Failed unless codes in use, and those that only this batch has missed, are what the given lines make of them."""
    missed, wanted = found[0][5:20], expected[0][5:20]  # by the vectors
    moved = missed[(abs(missed - wanted) > 1e-4).any(dim=1)]
    restarted = len(moved) > 0 and bool((torch.cdist(moved.float(), vectors).min(dim=1).values < 0.1).all())
    causes = {
        "codes": "dead is a code whose running usage * k is below a hundredth, and no other begins again" if restarted else "",
        "usage": "the running share of a living code: 99 % of the old and 1 % of the new",
        "sums": "the running sum of a living code: 99 % of the old and 1 % of the new",
    }
    for (name, cause), one, other in zip(causes.items(), found, expected):
        close(f"{name} of living codes", one[:20], other[:20], 1e-4 if name == "codes" else 1e-4 / k, cause)
