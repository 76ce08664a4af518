"""Text to video: the three networks and a sampler, put together.

    prompt ----text--> context (b n d) ----.
    seed ------------> noise (b 4 f h w) --+--> sampler + UNet --> latents (b 4 f h w) --> pixels (b f H W 3)
    negative --text--> context (b n d) ----'    one Step each      / scale_factor, autoencoder

References: ModelScopeT2V, arXiv 2308.06571, sections 3 and 4; latent diffusion, 2112.10752, section 3;
classifier-free guidance, 2207.12598, section 3.2.
"""

import math
import operator
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from minit2v import released, weights
from minit2v.autoencoder import VQGAN
from minit2v.diffusion import Diffusion
from minit2v.errors import UserError
from minit2v.presets import Preset
from minit2v.recording import record
from minit2v.samplers import SAMPLERS, Step, gaussian, guided, timesteps
from minit2v.text import TextEncoder
from minit2v.unet import UNet
from minit2v.video import Clip
from minit2v.windows import shared_noise, windowed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How to sample a clip. None means the preset's own value, given here for the release."""

    frames: int | None = None  # length, 1 to 256; released 16
    height: int | None = None  # pixels, a multiple of the autoencoder's factor 8; released 256
    width: int | None = None  # pixels, likewise; released 256
    steps: int | None = None  # network calls, 1 to 1000; released 50
    guidance: float | None = None  # classifier-free guidance scale, 1 is off; released 9.0
    negative: str = ""  # what the clip should not show; released ""
    seed: int = 0  # of the noise; prompt number i of a list takes seed + i; 0 to 2**63 - 1
    sampler: str = "ddim"  # "ddim", "ddpm" or "dpm++"; released ddim
    eta: float = 0.0  # fresh noise of ddim, 0 to 1; released 0
    noise: Tensor | None = None  # (b, 4, f, h, w), standard normal, to start from instead of the seed's
    clip: Clip | np.ndarray | None = None  # uint8 (f, H, W, 3) to start from; one frame is repeated
    window: int = 0  # frames that the network sees at once, if fewer than the clip has; 0: all (see `windows`)
    strength: float = 0.7  # how much of `clip` may change, 0 to 1: the share of the steps that are taken


def _integer(name: str, value, low: int, high: int) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or not low <= found <= high:
        raise UserError(f"{name}: expected a whole number from {low} to {high}, found {value!r}")
    return found


def _number(name: str, value, low: float, high: float) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and low <= value <= high):
        limits = "a finite number" if math.isinf(high) else f"a number from {low:g} to {high:g}"
        raise UserError(f"{name}: expected {limits}, found {value!r}")
    return float(value)


def checked(prompts: list[str], settings: Settings, preset: Preset) -> Settings:
    """The settings, None replaced by the preset's values. Raises UserError for anything out of range."""
    for text in prompts or [None]:
        if not isinstance(text, str) or not text.strip(string.whitespace + string.punctuation):
            raise UserError(f'prompt: expected words, found {text!r}; try "a red circle moves left"')
    own = {name: getattr(preset, name) for name in ("frames", "height", "width", "steps", "guidance")}
    own |= {name: value for name in own if (value := getattr(settings, name)) is not None}
    factor = preset.autoencoder.factor
    for name in ("height", "width"):
        if excess := _integer(name, own[name], 1, 4096) % factor:
            near = own[name] - excess + factor
            raise UserError(f"{name}: expected a multiple of {factor} pixels, found {own[name]}; try {near}")
    _integer("frames", own["frames"], 1, 256)
    _integer("steps", own["steps"], 1, preset.diffusion.steps)
    _integer("window", settings.window, 0, 256)
    _integer("seed", settings.seed, 0, 2**63 - 1)
    _number("guidance", own["guidance"], -math.inf, math.inf)
    _number("eta", settings.eta, 0, 1)
    if not isinstance(settings.negative, str):
        raise UserError(f"negative: expected a text, found {settings.negative!r}")
    if settings.sampler not in SAMPLERS:
        raise UserError(f"sampler: expected one of {', '.join(SAMPLERS)}, found {settings.sampler!r}")
    if settings.eta and settings.sampler != "ddim":
        raise UserError(f"eta: expected 0 with {settings.sampler}, found {settings.eta}; only ddim has it")
    if settings.clip is not None:
        settings = replace(settings, clip=getattr(settings.clip, "pixels", settings.clip))
        own |= _of_clip(settings, own, factor)
    _number("strength", settings.strength, 0, 1)
    settings = replace(settings, **own)
    expected, found = latent_shape(len(prompts), settings, preset), getattr(settings.noise, "shape", None)
    if settings.noise is not None and (found is None or tuple(found) != expected):
        raise UserError(f"noise: expected (b, c, f, h, w) = {expected}, found {found and tuple(found)}")
    return settings


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


