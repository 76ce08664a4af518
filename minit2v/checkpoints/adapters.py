"""Files of adapters (`networks.lora`) for a UNet: those of others are read, ours are written as PEFT's.

    adapter_config.json  adapter_model.safetensors     PEFT: base_model.model.PLACE.lora_A.weight, lora_B
    pytorch_lora_weights.safetensors                   diffusers: unet.PLACE.lora_A.weight, .lora.down, _lora.down, …
    one file                                           kohya: lora_unet_PLACE.lora_down.weight, lora_up, alpha
    one file                                           Stable-LoRA (Text-To-Video-Finetuning): PLACE.lora_A, lora_B
    one file                                           cloneofsimo: up and down of every layer by number, or a bare list

PLACE is a layer's name in any of the three layouts (see `names`). What a file says of the scale is kept: alpha / rank of
PEFT and kohya, 1 where nothing is said. Whatever cannot be added as it was trained is refused with the reason: adapters
of the text tower, DoRA, LoHa and other kinds, changes of biases, layers that the network does not have.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from minit2v.checkpoints.fill import finite
from minit2v.checkpoints.folder import save_tensors
from minit2v.checkpoints.foreign import ADAPTED, ADAPTER, bare
from minit2v.checkpoints.names import LAYOUTS, axes, names_of
from minit2v.checkpoints.reading import SUFFIXES, Tensors, inside, metadata, read, read_json
from minit2v.errors import UserError
from minit2v.files import write_json
from minit2v.networks.lora import Adapter, LowRank, layers_of, merge
from minit2v.networks.unet import UNet
from minit2v.ranges import Range, shown

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # of PEFT
FILES = (WEIGHTS, "pytorch_lora_weights.safetensors", "adapter_model.bin", "pytorch_lora_weights.bin")  # of a folder
ENTRY = "lora_adapter_metadata"  # of diffusers, in the header of a file: the settings, for each network
PREFIX = "base_model.model."  # of PEFT's names
KOHYA = "lora_unet_"  # with _ instead of dots
NAMED = re.compile(  # a layer's name, then which matrix of it
    r"(?P<place>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<matrix>A|B|down|up)(?:\.default)?(?P<weight>\.weight)?"
    r"|\.(?P<alpha>alpha))"
)
NUMBERED = re.compile(r"unet:(?P<number>[0-9]{1,6}):(?P<matrix>up|down)")  # cloneofsimo
LISTED = re.compile(r"[0-9]{1,6}")  # its list: up, down, up, down, …
LARGEST_ALPHA = 1e6  # nobody means more
NUMBERS = {  # of adapter_config.json: key -> its range, whether it is whole, and the key of those for some layers
    "r": (Range(1, 2**16), True, "rank_pattern"), "lora_alpha": (Range(-LARGEST_ALPHA, LARGEST_ALPHA), False, "alpha_pattern"),
}  # fmt: skip
PATTERN = re.compile(r"\^?[\w.]+\$?")  # of layers in the settings; another one, of a stranger, could take forever
MATRICES = {"A": "down", "B": "up", "down": "down", "up": "up"}
OTHER_KINDS = {  # a part of a name -> what it is
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "hada_": "LoHa", "lokr_": "LoKr", "lora_mid": "LoCon of CP form",
    "ia3": "IA3", "oft_": "OFT", "bias": "a change of biases", "lora_embedding": "a change of embeddings",
    "<embed>": "an embedding",
}  # fmt: skip
ONLY = {  # of adapter_config.json: key -> the values that can be honoured; a missing key stands for the first
    "peft_type": ("LORA",), "bias": ("none",), "use_dora": (False, None), "fan_in_fan_out": (False, None),
    "lora_bias": (False, None), "modules_to_save": (None, []), "layer_replication": (None,), "use_qalora": (False, None),
    "alora_invocation_tokens": (None,), "target_parameters": (None, []), "trainable_token_indices": (None,),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),  # others change the weights below too
}  # fmt: skip
# how diffusers lists its layers, which is the order of files without names; since version 0.17, and before it
ORDER = (
    "conv_in", "time_embedding", "transformer_in", "down_blocks", "up_blocks", "mid_block", "conv_out",
    "resnets", "temp_convs", "attentions", "temp_attentions", "downsamplers", "upsamplers", "conv",
    "conv1", "time_emb_proj", "conv2", "conv_shortcut", "conv3", "conv4", "linear_1", "linear_2",
    "proj_in", "transformer_blocks", "proj_out", "attn1", "attn2", "ff", "to_q", "to_k", "to_v", "to_out", "net", "proj",
)  # fmt: skip
OLD_ORDER = tuple({"attn2": "ff", "ff": "attn2"}.get(word, word) for word in ORDER)


@dataclass(frozen=True)
class Pair:
    """Names in a file of the matrices of one layer."""

    place: str  # the layer's name in the file
    down: str  # A
    up: str  # B
    alpha: str | None = None
    long: bool = False  # of Stable-LoRA, whose products may be longer than the weight


def read_adapter(place: str | Path, network: nn.Module) -> Adapter:
    """The adapter in a folder or file, for a network. Raises UserError in one line for what is missing, damaged, of
    another network, or cannot be added as it was trained."""
    tensors, config = _opened(file_of(Path(place)))
    pairs = _by_number(tensors, network) or _by_name(tensors, network)
    return Adapter({name: _low_rank(pair, tensors, config, network.get_submodule(name)) for name, pair in pairs.items()})


def check_adapter(folder: Path) -> None:
    """Raises UserError as `read_adapter`, for an adapter in PEFT's files and whatever can be told without its network."""
    tensors, config = _opened(inside(folder, folder / WEIGHTS))
    for pair in _pairs(tensors).values():
        _low_rank(pair, tensors, config)


