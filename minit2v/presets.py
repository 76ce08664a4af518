"""Presets: every size of the model is one dataclass of settings; nothing else distinguishes nano from 1.7 billion.

    nano  ──  minutes in a notebook     mini  ──  hours on two cores, shipped   modelscope-1.7b  ──  the release

Each field says what it is, its unit, and the value of the release. *Departures* are settings that the paper does not
have: they are off in ``modelscope-1.7b``; docs/training.md says what each buys.

References: ModelScopeT2V, arXiv 2308.06571, sections 3 and 4; the released ``configuration.json``.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, get_args, get_origin, get_type_hints

from minit2v.datasets.moving_things.phrases import motion_words, words
from minit2v.errors import UserError
from minit2v.ranges import (
    Checked,
    Count,
    Decay,
    Depth,
    Levels,
    Positive,
    Range,
    Size,
    Variance,
    Weight,
    Width,
    public,
)


@dataclass(frozen=True)
class UNetConfig(Checked):
    """The spatio-temporal UNet (paper section 3.3)."""

    in_channels: Width = 4  # channels of a latent; released 4
    channels: Levels = (320, 640, 1280, 1280)  # width of each level; each level halves h and w
    attention: tuple[bool, ...] = (True, True, True, False)  # does the level have transformers
    layers_per_level: Depth = 2  # spatio-temporal blocks per level (one more on the way up); released 2
    head_dim: Width = 64  # width of one attention head; released 64
    first_temporal_heads: Count = 8  # heads of the temporal transformer after conv_in; 0: none; released 8 (inner width 512)
    context_dim: Width = 1024  # width d of a text token; released 1024
    temporal_convs: Annotated[int, Range(0, 4)] = 4  # convolutions along time of a block; 0: none; released 4
    temporal_attention: bool = True  # have temporal transformers: where the block puts them; released True
    norm_groups: Width = 32  # groups of every GroupNorm; released 32
    dropout: Decay = 0.1  # in residual blocks and temporal convolutions, while training; released 0.1
    frame_positions: bool = False  # departure: sinusoid of the frame number joins the timestep embedding
    text_in_embedding: bool = False  # departure: the mean text token joins the timestep embedding
    looks_first: bool = False  # departure: it is the first token instead that joins; see `TextConfig.looks_first`
    rate_embedding: bool = False  # departure: how far apart frames are joins the timestep embedding
    condition_channels: Count = 0  # channels that are given beside the latents, such as known frames; released 0
    step_embedding: bool = False  # departure: how far a sampling step goes joins too: one network for any number of steps
    scene_prior: bool = False  # departure: an MLP of caption, frame number, row and column is added after conv_in
    scale_shift: bool = False  # departure: the embedding scales and shifts a residual block's norm (arXiv 2105.05233)


@dataclass(frozen=True)
class AutoencoderConfig(Checked):
    """The VQGAN that takes pixels to latents and back, frame by frame (paper section 3.1)."""

    channels: Width = 128  # width of the first level; released 128
    multipliers: Levels = (1, 2, 4, 4)  # width of level i in units of `channels`; n levels halve n - 1 times
    layers_per_level: Depth = 2  # residual blocks per level (one more in the decoder); released 2
    latent_channels: Width = 4  # channels of a latent; released 4
    bottleneck: str = "gaussian"  # "gaussian" (the release) or "codebook" (nearest code)
    codes: Size = 1024  # size of the codebook; unused by "gaussian"
    thrift: Weight = 0.0  # departure: how much farther (squared) a code may lie that is used e times as often; see `Codebook`
    norm_groups: Width = 32  # groups of every GroupNorm; released 32
    mid_attention: bool = True  # one attention over pixels between encoder and decoder halves; released True
    scale_factor: Positive = 0.18215  # latents * scale_factor have unit variance; measured; released 0.18215

    @property
    def factor(self) -> int:
        """Pixels per latent cell along each side."""
        return 2 ** (len(self.multipliers) - 1)


@dataclass(frozen=True)
class VisionConfig(Checked):
    """The image tower of CLIP: a vision transformer, used only while CLIP is trained."""

    size: Width = 224  # height and width of a picture, pixels
    patch: Width = 14  # side of a patch, pixels
    width: Width = 1280  # width of a token
    layers: Depth = 32  # transformer blocks
    heads: Width = 16  # attention heads


@dataclass(frozen=True)
class TextConfig(Checked):
    """CLIP's text tower (paper section 3.2); the released one is OpenCLIP ViT-H-14."""

    context_length: Annotated[int, Range(2, 4096)] = 77  # tokens of a prompt, with start, end and padding; released 77
    width: Width = 1024  # width d of a token; released 1024
    heads: Width = 16  # attention heads; released 16
    layers: Depth = 24  # transformer blocks in the file; released 24
    skip_last: Count = 1  # blocks not run: 1 gives the penultimate layer; released 1
    embed_dim: Width = 1024  # width of the space shared with pictures; released 1024
    activation: str = "gelu"  # of the MLPs: "gelu" or "quick_gelu"; released gelu
    words: tuple[str, ...] | None = None  # keep only the BPE rows of these words; None keeps all 49,408; released None
    pad_token: Count = 0  # id in the whole vocabulary that fills a prompt up to context_length; released 0, "!"
    added_tokens: tuple[str, ...] = ()  # of a fine-tune, one id each after CLIP's 49,408; released none
    looks_first: bool = False  # departure: the first token says how things look, the prompt before its first motion word
    motion_words: tuple[str, ...] = ()  # the words that tell of motion, for `looks_first`; without them all is looks
    vision: VisionConfig = VisionConfig()  # the tower for pictures

    def __post_init__(self):
        super().__post_init__()
        if self.words is not None and self.added_tokens:
            raise UserError(f"text.added_tokens: expected none beside text.words, found {len(self.added_tokens)}; their ids "
                            "come after those of the whole vocabulary")  # fmt: skip


