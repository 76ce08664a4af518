"""Checks of notebook 11, The real thing: rename rules, the peak of memory, a block filled from a file, a linear layer."""

import json
import re
from functools import cache

import torch
from torch import nn

from minit2v.checkpoints.export import tensors_for
from minit2v.checkpoints.names import names
from minit2v.files import data_dir
from minit2v.lab.course.comparing import called, keeps_float32, normal, random_weights, recognised
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.memory.figures import recorded
from minit2v.networks.blocks import SpatioTemporalBlock
from minit2v.networks.unet import UNet
from minit2v.presets import UNetConfig

EQUATIONS = {
    "11.1": ("the number of a block in ModelScope's list",
             "tests/test_checkpoints_parity.py::test_the_manifest_is_the_structure"),
    "11.2": ("all networks on the device",
             "tests/test_memory.py::test_the_plan_is_within_15_percent_of_the_measured_peak"),
    "11.3": ("one network at a time", "tests/test_memory.py::test_the_recorded_figures_are_those_of_the_plan"),
}  # fmt: skip

QUIZ = [
    (
        "A converter renames all 1,480 tensors, and every shape fits. Is the model loaded right?",
        ["Yes: names and shapes are all that a file has",
         "Not proven: a square matrix may be transposed, or two tensors of one shape exchanged",
         "Yes, if means and deviations fit as well"],
        1,
        "Only outputs compared with another implementation's prove it. Names and shapes are necessary, not enough.",
    ),
    (
        "float16 does not fit on the card by 0.3 GB, and four frames are decoded at a time already. What helps most?",
        ["Fewer sampling steps", "Decoding one frame at a time", "Networks that rest wait in the computer's memory"],
        2,
        "Weights are most of it, and only one network works at a time. Steps follow one another and take no memory.",
    ),
    (
        "When does a pickle run the code that is in it?",
        ["When a tensor of it is used", "While it is read", "Never, if it ends in .pth"],
        1,
        "Reading is running: the file says which functions to import and to call. So read it with a reader that refuses.",
    ),
]


def numbers_of(shape):
    return int(torch.Size(shape).numel())


@cache
def manifest():
    """{layout: {network: {name: shape}}} of the released files."""
    found = json.loads((data_dir() / "released_manifest.json").read_text(encoding="utf-8"))
    return {layout: found[layout] for layout in ("modelscope", "diffusers")}


def small_share():
    """Numbers of the UNet in tensors of one axis, norms and biases, in percent."""
    shapes = manifest()["diffusers"]["unet"].values()
    return round(100 * sum(numbers_of(s) for s in shapes if len(s) == 1) / sum(map(numbers_of, shapes)), 2)


def of_release(dtype="float16", frames=16):
    """The recorded figures of the released model at its own size."""
    return next(one for one in recorded() if (one.model, one.dtype, one.frames) == ("modelscope-1.7b", dtype, frames))


def largest_part():
    parts = of_release().peak()
    return FILLS[max(FILLS, key=parts.get)]


FILLS = {"weights": "weights", "tensors": "what the layers compute (tensors)", "frames": "the finished pictures (frames)"}


PREDICTIONS = {
    "11.a": Question("More than half of the UNet's tensors are vectors: biases, and the scales and shifts of norms. How "
                     "many percent of its numbers are in them?", small_share, tolerance=0.5),
    "11.b": Question("The released model makes a clip of 16 frames on a GPU, in half precision. What fills most of the "
                     "memory?", largest_part, choices=tuple(FILLS.values())),
    "11.c": Question("The decoder is given all 16 frames at once, and then one at a time. How many times smaller do its "
                     "tensors become?", lambda: round(of_release().decoder["16"] / of_release().decoder["1"], 1),
                     tolerance=2),
}  # fmt: skip


# --- 11.1

PART = {"0": "resnets", "0.temopral_conv": "temp_convs", "1": "attentions", "2": "temp_attentions"}
INSIDE = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
          "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}  # fmt: skip
