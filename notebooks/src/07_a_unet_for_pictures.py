# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · A UNet for pictures
#
# **So far the network was a black box that you could ask. Here you build what is inside, one layer at a time, and put
# your own layers into the trained model: it must still make the same clip.**
#
# **You will**
# - turn a timestep into a vector that a network can use
# - write a residual block, check it in float64, and run the trained model on it
# - write multi-head attention, once for cells among themselves and once for cells and words
# - put the whole UNet together by hand, in twenty lines
# - find out where 1.4 billion parameters are
# - find a bug that has the right shape everywhere
#
# **You need** [04](04_words_into_vectors.ipynb) for attention, [06](06_un_destroying_it.ipynb) for what the network
# is asked, and convolutions.
#
# **Time** reading 24 minutes · running 15 to 90 seconds (fast mode the same) · exercises 54 minutes

# %%
from minit2v import lab

ctx = lab.setup(7)

# %% [markdown]
# ## 1 · What the network is asked
#
# The sampler of notebook 06 hands the network three things: noisy latents, a timestep that says how noisy they are,
# and the text. It wants latents back, of the same shape, and every number of them should depend on all three.
#
# That is an unusual demand. A network that classifies pictures may throw away where things are. This one must not:
# its answer has a place for every cell. But it also has to see the whole picture at once, for a ring is a ring only
# as a whole. The **UNet** serves both. It halves the picture until every cell has seen much of it, then doubles it
# again, and at each size it gets back what it had at that size on the way down.

# %%
import torch
import torch.nn.functional as F

from minit2v.networks import blocks
from minit2v.networks.unet import UNet, sinusoid as library_sinusoid

unet = ctx.pipe.unet
x = torch.randn(1, 4, 16, 8, 8, generator=ctx.generator())
t, context = torch.tensor([500]), ctx.pipe.text.encode(["a small blue ring moves up"])
with torch.inference_mode():
    answer = unet(x, t, context)
print("latents b c f h w:", tuple(x.shape), "· t:", tuple(t.shape), "· text b n d:", tuple(context.shape))
print("answer b c f h w: ", tuple(answer.shape))
lab.UNetMap(unet, size=(16, 8, 8), tokens=context.shape[1], name="unet-map-07")

# %% [markdown]
# Read it as a U: down on the left, up on the right. Dashed lines are the **skips**, which hand over what the way
# down knew. Blue bars are parameters of layers that look within one frame, orange bars those that look along time.
#
# This notebook is about the blue ones. With `temporal=False` the orange ones are left out, and what remains is a
# model for pictures: it treats the 16 frames as 16 separate pictures. The released model began as just such a picture
# model, Stable Diffusion, and notebook 08 adds what made it a video model. Let us make sure that frames are separate
# then: change one frame, and see which frames of the answer change.

# %%
other = x.clone()
other[:, :, 5] += 1
with torch.inference_mode():
    for temporal in (False, True):
        change = (unet(other, t, context, temporal=temporal) - unet(x, t, context, temporal=temporal)).abs()
        touched = (change.amax((0, 1, 3, 4)) > 1e-4).nonzero().flatten().tolist()
        print(f"temporal={temporal}: frame 5 changed, and {len(touched)} of 16 frames answer to it")

# %% [markdown]
# ## 2 · How noisy is it? The timestep as a vector
#
# A network cannot do much with the number 500. If it were fed in as it is, one weight would have to turn it into very
# different behaviour at 3, 30 and 300. So the number is first spread over many: a row of clocks whose hands turn at
# different speeds. Of each clock we keep the position of the hand, a cosine and a sine.
#
# $$\mathrm{emb}(t) = \left[\cos(\omega_0 t), \ldots, \cos(\omega_{k-1} t),\; \sin(\omega_0 t), \ldots, \sin(\omega_{k-1}
# t)\right], \qquad \omega_i = 10000^{-i/k} \qquad (7.1)$$
#
# Here $k$ is half the width. The first clock turns once in six timesteps, the last one not even once in the whole
# process. Nearby timesteps get nearby vectors, and no two get the same.

