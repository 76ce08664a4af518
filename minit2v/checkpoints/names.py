"""One table of names: every tensor of the three networks, here and in the two layouts that they are released in.

    down.1.blocks.0.temporal_conv.convs.2.weight             ours
    down_blocks.1.temp_convs.0.conv3.3.weight                diffusers
    input_blocks.4.0.temopral_conv.conv3.3.weight            ModelScope (the typing mistake is in the file)

A name is a *place* (which block) and what is *inside* it. A row is (ours, diffusers, ModelScope); numbers in braces are
those of the place, or computed from them (`numbers`). `names` gives the released name of each tensor of a network, and
serves both directions: the inverse is the dictionary turned round. `a|b|c` are the thirds of one tensor.

Checked against the public implementations, tensor by tensor, in tests/test_checkpoints_parity.py.
"""

import re

from torch import nn

LAYOUTS = ("minit2v", "diffusers", "modelscope")  # the columns of the table

PLACES = {
    "unet": (
        ("time_embedding.0", "time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.2", "time_embedding.linear_2", "time_embed.2"),
        ("conv_in", "conv_in", "input_blocks.0.0"),
        ("first_temporal", "transformer_in", "input_blocks.0.1"),
        ("down.{l}.blocks.{j}.res", "down_blocks.{l}.resnets.{j}", "input_blocks.{down}.0"),
        ("down.{l}.blocks.{j}.temporal_conv", "down_blocks.{l}.temp_convs.{j}", "input_blocks.{down}.0.temopral_conv"),
        ("down.{l}.blocks.{j}.spatial", "down_blocks.{l}.attentions.{j}", "input_blocks.{down}.1"),
        ("down.{l}.blocks.{j}.temporal", "down_blocks.{l}.temp_attentions.{j}", "input_blocks.{down}.2"),
        ("down.{l}.resample.conv", "down_blocks.{l}.downsamplers.0.conv", "input_blocks.{halving}.op"),
        ("middle.first.res", "mid_block.resnets.0", "middle_block.0"),
        ("middle.first.temporal_conv", "mid_block.temp_convs.0", "middle_block.0.temopral_conv"),
        ("middle.first.spatial", "mid_block.attentions.0", "middle_block.1"),
        ("middle.first.temporal", "mid_block.temp_attentions.0", "middle_block.2"),
        ("middle.last.res", "mid_block.resnets.1", "middle_block.3"),
        ("middle.last.temporal_conv", "mid_block.temp_convs.1", "middle_block.3.temopral_conv"),
        ("up.{l}.blocks.{j}.res", "up_blocks.{l}.resnets.{j}", "output_blocks.{up}.0"),
        ("up.{l}.blocks.{j}.temporal_conv", "up_blocks.{l}.temp_convs.{j}", "output_blocks.{up}.0.temopral_conv"),
        ("up.{l}.blocks.{j}.spatial", "up_blocks.{l}.attentions.{j}", "output_blocks.{up}.1"),
        ("up.{l}.blocks.{j}.temporal", "up_blocks.{l}.temp_attentions.{j}", "output_blocks.{up}.2"),
        ("up.{l}.resample.conv", "up_blocks.{l}.upsamplers.0.conv", "output_blocks.{doubling}.{after}.conv"),
        ("norm_out", "conv_norm_out", "out.0"),
        ("conv_out", "conv_out", "out.2"),
    ),
    "autoencoder": (
        ("encoder.levels.{l}.blocks.{j}", "encoder.down_blocks.{l}.resnets.{j}", "encoder.down.{l}.block.{j}"),
        ("encoder.levels.{l}.resample.1", "encoder.down_blocks.{l}.downsamplers.0.conv",
         "encoder.down.{l}.downsample.conv"),
        ("decoder.levels.{l}.blocks.{j}", "decoder.up_blocks.{l}.resnets.{j}", "decoder.up.{mirrored}.block.{j}"),
        ("decoder.levels.{l}.resample.1", "decoder.up_blocks.{l}.upsamplers.0.conv",
         "decoder.up.{mirrored}.upsample.conv"),
        ("{side}.middle.0", "{side}.mid_block.resnets.0", "{side}.mid.block_1"),
        ("{side}.middle.1", "{side}.mid_block.attentions.0", "{side}.mid.attn_1"),
        ("{side}.middle.2", "{side}.mid_block.resnets.1", "{side}.mid.block_2"),
        ("{side}.norm_out", "{side}.conv_norm_out", "{side}.norm_out"),
    ),
    "text": (
        ("token_embedding", "embeddings.token_embedding", "token_embedding"),
        ("positional_embedding", "embeddings.position_embedding.weight", "positional_embedding"),
        ("blocks.{l}", "encoder.layers.{l}", "transformer.resblocks.{l}"),
        ("ln_final", "final_layer_norm", "ln_final"),
    ),
}  # fmt: skip
INSIDE = {
    "unet": (
        ("norm1", "norm1", "in_layers.0"),
        ("conv1", "conv1", "in_layers.2"),
        ("embedding", "time_emb_proj", "emb_layers.1"),
        ("norm2", "norm2", "out_layers.0"),
        ("conv2", "conv2", "out_layers.3"),
        ("skip", "conv_shortcut", "skip_connection"),
        ("norms.{n}", "conv{stage}.0", "conv{stage}.0"),
        ("convs.{n}", "conv{stage}.{tap}", "conv{stage}.{tap}"),
        ("block.attn{n}.to_out", "transformer_blocks.0.attn{n}.to_out.0", "transformer_blocks.0.attn{n}.to_out.0"),
        ("block.feed_forward.proj_in", "transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.0.proj"),
        ("block.feed_forward.proj_out", "transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff.net.2"),
        ("block", "transformer_blocks.0", "transformer_blocks.0"),
    ),
    "autoencoder": (
        ("shortcut", "conv_shortcut", "nin_shortcut"),
        ("norm", "group_norm", "norm"),
        ("q", "to_q", "q"),
        ("k", "to_k", "k"),
        ("v", "to_v", "v"),
        ("out", "to_out.0", "proj_out"),
    ),
    "text": (
        ("ln_1", "layer_norm1", "ln_1"),
        ("ln_2", "layer_norm2", "ln_2"),
        ("attn.in_proj_{kind}",
         "self_attn.q_proj.{kind}|self_attn.k_proj.{kind}|self_attn.v_proj.{kind}", "attn.in_proj_{kind}"),
        ("attn.out_proj", "self_attn.out_proj", "attn.out_proj"),
        ("mlp.c_fc", "mlp.fc1", "mlp.c_fc"),
        ("mlp.c_proj", "mlp.fc2", "mlp.c_proj"),
    ),
}  # fmt: skip
# how many axes a weight has in each layout where they differ: those that it has more are of length 1
AXES = (
    ("unet", r"\.temporal_conv\.convs\.\d\.weight", (4, 5, 5)),  # a Conv2d over (f, h w); a Conv3d of kernel (3, 1, 1)
    ("unet", r"(first_temporal|\.temporal)\.proj_(in|out)\.weight", (2, 2, 3)),  # linear; a Conv1d of kernel 1
    ("autoencoder", r"\.middle\.1\.(q|k|v|out)\.weight", (2, 2, 4)),  # linear; a Conv2d of kernel 1
)
WORDS = {"side": "encoder|decoder", "kind": "weight|bias"}  # what stands in braces but is no number


