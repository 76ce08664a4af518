"""Recipes: the paper is the default, departures are named, and a recipe is one training that may stop anywhere."""

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import minit2v
from minit2v import presets
from minit2v.checkpoints.folder import read_preset, save_tensors
from minit2v.checkpoints.reading import read
from minit2v.errors import UserError
from minit2v.presets import ModelScopePreset
from minit2v.recipes import RECIPES, Step, settings_of
from minit2v.systems import SYSTEMS, System, find_preset, modelscope
from minit2v.training import run as training
from minit2v.training import trainer
from minit2v.training.overrides import configure
from minit2v.training.parts import Part, part_of
from minit2v.training.run import run
from minit2v.training.trainer import TrainConfig
from minit2v.training.unet import UNetTask

PAPER = {  # shared sources: the released code of ModelScopeT2V and of latent diffusion, CLIP's table 18
    "unet": {
        "lr": 5e-5, "weight_decay": 0.0, "betas": (0.9, 0.999), "ema": 0.9999, "grad_clip": math.inf, "batch": 32,
        "caption_dropout": 0.1, "image_share": 1 / 8, "images_per_clip": 8, "temporal_rate": 5.0, "image_stage": 0.0,
        "frozen_clips": 0.0, "sparse_until": 0.0, "noisy_timestep_share": 0.0, "uncertainty_weighted": False,
        "muon_rate": 0.0,
    },
    "text": {"lr": 5e-4, "weight_decay": 0.2, "betas": (0.9, 0.98), "word_deviation": 0.02, "grid_positions": False},
    "autoencoder": {
        "betas": (0.5, 0.9), "weight_decay": 0.0, "foreground": 0.0, "crop": 0, "share_images": 1.0, "discriminator_width": 64,
        "hinge": 1.0,
    },
}  # fmt: skip
TINY = {"batch": "4", "clips": "24", "images": "16", "tests": "8", "save_every": "0", "bfloat16": "false"}


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Trainings here end without the clips of a picture, which take most of the time of two steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UNetTask, "picture", lambda self: None)
        yield


@pytest.mark.parametrize("name", PAPER)
def test_defaults_are_the_paper_s(name):
    part = part_of(presets.get("modelscope-1.7b"), name)
    values = {**vars(part.loop), **vars(part.config)}
    assert {key: values[key] for key in PAPER[name]} == PAPER[name]
    assert settings_of("modelscope-1.7b", name) == {}, "no recipe, no departure"


@pytest.mark.parametrize("preset", RECIPES)
def test_every_setting_of_a_recipe_is_known_to_its_step(preset):
    for step in RECIPES[preset]:
        part = part_of(find_preset(preset), step.part)
        config, loop, _ = configure(settings_of(preset, step.name), *part.configs, find_preset(preset))
        values = {**vars(loop), **vars(config)}
        assert all(values[name] == value for name, value in step.settings.items())


def test_what_is_set_by_name_is_above_the_recipe(tmp_path):
    run("autoencoder", "nano", tmp_path, settings={"train_steps": "1", "batch": "4", "crop": "0"})
    used = torch.load(tmp_path / "autoencoder" / "checkpoint.pt", weights_only=True)["settings"]
    assert (used["lr"], used["foreground"]) == (2e-3, 8.0), "the recipe's"
    assert (used["batch"], used["crop"]) == (4, 0)


def test_make_train_is_the_recipe():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    assert "minit2v train all --preset mini --out runs/mini --resume" in makefile and "--set" not in makefile


