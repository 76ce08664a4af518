"""Checks of notebook 13, Is it any good: frame consistency, the Fréchet distance, a trick, repeated lines, a card."""

import json
import re
from functools import cache

import numpy as np
import torch

from minit2v.datasets.moving_things import MovingThings
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.frechet import frechet_distance
from minit2v.evaluation.full_scale.published import TABLE
from minit2v.evaluation.judge import agrees, read
from minit2v.evaluation.mini.similarity import Similarity
from minit2v.evaluation.motion import consistency as library_consistency
from minit2v.files import data_dir
from minit2v.lab.course.comparing import recognised
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.lab.course.questions import Question

_FRECHET, _NETWORKS = "tests/test_frechet.py::", "tests/test_metric_networks.py::"
EQUATIONS = {
    "13.1": ("Wilson's interval of a share", "tests/test_report.py::test_wilson"),
    "13.2": ("frame consistency", "tests/test_motion.py::test_consistency_is_the_mean_cosine_of_neighbours"),
    "13.3": ("Fréchet distance of two Gaussians",
             _FRECHET + "test_agrees_with_the_general_matrix_root_also_where_the_covariance_is_singular"),
    "13.4": ("limit for infinitely many clips", _FRECHET + "test_floor_and_limit_tell_the_bias_from_the_distance"),
    "13.5": ("CLIPSIM", _NETWORKS + "test_a_gap_of_frames_is_blind_to_direction_where_that_of_clips_is_not"),
}  # fmt: skip

QUIZ = [
    (
        "Two papers report FVD 520 and 560 on MSR-VTT. What do you need before you call the first model better?",
        ["Nothing: lower is better", "The same protocol for both, and intervals", "The CLIPSIM of both"],
        1,
        "Number of clips, frame rate, resizing and network move FVD by more than the gap. One protocol, then an interval.",
    ),
    (
        "A model has the best frame consistency and the best CLIPSIM of its table. What do you ask to see first?",
        ["Whether anything moves", "A larger table", "Its training loss"],
        0,
        "A still image is perfectly consistent, and CLIPSIM looks at frames one by one. Both reward a clip without motion.",
    ),
    (
        "You evaluate model A with 200 clips and model B with 2,000, against the same real clips. Their FVD is equal. Which "
        "model is probably closer to the real clips?",
        ["A", "B", "Neither can be said to be"],
        0,
        "The estimate is too large by about a constant over the number of clips. A carries ten times as much of it.",
    ),
]


def votes_that_convince(n=20):
    """The least number of n votes whose Wilson interval lies above one half."""
    return next(right for right in range(n + 1) if wilson(right, n)[0] > 0.5)


def measured_again():
    """By how much the FVD of the released model differs between the two published measurements, percent."""
    fvd = {row.system: row.fvd for row in TABLE}
    return round(100 * (fvd["ModelScopeT2V, measured again"] / fvd["ModelScopeT2V"] - 1))


PREDICTIONS = {
    "13.a": Question("Twenty people compare two models, one vote each. How many must prefer the first one, at least, for the "
                     "95 % interval of its share to lie above one half?", votes_that_convince, tolerance=1.0),
    "13.b": Question("The frames of every clip are shuffled. By how much does the mean CLIPSIM change?", 0, tolerance=0.001),
    "13.c": Question("Two sets of clips come from one and the same program, so their true distance is 0. The estimate with n "
                     "clips each is not. With twice as many clips it becomes about",
                     "half as large", ["half as large", "a quarter as large", "zero", "the same"]),
    "13.d": Question("Two groups measured the FVD of the released model on MSR-VTT. By how many percent is the larger figure "
                     "above the smaller one?", measured_again, tolerance=10.0),
}  # fmt: skip


def _called(function, *given):
    """What the reader's function returns for copies of arrays. Raises Failed for None and for an input that it changed."""
    passed = [one.copy() if isinstance(one, np.ndarray) else list(one) for one in given]
    found = function(*passed)
    for i, (now, then) in enumerate(zip(passed, given)):
        same = np.array_equal(now, then) if isinstance(then, np.ndarray) else now == list(then)
        if not same:
            raise Failed(f"input {i + 1} as it was", "it was changed", "an operation in place, such as x -= …")
    if found is None:
        raise Failed("a result", "None", "the function does not return its result")
    return found


