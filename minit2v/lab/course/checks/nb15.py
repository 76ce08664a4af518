"""Checks of notebook 15, CogVideo: two channels of attention, who sees whom between given frames, the order of recursive
interpolation, frames that were written in the order of the clip.

A mask is compared with the library's for sequences in any order, a layer with the library's channel in float64.
"""

import copy
from types import SimpleNamespace

import torch
from torch import nn

from minit2v.lab.course.comparing import TOLERANCE, built, called, normal, random_weights, recognised
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.networks.autoregressive import MaskedAttention
from minit2v.systems.cogvideo import KEYS, LENGTH, SPACINGS, ChannelConfig, CogVideo, Places, TemporalChannel, places

_TESTS, _OWN = "tests/test_systems.py::", "tests/test_lab_cogvideo.py::"
EQUATIONS = {
    "15.1": ("two channels, mixed", _TESTS + "test_cogvideo_begins_as_its_picture_transformer"),
    "15.2": ("the rate is a token", _OWN + "test_the_rate_is_said_by_the_first_token"),
    "15.3": ("who sees whom", _TESTS + "test_a_frame_of_cogvideo_depends_on_what_its_stage_gives_it"),
    "15.4": ("the loss of what is written", _OWN + "test_given_frames_are_not_in_the_loss"),
    "15.5": ("what a run of five frames spans", _OWN + "test_rounds_are_those_of_the_library"),
}

QUIZ = [
    (
        "The temporal channel starts with fresh random weights instead of a copy, and everything else is as before. What "
        "does the model paint at first, if it is asked for one frame?",
        [
            "What the picture model paints: its weights are frozen",
            "Something else: half of what every attention adds comes from the random channel",
            "Nothing: the gradient is zero",
        ],
        1,
        "Sigmoid(0) is one half. The mixture is the picture model only if both channels say the same, so the second one "
        "begins as a copy of the first.",
    ),
    (
        "In the second stage a colleague lets given frames see the written ones. Her loss becomes very small. Why is that "
        "no good news?",
        [
            "Given frames carry the answers back: a written token hears of itself through them, which it cannot when sampling",
            "A small loss is always good news",
            "The frozen weights have been changed",
        ],
        0,
        "One block takes the written tokens into a given frame, the next one takes them from there to the token that is to "
        "be predicted. While sampling nothing is there to be taken.",
    ),
    (
        "What has to be trained anew for captions in another language, if both models are built as here?",
        [
            "A text encoder for that language",
            "The transformer and its temporal channels; only their tables of words get another size",
            "Only the codebook of the autoencoder",
        ],
        1,
        "Words are tokens of the same sequence, so there is no text encoder. The tables of words get other rows, and the "
        "network learns what they mean.",
    ),
]  # fmt: skip

BEGINNING = ("every frame", "the first frame and no other", "the last frame and no other", "no frame")
PREDICTIONS = {
    "15.a": Question("A new temporal channel, stage 1, five frames. Which of them come out exactly as the frozen picture "
                     "transformer paints them alone?", BEGINNING[1], BEGINNING),
    "15.b": Question("Suppose given frames saw the written ones. After how many blocks, one after the other, could a place "
                     "know the very token that it is to predict?", 2),
    "15.c": Question("Runs of one round do not see each other, so they are written side by side. For how many frames, one "
                     "after the other, does one wait for the whole clip of 17?", 9),
}  # fmt: skip


# --- 15.1


