"""The training loop: nothing is lost, nothing depends on how often it was stopped or on how many processes ran it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from minit2v import presets
from minit2v.checkpoints.folder import save_model
from minit2v.errors import UserError
from minit2v.training.log import Log
from minit2v.training.trainer import TrainConfig, train

CONFIG = TrainConfig(train_steps=60, batch=8, lr=0.1, warmup=0.1, ema=0.9, save_every=0.0)
TOY = """
import sys, time
sys.path.insert(0, {tests!r})
from test_trainer import CONFIG, Regression, train
train(Regression(pause=0.02), {out!r}, CONFIG)
"""


class Regression(nn.Module):
    """A task of one weight matrix; Ctrl-C is pressed in the midst of step `stop_at`."""

    def __init__(self, pause=0.0, stop_at=None, width=3):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.pause, self.stop_at, self.calls, self.progress = nn.Linear(width, 1), pause, stop_at, 0, 0.0

    @property
    def ema_modules(self):
        return {"net": self.net}

    def draw(self, generator, n):
        return {"x": torch.randn(n, self.net.in_features, generator=generator)}

    def forward(self, batch):
        self.calls += 1
        time.sleep(self.pause)
        if self.calls == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        loss = (self.net(batch["x"]) - batch["x"].sum(1, keepdim=True)).pow(2).mean()
        return loss, {"rate": self.progress}

    def picture(self):
        return None


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    task = Regression()
    averaged = train(task, tmp_path_factory.mktemp("whole"), CONFIG)
    return task.net.weight.detach().clone(), averaged["net"].weight.detach().clone()


def test_it_learns(uninterrupted):
    assert (uninterrupted[0] - 1).abs().max() < 0.2


def test_killed_and_resumed_equals_uninterrupted(tmp_path, uninterrupted):
    out = tmp_path / "run"
    code = TOY.format(tests=os.path.dirname(__file__), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    saved = lambda: torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    deadline = time.time() + 120
    while time.time() < deadline and not ((out / "checkpoint.pt").exists() and saved() > 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 < saved() < CONFIG.train_steps
    task = Regression()
    averaged = train(task, out, CONFIG, resume=True)
    assert torch.equal(task.net.weight, uninterrupted[0]) and torch.equal(averaged["net"].weight, uninterrupted[1])


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, uninterrupted):
    with pytest.raises(UserError, match="stopped at step 5, saved .*--resume"):
        train(Regression(stop_at=5), tmp_path, replace(CONFIG, save_every=1e9))
    task = Regression()
    train(task, tmp_path, CONFIG, resume=True)
    assert torch.equal(task.net.weight, uninterrupted[0])


def test_a_run_can_be_resumed_from_its_first_step_on(tmp_path, uninterrupted):
    with pytest.raises(ZeroDivisionError):
        train(Regression(), tmp_path, replace(CONFIG, save_every=1e9), clock=lambda: 1 / 0)
    task = Regression()
    train(task, tmp_path, CONFIG, resume=True)
    assert torch.equal(task.net.weight, uninterrupted[0])


def test_a_log_on_a_full_disk_is_one_clear_line(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs Linux's /dev/full")
    log = Log(tmp_path, active=True, step=0)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="could not write .*log.jsonl .*No space left"):
        log(1, 1.0, 0.5, {"loss": 1.0})


def test_refuses_what_it_cannot_resume(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        train(Regression(), tmp_path / "none", CONFIG, resume=True)
    train(Regression(), tmp_path, replace(CONFIG, train_steps=2))
    with pytest.raises(UserError, match="already holds a run"):
        train(Regression(), tmp_path, CONFIG)
    with pytest.raises(UserError, match="other settings .*lr"):
        train(Regression(), tmp_path, replace(CONFIG, lr=0.2), resume=True)
    with pytest.raises(UserError, match="other settings .*image_share"):
        train(Regression(), tmp_path, CONFIG, resume=True, settings={"image_share": 0.5})
    with pytest.raises(UserError, match="another preset"):
        train(Regression(width=4), tmp_path, CONFIG, resume=True)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        train(Regression(), tmp_path, CONFIG, resume=True)


def test_budget_by_the_clock_ends_and_anneals(tmp_path):
    task = Regression(pause=0.02)
    train(task, tmp_path, replace(CONFIG, train_steps=0, budget=0.5))
    assert 0.9 < task.progress < 1 and 3 <= task.calls <= 25


def nano_folder(folder):
    """An untrained nano model, as the UNet's training expects to find it."""
    from minit2v.networks.autoencoder import VQGAN
    from minit2v.networks.text import TextEncoder

    preset = presets.get("nano")
    torch.manual_seed(0)
    save_model(folder, preset, autoencoder=VQGAN(preset.autoencoder), text=TextEncoder(preset.text))
    return folder


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PARTS = {
    "autoencoder": ["foreground=0"],  # the weights of things have mean 1 over the share of a rank
    "text": ["clips=8", "images=8", "tests=4"],
    "unet": ["clips=8", "images=8", "bfloat16=false", "image_stage=0.3", "image_share=0.3", "muon_rate=2"],
}


