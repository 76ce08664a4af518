"""The shipped model: complete, small, and as good as its report says, as far as a few dozen clips can tell."""

import json

import numpy as np
import pytest

import minit2v
from minit2v import presets
from minit2v.checkpoints.folder import read_preset
from minit2v.datasets.moving_things import MovingThings, caption
from minit2v.evaluation.judge import agrees, read
from minit2v.files import data_dir

MINI = data_dir() / "mini"


@pytest.fixture(scope="module")
def pipe():
    return minit2v.load("mini", device="cpu", dtype="float32")


def test_is_the_preset_and_fits_into_a_repository():
    assert read_preset(MINI) == presets.get("mini")
    sizes = [path.stat().st_size for path in MINI.iterdir()]
    assert max(sizes) <= 12e6 and sum(sizes) <= 25e6


def test_reconstructions_keep_every_attribute(pipe):
    frames, _, specs = MovingThings("val").batch(range(48))
    again = pipe.decode(pipe.encode(frames))
    assert np.mean([agrees(read(clip), spec)["all"] for clip, spec in zip(again, specs)]) >= 0.97


def test_clips_follow_their_prompts(pipe):
    """24 prompts of the validation set: not worse than the report by more than chance allows."""
    _, _, specs = MovingThings("val").batch(range(24))
    clips = pipe([caption(spec) for spec in specs], seed=0)
    verdicts = [agrees(read(clip.pixels), spec) for clip, spec in zip(clips, specs)]
    report = json.loads((MINI / "report.json").read_text())
    row = next(row for row in report["rows"] if (row["clips"], row["split"]) == ("mini", "test_seen"))
    for name in ("shape", "colour", "size", "motion", "all"):
        share = np.mean([verdict[name] for verdict in verdicts])
        allowed = 4 * (0.25 / len(verdicts)) ** 0.5  # four standard errors at most
        assert 100 * share >= row[name]["percent"] - 100 * allowed, name


def test_the_empty_prompt_is_a_clip_too(pipe):
    pixels = pipe("a red circle moves left", guidance=0.0, seed=0).pixels
    assert pixels.std() > 5
