"""Adapters: the same arithmetic as PEFT's, files of other programs, hostile ones, and a training that changes nothing else."""

import copy
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released import TINY, modelscope_unet_name, redrawn
from safetensors.torch import load_file, save_file
from torch import nn

import minit2v
from minit2v.checkpoints.adapters import in_order, read_adapter, save_adapter
from minit2v.checkpoints.folder import read_preset, save_module
from minit2v.checkpoints.load import load_unet
from minit2v.checkpoints.names import names_of
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.networks import lora
from minit2v.networks.unet import UNet
from minit2v.training import trainer
from minit2v.training.adapter import train_adapter
from minit2v.training.unet import UNetTask
from minit2v.video import Clip

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
CALL = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), torch.tensor([7, 600])
CONTEXT = torch.randn(2, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def ours(diffusers_folder):
    return load_unet(diffusers_folder, torch.float64)


def layers_of(unet) -> dict[str, nn.Module]:
    return {name: layer for name, layer in unet.named_modules() if isinstance(layer, (nn.Linear, *CONVOLUTIONS))}


def output(unet) -> torch.Tensor:
    with torch.no_grad():
        found = unet(*CALL, CONTEXT)
    return found if isinstance(found, torch.Tensor) else found.sample


def matrices(shape, rank=3, seed=0):
    """A and B as PEFT and kohya shape them."""
    draw = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, *shape[1:], generator=draw) / math.prod(shape[1:]) ** 0.5
    return A, torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=draw)