MIDDLE = {"0": "resnets.0", "0.temopral_conv": "temp_convs.0", "1": "attentions.0", "2": "temp_attentions.0",
          "3": "resnets.1", "3.temopral_conv": "temp_convs.1"}  # fmt: skip


def place(side, number, first):
    """The place of block `number` of a list whose first block has the number `first`."""
    level, j = divmod(int(number) - first, 3)
    return f"{side}_blocks.{level}", j


def rename_rules(first=1, digits=r"\d+", after="[13]", inside=True, anchor="^", typo=True, of_up=0, middle=MIDDLE):
    """[(pattern, replacement), …] from ModelScope's names to those of diffusers; other arguments make mistakes."""
    conv = r"0\.temopral_conv|" if typo else ""

    def block(side, first):
        def replace(m):
            where, j = place(side, m[1], first)
            return f"{where}.{PART[m[2]]}.{j}"

        return replace

    rules = [
        (r"^time_embed\.([02])", lambda m: f"time_embedding.linear_{int(m[1]) // 2 + 1}"),
        (r"^input_blocks\.0\.0", "conv_in"),
        (r"^input_blocks\.0\.1", "transformer_in"),
        (rf"{anchor}out\.([02])", lambda m: {"0": "conv_norm_out", "2": "conv_out"}[m[1]]),
        (rf"^input_blocks\.({digits})\.op", lambda m: f"{place('down', m[1], first)[0]}.downsamplers.0.conv"),
        (rf"^input_blocks\.({digits})\.({conv}[012])(?=\.)", block("down", first)),
        (rf"^output_blocks\.({digits})\.{after}\.conv", lambda m: f"{place('up', m[1], 0)[0]}.upsamplers.0.conv"),
        (rf"^output_blocks\.({digits})\.({conv}[012])(?=\.)", block("up", of_up)),
        (r"^middle_block\.([03]\.temopral_conv|[0-3])", lambda m: f"mid_block.{middle[m[1]]}"),
        (r"\.(in_layers\.[02]|emb_layers\.1|out_layers\.[03]|skip_connection)", lambda m: f".{INSIDE[m[1]]}"),
    ]
    return rules if inside else rules[:-1]


RENAME_MISTAKES = {
    "a pattern that is to stand at the beginning has no ^: to_out.0 holds out.0 as well": {"anchor": ""},
    "input_blocks begins with conv_in, so block i is the number i - 1 of the others": {"first": 0},
    "output_blocks begins with a block: there is no 1 to take away": {"of_up": 1},
    r"blocks 10 and 11 have two digits: \d+ in the place of \d": {"digits": r"\d"},
    "the up-sampler comes after what its block has: number 1 where there is no attention, else number 3": {"after": "3"},
    "an up-sampler without attention before it, output_blocks.2.1.conv, is missed or the others are": {"after": "1"},
    "the names within residual blocks are still ModelScope's": {"inside": False},
    "temopral_conv is spelled so in the file, and it is a part of its own, temp_convs": {"typo": False},
    "the last block of the middle is resnets.1 and temp_convs.1":
        {"middle": MIDDLE | {"3": "resnets.0", "3.temopral_conv": "temp_convs.0"}},
}  # fmt: skip


