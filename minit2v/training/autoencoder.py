"""Training the autoencoder: the decoder should return the frame that the encoder was given.

```
frames ──> encoder ──> latents ──> decoder ──> reconstruction     loss = L1 + pyramid + bottleneck + read-out
   │                      └──> read-out of colours    │                  + adversarial + hinge   from 0.7 of the budget
   └─────────────> discriminator <────────────────────┘
```

A perfect reconstruction does not make good latents. Trained on it alone, ours wrote all colours onto one axis, as if they
were degrees of brightness: a small error of a diffusion model in a latent was then another colour. Two departures keep
colours apart: each latent must tell the mean colour of its patch *linearly*, and the decoder must bear a little noise.

References: VQGAN, arXiv:2012.09841, section 3.1 (losses, a discriminator that starts late); latent diffusion,
arXiv:2112.10752, appendix G (weights of the terms); patch discriminator: pix2pix, arXiv:1611.07004, section
3.2; hinge loss: arXiv:1705.02894, section 3; Laplacian pyramid as a loss: GLO, arXiv:1707.05776, section 3.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from minit2v.datasets.base import Dataset, VideoText
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.pixels import to_pixels, to_signed
from minit2v.presets import Preset
from minit2v.ranges import Checked, Count, Depth, Positive, Share, Size, Weight, Width
from minit2v.training.parts import Part
from minit2v.training.trainer import TrainConfig


@dataclass(frozen=True)
class AutoencoderTraining(Checked):
    """Weights and times of the loss; departures are off, and on in the recipes."""

    foreground: Weight = 0.0  # departure: extra weight of a pixel that is not of the frame's median colour, against 1
    pyramid: Weight = 1.0  # weight of the Laplacian pyramid; the perceptual term of the release, but without a download
    levels: Depth = 3  # levels of the pyramid; each halves the size
    bottleneck: Weight = 2e-8  # weight of the mean KL of a latent number; released 1e-6 on sums over a frame, the same
    commitment: Weight = 1.0  # the same weight for the codebook's commitment loss
    adversarial: Weight = 0.01  # weight of fooling the discriminator; released 0.5 times a ratio of gradients
    hinge: Weight = 1.0  # weight of the discriminator's loss; released 1
    start: Weight = 0.7  # share of the run after which the discriminator learns, above 1 never; released 50,001 steps
    ramp: Positive = 0.1  # share of the run over which the adversarial term, and thrift, then grow from 0 to their weight
    discriminator_width: Width = 64  # channels of the discriminator's first layer; released 64
    crop: Count = 0  # departure: side of windows that show a thing, pixels, trained on at first; 0: whole frames
    crop_until: Share = 0.6  # share of the run that sees windows; then whole frames, whose norms differ
    share_images: Share = 1.0  # share of a batch that are images, the rest are single frames of clips; released 1
    frames_per_clip: Size = 4  # frames used of a clip that was read or drawn: both take time
    readout: Weight = 0.0  # departure: weight of reading the mean colour of a patch off its latent, linearly
    latent_noise: Weight = 0.0  # departure: most noise on the latents that are decoded, in their standard deviations


class PatchDiscriminator(nn.Sequential):
    """Is a patch a frame's or a reconstruction's? (n 3 H W) -> scores (n 1 H/8 W/8), large for a frame's."""

    def __init__(self, width: int = 64):
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
    """The weight of each pixel: 1 on the background, up to 1 + extra on and around things, then scaled to mean 1.

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
        thing, y, x = (weight > weight.mean()).nonzero(), 0, 0
        if len(thing):
            y, x = thing[torch.randint(len(thing), (1,), generator=generator, device="cpu")][0].tolist()
        top = min(max(y - side // 2, 0), frame.shape[1] - side)
        left = min(max(x - side // 2, 0), frame.shape[2] - side)
        windows.append(frame[:, top : top + side, left : left + side])
    return torch.stack(windows)


def pyramid_loss(x: Tensor, y: Tensor, levels: int) -> Tensor:
    """L1 distance of the edges of two images at several sizes, the finest first: (n 3 H W) twice -> scalar.

    Level i of a Laplacian pyramid holds what halving level i's size loses: edges of about 2**i pixels. A blurred edge
    or a shape of the wrong outline costs more here than in L1. The last level holds the colour of large areas.
    """
    difference, loss = x - y, 0.0  # the pyramid is linear, so one pyramid of the difference is enough
    for _ in range(levels):
        coarse = F.avg_pool2d(difference, 2)  # (n 3 h w) -> (n 3 h/2 w/2)
        loss = loss + (difference - F.interpolate(coarse, scale_factor=2.0, mode="nearest")).abs().mean()
        difference = coarse
    return loss + difference.abs().mean()  # eq (3.1) · GLO section 3


def readout_loss(colours: Tensor, frames: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of the colours (n 3 h w) that are read off latents, against the mean colour of each latent's
    patch of the frames (n 3 H W); a patch weighs as much as its pixels (n 1 H W) do. -> scalar."""
    patch = frames.shape[-1] // colours.shape[-1]
    return (F.avg_pool2d(weights, patch) * (colours - F.avg_pool2d(frames, patch)) ** 2).mean()


