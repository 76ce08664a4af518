"""Picture sheets: many pictures of one size as one lossless WebP, and back."""

import io
import math

import numpy as np

from minit2v.errors import UserError

LONGEST_SIDE = 16383  # pixels; the limit of the WebP format


def atlas(pictures):
    """Many pictures of one size as one lossless WebP, which a browser decodes at once and cuts itself.

    Args:
        pictures: uint8 (n, H, W, 3), or (n, H, W) for grey.
    Returns:
        (bytes, layout): layout has width, height, columns and count of the tiles; tile i is in row i // columns,
        column i % columns. Hand both to `openAtlas` of lab.js.
    Raises UserError for another dtype or shape, and for more pixels than one WebP can hold.
    """
    from PIL import Image

    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or pictures.shape[3:] not in ((), (3,)):
        raise UserError(f"atlas: expected uint8 (n, H, W[, 3]), found {pictures.dtype} {pictures.shape}")
    n, H, W = pictures.shape[:3]
    columns = min(n, max(1, round(math.sqrt(n * H / W))))  # nearly square
    rows = -(-n // columns)
    if max(columns * W, rows * H) > LONGEST_SIDE:
        raise UserError(f"atlas: expected a picture of at most {LONGEST_SIDE} pixels a side, found "
                        f"{columns * W}x{rows * H} for {n} tiles of {W}x{H}; show fewer steps or frames")
    sheet = np.zeros((rows * columns, *pictures.shape[1:]), np.uint8)
    sheet[:n] = pictures
    sheet = sheet.reshape(rows, columns, *pictures.shape[1:]).swapaxes(1, 2)  # (r c H W 3) -> (r H c W 3)
    layout = {"width": W, "height": H, "columns": columns, "count": n}
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * H, columns * W, *pictures.shape[3:])).save(file, "WEBP", lossless=True)
    return file.getvalue(), layout


def cut(data: bytes, layout: dict) -> np.ndarray:
    """The pictures uint8 (n, H, W, 3) of what `atlas` made."""
    from PIL import Image

    width, columns = layout["width"], layout["columns"]
    with Image.open(io.BytesIO(data)) as image:
        sheet = np.asarray(image.convert("RGB"))
    sheet = sheet.reshape(-1, layout["height"], columns, width, 3).swapaxes(1, 2)  # (r H c W 3) -> (r c H W 3)
    return sheet.reshape(-1, *sheet.shape[2:])[: layout["count"]]