class DualChannel(nn.Module):
    """h (b, n, d), own and along bool (n, n) -> (b, n, d): the frozen attention and its copy, mixed."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.extra = copy.deepcopy(base).requires_grad_(True)
        self.mix = nn.Parameter(torch.zeros(base.to_out.out_features))

    def forward(self, h, own, along):
        share = self.mix.sigmoid()
        return share * self.base(h, own) + (1 - share) * self.extra(h, along)


def library_channel(layer, h, own, along):
    """What the library's temporal channel makes of the weights of a DualChannel."""
    config = ChannelConfig(codes=1, words=1, length=1, places=1, width=h.shape[-1], heads=layer.base.heads, layers=1)
    channel = TemporalChannel(config).to(h.dtype)
    with torch.no_grad():
        channel.attentions[0].load_state_dict(layer.extra.state_dict())
        channel.mix.copy_(layer.mix)
        return channel.mixed(0, layer.base(h, own), h, torch.zeros(h.shape[1], dtype=torch.long), along,
                             torch.zeros_like(along, dtype=torch.long), None)


def _mixture(share=torch.sigmoid, first=None, second=None, plus=None):
    """The two channels with one thing wrong: a function (layer, h, own, along)."""

    def mistake(layer, h, own, along):
        a = share(layer.mix)
        one = layer.base(h, own) if first is None else first(layer, h, own, along)
        other = layer.extra(h, along) if second is None else second(layer, h, own, along)
        return a * one + (1 - a) * other if plus is None else plus(a, one, other)

    return mistake


DUAL_MISTAKES = {
    "the shares are swapped; the frozen attention gets sigmoid(mix)": _mixture(lambda m: 1 - m.sigmoid()),
    "mix itself is the share; it is sigmoid(mix)": _mixture(lambda m: m),
    "the share is a half forever; it is sigmoid(mix)": _mixture(lambda m: torch.full_like(m, 0.5)),
    "the share is tanh(mix), which begins at 0; it is sigmoid(mix), which begins at a half": _mixture(torch.tanh),
    "the share is softmax(mix): channels of one vector do not compete with one another": _mixture(lambda m: m.softmax(0)),
    "the masks are swapped: the frozen attention sees its own frame": _mixture(
        first=lambda b, h, own, along: b.base(h, along), second=lambda b, h, own, along: b.extra(h, own)),
    "both see their own frame only; the second channel sees along": _mixture(
        second=lambda b, h, own, along: b.extra(h, own)),
    "both see along the frames; the frozen one sees what it has learnt to see, its own": _mixture(
        first=lambda b, h, own, along: b.base(h, along)),
    "the channels are one after the other; both see the same h": _mixture(
        second=lambda b, h, own, along: b.extra(b.base(h, own), along)),
    "the frozen attention runs twice; the second channel has weights of its own": _mixture(
        second=lambda b, h, own, along: b.base(h, along)),
    "the second channel runs twice; the frozen attention is missing": _mixture(
        first=lambda b, h, own, along: b.extra(h, own)),
    "the second channel is added to the whole of the first; both are mixed": _mixture(
        plus=lambda a, one, other: one + (1 - a) * other),
    "the second channel is added whole; both are mixed": _mixture(plus=lambda a, one, other: a * one + other),
    "h is added; the block around does that": lambda b, h, own, along: h + _mixture()(b, h, own, along),
    "the second channel is missing": lambda b, h, own, along: b.base(h, own),
    "the frozen attention is missing": lambda b, h, own, along: b.extra(h, along),
    "one share for the whole vector; each channel has its own": _mixture(lambda m: m.mean().sigmoid()),
    "the channels are mixed before the attention, as weights; what they give is mixed": lambda b, h, own, along: _blended(
        b, h, along),
}  # fmt: skip


def _blended(layer, h, along):
    other = copy.deepcopy(layer.extra)
    with torch.no_grad():
        for p, q in zip(other.parameters(), layer.base.parameters()):
            p.copy_((p + q) / 2)
    return other(h, along)


def frozen_attention(d, heads, seed):
    """The library's attention in float64 with random weights."""
    attention = MaskedAttention(d, heads).double()
    attention.load_state_dict(random_weights(attention, seed))
    return attention


def stage_masks(words, frames, size, given=None):
    """own and along (n, n) of a caption and frames, as the library has them."""
    at = places(words, list(range(frames)), size, given or [False] * frames)
    return at.sees(at)


