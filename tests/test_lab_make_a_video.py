"""The exercises of notebook 18: right solutions pass however they are written, wrong ones do not; and what it says about the
system: which words a clip can depend on, and what a model that sees no captions of videos gets right by luck."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_refused
from einops import rearrange
from torch import nn

from minit2v.datasets.moving_things import MovingThings
from minit2v.diffusion.samplers import gaussian
from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb18
from minit2v.lab.course.comparing import normal, random_weights
from minit2v.networks import blocks
from minit2v.systems import build, find_preset
from minit2v.systems.makeavideo import AlongTime, MakeAVideo, PseudoResBlock

# --- 18.1


def computing(forward):
    """The library's block with another forward (layer, x, emb, f = 0)."""
    return type("PseudoResBlock", (PseudoResBlock,), {"forward": forward})


def beginning(change):
    """The library's block, whose convolutions along time are changed when it is built."""

    class PseudoResBlock(nb18.PseudoResBlock):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            with torch.no_grad():
                for layer in (self.time1, self.time2):
                    change(layer.conv)

    return PseudoResBlock


def shifted(taps):
    return lambda conv: conv.weight.copy_(conv.weight.roll(taps, 2))


class Unnamed(blocks.ResBlock):
    """Right, with weights of other names: no trained ones would fit."""

    def __init__(self, c_in, c_out, *others):
        super().__init__(c_in, c_out, *others)
        self.along1, self.along2 = AlongTime(c_out), AlongTime(c_out)


class OneForBoth(PseudoResBlock):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.time2 = self.time1


class Depthwise(PseudoResBlock):
    def __init__(self, c_in, c_out, *others):
        super().__init__(c_in, c_out, *others)
        self.time1.conv = self.time2.conv = nn.Conv2d(c_out, c_out, (3, 1), padding=(1, 0), groups=c_out)


def detached(layer, x, emb, f=0):
    return PseudoResBlock.forward(layer, x, emb, f).detach() + 0 * x.sum()


def in_place(layer, x, emb, f=0):
    return PseudoResBlock.forward(layer, x.mul_(1 + 1e-9), emb, f)


def rounded(layer, x, emb, f=0):
    return PseudoResBlock.forward(layer.float(), x.float(), emb.float(), f).double()


def undropped(layer, x, emb, f=0):
    layer.dropout = nn.Identity()
    return PseudoResBlock.forward(layer, x, emb, f)


BLOCK = {
    **{f"known: {cause[:60]}": computing(lambda layer, *x, one=one: one(layer, *x))
       for cause, one in nb18.BLOCK_MISTAKES.items()},
    "the block for pictures": blocks.ResBlock,
    "begins as zero": beginning(lambda conv: conv.weight.zero_()),
    "begins at random": beginning(lambda conv: conv.reset_parameters()),
    "begins with a bias": beginning(lambda conv: conv.bias.fill_(0.1)),
    "begins as the mean of three": beginning(lambda conv: conv.weight.copy_(conv.weight.sum(2, keepdim=True) / 3)),
    "begins one frame late": beginning(shifted(-1)),
    "begins one frame early": beginning(shifted(1)),
    "begins with ones": beginning(lambda conv: conv.weight.fill_(1.0)),
    "begins as minus the identity": beginning(lambda conv: conv.weight.neg_()),
    "begins a little beside the identity": beginning(lambda conv: conv.weight.add_(1e-3)),
    "other names": Unnamed,
    "one layer for both": OneForBoth,
    "channel by channel": Depthwise,
    "detached": computing(detached),
    "x is changed": computing(in_place),
    "in float32": computing(rounded),
    "without dropout": computing(undropped),
    "nothing is returned": computing(lambda layer, x, emb, f=0: None),
    "its input": computing(lambda layer, x, emb, f=0: layer.skip(x)),
    "all frames as one clip": computing(lambda layer, x, emb, f=0: PseudoResBlock.forward(layer, x, emb, len(x))),
    "not a layer": lambda *arguments: lambda x, emb, f=0: x,
}


