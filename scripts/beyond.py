"""Clips from clips, from pictures, longer clips, and negative prompts: python scripts/beyond.py docs/beyond.png

Runs the commands below, which docs/sampling.md explains, with the shipped model, and draws eight frames of each clip
below its command.
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from minit2v.cli import main as minit2v  # noqa: E402
from minit2v.evaluation.judge import read  # noqa: E402
from minit2v.files import say  # noqa: E402
from minit2v.pixels import evenly  # noqa: E402
from minit2v.video import Clip  # noqa: E402

COMMANDS = """
minit2v sample "a large red circle moves left" --out red.webp
minit2v sample "a large blue circle moves left" --init red.webp --out blue.webp
minit2v sample "a small yellow square" --frames 1 --seed 2 --out square.webp
minit2v sample "a small yellow square moves right" --init square.webp --strength 0.95 --out moving.webp
minit2v sample "a large red circle moves left" --frames 32 --out long.webp
minit2v sample "a large red circle moves left" --frames 32 --window 16 --out windows.webp
minit2v sample "a large circle moves left" --guidance 2.5 --seed 3 --out any.webp
minit2v sample "a large circle moves left" --guidance 2.5 --seed 3 --negative "a large white circle" --out other.webp
""".strip().splitlines()
FRAMES = 8


def clips(commands: list[str], folder: str | Path) -> list[Clip]:
    """Run the commands in order, in a folder, and return their clips. Raises RuntimeError if one fails."""
    before, made = Path.cwd(), []
    os.chdir(folder)
    try:
        for command in commands:
            arguments = shlex.split(command)[1:]
            if minit2v(arguments):
                raise RuntimeError(f"failed: {command}")
            made.append(Clip.load(arguments[arguments.index("--out") + 1]))
    finally:
        os.chdir(before)
    return made


def main(out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = clips(COMMANDS, folder)
    figure, axes = plt.subplots(len(made), 1, figsize=(7.6, 1.12 * len(made)))
    for axis, command, clip in zip(axes, COMMANDS, made):
        row = np.full((clip.pixels.shape[1], FRAMES * (clip.pixels.shape[2] + 2), 3), 255, dtype=np.uint8)
        frames = clip.pixels[evenly(len(clip.pixels), FRAMES)]
        frames = np.pad(frames, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)
        strip = np.concatenate(list(frames), axis=1)  # f x (H W 3) -> (H, f*W, 3)
        row[:, : strip.shape[1]] = strip
        axis.imshow(row)
        axis.set_title(command.removeprefix("minit2v sample "), fontsize=8, loc="left", pad=2)
        axis.axis("off")
        say(f"{command}\n    {read(clip.pixels)}")
    figure.tight_layout(h_pad=0.3)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main(sys.argv[1])