# %%
def cosine(one, other):
    """How alike the vectors of two timesteps are: 1 alike, 0 nothing in common."""
    return F.cosine_similarity(library_sinusoid(torch.tensor(one), 64), library_sinusoid(torch.tensor(other), 64), dim=0)


print("likeness of t = 500 to 501, 525, 975:", *(f"{cosine(500, other):.2f}" for other in (501, 525, 975)))
lab.matrix(library_sinusoid(torch.arange(100), 64).T, xlabel="timestep", ylabel="number of the vector", diverging=True,
           alt="Rows of waves over the timestep: the upper half cosines, the lower half sines, each fast at its top and "
               "slow at its bottom.")

# %% [markdown]
# ### Exercise 7.1 · sinusoid
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# Write equation (7.1). `position` is a tensor of any shape, whole numbers or not; the result has one more axis, of
# length `width`, and is float32. The order matters: all cosines first, then all sines. (Books and libraries have at
# least four variants of this formula. A checkpoint was trained with one of them.)
#
# <details><summary>Hint 1</summary>First the frequencies, a vector of <code>width // 2</code> numbers. Then all
# angles at once: <code>position[..., None] * frequencies</code>.</details>
# <details><summary>Hint 2</summary><code>10000.0 ** (-torch.arange(half) / half)</code>; make the position a float
# before you multiply; join with <code>torch.cat(…, dim=-1)</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# half = width // 2
# frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
# angles = position.float()[..., None] * frequencies
# return torch.cat([angles.cos(), angles.sin()], dim=-1)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def sinusoid(position, width):
    """position (…) -> (…, width), float32: cosines, then sines."""
    ### BEGIN SOLUTION
    half = width // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = position.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
    ### END SOLUTION


# %%
lab.check("7.1", sinusoid)

# %% [markdown]
# *What if?* Compute in half precision. bfloat16 has eight bits for the digits of a number, so 999 becomes 1000, and
# the fast clocks show nonsense. That is why the library computes them in float32 and rounds afterwards.
#
# Two linear layers with a SiLU between them then make an *embedding* of the vector. It is made once for each clip,
# and every residual block gets it. In the paper this is all there is. `mini` lets more join here, because it is small
# and has little time to learn. Each of these *departures* is a setting, off in the released model. (The source below
# also names `step_embedding` and `rate_embedding`. Both models are without them; models of later notebooks have them.)

# %%
from minit2v.presets import UNetConfig

for name in ("text_in_embedding", "looks_first", "frame_positions", "scene_prior", "scale_shift"):
    print(f"{name:18} released: {getattr(UNetConfig(), name)!s:6} mini: {getattr(unet.config, name)}")
lab.show_source(UNet.embed)

# %% [markdown]
# Where do they enter, and what was each meant to do?
#
# - `text_in_embedding` adds a vector of the text to the embedding. In the paper, words enter by cross-attention
#   alone (section 4). So in `mini` a word has more than one way in: mind that when you read its attention maps.
# - `looks_first` says which vector that is. Without it, it is the mean of all tokens. With it, it is the mean of the
#   prompt's beginning, "a small blue ring" of "a small blue ring moves up": how a thing looks, apart from how it moves.
#   This vector also replaces the start token of the text, which says the same for every prompt.
# - `frame_positions` adds the number of the frame. In the paper nothing tells a frame its number (notebook 08).
# - `scene_prior` is a small network of words, frame number, row and column; its output is added after the first
#   convolution. "Moves left" means *right half* early and *left half* late: a product of word, time and place, which
#   is hard to learn otherwise.
# - `scale_shift` belongs to the residual block, and comes next.
#
# [docs/training.md](../docs/training.md) has a table of what each but `looks_first` buys: how much less the model cares
# about a direction word if it is trained without. By that table not all of them help: frame numbers bring nothing
# beyond the difference of two seeds.
#
# ## 3 · The residual block
#
# The workhorse of the UNet. Two 3 × 3 convolutions, and between them the embedding says how noisy the picture is:
#
# ```
# x (n, c_in, h, w) ─ norm1 ─ SiLU ─ conv1 ─(+)─ norm2 ─ SiLU ─ dropout ─ conv2 ─(+)─ (n, c_out, h, w)
#      │                                     │                                     │
#      │             emb (n, e) ─ SiLU ─ embedding                                 │
#      └───────────────────────── skip: nothing, or a 1 × 1 convolution ───────────┘
# ```
#
# Three things in it deserve a closer look. The first is **GroupNorm**: for each picture, channels are taken in
# groups, and each group is shifted and scaled to mean 0 and variance 1. By hand it is three lines.

