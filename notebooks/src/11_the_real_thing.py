# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · The real thing: released weights
#
# **You have built every layer of the model. Now you load the weights that somebody else trained: you find out what is
# in their files, prove that every number goes to its place, and know before any download whether your machine has
# the memory.**
#
# **You will**
# - read a file of weights by hand, and look at all 1.8 billion numbers of the release as one picture
# - check the paper's claim that 39 % of the model knows time
# - write ten rules that rename 1,480 tensors, and prove that none is lost and no two become one
# - fill a block of the released size from two layouts, and compare what it computes
# - plan the memory of a run on a card that you do not have
# - see a file run a program, and read it with a reader that does not
# - find a bug that every shape hides
#
# **You need** [08](08_teaching_it_time.ipynb) for the block. No download, no GPU and no network: all that this notebook
# knows of the release is the *list* of its tensors.
#
# **Time** reading 20 minutes · running 20 to 60 seconds (fast mode 20 to 60 seconds) · exercises 52 minutes

# %%
from minit2v import lab

ctx = lab.setup(11)

# %% [markdown]
# ## 1 · What is in a file of weights?
#
# A trained network is a lot of numbers, and for each group of them a name and a shape. The most common format,
# *safetensors*, is so plain that you can read it in four lines: eight bytes say how long the list is; then comes the
# list, as JSON; then come the numbers, one tensor after the other. We try it on the UNet of `mini`.

# %%
import json

from minit2v.files import data_dir