@exercise("15.1", name="DualChannel", solution=DualChannel, minutes=15, difficulty=3, importance=5)
def check_dual_channel(student):
    """A new layer with one frame; random weights with three frames and with two; what is frozen and what learns; float32."""
    for d, heads, seed in ((6, 2, 0), (8, 4, 1), (5, 1, 2)):
        base = frozen_attention(d, heads, seed)
        before = {name: p.clone() for name, p in base.state_dict().items()}
        layer = built(student, (base,))
        _begins_as_it_should(layer, base, before, d)
        own, along = stage_masks(3, 1, 4)
        h = normal(2, len(own), d, seed=seed)
        with torch.no_grad():
            at_first, alone = called(layer, h, own, along), base(h, own)
        layer.double()
        with torch.no_grad():
            layer.extra.load_state_dict(random_weights(layer.extra, seed + 7))
            layer.mix.copy_(normal(d, seed=seed + 3))
        for shape in ((3, 3, 2), (1, 2, 4)):
            own, along = stage_masks(*shape)
            h = normal(2, len(own), d, seed=seed + 1)
            with torch.no_grad():
                found, expected = called(layer, h, own, along), library_channel(layer, h, own, along)
                wrong = {cause: (lambda one=one: one(layer, h, own, along)) for cause, one in DUAL_MISTAKES.items()}
                recognised(f"the output for {shape[1]} frames", found, expected, wrong)
        close("of a new layer and one frame, where both masks are the same, the output", at_first, alone, 1e-9,
              "at the start both channels are the same attention, so their mixture is it too")
        _only_the_new_learns(layer, h, own, along)
    layer.float()
    if (found := layer(h.float(), own, along)).dtype != torch.float32:
        raise Failed("float32 for weights and inputs of float32", f"{found.dtype}", "nothing may set a dtype")
    return "one frame at the start is the picture model's; then the library's mixture, and only the new part learns"


def _begins_as_it_should(layer, base, before, d):
    """The weights of a new layer: names, sizes, copies, what is frozen."""
    for name in ("base", "extra", "mix"):
        if not hasattr(layer, name):
            raise Failed(f"an attribute {name}", "none of that name", "names are in the table above")
    if not isinstance(layer.mix, nn.Parameter):
        raise Failed("mix as an nn.Parameter", type(layer.mix).__name__, "a plain tensor is neither trained nor saved")
    wanted = {f"{part}.{name}" for part in ("base", "extra") for name in before} | {"mix"}
    if (found := set(layer.state_dict())) != wanted:
        odd = sorted(found ^ wanted)[0]
        raise Failed("the weights of base, of extra and mix, and no others",
                     f"{odd} {'missing' if odd in wanted else 'besides'}")  # fmt: skip
    same_shape("mix", layer.mix, (d,), "one number for each channel of the vector")
    if layer.mix.abs().max() > 0:
        raise Failed("mix 0 at the start", f"numbers up to {layer.mix.abs().max().item():.2g}", "sigmoid(0) is one half")
    for name, p in before.items():
        for part in (base, layer.base):
            close(f"the frozen weight {name}", part.state_dict()[name], p, 0, "the picture model is to stay as it is")
        close(f"extra.{name} of a new layer", layer.extra.state_dict()[name], p, 0,
              "the second channel begins as a copy of the first, not at random")
    shared = {p.data_ptr() for p in layer.base.parameters()} & {p.data_ptr() for p in layer.extra.parameters()}
    if shared:
        raise Failed("weights of its own for extra", "those of base", "the same object twice: copy.deepcopy makes another")
    if any(p.requires_grad for p in layer.base.parameters()):
        raise Failed("base without gradient", "weights that ask for one", "base.requires_grad_(False)")
    if not all(p.requires_grad for p in (*layer.extra.parameters(), layer.mix)):
        raise Failed("extra and mix with gradient", "weights that are frozen",
                     "a copy of frozen weights is frozen too: requires_grad_(True) after copying")


