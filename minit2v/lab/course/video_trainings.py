"""The trainings of notebook 09: nano learns text-to-video from Moving Things, with pictures and without, and is watched.

    folder with autoencoder and text tower ──► recorded("with pictures", folder) ──► TrainingRun, the trained pipeline
                                                    │  every 100 steps
                                                    └──► watched-0100.npz: samples, what a wrong word costs

The loop is the library's. A run that is stopped goes on where it was.
"""

import json
from itertools import count
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from minit2v.checkpoints.folder import read_preset
from minit2v.datasets import find_data
from minit2v.datasets.base import Batch
from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.files import atomic, data_dir
from minit2v.pixels import evenly
from minit2v.recipes import settings_of
from minit2v.recording.run import TrainingRun
from minit2v.systems.pipeline import TextToVideo
from minit2v.training.overrides import configure
from minit2v.training.trainer import train
from minit2v.training.unet import PART, UNetTask

STEPS, EVERY = 600, 100  # of each training; steps from one look at it to the next
SETTINGS = {"batch": 4, "clips": 2048, "images": 4096, "bfloat16": False, "train_steps": STEPS,
            "save_every": float(EVERY), "sample_every": float(EVERY)}  # fmt: skip
VARIANTS = {  # name -> what it does otherwise than the recipe of nano
    "with pictures": {},
    "without pictures": {"image_stage": 0.0, "image_share": 0.0},
}
SHOWN = (("val", 0), ("val", 5), ("test_imageonly", 0), ("test_imageonly", 3))  # captions whose samples are kept
FRAMES = 4  # of each sample that are kept, side by side
NEW = {"heart": "star", "star": "heart", "purple": "orange", "orange": "purple"}  # looks that no clip of train shows
NEW_LEVEL = 0.8  # of T: where the cost of a wrong new word is measured


class WatchedTask(UNetTask):
    """`UNetTask` that keeps what it shows: samples of `SHOWN`, and the cost of wrong words, in OUT/watched-STEP.npz."""

    def __init__(self, preset, config, data, folder: Path, out: Path):
        super().__init__(preset, config, data, folder)
        self.out = out
        views = [MovingThings(split, size=preset.height, frames=preset.frames) for split, _ in SHOWN]
        self.shown = [view[i] for view, (_, i) in zip(views, SHOWN)]
        self.unseen = MovingThings("test_imageonly", size=preset.height, frames=preset.frames).batch(range(16))

    def picture(self) -> np.ndarray:
        return self.watch(round(self.progress * STEPS) + 1)  # the loop has set the progress before the step

    @torch.no_grad()
    def watch(self, step: int) -> np.ndarray:
        """Sample and measure now; returns the samples, one above the other."""
        clips = self.pipe([sample.caption for sample in self.shown], seed=0)
        self.sensitivity = self.caption_sensitivity()
        figures = self.sensitivity | {f"new look t={NEW_LEVEL}": new_look_sensitivity(self, self.unseen)}
        pictures = np.stack([side_by_side(clip.pixels) for clip in clips])
        self.out.mkdir(parents=True, exist_ok=True)
        with atomic(self.out / f"watched-{step:04}.npz") as path:
            np.savez_compressed(path, pictures=pictures, names=np.array(list(figures)), values=list(figures.values()))
        return rearrange(pictures, "k h w c -> (k h) w c")


def side_by_side(frames: np.ndarray) -> np.ndarray:
    """Some frames of a clip (f, H, W, 3) in one picture, (H, FRAMES * W, 3)."""
    return rearrange(frames[evenly(len(frames), FRAMES)], "f h w c -> h (f w) c")


def new_look_sensitivity(task: UNetTask, clips: Batch) -> float:
    """What it costs to say "star" of a heart or "orange" of a purple thing, and the other way round: the loss with the
    wrong caption over that with the right one, less 1, for clips of looks that no clip of train shows."""
    right = [task.data.right(spec) for spec in clips.specs]
    wrong = [" ".join(NEW.get(word, word) for word in said.split()) for said in right]
    latents = task.pipe.encode(clips.frames)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((len(latents),), int(NEW_LEVEL * task.preset.diffusion.timesteps))
    loss = lambda said: task.losses(latents, noise, t, task.pipe.text.encode(said)).mean()
    return (loss(wrong) / loss(right) - 1).item()


def recorded(variant: str, folder: Path) -> tuple[TrainingRun, TextToVideo]:
    """Train nano's UNet in one of `VARIANTS`, or go on with that, and return the recording and the trained model.

    Args:
        folder: with the trained autoencoder and text tower of nano; the run is kept in a folder inside.
    """
    if variant not in VARIANTS:
        raise UserError(f"recorded: expected one of {', '.join(VARIANTS)}, found {variant!r}")
    out = Path(folder) / variant
    config, loop, preset = configure(settings_of("nano", "unet") | SETTINGS | VARIANTS[variant], *PART.configs,
                                     read_preset(folder))  # fmt: skip
    torch.manual_seed(loop.seed)
    task = WatchedTask(preset, config, find_data("moving-things"), Path(folder), out)
    resume = (out / "checkpoint.pt").is_file()
    if not resume:
        task.eval()
        task.watch(0)
    task.progress = 1 - 1 / STEPS  # of a finished run that is taken up again: it only shows its last step
    averaged = train(task, out, loop, resume, clock=count().__next__)  # a clock that counts steps
    task.pipe.unet = averaged["unet"].eval()
    return assembled(variant, out, np.stack([side_by_side(sample.frames) for sample in task.shown])), task.pipe


def assembled(name: str, out: Path, frames: np.ndarray) -> TrainingRun:
    """The recording of a finished run, from its log and from what was watched."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    curves = {key: smoothed([(line["step"], line[key]) for line in lines if key in line])
              for key in ("clip loss", "image loss") if any(key in line for line in lines)}  # fmt: skip
    looks = {int(path.stem.split("-")[1]): dict(np.load(path)) for path in sorted(out.glob("watched-*.npz"))}
    steps = np.array(list(looks))
    for i, figure in enumerate(looks[0]["names"]):
        curves[f"wrong {figure}"] = steps, np.array([look["values"][i] for look in looks.values()])
    return TrainingRun(name, curves, frames, steps, np.stack([look["pictures"] for look in looks.values()]))


def smoothed(points: list[tuple[int, float]], each: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, the mean of every few."""
    parts = np.split(np.array(points, float), range(each, len(points), each))
    return tuple(np.stack([part.mean(axis=0) for part in parts]).T)


def verdicts_path() -> Path:
    """Where the judge's verdicts on the clips of both models are kept."""
    return data_dir() / "runs" / "nano-pictures.json"


def judged_clips() -> dict[str, dict[str, list[dict[str, bool]]]]:
    """Variant -> split -> for each of its first prompts, which attributes of the clip are right, and "all"."""
    return json.loads(verdicts_path().read_text(encoding="utf-8"))
