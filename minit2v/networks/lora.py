"""Low-rank adapters (LoRA): a trained network learns something new in a few small matrices, and stays as it is.

    W (out, in) ──────────────────────────────────► + ──► the weight that the layer uses
    A (r, in) ─ B (out, r) ─ scale B A ─ strength ──┘     B starts at zero: at first nothing changes

A convolution is the matrix of its taps, (out, in * taps). An adapter is used in one of two ways:

    attach, detach    W stays; B A is added whenever the weight is read (`torch.nn.utils.parametrize`): to train
    merge, unmerge    W becomes W + B A: to sample, at no cost

References: LoRA, arXiv 2106.09685, section 4.1; scale of a high rank: rsLoRA, arXiv 2312.03732.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from minit2v.errors import UserError

KINDS = ("linear", "temporal", "spatial")  # of layers: linear ones, convolutions along time, convolutions of a frame
DEFAULT = ("linear", "temporal")


class LowRank(nn.Module):
    """The change of one weight: ``weight -> weight + strength * scale * B A``, of the weight's shape.

    A (r, in * taps) and B (out, r). Other programs write longer products, (out * taps, in * taps); what is left over
    after the axes of the weight is averaged.
    """

    def __init__(self, A: Tensor, B: Tensor, scale: float = 1.0):
        super().__init__()
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)
        self.scale, self.strength = scale, 1.0

    def forward(self, weight: Tensor) -> Tensor:
        return self.added(weight, self.strength)

    def added(self, weight: Tensor, strength: float) -> Tensor:
        """The weight with the change: computed in the wider of both dtypes, rounded once to the weight's."""
        wide, shape = torch.promote_types(weight.dtype, self.A.dtype), weight.shape
        product = self.B.to(wide) @ self.A.to(wide)
        change = product.view(shape) if product.numel() == weight.numel() else product.view(*shape, -1).mean(-1)
        return (weight.to(wide) + strength * self.scale * change).to(weight.dtype)  # eq (20.1) · LoRA (3)


class Adapter(nn.Module):
    """The changes of some layers of a network, by the layers' names: ``adapter.items()``."""

    def __init__(self, parts: dict[str, LowRank]):
        super().__init__()
        self.names, self.parts = tuple(parts), nn.ModuleList(parts.values())

    def items(self) -> Iterator[tuple[str, LowRank]]:
        return zip(self.names, self.parts)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that an adapter can change, by name: linear ones and convolutions."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}


def chosen(network: nn.Module, layers: Sequence[str] = DEFAULT) -> dict[str, nn.Module]:
    """The layers of these kinds (KINDS), or whose name ends so: "attn1.to_q", "conv1".

    Raises UserError for a choice that no layer has.
    """
    temporal = network.temporal_layers() if hasattr(network, "temporal_layers") else []
    of_time = {id(layer) for block in temporal for layer in block.modules()}
    kind = lambda layer: "linear" if isinstance(layer, nn.Linear) else "temporal" if id(layer) in of_time else "spatial"
    fits = lambda name, layer, choice: choice == kind(layer) or f".{name}".endswith(f".{choice}")
    known = layers_of(network)
    for choice in layers:
        if not any(fits(name, layer, choice) for name, layer in known.items()):
            ends = sorted({name.rpartition(".")[2] for name in known if not name.rpartition(".")[2].isdecimal()})
            raise UserError(f"layers: expected {', '.join(KINDS)} or the end of a layer's name, as {', '.join(ends)}; "
                            f"found {choice!r}")  # fmt: skip
    return {name: layer for name, layer in known.items() if any(fits(name, layer, choice) for choice in layers)}


def fresh(network: nn.Module, rank: int, alpha: float | None = None, layers: Sequence[str] = DEFAULT) -> Adapter:
    """An adapter of that rank which changes nothing yet; its scale is alpha / rank, by default 1. See `chosen`.

    A is drawn as a linear layer's weight is, and B is zero, as in the paper's code. Raises UserError for a rank that no
    layer can have.
    """
    if not layers:
        raise UserError("layers: expected one or more, found none")
    parts, adapted = {}, chosen(network, layers)
    if rank > (most := max(min(len(layer.weight), layer.weight[0].numel()) for layer in adapted.values())):
        raise UserError(f"rank: expected at most {most:,}, that of the largest layer, found {rank:,}")
    for name, layer in adapted.items():
        weight = layer.weight
        A, B = weight.new_empty(rank, weight[0].numel()), weight.new_zeros(len(weight), rank)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        parts[name] = LowRank(A, B, (alpha or rank) / rank)
    return Adapter(parts)


def attach(network: nn.Module, adapter: Adapter, strength: float = 1.0) -> None:
    """Let the layers of a network read their weights through an adapter, in place; several can be attached. The strength
    is the adapter's: one that is attached to two networks has the last one in both."""
    for name, part in adapter.items():
        part.strength = strength
        layer = network.get_submodule(name)
        if part.A.device != layer.weight.device:
            part.to(layer.weight.device)
        parametrize.register_parametrization(layer, "weight", part)


def detach(network: nn.Module) -> None:
    """Take off all adapters that are attached: the weights are bit for bit what they were."""
    for layer in layers_of(network).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


@torch.no_grad()
def merge(network: nn.Module, adapter: Adapter, strength: float = 1.0) -> None:
    """Add an adapter to the weights, in place; several can be merged. At strength 0 nothing is touched.

    Raises UserError for a network with adapters attached: their weights are computed.
    """
    if any(parametrize.is_parametrized(layer) for layer in layers_of(network).values()):
        raise UserError("merge: expected a network without attached adapters, found some; detach them first")
    for name, part in adapter.items() if strength else ():
        weight = network.get_submodule(name).weight
        weight.data = part.to(weight.device).added(weight, strength)  # not in place: it may be mapped from a file


def unmerge(network: nn.Module, adapter: Adapter, strength: float = 1.0) -> None:
    """Take an adapter off again that was merged with that strength: the weights are what they were within rounding."""
    merge(network, adapter, -strength)
