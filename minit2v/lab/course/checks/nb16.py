"""Checks of notebook 16, MagicVideo: a scale and shift for each frame, directed attention, the block, statistics that leak.

Layers are compared with the library's, and directed attention with its invariant as well: no gradient from a later frame.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from minit2v.lab.course.comparing import built, called, normal, recognised, same_layer
from minit2v.lab.course.exercises import Failed, counted, exercise
from minit2v.lab.course.questions import Question
from minit2v.networks import blocks
from minit2v.networks.unet import split_numbers
from minit2v.systems import magicvideo, video_decoder
from minit2v.systems.magicvideo import MagicVideoConfig

_SYSTEMS, _OWN = "tests/test_systems.py::", "tests/test_lab_magicvideo.py::"
EQUATIONS = {
    "16.1": ("a scale and a shift for each frame", _SYSTEMS + "test_magicvideo_with_neutral_adaptors_is_its_image_model"),
    "16.2": ("statistics of a frame alone", _OWN + "test_a_clip_that_is_cut_short_has_the_same_frames"),
    "16.3": ("directed attention", _SYSTEMS + "test_a_frame_of_magicvideo_hears_nothing_of_later_frames"),
    "16.4": ("spatial and directed attention side by side", _OWN + "test_the_two_branches_add_up"),
    "16.5": ("how far apart frames are, from the frame rate", _OWN + "test_half_the_frame_rate_puts_frames_twice_as_far_apart"),
}

QUIZ = [
    (
        "In each convolution of a clip model every frame has a scale and a shift of its own, and nothing else connects frames. "
        "Frame 3 of the input is replaced by noise. What changes?",
        ["Frame 3 of the output alone", "Frame 3 and all later frames", "All frames"],
        0,
        "An adaptor knows the number of a frame and nothing of what other frames look like. Only attention carries that.",
    ),
    (
        "Somebody multiplies by a lower triangular mask after the softmax. How does a later frame still reach an earlier one?",
        ["Through its value", "Through its key, in the sum that the softmax divides by", "Not at all; only the rows are too small"],
        1,
        "Its value is multiplied by zero. But the other weights are small because its score was large.",
    ),
    (
        "Which test finds a layer of a causal model that takes its statistics over the whole clip?",
        ["The shapes of all outputs", "A clip of one frame", "A clip and the same clip without its last frames: the first frames must agree"],
        2,
        "Shapes fit, and with one frame the clip's statistics are the frame's. What comes later must not change what came before.",
    ),
]

CHANNELS, FRAMES = 320, 16  # the finest level of Stable Diffusion; the paper's clips


def times_larger():
    """Parameters of ModelScopeT2V's temporal convolution over those of an adaptor, at that level."""
    count = lambda layer: sum(p.numel() for p in layer.parameters())
    return round(count(blocks.TemporalConv(CHANNELS, 32, 0.0)) / count(magicvideo.FrameAdaptor(CHANNELS, FRAMES)))


PREDICTIONS = {
    "16.a": Question(f"At a level with {CHANNELS} channels, how many times as many weights does ModelScopeT2V's temporal "
                     f"convolution (08) have as an adaptor of {FRAMES} frames?", times_larger, tolerance=30),
    "16.b": Question("All scores are alike, and the clip has 16 frames. With the mask after the softmax, what do the weights of "
                     "the first frame add up to?", 1 / 16, tolerance=0.003),
    "16.c": Question("Frame 10 of a noisy clip of 16 frames is changed. How many frames of MagicVideo's answer may change?", 7),
}  # fmt: skip


# --- 16.1


