"""The table of the paper on a folder in MSR-VTT's layout, with a stand-in for I3D, through the command line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_full_scale import StandInI3D
from test_msrvtt import folder  # noqa: F401 - a fixture

import minit2v
from minit2v.checkpoints.fetching import sha256
from minit2v.cli import main
from minit2v.datasets.msrvtt import MSRVTT, Protocol
from minit2v.evaluation.frechet import frechet_distance
from minit2v.evaluation.full_scale import backbones, published
from minit2v.evaluation.full_scale.backbones import I3D
from minit2v.evaluation.full_scale.msrvtt_report import evaluate_videos
from minit2v.evaluation.full_scale.settings import FullScaleSettings
from minit2v.video import Clip

pytestmark = [pytest.mark.filterwarnings("ignore:`torch.jit"), pytest.mark.filterwarnings("ignore:.*skipped, no file")]


@pytest.fixture
def options(folder, tmp_path):  # noqa: F811
    """The arguments that name the data and the network, and where the report goes."""
    torch.jit.script(StandInI3D()).save(tmp_path / "i3d.pt")
    network = f"i3d={tmp_path / 'i3d.pt'}:{sha256(tmp_path / 'i3d.pt')}"
    return ["evaluate", "--msrvtt", str(folder), "--protocol", "one-caption", "--network", network,
            "--features", str(tmp_path / "features"), "--out", str(tmp_path / "report.json"),
            "--no-self-test"]  # fmt: skip


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
    assert "| ModelScopeT2V | 11.09 |  | 550 |  | 0.293 |  | published, mixed protocol" in printed
    assert report["metrics"]["FVD"]["floor"] == pytest.approx(0, abs=1e-6), "the clips of this folder are alike"
    assert "one half of the 5 real clips against the other" in report["floor"]
    assert f", floor {report['metrics']['FVD']['floor']:.4g}" in printed and "i3d_self_test" not in report
    assert printed.count(published.MARK) == len(published.TABLE) and "protocol" in printed


def test_a_model_is_asked_for_each_prompt_once(options, folder, tmp_path, monkeypatch):  # noqa: F811
    """As long as its weights are the same: another training into the same folder makes other clips."""
    requested, trained = [], ["first"]

    def pipe(prompts, seed, frames, **chosen):
        requested.extend((prompt, seed + i) for i, prompt in enumerate(prompts))
        return [Clip(np.full((frames, 32, 32, 3), seed + i, np.uint8)) for i in range(len(prompts))]

    pipe.preset, pipe.dtype = SimpleNamespace(steps=5, guidance=9.0), torch.float32
    monkeypatch.setattr(minit2v, "load", lambda model, dtype: pipe)
    monkeypatch.setattr("minit2v.evaluation.clip_sources.located", lambda model, half: SimpleNamespace(path=model))
    monkeypatch.setattr("minit2v.evaluation.clip_sources.fingerprint", lambda model: trained[-1])
    for _ in range(2):  # the second time every feature is there
        assert main([*options, "--model", "./some", "--seed", "3"]) == 0
    prompts = MSRVTT(folder, Protocol("one-caption", seed=3)).prompts
    once = [(prompt, 3 + i) for i, prompt in enumerate(prompts)]
    assert requested == once
    trained.append("again")
    assert main([*options, "--model", "./some", "--seed", "3"]) == 0
    assert requested == once * 2 and json.loads((tmp_path / "report.json").read_text())["weights"] == "again"


def test_the_floor_is_of_clips_that_the_protocol_did_not_choose_where_there_are_enough(options, folder, tmp_path):  # noqa: F811
    """Two of five are chosen, so for two clips to be measured there are two others; they are all alike here."""
    real = MSRVTT(folder, Protocol("one-caption", n=2, size=32))
    lines = [f"{Clip(clip).save(tmp_path / f'{i}.webp').name}\t{real.prompts[i]}\n" for i, clip in enumerate(real[:2])]
    (tmp_path / "captions.tsv").write_text("".join(lines))
    files = {"i3d": tmp_path / "i3d.pt", "i3d_sha256": sha256(tmp_path / "i3d.pt")}
    settings = FullScaleSettings(**files, size=32, self_test=False)
    report = evaluate_videos(tmp_path, tmp_path / "captions.tsv", folder, real.protocol, settings)
    assert report["floor"] == "2 other real clips against the 2 that the protocol chose"
    network = I3D.load(*files.values(), torch.device("cpu"))
    x, y = (network.features(clips[:2]) for clips in (real.further(2), real))
    assert report["metrics"]["FVD"]["floor"] == pytest.approx(frechet_distance(x, y), abs=1e-6)


def test_another_network_than_the_published_i3d_is_refused_before_anything_is_sampled(options, monkeypatch, capsys):
    """The stand-in puts black clips 12 away from white ones."""
    options.remove("--no-self-test")
    monkeypatch.setattr(minit2v, "load", lambda *_, **__: pytest.fail("too late"))
    assert main([*options, "--model", "./some"]) == 2
    line = capsys.readouterr().err
    assert "i3d: expected black clips 151.26 ± 0.5 away from white ones, found 12.00" in line and line.count("\n") == 1


def test_the_report_says_what_the_self_test_gave(options, folder, tmp_path, monkeypatch):  # noqa: F811
    options.remove("--no-self-test")
    monkeypatch.setattr(backbones, "SELF_TEST", 12.3)  # what the stand-in gives, within the tolerance
    clips, captions = tmp_path / "0.webp", tmp_path / "captions.tsv"
    Clip(MSRVTT(folder, Protocol("one-caption"))[0]).save(clips)
    captions.write_text("0.webp\ta\n0.webp\tb\n")
    assert main([*options, "--clips", str(tmp_path), "--captions", str(captions)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["i3d_self_test"] == 12 and "; i3d_self_test 12.0; " in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("wrong, message", [
    (["--clips", "somewhere"], "--captions"), (["--network", "i3d=a.pt"], "FILE:SHA256"),
    (["--protocol", "all"], "one-caption"), (["--network", "i3d=none.pt:" + "0" * 64], "none.pt"),
    (["--n", "512"], "--n: expected without --msrvtt"), (["--batch", "16"], "--batch: expected without --msrvtt"),
    (["--split", "test_seen"], "--split: expected without --msrvtt"),
    (["--clips", "a", "--captions", "b", "--steps", "5"], "--steps: expected without --clips"),
])  # fmt: skip
def test_refuses_in_one_line(options, wrong, message, capsys):
    assert main([*options, *wrong]) == 2
    assert message in capsys.readouterr().err
