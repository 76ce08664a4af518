"""A clip as a grid of tokens, written one after the other: what NÜWA and CogVideo have in common.

    context (b n d) ──► transformer, token by token ──► codes (b c f h w) ──► autoencoder ──► pixels
                        one `Step` for each frame

The autoencoder has a codebook: a token is the number of a code, a latent vector is the code itself.

References: VQ-VAE, arXiv 1711.00937, section 3.1; guidance on logits: Make-A-Scene, arXiv 2203.13131, section 3.4.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn

from minit2v.errors import UserError
from minit2v.networks.autoregressive import draw
from minit2v.presets import AutoencoderConfig, OfLatents, Preset
from minit2v.ranges import Count, Positive
from minit2v.systems.pipeline import TextToVideo, require_finite
from minit2v.systems.settings import SamplingSettings

UNUSED = ("noise", "init", "window", "sampler", "eta")  # settings of diffusion
AT_ONCE = 2**12  # vectors whose distances from all codes are in memory at once


@dataclass(frozen=True)
class TokenPreset(OfLatents, Preset):
    """A preset whose autoencoder has a codebook."""

    autoencoder: AutoencoderConfig = AutoencoderConfig(bottleneck="codebook")
    top_k: Count = 32  # tokens that one is drawn from: so many with the largest logits
    temperature: Positive = 1.0  # of that draw

    @property
    def timesteps(self) -> int:
        return self.steps


class TokensToVideo(TextToVideo):
    """A `TextToVideo` whose steps are frames. `autoencoder.bottleneck.codes` (k, c) are the codes of the tokens."""

    def checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], SamplingSettings]:
        """See `TextToVideo.checked`; what only diffusion has is refused, and the steps are the frames."""
        prompts, found = super().checked(prompt, settings)
        for name in UNUSED:
            if found.chosen(name):
                raise UserError(f"{name}: expected none with {self.preset.name}, which writes token after token; leave it out")
        if settings.get("steps") not in (None, found.frames, self.preset.steps):
            raise UserError(f"steps: expected {found.frames} with {self.preset.name}, one a frame, found {settings['steps']}; "
                            "leave it out")  # fmt: skip
        return prompts, replace(found, steps=found.frames)

    def drawn(self, logits: Tensor, unconditional: Tensor | None, guidance: float, generators: list) -> Tensor:
        """A token (b,) for each row of logits (b, k), with guidance if there are `unconditional` ones. Raises UserError for
        numbers that are not finite."""
        guided = guided_logits(logits, unconditional, guidance)
        require_finite(guided, "logits")
        return draw(guided, generators, self.preset.top_k, self.preset.temperature)

    def to_latents(self, tokens: Tensor) -> Tensor:
        """Tokens (b, f, h, w) -> their codes as the pipeline has latents, (b, c, f, h, w)."""
        codes = self.autoencoder.bottleneck.codes[tokens].float() * self.preset.scale_factor
        return rearrange(codes, "b f h w c -> b c f h w")

    def to_tokens(self, latents: Tensor) -> Tensor:
        """Inverse of `to_latents`: of each vector the nearest code."""
        return tokens_of(latents / self.preset.scale_factor, self.autoencoder)


def tokens_of(latents: Tensor, autoencoder: nn.Module) -> Tensor:
    """Unscaled latents (b, c, f, h, w) -> the numbers of the nearest codes (b, f, h, w)."""
    codebook = autoencoder.bottleneck
    vectors = rearrange(latents, "b c f h w -> (b f h w) c").to(codebook.codes)
    b, _, f, h, w = latents.shape
    numbers = torch.empty(len(vectors), dtype=torch.long, device=vectors.device)
    for part, out in zip(vectors.split(AT_ONCE), numbers.split(AT_ONCE)):
        out.copy_(codebook.nearest(part))  # small results kept between large blocks would leave holes in the heap
    return numbers.view(b, f, h, w)


def guided_logits(conditional: Tensor, unconditional: Tensor | None, scale: float) -> Tensor:
    """u + scale (c - u) on logits (b, k): classifier-free guidance of a transformer that writes tokens."""
    return conditional if unconditional is None else unconditional + scale * (conditional - unconditional)
