"""Training CogVideo in three stages: pictures, key frames, the frames between.

    image       pictures and captions                           the picture transformer
    keyframes   5 frames, 4 apart                               a temporal channel; the picture transformer is frozen
    between     5 frames, 2 or 1 apart, every second given      another temporal channel

Reference: CogVideo, arXiv 2205.15868, section 3.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minit2v.datasets.base import Dataset
from minit2v.errors import UserError
from minit2v.systems.cogvideo import KEYS, LENGTH, SPACINGS, CogVideoPreset
from minit2v.training.parts import Part
from minit2v.training.tokens import TokenTask, TokenTraining, cross_entropy
from minit2v.training.trainer import TrainConfig


class CogVideoTask(TokenTask):
    """A stage."""

    def chosen(self, generator: torch.Generator, n: int, kind: str) -> tuple[Tensor, Tensor]:
        """See `TokenTask.chosen`. Clips get the 17 frames that two rounds between key frames give: where the data have
        fewer, the last one stands still; a sampled clip is cut as short as theirs."""
        tokens, context = super().chosen(generator, n, kind)
        if kind == "clips" and (missing := LENGTH - tokens.shape[1]) > 0:
            tokens = torch.cat([tokens, tokens[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        return tokens, context

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of each clip's tokens that are written, (b,)."""
        tokens, written = batch["tokens"], [i for i, given in enumerate(self.given) if not given]
        image = self.pipe.image.to(tokens.device)  # frozen, so the trainer has not moved it
        logits = image(batch["context"], tokens, self.channel, int(batch["rate"][0]), self.given)
        return cross_entropy(logits, tokens)[:, written].flatten(1).mean(1)  # eq (15.4) · CogVideo, section 3.1

    @property
    def channel(self) -> nn.Module | None:
        """The temporal channel that is trained."""
        return self.network

    def start(self) -> None:
        """A temporal channel begins as a copy of the channel of pictures."""
        self.network.copy(self.pipe.image)


class ImageTask(CogVideoTask):
    """The picture transformer. It decides the vocabulary: that of the data."""

    trains, channel, given = "image", None, [False]

    def __init__(self, preset: CogVideoPreset, config: TokenTraining, data: Dataset, folder: Path):
        if not (words := data.words()):
            raise UserError(f"words: expected a data set that lists its words, found {data.name}")
        sizes = replace(preset.image, words=len(words) + 1)
        text = replace(preset.text, words=tuple(words))
        super().__init__(replace(preset, text=text, image=sizes, keyframes=sizes, between=sizes), config, data, folder)

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        tokens, context = self.chosen(generator, n, "images")
        return {"tokens": tokens, "context": context, "rate": torch.zeros(len(tokens), dtype=torch.long, device="cpu")}

    def start(self) -> None:
        pass

    def picture(self) -> None:
        return None  # there is no clip without key frames


class KeyframesTask(CogVideoTask):
    """The temporal channel of the first stage."""

    trains, more, given, rates = "keyframes", ("image",), [False] * KEYS, (0,)

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """Five frames at a rate of the stage, from a random frame that is a multiple of what they span."""
        draw = lambda many: int(torch.randint(many, (1,), generator=generator, device="cpu"))
        rate = self.rates[draw(len(self.rates))]
        span = SPACINGS[rate] * (KEYS - 1)
        first = span * draw(LENGTH // span)
        tokens, context = self.chosen(generator, n, "clips")
        return {"tokens": tokens[:, first : first + span + 1 : SPACINGS[rate]], "context": context,
                "rate": torch.full((n,), rate, device="cpu")}  # fmt: skip

    def picture(self) -> None:
        return None


class BetweenTask(KeyframesTask):
    """The temporal channel of the second stage: every second frame is given."""

    trains, more, given, rates = "between", ("image", "keyframes"), [i % 2 == 0 for i in range(KEYS)], (1, 2)
    picture = TokenTask.picture


def finish(task: CogVideoTask, averaged: nn.ModuleDict) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The averaged network in float16; of pictures, also the words that captions are said in."""
    decided = ("text", "image", "keyframes", "between") if task.trains == "image" else ()
    return {task.trains: averaged[task.trains].half()}, {name: getattr(task.preset, name) for name in decided}


LOOP = TrainConfig(batch=416, lr=2e-4, weight_decay=0.01, betas=(0.9, 0.95), ema=0.0)  # the paper's
IMAGE = Part(ImageTask, TokenTraining(clips=1), LOOP, fields=("image",), needs=("autoencoder",), finish=finish)
KEYFRAMES = Part(KeyframesTask, TokenTraining(images=0), LOOP, fields=("keyframes",), needs=("autoencoder", "image"),
                 finish=finish)  # fmt: skip
BETWEEN = Part(BetweenTask, TokenTraining(images=0), LOOP, fields=("between",),
               needs=("autoencoder", "image", "keyframes"), finish=finish)  # fmt: skip
