"""The trainings of notebook 03: a nano autoencoder with a codebook, as a loop to look inside, and recorded.

    task = task_of("late")                               networks, losses, data
    for step, report in training(task, 1500): …          the loop
    run = record_training(task, 1500, "late", [0, 500])  a `TrainingRun`, after minutes on a CPU
"""

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minit2v.datasets import find_data
from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.networks.bottleneck import Codebook, perplexity
from minit2v.pixels import to_pixels, to_signed
from minit2v.presets import get
from minit2v.recipes import settings_of
from minit2v.recording.run import TrainingRun
from minit2v.training.autoencoder import AutoencoderTask, AutoencoderTraining
from minit2v.training.trainer import learning_rate, step_generator

BATCH, RATE, SEED = 16, 2e-3, 0  # of every training here
CODES = 128  # of the codebook
EVERY = 5  # steps that make one point of a curve, their mean
MEASURED = 64  # frames of the split `val` that are measured
SHOWN = [13, 3, 2, 5]  # those of them that are kept as pictures: a ring, a cross, a small triangle, a star
ADVERSARIAL = {"adversarial": 0.1, "hinge": 1.0}  # ten times the recipe's, so that its effect is seen in minutes
VARIANTS = {  # name -> (settings of the loss, does the codebook collapse)
    "late": (ADVERSARIAL, False),
    "early": (ADVERSARIAL | {"start": 0.0, "ramp": 1e-9}, False),
    "never": (ADVERSARIAL | {"start": 2.0}, False),
    "collapsed": (ADVERSARIAL, True),
}


def task_of(variant: str = "late") -> AutoencoderTask:
    """The nano autoencoder with a codebook of 128 codes and its losses, untrained, the same each time.

    Args:
        variant: "late", "early" (the discriminator starts at the first step), "never" (it does not start), or
            "collapsed" (codes begin in a tiny cube, -1/128 to 1/128, and are never restarted).
    """
    if variant not in VARIANTS:
        raise UserError(f"task_of: expected one of {', '.join(VARIANTS)}, found {variant!r}")
    settings, collapse = VARIANTS[variant]
    torch.manual_seed(SEED)
    nano = get("nano")
    nano = replace(nano, autoencoder=replace(nano.autoencoder, bottleneck="codebook", codes=CODES))
    known = {field.name for field in fields(AutoencoderTraining)}
    recipe = {name: value for name, value in settings_of("nano", "autoencoder").items() if name in known}
    task = AutoencoderTask(nano, AutoencoderTraining(**recipe | settings), find_data("moving-things"))
    if collapse:
        never_restarted(task.autoencoder.bottleneck)
    return task


def never_restarted(book: Codebook) -> None:
    """Start a codebook as the first VQGAN did, uniformly between -1/k and 1/k, and restart no dead code."""
    k = len(book.codes)
    book.codes.uniform_(-1 / k, 1 / k, generator=torch.Generator().manual_seed(SEED))
    book.usage.fill_(1 / k)
    book.sums.copy_(book.codes / k)
    book.dead_below = 0.0


def training(task: AutoencoderTask, steps: int, stop: int | None = None) -> Iterator[tuple[int, dict[str, float]]]:
    """Train a task, yielding the number of steps done and the report of the last one: a loop to look inside.

    The library's own loop, `minit2v.training.trainer`, has the same batches and learning rate, and can be resumed.

    Args:
        steps: of the whole training; learning rate and discriminator follow it.
        stop: end after so many.
    """
    optimizer = torch.optim.AdamW(task.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    for step in range(steps if stop is None else stop):
        task.progress = step / steps
        optimizer.param_groups[0]["lr"] = RATE * learning_rate(task.progress, warmup=0.02)
        batch = task.draw(step_generator(SEED, step), BATCH)
        loss, report = task({key: value.to(task.device) for key, value in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        yield step + 1, report


def record_training(task: AutoencoderTask, steps: int, name: str, pictures_at: list[int]) -> TrainingRun:
    """Train a task to its end, with a progress bar, and record it: the mean of every few reports, and, after the given
    numbers of steps, measurements and pictures of frames that it is not trained on."""
    from tqdm import tqdm

    frames = unseen_frames()
    reports, measured, made = [], {}, {}

    def look(step):
        made[step], figures = examine(task, frames)
        for key, value in figures.items():
            measured.setdefault(key, []).append((step, value))

    if 0 in pictures_at:
        look(0)
    for step, report in tqdm(training(task, steps), total=steps, desc=name):
        reports.append(report)
        if step in pictures_at:
            look(step)
    curves = {key: smoothed(reports, key) for key in dict.fromkeys(key for report in reports for key in report)}
    curves |= {key: tuple(np.array(pairs).T) for key, pairs in measured.items()}
    return TrainingRun(name, curves, to_pixels(frames[SHOWN]).numpy(), np.array([*made]), np.stack([*made.values()]))


def smoothed(reports: list[dict[str, float]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one figure, the mean of each few reports that have it."""
    points = np.array([(step + 1, report[key]) for step, report in enumerate(reports) if key in report])
    return tuple(np.stack([part.mean(axis=0) for part in np.split(points, range(EVERY, len(points), EVERY))]).T)


def unseen_frames() -> Tensor:
    """Pictures of the split `val`: (64, 3, 32, 32) in [-1, 1]."""
    return to_signed(MovingThings("val", size=32, images=True).batch(range(MEASURED)).frames[:, 0])


@torch.no_grad()
def examine(task: AutoencoderTask, frames: Tensor) -> tuple[np.ndarray, dict[str, float]]:
    """Reconstructions of the frames that are shown, uint8 (k, H, W, 3), and figures over all frames."""
    network, book = task.autoencoder, task.autoencoder.bottleneck
    features = network.features(frames.to(task.device))
    vectors = features.permute(0, 2, 3, 1).flatten(0, 2)  # (n c h w) -> ((n h w) c)
    share = torch.bincount(book.nearest(vectors), minlength=len(book.codes)) / len(vectors)
    latents = book.quantize(features)
    given_back = network.reconstruct(latents).cpu()
    figures = {
        "unseen: psnr": 10 * torch.log10(4 / F.mse_loss(frames, given_back.clamp(-1, 1))),
        "unseen: sharpness": fine_edges(given_back) / fine_edges(frames),
        "unseen: codes in use": (share > 0).sum(),
        "unseen: perplexity": perplexity(share),
        "unseen: std of latents": latents.std(),
    }
    return to_pixels(given_back[SHOWN]).numpy(), {key: value.item() for key, value in figures.items()}


def fine_edges(frames: Tensor) -> Tensor:
    """Mean size of the finest edges, which halving and doubling the frames takes away."""
    return (frames - F.interpolate(F.avg_pool2d(frames, 2), scale_factor=2.0)).abs().mean()

