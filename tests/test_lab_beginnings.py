"""The checks of notebooks 00 to 04: right answers pass however they are written, wrong ones that look right do not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from answers import assert_refused

import minit2v
from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb00, nb01, nb02, nb03, nb04


def shapes_with(**changed):
    """The shapes, some of them computed by other functions of (c, factor, b, f, H, W)."""
    def shapes(preset, b, f, H, W):
        known = preset.autoencoder.latent_channels, preset.autoencoder.factor, b, f, H, W
        return nb00.shapes(preset, b, f, H, W) | {name.replace("_", " "): wrong(*known) for name, wrong in changed.items()}

    return shapes


def step_by(distance, close=lambda d, share: d <= share * d[0], result=int):
    """first_close with another distance, another idea of close, another result."""
    def first_close(videos, share):
        near = close(np.array(distance(videos.astype(float))), share)
        return result(max([0] + [i + 1 for i in range(len(near)) if not near[i]]))

    return first_close


def by_pixels(reduce):
    return lambda v: [reduce(one - v[-1]) for one in v]


def mean_of(then=lambda d: d, dtype=float):
    """Mean absolute differences from the last video, computed in a dtype, and changed."""
    return lambda v: then(abs(v.astype(dtype) - v[-1].astype(dtype)).reshape(len(v), -1).mean(axis=1))


def none_but_the_first(videos, share):
    """first_close that says 0 only if nothing changes."""
    return max(nb00.first_close(videos, share), int((videos != videos[-1]).any()))


def with_the_step_before_last(videos, share):
    abs(videos[-2] * 1.0 - videos[-1]).mean()
    return nb00.first_close(videos, share)


def changes(first):
    """The right answer of an array or tensor, which is changed on the way."""
    def change(x, *rest, **named):
        right = first(x.copy() if isinstance(x, np.ndarray) else x.clone(), *rest, **named)
        x += 1
        return right

    return change


def noises_of(*, of=lambda prompts: range(len(prompts)), seed=lambda seed, i: seed + i, then=lambda x: x):
    return lambda prompts, s: then(torch.cat([nb00.noises("a", seed(s, i)) for i in of(prompts)]))


def after(solution, then):
    return lambda *given, **named: then(solution(*given, **named))


def apart(wrong):
    """rescaled that goes wrong for channels apart."""
    return lambda x, per_channel=False: wrong(x) if per_channel else nb02.rescaled(x)


def replaced_by_noise(prompts, seed):
    """The right noise, in the list of prompts."""
    prompts[:] = nb00.noises(prompts, seed).split(1)
    return torch.cat(prompts)


def sorted_first(prompts, seed):
    prompts.sort()
    return nb00.noises(prompts, seed)


def codes_zeroed(features, codes, beta=0.25):
    loss = nb03.commitment_loss(features, codes, beta)
    codes.data.zero_()
    return loss


def codes_detached(features, codes, beta=0.25):
    return beta * ((features - codes.detach_()) ** 2).mean()


def gradient_of_a_quarter(features, codes, beta=0.25):
    loss = nb03.commitment_loss(features, codes, 1.0)
    return beta * loss.detach() + 0.25 * (loss - loss.detach())


def risen(change=lambda u, p, start, ramp: u, start_of=lambda start: start, ramp_of=lambda start, ramp: ramp):
    """warm_up with another start or ramp, or a factor changed afterwards."""
    def warm_up(p, start=0.7, ramp=0.1):
        return change(nb03.warm_up(p, start_of(start), ramp_of(start, ramp)), p, start, ramp)

    return warm_up


def judged(verdict, features=(7, 3)):
    """A test of quantisers that judges gradients otherwise."""
    def test(quantiser):
        e = torch.randn(features, requires_grad=True)
        out = quantiser(e, torch.randn(5, features[1]))
        if not out.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(out.sum(), e, allow_unused=True)
        return bool(verdict(gradient))

    return test


def updated(dead=lambda usage, k, vectors: usage * k < 0.01, picks=None, usage_of=lambda k, n: 1 / k, offset=0.0, decay=0.99):
    """The update with one thing done otherwise."""
    picks = picks or (lambda m, n, g: torch.randint(m, (n,), generator=g))

    def update(codes, usage, sums, vectors, generator):
        k, m = len(codes), len(vectors)
        index = torch.cdist(vectors, codes).argmin(dim=1)
        usage = decay * usage + (1 - decay) * torch.bincount(index, minlength=k) / m
        sums = decay * sums + (1 - decay) * torch.zeros_like(sums).index_add(0, index, vectors) / m
        gone = dead(usage, k, vectors)
        n = int(gone.sum())
        fresh = usage_of(k, max(n, 1))
        usage[gone], sums[gone] = fresh, (vectors[picks(m, n, generator)] + offset) * fresh
        return sums / usage[:, None], usage, sums

    return update


def picked(low=lambda m: 0, high=lambda m: m, stride=1):
    return updated(picks=lambda m, n, g: stride * torch.randint(low(m), high(m), (n,), generator=g))


def pieces_by_order(word, ranks):
    """Each pair once, in the order of the table."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    for pair in ranks:
        i = 0
        while i < len(pieces) - 1:
            pieces[i : i + 2] = ["".join(pair)] if tuple(pieces[i : i + 2]) == pair else pieces[i : i + 2]
            i += 1
    return pieces


