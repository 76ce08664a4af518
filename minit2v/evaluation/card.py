"""How good the networks of the metrics are: the table of their card, from the weights as they are shipped.

    accuracy.json   [{"network": "clip", "task": "shape of clips", "right": 505, "n": 512}, ...]

A metric is worth as much as the network that it looks through: what that cannot tell apart, the metric cannot either.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from minit2v.datasets import MovingThings
from minit2v.evaluation.networks import HEADS, VALUES, build, extract
from minit2v.evaluation.report import wilson
from minit2v.evaluation.similarity import Similarity, Towers
from minit2v.files import atomic
from minit2v.training.damage import damage


def measure(folder: str | Path) -> list[dict]:
    """Measures the networks in a folder, prints the table and writes it there as accuracy.json; returns its rows.

    Raises UserError for a file that is damaged or another network.
    """
    from minit2v.weights import load_into

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


def accuracy(name: str, network: nn.Module, n: int = 512) -> list[dict]:
    """How often a network is right on n clips and n pictures of val: [{"network", "task", "right", "n"}].

    For damage: in how many clips its severity is found greater where half of the greatest was done than where none was.
    """
    clips, _, specs = MovingThings("val").batch(range(n))
    if name == "similarity":
        return _similarity_accuracy(network, clips, specs)
    pictures, _, of_pictures = MovingThings("val", images=True).batch(range(n))
    rows = []

    def row(task, right):
        rows.append({"network": name, "task": task, "right": int(sum(right)), "n": len(right)})

    for what, shown, truths in (("clips", clips, specs), ("pictures", pictures, of_pictures)):
        if what == "pictures" and name != "frame":
            shown = shown.repeat(clips.shape[1], axis=1)
        told = predict(network, shown)
        for attribute in HEADS[name][0]:
            true = [getattr(spec.things[0], attribute) for spec in truths]
            if None not in true:
                found = [VALUES[attribute][i] for i in told[attribute]]
                row(f"{attribute} of {what}", [one == other for one, other in zip(found, true)])
    clean = predict(network, clips)
    for kind in HEADS[name][1]:
        damaged = predict(network, damaged_clips(clips, kind, 0.5))
        row(f"damage: {kind}", damaged[f"damage: {kind}"] > clean[f"damage: {kind}"])
    return rows


def predict(network: nn.Module, clips: np.ndarray) -> dict[str, np.ndarray]:
    """{attribute: index (n,) of the likeliest value, "damage: kind": severity (n,)}; of frames, the mean over a clip."""
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


def _similarity_accuracy(towers: nn.Module, clips: np.ndarray, specs: list) -> list[dict]:
    similarity = Similarity(towers)
    found = {
        "true caption first of 32": similarity.rank(clips, specs),
        "true direction before the opposite": similarity.swap_gap(clips, specs) > 0,
        "the same by single frames, which are blind to it": similarity.swap_gap(clips, specs, of_frames=True) > 0,
    }
    return [{"network": "similarity", "task": task, "right": int(right.sum()), "n": len(right)}
            for task, right in found.items()]  # fmt: skip


def markdown(table: list[dict]) -> str:
    """The rows of `accuracy` as a Markdown table, % right with Wilson's 95 % interval."""
    lines = ["| network | task | N | right, % (95 % interval) |", "|---|---|---|---|"]
    for row in table:
        low, high = (100 * bound for bound in wilson(row["right"], row["n"]))
        percent = f"{100 * row['right'] / row['n']:.1f} ({low:.1f}–{high:.1f})"
        lines.append(f"| {row['network']} | {row['task']} | {row['n']} | {percent} |")
    return "\n".join(lines)
