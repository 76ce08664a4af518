"""Drawings of notebook 05: how clip and noise share the variance, what their two factors are, and noise in small files.

    shares_and_factors   the shares of the variance over t, and the factors, which lie on a quarter circle
    clock_hand           the same quarter circle with x_t as the hand of a clock and v as its velocity
    in_palette           a picture with few colours: noise does not compress
"""

import io
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from minit2v.lab.packages import needed
from minit2v.lab.pictures import Picture
from minit2v.lab.plots import PALETTE, blank, saved

CLIP, NOISE, OTHER = PALETTE[0], PALETTE[1], PALETTE[2]  # the same colours in both drawings
COLOURS = 64  # of a picture of noise


def in_palette(picture: Picture, colours: int = COLOURS) -> Picture:
    """The same picture with at most so many colours, which makes the file of a noisy one less than half as large."""
    image = needed("PIL.Image")
    file = io.BytesIO()
    with image.open(io.BytesIO(picture.png)) as full:
        few = full.convert("RGB").quantize(colours, method=image.Quantize.FASTOCTREE, dither=image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return Picture(file.getvalue(), picture.alt)


def shares_and_factors(alpha_bar: Tensor, marks: Sequence[int], *, alt: str) -> Picture:
    """Left the shares of clip and noise in the variance of x_t, right their factors, with and without roots.

    Args:
        alpha_bar: a schedule, (T,).
        marks: timesteps that both panels show.
        alt: a sentence for those who cannot see the picture.
    """
    share = alpha_bar.double().numpy()
    with blank(7.6, 3.6, 2) as (figure, (left, right)):
        t = np.arange(len(share))
        left.fill_between(t, 0, share, color=CLIP, alpha=0.75, linewidth=0)
        left.fill_between(t, share, 1, color=NOISE, alpha=0.55, linewidth=0)
        for mark in marks:
            left.axvline(mark, color="white", linewidth=1.5)
        left.text(0.12, 0.2, "clip: ᾱ", transform=left.transAxes, color="white", fontsize=12)
        left.text(0.86, 0.75, "noise: 1 - ᾱ", transform=left.transAxes, ha="right", fontsize=12)
        left.set(xlabel="t", ylabel="share of the variance of x_t", xlim=(0, len(share) - 1), ylim=(0, 1))
        _quarter_circle(right, share, marks)
        right.plot([1, 0], [0, 1], color=OTHER, linewidth=2, linestyle="--", label="without roots")
        right.legend(frameon=False, loc="upper right")
        right.set(xlim=(0, 1.35), ylim=(0, 1.35))
        return in_palette(saved(figure, alt), 255)


def clock_hand(alpha_bar: Tensor, marks: Sequence[int], *, alt: str) -> Picture:
    """The two factors as the hand of a clock at some timesteps, and the velocity of its tip.

    Args:
        alpha_bar: a schedule, (T,).
        marks: the timesteps.
        alt: a sentence for those who cannot see the picture.
    """
    share = alpha_bar.double().numpy()
    with blank(4.6, 4) as (figure, [axes]):
        _quarter_circle(axes, share, marks, legend=False)
        for mark in marks:
            signal, sigma = share[mark] ** 0.5, (1 - share[mark]) ** 0.5
            tip = signal - 0.3 * sigma, sigma + 0.3 * signal
            axes.annotate("", tip, (signal, sigma), arrowprops={"arrowstyle": "->", "color": NOISE, "linewidth": 2})
        axes.plot([], [], color=NOISE, linewidth=2, label="v, the velocity of the tip")
        axes.legend(frameon=False, loc="upper right")
        axes.set(xlim=(-0.3, 1.35), ylim=(0, 1.5))
        return in_palette(saved(figure, alt), 255)


def _quarter_circle(axes, share, marks, legend=True):
    """The quarter circle that the factors lie on, and a line from its centre for each mark."""
    angle = np.linspace(0, np.pi / 2, 100)
    axes.plot(np.cos(angle), np.sin(angle), color="#888888", linewidth=1.5, label="with roots" if legend else None)
    for mark in marks:
        signal, sigma = share[mark] ** 0.5, (1 - share[mark]) ** 0.5
        axes.plot([0, signal], [0, sigma], color=CLIP, linewidth=1.5)
        axes.plot(signal, sigma, "o", color=CLIP, markersize=6)
        axes.text(1.06 * signal + 0.01, 1.04 * sigma, f"t = {mark}", fontsize=9.5)
    axes.set(xlabel="factor of the clip, √ᾱ", ylabel="factor of the noise, √(1 - ᾱ)", aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
