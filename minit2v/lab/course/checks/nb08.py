"""Checks of notebook 08, Teaching it time: TemporalConv, TemporalTransformer, the whole block, and the fold."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from minit2v.lab.course.comparing import (
    built,
    called,
    halving_dropout,
    normal,
    random_weights,
    recognised,
    same_layer,
)
from minit2v.lab.course.exercises import Failed, close, counted, exercise
from minit2v.lab.course.questions import Question
from minit2v.networks import blocks
from minit2v.presets import UNetConfig, get

_UNET = "tests/test_unet.py::"
EQUATIONS = {
    "8.1": ("one stage of the temporal convolution", _UNET + "test_temporal_convolutions_are_the_3d_ones_of_the_paper"),
    "8.2": ("statistics of the whole clip", _UNET + "test_equals_diffusers"),
    "8.3": ("a pixel's frames as one sequence", _UNET + "test_time_is_seen_only_through_temporal_convolutions"),
}

QUIZ = [
    (
        "You silence the temporal convolutions of the paper's UNet and reverse the frames of its input. Its output is",
        ["reversed too, and otherwise the same", "the same as before", "another clip altogether"],
        0,
        "Attention without positions does not know the order of what it attends to. Only the convolutions do.",
    ),
    (
        "A port normalises each frame on its own in the temporal layers. Why does nobody notice at once?",
        ["It raises an error", "Shapes and weights fit, and single frames look right", "It is only slower"],
        1,
        "GroupNorm has two numbers for each channel, whatever it averages over. Only a comparison of numbers shows it.",
    ),
    (
        "Temporal layers with zeroed last layers are put into a trained image model. What are its first clips?",
        ["Noise", "Frames of the image model that know nothing of one another", "One picture that stands still"],
        1,
        "x + 0 in every temporal layer: at first the video model is the image model, frame by frame.",
    ),
]


def share_along_time():
    """Parameters of the temporal layers of the released UNet, percent, computed without its weights."""
    from minit2v.networks.unet import UNet

    with torch.device("meta"):
        unet = UNet(get("modelscope-1.7b").unet)
    total = sum(p.numel() for p in unet.parameters())
    return round(100 * sum(p.numel() for p in unet.temporal_parameters()) / total, 1)


PREDICTIONS = {
    "8.a": Question("How much of the released model knows that time exists? The parameters of its temporal layers, in "
                    "percent of the UNet's.", share_along_time, tolerance=5.0),
    "8.b": Question("Four 3-tap convolutions along time, one after the other, and nothing else: how many frames can reach "
                    "one frame of the result?", 9),
    "8.c": Question("A clip has 16 frames of 32 x 32 cells. Full attention compares every cell of every frame with every "
                    "other. How many times as many scores does it compute as attention along time?", 1024),
}  # fmt: skip


class TemporalConv(nn.Module):
    """Four 3-tap convolutions along time, a residual branch that starts at zero: x ((b f), c, h, w), f -> same."""

    def __init__(self, c, groups, dropout):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(groups, c) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(c, c, (3, 1), padding=(1, 0)) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        blocks.zeroed(self.convs[-1])

    def forward(self, x, f):
        h = rearrange(x, "(b f) c h w -> b c f (h w)", f=f)
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs)):
            h = F.silu(norm(h))
            h = conv(self.dropout(h) if i else h)
        return x + rearrange(h, "b c f (h w) -> (b f) c h w", h=x.shape[2])


def _conv(layer, x, f, *, fold="(b f)", per_frame=False, stages=4, order="norm", plus=True, activation=F.silu):
    """The library's temporal convolution with one thing wrong."""
    h = rearrange(x, f"{fold} c h w -> b c f (h w)", f=f)
    for norm, conv in list(zip(layer.norms, layer.convs))[:stages]:
        if order == "conv":
            h = activation(norm(conv(h)))
            continue
        own = rearrange(norm(rearrange(h, "b c f s -> (b f) c 1 s")), "(b f) c 1 s -> b c f s", f=f)
        h = conv(activation(own if per_frame else norm(h)))
    h = rearrange(h, f"b c f (h w) -> {fold} c h w", h=x.shape[2])
    return x + h if plus else h