# %%
picture = 5 + 3 * torch.randn(2, 8, 4, 6, generator=ctx.generator(1))
groups = picture.reshape(2, 4, -1)  # four groups of two channels: n g (c h w)
by_hand = ((groups - groups.mean(-1, keepdim=True)) / groups.var(-1, keepdim=True, correction=0).sqrt()).view_as(picture)
print(f"before: mean {picture.mean():.1f}, deviation {picture.std():.1f}")
print(f"after:  mean {abs(by_hand.mean()):.1f}, deviation {by_hand.std():.1f}")
print("F.group_norm gives the same:", torch.allclose(by_hand, F.group_norm(picture, 4), atol=1e-4))

# %% [markdown]
# The second is the **sum** at the end, `skip(x) + h` (7.2). It is what *residual* means: the block does not compute
# the result, it computes what to add. The third is that **the second convolution starts as zero**. So a new block adds
# nothing at all. What is that good for? Stack thirty new blocks and watch the size of the numbers, once with zeros and
# once with ordinary random starts.

# %%
def sizes(zero, depth=30):
    """The standard deviation of x after each of `depth` new blocks."""
    torch.manual_seed(0)
    h, emb, found = torch.randn(4, 16, 8, 8), torch.randn(4, 32), []
    with torch.no_grad():
        for _ in range(depth):
            block = blocks.ResBlock(16, 16, 32, 4, 0.0, False)
            if not zero:
                block.conv2.reset_parameters()
            h = block(h, emb)
            found.append(h.std().item())
    return found


lines = {"second convolution zero": (range(1, 31), sizes(True)), "random": (range(1, 31), sizes(False))}
print("after 30 blocks:", {name: f"{values[-1]:.1f}" for name, (_, values) in lines.items()})
lab.curves(lines, "blocks", "deviation of x", alt="A flat line at 1 for blocks that start as zero; a line that rises for "
           "blocks that start at random.")

# %% [markdown]
# What to see: with zeros, thirty blocks are nothing, and the training decides which of them it wants. With random
# starts each block adds its own noise before it has learnt anything.
#
# How many parameters does a block have? A 3 × 3 convolution has $9\,c_{in}\,c_{out}$ weights. Take a guess before you
# count.

# %%
lab.predict("7.a")

