"""Static pictures of the widgets: tiles in rows and columns, with a few words around them.

              top[0]  top[1]  …
    left[0]   tile    tile
    left[1]   tile    tile      everything uint8, white paper, nothing smoothed
"""

import numpy as np

from minit2v.errors import UserError

PAPER, INK, TEXT = 255, (60, 60, 60), 11  # grey, colour, pixels of height


def enlarge(pictures, side):
    """uint8 (…, H, W, 3), every pixel repeated so that the longer side is about `side`, never less than it was."""
    times = max(1, side // max(pictures.shape[-3:-1]))
    return pictures.repeat(times, axis=-3).repeat(times, axis=-2)


def sheet(rows, top=(), left=(), gap=4):
    """Tiles of equal size on white paper: a picture uint8 (H, W, 3).

    Args:
        rows: uint8 (r, c, H, W, 3), or a list of r such rows that differ in size from each other.
        top, left: c texts above the columns, r texts before the rows.

    >>> sheet(np.zeros((2, 3, 8, 8, 3), np.uint8)).shape
    (20, 32, 3)
    """
    if (top and len(top) != len(rows[0])) or (left and len(left) != len(rows)):
        raise UserError(f"sheet: expected {len(rows[0])} texts on top and {len(rows)} on the left, "
                        f"found {len(top)} and {len(left)}")
    margin = max((text_width(text) for text in left), default=-gap) + gap
    head = TEXT + 2 * gap if top else 0
    bands = [np.concatenate([np.pad(tile, ((0, gap), (0, gap), (0, 0)), constant_values=PAPER) for tile in row], 1)
             for row in rows]
    width = max(band.shape[1] for band in bands) - gap
    paper = np.full((head + sum(len(band) for band in bands) - gap, margin + width, 3), PAPER, np.uint8)
    notes, y = [], head
    for i, (row, band) in enumerate(zip(rows, bands)):
        paper[y:y + len(band), margin:] = band[:len(paper) - y, :-gap]
        if left:
            notes.append((0, y + (len(row[0]) - TEXT) // 2, left[i]))
        y += len(band)
    notes += [(margin + i * (rows[0][0].shape[1] + gap), gap, text) for i, text in enumerate(top)]
    return write(paper, notes)


def write(picture, notes):
    """The picture with texts on it: notes are (x, y, text) of the upper left corner, in pixels."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    for x, y, text in notes:
        ImageDraw.Draw(image).text((x, y), text, fill=INK, font=_font(), anchor="lt")
    return np.asarray(image)


def text_width(text):
    """Pixels that a text takes."""
    return int(np.ceil(_font().getlength(text)))


def _font():
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)


def spread(length, n):
    """At most n whole numbers, evenly from 0 to length - 1.

    >>> spread(16, 4)
    [0, 5, 10, 15]
    """
    return np.unique(np.linspace(0, length - 1, min(n, length)).round().astype(int)).tolist()
