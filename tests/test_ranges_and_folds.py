"""What notebook 01 says about ranges, folds and centroids, each against loops or against what was drawn."""

from itertools import product

import numpy as np
import pytest
import torch

from minit2v.datasets.moving_things import MovingThings
from minit2v.datasets.moving_things.scenes import DIRECTIONS, SPEED
from minit2v.evaluation import finding, judge
from minit2v.networks.blocks import clip_view, frame_view
from minit2v.pixels import to_pixels, to_signed

ALL = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)


def test_signed_pixels_are_exact_and_come_back():
    signed = to_signed(ALL)
    assert signed.shape == (1, 3, 16, 16) and signed.min() == -1 and signed.max() == 1
    assert torch.equal(to_pixels(signed), ALL)


def test_what_is_cut_off_is_at_most_one_step_darker():
    """With `rounded` False fractions are cut off, as the release does: a level becomes itself or the one below."""
    lost = ALL.int() - to_pixels(to_signed(ALL), rounded=False).int()
    assert set(lost.unique().tolist()) == {0, 1}
    beyond = torch.tensor([-3.0, 3.0]).expand(3, 1, 2)
    assert to_pixels(beyond)[0, :, 0].tolist() == to_pixels(beyond, rounded=False)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_views_of_frames_and_clips_are_inverse(layout):
    """By the index of every element; neither direction copies, and channels_last stays channels_last."""
    b, f, c, h, w = 2, 5, 3, 4, 6
    frames = torch.randn(b * f, c, h, w).contiguous(memory_format=layout)
    clips = clip_view(frames, f)
    for i, k, t, y, x in product(range(b), range(c), range(f), range(h), range(w)):
        assert clips[i, k, t, y * w + x] == frames[i * f + t, k, y, x]
    assert torch.equal(frame_view(clips, frames), frames)
    assert clips.data_ptr() == frame_view(clips, frames).data_ptr() == frames.data_ptr()
    assert clips.is_contiguous(memory_format=torch.channels_last) == (layout == torch.channels_last)


@pytest.mark.parametrize("size", [32, 64])
def test_centroid_and_line_are_those_of_the_drawing(size):
    frames, _, specs = MovingThings("test_seen", size=size).batch(range(24))
    for clip, spec in zip(frames, specs):
        pooled = finding.pooled(clip)
        _, centre, present = finding.locate(pooled - np.median(pooled[:, ::2, ::2].reshape(-1, 3), axis=0))
        assert present.all()
        velocity, residual = judge._line(np.arange(16), centre / pooled.shape[2])
        thing = spec.things[0]
        assert velocity == pytest.approx(SPEED[thing.speed] * np.array(DIRECTIONS[thing.motion]), abs=0.001)
        assert residual < 0.005  # picture widths, a third of a pixel at 64
