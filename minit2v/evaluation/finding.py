"""Finds the one moving thing in a clip: whatever differs from the one colour that most of the clip has.

    clip ── pooled ──> 32 to 63 pixels across ── median_colour ──> background
                                    │
                                    └─ minus background ── locate ──> where it is ── mean_look ──> how it looks

The judge reads attributes from this, and `motion` measures how far the thing goes and whether it stays itself. Lengths
are in picture widths, so that one set of constants serves every picture size.
"""

import numpy as np

THRESHOLD = 40  # least distance of a thing from the background, grey levels
NOISE = 4  # the threshold is at least so many times the median distance from the background
WINDOW = 0.30  # half the side of the square in which a thing is looked for, widths
ALONE = 0.90  # least share of the pixels unlike the background that lie in the window
LEAST_AREA = 0.008  # of a thing, in pictures; a small thing covers 0.02 or more
GRID = 28  # points along the side of an aligned thing


def pooled(frames: np.ndarray) -> np.ndarray:
    """Frames (f, H, W, 3) uint8 as means over blocks of pixels (f, h, w, 3) float32, 0..255, until 32 to 63 pixels are
    left across: less noise, less work."""
    _, height, width, _ = frames.shape
    k = max(1, min(height, width) // 32)
    frames = frames[:, : height // k * k, : width // k * k].astype(np.uint16)
    rows = sum(frames[:, i::k] for i in range(k))
    return sum(rows[:, :, i::k] for i in range(k)).astype(np.float32) / k**2


def median_colour(clip: np.ndarray) -> np.ndarray:
    """The median colour (3,) of a clip (f, h, w, 3)."""
    return np.median(clip[:, ::2, ::2].reshape(-1, 3), axis=0)


def weights(difference: np.ndarray) -> np.ndarray:
    """Distance of each pixel from the background, zero below the threshold: differences (f, h, w, 3) -> (f, h, w)."""
    distance = np.sqrt(np.square(_smoothed(difference)).sum(-1))
    return np.where(distance > max(THRESHOLD, NOISE * np.median(distance)), distance, 0)


def locate(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the thing in each frame: differences from the background (f, h, w, 3) -> weight (f, h, w), centre (f, 2) as
    x and y in pixels, and whether it is present (f,).

    A window closes in on the centroid and weights outside it become zero, so that specks elsewhere do not pull.
    """
    f, h, w, _ = difference.shape
    weight = weights(difference)
    x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)
    centre = np.array([[w / 2, h / 2]] * f, np.float32)
    for half in (1.0, 1.3 * WINDOW, WINDOW, WINDOW):
        near_x = np.abs(x - centre[:, :1]) <= half * w
        near_y = np.abs(y - centre[:, 1:]) <= half * w
        inside = weight * (near_y[:, :, None] & near_x[:, None, :])
        mass = inside.sum((1, 2)) + 1e-6
        centre = np.stack([inside.sum(1) @ x, inside.sum(2) @ y], 1) / mass[:, None]  # eq (1.5) · image moments
    area = (inside > 0).mean((1, 2))
    present = (area > LEAST_AREA) & (area > ALONE * (weight > 0).mean((1, 2)))
    return inside, centre, present


def _smoothed(a: np.ndarray) -> np.ndarray:
    """Means over 3x3 pixels of (f, h, w, 3); the outermost pixels are repeated beyond the border."""
    a = np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    a = a[:, :-2] + a[:, 1:-1] + a[:, 2:]
    return (a[:, :, :-2] + a[:, :, 1:-1] + a[:, :, 2:]) / 9


def mean_look(cover: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Mean over frames of the thing moved to the middle: (f, h, w), (f, 2) -> (GRID²,).

    Bilinear sampling is a product with tent functions, one matrix for the rows and one for the columns.
    """
    _, h, w = cover.shape
    offset = np.linspace(-WINDOW, WINDOW, GRID, dtype=np.float32) * w
    columns, rows = (
        np.maximum(0, 1 - np.abs((centre[:, axis, None] + offset)[..., None] - np.arange(length, dtype=np.float32)))
        for axis, length in ((0, w), (1, h))
    )
    return (rows @ cover @ columns.transpose(0, 2, 1)).mean(0).reshape(-1)
