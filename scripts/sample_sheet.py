"""A picture of what a model does and where it fails: python scripts/sample_sheet.py mini docs/samples.png

Eight frames a clip, the caption above it and what the judge finds wrong behind it: the first three clips of test_seen,
of test_heldout and of test_imageonly, and the next three of test_seen that the judge calls wrong: in the order of the
set, not chosen. Noise as in `minit2v evaluate`: prompt i starts from seed i.
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

EACH, FRAMES, SEARCHED = 3, 8, 48
HEADINGS = {"test_seen": "seen", "test_heldout": "held-out combination", "test_imageonly": "known from pictures only"}


def sample(pipe, split: str, i: int) -> tuple:
    """(caption, pixels (f, H, W, 3), names of what is wrong) of prompt i of a split."""
    caption, spec = MovingThings(split, size=pipe.preset.height, frames=pipe.preset.frames).text(i)
    pixels = pipe(caption, seed=i).pixels
    verdict = agrees(read(pixels), spec)
    return caption, pixels, [name for name in ATTRIBUTES if not verdict[name]]


def main(model: str, out: str) -> None:
    pipe = minit2v.load(model)
    groups = {heading: [sample(pipe, split, i) for i in range(EACH)] for split, heading in HEADINGS.items()}
    failures = (row for i in range(EACH, SEARCHED) if (row := sample(pipe, "test_seen", i))[2])
    groups["the next failures of seen"] = list(islice(failures, EACH))
    figure, axes = plt.subplots(len(groups), EACH, figsize=(15, 1.25 * len(groups)), squeeze=False)
    for row, (heading, clips) in zip(axes, groups.items()):
        for axis in row:
            axis.axis("off")
        row[0].text(-0.02, 0.5, heading.replace(" ", "\n"), transform=row[0].transAxes, ha="right", va="center")
        for axis, (caption, pixels, wrong) in zip(row, clips):
            shown = pixels[np.linspace(0, len(pixels) - 1, FRAMES).round().astype(int)]
            axis.imshow(np.concatenate(list(np.pad(shown, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)), 1))
            said = f"{caption}  [{'right' if not wrong else 'wrong: ' + ', '.join(wrong)}]"
            axis.set_title(said, fontsize=8.5, loc="left")
    figure.tight_layout()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
