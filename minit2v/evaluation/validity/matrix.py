"""Does a metric notice damage? Every metric against every corruption, and what each is blind to, with the reason.

                  noise   blur   ...  shuffle 16   freeze   reversal     a cell: Spearman's correlation of the value
    FVD-mini      1.00    1.00           1.00       1.00     blind (c)   with the severity, over 6 of them; a value is
    FID-vid       1.00    1.00         blind (a)   blind (a)  blind (a)  the mean of 3 draws of clips and of damage

A metric *sees* a corruption if it gets worse in the order of severity: a correlation of 0.95 or more, so that no two of
the 6 values are in the wrong order. It may be robust: up to two small severities are left out if their change is within
twice its standard error over the draws, and the least severity that is noticed is reported. Two tuples claim the
opposite, each with its reason, and these claims are checked as well, so neither half of the table can go stale:

    BLIND    the value changes by less than a tenth of its change under the corruption that this metric feels most
    MISLED   a little damage makes the value better; only from severity 0.4 on it gets worse, in order

Fréchet distances are those to the very same clips undamaged: 0 at severity 0, and no bias of small sets hides a small
damage. Only a reversal makes *other* real clips, so there only the part of a distance beyond that of such clips counts.

References: distortions of rising strength as a test of metrics, arXiv 1706.08500, appendix A1; the content bias and the
pair of clip sets that shows it, arXiv 2404.12391, figure 1: a medium spatial corruption without a temporal one had an
FVD of 317.10, a small spatial with a severe temporal one 310.52, which is better; Spearman's correlation, Am. J.
Psychology 15 (1904), 72-101.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.evaluation.frechet import frechet_distance
from minit2v.evaluation.judge import agrees, read
from minit2v.evaluation.mini.features import DISTANCES, features
from minit2v.evaluation.mini.networks import SIZE as SMALL
from minit2v.evaluation.mini.similarity import Similarity
from minit2v.evaluation.motion import measure
from minit2v.evaluation.validity.corruptions import CORRUPTIONS, LEVELS, ORDER, PICTURE

SEEDS = (0, 1, 2)
SIZE = 64  # of the clips, pixels
SEEN = 0.95  # least correlation with severity
FLOOR = 1024  # clips of the floor
UNSEEN = 0.10  # greatest change under a corruption that a metric is blind to, relative to its greatest of all

METRICS = {  # name -> 1: damage raises it, -1: lowers it, 0: changes it in either direction
    **dict.fromkeys(DISTANCES, 1), "CLIPSIM": -1, "video similarity": -1, "direction gap": -1, "R-precision": -1,
    "judge accuracy": -1, "motion amplitude": 0, "identity drift": 1, "flicker": 1,
}  # fmt: skip

BACKWARDS, TIME = ("reversal",), tuple(name for name in ORDER if name != "reversal")
BLIND = (  # (reason, metrics, corruptions)
    ("looks at one frame at a time, and each one is still a frame of a real clip",
     ("FID-vid", "FID-vid (CLIP)", "CLIPSIM"), ORDER),
    ("was trained on shape and colour alone: only frames far from their places in time look unusual to it",
     ("FVD-content",), ("shuffle 2", "shuffle 4", "freeze", "reversal", "drop")),
    ("a straight motion played backwards is another valid clip; only a metric that reads the caption can see it",
     ("FVD-mini", "motion amplitude", "identity drift", "flicker"), BACKWARDS),
    ("is robust by design: it averages over pixels and frames and applies a threshold",
     ("judge accuracy",), ("noise",)),
    ("neighbouring frames change places, but the path as a whole stays the same",
     ("judge accuracy", "video similarity", "direction gap", "R-precision"), ("shuffle 2",)),
    ("the damage does not hide where the thing goes", ("direction gap",),
     ("blur", "colour shift", "shuffle 4")),
    ("the damage does not move the thing", ("motion amplitude",),
     tuple(name for name in PICTURE if name != "warp")),
    ("all thirds of the clip still look alike", ("identity drift",), ("blur", "colour shift", *TIME)),
    ("all frames still have the same brightness and colours", ("flicker",),
     ("blur", "colour shift", "occlusion", "steady warp", *TIME)),
)  # fmt: skip
MISLED = (  # likewise
    ("its network never saw this damage: a little of it makes clips resemble their captions more, not less",
     (("CLIPSIM", "noise"), ("video similarity", "blur"))),
)  # fmt: skip
PAIR = ("blur", (0.5, 0.4), "shuffle 16")  # spatial corruption, its medium and small severity, temporal one


@dataclass(frozen=True)
class Cell:
    """How one metric responds to one corruption."""

    values: np.ndarray  # (seeds, levels)
    correlation: float  # of the mean over seeds with severity, in the direction of the metric
    least: float  # the least severity that is noticed
    share: float  # greatest change over levels, mean over seeds, relative to that under the corruption felt most
    kind: str = "sees"  # the claim: sees, blind or misled
    reason: str | None = None  # why it does not see
    correlation_from_04: float = 0.0  # the same over severities from 0.4 on

    @property
    def holds(self) -> bool:
        """Whether the claim is true."""
        if self.kind == "misled":
            return self.correlation < SEEN <= self.correlation_from_04 and self.share >= UNSEEN
        return self.share < UNSEEN if self.kind == "blind" else self.correlation >= SEEN


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


class _OfFeatures(Similarity):
    """The shipped network, given features of clips instead of clips, as several metrics need the same features."""

    frame_features = video_features = staticmethod(lambda features: features)


_similarity = cache(lambda: _OfFeatures(Similarity.load().towers))


def values(clips: np.ndarray, captions: list[str], specs: list, real: dict, metrics=tuple(METRICS)) -> dict[str, float]:
    """Computes some of METRICS on a set of clips (n, f, H, W, 3) uint8 with their captions and specs.

    real: {name in DISTANCES: features} of the clips from which distances are measured.
    """
    similarity, shipped = _similarity(), Similarity.load()
    frames, boards = cache(lambda: shipped.frame_features(clips)), cache(lambda: shipped.video_features(clips))
    moving = cache(lambda: measure(clips))  # like both above, computed when a metric first needs it
    of_each = {  # metric -> its figures, one for each clip
        "CLIPSIM": lambda: similarity.frame(frames(), captions),
        "video similarity": lambda: similarity.video(boards(), captions),
        "direction gap": lambda: similarity.swap_gap(boards(), specs),
        "R-precision": lambda: similarity.rank(boards(), specs),
        "judge accuracy": lambda: [agrees(read(clip), spec)["all"] for clip, spec in zip(clips, specs)],
        **{name: lambda name=name: moving()[name] for name in ("motion amplitude", "identity drift", "flicker")},
    }
    features_of = lambda name: frames() if DISTANCES[name] == "similarity" else features(DISTANCES[name])(clips)
    distance = lambda name: frechet_distance(features_of(name), real[name])
    return {name: float(np.mean(of_each[name]())) if name in of_each else distance(name) for name in metrics}


def _features(clips: np.ndarray, metrics) -> dict[str, np.ndarray]:
    return {name: features(DISTANCES[name])(clips) for name in DISTANCES if name in metrics}


@lru_cache(maxsize=2)
def _clips(seed: int, n: int) -> tuple:
    """n clips of test_seen with captions and specs; each seed takes the next n and begins again after the last."""
    data = MovingThings("test_seen", size=SIZE)
    return data.batch((seed * n + np.arange(n)) % len(data))


@lru_cache(maxsize=2)
def _real(seed: int, n: int, metrics: tuple) -> dict[str, np.ndarray]:
    return _features(_clips(seed, n)[0], metrics)


def _point(task: tuple) -> dict[str, float]:
    """`values` of clips with one damage: (seed, corruption, severity, n, metrics)."""
    seed, name, severity, n, metrics = task
    clips, captions, specs = _clips(seed, n)
    return values(CORRUPTIONS[name](clips, severity, seed), captions, specs, _real(seed, n, metrics), metrics)


def curves(n: int = 256, jobs: int = 1, metrics=tuple(METRICS)) -> tuple[dict, dict[str, float]]:
    """Measures some metrics under every corruption: both arguments of `cells`. n clips a value, `jobs` processes.

    Raises UserError if n is under 8.
    """
    if not (isinstance(n, int) and n >= 8):
        raise UserError(f"n: expected a whole number from 8, found {n!r}: fewer clips have no distribution")
    tasks = {(seed, name, level): (seed, name, level, n, metrics)
             for seed in SEEDS for name in CORRUPTIONS for level in LEVELS[1:]}  # fmt: skip
    tasks |= {(seed, None, 0.0): (seed, "noise", 0.0, n, metrics) for seed in SEEDS}  # the same for all corruptions
    points = dict(zip(tasks, _mapped(_point, list(tasks.values()), jobs)))
    found = {}
    for metric in metrics:
        for name in CORRUPTIONS:
            keys = [[(seed, name if level else None, level) for level in LEVELS] for seed in SEEDS]
            found[metric, name] = np.array([[points[key][metric] for key in row] for row in keys])
    pairs = [(_real(seed + len(SEEDS), n, metrics), _real(seed, n, metrics)) for seed in SEEDS]
    return found, {m: float(np.mean([frechet_distance(a[m], b[m]) for a, b in pairs])) for m in pairs[0][0]}


def cells(curves: dict[tuple[str, str], np.ndarray], other: dict[str, float]) -> dict[tuple[str, str], Cell]:
    """Checks the curves {(metric, corruption): (seeds, levels)} of METRICS against the claims of BLIND and MISLED.

    other: {metric: Fréchet distance of other real clips}, which a reversal may reach without being seen.
    """
    claims = {(m, name): ("blind", why) for why, metrics, names in reversed(BLIND) for m in metrics for name in names}
    claims |= {pair: ("misled", why) for why, pairs in MISLED for pair in pairs}
    change = {key: np.abs(curve - curve[:, :1]).max(1).mean() for key, curve in curves.items()}
    most = {metric: max(change[key] for key in curves if key[0] == metric) for metric, _ in curves}
    found = {}
    for key, curve in curves.items():
        metric, name = key
        worse = curve * METRICS[metric] if METRICS[metric] else np.abs(curve - curve[:, :1])
        felt = change[key] - (other.get(metric, 0.0) if name in BACKWARDS else 0.0)
        share = float(max(0.0, felt) / (most[metric] or 1))
        rest = spearman(np.arange(len(LEVELS) - 2), worse.mean(0)[2:])
        correlation, least = _order(worse)
        kind, reason = claims.get(key, ("sees", None))
        found[key] = Cell(values=curve, correlation=correlation, least=least, share=share, kind=kind, reason=reason,
                          correlation_from_04=rest)  # fmt: skip
    return found


def _order(worse: np.ndarray) -> tuple[float, float]:
    """Correlation of the mean of values (seeds, levels) with severity, and the least severity that is noticed.

    Up to two severities next to 0 are left out while their change is within twice its standard error.
    """
    change = worse - worse[:, :1]
    error = change.std(0, ddof=1) / len(change) ** 0.5
    left_out = 0
    while left_out < 2 and abs(change.mean(0)[left_out + 1]) <= 2 * error[left_out + 1]:
        left_out += 1
    values = np.delete(worse.mean(0), range(1, left_out + 1))
    return spearman(np.arange(len(values)), values), LEVELS[left_out + 1]


def _mapped(function, tasks: list, jobs: int) -> list:
    from concurrent.futures import ProcessPoolExecutor

    import torch
    from tqdm.auto import tqdm

    bar = {"total": len(tasks), "desc": "validity", "unit": "set", "disable": None}
    if jobs == 1:
        return list(tqdm(map(function, tasks), **bar))
    with ProcessPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(tqdm(pool.map(function, tasks, chunksize=5), **bar))


def matched_pair(n: int = 256) -> dict[str, tuple[float, float]]:
    """{metric: (with a medium spatial corruption, with a small spatial and a severe temporal one)}: the first should be
    better. FVD-content prefers the second, as the I3D's FVD did in arXiv 2404.12391; FVD-mini must not."""
    spatial, severities, temporal = PAIR
    clips = _clips(0, n)[0]
    medium, small = (CORRUPTIONS[spatial](clips, severity, 0) for severity in severities)
    fooled = ("FVD-content", "FVD-mini")
    real, *sets = (_features(x, fooled) for x in (clips, medium, CORRUPTIONS[temporal](small, 1.0, 0)))
    return {name: tuple(frechet_distance(found[name], real[name]) for found in sets) for name in fooled}


def floor(n: int = FLOOR) -> tuple[float, float]:
    """FVD-mini of real against other real clips, n each, and of uniform noise against real ones."""
    network, data = features("motion"), MovingThings("train", size=SIZE)
    real, other = (network(data.batch(range(start, start + n))[0]) for start in (500_000, 500_000 + n))
    noise = np.random.default_rng(0).integers(0, 256, (n, 16, SMALL, SMALL, 3), np.uint8)
    return frechet_distance(other, real), frechet_distance(network(noise), real)
