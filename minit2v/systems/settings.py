"""What may be asked of a model: the settings of one sampling run, checked before any work.

Everything that nobody chose is the preset's. A setting out of range is refused in one line that says what was expected.
"""

import math
import numbers
import operator
import string
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from minit2v.diffusion.samplers import SAMPLERS
from minit2v.errors import UserError
from minit2v.presets import Preset
from minit2v.video import Clip

OWN = ("frames", "height", "width", "steps", "guidance", "negative")  # what a preset has a value for


@dataclass(frozen=True)
class Settings:
    """How to sample a clip. None means the preset's own value, given here for the release."""

    frames: int | None = None  # length, 1 to 256; released 16
    height: int | None = None  # pixels, a multiple of the autoencoder's factor 8; released 256
    width: int | None = None  # pixels, likewise; released 256
    steps: int | None = None  # network calls, 1 to 1000; released 50
    guidance: float | None = None  # classifier-free guidance scale, 1 is off; released 9.0
    negative: str | None = None  # what the clip should not show; released ""
    seed: int = 0  # of the noise; prompt number i of a list takes seed + i; 0 to 2**63 - 1
    sampler: str = "ddim"  # "ddim", "ddpm" or "dpm++"; released ddim
    eta: float = 0.0  # fresh noise of ddim, 0 to 1; released 0
    noise: Tensor | None = None  # (b, 4, f, h, w), standard normal, to start from instead of the seed's
    clip: Clip | np.ndarray | None = None  # uint8 (f, H, W, 3) to start from; one frame is repeated
    window: int = 0  # frames that the network sees at once, if fewer than the clip has; 0: all (see `windows`)
    strength: float = 0.7  # how much of `clip` may change, 0 to 1: the share of the steps that are taken

    @property
    def skip(self) -> int:
        """How many of the first steps are left out; at least one is taken."""
        return 0 if self.clip is None else self.steps - max(1, round(self.steps * self.strength))


def checked(prompts: list[str], settings: Settings, preset: Preset) -> Settings:
    """The settings, None replaced by the preset's values. Raises UserError for anything out of range."""
    for text in prompts or [None]:
        if not isinstance(text, str) or not text.strip(string.whitespace + string.punctuation):
            raise UserError(f'prompt: expected words, found {text!r}; try "a red circle moves left"')
    own = {name: getattr(preset, name) for name in OWN}
    own |= {name: value for name in OWN if (value := getattr(settings, name)) is not None}
    factor = preset.autoencoder.factor
    for name in ("height", "width"):
        own[name] = _integer(name, own[name], 1, 4096)
        if excess := own[name] % factor:
            near = own[name] - excess + factor
            raise UserError(f"{name}: expected a multiple of {factor} pixels, found {own[name]}; try {near}")
    own["frames"] = _integer("frames", own["frames"], 1, 256)
    own["steps"] = _integer("steps", own["steps"], 1, preset.diffusion.steps)
    own["guidance"] = _number("guidance", own["guidance"], -math.inf, math.inf)
    settings = replace(
        settings,  # numpy's numbers become Python's, the only ones that torch takes for a seed
        window=_integer("window", settings.window, 0, 256),
        seed=_integer("seed", settings.seed, 0, 2**63 - 1),
        eta=_number("eta", settings.eta, 0, 1),
        strength=_number("strength", settings.strength, 0, 1),
    )
    if not isinstance(own["negative"], str):
        raise UserError(f"negative: expected a text, found {own['negative']!r}")
    if settings.sampler not in SAMPLERS:
        raise UserError(f"sampler: expected one of {', '.join(SAMPLERS)}, found {settings.sampler!r}")
    if settings.eta and settings.sampler != "ddim":
        raise UserError(f"eta: expected 0 with {settings.sampler}, found {settings.eta}; only ddim has it")
    if settings.clip is not None:
        settings = replace(settings, clip=getattr(settings.clip, "pixels", settings.clip))
        own |= _of_clip(settings, own, factor)
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


def _of_clip(settings: Settings, own: dict, factor: int) -> dict:
    """The size that a given clip has, which is the size of what is made of it."""
    shape = getattr(settings.clip, "shape", ())
    fits = len(shape) == 4 and shape[3] == 3 and shape[0] > 0 and not shape[1] % factor and not shape[2] % factor
    if not fits or settings.clip.dtype != np.uint8:
        raise UserError(
            f"clip: expected uint8 (f, H, W, 3) with H and W multiples of {factor}, found {shape or settings.clip!r}"
        )
    frames = own["frames"] if shape[0] == 1 else shape[0]
    size = {"frames": frames, "height": shape[1], "width": shape[2]}
    if wrong := [name for name in size if getattr(settings, name) not in (None, size[name])]:
        raise UserError(f"{wrong[0]}: expected {size[wrong[0]]}, as the clip has, found {own[wrong[0]]}; leave it out")
    return size


def latent_shape(b: int, settings: Settings, preset: Preset) -> tuple[int, ...]:
    """(b, c, f, h, w) of the latents of b clips."""
    c, factor = preset.autoencoder.latent_channels, preset.autoencoder.factor
    return b, c, settings.frames, settings.height // factor, settings.width // factor
