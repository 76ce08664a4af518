"""The tensors of one network in a file of any origin, under the names of its layout.

    module._orig_mod.down_blocks.0.…          what programs put before a name is taken off
    model.diffusion_model.input_blocks.0.…    a whole checkpoint of Stable Diffusion holds all three networks
    model_ema.…                               averages of the weights take the place of the last weights
    encoder.mid_block.attentions.0.query      older names become the newer ones

Files that hold something else than a network (adapters, another network) are refused with what they are.
"""

import re
import warnings

from minit2v.checkpoints.reading import Tensors
from minit2v.checkpoints.sizes import tokens_of
from minit2v.errors import UserError
from minit2v.networks.text import CLIP_TOKENS
from minit2v.presets import TextConfig

ROOTS = {  # where a network is in a whole Stable Diffusion checkpoint
    "unet": "model.diffusion_model.",
    "autoencoder": "first_stage_model.",
    "text": "cond_stage_model.model.",
}
MARKS = {  # how some names begin
    "unet": {"minit2v": "down.", "diffusers": "down_blocks.", "modelscope": "input_blocks."},
    "autoencoder": {"minit2v": "encoder.levels.", "diffusers": "encoder.down_blocks.", "modelscope": "encoder.down."},
    "text": {"minit2v": "blocks.", "diffusers": "encoder.layers.", "modelscope": "transformer.resblocks."},
}
AVERAGED = ("model_ema.", "ema_model.", "ema.")
PREFIXES = (
    "module.", "_orig_mod.", "model.", "online_model.", *AVERAGED, "diffusion_model.", "text_model.", "text_encoder.",
    "unet.", "vae.", "autoencoder.",
)  # fmt: skip
LEGACY_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # autoencoder folders of 2023
DROPPED = re.compile(  # nothing here runs it
    r"visual\.|attn_mask$|logit_(scale|bias)$|text_projection|.*position_ids$|loss\.|(decay|num_updates|initted|step)$"
)
ADAPTER = re.compile(r"(^|[._])(lora|hada|lokr|ia3)[._]", re.IGNORECASE)
QUANTIZED = re.compile(  # numbers beside the weights, without which these mean nothing: float8 with scales, 8 and 4 bits
    r"(^|\.)(scaled_fp8|scale_weight|weight_scale|scale_input|input_scale|SCB|qweight|weight\.(absmax|quant_map))$"
)
ADAPTED = {
    "unet": ("unet", "down_blocks", "input_blocks", "mid_block"),
    "text": ("text_model", "text_encoder", "lora_te", "resblocks"),
}


def network_tensors(tensors: Tensors, network: str) -> tuple[Tensors, str]:
    """The tensors of a network in a file that may hold more, and the layout of their names. Raises UserError."""
    refuse_adapters(tensors)
    found, averages = averaged(tensors)
    root = ROOTS[network]
    if any(root in name for name in found):
        found = {name.split(root, 1)[1]: old for name, old in found.items() if root in name}
    found = {bare(name): old for name, old in found.items() if not DROPPED.match(bare(name))}
    if scale := next(filter(QUANTIZED.search, found), None):
        raise UserError(f"{tensors.path}: expected plain weights, found quantized ones ({scale} says how); get the file in "
                        "float16")  # fmt: skip
    if used := averages.intersection(found.values()):
        warnings.warn(f"{tensors.path} holds averaged weights of the {network} ({sorted(used)[0]}, …): they are used, "
                      "not the last ones", stacklevel=4)  # fmt: skip
    layout = next((layout for layout, mark in MARKS[network].items() if any(n.startswith(mark) for n in found)), None)
    if layout is None:
        names = f"found {', '.join(list(found)[:3]) or 'nothing'}; is it another network's file?"
        raise UserError(f"{tensors.path}: expected tensors of the {network}, {names}")
    if network == "unet" and layout == "modelscope" and not any("temopral_conv" in name for name in found):
        found = {_as_if_temporal(name): old for name, old in found.items()}
    if network == "autoencoder":
        found = {".".join(LEGACY_NAMES.get(part, part) for part in name.split(".")): old for name, old in found.items()}
    return tensors.under(found), layout