# %% [markdown]
# ### Exercise 7.2 · ResBlock
#
# Difficulty 3/5 · importance 5/5 · 20 minutes
#
# Write the whole module. Your parameters need the library's names and sizes, or no trained number will fit:
#
# | name | layer |
# | --- | --- |
# | `norm1` | GroupNorm, `groups` groups, `c_in` channels |
# | `conv1` | 3 × 3 convolution, `c_in` to `c_out`, padding 1 |
# | `embedding` | linear, `embedding_dim` to `c_out`; to `2 * c_out` with `scale_shift` |
# | `norm2` | GroupNorm, `groups` groups, `c_out` channels |
# | `dropout` | dropout with probability `dropout` |
# | `conv2` | 3 × 3 convolution, `c_out` to `c_out`, padding 1; starts as zero (`blocks.zeroed`) |
# | `skip` | 1 × 1 convolution if `c_in != c_out`, else `nn.Identity()` |
#
# Without `scale_shift` the embedding is added before `norm2`. With it, the embedding has two halves, *scale* and
# *shift*, and acts after the norm: `norm2(h) * (1 + scale) + shift`. That is equation (7.3). A sum before a norm can
# shift a channel only against the others of its group; a factor after it can switch a channel off. `mini` uses it,
# the paper does not.
#
# The check gives your block the library's random weights and compares everything in float64: the output, the gradient
# of every weight, and where dropout acts.
#
# <details><summary>Hint 1</summary>Follow the drawing from left to right. The embedding is (n, c), and the picture
# (n, c, h, w): give it two more axes, <code>[:, :, None, None]</code>.</details>
# <details><summary>Hint 2</summary><code>scale, shift = emb.chunk(2, dim=1)</code>. The last line of
# <code>forward</code> is <code>return self.skip(x) + h</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# self.scale_shift = scale_shift
# self.norm1 = nn.GroupNorm(groups, c_in)
# self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
# self.embedding = nn.Linear(embedding_dim, 2 * c_out if scale_shift else c_out)
# self.norm2 = nn.GroupNorm(groups, c_out)
# self.dropout = nn.Dropout(dropout)
# self.conv2 = blocks.zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
# self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
# ```
#
# ```python
# h = self.conv1(F.silu(self.norm1(x)))
# emb = self.embedding(F.silu(emb))[:, :, None, None]
# if self.scale_shift:
#     scale, shift = emb.chunk(2, dim=1)
#     h = self.norm2(h) * (1 + scale) + shift
# else:
#     h = self.norm2(h + emb)
# return self.skip(x) + self.conv2(self.dropout(F.silu(h)))
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
from torch import nn


class ResBlock(nn.Module):
    """x (n, c_in, h, w), emb (n, e) -> (n, c_out, h, w)."""

    def __init__(self, c_in, c_out, embedding_dim, groups, dropout, scale_shift):
        ### BEGIN SOLUTION
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, 2 * c_out if scale_shift else c_out)
        self.norm2 = nn.GroupNorm(groups, c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = blocks.zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        ### END SOLUTION

    def forward(self, x, emb):
        ### BEGIN SOLUTION
        h = self.conv1(F.silu(self.norm1(x)))
        emb = self.embedding(F.silu(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + emb)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))
        ### END SOLUTION


# %%
lab.check("7.2", ResBlock)

# %% [markdown]
# *What if?* Leave out the SiLU of the embedding, train, and nobody will notice: the network learns around it. Put
# that block into a model that was trained *with* it, and the clip falls apart. Numbers must agree; pictures are no
# proof.
#
# Now the real test. `lab.swap` builds the trained model again with your class in it, and fills it with the trained
# weights by name. Your block runs inside; the clip must not change.

# %%
PROMPT = {"prompt": "a large red circle moves left", "seed": 0, "steps": 4}
reference = ctx.pipe(**PROMPT)


def compare(clip):
    """How far a clip is from the reference, in grey levels."""
    difference = abs(clip.pixels.astype(int) - reference.pixels.astype(int))
    print(f"numbers of {difference.size:,} that differ by more than one grey level: {(difference > 1).sum()}")


with lab.swap(ctx.pipe, **{"blocks.ResBlock": lab.yours("7.2")}) as swapped:  # the autoencoder has a ResBlock too
    print("blocks that are yours now:", sum(type(m).__name__ == "ResBlock" for m in swapped.unet.modules()))
    compare(swapped(**PROMPT))

# %% [markdown]
# And the source that you have just replaced, for comparison:

# %%
lab.show_source(blocks.ResBlock.forward)

# %% [markdown]
# ## 4 · Attention: among cells, and to words
#
# A 3 × 3 convolution sees a cell's neighbours. Attention sees everything, in one step. Notebook 04 had it for words:
# each token makes a *query*, a *key* and a *value*; the query is compared with all keys; the values are averaged with
# the resulting weights. Here the tokens are the cells of a frame, each with $c$ numbers.
#
# $$\mathrm{attend}(q, k, v) = \mathrm{softmax}\!\left(\frac{q\,k^\top}{\sqrt{d}}\right) v$$
#
# It is used twice in a row. In **self-attention**, keys and values come from the cells themselves: the left edge of a
# ring can ask where the right edge is. In **cross-attention**, they come from the text: a cell asks which word is
# about it. This is where the prompt enters the paper's model, and the only place.
#
# By hand, with four cells and two words. The first cell's query points where the second word's key points:

