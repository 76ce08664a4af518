"""Drawings of notebook 04: by which ways a text enters the UNet, and how far a changed word moves the features.

    ways_in   caption and noun phrase ─> the table of vectors ─> timestep embedding, cross-attention, scene prior
    swaps     a dot for each swap of a word, and the mean of each row with its 95 % interval
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from minit2v.lab.packages import needed
from minit2v.lab.pictures import Picture
from minit2v.lab.plots import PALETTE, blank, saved

CAPTION, PHRASE, INK, FAINT = PALETTE[0], PALETTE[1], "#222222", "#666666"
WIDTH, HEIGHT = 860, 446  # of `ways_in`, in units of the drawing
TABLE = (330, 92, 60, 16)  # of the table of vectors: left and right edge, top, height of a row


def ways_in(words: Sequence[str], phrase: Sequence[str], n: int, *, alt: str) -> Picture:
    """A caption, its noun phrase, the table of n vectors, and what of the table each of three parts of the UNet reads.

    Args:
        words, phrase: of the caption and of its beginning that says how things look.
        n: rows of the table, with start, end and padding.
        alt: a sentence for those who cannot see the picture.
    """
    with blank(WIDTH / 106, HEIGHT / 106, layout="none") as (figure, [axes]):
        axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), position=(0, 0, 1, 1))
        axes.axis("off")
        left, top, width, height = TABLE
        _label(axes, left + width / 2, top - 24, "the context", "center", weight="bold")
        for row in range(n):
            heard = min(row, len(words)) / len(words)
            colour, strength = (PHRASE, 0.85) if row == 0 else (CAPTION, 0.12 + 0.68 * heard)
            _box(axes, left, top + height * row, width, height, colour, strength, "white")
            name = ["0: looks", *words, "end"][row] if row < len(words) + 2 else "·"
            _label(axes, left - 6, top + height * (row + 0.5), name, "right", FAINT, 8.5)
        middle = top + height * (n + 1) / 2
        _source(axes, 30, top - 40, "the noun phrase", phrase, PHRASE, top + height / 2)
        _label(axes, 214, top - 8, "mean of its rows", "center", PHRASE, 8.5)
        _source(axes, 30, middle - 38, "the whole caption", words, CAPTION, middle)
        _way(axes, 38, PHRASE, "timestep embedding", "row 0 alone: the noun phrase", "to every residual block", True)
        _way(axes, 178, CAPTION, "cross-attention", "every cell looks at all rows", "in every transformer block", False)
        _way(axes, 318, CAPTION, "scene prior", "the mean of all rows", "added after the first convolution", True)
        right = left + width
        _arrow(axes, (right + 4, top + height / 2), (588, 84), PHRASE)
        axes.plot([right + 8, right + 16, right + 16, right + 8], [top, top, top + n * height, top + n * height], color=CAPTION,
                  linewidth=1.5)  # fmt: skip
        for y in (224, 364):
            _arrow(axes, (right + 18, middle), (588, y), CAPTION)
        return saved(figure, alt)


def _source(axes, x, y, title, words, colour, goal):
    """What the encoder reads, on the left, and an arrow to its rows."""
    _label(axes, x, y, title, "left", weight="bold")
    _label(axes, x, y + 19, f"“{' '.join(words)}”", "left", colour, 9)
    _box(axes, x, y + 34, 118, 26, colour, 0.12, colour)
    _label(axes, x + 59, y + 47, "text encoder", "center")
    _arrow(axes, (x + 122, y + 47), (TABLE[0] - 62, goal), colour)


def _way(axes, y, colour, title, reads, where, ours):
    """A part of the UNet, on the right; the border of those that mini alone has is dashed."""
    _box(axes, 592, y, 258, 92, colour, 0.1, colour, "--" if ours else "-")
    _label(axes, 606, y + 18, title, "left", weight="bold")
    _label(axes, 606, y + 38, reads, "left")
    _label(axes, 606, y + 57, where, "left")
    _label(axes, 606, y + 77, "mini alone" if ours else "in the paper and in mini", "left", FAINT, 9)


def _box(axes, x, y, width, height, colour, strength, edge, line="-"):
    patches, rgb = needed("matplotlib.patches"), needed("matplotlib.colors").to_rgb
    pale = 1 - strength * (1 - np.array(rgb(colour)))  # on white, whatever the page behind the picture is
    axes.add_patch(patches.Rectangle((x, y), width, height, facecolor=pale, edgecolor=edge, linestyle=line, linewidth=1.2))


def _label(axes, x, y, words, align, colour=INK, size=9.5, **options):
    axes.text(x, y, words, ha=align, va="center", color=colour, fontsize=size, **options)


def _arrow(axes, start, end, colour):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.5})


def swaps(distances: Mapping[str, Tensor], xlabel: str, *, alt: str) -> Picture:
    """A row for each name: a pale dot for each number, and their mean with its 95 % interval.

    Args:
        distances: {name: numbers (n,)}.
        alt: a sentence for those who cannot see the picture.
    """
    with blank(7.6, 0.8 + 0.45 * len(distances)) as (figure, [axes]):
        for row, numbers in enumerate(distances.values()):
            numbers = np.asarray(numbers, dtype=np.float64)
            margin = 1.96 * numbers.std(ddof=1) / len(numbers) ** 0.5
            beside = row + 0.3 * np.sin(2.4 * np.arange(len(numbers)))  # so that dots hide one another less
            axes.plot(numbers, beside, "o", color=CAPTION, alpha=0.35, markersize=3.5, markeredgewidth=0)
            axes.errorbar(numbers.mean(), row, xerr=margin, color=PHRASE, marker="D", markersize=5, capsize=5, linewidth=2.2)
        axes.set_yticks(range(len(distances)), list(distances))
        axes.set(xlabel=xlabel, xlim=(0, None), ylim=(len(distances) - 0.5, -0.5))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#dddddd")
        return saved(figure, alt)
