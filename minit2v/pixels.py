"""Pixels as files and screens have them, uint8, and as networks have them, from -1 to 1.

    uint8 (… H W 3)  0 … 255   ── to_signed ──►  float32 (… 3 H W)  -1 … 1
                               ◄── to_pixels ──
"""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minit2v.errors import UserError
from minit2v.ranges import Array, Size, public

Frames = Annotated[np.ndarray, Array("f H W 3", "uint8")]
Clips = Annotated[np.ndarray, Array("b f H W 3", "uint8")]


def to_signed(pixels: Tensor | np.ndarray) -> Tensor:
    """uint8 (…, H, W, 3) -> float32 (…, 3, H, W) in [-1, 1].

    >>> to_signed(np.array([[[0, 51, 255]]], np.uint8)).flatten()
    tensor([-1.0000, -0.6000,  1.0000])
    """
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(np.require(pixels, requirements="CW"))  # a copy of what torch could not share
    return pixels.movedim(-1, -3).float() / 127.5 - 1.0  # eq (1.1) · DDPM, section 3.3


def to_pixels(frames: Tensor, rounded: bool = True) -> Tensor:
    """(…, 3, H, W) in [-1, 1] -> uint8 (…, H, W, 3), the inverse of `to_signed`; what lies outside is clipped.

    With `rounded` False fractions are cut off, as the release does with its clips.

    >>> to_pixels(torch.tensor([-2.0, -0.6, 0.999]).reshape(3, 1, 1)).flatten()
    tensor([  0,  51, 255], dtype=torch.uint8)
    """
    shares = (frames.float() * 0.5 + 0.5).clamp(0, 1) * 255  # eq (1.2) · DDPM, section 3.3
    numbers = (shares.round() if rounded else shares).to(torch.uint8)
    return numbers.movedim(frames.ndim - 3, -1)  # counted from the front, as torch's exporter to ONNX needs it


def evenly(length: int, n: int) -> list[int]:
    """At most n indices below `length`, evenly from the first to the last.

    >>> evenly(16, 4), evenly(3, 8), evenly(16, 1)
    ([0, 5, 10, 15], [0, 1, 2], [0])
    """
    return np.unique(np.linspace(0, length - 1, min(n, length)).round().astype(int)).tolist()


@public
def square(pixels: Frames, size: Size, crop: bool = True) -> np.ndarray:
    """Frames uint8 (f, H, W, 3) -> (f, size, size, 3): the centre square, or all of the frame with crop=False, resized.

    Bicubic with antialias, as Pillow and clean-fid do it, and rounded to uint8: full-scale metrics are defined on it.
    Frames of that size stay as they are.

    >>> square(np.full((2, 24, 32, 3), 7, np.uint8), 8).shape
    (2, 8, 8, 3)
    """
    if crop:
        side, (top, left) = min(pixels.shape[1:3]), ((n - min(pixels.shape[1:3])) // 2 for n in pixels.shape[1:3])
        pixels = pixels[:, top : top + side, left : left + side]
    frames = bicubic(torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2), size)  # (f H W 3) -> (f 3 H W)
    return frames.permute(0, 2, 3, 1).numpy()  # (f 3 size size) -> (f size size 3)


def bicubic(frames: Tensor, size: int) -> Tensor:
    """Frames (f, 3, H, W) -> (f, 3, size, size), bicubic with antialias, in their dtype."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    return resize(frames, [size, size], InterpolationMode.BICUBIC, antialias=True)


@public
def fitted(frames: Frames, height: Size, width: Size, fit: str = "crop") -> np.ndarray:
    """Frames uint8 (f, H, W, 3) at another size (f, height, width, 3), without distortion.

    "crop" fills the new size and cuts off what is beyond it, in equal parts on both sides; "pad" shows all of the frame
    with black bars. Raises UserError for another `fit`.

    >>> fitted(np.full((1, 20, 40, 3), 9, np.uint8), 10, 10, "pad")[0, :, 5, 0].tolist()
    [0, 0, 9, 9, 9, 9, 9, 0, 0, 0]
    """
    if fit not in ("crop", "pad"):
        raise UserError(f"fit: expected crop or pad, found {fit!r}")
    H, W = frames.shape[1:3]
    if (H, W) == (height, width):
        return frames
    if fit == "crop":  # before the frame is resized: a long thin one would fill the memory
        scale, (h, w) = max(height / H, width / W), (height, width)
        rows, columns = max(1, round(height / scale)), max(1, round(width / scale))
        top, left = (H - rows) // 2, (W - columns) // 2
        frames = frames[:, top : top + rows, left : left + columns]
    else:
        scale = min(height / H, width / W)
        h, w = max(1, round(H * scale)), max(1, round(W * scale))
    signed = to_signed(frames)
    if signed.shape[-2:] != (h, w):
        signed = F.interpolate(signed, (h, w), mode="bilinear", antialias=True)
    top, left = (height - h) // 2, (width - w) // 2
    return to_pixels(F.pad(signed, (left, width - w - left, top, height - h - top), value=-1.0)).numpy()
