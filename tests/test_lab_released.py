"""The checks of the notebooks on released weights: right answers pass however they are written, wrong ones do not."""

import math
import os
import re
from pathlib import Path

import pytest
import torch

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb11, nb12
from minit2v.pixels import to_pixels

# --- 11.1


@pytest.mark.parametrize("cause", nb11.RENAME_MISTAKES)
def test_a_known_mistake_in_the_rules_is_named(cause):
    outcome = exercises.run("11.1", lambda: nb11.rename_rules(**nb11.RENAME_MISTAKES[cause]))
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


def from_the_manifest():
    """A list of names: right for the release and for nothing else."""
    table = {name: nb11.renamed(nb11.rename_rules(), name) for name in nb11.manifest()["modelscope"]["unet"]}
    return [(r"^.*$", lambda m: table.get(m[0], m[0]))]


def with_rule(pattern, replacement):
    return lambda: [*nb11.rename_rules()[:8], (r"$^", ""), *nb11.rename_rules()[8:9], (pattern, replacement)]


WRONG_RULES = {
    "from the manifest": from_the_manifest,
    "eleven": lambda: [*nb11.rename_rules(), (r"$^", "")],
    "one for each tensor": lambda: [(f"^{re.escape(name)}$", new) for name, new in
                                    ((n, nb11.renamed(nb11.rename_rules(), n)) for n in nb11.manifest()["modelscope"]["unet"])],
    "numbers up to 19": lambda: nb11.rename_rules(digits=r"1?\d"), "numbers up to 14": lambda: nb11.rename_rules(digits="1[0-4]|[0-9]"),
    "none": lambda: [],
    "nothing": lambda: None,
    "one function": lambda: lambda name: nb11.renamed(nb11.rename_rules(), name),
    "texts": lambda: ["^out", "conv_out"],
    "triples": lambda: [(*rule, 0) for rule in nb11.rename_rules()],
    "backwards": lambda: nb11.rename_rules()[::-1],
    "only within the first levels": lambda: nb11.rename_rules(digits="[1-9]|10|11"),
    "weights and biases exchanged": with_rule(
        r"\.(in_layers\.[02]|emb_layers\.1|out_layers\.[03]|skip_connection)\.(weight|bias)$", lambda m:
        f".{nb11.INSIDE[m[1]]}.{'bias' if m[2] == 'weight' else 'weight'}"),
    "norms exchanged": with_rule(
        r"\.(in_layers\.[02]|emb_layers\.1|out_layers\.[03]|skip_connection)", lambda m:
        "." + {"norm1": "norm2", "norm2": "norm1"}.get(nb11.INSIDE[m[1]], nb11.INSIDE[m[1]])),
    "also a name of diffusers": lambda: [*nb11.rename_rules()[:1], (r"^input_blocks\.0\.0|^conv_in", "conv_in.conv_in"),
                                         *nb11.rename_rules()[2:]],
}  # fmt: skip
WRONG_RULES |= {f"without rule {i + 1}": (lambda i=i: nb11.rename_rules()[:i] + nb11.rename_rules()[i + 1 :])
                for i in range(10)}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_RULES)
def test_wrong_rules_fail(name):
    outcome = exercises.run("11.1", WRONG_RULES[name])
    assert not outcome.passed, name


def test_rules_may_be_compiled_and_come_as_a_tuple():
    outcome = exercises.run("11.1", lambda: tuple([re.compile(a), b] for a, b in nb11.rename_rules()))
    assert outcome.passed, outcome.message


# --- 11.2


def filled(change=None, check=True, **options):
    """A `fill_block` with something changed: `change(value, shape, name)` in the place of reshape."""

    def fill(block, tensors, table, dtype):
        state, expected = {}, block.state_dict()
        if check:
            nb11.fill_block(block, tensors, table, dtype)  # raises what it should
        for ours, theirs in table.items():
            value = tensors[theirs]
            value = change(value, expected[ours].shape, ours) if change else value.reshape(expected[ours].shape)
            cast = options.get("cast", lambda value, dtype: value.to(dtype))
            state[ours] = value if options.get("keep") else cast(value, options.get("dtype", dtype))
        block.load_state_dict(state, assign=True, strict=False)
        return options.get("result", block)

    return fill


