"""The exercises of notebook 16: right solutions pass however they are written, wrong ones do not; and what it claims of
MagicVideo's layers."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from altered_layers import changed, renamed, with_forward
from einops import rearrange
from torch import nn

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb16
from minit2v.lab.course.comparing import normal
from minit2v.networks.unet import ImageUNet, split_numbers, zero_layer
from minit2v.systems import find_preset, magicvideo
from minit2v.systems.magicvideo import MagicVideo, MagicVideoConfig, MagicVideoUNet
from minit2v.systems.video_decoder import DirectedAttention

LAYERS = {"16.1": (nb16.FrameAdaptor, nb16.ADAPTOR_MISTAKES), "16.3": (nb16.MagicVideoBlock, nb16.BLOCK_MISTAKES)}
SIZE = dict(channels=(8, 16), attention=(False, True), layers_per_level=1, head_dim=4, context_dim=8, norm_groups=4, dropout=0.0,
            first_temporal_heads=0)  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def after(change):
    """A forward that changes what the right one gives: (result, x) -> result."""
    return lambda self, x, *rest: change(type(self).__mro__[1].forward(self, x, *rest), x)


SABOTAGED = {
    "x is changed": lambda self, x, *rest: type(self).__mro__[1].forward(self, x.add_(1e-6), *rest),
    "detached": after(lambda out, x: out.detach()),
    "in float32": after(lambda out, x: out.float().double()),
    "always double": after(lambda out, x: out.double()),
    "nothing": after(lambda out, x: None),
    "its input": after(lambda out, x: x),
    "a little too large": after(lambda out, x: out * (1 + 1e-6)),
    "negated": after(lambda out, x: -out),
    "the first frame for all": after(lambda out, x: out[:1].expand_as(out)),
    "mirrored": after(lambda out, x: out.flip(-1)),
    "reversed in time": after(lambda out, x: out.flip(0)),
}


@pytest.mark.parametrize("number", LAYERS)
@pytest.mark.parametrize("name", SABOTAGED)
def test_sabotaged_layers_fail(number, name):
    outcome = exercises.run(number, with_forward(LAYERS[number][0], SABOTAGED[name]))
    assert not outcome.passed, outcome.message


CHANGES = {
    ("16.1", "scale begins at 0"): lambda a: nn.init.zeros_(a.scale),
    ("16.1", "scale begins at random"): lambda a: nn.init.normal_(a.scale),
    ("16.1", "shift begins at random"): lambda a: nn.init.normal_(a.shift),
    ("16.1", "tables of (c, frames)"): lambda a: setattr(a, "scale", nn.Parameter(a.scale.T.clone())),
    ("16.1", "one number for all channels"): lambda a: setattr(a, "shift", nn.Parameter(torch.zeros(len(a.shift), 1))),
    ("16.1", "other names"): lambda a: renamed(a, "scale", "weight"),
    ("16.1", "a buffer, which does not learn"): lambda a: (table := a.scale.detach(), delattr(a, "scale"),
                                                           a.register_buffer("scale", table)),
    ("16.3", "an adaptor of the wrong width"): lambda b: setattr(b, "adaptor", magicvideo.FrameAdaptor(
        b.adaptor.scale.shape[1] + 1, len(b.adaptor.scale))),
    ("16.3", "an adaptor of 16 frames always"): lambda b: setattr(b, "adaptor", magicvideo.FrameAdaptor(
        b.adaptor.scale.shape[1], 16)),
    ("16.3", "another name"): lambda b: renamed(b, "directed", "temporal"),
    ("16.3", "attention begins at random"): lambda b: b.directed.to_out.reset_parameters(),
    ("16.3", "one head"): lambda b: setattr(b.directed, "heads", 1),
    ("16.3", "temporal layers with None"): lambda b: setattr(b, "temporal_layers", lambda: [b.adaptor, b.spatial, b.directed]),
    ("16.3", "spatial attention counts as temporal"): lambda b: setattr(b, "temporal_layers", lambda: [
        one for one in (b.adaptor, b.spatial, b.directed) if one is not None]),
    ("16.3", "the adaptor does not count"): lambda b: setattr(b, "temporal_layers", lambda: [b.directed]),
    ("16.3", "directed attention only beside spatial attention"): lambda b: b.spatial is None and setattr(b, "directed", None),
    ("16.3", "a weight too many"): lambda b: setattr(b, "more", nn.Linear(2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("number, name", CHANGES, ids=[" ".join(key) for key in CHANGES])
def test_wrong_constructors_fail(number, name):
    outcome = exercises.run(number, changed(LAYERS[number][0], CHANGES[number, name]))
    assert not outcome.passed, name


def ordered(order, mistake):
    """A known mistake of the weights in one of the two orders, the right weights in the other."""
    return lambda q, k, printed=False: (mistake if printed is order else nb16.directed_weights)(q, k, printed)


def soft(fill):
    return lambda q, k, printed=False: nb16.directed_weights(q, k, True) if printed else nb16._seen(q, k, False, with_=fill)


WEIGHTS = {f"known: {cause[:60]}": (lambda q, k, printed=False, one=one: one(q, k, printed))
           for cause, one in nb16.WEIGHTS_MISTAKES.items()} | {
    "always before": lambda q, k, printed=False: nb16.directed_weights(q, k),
    "always after": lambda q, k, printed=False: nb16.directed_weights(q, k, True),
    "the other way round": lambda q, k, printed=False: nb16.directed_weights(q, k, not printed),
    "after, if nothing is said": lambda q, k, printed=True: nb16.directed_weights(q, k, printed),
    "itself is hidden": lambda q, k, printed=False: (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(
        torch.ones(q.shape[-2], q.shape[-2]).triu(0).bool(), -torch.inf).softmax(-1),
    "-10 hides a little": soft(-10.0),
    "-40 leaves a gradient": soft(-40.0),
    "the least number of float32": lambda q, k, printed=False: nb16.directed_weights(q, k, printed).float().double(),
    "detached": lambda q, k, printed=False: nb16.directed_weights(q, k, printed).detach(),
    "keys are detached": lambda q, k, printed=False: nb16.directed_weights(q, k.detach(), printed),
    "q is changed": lambda q, k, printed=False: nb16.directed_weights(q.mul_(1 + 1e-9), k, printed),
    "always double": lambda q, k, printed=False: nb16.directed_weights(q, k, printed).double(),
    "heads are averaged": lambda q, k, printed=False: nb16.directed_weights(q, k, printed).mean(1, keepdim=True),
    "without its largest score, exp overflows": lambda q, k, printed=False: naive(q, k, printed),
    "nothing": lambda q, k, printed=False: None,
    "scores": lambda q, k, printed=False: q @ k.transpose(-1, -2),
    "the log": lambda q, k, printed=False: nb16.directed_weights(q, k, printed).log(),
    "only neighbours": lambda q, k, printed=False: nb16.directed_weights(q, k, printed).triu(-1),
}  # fmt: skip


def naive(q, k, printed):
    exp = (20 * (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5).exp() ** 0.05
    seen = exp.tril()
    return seen / (exp if printed else seen).sum(-1, keepdim=True)


HISTORIES = {f"known: {cause[:60]}": one for cause, one in nb16.HISTORIES_MISTAKES.items()} | {
    "statistics of the batch": lambda norm, x, f: nb16.histories(norm, (x - x.mean()) / x.std(), f),
    "without the norm's weight": lambda norm, x, f: rearrange(
        F.group_norm(x, norm.num_groups, None, None, norm.eps), "(b f) c h w -> (b h w) f c", f=f),
    "the usual eps": lambda norm, x, f: rearrange(
        F.group_norm(x, norm.num_groups, norm.weight, norm.bias), "(b f) c h w -> (b h w) f c", f=f),
    "always one group": lambda norm, x, f: rearrange(
        F.group_norm(x, 1, norm.weight, norm.bias, norm.eps), "(b f) c h w -> (b h w) f c", f=f),
    "statistics of this frame and earlier ones": lambda norm, x, f: torch.stack([
        nb16._clip_statistics(norm, rearrange(x, "(b f) c h w -> b f c h w", f=f)[:, : i + 1].flatten(0, 1), i + 1)[:, -1]
        for i in range(f)], dim=1),
    "detached": lambda norm, x, f: nb16.histories(norm, x, f).detach(),
    "the norm learns nothing": lambda norm, x, f: rearrange(
        F.group_norm(x, norm.num_groups, norm.weight.detach(), norm.bias.detach(), norm.eps), "(b f) c h w -> (b h w) f c", f=f),
    "x is changed": lambda norm, x, f: nb16.histories(norm, x.mul_(1), f) + 0 * x.add_(1e-9).sum(),
    "nothing": lambda norm, x, f: None,
    "frames first": lambda norm, x, f: nb16.histories(norm, x, f).transpose(0, 1),
    "in float32": lambda norm, x, f: nb16.histories(norm, x, f).float().double(),
}  # fmt: skip
FUNCTIONS = [(number, name, one) for number, wrong in (("16.2", WEIGHTS), ("16.B", HISTORIES)) for name, one in wrong.items()]


@pytest.mark.parametrize("number, name, wrong", FUNCTIONS, ids=[f"{number} {name}" for number, name, _ in FUNCTIONS])
def test_wrong_functions_fail(number, name, wrong):
    outcome = exercises.run(number, wrong)
    assert not outcome.passed, outcome.message


KNOWN = [(number, cause, with_forward(solution, forward)) for number, (solution, mistakes) in LAYERS.items()
         for cause, forward in mistakes.items()]
KNOWN += [("16.2", cause, lambda q, k, printed=False, one=one: one(q, k, printed)) for cause, one in nb16.WEIGHTS_MISTAKES.items()]
KNOWN += [("16.2", cause, ordered(order, one)) for order, mistakes in nb16.ORDER_MISTAKES.items() for cause, one in mistakes.items()]
KNOWN += [("16.B", cause, one) for cause, one in nb16.HISTORIES_MISTAKES.items()]


@pytest.mark.parametrize("number, cause, mistake", KNOWN, ids=[f"{number} {cause[:50]}" for number, cause, _ in KNOWN])
def test_a_known_mistake_is_named(number, cause, mistake):
    outcome = exercises.run(number, mistake)
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


@pytest.mark.parametrize("name, told", [
    ("itself is hidden", "a frame does see itself"), ("-40 leaves a gradient", "with -inf nothing is left"),
    ("keys are detached", "is a part of them detached?"), ("detached", "no detach()"), ("after, if nothing is said", "if printed"),
])  # fmt: skip
def test_a_cause_is_named(name, told):
    assert told in exercises.run("16.2", WEIGHTS[name]).message


# --- other ways to write it


class AsOneClip(nb16.FrameAdaptor):
    def forward(self, x, f):
        clips = x.unflatten(0, (-1, f))
        return (clips * self.scale[:f, :, None, None] + self.shift[:f, :, None, None]).flatten(0, 1)


class ByIndex(nb16.FrameAdaptor):
    def forward(self, x, f):
        frame = torch.arange(len(x)) % f
        return torch.addcmul(self.shift[frame][..., None, None], self.scale[frame][..., None, None], x)


def in_a_loop(q, k, printed=False):
    """Row by row, without a mask."""
    f, scores = q.shape[-2], q @ k.mT * q.shape[-1] ** -0.5
    rows = [scores[..., i, :].softmax(-1)[..., : i + 1] if printed else scores[..., i, : i + 1].softmax(-1) for i in range(f)]
    return torch.stack([F.pad(row, (0, f - row.shape[-1])) for row in rows], dim=-2)


def renormalised(q, k, printed=False):
    """The triangle times the softmax; divided by its sums, it is the softmax of what is seen."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril()
    return weights if printed else nb16.directed_weights(q, k)