class FrameAdaptor(nn.Module):
    """A scale and a shift of each channel for each frame: x ((b f), c, h, w), f -> same."""

    def __init__(self, c, frames):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(frames, c)), nn.Parameter(torch.zeros(frames, c))

    def forward(self, x, f):
        scale, shift = (table[:f].repeat(len(x) // f, 1)[:, :, None, None] for table in (self.scale, self.shift))
        return scale * x + shift


def _rows(table, x, f, order="(b f)"):
    """Rows of a table (f, c) for all frames of x, (n, c, 1, 1)."""
    b = len(x) // f
    return (table.repeat(b, 1) if order == "(b f)" else table.repeat_interleave(b, dim=0))[:, :, None, None]


def _adapted(layer, x, f, *, rows=lambda table, f: table[:f], order="(b f)", form=lambda x, s, b: s * x + b):
    """The library's adaptor with one thing wrong."""
    return form(x, *(_rows(rows(table, f), x, f, order) for table in (layer.scale, layer.shift)))


def _stretched(table, f):
    return F.interpolate(table.T[None], size=f, mode="linear", align_corners=True)[0].T


ADAPTOR_MISTAKES = {
    "frames come as (b f), a clip's beside one another: the rows repeat as 0 1 2 0 1 2, not as 0 0 1 1 2 2":
        lambda a, x, f: _adapted(a, x, f, order="(f b)"),
    "the shift is missing": lambda a, x, f: _adapted(a, x, f, form=lambda x, s, b: s * x),
    "the scale is missing": lambda a, x, f: _adapted(a, x, f, form=lambda x, s, b: x + b),
    "x is added once more; an adaptor is no residual branch": lambda a, x, f: _adapted(
        a, x, f, form=lambda x, s, b: x + s * x + b),
    "the shift is scaled too; it comes after the scale": lambda a, x, f: _adapted(a, x, f, form=lambda x, s, b: s * (x + b)),
    "the last rows of the tables; a clip of f frames has the first f": lambda a, x, f: _adapted(
        a, x, f, rows=lambda table, f: table[-f:]),
    "the tables are stretched to f frames; a shorter clip has the first f rows": lambda a, x, f: _adapted(
        a, x, f, rows=_stretched),
    "all frames have the first row": lambda a, x, f: _adapted(a, x, f, rows=lambda table, f: table[:1].expand(f, -1)),
    "scale and shift are exchanged": lambda a, x, f: _adapted(a, x, f, form=lambda x, s, b: b * x + s),
}  # fmt: skip


@exercise("16.1", name="FrameAdaptor", solution=FrameAdaptor, minutes=12, difficulty=2, importance=4)
def check_frame_adaptor(student):
    """Several clips, shorter ones than the tables, frames that are not square; a new one changes nothing, to the last bit."""
    cases = [((6, 5), [(normal(8, 6, 2, 7), 4), (normal(5, 6, 3, 2, seed=1), 5), (normal(3, 6, 1, 4, seed=2), 1)]),
             ((3, 8), [(normal(6, 3, 4, 1, seed=3), 3), (normal(16, 3, 2, 5, seed=4), 8)])]  # fmt: skip
    new, x = built(student, (4, 7)), normal(6, 4, 3, 2, seed=5).float()
    same_layer(student, magicvideo.FrameAdaptor, cases, ADAPTOR_MISTAKES, zero=["shift"], settings=["frames"])
    with torch.no_grad():
        if not torch.equal(called(new, x, 3), x):
            raise Failed("a new adaptor that changes nothing", f"numbers that move by {(new(x, 3) - x).abs().max().item():.2g}",
                         "scale begins at 1, shift at 0")
    return "clips of 1 to 8 frames, the library's outputs and gradients; a new adaptor is not there, to the last bit"


# --- 16.2


def directed_weights(q, k, printed=False):
    """q and k (n, heads, f, d) -> weights (n, heads, f, f), 0 for later frames; printed: the mask after the softmax."""
    f = q.shape[-2]
    scores, later = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, torch.ones(f, f, dtype=torch.bool, device=q.device).triu(1)
    if printed:
        return scores.softmax(-1).masked_fill(later, 0)
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def _seen(q, k, printed, *, power=0.5, hide="later", with_=-torch.inf, dim=-1, when=None):
    """Directed weights with one thing wrong."""
    f, d = q.shape[-2:]
    scores, ones = q @ k.transpose(-1, -2) / d**power, torch.ones(f, f, dtype=torch.bool)
    hidden = {"later": ones.triu(1), "earlier": ones.tril(-1), "none": ~ones}[hide]
    if (printed if when is None else when == "after"):
        return scores.softmax(dim).masked_fill(hidden, 0)
    return scores.masked_fill(hidden, with_).softmax(dim)


WEIGHTS_MISTAKES = {
    "the mask is missing": lambda q, k, printed: _seen(q, k, printed, hide="none"),
    "the mask hides earlier frames; it hides later ones": lambda q, k, printed: _seen(q, k, printed, hide="earlier"),
    "the scores are not divided by the root of d": lambda q, k, printed: _seen(q, k, printed, power=0),
    "the scores are divided by d; it is its root": lambda q, k, printed: _seen(q, k, printed, power=1),
    "the softmax runs over the frames that look; a row is what one frame looks at, dim=-1":
        lambda q, k, printed: _seen(q, k, printed, dim=-2),
    "queries and keys are exchanged": lambda q, k, printed: _seen(k, q, printed),
    "hidden scores became 0, and 0 is a score like any other: they have to become -inf":
        lambda q, k, printed: _seen(q, k, printed, with_=0.0),
}
ORDER_MISTAKES = {
    False: {"the mask comes after the softmax": lambda q, k, printed: _seen(q, k, printed, when="after")},
    True: {"the rows add up to 1: as printed they keep what the softmax gave them, and the mask comes after it":
           lambda q, k, printed: _seen(q, k, printed, when="before")},
}  # fmt: skip


@exercise("16.2", name="directed_weights", solution=directed_weights, minutes=15, difficulty=3, importance=5)
def check_directed_weights(student):
    """Several sizes and strengths of scores, both orders, and gradients: of the mask before the softmax, exactly none."""
    for printed in (False, True):
        how = "as printed" if printed else "with the mask before the softmax"
        for n, heads, f, d, strength in ((3, 2, 5, 4, 1.0), (1, 3, 1, 2, 1.0), (2, 1, 4, 9, 1.0), (1, 2, 6, 3, 40.0)):
            q, k = strength * normal(n, heads, f, d), normal(n, heads, f, d, seed=1)
            found = called(lambda a, b: student(a, b, printed), q, k, what="the weights")
            if found.isnan().any():
                raise Failed(f"numbers {how}", "NaN", "a row of which everything is hidden; a frame does see itself")
            mistakes = WEIGHTS_MISTAKES | ORDER_MISTAKES[printed]
            wrong = {cause: (lambda one=one: one(q, k, printed)) for cause, one in mistakes.items()}
            recognised(f"the weights {how}", found, directed_weights(q, k, printed), wrong)
            if found.triu(1).any():
                raise Failed(f"weights of later frames that are 0 {how}", f"up to {found.triu(1).max().item():.1g}",
                             "a large negative number leaves a little; with -inf nothing is left")
        _same_gradients(student, printed, how)
    if called(student, q, k).dtype != torch.float64 or called(student, q.float(), k.float()).dtype != torch.float32:
        raise Failed("weights of the type of q and k", "another type", "nothing may set a dtype")
    if not torch.allclose(called(student, q, k), directed_weights(q, k)):
        raise Failed("the mask before the softmax, if printed is not given", "another order")
    return "both orders; with the mask before the softmax rows add up to 1, and later frames have a gradient of exactly 0"


def _same_gradients(student, printed, how):
    """Later keys have a gradient of exactly 0 if the mask comes first; all others have the right one."""
    q, k = (normal(2, 2, 5, 3, seed=seed).requires_grad_() for seed in (2, 3))
    size = normal(2, 2, 5, 5, seed=4)
    found = student(q, k, printed)
    for i in range(5):
        mine, theirs = (_gradients((weights[:, :, i] * size[:, :, i]).sum(), q, k)
                        for weights in (found, directed_weights(q, k, printed)))  # fmt: skip
        if not printed and mine[1][:, :, i + 1 :].any():
            raise Failed(f"no gradient from frame {i} to later ones", f"up to {mine[1][:, :, i + 1:].abs().max().item():.1g}")
        _as_theirs(f"the weights {how}", mine, theirs)


def _gradients(loss, *leaves):
    """The gradient of each leaf, 0 where none arrives."""
    if not loss.requires_grad:
        raise Failed("a result that leads back to what was given", "none", "no detach(), .data or no_grad() on the way")
    return torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)


def _as_theirs(what, mine, theirs):
    if not all(torch.allclose(a, b, rtol=0, atol=1e-8) for a, b in zip(mine, theirs)):
        raise Failed(f"the gradient of {what}", "another", "the values are right: is a part of them detached?")


# --- 16.3


class MagicVideoBlock(nn.Module):
    """Residual block and adaptor, then spatial and directed attention side by side: see `systems.magicvideo`."""

    def __init__(self, c_in, c_out, attention, config):
        super().__init__()
        groups, emb = config.norm_groups, 4 * config.channels[0]
        self.res = blocks.ResBlock(c_in, c_out, emb, groups, config.dropout, config.scale_shift)
        self.adaptor = magicvideo.FrameAdaptor(c_out, config.frames)
        self.spatial = blocks.SpatialTransformer(c_out, config.head_dim, config.context_dim, groups) if attention else None
        self.directed = video_decoder.DirectedAttention(c_out, groups, config.head_dim)

    def temporal_layers(self):
        return [self.adaptor, self.directed]

    def forward(self, x, emb, context, f, temporal=True):
        emb, numbers = split_numbers(emb, f)
        x = self.res(x, emb)
        if temporal:
            x = self.adaptor(x, f, numbers)
        out = x if self.spatial is None else self.spatial(x, context)
        return out + self.directed.branch(x, f) if temporal else out


def _block(b, x, emb, context, f, temporal=True, *, both=None, adapt=None, always=False):
    """The library's block with one thing wrong. `both`: block, features, what spatial attention makes of them, f -> output."""
    temporal = temporal or always
    emb, numbers = split_numbers(emb, f)
    before = b.res(x, emb)
    x = (adapt or b.adaptor)(before, f, numbers) if temporal else before
    within = _spatial(b, x, context)
    if not temporal:
        return within
    return both(b, x, within, f, before, context, numbers) if both else within + b.directed.branch(x, f)


def _spatial(b, x, context):
    return x if b.spatial is None else b.spatial(x, context)


BLOCK_MISTAKES = {
    "directed attention stands also where there is no spatial attention": lambda b, *given: _block(
        b, *given, both=lambda b, x, within, f, *_: within + b.directed.branch(x, f) if b.spatial else within),
    "directed attention looks at what spatial attention has made; side by side, both look at the same": lambda b, *given: _block(
        b, *given, both=lambda b, x, within, f, *_: within + b.directed.branch(within, f)),
    "spatial attention looks at what directed attention has made; side by side, both look at the same": lambda b, *given: _block(
        b, *given, both=lambda b, x, within, f, before, context, _: _spatial(b, b.directed(x, f), context)),
    "x counts twice: both layers add it to what they find. directed.branch is what is found alone": lambda b, *given: _block(
        b, *given, both=lambda b, x, within, f, *_: within + b.directed(x, f)),
    "half of each; the two are added": lambda b, *given: _block(
        b, *given, both=lambda b, x, within, f, *_: (within + b.directed(x, f)) / 2),
    "directed attention looks at what came before the adaptor": lambda b, *given: _block(
        b, *given, both=lambda b, x, within, f, before, *_: within + b.directed.branch(before, f)),
    "directed attention is missing": lambda b, *given: _block(b, *given, both=lambda b, x, within, *_: within),
    "spatial attention is missing": lambda b, *given: _block(
        b, *given, both=lambda b, x, within, f, *_: b.directed(x, f)),
    "the adaptor is missing": lambda b, *given: _block(b, *given, adapt=lambda x, f, numbers: x),
    "the adaptor is not told the numbers, and takes its frames for the first": lambda b, *given: _block(
        b, *given, adapt=lambda x, f, numbers: b.adaptor(x, f)),
    "the adaptor comes after attention; it follows the convolutions": lambda b, *given: _block(
        b, *given, adapt=lambda x, f, numbers: x,
        both=lambda b, x, within, f, before, context, numbers: b.adaptor(within + b.directed.branch(x, f), f, numbers)),
    "with temporal=False neither the adaptor nor directed attention runs": lambda b, *given: _block(b, *given, always=True),
}  # fmt: skip


@exercise("16.3", name="MagicVideoBlock", solution=MagicVideoBlock, minutes=20, difficulty=3, importance=5)
def check_magicvideo_block(student):
    """With and without attention, as a clip model and as an image model, and which layers it calls temporal."""
    first = MagicVideoConfig(channels=(4, 8), norm_groups=2, head_dim=4, context_dim=5, dropout=0.25, frames=5)
    other = MagicVideoConfig(channels=(4,), norm_groups=4, head_dim=2, context_dim=5, dropout=0.0, scale_shift=True, frames=3)
    emb = torch.cat([normal(6, 16, seed=1), torch.tensor([[0, 1, 2, 0, 2, 4]]).T], dim=1)  # one clip dense, one sparse
    inputs = normal(6, 4, 3, 5), emb, normal(2, 7, 5, seed=2), 3
    for arguments in ((4, 8, True, first), (4, 8, False, other), (4, 4, True, other)):
        same_layer(student, magicvideo.MagicVideoBlock, [(arguments, [inputs, (*inputs, False)])], BLOCK_MISTAKES,
                   zero=["res.conv2.", "adaptor.shift", "spatial.proj_out.", "directed.to_out."],
                   settings=["attention", "scale_shift"])
        layer = built(student, arguments)
        found, wanted = list(layer.temporal_layers()), [layer.adaptor, layer.directed]
        if [id(one) for one in found] != [id(one) for one in wanted]:
            names = [", ".join(type(one).__name__ for one in each) or "none" for each in (wanted, found)]
            raise Failed(f"temporal_layers() to give {names[0]}", names[1])
    return "with and without attention, for clips and for pictures, it is the library's block"


# --- 16.B


def histories(norm, x, f):
    """norm a GroupNorm, x ((b f), c, h, w) -> the histories of all places, ((b h w), f, c), frames normalised alone."""
    return rearrange(norm(x), "(b f) c h w -> (b h w) f c", f=f)


def _clip_statistics(norm, x, f):
    return rearrange(norm(rearrange(x, "(b f) c h w -> b c f h w", f=f)), "b c f h w -> (b h w) f c")


def _pixel_statistics(norm, x, f):
    return rearrange(norm(rearrange(x, "n c h w -> (n h w) c")), "(b f h w) c -> (b h w) f c", f=f, h=x.shape[2], w=x.shape[3])


HISTORIES_MISTAKES = {
    "the statistics are still those of the whole clip": _clip_statistics,
    "each place is normalised alone: nothing leaks, but the frame's mean over its places is part of the layer": _pixel_statistics,
    "frames were folded as (f b); they come as (b f)": lambda norm, x, f: rearrange(norm(x), "(f b) c h w -> (b h w) f c", f=f),
    "rows and columns are exchanged in (b h w)": lambda norm, x, f: rearrange(norm(x), "(b f) c h w -> (b w h) f c", f=f),
    "the tokens of a sequence are the places of a frame; they are the frames of a place": lambda norm, x, f: rearrange(
        norm(x), "n c h w -> n (h w) c"),
    "the norm is missing": lambda norm, x, f: rearrange(x, "(b f) c h w -> (b h w) f c", f=f),
}  # fmt: skip


@exercise("16.B", name="histories", solution=histories, minutes=8, difficulty=2, importance=5)
def check_histories(student):
    """Norms of one and of several groups, several clips, one frame, frames that are not square; cut short it stays the same."""
    for groups, b, f, h, w in ((1, 2, 3, 2, 5), (2, 1, 4, 3, 2), (3, 3, 2, 1, 4), (1, 3, 3, 2, 1), (6, 2, 1, 4, 3)):
        norm = nn.GroupNorm(groups, 6, eps=1e-3).double()
        with torch.no_grad():
            norm.weight.copy_(normal(6, seed=7)), norm.bias.copy_(normal(6, seed=8))
        x = (normal(b * f, 6, h, w, seed=f) * torch.linspace(1, 3, b * f)[:, None, None, None]).requires_grad_()
        found = called(lambda y: student(norm, y, f), x, what="the histories")
        wrong = {cause: (lambda one=one: one(norm, x, f)) for cause, one in HISTORIES_MISTAKES.items()}
        recognised(f"the histories of {counted(b, 'clip')} of {counted(f, 'frame')}", found, histories(norm, x, f), wrong)
        size, leaves, found_again = normal(*found.shape, seed=9), (x, norm.weight, norm.bias), student(norm, x, f)
        _as_theirs("the histories", *(_gradients((one * size).sum(), *leaves) for one in (found_again, histories(norm, x, f))))
    return "one clip and several, one group and several: what it says of a frame depends on that frame alone"
