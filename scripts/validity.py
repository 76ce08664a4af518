"""Does each metric notice each damage? python scripts/validity.py docs/validity (writes docs/validity.md and .png)

`make validity` runs it. --n clips a value (128), --jobs processes (2). See minit2v/evaluation/validity.py.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from minit2v.evaluation.validity import matrix as validity
from minit2v.evaluation.validity.corruptions import CORRUPTIONS, LEVELS
from minit2v.evaluation.validity.matrix import BLIND, FLOOR, METRICS, MISLED, PAIR, SEEDS, SEEN, UNSEEN, Cell


def letters(found: dict[tuple[str, str], Cell]) -> dict[str, str]:
    """{reason why something is not seen: the letter that stands for it}, in the order of BLIND and MISLED."""
    used = {cell.reason for cell in found.values()}
    return dict(zip((claim[0] for claim in (*BLIND, *MISLED) if claim[0] in used), "abcdefghijklmnopqrstuvwxyz"))


def broken(found: dict[tuple[str, str], Cell], pair: dict, bounds: tuple[float, float]) -> list[str]:
    """What of all that the report claims is not so."""
    claims = {f"{metric}, {name}: {cell.kind}": cell.holds for (metric, name), cell in found.items()}
    (content_a, content_b), (mini_a, mini_b) = pair["FVD-content"], pair["FVD-mini"]
    claims |= {"the pair fools FVD-content": content_b < content_a, "it does not fool FVD-mini": mini_b > mini_a}
    claims["the floor is under 2 % of the distance of noise"] = bounds[0] < 0.02 * bounds[1]
    return [claim for claim, holds in claims.items() if not holds]


def markdown(found: dict[tuple[str, str], Cell], pair: dict, bounds: tuple[float, float], n: int) -> str:
    """The table, its reasons, the matched pair and the floor, as Markdown."""
    letter = letters(found)
    amount = lambda cell: f"{cell.share:.0%}" + (f", from {cell.least}" if cell.least > LEVELS[1] else "")
    shown = lambda cell: letter[cell.reason] if cell.reason else f"{cell.correlation:.2f} ({amount(cell)})"
    lines = [["", *METRICS], ["---"] * (1 + len(METRICS))]
    lines += [[name, *(shown(found[metric, name]) for metric in METRICS)] for name in CORRUPTIONS]
    (content_a, content_b), (mini_a, mini_b) = pair["FVD-content"], pair["FVD-mini"]
    better = ["first", "second"]
    spatial, (medium, small), temporal = PAIR
    floor_, noise = bounds
    reasons = "\n".join(f"* **{letter[reason]}**: {reason}" for reason in letter)
    table_ = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"""# What each metric sees

Spearman's correlation of a metric with the severity of a corruption, over {len(LEVELS)} severities from 0 to 1; a value is
the mean of {len(SEEDS)} draws of {n} clips and of damage. Fréchet distances are to the same clips undamaged. In brackets how
much the value changes, in % of what it does under the corruption that the metric feels most, and the least severity that
is noticed, if it is not {LEVELS[1]}. A letter: the metric does not see it, and why. Made by `make validity`, which fails if a claim
is not so: a correlation under {SEEN}, or a change of {UNSEEN:.0%} or more where the metric is declared blind.

![The same as a picture](validity.png)

{table_}

{reasons}

## The pair that fools a metric of content

| clips | FVD-content | FVD-mini |
| --- | --- | --- |
| {spatial}, severity {medium:g}; time as it was | {content_a:.2f} | {mini_a:.2f} |
| {spatial}, severity {small:g}, and {temporal} | {content_b:.2f} | {mini_b:.2f} |

FVD-content calls the {better[content_b < content_a]} set the better one, FVD-mini the {better[mini_b < mini_a]}. The FVD of the literature prefers
the second of such a pair in [On the Content Bias in Fréchet Video Distance](https://arxiv.org/abs/2404.12391), figure 1 (317.10
and 310.52).

## The floor

FVD-mini of real clips against other real clips, {FLOOR} each: {floor_:.4f}. Of uniform noise: {noise:.1f}. The ratio is
{floor_ / noise:.3%}; less than 2 % was asked for.
"""


def draw(found: dict[tuple[str, str], Cell], out: Path) -> None:
    """A map of all cells: the correlation where a metric sees a corruption, the letter of the reason where not.

    The darker, the more the value changes. Red: not as it is declared.
    """
    letter = letters(found)
    shade = np.full((len(METRICS), len(CORRUPTIONS)), np.nan)
    figure, axes = plt.subplots(figsize=(11.5, 8.6))
    axes.set_facecolor("#e4e4e4")
    for i, metric in enumerate(METRICS):
        for j, name in enumerate(CORRUPTIONS):
            cell = found[metric, name]
            if cell.reason is None:
                shade[i, j] = cell.share**0.5  # so that small shares differ too
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
    axes.set_title("Spearman's correlation of each metric with the severity of each corruption. The darker, the more the value\n"
                   "changes, compared with the corruption that this metric feels most; ≥: the least severity noticed; grey: not seen, and why",
                   loc="left", fontsize=10.5)  # fmt: skip
    figure.text(0.015, 0.01, legend, fontsize=8.5, va="bottom", linespacing=1.5)
    figure.tight_layout(rect=(0, 0.0205 * len(letter) + 0.01, 1, 1))
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="path without suffix")
    parser.add_argument("--n", type=int, default=128, help="clips a value (128)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    options = parser.parse_args()
    measured = validity.table(options.n, options.jobs), validity.matched_pair(options.n), validity.floor()
    report = markdown(*measured, options.n)
    options.out.with_suffix(".md").write_text(report, encoding="utf-8")
    draw(measured[0], options.out.with_suffix(".png"))
    print(report)
    if wrong := broken(*measured):
        raise SystemExit("not so: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
