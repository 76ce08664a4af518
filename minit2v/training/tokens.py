"""Training a transformer to write tokens: what the parts of NÜWA and CogVideo have in common.

    cache ──► tokens of clips and pictures, captions ──► the part draws some ──► cross-entropy of each token

The autoencoder is frozen, so the tokens of everything are computed once (see `latents`).

Reference: VQGAN, arXiv 2012.09841, section 3.2, equation 11.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.base import Dataset
from minit2v.devices import warn_of_slow_bfloat16
from minit2v.networks.autoencoder import VQGAN
from minit2v.pixels import evenly
from minit2v.presets import Preset
from minit2v.ranges import Checked, Count, Share, Size, Weight
from minit2v.ranks import this_process
from minit2v.systems import system_of
from minit2v.systems.tokens import tokens_of
from minit2v.training.latents import cached
from minit2v.training.parts import trained

BIAS_RATE = 10.0  # learning rate of tables of relative bias over that of the others: they are few, and begin at 0


@dataclass(frozen=True)
class TokenTraining(Checked):
    """What is read or drawn, and how captions are shown."""

    clips: Size = 6144  # clips read or drawn, encoded and kept, if there are as many
    images: Count = 16384  # pictures likewise
    wordings: Size = 1  # captions kept for each item of a data set that can write more; one is drawn each time
    images_per_clip: Size = 8  # pictures in the place of one clip of a batch
    caption_dropout: Share = 0.1  # share of the captions that are replaced by the empty one, for guidance
    muon_rate: Weight = 0.0  # departure: rate of the blocks' weight matrices, which Muon steps; 0 leaves all to AdamW
    bfloat16: bool = True  # compute in bfloat16, keep parameters in float32


class TokenTask(nn.Module):
    """A task for the trainer: one network of the system, named `trains`, learns to write tokens.

    A subclass sets `trains`, adds `draw` and `losses(batch) -> (b,)`, and may say in `more` which networks of the folder
    it needs besides the autoencoder and the text tower.
    """

    trains, more = "", ()

    def __init__(self, preset: Preset, config: TokenTraining, data: Dataset, folder: Path):
        super().__init__()
        warn_of_slow_bfloat16(config.bfloat16)
        self.preset, self.config, self.data, self.progress = preset, config, data, 0.0
        row = system_of(preset)
        networks = {name: kind(getattr(preset, name)) for name, kind in row.networks.items()}
        for name in ("autoencoder", "text", *self.more):
            if name in networks:
                load_into(networks[name], trained(folder, name, preset.name)).requires_grad_(False)
        self.network = networks[self.trains]
        self.pipe = row.pipeline(preset, **networks)  # no nn.Module: neither trained nor saved with the task
        self.start()
        self.network.train()
        with this_process().main_process_first():  # the others find what the first has computed
            path = Path(folder) / self.trains / "cache.safetensors"
            cache = cached(path, self.pipe, data, config.clips, config.images, config.wordings)
        self.contexts = cache["contexts"]
        self.captions = {kind: cache[f"{kind}.captions"] for kind in ("clips", "images") if f"{kind}.captions" in cache}
        self.tokens = {kind: stored(cache[f"{kind}.latents"], networks["autoencoder"], preset.scale_factor)
                       for kind in self.captions}  # fmt: skip
        view = data.open("val", preset.frames, preset.height, preset.width)
        self.test = view.batch(range(min(6, len(view))))

    def start(self) -> None:
        """Called once the networks are there, and what is trained is at random."""

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {self.trains: self.network}

    def parameter_groups(self, lr: float) -> list[dict]:
        config, groups = self.config, defaultdict(list)
        layers = nn.ModuleList(module for module in self.network.modules() if isinstance(module, nn.ModuleList))
        matrices = {id(p) for p in layers.parameters() if p.ndim == 2} if config.muon_rate else set()
        for name, p in self.network.named_parameters():
            if name.endswith("bias") and p.ndim > 1:  # of relative places
                groups[BIAS_RATE, False].append(p)
            else:
                groups[config.muon_rate if id(p) in matrices else 1.0, id(p) in matrices].append(p)
        return [{"params": p, "lr": lr * rate, "orthogonal": matrix, "bfloat16": config.bfloat16}
                for (rate, matrix), p in groups.items()]  # fmt: skip

    def chosen(self, generator: torch.Generator, n: int, kind: str) -> tuple[Tensor, Tensor]:
        """n items of a kind: tokens (n, f, h, w), and captions, some of them empty."""
        draw = lambda many: torch.randint(many, (n,), generator=generator, device="cpu")
        rows = self.captions[kind][index := draw(len(self.tokens[kind]))]
        context = self.contexts[rows.gather(1, draw(rows.shape[1])[:, None])[:, 0]]
        context = context.float() if context.is_floating_point() else context.clone()
        empty = torch.rand(n, generator=generator, dtype=torch.float32, device="cpu") < self.config.caption_dropout
        context[empty] = self.contexts[0].to(context)  # row 0 is the empty caption
        return self.tokens[kind][index].long(), context

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast(batch["tokens"].device.type, torch.bfloat16, enabled=self.config.bfloat16):
            losses = self.losses(batch)
        return losses.mean(), {self.kind(batch): losses.mean().item()}

    def kind(self, batch: dict[str, Tensor]) -> str:
        """What the log calls the loss of a batch."""
        return "image loss" if batch["tokens"].shape[1] == 1 else "clip loss"

    def picture(self, columns: int = 8) -> np.ndarray | None:
        """Clips of six validation captions, uint8 (rows H, columns W, 3)."""
        for network in self.pipe.networks.values():
            network.to(next(self.network.parameters()).device).eval()
        clips = self.pipe(self.test.captions, seed=0)
        self.network.train()
        show = evenly(self.preset.frames, columns)
        return rearrange(np.stack([clip.pixels[show] for clip in clips]), "r f H W c -> (r H) (f W) c")


def stored(latents: Tensor, autoencoder: VQGAN, scale: float) -> Tensor:
    """Scaled latents (N, c, f, h, w) as the cache has them -> tokens (N, f, h, w), 16 bits each."""
    tokens = torch.empty(len(latents), *latents.shape[2:], dtype=torch.short, device=latents.device)
    for part, out in zip(latents.split(64), tokens.split(64)):
        out.copy_(tokens_of(part.float() / scale, autoencoder))  # see there why results are written into one block
    return tokens


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of each token (b, f, h, w), given logits (b, f, h, w, k): (b, f, h, w)."""
    flat = F.cross_entropy(logits.flatten(0, -2).float(), tokens.flatten(), reduction="none")  # eq (14.1) · VQGAN (11)
    return flat.view(tokens.shape)
