"""The two drawings of notebook 00: the loop of the sampler, and the ways by which words come into the UNet."""

from contextlib import contextmanager

from minit2v.lab.packages import needed
from minit2v.lab.pictures import Picture
from minit2v.lab.plots import PALETTE, blank, saved

SHARPNESS = 1.6  # picture pixels per unit of a drawing
BLUE, ORANGE, GREEN, PALE, INK, FAINT = *PALETTE[:3], "#f4f4f4", "#222222", "#666666"


def drawn_loop(steps: int, *, alt: str) -> Picture:
    """Noise, the loop of `steps` steps with the UNet, the belief and the mixing, and the decoder behind it."""
    with _drawing(820, 224) as (figure, axes):
        _box(axes, 150, 22, 510, 186, "#fbfbfb", FAINT)
        _text(axes, 162, 38, f"{steps} times, and each time t is smaller", 12, FAINT)
        for x, y, width, title, below in ((12, 92, 104, "noise", "from the seed"), (172, 92, 108, "x", "noisy video"),
                                          (316, 92, 108, "UNet", "with t and words"), (460, 92, 84, "x0", "belief"),
                                          (576, 92, 72, "x", "less noise"), (694, 92, 114, "decoder", "pixels")):  # fmt: skip
            _box(axes, x, y, width, 52, PALE, FAINT)
            _text(axes, x + width / 2, y + 18, title, 14, align="center", weight="bold")
            _text(axes, x + width / 2, y + 38, below, 10.5, FAINT, "center")
        for start, end in ((116, 172), (280, 316), (424, 460), (544, 576), (648, 694)):
            _arrow(axes, [(start, 118), (end, 118)])
        _arrow(axes, [(612, 144), (612, 186), (226, 186), (226, 144)], BLUE)
        _text(axes, 419, 197, "the next step starts from here", 11, BLUE, "center")
        _arrow(axes, [(226, 92), (226, 66), (612, 66), (612, 92)], ORANGE)
        _text(axes, 419, 56, "much of the old noise at first, ever less of it later", 11, ORANGE, "center")
        _text(axes, 751, 164, "once, at the end", 11, FAINT, "center")
        return saved(figure, alt)


def drawn_ways(*, alt: str) -> Picture:
    """The UNet as a row of layers, and above it the three ways by which words come in."""
    with _drawing(820, 330) as (figure, axes):
        _box(axes, 12, 12, 796, 36, PALE, FAINT)
        _text(axes, 410, 30, "vectors of the prompt, one for each token", 13, align="center", weight="bold")
        names = ("first\nlayer", "blocks\n8 × 8", "blocks\n4 × 4", "middle\n4 × 4", "blocks\n4 × 4", "blocks\n8 × 8",
                 "last\nlayer")  # fmt: skip
        middles = [70 + 113 * i for i in range(7)]
        for x, name in zip(middles, names):
            _box(axes, x - 46, 236, 92, 52, PALE, FAINT)
            _text(axes, x, 262, name, 12, align="center")
        for x, other in zip(middles, middles[1:]):
            _arrow(axes, [(x + 46, 262), (other - 46, 262)])
        _arrow(axes, [(30, 48), (30, 236)], ORANGE)
        _text(axes, 38, 72, "scene prior (mini only)", 12, ORANGE, weight="bold")
        _text(axes, 38, 90, "a hint for each cell of each frame", 11, ORANGE)
        _arrow(axes, [(290, 48), (290, 116)], BLUE)
        _text(axes, 298, 72, "embedding (mini only)", 12, BLUE, weight="bold")
        _text(axes, 298, 90, "one vector, the same for all cells", 11, BLUE)
        _text(axes, 572, 72, "cross-attention (both models)", 12, GREEN, weight="bold")
        _text(axes, 572, 90, "each cell asks, every token may answer", 11, GREEN)
        axes.plot([middles[1] - 14, middles[5] - 14], [116, 116], color=BLUE, linewidth=1.4)
        for x in middles[1:6]:
            _arrow(axes, [(x - 14, 116), (x - 14, 236)], BLUE)
        axes.plot([562, 562, middles[4] + 14, middles[4] + 14], [48, 150, 150, 150], color=GREEN, linewidth=1.4)
        axes.plot([middles[2] + 14, middles[4] + 14], [150, 150], color=GREEN, linewidth=1.4)
        for x in middles[2:5]:
            _arrow(axes, [(x + 14, 150), (x + 14, 236)], GREEN)
        _text(axes, 410, 312, "the UNet of mini, from noisy latents to its answer", 12, FAINT, "center")
        return saved(figure, alt)


@contextmanager
def _drawing(width, height):
    """An empty figure and its axes, whose units are screen pixels, y downwards."""
    with blank(width / 100, height / 100, 0, "none") as (figure, _):
        figure.set_dpi(100 * SHARPNESS)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        yield figure, axes


def _box(axes, x, y, width, height, colour, edge):
    rectangle = needed("matplotlib.patches").Rectangle
    axes.add_patch(rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=0.8))


def _text(axes, x, y, words, size, colour=INK, align="left", **options):
    """Words with their middle at height y; size in screen pixels."""
    axes.text(x, y, words, fontsize=size * 0.72, color=colour, ha=align, va="center", **options)


def _arrow(axes, points, colour=INK):
    """Straight pieces through points, with a head at the last."""
    axes.plot(*zip(*points), color=colour, linewidth=1.4, solid_joinstyle="miter")
    axes.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0})
