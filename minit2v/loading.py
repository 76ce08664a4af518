"""`minit2v.load`: where a model is, on which device and in which precision, and which of its networks stays there.

    shipped name | folder of ours, diffusers' or ModelScope's | "owner/name" of the hub  ──►  TextToVideo
"""

from pathlib import Path

import torch

from minit2v.checkpoints.find import find_model
from minit2v.checkpoints.hub import download, on_hub
from minit2v.checkpoints.load import load_parts
from minit2v.devices import find_device, find_dtype
from minit2v.memory.allocator import keep_freed_memory
from minit2v.systems import TextToVideo, system_of


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
    if on_hub(name):
        folder = download(str(name), half=dtype != torch.float32)
    else:
        folder = find_model(name)
    preset, parts = load_parts(folder, dtype, torch.device("cpu") if offload else works)
    if works.type == "cpu":
        keep_freed_memory()  # after the weights came, whose memory goes back to the system with them
    pipeline = system_of(preset).pipeline
    return pipeline(preset, **parts, batched=batched, offload_device=works if offload else None)
