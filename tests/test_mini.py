"""The shipped model: whole, small, and as good as its card says, as far as a few dozen clips can tell."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import minit2v
from minit2v import presets
from minit2v.checkpoints.find import fingerprint
from minit2v.checkpoints.folder import data_dir, read_preset
from minit2v.datasets.moving_things import MovingThings, caption
from minit2v.evaluation.judge import agrees, read
from minit2v.evaluation.table import judged, markdown

MINI = data_dir() / "mini"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pipe():
    return minit2v.load("mini", device="cpu", dtype="float32")


def test_is_the_preset_and_fits_into_a_repository():
    assert read_preset(MINI) == presets.get("mini")
    sizes = [path.stat().st_size for path in MINI.iterdir()]
    assert max(sizes) <= 12e6 and sum(sizes) <= 25e6


def test_the_tables_in_the_readme_are_those_of_the_shipped_weights():
    report = json.loads((MINI / "report.json").read_text())
    assert report["weights"] == fingerprint(MINI) and report["n"] == 512
    assert markdown(report) in (ROOT / "README.md").read_text()
    assert judged(report) in (MINI / "README.md").read_text()


def test_the_card_s_commands_are_those_of_make_train():
    makefile, card = (ROOT / "Makefile").read_text(), (MINI / "README.md").read_text().split("## How good it is")[0]
    minutes = [
        re.search(rf"^{part}_MINUTES +\?= (\d+)$", makefile, re.MULTILINE)[1]
        for part in ("VQGAN", "CLIP", "UNET", "STILLS")
    ]
    assert re.findall(r"--budget (\d+)m", card) == minutes
    assert f"{sum(map(int, minutes))} minutes of training" in card
    assert re.findall(r"--set \S+", card) == re.findall(r"--set \S+", makefile)


def test_reconstructions_keep_every_attribute(pipe):
    frames, _, specs = MovingThings("val").batch(range(48))
    again = pipe.decode(pipe.encode(frames))
    assert np.mean([agrees(read(clip), spec)["all"] for clip, spec in zip(again, specs)]) >= 0.97


def test_clips_do_what_they_are_told(pipe):
    """24 prompts of the validation set: not worse than the card by more than chance allows."""
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
