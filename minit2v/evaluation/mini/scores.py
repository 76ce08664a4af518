"""All metrics of a set of clips, against real clips of the same prompts.

    captions ─┬─> real clips, drawn anew twice ─ networks ─> features ─┐
              │                                                        ├─> FVD-mini, FVD-content, FID-vid   (how far?)
    clips ────┼────────────────────────────────── networks ─> features ─┘
              ├─ similarity of text and clip ──> CLIPSIM, video similarity, direction gap, R-precision
              └─ pixels ───────────────────────> motion amplitude, identity drift, flicker

The real clips show the very specs that were asked for, at other places. So whatever the prompts are, the reference has
their distribution, and a distance tells how the clips look and move, not what was asked.

References: FVD, arXiv 1812.01717; FID, arXiv 1706.08500; CLIPSIM and its ratio to real clips, arXiv 2104.14806;
R-precision, arXiv 1711.10485, section 4.
"""

from dataclasses import replace

import numpy as np

from minit2v.datasets.moving_things import Spec
from minit2v.datasets.moving_things.scenes import RADIUS, SPEED, render
from minit2v.evaluation import motion
from minit2v.evaluation.estimates import Estimate, mean_estimate, ratio_estimate, share_estimate
from minit2v.evaluation.frechet import frechet_estimate
from minit2v.evaluation.mini import networks
from minit2v.evaluation.mini.similarity import Similarity

DISTANCES = {"FVD-mini": "clip", "FVD-content": "content", "FID-vid": "frame", "FID-vid (CLIP)": "frame-clip"}
ANEW = 2  # real clips of each prompt in the reference


class Reference:
    """Real clips of some prompts, and all that is measured against them.

    captions and specs of n prompts of level 1; real: clips of them (n, f, H, H, 3) uint8, which set the size and the
    floor of every distance. Raises UserError if the networks of the metrics are missing.
    """

    def __init__(self, captions: list[str], specs: list[Spec], real: np.ndarray, seed: int = 0):
        self.captions, self.specs, self.seed = captions, specs, seed
        self.networks = {metric: networks.features(name) for metric, name in DISTANCES.items()}
        self.similarity = Similarity.load()
        anew = redrawn(specs * ANEW, real.shape[2], real.shape[1], seed)
        self.anew = {metric: network(anew) for metric, network in self.networks.items()}
        self.real = {metric: network(real) for metric, network in self.networks.items()}
        self.real_clipsim = self.similarity.frame(real, captions)

    def measure(self, clips: np.ndarray) -> dict[str, Estimate]:
        """Every metric of clips (n, f, H, W, 3) uint8, clip i of prompt i, with its 95 % interval."""
        found = {}
        for metric, network in self.networks.items():
            found[metric] = frechet_estimate(network(clips), self.anew[metric], self.real[metric], self.seed)
        clipsim = self.similarity.frame(clips, self.captions)
        found["CLIPSIM"] = mean_estimate(clipsim)
        found["CLIPSIM / real"] = ratio_estimate(clipsim, self.real_clipsim)
        found["video similarity"] = mean_estimate(self.similarity.video(clips, self.captions))
        found["direction gap"] = mean_estimate(self.similarity.swap_gap(clips, self.specs))
        found["R-precision"] = share_estimate(self.similarity.rank(clips, self.specs, self.seed))
        return found | {name: mean_estimate(values) for name, values in motion.measure(clips).items()}

    def diversity(self, clips: np.ndarray) -> Estimate:
        """How unlike one another the clips (prompts, seeds, f, H, W, 3) of one prompt are, in FVD-mini's features."""
        features = self.networks["FVD-mini"](clips.reshape(-1, *clips.shape[2:]))  # ((prompts seeds) d)
        return mean_estimate(motion.diversity(features.reshape(*clips.shape[:2], -1)))


def redrawn(specs: list[Spec], size: int, frames: int, seed: int) -> np.ndarray:
    """Real clips (n, frames, size, size, 3) of the specs at random places; what a spec leaves open is drawn too."""
    luck = np.random.default_rng(seed)
    return render([_whole(spec, luck) for spec in specs], luck.uniform(size=(len(specs), 3)), size, frames)


def _whole(spec: Spec, luck: np.random.Generator) -> Spec:
    """The spec with a size and a speed, drawn if its caption is silent about them."""
    thing = spec.things[0]
    size = thing.size or luck.choice(tuple(RADIUS)).item()
    speed = thing.speed or luck.choice(tuple(SPEED)).item()
    return replace(spec, things=(replace(thing, size=size, speed=speed),))