def test_processes_of_torchrun_know_of_each_other(tmp_path):
    """Each would train alone otherwise, and two that do the same pass for two that share the work."""
    say = "import sys; from minit2v.ranks import this_process; sys.exit(this_process().num_processes != 2)"
    (tmp_path / "say.py").write_text(say)
    done = subprocess.run([*TORCHRUN, str(tmp_path / "say.py")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


SHARDED = str(Path(__file__).parent / "fsdp_on_cpus.py")


def trained(folder, part, launcher, *options):
    """The checkpoint of four steps of a part of nano, and the first line of its log."""
    out = folder if folder.exists() else nano_folder(folder)
    command = [*launcher, "train", part, "--preset", "nano", "--out", str(out), "--batch", "4", *options]
    command += [word for setting in PARTS[part] for word in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    first = (out / part / "log.jsonl").read_text().splitlines()[0]
    return torch.load(out / part / "checkpoint.pt", weights_only=True), json.loads(first)


ALONE = [sys.executable, "-m", "minit2v"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """`trained` in one process, once for each part."""
    return cache(lambda part: trained(tmp_path_factory.mktemp("alone") / part, part, ALONE, "--steps", "4"))


@pytest.mark.parametrize("part", PARTS)
def test_two_processes_equal_one(part, tmp_path, alone):
    """torchrun with two ranks, through the command line, against one process with the same global batch."""
    one, first = alone(part)
    two, second = trained(tmp_path / "2", part, [*TORCHRUN, "-m", "minit2v"], "--steps", "4")
    assert one["step"] == two["step"] == 4
    averaged = {name.removeprefix("module."): value for name, value in one["averaged"].items() if name != "n_averaged"}
    moved = [name for name in averaged if not torch.allclose(averaged[name], one["task"][name], atol=2e-5)]
    assert len(moved) > len(averaged) / 2, f"the average lags behind what is trained: {len(moved)} of {len(averaged)}"
    assert_equal_within_rounding(one["task"], two["task"])
    assert first["norm"] == pytest.approx(second["norm"], rel=1e-3), "gradients are to be averaged, not summed"
    assert first["loss"] != second["loss"], "the first rank logs the loss of its own share"


def assert_equal_within_rounding(one, two):
    assert one.keys() == two.keys()
    for name in one:
        rounding = 2e-4 if name.endswith("in_proj_bias") else 2e-5  # a key's bias has no gradient but rounding
        assert torch.allclose(one[name], two[name], atol=rounding), name


def test_the_unet_in_pieces_trains_as_a_whole_one(tmp_path, alone):
    """FSDP on two ranks, Muon, the average and pictures included; checkpoint and weights are whole."""
    one, first = alone("unet")
    two, second = trained(tmp_path / "2", "unet", [*TORCHRUN, SHARDED], "--steps", "4")
    assert first["norm"] == pytest.approx(second["norm"], rel=1e-3)
    for name in ("task", "averaged"):
        assert_equal_within_rounding(one[name], two[name])
    weights = load_file(tmp_path / "2" / "unet.safetensors")
    assert all(torch.equal(value, two["averaged"][f"module.unet.{name}"].half()) for name, value in weights.items())


class Matrices(Regression):
    """A regression whose weights are stepped by Muon, its biases by AdamW."""

    may_be_sharded = True

    def __init__(self):
        super().__init__(width=6)
        self.net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 1))
        self.net.in_features = 6

    def parameter_groups(self, lr):
        matrices = [p for p in self.parameters() if p.ndim > 1]
        return [{"params": matrices, "lr": lr, "orthogonal": True},
                {"params": [p for p in self.parameters() if p.ndim < 2], "lr": lr}]  # fmt: skip


def stopped_and_resumed(out):
    """Matrices after a stop in the midst of a run, with the optimizer's state of its first half."""
    train(Matrices(), out, replace(CONFIG, train_steps=10))
    return train(Matrices(), out, replace(CONFIG, train_steps=20), resume=True)


def test_a_run_in_pieces_goes_on_whole_and_the_other_way(tmp_path):
    """What is in a checkpoint does not depend on how many cards wrote it; nor does what a resumed run makes of it."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import fsdp_on_cpus
fsdp_on_cpus.SETTINGS["fsdp_transformer_layer_cls_to_wrap"] = "Linear"
fsdp_on_cpus.install()
from test_trainer import stopped_and_resumed
stopped_and_resumed({str(tmp_path / "pieces")!r})
"""
    (tmp_path / "run.py").write_text(code)
    done = subprocess.run([*TORCHRUN, str(tmp_path / "run.py")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    whole = stopped_and_resumed(tmp_path / "whole")
    read = lambda folder: torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)
    one, two = read("whole"), read("pieces")
    assert_equal_within_rounding(one["task"], two["task"])
    for mine, theirs in zip(one["optimizer"]["state"].values(), two["optimizer"]["state"].values(), strict=True):
        assert_equal_within_rounding(mine, theirs)
    on = train(Matrices(), tmp_path / "pieces", replace(CONFIG, train_steps=30), resume=True)
    same = train(Matrices(), tmp_path / "whole", replace(CONFIG, train_steps=30), resume=True)
    assert_equal_within_rounding(on.state_dict(), same.state_dict())
    assert not torch.allclose(on["net"][0].weight, whole["net"][0].weight, atol=1e-3)


def test_a_part_that_cannot_be_in_pieces_says_so(tmp_path):
    command = [*TORCHRUN, SHARDED, "train", "autoencoder", "--preset", "nano", "--out", str(tmp_path), "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode and "FSDP: expected the part unet" in done.stderr


def test_parts_of_a_batch_in_turn_equal_the_whole(tmp_path, uninterrupted):
    whole = train(Regression(), tmp_path / "whole", CONFIG)
    parts = train(Regression(), tmp_path / "parts", replace(CONFIG, accumulate=2))
    assert torch.allclose(whole["net"].weight, parts["net"].weight, atol=1e-5)
    with pytest.raises(UserError, match="batch: expected a multiple of 3"):
        train(Regression(), tmp_path / "odd", replace(CONFIG, accumulate=3, batch=4))


def test_average_forgets_the_start(tmp_path):
    """Of a short run with a long memory: without a warm-up of the decay the average would still be the start."""
    task = Regression()
    averaged = train(task, tmp_path, replace(CONFIG, ema=0.9999))
    assert (averaged["net"].weight - 1).abs().max() < 0.5


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    task = Regression()
    with pytest.raises(UserError, match="could not write"):
        train(task, tmp_path / "file" / "run", CONFIG)
    assert task.calls == 0


@pytest.mark.parametrize("name, value", [
    ("lr", float("nan")), ("lr", 0), ("budget", float("inf")), ("batch", 0), ("betas", (0.9,)), ("betas", (0.9, 1.0)),
    ("grad_clip", float("nan")), ("ema", 1), ("seed", 2**63), ("weight_decay", -1), ("train_steps", -1), ("warmup", 1),
])  # fmt: skip
def test_settings_out_of_range_are_one_clear_line(name, value):
    with pytest.raises(UserError, match=f"^{name}: expected .*, found {name} "):
        TrainConfig(**{name: value})
