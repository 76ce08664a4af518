"""Pictures for notebooks: small PNGs with a description, in colours that most colour-blind people can tell apart.

    strip    frames of one clip, or of several, side by side      curves   lines over a common axis
    play     clips that move (animated PNG)                       points   clouds of points in the plane
    sheet    many pictures with titles                            matrix   a heat map
    latents  the channels of a latent clip                        bars     a number for each name

Every function takes `alt`, a sentence for those who cannot see the picture, and returns a `Picture`; make it the last
line of a cell. nbval compares that sentence and not the pixels, so `alt` has to be true in every mode.

References: palette: Okabe and Ito, https://jfly.uni-koeln.de/color/; cividis: Nunez et al., arXiv 1712.01662.
"""

import io
from contextlib import contextmanager

import numpy as np

from minit2v.errors import UserError
from minit2v.lab.packages import needed
from minit2v.lab.pictures import Picture, encoded, fitted, line_of_text, pixels, row, stack, titled
from minit2v.pixels import evenly
from minit2v.video import Clip

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")  # Okabe and Ito
DASHES = ("-", "--", "-.", ":")  # with the colours, so that a print in grey can be read too
SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"
DOTS = 110  # pixels per inch of a figure


def strip(clips, n=8, *, alt):
    """n frames of a clip, evenly spaced, from left to right; of several clips, one row each.

    Args:
        clips: a `Clip`, pixels (f, H, W, 3) or floats in [-1, 1] (f, 3, H, W), or {title: one of them}.
    """
    clips = _named(clips)
    chosen = {title: f[evenly(len(f), n)] for title, f in clips.items()}
    beside = max(map(len, chosen.values()))
    return Picture(encoded([stack([titled(row(fitted(f, beside)), title) for title, f in chosen.items()])]), alt)


def play(clips, *, alt, fps=None):
    """Clips that move, side by side, once the reader opens them; before, some of their frames, as in `strip`.

    Args:
        clips: as in `strip`; a shorter one holds its last frame.
        fps: frames a second; by default the clip's own.
    """
    given = clips if isinstance(clips, dict) else {"": clips}
    fps = fps or next((clip.fps for clip in given.values() if isinstance(clip, Clip)), 8)
    clips = {title: fitted(frames, len(given)) for title, frames in _named(clips).items()}
    longest = max(map(len, clips.values()))
    moments = [row([titled(f[min(i, len(f) - 1)], title) for title, f in clips.items()]) for i in range(longest)]
    return Picture(strip(given, alt=alt).png, alt, encoded(moments, fps))


def sheet(images, titles=None, columns=6, *, alt):
    """A contact sheet: pictures in rows of `columns`, each below its title.

    Args:
        images: pictures of one size: uint8 (H, W, 3), floats in [-1, 1] (3, H, W), or (H, W), which becomes grey.
        titles: as many texts, or None.
    """
    images = [pixels(image) for image in images]
    titles = [""] * len(images) if titles is None else list(titles)
    if len(titles) != len(images) or len({image.shape for image in images}) != 1:
        raise UserError(f"sheet: expected pictures of one size and a title for each, found {len(titles)} titles and "
                        f"the shapes {[image.shape for image in images]}")
    columns = min(columns, len(images))
    tiles = [titled(*pair) for pair in zip(fitted(np.stack(images), columns), titles)]
    return Picture(encoded([stack([row(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])]), alt)


def latents(z, n=8, *, alt):
    """Latents, a row for each channel, n frames from left to right: orange above 0, violet below, white at 0.

    Args:
        z: (c, f, h, w), or (1, c, f, h, w), or (c, h, w) for one frame.
    """
    z = _numbers(z)
    z = z[0] if z.ndim == 5 and len(z) == 1 else z[:, None] if z.ndim == 3 else z
    if z.ndim != 4:
        raise UserError(f"latents: expected those of one clip, (c, f, h, w), found {z.shape}")
    limit = max(abs(z).max(), 1e-12)
    colours = needed("matplotlib").colormaps[DIVERGING]((z / limit + 1) / 2)[..., :3] * 255  # (c f h w) -> (c f h w 3)
    rows = colours.astype(np.uint8)[:, evenly(z.shape[1], n)]
    beside = rows.shape[1]
    pictures = [titled(row(fitted(f, max(beside, 4), most=16)), f"channel {i}") for i, f in enumerate(rows)]
    scale = line_of_text(f"white 0, orange {limit:.2g}, violet -{limit:.2g}")
    return Picture(encoded([stack([*pictures, scale])]), alt)


def curves(lines, xlabel, ylabel, *, alt, logx=False, logy=False, marks=()):
    """Lines over a common axis.

    Args:
        lines: {label: (x, y)}, numbers, arrays or tensors of one length.
        logx, logy: logarithmic axes.
        marks: values of x at which a thin vertical line stands.
    """
    with blank(7.6, 3.3) as (figure, [axes]):
        for i, (label, (x, y)) in enumerate(lines.items()):
            style = {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i % len(DASHES)]}
            axes.plot(_numbers(x), _numbers(y), label=label, linewidth=2, **style)
        for x in marks:
            axes.axvline(x, color="#666666", linewidth=1)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if logx else "linear", yscale="log" if logy else "linear")
        for axis in [axes.xaxis] * logx + [axes.yaxis] * logy:
            _plain_numbers(axis)
        axes.legend(frameon=False)
        axes.grid(color="#dddddd")
        return saved(figure, alt)


