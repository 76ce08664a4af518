"""Checks of notebook 03, Training a tiny VQGAN: commitment, perplexity, a step with a critic, its warm-up, dead codes."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from minit2v.lab.course.comparing import called, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.networks import bottleneck

EQUATIONS = {
    "3.1": ("Laplacian pyramid as a loss",
            "tests/test_autoencoder.py::test_pyramid_loss_counts_a_lost_edge_more_than_a_shifted_colour"),
    "3.2": ("commitment loss",
            "tests/test_autoencoder.py::test_commitment_draws_vectors_to_their_codes_and_moves_no_code"),
    "3.3": ("codes as moving averages", "tests/test_autoencoder.py::test_codes_are_running_means_of_their_vectors"),
    "3.4": ("perplexity of a codebook", "tests/test_autoencoder.py::test_perplexity_counts_the_codes_in_use"),
    "3.5": ("hinge loss of the discriminator",
            "tests/test_autoencoder.py::test_hinge_and_adversarial_loss_of_known_scores"),
    "3.6": ("adversarial loss of the decoder",
            "tests/test_autoencoder.py::test_hinge_and_adversarial_loss_of_known_scores"),
    "3.7": ("warm-up of the adversarial term",
            "tests/test_autoencoder.py::test_the_adversarial_term_grows_from_nothing_to_its_weight"),
}  # fmt: skip

QUIZ = [
    (
        "A small thing may be anywhere in the frame, each place as likely. Which picture makes the mean L1 smallest?",
        ["A sharp thing in one of the places", "A soft thing in the middle", "The empty background"],
        2,
        "The best answer to L1 is the median of every pixel, and each pixel is background in most of the cases.",
    ),
    (
        "A codebook has 128 codes and a perplexity of 3, and every code is used at least once. What does that mean?",
        ["125 codes are never used", "Most vectors take few of the codes", "The perplexity was computed wrongly"],
        1,
        "Usage counts a code that is taken once like one that is taken always; perplexity does not. With a plain "
        "background in most cells, both numbers can be healthy.",
    ),
    (
        "A code says in which four columns a thin line is, and not in which of them. What does a critic give the decoder "
        "that L1 cannot?",
        ["A smaller error", "A reason to choose one of the four places", "The knowledge in which column the line was"],
        1,
        "L1 is smallest without any line, and the critic calls a frame without a line a fake. Which column it was is not in "
        "the code, so a line in one of them is a guess, and on average the error is larger.",
    ),
]

PREDICTIONS = {
    "3.a": Question("A frame has 32 x 32 x 3 bytes. Its latent is 8 x 8 codes of 7 bits. How many times fewer bits is that?",
                    55, None, 2),
    "3.b": Question("The ring is in one of 25 neighbouring places, each as likely as the others, and you pay the mean L1 over "
                    "all of them. Which of these pictures is the cheapest?", "a small bright blob",
                    ["a sharp ring in the middle place", "a soft smear, the mean of all rings", "a small bright blob",
                     "the empty background"]),
    "3.c": Question("A decoder of four pictures is trained with L1 alone on lines that are one pixel wide. A code tells it the "
                    "four columns in which the line is, not which of the four. What will its pictures show?", "no line at all",
                    ["a sharp line in one of the columns", "a grey band over four columns", "no line at all"]),
    "3.d": Question("After 900 of 1,500 steps, whose reconstructions of unseen frames have the higher PSNR?",
                    "the collapsed one's",
                    ["the healthy one's, by far", "the healthy one's, by a little", "the collapsed one's"]),
}  # fmt: skip


def _telling(mistakes, expected, apart=1e-4):
    """The mistakes (functions without arguments) that give something else than what is expected."""
    def tells(wrong):
        value = wrong()
        return value.shape != expected.shape or not bool(((value - expected).abs() <= apart).all())

    return {cause: wrong for cause, wrong in mistakes.items() if tells(wrong)}


def _compared(what, found, expected, mistakes, precise):
    """`recognised`, with no mistake that gives the right numbers here."""
    right = found.shape == expected.shape and bool(((found - expected).abs() <= precise).all())
    recognised(what, found, expected, {} if right else _telling(mistakes, expected), precise)


def commitment_loss(features, codes, beta=0.25):
    """beta times the mean squared distance of features to their codes, (n c h w) each, with no gradient for codes."""
    return beta * ((features - codes.detach()) ** 2).mean()


LOSS_MISTAKES = {  # cause -> (difference, beta) -> what the mistake gives
    "the sum over all numbers, where a mean was asked for": lambda d, beta: beta * (d**2).sum(),
    "the squares were added up over the channels, where the mean runs over all four axes": lambda d, beta: (
        beta * (d**2).sum(1).mean()),
    "the squares were added up over each item, where the mean runs over all four axes": lambda d, beta: (
        beta * (d**2).flatten(1).sum(1).mean()),
    "the differences were not squared": lambda d, beta: beta * d.mean(),
    "the size of the differences, not their square": lambda d, beta: beta * d.abs().mean(),
    "a root was taken; the squares are all that is needed": lambda d, beta: beta * (d**2).mean().sqrt(),
    "the lengths of the vectors, not their squares": lambda d, beta: beta * d.norm(dim=1).mean(),
    "the mean was squared; the squares come first": lambda d, beta: beta * d.mean() ** 2,
    "beta is missing": lambda d, beta: (d**2).mean(),
    "beta was squared as well": lambda d, beta: beta**2 * (d**2).mean(),
    "beta is 0.25 only where it is not given": lambda d, beta: 0.25 * (d**2).mean(),
    "a factor 1/2 too many": lambda d, beta: beta * (d**2).mean() / 2,
    "the sign is wrong: this loss rewards distance": lambda d, beta: -beta * (d**2).mean(),
    "1 - beta in the place of beta": lambda d, beta: (1 - beta) * (d**2).mean(),
    "divided by beta": lambda d, beta: (d**2).mean() / max(beta, 1e-9),
    "1 + beta in the place of beta": lambda d, beta: (1 + beta) * (d**2).mean(),
    "half precision on the way": lambda d, beta: beta * (d.half() ** 2).mean().to(d),
    "the largest square, not their mean": lambda d, beta: beta * (d**2).max(),
    "the median of the squares, not their mean": lambda d, beta: beta * (d**2).median(),
}


@exercise("3.1", name="commitment_loss", solution=commitment_loss, minutes=6, difficulty=2, importance=4)
def check_commitment_loss(student):
    """The value for several sizes, strengths and dtypes, then whom its gradient reaches."""
    generator = torch.Generator().manual_seed(3)
    for shape, beta, size, dtype in (((3, 2, 2, 4), 1.7, 1.0, torch.float32), ((2, 4, 3, 5), 0.25, 1.0, torch.float64),
                                     ((2, 4, 3, 5), 0.7, 30.0, torch.float64), ((1, 5, 1, 2), 0.0, 1.0, torch.float32),
                                     ((7, 1, 4, 1), 1.0, 0.02, torch.float64)):  # fmt: skip
        features, codes = (size * torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
        features, codes = features.requires_grad_(), codes.requires_grad_()
        found = called(student, features, codes, beta, what="the loss")
        difference = (features - codes).detach()
        expected = beta * (difference**2).mean()
        mistakes = {cause: (lambda one=one: one(difference, beta)) for cause, one in LOSS_MISTAKES.items()}
        precise = 1e-6 if dtype == torch.float32 else 1e-12 * size**2
        _compared(f"the loss for tensors {shape} and beta {beta}", found, expected, mistakes, precise)
        same_dtype(f"the loss of tensors of {dtype}", found, dtype)
        _moves_features_only(student, features, codes, beta)
    found = called(lambda e, c: student(e, c), features, codes, what="the loss")
    close("the loss without beta", found, 0.25 * (difference**2).mean(), 1e-6)
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
        swapped = to_codes is not None and to_codes.abs().max() > 0
        cause = "the gradient reaches the codes in their place" if swapped else "nothing is left for it to flow through"
        raise Failed("a gradient for the features", "none", cause)
    if to_codes is not None and to_codes.abs().max() > 0:
        raise Failed("no gradient for the codes", f"one of up to {to_codes.abs().max().item():.2g}")
    expected = 2 * beta * (features - codes).detach() / features.numel()
    close("the gradient of the features", to_features, expected, 1e-6)


def perplexity(share):
    """exp of the entropy of shares (k,), which add up to 1: between 1 and k."""
    used = share[share > 0]
    return (-(used * used.log()).sum()).exp()


def _entropy(p):
    return torch.special.entr(p).sum()


PERPLEXITY_MISTAKES = {
    "exp is missing: this is the entropy": _entropy,
    "the sign of the entropy is wrong": lambda p: (-_entropy(p)).exp(),
    "the sum runs over log p alone": lambda p: (-p[p > 0].log().sum()).exp(),
    "the mean over the codes, where a sum was asked for": lambda p: torch.special.entr(p).mean().exp(),
    "exp was taken of each summand, before the sum": lambda p: torch.special.entr(p).exp().sum(),
    "a logarithm to base 2 and exp do not belong together": lambda p: (_entropy(p) / math.log(2)).exp(),
    "a natural logarithm and a power of 2 do not belong together": lambda p: 2 ** _entropy(p),
    "a logarithm to base 10 and exp do not belong together": lambda p: (_entropy(p) / math.log(10)).exp(),
    "the number of codes that are chosen at all": lambda p: (p > 0).sum().float(),
    "the number of all codes": lambda p: torch.tensor(float(len(p))),
    "one over the sum of squares: another effective number": lambda p: 1 / (p**2).sum(),
    "one over the largest share": lambda p: 1 / p.max(),
    "the zeros were counted as small shares": lambda p: (-(p * 0 + p.clamp(min=1e-3) * p.clamp(min=1e-3).log()).sum()).exp(),
    "small shares were left out with the zeros": lambda p: _entropy(torch.where(p > 1e-3, p, 0)).exp(),
}


@exercise("3.2", name="perplexity", solution=perplexity, minutes=6, difficulty=2, importance=4)
def check_perplexity(student):
    """Shares whose answer is known, one with zeros, then random ones, few and many, and tiny ones."""
    generator = torch.Generator().manual_seed(3)
    cases = [(f"the shares {shares}", torch.tensor(shares)) for shares in ([0.6, 0.3, 0.0, 0.1], [0.5, 0.5, 0.0, 0.0])]
    cases += [("64 codes used alike", torch.full((64,), 1 / 64)), ("one code that takes everything", torch.eye(8)[3]),
              ("a codebook of one code", torch.ones(1))]  # fmt: skip
    for k in (3, 128, 50, 7, 8):
        share = torch.rand(k, generator=generator) ** 4
        share[1 :: 4 if k == 50 else k] = 0
        cases.append((f"{k} random shares", share / share.sum()))
    cases.append(("16,384 codes used alike", torch.full((16384,), 1 / 16384)))
    rare = torch.full((1001,), 1e-6, dtype=torch.float64)
    rare[0] = 1 - 1e-3
    cases.append(("one common and a thousand rare codes", rare))
    for what, share in cases:
        given, expected = share.clone(), bottleneck.perplexity(share.double())
        found = student(given)
        same_shape(f"the perplexity of {what}", found, ())
        if not math.isfinite(float(found)):
            cause = "0 times the logarithm of 0" if (share == 0).any() else ""
            raise Failed(f"{expected.item():.4g} for {what}", f"{float(found)}", cause)
        if not torch.equal(given, share):
            raise Failed("the shares as they were", "they were changed", "an operation in place, such as share += …")
        wrong = {cause: (lambda one=one: one(share.double()).double()) for cause, one in PERPLEXITY_MISTAKES.items()}
        precise = 2e-5 * max(1.0, expected.item()) * (10 if len(share) > 10_000 else 1)
        _compared(f"the perplexity of {what}", torch.as_tensor(found).double(), expected, wrong, precise)
    return "between 1 and k, zeros and all"


def adversarial_step(decoder, critic, optimizers, codes, frames, weight):
    """One step of both networks from what they were before it: the loss of the decoder and that of the critic, floats."""
    of_decoder, of_critic = optimizers
    made = decoder(codes)
    loss = (frames - made).abs().mean() - weight * critic(made).mean()
    of_decoder.zero_grad()
    loss.backward()
    of_decoder.step()
    hinge = F.relu(1 - critic(frames)).mean() + F.relu(1 + critic(made.detach())).mean()
    of_critic.zero_grad()  # of what the decoder's turn has left there
    hinge.backward()
    of_critic.step()
    return loss.item(), hinge.item()


class _Decoder(nn.Module):
    """Codes (n,) -> frames (n c h w), whose numbers share weights, so that every code has a say in every picture."""

    def __init__(self, k, c, h, w):
        super().__init__()
        self.table, self.out = nn.Embedding(k, 5), nn.Linear(5, c * h * w)
        self.size = c, h, w

    def forward(self, codes):
        return self.out(self.table(codes)).unflatten(1, self.size)


def _networks(k, c, h, w, dtype, rates=(0.3, 0.05)):
    """A decoder, a critic and an optimizer for each, the same each time; their gradients hold numbers of a step before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(10 * h + w)
        decoder = _Decoder(k, c, h, w).to(dtype)
        critic = nn.Sequential(nn.Conv2d(c, 4, (2, 3)), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 1)).to(dtype)
        with torch.no_grad():
            critic[2].weight *= 5  # so that some scores are beyond the marks of the hinge and others are not
        for p in (*decoder.parameters(), *critic.parameters()):
            p.grad = torch.randn_like(p)
    optimizers = [torch.optim.SGD(net.parameters(), lr=rate, momentum=0.5) for net, rate in zip((decoder, critic), rates)]
    for one in optimizers:
        one.step()  # so that they remember something, and others in their place would not
    return decoder, critic, optimizers