SMALL = [
    Step("autoencoder", 1, {"lr": 1e-3}),
    Step("text", 1, {"lr": 1e-3}),
    Step("unet", 2, {"lr": 1e-3, "muon_rate": 2.0}),
    Step("unet", 1, {"image_stage": 0.0, "lr": 5e-4}, after="unet", name="unet-again"),
]
FILES = ("config.json", "autoencoder.safetensors", "text.safetensors", "unet.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The small recipe without a stop, two steps each."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(RECIPES, "nano", SMALL)
        return run("all", "nano", tmp_path_factory.mktemp("all"), settings=TINY | {"train_steps": "2"})


def test_a_recipe_makes_a_model(whole):
    assert minit2v.load(whole, device="cpu")("a red circle moves left", steps=1).pixels.shape == (16, 32, 32, 3)
    assert json.loads((whole / "recipe.json").read_text()) == {"done": [step.name for step in SMALL]}
    again = torch.load(whole / "unet-again" / "checkpoint.pt", weights_only=True)
    assert (again["settings"]["lr"], again["settings"]["muon_rate"]) == (5e-4, 2.0), "above those of the step before"


class PowerCut(Exception):
    pass


def test_a_recipe_takes_over_what_another_system_has_in_common(whole, tmp_path):
    found = read_preset(whole)
    common = {name: getattr(found, name) for name in ("frames", "height", "width", "autoencoder", "text")}
    preset = find_preset("videoldm")
    preset = replace(preset, unet=replace(preset.unet, looks_first=False), **common)
    taken = lambda name, preset, out: training.taken_over(name, part_of(preset, name), preset, whole, tmp_path / out)
    assert taken("autoencoder", preset, "a") and taken("text", preset, "a")
    for name in ("autoencoder", "text"):
        assert (tmp_path / "a" / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()
    assert read_preset(tmp_path / "a") == preset
    assert not taken("unet", preset, "a"), "another training"
    assert not taken("autoencoder", replace(preset, height=64), "b"), "another size"
    wider = replace(preset, text=replace(preset.text, width=2 * preset.text.width))
    assert not taken("text", wider, "b") and not (tmp_path / "b").exists(), "another network"


def test_a_part_that_stands_on_other_networks_is_not_taken_over(whole, tmp_path):
    """The same shapes are not enough: its latents, its words and its noise must be those that it has learnt."""
    preset = read_preset(whole)
    unet = part_of(preset, "unet")
    for place in ("same", "other"):
        (tmp_path / place).mkdir()
        for name in ("autoencoder", "text"):
            shutil.copyfile(whole / f"{name}.safetensors", tmp_path / place / f"{name}.safetensors")
    save_tensors({name: tensor + 1 for name, tensor in read(whole / "text.safetensors").items()}, tmp_path / "other/text.safetensors")
    noisier = replace(preset, diffusion=replace(preset.diffusion, snr_shift=2 * preset.diffusion.snr_shift))
    assert not training.taken_over("unet", unet, preset, whole, tmp_path / "other")
    assert not training.taken_over("unet", unet, noisier, whole, tmp_path / "same")
    assert training.taken_over("unet", unet, preset, whole, tmp_path / "same")


def test_a_recipe_killed_again_and_again_ends_as_an_uninterrupted_one(whole, tmp_path, monkeypatch):
    """Within each step, before its weights are written, and before it is noted as done; with the same command."""
    cuts, now = [], None
    step, export, random = training.run_step, training.export, trainer.step_generator

    def cut(moment):
        if (now, moment) not in cuts:
            cuts.append((now, moment))
            raise PowerCut

    def cut_step(name, *args):
        nonlocal now
        now = name
        step(name, *args)
        cut("not noted")

    monkeypatch.setitem(RECIPES, "nano", SMALL)
    monkeypatch.setattr(training, "run_step", cut_step)
    monkeypatch.setattr(training, "export", lambda *args: cut("not written") or export(*args))
    monkeypatch.setattr(trainer, "step_generator", lambda seed, n: n == 1 and cut("within") or random(seed, n))
    command = lambda: run("all", "nano", tmp_path, resume=True, settings=TINY | {"train_steps": "2"})
    for _ in range(3 * len(SMALL)):
        with pytest.raises(PowerCut):
            command()
    command()
    assert cuts == [(step.name, moment) for step in SMALL for moment in ("within", "not written", "not noted")]
    assert all((whole / name).read_bytes() == (tmp_path / name).read_bytes() for name in FILES)


def test_a_recipe_that_is_done_is_not_run_again(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "nano", SMALL)
    out = shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        run("all", "nano", out, settings=TINY)
    monkeypatch.setattr(training, "run_step", None)
    assert run("all", "nano", out, resume=True, settings=TINY) == out


def test_a_budget_is_shared_out_as_the_recipe_says(tmp_path, monkeypatch):
    given = {}

    def taken(name, part, preset, out, resume, settings, start, data):
        given[name] = settings

    monkeypatch.setattr(training, "run_step", taken)
    run("all", "mini", tmp_path / "whole")
    assert {name: settings["train_steps"] for name, settings in given.items()} == {
        "autoencoder": 2000, "text": 2332, "unet": 9000,
    }  # fmt: skip
    run("all", "mini", tmp_path / "short", budget=224.0, settings={"clips": "64", "words": "all"})
    assert [settings["budget"] for settings in given.values()] == pytest.approx([31, 13, 180])
    assert [name for name, settings in given.items() if "words" in settings] == ["text"]
    assert given["unet"]["clips"] == "64", "what the caller says comes before the recipe"


@pytest.mark.parametrize("preset, settings, message", [
    ("modelscope-1.7b", {}, "a preset with a recipe, mini, .*nano, found 'modelscope-1.7b'"),
    ("nano", {"colour": "red"}, "unknown setting 'colour'; known are .*clips"),
    ("nano", {"lr": "fast"}, "expected float for lr"),
])  # fmt: skip
def test_what_a_recipe_cannot_be_is_refused(tmp_path, preset, settings, message):
    with pytest.raises(UserError, match=message):
        run("all", preset, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


def test_a_damaged_note_is_one_line(tmp_path):
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(UserError, match="recipe.json is damaged .*; delete it"):
        run("all", "nano", tmp_path, resume=True)


@dataclass(frozen=True)
class SumPreset(ModelScopePreset):
    """A preset of a system with a part more than ModelScopeT2V's: a layer that learns a sum."""

    system: str = "sums"
    width: int = 3


@dataclass(frozen=True)
class SumTraining:
    """Settings of the part."""

    noise: float = 0.0  # deviation of the targets


class SumTask(nn.Module):
    def __init__(self, preset, config, data, folder):
        super().__init__()
        self.layer, self.config, self.progress = nn.Linear(preset.width, 1), config, 0.0
        self.ema_modules = {"unet": self.layer}

    def draw(self, generator, n):
        return {"x": torch.randn(n, self.layer.in_features, generator=generator)}

    def forward(self, batch):
        return (self.layer(batch["x"]) - batch["x"].sum(1, keepdim=True)).square().mean(), {"noise": self.config.noise}

    def picture(self):
        return None


PART = Part(SumTask, SumTraining(), TrainConfig(train_steps=2), fields=("unet", "width"))


def test_a_new_part_is_one_object_and_one_row(tmp_path, monkeypatch):
    """`train PART` finds it by name, with its settings, its recipe and its way to go on."""
    row = System(SYSTEMS["modelscope"].networks, modelscope.ModelScopeT2V, {"sums": lambda: SumPreset("sums")}, {"sum": "test_recipes:PART"})
    monkeypatch.setitem(SYSTEMS, "sums", row)
    monkeypatch.setitem(RECIPES, "sums", [Step("sum", 1, {"noise": 0.5}), Step("sum", 1, after="sum", name="more")])
    run("sum", "sums", tmp_path / "one", settings={"lr": "1e-2", "width": "5"})
    assert read_preset(tmp_path / "one").width == 5
    assert '"noise": 0.5' in (tmp_path / "one" / "sum" / "log.jsonl").read_text()
    run("sum", "sums", tmp_path / "one", resume=True, settings={"lr": "1e-2", "width": "5", "train_steps": "3"})
    run("sum", "sums", tmp_path / "two", start=tmp_path / "one", settings={"lr": "1e-2"})
    run("all", "sums", tmp_path / "all")
    assert (tmp_path / "all" / "more" / "checkpoint.pt").is_file()
    with pytest.raises(UserError, match="part: expected one of sum for preset sums, found 'unet'"):
        run("unet", "sums", tmp_path / "three")


def test_old_names_of_parts_and_settings_are_read(tmp_path):
    few = {"steps": "1", "batch": "4", "clip": "0.5"}
    run("vqgan", "nano", tmp_path, settings=few)
    used = torch.load(tmp_path / "autoencoder" / "checkpoint.pt", weights_only=True)["settings"]
    assert used["grad_clip"] == 0.5 and used["train_steps"] == 1


def test_a_step_that_comes_after_another_takes_its_settings(monkeypatch):
    steps = [Step("unet", 1, {"lr": 1e-3, "batch": 8}), Step("unet", 1, {"lr": 5e-4}, after="unet", name="unet-again")]
    monkeypatch.setitem(RECIPES, "nano", steps)
    assert settings_of("nano", "unet-again") == {"lr": 5e-4, "batch": 8}