def _only_the_new_learns(layer, h, own, along):
    expected = DualChannel(copy.deepcopy(layer.base)).double()
    expected.load_state_dict(layer.state_dict())
    grads = []
    for one in (layer, expected):
        one.zero_grad()
        output = one(h, own, along)
        if not output.requires_grad:
            raise Failed("an output with a gradient", "none", "no detach() or no_grad() around the second channel")
        (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)).sum().backward()
        grads.append({name: p.grad for name, p in one.named_parameters()})
    for name, grad in grads[1].items():
        if name.startswith("base."):
            if grads[0][name] is not None:
                raise Failed(f"no gradient of {name}", "one", "base is frozen")
        elif grads[0][name] is None or not torch.allclose(grads[0][name], grad, rtol=1e-6, atol=1e-8):
            raise Failed(f"the library's gradient of {name}", "none" if grads[0][name] is None else "another",
                         "no detach(), .data or no_grad() on the way from the weights to the output")
    through = h.clone().requires_grad_()
    (grad,) = torch.autograd.grad(layer(through, own, along).sum(), through, allow_unused=True)
    (wanted,) = torch.autograd.grad(expected(through, own, along).sum(), through)
    if grad is None or not torch.allclose(grad, wanted, rtol=1e-6, atol=1e-8):
        raise Failed("the library's gradient of h", "none" if grad is None else "another",
                     "the weights of base are frozen, but the blocks before learn through it: no no_grad() around it")


# --- 15.2


def sees(frame, index, given):
    """frame, index (n,) long, given (n,) bool -> bool (n, n): does element i see element j in the temporal channel?"""
    row, column = frame[:, None], frame[None]
    before = (row == column) & (index[None] <= index[:, None])
    words = (row >= 0) & (column < 0)
    stands = (row >= 0) & given[None]
    written = ~given[:, None] & ~given[None] & (column >= 0) & (column < row)
    return before | words | stands | written


def _parts(frame, index, given):
    """What the rules are made of, each (n, n) or broadcast to it."""
    row, column = frame[:, None], frame[None]
    same = (row == column).expand(len(frame), len(frame))
    return SimpleNamespace(
        row=row, column=column, same=same, before=same & (index[None] <= index[:, None]), words=(row >= 0) & (column < 0),
        given=given[:, None].expand_as(same), column_given=given[None].expand_as(same),
        stands=given[None].expand_as(same) & (row >= 0),
        written=~given[None].expand_as(same) & (column >= 0) & (row >= 0))  # fmt: skip


def _seen(change):
    """A mask with one thing wrong: `change` gets the parts and the right mask."""
    return lambda frame, index, given: change(_parts(frame, index, given), sees(frame, index, given))


