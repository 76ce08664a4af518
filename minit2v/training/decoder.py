"""Training a decoder that sees time: clips through the frozen encoder, and back.

    clip ──► encoder, frozen ──► latents ──► decoder with temporal layers ──► reconstruction     L1 + pyramid
      └──────────────────────► discriminator of clips ◄──────────────────────────┘              + adversarial + hinge

It begins as the decoder of pictures. A discriminator with convolutions over time sees what a single frame cannot show:
flicker.

Reference: Video LDM, arXiv 2304.08818, section 3.1.1 and appendix B.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.base import Dataset
from minit2v.networks.autoencoder import VQGAN
from minit2v.pixels import evenly, to_pixels, to_signed
from minit2v.presets import Preset
from minit2v.ranges import Checked, Depth, Share, Size, Weight, Width
from minit2v.systems import system_of
from minit2v.training.autoencoder import pixel_weights, pyramid_loss
from minit2v.training.parts import Part, in_float16, trained
from minit2v.training.trainer import TrainConfig


@dataclass(frozen=True)
class DecoderTraining(Checked):
    """Weights of the loss, as in `autoencoder.AutoencoderTraining`."""

    frames: Size = 8  # of a clip, one after the other, from a random one on
    foreground: Weight = 0.0  # departure: extra weight of a pixel that is not of the frame's median colour, against 1
    pyramid: Weight = 1.0  # weight of the Laplacian pyramid
    levels: Depth = 3  # levels of the pyramid
    adversarial: Weight = 0.01  # weight of fooling the discriminator; 0 leaves it out
    start: Share = 0.3  # share of the run after which the adversarial term counts
    discriminator_width: Width = 16  # channels of the discriminator's first layer


class ClipDiscriminator(nn.Sequential):
    """Is a patch a clip's or a reconstruction's? (n, 3, f, H, W) -> scores (n, 1, f, H/8, W/8), large for a clip's."""

    def __init__(self, width: int):
        layer = lambda a, b: nn.Conv3d(a, b, (3, 4, 4), stride=(1, 2, 2), padding=1)
        super().__init__(layer(3, width), nn.LeakyReLU(0.2), layer(width, 2 * width), nn.LeakyReLU(0.2),
                         layer(2 * width, 4 * width), nn.LeakyReLU(0.2), nn.Conv3d(4 * width, 1, 3, padding=1))  # fmt: skip


class DecoderTask(nn.Module):
    """The decoder and its discriminator, trained by one optimiser on one loss; see `autoencoder.AutoencoderTask`."""

    def __init__(self, preset: Preset, config: DecoderTraining, data: Dataset, folder: Path):
        super().__init__()
        self.preset, self.config, self.progress = preset, config, 0.0
        self.decoder = system_of(preset).networks["decoder"](preset.decoder)
        autoencoder = load_into(VQGAN(preset.autoencoder), trained(folder, "autoencoder", preset.name)).eval().requires_grad_(False)
        self.decoder.post_quant_conv.load_state_dict(autoencoder.post_quant_conv.state_dict())
        self.decoder.decoder.load_state_dict(autoencoder.decoder.state_dict())
        self.discriminator = ClipDiscriminator(config.discriminator_width) if config.adversarial else None
        self.frozen = [autoencoder]  # in a list, so neither trained nor saved with the task
        self.clips = data.open("train", preset.frames, preset.height, preset.width)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"decoder": self.decoder}

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """Clips (n, 3, f, H, W) in [-1, 1]."""
        draw = lambda many, size: torch.randint(many, (size,), generator=generator, device="cpu")
        pixels = self.clips.batch(draw(len(self.clips), n).tolist()).frames
        frames = min(self.config.frames, pixels.shape[1])
        first = int(draw(pixels.shape[1] - frames + 1, 1))
        clips = to_signed(torch.from_numpy(pixels[:, first : first + frames]))  # (n f 3 H W)
        return {"clips": clips.transpose(1, 2).contiguous()}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        config, clips = self.config, batch["clips"]
        frames = lambda x: rearrange(x, "n c f H W -> (n f) c H W")
        made = self.decoder(self.latents(clips))
        weights = pixel_weights(frames(clips), config.foreground)
        l1 = (weights * (frames(clips) - frames(made)).abs()).mean()
        loss = l1 + config.pyramid * pyramid_loss(frames(clips), frames(made), config.levels)
        report = {"l1": l1.item(), "flicker": (made - clips).diff(dim=2).abs().mean().item()}
        if self.discriminator is None:
            return loss, report
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        adversarial = -functional_call(self.discriminator, frozen, (made,)).mean()
        real, fake = self.discriminator(torch.cat([clips, made.detach()])).chunk(2)
        hinge = (1 - real).relu().mean() + (1 + fake).relu().mean()
        weight = config.adversarial * (self.progress >= config.start)
        return loss + weight * adversarial + hinge, report | {"adversarial": adversarial.item(), "hinge": hinge.item()}

    @torch.no_grad()
    def latents(self, clips: Tensor) -> Tensor:
        """Clips (n, 3, f, H, W) -> unscaled latents (n, c, f, h, w)."""
        autoencoder = self.frozen[0].to(clips.device)
        latents = autoencoder.encode(rearrange(clips, "n c f H W -> (n f) c H W"))
        return rearrange(latents, "(n f) c h w -> n c f h w", n=len(clips))

    @torch.no_grad()
    def picture(self, n: int = 4, columns: int = 8) -> np.ndarray:
        """n clips, each above its reconstruction, always the same ones: uint8 (2nH, columns W, 3)."""
        device = self.decoder.post_quant_conv.weight.device
        clips = self.draw(torch.Generator("cpu").manual_seed(0), n)["clips"].to(device)
        both = torch.stack([clips, self.decoder(self.latents(clips))], dim=1)[:, :, :, evenly(clips.shape[2], columns)]
        return to_pixels(rearrange(both, "n r c f H W -> c (n r H) (f W)")).cpu().numpy()


PART = Part(
    task=DecoderTask,
    config=DecoderTraining(),
    loop=TrainConfig(batch=8, lr=1e-4),
    fields=("decoder",),
    needs=("autoencoder",),
    finish=in_float16,
)
