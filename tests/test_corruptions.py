"""The corruptions: pure, nested in severity, and each touches what it says."""

import numpy as np
import pytest

from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.evaluation.validity.corruptions import CORRUPTIONS, LEVELS, ORDER

CLIPS = MovingThings("val", size=32).batch(range(24))[0]


def change(name, severity, clips=CLIPS):
    return np.abs(CORRUPTIONS[name](clips, severity, 1).astype(float) - clips).mean((1, 2, 3, 4))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pure_and_nothing_at_severity_0(name):
    before = CLIPS.copy()
    once, again, other = (CORRUPTIONS[name](CLIPS, 0.6, seed) for seed in (1, 1, 2))
    assert once.shape == CLIPS.shape and once.dtype == np.uint8 and (once == again).all() and (CLIPS == before).all()
    assert (once != other).any() or name in ("blur", "colour shift")  # which have no chance in them
    assert (CORRUPTIONS[name](CLIPS, 0.0, 1) == CLIPS).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severity_changes_more(name):
    sizes = np.array([change(name, severity).mean() for severity in LEVELS])
    assert (np.diff(sizes) > 0).all(), sizes


@pytest.mark.parametrize("name", ORDER)
def test_an_order_shows_frames_of_the_clip_only(name):
    numbered = np.arange(14, dtype=np.uint8)[None, :, None, None, None].repeat(40, 0).repeat(3, -1)
    order = CORRUPTIONS[name](numbered, 1.0, 0)[..., 0, 0, 0]  # (n f 1 1 3) -> (n f)
    assert order.max() < 14
    if name.startswith(("shuffle", "reversal")):
        assert (np.sort(order, axis=1) == np.arange(14)).all()  # each frame once
    if name.startswith("shuffle"):
        window = int(name.split()[1])
        assert (order // window == np.arange(14) // window).all() and (order != np.arange(14)).any()
    if name in ("freeze", "drop"):
        assert (np.diff(order.astype(int), axis=1) >= 0).all() and (order <= np.arange(14)).all()


def test_a_steady_warp_is_the_same_in_every_frame():
    still = CLIPS[:, :1].repeat(16, axis=1)
    steady, unsteady = (CORRUPTIONS[name](still, 0.5, 0) for name in ("steady warp", "warp"))
    assert (steady == steady[:, :1]).all() and (unsteady[:, 1:] != unsteady[:, :1]).any((2, 3, 4)).all()


def test_a_damage_is_as_large_at_every_picture_size():
    """What has a length in widths changes a picture of 64 by as much as one of 32."""
    large = MovingThings("val", size=64).batch(range(24))[0]
    for name in ("blur", "occlusion", "steady warp", "colour shift", "brightness flicker"):
        assert change(name, 0.6, large).mean() == pytest.approx(change(name, 0.6).mean(), rel=0.15), name


@pytest.mark.parametrize("clips, severity, message", [
    (CLIPS, 1.1, "severity of 0 to 1"), (CLIPS[0], 0.5, "expected clips"), (CLIPS / 2, 0.5, "expected clips"),
])  # fmt: skip
def test_refuses(clips, severity, message):
    with pytest.raises(UserError, match=message):
        CORRUPTIONS["blur"](clips, severity, 0)
