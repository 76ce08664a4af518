"""The work that is measured: each function prepares one side, in that side's process, and returns the call of a round.

"ours" is prepared as `minit2v.load` and `minit2v train` prepare it, "diffusers" as a user of its classes would.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import minit2v
from benchmarks import pairs
from minit2v.checkpoints.export import export
from minit2v.memory.allocator import keep_freed_memory
from minit2v.presets import AutoencoderConfig, Preset, UNetConfig
from minit2v.systems import build

TOKENS = 77  # tokens of a text
PROMPT = "a panda eats bamboo on a rock"


def inputs(config: UNetConfig, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(x (b, c, f, h, w), t (b,), context (b, n, d)) for a shape (b, f, h, w)."""
    b, f, h, w = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(b, config.in_channels, f, h, w, generator=generator).to(dtype)
    context = torch.randn(b, TOKENS, config.context_dim, generator=generator).to(dtype)
    return x, torch.linspace(900, 1, b).long(), context


def unet(side: str, config: UNetConfig, dtype: torch.dtype) -> nn.Module:
    """The UNet of a side."""
    ours = pairs.our_unet(config, dtype)
    if side == "ours":
        keep_freed_memory()
        return ours
    return pairs.their_unet(ours)


def answer(output) -> Tensor:
    """The tensor in a network's output; diffusers wraps it."""
    return output if isinstance(output, Tensor) else output.sample


def forward(side: str, config: UNetConfig, dtype: torch.dtype):
    """The UNet's forward pass on inputs of a shape (b, f, h, w)."""
    network = unet(side, config, dtype)

    @torch.no_grad()
    def call(shape: tuple[int, ...]) -> Tensor:
        return answer(network(*inputs(config, shape, dtype)))

    return call


def training(side: str, config: UNetConfig, dtype: torch.dtype, light: bool):
    """A training step: forward, backward, and AdamW on float32 parameters, computed in `dtype`.

    `light` keeps the parameters in `dtype` as well and takes a step of plain gradient descent: AdamW's state would not
    fit into memory. The call returns the loss and the norm of the gradient.
    """
    network = unet(side, config, dtype if light else torch.float32).train()
    if side == "ours":
        network.to(memory_format=torch.channels_last)  # as `UNetTask` does
    optimizer = (torch.optim.SGD if light else torch.optim.AdamW)(network.parameters(), lr=1e-4)

    return lambda shape: training_step(network, optimizer, dtype, *inputs(config, shape, dtype))()


def training_step(network: nn.Module, optimizer, dtype: torch.dtype, x: Tensor, t: Tensor, context: Tensor):
    """A step of an optimizer, as a call: forward in `dtype`, backward, clipped gradient. Returns loss and norm (2,)."""

    def call() -> Tensor:
        parameters = {name: p.to(dtype) for name, p in network.named_parameters()}
        output = answer(functional_call(network, parameters, (x, t, context)))
        loss = F.mse_loss(output.float(), x.float())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return torch.stack([loss, norm])

    return call


def decoding(side: str, config: AutoencoderConfig):
    """Latents to frames."""
    network = pairs.our_autoencoder(config)
    if side == "ours":
        keep_freed_memory()
    else:
        network = pairs.their_autoencoder(network)

    @torch.no_grad()
    def call(shape: tuple[int, ...]) -> Tensor:
        n, h, w = shape
        latents = torch.randn(n, config.latent_channels, h, w, generator=torch.Generator().manual_seed(0))
        return answer(network.decode(latents))

    return call


def writing(preset: Preset, folder: Path):
    """Write a randomly initialized model in diffusers' layout."""

    def call() -> list:
        parts = {name: pairs.redrawn(network) for name, network in build(preset).items()}
        export(folder, "diffusers", preset, **parts)
        return []

    return call


def sampling(side: str, folder: Path):
    """A clip from a prompt, by either library's pipeline from the same folder; pixels from 0 to 255."""
    pipe = minit2v.load(folder, device="cpu") if side == "ours" else their_pipeline(folder)

    def call(f: int, size: int, steps: int):
        noise = torch.randn(1, 4, f, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
        if side == "ours":
            return pipe(PROMPT, noise=noise, frames=f, height=size, width=size, steps=steps, guidance=9.0).pixels
        options = {"num_frames": f, "height": size, "width": size, "num_inference_steps": steps, "guidance_scale": 9.0}
        return 255 * pipe(PROMPT, latents=noise, output_type="np", **options).frames[0]

    return call


def their_pipeline(folder: Path):
    """diffusers' text-to-video pipeline, without its progress bar."""
    from diffusers import TextToVideoSDPipeline

    pipe = TextToVideoSDPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def multiplying(n: int, dtype: torch.dtype):
    """The product of two n x n matrices: 2 n³ operations."""
    a, b = torch.randn(2, n, n).to(dtype)
    return lambda *_: (a @ b)[:1]
