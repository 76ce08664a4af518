"""`minit2v.load`: a model from where it is, on the device and in the precision that are asked for; and back.

    shipped name | folder of ours, diffusers' or ModelScope's | "owner/name" of the hub  ──►  TextToVideo
    TextToVideo  ──►  folder of ours | "owner/name" of the hub
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from minit2v.checkpoints.adapters import merge_into
from minit2v.checkpoints.card import card
from minit2v.checkpoints.folder import save_model
from minit2v.checkpoints.hub import located, located_adapter, push
from minit2v.checkpoints.load import load_parts
from minit2v.devices import find_device, find_dtype
from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.memory.allocator import keep_freed_memory
from minit2v.memory.card import options_that_fit
from minit2v.ranges import Place, Range, public, shown
from minit2v.systems import TextToVideo, system_of
from minit2v.systems.acceleration import check_graphs, compile_blocks, to_channels_last

STRENGTH = Range(-100, 100)  # of an adapter


@public
def load(name: Place, device: str = "auto", dtype: str = "auto", batched: bool | None = None,
         offload: bool | None = None, compile: bool = False, graphs: bool = False, revision: str | None = None,
         lora: Place | Mapping[str | Path, float] | None = None) -> TextToVideo:  # fmt: skip
    """Load the model of a shipped name, of a folder (ours, diffusers' or ModelScope's), or of the hub ("owner/name").

    `device` is "auto" (the first of cuda, mps, cpu that is there) or a name of torch's; `dtype` is "auto" (float16 on
    cuda, else float32) or a name. Two options save memory: without `batched` the halves of guidance run in turn; with
    `offload` each network is on the device only during its own work. None chooses: on cuda the fastest way whose clip
    fits into the memory that is free, and a warning says if that is a slower one. Two save time, after a first clip
    that takes longer: `compile` compiles the blocks of the UNet, and `graphs` (on cuda) launches the whole UNet at
    once. A model of the hub is downloaded once, into its cache; `revision` is its branch, tag or commit. `lora` is an
    adapter (folder, file or hub id), or several with their strengths, {"runs/ring": 0.8}, which are merged into the
    UNet. Raises UserError for an unknown name, device or dtype, for a damaged file, for `graphs` with `offload` or
    without cuda, and for `compile` or `lora` with a model that has no UNet.
    """
    compute_device = find_device(device)
    if graphs:
        check_graphs(compute_device, bool(offload))
        offload = False
    dtype = find_dtype(dtype, compute_device)
    half = dtype != torch.float32
    adapters = [(located_adapter(place), strength) for place, strength in strengths(lora).items()]
    source = located(name, half, revision)
    if (compile or adapters) and "unet" not in source.networks:
        option = "compile" if compile else "lora"
        raise UserError(f"{option}: expected a model with a UNet, found {name} without one; leave it out")
    if compute_device.type == "cuda":
        free = torch.cuda.mem_get_info(compute_device)[0]
        batched, offload = options_that_fit(source.preset, free, dtype, batched, offload)
    preset, networks = load_parts(source, dtype, torch.device("cpu") if offload else compute_device)
    for place, strength in adapters:
        merge_into(networks["unet"], place, strength)
    if compute_device.type == "cpu":
        keep_freed_memory()  # only now: memory that loading needed has gone back to the system
    else:
        for network in networks.values():
            to_channels_last(network)
    if compile:
        compile_blocks(networks["unet"], compute_device)
    offload_device = compute_device if offload else None
    batched = batched is None or batched
    return system_of(preset).pipeline(preset, **networks, batched=batched, offload_device=offload_device, graphs=graphs)


def strengths(lora: str | Path | Mapping[str | Path, float] | None) -> dict[str | Path, float]:
    """Adapters with their strengths; that of a single name is 1. Raises UserError for a strength out of its range."""
    found = dict(lora or {}) if lora is None or isinstance(lora, Mapping) else {lora: 1.0}
    for place, strength in found.items():
        if not isinstance(place, (str, os.PathLike)):
            raise UserError(f"lora: expected the name of an adapter, found {shown(place)}")
        if not STRENGTH.holds(strength, whole=False):
            raise UserError(f"lora: expected {STRENGTH.wanted(False)} as the strength of {place}, found {shown(strength)}")
    return found


def save_pretrained(pipe: TextToVideo, folder: str | Path, license: str | None = None, datasets: tuple[str, ...] = ()) -> Path:
    """Write a model as a folder that `load` reads: safetensors, config.json, and with a licence a model card README.md.

    Raises UserError for a place that cannot be written.
    """
    folder = Path(folder)
    save_model(folder, pipe.preset, **pipe.networks)
    if license is not None:
        text = card(folder, folder.name, license, datasets)
        with atomic(folder / "README.md") as path:
            path.write_text(text, encoding="utf-8")
    return folder


def push_to_hub(pipe: TextToVideo, hub_id: str, private: bool = False, license: str | None = None,
                datasets: tuple[str, ...] = ()) -> str:  # fmt: skip
    """Publish a model as "owner/name" of the hub; returns the address of the commit. See `checkpoints.hub.push`."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(pipe, folder)
        return push(folder, hub_id, private, license, datasets)
