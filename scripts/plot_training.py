"""The loss curves of a run as one picture: python scripts/plot_training.py runs/mini docs/training.png

    python scripts/plot_training.py runs/mini docs/training.png unet       of one step

Shows the steps that are there; a run on data without specs has one cost, that of a wrong caption.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COSTS = [f"{name} t=0.999" for name in ("shape", "colour", "size", "motion", "speed", "caption")]
CURVES = {  # folder of a step -> titles and curves of its pictures
    "autoencoder": [("autoencoder: reconstruction, dB", ["psnr"])],
    "text": [("text: contrastive loss", ["loss"])],
    "unet": [("UNet: loss of clips and of images", ["clip loss", "image loss"]),
             ("UNet: cost of wrong words at t = 999, %", COSTS)],
}


def smooth(values: list[float], window: int = 9) -> list[float]:
    """Mean over the last `window` values."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def main(run: str, out: str, *steps: str) -> None:
    logs = {step: Path(run) / step / "log.jsonl" for step in steps or CURVES}
    shown = [(step, *curves) for step, log in logs.items() if log.is_file() for curves in CURVES[step]]
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.2), constrained_layout=True, squeeze=False)
    for axis, (step, title, names) in zip(axes[0], shown):
        rows = [json.loads(line) for line in logs[step].read_text().splitlines()]
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if not points:
                continue
            scale = 100 if "t=" in name else 1
            axis.plot([x for x, _ in points], smooth([scale * y for _, y in points]), label=name.split(" t=")[0])
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("optimizer steps")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
        if "loss" in names or "clip loss" in names:
            axis.set_yscale("log")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
