"""Make-A-Video: pictures with captions teach how things look, videos without any teach how they move.

    text ──► CLIP's text embedding ──► prior ──► CLIP's image embedding
                                                        │
        key frames, 5 apart, half size ◄── unet ────────┤
        all frames, half size          ◄── between ─────┤        each a diffusion over pixels
        all frames, whole size         ◄── upscale ─────┘

Only the prior has seen text, and it knows pictures alone: "left" is no word to it, so a clip shows the right thing, moving
as things in videos do. The UNet begins as a model of pictures. Its convolutions get a convolution along time that starts
as the identity, its attention an attention along time that starts as nothing: K frames are at first K pictures.

Departures from the paper, shared by all our systems of diffusion: v-prediction, the noise schedule (shifted further), the
condition in the timestep embedding, and the scene prior (of the UNet alone). Not shared by all: the frame's number there as
well. Blocks of 2 x 2 and 4 x 4 pixels are channels, attention along time is at every level (of `upscale` at none), key frames
are sampled with fresh noise, and the later stages answer with clean frames.

Reference: Make-A-Video, arXiv 2209.14792, section 3 (equation 1), 3.2 (pseudo-3D layers), 3.3 (frame interpolation).
"""

import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v import presets
from minit2v.datasets.moving_things.phrases import still_words
from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS, Step, gaussian, guided
from minit2v.errors import UserError
from minit2v.networks.blocks import FrameBlock, ResBlock, TemporalTransformer, clip_view, frame_view
from minit2v.networks.clip import build_clip
from minit2v.networks.layers import Linear
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet, sinusoid
from minit2v.pixels import Frames, to_signed
from minit2v.presets import DiffusionConfig, Preset, TextConfig, UNetConfig
from minit2v.ranges import Checked, Depth, Seed, Share, Size, Width, public
from minit2v.systems.pipeline import TextToVideo
from minit2v.systems.settings import New, SamplingSettings

KEY_INTERVAL = 5  # frames from one key frame to the next; paper 5
FOLD, FOLD_WHOLE = 2, 4  # sides of the blocks of pixels that are channels, of half-size and of whole frames
BETWEEN = (1, 3, 4)  # frames that `between` has learnt to put between two
UNUSED = ("noise", "init", "window")
LARGEST_CHANGED = 2**25  # pixels of all frames of a clip that is changed, before and after; 0.4 GB as float32
LARGEST = 1024  # pixels a side of a clip that is changed: attention looks at all of a frame
AT_ONCE = 2**20  # pixels of the frames that a later stage is given at a time; it takes about 1 GB for them


@dataclass(frozen=True)
class PriorConfig(Checked):
    """The prior's MLP."""

    width: Width = 512  # of a hidden layer
    layers: Depth = 4  # residual layers
    embed_dim: Width = 512  # of CLIP's embeddings
    steps: Size = 16  # of its sampling


@dataclass(frozen=True)
class MakeAVideoPreset(Preset):
    """Make-A-Video: CLIP's text tower, the prior, and a UNet for each of three stages."""

    system: str = "makeavideo"
    text: TextConfig = TextConfig()
    prior: PriorConfig = field(default_factory=PriorConfig)
    unet: UNetConfig = UNetConfig()
    between: UNetConfig = UNetConfig()
    upscale: UNetConfig = UNetConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    fill_steps: Size = 6  # sampling steps of `between`, and of `upscale`
    key_eta: Share = 1.0  # least eta of the key frames' steps: fresh noise straightens paths that the first steps bend

    @property
    def timesteps(self) -> int:
        return self.diffusion.timesteps


