"""Several processes that share sampling and measuring make what one process makes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from minit2v.cli import main
from minit2v.datasets import find_data
from minit2v.evaluation.full_scale.extraction import extract
from minit2v.evaluation.full_scale.settings import FullScaleSettings
from minit2v.ranks import own_part

ALONE = [sys.executable, "-m", "minit2v"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--",
            "minit2v"]  # without the dashes torchrun takes --n for one of its own


def shared(*arguments, launcher=TORCHRUN):
    """The output of a command that two processes run together, or new ones of another launcher."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as torchrun sets it: sums in another order round otherwise
    done = subprocess.run([*launcher, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def as_rank(monkeypatch):
    """Be one of two processes, whose friend is not waited for."""

    def become(number):
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", "2")

    class Alone:
        def wait_for_everyone(self):
            pass

    for place in ("minit2v.evaluation.full_scale.extraction", "minit2v.evaluation.report"):
        monkeypatch.setattr(f"{place}.this_process", Alone)
    return become


def test_every_prompt_has_one_process(as_rank):
    for n in range(6):
        parts = []
        for rank in range(2):
            as_rank(rank)
            parts += own_part(n)
        assert parts == list(range(n))


def test_two_processes_make_the_clips_of_one(tmp_path, untrained_nano):
    """Names, seeds and pixels of a clip depend on its place in the list; a byte order mark is no letter."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n\n  a blue ring moves up\na green star\n", encoding="utf-8-sig")
    options = ["--prompts", prompts, "--model", untrained_nano, "--steps", "2", "--n", "2", "--device", "cpu"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    said = shared("sample", *options, "--out", tmp_path / "two" / "clip.webp")
    assert main(["sample", *map(str, options), "--out", str(tmp_path / "one" / "clip.webp")]) == 0
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two] == [f"clip-{i}.webp" for i in range(1, 7)]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert sorted(said.split()) == [str(path) for path in two]


def test_two_processes_measure_what_one_measures(tmp_path, untrained_nano):
    """Clips are sampled once each, by both processes, and one report is written and printed."""
    words = ["--split", "test_seen", "--n", "4", "--batch", "2", "--steps", "1"]
    measured = ["evaluate", "--model", untrained_nano, *words]
    said = shared(*measured, "--out", tmp_path / "two.json")
    assert said.count("with 50 steps needs") == 1, "the first process alone writes"
    shared(*measured, "--out", tmp_path / "one.json", launcher=ALONE)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["rows"] == two["rows"]
    kept = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("arguments, message", [
    (["evaluate", "--model", "MODEL", "--n", "2"], "evaluate without --out: expected one process, found 2"),
    (["sample", "a red circle", "--model", "MODEL", "--seed", "random"], "--seed random: expected one process"),
    (["sample", "a red circle", "--model", "MODEL", "--record", "run"], "--record: expected one process"),
])  # fmt: skip
def test_what_cannot_be_shared_is_one_clear_line(as_rank, untrained_nano, arguments, message, capsys):
    as_rank(1)
    assert main([str(untrained_nano) if word == "MODEL" else word for word in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_list_of_prompts_that_is_not_there_is_one_clear_line(tmp_path, capsys):
    assert main(["sample", "--prompts", str(tmp_path / "no.txt")]) == 2
    assert "--prompts: expected a file with a prompt a line" in capsys.readouterr().err
    (tmp_path / "empty.txt").write_text("\n\n")
    assert main(["sample", "--prompts", str(tmp_path / "empty.txt")]) == 2
    assert "expected a prompt, found none" in capsys.readouterr().err


class Means:
    """A network whose features are the mean colours; it counts the clips that it saw."""

    identity, seen = "means", 0

    def features(self, pixels):
        self.seen += len(pixels)
        return pixels.mean(axis=(1, 2, 3))


def stop():
    raise KeyboardInterrupt


def test_features_are_computed_once_by_one_of_the_processes(tmp_path, as_rank, monkeypatch):
    clips = find_data("moving-things").open("val", 4, 32, 32).batch(range(5)).frames
    settings, network = FullScaleSettings(features=tmp_path, frames=4, size=32, batch=2), Means()
    as_rank(1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # stopped when it would wait for the other
        patch.setattr("minit2v.evaluation.full_scale.extraction.this_process", stop)
        extract(clips, {"i3d": network}, settings)
    assert network.seen == 2, "batches 0, 2 and 4 of two clips; the second process has the one in the middle"
    as_rank(0)
    found = extract(clips, {"i3d": network}, settings)
    assert network.seen == 5
    assert np.allclose(found["i3d"], clips.mean(axis=(1, 2, 3)))
