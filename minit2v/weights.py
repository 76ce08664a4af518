"""Weights on disk: one folder a model, one safetensors file a network, settings beside them.

    mini/config.json   unet.safetensors   autoencoder.safetensors   text.safetensors

Files are written atomically (a temporary name, then a rename) and read strictly: a file that is damaged, cut short,
foreign or of another preset is refused in one line with its name. safetensors files hold only numbers: reading one
runs no code.
"""

import hashlib
import json
from pathlib import Path

from minit2v.errors import UserError
from minit2v.files import atomic, data_dir
from minit2v.presets import PRESETS, Preset, get

NETWORKS = ("unet", "autoencoder", "text")  # the files of a model folder


def find_model(name: str | Path) -> Path:
    """The folder of a model: a shipped name ("mini") or a path, of any layout. Raises UserError that lists what is
    known."""
    from minit2v.released import layout_of

    for folder in (data_dir() / name, Path(name)):
        if (folder / "config.json").is_file() or layout_of(folder):
            return folder
    shipped = sorted(path.parent.name for path in data_dir().glob("*/config.json"))
    known = f"shipped are {', '.join(shipped) or 'none'}"
    folders = "a folder with a config.json, or of diffusers or ModelScope"
    raise UserError(f"unknown model {str(name)!r}; {known}; else give {folders}")


def read_preset(folder: Path) -> Preset:
    """The settings of a model folder. Raises UserError if config.json is none."""
    path = Path(folder) / "config.json"
    try:
        return Preset.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no config.json; expected the folder of a minit2v model") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); get the model again") from None


def save_preset(folder: Path, preset: Preset) -> None:
    """Write config.json."""
    with atomic(Path(folder) / "config.json") as path:
        path.write_text(json.dumps(preset.to_dict(), indent=1) + "\n")


def save_module(module, path: Path, dtype=None) -> None:
    """Write a module's state as safetensors; floating point tensors as `dtype` if given (float16 halves the file)."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    if dtype is not None:
        state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    with atomic(path) as unfinished:
        try:
            save_file(state, unfinished)
        except SafetensorError as error:  # what a full disk is to safetensors
            raise OSError(str(error).splitlines()[0]) from None
        unfinished.chmod(0o644)  # safetensors lets nobody else read


def load_into(module, path: Path):
    """Copy a safetensors file into a module, each tensor cast to the module's dtype; returns the module.

    Raises UserError naming the file when it is missing, damaged, not finite, or belongs to another preset.
    """
    from minit2v.released import matched
    from minit2v.released.reading import read

    module.load_state_dict(dict(matched(module, {key: (key,) for key in module.state_dict()}, read(path))))
    return module


def save_model(folder: Path, preset: Preset, unet=None, autoencoder=None, text=None, dtype=None) -> None:
    """Write config.json and the given networks."""
    save_preset(folder, preset)
    for name, module in zip(NETWORKS, (unet, autoencoder, text)):
        if module is not None:
            save_module(module, Path(folder) / f"{name}.safetensors", dtype)


def fingerprint(folder: Path) -> str:
    """sha256 over the files that are read of a model folder of any layout, in every precision that is there, shortened
    to 12 digits: two equal fingerprints are one model. Raises UserError for a folder that lacks a network."""
    from minit2v.released import needed
    from minit2v.released.layouts import file_of, layout_of

    folder = Path(folder)
    if layout_of(folder) == "minit2v":
        paths = [folder / "config.json", *(file_of(folder, network) for network in NETWORKS)]
    else:
        there = [path.relative_to(folder).as_posix() for pattern in ("*", "*/*") for path in folder.glob(pattern)]
        paths = [folder / name for name in sorted({*needed(there, half=True), *needed(there, half=False)})]
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):  # the released ones do not fit into memory everywhere
                digest.update(piece)
    return digest.hexdigest()[:12]


def preset_of(model: str) -> Preset:
    """The settings of a preset, a shipped name, or a folder of any layout. Raises UserError."""
    from minit2v import released

    if model in PRESETS and not (data_dir() / model).exists():
        return get(model)
    return released.preset_of(find_model(model))


def inspect(model: str) -> str:
    """A table of parameters: the UNet by kind and level, the autoencoder, the text tower. `model` is a preset, a
    shipped name, a folder or one file of any layout. Raises UserError."""
    import torch

    from minit2v.released import built
    from minit2v.released.layouts import networks_in

    if Path(model).is_file():
        configs = networks_in(Path(model))
    else:
        preset = preset_of(model)
        configs = {name: getattr(preset, name) for name in NETWORKS}
    with torch.device("meta"):
        parts = {name: built(name, config, Path(model)) for name, config in configs.items()}
    rows, notes = unet_rows(parts["unet"]) if "unet" in parts else ([], [])
    others = {"autoencoder": "autoencoder", "text": "text tower, as run"}
    rows += [(title, _count(parts[name])) for name, title in others.items() if name in parts]
    return "\n".join([f"{name:<28}{number:>16,}" for name, number in rows] + notes)


def _count(*modules) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def unet_rows(unet) -> tuple[list[tuple[str, int]], list[str]]:
    """(rows of the table for a UNet, what is to be said of them)."""
    from minit2v.blocks import TemporalConv, TemporalTransformer

    of_kind = lambda kind: _count(*(module for module in unet.modules() if isinstance(module, kind)))
    total, temporal = _count(unet), sum(p.numel() for p in unet.temporal_parameters())
    rows = [("UNet", total), ("  spatial", total - temporal), (f"  temporal ({temporal / total:.1%})", temporal)]
    rows += [("    convolutions", of_kind(TemporalConv)), ("    attention", of_kind(TemporalTransformer))]
    rows += [(f"  level {i}, down", _count(level)) for i, level in enumerate(unet.down)]
    rows += [("  middle", _count(unet.middle))]
    rows += [(f"  level {len(unet.up) - 1 - i}, up", _count(level)) for i, level in enumerate(unet.up)]
    return rows, paper_figures(total, temporal) if total == RELEASED else []


RELEASED, STABLE_DIFFUSION_1 = 1_411_233_860, 859_520_964  # parameters of the UNets of ModelScopeT2V, of SD 1


def paper_figures(total: int, temporal: int) -> list[str]:
    """Where the paper's 1,345M parameters, 552M of them temporal, 39 %, come from: two units and two base models."""
    added = total - STABLE_DIFFUSION_1
    return [
        "",
        f"The paper says 1,345M, 552M and 39 %: {total:,} is {total / 2**20:,.1f} in units of 2^20;",
        f"less Stable Diffusion 1's UNet ({STABLE_DIFFUSION_1:,}) it is {added / 1e6:.1f}M, {added / total:.1%}.",
        f"But it grew from that of version 2 ({total - temporal:,}),",
        f"so {temporal / 1e6:.1f}M are temporal, {temporal / total:.1%}.",
    ]
