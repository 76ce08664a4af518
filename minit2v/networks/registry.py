"""The table of networks: a network's name, which is also the name of its file, and its class.

A system adds rows for its own networks. A class is built from the field of that name in the system's preset.
"""

from torch import nn

from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "autoencoder": VQGAN, "text": TextEncoder}
