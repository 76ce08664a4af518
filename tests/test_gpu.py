"""`make gpu` runs to the end on a CPU at the smallest sizes, loses one case at most, and says what falls away."""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import benchmarks.gpu.__main__ as gpu  # noqa: E402
from benchmarks.gpu import fast, fits, learn, right  # noqa: E402
from benchmarks.gpu.card import FLOAT32, Row, Setting, compared, there  # noqa: E402
from benchmarks.gpu.cases import CASES, Case, kinds  # noqa: E402
from benchmarks.gpu.worker import Lost, Worker  # noqa: E402
from minit2v.errors import UserError  # noqa: E402

TINY = Setting(torch.device("cpu"), tiny=True)


class Here:
    """A worker that measures in this process."""

    def __init__(self, setting):
        self.setting, self.machine = setting, "here"

    def rows(self, name, seconds):
        yield from gpu.CASES[name].rows(self.setting)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("name", kinds())
def test_a_case_runs_on_a_cpu_and_is_right(name):
    if not all(map(there, CASES[name].packages)):
        pytest.skip("a package is missing")
    rows = list(CASES[name].measure(TINY))
    assert rows and all(row.right is not False for row in rows), rows


def row(what: str, right: bool | None = None) -> Row:
    return Row(what, "1 s", right=right)


@pytest.fixture
def few(monkeypatch):
    """Four cases in this process: one that is right, one that fails after a row, one without its package, one more."""

    def fails(setting):
        yield row("before")
        raise Lost("a broken card")

    cases = {
        "first": Case(lambda setting: iter([row("a", True)]), 9),
        "fails": Case(fails, 9),
        "lacks": Case(lambda setting: iter([row("never")]), 9, ("no_such_package", "torch")),
        "last": Case(lambda setting: iter([row("z")]), 9),
    }
    monkeypatch.setattr(gpu, "CASES", cases)
    monkeypatch.setattr(gpu, "kinds", lambda: list(cases))
    monkeypatch.setattr(gpu, "Worker", Here)


def test_a_lost_case_keeps_its_rows_and_the_next_goes_on(few, tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--tiny", "--out", str(out)]) == 1, "the status says that something is wrong"
    kept = json.loads(out.read_text())
    found = {name: [row["found"] for row in case["rows"]] for name, case in kept.items()}
    assert found == {"first": ["1 s"], "fails": ["1 s", "lost: a broken card"],
                     "lacks": ["falls away: no no_such_package"], "last": ["1 s"]}  # fmt: skip
    assert gpu.table(kept) in capsys.readouterr().out


def test_rows_are_written_at_once_and_others_stay(few, monkeypatch, tmp_path):
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps({"first": {"rows": [asdict(row("old"))], "machine": "m"}}))

    def stopped(setting):
        yield row("written")
        raise KeyboardInterrupt

    monkeypatch.setitem(gpu.CASES, "last", Case(stopped, 9))
    assert gpu.main(["--tiny", "--out", str(out), "--only", "last"]) == 130
    kept = json.loads(out.read_text())
    assert [case["rows"][0]["what"] for case in kept.values()] == ["old", "written"]


def test_cases_after_the_time_are_not_reached(few, tmp_path):
    kept = gpu.run(TINY, ["first", "last"], 0.0, None)
    assert {case["rows"][0]["found"] for case in kept.values()} == {"not reached: the time was up"}


@pytest.mark.parametrize("minutes, packages", [("1e-9", ()), ("8", ("no_such_package",))])
def test_an_earlier_measurement_is_worth_more_than_none(few, monkeypatch, tmp_path, minutes, packages):
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps({"first": {"rows": [asdict(row("old"))], "machine": "m"}}))
    monkeypatch.setitem(gpu.CASES, "first", Case(lambda setting: iter([row("new")]), 9, packages))
    gpu.main(["--tiny", "--out", str(out), "--only", "first", "--minutes", minutes])
    assert json.loads(out.read_text())["first"]["rows"][0]["what"] == "old"


