"""FVD, KVD, FID-vid and CLIPSIM with the networks of the literature, for clips of any size and number.

    clips ──┐                             ┌─ I3D ────────┬> FVD              Fréchet distance of clips
            │                             │              └> KVD              kernel distance, to cross-check it
            ├─ a batch at a time, 256x256 ├─ Inception ───> FID-vid          Fréchet distance of frames
    real  ──┘   features kept on disk     └─ CLIP frames ┬> FID-vid (CLIP)   likewise
    captions ───────────────── CLIP text ────────────────┴> CLIPSIM          mean over frames of the cosine, and its
                                                                             ratio to that of the real clips

Clips do not fit in memory together (2,048 of 16 x 256 x 256 are 6.4 GB), features do. So clips come as something that
has a length and gives a part, `clips[i:j]`: an array, a list, files read at that moment (`Videos`) or prompts sampled.
With a folder for the features an interrupted run goes on: finished batches are not asked for again.

Every distance has a floor, real against real: of further real clips where they are given, with as many as there are
clips to be measured; else of one half of the real clips against the other.

Each metric whose file is not named is left out with a warning that says so.

References: FVD, arXiv 1812.01717, section 2; FID, arXiv 1706.08500, equation 6; CLIPSIM and its ratio, GODIVA, arXiv
2104.14806.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from minit2v.errors import UserError
from minit2v.evaluation.estimates import Estimate, mean_estimate, ratio_estimate
from minit2v.evaluation.frechet import frechet_distance, frechet_estimate, kernel_distance, kernel_estimate
from minit2v.evaluation.full_scale.backbones import CLIP, I3D, Inception
from minit2v.evaluation.full_scale.extraction import extract

NEEDS = {  # metric -> network
    "FVD": "i3d", "KVD": "i3d", "FID-vid": "inception",
    "FID-vid (CLIP)": "clip", "CLIPSIM": "clip", "CLIPSIM / real": "clip",
}  # fmt: skip
FILES = {"i3d": "i3d_torchscript.pt", "inception": "weights-inception-2015-12-05-6726825d.pth", "clip": "ViT-B-32.pt"}


@dataclass(frozen=True)
class Settings:
    """Files of the networks with their digests, and what else decides about the figures."""

    i3d: str | Path | None = None  # I3D of Kinetics-400 as TorchScript
    i3d_sha256: str | None = None  # 64 hexadecimal digits; no file is opened without
    inception: str | Path | None = None  # Inception of 2015 as torch-fidelity has it
    inception_sha256: str | None = None
    inception_layer: int = 2048  # width of its features: 2048 is FID's own; 768, 192, 64
    clip: str | Path | None = None  # OpenAI's CLIP ViT-B/32
    clip_sha256: str | None = None
    clip_model: str = "ViT-B-32-quickgelu"  # open_clip's name of the sizes; OpenAI's weights need quick GELU
    frames: int = 16  # of every clip; papers: 16
    size: int = 256  # pixels, of real and generated clips before any network; ModelScopeT2V: 256
    crop: bool = True  # the centre square; False squeezes the whole frame into the square
    batch: int = 8  # clips at a time; changes no figure
    device: str = "auto"  # cpu, cuda, mps
    features: str | Path | None = None  # folder to keep features in, so that an interrupted run goes on
    seed: int = 0  # of the bootstrap, and of the halves that give a floor
    self_test: bool = True  # of a report: I3D must tell black from white clips as the published one does

    def __post_init__(self):
        for key in ("frames", "size", "batch"):
            if not (isinstance(value := getattr(self, key), int) and value >= 1):
                raise UserError(f"full scale: expected {key} to be a whole number from 1, found {value!r}")

    def record(self) -> dict:
        """For the report: settings that decide about a figure, names of files without their folders, and versions."""
        from importlib.metadata import version

        kept = {key: value for key, value in asdict(self).items() if key not in ("batch", "features")}
        names = {key: kept[key] and Path(kept[key]).name for key in FILES}
        versions = {name: version(name) for name in ("torch", "open_clip_torch")}
        return kept | names | versions | {"resize": "bicubic with antialias"}


def skipped(settings: Settings) -> dict[str, str]:
    """{metric that cannot be measured: a line that says which file is missing}.

    >>> skipped(Settings(i3d="i.pt", clip="c.pt"))
    {'FID-vid': 'FID-vid: skipped, no file inception (weights-inception-2015-12-05-6726825d.pth) was named'}
    """
    return {
        metric: f"{metric}: skipped, no file {key} ({FILES[key]}) was named"
        for metric, key in NEEDS.items() if getattr(settings, key) is None
    }  # fmt: skip


def measure(
    clips: Sequence, captions: Sequence[str], real_clips: Sequence, settings: Settings,
    real_captions: Sequence | None = None, other_real_clips: Sequence | None = None,
) -> dict[str, Estimate]:  # fmt: skip
    """The full-scale metrics of clips, by name.

    Args:
        clips, real_clips, other_real_clips: anything with a length whose parts `[i:j]` are clips, uint8 (f, H, W, 3)
            of any height and width. If they have an attribute `label`, it must say all that the pixels depend on;
            otherwise their pixels are hashed to find kept features.
        captions: of each clip. real_captions: of each real clip, one or several; None: the same as captions.
        other_real_clips: further ones, at least as many as clips, for the floor of the distances. None: the floor is
            the distance between two random halves of the real clips, if these are four or more; as it falls with
            the number of clips, it is about twice that of all of them against as many others.

    Raises UserError for counts that do not agree, clips of another length, and files that are missing or others.
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


def load(settings: Settings) -> dict:
    """{"i3d", "inception", "clip": network} of the files that are named. Raises UserError as the networks do."""
    from minit2v.devices import find_device

    device, given = find_device(settings.device), settings
    makers = {
        "i3d": lambda: I3D.load(given.i3d, given.i3d_sha256, device),
        "inception": lambda: Inception.load(given.inception, given.inception_sha256, given.inception_layer, device),
        "clip": lambda: CLIP.load(given.clip, given.clip_sha256, given.clip_model, device),
    }
    return {key: make() for key, make in makers.items() if getattr(settings, key) is not None}


def fid_estimate(x: np.ndarray, real: np.ndarray, other: np.ndarray | None = None, seed: int = 0) -> Estimate:
    """FID of features (n, f, d) of frames from those of real frames: the value is torchmetrics', the interval ours.

    All frames are in memory, in float64: with Inception's 2,048 numbers a frame, 2,048 clips of 16 take 0.5 GB a set
    and 59,800 take 16 GB.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise UserError("FID-vid needs the package torchmetrics; pip install 'minit2v[metrics]'") from error
    import torch

    given = torch.nn.Identity()  # the features are there already
    given.num_features = x.shape[-1]
    fid = FrechetInceptionDistance(given).set_dtype(torch.float64)
    for features, is_real in ((x, False), (real, True)):
        for clip in features:
            fid.update(torch.from_numpy(clip).double(), real=is_real)
    return replace(frechet_estimate(x, real, other, seed), value=max(0.0, float(fid.compute())))


DISTANCES = {  # metric -> its estimate from features of clips, real clips and further ones and a seed; its value alone
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
    """(n, d): of a clip with several captions their mean, as the mean of products is the product with the mean."""
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
