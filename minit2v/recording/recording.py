"""A recording: one sampling run in at most 3 MB, to be scrubbed step by step on any laptop, without the model.

    prompt, model, settings, fps        the request
    timesteps, norms      (n)           every step of the run
    steps, frames         (s), (f)      which of its steps and frames are kept; the arrays below have these axes:
    x, eps, x0            s f c h w     latents, uint8, from the least to the greatest number of a step
    preview               s f H W 3     x0 decoded (x if there is no x0), uint8, at most 64 pixels a side
    words, cross          s k f h w     how much each cell looks at each of k words of the prompt
    temporal              s f f         how much each frame (row) looks at each frame (column)

A system that has no eps, no x0, no alpha_bar or no attention leaves them out. The file is a numpy archive without
pickles (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html); its pictures are one WebP (`sheets`).
What is kept of a long run: `recorder.plan`.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minit2v.errors import UserError
from minit2v.files import atomic, find_recording
from minit2v.ranges import Place, public
from minit2v.recording.archive import arrays_of
from minit2v.recording.sheets import atlas, cut
from minit2v.video import check_output

FORMAT = "minit2v recording 1"
LEGACY_FORMAT = "minit2v flight 1"  # its pictures have another layout; the rest is alike
LARGEST = 3_000_000  # bytes of a file
LATENTS = ("x", "eps", "x0")
ATTENTION = ("cross", "temporal")
OPTIONAL = ("alpha_bar", "eps", "x0", *ATTENTION)  # what a system may lack
TEXTS = {"prompt": str, "model": str, "settings": dict, "fps": (int, float), "words": list}  # written as JSON
ARRAYS = {  # name -> dtype and axes; an axis has one length in all of them
    "timesteps": (np.int64, "n"), "steps": (np.int64, "s"), "frames": (np.int64, "f"), "alpha_bar": (np.float32, "s"),
    "x": (np.uint8, "sfchw"), "eps": (np.uint8, "sfchw"), "x0": (np.uint8, "sfchw"), "preview": (np.uint8, "sfHW3"),
    "cross": (np.uint8, "skfhw"), "temporal": (np.uint8, "sff"),
}  # fmt: skip
QUALITY = 90  # of the WebP


@dataclass(eq=False)
class Recording:
    """A recorded run of n steps; s of them, and f of the clip's frames, have pictures and latents.

    Raises UserError for an array of another dtype or shape.
    """

    prompt: str
    model: str  # name of the preset
    settings: dict  # frames, height, width, steps, guidance, negative, seed, sampler, …: numbers and texts
    fps: float  # of the kept frames
    timesteps: np.ndarray  # (n,) int64: the timestep t of every step, falling in each stage of a system
    norms: dict  # "x", "eps", "x0" -> (n,) float32: root mean square of every step's latents; 1 for normal noise
    steps: np.ndarray  # (s,) int64: which of the n steps are kept
    frames: np.ndarray  # (f,) int64: which of the clip's frames are kept
    x: np.ndarray  # (s, f, c, h, w) uint8: latents after the step; `latents("x")` gives the numbers
    preview: np.ndarray  # (s, f, H, W, 3) uint8: x0 decoded, or x without one; H and W at most 64
    ranges: dict  # "x", "eps", "x0", "cross", "temporal" -> (s, 2) float32: what 0 and 255 mean in each step
    alpha_bar: np.ndarray | None = None  # (s,) float32: the share of the clip's variance before the step
    eps: np.ndarray | None = None  # as x: predicted noise
    x0: np.ndarray | None = None  # as x: predicted clean latents
    words: list = field(default_factory=list)  # k words of the prompt that have a map; none without attention
    cross: np.ndarray | None = None  # (s, k, f, h, w) uint8; `attention("cross")` gives the shares
    temporal: np.ndarray | None = None  # (s, f, f) uint8; `attention("temporal")` gives the shares

    def __post_init__(self):
        for name, kind in TEXTS.items():
            if not isinstance(getattr(self, name), kind):
                raise UserError(f"{name}: expected {kind}, found {getattr(self, name)!r:.40}")
        if not 0 < self.fps < math.inf or not all(isinstance(word, str) for word in self.words):
            raise UserError(f"expected fps above 0 and words, found fps {self.fps} and {self.words!r:.40}")
        sizes = {"2": 2, "3": 3, "k": len(self.words)}
        for name in self._present(ARRAYS):
            _check(name, getattr(self, name), *ARRAYS[name], sizes)
        for name in self.latent_names:
            _check(f"norms of {name}", self.norms.get(name), np.float32, "n", sizes)
        for name in (*self.latent_names, *self.attention_maps):
            _check(f"ranges of {name}", self.ranges.get(name), np.float32, "s2", sizes)
        for name, axis in ("steps", "n"), ("frames", None):
            kept = getattr(self, name)
            if (np.diff(kept, prepend=-1) <= 0).any() or axis and kept[-1] >= sizes[axis]:
                raise UserError(f"{name}: expected rising numbers from 0, found {kept.tolist()!r:.40}")

    def _present(self, names) -> list[str]:
        return [name for name in names if name not in OPTIONAL or getattr(self, name) is not None]

    @property
    def latent_names(self) -> list[str]:
        """Which of "x", "eps" and "x0" there are; "x" always is."""
        return self._present(LATENTS)

    @property
    def attention_maps(self) -> list[str]:
        """Which of "cross" and "temporal" there are."""
        return self._present(ATTENTION)

    @property
    def t(self) -> np.ndarray:
        """(s,): the timesteps of the kept steps."""
        return self.timesteps[self.steps]

    @public
    def latents(self, name: str) -> np.ndarray:
        """"x", "eps" or "x0" as float32 (s, f, c, h, w); an error is at most half of a 255th of the step's range.

        Raises UserError for one that was not kept.
        """
        return self._numbers(name, LATENTS)

    @public
    def attention(self, name: str) -> np.ndarray:
        """Shares 0..1 of attention, mean over heads: "cross" float32 (s, k, f, h, w), "temporal" float32 (s, f, f).

        Raises UserError for one that was not kept.
        """
        return self._numbers(name, ATTENTION)

    def _numbers(self, name, known):
        if name not in known:
            raise UserError(f"expected one of {', '.join(known)}, found {name!r}")
        if getattr(self, name) is None:
            there = ", ".join(self._present(known)) or "none"
            raise UserError(f"this recording has no {name}: its system or its settings do without; it has {there}")
        return unpacked(getattr(self, name), self.ranges[name])

    @public
    def save(self, path: Place) -> Path:
        """Write the recording to an .npz file and return its path. Raises UserError where it cannot be written."""
        path = check_output(path, (".npz",))
        pictures, layout = atlas(self.preview.reshape(-1, *self.preview.shape[2:]), QUALITY)
        texts = {"format": FORMAT, "layout": layout} | {name: getattr(self, name) for name in TEXTS}
        arrays = {name: getattr(self, name) for name in self._present(ARRAYS) if name != "preview"}
        arrays |= {f"norms.{name}": self.norms[name] for name in self.latent_names}
        arrays |= {f"ranges.{name}": self.ranges[name] for name in (*self.latent_names, *self.attention_maps)}
        arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
        arrays["pictures"] = np.frombuffer(pictures, np.uint8)
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, **arrays)
            if (size := unfinished.stat().st_size) > LARGEST:
                raise UserError(f"expected a recording of at most {LARGEST:,} bytes, found {size:,}; keep fewer steps")
        return path

    @classmethod
    @public
    def load(cls, path: Place) -> "Recording":
        """The recording in an .npz file, or a shipped one by its name. Executes nothing that is in the file.

        Raises UserError for a missing, foreign or damaged file.

        >>> Recording.load("left").prompt
        'a large red circle moves left'
        """
        found = find_recording(path, "recording")
        try:
            return _read(found)
        except Exception as error:  # a damaged archive fails in a dozen ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"expected a recording, found {found} damaged or of another kind: {reason:.200}") from error


def _check(name: str, array, dtype: type, axes: str, sizes: dict[str, int]) -> None:
    """Check that the array has that dtype and these axes, none empty; `sizes` keeps the length of each axis."""
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
    return low + values * ((high - low) / np.float32(255))  # eq (12.1) · Integer-Arithmetic-Only Inference (1)


def _read(path: Path) -> Recording:
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size:,} bytes, a recording at most {LARGEST:,}")
    raw = arrays_of(path, 2 * LARGEST)
    texts = json.loads(raw.pop("texts").tobytes())
    if texts["format"] not in (FORMAT, LEGACY_FORMAT):
        raise ValueError(f"its format is {texts['format']!r}, not {FORMAT!r}")
    groups = {group: {name[len(group) + 1 :]: array for name, array in raw.items() if name.startswith(f"{group}.")}
              for group in ("norms", "ranges")}  # fmt: skip
    layout = texts["layout"] if texts["format"] == FORMAT else _legacy_layout(texts["pictures"])
    pictures = cut(raw.pop("pictures").tobytes(), layout, most=2 * LARGEST)
    arrays = {name: array for name, array in raw.items() if name in ARRAYS}
    preview = pictures.reshape(len(arrays["steps"]), -1, *pictures.shape[1:])
    return Recording(**{name: texts[name] for name in TEXTS}, **arrays, **groups, preview=preview)


def _legacy_layout(shape: list[int]) -> dict:
    """The layout of pictures (s, f, H, W, 3) in a file of `LEGACY_FORMAT`, which has their shape."""
    s, f, H, W, c = shape
    return {"width": W, "height": H, "columns": math.ceil(math.sqrt(s * f * c)), "count": s * f * c, "apart": c}