def changed(theirs, scale=1.0, only=lambda name: True) -> torch.Tensor:
    """The output of diffusers' network with B A of `matrices` added to every layer, by the definition."""
    unet = copy.deepcopy(theirs.unet).double()
    for i, (name, layer) in enumerate(layers_of(unet).items()):
        A, B = (matrix.double() for matrix in matrices(layer.weight.shape, seed=i))
        if only(name):
            layer.weight.data += scale * (B.flatten(1) @ A.flatten(1)).view(layer.weight.shape)
    return output(unet)


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", [
    {}, {"use_rslora": True}, {"alpha_pattern": {"conv_in": 9, "attn1.to_q": 1}}, {"rank_pattern": {"proj_in": 5}},
])  # fmt: skip
def test_peft_and_this_library_open_each_others_adapters(theirs, ours, tmp_path, settings):
    """On all layers, convolutions along time too, in float64."""
    peft = pytest.importorskip("peft")
    names = list(layers_of(theirs.unet))
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=names, init_lora_weights=False, **settings)
    unet = peft.get_peft_model(copy.deepcopy(theirs.unet).double(), config).eval()
    unet.save_pretrained(tmp_path / "theirs")
    base, expected = output(ours), output(unet)
    adapter = read_adapter(tmp_path / "theirs", ours)
    lora.attach(ours, adapter)
    assert not close(base, expected) and close(output(ours), expected)
    lora.detach(ours)
    assert torch.equal(output(ours), base)
    if settings:
        return
    save_adapter(tmp_path / "ours", adapter, ours, "tiny")
    again = peft.PeftModel.from_pretrained(copy.deepcopy(theirs.unet).double(), tmp_path / "ours").eval()
    assert close(output(again), expected)
    before, after = (load_file(tmp_path / place / "adapter_model.safetensors") for place in ("theirs", "ours"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def diffusers_file(theirs, tmp_path, form):
    """The same matrices as one program or another names them; returns the file."""
    down, up, prefix = {
        "diffusers": (".lora_A.weight", ".lora_B.weight", "unet."),
        "diffusers before PEFT": (".lora.down.weight", ".lora.up.weight", "unet."),
        "no prefix": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", ""),
        "kohya": (".lora_down.weight", ".lora_up.weight", "lora_unet_"),
        "kohya, of the original": (".lora_down.weight", ".lora_up.weight", "lora_unet_"),
    }[form]
    tensors = {}
    for i, (name, layer) in enumerate(layers_of(theirs.unet).items()):
        A, B = matrices(layer.weight.shape, seed=i)
        if form == "kohya, of the original":
            name = modelscope_unet_name(f"{name}.weight").removesuffix(".weight")
        if form.startswith("kohya"):
            name = name.replace(".", "_")
            tensors[f"{prefix}{name}.alpha"] = torch.tensor(6.0)
        tensors |= {f"{prefix}{name}{down}": A, f"{prefix}{name}{up}": B}
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "lora.safetensors")
    return tmp_path / "lora.safetensors"


@pytest.mark.parametrize("form", ["diffusers", "diffusers before PEFT", "no prefix", "kohya", "kohya, of the original"])
def test_files_with_names_are_read(theirs, ours, tmp_path, form):
    """Every layer, and alpha / rank where the file says it: 6 / 3."""
    lora.attach(ours, read_adapter(diffusers_file(theirs, tmp_path, form), ours))
    assert close(output(ours), changed(theirs, 2.0 if form.startswith("kohya") else 1.0))


def test_the_first_names_of_diffusers_are_read(theirs, ours, tmp_path):
    """Attention only: attn1.processor.to_q_lora.down.weight, and to_out for to_out.0. The header may tell alpha."""
    tensors, attention = {}, lambda name: "attn" in name
    for i, (name, layer) in enumerate(layers_of(theirs.unet).items()):
        if attention(name):
            place, _, leaf = name.removesuffix(".0").rpartition(".")
            A, B = matrices(layer.weight.shape, seed=i)
            tensors |= {f"{place}.processor.{leaf}_lora.down.weight": A, f"{place}.processor.{leaf}_lora.up.weight": B}
    header = {"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 12})}
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors", header)
    lora.attach(ours, read_adapter(tmp_path, ours))
    assert close(output(ours), changed(theirs, 4.0, attention))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_cloneofsimos_files_are_read_in_the_order_of_diffusers(theirs, ours, tmp_path, suffix, old):
    """A list of up and down without names. Before its version 0.17 diffusers listed ff before attn2."""
    names = list(layers_of(theirs.unet))
    assert [name.removesuffix(".weight") for name in diffusers_names(ours)] == names
    seeds = {name: i for i, name in enumerate(names)}
    if old:
        key = lambda name: (name.split(".attn2.")[0].split(".ff.")[0], ".attn2." in name)
        blocks = {}
        for name in names:
            blocks.setdefault(key(name)[0] if ".ff." in name or ".attn2." in name else name, []).append(name)
        names = [name for block in blocks.values() for name in sorted(block, key=lambda name: ".attn2." in name)]
    pairs = [matrices(layers_of(theirs.unet)[name].weight.shape, seed=seeds[name])[::-1] for name in names]
    path = tmp_path / f"lora{suffix}"
    if suffix == ".pt":
        torch.save([matrix for pair in pairs for matrix in pair], path)
    else:
        named = {f"unet:{i}:{kind}": matrix for i, pair in enumerate(pairs) for kind, matrix in zip(("up", "down"), pair)}
        save_file(named, path, {"unet": '["UNet3DConditionModel"]'})
    lora.attach(ours, read_adapter(path, ours))
    assert close(output(ours), changed(theirs))


def diffusers_names(unet) -> list[str]:
    return [names_of("unet", f"{name}.weight", unet.config, "diffusers")[0] for name in in_order(unet)]


def test_stable_loras_convolutions_are_read(theirs, ours, tmp_path):
    """Their matrices are (r k, in k) and (out k, r k); the product of a convolution along time is averaged over k."""
    expected, tensors = copy.deepcopy(theirs.unet).double(), {}
    for i, (name, layer) in enumerate(layers_of(expected).items()):
        weight, draw = layer.weight, torch.Generator().manual_seed(i)
        k = weight.shape[2] if weight.ndim > 2 else 1
        A, B = (torch.randn(shape, generator=draw) / 8 for shape in ((2 * k, weight.shape[1] * k), (len(weight) * k, 2 * k)))
        tensors |= {f"{name}.lora_A": A, f"{name}.lora_B": B}
        product = B.double() @ A.double()
        if weight.ndim == 5:
            product = product.view(*weight.shape[:3], k, 1).mean(dim=-2, keepdim=True)
        weight.data += product.view(weight.shape)
    save_file(tensors, tmp_path / "lora.safetensors", {"stable_lora_text_to_video": "v1"})
    lora.attach(ours, read_adapter(tmp_path / "lora.safetensors", ours))
    assert close(output(ours), output(expected))


PLACE = "unet.conv_in"
GOOD = {f"{PLACE}.lora_A.weight": torch.ones(2, 4, 3, 3), f"{PLACE}.lora_B.weight": torch.ones(16, 2, 1, 1)}
HOSTILE = {
    "found no lora|found no up": {f"{PLACE}.lora_A.weight": torch.ones(2, 4, 3, 3)},
    "conv_in: expected matrices for a weight": GOOD | {f"{PLACE}.lora_A.weight": torch.ones(2, 4, 3, 1)},
    "expected matrices for a weight .*, found .3, 4, 3, 3. and": GOOD | {f"{PLACE}.lora_A.weight": torch.ones(3, 4, 3, 3)},
    "no finite numbers": GOOD | {f"{PLACE}.lora_B.weight": torch.full((16, 2, 1, 1), math.inf)},
    "expected a number as alpha": GOOD | {f"{PLACE}.alpha": torch.ones(2)},
    "expected layers of this UNet, found unet.nowhere": {name.replace("conv_in", "nowhere"): v.clone() for name, v in GOOD.items()},
    "found conv_in twice": GOOD | {name.replace("unet.", ""): v.clone() for name, v in GOOD.items()},
    "found DoRA": GOOD | {f"{PLACE}.lora_magnitude_vector": torch.ones(16)},
    "found LoHa": {"lora_unet_conv_in.hada_w1_a": torch.ones(2, 2)},
    "found a change of biases": GOOD | {f"{PLACE}.lora_B.bias": torch.ones(16)},
    "for the text tower": GOOD | {"text_encoder.encoder.layers.0.mlp.fc1.lora_A.weight": torch.ones(2, 2)},
    "found lora_te_text": GOOD | {"lora_te_text_mlp_fc1.lora_down.weight": torch.ones(2, 2)},
    "is it another file": {"conv_in.weight": torch.ones(2)},
    "numbers its layers .* found 1 of other layers": {"unet:0:up": torch.ones(2, 2), "unet:0:down": torch.ones(2, 2)},
}  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE)
def test_what_cannot_be_added_is_refused_in_a_line(ours, tmp_path, message):
    save_file(HOSTILE[message], tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=message) as caught:
        read_adapter(tmp_path / "lora.safetensors", ours)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change, message", [
    ({"peft_type": "LOHA"}, "peft_type: expected 'LORA'"), ({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias"),
    ({"modules_to_save": ["conv_out"]}, "modules_to_save"), ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"lora_alpha": "many"}, "lora_alpha: expected a number from .*, found 'many'"), ({"lora_alpha": math.nan}, "found nan"),
    ({"alpha_pattern": {"(a+)+": 1}}, "expected names of layers, found '[(]a"), ({"lora_alpha": 10**400}, "found 1000"),
    ({"alpha_pattern": "conv_in"}, "expected numbers by name, found 'conv_in'"), ({"lora_alpha": True}, "found True"),
    ({"alpha_pattern": {"elsewhere": "many"}}, "alpha_pattern: elsewhere: expected a number from .*, found 'many'"),
    ({"r": 4}, "conv_in: expected matrices of rank 4, as its settings say, found 2; get both files again"),
    ({"rank_pattern": {"conv_in": 3}}, "conv_in: expected matrices of rank 3"),
    ({"r": 4, "rank_pattern": {"^in": 2, "^conv": 2}}, "conv_in: expected matrices of rank 4"),
    *(({"r": value}, "r: expected a whole number from 1 to") for value in (-1, 0, "x", None, 2.5, True)),
    ({"rank_pattern": {"conv_in": "x"}}, "rank_pattern: conv_in: expected a whole number from 1"),
    ({"rank_pattern": "x"}, "rank_pattern: expected numbers by name, found 'x'"),
    *(({"use_rslora": value}, "use_rslora: expected true or false") for value in ("false", [], 2)),
])  # fmt: skip
def test_settings_that_would_be_ignored_are_refused(ours, tmp_path, change, message):
    save_file(GOOD, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2} | change))
    with pytest.raises(UserError, match=message):
        read_adapter(tmp_path, ours)


