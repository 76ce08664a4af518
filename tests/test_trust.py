"""What is damaged is noticed, what is hostile is harmless, what is interrupted goes on."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_trainer import CONFIG, Regression
from torch import nn

from minit2v import lab, presets
from minit2v.checkpoints.folder import load_into, read_preset, save_model, save_module, save_preset, save_tensors
from minit2v.checkpoints.inspect import inspect
from minit2v.checkpoints.load import load_network
from minit2v.checkpoints.reading import read
from minit2v.errors import UserError
from minit2v.evaluation.kept import keep, read_kept
from minit2v.evaluation.report import peak_memory
from minit2v.files import atomic, check_writable, read_json
from minit2v.systems import build
from minit2v.training import latents
from minit2v.training.checkpoint import check_place, owned, read_checkpoint
from minit2v.training.trainer import train

FLIPS = 60  # bits of a file that are changed, one at a time


def flipped(path: Path, place: Path, seed: int) -> Path:
    """A copy of a file with one bit changed."""
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    place.write_bytes(data)
    return place


# --- damage


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint whose numbers are most of its bytes."""
    out = tmp_path_factory.mktemp("run")
    train(Regression(width=4000), out, replace(CONFIG, train_steps=3))
    return out / "checkpoint.pt"


def test_a_changed_bit_of_a_checkpoint_is_noticed(checkpoint, tmp_path):
    """Or it changes nothing: a zip has a few bytes that nobody reads."""
    whole, refused = read_checkpoint(checkpoint), 0
    for seed in range(FLIPS):
        try:
            found = read_checkpoint(flipped(checkpoint, tmp_path / "checkpoint.pt", seed))
        except UserError as error:
            assert "is damaged" in str(error)
            refused += 1
            continue
        assert found["step"] == whole["step"] and found["settings"] == whole["settings"]
        assert all(torch.equal(found["task"][name], whole["task"][name]) for name in whole["task"])
    assert refused > FLIPS * 0.9


@pytest.mark.parametrize("change", [
    {"step": "7"}, {"step": -1}, {"step": True}, {"elapsed": float("nan")}, {"settings": None}, {"task": []}, {"step": None},
    {"task": {"net.weight": torch.full((1, 4000), float("nan")), "net.bias": torch.zeros(1)}},
], ids=str)  # fmt: skip
def test_what_no_training_writes_is_no_checkpoint(checkpoint, tmp_path, change):
    state = torch.load(checkpoint, weights_only=True) | change
    torch.save({key: value for key, value in state.items() if value is not None or key == "settings"}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="checkpoint.pt is damaged or no checkpoint"):
        train(Regression(width=4000), tmp_path, CONFIG, resume=True)


def edited(checkpoint: Path, place: Path, edit) -> None:
    state = torch.load(checkpoint, weights_only=True)
    edit(state)
    torch.save(state, place)


