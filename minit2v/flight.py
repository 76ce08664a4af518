"""A flight: one sampling run in at most 3 MB, to be scrubbed step by step on any laptop, without the model.

    prompt, model, settings, fps        what was asked of whom
    timesteps, norms      (n)           every step of the run
    steps, frames         (s), (f)      which of its steps and frames are kept; the arrays below have these axes:
    x, eps, x0            s f c h w     latents, uint8, each step from its least to its greatest number
    preview               s f H W 3     x0 decoded, uint8, at most 64 pixels a side
    words, cross          s k f h w     how much each cell looks at each of the k words of the prompt
    temporal              s f f         how much each frame (row) looks at each frame (column)

The file is a numpy archive without pickles (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html);
the pictures in it are one WebP. What is kept of a long run: `recording.Plan`.
"""

import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange

from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.video import check_output

FORMAT = "minit2v flight 1"
LARGEST = 3_000_000  # bytes of a file
LATENTS = ("x", "eps", "x0")
ATTENTION = ("cross", "temporal")
TEXTS = ("prompt", "model", "settings", "fps", "words")  # what is written as JSON
QUALITY = 90  # of the WebP


@dataclass(eq=False)
class Flight:
    """What is kept of a run of n steps; s of them, and f of the clip's frames, have pictures and latents."""

    prompt: str
    model: str  # name of the preset
    settings: dict  # frames, height, width, steps, guidance, negative, seed, sampler, ...: numbers and texts
    fps: float  # of the kept frames
    timesteps: np.ndarray  # (n,) int64: the timestep t of every step, falling
    norms: dict  # "x", "eps", "x0" -> (n,) float32: root mean square of every step's latents; 1 for normal noise
    steps: np.ndarray  # (s,) int64: which of the n steps are kept, rising
    frames: np.ndarray  # (f,) int64: which of the clip's frames are kept, rising
    alpha_bar: np.ndarray  # (s,) float32: the share of the clip's variance before the step
    x: np.ndarray  # (s, f, c, h, w) uint8: latents after the step; `latents("x")` gives the numbers
    eps: np.ndarray  # likewise: the noise that the network saw in the latents before the step
    x0: np.ndarray  # likewise: the clip that it saw in them
    preview: np.ndarray  # (s, f, H, W, 3) uint8: x0 decoded, H and W at most 64
    words: list  # k words of the prompt; none if the run left no attention maps
    cross: np.ndarray  # (s, k, f, h, w) uint8: `attention("cross")` gives the numbers
    temporal: np.ndarray  # (s, f, f) uint8, or (s, 0, 0): `attention("temporal")` gives the numbers
    ranges: dict  # "x", "eps", "x0", "cross", "temporal" -> (s, 2) float32: what 0 and 255 mean in each step

    @property
    def t(self) -> np.ndarray:
        """(s,): the timesteps of the kept steps."""
        return self.timesteps[self.steps]

    def latents(self, name: str) -> np.ndarray:
        """"x", "eps" or "x0" as float32 (s, f, c, h, w), each number right within half of a 255th of its step's range."""
        return self._numbers(name, LATENTS)

    def attention(self, name: str) -> np.ndarray:
        """Shares 0..1 of attention, mean over heads: "cross" float32 (s, k, f, h, w), "temporal" float32 (s, f, f)."""
        return self._numbers(name, ATTENTION)

    def _numbers(self, name, known):
        if name not in known:
            raise UserError(f"expected one of {', '.join(known)}, found {name!r}")
        return unpacked(getattr(self, name), self.ranges[name])

    def save(self, path: str | Path) -> Path:
        """Write the flight to an .npz file and return its path. Raises UserError for a place that cannot be written."""
        path = check_output(path, (".npz",))
        texts = {"format": FORMAT, "pictures": self.preview.shape} | {name: getattr(self, name) for name in TEXTS}
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"norm_{name}": self.norms[name] for name in LATENTS}
        arrays |= {f"range_{name}": self.ranges[name] for name in LATENTS + ATTENTION}
        arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        arrays["pictures"] = np.frombuffer(_webp(self.preview), np.uint8)
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Flight":
        """The flight in an .npz file. Raises UserError for a missing, foreign or damaged one; executes nothing in it."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"expected an existing flight (.npz), found {path}")
        try:
            return _read(path)
        except Exception as error:  # a damaged archive fails in a dozen ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"expected a flight, found {path} damaged or of another kind: {reason}") from error


ARRAYS = {  # name -> dtype and axes in the file
    "timesteps": (np.int64, "n"), "steps": (np.int64, "s"), "frames": (np.int64, "f"), "alpha_bar": (np.float32, "s"),
    "x": (np.uint8, "sfchw"), "eps": (np.uint8, "sfchw"), "x0": (np.uint8, "sfchw"),
    "cross": (np.uint8, "skfhw"), "temporal": (np.uint8, "saa"),
}  # fmt: skip


def packed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (s, ...) as uint8 and the range of each step, (s, 2) float32: 0 is its least, 255 its greatest number."""
    values = values.astype(np.float32)
    axes = tuple(range(1, values.ndim))
    low, high = values.min(axes, initial=np.inf), values.max(axes, initial=-np.inf)
    ranges = np.stack([low, high], axis=1) if values.size else np.zeros((len(values), 2), np.float32)
    low, high = (end.reshape(-1, *[1] * len(axes)) for end in ranges.T)
    scaled = (values - low) / np.maximum(high - low, 1e-12) * 255
    return scaled.round().astype(np.uint8), ranges


