"""The checks of the layers that readers write: right ones pass however they are written, wrong ones do not."""

import pytest
import torch
import torch.nn.functional as F
from altered_layers import changed, renamed, with_forward
from einops import rearrange
from torch import nn

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb07, nb08, nb16, nb17, nb18
from minit2v.lab.course.comparing import called, halving_dropout, normal
from minit2v.networks import blocks

LAYERS = {
    "7.2": (nb07.ResBlock, nb07.RES_MISTAKES),
    "7.3": (nb07.Attention, nb07.ATTENTION_MISTAKES),
    "8.1": (nb08.TemporalConv, nb08.CONV_MISTAKES),
    "8.2": (nb08.TemporalTransformer, nb08.TRANSFORMER_MISTAKES),
    "8.3": (nb08.SpatioTemporalBlock, nb08.BLOCK_MISTAKES),
}
KNOWN = [(number, cause) for number, (_, mistakes) in LAYERS.items() for cause in mistakes]


@pytest.mark.parametrize("number, cause", KNOWN, ids=[f"{number}: {cause[:50]}" for number, cause in KNOWN])
def test_a_known_mistake_fails_and_is_named(number, cause):
    solution, mistakes = LAYERS[number]
    outcome = exercises.run(number, with_forward(solution, mistakes[cause]))
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


def in_place(self, x, *rest):
    x += 1
    return type(self).__mro__[1].forward(self, x - 1, *rest)


def detached(self, x, *rest):
    return type(self).__mro__[1].forward(self, x, *rest).detach()


def half_detached(self, x, *rest):
    """Right numbers; the branch learns nothing."""
    whole = type(self).__mro__[1].forward(self, x, *rest)
    return x + (whole - x).detach() if whole.shape == x.shape else whole.detach()


def in_float32(self, x, *rest):
    return type(self).__mro__[1].forward(self, x, *rest).float().double()


def always_double(self, x, *rest):
    return type(self).__mro__[1].forward(self, x, *rest).double()


def nothing(self, *inputs):
    return None


def its_input(self, x, *rest):
    return x


def plus_a_little(self, x, *rest):
    return type(self).__mro__[1].forward(self, x, *rest) * (1 + 1e-6)


def rounded(self, x, *rest):
    return (type(self).__mro__[1].forward(self, x, *rest) * 1e4).round() / 1e4


def negated(self, x, *rest):
    return -type(self).__mro__[1].forward(self, x, *rest)


def first_repeated(self, x, *rest):
    whole = type(self).__mro__[1].forward(self, x, *rest)
    return whole[:1].expand_as(whole)


def flipped(self, x, *rest):
    return type(self).__mro__[1].forward(self, x, *rest).flip(-1)


def right_in_training_only(self, x, *rest):
    whole = type(self).__mro__[1].forward(self, x, *rest)
    return whole if self.training else whole + 1e-3


def right_in_eval_only(self, x, *rest):
    whole = type(self).__mro__[1].forward(self, x, *rest)
    return whole + 1e-3 if self.training else whole


SABOTAGED = [in_place, detached, half_detached, in_float32, always_double, nothing, its_input, plus_a_little, rounded,
             negated, first_repeated, flipped, right_in_training_only, right_in_eval_only]


@pytest.mark.parametrize("number", LAYERS)
@pytest.mark.parametrize("forward", SABOTAGED, ids=lambda one: one.__name__)
def test_sabotaged_layers_fail(number, forward):
    assert not exercises.run(number, with_forward(LAYERS[number][0], forward)).passed


def no_dropout(layer):
    layer.dropout = nn.Dropout(0.0)


