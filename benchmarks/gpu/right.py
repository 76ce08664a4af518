"""Is what a card computes right? Small cuts against float64 on the CPU, one seed on both devices, a whole clip."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

import minit2v
from benchmarks.gpu.card import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    SHORT,
    Row,
    Setting,
    drawn,
    exact_float32,
    inputs,
    pipeline,
)
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.blocks import MOST_SEQUENCES, attend, attention_map
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet

LIMITS = {  # precision -> largest relative error of a network with random weights, which amplify rounding
    "float32": (FLOAT32, 1e-4, True),
    "float32 as a card does by default": (FLOAT32, 0.01, False),
    "bfloat16": (BFLOAT16, 0.05, False),
    "float16": (FLOAT16, 0.01, False),
}
ATTENTION = 5e-3  # the same for one attention layer in float16
PIXELS = 2  # of 255: how much one seed may differ between the devices
PROMPT = "a large red circle moves left slowly"  # in the words of mini


def unet(setting: Setting) -> Iterator[Row]:
    shape = setting.pick((1, 2, 16, 16), (1, 2, 8, 8))
    network = drawn(lambda: UNet(setting.preset.unet), setting.device)
    yield from errors("UNet", network, network.forward, inputs(setting, shape, FLOAT32))


def autoencoder(setting: Setting) -> Iterator[Row]:
    network = drawn(lambda: VQGAN(setting.preset.autoencoder), setting.device)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(setting.device)
    yield from errors("autoencoder, decoding", network, network.decode, (latents,))


def text(setting: Setting) -> Iterator[Row]:
    network = drawn(lambda: TextEncoder(setting.preset.text), setting.device)
    tokens = network.tokens(["a panda eats bamboo on a rock"]).to(setting.device)
    yield from errors("text tower", network, network.forward, (tokens,))


@torch.no_grad()
def errors(name: str, network: nn.Module, method: Callable, values: tuple[Tensor, ...]) -> Iterator[Row]:
    """The relative error of each precision against float64 on the CPU."""
    cast = lambda module, dtype, device: [x.to(device, dtype if x.is_floating_point() else None) for x in values]
    reference = copy.deepcopy(network).to("cpu", torch.float64)
    expected = getattr(reference, method.__name__)(*cast(reference, torch.float64, "cpu"))
    device = values[0].device
    for precision, (dtype, limit, exact) in LIMITS.items():
        module = network if dtype == FLOAT32 else copy.deepcopy(network).to(dtype)
        with exact_float32() if exact else nullcontext():
            found = getattr(module, method.__name__)(*cast(module, dtype, device)).to("cpu", torch.float64)
        error = ((found - expected).norm() / expected.norm()).item()
        what = f"{name}, {precision}: relative error against float64 on the CPU"
        yield Row(what, f"{error:.1e}", f"at most {limit:g}", right=error <= limit)


def attention(setting: Setting) -> Iterator[Row]:
    """More sequences than a kernel takes at once: a clip of 1024 x 576 pixels has 73,728 at four clips with guidance."""
    n, dtype = MOST_SEQUENCES + 4_465, setting.pick(FLOAT16, FLOAT32)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, 1, 4, 16, generator=generator).to(setting.device, dtype) for _ in range(3))
    expected = attention_map(q.float(), k.float()) @ v.float()
    error = ((attend(q, k, v).float() - expected).norm() / expected.norm()).item()
    yield Row(f"attention of {n:,} sequences, {SHORT[dtype]}: relative error", f"{error:.1e}", f"at most {ATTENTION:g}",
              right=error <= ATTENTION)  # fmt: skip


def mini(setting: Setting) -> Iterator[Row]:
    """The shipped model: one seed, one clip, on both devices."""
    options = setting.pick({}, {"frames": 2, "steps": 2}) | {"seed": 0}
    expected = minit2v.load("mini", device="cpu", dtype="float32")(PROMPT, **options).pixels.astype(np.int16)
    pipe = minit2v.load("mini", device=setting.device.type, dtype="float32")
    for name, precision in {"": exact_float32, " as a card does by default": nullcontext}.items():
        with precision():
            difference = int(np.abs(pipe(PROMPT, **options).pixels - expected).max())
        right = difference <= PIXELS if not name else None
        yield Row(f"mini, one seed in float32{name}: largest difference from the CPU's pixels", f"{difference} of 255",
                  f"at most {PIXELS}", right=right)  # fmt: skip


def clip(setting: Setting) -> Iterator[Row]:
    """A whole clip in half precision; the pipeline raises an error for numbers that are not finite."""
    dtype, preset = setting.pick(FLOAT16, FLOAT32), setting.preset
    pixels = pipeline(setting, dtype)("a panda", steps=preset.steps).pixels
    what = f"{preset.frames} frames, {preset.steps} steps, {SHORT[dtype]}, random weights: finite"
    yield Row(what, f"{pixels.shape[0]} frames", right=pixels.shape == (preset.frames, preset.height, preset.width, 3))