def careless(skip_missing=False, left_over=False, shapes=False, error=ValueError, named=True, front=False):
    """A `fill_block` that overlooks some kind of wrong file."""

    def fill(block, tensors, table, dtype):
        expected, state = block.state_dict(), {}
        if not left_over and (left := set(tensors) - set(table.values())):
            raise error(left.pop() if named else "a tensor is left over")
        for ours, theirs in table.items():
            if theirs not in tensors:
                if skip_missing:
                    continue
                raise error(theirs if named else "a tensor is missing")
            value, shape = tensors[theirs], expected[ours].shape
            fits = list(value.shape) == [*shape, *[1] * (value.ndim - len(shape))] or (
                front and [n for n in value.shape if n > 1] == [n for n in shape if n > 1])
            if not shapes and not fits:
                raise error(theirs if named else "a shape is wrong")
            state[ours] = value.reshape(shape).to(dtype)
        block.load_state_dict(state, assign=True, strict=False)
        return block

    return fill


def lenient(fits, shape=lambda value, shape: value.reshape(shape), missing_bias=False):
    """A `fill_block` that takes what fits(its shape, the block's shape) allows."""

    def fill(block, tensors, table, dtype):
        expected, state = block.state_dict(), {}
        if left := set(tensors) - set(table.values()):
            raise ValueError(left.pop())
        for ours, theirs in table.items():
            size = tuple(expected[ours].shape)
            value = tensors.get(theirs, torch.zeros(size) if missing_bias and ours.endswith("bias") else None)
            if value is None or not fits(tuple(value.shape), size):
                raise ValueError(theirs)
            state[ours] = shape(value, size).to(dtype)
        block.load_state_dict(state, assign=True)
        return block

    return fill


follows = lambda found, size: found == size + (1,) * (len(found) - len(size))


def copied(block, tensors, table, dtype):
    nb11.fill_block(block, tensors, table, dtype)
    block.to_empty(device="cpu")
    block.load_state_dict({ours: tensors[theirs].reshape(block.state_dict()[ours].shape) for ours, theirs in table.items()})
    return block.to(dtype)


def in_place(block, tensors, table, dtype):
    nb11.fill_block(block, tensors, table, dtype)
    next(iter(tensors.values())).mul_(1.5)
    return block


def on_meta(block, tensors, table, dtype):
    return block


