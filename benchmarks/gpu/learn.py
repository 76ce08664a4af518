"""Does a training on a card follow the one on the CPU? And a recording of the released size, with random weights."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu.card import FLOAT16, FLOAT32, Row, Setting, pipeline
from minit2v import presets
from minit2v.datasets import find_data
from minit2v.files import data_dir
from minit2v.recipes import settings_of
from minit2v.recording.recorder import record

STEPS, SECONDS = 12, 60.0  # steps that both devices take; how long the card then goes on
LOSSES = 0.05  # largest relative difference of a loss: both devices compute in bfloat16


def mini(setting: Setting) -> Iterator[Row]:
    """The UNet of mini with the settings of its recipe, from one start, with the same batches on both devices."""
    from minit2v.training.muon import Muon
    from minit2v.training.trainer import step_generator
    from minit2v.training.unet import UNetTask, UNetTraining

    recipe = settings_of("mini", "unet")
    known = {key: value for key, value in recipe.items() if key in UNetTraining.__dataclass_fields__}
    items = setting.pick(256, 2)
    config = replace(UNetTraining(**known), clips=items, images=items, bfloat16=not setting.tiny)
    batch, steps = setting.pick(recipe["batch"], 1), setting.pick(STEPS, 2)
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("autoencoder", "text"):
            shutil.copy(data_dir() / "mini" / f"{name}.safetensors", folder)
        for device in dict.fromkeys((torch.device("cpu"), setting.device)):
            torch.manual_seed(0)
            task = UNetTask(presets.get("mini"), config, find_data("moving-things"), Path(folder)).to(device).train()
            optimizer = Muon(task.parameter_groups(recipe["lr"]), lr=recipe["lr"])

            def step(number: int) -> torch.Tensor:
                values = {key: value.to(device) for key, value in task.draw(step_generator(0, number), batch).items()}
                loss, _ = task(values)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(task.parameters(), recipe["grad_clip"])
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                return loss.detach()

            task.progress = 0.5  # clips of all frames and pictures
            losses[device.type] = [step(number).item() for number in range(steps)]
        start, number = time.perf_counter(), steps
        while time.perf_counter() - start < setting.pick(SECONDS, 0.0) or number == steps:
            last = step(number).item()
            number += 1
        rate = (number - steps) / (time.perf_counter() - start)
    ours, expected = torch.tensor(losses[setting.device.type]), torch.tensor(losses["cpu"])
    difference = ((ours - expected).abs() / expected).max().item()
    yield Row(f"training mini, {steps} steps: largest relative difference of a loss from the CPU's", f"{difference:.1e}",
              f"at most {LOSSES:g}", right=difference <= LOSSES)  # fmt: skip
    yield Row(f"training mini, batches of {batch}", f"{rate:.3g} steps a second", f"loss {last:.3g} at the end")


def recording(setting: Setting) -> Iterator[Row]:
    """A run of the released size as a recording whose name says that its weights are random."""
    pipe = pipeline(setting, setting.pick(FLOAT16, FLOAT32), tower=True)
    pipe.preset = replace(pipe.preset, name=f"{pipe.preset.name}, random weights")
    with tempfile.TemporaryDirectory() as folder:
        record(pipe, ["a panda eats bamboo"], folder)
        size = (Path(folder) / "recording.npz").stat().st_size
    yield Row("recording of a run of the released size", f"{size / 1e6:.2f} MB", "at most 3 MB", right=size <= 3e6)
