"""What a GPU can do: its memory, its precisions, and with which options the released model fits.

`minit2v doctor` and the notebooks say it in these words.
"""

import warnings
from dataclasses import dataclass

import torch

from minit2v.errors import UserError
from minit2v.memory.plan import OPTIONS, gigabytes, plan
from minit2v.presets import Preset
from minit2v.systems import build

TENSOR_CORES, BFLOAT16 = (7, 0), (8, 0)  # compute capability from which a card multiplies in float16, in bfloat16, fast
PLENTY = 10, 4e9  # times the weights, or bytes if that is more: holds any usual clip, so that nothing is counted


@dataclass(frozen=True)
class Card:
    """A CUDA device."""

    name: str
    memory: int  # bytes in all
    free: int  # bytes that no program uses now
    capability: tuple[int, int]  # compute capability (major, minor)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The dtypes that are fast here, the fastest first."""
        half = ("float16",) if self.capability >= TENSOR_CORES else ()
        return (*half, *(("bfloat16",) if self.capability >= BFLOAT16 else ()), "float32")

    def line(self) -> str:
        """Name, memory and precisions, in one line.

        >>> Card("GPU", 8_000_000_000, 7_500_000_000, (7, 5)).line()
        'GPU, 8.00 GB of memory, 7.50 GB free, fast in float16 and float32'
        """
        *others, last = self.precisions
        fast = f"{', '.join(others)} and {last}" if others else last
        return f"{self.name}, {gigabytes(self.memory)} of memory, {gigabytes(self.free)} free, fast in {fast}"


def find_card() -> Card | None:
    """The CUDA device that `minit2v.load` takes; None if there is none."""
    if not torch.cuda.is_available():
        return None
    properties, (free, _) = torch.cuda.get_device_properties(), torch.cuda.mem_get_info()
    return Card(properties.name, properties.total_memory, free, (properties.major, properties.minor))


def options_that_fit(preset: Preset, free: float, dtype: torch.dtype, batched: bool | None = None,
                     offload: bool | None = None) -> tuple[bool, bool]:  # fmt: skip
    """(batched, offload) of the fastest way to sample a clip within `free` bytes of a card, among those that have the
    values which are not None; warns if it is not the fastest of all. Without any that fits, the one that needs least.
    """
    allowed = {options: way for options, way in OPTIONS.items()
               if all(wanted in (None, has) for wanted, has in zip((batched, offload), way))}  # fmt: skip
    first = next(iter(allowed.values()))
    if len(allowed) == 1 or free > plenty(preset, dtype):
        return first
    name = str(dtype).removeprefix("torch.")
    try:
        planned = plan(preset, free, name, device="cuda")
    except UserError:  # a system that cannot be planned
        return first
    least = min(allowed, key=planned.peaks.get)
    options = next((options for options in allowed if planned.peaks[options] <= free), least)
    if allowed[options] != first:
        warnings.warn(f"load: {gigabytes(free)} of the card are free; goes on with {options}", stacklevel=3)
    return allowed[options]


def plenty(preset: Preset, dtype: torch.dtype) -> float:
    """Bytes of a card that hold a clip of the model beyond doubt."""
    with torch.device("meta"):
        networks = build(preset).values()
    times, least = PLENTY
    return max(least, times * dtype.itemsize * sum(p.numel() for network in networks for p in network.parameters()))


def describe_card(model: str = "modelscope-1.7b") -> str:
    """What the card can do, and which options a clip of the model needs there; or that there is no card, in one line.

    Counts the memory of a clip first, which takes a while for a large model.
    """
    card = find_card()
    if card is None:
        return "no CUDA device; models run on the CPU, in float32"
    return f"{card.line()}; {plan(model, card.free, device='cuda').line()}"