with open(data_dir() / "mini" / "unet.safetensors", "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    listed = json.loads(file.read(length))
named = {name: entry for name, entry in listed.items() if name != "__metadata__"}
for name in list(named)[:3]:
    print(name, named[name])

# %% [markdown]
# Name, precision, shape, and from which byte to which. So we can know *what* is in a file without reading a single
# number of it. For the three networks of the release that list comes with this library: the **manifest**. It holds
# every name and shape, in both layouts in which the weights are published. One is that of ModelScope, who trained the
# model; the other that of diffusers, a library that many people use.

# %%
import torch

manifest = json.loads((data_dir() / "released_manifest.json").read_text())
files = {layout: manifest[layout] for layout in ("modelscope", "diffusers")}


def count(shapes):
    """How many numbers are in tensors of these shapes."""
    return sum(torch.Size(shape).numel() for shape in shapes)


for layout, networks in files.items():
    for network, shapes in networks.items():
        print(f"{layout:11} {network:12} {len(shapes):6,} tensors {count(shapes.values()):14,} numbers")

# %% [markdown]
# The two layouts have the same UNet and the same autoencoder, to the last number. The text towers differ: ModelScope's
# file is the whole text half of CLIP, of which the model never runs the last block (notebook 04), and diffusers' file
# has left out what is not run.
#
# What kind of tensors are these?

# %%
lab.predict("11.a")

# %%
unet = files["diffusers"]["unet"]
for axes in (1, 2, 4, 5):
    shapes = [shape for shape in unet.values() if len(shape) == axes]
    largest = max(shapes, key=lambda shape: count([shape]))
    print(f"{axes} axes: {len(shapes):5,} tensors {count(shapes):14,} numbers, the largest is {largest}")

# %% [markdown]
# Vectors are most of the list and next to nothing of the numbers. Where, then, *are* the numbers? Here is the whole
# release, an area for each layer. Click a rectangle, or move with the arrow keys: below the picture you find the
# tensors of the layer, with their shapes, as this library or one of the two files calls them.

# %%
tree = lab.WeightTree("modelscope-1.7b", name="tree-11")
tree

# %% [markdown]
# What to see: the three levels in the middle of the U hold most of it. Levels `down 0` and `up 3`, which work at the
# full resolution of the latents, are specks. Width is what costs numbers, and the wide layers are those that see only
# 8 × 8 or 4 × 4 cells. Work is another matter: the specks do much of the *computing*, because they do it at 1,024
# places in each frame.
#
# ## 2 · The paper's 39 %
#
# Orange is what knows time. The paper gives three figures: 1,345 million parameters, 552 million of them temporal,
# 39 %. We have the list, so we can check them. In diffusers' names a layer along time has `temp_` in its name, and the
# first one is called `transformer_in`.

# %%
from minit2v.checkpoints.inspect import STABLE_DIFFUSION_1

total = count(unet.values())
temporal = count(shape for name, shape in unet.items() if "temp_" in name or name.startswith("transformer_in"))
added = total - STABLE_DIFFUSION_1
print(f"{'UNet':27} {total:13,}   in units of 2^20: {total / 2**20:,.1f}")
for name, number in (("along time", temporal), ("without Stable Diffusion 1", added)):
    print(f"{name:27} {number:13,}   {100 * number / total:.1f} % of the UNet")
print(f"{'552 of 1,345':27} {'':13}   {100 * 552 / 1345:.1f} %")

# %% [markdown]
# What we find:
#
# - 1,345 million are 1,411 million, counted in units of $2^{20}$, as one counts bytes.
# - The temporal layers have 545 million, 38.6 %.
# - 552 million appear, to the digit, if one takes from all parameters those of the UNet of Stable Diffusion *1*, and
#   39 % is their share. But the model grew out of version 2, whose UNet is larger.
# - 552 of 1,345 would be 41 %. The two figures are in different units.
#
# That is our reading of the digits; the paper does not say how it counted. It changes nothing about the model. It
# does show why one should count for oneself, and what a list of shapes is good for: nobody needed the weights for it.
#
# ## 3 · One tensor, two names
#
# Here is the same residual block in both files.

# %%
for layout, beginning in (("modelscope", "input_blocks.4.0."), ("diffusers", "down_blocks.1.resnets.0.")):
    names = [name for name in files[layout]["unet"] if name.startswith(beginning) and "temopral" not in name]
    print(f"{layout}:", *(f"  {name:45} {files[layout]['unet'][name]}" for name in names), sep="\n")

# %% [markdown]
# Same shapes, same order, other words. ModelScope has one flat list, `input_blocks`, in which everything on the way
# down has a number. diffusers has levels, and blocks within them. To get from one to the other, count. The list begins
# with `conv_in`, number 0. Every level then takes three numbers: two blocks and what halves the picture. So block $j$
# of level $l$ has the number
#
# $$i = 3\,l + j + 1 . \qquad (11.1)$$
#
# On the way up a level has three blocks and nothing stands before the first, so there it is $i = 3\,l + j$.
#
# A rule is a pattern and what takes its place. `re.sub` applies it, and the replacement may be a function of the match,
# which can compute:

# %%
import re


def apply(rules, name):
    """The name after every rule, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


example = [(r"^layer\.(\d+)", lambda m: f"level.{int(m[1]) // 2}.block.{int(m[1]) % 2}"), (r"\.w$", ".weight")]
print(apply(example, "layer.13.w"))

# %% [markdown]
# ### Exercise 11.1 · rename_rules
#
# Difficulty 4/5 · importance 4/5 · 20 minutes
#
# Write at most ten rules that turn ModelScope's names of the UNet into those of diffusers. `rename_rules()` returns the
# list of pairs (pattern, replacement). They are applied in order, each to what the one before has left.
#
# | ModelScope | diffusers |
# | --- | --- |
# | `time_embed.0`, `time_embed.2` | `time_embedding.linear_1`, `time_embedding.linear_2` |
# | `input_blocks.0.0`, `input_blocks.0.1` | `conv_in`, `transformer_in` |
# | `out.0`, `out.2` | `conv_norm_out`, `conv_out` |
# | `input_blocks.i.0`, `.1`, `.2` | `down_blocks.l.resnets.j`, `.attentions.j`, `.temp_attentions.j` |
# | `input_blocks.i.0.temopral_conv` | `down_blocks.l.temp_convs.j` (yes, it is spelled so in the file) |
# | `input_blocks.3.op`, `6.op`, `9.op` | `down_blocks.0.downsamplers.0.conv`, `1`, `2` |
# | `output_blocks.i.…` as on the way down | `up_blocks.l.…` |
# | `output_blocks.2.1.conv`, `5.3.conv`, `8.3.conv` | `up_blocks.0.upsamplers.0.conv`, `1`, `2` |
# | `middle_block.0`, `.1`, `.2`, `.3` | `mid_block.resnets.0`, `attentions.0`, `temp_attentions.0`, `resnets.1` |
# | `middle_block.0.temopral_conv`, `3.temopral_conv` | `mid_block.temp_convs.0`, `temp_convs.1` |
# | in a block: `in_layers.0`, `in_layers.2`, `emb_layers.1` | `norm1`, `conv1`, `time_emb_proj` |
# | in a block: `out_layers.0`, `out_layers.3`, `skip_connection` | `norm2`, `conv2`, `conv_shortcut` |
#
# Names that are diffusers' already must stay as they are. Everything that is not in the table has the same name in
# both files.
#
# <details><summary>Hint 1</summary>One rule for a line of the table will do, often one for two lines. Dictionaries
# help: <code>{"0": "resnets", "0.temopral_conv": "temp_convs", …}[m[2]]</code>. Put the rule for <code>op</code> before
# the one for blocks, and let it write its whole new name.</details>
# <details><summary>Hint 2</summary><code>divmod(i - 1, 3)</code> gives level and block. Begin patterns with
# <code>^</code>: there is an <code>out.0</code> in <code>to_out.0</code>. In <code>(0\.temopral_conv|[012])</code> the
# longer choice must come first.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# part = {"0": "resnets", "0.temopral_conv": "temp_convs", "1": "attentions", "2": "temp_attentions"}
# middle = {"0": "resnets.0", "0.temopral_conv": "temp_convs.0", "1": "attentions.0", "2": "temp_attentions.0",
#           "3": "resnets.1", "3.temopral_conv": "temp_convs.1"}
# inside = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
#           "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
#
# def down(m):
#     level, j = divmod(int(m[1]) - 1, 3)
#     return f"down_blocks.{level}.{part[m[2]]}.{j}"
#
# def up(m):
#     level, j = divmod(int(m[1]), 3)
#     return f"up_blocks.{level}.{part[m[2]]}.{j}"
#
# return [
#     (r"^time_embed\.([02])", lambda m: f"time_embedding.linear_{int(m[1]) // 2 + 1}"),
#     (r"^input_blocks\.0\.0", "conv_in"),
#     (r"^input_blocks\.0\.1", "transformer_in"),
#     (r"^out\.([02])", lambda m: {"0": "conv_norm_out", "2": "conv_out"}[m[1]]),
#     (r"^input_blocks\.(\d+)\.op", lambda m: f"down_blocks.{int(m[1]) // 3 - 1}.downsamplers.0.conv"),
#     (r"^input_blocks\.(\d+)\.(0\.temopral_conv|[012])", down),
#     (r"^output_blocks\.(\d+)\.[13]\.conv", lambda m: f"up_blocks.{int(m[1]) // 3}.upsamplers.0.conv"),
#     (r"^output_blocks\.(\d+)\.(0\.temopral_conv|[012])", up),
#     (r"^middle_block\.([03]\.temopral_conv|[0-3])", lambda m: f"mid_block.{middle[m[1]]}"),
#     (r"\.(in_layers\.[02]|emb_layers\.1|out_layers\.[03]|skip_connection)", lambda m: f".{inside[m[1]]}"),
# ]
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def rename_rules():
    """-> [(pattern, replacement), …], at most ten: from ModelScope's names of the UNet to those of diffusers."""
    ### BEGIN SOLUTION
    part = {"0": "resnets", "0.temopral_conv": "temp_convs", "1": "attentions", "2": "temp_attentions"}
    middle = {"0": "resnets.0", "0.temopral_conv": "temp_convs.0", "1": "attentions.0", "2": "temp_attentions.0",
              "3": "resnets.1", "3.temopral_conv": "temp_convs.1"}
    inside = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
              "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}

    def down(m):
        level, j = divmod(int(m[1]) - 1, 3)
        return f"down_blocks.{level}.{part[m[2]]}.{j}"

    def up(m):
        level, j = divmod(int(m[1]), 3)
        return f"up_blocks.{level}.{part[m[2]]}.{j}"

    return [
        (r"^time_embed\.([02])", lambda m: f"time_embedding.linear_{int(m[1]) // 2 + 1}"),
        (r"^input_blocks\.0\.0", "conv_in"),
        (r"^input_blocks\.0\.1", "transformer_in"),
        (r"^out\.([02])", lambda m: {"0": "conv_norm_out", "2": "conv_out"}[m[1]]),
        (r"^input_blocks\.(\d+)\.op", lambda m: f"down_blocks.{int(m[1]) // 3 - 1}.downsamplers.0.conv"),
        (r"^input_blocks\.(\d+)\.(0\.temopral_conv|[012])", down),
        (r"^output_blocks\.(\d+)\.[13]\.conv", lambda m: f"up_blocks.{int(m[1]) // 3}.upsamplers.0.conv"),
        (r"^output_blocks\.(\d+)\.(0\.temopral_conv|[012])", up),
        (r"^middle_block\.([03]\.temopral_conv|[0-3])", lambda m: f"mid_block.{middle[m[1]]}"),
        (r"\.(in_layers\.[02]|emb_layers\.1|out_layers\.[03]|skip_connection)", lambda m: f".{inside[m[1]]}"),
    ]
    ### END SOLUTION


# %%
lab.check("11.1", rename_rules)

# %% [markdown]
# Do not take the check's word for it. What has to be proven? A map of names is right as far as names go if it is
#
# - **total**: every tensor of the one file gets a name that the other file has,
# - **one-to-one**: no two get the same, or one would overwrite the other without a word,
# - **true to the shapes**: what is called alike is shaped alike.

# %%
rules = lab.yours("11.1")()
theirs, ours = files["modelscope"]["unet"], files["diffusers"]["unet"]
new = {name: apply(rules, name) for name in theirs}
print("tensors of ModelScope's file:       ", f"{len(new):,}")
print("that get a name of diffusers' file: ", f"{sum(name in ours for name in new.values()):,}")
print("different names among these:        ", f"{len(set(new.values())):,}")
print("names of diffusers' file not reached:", len(set(ours) - set(new.values())))
other = [name for name in theirs if theirs[name] != ours[new[name]]]
print("of another shape:                   ", len(other))
for name in other[:2]:
    print(f"   {name} {theirs[name]} and {ours[new[name]]}")

# %% [markdown]
# *What if?* Give the rules another order. With `op` behind the blocks nothing changes, because no block has a part
# called `op`. With the rule for `upsamplers` behind the blocks, `output_blocks.2.1.conv` has become an attention that
# does not exist. Every order of rules that passes is a small proof; an order that fails on two of 1,480 is a bug for
# months.
#
# ## 4 · One tensor, two shapes
#
# Thirty-four tensors have an axis more in ModelScope's file. They are the linear layers at the two ends of the 17
# temporal transformers. A linear layer applied to every frame is the same thing as a convolution along time with one
# tap, and ModelScope wrote it as such: (out, in, 1) instead of (out, in). This library does the same the other way
# round with temporal convolutions, which it slides over `b c f (h w)` (notebook 08): (c, c, 3, 1) here, (c, c, 3, 1, 1)
# in both files.
#
# So to fill a network means to match names, and to add or take away axes of length 1. Sounds harmless. There is one
# rule: **refuse everything else.** `reshape` accepts any tensor that has as many numbers.
#
# And there is a matter of memory. To build a network and then copy a file into it takes twice the memory of the
# weights, and the release has more than seven gigabytes of them. The way out is the **meta device**: a network on it
# has names and shapes, and no numbers. Then the tensors that come from the file *become* its weights.

# %%
from minit2v.networks.blocks import SpatioTemporalBlock
from minit2v.presets import get

config = get("modelscope-1.7b").unet
with torch.device("meta"):
    empty = SpatioTemporalBlock(320, 320, True, config)
weights = sum(p.numel() for p in empty.parameters())
print(f"a block of the first level: {weights:,} parameters, on the device {next(empty.parameters()).device}")

# %% [markdown]
# ### Exercise 11.2 · fill_block
#
# Difficulty 3/5 · importance 5/5 · 18 minutes
#
# Fill a block on the meta device with the tensors of a file, and return it.
#
# | argument | what it is |
# | --- | --- |
# | `block` | an `nn.Module` on the meta device; `block.state_dict()` tells its names and shapes |
# | `tensors` | {name in the file: tensor} |
# | `table` | {name in the block: name in the file} |
# | `dtype` | the precision of the filled block |
#
# Raise a `ValueError` that names the tensor if one of the table is missing in the file, if the file has one that is not
# in the table, or if a shape is not that of the block, possibly followed by axes of length 1. Copy nothing that has the
# right precision already: give the tensors to `block.load_state_dict(state, assign=True)`.
#
# <details><summary>Hint 1</summary>Build a dictionary <code>state</code> of the block's names. Compare names first, then
# shapes; only then <code>value.reshape(shape).to(dtype)</code>, which copies nothing where nothing changes.</details>
# <details><summary>Hint 2</summary>A shape fits if <code>tuple(value.shape) == shape + (1,) * (value.ndim -
# len(shape))</code>. Names left over are <code>set(tensors) - set(table.values())</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# expected, state = block.state_dict(), {}
# if left := sorted(set(tensors) - set(table.values())):
#     raise ValueError(f"left over: {left[0]}")
# for mine, theirs in table.items():
#     if theirs not in tensors:
#         raise ValueError(f"missing: {theirs}")
#     value, shape = tensors[theirs], tuple(expected[mine].shape)
#     if tuple(value.shape) != shape + (1,) * (value.ndim - len(shape)):
#         raise ValueError(f"{theirs}: expected {shape}, found {tuple(value.shape)}")
#     state[mine] = value.reshape(shape).to(dtype)
# block.load_state_dict(state, assign=True)
# return block
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def fill_block(block, tensors, table, dtype):
    """A block on the meta device, {file's name: tensor}, {block's name: file's name}, dtype -> the block, filled."""
    ### BEGIN SOLUTION
    expected, state = block.state_dict(), {}
    if left := sorted(set(tensors) - set(table.values())):
        raise ValueError(f"left over: {left[0]}")
    for mine, theirs in table.items():
        if theirs not in tensors:
            raise ValueError(f"missing: {theirs}")
        value, shape = tensors[theirs], tuple(expected[mine].shape)
        if tuple(value.shape) != shape + (1,) * (value.ndim - len(shape)):
            raise ValueError(f"{theirs}: expected {shape}, found {tuple(value.shape)}")
        state[mine] = value.reshape(shape).to(dtype)
    block.load_state_dict(state, assign=True)
    return block
    ### END SOLUTION


# %%
lab.check("11.2", fill_block)

# %% [markdown]
# *What if?* Leave out `assign=True`. Then PyTorch would copy into weights that have no memory, and the block stays
# empty; it says so in a warning. Build the block on the CPU instead, and everything works, with twice the memory.
#
# ## 5 · The same numbers out?
#
# Names fit, shapes fit. Is the block loaded right? There is one way to know: **compare what it computes** with what
# another implementation computes from the same file. That is called *parity*.
#
# We do it for a block of the released size. Its weights are random, and *all* of them are, also those that a new block
# starts with as zero: a branch that is zero hides every mistake in it. We write the block in both layouts, as a file
# would hold it, and fill two empty ones from these.

# %%
from torch import nn

from minit2v.checkpoints.export import tensors_for
from minit2v.checkpoints.names import names as names_in


def drawn(block):
    """The block with random numbers in every weight."""
    generator = ctx.generator(1)
    for p in block.parameters():
        spread = 0.5 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.3
        p.data.copy_(spread * torch.randn(p.shape, generator=generator))
    return block.eval().requires_grad_(False)


def in_its_place(block):
    """The block as the first of a UNet that has nothing else, so that its tensors get their whole names."""
    level, unet = nn.Module(), nn.Module()
    level.blocks, unet.down, unet.config = nn.ModuleList([block]), nn.ModuleList([level]), config
    return unet


def table_of(layout):
    """Our name in the block -> its name in the file."""
    table = names_in("unet", in_its_place(block), layout)
    return {key.removeprefix("down.0.blocks.0."): parts[0] for key, parts in table.items()}


block, fill, filled, content = drawn(SpatioTemporalBlock(320, 320, True, config)), lab.yours("11.2"), {}, {}
for layout in ("modelscope", "diffusers"):
    content[layout] = tensors_for("unet", in_its_place(block), layout)
    with torch.device("meta"):
        empty = SpatioTemporalBlock(320, 320, True, config).eval()
    filled[layout] = fill(empty, content[layout], table_of(layout), torch.float32)
    print(layout, "·", len(content[layout]), "tensors, such as", list(content[layout])[14])
unknown = [name for layout in content for name, value in content[layout].items()
           if list(value.shape) != files[layout]["unet"].get(name)]
print("names or shapes that the released files do not have:", len(unknown))

# %%
f, h, w = 4, 6, 10
x, emb = torch.randn(f, 320, h, w, generator=ctx.generator(2)), torch.randn(f, 1280, generator=ctx.generator(3))
words = torch.randn(1, 77, 1024, generator=ctx.generator(4))
with torch.inference_mode():
    right = block(x, emb, words, f)
    for layout, other in filled.items():
        different = (other(x, emb, words, f) != right).sum().item()
        print(f"filled by the names of {layout}: {different} of {right.numel():,} numbers differ")

# %% [markdown]
# Equal to the last bit, as they should be: the same numbers go through the same operations. But a sceptic will say that
# the library agreed with itself. If it believed, wrongly, that the third axis of a kernel is time, it would have
# written it as wrongly as it read it. So here is the temporal convolution once more, in the words of the paper: a
# convolution in three dimensions, with a kernel of 3 × 1 × 1, straight from the tensors of ModelScope's file.

# %%
import torch.nn.functional as F
from einops import rearrange


def in_three_dimensions(x, f, file, place="input_blocks.1.0.temopral_conv"):
    """The temporal convolution as ModelScope's file has it: x ((b f), c, h, w) -> same."""
    clip = h = rearrange(x, "(b f) c h w -> b c f h w", f=f)
    for stage in (1, 2, 3, 4):
        norm, conv = f"{place}.conv{stage}.0", f"{place}.conv{stage}.{2 if stage == 1 else 3}"
        h = F.silu(F.group_norm(h, 32, file[f"{norm}.weight"], file[f"{norm}.bias"]))
        h = F.conv3d(h, file[f"{conv}.weight"], file[f"{conv}.bias"], padding=(1, 0, 0))
    return rearrange(clip + h, "b c f h w -> (b f) c h w")


with torch.inference_mode():
    difference = in_three_dimensions(x, f, content["modelscope"]) - filled["diffusers"].temporal_conv(x, f)
print("kernels in the file:", tuple(content["modelscope"]["input_blocks.1.0.temopral_conv.conv1.2.weight"].shape))
print("numbers that differ by more than 0.0001:", (difference.abs() > 1e-4).sum().item())

# %% [markdown]
# That is parity: two programs, one file, the same result. For the other layers, and for the whole network with its
# three others, the tests of this library compare with the public implementation of diffusers, in float64, within
# $10^{-6}$ (`tests/test_checkpoints_parity.py`; `make parity-full` does it at the released size).
#
# ## 6 · Does it fit?
#
# The weights are a part of what a run needs. How large a part?

# %%
lab.predict("11.b")

# %%
for dtype in (torch.float32, torch.float16):
    sizes = {network: dtype.itemsize * count(shapes.values()) / 1e9 for network, shapes in files["diffusers"].items()}
    sizes["all"] = sum(sizes.values())
    print(f"{str(dtype):14}", " · ".join(f"{name} {size:.2f} GB" for name, size in sizes.items()))

# %% [markdown]
# The other part are the **tensors**: all that a network has computed and not yet thrown away. They come and go, so what
# counts is the widest moment. It can be measured without a number: PyTorch lets us run a network on tensors that have
# only shapes, and we add up the bytes of all that are alive. First by hand, for two layers.

# %%
from minit2v.memory.plan import no_numbers, working

with no_numbers(torch.float32):
    layers = nn.Sequential(nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 100))
    for rows in (1000, 2000):
        size = working(layers, layers, (1, rows, 100), dtype=torch.float32)
        print(f"{rows} rows: {size:,} bytes at the widest moment")
