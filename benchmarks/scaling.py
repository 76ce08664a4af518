"""Is the cost linear in frames? Forward passes at growing numbers of frames, picture sizes and batches."""

import statistics
from pathlib import Path

import numpy as np

AXES = {"f": "frames", "h": "latent rows and columns", "b": "clips at once"}
BASE = {"b": 1, "f": 8, "h": 16}  # values of the axes that are not varied
VALUES = {"f": (2, 4, 8, 16, 32, 64), "h": (8, 12, 16, 24, 32), "b": (1, 2, 4)}


def values(axis: str, tiny: bool = False) -> tuple[int, ...]:
    """The sizes measured along an axis."""
    return (2, 4) if tiny else VALUES[axis]


def shapes(axis: str, tiny: bool = False) -> list[tuple[int, int, int, int]]:
    """The shape (b, f, h, w) of each measurement."""
    base = {"b": 1, "f": 1, "h": 2} if tiny else BASE
    sizes = [base | {axis: value} for value in values(axis, tiny)]
    return [(size["b"], size["f"], size["h"], size["h"]) for size in sizes]


def curves(axis: str, times: list[dict[str, list[float]]], tiny: bool = False):
    """(values, our median seconds, diffusers' median seconds)."""
    medians = [[statistics.median(each[side]) for each in times] for side in ("ours", "diffusers")]
    return values(axis, tiny), *medians


def exponent(sizes, seconds) -> float:
    """The exponent p of seconds ~ size^p: the slope of a line through the logarithms.

    >>> round(exponent((1, 2, 4), (3.0, 6.0, 12.0)), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def draw(curves: dict, path: Path) -> None:
    """Draw one panel per axis, both scales logarithmic; the grey line is a linear cost."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(11, 3.2), constrained_layout=True)
    for panel, (axis, (sizes, ours, theirs)) in zip(axes, curves.items()):
        power = 2 if axis == "h" else 1  # a picture of twice the side has four times the cells
        line = [ours[0] * (size / sizes[0]) ** power for size in sizes]
        panel.plot(sizes, line, color="0.7", label=f"linear in {'cells' if axis == 'h' else AXES[axis]}")
        for name, seconds, colour in (("ours", ours, "tab:blue"), ("diffusers", theirs, "tab:orange")):
            label = f"{name}: exponent {exponent(sizes, seconds):.2f}"
            panel.plot(sizes, seconds, "o-", color=colour, markersize=4, label=label)
        panel.set(xscale="log", yscale="log", xlabel=AXES[axis], xticks=sizes, xticklabels=sizes)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    axes[0].set_ylabel("seconds of a forward pass")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
