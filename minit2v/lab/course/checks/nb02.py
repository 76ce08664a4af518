"""Checks of notebook 02, Squeezing frames: scale factor, nearest code, straight-through gradient, a test for it."""

import torch

from minit2v.lab.course.comparing import called, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.networks.bottleneck import Codebook

CODEBOOK = "tests/test_autoencoder.py::test_codebook_takes_the_nearest_code_and_passes_the_gradient_through"
EQUATIONS = {
    "2.1": ("scale factor", "tests/test_autoencoder.py::test_training_reduces_the_loss"),
    "2.2": ("a sample of the Gaussian bottleneck", "tests/test_autoencoder.py::test_gaussian"),
    "2.3": ("KL divergence of it", "tests/test_autoencoder.py::test_gaussian"),
    "2.4": ("nearest code", CODEBOOK),
    "2.5": ("straight-through gradient", CODEBOOK),
}

QUIZ = [
    (
        "A frame of 256 x 256 pixels goes through the released autoencoder. What shape do its latents have?",
        ["(4, 32, 32)", "(3, 32, 32)", "(4, 8, 8)"],
        0,
        "Four channels, and a factor of 8 along each side: 256 / 8 = 32.",
    ),
    (
        "You swap the autoencoder for one whose latents are twice as large, and keep the scale factor. What happens?",
        ["An error", "Nothing", "The same timestep means less noise relative to the latents"],
        2,
        "The noise has deviation 1 whatever the latents are. Larger latents survive longer.",
    ),
    (
        "Why does argmin need the straight-through trick?",
        ["It is slow", "Its derivative is zero wherever it exists", "It returns integers"],
        1,
        "Between two jumps the chosen code does not move, so the encoder would never learn anything from the decoder.",
    ),
]


def rescaled(latents, per_channel=False):
    """Latents (n, c, h, w) brought to deviation 1 by one factor, or every channel to mean 0 and deviation 1."""
    if not per_channel:
        return latents * (1 / latents.std())
    mean, std = latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)
    return (latents - mean) / std


@exercise("2.1", name="rescaled", solution=rescaled, minutes=6, difficulty=1, importance=4)
def check_rescaled(student):
    """On latents whose channels have different means and deviations, so that the two ways differ."""
    generator = torch.Generator().manual_seed(2)
    for n, c, h, w in ((64, 4, 8, 9), (200, 3, 7, 3), (70, 5, 4, 16)):
        spread, offset = torch.tensor([1.0, 2.0, 5.0, 9.0, 0.5])[:c], torch.tensor([4.0, 3.0, -2.0, 1.0, 0.0])[:c]
        latents = torch.randn(n, c, h, w, generator=generator) * spread[:, None, None] + offset[:, None, None]
        together = called(student, latents, what="rescaled(latents)")
        same_shape("rescaled(latents)", together, latents.shape, "one factor for all numbers keeps the shape")
        deviation = together.double().std()
        cause = "divide by std(), not by var()" if _near(deviation, 1 / latents.std()) else "one factor: 1 / latents.std()"
        close("deviation of rescaled(latents)", deviation, 1.0, 1e-3, cause)
        cause = "the same factor for all channels, and nothing subtracted"
        close("rescaled(latents)", together, rescaled(latents), 1e-3, cause)
        per_channel = lambda x: student(x, per_channel=True)
        apart = called(per_channel, latents, what="rescaled(latents, per_channel=True)")
        same_shape("rescaled(latents, per_channel=True)", apart, latents.shape, "use keepdim=True")
        if torch.equal(apart, together):
            raise Failed("another result with per_channel=True", "the same", "is per_channel used at all?")
        cause = "mean and deviation of each channel, over the axes 0, 2 and 3"
        close("means of the channels", apart.double().mean((0, 2, 3)), torch.zeros(c), 1e-3, cause)
        close("deviations of the channels", apart.double().std((0, 2, 3)), torch.ones(c), 1e-3, cause)
        close("rescaled(latents, per_channel=True)", apart, rescaled(latents, per_channel=True), 1e-3, cause)
        for what, found in (("rescaled(latents)", together), ("rescaled(latents, per_channel=True)", apart)):
            same_dtype(what, found, torch.float32)
    return "deviation 1 together, and mean 0 and deviation 1 in each channel"


