"""Where the clips of a report come from: sampled by a model, batch by batch, or read from a folder of videos.

    prompts ─ TextToVideo ─> clips ─> FOLDER/test_seen-0-16-….npz     kept, so not sampled again
    FOLDER/*.mp4|gif|webp, captions.tsv ─> clips, cut and reduced to one shape, and their captions
"""

import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch

from minit2v.checkpoints.find import fingerprint
from minit2v.checkpoints.hub import located
from minit2v.datasets.metadata import read_captions
from minit2v.datasets.moving_things import Spec, parse
from minit2v.errors import UserError
from minit2v.evaluation.judge import readable
from minit2v.evaluation.kept import keep, read_kept
from minit2v.evaluation.mini.networks import resize
from minit2v.ranges import Place, Size, public
from minit2v.systems import TextToVideo
from minit2v.video import Clip


def name_of(place: str | Path) -> str:
    """What a report calls a model or a folder: the last part of its path or hub id."""
    return Path(os.path.abspath(place)).name


def fingerprint_of(model: str | Path, dtype: torch.dtype) -> str:
    """`fingerprint` of the model that `minit2v.load(model)` gave in this dtype, also for a hub id.

    Whatever is kept of a model is kept under it, as another training may have written into the same folder since.
    """
    return fingerprint(located(model, half=dtype != torch.float32).path)  # one of the hub is in the cache


class KeptSampler:
    """Samples clips of prompts. With a folder it keeps them there, under a name that says what they depend on: weights,
    dtype, settings, seed and prompts; clips that are there are not sampled again."""

    def __init__(self, pipe: TextToVideo, settings: dict, folder: Path | None):
        self.pipe, self.folder = pipe, folder
        self.options = {key: settings[key] for key in ("steps", "guidance", "sampler")}
        self.seed = settings["seed"]
        self.label = "-".join(str(settings[key]) for key in ("weights", "dtype", *self.options, "seed"))

    def __call__(self, prompts: list[str], name: str, first: int = 0, empty: bool = False) -> np.ndarray:
        """Clips (b, f, H, W, 3) uint8; prompt i starts from noise number seed + first + i. With `empty` the model is
        given the empty text instead of each prompt."""
        words = zlib.crc32("\n".join(prompts).encode())
        path = self.folder and self.folder / f"{name}-{first}-{first + len(prompts)}-{self.label}-{words:08x}.npz"
        preset = self.pipe.preset
        shape = len(prompts), preset.frames, preset.height, preset.width, 3
        if (clips := read_kept(path, np.uint8, shape)) is not None:
            return clips
        with warnings.catch_warnings():  # `evaluate` has warned of its settings; of prompts there would be hundreds of lines
            warnings.simplefilter("ignore", UserWarning)
            clips = (self._unprompted if empty else self.pipe)(prompts, seed=self.seed + first, **self.options)
        clips = np.stack([clip.pixels for clip in clips])
        keep(path, clips)
        return clips

    def _unprompted(self, prompts: list[str], **options) -> list[Clip]:
        """As many clips of the empty text, which no system takes for a prompt; guidance 1 is none."""
        _, settings = self.pipe.checked(prompts, options | {"guidance": 1.0, "negative": ""})
        *_, last = self.pipe.sampled([""] * len(prompts), settings)
        return self.pipe.clips(last, settings)


@public
def read_folder(folder: Place, captions: Place, size: Size, frames: Size):
    """Videos that another program made: clips (n, frames, size, size, 3) uint8, n captions, n specs.

    `captions` is a file that `metadata.read_captions` reads, in the words of level 1 of Moving Things. The first
    `frames` frames count, whatever their rate; the square in their middle is resized as all clips are that the networks
    see. Raises UserError for a missing file, another layout, a caption of other words, and a video that is too short.
    """
    from tqdm.auto import tqdm

    named = read_captions(captions)
    specs = [_spec(text) for _, text in named]
    bar = {"desc": "reading", "unit": "video", "disable": None}
    clips = [_fitted(Path(folder) / name, size, frames) for name, _ in tqdm(named, **bar)]
    return np.stack(clips), [text for _, text in named], specs


def _spec(text: str) -> Spec:
    spec = parse(text)
    if not readable(spec):
        raise UserError(f"expected captions of one thing and its motion (level 1), found {text!r}; leave it out")
    return spec


def _fitted(path: Path, size: int, frames: int) -> np.ndarray:
    pixels = Clip.load(path).pixels
    if len(pixels) < frames:
        raise UserError(f"expected at least {frames} frames, found {len(pixels)} in {path}; leave it out")
    H, W = pixels.shape[1:3]
    side, top, left = min(H, W), (H - min(H, W)) // 2, (W - min(H, W)) // 2
    square = pixels[None, :frames, top : top + side, left : left + side]
    return resize(square, size)[0].permute(1, 2, 3, 0).round().byte().numpy()  # (3 f H W) -> (f H W 3)