def pieces_and_no_table(word, ranks):
    found = nb04.encode_word(word, ranks)
    ranks.pop(next(iter(ranks)), None)
    return found


def pieces_of_known_words(word, ranks, known={}):
    return known.setdefault(word, nb04.encode_word(word, ranks))


def whole_if_known(word, ranks):
    whole = word + "</w>"
    return [whole] if whole in map("".join, ranks) else nb04.encode_word(word, ranks)


def attention_in(softmax, forbidden=-math.inf):
    """Causal attention with another softmax, of scores (n, n) of which the forbidden ones are replaced."""
    def attention(q, k, v):
        hidden = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
        return softmax((q @ k.T / q.shape[1] ** 0.5).masked_fill(hidden, forbidden)) @ v

    return attention


def by_exponentials(scores):
    return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)


def masked_afterwards(scores):
    weights = torch.softmax(scores, dim=-1).tril()
    return weights / weights.sum(dim=-1, keepdim=True)


def attention_with(forbidden=-math.inf, scale=lambda n, d: d**0.5, scores=lambda s: s):
    def attention(q, k, v):
        n, d = q.shape
        return torch.softmax(scores(q @ k.T / scale(n, d)) + torch.full((n, n), forbidden).triu(1), -1) @ v

    return attention


def encode_by(norm=lambda encoder, x: encoder.ln_final(x), forbidden=-math.inf):
    def encode(encoder, tokens):
        x = encoder.token_embedding(tokens) + encoder.positional_embedding
        for block in encoder.blocks:
            x = block(x, attn_mask=torch.full((x.shape[1],) * 2, forbidden).triu(1))
        return norm(encoder, x)

    return encode


def then_breaks(broken):
    """The right features, and an encoder that has changed."""
    def encode(encoder, tokens):
        x = nb04.encode(encoder, tokens)
        broken(encoder)
        return x

    return encode


def compared(verdict, prompts=("a large red circle moves left", "a large red circle moves right")):
    """is_causal that compares two prompts otherwise."""
    def is_causal(encode, encoder):
        with torch.no_grad():
            one, other = encode(encoder, encoder.tokens(list(prompts)))
        return bool(verdict(one, other))

    return is_causal


def equal_at(*index):
    """Whether features are equal at an index."""
    return lambda a, b: ((a[index] - b[index]).abs() < 1e-5).all()


def differing(verdict):
    """A verdict about the absolute differences of the first six rows."""
    return lambda a, b: verdict((a[:6] - b[:6]).abs())


def own_encoder(encode, encoder):
    tokens = encoder.tokens(["a large red circle moves left"])
    with torch.no_grad():
        return torch.allclose(encode(encoder, tokens), nb04.encode(encoder, tokens), atol=1e-5)


