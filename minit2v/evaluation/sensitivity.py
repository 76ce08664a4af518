"""Does a model use its captions? Its own loss on real clips, with the right caption and with that of another clip.

    clip ─ noise ─ model, "a dog runs"   ─> loss        │  caption sensitivity = loss with the wrong captions over
    clip ─ noise ─ model, "two cats eat" ─> loss        │  loss with the right ones, less 1: 0 % if words are ignored

It needs no judge, so it measures a model on any captioned clips, as far as its system has a loss that captions change.

References: diffusion models as classifiers by their loss, arXiv 2303.16203, section 3; during training see
`training.unet`.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from minit2v.evaluation.estimates import Estimate, ratio_estimate


@runtime_checkable
class CaptionedLoss(Protocol):
    """A system with a loss of clips given their captions."""

    def caption_losses(self, clips: np.ndarray, captions: list[str], seed: int = 0) -> np.ndarray:
        """The loss of each clip (b, f, H, W, 3) uint8, (b,); equal seeds draw equal noise."""
        ...


def caption_sensitivity(
    pipe: CaptionedLoss, clips: np.ndarray, captions: list[str], batch: int, seed: int = 0
) -> Estimate | None:
    """How much the loss of clips (n, f, H, W, 3) uint8 rises with wrong captions, in %; None if all captions agree.

    The wrong caption of a clip is the next one that differs. `batch` clips at a time share their noise with other
    batches.
    """
    if len(set(captions)) < 2:
        return None
    following = lambda i: next(other for other in captions[i:] + captions[:i] if other != captions[i])
    said = captions, [following(i) for i in range(len(captions))]
    parts = [slice(i, i + batch) for i in range(0, len(captions), batch)]
    right, wrong = (
        np.concatenate([pipe.caption_losses(clips[part], texts[part], seed) for part in parts]) for texts in said
    )
    ratio = ratio_estimate(wrong, right)
    percent = {name: 100 * (getattr(ratio, name) - 1) for name in ("value", "low", "high")}
    return replace(ratio, **percent)
