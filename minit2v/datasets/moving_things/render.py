"""Draws shapes: outlines -> distance tables -> anti-aliased, sub-pixel exact pictures, many clips at once.

    outline             signed distance table            coverage of a pixel
      /\\                 + + + + +                         0 . 0
     /  \\      --->      + 0 - 0 +   --- look up at --->   .4 1 .4     c = clip(1/2 - d, 0, 1),
    /____\\    (once)     + 0 0 0 +     pixel centres       .2 .5 .2    d: distance in pixels

A distance table is independent of pixels: one table serves every size, place and picture width, and a thing that moves
by a hundredth of a pixel changes the picture accordingly.

Lengths are picture widths, x runs right and y runs down from the upper left corner; a shape lives in [-1, 1]
and is scaled by its radius.
"""

from functools import lru_cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross", "ring", "moon", "heart", "star")
COLOURS = {
    "red": (235, 25, 30), "green": (30, 200, 50), "blue": (30, 70, 245), "yellow": (240, 230, 30),
    "cyan": (35, 215, 225), "white": (240, 240, 240), "purple": (190, 30, 200), "orange": (250, 120, 15),
}  # fmt: skip
_REACH, _CELLS = 1.5, 192  # a table covers [-1.5, 1.5]: a soft edge around things of 1 pixel radius or more


