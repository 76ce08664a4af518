"""Kept clips: written and read without losses, refused where they are damaged, and those shipped are of today's model."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minit2v
from minit2v.errors import UserError
from minit2v.files import data_dir
from minit2v.recording.clip_set import ClipSet

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)


def some_clips(n=3):
    pixels = RNG.integers(0, 256, (n, 4, 6, 10, 3), dtype=np.uint8)
    return ClipSet("mini", {"steps": 2, "guidance": 1.5}, [f"prompt {i}" for i in range(n)], np.arange(n) + 7, pixels)


def test_comes_back_as_it_went_in(tmp_path):
    made = some_clips()
    back = ClipSet.load(made.save(tmp_path / "made.npz"))
    assert np.array_equal(back.pixels, made.pixels) and back.seeds.tolist() == [7, 8, 9]
    assert (back.model, back.settings, back.captions) == (made.model, made.settings, made.captions)


def test_refuses_what_does_not_fit_together(tmp_path):
    made = some_clips()
    for change in ({"captions": made.captions[:2]}, {"seeds": made.seeds[:2]}, {"pixels": made.pixels / 255.0},
                   {"pixels": made.pixels[0]}, {"captions": [], "seeds": [], "pixels": made.pixels[:0]}):  # fmt: skip
        with pytest.raises(UserError, match="^clip set: expected clips uint8"):
            ClipSet(**(vars(made) | change))
    path = made.save(tmp_path / "made.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged or of another kind"):
        ClipSet.load(path)
    with pytest.raises(UserError, match="one of mini-open, mini-test, found nothing"):
        ClipSet.load("nothing")


@pytest.mark.parametrize("name", ["mini-test", "mini-open"])
def test_shipped_clips_are_of_the_shipped_model(name):
    """After a new data/mini: `make recordings`."""
    spec = importlib.util.spec_from_file_location("record_clips", ROOT / "scripts/record_clips.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    kept = ClipSet.load(name)
    n = script.CLIPS[name]
    assert kept.captions == script.prompts()[name] and kept.pixels.shape == (n, 16, 64, 64, 3)
    assert kept.seeds.tolist() == list(range(n))
    assert (data_dir() / f"clip_sets/{name}.npz").stat().st_size < 3_000_000
    pipe = minit2v.load("mini", device="cpu")
    again = script.made(pipe, kept.captions[:2])
    assert again.settings == kept.settings
    difference = np.abs(again.pixels.astype(int) - kept.pixels[:2]).mean()
    assert difference < 3, "record them again: make recordings"
