"""A model on disk, looked at once: whoever loads, inspects, exports or fingerprints it asks one object.

    folder or file ── names of its files ──► layout, which file is which network
                   ── config files ────────► what no tensor tells
                   ── tensors, mapped ─────► sizes; then the weights

    >>> from minit2v.files import data_dir
    >>> source = Source(data_dir() / "mini")
    >>> source.layout, source.networks, source.preset.name, len(source["text"].tensors)
    ('minit2v', ('unet', 'autoencoder', 'text'), 'mini', 40)

Each answer is found when it is first asked for, and kept.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from minit2v.checkpoints import config_files
from minit2v.checkpoints.config_files import ENTRY
from minit2v.checkpoints.folder import read_preset
from minit2v.checkpoints.foreign import as_run, network_tensors, networks_in
from minit2v.checkpoints.layouts import FOLDERS, INDICES, READ, RELEASED, file_of, layout_of, needed, variant_of
from minit2v.checkpoints.reading import Tensors, inside, read, read_json
from minit2v.checkpoints.sizes import CONFIGS, positions_of, tokens_of
from minit2v.errors import UserError
from minit2v.files import data_dir
from minit2v.presets import ModelScopePreset, Preset, built
from minit2v.ranges import shown
from minit2v.systems import SYSTEMS, system_of


@dataclass(frozen=True)
class Stored:
    """One network of a source."""

    path: Path  # its file, or the index of its parts
    tensors: Tensors  # those that the network is made of, under the names of the layout
    layout: str  # of the names: "minit2v", "diffusers" or "modelscope"
    kind: type[nn.Module]  # its class
    config: object  # what the class is built from


class Source:
    """A folder of any layout, or one file of weights. `source["unet"]` is a network of it, as `Stored`.

    `half` chooses files of half precision where a folder has several precisions. Nothing is read before it is asked
    for. All questions raise UserError in one line for what is missing, damaged, hostile or not a model.
    """

    def __init__(self, path: str | Path, half: bool = False):
        self.path, self.half = Path(path), half
        self.is_file = self.path.is_file()
        if not self.is_file and self.path.name in FOLDERS.values() and layout_of(_listing(self.path)) is None:
            self.path = self.path.parent  # the folder of one network stands for the model that it is in
        self.folder = self.path.parent if self.is_file else self.path
        self._jsons: dict[str, dict] = {}
        self._files: dict[Path, Tensors] = {}
        self._stored: dict[str, Stored] = {}

    @cached_property
    def files(self) -> frozenset[str]:
        """Names of the files of the folder that may matter, relative to it."""
        return frozenset(_listing(self.folder))

    @cached_property
    def layout(self) -> str | None:
        """ "minit2v", "diffusers", "modelscope"; None for a file, and for a folder of no known layout."""
        return None if self.is_file else layout_of(self.files)

    @cached_property
    def preset(self) -> Preset:
        """The settings: ours says all; of a released folder the sizes come from its tensors, the rest from its config
        files or the release."""
        if self.layout == "minit2v":
            return read_preset(self.folder)
        configs, size, frames = {network: self[network].config for network in RELEASED}, None, None
        if self.layout == "modelscope":
            place, found = self.folder / "configuration.json", self._modelscope("model_cfg")
            diffusion = config_files.modelscope_diffusion(found, place)
            frames = self._modelscope("model_args").get("max_frames")
        else:
            place, found = self.folder / "scheduler/scheduler_config.json", self.json("scheduler/scheduler_config.json")
            diffusion = config_files.diffusion_settings(found, place)
            size = self.json("unet/config.json").get("sample_size")
        preset = ModelScopePreset(self.folder.name, diffusion=diffusion, **configs)
        if isinstance(size, int):
            preset = replace(preset, height=size * preset.factor, width=size * preset.factor)
        if isinstance(frames, int):
            preset = replace(preset, frames=frames)
        return Preset.from_dict(merged(preset.to_dict(), self.entry))

    @cached_property
    def entry(self) -> dict:
        """What `export` wrote of the settings that a layout has no other place for."""
        entry = self.json(INDICES[self.layout]).get(ENTRY) if self.layout in INDICES else None
        return entry if isinstance(entry, dict) else {}

    @cached_property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks."""
        if self.is_file:
            return tuple(networks_in(self._read(self.path)))
        return tuple(system_of(self.preset).networks) if self.layout == "minit2v" else RELEASED

    def file(self, network: str) -> Path:
        """The file of a network. Raises UserError if there is none, or a link leads away."""
        if self.is_file:
            return self.path
        name = file_of(self.files, self.layout, network, self.half)
        if name is None and (owner := self.shared.get(network)):
            return data_dir() / owner / f"{network}.safetensors"
        if name is None:
            self._refuse_missing(network)
        if variant_of(name) == "non_ema":
            warnings.warn(f"{self.folder / name} holds the last weights of a training; their averages are not there")
        return inside(self.folder, self.folder / name)

    @cached_property
    def shared(self) -> dict[str, str]:
        """Networks that a shipped model has in common with another shipped one, which holds the file: {network: model},
        as its shared.json says. Other folders share nothing."""
        if self.layout != "minit2v" or self.folder.resolve().parent != data_dir().resolve():
            return {}
        shipped, shared = {path.parent.name for path in data_dir().glob("*/config.json")}, self.json("shared.json")
        for network, owner in shared.items():
            if not isinstance(owner, str) or owner not in shipped:
                raise UserError(f"{self.folder / 'shared.json'} is damaged: expected {network} to be of a shipped model, found "
                                f"{shown(owner)}; get it again")  # fmt: skip
        return shared

    def _refuse_missing(self, network: str) -> None:
        if not self.folder.exists():
            raise UserError(f"{self.path} does not exist; expected a folder or a file of weights there")
        if self.layout != "minit2v":
            raise UserError(f"expected the {network} in {self.folder}, found no file of it; get the model again")
        parts = system_of(self.preset).parts
        step = network if network in parts else " or ".join(parts)
        todo = "get the model again"
        if step and self.preset.name in system_of(self.preset).presets:  # a distilled model has no recipe
            todo = f"run minit2v train {step} --preset {self.preset.name} --out {self.folder} first"
        raise UserError(f"expected {network}.safetensors in {self.folder}, found none; {todo}")

    def read_files(self) -> list[Path]:
        """The files that are read of a folder, those of other precisions too, in an order that does not vary."""
        if self.layout == "minit2v":
            return [self.folder / "config.json", *(self.file(network) for network in self.networks)]
        names = {*needed(self.files, half=True), *needed(self.files, half=False)}
        return [self.folder / name for name in sorted(names)]

    def __getitem__(self, network: str) -> Stored:
        if network not in self._stored:
            self._stored[network] = self._look_at(network)
        return self._stored[network]

    def _look_at(self, network: str) -> Stored:
        path = self.file(network)
        whole = self._read(path)
        if self.layout == "minit2v":
            return self._ours(network, path, whole, self.preset)
        tensors, layout = network_tensors(whole, network)
        if layout == "minit2v":  # one file of a folder of ours
            return self._ours(network, path, tensors, read_preset(path.parent))
        try:
            config = CONFIGS[network](tensors.shapes, layout, self._settings(network, tensors, layout))
            config = built(type(config), merged(asdict(config), self.entry.get(network, {})))
            tensors = as_run(tensors, layout, config) if network == "text" else tensors
        except UserError:
            raise
        except (KeyError, ValueError, IndexError, TypeError, AttributeError, ZeroDivisionError) as error:
            found = f"expected a whole {network}, found parts of one (no {error})"
            raise UserError(f"{path}: {found}; get it again") from None
        return Stored(path, tensors, layout, SYSTEMS[ModelScopePreset.system].networks[network], config)

    @staticmethod
    def _ours(network: str, path: Path, tensors: Tensors, preset: Preset) -> Stored:
        return Stored(path, tensors, "minit2v", system_of(preset).networks[network], getattr(preset, network))

    def _read(self, path: Path) -> Tensors:
        if path not in self._files:
            self._files[path] = read(path)
        return self._files[path]

    def _settings(self, network: str, tensors: Tensors, layout: str) -> dict:
        """The fields of a network's configuration that config files tell."""
        name, found = self._described(network)
        settings = SETTINGS[network](found, self.folder / name)
        if network == "text" and self.layout == "diffusers":
            rows, (length, _) = tensors.shapes[tokens_of(layout)][0], tensors.shapes[positions_of(layout)]
            of_tokenizer = lambda name: self.json(f"tokenizer/{name}")
            settings |= config_files.tokenizer_settings(of_tokenizer, rows, length, self.folder / "tokenizer")
        return settings

    def _described(self, network: str) -> tuple[str, dict]:
        """(name, contents) of the file that says something of a network beside its tensors."""
        if self.layout == "diffusers":
            name = f"{FOLDERS[network]}/config.json"
        else:
            name = "config.json" if self.is_file and "config.json" in self.files else "configuration.json"
        return name, self._modelscope("model_cfg") if name == "configuration.json" else self.json(name)

    def _modelscope(self, part: str) -> dict:
        """A part of ModelScope's configuration.json; {} if it has none."""
        found = self.json("configuration.json")
        for key in ("model", part):
            found = found.get(key) if isinstance(found.get(key), dict) else {}
        return found

    def json(self, name: str) -> dict:
        """The contents of a config file; {} if it is missing. Raises UserError for a damaged one."""
        if name not in self._jsons:
            self._jsons[name] = read_json(self.folder / name) if name in self.files else {}
        return self._jsons[name]


SETTINGS: dict[str, Callable[[dict, Path], dict]] = {
    "unet": config_files.unet_settings,
    "autoencoder": config_files.autoencoder_settings,
    "text": config_files.text_settings,
}


def merged(values: dict, changes: dict) -> dict:
    """Nested settings, with those of `changes` in the place of theirs. Raises UserError for changes without names."""
    if not isinstance(changes, dict):
        raise UserError(f"{ENTRY}: expected settings by name, found {changes!r}")
    both = lambda a, b: merged(a, b) if isinstance(a, dict) else b
    return values | {key: both(values.get(key), value) for key, value in changes.items()}


def _listing(folder: Path) -> list[str]:
    """Names of the files in a folder and in those of its folders that a layout has."""
    names = []
    for place in READ:
        try:
            with os.scandir(folder / place) as entries:
                names += [place + entry.name for entry in entries if entry.is_file()]
        except OSError:
            continue
    return names
