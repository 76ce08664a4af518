"""ModelScopeT2V: latents are denoised by a UNet of spatio-temporal blocks that reads the text.

    context (b n d) ------.
    noise (b c f h w) ----+--> sampler + UNet --> latents (b c f h w), scaled --> / scale_factor, autoencoder
                               one Step each

References: ModelScopeT2V, arXiv 2308.06571, sections 3 and 4; latent diffusion, 2112.10752, section 3;
classifier-free guidance, 2207.12598, section 3.2.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS, Step, gaussian, guided, levels
from minit2v.diffusion.windows import shared_noise, windowed
from minit2v.errors import UserError
from minit2v.presets import ModelScopePreset
from minit2v.systems.acceleration import Replayed
from minit2v.systems.pipeline import TextToVideo
from minit2v.systems.settings import SamplingSettings, latent_shape

NOISE_LEVELS = (0.999, 0.8, 0.5)  # shares of the process at which a loss is measured


class ModelScopeT2V(TextToVideo):
    """`text`, `unet` and `autoencoder`, and `diffusion`, the noise schedule; see `TextToVideo`.

    ``unet(x (b, c, f, h, w), t (b,), context (b, n, d)) -> (b, c, f, h, w)``
    """

    def __init__(self, preset: ModelScopePreset, text: nn.Module, unet: nn.Module, autoencoder: nn.Module, **others):
        super().__init__(preset, unet=unet, text=text, autoencoder=autoencoder, **others)
        self.diffusion = Diffusion(preset.diffusion)
        self.replayed = None  # the UNet through CUDA graphs, made when it is needed

    @torch.inference_mode()
    def steps(self, context: Tensor, unconditional: Tensor | None, settings: SamplingSettings) -> Iterator[Step]:
        sampler = SAMPLERS[settings.sampler]
        model = guided(self.network(settings), context, unconditional, settings.guidance, self.batched)
        generators = [torch.Generator("cpu").manual_seed(settings.seed + i) for i in range(len(context))]
        x = settings.noise
        if x is None:
            x = gaussian(latent_shape(len(context), settings, self.preset), generators)
            x = shared_noise(x, settings.window) if settings.window else x
        init = None
        if settings.init is not None:
            pixels = np.repeat(settings.init, settings.frames // len(settings.init), axis=0)  # a picture stands still
            init = self.encode(pixels[None])
        with self.working(self.unet):
            yield from sampler(model, x.to(self.device), self.diffusion, settings.steps, settings.eta, generators, init,
                               settings.skip)  # fmt: skip

    def checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], SamplingSettings]:
        """See `TextToVideo.checked`; a UNet that has learnt how to step takes no other sampler's steps."""
        prompts, found = super().checked(prompt, settings)
        if self.preset.unet.step_embedding and found.sampler != "ddim":
            raise UserError(f"sampler: expected ddim with {self.preset.name}, whose UNet has learnt such steps, found "
                            f"{found.sampler}; leave it out")  # fmt: skip
        return prompts, found

    def network(self, settings: SamplingSettings) -> Callable:
        """The UNet as a run calls it, (x, t, context): over windows, told frame numbers and ends of steps if it reads
        them."""
        config, unet = self.preset.unet, self.unet
        if self.graphs:
            if self.replayed is None or self.replayed.network is not unet:  # a lesson may have put in another
                self.replayed = Replayed(unet)
            unet = self.replayed
        if config.step_embedding:
            visited = levels(self.diffusion, settings.steps, SAMPLERS[settings.sampler])
            unet = with_step_ends(unet, [level.t for level in visited], self.preset.timesteps, self.device)
        numbered, apart = config.frame_positions or config.scene_prior, self.apart(settings)
        learnt = self.preset.frames if numbered or apart != 1 else None
        return windowed(unet, settings.window or settings.frames, learnt, apart)

    def apart(self, settings: SamplingSettings) -> float:
        """How far the frame numbers of a run are apart that the UNet is told; 1 for a UNet that knows no frame rates."""
        return 1.0

    @torch.inference_mode()
    def caption_losses(self, clips: np.ndarray, captions: list[str], seed: int = 0) -> np.ndarray:
        """Denoising loss of each clip (b, f, H, W, 3) uint8 given its caption, (b,): the mean over NOISE_LEVELS.

        Equal seeds draw equal noise. The more the UNet uses its text, the larger is the loss with wrong captions.
        """
        latents = self.encode(clips)
        noise = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32,
                            device="cpu").to(latents)  # fmt: skip
        with self.working(self.text):
            context = self.text.encode(captions).to(self.device, self.dtype)
        losses = []
        with self.working(self.unet):
            for level in NOISE_LEVELS:
                t = torch.full((len(clips),), int(level * self.preset.timesteps), device=latents.device)
                output = self.unet(self.diffusion.add_noise(latents, noise, t).to(self.dtype), t, context)
                losses.append(self.diffusion.loss(output, latents, noise, t, per_clip=True))
        return torch.stack(losses).mean(0).cpu().numpy()

    @classmethod
    def calls(cls, preset: ModelScopePreset, settings: SamplingSettings, clips: int, batched: bool) -> dict[str, tuple]:
        _, c, f, h, w = latent_shape(clips, settings, preset)
        seen = min(f, settings.window or f)  # frames that the UNet sees at once
        b, tokens = clips * (2 if batched and settings.guidance != 1 else 1), preset.text.context_length
        return {
            "unet": ("forward", ((b, c, seen, h, w), (b,), (b, tokens, preset.unet.context_dim))),
            "autoencoder": ("decode", ((min(4 if batched else 1, clips * f), c, h, w),)),
            "text": ("forward", ((clips, tokens),)),
        }


def with_step_ends(unet: Callable, visited: list[int], timesteps: int, device: torch.device) -> Callable:
    """The UNet of a flow map (`step_embedding`) in a run that visits these of `timesteps`: each call is told the next
    one, and the last that it ends at a clip."""
    ends = torch.full((timesteps,), -1, device="cpu")
    ends[visited[:-1]] = torch.tensor(visited[1:], dtype=torch.long, device="cpu")
    ends = ends.to(device)  # a table there, so that no step waits for the device to tell its timestep

    def run(x: Tensor, t: Tensor, context: Tensor, **options) -> Tensor:
        return unet(x, t, context, until=ends[t], **options)

    return run
