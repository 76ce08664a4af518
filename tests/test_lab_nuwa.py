"""The exercises of notebook 14: right solutions pass however they are written, wrong ones do not; what the notebook says of
windows, memories and draws; and the widget that shows a mask."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_refused
from einops import rearrange

from minit2v.errors import UserError
from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb14
from minit2v.lab.course.comparing import normal
from minit2v.lab.widgets.attention_mask import AttentionMask, blocks_between
from minit2v.lab.widgets.base import png
from minit2v.networks.autoregressive import draw
from minit2v.systems.nuwa import NearbyAttention, Nuwa, NuwaConfig
from minit2v.training.tokens import cross_entropy

DOUBLE = torch.float64


def known(mistakes):
    return {f"known: {cause[:70]}": mistake for cause, mistake in mistakes.items()}


def nothing(*given):
    return None


# --- wrong answers

MASK = known(nb14.MASK_MISTAKES) | {
    "additive": lambda s, e: torch.zeros(nb14.causal(s).shape).masked_fill(~nb14.nearby_mask(s, e), float("-inf")),
    "numbers": lambda s, e: nb14.nearby_mask(s, e).long(),
    "of places (f, h, w)": lambda s, e: nb14.nearby_mask(s, e).view(*s, *s),
    "always 3 x 3 x 3": lambda s, e: nb14.nearby_mask(s, (3, 3, 3)),
    "frames last": lambda s, e: nb14.nearby_mask(s[::-1], e[::-1]),
    "rows and columns of the clip swapped": lambda s, e: nb14.nearby_mask((s[0], s[2], s[1]), e),
    "two axes": lambda s, e: (nb14._apart(s)[..., 1:].abs() <= torch.tensor(e)[1:] // 2).all(-1) & nb14.causal(s),
    "looks ahead within its row": lambda s, e: nb14.nearby_mask(s, e) | (
        nb14._near(s, e) & (nb14._apart(s)[..., :2] == 0).all(-1)),
    "one frame more": lambda s, e: nb14.nearby_mask(s, (e[0] + 2, e[1], e[2])),
    "the first token is always seen": lambda s, e: nb14.nearby_mask(s, e) | (torch.arange(nb14.causal(s).shape[0]) == 0),
    "a distance of the root of squares": lambda s, e: ((nb14._apart(s) ** 2).sum(-1) <= (max(e) // 2) ** 2) & nb14.causal(s),
    "nothing is returned": nothing,
}

ATTEND = known(nb14.ATTEND_MISTAKES) | {
    "another order of places": lambda m, x, seen: nb14.attend(m, x.transpose(2, 3), seen).transpose(2, 3).contiguous(),
    "v in the place of k": lambda m, x, seen: _with(m, x, seen, lambda q, k, v: (q, v, v)),
    "k in the place of v": lambda m, x, seen: _with(m, x, seen, lambda q, k, v: (q, k, k)),
    "q is one for all": lambda m, x, seen: _with(m, x, seen, lambda q, k, v: (q.mean(2, keepdim=True).expand_as(q), k, v)),
    "keys of the first clip": lambda m, x, seen: _with(m, x, seen, lambda q, k, v: (q, k[:1].expand_as(k), v[:1].expand_as(v))),
    "sigmoid": lambda m, x, seen: nb14._attended(m, x, seen, masked=lambda s, seen: s.sigmoid() * seen),
    "twice": lambda m, x, seen: nb14.attend(m, nb14.attend(m, x, seen), seen),
    "always the layer's own window": lambda m, x, seen: m(x),
    "always causal": lambda m, x, seen: nb14.attend(m, x, torch.ones_like(seen).tril()),
    "the mask and the triangle": lambda m, x, seen: nb14.attend(m, x, seen.tril()),
    "detached": lambda m, x, seen: nb14.attend(m, x.detach(), seen),
    "detached weights of the sum": lambda m, x, seen: nb14._attended(
        m, x, seen, masked=lambda s, seen: s.masked_fill(~seen, float("-inf")).softmax(-1).detach()),
    "in float32": lambda m, x, seen: nb14.attend(m, x, seen).float().to(x.dtype),
    "always float64": lambda m, x, seen: nb14.attend(m, x, seen).double(),
    "flat": lambda m, x, seen: nb14.attend(m, x, seen).flatten(1, 3),
    "x is changed": lambda m, x, seen: nb14.attend(m, x.mul_(1 + 1e-9), seen),
    "nothing is returned": nothing,
}


def _with(layer, x, seen, change):
    q, k, v = change(*(rearrange(y, "b f h w (n c) -> b n (f h w) c", n=layer.heads)
                       for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x))))  # fmt: skip
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return layer.to_out(rearrange(out, "b n p c -> b p (n c)")).view(x.shape)


def recomputing(layer, x, place, memory):
    """Right numbers, but the keys of all places are computed again."""
    if place == (0, 0, 0):
        recomputing.seen = []
    recomputing.seen.append(x)
    for new in torch.stack(recomputing.seen[:-1]) if len(recomputing.seen) > 1 else ():
        layer.to_k(new)
    return nb14.step(layer, x, place, memory)


def moved_on(layer, x, place, memory):
    """Keys and values are kept one place too far."""
    shape = memory[0].shape[1:4]
    order = nb14.places(shape)
    return nb14._stepped(layer, x, place, memory, stored=lambda memory, place, k, v: nb14._store(
        memory, order[(order.index(place) + 1) % len(order)], k, v))


def cleaning(layer, x, place, memory):
    """Forgets what is behind the window."""
    out = nb14.step(layer, x, place, memory)
    for part in memory:
        part[:, : max(0, place[0] - layer.reach[0])] = 0
    return out


STEP = known(nb14.STEP_MISTAKES) | {
    "all is computed again": recomputing,
    "kept one place too far": moved_on,
    "old places are cleaned": cleaning,
    "the first clip's keys for all": lambda m, x, p, memory: nb14._stepped(
        m, x, p, memory, stored=lambda memory, place, k, v: nb14._store(memory, place, k[:1], v[:1])),
    "keys are added up": lambda m, x, p, memory: nb14._stepped(m, x, p, memory, stored=lambda memory, place, k, v: [
        part[(slice(None), *place)].add_(new) for part, new in zip(memory, (k, v))]),
    "places outside weigh as zeros": lambda m, x, p, memory: nb14._stepped(
        m, x, p, memory, weigh=lambda s: s.exp() / (s.exp().sum(-1, keepdim=True) + 1)),
    "the mean of the window": lambda m, x, p, memory: nb14._stepped(
        m, x, p, memory, weigh=lambda s: torch.ones_like(s) / s.shape[-1]),
    "its own value alone": lambda m, x, p, memory: nb14._stepped(m, x, p, memory, near=lambda m, p, keys, ranges: [p]),
    "a window of frames only": lambda m, x, p, memory: nb14._stepped(
        m, x, p, memory, near=lambda m, p, keys, ranges: [(t, *p[1:]) for t in ranges[0] if t <= p[0]]),
    "rows and columns of the window swapped": lambda m, x, p, memory: nb14._stepped(
        m, x, p, memory, near=lambda m, p, keys, ranges: [
            o for o in nb14.places(keys.shape[1:4]) if o <= p and all(
                abs(a - b) <= r for a, b, r in zip(o, p, (m.reach[0], m.reach[2], m.reach[1])))]),
    "always 3 x 3 x 3": lambda m, x, p, memory: nb14._stepped(m, x, p, memory, near=lambda m, p, keys, ranges: [
        o for o in nb14.places(keys.shape[1:4]) if o <= p and all(abs(a - b) <= 1 for a, b in zip(o, p))]),
    "one output too many": lambda m, x, p, memory: nb14.step(m, x, p, memory)[:, None],
    "in float32": lambda m, x, p, memory: nb14.step(m, x, p, memory).float().double(),
    "x is changed": lambda m, x, p, memory: nb14.step(m, x.mul_(1 + 1e-9), p, memory),
    "nothing is returned": nothing,
}  # fmt: skip

CHANCES = known(nb14.CHANCES_MISTAKES) | {
    "no draw at all: the largest": lambda x, k, t: F.one_hot(x.argmax(1), x.shape[1]).to(x),
    "a softmax over the batch": lambda x, k, t: nb14.chances(x, k, t).T.softmax(1).T,
    "sorted": lambda x, k, t: nb14.chances(x, k, t).sort(1, descending=True).values,
    "only the k": lambda x, k, t: (x.topk(min(k, x.shape[1]), dim=1).values / t).softmax(1),
    "all k alike": lambda x, k, t: nb14._kept(x, k).to(x) / min(k, x.shape[1]),
    "at most five": lambda x, k, t: nb14.chances(x, min(k, 5), t),
    "never colder than 1": lambda x, k, t: nb14.chances(x, k, max(t, 1.0)),
    "the largest logit twice cold": lambda x, k, t: nb14.chances(x, k, t * t),
    "in float32": lambda x, k, t: nb14.chances(x.float(), k, t).to(x),
    "always float64": lambda x, k, t: nb14.chances(x, k, t).double(),
    "x is changed": lambda x, k, t: nb14.chances(x.add_(1e-9), k, t),
    "nothing is returned": nothing,
}

LOOKED = known(nb14.LOOKED_MISTAKES) | {
    "weights of what is outside set to 0 after the softmax": lambda q, k, v, e: nb14._looked(
        q, k, v, e, weigh=lambda s, inside: s.softmax(-1) * inside),
    "divided by the number of places": lambda q, k, v, e: nb14._looked(
        q, k, v, e, weigh=lambda s, inside: s.softmax(-1) * s.shape[-1] / inside.sum(-1, keepdim=True)),
    "the rim is made brighter": lambda q, k, v, e: nb14._looked(
        q, k, v, e, weigh=lambda s, inside: s.softmax(-1) / 0.8),
    "a padding of minus one": lambda q, k, v, e: nb14._looked(
        q, k, v, e, weigh=lambda s, inside: s.masked_fill(~inside, -1.0).softmax(-1)),
    "hidden with minus 5": lambda q, k, v, e: nb14._looked(
        q, k, v, e, weigh=lambda s, inside: s.masked_fill(~inside, -5.0).softmax(-1)),
    "only outside of rows": lambda q, k, v, e: nb14._looked(q, k, v, e, weigh=lambda s, inside: s.masked_fill(
        ~inside.any(dim=2, keepdim=True), float("-inf")).softmax(-1)),
    "the mean": lambda q, k, v, e: nb14._looked(
        q, k, v, e, weigh=lambda s, inside: inside / inside.sum(-1, keepdim=True, dtype=s.dtype)),
    "no causal cut": lambda q, k, v, e: F.scaled_dot_product_attention(
        *(y.flatten(0, 2)[None] for y in (q, k, v)), attn_mask=nb14._near(q.shape[:3], e))[0].view(q.shape),
    "everything that is written": lambda q, k, v, e: nb14.looked(q, k, v, (21, 21, 21)),
    "always 3 x 3 x 3": lambda q, k, v, e: nb14.looked(q, k, v, (3, 3, 3)),
    "in float32": lambda q, k, v, e: nb14.looked(q.float(), k.float(), v.float(), e).double(),
    "v is changed": lambda q, k, v, e: nb14.looked(q, k, v.mul_(1 + 1e-9), e),
    "nothing is returned": nothing,
}  # fmt: skip

WRONG = {"14.1": MASK, "14.2": ATTEND, "14.3": STEP, "14.4": CHANCES, "14.B": LOOKED}
ALL = [(number, name) for number, wrong in WRONG.items() for name in wrong]


@pytest.mark.parametrize("number, name", ALL, ids=[" ".join(one) for one in ALL])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


KNOWN = [(number, cause, mistake) for number, mistakes in
         (("14.1", nb14.MASK_MISTAKES), ("14.2", nb14.ATTEND_MISTAKES), ("14.3", nb14.STEP_MISTAKES),
          ("14.4", nb14.CHANCES_MISTAKES), ("14.B", nb14.LOOKED_MISTAKES)) for cause, mistake in mistakes.items()]  # fmt: skip


@pytest.mark.parametrize("number, cause, mistake", KNOWN, ids=[f"{number} {cause[:40]}" for number, cause, _ in KNOWN])
def test_a_known_mistake_is_named(number, cause, mistake):
    assert exercises.run(number, mistake).message.endswith(f"Likely cause: {cause}")


@pytest.mark.parametrize("number, name, told", [
    ("14.1", "additive", "a comparison gives them"), ("14.2", "detached", "no detach()"),
    ("14.2", "always float64", "nothing may set a dtype"), ("14.3", "all is computed again", "nothing is computed twice"),
    ("14.3", "old places are cleaned", "and no others"), ("14.3", "nothing is returned", "does not return its result"),
])  # fmt: skip
def test_a_cause_is_named(number, name, told):
    assert told in exercises.run(number, WRONG[number][name]).message


def test_the_place_of_a_wrong_mask_is_told():
    message = exercises.run("14.1", lambda s, e: nb14.nearby_mask(s, e).tril(-1)).message
    assert "place (0, 0, 0) sees place (0, 0, 0)" in message and "does not see it" in message


# --- other ways to write it


def mask_by_loops(shape, extent):
    order = list(product(*map(range, shape)))
    return torch.tensor([[all(abs(a - b) <= side // 2 for a, b, side in zip(i, j, extent)) and j <= i for j in order]
                         for i in order])  # fmt: skip


def attend_by_torch(layer, x, seen):
    q, k, v = (y.flatten(1, 3).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
               for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))  # fmt: skip
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return layer.to_out(out.transpose(1, 2).flatten(2)).unflatten(1, x.shape[1:4])


def step_by_a_mask(layer, x, place, memory):
    """Over the whole memory, with everything hidden that is far away or not written."""
    keys, values = memory
    q, k, v = (y.unflatten(-1, (layer.heads, -1)) for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
    keys[:, place[0], place[1], place[2]], values[:, place[0], place[1], place[2]] = k, v
    shape = keys.shape[1:4]
    seen = nb14.nearby_mask(shape, [2 * reach + 1 for reach in layer.reach])[list(product(*map(range, shape))).index(place)]
    scores = torch.einsum("bnc,bfhwnc->bnfhw", q, keys).flatten(2) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return layer.to_out(torch.einsum("bnp,bpnc->bnc", weights, values.flatten(1, 3)).flatten(1))


def chances_by_sorting(logits, top_k, temperature):
    order = logits.argsort(dim=1, descending=True)
    kept = order[:, :top_k]
    weights = ((logits - logits.max(1, keepdim=True).values) / temperature).exp()
    return torch.zeros_like(logits).scatter(1, kept, weights.gather(1, kept)) / weights.gather(1, kept).sum(1, keepdim=True)


@pytest.mark.parametrize("number, right", [
    ("14.1", mask_by_loops), ("14.2", attend_by_torch), ("14.3", step_by_a_mask), ("14.4", chances_by_sorting),
    ("14.B", nb14.attended),
])  # fmt: skip
def test_other_ways_to_write_it_pass(number, right):
    outcome = exercises.run(number, right)
    assert outcome.passed, outcome.message


# --- what the notebook says


def test_predictions_are_true():
    shape = (8, 5, 6)
    mask = nb14.nearby_mask(shape, (3, 3, 3))
    assert mask.sum(1).max() == nb14.PREDICTIONS["14.a"].answer
    reached = blocks_between(mask.numpy(), 6) > 0
    frame = np.arange(len(mask)) // 30
    assert max((frame[:, None] - frame[None])[reached]) == nb14.PREDICTIONS["14.b"].answer
    n, asked = 1024, nb14.PREDICTIONS["14.c"]
    assert abs(sum(range(1, n + 1)) / n - asked.answer) < asked.tolerance


def test_the_loss_is_minus_the_logarithm_of_the_chance_of_the_clip():
    """Multiplied up token by token, as they are written."""
    config = NuwaConfig(codes=7, frames=2, rows=2, columns=3, width=8, heads=2, encoder_layers=1, layers=1, context_dim=4)
    torch.manual_seed(0)
    model, tokens, context = Nuwa(config).double().eval(), torch.randint(7, (1, 2, 2, 3)), normal(1, 3, 4)
    with torch.no_grad():
        text, memory, before, chance = model.encode(context), model.memory(1, (2, 2, 3)), torch.tensor([7]), 1.0
        for place in product(range(2), range(2), range(3)):
            odds = model.step(before, text, place, memory).softmax(1)
            before = tokens[(slice(None), *place)]
            chance *= odds[0, before].item()
        loss = cross_entropy(model(tokens, context), tokens)
    assert loss.sum().item() == pytest.approx(-math.log(chance), rel=1e-5)


def test_the_library_draws_with_the_chances_of_the_exercise():
    logits, n = 2 * normal(1, 6, seed=1), 3000
    drawn = draw(logits.expand(n, -1), [torch.Generator().manual_seed(i) for i in range(n)], top_k=4, temperature=1.5)
    often = torch.bincount(drawn, minlength=6) / n
    assert (often - nb14.chances(logits, 4, 1.5)[0]).abs().max() < 4 * (0.25 / n) ** 0.5
    assert (often > 0).sum() == 4


def test_padding_that_takes_part_is_missed_by_gradients_and_by_the_middle():
    broken, shape = next(iter(nb14.LOOKED_MISTAKES.values())), (3, 4, 5)
    q, k, v = (normal(*shape, 4, seed=i).requires_grad_() for i in range(3))
    found, right = broken(q, k, v, (3, 3, 3)), nb14.looked(q, k, v, (3, 3, 3))
    assert torch.allclose(found[1:, 1:-1, 1:-1], right[1:, 1:-1, 1:-1]) and not torch.allclose(found, right)
    mask = nb14.nearby_mask(shape, (3, 3, 3))
    for i, one in enumerate(found.flatten(0, 2).sum(1)):
        (slope,) = torch.autograd.grad(one, v, retain_graph=True)
        assert torch.equal(slope.abs().sum(-1).flatten() > 0, mask[i])
    alike = broken(q, k, torch.ones_like(v), (3, 3, 3))[..., 0]
    assert torch.allclose(alike[1, 1:-1, 1:-1], torch.ones(2, 3, dtype=DOUBLE)) and alike[:, 0].max() < 1


def test_a_shorter_clip_is_the_beginning_of_a_longer_one():
    layer = NearbyAttention(8, 2, (3, 3, 3)).double()
    x = normal(1, 4, 3, 5, 8)
    assert torch.allclose(layer(x)[:, :2], layer(x[:, :2]), atol=1e-12)


# --- the widget


@pytest.fixture(scope="module")
def masks():
    shape = (4, 3, 5)
    return {"nearby": nb14.nearby_mask(shape, (3, 3, 3)), "all": nb14.causal(shape)}


def test_blocks_are_counted_as_gradients_count_them():
    """Through 1, 2 and 3 layers of the library, each with what it was given added."""
    shape, layers = (4, 3, 4), [NearbyAttention(4, 2, (3, 3, 3)).double() for _ in range(3)]
    taken = blocks_between(nb14.nearby_mask(shape, (3, 3, 3)).numpy(), 3)
    x = h = normal(1, *shape, 4).requires_grad_()
    for count, layer in enumerate(layers, 1):
        h = h + layer(h)
        for i in (5, 30, 47):
            (slope,) = torch.autograd.grad(h.flatten(0, 3)[i].sum(), x, retain_graph=True)
            depends = (slope.abs().sum(-1) > 0).flatten().numpy()
            assert (depends == ((taken[i] > 0) & (taken[i] <= count))).all()


def test_the_mask_is_a_widget_a_picture_and_a_fixed_text(masks):
    from minit2v import lab

    assert lab.AttentionMask is AttentionMask
    first, second = (AttentionMask(masks, (4, 3, 5), blocks=3, name="one") for _ in range(2))
    picture = png(first.picture())
    second.mask, second.token, second.blocks = "all", 7, 3
    assert png(second.picture()) == picture and len(picture) < 150_000 and first.picture_width <= 800
    assert repr(first) == repr(second) == "AttentionMask(nearby, all; 4 x 3 x 5 tokens)"
    assert first.alt() == second.alt() and "frame 3, row 2, column 3 sees: nearby 14 in one block" in first.alt()


def test_a_long_clip_has_its_frames_in_even_rows_and_fits_the_page():
    widget = AttentionMask({"all": nb14.causal((16, 8, 8))}, (16, 8, 8), blocks=1)
    assert widget.beside == 8 and widget.info["beside"] * (8 * widget.info["cell"] + widget.info["gap"]) <= 740
    assert len(widget.numbers) < 100_000


@pytest.mark.parametrize("change, message", [
    ({"masks": {}}, "masks: expected"), ({"masks": {"a": torch.ones(60, 60)}}, "masks: expected .* found .*float32"),
    ({"masks": {"a": torch.ones(9, 9, dtype=torch.bool)}}, r"bool \(60, 60\)"), ({"shape": (4, 15)}, "shape: expected"),
    ({"blocks": 0}, "blocks: expected 1 to 255, found 0"), ({"token": 60}, "token: expected 0 to 59, found 60"),
    ({"token": -1}, "token: expected 0 to 59, found -1"),
])  # fmt: skip
def test_what_is_no_mask_is_refused(masks, change, message):
    with pytest.raises(UserError, match=message):
        AttentionMask(**({"masks": masks, "shape": (4, 3, 5)} | change))


def test_wrong_traits_are_refused(masks):
    widget = AttentionMask(masks, (4, 3, 5), blocks=2)
    for name, value in {"mask": "none", "token": 60, "blocks": 3}.items():
        with pytest.raises(UserError, match=f"{name}: expected"):
            setattr(widget, name, value)
