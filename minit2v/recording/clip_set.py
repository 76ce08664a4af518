"""Clips that a model made of given prompts, kept as they came, so that measuring them needs no sampling.

    made = ClipSet.load("mini-test")              a shipped one, of data/clip_sets (scripts/record_clips.py)
    made.pixels, made.captions, made.seeds        (n, f, H, W, 3) uint8, n texts, n numbers

The file is a numpy archive without pickles; its frames are one WebP without losses (`sheets`).
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

MOST_BYTES = 2**27  # of a file, unpacked


@dataclass(eq=False)
class ClipSet:
    """Clips with their prompts and seeds. Raises UserError for parts that do not fit together."""

    model: str  # its name
    settings: dict  # sampler, steps, guidance
    captions: list[str]  # n prompts
    seeds: np.ndarray  # (n,): clip i started from noise number seeds[i]
    pixels: np.ndarray  # (n, f, H, W, 3) uint8

    def __post_init__(self):
        self.seeds = np.asarray(self.seeds, np.int64)
        n = len(self.captions)
        fits = getattr(self.pixels, "dtype", None) == np.uint8 and self.pixels.ndim == 5 and self.pixels.shape[-1] == 3
        if not (fits and n >= 1 and self.pixels.shape[0] == n and self.seeds.shape == (n,)):
            raise UserError(f"clip set: expected clips uint8 (n, f, H, W, 3), a caption and a seed for each, found "
                            f"{np.shape(self.pixels)}, {n} captions and seeds {self.seeds.shape}")  # fmt: skip

    @public
    def save(self, path: Place) -> Path:
        """Write an .npz file and return its path. Raises UserError for a place that cannot be written."""
        path = check_output(path, (".npz",))
        frames = self.pixels.reshape(-1, *self.pixels.shape[2:])  # (n f H W 3) -> ((n f) H W 3)
        tiles, layout = atlas(frames, smallest=True)
        texts = {"model": self.model, "settings": self.settings, "captions": list(self.captions), "layout": layout}
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, texts=np.array(json.dumps(texts)), seeds=self.seeds,
                                tiles=np.frombuffer(tiles, np.uint8))  # fmt: skip
        return path

    @classmethod
    @public
    def load(cls, path: Place) -> "ClipSet":
        """The set in an .npz file, or a shipped one by its name. Raises UserError for a missing or damaged file."""
        found = find_recording(path, "clip_set")
        try:
            arrays = arrays_of(found, MOST_BYTES)
            texts = json.loads(str(arrays["texts"]))
            tiles = cut(arrays["tiles"].tobytes(), texts["layout"])
            pixels = tiles.reshape(len(texts["captions"]), -1, *tiles.shape[1:])
            return cls(texts["model"], texts["settings"], texts["captions"], arrays["seeds"], pixels)
        except Exception as error:  # a damaged archive fails in a dozen ways
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"expected a clip set, found {found} damaged or of another kind: {reason:.200}") from error
