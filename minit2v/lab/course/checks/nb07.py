"""Checks of notebook 07, A UNet for pictures: the sinusoid of a timestep, ResBlock, Attention, and the way up."""

import operator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from minit2v.lab.course.comparing import called, normal, recognised, same_dtype, same_layer
from minit2v.lab.course.exercises import Failed, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.networks import blocks, unet

_UNET = "tests/test_unet.py::"
EQUATIONS = {
    "7.1": ("the sinusoid of a timestep", _UNET + "test_equals_diffusers"),
    "7.2": ("the residual connection", _UNET + "test_equals_diffusers"),
    "7.3": ("the embedding scales and shifts (a departure)",
            _UNET + "test_departures_add_spatial_parameters_only_when_on"),
    "7.4": ("the feed-forward layer GEGLU", _UNET + "test_feed_forward_in_parts_is_the_same"),
    "7.5": ("a skip beside what comes up", _UNET + "test_equals_diffusers"),
}  # fmt: skip

QUIZ = [
    (
        "You double the width of every layer of a UNet. By about how much does the number of its parameters grow?",
        ["2 times", "4 times", "8 times"],
        1,
        "A convolution or a linear layer has a number for every pair of an input and an output channel.",
    ),
    (
        "The second convolution of every residual block starts as zero. What does the new block compute?",
        ["Zero", "Its input, or the 1 x 1 convolution of it", "Noise"],
        1,
        "x + 0: the branch is silent until training wants it, so even a deep stack passes its input and its gradient.",
    ),
    (
        "You exchange the two halves of torch.cat([x, skip]) in a trained UNet. What happens?",
        ["An error: the shapes differ", "Nothing: a sum does not care about order", "No error, and the output is wrong"],
        2,
        "The number of channels is the same, so everything runs. But each weight was trained for one of them.",
    ),
]

PREDICTIONS = {
    "7.a": Question("A residual block takes 640 channels to 320. Where are most of its weights: in the first 3 x 3 "
                    "convolution, in the second, in the 1 x 1 of the skip, or in the embedding of 1,280 numbers?",
                    "the first 3 x 3", ["the first 3 x 3", "the second 3 x 3", "the 1 x 1", "the embedding"]),
    "7.b": Question("Of all parameters of the released UNet, which share is in the level of the finest resolution, "
                    "down and up together?", "under 15 %", ["under 15 %", "about a third", "more than half"]),
}  # fmt: skip


def sinusoid(position, width):
    """Positions (…) as (…, width), float32: cosines, then sines, of frequencies that fall from 1 towards 1/10000."""
    half = width // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = position.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@exercise("7.1", name="sinusoid", solution=sinusoid, minutes=8, difficulty=2, importance=4)
def check_sinusoid(student):
    """Whole and broken positions, one axis and two, six widths; every order and every base that books have."""
    for position, width in ((torch.tensor([0, 1, 7, 999]), 8), (torch.tensor([[3, 500, 42], [11, 0, 981]]), 6),
                            (torch.tensor([0.5, 2.25, 3.3], dtype=torch.float64), 4), (torch.tensor([981]), 320),
                            (torch.tensor(17), 10), (torch.tensor([1234.5]), 640)):
        found = called(lambda p: student(p, width), position)
        half, angle = width // 2, position.double()[..., None]
        i = torch.arange(half, dtype=torch.float64)
        c, s = (wave(angle * 10000.0 ** (-i / half)) for wave in (torch.cos, torch.sin))
        short = angle * 10000.0 ** (-i / max(half - 1, 1))
        mistakes = {
            "sines first: the released model has the cosines first": lambda: torch.cat([s, c], -1),
            "cosines and sines alternate; all cosines come first": lambda: torch.stack([c, s], -1).flatten(-2),
            "sines and cosines alternate; all cosines come first": lambda: torch.stack([s, c], -1).flatten(-2),
            "the exponents are i / half, not i / (half - 1)": lambda: torch.cat([short.cos(), short.sin()], -1),
            "the exponents are i / half, not i / width": lambda: torch.cat(
                [wave(angle * 10000.0 ** (-i / width)) for wave in (torch.cos, torch.sin)], -1),
            "the minus sign of the exponent is missing": lambda: torch.cat(
                [wave(angle * 10000.0 ** (i / half)) for wave in (torch.cos, torch.sin)], -1),
        }  # fmt: skip
        what = f"sinusoid of {position.tolist()}, width {width}"
        precise = 2e-6 + 3e-7 * float(position.max())  # what float32 can tell of an angle of that size
        recognised(what, found, torch.cat([c, s], -1), mistakes, tolerance=precise)
        same_dtype(what, found, torch.float32)
    return "cosines first, for numbers and for tables of positions, at five widths"


