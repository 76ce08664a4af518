"""The layouts of a model folder: which one it is, and which file is which network, from the names of its files alone.

    minit2v       config.json  and a file NETWORK.safetensors for each network of its system
    diffusers     model_index.json  unet/  vae/  text_encoder/  each with config.json and .safetensors or .bin
    modelscope    configuration.json  text2video_pytorch_model.pth  VQGAN_autoencoder.pth  open_clip_pytorch_model.bin

So the same rules serve a folder on disk (`source`) and a model of the hub before its download (`hub`).
"""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from minit2v.errors import UserError
from minit2v.systems import SYSTEMS, System

FOLDERS = {"unet": "unet", "autoencoder": "vae", "text": "text_encoder"}  # of a diffusers folder
FILES = {  # of a ModelScope folder
    "unet": "text2video_pytorch_model.pth",
    "autoencoder": "VQGAN_autoencoder.pth",
    "text": "open_clip_pytorch_model.bin",
}
INDICES = {"diffusers": "model_index.json", "modelscope": "configuration.json"}  # of a folder: what it is, in words
RELEASED = tuple(FOLDERS)  # the networks that the layouts of others have a place for
READ = ("", *(f"{folder}/" for folder in (*FOLDERS.values(), "tokenizer", "scheduler")))  # folders that are looked into
DESCRIBED = re.compile(  # what is said of the networks beside their tensors
    r"(config|configuration|model_index)\.json|(unet|vae|text_encoder)/config\.json|scheduler/scheduler_config\.json"
    r"|tokenizer/(tokenizer_config|special_tokens_map|added_tokens|tokenizer)\.json"
)
STEM = r"(?:diffusion_pytorch_model|pytorch_model|model)"
WEIGHTS = re.compile(  # a whole file or the index of its parts, of a variant such as fp16, in a diffusers folder
    rf"{STEM}(?:\.(?P<variant>\w+))?(?P<suffix>\.safetensors|\.bin)|{STEM}(?P<suffix_of_parts>\.safetensors|\.bin)"
    r"\.index(?:\.(?P<variant_of_parts>\w+))?\.json"
)
PART = re.compile(rf"{STEM}(?:\.(?P<before>\w+))?-\d+-of-\d+(?:\.(?P<after>\w+))?(?:\.safetensors|\.bin)")


def layout_of(files: Collection[str]) -> str | None:
    """ "minit2v", "diffusers", "modelscope", or None, from names relative to the folder."""
    if "config.json" in files and _share(files, _closest(files)):
        return "minit2v"
    if "model_index.json" in files or any(f"{folder}/config.json" in files for folder in FOLDERS.values()):
        return "diffusers"
    if any(name in files for name in _modelscope(FILES["unet"])):
        return "modelscope"
    return None


def file_of(files: Collection[str], layout: str | None, network: str, half: bool) -> str | None:
    """The file of a network; None if there is none. In a diffusers folder safetensors go before pickles; then the order
    is no variant, fp16, bf16, or with `half` fp16, bf16, no variant. Other variants (non_ema, …) come last."""
    if layout == "minit2v":
        names = [f"{network}.safetensors"]
    elif layout == "modelscope":
        names = _modelscope(FILES[network])
    else:
        folder = FOLDERS[network] + "/"
        ranked = {name: _rank(name.removeprefix(folder), half) for name in sorted(files) if name.startswith(folder)}
        names = sorted((name for name in ranked if ranked[name]), key=ranked.get)
    return next((name for name in names if name in files), None)


def needed(files: Collection[str], half: bool) -> list[str]:
    """Which files of a folder are read: one for each network (or its parts), and what is said of them. Raises UserError
    if a network is missing."""
    layout = layout_of(files)
    chosen = [name for name in files if DESCRIBED.fullmatch(name)]
    for network in _closest(files).networks if layout == "minit2v" else RELEASED:
        best = file_of(files, layout, network, half)
        if best is None:
            raise UserError(f"expected a text-to-video model, found no {network} in its files; choose another")
        chosen.append(best)
        if best.endswith(".json"):
            chosen += parts_of(files, best)
    return chosen


def _closest(files: Collection[str]) -> System:
    """The system of a folder of ours, from names alone: the one of whose networks the largest share is there, and of
    several such the one that has most."""
    return max(SYSTEMS.values(), key=lambda system: (_share(files, system), len(system.networks)))


def _share(files: Collection[str], system: System) -> float:
    return sum(f"{network}.safetensors" in files for network in system.networks) / len(system.networks)


def variant_of(file: str) -> str | None:
    """The variant that a file of a diffusers folder is of, as "fp16" or "non_ema"."""
    found = WEIGHTS.fullmatch(PurePosixPath(file).name)
    return found and (found["variant"] or found["variant_of_parts"])


def parts_of(files: Collection[str], index: str) -> list[str]:
    """The files that an index in a diffusers folder may name, from names alone: all parts of its variant."""
    folder, variant = str(PurePosixPath(index).parent), variant_of(index)
    parts = {name: PART.fullmatch(name.removeprefix(folder + "/")) for name in files}
    return [name for name, part in parts.items() if part and (part["before"] or part["after"]) == variant]


def _modelscope(name: str) -> list[str]:
    return [str(PurePosixPath(name).with_suffix(".safetensors")), name]


def _rank(name: str, half: bool) -> tuple | None:
    """A file's place in the order of `file_of`; None if it holds no weights."""
    found = WEIGHTS.fullmatch(name)
    if not found:
        return None
    variant, suffix = found["variant"] or found["variant_of_parts"], found["suffix"] or found["suffix_of_parts"]
    order = ("fp16", "bf16", None) if half else (None, "fp16", "bf16")
    place = order.index(variant) if variant in order else len(order)
    return place == len(order), suffix != ".safetensors", place, name.endswith(".json")
