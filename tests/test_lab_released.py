"""The checks of the notebooks on released weights: right answers pass however they are written, wrong ones do not."""

import re

import pytest
import torch

from minit2v.lab.course import exercises
from minit2v.lab.course.checks import nb11

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
            state[ours] = value if options.get("keep") else value.to(options.get("dtype", dtype))
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