MASK_MISTAKES = {
    "given frames see written ones that come before them in the clip; a given frame sees given frames alone":
        _seen(lambda p, m: m | p.given & p.written & (p.column < p.row)),
    "given frames see all written ones; a given frame sees given frames alone": _seen(lambda p, m: m | p.given & p.written),
    "written frames see later written ones": _seen(lambda p, m: m | ~p.given & p.written & ~p.same),
    "a written frame sees the whole of itself, and so what it is to predict": _seen(
        lambda p, m: m | p.same & p.written),
    "a given frame sees itself only up to the place; it stands already, and is seen whole":
        _seen(lambda p, m: m & ~(p.given & p.same & ~p.before)),
    "given frames see only earlier given ones; they stand already, and see one another":
        _seen(lambda p, m: m & ~(p.given & p.stands & (p.column > p.row))),
    "given frames do not see one another": _seen(lambda p, m: m & ~(p.given & p.stands & ~p.same)),
    "a written frame sees only the given frames before it; the one after it is the other end of what it lies between":
        _seen(lambda p, m: m & ~(~p.given & p.stands & (p.column > p.row))),
    "a written frame does not see the given ones": _seen(lambda p, m: m & ~(~p.given & p.stands)),
    "written frames do not see earlier written ones": _seen(lambda p, m: m & ~(~p.given & p.written & ~p.same)),
    "all frames are taken as written: this is the mask of stage 1": lambda frame, index, given: sees(
        frame, index, torch.zeros_like(given)),
    "this is the channel of pictures: own frame and words": _seen(lambda p, m: p.before | p.words),
    "given and written are the wrong way round": lambda frame, index, given: sees(frame, index, ~given & (frame >= 0)),
    "frames do not see the words": _seen(lambda p, m: m & ~p.words),
    "words see given frames; words see words up to themselves alone": _seen(
        lambda p, m: m | (p.row < 0) & p.column_given),
    "words see all frames; words see words up to themselves alone": _seen(lambda p, m: m | (p.row < 0)),
    "words see later words; they see those up to themselves": _seen(lambda p, m: m | p.same & (p.row < 0)),
    "an element does not see itself; the rule is up to and including its place": _seen(
        lambda p, m: m & ~torch.eye(len(m), dtype=torch.bool)),
    "row and column are swapped: entry i, j says whether i sees j": _seen(lambda p, m: m.T),
    "True is where an element sees": _seen(lambda p, m: ~m),
    "places of other frames count by their index: index is compared within a frame only":
        lambda frame, index, given: sees(frame, index, given) & (
            (index[None] <= index[:, None]) | given[None] | (frame[None] < 0)),
}  # fmt: skip

SEQUENCES = (  # words, frames in the order of the sequence, tokens of a frame with that which begins it, given frames
    (3, (0, 1, 2, 3, 4), 3, {0, 2, 4}),
    (2, (0, 2, 4, 1, 3), 4, {0, 2, 4}),
    (1, (4, 6, 8), 2, {4, 8}),
    (4, (0, 1, 2, 3), 2, {0, 3}),
    (2, (0, 1, 2), 3, set()),
    (2, (5, 7, 9), 3, {5, 7, 9}),
    (3, (2,), 5, set()),
    (2, (0, 1, 2, 3), 1, {1, 3}),
)


def sequence(words, frames, size, given, shuffled=False):
    """frame, index and given of a sequence; shuffled, in another order, which changes nothing in who sees whom."""
    at = places(words, list(frames), size - 1, [one in given for one in frames])
    order = torch.randperm(len(at.frame), generator=torch.Generator().manual_seed(0)) if shuffled else slice(None)
    return at.frame[order], at.index[order], at.given[order]


@exercise("15.2", name="sees", solution=sees, minutes=20, difficulty=4, importance=5)
def check_sees(student):
    """Given frames first, in between, at the ends, none or all; frame numbers with gaps; the sequence shuffled."""
    for shuffled in (False, True):
        for one in SEQUENCES:
            frame, index, given = sequence(*one, shuffled)
            found = called(student, frame, index, given, what="the mask")
            expected = Places(frame, index, given).sees(Places(frame, index, given))[1]
            names = {True: ", its elements in another order", False: ""}[shuffled]
            what = f"the mask of frames {', '.join(map(str, one[1]))} with {sorted(one[3]) or 'none'} given{names}"
            if found.dtype != torch.bool:
                raise Failed(f"{what} of True and False", f"{found.dtype}", "comparisons, joined with | and &, give them")
            same_shape(what, found, expected.shape, "a row for each element that looks, a column for each that is seen")
            if not torch.equal(found, expected):
                _name_the_pair(what, found, expected, one, (frame, index, given))
    return "given, written, words: the library's mask for every set of given frames, in any order of the sequence"


