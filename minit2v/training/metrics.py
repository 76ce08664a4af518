"""``minit2v train metrics``: the networks that the metrics look through, one after the other, and how good they are.

    clip         attributes and damage of clips
    frame        the same of single frames
    content      shape and colour of undamaged clips
    similarity   a CLIP of pictures, storyboards and captions: half of the budget

    OUT/clip.safetensors  frame.safetensors  content.safetensors  similarity.safetensors   what `evaluation` loads
    OUT/accuracy.json                                           how often each is right on clips of val
    OUT/clip/  OUT/frame/  OUT/content/  OUT/similarity/        the runs, to be resumed

They are shown the train split and nothing else: its clips, and its pictures, which alone have hearts, stars, purple
and orange, as clips in which nothing moves. Every step draws new ones.

Reference: features that had to see time, arXiv 2404.12391, section 4.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minit2v.datasets import MovingThings, caption
from minit2v.errors import UserError
from minit2v.evaluation.networks import HEADS, TO_PICTURES, VALUES, build, extract, resize, to_signed
from minit2v.evaluation.report import wilson
from minit2v.evaluation.similarity import Similarity, Towers, text_config
from minit2v.files import atomic
from minit2v.presets import get
from minit2v.training.clip import ClipTask, ClipTraining
from minit2v.training.damage import damage, draw_severities
from minit2v.training.trainer import TrainConfig, train

SHARES = {"clip": 0.3, "frame": 0.1, "content": 0.1, "similarity": 0.5}  # of the budget, in the order of training
HOW = {  # settings of the loop where they are not the usual ones
    "clip": {"batch": 64, "lr": 3e-3, "ema": 0.99},
    "frame": {"batch": 128, "lr": 3e-3, "ema": 0.99},
    "content": {"batch": 64, "lr": 2e-3, "ema": 0.99},
    "similarity": {"batch": 128, "lr": 1e-3, "ema": 0.99, "weight_decay": 0.1},
}
SEED = 1_000  # not that of any model, so that no network here starts as one of a model's does
HIDES = {  # damage, the more of it, hides attributes; others do not
    "colour": ("colour",), "flicker": ("colour",), "switch": tuple(VALUES), "freeze": ("motion", "speed"),
    "shuffle": ("motion", "speed"), "jitter": ("motion", "speed"), "drop": ("speed",), "shake": ("motion", "speed"),
    "wobble": ("shape", "motion", "speed"), "warp": ("shape", "size"), "occlusion": ("shape", "size"),
}  # fmt: skip


@dataclass(frozen=True)
class MetricTraining:
    """What the networks are shown."""

    stills: float = 0.25  # share of pictures in a batch
    damage_weight: float = 10.0  # of the squared error of each kind's severity, beside 1 for each attribute
    bfloat16: bool = True  # compute in bfloat16, keep parameters in float32 (twice as fast on an AVX-512 CPU)
    clips: int = 6144  # of the similarity: training clips, rendered once
    images: int = 2048  # of the similarity: training pictures


class NetworkTask(nn.Module):
    """Training of one network of HEADS, a task of the trainer."""

    def __init__(self, name: str, config: MetricTraining = MetricTraining()):
        super().__init__()
        self.config, self.progress = config, 0.0
        self.attributes, self.kinds = HEADS[name]
        self.frames = name == "frame"
        self.network = build(name)
        self.clips, self.pictures = MovingThings("train"), MovingThings("train", images=True)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"network": self.network}

    def draw(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """n clips (n, 3, f, 32, 32), or frames (n, 3, 1, 32, 32), damaged; the index of each attribute's value; how
        much each attribute is to be told, 0..1, as "tell: attribute"; the severity of each kind of damage."""
        stills = round(n * (0.5 if self.frames else self.config.stills))
        clips, specs = self._some(self.clips, n - stills, generator)
        pictures, more = self._some(self.pictures, stills, generator)
        if self.frames:  # one of each clip
            frame = torch.randint(clips.shape[2], (len(clips),), generator=generator)
            clips = clips[torch.arange(len(clips)), :, frame][:, :, None]
        x = torch.cat([clips, pictures.expand(-1, -1, clips.shape[2], -1, -1)])
        severity = draw_severities(n, self.kinds, generator) if self.kinds else {}
        moving = torch.arange(n) < n - stills
        if "freeze" in severity:
            severity["freeze"] = torch.where(moving, severity["freeze"], 1.0)
        things = [spec.things[0] for spec in specs + more]
        batch = {"clips": damage(x, severity, generator)}
        for name in self.attributes:
            index = [VALUES[name].index(value) if (value := getattr(thing, name)) else 0 for thing in things]
            seen = [getattr(thing, name) is not None for thing in things]
            batch[name], batch[f"tell: {name}"] = torch.tensor(index), torch.tensor(seen).float()
        for kind, amount in severity.items():
            batch[f"damage: {kind}"] = amount
            for name in set(HIDES.get(kind, ())) & set(self.attributes):
                batch[f"tell: {name}"] *= 1 - amount
        return batch

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropies of the attributes and squared errors of the severities; the accuracy of each attribute, and
        the share of the severities' variance that is explained."""
        clips = batch["clips"][:, :, 0] if self.frames else batch["clips"]
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            features = self.network(clips)
        logits = self.network.heads(features.float())
        loss, metrics = 0.0, {}
        for name in self.attributes:
            tell = batch[f"tell: {name}"]
            loss = loss + (tell * F.cross_entropy(logits[name], batch[name], reduction="none")).sum() / len(tell)
            right = (logits[name].argmax(1) == batch[name])[tell == 1].float()
            metrics[name] = right.mean().item()
        if self.kinds:
            names = [f"damage: {kind}" for kind in self.kinds]
            found, true = (torch.stack([values[name] for name in names]) for values in (logits, batch))
            error = (found - true).square().mean(1)
            metrics["damage"] = 1 - (error.sum() / true.var(1).sum().clamp(min=1e-6)).item()
            loss = loss + self.config.damage_weight * error.sum()
        return loss, metrics

    def picture(self) -> None:
        return None

    @staticmethod
    def _some(data: MovingThings, n: int, generator: torch.Generator) -> tuple[Tensor, list]:
        clips, _, specs = data.batch(torch.randint(len(data), (n,), generator=generator).tolist())
        return to_signed(resize(clips)), specs