def _weights(network):
    return torch.cat([p.detach().flatten().double() for p in network.parameters()])


def _stepped(decoder, critic, optimizers, codes, frames, weight, *, near=lambda d: d.abs().mean(), mean=torch.mean,
             adversarial=lambda s: -s.mean(), real=lambda s: F.relu(1 - s), fake=lambda s: F.relu(1 + s),
             of_near=lambda w: 1.0, of_adversarial=lambda w: w, of_hinge=lambda w: 1.0, first="decoder", again=False,
             cleared=(True, True), moves=(True, True), rewarded=0.0, leaked=False):  # fmt: skip
    """adversarial_step with one thing done otherwise: what the two networks' weights are afterwards."""
    made = decoder(codes)

    def decoders_turn():
        loss = of_near(weight) * near(frames - made) + of_adversarial(weight) * adversarial(critic(made))
        if leaked:
            loss = loss + F.relu(1 + critic(made)).mean()
        if cleared[0]:
            optimizers[0].zero_grad()
        loss.backward()
        if moves[0]:
            optimizers[0].step()

    def critics_turn():
        shown = (decoder(codes) if again else made).detach()
        hinge = of_hinge(weight) * (mean(real(critic(frames))) + mean(fake(critic(shown))))
        hinge = hinge - rewarded * weight * critic(shown).mean()
        if cleared[1]:
            optimizers[1].zero_grad()
        hinge.backward()
        if moves[1]:
            optimizers[1].step()

    for turn in (decoders_turn, critics_turn) if first == "decoder" else (critics_turn, decoders_turn):
        turn()
    return _weights(decoder), _weights(critic)


