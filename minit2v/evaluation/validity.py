"""Does a metric notice damage? Every metric against every corruption, and what each is blind to, with the reason.

                  noise   blur   ...  shuffle 16   freeze   reversal     each cell: Spearman's correlation of the value
    FVD-mini      1.00    1.00           1.00       1.00     blind (c)   with the severity, over 6 severities; a value is
    FID-vid       1.00    1.00         blind (a)   blind (a)  blind (a)  the mean of 3 draws of clips and of damage

A metric *sees* a corruption if it gets worse in the order of severity: a correlation of 0.95 or more, so that no two of
the 6 values are the wrong way round. A metric may be robust: values that small damage leaves exactly as they were are no
disorder, as long as the four greatest severities are told apart. A cell of BLIND claims the opposite, with a reason, and
the claim is checked too: there the value changes by less than a tenth of what it does under the corruption that this
metric feels most. So neither half of the table can rot.

Fréchet distances are those to the very same clips undamaged, as in the references: 0 at severity 0, and no bias of small
sets and no chance of drawing between a small damage and its value. Only a reversal brings *other* real clips, so there a
distance counts as far as it is greater than that of other real clips.

References: distortions of rising strength as a test of metrics, arXiv 1706.08500, appendix A1; the content bias and the
pair of clip sets that shows it, arXiv 2404.12391, figure 1: a medium spatial corruption without a temporal one had an
FVD of 317.10, a small spatial with a severe temporal one 310.52, which is better; Spearman's correlation, The Proof and
Measurement of Association between Two Things, Am. J. Psychology 15 (1904), 72-101.
"""

from copy import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minit2v.datasets import MovingThings
from minit2v.errors import UserError
from minit2v.evaluation import networks
from minit2v.evaluation.corruptions import CORRUPTIONS, LEVELS, ORDER, PICTURE
from minit2v.evaluation.frechet import frechet_distance
from minit2v.evaluation.judge import agrees, read
from minit2v.evaluation.motion import measure
from minit2v.evaluation.similarity import Similarity

SEEDS = (0, 1, 2)
SIZE = 64  # of the clips, pixels
SEEN = 0.95  # least correlation with severity
FLOOR = 1024  # clips of the floor
UNSEEN = 0.10  # greatest change under a corruption that a metric is blind to, over that under the one it feels most

FRECHET = {"FVD-mini": "clip", "FVD-content": "content", "FID-vid": "frame", "FID-vid (CLIP)": "frame-clip"}
METRICS = {  # name -> 1: damage raises it, -1: lowers it, 0: takes it away from its value on real clips, either way
    **dict.fromkeys(FRECHET, 1), "CLIPSIM": -1, "video similarity": -1, "direction gap": -1, "R-precision": -1,
    "judge accuracy": -1, "motion amplitude": 0, "identity drift": 1, "flicker": 1,
}  # fmt: skip

BACKWARDS, TIME = ("reversal",), tuple(name for name in ORDER if name != "reversal")
BLIND = (  # reason, metrics, corruptions
    ("looks at one frame at a time, and each still is a frame of a real clip",
     ("FID-vid", "FID-vid (CLIP)", "CLIPSIM"), ORDER),
    ("was trained on shape and colour alone: only frames in wild order, far from their places, look odd to it",
     ("FVD-content",), ("shuffle 2", "shuffle 4", "freeze", "reversal", "drop")),
    ("a straight motion played backwards is another valid clip; only who knows the caption can tell",
     ("FVD-mini", "motion amplitude", "identity drift", "flicker"), BACKWARDS),
    ("averages over pixels and frames and puts a threshold on them, to be robust", ("judge accuracy",), ("noise",)),
    ("the line through 16 places stays the same where neighbours in time change places",
     ("judge accuracy",), ("shuffle 2",)),
    ("the damage leaves the thing where it is", ("motion amplitude",),
     tuple(name for name in PICTURE if name != "warp")),
    ("all thirds of the clip still look alike", ("identity drift",), ("blur", "colour shift", *TIME)),
    ("every frame still has the same brightness and colours", ("flicker",),
     ("blur", "colour shift", "occlusion", "steady warp", *TIME)),
)  # fmt: skip
PAIR = ("blur", (0.5, 0.4), "shuffle 16")  # spatial corruption, its medium and small severity, temporal one


