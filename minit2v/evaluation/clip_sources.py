"""Where the clips of a report come from: sampled by a model, batch by batch, or read from a folder of videos.

    prompts ─ TextToVideo ─> clips ─> FOLDER/test_seen-0-16-….npz     what is there is not sampled again
    FOLDER/*.mp4|gif|webp, captions.tsv ─> clips, cut and reduced to one shape, and their captions
"""

import zlib
from pathlib import Path

import numpy as np

from minit2v.datasets.moving_things import Spec, parse
from minit2v.errors import UserError
from minit2v.evaluation.mini.networks import resize
from minit2v.files import atomic
from minit2v.video import Clip


def fingerprint_of(model: str | Path, dtype) -> str:
    """`fingerprint` of the model that `minit2v.load(model)` gave in this torch dtype, also for a hub id: what
    is kept of a model is kept under it, as another training may have written into the same folder since."""
    import torch

    from minit2v.checkpoints.find import find_model, fingerprint
    from minit2v.checkpoints.hub import download, on_hub

    if on_hub(model):
        return fingerprint(download(str(model), half=dtype != torch.float32))  # it is in the cache
    return fingerprint(find_model(model))


class Sampler:
    """Clips of prompts; kept in a folder, if there is one, under a name that says what they depend on: weights, dtype,
    settings, seed and prompts."""

    def __init__(self, pipe, settings: dict, folder: Path | None):
        self.pipe, self.folder = pipe, folder
        self.options = {key: settings[key] for key in ("steps", "guidance", "sampler")}
        self.seed = settings["seed"]
        self.label = "-".join(str(settings[key]) for key in ("weights", "dtype", *self.options, "seed"))

    def __call__(self, prompts: list[str], name: str, first: int = 0, guidance: float | None = None) -> np.ndarray:
        """(b, f, H, W, 3) uint8, prompt i from noise number seed + first + i. Guidance 0 is the empty prompt:
        u + 0 (c - u) = u, whatever the prompt says."""
        words = zlib.crc32("\n".join(prompts).encode())
        path = self.folder and self.folder / f"{name}-{first}-{first + len(prompts)}-{self.label}-{words:08x}.npz"
        if path and path.is_file():
            return np.load(path)["clips"]
        options = self.options | ({} if guidance is None else {"guidance": guidance})
        clips = np.stack([clip.pixels for clip in self.pipe(prompts, seed=self.seed + first, **options)])
        if path:
            with atomic(path) as unfinished:
                np.savez_compressed(unfinished, clips=clips)
        return clips


def read_folder(folder: str | Path, captions: str | Path, size: int, frames: int):
    """Videos that another program made: clips (n, frames, size, size, 3) uint8, n captions, n specs.

    `captions` is a text file with a line "FILE<tab>CAPTION" for each video, in the words of level 1 of Moving Things.
    The first `frames` frames are taken, cut to the square in their middle and averaged over areas. Raises UserError for
    a missing file, another layout, a caption of other words, and a video that is shorter.
    """
    from tqdm.auto import tqdm

    named = read_captions(captions)
    specs = [_spec(text) for _, text in named]
    bar = {"desc": "reading", "unit": "video", "disable": None}
    clips = [_fitted(Path(folder) / name, size, frames) for name, _ in tqdm(named, **bar)]
    return np.stack(clips), [text for _, text in named], specs


def read_captions(path: str | Path) -> list[tuple[str, str]]:
    """(file, caption) of each line "FILE<tab>CAPTION" of a text file. Raises UserError for another layout."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"expected a file of captions, lines of FILE<tab>CAPTION, found no {path}; name one")
    lines = [tuple(line.split("\t")) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    wrong = next((line for line in lines if len(line) != 2), None if lines else ())
    if wrong is not None:
        raise UserError(f"expected lines of FILE<tab>CAPTION in {path}, found {' '.join(wrong)!r}; write them so")
    return lines


def _spec(text: str) -> Spec:
    spec = parse(text)
    if len(spec.things) != 1 or spec.count != 1 or not (spec.things[0].motion and spec.things[0].shape):
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
