"""Released weights: ModelScopeT2V and its fine-tunes, from a folder, a file or the hub, into this library's classes.

    folder or file ──layouts──► which file, which layout, which sizes
                   ──reading──► tensors, mapped from disk, nothing executed
                   ──names────► our name of each ──► module built on the meta device, filled one tensor at a time

So loading takes the memory of one copy of the weights in the wanted dtype, and none at all for what stays as it is on
disk. `export` goes the other way.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from minit2v.autoencoder import VQGAN
from minit2v.errors import UserError
from minit2v.presets import Preset
from minit2v.released.layouts import (
    FOLDERS,
    candidates,
    file_of,
    layout_of,
    network_config,
    preset_of,
    settings_of,
    tensors_of,
)
from minit2v.released.names import names
from minit2v.released.reading import Tensors
from minit2v.text import TextEncoder
from minit2v.unet import UNet

BUILD = {"unet": UNet, "autoencoder": VQGAN, "text": TextEncoder}
MAPPED = 128 << 20  # bytes of a file that may count as memory beside the copies made of them
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
        return BUILD[network](config)
    except (ValueError, ZeroDivisionError, AssertionError) as error:
        found = f"found {error}; put its config.json beside it"
        raise UserError(f"{path}: expected the sizes of a {network}, {found}") from None


def fill(module: nn.Module, table: dict[str, tuple[str, ...]], tensors: Tensors, dtype: torch.dtype,
         device: str) -> nn.Module:  # fmt: skip
    """Put the tensors into the module, each cast on its way. `table`: our name -> its names in the file (see `names`).
    Raises UserError for a tensor that is missing, left over, of another shape or not finite; then the module is of no
    use."""
    state, copied = {}, 0
    small = sum(p.nbytes for p in module.state_dict().values()) < MAPPED  # copied: its file may be replaced meanwhile
    for key, value in matched(module, table, tensors):
        state[key] = value.to(device, dtype if value.is_floating_point() else None, copy=small)
        copied += value.nbytes if state[key] is not value or len(table[key]) > 1 else 0
        if copied > MAPPED:
            copied = tensors.forget() or 0
    module.load_state_dict(state, strict=False, assign=True)
    return module


def matched(module: nn.Module, table: dict[str, tuple[str, ...]], tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """(our name, tensor of our shape) for each row of the table. Raises UserError as `fill` does."""
    expected, wanted = module.state_dict(), {part for parts in table.values() for part in parts}
    left = next((name for name in tensors if name not in wanted), None)
    missing = next((name for name in sorted(wanted) if name not in tensors), None)
    if left or missing:
        found = f"found {left}, which is none of them" if left else f"found no {missing}"
        raise UserError(f"{tensors.path} is of another model: expected {len(wanted)} tensors, {found}; get it again")
    for key, parts in table.items():
        pieces = [tensors[part] for part in parts]
        value = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        yield key, _as_ours(value, expected[key], parts[0], tensors.path)


def _as_ours(value: Tensor, ours: Tensor, name: str, path: Path) -> Tensor:
    """The tensor with as many axes as ours has: layouts differ in axes of length 1 at the end."""
    trimmed = lambda shape: tuple(shape[: max((i + 1 for i, n in enumerate(shape) if n != 1), default=0)])
    if trimmed(value.shape) != trimmed(ours.shape):
        shapes = f"expected {tuple(ours.shape)}, found {tuple(value.shape)}"
        raise UserError(f"{path} is of another model: {name}: {shapes}; load it with the settings it came with")
    if value.is_floating_point() != ours.is_floating_point() or not finite(value):
        raise UserError(f"{path} is damaged: {name} holds numbers that are not finite; get it again")
    return value.reshape(ours.shape)


def finite(value: Tensor) -> bool:
    """Whether all numbers are finite, told from the extremes: `isfinite` would need as much memory again."""
    return value.numel() == 0 or all(extreme.isfinite().item() for extreme in value.aminmax())


def _block(name: str) -> int:
    """Which block of the text tower it belongs to; -1 if none."""
    block = re.match(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.", name)
    return int(block[1]) if block else -1


def load_parts(folder: Path, dtype: torch.dtype, device: str) -> tuple[Preset, dict[str, nn.Module]]:
    """(settings, {"unet": …, "autoencoder": …, "text": …}) of a folder of any layout. Raises UserError."""
    preset = preset_of(folder)
    return preset, {name: load_network(name, folder, dtype, device, getattr(preset, name)) for name in BUILD}


def on_hub(name: str | Path) -> bool:
    """Whether it names a model of the hub ("owner/name") and no folder here."""
    return HUB_ID.fullmatch(str(name)) is not None and not Path(name).parent.is_dir()


def download(hub_id: str, half: bool) -> Path:
    """The folder of a model of the Hugging Face hub, downloaded into its cache if it is not there: only the files that
    are read. Raises UserError if there is no such model, or no way to it."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = HfApi().list_repo_files(hub_id)
    except Exception as error:  # whatever the HTTP library of the day raises
        try:
            return Path(snapshot_download(hub_id, local_files_only=True))  # downloaded before; now offline
        except Exception:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            raise UserError(f"could not get {hub_id} ({reason}); check the name and the connection") from None
    return Path(snapshot_download(hub_id, allow_patterns=needed(files, half)))


def needed(files: list[str], half: bool) -> list[str]:
    """Which files of a released folder are read: one for each network (or its parts), and what describes them."""
    layout = "modelscope" if "text2video_pytorch_model.pth" in files else "diffusers"
    described = re.compile(r"(\w+/)?(config|model_index|configuration|scheduler_config)\.json")
    chosen = [name for name in files if described.fullmatch(name)]
    for network in BUILD:
        best = next((name for name in candidates(layout, network, half) if name in files), None)
        if best is None:
            raise UserError(f"expected a text-to-video model, found no {network} in its files; choose another")
        chosen.append(best)
        if best.endswith(".json"):  # its parts, of the same precision
            parts = [name for name in files if name.startswith(best.split("/")[0] + "/") and "-of-" in name]
            chosen += [name for name in parts if (".fp16" in name) == (".fp16" in best)]
    return chosen
