"""What training and evaluation ask of any data set: the door through which a new one comes in.

    DATASETS["moving-things"]() ─┐
    FolderData("my-videos")     ─┴─► Dataset ── open("train", …) ─► VideoText ── batch([3, 1, 4]) ─► Batch

A data set is added by one file and one row of `minit2v.datasets.DATASETS`.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Batch(NamedTuple):
    """Some items of a data set. `specs` say what each clip shows, if the data set knows."""

    frames: np.ndarray  # uint8 (b, f, H, W, 3)
    captions: list[str]
    specs: list[Any] | None = None


@runtime_checkable
class VideoText(Protocol):
    """Captioned clips, or pictures (f = 1), of one split at one size."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """The items with these numbers, the same at every call. Raises IndexError beyond the end."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """A data set: its splits, its words, and the clips themselves."""

    name: str  # what `--data` calls it
    test_splits: tuple[str, ...]  # splits that `evaluate` measures, besides "train" and "val"

    def open(self, split: str, frames: int, height: int, width: int, images: bool = False) -> VideoText:
        """A split as clips of `frames` frames, or as pictures (images=True), of height x width pixels.

        Raises UserError for a split or a size that it does not have.
        """
        ...

    def words(self) -> list[str] | None:
        """The words of its captions, for a text tower with a compact vocabulary; None if they are not known."""
        ...

    def identity(self) -> str:
        """A text that changes whenever an item does: what is computed from the items is kept under it."""
        ...


@runtime_checkable
class Probe(Protocol):
    """A data set with specs that can write a caption, and write it with one word wrong (caption sensitivity)."""

    attributes: tuple[str, ...]  # which words can be wrong

    def right(self, spec: Any) -> str: ...
    def wrong(self, spec: Any, attribute: str) -> str: ...

    def choices(self, spec: Any, attribute: str) -> list[str]:
        """Captions that differ in one attribute only, the right one first; none if the item does not have it."""
        ...

    def meaning(self, caption: str) -> tuple[Hashable, Hashable]:
        """What a still picture shows of it, and all that it says: paraphrases have the same meaning."""
        ...


@runtime_checkable
class Paraphraser(Protocol):
    """A data set with specs that can write a caption in many ways, so that none is learnt by heart."""

    def paraphrase(self, spec: Any, number: int) -> str:
        """A caption of the spec, as those of `train` are; each number from 0 gives one, always the same."""
        ...


@runtime_checkable
class Judge(Protocol):
    """A data set with specs that can read from pixels whether a clip shows what its spec says (`evaluate`)."""

    def judge(self, clip: np.ndarray, spec: Any) -> dict[str, bool]:
        """Whether each attribute of a clip (f, H, W, 3) uint8 is right, under the same names for every clip."""
        ...
