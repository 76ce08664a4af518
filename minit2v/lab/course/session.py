"""The first cell of every notebook: seed, device and mode, printed in one line.

    MINIT2V_FAST=1   fast      what the tests run: seconds a notebook
                     default   a laptop's CPU: minutes a notebook; the committed outputs are from here
    MINIT2V_FULL=1   full      longer trainings, on a GPU if there is one

A notebook's text and its printed outputs are the same in every mode; only `ctx.pick` knows the difference.
"""

import os
from dataclasses import dataclass
from functools import cached_property

import minit2v
from minit2v.errors import UserError
from minit2v.files import say

SEED = 0  # of torch, of numpy and of every `Session.generator()`


@dataclass(frozen=True)
class Session:
    """The session of a notebook, made by `setup`.

    >>> Session(5, "fast", "cpu").pick(fast=10, default=500)
    10
    """

    notebook: int  # its number
    mode: str  # "fast", "default" or "full"
    device: str  # what torch calls it; "cpu" unless the mode is full, so that the same is printed everywhere

    def pick(self, *, fast, default, full=None):
        """The value for this mode; full takes the default's if it has none of its own."""
        return {"fast": fast, "default": default, "full": default if full is None else full}[self.mode]

    def generator(self, seed=SEED):
        """A fresh `torch.Generator` on the CPU: the same numbers each time, whatever ran before."""
        import torch

        return torch.Generator("cpu").manual_seed(seed)

    @cached_property
    def pipe(self):
        """The shipped model, loaded when it is first asked for."""
        return minit2v.load("mini", device=self.device)


def mode():
    """The mode that the environment asks for. Raises UserError where it asks for two."""
    fast, full = (os.environ.get(name, "") not in ("", "0") for name in ("MINIT2V_FAST", "MINIT2V_FULL"))
    if fast and full:
        raise UserError("mode: expected MINIT2V_FAST or MINIT2V_FULL, found both; unset one of them")
    return "fast" if fast else "full" if full else "default"


def setup(notebook):
    """Seed everything, choose mode and device, and print them with the versions in one line.

    Args:
        notebook: its number.
    Returns:
        the notebook's `Session`. Nothing is put into the notebook's own names.

    In fast mode there is one thread and no progress bar, so that two runs print the same.
    """
    if not isinstance(notebook, int) or not 0 <= notebook <= 99:
        raise UserError(f"setup: expected the number of a notebook, like 5, found {notebook!r}")
    chosen = mode()
    if chosen == "fast":
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported: before torch, which imports it
    import numpy as np
    import torch

    from minit2v.devices import find_device

    torch.manual_seed(SEED)
    np.random.seed(SEED)
    if chosen == "fast":
        torch.set_num_threads(1)
    device = "cpu"
    if chosen == "full":
        device = find_device("auto").type
    versions = f"minit2v {minit2v.__version__}, torch {torch.__version__.partition('+')[0]}"
    say(f"notebook {notebook:02} · mode {chosen} · device {device} · seed {SEED} · {versions}")
    return Session(notebook, chosen, device)
