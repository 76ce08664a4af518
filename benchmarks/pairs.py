"""Both sides of a comparison: a network of this library and diffusers' own, with the same random weights.

    ours ── released names (`released.export`) ──► diffusers' class, which holds the same memory

diffusers cannot have the departures of the mini model, so configurations come without them (`as_in_the_paper`).
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
    """The same sizes without departures, and without dropout, so that two training steps can be compared."""
    return replace(config, **dict.fromkeys(DEPARTURES, False), dropout=0.0)


MINI = as_in_the_paper(presets.get("mini").unet)
WIDE = UNetConfig(channels=(320,), attention=(True,), dropout=0.0)  # the release's first level alone
FULL = as_in_the_paper(presets.get("modelscope-1.7b").unet)


def small() -> Preset:
    """A whole model of mini's sizes that every layout can hold: no departures, CLIP's whole vocabulary."""
    mini = presets.get("mini")
    text = TextConfig(width=128, heads=4, layers=5, embed_dim=128)
    unet = replace(MINI, first_temporal_heads=8)  # diffusers' folder has no setting for it
    return replace(mini, name="small", unet=unet, text=text, diffusion=DiffusionConfig(), steps=20, guidance=9.0)


def tiny(config: UNetConfig) -> UNetConfig:
    """The same structure as narrow as can be, to see whether everything runs."""
    return replace(config, channels=(32,) * len(config.channels), head_dim=8, context_dim=32, norm_groups=8)


def redrawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """All parameters random: the usual start has zeros, which would hide whole branches."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-1, 1).mul_(p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    return module


def our_unet(config: UNetConfig, dtype: torch.dtype = torch.float32) -> UNet:
    """In evaluation mode. The same numbers on every call, also in another process."""
    with torch.device("meta"):
        unet = UNet(config).to(dtype)
    return redrawn(unet.to_empty(device="cpu")).eval()


def their_unet(ours: UNet) -> nn.Module:
    """diffusers' `UNet3DConditionModel` with the weights of ours: the same memory, not a copy."""
    from diffusers import UNet3DConditionModel
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    config = ours.config
    with torch.device("meta"):
        theirs = UNet3DConditionModel.from_config(unet_json(ModelScopePreset("pair", unet=config)))
        if config.first_temporal_heads != 8:  # which is fixed there
            theirs.transformer_in = TransformerTemporalModel(
                config.first_temporal_heads, config.head_dim, config.channels[0], norm_num_groups=config.norm_groups
            )
    theirs.load_state_dict(tensors_for("unet", ours, "diffusers"), assign=True)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
    return theirs.eval()


def our_autoencoder(config: AutoencoderConfig) -> VQGAN:
    return redrawn(VQGAN(config)).eval()


def their_autoencoder(ours: VQGAN) -> nn.Module:
    """diffusers' `AutoencoderKL` with the weights of ours."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        theirs = AutoencoderKL.from_config(autoencoder_json(ModelScopePreset("pair", autoencoder=ours.config)))
    theirs.load_state_dict(tensors_for("autoencoder", ours, "diffusers"), assign=True)
    return theirs.eval()