def _across_width(layer, x, f):
    """The convolutions slide over the pixels of a frame, not over frames."""
    h = rearrange(x, "(b f) c h w -> b c (h w) f", f=f)
    for norm, conv in zip(layer.norms, layer.convs):
        h = conv(F.silu(norm(h)))
    return x + rearrange(h, "b c (h w) f -> (b f) c h w", h=x.shape[2])


CONV_MISTAKES = {
    "each frame was normalised on its own; the statistics are those of the clip, so the norm needs b c f (h w)":
        lambda b, x, f: _conv(b, x, f, per_frame=True),
    "x is not added": lambda b, x, f: _conv(b, x, f, plus=False),
    "frames were folded as (f b); they come as (b f), a clip's frames beside one another":
        lambda b, x, f: _conv(b, x, f, fold="(f b)"),
    "the order of a stage is norm, SiLU, convolution": lambda b, x, f: _conv(b, x, f, order="conv"),
    "SiLU is missing": lambda b, x, f: _conv(b, x, f, activation=lambda h: h),
    "ReLU in the place of SiLU": lambda b, x, f: _conv(b, x, f, activation=F.relu),
    "the last stage is missing": lambda b, x, f: _conv(b, x, f, stages=3),
    "the kernel slides over pixels; frames belong into the third axis, b c f (h w)": _across_width,
}  # fmt: skip


@exercise("8.1", name="TemporalConv", solution=TemporalConv, minutes=20, difficulty=3, importance=5)
def check_temporal_conv(student):
    """Two clips of five frames that are not square, one frame, more frames than the kernel reaches."""
    cases = [((6, 3, 0.2), [(normal(10, 6, 2, 7), 5), (normal(3, 6, 4, 3, seed=1), 1)]),
             ((4, 2, 0.4), [(normal(22, 4, 3, 1, seed=2), 11), (normal(6, 4, 1, 5, seed=3), 2)])]  # fmt: skip
    same_layer(student, blocks.TemporalConv, cases, CONV_MISTAKES, zero=["convs.3."], settings=["groups", "dropout"])
    return "clips of 1, 2, 5 and 11 frames: the library's outputs and gradients; a new layer is the identity"


class TemporalTransformer(nn.Module):
    """Each pixel attends to itself along time: x ((b f), c, h, w), f -> same."""

    def __init__(self, c, head_dim, groups, inner=None):
        super().__init__()
        inner = inner or c
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.proj_in = nn.Linear(c, inner)
        self.block = blocks.TransformerBlock(inner, head_dim, None)
        self.proj_out = blocks.zeroed(nn.Linear(inner, c))

    def forward(self, x, f):
        h = self.norm(rearrange(x, "(b f) c h w -> b c f (h w)", f=f))
        b = h.shape[0]
        h = self.proj_out(self.block(self.proj_in(rearrange(h, "b c f s -> (b s) f c"))))
        return x + rearrange(h, "(b h w) f c -> (b f) c h w", b=b, h=x.shape[2])


def _attend_in_time(layer, x, f, *, fold="(b f)", per_frame=False, tokens="time", plus=True, eps=None):
    """The library's temporal transformer with one thing wrong."""
    norm, h = layer.norm, rearrange(x, f"{fold} c h w -> b c f (h w)", f=f)
    b, width = h.shape[0], x.shape[3]
    normed = F.group_norm(h, norm.num_groups, norm.weight, norm.bias, norm.eps if eps is None else eps)
    own = rearrange(norm(rearrange(h, "b c f s -> (b f) c 1 s")), "(b f) c 1 s -> b c f s", f=f)
    h = own if per_frame else normed
    pattern = {"time": "(b s) f c", "space": "(b f) s c", "all": "b (f s) c"}[tokens]
    sizes = {"time": {"b": b}, "space": {"b": b}, "all": {"f": f}}[tokens]
    h = layer.proj_out(layer.block(layer.proj_in(rearrange(h, f"b c f s -> {pattern}"))))
    h = rearrange(rearrange(h, f"{pattern} -> b c f s", **sizes), f"b c f (h w) -> {fold} c h w", w=width)
    return x + h if plus else h