def test_settings_for_some_layers_come_before_those_for_all(ours, tmp_path):
    save_file(GOOD, tmp_path / "adapter_model.safetensors")
    of_layers = {"rank_pattern": {"^conv_in$": 2}, "alpha_pattern": {"conv_in": 3, "in": 8}}
    for said in ({"r": 4, "lora_alpha": 9} | of_layers, {"lora_alpha": 3}):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | said))
        ((_, part),) = read_adapter(tmp_path, ours).items()
        assert part.scale == 3 / 2


def test_settings_that_are_no_file_are_not_passed_over(ours, tmp_path):
    save_file(GOOD, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").mkdir()
    with pytest.raises(UserError, match="adapter_config.json: expected a file of settings"):
        read_adapter(tmp_path, ours)


@pytest.mark.parametrize("strength", ["x", None, True, 10**400, math.nan, math.inf, 101, [1]])
def test_a_strength_is_a_number(strength):
    with pytest.raises(UserError, match="lora: expected a number from -100 to 100 as the strength of ring, found"):
        minit2v.load("mini", lora={"ring": strength})
    with pytest.raises(UserError, match="lora: expected the name of an adapter, found 5"):
        minit2v.load("mini", lora={5: 1.0})


def test_a_folder_without_an_adapter_is_named(ours, tmp_path):
    for place, found in ((tmp_path, "a folder without one"), (tmp_path / "none", "no folder or file")):
        with pytest.raises(UserError, match=f"{place.name}: expected an adapter, .*found {found}"):
            read_adapter(place, ours)


def random_adapter(unet, seed, layers=lora.KINDS):
    torch.manual_seed(seed)
    adapter = lora.fresh(unet, 3, 6, layers)
    for _, part in adapter.items():
        nn.init.normal_(part.B, std=0.1)
    return adapter


@pytest.mark.parametrize("dtype, error", [(torch.float64, 1e-15), (torch.float32, 1e-6), (torch.float16, 2e-3)])
def test_several_are_merged_and_taken_off_again(dtype, error):
    """Merged they are what they are attached; taken off, every weight is within a rounding of what it was."""
    unet = redrawn(UNet(TINY.unet)).to(dtype)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    one, two = (random_adapter(unet.float() if dtype == torch.float16 else unet, seed) for seed in (1, 2))
    unet.to(dtype)
    lora.attach(unet, one, 0.8)
    lora.attach(unet, two, -0.5)
    attached = {name: layer.weight.detach().clone() for name, layer in lora.layers_of(unet).items()}
    lora.detach(unet)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    lora.merge(unet, one, 0.8)
    lora.merge(unet, two, -0.5)
    for name, layer in lora.layers_of(unet).items():
        assert torch.allclose(layer.weight, attached[name], rtol=4 * error, atol=4 * error)
        assert not torch.equal(layer.weight, before[f"{name}.weight"])
    lora.unmerge(unet, two, -0.5)
    lora.unmerge(unet, one, 0.8)
    for name, value in unet.state_dict().items():
        assert (value - before[name]).abs().max() <= error * max(1, before[name].abs().max())


def test_strength_0_is_the_model_itself():
    unet = redrawn(UNet(TINY.unet)).double()
    before = output(unet)
    adapter = random_adapter(unet, 1)
    lora.merge(unet, adapter, 0)
    assert torch.equal(output(unet), before)
    lora.attach(unet, adapter, 0)
    assert torch.equal(output(unet), before)


def test_computed_weights_are_neither_merged_nor_written(tmp_path):
    unet = UNet(TINY.unet)
    adapter = random_adapter(unet, 1)
    lora.attach(unet, adapter)
    with pytest.raises(UserError, match="merge: expected a network without attached adapters"):
        lora.merge(unet, adapter)
    with pytest.raises(UserError, match="unet.safetensors: expected weights to write, found adapters attached"):
        save_module(unet, tmp_path / "unet.safetensors")
    lora.detach(unet)
    save_module(unet, tmp_path / "unet.safetensors")
    next(iter(adapter.parts)).scale = 3.0
    with pytest.raises(UserError, match="expected an adapter of one rank and scale, found 2"):
        save_adapter(tmp_path, adapter, unet, "tiny")


def test_layers_are_chosen_by_kind_and_by_the_end_of_their_names():
    unet = UNet(TINY.unet)
    count = lambda *layers: len(lora.chosen(unet, layers))
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in unet.modules())
    linear = sum(isinstance(layer, nn.Linear) for layer in unet.modules())
    temporal = 4 * sum(type(layer).__name__ == "TemporalConv" for layer in unet.modules())
    assert (count("linear"), count("temporal"), count("spatial")) == (linear, temporal, convolutions - temporal)
    assert len(lora.chosen(unet)) == linear + temporal
    assert set(lora.chosen(unet, ["attn2.to_k"])) == {name for name in lora.layers_of(unet) if name.endswith("attn2.to_k")}
    with pytest.raises(UserError, match="layers: expected linear, temporal, spatial or the end .*to_k.*found 'o_k'"):
        lora.chosen(unet, ["linear", "o_k"])