def _nothing(scores):
    return 0 * scores


DECODER_MISTAKES = {
    "it did not move": {"moves": (False, True)},
    "the gradient of an earlier step was still there": {"cleared": (False, True)},
    "the adversarial term is missing": {"adversarial": lambda s: 0 * s.mean()},
    "the sign of the adversarial term: it was rewarded for low scores": {"adversarial": lambda s: s.mean()},
    "it got the critic's term for reconstructions; it wants high scores": {"adversarial": lambda s: F.relu(1 + s).mean()},
    "its adversarial term has a hinge; only the critic's terms have one": {"adversarial": lambda s: F.relu(1 - s).mean()},
    "the scores were added up, where their mean was asked for": {"adversarial": lambda s: -s.sum()},
    "the L1 term is missing": {"of_near": lambda w: 0.0},
    "the weight is missing: the adversarial term counts in full": {"of_adversarial": lambda w: 1.0},
    "the weight stands at L1": {"of_near": lambda w: w, "of_adversarial": lambda w: 1.0},
    "the weight stands at both of its terms": {"of_near": lambda w: w},
    "the differences were squared; L1 is the mean of their sizes": {"near": lambda d: (d**2).mean()},
    "the differences were added up, where their mean was asked for": {"near": lambda d: d.abs().sum()},
    "the differences have lost their size: abs is missing": {"near": torch.mean},
    "the critic's loss reached it: the reconstructions were not detached": {"leaked": True},
    "the critic moved first, and the decoder was judged by another critic": {"first": "critic"},
}
CRITIC_MISTAKES = {
    "it did not move": {"moves": (True, False)},
    "the decoder's turn had left a gradient there, which was not cleared": {"cleared": (True, False)},
    "frames and reconstructions are exchanged": {"real": lambda s: F.relu(1 + s), "fake": lambda s: F.relu(1 - s)},
    "the hinge is missing: scores beyond the marks still count": {"real": lambda s: 1 - s, "fake": lambda s: 1 + s},
    "it learnt from frames alone": {"fake": _nothing},
    "it learnt from reconstructions alone": {"real": _nothing},
    "half of the sum; both terms count whole": {"of_hinge": lambda w: 0.5},
    "the weight belongs to the decoder's term alone": {"of_hinge": lambda w: w},
    "the marks are at 0; they are at 1 and -1": {"real": lambda s: F.relu(-s), "fake": F.relu},
    "the two terms have been added up over the scores, where their means were asked for": {"mean": torch.sum},
    "it was shown pictures that the decoder made after its own step": {"again": True},
    "it was rewarded for the decoder's success as well": {"rewarded": 1.0},
    "binary cross-entropy in the place of the hinge": {"real": lambda s: F.softplus(-s), "fake": F.softplus},
}


