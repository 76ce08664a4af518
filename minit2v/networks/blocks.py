"""The blocks of the UNet: two that look within a frame, two that look along time.

    SpatioTemporalBlock = ResBlock  -> TemporalConv -> SpatialTransformer -> TemporalTransformer
                          2 convs      4 convs         self + cross          self + self       attention
                          (per frame)  (per pixel)     (per frame)           (per pixel)

Frames travel as (b f) c h w with f fastest; a temporal layer takes f and views the clip as b c f h w. On a CPU the
memory format is channels_last throughout: a frame's pixels are already the rows of one matrix, and neither a linear
layer nor a temporal convolution has to copy anything. Temporal layers start as the identity: their last layer is zero.

A linear layer is called as a module, or its `weight` is read as an attribute, so `torch.nn.utils.parametrize` on
`weight` (low-rank adapters, for one) works on every one.

References: ModelScopeT2V, arXiv 2308.06571, section 3.3 and figure 3; residual block: arXiv 1512.03385; transformer
block: Latent Diffusion, arXiv 2112.10752, appendix E.2.1; GEGLU: arXiv 2002.05202.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v.networks.layers import GroupNorm, Linear, linear
from minit2v.presets import UNetConfig

PART = 2**21  # numbers that a feed-forward layer holds at a time between its two products
MOST_SEQUENCES = 65_535  # GPU kernels fail above (pytorch issue 142228); a temporal layer has one for each pixel


def zeroed(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to zero, so that the branch that it ends starts as zero; returns the layer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResBlock(nn.Module):
    """Two 3x3 convolutions of a frame with the timestep embedding added between them.

    ``x (n, c_in, h, w), emb (n, e) -> (n, c_out, h, w)``, n = b f. GroupNorm statistics are those of one frame.
    """

    def __init__(self, c_in: int, c_out: int, embedding_dim: int, groups: int, dropout: float, scale_shift: bool):
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, 2 * c_out if scale_shift else c_out)
        self.norm2 = GroupNorm(groups, c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        emb = self.embedding(F.silu(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift  # eq (7.3) · Diffusion Models Beat GANs, section 3
        else:
            h = self.norm2(h + emb)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.skip(x) + h  # eq (7.2) · Deep Residual Learning (2)


class TemporalConv(nn.Module):
    """Four 3-tap convolutions along time, as a residual branch that starts at zero.

    ``x (b f, c, h, w), f -> same``. GroupNorm statistics are those of the whole clip (f, h and w), which is what ports
    of this model most often get wrong. Frame order enters the paper's network only here, by the zero padding in time.
    """

    def __init__(self, c: int, groups: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(GroupNorm(groups, c) for _ in range(4))
        # kernel (3, 1) over (f, h w) is the paper's Conv3d of kernel (3, 1, 1) on b c f h w
        self.convs = nn.ModuleList(nn.Conv2d(c, c, (3, 1), padding=(1, 0)) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        zeroed(self.convs[-1])

    def forward(self, x: Tensor, f: int) -> Tensor:
        h = clip_view(x, f)  # ((b f) c h w) -> (b c f (h w))
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs)):
            h = F.silu(norm(h))
            # the first stage has no dropout
            h = conv(self.dropout(h) if i else h)  # eq (8.1) · ModelScopeT2V, section 3.3
        return x + frame_view(h, x)  # (b c f (h w)) -> ((b f) c h w)


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) (n, k, s, m): how much each of s tokens attends to each of m."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1)  # eq (4.3) · Attention Is All You Need (1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q (n, k, s, d) and k, v (n, k, m, d); Attention Is All You Need, equation 1.

    For the many short sequences of a small model on a CPU the readable form is also the fast one (a training step with
    16 frames in bfloat16 takes 0.6 of the time). Long ones go to PyTorch's fused kernel, which never holds the (s, m)
    matrix.
    """
    n, heads = q.shape[:2]
    if n > 1 and n * heads > MOST_SEQUENCES:
        parts = zip(*(x.split(max(1, MOST_SEQUENCES // heads)) for x in (q, k, v)))
        return torch.cat([attend(*part) for part in parts])
    if q.device.type == "cpu" and q.shape[-2] * k.shape[-2] <= 128 * 128:
        return attention_map(q, k) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head attention of x to a context (itself by default): softmax(q k^T / sqrt(head_dim)) v.

    ``x (n, s, d), context (b, m, e) -> (n, s, d)``. Where n = b f, the f frames of a clip share a context: their pixels
    attend as one long sequence, so the keys and values of a text are computed once per clip.

    With ``keep`` above 0 a call stores the mean map of the last ``keep`` sequences over heads in ``map`` (keep, s, m).
    """

    def __init__(self, d: int, head_dim: int, context_dim: int | None = None):
        super().__init__()
        self.heads, self.keep, self.map = d // head_dim, 0, None
        self.to_q = Linear(d, d, bias=False)
        self.to_k = Linear(context_dim or d, d, bias=False)
        self.to_v = Linear(context_dim or d, d, bias=False)
        self.to_out = Linear(d, d)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        shape = x.shape
        context = x if context is None else context
        x = x.reshape(len(context), -1, shape[-1])  # ((b f) s d) -> (b (f s) d)
        q, k, v = (
            rearrange(y, "n s (k d) -> n k s d", k=self.heads)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        if self.keep:
            self.map = attention_map(q[-self.keep :], k[-self.keep :]).mean(dim=1)
        out = attend(q, k, v)
        return self.to_out(rearrange(out, "n k s d -> n s (k d)")).reshape(shape)


class GEGLU(nn.Module):
    """Feed-forward layer: value * GELU(gate), then a projection to d. The first half of `proj_in` gives the value."""

    def __init__(self, d: int):
        super().__init__()
        self.proj_in = Linear(d, 8 * d)
        self.proj_out = Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        # a part of the tokens at a time: between the products tensors are twelve times as wide as x, so parts take less
        # memory, and less new memory, which the system has to clear page by page
        parts = x.flatten(0, -2).split(max(1, PART // self.proj_out.in_features))
        return torch.cat([self.part(part) for part in parts]).view(x.shape) if len(parts) > 1 else self.part(x)

    def part(self, x: Tensor) -> Tensor:
        # two products instead of one cut in half, whose halves would not be contiguous
        halves = zip(self.proj_in.weight.chunk(2), self.proj_in.bias.chunk(2))
        value, gate = (linear(x, weight, bias) for weight, bias in halves)
        return self.proj_out(value * F.gelu(gate))  # eq (7.4) · GLU Variants (6)


class TransformerBlock(nn.Module):
    """Attention, attention to the text (or to itself again), feed-forward: each after a LayerNorm, each added to x."""

    def __init__(self, d: int, head_dim: int, context_dim: int | None):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn1 = Attention(d, head_dim)
        self.attn2 = Attention(d, head_dim, context_dim)
        self.feed_forward = GEGLU(d)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Pixels of a frame attend to one another and to the text.

    ``x (b f, c, h, w), context (b, n, d) -> same as x``.
    """

    def __init__(self, c: int, head_dim: int, context_dim: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, c, eps=1e-6)
        self.proj_in = Linear(c, c)
        self.block = TransformerBlock(c, head_dim, context_dim)
        self.proj_out = zeroed(Linear(c, c))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = rearrange(self.norm(x), "n c h w -> n (h w) c")
        h = self.proj_out(self.block(self.proj_in(h), context))
        return x + rearrange(h, "n (h w) c -> n c h w", h=x.shape[2])


class TemporalTransformer(nn.Module):
    """Each pixel attends to itself along time, twice, without text and without positions.

    ``x (b f, c, h, w), f -> same``. GroupNorm statistics are those of the whole clip.
    """

    def __init__(self, c: int, head_dim: int, groups: int, inner: int | None = None):
        super().__init__()
        inner = inner or c
        self.norm = GroupNorm(groups, c, eps=1e-6)
        self.proj_in = Linear(c, inner)
        self.block = TransformerBlock(inner, head_dim, None)
        self.proj_out = zeroed(Linear(inner, c))

    def forward(self, x: Tensor, f: int) -> Tensor:
        # ((b f) c h w) -> (b c f (h w))
        h = self.norm(clip_view(x, f))  # eq (8.2) · ModelScopeT2V, section 3.3
        b = h.shape[0]
        # contiguous, or PyTorch multiplies pixel by pixel, in half precision with a copy of the matrix for each
        h = rearrange(h, "b c f s -> (b s) f c").contiguous()  # eq (8.3) · ModelScopeT2V, section 3.3
        h = self.proj_out(self.block(self.proj_in(h)))
        return x + frame_view(rearrange(h, "(b s) f c -> b c f s", b=b), x)


class SpatioTemporalBlock(nn.Module):
    """The paper's block: residual and temporal convolution, then both transformers if the level has attention.

    ``x (b f, c_in, h, w), emb (b f, e), context (b, n, d), f -> (b f, c_out, h, w)``. The interface of every block that
    `UNet` takes: these arguments, ``temporal=False`` for the image model, and `temporal_layers`.
    """

    def __init__(self, c_in: int, c_out: int, attention: bool, config: UNetConfig):
        super().__init__()
        groups, head_dim = config.norm_groups, config.head_dim
        self.res = ResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
        convs, along = config.temporal_convs, attention and config.temporal_attention
        self.temporal_conv = TemporalConv(c_out, groups, config.dropout) if convs else None
        if 0 < convs < 4:  # an experiment: the last ones, of which the very last begins as zero
            layer = self.temporal_conv
            layer.norms, layer.convs = layer.norms[-convs:], layer.convs[-convs:]
        self.spatial = SpatialTransformer(c_out, head_dim, config.context_dim, groups) if attention else None
        self.temporal = TemporalTransformer(c_out, head_dim, groups) if along else None

    def temporal_layers(self) -> list[nn.Module]:
        """The layers that the image model does not have."""
        return [layer for layer in (self.temporal_conv, self.temporal) if layer is not None]

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, f: int, temporal: bool = True) -> Tensor:
        x = self.res(x, emb)
        if temporal and self.temporal_conv is not None:
            x = self.temporal_conv(x, f)
        if self.spatial is not None:
            x = self.spatial(x, context)
        if temporal and self.temporal is not None:
            x = self.temporal(x, f)
        return x


class FrameBlock(nn.Module):
    """The block of an image model: what `SpatioTemporalBlock` is without its temporal layers."""

    def __init__(self, c_in: int, c_out: int, attention: bool, config: UNetConfig):
        super().__init__()
        groups = config.norm_groups
        self.res = ResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
        self.spatial = SpatialTransformer(c_out, config.head_dim, config.context_dim, groups) if attention else None

    def temporal_layers(self) -> list[nn.Module]:
        """None: the block looks within a frame."""
        return []

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, f: int, temporal: bool = True) -> Tensor:
        x = self.res(x, emb)
        return x if self.spatial is None else self.spatial(x, context)


def clip_view(x: Tensor, f: int) -> Tensor:
    """View frames as clips: ((b f) c h w) -> (b c f (h w)), without a copy when x is channels_last."""
    return rearrange(x, "(b f) c h w -> b c f (h w)", f=f)  # eq (1.3) · Video Diffusion Models, section 3


def frame_view(x: Tensor, like: Tensor) -> Tensor:
    """Inverse of `clip_view`: (b c f (h w)) -> ((b f) c h w), with the height of `like`."""
    return rearrange(x, "b c f (h w) -> (b f) c h w", h=like.shape[2])  # eq (1.4) · Video Diffusion Models, section 3