def _opened(path: Path) -> tuple[Tensors, dict]:
    """The tensors of an adapter's file and its settings, both of a kind that can be added."""
    tensors, config = read(path), settings(path)
    _refuse_other_kinds(tensors)
    _check_settings(config, path)
    return tensors, config


def merge_into(network: nn.Module, place: str | Path, strength: float = 1.0) -> None:
    """Add the adapter in a folder or file to the weights of a network. Raises UserError as `read_adapter`."""
    merge(network, read_adapter(place, network), strength)


def file_of(place: Path) -> Path:
    """The file of weights of an adapter that is a folder or a file. Raises UserError."""
    if os.path.isfile(place):  # False where a name is too long, which Path.is_file raises for
        return place
    found = next((place / name for name in FILES if os.path.isfile(place / name)), None)
    if found is None:
        what = "no folder or file" if not os.path.exists(place) else "a folder without one"
        raise UserError(f"{place}: expected an adapter, a file or a folder with {WEIGHTS}, found {what}; check the path")
    return inside(place, found)


def is_adapter(place: Path) -> bool:
    """Whether a folder has the files of an adapter, or a file of weights the names of one."""
    if place.is_dir():
        return any((place / name).is_file() for name in FILES)
    return place.is_file() and place.suffix in SUFFIXES and any(ADAPTER.search(name) for name in read(place))


def settings(path: Path) -> dict:
    """What PEFT's config beside a file says, or diffusers' entry in its header; {} if neither is there."""
    config = path.parent / CONFIG
    if path.stem == Path(WEIGHTS).stem and os.path.lexists(config):
        if not config.is_file():
            raise UserError(f"{config}: expected a file of settings, found something else; get it again")
        return read_json(inside(path.parent, config))
    try:
        found = json.loads(metadata(path).get(ENTRY) or "{}")
        return {key.removeprefix("unet."): value for key, value in found.items() if key.startswith("unet.")}
    except (ValueError, RecursionError, AttributeError):
        raise UserError(f"{path} is damaged: {ENTRY} in its header is no dictionary; get it again") from None