@exercise("3.3", name="adversarial_step", solution=adversarial_step, minutes=20, difficulty=4, importance=5)
def check_adversarial_step(student):
    """Three steps in a row for several sizes and weights, one of them 0; each network's weights after each step."""
    for k, c, h, w, n, weight, dtype in ((3, 1, 3, 5, 4, 0.7, torch.float64), (4, 2, 4, 3, 6, 2.0, torch.float64),
                                         (2, 3, 2, 4, 3, 0.0, torch.float64), (5, 1, 5, 6, 7, 0.1, torch.float32)):  # fmt: skip
        decoder, critic, optimizers = _networks(k, c, h, w, dtype)
        frames = normal(n, c, h, w, seed=n).to(dtype)
        codes = torch.arange(n) % k
        for step in range(3):
            before = _copied(decoder, critic, optimizers)
            try:
                found = _called_step(student, decoder, critic, optimizers, codes, frames, weight)
            except RuntimeError as error:
                _names_an_undetached_picture(error, student, before, codes, frames, weight)
                raise
            right = _copied(*before)
            values = adversarial_step(*right, codes, frames, weight)
            told = f"step {step + 1} with weight {weight}"
            precise = 1e-10 if dtype == torch.float64 else 1e-5
            for i, (name, mistakes) in enumerate((("decoder", DECODER_MISTAKES), ("critic", CRITIC_MISTAKES))):
                wrong = {cause: (lambda one=one: _stepped(*_copied(*before), codes, frames, weight, **one)[i])
                         for cause, one in mistakes.items()}  # fmt: skip
                wrong = {EXCHANGED: lambda i=i: _by_exchanged(before, codes, frames, weight, decoder, critic)[i]} | wrong
                if name == "critic" and not weight:
                    wrong = {"with weight 0 the critic learns all the same": wrong["it did not move"]} | wrong
                mine, library = _weights((decoder, critic)[i]), _weights(right[i])
                _compared(f"the {name}'s weights after {told}", mine, library, wrong, precise)
            _losses(found, values, told, precise)
    return "three steps of both networks, each with the gradient of its own loss, and with a weight of 0 as well"


