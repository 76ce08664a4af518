"""How good the networks of the metrics are: the table of their card, measured on the shipped weights.

    accuracy.json   [{"network": "motion", "task": "shape of clips", "right": 505, "n": 512}, ...]

A metric is only as good as its network: it cannot distinguish what the network cannot.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.moving_things import MovingThings
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.mini.damage import damage
from minit2v.evaluation.mini.networks import HEADS, VALUES, build, extract
from minit2v.evaluation.mini.scores import redrawn
from minit2v.evaluation.mini.similarity import Similarity, Towers
from minit2v.evaluation.table import markdown_table
from minit2v.files import say, write_json
from minit2v.pixels import to_pixels, to_signed


def measure(folder: str | Path) -> list[dict]:
    """Measures the networks in a folder, writes the rows there as accuracy.json, prints the table; returns the rows.

    Raises UserError for a damaged file and for that of another network.
    """
    folder, table = Path(folder), []
    for name in (*HEADS, "similarity"):
        path = folder / f"{name}.safetensors"
        if path.is_file():
            network = Towers() if name == "similarity" else build(name)
            table += accuracy(name, load_into(network, path).eval())
    write_json(folder / "accuracy.json", table)
    say(markdown(table))
    return table


def accuracy(name: str, network: nn.Module, n: int = 512, seed: int | None = None) -> list[dict]:
    """Counts how often a network is right on n clips and n pictures of val, and on n clips of things that train shows
    in pictures only: [{"network", "task", "right", "n"}].

    A damage is right where the predicted severity is greater at severity 0.5 than at 0. seed: None takes the clips of
    the splits themselves; else their specs are redrawn at other places.
    """
    sets = {"clips": ("val", False), "pictures": ("val", True), "image-only clips": ("test_imageonly", False)}
    shown = {what: MovingThings(split, images=images).batch(range(n)) for what, (split, images) in sets.items()}
    if seed is not None:
        shown = {what: (redrawn(specs, clips.shape[2], clips.shape[1], seed), texts, specs)
                 for what, (clips, texts, specs) in shown.items()}  # fmt: skip
    answers = _similarity_answers(network, shown) if name == "similarity" else _answers(name, network, shown)
    return [{"network": name, "task": task, "right": int(np.sum(right)), "n": n} for task, right in answers.items()]


def _answers(name: str, network: nn.Module, shown: dict) -> dict[str, list[bool]]:
    """{task: whether the network is right about each clip}."""
    (attributes, kinds), answers = HEADS[name], {}
    for what, (clips, _, specs) in shown.items():
        if what == "pictures" and name != "frame":
            clips = clips.repeat(16, axis=1)
        found = predict(network, clips)
        for attribute in attributes:
            true = [getattr(spec.things[0], attribute) for spec in specs]
            if None not in true:
                named = [VALUES[attribute][i] for i in found[attribute]]
                answers[f"{attribute} of {what}"] = [name == value for name, value in zip(named, true)]
    clips = shown["clips"][0]
    clean = predict(network, clips)
    for kind in kinds:
        damaged = predict(network, damaged_clips(clips, kind, 0.5))
        answers[f"damage: {kind}"] = damaged[f"damage: {kind}"] > clean[f"damage: {kind}"]
    return answers


def _similarity_answers(towers: nn.Module, shown: dict) -> dict[str, list[bool]]:
    """The same for the metrics' CLIP."""
    similarity, answers = Similarity(towers), {}
    for what in ("clips", "image-only clips"):
        clips, _, specs = shown[what]
        answers[f"true caption first of 32, {what}"] = similarity.rank(clips, specs)
        answers[f"true direction before the opposite, {what}"] = similarity.swap_gap(clips, specs) > 0
        answers[f"the same, blind, frame by frame, {what}"] = similarity.swap_gap(clips, specs, of_frames=True) > 0
    return answers


def predict(network: nn.Module, clips: np.ndarray) -> dict[str, np.ndarray]:
    """{attribute: index (n,) of the likeliest value, "damage: kind": severity (n,)}; for frames the mean of a clip."""
    found = extract(network, clips)
    frames = torch.from_numpy(found.reshape(len(clips), -1, found.shape[-1])).float()  # (n d), (n f d) -> (n f d)
    with torch.inference_mode():
        logits = {name: values.unflatten(0, frames.shape[:2]).mean(1).numpy()
                  for name, values in network.heads(frames.flatten(0, 1)).items()}  # fmt: skip
    return {name: values.argmax(1) if values.ndim == 2 else values for name, values in logits.items()}


def damaged_clips(clips: np.ndarray, kind: str, severity: float, seed: int = 0) -> np.ndarray:
    """Clips uint8 (n, f, H, W, 3) with one kind of damage."""
    x = to_signed(clips).transpose(1, 2)  # (n f c H W) -> (n c f H W)
    x = damage(x, {kind: torch.full((len(x),), severity)}, torch.Generator().manual_seed(seed))
    return to_pixels(x.transpose(1, 2)).numpy()


def markdown(table: list[dict]) -> str:
    """The rows of `accuracy` as a Markdown table, % right with Wilson's 95 % interval."""
    rows = []
    for row in table:
        low, high = (100 * bound for bound in wilson(row["right"], row["n"]))
        percent = f"{100 * row['right'] / row['n']:.1f} ({low:.1f}–{high:.1f})"
        rows.append([row["network"], row["task"], row["n"], percent])
    return markdown_table(["network", "task", "N", "right, % (95 % interval)"], rows)
