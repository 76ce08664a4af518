"""Drawings of notebook 01: clips as blocks with an axis for time, cut open, and cut apart in the two ways of a network.

    cut_open     the frames of a clip behind one another, those in front cut off above a row
    cut_apart    small blocks of numbers: whole, as a pile of frames, and as a bundle of pixels through time

Time runs backwards into the picture, to the upper right. Every drawing is on white, so it can be read on any page.
"""

from itertools import product

import numpy as np

from minit2v.lab.pictures import Picture, encoded, line_of_text, pixels, row, stack, titled

SLANT = 0.75  # pixels to the right for each pixel upwards, along time
CLIPS = (np.array([0, 114, 178]), np.array([213, 94, 0]))  # blue and orange of Okabe and Ito, as in lab.plots
SIDE, DEPTH, APART = 34, 18, 20  # of a small block: its front, how far it goes up to the right; between parts
FINE = 3  # a drawing is made so many times larger, then reduced


def cut_open(clip, rows, scale=3, step=8, *, alt):
    """The block of a clip without what lies above a row, once for each row: its upper face is that row of every frame.

    Args:
        clip: a `Clip`, or pixels (f, H, W, 3).
        rows: {title: the number of a row}; 0 leaves the block whole.
        scale: pixels of the drawing for a pixel of a frame. step: for a frame.
    """
    frames = pixels(clip)
    return Picture(encoded([_beside(titled(_opened(frames[:, first:], scale, step), title) for title, first in rows.items())]),
                   alt)  # fmt: skip


def _opened(frames, scale, step):
    """Frames (f, h, w, 3) as a block with the names of its axes."""
    from PIL import Image, ImageDraw

    frames = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    f, height, width, _ = frames.shape
    depth, left, below = f * step, 50, 20
    across = round(SLANT * depth)
    drawing = np.full((depth + height + below, left + width + across + 2, 3), 255, np.uint8)
    for back in reversed(range(depth)):  # from the last frame to the first, each hiding what lies behind it
        y, x = depth - back, left + round(SLANT * back)
        drawing[y : y + height, x : x + width] = frames[back // step]
    page = Image.fromarray(drawing)
    front, far = [(left, depth), (left + width, depth)], [(left + across, 0), (left + across + width, 0)]
    low = [(x, y + height) for x, y in (front[1], far[1])]
    for corners, light in ((front + far[::-1], 0.15), ([front[1], far[1], low[1], low[0]], 0.3)):  # the other two faces
        mask = Image.new("L", page.size)
        ImageDraw.Draw(mask).polygon(corners, fill=round(255 * light))
        page.paste("white", mask=mask)
        ImageDraw.Draw(page).polygon(corners, outline="#aaaaaa")
    names = {"row": (10, depth + height // 2 - 8), "column": (left + width // 2 - 22, depth + height + 1),
             "frame": (left + width + across // 2 + 12, depth + height - depth // 2)}  # fmt: skip
    for name, place in names.items():
        page.paste(Image.fromarray(line_of_text(name)), place)
    return np.asarray(page)


def cut_apart(b, f, h, w, *, alt):
    """Clips as blocks, three times: whole, cut into frames, and cut into pixels through time.

    Each small block is one pixel of one frame with all its channels. The hue tells the clip, the lightness the frame.

    Args:
        b, f, h, w: how many clips (one or two), frames, rows and columns.
    """
    parts = {f"{b} clips, b c f h w": (0, 0), f"{b * f} frames, (b f) c h w": (APART, 0),
             f"{b * h * w} pixels in time, (b h w) f c": (0, APART)}  # fmt: skip
    panels = []
    for title, gaps in parts.items():
        blocks = [_block(CLIPS[i], f, h, w, *gaps) for i in range(b)]
        panels.append(stack([line_of_text(title), _space(10), *(part for one in blocks for part in (one, _space(14)))]))
    return Picture(encoded([_beside(panels)]), alt)


def _beside(drawings):
    return row([part for one in drawings for part in (one, _space(1, 26))][:-1])


def _space(height, width=1):
    return np.full((height, width, 3), 255, np.uint8)


def _block(hue, f, h, w, in_time, in_space):
    """One clip of small blocks with gaps between frames (in_time) or between pixels (in_space), in pixels."""
    from PIL import Image, ImageDraw

    side, deep = SIDE + in_space, DEPTH + in_time
    width, height = w * side + SLANT * f * deep + 2, h * side + f * deep + 2
    page = Image.new("RGB", (round(FINE * width), round(FINE * height)), "white")
    pen = ImageDraw.Draw(page)
    for t, y, x in product(reversed(range(f)), reversed(range(h)), range(w)):  # what is in front comes last
        colour = hue + (235 - hue) * 0.75 * t / max(1, f - 1)
        left, top = 1 + x * side + SLANT * t * deep, 1 + (f - 1 - t) * deep + DEPTH + y * side
        _cube(pen, left, top, colour)
    return np.asarray(page.resize((round(width), round(height)), Image.Resampling.LANCZOS))


def _cube(pen, left, top, colour):
    """A small block whose front begins at (left, top): its front, its upper face and its right face."""
    right, bottom, across = left + SIDE, top + SIDE, SLANT * DEPTH
    faces = {
        1.0: [(left, top), (right, top), (right, bottom), (left, bottom)],
        1.12: [(left, top), (left + across, top - DEPTH), (right + across, top - DEPTH), (right, top)],
        0.8: [(right, top), (right + across, top - DEPTH), (right + across, bottom - DEPTH), (right, bottom)],
    }
    for light, corners in faces.items():
        fill = tuple(int(c) for c in (colour * light).clip(0, 255))
        pen.polygon([(FINE * x, FINE * y) for x, y in corners], fill=fill, outline="white", width=FINE)
