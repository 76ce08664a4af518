"""Video LDM: an image model stays as it is, and temporal layers between its own learn to align the frames.

    z ──► spatial layer (frozen) ──► z ──┬──────────────► · alpha ──────┐
                                         └► temporal layer ──► · (1 - alpha) ──► + ──► z

Each temporal layer has a learnt alpha between 0 and 1, and alpha = 1 gives the image model back, bit for bit. The
temporal layers can be moved onto another image model of the same sizes. The decoder gets temporal layers as well.

Departures from the paper, shared by our systems of diffusion in latents: v-prediction, the noise schedule, the words for looks
in the timestep embedding, and a scene prior; the part of it that knows time is a temporal layer here, and mixed as such.

Reference: Video LDM (Align your Latents), arXiv 2304.08818, sections 3.1 and 3.1.1.
"""

from dataclasses import dataclass, field, fields, replace

import torch
from einops import rearrange
from torch import Tensor, nn

from minit2v import presets
from minit2v.networks.blocks import Attention, FrameBlock, clip_view, frame_view, zeroed
from minit2v.networks.layers import GroupNorm, Linear
from minit2v.networks.unet import ImageUNet, ScenePrior, TellsFrameNumbers, sinusoid, split_numbers
from minit2v.presets import ModelScopePreset, UNetConfig
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.systems.video_decoder import DecodesClips, TemporalConvolutions, VideoDecoderConfig, sized_as


@dataclass(frozen=True)
class VideoLDMPreset(ModelScopePreset):
    """Video LDM: the networks of a latent diffusion model, and a decoder that sees time."""

    system: str = "videoldm"
    decoder: VideoDecoderConfig = field(default_factory=VideoDecoderConfig)


def _videoldm() -> VideoLDMPreset:
    base = presets.get("modelscope")
    return VideoLDMPreset(
        **{one.name: getattr(base, one.name) for one in fields(base) if one.name not in ("name", "system", "unet", "guidance")},
        name="videoldm",
        guidance=4.0,  # chosen on validation prompts
        unet=replace(base.unet, first_temporal_heads=0, frame_positions=False),
        decoder=sized_as(base.autoencoder, "convolution"),
    )


VIDEOLDM_PRESETS = {"videoldm": _videoldm}


class Mixed(nn.Module):
    """``alpha x + (1 - alpha) layer(x, …)`` with a learnt alpha in 0..1; 1 leaves x as it is."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.alpha = layer, nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, *others) -> Tensor:
        alpha = self.alpha.clamp(0, 1)
        return alpha * x + (1 - alpha) * self.layer(x, *others)  # eq (17.1) · Video LDM, section 3.1


class TemporalAttention(nn.Module):
    """Each pixel attends to itself along time and to the text, with sines of the frame's number, at first the identity.

    ``x (b f, c, h, w), context (b, n, d), f, numbers (b, f) of the frames, by default 0, 1, 2, … -> as x``.
    """

    def __init__(self, c: int, head_dim: int, context_dim: int, groups: int):
        super().__init__()
        self.norm, self.norm1, self.norm2 = GroupNorm(groups, c, eps=1e-6), nn.LayerNorm(c), nn.LayerNorm(c)
        self.attention, self.cross = Attention(c, head_dim), Attention(c, head_dim, context_dim)
        self.proj_out = zeroed(Linear(c, c))

    def forward(self, x: Tensor, context: Tensor, f: int, numbers: Tensor | None = None) -> Tensor:
        numbers = torch.arange(f, device=x.device)[None] if numbers is None else numbers
        h = rearrange(self.norm(clip_view(x, f)), "b c f s -> b s f c")  # eq (17.2) · Video LDM, section 3.1
        h = h + sinusoid(numbers, h.shape[-1]).to(h)[:, None]  # eq (17.3) · Video LDM, section 3.1
        b, s = h.shape[:2]
        h = h.flatten(0, 1).contiguous()  # (b s) f c; of one clip it would still be laid out as (f s)
        h = (h + self.attention(self.norm1(h))).view(b, s * f, -1)
        h = self.proj_out(h + self.cross(self.norm2(h), context))
        return x + frame_view(rearrange(h, "b (s f) c -> b c f s", f=f), x)


class VideoLDMBlock(FrameBlock):
    """The block of an image model, with temporal layers mixed in after its convolutions and after its attention."""

    def __init__(self, c_in: int, c_out: int, attention: bool, config: UNetConfig):
        super().__init__(c_in, c_out, attention, config)
        groups, along = config.norm_groups, TemporalAttention
        self.temporal_conv = Mixed(TemporalConvolutions(c_out, groups))
        self.temporal = Mixed(along(c_out, config.head_dim, config.context_dim, groups)) if attention else None

    def temporal_layers(self) -> list[nn.Module]:
        """The layers that the image model does not have."""
        return [layer for layer in (self.temporal_conv, self.temporal) if layer is not None]

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, f: int, temporal: bool = True) -> Tensor:
        emb, numbers = split_numbers(emb, f)
        x = self.res(x, emb)
        x = self.temporal_conv(x, f) if temporal else x
        if self.spatial is not None:
            x = self.spatial(x, context)
            x = self.temporal(x, context, f, numbers) if temporal else x
        return x


class MotionPrior(nn.Module):
    """The scene prior as a temporal layer: it tells what a caption suggests for every cell of every frame, at first
    nothing. ``x ((b f), c, h, w), context (b, n, d), positions (b or 1, f) -> as x``."""

    def __init__(self, context_dim: int, c: int):
        super().__init__()
        self.prior = ScenePrior(context_dim, c)
        zeroed(self.prior.out)

    def forward(self, x: Tensor, context: Tensor, positions: Tensor) -> Tensor:
        return x + self.prior(context, positions, *x.shape[-2:])


class VideoLDMUNet(TellsFrameNumbers, ImageUNet):
    """See `UNet`; ``temporal=False`` gives the image model."""

    def __init__(self, config: UNetConfig):
        super().__init__(config, VideoLDMBlock)
        self.motion = Mixed(MotionPrior(config.context_dim, config.channels[0])) if config.scene_prior else None

    def first(self, x: Tensor, context: Tensor, positions: Tensor) -> Tensor:
        return x if self.motion is None else self.motion(x, context, positions)

    def temporal_layers(self) -> list[nn.Module]:
        return [*super().temporal_layers(), *([self.motion] if self.motion is not None else [])]


class VideoLDM(DecodesClips, ModelScopeT2V):
    """`text`, `unet`, `autoencoder` and `decoder`; see `ModelScopeT2V`."""