def renamed(rules, name):
    """The name after all rules, each applied once, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@cache
def eight_levels():
    """Names of a UNet twice as deep, as ModelScope would write them; its blocks have numbers up to 23."""
    config = UNetConfig(channels=(4,) * 8, attention=(True,) * 7 + (False,), head_dim=2, first_temporal_heads=2,
                        context_dim=4, norm_groups=2)  # fmt: skip
    with torch.device("meta"):
        unet = UNet(config)
    return tuple(name for parts in names("unet", unet, "modelscope").values() for name in parts)


@exercise("11.1", name="rename_rules", solution=rename_rules, minutes=20, difficulty=4, importance=4)
def check_rename_rules(student):
    """The manifest's names; a deeper network's, which no list of names has; names that are diffusers' already."""
    rules = list(student())
    if len(rules) > 10:
        raise Failed("at most ten rules", f"{len(rules)}", "a rule can compute its replacement: give it a function")
    for rule in rules:
        if not (isinstance(rule, (tuple, list)) and len(rule) == 2 and (callable(rule[1]) or isinstance(rule[1], str))):
            raise Failed("pairs (pattern, replacement)", f"{rule!r:.80}",
                         "a replacement is a text or a function of the match")  # fmt: skip
    own, there = list(manifest()["modelscope"]["unet"]), set(manifest()["diffusers"]["unet"])
    found = {name: _renamed(rules, name) for name in own}
    expected = {name: renamed(rename_rules(), name) for name in own}
    wrong = [name for name in own if found[name] != expected[name]]
    if wrong:
        cause = next((cause for cause, options in RENAME_MISTAKES.items() if _gives(options, found)), "")
        first = wrong[0]
        told = "the name of another tensor" if found[first] in there else "no name of the other file"
        right = f"{len(own) - len(wrong):,}; the first that is wrong: {first} became {found[first]}, {told}"
        raise Failed(f"{len(own):,} names of the other file", right, cause)
    for name in eight_levels():
        if _renamed(rules, name) != renamed(rename_rules(), name):
            raise Failed("rules that hold for a UNet of eight levels", f"{name} became {_renamed(rules, name)}",
                         "compute level and block from the number, in the place of listing them")  # fmt: skip
    for name in there:
        if _renamed(rules, name) != name:
            raise Failed(f"{name}, which is diffusers' already, to stay as it is", _renamed(rules, name),
                         "a pattern also fits names of the other file: let it begin with ^, or with a dot")
    return f"{len(rules)} rules, {len(own):,} names: none is left out, no two become one, and deeper networks fit too"


def _renamed(rules, name):
    result = renamed(rules, name)
    return result if isinstance(result, str) else repr(result)


def _gives(options, found):
    """Whether mistaken rules give the names that were found; rules may fail on a name."""
    try:
        rules = rename_rules(**options)
        return all(renamed(rules, name) == result for name, result in found.items())
    except KeyError:
        return False


# --- 11.2


def fill_block(block, tensors, table, dtype):
    """A block on the meta device, {file's name: tensor}, {block's name: file's name}, dtype -> the block, filled.

    Raises ValueError for what does not fit.
    """
    expected, state = block.state_dict(), {}
    if left := sorted(set(tensors) - set(table.values())):
        raise ValueError(f"left over: {left[0]}")
    for ours, theirs in table.items():
        if theirs not in tensors:
            raise ValueError(f"missing: {theirs}")
        value, shape = tensors[theirs], tuple(expected[ours].shape)
        if tuple(value.shape) != shape + (1,) * (value.ndim - len(shape)):
            raise ValueError(f"{theirs}: expected {shape}, found {tuple(value.shape)}")
        state[ours] = value.reshape(shape).to(dtype)
    block.load_state_dict(state, assign=True)
    return block


def in_its_place(block, config):
    """The block as the first of a UNet that has nothing else."""
    level, unet = nn.Module(), nn.Module()
    level.blocks, unet.down, unet.config = nn.ModuleList([block]), nn.ModuleList([level]), config
    return unet


def as_file(block, config, layout):
    """(the tensors of a block under the names and with the axes of a layout, {our name: name there})."""
    unet = in_its_place(block, config)
    table = {key.removeprefix("down.0.blocks.0."): parts[0] for key, parts in names("unet", unet, layout).items()}
    return dict(tensors_for("unet", unet, layout)), table


