"""How things move, whether they stay themselves and whether they flicker: measured on pixels, without a network.

    frames ─> differs from the background ─> how far that moves from frame to frame ─> motion amplitude
                       │
                       └─> moved to the middle, mean over each third, compared ──────> identity drift
    frames ─> pixels in order of brightness, compared from frame to frame ───────────> flicker

Each figure is defined for every clip, even where the judge finds nothing: an empty clip has amplitude, drift and
flicker 0, uniform noise has the greatest drift. They say nothing about the prompt. Read them beside the value of real
clips: too little is as far off as too much. Like the judge, they take for a thing whatever differs from the one colour
that most of the clip has.

References: motion amplitude is a sum of earth mover's distances (Rubner, Tomasi and Guibas, IJCV 40, 2000, section 3);
the figures correspond to "dynamic degree", "subject consistency" and "temporal flickering" of VBench (arXiv 2311.17982,
section 3.1), which needs a flow network and two feature networks; consistency of features: Gen-1, arXiv 2302.03011,
section 4; diversity as in arXiv 1711.11586, section 5.
"""

from typing import Annotated

import numpy as np

from minit2v.errors import UserError
from minit2v.evaluation import finding
from minit2v.evaluation.mini.networks import check_clips
from minit2v.pixels import Clips
from minit2v.ranges import Array, public

FPS = 8  # frames a second of Moving Things
LEAST_FRAMES = 3  # of a clip: one for each third
PAIRS = ((0, 1), (0, 2), (1, 2))  # of thirds of a clip


@public
def measure(clips: Clips) -> dict[str, np.ndarray]:
    """Measures the three figures of each of the clips (n, f, H, W, 3) uint8: {name: (n,) float64}.

    "motion amplitude"  length of the thing's path, picture widths a second at 8 frames a second, from 0; in real clips
                        0.15 and 0.30. Cannot see a rotation in place; a lower bound where things move apart.
    "identity drift"    greatest change of the thing's look between thirds of the clip, 0 (none) to 1 (nothing in
                        common). Cannot see a change within a third, nor one that recurs in every third.
    "flicker"           change of brightness and colour from frame to frame that no rearrangement of pixels explains,
                        grey levels, 0 to 255. Cannot see a wrong order of frames that differ only in places, and sees
                        little of noise that is equally strong in every frame.

    Raises UserError for clips of another shape or type, or of fewer than LEAST_FRAMES frames.

    >>> measure(np.zeros((1, 16, 64, 64, 3), np.uint8))["motion amplitude"]
    array([0.])
    """
    figures = {"motion amplitude": amplitude, "identity drift": drift, "flicker": flicker}
    small = [finding.pooled(clip) for clip in check_clips(clips, LEAST_FRAMES)]
    return {name: np.array([figure(clip) for clip in small]) for name, figure in figures.items()}


def amplitude(clip: np.ndarray) -> float:
    """Path length in widths a second of a clip (f, h, w, 3): how far the pixels that differ from the background move.

    The earth mover's distance along one axis is the area between the two cumulative distributions. For a thing that
    only moves it is the distance moved; combined over both axes it never exceeds the distance in the plane.
    """
    weight = finding.weights(clip - finding.median_colour(clip)).astype(np.float64)
    weight = weight[weight.any((1, 2))]  # without frames that show nothing
    if len(weight) < 2:
        return 0.0
    steps = []
    for axis in (1, 2):
        share = weight.sum(axis) / weight.sum((1, 2))[:, None]  # (f h w) -> (f w), (f h)
        steps.append(np.abs(np.diff(share.cumsum(1), axis=0)).sum(1))
    return float(np.hypot(*steps).sum() / clip.shape[2] * FPS / (len(clip) - 1))


def drift(clip: np.ndarray) -> float:
    """Greatest |a - b| / (|a| + |b|) of the mean looks a, b of two thirds of a clip (f, h, w, 3), 0..1."""
    difference = clip - finding.median_colour(clip)
    weight, centre, _ = finding.locate(difference)
    centre[~weight.any((1, 2))] = np.array(clip.shape[2:0:-1]) / 2  # an empty frame: look in the middle
    thirds = np.array_split(np.arange(len(clip)), 3)
    planes = [[finding.mean_look(difference[third, :, :, c], centre[third]) for c in range(3)] for third in thirds]
    looks = np.array(planes, np.float64).reshape(3, -1)  # (thirds 3 GRID²) -> (thirds, (3 GRID²))
    length = np.sqrt(np.square(looks).sum(1))
    apart = [np.sqrt(np.square(looks[i] - looks[j]).sum()) / (length[i] + length[j] + 1e-9) for i, j in PAIRS]
    return float(max(apart))


def flicker(clip: np.ndarray) -> float:
    """Mean absolute change between the ranked values of each colour channel in successive frames, grey levels.

    Among all ways to rearrange the pixels of one frame, ranking leaves the least change: the part of the change that no
    motion can explain.
    """
    f, _, _, c = clip.shape
    ranked = np.sort(clip.reshape(f, -1, c), axis=1)  # (f h w c) -> (f (h w) c)
    return float(np.abs(np.diff(ranked.astype(np.float64), axis=0)).mean())


@public
def consistency(features: Annotated[np.ndarray, Array("n f d", finite=True)]) -> np.ndarray:
    """Mean cosine between neighbouring frames: features of frames (n, f, d) -> (n,), at most 1.

    Cannot see whether the clip moves at all: a still image is perfect. Raises UserError for fewer than two frames.

    >>> consistency(np.array([[[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]]]))
    array([0.5])
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 3 or features.shape[1] < 2:
        raise UserError(f"expected features (n, f, d) of two frames or more, found {features.shape}")
    unit = features / np.sqrt(np.square(features).sum(-1, keepdims=True))
    return (unit[:, 1:] * unit[:, :-1]).sum(-1).mean(1)  # eq (13.2) · Gen-1, "frame consistency"


@public
def diversity(features: Annotated[np.ndarray, Array("p n d", finite=True)]) -> np.ndarray:
    """Mean distance between two clips of one prompt: features (prompts, seeds, d) -> (prompts,), from 0.

    The unit is that of the features, so compare only with real clips of equal captions in the same network. Cannot see
    whether the clips are any good, nor differences that the network was not trained on. Raises UserError for fewer than
    two seeds.

    >>> diversity(np.array([[[0.0, 0.0], [3.0, 4.0]]]))
    array([5.])
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 3 or features.shape[1] < 2:
        raise UserError(f"expected features (prompts, seeds, d) of two seeds or more, found {features.shape}")
    one, other = np.triu_indices(features.shape[1], 1)
    return np.sqrt(np.square(features[:, one] - features[:, other]).sum(-1)).mean(1)
