"""`minit2v weights inspect`: how many parameters a model has, and where."""

from collections import defaultdict
from pathlib import Path

import torch
from torch import nn

from minit2v.checkpoints.find import find_source, is_preset, preset_of
from minit2v.checkpoints.load import built
from minit2v.checkpoints.reading import declared_digest
from minit2v.checkpoints.source import Source
from minit2v.networks.unet import UNet
from minit2v.ranges import Place, public
from minit2v.systems import system_of

TITLES = {"unet": "UNet", "text": "text tower, as run"}  # others have their own name
KINDS = {"TemporalConv": "convolutions", "TemporalTransformer": "attention"}  # of temporal layers


@public
def inspect(model: Place) -> str:
    """A table of parameters: each network, a UNet by kind and level. `model` is a preset, a shipped name, a folder or
    one file of any layout. Raises UserError."""
    source = None if is_preset(model) else Source(model) if Path(model).is_file() else find_source(model)
    if source and source.is_file:
        networks = {name: (source[name].kind, source[name].config) for name in source.networks}
    else:
        preset = preset_of(model)
        networks = {name: (kind, getattr(preset, name)) for name, kind in system_of(preset).networks.items()}
    rows, notes = [], []
    for name, (kind, config) in networks.items():
        with torch.device("meta"):
            network = built(name, kind, config, model)
        rows.append((TITLES.get(name, name), _count(network)))
        if isinstance(network, UNet):
            rows += unet_rows(network)
            notes = paper_figures(network)
    table = [f"{name:<28}{number:>16,}" for name, number in rows] + notes
    return "\n".join(table + (digests(source) if source else []))


def digests(source: Source) -> list[str]:
    """Lines about the files of a source: whether they hold what was written. Raises UserError for one that does not."""
    found = {name: declared_digest(source[name].path) for name in source.networks if source[name].tensors.shapes}
    lines = [f"{name}: sha256 {value[:16]}…, as written" for name, value in found.items() if value]
    without = [name for name, value in found.items() if not value]
    return ["", *lines, *([f"{', '.join(without)}: no sha256 in the file to compare with"] if without else [])]


def _count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def unet_rows(unet: UNet) -> list[tuple[str, int]]:
    """The rows of the table below that of a UNet."""
    kinds = defaultdict(list)
    for layer in unet.temporal_layers():
        kinds[KINDS.get(type(layer).__name__, type(layer).__name__)].append(layer)
    total, temporal = _count(unet), _count(*unet.temporal_layers())
    rows = [("  spatial", total - temporal), (f"  temporal ({temporal / total:.1%})", temporal)]
    rows += [(f"    {kind}", _count(*layers)) for kind, layers in sorted(kinds.items(), reverse=True)]
    rows += [(f"  level {i}, down", _count(level)) for i, level in enumerate(unet.down)]
    rows += [("  middle", _count(unet.middle))]
    return rows + [(f"  level {len(unet.up) - 1 - i}, up", _count(level)) for i, level in enumerate(unet.up)]


RELEASED, STABLE_DIFFUSION_1 = 1_411_233_860, 859_520_964  # parameters of the UNets of ModelScopeT2V, of SD 1


def paper_figures(unet: UNet) -> list[str]:
    """For the released UNet: where the paper's 1,345M parameters, 552M of them temporal, 39 %, come from."""
    total, temporal = _count(unet), _count(*unet.temporal_layers())
    added = total - STABLE_DIFFUSION_1
    if total != RELEASED:
        return []
    return [
        "",
        f"The paper says 1,345M, 552M and 39 %: {total:,} is {total / 2**20:,.1f} in units of 2^20;",
        f"less Stable Diffusion 1's UNet ({STABLE_DIFFUSION_1:,}) it is {added / 1e6:.1f}M, {added / total:.1%}.",
        f"But it grew from that of version 2 ({total - temporal:,}),",
        f"so {temporal / 1e6:.1f}M are temporal, {temporal / total:.1%}.",
    ]