# %%
cells = torch.tensor([[0.0, 3.0], [3.0, 0.0], [0.0, 0.0], [2.0, 2.0]])  # queries (s, d)
words = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # keys (m, d)
values = torch.tensor([[10.0, 0.0, 0.0], [0.0, 10.0, 0.0]])  # (m, e)
weights = (cells @ words.T / 2**0.5).softmax(dim=-1)  # each row adds up to 1
print("cell 0 gets", [round(v, 1) for v in (weights @ values)[0].tolist()])
lab.matrix(weights, ["cell 0", "cell 1", "cell 2", "cell 3"], ["word 0", "word 1"],
           alt="Weights: cell 0 looks at word 1, cell 1 at word 0, cells 2 and 3 at both alike.")

# %% [markdown]
# **Several heads.** One average is little: a cell may want to know the colour from one word and the direction from
# another. So the channels are cut into heads of `head_dim` neighbouring channels, each head attends on its own, and
# the results are put side by side again. `d` in the formula is then the width of one head.
#
# **One text for many frames.** The cells come as `n = b f` frames, the text as `b` contexts, one a clip. All frames
# of a clip read the same text. They lie beside one another in the batch, so frame `i` belongs to context `i // f`.
#
# ### Exercise 7.3 · Attention
#
# Difficulty 4/5 · importance 5/5 · 20 minutes
#
# | name | layer |
# | --- | --- |
# | `to_q` | linear, `d` to `d`, no bias |
# | `to_k`, `to_v` | linear, `context_dim` to `d` (`d` to `d` if it is None), no bias |
# | `to_out` | linear, `d` to `d`, with bias |
#
# `forward(x, context=None)`: x is (n, s, d), context is (b, m, e), or None, then x attends to itself. The number of
# heads is `d // head_dim`, and head `i` has the channels from `i * head_dim` on. Return (n, s, d).
#
# <details><summary>Hint 1</summary>First give every frame its text: <code>context.repeat_interleave(n // b,
# dim=0)</code>. Then three linear layers, then cut into heads.</details>
# <details><summary>Hint 2</summary><code>rearrange(q, "n s (k d) -> n k s d", k=heads)</code>. Scores are
# <code>q @ k.transpose(-1, -2) * head_dim**-0.5</code>; softmax over the last axis; times v; then back to
# <code>"n k s d -> n s (k d)"</code>, and <code>to_out</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# self.heads = d // head_dim
# self.to_q = nn.Linear(d, d, bias=False)
# self.to_k = nn.Linear(context_dim or d, d, bias=False)
# self.to_v = nn.Linear(context_dim or d, d, bias=False)
# self.to_out = nn.Linear(d, d)
# ```
#
# ```python
# context = x if context is None else context
# context = context.repeat_interleave(len(x) // len(context), dim=0)
# q, k, v = (rearrange(y, "n s (k d) -> n k s d", k=self.heads)
#            for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
# weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
# return self.to_out(rearrange(weights @ v, "n k s d -> n s (k d)"))
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
from einops import rearrange


