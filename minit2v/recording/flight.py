"""A flight: one sampling run in at most 3 MB, to be scrubbed step by step on any laptop, without the model.

    prompt, model, settings, fps        what was asked of whom
    timesteps, norms      (n)           every step of the run
    steps, frames         (s), (f)      which of its steps and frames are kept; the arrays below have these axes:
    x, eps, x0            s f c h w     latents, uint8, from the least to the greatest number of a step
    preview               s f H W 3     x0 decoded, uint8, at most 64 pixels a side
    words, cross          s k f h w     how much each cell looks at each of k words of the prompt
    temporal              s f f         how much each frame (row) looks at each frame (column)

The file is a numpy archive without pickles (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html);
the pictures in it are one WebP. What is kept of a long run: `recording.plan`.
"""

import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from einops import rearrange

from minit2v.errors import UserError
from minit2v.files import atomic, find_recording
from minit2v.video import check_output

FORMAT = "minit2v flight 1"
LARGEST = 3_000_000  # bytes of a file
LATENTS = ("x", "eps", "x0")
ATTENTION = ("cross", "temporal")
TEXTS = {"prompt": str, "model": str, "settings": dict, "fps": (int, float), "words": list}  # written as JSON
ARRAYS = {  # name -> dtype and axes; an axis has one length in all of them
    "timesteps": (np.int64, "n"), "steps": (np.int64, "s"), "frames": (np.int64, "f"), "alpha_bar": (np.float32, "s"),
    "x": (np.uint8, "sfchw"), "eps": (np.uint8, "sfchw"), "x0": (np.uint8, "sfchw"), "preview": (np.uint8, "sfHW3"),
    "cross": (np.uint8, "skfhw"), "temporal": (np.uint8, "sff"),
}  # fmt: skip
QUALITY = 90  # of the WebP


@dataclass(eq=False)
class Flight:
    """What is kept of a run of n steps; s of them, and f of the clip's frames, have pictures and latents.

    Raises UserError for an array of another dtype or shape.
    """

    prompt: str
    model: str  # name of the preset
    settings: dict  # frames, height, width, steps, guidance, negative, seed, sampler, …: numbers and texts
    fps: float  # of the kept frames
    timesteps: np.ndarray  # (n,) int64: the timestep t of every step, falling
    norms: dict  # "x", "eps", "x0" -> (n,) float32: root mean square of every step's latents; 1 for normal noise
    steps: np.ndarray  # (s,) int64: which of the n steps are kept
    frames: np.ndarray  # (f,) int64: which of the clip's frames are kept
    alpha_bar: np.ndarray  # (s,) float32: the share of the clip's variance before the step
    x: np.ndarray  # (s, f, c, h, w) uint8: latents after the step; `latents("x")` gives the numbers
    eps: np.ndarray  # likewise: the noise that the network saw in the latents before the step
    x0: np.ndarray  # likewise: the clip that it saw in them
    preview: np.ndarray  # (s, f, H, W, 3) uint8: x0 decoded, H and W at most 64
    ranges: dict  # "x", "eps", "x0", "cross", "temporal" -> (s, 2) float32: what 0 and 255 mean in each step
    words: list = field(default_factory=list)  # k words of the prompt that have a map; none without attention
    cross: np.ndarray | None = None  # (s, k, f, h, w) uint8: `attention("cross")` gives the numbers
    temporal: np.ndarray | None = None  # (s, f, f) uint8: `attention("temporal")` gives the numbers

    def __post_init__(self):
        for name, kind in TEXTS.items():
            if not isinstance(getattr(self, name), kind):
                raise UserError(f"{name}: expected {kind}, found {getattr(self, name)!r:.40}")
        if not 0 < self.fps < math.inf or not all(isinstance(word, str) for word in self.words):
            raise UserError(f"expected fps above 0 and words, found fps {self.fps} and {self.words!r:.40}")
        sizes = {"2": 2, "3": 3, "k": len(self.words)}
        for name, (dtype, axes) in ARRAYS.items():
            if name not in ATTENTION or getattr(self, name) is not None:
                _check(name, getattr(self, name), dtype, axes, sizes)
        for name in LATENTS:
            _check(f"norms of {name}", self.norms.get(name), np.float32, "n", sizes)
        for name in (*LATENTS, *self.attention_maps):
            _check(f"ranges of {name}", self.ranges.get(name), np.float32, "s2", sizes)
        for name, axis in ("steps", "n"), ("frames", None):
            kept = getattr(self, name)
            if (np.diff(kept, prepend=-1) <= 0).any() or axis and kept[-1] >= sizes[axis]:
                raise UserError(f"{name}: expected rising numbers from 0, found {kept.tolist()!r:.40}")

    @property
    def attention_maps(self) -> list[str]:
        """Which of "cross" and "temporal" there are."""
        return [name for name in ATTENTION if getattr(self, name) is not None]

    @property
    def t(self) -> np.ndarray:
        """(s,): the timesteps of the kept steps."""
        return self.timesteps[self.steps]

    def latents(self, name: str) -> np.ndarray:
        """"x", "eps" or "x0" as float32 (s, f, c, h, w); an error is at most half of a 255th of the step's range."""
        return self._numbers(name, LATENTS)

    def attention(self, name: str) -> np.ndarray:
        """Shares 0..1 of attention, mean over heads: "cross" float32 (s, k, f, h, w), "temporal" float32 (s, f, f)."""
        return self._numbers(name, ATTENTION)

    def _numbers(self, name, known):
        if name not in known:
            raise UserError(f"expected one of {', '.join(known)}, found {name!r}")
        if getattr(self, name) is None:
            raise UserError(f"this flight has no {name} attention; see `attention_maps` for the runs that have none")
        return unpacked(getattr(self, name), self.ranges[name])

    def save(self, path: str | Path) -> Path:
        """Write the flight to an .npz file and return its path. Raises UserError for a place that cannot be written."""
        path = check_output(path, (".npz",))
        texts = {"format": FORMAT, "pictures": self.preview.shape} | {name: getattr(self, name) for name in TEXTS}
        arrays = {name: getattr(self, name) for name in ARRAYS if name not in ("preview", *ATTENTION)}
        arrays |= {name: getattr(self, name) for name in self.attention_maps}
        arrays |= {f"norms.{name}": self.norms[name] for name in LATENTS}
        arrays |= {f"ranges.{name}": self.ranges[name] for name in (*LATENTS, *self.attention_maps)}
        arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        arrays["pictures"] = np.frombuffer(_webp(self.preview), np.uint8)
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, **arrays)
            if (size := unfinished.stat().st_size) > LARGEST:
                raise UserError(f"expected a flight of at most {LARGEST:,} bytes, found {size:,}; keep fewer steps")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Flight":
        """The flight in an .npz file, or a shipped one by its name. Executes nothing that is in the file.

        Raises UserError for a missing, foreign or damaged file.

        >>> Flight.load("left").prompt
        'a large red circle moves left'
        """
        found = find_recording(path, "flight")
        try:
            return _read(found)
        except Exception as error:  # a damaged archive fails in a dozen ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"expected a flight, found {found} damaged or of another kind: {reason:.200}") from error


