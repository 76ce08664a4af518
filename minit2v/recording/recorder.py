"""A run becomes a `Recording`, a file of at most 3 MB, and a picture of the clip out of the noise.

    recording.npz   latents, decoded previews and attention maps of the steps; see `recording`
    strip.png       previews: a few of the steps from top to bottom, a few of the frames from left to right

What is kept: everything, if it is at most 2.9 MB before compression; a run of the mini model is. Else at most 8 frames
(every k-th), 32 rows and columns of latents (every k-th), the 12 words that are looked at most, and as many steps as
then fit, evenly from first to last. Previews are at most 64 pixels a side; norms are kept of every step.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from einops import rearrange
from torch import Tensor

from minit2v.diffusion.samplers import Step
from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.pixels import evenly
from minit2v.ranges import Place, Size, public
from minit2v.recording.attention_maps import AttentionMaps, apart
from minit2v.recording.recording import LATENTS, Recording, packed
from minit2v.systems import TextToVideo
from minit2v.systems.settings import SamplingSettings, latent_shape
from minit2v.video import Clip, check_output

BUDGET = 2_900_000  # bytes of latents, pictures and maps; the file has 100,000 more for the rest
PICTURE = 64  # pixels a side of a preview, at most
FRAMES, CELLS, WORDS = 8, 32, 12  # of a run that does not fit as a whole
LONGEST_TEXT = 2000  # characters of a prompt; a network reads a few hundred


@public
def recorded(pipe: TextToVideo, prompt: str, **settings) -> Recording:
    """Sample a clip of a prompt and return its recording. `settings` are those of the pipeline's call.

    Decodes every step that is kept. Raises UserError for a setting out of range.
    """
    pipe = apart(pipe)
    prompts, settings = pipe.checked([prompt], settings)
    recorder = Recorder(pipe, prompts, settings)
    for _ in recorder.follow(pipe.sampled(prompts, settings)):
        pass
    return recorder.recordings()[0]


@public
def record(pipe: TextToVideo, prompts: Sequence[str], folder: Place, progress: bool = False, **settings) -> list[Clip]:
    """Sample clips of prompts, and write their recordings and strips into `folder`.

    Several clips make `recording-1.npz`, `strip-1.png`, `recording-2.npz`, … `settings` are those of the pipeline's
    call. Raises UserError, before any work, for a setting out of range and a folder that cannot be made or written.
    """
    from tqdm.auto import tqdm

    pipe = apart(pipe)
    prompts, settings = pipe.checked(prompts, settings)
    folder = _checked_folder(Path(folder))
    recorder = Recorder(pipe, prompts, settings)
    steps = recorder.follow(pipe.sampled(prompts, settings))  # reads the prompts, and may refuse a word
    folder.mkdir(exist_ok=True)
    for step in tqdm(steps, "denoising", pipe.count(settings), unit="step", disable=not progress):
        pass
    _write(recorder.recordings(), folder)
    return pipe.clips(step, settings)


def _checked_folder(folder: Path) -> Path:
    """The folder, if it can be made or written. Raises UserError; makes nothing yet."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"expected a folder to record in, found the file {folder}; choose another name")
    check_output((folder if folder.exists() else folder.parent) / "recording.npz", (".npz",))
    return folder


def _write(recordings: list[Recording], folder: Path) -> None:
    from PIL import Image

    for i, recording in enumerate(recordings, 1):
        number = "" if len(recordings) == 1 else f"-{i}"
        recording.save(folder / f"recording{number}.npz")
        with atomic(folder / f"strip{number}.png") as path:
            Image.fromarray(strip(recording)).save(path)


@public
def strip(recording: Recording, rows: Size = 6, columns: Size = 8) -> np.ndarray:
    """Previews as one picture, uint8 (rows H, columns W, 3): steps from top to bottom, frames from left to right."""
    s, f = recording.preview.shape[:2]
    chosen = recording.preview[evenly(s, rows)][:, evenly(f, columns)]
    return rearrange(chosen, "s f H W c -> (s H) (f W) c")


@dataclass(frozen=True)
class RecordingPlan:
    """Which part of a run is kept."""

    steps: list[int]  # numbers of the steps, from 0
    frame: int  # every how many-th frame of the clip
    cell: int  # every how many-th row and column of the latents
    words: int  # at most, of the prompt
    picture: tuple[int, int]  # height and width of a preview


def plan(steps: int, latent: tuple[int, ...], pixels: tuple[int, int], words: int) -> RecordingPlan:
    """What is kept of a run of that many steps, latents (c, f, h, w) and pictures (H, W) by the rule at the top.

    >>> plan(3, (4, 16, 8, 8), (64, 64), words=6)  # preset mini: all of it
    RecordingPlan(steps=[0, 1, 2], frame=1, cell=1, words=6, picture=(64, 64))
    >>> plan(50, (4, 16, 32, 32), (256, 256), words=6)  # preset modelscope-1.7b
    RecordingPlan(steps=[0, 5, 10, 15, 20, 24, 29, 34, 39, 44, 49], frame=2, cell=1, words=6, picture=(64, 64))
    """
    c, f, h, w = latent
    scale = min(1, PICTURE / max(pixels))
    H, W = (max(1, round(side * scale)) for side in pixels)

    def step_bytes(f, h, w, words):
        return f * (len(LATENTS) * c * h * w + 3 * H * W + words * h * w) + f * f

    if steps * step_bytes(f, h, w, words) <= BUDGET:
        return RecordingPlan(list(range(steps)), 1, 1, words, (H, W))
    frame, cell, words = math.ceil(f / FRAMES), math.ceil(max(h, w) / CELLS), min(words, WORDS)
    room = BUDGET // step_bytes(*(math.ceil(n / k) for n, k in ((f, frame), (h, cell), (w, cell))), words)
    return RecordingPlan(evenly(steps, max(1, room)), frame, cell, words, (H, W))