class AutoencoderTask(nn.Module):
    """The autoencoder and its discriminator, trained by one optimiser on one loss.

    The adversarial term reaches only the autoencoder and the hinge term only the discriminator, so the sum
    of both has for each network exactly the gradient of its own loss.
    """

    def __init__(self, preset: Preset, config: AutoencoderTraining, data: Dataset, folder: Path | None = None):
        super().__init__()
        if config.crop % preset.factor:
            raise UserError(f"crop: expected 0 or a multiple of {preset.factor}, found {config.crop}")
        self.preset, self.config = preset, config
        self.autoencoder = VQGAN(preset.autoencoder)
        self.discriminator = PatchDiscriminator(config.discriminator_width)
        self.readout = nn.Conv2d(preset.autoencoder.latent_channels, 3, 1) if config.readout else None
        if preset.autoencoder.bottleneck == "gaussian":
            # start with a standard deviation of exp(-2): at 1, the usual start, noise hides the frame
            nn.init.constant_(self.autoencoder.quant_conv.bias[preset.autoencoder.latent_channels :], -4.0)
        self.images, self.clips = (
            data.open("train", preset.frames, preset.height, preset.width, images) for images in (True, False)
        )
        self.progress = 0.0  # 0 to 1 of the budget; the trainer sets it

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder}

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """A batch: frames (n 3 H W) in [-1, 1], the noise (n c h w) that samples their latents, and the disturbance of
        these in standard deviations; at first windows of frames, as many as cover the same number of pixels."""
        config, crop = self.preset.autoencoder, self.config.crop
        if self.progress < self.config.crop_until and 0 < crop < min(self.preset.height, self.preset.width):
            whole = self.preset.height * self.preset.width
            frames = random_windows(self.draw_frames(generator, n * whole // crop**2), crop, generator)
        else:
            frames = self.draw_frames(generator, n)
        h, w = frames.shape[2] // config.factor, frames.shape[3] // config.factor
        shape = len(frames), config.latent_channels, h, w
        normal = lambda: torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        batch = {"frames": frames, "noise": normal()}
        if self.config.latent_noise:
            amplitude = torch.rand(len(frames), 1, 1, 1, generator=generator, dtype=torch.float32, device="cpu")
            batch["disturbance"] = self.config.latent_noise * amplitude * normal()
        return batch

    def draw_frames(self, generator: torch.Generator, n: int) -> Tensor:
        """Images and single frames of clips, shuffled: (n 3 H W) in [-1, 1]."""
        count, per_clip = round(n * self.config.share_images), min(self.config.frames_per_clip, self.preset.frames)
        images = drawn(self.images, generator, count)[:, 0] if count else []
        stills = []
        for clip in drawn(self.clips, generator, -(-(n - count) // per_clip)) if count < n else []:
            stills.extend(clip[torch.randperm(len(clip), generator=generator, device="cpu")[:per_clip].numpy()])
        pixels = torch.from_numpy(np.stack([*images, *stills[: n - count]]))
        return to_signed(pixels[torch.randperm(n, generator=generator, device="cpu")])

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        config, frames, weights = self.config, batch["frames"], pixel_weights(batch["frames"], self.config.foreground)
        ramp = min(1.0, max(0.0, (self.progress - config.start) / config.ramp))  # eq (3.7) · VQGAN, disc_start of its code
        if self.preset.autoencoder.bottleneck == "codebook":  # codes have to be learnt before they can be spared
            self.autoencoder.bottleneck.thrift = ramp * self.preset.autoencoder.thrift
        latents, bottleneck, report = self.autoencoder.bottleneck(self.autoencoder.features(frames), batch["noise"])
        disturbed = latents
        if config.latent_noise:
            disturbed = latents + latents.detach().std((0, 2, 3), keepdim=True) * batch["disturbance"]
        reconstruction = self.autoencoder.reconstruct(disturbed)
        l1 = (weights * (frames - reconstruction).abs()).mean()
        pyramid = pyramid_loss(frames, reconstruction, config.levels)
        weight = config.bottleneck if self.preset.autoencoder.bottleneck == "gaussian" else config.commitment
        loss = l1 + config.pyramid * pyramid + weight * bottleneck
        if self.readout is not None:
            colours = readout_loss(self.readout(latents), frames, weights)
            loss, report = loss + config.readout * colours, report | {"readout": colours.item()}
        mse = F.mse_loss(frames, reconstruction.detach().clamp(-1.0, 1.0))
        psnr = 10.0 * torch.log10(4.0 / mse)  # decibels; the range from -1 to 1 has the square 4
        report |= {"l1": l1.item(), "pyramid": pyramid.item(), "psnr": psnr.item()}
        if self.progress < config.start:
            # nothing to learn yet, but every parameter has a gradient: DistributedDataParallel waits for each
            return loss + 0.0 * sum(p.sum() for p in self.discriminator.parameters()), report
        adversarial, hinge = self.adversarial(reconstruction), self.hinge(frames, reconstruction)
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
        frames = self.draw_frames(torch.Generator("cpu").manual_seed(seed), n).to(self.device)
        reconstruction = self.autoencoder.decode(self.autoencoder.encode(frames))
        return to_pixels(rearrange([frames, reconstruction], "r n c H W -> c (r H) (n W)")).cpu().numpy()

    @torch.no_grad()
    def latents(self, n: int = 512, seed: int = 0) -> Tensor:
        """The latents of n drawn frames: (n c h w)."""
        generator = torch.Generator("cpu").manual_seed(seed)
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


def drawn(data: VideoText, generator: torch.Generator, n: int) -> np.ndarray:
    """The frames of n items of a data set, each drawn from all: uint8 (n f H W 3)."""
    return data.batch(torch.randint(len(data), (n,), generator=generator, device="cpu").tolist()).frames


def finish(task: AutoencoderTask, averaged: nn.ModuleDict) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The averaged autoencoder, its latents of variance 1, and the preset's settings with its scale factor."""
    task.autoencoder.load_state_dict(averaged["autoencoder"].state_dict())
    settings = replace(task.preset.autoencoder, scale_factor=task.normalise())
    return {"autoencoder": task.autoencoder}, {"autoencoder": settings}


PART = Part(
    task=AutoencoderTask,
    config=AutoencoderTraining(),
    loop=TrainConfig(  # of latent diffusion's autoencoders: 4.5e-6 an item, Adam, no average
        batch=16, lr=16 * 4.5e-6, weight_decay=0.0, betas=(0.5, 0.9), grad_clip=math.inf, ema=0.0
    ),
    fields=("autoencoder",),
    finish=finish,
)
