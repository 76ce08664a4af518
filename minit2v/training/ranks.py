"""The processes that train together, as `torchrun` starts them; one alone is the usual case."""

import os

import torch
from accelerate import PartialState


def on_cpus() -> bool:
    """Are there several processes, and no GPUs for them? accelerate has to be told: else each would train alone."""
    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def this_process() -> PartialState:
    """Its rank, how many there are, and ways to wait for the others."""
    return PartialState(cpu=on_cpus())