def _plain_numbers(axis):
    """Write the numbers of a logarithmic axis as 0.1, 1, 10: the usual 10^-1 is a formula, and texts here are no formulas."""
    ticker = needed("matplotlib.ticker")
    low, high = axis.get_view_interval()
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def points(clouds, *, alt, apart=False, groups=None, paths=None):
    """Clouds of points in the plane, all to one scale.

    Args:
        clouds: {label: (n, 2)}.
        apart: each cloud in a panel of its own, instead of all in one.
        groups: with `apart`, a number 0 to 7 for each of the n points: its colour in every panel.
        paths: with `apart`, {label: (s, m, 2)}: the ways that m points take in s moments, over the cloud, now grey.
    """
    clouds = {label: _numbers(cloud) for label, cloud in clouds.items()}
    paths = {label: _numbers(path) for label, path in (paths or {}).items()}
    colours = None if groups is None else [PALETTE[int(group)] for group in groups]
    reach = 1.05 * max(abs(cloud).max() for cloud in (*clouds.values(), *paths.values()))
    panels = len(clouds) if apart else 1
    with blank(min(8.1, 3.4 * panels) if apart else 4.8, min(3.7, 8.1 / panels + 0.3), panels) as (figure, grid):
        for i, (label, cloud) in enumerate(clouds.items()):
            axes = grid[i if apart else 0]
            colour = "#bbbbbb" if label in paths else colours or PALETTE[0 if apart else i % len(PALETTE)]
            axes.scatter(*cloud.T, s=5, linewidths=0, color=colour, label=label)
            for j, way in enumerate(paths[label].swapaxes(0, 1) if label in paths else ()):
                own = PALETTE[j % len(PALETTE)]
                axes.plot(*way.T, color=own, linewidth=1.3)
                axes.scatter(*way[[0, -1]].T, color=["white", own], edgecolors="black", s=28, zorder=3)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=label if apart else "")
        if not apart:
            axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        return saved(figure, alt)


def matrix(values, rows=None, columns=None, *, alt, xlabel="", ylabel="", diverging=False):
    """A heat map of values (n, m), with the numbers in its cells if there are at most 100.

    Args:
        rows, columns: the names of the n rows and of the m columns.
        diverging: two colours around 0, instead of one scale from the least to the greatest value.
    """
    values = _numbers(values)
    n, m = values.shape
    limit = abs(values).max()
    scale = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit} if diverging else {"cmap": SEQUENTIAL}
    with blank(min(8.1, 2.4 + 0.6 * m), min(7, 1.2 + 0.4 * n)) as (figure, [axes]):
        image = axes.imshow(values, aspect="auto", interpolation="nearest", **scale)
        figure.colorbar(image, ax=axes)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if columns is not None:
            slanted = max(len(str(name)) for name in columns) > 4
            axes.set_xticks(range(m), columns, rotation=40 if slanted else 0, ha="right" if slanted else "center")
        if rows is not None:
            axes.set_yticks(range(n), rows)
        for i, j in np.ndindex(n, m) if n * m <= 100 else ():
            dark = np.dot(image.cmap(image.norm(values[i, j]))[:3], (0.3, 0.59, 0.11)) < 0.5  # its luminance
            axes.text(j, i, f"{values[i, j]:.2g}", ha="center", va="center", fontsize=9, color="w" if dark else "k")
        return saved(figure, alt)


def bars(values, xlabel, *, alt, limits=None):
    """A horizontal bar for each name, from top to bottom, with its number.

    Args:
        values: {name: number}.
        limits: (least, greatest) value of the axis; by default from 0 on.
    """
    names, lengths = list(values), _numbers(list(values.values()))
    with blank(7.6, 0.9 + 0.28 * len(names)) as (figure, [axes]):
        axes.barh(range(len(names)), lengths, color=PALETTE[0], height=0.7)
        digits = 2 if (lengths % 1).any() else 0
        axes.bar_label(axes.containers[0], [f"{value:.{digits}f}" for value in lengths], padding=3, fontsize=9)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel=xlabel, xlim=limits)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        return saved(figure, alt)


def _named(clips):
    clips = {title: pixels(clip) for title, clip in (clips if isinstance(clips, dict) else {"": clips}).items()}
    for title, frames in clips.items():
        if frames.ndim != 4 or not len(frames):
            raise UserError(f"expected the frames of one clip, (f, H, W, 3), found {frames.shape} {title}")
    return clips


def _numbers(values):
    return np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, dtype=np.float64)


@contextmanager
def blank(width, height, panels=1, layout="constrained"):
    """(figure, its axes) of that size in inches, white, whatever the notebook's own matplotlib settings are."""
    matplotlib = needed("matplotlib")
    own = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}  # it would stay changed
    with matplotlib.rc_context(own | {"font.size": 10.5, "svg.hashsalt": "", "text.parse_math": False}):
        figure = needed("matplotlib.figure").Figure((width, height), dpi=DOTS, layout=layout)
        yield figure, list(figure.subplots(1, panels, squeeze=False).flat) if panels else []


def saved(figure, alt):
    """A figure of `blank` as a picture."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})  # no version: the same bytes everywhere
    return Picture(file.getvalue(), alt)
