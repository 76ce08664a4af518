"""What a GPU can do: its memory, its precisions, and with which options the released model fits.

`minit2v doctor` and the notebooks say it in these words.
"""

from dataclasses import dataclass

import torch

from minit2v.memory.plan import gigabytes, plan

TENSOR_CORES, BFLOAT16 = (7, 0), (8, 0)  # compute capability from which a card multiplies in float16, in bfloat16, fast


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


def describe_card(model: str = "modelscope-1.7b") -> str:
    """What the card can do, and which options a clip of the model needs there; or that there is no card, in one line.

    Counts the memory of a clip first, which takes a while for a large model.
    """
    card = find_card()
    if card is None:
        return "no CUDA device; models run on the CPU, in float32"
    return f"{card.line()}; {plan(model, card.free, device='cuda').line()}"