@dataclass(frozen=True)
class DiffusionConfig(Checked):
    """The noise schedule and what the network predicts (paper section 3; DDPM, arXiv 2006.11239)."""

    timesteps: Annotated[int, Range(1, 100_000)] = 1000  # T of the forward process; released 1000
    schedule: str = "scaled_linear"  # "scaled_linear", "linear" or "cosine"; released scaled_linear
    beta_start: Variance = 0.00085  # variance added at t = 0; released 0.00085
    beta_end: Variance = 0.012  # variance added at t = T - 1; released 0.012
    prediction: str = "eps"  # what the network's output means: "eps", "x0" or "v"; released eps
    zero_terminal_snr: bool = False  # departure: nothing of the clip is left at t = T - 1 (arXiv 2305.08891)
    snr_shift: Annotated[float, Range(0.01, 100)] = 1.0  # departure: signal-to-noise ratio divided by snr_shift**2 at every t; 1 is off
    spacing: str = "leading"  # which timesteps a sampler visits: "leading" (released), "trailing" or "linspace"
    steps_offset: Count = 1  # added to leading timesteps; released 1
    ends_clean: bool = False  # DDIM's last step ends at alpha_bar 1, not at alpha_bar[0]; released False


OF_SYSTEM: dict[str, type["Preset"]] = {}  # name of a system -> its preset class; subclasses enter themselves


@dataclass(frozen=True)
class Preset(Checked):
    """What every text-to-video model has a value for: the system that it is of, and the defaults of a sample.

    A subclass is the preset of one system: it names the system and adds the settings of its networks, one field a
    network, each a dataclass. `from_dict` finds the subclass by the system's name.
    """

    name: str  # what `--model` and `--preset` call it
    system: str = ""  # row of `systems.SYSTEMS`: how the networks make a clip
    frames: Size = 16  # frames of a clip; released 16
    height: Width = 256  # pixels; released 256
    width: Width = 256  # pixels; released 256
    fps: Annotated[int, Range(1, 1000)] = 8  # frames a second; released 8
    steps: Size = 50  # sampling steps; released 50
    guidance: Annotated[float, Range(-math.inf, math.inf, above=True, below=True)] = 9.0  # classifier-free guidance scale; released 9.0
    negative: str = ""  # what no clip should show, if nobody says; released ""

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "system" in vars(cls):
            OF_SYSTEM[cls.system] = cls

    @property
    def factor(self) -> int:
        """Pixels per latent cell along each side; 1 for a system that works on pixels."""
        return 1

    @property
    def latent_channels(self) -> int:
        """Channels of a latent; 3 for a system that works on pixels."""
        return 3

    @property
    def scale_factor(self) -> float:
        """What the autoencoder's latents are multiplied by, so that their variance is about 1."""
        return 1.0

    @property
    def timesteps(self) -> int:
        """The most sampling steps that make sense."""
        return 1000

    def to_dict(self) -> dict:
        """Nested plain dictionary, as written to config.json."""
        return asdict(self)

    @staticmethod
    @public
    def from_dict(values: dict) -> "Preset":
        """Inverse of `to_dict`. Raises UserError for a dictionary that is not a preset of a known system."""
        try:
            system = values.get("system", ModelScopePreset.system)  # files before 2026-11 name none
            if system not in OF_SYSTEM:
                found = repr(system) if len(repr(system)) < 80 else f"{repr(system)[:60]}…"
                raise UserError(f"expected a system of {', '.join(OF_SYSTEM)}, found {found}; is it of a newer minit2v?")
            return built(OF_SYSTEM[system], values)
        except (TypeError, AttributeError) as error:
            raise UserError(
                f"expected the settings of a preset, found something else ({error}); is this a minit2v model?"
            ) from None


class OfLatents:
    """Mixed into a preset with a field `autoencoder`, whose sizes are then those of the latents; see `Preset`."""

    @property
    def factor(self) -> int:
        return self.autoencoder.factor

    @property
    def latent_channels(self) -> int:
        return self.autoencoder.latent_channels

    @property
    def scale_factor(self) -> float:
        return self.autoencoder.scale_factor