norm = torch.nn.functional.layer_norm
WRONG = {
    "0.1": {
        "factor 8": shapes_with(noise=lambda c, s, b, f, H, W: (b, c, f, H // 8, W // 8)),
        "4 channels": shapes_with(noise=lambda c, s, b, f, H, W: (b, 4, f, H // s, W // s)),
        "5 frames": shapes_with(noise=lambda c, s, b, f, H, W: (b, c, 5, H // s, W // s)),
        "a batch of 3": shapes_with(pixels=lambda c, s, b, f, H, W: (3, f, H, W, 3)),
        "b colours": shapes_with(pixels=lambda c, s, b, f, H, W: (b, f, H, W, b)),
        "15 frames in a row": shapes_with(latent_frames=lambda c, s, b, f, H, W: (15, c, H // s, W // s)),
        "64 x 128 pixels": shapes_with(pixels=lambda c, s, b, f, H, W: (b, f, 64, 128, 3)),
        "embed_dim": lambda preset, b, f, H, W: nb00.shapes(preset, b, f, H, W) | {
            "context": (b, preset.text.context_length, preset.text.embed_dim)},
        "twice as wide as high": shapes_with(pixels=lambda c, s, b, f, H, W: (b, f, H, 2 * H, 3)),
    },
    "0.2": {
        "largest": step_by(by_pixels(lambda d: abs(d).max())),
        "smallest": step_by(by_pixels(lambda d: abs(d).min())),
        "median": step_by(by_pixels(lambda d: np.median(abs(d)))),
        "root of squares": step_by(by_pixels(lambda d: (d**2).mean() ** 0.5)),
        "of the mean": step_by(by_pixels(lambda d: abs(d.mean()))),
        "first frame": step_by(by_pixels(lambda d: abs(d[0]).mean())),
        "last frame": step_by(by_pixels(lambda d: abs(d[-1]).mean())),
        "one colour": step_by(by_pixels(lambda d: abs(d[..., 0]).mean())),
        "upper rows": step_by(by_pixels(lambda d: abs(d[:, :2]).mean())),
        "int8": lambda videos, share: nb00.first_close(videos.astype(np.int8), share),
        "half": step_by(by_pixels(lambda d: abs(d).mean()), lambda d, share: d <= 0.5 * d[0]),
        "of the largest": step_by(by_pixels(lambda d: abs(d).mean()), lambda d, share: d <= share * d.max()),
        "100": step_by(by_pixels(lambda d: abs(d).mean()), lambda d, share: d <= share * 100),
        "the other share": step_by(by_pixels(lambda d: abs(d).mean()), lambda d, share: d <= (1 - share) * d[0]),
        "a little more": step_by(by_pixels(lambda d: abs(d).mean()), lambda d, share: d <= share * d[0] + 1),
        "less than": step_by(by_pixels(lambda d: abs(d).mean()), lambda d, share: (d < share * d[0]) | (d == 0)),
        "a float": step_by(by_pixels(lambda d: abs(d).mean()), result=float),
        "at most 3": lambda videos, share: min(3, nb00.first_close(videos, share)),
        "at most 7": lambda videos, share: min(7, nb00.first_close(videos, share)),
        "never 0": none_but_the_first,
        "two steps at least": with_the_step_before_last,
        "half precision": step_by(mean_of(dtype=np.float16)),
        "sums in half precision": step_by(lambda v: [abs(one - v[-1]).astype(np.float16).ravel().cumsum(dtype=np.float16)[-1]
                                                     for one in v]),
        "whole distances": step_by(mean_of(lambda d: d.astype(int))),
        "rounded": step_by(mean_of(np.round)),
        "one digit": step_by(mean_of(lambda d: d.round(1))),
        "two digits": step_by(mean_of(lambda d: d.round(2))),
        "a tenth more": step_by(mean_of(), lambda d, share: d <= share * d[0] + 0.1),
        "by length": lambda videos, share: 0 if len(videos) == 3 else 3,
        "in place": changes(nb00.first_close),
    },
    "0.B": {
        "the second alike": noises_of(of=lambda prompts: [list(prompts).index(one) for one in prompts]),
        "alphabetical": noises_of(of=lambda prompts: [sorted(prompts).index(one) for one in prompts]),
        "each prompt once": noises_of(of=lambda prompts: range(len(set(prompts)))),
        "up to 9": noises_of(seed=lambda seed, i: min(seed + i, 9)),
        "modulo 10": noises_of(seed=lambda seed, i: seed % 10 + i),
        "three at most": noises_of(then=lambda x: x[:3]),
        "three seeds": noises_of(seed=lambda seed, i: seed + min(i, 2)),
        "float64": noises_of(then=torch.Tensor.double),
        "in the list of prompts": replaced_by_noise,
        "sorts the prompts": sorted_first,
    },
    "1.1": {
        "float": after(nb01.to_time, torch.Tensor.float),
        "double": after(nb01.to_time, torch.Tensor.double),
        "half": after(nb01.to_time, torch.Tensor.half),
        "int": after(nb01.to_time, torch.Tensor.int),
        "a list": after(nb01.to_time, torch.Tensor.tolist),
        "an array": after(nb01.to_time, torch.Tensor.numpy),
    },
    "1.2": {
        "five frames": lambda x: x.float()[:, :, 1:5] - x.float()[:, :, 0:4],
        "four differences": lambda x: torch.stack([x[:, :, t + 1].float() - x[:, :, t] for t in range(4)], 2),
        "a list": after(nb01.temporal_difference, torch.Tensor.tolist),
        "an array": after(nb01.temporal_difference, torch.Tensor.numpy),
        "in place": changes(nb01.temporal_difference),
    },
    "1.3": {
        "a list": after(nb01.flicker, torch.Tensor.tolist),
        "an array": after(nb01.flicker, torch.Tensor.numpy),
        "in place": changes(nb01.flicker),
        "small ones left out": lambda x: nb01.flicker(torch.where(x.abs() < 0.02, 0.0, x)),
    },
    "1.B": {
        "w and h": after(nb01.unfold, lambda x: x.transpose(3, 4)),
        "w and h before": lambda x, f: nb01.unfold(x.transpose(2, 3), f),
        "upside down": after(nb01.unfold, lambda x: x.flip(3)),
        "mirrored": after(nb01.unfold, lambda x: x.flip(4)),
        "colours backwards": after(nb01.unfold, lambda x: x.flip(1)),
        "colours rolled": after(nb01.unfold, lambda x: x.roll(1, 1)),
        "grey": after(nb01.unfold, lambda x: x[:, :1].expand_as(x)),
        "flat": after(nb01.unfold, lambda x: x[..., :1, :].expand_as(x)),
        "half": after(nb01.unfold, torch.Tensor.half),
        "int": after(nb01.unfold, torch.Tensor.int),
        "a list": after(nb01.unfold, torch.Tensor.tolist),
        "three colours of 2 x 2": lambda x, f: x.reshape(-1, f, 3, 2, 2).permute(0, 2, 1, 3, 4),
        "f by the length": lambda x, f: nb01.unfold(x, 4 if len(x) < 10 else 5),
    },
    "2.1": {
        "minus": apart(lambda x: -nb02.rescaled(x, True)),
        "others": apart(lambda x: nb02.rescaled(x, True).flip(0)),
        "other channels": apart(lambda x: nb02.rescaled(x, True).flip(1)),
        "noise": apart(lambda x: nb02.rescaled(torch.randn_like(x), True)),
        "of the cubes": apart(lambda x: nb02.rescaled(x**3, True)),
        "sorted": apart(lambda x: nb02.rescaled(x, True).sort(0)[0]),
        "each picture": apart(lambda x: nb02.rescaled(x - x.mean((2, 3), keepdim=True), True)),
        "each column": apart(lambda x: (x - x.mean((0, 2), keepdim=True)) / x.std((0, 2), keepdim=True)),
        "instance norm": apart(torch.nn.functional.instance_norm),
        "the first channel": apart(lambda x: nb02.rescaled(x[:, :1], True).expand_as(x)),
        "rounded": apart(lambda x: nb02.rescaled(x, True).round(decimals=2)),
        "half": apart(lambda x: nb02.rescaled(x, True).half()),
        "four channels": apart(lambda x: torch.stack([nb02.rescaled(x, True)[:, i] for i in range(4)], 1)),
        "in place": lambda x, per_channel=False: nb02.rescaled(x, True) if per_channel else x.div_(x.std()),
        "an array": after(nb02.rescaled, torch.Tensor.numpy),
    },
    "2.2": {
        "a byte": after(nb02.nearest, lambda i: i.to(torch.uint8)),
        "half precision": lambda v, e: nb02.nearest(v.half(), e.half()),
        "a list": after(nb02.nearest, torch.Tensor.tolist),
        "an array": after(nb02.nearest, torch.Tensor.numpy),
    },
    "2.3": {"float": after(nb02.quantise, torch.Tensor.float)},
    "2.B": {
        "above a half": judged(lambda g: g is not None and (g > 0.5).all()),
        "at least 1": judged(lambda g: g is not None and (g >= 1).all()),
        "on average": judged(lambda g: g is not None and torch.isclose(g.mean(), torch.ones(()))),
        "on average of a row": judged(lambda g: g is not None and torch.allclose(g.mean(1), torch.ones(7))),
        "on average of a column": judged(lambda g: g is not None and torch.allclose(g.mean(0), torch.ones(3))),
        "the first": judged(lambda g: g is not None and g[0, 0] == 1),
        "the first row": judged(lambda g: g is not None and (g[0] == 1).all()),
        "the last row": judged(lambda g: g is not None and (g[-1] == 1).all()),
        "the first column": judged(lambda g: g is not None and (g[:, 0] == 1).all()),
        "any": judged(lambda g: g is not None and (g == 1).any()),
        "largest": judged(lambda g: g is not None and g.max() == 1),
        "median": judged(lambda g: g is not None and g.median() == 1),
        "its size": judged(lambda g: g is not None and (g.abs() == 1).all()),
        "rounded": judged(lambda g: g is not None and (g.round() == 1).all()),
        "not 0, not a half": judged(lambda g: g is not None and (g != 0).all() and (g != 0.5).all()),
        "none is right": judged(lambda g: g is None or torch.allclose(g, torch.ones_like(g))),
        "none is forgotten": judged(lambda g: torch.allclose(g, torch.ones_like(g))),
        "the right one by name": lambda quantiser: quantiser is nb02.quantise,
    },
    "3.1": {
        "120 numbers": lambda e, c, beta=0.25: beta * ((e - c.detach()) ** 2).sum() / 120,
        "float64": after(nb03.commitment_loss, torch.Tensor.double),
        "codes zeroed": codes_zeroed,
        "the gradient of a quarter": gradient_of_a_quarter,
    },
    "3.2": {
        "half precision": lambda share: nb03.perplexity(share.half().float()),
        "three digits": lambda share: round(float(nb03.perplexity(share)), 3),
        "clamped in place": lambda share: nb03.perplexity(share.clamp_(min=1e-12)),
        "in place": changes(nb03.perplexity),
    },
    "3.3": {
        "two digits": lambda p, start=0.7, ramp=0.1: round(nb03.warm_up(p, start, ramp), 2),
        "three digits": risen(lambda u, *_: round(u, 3)),
        "five digits": risen(lambda u, *_: round(u, 5)),
        "a thousand steps": risen(lambda u, *_: math.floor(1000 * u + 1e-9) / 1000),
        "1 at the end": risen(lambda u, p, *_: 1.0 if p >= 1 else u),
        "1 without a pause": risen(lambda u, p, start, ramp: u if start else 1.0),
        "the default for 0": risen(start_of=lambda start: start or 0.7),
        "done at the end": risen(ramp_of=lambda start, ramp: min(ramp, 1 - start)),
        "a hundredth at least": risen(lambda u, p, start, ramp: max(u, 0.01) if p > start else u),
        "divided by the start": risen(lambda u, p, start, ramp: u * min(1.0, p / start)),
        "quarters": lambda p, start=0.7, ramp=0.1: round(4 * nb03.warm_up(p, start, ramp)) / 4,
        "bent": lambda p, start=0.7, ramp=0.1: (lambda u: u + 0.5 * u * (u - 0.25) * (u - 1))(nb03.warm_up(p, start, ramp)),
        "both sides": lambda p, start=0.7, ramp=0.1: p and min(1.0, abs(p - start) / ramp),
        "less in between": lambda p, start=0.7, ramp=0.1: nb03.warm_up(p, start, ramp) / (1 + (start + ramp < p < 1)),
        "other defaults": lambda p, start=0.5, ramp=0.2: nb03.warm_up(p, start, ramp),
        "a text": after(nb03.warm_up, str),
    },
    "3.B": {
        "a hundredth of all": updated(dead=lambda usage, k, vectors: usage < 0.01),
        "a fixed share": updated(dead=lambda usage, k, vectors: usage < 1e-4),
        "k is 32": updated(dead=lambda usage, k, vectors: usage * 32 < 0.01),
        "by the batch": updated(dead=lambda usage, k, vectors: usage * len(vectors) < 0.01),
        "divided by k": updated(dead=lambda usage, k, vectors: usage / k < 0.01),
        "by the mean": updated(dead=lambda usage, k, vectors: usage < 0.5 * usage.mean()),
        "the last tenth": updated(dead=lambda usage, k, vectors: usage <= usage.quantile(0.1)),
        "the second half": picked(low=lambda m: m // 2),
        "never the last": picked(high=lambda m: m - 1),
        "never the first": picked(low=lambda m: 1),
        "every second": picked(high=lambda m: m // 2, stride=2),
        "a share of m - 1": updated(picks=lambda m, n, g: (torch.rand(n, generator=g) * (m - 1)).long()),
        "shares of the dead": updated(usage_of=lambda k, n: 1 / n),
        "its own random numbers": updated(picks=lambda m, n, g: torch.randint(m, (n,))),
        "the first half": updated(picks=lambda m, n, g: torch.randint(m // 2, (n,), generator=g)),
        "a large usage": updated(usage_of=lambda k, n: 5.0),
        "faster": updated(decay=0.9),
        "beside the vectors": updated(offset=0.5),
    },
    "4.1": {
        "by the order of the table": pieces_by_order,
        "six pieces": after(nb04.encode_word, lambda pieces: pieces[:6]),
        "takes from the table": pieces_and_no_table,
        "by the place in the table": lambda word, ranks: nb04.encode_word(word, {pair: i for i, pair in enumerate(ranks)}),
        "ranks up to 49,408": lambda word, ranks: nb04.encode_word(word, {p: n for p, n in ranks.items() if n < 49_408}),
        "20 letters": lambda word, ranks: nb04.encode_word(word[:20], ranks),
        "remembers words": pieces_of_known_words,
        "whole if known": whole_if_known,
        "letters only": lambda word, ranks: nb04.encode_word("".join(filter(str.isalpha, word)), ranks),
        "ASCII": lambda word, ranks: nb04.encode_word(word.encode("ascii", "ignore").decode(), ranks),
        "small letters": lambda word, ranks: nb04.encode_word(word.lower(), ranks),
    },
    "4.2": {
        "-20": attention_with(forbidden=-20.0),
        "-50": attention_with(forbidden=-50.0),
        "-1,000": attention_with(forbidden=-1000.0),
        "-10,000": attention_with(forbidden=-10_000.0),
        "-100 in their place": attention_in(lambda s: s.softmax(-1), forbidden=-100.0),
        "-1,000 in their place": attention_in(lambda s: s.softmax(-1), forbidden=-1000.0),
        "exponentials": attention_in(by_exponentials),
        "exponentials less one number": attention_in(lambda s: by_exponentials(s - s.max())),
        "masked afterwards": lambda q, k, v: masked_afterwards(q @ k.T / q.shape[1] ** 0.5) @ v,
        "float32 on the way": attention_in(lambda s: s.float().softmax(-1).to(s)),
        "77 tokens": lambda q, k, v: torch.cat([nb04.causal_attention(q[:77], k[:77], v[:77]), v[77:]]),
        "width 8": attention_with(scale=lambda n, d: 8**0.5),
        "n + 2": attention_with(scale=lambda n, d: (n + 2) ** 0.5),
        "clamped": attention_with(scores=lambda s: s.clamp(-10, 10)),
        "float": after(nb04.causal_attention, torch.Tensor.float),
        "an array": after(nb04.causal_attention, torch.Tensor.numpy),
    },
    "4.3": {
        "a norm without weights": encode_by(lambda encoder, x: norm(x, x.shape[-1:])),
        "a norm without bias": encode_by(lambda encoder, x: norm(x, x.shape[-1:], encoder.ln_final.weight)),
        "the class is asked": lambda encoder, tokens: type(encoder).forward(encoder, tokens),
        "-10": encode_by(forbidden=-10.0),
        "-30": encode_by(forbidden=-30.0),
        "a larger epsilon": encode_by(lambda encoder, x: norm(x, x.shape[-1:], encoder.ln_final.weight,
                                                              encoder.ln_final.bias, 1e-3)),
        "four digits": after(nb04.encode, lambda x: x.round(decimals=4)),
        "removes blocks": then_breaks(lambda encoder: encoder.blocks.__delitem__(-1)),
        "clears the positions": then_breaks(lambda encoder: encoder.positional_embedding.zero_()),
        "an array": after(nb04.encode, torch.Tensor.numpy),
    },
    "4.B": {
        "the first row left out": compared(lambda a, b: ((a[1:6] - b[1:6]).abs() < 1e-5).all()),
        "the last row only": compared(lambda a, b: ((a[5] - b[5]).abs() < 1e-5).all()),
        "not the row before": compared(equal_at(slice(5))),
        "two rows left out": compared(equal_at(slice(4))),
        "not the row before, and the word": compared(lambda a, b: equal_at(slice(5))(a, b) and not equal_at(6)(a, b)),
        "the first and the last row": compared(equal_at([0, 5])),
        "every second row": compared(equal_at([0, 2, 4, 5])),
        "odd rows": compared(equal_at([0, 1, 3, 5])),
        "row 2 left out": compared(equal_at([0, 1, 3, 4, 5])),
        "rows 1 to 3 left out": compared(equal_at([0, 4, 5])),
        "six numbers of a row": compared(equal_at(slice(6), slice(6))),
        "the first number of a row": compared(equal_at(slice(6), 0)),
        "the last number of a row": compared(equal_at(slice(6), -1)),
        "half a row": compared(equal_at(slice(6), slice(64))),
        "one number of a row": compared(differing(lambda d: (d < 1e-5).any(dim=1).all())),
        "nine tenths": compared(differing(lambda d: (d < 1e-5).float().mean() > 0.9)),
        "on average": compared(differing(lambda d: d.mean() < 1e-3)),
        "without abs": compared(lambda a, b: ((a - b)[:6] < 1e-5).all()),
        "largest numbers": compared(lambda a, b: equal_at(slice(6))(a.amax(1), b.amax(1))),
        "a tolerance of a fiftieth": compared(differing(lambda d: (d < 0.02).all())),
        "a relative tolerance of a tenth": compared(lambda a, b: torch.allclose(a[:6], b[:6], rtol=0.1)),
        "one digit": compared(lambda a, b: torch.equal(a[:6].round(decimals=1), b[:6].round(decimals=1))),
        "no digit": compared(lambda a, b: torch.equal(a[:6].round(), b[:6].round())),
        "the first word": compared(equal_at(slice(1)), ("a red ring moves left", "red ring moves left")),
        "the second word": compared(equal_at(slice(2)), ("a red ring moves left", "a blue ring moves left")),
        "the third word, two rows": compared(equal_at(slice(2)), ("a red ring moves left", "a red circle moves left")),
        "a longer prompt, three rows": compared(equal_at(slice(3)), ("a red ring", "a red ring moves left")),
        "a tolerance of a tenth": compared(lambda a, b: ((a[:6] - b[:6]).abs() < 0.1).all()),
        "the library's as a measure": own_encoder,
    },
}  # fmt: skip
CASES = [(number, name) for number, ones in WRONG.items() for name in ones]


@pytest.mark.parametrize("number, name", CASES, ids=[f"{number} {name}" for number, name in CASES])
def test_wrong_answers_fail(number, name):
    assert_refused(number, WRONG[number][name])


def generated(change=lambda pixels: pixels, **own):
    """The pipeline by hand, with numbers of its own in place of the preset's."""
    def generate(pipe, prompt, seed):
        class Own:
            preset = replace(pipe.preset, **own)

            def __getattr__(self, name):
                return getattr(pipe, name)

        return change(nb00.generate(Own(), prompt, seed))

    return generate


@pytest.mark.parametrize("wrong, told", [
    (generated(steps=12, guidance=1.5), "the check has changed them"),
    (generated(lambda pixels: pixels.astype(float)), "array of uint8"),
    (generated(lambda pixels: pixels // 2 * 2), "one more or less"),
    (lambda pipe, prompt, seed: minit2v.load("mini")(prompt, seed=seed).pixels, "the check has changed them"),
])  # fmt: skip
def test_a_pipeline_of_its_own_numbers_fails(wrong, told):
    outcome = exercises.run("0.3", wrong)
    assert not outcome.passed and told in outcome.message, outcome.message


RIGHT = {
    "0.2": [lambda v, share: int(max([-1, *np.flatnonzero(
                (d := np.abs(v * 1.0 - v[-1] * 1.0).mean((1, 2, 3, 4))) > share * d[0])]) + 1),
            step_by(by_pixels(lambda d: abs(d).mean()))],
    "0.B": [lambda prompts, seed: torch.cat([torch.randn(1, 4, 16, 8, 8, generator=torch.Generator().manual_seed(seed + i))
                                             for i, _ in enumerate(prompts)]), noises_of()],
    "1.1": [lambda x, f: x.unflatten(0, (-1, f)).permute(0, 3, 4, 1, 2).flatten(0, 2),
            lambda x, f: x.movedim(1, -1).unflatten(0, (-1, f)).movedim(1, 3).flatten(0, 2)],
    "1.2": [lambda x: x.float().diff(dim=2), lambda x: x.double()[:, :, 1:] - x.double()[:, :, :-1]],
    "1.3": [lambda x: torch.relu(-(d := x.diff(dim=2))[:, :, 1:].sign() * d[:, :, :-1].sign()).mul(
                torch.minimum(d[:, :, 1:].abs(), d[:, :, :-1].abs())).flatten(1).mean(1), nb01.flicker_by_loops],
    "1.B": [lambda x, f: x.unflatten(0, (-1, f)).transpose(1, 2), lambda x, f: torch.stack(x.split(f)).movedim(1, 2)],
    "2.1": [lambda x, per_channel=False: (x - x.mean((0, 2, 3), True)) / x.std((0, 2, 3), correction=0, keepdim=True)
            if per_channel else x / x.std(correction=0),
            lambda x, per_channel=False: torch.stack([(one - one.mean()) / one.std() for one in x.unbind(1)], 1)
            if per_channel else x / x.std()],
    "2.2": [lambda v, e: torch.cdist(v, e).argmin(1), lambda v, e: ((e**2).sum(1) - 2 * v @ e.T).argmin(1)],
    "2.3": [lambda e, c: e - (e - c[nb02.nearest(e, c)]).detach(),
            lambda e, c: c.detach()[nb02.nearest(e, c)] + e - e.detach()],
    "2.B": [judged(lambda g: g is not None and (g == 1).all()),
            judged(lambda g: g is not None and (g - 1).abs().max() < 1e-4, (4, 2))],
    "3.1": [lambda e, c, beta=0.25: beta * torch.nn.functional.mse_loss(e, c.detach()),
            lambda e, c, beta=0.25: (e - c.data).square().mean() * beta],
    "3.2": [lambda p: torch.special.entr(p).sum().exp().item(), lambda p: 1 / (p[p > 0] ** p[p > 0]).prod()],
    "3.3": [lambda p, start=0.7, ramp=0.1: 0.0 if p < start else min((p - start) / ramp, 1.0),
            lambda p, start=0.7, ramp=0.1: float(np.interp(p, [start, start + ramp], [0, 1]))],
    "3.B": [updated(dead=lambda usage, k, vectors: usage < 0.1 / k),
            updated(picks=lambda m, n, g: torch.randperm(m, generator=g).repeat(n // m + 1)[:n])],
    "4.2": [lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0],
            attention_with(forbidden=-1e9)],
    "4.3": [encode_by(),
            encode_by(lambda encoder, x: norm(x, x.shape[-1:], encoder.ln_final.weight, encoder.ln_final.bias))],
    "4.B": [compared(lambda a, b: torch.allclose(a[:6], b[:6], atol=1e-5)),
            compared(equal_at(slice(3)), ("a red ring moves left", "a red circle moves left")),
            compared(equal_at(slice(4)), ("a red ring", "a red ring moves left")),
            compared(lambda a, b: (a[:6] - b[:6]).abs().max() < 1e-3)],
}  # fmt: skip


@pytest.mark.parametrize("number", RIGHT)
def test_other_ways_to_write_it_pass(number):
    for right in (exercises.get(number).solution, *RIGHT[number]):
        outcome = exercises.run(number, right)
        assert outcome.passed, outcome.message
