"""What a breaker with fresh eyes found in the newer doors: recipes, adapters, longer and larger clips, cards. Each test
stands for the kind of a fault."""

import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_trainer import CONFIG, Regression
from torch import nn

from minit2v.checkpoints.card import card
from minit2v.checkpoints.folder import save_model, save_preset
from minit2v.checkpoints.hub import download
from minit2v.cli import main
from minit2v.errors import UserError, one_line
from minit2v.lab.door import listen
from minit2v.networks.lora import fresh
from minit2v.systems import build, find_preset, makeavideo, system_of
from minit2v.systems.nuwa import NuwaConfig
from minit2v.systems.settings import latent_shape
from minit2v.training import run as runs
from minit2v.training.adapter import train_adapter
from minit2v.training.distillation import distill
from minit2v.training.overrides import configure
from minit2v.training.parts import finish
from minit2v.training.text import TextTraining
from minit2v.training.trainer import TrainConfig, train
from minit2v.video import Clip

PIXELS = np.zeros((3, 16, 16, 3), np.uint8)
LONG = np.broadcast_to(np.zeros(3, np.uint8), (8, 1024, 1024, 3))


# --- settings

START = ("noise", "init", "window")


@pytest.mark.parametrize("name", ["nuwa", "cogvideo", "makeavideo"])
@pytest.mark.parametrize("setting", START)
def test_what_a_system_does_not_begin_with_is_one_line(name, setting):
    """Also where it is an array, of which == says nothing."""
    preset = find_preset(name)
    pipe = object.__new__(system_of(preset).pipeline)  # settings are checked without networks
    pipe.preset = preset
    _, usual = pipe.checked("a red circle", {})
    clip = np.zeros((usual.frames, usual.height, usual.width, 3), np.uint8)
    value = {"init": clip, "window": 2, "noise": torch.zeros(latent_shape(1, usual, preset))}[setting]
    with pytest.raises(UserError, match=f"{setting}: expected none with {name}"):
        pipe.checked("a red circle", {setting: value})


@pytest.mark.parametrize("setting", ["text.motion_words=up,down", "text.added_tokens=up"])
def test_a_list_that_is_empty_by_default_is_read(setting):
    name, _, text = setting.partition("=")
    _, _, preset = configure({name: text}, TextTraining(), TrainConfig(), find_preset("modelscope-1.7b"))
    assert getattr(preset.text, name.partition(".")[2]) == tuple(text.split(","))


def test_added_tokens_have_no_place_in_a_vocabulary_of_its_own():
    with pytest.raises(UserError, match="text.added_tokens: expected none beside text.words, found 1"):
        replace(find_preset("nano").text, words=("a", "red"), added_tokens=("up",))


def test_a_rank_that_no_layer_can_have_takes_no_memory():
    unet = build(find_preset("nano"))["unet"]
    with pytest.raises(UserError, match="rank: expected at most .*, that of the largest layer, found 1,048,576"):
        fresh(unet, 2**20)


def test_a_hub_that_breaks_off_is_one_line(monkeypatch):
    names = ("config.json", *(f"{part}.safetensors" for part in ("unet", "text", "autoencoder")))
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: json.loads('"text"')["sha"])
    with pytest.raises(UserError, match="could not download o/n from the Hugging Face hub .*try again"):
        download("o/n", half=False)


def test_a_distilled_model_takes_no_other_model_s_place(untrained_nano, tmp_path):
    save_model(tmp_path / "own", preset := find_preset("nano"), **build(preset))
    before = {path: path.read_bytes() for path in (tmp_path / "own").iterdir()}
    with pytest.raises(UserError, match="--out: expected a folder for the new model, found a model in"):
        distill(untrained_nano, tmp_path / "own")
    assert before == {path: path.read_bytes() for path in (tmp_path / "own").iterdir()}


# --- trainings


def test_a_training_outlives_a_picture_that_cannot_be_made(tmp_path):
    task = Regression()
    task.picture = lambda: (_ for _ in ()).throw(UserError("prompt: expected words, found '...'"))
    with pytest.warns(UserWarning, match="left out the picture"):
        train(task, tmp_path, CONFIG)