# --- 18.2 and 18.3


def after(answer, change):
    return lambda *given: change(answer(*given))


def twice(keys, apart):
    """Pixels from 0 to 1."""
    return nb18.conditioned(keys / 2 + 0.5, apart)


def for_one_clip(keys, apart):
    return nb18.conditioned(keys[:1], apart).expand(len(keys), -1, -1, -1, -1)


def mask_of_the_first_alone(keys, apart):
    found = nb18.conditioned(keys, apart)
    found[:, -1, 1:] = 0
    return found


def faded(keys, apart):
    """Straight lines between the key frames."""
    place = torch.arange(apart * (keys.shape[2] - 1) + 1) / apart
    early, late = place.floor().long(), place.ceil().long()
    part = (place - early)[:, None, None].to(keys)
    between = (1 - part) * keys[:, :, early] + part * keys[:, :, late]
    return torch.cat([between, nb18.conditioned(keys, apart)[:, -1:]], 1)


CONDITION = {
    **{f"known: {cause[:60]}": one for cause, one in nb18.CONDITION_MISTAKES.items()},
    "from 0 to 1": twice,
    "a fade between key frames": faded,
    "the first clip for all": for_one_clip,
    "only the first frame is said to be given": mask_of_the_first_alone,
    "a mask of nothing": after(nb18.conditioned, lambda x: torch.cat([x[:, :-1], 0 * x[:, -1:]], 1)),
    "always five apart": lambda keys, apart: nb18.conditioned(keys, 5),
    "rows and columns swapped": after(nb18.conditioned, lambda x: x.transpose(3, 4)),
    "time is not the third axis": after(nb18.conditioned, lambda x: x.transpose(1, 2)),
    "reversed in time": after(nb18.conditioned, lambda x: x.flip(2) * 1.000001),
    "a mask of -1 and 1": after(nb18.conditioned, lambda x: torch.cat([x[:, :-1], 2 * x[:, -1:] - 1], 1)),
    "in float32": after(nb18.conditioned, lambda x: x.float()),
    "keys are changed": lambda keys, apart: nb18.conditioned(keys.mul_(1 + 1e-9), apart),
    "nothing is returned": lambda keys, apart: None,
}


def seeded_again(model, clip, generators):
    generators = [torch.Generator().manual_seed(0) for _ in generators]
    return nb18.upscaled(model, clip, generators)


def uniform(b, c, f, h, w, generators):
    return torch.stack([torch.rand(c, 2 * h, 2 * w, generator=one) for one in generators])


def first_frame(model, clip, generators):
    """The first frame for the whole clip: it cannot flicker."""
    made = nb18.upscaled(model, clip[:, :, :1], generators)
    return made.expand(-1, -1, clip.shape[2], -1, -1)


def smoothed(model, clip, generators):
    made = nb18.upscaled(model, clip, generators)
    return (made + made.roll(1, 2)) / 2


UPSCALED = {
    **{f"known: {cause[:60]}": one for cause, one in nb18.NOISE_MISTAKES.items()},
    "generators of its own": seeded_again,
    "uniform noise": lambda *x: nb18._upscaled(*x, noise=uniform),
    "one generator for all clips": lambda model, clip, generators: nb18._upscaled(
        model, clip, generators, noise=lambda b, c, f, h, w, g: gaussian((b, c, 2 * h, 2 * w), g[0])),
    "the first frame for all": first_frame,
    "frames are mixed": smoothed,
    "half of the noise": lambda *x: nb18._upscaled(*x, spread=lambda noise, f: 0.5 * noise.repeat_interleave(f, dim=0)),
    "rows and columns of the noise": lambda *x: nb18._upscaled(
        *x, noise=lambda b, c, f, h, w, g: gaussian((b, c, 2 * w, 2 * h), g).transpose(2, 3)),
    "x is changed": lambda model, clip, generators: nb18.upscaled(model, clip.mul_(1 + 1e-9), generators),
    "in float32": after(nb18.upscaled, lambda x: x.float().double()),
    "the clip enlarged": lambda model, clip, generators: clip.repeat_interleave(2, 3).repeat_interleave(2, 4),
    "nothing is returned": lambda model, clip, generators: None,
}


