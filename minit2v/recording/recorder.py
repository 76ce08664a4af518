"""Recordings: a sampling run becomes a `Flight`, a file of at most 3 MB, and a picture of the clip out of the noise.

    flight.npz   latents, noise, decoded previews and attention maps of the steps; see `flight`
    strip.png    x0 decoded: a few of the steps from top to bottom, a few of the frames from left to right

What is kept: everything, if it is at most 2.9 MB before compression; a run of the mini model is. Else at most 8 frames
(every k-th), 32 rows and columns of latents (every k-th), the 12 words that are looked at most, and as many steps as
then fit, evenly from first to last. Previews are at most 64 pixels a side; norms are kept of every step.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from einops import rearrange
from torch import Tensor

from minit2v.diffusion.samplers import Step
from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.recording.attention_maps import AttentionMaps
from minit2v.recording.flight import LATENTS, Flight, packed
from minit2v.systems.settings import SamplingSettings, latent_shape
from minit2v.video import Clip, check_output

BUDGET = 2_900_000  # bytes of latents, pictures and maps; the file has 100,000 more for the rest
PICTURE = 64  # pixels a side of a preview, at most
FRAMES, CELLS, WORDS = 8, 32, 12  # of a run that does not fit as a whole
LONGEST_TEXT = 2000  # characters of a prompt; a network reads a few hundred


def flight_of(pipe, prompt: str, **settings) -> Flight:
    """A clip of a prompt sampled by a `TextToVideo`, as a flight. `settings` are those of the pipeline's call.

    Decodes every step that is kept. Raises UserError for a setting out of range.
    """
    prompts, settings = pipe.checked(prompt, settings)
    recorder = Recorder(pipe, prompts, settings)
    for _ in recorder.follow(pipe.sampled(prompts, settings)):
        pass
    return recorder.flights()[0]


def record(pipe, prompts: list[str], folder: str | Path, progress: bool = False, **settings) -> list[Clip]:
    """Clips of prompts, and flights and strips of them in `folder`.

    Several clips make `flight-1.npz`, `strip-1.png`, `flight-2.npz`, … `settings` are those of the pipeline's call.
    Raises UserError, before any work, for a setting out of range and a folder that cannot be made or written.
    """
    from tqdm.auto import tqdm

    prompts, settings = pipe.checked(prompts, settings)
    folder = _writable(Path(folder))
    recorder = Recorder(pipe, prompts, settings)
    steps = recorder.follow(pipe.sampled(prompts, settings))
    for step in tqdm(steps, "denoising", settings.steps - settings.skip, unit="step", disable=not progress):
        pass
    _write(recorder.flights(), folder)
    return pipe.clips(step, settings)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"expected a folder to record in, found {folder}: {error.strerror}") from None
    check_output(folder / "flight.npz", (".npz",))
    return folder


def _write(flights: list[Flight], folder: Path) -> None:
    from PIL import Image

    for i, flight in enumerate(flights, 1):
        number = "" if len(flights) == 1 else f"-{i}"
        flight.save(folder / f"flight{number}.npz")
        with atomic(folder / f"strip{number}.png") as path:
            Image.fromarray(strip(flight)).save(path)


def strip(flight: Flight, rows: int = 6, columns: int = 8) -> np.ndarray:
    """Previews as one picture, uint8 (rows H, columns W, 3): steps from top to bottom, frames from left to right."""
    s, f = flight.preview.shape[:2]
    chosen = flight.preview[_spread(s, rows)][:, _spread(f, columns)]
    return rearrange(chosen, "s f H W c -> (s H) (f W) c")


@dataclass(frozen=True)
class Plan:
    """What is kept of a run."""

    steps: list[int]  # numbers of the steps, from 0
    frame: int  # every how many-th frame of the clip
    cell: int  # every how many-th row and column of the latents
    words: int  # at most, of the prompt
    picture: tuple[int, int]  # height and width of a preview


def plan(steps: int, latent: tuple[int, ...], pixels: tuple[int, int], words: int) -> Plan:
    """What is kept of a run of that many steps, latents (c, f, h, w) and pictures (H, W) by the rule at the top.

    >>> plan(12, (4, 16, 8, 8), (64, 64), words=6) == Plan(list(range(12)), 1, 1, 6, (64, 64))  # preset mini: all of it
    True
    >>> plan(50, (4, 16, 32, 32), (256, 256), words=6)  # preset modelscope-1.7b
    Plan(steps=[0, 5, 10, 15, 20, 24, 29, 34, 39, 44, 49], frame=2, cell=1, words=6, picture=(64, 64))
    """
    c, f, h, w = latent
    scale = min(1, PICTURE / max(pixels))
    H, W = (max(1, round(side * scale)) for side in pixels)

    def step_bytes(f, h, w, words):
        return f * (len(LATENTS) * c * h * w + 3 * H * W + words * h * w) + f * f

    if steps * step_bytes(f, h, w, words) <= BUDGET:
        return Plan(list(range(steps)), 1, 1, words, (H, W))
    frame, cell, words = math.ceil(f / FRAMES), math.ceil(max(h, w) / CELLS), min(words, WORDS)
    room = BUDGET // step_bytes(*(math.ceil(n / k) for n, k in ((f, frame), (h, cell), (w, cell))), words)
    return Plan(_spread(steps, max(1, room)), frame, cell, words, (H, W))


class Recorder:
    """Follows a run of `pipe` and keeps of it what `plan` says."""

    def __init__(self, pipe, prompts: list[str], settings: SamplingSettings):
        self.pipe, self.prompts, self.settings = pipe, prompts, settings
        shape = latent_shape(len(prompts), settings, pipe.preset)
        self.maps = AttentionMaps(pipe, prompts, settings, shape)
        size, words = (settings.height, settings.width), max(map(len, self.maps.words))
        self.plan = plan(settings.steps - settings.skip, shape[1:], size, words)
        self.timesteps, self.norms = [], {name: [] for name in LATENTS}
        self.kept = {name: [] for name in (*LATENTS, "clip", "cross", "temporal")}

    def follow(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The same steps again. At the end nothing of the recorder is left in the network."""
        try:
            self.maps.ask(True)  # the first step is always kept
            for i, step in enumerate(steps):
                self._take(i, step)
                yield step
                self.maps.ask(i + 1 in self.plan.steps)
        finally:
            self.maps.ask(False)

    def _take(self, i: int, step: Step) -> None:
        self.timesteps.append(step.t)
        for name in LATENTS:
            self.norms[name].append(getattr(step, name).square().mean(dim=(1, 2, 3, 4)).sqrt().cpu().numpy())
        if i not in self.plan.steps:
            return
        for name in LATENTS:
            self.kept[name].append(self._thinned(getattr(step, name)).transpose(1, 2).cpu().numpy())  # b f c h w
        self.kept["clip"].append(step.x0[:, :, :: self.plan.frame].cpu())
        if maps := self.maps.take():
            cross, temporal = maps
            self.kept["cross"].append([self._thinned(clip).numpy() for clip in cross])
            self.kept["temporal"].append(temporal[:, :: self.plan.frame, :: self.plan.frame].numpy())

    def _thinned(self, values: Tensor) -> Tensor:
        return values[..., :: self.plan.frame, :: self.plan.cell, :: self.plan.cell]

    def flights(self) -> list[Flight]:
        """A flight of each clip; call it after the last step, when the network has left the device."""
        previews = np.stack([self._preview(x0) for x0 in self.kept["clip"]])  # s b f H W 3
        return [self._flight(i, previews[:, i]) for i in range(len(self.prompts))]

    def _preview(self, x0: Tensor) -> np.ndarray:
        from PIL import Image

        H, W = self.plan.picture
        pixels = self.pipe.decode(x0)
        frames = map(Image.fromarray, pixels.reshape(-1, *pixels.shape[2:]))
        small = np.stack([frame.resize((W, H), Image.Resampling.BOX) for frame in frames])  # the mean of each square
        return small.reshape(*pixels.shape[:2], *small.shape[1:])

    def _flight(self, i: int, preview: np.ndarray) -> Flight:
        pipe, settings = self.pipe, self.settings
        arrays, ranges, words = {}, {}, []
        for name in LATENTS:
            arrays[name], ranges[name] = packed(np.stack([step[i] for step in self.kept[name]]))
        if self.kept["cross"]:
            cross = np.stack([step[i] for step in self.kept["cross"]])  # s k f h w
            looked_at = np.sort(np.argsort(-cross.mean(axis=(0, 2, 3, 4)), kind="stable")[: self.plan.words])
            words = [self.maps.words[i][k] for k in looked_at]
            arrays["cross"], ranges["cross"] = packed(cross[:, looked_at])
            arrays["temporal"], ranges["temporal"] = packed(np.stack([step[i] for step in self.kept["temporal"]]))
        steps, timesteps = np.array(self.plan.steps, np.int64), np.array(self.timesteps, np.int64)  # not Windows' int32
        return Flight(
            prompt=self.prompts[i][:LONGEST_TEXT], model=pipe.preset.name, settings=self._settings(i),
            fps=pipe.preset.fps / self.plan.frame, timesteps=timesteps, steps=steps,
            frames=np.arange(0, settings.frames, self.plan.frame, dtype=np.int64),
            alpha_bar=pipe.diffusion.alpha_bar[timesteps[steps]].numpy().astype(np.float32),
            norms={name: np.array([norm[i] for norm in values]) for name, values in self.norms.items()},
            preview=preview, words=words, ranges=ranges, **arrays,
        )  # fmt: skip

    def _settings(self, i: int) -> dict:
        """The settings of clip i as numbers and texts; of a given clip or noise only that it was given."""
        settings = self.settings
        plain = asdict(replace(settings, clip=settings.clip is not None, noise=settings.noise is not None))
        plain |= {"seed": settings.seed + i, "negative": settings.negative[:LONGEST_TEXT]}
        return {name: value.item() if hasattr(value, "item") else value for name, value in plain.items()}


def _spread(length: int, n: int) -> list[int]:
    """At most n indices, evenly from first to last: _spread(16, 4) == [0, 5, 10, 15]."""
    return np.unique(np.linspace(0, length - 1, min(n, length)).round().astype(int)).tolist()
