"""What a model makes of test prompts, right and wrong, as one picture.

    python scripts/sample_sheet.py mini docs/samples.png

The first two prompts of each test split that the judge finds right in every attribute, and the first that it finds
wrong, with what it read there. Prompt number i starts from noise number i, as in `minit2v evaluate`.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import minit2v  # noqa: E402
from minit2v.datasets import MovingThings  # noqa: E402
from minit2v.evaluation.judge import ATTRIBUTES, agrees, read  # noqa: E402

SPLITS = {"test_seen": "seen", "test_heldout": "held out", "test_imageonly": "known from pictures only"}
WANTED = {True: 2, False: 1}  # rows of a split, by whether all is right


def examples(pipe, split: str, most: int = 256) -> list[tuple[str, bool, np.ndarray]]:
    """(title, right, clip (f, H, W, 3)) of the first clips of both kinds among the first `most` prompts."""
    data, found = MovingThings(split, size=pipe.preset.width, frames=pipe.preset.frames), []
    for start in range(0, most, 8):
        part = range(start, start + 8)
        prompts, specs = zip(*(data.text(i) for i in part))
        for prompt, spec, clip in zip(prompts, specs, pipe(list(prompts), seed=start)):
            seen = read(clip.pixels)
            verdict = agrees(seen, spec)
            right = verdict["all"]
            if sum(kind == right for _, kind, _ in found) < WANTED[right]:
                wrong = ", ".join(f"{name}: {getattr(seen, name)}" for name in ATTRIBUTES if not verdict[name])
                found.append((prompt + ("" if right else f"   [{SPLITS[split]}, wrong; {wrong}]"), right, clip.pixels))
        if len(found) == sum(WANTED.values()):
            break
    return sorted(found, key=lambda example: not example[1])


def main(model: str, out: str, columns: int = 8) -> None:
    pipe = minit2v.load(model)
    rows = [(split, *example) for split in SPLITS for example in examples(pipe, split)]
    figure, axes = plt.subplots(len(rows), 1, figsize=(8, 1.28 * len(rows)), constrained_layout=True)
    for axis, (split, title, right, clip) in zip(axes, rows):
        shown = clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)]
        shown = np.pad(shown, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
        axis.imshow(np.concatenate(list(shown), axis=1), interpolation="nearest")
        axis.set_title(f"{title}   [{SPLITS[split]}]" if right else title, fontsize=9, loc="left")
        axis.axis("off")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