def _check_settings(config: Mapping, path: Path) -> None:
    for key, values in ONLY.items():
        if (value := config.get(key, values[0])) not in values:
            raise UserError(f"{path}: {key}: expected {values[0]!r}, found {str(value)[:60]!r}, which cannot be added to "
                            "the weights as it was trained; merge it with the program that made it")  # fmt: skip
    if (value := config.get("use_rslora")) not in (None, False, True):
        raise UserError(f"{path}: use_rslora: expected true or false, found {shown(value)}; get it again")
    for key, (numbers, whole, patterns) in NUMBERS.items():
        of_layers = {} if config.get(patterns) is None else config[patterns]
        if not isinstance(of_layers, dict):
            raise UserError(f"{path}: {patterns}: expected numbers by name, found {shown(of_layers)}; get it again")
        for pattern in of_layers:
            if not PATTERN.fullmatch(pattern):
                raise UserError(f"{path}: {patterns}: expected names of layers, found {shown(pattern)}; get it again")
        said = [(key, config[key])] if key in config else []
        for name, value in (*said, *((f"{patterns}: {pattern}", value) for pattern, value in of_layers.items())):
            if not numbers.holds(value, whole):
                raise UserError(f"{path}: {name}: expected {numbers.wanted(whole)}, found {shown(value)}; get it again")


def _refuse_other_kinds(tensors: Tensors) -> None:
    for name in tensors:
        if kind := next((kind for part, kind in OTHER_KINDS.items() if part in name), None):
            raise UserError(f"{tensors.path}: expected LoRA matrices, found {kind} ({name}), which is not read here; merge "
                            "it with the program that made it")  # fmt: skip
        if name.startswith("lora_te") or any(word in name for word in ADAPTED["text"]):
            raise UserError(f"{tensors.path}: expected an adapter of the UNet alone, found {name} for the text tower too, "
                            "which is not adapted here; save the UNet's part by itself")  # fmt: skip


def _by_name(tensors: Tensors, network: nn.Module) -> dict[str, Pair]:
    """{our name of a layer: its matrices} of a file with names. Raises UserError."""
    known, pairs = aliases(network), {}
    for place, pair in _pairs(tensors).items():
        ours = known.get(pair.place)
        if ours is None or ours in pairs:
            what = f"found {place}, which it does not have" if ours is None else f"found {ours} twice"
            raise UserError(f"{tensors.path} is of another model: expected layers of this UNet, {what}; "
                            "choose the model that it was made for")  # fmt: skip
        pairs[ours] = pair
    return pairs


def _pairs(tensors: Tensors) -> dict[str, Pair]:
    """{name of a layer: its matrices}, both as the file has them. Raises UserError."""
    groups, long = {}, False
    for name in tensors:
        found = NAMED.fullmatch(name)
        if not found:
            raise UserError(f"{tensors.path}: expected the matrices of an adapter (lora_A, lora_B, lora_down, lora_up), "
                            f"found {name}; is it another file?")  # fmt: skip
        kind = "alpha" if found["alpha"] else MATRICES[found["matrix"]]
        groups.setdefault(found["place"], {})[kind] = name
        long |= kind != "alpha" and found["matrix"] in "AB" and not found["weight"]
    for place, group in groups.items():
        if missing := {"down", "up"} - group.keys():
            raise UserError(f"{tensors.path} is damaged: {place}: expected two matrices, found no {missing.pop()}; "
                            "get it again")  # fmt: skip
    if not groups:
        raise UserError(f"{tensors.path}: expected the matrices of an adapter, found none; is it another file?")
    return {place: Pair(_bare(place), **group, long=long) for place, group in groups.items()}


def _bare(place: str) -> str:
    """A layer's name without what programs put before or into it.

    >>> _bare("base_model.model.unet.down_blocks.0.attentions.0.attn1.processor.to_q"), _bare("lora_unet_conv_in")
    ('down_blocks.0.attentions.0.attn1.to_q', 'conv_in')
    """
    return bare(place.replace(PREFIX, "").removeprefix(KOHYA).replace(".processor.", "."))


def aliases(network: nn.Module) -> dict[str, str]:
    """{every name under which a file may know a layer: ours}: of the three layouts, with dots and with kohya's _."""
    found = {}
    for ours in layers_of(network):
        for layout in LAYOUTS if isinstance(network, UNet) else LAYOUTS[:1]:
            name = _in_layout(ours, network, layout)
            for alias in (name, name.removesuffix(".0")):  # the first programs wrote to_out for to_out.0
                found |= {alias: ours, alias.replace(".", "_"): ours}
    return found


