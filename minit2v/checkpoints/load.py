"""Weights of any layout, from a folder, a file or the hub, into this library's classes.

    folder or file ──source───► which file, which layout, which sizes; tensors, mapped from disk, nothing executed
                   ──names────► our name of each ──► module built on the meta device, filled one tensor at a time

So loading takes the memory of one copy of the weights in the wanted dtype, and none at all for what stays as it is on
disk. `export` goes the other way.
"""

from pathlib import Path

import torch
from torch import nn

from minit2v.checkpoints.fill import check_shapes, fill
from minit2v.checkpoints.names import names
from minit2v.checkpoints.source import Source
from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.presets import Preset
from minit2v.ranges import Place, public


@public
def load_unet(path: Place, dtype: torch.dtype = torch.float32, device: str = "cpu") -> UNet:
    """The UNet of a folder of any layout, or in a file. A Stable Diffusion 2 UNet, which has no temporal layers,
    becomes a video model whose temporal layers are the identity. Raises UserError in one line."""
    return load_network("unet", path, dtype, device)


@public
def load_autoencoder(path: Place, dtype: torch.dtype = torch.float32, device: str = "cpu") -> VQGAN:
    """The autoencoder, also out of a whole Stable Diffusion checkpoint; see `load_unet`."""
    return load_network("autoencoder", path, dtype, device)


@public
def load_text(path: Place, dtype: torch.dtype = torch.float32, device: str = "cpu") -> TextEncoder:
    """The text tower, also out of a whole CLIP; see `load_unet`."""
    return load_network("text", path, dtype, device)


def load_network(network: str, source: Source | str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu",
                 config=None) -> nn.Module:  # fmt: skip
    """A network filled from a source. `config` is what its class is built from, by default what the source says."""
    if not isinstance(source, Source):
        source = Source(source, half=dtype in (torch.float16, torch.bfloat16))
    stored = source[network]
    config, tensors = config or stored.config, stored.tensors
    images_only = network == "unet" and not any("temp" in name or "temopral" in name for name in tensors)
    with torch.device("meta"):
        module = built(network, stored.kind, config, stored.path)
    table = names(network, module, stored.layout)
    if images_only:
        table = {key: parts for key, parts in table.items() if "temporal" not in key}
    check_shapes(module.state_dict(), table, tensors)
    if images_only or computed(module):  # what a file lacks must start as something
        with torch.device("cpu"):
            module = built(network, stored.kind, config, stored.path)
    module = fill(module, table, tensors, dtype, device).to(device, dtype)
    tensors.forget()
    return module.eval().requires_grad_(False)


def computed(module: nn.Module) -> set[str]:
    """Names of the buffers that no file has, because a module computes them when it is built."""
    return {name for name, _ in module.named_buffers()} - module.state_dict().keys()


def built(network: str, kind: type[nn.Module], config, path: Path | str) -> nn.Module:
    """The network of these sizes, of the class `kind`. Raises UserError if there is none: then they were guessed wrongly, or are damaged."""
    try:
        return kind(config)
    except UserError:
        raise
    except (ValueError, ArithmeticError, AssertionError, TypeError, IndexError, RuntimeError, MemoryError) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: expected sizes of {network} that go together, found: {found}; mend its settings, or "
                        "put its config.json beside it") from None  # fmt: skip


def load_parts(source: Source, dtype: torch.dtype, device: str) -> tuple[Preset, dict[str, nn.Module]]:
    """(settings, {name: network}) of a folder of any layout. Raises UserError."""
    preset = source.preset
    networks = {name: load_network(name, source, dtype, device, getattr(preset, name)) for name in source.networks}
    return preset, networks