def _blocks():
    """(make a block, arguments, file, table, the block itself, dtype) of several sizes and layouts."""
    for i, (layout, c_in, c_out, attention) in enumerate((("modelscope", 6, 6, True), ("diffusers", 4, 6, True),
                                                          ("modelscope", 8, 4, False))):  # fmt: skip
        config = UNetConfig(channels=(4, 6), head_dim=2, context_dim=5, norm_groups=2)
        theirs = SpatioTemporalBlock(c_in, c_out, attention, config).double().eval()
        theirs.load_state_dict(random_weights(theirs, i))
        yield (lambda c=(c_in, c_out, attention, config): _empty(c)), *as_file(theirs, config, layout), theirs, c_in


def _empty(arguments):
    with torch.device("meta"):
        return SpatioTemporalBlock(*arguments).eval()


@exercise("11.2", name="fill_block", solution=fill_block, minutes=18, difficulty=3, importance=5)
def check_fill_block(student):
    """Both layouts, with and without attention: outputs, precision, no copy; then files that must be refused."""
    for make, tensors, table, theirs, c_in in _blocks():
        given = {name: (id(value), value.clone()) for name, value in tensors.items()}
        file, places = dict(tensors), dict(table)
        filled = student(make(), file, places, torch.float64)
        if not isinstance(filled, nn.Module):
            raise Failed("the block", type(filled).__name__, "the function does not return it")
        _same_block(filled, theirs, c_in)
        if file.keys() != tensors.keys() or places != table:
            raise Failed("both dictionaries as they were", "they were changed", "pop and del change the caller's dictionary")
        for name, value in tensors.items():
            if not torch.equal(value, given[name][1]) or value.shape != given[name][1].shape:
                raise Failed(f"the file's {name} as it was", "it was changed", "an operation in place")
        held = {value.untyped_storage().data_ptr() for value in tensors.values()}
        if copied := [n for n, p in filled.state_dict().items() if p.untyped_storage().data_ptr() not in held]:
            raise Failed("the file's own memory where the precision is right already", f"a copy of {copied[0]}",
                         "load_state_dict(…, assign=True) takes tensors over; clone and copy_ do not")  # fmt: skip
        for dtype in (torch.float32, torch.bfloat16):
            half = student(make(), dict(tensors), dict(table), dtype)
            if other := {p.dtype for p in half.state_dict().values()} - {dtype}:
                raise Failed(f"weights in {dtype}", f"{other.pop()}", "each tensor is cast: .to(dtype)")
            for name, value in half.state_dict().items():
                close(f"{name} in {dtype}", value.double(), theirs.state_dict()[name].to(dtype).double(), 0)
        _refuses(student, make, tensors, table)
    return "two layouts: the block computes the same, nothing was copied, twelve kinds of wrong files are refused"


def _same_block(filled, theirs, c_in):
    if empty := [name for name, p in filled.state_dict().items() if p.is_meta]:
        raise Failed("numbers in every weight", f"none in {empty[0]}", "it is still on the meta device")
    f = 3
    inputs = normal(2 * f, c_in, 2, 5), normal(2 * f, 16, seed=1), normal(2, 7, 5, seed=2), f
    with torch.no_grad():
        recognised("the output of the filled block", filled.eval()(*inputs), theirs(*inputs), {})


