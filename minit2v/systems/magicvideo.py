"""MagicVideo: the convolutions of an image model, shared by all frames, and very little that tells frames apart.

    frame i ──► convolutions ──► · S[i] + B[i] ──┬─► attention within the frame, and to the text ─┐
                                                 └─► directed attention: to earlier frames ──────► + ──►

A *frame adaptor* gives each frame a scale and a shift of its own; *directed* attention looks at this frame and earlier
ones, beside the spatial attention and not after it. The frame rate is embedded beside the timestep, so that one model
knows slow clips from fast ones. A decoder with directed attention removes flicker.

Departures from the paper, shared by all our systems of diffusion: v-prediction, the noise schedule, the words for looks
in the timestep embedding, and the scene prior. As in ModelScopeT2V of this size, the number of the frame is there too. And
directed attention also stands at the fine level, where the small image model has no spatial attention.

Reference: MagicVideo, arXiv 2211.11018, sections 3.2 to 3.4.
"""

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from minit2v import presets
from minit2v.errors import UserError
from minit2v.networks.blocks import FrameBlock
from minit2v.networks.unet import TellsFrameNumbers, UNet, split_numbers
from minit2v.presets import ModelScopePreset, UNetConfig
from minit2v.ranges import Size
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.systems.settings import SamplingSettings
from minit2v.systems.video_decoder import DecodesClips, DirectedAttention, VideoDecoderConfig, sized_as


@dataclass(frozen=True)
class MagicVideoConfig(UNetConfig):
    """The UNet's sizes, and how many frames have an adaptor."""

    frames: Size = 16  # longer clips stretch the table of adaptors; paper 16


@dataclass(frozen=True)
class MagicVideoPreset(ModelScopePreset):
    """MagicVideo: the networks of a latent diffusion model, and a decoder that sees time."""

    system: str = "magicvideo"
    unet: MagicVideoConfig = field(default_factory=MagicVideoConfig)
    decoder: VideoDecoderConfig = field(default_factory=lambda: VideoDecoderConfig(temporal="attention"))


def _magicvideo() -> MagicVideoPreset:
    base = presets.get("modelscope")
    sizes = {one.name: getattr(base.unet, one.name) for one in fields(base.unet)}
    return MagicVideoPreset(
        **{one.name: getattr(base, one.name) for one in fields(base) if one.name not in ("name", "system", "unet", "guidance")},
        name="magicvideo",
        guidance=5.0,  # chosen on validation prompts
        unet=replace(MagicVideoConfig(**sizes), first_temporal_heads=0, rate_embedding=True),
        decoder=sized_as(base.autoencoder, "attention"),
    )


MAGICVIDEO_PRESETS = {"magicvideo": _magicvideo}


class FrameAdaptor(nn.Module):
    """A scale and a shift of each channel for each frame, at first 1 and 0.

    ``x (b f, c, h, w), f, numbers (b, f) of the frames, by default 0, 1, 2, … -> as x``. A clip whose last number is beyond
    the table is spread over it.
    """

    def __init__(self, c: int, frames: int):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(frames, c)), nn.Parameter(torch.zeros(frames, c))

    def forward(self, x: Tensor, f: int, numbers: Tensor | None = None) -> Tensor:
        numbers = torch.arange(f, device=x.device)[None].expand(len(x) // f, -1) if numbers is None else numbers
        scale, shift = (self.rows(table, numbers).flatten(0, 1)[:, :, None, None] for table in (self.scale, self.shift))
        return scale * x + shift  # eq (16.1) · MagicVideo (3)

    @staticmethod
    def rows(table: Tensor, numbers: Tensor) -> Tensor:
        """The rows of those numbers (b, f, c); between two rows, a mean of both."""
        last, numbers = len(table) - 1, numbers.float()
        places = numbers * last / numbers.amax(dim=1, keepdim=True).clamp(min=last)
        away = (places[..., None] - torch.arange(len(table), device=table.device)).abs()  # b f rows
        return (1 - away).clamp(min=0).to(table) @ table


class MagicVideoBlock(FrameBlock):
    """Convolutions, adaptor, then spatial and directed attention side by side. `emb` ends in the number of the frame."""

    def __init__(self, c_in: int, c_out: int, attention: bool, config: MagicVideoConfig):
        super().__init__(c_in, c_out, attention, config)
        self.adaptor = FrameAdaptor(c_out, config.frames)
        self.directed = DirectedAttention(c_out, config.norm_groups, config.head_dim)

    def temporal_layers(self) -> list[nn.Module]:
        """The layers that the image model does not have."""
        return [self.adaptor, self.directed]

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, f: int, temporal: bool = True) -> Tensor:
        emb, numbers = split_numbers(emb, f)
        x = self.res(x, emb)
        x = self.adaptor(x, f, numbers) if temporal else x
        within = x if self.spatial is None else self.spatial(x, context)  # with its shortcut
        if not temporal:
            return within
        return within + self.directed.branch(x, f)  # eq (16.4) · MagicVideo (5)


class MagicVideoUNet(TellsFrameNumbers, UNet):
    """See `UNet`."""

    def __init__(self, config: MagicVideoConfig, block: type[nn.Module] = MagicVideoBlock):
        super().__init__(config, block)


class MagicVideo(DecodesClips, ModelScopeT2V):
    """`text`, `unet`, `autoencoder` and `decoder`; see `ModelScopeT2V`."""

    def checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], SamplingSettings]:
        """See `TextToVideo.checked`; adaptors spread a clip of few frames a second, and windows do not see the whole clip."""
        prompts, found = super().checked(prompt, settings)
        if found.window and self.apart(found) > 1:
            raise UserError(f"window: expected none with {self.preset.name} and fewer frames a second than {self.preset.fps:g}, "
                            f"found {found.window}; leave one of both out")  # fmt: skip
        return prompts, found

    def apart(self, settings: SamplingSettings) -> float:
        """At half the frame rate of training a clip shows every second frame of what it would show."""
        return self.preset.fps / settings.fps  # eq (16.5) · MagicVideo, section 3.2
