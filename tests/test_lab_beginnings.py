"""The checks of notebooks 00 to 04: right answers pass however they are written, wrong ones that look right do not."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from answers import assert_refused
from PIL import Image

import minit2v
from minit2v.datasets.moving_things import parse
from minit2v.datasets.moving_things.scenes import render
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided
from minit2v.evaluation import judge
from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb00, nb01, nb02, nb03, nb04
from minit2v.lab.course.drawings.clip_blocks import cut_apart, cut_open
from minit2v.lab.course.trainings import unseen_frames
from minit2v.lab.course.ways_in import WAYS, told_by
from minit2v.pixels import to_pixels, to_signed
from minit2v.recording.run import TrainingRun


def shapes_with(**changed):
    """The shapes, some of them computed by other functions of (c, factor, b, f, H, W)."""
    def shapes(preset, b, f, H, W):
        known = preset.autoencoder.latent_channels, preset.autoencoder.factor, b, f, H, W
        return nb00.shapes(preset, b, f, H, W) | {name.replace("_", " "): wrong(*known) for name, wrong in changed.items()}

    return shapes


def ways_of(mistakes):
    """(cause, a way to make the mistake), one for each way."""
    return [(cause, one) for cause, ways in mistakes.items() for one in (ways if isinstance(ways, tuple) else (ways,))]


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


def drawn_evenly(prompts, seed):
    """Noise between 0 and 1, each prompt from its own seed."""
    of = (torch.Generator().manual_seed(seed + i) for i in range(len(prompts)))
    return torch.cat([torch.rand(1, 4, 16, 8, 8, generator=one) for one in of])


def constant_shapes(**constants):
    """The shapes, with numbers in the place of arguments or of the preset's settings."""
    def shapes(preset, b, frames, height, width):
        of = {"preset": preset, "b": b, "frames": frames, "height": height, "width": width} | constants
        return nb00.shapes(**of)

    return shapes


def in_shape(key, of):
    """The shapes, one of them as another function of (preset, b, f, H, W)."""
    return lambda *given: nb00.shapes(*given) | {key: of(*given)}


def way_with(**wrong):
    """which_way with one thing about the centres wrong, and the right word."""
    def which_way(pixels, least):
        right, word = nb00.which_way(pixels, least)
        centres = nb00._centres(pixels, least, **wrong)
        centres[np.isnan(right)] = np.nan
        return centres, word

    return which_way


def way_told(word):
    """which_way with right centres and another word."""
    def which_way(pixels, least):
        centres = nb00.which_way(pixels, least)[0]
        return centres, word(centres, (pixels.shape[2], pixels.shape[1]))

    return which_way


def way_changed(change):
    """which_way whose two results are changed."""
    return lambda pixels, least: change(*nb00.which_way(pixels, least))


def way_on(change):
    """which_way of other pixels, or with another least: change(pixels, least) -> both."""
    return lambda pixels, least: nb00.which_way(*change(pixels, least))


def first_then(solution, change):
    """The right answer, after which the first argument is changed."""
    def answer(first, *rest):
        right = solution(first, *rest)
        change(first)
        return right

    return answer


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


def code_of(features, codes):
    return codes[nb02.nearest(features, codes)]


def centred(own):
    return own.means - own.means.mean(0)


def coloured(change):
    """ColourAxes with some of its attributes changed: (itself, latents, colours) -> {name: another}."""
    class Changed(nb02.ColourAxes):
        def __init__(self, latents, colours):
            super().__init__(latents, colours)
            vars(self).update(change(self, latents, colours))

    return Changed


def moved_by(change):
    """ColourAxes that turns otherwise: (the right method, z, share, old, new, k) -> latents."""
    class Changed(nb02.ColourAxes):
        def turned(self, *given):
            return change(super().turned, *given)

    return Changed


def by_svd(own, latents, colours):
    _, spread, axes = torch.linalg.svd(centred(own))
    shares = torch.zeros(len(axes)).to(latents)
    shares[: len(spread)] = spread**2
    return dict(axes=axes, shares=shares / shares.sum())


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


def first_as_many_as_codes(codes, usage, sums, vectors, generator):
    k = len(codes)
    return updated(picks=lambda m, n, g: torch.randint(min(m, k), (n,), generator=g))(codes, usage, sums, vectors, generator)


def usage_in_place(codes, usage, sums, vectors, generator):
    found = nb03.update(codes, usage, sums, vectors, generator)
    usage.copy_(found[1])
    return found


STEP = """
def step(decoder, critic, optimizers, codes, frames, weight):
    of_decoder, of_critic = optimizers
    {begin}
    made = decoder(codes)
    loss = {near} + {weight} * ({adversarial})
    {first}
    loss.backward()
    of_decoder.step()
    hinge = {hinge}
    {second}
    hinge.backward()
    {then}
    return {result}
"""


def stepped(**change):
    """adversarial_step with some of its lines written otherwise."""
    lines = dict(begin="pass", near="(frames - made).abs().mean()", weight="weight", adversarial="-critic(made).mean()",
                 first="of_decoder.zero_grad()", second="of_critic.zero_grad()", then="of_critic.step()",
                 hinge="F.relu(1 - critic(frames)).mean() + F.relu(1 + critic(made.detach())).mean()",
                 result="loss.item(), hinge.item()") | change  # fmt: skip
    known = {"F": torch.nn.functional, "torch": torch}
    exec(STEP.format(**lines), known)
    return known["step"]


def both_pictures_first(decoder, critic, optimizers, codes, frames, weight):
    """Both losses before any step, without a detach."""
    made = decoder(codes)
    loss = (frames - made).abs().mean() - weight * critic(made).mean()
    hinge = torch.relu(1 - critic(frames)).mean() + torch.relu(1 + critic(made)).mean()
    for optimizer, one in zip(optimizers, (loss, hinge)):
        optimizer.zero_grad()
        one.backward()
        optimizer.step()
    return loss.item(), hinge.item()


def in_one_sum(decoder, critic, optimizers, codes, frames, weight):
    """Both networks from one sum, as the library does it."""
    made, frozen = decoder(codes), {name: p.detach() for name, p in critic.named_parameters()}
    loss = (frames - made).abs().mean() - weight * torch.func.functional_call(critic, frozen, (made,)).mean()
    real, fake = critic(torch.cat([frames, made.detach()])).chunk(2)
    hinge = torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()
    for one in optimizers:
        one.zero_grad()
    (loss + hinge).backward()
    for one in optimizers:
        one.step()
    return loss.item(), hinge.item()


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


def pieces_one_at_a_time(word, ranks):
    """The last occurrence of the pair of lowest rank, again and again."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while known := [(ranks[pair], -i) for i, pair in enumerate(zip(pieces, pieces[1:])) if pair in ranks]:
        i = -min(known)[1]
        pieces[i : i + 2] = ["".join(pieces[i : i + 2])]
    return pieces


def pieces_and_used_merges(word, ranks):
    pieces = [*word[:-1], word[-1] + "</w>"]
    while known := [pair for pair in zip(pieces, pieces[1:]) if pair in ranks]:
        best = min(known, key=ranks.get)
        pieces = nb04._joined(pieces, best)
        del ranks[best]
    return pieces


def of_clip(word, ranks):
    """CLIP's own merges, whatever the table."""
    from open_clip.tokenizer import SimpleTokenizer

    return nb04.encode_word(word, SimpleTokenizer().bpe_ranks)


def then_changes(number, answer):
    """An answer that changes one of its inputs afterwards."""
    def changed(*given):
        right = answer(*given)
        given[number].mul_(2)
        return right

    return changed


def merges_and(change):
    """The right merges, and counts that have changed."""
    def learn(counts, n):
        right = nb04.learn_merges(counts, n)
        change(counts)
        return right

    return learn


def merges_in_a_text(counts, n):
    """Merges by str.replace, which also hits the edges of longer pieces."""
    texts, merges = {word: " ".join([*word[:-1], word[-1] + "</w>"]) for word in counts}, []
    while len(merges) < n:
        often = nb04.Counter()
        for word, text in texts.items():
            for pair in zip(text.split(), text.split()[1:]):
                often[pair] += counts[word]
        if not often:
            break
        merges.append(min(often, key=lambda pair: (-often[pair], pair)))
        texts = {word: text.replace(" ".join(merges[-1]), "".join(merges[-1])) for word, text in texts.items()}
    return merges