# --- 18.B


def starting(conv=lambda one: (nn.init.dirac_(one.weight), nn.init.zeros_(one.bias)), project=blocks.zeroed):
    def begun(a, b):
        conv(a)
        project(b)

    return begun


def another_parameter(project):
    project.weight, project.bias = (nn.Parameter(torch.zeros_like(p)) for p in (project.weight, project.bias))


def frozen(project):
    blocks.zeroed(project).requires_grad_(False)


def doubled(conv):
    starting()(conv, nn.Linear(1, 1))
    with torch.no_grad():
        conv.weight.mul_(2)


def summed(conv):
    starting(project=lambda one: None)(conv, None)
    with torch.no_grad():
        conv.weight.copy_(conv.weight.amax((0, 1), keepdim=True).expand_as(conv.weight))


BEGUN = {
    "the port": starting(project=lambda one: nn.init.zeros_(one.weight)),
    "only the bias": starting(project=lambda one: nn.init.zeros_(one.bias)),
    "nothing": starting(conv=lambda one: None, project=lambda one: None),
    "the branch alone": starting(conv=lambda one: None),
    "the path alone": starting(project=lambda one: None),
    "zeros in both": starting(conv=blocks.zeroed),
    "the identity in both": starting(project=lambda one: (nn.init.eye_(one.weight), nn.init.zeros_(one.bias))),
    "small numbers": starting(project=lambda one: (nn.init.normal_(one.weight, std=1e-4), nn.init.zeros_(one.bias))),
    "no Dirac bias": starting(conv=lambda one: nn.init.dirac_(one.weight)),
    "a Dirac of groups": starting(conv=lambda one: (nn.init.normal_(one.weight), nn.init.zeros_(one.bias))),
    "twice what it is given": starting(conv=doubled),
    "the sum of all channels": starting(conv=summed),
    "ones": starting(conv=lambda one: (nn.init.ones_(one.weight), nn.init.zeros_(one.bias))),
    "other parameters": starting(project=another_parameter),
    "frozen": starting(project=frozen),
    "it raises": starting(project=lambda one: one.missing),
}
WRONG = {"18.1": BLOCK, "18.2": CONDITION, "18.3": UPSCALED, "18.B": BEGUN}
ALL = [(number, name) for number, wrong in WRONG.items() for name in wrong]


@pytest.mark.parametrize("number, name", ALL, ids=[" ".join(one) for one in ALL])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


CAUSES = {"18.1": nb18.BLOCK_MISTAKES, "18.2": nb18.CONDITION_MISTAKES, "18.3": nb18.NOISE_MISTAKES}
KNOWN = [(number, cause, WRONG[number][f"known: {cause[:60]}"]) for number, causes in CAUSES.items() for cause in causes]


@pytest.mark.parametrize("number, cause, mistake", KNOWN, ids=[f"{number} {cause[:40]}" for number, cause, _ in KNOWN])
def test_a_known_mistake_is_named(number, cause, mistake):
    assert exercises.run(number, mistake).message.endswith(f"Likely cause: {cause}")


