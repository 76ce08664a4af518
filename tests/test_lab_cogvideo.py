"""The exercises of notebook 15: right solutions pass however they are written, wrong ones do not; and what the notebook
says of CogVideo holds for the library."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from answers import assert_refused
from torch import nn

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb15
from minit2v.lab.course.checks.nb15 import BEGINNING, DualChannel
from minit2v.systems import build, find_preset
from minit2v.systems.cogvideo import (
    KEYS,
    LENGTH,
    SPACINGS,
    ChannelConfig,
    CogVideo,
    PictureTransformer,
    Places,
    TemporalChannel,
    places,
)
from minit2v.training.cogvideo import CogVideoTask

SIZES = ChannelConfig(codes=20, words=8, length=5, places=4, width=16, heads=2, layers=2)


def known(mistakes):
    return {f"known: {cause[:70]}": mistake for cause, mistake in mistakes.items()}


# --- wrong answers: 15.1


def computing(mistake):
    """A DualChannel whose forward is a function (layer, h, own, along)."""

    class Mine(DualChannel):
        def forward(self, h, own, along):
            return mistake(self, h, own, along)

    return Mine


def beginning(change):
    """A DualChannel that is changed when it is new."""

    class Mine(DualChannel):
        def __init__(self, base):
            super().__init__(base)
            change(self, base)

    return Mine


def replaced(**makers):
    def change(layer, base):
        for name, make in makers.items():
            if name in layer._parameters:
                del layer._parameters[name]
            setattr(layer, name, make(layer, base))

    return beginning(change)


def fresh(layer, base):
    return type(base)(base.to_out.out_features, base.heads).to(base.to_q.weight.dtype)


class OtherNames(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.frozen, self.plus = base.requires_grad_(False), copy.deepcopy(base).requires_grad_(True)
        self.alpha = nn.Parameter(torch.zeros(base.to_out.out_features))

    def forward(self, h, own, along):
        share = self.alpha.sigmoid()
        return share * self.frozen(h, own) + (1 - share) * self.plus(h, along)


def without_gradient(part):
    def forward(layer, h, own, along):
        share = layer.mix.sigmoid()
        with torch.set_grad_enabled(part != "base"):
            one = layer.base(h, own)
        with torch.set_grad_enabled(part != "extra"):
            other = layer.extra(h, along)
        return share * one + (1 - share) * other

    return computing(forward)


def right(layer, h, own, along):
    return DualChannel.forward(layer, h, own, along)


DUAL = {name: computing(mistake) for name, mistake in known(nb15.DUAL_MISTAKES).items()} | {
    "base still learns": beginning(lambda layer, base: layer.base.requires_grad_(True)),
    "a copy of frozen weights, which is frozen": beginning(lambda layer, base: layer.extra.requires_grad_(False)),
    "mix is frozen": beginning(lambda layer, base: layer.mix.requires_grad_(False)),
    "extra is base itself": replaced(extra=lambda layer, base: base),
    "extra begins at random": replaced(extra=fresh),
    "base is a fresh one": replaced(base=lambda layer, base: fresh(layer, base).requires_grad_(False)),
    "mix begins at 1": replaced(mix=lambda layer, base: nn.Parameter(torch.ones_like(layer.base.to_out.bias))),
    "mix is one number": replaced(mix=lambda layer, base: nn.Parameter(torch.zeros(1))),
    "mix is a plain tensor": replaced(mix=lambda layer, base: torch.zeros(base.to_out.out_features)),
    "a weight too many": replaced(scale=lambda layer, base: nn.Parameter(torch.ones(()))),
    "other names": OtherNames,
    "no gradient through base": without_gradient("base"),
    "no gradient to extra": without_gradient("extra"),
    "mix is detached": computing(lambda b, h, own, along: b.base(h, own) * (a := b.mix.detach().sigmoid())
                                 + (1 - a) * b.extra(h, along)),
    "h is detached": computing(lambda b, h, own, along: right(b, h.detach(), own, along)),
    "h is changed": computing(lambda b, h, own, along: right(b, h.mul_(1.001), own, along)),
    "a mask is changed": computing(lambda b, h, own, along: right(b, h, own, along.logical_and_(own))),
    "in half precision": computing(lambda b, h, own, along: right(b, h, own, along).half().double()),
    "always in float64": computing(lambda b, h, own, along: right(b, h, own, along).double()),
    "nothing is returned": computing(lambda b, h, own, along: None),
    "both outputs": computing(lambda b, h, own, along: (b.base(h, own), b.extra(h, along))),
    "a mean over the clips": computing(lambda b, h, own, along: right(b, h, own, along).mean(0, keepdim=True)),
    "a function": lambda base: lambda h, own, along: base(h, own),
}  # fmt: skip


# --- wrong answers: 15.2


def by_position(frame, index, given):
    """Earlier in the sequence in the place of earlier in the clip."""
    n = torch.arange(len(frame))
    same, earlier = frame[:, None] == frame[None], n[None] < n[:, None]
    own = same & (index[None] <= index[:, None])
    stands = given[None] & (frame[:, None] >= 0)
    return own | stands | ~given[:, None] & earlier & (frame[:, None] >= 0) | (frame[:, None] >= 0) & (frame[None] < 0)


def through(change):
    """The right mask of changed inputs."""
    return lambda frame, index, given: nb15.sees(*change(frame, index, given))


SEES = known(nb15.MASK_MISTAKES) | {
    "whatever is earlier in the sequence": lambda frame, index, given: torch.ones(
        len(frame), len(frame), dtype=torch.bool).tril(),
    "order of the sequence": by_position,
    "even frames are always the given ones": through(lambda f, i, g: (f, i, (f >= 0) & (f % 2 == 0))),
    "every second of the frames that there are": through(
        lambda f, i, g: (f, i, (f >= 0) & (torch.unique(f, return_inverse=True)[1] % 2 == 1))),
    "no place within the frame": lambda f, i, g: nb15.sees(f, torch.zeros_like(i), g),
    "frames backwards": through(lambda f, i, g: (torch.where(f < 0, f, f.max() - f), i, g)),
    "places backwards": through(lambda f, i, g: (f, i.max() - i, g)),
    "numbers for attention scores": lambda f, i, g: torch.zeros(nb15.sees(f, i, g).shape).masked_fill(
        ~nb15.sees(f, i, g), -torch.inf),
    "0 and 1": lambda f, i, g: nb15.sees(f, i, g).long(),
    "the first row alone": lambda f, i, g: nb15.sees(f, i, g)[0],
    "flat": lambda f, i, g: nb15.sees(f, i, g).flatten(),
    "everything": lambda f, i, g: torch.ones(len(f), len(f), dtype=torch.bool),
    "only itself": lambda f, i, g: torch.eye(len(f), dtype=torch.bool),
    "neighbouring frames alone": lambda f, i, g: nb15.sees(f, i, g) & (
        ((f[:, None] - f[None]).abs() <= 1) | (f[None] < 0)),
    "frame is changed": lambda f, i, g: nb15.sees(f.add_(1), i, g),
    "given is changed": lambda f, i, g: nb15.sees(f, i, g.logical_not_()),
    "nothing is returned": lambda f, i, g: None,
    "a list": lambda f, i, g: nb15.sees(f, i, g).tolist(),
}  # fmt: skip

# --- wrong answers: 15.3

PLAN = nb15.rounds(5, 4)
ROUNDS = known(nb15.ROUNDS_MISTAKES) | {
    "always the same plan": lambda keys, spacing: PLAN,
    "keys is 5": lambda keys, spacing: nb15.rounds(5, spacing),
    "spacing is 4": lambda keys, spacing: nb15.rounds(keys, 4),
    "always two rounds": lambda keys, spacing: nb15.rounds(keys, spacing)[-2:],
    "runs alone": lambda keys, spacing: [runs for _, runs in nb15.rounds(keys, spacing)],
    "pairs the wrong way round": lambda keys, spacing: [(runs, apart) for apart, runs in nb15.rounds(keys, spacing)],
    "a run of frames and no list of runs": lambda keys, spacing: [
        (apart, sum(runs, [])) for apart, runs in nb15.rounds(keys, spacing)],
    "a dictionary": lambda keys, spacing: dict(nb15.rounds(keys, spacing)),
    "a generator": lambda keys, spacing: (one for one in nb15.rounds(keys, spacing)),
    "runs backwards": lambda keys, spacing: [(apart, runs[::-1]) for apart, runs in nb15.rounds(keys, spacing)],
    "frames backwards": lambda keys, spacing: [
        (apart, [run[::-1] for run in runs]) for apart, runs in nb15.rounds(keys, spacing)],
    "thirds": lambda keys, spacing: [(max(1, 2 * apart // 3), runs) for apart, runs in nb15.rounds(keys, spacing)],
    "nothing to do": lambda keys, spacing: [],
    "nothing is returned": lambda keys, spacing: None,
    "a round too many": lambda keys, spacing: nb15.rounds(keys, 2 * spacing),
}  # fmt: skip

# --- wrong answers: 15.B


def filling_the_list(ask, frames):
    for number, frame in enumerate(frames):
        if frame is None:
            frames[number] = ask(number, {i: one for i, one in enumerate(frames) if one is not None})
    return frames


def looking_back(ask, frames):
    """Given frames count, but only those before."""
    return nb15._filled(ask, frames, shown=lambda known, number: {i: one for i, one in known.items() if i < number})


def asking_twice(ask, frames):
    nb15.filled(ask, frames)
    return nb15.filled(ask, frames)


FILLED = known(nb15.FILLED_MISTAKES) | {
    "the list of the caller is filled": filling_the_list,
    "only what is before": looking_back,
    "only the given ones": lambda ask, frames: nb15._filled(ask, frames, keep=False),
    "asked twice": asking_twice,
    "written frames alone": lambda ask, frames: [
        one for one, frame in zip(nb15.filled(ask, frames), frames) if frame is None],
    "as a dictionary": lambda ask, frames: dict(enumerate(nb15.filled(ask, frames))),
    "in the order in which they became known": lambda ask, frames: (
        lambda whole: [whole[i] for i in sorted(range(len(whole)), key=lambda i: frames[i] is None)])(nb15.filled(ask, frames)),
    "holes stay": lambda ask, frames: frames,
    "only every second may be missing": lambda ask, frames: nb15._filled(
        ask, frames, shown=lambda known, number: {i: one for i, one in known.items() if i % 2 == 0}),
    "only the first hole": lambda ask, frames: nb15.filled(ask, frames[:2]) + frames[2:],
    "numbers from 1": lambda ask, frames: nb15.filled(lambda number, known: ask(number + 1, known), frames),
    "copies of the nearest, nobody is asked": lambda ask, frames: [
        next((one for one in frames[i::-1] if one is not None), frame) for i, frame in enumerate(frames)],
    "nothing is returned": lambda ask, frames: None if nb15.filled(ask, frames) else None,
}  # fmt: skip

WRONG = {"15.1": DUAL, "15.2": SEES, "15.3": ROUNDS, "15.B": FILLED}
ALL = [(number, name) for number, wrong in WRONG.items() for name in wrong]


@pytest.mark.parametrize("number, name", ALL, ids=[" ".join(one) for one in ALL])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


KNOWN = [(number, cause, mistake) for number, mistakes in
         (("15.1", {cause: computing(one) for cause, one in nb15.DUAL_MISTAKES.items()}), ("15.2", nb15.MASK_MISTAKES),
          ("15.3", nb15.ROUNDS_MISTAKES), ("15.B", nb15.FILLED_MISTAKES)) for cause, mistake in mistakes.items()]  # fmt: skip


@pytest.mark.parametrize("number, cause, mistake", KNOWN, ids=[f"{number} {cause[:40]}" for number, cause, _ in KNOWN])
def test_a_known_mistake_is_named(number, cause, mistake):
    assert exercises.run(number, mistake).message.endswith(f"Likely cause: {cause}")


@pytest.mark.parametrize("name, told", [
    ("a copy of frozen weights, which is frozen", "a copy of frozen weights is frozen too"),
    ("extra is base itself", "copy.deepcopy"), ("extra begins at random", "begins as a copy"),
    ("mix is a plain tensor", "neither trained nor saved"), ("no gradient through base", "blocks before learn through it"),
])  # fmt: skip
def test_a_cause_is_named(name, told):
    assert told in exercises.run("15.1", DUAL[name]).message


# --- other ways to write it


class ByLerp(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.extra = base, copy.deepcopy(base)
        self.mix = nn.Parameter(base.to_out.bias.new_zeros(base.to_out.out_features))
        for p in base.parameters():
            p.requires_grad = False

    def forward(self, h, own, along):
        return torch.lerp(self.extra(h, along), self.base(h, own), 1 / (1 + torch.exp(-self.mix)))


def by_loops(frame, index, given):
    n = len(frame)
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for j in range(n):
            if frame[i] == frame[j] and (frame[i] < 0 or not given[i]):
                mask[i, j] = index[j] <= index[i]
            elif frame[i] >= 0 and (frame[j] < 0 or given[j]):
                mask[i, j] = True
            elif not given[i] and 0 <= frame[j] < frame[i]:
                mask[i, j] = True
    return mask


def by_time_of_writing(frame, index, given):
    """A number for when each element comes to be: words, what is given, written frames. Nothing later is seen."""
    when = torch.where(given, 0, torch.where(frame < 0, -1, 1 + frame))
    place = torch.where(given, 0, index)  # what is given comes all at once
    earlier, together = when[None] < when[:, None], when[None] == when[:, None]
    return earlier | together & (place[None] <= place[:, None])


def by_recursion(keys, spacing, last=None):
    if spacing == 1:
        return ()
    apart, last = spacing // 2, last or spacing * (keys - 1)
    frames = torch.arange(0, last + 1, apart)
    return (apart, tuple(tuple(run.tolist()) for run in frames.unfold(0, keys, keys - 1))), *by_recursion(keys, apart, last)


def by_two_lists(ask, frames):
    clip = list(frames)
    for number in (i for i, one in enumerate(frames) if one is None):
        clip[number] = ask(number, {i: one for i, one in enumerate(clip) if one is not None})
    return tuple(clip)


@pytest.mark.parametrize("number, answer", [
    ("15.1", ByLerp), ("15.2", by_loops), ("15.2", by_time_of_writing), ("15.3", by_recursion), ("15.B", by_two_lists),
])  # fmt: skip
def test_other_ways_to_write_it_pass(number, answer):
    outcome = exercises.run(number, answer)
    assert outcome.passed, outcome.message


# --- what the notebook says of the library


def stirred(module, seed=0):
    for p in module.parameters():
        nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(seed))
    return module.double()


def drawn(high, *shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def test_rounds_are_those_of_the_library():
    """Every frame is written once; what is given in a round was written before."""
    assert nb15.library_rounds() == nb15.rounds(KEYS, SPACINGS[0])
    written = set(range(0, LENGTH, SPACINGS[0]))
    for _, runs in nb15.rounds(KEYS, SPACINGS[0]):
        before = set(written)
        for run in runs:
            assert set(run[::2]) <= before and not set(run[1::2]) & written
            written |= set(run[1::2])
    assert written == set(range(LENGTH))


def test_the_rate_is_said_by_the_first_token():
    """It changes what the temporal channel paints, and nothing where there is none."""
    image, channel = stirred(PictureTransformer(SIZES)), stirred(TemporalChannel(SIZES), 1)
    words, tokens = drawn(8, 2, 5), drawn(20, 2, 3, 2, 2)
    one, other = (image.caption(words, channel, rate) for rate in (0, 1))
    assert not torch.equal(one[:, 0], other[:, 0]) and torch.equal(one[:, 1:], other[:, 1:])
    assert not torch.allclose(image(words, tokens, channel, 0), image(words, tokens, channel, 1))
    assert torch.equal(image(words, tokens, None, 0), image(words, tokens, None, 1))


def test_given_frames_are_not_in_the_loss():
    image, channel = stirred(PictureTransformer(SIZES)), stirred(TemporalChannel(SIZES), 1)
    given, tokens = [i % 2 == 0 for i in range(5)], drawn(20, 2, 5, 2, 2)
    task = SimpleNamespace(given=given, pipe=SimpleNamespace(image=image), channel=channel)
    batch = {"tokens": tokens, "context": drawn(8, 2, 5), "rate": torch.ones(2, dtype=torch.long)}
    logits = image(batch["context"], tokens, channel, 1, given).log_softmax(-1)
    right = logits.gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(CogVideoTask.losses(task, batch).double(), -right[:, 1::2].flatten(1).mean(1), atol=1e-5, rtol=1e-5)


def test_the_beginning_is_the_picture_model_for_the_first_frame_alone():
    image = stirred(PictureTransformer(SIZES)).requires_grad_(False)
    channel = TemporalChannel(SIZES).double().copy(image)
    words, tokens = drawn(8, 1, 5), drawn(20, 1, 5, 2, 2)
    alone, together = image(words, tokens), image(words, tokens, channel)
    same = [torch.allclose(together[:, i], alone[:, i], atol=1e-12) for i in range(5)]
    assert same == [True, False, False, False, False]
    assert nb15.PREDICTIONS["15.a"].answer == BEGINNING[1] == "the first frame and no other"
    for layers in channel.feed_forwards:  # they end in zeros, so at first only their ends learn
        nn.init.normal_(layers[-1].weight)
    image(words, tokens, channel).square().mean().backward()
    assert all(p.grad is None for p in image.parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in channel.parameters())


def moved_by_its_own_answer(blocks, monkeypatch, curious):
    """Whether the logits of a written token change with that token, in a model with so many blocks."""
    sizes = replace(SIZES, layers=blocks)
    image, channel = stirred(PictureTransformer(sizes)), stirred(TemporalChannel(sizes), 1)
    if curious:
        rule = Places.sees
        monkeypatch.setattr(Places, "sees", lambda self, others: (
            rule(self, others)[0], rule(self, others)[1] | self.given[:, None]))  # fmt: skip
    words, tokens, given = drawn(8, 1, 5), drawn(20, 1, 3, 2, 2), [True, False, True]
    other = tokens.clone()
    other[0, 1, 1, 0] = (other[0, 1, 1, 0] + 1) % 20
    one, two = (image(words, clip, channel, 1, given)[0, 1, 1, 0] for clip in (tokens, other))
    monkeypatch.undo()
    return not torch.allclose(one, two, atol=1e-12)


def test_given_frames_that_see_written_ones_tell_the_answer_after_two_blocks(monkeypatch):
    moved = {blocks: moved_by_its_own_answer(blocks, monkeypatch, curious=True) for blocks in (1, 2, 3)}
    assert moved == {1: False, 2: True, 3: True}
    assert min(blocks for blocks, one in moved.items() if one) == nb15.PREDICTIONS["15.b"].answer
    assert not any(moved_by_its_own_answer(blocks, monkeypatch, curious=False) for blocks in (1, 2, 3))


def small():
    preset = find_preset("cogvideo")
    sizes = ChannelConfig(codes=20, words=len(preset.text.words) + 1, length=20, places=4, width=16, heads=2, layers=2)
    autoencoder = replace(preset.autoencoder, channels=4, norm_groups=2, multipliers=(1, 2, 2), codes=20)
    preset = replace(preset, height=8, width=8, top_k=1, autoencoder=autoencoder, image=sizes, keyframes=sizes, between=sizes)
    pipe = CogVideo(preset, **build(preset))
    for i, network in enumerate((pipe.image, pipe.keyframes, pipe.between)):
        stirred(network, i)
    return pipe


@torch.no_grad()
def test_what_is_written_with_a_memory_is_what_is_computed_at_once():
    """With one token to choose from, every written one is the likeliest of what the whole sequence says of its place."""
    pipe = small()
    words = pipe.text.encode(["a small red ring moves left"])
    for given, channel in (([False] * 5, pipe.keyframes), ([True, False, True, False, True], pipe.between)):
        tokens = drawn(20, 1, 5, 2, 2, seed=4)
        list(pipe.fill(words, None, tokens, given, channel, 1, [torch.Generator().manual_seed(0)], 1.0))
        likeliest = pipe.image(words, tokens, channel, 1, given).argmax(-1)
        for i in (i for i, stands in enumerate(given) if not stands):
            assert torch.equal(likeliest[:, i], tokens[:, i])


@torch.no_grad()
def test_without_its_second_channel_a_clip_is_pictures():
    """The switch of the notebook: alpha 1, no rate and nothing added to words and feed-forward layers leave the picture model."""
    pipe = small()
    pipe.keyframes.mix.fill_(torch.inf)
    for parameter in (pipe.keyframes.rates, pipe.keyframes.words, *pipe.keyframes.feed_forwards.parameters()):
        parameter.zero_()
    words, tokens = pipe.text.encode(["a small red ring"]), drawn(20, 1, 5, 2, 2)
    torch.testing.assert_close(pipe.image(words, tokens, pipe.keyframes, 0), pipe.image(words, tokens))


def test_one_waits_for_nine_frames():
    waited = KEYS + sum(len(range(1, KEYS, 2)) for _ in nb15.rounds(KEYS, SPACINGS[0]))
    assert waited == nb15.PREDICTIONS["15.c"].answer


def test_the_chinese_model_differs_in_its_table_of_words():
    with torch.device("meta"):
        english, chinese = ({f"{part}.{name}": p.shape for part, network in build(find_preset(preset)).items()
                             for name, p in network.named_parameters()} for preset in ("cogvideo", "cogvideo-zh"))  # fmt: skip
    assert [name for name in english if english[name] != chinese[name]] == ["image.words.weight", "keyframes.words", "between.words"]
    assert english.keys() == chinese.keys()


def test_masks_do_not_depend_on_the_order_of_the_sequence():
    at = places(3, [0, 2, 1], 4, [True, True, False])
    order = torch.randperm(len(at.frame), generator=torch.Generator().manual_seed(1))
    mixed = Places(*(values[order] for values in at))
    assert torch.equal(mixed.sees(mixed)[1], at.sees(at)[1][order][:, order])