def _pixels(frames: Tensor) -> Tensor:
    # [-1, 1] -> uint8; cut off, not rounded, as in the release
    return (frames.float() * 0.5 + 0.5).clamp(0, 1).mul(255).to(torch.uint8)


class TextToVideo:
    """A text-to-video model. Its parts are attributes: `preset`, `text`, `unet`, `autoencoder`, `diffusion`.

    Args:
        preset: sizes and defaults.
        text: `.encode(prompts) -> (b, n, d)`.
        unet: `(x (b, 4, f, h, w), t (b,), context (b, n, d)) -> (b, 4, f, h, w)`.
        autoencoder: `.decode(latents (n, 4, h, w)) -> frames (n, 3, H, W)` in [-1, 1].
        batched: run the two halves of guidance as one batch, decode four frames at a time; False needs half the memory
            and is a little slower.
        visit: a device where each network works while it has something to do, if it lives elsewhere.
    """

    def __init__(self, preset: Preset, text: nn.Module, unet: nn.Module, autoencoder: nn.Module,
                 batched: bool = True, visit: torch.device | None = None):
        self.preset, self.text, self.unet, self.autoencoder = preset, text, unet, autoencoder
        self.batched, self.visit = batched, visit
        self.diffusion = Diffusion(preset.diffusion)
        for network in (text, unet, autoencoder):
            network.eval()

    @property
    def device(self) -> torch.device:
        return self.visit or next(self.unet.parameters()).device

    @contextmanager
    def working(self, network: nn.Module):
        """The network is where it works; afterwards it is where it lives."""
        if self.visit is None:
            yield
            return
        home = next(network.parameters()).device
        try:
            yield network.to(self.visit)
        finally:
            network.to(home)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def __call__(self, prompt: str | list[str], callback: Callable[[Step], None] | None = None,
                 progress: bool = False, record_to: str | Path | None = None,
                 **settings) -> Clip | list[Clip]:
        """A clip of a prompt; or a list of clips, none of which depends on the others of the list.

        `callback` is called with every Step; `progress` shows a bar; `record_to` is a folder that keeps all
        steps (see `recording.record`); `settings` are the fields of `Settings`. Raises UserError, before any
        work, for a setting out of range.
        """
        steps = self.stream(prompt, **settings)
        if progress:
            from tqdm.auto import tqdm

            steps = tqdm(steps, "denoising", settings.get("steps") or self.preset.steps, unit="step")
        if record_to is not None:
            steps = record(steps, record_to, self.decode)
        for step in steps:
            if callback is not None:
                callback(step)
        clips = [Clip(pixels, self.preset.fps) for pixels in self.decode(step.x)]
        return clips[0] if isinstance(prompt, str) else clips

    def stream(self, prompt: str | list[str], **settings) -> Iterator[Step]:
        """One `Step` per denoising step, each computed when it is asked for; its tensors are (b, 4, f, h, w).

        `settings` are the fields of `Settings`. Raises UserError at once for a setting out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        settings = checked(prompts, Settings(**settings), self.preset)
        unconditional = None
        with self.working(self.text):
            context = self.text.encode(prompts).to(self.device, self.dtype)
            if settings.guidance != 1:
                unconditional = self.text.encode([settings.negative]).to(context)
                unconditional = unconditional.expand_as(context)  # (1 n d) -> (b n d)
        return self._steps(context, unconditional, settings)

    @torch.inference_mode()
    def _steps(self, context: Tensor, unconditional: Tensor | None, settings: Settings) -> Iterator[Step]:
        unet = windowed(self.unet, settings.window) if settings.window else self.unet
        model = guided(unet, context, unconditional, settings.guidance, self.batched)
        generators = [torch.Generator().manual_seed(settings.seed + i) for i in range(len(context))]
        x = settings.noise
        if x is None:
            x = gaussian(latent_shape(len(context), settings, self.preset), generators)
            x = shared_noise(x, settings.window) if settings.window else x
        options = {} if settings.sampler == "dpm++" else {"generator": generators}
        if settings.sampler == "ddim":
            options["eta"] = settings.eta
        if settings.clip is not None:
            options["skip"] = settings.steps - max(1, round(settings.steps * settings.strength))
            x = self._noised(settings, x.to(self.device), options["skip"])
        sampler = SAMPLERS[settings.sampler]
        with self.working(self.unet):
            yield from sampler(model, x.to(self.device), self.diffusion, settings.steps, **options)

    def _noised(self, settings: Settings, noise: Tensor, skip: int) -> Tensor:
        """The given clip with as much noise as the first step that is taken expects."""
        pixels = np.repeat(settings.clip, settings.frames // len(settings.clip), axis=0)
        latents = self.encode(pixels[None]).expand_as(noise)  # (1 c f h w) -> (b c f h w)
        intervals = settings.steps + 1 if settings.sampler == "dpm++" else None
        t = timesteps(self.diffusion, settings.steps, intervals)[skip]
        return self.diffusion.add_noise(latents, noise, torch.full((len(noise),), t))

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray, chunk: int = 4) -> Tensor:
        """Pixels uint8 (b, f, H, W, 3) -> latents as the sampler leaves them (b, 4, f, h, w), float32; see `decode`."""
        frames = rearrange(torch.from_numpy(pixels), "b f H W c -> (b f) c H W")
        signed = (part.to(self.device).to(self.dtype) / 127.5 - 1 for part in frames.split(chunk))
        with self.working(self.autoencoder):
            latents = torch.cat([self.autoencoder.encode(part).float() for part in signed])
        return rearrange(latents, "(b f) c h w -> b c f h w", b=len(pixels)) * self.preset.autoencoder.scale_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor, chunk: int | None = None) -> np.ndarray:
        """Latents as the sampler leaves them (b, 4, f, h, w) -> pixels uint8 (b, f, H, W, 3).

        `chunk` frames (4, or 1 if not `batched`) at a time go through the autoencoder: frames are independent, so
        this bounds the memory and changes nothing else. Raises UserError for latents that are not finite.
        """
        if not latents.isfinite().all():
            raise UserError("latents: expected finite numbers, found NaN or inf; half precision overflows on "
                            "some devices, try dtype float32 or a smaller guidance")
        latents = (latents / self.preset.autoencoder.scale_factor).to(self.device, self.dtype)
        frames = rearrange(latents, "b c f h w -> (b f) c h w")
        chunk = chunk or (4 if self.batched else 1)
        with self.working(self.autoencoder):
            pixels = torch.cat([_pixels(self.autoencoder.decode(part)) for part in frames.split(chunk)])
        return rearrange(pixels, "(b f) c H W -> b f H W c", b=len(latents)).cpu().numpy()


def load(name: str | Path, device: str = "auto", dtype: str = "auto", batched: bool = True,
         offload: bool = False) -> TextToVideo:
    """The model of a shipped name, of a folder (ours, diffusers' or ModelScope's), or of the hub ("owner/name").

    `device` is "auto" (the first there is of cuda, mps, cpu) or what torch calls it; `dtype` is "auto"
    (float16 on cuda, else float32) or a name. Raises UserError for an unknown name, device or dtype, and
    for a damaged file. A model of the hub is downloaded once, into its cache. Two options save memory: without
    `batched` the halves of guidance run in turn; with `offload` each network is on the device only while it works.
    """
    visit = _device(device)
    if dtype == "auto":
        dtype = "float16" if visit.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise UserError(f"dtype: expected auto or one of {', '.join(DTYPES)}, found {dtype!r}")
    device, options = visit, {"batched": batched}
    if offload:
        device, options["visit"] = torch.device("cpu"), visit
    folder = Path(name)
    if released.HUB_ID.fullmatch(str(name)) and not folder.parent.is_dir():
        folder = released.download(str(name), half=dtype != "float32")
    if released.is_released(folder):
        preset, parts = released.load_parts(folder, DTYPES[dtype], device)
        return TextToVideo(preset, **parts, **options)
    folder = weights.find_model(name)
    preset = weights.read_preset(folder)
    parts = {"text": TextEncoder, "unet": UNet, "autoencoder": VQGAN}
    for name, build in parts.items():
        parts[name] = module = build(getattr(preset, name))
        weights.load_into(module, folder / f"{name}.safetensors")
        module.to(device, DTYPES[dtype]).requires_grad_(False)
    return TextToVideo(preset, **parts, **options)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        reason = str(error).splitlines()[0]
        raise UserError(f"device: expected auto, cpu, cuda or mps, found {name!r}: {reason}") from None