def _near(found, expected):
    return abs(float(found) - float(expected)) < 1e-3 * abs(float(expected))


def nearest(vectors, codes):
    """Index of the nearest code: vectors (m, c), codes (K, c) -> (m,)."""
    return (vectors[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)


@exercise("2.2", name="nearest", solution=nearest, minutes=6, difficulty=2, importance=4)
def check_nearest(student):
    """Against the library's codebook, and where the largest dot product is not the nearest code."""
    found = called(student, torch.tensor([[1.0, 0.0]]), torch.tensor([[9.0, 0.0], [1.0, 0.5]]))
    same_shape("the result", found, (1,), "one index for each vector")
    if found.is_floating_point():
        raise Failed("indices, whole numbers", "floating-point numbers", "min gives the distance, argmin its index")
    if int(found[0]) != 1:
        raise Failed("code 1 = (1, 0.5) for the vector (1, 0)", f"code {int(found[0])}, which is (9, 0)",
                     "the smallest sum of squares wins, and not the largest dot product")
    if int(student(torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))[0]) != 0:
        raise Failed("the lower index of two equal distances", "the higher", "argmin does it by itself")
    generator = torch.Generator().manual_seed(2)
    for m, k, c, spread in ((20, 300, 3, 1), (5, 1, 7, 1), (30, 40, 2, 0.02), (500, 40, 4, 1)):  # a byte counts to 255
        codebook = Codebook(k, c)
        codebook.codes.copy_(1 - spread + spread * torch.randn(k, c, generator=generator))
        vectors = 1 - spread + spread * torch.randn(m, c, generator=generator)
        close("indices", called(student, vectors, codebook.codes), codebook.nearest(vectors), 0,
              "sum the squares of the differences; multiplied out, |v - e|^2 = |v|^2 - 2 v.e + |e|^2")  # fmt: skip
    return "500 vectors, 40 codes, as the library chooses"


def quantise(features, codes):
    """The nearest codes (m, c) of features (m, c), with the gradient of the identity."""
    chosen = codes[nearest(features, codes)]
    return features + (chosen - features).detach()


@exercise("2.3", name="quantise", solution=quantise, minutes=8, difficulty=2, importance=5)
def check_quantise(student):
    """Values against nearest codes, the gradient against an arbitrary one from above, none for the codes."""
    generator = torch.Generator().manual_seed(3)
    for m, k, c, dtype in ((20, 8, 4, torch.float32), (5, 9, 2, torch.float64)):
        draw = lambda n: torch.randn(n, c, generator=generator, dtype=dtype)
        _straight_through(student, draw(m).requires_grad_(), draw(k).requires_grad_(), draw(m))
    return "codes forwards, the identity backwards"


def _straight_through(student, features, codes, above):
    """Raise Failed unless the student's values are codes, and `above` is their gradient for the features."""
    out = student(features, codes)
    if not isinstance(out, torch.Tensor):
        cause = "the function does not return its result" if out is None else ""
        raise Failed("values as a tensor", type(out).__name__, cause)
    close("values", out, codes[nearest(features, codes)], 1e-5, "forwards it must be the codes themselves")
    if not out.requires_grad:
        raise Failed("a result with a gradient", "none", "everything was detached; detach the difference only")
    found, of_codes = torch.autograd.grad((out * above).sum(), (features, codes), allow_unused=True)
    if found is None:
        raise Failed("a gradient for the features", "none", "the choice alone has none: add the features back")
    if found.abs().max() == 0:
        raise Failed("a gradient for the features", "zero",
                     "features + (chosen - features) has the gradient 1 - 1; the whole bracket needs detach")
    close("gradient for the features", found, above, 1e-6, "the features, once, outside of detach; all else inside")
    if of_codes is not None and of_codes.abs().max() > 0:
        raise Failed("no gradient for the codes", "one", "the chosen codes belong inside detach")
    same_dtype("values", out, features.dtype)