def merges_of_pandas_kind(counts, n):
    """Right, with one long list of words instead of counts, and sorted tuples instead of a key."""
    words = [[*word[:-1], word[-1] + "</w>"] for word, count in counts.items() for _ in range(count)]
    merges = []
    for _ in range(n):
        often = nb04.Counter(pair for pieces in words for pair in zip(pieces, pieces[1:]))
        if not often:
            break
        merges.append(sorted((-count, pair) for pair, count in often.items())[0][1])
        words = [nb04._joined(pieces, merges[-1]) for pieces in words]
    return merges


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
        **{f"{name} is always {value}": constant_shapes(**{name: value}) for name, value in (
            ("b", 1), ("b", 2), ("frames", 16), ("frames", 5), ("height", 64), ("width", 64), ("width", 128), ("height", 96))},
        "mini, whatever is asked": constant_shapes(preset=nb00.presets.get("mini")),
        "the released model, whatever is asked": constant_shapes(preset=nb00.presets.get("modelscope-1.7b")),
        "20 tokens": in_shape("context", lambda p, b, f, H, W: (b, 20, p.text.width)),
        "128 numbers a token": in_shape("context", lambda p, b, f, H, W: (b, p.text.context_length, 128)),
        "4 channels of frames": in_shape("latent frames", lambda p, b, f, H, W: (
            b * f, 4, H // p.autoencoder.factor, W // p.autoencoder.factor)),
        "the frames of the preset": lambda preset, b, f, H, W: nb00.shapes(preset, b, preset.frames, H, W),
        "the size of the preset": lambda preset, b, f, H, W: nb00.shapes(preset, b, f, preset.height, preset.width),
        "lists": lambda *given: {key: list(shape) for key, shape in nb00.shapes(*given).items()},
        "broken numbers": lambda *given: {key: tuple(map(float, shape)) for key, shape in nb00.shapes(*given).items()},
        "values alone": after(nb00.shapes, lambda found: list(found.values())),
        "a key too many": after(nb00.shapes, lambda found: found | {"text": ()}),
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
        "less than, from the end": nb00._closing(near=np.less, none=lambda last: last),
        "0 where the ends agree": nb00._zero_where_the_ends_agree,
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
        "signs kept": step_by(by_pixels(lambda d: d.mean())),
        "signs dropped after each frame": step_by(by_pixels(lambda d: abs(d.mean(axis=(1, 2, 3))).mean())),
        "grey": step_by(by_pixels(lambda d: abs(d.mean(axis=-1)).mean())),
        "median of frames": step_by(by_pixels(lambda d: np.median(abs(d).mean(axis=(1, 2, 3))))),
        "mean of medians": step_by(by_pixels(lambda d: np.median(abs(d), axis=0).mean())),
        "green": step_by(by_pixels(lambda d: abs(d[..., 1]).mean())),
        "blue": step_by(by_pixels(lambda d: abs(d[..., 2]).mean())),
        "two colours": step_by(by_pixels(lambda d: abs(d[..., :2]).mean())),
        "true": step_by(mean_of(), result=bool),
        "a list": step_by(mean_of(), result=lambda step: [step]),
        "an array of one": step_by(mean_of(), result=lambda step: np.array([step])),
        "sorts the videos": first_then(nb00.first_close, lambda videos: videos.sort(axis=0)),
        "blackens the last video": first_then(nb00.first_close, lambda videos: videos[-1].fill(0)),
        "changes one number": first_then(nb00.first_close, lambda videos: videos[0, 0, 0, 0].__iadd__(1)),
    },
    "0.4": {
        "the word alone": way_changed(lambda centres, word: word),
        "centres alone": way_changed(lambda centres, word: centres),
        "word before centres": way_changed(lambda centres, word: (word, centres)),
        "a list of both": way_changed(lambda centres, word: [centres, word]),
        "centres as a list": way_changed(lambda centres, word: (centres.tolist(), word)),
        "centres as a tensor": way_changed(lambda centres, word: (torch.from_numpy(centres), word)),
        "whole centres": way_changed(lambda centres, word: (np.nan_to_num(centres).astype(int), word)),
        "rounded centres": way_changed(lambda centres, word: (centres.round(), word)),
        "one digit": way_changed(lambda centres, word: (centres.round(1), word)),
        "a row for x, a row for y": way_changed(lambda centres, word: (centres.T, word)),
        "frames that show nothing left out": way_changed(lambda centres, word: (centres[~np.isnan(centres[:, 0])], word)),
        "0 for nothing": way_changed(lambda centres, word: (np.nan_to_num(centres), word)),
        "half of nothing": way_changed(lambda centres, word: (np.where(np.isnan(centres), [[np.nan, 0.0]], centres), word)),
        "all is nan": way_changed(lambda centres, word: (centres * np.nan, word)),
        "capital letters": way_changed(lambda centres, word: (centres, word and word.upper())),
        "an empty word": way_changed(lambda centres, word: (centres, word or "")),
        "the word None": way_changed(lambda centres, word: (centres, word or "None")),
        "always right": way_changed(lambda centres, word: (centres, "right")),
        "from 0 to 1": lambda pixels, least: (nb00.which_way(pixels, least)[0] / pixels.shape[2],
                                              nb00.which_way(pixels, least)[1]),
        "least is 60": way_on(lambda pixels, least: (pixels, 60)),
        "least is 0": way_on(lambda pixels, least: (pixels, 0)),
        "a third of least": way_on(lambda pixels, least: (pixels, least / 3)),
        "least in tens": way_on(lambda pixels, least: (pixels, int(least) // 10 * 10)),
        "the median of each frame": way_with(ground=lambda clip: np.median(clip, axis=(1, 2), keepdims=True)),
        "the length of the way": way_told(lambda centres, size: nb00._word(centres, length=lambda way: np.hypot(*way))),
        "x and y added": way_told(lambda centres, size: nb00._word(centres, length=np.sum)),
        "still in x or in y": way_told(lambda centres, size: nb00._word(centres, length=np.min)),
        "from nan": way_told(lambda centres, size: nb00._word(centres) if not np.isnan(centres[[0, -1]]).any() else "up"),
        "the first frame left out": way_on(lambda pixels, least: (pixels[1:], least)),
        "backwards": way_on(lambda pixels, least: (pixels[::-1], least)),
        "upside down": way_on(lambda pixels, least: (pixels[:, ::-1], least)),
        "mirrored": way_on(lambda pixels, least: (pixels[:, :, ::-1], least)),
        "H and W exchanged": way_on(lambda pixels, least: (pixels.swapaxes(1, 2), least)),
        "grey": way_on(lambda pixels, least: (pixels.mean(axis=3, keepdims=True).repeat(3, 3), least)),
        "the largest pixel": lambda pixels, least: (
            np.array([np.unravel_index(one.sum(-1).argmax(), one.shape[:2])[::-1] for one in pixels * 1.0]) * 1.0,
            nb00.which_way(pixels, least)[1]),
        "blackens the pixels": first_then(nb00.which_way, lambda pixels: pixels.fill(0)),
        "changes one pixel": first_then(nb00.which_way, lambda pixels: pixels[0, 0, 0].__iadd__(1)),
        "sorts the frames": first_then(nb00.which_way, lambda pixels: pixels.sort(axis=0)),
        "nothing": lambda pixels, least: None,
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
        "empties the prompts": first_then(nb00.noises, list.clear),
        "drops a prompt": first_then(nb00.noises, list.pop),
        "turns the prompts round": first_then(nb00.noises, list.reverse),
        "one generator": nb00._of_one_generator,
        "the same for all": noises_of(seed=lambda seed, i: seed),
        "from 1": noises_of(seed=lambda seed, i: seed + i + 1),
        "without the seed": noises_of(seed=lambda seed, i: i),
        "times": noises_of(seed=lambda seed, i: seed * (i + 1)),
        "evenly": drawn_evenly,
        "a list": after(nb00.noises, lambda x: list(x.split(1))),
        "an array": after(nb00.noises, torch.Tensor.numpy),
        "stacked": after(nb00.noises, lambda x: x[:, None]),
        "half the noise": after(nb00.noises, lambda x: x / 2),
    },
    "1.1": {
        "float": after(nb01.to_time, torch.Tensor.float),
        "double": after(nb01.to_time, torch.Tensor.double),
        "half": after(nb01.to_time, torch.Tensor.half),
        "int": after(nb01.to_time, torch.Tensor.int),
        "a list": after(nb01.to_time, torch.Tensor.tolist),
        "an array": after(nb01.to_time, torch.Tensor.numpy),
        "in place": changes(nb01.to_time),
        "five frames": lambda x, f: nb01.to_time(x, 5),
        "two clips": lambda x, f: nb01.to_time(x, len(x) // 2),
        "three channels": lambda x, f: x.unflatten(0, (-1, f)).permute(0, 3, 4, 1, 2).reshape(-1, f, 3),
        "sorted": after(nb01.to_time, lambda rows: rows.sort(0)[0]),
        "scrambled rows": after(nb01.to_time, lambda rows: rows[torch.randperm(len(rows))]),
        "h and w": lambda x, f: nb01.to_time(x.transpose(2, 3), f),
    },
    "1.2": {
        "five frames": lambda x: x.float()[:, :, 1:5] - x.float()[:, :, 0:4],
        "four differences": lambda x: torch.stack([x[:, :, t + 1].float() - x[:, :, t] for t in range(4)], 2),
        "a list": after(nb01.temporal_difference, torch.Tensor.tolist),
        "an array": after(nb01.temporal_difference, torch.Tensor.numpy),
        "in place": changes(nb01.temporal_difference),
        "half": after(nb01.temporal_difference, torch.Tensor.half),
        "rounded": after(nb01.temporal_difference, torch.Tensor.round),
        "backwards": after(nb01.temporal_difference, lambda d: d.flip(2)),
        "as signed bytes": lambda x: (x[:, :, 1:].char() - x[:, :, :-1].char()).float(),
        "by gradient": lambda x: torch.gradient(x.float(), dim=2)[0],
        "grey": after(nb01.temporal_difference, lambda d: d.mean(1, keepdim=True).expand_as(d)),
    },
    "1.3": {
        "a list": after(nb01.flicker, torch.Tensor.tolist),
        "an array": after(nb01.flicker, torch.Tensor.numpy),
        "in place": changes(nb01.flicker),
        "small ones left out": lambda x: nb01.flicker(torch.where(x.abs() < 0.02, 0.0, x)),
        "3 times": after(nb01.flicker, lambda v: 3 * v),
        "4 times": after(nb01.flicker, lambda v: 4 * v),
        "divided by 4": lambda x: nb01.flicker(x) * (x.shape[2] - 2) / 4,
        "of six frames": lambda x: nb01.flicker(x[:, :, :5]),
        "the first channel": lambda x: nb01.flicker(x[:, :1]),
        "sorted": after(nb01.flicker, lambda v: v.sort()[0]),
        "other clips": after(nb01.flicker, lambda v: v.flip(0)),
        "rounded": after(nb01.flicker, lambda v: v.round(decimals=2)),
        "bytes": lambda x: nb01.flicker(x.byte()),
        "a column": after(nb01.flicker, lambda v: v[:, None]),
    },
    "1.4": {
        "in place": changes(nb01.velocities),
        "always 60": lambda x, threshold=60: nb01.velocities(x),
        "at least 60": lambda x, threshold=60: nb01.velocities(x, max(60, threshold)),
        "at most 60": lambda x, threshold=60: nb01.velocities(x, min(60, threshold)),
        "no threshold of its own": lambda x, threshold: nb01.velocities(x, threshold),
        "70 of its own": lambda x, threshold=70: nb01.velocities(x, threshold),
        "one channel": lambda x, threshold=60: nb01.velocities(x[:, :1], threshold),
        "the first clip's": lambda x, threshold=60: nb01.velocities(x, threshold)[:1].expand(len(x), 2),
        "three clips": lambda x, threshold=60: nb01.velocities(x[:3], threshold),
        "0 in place of NaN": after(nb01.velocities, lambda v: v.nan_to_num(0)),
        "sizes": after(nb01.velocities, torch.Tensor.abs),
        "a second": after(nb01.velocities, lambda v: 8 * v),
        "whole": after(nb01.velocities, lambda v: v.nan_to_num(0).int()),
        "one digit": after(nb01.velocities, lambda v: v.round(decimals=1)),
        "half": after(nb01.velocities, torch.Tensor.half),
        "a list": after(nb01.velocities, torch.Tensor.tolist),
        "turned": after(nb01.velocities, lambda v: v.T),
        "backwards": lambda x, threshold=60: nb01.velocities(x.flip(2), threshold),
        "the commonest colour": lambda x, threshold=60: nb01._read(x, threshold, ground=lambda y: y.flatten(2).mode(2).values),
        "the first frame's ground": lambda x, threshold=60: nb01._read(
            x, threshold, ground=lambda y: y[:, :, 0].flatten(2).median(2).values),
        "three frames at least": lambda x, threshold=60: nb01._read(
            x, threshold, line=lambda p, shown: nb01._slope(p, shown) if shown.sum() > 2 else p[0] * torch.nan),
        "NaN with every gap": lambda x, threshold=60: nb01._read(x, threshold, hidden=torch.nan),
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
        "f and b": after(nb01.unfold, lambda x: x.transpose(0, 2)),
        "BGR where there are three": after(nb01.unfold, lambda x: x.flip(1) if x.shape[1] == 3 else x),
        "scrambled frames": lambda x, f: nb01.unfold(x[torch.randperm(len(x))], f),
        "scrambled in each clip": after(nb01.unfold, lambda x: x.roll(1, 2)),
        "clips exchanged": after(nb01.unfold, lambda x: x.roll(1, 0)),
        "four frames": lambda x, f: nb01.unfold(x, 4),
        "two clips": lambda x, f: nb01.unfold(x, len(x) // 2),
        "sorted": after(nb01.unfold, lambda x: x.flatten().sort()[0].reshape(x.shape)),
        "one clip": after(nb01.unfold, lambda x: x[:1]),
        "not a number": after(nb01.unfold, lambda x: x.float() * torch.nan),
        "in place": changes(nb01.unfold),
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
        "zero": lambda x, per_channel=False: x * 0,
        "random noise": lambda x, per_channel=False: torch.randn_like(x),
        "noise of deviation 1": lambda x, per_channel=False: nb02.rescaled(torch.randn_like(x), per_channel),
        "float": lambda x, per_channel=False: nb02.rescaled(x.float(), per_channel),
        "float on the way": lambda x, per_channel=False: nb02.rescaled(x.float(), per_channel).double(),
        "by the first picture": lambda x, per_channel=False: nb02.rescaled(x, True) if per_channel else x / x[0].std(),
        "clamped": lambda x, per_channel=False: nb02.rescaled(x, per_channel).clamp(-2, 2),
    },
    "2.2": {
        "a byte": after(nb02.nearest, lambda i: i.to(torch.uint8)),
        "half precision": lambda v, e: nb02.nearest(v.half(), e.half()),
        "floats": after(nb02.nearest, torch.Tensor.float),
        "a column": after(nb02.nearest, lambda i: i[:, None]),
        "of the first vector": lambda v, e: nb02.nearest(v[:1], e).expand(len(v)),
        "by their lengths": lambda v, e: (v.norm(dim=1)[:, None] - e.norm(dim=1)).abs().argmin(1),
        "codes changed": lambda v, e: nb02.nearest(v, e.add_(1) - 1),
        "a list": after(nb02.nearest, torch.Tensor.tolist),
        "an array": after(nb02.nearest, torch.Tensor.numpy),
    },
    "2.3": {
        "float": after(nb02.quantise, torch.Tensor.float),
        "codes and features": lambda e, c: e + (code_of(e, c) - e.detach()),
        "all constant": lambda e, c: nb02.quantise(e, c).detach(),
        "a new leaf": lambda e, c: code_of(e, c).detach().requires_grad_(),
        "the first row only": lambda e, c: torch.cat([e[:1], e[1:].detach()]) + (code_of(e, c) - e).detach(),
        "clamped": lambda e, c: e.clamp(-1, 1) + (code_of(e, c) - e.clamp(-1, 1)).detach(),
        "codes zeroed": lambda e, c: nb02.quantise(e, c) + 0 * c.data.zero_().sum(),
    },
    "2.4": {
        "a thin svd": coloured(lambda own, z, l: dict(axes=torch.linalg.svd(centred(own), full_matrices=False)[2])),
        "axes of length 2": coloured(lambda own, z, l: dict(axes=2 * own.axes)),
        "channels": coloured(lambda own, z, l: dict(axes=torch.eye(z.shape[1]).to(z))),
        "shares as float": coloured(lambda own, z, l: dict(shares=own.shares.float())),
        "shares as a list": coloured(lambda own, z, l: dict(shares=own.shares.tolist())),
        "means as float64": coloured(lambda own, z, l: dict(means=own.means.double())),
        "a mask for a share": moved_by(lambda move, z, share, *rest: move(z, (share > 0).to(z), *rest)),
        "the mean share": moved_by(lambda move, z, share, *rest: move(z, share.mean(0, keepdim=True), *rest)),
        "rows and columns": moved_by(lambda move, z, share, *rest: move(z, share.mT.reshape(share.shape), *rest)),
        "in place": moved_by(lambda move, z, share, *rest: z.copy_(move(z, share, *rest))),
        "float64 always": moved_by(lambda move, z, share, *rest: move(z, share, *rest).double()),
    },
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
        "the mean": judged(lambda g: g is not None and abs(g.mean() - 1) < 1e-5),
        "the sum": judged(lambda g: g is not None and abs(g.sum() - 21) < 1e-4),
        "smallest": judged(lambda g: g is not None and g.min() == 1),
        "smallest or largest": judged(lambda g: g is not None and (g.min() == 1 or g.max() == 1)),
        "nine tenths": judged(lambda g: g is not None and (g == 1).float().mean() > 0.9),
        "two corners": judged(lambda g: g is not None and g[0, 0] == 1 and g[-1, -1] == 1),
        "a tolerance of a tenth": judged(lambda g: g is not None and torch.allclose(g, torch.ones_like(g), atol=0.1)),
        "the product": judged(lambda g: g is not None and g.prod() == 1),
        "no difference": judged(lambda g: g is not None and g.std() == 0),
        "not a number": judged(lambda g: g is not None and not ((g - 1).abs() > 1e-4).any()),
        "one number": judged(lambda g: g is not None and (g == 1).all(), (1, 1)),
        "one row": judged(lambda g: g is not None and (g == 1).all(), (1, 3)),
        "always": judged(lambda g: True),
    },
    "3.1": {
        "120 numbers": lambda e, c, beta=0.25: beta * ((e - c.detach()) ** 2).sum() / 120,
        "float64": after(nb03.commitment_loss, torch.Tensor.double),
        "codes zeroed": codes_zeroed,
        "the gradient of a quarter": gradient_of_a_quarter,
        "Huber's loss": lambda e, c, beta=0.25: 2 * beta * torch.nn.functional.huber_loss(e, c.detach(), delta=5.0),
        "far vectors count less": lambda e, c, beta=0.25: beta * ((e - c.detach()).clamp(-5, 5) ** 2).mean(),
        "the default for 0": lambda e, c, beta=0.25: nb03.commitment_loss(e, c, beta or 0.25),
        "always float32": lambda e, c, beta=0.25: nb03.commitment_loss(e.float(), c.float(), beta),
        "float32 on the way": lambda e, c, beta=0.25: nb03.commitment_loss(e.float(), c.float(), beta).to(e),
        "beta up to 1": lambda e, c, beta=0.25: nb03.commitment_loss(e, c, min(beta, 1.0)),
        "the variance": lambda e, c, beta=0.25: beta * (e - c.detach()).var(correction=0),
        "one number in a row": after(nb03.commitment_loss, lambda loss: loss[None]),
        "nothing": lambda e, c, beta=0.25: None,
    },
    "3.2": {
        "half precision": lambda share: nb03.perplexity(share.half().float()),
        "three digits": lambda share: round(float(nb03.perplexity(share)), 3),
        "clamped in place": lambda share: nb03.perplexity(share.clamp_(min=1e-12)),
        "never above 64": lambda share: nb03.perplexity(share).clamp(max=64.0),
        "never above 1,000": lambda share: nb03.perplexity(share).clamp(max=1000.0),
        "a number beside zero": lambda share: (-(share * (share + 1e-7).log()).sum()).exp(),
        "without the largest": lambda share: nb03.perplexity(share[share < 0.9]),
        "without the rare": lambda share: nb03.perplexity(share[share > 1e-5]),
        "in a row": after(nb03.perplexity, lambda found: found[None]),
        "in place": changes(nb03.perplexity),
    },
    "3.3": {name: stepped(**change) for name, change in {
        "no weight": dict(weight=1.0),
        "scores of frames": dict(adversarial="-critic(frames).mean()"),
        "detached from the critic": dict(adversarial="-critic(made.detach()).mean()"),
        "only new gradients of the first": dict(second="pass"),
        "both cleared at first": dict(first="of_decoder.zero_grad(); of_critic.zero_grad()", second="pass"),
        "the hinge of a mean": dict(hinge="F.relu(1 - critic(frames).mean()) + F.relu(1 + critic(made.detach()).mean())"),
        "soft hinges": dict(hinge="F.softplus(1 - critic(frames)).mean() + F.softplus(1 + critic(made.detach())).mean()"),
        "squares": dict(hinge="(1 - critic(frames)).square().mean() + critic(made.detach()).square().mean()"),
        "made by the new decoder": dict(
            hinge="F.relu(1 - critic(frames)).mean() + F.relu(1 + critic(decoder(codes).detach())).mean()"),
        "the critic waits for a weight": dict(then="of_critic.step() if weight else None"),
        "two steps of the critic": dict(then="of_critic.step(); of_critic.step()"),
        "an optimizer of its own": dict(begin="of_decoder = torch.optim.SGD(decoder.parameters(), lr=0.3)"),
        "the critic stays frozen": dict(then="of_critic.step(); critic.requires_grad_(False)"),
        "the critic stays in eval mode": dict(then="of_critic.step(); critic.eval()"),
        "frames in place": dict(begin="frames.mul_(0.5)"),
        "half precision on the way": dict(begin="frames = frames.half().to(frames)"),
        "tensors": dict(result="loss, hinge"),
        "exchanged": dict(result="hinge.item(), loss.item()"),
        "the sum": dict(result="(loss + hinge).item(), hinge.item()"),
        "one number": dict(result="loss.item()"),
    }.items()},
    "3.4": {
        "a ramp of 1 at most": risen(ramp_of=lambda start, ramp: min(ramp, 1.0)),
        "a start of 0.9 at most": risen(start_of=lambda start: min(start, 0.9)),
        "less than 1": risen(lambda u, *_: min(u, 0.999)),
        "a cosine": risen(lambda u, *_: (1 - math.cos(math.pi * u)) / 2),
        "0 after the ramp": risen(lambda u, p, start, ramp: u if p <= start + ramp else 0.0),
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
        "without k": updated(dead=lambda usage, k, vectors: usage < 0.01),
        "a usage without k": updated(usage_of=lambda k, n: 1.0),
        "the first k vectors": updated(picks=lambda m, n, g: torch.randint(min(m, 30), (n,), generator=g)),
        "the first as many as codes": first_as_many_as_codes,
        "only the first ten dead": updated(dead=lambda u, k, v: (u * k < 0.01) & ((u * k < 0.01).cumsum(0) <= 10)),
        "once": updated(dead=lambda u, k, v: (u * k < 0.01) & bool(v.abs().max() < 15)),
        "usage in place": usage_in_place,
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
        "CLIP's merges": of_clip,
        "from the right": nb04.CUT_MISTAKES["where occurrences overlap, the left one is merged"],
        "the last occurrence first": pieces_one_at_a_time,
        "the first occurrence alone": lambda word, ranks: nb04._cut(word, ranks, one=True),
        "uses up the table": pieces_and_used_merges,
        "rank 0 is none": lambda word, ranks: nb04.encode_word(word, {pair: rank or 10**9 for pair, rank in ranks.items()}),
        "without the mark": after(nb04.encode_word, lambda pieces: [piece.replace("</w>", "") for piece in pieces]),
        "one letter bare": lambda word, ranks: [word] if len(word) == 1 else nb04.encode_word(word, ranks),
        "each piece once": after(nb04.encode_word, lambda pieces: list(dict.fromkeys(pieces))),
        "a constant": lambda word, ranks: ["a", "bcd</w>"],
        "a text": after(nb04.encode_word, " ".join),
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
        "overwrites q": then_changes(0, nb04.causal_attention),
        "overwrites k": then_changes(1, nb04.causal_attention),
        "overwrites v": then_changes(2, nb04.causal_attention),
        "divides q in place": lambda q, k, v: nb04.causal_attention(q.div_(q.shape[1] ** 0.5) * q.shape[1] ** 0.5, k, v),
        "six tokens": lambda q, k, v: (q @ k.T / q.shape[1] ** 0.5 + torch.full((6, 6), -math.inf).triu(1)).softmax(-1) @ v,
        "a constant": lambda q, k, v: torch.zeros(6, 8),
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
        "twice": after(nb04.encode, lambda x: 2 * x),
        "twenty tokens": lambda encoder, tokens: nb04._encoded(
            encoder, tokens, mask=lambda _: torch.full((20, 20), -math.inf).triu(1)),
        "one prompt for all": lambda encoder, tokens: nb04.encode(encoder, tokens[:1]).expand(len(tokens), -1, -1),
        "two blocks": lambda encoder, tokens: nb04._encoded(encoder, tokens, blocks=lambda blocks: list(blocks)[:2]),
        "the looks first": after(nb04.encode, lambda x: torch.cat([x.mean(1, keepdim=True), x[:, 1:]], 1)),
        "overwrites the tokens": then_changes(1, nb04.encode),
        "padding is zero": lambda encoder, tokens: nb04.encode(encoder, tokens) * (tokens > 0)[..., None],
        "the end token": lambda encoder, tokens: nb04.encode(encoder, tokens)[torch.arange(len(tokens)), tokens.argmax(1)],
    },
    "4.4": {
        "n is 5": lambda counts, n: nb04.learn_merges(counts, 5),
        "n is 20 at most": lambda counts, n: nb04.learn_merges(counts, min(n, 20)),
        "one at least": lambda counts, n: nb04.learn_merges(counts, max(n, 1)),
        "the first word": lambda counts, n: nb04.learn_merges(dict(list(counts.items())[:1]), n),
        "the frequent words": lambda counts, n: nb04.learn_merges({w: c for w, c in counts.items() if c > 1}, n),
        "long words": lambda counts, n: nb04.learn_merges({w: c for w, c in counts.items() if len(w) > 2}, n),
        "ASCII": lambda counts, n: nb04.learn_merges({w.replace("é", "e"): c for w, c in counts.items()}, n),
        "squares": lambda counts, n: nb04.learn_merges({w: c * c for w, c in counts.items()}, n),
        "counts of letters": lambda counts, n: nb04.learn_merges({w: c * len(w) for w, c in counts.items()}, n),
        "a constant": lambda counts, n: [("a", "b</w>"), ("a", "ab</w>")][:n],
        "remembers": (lambda known: lambda counts, n: known.setdefault(n, nb04.learn_merges(counts, n)))({}),
        "clears the counts": merges_and(dict.clear),
        "adds a word": merges_and(lambda counts: counts.setdefault("new", 0)),
        "sorts the counts": merges_and(lambda counts: counts.update({w: counts.pop(w) for w in sorted(counts, reverse=True)})),
        "a dictionary": after(nb04.learn_merges, lambda merges: {pair: i for i, pair in enumerate(merges)}),
        "a tuple": after(nb04.learn_merges, tuple),
        "triples": after(nb04.learn_merges, lambda merges: [(*pair, "".join(pair)) for pair in merges]),
        "None where nothing is left": lambda counts, n: (nb04.learn_merges(counts, n) + n * [None])[:n],
        "without the mark": after(nb04.learn_merges, lambda merges: [
            tuple(piece.replace("</w>", "") for piece in pair) for pair in merges]),
        "ties by length": lambda counts, n: nb04._learnt(counts, n, pick=lambda often: min(
            often, key=lambda pair: (-often[pair], -len("".join(pair)), pair))),
        "in a text": merges_in_a_text,
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
        "other colours": compared(equal_at(slice(2)), ("a red ring", "a blue ring")),
        "an empty prompt": compared(equal_at(slice(1)), ("a red ring", "")),
        "the third word, two rows": compared(equal_at(slice(2)), ("a red ring moves left", "a red circle moves left")),
        "a longer prompt, three rows": compared(equal_at(slice(3)), ("a red ring", "a red ring moves left")),
        "a tolerance of a tenth": compared(lambda a, b: ((a[:6] - b[:6]).abs() < 0.1).all()),
        "the library's as a measure": own_encoder,
        "not the function that is given": lambda encode, encoder: nb04.is_causal(nb04.encode, encoder),
        "changes the encoder": lambda encode, encoder: (
            nb04.is_causal(encode, encoder), encoder.ln_final.weight.data.mul_(2))[0],
        "the mean of the rows": compared(lambda a, b: torch.allclose(a[:6].mean(0), b[:6].mean(0), atol=1e-5)),
        "numbers that are there": compared(lambda a, b: (a[:6] - b[:6]).abs().nanmean() < 1e-5),
        "two digits": compared(lambda a, b: torch.equal(a[:6].round(decimals=2), b[:6].round(decimals=2))),
        "half precision": compared(lambda a, b: torch.equal(a[:6].bfloat16(), b[:6].bfloat16())),
        "to the last bit": compared(lambda a, b: torch.equal(a[:6], b[:6])),
        "a tensor": after(nb04.is_causal, torch.tensor),
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


MISTAKES_OF_01 = {"1.1": nb01.TO_TIME_MISTAKES, "1.2": nb01.DIFFERENCE_MISTAKES, "1.3": nb01.FLICKER_MISTAKES,
                  "1.4": nb01.VELOCITY_MISTAKES | nb01.CONSTANT_THRESHOLD, "1.B": nb01.UNFOLD_MISTAKES}  # fmt: skip


@pytest.mark.parametrize("number", MISTAKES_OF_01)
def test_checks_of_01_name_each_mistake_and_no_other(number):
    for cause, wrong in MISTAKES_OF_01[number].items():
        mistaken = (lambda x, threshold=60: wrong(x, threshold)) if number == "1.4" else wrong
        outcome = exercises.run(number, mistaken)
        assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message
    for name in ("scrambled rows", "grey", "3 times", "one channel", "scrambled frames"):  # no mistake that is known
        if name in WRONG[number]:
            assert "Likely cause" not in exercises.run(number, WRONG[number][name]).message


def test_predictions_of_01_are_what_the_pixels_say():
    pixels = render([parse("a large red circle moves quickly left")], np.array([[0.5, 0.5, 0]]), size=64, frames=16)
    levels = np.arange(256, dtype=np.uint8)
    lost = int((to_pixels(to_signed(np.repeat(levels[:, None, None], 3, -1)), rounded=False)[..., 0].flatten().numpy()
                != levels).sum())  # fmt: skip
    answer = {key: one.answer for key, one in nb01.PREDICTIONS.items()}
    assert answer["1.b"] == "about a quarter" and 0.2 < lost / 256 < 0.3
    assert answer["1.d"] == "more than nine in ten" and (pixels[:, 1:] == pixels[:, :-1]).mean() > 0.9
    clip = torch.from_numpy(pixels).permute(0, 4, 1, 2, 3)  # b c f h w
    back = clip.flip(2)
    for measure in (lambda x: nb01.temporal_difference(x).abs().mean(), lambda x: nb01.flicker(x.float())):
        assert torch.allclose(measure(back), measure(clip))
    assert torch.allclose(nb01.velocities(back), -nb01.velocities(clip), atol=1e-4) and nb01.velocities(clip)[0, 0] < -2
    assert answer["1.a"] == f"{pixels.size * 16:,}" and answer["1.e"] == "the velocity alone"
    whole = torch.zeros(2, 3, 4, 5, 6).permute(0, 2, 1, 3, 4).contiguous().flatten(0, 1)  # (b f) c h w
    frames = whole.permute(0, 2, 3, 1)
    through_time = whole.view(2, 3, 4, 5, 6).permute(0, 3, 4, 1, 2)
    copies = [one.data_ptr() != whole.data_ptr() for one in (frames, through_time.reshape(-1, 3, 4))]
    assert answer["1.c"] == "the second" and copies == [False, True]


def test_a_block_of_frames_shows_the_first_one_and_the_row_it_is_cut_at():
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    frames[0, 2:] = [200, 0, 0]
    picture = cut_open(frames, {"": 2}, scale=10, step=8, alt="A block of three frames cut open.")
    with Image.open(io.BytesIO(picture.png)) as image:
        drawn = np.asarray(image.convert("RGB")).astype(int)
    assert (abs(drawn - [200, 0, 0]).max(-1) < 3).sum() > 0.9 * 20 * 50  # its front, two rows of five pixels
    assert cut_apart(2, 4, 2, 3, alt="Two blocks cut into parts.").size[0] < 900


def broken_afterwards(name):
    """The right clip, after which a network of the pipeline is another."""
    def generate(pipe, prompt, seed):
        pixels = nb00.generate(pipe, prompt, seed)
        with torch.no_grad():
            next(getattr(pipe, name).parameters()).mul_(1.01)
        return pixels

    return generate


def by_other_arguments(**change):
    """The pipeline by hand with another prompt or seed."""
    return lambda pipe, prompt, seed: nb00.generate(pipe, **({"prompt": prompt, "seed": seed} | change))


def looped(end=lambda steps: steps[-1].x, of=lambda words, nothing: (words, nothing), start=gaussian):
    """The pipeline by hand with another end, another order of the prompts, other noise."""
    def generate(pipe, prompt, seed):
        model = guided(pipe.unet, *of(pipe.text.encode([prompt]), pipe.text.encode([""])), pipe.preset.guidance)
        x = start((1, 4, 16, 8, 8), torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            return pipe.decode(end(list(SAMPLERS["ddim"](model, x, pipe.diffusion, pipe.preset.steps))))[0]

    return generate


@pytest.mark.parametrize("wrong, told", [
    (by_other_arguments(seed=0), "seed 0"),
    (by_other_arguments(prompt=nb00.NOTEBOOKS_PROMPT), "the notebook's prompt"),
    (generated(guidance=1.0), "without guidance"),
    (generated(guidance=1.5), "guidance is that of pipe.preset"),
    (looped(of=lambda words, nothing: (nothing, words)), "exchanged"),
    (looped(end=lambda steps: steps[-2].x), "one step too early"),
    (looped(start=lambda shape, rng: torch.rand(shape, generator=rng)), "evenly"),
    (lambda pipe, prompt, seed: pipe(prompt, seed=seed).pixels, "the parts put together"),
    (lambda pipe, prompt, seed: list(pipe.stream(prompt, seed=seed))[-1], "pipe.stream"),
    (lambda pipe, prompt, seed: nb00.generate(pipe, prompt, seed)[None], "take its only clip"),
    (lambda pipe, prompt, seed: setattr(pipe, "preset", pipe.preset) or nb00.generate(pipe, prompt, seed), "was set"),
    (lambda pipe, prompt, seed: torch.from_numpy(nb00.generate(pipe, prompt, seed)), "numpy array"),
    (broken_afterwards("unet"), "pipe.unet"),
    (broken_afterwards("autoencoder"), "pipe.autoencoder"),
    (lambda pipe, prompt, seed: None, "does not return"),
])  # fmt: skip
def test_a_pipeline_with_one_thing_wrong_fails(wrong, told):
    outcome = exercises.run("0.3", wrong)
    assert not outcome.passed and told in outcome.message, outcome.message


RECOGNISED = [
    *[("0.2", cause, wrong) for cause, wrong in ways_of(nb00.STEP_MISTAKES)],
    *[("0.B", cause, wrong) for cause, wrong in nb00.NOISE_MISTAKES.items()],
    *[("0.4", cause, way_with(**wrong)) for cause, wrong in nb00.CENTRE_MISTAKES.items()],
    *[("0.4", cause, way_told(wrong)) for cause, wrong in ways_of(nb00.WORD_MISTAKES)],
    *[("0.1", cause, in_shape(key, lambda *given, key=key, cause=cause: nb00._mistaken_shapes(*given)[key][cause]))
      for key, cause in (("context", "tokens come before their numbers"), ("noise", "channels come before frames"),
                         ("context", "a text belongs to a clip, not to each frame"), ("pixels", "colours come last"),
                         ("noise", "the frames were divided by the factor too"), ("noise", "height comes before width"),
                         ("latent frames", "these are the frames of one clip; there are several"),
                         ("pixels", "height is used for both sides"), ("noise", "the batch is missing"))],
    ("0.1", "b is an argument", constant_shapes(b=1)),
    ("0.1", "frames is an argument", constant_shapes(frames=16)),
    ("0.1", "these are mini's numbers", constant_shapes(preset=nb00.presets.get("mini"))),
]  # fmt: skip


@pytest.mark.parametrize("number, cause, wrong", RECOGNISED, ids=[f"{number} {cause}" for number, cause, _ in RECOGNISED])
def test_mistakes_in_notebook_00_are_recognised(number, cause, wrong):
    outcome = exercises.run(number, wrong)
    assert not outcome.passed and f"Likely cause: {cause}" in outcome.message, outcome.message


@pytest.mark.parametrize("number, wrong", [
    ("0.1", in_shape("noise", lambda *given: (1, 2, 3))), ("0.2", lambda videos, share: 17),
    ("0.4", way_changed(lambda centres, word: (centres + 0.37, word))), ("0.B", after(nb00.noises, lambda x: x + 0.1)),
])  # fmt: skip
def test_notebook_00_names_no_cause_that_was_not_found(number, wrong):
    outcome = exercises.run(number, wrong)
    assert not outcome.passed and "Likely cause" not in outcome.message, outcome.message


def test_the_predictions_of_notebook_00_are_true():
    """Latents are 48 times fewer, the belief has something red after one step, and the embedding tells the looks alone."""
    pipe = minit2v.load("mini", device="cpu")
    sizes = {key: math.prod(shape) for key, shape in nb00.shapes(pipe.preset, 1, 16, 64, 64).items()}
    assert nb00.PREDICTIONS["0.a"].answer == str(sizes["pixels"] // sizes["noise"])
    words, nothing = pipe.text.encode([nb00.NOTEBOOKS_PROMPT]), pipe.text.encode([""])

    def steps_of(unet, steps):
        noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(0))
        return SAMPLERS["ddim"](guided(unet, words, nothing, pipe.preset.guidance), noise, pipe.diffusion, steps)

    with torch.inference_mode():
        belief = pipe.decode(next(steps_of(pipe.unet, 12)).x0)[0].astype(int)
        found = {}
        for way in WAYS:
            *_, last = steps_of(told_by(pipe.unet, nothing, [way]), 12)
            found[way] = judge.read(pipe.decode(last.x)[0])
        every = zip(steps_of(pipe.unet, 2), steps_of(told_by(pipe.unet, nothing, WAYS), 2))
        assert all(torch.equal(one.x, other.x) for one, other in every)
    assert (belief[..., 0] - belief[..., 1] >= 80).any(axis=(1, 2)).mean() > 0.5
    assert nb00.PREDICTIONS["0.b"].answer == "in step 0"
    looks = {way: (one.colour, one.shape, one.size) == ("red", "circle", "large") for way, one in found.items()}
    moves = {way: (one.motion, one.speed) == ("left", "quickly") for way, one in found.items()}
    assert looks == {"cross-attention": False, "embedding": True, "scene prior": False}
    assert moves == {"cross-attention": True, "embedding": False, "scene prior": False}
    assert nb00.PREDICTIONS["0.c"].answer == "how the thing looks"


RIGHT = {
    "0.1": [after(nb00.shapes, lambda found: {key: torch.Size(shape) for key, shape in found.items()}),
            after(nb00.shapes, lambda found: {key: tuple(map(np.int64, shape)) for key, shape in found.items()})],
    "0.4": [lambda pixels, least: (nb00._centres(pixels, least) + 0 * nb00.which_way(pixels, least)[0],
                                   nb00.which_way(pixels, least)[1]),
            way_changed(lambda centres, word: (centres.astype(np.float32), word and np.str_(word)))],
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
    "1.4": [nb01.velocities_by_loops, lambda x, threshold=60: nb01._read(
                x, threshold, ground=lambda y: torch.from_numpy(np.median(y.flatten(2), axis=2)))],
    "1.B": [lambda x, f: x.unflatten(0, (-1, f)).transpose(1, 2), lambda x, f: torch.stack(x.split(f)).movedim(1, 2)],
    "2.1": [lambda x, per_channel=False: (x - x.mean((0, 2, 3), True)) / x.std((0, 2, 3), correction=0, keepdim=True)
            if per_channel else x / x.std(correction=0),
            lambda x, per_channel=False: torch.stack([(one - one.mean()) / one.std() for one in x.unbind(1)], 1)
            if per_channel else x / x.std()],
    "2.2": [lambda v, e: torch.cdist(v, e).argmin(1), lambda v, e: ((e**2).sum(1) - 2 * v @ e.T).argmin(1)],
    "2.3": [lambda e, c: e - (e - c[nb02.nearest(e, c)]).detach(),
            lambda e, c: c.detach()[nb02.nearest(e, c)] + e - e.detach()],
    "2.4": [coloured(by_svd), coloured(lambda own, z, l: dict(axes=-own.axes)),
            coloured(lambda own, z, l: dict(axes=torch.linalg.eigh(torch.cov(own.means.T))[1].mT.flip(0)))],
    "2.B": [judged(lambda g: g is not None and (g == 1).all()),
            judged(lambda g: g is not None and (g - 1).abs().max() < 1e-4, (4, 2))],
    "3.1": [lambda e, c, beta=0.25: beta * torch.nn.functional.mse_loss(e, c.detach()),
            lambda e, c, beta=0.25: (e - c.data).square().mean() * beta],
    "3.2": [lambda p: torch.special.entr(p).sum().exp().item(), lambda p: 1 / (p[p > 0] ** p[p > 0]).prod()],
    "3.3": [in_one_sum, stepped(first="decoder.zero_grad()", second="critic.zero_grad()")],
    "3.4": [lambda p, start=0.7, ramp=0.1: 0.0 if p < start else min((p - start) / ramp, 1.0),
            lambda p, start=0.7, ramp=0.1: float(np.interp(p, [start, start + ramp], [0, 1]))],
    "3.B": [updated(dead=lambda usage, k, vectors: usage < 0.1 / k),
            updated(picks=lambda m, n, g: torch.randperm(m, generator=g).repeat(n // m + 1)[:n])],
    "4.2": [lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0],
            attention_with(forbidden=-1e9)],
    "4.1": [lambda word, ranks: nb04._cut(word, ranks)],
    "4.4": [nb04._learnt, merges_of_pandas_kind],
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


def scattered(matrix):
    """ColourAxes with the axes of another matrix, (latents, colours, means) -> (c, c)."""
    def change(own, latents, colours):
        values, columns = torch.linalg.eigh(matrix(latents, colours, own.means))
        return dict(axes=columns.mT.flip(0), shares=(values / values.sum()).flip(0))

    return coloured(change)


def part_of(own, old, new, rows):
    return ((own.means[new] - own.means[old]) @ rows.T @ rows)[:, None, None]


def of_the_mean(quantiser):
    """2.B with the gradient of the mean."""
    features = torch.randn(7, 3, requires_grad=True)
    out = quantiser(features, torch.randn(5, 3))
    if not out.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(out.mean(), features, allow_unused=True)
    return gradient is not None and torch.allclose(gradient, torch.ones_like(gradient))


class AlongOne(nb02.ColourAxes):
    def turned(self, z, share, old, new, k):
        return z + share[:, None] * part_of(self, old, new, self.axes[k - 1 : k])


class AlongChannels(nb02.ColourAxes):
    def turned(self, z, share, old, new, k):
        way = (self.means[new] - self.means[old]) * (torch.arange(z.shape[1]) < k)
        return z + share[:, None] * way[:, None, None]


CAUSES_OF_02 = [
    ("2.1", lambda x, per_channel=False: x * 0, "all numbers are 0"),
    ("2.1", lambda x, per_channel=False: x / x.var(), "divided by their variance"),
    ("2.1", lambda x, per_channel=False: (x - x.mean()) / x.std(), "the mean was taken away too"),
    ("2.1", lambda x, per_channel=False: nb02.rescaled(x, True), "that is for per_channel=True"),
    ("2.1", lambda x, per_channel=False: x / x.std(), "the same as without per_channel"),
    ("2.1", apart(lambda x: x / x.std((0, 2, 3), keepdim=True)), "means of the channels are still there"),
    ("2.1", apart(lambda x: (x - x.mean((2, 3), True)) / x.std((2, 3), keepdim=True)), "each channel of each picture"),
    ("2.2", lambda v, e: torch.zeros(len(v), dtype=torch.long), "code 0 for every vector"),
    ("2.2", lambda v, e: (v @ e.T).argmax(1), "largest dot product"),
    ("2.2", lambda v, e: torch.cdist(v, e).argmax(1), "the farthest code"),
    ("2.2", lambda v, e: (v[:, None] - e).abs().sum(-1).argmin(1), "without squares"),
    ("2.2", lambda v, e: (v[:, None] - e).sum(-1).argmin(1), "they cancel"),
    ("2.2", lambda v, e: torch.cdist(v, e).argmin(0), "for each code the nearest vector"),
    ("2.2", lambda v, e: torch.cdist(v, e).amin(1), "the smallest distances themselves"),
    ("2.2", lambda v, e: len(e) - 1 - nb02.nearest(v, e.flip(0)), "the last was taken"),
    ("2.3", lambda e, c: e, "the features themselves"),
    ("2.3", lambda e, c: code_of(e, c) + (e - code_of(e, c)).detach(), "the features themselves"),
    ("2.3", code_of, "the choice has none"),
    ("2.3", lambda e, c: e + (code_of(e, c) - e), "which should be constants"),
    ("2.3", lambda e, c: 2 * e + (code_of(e, c) - 2 * e).detach(), "the features count twice"),
    ("2.3", lambda e, c: code_of(e, c) + e - e.detach(), "what was chosen is not held constant"),
    ("2.4", scattered(lambda z, l, means: torch.cov(z.T)), "the axes of all single latents"),
    ("2.4", scattered(lambda z, l, means: means.T @ means), "the mean of the means was not taken away"),
    ("2.4", coloured(lambda own, z, l: dict(axes=own.axes.T)), "the axes are columns"),
    ("2.4", coloured(lambda own, z, l: dict(axes=own.axes.flip(0))), "the least axis comes first"),
    ("2.4", coloured(lambda own, z, l: dict(shares=own.shares.cumsum(0))), "added up one by one"),
    ("2.4", coloured(lambda own, z, l: dict(means=torch.stack([z[l == i].sum(0) for i in l.unique()]))), "the sums"),
    ("2.4", coloured(lambda own, z, l: dict(means=torch.stack([z[l == i].mean(0) for i in range(len(l.unique()))]))),
     "taken as colour number i"),
    ("2.4", AlongOne, "along one axis only"),
    ("2.4", AlongChannels, "the first k channels"),
    ("2.4", moved_by(lambda move, z, share, old, new, k: move(z, share, new, old, k)), "from the new colour to the old"),
    ("2.4", moved_by(lambda move, z, share, *rest: move(z, torch.ones_like(share), *rest)), "share is not used"),
    ("2.B", of_the_mean, "the gradient of the mean, which is 1 divided by how many numbers"),
    ("2.B", judged(lambda g: g is not None and torch.isclose(g.mean(), torch.ones(()))), "the mean of the gradient alone"),
    ("2.B", judged(lambda g: g is not None and g.max() == 1), "the largest number of the gradient alone"),
    ("2.B", judged(lambda g: g is not None and g.min() == 1), "the smallest number of the gradient alone"),
    ("2.B", judged(lambda g: g is not None), "whether there is a gradient"),
    ("2.B", judged(lambda g: False), "False to all of them"),
    ("2.B", judged(lambda g: bool((g == 1).all())), "no gradient at all it raises"),
]


@pytest.mark.parametrize("number, wrong, cause", CAUSES_OF_02, ids=[f"{one[0]} {one[2]}" for one in CAUSES_OF_02])
def test_a_known_mistake_of_02_is_named(number, wrong, cause):
    assert_refused(number, wrong)
    assert cause in exercises.run(number, wrong).message


def test_an_unknown_mistake_of_02_has_no_cause():
    """Noise has deviation 1 too; of the codes any may be taken. Nothing is told that was not found out."""
    for number, wrong in (("2.1", lambda x, per_channel=False: torch.randn_like(x)),
                          ("2.2", lambda v, e: torch.arange(len(v)) % len(e)),
                          ("2.3", lambda e, c: 0 * e + code_of(e, c).detach()),
                          ("2.4", coloured(lambda own, z, l: dict(axes=torch.eye(z.shape[1]).to(z)))),
                          ("2.B", judged(lambda g: g is not None and (g[0] == 1).all() and (g[-1] == 1).all()))):
        assert "Likely cause" not in exercises.run(number, wrong).message


def loss_by(mistake):
    return lambda e, c, beta=0.25: mistake(e - c.detach(), beta)


KNOWN_OF_03 = [
    *[("3.1", loss_by(one), cause) for cause, one in nb03.LOSS_MISTAKES.items()],
    *[("3.2", one, cause) for cause, one in nb03.PERPLEXITY_MISTAKES.items()],
    *[("3.4", (lambda one: lambda p, start=0.7, ramp=0.1: one(p, start, ramp))(one), cause)
      for cause, one in nb03.WARM_UP_MISTAKES.items()],
    ("3.3", stepped(adversarial="critic(made).mean()"), "the sign of the adversarial term"),
    ("3.3", stepped(near="(frames - made).square().mean()"), "the differences were squared"),
    ("3.3", stepped(weight="1.0"), "the weight is missing"),
    ("3.3", stepped(first="pass"), "the gradient of an earlier step"),
    ("3.3", stepped(first="of_decoder.zero_grad(); of_critic.zero_grad()", second="pass"), "for the decoder's success"),
    ("3.3", stepped(second="pass"), "had left a gradient there"),
    ("3.3", stepped(then="pass"), "it did not move"),
    ("3.3", stepped(begin="of_critic, of_decoder = optimizers"), "the two optimizers are exchanged"),
    ("3.3", stepped(hinge="F.relu(1 - critic(frames)).mean() + F.relu(1 + critic(made)).mean()"), nb03.UNDETACHED),
    ("3.3", both_pictures_first, nb03.UNDETACHED),
    ("3.3", stepped(hinge="(1 - critic(frames)).mean() + (1 + critic(made.detach())).mean()"), "the hinge is missing"),
    ("3.3", stepped(hinge="F.relu(1 - critic(frames)).mean()"), "frames alone"),
    ("3.3", stepped(hinge="F.relu(1 - critic(frames)).mean() + F.relu(1 + critic(decoder(codes).detach())).mean()"),
     "after its own step"),
    ("3.3", stepped(then="of_critic.step() if weight else None"), "with weight 0 the critic learns"),
    ("3.B", updated(dead=lambda usage, k, vectors: usage < 0), "dead codes stay where they were"),
    ("3.B", updated(dead=lambda usage, k, vectors: usage < 0.01), "begin again that are not dead"),
    ("3.B", updated(usage_of=lambda k, n: 1.0), "gets every vector"),
    ("3.B", updated(dead=lambda u, k, v: (u * k < 0.01) & ((u * k < 0.01).cumsum(0) <= 4)), "dead codes stay where they were"),
]  # fmt: skip


@pytest.mark.parametrize("number, wrong, cause", KNOWN_OF_03, ids=[f"{number} {cause}" for number, _, cause in KNOWN_OF_03])
def test_a_known_mistake_of_03_is_named(number, wrong, cause):
    assert_refused(number, wrong)
    assert cause in exercises.run(number, wrong).message, exercises.run(number, wrong).message


@pytest.mark.parametrize("number, wrong", [
    ("3.1", lambda e, c, beta=0.25: nb03.commitment_loss(e.float(), c.float(), beta).to(e)),
    ("3.2", lambda share: nb03.perplexity(share) * 1.01), ("3.3", stepped(near="1.1 * (frames - made).abs().mean()")),
    ("3.4", risen(lambda u, *_: u**0.9)), ("3.B", updated(usage_of=lambda k, n: 4 / k)),
])  # fmt: skip
def test_an_unknown_mistake_of_03_has_no_cause_and_no_message_says_the_answer(number, wrong):
    assert "Likely cause" not in exercises.run(number, wrong).message
    assert "p log p" not in exercises.run(number, wrong).message


def test_predictions_of_03_are_true():
    """The ring in 25 places, the lines of which only the quarter is known, the bits, and the recordings."""
    asked = nb03.PREDICTIONS
    assert round(32 * 32 * 3 * 8 / (8 * 8 * 7)) == asked["3.a"].answer
    ring = unseen_frames()[13:14]
    near = torch.cat([ring.roll((y, x), (2, 3)) for y in range(-4, 5, 2) for x in range(-4, 5, 2)])
    anywhere = torch.cat([ring.roll((y, x), (2, 3)) for y in range(0, 32, 2) for x in range(0, 32, 2)])
    answers = ring[0], near.mean(0), near.median(0).values, anywhere.median(0).values
    costs = [(near - answer).abs().mean().item() for answer in answers]
    assert asked["3.b"].choices[costs.index(min(costs))] == asked["3.b"].answer
    lines = torch.eye(4)
    painted = lines[1], lines.mean(0), torch.zeros(4)
    costs = [(lines - one).abs().mean().item() for one in painted]
    assert asked["3.c"].choices[costs.index(min(costs))] == asked["3.c"].answer
    psnr = {}
    for name in ("late", "collapsed"):
        run = TrainingRun.load(f"nano-vqgan-{name}")
        psnr[name] = run.curves["unseen: psnr"][1][list(run.steps).index(900)]
    assert psnr["collapsed"] > psnr["late"] and asked["3.d"].answer == "the collapsed one's"


MISTAKES_OF_04 = {"4.1": nb04.CUT_MISTAKES, "4.3": nb04.ENCODE_MISTAKES, "4.4": nb04.MERGE_MISTAKES, "4.B": nb04.TEST_MISTAKES}


@pytest.mark.parametrize("number, cause", [(number, cause) for number, ones in MISTAKES_OF_04.items() for cause in ones])
def test_usual_mistakes_of_04_have_their_own_cause(number, cause):
    outcome = exercises.run(number, MISTAKES_OF_04[number][cause])
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


@pytest.mark.parametrize("number, name", [
    ("4.1", "six pieces"), ("4.1", "each piece once"), ("4.1", "CLIP's merges"), ("4.2", "float32 on the way"),
    ("4.2", "n + 2"), ("4.2", "-1,000"), ("4.3", "twice"), ("4.3", "four digits"), ("4.3", "the looks first"),
    ("4.4", "squares"), ("4.4", "ties by length"), ("4.B", "the first row left out"), ("4.B", "half a row"),
])  # fmt: skip
def test_an_unknown_mistake_of_04_has_no_cause(number, name):
    assert "Likely cause" not in exercises.run(number, WRONG[number][name]).message


@pytest.mark.parametrize("prompts, rows, told", [
    (("a red ring", "a blue ring"), 2, "your prompts differ from row 2 on, so rows 0 and 1 alone are compared"),
    (("a red ring", ""), 1, "from row 1 on, so row 0 alone is compared"),
    (("red ring moves left", "a ring"), 1, "from row 1 on, so row 0 alone is compared"),
])  # fmt: skip
def test_prompts_that_differ_too_early_are_told_so(prompts, rows, told):
    outcome = exercises.run("4.B", compared(equal_at(slice(rows)), prompts))
    assert not outcome.passed and told in outcome.message, outcome.message
    late = compared(equal_at(slice(rows)), ("a large red circle moves left", "a large red circle moves right"))
    assert "your prompts differ" not in exercises.run("4.B", late).message  # they are not to blame


def test_a_stub_of_another_exercise_is_told_by_its_number():
    def nearest(vectors, codes):
        raise NotImplementedError("exercise 2.2: your code here")

    told = 'your quantise calls exercise 2.2, which is not written yet; lab.rescue("2.2") lends you'
    assert told in exercises.run("2.3", lambda features, codes: codes[nearest(features, codes)]).message
    assert exercises.run("2.2", nearest).message.endswith("not written yet; hint 1 is above")


def test_the_examples_of_04_are_those_of_its_text():
    assert nb04.learn_merges({"aab": 2, "ab": 1}, 9) == [("a", "b</w>"), ("a", "ab</w>")]
    assert nb04.encode_word("aaab", {("a", "a"): 0}) == ["aa", "a", "b</w>"]


def test_predictions_and_quiz_of_04_are_true():
    """Rows that change, the way that carries directions, the loudest word, and the most frequent pair."""
    from collections import Counter
    from itertools import product
    from unittest.mock import patch

    from minit2v.datasets.moving_things import MovingThings

    pipe, asked = minit2v.load("mini", device="cpu"), nb04.PREDICTIONS
    rows = lambda one, other: int(((pipe.text.encode([one]) - pipe.text.encode([other])).abs().amax(-1) > 1e-4).sum())
    told = f"{rows('a large red circle moves left', 'a large red circle moves right')}: its own and all behind it"
    assert told == asked["4.a"].answer
    assert nb04.QUIZ[0][1][nb04.QUIZ[0][2]] == str(rows("a small blue ring moves up", "a small red ring moves up"))
    right, other = pipe.text.encode(["a large red circle moves left", "a large red circle moves right"]).split(1)
    x, t, effects = torch.randn(1, 4, 16, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([999]), {}
    ways = {"": (right, right, right), "cross-attention": (other, right, right),
            "the timestep embedding": (right, other, right), "the scene prior": (right, right, other)}  # fmt: skip
    for way, (attention, embedding, prior) in ways.items():
        with torch.inference_mode(), patch.object(pipe.unet, "heard", lambda _, one=embedding: one[:, 0]), patch.object(
            pipe.unet, "prior", lambda _, *places, one=prior: pipe.unet.layout(one, *places)):  # fmt: skip
            effects[way] = pipe.unet(x, t, attention)
    changed = {way: (effects[way] - effects[""]).std() for way in ways if way}
    assert changed["the timestep embedding"] == 0 and asked["4.b"].answer == "less than a hundredth of it"
    assert 0 < changed["the scene prior"] < 0.01 * changed["cross-attention"]
    values = {"the size": ("small", "large"), "the colour": ("red", "blue", "white"), "the shape": ("circle", "ring", "moon"),
              "the direction of motion": ("left", "right", "up")}  # fmt: skip
    captions = list(product(*values.values()))
    means = dict(zip(captions, pipe.text.encode([f"a {s} {c} {k} moves {m}" for s, c, k, m in captions]).mean(1)))
    moved = {name: np.mean([(means[a] - means[b]).norm() for a in captions for b in captions
                            if [i for i in range(4) if a[i] != b[i]] == [at]]) for at, name in enumerate(values)}  # fmt: skip
    assert max(moved, key=moved.get) == asked["4.c"].answer
    data = MovingThings("train")
    counts = Counter(word for i in range(1000) for word in data.text(i)[0].split())
    assert nb04.learn_merges(counts, 1) == [("l", "y</w>")] and asked["4.d"].answer.startswith("l and y")
