"""What `minit2v train PART` can train: the door through which a new part comes in.

    SYSTEMS["modelscope"].parts["unet"] = "minit2v.training.unet:PART"      systems/__init__.py, a row
                                                            │
    PART = Part(task=UNetTask, config=UNetTraining(), …)    ◄    training/unet.py, its last lines

Settings of a part come from three places, each above the one before: the part itself, which has the paper's values
where they are known; the recipe of the preset (see `recipes`); and what is set by name, ``--set name=value``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from torch import nn

from minit2v.errors import UserError
from minit2v.presets import Preset
from minit2v.systems import system_of
from minit2v.training.trainer import TrainConfig


def finish(task: nn.Module, averaged: nn.ModuleDict) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The averaged modules as they are, each a network of the model under its name, and no settings."""
    return dict(averaged.items()), {}


def in_float16(task: nn.Module, averaged: nn.ModuleDict) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The averaged modules in float16, which halves their files."""
    return {name: module.half() for name, module in averaged.items()}, {}


@dataclass(frozen=True)
class Part:
    """A part of a system that is trained by itself.

    `task(preset, config, data, folder)` builds what the loop trains (see `trainer.Task`): `config` holds its settings,
    `data` is a `datasets.base.Dataset`, and `folder` holds the networks that the part needs. `finish(task, averaged)`
    runs after the last step: it returns networks by name, which are written as NAME.safetensors, and fields of the
    preset whose values are known only now.
    """

    task: Callable[..., nn.Module]
    config: Any  # settings of the task, a dataclass with the paper's values
    loop: TrainConfig  # settings of the loop, likewise
    fields: tuple[str, ...]  # fields of the preset that this part decides: its networks', and others like "diffusion"
    needs: tuple[str, ...] = ()  # networks that are trained before
    writes: tuple[str, ...] = ()  # networks that it writes, if they are not those of `fields`
    finish: Callable[[nn.Module, nn.ModuleDict], tuple[dict[str, nn.Module], dict[str, Any]]] = finish

    def outputs(self, preset: Preset) -> tuple[str, ...]:
        """The networks that it writes, each as NAME.safetensors."""
        return self.writes or tuple(field for field in self.fields if field in system_of(preset).networks)

    @property
    def configs(self) -> tuple[Any, TrainConfig]:
        """Both dataclasses of settings, as `overrides.configure` takes them."""
        return self.config, self.loop


def part_of(preset: Preset, name: str) -> Part:
    """A part of the preset's system, imported when it is asked for. Raises UserError that lists the parts."""
    parts = system_of(preset).parts
    if name not in parts:
        raise UserError(f"part: expected one of {', '.join(parts)} for preset {preset.name}, found {name!r}")
    return resolve_name(parts[name])


def trained(folder: str | Path, network: str, preset: str) -> Path:
    """The file of a network that a part needs. Raises UserError that names the step to run first."""
    path = Path(folder) / f"{network}.safetensors"
    if not path.is_file():
        raise UserError(f"expected a trained {network} in {folder}, found none; run minit2v train {network} --preset {preset} "
                        f"--out {folder} first")  # fmt: skip
    return path
