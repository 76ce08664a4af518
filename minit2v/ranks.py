"""The processes that share a piece of work, as `accelerate launch` or `torchrun` starts them; one alone is the usual
case. Each has its rank and, where there are several cards, a card of its own.
"""

import os
from importlib.util import find_spec

from minit2v.errors import UserError

INSTALL = 'pip install "minit2v[train]"'


def several() -> bool:
    """Is this one of several processes?"""
    return processes() > 1


def processes() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def own_card() -> str:
    """The card of this process: "cuda:1" for the second on its machine, "cuda" for one that is alone."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if several() and "LOCAL_RANK" in os.environ else "cuda"


def own_part(n: int) -> range:
    """Which of n things this process does: neighbours, as many as the others within one.

    >>> own_part(3)
    range(0, 3)
    """
    return range(n * rank() // processes(), n * (rank() + 1) // processes())


def on_cpus() -> bool:
    """Are there several processes, and no GPUs for them? accelerate has to be told: else each would train alone."""
    import torch  # takes seconds, which `minit2v --help` does not need

    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def this_process():
    """accelerate's PartialState: which process is the main one, and ways to wait for the others."""
    require_accelerate()
    from accelerate import PartialState

    return PartialState(cpu=on_cpus())


def require_accelerate() -> None:
    """Raises UserError without the package, which training needs and sampling does not."""
    if not find_spec("accelerate"):
        raise UserError(f"training needs the package accelerate, found none; {INSTALL}")


def alone() -> dict[str, str]:
    """The environment for a program that this process starts for itself."""
    return {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}


def require_one(what: str, instead: str) -> None:
    """Raises UserError in one of several processes."""
    if several():
        raise UserError(f"{what}: expected one process, found {processes()}; {instead}")
