"""A model folder of our own layout: one safetensors file for each network, settings beside them.

    mini/config.json   unet.safetensors   autoencoder.safetensors   text.safetensors

The networks are those of the preset's system. Files are written atomically (a temporary name, then a rename) and read
strictly: a file that is damaged, cut short, foreign or of another preset is refused in one line with its name.
safetensors files hold only numbers: reading one runs no code. Those that are written here carry a digest of what they
hold, and are refused when it has changed; files of others have none.
"""

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from minit2v.checkpoints.fill import matched
from minit2v.checkpoints.reading import DIGEST, digest, read, read_json
from minit2v.errors import UserError
from minit2v.files import atomic, write_json
from minit2v.presets import Preset, unsaid
from minit2v.ranges import Place, public


@public
def read_preset(folder: Place) -> Preset:
    """The settings of a model folder. Raises UserError if its config.json is missing, damaged, or of another kind."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no config.json; expected the folder of a minit2v model")
    content = read_json(path)
    try:
        preset = Preset.from_dict(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if missing := unsaid(content, preset):
        warnings.warn(f"{path} says nothing of {', '.join(missing)}, so the paper's values are taken; was something cut "
                      "out?", stacklevel=3)  # fmt: skip
    return preset


def save_preset(folder: Path, preset: Preset) -> None:
    """Write config.json."""
    write_json(Path(folder) / "config.json", preset.to_dict())


def save_module(module, path: Path, dtype=None) -> None:
    """Write a module's state as safetensors, with floating point tensors cast to `dtype` if it is given. Raises UserError
    for a module with adapters attached, whose weights are computed."""
    if any(map(is_parametrized, module.modules())):
        raise UserError(f"{path}: expected weights to write, found adapters attached to them; merge or detach them first")
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    if dtype is not None:
        state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save_tensors(state, path)


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, with a digest of the tensors in its header: `reading` refuses a file that is no longer
    what was written. `metadata` is what else the header says."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    room = "0" * hashlib.sha256().digest_size * 2
    with atomic(path) as unfinished:
        try:
            save_file(tensors, unfinished, (metadata or {}) | {DIGEST: room})
        except SafetensorError as error:  # a full disk, for one
            raise OSError(str(error).splitlines()[0]) from None
        with open(unfinished, "r+b") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length).replace(room.encode(), digest(unfinished).encode(), 1)
            file.seek(8)
            file.write(header)
        unfinished.chmod(0o644)  # safetensors makes it readable for its owner alone


def load_into(module, path: Path):
    """Copy a safetensors file into a module, each tensor cast to the module's dtype; returns the module.

    Raises UserError naming the file when it is missing, damaged, not finite, or belongs to another preset.
    """
    module.load_state_dict(dict(matched(module, {key: (key,) for key in module.state_dict()}, read(path))))
    return module


@public
def save_model(folder: Place, preset: Preset, dtype: torch.dtype | None = None, **networks) -> None:
    """Write the given networks, then config.json, so that settings never describe networks that are not there yet. Whoever
    stops it leaves each file whole, of this model or of the one before."""
    for name, module in networks.items():
        save_module(module, Path(folder) / f"{name}.safetensors", dtype)
    save_preset(folder, preset)
