"""A linear layer that uses the whole of a CPU: y = x W^T + b.

    x (… d) ──────► matrix product (PyTorch: MKL)                  readable; the sum begins with a copy of the bias
    x (1 d n 1) ──► convolution of kernel 1 (PyTorch: oneDNN)      fast; adds the bias on its way

It is the same sum. But in float32 PyTorch leaves matrix products to MKL, which on processors that are not Intel's uses
vectors of half the width; convolutions it leaves to oneDNN, which uses what there is. Half of the operations of the
released UNet are in linear layers; `make bench` measures what it gains. The environment variables MKL_VERBOSE=1 and
ONEDNN_VERBOSE=1 show which kernels run.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, d), weight (e, d), bias (e,) -> (…, e), on either path."""
    if not fast(x):
        return F.linear(x, weight, bias)
    rows = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # (… d) -> (1 d n 1), channels_last: no copy
    return F.conv2d(rows, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def fast(x: Tensor) -> bool:
    """Is the convolution the better way? For float32 on a CPU, where no gradient is asked for: its own is slower.

    With one thread PyTorch does not give a convolution of kernel 1 to oneDNN. Without it, as inside
    ``torch.backends.mkldnn.flags(enabled=False)``, the readable path is taken.
    """
    onednn, mkl = torch.backends.mkldnn, torch.backends.mkl
    library = onednn.is_available() and onednn.enabled and mkl.is_available()
    kind = x.device.type == "cpu" and x.dtype == torch.float32
    return kind and library and not torch.is_grad_enabled() and torch.get_num_threads() > 1
