"""Features of more clips than fit in memory: computed in batches and kept on disk, so that an interrupted run goes on.

    clips[0:8]   ─ square ── networks ─> i3d-KEY-0-8.npz, clip-KEY-0-8.npz    ─┐
    clips[8:16]  ─ square ── networks ─> i3d-KEY-8-16.npz, clip-KEY-8-16.npz  ─┴─> features (n d) or (n f d)

KEY says what the numbers depend on: the clips (a set's `label`, else its pixels), the network's file, and how the
frames were prepared. A batch whose files exist is not requested again, so its clips are not sampled again either.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minit2v.errors import UserError
from minit2v.evaluation.full_scale.settings import FullScaleSettings
from minit2v.evaluation.kept import keep, kept_in, read_kept
from minit2v.files import stamps
from minit2v.pixels import square
from minit2v.ranks import processes, rank, require_one, several, this_process
from minit2v.video import Clip


def extract(clips: Sequence, networks: dict, settings: FullScaleSettings, name: str = "clips") -> dict[str, np.ndarray]:
    """Features of all clips, {name: (n, d) or (n, f, d) float32}, by each of `networks`, {name: network}.

    clips: anything with a length whose parts [i:j] are clips, uint8 (f, H, W, 3). A part is requested only if a network
    still has to see it. `name` is their name in the progress bar. Several processes share the work and meet in the
    folder of kept features. Raises UserError for clips of another kind or length, and for a damaged file of kept
    features.
    """
    with kept_in(settings.features):
        parts = _parts(clips, networks, settings, name)
    for key in networks:
        if len(widths := {part[key].shape[-1] for part in parts}) > 1:
            found = " and ".join(map(str, sorted(widths)))
            raise UserError(f"expected features of {key} of one width in {settings.features}, found {found}; remove "
                            f"{key}-*.npz there, and the same command computes them again")  # fmt: skip
    return {key: np.concatenate([part[key] for part in parts]) for key in networks}


def _parts(clips: Sequence, networks: dict, settings: FullScaleSettings, name: str) -> list[dict[str, np.ndarray]]:
    """The features of the batches of all clips."""
    from tqdm.auto import tqdm

    label = _label(clips) if settings.features else ""
    starts = range(0, len(clips), settings.batch)
    if several():
        if settings.features is None:
            require_one("evaluate without --features", "name a folder, where the processes find each other's features")
        for start in starts[rank() :: processes()]:
            _features(clips, networks, settings, label, start)
        this_process().wait_for_everyone()
    parts = []
    with tqdm(total=len(clips), desc=f"features of {name}", unit="clip", disable=None) as bar:
        for start in starts:
            parts.append(_features(clips, networks, settings, label, start))
            bar.update(min(settings.batch, len(clips) - start))
    return parts


def _features(clips: Sequence, networks: dict, settings: FullScaleSettings, label: str, start: int) -> dict:
    """The features of the batch that begins with clip `start`, {name: (b, …)}: those that are kept, or new ones."""
    stop = min(start + settings.batch, len(clips))
    paths = {key: _kept(settings, key, networks[key].identity, label, start, stop) for key in networks}
    shape = lambda key: (stop - start, None) if key == "i3d" else (stop - start, settings.frames, None)  # of each frame
    found = {key: read_kept(path, np.floating, shape(key)) for key, path in paths.items()}
    done = {key: values for key, values in found.items() if values is not None}
    pixels = _pixels(clips[start:stop], settings, start) if len(done) < len(networks) else None
    for key, network in networks.items():
        if key not in done:
            done[key] = network.features(pixels)
            keep(paths[key], done[key])
    return done


class Videos(Sequence):
    """Video files as a set of clips, read on demand: `videos[i:j]` is a list of uint8 (f, H, W, 3).

    paths: files that `Clip.load` reads. Raises UserError for a missing file, and for a damaged one when it is read.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = [Path(path) for path in paths]
        if missing := [path for path in self.paths if not path.is_file()]:
            raise UserError(f"expected {len(paths)} videos, found {len(missing)} missing, first {missing[0]}; add it")

    @property
    def label(self) -> str:
        return stamps(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: int | slice) -> np.ndarray | list[np.ndarray]:
        paths = self.paths[which]
        return [Clip.load(path).pixels for path in paths] if isinstance(which, slice) else Clip.load(paths).pixels


def _pixels(clips: Sequence, settings: FullScaleSettings, start: int) -> np.ndarray:
    """A part of the clips, (b, f, size, size, 3) uint8."""
    for i, clip in enumerate(clips):
        dtype, shape = getattr(clip, "dtype", type(clip).__name__), getattr(clip, "shape", ())
        if dtype != np.uint8 or len(shape) != 4 or shape[0] != settings.frames or shape[3] != 3:
            raise UserError(f"expected clips uint8 ({settings.frames}, H, W, 3), found {dtype} {shape} as clip "
                            f"{start + i}; all have one number of frames, see the setting frames")  # fmt: skip
    return np.stack([square(clip, settings.size, settings.crop) for clip in clips])


def _label(clips: Sequence) -> str:
    if label := getattr(clips, "label", None):
        return label
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(repr(clip.shape).encode() + np.ascontiguousarray(clip).tobytes())
    return digest.hexdigest()


def _kept(settings: FullScaleSettings, key: str, network: str, label: str, start: int, stop: int) -> Path | None:
    """Where the features of a part of the clips are kept: a name that says everything they depend on."""
    if settings.features is None:
        return None
    seen = settings.frames, settings.size, settings.crop
    digest = hashlib.sha256(repr((label, network, *seen)).encode()).hexdigest()
    return Path(settings.features) / f"{key}-{digest[:24]}-{start}-{stop}.npz"