def test_a_training_that_diverges_is_one_line(tmp_path):
    with pytest.raises(UserError, match="start again in another --out with --set lr= below"):
        train(Regression(), tmp_path, replace(CONFIG, lr=1e30, train_steps=20))


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    networks = nn.ModuleDict({"good": nn.Linear(2, 2), "large": nn.Linear(2, 2)})
    nn.init.constant_(networks["large"].weight, 1e6)
    part = SimpleNamespace(finish=lambda task, averaged: ({name: net.half() for name, net in finish(task, averaged)[0].items()}, {}))
    with pytest.raises(UserError, match="large: expected finite numbers after the last step"):
        runs.export(part, find_preset("nano"), None, networks, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_recipe_believes_what_is_there(tmp_path):
    steps = runs.recipe_of("nano")
    note = json.dumps({"done": [step.name for step in steps]})
    (tmp_path / "recipe.json").write_text(note)
    assert runs._done(tmp_path, "nano", steps) == []
    save_model(tmp_path, preset := find_preset("nano"), **build(preset))
    assert runs._done(tmp_path, "nano", steps) == [step.name for step in steps]
    (tmp_path / "text.safetensors").unlink()
    assert "text" not in runs._done(tmp_path, "nano", steps)
    with pytest.raises(UserError, match="is a run of preset 'nano', not 'mini'"):
        runs._done(tmp_path, "mini", runs.recipe_of("mini"))


@pytest.mark.parametrize("part, preset, setting, message", [
    ("unet", "nano", "unet.norm_groups=7", "expected sizes of unet that go together"),
    ("unet", "nano", "unet.attention=true", "expected sizes of unet that go together"),
    ("autoencoder", "nano", "autoencoder.norm_groups=5", "expected sizes of autoencoder that go together"),
    ("transformer", "nuwa", "transformer.heads=7", "expected sizes of transformer that go together"),
    ("transformer", "nuwa", "transformer.extent=3", "extent: expected 3 values"),
    ("autoencoder", "nano", "crop=7", "crop: expected 0 or a multiple of"),
    ("text", "nano", "text.vision.patch=7", "text.vision.patch: expected a divisor of"),
])  # fmt: skip
def test_sizes_that_do_not_go_together_are_refused_before_anything_is_there(part, preset, setting, message, tmp_path):
    with pytest.raises(UserError, match=message):
        runs.run(part, preset, tmp_path / "out", settings=dict([setting.split("=")]))
    assert not (tmp_path / "out").exists()


def test_what_is_not_taken_over_is_said(tmp_path, untrained_nano, capsys, monkeypatch):
    monkeypatch.setattr(runs, "run_step", lambda name, *rest: None)
    runs.run("all", "modelscope", tmp_path / "out", start=untrained_nano)
    assert f"autoencoder: {untrained_nano} has none that fits; trained here" in capsys.readouterr().out


def test_a_model_that_jumps_gets_no_adapter(tmp_path):
    with pytest.raises(UserError, match="expected a model of many steps, found mini-fast"):
        train_adapter("mini-fast", tmp_path)


# --- clips that are changed


@pytest.mark.parametrize("call, found", [
    (lambda pipe: pipe.continued(PIXELS.astype("f4"), 1), "pixels: expected uint8"),
    (lambda pipe: pipe.continued(Clip(PIXELS, 8), 1), "pixels: expected uint8"),
    (lambda pipe: pipe.continued(PIXELS, 0), "n: expected a whole number"),
    (lambda pipe: pipe.continued(PIXELS, 1.5), "n: expected a whole number"),
    (lambda pipe: pipe.interpolated(PIXELS, 1, seed=-1), "seed: expected a whole number"),
    (lambda pipe: pipe.enlarged(PIXELS[None]), "pixels: expected uint8"),
    (lambda pipe: pipe.enlarged(np.zeros((1, 2048, 16, 3), np.uint8)), "at most 1024 pixels a side"),
    (lambda pipe: pipe.interpolated(PIXELS, 0), "between: expected 1, 3 or 4 new frames, found 0"),
    (lambda pipe: pipe.interpolated(LONG, 4), "at most 33,554,432 pixels .* 8 frames of 1024x1024, which become 36"),
    (lambda pipe: pipe.continued(LONG, 25), "8 frames of 1024x1024, which become 33; cut the clip"),
    (lambda pipe: pipe.continued(PIXELS, 257), "n: expected a whole number from 1 to 256"),
])  # fmt: skip
def test_a_clip_to_change_is_one_or_one_line(small_makeavideo, call, found):
    with pytest.raises(UserError, match=found):
        call(small_makeavideo)


def test_a_model_of_few_frames_extends_none(small_makeavideo):
    pipe = type(small_makeavideo)(replace(small_makeavideo.preset, frames=4), **small_makeavideo.networks)
    with pytest.raises(UserError, match="expected a model of 6 frames or more, found makeavideo, of 4"):
        pipe.interpolated(PIXELS, 4)


@pytest.mark.parametrize("arguments, found", [
    (["extend", "--between", "2"], "between: expected 1, 3 or 4 new frames, found 2"),
    (["extend", "--between", "0"], "between: expected 1, 3 or 4 new frames, found 0"),
    (["extend", "--between", "-1"], "between: expected 1, 3 or 4 new frames, found -1"),
    (["extend", "--after", "257"], "--after: expected 1 to 256 new frames, found 257"),
    (["extend", "--after", "3"], "multiples of 4 pixels"),
    (["extend", "--after", "3", "--model", "nuwa"], "after: expected a clip of 64x64 pixels, found 10x10"),
    (["upscale", "--model", "mini"], "--model: expected a model of makeavideo"),
    (["extend", "--between", "1", "--model", "nuwa"], "--model: expected a model of makeavideo"),
])  # fmt: skip
def test_what_no_clip_can_become_is_told_before_a_model_is_loaded(arguments, found, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minit2v.load", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.chdir(tmp_path)
    Clip(np.zeros((3, 10, 10, 3), np.uint8), 8).save("clip.gif")
    assert main([arguments[0], "clip.gif", *arguments[1:], "--out", "no.gif"]) == 2
    assert found in capsys.readouterr().err and not (tmp_path / "no.gif").exists()


def test_large_frames_go_through_a_network_a_few_at_a_time(small_makeavideo, monkeypatch):
    """Which bounds the memory; as many as a clip of training has go together where they fit."""
    pipe, sizes = small_makeavideo, []
    stage = type(pipe).stage

    def counted(self, network, condition, *rest):
        sizes.append(condition.shape[2])
        return stage(self, network, condition, *rest)

    monkeypatch.setattr(type(pipe), "stage", counted)
    small = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    calls = {"enlarged": (pipe.enlarged, ()), "interpolated": (pipe.interpolated, (1,)), "continued": (pipe.continued, (4,))}
    for most, expected in ((2**20, ([16], [15, 15, 3, 16, 15], [12, 4])), (2 * 16 * 16, ([2] * 8, [7] * 5, [8, 4]))):
        monkeypatch.setattr(makeavideo, "AT_ONCE", most)
        for (name, (call, more)), wanted in zip(calls.items(), expected):
            sizes.clear()
            assert call(small, *more).dtype == np.uint8
            assert sizes[: len(wanted)] == wanted, (name, sizes)


def test_only_the_last_step_of_a_stage_stays_in_memory():
    seen = []

    def steps():
        for _ in range(4):
            assert sum(step() is not None for step in seen) < 3  # that before and the one that is passed on
            step = torch.zeros(1)
            seen.append(weakref.ref(step))
            yield step

    assert makeavideo.last_of(steps()) is seen[-1]()


@pytest.mark.parametrize("extent", [(3_999_999_999, 3, 3), (3, 3), 3])
def test_a_window_has_three_sides_that_memory_can_hold(extent):
    with pytest.raises(UserError, match="extent: expected"):
        NuwaConfig(extent=extent)


# --- cards, names, terminals


def test_a_card_is_no_link_out_of_its_folder(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "README.md").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match="leads out of its folder"):
        card(folder, "a/b", "mit")


def test_a_front_matter_of_wrong_kinds_is_one_line(tmp_path):
    save_preset(tmp_path, find_preset("nano"))
    (tmp_path / "README.md").write_text("---\nlicense: mit\neval_results: 7\n---\n# x\n")
    with pytest.raises(UserError, match="expected a front matter of YAML"):
        card(tmp_path, "a/b")


@pytest.mark.parametrize("arguments", [
    ["sample", "a red circle", "--lora", "LONG"], ["sample", "--prompts", "LONG"], ["train", "unet", "--out", "LONG"],
    ["weights", "convert", "mini", "LONG", "--to", "minit2v"], ["push", "LONG", "a/b", "--license", "mit"],
])  # fmt: skip
def test_a_name_that_no_file_can_have_is_one_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([argument.replace("LONG", "x" * 300) for argument in arguments]) == 2
    assert not list(tmp_path.iterdir())


def test_a_name_that_no_host_can_have_is_one_line():
    with pytest.raises(UserError, match="serve: expected an address"):
        listen("a" * 64 + ".com", 0)


def test_a_strangers_names_do_nothing_to_a_terminal(tmp_path, capsys):
    save_file({"\x1b]0;pwned\x07\x1b[2J": torch.zeros(2), "x" * 100_000: torch.zeros(2)}, tmp_path / "esc.safetensors")
    assert main(["sample", "a red circle", "--model", "mini", "--lora", str(tmp_path / "esc.safetensors")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(c.isprintable() for c in said.strip()) and len(said) < 1200
    assert one_line("a\n b\x1b") == "a b?" and one_line("é → 的") == "é → 的"