@pytest.mark.parametrize("number, name, told", [
    ("18.1", "begins as zero", "zeros erase what"), ("18.1", "begins one frame late", "the one before it"),
    ("18.1", "begins one frame early", "the one after it"), ("18.1", "begins as the mean of three", "the mean of three"),
    ("18.1", "begins with a bias", "nn.init.zeros_"), ("18.1", "begins at random", "nn.init.dirac_"),
    ("18.1", "other names", "names and sizes are in the table"), ("18.2", "in float32", "as `keys` is"),
    ("18.B", "the port", "what is left is the bias"), ("18.B", "zeros in both", "zero erases everything"),
    ("18.B", "no Dirac bias", "look at its bias"), ("18.B", "other parameters", "an optimizer holds the old one"),
    ("18.B", "frozen", "it does not stay so"),
])  # fmt: skip
def test_a_cause_is_named(number, name, told):
    assert told in exercises.run(number, WRONG[number][name]).message


class Threefold(nn.Conv2d):
    """A convolution along time as three matrices, for the frame before, the frame itself and the one after."""

    def __init__(self, c):
        super().__init__(c, c, (3, 1))
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:, :, 1, 0] = torch.eye(c)
            self.bias.zero_()

    def forward(self, x, f):
        clip = rearrange(x, "(b f) c h w -> b f c h w", f=f)
        padded = F.pad(clip, (0, 0, 0, 0, 0, 0, 1, 1))
        parts = [torch.einsum("bfchw,dc->bfdhw", padded[:, i : i + f], self.weight[:, :, i, 0]) for i in range(3)]
        return (sum(parts) + self.bias[:, None, None]).flatten(0, 1)