def unpacked(values: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Inverse of `packed`, within half of a 255th of each step's range: float32 (s, ...)."""
    low, high = (end.reshape(-1, *[1] * (values.ndim - 1)) for end in ranges.T)
    return low + values * ((high - low) / np.float32(255))


def _webp(pictures: np.ndarray) -> bytes:
    """uint8 (s, f, H, W, 3) as one picture, nearly square, whose tiles run from left to right, then down."""
    from PIL import Image

    tiles = pictures.reshape(-1, *pictures.shape[2:])
    columns = _columns(len(tiles))
    sheet = np.zeros((-(-len(tiles) // columns) * columns, *tiles.shape[1:]), np.uint8)
    sheet[: len(tiles)] = tiles
    sheet = rearrange(sheet, "(r q) H W c -> (r H) (q W) c", q=columns)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=QUALITY, method=6)
    return file.getvalue()


def _columns(tiles: int) -> int:
    return math.ceil(math.sqrt(tiles))


def _pictures(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `_webp`."""
    from PIL import Image

    s, f, H, W, _ = shape
    columns = _columns(s * f)
    size = columns * W, -(-s * f // columns) * H
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
        if image.size != size:  # known before the pixels are unpacked
            raise ValueError(f"pictures of {image.size[0]}x{image.size[1]} pixels instead of {size[0]}x{size[1]}")
        sheet = np.asarray(image.convert("RGB"))
    tiles = rearrange(sheet, "(r H) (q W) c -> (r q) H W c", H=H, q=columns)
    return tiles[: s * f].reshape(shape)


def _read(path: Path) -> Flight:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, a flight at most {LARGEST:,}")
    with zipfile.ZipFile(path) as archive:
        unpacks_to = sum(member.file_size for member in archive.infolist())
    if unpacks_to > 2 * LARGEST:
        raise ValueError(f"it unpacks to {unpacks_to:,} bytes")
    with np.load(path, allow_pickle=False) as file:
        raw = dict(file)
    texts = json.loads(raw["texts"].tobytes())
    if texts["format"] != FORMAT:
        raise ValueError(f"its format is {texts['format']!r}, not {FORMAT!r}")
    return Flight(
        **{name: texts[name] for name in TEXTS}, **{name: raw[name] for name in ARRAYS},
        norms={name: raw[f"norm_{name}"] for name in LATENTS},
        ranges={name: raw[f"range_{name}"] for name in LATENTS + ATTENTION},
        preview=_pictures(raw["pictures"].tobytes(), tuple(texts["pictures"])),
    )  # fmt: skip
