"""The sizes of the three networks of a released folder, from the names and shapes of their tensors.

So a file loads without its config.json too. Only what no tensor tells (the width of a head, the groups of a norm, the
scale of latents, …) comes from config files (see `config_files`) or is the release's.
"""

import re

from minit2v.presets import AutoencoderConfig, TextConfig, UNetConfig

Shapes = dict[str, tuple[int, ...]]


def unet_config(shapes: Shapes, layout: str, settings: dict) -> UNetConfig:
    """The configuration of a UNet. `settings`: the fields that config files tell. Raises KeyError, ValueError, …, where
    tensors are missing."""
    if layout == "diffusers":
        levels = 1 + _largest(shapes, r"down_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
        layers = 1 + _largest(shapes, r"down_blocks\.0\.resnets\.(\d+)\.conv1\.weight")
        block = [f"down_blocks.{level}.resnets.0.conv2.weight" for level in range(levels)]
        attention = [f"down_blocks.{level}.attentions.0.norm.weight" for level in range(levels)]
        conv_in, middle, first = "conv_in.weight", "mid_block.attentions.0", "transformer_in.proj_in.weight"
    else:
        halvings = sorted(int(n) for name in shapes for n in re.findall(r"^input_blocks\.(\d+)\.op\.weight", name))
        layers = halvings[0] - 1 if halvings else _largest(shapes, r"input_blocks\.(\d+)\.0\.in_layers\.0\.weight")
        levels = len(halvings) + 1
        block = [f"input_blocks.{level * (layers + 1) + 1}.0.out_layers.3.weight" for level in range(levels)]
        attention = [f"input_blocks.{level * (layers + 1) + 1}.1.norm.weight" for level in range(levels)]
        conv_in, middle, first = "input_blocks.0.0.weight", "middle_block.1", "input_blocks.0.1.proj_in.weight"
    return UNetConfig(
        in_channels=shapes[conv_in][1],
        channels=tuple(shapes[name][0] for name in block),
        attention=tuple(name in shapes for name in attention),
        layers_per_level=layers,
        first_temporal_heads=shapes[first][0] // settings["head_dim"] if first in shapes else 8,
        context_dim=shapes[f"{middle}.transformer_blocks.0.attn2.to_k.weight"][1],
        **settings,
    )


def autoencoder_config(shapes: Shapes, layout: str, settings: dict) -> AutoencoderConfig:
    """The configuration of an autoencoder; see `unet_config`."""
    blocks, block = ("encoder.down_blocks", "resnets") if layout == "diffusers" else ("encoder.down", "block")
    levels = 1 + _largest(shapes, rf"{blocks}\.(\d+)\.{block}\.0\.conv1\.weight")
    widths = [shapes[f"{blocks}.{level}.{block}.0.conv2.weight"][0] for level in range(levels)]
    first = shapes["encoder.conv_in.weight"][0]
    return AutoencoderConfig(
        channels=first,
        multipliers=tuple(width // first for width in widths),
        layers_per_level=1 + _largest(shapes, rf"{blocks}\.0\.{block}\.(\d+)\.conv1\.weight"),
        latent_channels=shapes["post_quant_conv.weight"][0],
        mid_attention=any(".mid_block.attentions.0." in name or ".mid.attn_1." in name for name in shapes),
        **settings,
    )


def text_config(shapes: Shapes, layout: str, settings: dict) -> TextConfig:
    """The configuration of a text tower; see `unet_config`. Without a config file that says how many blocks are run,
    all are but the last of open_clip's files and the 24th of ViT-H-14, which released folders of diffusers lack."""
    block = "encoder.layers" if layout == "diffusers" else "transformer.resblocks"
    length, width = shapes[positions_of(layout)]
    layers = 1 + _largest(shapes, rf"{block}\.(\d+)\.")
    skipped = int(layout == "modelscope" or layers == 24)
    if (asked := settings.get("layers", layers)) > layers:
        raise ValueError(f"block {layers + 1} of the {asked} that its config.json asks for")
    if "layers" in settings:
        layers, skipped = asked, 0
    sizes = {"heads": max(1, width // 64), "embed_dim": width} | settings
    return TextConfig(**sizes | {"context_length": length, "width": width, "layers": layers, "skip_last": skipped})


def positions_of(layout: str) -> str:
    """The name of the embedding of positions (n, d) of a text tower."""
    return "embeddings.position_embedding.weight" if layout == "diffusers" else "positional_embedding"


def tokens_of(layout: str) -> str:
    """The name of the embedding of tokens (rows, d) of a text tower."""
    return "embeddings.token_embedding.weight" if layout == "diffusers" else "token_embedding.weight"


def _largest(names, pattern: str) -> int:
    return max(int(n) for name in names for n in re.findall(f"^{pattern}", name))


CONFIGS = {"unet": unet_config, "autoencoder": autoencoder_config, "text": text_config}
