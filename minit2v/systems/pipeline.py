"""Text to video, as far as it is the same in every system: settings are checked, text is encoded, latents are decoded.

    prompt ----text--> context (b n d) ----.
    seed ------------> noise (b c f h w) --+--> steps of the system --> latents (b c f h w) --> pixels (b f H W 3)
    negative --text--> context (b n d) ----'    one Step each           autoencoder

What a system adds is `steps`: from context and settings to one `Step` after the other (see `modelscope`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from minit2v.diffusion.samplers import Step
from minit2v.errors import UserError
from minit2v.pixels import Clips, to_pixels, to_signed
from minit2v.presets import Preset
from minit2v.ranges import Array, Size, public
from minit2v.systems.settings import SamplingSettings, checked
from minit2v.video import Clip

Latents = Annotated[Tensor, Array("b c f h w")]


class TextToVideo(ABC):
    """A text-to-video model. Its parts are attributes: `preset`, and each network under its name.

    Args:
        preset: sizes and defaults, of this system.
        networks: by name, those of the system's row. A network `text` has `.encode(prompts) -> (b, n, d)`; a network
            `autoencoder` has `.encode(frames (n, 3, H, W) in [-1, 1]) -> (n, c, h, w)` and its inverse `.decode`. A
            system without one makes pixels (c = 3), one without the other overrides `encode_text`.
        batched: run the two halves of guidance as one batch, decode four frames at a time; False needs half the memory
            and is a little slower.
        offload_device: compute device that each network is moved to for its forward pass; None: they stay.
        graphs: call the network that denoises through CUDA graphs (see `acceleration`), if the system can.
    """

    def __init__(self, preset: Preset, batched: bool = True, offload_device: torch.device | None = None,
                 graphs: bool = False, **networks: nn.Module):  # fmt: skip
        self.preset, self.batched, self.offload_device, self.graphs = preset, batched, offload_device, graphs
        self.names = tuple(networks)
        for name, network in networks.items():
            setattr(self, name, network.eval())

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Each network by its name."""
        return {name: getattr(self, name) for name in self.names}

    @property
    def device(self) -> torch.device:
        return self.offload_device or self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        return self._parameter.dtype

    @property
    def _parameter(self) -> nn.Parameter:
        return next(p for network in self.networks.values() for p in network.parameters())

    @contextmanager
    def working(self, network: nn.Module):
        """Within the block the network is on the device where it computes."""
        if self.offload_device is None:
            yield
            return
        home = next((p.device for p in network.parameters()), self.offload_device)
        try:
            yield network.to(self.offload_device)
        finally:
            network.to(home)

    @public
    def __call__(self, prompt: str | Sequence[str], callback: Callable[[Step], None] | None = None,
                 progress: bool = False, **settings) -> Clip | list[Clip]:  # fmt: skip
        """A clip of a prompt; or a list of clips, none of which depends on the others of the list.

        `callback` is called with every Step; `progress` shows a bar; `settings` are the fields of `SamplingSettings`.
        Raises UserError, before any work, for a setting out of range.
        """
        prompts, settings = self.checked(prompt, settings)
        steps = self.sampled(prompts, settings)
        if progress:
            from tqdm.auto import tqdm

            steps = tqdm(steps, "denoising", self.count(settings), unit="step")
        for step in steps:
            if callback is not None:
                callback(step)
        clips = self.clips(step, settings)
        return clips[0] if isinstance(prompt, str) else clips

    def count(self, settings: SamplingSettings) -> int:
        """How many steps a run takes."""
        return settings.steps - settings.skip

    @public
    def stream(self, prompt: str | Sequence[str], **settings) -> Iterator[Step]:
        """One `Step` per denoising step, each computed when it is asked for; its tensors are (b, c, f, h, w).

        `settings` are the fields of `SamplingSettings`. Raises UserError at once for a setting out of range.
        """
        return self.sampled(*self.checked(prompt, settings))

    def checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], SamplingSettings]:
        """Prompts as a list, and settings whose gaps are filled by the preset. Raises UserError."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        return prompts, checked(prompts, SamplingSettings(**settings), self.preset)

    def sampled(self, prompts: list[str], settings: SamplingSettings) -> Iterator[Step]:
        """The steps of a run with settings that are `checked`."""
        return self.steps(*self.encode_text(prompts, settings), settings)

    def encode_text(self, prompts: list[str], settings: SamplingSettings) -> tuple[Tensor, Tensor | None]:
        """Context (b, n, d) of the prompts, and that of the negative prompt, which guidance 1 does not need."""
        with self.working(self.text):
            context = self.text.encode(prompts).to(self.device, self.dtype)
            if settings.guidance == 1:
                return context, None
            unconditional = self.text.encode([settings.negative]).to(context)
            return context, unconditional.expand_as(context)  # (1 n d) -> (b n d)

    @abstractmethod
    def steps(self, context: Tensor, unconditional: Tensor | None, settings: SamplingSettings) -> Iterator[Step]:
        """The system: from context (b, n, d) to the steps of a run, each computed when it is asked for."""

    @classmethod
    def calls(cls, preset: Preset, settings: SamplingSettings, clips: int, batched: bool) -> dict[str, tuple]:
        """What each network is called with at its widest, for `memory.plan`: name -> (method, shapes of the inputs).

        Raises UserError where the system does not say.
        """
        raise UserError(f"memory: expected a system that says how it calls its networks, found {preset.system!r}")

    def clips(self, step: Step, settings: SamplingSettings) -> list[Clip]:
        """The clips that the latents of a step are, decoded."""
        return [Clip(pixels, settings.fps) for pixels in self.decode(step.x)]

    @public
    @torch.inference_mode()
    def encode(self, pixels: Clips, chunk: Size = 4) -> Tensor:
        """Pixels uint8 (b, f, H, W, 3) -> latents as the system leaves them (b, c, f, h, w), float32; see `decode`."""
        frames = torch.from_numpy(np.require(pixels, requirements="CW")).flatten(0, 1)  # (b f H W 3) -> ((b f) H W 3)
        with self.working(self.codec):
            signed = (to_signed(part.to(self.device)).to(self.dtype) for part in frames.split(chunk))
            latents = torch.cat([self.codec.encode(part).float() for part in signed])
        require_finite(latents, "latents")
        latents = latents.unflatten(0, pixels.shape[:2]).transpose(1, 2).contiguous()  # ((b f) c h w) -> (b c f h w)
        return latents * self.preset.scale_factor

    @public
    @torch.inference_mode()
    def decode(self, latents: Latents, chunk: Size | None = None) -> np.ndarray:
        """Latents as the system leaves them (b, c, f, h, w) -> pixels uint8 (b, f, H, W, 3).

        `chunk` frames (4, or 1 if not `batched`) at a time go through the autoencoder: frames are independent, so
        this bounds the memory; sums may be rounded otherwise. Raises UserError for numbers that are not finite.
        """
        require_finite(latents, "latents")
        latents = (latents / self.preset.scale_factor).to(self.device, self.dtype)
        frames, pixels = latents.transpose(1, 2).flatten(0, 1), []  # (b c f h w) -> ((b f) c h w)
        with self.working(self.codec):
            for part in frames.split(chunk or (4 if self.batched else 1)):
                decoded = self.codec.decode(part)  # eq (12.2) · ModelScopeT2V, section 3.1
                require_finite(decoded, "frames")
                pixels.append(to_pixels(decoded, rounded=False))
        return torch.cat(pixels).unflatten(0, (len(latents), -1)).cpu().numpy()

    @classmethod
    def from_pretrained(cls, name: str, **options) -> "TextToVideo":
        """The model of a shipped name, a folder or the hub, of whatever system it is: `minit2v.load`."""
        import minit2v  # the front door: what reads and writes files stands above the systems

        return minit2v.load(name, **options)

    def save_pretrained(self, folder, **card):
        """Write it as a folder; see `minit2v.loading.save_pretrained`."""
        import minit2v

        return minit2v.save_pretrained(self, folder, **card)

    def push_to_hub(self, hub_id: str, **options) -> str:
        """Publish it as "owner/name" of the hub; see `minit2v.loading.push_to_hub`."""
        import minit2v

        return minit2v.push_to_hub(self, hub_id, **options)

    @property
    def codec(self) -> nn.Module:
        """What takes frames to latents and back: the autoencoder, or nothing at all."""
        return getattr(self, "autoencoder", PIXELS)


class Pixels(nn.Module):
    """The autoencoder of a system that has none: its latents are pixels in [-1, 1]."""

    def encode(self, frames: Tensor) -> Tensor:
        return frames

    decode = encode


PIXELS = Pixels()


def require_finite(values: Tensor, what: str) -> None:
    """Raises UserError for NaN and inf, which would become black pixels without a word."""
    if not values.isfinite().all():
        raise UserError(f"{what}: expected finite numbers, found NaN or inf; half precision overflows on "
                        "some devices, try dtype float32 or a smaller guidance")  # fmt: skip
