"""The drawings of notebook 02: a frame on its way through the autoencoder, and a choice of codes with its gradient.

    hourglass          frame ── encoder ──► four small channels ── decoder ──► frame, one cell marked in all of them
    straight_through   vectors and their codes in the plane, forwards and backwards
"""

import numpy as np
from torch import Tensor

from minit2v.lab.packages import needed
from minit2v.lab.pictures import Picture, pixels
from minit2v.lab.plots import DIVERGING, PALETTE, blank, saved

_MARK = PALETTE[4]  # orange, which shows on dark frames and on white channels


def hourglass(frame: Tensor, latents: Tensor, decoded: Tensor, cell: tuple[int, int], *, alt: str) -> Picture:
    """A frame, its latents and the decoded frame from left to right, with sizes below them and a cell marked.

    Args:
        frame, decoded: (3, H, W) in [-1, 1].
        latents: (4, h, w).
        cell: row and column of the marked cell.
    """
    c, h, w = latents.shape
    H, W = frame.shape[1:]
    factor, channels = H // h, latents.detach().cpu().numpy()
    with blank(8.1, 2.75, 0, "none") as (figure, _):
        for left, title, image in ((0.01, "frame", frame), (0.72, "decoded frame", decoded)):
            axes = _panel(figure, (left, 0.16, 0.27, 0.74), title)
            axes.imshow(pixels(image), interpolation="nearest", extent=(0, W, H, 0))
            for line in range(factor, H, factor):
                axes.axhline(line, color="#ffffff", linewidth=0.3, alpha=0.6)
                axes.axvline(line, color="#ffffff", linewidth=0.3, alpha=0.6)
            _mark(axes, cell[1] * factor, cell[0] * factor, factor)
            figure.text(left + 0.135, 0.05, f"{H} × {W} × 3 = {H * W * 3:,} numbers", ha="center", fontsize=9)
        limit = abs(channels).max()
        for i, channel in enumerate(channels):
            place = (0.385 + 0.1175 * (i % 2), 0.545 - 0.345 * (i // 2), 0.1125, 0.33)
            axes = _panel(figure, place, "")
            axes.imshow(channel, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest", extent=(0, w, h, 0))
            _mark(axes, cell[1], cell[0], 1)
        figure.text(0.5, 0.91, "latents, four channels", ha="center", fontsize=9.5)
        figure.text(0.5, 0.05, f"{h} × {w} × {c} = {h * w * c:,} numbers", ha="center", fontsize=9)
        for left, name in ((0.29, "encoder"), (0.63, "decoder")):
            axes = figure.add_axes((left, 0.44, 0.08, 0.2))
            axes.set(xlim=(0, 1), ylim=(0, 1))
            axes.axis("off")
            axes.annotate("", (1, 0.4), (0, 0.4), arrowprops={"arrowstyle": "-|>", "linewidth": 1.8, "color": "#000000"})
            axes.text(0.5, 0.62, name, ha="center", fontsize=9)
        return saved(figure, alt)


def straight_through(vectors: Tensor, codes: Tensor, gradients: Tensor, *, alt: str) -> Picture:
    """Two planes: on the left each vector goes to its code, on the right the gradient at the code goes to the vector.

    Args:
        vectors, codes: (m, 2), (K, 2) with K up to 8.
        gradients: (m, 2), what comes from above for each of the vectors.
    """
    v, e, g = (one.detach().cpu().double().numpy() for one in (vectors, codes, gradients))
    index = _nearest(v, e)
    reach = 1.25 * max(abs(v).max(), abs(e).max())
    line = np.linspace(-reach, reach, 400)
    plane = _nearest(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), e).reshape(400, 400)
    colours = needed("matplotlib.colors").to_rgba_array(PALETTE[: len(e)])[:, :3]
    with blank(8.1, 4.1, 2) as (figure, planes):
        titles = "forwards: the vector becomes its code", "backwards: its gradient is copied"
        for axes, title in zip(planes, titles):
            axes.imshow(1 - 0.26 * (1 - colours[plane]), origin="lower", extent=(-reach, reach, -reach, reach))
            axes.scatter(*e.T, marker="s", s=46, color=colours, edgecolors="black", zorder=3, label="codes")
            axes.scatter(*v.T, s=26, color="black", zorder=4, label="vectors")
            axes.set(xticks=[], yticks=[], title=title, xlim=(-reach, reach), ylim=(-reach, reach))
        left, right = planes
        for start, code, gradient in zip(v, e[index], g):
            _arrow(left, start, code - start, "#000000")
            _arrow(right, code, gradient, "#000000")
            _arrow(right, start, gradient, "#000000")
            right.plot(*np.stack([code, start]).T, color="#000000", linewidth=0.8, linestyle=":")
        left.legend(loc="lower left", fontsize=9, framealpha=1)
        return saved(figure, alt)


def _nearest(v: np.ndarray, e: np.ndarray) -> np.ndarray:
    return np.square(v[:, None] - e).sum(-1).argmin(1)


def _panel(figure, place, title):
    axes = figure.add_axes(place)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9.5, pad=4)
    return axes


def _mark(axes, x, y, side):
    rectangle = needed("matplotlib.patches").Rectangle((x, y), side, side, fill=False, edgecolor=_MARK, linewidth=2)
    axes.add_patch(rectangle)


def _arrow(axes, start, step, colour):
    axes.annotate("", start + step, start, zorder=5, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.4})
