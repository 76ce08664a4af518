"""A decoder that sees time, which MagicVideo and Video LDM add to an autoencoder of pictures.

    latents (b c f h w) ──► the picture's decoder, and a temporal layer after its middle and its levels ──► frames

Decoded one by one, frames flicker: what the latents leave open is filled in again each time. Here the temporal layers see
the neighbouring frames. They begin as the identity, so the decoder begins as that of pictures. The encoder stays.

References: Video LDM, arXiv 2304.08818, section 3.1.1; MagicVideo, arXiv 2211.11018, section 3.4.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v.errors import UserError
from minit2v.networks.autoencoder import Decoder
from minit2v.networks.blocks import clip_view, frame_view, zeroed
from minit2v.networks.layers import GroupNorm, Linear
from minit2v.pixels import to_pixels
from minit2v.presets import AutoencoderConfig, ModelScopePreset
from minit2v.systems.pipeline import require_finite
from minit2v.systems.settings import SamplingSettings, latent_shape


@dataclass(frozen=True)
class VideoDecoderConfig(AutoencoderConfig):
    """Sizes of the autoencoder, and which temporal layers its decoder gets."""

    temporal: str = "convolution"  # "convolution" (Video LDM) or "attention" (MagicVideo: to earlier frames)


def sized_as(autoencoder: AutoencoderConfig, temporal: str) -> VideoDecoderConfig:
    """The decoder of an autoencoder's sizes."""
    return VideoDecoderConfig(**{one.name: getattr(autoencoder, one.name) for one in fields(autoencoder)}, temporal=temporal)


class TemporalConvolutions(nn.Module):
    """Two 3-tap convolutions along time beside a shortcut, at first the identity: ``x (b f, c, h, w), f -> same``."""

    def __init__(self, c: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(groups, c), GroupNorm(groups, c)
        # kernel (3, 1) over (f, h w), as in `networks.blocks.TemporalConv`
        self.conv1, self.conv2 = nn.Conv2d(c, c, (3, 1), padding=(1, 0)), zeroed(nn.Conv2d(c, c, (3, 1), padding=(1, 0)))

    def forward(self, x: Tensor, f: int) -> Tensor:
        h = self.conv1(F.silu(self.norm1(clip_view(x, f))))
        return x + frame_view(self.conv2(F.silu(self.norm2(h))), x)


class DirectedAttention(nn.Module):
    """Each pixel attends to itself in this frame and in earlier ones, at first the identity: ``x (b f, c, h, w), f -> same``.

    ``branch`` is what is added to x. As in transformers of text, the mask comes before the softmax; the paper's equation 6
    multiplies by it afterwards, so that the rows would not sum to 1.
    """

    def __init__(self, c: int, groups: int, head_dim: int | None = None):
        super().__init__()
        self.heads = c // (head_dim or c)
        self.norm = GroupNorm(1, c, eps=1e-6)  # of a frame: statistics of the whole clip would tell of later frames
        self.to_q, self.to_k, self.to_v = (Linear(c, c, bias=False) for _ in range(3))
        self.to_out = zeroed(Linear(c, c))

    def forward(self, x: Tensor, f: int) -> Tensor:
        return x + self.branch(x, f)

    def branch(self, x: Tensor, f: int) -> Tensor:
        tokens = rearrange(self.norm(x), "(b f) c h w -> (b h w) f c", f=f)  # eq (16.2) · ours
        out = self.weights(tokens) @ self.of_heads(self.to_v(tokens))
        out = self.to_out(rearrange(out, "n k f c -> n f (k c)"))
        return rearrange(out, "(b h w) f c -> (b f) c h w", h=x.shape[2], w=x.shape[3])

    def weights(self, tokens: Tensor) -> Tensor:
        """How much each frame looks at each: tokens (n, f, c) -> (n, k, f, f), 0 where the other is later."""
        q, k = self.of_heads(self.to_q(tokens)), self.of_heads(self.to_k(tokens))
        later = torch.full((q.shape[2], q.shape[2]), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + later).softmax(dim=-1)  # eq (16.3) · MagicVideo (6)

    def of_heads(self, x: Tensor) -> Tensor:
        """(n, f, (k c)) -> (n, k, f, c)."""
        return rearrange(x, "n f (k c) -> n k f c", k=self.heads)


LAYERS = {"convolution": TemporalConvolutions, "attention": DirectedAttention}


class VideoDecoder(nn.Module):
    """``decoder(latents (b, c, f, h, w)) -> frames (b, 3, f, H, W)``, not clipped. Raises UserError for an unknown layer."""

    def __init__(self, config: VideoDecoderConfig):
        super().__init__()
        if config.temporal not in LAYERS:
            raise UserError(f"temporal: expected one of {', '.join(LAYERS)}, found {config.temporal!r}")
        c, widths = config.latent_channels, [config.channels * m for m in reversed(config.multipliers)]
        self.config = config
        self.post_quant_conv, self.decoder = nn.Conv2d(c, c, 1), Decoder(config, c)
        # the last level has the most pixels and the fewest channels: it gets no layer
        self.temporal = nn.ModuleList(LAYERS[config.temporal](width, config.norm_groups) for width in [widths[0], *widths[:-1]])

    def temporal_layers(self) -> list[nn.Module]:
        """The layers that the decoder of pictures does not have."""
        return list(self.temporal)

    def forward(self, latents: Tensor) -> Tensor:
        f, decoder = latents.shape[2], self.decoder
        frames = rearrange(latents, "b c f h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        x = decoder.middle(decoder.conv_in(self.post_quant_conv(frames)))
        for layer, level in zip(self.temporal, [*decoder.levels]):
            x = level(layer(x, f))
        x = decoder.conv_out(F.silu(decoder.norm_out(x)))
        return rearrange(x, "(b f) c h w -> b c f h w", f=f)


class DecodesClips:
    """Mixed into a pipeline with a network `decoder`, which takes the place of the autoencoder's."""

    @torch.inference_mode()
    def decode(self, latents: Tensor, chunk: int | None = None) -> np.ndarray:
        """See `TextToVideo.decode`; clip by clip, as frames belong together. `chunk` is not used."""
        require_finite(latents, "latents")
        latents = (latents / self.preset.scale_factor).to(self.device, self.dtype)
        with self.working(self.decoder):
            return torch.stack([self._pixels(clip) for clip in latents]).cpu().numpy()

    @classmethod
    def calls(cls, preset: ModelScopePreset, settings: SamplingSettings, clips: int, batched: bool) -> dict[str, tuple]:
        """See `TextToVideo.calls`; the decoder is given a whole clip, in place of the autoencoder's."""
        found = super().calls(preset, settings, clips, batched)
        del found["autoencoder"]
        return found | {"decoder": ("forward", (latent_shape(1, settings, preset),))}

    def _pixels(self, latents: Tensor) -> Tensor:
        """One clip (c, f, h, w) -> uint8 (f, H, W, 3)."""
        frames = self.decoder(latents[None])[0].transpose(0, 1)  # (f 3 H W)
        require_finite(frames, "frames")
        return to_pixels(frames, rounded=False)
