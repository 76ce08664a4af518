"""Group normalisation in the memory layout that is faster.

PyTorch's kernel for channels_last maps of fewer than 1,024 places walks through memory in strides: in bfloat16 and at
the sizes of mini it takes longer than the other kernel with a copy there and back.

Reference: Group Normalization, arXiv 1803.08494.
"""

import torch
from torch import Tensor, nn

COPIED = 2**21  # numbers of x up to which a copy pays; beyond, new memory costs more


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, ``x (n, c, h, w) -> same``; on a CPU small maps in bfloat16 are laid out channel by channel."""

    def forward(self, x: Tensor) -> Tensor:
        small = x.shape[2:].numel() < 1024 and x.numel() <= COPIED
        if not (small and x.dtype == torch.bfloat16 and x.device.type == "cpu"):
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
