"""FVD, KVD, FID-vid and CLIPSIM with the networks of the literature, for clips of any size and number.

    clips ──┐                             ┌─ I3D ────────┬> FVD              Fréchet distance of clips
            │                             │              └> KVD              kernel distance, to cross-check it
            ├─ a batch at a time, 256x256 ├─ Inception ───> FID-vid          Fréchet distance of frames
    real  ──┘   features kept on disk     └─ CLIP frames ┬> FID-vid (CLIP)   likewise
    captions ───────────────── CLIP text ────────────────┴> CLIPSIM          mean over frames of the cosine, and its
                                                                             ratio to that of the real clips

Clips do not fit in memory together (2,048 of 16 x 256 x 256 are 6.4 GB), features do. So clips are anything with a
length whose parts are `clips[i:j]`: an array, a list, files read on demand (`Videos`) or prompts sampled on demand.
With a folder for the features an interrupted run goes on: finished batches are not computed again.

Every distance has a floor, real against real: of as many further real clips as there are clips, where they are given;
else of one half of the real clips against the other.

A metric whose file is not named is left out with a warning.

References: FVD, arXiv 1812.01717, section 2; FID, arXiv 1706.08500, equation 6; CLIPSIM and its ratio, GODIVA, arXiv
2104.14806.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from minit2v.devices import find_device
from minit2v.errors import UserError
from minit2v.evaluation.estimates import Estimate, mean_estimate, ratio_estimate
from minit2v.evaluation.frechet import frechet_distance, frechet_estimate, kernel_distance, kernel_estimate
from minit2v.evaluation.full_scale.backbones import CLIP, I3D, Inception
from minit2v.evaluation.full_scale.extraction import extract
from minit2v.evaluation.full_scale.settings import FILES, FullScaleSettings

NEEDS = {  # metric -> network
    "FVD": "i3d", "KVD": "i3d", "FID-vid": "inception",
    "FID-vid (CLIP)": "clip", "CLIPSIM": "clip", "CLIPSIM / real": "clip",
}  # fmt: skip


def skipped(settings: FullScaleSettings) -> dict[str, str]:
    """Metrics that cannot be measured: {metric: a line that says which file is missing}.

    >>> skipped(FullScaleSettings(i3d="i.pt", clip="c.pt"))
    {'FID-vid': 'FID-vid: skipped, no file inception (weights-inception-2015-12-05-6726825d.pth) was named'}
    """
    return {
        metric: f"{metric}: skipped, no file {key} ({FILES[key]}) was named"
        for metric, key in NEEDS.items() if getattr(settings, key) is None
    }  # fmt: skip


def measure(
    clips: Sequence, captions: Sequence[str], real_clips: Sequence, settings: FullScaleSettings,
    real_captions: Sequence | None = None, other_real_clips: Sequence | None = None,
) -> dict[str, Estimate]:  # fmt: skip
    """Measures the full-scale metrics of clips, by name.

    Args:
        clips, real_clips, other_real_clips: anything with a length whose parts `[i:j]` are clips, uint8 (f, H, W, 3)
            of any height and width. An attribute `label` must say everything that the pixels depend on; without one
            the pixels are hashed to find kept features.
        captions: of each clip. real_captions: of each real clip, one or several; None: the same as captions.
        other_real_clips: further real clips, at least as many as clips, for the floor of the distances. None: the floor
            is the distance between two random halves of the real clips, if there are four or more; as it falls with
            the number of clips, it is about twice the distance of all of them from as many others.

    Raises UserError for counts that do not agree, clips of another length, and missing or unexpected files.
    """
    real_captions = captions if real_captions is None else real_captions
    _check_counts(clips, captions, real_clips, real_captions, other_real_clips)
    left_out = skipped(settings)
    for line in left_out.values():
        warnings.warn(line, stacklevel=2)
    networks = load(settings)
    sets = {"clips": clips, "real clips": real_clips, "further real clips": other_real_clips}
    features = [{} if several is None else extract(several, networks, settings, name) for name, several in sets.items()]
    of = lambda key: [each.get(key) for each in features]
    measured = {}
    for metric, (estimate, distance) in DISTANCES.items():
        if metric not in left_out:
            made, real, other = of(NEEDS[metric])
            measured[metric] = estimate(made, real, other, settings.seed)
            if other is None:
                floor = _between_halves(distance, real, settings.seed)
                measured[metric] = replace(measured[metric], floor=floor)
    if "clip" in networks:
        made, real, _ = of("clip")
        x = similarity(made, _texts(networks["clip"], captions))
        y = similarity(real, _texts(networks["clip"], real_captions))
        measured |= {"CLIPSIM": mean_estimate(x), "CLIPSIM / real": ratio_estimate(x, y)}
    return measured


def _between_halves(distance, real: np.ndarray, seed: int) -> float | None:
    order, half = np.random.default_rng(seed).permutation(len(real)), len(real) // 2
    return distance(real[order[:half]], real[order[half:]]) if half >= 2 else None


def load(settings: FullScaleSettings) -> dict:
    """Networks of the files that are named, {"i3d", "inception", "clip": network}. Raises UserError as they do."""
    device, given = find_device(settings.device), settings
    loaders = {
        "i3d": lambda: I3D.load(given.i3d, given.i3d_sha256, device),
        "inception": lambda: Inception.load(given.inception, given.inception_sha256, given.inception_layer, device),
        "clip": lambda: CLIP.load(given.clip, given.clip_sha256, given.clip_model, device),
    }
    return {key: load() for key, load in loaders.items() if getattr(settings, key) is not None}


def fid_estimate(x: np.ndarray, real: np.ndarray, other: np.ndarray | None = None, seed: int = 0) -> Estimate:
    """FID of features (n, f, d) of frames from those of real frames: value by torchmetrics, interval by us.

    All frames are in memory, in float64: with Inception's 2,048 numbers a frame, 2,048 clips of 16 take 0.5 GB a set
    and 59,800 take 16 GB.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise UserError('FID-vid needs the package torchmetrics; pip install "minit2v[metrics]"') from error
    import torch

    given = torch.nn.Identity()  # the features are there already
    given.num_features = x.shape[-1]
    fid = FrechetInceptionDistance(given).set_dtype(torch.float64)
    for features, is_real in ((x, False), (real, True)):
        for clip in features:
            fid.update(torch.from_numpy(clip).double(), real=is_real)
    return replace(frechet_estimate(x, real, other, seed), value=max(0.0, float(fid.compute())))


