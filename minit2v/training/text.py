"""Contrastive training of a small CLIP on (frames, caption) pairs, from which the text encoder is taken.

    half of a batch: pictures       half of a batch: clips, as storyboards
    ┌───────┐                       ┌───────┐  four frames (first, two between, last), each halved in size, in reading
    │   ○   │ "a small red ring"    │○  │ ○ │  order: a tower that sees one still picture sees direction and speed too,
    │       │                       ├───┼───┤  and the text tower has a reason to keep the motion words apart.
    └───────┘                       │  ○│  ○│ "a small red ring moves right quickly"
                                    └───────┘
    every picture is to be nearer to its own caption than to all others of the batch, and the other way round.

Two captions of one meaning would each be the other's wrong answer, so a batch holds every meaning once. A data set that
can read its captions (a `Probe`) says which ones mean the same; of another one, equal captions do. Clips come in
*families* that look alike (same shape, colour and size) and move differently: only the motion words tell them apart.

References: CLIP, arXiv 2103.00020, sections 2.3 and 2.4 (figure 3), and table 18 (settings of the loop); ModelScopeT2V,
arXiv 2308.06571, section 3.2.
"""

import math
import warnings
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from tqdm import tqdm

from minit2v.datasets.base import Dataset, Probe
from minit2v.errors import UserError
from minit2v.networks.clip import build_clip, storyboard
from minit2v.networks.text import TextEncoder, Tokenizer
from minit2v.presets import Preset, TextConfig
from minit2v.ranges import Checked, Count, Positive, Size
from minit2v.training.log import gathered, warn_of_first
from minit2v.training.parts import Part
from minit2v.training.trainer import TrainConfig

FAMILY = 8  # clips of one batch that look alike: four directions, two speeds
WORDS = ("preset", "from-data", "images", "all")


@dataclass(frozen=True)
class TextTraining(Checked):
    """How much is read or drawn, once, to draw batches from and to measure on; which words the tower knows."""

    clips: Count = 6144  # training clips, if there are as many
    images: Count = 2048  # training pictures
    tests: Size = 128  # validation clips, and as many validation pictures
    words: str = "preset"  # "preset" (if all captions are said in its words, else from-data), "from-data", "images" or "all"
    grid_positions: bool = False  # departure: the picture tower starts with sines of places and averages its patches
    word_deviation: Positive = 0.02  # standard deviation of a fresh word embedding; CLIP 0.02

    def __post_init__(self):
        super().__post_init__()
        if self.words not in WORDS:
            raise UserError(f"words: expected one of {', '.join(WORDS)}, found {self.words!r}")