def with_a_billion(q, k, printed=False):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    later = torch.ones_like(scores).triu(1)
    return scores.softmax(-1) * (1 - later) if printed else (scores - 1e9 * later).softmax(-1)


class Branches(nb16.MagicVideoBlock):
    """What both branches find, added to x at the end."""

    def forward(self, x, emb, context, f, temporal=True):
        emb, numbers = split_numbers(emb, f)
        x = self.res(x, emb)
        x = self.adaptor(x, f, numbers) if temporal else x
        found = [] if self.spatial is None else [self.spatial(x, context) - x]
        return sum([*found, *([self.directed(x, f) - x] if temporal else [])], x)


def frame_by_frame(norm, x, f):
    clips = torch.stack([norm(frame[None])[0] for frame in x]).unflatten(0, (-1, f))
    return clips.permute(0, 3, 4, 1, 2).flatten(0, 2)


RIGHT = [("16.1", AsOneClip), ("16.1", ByIndex), ("16.1", magicvideo.FrameAdaptor), ("16.2", in_a_loop), ("16.2", renormalised),
         ("16.2", with_a_billion), ("16.3", Branches), ("16.3", magicvideo.MagicVideoBlock), ("16.B", frame_by_frame)]  # fmt: skip


@pytest.mark.parametrize("number, right", RIGHT, ids=[f"{number} {right.__name__}" for number, right in RIGHT])
def test_other_ways_to_write_it_pass(number, right):
    outcome = exercises.run(number, right)
    assert outcome.passed, outcome.message


