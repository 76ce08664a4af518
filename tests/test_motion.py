"""Motion amplitude, identity drift, flicker and diversity on clips whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from minit2v.datasets.moving_things import MovingThings, Spec, Thing
from minit2v.datasets.moving_things.render import COLOURS
from minit2v.datasets.moving_things.scenes import SPEED, render
from minit2v.errors import UserError
from minit2v.evaluation.motion import FPS, consistency, diversity, measure

FIGURES = ("motion amplitude", "identity drift", "flicker")
TIME = np.arange(16)


@pytest.fixture(scope="module", params=(32, 64))
def real(request):
    """(frames (n, 16, H, H, 3), specs)"""
    frames, _, specs = MovingThings("test_seen", size=request.param).batch(range(24))
    return frames, specs


@pytest.fixture(scope="module")
def found(real):
    return measure(real[0])


def test_a_still_clip_has_none(real):
    still = measure(real[0][:, :1].repeat(16, axis=1))
    assert all((still[name] < 1e-5).all() for name in FIGURES), still


def test_amplitude_is_the_length_of_the_path(real, found):
    truth = [SPEED[spec.things[0].speed] * FPS for spec in real[1]]
    assert found["motion amplitude"] == pytest.approx(truth, rel=0.03)


def test_amplitude_counts_the_way_and_not_the_distance(real, found):
    """There and back again is as far; frames in any order are farther; half the clip at rest is half as far."""
    there_and_back = measure(real[0][:, np.where(TIME < 8, 2 * TIME, 31 - 2 * TIME)])["motion amplitude"]
    assert there_and_back == pytest.approx(28 / 15 * found["motion amplitude"], rel=0.05)
    shuffled = measure(real[0][:, np.random.default_rng(0).permutation(16)])["motion amplitude"]
    assert (shuffled > 2 * found["motion amplitude"]).all()
    stops = measure(real[0][:, np.minimum(TIME, 7)])["motion amplitude"]
    assert stops == pytest.approx(7 / 15 * found["motion amplitude"], rel=0.05)


@pytest.mark.parametrize("level", (2, 3, 4))
def test_amplitude_of_what_the_judge_does_not_read(level):
    """Two things, three, circles and bounces: as far as the data set moved them, where all is in one colour on dark."""
    from minit2v.datasets.moving_things.scenes import scene

    data = MovingThings("test_seen", level=level, size=64)
    picked = [i for i in range(80) if data.text(i)[1].background == "dark" and not data.text(i)[1].things[0].change][:8]
    clips, _, specs = data.batch(picked)
    paths = [scene(spec, np.zeros(3), 16)[0][0] for spec in specs]
    truth = np.array([np.hypot(*np.diff(path, axis=0).T).sum() for path in paths]) * FPS / 15
    curved = np.array([spec.things[0].motion in ("clockwise", "counter-clockwise", "bounces") for spec in specs])
    amplitude = measure(clips)["motion amplitude"]
    assert amplitude[~curved] == pytest.approx(truth[~curved], rel=0.05, abs=0.005)
    assert amplitude[curved] == pytest.approx(truth[curved], rel=0.2)  # where in the bounce it begins is by chance


def test_a_thing_that_changes_drifts(real, found):
    """Colour, shape or size another from frame 8 on: much more drift than of any clip in which nothing changes."""
    frames, specs = real
    places = np.full((len(specs), 3), 0.5)
    clips = render(specs, places, frames.shape[2], 16)
    for name, values in (("colour", tuple(COLOURS)[:6]), ("shape", ("cross", "ring")), ("size", ("small", "large"))):
        others = [next(v for v in values if v != getattr(spec.things[0], name)) for spec in specs]
        others = [replace(spec, things=(replace(spec.things[0], **{name: v}),)) for spec, v in zip(specs, others)]
        switched = np.where(TIME[:, None, None, None] < 8, clips, render(others, places, frames.shape[2], 16))
        assert measure(switched)["identity drift"].min() > 2 * found["identity drift"].max(), name
    assert found["identity drift"].max() < 0.1


def test_drift_is_1_where_nothing_is_left(real):
    gone = real[0].copy()
    gone[:, 8:] = gone[:, :1, :1, :1]  # the background's colour
    drift = measure(gone)["identity drift"]
    assert (drift > 0.95).all() and (drift <= 1).all()


def test_flicker_is_the_step_of_the_brightness(real, found):
    """A whole picture that alternates by 20 grey levels flickers by 20; motion, and any order of frames, by next to 0."""
    grey = np.full((1, 16, 64, 64, 3), 100, np.uint8)
    grey[:, ::2] += 20
    assert measure(grey)["flicker"] == pytest.approx(20)
    alternating = (real[0] * np.where(TIME % 2, 0.7, 1.0)[:, None, None, None]).astype(np.uint8)
    assert measure(alternating)["flicker"].min() > 5 * found["flicker"].max()
    shuffled = measure(real[0][:, np.random.default_rng(0).permutation(16)])
    assert found["flicker"].max() < 1.5 and shuffled["flicker"].max() < 1.5


def test_noise_moves_nothing(real, found):
    noisy = real[0] + 30 * np.random.default_rng(0).standard_normal(real[0].shape)
    noisy = measure(noisy.clip(0, 255).astype(np.uint8))
    assert noisy["motion amplitude"] == pytest.approx(found["motion amplitude"], rel=0.15)


@pytest.mark.parametrize("clip", [np.zeros, lambda shape: np.random.default_rng(0).integers(0, 256, shape)])
def test_what_shows_nothing_has_figures_too(clip):
    figures = measure(clip((2, 3, 33, 47, 3)).astype(np.uint8))
    assert all(figures[name].shape == (2,) and np.isfinite(figures[name]).all() for name in FIGURES)
    assert (figures["identity drift"] <= 1).all()


def test_consistency_is_the_mean_cosine_of_neighbours():
    features = np.random.default_rng(0).normal(size=(3, 5, 7))
    expected = [np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(clip, clip[1:])])
                for clip in features]  # fmt: skip
    assert consistency(features) == pytest.approx(expected)
    assert consistency(features[:, :1].repeat(4, axis=1)) == pytest.approx(1)
    with pytest.raises(UserError, match="two frames or more"):
        consistency(features[:, :1])


def test_diversity_is_the_spread_of_gaussian_features():
    """Two points of a Gaussian in d dimensions are about sqrt(2 d) apart; equal ones 0."""
    features = np.random.default_rng(0).standard_normal((3, 200, 64))
    assert diversity(features) == pytest.approx([128**0.5] * 3, rel=0.02)
    assert (diversity(features[:, :1].repeat(4, axis=1)) == 0).all()


@pytest.mark.parametrize("bad", [np.zeros((2, 16, 8, 8, 3)), np.zeros((16, 8, 8, 3), np.uint8),
                                 np.zeros((2, 2, 8, 8, 3), np.uint8)])  # fmt: skip
def test_refuses_what_is_no_clip(bad):
    with pytest.raises(UserError, match="expected (clips|uint8)"):
        measure(bad)


def test_one_clip_has_no_diversity():
    with pytest.raises(UserError, match="two seeds"):
        diversity(np.zeros((3, 1, 8)))


def test_spec_of_one_thing_is_measured_alone():
    """Large or small, the way is the same."""
    clips = render([Spec((Thing("ring", "blue", size, "up", "quickly"),)) for size in ("small", "large")],
                   np.full((2, 3), 0.5), 64, 16)  # fmt: skip
    assert measure(clips)["motion amplitude"] == pytest.approx([SPEED["quickly"] * FPS] * 2, rel=0.02)