def networks_in(tensors: Tensors) -> list[str]:
    """The networks of which a file holds tensors. Raises UserError if there is none."""
    refuse_adapters(tensors)
    found = []
    for network, root in ROOTS.items():
        inside = [name.split(root, 1)[1] for name in tensors if root in name] or list(tensors)
        names = [bare(name) for name in inside]
        found += [network] * any(name.startswith(mark) for name in names for mark in MARKS[network].values())
    if not found:
        names = ", ".join(list(tensors)[:3])
        raise UserError(f"{tensors.path}: expected a UNet, an autoencoder or a text tower, found {names}")
    return found


def bare(name: str) -> str:
    """A name without what training programs put before it.

    >>> bare("module._orig_mod.unet.conv_in.weight")
    'conv_in.weight'
    """
    name = name.replace("._orig_mod.", ".")  # compiled parts of a network
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def averaged(tensors: Tensors) -> tuple[dict[str, str], set[str]]:
    """({name: name in the file}, those of the second that are averages): averages in the place of the last weights.

    Stable Diffusion's training writes the average of model.diffusion_model.out.2.bias as
    model_ema.diffusion_modelout2bias.
    """
    prefix = next((p for p in AVERAGED if any(name.startswith(p) for name in tensors)), None)
    if prefix is None:
        return {name: name for name in tensors}, set()
    last = [name for name in tensors if not name.startswith(prefix)]
    spellings = lambda name: {form.replace(".", "") for form in (name, bare(name), name.removeprefix("model."))}
    averages = {form: name for name in tensors if name.startswith(prefix) for form in spellings(name[len(prefix) :])}
    twin = lambda name: next((averages[form] for form in spellings(name) if form in averages), name)
    found = {name: twin(name) for name in last}
    alone = {name: name for name in averages.values() if name not in found.values()}
    return found | alone, set(averages.values())


def _as_if_temporal(name: str) -> str:
    """Stable Diffusion counts what a block has; without temporal layers the numbers behind them are one lower."""
    name = re.sub(r"^middle_block\.2\.", "middle_block.3.", name)
    return re.sub(r"^(output_blocks\.\d+)\.2\.conv\.", r"\1.3.conv.", name)


def refuse_adapters(tensors: Tensors) -> None:
    """Raises UserError for a file of adapters (LoRA and its kin), naming the networks that they are for."""
    names = [name for name in tensors if ADAPTER.search(name)]
    if names:
        bases = [network for network, words in ADAPTED.items() if any(word in name for name in names for word in words)]
        found = f"found adapters for the {' and the '.join(bases) or 'model'} ({len(names)} tensors, as {names[0]})"
        todo = "add them to the model that they were made for with --lora"
        raise UserError(f"{tensors.path}: expected a whole network, {found}; {todo}")


def as_run(tensors: Tensors, layout: str, config: TextConfig) -> Tensors:
    """The tensors of a text tower without blocks that are not run, and without rows of the vocabulary that no token of
    the tokenizer has: a line says how many."""
    blocks = config.layers - config.skip_last
    run = tensors.renamed(lambda name: None if _block(name) >= blocks else name)
    name, used = tokens_of(layout), CLIP_TOKENS + len(config.added_tokens)
    rows = run.shapes[name][0]
    if rows <= used:
        return run
    named = f"{used:,} tokens ({', '.join(config.added_tokens)} added)" if config.added_tokens else f"CLIP's {used:,}"
    warnings.warn(f"{tensors.path} has {rows:,} rows in its vocabulary, the tokenizer names {named}: rows {used} to "
                  f"{rows - 1} are left out, as no prompt can use them", stacklevel=4)  # fmt: skip
    return run.cut(name, used)


def _block(name: str) -> int:
    """Which block of the text tower a name belongs to; -1 if none."""
    block = re.match(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.", name)
    return int(block[1]) if block else -1
