"""Recordings: every step of a sampling run on disk, and a picture of the clip coming out of the noise.

    steps.npz   t (s,), x, eps, x0 (s, b, 4, f, h, w) float16
    strip.png   x0 decoded: a few of the s steps from top to bottom, a few of the f frames from left to right
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.flight import Flight  # noqa: F401
from minit2v.samplers import Step
from minit2v.video import check_output


def record(steps: Iterable[Step], folder: str | Path, decode: Callable[[Tensor], np.ndarray],
           rows: int = 6, columns: int = 8) -> Iterator[Step]:
    """The same steps again; after the last one they are written into `folder`.

    `decode` turns latents (b, 4, f, h, w) into pixels uint8 (b, f, H, W, 3), as `TextToVideo.decode` does.
    Several clips make `strip-1.png`, `strip-2.png`, ... Raises UserError at once for a folder that cannot be
    made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"expected a folder to record in, found {folder}: {error.strerror}") from None
    check_output(folder / "steps.npz", (".npz",))
    return _record(steps, folder, decode, rows, columns)


def _record(steps, folder, decode, rows, columns):
    kept = []
    for step in steps:
        kept.append(step)
        yield step
    arrays = {}
    for name in ("x", "eps", "x0"):
        arrays[name] = torch.stack([getattr(step, name) for step in kept]).half().cpu().numpy()
    with atomic(folder / "steps.npz") as path:
        np.savez_compressed(path, t=[step.t for step in kept], **arrays)
    _save_strips(kept, folder, decode, rows, columns)


def _save_strips(kept, folder, decode, rows, columns):
    from PIL import Image

    frames = _spread(kept[0].x0.shape[2], columns)
    pixels = np.stack([decode(kept[i].x0[:, :, frames]) for i in _spread(len(kept), rows)])
    strips = rearrange(pixels, "s b f H W c -> b (s H) (f W) c")
    for i, strip in enumerate(strips, 1):
        with atomic(folder / ("strip.png" if len(strips) == 1 else f"strip-{i}.png")) as path:
            Image.fromarray(strip).save(path)


def _spread(length, n):
    """At most n indices, evenly from first to last: _spread(16, 4) == [0, 5, 10, 15]."""
    return np.unique(np.linspace(0, length - 1, n).round().astype(int)).tolist()
