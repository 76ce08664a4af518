"""A folder of videos and pictures with captions, as a data set.

    my-videos/
    ├── metadata.jsonl      file_name, text; or metadata.csv, or captions.tsv: see `metadata`
    ├── walks/dog.mp4       30 frames a second, 1920x1080 ── middle, resampled, cropped ──► 16 frames, 8 a second, 64x64
    └── cat.png

Videos are .mp4, .mov, .mkv, .webm, .avi, .m4v, and moving .gif and .webp; pictures are .png, .jpg, .jpeg, and the other
.gif and .webp.

The split of a file is written in the column `split`, or is the folder that it lies in: train, val or validation, test.
Without either, 5 % of the videos go to "val" and 5 % to "test", at least one each of three or more; likewise of the
pictures. A hash of the name decides, so a file keeps its split when others are added; where there are few, the least
hashes are test and val whatever they are, and a new file can move an old one: name the splits of a folder that grows.
"""

import hashlib
import os
import string
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from minit2v.datasets.base import Batch
from minit2v.datasets.metadata import Item, listed, read_items
from minit2v.errors import UserError
from minit2v.pixels import fitted
from minit2v.ranges import Place, Positive, Size, public
from minit2v.video import ANIMATED, READABLE, VIDEOS, Footage

SHARE = 0.05  # of the files for "val", and as many for "test"
CACHE_BYTES = 2**28  # bytes of decoded frames that an open split keeps
HEAD = 2**12  # bytes of a file that `identity` reads


class FolderData:
    """A `Dataset` of the videos and pictures in a folder.

    fps: frames a second to which videos are resampled by their time stamps. fit: "crop" fills the picture and cuts off
    what is beyond it, "pad" shows all of it with black bars. Raises UserError for a folder without captions, captions
    of another layout, missing files, and files of other kinds.
    """

    @public
    def __init__(self, folder: Place, fps: Positive = 8, fit: str = "crop"):
        if fit not in ("crop", "pad"):
            raise UserError(f"fit: expected crop or pad, found {fit!r}")
        if not 0 < fps <= 1000:
            raise UserError(f"fps: expected 0 < fps <= 1000 frames a second, found {fps}")
        self.folder, self.name, self.fps, self.fit = Path(folder), str(folder), fps, fit
        self.items = read_items(self.folder)
        self._footage: dict[str, Footage] = {}
        self._check_files()

    @property
    def test_splits(self) -> tuple[str, ...]:
        return ("test",) if "test" in divide(filter(self._moves, self.items)).values() else ()

    @public
    def open(self, split: str, frames: Size, height: Size, width: Size, images: bool = False) -> "FolderSplit":
        """The middle `frames` frames of each video of a split, or with images=True its pictures.

        A video that is too short is left out, and a warning names it. If the folder has no pictures, the middle frames
        of the same videos are the pictures, with the videos' captions. Raises UserError for a split without items and
        for a damaged file.
        """
        pictures = [item for item in self.items if not self._moves(item)]
        usable = pictures if images and pictures else self._clips(frames)
        split_of = divide(usable)
        chosen = [item for item in usable if split_of[item.name] == split]
        if not chosen:
            what = "pictures" if images and pictures else f"videos of {frames} frames"
            others = ", ".join(sorted(set(split_of.values())))
            found = f"some in {others} alone" if others else "none"
            raise UserError(f"{self.folder}: expected {what} in the split {split}, found {found}; add files: three or more "
                            "fill train, val and test, unless a column split says where each belongs")  # fmt: skip
        footage = [self._opened(item.name) for item in chosen]
        times = [middle(each, 1 if images else frames, self.fps) for each in footage]
        return FolderSplit(footage, times, [item.caption for item in chosen], height, width, self.fit)

    def words(self) -> list[str]:
        """The words of all captions, sorted: in lower case, without the punctuation around them."""
        pieces = {piece.strip(string.punctuation) for item in self.items for piece in item.caption.lower().split()}
        return sorted(pieces - {""})

    def identity(self) -> str:
        """Changes with a file's name, size, time or beginning, with a caption, a split, the frame rate and the fit."""
        digest = hashlib.sha256(repr((self.fps, self.fit)).encode())
        for item in self.items:
            path = self.folder / item.name
            with path.open("rb") as file:
                digest.update(repr((item, path.stat().st_size, path.stat().st_mtime_ns, file.read(HEAD))).encode())
        return f"folder {digest.hexdigest()}"

    def _check_files(self) -> None:
        names = sorted({item.name for item in self.items})
        if missing := [name for name in names if not os.path.isfile(self.folder / name)]:
            raise UserError(f"{self.folder}: expected the {len(names)} files that its captions name, found no "
                            f"{listed(missing)}")  # fmt: skip
        if foreign := [name for name in names if Path(name).suffix.lower() not in READABLE]:
            raise UserError(f"{self.folder}: expected files ending in {', '.join(READABLE)}, found {listed(foreign)}")
        present = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        if silent := sorted({name for name in present if Path(name).suffix.lower() in READABLE} - set(names)):
            warnings.warn(f"{self.folder}: left out for want of a caption: {listed(silent)}", stacklevel=3)

    def _opened(self, name: str) -> Footage:
        if name not in self._footage:
            self._footage[name] = Footage(self.folder / name)
        return self._footage[name]

    def _moves(self, item: Item) -> bool:
        suffix = Path(item.name).suffix.lower()
        return suffix in VIDEOS or suffix in ANIMATED and len(self._opened(item.name).edges) > 2

    def _clips(self, frames: int) -> list[Item]:
        """The items of videos that are long enough."""
        from tqdm.auto import tqdm

        moving = [item for item in self.items if self._moves(item)]
        unknown = sorted({item.name for item in moving} - set(self._footage))
        for name in tqdm(unknown, desc="reading time stamps", unit="video", disable=None):
            self._opened(name)
        short = {item.name for item in moving if middle(self._opened(item.name), frames, self.fps) is None}
        if short:
            warnings.warn(f"{self.folder}: left out for being shorter than {frames} frames at {self.fps:g} a second: "
                          f"{listed(sorted(short))}", stacklevel=3)  # fmt: skip
        return [item for item in moving if item.name not in short]


