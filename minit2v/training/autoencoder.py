"""Training the autoencoder: what the decoder gives back should be the frame that went in.

```
frames ──> VQGAN ──> reconstruction       loss = L1 + pyramid + bottleneck     the whole time
   │                   │                         + adversarial + hinge         from 0.7 of the budget
   └─> discriminator <─┘
```

References: VQGAN, arXiv:2012.09841, section 3.1 (losses, a discriminator that starts late); latent diffusion,
arXiv:2112.10752, appendix G (weights of the terms); patch discriminator: pix2pix, arXiv:1611.07004, section
3.2; hinge loss: arXiv:1705.02894, section 3; Laplacian pyramid as a loss: GLO, arXiv:1707.05776, section 3.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from minit2v.networks.autoencoder import VQGAN
from minit2v.presets import Preset


@dataclass(frozen=True)
class VQGANConfig:
    """Weights and times of the loss."""

    foreground: float = 8.0  # extra weight of a pixel on a thing, against 1 on the background
    pyramid: float = 1.0  # weight of the Laplacian pyramid; the perceptual term, needs no download
    levels: int = 3  # levels of the pyramid; each halves the size
    bottleneck: float = 1e-4  # weight of the mean KL of a latent number; released 1e-6 on sums over a frame
    commitment: float = 1.0  # the same weight for the codebook's commitment loss
    adversarial: float = 0.01  # weight of fooling the discriminator; small: it sharpens, L1 leads
    hinge: float = 0.1  # weight of the discriminator's loss; small, as one clipping is shared by all
    start: float = 0.7  # part of the budget after which the discriminator learns
    ramp: float = 0.1  # part of the budget over which the adversarial term then grows from 0 to its weight
    width: int = 16  # channels of the discriminator's first layer
    crop: int = 32  # side of the window around a thing that is trained on at first, pixels: a quarter of the work
    crop_until: float = 0.6  # part of the budget that sees windows; then whole frames, whose norms differ
    share_images: float = 0.7  # part of a batch that are images; the rest are single frames of clips
    frames_per_clip: int = 4  # frames used of a rendered clip; rendering is not free


class PatchDiscriminator(nn.Sequential):
    """Is a patch a frame's or a reconstruction's? (n 3 H W) -> scores (n 1 H/8 W/8), large for a frame's."""

    def __init__(self, width: int = 16):
        super().__init__(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )


def pixel_weights(frames: Tensor, extra: float) -> Tensor:
    """How much each pixel counts: 1 on the background, up to 1 + extra on and around things, mean 1.

    A small thing covers 3 % of a frame: unweighted, a reconstruction without it would be nearly perfect.
    The background is the median colour of each frame; a thing is what differs from it.

    Args: frames (n 3 H W) in [-1, 1]. Returns (n 1 H W).
    """
    median = frames.flatten(2).median(dim=2).values[:, :, None, None]
    difference = (frames - median).abs().amax(dim=1, keepdim=True).clamp(max=1.0)
    around = F.max_pool2d(difference, 5, stride=1, padding=2)  # the edge counts on both of its sides
    weights = 1.0 + extra * around
    return weights / weights.mean()


