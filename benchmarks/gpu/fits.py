"""Does `minit2v weights plan` foretell the peak memory of a card?"""

from collections.abc import Iterator

import torch

from benchmarks.gpu.card import FLOAT16, FLOAT32, SHORT, Row, Setting, free_memory, peak, pipeline
from minit2v.memory.plan import CONTEXT, OPTIONS, gigabytes, plan

TOLERANCE = 0.15  # share of the measured peak by which the plan may be off


def memory(setting: Setting, frames: int, width: int, height: int) -> Iterator[Row]:
    """A clip of two steps with each set of options against the plan. On a CPU nothing is judged, only run."""
    if setting.tiny:
        frames, width, height = 2, 16, 16
    size = {"frames": frames, "width": width, "height": height}
    dtype, card = setting.pick(FLOAT16, FLOAT32), setting.device.type == "cuda"
    planned = plan(setting.preset, dtype=SHORT[dtype], device=setting.device.type, **size)
    for options, (batched, offload) in OPTIONS.items():
        if options not in planned.peaks:
            continue
        what = f"peak memory, {frames} frames of {width} x {height}, {options or 'no option'}"
        beside = f"plan {gigabytes(planned.peaks[options])}"
        try:
            found = peak_of(setting, dtype, batched, offload, size)
        except torch.OutOfMemoryError:  # a smaller card, of which the plan must have said so
            found = None
        free_memory(setting.device)
        if not card:
            yield Row(what, "not measured on a CPU", beside)
            continue
        if found is None:
            yield Row(what, "does not fit", beside, right=planned.peaks[options] > (1 - TOLERANCE) * memory_of_card())
            continue
        allocated, reserved = found
        measured = allocated + context()
        ratio = planned.peaks[options] / measured
        note = f"{gigabytes(measured)}, {gigabytes(reserved + context())} with what the allocator keeps"
        yield Row(what, note, beside, f"{ratio:.2f}", abs(ratio - 1) <= TOLERANCE)
    if card:
        yield Row("CUDA's own share of the memory", gigabytes(context()), f"plan {gigabytes(CONTEXT)}")


def peak_of(setting: Setting, dtype: torch.dtype, batched: bool, offload: bool, size: dict) -> tuple[int, int] | None:
    """What `peak` finds while a clip of this size is sampled; the model is gone when it returns."""
    home, elsewhere = (torch.device("cpu"), setting.device) if offload else (setting.device, None)
    pipe = pipeline(setting, dtype, True, home, batched=batched, offload_device=elsewhere)
    return peak(setting.device, lambda: pipe("a panda", steps=2, **size))


def memory_of_card() -> int:
    """Bytes of the card in all."""
    return torch.cuda.mem_get_info()[1]


def context() -> int:
    """Bytes of the card that are in use and not PyTorch's; of this process, if no other one uses the card."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()
