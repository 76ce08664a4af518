"""Training Make-A-Video: what has seen text has seen no video, what has seen video has seen no text.

    text       pictures and captions     CLIP, both towers; the tower of pictures is needed for training alone
    prior      pictures and captions     image embedding from text embedding
    image      pictures                  a model of pictures, given the image embedding
    unet       clips without text        key frames, given the image embedding of one of them
    between    clips without text        the frames between known ones
    upscale    clips without text        twice the size

`Unlabelled` is all that the last four parts see of a data set, and it has no captions.

Reference: Make-A-Video, arXiv 2209.14792, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.base import Batch, Dataset, VideoText
from minit2v.devices import warn_of_slow_bfloat16
from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.networks.clip import build_clip
from minit2v.networks.unet import ImageUNet
from minit2v.pixels import to_signed
from minit2v.presets import DiffusionConfig, Preset
from minit2v.ranges import Checked, Count, Share, Size, Weight
from minit2v.systems import system_of
from minit2v.systems.makeavideo import (
    FOLD,
    FOLD_WHOLE,
    KEY_INTERVAL,
    JointText,
    diffusion_of_later,
    diffusion_of_prior,
    enlarged,
    folded,
    halved,
)  # fmt: skip
from minit2v.training.parts import Part, in_float16, trained
from minit2v.training.text import PART as CLIP
from minit2v.training.text import TextTask
from minit2v.training.trainer import TrainConfig
from minit2v.training.unet import begin_as, grouped, in_precision, uniform


class Unlabelled:
    """Clips or pictures of a data set, without their captions."""

    def __init__(self, view: VideoText):
        self._frames, self._length = lambda indices: view.batch(indices).frames, len(view)

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (b, f, H, W, 3)."""
        return self._frames(indices)


class TextPart(TextTask):
    """CLIP on pictures alone; its captions' words are those that it learns."""

    def __init__(self, preset: Preset, config, data: Dataset, folder: Path):
        super().__init__(preset, replace(config, clips=0), data, folder)
        self.joint = JointText(self.preset.text, self.clip)

        self.vision = Vision(self.clip.visual, self.mean, self.deviation)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"text": self.joint, "vision": self.vision}


class Vision(nn.Module):
    """CLIP's tower of pictures, with the constants that these are normalised by: uint8 (n, 3, H, W) -> embeddings (n, e)
    of length 1. Places start as sines and all patches are averaged, see `TextTraining.grid_positions`."""

    def __init__(self, tower: nn.Module, mean: float = 0.0, deviation: float = 1.0):
        super().__init__()
        self.tower, tower.pool_type = tower, "avg"
        self.register_buffer("constants", torch.tensor([mean, deviation]))

    def forward(self, pictures: Tensor) -> Tensor:
        mean, deviation = self.constants
        return F.normalize(self.tower((pictures.float() - mean) / deviation), dim=-1)


@dataclass(frozen=True)
class PriorTraining(Checked):
    """What the prior is trained on."""

    images: Size = 16384  # pictures read or drawn, if there are as many


class PriorTask(nn.Module):
    """The prior, as a diffusion of image embeddings."""

    def __init__(self, preset: Preset, config: PriorTraining, data: Dataset, folder: Path):
        super().__init__()
        self.progress, row = 0.0, system_of(preset)
        self.prior = row.networks["prior"](preset.prior)
        self.diffusion = Diffusion(diffusion_of_prior(preset.diffusion))
        text = load_into(row.networks["text"](preset.text), trained(folder, "text", preset.name)).eval()
        embed = embedder(preset, folder)
        view = data.open("train", 1, preset.height, preset.width, images=True)
        images, texts = [], []
        for batch in read(view, config.images):
            images.append(embed(batch.frames[:, 0]))
            texts.append(text.embed(batch.captions))
        scale = preset.prior.embed_dim**0.5  # to a variance of 1
        self.images, self.texts = scale * torch.cat(images), scale * torch.cat(texts)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"prior": self.prior}

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        index = torch.randint(len(self.images), (n,), generator=generator, device="cpu")
        images = self.images[index]
        t = (uniform(generator, n) * self.diffusion.config.timesteps).long()
        noise = torch.randn(images.shape, generator=generator, dtype=torch.float32, device="cpu")
        return {"images": images, "texts": self.texts[index], "noise": noise, "t": t}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        noisy = self.diffusion.add_noise(batch["images"], batch["noise"], batch["t"])
        loss = F.mse_loss(self.prior(noisy, batch["t"], batch["texts"]), batch["images"])
        return loss, {}

    def picture(self) -> None:
        return None