def _name_the_pair(what, found, expected, one, inputs):
    """Raise Failed with the first wrong pair in words; a cause only if a known mistake gives what was found."""
    cause = next((cause for cause, wrong in MASK_MISTAKES.items() if torch.equal(wrong(*inputs), found)), "")
    i, j = (found != expected).nonzero()[0].tolist()
    frame, index, given = inputs
    named = lambda k: f"word {int(index[k])}" if frame[k] < 0 else (
        f"place {int(index[k])} of frame {int(frame[k])} ({'given' if given[k] else 'written'})")  # fmt: skip
    seen = "sees" if expected[i, j] else "does not see"
    count = int((found != expected).sum())
    raise Failed(f"in {what}: {named(i)} {seen} {named(j)}", f"the contrary; {count} of {found.numel()} pairs differ", cause)


# --- 15.3


def rounds(keys, spacing):
    """keys of a run, odd; spacing of the key frames, a power of two -> [(apart, [frames of a run, …]), …]."""
    length, found = spacing * (keys - 1) + 1, []
    while spacing > 1:
        spacing //= 2
        span = spacing * (keys - 1)
        runs = [list(range(first, first + span + 1, spacing)) for first in range(0, length - 1, span)]
        found.append((spacing, runs))
    return found


def library_rounds():
    """The runs that the library's `CogVideo.halve` writes, round by round."""
    found = []

    def fill(context, unconditional, tokens, given, channel, rate, generators, guidance):
        found.append((SPACINGS[rate], tokens[..., 0, 0].tolist()))
        yield from (i for i, stands in enumerate(given) if not stands)

    clip = torch.arange(LENGTH)[None, :, None, None]  # the token of a frame is its number
    for rate, spacing in enumerate(SPACINGS[1:], start=1):
        fake = SimpleNamespace(fill=fill, between=None)
        for _ in CogVideo.halve(fake, torch.zeros(1, 1), None, clip, spacing, rate, [None], 1.0):
            pass
    return found


def _rounds(keys, spacing, *, first=None, step=None, stop=None, order=1, number=None, apart=None):
    """The rounds with one thing wrong."""
    length, found = spacing * (keys - 1) + 1, []
    while spacing > 1:
        spacing //= 2
        span = spacing * (keys - 1)
        starts = range(0, length - 1, span) if first is None else first(length, span, spacing)
        runs = [list(range(one, one + span + 1, spacing)) for one in starts]
        runs = runs if number is None else [number(run, length, spacing) for run in runs]
        found.append((spacing if apart is None else apart(spacing), runs))
    return found[::order]