class SimilarityTask(ClipTask):
    """Training of the metrics' CLIP, of which both towers are kept."""

    def __init__(self, config: MetricTraining = MetricTraining()):
        preset = replace(get("mini"), text=text_config())
        super().__init__(preset, ClipTraining(config.clips, config.images))
        self.towers = Towers(self.clip, self.mean, self.deviation)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"network": self.towers}


def run(out: str | Path, budget: float, resume: bool = False, settings: dict[str, str] | None = None) -> Path:
    """Train all networks for `budget` seconds together and write them into the folder `out`; returns it.

    `settings` are texts by name: fields of TrainConfig, for each network, or of MetricTraining. With `resume`, each
    network goes on where it was. Raises UserError for unknown settings, and where `out` holds runs or none to resume.
    """
    from accelerate import PartialState

    from minit2v.training import configure
    from minit2v.training.checkpoint import check_place
    from minit2v.weights import save_module

    out, table = Path(out), []
    begun = {name for name in SHARES if (out / name / "checkpoint.pt").exists()}
    for name in (begun or SHARES) if resume else SHARES:  # before anything takes minutes
        check_place(out / name, resume)
    for name, share in SHARES.items():
        config = TrainConfig(seed=SEED, budget=share * budget, **HOW[name])
        shown, config = configure(settings or {}, MetricTraining(), config)
        torch.manual_seed(config.seed)
        task = SimilarityTask(shown) if name == "similarity" else NetworkTask(name, shown)
        network = train(task, out / name, config, resume and name in begun, {"shown": repr(shown)})["network"]
        if PartialState().is_main_process:
            save_module(network, out / f"{name}.safetensors", torch.float16 if name == "similarity" else None)
            network.cpu().float().eval()
            table += accuracy(name, network)
    if table:
        with atomic(out / "accuracy.json") as path:
            path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        print(markdown(table))
    return out


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
        row(f"{kind}, of clips", damaged[f"damage: {kind}"] > clean[f"damage: {kind}"])
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
        "the same, of single frames (blind)": similarity.swap_gap(clips, specs, of_frames=True) > 0,
    }
    return [{"network": "similarity", "task": f"{task}, of clips", "right": int(right.sum()), "n": len(right)}
            for task, right in found.items()]  # fmt: skip


def markdown(table: list[dict]) -> str:
    """The rows of `accuracy` as a Markdown table, % right with Wilson's 95 % interval."""
    lines = ["| network | task | N | right, % (95 % interval) |", "|---|---|---|---|"]
    for row in table:
        low, high = (100 * bound for bound in wilson(row["right"], row["n"]))
        percent = f"{100 * row['right'] / row['n']:.1f} ({low:.1f}–{high:.1f})"
        lines.append(f"| {row['network']} | {row['task']} | {row['n']} | {percent} |")
    return "\n".join(lines)
