"""How good the networks of the metrics are: the table of their card, from the weights as they are shipped.

    accuracy.json   [{"network": "clip", "task": "shape of clips", "right": 505, "n": 512}, ...]

A metric is worth as much as the network that it looks through: what that cannot tell apart, the metric cannot either.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from minit2v.datasets.moving_things import MovingThings
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.mini.damage import damage
from minit2v.evaluation.mini.networks import HEADS, VALUES, build, extract
from minit2v.evaluation.mini.scores import redrawn
from minit2v.evaluation.mini.similarity import Similarity, Towers
from minit2v.files import atomic


def measure(folder: str | Path) -> list[dict]:
    """Measures the networks in a folder, prints the table and writes it there as accuracy.json; returns its rows.

    Raises UserError for a file that is damaged or another network.
    """
    from minit2v.checkpoints.folder import load_into

    folder, table = Path(folder), []
    for name in (*HEADS, "similarity"):
        path = folder / f"{name}.safetensors"
        if path.is_file():
            network = Towers() if name == "similarity" else build(name)
            table += accuracy(name, load_into(network, path).eval())
    with atomic(folder / "accuracy.json") as path:
        path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(markdown(table))
    return table


def accuracy(name: str, network: nn.Module, n: int = 512, seed: int | None = None) -> list[dict]:
    """How often a network is right on n clips and n pictures of val, and on n clips of things that train shows in
    pictures only: [{"network", "task", "right", "n"}].

    For damage: in how many clips its severity is found greater where half of the greatest was done than where none was.
    seed: None takes the clips as they are in their splits; else their captions are drawn anew, at other places.
    """
    sets = {"clips": ("val", False), "pictures": ("val", True), "image-only clips": ("test_imageonly", False)}
    shown = {what: MovingThings(split, images=images).batch(range(n)) for what, (split, images) in sets.items()}
    if seed is not None:
        shown = {what: (redrawn(specs, clips.shape[2], clips.shape[1], seed), texts, specs)
                 for what, (clips, texts, specs) in shown.items()}  # fmt: skip
    told = _told_by_similarity(network, shown) if name == "similarity" else _told(name, network, shown)
    return [{"network": name, "task": task, "right": int(np.sum(right)), "n": n} for task, right in told.items()]


def _told(name: str, network: nn.Module, shown: dict) -> dict[str, list[bool]]:
    (attributes, kinds), told = HEADS[name], {}
    for what, (clips, _, specs) in shown.items():
        if what == "pictures" and name != "frame":
            clips = clips.repeat(16, axis=1)
        found = predict(network, clips)
        for attribute in attributes:
            true = [getattr(spec.things[0], attribute) for spec in specs]
            if None not in true:
                told[f"{attribute} of {what}"] = [VALUES[attribute][i] == one for i, one in zip(found[attribute], true)]
    clips = shown["clips"][0]
    clean = predict(network, clips)
    for kind in kinds:
        damaged = predict(network, damaged_clips(clips, kind, 0.5))
        told[f"damage: {kind}"] = damaged[f"damage: {kind}"] > clean[f"damage: {kind}"]
    return told


def _told_by_similarity(towers: nn.Module, shown: dict) -> dict[str, list[bool]]:
    similarity, told = Similarity(towers), {}
    for what in ("clips", "image-only clips"):
        clips, _, specs = shown[what]
        told[f"true caption first of 32, {what}"] = similarity.rank(clips, specs)
        told[f"true direction before the opposite, {what}"] = similarity.swap_gap(clips, specs) > 0
        told[f"the same, blind, frame by frame, {what}"] = similarity.swap_gap(clips, specs, of_frames=True) > 0
    return told


def predict(network: nn.Module, clips: np.ndarray) -> dict[str, np.ndarray]:
    """{attribute: index (n,) of the likeliest value, "damage: kind": severity (n,)}; of frames, a clip's mean."""
    found = extract(network, clips)
    frames = torch.from_numpy(found.reshape(len(clips), -1, found.shape[-1])).float()  # (n d), (n f d) -> (n f d)
    with torch.inference_mode():
        logits = {name: values.unflatten(0, frames.shape[:2]).mean(1).numpy()
                  for name, values in network.heads(frames.flatten(0, 1)).items()}  # fmt: skip
    return {name: values.argmax(1) if values.ndim == 2 else values for name, values in logits.items()}


def damaged_clips(clips: np.ndarray, kind: str, severity: float, seed: int = 0) -> np.ndarray:
    """Clips uint8 (n, f, H, W, 3) with one kind of damage of that severity."""
    x = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1  # (n f H W c) -> (n c f H W)
    x = damage(x, {kind: torch.full((len(x),), severity)}, torch.Generator().manual_seed(seed))
    return ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()


def markdown(table: list[dict]) -> str:
    """The rows of `accuracy` as a Markdown table, % right with Wilson's 95 % interval."""
    lines = ["| network | task | N | right, % (95 % interval) |", "|---|---|---|---|"]
    for row in table:
        low, high = (100 * bound for bound in wilson(row["right"], row["n"]))
        percent = f"{100 * row['right'] / row['n']:.1f} ({low:.1f}–{high:.1f})"
        lines.append(f"| {row['network']} | {row['task']} | {row['n']} | {percent} |")
    return "\n".join(lines)