print(f"by hand, for 1000: 4 x 1000 x (100 + 400 + 400) = {4 * 1000 * (100 + 400 + 400):,}")

# %% [markdown]
# Weights do not grow with the size of the batch, and tensors do. Now the decoder of `mini`. It gets one frame at a
# time, four, or all sixteen.

# %%
lab.predict("11.c")

# %%
from minit2v.networks.autoencoder import VQGAN

with no_numbers(torch.float32):
    decoder = VQGAN(get("mini").autoencoder).eval()
    for frames in (1, 4, 16):
        size = working(decoder, decoder.decode, (frames, 4, 8, 8), dtype=torch.float32)
        print(f"mini, {frames:2} frames at a time: {size / 1e6:6.1f} MB")

# %% [markdown]
# Frames do not see one another in the decoder, so it makes no difference to the clip how many go through it at once,
# and all the difference to the memory. (Notebook 12 has an exercise about it.)
#
# Two more facts, and the plan is complete. The three networks work one after another: first the text tower, then the
# UNet many times, then the decoder. And one that rests can wait elsewhere, in the computer's memory; that is called
# *offload*. So on the card we need
#
# $$\text{all on the card:}\quad \sum_n W_n + \max_n T_n \qquad (11.2)$$
# $$\text{with offload:}\quad \max_n\,(W_n + T_n) \qquad (11.3)$$
#
# where $W_n$ are the bytes of the weights of network $n$ and $T_n$ those of its tensors at the widest moment.
#
# ### Exercise 11.3 · peak_bytes
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# `parameters` and `numbers` are dictionaries by network: how many parameters it has, and how many numbers its tensors
# hold at the widest moment. `dtype` is that of both. Return the bytes of the peak, with offload or without.
#
# <details><summary>Hint 1</summary>A number of a <code>torch.dtype</code> takes <code>dtype.itemsize</code>
# bytes.</details>
# <details><summary>Hint 2</summary>With offload the busiest network need be neither the one with the most weights nor
# the one with the most tensors. Add up by name, then take the largest.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# if offload:
#     return dtype.itemsize * max(parameters[name] + numbers[name] for name in parameters)
# return dtype.itemsize * (sum(parameters.values()) + max(numbers.values()))
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def peak_bytes(parameters, numbers, dtype, offload):
    """{network: parameters}, {network: numbers at its widest moment}, torch.dtype, bool -> bytes on the card."""
    ### BEGIN SOLUTION
    if offload:
        return dtype.itemsize * max(parameters[name] + numbers[name] for name in parameters)
    return dtype.itemsize * (sum(parameters.values()) + max(numbers.values()))
    ### END SOLUTION


