"""Text to video: the three networks and a sampler, put together.

    prompt ----text--> context (b n d) ----.
    seed ------------> noise (b 4 f h w) --+--> sampler + UNet --> latents (b 4 f h w) --> pixels (b f H W 3)
    negative --text--> context (b n d) ----'    one Step each      / scale_factor, autoencoder

References: ModelScopeT2V, arXiv 2308.06571, sections 3 and 4; latent diffusion, 2112.10752, section 3;
classifier-free guidance, 2207.12598, section 3.2.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS, Step, gaussian, guided
from minit2v.diffusion.windows import shared_noise, windowed
from minit2v.errors import UserError
from minit2v.presets import Preset
from minit2v.recording.recorder import record
from minit2v.systems.settings import Settings, checked, latent_shape
from minit2v.video import Clip


def _pixels(frames: Tensor) -> Tensor:
    # [-1, 1] -> uint8; cut off, not rounded, as in the release
    return (frames.float() * 0.5 + 0.5).clamp(0, 1).mul(255).to(torch.uint8)  # eq (1.2) · DDPM, section 3.3


class TextToVideo:
    """A text-to-video model. Its parts are attributes: `preset`, `text`, `unet`, `autoencoder`, `diffusion`.

    Args:
        preset: sizes and defaults.
        text: `.encode(prompts) -> (b, n, d)`.
        unet: `(x (b, 4, f, h, w), t (b,), context (b, n, d)) -> (b, 4, f, h, w)`.
        autoencoder: `.decode(latents (n, 4, h, w)) -> frames (n, 3, H, W)` in [-1, 1].
        batched: run the two halves of guidance as one batch, decode four frames at a time; False needs half the memory
            and is a little slower.
        visit: a device where each network works while it has something to do, if it lives elsewhere.
    """

    def __init__(self, preset: Preset, text: nn.Module, unet: nn.Module, autoencoder: nn.Module,
                 batched: bool = True, visit: torch.device | None = None):
        self.preset, self.text, self.unet, self.autoencoder = preset, text, unet, autoencoder
        self.batched, self.visit = batched, visit
        self.diffusion = Diffusion(preset.diffusion)
        for network in (text, unet, autoencoder):
            network.eval()

    @property
    def device(self) -> torch.device:
        return self.visit or next(self.unet.parameters()).device

    @contextmanager
    def working(self, network: nn.Module):
        """The network is where it works; afterwards it is where it lives."""
        if self.visit is None:
            yield
            return
        home = next(network.parameters()).device
        try:
            yield network.to(self.visit)
        finally:
            network.to(home)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def __call__(self, prompt: str | list[str], callback: Callable[[Step], None] | None = None,
                 progress: bool = False, record_to: str | Path | None = None,
                 **settings) -> Clip | list[Clip]:
        """A clip of a prompt; or a list of clips, none of which depends on the others of the list.

        `callback` is called with every Step; `progress` shows a bar; `record_to` is a folder that keeps the run
        as a flight (see `recording`); `settings` are the fields of `Settings`. Raises UserError, before any work,
        for a setting out of range.
        """
        prompts, settings = self._checked(prompt, settings)
        steps = self._stream(prompts, settings)
        if progress:
            from tqdm.auto import tqdm

            steps = tqdm(steps, "denoising", settings.steps - settings.skip, unit="step")
        if record_to is not None:
            steps = record(steps, record_to, self, prompts, settings)
        for step in steps:
            if callback is not None:
                callback(step)
        clips = [Clip(pixels, self.preset.fps) for pixels in self.decode(step.x)]
        return clips[0] if isinstance(prompt, str) else clips

    def stream(self, prompt: str | list[str], **settings) -> Iterator[Step]:
        """One `Step` per denoising step, each computed when it is asked for; its tensors are (b, 4, f, h, w).

        `settings` are the fields of `Settings`. Raises UserError at once for a setting out of range.
        """
        return self._stream(*self._checked(prompt, settings))

    def _checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], Settings]:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        return prompts, checked(prompts, Settings(**settings), self.preset)

    def _stream(self, prompts: list[str], settings: Settings) -> Iterator[Step]:
        unconditional = None
        with self.working(self.text):
            context = self.text.encode(prompts).to(self.device, self.dtype)
            if settings.guidance != 1:
                unconditional = self.text.encode([settings.negative]).to(context)
                unconditional = unconditional.expand_as(context)  # (1 n d) -> (b n d)
        return self._steps(context, unconditional, settings)

    @torch.inference_mode()
    def _steps(self, context: Tensor, unconditional: Tensor | None, settings: Settings) -> Iterator[Step]:
        told = self.preset.unet.frame_positions or self.preset.unet.layout  # of frame numbers
        unet = windowed(self.unet, settings.window or settings.frames, self.preset.frames if told else None)
        model = guided(unet, context, unconditional, settings.guidance, self.batched)
        generators = [torch.Generator().manual_seed(settings.seed + i) for i in range(len(context))]
        x = settings.noise
        if x is None:
            x = gaussian(latent_shape(len(context), settings, self.preset), generators)
            x = shared_noise(x, settings.window) if settings.window else x
        options = {} if settings.sampler == "dpm++" else {"generator": generators}
        if settings.sampler == "ddim":
            options["eta"] = settings.eta
        if settings.clip is not None:
            pixels = np.repeat(settings.clip, settings.frames // len(settings.clip), axis=0)
            options |= {"clip": self.encode(pixels[None]), "skip": settings.skip}
        sampler = SAMPLERS[settings.sampler]
        with self.working(self.unet):
            yield from sampler(model, x.to(self.device), self.diffusion, settings.steps, **options)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray, chunk: int = 4) -> Tensor:
        """Pixels uint8 (b, f, H, W, 3) -> latents as the sampler leaves them (b, 4, f, h, w), float32; see `decode`."""
        frames = rearrange(torch.from_numpy(pixels), "b f H W c -> (b f) c H W")
        signed = (part.to(self.device).to(self.dtype) / 127.5 - 1 for part in frames.split(chunk))
        with self.working(self.autoencoder):
            latents = torch.cat([self.autoencoder.encode(part).float() for part in signed])
        return rearrange(latents, "(b f) c h w -> b c f h w", b=len(pixels)) * self.preset.autoencoder.scale_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor, chunk: int | None = None) -> np.ndarray:
        """Latents as the sampler leaves them (b, 4, f, h, w) -> pixels uint8 (b, f, H, W, 3).

        `chunk` frames (4, or 1 if not `batched`) at a time go through the autoencoder: frames are independent, so
        this bounds the memory and changes nothing else. Raises UserError for latents that are not finite.
        """
        if not latents.isfinite().all():
            raise UserError("latents: expected finite numbers, found NaN or inf; half precision overflows on "
                            "some devices, try dtype float32 or a smaller guidance")
        latents = (latents / self.preset.autoencoder.scale_factor).to(self.device, self.dtype)
        frames = rearrange(latents, "b c f h w -> (b f) c h w")
        chunk = chunk or (4 if self.batched else 1)
        with self.working(self.autoencoder):
            pixels = torch.cat([_pixels(self.autoencoder.decode(part)) for part in frames.split(chunk)])
        return rearrange(pixels, "(b f) c H W -> b f H W c", b=len(latents)).cpu().numpy()