EXCHANGED = "the two optimizers are exchanged: the decoder's comes first"
UNDETACHED = "in the critic's turn the pictures are not detached, so its gradient runs back into the decoder"


def _by_exchanged(before, codes, frames, weight, decoder, critic):
    """What both networks are after a step with the optimizers exchanged, or nothing if they are not what was found."""
    one, other, optimizers = _copied(*before)
    swapped = _stepped(one, other, optimizers[::-1], codes, frames, weight)
    same = all(torch.allclose(mine, _weights(network), rtol=0, atol=1e-5) for mine, network in zip(swapped, (decoder, critic)))
    return swapped if same else (torch.empty(0), torch.empty(0))


def _names_an_undetached_picture(error, student, before, codes, frames, weight):
    """Raise Failed if the student's step is right as soon as what one call of the critic is shown is detached."""
    right = _copied(*before)
    adversarial_step(*right, codes, frames, weight)
    for number in range(4):
        networks, calls = _copied(*before), []

        def detached(critic, shown, number=number, calls=calls):
            calls.append(len(shown))
            return tuple(one.detach() for one in shown) if len(calls) == number + 1 else shown

        hook = networks[1].register_forward_pre_hook(detached)
        try:
            student(*networks, codes.clone(), frames.clone(), weight)
        except Exception:  # the student's code may raise anything
            continue
        finally:
            hook.remove()
        if all(torch.allclose(_weights(one), _weights(other), rtol=0, atol=1e-5) for one, other in zip(networks[:2], right)):
            found = f"{type(error).__name__}: {str(error).split('. ')[0].splitlines()[0]}"
            raise Failed("a step of both networks", found, UNDETACHED) from None


