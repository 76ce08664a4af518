"""Your class inside the real model: `with lab.swap(pipe, TemporalConv=Mine) as swapped`.

    library                          while the block lasts
    networks.blocks.TemporalConv     Mine, under that name in every module of minit2v, and in its tables
    pipe.unet                        the same pipe.unet; swapped.unet is built with Mine in it, from the same settings,
                                     and filled with the weights of pipe.unet by name

So a class that has parameters of the same names and shapes computes with the trained numbers: if it is right, the
clip is the same to the last bit, and if it is not, you see what that does to a video.
"""

import copy
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import torch

from minit2v.errors import UserError
from minit2v.systems.pipeline import TextToVideo


@contextmanager
def swap(pipe: TextToVideo, **replacements: Any) -> Iterator[TextToVideo]:
    """A model like `pipe` in which classes or functions of the library are replaced.

    Args:
        pipe: a model of any system; it is not changed.
        replacements: library name -> your class or function, as TemporalConv=Mine or attend=mine. A name that two
            modules have is written with its module: **{"blocks.ResBlock": Mine}.

    Raises UserError for a name that the library does not have, for a class that cannot be built like the library's,
    and for parameters of other names or shapes than the library's. Use the model within the block: after it, your
    classes stay in the model, but functions are the library's again.

    >>> import minit2v
    >>> from minit2v.networks.blocks import TemporalConv
    >>> class Silent(TemporalConv):
    ...     def forward(self, x, f):
    ...         return x                 # as if no frame knew of the others
    >>> pipe = minit2v.load("mini", device="cpu")
    >>> with swap(pipe, TemporalConv=Silent) as swapped:
    ...     clip = swapped("a red circle moves left", steps=1)
    """
    pairs = [(_original(name), new) for name, new in replacements.items()]
    undo = []
    try:
        for old, new in pairs:
            undo += _replace(old, new)
        yield _rebuilt(pipe, pairs)
    finally:
        for holder, key, value in reversed(undo):
            holder[key] = value


def _original(name: str) -> Any:
    """The library's object of a name. Raises UserError if there is none, or more than one."""
    module, _, short = name.rpartition(".")
    found = {}
    for place, namespace in _namespaces():
        value = namespace.get(short)
        if getattr(value, "__module__", None) == place and f".{place}".endswith(f".{module}" if module else ""):
            found[place.removeprefix("minit2v.")] = value
    if len(found) != 1:
        several = f"several ({', '.join(f'{place}.{short}' for place in found)}); name the module" if found else "none"
        raise UserError(f"swap: expected the name of one class or function of minit2v, found {name!r}: "
                        f"there are {several}")
    return found.popitem()[1]


def _namespaces() -> Iterator[tuple[str, dict]]:
    """(name, namespace) of every module of the library that is imported, except the lab's."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("minit2v.") and not name.startswith("minit2v.lab") and isinstance(module, ModuleType):
            yield name, vars(module)


def _replace(old: Any, new: Any) -> list[tuple[dict, str, Any]]:
    """Put `new` wherever modules, their tables, and the rows of these (SAMPLERS, SYSTEMS) hold `old`.

    Returns the holders, keys and values that undo it.
    """
    undo = []
    for _, namespace in list(_namespaces()):
        tables = [value for key, value in namespace.items() if isinstance(value, dict) and not key.startswith("__")]
        for holder in (namespace, *tables):
            for key, value in list(holder.items()):
                if (swapped := _with(value, old, new)) is not value:
                    undo.append((holder, key, value))
                    holder[key] = swapped
    return undo


def _with(value: Any, old: Any, new: Any) -> Any:
    """`new` if the value is `old`; a row of a table with `new` where its fields, or dictionaries in them, hold `old`;
    else the value itself."""
    if value is old:
        return new
    if not is_dataclass(value) or inspect.isclass(value):
        return value
    held = {}
    for name, item in ((field.name, getattr(value, field.name)) for field in fields(value)):
        if item is old:
            held[name] = new
        elif isinstance(item, dict) and any(each is old for each in item.values()):
            held[name] = {key: new if each is old else each for key, each in item.items()}
    return replace(value, **held) if held else value


def _rebuilt(pipe: TextToVideo, pairs: list[tuple[Any, Any]]) -> TextToVideo:
    """A copy of the model whose parts that contain a replaced class are built again.

    A part is an attribute of the model that has settings of the same name in the preset.
    """
    swapped = copy.copy(pipe)
    current = {old: new for old, new in pairs if inspect.isclass(old)}
    for part, own in vars(pipe).items():
        settings = getattr(pipe.preset, part, None)
        modules = list(own.modules()) if isinstance(own, torch.nn.Module) else [own]
        if not is_dataclass(settings) or not any(type(module) in current for module in modules):
            continue
        build, block = current.get(type(own), type(own)), getattr(own, "block", None)
        takes = inspect.signature(build).parameters  # a network that names its block itself finds the new one by name
        options = {"block": current.get(block, block)} if block and "block" in takes else {}
        try:
            new = build(settings, **options)
        except TypeError as error:
            built = "; ".join(f"{old.__name__}{inspect.signature(old)}" for old in current)
            raise UserError(f"swap: expected a class built like the library's, {built}; found: {error}") from error
        if isinstance(own, torch.nn.Module):
            _carry_over(own, new, current)
            new.eval()
        setattr(swapped, part, new)
    return swapped


def _carry_over(own: torch.nn.Module, new: torch.nn.Module, current: dict) -> None:
    """Fill a network with the weights of another by name. Raises UserError naming the first that does not fit."""
    names = ", ".join(getattr(value, "__name__", str(value)) for value in current.values())
    given, wanted = own.state_dict(), new.state_dict()
    for key in [*wanted, *given]:
        has = [tuple(state[key].shape) if key in state else "none" for state in (given, wanted)]
        if has[0] != has[1]:
            raise UserError(f"swap: the library's network has the weight {key} {has[0]}, with {names} it has {has[1]}; "
                            "give your layers the library's names and sizes")
    reference = next(iter(own.parameters()))
    new.to(reference.device, reference.dtype)
    new.load_state_dict(given)
