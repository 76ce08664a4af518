"""Training Video LDM: the temporal layers alone, then the decoder against a discriminator of clips.

References: Video LDM, arXiv 2304.08818, sections 3.1 and 3.1.1.
"""

from dataclasses import replace
from pathlib import Path

from minit2v.datasets.base import Dataset
from minit2v.presets import Preset
from minit2v.training.unet import PART as UNET
from minit2v.training.unet import UNetTask, UNetTraining


class VideoLDMTask(UNetTask):
    """Denoising of clips; all that the image model has is frozen."""

    def __init__(self, preset: Preset, config: UNetTraining, data: Dataset, folder: Path):
        super().__init__(preset, config, data, folder)
        trained = {id(p) for p in self.unet.temporal_parameters()}
        for parameter in self.unet.parameters():
            parameter.requires_grad_(id(parameter) in trained)


PART = replace(
    UNET, task=VideoLDMTask, config=replace(UNET.config, from_image=True, image_share=0.0, images=64),
    needs=("autoencoder", "text", "image"),
)  # fmt: skip
