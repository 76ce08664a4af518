"""What stands behind the page of `minit2v serve`, and its door, without a browser; tests/browser has the page."""

import asyncio
import html
import http.client
import logging
import re
import socket
import sys
import threading
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

import minit2v
from minit2v.cli import commands, main
from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.lab import clip_queue, door, page
from minit2v.presets import PRESETS
from minit2v.systems import SYSTEMS
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


def test_a_prompt_that_is_cut_is_told_to_whoever_asks(one):
    made = one.ask(f"{PROMPT} " * 10, steps=1, frames=2).future.result(120)
    [note] = made.notes
    assert "the prompt has 50 tokens and the model reads 18" in note
    assert one.ask(PROMPT, steps=1, frames=2).future.result(120).notes == []


def test_an_unknown_word_gets_the_line_of_the_command_line(one, untrained_nano, capsys, tmp_path):
    prompt = "a red <b>elephant</b> moves left"
    error = one.ask(prompt, steps=1, frames=2).future.exception(120)
    assert main(["sample", prompt, "--model", str(untrained_nano), "--out", str(tmp_path / "clip.mp4"), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == f"minit2v: {html.unescape(page.line(error))}\n"
    assert "elephant" in page.line(error) and "<" not in page.line(error)


@pytest.mark.parametrize("preset", ["mini", "cogvideo-zh", "makeavideo"])
def test_the_page_says_which_words_a_model_knows(preset):
    text = next(system.presets[preset] for system in SYSTEMS.values() if preset in system.presets)().text
    said = page.vocabulary(SimpleNamespace(text=text))
    assert sorted(re.sub("<dt>.*?</dt>|<summary>.*?</summary>|<.*?>", " ", said).split()) == sorted(text.words)
    assert said.startswith("<details><summary>") and re.search("<dt>colour</dt><dd>(blue cyan|橙色)", said)


def test_words_of_other_models_are_told_too():
    said = page.vocabulary(SimpleNamespace(text=SimpleNamespace(words=("red", "car", "<b>"))))
    assert "<dt>colour</dt><dd>red</dd>" in said and "<dt>other</dt><dd>&lt;b&gt; car</dd>" in said
    assert "Any English works" in page.vocabulary(PRESETS["modelscope-1.7b"]()) and page.vocabulary(SimpleNamespace()) == ""


def test_a_clip_as_html_plays_only_for_who_wants_motion():
    drawn = page.video(Clip(np.zeros((4, 16, 32, 3), np.uint8), 8))
    assert 'width="256" height="128"' in drawn and "prefers-reduced-motion" in drawn and "autoplay" not in drawn
    assert drawn.count("http") == 0


def test_mistakes_are_one_line_before_the_model_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(minit2v, "load", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(commands, "find_spec", lambda name: name != "panel" and find_spec(name))
    assert main(["serve"]) == 2
    assert 'serve needs the package panel, found none; pip install "minit2v[serve]"' in capsys.readouterr().err
    monkeypatch.setattr(commands, "find_spec", lambda name: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert "with a free port, found 127.0.0.1:" in error and error.count("\n") == 1
    assert main(["serve", "--host", "192.0.2.1"]) == 2 and "address of this machine" in capsys.readouterr().err
    assert main(["serve", "--port", "70000"]) == 2 and "from 0 to 65535" in capsys.readouterr().err


def test_a_port_is_taken_before_the_model_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(commands, "find_spec", lambda name: True)
    with door.listen("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])
    later = []
    monkeypatch.setattr(minit2v, "load", lambda *_, **__: later.append(main(["serve", "--port", port])))
    monkeypatch.setattr(page, "serve", lambda pipe, listener: None)
    assert main(["serve", "--port", port]) == 0 and later == [2]
    error = capsys.readouterr().err
    assert f"found 127.0.0.1:{port} (" in error and "while" not in error and error.count("\n") == 1


@pytest.mark.parametrize("host, address, private", [
    ("127.0.0.1", "http://127.0.0.1", True), ("localhost", "http://127.0.0.1", True), ("127.0.0.2", "http://127.0.0.2", True),
    ("::1", "http://[::1]", True), ("0.0.0.0", "http://0.0.0.0", False), ("::", "http://[::]", False),
])  # fmt: skip
def test_every_loopback_address_is_this_machine_only(host, address, private):
    with _listening(host) as listener:
        assert door.url(listener) == f"{address}:{listener.getsockname()[1]}" and door.is_private(listener) is private


def _listening(host):
    try:
        return door.listen(host, 0)
    except UserError as error:
        pytest.skip(f"no {host} on this machine: {error}")


# --- the door, over HTTP


@pytest.fixture(scope="module")
def opened(one):
    """Opens the page at a host: its address. The servers end with the module."""
    pytest.importorskip("panel")
    ends, known = [], {}

    def serve(listener, ready):
        asyncio.set_event_loop(asyncio.new_event_loop())
        server = door.open_to(lambda: page.page(one), listener)
        ends.append(lambda: server.io_loop.asyncio_loop.call_soon_threadsafe(server.io_loop.stop))
        server.start()
        server.io_loop.add_callback(ready.set)
        server.io_loop.start()
        server.stop(wait=False)

    def at(host):
        if host not in known:
            listener, ready = _listening(host), threading.Event()
            thread = threading.Thread(target=serve, args=(listener, ready), daemon=True)
            thread.start()
            assert ready.wait(60)
            ends.append(thread.join)
            known[host] = "127.0.0.1" if host == "0.0.0.0" else host, listener.getsockname()[1]
        return known[host]

    yield at
    for end in ends:
        end()


def asked(place, path="/", **headers):
    """Status and text of an answer; `__` in the name of a header is a dash."""
    connection = http.client.HTTPConnection(*place, timeout=60)
    try:
        connection.request("GET", path, headers={name.replace("__", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


WEBSOCKET = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec__WebSocket__Version": "13",
             "Sec__WebSocket__Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec__WebSocket__Protocol": "bokeh, x"}  # fmt: skip
EVIL = {"Host": "evil.com", "Origin": "http://evil.com"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_page_itself_comes_in(opened, host):
    place = opened(host)
    name = f"[{host}]" if ":" in host else host
    own = f"{name}:{place[1]}"
    status, text = asked(place, Sec__Fetch__Site="cross-site", Sec__Fetch__Dest="document")  # a link on another page
    assert status == 200 and "<title>minit2v</title>" in text and 'name="viewport"' in text
    assert asked(place, "/ws", Origin=f"http://{own}", **WEBSOCKET)[0] == 101
    assert asked(place, "/ws", Origin="http://localhost:8000", Host="localhost:8000", **WEBSOCKET)[0] == 101  # a tunnel
    assert asked(place, "/static/js/bokeh.min.js?v=1", Origin=f"http://{own}", Sec__Fetch__Site="same-origin")[0] == 200


@pytest.mark.parametrize("path, headers", [
    ("/components/this/a/b/c", {}), ("/components/minit2v.__main__/a/b/c", {}), ("//components/this/a/b/c", {}),
    ("/autoload.js?bokeh-autoload-element=1", {}), ("/metadata", {}), ("/rest/session_info", {}), ("/ws/", WEBSOCKET),
    ("/static/js/bokeh.min.js%00.txt", {}), ("/?theme=%ff", {}), ("/static/a%0ab", {}),
    ("/", {"Host": "evil.com"}), ("/", {"Host": "127.0.0.1.evil.com"}), ("/", {"Host": "10.0.0.1"}), ("/ws", WEBSOCKET | EVIL),
    ("/ws", WEBSOCKET | EVIL | {"Sec__Fetch__Site": "same-origin"}), ("/ws", WEBSOCKET | {"Origin": "http://evil.com"}),
    ("/ws", WEBSOCKET | {"Origin": "http://[::1"}), ("/ws", WEBSOCKET | {"Origin": "null"}),
    ("/ws", WEBSOCKET | {"Origin": ""}), ("/ws", WEBSOCKET | {"Origin": "http://127.0.0.1"}),
    ("/", {"Sec__Fetch__Site": "cross-site", "Sec__Fetch__Dest": "iframe"}), ("/", {"Sec__Fetch__Site": "same-site"}),
])  # fmt: skip
def test_whatever_a_foreign_page_can_ask_for_is_refused_in_a_line(opened, path, headers):
    known = set(sys.modules)
    status, text = asked(opened("127.0.0.1"), path, **headers)
    assert status == 403 and text.startswith("minit2v serve: expected ") and text.count("\n") == 1
    assert not {"this", "minit2v.__main__"} & (set(sys.modules) - known)


def test_a_page_for_the_network_comes_in_under_any_name_and_a_foreign_one_does_not(opened):
    place = opened("0.0.0.0")
    for name in ("10.0.0.1:5006", "machine.school.example"):
        assert asked(place, "/ws", Host=name, Origin=f"http://{name}", **WEBSOCKET)[0] == 101
        assert asked(place, "/ws", Host=name, Origin="http://evil.com", **WEBSOCKET)[0] == 403
        assert asked(place, "/favicon.ico", Host=name)[0] == 200
    assert asked(place, "/components/this/a/b/c")[0] == 403


def test_what_a_browser_says_wrongly_is_a_line_of_the_log(opened, caplog):
    place = opened("127.0.0.1")
    asked(place, "/ws", Sec__WebSocket__Protocol="bokeh, x", **{k: v for k, v in WEBSOCKET.items() if "Protocol" not in k})
    logger = logging.getLogger("bokeh")
    logger.addHandler(caplog.handler)  # bokeh's records do not reach the root
    try:
        asyncio.run(asyncio.wait_for(_say(place, "[" * 100_000), 60))
    finally:
        logger.removeHandler(caplog.handler)
    lines = [caplog.handler.format(record) for record in caplog.records if record.levelno >= logging.ERROR]
    assert any("Uncaught exception GET /ws" in line for line in lines) and any("RecursionError" in line for line in lines)
    assert all("\n" not in line and len(line) < 700 for line in lines)


async def _say(place, words):
    """Sends words to the page's websocket after it has said ACK, and waits until it has closed."""
    from bokeh.util.token import generate_jwt_token
    from tornado.websocket import websocket_connect

    address = f"ws://{place[0]}:{place[1]}/ws"
    connection = await websocket_connect(address, subprotocols=["bokeh", generate_jwt_token("one")])
    assert "ACK" in await connection.read_message()
    while await connection.read_message() != "{}":
        pass
    for _ in ("header", "metadata", "content"):  # of a message
        await connection.write_message(words)
    while await connection.read_message() is not None:
        pass
