"""Distillation: the targets are right for a flow map that is known exactly, and a distilled model is an ordinary one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import minit2v
from minit2v import presets
from minit2v.checkpoints.folder import read_preset, save_model
from minit2v.cli import main
from minit2v.datasets import find_data
from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS
from minit2v.errors import UserError
from minit2v.networks.unet import UNet
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.training.distillation import (
    TARGETS,
    Distillation,
    DistillationTask,
    Rotations,
    distill,
    fast,
    recombined,
)
from minit2v.training.trainer import TrainConfig, train

DIFFUSION = Diffusion(presets.get("mini").diffusion)
PATH = Rotations(DIFFUSION)
SPREAD = 0.5  # standard deviation of normally distributed clips: their path only changes the scale of x


def exact(x, t, r):
    """v of the exact flow map for such clips: x_t / std(x_t) stays what it is along the path."""
    angle, aim = PATH.angles[t + 1], PATH.angles[r + 1]
    deviation = lambda a: ((SPREAD * a.cos()) ** 2 + a.sin() ** 2).sqrt()
    slope = (1 - SPREAD**2) * angle.sin() * angle.cos() / deviation(angle) ** 2
    step = (angle - aim).clamp(min=1e-9)
    jump = ((angle - aim).cos() - deviation(aim) / deviation(angle)) / step.sin()
    return torch.where(t == r, slope, jump)[:, None, None, None, None].float() * x


@pytest.fixture
def start():
    x = torch.randn(6, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([999, 999, 700, 500, 300, 60]), torch.tensor([-1, 499, 100, -1, 250, -1])


@pytest.mark.parametrize("name, tolerance", [("shortcut", 1e-5), ("consistency", 3e-3), ("mean-flow", 1e-2)])
def test_the_exact_flow_map_is_its_own_target(name, tolerance, start):
    """Two halves make a whole exactly; a short step and a difference for a derivative do so nearly."""
    error = lambda model: (TARGETS[name](PATH, model, *start) - model(*start)).norm() / start[0].norm()
    assert error(exact) < tolerance
    assert error(lambda x, t, r: exact(x, t, r) * (1 + 0.3 * (t != r)[:, None, None, None, None])) > 3 * tolerance


def test_a_jump_is_a_step_of_ddim(start):
    x, steps = start[0], 5
    run = list(SAMPLERS["ddim"](lambda x, t: exact(x, torch.full((6,), t), torch.full((6,), t)), x, DIFFUSION, steps))
    t, r = torch.full((6,), run[0].t), torch.full((6,), run[1].t)
    torch.testing.assert_close(PATH.jump(x, exact(x, t, t), t, r), run[0].x, rtol=1e-5, atol=1e-5)
    end = torch.full((6,), -1)
    last = PATH.jump(run[-2].x, exact(run[-2].x, torch.full((6,), run[-1].t), torch.full((6,), run[-1].t)),
                     torch.full((6,), run[-1].t), end)  # fmt: skip
    torch.testing.assert_close(last, run[-1].x, rtol=1e-5, atol=1e-5)


def test_a_flow_map_begins_as_its_teacher():
    """Whatever the length of the step: the new layer adds nothing yet."""
    torch.manual_seed(0)
    preset = presets.get("nano")
    teacher, student = UNet(preset.unet), UNet(fast(preset).unet)
    torch.nn.init.normal_(teacher.conv_out.weight)
    student.load_state_dict(teacher.state_dict(), strict=False)
    x, t, context = torch.randn(2, 4, 3, 8, 8), torch.tensor([999, 40]), torch.randn(2, 20, 64)
    torch.testing.assert_close(student(x, t, context, until=torch.tensor([-1, 40])), teacher(x, t, context))


def test_targets_are_made_by_the_averaged_weights(untrained_nano, tmp_path):
    """The trainer shows them to the task; what the network itself says changes no target of a jump."""
    teacher = minit2v.load(untrained_nano, device="cpu")
    config = Distillation(clips=4, bfloat16=False)
    task = DistillationTask(fast(teacher.preset), config, find_data("moving-things"), teacher, tmp_path)
    torch.nn.init.normal_(task.unet.conv_out.weight)
    averages = train(task, tmp_path / "run", TrainConfig(train_steps=2, batch=4))
    assert task.averaged is averages["unet"] and not any("averages" in name for name in task.state_dict())
    batch = task.draw(torch.Generator().manual_seed(0), 4)
    t, r, x = batch["t"], batch["r"], batch["noise"]
    target = lambda: task.target(x, t, r, batch["context"])[r != t].detach()
    before = target()
    torch.nn.init.normal_(task.unet.conv_out.weight)
    torch.testing.assert_close(target(), before, rtol=0, atol=0)
    torch.nn.init.normal_(task.averaged.conv_out.weight)
    assert not torch.allclose(target(), before)


class Normal(torch.nn.Module):
    """v of clips that are normally distributed around `mean`, all alike spread."""

    def __init__(self, mean):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(mean))

    def forward(self, x, t, context, **_):
        signal, sigma = (part.float()[:, None, None, None, None] for part in levels(t))
        x0 = self.mean + SPREAD**2 * signal * (x - signal * self.mean) / ((SPREAD * signal) ** 2 + sigma**2)
        return (signal * x - x0) / sigma


def levels(t):
    return DIFFUSION.alpha_bar[t].sqrt(), (1 - DIFFUSION.alpha_bar[t]).sqrt()


def matching_task(folder, teacher, clips_mean, ends_mean):
    """A task whose teacher knows clips around one mean, and whose fake network knows ends around another."""
    config = Distillation(clips=4, bfloat16=False, guidance=1.0, matched_share=0.5)
    task = DistillationTask(fast(teacher.preset), config, find_data("moving-things"), teacher, folder)
    task.pipe.diffusion, task.fake = DIFFUSION, Normal(ends_mean)
    task.teacher_v = lambda x, t, context: Normal(clips_mean)(x, t, context)
    return task


def test_ends_move_to_where_the_clips_of_the_teacher_are(untrained_nano, tmp_path):
    """For two normal distributions of one spread the step is known, whatever the noise: it points from one mean to the other.
    Ends that are distributed as the clips stay where they are."""
    ends = torch.randn(5, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * SPREAD - 1
    noise, level = torch.randn(ends.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 200, 500, 800, 999])
    teacher = minit2v.load(untrained_nano, device="cpu")
    moved, losses = matching_task(tmp_path, teacher, 2.0, -1.0).match(ends, noise, level, torch.zeros(5, 1, 1))
    signal, sigma = levels(level)
    share = (sigma**2 / ((SPREAD * signal) ** 2 + sigma**2)).float()[:, None, None, None, None]
    torch.testing.assert_close(moved, ends + 3 * share * torch.ones_like(ends), rtol=1e-4, atol=1e-4)
    stays, other = matching_task(tmp_path, teacher, -1.0, -1.0).match(ends, noise, level, torch.zeros(5, 1, 1))
    torch.testing.assert_close(stays, ends)
    torch.testing.assert_close(other, losses)
    wrong = matching_task(tmp_path, teacher, -1.0, 1.0).match(ends, noise, level, torch.zeros(5, 1, 1))[1]
    assert (losses[1:] < wrong[1:]).all(), "the fake network loses least where it knows the ends"


def test_matching_goes_on_from_a_flow_map(untrained_nano, tmp_path, capsys):
    """Its second network learns beside the first and stays out of the model."""
    common = ["--steps", "3", "--batch", "8", "--set", "clips=8", "--set", "bfloat16=false"]
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    matching = [*common, "--from", first, "--out", second]
    assert main(["distill", str(untrained_nano), "--out", first, *common]) == 0
    assert main(["distill", str(untrained_nano), *matching]) == 0
    names = [minit2v.load(folder, device="cpu").unet.state_dict().keys() for folder in (first, second)]
    assert names[0] == names[1]
    log = json.loads((tmp_path / "second/distillation/log.jsonl").read_text().splitlines()[-1])
    assert {"teacher loss", "jump loss", "matching loss", "fake loss"} <= log.keys()
    kept = torch.load(tmp_path / "second/distillation/checkpoint.pt", weights_only=True)["task"]
    before = minit2v.load(untrained_nano, device="cpu").unet.state_dict()
    assert any(not torch.equal(kept[f"fake.{name}"], value) for name, value in before.items())
    for arguments, message in [
        (["mini", *matching[:-1], third], "--from: expected a model that was distilled from mini, found nano-fast"),
        ([str(untrained_nano), *matching[:-1], first], "--out: expected another folder"),
        ([str(untrained_nano), *matching[:-1], third, "--set", "teacher_share=0.6"],
         "matched_share: expected at most 1 together with teacher_share, found 1.1"),
    ]:  # fmt: skip
        assert main(["distill", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not Path(third).exists()


def test_looks_and_motion_are_recombined():
    looks = lambda caption: caption.split(" moves")[0]
    clips, pictures = ["a ring moves left", "a ring moves up"], ["a blue heart", "a star", "a red cross"]
    expected = ["a blue heart moves left", "a star moves up", "a red cross moves left"]
    assert recombined(clips, pictures, looks) == expected
    assert recombined(clips, pictures, lambda caption: caption) == clips, "nothing tells looks from motion"


@pytest.mark.parametrize("target", TARGETS)
def test_a_distilled_model_is_an_ordinary_one_of_one_step(untrained_nano, tmp_path, target):
    out = tmp_path / "fast"
    assert main(["distill", str(untrained_nano), "--out", str(out), "--steps", "3", "--batch", "2", "--set", "clips=8",
                 "--set", f"target={target}", "--set", "bfloat16=false", "--set", "teacher_share=0"]) == 0  # fmt: skip
    preset, log = read_preset(out), (out / "distillation/log.jsonl").read_text().splitlines()
    assert (preset.name, preset.steps, preset.guidance) == ("nano-fast", 1, 1.0) and "jump loss" in json.loads(log[-1])
    pipe = minit2v.load(out, device="cpu")
    run = list(pipe.stream("a red ring moves left"))
    assert len(run) == 1 and run[0].t == 999
    assert len(list(pipe.stream("a red ring moves left", steps=4))) == 4
    with pytest.raises(UserError, match="expected ddim with nano-fast.* found dpm"):
        pipe("a red ring moves left", sampler="dpm++")


def test_each_call_is_told_where_its_step_ends(untrained_nano, tmp_path):
    pipe = minit2v.load(untrained_nano, device="cpu")
    preset = fast(pipe.preset)
    unet, ends = UNet(preset.unet), []
    unet.register_forward_pre_hook(lambda _, args, options: ends.append(options["until"].tolist()), with_kwargs=True)
    ModelScopeT2V(preset, pipe.text, unet, pipe.autoencoder)(["a red ring moves left"] * 2, steps=4)
    assert ends == [[749] * 2, [499] * 2, [249] * 2, [-1] * 2]


def test_other_predictions_are_refused(untrained_nano, tmp_path, capsys):
    pipe = minit2v.load(untrained_nano, device="cpu")
    diffusion = replace(pipe.preset.diffusion, prediction="x0")
    save_model(tmp_path / "x0", replace(pipe.preset, diffusion=diffusion), **pipe.networks)
    with pytest.raises(UserError, match="distill: expected a model that predicts v, found x0"):
        distill(tmp_path / "x0", tmp_path / "out", settings={"clips": 8})
    assert not (tmp_path / "out").exists()


def test_a_batch_is_drawn_alike_whatever_torch_s_defaults_are(untrained_nano, tmp_path):
    """And r is below t, or t itself where the teacher is followed."""
    teacher = minit2v.load(untrained_nano, device="cpu")
    config = Distillation(clips=4, bfloat16=False, matched_share=0.25)
    task = DistillationTask(fast(teacher.preset), config, find_data("moving-things"), teacher, tmp_path)
    draw = lambda: [task.draw(torch.Generator().manual_seed(seed), 4) for seed in range(12)]
    usual, before = draw(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        double = draw()
    finally:
        torch.set_default_dtype(before)
    for one, other in zip(usual, double):
        assert all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)
        assert (one["r"] == one["t"]).tolist() == [True, False, False, False] and (one["r"] <= one["t"]).all()
        assert one["own"].sum() == 2 and len(one["t"].unique()) > 1
        assert one["matched"].tolist() == [False, False, False, True] and (one["t"][3], one["r"][3]) == (999, -1)

