"""The ways by which words come into a UNet, and how to close some of them.

    told_by(unet, nothing, ways)     the UNet, which hears the words by these ways and the empty prompt by the others

The released model has one way, cross-attention. `mini` has two departures that add a way each: `text_in_embedding` and
`scene_prior` (docs/training.md).
"""

from collections.abc import Callable, Collection
from unittest.mock import patch

from torch import Tensor

from minit2v.errors import UserError
from minit2v.networks.unet import UNet

WAYS = ("cross-attention", "embedding", "scene prior")


def told_by(unet: UNet, nothing: Tensor, ways: Collection[str]) -> Callable[..., Tensor]:
    """The UNet, to be called as before, `(x, t, context, …)`: words reach it by some of WAYS alone.

    Args:
        nothing: the empty prompt (1, n, d), which it is given on every other way.

    Raises UserError for other ways.
    """
    if unknown := set(ways) - set(WAYS):
        raise UserError(f"ways: expected some of {', '.join(WAYS)}, found {', '.join(sorted(unknown))}")

    def answer(x: Tensor, t: Tensor, context: Tensor, *rest, **named) -> Tensor:
        given = {way: context if way in ways else nothing.expand_as(context) for way in WAYS}
        embed, prior = unet.embed, unet.prior
        with patch.object(unet, "embed", lambda t, _, *more: embed(t, given["embedding"], *more)), \
             patch.object(unet, "prior", lambda _, *more: prior(given["scene prior"], *more)):  # fmt: skip
            return unet(x, t, given["cross-attention"], *rest, **named)

    return answer
