"""The three doors, walked through from outside the package: a toy system, a toy data set, a toy sampler.

Each is written as somebody else would write it, in one place and with one row of a table; the ordinary commands then
know it. No file of the library is touched.
"""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import minit2v
from minit2v.cli import main
from minit2v.datasets import DATASETS, Batch
from minit2v.diffusion.samplers import SAMPLERS, Sampler, Step, gaussian
from minit2v.presets import Preset
from minit2v.systems import SYSTEMS, System, TextToVideo
from minit2v.systems.settings import latent_shape
from minit2v.training.parts import Part
from minit2v.training.trainer import TrainConfig
from minit2v.video import Clip

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


# ---- a toy system: a colour for each prompt, which noise fades into ------------------------------------------------


@dataclass(frozen=True)
class HeadConfig:
    width: int = 32  # numbers that a prompt is encoded as


@dataclass(frozen=True)
class ToyPreset(Preset):
    system: str = "toy"
    frames: int = 4
    height: int = 16
    width: int = 16
    steps: int = 3
    mean: HeadConfig = HeadConfig()
    spread: HeadConfig = HeadConfig()


class Head(nn.Module):  # context (b, 1, d) -> a number for each colour (b, 3)
    def __init__(self, config):
        super().__init__()
        self.config, self.layer = config, nn.Linear(config.width, 3)

    def forward(self, context):
        return self.layer(context[:, 0])


def encoded(prompts, width):
    return torch.tensor([[[float(ord(letter)) / 128 for letter in f"{prompt:{width}}"[:width]]] for prompt in prompts])


class Toy(TextToVideo):
    def encode_text(self, prompts, settings):
        return encoded(prompts, self.preset.mean.width).to(self.device, self.dtype), None

    @torch.inference_mode()
    def steps(self, context, unconditional, settings):
        generators = [torch.Generator().manual_seed(settings.seed + i) for i in range(len(context))]
        noise = gaussian(latent_shape(len(context), settings, self.preset), generators)
        mean, spread = (head(context).float()[..., None, None, None] for head in (self.mean, self.spread))
        for i in range(settings.steps):
            left = settings.steps - 1 - i
            yield Step(i, left, mean + left / settings.steps * spread * noise, x0=mean.expand_as(noise))


class ToyTask(nn.Module):
    """Both heads learn the mean and the deviation of the pixels of clips."""

    def __init__(self, preset, config, data, folder):
        super().__init__()
        self.mean, self.spread, self.progress = Head(preset.mean), Head(preset.spread), 0.0
        self.data = data.open("train", preset.frames, preset.height, preset.width)

    @property
    def ema_modules(self):
        return {"mean": self.mean, "spread": self.spread}

    def draw(self, generator, n):
        batch = self.data.batch(torch.randint(len(self.data), (n,), generator=generator).tolist())
        pixels = torch.from_numpy(batch.frames).flatten(1, 3).float() / 127.5 - 1  # (b (f H W) 3)
        return {"context": encoded(batch.captions, self.mean.config.width), "mean": pixels.mean(1),
                "spread": pixels.std(1)}  # fmt: skip

    def forward(self, batch):
        return sum((head(batch["context"]) - batch[name]).square().mean() for name, head in self.ema_modules.items()), {}

    def picture(self):
        return None


HEADS = Part(ToyTask, HeadConfig(), TrainConfig(batch=4), fields=("mean", "spread"))


@pytest.fixture
def toy_system(monkeypatch):
    row = System(
        networks={"mean": Head, "spread": Head},
        pipeline=Toy,
        presets={"toy": lambda: ToyPreset("toy")},
        parts={"heads": "test_doors:HEADS"},
    )
    monkeypatch.setitem(SYSTEMS, "toy", row)


# ---- a toy data set: clips of one colour ---------------------------------------------------------------------------


class Colours:
    """Frames of one colour, a little darker from frame to frame."""

    name, test_splits = "colours", ("test",)

    def open(self, split, frames, height, width, images=False):
        return Split({"train": 24, "val": 8, "test": 6}[split], 1 if images else frames, height, width)

    def words(self):
        return ["a", "fading", *COLOURS]

    def identity(self):
        return "colours 1"