@dataclass(frozen=True)
class PixelTraining(Checked):
    """What a UNet of pixels is trained on, and how fast its parts learn; see `unet.UNetTraining` for the rates."""

    clips: Count = 4096  # clips read or drawn and kept, if there are as many
    images: Count = 0  # pictures likewise
    images_per_clip: Size = 8  # pictures in the place of one clip of a batch
    embedding_dropout: Share = 0.1  # share of image embeddings that are replaced by zeros, for guidance
    known_noise: Weight = 0.1  # most noise on what is known, in units of its range from 0 to 1
    temporal_rate: Weight = 1.0
    scene_prior_rate: Weight = 3.0
    muon_rate: Weight = 0.0
    bfloat16: bool = True


class PixelTask(nn.Module):
    """A UNet that denoises pixels, given an image embedding. A subclass sets `trains` and `drawn`."""

    trains = ""

    def __init__(self, preset: Preset, config: PixelTraining, data: Dataset, folder: Path):
        super().__init__()
        warn_of_slow_bfloat16(config.bfloat16)
        self.preset, self.config, self.progress = preset, config, 0.0
        self.network = self.built(preset, folder).to(memory_format=torch.channels_last)
        self.diffusion, self.pixels, self.embeddings = Diffusion(self.schedule(preset)), {}, {}
        embed = embedder(preset, folder)
        for kind, most in {"clips": config.clips, "images": config.images}.items():
            if most:
                view = Unlabelled(data.open("train", preset.frames, preset.height, preset.width, images=kind == "images"))
                frames = [view.frames(part) for part in numbers(min(most, len(view)))]
                self.pixels[kind] = np.concatenate(frames)
                each = [embed(part.reshape(-1, *part.shape[2:])).view(*part.shape[:2], -1) for part in frames]
                self.embeddings[kind] = torch.cat(each)  # (n f e)

    def schedule(self, preset: Preset) -> DiffusionConfig:
        """The diffusion of the stage that is trained."""
        return preset.diffusion

    def built(self, preset: Preset, folder: Path) -> nn.Module:
        """The network that is trained, as it begins."""
        return system_of(preset).networks[self.trains](getattr(preset, self.trains))

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {self.trains: self.network}

    def parameter_groups(self, lr: float) -> list[dict]:
        return grouped(self.network, self.config, lr)

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """x (n, c, f, h, w) clean, noise, t (n,), image (n, 1, e), and what else the network is given."""
        batch = self.drawn(generator, n)
        dropped = uniform(generator, len(batch["x"])) < self.config.embedding_dropout
        batch["image"] = batch["image"].masked_fill(dropped[:, None, None], 0.0)
        noise = torch.randn(batch["x"].shape, generator=generator, dtype=torch.float32, device="cpu")
        t = (torch.arange(len(dropped), device="cpu") + uniform(generator, len(dropped))) / len(dropped)
        last = self.preset.diffusion.timesteps - 1
        return batch | {"noise": noise, "t": (t * (last + 1)).long().clamp(max=last)}

    def taken(self, generator: torch.Generator, n: int, kind: str = "clips") -> tuple[Tensor, Tensor]:
        """n items: frames (n, 3, f, H, W) in [-1, 1], and the embeddings of their frames (n, f, e)."""
        index = torch.randint(len(self.pixels[kind]), (n,), generator=generator, device="cpu")
        return to_signed(self.pixels[kind][index.numpy()]).transpose(1, 2), self.embeddings[kind][index]

    def disturbed(self, generator: torch.Generator, known: Tensor) -> Tensor:
        """Known frames (n, c, f, h, w) with a little noise, as those that another stage has made are not quite right."""
        amplitude = 2 * self.config.known_noise * uniform(generator, len(known))[:, None, None, None, None]
        return known + amplitude * torch.randn(known.shape, generator=generator, dtype=torch.float32, device="cpu")

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        x, noise, t = batch["x"], batch["noise"], batch["t"]
        options = {name: batch[name] for name in ("positions", "condition") if name in batch}
        noisy = self.diffusion.add_noise(x, noise, t)
        output = in_precision(self.network, self.config.bfloat16, noisy, t, batch["image"], **options)
        return self.diffusion.loss(output, x, noise, t), {}

    def picture(self) -> None:
        return None


