"""Picture sheets: many pictures of one size as one WebP, and back.

    pictures (n H W 3)  ── atlas ──►  ▣▣▣▣  one file, nearly square, and its layout, a small dictionary
                        ◄── cut ───   ▣▣▣▣
"""

import io
import math

import numpy as np
from einops import rearrange

from minit2v.errors import UserError

LONGEST_SIDE = 16383  # pixels; the limit of the WebP format
MOST_PIXELS = 2**26  # of a sheet that is cut, unless its reader expects less


def atlas(pictures: np.ndarray, quality: int | None = None, smallest: bool = False) -> tuple[bytes, dict]:
    """Many pictures of one size as one WebP.

    Args:
        pictures: uint8 (n, H, W, 3), or (n, H, W) for grey.
        quality: None loses nothing, and a browser can cut the sheet (`openAtlas` of lab.js); 0 to 100 is smaller and
            loses a little. Each colour is then a grey tile of its own, because WebP halves the resolution of colours.
        smallest: look longer for a way to lose nothing: about seven times as long, for a tenth less.
    Returns:
        (bytes, layout): layout has width, height, columns and count of the tiles, and `apart`, the number of tiles that
        make a picture. Tile i is in row i // columns, column i % columns.
    Raises UserError for another dtype or shape, and for more pixels than one WebP can hold.
    """
    from PIL import Image

    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or pictures.shape[3:] not in ((), (3,)):
        raise UserError(f"atlas: expected uint8 (n, H, W[, 3]), found {pictures.dtype} {pictures.shape}")
    apart = 3 if quality is not None and pictures.ndim == 4 else 1
    if apart == 3:
        pictures = rearrange(pictures, "n H W c -> (n c) H W")
    n, H, W = pictures.shape[:3]
    columns = min(n, max(1, round(math.sqrt(n * H / W))))  # nearly square
    rows = -(-n // columns)
    if max(columns * W, rows * H) > LONGEST_SIDE:
        raise UserError(f"atlas: expected a picture of at most {LONGEST_SIDE} pixels a side, found "
                        f"{columns * W}x{rows * H} for {n} tiles of {W}x{H}; show fewer steps or frames")
    blank = np.zeros((rows * columns - n, *pictures.shape[1:]), np.uint8)
    sheet = rearrange(np.concatenate([pictures, blank]), "(r q) H W ... -> (r H) (q W) ...", q=columns)
    if quality is None:
        options = {"lossless": True} | ({"quality": 100, "method": 6} if smallest else {})
    else:
        options = {"quality": quality, "method": 6}
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", **options)
    return file.getvalue(), {"width": W, "height": H, "columns": columns, "count": n, "apart": apart}


def cut(data: bytes, layout: dict, most: int = MOST_PIXELS) -> np.ndarray:
    """The pictures uint8 (n, H, W, 3) of what `atlas` made; grey ones have three equal colours.

    Raises ValueError, before anything is unpacked, for a sheet that is not as its layout says, or has more than `most`
    pixels.
    """
    from PIL import Image

    W, H, columns, count, apart = (layout.get(key, 1) for key in ("width", "height", "columns", "count", "apart"))
    if not all(isinstance(size, int) and size > 0 for size in (W, H, columns, count)) or apart not in (1, 3):
        raise ValueError(f"it has pictures in the layout {layout!r:.100}")
    size = columns * W, -(-count // columns) * H
    if math.prod(size) > most:
        raise ValueError(f"it has pictures of {size[0]}x{size[1]} pixels together")
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
        if image.size != size:
            raise ValueError(f"pictures of {image.size[0]}x{image.size[1]} pixels instead of {size[0]}x{size[1]}")
        sheet = np.asarray(image.convert("L" if apart == 3 else "RGB"))
    tiles = rearrange(sheet, "(r H) (q W) ... -> (r q) H W ...", H=H, q=columns)[:count]
    return np.ascontiguousarray(rearrange(tiles, "(n c) H W -> n H W c", c=3) if apart == 3 else tiles)