class Attention(nn.Module):
    """x (n, s, d), context (b, m, e) or None -> (n, s, d)."""

    def __init__(self, d, head_dim, context_dim=None):
        ### BEGIN SOLUTION
        super().__init__()
        self.heads = d // head_dim
        self.to_q = nn.Linear(d, d, bias=False)
        self.to_k = nn.Linear(context_dim or d, d, bias=False)
        self.to_v = nn.Linear(context_dim or d, d, bias=False)
        self.to_out = nn.Linear(d, d)
        ### END SOLUTION

    def forward(self, x, context=None):
        ### BEGIN SOLUTION
        context = x if context is None else context
        context = context.repeat_interleave(len(x) // len(context), dim=0)  # (b m e) -> ((b f) m e)
        q, k, v = (rearrange(y, "n s (k d) -> n k s d", k=self.heads)
                   for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.to_out(rearrange(weights @ v, "n k s d -> n s (k d)"))
        ### END SOLUTION


# %%
lab.check("7.3", Attention)

# %%
with lab.swap(ctx.pipe, **{"blocks.Attention": lab.yours("7.3")}) as swapped:
    compare(swapped(**PROMPT))
lab.show_source(blocks.Attention.forward)

# %% [markdown]
# *What if?* The library does not repeat the text. It lays the cells of all frames of a clip side by side as one long
# sequence, so that keys and values are computed once a clip and not once a frame. Why is the result the same? Because
# queries do not see one another: each is compared with the keys alone.
#
# Now look at it at work: a recorded run, and for each word the cells that look at it. Choose a word below the
# picture, and move the step. (Remember the departures: in `mini` a word can also act through the embedding, the scene
# prior and the start token, which has no map here, without any cell looking at the word itself.)

# %%
from minit2v.recording.recording import Recording

run = Recording.load("left")
lab.LatentScrubber(run, name="scrubber-07", view="cross-attention")

# %%
step, frame = len(run.steps) // 2, len(run.frames) // 2
looks = run.attention("cross")[step, :, frame]  # words, h, w: how much each cell looks at each word
lab.sheet([run.preview[step, frame], *looks.repeat(8, axis=1).repeat(8, axis=2)], ["x0", *run.words], columns=7,
          alt="One frame in the middle of a run, and for each word of the prompt a grey picture of it, pale where cells "
              "look at that word most and black where they look at it least.")

# %% [markdown]
# Each picture is scaled for itself, from the least (black) to the most (white). Do the cells of the thing ask for other
# words than those of the background? Large models give maps in which every thing lights up under its word. Where words
# have other ways in as well, they need not.
#
# **The third part of a transformer block** has no attention at all. Each cell passes alone through a feed-forward
# layer, here a *GEGLU*: one half of its numbers is the value, the other half decides how much of it gets through,
# `value * gelu(gate)` (7.4). Three lines:

# %%
cell, layer = torch.randn(1, 6, generator=ctx.generator(2)), blocks.GEGLU(6)
value, gate = F.linear(cell, layer.proj_in.weight, layer.proj_in.bias).chunk(2, dim=-1)
with torch.no_grad():
    mine, theirs = layer.proj_out(value * F.gelu(gate)), layer(cell)
print("value", tuple(value.shape), "· gate", tuple(gate.shape), "· equal to the library's:", torch.allclose(mine, theirs))

# %% [markdown]
# So a spatial transformer is: norm, a linear layer in, `x + self-attention`, `x + cross-attention`, `x +
# feed-forward`, a linear layer out that starts as zero, and a sum. You know every part of it.
#
# ## 5 · The whole UNet in twenty lines
#
# What is left is the U. On the way down we put every result on a pile, and on the way up we take them off again: what
# was made last is used first. It is put beside what comes up, `torch.cat([x, skip], dim=1)` (7.5), so up and down must
# meet at the same size.

# %%
def level_up(x, skips, level, emb, context, f):
    """One level of the way up."""
    for block in level.blocks:
        x = block(torch.cat([x, skips.pop()], dim=1), emb, context, f)
    return x if level.resample is None else level.resample(x, skips[-1].shape[-2:])


def unet_by_hand(x, t, context, level_up=level_up):
    """What `unet(x, t, context)` does."""
    f, positions = x.shape[2], torch.arange(x.shape[2])[None]
    emb = unet.embed(t, context, positions)  # ((b f) e)
    x = unet.conv_in(rearrange(x, "b c f h w -> (b f) c h w"))
    if unet.layout is not None:
        x = x + unet.layout(context, positions, *x.shape[-2:])  # the scene prior
    x = unet.first_temporal(x, f)
    skips = [x]
    for level in unet.down:
        for block in level.blocks:
            x = block(x, emb, context, f)
            skips.append(x)
        if level.resample is not None:
            x = level.resample(x)
            skips.append(x)
    x = unet.middle(x, emb, context, f, True)
    for level in unet.up:
        x = level_up(x, skips, level, emb, context, f)
    x = unet.conv_out(F.silu(unet.norm_out(x)))
    return rearrange(x, "(b f) c h w -> b c f h w", f=f)


# %%
with torch.inference_mode():
    mine = unet_by_hand(x, t, context)
print("largest difference to the library's UNet is below 0.0001:", (mine - answer).abs().max().item() < 1e-4)
print("size of its answer:", f"{answer.std():.1f}")

# %% [markdown]
# **What do the skips carry?** Take each one away, that is, put zeros in its place, and see how much of the answer
# changes. We ask twice: with hardly any noise, and with much. First write down what you would expect of a model that
# predicts detail: which resolution can it least do without, and does that depend on the noise?

# %%
from minit2v.datasets.moving_things import MovingThings

sample = MovingThings("test_seen")[25]
latents, told = ctx.pipe.encode(sample.frames[None]), ctx.pipe.text.encode([sample.caption])


def without_skip(number):
    """`level_up` that gets zeros in the place of one skip, counted from the first that is made."""
    def cut(x, skips, *rest):
        kept = [0 * skip if i == number else skip for i, skip in enumerate(skips)]
        result = level_up(x, kept, *rest)
        del skips[len(kept):]
        return result

    return cut


changes = []
with torch.inference_mode():
    for t_now in (50, 600):
        noisy = ctx.pipe.diffusion.add_noise(latents, torch.randn(latents.shape, generator=ctx.generator(3)), [t_now])
        whole = unet_by_hand(noisy, torch.tensor([t_now]), told)
        cut = [unet_by_hand(noisy, torch.tensor([t_now]), told, without_skip(i)) for i in range(4)]
        changes.append([((one - whole).std() / whole.std()).item() for one in cut])
columns = ["after the first layers", "finest level", "halved", "coarse level"]
lab.matrix(changes, ["t = 50", "t = 600"], columns,
           alt="How much of the answer changes when one of four skips is cut, at two timesteps, as a share of the answer.")

# %% [markdown]
# What to see: the numbers are shares of the answer's own size, so 1 means that nothing of the answer can be trusted.
# Compare the columns, then the rows, with what you wrote down.
#
# ### Exercise 7.B · the right shape, the wrong clip
#
# Difficulty 1/5 · importance 4/5 · 6 minutes
#
# A colleague wrote the way up from memory. It runs; every shape is right; the weights load without a complaint.


# %%
def broken_up(x, skips, level, emb, context, f):
    for block in level.blocks:
        newest = skips.pop()
        pair = [newest, x] if newest.shape == x.shape else [x, newest]
        x = block(torch.cat(pair, dim=1), emb, context, f)
    return x if level.resample is None else level.resample(x, skips[-1].shape[-2:])


# %%
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided
from minit2v.video import Clip


def clip_of(level_up, steps=6):
    """A clip of the prompt, sampled with that way up."""
    pipe = ctx.pipe
    context, nothing = pipe.text.encode([PROMPT["prompt"]]), pipe.text.encode([""])
    model = guided(lambda x, t, words: unet_by_hand(x, t, words, level_up), context, nothing, pipe.preset.guidance)
    with torch.inference_mode():
        *_, last = SAMPLERS["ddim"](model, gaussian((1, 4, 16, 8, 8), ctx.generator(0)), pipe.diffusion, steps)
    return Clip(pipe.decode(last.x)[0], pipe.preset.fps)


lab.strip({"right": clip_of(level_up), "the colleague's": clip_of(broken_up)}, n=6,
          alt="Two rows of frames of one prompt and one seed, made with the right and with the wrong way up.")

# %% [markdown]
# The symptom is in the second row. Find the cause in the colleague's five lines, and mend it. `skips` is the pile,
# newest last; blocks take from it what was made last; the list must be left with one skip less for each block. After
# the blocks, `level.resample` (if there is one) takes the size of the next skip.
#
# <details><summary>Hint 1</summary>There is only one right order, and no case to distinguish.</details>
# <details><summary>Hint 2</summary>Look at <code>level_up</code> above, or at the last loop of
# <code>UNet.forward</code>: x comes first.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# for block in level.blocks:
#     x = block(torch.cat([x, skips.pop()], dim=1), emb, context, f)
# return x if level.resample is None else level.resample(x, skips[-1].shape[-2:])
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def go_up(x, skips, level, emb, context, f):
    """x ((b f), c, h, w), the pile of skips, newest last -> x after the level, at the size of the next skip."""
    ### BEGIN STUDENT
    # for block in level.blocks:
    #     newest = skips.pop()
    #     pair = [newest, x] if newest.shape == x.shape else [x, newest]
    #     x = block(torch.cat(pair, dim=1), emb, context, f)
    # return x if level.resample is None else level.resample(x, skips[-1].shape[-2:])
    ### END STUDENT
    ### BEGIN SOLUTION
    for block in level.blocks:
        x = block(torch.cat([x, skips.pop()], dim=1), emb, context, f)
    return x if level.resample is None else level.resample(x, skips[-1].shape[-2:])
    ### END SOLUTION


# %%
lab.check("7.B", go_up)

# %% [markdown]
# The cause was a special case that nobody had asked for: it turned the two halves round wherever they have the same
# width. A sum would not mind. But the convolution that follows has weights of its own for each channel. Half of them
# were trained for what comes up, the other half for the skip.
#
# ## 6 · Where are the parameters?
#
# The same class, with other settings, is the released UNet. PyTorch can build it without any memory, on the *meta*
# device: there are shapes and no numbers. So we can count. First a guess.

# %%
lab.predict("7.b")

# %%
from minit2v.presets import get

with torch.device("meta"):
    released = UNet(get("modelscope-1.7b").unet)


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


total = count(released)
parts = {f"level {i} of 4": (down, up) for i, (down, up) in enumerate(zip(released.down, reversed(released.up)))}
parts["middle"] = (released.middle,)
for name, modules in parts.items():
    print(f"{name:12} {count(*modules):13,} {100 * count(*modules) / total:5.1f} %")
print(f"{'all':12} {total:13,}")

# %%
for name, kind in (("residual blocks", blocks.ResBlock), ("spatial transformers", blocks.SpatialTransformer)):
    n = count(*(module for module in released.modules() if isinstance(module, kind)))
    print(f"{name:21} {n:13,}")

# %% [markdown]
# What to see: level 0 is the finest. It has the fewest parameters, because it is the narrowest: a convolution from $c$
# to $c$ channels has $9c^2$ weights, so a layer of half the width has a quarter of them. It does as much *arithmetic*
# all the same, for it has four times as many cells to use them on. Level 3 is as wide as level 2 and has less than
# half of its parameters, because it has no transformers.
#
# The residual blocks have nearly twice as many as the spatial transformers. Together they are not the whole model. How
# much of it exists for time alone is a question of the next notebook.
#
# ## Takeaways
#
# 1. A residual block computes what to add. Its last convolution starts as zero, so a new network passes its input
#    through and learns from there. The embedding of the timestep tells each block how noisy its input is.
# 2. Attention is the same layer three times: cells among themselves, cells to words, and (next) frames among
#    themselves. Only what counts as a token, and where keys and values come from, changes.
# 3. A layer is right when its numbers are: right shapes and pretty pictures survive bugs that a comparison in float64
#    does not.
#
# ## Quiz

# %%
lab.quiz(7)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(7)

# %% [markdown]
# ## Further reading
#
# - Ronneberger, Fischer and Brox, [U-Net](https://arxiv.org/abs/1505.04597), figure 1: the picture that gave it its
#   name, and why skips are put beside x and not added.
# - Rombach and others, [Latent diffusion](https://arxiv.org/abs/2112.10752), section 3.3: cross-attention as a way in
#   for any kind of condition; its UNet is the spatial half of this one.
# - Dhariwal and Nichol, [Diffusion models beat GANs](https://arxiv.org/abs/2105.05233), section 3: what each part of
#   such a UNet buys, measured; scale and shift are its *adaptive group normalisation*.
#
# **Next:** [08 · Teaching it time](08_teaching_it_time.ipynb), where frames meet.