class FolderSplit:
    """A `VideoText` of files, decoded when they are asked for; keeps up to CACHE_BYTES of decoded, resized frames.

    times: for each file, seconds of its frames, as many for all.
    """

    def __init__(self, footage: list[Footage], times: list[np.ndarray], captions: list[str], height: int, width: int,
                 fit: str):  # fmt: skip
        self.footage, self.times, self.captions = footage, times, captions
        self.height, self.width, self.fit = height, width, fit
        self._kept = lru_cache(max(1, CACHE_BYTES // (len(times[0]) * height * width * 3)))(self._decode)

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Iterable[int]) -> Batch:
        """Frames uint8 (b, f, H, W, 3) and captions. Raises IndexError beyond the end, UserError for a damaged file."""
        numbers = [int(index) for index in indices]
        if beyond := [number for number in numbers if not 0 <= number < len(self)]:
            raise IndexError(f"expected an index below {len(self)}, found {beyond[0]}")
        return Batch(np.stack([self._kept(number) for number in numbers]), [self.captions[n] for n in numbers])

    def _decode(self, number: int) -> np.ndarray:
        return read_clip(self.footage[number], self.times[number], self.height, self.width, self.fit)


def read_clip(footage: Footage, times: Sequence[float], height: int, width: int, fit: str = "crop") -> np.ndarray:
    """The frames shown at `times`, in seconds, each resized once decoded: uint8 (f, height, width, 3).

    Raises UserError for a damaged file.
    """
    return np.stack(footage.at(times, lambda pixels: fitted(pixels[None], height, width, fit)[0]))


def middle(footage: Footage, frames: int, fps: float) -> np.ndarray | None:
    """Seconds (frames,) of frames at `fps` around the middle of a video; None if it is too short.

    A single frame is the middle one, that of a picture its only one.
    """
    end = footage.edges[-1]
    if frames == 1:
        return np.array([end / 2])
    if end < (frames - 0.5) / fps:
        return None
    late = min(footage.interval, 1 / fps) / 4  # files round when a frame begins: .mkv to 1 ms, .gif to 10 ms
    return max(0.0, (end - frames / fps) / 2) + np.arange(frames) / fps + late


def divide(items: Iterable[Item]) -> dict[str, str]:
    """{name: split} as the items say, or else by a hash of the name.

    If the items say splits and none of them is "val", some of "train" are drawn for it.

    >>> sorted(divide([Item("a.mp4", "a dog"), Item("b.mp4", "a cat"), Item("c.mp4", "a cow")]).values())
    ['test', 'train', 'val']
    """
    said = {item.name: item.split for item in items}
    if None in said.values():
        return _drawn(said, ("test", "val"))
    if "val" in said.values():
        return said
    return said | _drawn([name for name, split in said.items() if split == "train"], ("val",))


def _drawn(names: Iterable[str], splits: tuple[str, ...]) -> dict[str, str]:
    """{name: split}: those of the lowest hashes go to `splits`, a SHARE each and at least one, the others to train."""
    place = {name: int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12 for name in names}  # in 0..1
    order, drawn = sorted(place, key=place.get), {}
    for i, split in enumerate(splits):
        rest = order[len(drawn) :]
        below = sum(place[name] < SHARE * (i + 1) for name in rest)
        free = max(0, len(rest) - (len(splits) - i))  # leaves one for each further split and for train
        drawn |= dict.fromkeys(rest[: min(max(below, 1), free)], split)
    return {name: drawn.get(name, "train") for name in place}
