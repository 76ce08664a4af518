"""The checks of notebook 13: right answers pass however they are written, wrong ones do not, and causes are true."""

import numpy as np
import pytest
from answers import assert_refused

from minit2v.evaluation import motion
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.frechet import frechet_distance, kernel_distance
from minit2v.evaluation.mini.similarity import Similarity
from minit2v.evaluation.validity.corruptions import CORRUPTIONS
from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb13
from minit2v.lab.course.evaluation_log import SHARE, evaluated

MISTAKES = {"13.1": nb13.CONSISTENCY_MISTAKES, "13.2": nb13.FRECHET_MISTAKES, "13.B": nb13.SHARE_MISTAKES}
KNOWN = [(number, cause) for number, mistakes in MISTAKES.items() for cause in mistakes]


@pytest.mark.parametrize("number, cause", KNOWN, ids=[f"{number}: {cause[:50]}" for number, cause in KNOWN])
def test_a_known_mistake_fails_and_is_named(number, cause):
    outcome = exercises.run(number, MISTAKES[number][cause])
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


def first(x):
    """The clips or features of a function's first argument, changed in place."""
    x[0] = 0
    return x


CONSISTENCY = {
    "changes its input": lambda x: motion.consistency(x) + 0 * x.__imul__(2).sum((1, 2)),
    "returns nothing": lambda x: None,
    "a constant": lambda x: np.ones(len(x)),
    "the least pair": lambda x: _cosines(x).min(1),
    "the greatest pair": lambda x: _cosines(x).max(1),
    "the median pair": lambda x: np.median(_cosines(x), axis=1),
    "every second pair": lambda x: _cosines(x)[:, ::2].mean(1),
    "without the last pair": lambda x: _cosines(x)[:, :-1].mean(1),
    "absolute cosines": lambda x: abs(_cosines(x)).mean(1),
    "squared cosines": lambda x: (_cosines(x) ** 2).mean(1),
    "divided by f": lambda x: _cosines(x).sum(1) / x.shape[1],
    "centred": lambda x: motion.consistency(x - x.mean(1, keepdims=True)),
    "two frames apart": lambda x: (nb13._unit(x)[:, 2:] * nb13._unit(x)[:, :-2]).sum(-1).mean(1),
    "the cosine of the sums": lambda x: (nb13._unit(x[:, 1:].sum(1)) * nb13._unit(x[:, :-1].sum(1))).sum(-1),
    "rounded": lambda x: motion.consistency(x).round(4),
    "of absolute features": lambda x: motion.consistency(abs(x)),
    "L1 lengths": lambda x: (x[:, 1:] * x[:, :-1] / abs(x[:, 1:]).sum(-1, keepdims=True) /
                             abs(x[:, :-1]).sum(-1, keepdims=True)).sum((1, 2)),
    "of the transposed": lambda x: motion.consistency(x.swapaxes(1, 2)) if x.shape[2] > 1 else np.ones(len(x)),
    "as a percentage": lambda x: 100 * motion.consistency(x),
    "one clip too many": lambda x: np.append(motion.consistency(x), 0),
}  # fmt: skip


def _cosines(x):
    return (nb13._unit(x)[:, 1:] * nb13._unit(x)[:, :-1]).sum(-1)


def _sum(x, y, root):
    """The Fréchet distance with another trace of the root."""
    return nb13._distance(x, y, overlap=root)


