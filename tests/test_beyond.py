"""Beyond text to video, with the shipped model: from a clip, from a picture, longer, with a negative prompt."""

import sys
from pathlib import Path

import numpy as np
import pytest

import minit2v
from minit2v.datasets.moving_things import MovingThings
from minit2v.evaluation.judge import read
from minit2v.video import Clip

ROOT = Path(__file__).parent.parent
DIRECTIONS = ("left", "right", "up", "down")


@pytest.fixture(scope="module")
def pipe():
    return minit2v.load("mini", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def given():
    """Rendered clips of a large thing, three for each direction: (what the judge reads, pixels uint8 (f, H, W, 3))."""
    data, chosen = MovingThings("val"), {direction: [] for direction in DIRECTIONS}
    for i in range(len(data)):
        thing = data.text(i)[1].things[0]
        if thing.size == "large":
            chosen[thing.motion].append(i)
    frames, _, _ = data.batch([i for indices in chosen.values() for i in indices[:3]])
    return [(read(clip), clip) for clip in frames]


def test_a_clip_keeps_its_motion_and_takes_another_colour(pipe, given):
    right = []
    for old, pixels in given:
        colour = "blue" if old.colour != "blue" else "red"
        new = read(pipe(f"a large {colour} {old.shape} moves {old.motion}", init=pixels, strength=0.7).pixels)
        right.append((new.colour == colour, new.motion == old.motion))
    assert np.sum(right, axis=0).min() >= len(given) / 2, right


def test_a_picture_begins_to_move(pipe, given):
    right = []
    for old, pixels in given:
        prompt = f"a large {old.colour} {old.shape} moves {old.motion}"
        new = read(pipe(prompt, init=pixels[len(pixels) // 2][None], strength=0.95).pixels)
        right.append((new.shape == old.shape, new.motion == old.motion))
    assert np.sum(right, axis=0).min() >= len(given) / 2, right


def test_a_clip_twice_as_long_is_the_same_motion_slower(pipe):
    prompts = [f"a large red circle moves {direction}" for direction in DIRECTIONS]
    short, long = ([read(clip.pixels) for clip in pipe(prompts, frames=frames)] for frames in (16, 32))
    assert sum(reading.motion == direction for reading, direction in zip(long, DIRECTIONS)) >= 3
    assert [reading.speed for reading in long].count("slowly") > [reading.speed for reading in short].count("slowly")


def test_the_page_shows_the_commands_of_the_picture(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import beyond

    assert "\n".join(beyond.COMMANDS) in (ROOT / "docs/sampling.md").read_text()
    assert (ROOT / "docs/beyond.png").is_file()
    sys.modules.pop("beyond")


def test_the_commands_of_the_page_run(monkeypatch, tmp_path):
    """As they stand but for one step instead of twelve."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import beyond

    made = beyond.clips([f"{command} --steps 1" for command in beyond.COMMANDS], tmp_path)
    assert [len(clip.pixels) for clip in made] == [16, 16, 1, 16, 32, 32, 16, 16]
    assert all(isinstance(clip, Clip) for clip in made)
    sys.modules.pop("beyond")
