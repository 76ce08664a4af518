"""Tensors of a file into a module on the meta device, one at a time: one copy of the weights, no more."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from minit2v.checkpoints.reading import Tensors
from minit2v.errors import UserError

MAPPED = 128 << 20  # bytes of a file that may count as memory beside the copies made of them


def fill(module: nn.Module, table: dict[str, tuple[str, ...]], tensors: Tensors, dtype: torch.dtype,
         device: str) -> nn.Module:  # fmt: skip
    """Put the tensors into the module, each cast on its way. `table`: our name -> its names in the file (see `names`).
    Raises UserError for a tensor that is missing, left over, of another shape or not finite; the module is then
    incomplete."""
    state, copied = {}, 0
    small = sum(p.nbytes for p in module.state_dict().values()) < MAPPED  # copied: its file may be replaced meanwhile
    for key, value in matched(module, table, tensors):
        state[key] = value.to(device, dtype if value.is_floating_point() else None, copy=small)
        copied += value.nbytes if state[key] is not value or len(table[key]) > 1 else 0
        if copied > MAPPED:
            copied = tensors.forget() or 0
    module.load_state_dict(state, strict=False, assign=True)
    return module


def matched(module: nn.Module, table: dict[str, tuple[str, ...]], tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """(our name, tensor of our shape) for each row of the table. Raises UserError as `fill` does."""
    expected = module.state_dict()
    check_shapes(expected, table, tensors)
    warned = False
    for key, parts in table.items():
        pieces = [tensors[part] for part in parts]
        if any(is_float8(piece.dtype) for piece in pieces):
            if not warned:
                kind = str(pieces[0].dtype).removeprefix("torch.")
                warnings.warn(f"{tensors.path} holds {kind} numbers, of one or two digits: they are cast, which brings "
                              "no digit back", stacklevel=6)  # fmt: skip
            pieces, warned = [piece.float() for piece in pieces], True  # nothing else can be computed in them
        value = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        yield key, _as_ours(value, expected[key], parts[0], tensors.path)


def check_shapes(expected: dict[str, Tensor], table: dict[str, tuple[str, ...]], tensors: Tensors) -> None:
    """Compare names and shapes of the tensors with a module's, which may be on the meta device: before anything takes
    memory. Layouts differ in axes of length 1 at the end. Raises UserError as `fill` does."""
    wanted = {part for parts in table.values() for part in parts}
    left = next((name for name in tensors if name not in wanted), None)
    missing = next((name for name in sorted(wanted) if name not in tensors), None)
    if left or missing:
        found = f"found {left}, which is none of them" if left else f"found no {missing}"
        todo = "choose a file with the layers of this one, or get it again"
        raise UserError(f"{tensors.path} is of another model: expected {len(wanted)} tensors, {found}; {todo}")
    trimmed = lambda shape: tuple(shape[: max((i + 1 for i, n in enumerate(shape) if n != 1), default=0)])
    for key, parts in table.items():
        shapes, ours = [tensors.shapes[part] for part in parts], tuple(expected[key].shape)
        found = shapes[0] if len(parts) == 1 else (sum(shape[0] for shape in shapes), *shapes[0][1:])
        if trimmed(found) != trimmed(ours):
            raise UserError(f"{tensors.path} is of another model: {parts[0]}: expected {ours}, found {tuple(found)}; "
                            "load it with the settings it came with")  # fmt: skip


def is_float8(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize == 1


def _as_ours(value: Tensor, ours: Tensor, name: str, path: Path) -> Tensor:
    """The tensor with the axes of ours, of the same kind of numbers, all finite."""
    if value.is_floating_point() != ours.is_floating_point():
        raise UserError(f"{path} is of another model: {name}: expected {ours.dtype}, found {value.dtype}; get it again")
    if not finite(value):
        raise UserError(f"{path} is damaged: {name} holds numbers that are not finite; get it again")
    return value.reshape(ours.shape)


def finite(value: Tensor) -> bool:
    """Whether all numbers are finite, by the extremes: `isfinite` would need as much memory again."""
    return value.numel() == 0 or all(extreme.isfinite().item() for extreme in value.aminmax())
