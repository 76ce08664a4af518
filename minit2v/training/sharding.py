"""Parameters that several cards hold in pieces (FSDP), so that a network larger than a card is trained.

    accelerate launch --config_file docs/fsdp.yaml -m minit2v train unet …
                                      │
    task ── accelerator.prepare ──► parameters become DTensors: each rank holds a piece, and gathers the others
                                    for the forward and backward pass of one block at a time
    average, optimizer's state ───► `follow`: cut in the same way
    checkpoint, weights ◄────────── `whole`: put together; a run goes on with any number of cards, sharded or not

Without FSDP every tensor is whole, and these functions do nothing.

References: FSDP, arXiv 2304.11277; torch.distributed.fsdp.fully_shard.
"""

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map


def gathered(tensor: Tensor) -> Tensor:
    """A tensor whole, on its device. Every rank has to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(state):
    """Any nest of dicts, lists and tensors with every tensor whole; one in pieces is gathered into the memory of the
    CPU. Every rank has to call it."""
    return tree_map(lambda x: gathered(x).cpu() if isinstance(x, DTensor) else x, state)


def cut_like(tensor: Tensor, model: Tensor) -> Tensor:
    """This rank's piece of a whole tensor that all ranks have, cut as `model` is."""
    if not isinstance(model, DTensor):
        return tensor
    whole = tensor.to(model.device).contiguous()
    return distribute_tensor(whole, model.device_mesh, model.placements, src_data_rank=None)


def in_pieces(module: nn.Module) -> bool:
    """Are the parameters of a module sharded?"""
    return any(isinstance(p, DTensor) for p in module.parameters())


def follow(module: nn.Module, model: nn.Module) -> None:
    """Cut the parameters of a module in place as those of `model`, a module of the same structure, are cut."""
    replace_parameters(module, dict(model.named_parameters()), cut_like)


def reunite(module: nn.Module) -> None:
    """The inverse of `follow`, in place."""
    replace_parameters(module, dict(module.named_parameters()), lambda parameter, _: gathered(parameter))


def replace_parameters(module: nn.Module, others: dict[str, Tensor], change) -> None:
    """Put ``change(parameter, other)`` in the place of each parameter that has another of its name in `others`."""
    for name, other in others.items():
        owner, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner)
        parameter = getattr(owner, leaf)
        changed = change(parameter.data, other)
        setattr(owner, leaf, nn.Parameter(changed, requires_grad=parameter.requires_grad))


def parameters_of(optimizer) -> list[nn.Parameter]:
    """The parameters of all groups, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def move_state(optimizer, before: list[nn.Parameter]) -> None:
    """Give the parameters of an optimizer the state of those that were in their places before."""
    state = dict(optimizer.state)
    optimizer.state.clear()
    for old, new in zip(before, parameters_of(optimizer), strict=True):
        if old in state:
            optimizer.state[new] = {
                name: cut_like(value, new) if isinstance(value, Tensor) and value.shape == new.shape else value
                for name, value in state[old].items()
            }