def random_windows(frames: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square window of each frame that shows (part of) a thing: (n 3 H W) -> (n 3 side side).

    The window's centre is a random pixel of the thing, moved inwards where it would leave the frame.
    """
    windows = []
    for frame, weight in zip(frames, pixel_weights(frames, 1.0)[:, 0]):
        thing = (weight > weight.mean()).nonzero()
        y, x = thing[torch.randint(len(thing), (1,), generator=generator)][0].tolist() if len(thing) else (0, 0)
        top = min(max(y - side // 2, 0), frame.shape[1] - side)
        left = min(max(x - side // 2, 0), frame.shape[2] - side)
        windows.append(frame[:, top : top + side, left : left + side])
    return torch.stack(windows)


def pyramid_loss(x: Tensor, y: Tensor, levels: int) -> Tensor:
    """L1 distance of the edges of two images at several sizes, the finest first: (n 3 H W) twice -> scalar.

    Level i of a Laplacian pyramid is what is lost by halving level i's size: edges of about 2**i pixels. A
    blurred edge or a shape of the wrong outline costs more here than in L1. What is left at the last level
    is the colour of large areas, compared as it is.
    """
    difference, loss = x - y, 0.0  # the pyramid is linear, so one pyramid of the difference is enough
    for _ in range(levels):
        coarse = F.avg_pool2d(difference, 2)  # (n 3 h w) -> (n 3 h/2 w/2)
        loss = loss + (difference - F.interpolate(coarse, scale_factor=2.0, mode="nearest")).abs().mean()
        difference = coarse
    return loss + difference.abs().mean()  # eq (3.4) · GLO section 3


class VQGANTask(nn.Module):
    """The autoencoder and its discriminator, trained by one optimiser on one loss.

    The adversarial term reaches only the autoencoder and the hinge term only the discriminator, so the sum
    of both has for each network exactly the gradient of its own loss.
    """

    def __init__(self, preset: Preset, config: VQGANConfig = VQGANConfig(), data=None):
        """`data`: two data sets, of images and of clips, with `.batch(indices)`; Moving Things by default."""
        super().__init__()
        self.preset, self.config = preset, config
        self.autoencoder = VQGAN(preset.autoencoder)
        self.discriminator = PatchDiscriminator(config.width)
        if preset.autoencoder.bottleneck == "gaussian":
            # start with a standard deviation of exp(-2): at 1, the usual start, noise hides the frame
            nn.init.constant_(self.autoencoder.quant_conv.bias[preset.autoencoder.latent_channels :], -4.0)
        self.images, self.clips = data or moving_things(preset)
        self.progress = 0.0  # 0 to 1 of the budget; the trainer sets it

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder}

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """A batch: frames (n 3 H W) in [-1, 1] and the noise (n c h w) that samples their latents; at first windows of
        frames, as many as cover the same number of pixels."""
        config, crop = self.preset.autoencoder, self.config.crop
        if self.progress < self.config.crop_until and crop < self.preset.height:
            whole = self.preset.height * self.preset.width
            frames = random_windows(self.draw_frames(generator, n * whole // crop**2), crop, generator)
        else:
            frames = self.draw_frames(generator, n)
        h, w = frames.shape[2] // config.factor, frames.shape[3] // config.factor
        noise = torch.randn(len(frames), config.latent_channels, h, w, generator=generator)
        return {"frames": frames, "noise": noise}

    def draw_frames(self, generator: torch.Generator, n: int) -> Tensor:
        """Images and single frames of clips, shuffled: (n 3 H W) in [-1, 1]."""
        count = round(n * self.config.share_images)
        index = torch.randint(len(self.images), (count,), generator=generator)
        images = self.images.batch(index.tolist())[0][:, 0] if count else []
        per_clip = self.config.frames_per_clip
        index = torch.randint(len(self.clips), (-(-(n - count) // per_clip),), generator=generator)
        stills = []
        for clip in self.clips.batch(index.tolist())[0] if len(index) else []:
            stills.extend(clip[torch.randperm(len(clip), generator=generator)[:per_clip].numpy()])
        pixels = torch.from_numpy(np.stack([*images, *stills[: n - count]]))
        pixels = pixels[torch.randperm(n, generator=generator)]
        return to_signed(pixels)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        config, frames = self.config, batch["frames"]
        reconstruction, bottleneck, report = self.autoencoder(frames, batch["noise"])
        l1 = (pixel_weights(frames, config.foreground) * (frames - reconstruction).abs()).mean()
        pyramid = pyramid_loss(frames, reconstruction, config.levels)
        weight = config.bottleneck if self.preset.autoencoder.bottleneck == "gaussian" else config.commitment
        loss = l1 + config.pyramid * pyramid + weight * bottleneck
        mse = F.mse_loss(frames, reconstruction.detach().clamp(-1.0, 1.0))
        psnr = 10.0 * torch.log10(4.0 / mse)  # decibels; the range from -1 to 1 has the square 4
        report |= {"l1": l1.item(), "pyramid": pyramid.item(), "psnr": psnr.item()}
        if self.progress < config.start:
            # nothing to learn yet, but every parameter has a gradient: DistributedDataParallel waits for each
            return loss + 0.0 * sum(p.sum() for p in self.discriminator.parameters()), report
        adversarial, hinge = self.adversarial(reconstruction), self.hinge(frames, reconstruction)
        ramp = min(1.0, (self.progress - config.start) / config.ramp)  # eq (3.7) · VQGAN, disc_start of its code
        report |= {"adversarial": adversarial.item(), "hinge": hinge.item()}
        return loss + ramp * config.adversarial * adversarial + config.hinge * hinge, report

    def adversarial(self, reconstruction: Tensor) -> Tensor:
        """-E[D(reconstruction)], with a gradient for the autoencoder alone (hinge loss)."""
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        return -functional_call(self.discriminator, frozen, (reconstruction,)).mean()  # eq (3.6) · Geometric GAN

    def hinge(self, frames: Tensor, reconstruction: Tensor) -> Tensor:
        """E[max(0, 1 - D(frame))] + E[max(0, 1 + D(reconstruction))], for the discriminator alone."""
        real, fake = self.discriminator(torch.cat([frames, reconstruction.detach()])).chunk(2)
        return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()  # eq (3.5) · Geometric GAN

    @torch.no_grad()
    def picture(self, n: int = 8, seed: int = 0) -> np.ndarray:
        """n frames above their reconstructions, always the same ones: uint8 (2H, nW, 3)."""
        frames = self.draw_frames(torch.Generator().manual_seed(seed), n).to(self.device)
        reconstruction = self.autoencoder.decode(self.autoencoder.encode(frames))
        both = rearrange([frames, reconstruction], "r n c H W -> (r H) (n W) c")
        return ((both.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()

    @torch.no_grad()
    def latents(self, n: int = 512, seed: int = 0) -> Tensor:
        """The latents of n drawn frames: (n c h w)."""
        generator = torch.Generator().manual_seed(seed)
        parts = [self.draw_frames(generator, min(64, n - start)) for start in range(0, n, 64)]
        return torch.cat([self.autoencoder.encode(part.to(self.device)) for part in parts])

    @torch.no_grad()
    def normalise(self) -> float:
        """Make latents of variance 1 without changing any reconstruction; returns the scale factor that is then needed.

        The last layer before Gaussian latents and the first one after them are linear, so one takes up (z - mean) / std
        of every channel and the other its inverse, and the factor is 1. Codes stay what they are: theirs is 1 / std.
        """
        latents = self.latents()
        if self.preset.autoencoder.bottleneck == "codebook":
            return 1.0 / latents.std().item()  # eq (2.1) · latent diffusion, appendix G
        mean, std, c = latents.mean((0, 2, 3)), latents.std((0, 2, 3)), latents.shape[1]
        before, after = self.autoencoder.quant_conv, self.autoencoder.post_quant_conv
        before.weight[:c] /= std[:, None, None, None]
        before.bias[:c] = (before.bias[:c] - mean) / std
        before.bias[c:] -= 2 * std.log()  # of the log-variances
        after.bias += after.weight[:, :, 0, 0] @ mean
        after.weight *= std[:, None, None]
        return 1.0

    @property
    def device(self) -> torch.device:
        return self.autoencoder.quant_conv.weight.device


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 (n H W 3) -> float (n 3 H W) in [-1, 1]."""
    return rearrange(pixels, "n H W c -> n c H W").float() / 127.5 - 1.0  # eq (1.1) · DDPM, section 3.3


def moving_things(preset: Preset):
    """The train split as images (with the image-only concepts) and as clips."""
    from minit2v.datasets.moving_things import MovingThings

    settings = {"level": 1, "size": preset.height, "frames": preset.frames}
    return MovingThings("train", **settings, images=True), MovingThings("train", **settings)
