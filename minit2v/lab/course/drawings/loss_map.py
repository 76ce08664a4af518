"""The drawing of notebook 03: the networks in a row, and below them which loss moves which of them."""

from collections.abc import Mapping, Sequence

from minit2v.lab.packages import needed
from minit2v.lab.pictures import Picture
from minit2v.lab.plots import PALETTE, blank, saved

_LABELS = 4.3  # width of the column of names, in widths of a box


def loss_map(way: Sequence[str], moved: Mapping[str, Sequence[str]], *, alt: str) -> Picture:
    """Boxes from left to right with arrows between them, and a row of dots for each loss.

    Args:
        way: the names of the boxes; those that no loss moves, such as pictures, are drawn without a frame.
        moved: name of a loss -> the boxes that it moves.
    """
    learners = {name for names in moved.values() for name in names}
    step, last = 1.5, 1.5 * (len(way) - 1) + 1
    with blank(8.1, 1.25 + 0.36 * len(moved)) as (figure, [axes]):
        for i, name in enumerate(way):
            colour = PALETTE[i % len(PALETTE)] if name in learners else "#777777"
            if name in learners:
                box = needed("matplotlib.patches").FancyBboxPatch(
                    (step * i, 0.3), 1, 0.75, boxstyle="round,pad=0.06", facecolor="white", edgecolor=colour, linewidth=2)
                axes.add_patch(box)
                axes.plot([step * i + 0.5] * 2, [0.2, -len(moved)], color="#dddddd", linewidth=1, zorder=0)
            axes.text(step * i + 0.5, 0.67, name, ha="center", va="center", fontsize=9)
            if i:
                axes.annotate("", (step * i - 0.08, 0.67), (step * (i - 1) + 1.08, 0.67),
                              arrowprops={"arrowstyle": "-|>", "color": "#444444", "linewidth": 1.3})
        for row, (loss, names) in enumerate(moved.items(), 1):
            axes.text(-0.35, -row + 0.25, loss, ha="right", va="center", fontsize=9)
            axes.plot([-0.2, last], [-row + 0.25] * 2, color="#eeeeee", linewidth=1, zorder=0)
            for name in names:
                i = list(way).index(name)
                axes.plot(step * i + 0.5, -row + 0.25, "o", color=PALETTE[i % len(PALETTE)], markersize=11)
        axes.set(xlim=(-_LABELS, last + 0.15), ylim=(-len(moved) - 0.1, 1.2))
        axes.axis("off")
        return saved(figure, alt)
