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

The paper calls it VQGAN; its released weights are the KL autoencoder of Stable Diffusion, which has no
codebook. Both bottlenecks are here: `Gaussian` (what the released weights use) and `Codebook`.

References: VQGAN, Esser et al. 2021 (arXiv:2012.09841), section 3.1; latent diffusion, Rombach et al. 2022
(arXiv:2112.10752), section 3.1 and appendix G; VQ-VAE, van den Oord et al. 2017 (arXiv:1711.00937), sections
3.1, 3.2 and A.1 (moving averages); ModelScopeT2V, Wang et al. 2023 (arXiv:2308.06571), section 3.1.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v.errors import UserError
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
    """(n c h w) -> (n c h/2 w/2). Pads right and below only, as released; the UNet pads all four sides."""
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))


def double(channels: int) -> nn.Sequential:
    """(n c h w) -> (n c 2h 2w): repeat each pixel, then a convolution smooths the repetition."""
    return nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(channels, channels, 3, padding=1))


class Level(nn.Module):
    """The residual blocks of one resolution, then the step to the next one (`resample`)."""

    def __init__(self, c_in: int, c_out: int, blocks: int, groups: int, resample: nn.Module):
        super().__init__()
        widths = [c_in] + [c_out] * blocks
        self.blocks = nn.Sequential(*(ResBlock(a, b, groups) for a, b in zip(widths, widths[1:])))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(self.blocks(x))


def levels(widths: list[int], blocks: int, groups: int, resample) -> nn.Sequential:
    """One `Level` per width, with `resample(width)` after each but the last."""
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
    """Latents (n c_in h w) -> frames (n 3 H W). One block a level more than the encoder, as released."""

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


class Gaussian(nn.Module):
    """Bottleneck 1: each latent number is a normal distribution, kept near N(0, 1) by a small KL term.

    The encoder hands over *moments* (n 2c h w): the mean and the logarithm of the variance.
    """

    def split(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """(n 2c h w) -> mean and log-variance, each (n c h w)."""
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)  # so that exp neither vanishes nor overflows, as released

    def mode(self, moments: Tensor) -> Tensor:
        return self.split(moments)[0]

    def sample(self, moments: Tensor, generator: torch.Generator) -> Tensor:
        """mean + std * noise; the noise is drawn on the CPU in float32: one seed, one sample, anywhere."""
        return self(moments, torch.randn(self.mode(moments).shape, generator=generator))[0]

    def kl(self, moments: Tensor) -> Tensor:
        """KL(N(mean, var) || N(0, 1)) = (mean^2 + var - 1 - log var) / 2 of each latent number: (n c h w)."""
        mean, logvar = self.split(moments)
        return 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar)

    def snap(self, latents: Tensor) -> Tensor:
        return latents  # any latents may be decoded

    def forward(self, moments: Tensor, noise: Tensor | None = None):
        """-> latents (n c h w), loss (mean KL of a latent number), figures to report."""
        mean, logvar = self.split(moments)
        loss = self.kl(moments).mean()
        latents = mean if noise is None else mean + (0.5 * logvar).exp() * noise.to(mean)
        return latents, loss, {"kl": loss.item()}


