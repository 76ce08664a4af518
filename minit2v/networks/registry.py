"""The table of networks: the name of a network, which is also the name of its file, and its class."""

from torch import nn

from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "autoencoder": VQGAN, "text": TextEncoder}