ROUNDS_MISTAKES = {
    "apart is what the given frames stand apart; it is the distance of neighbours in a run, half of that":
        lambda k, s: _rounds(k, s, apart=lambda one: 2 * one),
    "the rounds are in the wrong order: near frames need the far ones first": lambda k, s: _rounds(k, s, order=-1),
    "runs do not share their ends; a frame at the end of a run begins the next":
        lambda k, s: _rounds(k, s, first=lambda length, span, one: range(0, length, span + one)),
    "runs overlap by more than their ends, so frames are written twice":
        lambda k, s: _rounds(k, s, first=lambda length, span, one: range(0, length - span, 2 * one)),
    "runs slide by one frame of the round; every second run begins with a frame that is not there":
        lambda k, s: _rounds(k, s, first=lambda length, span, one: range(0, length - span, one)),
    "only the first run of each round": lambda k, s: _rounds(k, s, first=lambda length, span, one: [0]),
    "the last run of a round is missing": lambda k, s: _rounds(
        k, s, first=lambda length, span, one: range(0, max(length - 1 - span, 1), span)),
    "a run is the whole clip; the network writes `keys` frames at a time":
        lambda k, s: [(one, [list(range(0, s * (k - 1) + 1, one))]) for one, _ in rounds(k, s)],
    "runs count their own frames; name those of the clip": lambda k, s: _rounds(
        k, s, number=lambda run, length, one: [frame - run[0] for frame in run]),
    "frames are counted in units of the round; name those of the clip": lambda k, s: _rounds(
        k, s, number=lambda run, length, one: [frame // one for frame in run]),
    "only the frames that are written; a run has the given ones too": lambda k, s: _rounds(
        k, s, number=lambda run, length, one: run[1::2]),
    "only the given frames; a run has the written ones too": lambda k, s: _rounds(
        k, s, number=lambda run, length, one: run[::2]),
    "the given frames come first; a run is in the order of the clip": lambda k, s: _rounds(
        k, s, number=lambda run, length, one: run[::2] + run[1::2]),
    "the key frames are no round of interpolation": lambda k, s: [
        (s, [list(range(0, s * (k - 1) + 1, s))]), *rounds(k, s)],
    "the last round is missing: it goes on until frames are 1 apart": lambda k, s: rounds(k, s)[:-1],
    "one round writes all that is missing; each halves the distance": lambda k, s: rounds(k, s)[-1:],
    "the last run goes beyond the clip": lambda k, s: _rounds(
        k, s, first=lambda length, span, one: range(0, length, span)),
    "frames are counted from 1; the first is 0": lambda k, s: _rounds(
        k, s, number=lambda run, length, one: [frame + 1 for frame in run]),
    "the last frame of a run is missing: range does not reach its end": lambda k, s: _rounds(
        k, s, number=lambda run, length, one: run[:-1]),
}  # fmt: skip


def _plain(found):
    """What a student returned as plain lists of numbers."""
    if not isinstance(found, (list, tuple)):
        raise Failed("a list of rounds", type(found).__name__, "" if found is not None else "the function does not return it")
    try:
        return [(int(apart), [[int(frame) for frame in run] for run in runs]) for apart, runs in found]
    except (TypeError, ValueError):
        raise Failed("rounds as pairs (apart, runs), each run a list of numbers", f"{str(found)[:80]}") from None


@exercise("15.3", name="rounds", solution=rounds, minutes=12, difficulty=3, importance=4)
def check_rounds(student):
    """The library's five key frames 4 apart, then more and fewer keys and rounds."""
    for keys, spacing in ((KEYS, SPACINGS[0]), (5, 8), (3, 4), (9, 2), (3, 16), (7, 2), (5, 1)):
        found = _plain(student(keys, spacing))
        expected = library_rounds() if (keys, spacing) == (KEYS, SPACINGS[0]) else rounds(keys, spacing)
        if found != expected:
            cause = next((cause for cause, wrong in ROUNDS_MISTAKES.items() if wrong(keys, spacing) == found), "")
            _name_the_round(f"{keys} frames, {spacing} apart", found, expected, cause)
    return "the library's runs; every frame is written once, between frames that stand"


def _name_the_round(told, found, expected, cause):
    apart = [one for one, _ in expected]
    if [one for one, _ in found] != apart:
        raise Failed(f"rounds {apart} apart for {told}", f"{[one for one, _ in found]}", cause)
    for (one, mine), (_, wanted) in zip(found, expected):
        if mine != wanted:
            raise Failed(f"the runs {wanted} of the round {one} apart for {told}", f"{mine}", cause)


# --- 15.B


def filled(ask, frames):
    """ask (number, known {number: frame}) -> a frame; frames: a list with None where one is missing -> the whole list."""
    known = {number: frame for number, frame in enumerate(frames) if frame is not None}
    for number, frame in enumerate(frames):
        if frame is None:
            known[number] = ask(number, dict(known))
    return [known[number] for number in range(len(frames))]


def in_the_order_of_the_clip(ask, frames):
    """The colleague's loop: what is given becomes known when its turn comes."""
    known = {}
    for number, frame in enumerate(frames):
        known[number] = ask(number, dict(known)) if frame is None else frame
    return [known[number] for number in range(len(frames))]


def _filled(ask, frames, *, keep=True, order=1, again=False, shown=lambda known, number: known):
    """The loop with one thing wrong."""
    known = {number: frame for number, frame in enumerate(frames) if frame is not None}
    whole = dict(known)
    for number in list(range(len(frames)))[::order]:
        if frames[number] is None or again:
            whole[number] = ask(number, dict(shown(known, number)))
            if keep:
                known[number] = whole[number]
    return [whole[number] for number in range(len(frames))]


FILLED_MISTAKES = {
    "frames become known in the order of the clip; those that are given stand before anything is written":
        in_the_order_of_the_clip,
    "what was written is not known to the next": lambda ask, frames: _filled(ask, frames, keep=False),
    "the last frames are written first": lambda ask, frames: _filled(ask, frames, order=-1),
    "given frames are painted anew": lambda ask, frames: _filled(ask, frames, again=True),
    "only neighbours are known; a frame sees all that stands": lambda ask, frames: _filled(
        ask, frames, shown=lambda known, number: {i: one for i, one in known.items() if abs(i - number) == 1}),
    "only the future is known": lambda ask, frames: _filled(
        ask, frames, shown=lambda known, number: {i: one for i, one in known.items() if i > number}),
    "the missing frame itself is known, as None": lambda ask, frames: _filled(
        ask, frames, shown=lambda known, number: known | {number: None}),
}  # fmt: skip

HOLES = ("g.g.g", "..g", "g...", ".g.g.", "ggg", "....", "g..g.g", "g", ".")  # g is given, a dot is missing


def clip_with_holes(pattern):
    """Frames (2, 3) for each letter; None where a frame is missing."""
    return [normal(2, 3, seed=i) if letter == "g" else None for i, letter in enumerate(pattern)]


def _asked(fill, frames):
    """What a loop asks for, in order: [(number, {number: frame}), …]; and the clip that comes out."""
    asked = []

    def ask(number, known):
        number = int(number)
        asked.append((number, {int(i): one for i, one in known.items()}))
        stands = [one for one in known.values() if one is not None]
        return sum(stands, normal(2, 3, seed=100 + number)) / (1 + len(stands))

    return fill(ask, frames), asked


@exercise("15.B", name="filled", solution=filled, minutes=8, difficulty=2, importance=4)
def check_filled(student):
    """Holes everywhere: every second frame, the first, the last, several beside one another, none, all."""
    for pattern in HOLES:
        frames = clip_with_holes(pattern)
        before = list(frames)
        clip, asked = _asked(student, frames)
        if len(frames) != len(before) or any(now is not then for now, then in zip(frames, before)):
            raise Failed(f"the list for {' '.join(pattern)} as it was", "it was changed", "the frames are the caller's list")
        wanted, right = _asked(filled, frames)
        what = f"for {' '.join(pattern)} (g given)"
        cause = next((cause for cause, wrong in FILLED_MISTAKES.items() if _same(_asked(wrong, frames)[1], asked)), "")
        for number, known in asked:
            if any(one is None for one in known.values()):
                raise Failed(f"{what}: only frames among what is known for frame {number}", "None", cause)
        told = lambda log: "; ".join(f"{number} from {', '.join(map(str, sorted(known))) or 'nothing'}" for number, known in log)
        if [(n, set(k)) for n, k in asked] != [(n, set(k)) for n, k in right]:
            raise Failed(f"{what}: frames asked for as {told(right) or 'none at all'}", told(asked) or "none at all", cause)
        if not isinstance(clip, (list, tuple)) or len(clip) != len(frames):
            raise Failed(f"{what}: a list of {len(frames)} frames", f"{type(clip).__name__} {len(clip) if clip else ''}".strip(),
                         "the function does not return its result" if clip is None else "")  # fmt: skip
        for number, (found, one) in enumerate(zip(clip, wanted)):
            close(f"{what}: frame {number}", found, one, TOLERANCE, "given frames stay, written ones are what ask returned")
    return "given frames stand first; then each missing one is written from all that stands"


def _same(one, other):
    return len(one) == len(other) and all(a == b and set(x) == set(y) for (a, x), (b, y) in zip(one, other))
