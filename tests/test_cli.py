"""The command line: what it writes, and that every mistake is one line, exit status 2, and no file."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.ranks import this_process
from minit2v.video import Clip

PROMPT = "a small blue ring moves up"


@pytest.fixture
def model(untrained_nano):
    return untrained_nano


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(here, capsys):
    """Runs a command that must be refused and returns its one line."""
    def run(*arguments):
        before = sorted(here.rglob("*"))
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert status == 2, err
        assert out == "" and err.startswith("minit2v: ") and err.count("\n") == 1 and err.endswith("\n")
        assert sorted(here.rglob("*")) == before
        return err
    return run


def test_sample_writes_every_format(model, here, capsys):
    outs = [text for name in ("a.mp4", "a.gif", "a.webp") for text in ("--out", name)]
    assert main(["sample", PROMPT, "--model", str(model), "--steps", "2", "--frames", "4", *outs]) == 0
    assert capsys.readouterr().out == "a.mp4\na.gif\na.webp\n"
    assert {p.name for p in here.iterdir()} == {"a.mp4", "a.gif", "a.webp"}
    assert all(Clip.load(path).pixels.shape == (4, 32, 32, 3) for path in here.iterdir())


def test_sample_is_the_library_call(model, here):
    """Several prompts, every option: the files hold what `minit2v.load(...)(...)` returns."""
    import minit2v

    options = {"frames": 3, "height": 24, "width": 40, "steps": 3, "guidance": 2.5, "negative": "a red circle",
               "sampler": "ddim", "eta": 0.5, "seed": 7}
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    prompts = [PROMPT, "a large red circle moves left slowly"]
    assert main(["sample", *prompts, "--model", str(model), "--out", "c.webp", *flags]) == 0
    for i, clip in enumerate(minit2v.load(model)(prompts, **options)):
        assert (Clip.load(here / f"c-{i + 1}.webp").pixels == clip.pixels).all()


def test_record_keeps_the_steps(model, here):
    assert main(["sample", PROMPT, "--model", str(model), "--steps", "3", "--frames", "2", "--record", "steps"]) == 0
    assert (here / "clip.mp4").is_file()
    assert sorted(path.name for path in (here / "steps").iterdir()) == ["recording.npz", "strip.png"]


def test_several_clips_of_a_prompt_and_a_seed_of_chance(model, here, capsys):
    """The seed that was drawn is said, and makes the same clips."""
    import minit2v

    options = ["--model", str(model), "--steps", "1", "--frames", "2", "--out", "c.webp"]
    assert main(["sample", PROMPT, "a red ring", "--n", "2", "--seed", "random", *options]) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["c-1.webp", "c-2.webp", "c-3.webp", "c-4.webp"]
    seed = int(re.search(r"--seed (\d+)", err)[1])
    expected = minit2v.load(model)([PROMPT, PROMPT, "a red ring", "a red ring"], steps=1, frames=2, seed=seed)
    for i, clip in enumerate(expected, 1):
        assert (Clip.load(here / f"c-{i}.webp").pixels == clip.pixels).all()


def test_starts_from_a_video_under_either_name(model, here):
    common = [PROMPT, "--model", str(model), "--steps", "2", "--strength", "0.5"]
    assert main(["sample", PROMPT, "--model", str(model), "--frames", "3", "--fps", "20", "--out", "start.webp"]) == 0
    for option, name in ("--init", "new.webp"), ("--clip", "old.webp"):
        assert main(["sample", *common, option, "start.webp", "--out", name]) == 0
    new, old = Clip.load("new.webp"), Clip.load("old.webp")
    assert (new.pixels == old.pixels).all() and len(new) == 3 and new.fps == 20


def test_any_code_page_can_be_printed_to(model, here):
    """Names of files and our own signs may be missing from it."""
    arguments = ["sample", PROMPT, "--model", model, "--steps", "1", "--frames", "1", "--out", "clip→日.webp"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "cp1252"}
    for command in (arguments, ["train", "--help"], ["sample", PROMPT, "--model", "日"]):
        done = subprocess.run([sys.executable, "-m", "minit2v", *command], capture_output=True, env=environment)
        assert done.returncode == (2 if command[-1] == "日" else 0) and b"Error" not in done.stderr
    assert Path("clip→日.webp").is_file()


@pytest.mark.parametrize("arguments, message", [
    ([""], "prompt"),
    (["a small blue dragon moves up"], "dragon"),
    ([PROMPT, "--negative", "a dragon"], "dragon"),
    (["a dragon", "--record", "steps"], "dragon"),
    ([PROMPT, "--frames", "0"], "frames"),
    ([PROMPT, "--frames", "-4"], "frames"),
    ([PROMPT, "--frames", "1000000"], "frames"),
    ([PROMPT, "--height", "33"], "height.*multiple"),
    ([PROMPT, "--width", "-32"], "width"),
    ([PROMPT, "--steps", "0"], "steps"),
    ([PROMPT, "--steps", "1001"], "steps.*1000"),
    ([PROMPT, "--steps", "many"], "steps.*many"),
    ([PROMPT, "--guidance", "nan"], "guidance.*nan"),
    ([PROMPT, "--eta", "2"], "eta"),
    ([PROMPT, "--sampler", "euler"], "sampler.*ddim.*euler"),
    ([PROMPT, "--seed", "-1"], "seed"),
    ([PROMPT, "--seed", "chance"], "seed.*chance"),
    ([PROMPT, "--n", "0"], "--n"),
    ([PROMPT, "--n", "100000000"], "--n: expected at most 1,000 clips of a prompt, found 100000000"),
    ([PROMPT, "--seed", "1.5"], "--seed: expected a whole number from 0 or random, found '1.5'"),
    ([PROMPT, "--steps", "2.5"], "--steps: expected a whole number, found '2.5'"),
    ([PROMPT, "--fps", "x"], "--fps: expected a number, found 'x'"),
    ([PROMPT, "--fps", "0"], "fps: expected a number from 0.01 to 1000, found 0"),
    ([PROMPT, "--fps", "60", "--out", "a.mp4", "--out", "b.gif"], "a .gif shows at most 50 frames a second, found 60"),
    ([PROMPT, "--device", "meta"], "device: expected auto, cpu, cuda, mps or a card like cuda:1, found 'meta'"),
    ([PROMPT, "--device", "cpu:9"], "device: expected auto, .* found 'cpu:9'"),
    ([PROMPT, "--init", ""], "--init: expected a value, found an empty text"),
    ([PROMPT, "--lora", ""], "--lora: expected a file, a folder or a hub id, found an empty text"),
    (["--prompts", ""], "--prompts: expected a value, found an empty text"),
    ([PROMPT, "--record", ""], "--record: expected a value, found an empty text"),
    ([PROMPT, "--out", "c.webp", "--out", ""], "--out: expected a value, found an empty text"),
    ([PROMPT, "--strength", "0.5"], "--strength: expected with --init"),
    ([PROMPT, "--device", "tpu"], "device.*tpu"),
    ([PROMPT, "--dtype", "int8"], "dtype.*int8"),
    ([PROMPT, "--out", "clip.avi"], ".mp4 or .gif or .webp"),
    ([PROMPT, "--out", "missing/clip.gif"], "missing"),
    ([PROMPT, "--out", "/proc/clip.gif"], "cannot write"),
    ([PROMPT, "--out", "."], "folder"),
    ([PROMPT, "--record", "/proc/steps"], "/proc"),
    ([], "expected a prompt, found none"),
])
def test_sample_refuses(model, refused, arguments, message):
    assert re.search(message, refused("sample", *arguments, "--model", model))


def test_a_long_prompt_says_what_was_cut(model, here, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)         # main changes it
    long = "a large red circle " * 8 + "moves left"
    with pytest.warns(UserWarning, match="left out .*moves left") as caught:
        assert main(["sample", long, "--model", str(model), "--steps", "1", "--frames", "1"]) == 0
    line = warnings.formatwarning(str(caught[0].message), UserWarning, "text.py", 1)
    assert line.startswith("minit2v: the prompt has") and line.count("\n") == 1


def test_full_disk(model, refused):
    resource = pytest.importorskip("resource", reason="needs limits of POSIX systems")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))          # no file can grow beyond 512 bytes
    try:
        assert "could not write clip.mp4" in refused("sample", PROMPT, "--model", model, "--steps", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def copy(model, tmp_path):
    """A copy of the model folder, to be damaged."""
    return shutil.copytree(model, tmp_path / "copy")


def test_unknown_model_lists_the_known(refused):
    assert re.search("unknown model 'maxi'; shipped are", refused("sample", PROMPT, "--model", "maxi"))


def test_a_model_of_the_repository_says_where_it_is(refused, tmp_path, monkeypatch):
    """After an installation from a wheel, which has no model but mini; also where nobody named it."""
    from minit2v.checkpoints import find, shipped

    for module in (find, shipped):
        monkeypatch.setattr(module, "data_dir", lambda: tmp_path / "data")
    there = rf"is in the repository, not in this package: git clone {re.escape(shipped.repository())} minit2v, then pip install"
    assert shipped.repository().startswith("https://")
    for arguments in (["sample", PROMPT, "--model", "videoldm"], ["distill", "nuwa", "--out", "x"], ["upscale", "clip.mp4"],
                      ["train", "all", "--preset", "nuwa", "--from", "modelscope"]):  # fmt: skip
        assert re.search(there, refused(*arguments))
    with pytest.raises(UserError, match=there):
        find.find_source("mini-fast")


def test_cheap_mistakes_are_found_before_torch_is_imported(tmp_path):
    commands = (["sample", PROMPT, "--model", "maxi"], ["evaluate", "--data", str(tmp_path)],
                ["weights", "plan", "--memory", "8"], ["train", "unet", "--data", str(tmp_path)], ["distill", "mini", "--out", "x", "--data", "nothing"],
                ["evaluate", "--clips", ".", "--captions", "none.tsv"], ["train", "unet", "--from", "maxi"])  # fmt: skip
    code = f"import sys, minit2v.cli; print([minit2v.cli.main(one) for one in {commands}], 'torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.stdout == f"{[2] * len(commands)} False\n" and done.stderr.count("expected") == len(commands) - 2, done.stderr


def test_onnx_is_asked_for_before_anything_is_loaded(refused, monkeypatch):
    monkeypatch.setattr("minit2v.cli.commands.find_spec", lambda name: None)
    monkeypatch.setattr("minit2v.load", None)
    assert 'pip install "minit2v[onnx]"' in refused("weights", "convert", "mini", "out", "--to", "onnx")


@pytest.mark.parametrize("n, said", [(2, True), (64, False)])
def test_few_clips_are_said_to_say_little(here, capsys, monkeypatch, n, said):
    monkeypatch.setattr("minit2v.evaluation.report.evaluate", lambda **asked: {"n": n, "rows": [{"n": 128}, {"n": n}]})
    assert main(["evaluate", "--n", str(n)]) == 0
    assert (f"N = {n}: so few clips say little" in capsys.readouterr().out) is said


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "bits"])
@pytest.mark.parametrize("part", ["unet", "autoencoder", "text"])
def test_damaged_weights_are_named(refused, copy, part, damage):
    path = copy / f"{part}.safetensors"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[:len(data) // 2], "foreign": b"PK\x03\x04" + data[:999], "empty": b"",
                      "bits": data[:100] + bytes(100) + data[200:]}[damage])
    assert path.name in refused("sample", PROMPT, "--model", copy)


def test_weights_of_another_preset_are_named(refused, copy):
    settings = json.loads((copy / "config.json").read_text())
    settings["unet"]["channels"] = [64, 64]
    (copy / "config.json").write_text(json.dumps(settings))
    assert "unet.safetensors" in refused("sample", PROMPT, "--model", copy)
    (copy / "config.json").write_text("{")
    assert "config.json" in refused("sample", PROMPT, "--model", copy)
    (copy / "config.json").unlink()
    assert "config.json" in refused("sample", PROMPT, "--model", copy)


@pytest.mark.parametrize("arguments, message", [
    (["train", "unet", "--preset", "nano", "--out", "none", "--budget", "1s", "--resume"], "nothing to resume"),
    (["train", "unet", "--preset", "nano", "--out", "none", "--budget", "1s"], "trained autoencoder"),
    (["train", "unet", "--preset", "nano", "--out", "run", "--steps", "1", "--set", "unet=x"], "unet cannot be set"),
    (["train", "autoencoder", "--preset", "nano", "--out", "run", "--steps", "1", "--set", "lr=nan"], "lr nan"),
    (["train", "unet", "--preset", "nano", "--out", "/proc/x", "--budget", "1s"], "cannot write in /proc/x"),
    (["train", "unet", "--preset", "nano", "--out", "run", "--budget", "soon"], "soon"),
    (["train", "unet", "--preset", "nano", "--out", "run", "--budget", "-5m"], "budget"),
    (["train", "unet", "--preset", "giga", "--out", "run", "--budget", "1s"], "nano, mini"),
    (["train", "unet", "--preset", "nano", "--out", "run", "--budget", "1s", "--set", "colour=red"], "colour"),
    (["train", "unet", "--preset", "nano", "--out", "run", "--budget", "1s", "--set", "lr"], "key=value.*lr"),
    (["train", "unet", "--preset", "nano", "--out", "run", "--steps", "0"], "steps"),
    (["train", "decoder"], "autoencoder.*decoder"),
    (["train", "unet", "--preset", "nano", "--out", "run", "--data", "no-such-data"], "moving-things.*no-such-data"),
    (["train", "metrics", "--preset", "mini"], "--preset: expected without metrics"),
    (["evaluate", "--out", "report.txt"], ".json"),
    (["evaluate", "--out", "missing/report.json"], "missing"),
    (["evaluate", "--model", "maxi"], "unknown model 'maxi'; shipped are"),
    (["evaluate", "--split", "test_none"], "test_none"),
    (["evaluate", "--n", "0"], " n: expected"),
    (["evaluate", "--clips", "made", "--captions", "c.tsv"], "--model: expected without --clips, found both"),
    (["evaluate", "--model", "mini", "--protocol", "one-caption"], "--protocol: expected with --msrvtt, found alone"),
    (["evaluate", "--model", "mini", "--network", "i3d=i.pt:0"], "--network: expected with --msrvtt"),
    (["evaluate", "--model", "mini", "--no-self-test"], "--no-self-test: expected with --msrvtt"),
    (["evaluate", "--model", "mini", "--msrvtt", "data", "--batch", "0"], "--batch: expected without --msrvtt"),
    (["weights", "inspect", "maxi"], "unknown model 'maxi'; shipped are"),
    (["weights"], "ACTION"),
    (["bake"], "bake.*sample"),
    ([], "COMMAND"),
])
def test_other_commands_refuse(refused, model, arguments, message):
    if arguments[:1] == ["evaluate"] and "--model" not in arguments:
        arguments = [*arguments, "--model", model]
    assert re.search(message, refused(*arguments))


@pytest.mark.parametrize("option", ["--n 512", "--split test_seen", "--batch 16", "--steps 0", "--guidance 0",
                                    "--sampler ddim", "--dtype auto", "--model mini"])  # fmt: skip
def test_what_videos_of_a_folder_have_no_use_for_is_refused(refused, option):
    """Also where it is what would be taken anyway."""
    name = option.split()[0]
    line = refused("evaluate", "--clips", "made", "--captions", "captions.tsv", *option.split())
    assert f"{name}: expected without --clips, found both; leave one of them out" in line


@pytest.mark.parametrize("error, status, line", [
    (KeyboardInterrupt(), 130, "minit2v: stopped\n"),
    (ZeroDivisionError("by\nzero"), 1, "minit2v: fault: ZeroDivisionError: by zero (--debug shows where)\n"),
])
def test_exit_status_of_a_stop_and_of_a_fault(monkeypatch, capsys, error, status, line):

    def fail(path):
        raise error
    monkeypatch.setattr("minit2v.checkpoints.inspect.inspect", fail)
    assert main(["weights", "inspect", "mini"]) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_stops_a_command_as_ctrl_c_does(monkeypatch, capsys, name):
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    number = getattr(signal, name)
    before = signal.getsignal(number)

    def killed(path):
        os.kill(os.getpid(), number)
        return "shown"
    monkeypatch.setattr("minit2v.checkpoints.inspect.inspect", killed)
    assert main(["weights", "inspect", "mini"]) == 130
    assert capsys.readouterr() == ("", "minit2v: stopped\n") and signal.getsignal(number) is before
    if name == "SIGHUP":
        signal.signal(number, signal.SIG_IGN)  # as nohup does
        try:
            assert main(["weights", "inspect", "mini"]) == 0 and signal.getsignal(number) is signal.SIG_IGN
        finally:
            signal.signal(number, before)


def test_a_stop_says_how_to_go_on(monkeypatch, capsys):
    def fail(path):
        raise KeyboardInterrupt("what is done is kept in r")
    monkeypatch.setattr("minit2v.checkpoints.inspect.inspect", fail)
    assert main(["weights", "inspect", "mini"]) == 130
    assert capsys.readouterr().err == "minit2v: stopped; what is done is kept in r\n"


def test_debug_shows_the_traceback(here):
    with pytest.raises(ValueError, match="clip.avi"):
        main(["sample", PROMPT, "--out", "clip.avi", "--debug"])


def test_inspect_prints_the_released_counts(capsys):
    assert main(["weights", "inspect", "modelscope-1.7b"]) == 0
    out = capsys.readouterr().out
    assert "1,411,233,860" in out and "545,323,136" in out


def test_doctor_checks_and_writes_nothing(here, capsys, monkeypatch, model):
    from minit2v import loading

    load = loading.load
    monkeypatch.setattr(loading, "load", lambda name, *options: load(model, *options))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("Python", "cores", "memory", "threads", "libx264", "mini loads", "sha256"))
    (model / "config.json").rename(model / "hidden")
    try:
        assert main(["doctor"]) == 1
    finally:
        (model / "hidden").rename(model / "config.json")
    assert "WRONG" in capsys.readouterr().out and not list(here.iterdir())


COMMANDS = ("sample", "train", "evaluate", "weights", "weights inspect", "weights plan", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert re.search("examples?:\n  minit2v " + command, capsys.readouterr().out)


def test_help_prints_the_tables(monkeypatch, capsys):
    """Rows that somebody else has entered, too."""
    from minit2v.datasets import DATASETS
    from minit2v.diffusion.samplers import SAMPLERS
    from minit2v.systems import SYSTEMS

    monkeypatch.setitem(SAMPLERS, "my-sampler", SAMPLERS["ddim"])
    monkeypatch.setitem(DATASETS, "my-data", DATASETS["moving-things"])
    monkeypatch.setitem(SYSTEMS, "mine", replace(SYSTEMS["modelscope"], parts={"my-part": ""}))
    for command, rows in {"sample": ["my-sampler"], "evaluate": ["my-sampler", "my-data"],
                          "train": ["my-data", "my-part"]}.items():  # fmt: skip
        with pytest.raises(SystemExit):
            main([command, "--help"])
        out = capsys.readouterr().out
        assert all(row in out for row in rows) and "{names}" not in out and "--clip FILE" not in out.split("options")[0]


def test_training_without_accelerate_says_what_to_install(refused, monkeypatch):
    monkeypatch.setattr("minit2v.ranks.find_spec", lambda name: None)
    assert 'pip install "minit2v[train]"' in refused("train", "unet", "--preset", "nano")
    with pytest.raises(UserError, match="training needs the package accelerate"):
        this_process()  # whoever trains from Python


def test_a_reader_who_goes_away_stops_no_work(tmp_path):
    code = "from minit2v.files import say; say('a'); say('b'); open('after', 'w').close()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (run.returncode, run.stderr) == (0, b"") and (tmp_path / "after").exists()


def test_module_is_the_command(here):
    import minit2v

    command = [sys.executable, "-m", "minit2v", "--version"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"minit2v {minit2v.__version__}\n", "")