FRECHET = {
    "changes its input": lambda x, y: frechet_distance(x, y) + 0 * np.sum(first(x)),
    "returns nothing": lambda x, y: None,
    "a list": lambda x, y: [frechet_distance(x, y)],
    "only as many clips as both have": lambda x, y: frechet_distance(*(z[: min(len(x), len(y))] for z in (x, y))),
    "products summed in the features' own precision": lambda x, y: nb13._distance(x, y, cov=lambda z: (
        z.T @ z - len(z) * np.outer(z.mean(0), z.mean(0))) / (len(z) - 1)),
    "the kernel distance": kernel_distance,
    "clips in pairs": lambda x, y: np.square(x[: len(y)] - y[: len(x)]).sum(1).mean(),
    "always 0 for few clips": lambda x, y: 0.0 if len(x) <= x.shape[1] else frechet_distance(x, y),
    "half of it": lambda x, y: frechet_distance(x, y) / 2,
    "divided by d": lambda x, y: frechet_distance(x, y) / x.shape[1],
    "the determinant": lambda x, y: _sum(x, y, lambda a, b: np.linalg.det(a @ b)),
    "the Frobenius norm": lambda x, y: _sum(x, y, lambda a, b: np.linalg.norm(a @ b) ** 0.5),
    "singular values in the place of eigenvalues":
        lambda x, y: _sum(x, y, lambda a, b: np.sqrt(np.linalg.svd(a @ b)[1]).sum()),
    "the root of the trace": lambda x, y: _sum(x, y, lambda a, b: np.sqrt(np.trace(a @ b))),
    "of standardised features": lambda x, y: frechet_distance(*((z - x.mean(0)) / x.std(0) for z in (x, y))),
    "medians": lambda x, y: frechet_distance(x, y) - np.square(x.mean(0) - y.mean(0)).sum()
        + np.square(np.median(x, 0) - np.median(y, 0)).sum(),
    "the first covariance twice": lambda x, y: frechet_distance(x, x - x.mean(0) + y.mean(0)),
    "a ridge on the diagonal": lambda x, y: nb13._distance(x, y, cov=lambda z: nb13._cov(z) + 1e-3 * np.eye(z.shape[1])),
    "negative for equal sets": lambda x, y: frechet_distance(x, y) - 0.01,
    "L1 of the means": lambda x, y: frechet_distance(x - x.mean(0), y - y.mean(0)) + abs(x.mean(0) - y.mean(0)).sum(),
    "a complex number": lambda x, y: frechet_distance(x, y) + 0j,
}  # fmt: skip


def _most_alike(clips, captions):
    """Right idea, wrong sign: the frame that fits worst."""
    scores = [Similarity.load().frame(clips[:, [i]], captions) for i in range(clips.shape[1])]
    return np.stack([np.repeat(clip[[i]], len(clip), axis=0) for clip, i in zip(clips, np.argmin(scores, axis=0))])