def test_departures_have_their_place_in_the_file_too(tmp_path):
    """Layers that diffusers does not have keep their own names."""
    departures = {name: True for name in ("frame_positions", "text_in_embedding", "scene_prior", "scale_shift")}
    unet = redrawn(UNet(replace(TINY.unet, **departures))).double()
    adapter = random_adapter(unet, 1)
    save_adapter(tmp_path, adapter, unet, "tiny")
    again = dict(read_adapter(tmp_path, unet).items())
    assert again.keys() == dict(adapter.items()).keys() and "layout.hidden" in again
    assert all(torch.equal(part.A, again[name].A) and part.scale == again[name].scale for name, part in adapter.items())


SMALL = {"batch": "2", "clips": "4", "images": "8", "bfloat16": "false"}


@pytest.fixture(scope="module")
def nano(untrained_nano, tmp_path_factory):
    """A nano model with random weights everywhere: an untrained UNet answers zero, and nothing has a gradient."""
    folder = Path(shutil.copytree(untrained_nano, tmp_path_factory.mktemp("random") / "nano"))
    save_module(redrawn(UNet(read_preset(folder).unet)), folder / "unet.safetensors")
    return folder


@pytest.fixture(scope="module")
def few_steps(nano, tmp_path_factory):
    """An adapter of rank 2, trained for four steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UNetTask, "picture", lambda self: None)
        yield train_adapter(nano, tmp_path_factory.mktemp("four"), settings=SMALL | {"rank": "2", "train_steps": "4"})


def test_a_training_changes_the_adapter_alone(nano, few_steps):
    """Its files are small; with strength 0 the model is the one before, with 1 another."""
    state = load_file(few_steps / "adapter_model.safetensors")
    kept = torch.load(few_steps / "unet/checkpoint.pt", weights_only=True)["task"]
    unet = minit2v.load(nano, device="cpu").unet
    layers = lora.chosen(unet)
    assert len(state) == 2 * len(layers) == len(kept) and all(value.any() for name, value in state.items() if "lora_A" in name)
    assert sum(value.any().item() for name, value in state.items() if "lora_B" in name) > 0
    size = lambda *paths: sum(path.stat().st_size for path in paths)
    assert size(few_steps / "adapter_model.safetensors") < size(nano / "unet.safetensors") / 5
    adapted, none = (minit2v.load(nano, device="cpu", lora={few_steps: strength}).unet for strength in (1, 0))
    for name, value in unet.state_dict().items():
        assert torch.equal(none.state_dict()[name], value)
        changed = name.removesuffix(".weight") in layers and state_of(state, name, unet).any()
        assert torch.equal(adapted.state_dict()[name], value) != changed


def state_of(state, name, unet) -> torch.Tensor:
    theirs = names_of("unet", name, unet.config, "diffusers")[0].removesuffix(".weight")
    return state[f"base_model.model.{theirs}.lora_B.weight"]


def test_an_adapter_of_a_model_in_released_layout_is_trained_and_used(diffusers_folder, tmp_path, monkeypatch):
    """The released size at a tiny one: 77 tokens, the whole vocabulary, no departure of mini."""
    monkeypatch.setattr(UNetTask, "picture", lambda self: None)
    made = train_adapter(diffusers_folder, tmp_path / "own", settings=SMALL | {"rank": "2", "train_steps": "2"})
    clip = lambda **options: minit2v.load(diffusers_folder, device="cpu", **options)("a panda", steps=2, frames=2).pixels
    plain = clip()
    assert (clip(lora={made: 0.0}) == plain).all() and (clip(lora={made: 50.0}) != plain).any()


def test_a_killed_training_of_an_adapter_goes_on_to_the_same_bits(nano, few_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(UNetTask, "picture", lambda self: None)
    train = lambda **more: train_adapter(nano, tmp_path, **more)
    settings = SMALL | {"rank": "2", "train_steps": "4", "save_every": "0"}
    draw = trainer.step_generator

    def power_cut_at_step_2(seed, step):
        if step == 2:
            raise RuntimeError("power cut")
        return draw(seed, step)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
        patched.setattr(trainer, "step_generator", power_cut_at_step_2)
        train(settings=settings)
    for other in ({"rank": "3"}, {"layers": "to_q"}):
        with pytest.raises(UserError, match=f"other settings .{next(iter(other))}"):
            train(settings=settings | other, resume=True)
    train(settings=settings, resume=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / name).read_bytes() == (few_steps / name).read_bytes()


def test_the_command_line_trains_and_uses_an_adapter(nano, few_steps, tmp_path, capsys):
    run = lambda *args: main([str(arg) for arg in args])
    sample = ("sample", "a red circle moves left", "--model", nano, "--steps", 2, "--device", "cpu")
    ways = {"none": (), "two": ("--lora", f"{few_steps}:0.5", "--lora", f"{few_steps}:0.5"), "one": ("--lora", few_steps),
            "off": ("--lora", f"{few_steps}:0.5", "--lora", f"{few_steps}:-0.5")}  # fmt: skip
    for way, options in ways.items():
        assert run(*sample, "--out", tmp_path / f"{way}.webp", *options) == 0
    clips = {way: Clip.load(tmp_path / f"{way}.webp").pixels for way in ways}
    assert (clips["two"] == clips["one"]).all() and (clips["off"] == clips["none"]).all()
    assert (clips["one"] != clips["none"]).any()
    assert run("weights", "convert", nano, tmp_path / "merged", "--to", "minit2v", "--lora", few_steps) == 0
    merged, adapted = (minit2v.load(*place, device="cpu", lora=lora).unet.state_dict()
                       for place, lora in (((tmp_path / "merged",), None), ((nano,), few_steps)))  # fmt: skip
    assert all(torch.equal(value, merged[name]) for name, value in adapted.items())
    capsys.readouterr()
    for args, message in (
        ((*sample, "--lora", tmp_path / "none"), "expected an adapter, .*found no folder or file"),
        ((*sample, "--lora", f"{few_steps}:1000"), "expected a strength from -100 to 100"),
        ((*sample, "--revision", "main"), "revision: expected with a model of the hub"),
        (("train", "unet", "--lora", 8), "--lora: expected train unet and --from MODEL, found train unet and no --from"),
        (("train", "text", "--from", "mini", "--lora", 8), "found train text and mini"),
        (("train", "unet", "--from", nano, "--lora", 8, "--preset", "nano"), "--preset: expected without --lora"),
        (("train", "unet", "--from", nano, "--lora", 8, "--out", nano), "found a model in"),
        (("train", "unet", "--from", nano, "--lora", 8, "--out", tmp_path / "new", "--set", "layers=o_k"),
         "layers: expected linear, temporal, spatial"),
    ):  # fmt: skip
        assert run(*args) == 2
        assert re.search(message, capsys.readouterr().err), args