@pytest.mark.parametrize("edit, reason", [
    (lambda s: s.update(step=10**9), "step 1000000000, an average of 3 steps"),
    (lambda s: s.update(step=0), "step 0, an average of 3"),
    (lambda s: s["averaged"].update(n_averaged=torch.tensor(10**9)), "step 3, an average of 1000000000"),
    (lambda s: s["task"].update({"net.weight": s["task"]["net.weight"].long()}), "net.weight is torch.int64"),
    (lambda s: s["averaged"].update({"module.net.bias": s["averaged"]["module.net.bias"].double()}), "bias is torch.float64"),
    (lambda s: s["optimizer"].update(state={}), "the optimizer knows 0 parameters"),
    (lambda s: s["optimizer"]["state"].pop(1), "the optimizer does not know parameter 1"),
    (lambda s: s["optimizer"]["state"].update({7: s["optimizer"]["state"][1]}), "the optimizer knows 3 parameters"),
    (lambda s: s["optimizer"]["state"].update({0: {"a": "x"}}), "the optimizer keeps a of parameter 0"),
    (lambda s: s["optimizer"]["state"][0].update(step=torch.tensor(4.0)), "parameter 0, at step 3"),
    (lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(1)), "other shapes or numbers of parameter 0"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_an_edited_checkpoint_is_refused(checkpoint, tmp_path, edit, reason):
    edited(checkpoint, tmp_path / "checkpoint.pt", edit)
    task = Regression(width=4000)
    with pytest.raises(UserError, match=f"checkpoint.pt is damaged or no checkpoint of minit2v .*{reason}"):
        train(task, tmp_path, CONFIG, resume=True)
    assert task.calls == 0


def test_the_options_of_the_optimizer_are_those_of_the_settings(checkpoint, tmp_path):
    shutil.copytree(checkpoint.parent, tmp_path / "whole")
    (tmp_path / "edited").mkdir()
    options = {"betas": (5, 5), "weight_decay": 1e9, "lr": float("inf"), "orthogonal": True}
    edited(checkpoint, tmp_path / "edited" / "checkpoint.pt", lambda s: s["optimizer"]["param_groups"][0].update(options))
    one, two = (train(Regression(width=4000), tmp_path / name, replace(CONFIG, train_steps=5), resume=True)["net"].weight
                for name in ("whole", "edited"))  # fmt: skip
    assert torch.equal(one, two)


@pytest.mark.parametrize("less, message", [
    ({"train_steps": 2}, "train_steps: expected 3 or more, as 3 are done in .*checkpoint.pt, found 2"),
    ({"train_steps": 0, "budget": 1e-9}, "budget: expected 1 or more, as .* are done in .*checkpoint.pt, found 1e-09"),
])
def test_fewer_steps_than_are_done_are_refused(checkpoint, tmp_path, less, message):
    shutil.copytree(checkpoint.parent, tmp_path / "run")
    with pytest.raises(UserError, match=message):
        train(Regression(width=4000), tmp_path / "run", replace(CONFIG, **less), resume=True)
    task = Regression(width=4000)
    train(task, tmp_path / "run", replace(CONFIG, train_steps=3), resume=True)
    assert task.calls == 0  # what is done is the whole run


def test_a_changed_bit_of_our_weights_is_noticed(tmp_path):
    module, path = nn.Conv2d(8, 8, 3), tmp_path / "weights.safetensors"
    save_module(module, path)
    tensors = dict(read(path))
    assert all(torch.equal(tensors[name], value) for name, value in module.state_dict().items())
    for seed in range(FLIPS):
        with pytest.raises(UserError, match="damaged"):
            load_into(nn.Conv2d(8, 8, 3), flipped(path, tmp_path / "flipped.safetensors", seed))


def test_inspect_tells_whether_weights_have_a_digest(tmp_path):
    save_model(tmp_path, presets.get("nano"), **build(presets.get("nano")))
    assert inspect(str(tmp_path)).count("sha256") == 3
    save_file(dict(read(tmp_path / "text.safetensors")), tmp_path / "text.safetensors")
    assert "\ntext: no sha256 in the file" in inspect(str(tmp_path))


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign"])
def test_a_damaged_cache_is_computed_again(tmp_path, monkeypatch, damage):
    made = []
    values = {"clips.latents": torch.arange(4000.0)}
    monkeypatch.setattr(latents, "compute_cache", lambda *_: made.append(1) or values)
    network, preset = nn.Linear(2, 2), presets.get("nano")
    pipe = type("Pipe", (), {"preset": preset, "autoencoder": network, "text": network})
    data, path = type("Data", (), {"identity": staticmethod(lambda: "data")}), tmp_path / "cache.safetensors"
    cached = lambda: latents.cached(path, pipe, data, 8, 8)
    cached(), cached()
    assert len(made) == 1
    if damage == "flipped":
        data_of = bytearray(path.read_bytes())
        data_of[-50] ^= 1
        path.write_bytes(data_of)
    else:
        path.write_bytes(path.read_bytes()[:3000] if damage == "cut" else b"something else")
    with pytest.warns(UserWarning, match="damaged.*computed again"):
        assert torch.equal(cached()["clips.latents"], values["clips.latents"])
    assert len(made) == 2
    with torch.no_grad():
        network.weight.neg_()  # as large, and another network
    cached()
    assert len(made) == 3


def test_a_damaged_array_of_an_evaluation_is_computed_again(tmp_path):
    path = tmp_path / "clips.npz"
    keep(path, np.arange(3000))
    read_array = lambda path: read_kept(path, np.integer, (3000,))
    assert np.array_equal(read_array(path), np.arange(3000)) and read_array(tmp_path / "none.npz") is None
    for seed in range(FLIPS):
        bad = flipped(path, tmp_path / "flipped.npz", seed)
        try:
            with pytest.warns(UserWarning, match="damaged"):
                assert read_array(bad) is None
        except pytest.fail.Exception:  # a byte that nobody reads
            assert np.array_equal(read_array(bad), np.arange(3000))


CLIPS = np.zeros((2, 4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("other", [
    CLIPS[:1], CLIPS[:, :2], CLIPS[:, :, :4, :4], CLIPS[..., :1], CLIPS[None], CLIPS[:0], CLIPS.astype(np.float32),
    CLIPS.astype(np.int32), CLIPS > 0, np.array(["a", "b"]), np.array(3), np.zeros(2, [("a", "u1")]),
], ids=lambda array: f"{array.dtype} {array.shape}")  # fmt: skip
def test_another_array_in_the_place_of_a_kept_one_is_computed_again(tmp_path, other):
    keep(tmp_path / "clips.npz", other)
    with pytest.warns(UserWarning, match=r"clips.npz is damaged \(expected uint8 \(2, 4, 8, 8, 3\), found .*computed again"):
        assert read_kept(tmp_path / "clips.npz", np.uint8, CLIPS.shape) is None


@pytest.mark.parametrize("other", [np.full((2, 5), np.nan), np.zeros((2, 1 << 17)), np.zeros((2, 0)), np.zeros((3, 5)),
                                   np.zeros((2, 5), int)], ids=lambda array: f"{array.dtype} {array.shape}")  # fmt: skip
def test_features_are_of_any_width_and_finite(tmp_path, other):
    read_features = lambda: read_kept(tmp_path / "i3d.npz", np.floating, (2, None))
    keep(tmp_path / "i3d.npz", np.ones((2, 400), np.float32))
    assert read_features().shape == (2, 400)
    keep(tmp_path / "i3d.npz", other)
    with pytest.warns(UserWarning, match="damaged .*computed again"):
        assert read_features() is None


@pytest.mark.parametrize("version", ["1_0", "2_0"])
def test_an_array_that_declares_gigabytes_takes_no_memory(tmp_path, monkeypatch, version):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("its numbers were read"))
    with zipfile.ZipFile(tmp_path / "clips.npz", "w") as archive, archive.open("values.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (3_000_000_000,)}
        getattr(np.lib.format, f"write_array_header_{version}")(file, header)
    with pytest.warns(UserWarning, match="damaged .*computed again"):
        assert read_kept(tmp_path / "clips.npz", np.uint8, CLIPS.shape) is None


def test_a_folder_in_the_place_of_a_file_is_said_to_be_there(tmp_path):
    (tmp_path / "file").mkdir()
    uses = [lambda: read_kept(tmp_path / "file", np.uint8, (2,)), lambda: latents.cached(tmp_path / "file", None, None, 8, 8),
            lambda: keep(tmp_path / "file", CLIPS)]  # fmt: skip
    for use in uses:
        with pytest.raises(UserError, match="expected a file or nothing at .*file, found a folder; remove it"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", [".lock", ".owner", "log.jsonl"])
def test_a_folder_in_a_run_is_one_clear_line(tmp_path, name):
    train(Regression(), tmp_path, replace(CONFIG, train_steps=2))
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"at .*{name}, found a folder"):
        train(Regression(), tmp_path, replace(CONFIG, train_steps=3), resume=True)


@pytest.mark.parametrize("name", [".lock", ".owner"])
def test_a_link_in_a_run_is_not_followed(tmp_path, name):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
    try:
        train(Regression(), tmp_path / "run", replace(CONFIG, train_steps=1))
    except UserError as error:
        assert "could not write" in str(error)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("line", [b'{"step": "7"}', b"\xff\xfe", b"[" * 100_000, b'{"step": null}', b'{"st'], ids=repr)
def test_a_bad_line_of_a_log_is_skipped(tmp_path, line):
    train(Regression(), tmp_path, replace(CONFIG, train_steps=5))
    log = tmp_path / "log.jsonl"
    good = log.read_bytes()
    log.write_bytes(line + b"\n" + good)
    train(Regression(), tmp_path, replace(CONFIG, train_steps=5), resume=True)
    assert good.splitlines()[0] in log.read_bytes().splitlines()


# --- what a run stands on


def test_a_run_goes_on_only_on_what_it_began_with(tmp_path):
    train(Regression(), tmp_path, replace(CONFIG, train_steps=3), settings={"text.safetensors": "1", "--from": "2"})
    again = lambda settings: train(Regression(), tmp_path, replace(CONFIG, train_steps=4), True, settings)
    for changed in ("text.safetensors", "--from"):
        with pytest.raises(UserError, match=rf"other settings \({changed}\)"):
            again({"text.safetensors": "1", "--from": "2"} | {changed: "3"})
    again({"text.safetensors": "1"})  # --from need not be said again


# --- hostile files


def hostile(value):
    """Values that a file may claim in the place of one of ours."""
    yield from ([], {}, "9", None, True, -1, 0, 10**12, 10**5000 if value is None else 10**30, 1e308, float("nan"),
                float("inf"), [0] * 5, ["a"], [[]], "\0" * 100)  # fmt: skip


def settings_of(config, path=()):
    """(path, value) of every setting, at any depth."""
    for field in fields(config):
        value = getattr(config, field.name)
        yield (*path, field.name), value
        if is_dataclass(value):
            yield from settings_of(value, (*path, field.name))


def test_a_config_is_right_or_refused_in_one_line(tmp_path):
    """Each setting of nano's config.json, each with every hostile value."""
    preset = presets.get("nano")
    whole = json.dumps(preset.to_dict())
    for path, before in settings_of(preset):
        for value in hostile(before):
            content = json.loads(whole)
            place = content
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = value
            (tmp_path / "config.json").write_text(json.dumps(content))
            try:
                read_preset(tmp_path)
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 600


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"a":' * 100_000, '{"frames": ' + "9" * 5000 + "}", "\ud800".encode("utf-16", "surrogatepass"),
    b"\xff\xff\xff", "[1]", "", "nul",
], ids=lambda text: repr(text[:9]))  # fmt: skip
def test_json_is_a_dictionary_or_one_line(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="config.json"):
        read_json(tmp_path / "config.json")


def test_sizes_that_a_file_does_not_have_take_no_memory(tmp_path):
    """A text tower of 65,536 numbers a token would take 200 GB; it is compared with its file first."""
    preset = presets.get("nano")
    huge = replace(preset, text=replace(preset.text, width=2**16, heads=2**10, layers=200))
    save_preset(tmp_path, huge)
    save_tensors({"token_embedding.weight": torch.zeros(2, 2)}, tmp_path / "text.safetensors")
    with pytest.raises(UserError, match="text.safetensors is of another model"):
        load_network("text", tmp_path)


class Expanding:
    """Unpickled, it is as many bytes as it says."""

    def __reduce__(self):
        return bytearray, (3_000_000_000,)


def test_a_small_pickle_is_a_small_network(tmp_path):
    torch.save({"weight": torch.zeros(1).expand(10**6)[:1].expand(10**6)}, tmp_path / "one.pth")
    with pytest.raises(UserError, match="weight is no plain tensor"):
        read(tmp_path / "one.pth")
    with zipfile.ZipFile(tmp_path / "bytes.pth", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"weight": Expanding()}, protocol=2))
        file.writestr("archive/version", "3\n")
    with pytest.raises(UserError, match="bytearray"):
        read(tmp_path / "bytes.pth")


# --- places


def test_two_at_once_in_one_folder(tmp_path):
    """The second is told who is there; when the first is gone, however it went, the folder is free."""
    code = f"""
import time
from pathlib import Path
from minit2v.training.checkpoint import owned
with owned(Path({str(tmp_path)!r})):
    print("mine", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "mine\n"
        half = tmp_path / ".checkpoint-half.pt"
        half.write_bytes(b"what the other is writing")
        with pytest.raises(UserError, match=f"process {other.pid} of .* trains there"):
            train(Regression(), tmp_path, CONFIG)
        assert half.exists()
    finally:
        other.kill()
        other.wait()
    train(Regression(), tmp_path, replace(CONFIG, train_steps=2))
    assert not half.exists() and (tmp_path / "checkpoint.pt").exists()


def test_threads_write_one_file_and_no_link_is_followed(tmp_path):
    def write(number):
        for _ in range(20):
            with atomic(tmp_path / "file.txt") as path:
                path.write_text(str(number) * 1000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    text = (tmp_path / "file.txt").read_text()
    assert len(text) == 1000 and len(set(text)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"], "nothing is left"


def test_what_a_killed_process_has_left_of_a_file_is_removed_with_the_next(tmp_path):
    """Not what somebody may be writing now, and nothing of another file."""
    left, now, other = (tmp_path / name for name in (".file-0123abcd.txt", ".file-4567abcd.txt", ".files-0123abcd.txt"))
    for path in (left, now, other):
        path.write_text("half")
    for path in (left, other):
        os.utime(path, (0, 0))
    with atomic(tmp_path / "file.txt") as path:
        path.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"file.txt", now.name, other.name}


def test_clean_up_hides_no_failure(tmp_path):
    """Where the unfinished file cannot be removed, because something made a folder of it."""
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "file.txt") as path:
        path.unlink()
        (path / "inside").mkdir(parents=True)
        raise ZeroDivisionError


@pytest.mark.parametrize("name", ["a" * 300 + ".npz", "none/file.npz"])
def test_a_place_is_tried_before_the_work(tmp_path, name):
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / name)
    with pytest.raises(UserError, match="could not write|cannot write"):
        check_place(tmp_path / ("a" * 300), resume=False)
        with owned(tmp_path / ("a" * 300)):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompt", ["costs $5", "$(shell touch executed)", "`touch executed`", "--help", 'a "ring" $HOME'])
def test_make_demo_passes_the_prompt_as_typed(tmp_path, prompt):
    if not shutil.which("make"):
        pytest.skip("needs make")
    shutil.copy(Path(__file__).parent.parent / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "ready").write_text("")  # the environment that make would else build
    program = tmp_path / "bin" / "minit2v"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open('arguments.json', 'w'))\n")
    program.chmod(0o755)
    command = ["make", "--silent", "demo", "CORE=ready", "BIN=bin"]
    for given, expected in (([f"PROMPT={prompt}"], prompt), ([], "a large red circle moves left slowly")):
        environment = os.environ | {"PROMPT": "%n@%m:"}
        subprocess.run([*command, *given], cwd=tmp_path, env=environment, check=True, capture_output=True)
        arguments = json.loads((tmp_path / "arguments.json").read_text())
        assert arguments[-2:] == ["--", expected]
    assert not (tmp_path / "executed").exists()


# --- signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_machine_that_shuts_down_loses_nothing(tmp_path, name):
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    task, before = Regression(), signal.getsignal(getattr(signal, name))
    clock = lambda: os.kill(os.getpid(), getattr(signal, name)) if task.calls == 4 else None
    ticks = lambda: clock() or float(task.calls)
    with pytest.raises(UserError, match="stopped at step [45], saved"):
        train(task, tmp_path, replace(CONFIG, save_every=1e9), clock=ticks)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] in (4, 5)
    assert signal.getsignal(getattr(signal, name)) is before


# --- words of others


def test_a_label_is_shown_as_typed():
    assert lab.curves({"$\\frac{1}$ and $5": ([0, 1], [0, 1])}, "a $b", "$^$", alt="a line")


def test_memory_is_measured_without_the_code_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "einops.py").write_text("raise SystemExit('the stranger ran')")
    monkeypatch.chdir(tmp_path)
    assert peak_memory("mini", "a red circle moves left", 1) > 0.1