@dataclass(frozen=True)
class Cell:
    """What one metric made of one corruption."""

    values: np.ndarray  # (seeds, levels)
    correlation: float  # of the mean over seeds with severity, in the direction of the metric
    share: float  # greatest change over levels, mean over seeds, over that of the corruption felt most
    reason: str | None  # why the metric is declared blind; None: it is declared to see

    @property
    def holds(self) -> bool:
        return self.correlation >= SEEN if self.reason is None else self.share < UNSEEN


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of the ranks of x (n,) and y (n,), -1..1; equal values share their mean rank, all equal gives 0.

    >>> spearman(np.array([1, 2, 3, 4]), np.array([1, 2, 30, 10]))
    0.8
    """
    a, b = ((ranks := _ranks(v)) - ranks.mean() for v in (x, y))
    return float(np.round(a @ b / np.sqrt((a @ a) * (b @ b)), 10)) if a.any() and b.any() else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[which]


def values(clips: np.ndarray, captions: list[str], specs: list, real: dict[str, np.ndarray]) -> dict[str, float]:
    """Every metric of METRICS on a set of clips (n, f, H, W, 3) uint8 with their captions and specs.

    real: {name in FRECHET: features} of the clips that distances are to.
    """
    features = _features(clips)
    found = {name: frechet_distance(features[name], real[name]) for name in FRECHET}
    similarity = _once(Similarity.load(), clips, features["FID-vid (CLIP)"])
    found["CLIPSIM"] = similarity.frame(clips, captions).mean()
    found["video similarity"] = similarity.video(clips, captions).mean()
    found["direction gap"] = similarity.swap_gap(clips, specs).mean()
    found["R-precision"] = similarity.rank(clips, specs).mean()
    found["judge accuracy"] = np.mean([agrees(read(clip), spec)["all"] for clip, spec in zip(clips, specs)])
    return found | {name: figure.mean() for name, figure in measure(clips).items()}


def _features(clips: np.ndarray) -> dict[str, np.ndarray]:
    return {name: networks.features(network)(clips) for name, network in FRECHET.items()}


def _once(similarity: Similarity, clips: np.ndarray, frames: np.ndarray) -> Similarity:
    """The same, for these clips alone: four metrics ask for the same features, which are computed once."""
    seen, videos = copy(similarity), similarity.video_features(clips)
    seen.frame_features, seen.video_features = lambda _: frames, lambda _: videos
    return seen


@lru_cache(maxsize=2)
def _clips(seed: int, n: int) -> tuple:
    """n clips of test_seen, captions and specs; other ones for each seed until the split begins again."""
    data = MovingThings("test_seen", size=SIZE)
    return data.batch((seed * n + np.arange(n)) % len(data))


@lru_cache(maxsize=2)
def _real(seed: int, n: int) -> dict[str, np.ndarray]:
    return _features(_clips(seed, n)[0])


def _point(task: tuple) -> dict[str, float]:
    """`values` of clips with one damage: (seed, corruption, severity, n)."""
    seed, name, severity, n = task
    clips, captions, specs = _clips(seed, n)
    return values(CORRUPTIONS[name](clips, severity, seed), captions, specs, _real(seed, n))


def table(n: int = 256, jobs: int = 1) -> dict[tuple[str, str], Cell]:
    """Measures all cells, {(metric, corruption): Cell}, with n clips a value, in so many processes.

    The same n give the same table. Raises UserError if n is under 8.
    """
    if not (isinstance(n, int) and n >= 8):
        raise UserError(f"n: expected a whole number from 8, found {n!r}: fewer clips have no distribution")
    first = next(iter(CORRUPTIONS))
    whole = [(seed, first, 0.0, n) for seed in SEEDS]  # severity 0, the same for all corruptions
    damaged = [(seed, name, level, n) for seed in SEEDS for name in CORRUPTIONS for level in LEVELS[1:]]
    points = dict(zip(whole + damaged, _mapped(_point, whole + damaged, jobs)))
    curves = {}
    for metric in METRICS:
        for name in CORRUPTIONS:
            keys = [[(seed, name if level else first, level, n) for level in LEVELS] for seed in SEEDS]
            curves[metric, name] = np.array([[points[key][metric] for key in row] for row in keys])
    other = {name: np.mean([frechet_distance(_real(SEEDS[-1] + 1 + seed, n)[name], _real(seed, n)[name])
                            for seed in SEEDS]) for name in FRECHET}  # fmt: skip
    return cells(curves, other)


def cells(curves: dict[tuple[str, str], np.ndarray], other: dict[str, float]) -> dict[tuple[str, str], Cell]:
    """Judges the curves {(metric, corruption): (seeds, levels)} of METRICS and what BLIND says of them.

    other: {metric: Fréchet distance of other real clips}; what a reversal may bring without being seen.
    """
    change = {key: np.abs(curve - curve[:, :1]).max(1).mean() for key, curve in curves.items()}
    most = {metric: max(change[key] for key in curves if key[0] == metric) for metric, _ in curves}
    found = {}
    for (metric, name), curve in curves.items():
        worse = curve * METRICS[metric] if METRICS[metric] else np.abs(curve - curve[:, :1])
        reasons = [reason for reason, metrics, names in BLIND if metric in metrics and name in names]
        felt = change[metric, name] - (other.get(metric, 0.0) if name in BACKWARDS else 0.0)
        share = max(0.0, felt) / (most[metric] or 1)
        found[metric, name] = Cell(curve, _order(worse.mean(0)), float(share), reasons[0] if reasons else None)
    return found


def _order(values: np.ndarray) -> float:
    """Correlation of values (levels,) with severity; of those that are as without damage, up to two are passed over."""
    untouched = int(np.argmax(values != values[0])) - 1 if (values != values[0]).any() else 0
    values = values[min(untouched, 2) :]
    return spearman(np.arange(len(values)), values)


def _mapped(function, tasks: list, jobs: int) -> list:
    from concurrent.futures import ProcessPoolExecutor

    from tqdm.auto import tqdm

    bar = {"total": len(tasks), "desc": "validity", "unit": "set", "disable": None}
    if jobs == 1:
        return list(tqdm(map(function, tasks), **bar))
    with ProcessPoolExecutor(jobs, initializer=_one_thread) as pool:
        return list(tqdm(pool.map(function, tasks, chunksize=5), **bar))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def matched_pair(n: int = 256) -> dict[str, tuple[float, float]]:
    """FVD-content and FVD-mini of two sets: {metric: (medium spatial corruption, small spatial and severe temporal)}.

    FVD-content calls the second better, as the I3D's FVD did in arXiv 2404.12391; FVD-mini must not.
    """
    spatial, severities, temporal = PAIR
    medium, small = (CORRUPTIONS[spatial](_clips(0, n)[0], severity, 0) for severity in severities)
    sets = _features(medium), _features(CORRUPTIONS[temporal](small, 1.0, 0))
    return {name: tuple(frechet_distance(found[name], _real(0, n)[name]) for found in sets) for name in FRECHET}


def floor(n: int = FLOOR) -> tuple[float, float]:
    """FVD-mini of real against real clips, n each, and of uniform noise against real ones. They share no clip."""
    network, data = networks.features("clip"), MovingThings("train", size=SIZE)
    real, other = (network(data.batch(range(start, start + n))[0]) for start in (500_000, 500_000 + n))
    noise = np.random.default_rng(0).integers(0, 256, (n, 16, networks.SIZE, networks.SIZE, 3), np.uint8)
    return frechet_distance(other, real), frechet_distance(network(noise), real)