@dataclass
class Split:
    n: int
    frames: int
    height: int
    width: int

    def __len__(self):
        return self.n

    def batch(self, indices):
        names = [list(COLOURS)[int(i) % len(COLOURS)] for i in indices]
        light = np.linspace(1, 0.5, self.frames)[:, None, None, None]
        clips = [light * np.tile(COLOURS[name], (self.frames, self.height, self.width, 1)) for name in names]
        return Batch(np.stack(clips).astype(np.uint8), [f"a fading {name}" for name in names])


@pytest.fixture
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "colours", Colours)


# ---- a toy sampler: straight to the clip that the network predicts, without a look back ----------------------------


def jumper(predict, x, levels):
    for level in levels:
        x, eps = predict(x, level)
        yield Step(level.index, level.t, x, eps, x)


@pytest.fixture
def toy_sampler(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "jump", Sampler(jumper))


# ---- the ordinary commands -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(line):
    assert main(line.split() if isinstance(line, str) else line) == 0


def rows_of(report):
    return {row["clips"]: row for row in json.loads(open(report).read())["rows"]}


def test_a_toy_system_is_trained_saved_loaded_sampled_and_evaluated(toy_system, toy_data, capsys):
    run("train heads --preset toy --data colours --out model --steps 3")
    run("train heads --preset toy --data colours --out again --steps 3")
    pipe, again = minit2v.load("model"), minit2v.load("again")
    assert type(pipe) is Toy and pipe.preset == ToyPreset("toy")
    run(["sample", "a fading red", "--model", "model", "--out", "red.webp", "--seed", "5"])
    clip = again("a fading red", seed=5)
    assert clip.pixels.shape == (4, 16, 16, 3) and (Clip.load("red.webp").pixels == clip.pixels).all()
    capsys.readouterr()
    run("weights inspect model")
    table, _, digests = capsys.readouterr().out.partition("\n\n")
    assert table.split() == ["mean", "99", "spread", "99"] and digests.count("as written") == 2  # 32 x 3 weights, 3 biases
    run("evaluate --model model --data colours --n 4 --out report.json")
    assert {"real clips", "model"} <= rows_of("report.json").keys()
    assert main("weights convert model other --to diffusers".split()) == 2
    assert main("weights plan model".split()) == 2
    assert "toy" in capsys.readouterr().err


def test_a_toy_data_set_trains_every_part_of_a_system_and_evaluates(toy_data, monkeypatch):
    monkeypatch.setattr("minit2v.evaluation.report.LONG_RUN", 2)
    sizes = ["--set", "frames=4", "--set", "height=16", "--set", "width=16"]
    small = {"autoencoder": [], "text": ["--set", "clips=24", "--set", "images=24", "--set", "tests=8", "--batch", "2"],
             "unet": ["--set", "clips=24", "--set", "images=24", "--set", "sparse_frames=4", "--batch", "2"]}  # fmt: skip
    for part, settings in small.items():
        run(["train", part, "--preset", "nano", "--data", "colours", "--out", "model", "--steps", "2", *sizes, *settings])
    assert set(Colours().words()) <= set(minit2v.load("model").preset.text.words)
    run("evaluate --model model --data colours --n 4 --steps 2 --out report.json")
    report = json.loads(open("report.json").read())
    assert report["data"] == "colours" and {row["split"] for row in report["rows"]} == {"test"}


def test_a_toy_sampler_works_by_name(toy_sampler, untrained_nano, monkeypatch):
    monkeypatch.setattr("minit2v.evaluation.report.LONG_RUN", 2)
    prompt, model = "a small red circle moves left", ["--model", str(untrained_nano)]
    run(["sample", prompt, *model, "--sampler", "jump", "--steps", "2", "--out", "clip.webp"])
    expected = list(minit2v.load(untrained_nano).stream(prompt, sampler="jump", steps=2))[-1]
    assert torch.equal(expected.x, expected.x0)
    run(["sample", prompt, *model, "--sampler", "jump", "--steps", "4", "--init", "clip.webp", "--out", "again.webp"])
    assert len(Clip.load("again.webp")) == 16
    run(["evaluate", *model, *"--split test_seen --n 2 --steps 2 --sampler jump --out report.json".split()])
    assert json.loads(open("report.json").read())["sampler"] == "jump"
    assert main(["sample", prompt, "--sampler", "jump", "--eta", "0.5"]) == 2