class Codebook(nn.Module):
    """Bottleneck 2: each latent vector is replaced by the nearest of K learnt codes.

    The codes follow the vectors they stand for by an exponential moving average, so they need no gradient
    (VQ-VAE, appendix A.1). A code that hardly anything uses is dead: it is moved onto a vector of the batch,
    drawn with a probability in proportion to its squared error (the seeding of k-means++).
    """

    decay = 0.99  # of the moving averages, per training step
    dead_below = 0.01  # a code is dead when its usage falls below this part of a fair share, 1 / K
    commitment = 0.25  # how strongly vectors are drawn to their codes (beta of VQ-VAE, eq. 3)

    def __init__(self, codes: int, channels: int):
        super().__init__()
        self.register_buffer("codes", torch.randn(codes, channels))
        self.register_buffer("usage", torch.zeros(codes))  # share of the vectors of each code; zero is dead,
        self.register_buffer("sums", torch.zeros(codes, channels))  # so the first batch replaces every code
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code of each vector: (m c) -> (m,)."""
        # |v - e|^2 = |v|^2 - 2 v.e + |e|^2, and |v|^2 is the same for every code
        return ((self.codes**2).sum(dim=1) - 2.0 * vectors @ self.codes.T).argmin(dim=1)

    def snap(self, latents: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The nearest code of each latent vector: (n c h w) -> (n c h w)."""
        vectors = rearrange(latents, "n c h w -> (n h w) c")
        codes = self.codes[self.nearest(vectors)]
        return rearrange(codes, "(n h w) c -> n c h w", n=latents.shape[0], h=latents.shape[2])

    mode = sample = snap  # nothing is random here

    def forward(self, features: Tensor, noise: Tensor | None = None):
        """-> latents (n c h w), commitment loss, figures to report. In training the codes move."""
        quantised = self.snap(features).detach()
        loss = self.commitment * F.mse_loss(features, quantised)
        latents = features + (quantised - features).detach()  # straight-through: gradients skip the choice
        vectors = rearrange(features.detach(), "n c h w -> (n h w) c")
        index = self.nearest(vectors)
        share = torch.bincount(index, minlength=len(self.codes)).to(vectors) / len(vectors)
        if self.training:
            self.update(vectors, index, share)
        usage = (share > 0).float().mean()
        return latents, loss, {"usage": usage.item(), "perplexity": perplexity(share).item()}

    @torch.no_grad()
    def update(self, vectors: Tensor, index: Tensor, share: Tensor) -> None:
        """Moves each code to the running mean of its vectors (m c), and restarts the dead ones."""
        sums = torch.zeros_like(self.sums).index_add_(0, index, vectors) / len(vectors)
        self.usage.lerp_(share, 1.0 - self.decay)
        self.sums.lerp_(sums, 1.0 - self.decay)
        self.updates += 1
        dead = self.usage * len(self.codes) < self.dead_below
        if wanted := int(dead.sum()):
            error = ((vectors - self.codes[index]) ** 2).sum(dim=1).cpu() + 1e-12
            generator = torch.Generator().manual_seed(int(self.updates))  # a resumed run picks the same ones
            picks = torch.multinomial(error, wanted, replacement=wanted > len(error), generator=generator)
            self.usage[dead] = 1.0 / len(self.codes)
            self.sums[dead] = vectors[picks.to(vectors.device)] / len(self.codes)
        self.codes.copy_(self.sums / self.usage[:, None])


def perplexity(share: Tensor) -> Tensor:
    """How many codes are in use, in effect: exp of the entropy of the shares (k,), between 1 and k.

    >>> perplexity(torch.tensor([0.5, 0.5, 0.0]))
    tensor(2.)
    """
    return torch.special.entr(share).sum().exp()


class VQGAN(nn.Module):
    """Encoder, bottleneck and decoder.

    The latents come out unscaled: who trains or samples a diffusion model multiplies them by
    `config.scale_factor` (0.18215 in the released model), so that their standard deviation is about 1.

    >>> model = VQGAN(AutoencoderConfig(channels=8, norm_groups=4))
    >>> model.encode(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        if config.bottleneck not in ("gaussian", "codebook"):
            raise UserError(f'bottleneck must be "gaussian" or "codebook", not "{config.bottleneck}"')
        self.config, c = config, config.latent_channels
        gaussian = config.bottleneck == "gaussian"
        features = 2 * c if gaussian else c  # a mean and a log-variance each, or the vector itself
        self.encoder = Encoder(config, features)
        self.quant_conv = nn.Conv2d(features, features, 1)
        self.bottleneck = Gaussian() if gaussian else Codebook(config.codes, c)
        self.post_quant_conv = nn.Conv2d(c, c, 1)
        self.decoder = Decoder(config, c)

    def encode(self, frames: Tensor, sample: torch.Generator | None = None) -> Tensor:
        """Frames (n 3 H W) in [-1, 1] -> latents (n c h w): the mean, or with a generator a sample.

        Raises UserError when H or W is not a multiple of `config.factor` (8 in the released model).
        """
        features = self.features(frames)
        return self.bottleneck.mode(features) if sample is None else self.bottleneck.sample(features, sample)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n c h w), or the codes nearest to them -> frames (n 3 H W), not clipped."""
        c = self.config.latent_channels
        if latents.ndim != 4 or latents.shape[1] != c:
            raise UserError(f"expected latents (n, {c}, h, w), got {tuple(latents.shape)}")
        return self.reconstruct(self.bottleneck.snap(latents))

    def forward(self, frames: Tensor, noise: Tensor | None = None):
        """One training pass: -> reconstruction (n 3 H W), bottleneck loss, figures to report.

        `noise` (n c h w), standard normal, samples the Gaussian; without it the mean is used.
        """
        latents, loss, report = self.bottleneck(self.features(frames), noise)
        return self.reconstruct(latents), loss, report

    def features(self, frames: Tensor) -> Tensor:
        """What the bottleneck receives: moments (n 2c h w), or the vectors (n c h w) of a codebook."""
        factor = self.config.factor
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.shape[2] % factor or frames.shape[3] % factor:
            wanted = f"frames (n, 3, H, W) with H and W multiples of {factor}"
            raise UserError(f"expected {wanted}, got {tuple(frames.shape)}")
        # channels last in memory: the convolutions keep it, and are faster with it on a CPU
        return self.quant_conv(self.encoder(frames.contiguous(memory_format=torch.channels_last)))

    def reconstruct(self, latents: Tensor) -> Tensor:
        latents = latents.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.post_quant_conv(latents))