def _tensor(what, found):
    if np.iscomplexobj(np.asarray(found)):
        raise Failed(f"{what} as a real number", f"the complex {np.asarray(found).ravel()[0]:.4g}",
                     "the eigenvalues or the root came out as complex numbers; a symmetric matrix has real ones")
    try:
        return torch.as_tensor(np.asarray(found, np.float64))
    except (TypeError, ValueError):
        raise Failed(f"{what} as numbers", f"{type(found).__name__}") from None


def consistency(features):
    """Features of frames (n, f, d) -> (n,): mean cosine between a frame and the next."""
    unit = features / np.sqrt((features**2).sum(-1, keepdims=True))
    return (unit[:, 1:] * unit[:, :-1]).sum(-1).mean(1)


def _unit(x, axis=-1):
    return x / np.sqrt(np.square(x).sum(axis, keepdims=True))


CONSISTENCY_MISTAKES = {
    "the features were not divided by their lengths": lambda x: (x[:, 1:] * x[:, :-1]).sum(-1).mean(1),
    "every frame was compared with the first one; it is compared with the next":
        lambda x: (_unit(x)[:, 1:] * _unit(x)[:, :1]).sum(-1).mean(1),
    "each frame was compared with itself and all others; only neighbours count":
        lambda x: np.einsum("nfd,ngd->nfg", _unit(x), _unit(x)).mean((1, 2)),
    "it is the mean over all clips; it is wanted for each clip":
        lambda x: library_consistency(x).mean(),
    "the mean over the frames is missing": lambda x: (_unit(x)[:, 1:] * _unit(x)[:, :-1]).sum(-1),
    "the mean over d was taken in the place of the sum":
        lambda x: (_unit(x)[:, 1:] * _unit(x)[:, :-1]).mean((1, 2)),
    "the lengths were taken over the frames; a feature's length goes over d":
        lambda x: (_unit(x, 1)[:, 1:] * _unit(x, 1)[:, :-1]).sum(-1).mean(1),
    "the lengths were taken over the whole clip; each frame has its own":
        lambda x: (_unit(x, (1, 2))[:, 1:] * _unit(x, (1, 2))[:, :-1]).sum(-1).mean(1),
    "the last frame was compared with the first one as well":
        lambda x: (_unit(x) * np.roll(_unit(x), 1, axis=1)).sum(-1).mean(1),
    "neighbouring clips were compared; neighbouring frames are wanted":
        lambda x: (_unit(x)[1:] * _unit(x)[:-1]).sum(-1).mean(1),
    "it is the distance, 1 minus the cosine": lambda x: 1 - library_consistency(x),
}  # fmt: skip


def _features(n, f, d, seed):
    """Features of different lengths, with negative cosines among them."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, f, d)) * rng.uniform(0.2, 30, (n, f, 1)) + rng.normal(size=(n, 1, d))


@exercise("13.1", name="consistency", solution=consistency, minutes=8, difficulty=2, importance=4)
def check_consistency(student):
    """Clips and frames of several numbers, lengths that differ, a still clip."""
    for n, f, d in ((3, 5, 7), (1, 2, 4), (4, 9, 3), (2, 3, 1)):
        x = _features(n, f, d, n)
        found = _tensor("the consistency", _called(student, x))
        wrong = {cause: (lambda one=one: torch.as_tensor(one(x))) for cause, one in CONSISTENCY_MISTAKES.items()}
        recognised(f"the consistency of features {x.shape}", found, torch.as_tensor(library_consistency(x)), wrong)
    still = np.repeat(_features(3, 1, 6, 9), 8, axis=1).astype(np.float32)
    found = _called(student, still)
    close("the consistency of still clips", found, np.ones(3), 1e-5, "float32 features must do as well")
    return "the library's figures for clips of 2 to 9 frames; a still clip has 1"




def frechet(x, y):
    """Features (n, d) and (m, d) -> the Fréchet distance between the Gaussians that fit them."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    d = x.shape[1]
    c1, c2 = np.cov(x.T).reshape(d, d), np.cov(y.T).reshape(d, d)
    values, axes = np.linalg.eigh(c1)
    root = (axes * np.sqrt(values.clip(0))) @ axes.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c1) + np.trace(c2) - 2 * overlap