CHANGES = {
    ("7.2", "the second convolution starts as random numbers"): lambda b: b.conv2.reset_parameters(),
    ("7.2", "only its weight starts as zero"): lambda b: nn.init.ones_(b.conv2.bias),
    ("7.2", "the first convolution starts as zero too"): lambda b: blocks.zeroed(b.conv1),
    ("7.2", "no padding"): lambda b: setattr(b.conv1, "padding", (0, 0)),
    ("7.2", "one group"): lambda b: setattr(b.norm1, "num_groups", 1),
    ("7.2", "another eps"): lambda b: setattr(b.norm2, "eps", 1e-6),
    ("7.2", "another name"): lambda b: renamed(b, "embedding", "emb"),
    ("7.2", "a weight too many"): lambda b: setattr(b, "more", nn.Linear(2, 2)),
    ("7.2", "dropout is forgotten"): no_dropout,
    ("7.2", "always a 1 x 1 convolution"):
        lambda b: setattr(b, "skip", nn.Conv2d(b.conv1.in_channels, b.conv1.out_channels, 1)),
    ("7.3", "a bias in the queries"): lambda b: setattr(b, "to_q", nn.Linear(*b.to_q.weight.shape)),
    ("7.3", "no bias at the end"): lambda b: setattr(b, "to_out", nn.Linear(*b.to_out.weight.shape, bias=False)),
    ("7.3", "heads and their width are exchanged"):
        lambda b: setattr(b, "heads", b.to_q.weight.shape[0] // b.heads),
    ("7.3", "another name"): lambda b: renamed(b, "to_out", "out"),
    ("8.1", "the last stage starts as random numbers"): lambda b: b.convs[3].reset_parameters(),
    ("8.1", "all stages start as zero"): lambda b: [blocks.zeroed(conv) for conv in b.convs],
    ("8.1", "three stages"): lambda b: (b.convs.__delitem__(3), b.norms.__delitem__(3)),
    ("8.1", "dropout is forgotten"): no_dropout,
    ("8.1", "zeros at one end only, so that no frame sees the next"):
        lambda b: [conv.register_forward_pre_hook(lambda c, x: (F.pad(x[0], (0, 0, 1, 0))[:, :, :-1],)) for conv in b.convs],
    ("8.1", "the ends are repeated"): lambda b: [setattr(conv, "padding_mode", "replicate") or setattr(
        conv, "_reversed_padding_repeated_twice", [0, 0, 1, 1]) for conv in b.convs],
    ("8.2", "eps as in the residual block"): lambda b: setattr(b.norm, "eps", 1e-5),
    ("8.2", "the last layer starts as random numbers"): lambda b: b.proj_out.reset_parameters(),
    ("8.2", "another name"): lambda b: renamed(b, "proj_in", "enter"),
    ("8.2", "a causal mask"): lambda b: [setattr(one, "forward", causal(one)) for one in (b.block.attn1, b.block.attn2)],
    ("8.3", "None among its temporal layers"):
        lambda b: setattr(b, "temporal_layers", lambda: [b.temporal_conv, b.temporal]),
    ("8.3", "the residual block counts as temporal"): lambda b: setattr(b, "temporal_layers", lambda: [b.res]),
}  # fmt: skip


def causal(layer):
    def forward(x, context=None):
        q, k, v = (rearrange(y, "n s (k d) -> n k s d", k=layer.heads)
                   for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))  # fmt: skip
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return layer.to_out(rearrange(out, "n k s d -> n s (k d)"))

    return forward


@pytest.mark.parametrize("number, name", CHANGES, ids=[" ".join(key) for key in CHANGES])
def test_wrong_constructors_fail(number, name):
    outcome = exercises.run(number, changed(LAYERS[number][0], CHANGES[number, name]))
    assert not outcome.passed, name


def drops_first(self, x, f):
    """Dropout in every stage, the first too."""
    h = rearrange(x, "(b f) c h w -> b c f (h w)", f=f)
    for norm, conv in zip(self.norms, self.convs):
        h = conv(self.dropout(F.silu(norm(h))))
    return x + rearrange(h, "b c f (h w) -> (b f) c h w", h=x.shape[2])


def keys_as_values(self, x, context=None):
    return nb07.Attention.forward(with_weights(self, to_v=self.to_k), x, context)


def first_word_only(self, x, context=None):
    return nb07.Attention.forward(self, x, (x if context is None else context)[:, :1])


def first_context_only(self, x, context=None):
    return nb07.Attention.forward(self, x, None if context is None else context[:1].expand(len(context), -1, -1))


def with_weights(layer, **others):
    """A layer with some of its layers exchanged."""
    parts = {name: getattr(layer, name) for name in ("to_q", "to_k", "to_v", "to_out")} | others
    return type("Mixed", (), parts | {"heads": layer.heads})()


@pytest.mark.parametrize("forward", [keys_as_values, first_word_only, first_context_only])
def test_attention_to_something_else_fails(forward):
    assert not exercises.run("7.3", with_forward(nb07.Attention, forward)).passed


def test_the_place_of_dropout_is_checked():
    outcome = exercises.run("8.1", with_forward(nb08.TemporalConv, drops_first))
    assert not outcome.passed and "dropout" in outcome.message


