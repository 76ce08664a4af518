"""Small models in the layouts of others, and rules of the tests' own for the names in them."""

import re
from collections import OrderedDict

import torch

from minit2v.checkpoints.foreign import bare
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
    state, result = {bare(name): value for name, value in state.items()}, OrderedDict()
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