def _root(c):
    values, axes = np.linalg.eigh(c)
    return (axes * np.sqrt(values.clip(0))) @ axes.T


def _cov(x, ddof=1):
    return np.cov(x.T, ddof=ddof).reshape(x.shape[1], x.shape[1])


def _distance(x, y, *, ddof=1, mean="squared", overlap=None, factor=2.0, cov=_cov):
    """The Fréchet distance with one thing wrong."""
    c1, c2 = (cov(z) if cov is not _cov else _cov(z, ddof) for z in (x, y))
    shift = x.mean(0) - y.mean(0)
    apart = {"squared": shift @ shift, "length": np.sqrt(shift @ shift), "none": 0.0, "mean": (shift**2).mean()}[mean]
    exact = lambda a, b: np.sqrt(np.linalg.eigvalsh(_root(a) @ b @ _root(a)).clip(0)).sum()
    return apart + np.trace(c1) + np.trace(c2) - factor * (overlap or exact)(c1, c2)


def _correlated(x):
    return np.corrcoef(x.T).reshape(x.shape[1], x.shape[1])


FRECHET_MISTAKES = {
    "the covariance was divided by n; it is divided by n - 1, as np.cov does": lambda x, y: _distance(x, y, ddof=0),
    "the distance between the means is missing": lambda x, y: _distance(x, y, mean="none"),
    "the distance between the means must be squared": lambda x, y: _distance(x, y, mean="length"),
    "the squares of the differences of the means are added up, and not averaged": lambda x, y: _distance(x, y, mean="mean"),
    "the trace of the root is taken twice": lambda x, y: _distance(x, y, factor=1.0),
    "the root of the product is missing": lambda x, y: _distance(x, y, overlap=lambda a, b: np.trace(a @ b)),
    "the root was taken of each number of the matrix; a matrix root is another thing":
        lambda x, y: _distance(x, y, overlap=lambda a, b: np.sqrt((a @ b).clip(0)).trace()),
    "each covariance has its own root here, and the trace of their product was taken: that is right only where both have "
    "the same axes": lambda x, y: _distance(x, y, overlap=lambda a, b: np.trace(_root(a) @ _root(b))),
    "only variances were compared; the numbers beside the diagonal count too":
        lambda x, y: _distance(x, y, overlap=lambda a, b: np.sqrt(np.diag(a) * np.diag(b)).sum()),
    "correlations were taken in the place of covariances": lambda x, y: _distance(x, y, cov=_correlated),
    "the covariance between clips was taken: np.cov wants a row for each feature, so x.T":
        lambda x, y: _distance(x, y, cov=lambda z: np.cov(z)),
    "the root of the whole was taken; like FVD, the distance is squared":
        lambda x, y: np.sqrt(max(0.0, _distance(x, y))),
    "only the means were compared": lambda x, y: np.square(x.mean(0) - y.mean(0)).sum(),
    "the overlap was added; it is subtracted": lambda x, y: _distance(x, y, factor=-2.0),
}  # fmt: skip


def _sets(n, m, d, seed, far=0.0):
    """Two sets of features (n, d), (m, d) whose covariances have different axes."""
    rng = np.random.default_rng(seed)
    mix, other = rng.normal(size=(2, d, d))
    return rng.normal(size=(n, d)) @ mix + far, rng.normal(size=(m, d)) @ other + far + rng.normal(size=d)


