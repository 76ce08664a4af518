"""Where a model is: a shipped name, a preset, or a folder of any layout."""

import hashlib
from pathlib import Path

from minit2v.checkpoints.folder import NETWORKS
from minit2v.checkpoints.hub import needed
from minit2v.checkpoints.layouts import file_of, layout_of
from minit2v.checkpoints.layouts import preset_of as preset_of_folder
from minit2v.errors import UserError
from minit2v.files import data_dir
from minit2v.presets import PRESETS, Preset, get


def find_model(name: str | Path) -> Path:
    """The folder of a model: a shipped name ("mini") or a path, of any layout. Raises UserError that lists what is
    known."""
    for folder in (data_dir() / name, Path(name)):
        if (folder / "config.json").is_file() or layout_of(folder):
            return folder
    shipped = sorted(path.parent.name for path in data_dir().glob("*/config.json"))
    known = f"shipped are {', '.join(shipped) or 'none'}"
    folders = "a folder with a config.json, or of diffusers or ModelScope"
    raise UserError(f"unknown model {str(name)!r}; {known}; else give {folders}")


def fingerprint(folder: Path) -> str:
    """sha256 over the files that are read of a model folder of any layout, in every precision that is there, shortened
    to 12 digits: two equal fingerprints are one model. Raises UserError for a folder that lacks a network."""
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
    if model in PRESETS and not (data_dir() / model).exists():
        return get(model)
    return preset_of_folder(find_model(model))
