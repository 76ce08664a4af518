"""Training NÜWA's transformer on three tasks, one a batch; the paper adds up the three losses.

    text to picture      a caption and one frame
    video prediction     no caption, the first frame is given
    text to video        a caption and all frames

Reference: NÜWA, arXiv 2111.12417, section 3.4, equation 12.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minit2v.ranges import Share
from minit2v.training.parts import Part, in_float16
from minit2v.training.tokens import TokenTask, TokenTraining, cross_entropy
from minit2v.training.trainer import TrainConfig


@dataclass(frozen=True)
class NuwaTraining(TokenTraining):
    """How often each task is drawn; what is left is text to video."""

    picture_share: Share = 0.25  # of the batches: text to picture
    prediction_share: Share = 0.25  # of the batches: video prediction


class NuwaTask(TokenTask):
    """`transformer`, trained on one task a batch."""

    trains = "transformer"

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """Tokens (n, f, h, w), context (n, words, e), and how many frames at the start are given, (n,)."""
        config, chance = self.config, torch.rand(1, generator=generator, dtype=torch.float32, device="cpu").item()
        if chance < config.picture_share:
            tokens, context = self.chosen(generator, n * config.images_per_clip, "images")
            return {"tokens": tokens, "context": context, "given": torch.zeros(len(tokens), dtype=torch.long, device="cpu")}
        tokens, context = self.chosen(generator, n, "clips")
        predicts = chance < config.picture_share + config.prediction_share
        if predicts:
            context[:] = self.contexts[0].to(context)
        return {"tokens": tokens, "context": context, "given": torch.full((n,), int(predicts), device="cpu")}

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        tokens, given = batch["tokens"], batch["given"]
        each = cross_entropy(self.network(tokens, batch["context"]), tokens).flatten(2).mean(2)  # (b f)
        written = torch.arange(tokens.shape[1], device=given.device) >= given[:, None]
        return (each * written).sum(1) / written.sum(1)

    def kind(self, batch: dict[str, Tensor]) -> str:
        return "prediction loss" if batch["given"].any() else super().kind(batch)


PART = Part(
    task=NuwaTask,
    config=NuwaTraining(),
    loop=TrainConfig(batch=128, lr=1e-3, weight_decay=0.0, ema=0.0),  # the paper's
    fields=("transformer",),
    needs=("autoencoder", "text"),
    finish=in_float16,
)
