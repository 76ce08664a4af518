"""Checks of notebook 14, NÜWA: the mask of a window, attention through it, one place after the other with a memory, the draw
of a token, and windows whose padding takes part.

What readers write is compared with the library's layer, which looks at a few frames at a time and knows no mask of n x n.
"""

from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange

from minit2v.lab.course.comparing import TOLERANCE, called, normal, random_weights, recognised
from minit2v.lab.course.exercises import Failed, counted, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.networks.autoregressive import MaskedAttention
from minit2v.systems.nuwa import NearbyAttention

_TESTS, _OWN = "tests/test_systems.py::", "tests/test_lab_nuwa.py::"
EQUATIONS = {
    "14.1": ("one token after the other", _OWN + "test_the_loss_is_minus_the_logarithm_of_the_chance_of_the_clip"),
    "14.2": ("the window, as far as it is written", _TESTS + "test_nearby_attention_sees_its_window_and_nothing_later"),
    "14.3": ("attention over the window",
             _TESTS + "test_nearby_attention_with_a_window_over_the_whole_clip_is_dense_causal_attention"),
    "14.4": ("the k most likely tokens", _OWN + "test_the_library_draws_with_the_chances_of_the_exercise"),
}  # fmt: skip

QUIZ = [
    (
        "You double the number of frames. The number of scores that nearby attention computes is",
        ["doubled", "four times as large", "the same"],
        0,
        "Every token looks at its own window, whose size does not change. Full attention would need four times as many.",
    ),
    (
        "The window is 3 x 3 x 3 and the decoder has six blocks. A thing is hidden for eight frames and comes back. Can the "
        "tokens of the frame in which it comes back have heard of its colour from the frames before?",
        ["Yes, attention sees everything that is written",
         "No: through six blocks at most six frames back; the colour has to come from the text",
         "Only with a larger codebook"],
        1,
        "One block reaches one frame back, six blocks reach six. The text is seen by every token in every block.",
    ),
    (
        "Written step by step with a memory, the clip differs from the one without. The temperature is tiny. What is it?",
        ["Chance: tokens are drawn", "A mistake: the memory saves work and must not change a logit", "Rounding, always"],
        1,
        "What a place computes depends on earlier places alone, and they do not change any more. Nearly without temperature "
        "there is no chance either.",
    ),
]  # fmt: skip

PREDICTIONS = {
    "14.a": Question("The window is 3 x 3 x 3: a frame, a row and a column to each side. How many tokens does a token look "
                     "at, at most, itself among them, if none may come later in raster order?", 14),
    "14.b": Question("Six such blocks, one after the other. How many frames back, at most, can a token hear of another?", 6),
    "14.c": Question("A clip has 1,024 tokens. Without a memory, the network runs over all tokens so far for each new one. "
                     "How many times as many places does it compute as with one, about?", 512, None, 2.0),
}  # fmt: skip


# --- what is common


def places(shape):
    """The places (t, y, x) of a clip in raster order."""
    return list(product(*map(range, shape)))


def made(d, heads, extent, seed):
    """The library's layer in float64, every weight at random."""
    layer = NearbyAttention(d, heads, extent).double()
    layer.load_state_dict(random_weights(layer, seed) | {"bias": torch.zeros_like(layer.bias)})  # the exercises know none
    return layer.requires_grad_(False)


def causal(shape):
    """The mask of everything that is written, (n, n)."""
    n = torch.Size(shape).numel()
    return torch.ones(n, n, dtype=torch.bool).tril()


# --- 14.1


