"""MSR-VTT: 10,000 clips of the web with 20 captions each, and the three protocols by which papers measure on it.

    FOLDER/test_videodatainfo.json   "videos": [{"video_id", "split", ...}], "sentences": [{"video_id", "caption"}]
    FOLDER/videos/videoNNNN.mp4      10 to 32 s, 320x240, about 30 fps

    one-caption    all 2,990 test clips, one random caption each   (Video LDM, LaVie)
    all-captions   all 2,990 test clips, all 59,800 captions       (Make-A-Video, Snap Video; CLIPSIM of ModelScopeT2V)
    2048-clips     2,048 random test clips, one caption each       (FID-vid and FVD of ModelScopeT2V, Show-1)

A model makes one clip of each prompt. Real clips are cut to their middle 16 frames at 3 fps, 5.3 s, and to the centre
square at 256x256, as for ModelScopeT2V. Other papers use other frame rates, and FVD changes more with the frame rate
than between models. The data set is for research only and is not shipped: name the folder of your copy.

A clip that is too short is left out with its captions *before* the draw, and `left_out` names it for the report;
repeated frames would add clips that stand still. (All clips of the test split last 10 s or more.)

The floor of a metric, real against real, needs clips that the protocol did not choose. `further` draws them from all
files in the folder videos; with the 7,010 clips of train and validate in it there are enough.

References: MSR-VTT, Xu et al., CVPR 2016; ModelScopeT2V, arXiv 2308.06571, section 4.1; Video LDM, arXiv 2304.08818,
appendix; Make-A-Video, arXiv 2209.14792, section 4.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from minit2v.errors import UserError
from minit2v.files import read_json, stamps
from minit2v.pixels import square
from minit2v.video import Clip, stated

PROTOCOLS = {"one-caption": None, "all-captions": None, "2048-clips": 2048}  # -> clips that are drawn; None: all


@dataclass(frozen=True)
class Protocol:
    """How clips, captions and frames are chosen. A report states every setting."""

    name: str = "2048-clips"  # of PROTOCOLS
    n: int | None = None  # clips drawn; None: what the protocol says
    seed: int = 0  # of the draw of clips and captions
    frames: int = 16  # of a real clip, from its middle
    fps: float | None = 3.0  # frames a second of those; None: the clip's own, about 30
    size: int = 256  # pixels, width and height
    crop: bool = True  # the centre square; False squeezes the whole frame into the square
    split: str = "test"  # train, validate or test
    annotations: str = "test_videodatainfo.json"  # train and validate are in train_val_videodatainfo.json

    def __post_init__(self):
        if self.name not in PROTOCOLS:
            raise UserError(f"protocol: expected one of {', '.join(PROTOCOLS)}, found {self.name!r}")
        for key in ("frames", "size", "n"):
            if (value := getattr(self, key)) is not None and not (isinstance(value, int) and value >= 1):
                raise UserError(f"protocol: expected {key} to be a whole number from 1, found {value!r}")
        if self.fps is not None and not self.fps > 0:
            raise UserError(f"protocol: expected fps above 0, found {self.fps}; None takes the clip's own")


class Clips(Sequence):
    """Clips of a folder in MSR-VTT's layout: `clips[i:j]` reads them, (j - i, f, size, size, 3) uint8.

    videos: their names. The protocol chooses the frames of a clip and their size.
    """

    def __init__(self, folder: str | Path, protocol: Protocol, videos: Sequence[str] = ()):
        self.folder, self.protocol, self.videos = Path(folder), protocol, list(videos)

    @property
    def label(self) -> str:
        """Names everything that the clips depend on: features of them are kept under it."""
        return json.dumps(["MSR-VTT", asdict(self.protocol), stamps([self._path(name) for name in self.videos])])

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, which: int | slice) -> np.ndarray:
        """One clip (f, size, size, 3) uint8, or several of them, (b, f, size, size, 3)."""
        names = self.videos[which]
        return np.stack([self._read(name) for name in names]) if isinstance(which, slice) else self._read(names)

    def _read(self, name: str) -> np.ndarray:
        clip, wanted = Clip.load(self._path(name)), self.protocol
        times = middle(len(clip.pixels), clip.fps, wanted.frames, wanted.fps)
        if times is None:  # its header promised more
            raise UserError(f"expected {wanted.frames} frames at {wanted.fps or clip.fps:g} fps in {self._path(name)}, "
                            f"found {clip}; it is damaged, get it again")  # fmt: skip
        return square(clip.pixels[times], wanted.size, wanted.crop)

    def _path(self, name: str) -> Path:
        return self.folder / "videos" / f"{name}.mp4"


class MSRVTT(Clips):
    """The real clips that a protocol draws from a folder in MSR-VTT's layout, with their captions.

    videos: names of the clips. captions: a tuple for each clip. prompts: all captions in one list, from which a model
    makes clips. left_out: names of clips that are too short.

    Raises UserError for a folder of another layout, for missing files, and for fewer clips than the protocol draws, as
    none is drawn twice.
    """

    def __init__(self, folder: str | Path, protocol: Protocol = Protocol()):
        super().__init__(folder, protocol)
        known = read_annotations(self.folder, protocol)
        self._check_files(list(known))
        self.left_out = [name for name in known if not self._long_enough(name)]
        chosen = select({name: known[name] for name in known if name not in set(self.left_out)}, protocol)
        self.videos, self.captions = list(chosen), list(chosen.values())

    @property
    def prompts(self) -> list[str]:
        return [caption for several in self.captions for caption in several]

    def reported(self) -> dict:
        """The settings, the counts and the clips left out, for a report."""
        counts = {"clips": len(self.videos), "prompts": len(self.prompts), "left_out": self.left_out}
        return {"data": "MSR-VTT"} | asdict(self.protocol) | counts

    def further(self, n: int) -> Clips | None:
        """n clips of the folder that the protocol did not choose, of any split, drawn by its seed; None if there are
        fewer. Raises UserError for a damaged one."""
        others = {path.stem for path in (self.folder / "videos").glob("*.mp4")} - {*self.videos, *self.left_out}
        order = np.random.default_rng(self.protocol.seed).permutation(sorted(others))
        drawn = islice(filter(self._long_enough, map(str, order)), n) if len(others) >= n else []
        further = Clips(self.folder, self.protocol, sorted(drawn))
        return further if len(further) == n else None

    def _check_files(self, names: list[str]) -> None:
        if missing := [name for name in names if not self._path(name).is_file()]:
            raise UserError(f"expected {len(names)} clips in {self.folder / 'videos'}, found {len(missing)} missing, "
                            f"first {missing[0]}.mp4; unpack the whole data set")  # fmt: skip

    def _long_enough(self, name: str) -> bool:
        count, fps = stated(self._path(name))
        return middle(count, fps, self.protocol.frames, self.protocol.fps) is not None


def read_annotations(folder: Path, protocol: Protocol) -> dict[str, tuple[str, ...]]:
    """{name of a clip of the split: its captions}, in the order of the file. Raises UserError for another layout."""
    path = folder / protocol.annotations
    if not (folder / "videos").is_dir() or not path.is_file():
        missing = "videos" if path.is_file() else path.name
        raise UserError(f"expected MSR-VTT in {folder}: the folder videos and the file {protocol.annotations}, found "
                        f"no {missing}; name the folder that has both")  # fmt: skip
    try:
        read = read_json(path, "take the data set's own file")
        names = [video["video_id"] for video in read["videos"] if video["split"] == protocol.split]
        captions = {name: [] for name in names}
        for sentence in read["sentences"]:
            if (name := sentence["video_id"]) in captions:
                captions[name].append(" ".join(sentence["caption"].split()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"expected 'videos' [video_id, split] and 'sentences' [video_id, caption] in {path}, found "
                        f"another layout ({error!r}); take the data set's own file") from error  # fmt: skip
    if not names or (silent := [name for name in names if not captions[name]]):
        found = f"no caption of {silent[0]}" if names else "no clip of it"
        raise UserError(f"expected captioned clips of the split {protocol.split} in {path}, found {found}; check both")
    return {name: tuple(several) for name, several in captions.items()}


def select(captions: dict[str, tuple[str, ...]], protocol: Protocol) -> dict[str, tuple[str, ...]]:
    """The clips that the protocol draws, in the order of the data set, each with its captions, one or all.

    The seed decides everything. Raises UserError for fewer clips than are to be drawn.

    >>> select({"video1": ("a", "b"), "video2": ("c", "d")}, Protocol("one-caption", seed=1))
    {'video1': ('b',), 'video2': ('d',)}
    """
    names, n = list(captions), protocol.n or PROTOCOLS[protocol.name] or len(captions)
    if n > len(names):
        raise UserError(f"{protocol.name}: expected {n} clips or more, found {len(names)}; set a smaller n")
    generator = np.random.default_rng(protocol.seed)
    chosen = [names[i] for i in sorted(generator.permutation(len(names))[:n])]
    if protocol.name == "all-captions":
        return {name: captions[name] for name in chosen}
    return {name: (captions[name][generator.integers(len(captions[name]))],) for name in chosen}


def middle(count: int, own_fps: float, frames: int, fps: float | None) -> np.ndarray | None:
    """Numbers of `frames` frames at `fps` (None: its own) around the middle of a clip of `count`; None: too short.

    >>> middle(31, 30, 3, 3), middle(31, 30, 3, None), middle(15, 30, 3, 3)
    (array([ 5, 15, 25]), array([14, 15, 16]), None)
    """
    step = 1.0 if fps is None else own_fps / fps
    times = (count - 1) / 2 + step * (np.arange(frames) - (frames - 1) / 2)
    return np.floor(times + 1e-9).astype(int) if times[0] >= -1e-9 else None
