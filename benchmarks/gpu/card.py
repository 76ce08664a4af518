"""What every case of `make gpu` uses: the device, sizes, random networks drawn there, time and memory as it counts them."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from benchmarks import pairs, work
from minit2v import presets
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.presets import AutoencoderConfig, ModelScopePreset, TextConfig
from minit2v.systems.acceleration import to_channels_last
from minit2v.systems.modelscope import ModelScopeT2V

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
PACKAGES = ("torch", "diffusers", "open_clip_torch", "accelerate")
THEIRS = ("UNet3DConditionModel", "AutoencoderKL", "DDIMScheduler", "TextToVideoSDPipeline")  # read from diffusers
SHORT = {FLOAT32: "float32", BFLOAT16: "bfloat16", FLOAT16: "float16", torch.float64: "float64"}


class NotBegun(Exception):
    """Why a case measures nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    found: str
    beside: str = ""  # what it is compared with: diffusers, the plan, a limit
    ratio: str = ""
    right: bool | None = None  # None: nothing is judged


@dataclass(frozen=True)
class Setting:
    """Where to measure, and how large. `tiny` is the same work at the smallest sizes."""

    device: torch.device
    tiny: bool

    @property
    def preset(self) -> ModelScopePreset:
        """The released model as in the paper, without dropout; or the smallest of its structure."""
        if not self.tiny:
            return replace(presets.get("modelscope-1.7b"), unet=pairs.FULL)
        unet = replace(pairs.tiny(pairs.MINI), channels=(32,), attention=(True,))  # a second level doubles the tracing
        return ModelScopePreset(
            "tiny", unet=unet, autoencoder=AutoencoderConfig(channels=8, norm_groups=4),
            text=TextConfig(width=32, heads=2, layers=2, embed_dim=32), frames=2, height=16, width=16, steps=2,
        )  # fmt: skip

    def pick(self, full, tiny):
        """One of two values, by size."""
        return tiny if self.tiny else full

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(b, f, h, w) of the latents of one clip."""
        preset = self.preset
        return 1, preset.frames, preset.height // preset.factor, preset.width // preset.factor


class RandomText(nn.Module):
    """In the place of a text tower: features (b, n, d) that are drawn, since a case about time needs no words."""

    def __init__(self, config: TextConfig, dtype: torch.dtype, device: torch.device):
        super().__init__()
        features = torch.randn(2, config.context_length, config.width, generator=torch.Generator().manual_seed(0))
        self.features = nn.Parameter(features.to(device, dtype), requires_grad=False)

    def encode(self, prompts: list[str]) -> Tensor:
        return self.features[[int(prompt == "") for prompt in prompts]]


def drawn(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype = FLOAT32) -> nn.Module:
    """A network with random weights, drawn on the device from a fixed seed, laid out as `minit2v.load` does."""
    with torch.device("meta"):
        module = build().to(dtype)
    module = pairs.redrawn(module.to_empty(device=device)).eval().requires_grad_(False)
    return module if device.type == "cpu" else to_channels_last(module)


def pipeline(setting: Setting, dtype: torch.dtype, tower: bool = False, home: torch.device | None = None,
             **options) -> ModelScopeT2V:  # fmt: skip
    """The model with random weights, which wait on `home` (the setting's device); with `tower` its text tower is a real
    one."""
    preset, device = setting.preset, setting.device
    parts = {
        "text": drawn(lambda: TextEncoder(preset.text), device, dtype) if tower else RandomText(preset.text, dtype, device),
        "unet": drawn(lambda: UNet(preset.unet), device, dtype),
        "autoencoder": drawn(lambda: VQGAN(preset.autoencoder), device, dtype),
    }  # drawn on the device, which takes seconds; a CPU would take minutes
    return ModelScopeT2V(preset, **{name: part.to(home or device) for name, part in parts.items()}, **options)


def inputs(setting: Setting, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(x (b, c, f, h, w), t (b,), context (b, n, d)) of the UNet on the device."""
    return tuple(value.to(setting.device) for value in work.inputs(setting.preset.unet, shape, dtype))


def timed(device: torch.device, call: Callable[[], object]) -> float:
    """Seconds of a call: on a card by its own events, so that launching counts only where the card waits for it."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def race(setting: Setting, calls: dict[str, Callable], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """{name: seconds of each round}; rounds alternate between the calls, after a warm-up."""
    for call in calls.values():
        for _ in range(setting.pick(warm_up, 1)):
            call()
    seconds = {name: [] for name in calls}
    for i in range(setting.pick(rounds, 1)):
        for name in list(calls)[:: 1 if i % 2 else -1]:
            seconds[name].append(timed(setting.device, calls[name]))
    return seconds


def compared(what: str, seconds: dict[str, list[float]]) -> Row:
    """The row of a race of "ours" and, if diffusers is there, "diffusers"."""
    ours = statistics.median(seconds["ours"])
    if "diffusers" not in seconds:
        return Row(what, f"{ours:.4g} s", "no diffusers here")
    theirs = statistics.median(seconds["diffusers"])
    each = [a / b for a, b in zip(seconds["ours"], seconds["diffusers"])]
    return Row(what, f"{ours:.4g} s", f"{theirs:.4g} s", f"{ours / theirs:.2f} ({min(each):.2f}–{max(each):.2f})")


def peak(device: torch.device, call: Callable[[], object]) -> tuple[int, int] | None:
    """(allocated, reserved) bytes on a card at the widest moment of a call; None elsewhere."""
    if device.type != "cuda":
        call()
        return None
    free_memory(device)
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def machine(setting: Setting) -> str:
    """One line about the hardware, the packages and the sizes."""
    device = setting.device
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    else:
        name = f"{platform.machine()}, {os.cpu_count()} cores, no CUDA device"
    return f"{name}; {', '.join(versions)}{'; smallest sizes' * setting.tiny}."


def free_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


@contextmanager
def exact_float32():
    """Within the block float32 keeps all its digits; by default a card rounds the inputs of convolutions to TF32."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


def there(package: str) -> bool:
    """Whether a package is there and can be imported, with all that is used of diffusers."""
    try:
        module = import_module(package)
        return package != "diffusers" or all(hasattr(module, name) for name in THEIRS)
    except Exception:  # a package that was built for another torch may raise anything
        return False