def _check(name: str, array, dtype: type, axes: str, sizes: dict[str, int]) -> None:
    """The array has that dtype and these axes, none empty; `sizes` learns and remembers how long an axis is."""
    shape = getattr(array, "shape", ())
    fits = isinstance(array, np.ndarray) and array.dtype == dtype and len(shape) == len(axes) and 0 not in shape
    if not fits or any(sizes.setdefault(axis, length) != length for axis, length in zip(axes, shape)):
        wanted = ", ".join(f"{axis} = {sizes[axis]}" if axis in sizes else axis for axis in axes)
        raise UserError(f"{name}: expected {np.dtype(dtype)} of shape ({wanted}), found {type(array).__name__} {shape}")
    if dtype == np.float32 and not np.isfinite(array).all():
        raise UserError(f"{name}: expected finite numbers, found NaN or inf")


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
    """Pictures uint8 (s, f, H, W, 3) as one grey picture, nearly square: a tile for each colour of each picture.

    Tiles run from left to right, then down. WebP halves the resolution of colours, of grey it does not.
    """
    from PIL import Image

    tiles = rearrange(pictures, "s f H W c -> (s f c) H W")
    columns = math.ceil(math.sqrt(len(tiles)))
    blank = np.zeros((-len(tiles) % columns, *tiles.shape[1:]), np.uint8)
    sheet = rearrange(np.concatenate([tiles, blank]), "(r q) H W -> (r H) (q W)", q=columns)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=QUALITY, method=6)
    return file.getvalue()


def _pictures(data: bytes, shape: list[int]) -> np.ndarray:
    """Inverse of `_webp`, within what the WebP loses."""
    from PIL import Image

    s, f, H, W, c = shape
    if min(shape) < 1 or math.prod(shape) > LARGEST:
        raise ValueError(f"it has pictures of shape {shape}")
    columns = math.ceil(math.sqrt(s * f * c))
    size = columns * W, math.ceil(s * f * c / columns) * H
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
        if image.size != size:  # known before the pixels are unpacked
            raise ValueError(f"pictures of {image.size[0]}x{image.size[1]} pixels instead of {size[0]}x{size[1]}")
        sheet = np.asarray(image.convert("L"))
    tiles = rearrange(sheet, "(r H) (q W) -> (r q) H W", H=H, q=columns)[: s * f * c]
    return np.ascontiguousarray(rearrange(tiles, "(s f c) H W -> s f H W c", s=s, f=f))


def _read(path: Path) -> Flight:
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size:,} bytes, a flight at most {LARGEST:,}")
    with zipfile.ZipFile(path) as archive:
        unpacked_size = sum(member.file_size for member in archive.infolist())
    if unpacked_size > 2 * LARGEST:
        raise ValueError(f"it would unpack to {unpacked_size:,} bytes")
    with np.load(path, allow_pickle=False) as file:
        raw = dict(file)
    texts = json.loads(raw.pop("texts").tobytes())
    if texts["format"] != FORMAT:
        raise ValueError(f"its format is {texts['format']!r}, not {FORMAT!r}")
    groups = {group: {name[len(group) + 1 :]: array for name, array in raw.items() if name.startswith(f"{group}.")}
              for group in ("norms", "ranges")}  # fmt: skip
    pictures = _pictures(raw.pop("pictures").tobytes(), texts["pictures"])
    arrays = {name: array for name, array in raw.items() if name in ARRAYS}
    return Flight(**{name: texts[name] for name in TEXTS}, **arrays, **groups, preview=pictures)
