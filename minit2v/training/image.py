"""Training an image model: the UNet without temporal layers, on pictures and their captions.

What Stable Diffusion is to the systems of the paper's table: Video LDM and MagicVideo begin with it, and so may
ModelScopeT2V (`from_image`). The weights are written as image.safetensors.

Reference: latent diffusion, arXiv 2112.10752, section 3.
"""

from dataclasses import replace

from torch import nn

from minit2v.networks.unet import ImageUNet, UNet
from minit2v.presets import Preset
from minit2v.training.unet import PART as UNET
from minit2v.training.unet import UNetTask


class ImageTask(UNetTask):
    """Denoising of pictures."""

    may_be_sharded = False

    def built(self, preset: Preset) -> UNet:
        return ImageUNet(preset.unet)

    @property
    def ema_modules(self) -> dict[str, nn.Module]:
        return {"image": self.unet}


PART = replace(UNET, task=ImageTask, config=replace(UNET.config, image_stage=1.0, clips=64),
               writes=("image",))
