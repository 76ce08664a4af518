"""Pictures made of pixels: beside and above one another, with titles, still or moving, always with a description.

    Picture ──display──► the PNG                          everywhere, also where nothing else is shown
                         ▸ in words / play · in words     its description and what moves, for who opens it
"""

import base64
import html
import io

import numpy as np
import torch

from minit2v.errors import UserError
from minit2v.pixels import to_pixels
from minit2v.video import Clip

WIDEST = 900  # pixels
GAP = 4  # white pixels between pictures
LETTERS = 13  # height of a title, pixels


class Still:
    """A PNG with its description. Attributes: `png` bytes, `alt` text, `size` (width, height) in pixels."""

    def __init__(self, png, alt):
        from PIL import Image

        if not (isinstance(alt, str) and alt.strip()):
            raise UserError(f"alt: expected a sentence that says what the picture shows, found {alt!r}")
        self.png, self.alt = png, alt
        with Image.open(io.BytesIO(png)) as image:
            self.size = image.size

    def __repr__(self):
        return self.alt

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png).decode("ascii"), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt, "width": self.size[0], "height": self.size[1]}}


class InWords:
    """HTML below a picture, closed at first: what it shows, in words, and what moves, an animated PNG, if there is one.

    JupyterLab and GitHub do not tell a reader the description in the metadata of a PNG, and no frontend can stop an
    animation. So what moves waits until somebody opens it, and stops when it is closed. Without a description it is nothing.
    """

    def __init__(self, alt="", moving=None):
        self.alt, self.moving = html.escape(alt), moving

    def __repr__(self):
        return ""

    def _repr_mimebundle_(self, include=None, exclude=None):
        if not self.alt:
            return {"text/plain": ""}
        title, played = "in words", ""
        if self.moving is not None:
            source = "data:image/png;base64," + base64.b64encode(self.moving).decode("ascii")
            title, played = "play · in words", f'<img alt="" src="{source}">'
        return {"text/html": f"<details><summary>{title}</summary>{played}<p>{self.alt}</p></details>", "text/plain": ""}


class Picture(Still):
    """A picture that is displayed with its description below and, if it has `moving`, an animated PNG."""

    def __init__(self, png, alt, moving=None):
        super().__init__(png, alt)
        self.moving = moving

    def _ipython_display_(self):
        with_words(self._repr_mimebundle_(), self.alt, self.moving)


def with_words(bundle, alt, moving=None):
    """Display a picture, given as its data and metadata, and `InWords` below it."""
    from IPython.display import display

    data, metadata = bundle
    display(data, metadata=metadata, raw=True)
    display(InWords(alt, moving))


def pixels(images):
    """uint8 pictures (…, H, W, 3) of a `Clip`, of uint8 arrays, or of floats in [-1, 1] (…, 3, H, W) or (…, H, W, 3).

    A picture (H, W) becomes grey: floats from their least (black) to their greatest (white).

    >>> pixels(np.array([[[-1.0, 0.0, 1.0]]])).tolist()
    [[[0, 128, 255]]]
    """
    images = images.pixels if isinstance(images, Clip) else images
    if hasattr(images, "detach"):
        images = images.detach().float().cpu() if images.is_floating_point() else images.cpu()
    images = np.asarray(images)
    if images.ndim == 2:
        if images.dtype != np.uint8:
            low, high = float(images.min()), float(images.max())
            images = ((images - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        return np.repeat(images[..., None], 3, axis=-1)
    if images.ndim >= 3 and images.shape[-1] != 3 and images.shape[-3] == 3:
        images = np.moveaxis(images, -3, -1)  # (… 3 H W) -> (… H W 3)
    if images.ndim < 3 or images.shape[-1] != 3:
        raise UserError(f"expected pictures (…, H, W, 3) or (…, 3, H, W), found {images.shape}")
    if images.dtype == np.uint8:
        return images
    planes = np.ascontiguousarray(np.moveaxis(images, -1, -3))  # (… H W 3) -> (… 3 H W)
    return to_pixels(torch.from_numpy(planes)).numpy()


def fitted(images, beside, most=4):
    """uint8 pictures (n, H, W, 3) as large as `beside` of them fit: enlarged a whole number of times, or reduced."""
    from PIL import Image

    H, W = images.shape[1:3]
    room = WIDEST // beside - GAP
    scale = min(most, room // W)
    if scale >= 1:
        return images.repeat(scale, axis=1).repeat(scale, axis=2)  # every pixel stays visible as a square
    size = room, max(1, H * room // W)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])


def titled(image, title):
    """The picture with a line of text above it, cut where the picture ends."""
    return np.concatenate([line_of_text(title, image.shape[1]), image]) if title else image


def line_of_text(text, width=None):
    """A line of text as a picture, black on white; as wide as it needs if no width is given."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(LETTERS)
    if not str(text).isascii():  # the default has boxes for what English does not need
        from matplotlib import get_data_path

        font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", LETTERS)
    line = Image.new("RGB", (width or round(font.getlength(str(text))) + 2, LETTERS + 5), "white")
    ImageDraw.Draw(line).text((0, 1), str(text), fill="black", font=font)
    return np.asarray(line)


def row(images):
    """Pictures from left to right, their upper edges on one line."""
    highest = max(image.shape[0] for image in images)
    padded = [_padded(image, (0, highest - image.shape[0]), (0, GAP)) for image in images]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def stack(images):
    """Pictures from top to bottom, their left edges on one line."""
    widest = max(image.shape[1] for image in images)
    return np.concatenate([_padded(image, (0, GAP), (0, widest - image.shape[1])) for image in images])[:-GAP]


def encoded(frames, fps=1):
    """PNG of one picture uint8 (H, W, 3), animated and looping if there are several."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    movement = {"save_all": True, "append_images": others, "duration": 1000 / fps, "loop": 0} if others else {}
    first.save(file, "PNG", optimize=True, **movement)
    return file.getvalue()


def _padded(image, height, width):
    return np.pad(image, (height, width, (0, 0)), constant_values=255)
