"""The shipped models: complete, small, and as good as their reports say, as far as a few dozen clips can tell."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

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


def test_the_fast_one_is_mini_but_for_its_unet(pipe):
    """It shares text tower and autoencoder, and takes one step without guidance."""
    fast = minit2v.load("mini-fast", device="cpu", dtype="float32")
    preset = pipe.preset
    unet = replace(preset.unet, step_embedding=True)
    assert fast.preset == replace(preset, name="mini-fast", unet=unet, steps=1, guidance=1.0)
    for name in ("text", "autoencoder"):
        one, other = (model.networks[name].state_dict() for model in (pipe, fast))
        assert all(torch.equal(one[key], other[key]) for key in one.keys() | other.keys())
    sizes = [path.stat().st_size for path in (data_dir() / "mini-fast").iterdir()]
    assert max(sizes) <= 12e6 and sum(sizes) <= 10e6


def test_reconstructions_keep_every_attribute(pipe):
    frames, _, specs = MovingThings("val").batch(range(48))
    again = pipe.decode(pipe.encode(frames))
    assert np.mean([agrees(read(clip), spec)["all"] for clip, spec in zip(again, specs)]) >= 0.97


@pytest.mark.parametrize("model, name, steps", [("mini", "report", 12), ("mini-fast", "report", 1),
                                                ("mini-fast", "report-2", 2), ("mini-fast", "report-4", 4)])  # fmt: skip
def test_clips_follow_their_prompts(model, name, steps):
    """24 prompts of the validation set: not worse than the report by more than chance allows."""
    _, _, specs = MovingThings("val").batch(range(24))
    pipe = minit2v.load(model, device="cpu", dtype="float32")
    clips = pipe([caption(spec) for spec in specs], seed=0, steps=steps)
    verdicts = [agrees(read(clip.pixels), spec) for clip, spec in zip(clips, specs)]
    report = json.loads((data_dir() / model / f"{name}.json").read_text())
    assert report["steps"] == steps
    row = next(row for row in report["rows"] if (row["clips"], row["split"]) == (model, "test_seen"))
    for name in ("shape", "colour", "size", "motion", "all"):
        share = np.mean([verdict[name] for verdict in verdicts])
        allowed = 4 * (0.25 / len(verdicts)) ** 0.5  # four standard errors at most
        assert 100 * share >= row[name]["percent"] - 100 * allowed, name


def test_the_empty_prompt_is_a_clip_too(pipe):
    pixels = pipe("a red circle moves left", guidance=0.0, seed=0).pixels
    assert pixels.std() > 5