class TextTask(nn.Module):
    """A contrastive training task for the trainer; `preset` gives the sizes of CLIP and of what it sees."""

    def __init__(self, preset: Preset, config: TextTraining, data: Dataset, folder: Path | None = None):
        super().__init__()
        self.preset = replace(preset, text=spoken(preset, config.words, data))
        self.data, self.progress, self.scores = data, 0.0, {}
        self.clip = build_clip(self.preset.text)
        if config.grid_positions:
            _show_positions(self.clip.visual)
        nn.init.normal_(self.clip.token_embedding.weight, std=config.word_deviation)
        self.text = TextEncoder(self.preset.text, self.clip)  # shares its parameters with self.clip
        pool = lambda split, kind, size: Pool(self.preset, data, split, kind, size, self.text.tokens)
        self.pools = {"clips": pool("train", "clips", config.clips), "images": pool("train", "images", config.images)}
        some = torch.cat([pool.pictures[:256] for pool in self.pools.values()])  # of one kind, if the other has none
        self.deviation, self.mean = (value.item() for value in torch.std_mean(some.double()))
        self.tests = {kind: pool("val", kind, config.tests) for kind, taken in self.pools.items() if taken.most}
        warn_of_first([message for each in (self.pools, self.tests) for pool in each.values() for message in pool.cut])

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """A batch of n pairs, clips and pictures: pictures uint8 (n, 3, H, W) and tokens (n, context).

        Half are pictures, unless there are fewer that mean different things. Raises UserError when there are fewer
        pairs of different meaning than n.
        """
        clips, images = self.pools.values()
        pictured = max(min(n // 2, images.most), n - clips.most)
        chosen = clips.draw(generator, n - pictured)
        taken = {clips.meanings[i] for i in chosen}
        pictures = images.draw(generator, pictured, taken)
        if (found := len(chosen) + len(pictures)) < n:
            raise UserError(f"a batch needs {n} pairs of different meaning, found {found}; use a smaller batch")
        pairs = [(clips, torch.tensor(chosen, dtype=torch.long)), (images, torch.tensor(pictures, dtype=torch.long))]
        return {
            "pictures": torch.cat([pool.pictures[index] for pool, index in pairs]),
            "tokens": torch.cat([pool.tokens[index] for pool, index in pairs]),
        }

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """CLIP's symmetric cross-entropy over the cosines of all pictures with all captions (figure 3 there), and the
        share of pictures that are nearest to their own caption."""
        image = self.clip.encode_image(self._normalised(batch["pictures"]), normalize=True)
        text = self.clip.encode_text(batch["tokens"], normalize=True)
        scale = self.clip.logit_scale.clamp(max=np.log(100)).exp()  # section 2.5: more is unstable
        matched = ((image @ text.T).argmax(1).cpu() == torch.arange(len(image), device="cpu")).float().mean().item()
        return _contrastive_loss()(image, text, scale), {"matched": matched, **self.scores}

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        """What is averaged and exported: the part of the text tower that the text-to-video model runs."""
        return {"text": self.text}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """How often a validation picture is nearest to its own caption.

        Of a data set with a `Probe`: among all captions that differ in one attribute only, by attribute. Chance is one
        over the number of values: 1/6 for a shape, 1/4 for a direction of motion. Of another: among all of `tests`.
        """
        scores = {}
        for kind, pool in self.tests.items():
            if isinstance(self.data, Probe) and pool.specs:
                scores |= {f"{kind} {name}": self._accuracy(pool, name) for name in self.data.attributes}
            else:
                nearest = (self._encode_image(pool.pictures) @ self._encode_text(pool.tokens).T).argmax(1).tolist()
                right = [pool.meanings[i] == pool.meanings[j] for i, j in enumerate(nearest)]
                scores[f"{kind} matched"] = float(np.mean(right))
        return {name: score for name, score in scores.items() if score is not None}

    def _accuracy(self, pool: "Pool", name: str) -> float | None:
        """None for what no item of the pool has: pictures have no motion."""
        said = [self.data.choices(spec, name) for spec in pool.specs]
        owners = [i for i, choices in enumerate(said) if choices]
        if not owners:
            return None
        text = self._encode_text(self.text.tokens([caption for choices in said for caption in choices]))
        cosine = self._encode_image(pool.pictures)[owners]
        parts = text.split([len(said[i]) for i in owners])
        return float(np.mean([(part @ image).argmax().item() == 0 for part, image in zip(parts, cosine)]))

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Eight validation storyboards over the cosines of each with all eight captions (white 1, black 0), as uint8
        (H, W, 3): a bright diagonal is good. Also measures `evaluate`, whose scores join the metrics from here on."""
        self.scores = self.evaluate()
        pool = next(iter(self.tests.values()))
        side = pool.pictures.shape[-1]
        cosine = self._encode_text(pool.tokens[:8]) @ self._encode_image(pool.pictures[:8]).T  # rows: captions
        matrix = (cosine.clamp(0, 1) * 255).byte().repeat_interleave(side // 4, 0).repeat_interleave(side, 1)
        top = pool.pictures[:8].permute(2, 0, 3, 1).flatten(1, 2)  # (8 3 H W) -> (H 8W 3)
        return np.concatenate([top.numpy(), matrix[..., None].expand(-1, -1, 3).numpy()])

    def _normalised(self, pictures: Tensor) -> Tensor:
        """uint8 to mean 0 and deviation 1 over the training pictures, as for CLIP: small things on a plain background
        would otherwise hardly show beside the background's constant."""
        return (pictures.float() - self.mean) / self.deviation

    def _encode_image(self, pictures: Tensor) -> Tensor:
        return self.clip.encode_image(self._normalised(pictures.to(self.clip.logit_scale.device)), normalize=True).cpu()

    def _encode_text(self, tokens: Tensor) -> Tensor:
        return self.clip.encode_text(tokens.to(self.clip.logit_scale.device), normalize=True).cpu()


class Pool:
    """Pairs that were read or drawn: pictures uint8 (N, 3, H, W), tokens (N, context), what each shows and says."""

    def __init__(self, preset: Preset, data: Dataset, split: str, kind: str, size: int, tokens: Tokenizer):
        side, moving = preset.text.vision.size, kind == "clips"
        view = data.open(split, preset.frames, side, side, images=not moving)
        size = min(size, len(view))
        pictures, captions, self.specs = [], [], []
        for start in tqdm(range(0, size, 256), desc=f"reading {kind} of {split}", leave=False, disable=None):
            frames, said, specs = view.batch(range(start, min(start + 256, size)))
            pictures.append(storyboard(frames) if moving else frames[:, 0])
            captions += said
            self.specs += specs or []
        pictures = np.concatenate(pictures or [np.empty((0, side, side, 3), np.uint8)])
        self.pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
        with gathered() as self.cut:
            self.tokens = tokens(captions)
        readable = isinstance(data, Probe) and bool(self.specs)
        said = [data.meaning(caption) if readable else (caption, caption) for caption in captions]
        self.meanings = [meaning for _, meaning in said]
        self.families: dict[Hashable, dict[Hashable, list[int]]] = {}  # look -> meaning -> indices
        for i, (look, meaning) in enumerate(said):
            self.families.setdefault(look, {}).setdefault(meaning, []).append(i)
        self.most = sum(min(FAMILY, len(members)) for members in self.families.values())  # pairs of one batch

    def draw(self, generator: torch.Generator, n: int, taken: Iterable[Hashable] = ()) -> list[int]:
        """The indices of n pairs, or of all there are: no two of one meaning, none of a meaning that is taken, up to
        FAMILY of each look."""
        chosen = []
        for members in _shuffled(self.families.values(), generator):
            chosen += [_shuffled(indices, generator)[0] for indices in _shuffled(members.values(), generator)[:FAMILY]]
        return [i for i in chosen if self.meanings[i] not in taken][:n]


def _shuffled(items: Iterable, generator: torch.Generator) -> list:
    items = list(items)
    return [items[i] for i in torch.randperm(len(items), generator=generator, device="cpu").tolist()]


def spoken(preset: Preset, wanted: str, data: Dataset) -> TextConfig:
    """The settings of a tower for the captions of a data set: its words, and which of them tell of motion."""
    text = replace(preset.text, words=vocabulary(preset, wanted, data))
    if text.looks_first and not isinstance(data, Probe):
        warnings.warn(f"looks_first: {data.name} does not say which words tell of motion, so the looks of a caption are "
                      "all of it", stacklevel=3)  # fmt: skip
        return replace(text, motion_words=())
    return text


def vocabulary(preset: Preset, wanted: str, data: Dataset) -> tuple[str, ...] | None:
    """The words that the tower keeps rows for, see `TextTraining.words`; None for all 49,408 rows.

    Raises UserError if words are wanted from data that does not know them.
    """
    if wanted == "images":
        return said_of_images(preset, data)
    own, found = preset.text.words, data.words()
    pieces = lambda words: Tokenizer(preset.text.context_length, tuple(words)).words
    if wanted == "all" or wanted == "preset" and own is None:
        return None
    if wanted == "preset" and (found is None or pieces(found) <= pieces(own)):
        return own
    if found is None:
        raise UserError(f"words: {data.name} does not list its words; take --set words=all")
    return tuple(found)


def said_of_images(preset: Preset, data: Dataset, most: int = 2048) -> tuple[str, ...]:
    """The words of the captions of pictures."""
    view = data.open("train", preset.frames, preset.height, preset.width, images=True)
    captions = [said for start in range(0, min(most, len(view)), 256)
                for said in view.batch(range(start, min(start + 256, most, len(view)))).captions]  # fmt: skip
    return tuple(sorted({word for caption in captions for word in caption.lower().split()}))


def _show_positions(tower: nn.Module) -> None:
    """Let a freshly initialised vision transformer see where things are: positions start as sines of the place instead
    of faint noise, and all patches are averaged instead of being gathered by a class token. Directions are differences
    of places, so they can only be learnt once places are felt."""
    from open_clip.pos_embed import get_2d_sincos_pos_embed

    positions = get_2d_sincos_pos_embed(tower.positional_embedding.shape[1], tower.grid_size[0], cls_token=True)
    tower.positional_embedding.data.copy_(torch.from_numpy(positions))
    tower.pool_type = "avg"


def _contrastive_loss() -> nn.Module:
    """open_clip's loss; with several processes, over the pairs of all of them."""
    from open_clip.loss import ClipLoss

    if not torch.distributed.is_initialized():
        return ClipLoss()
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)


def finish(task: TextTask, averaged: nn.ModuleDict) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The averaged tower, and its settings with the words that it keeps."""
    return {"text": averaged["text"]}, {"text": task.preset.text}


PART = Part(
    task=TextTask,
    config=TextTraining(),
    loop=TrainConfig(  # CLIP's, of a batch of 32,768
        batch=128, lr=5e-4, weight_decay=0.2, betas=(0.9, 0.98), grad_clip=math.inf, ema=0.0
    ),
    fields=("text",),
    finish=finish,
)