def outline(shape: str) -> list[np.ndarray]:
    """The closed polygons, each (points, 2), that bound a shape inside [-1, 1] (by the even-odd rule)."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], -1)
    if shape == "circle":
        return [0.95 * circle]
    if shape == "square":
        return [0.85 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])]
    if shape == "triangle":
        return [np.array([[0, -1], [1, 0.85], [-1, 0.85]])]
    if shape == "cross":
        w = 0.33
        corner = np.array([[w, -1], [w, -w], [1, -w]])
        return [
            np.concatenate(
                [corner @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
            )
        ]
    if shape == "ring":
        return [circle, 0.52 * circle]
    if (
        shape == "moon"
    ):  # a disc less a smaller one that starts right of its middle; both pass through the horns
        horn, centre = np.deg2rad(50), 0.75
        x, y = np.cos(horn) - centre, np.sin(horn)
        back = np.linspace(horn, 2 * np.pi - horn, 48)
        cut = np.linspace(2 * np.pi - np.arctan2(y, x), np.arctan2(y, x), 34)[1:-1]
        outer = np.stack([np.cos(back), np.sin(back)], -1)
        inner = np.stack([centre + np.hypot(x, y) * np.cos(cut), np.hypot(x, y) * np.sin(cut)], -1)
        return [np.concatenate([outer, inner]) + [0.15, 0]]
    if shape == "heart":
        x, y = (
            16 * np.sin(turn) ** 3,
            13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn),
        )
        return [np.stack([x / 16.5, (-y - 2.5) / 15], -1)]
    if shape == "star":
        angle = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2, 0.46, 1.05)
        return [np.stack([radius * np.cos(angle), 0.05 + radius * np.sin(angle)], -1)]
    raise KeyError(shape)


def signed_distance(points: np.ndarray, polygons: list[np.ndarray]) -> np.ndarray:
    """Distance of points (n, 2) from the nearest edge of the polygons, (n,), negative inside."""
    nearest, inside = np.full(len(points), np.inf), np.zeros(len(points), bool)
    for polygon in polygons:
        for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            from_a, edge = points - a, b - a
            along = np.clip(from_a @ edge / (edge @ edge), 0, 1)
            nearest = np.minimum(nearest, ((from_a - along[:, None] * edge) ** 2).sum(-1))
            spans = (a[1] > points[:, 1]) != (b[1] > points[:, 1])  # a ray to the right crosses this edge
            inside ^= spans & ((from_a[:, 0] * edge[1] < from_a[:, 1] * edge[0]) != (edge[1] < 0))
    return np.where(inside, -1, 1) * np.sqrt(nearest)


@lru_cache
def distance_tables() -> np.ndarray:
    """The distance tables of all SHAPES, (shapes, cells + 1, cells + 1) float32, in units of the radius."""
    axis = np.linspace(-_REACH, _REACH, _CELLS + 1)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    tables = [signed_distance(points, outline(shape)) for shape in SHAPES]
    return np.stack(tables).reshape(len(SHAPES), _CELLS + 1, _CELLS + 1).astype(np.float32)


def paint(frames: np.ndarray, shape: np.ndarray, colour: np.ndarray, centre: np.ndarray, radius: np.ndarray,
          opacity: np.ndarray, photos: np.ndarray | None = None) -> None:  # fmt: skip
    """Paints one thing over each clip, in place.

    frames (b, f, H, H, 3) uint8; shape (b,) index into SHAPES; colour (b, 3), 0..255; centre (b, f, 2) and
    radius (b, f) in picture widths; opacity (b, f), 0..1. Parts outside the picture are not drawn.
    photos (b, k, k), 0..1, are drawn instead of the shapes, as light of that colour.
    """
    size = frames.shape[2]
    rows, columns, u, v = patch(size, centre, radius)
    if photos is None:
        distance = look_up(distance_tables(), shape, u / _REACH, v / _REACH)
        cover = np.clip(0.5 - distance * (radius * size).astype(np.float32)[..., None, None], 0, 1)
    else:
        cover = look_up(photos, np.arange(len(photos)), u, v)
    cover = cover * opacity.astype(np.float32)[..., None, None]
    blend(frames, rows, columns, cover, colour.astype(np.float32)[:, None, None, None, :])


def patch(size: int, centre: np.ndarray, radius: np.ndarray):
    """The smallest square of pixels, equal for all frames, around each thing.

    Returns rows and columns (b, f, p), and the coordinates u (x) and v (y) of the pixel centres in radii.
    """
    p = min(int(np.ceil(2 * radius.max() * size)) + 2, size)
    corner = np.clip(np.floor(centre * size - p / 2 + 0.5), 0, size - p).astype(np.int64)  # (b, f, 2)
    pixel = corner[..., None] + np.arange(p)  # (b, f, 2, p)
    place = ((pixel + 0.5) / size - centre[..., None]) / radius[..., None, None]
    return pixel[:, :, 1], pixel[:, :, 0], place[:, :, 0], place[:, :, 1]


def look_up(tables: np.ndarray, which: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear samples (b, f, p, p) of the tables (n, k, k), which (b,) of them, at x = u, y = v (b, f, p).

    The corners of a table are at -1 and 1; beyond them its edge goes on.
    """
    k = tables.shape[-1]
    x, y = (np.clip((w + 1) * ((k - 1) / 2), 0, k - 1.001) for w in (u, v))
    column, row = x.astype(np.int64), y.astype(np.int64)
    x, y = (x - column).astype(np.float32)[:, :, None, :], (y - row).astype(np.float32)[:, :, :, None]
    at = (which[:, None, None] * k + row)[..., None] * k + column[:, :, None, :]
    flat = tables.reshape(-1)
    upper = flat[at] * (1 - x) + flat[at + 1] * x
    lower = flat[at + k] * (1 - x) + flat[at + k + 1] * x
    return upper * (1 - y) + lower * y


def blend(
    frames: np.ndarray, rows: np.ndarray, columns: np.ndarray, cover: np.ndarray, colour: np.ndarray
) -> None:
    """frames <- frames + cover (colour - frames) on the patch of each frame, in place, rounded."""
    b, f, size = frames.shape[:3]
    if not frames.flags.c_contiguous:  # its reshape would be a copy, and nothing would be drawn
        raise ValueError(
            "expected frames that lie in memory one after another, found a strided view: copy it first"
        )
    flat = frames.reshape(b * f * size * size, 3)
    first = (np.arange(b * f) * size * size).reshape(b, f, 1, 1)
    at = first + rows[..., :, None] * size + columns[..., None, :]  # (b, f, p, p)
    under = flat[at].astype(np.float32)
    flat[at] = under + cover[..., None] * (colour - under) + np.float32(0.5)