def nearby_mask(shape, extent):
    """shape (f, h, w), extent three odd numbers -> bool (n, n): does place i of the raster order see place j?"""
    at = torch.tensor(places(shape))
    apart = at[None] - at[:, None]  # (n, n, 3): from i to j
    near = (apart.abs() <= torch.tensor(extent) // 2).all(dim=-1)
    return near & torch.ones(near.shape, dtype=torch.bool).tril()


def _apart(shape):
    at = torch.tensor(places(shape))
    return at[None] - at[:, None]


def _near(shape, extent):
    return (_apart(shape).abs() <= torch.tensor(extent) // 2).all(dim=-1)


def _flat(shape, extent):
    """Neighbours counted in the raster order itself, so that a row goes on in the next."""
    _, h, w = shape
    n = torch.arange(torch.Size(shape).numel())
    reach = [range(-(side // 2), side // 2 + 1) for side in extent]
    steps = torch.tensor([t * h * w + y * w + x for t, y, x in product(*reach)])
    return torch.isin(n[None] - n[:, None], steps) & causal(shape)


MASK_MISTAKES = {
    "neighbours were counted in the raster order, where the end of a row is next to the beginning of the row below; the "
    "distance is one of columns": _flat,
    "what comes later is seen as well; only places up to i are written": lambda s, e: _near(s, e),
    "a place does not see itself; what stands there is the token before it": lambda s, e: _near(s, e) & causal(s).tril(-1),
    "it is the other way round: row i says what place i sees": lambda s, e: nearby_mask(s, e).T,
    "True is where it is hidden; True is where i sees j": lambda s, e: ~nearby_mask(s, e),
    "earlier was asked of each axis; (t-1, y+1, x+1) is written long before (t, y, x), for its frame is":
        lambda s, e: _near(s, e) & (_apart(s) <= 0).all(-1),
    "whole earlier frames are cut off; the window goes into them": lambda s, e: _near(s, e) & (_apart(s)[..., 0] == 0)
        & causal(s),
    "all of the frame itself is seen, also what comes later in it": lambda s, e: _near(s, e) & (_apart(s)[..., 0] <= 0),
    "later rows of earlier frames are cut off": lambda s, e: _near(s, e) & (_apart(s)[..., 1] <= 0) & causal(s),
    "the extent was taken for the way to one side; a window of 3 reaches 1 to each": lambda s, e: (
        _apart(s).abs() <= torch.tensor(e)).all(-1) & causal(s),
    "the rim of the window is missing: its places are at most half of the extent away": lambda s, e: (
        _apart(s).abs() < torch.tensor(e) // 2).all(-1) & causal(s),
    "one axis that is near was enough; all three must be": lambda s, e: (
        _apart(s).abs() <= torch.tensor(e) // 2).any(-1) & causal(s),
    "the window is a diamond; it is a box, so each axis counts for itself": lambda s, e: (
        _apart(s).abs().sum(-1) <= max(e) // 2) & causal(s),
    "rows and columns of the extent are swapped": lambda s, e: nearby_mask(s, (e[0], e[2], e[1])),
    "the extent was read backwards: frames, rows, columns": lambda s, e: nearby_mask(s, e[::-1]),
    "the window has no limit: this is everything that is written": lambda s, e: causal(s),
}  # fmt: skip


@exercise("14.1", name="nearby_mask", solution=nearby_mask, minutes=10, difficulty=3, importance=5)
def check_nearby_mask(student):
    """Clips whose three sides differ, pictures, rows; windows that are cubes, flat, or larger than the clip."""
    cases = (((3, 4, 6), (3, 3, 3)), ((3, 2, 5), (3, 1, 3)), ((4, 3, 2), (1, 3, 5)), ((1, 5, 3), (5, 3, 3)),
             ((6, 1, 1), (5, 3, 3)), ((2, 4, 3), (7, 9, 11)), ((3, 4, 5), (5, 3, 3)), ((2, 3, 3), (1, 1, 1)))  # fmt: skip
    for shape, extent in cases:
        given = tuple(shape), tuple(extent)
        found = called(student, *given, what="the mask")
        what = f"the mask of a clip {shape} with a window {extent}"
        n = torch.Size(shape).numel()
        if found.dtype != torch.bool:
            raise Failed(f"{what} of True and False", f"{found.dtype}", "a comparison gives them; & joins two masks")
        same_shape(what, found, (n, n))
        expected = nearby_mask(shape, extent)
        if not torch.equal(found, expected):
            _tell_the_place(what, shape, extent, found, expected)
    return "eight windows, in clips, pictures and rows: what is near and written, and nothing else"


def _tell_the_place(what, shape, extent, found, expected):
    cause = next((text for text, wrong in MASK_MISTAKES.items() if torch.equal(wrong(shape, extent), found)), "")
    i, j = (found != expected).nonzero()[0].tolist()
    at, sees = places(shape), {True: "sees", False: "does not see"}
    raise Failed(f"{what}, in which place {at[i]} {sees[expected[i, j].item()]} place {at[j]}",
                 f"one in which it {sees[found[i, j].item()]} it", cause)  # fmt: skip


# --- 14.2


def attend(layer, x, seen):
    """A NearbyAttention's weights, x (b, f, h, w, d), seen bool (n, n) -> the output (b, f, h, w, d)."""
    q, k, v = (rearrange(y, "b f h w (n c) -> b n (f h w) c", n=layer.heads)
               for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))  # fmt: skip
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
    out = rearrange(scores.softmax(dim=-1) @ v, "b n p c -> b p (n c)")
    return layer.to_out(out).view(x.shape)


def _attended(layer, x, seen, *, split="(n c)", join="(n c)", scale=None, masked=None, dim=-1, out=True):
    """The same with one thing wrong."""
    q, k, v = (rearrange(y, f"b f h w {split} -> b n (f h w) c", n=layer.heads)
               for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))  # fmt: skip
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale(q.shape[-1], x.shape[-1]))
    if masked is None:
        weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=dim)
    else:
        weights = masked(scores, seen)
    mixed = rearrange(weights @ v, f"b n p c -> b p {join}")
    return (layer.to_out(mixed) if out else mixed).reshape(x.shape)


ATTEND_MISTAKES = {
    "the mask is not used": lambda m, x, seen: _attended(m, x, seen | True),
    "the mask was used the wrong way round: row i says what place i sees": lambda m, x, seen: _attended(m, x, seen.T),
    "True was hidden; True is what is seen, so ~seen is masked": lambda m, x, seen: _attended(
        m, x, seen, masked=lambda scores, seen: scores.masked_fill(seen, -1e9).softmax(-1)),
    "the mask came after the softmax, so that the weights of a place do not add up to 1: mask the scores":
        lambda m, x, seen: _attended(m, x, seen, masked=lambda scores, seen: scores.softmax(-1) * seen),
    "hidden scores were set to 0, and exp(0) is a weight of 1; they are minus infinity": lambda m, x, seen: _attended(
        m, x, seen, masked=lambda scores, seen: (scores * seen).softmax(-1)),
    "the scores are not divided by √c": lambda m, x, seen: _attended(m, x, seen, scale=lambda c, d: 1.0),
    "the scores are divided by the root of the whole width; c is the width of one head": lambda m, x, seen: _attended(
        m, x, seen, scale=lambda c, d: d**-0.5),
    "the scores are divided by c, not by its root": lambda m, x, seen: _attended(m, x, seen, scale=lambda c, d: 1 / c),
    "the softmax runs over the places that look; it runs over those that are looked at": lambda m, x, seen: _attended(
        m, x, seen, masked=lambda scores, seen: scores.masked_fill(~seen, -1e9).softmax(-2)),
    "the heads were split as (c n); they lie as (n c), the numbers of a head beside one another":
        lambda m, x, seen: _attended(m, x, seen, split="(c n)", join="(c n)"),
    "the heads were joined as (c n); they were split as (n c)": lambda m, x, seen: _attended(m, x, seen, join="(c n)"),
    "all numbers are one head": lambda m, x, seen: _one_head(m, x, seen),
    "to_out is missing": lambda m, x, seen: _attended(m, x, seen, out=False),
    "x is added; that is the block's business": lambda m, x, seen: x + attend(m, x, seen),
}  # fmt: skip


def _one_head(layer, x, seen):
    q, k, v = (y.flatten(1, 3) for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
    return layer.to_out(scores.softmax(-1) @ v).view(x.shape)


def dense(layer, x, seen):
    """The library's attention with a mask, with the weights of a NearbyAttention."""
    attention = MaskedAttention(x.shape[-1], layer.heads).to(x)
    attention.load_state_dict({name: p for name, p in layer.state_dict().items() if name != "bias"})
    return attention(x.flatten(1, 3), seen).view(x.shape)


@exercise("14.2", name="attend", solution=attend, minutes=10, difficulty=3, importance=4)
def check_attend(student):
    """Through windows the library's layer; through other masks dense attention; gradients, and float32 stays."""
    cases = (((8, 2, (3, 3, 3)), (2, 2, 3, 4)), ((6, 3, (1, 3, 5)), (1, 3, 2, 4)), ((4, 1, (5, 3, 3)), (3, 1, 4, 3)))
    for number, ((d, heads, extent), (b, *shape)) in enumerate(cases):
        layer, x = made(d, heads, extent, number), normal(b, *shape, d, seed=number)
        n = torch.Size(shape).numel()
        some = (normal(n, n, seed=7) > 0.3) | torch.eye(n, dtype=torch.bool)
        for name, seen in (("the window", nearby_mask(shape, extent)), ("all that is written", causal(shape)),
                           ("some places", some)):  # fmt: skip
            found = called(lambda x, seen, layer=layer: student(layer, x, seen), x, seen, what="the output")
            expected = layer(x) if name == "the window" else dense(layer, x, seen)
            wrong = {cause: (lambda one=one, seen=seen: one(layer, x, seen)) for cause, one in ATTEND_MISTAKES.items()}
            what = f"the output for {counted(b, 'clip')} {tuple(shape)}, {counted(heads, 'head')}, through {name}"
            recognised(what, found, expected, wrong)
    _same_gradient(student, layer, x, seen)
    single = student(made(d, heads, extent, 0).float(), x.float(), seen)
    if single.dtype != torch.float32:
        raise Failed("float32 for weights and inputs of float32", f"{single.dtype}", "nothing may set a dtype")
    return "through its window the library's layer, through any other mask dense attention"


def _same_gradient(student, layer, x, seen):
    """A detached branch computes the right numbers and learns nothing."""
    weighed = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)
    gradients = []
    for compute in (student, dense):
        given = x.clone().requires_grad_()
        output = (compute(layer, given, seen) * weighed).sum()
        gradients.append(torch.autograd.grad(output, given)[0] if output.requires_grad else None)
    if gradients[0] is None or not torch.allclose(*gradients, rtol=1e-6, atol=1e-8):
        raise Failed("the gradient of x that dense attention has", "none" if gradients[0] is None else "another",
                     "no detach(), .data or no_grad() on the way")  # fmt: skip


# --- 14.3


def step(layer, x, place, memory):
    """The output (b, d) of one place from its input x (b, d), after all places before it.

    memory: keys and values (b, f, h, w, heads, c) of the places so far; those of this place are added.
    """
    keys, values = memory
    q, k, v = (y.unflatten(-1, (layer.heads, -1)) for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
    here = (slice(None), *place)
    keys[here], values[here] = k, v
    ranges = (range(max(0, at - reach), min(size, at + reach + 1))
              for at, reach, size in zip(place, layer.reach, keys.shape[1:4]))  # fmt: skip
    near = [(slice(None), *other) for other in product(*ranges) if other <= place]
    k, v = (torch.stack([part[other] for other in near], dim=2) for part in memory)  # (b, heads, m, c)
    weights = (q[:, :, None] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return layer.to_out((weights @ v).flatten(1))


def _stepped(layer, x, place, memory, *, near=None, stored=None, scale=None, out=True, weigh=None):
    """The step with one thing wrong."""
    keys, values = memory
    q, k, v = (y.unflatten(-1, (layer.heads, -1)) for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
    (stored or _store)(memory, place, k, v)
    ranges = [range(max(0, at - reach), min(size, at + reach + 1))
              for at, reach, size in zip(place, layer.reach, keys.shape[1:4])]  # fmt: skip
    chosen = [other for other in product(*ranges) if other <= place] if near is None else near(layer, place, keys, ranges)
    k, v = (torch.stack([part[(slice(None), *other)] for other in chosen], dim=2) for part in memory)
    scores = q[:, :, None] @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    weights = scores.softmax(-1) if weigh is None else weigh(scores)
    mixed = (weights @ v).flatten(1)
    return layer.to_out(mixed) if out else mixed


def _store(memory, place, k, v):
    for part, new in zip(memory, (k, v)):
        part[(slice(None), *place)] = new


def _flat_window(layer, place, keys, ranges):
    """Neighbours of the raster order, where rows go on in the next."""
    shape = keys.shape[1:4]
    order = places(shape)
    steps = [t * shape[1] * shape[2] + y * shape[2] + x
             for t, y, x in product(*(range(-reach, reach + 1) for reach in layer.reach))]  # fmt: skip
    here = order.index(place)
    return [order[here + one] for one in steps if one <= 0 <= here + one]


def _held_at_the_rim(layer, place, keys, ranges):
    """Places outside the clip taken as the nearest within."""
    every = product(*(range(at - reach, at + reach + 1) for at, reach in zip(place, layer.reach)))
    return [tuple(min(max(at, 0), size - 1) for at, size in zip(other, keys.shape[1:4])) for other in every if other <= place]


STEP_MISTAKES = {
    "the place does not see itself": lambda m, x, p, memory: _stepped(
        m, x, p, memory, near=lambda m, p, keys, ranges: [o for o in product(*ranges) if o < p] or [p]),
    "key and value of the place are kept after the attention; it sees itself, so they are kept before":
        lambda m, x, p, memory: _kept_late(m, x, p, memory),
    "keys and values are never kept": lambda m, x, p, memory: _stepped(m, x, p, memory, stored=lambda *_: None),
    "all that is written is seen; only what lies in the window": lambda m, x, p, memory: _stepped(
        m, x, p, memory, near=lambda m, p, keys, ranges: [o for o in places(keys.shape[1:4]) if o <= p]),
    "the whole window is seen, also places that are not written yet": lambda m, x, p, memory: _stepped(
        m, x, p, memory, near=lambda m, p, keys, ranges: list(product(*ranges))),
    "earlier was asked of each axis; in an earlier frame the rows below and the columns to the right are written as well":
        lambda m, x, p, memory: _stepped(m, x, p, memory, near=lambda m, p, keys, ranges: [
            o for o in product(*ranges) if all(a <= b for a, b in zip(o, p))]),
    "only the frame itself is seen": lambda m, x, p, memory: _stepped(
        m, x, p, memory, near=lambda m, p, keys, ranges: [o for o in product(*ranges) if o <= p and o[0] == p[0]]),
    "later rows of earlier frames are left out": lambda m, x, p, memory: _stepped(
        m, x, p, memory, near=lambda m, p, keys, ranges: [o for o in product(*ranges) if o <= p and o[1] <= p[1]]),
    "the window wraps around: beside the first column lies the last of the row above": lambda m, x, p, memory: _stepped(
        m, x, p, memory, near=_flat_window),
    "places outside the clip were replaced by the nearest within; they are left out": lambda m, x, p, memory: _stepped(
        m, x, p, memory, near=_held_at_the_rim),
    "the scores are not divided by √c": lambda m, x, p, memory: _stepped(m, x, p, memory, scale=1.0),
    "the scores are divided by the root of the whole width; c is the width of one head": lambda m, x, p, memory: _stepped(
        m, x, p, memory, scale=x.shape[-1] ** -0.5),
    "the key was kept as the value": lambda m, x, p, memory: _stepped(
        m, x, p, memory, stored=lambda memory, p, k, v: _store(memory, p, k, k)),
    "to_out is missing": lambda m, x, p, memory: _stepped(m, x, p, memory, out=False),
    "x is added; that is the block's business": lambda m, x, p, memory: x + step(m, x, p, memory),
}  # fmt: skip


def _kept_late(layer, x, place, memory):
    new = []
    out = _stepped(layer, x, place, memory, stored=lambda memory, place, k, v: new.extend((k, v)))
    _store(memory, place, *new)
    return out


def walk(student, layer, x, used):
    """The outputs of a step for all places of x (b, f, h, w, d), one after the other; `used`: the memory is an old one."""
    b, *shape, d = x.shape
    size = (b, *shape, layer.heads, d // layer.heads)
    memory = tuple(3 * normal(*size, seed=20 + i) * used for i in range(2))
    return torch.stack([student(layer, x[(slice(None), *place)].clone(), place, memory) for place in places(shape)],
                       dim=1).view(x.shape)  # fmt: skip


def _one_step(student, layer, x, place, memory, asked):
    """A step as the check takes it: its result is a tensor of the right shape, and it computed one key a clip."""
    asked.clear()
    rest = [part.clone() for part in memory]
    found = called(lambda x: student(layer, x, place, memory), x, what=f"the output of place {place}")
    same_shape(f"the output of place {place}", found, x.shape)
    if (keys := sum(asked)) != len(x):
        raise Failed(f"{len(x)} keys computed at place {place}, one for each clip", f"{keys}",
                     "those of the places before are in the memory: nothing is computed twice" if keys > len(x) else "")
    for part, before, name in zip(memory, rest, ("keys", "values")):
        before[(slice(None), *place)] = part[(slice(None), *place)]
        if not torch.equal(part, before):
            raise Failed(f"the {name} of all other places as they were", f"some were changed at place {place}",
                         "a step keeps its own key and value, and no others")  # fmt: skip
    return found


@exercise("14.3", name="step", solution=step, minutes=20, difficulty=4, importance=5)
def check_step(student):
    """Clips written place by place, from an empty memory and from one full of old numbers: the whole at once."""
    cases = (((8, 2, (3, 3, 3)), (2, 3, 3, 4)), ((6, 3, (1, 3, 5)), (3, 2, 2, 4)), ((4, 1, (5, 1, 3)), (1, 4, 2, 3)))
    for number, ((d, heads, extent), (b, *shape)) in enumerate(cases):
        layer, x, asked = made(d, heads, extent, number), normal(b, *shape, d, seed=number), []
        hook = layer.to_k.register_forward_hook(lambda _, inputs, __: asked.append(inputs[0].shape[:-1].numel()))
        for used in (0, 1):
            watched = lambda layer, x, place, memory: _one_step(student, layer, x, place, memory, asked)  # noqa: B023, E731
            found = walk(watched, layer, x, used)
            what = f"the outputs of {counted(b, 'clip')} {tuple(shape)} with a window {extent}, " + (
                "written over the memory of other clips" if used else "written place by place")
            expected = layer(x)
            if not torch.allclose(found, expected, rtol=0, atol=TOLERANCE):
                wrong = {cause: (lambda one=one: walk(one, layer, x, used)) for cause, one in STEP_MISTAKES.items()}
                recognised(what, found, expected, wrong)
        hook.remove()
    _same_memory(student)
    return "place by place the same numbers as all at once, one key and one value computed for each"


def _same_memory(student):
    """What is kept are the keys and the values, so that the library's own steps could go on."""
    layer, x = made(8, 2, (3, 3, 3), 4), normal(2, 2, 2, 3, 8, seed=5)
    memory = tuple(torch.zeros(2, 2, 2, 3, 2, 4, dtype=torch.float64) for _ in range(2))
    for place in places((2, 2, 3)):
        student(layer, x[(slice(None), *place)].clone(), place, memory)
    for part, project, name in zip(memory, (layer.to_k, layer.to_v), ("keys", "values")):
        recognised(f"the {name} in the memory", part, project(x).unflatten(-1, (2, -1)), {})


# --- 14.4


def chances(logits, top_k, temperature):
    """Logits (b, codes) -> the chance of each token to be drawn, (b, codes)."""
    least = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
    kept = logits.masked_fill(logits < least, float("-inf"))
    return (kept / temperature).softmax(dim=1)


def _kept(logits, top_k):
    least = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
    return logits >= least


def _chances(logits, top_k, temperature, *, keep=None, hidden=float("-inf"), warm=None):
    """The chances with one thing wrong."""
    kept = (keep or _kept)(logits, top_k)
    warm = warm or (lambda x: x / temperature)
    return warm(logits).masked_fill(~kept, hidden).softmax(1)


CHANCES_MISTAKES = {
    "the logits were multiplied by the temperature; a high one makes them alike, so it divides":
        lambda x, k, t: _chances(x, k, t, warm=lambda x: x * t),
    "the temperature is missing": lambda x, k, t: _chances(x, k, 1.0),
    "all tokens have a chance; only the k with the largest logits do": lambda x, k, t: (x / t).softmax(1),
    "what is left does not add up to 1: cut off the logits before the softmax": lambda x, k, t: (x / t).softmax(1) * _kept(x, k),
    "logits that are cut off were set to 0, and exp(0) is 1; they are minus infinity": lambda x, k, t: _chances(
        x, k, t, hidden=0.0),
    "one limit was used for the whole batch; each row has its own": lambda x, k, t: _chances(
        x, k, t, keep=lambda x, k: x >= x.topk(min(k, x.shape[1]), dim=1).values[:, -1].min()),
    "the k smallest were kept": lambda x, k, t: _chances(x, k, t, keep=lambda x, k: _kept(-x, k)),
    "one token too few: the k-th largest is kept": lambda x, k, t: _chances(
        x, k, t, keep=lambda x, k: x > x.topk(min(k, x.shape[1]), dim=1).values[:, -1:]),
    "one token too many": lambda x, k, t: _chances(x, k, t, keep=lambda x, k: _kept(x, k + 1)),
    "the temperature divides probabilities; it divides the logits": lambda x, k, t: (
        (_chances(x, k, 1.0) / t).softmax(1)),
    "the softmax was taken twice": lambda x, k, t: chances(x, k, t).softmax(1),
    "these are logarithms": lambda x, k, t: chances(x, k, t).log(),
}  # fmt: skip


@exercise("14.4", name="chances", solution=chances, minutes=8, difficulty=2, importance=4)
def check_chances(student):
    """Rows that have nothing in common, from one token to more than there are, cold and hot."""
    for dtype in (torch.float64, torch.float32):
        logits = (2 * normal(4, 9, seed=3) + torch.tensor([0, 5, -40, 300.0])[:, None]).to(dtype)
        for top_k, temperature in ((3, 0.5), (4, 1.0), (1, 2.0), (9, 2.5), (20, 0.7), (5, 3.0), (2, 0.01)):
            found = called(lambda x, k=top_k, t=temperature: student(x, k, t), logits, what="the chances")
            what = f"the chances for top_k {top_k}, temperature {temperature:g}"
            if found.dtype != dtype:
                raise Failed(f"{what} in {dtype}, as the logits", f"{found.dtype}", "nothing may set a dtype")
            wrong = {cause: (lambda one=one, k=top_k, t=temperature: one(logits, k, t))
                     for cause, one in CHANCES_MISTAKES.items()}  # fmt: skip
            tolerance = TOLERANCE if dtype == torch.float64 else 1e-5
            recognised(what, found, chances(logits, top_k, temperature), wrong, tolerance)
    return "each row adds up to 1 over its own k largest, sharper when it is cold"


# --- 14.B


def windows(y, extent):
    """Each place's window of what stands around it, as far as it is written: y (f, h, w, c) -> (f, h, w, c, o), the place
    itself last. Outside of the clip stand zeros."""
    frames, rows, columns = (side // 2 for side in extent)
    padded = F.pad(y, (0, 0, columns, columns, rows, rows, frames, 0))
    whole = padded.unfold(0, frames + 1, 1).unfold(1, extent[1], 1).unfold(2, extent[2], 1).flatten(4)
    return whole[..., : whole.shape[-1] - rows * extent[2] - columns]


def looked(q, k, v, extent):
    """q, k, v (f, h, w, c) of one head -> what each place gets from its window, (f, h, w, c)."""
    scores = torch.einsum("fhwc,fhwco->fhwo", q, windows(k, extent)) * q.shape[-1] ** -0.5
    inside = windows(torch.ones_like(q[..., :1]), extent)[..., 0, :] > 0
    weights = scores.masked_fill(~inside, float("-inf")).softmax(dim=-1)
    return torch.einsum("fhwo,fhwco->fhwc", weights, windows(v, extent))


def _looked(q, k, v, extent, *, weigh, scale=None):
    """The same with other weights."""
    scores = torch.einsum("fhwc,fhwco->fhwo", q, windows(k, extent)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    inside = windows(torch.ones_like(q[..., :1]), extent)[..., 0, :] > 0
    return torch.einsum("fhwo,fhwco->fhwc", weigh(scores, inside), windows(v, extent))


LOOKED_MISTAKES = {
    "places outside the clip still take part: their keys are zeros, their scores are 0, and exp(0) is a weight of 1":
        lambda q, k, v, e: _looked(q, k, v, e, weigh=lambda s, inside: s.softmax(-1)),
    "what is inside was hidden": lambda q, k, v, e: _looked(
        q, k, v, e, weigh=lambda s, inside: s.masked_fill(inside, -1e9).softmax(-1)),
    "a score of 0 need not be one of a place outside: a key within may be zero": lambda q, k, v, e: _looked(
        q, k, v, e, weigh=lambda s, _: s.masked_fill(s == 0, float("-inf")).softmax(-1)),
    "the scores are not divided by √c any more": lambda q, k, v, e: _looked(
        q, k, v, e, scale=1.0, weigh=lambda s, inside: s.masked_fill(~inside, float("-inf")).softmax(-1)),
    "outside of the clip stands the nearest place within; it is left out": lambda q, k, v, e: _rim_repeated(q, k, v, e),
    "places outside were taken off twice: their weights need no other correction than the mask":
        lambda q, k, v, e: _looked(q, k, v, e, weigh=lambda s, inside: s.masked_fill(~inside, float("-inf")).softmax(-1)
                                   * inside.shape[-1] / inside.sum(-1, keepdim=True)),
}  # fmt: skip


def _rim_repeated(q, k, v, extent):
    """Attention with the clip's rim repeated outside of it."""
    frames, rows, columns = (side // 2 for side in extent)
    f, h, w, _ = q.shape
    at = [torch.arange(-reach, size + reach).clamp(0, size - 1) for reach, size in zip((frames, rows, columns), (f, h, w))]
    grown = [part[at[0]][:, at[1]][:, :, at[2]] for part in (q, k, v)]
    inner = slice(frames, frames + f), slice(rows, rows + h), slice(columns, columns + w)
    return looked(*grown, extent)[inner]


@exercise("14.B", name="looked", solution=looked, minutes=10, difficulty=3, importance=4)
def check_looked(student):
    """Cubes and flat windows, a clip smaller than its window, keys that are zero; a clip of equal values stays equal."""
    for number, (shape, extent) in enumerate((((2, 3, 5), (3, 3, 3)), ((3, 4, 2), (1, 3, 5)), ((4, 1, 3), (5, 3, 1)),
                                              ((2, 2, 3), (7, 5, 9)))):  # fmt: skip
        q, k, v = (normal(*shape, 4, seed=10 * number + i) for i in range(3))
        k[-1, 0, 0] = v[-1, 0, -1] = 0  # within the clip
        what = f"the output for a clip {shape} with a window {extent}"
        found = called(lambda *given, e=extent: student(*given, e), q, k, v, what="the output")
        expected = attended(q, k, v, extent)
        wrong = {cause: (lambda one=one, e=extent: one(q, k, v, e)) for cause, one in LOOKED_MISTAKES.items()}
        recognised(what, found, expected, wrong)
        alike = torch.ones_like(v) * normal(4, seed=2)
        recognised(f"the output for a clip {shape} whose values are all alike: alike", student(q, k, alike, extent), alike, {})
    return "weights that add up to 1 over the places inside the clip, also at its rim"


def attended(q, k, v, extent):
    """What `looked` must give, through the mask (n, n) of the first exercise."""
    flat = [part.flatten(0, 2)[None] for part in (q, k, v)]
    mask = nearby_mask(q.shape[:3], extent)
    return F.scaled_dot_product_attention(*flat, attn_mask=mask)[0].view(q.shape)
