"""``minit2v train metrics``: trains the networks of the metrics, one after the other, and measures how good they are.

    motion       attributes and damage of clips
    frame        the same of single frames
    content      shape and colour of undamaged clips
    similarity   a CLIP of pictures, storyboards and captions

    OUT/motion.safetensors  frame.safetensors  content.safetensors  similarity.safetensors   weights for `evaluation`
    OUT/accuracy.json                                         how often each is right on val, see `card`
    OUT/motion/  OUT/frame/  OUT/content/  OUT/similarity/    runs, to be resumed

They see the train split and nothing else: its clips, and its pictures, most of them shifted so that they move. Only the
pictures have hearts, stars, purple and orange. A network that saw them only at rest did not recognise them in motion: 0
of 33 hearts were right. Every step draws new clips and pictures.

Reference: features that had to see time, arXiv 2404.12391, section 4.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minit2v.checkpoints.folder import save_module
from minit2v.datasets import find_data
from minit2v.datasets.moving_things import MovingThings, Spec
from minit2v.datasets.moving_things.dataset import held_out
from minit2v.datasets.moving_things.scenes import DIRECTIONS, SPEED
from minit2v.evaluation.mini import card
from minit2v.evaluation.mini.damage import damage, draw_severities
from minit2v.evaluation.mini.networks import HEADS, VALUES, build, resize, shrink, signed
from minit2v.evaluation.mini.similarity import Towers, text_config
from minit2v.presets import get
from minit2v.ranges import Checked, Share, Size, Weight
from minit2v.ranks import this_process
from minit2v.training.checkpoint import check_place
from minit2v.training.overrides import configure
from minit2v.training.run import torch_defaults
from minit2v.training.text import TextTask, TextTraining
from minit2v.training.trainer import TrainConfig, train

SHARES = {"motion": 0.4, "frame": 0.1, "content": 0.1, "similarity": 0.4}  # of the budget, in the order of training
LOOP = TrainConfig(betas=(0.9, 0.99), grad_clip=1.0, weight_decay=0.01, ema=0.99, seed=1_000)  # no model has this seed
LOOP_SETTINGS = {  # of each network
    "motion": {"batch": 64, "lr": 3e-3},
    "frame": {"batch": 128, "lr": 3e-3},
    "content": {"batch": 64, "lr": 2e-3},
    "similarity": {"batch": 128, "lr": 1e-3, "weight_decay": 0.1},
}
HIDES = {  # kind of damage -> attributes that it hides, the more of it the more
    "colour": ("colour",), "flicker": ("colour",), "switch": tuple(VALUES), "freeze": ("motion", "speed"),
    "shuffle": ("motion", "speed"), "jitter": ("motion", "speed"), "drop": ("speed",), "shake": ("motion", "speed"),
    "wobble": ("shape", "motion", "speed"), "warp": ("shape", "size"), "occlusion": ("shape", "size"),
}  # fmt: skip


@dataclass(frozen=True)
class MetricTraining(Checked):
    """What the networks are trained on."""

    pictures: Share = 0.5  # share of pictures in a batch
    moved: Share = 0.75  # share of the pictures that are set in motion
    damage_weight: Weight = 10.0  # weight of the squared error of each severity; an attribute has weight 1
    bfloat16: bool = True  # compute in bfloat16, keep parameters in float32 (twice as fast on an AVX-512 CPU)
    clips: Size = 6144  # for similarity: training clips, rendered once
    images: Size = 2048  # for similarity: training pictures


class NetworkTask(nn.Module):
    """Training of one network of HEADS: a task for the trainer."""

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
        """Draws n damaged clips (n, 3, f, 32, 32), or frames (n, 3, 1, 32, 32), as "clips"; of each, the index of an
        attribute's value as "shape", …, its weight in the loss, 0..1, as "weight: shape", …, and the severity of a kind
        of damage as "damage: noise", …."""
        pictures = round(n * self.config.pictures)
        clips, specs = _some(self.clips, n - pictures, generator)
        stills, more = _some(self.pictures, pictures, generator)
        if self.frames:  # one of each clip
            frame = torch.randint(clips.shape[2], (len(clips),), generator=generator)
            clips = clips[torch.arange(len(clips)), :, frame][:, :, None]
        else:
            some = round(pictures * self.config.moved)
            moved, more[:some] = set_in_motion(stills[:some], more[:some], clips.shape[2], generator)
            stills = torch.cat([moved, stills[some:].expand(-1, -1, clips.shape[2], -1, -1)])
        severity = draw_severities(n, self.kinds, generator) if self.kinds else {}
        things = [spec.things[0] for spec in specs + more]
        if "freeze" in severity:
            still = torch.tensor([thing.motion is None for thing in things])
            severity["freeze"] = torch.where(still, 1.0, severity["freeze"])
        x = signed(shrink(torch.cat([clips, stills])))
        batch = {"clips": damage(x, severity, generator)}
        for name in self.attributes:
            index = [VALUES[name].index(value) if (value := getattr(thing, name)) else 0 for thing in things]
            seen = [getattr(thing, name) is not None for thing in things]
            batch[name], batch[f"weight: {name}"] = torch.tensor(index), torch.tensor(seen).float()
        for kind, amount in severity.items():
            batch[f"damage: {kind}"] = amount
            for name in set(HIDES.get(kind, ())) & set(self.attributes):
                batch[f"weight: {name}"] *= 1 - amount
        return batch

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The loss: cross-entropies of the attributes plus squared errors of the severities. The metrics: accuracy of
        each attribute, and the explained share of the severities' variance."""
        clips = batch["clips"][:, :, 0] if self.frames else batch["clips"]
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            features = self.network(clips)
        logits = self.network.heads(features.float())
        loss, metrics = 0.0, {}
        for name in self.attributes:
            weight = batch[f"weight: {name}"]
            loss = loss + (weight * F.cross_entropy(logits[name], batch[name], reduction="none")).sum() / len(weight)
            right = (logits[name].argmax(1) == batch[name])[weight == 1].float()
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


