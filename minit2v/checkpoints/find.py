"""Where a model is: a shipped name, a preset, or a folder of any layout."""

import os
from pathlib import Path

from minit2v.checkpoints.adapters import is_adapter
from minit2v.checkpoints.shipped import unknown
from minit2v.checkpoints.source import Source
from minit2v.errors import UserError
from minit2v.files import data_dir, sha256
from minit2v.presets import Preset
from minit2v.ranges import Place, public
from minit2v.systems import SYSTEMS, find_preset


@public
def find_source(name: Place, half: bool = False) -> Source:
    """The source of a shipped name ("mini") or a path. Raises UserError that says what was found there, or which names
    are known."""
    folders = [folder for folder in dict.fromkeys((data_dir() / name, Path(name))) if os.path.isdir(folder)]
    for source in (Source(folder, half) for folder in folders):
        if source.layout:
            return source
    if any(is_adapter(place) for place in (*folders, Path(name))):
        raise UserError(f"expected a whole model, found the adapter {name}; name its model, and add it with --lora {name}")
    expected = "expected a model's folder, with a config.json and its networks, or of diffusers or ModelScope"
    if folders:
        raise UserError(f"{expected}, found none of these in {folders[-1]}; choose another folder")
    if Path(name).exists():
        raise UserError(f"{expected}, found the file {name}; name its folder")
    if "/" in str(name) or os.sep in str(name):
        raise UserError(f"{expected}, found no folder {name}; check the path")
    raise unknown(name)


def find_model(name: str | Path) -> Path:
    """The folder of a model; see `find_source`."""
    return find_source(name).path


@public
def fingerprint(folder: Place) -> str:
    """sha256 over the files that are read of a model folder of any layout, in every precision that is there, shortened
    to 12 digits: two equal fingerprints are one model. Raises UserError for a folder that lacks a network."""
    return sha256(*Source(folder).read_files())[:12]


def is_preset(model: str | Path) -> bool:
    """Whether that is the name of a preset, and of no shipped model."""
    return any(model in row.presets for row in SYSTEMS.values()) and not (data_dir() / model).exists()


@public
def preset_of(model: Place) -> Preset:
    """The settings of a preset, a shipped name, or a folder of any layout. Raises UserError."""
    if is_preset(model):
        return find_preset(model)
    return find_source(model).preset
