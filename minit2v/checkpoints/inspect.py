"""`minit2v weights inspect`: how many parameters a model has, and where."""

from pathlib import Path

import torch

from minit2v.checkpoints.find import preset_of
from minit2v.checkpoints.folder import NETWORKS
from minit2v.checkpoints.layouts import networks_in
from minit2v.checkpoints.load import built
from minit2v.networks.blocks import TemporalConv, TemporalTransformer


def inspect(model: str) -> str:
    """A table of parameters: the UNet by kind and level, the autoencoder, the text tower. `model` is a preset, a
    shipped name, a folder or one file of any layout. Raises UserError."""
    if Path(model).is_file():
        configs = networks_in(Path(model))
    else:
        preset = preset_of(model)
        configs = {name: getattr(preset, name) for name in NETWORKS}
    with torch.device("meta"):
        parts = {name: built(name, config, Path(model)) for name, config in configs.items()}
    rows, notes = unet_rows(parts["unet"]) if "unet" in parts else ([], [])
    others = {"autoencoder": "autoencoder", "text": "text tower, as run"}
    rows += [(title, _count(parts[name])) for name, title in others.items() if name in parts]
    return "\n".join([f"{name:<28}{number:>16,}" for name, number in rows] + notes)


def _count(*modules) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def unet_rows(unet) -> tuple[list[tuple[str, int]], list[str]]:
    """(rows of the table for a UNet, what is to be said of them)."""
    of_kind = lambda kind: _count(*(module for module in unet.modules() if isinstance(module, kind)))
    total, temporal = _count(unet), sum(p.numel() for p in unet.temporal_parameters())
    rows = [("UNet", total), ("  spatial", total - temporal), (f"  temporal ({temporal / total:.1%})", temporal)]
    rows += [("    convolutions", of_kind(TemporalConv)), ("    attention", of_kind(TemporalTransformer))]
    rows += [(f"  level {i}, down", _count(level)) for i, level in enumerate(unet.down)]
    rows += [("  middle", _count(unet.middle))]
    rows += [(f"  level {len(unet.up) - 1 - i}, up", _count(level)) for i, level in enumerate(unet.up)]
    return rows, paper_figures(total, temporal) if total == RELEASED else []


RELEASED, STABLE_DIFFUSION_1 = 1_411_233_860, 859_520_964  # parameters of the UNets of ModelScopeT2V, of SD 1


def paper_figures(total: int, temporal: int) -> list[str]:
    """Where the paper's 1,345M parameters, 552M of them temporal, 39 %, come from: two units and two base models."""
    added = total - STABLE_DIFFUSION_1
    return [
        "",
        f"The paper says 1,345M, 552M and 39 %: {total:,} is {total / 2**20:,.1f} in units of 2^20;",
        f"less Stable Diffusion 1's UNet ({STABLE_DIFFUSION_1:,}) it is {added / 1e6:.1f}M, {added / total:.1%}.",
        f"But it grew from that of version 2 ({total - temporal:,}),",
        f"so {temporal / 1e6:.1f}M are temporal, {temporal / total:.1%}.",
    ]