def _copied(decoder, critic, optimizers):
    """The same networks, gradients and optimizers once more, none of it shared with the first ones."""
    networks = [copy.deepcopy(network) for network in (decoder, critic)]
    for new, old in zip(networks, (decoder, critic)):
        for p, q in zip(new.parameters(), old.parameters()):
            p.grad = None if q.grad is None else q.grad.clone()  # deepcopy leaves gradients behind
    fresh = [torch.optim.SGD(network.parameters(), lr=1.0) for network in networks]
    for new, old in zip(fresh, optimizers):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    return *networks, fresh


def _called_step(student, decoder, critic, optimizers, codes, frames, weight):
    """What a step returns. Raises Failed where it changes its inputs, or leaves a network otherwise than it was."""
    given = codes.clone(), frames.clone()
    found = student(decoder, critic, optimizers, *given, weight)
    if not (torch.equal(given[0], codes) and torch.equal(given[1], frames)):
        raise Failed("codes and frames as they were", "they were changed", "an operation in place")
    for name, network in (("decoder", decoder), ("critic", critic)):
        if frozen := sum(not p.requires_grad for p in network.parameters()):
            raise Failed(f"a {name} that can learn after the step", f"{frozen} of its tensors without requires_grad")
        if not network.training:
            raise Failed(f"a {name} in training mode", "in eval mode")
    return found


def _losses(found, expected, told, precise):
    """Raise Failed unless a step returns both losses, as numbers of Python."""
    kinds = [type(one).__name__ for one in found] if isinstance(found, (tuple, list)) else type(found).__name__
    if kinds != ["float", "float"]:
        kept = "a tensor keeps alive all that it was computed from; .item() gives the number"
        raise Failed("two floats, the decoder's loss and the critic's", kinds, kept if "Tensor" in kinds else "")
    if all(abs(one - other) <= precise for one, other in zip(found, reversed(expected))):
        raise Failed(f"the decoder's loss, then the critic's, of {told}", "they are exchanged")
    for name, one, other in zip(("decoder", "critic"), found, expected):
        close(f"the {name}'s loss of {told}", one, other, precise)


def warm_up(progress, start=0.7, ramp=0.1):
    """Factor on the adversarial term: 0 until `start`, then rising in a straight line to 1 at start + ramp."""
    return min(1.0, max(0.0, (progress - start) / ramp))


def _bounded(u):
    return min(1.0, max(0.0, u))


WARM_UP_MISTAKES = {
    "before `start` it is negative, which would reward what the critic dislikes": lambda p, s, r: min(1.0, (p - s) / r),
    "beyond the end of the ramp it goes on rising": lambda p, s, r: max(0.0, (p - s) / r),
    "it is bounded neither below nor above": lambda p, s, r: (p - s) / r,
    "`ramp` was taken for the place where the rise ends; it is its length": lambda p, s, r: _bounded((p - s) / (r - s)),
    "the rise lasts until the end of the training; `ramp` is its length": lambda p, s, r: _bounded((p - s) / (1 - s)),
    "it rises from the beginning of the training on": lambda p, s, r: _bounded(p / (s + r)),
    "it begins one ramp too early": lambda p, s, r: _bounded((p - s + r) / r),
    "it jumps to 1 at `start`": lambda p, s, r: float(p >= s),
    "it jumps to 1 at the end of the ramp": lambda p, s, r: float(p >= s + r),
    "it falls in the place of rising": lambda p, s, r: 1 - _bounded((p - s) / r),
    "the rise is bent, a smooth step; it is a straight line": lambda p, s, r: _bounded((p - s) / r) ** 2 * (
        3 - 2 * _bounded((p - s) / r)),
    "the rise is bent, a cosine; it is a straight line": lambda p, s, r: (1 - math.cos(math.pi * _bounded((p - s) / r))) / 2,
    "the rise is bent, a square; it is a straight line": lambda p, s, r: _bounded((p - s) / r) ** 2,
    "start and ramp are those of the defaults, not those that were given": lambda p, s, r: warm_up(p),
    "start is 0.7, not the one that was given": lambda p, s, r: warm_up(p, 0.7, r),
    "ramp is 0.1, not the one that was given": lambda p, s, r: warm_up(p, s),
}


