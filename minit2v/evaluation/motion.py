"""How things move, whether they stay themselves and whether they flicker: read from pixels, with no network in it.

    frames ─> unlike the background ─> how far that moves from frame to frame ──────> motion amplitude
                       │
                       └─> moved to the middle, mean over each third, compared ─────> identity drift
    frames ─> pixels in order of brightness, compared from frame to frame ──────────> flicker

Each is defined for every clip, also for one in which the judge finds nothing: an empty clip has amplitude, drift and
flicker 0, uniform noise has the most drift. They say nothing about the prompt; beside them stands the value of real
clips, from which too little is as far off as too much. They look for a thing as the judge does, as whatever is unlike
the one colour that most of the clip has.

References: motion amplitude is a sum of earth mover's distances (Rubner, Tomasi and Guibas, IJCV 40, 2000, section 3);
the figures answer to "dynamic degree", "subject consistency" and "temporal flickering" of VBench (arXiv 2311.17982,
section 3.1), which take a flow network and two feature networks; diversity as in arXiv 1711.11586, section 5.
"""

import numpy as np

from minit2v.errors import UserError
from minit2v.evaluation import judge
from minit2v.evaluation.mini.networks import check_clips

FPS = 8  # frames a second of Moving Things
PAIRS = ((0, 1), (0, 2), (1, 2))  # of thirds of a clip


def measure(clips: np.ndarray) -> dict[str, np.ndarray]:
    """The three figures of each of the clips (n, f, H, W, 3) uint8, {name: (n,) float64}.

    "motion amplitude"  length of the thing's path, picture widths a second at 8 frames a second, from 0; in real clips
                        0.15 and 0.30. Cannot see what turns on the spot; of things that part it has only a lower bound.
    "identity drift"    greatest change of the thing's look between thirds of the clip, 0 (none) to 1 (nothing in
                        common). Cannot see a change within a third, nor one that comes and goes in every third.
    "flicker"           change of brightness and colour from frame to frame that no rearrangement of pixels explains,
                        grey levels, 0 to 255. Cannot see frames in another order where nothing but places differ, and
                        sees little of noise that is as strong in every frame.

    Raises UserError for clips of another shape or type, or of fewer than three frames.

    >>> measure(np.zeros((1, 16, 64, 64, 3), np.uint8))["motion amplitude"]
    array([0.])
    """
    figures = {"motion amplitude": amplitude, "identity drift": drift, "flicker": flicker}
    small = [judge._pooled(clip) for clip in check_clips(clips, frames=3)]
    return {name: np.array([figure(clip) for clip in small]) for name, figure in figures.items()}


def amplitude(clip: np.ndarray) -> float:
    """Path length in widths a second of a clip (f, h, w, 3): the way that what is unlike the background has to go.

    The earth mover's distance along one axis is the area between the two cumulative distributions. For a thing that
    only moves it is how far; the root of the sum of both squares is never more than the distance in the plane.
    """
    weight = judge._weight(clip - judge._background(clip)).astype(np.float64)
    weight = weight[weight.any((1, 2))]  # a frame that shows nothing is passed over
    if len(weight) < 2:
        return 0.0
    steps = []
    for axis in (1, 2):
        share = weight.sum(axis) / weight.sum((1, 2))[:, None]  # (f h w) -> (f w), (f h)
        steps.append(np.abs(np.diff(share.cumsum(1), axis=0)).sum(1))
    return float(np.hypot(*steps).sum() / clip.shape[2] * FPS / (len(clip) - 1))


def drift(clip: np.ndarray) -> float:
    """Greatest |a - b| / (|a| + |b|) of the mean looks a, b of two thirds of a clip (f, h, w, 3), 0..1."""
    difference = clip - judge._background(clip)
    weight, centre, _ = judge._locate(difference)
    centre[~weight.any((1, 2))] = np.array(clip.shape[2:0:-1]) / 2  # nothing there: look in the middle
    thirds = np.array_split(np.arange(len(clip)), 3)
    planes = [[judge._mean_look(difference[third, :, :, c], centre[third]) for c in range(3)] for third in thirds]
    looks = np.array(planes, np.float64).reshape(3, -1)  # (thirds 3 GRID²) -> (thirds, (3 GRID²))
    length = np.sqrt(np.square(looks).sum(1))
    apart = [np.sqrt(np.square(looks[i] - looks[j]).sum()) / (length[i] + length[j] + 1e-9) for i, j in PAIRS]
    return float(max(apart))


def flicker(clip: np.ndarray) -> float:
    """Mean absolute change between the ranked values of each colour channel in successive frames, grey levels.

    Of all ways to rearrange the pixels of one frame, ranking both leaves the least change, so this is what is left
    when motion has explained all that it can.
    """
    f, _, _, c = clip.shape
    ranked = np.sort(clip.reshape(f, -1, c), axis=1)  # (f h w c) -> (f (h w) c)
    return float(np.abs(np.diff(ranked.astype(np.float64), axis=0)).mean())


def diversity(features: np.ndarray) -> np.ndarray:
    """Mean distance between two clips of one prompt: features (prompts, seeds, d) -> (prompts,), from 0, in the
    features' own unit, so only to compare with real clips of equal captions in the same network.

    Cannot see whether the clips are any good, nor differences that the network was not trained on. Raises UserError
    for fewer than two seeds.

    >>> diversity(np.array([[[0.0, 0.0], [3.0, 4.0]]]))
    array([5.])
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 3 or features.shape[1] < 2:
        raise UserError(f"expected features (prompts, seeds, d) of two seeds or more, found {features.shape}")
    one, other = np.triu_indices(features.shape[1], 1)
    return np.sqrt(np.square(features[:, one] - features[:, other]).sum(-1)).mean(1)
