"""The memory plan foretells what a process takes; loading takes one copy of the weights."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from minit2v import presets
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.memory.card import Card, describe_card, options_that_fit, plenty
from minit2v.memory.figures import counted, recorded
from minit2v.memory.plan import OPTIONS, as_bytes, plan
from minit2v.presets import AutoencoderConfig, ModelScopePreset, TextConfig, UNetConfig

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
SMALL = {  # networks that take next to nothing, beside the one that is measured
    "unet": UNetConfig(channels=(32,), attention=(True,), layers_per_level=1, head_dim=16, first_temporal_heads=2,
                       context_dim=64),
    "autoencoder": AutoencoderConfig(channels=8, norm_groups=4, mid_attention=False),
    "text": TextConfig(context_length=20, width=64, heads=4, layers=2, embed_dim=64),
}  # fmt: skip
ONE_LEVEL = UNetConfig(channels=(320,), attention=(True,), context_dim=64)
CASES = {
    "mini": presets.get("mini"),
    "320 wide, one level": ModelScopePreset("a", **SMALL | {"unet": ONE_LEVEL}, frames=4),
    "the released autoencoder": ModelScopePreset("b", **SMALL | {"autoencoder": AutoencoderConfig()}, frames=4),
    "the released text tower": ModelScopePreset(
        "c", **SMALL | {"text": TextConfig(), "unet": replace(SMALL["unet"], context_dim=1024)}, frames=1),
}  # fmt: skip
# one process that samples one step with random weights, and says what it took at most
RUN = """
import json, sys
import torch
from minit2v.memory.measured import peak
from minit2v.memory.plan import plan
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.presets import ModelScopePreset, Preset
from minit2v.systems import system_of

preset, dtype, batched = Preset.from_dict(json.loads(sys.argv[1])), sys.argv[2], sys.argv[3] == "batched"
torch.set_num_threads(1)
foretold = plan(preset, dtype=dtype).peaks["" if batched else "--sequential"]
parts = {}
for name, build in system_of(preset).networks.items():
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device("meta"):
        parts[name] = build(getattr(preset, name))
    torch.set_default_dtype(torch.float32)
    parts[name].load_state_dict({key: torch.full(value.shape, 0.01, dtype=value.dtype)
                                 for key, value in parts[name].state_dict().items()}, assign=True)
    parts[name].requires_grad_(False)
ModelScopeT2V(preset, **parts, batched=batched)("a red circle", steps=1)
print(json.dumps([foretold, peak()]))
"""


def in_a_process(code: str, *arguments: str):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@linux
@pytest.mark.parametrize("name, dtype, way", [
    ("mini", "float32", "batched"),
    ("320 wide, one level", "float32", "batched"),
    pytest.param("320 wide, one level", "bfloat16", "in turn", marks=pytest.mark.skipif(
        torch.backends.cpu.get_cpu_capability() == "AVX2", reason="without AVX-512 bfloat16 takes many minutes")),
    ("the released autoencoder", "float32", "batched"),
    ("the released text tower", "float32", "batched"),
])  # fmt: skip
def test_the_plan_is_within_15_percent_of_the_measured_peak(name, dtype, way, capsys):
    foretold, measured = in_a_process(RUN, json.dumps(CASES[name].to_dict()), dtype, way)
    with capsys.disabled():
        print(f"\n{name}, {dtype}, {way}: foretold {foretold / 1e9:.2f} GB, measured {measured / 1e9:.2f} GB", end=" ")
    assert foretold == pytest.approx(measured, rel=0.15)


LOAD = """
import json, sys
from pathlib import Path
import torch
from minit2v.checkpoints.load import load_network
from minit2v.checkpoints.source import Source
from minit2v.networks.unet import UNet

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

torch.set_num_threads(1)
with torch.device("meta"):
    UNet()
