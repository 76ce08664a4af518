"""Does each metric notice each damage? python scripts/validity.py docs/validity (writes .json, .md and .png there)

`make validity` runs it; minit2v/evaluation/validity/matrix.py says what is measured. --n clips a value (128), --jobs
processes (2). --kept takes the figures from the .json, without measuring.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from minit2v.evaluation.table import markdown_table
from minit2v.evaluation.validity.corruptions import CORRUPTIONS, LEVELS
from minit2v.evaluation.validity.matrix import (
    BLIND,
    FLOOR,
    METRICS,
    MISLED,
    PAIR,
    SEEDS,
    SEEN,
    UNSEEN,
    Cell,
    cells,
    curves,
    floor,
    matched_pair,
)
from minit2v.files import atomic, data_dir, say, sha256, write_json


def measured(n: int, jobs: int) -> dict:
    """Everything that the report needs, as it is kept in the .json."""
    found, other = curves(n, jobs)
    values = {metric: {name: rounded(found[metric, name]) for name in CORRUPTIONS} for metric in METRICS}
    about = {"n": n, "networks": networks()}
    return about | {"curves": values, "other": other, "pair": matched_pair(n), "floor": floor()}


def networks() -> str:
    """sha256 over the weights that the metrics look through, shortened: the figures are those of these."""
    return sha256(*sorted((data_dir() / "metrics").glob("*.safetensors")))[:12]


def rounded(values: np.ndarray) -> list[list[float]]:
    """Six digits, so that the file stays small."""
    return [[float(f"{value:.6g}") for value in row] for row in values]


def cells_of(kept: dict) -> dict[tuple[str, str], Cell]:
    """The table of the kept figures."""
    found = {(metric, name): np.array(kept["curves"][metric][name]) for metric in METRICS for name in CORRUPTIONS}
    return cells(found, kept["other"])


def letters(found: dict[tuple[str, str], Cell]) -> dict[str, str]:
    """{reason why something is not seen: its letter}, in the order of BLIND and MISLED."""
    used = {cell.reason for cell in found.values()}
    return dict(zip((claim[0] for claim in (*BLIND, *MISLED) if claim[0] in used), "abcdefghijklmnopqrstuvwxyz"))


def broken(kept: dict) -> list[str]:
    """The claims of the report that are false."""
    claims = {f"{metric}, {name}: {cell.kind}": cell.holds for (metric, name), cell in cells_of(kept).items()}
    (content_a, content_b), (mini_a, mini_b) = kept["pair"]["FVD-content"], kept["pair"]["FVD-mini"]
    claims |= {"the pair fools FVD-content": content_b < content_a, "it does not fool FVD-mini": mini_b > mini_a}
    claims["the floor is under 2 % of the distance of noise"] = kept["floor"][0] < 0.02 * kept["floor"][1]
    return [claim for claim, holds in claims.items() if not holds]


def markdown(kept: dict) -> str:
    """The table, its reasons, the matched pair and the floor, as Markdown."""
    found = cells_of(kept)
    letter = letters(found)
    amount = lambda cell: f"{cell.share:.0%}" + (f", from {cell.least}" if cell.least > LEVELS[1] else "")
    shown = lambda cell: letter[cell.reason] if cell.reason else f"{cell.correlation:.2f} ({amount(cell)})"
    rows = [[name, *(shown(found[metric, name]) for metric in METRICS)] for name in CORRUPTIONS]
    (content_a, content_b), (mini_a, mini_b) = kept["pair"]["FVD-content"], kept["pair"]["FVD-mini"]
    better = ["first", "second"]
    spatial, (medium, small), temporal = PAIR
    real, noise = kept["floor"]
    reasons = "\n".join(f"* **{letter[reason]}**: {reason}" for reason in letter)
    pair = markdown_table(["clips", "FVD-content", "FVD-mini"], [
        [f"{spatial}, severity {medium:g}; frames in order", f"{content_a:.2f}", f"{mini_a:.2f}"],
        [f"{spatial}, severity {small:g}, and {temporal}", f"{content_b:.2f}", f"{mini_b:.2f}"],
    ])  # fmt: skip
    return f"""# What each metric sees