@pytest.mark.parametrize("arguments, message", [
    (["--minutes", "0"], "--minutes: expected a number above 0, found 0"),
    (["--minutes", "nan"], "--minutes: expected a number above 0, found nan"),
    (["--out", "FOLDER"], "expected an output file"),
    (["--out", "FOLDER/no/gpu.json"], "expected an existing folder"),
    (["--out", "FOLDER/rows.txt"], "expected an output file ending in .json"),
    (["--out", "FOLDER/other.json"], "--out: expected rows of `make gpu`"),
    (["--out", "FOLDER/list.json"], "--out: expected rows of `make gpu`"),
])  # fmt: skip
def test_wrong_arguments_are_one_clear_line_before_any_work(few, tmp_path, capsys, arguments, message):
    (tmp_path / "other.json").write_text('{"first": 3')
    (tmp_path / "list.json").write_text('{"first": [1]}')
    assert gpu.main(["--tiny", *(word.replace("FOLDER", str(tmp_path)) for word in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_without_a_card_the_full_size_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.startswith("gpu: expected a CUDA device, found none; --tiny")


def test_a_worker_is_stopped_and_started_again():
    """One case outruns its time; the next has a new process."""
    with Worker(TINY) as worker:
        with pytest.raises(Lost, match="stopped after 0 s"):
            list(worker.rows("right-attention", 0.0))
        assert worker.process is None and "no CUDA device" in worker.machine
        assert [row.right for row in worker.rows("right-attention", 300.0)] == [True]
        with pytest.raises(Lost, match="KeyError: 'unknown'|its process died"):
            list(worker.rows("unknown", 60.0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card is here")
def test_a_device_that_does_not_work_is_one_clear_line(capfd):
    with pytest.raises(UserError, match="expected a cuda device that works"), Worker(Setting(torch.device("cuda"), True)):
        pass


def test_a_worker_ends_with_its_supervisor():
    """However that is stopped: a card would stay occupied."""
    code = ("import os, signal, torch\nfrom benchmarks.gpu.card import Setting\nfrom benchmarks.gpu.worker import Worker\n"
            "if __name__ == '__main__':\n"
            "    with Worker(Setting(torch.device('cpu'), True)) as worker:\n"
            "        print(worker.process.pid, flush=True)\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n")  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300)
    pid, end = int(killed.stdout), time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Does the process run? One that has ended waits for whoever started it, as a zombie."""
    state = Path(f"/proc/{pid}/stat")
    return state.is_file() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_case_alone_has_a_process_of_its_own(few, monkeypatch):
    stopped = []
    monkeypatch.setattr(Here, "stop", lambda worker: stopped.append("a new process"), raising=False)
    monkeypatch.setitem(gpu.CASES, "last", Case(lambda setting: iter([row("z")]), 9, alone=True))
    gpu.run(Setting(torch.device("cpu"), tiny=False), ["first", "last"], 1.0, None)
    assert len(stopped) == 1 and CASES["first-clip"].alone
    gpu.run(TINY, ["first", "last"], 1.0, None)
    assert len(stopped) == 1, "at the smallest sizes a new process only takes time"


def out_of_memory(*arguments, **options):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_does_not_fit_is_right_if_the_plan_said_so(monkeypatch):
    planned = SimpleNamespace(peaks={"": 9e9, "--sequential": 7e9, "--offload": 3e9})
    monkeypatch.setattr(fits, "plan", lambda *_, **__: planned)
    monkeypatch.setattr(fits, "peak_of", out_of_memory)
    monkeypatch.setattr(fits, "free_memory", lambda device: None)
    monkeypatch.setattr(fits, "memory_of_card", lambda: 8e9)
    monkeypatch.setattr(fits, "context", lambda: 0)
    *rows, _ = fits.memory(Setting(torch.device("cuda"), tiny=True), 2, 16, 16)
    assert {row.found for row in rows} == {"does not fit"}
    assert [row.right for row in rows] == [True, True, False], "the second is within the tolerance"


def test_growth_ends_where_the_memory_ends(monkeypatch):
    sizes = []

    def race(setting, calls, rounds):
        sizes.append(1)
        return {"ours": [1.0]} if len(sizes) == 1 else out_of_memory()

    monkeypatch.setattr(fast, "race", race)
    found = list(fast.scale(TINY))
    assert (found[0].found, found[0].ratio) == ("1: 1 s, 2 does not fit", "")


def test_diffusers_without_what_is_compared_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", ModuleType("diffusers"))
    assert not there("diffusers") and there("torch") and not there("no_such_package")


def test_without_diffusers_only_ours_is_measured(monkeypatch):
    monkeypatch.setattr(fast, "there", lambda package: False)
    rows = list(fast.forward(TINY, FLOAT32))
    assert all("diffusers" not in row.what for row in rows) and rows[0].beside == "no diffusers here"


def test_errors_are_noticed():
    """A network that answers otherwise on the device than the CPU would is wrong in every precision."""

    class Wrong(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * (1.5 if x.dtype != torch.float64 else 1.0)

    layer = Wrong(4, 4)
    assert [row.right for row in right.errors("layer", layer, layer.forward, (torch.ones(2, 4),))] == [False] * 4


def test_ratios_are_those_of_medians():
    found = compared("x", {"ours": [1.0, 2.0, 9.0], "diffusers": [4.0, 4.0, 4.0]})
    assert (found.found, found.beside, found.ratio) == ("2 s", "4 s", "0.50 (0.25–2.25)")


def test_a_bare_checkout_can_ask_for_help():
    """Without the optional packages, as on a machine that has torch and little else."""
    optional = ("open_clip", "diffusers", "av", "accelerate", "matplotlib", "torchvision")
    code = (f"import sys\nsys.modules |= dict.fromkeys({optional})\n"
            "from benchmarks.gpu.__main__ import main\nmain(['--help'])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "right-unet" in done.stdout, done.stderr


def test_the_page_knows_the_cases():
    text = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    starts = {name.split("-")[0] for name in CASES}
    assert all(f"`{start}" in text for start in starts), starts
    assert (ROOT / "docs/gpu.json").is_file() or gpu.NOT_YET in text


def test_the_recording_says_that_its_weights_are_random(monkeypatch):
    names = []
    monkeypatch.setattr(learn, "record", lambda pipe, prompts, folder: names.append(pipe.preset.name) or (
        (Path(folder) / "recording.npz").write_bytes(b"x")))  # fmt: skip
    list(learn.recording(TINY))
    assert names == ["tiny, random weights"]
