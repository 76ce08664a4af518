"""The benchmarks run at the smallest sizes, both sides compute the same, and the figures about them are right."""

import json
import operator
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import one_step  # noqa: E402
import quality  # noqa: E402
import quality_report  # noqa: E402

import minit2v  # noqa: E402
from benchmarks import bench, pairs, rows, scaling, sides  # noqa: E402
from minit2v.evaluation.paired import discordant  # noqa: E402

TINY = pairs.tiny(pairs.MINI)


class Here:
    """A side that runs its work in this process."""

    def __init__(self, threads, setup, *arguments):
        self.call = setup(*arguments)

    def __call__(self, *question):
        output = self.call(*question)
        output = output.detach().float().numpy() if isinstance(output, torch.Tensor) else np.asarray(output, np.float32)
        return sides.Measurement(1.0, output, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(rows, "Side", Here)


@pytest.mark.parametrize("name", ["forward-full", "training-mini", "training-mini-bf16", "training-full-bf16",
                                  "decode-mini", "sample", "memory-small"])  # fmt: skip
def test_both_sides_compute_the_same(here, name):
    """`race` compares the outputs before it counts a round. The other rows differ only in size."""
    _, measure = bench.CASES[name]
    for row in measure(options=rows.Options(rounds=1, threads=1, tiny=True)):
        assert row.rounds == 1 and row.ratio.startswith("1.00")


def test_rows_that_are_not_measured_again_stay(here, monkeypatch, tmp_path, capsys):
    line = lambda what: [rows.Row(what, "1", "2", "0.50", 3)]
    monkeypatch.setattr(bench, "CASES", {"a": (0, lambda options: line("new a")), "b": (0, lambda options: line("b"))})
    out = tmp_path / "bench.json"
    old = asdict(rows.Row("old", "1", "1", "1.00", 3))
    out.write_text(json.dumps({name: {"rows": [old | {"what": f"old {name}"}], "machine": "one"} for name in "ab"}))
    bench.main(["--only", "a", "--out", str(out)])
    kept = json.loads(out.read_text())
    assert kept["a"]["rows"] == [asdict(line("new a")[0])] and kept["b"]["rows"][0]["what"] == "old b"
    assert bench.table(kept) in capsys.readouterr().out


def test_sides_that_differ_are_not_timed():
    a = sides.Measurement(1.0, np.ones(3, np.float32), 0)
    sides.same(a, replace(a, output=np.full(3, 1.0001, np.float32)), 1e-3)
    for wrong in (np.full(3, 1.1), np.zeros(3), np.full(3, np.nan)):
        with pytest.raises(AssertionError):
            sides.same(a, replace(a, output=wrong.astype(np.float32)), 1e-3)


def test_a_side_has_its_own_process_and_reports_what_went_wrong():
    with sides.Side(1, operator.methodcaller, "sum") as side:
        run = side(torch.ones(2, 3))
        assert run.output == 6 and run.seconds > 0 and run.peak > 1e7
        with pytest.raises(RuntimeError, match="'int' object has no attribute 'sum'"):
            side(1)


def test_operations_are_counted():
    """Twice the frames cost about twice as much; the count includes the temporal convolutions."""
    one, two = (rows.flops(TINY, (1, f, 8, 8)) for f in (1, 2))
    assert 1.8 < two / one < 2.2
    c, blocks = TINY.channels[0], (1 + 2) + (1 + 2) / 4 + 2 / 4  # down and up at 8 x 8 and 4 x 4, and the middle
    convolutions = 2 * 64 * blocks * 4 * 3 * c * c
    assert convolutions < one < 20 * convolutions


def test_growth(here, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "draw", lambda curves, path: path.write_text(json.dumps(curves)))
    options = rows.Options(rounds=1, threads=1, tiny=True, picture=tmp_path / "scaling.json")
    assert [row.ours for row in rows.growth(options)] == ["0.00"] * 3, "equal times: nothing grows"
    assert json.loads(options.picture.read_text()).keys() == scaling.AXES.keys()
    assert scaling.exponent((1, 2, 3), (5, 20, 45)) == pytest.approx(2)


@pytest.fixture
def measured(tmp_path):
    """Rows of two samplers, measured with the features of a stand-in network."""
    pipe = minit2v.load("mini", device="cpu")
    features = lambda clips: clips[:, ::4, ::16, ::16].reshape(len(clips), -1).astype(np.float64)[:, :32] / 255
    found = quality.Rows(tmp_path / "rows.jsonl", {"dtype": "float32"}, {"mini": "w"})
    chosen = [quality.Setting("mini", "ddim", 1, 1.0), quality.Setting("mini", "dpm++", 1, 1.0)]
    quality.measure_quality({"mini": pipe}, found, chosen, 2, 0, features)
    return pipe, found, chosen, features


def test_quality_is_measured_once_with_equal_noise(measured, monkeypatch):
    """With one step both samplers end at the same x0: a difference would come from prompts, seeds or noise."""
    pipe, found, chosen, features = measured
    first, second = (found.find("quality", setting, n=2, seed=0) for setting in chosen)
    assert len(first["all"]) == 2 and first["FVD-mini"]["n"] == 2 and len(first["diversity"]) == 1
    assert first["motion amplitude"] == pytest.approx(second["motion amplitude"], abs=0.02)
    assert first["FVD-mini"]["floor"] == second["FVD-mini"]["floor"]
    again = quality.Rows(found.path, found.base, found.weights)
    monkeypatch.setattr(quality, "figures", None)  # would fail if it were called
    quality.measure_quality({"mini": pipe}, again, chosen, 2, 0, features)
    assert again.rows == found.rows
    assert quality.Rows(found.path, found.base, {"mini": "other"}).find("quality", chosen[0], n=2, seed=0) is None
    quality.measure_seconds({"mini": pipe}, again, chosen[:1], threads=1)
    assert again.find("seconds", chosen[0], threads=1)["seconds"] > 0


def row(sampler: str, steps: int, right: int, n: int = 100, fvd: float = 1.0, model: str = "mini") -> dict:
    """A row in which the first `right` of n prompts are right."""
    verdicts = [i < right for i in range(n)]
    figures = {"value": fvd, "low": 0.9 * fvd, "high": 1.1 * fvd, "n": n, "floor": 0.1, "limit": fvd}
    return {"model": model, "sampler": sampler, "steps": steps, "guidance": 1.5, "n": n, "all": verdicts,
            "direction": verdicts, "FVD-mini": figures, "diversity": [1.0, 2.0], "motion amplitude": [0.2] * n,
            "seconds": None, "evaluations": 2 * steps}  # fmt: skip


def test_the_fewest_steps_that_match(tmp_path):
    found = [row("ddim", 50, 80), row("dpm++", 2, 81), row("dpm++", 4, 30), row("dpm++", 8, 79), row("dpm++", 20, 80),
             row("ddpm", 50, 20), row("dpm++", 100, 30, n=32), row("dpm++", 1, 80, model="other")]  # fmt: skip
    kept = quality_report.summary(found, "mini", 1.5, "made up")
    assert quality_report.fewest(kept, "dpm++") == 8, "4 is worse, so 2 was luck; 100 has other prompts"
    assert quality_report.fewest(kept, "ddpm") is None
    far = [entry | {"FVD-mini": row("dpm++", 8, 79, fvd=5.0)["FVD-mini"]} if entry["steps"] == 8 else entry
           for entry in found]  # fmt: skip
    assert quality_report.fewest(quality_report.summary(far, "mini", 1.5, "made up"), "dpm++") == 20
    quality_report.write(kept, tmp_path / "quality.json")
    saved = json.loads((tmp_path / "quality.json").read_text())
    assert saved == kept and "DPM-Solver++ from 8 steps on" in quality_report.table(saved)
    assert (tmp_path / "quality.png").stat().st_size > 10_000
    with pytest.raises(minit2v.errors.UserError, match="expected a row of ddim with 50 steps"):
        quality_report.find_baseline(found[1:], "mini", 1.5)


def test_failures_are_filed_by_what_is_wrong_first():
    clip = lambda kind, value: {"kind": kind, **dict.fromkeys(one_step.MEASURES, value)}
    found = [clip("motion", 0.4), clip(one_step.NONE, 0.1), clip("motion", 0.6), clip("shape", 0.9)]
    rows = one_step.summary(found)
    assert [(row["kind"], row["clips"]) for row in rows] == [(one_step.NONE, 1), ("shape", 1), ("motion", 2)]
    assert rows[2]["flicker"]["value"] == pytest.approx(0.5) and "flicker" not in rows[1], "one clip has no interval"
    assert "direction | 2 | 0.500" in one_step.table({"how": "", "rows": rows})


def test_quality_needs_no_model_of_few_steps(measured, monkeypatch, tmp_path):
    """None is shipped yet; another is told by --fast."""
    monkeypatch.setattr(quality, "data_dir", lambda: tmp_path)
    for part in ("measure_quality", "measure_seconds"):
        monkeypatch.setattr(quality, part, lambda pipes, *_: seen.append(list(pipes)))
    seen = []
    with pytest.raises(minit2v.errors.UserError, match="expected a row of ddim with 50 steps"):
        quality.main(["--dtype", "float32", "--rows", str(tmp_path / "rows.jsonl")])
    assert seen == [["mini"], ["mini"]]


def test_the_interval_of_a_paired_difference_holds_the_truth():
    """Of many draws with a known difference, 95 % intervals hold it about 95 times in 100."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        draw = generator.random(128)
        a, b = draw < 0.85, np.where(generator.random(128) < 0.9, draw < 0.80, generator.random(128) < 0.80)
        _, low, high = quality_report.difference(*discordant(a.tolist(), b.tolist()))
        inside += low <= 0.05 <= high
    assert 930 <= inside <= 980