TRANSFORMER_MISTAKES = {
    "each frame was normalised on its own; the statistics are those of the clip":
        lambda b, x, f: _attend_in_time(b, x, f, per_frame=True),
    "x is not added": lambda b, x, f: _attend_in_time(b, x, f, plus=False),
    "frames were folded as (f b); they come as (b f)": lambda b, x, f: _attend_in_time(b, x, f, fold="(f b)"),
    "the pixels of a frame attend to one another; a sequence is one pixel in all frames, (b s) f c":
        lambda b, x, f: _attend_in_time(b, x, f, tokens="space"),
    "all pixels of all frames are one sequence; it is one for each pixel, (b s) f c":
        lambda b, x, f: _attend_in_time(b, x, f, tokens="all"),
}  # fmt: skip


EPS = 1e-6  # of the norm; a GroupNorm that is not told has 1e-5


@exercise("8.2", name="TemporalTransformer", solution=TemporalTransformer, minutes=18, difficulty=4, importance=5)
def check_temporal_transformer(student):
    """Of its own width and of another inside; several clips, one frame; positions must not come in."""
    cases = [((6, 3, 3), [(normal(8, 6, 2, 5), 4), (normal(2, 6, 3, 2, seed=1), 1)]),
             ((4, 2, 2, 10), [(normal(15, 4, 1, 3, seed=2), 5), (normal(3, 4, 3, 2, seed=3), 3)]),
             ((8, 2, 2), [(normal(4, 8, 2, 3, seed=4), 2)])]  # fmt: skip
    try:
        same_layer(student, blocks.TemporalTransformer, cases, TRANSFORMER_MISTAKES, zero=["proj_out."],
                   settings=["head_dim", "groups", "inner"])
    except Failed as failed:
        eps = getattr(getattr(built(student, cases[0][0]), "norm", None), "eps", EPS)
        if failed.cause or eps == EPS:
            raise
        raise Failed(failed.expected, failed.found, f"the norm has eps={eps:g}; the table has eps={EPS:g}") from None
    _knows_no_order(student)
    return "the library's outputs and gradients; it does not know the order of frames, as it should not"


def _knows_no_order(student):
    layer = built(student, (4, 2, 2)).double()
    layer.load_state_dict(random_weights(layer, 3))
    x, order = normal(5, 4, 2, 3, seed=4), torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        close("the output for shuffled frames, put back in order", called(layer, x[order], 5), layer(x, 5)[order], 1e-8,
              "something tells the frames apart: positions, a mask or a convolution")


class SpatioTemporalBlock(nn.Module):
    """Residual, temporal convolution, and with attention both transformers: see `networks.blocks`."""

    def __init__(self, c_in, c_out, attention, config):
        super().__init__()
        groups, head_dim = config.norm_groups, config.head_dim
        self.res = blocks.ResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
        self.temporal_conv = blocks.TemporalConv(c_out, groups, config.dropout)
        self.spatial = self.temporal = None
        if attention:
            self.spatial = blocks.SpatialTransformer(c_out, head_dim, config.context_dim, groups)
            self.temporal = blocks.TemporalTransformer(c_out, head_dim, groups)

    def temporal_layers(self):
        return [self.temporal_conv] + ([self.temporal] if self.temporal is not None else [])

    def forward(self, x, emb, context, f, temporal=True):
        x = self.res(x, emb)
        if temporal:
            x = self.temporal_conv(x, f)
        if self.spatial is not None:
            x = self.spatial(x, context)
            if temporal:
                x = self.temporal(x, f)
        return x


def _block(layer, x, emb, context, f, temporal=True, *, order="rcsT", always=""):
    """The library's block with its layers in another order, one of them left out, or some that run `always`."""
    steps = {"r": lambda h: layer.res(h, emb), "c": lambda h: layer.temporal_conv(h, f),
             "s": lambda h: layer.spatial(h, context), "T": lambda h: layer.temporal(h, f)}  # fmt: skip
    for name in order:
        if name in "sT" and layer.spatial is None or name in "cT" and not (temporal or name in always):
            continue
        x = steps[name](x)
    return x


BLOCK_MISTAKES = {
    "the temporal convolution comes before the spatial transformer": lambda b, *x: _block(b, *x, order="rscT"),
    "spatial attention comes before temporal attention": lambda b, *x: _block(b, *x, order="rcTs"),
    "the temporal convolution is missing": lambda b, *x: _block(b, *x, order="rsT"),
    "the temporal transformer is missing": lambda b, *x: _block(b, *x, order="rcs"),
    "the spatial transformer is missing": lambda b, *x: _block(b, *x, order="rcT"),
    "with temporal=False no layer along time runs": lambda b, *x: _block(b, *x, always="cT"),
    "with temporal=False the temporal transformer does not run either": lambda b, *x: _block(b, *x, always="T"),
    "with temporal=False the temporal convolution does not run either": lambda b, *x: _block(b, *x, always="c"),
}