def fused(self, x, context=None):
    """Attention by PyTorch's kernel, frames of a clip side by side."""
    shape, context = x.shape, x if context is None else context
    q = self.to_q(x.reshape(len(context), -1, shape[-1]))
    q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, self.to_k(context), self.to_v(context)))
    out = F.scaled_dot_product_attention(q, k, v)
    return self.to_out(out.transpose(1, 2).flatten(2)).reshape(shape)


def in_three_dimensions(self, x, f):
    """The paper's own form: kernels (3, 1, 1) over (f, h, w); dropout as a function."""
    h = x.unflatten(0, (-1, f)).transpose(1, 2)
    for i, (norm, conv) in enumerate(zip(self.norms, self.convs)):
        h = F.silu(norm(h))
        h = F.dropout(h, self.dropout.p, self.training) if i else h
        h = F.conv3d(h, conv.weight[..., None], conv.bias, padding=(1, 0, 0))
    return x + h.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("number, forward", [("7.3", fused), ("8.1", in_three_dimensions)])
def test_other_ways_to_write_it_pass(number, forward):
    outcome = exercises.run(number, with_forward(LAYERS[number][0], forward))
    assert outcome.passed, outcome.message


@pytest.mark.parametrize("number", LAYERS)
def test_the_library_s_own_layer_passes(number):
    outcome = exercises.run(number, getattr(blocks, LAYERS[number][0].__name__))
    assert outcome.passed, outcome.message


def interleaved(position, width):
    return nb07.sinusoid(position, width).unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


