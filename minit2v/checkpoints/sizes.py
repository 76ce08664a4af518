"""The sizes of the three networks, told from the names and shapes of their tensors.

So a file without its config.json loads too. Only what no tensor tells (the width of a head, the groups of a norm, the
scale of latents) is read from there, and else is the release's.
"""

import re

from minit2v.checkpoints.reading import Tensors
from minit2v.presets import AutoencoderConfig, TextConfig, UNetConfig


def unet_config(tensors: Tensors, layout: str, settings: dict) -> UNetConfig:
    """The sizes of a UNet. `settings`: what config.json or configuration.json says. Raises UserError, KeyError."""
    shapes = tensors.shapes
    if layout == "diffusers":
        levels = 1 + _largest(shapes, r"down_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
        layers = 1 + _largest(shapes, r"down_blocks\.0\.resnets\.(\d+)\.conv1\.weight")
        block = [f"down_blocks.{level}.resnets.0.conv2.weight" for level in range(levels)]
        attention = [f"down_blocks.{level}.attentions.0.norm.weight" for level in range(levels)]
        middle = "mid_block.attentions.0"
        first = "transformer_in.proj_in.weight"
    else:
        halvings = sorted(int(n) for name in shapes for n in re.findall(r"^input_blocks\.(\d+)\.op\.weight", name))
        layers = halvings[0] - 1 if halvings else _largest(shapes, r"input_blocks\.(\d+)\.0\.in_layers\.0\.weight")
        levels = len(halvings) + 1
        block = [f"input_blocks.{level * (layers + 1) + 1}.0.out_layers.3.weight" for level in range(levels)]
        attention = [f"input_blocks.{level * (layers + 1) + 1}.1.norm.weight" for level in range(levels)]
        middle = "middle_block.1"
        first = "input_blocks.0.1.proj_in.weight"
    head_dim = settings.get("attention_head_dim", settings.get("unet_head_dim", 64))
    head_dim = head_dim if isinstance(head_dim, int) else 64
    inner = shapes[first][0] if first in shapes else 8 * head_dim
    return UNetConfig(
        in_channels=shapes["conv_in.weight" if layout == "diffusers" else "input_blocks.0.0.weight"][1],
        channels=tuple(shapes[name][0] for name in block),
        attention=tuple(name in shapes for name in attention),
        layers_per_level=layers,
        head_dim=head_dim,
        first_temporal_heads=inner // head_dim,
        context_dim=shapes[f"{middle}.transformer_blocks.0.attn2.to_k.weight"][1],
        norm_groups=settings.get("norm_num_groups") or 32,
    )


def autoencoder_config(tensors: Tensors, layout: str, settings: dict) -> AutoencoderConfig:
    """The sizes of an autoencoder; see `unet_config`."""
    shapes, blocks, block = tensors.shapes, "encoder.down", "block"
    if layout == "diffusers":
        blocks, block = "encoder.down_blocks", "resnets"
    levels = 1 + _largest(shapes, rf"{blocks}\.(\d+)\.{block}\.0\.conv1\.weight")
    widths = [shapes[f"{blocks}.{level}.{block}.0.conv2.weight"][0] for level in range(levels)]
    return AutoencoderConfig(
        channels=shapes["encoder.conv_in.weight"][0],
        multipliers=tuple(width // shapes["encoder.conv_in.weight"][0] for width in widths),
        layers_per_level=1 + _largest(shapes, rf"{blocks}\.0\.{block}\.(\d+)\.conv1\.weight"),
        latent_channels=shapes["post_quant_conv.weight"][0],
        norm_groups=settings.get("norm_num_groups") or 32,
        mid_attention=any(".mid_block.attentions.0." in name or ".mid.attn_1." in name for name in shapes),
        scale_factor=settings.get("scaling_factor") or 0.18215,
    )


def text_config(tensors: Tensors, layout: str, settings: dict) -> TextConfig:
    """The sizes of a text tower; see `unet_config`. All its blocks are run but the 24th of ViT-H-14, which released
    folders of diffusers lack and files of open_clip have."""
    shapes = tensors.shapes
    block = "encoder.layers" if layout == "diffusers" else "transformer.resblocks"
    positions = "embeddings.position_embedding.weight" if layout == "diffusers" else "positional_embedding"
    length, width = shapes[positions]
    layers = 1 + _largest(shapes, rf"{block}\.(\d+)\.")
    skipped = int(layout == "modelscope" or layers == 24)
    return TextConfig(
        context_length=length,
        width=width,
        heads=settings.get("num_attention_heads") or max(1, width // 64),
        layers=layers,
        skip_last=skipped,
        embed_dim=settings.get("projection_dim") or width,
    )


def _largest(names, pattern: str) -> int:
    return max(int(n) for name in names for n in re.findall(f"^{pattern}", name))


CONFIGS = {"unet": unet_config, "autoencoder": autoencoder_config, "text": text_config}
