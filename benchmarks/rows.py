"""The rows of the benchmark table: each function measures one comparison and yields its rows."""

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import pairs, scaling, work
from benchmarks.sides import Side, race
from minit2v.errors import UserError
from minit2v.memory.plan import gigabytes
from minit2v.networks.unet import UNet
from minit2v.presets import AutoencoderConfig, Preset, UNetConfig
from minit2v.systems import build

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
OUTPUTS = {FLOAT32: 1e-3, BFLOAT16: 0.1}  # largest relative difference of outputs; random weights amplify rounding
LOSSES = {FLOAT32: 1e-3, BFLOAT16: 0.02}  # the same for the loss and the norm of the gradient
PIXELS = 0.01  # the same for frames, which are rounded to whole numbers, 0 to 255
MATRIX = 4096  # side of the square matrices whose product gives the machine's rate


@dataclass(frozen=True)
class Options:
    """How to measure."""

    rounds: int | None = None  # None: as many as take a minute or two
    threads: int = 0  # threads of each side
    tiny: bool = False  # the smallest sizes, to see that everything runs
    picture: Path | None = None  # file that the row `scaling` draws to


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    ours: str
    theirs: str
    ratio: str
    rounds: int


@contextmanager
def both(options: Options, setup, *arguments) -> Iterator[dict[str, Side]]:
    """The two sides of a comparison; their processes live as long as the block."""
    with ExitStack() as stack:
        start = lambda name: stack.enter_context(Side(options.threads, setup, name, *arguments))
        yield {name: start(name) for name in ("ours", "diffusers")}


def forward(name: str, config: UNetConfig, shape: tuple, dtype: torch.dtype, options: Options, share: bool = False):
    """The UNet's forward pass; with `share` also its rate as a share of the machine's rate for a matrix product."""
    config, shape = (pairs.tiny(config), (1, 4, 8, 8)) if options.tiny else (config, shape)
    with ExitStack() as stack:
        sides = stack.enter_context(both(options, work.forward, config, dtype))
        if share:
            n = 256 if options.tiny else MATRIX
            sides["product"] = stack.enter_context(Side(options.threads, work.multiplying, n, dtype))
        times = race(sides, (shape,), OUTPUTS[dtype], options.rounds)
    what = f"UNet forward, {name}, {described(shape)}, {short(dtype)}"
    yield seconds(what, times)
    if share:
        rate = 2 * n**3 / statistics.median(times["product"])
        ours, theirs = (flops(config, shape) / statistics.median(times[side]) / rate for side in ("ours", "diffusers"))
        what = f"— share of the rate of a {n} x {n} product, {rate / 1e9:.0f} GFLOP/s"
        yield Row(what, f"{ours:.0%}", f"{theirs:.0%}", f"{ours / theirs:.2f}", len(times["ours"]))


def training(name: str, config: UNetConfig, shape: tuple, dtype: torch.dtype, options: Options, light: bool = False):
    """A training step: forward, backward, and AdamW; `light` as in `work.training`."""
    config, shape = (pairs.tiny(config), (1, 4, 8, 8)) if options.tiny else (config, shape)
    with both(options, work.training, config, dtype, light) as sides:
        times = race(sides, (shape,), LOSSES[dtype], options.rounds)
    what = f"training step, {name}, {described(shape)}, {short(dtype)}"
    yield seconds(what + (" throughout, plain gradient descent" if light else ", AdamW"), times)


def decode(name: str, config: AutoencoderConfig, shape: tuple, options: Options):
    """Latents to frames."""
    shape = (1, 2, 2) if options.tiny else shape
    with both(options, work.decoding, config) as sides:
        times = race(sides, (shape,), OUTPUTS[FLOAT32], options.rounds)
    n, h, w = shape
    yield seconds(f"autoencoder decode, {name}, {n} frames of {8 * h} x {8 * w} pixels, float32", times)