def _in_layout(ours: str, network: nn.Module, layout: str) -> str:
    return names_of("unet", f"{ours}.weight", getattr(network, "config", None), layout)[0].removesuffix(".weight")


def _by_number(tensors: Tensors, network: nn.Module) -> dict[str, Pair]:
    """The same of a file whose matrices have numbers: one pair for each layer, in diffusers' order. Empty for a file
    with names. Raises UserError for numbers that do not fit the layers."""
    numbered = {name: NUMBERED.fullmatch(name) for name in tensors}
    if tensors and all(map(LISTED.fullmatch, tensors)):
        numbers = [(name, int(name) // 2, ("up", "down")[int(name) % 2]) for name in tensors]
    elif all(numbered.values()):
        numbers = [(name, int(found["number"]), found["matrix"]) for name, found in numbered.items()]
    else:
        return {}
    groups: dict[int, dict[str, str]] = {}
    for name, number, matrix in numbers:
        groups.setdefault(number, {})[matrix] = name
    layers, pairs = layers_of(network), [groups[number] for number in sorted(groups)]
    if len(pairs) == len(layers) and all(len(pair) == 2 for pair in pairs):
        for order in (ORDER, OLD_ORDER):
            listed = in_order(network, order)
            if all(_fits(layers[name], tensors.shapes[pair["down"]], tensors.shapes[pair["up"]])
                   for name, pair in zip(listed, pairs)):  # fmt: skip
                return {name: Pair(name, **pair) for name, pair in zip(listed, pairs)}
    raise UserError(f"{tensors.path} numbers its layers instead of naming them: expected {len(layers)} pairs of matrices, "
                    f"one for each layer of this UNet in diffusers' order, found {len(pairs)} of other layers or shapes; "
                    "choose the model that it was made for")  # fmt: skip


def in_order(network: nn.Module, order: tuple[str, ...] = ORDER) -> list[str]:
    """Our names of the layers, as diffusers lists them; layers that it does not have come last."""
    theirs = {ours: _in_layout(ours, network, "diffusers").split(".") for ours in layers_of(network)}
    place = lambda part: int(part) if part.isdecimal() else order.index(part) if part in order else len(order)
    return sorted(theirs, key=lambda ours: [place(part) for part in theirs[ours]])


def _go_together(down: tuple[int, ...], up: tuple[int, ...]) -> bool:
    """Whether matrices of these shapes have a rank in common: (r, in …) and (out, r …)."""
    return len(down) > 1 and len(up) > 1 and down[0] == up[1] > 0


def _fits(layer: nn.Module, down: tuple[int, ...], up: tuple[int, ...]) -> bool:
    """Whether matrices of these shapes change the weight of a layer: (r, in, taps …) and (out, r, 1 …)."""
    weight = tuple(layer.weight.shape)
    trimmed = lambda shape: tuple(shape[2 : max((i + 1 for i, n in enumerate(shape) if n != 1), default=0)])
    same = _go_together(down, up) and (up[0], down[1]) == weight[:2]
    return same and trimmed(down) == trimmed(weight) and not trimmed(up)


def _fits_long(layer: nn.Module, down: tuple[int, ...], up: tuple[int, ...]) -> bool:
    """The same of Stable-LoRA's convolutions with k taps a side: (r k, in k) and (out k, r k)."""
    out, into, k = *layer.weight.shape[:2], layer.weight.shape[2] if layer.weight.ndim > 2 else 1
    return _go_together(down, up) and len(down) == len(up) == 2 and (up[0], down[1]) == (out * k, into * k)


def _low_rank(pair: Pair, tensors: Tensors, config: Mapping, layer: nn.Module | None = None) -> LowRank:
    """The change of a layer, or of one that nobody knows yet."""
    down, up = tensors.shapes[pair.down], tensors.shapes[pair.up]
    fits = _go_together(down, up) if layer is None else (_fits_long if pair.long else _fits)(layer, down, up)
    if not fits:
        wanted = "that go together" if layer is None else f"for a weight {tuple(layer.weight.shape)}"
        raise UserError(f"{tensors.path} is of another model: {pair.place}: expected matrices {wanted}, found {down} and {up}; "
                        "choose the model that it was made for")  # fmt: skip
    A, B = (_numbers(name, tensors).flatten(1) for name in (pair.down, pair.up))
    return LowRank(A, B, 1.0 if pair.long else _scale(pair, len(A), tensors, config))


def _numbers(name: str, tensors: Tensors) -> Tensor:
    value = tensors[name]
    if not value.is_floating_point() or not finite(value.float()):
        raise UserError(f"{tensors.path} is damaged: {name} holds no finite numbers; get it again")
    return value.double().clone() if value.dtype.itemsize == 8 else value.float().clone()


def _scale(pair: Pair, rank: int, tensors: Tensors, config: Mapping) -> float:
    """alpha / rank, from the file's own alpha or the settings; 1 where nothing is said. Raises UserError for another rank
    than the settings say."""
    if (said := _of_layer("r", pair.place, config, rank)) != rank:
        raise UserError(f"{tensors.path}: {pair.place}: expected matrices of rank {said}, as its settings say, found {rank}; "
                        "get both files again")  # fmt: skip
    alpha, numbers = _of_layer("lora_alpha", pair.place, config, rank), NUMBERS["lora_alpha"][0]
    if pair.alpha:
        alpha = _numbers(pair.alpha, tensors)
        alpha = alpha.item() if alpha.numel() == 1 else None
    if not numbers.holds(alpha, whole=False):
        raise UserError(f"{tensors.path}: {pair.place}: expected a number as alpha, found {str(alpha)[:60]!r}; get it again")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)  # eq (20.2) · LoRA, section 4.1


def _of_layer(key: str, place: str, config: Mapping, default: float) -> float:
    """What the settings say of a layer: by the first pattern for it, as PEFT, else for all."""
    for pattern, value in (config.get(NUMBERS[key][2]) or {}).items():
        name = pattern.strip("^$")
        if place == name or not pattern.startswith("^") and place.endswith(f".{name}"):
            return value
    return config.get(key, default)


def save_adapter(folder: str | Path, adapter: Adapter, network: nn.Module, base: str) -> Path:
    """Write an adapter of one rank and scale as PEFT's two files, under diffusers' names; returns the folder.

    `base` is the name of the model that it belongs to. PEFT reads it onto diffusers' network of the same sizes. Raises
    UserError for several ranks or scales.
    """
    folder, tensors, places = Path(folder), {}, []
    kinds = {(len(part.A), part.scale) for _, part in adapter.items()}
    if len(kinds) != 1:
        raise UserError(f"{folder}: expected an adapter of one rank and scale, found {len(kinds)}; save one of `lora.fresh`")
    ((rank, scale),) = kinds
    layout = "diffusers" if isinstance(network, UNet) else "minit2v"
    for ours, part in adapter.items():
        weight, place = network.get_submodule(ours).weight, _in_layout(ours, network, layout)
        more = [1] * (axes("unet", f"{ours}.weight", layout, weight.ndim) - weight.ndim)
        A, B = (matrix.detach().cpu() for matrix in (part.A, part.B))
        A = A.reshape(rank, *weight.shape[1:], *more)
        tensors[f"{PREFIX}{place}.lora_A.weight"] = A.contiguous()
        tensors[f"{PREFIX}{place}.lora_B.weight"] = B.reshape(*B.shape, *[1] * (A.ndim - 2)).contiguous()
        places.append(place)
    config = {
        "peft_type": "LORA", "base_model_name_or_path": base, "task_type": None, "r": rank, "lora_alpha": scale * rank,
        "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "use_rslora": False, "use_dora": False,
        "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "init_lora_weights": True, "inference_mode": True,
        "target_modules": sorted(places),
    }  # fmt: skip
    save_tensors(tensors, folder / WEIGHTS)
    write_json(folder / CONFIG, config)
    return folder
