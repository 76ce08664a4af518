"""What may be asked of a model: the settings of one sampling run, checked before any work.

Everything that nobody chose is the preset's. A setting out of range is refused in one line that says what was expected.
"""

import math
import numbers
import operator
import string
import warnings
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from minit2v.diffusion.samplers import SAMPLERS
from minit2v.errors import UserError
from minit2v.pixels import fitted
from minit2v.presets import Preset
from minit2v.video import Clip

MOST_FRAMES = 256  # of a clip
PRESET_FIELDS = ("frames", "height", "width", "steps", "guidance", "negative")  # what a preset has a value for


@dataclass(frozen=True)
class SamplingSettings:
    """How to sample a clip. None means the preset's own value, given here for the release."""

    frames: int | None = None  # length, 1 to 256; released 16
    height: int | None = None  # pixels, a multiple of the autoencoder's factor 8; released 256
    width: int | None = None  # pixels, likewise; released 256
    steps: int | None = None  # network calls, 1 to 1000; released 50
    guidance: float | None = None  # classifier-free guidance scale, 1 is off; released 9.0
    negative: str | None = None  # what the clip should not show; released ""
    seed: int = 0  # of the noise; prompt number i of a list takes seed + i; 0 to 2**63 - 1
    sampler: str = "ddim"  # row of `samplers.SAMPLERS`; released ddim
    eta: float = 0.0  # fresh noise of a sampler that takes it (ddim), 0 to 1; released 0
    fps: float | None = None  # frames a second of the clip; None: those of the clip to start from, else the preset's
    noise: Tensor | None = None  # (b, 4, f, h, w), standard normal, to start from instead of the seed's
    clip: Clip | np.ndarray | None = None  # uint8 (f, H, W, 3) to start from; one frame is repeated
    window: int = 0  # frames that the network sees at once, if fewer than the clip has; 0: all (see `windows`)
    strength: float = 0.7  # how much of `clip` may change, 0 to 1: the share of the steps that are taken

    @property
    def skip(self) -> int:
        """How many of the first steps are left out; at least one is taken."""
        return 0 if self.clip is None else self.steps - max(1, round(self.steps * self.strength))


def checked(prompts: list[str], settings: SamplingSettings, preset: Preset) -> SamplingSettings:
    """The settings, None replaced by the preset's values. Raises UserError for anything out of range."""
    for text in prompts or [None]:
        if not isinstance(text, str) or not text.strip(string.whitespace + string.punctuation):
            raise UserError(f'prompt: expected words, found {text!r}; try "a red circle moves left"')
    own = {name: getattr(preset, name) for name in PRESET_FIELDS}
    own |= {name: value for name in PRESET_FIELDS if (value := getattr(settings, name)) is not None}
    factor = preset.factor
    for name in ("height", "width"):
        own[name] = _integer(name, own[name], 1, 4096)
        if excess := own[name] % factor:
            near = own[name] - excess + factor
            raise UserError(f"{name}: expected a multiple of {factor} pixels, found {own[name]}; try {near}")
    own["frames"] = _integer("frames", own["frames"], 1, MOST_FRAMES)
    own["steps"] = _integer("steps", own["steps"], 1, preset.timesteps)
    own["guidance"] = _number("guidance", own["guidance"], -math.inf, math.inf)
    settings = replace(
        settings,  # numpy's numbers become Python's, the only ones that torch takes for a seed
        window=_integer("window", settings.window, 0, MOST_FRAMES),
        seed=_integer("seed", settings.seed, 0, 2**63 - 1),
        eta=_number("eta", settings.eta, 0, 1),
        strength=_number("strength", settings.strength, 0, 1),
    )
    if not isinstance(own["negative"], str):
        raise UserError(f"negative: expected a text, found {own['negative']!r}")
    if settings.sampler not in SAMPLERS:
        raise UserError(f"sampler: expected one of {', '.join(SAMPLERS)}, found {settings.sampler!r}")
    if settings.eta and not SAMPLERS[settings.sampler].takes_eta:
        takers = ", ".join(name for name, row in SAMPLERS.items() if row.takes_eta)
        raise UserError(f"eta: expected 0 with {settings.sampler}, found {settings.eta}; {takers} takes it")
    if own["guidance"] == 1 and settings.negative:
        warnings.warn(f"negative: {settings.negative!r} has no effect at guidance 1; take a larger guidance", stacklevel=2)
    fps = settings.fps or getattr(settings.clip, "fps", preset.fps)
    settings = replace(settings, fps=_number("fps", fps, 0.01, 1000))
    if settings.clip is not None:
        pixels = _start(settings, own, factor)
        own |= dict(zip(("frames", "height", "width"), pixels.shape))
        own["frames"] = own["frames"] if len(pixels) > 1 else _integer("frames", settings.frames or preset.frames, 1, MOST_FRAMES)
        settings = replace(settings, clip=pixels)
    settings = replace(settings, **own)
    expected, noise = latent_shape(len(prompts), settings, preset), settings.noise
    if noise is not None and not (isinstance(noise, Tensor) and tuple(noise.shape) == expected):
        found = f"{type(noise).__name__} {tuple(getattr(noise, 'shape', ()))}"
        raise UserError(f"noise: expected a tensor (b, c, f, h, w) = {expected}, found {found}")
    return settings


def _integer(name: str, value, low: int, high: int) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or not low <= found <= high:
        raise UserError(f"{name}: expected a whole number from {low} to {high}, found {value!r}")
    return found


def _number(name: str, value, low: float, high: float) -> float:
    if not (isinstance(value, numbers.Real) and math.isfinite(value) and low <= value <= high):
        limits = "a finite number" if math.isinf(high) else f"a number from {low:g} to {high:g}"
        raise UserError(f"{name}: expected {limits}, found {value!r}")
    return value.item() if isinstance(value, np.generic) else value


def _start(settings: SamplingSettings, own: dict, factor: int) -> np.ndarray:
    """The pixels to start from: as many frames, and as large, as the settings or the clip itself say."""
    pixels = getattr(settings.clip, "pixels", settings.clip)
    shape = getattr(pixels, "shape", ())
    if len(shape) != 4 or shape[3] != 3 or 0 in shape or pixels.dtype != np.uint8:
        raise UserError(f"clip: expected uint8 (f, H, W, 3), found {shape or pixels!r}")
    if min(shape[1:3]) < factor:
        raise UserError(f"clip: expected at least {factor} pixels a side, found {shape[2]}x{shape[1]}; enlarge it first")
    most = settings.frames or MOST_FRAMES
    if 1 < len(pixels) < (settings.frames or 0):
        raise UserError(f"frames: expected at most {len(pixels)}, as the clip has, found {settings.frames}")
    size = [settings.height or shape[1] - shape[1] % factor, settings.width or shape[2] - shape[2] % factor]
    if len(pixels) > most or (settings.height is None and size != [*shape[1:3]]):
        cut = f"{min(len(pixels), most)} frames of {size[1]}x{size[0]}"
        warnings.warn(f"clip: takes {cut} of {len(pixels)} frames of {shape[2]}x{shape[1]}", stacklevel=3)
    return fitted(pixels[:most], *size)


def latent_shape(b: int, settings: SamplingSettings, preset: Preset) -> tuple[int, ...]:
    """(b, c, f, h, w) of the latents of b clips."""
    c, factor = preset.latent_channels, preset.factor
    return b, c, settings.frames, settings.height // factor, settings.width // factor
