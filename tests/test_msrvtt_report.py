"""The table of the paper on a folder in MSR-VTT's layout, with a stand-in for I3D, through the command line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_full_scale import StandInI3D
from test_msrvtt import folder  # noqa: F401 - a fixture

import minit2v
from minit2v.cli import main
from minit2v.evaluation import published
from minit2v.evaluation.msrvtt import MSRVTT, Protocol
from minit2v.fetching import sha256
from minit2v.video import Clip

pytestmark = [pytest.mark.filterwarnings("ignore:`torch.jit"), pytest.mark.filterwarnings("ignore:.*skipped, no file")]


@pytest.fixture
def options(folder, tmp_path):  # noqa: F811
    """The arguments that name the data and the network, and where the report goes."""
    torch.jit.script(StandInI3D()).save(tmp_path / "i3d.pt")
    network = f"i3d={tmp_path / 'i3d.pt'}:{sha256(tmp_path / 'i3d.pt')}"
    return ["evaluate", "--msrvtt", str(folder), "--protocol", "one-caption", "--network", network,
            "--features", str(tmp_path / "features"), "--out", str(tmp_path / "report.json")]  # fmt: skip


def test_videos_of_another_program_beside_the_published_rows(options, folder, tmp_path, capsys):  # noqa: F811
    real = MSRVTT(folder, Protocol("one-caption"))
    for i, clip in enumerate(real[: len(real)]):  # the real clips themselves: no distance but what the file costs
        Clip(clip).save(tmp_path / f"{i}.webp")
    lines = [f"{i}.webp\t{prompt}\n" for i, prompt in enumerate(real.prompts)]
    (tmp_path / "captions.tsv").write_text("".join(lines))
    assert main([*options, "--clips", str(tmp_path), "--captions", str(tmp_path / "captions.tsv")]) == 0
    report, printed = json.loads((tmp_path / "report.json").read_text()), capsys.readouterr().out
    assert report["metrics"]["FVD"]["value"] == pytest.approx(0, abs=1e-6) and report["n"] == len(real)
    assert report["data"]["name"] == "one-caption" and report["settings"]["i3d"] == "i3d.pt"
    assert "| ModelScopeT2V | 11.09 |  | 550 | 0.293 |  | published, mixed protocol" in printed
    assert printed.count(published.MARK) == len(published.TABLE) and "protocol" in printed


def test_a_model_is_asked_for_each_prompt_once(options, folder, monkeypatch):  # noqa: F811
    asked = []

    def pipe(prompts, seed, frames, **chosen):
        asked.extend((prompt, seed + i) for i, prompt in enumerate(prompts))
        return [Clip(np.full((frames, 32, 32, 3), seed + i, np.uint8)) for i in range(len(prompts))]

    pipe.preset, pipe.dtype = SimpleNamespace(steps=5, guidance=9.0), torch.float32
    monkeypatch.setattr(minit2v, "load", lambda model, dtype: pipe)
    for _ in range(2):  # the second time every feature is there
        assert main([*options, "--model", "some", "--seed", "3"]) == 0
    prompts = MSRVTT(folder, Protocol("one-caption", seed=3)).prompts
    assert asked == [(prompt, 3 + i) for i, prompt in enumerate(prompts)]


@pytest.mark.parametrize("wrong, message", [
    (["--clips", "somewhere"], "--captions"), (["--network", "i3d=a.pt"], "FILE:SHA256"),
    (["--protocol", "all"], "one-caption"), (["--network", "i3d=none.pt:" + "0" * 64], "none.pt"),
])  # fmt: skip
def test_refuses_in_one_line(options, wrong, message, capsys):
    assert main([*options, *wrong]) == 2
    assert message in capsys.readouterr().err
