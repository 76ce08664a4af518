"""Training Video LDM's UNet: the temporal layers alone, between those of the image model.

Reference: Video LDM, arXiv 2304.08818, section 3.1.
"""

from dataclasses import replace

from minit2v.training.unet import PART as UNET

SETTINGS = replace(UNET.config, from_image=True, frozen_image=True, image_share=0.0, images=64)
PART = replace(UNET, config=SETTINGS, needs=("autoencoder", "text", "image"))