WRONG_FILLS = {
    "missing ones are passed over": careless(skip_missing=True), "left over ones too": careless(left_over=True),
    "any shape with as many numbers": careless(shapes=True), "a KeyError": careless(error=KeyError),
    "a RuntimeError": careless(error=RuntimeError), "no name in the error": careless(named=False),
    "axes of length 1 anywhere": careless(front=True),
    "squares are transposed": filled(lambda v, s, n: v.reshape(s).T if len(s) == 2 and s[0] == s[1] else v.reshape(s)),
    "transposed and reshaped": filled(lambda v, s, n: v.reshape(s).T.reshape(s) if len(s) == 2 else v.reshape(s)),
    "no cast": filled(keep=True), "always float32": filled(dtype=torch.float32), "always double": filled(dtype=torch.float64),
    "nothing returned": filled(result=None), "a dictionary": filled(result={}), "copied": copied, "cloned": filled(
        lambda v, s, n: v.reshape(s).clone()), "left on the meta device": on_meta, "changes the file": in_place,
    "an axis behind of any length": lenient(lambda f, s: f[: len(s)] == s, lambda v, s: v[(..., *[0] * (v.ndim - len(s)))]),
    "axes may be missing at the end": lenient(lambda f, s: f[: len(s)] == s[: len(f)] and math.prod(f) == math.prod(s)),
    "the first axis and the count": lenient(lambda f, s: f[0] == s[0] and math.prod(f) == math.prod(s)),
    "one axis behind at most": lenient(lambda f, s: f in (s, (*s, 1))),
    "missing biases are zeros": lenient(follows, missing_bias=True),
    "through half precision when cast": filled(lambda v, s, n: v.reshape(s), cast=lambda v, t: v.to(t) if t == v.dtype else v.half().to(t)),
    "empty when cast": filled(cast=lambda v, t: v if t == v.dtype else torch.zeros_like(v, dtype=t)),
    "takes tensors out of the file": lambda b, tensors, table, t: (nb11.fill_block(b, tensors, table, t), tensors.clear())[0],
    "biases forgotten": filled(lambda v, s, n: v.reshape(s) * 0 if n.endswith("bias") else v.reshape(s)),
    "through half precision": filled(lambda v, s, n: v.reshape(s).half()),
    "taps of the convolution reversed": filled(lambda v, s, n: v.reshape(s).flip(2) if "temporal_conv.convs" in n and len(s) > 1
                                               else v.reshape(s)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FILLS)
def test_wrong_fills_fail(name):
    assert not exercises.run("11.2", WRONG_FILLS[name]).passed, name


def one_by_one(block, tensors, table, dtype):
    """Parameters put into their modules one by one."""
    left = dict(tensors)
    for name, p in list(block.named_parameters()):
        if table[name] not in left:
            raise ValueError(f"no {table[name]}")
        value = left.pop(table[name])
        if value.shape[: p.ndim] != p.shape or any(n != 1 for n in value.shape[p.ndim :]):
            raise ValueError(f"{table[name]} has {tuple(value.shape)}")
        where, _, last = name.rpartition(".")
        setattr(block.get_submodule(where), last, torch.nn.Parameter(value.view(p.shape).to(dtype), requires_grad=False))
    if left:
        raise ValueError(f"too many: {', '.join(left)}")
    return block


def test_another_way_to_fill_passes():
    outcome = exercises.run("11.2", one_by_one)
    assert outcome.passed, outcome.message


# --- 11.3


@pytest.mark.parametrize("cause", nb11.PEAK_MISTAKES)
def test_a_known_mistake_in_the_peak_is_named(cause):
    outcome = exercises.run("11.3", nb11.PEAK_MISTAKES[cause])
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


peak = nb11.peak_bytes
WRONG_PEAKS = {
    "in gigabytes": lambda p, n, d, o: peak(p, n, d, o) / 1e9, "nothing": lambda p, n, d, o: None,
    "a tensor": lambda p, n, d, o: torch.tensor(peak(p, n, d, o)), "offload is the other way round":
        lambda p, n, d, o: peak(p, n, d, not o), "weights only": lambda p, n, d, o: d.itemsize * sum(p.values()),
    "tensors only": lambda p, n, d, o: d.itemsize * max(n.values()), "two copies": lambda p, n, d, o: 2 * peak(p, n, d, o),
    "changes them": lambda p, n, d, o: peak(p, n, d, o) + 0 * p.pop(next(iter(p))), "one number more":
        lambda p, n, d, o: peak(p, n, d, o) + d.itemsize, "the least with offload":
        lambda p, n, d, o: d.itemsize * min(p[k] + n[k] for k in p) if o else peak(p, n, d, o),
    "half precision is 4 bytes": lambda p, n, d, o: peak(p, n, torch.float32 if d.itemsize < 4 else d, o),
    "the busiest is the unet": lambda p, n, d, o: d.itemsize * (p["unet"] + n["unet"]) if o and "unet" in p else peak(p, n, d, o),
    "weights in float32, tensors in dtype": lambda p, n, d, o: 4 * sum(p.values()) + d.itemsize * max(n.values()),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_PEAKS)
def test_wrong_peaks_fail(name):
    assert not exercises.run("11.3", WRONG_PEAKS[name]).passed, name


# --- 11.B

WRONG_LINEARS = {
    "as it was": lambda w: w.squeeze().T.reshape(w.shape[:2]), "squeeze": lambda w: w.squeeze(),
    "transposed": lambda w: w.reshape(w.shape[:2]).T, "first tap": lambda w: w[..., 0] if w.ndim == 3 else w,
    "mean of the taps": lambda w: w.mean(-1) if w.ndim == 3 else w, "sum": lambda w: w.sum(-1) if w.ndim == 3 else w,
    "taps folded in": lambda w: w.flatten(1), "only three axes": lambda w: w.squeeze(-1), "nothing": lambda w: None,
    "the input": lambda w: w, "last axis dropped": lambda w: w[..., 0], "rows reversed": lambda w: w.reshape(w.shape[:2]).flip(0),
    "wide ones only": lambda w: w.reshape(w.shape[:2]) if w.shape[0] < w.shape[1] else w.reshape(w.shape[:2]).T.reshape(w.shape[:2]),
    "squares transposed": lambda w: w.reshape(w.shape[:2]).T if w.shape[0] == w.shape[1] else w.reshape(w.shape[:2]),
    "always double": lambda w: w.reshape(w.shape[:2]).double(), "kernels of 3 alone are refused":
        lambda w: w[..., 0] if w.ndim == 3 and w.shape[2] != 3 else w.view(w.shape[:2]),
    "in float32": lambda w: w.reshape(w.shape[:2]).float(), "in place": lambda w: w.mul_(2).reshape(w.shape[:2]) / 2,
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_LINEARS)
def test_wrong_linears_fail(name):
    assert not exercises.run("11.B", WRONG_LINEARS[name]).passed, name


def strict(weight):
    if weight.ndim == 3 and weight.shape[2] != 1:
        raise ValueError("not linear")
    return weight[:, :, 0] if weight.ndim == 3 else weight


@pytest.mark.parametrize("right", [strict, lambda w: w.view(*w.shape[:2])])
def test_other_ways_to_a_linear_layer_pass(right):
    outcome = exercises.run("11.B", right)
    assert outcome.passed, outcome.message


def test_the_predictions_are_computed_from_what_is_recorded():
    assert nb11.PREDICTIONS["11.b"].answer() == "weights"
    assert 0 < nb11.PREDICTIONS["11.a"].answer() < 1 and 8 < nb11.PREDICTIONS["11.c"].answer() <= 17


# --- 12.1

rows = lambda z: z.transpose(1, 2).flatten(0, 1)  # (b c f h w) -> ((b f) c h w)
shaped = lambda pixels, z: pixels.unflatten(0, (len(z), -1))


def keeping_floats(decode, z, chunk):
    return shaped(to_pixels(torch.cat([decode(part) for part in rows(z).split(chunk)])), z)


def dropping_the_rest(decode, z, chunk):
    frames = rows(z)
    parts = [to_pixels(decode(frames[i * chunk : (i + 1) * chunk])) for i in range(len(frames) // chunk)]
    return torch.cat(parts).unflatten(0, (len(z), -1))


def padding_the_rest(decode, z, chunk):
    frames = rows(z)
    full = torch.cat([frames, frames[-1:].expand(-len(frames) % chunk, -1, -1, -1)])
    return shaped(torch.cat([to_pixels(decode(part)) for part in full.split(chunk)])[: len(frames)], z)


def chunk_of_each_clip(decode, z, chunk):
    """All clips at once, chunk frames of each."""
    parts = [decode(rows(z[:, :, i : i + chunk])) for i in range(0, z.shape[2], chunk)]
    return torch.cat([shaped(to_pixels(part), z) for part in parts], dim=1)


def as_parts(decode, z, parts):
    """chunk taken as the number of parts."""
    return shaped(torch.cat([to_pixels(decode(part)) for part in rows(z).chunk(parts)]), z)


def decoded(change=lambda pixels: pixels, fold=rows, size=lambda n: n, enter=lambda z: z, leave=to_pixels):
    return lambda decode, z, chunk: change(shaped(torch.cat([leave(decode(part)) for part in fold(enter(z)).split(size(chunk))]), z))


WRONG_DECODERS = {
    "keeps floats": keeping_floats, "drops the rest": dropping_the_rest, "pads the rest": padding_the_rest,
    "chunk frames of each clip": chunk_of_each_clip, "chunk is a number of parts": as_parts,
    "all at once": decoded(size=lambda n: 10_000), "one by one": decoded(size=lambda n: 1),
    "twice as many": decoded(size=lambda n: 2 * n), "reshaped": decoded(fold=lambda z: z.reshape(-1, z.shape[1], *z.shape[3:])),
    "frames first": decoded(fold=lambda z: z.permute(2, 0, 1, 3, 4).flatten(0, 1)), "floats": decoded(leave=lambda x: x.movedim(1, -1)),
    "channels first": decoded(leave=lambda x: to_pixels(x).movedim(-1, 1)), "fractions cut off":
        decoded(leave=lambda x: to_pixels(x, rounded=False)), "frames reversed": decoded(lambda x: x.flip(1)),
    "clips reversed": decoded(lambda x: x.flip(0)), "without clips": lambda d, z, n: decoded()(d, z, n).flatten(0, 1),
    "nothing": lambda d, z, n: None, "scaled": decoded(enter=lambda z: z / 0.18215), "in half precision":
        decoded(enter=lambda z: z.half().float()), "in place": decoded(enter=lambda z: z.mul_(1.01)), "decoded twice":
        lambda d, z, n: decoded()(d, z, n) * 0 + decoded()(d, z, n), "the first frame is repeated":
        decoded(lambda x: x[:, :1].expand_as(x)), "as a list of frames": lambda d, z, n: list(decoded()(d, z, n)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_DECODERS)
def test_wrong_decoders_fail(name):
    assert not exercises.run("12.1", WRONG_DECODERS[name]).passed, name


def into_one_tensor(decode, z, chunk):
    pixels = None
    for i, part in enumerate(rows(z).split(chunk)):
        some = to_pixels(decode(part))
        if pixels is None:
            pixels = some.new_empty(z.shape[0] * z.shape[2], *some.shape[1:])
        pixels[i * chunk : i * chunk + len(some)] = some
    return shaped(pixels, z)


def clip_by_clip(decode, z, chunk):
    return torch.stack([torch.cat([to_pixels(decode(part)) for part in one.transpose(0, 1).split(chunk)]) for one in z])


@pytest.mark.parametrize("right", [into_one_tensor, clip_by_clip])
def test_other_ways_to_decode_in_parts_pass(right):
    outcome = exercises.run("12.1", right)
    assert outcome.passed, outcome.message


# --- 12.2


@pytest.mark.parametrize("cause", nb12.FRAME_MISTAKES)
def test_a_known_mistake_about_frames_is_named(cause):
    outcome = exercises.run("12.2", nb12.FRAME_MISTAKES[cause])
    assert not outcome.passed, cause
    assert "whole number" in cause or outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


most = nb12.most_frames
two = lambda s: dict(list(s.items())[:2])
WRONG_FRAMES = {
    "one more": lambda s, m: most(s, m) + 1, "one less": lambda s, m: max(0, most(s, m) - 1),
    "from the first two": lambda s, m: most(two(s), m), "from the least and the greatest":
        lambda s, m: most({f: s[f] for f in (min(s), max(s))}, m), "the greatest counted that fits":
        lambda s, m: max((f for f in s if s[f] <= m), default=0), "rounded": lambda s, m: max(0, round(nb12._room(s, m))),
    "slope of frames on bytes": lambda s, m: max(0, math.floor(nb12.np.polyval(nb12.np.polyfit([*s.values()], [*s], 1), m) + 1e-9)),
    "through the least": lambda s, m: max(0, math.floor(min(s) + (m - s[min(s)]) / nb12._line(s)[1] + 1e-9)),
    "strictly less": lambda s, m: max(0, math.ceil(nb12._room(s, m) - 1e-9) - 1), "nothing": lambda s, m: None, "a float":
        lambda s, m: float(most(s, m)), "a text": lambda s, m: str(most(s, m)), "through the origin":
        lambda s, m: math.floor(m * sum(f * f for f in s) / sum(f * x for f, x in s.items())), "changes them":
        lambda s, m: most(s, m) + 0 * s.pop(next(iter(s))), "in gigabytes": lambda s, m: most(s, m * 1e9), "at least one":
        lambda s, m: max(1, most(s, m)), "the number of bytes": lambda s, m: m, "a multiple of 8": lambda s, m: most(s, m) // 8 * 8,
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FRAMES)
def test_wrong_frames_fail(name):
    assert not exercises.run("12.2", WRONG_FRAMES[name]).passed, name


def written(sizes, memory, more=1e-9):
    """The line by means, and not by polyfit."""
    x, y = torch.tensor(list(sizes), dtype=torch.float64), torch.tensor(list(sizes.values()), dtype=torch.float64)
    each = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return max(0, int((memory - (y.mean() - each * x.mean())) / each + more) if memory > y.mean() - each * x.mean() else 0)


def test_the_line_may_be_written_out():
    outcome = exercises.run("12.2", written)
    assert outcome.passed, outcome.message


@pytest.mark.parametrize("lost", [lambda s, m: max(0, int(nb12._room(s, m))), lambda s, m: written(s, m, -1e-9)])
def test_a_frame_lost_to_floating_point_is_named(lost):
    outcome = exercises.run("12.2", lost)
    assert not outcome.passed and "full to the byte fits" in outcome.message, outcome.message


# --- 12.3


@pytest.mark.parametrize("cause", nb12.STUDY_MISTAKES)
def test_a_known_mistake_in_the_study_is_named(cause):
    outcome = exercises.run("12.3", lambda a, b: nb12._shares(a, b, **nb12.STUDY_MISTAKES[cause]))
    assert not outcome.passed and outcome.message.endswith(f"Likely cause: {cause}"), outcome.message


share = nb12.changed_share
each = lambda a, b, change: {name: change(triple, len(a)) for name, triple in share(a, b).items()}
WRONG_STUDIES = {
    "other objects": lambda a, b: share([{k: id(v) for k, v in x.items()} for x in a], [{k: id(v) for k, v in x.items()} for x in b]),
    "percent": lambda a, b: each(a, b, lambda t, n: tuple(100 * x for x in t)), "share only":
        lambda a, b: each(a, b, lambda t, n: t[0]), "width in the place of high": lambda a, b: each(a, b, lambda t, n: (t[0], t[1], t[2] - t[1])),
    "high before low": lambda a, b: each(a, b, lambda t, n: (t[0], t[2], t[1])), "middle in the place of the share":
        lambda a, b: each(a, b, lambda t, n: ((t[1] + t[2]) / 2, *t[1:])), "counts": lambda a, b: each(a, b, lambda t, n: (t[0] * n, *t[1:])),
    "z of 90 %": lambda a, b: each(a, b, lambda t, n: (t[0], *nb12.wilson(round(t[0] * n), n, 1.645))), "z of 2.58":
        lambda a, b: each(a, b, lambda t, n: (t[0], *nb12.wilson(round(t[0] * n), n, 2.58))), "n - 1":
        lambda a, b: each(a, b, lambda t, n: (t[0], *nb12.wilson(min(round(t[0] * n), max(n - 1, 1)), max(n - 1, 1)))),
    "nothing": lambda a, b: None, "a list": lambda a, b: list(share(a, b).values()), "all attributes together":
        lambda a, b: dict.fromkeys(a[0], next(iter(share([{"all": tuple(x.values())} for x in a], [{"all": tuple(x.values())} for x in b]).values()))),
    "the first attribute only": lambda a, b: dict(list(share(a, b).items())[:1]), "changes them":
        lambda a, b: share(a, b) | {k: (0, 0, 0) for k in [a[0].pop(next(iter(a[0])))] if k is False},
    "against the first clip": lambda a, b: share(a[:1] * len(b), b), "swapped seeds": lambda a, b: share(a, b[::-1]),
    "twice the pairs": lambda a, b: share(a + a, b + b), "any difference is all": lambda a, b: each(a, b, lambda t, n: (float(t[0] > 0), *t[1:])),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_STUDIES)
def test_wrong_studies_fail(name):
    assert not exercises.run("12.3", WRONG_STUDIES[name]).passed, name


def test_the_library_s_interval_passes():
    def with_library(before, after):
        counts = {name: sum(a[name] != b[name] for a, b in zip(before, after)) for name in before[0]}
        return {name: [k / len(before), *nb12.wilson(k, len(before))] for name, k in counts.items()}

    outcome = exercises.run("12.3", with_library)
    assert outcome.passed, outcome.message


# --- 12.B


def drawn(shape, seed, **options):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), **options)


def seeds_everything(shape, seed, dtype, device):
    torch.manual_seed(seed)
    return torch.randn(shape).to(device, dtype)


WRONG_NOISES = {
    "drawn in it": lambda s, seed, t, d: drawn(s, seed, dtype=t).to(d), "seeds everything": seeds_everything,
    "of the default generator": lambda s, seed, t, d: torch.randn(s).to(d, t), "stays float32": lambda s, seed, t, d: drawn(s, seed).to(d),
    "drawn elsewhere": lambda s, seed, t, d: drawn(s, seed).to(t) if str(d) == "cpu" else drawn(s, seed, dtype=t, device=d),
    "in half for half": lambda s, seed, t, d: drawn(s, seed, dtype=t if t.itemsize == 2 else None).to(d, t), "cached by shape":
        lambda s, seed, t, d, kept={}: kept.setdefault(s, drawn(s, seed)).to(d, t), "seeds of 31 bits": lambda s, seed, t, d:
        drawn(s, seed % 2**31).to(d, t), "stays on the CPU": lambda s, seed, t, d: drawn(s, seed).to(t), "drawn in float64": lambda s, seed, t, d: drawn(s, seed, dtype=torch.float64).to(d, t),
    "drawn in bfloat16": lambda s, seed, t, d: drawn(s, seed, dtype=torch.bfloat16).to(d, t), "uniform":
        lambda s, seed, t, d: torch.rand(s, generator=torch.Generator().manual_seed(seed)).to(d, t), "always seed 0":
        lambda s, seed, t, d: drawn(s, 0).to(d, t), "frame by frame": lambda s, seed, t, d: torch.cat(
            [drawn((1, *s[1:]), seed + i) for i in range(s[0])]).to(d, t), "one frame repeated":
        lambda s, seed, t, d: drawn((*s[:-1], 1), seed).expand(s).to(d, t), "smaller": lambda s, seed, t, d: 0.99 * drawn(s, seed).to(d, t),
    "turned round": lambda s, seed, t, d: drawn(s[::-1], seed).permute(*range(len(s))[::-1]).to(d, t), "nothing": lambda s, seed, t, d: None,
    "a seed more": lambda s, seed, t, d: drawn(s, seed + 1).to(d, t), "numpy": lambda s, seed, t, d: torch.tensor(
        nb12.np.random.default_rng(seed).normal(size=s)).to(d, t), "through bfloat16": lambda s, seed, t, d: drawn(s, seed).bfloat16().to(d, t),
}  # fmt: skip


WRONG_NOISES["float32 on the device"] = lambda s, seed, t, d: torch.randn(
    s, generator=torch.Generator(d).manual_seed(seed), device=d).to(t)


@pytest.mark.parametrize("name", WRONG_NOISES)
def test_wrong_noises_fail(name):
    assert not exercises.run("12.B", WRONG_NOISES[name]).passed, name


@pytest.mark.parametrize("name, cause", [("float32 on the device", "draw on the CPU, then .to(device, dtype)"),
                                         ("drawn in float64", "drawn in torch.float64"), ("drawn in it", "Draw in float32")])
def test_where_and_in_what_noise_was_drawn_is_named(name, cause):
    assert cause in exercises.run("12.B", WRONG_NOISES[name]).message.partition("Likely cause")[2]


def test_the_library_s_noise_passes():
    from minit2v.diffusion.samplers import gaussian

    outcome = exercises.run("12.B", lambda s, seed, t, d: gaussian(s, torch.Generator().manual_seed(seed)).to(d, t))
    assert outcome.passed, outcome.message


def test_the_cells_for_full_weights_run_with_a_small_model_of_the_same_layout(diffusers_folder, monkeypatch):
    """Notebook 12 as on a machine with the released weights, with a folder of their layout in their place."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("MINIT2V_MODEL", str(diffusers_folder))
    monkeypatch.setenv("MINIT2V_FAST", "1")
    folder = Path(__file__).parent.parent / "notebooks"
    nb = nbformat.read(folder / "12_full_weights.ipynb", 4)
    NotebookClient(nb, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    printed = "".join(o.get("text", "") for cell in nb.cells if cell.cell_type == "code" for o in cell.outputs)
    assert f"made by {os.path.basename(diffusers_folder)}" in printed and "in the place of" not in printed
    shown = [o.data for cell in nb.cells if cell.cell_type == "code" for o in cell.outputs if o.get("data")]
    assert any("a panda eating bamboo" in data.get("text/plain", "") for data in shown)