FOOL = {
    "as they were": lambda clips, captions: clips.copy(),
    "changes its input": lambda clips, captions: first(clips),
    "returns nothing": lambda clips, captions: None,
    "still first frames": lambda clips, captions: np.repeat(clips[:, :1], clips.shape[1], axis=1),
    "still middle frames": lambda clips, captions: np.repeat(clips[:, clips.shape[1] // 2 :][:, :1], clips.shape[1], axis=1),
    "still last frames": lambda clips, captions: np.repeat(clips[:, -1:], clips.shape[1], axis=1),
    "backwards": lambda clips, captions: clips[:, ::-1].copy(),
    "shuffled": lambda clips, captions: CORRUPTIONS["shuffle 16"](clips, 1.0, 0),
    "blurred": lambda clips, captions: CORRUPTIONS["blur"](clips, 0.5, 0),
    "other clips": lambda clips, captions: np.roll(clips, 1, axis=0),
    "black": lambda clips, captions: np.zeros_like(clips),
    "noise": lambda clips, captions: np.random.default_rng(0).integers(0, 256, clips.shape, np.uint8),
    "brighter": lambda clips, captions: (1.3 * clips).clip(0, 255).astype(np.uint8),
    "mirrored": lambda clips, captions: clips[:, :, :, ::-1].copy(),
    "the worst frame": _most_alike,
    "as floats": lambda clips, captions: nb13.fool(clips, captions).astype(np.float32),
    "one frame only": lambda clips, captions: nb13.fool(clips, captions)[:, :1],
    "one clip less": lambda clips, captions: nb13.fool(clips, captions)[1:],
    "colours exchanged": lambda clips, captions: clips[..., ::-1].copy(),
}
SHARES = {
    "returns nothing": lambda right, clip: None,
    "the share alone": lambda right, clip: _share(right, clip)[0],
    "percent": lambda right, clip: tuple(100 * value for value in _share(right, clip)),
    "the naive interval": lambda right, clip: _naive(right[np.unique(clip, return_index=True)[1]]),
    "high before low": lambda right, clip: (lambda p, low, high: (p, high, low))(*_share(right, clip)),
    "changes its input": lambda right, clip: (first(clip), _share(right, clip))[1],
    "repeated neighbours only": lambda right, clip: nb13._share(right[np.append(True, np.diff(clip) != 0)]),
    "the first clip left out": lambda right, clip: nb13._share(right[np.unique(clip, return_index=True)[1]][1:]),
    "clips that occur once": lambda right, clip: nb13._share(right[np.isin(clip, *_once(clip))]),
    "weighted by how often they occur": lambda right, clip: nb13._share(right, len(set(clip.tolist()))),
    "right if any line was": lambda right, clip: nb13._share(np.unique(clip[right]).size >= np.arange(1, 6)),
    "the number of clips": lambda right, clip: (len(set(clip.tolist())), 0.0, 1.0),
    "90 %": lambda right, clip: _interval(right, clip, 1.645),
    "99 %": lambda right, clip: _interval(right, clip, 2.576),
    "share of wrong ones": lambda right, clip: nb13.share_of_clips(~right, clip),
    "as if none": lambda right, clip: (0.0, 0.0, 1.0),
    "the first lines, as many as clips": lambda right, clip: nb13._share(right[: len(set(clip.tolist()))]),
}


def _share(right, clip):
    return nb13.share_of_clips(right, clip)


def _naive(right):
    p, half = right.mean(), 1.96 * (right.mean() * (1 - right.mean()) / len(right)) ** 0.5
    return p, p - half, p + half


def _once(clip):
    values, counts = np.unique(clip, return_counts=True)
    return (values[counts == 1],)


def _interval(right, clip, z):
    kept = right[np.unique(clip, return_index=True)[1]]
    return kept.mean(), *wilson(int(kept.sum()), len(kept), z)


def changed(**texts):
    """The library's card with other texts under some headings; None takes one away."""
    return lambda figures: {key: text for key, text in (nb13.model_card(figures) | texts).items() if text is not None}


WORDS = "one two three four five six seven eight nine"
CARDS = {
    "returns nothing": lambda figures: None,
    "a text": lambda figures: "a card",
    "empty": lambda figures: {},
    "no such heading": changed(**{"not for": None}),
    "other capitals": lambda figures: {key.title(): text for key, text in nb13.model_card(figures).items()},
    "a number in the place of a text": changed(people=3),
    "too short": changed(people="nobody at all"),
    "an ellipsis": changed(contact="Write to … and tell the prompt, the seed and the version of it."),
    "three dots": changed(contact="Write to ... and tell the prompt, the seed and the version of it."),
    "to do": changed(people="TODO: think about who may be affected by what this model makes and how."),
    "brackets": changed(contact="Write to [name] and tell the prompt, the seed and the version of it."),
    "twice the same": changed(people=WORDS, contact=WORDS),
    "no name": changed(model="A text-to-video model that makes 16 frames of 64 x 64 pixels from a sentence."),
    "no size": changed(model="mini, a text-to-video model that makes clips of 16 frames from a sentence."),
    "no data set": changed(data="Clips that a program has drawn, with captions that the program wrote as well."),
    "not how they came about": changed(data="Moving Things is the name of the clips that it was shown in training."),
    "no licence of the data": changed(licence="Weights and code are Apache-2.0, which you will find in the file LICENSE."),
    "invented figures": changed(measured="It is right for 12.3 % of 512 prompts (95 % interval 11.0 to 14.0), I believe."),
    "no interval": lambda figures: changed(measured=f"It is right for {figures['test_seen']['percent']:.1f} % of all the "
                                           f"{figures['test_seen']['n']} prompts that it was asked.")(figures),
    "no number of prompts": lambda figures: changed(measured="Right in every attribute: {percent:.1f} % of the prompts, "
        "the 95 % interval goes from {low:.1f} to {high:.1f}.".format(**figures["test_seen"]))(figures),
    "braces": changed(contact="Write to {name} at {address} and tell the prompt and the seed that you used."),
    "to be done": changed(people="To be done: who may be affected by what this model makes, and how."),
    "one word": changed(people="people " * 9), "twice the same but for the end": changed(people=WORDS + ".", contact=WORDS + "!"),
    "another name": changed(model="A minimal text-to-video model that makes 16 frames of 64 x 64 pixels."),
    "another size": changed(model="mini, a text-to-video model that makes 16 frames of 640 x 640 pixels."),
    "another length": changed(model="mini, a text-to-video model that makes 160 frames of 64 x 64 pixels."),
    "figures typed by hand": lambda figures: nb13.model_card(nb13.reported_figures()),
    "one figure typed by hand": lambda figures: changed(measured="It is right for {:.1f} % of {n} prompts, with a 95 % interval "
        "of {low:.1f} to {high:.1f}.".format(nb13.reported_figures()["test_seen"]["percent"], **figures["test_seen"]))(figures),
    "changes the figures": lambda figures: (nb13.model_card(figures), figures.clear())[0],
    "fails nowhere": changed(fails="There is nothing that I know of in which this model ever fails anybody."),
}  # fmt: skip
WRONG = {"13.1": CONSISTENCY, "13.2": FRECHET, "13.3": FOOL, "13.4": CARDS, "13.B": SHARES}


@pytest.mark.parametrize("number, name", [(number, name) for number, wrong in WRONG.items() for name in wrong])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


def loops(features):
    """Frame consistency, clip by clip and frame by frame."""
    return [np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(clip, clip[1:])])
            for clip in features.astype(float)]  # fmt: skip


