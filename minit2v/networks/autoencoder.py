"""The autoencoder: frames to small latents and back, one frame at a time.

```
frames (n 3 H W)                                                  frames (n 3 H W)
   v conv_in                                                          ^ conv_out
 level 0: blocks, halve                                             level 3: blocks
   level 1: blocks, halve                                         level 2: blocks, double
     level 2: blocks, halve                                     level 1: blocks, double
       level 3: blocks                                        level 0: blocks, double
         middle ──> bottleneck ──> latents (n c H/8 W/8) ──> middle
```

The paper calls it VQGAN, but its released weights are Stable Diffusion's KL autoencoder, which has no codebook. Both
bottlenecks are here: `Gaussian` (released) and `Codebook`; see `bottleneck`.

References: VQGAN, Esser et al. 2021 (arXiv:2012.09841), section 3.1; latent diffusion, Rombach et al. 2022
(arXiv:2112.10752), section 3.1 and appendix G; ModelScopeT2V, Wang et al. 2023 (arXiv:2308.06571), section 3.1.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v.errors import UserError
from minit2v.networks.bottleneck import Codebook, Gaussian
from minit2v.presets import AutoencoderConfig


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)  # 1e-6 as released; the UNet's residual blocks use 1e-5


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut: (n c_in h w) -> (n c_out h w)."""

    def __init__(self, c_in: int, c_out: int, groups: int):
        super().__init__()
        self.norm1 = group_norm(c_in, groups)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = group_norm(c_out, groups)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Every pixel of one frame looks at every other, with a single head: (n c h w) -> (n c h w)."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(self.norm(x), "n c h w -> n (h w) c")
        tokens = F.scaled_dot_product_attention(self.q(tokens), self.k(tokens), self.v(tokens))
        return x + rearrange(self.out(tokens), "n (h w) c -> n c h w", h=x.shape[2])


def middle(channels: int, config: AutoencoderConfig) -> nn.Sequential:
    """Block, attention (if wanted), block, at the lowest resolution."""
    groups = config.norm_groups
    first, last = (ResBlock(channels, channels, groups) for _ in range(2))
    return nn.Sequential(first, Attention(channels, groups) if config.mid_attention else nn.Identity(), last)


def halve(channels: int) -> nn.Sequential:
    """(n c h w) -> (n c h/2 w/2). Pads only right and below, as released; the UNet pads all four sides."""
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))


def double(channels: int) -> nn.Sequential:
    """(n c h w) -> (n c 2h 2w): repeats each pixel, then smooths by a convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(channels, channels, 3, padding=1))


class Level(nn.Module):
    """The residual blocks of one resolution, then the layer to the next resolution (`resample`)."""

    def __init__(self, c_in: int, c_out: int, blocks: int, groups: int, resample: nn.Module):
        super().__init__()
        widths = [c_in] + [c_out] * blocks
        self.blocks = nn.Sequential(*(ResBlock(a, b, groups) for a, b in zip(widths, widths[1:])))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(self.blocks(x))


def levels(widths: list[int], blocks: int, groups: int, resample) -> nn.Sequential:
    """One `Level` per width, each followed by `resample(width)` except the last."""
    c_in, steps = [widths[0], *widths], [*map(resample, widths[:-1]), nn.Identity()]
    return nn.Sequential(*(Level(a, b, blocks, groups, step) for a, b, step in zip(c_in, widths, steps)))


class Encoder(nn.Module):
    """Frames (n 3 H W) in [-1, 1] -> features (n c_out h w)."""

    def __init__(self, config: AutoencoderConfig, c_out: int):
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.levels = levels(widths, config.layers_per_level, config.norm_groups, halve)
        self.middle = middle(widths[-1], config)
        self.norm_out = group_norm(widths[-1], config.norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.levels(self.conv_in(x)))
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Latents (n c_in h w) -> frames (n 3 H W). Each level has one block more than the encoder's, as released."""

    def __init__(self, config: AutoencoderConfig, c_in: int):
        super().__init__()
        widths = [config.channels * m for m in reversed(config.multipliers)]
        self.conv_in = nn.Conv2d(c_in, widths[0], 3, padding=1)
        self.middle = middle(widths[0], config)
        self.levels = levels(widths, config.layers_per_level + 1, config.norm_groups, double)
        self.norm_out = group_norm(widths[-1], config.norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.levels(self.middle(self.conv_in(x)))
        return self.conv_out(F.silu(self.norm_out(x)))


class VQGAN(nn.Module):
    """Encoder, bottleneck and decoder.

    Latents are unscaled: a diffusion model works on latents times `config.scale_factor` (released 0.18215), whose
    standard deviation is about 1.

    >>> model = VQGAN(AutoencoderConfig(channels=8, norm_groups=4))
    >>> model.encode(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        if config.bottleneck not in ("gaussian", "codebook"):
            raise UserError(f"bottleneck: expected gaussian or codebook, found {config.bottleneck!r}")
        self.config, c = config, config.latent_channels
        gaussian = config.bottleneck == "gaussian"
        features = 2 * c if gaussian else c  # a mean and a log-variance each, or the vector itself
        self.encoder = Encoder(config, features)
        self.quant_conv = nn.Conv2d(features, features, 1)
        self.bottleneck = Gaussian() if gaussian else Codebook(config.codes, c, config.thrift)
        self.post_quant_conv = nn.Conv2d(c, c, 1)
        self.decoder = Decoder(config, c)

    def encode(self, frames: Tensor, sample: torch.Generator | None = None) -> Tensor:
        """Encode frames (n 3 H W) in [-1, 1] to latents (n c h w): the mean, or with a generator a sample.

        Raises UserError when H or W is not a multiple of `config.factor` (8 in the released model).
        """
        features = self.features(frames)
        return self.bottleneck.mode(features) if sample is None else self.bottleneck.sample(features, sample)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (n c h w), with a codebook their nearest codes, to frames (n 3 H W), which are not clipped."""
        c = self.config.latent_channels
        if latents.ndim != 4 or latents.shape[1] != c:
            raise UserError(f"expected latents (n, {c}, h, w), got {tuple(latents.shape)}")
        return self.reconstruct(self.bottleneck.quantize(latents))

    def forward(self, frames: Tensor, noise: Tensor | None = None):
        """One training pass: reconstruction (n 3 H W), bottleneck loss, figures to report.

        `noise` (n c h w), standard normal, samples the Gaussian; without it the mean is used.
        """
        latents, loss, report = self.bottleneck(self.features(frames), noise)
        return self.reconstruct(latents), loss, report

    def features(self, frames: Tensor) -> Tensor:
        """The input of the bottleneck: moments (n 2c h w), or vectors (n c h w) for a codebook."""
        factor = self.config.factor
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.shape[2] % factor or frames.shape[3] % factor:
            wanted = f"frames (n, 3, H, W) with H and W multiples of {factor}"
            raise UserError(f"expected {wanted}, got {tuple(frames.shape)}")
        # channels_last: the convolutions keep this memory format, and on a CPU it is faster
        return self.quant_conv(self.encoder(frames.contiguous(memory_format=torch.channels_last)))

    def reconstruct(self, latents: Tensor) -> Tensor:
        latents = latents.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.post_quant_conv(latents))