class Recorder:
    """Follows a run of `pipe` and keeps what `plan` says of what its steps have."""

    def __init__(self, pipe: TextToVideo, prompts: list[str], settings: SamplingSettings):
        self.pipe, self.prompts, self.settings = pipe, prompts, settings
        shape = latent_shape(len(prompts), settings, pipe.preset)
        self.maps = AttentionMaps(pipe, prompts, settings, shape)
        size, words = (settings.height, settings.width), max(map(len, self.maps.words))
        self.plan = plan(pipe.count(settings), shape[1:], size, words)
        self.timesteps, self.norms, self.kept = [], {}, {}

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
        latents = {name: values for name in LATENTS if (values := getattr(step, name)) is not None}
        for name, values in latents.items():
            norm = values.square().mean(dim=(1, 2, 3, 4)).sqrt().cpu().numpy()
            self.norms.setdefault(name, []).append(norm)
        if i not in self.plan.steps:
            return
        for name, values in latents.items():
            self._keep(name, self._thinned(values).transpose(1, 2).cpu().numpy())  # (b c f h w) -> (b f c h w)
        self._keep("clip", latents.get("x0", step.x)[:, :, :: self.plan.frame].cpu())
        if maps := self.maps.take():
            cross, temporal = maps
            self._keep("cross", [self._thinned(clip).numpy() for clip in cross])
            self._keep("temporal", temporal[:, :: self.plan.frame, :: self.plan.frame].numpy())

    def _keep(self, name: str, values) -> None:
        self.kept.setdefault(name, []).append(values)

    def _thinned(self, values: Tensor) -> Tensor:
        return values[..., :: self.plan.frame, :: self.plan.cell, :: self.plan.cell]

    def recordings(self) -> list[Recording]:
        """A recording of each clip; call it after the last step, when the network has left the device."""
        previews = np.stack([self._preview(clip) for clip in self.kept["clip"]])  # s b f H W 3
        return [self._recording(i, previews[:, i]) for i in range(len(self.prompts))]

    def _preview(self, clip: Tensor) -> np.ndarray:
        from PIL import Image

        H, W = self.plan.picture
        pixels = self.pipe.decode(clip)
        frames = map(Image.fromarray, pixels.reshape(-1, *pixels.shape[2:]))
        small = np.stack([frame.resize((W, H), Image.Resampling.BOX) for frame in frames])  # the mean of each square
        return small.reshape(*pixels.shape[:2], *small.shape[1:])

    def _recording(self, i: int, preview: np.ndarray) -> Recording:
        pipe, settings = self.pipe, self.settings
        arrays, ranges, words = {}, {}, []
        for name in self.norms:
            arrays[name], ranges[name] = packed(self._stacked(name, i))
        if "cross" in self.kept:
            cross = self._stacked("cross", i)  # s k f h w
            looked_at = np.sort(np.argsort(-cross.mean(axis=(0, 2, 3, 4)), kind="stable")[: self.plan.words])
            words = [self.maps.words[i][k] for k in looked_at]
            arrays["cross"], ranges["cross"] = packed(cross[:, looked_at])
            arrays["temporal"], ranges["temporal"] = packed(self._stacked("temporal", i))
        timesteps = np.array(self.timesteps, np.int64)  # Windows would take int32
        steps = np.array([step for step in self.plan.steps if step < len(timesteps)], np.int64)
        if (diffusion := getattr(pipe, "diffusion", None)) is not None:
            arrays["alpha_bar"] = diffusion.alpha_bar[timesteps[steps]].numpy().astype(np.float32)
        return Recording(
            prompt=self.prompts[i][:LONGEST_TEXT], model=pipe.preset.name, settings=self._settings(i),
            fps=settings.fps / self.plan.frame, timesteps=timesteps, steps=steps,
            frames=np.arange(0, settings.frames, self.plan.frame, dtype=np.int64),
            norms={name: np.array([norm[i] for norm in values]) for name, values in self.norms.items()},
            preview=preview, words=words, ranges=ranges, **arrays,
        )  # fmt: skip

    def _stacked(self, name: str, i: int) -> np.ndarray:
        """What was kept of clip i: (s, ...)."""
        return np.stack([step[i] for step in self.kept[name]])

    def _settings(self, i: int) -> dict:
        """The settings of clip i as numbers and texts; of a given clip or noise only that it was given."""
        settings = self.settings
        plain = asdict(replace(settings, init=settings.init is not None, noise=settings.noise is not None))
        plain |= {"seed": settings.seed + i, "negative": settings.negative[:LONGEST_TEXT]}
        return {name: value.item() if hasattr(value, "item") else value for name, value in plain.items()}
