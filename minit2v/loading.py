"""`minit2v.load`: a model from where it is, on the device and in the precision that are asked for.

    shipped name | folder of ours, diffusers' or ModelScope's | "owner/name" of the hub  ──►  TextToVideo
"""

import torch

from minit2v.checkpoints.find import find_source
from minit2v.checkpoints.hub import download, on_hub
from minit2v.checkpoints.load import load_parts
from minit2v.checkpoints.source import Source
from minit2v.devices import find_device, find_dtype
from minit2v.memory.allocator import keep_freed_memory
from minit2v.memory.card import options_that_fit
from minit2v.ranges import Place, public
from minit2v.systems import TextToVideo, system_of
from minit2v.systems.acceleration import check_graphs, compile_blocks, to_channels_last


@public
def load(name: Place, device: str = "auto", dtype: str = "auto", batched: bool | None = None,
         offload: bool | None = None, compile: bool = False, graphs: bool = False) -> TextToVideo:  # fmt: skip
    """Load the model of a shipped name, of a folder (ours, diffusers' or ModelScope's), or of the hub ("owner/name").

    `device` is "auto" (the first of cuda, mps, cpu that is there) or a name of torch's; `dtype` is "auto" (float16 on
    cuda, else float32) or a name. Two options save memory: without `batched` the halves of guidance run in turn; with
    `offload` each network is on the device only during its own work. None chooses: on cuda the fastest way whose clip
    fits into the memory that is free, and a warning says if that is a slower one. Two save time, after a first clip
    that takes longer: `compile` compiles the blocks of the UNet, and `graphs` (on cuda) launches the whole UNet at
    once. A model of the hub is downloaded once, into its cache. Raises UserError for an unknown name, device or
    dtype, for a damaged file, and for `graphs` with `offload` or without cuda.
    """
    compute_device = find_device(device)
    if graphs:
        check_graphs(compute_device, bool(offload))
        offload = False
    dtype = find_dtype(dtype, compute_device)
    half = dtype != torch.float32
    source = Source(download(str(name), half), half) if on_hub(name) else find_source(name, half)
    if compute_device.type == "cuda":
        free = torch.cuda.mem_get_info(compute_device)[0]
        batched, offload = options_that_fit(source.preset, free, dtype, batched, offload)
    preset, networks = load_parts(source, dtype, torch.device("cpu") if offload else compute_device)
    if compute_device.type == "cpu":
        keep_freed_memory()  # only now: memory that loading needed has gone back to the system
    else:
        for network in networks.values():
            to_channels_last(network)
    if compile and "unet" in networks:
        compile_blocks(networks["unet"], compute_device)
    offload_device = compute_device if offload else None
    batched = batched is None or batched
    return system_of(preset).pipeline(preset, **networks, batched=batched, offload_device=offload_device, graphs=graphs)