@exercise("13.2", name="frechet", solution=frechet, minutes=20, difficulty=4, importance=5)
def check_frechet(student):
    """As many clips as features, more, fewer (singular), one feature, equal sets, another order, float32 far from 0."""
    for n, m, d in ((9, 9, 4), (40, 25, 3), (6, 6, 6), (5, 9, 8), (30, 12, 1)):
        x, y = _sets(n, m, d, n)
        what = f"the distance of features {x.shape} and {y.shape}"
        found = _tensor(what, _called(student, x, y))
        same_shape(what, found, (), "one number for two sets")
        if torch.isnan(found):
            raise Failed(what, "NaN", "the root of a number below 0; rounding makes eigenvalues of 0 a hair negative: "
                         "clip(0)")  # fmt: skip
        expected = torch.as_tensor(frechet_distance(x, y), dtype=torch.float64)
        wrong = {cause: (lambda one=one: torch.as_tensor(one(x, y))) for cause, one in FRECHET_MISTAKES.items()}
        recognised(what, found, expected, wrong, tolerance=1e-4)
        close(f"{what}, the other way round", _called(student, y, x), expected, 1e-4)
    _check_sets(student)
    x, y = (z.astype(np.float32) for z in _sets(20, 30, 4, 5, far=3000.0))
    expected, found = frechet_distance(x, y), _called(student, x, y)
    exact = abs(float(np.asarray(_called(student, x.astype(float), y.astype(float)))) - expected) < 1e-3
    close("the distance of float32 features around 3,000", found, expected, 1e-3,
          "7 digits are too few there: convert the features to float64 first" if exact else "")
    return "exact for more and for fewer clips than features, 0 for equal sets, whatever their order"


def _check_sets(student):
    x, y = _sets(12, 9, 5, 1)
    close("the distance of a set from itself", _called(student, x, x), 0, 1e-4)
    there = float(np.asarray(_called(student, x, y)))
    close("the distance after the clips of one set were shuffled", _called(student, x[::-1], y), there, 1e-6,
          "a set has no order: something pairs clip i of one set with clip i of the other")


def fool(clips, captions):
    """Clips (n, f, H, W, 3) uint8 whose CLIPSIM is higher and that do what no caption says."""
    similarity = Similarity.load()
    scores = [similarity.frame(clips[:, [i]], captions) for i in range(clips.shape[1])]  # of each frame alone: (f, n)
    best = np.argmax(scores, axis=0)
    return np.stack([np.repeat(clip[[i]], len(clip), axis=0) for clip, i in zip(clips, best)])


LEAST_GAIN = 0.03  # of the mean CLIPSIM; a frame taken blindly gains less
MOST_RIGHT = 0.25  # share of the clips that the judge may still call right


@cache
def _real(split, numbers, size, frames):
    """Real clips with captions, specs, their mean CLIPSIM."""
    clips, captions, specs = MovingThings(split, size=size).batch(numbers)
    clips = clips[:, :frames]
    return clips, captions, specs, Similarity.load().frame(clips, captions).mean()


@exercise("13.3", name="fool", solution=fool, minutes=15, difficulty=3, importance=5)
def check_fool(student):
    """On clips that the notebook does not show, of two sizes and lengths."""
    gains = []
    for case in (("val", tuple(range(40, 48)), 64, 16), ("val", tuple(range(60, 64)), 48, 9)):
        clips, captions, specs, before = _real(*case)
        found = np.asarray(_called(student, clips, captions))
        if found.dtype != np.uint8:
            raise Failed("clips of uint8", f"{found.dtype}", "pixels are whole numbers from 0 to 255")
        same_shape("the result", found, clips.shape, "as many clips and frames as before, of the same size")
        gain = Similarity.load().frame(found, captions).mean() - before
        right = np.mean([agrees(read(clip), spec)["all"] for clip, spec in zip(found, specs)])
        told = f"CLIPSIM {before:.3f} became {before + gain:.3f}, and the judge calls {100 * right:.0f} % of the clips right"
        if gain < LEAST_GAIN:
            raise Failed(f"a mean CLIPSIM that is higher by {LEAST_GAIN} or more", told)
        if right > MOST_RIGHT:
            raise Failed(f"at most {100 * MOST_RIGHT:.0f} % of the clips right", told)
        gains.append(gain)
    return f"CLIPSIM rose by {min(gains):.2f} or more, and the judge is no longer satisfied"


