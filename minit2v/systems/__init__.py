"""Systems: a paper's way to make video, one file each, and their table.

A system is added by one file, which has its preset class, its pipeline and (where no other system has them) its
networks, and by one row here. `load`, `sample`, `train`, `evaluate`, `weights` and the widgets ask the table and know no
system by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from minit2v.errors import UserError
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet
from minit2v.presets import PRESETS, Preset
from minit2v.ranges import public
from minit2v.systems.cogvideo import COGVIDEO_PRESETS, CogVideo, PictureTransformer, TemporalChannel
from minit2v.systems.magicvideo import MAGICVIDEO_PRESETS, MagicVideo, MagicVideoUNet
from minit2v.systems.makeavideo import MAKEAVIDEO_PRESETS, JointText, MakeAVideo, MakeAVideoUNet, Prior
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.systems.nuwa import NUWA_PRESETS, Nuwa, NuwaT2V
from minit2v.systems.pipeline import TextToVideo
from minit2v.systems.video_decoder import VideoDecoder
from minit2v.systems.videoldm import VIDEOLDM_PRESETS, VideoLDM, VideoLDMUNet


@dataclass(frozen=True)
class System:
    """A row of `SYSTEMS`."""

    networks: dict[str, type[nn.Module]]  # name of its file and of the preset's field -> class, built from that field
    pipeline: type[TextToVideo]  # how a clip is made
    presets: dict[str, Callable[[], Preset]]  # name of a preset -> what builds it
    parts: dict[str, str]  # what `minit2v train PART` trains, in this order: "module:NAME" of a `training.parts.Part`


SYSTEMS = {
    "modelscope": System(
        networks={"unet": UNet, "autoencoder": VQGAN, "text": TextEncoder},
        pipeline=ModelScopeT2V,
        presets=PRESETS,
        parts={
            "autoencoder": "minit2v.training.autoencoder:PART",
            "text": "minit2v.training.text:PART",
            "image": "minit2v.training.image:PART",
            "unet": "minit2v.training.unet:PART",
        },
    ),
    "nuwa": System(
        networks={"transformer": Nuwa, "autoencoder": VQGAN, "text": TextEncoder},
        pipeline=NuwaT2V,
        presets=NUWA_PRESETS,
        parts={
            "autoencoder": "minit2v.training.autoencoder:PART",
            "text": "minit2v.training.text:PART",
            "transformer": "minit2v.training.nuwa:PART",
        },
    ),
    "cogvideo": System(
        networks={"image": PictureTransformer, "keyframes": TemporalChannel, "between": TemporalChannel,
                  "autoencoder": VQGAN},
        pipeline=CogVideo,
        presets=COGVIDEO_PRESETS,
        parts={
            "autoencoder": "minit2v.training.autoencoder:PART",
            "image": "minit2v.training.cogvideo:IMAGE",
            "keyframes": "minit2v.training.cogvideo:KEYFRAMES",
            "between": "minit2v.training.cogvideo:BETWEEN",
        },
    ),
    "magicvideo": System(
        networks={"unet": MagicVideoUNet, "autoencoder": VQGAN, "text": TextEncoder, "decoder": VideoDecoder},
        pipeline=MagicVideo,
        presets=MAGICVIDEO_PRESETS,
        parts={
            "autoencoder": "minit2v.training.autoencoder:PART",
            "text": "minit2v.training.text:PART",
            "image": "minit2v.training.image:PART",
            "unet": "minit2v.training.magicvideo:PART",
            "decoder": "minit2v.training.decoder:PART",
        },
    ),
    "videoldm": System(
        networks={"unet": VideoLDMUNet, "autoencoder": VQGAN, "text": TextEncoder, "decoder": VideoDecoder},
        pipeline=VideoLDM,
        presets=VIDEOLDM_PRESETS,
        parts={
            "autoencoder": "minit2v.training.autoencoder:PART",
            "text": "minit2v.training.text:PART",
            "image": "minit2v.training.image:PART",
            "unet": "minit2v.training.videoldm:PART",
            "decoder": "minit2v.training.decoder:PART",
        },
    ),
    "makeavideo": System(
        networks={"unet": MakeAVideoUNet, "between": MakeAVideoUNet, "upscale": MakeAVideoUNet, "prior": Prior,
                  "text": JointText},
        pipeline=MakeAVideo,
        presets=MAKEAVIDEO_PRESETS,
        parts={part: f"minit2v.training.makeavideo:{part.upper()}"
               for part in ("text", "prior", "image", "unet", "between", "upscale")},
    ),  # fmt: skip
}  # training imports systems, so parts are named here and imported when one is trained, like an entry point


def system_of(preset: Preset) -> System:
    """The row of a preset's system. Raises UserError for one that is not in the table."""
    if preset.system not in SYSTEMS:
        raise UserError(f"expected a system of {', '.join(SYSTEMS)}, found {preset.system!r}; import its module first")
    return SYSTEMS[preset.system]


def build(preset: Preset) -> dict[str, nn.Module]:
    """Its networks by name, with random weights, on the default device."""
    return {name: network(getattr(preset, name)) for name, network in system_of(preset).networks.items()}


@public
def find_preset(name: str) -> Preset:
    """The preset of that name, of any system. Raises UserError that lists the known names.

    >>> find_preset("mini").system
    'modelscope'
    """
    known = {name: builder for row in SYSTEMS.values() for name, builder in row.presets.items()}
    if name not in known:
        raise UserError(f"unknown preset {name!r}; known are {', '.join(known)}")
    return known[name]()