class ResBlock(nn.Module):
    """Two 3x3 convolutions of a frame, the embedding between them: x (n, c_in, h, w), emb (n, e) -> (n, c_out, h, w)."""

    def __init__(self, c_in, c_out, embedding_dim, groups, dropout, scale_shift):
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, 2 * c_out if scale_shift else c_out)
        self.norm2 = nn.GroupNorm(groups, c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = blocks.zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x)))
        emb = self.embedding(F.silu(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + emb)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


def _res(layer, x, emb, *, first=F.silu, middle=F.silu, of_emb=F.silu, late=False, one=1.0, swapped=False,
         branch=1.0, skip=True):  # fmt: skip
    """The library's residual block with one thing wrong."""
    h = layer.conv1(first(layer.norm1(x)))
    emb = layer.embedding(of_emb(emb))[:, :, None, None]
    if layer.scale_shift:
        scale, shift = emb.chunk(2, dim=1)[:: -1 if swapped else 1]
        h = layer.norm2(h) * (one + scale) + shift
    else:
        h = layer.norm2(h) + emb if late else layer.norm2(h + emb)
    h = branch * layer.conv2(layer.dropout(middle(h)))
    return h + layer.skip(x) if skip else h


_nothing = lambda x: x  # noqa: E731
RES_MISTAKES = {
    "x is not added: the block returns skip(x) + h": lambda b, x, e: _res(b, x, e, skip=False),
    "SiLU is missing before the first convolution": lambda b, x, e: _res(b, x, e, first=_nothing),
    "SiLU is missing before the second convolution": lambda b, x, e: _res(b, x, e, middle=_nothing),
    "SiLU of the embedding is missing": lambda b, x, e: _res(b, x, e, of_emb=_nothing),
    "ReLU in the place of SiLU": lambda b, x, e: _res(b, x, e, first=F.relu, middle=F.relu, of_emb=F.relu),
    "the embedding is added before the second norm, not after it": lambda b, x, e: _res(b, x, e, late=True),
    "the scale is 1 + scale: at 0 nothing is scaled": lambda b, x, e: _res(b, x, e, one=0.0),
    "the first half of the embedding is the scale, the second the shift": lambda b, x, e: _res(b, x, e, swapped=True),
    "there is no factor 1/√2 in this model": lambda b, x, e: _res(b, x, e) / 2**0.5,
}


@exercise("7.2", name="ResBlock", solution=ResBlock, minutes=20, difficulty=3, importance=5)
def check_res_block(student):
    """Three blocks of other widths, one with scale and shift, on pictures that are not square."""
    cases = [((6, 6, 5, 3, 0.0, False), [(normal(3, 6, 5, 7), normal(3, 5, seed=1))]),
             ((6, 4, 5, 2, 0.25, False), [(normal(2, 6, 3, 4, seed=2), normal(2, 5, seed=3)),
                                          (normal(1, 6, 1, 2, seed=4), normal(1, 5, seed=5))]),
             ((4, 12, 7, 4, 0.5, True), [(normal(3, 4, 4, 6, seed=6), normal(3, 7, seed=7))])]  # fmt: skip
    same_layer(student, blocks.ResBlock, cases, RES_MISTAKES, zero=["conv2."], settings=["c_in", "c_out", "scale_shift"])
    return "the library's outputs and gradients for three kinds of block, dropout in its place"


class Attention(nn.Module):
    """Multi-head attention: x (n, s, d), context (b, m, e) -> (n, s, d); n = b f frames share b contexts."""

    def __init__(self, d, head_dim, context_dim=None):
        super().__init__()
        self.heads = d // head_dim
        self.to_q = nn.Linear(d, d, bias=False)
        self.to_k = nn.Linear(context_dim or d, d, bias=False)
        self.to_v = nn.Linear(context_dim or d, d, bias=False)
        self.to_out = nn.Linear(d, d)

    def forward(self, x, context=None):
        context = x if context is None else context
        context = context.repeat_interleave(len(x) // len(context), dim=0)  # (b m e) -> ((b f) m e)
        q, k, v = (rearrange(y, "n s (k d) -> n k s d", k=self.heads)
                   for y in (self.to_q(x), self.to_k(context), self.to_v(context)))  # fmt: skip
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.to_out(rearrange(weights @ v, "n k s d -> n s (k d)"))


def _attention(layer, x, context=None, *, split="(k d)", scale=None, axis=-1, shared="interleave", heads=None):
    """The library's attention with one thing wrong."""
    context, k = x if context is None else context, heads or layer.heads
    times = len(x) // len(context)
    context = context.repeat_interleave(times, 0) if shared == "interleave" else context.repeat(times, 1, 1)
    sizes = {"k": k}
    q, key, v = (rearrange(y, f"n s {split} -> n k s d", **sizes)
                 for y in (layer.to_q(x), layer.to_k(context), layer.to_v(context)))  # fmt: skip
    weights = (q @ key.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(dim=axis)
    return layer.to_out(rearrange(weights @ v, f"n k s d -> n s {split}"))


def _width(layer):
    return layer.to_q.weight.shape[0]


ATTENTION_MISTAKES = {
    "the scores are not divided by the root of the width of a head": lambda a, *x: _attention(a, *x, scale=1.0),
    "divide by the root of the width of a head, d / heads, not of d":
        lambda a, *x: _attention(a, *x, scale=_width(a) ** -0.5),
    "divide by the root of the width, not by the width":
        lambda a, *x: _attention(a, *x, scale=a.heads / _width(a)),
    "softmax runs over the keys, the last axis; here it ran over the queries": lambda a, *x: _attention(a, *x, axis=-2),
    "all channels in one head": lambda a, *x: _attention(a, *x, heads=1),
    "heads are neighbouring channels, (k d), and not every k-th channel, (d k)":
        lambda a, *x: _attention(a, *x, split="(d k)"),
    "frames of one clip lie beside one another, (b f): repeat_interleave, not repeat":
        lambda a, *x: _attention(a, *x, shared="repeat"),
    "to_out is missing": lambda a, *x: (_attention(a, *x) - a.to_out.bias) @ torch.linalg.inv(a.to_out.weight).T,
}  # fmt: skip


@exercise("7.3", name="Attention", solution=Attention, minutes=20, difficulty=4, importance=5)
def check_attention(student):
    """To itself and to a text of another width and length; one context a frame, and one for the frames of a clip."""
    cases = [((6, 3, None), [(normal(3, 5, 6),), (normal(1, 1, 6, seed=1),)]),
             ((8, 2, 5), [(normal(4, 3, 8, seed=2), normal(4, 7, 5, seed=3)),
                          (normal(6, 3, 8, seed=4), normal(2, 7, 5, seed=5))]),
             ((4, 4, 9), [(normal(6, 5, 4, seed=6), normal(3, 2, 9, seed=7))])]  # fmt: skip
    same_layer(student, blocks.Attention, cases, ATTENTION_MISTAKES, settings=["d", "head_dim", "context_dim"])
    return "to itself, to a text, and with one text for all frames of a clip: the library's outputs and gradients"


def go_up(x, skips, level, emb, context, f):
    """One level of the way up: each block gets what comes up and the skip that was made last."""
    for block in level.blocks:
        x = block(torch.cat([x, skips.pop()], dim=1), emb, context, f)
    return x if level.resample is None else level.resample(x, skips[-1].shape[-2:])


USED_FIRST = "what was made last is used first: skips.pop()"


class _Noted(nn.Module):
    """A block that notes what it is given and returns the first channels of its input, times a number of its own."""

    def __init__(self, c, factor):
        super().__init__()
        self.c, self.factor, self.seen = c, factor, []

    def forward(self, x, emb, context, f, temporal=True):
        self.seen.append((x, emb, context, f, temporal))
        return self.factor * x[:, : self.c] + emb[:, :1, None, None]


class _Level(nn.Module):
    def __init__(self, c, blocks_, resample):
        super().__init__()
        self.blocks = nn.ModuleList(_Noted(c, 1.5 + i) for i in range(blocks_))
        self.resample = unet.Upsample(c).double() if resample else None


@exercise("7.B", name="go_up", solution=go_up, minutes=6, difficulty=1, importance=4)
def check_go_up(student):
    """Levels of one to three blocks and equal widths, where every wrong order has the right shape."""
    for c, blocks_, resample, f in ((4, 2, True, 2), (3, 2, False, 1), (5, 3, True, 1), (6, 1, True, 2)):
        torch.manual_seed(c)
        level = _Level(c, blocks_, resample)
        sizes = [(9, 11), (5 + blocks_, 6), *[(3, 4)] * blocks_]
        skips = [normal(2, c, *size, seed=seed).requires_grad_() for seed, size in enumerate(sizes)]
        made = [skip.clone() for skip in skips]
        x, emb, context = normal(2, c, 3, 4, seed=7), normal(2, 5, seed=8), normal(2 // f, 2, 3, seed=9)
        kept = list(made)
        try:
            found = called(lambda y, *rest: student(y, kept, level, *rest), x, emb, context, f)
        except RuntimeError:  # of torch.cat, where the sizes of the skips differ
            if any(one is made[0] for one in kept):
                raise
            raise Failed("the newest skip for block 0", "the oldest", USED_FIRST) from None
        calls = [len(block.seen) for block in level.blocks]
        if calls != [1] * blocks_:
            raise Failed("each block of the level to be called once", f"{calls} calls")
        if not all(map(torch.equal, made, skips)):
            raise Failed("the skips as they were", "one of them was changed", "an operation in place")
        seen = [block.seen[0] for block in level.blocks]
        _order_of_skips(seen, x, skips, (emb, context, f), c)
        if [id(one) for one in kept] != [id(one) for one in made[:2]]:
            raise Failed("the skips of the levels above left in the list", f"{len(kept)} skips are left, not the first 2")
        expected = go_up(x, list(skips), level, emb, context, f)
        same_shape("the result", found, expected.shape, "level.resample takes the size of the next skip, if there is one")
        recognised("the result", found, expected, {})
        same_dtype("the result", found, x.dtype)
        _passes_gradients(found, [*skips[2:], *(one[0] for one in seen)])
    return "x first, the newest skip behind it, and the size of the next skip"


def _order_of_skips(seen, x, skips, others, c):
    for i, (given, *rest) in enumerate(seen):
        if tuple(given.shape) != (2, 2 * c, 3, 4):
            raise Failed(f"block {i} to be given (2, {2 * c}, 3, 4)", f"{tuple(given.shape)}", "x and one skip, dim=1")
        for name, own, right in zip(("emb", "context", "f"), rest, others):
            same = torch.equal if isinstance(own, torch.Tensor) else operator.eq
            if type(own) is not type(right) or not same(own, right):
                raise Failed(f"block {i} to be given {name} as it came", "something else", "block(…, emb, context, f)")
        if rest[3] is not True:
            raise Failed(f"block {i} to look along time", f"temporal={rest[3]}")
        newest = skips[-1 - i]
        if torch.equal(given[:, :c], newest):
            raise Failed(f"x, then the skip, for block {i}", "the skip, then x", "cat([x, skip]), as it was trained")
        if not torch.equal(given[:, c:], newest):
            old = any(torch.equal(given[:, c:], skip) for skip in skips)
            raise Failed(f"the newest skip for block {i}", "an older one" if old else "something else",
                         USED_FIRST if old else "")  # fmt: skip
        if i == 0 and not torch.equal(given[:, :c], x):
            raise Failed("x as it came for block 0", "another")


def _passes_gradients(result, given):
    """Whatever is detached on the way learns nothing."""
    reached = torch.autograd.grad(result.sum(), given, allow_unused=True) if result.requires_grad else [None]
    if any(one is None for one in reached):
        raise Failed("a gradient for x and for each skip", "none", "no detach(), .data or no_grad() on the way")
