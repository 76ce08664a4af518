"""A recorded training: its curves, and what the network made of the same few frames or captions at many steps.

    run = TrainingRun.load("nano-vqgan-late")     a shipped one, of data/runs (scripts/record_vqgan.py, record_nano.py)
    lab.RunReplay(run)                            the widget that shows it

The file is a numpy archive without pickles (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html);
its pictures are one WebP (`sheets`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minit2v.errors import UserError
from minit2v.files import atomic, find_recording
from minit2v.ranges import Place, public
from minit2v.recording.archive import arrays_of
from minit2v.recording.sheets import atlas, cut
from minit2v.video import check_output

MOST_BYTES = 2**26  # of a file, unpacked


@dataclass(eq=False)
class TrainingRun:
    """A recorded training. Raises UserError for arrays that do not fit together."""

    name: str
    curves: dict[str, tuple[np.ndarray, np.ndarray]]  # name -> steps (n,) and values (n,), float32
    frames: np.ndarray  # (k, H, W, 3) uint8: frames that it was not trained on, or strips of some frames of a clip each
    steps: np.ndarray  # (p,) rising: after so many steps the pictures were made
    pictures: np.ndarray  # (p, k, H, W, 3) uint8: reconstructions of the frames, or samples of the clips' captions

    def __post_init__(self):
        self.curves = {key: tuple(np.asarray(v, np.float32) for v in pair) for key, pair in self.curves.items()}
        fits = self.pictures.dtype == self.frames.dtype == np.uint8 and self.frames.ndim == 4
        if not fits or self.pictures.shape != (len(self.steps), *self.frames.shape) or (np.diff(self.steps) <= 0).any():
            raise UserError("run: expected frames uint8 (k, H, W, 3), rising steps (p,), pictures uint8 (p, k, H, W, 3)"
                            f", found {self.frames.shape}, {np.shape(self.steps)}, {self.pictures.shape}")
        if uneven := [key for key, (x, y) in self.curves.items() if x.shape != y.shape or x.ndim != 1 or not len(x)]:
            raise UserError(f"run: expected as many steps as values in each curve, found others in {uneven[0]!r}")

    @public
    def save(self, path: Place) -> Path:
        """Write an .npz file and return its path. Raises UserError for a place that cannot be written."""
        path = check_output(path, (".npz",))
        curves = {f"curves.{key}": np.stack(pair) for key, pair in self.curves.items()}
        tiles, layout = atlas(np.concatenate([self.frames, *self.pictures]))
        texts = {"name": self.name, "frames": len(self.frames), "layout": layout}
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, texts=np.array(json.dumps(texts)), tiles=np.frombuffer(tiles, np.uint8),
                                steps=self.steps, **curves)
        return path

    @classmethod
    @public
    def load(cls, path: Place) -> "TrainingRun":
        """The run in an .npz file, or a shipped one by its name. Raises UserError for a missing or damaged file."""
        found = find_recording(path, "run")
        try:
            arrays = arrays_of(found, MOST_BYTES)
            texts, steps = json.loads(str(arrays["texts"])), arrays["steps"]
            curves = {key.partition(".")[2]: tuple(arrays[key]) for key in arrays if key.startswith("curves.")}
            tiles = cut(arrays["tiles"].tobytes(), texts["layout"])
            frames, pictures = np.split(tiles, [texts["frames"]])
            return cls(texts["name"], curves, frames, steps, pictures.reshape(len(steps), *frames.shape))
        except Exception as error:  # a damaged archive fails in a dozen ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"expected a run, found {found} damaged or of another kind: {reason:.200}") from error
