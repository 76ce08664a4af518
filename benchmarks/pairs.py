"""Both sides of a comparison: a network of this library and diffusers' class, with the same random weights.

    ours ── renamed (`checkpoints.export`) ──► diffusers' class, which shares the memory

diffusers has no counterpart of the departures of the mini model, so configurations drop them (`as_in_the_paper`).
"""

from dataclasses import replace

import torch
from torch import nn

from minit2v import presets
from minit2v.checkpoints.export import DEPARTURES, autoencoder_json, tensors_for, unet_json
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.unet import UNet
from minit2v.presets import AutoencoderConfig, DiffusionConfig, ModelScopePreset, Preset, TextConfig, UNetConfig


def as_in_the_paper(config: UNetConfig) -> UNetConfig:
    """The same sizes without departures, and without dropout, whose random numbers would differ between the sides."""
    return replace(config, **dict.fromkeys(DEPARTURES, False), dropout=0.0)


MINI = as_in_the_paper(presets.get("mini").unet)
WIDE = UNetConfig(channels=(320,), attention=(True,), dropout=0.0)  # only the first level of the release
FULL = as_in_the_paper(presets.get("modelscope-1.7b").unet)


def small() -> Preset:
    """A whole model of mini's sizes that every layout can represent: no departures, CLIP's full vocabulary."""
    mini = presets.get("mini")
    text = TextConfig(width=128, heads=4, layers=5, embed_dim=128)
    unet = replace(MINI, first_temporal_heads=8)  # fixed in diffusers' layout
    return replace(mini, name="small", unet=unet, text=text, diffusion=DiffusionConfig(), steps=20, guidance=9.0)


def tiny(config: UNetConfig) -> UNetConfig:
    """The same structure at the smallest width, to see that everything runs."""
    return replace(config, channels=(32,) * len(config.channels), head_dim=8, context_dim=32, norm_groups=8)


def redrawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw all parameters at random: the usual initialization has zeros, which would hide whole branches."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-1, 1).mul_(p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    return module


def our_unet(config: UNetConfig, dtype: torch.dtype = torch.float32) -> UNet:
    """A UNet in evaluation mode; every call, in any process, gives the same weights."""
    with torch.device("meta"):
        unet = UNet(config).to(dtype)
    return redrawn(unet.to_empty(device="cpu")).eval()


def their_unet(ours: UNet) -> nn.Module:
    """diffusers' `UNet3DConditionModel` with our weights: the same memory, not a copy."""
    from diffusers import UNet3DConditionModel
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    config = ours.config
    with torch.device("meta"):
        theirs = UNet3DConditionModel.from_config(unet_json(ModelScopePreset("pair", unet=config)))
        if config.first_temporal_heads != 8:  # diffusers always builds 8
            theirs.transformer_in = TransformerTemporalModel(
                config.first_temporal_heads, config.head_dim, config.channels[0], norm_num_groups=config.norm_groups
            )
    theirs.load_state_dict(tensors_for("unet", ours, "diffusers"), assign=True)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
    return theirs.eval()


def our_autoencoder(config: AutoencoderConfig) -> VQGAN:
    """An autoencoder in evaluation mode; every call gives the same weights."""
    return redrawn(VQGAN(config)).eval()


def their_autoencoder(ours: VQGAN) -> nn.Module:
    """diffusers' `AutoencoderKL` with our weights."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        theirs = AutoencoderKL.from_config(autoencoder_json(ModelScopePreset("pair", autoencoder=ours.config)))
    theirs.load_state_dict(tensors_for("autoencoder", ours, "diffusers"), assign=True)
    return theirs.eval()
