"""What may be asked of a model: the settings of one sampling run, checked before any work.

Everything that nobody chose is the preset's. A setting out of range is refused in one line that says what was expected.
"""

import math
import string
import warnings
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from torch import Tensor

from minit2v.diffusion.samplers import SAMPLERS
from minit2v.errors import UserError
from minit2v.pixels import fitted
from minit2v.presets import Preset
from minit2v.ranges import Range, shown
from minit2v.video import Clip

MOST_FRAMES = 256  # of a clip
New = Annotated[int, Range(1, MOST_FRAMES)]  # frames that are added to a clip
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
    eta: float = 0.0  # fresh noise of a sampler that takes it (ddim), 0 to 1; a system may want more; released 0
    fps: float | None = None  # frames a second of the clip; None: those of the clip to start from, else the preset's
    noise: Tensor | None = None  # (b, c, f, h, w), standard normal, to start from instead of the seed's
    init: Clip | np.ndarray | None = None  # video, uint8 (f, H, W, 3), to start from; one frame is repeated
    window: int = 0  # frames that the network sees at once, if fewer than the clip has; 0: all (see `windows`)
    strength: float = 0.7  # how much of `init` may change, 0 to 1: the share of the steps that are taken

    def chosen(self, name: str) -> bool:
        """Whether a setting has another value than its default. An array always has."""
        value, default = getattr(self, name), getattr(type(self), name)
        return value is not default and not (isinstance(value, (int, float, str)) and value == default)

    @property
    def skip(self) -> int:
        """How many of the first steps are left out; at least one is taken."""
        return 0 if self.init is None else self.steps - max(1, round(self.steps * self.strength))


def checked(prompts: list[str], settings: SamplingSettings, preset: Preset) -> SamplingSettings:
    """The settings, None replaced by the preset's values. Raises UserError for anything out of range, and warns of a
    setting that has no effect."""
    for text in prompts or [None]:
        if not isinstance(text, str) or not text.strip(string.whitespace + string.punctuation):
            raise UserError(f'prompt: expected words, found {shown(text)}; try "a red circle moves left"')
    settings = _checked_sampler(_checked_numbers(settings))
    settings = replace(settings, **_checked_sizes(settings, preset))
    if settings.init is not None:
        settings = _with_init(settings, preset)
    if settings.guidance == 1 and settings.negative:
        warnings.warn(f"negative: {settings.negative!r} has no effect at guidance 1; raise the guidance", stacklevel=4)
    if settings.window >= settings.frames:
        warnings.warn(f"window: {settings.window} has no effect on {settings.frames} frames", stacklevel=4)
    settings = replace(settings, fps=_number("fps", preset.fps if settings.fps is None else settings.fps, 0.01, 1000))
    if settings.init is None and settings.strength != SamplingSettings.strength:
        warnings.warn(f"strength: {settings.strength} has no effect without init", stacklevel=4)
    expected, noise = latent_shape(len(prompts), settings, preset), settings.noise
    if noise is not None and not (isinstance(noise, Tensor) and tuple(noise.shape) == expected):
        found = f"{type(noise).__name__} {tuple(getattr(noise, 'shape', ()))}"
        raise UserError(f"noise: expected a tensor (b, c, f, h, w) = {expected}, found {found}")
    return settings


def _checked_numbers(settings: SamplingSettings) -> SamplingSettings:
    """numpy's numbers become Python's, the only ones that torch takes for a seed."""
    return replace(
        settings,
        window=_integer("window", settings.window, 0, MOST_FRAMES),
        seed=_integer("seed", settings.seed, 0, 2**63 - 1),
        eta=_number("eta", settings.eta, 0, 1),
        strength=_number("strength", settings.strength, 0, 1),
    )


