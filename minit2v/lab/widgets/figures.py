"""The static pictures of widgets that are diagrams: matplotlib without its global state, so a notebook's is untouched.

    figure, axes = diagram(640, 300)  ->  draw, in pixels of the screen, y downwards  ->  pixels(figure)
"""

import numpy as np

from minit2v.lab.packages import needed

SHARPNESS = 1.6  # picture pixels per screen pixel
INK, FAINT, LINE = "#222222", "#666666", "#bbbbbb"

DIVERGING = ("#053061", "#4393c3", "#f7f7f7", "#e69138", "#7f3b08")  # as in lab.js: around 0; blue is below


def diagram(width: int, height: int):
    """An empty white figure of width x height screen pixels and its only axes, whose units are those pixels."""
    size = width / 100, height / 100
    figure = needed("matplotlib.figure").Figure(figsize=size, dpi=100 * SHARPNESS, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def box(axes, x, y, width, height, colour="none", edge=LINE, thickness=0.8):
    rectangle = needed("matplotlib.patches").Rectangle
    axes.add_patch(rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=thickness))


def text(axes, x, y, words, size=12, colour=INK, align="left", **options):
    """Words with their middle at height y; size in screen pixels."""
    axes.text(x, y, words, fontsize=size * 0.72, color=colour, ha=align, va="center", **options)


def image(axes, picture, x, y, width, height, **options):
    """An array (h, w) or (h, w, 3) as hard-edged pixels."""
    axes.imshow(picture, extent=(x, x + width, y + height, y), interpolation="nearest", aspect="auto", **options)
    axes.set(xlim=axes.viewLim.intervalx, ylim=axes.viewLim.intervaly)


def diverging():
    """A colour map for numbers around 0."""
    return needed("matplotlib.colors").LinearSegmentedColormap.from_list("diverging", DIVERGING)


def pixels(figure) -> np.ndarray:
    """The drawn figure, uint8 (H, W, 3)."""
    canvas = needed("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