def sample(options: Options):
    """A whole clip, from the prompt to pixels; both pipelines load the same folder."""
    f, size, steps = (2, 16, 2) if options.tiny else (16, 64, 20)
    with model_folder(options, pairs.small()) as folder, both(options, work.sampling, folder) as sides:
        times = race(sides, (f, size, steps), PIXELS, options.rounds)
    what = f"sampling a clip, small, {f} frames of {size} x {size} pixels, {steps} DDIM steps with guidance, float32"
    yield seconds(what, times)


def memory(name: str, preset: Preset, question: tuple, options: Options):
    """Peak memory of a process that loads a model and samples a clip; one side after the other, one round."""
    f, size, steps = (2, 16, 1) if options.tiny else question
    with model_folder(options, preset) as folder:
        peaks = {}
        for side in ("ours", "diffusers"):
            with Side(options.threads, work.sampling, side, folder) as process:
                peaks[side] = process(f, size, steps).peak
    what = f"peak memory, sampling, {name}, {f} frames of {size} x {size} pixels, float32"
    ours, theirs = peaks.values()
    yield Row(what, gigabytes(ours), gigabytes(theirs), f"{ours / theirs:.2f}", 1)


def growth(options: Options):
    """The exponents with which the cost of a forward pass grows; 1 is linear. Draws the picture."""
    config = pairs.tiny(pairs.WIDE) if options.tiny else pairs.WIDE
    with both(options, work.forward, config, FLOAT32) as sides:
        measured = lambda shape: race(sides, (shape,), OUTPUTS[FLOAT32], options.rounds or 3)
        times = {axis: list(map(measured, scaling.shapes(axis, options.tiny))) for axis in scaling.AXES}
    curves = {axis: scaling.curves(axis, times[axis], options.tiny) for axis in times}
    if options.picture:
        scaling.draw(curves, options.picture)
    for axis, (values, ours, theirs) in curves.items():
        powers = [scaling.exponent(values, side) for side in (ours, theirs)]
        what = f"growth with {scaling.AXES[axis]}, {values[0]} to {values[-1]}, 320 wide, exponent"
        rounds = len(times[axis][0]["ours"])
        yield Row(what, *(f"{power:.2f}" for power in powers), "–", rounds)


@contextmanager
def model_folder(options: Options, preset: Preset) -> Iterator[Path]:
    """A folder with a randomly initialized model in diffusers' layout; removed when the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        size = 4 * sum(p.numel() for part in on_meta(preset).values() for p in part.parameters())
        if shutil.disk_usage(folder).free < 1.1 * size:
            raise UserError(f"expected {gigabytes(size)} free in {folder}, found less; set TMPDIR to another disk")
        with Side(options.threads, work.writing, preset, Path(folder) / "model") as process:
            process()
        yield Path(folder) / "model"


def on_meta(preset: Preset) -> dict:
    with torch.device("meta"):
        return build(preset)


@torch.no_grad()
def flops(config: UNetConfig, shape: tuple) -> int:
    """Operations of a forward pass in matrix products and convolutions; a multiply-add counts as two."""
    with torch.device("meta"):
        unet = UNet(config)
    with FlopCounterMode(display=False) as counter:
        unet(*(x.to("meta") for x in work.inputs(config, shape, FLOAT32)))
    return counter.get_total_flops()


def seconds(what: str, times: dict[str, list[float]]) -> Row:
    ours, theirs = (statistics.median(times[side]) for side in ("ours", "diffusers"))
    each = [a / b for a, b in zip(times["ours"], times["diffusers"])]
    ratio = f"{ours / theirs:.2f} ({min(each):.2f}–{max(each):.2f})"
    return Row(what, f"{ours:.3g}", f"{theirs:.3g}", ratio, len(each))


def described(shape: tuple) -> str:
    b, f, h, w = shape
    return f"{b} x {f} frames of {h} x {w} latents"


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