@exercise("3.4", name="warm_up", solution=warm_up, minutes=5, difficulty=1, importance=3)
def check_warm_up(student):
    """At the corners and between them: a start at 0, ramps that outlast the training, and a start that never comes."""
    settings = ((0.7, 0.1), (0.2, 0.5), (0.0, 0.3), (0.6, 0.8), (0.25, 1.5), (2.0, 0.1), (0.95, 0.01))
    for start, ramp in settings:
        shares = (0.0, 1 / 300, 0.123, 0.25, 0.6, 0.875, 1.0, 1.25)
        places = [0.0, 0.9 * start, *(start + share * ramp for share in shares), 1.0, 0.15, 0.45, 0.75, 0.85, 0.93]
        for progress in (place for place in places if place <= 1):
            wanted = warm_up(progress, start, ramp)
            found = student(progress, start, ramp)
            what = f"warm_up({progress:g}, {start}, {ramp})"
            same_shape(what, found, ())
            cause = ""
            if not (isinstance(found, (str, bytes)) or abs(float(found) - wanted) <= 1e-6):
                cause = _which(float(found), places, start, ramp, student)
            close(what, found, wanted, 1e-6, cause)
    for progress, expected in ((0.35, 0.0), (0.725, 0.25), (0.8, 1.0)):
        close(f"warm_up({progress}) with the defaults", student(progress), expected, 1e-6)
    return f"0, a straight rise, 1, for {len(settings)} settings"


def _which(found, places, start, ramp, student):
    """The mistake that gives what is found at all places of a setting, or no text."""
    values = [(place, float(student(place, start, ramp))) for place in places if place <= 1]

    def gives(one):
        try:
            return all(math.isclose(one(place, start, ramp), value, abs_tol=1e-6) for place, value in values)
        except (ZeroDivisionError, OverflowError):
            return False

    return next((cause for cause, one in WARM_UP_MISTAKES.items() if gives(one)), "")


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
    for k, c in ((20, 3), (30, 3), (500, 4), (20_000, 2)):
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
            dead = int((state[1] * k < 0.01).sum())
            cause = f"{dead} codes were left whose running usage is below a hundredth of a fair share" if dead else ""
            raise Failed(f"a perplexity above 12 of 32 {place}", f"{found:.1f}", cause)
    return "dead codes come back, also when the features move away, and living ones stay"