HEADINGS = ("model", "data", "licence", "measured", "fails", "people", "not for", "contact")
LEAST_WORDS = 8  # under a heading
NAMED = {  # heading -> (what must be told, one of these words)
    "model": (("its name", ("mini",)), ("the height of a clip in pixels", ("64",)), ("the number of frames", ("16",))),
    "data": (("the name of the data set", ("moving things",)),
             ("how the clips came about", ("program", "drawn", "render", "synthetic", "procedural"))),
    "licence": (("the licence of the weights", ("apache",)), ("that of the data", ("cc0", "public domain"))),
}  # fmt: skip
ENDS = {"mini": "(?![a-z])", "64": r"(?!\d)", "16": r"(?!\d)"}  # minimal and 640 are something else
UNFINISHED = re.compile(r"…|\.\.\.|\btodo\b|\btbd\b|\bxxx\b|\bfixme\b|lorem ipsum|\bto be (?:done|written|added)\b|\[.*?\]|<.*?>|\{.*?\}", re.I)


def reported_figures():
    """{split: {"percent", "low", "high", "n"}}: of mini's clips, the share that is right in all attributes."""
    report = json.loads((data_dir() / "mini/report.json").read_text(encoding="utf-8"))
    rows = [row for row in report["rows"] if row["clips"] == report["model"]]
    return {row["split"]: {key: row["all"][key] for key in ("percent", "low", "high")} | {"n": row["n"]} for row in rows}


def model_card(figures):
    """{heading: text} of the shipped model; figures as of `reported_figures`."""
    seen, other = figures["test_seen"], figures["test_imageonly"]
    return {
        "model": "mini, a text-to-video diffusion model after ModelScopeT2V: 16 frames of 64 x 64 pixels from one sentence.",
        "data": "Clips and pictures of Moving Things, drawn by a program: no people, no scraped videos, no watermarks.",
        "licence": "Weights and code: Apache-2.0. The drawn clips and their captions: CC0. Nobody else's data went into it.",
        "measured": f"{seen['percent']:.1f} % of {seen['n']} prompts with known combinations are right in every attribute "
                    f"(95 % interval {seen['low']:.1f} to {seen['high']:.1f}), one clip each, judged from pixels.",
        "fails": f"Only {other['percent']:.1f} % are right where shape or colour was known from pictures alone; it knows 41 "
                 "words and one thing at a time.",
        "people": "It shows no people. Learners may take its scores for those of real models, which were measured otherwise.",
        "not for": "Any use beyond learning and measuring: it cannot draw the world, and its scores say nothing about it.",
        "contact": "The issue tracker of the repository; tell the prompt, the seed and the version with every report.",
    }  # fmt: skip


@exercise("13.4", name="model_card", solution=model_card, minutes=15, difficulty=2, importance=5)
def check_model_card(student):
    """Every heading, no gaps, and figures that are those of the report, also of the report of another training."""
    figures = reported_figures()
    _check_card(student, figures)
    moved = {"percent": 3, "low": -4, "high": 9}  # so far apart that none of them passes for another
    other = {split: {key: value / 2 + moved.get(key, 0) if key != "n" else value + 40 for key, value in row.items()}
             for split, row in figures.items()}  # fmt: skip
    try:
        _check_card(student, other)
    except Failed as failed:
        raise Failed(f"for other figures {failed.expected}", failed.found, "figures that are typed by hand are wrong after the "
                     "next training: take them from figures") from None  # fmt: skip
    return "every heading is filled in, and its figures are those of the report"


