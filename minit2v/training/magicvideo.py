"""Training MagicVideo's UNet: from the image model, whose layers learn a tenth as fast as the new ones.

Muon steps the weight matrices of old and new layers at one rate (`muon_rate`), which the recipe sets.

Reference: MagicVideo, arXiv 2211.11018, section 3.3.
"""

from dataclasses import replace

from minit2v.training.unet import PART as UNET

PART = replace(UNET, config=replace(UNET.config, from_image=True, temporal_rate=10.0), needs=("autoencoder", "text", "image"))
