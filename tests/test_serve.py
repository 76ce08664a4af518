"""What stands behind the page of `minit2v serve`, without a browser; tests/browser has the page."""

import socket
import threading
from importlib.util import find_spec

import numpy as np
import pytest

import minit2v
from minit2v.cli import commands, main
from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.lab import clip_queue, page
from minit2v.video import Clip

PROMPT = "a red circle moves left"


@pytest.fixture(scope="module")
def one(untrained_nano):
    return clip_queue.ClipQueue(minit2v.load(untrained_nano, device="cpu"))


def test_a_visitor_gets_the_clip_that_sampling_gives_with_every_step(one):
    job = one.ask(PROMPT, seed=3, steps=2, frames=4, guidance=2.0, sampler="ddpm")
    made = job.future.result(120)
    expected = one.pipe(PROMPT, seed=3, steps=2, frames=4, guidance=2.0, sampler="ddpm")
    assert np.array_equal(made.clip.pixels, expected.pixels)
    assert (job.step, job.steps) == (2, 2) and made.recording.x0.shape[:2] == (2, 4)
    assert [name for name, _, _ in made.reading] == ["shape", "colour", "size", "motion", "speed"]


def test_visitors_are_served_one_after_the_other_and_one_who_leaves_is_left_out(one, monkeypatch):
    at_once, most, begun = 0, 0, []
    gate, lock, made = threading.Event(), threading.Lock(), one._made

    def watched(job, prompts, settings):
        nonlocal at_once, most
        begun.append(settings.seed)
        gate.wait(60)
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return made(job, prompts, settings)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(one, "_made", watched)
    jobs = [one.ask(PROMPT, seed=seed, steps=1, frames=2) for seed in range(4)]
    assert [one.ahead(job) for job in jobs] == [0, 1, 2, 3]
    assert jobs[2].future.cancel()
    assert one.ahead(jobs[3]) == 2
    gate.set()
    for job in (jobs[0], jobs[1], jobs[3]):
        job.future.result(120)
    assert most == 1 and begun == [0, 1, 3] and one.ahead(jobs[3]) == 0


def test_an_error_is_that_of_the_clip_and_the_line_goes_on(one):
    with pytest.raises(UserError, match="elephant"):
        one.ask("a red elephant moves left", steps=1, frames=2).future.result(120)
    assert one.ask(PROMPT, steps=1, frames=2).future.result(120).clip.pixels.shape[0] == 2


@pytest.mark.parametrize("prompt, settings, message", [
    ("", {}, "prompt: expected words"), ("red " * 100, {}, "at most 300 characters, found 400"),
    (PROMPT, {"steps": 101}, "steps: expected at most 100 on this page, found 101"),
    (PROMPT, {"frames": 33}, "frames: expected at most 32 on this page, found 33"),
    (PROMPT, {"steps": 0}, "steps: expected"), (PROMPT, {"sampler": "magic"}, "sampler: expected one of"),
    (PROMPT, {"seed": -1}, "seed: expected"), (PROMPT, {"guidance": float("nan")}, "guidance: expected"),
])  # fmt: skip
def test_what_is_out_of_range_is_refused_before_it_waits(one, prompt, settings, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        one.ask(prompt, **settings)


def test_the_line_has_an_end(one, monkeypatch):
    monkeypatch.setattr(clip_queue, "MOST_WAITING", 0)
    with pytest.raises(UserError, match="at most 0 clips in the line"):
        one.ask(PROMPT, steps=1, frames=2)


def test_the_judge_reads_clips_of_moving_things_only():
    sample = MovingThings("test_seen")[25]
    rows = clip_queue.reading_of(sample.caption, sample.frames)
    assert all(asked in (None, read) for _, asked, read in rows) and "✗" not in clip_queue.verdict(rows)
    assert "up asked" in clip_queue.verdict(clip_queue.reading_of("a large yellow square moves up", sample.frames))
    assert clip_queue.reading_of("a panda eats bamboo", sample.frames) is None
    assert clip_queue.reading_of("a red circle moves left and a blue circle moves right", sample.frames) is None


def test_a_clip_as_html_plays_only_for_who_wants_motion():
    html = page.video(Clip(np.zeros((4, 16, 32, 3), np.uint8), 8))
    assert 'width="256" height="128"' in html and "prefers-reduced-motion" in html and "autoplay" not in html
    assert html.count("http") == 0


def test_mistakes_are_one_line_before_the_model_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(commands, "find_spec", lambda name: name != "panel" and find_spec(name))
    assert main(["serve", "--model", "nowhere"]) == 2
    assert 'serve needs the package panel, found none; pip install "minit2v[serve]"' in capsys.readouterr().err
    monkeypatch.setattr(commands, "find_spec", lambda name: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--model", "nowhere", "--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert "with a free port, found 127.0.0.1:" in error and error.count("\n") == 1
    assert main(["serve", "--host", "192.0.2.1"]) == 2 and "address of this machine" in capsys.readouterr().err
    assert main(["serve", "--port", "70000"]) == 2 and "from 0 to 65535" in capsys.readouterr().err
    assert page.free_port("127.0.0.1", 0) > 0