def general_root(x, y):
    """The eigenvalues of the product itself, which is not symmetric."""
    x, y = np.float64(x), np.float64(y)
    c1, c2 = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    values = np.linalg.eigvals(c1 @ c2).real.clip(0)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2) - 2 * np.sqrt(values).sum()


def by_dictionary(right, clip):
    kept = list(dict(zip(clip.tolist(), right.tolist())).values())
    return sum(kept) / len(kept), *wilson(sum(kept), len(kept))


def best_pair(clips, captions):
    """Another trick: the two best frames take turns."""
    scores = np.array([Similarity.load().frame(clips[:, [i]], captions) for i in range(clips.shape[1])])
    turns = np.arange(clips.shape[1]) % 2
    return np.stack([clip[order[turns]] for clip, order in zip(clips, np.argsort(-scores, axis=0).T)])


OTHER_WAYS = [("13.1", loops), ("13.1", motion.consistency), ("13.2", frechet_distance), ("13.2", general_root),
              ("13.B", by_dictionary), ("13.3", best_pair),
              ("13.4", lambda figures: changed(fails="Only one in three or so: {percent:.0f} % where shape or colour came from "
                                               "pictures.".format(**figures["test_imageonly"]))(figures))]  # fmt: skip


@pytest.mark.parametrize("number, answer", OTHER_WAYS, ids=lambda one: getattr(one, "__name__", one))
def test_other_ways_to_write_it_pass(number, answer):
    outcome = exercises.run(number, answer)
    assert outcome.passed, outcome.message


def test_the_log_of_the_bug_hunt_is_too_sure_by_its_lines_and_not_by_its_clips():
    clip, right = evaluated(7)
    _, low, high = nb13.share_of_clips(right, clip)
    assert low < SHARE < high
    assert wilson(int(right.sum()), len(right))[0] > SHARE


def test_a_root_below_zero_is_told():
    def unclipped(x, y):
        root = lambda a, b: np.sqrt(np.linalg.eigvalsh(nb13._root(a) @ b @ nb13._root(a))).sum()
        return nb13._distance(x, y, overlap=root)

    with np.errstate(invalid="ignore"):
        outcome = exercises.run("13.2", unclipped)
    assert not outcome.passed and "clip(0)" in outcome.message, outcome.message