# %%
lab.check("11.3", peak_bytes)

# %% [markdown]
# Your function and the library's plan, for the release. (To count at this size takes a minute, so the counts are
# recorded; `python scripts/memory_figures.py` makes them again. The plan adds what the program itself takes, and the
# frames.)

# %%
from minit2v.memory.figures import recorded
from minit2v.memory.plan import gigabytes, moment

peak = lab.yours("11.3")
release = next(one for one in recorded() if one.model == "modelscope-1.7b" and one.dtype == "float16")
sizes, tensors = release.weights, release.tensors(batched=True, chunk=4)
numbers = [{name: n // 2 for name, n in some.items()} for some in (sizes, tensors)]
for offload in (False, True):
    print(f"offload {offload!s:5}: weights and tensors {gigabytes(peak(*numbers, torch.float16, offload))}, "
          f"the whole plan {gigabytes(sum(release.peak(offload=offload).values()))}")
lab.show_source(moment)

# %% [markdown]
# *What if?* Take more sampling steps. The peak stays where it is: a step leaves nothing behind but its latents.
#
# Now plan your own run. Choose what you have, and see what remains.

# %%
lab.MemoryPlanner(name="planner-11")

# %% [markdown]
# What to try: a card of 4 GB in half precision, and one of 8 GB in float32. Then 24 frames of 576 × 320, the size of
# a popular fine-tune, with all of them decoded at once: now the decoder's tensors take more than the weights of all
# three networks. It is the smallest of them, and it has the largest pictures. The line at the right tells the
# *fastest* way that fits: to put networks away and fetch them back costs time, and decoding in parts costs nearly
# none.
#
# The figures of a CPU were compared with measured ones, within 15 %. Those of a GPU are counts and rules; run
# `minit2v doctor` on yours.
#
# ## 7 · A file that runs
#
# The released files of ModelScope end in `.pth`. Such a file is a zip of numbers and a *pickle*. A pickle looks like
# data and is a program: a list of commands for a small machine, of which one means "import this function" and another
# one "call it". Here is a class that tells pickle how to put it together again.

# %%
import pickle
import pickletools


class Surprise:
    def __reduce__(self):
        return print, ("this line was printed by a file",)


data = pickle.dumps(Surprise(), protocol=2)
pickletools.dis(data)
_ = pickle.loads(data)

# %% [markdown]
# What to see: `GLOBAL` imports `print`, `REDUCE` calls it. We asked for an object and got an action; there was not even
# an object in the end. Nothing forced the author to choose `print`. It could have been the function that runs a shell
# command, and it would have run with all your rights, while the file was *read*.
#
# That is why this library never unpickles the ordinary way. Its reader builds tensors and plain containers. Watch it
# with a file that holds weights and a surprise.

# %%
import tempfile
from pathlib import Path

from minit2v.checkpoints.reading import read
from minit2v.errors import UserError

folder = Path(tempfile.mkdtemp())
torch.save({"weight": torch.ones(3), "extra": Surprise()}, folder / "surprise.pth")
try:
    read(folder / "surprise.pth")
except UserError as error:
    print("refused:", error)

# %% [markdown]
# Not all that is not a tensor is evil. The released autoencoder is a whole *training checkpoint*, with objects of the
# program that trained it. You do not have that program, and need not: whatever the pickle asks for becomes an inert
# object that takes any call and does nothing, and the tensors are read.

# %%
class Callback:
    """What a training program may leave in its checkpoint."""

    best = 0.3


checkpoint = {"state_dict": {"encoder.weight": torch.ones(2, 3)}, "callback": Callback(), "epoch": 7}
torch.save(checkpoint, folder / "checkpoint.ckpt")
print({name: tuple(value.shape) for name, value in read(folder / "checkpoint.ckpt").items()})

from minit2v.checkpoints.inert import InertPickle

lab.show_source(InertPickle.Unpickler.find_class)

# %% [markdown]
# So: prefer safetensors, where there is a choice. Read pickles with `torch.load(weights_only=True)`, which is PyTorch's
# default today, or with a reader like this one. And know what neither can do for you: they keep a file from *running*.
# They do not tell you whether the weights are those that the author published, which is what checksums are for, nor
# whether a network does what it promises.
#
# ## 8 · A bug hunt
#
# A colleague converts ModelScope's file. For the 34 tensors with an axis more she has written one line. Her converter runs,
# all names are there, all shapes fit. She is careful, and compares statistics too.


# %%
def converted(weight):
    """Her way from (out, in, 1) to (out, in)."""
    return weight.squeeze().T.reshape(weight.shape[:2])


name = "input_blocks.1.2.proj_in.weight"
before, after = content["modelscope"][name], converted(content["modelscope"][name])
print(f"{name} {tuple(before.shape)} -> {tuple(after.shape)}")
print(f"mean {before.mean():.5f} and {after.mean():.5f} · deviation {before.std():.5f} and {after.std():.5f}")
moved = before.flatten().sort().values != after.flatten().sort().values
print("numbers that differ once both are sorted:", moved.sum().item())

hers = dict(content["modelscope"])
hers[name] = after
with torch.device("meta"):
    empty = SpatioTemporalBlock(320, 320, True, config).eval()
with torch.inference_mode():
    wrong = fill(empty, hers, table_of("modelscope"), torch.float32)(x, emb, words, f)
print(f"the wrong output is off by {(wrong - right).std() / (right - x).std():.0%} of what the block adds")

# %% [markdown]
# Every test of hers passed but the one that she did not make. Think before you read on: which of her tests would have
# failed if the layer were not square?
#
# ### Exercise 11.B · to_linear
#
# Difficulty 2/5 · importance 4/5 · 6 minutes
#
# Mend it: a weight (O, I, 1), or (O, I), comes back as (O, I). A kernel with more than one tap, (O, I, 3), is no
# linear layer and must raise an error. There is a second trap in her line, which only a layer with a single input or
# output meets.
#
# <details><summary>Hint 1</summary>In which order are the axes of both? For a Conv1d they are (out, in, taps), for a
# linear layer (out, in). Is there anything to exchange?</details>
# <details><summary>Hint 2</summary><code>squeeze()</code> without an argument takes away <i>every</i> axis of length
# 1.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return weight.reshape(weight.shape[:2])
# ```
#
# It raises an error where there are more numbers than (O, I) has room for.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def to_linear(weight):
    """(O, I, 1) or (O, I) -> (O, I)."""
    ### BEGIN STUDENT
    # return weight.squeeze().T.reshape(weight.shape[:2])
    ### END STUDENT
    ### BEGIN SOLUTION
    return weight.reshape(weight.shape[:2])
    ### END SOLUTION


# %%
lab.check("11.B", to_linear)

# %% [markdown]
# Of the 34 tensors 32 are square. The other two belong to the first temporal transformer, which is wider inside: there
# the `reshape` scrambles the numbers outright, and again no shape complains. A model with such a fault still makes
# clips, and they move a little strangely. This is how bugs of ports live for years.
#
# ## Takeaways
#
# 1. A file of weights is a list of names and shapes, and numbers. The list alone tells how large the model is, how
#    much of it knows time, and whether a map of names is total and one-to-one.
# 2. Names and shapes are necessary and not sufficient. Only parity is proof: another implementation, the same file, the
#    same outputs, with no branch left at zero.
# 3. The peak is all weights, and the widest moment of one network. Half precision halves both, offload keeps one network
#    at a time, decoding in parts keeps the decoder small.
#
# ## Quiz

# %%
lab.quiz(11)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(11)

# %% [markdown]
# ## Further reading
#
# - Wang and others, [ModelScope text-to-video technical report](https://arxiv.org/abs/2308.06571), section 3: the
#   parts whose weights you have counted.
# - Rajbhandari and others, [ZeRO](https://arxiv.org/abs/1910.02054), section 3: where the memory goes, weights and the
#   rest, also while training.
# - The [safetensors format](https://github.com/huggingface/safetensors), and the warning in red at the top of Python's
#   [pickle](https://docs.python.org/3/library/pickle.html).
#
# **Next:** [12 · Full weights](12_full_weights.ipynb): the released model makes a clip, or plays one that it made.