def _checked_sampler(settings: SamplingSettings) -> SamplingSettings:
    if not isinstance(settings.sampler, str) or settings.sampler not in SAMPLERS:
        raise UserError(f"sampler: expected one of {', '.join(SAMPLERS)}, found {shown(settings.sampler)}")
    if settings.eta and not SAMPLERS[settings.sampler].takes_eta:
        takers = ", ".join(name for name, row in SAMPLERS.items() if row.takes_eta)
        raise UserError(f"eta: expected 0 with {settings.sampler}, found {settings.eta}; it is for {takers}")
    return settings


def _checked_sizes(settings: SamplingSettings, preset: Preset) -> dict:
    """The fields that a preset has a value for. A size that is left to the clip to start from stays None."""
    found = {name: getattr(settings, name) for name in PRESET_FIELDS}
    from_init = ("frames", "height", "width") if settings.init is not None else ()
    found = {name: getattr(preset, name) if value is None and name not in from_init else value
             for name, value in found.items()}  # fmt: skip
    for name in ("height", "width"):
        if found[name] is not None:
            found[name] = _integer(name, found[name], 1, 4096)
            if excess := found[name] % preset.factor:
                near = found[name] - excess + preset.factor
                raise UserError(f"{name}: expected a multiple of {preset.factor} pixels, found {found[name]}; try {near}")
    if found["frames"] is not None:
        found["frames"] = _integer("frames", found["frames"], 1, MOST_FRAMES)
    found["steps"] = _integer("steps", found["steps"], 1, preset.timesteps)
    found["guidance"] = _number("guidance", found["guidance"], -math.inf, math.inf)
    if not isinstance(found["negative"], str):
        raise UserError(f"negative: expected a text, found {shown(found['negative'])}")
    return found


def _with_init(settings: SamplingSettings, preset: Preset) -> SamplingSettings:
    """Size and frame rate are those of the clip to start from, as far as nobody chose others; it is cut to fit them."""
    pixels, factor = getattr(settings.init, "pixels", settings.init), preset.factor
    shape = getattr(pixels, "shape", ())
    if len(shape) != 4 or shape[3] != 3 or 0 in shape or pixels.dtype != np.uint8:
        raise UserError(f"init: expected a clip, uint8 (f, H, W, 3), found {shown(pixels)}")
    if min(shape[1:3]) < factor:
        raise UserError(f"init: expected {factor} pixels a side or more, found {shape[2]}x{shape[1]}; enlarge it")
    picture = shape[0] == 1
    if not picture and shape[0] < (settings.frames or 0):
        raise UserError(f"frames: expected at most {shape[0]}, as init has, found {settings.frames}; leave it out")
    frames = settings.frames or (preset.frames if picture else min(shape[0], MOST_FRAMES))
    height, width = settings.height or shape[1] - shape[1] % factor, settings.width or shape[2] - shape[2] % factor
    if not picture and frames < shape[0]:
        warnings.warn(f"init: takes the first {frames} of its {shape[0]} frames", stacklevel=5)
    if (height, width) != shape[1:3]:
        warnings.warn(f"init: fits its {shape[2]}x{shape[1]} pixels to {width}x{height}", stacklevel=5)
    fps = getattr(settings.init, "fps", None) if settings.fps is None and not picture else settings.fps
    init = fitted(pixels[:frames], height, width)
    return replace(settings, init=init, frames=frames, height=height, width=width, fps=fps)


def _integer(name: str, value, low: int, high: int) -> int:
    if not Range(low, high).holds(value, whole=True):
        raise UserError(f"{name}: expected a whole number from {low} to {high}, found {shown(value)}")
    return int(value)


def _number(name: str, value, low: float, high: float) -> float:
    if not (Range(low, high).holds(value, whole=False) and math.isfinite(value)):
        limits = "a finite number" if math.isinf(high) else f"a number from {low:g} to {high:g}"
        raise UserError(f"{name}: expected {limits}, found {shown(value)}")
    return value.item() if isinstance(value, np.generic) else value


def latent_shape(b: int, settings: SamplingSettings, preset: Preset) -> tuple[int, ...]:
    """(b, c, f, h, w) of the latents of b clips."""
    c, factor = preset.latent_channels, preset.factor
    return b, c, settings.frames, settings.height // factor, settings.width // factor
