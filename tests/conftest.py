"""Fixtures that several files of tests share: one small model in diffusers' and in ModelScope's layout."""

import json
import re
import sys
import types
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from released import TINY, modelscope_unet_name, modelscope_vae_name, open_clip_state, redrawn


@pytest.fixture
def float64_by_default():
    """transformers before 5 fills its causal mask in the default dtype, where the least number of float64 overflows."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def theirs(tmp_path_factory):
    """diffusers' own pipeline with random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from minit2v.checkpoints.export import tokenizer_json
    from minit2v.networks.text import TextEncoder

    folder = tmp_path_factory.mktemp("tokenizer")
    tokens = TextEncoder(TINY.text).tokens
    for name, content in tokenizer_json(tokens, 77).items():
        (folder / Path(name).name).write_text(json.dumps(content))
    merges = sorted(tokens.bpe.bpe_ranks, key=tokens.bpe.bpe_ranks.get)
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


@pytest.fixture(scope="session")
def untrained_nano(tmp_path_factory):
    """A folder with an untrained nano model."""
    import torch

    from minit2v import presets
    from minit2v.checkpoints.folder import save_model
    from minit2v.networks.autoencoder import VQGAN
    from minit2v.networks.text import TextEncoder
    from minit2v.networks.unet import UNet

    torch.manual_seed(0)
    folder, preset = tmp_path_factory.mktemp("nano"), presets.get("nano")
    unet, autoencoder, text = UNet(preset.unet), VQGAN(preset.autoencoder), TextEncoder(preset.text)
    save_model(folder, preset, unet=unet, autoencoder=autoencoder, text=text)
    return folder


@pytest.fixture(scope="session")
def small_makeavideo():
    """A Make-A-Video that is hardly a network."""
    from minit2v.systems import build, find_preset
    from minit2v.systems.makeavideo import MakeAVideo

    preset = find_preset("makeavideo")
    small = dict(channels=(8, 16), head_dim=4, norm_groups=4)
    preset = replace(preset, height=16, width=16, fill_steps=1,
                     **{name: replace(getattr(preset, name), **small) for name in ("unet", "between", "upscale")})  # fmt: skip
    return MakeAVideo(preset, **build(preset))