class ByHand(nn.Module):
    """The block without the library's, with three-dimensional kernels seen as three matrices."""

    def __init__(self, c_in, c_out, embedding_dim, groups, dropout, scale_shift):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, c_in), nn.GroupNorm(groups, c_out)
        self.conv1, self.conv2 = nn.Conv2d(c_in, c_out, 3, padding=1), blocks.zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.embedding = nn.Linear(embedding_dim, c_out * (1 + scale_shift))
        self.dropout, self.scale_shift = nn.Dropout(dropout), scale_shift
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.time1, self.time2 = (nn.ModuleDict({"conv": Threefold(c_out)}) for _ in range(2))

    def forward(self, x, emb, f=None):
        f = f or 0
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.time1["conv"](h, f) if f else h
        emb = self.embedding(F.silu(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = torch.tensor_split(emb, 2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(emb + h)
        h = self.conv2(self.dropout(F.silu(h)))
        return (self.time2["conv"](h, f) if f else h) + self.skip(x)


def by_index(keys, apart):
    b, c, k, h, w = keys.shape
    frames = []
    for i in range(apart * (k - 1) + 1):
        known = i % apart == 0
        frame = keys[:, :, i // apart] if known else torch.zeros_like(keys[:, :, 0])
        frames.append(torch.cat([frame, torch.full_like(frame[:, :1], float(known))], dim=1))
    return torch.stack(frames, dim=2)


def frame_by_frame(model, clip, generators):
    _, c, _, h, w = clip.shape
    noise = torch.cat([torch.randn(1, c, 2 * h, 2 * w, generator=one) for one in generators])
    return torch.stack([model(frame, noise.to(clip.dtype)) for frame in clip.unbind(2)], dim=2)


def by_numbers(conv, project):
    c, _, taps, _ = conv.weight.shape
    with torch.no_grad():
        conv.weight.copy_(0 * conv.weight)
        conv.weight[torch.arange(c), torch.arange(c), taps // 2] = 1
        for p in (conv.bias, project.weight, project.bias):
            p.fill_(0)


@pytest.mark.parametrize("number, right", [
    ("18.1", ByHand), ("18.2", by_index), ("18.3", frame_by_frame), ("18.B", by_numbers),
])  # fmt: skip
def test_other_ways_to_write_it_pass(number, right):
    outcome = exercises.run(number, right)
    assert outcome.passed, outcome.message


# --- the system


def small():
    """The system with small networks of random weights, none of them zero."""
    torch.manual_seed(0)
    sizes = dict(channels=(8, 16), head_dim=4, norm_groups=4)
    preset = find_preset("makeavideo")
    preset = replace(preset, frames=6, height=16, width=16, steps=2, fill_steps=1, **{
        name: replace(getattr(preset, name), **sizes) for name in ("unet", "between", "upscale")})  # fmt: skip
    networks = build(preset)
    for network in networks.values():
        network.load_state_dict({name: value.float() for name, value in random_weights(network, 1).items()})
    return MakeAVideo(preset, **networks)


def test_prompts_that_differ_in_motion_make_the_same_clip():
    pipe = small()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        left, right, ring = (list(pipe.stream(f"a small red {rest}", seed=1))[-1].x for rest in (
            "circle moves left", "circle moves right quickly", "ring moves left"))  # fmt: skip
    assert torch.equal(left, right) and not torch.equal(left, ring)
    assert len(told) == 3 and "moves right quickly" in str(told[1].message)


def test_a_pseudo_3d_block_is_a_convolution_of_the_frame_and_one_along_time():
    layer = PseudoResBlock(4, 4, 8, 2, 0.0, False).double()
    layer.load_state_dict(random_weights(layer, 0))
    x = normal(5, 4, 3, 2)
    kernel = torch.einsum("cdij,ect->edtij", layer.conv1.weight, layer.time1.conv.weight[..., 0])  # of one 3D convolution
    layer.conv1.bias.data.zero_()  # at the ends of the clip the convolution along time sees zeros, not this bias
    clip = rearrange(x, "f c h w -> 1 c f h w")
    whole = F.conv3d(clip, kernel, layer.time1.conv.bias, padding=1)
    with torch.no_grad():
        torch.testing.assert_close(layer.time1(layer.conv1(x), 5), rearrange(whole, "1 c f h w -> f c h w"))


def test_the_library_gives_between_what_the_exercise_asks_for():
    for apart, k in ((5, 4), (2, 3)):
        keys = normal(2, 3, k, 4, 6)
        found, mine = nb18.library_condition(keys, apart), nb18.conditioned(keys, apart)
        assert found.shape == (2, 13, apart * (k - 1) + 1, 2, 3)
        assert torch.equal(found[:, 12], mine[:, 3, :, ::2, ::2])
        assert torch.equal(rearrange(found[:, :12], "b (c k l) f h w -> b c f (h k) (w l)", k=2, l=2), mine[:, :3])


def test_luck_is_what_a_blind_model_scores():
    """By drawing: each prompt gets a training video of its shape, and its direction is compared."""
    ways, rng = nb18.ways_to_move(), np.random.default_rng(0)
    things = [spec.things[0] for spec in MovingThings("test_seen", size=8, frames=1).batch(range(512)).specs]
    right = [rng.choice(list(ways[thing.shape].elements()), 40) == thing.motion for thing in things]
    assert abs(100 * np.mean(right) - nb18.by_luck()) < 1.0
    assert nb18.by_luck() > 28 > 25 > 20 > nb18.by_luck("test_heldout")  # not a quarter: look and motion are not independent


def test_captions_of_pictures_name_no_motion():
    pictures = MovingThings("train", size=8, images=True).batch(range(300))
    known = set(find_preset("makeavideo").text.words)
    assert {word for caption in pictures.captions for word in caption.split()} <= known
    assert known.isdisjoint({"moves", "left", "right", "up", "down", "slowly", "quickly"})


def test_predictions_are_true():
    ask = nb18.PREDICTIONS
    layer = PseudoResBlock(4, 6, 8, 2, 0.0, True).double()
    layer.load_state_dict(random_weights(layer, 0))
    for time in (layer.time1, layer.time2):
        blocks.zeroed(time)
    x, emb = normal(6, 4, 3, 5), normal(6, 8, seed=1)
    assert ask["18.b"].answer == "its skip alone" and torch.equal(layer(x, emb, 3), layer.skip(x))
    assert nb18.conditioned(normal(1, 3, 2, 2, 2), 5).shape[1] + 3 == ask["18.c"].answer