@exercise("8.3", name="SpatioTemporalBlock", solution=SpatioTemporalBlock, minutes=12, difficulty=3, importance=5)
def check_spatio_temporal_block(student):
    """With and without attention, with and without time, and which layers it calls temporal."""
    for attention, c_in, f, config in (
        (True, 4, 3, UNetConfig(channels=(6, 4), norm_groups=2, head_dim=4, context_dim=5, dropout=0.25)),
        (False, 4, 3, UNetConfig(channels=(3,), norm_groups=4, head_dim=2, context_dim=5, dropout=0.0, scale_shift=True)),
        (True, 8, 2, UNetConfig(channels=(5, 8), norm_groups=4, head_dim=2, context_dim=7, dropout=0.4, scale_shift=True)),
    ):
        arguments, e = (c_in, 8, attention, config), 4 * config.channels[0]
        inputs = normal(6, c_in, 3, 5), normal(6, e, seed=1), normal(6 // f, 7, config.context_dim, seed=2), f
        same_layer(student, blocks.SpatioTemporalBlock, [(arguments, [inputs])], BLOCK_MISTAKES,
                   zero=["res.conv2.", "temporal_conv.convs.3.", "spatial.proj_out.", "temporal.proj_out."],
                   settings=["attention", "scale_shift"])
        _without_time(student, arguments, inputs)
        _names_its_temporal_layers(built(student, arguments), attention)
    return "with and without attention, as a video and as an image model, it is the library's block"


def _without_time(student, arguments, inputs):
    theirs, mine = blocks.SpatioTemporalBlock(*arguments), built(student, arguments)
    state = random_weights(theirs, 5)
    for layer in (theirs, mine):
        layer.double().eval().load_state_dict(state)
    with halving_dropout(), torch.no_grad():
        found, expected = called(mine, *inputs, False), theirs(*inputs, False)
        wrong = {cause: (lambda one=one: one(theirs, *inputs, False)) for cause, one in BLOCK_MISTAKES.items()}
        recognised("the output with temporal=False", found, expected, wrong)


def _names_its_temporal_layers(layer, attention):
    found = list(layer.temporal_layers())
    wanted = [layer.temporal_conv, *([layer.temporal] if attention else [])]
    if [id(one) for one in found] != [id(one) for one in wanted]:
        kinds = ", ".join(type(one).__name__ for one in found) or "none"
        raise Failed(f"temporal_layers() to give {', '.join(type(one).__name__ for one in wanted)}", kinds,
                     "" if attention else "without attention there is no temporal transformer: leave None out")


def to_clips(x, f):
    """Frames ((b f), c, h, w), those of a clip beside one another -> clips (b, c, f, h, w)."""
    return rearrange(x, "(b f) c h w -> b c f h w", f=f)


@exercise("8.B", name="to_clips", solution=to_clips, minutes=6, difficulty=1, importance=5)
def check_to_clips(student):
    """One clip, where the wrong fold is right, then two and three, and as many clips as frames."""
    for b, f, *size in ((1, 4, 5, 2, 4), (2, 3, 3, 4, 6), (3, 2, 6, 1, 3), (3, 3, 4, 7, 2), (2, 1, 2, 3, 5)):
        x = normal(b * f, *size, seed=b + f)
        wrong = {
            "the frames are still folded as (f b)": lambda: rearrange(x, "(f b) c h w -> b c f h w", f=f),
            "reshape alone reads c where f should be: move the axis, with transpose or rearrange":
                lambda: x.reshape(b, size[0], f, *size[1:]),
            "c comes before f: b c f h w": lambda: x.reshape(b, f, *size),
        }  # fmt: skip
        found = called(lambda y: student(y, f), x)
        recognised(f"{counted(b, 'clip')} of {f} frames", found, rearrange(x, "(b f) c h w -> b c f h w", f=f), wrong)
    return "one clip, several, and as many clips as frames"
