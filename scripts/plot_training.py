"""The loss curves of a run as one picture: python scripts/plot_training.py runs/mini docs/training.png

Of the parts that were trained in the run: one that goes on from another model has the UNet alone.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

CURVES = {
    "vqgan": ("autoencoder: reconstruction, dB", ["psnr"]),
    "clip": ("CLIP: contrastive loss", ["loss"]),
    "unet": ("UNet: loss of clips and of images", ["clip loss", "image loss"]),
    "unet ": (
        "UNet: cost of a wrong word at t = 999, %",
        ["shape t=0.999", "colour t=0.999", "size t=0.999", "motion t=0.999", "speed t=0.999"],
    ),
}


def smooth(values: list[float], window: int = 9) -> list[float]:
    """Mean over the last `window` values."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def main(run: str, out: str) -> None:
    logs = {part: Path(run) / part.strip() / "log.jsonl" for part in CURVES}
    shown = {part: curves for part, curves in CURVES.items() if logs[part].is_file()}
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.2), constrained_layout=True)
    for axis, (part, (title, names)) in zip(axes, shown.items()):
        rows = [json.loads(line) for line in logs[part].read_text().splitlines()]
        for name in names:
            points = [(row["seconds"] / 60, row[name]) for row in rows if name in row]
            scale = 100 if "t=" in name else 1
            axis.plot([x for x, _ in points], smooth([scale * y for _, y in points]), label=name.split(" t=")[0])
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("minutes")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
        if "loss" in names or "clip loss" in names:
            axis.set_yscale("log")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