class ImageTask(PixelTask):
    """Pictures of half the size."""

    trains = "image"

    def built(self, preset: Preset, folder: Path) -> nn.Module:
        return ImageUNet(preset.unet)

    def drawn(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        frames, image = self.taken(generator, n * self.config.images_per_clip, "images")
        return {"x": folded(halved(frames), FOLD), "image": image}


class UNetTask(PixelTask):
    """Key frames of half the size, at several frame rates: a random number of frames apart, wide ones more often."""

    trains = "unet"

    def built(self, preset: Preset, folder: Path) -> nn.Module:
        unet = super().built(preset, folder)
        begin_as(unet, trained(folder, "image", preset.name))
        return unet

    def drawn(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        frames, image = self.taken(generator, n)
        draw = lambda many: int(torch.randint(many, (1,), generator=generator, device="cpu"))
        keys = (frames.shape[2] - 1) // KEY_INTERVAL + 1
        # 5 in nearly half of the draws, and down to 1
        apart = max(1, KEY_INTERVAL - int(KEY_INTERVAL * uniform(generator, 1).square()))
        first = draw(frames.shape[2] - apart * (keys - 1))
        at = torch.arange(first, first + apart * (keys - 1) + 1, apart, device="cpu")
        chosen = image[torch.arange(n), at[torch.randint(keys, (n,), generator=generator, device="cpu")]]
        return {"x": folded(halved(frames[:, :, at]), FOLD), "image": chosen[:, None], "positions": at.expand(n, -1)}


class LaterTask(PixelTask):
    """A stage that is given what the stage before it has made."""

    def schedule(self, preset: Preset) -> DiffusionConfig:
        return diffusion_of_later(preset.diffusion)


class BetweenTask(LaterTask):
    """Frames of half the size between those that are known: each fifth, fourth or second, or the first ones only."""

    trains = "between"

    def drawn(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        frames, image = self.taken(generator, n)
        f, numbers = frames.shape[2], torch.arange(frames.shape[2], device="cpu")
        intervals = torch.tensor([KEY_INTERVAL, KEY_INTERVAL, 4, 2], device="cpu")
        every = intervals[torch.randint(4, (n,), generator=generator, device="cpu")]
        given = numbers % every[:, None] == 0
        begun = uniform(generator, n) < 0.25
        given[begun] = numbers < 1 + torch.randint(f // 2, (int(begun.sum()), 1), generator=generator, device="cpu")
        small, mask = halved(frames), given[:, None, :, None, None].float()
        chosen = image[torch.arange(n), torch.randint(f, (n,), generator=generator, device="cpu")]
        known = folded(self.disturbed(generator, small) * mask, FOLD)
        condition = torch.cat([known, mask.expand(-1, -1, -1, *known.shape[3:])], dim=1)
        return {"x": folded(small, FOLD), "image": chosen[:, None], "condition": condition}


class UpscaleTask(LaterTask):
    """Frames of the whole size, given those of half the size."""

    trains = "upscale"

    def drawn(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        frames, image = self.taken(generator, n)
        small = enlarged(self.disturbed(generator, halved(frames)))
        chosen = image[torch.arange(n), torch.randint(frames.shape[2], (n,), generator=generator, device="cpu")]
        return {"x": folded(frames, FOLD_WHOLE), "image": chosen[:, None], "condition": folded(small, FOLD_WHOLE)}


def embedder(preset: Preset, folder: Path):
    """A function from pictures uint8 (n, H, W, 3) to CLIP's embeddings (n, e) of length 1."""
    vision = load_into(Vision(build_clip(preset.text).visual), trained(folder, "vision", preset.name)).eval()
    if (size := preset.text.vision.size) != preset.height or size != preset.width:
        raise UserError(f"text.vision.size: expected {preset.height}, the height and width, found {size}")

    @torch.inference_mode()
    def embed(pictures: np.ndarray) -> Tensor:
        parts = torch.from_numpy(pictures).permute(0, 3, 1, 2).split(512)
        return torch.cat([vision(part) for part in parts]).clone()

    return embed


def numbers(count: int, at_once: int = 64) -> list[range]:
    """0 … count - 1 in parts."""
    return [range(start, min(start + at_once, count)) for start in range(0, count, at_once)]


def read(view: VideoText, most: int) -> list[Batch]:
    """The first items of a view, in batches."""
    return [view.batch(part) for part in tqdm(numbers(min(most, len(view))), desc="reading", disable=None)]


def finish_text(task: TextPart, averaged: nn.ModuleDict) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Both averaged towers, and the settings of the text's with the words that it keeps."""
    return dict(averaged.items()), {"text": task.preset.text}


LOOP = TrainConfig(batch=64, lr=1e-4, ema=0.9999)
TEXT = replace(CLIP, task=TextPart, config=replace(CLIP.config, words="images", grid_positions=True), finish=finish_text,
               writes=("text", "vision"))
PRIOR = Part(PriorTask, PriorTraining(), LOOP, fields=("prior",), needs=("text", "vision"), finish=in_float16)
IMAGE = Part(ImageTask, PixelTraining(clips=0, images=16384), LOOP, fields=("unet", "diffusion"), needs=("vision",), finish=in_float16,
             writes=("image",))
UNET = Part(UNetTask, PixelTraining(), LOOP, fields=("unet", "diffusion"), needs=("vision", "image"), finish=in_float16)
BETWEEN = Part(BetweenTask, PixelTraining(), LOOP, fields=("between", "diffusion"), needs=("vision",), finish=in_float16)
UPSCALE = Part(UpscaleTask, PixelTraining(clips=1024), LOOP, fields=("upscale", "diffusion"), needs=("vision",), finish=in_float16)
