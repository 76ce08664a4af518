"""Draws what a model can and cannot do: python scripts/sample_sheet.py mini docs/samples.png

Eight frames of each clip, below its caption and the judge's verdict: the first three clips of test_seen, test_heldout
and test_imageonly, and the next three clips of test_seen that the judge calls wrong. The order is that of the split;
nothing is chosen by hand. Prompt number i has seed i, as in `minit2v evaluate`.
"""

import sys
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

import minit2v  # noqa: E402
from minit2v.datasets.moving_things import MovingThings  # noqa: E402
from minit2v.evaluation.judge import ATTRIBUTES, agrees, read  # noqa: E402
from minit2v.pixels import evenly  # noqa: E402

EACH, FRAMES, SEARCHED = 3, 8, 48
HEADINGS = {"test_seen": "seen", "test_heldout": "held-out combination", "test_imageonly": "known only from pictures"}


def sample(pipe, split: str, i: int) -> tuple:
    """(caption, pixels (f, H, W, 3), names of the attributes that are wrong) of prompt i of a split."""
    caption, spec = MovingThings(split, size=pipe.preset.height, frames=pipe.preset.frames).text(i)
    pixels = pipe(caption, seed=i).pixels
    verdict = agrees(read(pixels), spec)
    return caption, pixels, [name for name in ATTRIBUTES if not verdict[name]]


def strip(pixels: np.ndarray) -> np.ndarray:
    """A few frames of a clip (f, H, W, 3) side by side: (H, FRAMES (W + 2), 3)."""
    shown = pixels[evenly(len(pixels), FRAMES)]
    return np.concatenate(list(np.pad(shown, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)), 1)


def main(model: str, out: str) -> None:
    pipe = minit2v.load(model)
    groups = {heading: [sample(pipe, split, i) for i in range(EACH)] for split, heading in HEADINGS.items()}
    failures = (row for i in range(EACH, SEARCHED) if (row := sample(pipe, "test_seen", i))[2])
    groups["next failures of seen"] = list(islice(failures, EACH))
    figure, axes = plt.subplots(len(groups), EACH, figsize=(15, 1.25 * len(groups)), squeeze=False)
    for row, (heading, clips) in zip(axes, groups.items()):
        for axis in row:
            axis.axis("off")
        row[0].text(-0.02, 0.5, heading.replace(" ", "\n"), transform=row[0].transAxes, ha="right", va="center")
        for axis, (caption, pixels, wrong) in zip(row, clips):
            axis.imshow(strip(pixels))
            title = f"{caption}  [{'right' if not wrong else 'wrong: ' + ', '.join(wrong)}]"
            axis.set_title(title, fontsize=8.5, loc="left")
    figure.tight_layout()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
