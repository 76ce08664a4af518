"""Static pictures of the widgets: tiles in rows and columns, with a few words around them.

              top[0]  top[1]  …
    left[0]   tile    tile
    left[1]   tile    tile      uint8, on white, nothing smoothed
"""

import numpy as np

from minit2v.lab.pictures import encoded, line_of_text, row, stack
from minit2v.lab.widgets import figures

MOST_BYTES = 150_000  # of a static picture: notebooks hold several and stay below 1.5 MB
LIMIT = 3.0  # latents and noise have about unit variance: colours end at three standard deviations, as in latents.js


def channels(latents):
    """Latents float (c, h, w) as tiles of colour, nearly in a square: blue below 0, white, orange above; uint8 RGB.

    >>> channels(np.zeros((4, 8, 8))).shape
    (16, 16, 3)
    """
    tiles = (figures.diverging()(0.5 + latents / (2 * LIMIT))[..., :3] * 255).round().astype(np.uint8)
    columns = int(np.ceil(len(tiles) ** 0.5))
    blank = np.full((-len(tiles) % columns, *tiles.shape[1:]), 255, np.uint8)
    return np.vstack([np.hstack(part) for part in np.split(np.concatenate([tiles, blank]), -(-len(tiles) // columns))])


def enlarge(pictures, side):
    """uint8 (…, H, W, 3), each pixel repeated a whole number of times, so that the longer side is at most `side`."""
    times = max(1, side // max(pictures.shape[-3:-1]))
    return pictures.repeat(times, axis=-3).repeat(times, axis=-2)


def sheet(rows, top, left):
    """Tiles with a text above each column and before each row, as one picture uint8 (H, W, 3).

    >>> sheet(np.zeros((2, 3, 32, 32, 3), np.uint8), ["a", "b", "c"], ["first", "second"]).shape[0]
    90
    """
    margin = max(line_of_text(text).shape[1] for text in left)
    head = [line_of_text("", margin)] + [line_of_text(text, tile.shape[1]) for text, tile in zip(top, rows[0])]
    return stack([row(head)] + [row([line_of_text(text, margin), *tiles]) for text, tiles in zip(left, rows)])


def moving(count, make):
    """The pictures make(0), …, make(count - 1): all, or as many as a file of 150 kB has room for; at least one.

    Returns uint8 (n, H, W, 3), or (H, W, 3) of the middle one.
    """
    pictures = np.stack([make(i) for i in range(count)])
    for every in (1, 2, 4):
        if len(pictures[::every]) > 1 and len(encoded(pictures[::every])) <= MOST_BYTES:
            return pictures[::every]
    return pictures[count // 2]