Spearman's correlation of a metric with the severity of a corruption, over {len(LEVELS)} severities from 0 to 1. A
value is the mean over {len(SEEDS)} draws of {kept["n"]} clips and of damage. Fréchet distances are to the same clips
undamaged. In brackets: how much the value changes, in % of its change under the corruption that the metric feels most,
and the least severity that is noticed, if it is not {LEVELS[1]}. A letter: the reason why the metric does not see the
corruption. `make validity` measures this and fails if a claim is false: a correlation under {SEEN}, or a change of
{UNSEEN:.0%} or more where the metric is declared blind.

![The same as a picture](validity.png)

{markdown_table(["", *METRICS], rows)}

{reasons}

## The pair that fools a metric of content

{pair}

FVD-content prefers the {better[content_b < content_a]} set, FVD-mini the {better[mini_b < mini_a]}. The FVD of the
literature prefers the second set of such a pair in
[On the Content Bias in Fréchet Video Distance](https://arxiv.org/abs/2404.12391), figure 1 (317.10 and 310.52).

## The floor

FVD-mini of real clips against other real clips, {FLOOR} each: {real:.4f}. Of uniform noise: {noise:.1f}. The ratio is
{real / noise:.3%}; the requirement is less than 2 %.

All figures are of real clips, seen through the networks `{kept["networks"]}` of [data/metrics](../data/metrics/README.md);
no model that makes clips has a part in them.
"""


def draw(found: dict[tuple[str, str], Cell], out: Path) -> None:
    """A map of all cells: the correlation where a metric sees a corruption, the letter of the reason where it does not.

    The darker, the more the value changes. Red: the claim is false.
    """
    letter = letters(found)
    shade = np.full((len(METRICS), len(CORRUPTIONS)), np.nan)
    figure, axes = plt.subplots(figsize=(11.5, 8.6))
    axes.set_facecolor("#e4e4e4")
    for i, metric in enumerate(METRICS):
        for j, name in enumerate(CORRUPTIONS):
            cell = found[metric, name]
            if cell.reason is None:
                shade[i, j] = cell.share**0.5  # makes small shares differ visibly
            text = letter[cell.reason] if cell.reason else f"{cell.correlation:.2f}"
            text += f"\n≥ {cell.least}" if cell.reason is None and cell.least > LEVELS[1] else ""
            colour = "#444444" if cell.reason else "white" if cell.share > 0.2 else "black"
            colour = colour if cell.holds else "#d00020"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8.5, linespacing=1)
    axes.imshow(shade, cmap="Blues", vmin=-0.15, vmax=1.15, aspect="auto")
    axes.set_xticks(range(len(CORRUPTIONS)), CORRUPTIONS, rotation=35, ha="right")
    axes.set_yticks(range(len(METRICS)), METRICS)
    axes.set_xticks(np.arange(len(CORRUPTIONS)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(METRICS)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    legend = "\n".join(f"{mark}   {reason}" for reason, mark in letter.items())
    title = (
        "Spearman's correlation of each metric with the severity of each corruption. The darker, the more the value\n"
        "changes, compared with the corruption that this metric feels most; ≥: the least severity noticed; grey: not "
        "seen, for the reason below"
    )
    axes.set_title(title, loc="left", fontsize=10.5)
    figure.text(0.015, 0.01, legend, fontsize=8.5, va="bottom", linespacing=1.5)
    figure.tight_layout(rect=(0, 0.0205 * len(letter) + 0.01, 1, 1))
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="path without suffix")
    parser.add_argument("--n", type=int, default=128, help="clips a value (128)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--kept", action="store_true", help="take the figures from the .json")
    options = parser.parse_args()
    place = options.out.with_suffix(".json")
    kept = json.loads(place.read_text()) if options.kept else measured(options.n, options.jobs)
    report = markdown(kept)
    write_json(place, kept, indent=None)
    with atomic(options.out.with_suffix(".md")) as unfinished:
        unfinished.write_text(report, encoding="utf-8")
    draw(cells_of(kept), options.out.with_suffix(".png"))
    say(report)
    if wrong := broken(kept):
        raise SystemExit("not true: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