def _some(data: MovingThings, n: int, generator: torch.Generator) -> tuple[Tensor, list[Spec]]:
    """n random clips of a split (n, 3, f, H, W), 0 to 255, and their specs."""
    clips, _, specs = data.batch(torch.randint(len(data), (n,), generator=generator).tolist())
    return resize(clips, data.size), specs


def set_in_motion(
    pictures: Tensor, specs: list[Spec], f: int, generator: torch.Generator
) -> tuple[Tensor, list[Spec]]:
    """Clips (n, 3, f, H, W) from pictures (n, 3, 1, H, W) of one thing each, with their new specs.

    The thing moves straight in a random direction at a random speed, from a random place such that it stays inside, as
    in `moving_things.scenes`. No held-out combination is drawn.
    """
    n, _, _, H, W = pictures.shape
    draw = lambda options: options[torch.randint(len(options), (1,), generator=generator).item()]
    moves = [draw([moved for moved in _all_moves(spec) if not held_out(moved)]) for spec in specs]
    pace = [[SPEED[thing.speed] * axis for axis in DIRECTIONS[thing.motion]] for thing in (s.things[0] for s in moves)]
    step = torch.tensor(pace).reshape(n, 2) * W  # x, y in pixels a frame
    thing = (pictures - pictures[..., :1, :1]).abs().amax((1, 2)) > 20  # (n 3 1 H W) -> (n H W)
    shifts = []
    for axis, shown in enumerate((thing.any(1).float(), thing.any(2).float())):
        first, last = shown.argmax(1), shown.shape[1] - 1 - shown.flip(1).argmax(1)
        way = step[:, axis] * (f - 1)
        low, high = -first - way.clamp(max=0), shown.shape[1] - 1 - last - way.clamp(min=0)
        shifts.append(low + torch.rand(n, generator=generator) * (high - low))
    shift = torch.stack(shifts, 1)[:, None] + torch.arange(f)[:, None] * step[:, None]  # (n f 2)
    theta = torch.eye(2, 3).repeat(n, f, 1, 1)
    theta[..., 2] = -2 * shift / torch.tensor([W, H])
    many = pictures.expand(-1, -1, f, -1, -1).transpose(1, 2).flatten(0, 1)  # (n 3 1 H W) -> ((n f) 3 H W)
    grid = F.affine_grid(theta.flatten(0, 1), many.shape, align_corners=False)
    moved = F.grid_sample(many, grid, padding_mode="border", align_corners=False)
    return moved.unflatten(0, (n, f)).transpose(1, 2), moves


def _all_moves(spec: Spec) -> list[Spec]:
    return [replace(spec, things=(replace(spec.things[0], motion=motion, speed=speed),))
            for motion in VALUES["motion"] for speed in SPEED]  # fmt: skip


class SimilarityTask(TextTask):
    """Training of the metrics' CLIP, with both towers kept."""

    def __init__(self, config: MetricTraining = MetricTraining()):
        preset = replace(get("mini"), text=text_config())
        own = TextTraining(config.clips, config.images, grid_positions=True, word_deviation=0.1)
        super().__init__(preset, own, find_data("moving-things"))
        self.towers = Towers(self.clip, self.mean, self.deviation)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"network": self.towers}


@torch_defaults()
def run(out: str | Path, budget: float, resume: bool = False, settings: dict[str, str] | None = None) -> Path:
    """Trains all networks for `budget` seconds together, writes them into the folder `out`, and returns it.

    `settings` are texts by name: fields of TrainConfig, for each network, or of MetricTraining. With `resume`, each
    network goes on where it was. Raises UserError for unknown settings, for an `out` that holds runs without `resume`,
    and for one that holds none with it.
    """
    out = Path(out)
    begun = {name for name in SHARES if (out / name / "checkpoint.pt").exists()}
    for name in (begun or SHARES) if resume else SHARES:  # before anything takes minutes
        check_place(out / name, resume)
    for name, share in SHARES.items():
        loop = replace(LOOP, budget=share * budget, **LOOP_SETTINGS[name])
        config, loop = configure(settings or {}, MetricTraining(), loop)
        torch.manual_seed(loop.seed)
        task = SimilarityTask(config) if name == "similarity" else NetworkTask(name, config)
        network = train(task, out / name, loop, resume and name in begun, {"config": repr(config)})["network"]
        if this_process().is_main_process:
            save_module(network, out / f"{name}.safetensors", torch.float16 if name == "similarity" else None)
    if this_process().is_main_process:
        card.measure(out)
    return out