def _refuses(student, make, tensors, table):
    weights = [name for name, value in tensors.items() if value.ndim == 2 and value.shape[0] != value.shape[1]]
    matrix, vector = weights[0], next(name for name, value in tensors.items() if value.ndim == 1)
    taps = next(name for name, value in tensors.items() if value.ndim > 3 and value.shape[2:4] == (3, 1))  # along time
    bias = next(name for name, value in tensors.items() if value.ndim == 1 and name.endswith("bias"))
    try:
        student(make(), tensors | {vector: tensors[vector][:, None, None]}, dict(table), torch.float64)
    except (ValueError, RuntimeError) as error:
        raise Failed(f"{vector} with two axes of length 1 behind to be filled in", f"{error!s:.100}",
                     "a shape may be followed by any number of them") from None  # fmt: skip
    cases = {
        "a bias that is missing": (bias, {k: v for k, v in tensors.items() if k != bias}),
        "a bias that is left over": ("extra.bias", tensors | {"extra.bias": tensors[vector]}),
        "a last axis of length 2": (matrix, tensors | {matrix: torch.stack([tensors[matrix]] * 2, dim=-1)}),
        "an axis that is missing at the end": (taps, tensors | {taps: tensors[taps].flatten(2)}),
        "a convolution with its taps before its inputs": (taps, tensors | {taps: tensors[taps].movedim(1, 2)}),
        "a convolution as a matrix": (taps, tensors | {taps: tensors[taps].flatten(1)}),
        "a tensor that is missing": (matrix, {k: v for k, v in tensors.items() if k != matrix}),
        "a tensor that is left over": ("extra.weight", tensors | {"extra.weight": tensors[vector]}),
        "a transposed matrix": (matrix, tensors | {matrix: tensors[matrix].T}),
        "a matrix as a row": (matrix, tensors | {matrix: tensors[matrix].reshape(1, -1)}),
        "an axis of length 1 in front": (vector, tensors | {vector: tensors[vector][None]}),
        "a vector that is too long": (vector, tensors | {vector: tensors[vector].repeat(2)}),
    }
    for what, (name, wrong) in cases.items():
        try:
            student(make(), dict(wrong), dict(table), torch.float64)
        except ValueError as error:
            if name not in str(error):
                raise Failed(f"a ValueError that names {name}", f"{error!s:.100}",
                             "whoever reads it wants to know which one") from None  # fmt: skip
        except Exception as error:
            raise Failed(f"a ValueError for {what}", f"{type(error).__name__}: {' '.join(str(error).split())[:100]}",
                         "look before PyTorch does: compare names and shapes first" if isinstance(error, RuntimeError)
                         else "") from None  # fmt: skip
        else:
            same = name in tensors and name in wrong and wrong[name].numel() == tensors[name].numel()
            cause = "reshape takes whatever has as many numbers" if same else ""
            raise Failed(f"a ValueError for {what}", "no error", cause)


# --- 11.3


def peak_bytes(parameters, numbers, dtype, offload):
    """{network: parameters}, {network: numbers in its tensors at the widest moment}, dtype, bool -> bytes."""
    if offload:
        return dtype.itemsize * max(parameters[name] + numbers[name] for name in parameters)
    return dtype.itemsize * (sum(parameters.values()) + max(numbers.values()))


PEAK_MISTAKES = {
    "all tensors were added up; networks work one after another, and only one has tensors at a time":
        lambda p, n, d, o: d.itemsize * (sum(p.values()) + sum(n.values())),
    "the largest weights and the largest tensors may belong to different networks": lambda p, n, d, o:
        d.itemsize * ((max if o else sum)(p.values()) + max(n.values())),
    "offload was ignored": lambda p, n, d, o: d.itemsize * (sum(p.values()) + max(n.values())),
    "without offload all networks are on the card, also those that rest": lambda p, n, d, o:
        d.itemsize * max(p[k] + n[k] for k in p),
    "the bytes of a number depend on its dtype: dtype.itemsize": lambda p, n, d, o: 4 * peak_bytes(p, n, torch.uint8, o),
    "these are numbers, not bytes: times dtype.itemsize": lambda p, n, d, o: peak_bytes(p, n, torch.uint8, o),
    "these are bits": lambda p, n, d, o: 8 * peak_bytes(p, n, d, o),
    "the largest network is not always the busiest": lambda p, n, d, o: d.itemsize * (
        (max(p.values()) if o else sum(p.values())) + n[max(p, key=p.get)]),
    "the two dictionaries need not be in the same order: ask them by name": lambda p, n, d, o: d.itemsize * (
        max(map(sum, zip(p.values(), n.values()))) if o else sum(p.values()) + max(n.values())),
}  # fmt: skip


