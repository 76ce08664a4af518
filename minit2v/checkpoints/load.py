"""Released weights: ModelScopeT2V and its fine-tunes, from a folder, a file or the hub, into this library's classes.

    folder or file ──layouts──► which file, which layout, which sizes
                   ──reading──► tensors, mapped from disk, nothing executed
                   ──names────► our name of each ──► module built on the meta device, filled one tensor at a time

So loading takes the memory of one copy of the weights in the wanted dtype, and none at all for what stays as it is on
disk. `export` goes the other way.
"""

import re
from pathlib import Path

import torch
from torch import nn

from minit2v.checkpoints.fill import fill
from minit2v.checkpoints.layouts import (
    FOLDERS,
    file_of,
    layout_of,
    network_config,
    preset_of,
    settings_of,
    tensors_of,
)
from minit2v.checkpoints.names import names
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.registry import NETWORKS
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.presets import Preset
from minit2v.systems import system_of


def load_unet(path: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> UNet:
    """The UNet of a released folder, or in a file of either layout. A Stable Diffusion 2 UNet, which has no temporal
    layers, becomes a video model whose temporal layers are the identity. Raises UserError in one line."""
    return load_network("unet", path, dtype, device)


def load_autoencoder(path: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> VQGAN:
    """The autoencoder, also out of a whole Stable Diffusion checkpoint; see `load_unet`."""
    return load_network("autoencoder", path, dtype, device)


def load_text(path: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> TextEncoder:
    """The text tower, also out of a whole CLIP; see `load_unet`."""
    return load_network("text", path, dtype, device)


def load_network(network: str, path: str | Path, dtype: torch.dtype, device: str, config=None) -> nn.Module:
    """A network filled from a folder or file; its sizes are `config`, or are told from the file."""
    path = Path(path)
    if path.is_dir() and path.name == FOLDERS[network] and layout_of(path) is None:  # its own folder in diffusers'
        path = path.parent
    settings = settings_of(path, network)
    if path.is_dir():
        path = file_of(path, network, dtype in (torch.float16, torch.bfloat16))
    tensors, layout = tensors_of(path, network)
    config = config or network_config(path, network, settings)
    images_only = network == "unet" and not any("temp" in name or "temopral" in name for name in tensors)
    with torch.device("cpu" if images_only else "meta"):  # what a file lacks must start as something
        module = built(network, config, path)
    table = names(network, module, layout)
    if images_only:
        table = {key: parts for key, parts in table.items() if "temporal" not in key}
    if network == "text":
        tensors = tensors.renamed(lambda name: None if _block(name) >= len(module.blocks) else name)
    return fill(module, table, tensors, dtype, device).to(device, dtype).eval().requires_grad_(False)


def built(network: str, config, path: Path) -> nn.Module:
    """The network of these sizes. Raises UserError if there is none: then they were guessed wrongly."""
    try:
        return NETWORKS[network](config)
    except (ValueError, ZeroDivisionError, AssertionError) as error:
        found = f"found {error}; put its config.json beside it"
        raise UserError(f"{path}: expected the sizes of a {network}, {found}") from None


def _block(name: str) -> int:
    """Which block of the text tower it belongs to; -1 if none."""
    block = re.match(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.", name)
    return int(block[1]) if block else -1


def load_parts(folder: Path, dtype: torch.dtype, device: str) -> tuple[Preset, dict[str, nn.Module]]:
    """(settings, {"unet": …, "autoencoder": …, "text": …}) of a folder of any layout. Raises UserError."""
    preset = preset_of(folder)
    return preset, {name: load_network(name, folder, dtype, device, getattr(preset, name)) for name in system_of(preset).networks}