DISTANCES = {  # metric -> (estimate from features of clips, real clips, further real clips and a seed; value alone)
    "FVD": (frechet_estimate, frechet_distance),
    "KVD": (lambda x, real, other, seed: kernel_estimate(x, real, other), kernel_distance),
    "FID-vid": (fid_estimate, frechet_distance),
    "FID-vid (CLIP)": (fid_estimate, frechet_distance),
}


def similarity(frames: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """CLIPSIM of each clip, (n,): mean over frames of the cosine of features (n, f, d) and texts (n, d) of length 1."""
    cosines = lambda clip, text: clip @ text / np.linalg.norm(clip, axis=1)  # (f d), (d) -> (f)
    return np.array([cosines(clip.astype(np.float64), text).mean() for clip, text in zip(frames, texts, strict=True)])


def _texts(clip: CLIP, captions: Sequence) -> np.ndarray:
    """Features (n, d) of captions; for several captions of a clip their mean, as CLIPSIM is linear in them."""
    several = [(one,) if isinstance(one, str) else tuple(one) for one in captions]
    features = clip.texts([text for texts in several for text in texts]).astype(np.float64)
    ends = np.cumsum([len(texts) for texts in several])
    return np.stack([part.mean(0) for part in np.split(features, ends[:-1])])


def _check_counts(clips, captions, real_clips, real_captions, other_real_clips) -> None:
    for name, several, texts in (("clips", clips, captions), ("real clips", real_clips, real_captions)):
        if len(several) != len(texts) or len(several) < 2:
            found = f"{len(several)} and {len(texts)}"
            raise UserError(f"expected two {name} or more and as many captions, found {found}; give one for each")
    if other_real_clips is not None and len(other_real_clips) < len(clips):
        raise UserError(f"floor: expected at least {len(clips)} further real clips, found {len(other_real_clips)}; "
                        "give more, or none")  # fmt: skip