def _three(found, k, c):
    """What an update returns. Raises Failed for something else than codes, usage and sums."""
    shapes = type(found).__name__
    if isinstance(found, (tuple, list)):
        shapes = [tuple(one.shape) if torch.is_tensor(one) else type(one).__name__ for one in found]
    if shapes != [(k, c), (k,), (k, c)]:
        raise Failed("codes (k c), usage (k,) and sums (k c), in this order", shapes)
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
        for name, one, other in zip(("codes", "usage", "sums", "vectors"), given, (*before, vectors)):
            if not torch.equal(one, other):
                raise Failed(f"the {name} of before as they were", "they were changed", "an operation in place")
        given = [one.clone() for one in (*before, vectors)]
    (places, usage, sums), dead = results[0], torch.arange(k) >= 20
    for name, one in zip(("codes", "usage", "sums"), results[0]):
        same_dtype(name, one, torch.float32)
    _living(results[0], update(*before, vectors, torch.Generator()), before, vectors)
    if not dead.any():
        return
    exact = "donot_use_mm_for_euclid_dist"  # the vectors of a cluster are closer to each other than the error of the other way
    distance, picks = torch.cdist(places[dead].float(), vectors, compute_mode=exact).min(dim=1)
    if not distance.max() < 0.1:
        raise Failed("dead codes on vectors of the batch", f"one at a distance of {distance.max():.2g}",
                     _why_beside(results[0], dead, before, vectors))  # fmt: skip
    if (many := len(picks.unique())) < (200 if k > 1000 else 5):
        raise Failed("dead codes on vectors from all over the batch", f"{len(picks)} of them on {many} of 200",
                     "each vector must have its chance")  # fmt: skip
    for _ in range(40 if k == 30 else 0):  # ten dead codes a time
        again = _three(student(*before, vectors, drawn), k, c)[0][dead]
        picks = torch.cat([picks, torch.cdist(again.float(), vectors, compute_mode=exact).argmin(dim=1)])
    if k == 30 and len(picks.unique()) < 120:
        raise Failed("dead codes on vectors from all over the batch", f"{len(picks)} of them on {len(picks.unique())} of 200",
                     "each vector must have its chance")  # fmt: skip
    if torch.equal(places, results[2][0]):
        raise Failed("other vectors at the next call", "the same", "`generator` is given so that each call draws others")
    share = usage[dead] * k
    if not (share.min() > 0.02 and share.max() < 2):
        found = f"{share.min():.2g} to {share.max():.2g} times that"
        causes = {1.0: "a usage of 1 is the share of a code that gets every vector",
                  1 / int(dead.sum()): "the shares of the dead add up to 1",
                  1 / len(vectors): "this is one vector's share of the batch"}  # fmt: skip
        cause = next((text for value, text in causes.items() if torch.allclose(share / k, torch.tensor(value))), "")
        raise Failed(f"a usage near a fair share, 1 / {k}, for codes that begin again", found, cause)
    if share.max() - share.min() > 0.5:
        found = f"{share.min():.2g} to {share.max():.2g} times 1 / {k}"
        raise Failed("the same usage for all codes that begin again", found)
    again = "the sums of codes that begin again"
    close(again, sums[dead], places[dead] * usage[dead, None], 1e-4 / k, "a code is sums / usage")
    for name, one, other in zip(("codes", "usage", "sums"), *results[:2]):
        told = "other random numbers than those of `generator`"
        close(f"the {name} drawn again from the same generator", one, other, 1e-6, told)


def _why_beside(found, dead, before, vectors):
    """Why dead codes lie on no vector, if that is one of the mistakes that are known."""
    places, usage, sums = (one[dead].float() for one in found)
    near = lambda at: bool((torch.cdist(at, vectors).min(dim=1).values < 0.1).all())  # noqa: E731
    if torch.allclose(places, before[0][dead], atol=1e-3):
        return "dead codes stay where they were"
    if torch.allclose(places, vectors.mean(dim=0).expand_as(places), atol=1e-3):
        return "the mean of the batch is in none of its clusters"
    k = len(before[0])
    if near(sums) or near(places / k) or near(sums * k):
        return "a code is sums / usage, and only one of the two was set to fit the other"
    stay = (abs(places - before[0][dead]) < 1e-3).all(dim=1)
    return f"{int(stay.sum())} of {len(stay)} dead codes stay where they were" if stay.any() else ""


def _living(found, expected, before, vectors):
    """Raise Failed unless codes in use, and those that only this batch has missed, are what the given lines make of them."""
    k = len(before[0])
    missed, wanted = found[0][5:20], expected[0][5:20]  # by the vectors
    moved = missed[(abs(missed - wanted) > 1e-4).any(dim=1)]
    restarted = len(moved) > 0 and bool((torch.cdist(moved.float(), vectors).min(dim=1).values < 0.1).all())
    again = f"{len(moved)} codes begin again that are not dead: their running usage is above a hundredth of a fair share"
    kept = torch.equal(found[1][:20], before[1][:20])
    still = "the running values of before, without this batch" if kept else ""
    for name, one, other in zip(("codes", "usage", "sums"), found, expected):
        cause = again if restarted else "" if name == "codes" else still
        close(f"the {name} of living codes", one[:20], other[:20], 1e-4 if name == "codes" else 1e-4 / k, cause)
