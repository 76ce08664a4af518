"""Your class inside the real model: `with lab.swap(pipe, TemporalConv=Mine) as swapped`.

    library                 while the block lasts
    blocks.TemporalConv     Mine, under that name in every module of minit2v
    pipe.unet               the same pipe.unet; swapped.unet is built anew with Mine in it, from the same settings,
                            and filled with the weights of pipe.unet by name

So a class that has parameters of the same names and shapes computes with the trained numbers: if it is right, the
clip is the same to the last bit, and if it is not, one sees what that does to a video.
"""

import copy
import inspect
import sys
from contextlib import contextmanager

import torch

from minit2v.errors import UserError

PARTS = {"unet": "unet", "autoencoder": "autoencoder", "text": "text", "diffusion": "diffusion"}  # of a pipe: setting


@contextmanager
def swap(pipe, **replacements):
    """A model like `pipe` in which classes or functions of the library are replaced.

    Args:
        pipe: a `TextToVideo`; it is not changed.
        replacements: library name -> your class or function, as TemporalConv=Mine or attend=mine. A name that two
            modules have is written with its module: **{"blocks.ResBlock": Mine}.

    Raises UserError for a name that the library does not have, for a class that cannot be built like the library's,
    and for parameters of other names or shapes than the library's. Use the model within the block: after it, your
    classes stay in the model, but functions are the library's again.

    >>> import minit2v
    >>> from minit2v.blocks import TemporalConv
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


def _original(name):
    """The library's object of a name. Raises UserError if there is none, or more than one."""
    module, _, short = name.rpartition(".")
    found = {}
    for place, namespace in _namespaces():
        value = namespace.get(short)
        if getattr(value, "__module__", None) == place and place.removeprefix("minit2v.").endswith(module):
            found[place.removeprefix("minit2v.")] = value
    if len(found) != 1:
        several = f"several ({', '.join(f'{place}.{short}' for place in found)}); name the module" if found else "none"
        raise UserError(f"swap: expected the name of a class or function of minit2v, found {name!r}, "
                        f"of which there are {several}")
    return found.popitem()[1]


def _namespaces():
    """(name, namespace) of every module of the library that is imported, but the lab's."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("minit2v.") and not name.startswith("minit2v.lab") and module is not None:
            yield name, vars(module)


def _replace(old, new):
    """Put `new` wherever modules, and tables of modules such as SAMPLERS, hold `old`; what it takes to undo that."""
    undo = []
    for _, namespace in list(_namespaces()):
        tables = [value for key, value in namespace.items() if isinstance(value, dict) and not key.startswith("__")]
        for holder in (namespace, *tables):
            for key in [key for key, value in holder.items() if value is old]:
                undo.append((holder, key, old))
                holder[key] = new
    return undo


def _rebuilt(pipe, pairs):
    swapped = copy.copy(pipe)
    current = {old: new for old, new in pairs if inspect.isclass(old)}
    for part, setting in PARTS.items():
        own = getattr(pipe, part)
        modules = list(own.modules()) if isinstance(own, torch.nn.Module) else [own]
        if not any(type(module) in current for module in modules):
            continue
        build = current.get(type(own), type(own))
        try:
            new = build(getattr(pipe.preset, setting))
        except TypeError as error:
            built = "; ".join(f"{old.__name__}{inspect.signature(old)}" for old in current)
            raise UserError(f"swap: expected a class built like the library's, {built}; found: {error}") from error
        if isinstance(own, torch.nn.Module):
            _carry_over(own, new, current)
            new.eval()
        setattr(swapped, part, new)
    return swapped


def _carry_over(own, new, current):
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