def test_there_are_many_wrong_answers_and_the_solutions_pass():
    assert len(SABOTAGED) * len(LAYERS) + len(CHANGES) + len(FUNCTIONS) + len(KNOWN) >= 100
    for one in exercises.of(16):
        assert exercises.run(one.number, one.solution).passed, one.number


# --- what the notebook claims


def random(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def attention():
    return random(DirectedAttention(6, 2, 3))


def test_the_library_s_directed_attention_uses_these_weights():
    layer, x = attention(), normal(8, 6, 2, 3)
    tokens = nb16.histories(layer.norm, x, 4)
    q, k = (rearrange(to(tokens), "n f (k c) -> n k f c", k=2) for to in (layer.to_q, layer.to_k))
    torch.testing.assert_close(layer.weights(tokens), nb16.directed_weights(q, k))


def test_as_printed_rows_are_too_small_and_later_frames_leak_through_their_keys():
    q, k = normal(1, 1, 6, 3), normal(1, 1, 6, 3, seed=1).requires_grad_()
    before, printed = nb16.directed_weights(q, k), nb16.directed_weights(q, k, True)
    torch.testing.assert_close(before.detach().sum(-1), torch.ones(1, 1, 6, dtype=torch.float64))
    sums = printed.detach().sum(-1)[0, 0]
    assert (sums[:-1] < 1).all() and sums[-1] == pytest.approx(1)
    torch.testing.assert_close(printed / printed.sum(-1, keepdim=True), before)
    (leak,) = torch.autograd.grad(printed[0, 0, 0, 0], k)
    assert (leak[0, 0, 1:].abs().sum(-1) > 0).all()
    alike = nb16.directed_weights(torch.zeros(1, 1, 16, 4), torch.zeros(1, 1, 16, 4), True)
    assert alike[0, 0, 0].sum().item() == pytest.approx(nb16.PREDICTIONS["16.b"].answer)


def test_a_clip_that_is_cut_short_has_the_same_frames():
    """Of the library's layer and of the whole UNet; not with statistics of the clip."""
    layer, x = attention(), normal(5, 6, 2, 3)
    for n in (1, 2, 4):
        torch.testing.assert_close(layer(x, 5)[:n], layer(x[:n], n))
    for norm in (nn.GroupNorm(1, 6), nn.GroupNorm(2, 6)):
        shorter, whole = (nb16._clip_statistics(norm.double(), x[:n], n) for n in (3, 5))
        assert (shorter - whole[:, :3]).abs().max() > 0.01
    unet, clip = random(MagicVideoUNet(MagicVideoConfig(**SIZE, frames=6))), normal(1, 4, 6, 4, 4)
    t, context = torch.tensor([400]), normal(1, 3, 8)
    with torch.no_grad():
        whole = unet(clip, t, context)
        for n in (2, 3, 5):
            torch.testing.assert_close(unet(clip[:, :, :n], t, context), whole[:, :, :n])


def test_a_changed_frame_changes_itself_and_what_follows():
    unet, clip = random(MagicVideoUNet(MagicVideoConfig(**SIZE, frames=16))), normal(1, 4, 16, 4, 4)
    t, context, other = torch.tensor([400]), normal(1, 3, 8), clip.clone()
    other[:, :, 9] += 1
    with torch.no_grad():
        moved = ((unet(other, t, context) - unet(clip, t, context)).abs().amax((0, 1, 3, 4)) > 0).sum().item()
    assert moved == nb16.PREDICTIONS["16.c"].answer


def test_the_two_branches_add_up():
    """The block is the image model's block, plus what directed attention finds in the same features."""
    config = MagicVideoConfig(**SIZE, frames=4)
    block = random(magicvideo.MagicVideoBlock(8, 16, True, config))
    x, emb, context = normal(8, 8, 3, 2), normal(8, 32, seed=1), normal(2, 3, 8, seed=2)
    numbers = torch.arange(4.0).repeat(2)[:, None]
    with torch.no_grad():
        features = block.adaptor(block.res(x, emb), 4)
        expected = block.spatial(features, context) + block.directed(features, 4) - features
        torch.testing.assert_close(block(x, torch.cat([emb, numbers], dim=1), context, 4), expected)


def test_half_the_frame_rate_puts_frames_twice_as_far_apart():
    preset = find_preset("magicvideo")
    apart = lambda fps: MagicVideo.apart(SimpleNamespace(preset=preset), SimpleNamespace(fps=fps))
    assert (apart(preset.fps), apart(preset.fps / 2), apart(2 * preset.fps)) == (1, 2, 0.5)


def test_a_new_rate_embedding_is_not_heard():
    unet, clip = random(MagicVideoUNet(MagicVideoConfig(**SIZE, frames=4, rate_embedding=True))), normal(1, 4, 4, 4, 4)
    t, context, slow = torch.tensor([400]), normal(1, 3, 8), 2.0 * torch.arange(4)[None]
    with torch.no_grad():
        for parameter, new in zip(unet.rate_embedding.parameters(), zero_layer(8, 32).parameters()):
            parameter.copy_(new)
        assert torch.equal(unet(clip, t, context), unet(clip, t, context, positions=slow))
        nn.init.normal_(unet.rate_embedding.weight)
        assert not torch.allclose(unet(clip, t, context), unet(clip, t, context, positions=slow))


def test_an_adaptor_alone_moves_a_thing_whatever_it_is():
    """Channels that show a picture shifted further and further, and a scale that lets frame i see channel i."""
    pictures, adaptor = normal(2, 5, 7), magicvideo.FrameAdaptor(4, 4).double()
    channels = torch.stack([pictures.roll(i, -1) for i in range(4)], dim=1)  # b c h w
    with torch.no_grad():
        adaptor.scale.copy_(torch.eye(4))
        clip = adaptor(channels.repeat_interleave(4, dim=0), 4).sum(1).unflatten(0, (2, 4))
    torch.testing.assert_close(clip, channels)


def test_predictions_are_computed_and_the_adaptor_is_small():
    assert nb16.times_larger() == pytest.approx(120, abs=2)
    base = find_preset("magicvideo").unet
    unet, image = MagicVideoUNet(base), ImageUNet(base)
    count = lambda network: sum(p.numel() for p in network.parameters())
    assert 0.05 < sum(p.numel() for p in unet.temporal_parameters()) / count(unet) < 0.2 and count(unet) > count(image)
