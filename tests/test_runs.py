"""Recorded trainings of the autoencoder: files, what they hold, and the widget that shows them."""

import json
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from PIL import Image

from minit2v import lab
from minit2v.errors import UserError
from minit2v.files import data_dir
from minit2v.lab.course import trainings as runs
from minit2v.lab.widgets.base import png
from minit2v.recording.run import TrainingRun

SHIPPED = [f"nano-vqgan-{variant}" for variant in runs.VARIANTS]


def made_up(name="one", seed=0, n=3):
    """A run of 3 pictures of 2 frames, with two curves."""
    random = np.random.default_rng(seed)
    frames = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    pictures = random.integers(0, 256, (n, *frames.shape), dtype=np.uint8)
    curves = {"l1": (np.arange(5), random.random(5)), "psnr": (np.array([0, 4]), np.array([10.0, 20.0]))}
    return TrainingRun(name, curves, frames, np.array([0, 2, 4])[:n], pictures)


def test_a_run_comes_back_from_its_file(tmp_path):
    run = made_up()
    again = TrainingRun.load(run.save(tmp_path / "run.npz"))
    assert again.name == "one" and list(again.curves) == list(run.curves)
    for key, pair in run.curves.items():
        np.testing.assert_array_equal(again.curves[key], pair)
    for name in ("frames", "steps", "pictures"):
        np.testing.assert_array_equal(getattr(again, name), getattr(run, name))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected an existing run .*nano-vqgan.*, found nowhere"):
        TrainingRun.load("nowhere")
    path = made_up().save(tmp_path / "run.npz")
    for damaged in (path.read_bytes()[:-100], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="expected a run, found"):
            TrainingRun.load(path)
    np.savez_compressed(path, texts=np.zeros(2**27, np.uint8))  # small, and huge when it is unpacked
    with pytest.raises(UserError, match="expected a run, found .*unpack"):
        TrainingRun.load(path)
    np.savez(path, texts=np.array([{}], dtype=object))  # a pickle
    with pytest.raises(UserError, match="expected a run, found"):
        TrainingRun.load(path)
    run = made_up()
    for change in ({"steps": np.array([0, 2])}, {"steps": np.array([0, 4, 2])}, {"frames": run.frames[:1]},
                   {"pictures": run.pictures.astype(float)}, {"curves": {"l1": (np.arange(3), np.arange(4))}}):
        with pytest.raises(UserError, match="expected"):
            replace(run, **change)


def test_the_shipped_runs_are_trainings_of_this_code():
    """A few steps, trained again, give the points and pictures that are shipped; all of it takes minutes."""
    for name, variant in zip(SHIPPED, runs.VARIANTS):
        shipped, task = TrainingRun.load(name), runs.task_of(variant)
        assert shipped.name == variant and (data_dir() / f"runs/{name}.npz").stat().st_size < 100_000
        pictures, figures = runs.examine(task, runs.unseen_frames())
        assert abs(pictures.astype(int) - shipped.pictures[0]).max() <= 2
        for key, value in figures.items():
            assert shipped.curves[key][1][0] == pytest.approx(value, rel=0.02), key
        reports = [report for _, report in runs.training(task, int(shipped.steps[-1]), stop=runs.EVERY)]
        for key in reports[0]:
            assert shipped.curves[key][1][0] == pytest.approx(np.mean([r[key] for r in reports]), rel=0.05), key
    with pytest.raises(UserError, match="expected one of late, early, never, collapsed, found 'soon'"):
        runs.task_of("soon")


def test_a_recording_has_pictures_of_the_steps_that_were_asked_for():
    run = runs.record_training(runs.task_of(), 7, "short", [0, 3, 7])
    assert run.steps.tolist() == [0, 3, 7] and run.pictures.shape == (3, 4, 32, 32, 3)
    steps, _ = run.curves["l1"]
    assert steps.tolist() == [3.0, 6.5]  # means of steps 1 to 5 and 6 to 7
    assert run.curves["hinge"][0].tolist() == [6.5]  # the discriminator starts after 0.7 of seven steps: at 6 and 7
    assert run.curves["unseen: psnr"][0].tolist() == [0, 3, 7]


@pytest.fixture
def replay():
    return lab.RunReplay([made_up(), made_up("two", 1)], name="replay-test", curve="psnr")


def test_the_replay_sends_the_numbers_and_pictures_of_its_runs(replay):
    data = zlib.decompress(replay.numbers)
    for i, run in enumerate(replay.runs):
        for key, pair in run.curves.items():
            place = replay.numbers_layout[f"{i} {key}"]
            sent = np.frombuffer(data, np.float32, np.prod(place["shape"]), place["start"]).reshape(place["shape"])
            np.testing.assert_array_equal(sent, np.stack(pair))
    sheet, layout = np.asarray(Image.open(BytesIO(replay.tiles))), replay.tiles_layout
    assert layout["count"] == 2 + 2 * 3 * 2
    for i, run in enumerate(replay.runs):
        for at in range(3):
            for k in range(2):  # as replay.js counts: the frames, then every run's pictures in order
                row, column = divmod(2 * (1 + i * 3 + at) + k, layout["columns"])
                tile = sheet[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
                np.testing.assert_array_equal(tile, run.pictures[at, k])
    json.dumps(replay.info)


def test_the_replay_s_picture_is_the_same_wherever_its_cursor_is(replay):
    before = png(replay.picture())
    replay.at, replay.curve = 0, "l1"
    replay.append(1, {"l1": 0.5, "new": 3})
    replay.append(2, {"l1": 0.25})
    assert replay.live == {"l1": [[1, 2], [0.5, 0.25]], "new": [[1], [3.0]]}
    assert png(replay.picture()) == before and len(before) < 150_000
    assert repr(replay) == "RunReplay(one, two, 3 of 4 steps)" and "psnr" in replay.alt()


def test_the_replay_refuses_what_does_not_fit(replay):
    for name, value in (("at", 3), ("at", -1), ("curve", "l2")):
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(replay, name, value)
    other = replace(made_up(), steps=np.array([0, 1, 4]))
    for given in ([], "nano-vqgan-late", [made_up(), other]):
        with pytest.raises(UserError, match="RunReplay: expected"):
            lab.RunReplay(given)


def test_shipped_runs_fit_into_one_replay():
    widget = lab.RunReplay([TrainingRun.load(name) for name in SHIPPED], name="replay-shipped", curve="unseen: psnr")
    assert len(png(widget.picture())) < 150_000