@exercise("11.3", name="peak_bytes", solution=peak_bytes, minutes=8, difficulty=2, importance=5)
def check_peak_bytes(student):
    """The busiest network is in turn the largest, the smallest and another; dictionaries in different orders."""
    cases = [({"unet": 900, "text": 300, "autoencoder": 50}, {"text": 40, "autoencoder": 800, "unet": 210}),
             ({"a": 100, "b": 600}, {"b": 5, "a": 300}), ({"one": 7}, {"one": 9}),
             ({"text": 500, "unet": 450, "autoencoder": 20}, {"autoencoder": 610, "unet": 350, "text": 10}),
             ({"unet": 90, "a": 40, "b": 30, "c": 20}, {"c": 10, "b": 15, "unet": 5, "a": 70})]  # fmt: skip
    kinds, inputs, results = (torch.float32, torch.float16, torch.float64, torch.bfloat16), [], []
    for i, (p, n) in enumerate(cases):
        inputs += [(p, n, kinds[(i + j) % 4], offload) for j in range(3) for offload in (False, True)]
    for p, n, dtype, offload in inputs:
        given = dict(p), dict(n)
        found = student(*given, dtype, offload)
        if given != (p, n):
            raise Failed("the dictionaries as they were", "they were changed")
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            cause = "the function does not return its result" if found is None else ""
            raise Failed("a number of bytes", f"{found!r:.60}", cause)
        results.append(float(found))
    expected = [float(peak_bytes(*one)) for one in inputs]
    wrong = {cause: (lambda one=one: _numbers(one(*each) for each in inputs)) for cause, one in PEAK_MISTAKES.items()}
    for i, (given, found) in enumerate(zip(inputs, results)):
        if found != expected[i]:
            cause = next((c for c, make in wrong.items() if torch.equal(make(), _numbers(results))), "")
            raise Failed(f"peak_bytes{given} = {expected[i]:,.0f}", f"{found:,.0f}", cause)
    return "five models, four precisions, with and without offload"


def _numbers(values):
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


# --- 11.B


def to_linear(weight):
    """(O, I, 1) of a Conv1d, or (O, I) of a linear layer -> (O, I)."""
    return weight.reshape(weight.shape[:2])


@exercise("11.B", name="to_linear", solution=to_linear, minutes=6, difficulty=2, importance=4)
def check_to_linear(student):
    """Wide, high and square ones, with one input or output, of two and three axes; a kernel of 3 is no linear layer."""
    for shape in ((3, 5, 1), (5, 3, 1), (4, 4, 1), (1, 6, 1), (6, 1, 1), (1, 1, 1), (3, 5), (4, 4), (1, 3)):
        weight = normal(*shape, seed=sum(shape))
        found, expected = called(student, weight), weight.reshape(shape[:2])
        wrong = {
            "the matrix is transposed: a square one has the right shape all the same":
                lambda: weight.reshape(shape[:2]).T.reshape(shape[:2]),
            "it is transposed": lambda: weight.reshape(shape[:2]).T,
            "squeeze() takes away every axis of length 1, also that of a layer with one input or output":
                lambda: weight.squeeze(),
        }  # fmt: skip
        recognised(f"a weight {shape}", found, expected, wrong)
        keeps_float32(student, weight)
        x = normal(2, shape[1], seed=7)
        same_shape(f"the product with a weight {shape}", nn.functional.linear(x, found), (2, shape[0]))
    for shape in ((4, 5, 3), (3, 3, 3), (1, 1, 3), (2, 3, 2), (2, 4, 5)):
        try:
            found = student(normal(*shape))
        except Exception:
            continue
        raise Failed(f"an error for a kernel of {shape[2]}, {shape}", f"a tensor {tuple(found.shape)}"
                     if hasattr(found, "shape") else repr(found)[:40],
                     "what is left out or folded in would be lost without a word")  # fmt: skip
    return "square, wide and high ones, and none is transposed; kernels of 2, 3 and 5 are refused"
