"""The UNet that predicts the noise of a clip, given its timestep and a text.

    x (b 4 f h w) ─ conv_in ─ first temporal ─┬─ level 0 ─ … ─ middle ─ … ─ level 0 ─ head ─ (b 4 f h w)
                                              └── skips: outputs of every block and down-sampling, concatenated

Two blocks a level on the way down, three on the way up, each a `SpatioTemporalBlock` unless another class is given.
With ``temporal=False`` the temporal layers are skipped and no frame sees another: this is the image model that the
video model was initialised from (Stable Diffusion 2's UNet, 865,910,724 of the released 1,411,233,860 parameters).

References: ModelScopeT2V, arXiv 2308.06571, section 3.3; Latent Diffusion, arXiv 2112.10752.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v.networks.blocks import FrameBlock, SpatioTemporalBlock, TemporalTransformer
from minit2v.networks.layers import GroupNorm
from minit2v.presets import UNetConfig


class UNet(nn.Module):
    """``unet(x, t, context) -> output`` of the shape of x.

    Args:
        config: sizes and departures.
        block: class of the blocks, built and called as `SpatioTemporalBlock` (the default) is.

    Arguments of a call: x (b, c, f, h, w) noisy latents; t (b,) integer timesteps; context (b, n, d) text tokens;
    temporal: False skips the temporal layers (frame numbers, a departure, are told even then); positions (b, f): frame numbers, by default 0, 1, 2, … (used only
    by the departures `frame_positions`, `rate_embedding` and `scene_prior`, and where `TellsFrameNumbers` is mixed in); until
    (b,): the timestep that a sampling step is to reach, -1 where it ends, by default t (used only by the departure
    `step_embedding`); condition (b, condition_channels, f, h, w): what is known beside x. Sizes need not be powers of two: an
    up-sampler takes the size of its skip.
    """

    def __init__(self, config: UNetConfig = UNetConfig(), block: type[nn.Module] | None = None):
        super().__init__()
        self.config, self.block = config, block or SpatioTemporalBlock  # looked up here: `lab.swap` may replace it
        first, emb = config.channels[0], 4 * config.channels[0]
        self.time_embedding = nn.Sequential(nn.Linear(first, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.frame_embedding = position_layer(first, emb) if config.frame_positions else None
        self.text_embedding = nn.Linear(config.context_dim, emb) if config.text_in_embedding else None
        self.rate_embedding = zero_layer(first, emb) if config.rate_embedding else None
        self.step_embedding = zero_layer(first, emb) if config.step_embedding else None
        # its name is that of the shipped weights
        self.layout = ScenePrior(config.context_dim, first) if config.scene_prior else None
        self.conv_in = nn.Conv2d(config.in_channels + config.condition_channels, first, 3, padding=1)
        inner = config.first_temporal_heads * config.head_dim
        self.first_temporal = TemporalTransformer(first, config.head_dim, config.norm_groups, inner) if inner else None

        skips, c = [first], first
        self.down = nn.ModuleList()
        for i, (width, attention) in enumerate(zip(config.channels, config.attention)):
            inputs = [c] + [width] * (config.layers_per_level - 1)
            resample = Downsample(width) if i < len(config.channels) - 1 else None
            self.down.append(Level(inputs, width, attention, resample, config, self.block))
            skips += [width] * (config.layers_per_level + (resample is not None))
            c = width
        self.middle = Middle(c, config, self.block)
        self.up = nn.ModuleList()
        for i in reversed(range(len(config.channels))):
            width, inputs = config.channels[i], []
            for _ in range(config.layers_per_level + 1):
                inputs.append(c + skips.pop())
                c = width
            resample = Upsample(width) if i else None
            self.up.append(Level(inputs, width, config.attention[i], resample, config, self.block))
        self.norm_out = GroupNorm(config.norm_groups, first)
        self.conv_out = nn.Conv2d(first, config.in_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, temporal: bool = True, positions: Tensor | None = None,
        until: Tensor | None = None, condition: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        f = x.shape[2]
        if positions is None:
            positions = torch.arange(f, device=x.device)[None]
        emb = self.embed(t, context, positions, until)  # (b f) e
        x = x if condition is None else torch.cat([x, condition], dim=1)
        x = rearrange(x, "b c f h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x)
        if self.layout is not None:
            x = x + self.prior(context, positions, *x.shape[-2:])
        if temporal:
            x = self.first(x, context, positions)
        skips = [x]
        for level in self.down:
            for block in level.blocks:
                x = block(x, emb, context, f, temporal)
                skips.append(x)
            if level.resample is not None:
                x = level.resample(x)
                skips.append(x)
        x = self.middle(x, emb, context, f, temporal)
        for level in self.up:
            for block in level.blocks:
                x = block(torch.cat([x, skips.pop()], dim=1), emb, context, f, temporal)  # eq (7.5) · U-Net, section 2
            if level.resample is not None:
                x = level.resample(x, skips[-1].shape[-2:])
        x = self.conv_out(F.silu(self.norm_out(x)))
        return rearrange(x, "(b f) c h w -> b c f h w", f=f)

    def prior(self, context: Tensor, positions: Tensor, h: int, w: int) -> Tensor:
        """What the scene prior adds after conv_in, ((b f), c, h, w)."""
        return self.layout(context, positions, h, w)

    def first(self, x: Tensor, context: Tensor, positions: Tensor) -> Tensor:
        """What looks along time before the first level: ((b f), c, h, w) -> same."""
        return x if self.first_temporal is None else self.first_temporal(x, positions.shape[1])

    def embed(self, t: Tensor, context: Tensor, positions: Tensor, until: Tensor | None = None) -> Tensor:
        """The embedding that every residual block receives: (b f, e) from timesteps (b,) and from the departures."""
        first, f, dtype = self.config.channels[0], positions.shape[1], self.conv_in.weight.dtype
        emb = self.time_embedding[0](sinusoid(t, first).to(dtype))[:, None]  # b 1 e
        if self.text_embedding is not None:
            emb = emb + self.text_embedding(self.heard(context))[:, None]
        if self.step_embedding is not None:
            length = torch.zeros_like(t) if until is None else t - until
            emb = emb + self.step_embedding(sinusoid(length, first).to(dtype))[:, None]
        if self.frame_embedding is not None and f > 1:  # an image has no place in time
            emb = emb + self.frame_embedding(sinusoid(positions, first).to(dtype))  # b f e
        if self.rate_embedding is not None and f > 1:
            apart = sinusoid(positions[:, 1] - positions[:, 0], first).to(dtype)
            emb = emb + self.rate_embedding(apart)[:, None]
        emb = self.time_embedding[2](self.time_embedding[1](emb))
        return emb.expand(-1, f, -1).flatten(0, 1)  # (b 1|f e) -> ((b f) e)

    def heard(self, context: Tensor) -> Tensor:
        """What the embedding hears of a text (b, n, d): the mean token, or with `looks_first` the one of the looks (b, d)."""
        return context[:, 0] if self.config.looks_first else context.mean(dim=1)

    def scene_priors(self) -> list[nn.Module]:
        """Its own, and those of systems that have more than one."""
        return [module for module in self.modules() if isinstance(module, ScenePrior)]

    def temporal_layers(self) -> list[nn.Module]:
        """The layers that the image model does not have."""
        blocks = [module for module in self.modules() if isinstance(module, self.block)]
        first = [layer for layer in (self.rate_embedding, self.first_temporal) if layer is not None]
        return [*first, *(layer for block in blocks for layer in block.temporal_layers())]

    def temporal_parameters(self) -> list[nn.Parameter]:
        """The parameters of `temporal_layers`."""
        return [p for layer in self.temporal_layers() for p in layer.parameters()]


class ImageUNet(UNet):
    """A UNet without temporal layers, to which every frame is a picture without a place in time. Stable Diffusion at any
    size; its weights are part of those of a `UNet` of the same sizes."""

    def __init__(self, config: UNetConfig = UNetConfig(), block: type[nn.Module] = FrameBlock):
        super().__init__(replace(config, first_temporal_heads=0, frame_positions=False, rate_embedding=False), block)

    def prior(self, context: Tensor, positions: Tensor, h: int, w: int) -> Tensor:
        return self.layout(context, positions[:, :1], h, w).repeat_interleave(positions.shape[1], dim=0)


class TellsFrameNumbers:
    """Mixed into a UNet whose blocks are told the numbers of their frames: these travel behind the embedding."""

    def embed(self, t: Tensor, context: Tensor, positions: Tensor, until: Tensor | None = None) -> Tensor:
        """`UNet.embed`, and behind it the number of the frame, which `split_numbers` takes off: (b f, e + 1)."""
        emb = super().embed(t, context, positions, until)
        return torch.cat([emb, positions.to(emb).expand(len(t), -1).reshape(-1, 1)], dim=1)


def split_numbers(emb: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """What `TellsFrameNumbers.embed` gives the blocks (b f, e + 1) -> the embedding (b f, e) and the numbers (b, f)."""
    return emb[:, :-1].contiguous(), emb[:, -1].view(-1, f)


class Level(nn.Module):
    """The blocks of one resolution, one for each input width, and the layer to the next resolution."""

    def __init__(self, inputs: list[int], c: int, attention: bool, resample: nn.Module | None, config: UNetConfig,
                 block: type[nn.Module]):  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList(block(c_in, c, attention, config) for c_in in inputs)
        self.resample = resample


class Middle(nn.Module):
    """The lowest resolution: a block with attention, then one without."""

    def __init__(self, c: int, config: UNetConfig, block: type[nn.Module]):
        super().__init__()
        self.first = block(c, c, True, config)
        self.last = block(c, c, False, config)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, f: int, temporal: bool) -> Tensor:
        return self.last(self.first(x, emb, context, f, temporal), emb, context, f, temporal)


class Downsample(nn.Module):
    """Halve height and width: 3x3 convolution of stride 2, padded by 1 on every side."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Repeat pixels up to the given height and width, then apply a 3x3 convolution."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class ScenePrior(nn.Module):
    """Features that a caption suggests for every cell of every frame.

    ``context (b, n, d), positions (b or 1, f), h, w -> ((b f), c, h, w)``: an MLP of the mean text token, the frame
    number, the row and the column. "Moves left" means nothing to a cell by itself: it means *right half* early and
    *left half* late. Attention and convolutions take very long to learn such a product of word, time and place.
    """

    def __init__(self, context_dim: int, c: int):
        super().__init__()
        self.text = nn.Linear(context_dim, 4 * c)
        self.frame, self.row, self.column = (position_layer(c, 4 * c) for _ in range(3))
        self.hidden, self.out = nn.Linear(4 * c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, context: Tensor, positions: Tensor, h: int, w: int) -> Tensor:
        weight = self.out.weight
        width = weight.shape[0]
        rows, columns = (sinusoid(torch.arange(n, device=weight.device), width).to(weight.dtype) for n in (h, w))
        x = self.text(context.mean(dim=1))[:, None, None, None] + self.row(rows)[:, None] + self.column(columns)
        if positions.shape[1] > 1:  # an image has no place in time
            x = x + self.frame(sinusoid(positions, width).to(weight.dtype))[:, :, None, None]
        x = self.out(F.silu(self.hidden(F.silu(x))))
        return rearrange(x, "b f h w c -> (b f) c h w")


def position_layer(width: int, d: int) -> nn.Linear:
    """A linear layer for a `sinusoid` of that width. Half of its values hardly vary, so its weights start larger."""
    layer = nn.Linear(width, d, bias=False)
    nn.init.normal_(layer.weight, std=2 * width**-0.5)
    return layer


def zero_layer(width: int, d: int) -> nn.Linear:
    """A linear layer that at first adds nothing to a trained network."""
    layer = nn.Linear(width, d)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def sinusoid(position: Tensor, width: int) -> Tensor:
    """Positions (…) as (…, width): cosines first, then sines, of geometrically spaced frequencies, in float32.

    DDPM, arXiv 2006.11239, appendix B, after Attention Is All You Need, section 3.5; the order is the released model's.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=position.device) / half)
    angles = position.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)  # eq (7.1) · DDPM, appendix B
