"""How much memory a clip takes, before anything is downloaded: `minit2v weights plan`.

    peak  =  Python and PyTorch  +  weights  +  tensors of the busiest network  +  memory that the allocator keeps

Weights and tensors are counted, not guessed: the networks run on tensors that have shapes and no numbers, and the bytes
of all live tensors are added up. The other two terms were measured on Linux. Options change what is in memory at once:

    (no option)     both halves of guidance as one batch, four frames decoded at a time, all networks on the device
    --sequential    the halves in turn, one frame at a time
    --offload       on a GPU: only the network that computes is on the device, the others wait in the computer's memory
    both

Peaks on a CPU are within 15 % of measured ones (tests/test_memory.py). Those of a GPU have not been measured.
"""

import weakref
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minit2v.checkpoints.fill import MAPPED
from minit2v.checkpoints.find import preset_of
from minit2v.devices import find_dtype
from minit2v.errors import UserError
from minit2v.memory.amounts import as_bytes, gigabytes
from minit2v.memory.measured import RUNTIME, runtime
from minit2v.presets import Preset
from minit2v.ranges import Count, Place, Size, Weight, public
from minit2v.systems import build, system_of
from minit2v.systems.settings import SamplingSettings, checked

CONTEXT = 0.5e9  # CUDA's own share of a GPU; not measured
HEAP = 80e6  # glibc hands out blocks below 32 MB from a heap, of which it gives back little before the end
KERNELS = 20e6  # oneDNN's reordered weights and scratch, for one layer at a time
OPTIONS = {"": (True, False), "--sequential": (False, False), "--offload": (True, True),
        "--sequential --offload": (False, True)}  # option -> (batched, offload)  # fmt: skip


class Live(TorchDispatchMode):
    """Counts the bytes of all live tensors except those of a module; `peak` is their maximum."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.now, self.peak = 0, 0
        self.known = {tensor.untyped_storage()._cdata: 0 for tensor in (*module.parameters(), *module.buffers())}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return result

    def count(self, storage) -> None:
        key = storage._cdata
        if key not in self.known:  # else another view of the same bytes
            self.known[key] = storage.nbytes()
            self.now += self.known[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.freed, key)

    def freed(self, key: int) -> None:
        self.now -= self.known.pop(key, 0)


def working(module: nn.Module, call, *shapes: tuple[int, ...], dtype: torch.dtype) -> int:
    """Peak bytes of live tensors during `call` on inputs of these shapes. Inputs of one or two axes are whole numbers
    (timesteps, token ids)."""
    inputs = [torch.zeros(shape, dtype=dtype if len(shape) > 2 else torch.long) for shape in shapes]
    live = Live(module)
    for x in inputs:
        live.count(x.untyped_storage())
    with live:
        call(*inputs)
    return live.peak


@contextmanager
def no_numbers(dtype: torch.dtype):
    """Within the block tensors have shapes and this dtype, and hold no numbers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class MemoryPlan:
    """Peak bytes of sampling, one figure for each combination of options, and which of them fit into `memory`."""

    title: str  # model, dtype, device and clip in words
    weights: dict[str, int]  # network -> bytes
    loading: int  # peak of loading, all networks on the device
    peaks: dict[str, int]  # options -> peak of loading and sampling, on the device
    host: dict[str, int]  # options -> peak in the computer's memory, where the device is another one
    memory: float | None  # of the device

    @property
    def fits(self) -> str | None:
        """The fastest options that fit; None if none do, or if no memory was named."""
        if self.memory is None:
            return None
        return next((options for options, peak in self.peaks.items() if peak <= self.memory), None)

    def line(self) -> str:
        """Peak and advice, in one line."""
        least = min(self.peaks, key=self.peaks.get)
        takes = f"{self.title} takes {gigabytes(self.peaks[''])} at most"
        if least:
            takes += f", {gigabytes(self.peaks[least])} with {least}"
        if self.memory is None:
            return takes
        room = f"of {gigabytes(self.memory)}"
        if self.fits is None:
            return f"{takes}: too much {room}; use half precision, fewer frames, or smaller ones"
        return f"{takes}: {room} it fits" + (f" with {self.fits}" if self.fits else "")

    def table(self) -> str:
        """All figures, one a row, and the line."""
        total = sum(self.weights.values())
        rows = [(f"weights of the {name}", size) for name, size in self.weights.items()] + [("weights", total)]
        rows += [("peak of loading" + ", without --offload" * bool(self.host), self.loading)]
        for options, peak in self.peaks.items():
            rows.append((f"peak of sampling {options}".rstrip(), peak))
            if options in self.host:
                rows.append(("  and in the computer's memory", self.host[options]))
        return "\n".join([*(f"{name:<48}{gigabytes(size):>10}" for name, size in rows), "", self.line()])


