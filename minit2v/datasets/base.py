"""What training and evaluation ask of a data set, whatever it is: the door through which a new one comes in.

    DATASETS["moving-things"]() ─┐
    FolderData("my-videos")     ─┴─► Dataset ── open("train", …) ─► VideoText ── batch([3, 1, 4]) ─► Batch

A data set is added by one file and one row of `minit2v.datasets.DATASETS`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Batch(NamedTuple):
    """Some items of a data set. `specs` say what is in each clip, where the data set knows."""

    frames: np.ndarray  # uint8 (b, f, H, W, 3)
    captions: list[str]
    specs: list[Any] | None = None


@runtime_checkable
class VideoText(Protocol):
    """Captioned clips, or pictures (f = 1), of one split at one size."""

    def __len__(self) -> int: ...
    def batch(self, indices: Sequence[int]) -> Batch: ...


@runtime_checkable
class Dataset(Protocol):
    """A data set: its splits, its words, and the clips themselves."""

    name: str  # what `--data` calls it
    test_splits: tuple[str, ...]  # splits that `evaluate` measures; besides "train" and "val", which every one has

    def open(self, split: str, frames: int, height: int, width: int, images: bool = False) -> VideoText:
        """A split as clips of so many frames and pixels, or as pictures. Raises UserError for one that it lacks."""
        ...

    def words(self) -> list[str] | None:
        """The words of its captions, for a text tower with a compact vocabulary; None if they are not known."""
        ...

    def identity(self) -> str:
        """A text that changes whenever an item does, so that what is computed from the items can be kept."""
        ...


@runtime_checkable
class Probe(Protocol):
    """What a data set with specs can do besides: say a caption, and say it with one word wrong (caption sensitivity)."""

    attributes: tuple[str, ...]  # what can be wrong

    def right(self, spec: Any) -> str: ...
    def wrong(self, spec: Any, attribute: str) -> str: ...