def _makeavideo() -> MakeAVideoPreset:
    mini = presets.get("mini")
    half = 3 * FOLD**2
    base = replace(mini.unet, channels=(32, 64), in_channels=half, first_temporal_heads=0, context_dim=mini.text.embed_dim,
                   rate_embedding=True, looks_first=False)  # fmt: skip
    small = replace(base, channels=(24, 48), head_dim=16, norm_groups=8, rate_embedding=False, scene_prior=False)
    return MakeAVideoPreset(
        name="makeavideo",
        height=64,
        width=64,
        steps=24,
        guidance=2.0,
        text=replace(mini.text, words=tuple(still_words(1)), layers=2, skip_last=0, looks_first=False),
        prior=PriorConfig(128, 4, mini.text.embed_dim),
        unet=base,
        between=replace(small, condition_channels=half + 1),
        upscale=replace(small, channels=(24, 32), attention=(False, False), temporal_attention=False,
                        in_channels=3 * FOLD_WHOLE**2, condition_channels=3 * FOLD_WHOLE**2),
        diffusion=replace(mini.diffusion, snr_shift=3.0),
    )  # fmt: skip


MAKEAVIDEO_PRESETS = {"makeavideo": _makeavideo}


def diffusion_of_prior(config: DiffusionConfig) -> DiffusionConfig:
    """That of the prior, which answers with clean embeddings, at noise levels that are not shifted."""
    return replace(config, prediction="x0", snr_shift=1.0)


def diffusion_of_later(config: DiffusionConfig) -> DiffusionConfig:
    """That of `between` and `upscale`, which answer with clean frames: they are too narrow to say, beside what they know,
    which noise lies on each pixel (Li and He, "Back to Basics: Let Denoising Generative Models Denoise", 2025)."""
    return replace(config, prediction="x0")


class JointText(TextEncoder):
    """CLIP's text tower with the projection into the space that it shares with pictures."""

    def __init__(self, config: TextConfig, clip: nn.Module | None = None):
        clip = clip or build_clip(config)
        super().__init__(config, clip)
        self.projection = clip.text_projection  # (d e)

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Tensor:
        """Embeddings (b, e) of length 1. Raises UserError for unknown words."""
        tokens = self.tokens(prompts).to(self.projection.device)
        ends = self(tokens)[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=1)]  # the end token has the highest number
        return F.normalize(ends @ self.projection, dim=-1)


class Prior(nn.Module):
    """``prior(x (b, e), t (b,), text (b, e)) -> (b, e)``: a noisy image embedding, cleaned with the help of the text's."""

    def __init__(self, config: PriorConfig):
        super().__init__()
        self.config, width = config, config.width
        self.time, self.first = nn.Linear(width, width), nn.Linear(2 * config.embed_dim, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), Linear(width, 2 * width), nn.GELU(), Linear(2 * width, width))
            for _ in range(config.layers)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), Linear(width, config.embed_dim))

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        h = self.first(torch.cat([x, text], dim=1)) + self.time(sinusoid(t, self.config.width).to(x))
        for layer in self.layers:
            h = h + layer(h)
        return self.last(h)