config = Source(sys.argv[1])["unet"].config
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
unet = load_network("unet", Path(sys.argv[1]), getattr(torch, sys.argv[2]), "cpu", config)
print(json.dumps([memory("VmHWM") - before, sum(p.nbytes for p in unet.parameters())]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A UNet of 260 MB in diffusers' names, as safetensors and as a pickle."""
    from safetensors.torch import save_file

    from minit2v.checkpoints.export import tensors_for
    from minit2v.networks.unet import UNet

    folder = tmp_path_factory.mktemp("large")
    state = tensors_for("unet", UNet(replace(ONE_LEVEL, context_dim=1024)), "diffusers")
    save_file(state, folder / "unet.safetensors")
    torch.save(state, folder / "unet.bin")
    return folder


@linux
@pytest.mark.parametrize("name", ["unet.safetensors", "unet.bin"])
@pytest.mark.parametrize("dtype, room", [("float32", 0.0), ("bfloat16", 128 * 2**20)])
def test_loading_takes_one_copy_of_the_weights(files, name, dtype, room, capsys):
    """As much as the weights, and what may be mapped of the file at a time where they are cast."""
    peak, weights = in_a_process(LOAD, str(files / name), dtype)
    with capsys.disabled():
        print(f"\n{name} as {dtype}: weights {weights / 1e6:.0f} MB, peak of loading {peak / 1e6:.0f} MB", end=" ")
    assert weights <= peak <= 1.05 * weights + room + 30e6


def test_the_plan_says_which_options_fit():
    of = plan("modelscope-1.7b", device="cuda")
    assert of.memory is None and of.fits is None and list(of.peaks) == list(OPTIONS)
    assert of.peaks[""] > of.peaks["--sequential"] > of.peaks["--sequential --offload"]
    assert sum(of.weights.values()) == 2 * 1_835_275_563  # two bytes a parameter
    for options, peak in of.peaks.items():
        at = replace(of, memory=peak + 1e6)
        assert at.fits is not None and of.peaks[at.fits] <= peak + 1e6 and (at.fits or "it fits") in at.line()
    assert "half precision" in replace(of, memory=1e9).line() and replace(of, memory=1e9).fits is None


@pytest.mark.parametrize("model, dtype", [("mini", "float32"), ("mini", "float16"), ("modelscope-1.7b", "float16")])
def test_the_recorded_figures_are_those_of_the_plan(model, dtype):
    """Else run python scripts/memory_figures.py."""
    kept = next(one for one in recorded() if (one.model, one.dtype) == (model, dtype))
    peaks = plan(model, dtype=dtype, device="cuda").peaks
    for options, (batched, offload) in OPTIONS.items():
        peak = sum(kept.peak("cuda", batched, offload, chunk=4 if batched else 1).values())
        assert peak == pytest.approx(peaks[options], rel=0.01), "a network or how it is called has changed"
    if model == "mini":
        assert counted(model, dtype) == kept
    with pytest.raises(UserError, match="chunk: expected one of 1, 4, 16, found 3"):
        kept.peak(chunk=3)


def test_more_frames_take_more_and_windows_bound_the_network():
    few, many = (plan("nano", frames=frames, height=128, width=128).peaks[""] for frames in (16, 256))
    assert many - few > 100e6
    bounded = plan("nano", frames=256, height=128, width=128, window=16).peaks[""]
    assert few <= bounded < few + 60e6


@pytest.mark.parametrize("settings, message", [
    ({"memory": "lots"}, "memory: expected"), ({"memory": "-3GB"}, "memory: expected"),
    ({"device": "tpu"}, "device: expected"), ({"dtype": "int8"}, "dtype: expected"),
    ({"height": 33}, "height: expected a multiple"), ({"frames": 0}, "frames: expected"),
])  # fmt: skip
def test_the_plan_refuses(settings, message):
    with pytest.raises(UserError, match=message):
        plan("nano", **settings)


def test_a_card_gets_the_fastest_way_that_fits(monkeypatch):
    """By the plan's own figures, just enough and a byte less; what the caller has chosen stays."""
    preset = presets.get("mini")
    peaks = plan(preset, dtype="float16", device="cuda").peaks
    assert plenty(preset, torch.float16) > peaks[""]
    monkeypatch.setattr("minit2v.memory.card.plenty", lambda *_: 1e12)
    fitting = lambda free, **chosen: options_that_fit(preset, free, torch.float16, **chosen)
    assert fitting(1e15) == fitting(peaks[""]) == OPTIONS[""]
    following = next(options for options in OPTIONS if peaks[options] < peaks[""])
    with pytest.warns(UserWarning, match=f"goes on with {following}"):
        assert fitting(peaks[""] - 1) == OPTIONS[following]
    least = min(peaks, key=peaks.get)
    with pytest.warns(UserWarning, match=least):
        assert fitting(0) == OPTIONS[least]
    assert fitting(0, batched=True, offload=False) == (True, False)
    with pytest.warns(UserWarning, match="--sequential"):
        assert fitting(peaks["--sequential"], offload=False) == OPTIONS["--sequential"]


def test_amounts_of_memory():
    assert as_bytes("8GB") == 8e9 and as_bytes(" 8 gib") == 8 * 2**30 and as_bytes("500MB") == 5e8
    assert as_bytes(7) == 7 and as_bytes(None) is None


def test_the_command(capsys):
    assert main(["weights", "plan", "--memory", "4GB", "--device", "cuda"]) == 0
    out = capsys.readouterr().out
    assert "--sequential --offload" in out and out.rstrip().splitlines()[-1].startswith("modelscope-1.7b in float16")
    assert main(["weights", "plan", "nano", "--memory", "many"]) == 2
    assert "--memory: expected an amount" in capsys.readouterr().err


def test_a_card_says_what_it_can_do(monkeypatch):
    """Memory, the precisions of its generation, and the options with which a model fits into what is free."""
    cards = {capability: Card("GPU", int(8e9), int(6e9), capability) for capability in ((6, 1), (7, 5), (9, 0))}
    assert [card.precisions for card in cards.values()] == [
        ("float32",), ("float16", "float32"), ("float16", "bfloat16", "float32")]  # fmt: skip
    monkeypatch.setattr("minit2v.memory.card.find_card", lambda: cards[9, 0])
    assert describe_card("nano") == f"{cards[9, 0].line()}; {plan('nano', 6e9, device='cuda').line()}"
    monkeypatch.setattr("minit2v.memory.card.find_card", lambda: None)
    assert describe_card("nano").startswith("no CUDA device")


def test_a_model_of_the_hub_says_what_it_takes_before_it_is_downloaded(monkeypatch, capsys, tmp_path):
    """And nothing is asked of the network before that."""

    def download(name, half, revision):
        assert "modelscope-1.7b in float32 on cpu, 8 frames of 256x256, takes" in capsys.readouterr().err
        raise UserError(f"no way to {name}")

    monkeypatch.setattr("minit2v.checkpoints.hub.download", download)
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "a panda", "--model", "owner/name", "--frames", "8", "--device", "cpu"]) == 2
    assert capsys.readouterr().err == "minit2v: no way to owner/name\n"