def _check_card(student, figures):
    given = json.loads(json.dumps(figures))
    found = student(given)
    if given != figures:
        raise Failed("the figures as they were", "they were changed")
    if not isinstance(found, dict):
        raise Failed("a dictionary {heading: text}", type(found).__name__, "the function does not return the card"
                     if found is None else "")  # fmt: skip
    for heading in HEADINGS:
        _check_text(heading, found.get(heading))
    texts = [" ".join(re.findall(r"\w+", found[heading].lower())) for heading in HEADINGS]
    if len(set(texts)) < len(texts):
        raise Failed("another text under each heading", "the same one twice")
    for heading, wanted in NAMED.items():
        for what, words in wanted:
            if not any(re.search(rf"\b{word}{ENDS.get(word, '')}", found[heading], re.I) for word in words):
                raise Failed(f"{what} under {heading!r} ({' or '.join(words)})", "none of these words")
    seen = figures["test_seen"]
    for what in ("percent", "low", "high", "n"):
        told = {"percent": "the share", "low": "the lower end of the interval", "high": "its upper end",
                "n": "the number of prompts"}[what]  # fmt: skip
        _quoted("measured", found["measured"], f"{told} for test_seen", [seen[what]])
    others = [figures[split]["percent"] for split in ("test_heldout", "test_imageonly")]
    _quoted("fails", found["fails"], "the share for test_heldout or test_imageonly", others)


def _check_text(heading, text):
    if not isinstance(text, str):
        raise Failed(f"a text under {heading!r}", "no such heading" if text is None else type(text).__name__)
    if gap := UNFINISHED.search(text):
        raise Failed(f"{heading!r} without gaps", f"{gap[0]!r} in it")
    words = re.findall(r"[^\W\d_][\w'-]*", text)
    if len(words) < LEAST_WORDS:
        raise Failed(f"at least {LEAST_WORDS} words under {heading!r}", f"{len(words)}")
    if len(set(words)) <= LEAST_WORDS // 2:
        raise Failed(f"sentences under {heading!r}", f"{len(words)} words of which only {len(set(words))} are different")


def _quoted(heading, text, what, values):
    numbers = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]
    if not any(abs(number - value) <= 0.5 for number in numbers for value in values):
        close_to = " or ".join(f"{value:.1f}" for value in values)
        raise Failed(f"{what} under {heading!r}, {close_to}", f"the numbers {numbers}")


def share_of_clips(right, clip):
    """Lines of a log: right (m,) bool, clip (m,) the clip that each is about -> share of the clips, low, high."""
    _, first = np.unique(clip, return_index=True)
    right = right[first]
    return right.mean(), *wilson(int(right.sum()), len(right))


def _share(right, n=None):
    return (right.mean(), *wilson(round(right.mean() * (n or len(right))), n or len(right)))


SHARE_MISTAKES = {
    "every line of the log was counted; the same clip stands in several": lambda right, clip: _share(right),
    "the interval counts every clip once, but the share still counts every line":
        lambda right, clip: _share(right, len(set(clip.tolist()))),
    "the share counts every clip once, but the interval still counts every line":
        lambda right, clip: _share(right[np.unique(clip, return_index=True)[1]], len(right)),
    "the clips are not numbered without gaps: count those that occur": lambda right, clip: _share(right, int(clip.max()) + 1),
    "np.unique(clip) gives the clips' numbers; the places of their lines come with return_index=True":
        lambda right, clip: _share(right[np.unique(clip) % len(right)]),
}  # fmt: skip


@exercise("13.B", name="share_of_clips", solution=share_of_clips, minutes=6, difficulty=2, importance=4)
def check_share_of_clips(student):
    """Clips that occur once, often and in any order, with gaps in their numbers."""
    rng = np.random.default_rng(0)
    for clips, lines in ((7, 7), (5, 40), (30, 64), (1, 6), (12, 200)):
        numbers = rng.choice(np.arange(2, 1000), clips, replace=False)
        truth = dict(zip(numbers.tolist(), (rng.uniform(size=clips) < 0.6).tolist()))
        weights = rng.dirichlet(np.full(clips, 0.5))
        clip = rng.permutation(np.concatenate([numbers, rng.choice(numbers, lines - clips, p=weights)]))
        right = np.array([truth[one] for one in clip.tolist()])
        what = f"share and interval of {lines} lines about {clips} clips"
        found = _tensor(what, _called(student, right, clip))
        values = np.array(list(truth.values()))
        wrong = {cause: (lambda one=one: torch.tensor(one(right, clip))) for cause, one in SHARE_MISTAKES.items()}
        recognised(what, found, torch.tensor(_share(values), dtype=torch.float64), wrong)
    return "each clip counts once, however often it stands in the log"
