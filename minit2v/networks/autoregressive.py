"""Writing one token after the other: what the systems with a codebook share.

    tokens 0 … p-1 ──► transformer ──► logits of token p ──► drawn ──► token p
                            ▲
                        `Memory`: keys and values of the places before, so that each is computed once

While training all places are computed at once, each under a mask that hides what comes later.

References: Attention Is All You Need, arXiv 1706.03762, section 3.2; VQGAN, arXiv 2012.09841, section 3.2 (a transformer
that writes the codes of a picture); top-k sampling: arXiv 1805.04833, section 5.4.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Generator, Tensor, nn

from minit2v.networks.layers import Linear


class Memory:
    """Keys and values (2, b, heads, m, c) of the m places that one attention has seen."""

    def __init__(self):
        self.kept, self.m = None, 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new places behind the old ones; returns all."""
        both, before = torch.stack([keys, values]), self.m
        self.m += both.shape[3]
        if self.kept is None or self.m > self.kept.shape[3]:  # twice the room, so that old places are seldom copied
            room = both.new_empty(*both.shape[:3], 2 * self.m, both.shape[4])
            if before:
                room[:, :, :, :before] = self.kept[:, :, :, :before]
            self.kept = room
        self.kept[:, :, :, before : self.m] = both
        return tuple(self.kept[:, :, :, : self.m])

    def cut(self, m: int) -> None:
        """Forget all but the first m places."""
        self.m = min(m, self.m)


class MaskedAttention(nn.Module):
    """Multi-head self-attention in which place i sees place j where `seen` (n, m) is True.

    ``x (b, n, d) -> (b, n, d)``. With a `memory` the n places come behind those that it holds, and m counts all. A `bias`
    (heads, n, m) is added to the logits.
    """

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (Linear(d, d, bias=False) for _ in range(3))
        self.to_out = Linear(d, d)

    def forward(self, x: Tensor, seen: Tensor, memory: Memory | None = None, bias: Tensor | float = 0.0) -> Tensor:
        q, k, v = (rearrange(y, "b n (k c) -> b k n c", k=self.heads) for y in (self.to_q(x), self.to_k(x), self.to_v(x)))
        if memory is not None:
            k, v = memory.extend(k, v)
        return self.to_out(rearrange(masked_attention(q, k, v, seen, bias), "b k n c -> b n (k c)"))


def masked_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(c) + bias) v for q (…, s, c) and k, v (…, m, c), over the places where `seen` (…, s, m) is True.

    On a CPU the readable form, forward and backward, takes half of the time of PyTorch's fused kernel (350 places, bfloat16).
    """
    added = (q.new_zeros(seen.shape) + bias).to(q).masked_fill(~seen, float("-inf"))
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added)
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + added).softmax(dim=-1) @ v


def feed_forward(d: int, wider: int = 4) -> nn.Sequential:
    """Two layers with a GELU between them, `wider` times as wide: (…, d) -> (…, d)."""
    return nn.Sequential(Linear(d, wider * d), nn.GELU(), Linear(wider * d, d))


def draw(logits: Tensor, generators: Sequence[Generator], top_k: int = 0, temperature: float = 1.0) -> Tensor:
    """A token for each row of logits (b, k) -> (b,), from softmax(logits / temperature) of the top_k largest (0: of all).

    Row i takes its random numbers from generator i, so no clip depends on the others of its batch. The largest of
    logit + Gumbel noise is a draw from the softmax, and needs no division by a sum that rounds otherwise elsewhere.
    """
    if top_k:
        least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))  # eq (14.4) · arXiv 1805.04833, section 5.4
    uniform = [torch.rand(logits.shape[1], generator=one, dtype=torch.float64, device="cpu") for one in generators]
    gumbel = -(-torch.stack(uniform).log()).log()
    return (logits.double() / temperature + gumbel.to(logits.device)).argmax(dim=1)