SINUSOIDS = {
    "sines first": lambda p, w: nb07.sinusoid(p, w).roll(w // 2, -1),
    "alternate": interleaved,
    "in float64": lambda p, w: nb07.sinusoid(p, w).double(),
    "in half precision": lambda p, w: nb07.sinusoid(p.bfloat16(), w),
    "of whole numbers only": lambda p, w: nb07.sinusoid(p.long(), w),
    "of one axis only": lambda p, w: nb07.sinusoid(p.flatten(), w),
    "of base 1000": lambda p, w: nb07.sinusoid(p * 1.01, w),
    "a width too many": lambda p, w: nb07.sinusoid(p, w + 2),
    "a constant width": lambda p, w: nb07.sinusoid(p, 8),
    "changes its input": lambda p, w: nb07.sinusoid(p.mul_(1), w) + 0 * p.add_(1)[..., None],
    "one step too far": lambda p, w: nb07.sinusoid(p + 1, w),
    "backwards in time": lambda p, w: nb07.sinusoid(-p, w),
    "in degrees": lambda p, w: nb07.sinusoid(p * torch.pi / 180, w),
    "the slowest first": lambda p, w: nb07.sinusoid(p, w).unflatten(-1, (2, -1)).flip(-1).flatten(-2),
    "the new axis first": lambda p, w: nb07.sinusoid(p, w).movedim(-1, 0),
    "frequencies in half precision": lambda p, w: nb07.sinusoid(p * (1 + 2e-3), w),
    "cosines only": lambda p, w: nb07.sinusoid(p, w)[..., : w // 2].repeat_interleave(2, -1),
}  # fmt: skip
WAYS_UP = {
    "skip first": lambda x, skips, level, *r: nb07.go_up(x, [s for s in skips], Flipped(level), *r),
    "oldest skip first": lambda x, skips, level, *r: nb07.go_up(x, skips[::-1], level, *r),
    "pops the oldest": lambda x, skips, level, *r: oldest_first(x, skips, level, *r),
    "leaves the skips in the list": lambda x, skips, level, *r: nb07.go_up(x, list(skips), level, *r),
    "no resampling": lambda x, skips, level, *r: up_only(x, skips, level, *r),
    "returns nothing": lambda *r: None,
}
FOLDS = {
    "(f b)": lambda x, f: rearrange(x, "(f b) c h w -> b c f h w", f=f),
    "reshape": lambda x, f: x.reshape(-1, x.shape[1], f, *x.shape[2:]),
    "b f c h w": lambda x, f: x.unflatten(0, (-1, f)),
    "one clip only": lambda x, f: rearrange(x, "f c h w -> 1 c f h w"),
    "w and h": lambda x, f: rearrange(x, "(b f) c h w -> b c f w h", f=f),
    "f and b exchanged": lambda x, f: rearrange(x, "(b f) c h w -> f c b h w", f=f),
    "transposed twice": lambda x, f: rearrange(x, "(b f) c h w -> b c f h w", b=f),
}


class Flipped:
    """A level whose blocks are handed the skip before x."""

    def __init__(self, level):
        self.resample = level.resample
        self.blocks = [lambda x, *r, block=block: block(x.roll(block.c, 1), *r) for block in level.blocks]


def up_only(x, skips, level, emb, context, f):
    for block in level.blocks:
        x = block(torch.cat([x, skips.pop()], dim=1), emb, context, f)
    return x


def oldest_first(x, skips, level, emb, context, f):
    for block in level.blocks:
        x = block(torch.cat([x, skips.pop(0)], dim=1), emb, context, f)
    return x if level.resample is None else level.resample(x, skips[0].shape[-2:])


def test_what_an_oldest_skip_and_a_forgotten_eps_are_told():
    assert exercises.run("7.B", oldest_first).message.endswith(f"Likely cause: {nb07.USED_FIRST}")
    default = changed(nb08.TemporalTransformer, CHANGES["8.2", "eps as in the residual block"])
    assert "eps=1e-05; the table has eps=1e-06" in exercises.run("8.2", default).message


@pytest.mark.parametrize("number, name, wrong", [
    (number, name, wrong) for number, known in (("7.1", SINUSOIDS), ("7.B", WAYS_UP), ("8.B", FOLDS))
    for name, wrong in known.items()
])  # fmt: skip
def test_wrong_functions_fail(number, name, wrong):
    assert not exercises.run(number, wrong).passed, name


def test_called_tells_of_a_changed_input_and_of_no_result():
    with pytest.raises(exercises.Failed, match=r"the input of shape \(3, 1\) as it was"):
        called(lambda x, y: y.mul_(2), normal(2), normal(3, 1))
    with pytest.raises(exercises.Failed, match="as a tensor, found NoneType"):
        called(lambda x: None, normal(2))
    x = normal(2)
    assert torch.equal(called(lambda y: 2 * y, x), 2 * x)


GIVEN = {
    "7.2": (nb07.ResBlock, "x (3, 6, 5, 7), emb (3, 5) in a layer with c_in=6, c_out=6, scale_shift=False"),
    "7.3": (nb07.Attention, "x (3, 5, 6) in a layer with d=6, head_dim=3, context_dim=None"),
    "8.1": (nb08.TemporalConv, "x (10, 6, 2, 7), f=5 in a layer with groups=3, dropout=0.2"),
    "8.2": (nb08.TemporalTransformer, "x (8, 6, 2, 5), f=4 in a layer with head_dim=3, groups=3, inner=None"),
    "8.3": (nb08.SpatioTemporalBlock, "x (6, 4, 3, 5), emb (6, 24), context (2, 7, 5), f=3 "
                                      "in a layer with attention=True, scale_shift=False"),
    "16.1": (nb16.FrameAdaptor, "x (8, 6, 2, 7), f=4 in a layer with frames=5"),
    "16.3": (nb16.MagicVideoBlock, "x (6, 4, 3, 5), emb (6, 17), context (2, 7, 5), f=3 "
                                   "in a layer with attention=True, scale_shift=False"),
    "17.3": (nb17.AlongTime, "x (8, 6, 2, 5), f=4 in a layer with head_dim=3, groups=2"),
    "18.1": (nb18.PseudoResBlock, "x (10, 4, 2, 5), emb (10, 8), f=5 in a layer with c_in=4, c_out=6, scale_shift=True"),
}  # fmt: skip


@pytest.mark.parametrize("number", GIVEN)
def test_a_message_names_inputs_and_settings_as_the_exercise_does(number):
    solution, given = GIVEN[number]
    message = exercises.run(number, with_forward(solution, plus_a_little)).message
    assert f" of the output for {given}, found " in message, message
    assert "Likely cause" not in message, "a mistake that does not show in this case is no cause"


def test_a_gradient_and_a_weight_are_told_by_their_names():
    deaf = with_forward(nb07.ResBlock, lambda self, x, emb: nb07.ResBlock.forward(self, x, emb.detach()))
    assert "expected the library's gradient of emb, found none" in exercises.run("7.2", deaf).message
    other = changed(nb07.Attention, CHANGES["7.3", "another name"])
    assert "found none of that name, but out.weight, out.bias." in exercises.run("7.3", other).message


def test_dropout_halves_within_the_block_only():
    layer, x = nn.Dropout(0.25), torch.ones(4)
    with halving_dropout():
        assert torch.equal(layer(x), 0.75 * x) and torch.equal(layer.eval()(x), x)
    assert layer.train()(torch.ones(1000)).unique().tolist() == [0.0, pytest.approx(4 / 3)]