def names(network: str, module: nn.Module, layout: str) -> dict[str, tuple[str, ...]]:
    """Our name of every tensor of a module -> its name in a layout; three names where it is stored in thirds.

    Layouts other than "minit2v" have "unet", "autoencoder" and "text" only. The module may be on the meta device.
    """
    if layout == "minit2v":  # of any system, also of a network that has no settings
        return {key: (key,) for key in module.state_dict()}
    return {key: names_of(network, key, module.config, layout) for key in module.state_dict()}


def axes(network: str, key: str, layout: str, ours: int) -> int:
    """How many axes a tensor has in a layout that has `ours` here."""
    for which, pattern, counts in AXES:
        if which == network and re.search(pattern, key):
            return counts[LAYOUTS.index(layout)]
    return ours


def names_of(network: str, key: str, config, layout: str) -> tuple[str, ...]:
    """The names of one tensor in a layout; see `names`."""
    column = LAYOUTS.index(layout)
    for row in PLACES[network] if column else ():
        if found := _pattern(row[0]).match(key):
            place, rest = row[column].format(**numbers(found.groupdict(), config)), key[found.end() :].lstrip(".")
            return tuple(".".join(filter(None, (place, part))) for part in _inside(network, rest, column).split("|"))
    return (key,)  # the same in all layouts


def _inside(network: str, rest: str, column: int) -> str:
    for row in INSIDE[network]:
        if found := _pattern(row[0]).match(rest):
            values = found.groupdict()
            if "n" in values:
                n = int(values["n"])
                values |= {"stage": n + 1, "tap": 3 if n else 2}  # the first stage has no dropout in between
            return row[column].format(**values) + rest[found.end() :]
    return rest


def _pattern(ours: str) -> re.Pattern:
    """"down.{l}.blocks" -> a pattern of whole words with a group l."""
    parts = re.split(r"\{(\w+)\}", ours)
    texts = [f"(?P<{part}>{WORDS.get(part, r'[0-9]+')})" if i % 2 else re.escape(part) for i, part in enumerate(parts)]
    return re.compile("".join(texts) + r"(?=\.|$)")


def numbers(place: dict[str, str], config) -> dict:
    """The numbers of a place, and the places of ModelScope's flat lists that follow from them."""
    values = {name: int(text) if text.isdigit() else text for name, text in place.items()}
    if "l" not in values:
        return values
    level, j = values["l"], values.get("j", 0)
    if hasattr(config, "attention"):  # the UNet: one list of blocks and halvings, one of blocks
        a_level = config.layers_per_level + 1
        values |= {"down": a_level * level + j + 1}  # eq (11.1) · ModelScope, unet_sd.py
        values |= {"halving": a_level * (level + 1)}
        values |= {"up": a_level * level + j, "doubling": a_level * (level + 1) - 1}
        values["after"] = 3 if config.attention[::-1][level] else 1  # the up-sampler follows what a block has
    if hasattr(config, "multipliers"):
        values["mirrored"] = len(config.multipliers) - 1 - level  # ModelScope counts from the finest resolution
    return values
