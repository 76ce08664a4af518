"""Two layers that make full use of a CPU, each the same function as PyTorch's.

    Linear      x (… d) ──────► matrix product (PyTorch: MKL)                  readable
                x (1 d n 1) ──► convolution of kernel 1 (PyTorch: oneDNN)      fast
    GroupNorm   small bfloat16 maps are laid out channel by channel

**Linear.** In float32 PyTorch computes matrix products with MKL, which uses vectors of half the width on processors
other than Intel's, and convolutions with oneDNN, which uses their whole width. Half of the operations of the released
UNet are in linear layers; `make bench` measures the gain. The environment variables MKL_VERBOSE=1 and ONEDNN_VERBOSE=1
show which kernels run.

**GroupNorm.** PyTorch's kernel for channels_last maps of fewer than 1,024 places reads memory in strides: in bfloat16
and at the sizes of mini it takes longer than the other kernel with a copy before and after.

Reference: Group Normalization, arXiv 1803.08494.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COPIED = 2**21  # numbers of x up to which a copy pays; above, new memory costs more


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, d), weight (e, d), bias (e,) -> (…, e), on the faster path."""
    if not fast(x):
        return F.linear(x, weight, bias)
    rows = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # (… d) -> (1 d n 1), channels_last: no copy
    return F.conv2d(rows, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def fast(x: Tensor) -> bool:
    """Whether the convolution is faster: for float32 on a CPU without a gradient, as its backward pass is slower.

    With one thread PyTorch does not use oneDNN for a convolution of kernel 1. Without oneDNN, as inside
    ``torch.backends.mkldnn.flags(enabled=False)``, the readable path is taken; so it is where `torch.compile` traces,
    which chooses for itself.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    onednn, mkl = torch.backends.mkldnn, torch.backends.mkl
    library = onednn.is_available() and onednn.enabled and mkl.is_available()
    return library and not torch.is_grad_enabled() and torch.get_num_threads() > 1


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, ``x (n, c, h, w) -> same``. On a CPU, small maps in bfloat16 are laid out channel by channel, and so
    is x where it needs no gradient and the weights do: there the backward pass of channels_last ends the process with a
    segmentation fault (torch 2.7, 2.8)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_grad_enabled() and self.weight.requires_grad and not x.requires_grad:
            x = x.contiguous()
        small = x.shape[2:].numel() < 1024 and x.numel() <= COPIED
        if not (small and x.dtype == torch.bfloat16 and x.device.type == "cpu"):
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
