"""`minit2v.load`: where a model is, on which device and in which precision, and which of its networks stays there.

    shipped name | folder of ours, diffusers' or ModelScope's | "owner/name" of the hub  ──►  TextToVideo
"""

from pathlib import Path

import torch

from minit2v import released, weights
from minit2v.allocator import keep_freed_memory
from minit2v.errors import UserError
from minit2v.pipeline import TextToVideo

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(name: str | Path, device: str = "auto", dtype: str = "auto", batched: bool = True,
         offload: bool = False) -> TextToVideo:
    """The model of a shipped name, of a folder (ours, diffusers' or ModelScope's), or of the hub ("owner/name").

    `device` is "auto" (the first there is of cuda, mps, cpu) or what torch calls it; `dtype` is "auto"
    (float16 on cuda, else float32) or a name. Raises UserError for an unknown name, device or dtype, and
    for a damaged file. A model of the hub is downloaded once, into its cache. Two options save memory: without
    `batched` the halves of guidance run in turn; with `offload` each network is on the device only while it works.
    """
    works = find_device(device)
    dtype = find_dtype(dtype, works)
    if released.on_hub(name):
        folder = released.download(str(name), half=dtype != torch.float32)
    else:
        folder = weights.find_model(name)
    preset, parts = released.load_parts(folder, dtype, torch.device("cpu") if offload else works)
    if works.type == "cpu":
        keep_freed_memory()  # after the weights came, whose memory goes back to the system with them
    return TextToVideo(preset, **parts, batched=batched, visit=works if offload else None)


def find_device(name: str) -> torch.device:
    """What torch calls the device. Raises UserError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        reason = str(error).splitlines()[0]
        raise UserError(f"device: expected auto, cpu, cuda or mps, found {name!r}: {reason}") from None


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is half precision where it is fast. Raises UserError for an unknown one."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise UserError(f"dtype: expected auto or one of {', '.join(DTYPES)}, found {name!r}")
    return DTYPES[name]
