"""Contrastive training of a small CLIP on (frames, caption) pairs, from which the text encoder is taken.

    half of a batch: pictures       half of a batch: clips, as storyboards
    ┌───────┐                       ┌───────┐  four frames (first, two between, last), each halved in size, in reading
    │   ○   │ "a small red ring"    │○  │ ○ │  order: a tower that sees one still picture sees direction and speed too,
    │       │                       ├───┼───┤  and the text tower has a reason to keep the motion words apart.
    └───────┘                       │  ○│  ○│ "a small red ring moves right quickly"
                                    └───────┘
    every picture is to be nearer to its own caption than to all others of the batch, and the other way round.

Two captions of one meaning would each be the other's wrong answer, so a batch holds every meaning once. Clips come in
*families* that look alike (same shape, colour and size) and move differently: only the motion words tell them apart.

References: CLIP, arXiv 2103.00020, sections 2.3 and 2.4 (figure 3); ModelScopeT2V, arXiv 2308.06571, section 3.2.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from minit2v.datasets.moving_things import MovingThings, caption, parse
from minit2v.errors import UserError
from minit2v.networks.clip import build_clip, storyboard
from minit2v.networks.text import TextEncoder, Tokenizer
from minit2v.presets import Preset

ATTRIBUTES = ("shape", "colour", "size", "motion", "speed")
LOOKS = ATTRIBUTES[:3]  # what a still picture shows
FAMILY = 8  # clips of one batch that look alike: four directions, two speeds






@dataclass(frozen=True)
class ClipTraining:
    """How much is rendered, once, to draw batches from and to measure on."""

    clips: int = 6144  # training clips
    images: int = 2048  # training pictures
    tests: int = 128  # validation clips, and as many validation pictures


class ClipTask(nn.Module):
    """A contrastive training task for the trainer; `preset` gives the sizes of CLIP and of what it sees."""

    def __init__(self, preset: Preset, config: ClipTraining = ClipTraining()):
        super().__init__()
        self.clip = build_clip(preset.text)
        _show_positions(self.clip.visual)
        nn.init.normal_(self.clip.token_embedding.weight, std=0.1)  # at open_clip's 0.02 all words start nearly alike
        self.text = TextEncoder(preset.text, self.clip)  # shares its parameters with self.clip
        self.progress, self.scores = 0.0, {}
        self.pools = {
            kind: Pool(preset, "train", kind, size, self.text.tokens)
            for kind, size in (("clips", config.clips), ("images", config.images))
        }
        some = torch.cat([pool.pictures[:256] for pool in self.pools.values()])
        self.deviation, self.mean = (value.item() for value in torch.std_mean(some.double()))
        self.tests = {kind: Pool(preset, "val", kind, config.tests, self.text.tokens) for kind in self.pools}

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """A batch of n pairs, half clips and half pictures: pictures uint8 (n, 3, H, W) and tokens (n, context)."""
        clips = self.pools["clips"].draw(generator, n - n // 2)
        images = self.pools["images"].draw(generator, n // 2)
        return {key: torch.cat([clips[key], images[key]]) for key in clips}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """CLIP's symmetric cross-entropy over the cosines of all pictures with all captions (figure 3 there), and the
        share of pictures that are nearest to their own caption."""
        image = self.clip.encode_image(self._normalised(batch["pictures"]), normalize=True)
        text = self.clip.encode_text(batch["tokens"], normalize=True)
        scale = self.clip.logit_scale.clamp(max=np.log(100)).exp()  # section 2.5: more is unstable
        matched = ((image @ text.T).argmax(1).cpu() == torch.arange(len(image))).float().mean().item()
        return _contrastive_loss()(image, text, scale), {"matched": matched, **self.scores}

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        """What is averaged and exported: the part of the text tower that the text-to-video model runs."""
        return {"text": self.text}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Per attribute, how often a validation picture is nearest to its own caption among all that differ in that
        attribute only. Chance is one over the number of values: 1/6 for a shape, 1/4 for a direction of motion."""
        return {
            f"{kind} {name}": self._accuracy(pool, name)
            for kind, pool in self.tests.items()
            for name in (ATTRIBUTES if kind == "clips" else LOOKS)
        }

    def _accuracy(self, pool: "Pool", name: str) -> float:
        values = sorted({getattr(spec.things[0], name) for spec in pool.specs})
        truth = torch.tensor([values.index(getattr(spec.things[0], name)) for spec in pool.specs])
        captions = [caption(_with(spec, name, value), motion=pool.motion) for spec in pool.specs for value in values]
        text = self._encode_text(self.text.tokens(captions)).unflatten(0, (-1, len(values)))  # (b*v d) -> (b v d)
        nearest = torch.einsum("bd,bvd->bv", self._encode_image(pool.pictures), text).argmax(1)
        return (nearest == truth).float().mean().item()

    @torch.no_grad()
    def picture(self) -> np.ndarray:
        """Eight validation storyboards over the cosines of each with all eight captions (white 1, black 0), as uint8
        (H, W, 3): a bright diagonal is good. Also measures `evaluate`, whose scores join the metrics from here on."""
        self.scores = self.evaluate()
        pool, side = self.tests["clips"], self.tests["clips"].pictures.shape[-1]
        cosine = self._encode_text(pool.tokens[:8]) @ self._encode_image(pool.pictures[:8]).T  # rows: captions
        matrix = (cosine.clamp(0, 1) * 255).byte().repeat_interleave(side // 4, 0).repeat_interleave(side, 1)
        top = pool.pictures[:8].permute(2, 0, 3, 1).flatten(1, 2)  # (8 3 H W) -> (H 8W 3)
        return np.concatenate([top.numpy(), matrix[..., None].expand(-1, -1, 3).numpy()])

    def _normalised(self, pictures: Tensor) -> Tensor:
        """uint8 to mean 0 and deviation 1 over the training pictures, as for CLIP: small things on a plain background
        would otherwise hardly show beside the background's constant."""
        return (pictures - self.mean) / self.deviation

    def _encode_image(self, pictures: Tensor) -> Tensor:
        return self.clip.encode_image(self._normalised(pictures.to(self.clip.logit_scale.device)), normalize=True).cpu()

    def _encode_text(self, tokens: Tensor) -> Tensor:
        return self.clip.encode_text(tokens.to(self.clip.logit_scale.device), normalize=True).cpu()


class Pool:
    """Rendered pairs: pictures uint8 (N, 3, H, W), tokens (N, context), and what each shows and says."""

    def __init__(self, preset: Preset, split: str, kind: str, size: int, tokens: Tokenizer):
        self.motion = kind == "clips"
        data = MovingThings(split, size=preset.text.vision.size, frames=preset.frames, images=not self.motion)
        pictures, captions, self.specs = [], [], []
        for start in range(0, size, 256):
            frames, said, specs = data.batch(range(start, min(start + 256, size)))
            pictures.append(storyboard(frames) if self.motion else frames[:, 0])
            captions += said
            self.specs += specs
        self.pictures = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2).contiguous()
        self.tokens = tokens(captions)
        self.families = {}  # what the caption says of the looks -> what it says in all -> indices
        for i, text in enumerate(captions):
            meaning = parse(text)
            look = tuple(getattr(meaning.things[0], name) for name in LOOKS)
            self.families.setdefault(look, {}).setdefault(meaning, []).append(i)

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """n pairs, no two of one meaning, up to FAMILY of each look. Raises UserError when there are not as many."""
        chosen = []
        for members in _shuffled(self.families.values(), generator):
            chosen += [_shuffled(indices, generator)[0] for indices in _shuffled(members.values(), generator)[:FAMILY]]
        if len(chosen) < n:
            raise UserError(f"a batch needs {n} pairs of different meaning, found {len(chosen)}; use a smaller batch")
        index = torch.tensor(chosen[:n])
        return {"pictures": self.pictures[index], "tokens": self.tokens[index]}


def _shuffled(items, generator: torch.Generator) -> list:
    items = list(items)
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def _show_positions(tower: nn.Module) -> None:
    """Let a freshly initialised vision transformer see where things are: positions start as sines of the place instead
    of faint noise, and all patches are averaged instead of being gathered by a class token. Directions are differences
    of places, so they can only be learnt once places are felt."""
    from open_clip.pos_embed import get_2d_sincos_pos_embed

    positions = get_2d_sincos_pos_embed(tower.positional_embedding.shape[1], tower.grid_size[0], cls_token=True)
    tower.positional_embedding.data.copy_(torch.from_numpy(positions))
    tower.pool_type = "avg"


def _with(spec, name: str, value: str):
    return replace(spec, things=(replace(spec.things[0], **{name: value}),))


def _contrastive_loss() -> nn.Module:
    """open_clip's loss; with several processes, over the pairs of all of them."""
    from open_clip.loss import ClipLoss

    if not torch.distributed.is_initialized():
        return ClipLoss()
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
