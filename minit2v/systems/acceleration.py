"""Faster forms of a UNet for a run of fixed shapes; each computes what the readable form computes.

    readable      block ─ block ─ …                       one kernel after the other, each launched by Python
    compiled      [block] ─ [block] ─ …                   few kernels a block; written at the first call of a shape
    replayed      [ block ─ block ─ … ]                   a CUDA graph: one launch for the whole UNet

Only the repeated block is compiled: equal blocks share a kernel, so compiling takes a fraction of the time of compiling
the UNet, and whatever else the UNet does stays as it is. Both forms can be combined.

References: regional compilation, PyTorch recipes; CUDA graphs, PyTorch notes "CUDA semantics".
"""

import warnings
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from minit2v.errors import UserError

SPECIALIZATIONS = 64  # shapes that one block class may be compiled for; the released UNet has 15, torch's limit is 8
WARM_UP = 3  # calls before a capture, so that libraries have chosen their kernels


def compile_blocks(unet: nn.Module, device: torch.device, backend: str = "inductor") -> bool:
    """Compile the blocks of a UNet (`unet.block`) in place, at their first call; names of weights stay.

    `backend` is one of torch.compile's. Returns whether that is possible. Where no compiler works, warns in one line
    and leaves the UNet as it is.
    """
    if reason := missing_compiler(device, backend):
        warnings.warn(f"compile: expected a compiler that works, found {reason}; goes on without", stacklevel=3)
        return False
    import torch._dynamo

    torch.compiler.allow_in_graph(rearrange)  # as one operation: its parsing of patterns would cut the graph in pieces
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SPECIALIZATIONS)
    for module in unet.modules():
        if isinstance(module, unet.block):
            module.compile(dynamic=False, backend=backend)
    return True


def missing_compiler(device: torch.device, backend: str = "inductor") -> str | None:
    """Why `torch.compile` does not work on a device, in one line; None where it does."""
    try:
        torch.compile(lambda x: (x + 1).sin() * x, dynamic=False, backend=backend)(torch.ones(8, device=device))
    except Exception as error:  # a missing program, or one that is too old: each backend raises its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no reason'}"
    return None


def to_channels_last(network: nn.Module) -> nn.Module:
    """Lay out the weights of 2-D convolutions as a GPU's kernels read them, else they are copied at every call; in
    place, returns the network. Other weights stay: `Module.to` would refuse those of 3-D convolutions."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


class Replayed:
    """A network that is called through CUDA graphs, one for each set of shapes: ``network(*tensors, **options)``.

    A graph reads its inputs and weights at fixed addresses: a call copies its inputs there, and returns a copy of the
    output. Weights must stay where they are, and no call has a gradient. While an attention layer keeps its map
    (`blocks.Attention.keep`) the network is called as it is.

    Args:
        network: on a CUDA device, in evaluation mode.
        capture: from a call without arguments to (its replay, its output); by default a CUDA graph.
        most: graphs that are kept; the oldest makes room, since each holds the memory of a forward pass.
    """

    def __init__(self, network: nn.Module, capture: Callable | None = None, most: int = 4):
        self.network, self.capture, self.most = network, capture or cuda_graph, most
        self.graphs: dict[tuple, tuple] = {}  # shapes and options -> (inputs, replay, output)

    @torch.inference_mode()
    def __call__(self, *args, **options) -> Tensor:
        if any(getattr(module, "keep", 0) for module in self.network.modules()):
            return self.network(*args, **options)
        values, structure = tree_flatten((args, options))
        tensors = [value for value in values if isinstance(value, Tensor)]
        key = (str(structure), *((value.shape, value.dtype) if isinstance(value, Tensor) else value for value in values))
        if key not in self.graphs:
            if len(self.graphs) == self.most:
                del self.graphs[next(iter(self.graphs))]
            self.graphs[key] = self._captured(values, structure)
        inputs, replay, output = self.graphs[key]
        for kept, given in zip(inputs, tensors):
            kept.copy_(given)
        replay()
        return output.clone()

    def _captured(self, values: list, structure) -> tuple[list[Tensor], Callable, Tensor]:
        values = [value.clone() if isinstance(value, Tensor) else value for value in values]
        args, options = tree_unflatten(values, structure)
        inputs = [value for value in values if isinstance(value, Tensor)]
        with torch.cuda.device_of(inputs[0]):  # streams belong to the current card, which may be another one
            replay, output = self.capture(lambda: self.network(*args, **options))
        return inputs, replay, output


def cuda_graph(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """(replay, output) of a call whose tensors are on a CUDA device; `replay` computes `output` again, in its place."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        output = call()
    return graph.replay, output


def check_graphs(device: torch.device, offload: bool) -> None:
    """Raises UserError where CUDA graphs cannot be used."""
    if device.type != "cuda":
        raise UserError(f"graphs: expected a CUDA device, found {device.type}; leave it out")
    if offload:
        raise UserError("graphs: expected weights that stay on the GPU, found offload; choose one of them")
