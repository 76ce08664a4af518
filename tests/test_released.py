"""Released weights: every layout loads, equals the public implementations, goes back bit for bit, and nothing runs."""

import hashlib
import json
import os
import pickle
import re
import shlex
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import minit2v
from minit2v import presets
from minit2v.checkpoints import export, layouts, reading
from minit2v.checkpoints.hub import needed
from minit2v.checkpoints.load import load_autoencoder, load_network, load_text, load_unet
from minit2v.checkpoints.names import names
from minit2v.cli import main
from minit2v.errors import UserError
from minit2v.networks.registry import NETWORKS
from minit2v.networks.text import TextEncoder
from minit2v.presets import AutoencoderConfig, ModelScopePreset, TextConfig, UNetConfig

TINY = ModelScopePreset(
    name="tiny",
    unet=UNetConfig(channels=(16, 32), attention=(True, False), layers_per_level=2, head_dim=8, first_temporal_heads=8,
                    context_dim=32, norm_groups=8),
    autoencoder=AutoencoderConfig(channels=8, multipliers=(1, 2), layers_per_level=2, norm_groups=8),
    text=TextConfig(context_length=77, width=32, heads=4, layers=2, skip_last=0, embed_dim=32),
    height=16, width=16,
)  # fmt: skip


def redrawn(module: torch.nn.Module) -> torch.nn.Module:
    """All parameters random: the usual start has many zeros, which would hide whole branches."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.5 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.3)
    return module.eval()


@pytest.fixture(scope="session")
def theirs(tmp_path_factory):
    """diffusers' own pipeline with random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    bpe = TextEncoder(TINY.text).tokens.bpe
    for name, content in export.tokenizer_json(bpe, 77).items():
        (folder / Path(name).name).write_text(json.dumps(content))
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.get)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    unet = UNet3DConditionModel(
        block_out_channels=(16, 32), layers_per_block=2, cross_attention_dim=32, attention_head_dim=8,
        norm_num_groups=8, sample_size=8, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=2, latent_channels=4, norm_num_groups=8, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.18215,
    )  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, hidden_act="gelu", eos_token_id=49407, bos_token_id=49406, pad_token_id=0,
    ))  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    parts = {"unet": unet, "vae": vae, "text_encoder": text}
    pipe = TextToVideoSDPipeline(tokenizer=CLIPTokenizer.from_pretrained(folder), scheduler=scheduler,
                                 **{name: redrawn(part) for name, part in parts.items()})  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def diffusers_folder(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusers")
    theirs.save_pretrained(folder)
    return folder


def modelscope_unet_name(name: str) -> str:
    """diffusers' name -> ModelScope's, for levels of two blocks of which the first alone has attention."""
    for ours, target in (
        (r"^time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}"),
        (r"^conv_in", "input_blocks.0.0"), (r"^transformer_in", "input_blocks.0.1"),
        (r"^conv_norm_out", "out.0"), (r"^conv_out", "out.2"),
        (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.op"),
        (r"^down_blocks\.(\d)\.(\w+)\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[3]) + 1}.{PART[m[2]]}"),
        (r"^mid_block\.(attentions|temp_attentions)\.0", lambda m: f"middle_block.{PART[m[1]]}"),
        (r"^mid_block\.(resnets|temp_convs)\.(\d)", lambda m: f"middle_block.{3 * int(m[2])}{PART[m[1]][1:]}"),
        (r"^up_blocks\.0\.upsamplers\.0\.conv", "output_blocks.2.1.conv"),  # a level without attention
        (r"^up_blocks\.(\d)\.(\w+)\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[3])}.{PART[m[2]]}"),
    ):  # fmt: skip
        name = re.sub(ours, target, name)
    if "transformer_blocks" not in name and "temopral" not in name:
        for theirs_, original in INSIDE.items():
            name = re.sub(rf"\.{theirs_}\.(?=\w+$)", f".{original}.", name)
    return name


PART = {"resnets": "0", "temp_convs": "0.temopral_conv", "attentions": "1", "temp_attentions": "2"}
INSIDE = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip


def modelscope_vae_name(name: str) -> str:
    """diffusers' name -> Stable Diffusion's, for two levels."""
    for ours, target in (
        (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{1 - int(m[1])}.block"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0", "mid.attn_1"), ("group_norm", "norm"), ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"), (r"to_out\.0", "proj_out"), (r"to_([qkv])", r"\1"),
    ):  # fmt: skip
        name = re.sub(ours, target, name)
    return name


def open_clip_state(state: dict) -> dict:
    """transformers' text tower -> the text part of open_clip's file, with one block more and the things around it."""
    state, result = {layouts.bare(name): value for name, value in state.items()}, OrderedDict()
    for i in range(2):
        for kind in ("weight", "bias"):
            layer, block = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
            thirds = [state[f"{layer}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            result[f"{block}attn.in_proj_{kind}"] = torch.cat(thirds)
            for a, b in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                         ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):  # fmt: skip
                result[f"{block}{a}.{kind}"] = state[f"{layer}{b}.{kind}"]
    for kind in ("weight", "bias"):
        result[f"ln_final.{kind}"] = state[f"final_layer_norm.{kind}"]
    result |= {name.replace(".1.", ".2."): value * 0 for name, value in result.items() if "resblocks.1." in name}
    result["token_embedding.weight"] = state["embeddings.token_embedding.weight"]
    result["positional_embedding"] = state["embeddings.position_embedding.weight"]
    result |= {"logit_scale": torch.tensor(1.0), "text_projection": torch.zeros(32, 32)}
    return result | {"visual.conv1.weight": torch.zeros(4, 3, 2, 2)}


class Callback:
    """What a training program leaves in its checkpoint: a class that is not there when the file is read."""


@pytest.fixture(scope="session")
def modelscope_folder(theirs, tmp_path_factory):
    """The same weights as files of ModelScope's layout, by rules of this test's own."""
    folder = tmp_path_factory.mktemp("modelscope")
    temporal = re.compile(r"(input_blocks\.0\.1|\.2)\.proj_(in|out)\.weight$")  # Conv1d there
    unet = OrderedDict()
    for name, value in theirs.unet.state_dict().items():
        name = modelscope_unet_name(name)
        unet[name] = value[..., None] if temporal.search(name) else value
    torch.save(unet, folder / "text2video_pytorch_model.pth")
    vae = {"model.diffusion_model.out.2.bias": torch.zeros(4), "model_ema.decay": torch.zeros(1)}
    for name, value in theirs.vae.state_dict().items():
        value = value[..., None, None] if "attentions" in name and value.ndim == 2 else value
        vae[f"first_stage_model.{modelscope_vae_name(name)}"] = value
    Callback.__module__, Callback.__qualname__ = "pytorch_lightning.callbacks", "Callback"
    try:
        import sys
        import types

        module = types.ModuleType("pytorch_lightning.callbacks")
        module.Callback = Callback
        sys.modules |= {"pytorch_lightning": types.ModuleType("pytorch_lightning"), module.__name__: module}
        left = {"callbacks": {Callback: {"best": np.float64(1.0)}}, "epoch": 3, "object": Callback()}
        torch.save({"state_dict": vae, **left}, folder / "VQGAN_autoencoder.pth")
    finally:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            sys.modules.pop(name, None)
    torch.save(open_clip_state(theirs.text_encoder.state_dict()), folder / "open_clip_pytorch_model.bin")
    settings = {"unet_head_dim": 8, "norm_num_groups": 8, "num_attention_heads": 4, "max_frames": 16}
    (folder / "configuration.json").write_text(json.dumps({"model": {"model_cfg": settings}}))
    return folder


@pytest.fixture(params=["diffusers", "modelscope"])
def folder(request, diffusers_folder, modelscope_folder):
    return {"diffusers": diffusers_folder, "modelscope": modelscope_folder}[request.param]


@pytest.mark.parametrize("b, f, h, w", [(2, 1, 8, 8), (2, 3, 8, 12), (1, 16, 8, 8), (1, 17, 6, 10)])
def test_unet_equals_diffusers(folder, theirs, b, f, h, w):
    ours, reference = load_unet(folder, torch.float64), theirs.unet.double()
    generator = torch.Generator().manual_seed(f)
    x, context = torch.randn(b, 4, f, h, w, generator=generator), torch.randn(b, 5, 32, generator=generator)
    t = torch.tensor([981, 3])[:b]
    with torch.no_grad():
        difference = ours(x.double(), t, context.double()) - reference(x.double(), t, context.double()).sample
    theirs.unet.float()
    assert difference.abs().max() < 1e-6


def test_autoencoder_equals_diffusers(folder, theirs):
    ours, reference = load_autoencoder(folder, torch.float64), theirs.vae.double()
    frames = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    with torch.no_grad():
        latents = ours.encode(frames)
        assert (latents - reference.encode(frames).latent_dist.mean).abs().max() < 1e-5
        assert (ours.decode(latents) - reference.decode(latents).sample).abs().max() < 1e-5
    theirs.vae.float()


def test_text_equals_transformers(folder, theirs):
    ours, reference = load_text(folder, torch.float64), theirs.text_encoder.double()
    prompts = ["A panda, eating bamboo on a rock.", ""]
    ids = theirs.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert (ours.tokens(prompts) == ids).all()
    with torch.no_grad():
        assert (ours.encode(prompts) - reference(ids)[0]).abs().max() < 1e-6
    theirs.text_encoder.float()


def test_pipeline_equals_diffusers(folder, theirs):
    """The same noise, 20 DDIM steps, guidance 9, an odd size: the pixels differ by rounding alone."""
    noise = torch.randn(1, 4, 5, 8, 12, generator=torch.Generator().manual_seed(3))
    options = {"height": 16, "width": 24, "num_inference_steps": 20, "guidance_scale": 9.0, "num_frames": 5}
    expected = theirs("a panda", latents=noise.clone(), output_type="np", **options).frames[0]
    pipe = minit2v.load(folder, device="cpu")
    clip = pipe("a panda", noise=noise, steps=20, guidance=9.0, frames=5, height=16, width=24)
    assert np.abs(clip.pixels.astype(int) - np.floor(expected * 255)).max() <= 2
    assert expected.std() > 0.05, "the picture is not flat"


def test_sample_makes_a_video(folder, tmp_path):
    out = tmp_path / "clip.mp4"
    small = ["--frames", "3", "--steps", "2", "--height", "16", "--width", "16"]
    assert main(["sample", "a panda", "--model", str(folder), "--out", str(out), *small]) == 0
    assert minit2v.video.Clip.load(out).pixels.shape == (3, 16, 16, 3)


@pytest.mark.parametrize("layout", ["diffusers", "modelscope"])
def test_goes_back_bit_for_bit(diffusers_folder, tmp_path, layout):
    before = minit2v.load(diffusers_folder, device="cpu")
    parts = {name: getattr(before, name) for name in NETWORKS}
    export.export(tmp_path / "out", layout, before.preset, **parts)
    after = minit2v.load(tmp_path / "out", device="cpu")
    for name, part in parts.items():
        state, returned = part.state_dict(), getattr(after, name).state_dict()
        assert state.keys() == returned.keys() and all(torch.equal(state[key], returned[key]) for key in state)
    if layout == "diffusers":
        for network, place in layouts.FOLDERS.items():
            made, original = (layouts.file_of(f, network) for f in (tmp_path / "out", diffusers_folder))
            made, original = ({layouts.bare(k): v for k, v in load_file(path).items()} for path in (made, original))
            assert made.keys() == original.keys() and all(torch.equal(made[key], original[key]) for key in made)


def test_diffusers_opens_what_is_exported(diffusers_folder, theirs, tmp_path):
    from diffusers import TextToVideoSDPipeline

    ours = minit2v.load(diffusers_folder, device="cpu")
    export.export(tmp_path / "out", "diffusers", ours.preset, ours.unet, ours.autoencoder, ours.text)
    opened = TextToVideoSDPipeline.from_pretrained(tmp_path / "out")
    opened.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    a, b = (pipe("a panda", latents=noise.clone(), num_inference_steps=3, num_frames=2, height=16, width=16,
                 output_type="np").frames for pipe in (theirs, opened))  # fmt: skip
    assert np.allclose(a, b, atol=1e-5)


def test_released_names_are_total_and_one_to_one():
    preset = presets.get("modelscope-1.7b")
    counts = {"unet": 1480, "autoencoder": 248, "text": None}
    with torch.device("meta"):
        modules = {name: build(getattr(preset, name)) for name, build in NETWORKS.items()}
    for network, module in modules.items():
        for layout in ("diffusers", "modelscope"):
            made = [part for parts in names(network, module, layout).values() for part in parts]
            assert len(made) == len(set(made))
            if counts[network]:
                assert len(made) == counts[network]
    unet = names("unet", modules["unet"], "modelscope")
    assert unet["up.2.resample.conv.weight"] == ("output_blocks.8.3.conv.weight",)
    assert unet["up.0.resample.conv.weight"] == ("output_blocks.2.1.conv.weight",)
    assert unet["down.0.blocks.1.temporal_conv.convs.0.bias"] == ("input_blocks.2.0.temopral_conv.conv1.2.bias",)


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def variant_half(folder):
    for path in folder.rglob("*.safetensors"):
        save_file({name: value.half() for name, value in load_file(path).items()},
                  path.with_name(f"{path.stem}.fp16.safetensors"))  # fmt: skip
        path.unlink()


def variant_bin(folder):
    for path in folder.rglob("*.safetensors"):
        name = "pytorch_model.bin" if path.stem == "model" else f"{path.stem}.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()


def variant_sharded(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    keys, weight_map = sorted(state), {}
    for i in range(3):
        name = f"{path.stem}-0000{i + 1}-of-00003.safetensors"
        save_file({key: state[key] for key in keys[i::3]}, path.with_name(name))
        weight_map |= {key: name for key in keys[i::3]}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    path.unlink()


def variant_sharded_half(folder):
    """Parts and their index as diffusers and transformers name them with variant="fp16"."""
    for place, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = folder / place / f"{stem}.safetensors"
        state, weight_map = load_file(path), {}
        for i, keys in enumerate((sorted(state)[::2], sorted(state)[1::2]), 1):
            name = f"{stem}.fp16-0000{i}-of-00002.safetensors"
            save_file({key: state[key].half() for key in keys}, path.with_name(name))
            weight_map |= {key: name for key in keys}
        index = path.with_name(f"{stem}.safetensors.index.fp16.json")
        index.write_text(json.dumps({"weight_map": weight_map}))
        path.unlink()


def variant_no_prefix(folder):
    path = folder / "text_encoder" / "model.safetensors"
    save_file({layouts.bare(name): value for name, value in load_file(path).items()}, path)


def variant_old_names(folder):
    path, old = folder / "vae" / "diffusion_pytorch_model.safetensors", {new: old for old, new in layouts.OLD.items()}
    rename = lambda name: re.sub(r"to_q|to_k|to_v|to_out\.0", lambda m: old[m[0]], name)
    save_file({rename(name): value for name, value in load_file(path).items()}, path)


def variant_prefix(folder):
    path = folder / "text_encoder" / "model.safetensors"
    state = {f"text_model.{layouts.bare(name)}": value for name, value in load_file(path).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, path)


def variant_fine_tune(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["models.unet_3d_condition", None]}))
    config = json.loads((folder / "unet/config.json").read_text())
    odd = {"_class_name": "Odd", "center_input_sample": False, "class_embed_type": None, "mid_block_type": "x"}
    (folder / "unet/config.json").write_text(json.dumps(config | odd))


def variant_training_checkpoint(folder):
    path = folder / "text2video_pytorch_model.pth"
    state = {f"module.{name}": value for name, value in torch.load(path).items()}
    torch.save({"state_dict": state, "step": 267_000}, path)


@pytest.mark.parametrize("change", [
    variant_half, variant_bin, variant_sharded, variant_sharded_half, variant_old_names, variant_prefix,
    variant_no_prefix, variant_fine_tune, variant_training_checkpoint,
])  # fmt: skip
def test_variants_of_a_folder_load_the_same(diffusers_folder, modelscope_folder, tmp_path, change):
    original = modelscope_folder if change is variant_training_checkpoint else diffusers_folder
    changed = copied(original, tmp_path / "changed")
    change(changed)
    for network in NETWORKS:
        a, b = (load_network(network, f, torch.float32, "cpu").state_dict() for f in (original, changed))
        tolerance = 1e-3 if change in (variant_half, variant_sharded_half) else 0
        assert all(torch.allclose(a[key], b[key], rtol=tolerance, atol=tolerance) for key in a)


def test_one_network_of_a_folder_or_file(diffusers_folder, modelscope_folder):
    """A network's own folder, and its file with the config.json beside it, are as good as the whole folder."""
    whole = load_unet(diffusers_folder).config
    for path in ("unet", "unet/diffusion_pytorch_model.safetensors"):
        assert load_unet(diffusers_folder / path).config == whole
    text = load_text(diffusers_folder / "text_encoder").config
    assert text == load_text(diffusers_folder).config
    assert load_autoencoder(modelscope_folder / "VQGAN_autoencoder.pth").config.channels == 8


def test_sizes_that_no_tensor_tells_are_not_guessed(diffusers_folder, tmp_path):
    """This UNet's norms have 8 groups; without its config.json it is refused, not run with 32."""
    shutil.copy(diffusers_folder / "unet/diffusion_pytorch_model.safetensors", tmp_path / "unet.safetensors")
    with pytest.raises(UserError, match="put its config.json beside it"):
        load_unet(tmp_path / "unet.safetensors")


@pytest.mark.parametrize("path, expected", [
    ("{d}", "UNet autoencoder text"), ("{m}", "UNet autoencoder text"),
    ("{d}/unet/diffusion_pytorch_model.safetensors", "UNet"),
    ("{d}/vae/diffusion_pytorch_model.safetensors", "autoencoder"),
    ("{d}/text_encoder/model.safetensors", "text"),
    ("{m}/text2video_pytorch_model.pth", "UNet"),
    ("{m}/VQGAN_autoencoder.pth", "autoencoder"),
    ("{m}/open_clip_pytorch_model.bin", "text"),
])  # fmt: skip
def test_inspect_counts_what_is_in_it(diffusers_folder, modelscope_folder, theirs, path, expected, capsys):
    modules = {"UNet": theirs.unet, "autoencoder": theirs.vae, "text": theirs.text_encoder}
    assert main(["weights", "inspect", path.format(d=diffusers_folder, m=modelscope_folder)]) == 0
    rows = capsys.readouterr().out.splitlines()
    found = {row.split()[0].rstrip(","): int(row.split()[-1].replace(",", "")) for row in rows if row[0] != " "}
    assert found == {name: sum(p.numel() for p in modules[name].parameters()) for name in expected.split()}


@pytest.mark.parametrize("layout", ["diffusers", "modelscope"])
def test_a_picture_model_becomes_a_video_model(diffusers_folder, modelscope_folder, theirs, tmp_path, layout):
    """Stable Diffusion's UNet: its temporal layers are the identity, so frames are independent."""
    state = theirs.unet.state_dict()
    state = {name: value for name, value in state.items() if "temp_" not in name and "transformer_in" not in name}
    if layout == "modelscope":  # without temporal layers its authors count otherwise
        state = {modelscope_unet_name(name): value for name, value in state.items()}
        lower = lambda name: re.sub(r"^middle_block\.3", "middle_block.2", name)
        state = {f"model.diffusion_model.{lower(name)}": value for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "sd.safetensors")
    config = load_unet(diffusers_folder).config
    unet = load_network("unet", tmp_path / "sd.safetensors", torch.float32, "cpu", config)
    whole = load_unet(diffusers_folder)
    x, t, context = torch.randn(1, 4, 3, 8, 8), torch.tensor([500]), torch.randn(1, 5, 32)
    with torch.no_grad():
        assert torch.allclose(unet(x, t, context), whole(x, t, context, temporal=False), atol=1e-5)


class Exploit:
    """A pickle that makes a file when it is run."""

    def __init__(self, path, function=os.mkdir):
        self.path, self.function = path, function

    def __reduce__(self):
        return self.function, (str(self.path),)


def hostile(kind: str, path: Path, good: dict, mark: Path) -> Path:
    """Write a broken or hostile file of a UNet; `mark` is what an executed one would leave."""
    key = "conv_in.weight"
    saved = lambda state, name="bad.safetensors": (save_file(state, path / name), path / name)[1]
    pickled = lambda content: (torch.save(content, path / "bad.pth"), path / "bad.pth")[1]
    raw = lambda content, name="bad.pth": ((path / name).write_bytes(content), path / name)[1]
    whole = lambda: saved(good).read_bytes()
    if kind == "empty":
        return raw(b"", "bad.safetensors")
    if kind == "text":
        return raw(b"<html>not found</html>", "bad.safetensors")
    if kind == "cut header":
        return raw(whole()[:100], "bad.safetensors")
    if kind == "cut data":
        return raw(whole()[:-1000], "bad.safetensors")
    if kind == "huge header":
        return raw((1 << 62).to_bytes(8, "little") + b"{}", "bad.safetensors")
    if kind == "overlap":
        entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
        header = json.dumps({"a": entry, "b": entry}).encode()
        return raw(len(header).to_bytes(8, "little") + header + bytes(16), "bad.safetensors")
    if kind == "beyond the end":
        header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
        return raw(len(header).to_bytes(8, "little") + header, "bad.safetensors")
    if kind == "missing":
        return saved({name: value for name, value in good.items() if name != key})
    if kind == "extra":
        return saved(good | {"extra.weight": torch.zeros(1)})
    if kind == "wrong shape":
        return saved(good | {key: torch.zeros(16, 4, 5, 5)})
    if kind == "same size, other shape":
        return saved(good | {"conv_out.weight": good["conv_out.weight"].transpose(0, 1).contiguous()})
    if kind == "nan":
        return saved(good | {key: torch.full_like(good[key], float("nan"))})
    if kind == "inf in half":
        return saved(good | {key: torch.full_like(good[key], float("inf")).half()})
    if kind == "integers":
        return saved(good | {key: good[key].long()})
    if kind == "another network":
        return saved({"encoder.down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)})
    if kind == "runs a function":
        return pickled(good | {"x": Exploit(mark)})
    if kind == "runs eval":
        return pickled(good | {"x": Exploit(f"__import__('os').mkdir({str(mark)!r})", eval)})
    if kind == "runs in a protocol 4 pickle":
        torch.save(good | {"x": Exploit(mark)}, path / "bad.pth", pickle_protocol=4)
        return path / "bad.pth"
    if kind == "plain pickle":
        return raw(pickle.dumps({"x": Exploit(mark)}))
    if kind == "plain pickle called bin":
        return raw(pickle.dumps({"x": Exploit(mark)}), "bad.bin")
    if kind == "no dictionary":
        return pickled([1, 2, 3])
    if kind == "no tensors":
        return pickled({"a": 1, "b": {"c": 2}})
    if kind == "cut zip":
        return raw(pickled(good).read_bytes()[:-2000])
    if kind == "flipped zip":
        content = bytearray(pickled(good).read_bytes())
        content[40:400] = bytes(360)
        return raw(bytes(content))
    if kind == "zip without pickle":
        with zipfile.ZipFile(path / "bad.pth", "w") as file:
            file.writestr("archive/readme.txt", "nothing")
        return path / "bad.pth"
    if kind == "bomb":
        with zipfile.ZipFile(path / "bad.pth", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("archive/data.pkl", bytes(1 << 26))
        return path / "bad.pth"
    if kind == "suffix":
        return raw(b"MZ", "bad.exe")
    if kind == "absent":
        return path / "bad.safetensors"
    name = {
        "index climbs": "../secret.safetensors", "index is absolute": "/etc/passwd",
        "index to nothing": "no.safetensors", "index without key": "part.safetensors", "index damaged": None,
    }[kind]  # fmt: skip
    saved({"other": torch.zeros(1)}, "part.safetensors")
    content = json.dumps({"weight_map": {key: name}}) if name else '{"weight_map": ['
    return raw(content.encode(), "bad.safetensors.index.json")


KINDS = (
    "empty", "text", "cut header", "cut data", "huge header", "overlap", "beyond the end", "missing", "extra",
    "wrong shape", "same size, other shape", "nan", "inf in half", "integers", "another network",
    "runs a function", "runs eval", "runs in a protocol 4 pickle", "plain pickle", "plain pickle called bin",
    "no dictionary", "no tensors", "cut zip", "flipped zip", "zip without pickle", "bomb", "suffix", "absent",
    "index climbs", "index is absolute", "index to nothing", "index without key", "index damaged",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused(diffusers_folder, tmp_path, kind):
    good = load_file(diffusers_folder / "unet/diffusion_pytorch_model.safetensors")
    place, mark = tmp_path / "place", tmp_path / "executed"
    place.mkdir()
    path = hostile(kind, place, good, mark)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        load_network("unet", path, torch.float32, "cpu", TINY.unet)
    message = str(caught.value)
    assert "\n" not in message and (str(place) in message or "wants to run" in message)
    assert not mark.exists() and sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_published_is_compared_with_its_checksum(modelscope_folder, tmp_path, monkeypatch):
    path, digest = modelscope_folder / "VQGAN_autoencoder.pth", hashlib.sha256()
    digest.update(path.read_bytes())
    size = path.stat().st_size
    monkeypatch.setitem(reading.KNOWN, path.name, {size: digest.hexdigest()[:8]})
    assert load_autoencoder(path)
    changed = tmp_path / path.name
    changed.write_bytes(path.read_bytes()[:-1] + b"?")
    shutil.copy(modelscope_folder / "configuration.json", tmp_path)
    with pytest.raises(UserError, match="sha256"):
        load_autoencoder(changed)


def readme_commands() -> list[str]:
    """The commands of the README's section on the released weights, those in a sentence too."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    section = text.split("## Use the released 1.7B weights")[1].split("\n## ")[0]
    blocks = re.findall(r"^minit2v [^#\n]*", section, re.M) + re.findall(r"`(minit2v [^`]* ms17[^`]*)`", section)
    return [" ".join(command.split()) for command in blocks]


def test_the_readme_can_be_followed(diffusers_folder, modelscope_folder, tmp_path, monkeypatch, capsys):
    """Word for word, with these small weights in the place of what the hub sends, and a small clip."""
    monkeypatch.setattr("minit2v.loading.download", lambda name, half: diffusers_folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/folder").symlink_to(modelscope_folder)
    small, done = ["--frames", "2", "--steps", "2", "--height", "16", "--width", "16"], []
    for command in readme_commands():
        arguments = shlex.split(command)[1:]
        assert main(arguments + (small if arguments[0] == "sample" else [])) == 0, capsys.readouterr().err
        done.append(" ".join(arguments[:2]))
        if arguments[0] == "sample":
            assert minit2v.video.Clip.load("panda.mp4").pixels.shape == (2, 16, 16, 3)
            Path("panda.mp4").unlink()
    assert {"weights plan", "weights convert", "weights inspect"} <= set(done) and len(done) == 5
    assert minit2v.load("ms17", device="cpu").preset.unet == minit2v.load(diffusers_folder, device="cpu").preset.unet


@pytest.mark.parametrize("to", ["minit2v", "diffusers", "modelscope"])
def test_convert_writes_every_layout(diffusers_folder, tmp_path, to):
    assert main(["weights", "convert", str(diffusers_folder), str(tmp_path / "out"), "--to", to]) == 0
    assert layouts.layout_of(tmp_path / "out") == to
    before, after = (minit2v.load(folder, device="cpu") for folder in (diffusers_folder, tmp_path / "out"))
    for name in NETWORKS:
        state, returned = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert state.keys() == returned.keys() and all(torch.equal(state[key], returned[key]) for key in state)


def test_a_small_model_outlives_its_file(diffusers_folder, tmp_path):
    """Training writes over the files of a model that a notebook may have open."""
    path = Path(shutil.copytree(diffusers_folder / "unet", tmp_path / "unet")) / "diffusion_pytorch_model.safetensors"
    unet = load_unet(path)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(before[key], value) for key, value in unet.state_dict().items())


def test_links_out_of_the_folder_are_refused_but_for_the_hubs_cache(diffusers_folder, tmp_path):
    def linked(folder: Path, target: Path) -> Path:
        copied(diffusers_folder, folder)
        path = folder / "unet/diffusion_pytorch_model.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
        path.symlink_to(target)
        return folder

    with pytest.raises(UserError, match="leads out of its folder"):
        load_unet(linked(tmp_path / "away", tmp_path / "elsewhere.safetensors"))
    hub = tmp_path / "models--owner--name"
    load_unet(linked(hub / "snapshots" / "abc", hub / "blobs" / "0123.safetensors"))


def test_departures_have_no_place_in_other_layouts(tmp_path):
    preset = presets.get("nano")
    parts = {name: build(getattr(preset, name)) for name, build in NETWORKS.items()}
    with pytest.raises(UserError, match="departures|shift|vocabulary|whole"):
        export.export(tmp_path / "out", "diffusers", preset, **parts)
    assert not (tmp_path / "out").exists()


def test_only_what_is_needed_is_downloaded():
    files = ["README.md", "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin",
             "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors",
             "vae/config.json", "vae/diffusion_pytorch_model.bin", "text_encoder/config.json",
             "text_encoder/model.safetensors", "scheduler/scheduler_config.json", "clip.mp4"]  # fmt: skip
    needed = set(needed(files, half=True))
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in needed and "vae/diffusion_pytorch_model.bin" in needed
    others = {"README.md", "clip.mp4", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"}
    assert not needed & others
    assert "unet/diffusion_pytorch_model.safetensors" in needed(files, half=False)
    stem, ending = "unet/diffusion_pytorch_model", "-00001-of-00002.safetensors"
    parts = [f"{stem}{ending}", f"{stem}.fp16{ending}", f"{stem}.safetensors.index.json",
             f"{stem}.safetensors.index.fp16.json", *(name for name in files if "unet/d" not in name)]  # fmt: skip
    whole, halves = (set(needed(parts, half)) for half in (False, True))
    assert {parts[0], parts[2]} <= whole and parts[1] not in whole
    assert {parts[1], parts[3]} <= halves and parts[0] not in halves


@pytest.mark.parametrize("layout", ["diffusers", "modelscope"])
def test_the_manifest_is_the_structure(layout):
    """Every tensor of the released files, as the public implementations name and shape it, is one of ours, and the
    other way round; counts of parameters too."""
    manifest = json.loads((minit2v.files.data_dir() / "released_manifest.json").read_text())[layout]
    preset = presets.get("modelscope-1.7b")
    assert len(manifest["unet"]) == 1480 and len(manifest["autoencoder"]) == 248
    parameters = {"unet": 1_411_233_860, "autoencoder": 83_653_863, "text": 340_387_840}
    for network, build in NETWORKS.items():
        with torch.device("meta"):
            module = build(getattr(preset, network))
        shapes = {layouts.bare(name): shape for name, shape in manifest[network].items()}
        state, table = module.state_dict(), names(network, module, layout)
        for key, parts in table.items():
            together = [sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:]] if shapes[parts[0]] else []
            axes = export.axes(network, key, layout, state[key].ndim)
            assert together == [*state[key].shape, *[1] * (axes - state[key].ndim)], key
        left = set(shapes) - {part for parts in table.values() for part in parts}
        assert all(layouts.DROPPED.match(name) or "resblocks.23." in name for name in left), left
        assert sum(value.numel() for value in state.values()) == parameters[network]
