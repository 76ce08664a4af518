"""`make gpu` runs to the end on a CPU at the smallest sizes, loses one case at most, and says what falls away."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import benchmarks.gpu.__main__ as gpu  # noqa: E402
from benchmarks.gpu import fast, learn, right  # noqa: E402
from benchmarks.gpu.card import FLOAT32, Row, Setting, compared, there  # noqa: E402
from benchmarks.gpu.cases import CASES, Case, kinds  # noqa: E402
from benchmarks.gpu.worker import Lost, Worker  # noqa: E402

TINY = Setting(torch.device("cpu"), tiny=True)


class Here:
    """A worker that measures in this process."""

    def __init__(self, setting):
        self.setting, self.machine = setting, "here"

    def rows(self, name, seconds):
        yield from gpu.CASES[name].measure(self.setting)

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
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--tiny", "--out", str(out), "--only", "last"])
    kept = json.loads(out.read_text())
    assert [case["rows"][0]["what"] for case in kept.values()] == ["old", "written"]


def test_cases_after_the_time_are_not_reached(few, tmp_path):
    kept = gpu.run(TINY, ["first", "last"], 0.0, None)
    assert {case["rows"][0]["found"] for case in kept.values()} == {"not reached: the time was up"}


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