@dataclass(frozen=True)
class ModelScopePreset(OfLatents, Preset):
    """ModelScopeT2V: a UNet, an autoencoder, a text tower and a diffusion."""

    system: str = "modelscope"
    unet: UNetConfig = UNetConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    text: TextConfig = TextConfig()
    diffusion: DiffusionConfig = DiffusionConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.unet.looks_first and not self.text.looks_first:
            raise UserError("unet.looks_first: expected text.looks_first too, found it off; the text tower puts the looks there")

    @property
    def timesteps(self) -> int:
        return self.diffusion.timesteps


# settings that files before 2026-11 do not have: their defaults are what those models do
LATER = {"system", "temporal_convs", "temporal_attention", "rate_embedding", "condition_channels", "thrift"}
LEGACY_NAMES = {(UNetConfig, "layout"): "scene_prior", (DiffusionConfig, "steps"): "timesteps"}  # of older files
LEGACY_NAMES_OF = {new: old for (_, old), new in LEGACY_NAMES.items()}


def built(cls: type, values: dict):
    """A dataclass from nested dictionaries; lists become tuples. Raises UserError for a value of another type."""
    kinds, given = get_type_hints(cls), {}
    for key, value in values.items():
        key = LEGACY_NAMES.get((cls, key), key)
        if is_dataclass(kinds.get(key)) and isinstance(value, dict):
            value = built(kinds[key], value)
        given[key] = tuple(value) if isinstance(value, list) else value
        if key not in kinds:
            raise UserError(f"expected settings of a {cls.__name__}, found {key!r}; is this of a newer minit2v?")
        if not _fits(given[key], kinds[key]):
            expected = kinds[key].__name__ if isinstance(kinds[key], type) else kinds[key]
            raise UserError(f"{key}: expected {expected}, found {value!r}; is this a minit2v model?")
    return cls(**given)


def unsaid(values: dict, preset: Preset) -> list[str]:
    """The settings, "unet.norm_groups", that a file's `values` say nothing of, so that the preset has the paper's."""
    return list(_unsaid(values, preset.to_dict()))


def _unsaid(values: dict, known: dict, place: str = "") -> Iterator[str]:
    for key, value in known.items():
        if key not in values and LEGACY_NAMES_OF.get(key) not in values:
            yield from () if key in LATER else (place + key,)
        elif isinstance(value, dict):
            yield from _unsaid(values[key], value, f"{place}{key}.")


def _fits(value, kind) -> bool:
    """Whether a value from a file is of an annotated type, as far as settings have such; a whole number is a float too."""
    if get_origin(kind) is UnionType:
        return any(_fits(value, option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (bool, str, NoneType) or is_dataclass(kind) else True


def _mini() -> ModelScopePreset:
    return ModelScopePreset(
        name="mini",
        unet=UNetConfig(
            channels=(64, 96),
            attention=(False, True),
            layers_per_level=1,
            head_dim=32,
            first_temporal_heads=2,
            context_dim=128,
            norm_groups=16,
            dropout=0.0,
            frame_positions=True,
            text_in_embedding=True,
            looks_first=True,
            scene_prior=True,
            scale_shift=True,
        ),
        autoencoder=AutoencoderConfig(
            channels=12,
            multipliers=(1, 2, 4, 6),
            layers_per_level=1,
            norm_groups=4,
            mid_attention=False,
            scale_factor=1.0,
        ),
        text=TextConfig(
            context_length=20,
            width=128,
            heads=4,
            layers=4,
            embed_dim=128,
            words=tuple(words(1)),
            looks_first=True,
            motion_words=tuple(motion_words(1)),
            vision=VisionConfig(size=64, patch=16, width=128, layers=4, heads=4),
        ),
        diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True, snr_shift=2.0, spacing="trailing"),
        height=64,
        width=64,
        steps=12,
        guidance=1.5,
    )


def _modelscope() -> ModelScopePreset:
    """The size at which the systems of the paper's table are compared: two thirds of mini's UNet."""
    mini = _mini()
    return replace(mini, name="modelscope", unet=replace(mini.unet, channels=(48, 80), head_dim=16, first_temporal_heads=3))


def _nano() -> ModelScopePreset:
    mini = _mini()
    return replace(
        mini,
        name="nano",
        height=32,
        width=32,
        unet=replace(mini.unet, channels=(32, 64), head_dim=16, norm_groups=8, context_dim=64, looks_first=False),
        autoencoder=replace(mini.autoencoder, multipliers=(1, 2, 4)),
        text=replace(
            mini.text,
            looks_first=False,
            motion_words=(),
            width=64,
            layers=2,
            embed_dim=64,
            vision=VisionConfig(size=32, patch=8, width=64, layers=2, heads=2),
        ),
    )


PRESETS = {  # name -> builder
    "nano": _nano,
    "mini": _mini,
    "modelscope": _modelscope,
    "modelscope-1.7b": lambda: ModelScopePreset("modelscope-1.7b"),
}


@public
def get(name: str) -> Preset:
    """ModelScope's preset of that name; `systems.find_preset` knows those of every system. Raises UserError.

    >>> get("modelscope-1.7b").unet.channels
    (320, 640, 1280, 1280)
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    return PRESETS[name]()
