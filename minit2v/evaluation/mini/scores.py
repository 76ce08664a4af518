"""All metrics of a set of clips, against real clips.

    further real clips ─ networks ─> features ─┐
                                               ├─> FVD-mini, FVD-content, FID-vid   (how far apart?)
    clips ─────┬──────── networks ─> features ─┘
               ├─ pixels ────────────────────────> motion amplitude, identity drift, flicker
               ├─ judge, frame by frame ─────────> colour changes, shape breaks
               └─ similarity to the captions ────> CLIPSIM, video similarity, direction gap, R-precision

`Reference` serves any data set. Its networks know Moving Things only, so elsewhere its distances compare clips of one
data set with each other and with the floor, and nothing else.

`DrawnReference` serves Moving Things. Its further real clips show the very specs of the prompts, at other places. So
whatever the prompts are, the reference has their distribution, and a distance measures how the clips look and move, not
which prompts were chosen.

References: FVD, arXiv 1812.01717; FID, arXiv 1706.08500; CLIPSIM and its ratio to real clips, arXiv 2104.14806;
R-precision, arXiv 1711.10485, section 4.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from minit2v.datasets.moving_things import Spec, caption, parse
from minit2v.datasets.moving_things.scenes import RADIUS, SPEED, render
from minit2v.evaluation import motion
from minit2v.evaluation.estimates import Estimate, mean_estimate, ratio_estimate, share_estimate
from minit2v.evaluation.frechet import frechet_estimate
from minit2v.evaluation.judge import unsteady
from minit2v.evaluation.mini.features import DISTANCES, features
from minit2v.evaluation.mini.similarity import Similarity

REFERENCE_CLIPS = 2  # further real clips for each prompt
BEST_PSNR = 100.0  # of equal clips, dB: infinity has no mean


class Reference:
    """Real clips of any data set, and the metrics that need nothing else.

    real: clips (n, f, H, W, 3) uint8, which give every distance its floor. further: real clips likewise, part by part,
    from which the distances are measured. Raises UserError if the networks of the metrics are missing.
    """

    distances = ("FVD-mini", "FID-vid")

    def __init__(self, real: np.ndarray, further: Iterable[np.ndarray], seed: int = 0):
        self.seed = seed
        self.networks = {metric: features(DISTANCES[metric]) for metric in self.distances}
        parts = [{metric: network(clips) for metric, network in self.networks.items()} for clips in further]
        self.further = {metric: np.concatenate([part[metric] for part in parts]) for metric in self.networks}
        self.real = {metric: network(real) for metric, network in self.networks.items()}

    def measure(self, clips: np.ndarray) -> dict[str, Estimate]:
        """Every metric of clips (n, f, H, W, 3) uint8, clip i of prompt i, with its 95 % interval."""
        distances = {
            metric: frechet_estimate(network(clips), self.further[metric], self.real[metric], self.seed)
            for metric, network in self.networks.items()
        }
        return distances | {name: mean_estimate(values) for name, values in motion.measure(clips).items()}


class DrawnReference(Reference):
    """Real clips of prompts of Moving Things, and every metric.

    captions and specs of n prompts of level 1; real: clips of them (n, f, H, H, 3) uint8, which set the size and the
    floor of every distance. Raises UserError if the networks of the metrics are missing.
    """

    distances = tuple(DISTANCES)

    def __init__(self, captions: list[str], specs: list[Spec], real: np.ndarray, seed: int = 0):
        self.captions, self.specs = captions, specs
        self.english = [in_english(text) for text in captions]  # what the metrics' CLIP reads
        super().__init__(real, [redrawn(specs * REFERENCE_CLIPS, real.shape[2], real.shape[1], seed)], seed)
        self.similarity = Similarity.load()
        self.real_clipsim = self.similarity.frame(real, self.english)

    def measure(self, clips: np.ndarray) -> dict[str, Estimate]:
        found = [unsteady(clip) for clip in clips]
        clipsim = self.similarity.frame(clips, self.english)
        return super().measure(clips) | {
            "CLIPSIM": mean_estimate(clipsim),
            "CLIPSIM / real": ratio_estimate(clipsim, self.real_clipsim),
            "video similarity": mean_estimate(self.similarity.video(clips, self.english)),
            "direction gap": mean_estimate(self.similarity.swap_gap(clips, self.specs)),
            "R-precision": share_estimate(self.similarity.rank(clips, self.specs, self.seed)),
        } | {name: share_estimate([each[name] for each in found]) for name in found[0]}

    def diversity(self, clips: np.ndarray) -> Estimate:
        """Mean distance between clips (prompts, seeds, f, H, W, 3) of one prompt, in the features of FVD-mini."""
        features = self.networks["FVD-mini"](clips.reshape(-1, *clips.shape[2:]))  # ((prompts seeds) d)
        return mean_estimate(motion.diversity(features.reshape(*clips.shape[:2], -1)))


def in_english(text: str) -> str:
    """A caption of Moving Things, said in English if it is in Chinese.

    >>> in_english("一个红色圆形向左移动")
    'a red circle moves left'
    """
    return text if text.isascii() else caption(parse(text))


def redrawn(specs: list[Spec], size: int, frames: int, seed: int) -> np.ndarray:
    """Real clips (n, frames, size, size, 3) of the specs at random places; what a spec leaves open is random too."""
    rng = np.random.default_rng(seed)
    return render([_completed(spec, rng) for spec in specs], rng.uniform(size=(len(specs), 3)), size, frames)


def _completed(spec: Spec, rng: np.random.Generator) -> Spec:
    """The spec with a random size and speed where its caption says none."""
    thing = spec.things[0]
    size = thing.size or rng.choice(tuple(RADIUS)).item()
    speed = thing.speed or rng.choice(tuple(SPEED)).item()
    return replace(spec, things=(replace(thing, size=size, speed=speed),))


def psnr(clips: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of clips (n, f, H, W, 3) uint8 to their originals, (n,) in dB, at most BEST_PSNR.

    >>> round(float(psnr(np.full((1, 2, 4, 4, 3), 99, np.uint8), np.full((1, 2, 4, 4, 3), 74, np.uint8))[0]), 1)
    20.2
    """
    errors = [np.square(clip.astype(np.float32) - original).mean() for clip, original in zip(clips, originals)]
    # exactly the bound, and not what a processor's logarithm makes of it
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(errors, 1e-12)), BEST_PSNR)
