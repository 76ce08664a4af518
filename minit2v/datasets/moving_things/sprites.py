"""Photographs as moving things: 2,000 of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; MIT).

    fashion_mnist.webp (10 classes, 200 each, 28, 28)  --- blur, border --->  tables that `render.paint` draws

A photograph is light on black. It is drawn smaller than it is, so a moving one would flicker as its details fall
between the pixels: it is blurred first, in proportion to how much it shrinks.
"""

from functools import lru_cache

import numpy as np
from einops import rearrange

from minit2v.files import data_dir

CLASSES = (  # label 0 to 9
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
A_CLASS = 200
FOR_TRAINING = 160  # the first photographs of each class; the others are for validation and tests
_SIDE = 30  # 28 pixels and a black border of one


def photos(names: list[str], numbers: list[int], widths: np.ndarray) -> np.ndarray:
    """Photographs (b, 30, 30) float32 in 0..1: class, number, and how many pixels wide each will be drawn.

    >>> photos(["sneaker", "boot"], [0, 199], np.array([23.0, 14.0])).shape
    (2, 30, 30)
    """
    chosen = np.zeros((len(names), _SIDE, _SIDE), np.float32)
    chosen[:, 1:-1, 1:-1] = _all()[[CLASSES.index(name) for name in names], numbers]
    blur = np.stack([_blur(max(1, round(28 / width))) for width in widths])
    return blur @ chosen @ blur.transpose(0, 2, 1) / 255


@lru_cache
def _blur(width: int) -> np.ndarray:
    """The matrix (30, 30) that averages neighbours with the weights of a tent, `width` wide half-way up."""
    box = np.ones(width) / width
    tent = np.convolve(box, box)
    return sum(w * np.eye(_SIDE, k=k - width + 1) for k, w in enumerate(tent)).astype(np.float32)


@lru_cache
def _all() -> np.ndarray:
    from PIL import Image

    with Image.open(data_dir() / "fashion_mnist.webp") as sheet:  # 20 photographs in a row, 10 rows of each class
        return rearrange(np.asarray(sheet.convert("L")), "(k r h) (q w) -> k (r q) h w", k=len(CLASSES), h=28, w=28)