def encoder_gradient(quantiser):
    """Whether quantiser(features, codes) hands its gradient to the features unchanged."""
    features = torch.randn(7, 3).requires_grad_()
    out = quantiser(features, torch.randn(5, 3))
    if not out.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(out.sum(), features, allow_unused=True)
    return gradient is not None and bool(torch.allclose(gradient, torch.ones_like(gradient)))


@exercise("2.B", name="encoder_gradient", solution=encoder_gradient, minutes=5, difficulty=2, importance=5)
def check_encoder_gradient(student):
    """On right quantisers and on ones that hand over nothing, half, too much, or a gradient of the wrong path."""
    chosen = lambda features, codes: codes[nearest(features, codes)]
    through = lambda e, c, path: path + (chosen(e, c) - path).detach()  # the codes, with the gradient of the path
    weight = torch.ones((), requires_grad=True)

    def tilted(e):  # factors whose mean is 1, in every row and in every column
        rows, columns = (torch.linspace(-1, 1, n) for n in e.shape)
        return e * (1 + 0.9 * rows[:, None] * columns)

    cases = {
        "the right quantiser": (quantise, True, "its gradient is 1 for every number"),
        "the one without detach": (lambda e, c: e + (chosen(e, c) - e), False, "a gradient of zero is not 1"),
        "one that returns the codes": (chosen, False, "it has no gradient at all: ask out.requires_grad first"),
        "one that halves the gradient": (lambda e, c: e / 2 + (chosen(e, c) - e / 2).detach(), False, "compare with 1"),
        "the right quantiser, written otherwise": (lambda e, c: e - (e - chosen(e, c)).detach(), True, "1 everywhere"),
        "one that doubles the gradient": (lambda e, c: through(e, c, 2 * e), False, "more than 1 is not 1"),
        "one that turns the gradient around": (lambda e, c: through(e, c, -e), False, "its sign counts"),
        "one with a gradient of 0.7": (lambda e, c: through(e, c, 0.7 * e), False, "0.7 is not 1"),
        "one with a gradient of 1.3": (lambda e, c: through(e, c, 1.3 * e), False, "1.3 is not 1"),
        "one with a gradient of 1 on average": (lambda e, c: through(e, c, tilted(e)), False, "1 everywhere"),
        "one whose first row alone has a gradient":
            (lambda e, c: through(e, c, torch.cat([e[:1], e[1:].detach()])), False, "1 everywhere, in all rows"),
        "one whose first row alone has none":
            (lambda e, c: through(e, c, torch.cat([e[:1].detach(), e[1:]])), False, "1 everywhere, in all rows"),
        "one whose last row alone has none":
            (lambda e, c: through(e, c, torch.cat([e[:-1], e[-1:].detach()])), False, "1 everywhere, in all rows"),
        "one whose first column alone has a gradient":
            (lambda e, c: through(e, c, torch.cat([e[:, :1], e[:, 1:].detach()], 1)), False, "1 everywhere, in all columns"),
        "one whose output has a gradient, but none for the features":
            (lambda e, c: chosen(e, c).detach() * weight, False, "with allow_unused the gradient is None"),
    }
    for what, (quantiser, expected, cause) in cases.items():
        try:
            found = student(quantiser)
        except NotImplementedError:
            raise
        except RuntimeError as error:  # autograd's, where there is no gradient
            raise Failed(f"{expected} for {what}", f"RuntimeError: {error}", cause) from None
        if found is None:
            raise Failed("True or False", "None", "the function does not return its result")
        if isinstance(found, torch.Tensor) and found.numel() != 1:
            raise Failed("one True or False", f"{found.numel()} of them", "add .all()")
        if bool(found) != expected:
            raise Failed(f"{expected} for {what}", found, cause)
    return "tells the right quantiser from three broken ones"
