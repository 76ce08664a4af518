"""Checks of notebook 02, Squeezing frames: scale factor, nearest code, straight-through gradient, a test for it."""

import numpy as np
import torch

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
    spread, offset = torch.tensor([1.0, 2.0, 5.0, 9.0]), torch.tensor([4.0, 3.0, -2.0, 1.0])
    latents = torch.randn(64, 4, 8, 8, generator=generator) * spread[:, None, None] + offset[:, None, None]
    together = student(latents)
    same_shape("rescaled(latents)", together, latents.shape, "one factor for all numbers keeps the shape")
    close("deviation of rescaled(latents)", together.std(), 1.0, 1e-3, "divide by std(), not by var()")
    cause = "the same factor for all channels, and nothing subtracted"
    close("rescaled(latents)", together, rescaled(latents), 1e-3, cause)
    apart = student(latents, per_channel=True)
    same_shape("rescaled(latents, per_channel=True)", apart, latents.shape, "use keepdim=True")
    if np.array_equal(apart, together):
        raise Failed("another result with per_channel=True", "the same", "is per_channel used at all?")
    cause = "mean and deviation of each channel, over the axes 0, 2 and 3"
    close("means of the channels", apart.mean((0, 2, 3)), torch.zeros(4), 1e-3, cause)
    close("deviations of the channels", apart.std((0, 2, 3)), torch.ones(4), 1e-3, cause)
    return "deviation 1 together, and mean 0 and deviation 1 in each channel"


def nearest(vectors, codes):
    """Index of the nearest code: vectors (m, c), codes (K, c) -> (m,)."""
    return (vectors[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)


@exercise("2.2", name="nearest", solution=nearest, minutes=6, difficulty=2, importance=4)
def check_nearest(student):
    """Against the library's codebook, and where the largest dot product is not the nearest code."""
    found = student(torch.tensor([[1.0, 0.0]]), torch.tensor([[9.0, 0.0], [1.0, 0.5]]))
    same_shape("the result", found, (1,), "one index for each vector")
    if isinstance(found, torch.Tensor) and found.is_floating_point():
        raise Failed("indices, whole numbers", "floating-point numbers", "min gives the distance, argmin its index")
    if int(found[0]) != 1:
        raise Failed("code 1 = (1, 0.5) for the vector (1, 0)", f"code {int(found[0])}, which is (9, 0)",
                     "the smallest sum of squares wins, and not the largest dot product")
    if int(student(torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))[0]) != 0:
        raise Failed("the lower index of two equal distances", "the higher", "argmin does it by itself")
    generator = torch.Generator().manual_seed(2)
    codebook = Codebook(40, 4)
    codebook.codes.copy_(torch.randn(40, 4, generator=generator))
    vectors = torch.randn(500, 4, generator=generator)
    close("indices", student(vectors, codebook.codes), codebook.nearest(vectors), 0,
          "sum the squares of the differences; multiplied out, |v - e|^2 = |v|^2 - 2 v.e + |e|^2")
    return "500 vectors, 40 codes, as the library chooses"


def quantise(features, codes):
    """The nearest codes (m, c) of features (m, c), with the gradient of the identity."""
    chosen = codes[nearest(features, codes)]
    return features + (chosen - features).detach()


@exercise("2.3", name="quantise", solution=quantise, minutes=8, difficulty=2, importance=5)
def check_quantise(student):
    """Values against nearest codes, the gradient against an arbitrary one from above, none for the codes."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(20, 4, generator=generator).requires_grad_()
    codes = torch.randn(8, 4, generator=generator).requires_grad_()
    out, above = student(features, codes), torch.randn(20, 4, generator=generator)
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
    return "codes forwards, the identity backwards"


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
    """On the right quantiser and on three that hand over nothing, half, or a gradient of the wrong path."""
    chosen = lambda features, codes: codes[nearest(features, codes)]
    cases = {
        "the right quantiser": (quantise, True, "its gradient is 1 for every number"),
        "the one without detach": (lambda e, c: e + (chosen(e, c) - e), False, "a gradient of zero is not 1"),
        "one that returns the codes": (chosen, False, "it has no gradient at all: ask out.requires_grad first"),
        "one that halves the gradient": (lambda e, c: e / 2 + (chosen(e, c) - e / 2).detach(), False, "compare with 1"),
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