class AlongTime(nn.Module):
    """A 3-tap convolution along time that starts as the identity: ``x (b f, c, h, w), f -> same``."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, (3, 1), padding=(1, 0))  # over (f, h w)
        nn.init.dirac_(self.conv.weight)  # eq (18.4) · Make-A-Video, section 3.2
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, f: int) -> Tensor:
        return frame_view(self.conv(clip_view(x, f)), x)


class PseudoResBlock(ResBlock):
    """A residual block whose convolutions within a frame are each followed by one along time (pseudo-3D)."""

    def __init__(self, c_in: int, c_out: int, embedding_dim: int, groups: int, dropout: float, scale_shift: bool):
        super().__init__(c_in, c_out, embedding_dim, groups, dropout, scale_shift)
        self.time1, self.time2 = AlongTime(c_out), AlongTime(c_out)

    def forward(self, x: Tensor, emb: Tensor, f: int = 0) -> Tensor:
        """With f = 0 frames are independent."""
        along = lambda layer, h: layer(h, f) if f else h
        h = along(self.time1, self.conv1(F.silu(self.norm1(x))))  # eq (18.2) · Make-A-Video, section 3.2
        emb = self.embedding(F.silu(emb))[:, :, None, None]
        scale, shift = emb.chunk(2, dim=1) if self.scale_shift else (0.0, 0.0)
        h = self.norm2(h) * (1 + scale) + shift if self.scale_shift else self.norm2(h + emb)
        return self.skip(x) + along(self.time2, self.conv2(self.dropout(F.silu(h))))


class MakeAVideoBlock(FrameBlock):
    """Pseudo-3D convolutions, then attention within a frame, where the image model has it, then along time."""

    def __init__(self, c_in: int, c_out: int, attention: bool, config: UNetConfig):
        super().__init__(c_in, c_out, attention, config)
        groups = config.norm_groups
        self.res = PseudoResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
        self.temporal = TemporalTransformer(c_out, config.head_dim, groups) if config.temporal_attention else None

    def temporal_layers(self) -> list[nn.Module]:
        """The layers that the image model does not have."""
        return [layer for layer in (self.res.time1, self.res.time2, self.temporal) if layer is not None]

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, f: int, temporal: bool = True) -> Tensor:
        x = self.res(x, emb, f if temporal else 0)
        x = x if self.spatial is None else self.spatial(x, context)
        return self.temporal(x, f) if temporal and self.temporal is not None else x  # eq (18.3) · Make-A-Video, section 3.2


class MakeAVideoUNet(UNet):
    """See `UNet`; the context is one token, an image embedding."""

    def __init__(self, config: UNetConfig):
        super().__init__(config, MakeAVideoBlock)


class MakeAVideo(TextToVideo):
    """`text`, `prior`, `unet`, `between` and `upscale`, and `diffusion`, the noise schedule; see `TextToVideo`.

    Latents are pixels (b, 3, f, H, W) in [-1, 1].
    """

    def __init__(self, preset: MakeAVideoPreset, **networks):
        super().__init__(preset, **networks)
        self.diffusion = Diffusion(preset.diffusion)
        self.prior_diffusion = Diffusion(diffusion_of_prior(preset.diffusion))
        self.later_diffusion = Diffusion(diffusion_of_later(preset.diffusion))

    def checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], SamplingSettings]:
        """See `TextToVideo.checked`; what only latent diffusion has is refused, and the size is that of training."""
        prompts, found = super().checked(prompt, settings)
        for name in UNUSED:
            if found.chosen(name):
                raise UserError(f"{name}: expected none with {self.preset.name}, whose stages begin with noise; leave it out")
        for name in ("height", "width"):
            if getattr(found, name) != getattr(self.preset, name):
                raise UserError(f"{name}: expected {getattr(self.preset, name)} with {self.preset.name}, "
                                f"found {getattr(found, name)}")  # fmt: skip
        if found.frames > self.preset.frames:
            raise UserError(f"frames: expected at most {self.preset.frames} with {self.preset.name}, found {found.frames}")
        if found.negative:
            raise UserError(f"negative: expected none with {self.preset.name}, found {found.negative!r}; leave it out")
        return prompts, found

    def count(self, settings: SamplingSettings) -> int:
        return settings.steps + 2 * self.preset.fill_steps

    def encode_text(self, prompts: list[str], settings: SamplingSettings) -> tuple[Tensor, Tensor | None]:
        """CLIP's text embeddings (b, 1, e), of the words that a picture's caption may have; and zeros, for guidance."""
        known = [self.known(prompt) for prompt in prompts]
        with self.working(self.text):
            context = self.text.embed(known).to(self.device, self.dtype)[:, None]
        return context, None if settings.guidance == 1 else torch.zeros_like(context)

    def known(self, prompt: str) -> str:
        """The prompt without the words that no picture has taught, which are warned of."""
        if not (unknown := self.text.tokens.unknown(prompt)):
            return prompt
        warnings.warn(f"left out {' '.join(unknown)!r}: no picture has taught {self.preset.name} such words", stacklevel=6)
        return self.text.tokens.known(prompt)

    @torch.inference_mode()
    def steps(self, context: Tensor, unconditional: Tensor | None, settings: SamplingSettings) -> Iterator[Step]:
        generators = [torch.Generator("cpu").manual_seed(settings.seed + i) for i in range(len(context))]
        image = self.embedded(context[:, 0], generators)[:, None]
        keys = -(-(settings.frames - 1) // KEY_INTERVAL) + 1
        h, w = settings.height // FOLD_WHOLE, settings.width // FOLD_WHOLE
        noise = lambda network, f: gaussian((len(context), network.config.in_channels, f, h, w), generators).to(self.device)
        show = lambda x: self.shown(unfolded(x, FOLD), settings)
        sampler = SAMPLERS[settings.sampler]
        positions = {"positions": KEY_INTERVAL * torch.arange(keys, device=self.device)[None]}
        with self.working(self.unet):
            model = guided(with_options(self.unet, positions), image, unconditional, settings.guidance, self.batched)
            eta = max(settings.eta, self.preset.key_eta)
            for step in sampler(model, noise(self.unet, keys), self.diffusion, settings.steps, eta, generators):
                yield replace(step, x=show(step.x), x0=show(step.x0), eps=None)
        length, index = KEY_INTERVAL * (keys - 1) + 1, settings.steps
        key_frames = torch.zeros(len(context), 3, length, 2 * h, 2 * w, device=self.device)
        key_frames[:, :, ::KEY_INTERVAL] = unfolded(step.x, FOLD).clamp(-1, 1)
        given = torch.arange(length, device=self.device) % KEY_INTERVAL == 0
        for step in self.fill(key_frames, given, image, noise(self.between, length), settings, generators):
            yield replace(step, index=(index := index + 1) - 1, x=show(step.x), x0=show(step.x0), eps=None)
        frames = unfolded(step.x, FOLD)[:, :, : settings.frames].clamp(-1, 1)
        for step in self.upscaled(frames, image, noise(self.upscale, settings.frames), settings, generators):
            whole = unfolded(step.x, FOLD_WHOLE)
            yield replace(step, index=(index := index + 1) - 1, x=whole, x0=unfolded(step.x0, FOLD_WHOLE), eps=None)

    def embedded(self, text: Tensor, generators: list) -> Tensor:
        """Image embeddings (b, e) of length 1 that may go with text embeddings (b, e): the prior."""
        scale = text.shape[1] ** 0.5  # to a variance of 1
        noise = gaussian(text.shape, generators).to(self.device)
        model = lambda x, t: self.prior(x.to(self.dtype), torch.full((len(x),), t, device=x.device), scale * text).float()
        with self.working(self.prior):
            *_, last = SAMPLERS["ddim"](model, noise, self.prior_diffusion, self.preset.prior.steps)  # eq (18.1) · Make-A-Video (1)
        return F.normalize(last.x, dim=-1).to(self.dtype)

    @public
    def interpolated(self, pixels: Frames, n: int, seed: Seed = 0) -> np.ndarray:
        """A clip uint8 (f, H, W, 3) with n new frames between each two: (f + n (f - 1), H, W, 3).

        It needs no text. Raises UserError for another n than training has shown, 1, 3 or 4, and for other sizes.
        """
        self.check_interpolated(self.preset, pixels, n)
        known, step, f = self.half(pixels), n + 1, len(pixels)
        made, keys = known.new_zeros(1, 3, step * (f - 1) + 1, *known.shape[3:]), max(1, (self.at_once(known) - 1) // step) + 1
        for first in range(0, f - 1, keys - 1):
            part = known[:, :, first : first + keys]
            frames = part.new_zeros(1, 3, step * (part.shape[2] - 1) + 1, *part.shape[3:])
            frames[:, :, ::step] = part
            given = torch.arange(frames.shape[2], device=frames.device) % step == 0
            made[:, :, first * step : first * step + frames.shape[2]] = self.filled(frames, given, seed + first)
        whole = self.whole(made, seed)
        whole[::step] = pixels
        return whole

    @public
    def continued(self, pixels: Frames, n: New, seed: Seed = 0) -> np.ndarray:
        """A clip uint8 (f, H, W, 3) and n frames that may come after it, (f + n, H, W, 3), seen from its last frames."""
        self.check_continued(self.preset, pixels, n)
        made = known = self.half(pixels)
        most = max(2, self.at_once(known))
        while (missing := len(pixels) + n - made.shape[2]) > 0:
            last = made[:, :, -(most // 2) :]
            new = min(missing, most - last.shape[2])
            frames = torch.cat([last, last.new_zeros(1, 3, new, *last.shape[3:])], dim=2)
            given = torch.arange(frames.shape[2], device=frames.device) < last.shape[2]
            made = torch.cat([made, self.filled(frames, given, seed + made.shape[2])[:, :, -new:]], dim=2)
        return np.concatenate([pixels, self.whole(made[:, :, len(pixels) :], seed)])

    @public
    def enlarged(self, pixels: Frames, seed: Seed = 0) -> np.ndarray:
        """A clip uint8 (f, H, W, 3) at twice the size, (f, 2H, 2W, 3)."""
        self.check_enlarged(self.preset, pixels)
        return self.whole(to_signed(pixels).transpose(0, 1)[None].to(self.device), seed)

    @staticmethod
    def check_interpolated(preset: MakeAVideoPreset, pixels: np.ndarray, n: int) -> None:
        """Raises UserError for what `interpolated` refuses; needs no networks, like the two below."""
        if n not in BETWEEN:
            raise UserError(f"between: expected 1, 3 or 4 new frames, found {n}")
        require_frames(preset, n + 2)
        if len(pixels) < 2:
            raise UserError(f"between: expected a clip of 2 frames or more, found {len(pixels)}")
        require_sides(pixels, FOLD_WHOLE, len(pixels) + n * (len(pixels) - 1))

    @staticmethod
    def check_continued(preset: MakeAVideoPreset, pixels: np.ndarray, n: int) -> None:
        """The same of `continued`."""
        require_frames(preset, 2)
        require_sides(pixels, FOLD_WHOLE, len(pixels) + n)

    @staticmethod
    def check_enlarged(preset: MakeAVideoPreset, pixels: np.ndarray) -> None:
        """The same of `enlarged`."""
        require_sides(pixels, FOLD_WHOLE // 2, len(pixels))

    def half(self, pixels: np.ndarray) -> Tensor:
        """uint8 (f, H, W, 3) -> (1, 3, f, H/2, W/2)."""
        return halved(to_signed(pixels).transpose(0, 1)[None]).to(self.device)

    def at_once(self, frames: Tensor) -> int:
        """How many of the frames (b, c, f, h, w) a later stage is given at a time: as many as a clip of training has, or
        fewer large ones, which the memory holds."""
        return min(self.preset.frames, max(1, AT_ONCE // frames[0, 0, 0].numel()))

    @torch.inference_mode()
    def filled(self, frames: Tensor, given: Tensor, seed: int) -> Tensor:
        """See `fill`; without text, and what is given stays as it is."""
        generator, settings = [torch.Generator("cpu").manual_seed(seed)], SamplingSettings()
        noise = gaussian(folded(frames, FOLD).shape, generator).to(self.device)
        last = last_of(self.fill(frames, given, self.nothing, noise, settings, generator))
        return torch.where(given[:, None, None], frames, unfolded(last.x, FOLD).clamp(-1, 1))

    @torch.inference_mode()
    def whole(self, frames: Tensor, seed: int) -> np.ndarray:
        """Frames (1, 3, f, h, w) at twice the size, as pixels (f, 2h, 2w, 3)."""
        generator, settings, made = [torch.Generator("cpu").manual_seed(seed)], SamplingSettings(), []
        for part in frames.split(self.at_once(frames), dim=2):
            noise = gaussian(folded(enlarged(part), FOLD_WHOLE).shape, generator).to(self.device)
            last = last_of(self.upscaled(part, self.nothing, noise, settings, generator))
            made.append(self.decode(unfolded(last.x, FOLD_WHOLE))[0])
        return np.concatenate(made)

    @property
    def nothing(self) -> Tensor:
        """The image embedding of nothing at all, (1, 1, e), as guidance has it."""
        return torch.zeros(1, 1, self.preset.prior.embed_dim, device=self.device, dtype=self.dtype)

    def fill(self, frames: Tensor, given: Tensor, image: Tensor, noise: Tensor, settings: SamplingSettings,
             generators: list) -> Iterator[Step]:  # fmt: skip
        """Frames (b, 3, f, h, w), of which those that are `given` (f,) stand and the others are made."""
        known = folded(frames * given[:, None, None], FOLD)  # eq (18.5) · Make-A-Video, section 3.3
        mask = given[:, None, None].to(known).expand(len(known), 1, -1, *known.shape[3:])
        condition = torch.cat([known, mask], dim=1)
        yield from self.stage(self.between, condition, image, noise, settings, generators)

    def upscaled(self, frames: Tensor, image: Tensor, noise: Tensor, settings: SamplingSettings,
                 generators: list) -> Iterator[Step]:  # fmt: skip
        """Frames (b, 3, f, h, w) at twice the size."""
        condition = folded(enlarged(frames), FOLD_WHOLE)
        yield from self.stage(self.upscale, condition, image, noise, settings, generators)

    def stage(self, network: nn.Module, condition: Tensor, image: Tensor, noise: Tensor, settings: SamplingSettings,
              generators: list) -> Iterator[Step]:  # fmt: skip
        """The steps of one of the later stages, without guidance."""
        with self.working(network):
            model = guided(with_options(network, {"condition": condition.to(self.dtype)}), image)
            steps = self.preset.fill_steps
            yield from SAMPLERS[settings.sampler](model, noise, self.later_diffusion, steps, settings.eta, generators)

    def shown(self, x: Tensor, settings: SamplingSettings) -> Tensor:
        """Frames of an earlier stage as a clip of the whole size and length."""
        f = x.shape[2]
        numbers = torch.arange(settings.frames, device=x.device) * f // settings.frames
        return enlarged(x)[:, :, numbers if f < settings.frames else slice(settings.frames)]


def require_frames(preset: MakeAVideoPreset, least: int) -> None:
    """Raises UserError if the clips of a model are shorter."""
    if preset.frames < least:
        raise UserError(f"expected a model of {least} frames or more, found {preset.name}, of {preset.frames}")


def require_sides(pixels: np.ndarray, side: int, frames: int) -> None:
    """Raises UserError for a clip whose height or width is no multiple of `side`, too small or too large, and if the
    `frames` that it becomes, counted at its own size, are more than LARGEST_CHANGED pixels in all."""
    height, width = pixels.shape[1:3]
    if max(height, width) > LARGEST:
        raise UserError(f"expected a clip of at most {LARGEST} pixels a side, found {width}x{height}; cut it")
    if (found := frames * height * width) > LARGEST_CHANGED:
        made = "" if frames == len(pixels) else f", which become {frames}"
        raise UserError(f"expected at most {LARGEST_CHANGED:,} pixels in all frames, found {found:,}: {len(pixels)} frames of "
                        f"{width}x{height}{made}; cut the clip")  # fmt: skip
    if height % side or width % side or min(height, width) < 2 * side:
        raise UserError(f"expected a clip whose sides are multiples of {side} pixels, {2 * side} or more, found "
                        f"{width}x{height}; cut it")  # fmt: skip


def last_of(steps: Iterator[Step]) -> Step:
    """The last of the steps, none of which stays in memory longer than its turn."""
    return deque(steps, maxlen=1)[0]


def with_options(unet: nn.Module, options: dict):
    """The UNet as `guided` calls it, (x, t, context); with a doubled batch, options that have one entry a clip double."""

    def run(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        fitted = {name: value if len(value) in (1, len(x)) else value.repeat(len(x) // len(value), *[1] * (value.ndim - 1))
                  for name, value in options.items()}  # fmt: skip
        return unet(x, t, context, **fitted)

    return run


def folded(x: Tensor, side: int) -> Tensor:
    """Blocks of pixels become channels: (b, c, f, h, w) -> (b, c side side, f, h / side, w / side)."""
    return rearrange(x, "b c f (h k) (w l) -> b (c k l) f h w", k=side, l=side)


def unfolded(x: Tensor, side: int) -> Tensor:
    """Inverse of `folded`."""
    return rearrange(x, "b (c k l) f h w -> b c f (h k) (w l)", k=side, l=side)


def enlarged(frames: Tensor) -> Tensor:
    """Each pixel becomes four: (b, c, f, h, w) -> (b, c, f, 2h, 2w)."""
    return frames.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)


def halved(frames: Tensor) -> Tensor:
    """The mean of each four pixels: (b, c, f, 2h, 2w) -> (b, c, f, h, w)."""
    return rearrange(frames, "b c f (h k) (w l) -> b c f h w (k l)", k=2, l=2).mean(-1)