@public
def plan(model: Place | Preset = "modelscope-1.7b", memory: Weight | str | None = None, dtype: str = "auto",
         frames: int | None = None, height: int | None = None, width: int | None = None,
         device: str = "cpu", clips: Size = 1, window: Count = 0) -> MemoryPlan:  # fmt: skip
    """Peak memory of sampling `clips` clips at once.

    `model` is a preset, a shipped name or a folder; `memory` is in bytes, or as "8GB"; `device` is "cpu", "cuda" or
    "mps", which need not be there. None: the model's own size; no memory to compare with. Raises UserError for a size that
    the model cannot make, an unknown dtype or device.

    >>> plan("nano", memory="4GB").fits
    ''
    """
    preset = model if isinstance(model, Preset) else preset_of(model)
    if device not in ("cpu", "cuda", "mps"):
        raise UserError(f"device: expected cpu, cuda or mps, found {device!r}")
    kind, memory = find_dtype(dtype, torch.device(device)), as_bytes(memory)
    wanted = SamplingSettings(frames=frames, height=height, width=width, window=window)
    settings = checked(["a clip"], wanted, preset)
    sizes, counts = _counted(preset, settings, kind, clips)
    pixels, total, process = pixels_of(settings, clips), sum(sizes.values()), runtime()
    mapped, peaks, host = min(total, MAPPED), {}, {}
    loading = int(CONTEXT + total if device == "cuda" else process + total + mapped)
    for options, (batched, offload) in OPTIONS.items():
        if device == "cuda" or not offload:
            sampling = sum(moment(sizes, counts[batched], pixels, device, offload, process).values())
            peaks[options] = sampling if device == "cuda" else max(loading, sampling)
        if device == "cuda":
            host[options] = beside(sizes, offload, process)
    clip = f"{settings.frames} frames of {settings.width}x{settings.height}"
    title = f"{preset.name} in {str(kind).removeprefix('torch.')} on {device}, {clip},"
    return MemoryPlan(title, sizes, loading, peaks, host, memory)


def pixels_of(settings: SamplingSettings, clips: int = 1) -> int:
    """Bytes of the frames of a run: those just decoded, and all of them together."""
    return 2 * clips * settings.frames * settings.height * settings.width * 3


def moment(weights: dict[str, int], tensors: dict[str, int], pixels: int, device: str, offload: bool = False,
           process: float = RUNTIME) -> dict[str, int]:  # fmt: skip
    """Bytes at the widest moment of sampling, by what they are for; their sum is the peak on the device.

    `weights` and `tensors` are bytes of each network, at rest and at work; `process` is what Python and PyTorch take.

    >>> sum(moment({"unet": 60, "text": 30}, {"unet": 10, "text": 25}, 0, "cuda", offload=True).values()) - CONTEXT
    70.0
    """
    name, fixed, kept = busiest(weights, tensors, offload), CONTEXT, 0.0
    held, work = sum(weights.values()), tensors[name]  # eq (11.2) · ZeRO, section 3
    if offload:
        held = weights[name]  # eq (11.3) · ZeRO, section 3
    if device != "cuda":
        fixed, kept = process, min(work, HEAP) + KERNELS
    parts = {"program": fixed, "weights": held, "tensors": work, "frames": pixels, "allocator": kept}
    return {name: int(size) for name, size in parts.items()}


def busiest(weights: dict[str, int], tensors: dict[str, int], offload: bool = False) -> str:
    """The network at whose work the peak is."""
    return max(tensors, key=lambda name: tensors[name] + (weights[name] if offload else 0))


def beside(weights: dict[str, int], offload: bool = False, process: float = RUNTIME) -> int:
    """Bytes in the computer's memory while a GPU samples."""
    total = sum(weights.values())
    return int(process + (total if offload else 0) + min(total, MAPPED))


def _counted(preset: Preset, settings: SamplingSettings, dtype: torch.dtype, clips: int):
    """(bytes of the weights of each network, {batched: {network: bytes of its tensors at the widest moment}})."""
    system, counts = system_of(preset), {}
    with no_numbers(dtype):
        modules = {name: network.eval() for name, network in build(preset).items()}
        sizes = {name: sum(p.numel() * p.element_size() for p in m.parameters()) for name, m in modules.items()}
        for batched in (True, False):
            calls = system.pipeline.calls(preset, settings, clips, batched)
            counts[batched] = {
                name: working(modules[name], getattr(modules[name], method), *shapes, dtype=dtype)
                for name, (method, shapes) in calls.items()
            }
    return sizes, counts
