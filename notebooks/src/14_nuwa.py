# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14 · NÜWA
#
# **A clip becomes a text: a thousand tokens, written one after the other by a transformer that looks only at what lies near.
# You write its window, attention through it, and the memory that makes the writing affordable.**
#
# **You will**
# - turn a clip into tokens, and say what it costs to guess them
# - write the mask of a window in space and time, and find out what several blocks see together
# - compute attention through it, and compare it with dense attention where the two must agree
# - write a clip token by token with a memory, and get the same numbers as all at once
# - choose the next token: the k most likely, and a temperature
# - find a mistake of a public port that no test of gradients shows
# - let one decoder do three tasks: a picture, a clip, and the rest of a clip
#
# **You need** [02](02_squeezing_frames.ipynb) for the codebook, [04](04_words_into_vectors.ipynb) for attention with a mask,
# [08](08_teaching_it_time.ipynb) for what a frame can know of others.
#
# **Time** reading 17 minutes · running 1 to 2 minutes (fast mode 20 to 60 seconds) · exercises 58 minutes

# %%
from minit2v import lab

ctx = lab.setup(14)

# %% [markdown]
# ## 1 · A clip is a text
#
# The models so far begin with noise and make all frames of a clip at once. NÜWA (Wu and others, 2021) does what a language
# model does. It has an alphabet, and it writes.
#
# The alphabet is a codebook (02). An autoencoder makes 8 × 8 vectors of each frame, and each vector becomes the number of
# the nearest code. To see such tokens without NÜWA, we lay a book of 256 codes over the latents of `mini`, as in 02.

# %%
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange

from minit2v.datasets.moving_things import MovingThings
from minit2v.networks.bottleneck import Codebook, perplexity

pipe = ctx.pipe
others, _, _ = MovingThings("train").batch(range(ctx.pick(fast=4, default=24)))
vectors = rearrange(pipe.encode(others[:, ::4]), "b c f h w -> (b f) c h w")
torch.manual_seed(0)
book = Codebook(256, 4)
book.decay = 0.9  # every step sees the same vectors, so a short memory is enough
for _ in range(ctx.pick(fast=3, default=30)):
    book(vectors)

sample = MovingThings("val")[3]
latents = pipe.encode(sample.frames[None])
tokens = book.nearest(rearrange(latents, "1 c f h w -> (f h w) c")).view(16, 8, 8)
again = rearrange(book.codes[tokens], "f h w c -> 1 c f h w")
print(f"a clip of shape {tuple(sample.frames.shape)} is {tokens.numel():,} tokens of the shape {tuple(tokens.shape)}")
lab.strip({"the clip": sample.frames, "from its tokens": pipe.decode(again)[0]}, n=6,
          alt="Two rows of frames: a clip, and what the decoder makes of the codes of its tokens.")

# %% tags=["nbval-ignore-output"]
# not compared by the tests: which code has which number depends on rounding
print("\n".join(" ".join(f"{token:3}" for token in row) for row in tokens[8].tolist()))

# %% [markdown]
# This is frame 9, the whole of it. The ground is a few codes that return and return, and the thing in it is made of rare
# ones. What is the chance of such a clip, if the text says what it shows? Put the tokens in **raster order**: frame by
# frame, each row by row, each from left to right. Then the chance of all is a product,
#
# $$p(z \mid \text{text}) = \prod_{i=1}^{n} p\big(z_i \mid z_1, \ldots, z_{i-1}, \text{text}\big), \qquad
# \text{loss} = -\frac{1}{n} \log p(z \mid \text{text}) \qquad (14.1)$$
#
# and this is no approximation. So the network has one task: given what is written, name the chance of each code to come
# next. The loss is the cross-entropy. A network that knows nothing gives every code the same chance.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the tokens are those of a codebook whose training depends on the mode
import math

from minit2v.systems.nuwa import Nuwa, NuwaConfig
from minit2v.training.tokens import cross_entropy

context = pipe.text.encode([sample.caption])
sizes = NuwaConfig(codes=256, frames=16, rows=8, columns=8, width=32, heads=2, encoder_layers=1, layers=2,
                   context_dim=context.shape[-1])  # fmt: skip
torch.manual_seed(0)
small = Nuwa(sizes).eval()
with torch.no_grad():
    loss = cross_entropy(small(tokens[None], context), tokens[None]).mean().item()
print(f"an untrained decoder needs {loss / math.log(2):.0f} bits for a token; log2(256) = {math.log2(256):.0f}")
lab.show_source(cross_entropy)

# %% [markdown]
# How does it see only what comes before? Two things together. The tokens are shifted by one place, so that each place
# holds the token *before* the one that it has to guess; a learnt token begins the clip. And attention does not look ahead. The
# first is one line here, `before`:

# %%
lab.show_source(Nuwa.forward)

# %% [markdown]
# What else is there? Each place has three learnt positions, of its frame, its row and its column, which are added up. The
# text is encoded by a transformer of its own, and every block of the decoder attends to all of it. The paper's
# model has 870 million parameters, and 10 frames of 21 × 21 tokens out of 12,288; its text comes as byte pairs (04). Ours has
# 16 frames of 8 × 8 tokens out of 1,024, and its text comes from the small CLIP of `mini`.
#
# **Three tasks, one decoder.** Because a clip is a text, nothing has to be built for the second and the third.
#
# | task | text | what is given | what is written |
# | --- | --- | --- | --- |
# | text to picture | the caption | nothing | one frame |
# | video prediction | a constant; ours is the empty caption | the first frame, or more | those that come after |
# | text to video | the caption | nothing | all frames |
#
# What is given is seen but not guessed: it has no loss. The paper adds up the three losses; ours draws one task for a batch,
# text to video for half of them.

# %%
from minit2v.training.nuwa import NuwaTask

lab.show_source(NuwaTask.losses)

# %% [markdown]
# ## 2 · A window
#
# Full attention over 1,024 tokens has half a million pairs in every head of every block, and the paper's clips have four
# times as many tokens. But a video is not any text. What a token must agree with lies around it: beside it, above it, and at
# the same place a frame ago. **3D nearby attention** has a window of $e_f \times e_h \times e_w$ places around each place, and
# looks at those places in it that are already written:
#
# $$N(p) = \big\{\, p' : |p'_a - p_a| \le \lfloor e_a / 2 \rfloor \text{ on each axis } a, \;\;
# p' \text{ not later than } p \,\big\} \qquad (14.2)$$
#
# A place $p = (t, y, x)$ sees itself: what stands there is the token before it.

# %%
lab.predict("14.a")

# %% [markdown]
# Do not believe a layer's name; ask it. Whatever an output depends on has a gradient. So we take the library's layer with
# random weights, and look where the gradients of each of its outputs are not zero.

# %%
from minit2v.systems.nuwa import NearbyAttention

SHAPE = (7, 5, 6)  # frames, rows, columns: all different, so that none can be taken for another


def dependence(layer, shape):
    """On which places of its input each output of a layer (b, f, h, w, d) -> same depends: bool (n, n)."""
    x = torch.randn(1, *shape, 4, generator=ctx.generator()).requires_grad_()
    outputs = layer(x).flatten(0, 3).sum(dim=1)
    slopes = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in outputs]
    return torch.stack([slope.abs().sum(dim=-1).flatten() > 0 for slope in slopes])


torch.manual_seed(0)
layer = NearbyAttention(4, 2, (3, 3, 3))
nearby = dependence(layer, SHAPE)
at = torch.tensor(list(product(*map(range, SHAPE))))  # the places in raster order
written = torch.ones_like(nearby).tril()
axial = ((at[None] == at[:, None]).sum(dim=-1) >= 2) & written  # the two share two of three coordinates
lab.AttentionMask({"nearby 3 × 3 × 3": nearby, "axial": axial, "all that is written": written}, SHAPE, name="mask-14")

# %% [markdown]
# Press play to see the order in which tokens are written, or choose one and add blocks.
#
# What to see: in one block the window is a box, cut off where the token's own frame is not written yet. In the frame before,
# the whole box is there, with the rows *below* and the columns to the *right*: these are in an earlier frame, so they are
# written. Add a block, and the token hears what its neighbours heard of theirs. The box grows by one on each side.
#
# "Axial" looks along one axis at a time, here along all three in a block: its own row, its column, its place in earlier
# frames (GODIVA, by the same group, has such attention). It reaches far at once. But cut off like this it never hears of
# anything to its right, however many blocks there are. In the paper nearby attention is better than axial, and better than
# full attention (an ablation, on videos from sketches).

# %%
lab.predict("14.b")

# %%
n, window = 16 * 8 * 8, 14
print(f"pairs in a head, all that is written: {n * (n + 1) // 2:8,}    nearby, at most: {n * window:7,}")
n = 10 * 21 * 21
print(f"in the paper's clips of 10 x 21 x 21: {n * (n + 1) // 2:8,}    nearby, at most: {n * window:7,}")

# %% [markdown]
# ### Exercise 14.1 · nearby_mask
#
# Difficulty 3/5 · importance 5/5 · 10 minutes
#
# `shape` is (f, h, w), `extent` three odd numbers. Return the mask, bool (n, n) with n = f · h · w, both axes in raster
# order: row i says which places j place i sees. The check tries windows that are flat, and windows that are larger than the
# clip.
#
# <details><summary>Hint 1</summary><code>at = torch.tensor(list(product(*map(range, shape))))</code> has the three
# coordinates of each place, (n, 3). The difference of <code>at[None]</code> and <code>at[:, None]</code> is (n, n, 3).
# </details>
# <details><summary>Hint 2</summary>A place is near if <code>.all(dim=-1)</code> of the three differences are at most half of
# the extent. "Not later" needs no coordinates: in raster order it is j ≤ i, a matrix's lower triangle.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# at = torch.tensor(list(product(*map(range, shape))))
# apart = at[None] - at[:, None]
# near = (apart.abs() <= torch.tensor(extent) // 2).all(dim=-1)
# return near & torch.ones(near.shape, dtype=torch.bool).tril()
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def nearby_mask(shape, extent):
    """shape (f, h, w), extent three odd numbers -> bool (n, n): does place i of the raster order see place j?"""
    ### BEGIN SOLUTION
    at = torch.tensor(list(product(*map(range, shape))))
    apart = at[None] - at[:, None]
    near = (apart.abs() <= torch.tensor(extent) // 2).all(dim=-1)
    return near & torch.ones(near.shape, dtype=torch.bool).tril()
    ### END SOLUTION


# %%
lab.check("14.1", nearby_mask)

# %%
window_of = lab.yours("14.1")
print("what the library's layer depends on is this mask:", torch.equal(window_of(SHAPE, (3, 3, 3)), nearby))

# %% [markdown]
# *What if?* Ask "not later" of each axis instead of the order: then (t - 1, y + 1, x + 1) is out. Nobody would look ahead, so
# it is allowed, and it is easy to build: pad each axis at its beginning only, as causal convolutions do. The public port
# [nuwa-pytorch](https://github.com/lucidrains/nuwa-pytorch) has done so since March 2022; its window of three reaches two back
# on each axis. But that is another window. A token no longer sees where the thing in the frame before goes on to the right and
# below.
#
# ## 3 · Attention through it
#
# The rest is attention as you know it,
#
# $$\text{out}_p = W_o \sum_{p' \in N(p)} \operatorname{softmax}_{p'}\!\Big(\frac{q_p \cdot k_{p'}}{\sqrt{c}}\Big)\, v_{p'}
# \qquad (14.3)$$
#
# ### Exercise 14.2 · attend
#
# Difficulty 3/5 · importance 4/5 · 10 minutes
#
# Compute it with a mask. `layer` is a `NearbyAttention`, of which you use the weights: `to_q`, `to_k`, `to_v`, `to_out`, and
# the number of `heads`. Its `bias` is 0 here, so leave it out. `x` is (b, f, h, w, d), `seen` bool (n, n). Return (b, f, h, w,
# d). The numbers of a head lie beside one another, and c is their number. The check compares with the library's layer in
# float64.
#
# <details><summary>Hint 1</summary><code>rearrange(layer.to_q(x), "b f h w (n c) -> b n (f h w) c", n=layer.heads)</code>,
# and k and v alike. The scores are (b, heads, n, n).</details>
# <details><summary>Hint 2</summary>Before the softmax, <code>.masked_fill(~seen, float("-inf"))</code>. Afterwards fold the
# heads back, <code>"b n p c -> b p (n c)"</code>, apply <code>to_out</code>, and give it the shape of x.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# q, k, v = (rearrange(y, "b f h w (n c) -> b n (f h w) c", n=layer.heads)
#            for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
# scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
# out = rearrange(scores.softmax(dim=-1) @ v, "b n p c -> b p (n c)")
# return layer.to_out(out).view(x.shape)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def attend(layer, x, seen):
    """A NearbyAttention's weights, x (b, f, h, w, d), seen bool (n, n) -> the output (b, f, h, w, d)."""
    ### BEGIN SOLUTION
    q, k, v = (rearrange(y, "b f h w (n c) -> b n (f h w) c", n=layer.heads)
               for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))  # fmt: skip
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
    out = rearrange(scores.softmax(dim=-1) @ v, "b n p c -> b p (n c)")
    return layer.to_out(out).view(x.shape)
    ### END SOLUTION


# %%
lab.check("14.2", attend)

# %% [markdown]
# Yours computes all pairs and throws most of them away. The library lays each frame's keys beside those of the frames that
# its window reaches, here of one, and masks only there. So twice the frames cost twice as much, and not four times.
#
# It also adds a learnt `bias` to the scores, one number for each head and place of the window, at first 0. The paper has none.
# With it a head can say "the place above" or "here, a frame ago" without learning to find it from tables of places.

# %%
lab.show_source(NearbyAttention.forward)

# %%
through_mask = lab.yours("14.2")
exact = NearbyAttention(4, 2, (13, 9, 11)).double()  # a window that reaches over the whole clip from everywhere
x = torch.randn(1, *SHAPE, 4, generator=ctx.generator(1), dtype=torch.float64)
with torch.no_grad():
    apart = (exact(x) - through_mask(exact, x, written)).abs().max().item()
print("a window over the whole clip is attention to all that is written:", apart < 1e-12)

# %% [markdown]
# *What if?* Make the window one frame deep, (1, 3, 3). Then nothing passes from frame to frame, and the decoder writes
# sixteen pictures. Make it (3, 1, 1), and each place lives on its own history. Every choice between a picture model and a
# full one is three numbers.
#
# ## 4 · Token by token
#
# In training all tokens are known, so one call of the decoder scores all of them at once. When it writes, token 500 has
# to be drawn before token 501 can be guessed. A clip takes 1,024 calls. And each of them, done without thought, runs over
# everything that is written so far.

# %%
lab.predict("14.c")

# %% [markdown]
# All of that has been computed before. The output at a place depends on earlier places alone, so nothing that comes later
# changes it. What a new token needs of the old ones is their keys and values. **Keep them.** Then each call computes one
# place. (For language models this is the *KV cache*.)
#
# ### Exercise 14.3 · step
#
# Difficulty 4/5 · importance 5/5 · 20 minutes
#
# One place of a `NearbyAttention`. `x` (b, d) is its input, `place` is (t, y, x), `memory` two tensors, keys and values, each
# (b, f, h, w, heads, c). Those of earlier places are in it; at later ones stands anything, perhaps another clip. Put the new
# key and value where they belong, and return the output (b, d). The `bias` is 0 again. `layer.reach` has half of each extent,
# (1, 1, 1) for a window of 3 × 3 × 3. The check writes clips place by place and compares with the layer's `forward`. It counts
# the keys that you compute.
#
# <details><summary>Hint 1</summary><code>layer.to_k(x).unflatten(-1, (layer.heads, -1))</code> is (b, heads, c).
# <code>keys[(slice(None), *place)]</code> is where it goes, before you attend: the place sees itself.</details>
# <details><summary>Hint 2</summary>List the places of the window inside the clip with <code>product</code> of three ranges,
# from <code>max(0, at - reach)</code> to <code>min(size, at + reach + 1)</code>. Tuples compare in raster order, so
# <code>if other &lt;= place</code> is the cut. Stack their keys to (b, heads, m, c); then it is a softmax over m.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# keys, values = memory
# q, k, v = (y.unflatten(-1, (layer.heads, -1)) for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
# here = (slice(None), *place)
# keys[here], values[here] = k, v
# ranges = (range(max(0, at - reach), min(size, at + reach + 1))
#           for at, reach, size in zip(place, layer.reach, keys.shape[1:4]))
# near = [(slice(None), *other) for other in product(*ranges) if other <= place]
# k, v = (torch.stack([part[other] for other in near], dim=2) for part in memory)
# weights = (q[:, :, None] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
# return layer.to_out((weights @ v).flatten(1))
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def step(layer, x, place, memory):
    """x (b, d) at a place (t, y, x), memory: keys and values (b, f, h, w, heads, c), which are added to -> (b, d)."""
    ### BEGIN SOLUTION
    keys, values = memory
    q, k, v = (y.unflatten(-1, (layer.heads, -1)) for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x)))
    here = (slice(None), *place)
    keys[here], values[here] = k, v
    ranges = (range(max(0, at - reach), min(size, at + reach + 1))
              for at, reach, size in zip(place, layer.reach, keys.shape[1:4]))  # fmt: skip
    near = [(slice(None), *other) for other in product(*ranges) if other <= place]
    k, v = (torch.stack([part[other] for other in near], dim=2) for part in memory)
    weights = (q[:, :, None] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return layer.to_out((weights @ v).flatten(1))
    ### END SOLUTION


# %%
lab.check("14.3", step)

# %% [markdown]
# Now your step writes a clip. We give it to a whole decoder, untrained, in float64; its tokens are drawn, each time with the
# same random numbers.

# %%
import copy
import time

from minit2v.networks.autoregressive import draw

one_place = lab.yours("14.3")


class Stepping(NearbyAttention):
    """The library's layer with your step, and a memory as yours wants it."""

    def memory(self, b, shape):
        size = (b, *shape, self.heads, self.to_q.out_features // self.heads)
        return self.to_q.weight.new_zeros(size), self.to_q.weight.new_zeros(size)

    def step(self, x, place, memory):
        return one_place(self, x, place, memory)


writer = copy.deepcopy(small).double()
for block in writer.blocks:
    block.nearby.__class__ = Stepping  # the same weights; the bias of an untrained layer is 0


# %%
@torch.no_grad()
def write(shape, remember):
    """Tokens (f, h, w), with a memory or with a call of the whole decoder for each, and the seconds that it took."""
    text, dice, start = context.double(), [ctx.generator(1)], time.perf_counter()
    made, before = torch.zeros(1, *shape, dtype=torch.long), torch.tensor([writer.config.codes])
    memory, encoded = writer.memory(1, shape), writer.encode(text)
    for place in product(*map(range, shape)):
        here = (slice(None), *place)
        logits = writer.step(before, encoded, place, memory) if remember else writer(made, text)[here]
        made[here] = before = draw(logits, dice, top_k=32)
    return made[0], time.perf_counter() - start


shape = ctx.pick(fast=(2, 2, 3), default=(4, 8, 8), full=(16, 8, 8))
with_memory, without = write(shape, True), write(shape, False)
print("the same tokens:", torch.equal(with_memory[0], without[0]))

# %% tags=["nbval-ignore-output"]
# not compared by the tests: time differs from run to run
print(f"{math.prod(shape)} tokens: {with_memory[1]:.1f} s with a memory, {without[1]:.1f} s without, "
      f"{without[1] / with_memory[1]:.1f} times as long")

# %% [markdown]
# How to read it: the ratio grows with the clip, because without a memory each token costs as much as the whole. (Ours wastes
# even more than it must, for the call computes also the places that are not written.) A diffusion model is asked a few dozen
# times for a clip of any length. This one is asked once for each token. Every question is small, but they have to be asked
# one after the other.
#
# *What if?* Someone moves the thing in frame 3 after the clip is written. Which keys and values may be kept, and from which
# place on does everything have to be written anew?
#
# ## 5 · Which token?
#
# The decoder gives 1,024 logits. To take the largest each time sounds safe, but the most likely next token is nearly always
# ground. A clip of nothing but the likeliest tokens is not a likely clip. So tokens are **drawn**. But of the 1,024
# codes most do not fit. Each of them has a small chance, all of them together a larger one, and what is drawn stays. Two
# settings are common, the number $k$ of tokens that may be drawn and the temperature $T$:
#
# $$p_j = \frac{\exp(\ell_j / T)}{\sum_{j' \in K} \exp(\ell_{j'} / T)} \;\text{ for } j \in K, \quad 0 \text{ else}, \qquad
# K: \text{ the } k \text{ largest logits} \qquad (14.4)$$
#
# ### Exercise 14.4 · chances
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# Logits (b, codes) to chances (b, codes), each row for itself. `top_k` may be larger than the number of codes; then all are
# kept. No two logits of a row are equal.
#
# <details><summary>Hint 1</summary><code>logits.topk(k, dim=1).values</code> is sorted, so its last column is the smallest
# logit that is kept.</details>
# <details><summary>Hint 2</summary>Put <code>float("-inf")</code> where a logit is below that. Then the softmax of logits
# divided by T does the rest.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# least = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
# kept = logits.masked_fill(logits < least, float("-inf"))
# return (kept / temperature).softmax(dim=1)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def chances(logits, top_k, temperature):
    """Logits (b, codes) -> the chance of each token to be drawn, (b, codes)."""
    ### BEGIN SOLUTION
    least = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
    kept = logits.masked_fill(logits < least, float("-inf"))
    return (kept / temperature).softmax(dim=1)
    ### END SOLUTION


# %%
lab.check("14.4", chances)

# %%
drawn_with = lab.yours("14.4")
logits = 2.5 * torch.randn(1, 40, generator=ctx.generator(3), dtype=torch.float64)
ranks = torch.arange(1, 41)
lines = {f"T = {t:g}, k = {k}": (ranks, drawn_with(logits, k, t)[0].sort(descending=True).values)
         for t, k in ((0.5, 40), (1.0, 40), (2.0, 40), (1.0, 8))}
lab.curves(lines, "rank of the token", "chance", alt="The chances of 40 tokens, sorted: the colder, the steeper; with k = 8 "
           "the ninth has none, and the first eight a little more each.")

# %% [markdown]
# The library never computes these chances. It adds to each logit a random number from Gumbel's distribution and takes the
# largest. That is a draw from the same chances, but it needs no sum, so it is the same on every machine.

# %%
lab.show_source(draw)
many = draw(logits.expand(2000, -1), [ctx.generator(i) for i in range(2000)], top_k=8)
often = torch.bincount(many, minlength=40) / 2000
apart = (often - drawn_with(logits, 8, 1.0)[0]).abs().max().item()
print("the shares of 2,000 draws and the chances differ by less than 0.05:", apart < 0.05)

# %% [markdown]
# Our NÜWA has a third setting, which the paper has not: guidance. It is the line of notebook 10, with logits in the place of
# noise: $\ell = \ell_\varnothing + s\,(\ell_\text{text} - \ell_\varnothing)$. (The paper draws 60 pictures and lets CLIP
# choose the best.)
#
# *What if?* Draw with $T \to 0$: the largest logit always wins, whatever the seed is, and every prompt has one clip.
#
# ## 6 · A bug hunt
#
# A port of nearby attention cuts the windows out with `unfold`, which is short and quick. It runs two tests, and passes
# both: no output depends on a place outside of its window or on a later one, and in the middle of the clip each number is
# right. Here it is for one head, with the window of section 2.

# %%
def ported(q, k, v, extent):
    """q, k, v (f, h, w, c) of one head -> what each place gets from its window, (f, h, w, c)."""
    frames, rows, columns = (side // 2 for side in extent)

    def windows(y):
        """(f, h, w, c) -> (f, h, w, c, o): around each place, as far as it is written, the place itself last."""
        y = F.pad(y, (0, 0, columns, columns, rows, rows, frames, 0))
        y = y.unfold(0, frames + 1, 1).unfold(1, extent[1], 1).unfold(2, extent[2], 1).flatten(4)
        return y[..., : y.shape[-1] - rows * extent[2] - columns]

    scores = torch.einsum("fhwc,fhwco->fhwo", q, windows(k)) * q.shape[-1] ** -0.5
    return torch.einsum("fhwo,fhwco->fhwc", scores.softmax(dim=-1), windows(v))


q, k, v = (torch.randn(*SHAPE, 4, generator=ctx.generator(i), dtype=torch.float64) for i in range(3))
right = F.scaled_dot_product_attention(*(part.flatten(0, 2)[None] for part in (q, k, v)), attn_mask=nearby)[0].view(v.shape)
found = ported(q, k, v, (3, 3, 3))
print("on the same places:", torch.equal(dependence(lambda x: ported(x[0], x[0], x[0], (3, 3, 3))[None], SHAPE), nearby))
print("right in the middle:", torch.allclose(found[1:, 1:-1, 1:-1], right[1:, 1:-1, 1:-1]))
print("right everywhere:", torch.allclose(found, right))

# %% [markdown]
# Where is it wrong, and how? Ask it something to which everybody knows the answer. With weights that add up to 1, the mean of
# equal values is that value. So give it values that are all 1.

# %%
grey = ported(q, k, torch.ones_like(v), (3, 3, 3))[..., 0]
print("mean of each frame:", [round(frame.item(), 2) for frame in grey.mean(dim=(1, 2))])
lab.matrix(grey[2], alt="The third frame of values that were all 1: 1 in the middle, and less in the first and last row and "
           "column.", xlabel="column", ylabel="row")

# %% [markdown]
# What to see: a dark rim. The first frame has a rim on the side of time as well. The corner of the first frame has a single
# place in its window, itself, and what it gets is a small part of its own value.
#
# This happened. In the port nuwa-pytorch the attention without a causal cut had it, until the
# [commit](https://github.com/lucidrains/nuwa-pytorch/commit/7fb6ce2f7bb646115c11c0e6b85ebdf146631dfc) of 4 January 2022 that
# says what was missing. (Look at it afterwards.)
#
# ### Exercise 14.B · looked
#
# Difficulty 3/5 · importance 4/5 · 10 minutes
#
# Mend it. The check has clips that are smaller than their windows, and keys that are zero.
#
# <details><summary>Hint 1</summary>What stands outside of the clip, and which score does it get? Which weight is that?
# </details>
# <details><summary>Hint 2</summary>You need to know which parts of a window are inside. Cut windows out of ones,
# <code>windows(torch.ones_like(k[..., :1]))</code>: outside of the clip there are zeros.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# scores = torch.einsum("fhwc,fhwco->fhwo", q, windows(k)) * q.shape[-1] ** -0.5
# inside = windows(torch.ones_like(k[..., :1]))[..., 0, :] > 0
# weights = scores.masked_fill(~inside, float("-inf")).softmax(dim=-1)
# return torch.einsum("fhwo,fhwco->fhwc", weights, windows(v))
# ```
#
# The padding has keys of zero, so scores of zero, and exp(0) = 1 is a weight like any other. Its values are zero, so it
# darkens. No gradient leads there, for nothing is there, and that is why the first test was silent.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def looked(q, k, v, extent):
    """q, k, v (f, h, w, c) of one head -> what each place gets from its window, (f, h, w, c)."""
    frames, rows, columns = (side // 2 for side in extent)

    def windows(y):
        """(f, h, w, c) -> (f, h, w, c, o): around each place, as far as it is written, the place itself last."""
        y = F.pad(y, (0, 0, columns, columns, rows, rows, frames, 0))
        y = y.unfold(0, frames + 1, 1).unfold(1, extent[1], 1).unfold(2, extent[2], 1).flatten(4)
        return y[..., : y.shape[-1] - rows * extent[2] - columns]

    ### BEGIN SOLUTION
    scores = torch.einsum("fhwc,fhwco->fhwo", q, windows(k)) * q.shape[-1] ** -0.5
    inside = windows(torch.ones_like(k[..., :1]))[..., 0, :] > 0
    weights = scores.masked_fill(~inside, float("-inf")).softmax(dim=-1)
    return torch.einsum("fhwo,fhwco->fhwc", weights, windows(v))
    ### END SOLUTION
    ### BEGIN STUDENT
    # scores = torch.einsum("fhwc,fhwco->fhwo", q, windows(k)) * q.shape[-1] ** -0.5
    # return torch.einsum("fhwo,fhwco->fhwc", scores.softmax(dim=-1), windows(v))
    ### END STUDENT


# %%
lab.check("14.B", looked)

# %% [markdown]
# A test of gradients says what an output depends on, and not how much. The other test of this notebook would have found it:
# where the window reaches over the whole clip, it is dense attention.
#
# ## 7 · The trained one
#
# `nuwa` was trained on the three tasks with the clips and pictures of the other systems. First its alphabet. No clip of it
# can be better than what its tokens can say, so look at a real clip on its way through them:

# %%
import minit2v

nuwa = minit2v.load("nuwa", device=ctx.device)
real = MovingThings("test_seen")[25].frames
spelt = nuwa.to_tokens(nuwa.encode(real[None]))
print(f"{spelt.numel():,} tokens out of {nuwa.preset.transformer.codes:,}")
lab.strip({"a real clip": real, "through its tokens": nuwa.decode(nuwa.to_latents(spelt))[0]}, n=6,
          alt="Two rows of frames: a real clip, and the same clip through the tokens of NÜWA's codebook.")

# %% [markdown]
# What to see: outlines and colours that are the same in both rows are within the alphabet's reach. Whatever differs here
# will be missing in every clip below, and the decoder is not to blame for it.
#
# What does an alphabet cost? If you know of each code only how often it occurs, a token takes as many bits as the entropy of
# these shares. The encoder of a plain codebook takes the nearest code. The vectors of an empty ground differ by next to
# nothing, but codes are cheap, and soon hundreds of them lie there, one nearest today and another tomorrow. A frame looks
# the same, and the decoder has to guess noise. So the codebook of `nuwa` is *thrifty*: a vector takes the code whose squared
# distance minus $\lambda \log(\text{usage})$ is least, so that a code in common use may lie a little farther away (Chou and
# others, 1989).

# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many frames are counted depends on the mode
from minit2v.pixels import to_signed

book = nuwa.autoencoder.bottleneck
with torch.no_grad():
    features = nuwa.autoencoder.features(to_signed(torch.from_numpy(others[:, ::4]).flatten(0, 1)))
vectors = rearrange(features, "n c h w -> (n h w) c")
for name, choice in {"the nearest code": book.nearest, "the thrifty choice": book.chosen}.items():
    shares = torch.bincount(choice(vectors), minlength=len(book.codes)) / len(vectors)
    bits = math.log2(perplexity(shares))
    print(f"{name:18} {bits:4.1f} bits a token, {(shares > 0).sum().item():4} codes in use")

# %% [markdown]
# Now let it write, and keep what it has after each frame.

# %%
PROMPTS = ["a large red circle moves left", "a small blue ring moves up", "a large yellow square moves right",
           "a small green triangle moves down"]
FRAMES, steps = ctx.pick(fast=3, default=16), []
clips = nuwa(PROMPTS, seed=0, frames=FRAMES, callback=steps.append)
lab.strip(dict(zip(PROMPTS, clips)), n=8, alt="A row of frames for each of four prompts, written by NÜWA.")

# %%
*_, part = nuwa.stream(PROMPTS[0], seed=0, frames=max(1, FRAMES // 4))  # as a Step has them: the codes of its tokens
same = torch.equal(part.x, steps[-1].x[:1, :, : part.x.shape[2]])
print(f"one step for each frame: {len(steps) == FRAMES} · a shorter clip is the beginning of the longer one: {same}")
moments = [FRAMES // 2 - 1, FRAMES - 1]
lab.strip({f"after frame {i + 1}": nuwa.decode(steps[i].x[:1])[0] for i in moments}, n=8,
          alt="Two rows of frames of one clip: half written, with a coloured pattern in the place of later frames, and whole.")

# %% [markdown]
# How to read it: what is written stays. Frames that are not written yet hold zeros, which are no code, and what the decoder
# makes of them means nothing. There is no step in which the clip comes into focus, as with diffusion; a frame is
# done before the next begins. So a shorter clip is the beginning of a longer one, and a clip can be watched while it is
# written. The price: a token that was drawn badly cannot be taken back, and what comes after has to live with it.
# Follow a thing through a row. Is it in the last frame what it was in the first, its colour, its outline, its size? Six
# blocks hear of six frames back. Of anything earlier they know only what the frames in between have handed on.
#
# The settings of section 5, for the same prompts and seeds. (So few clips tell large differences only.)

# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many frames are written depends on the mode
from dataclasses import replace

import numpy as np

from minit2v.datasets.moving_things import parse
from minit2v.evaluation import judge, motion

specs, short = [parse(prompt) for prompt in PROMPTS], max(3, FRAMES // 2)
preset, rows = nuwa.preset, {f"k = {nuwa.preset.top_k}": [clip.pixels[:short] for clip in clips]}
for name, k in {"k = 1": 1, "all codes": preset.transformer.codes}.items():
    nuwa.preset = replace(preset, top_k=k)
    rows[name] = [clip.pixels for clip in nuwa(PROMPTS, seed=0, frames=short)]
nuwa.preset = preset
print(f"{'':12}things right   identity drift   motion amplitude")
for name, made in rows.items():
    named = sum(judge.agrees(judge.read(pixels), spec)["all"] for pixels, spec in zip(made, specs))
    found = motion.measure(np.stack(made))
    drift, amplitude = (found[key].mean() for key in ("identity drift", "motion amplitude"))
    print(f"{name:12}{named:7} of {len(made)}{drift:17.2f}{amplitude:19.2f}")

# %%
lab.strip({name: made[0] for name, made in rows.items()}, n=8,
          alt="Three rows of frames of one prompt and seed: the k of the preset, always the most likely token, and all codes.")

# %% [markdown]
# How to read it: with k = 1 nothing is left to chance. Look whether something still moves there, or whether the likeliest next
# frame is the frame before. With all codes hardly anything changes: at `nuwa`'s temperature of 0.5 the codes beyond the 32
# likeliest are hardly ever drawn.
#
# And the other two tasks, with the same weights. A picture is a clip of one frame. And a clip goes on where you leave it.

# %%
pictures = nuwa(PROMPTS, seed=1, frames=1)
lab.sheet([clip.pixels[0] for clip in pictures], [prompt.removeprefix("a ") for prompt in PROMPTS], columns=4,
          alt="Four pictures of four prompts, each a clip of one frame.")

# %%
given, more = ctx.pick(fast=2, default=8), ctx.pick(fast=1, default=4)
longer = nuwa.continued(real[:given], more, seed=0)
lab.strip({"real": real[: given + more], f"the last {more} by NÜWA": longer}, n=given + more,
          alt="Two rows of frames: a real clip, and the same clip of which the last frames are NÜWA's.")

# %% [markdown]
# How to read it: nobody told the decoder what moves and where to. It had the frames alone. Does the thing go on in its
# direction, and at its pace? To know the direction it must compare two frames; its window has both. Compare the place of the
# thing in the last frame with the row above. `minit2v extend clip.mp4 --after 8 --model nuwa` does this to a clip of yours.
#
# ## Takeaways
#
# 1. With a codebook a clip is a text. Its chance is a product over tokens in raster order, and one decoder that guesses the
#    next one makes pictures, clips, and what comes after a clip.
# 2. Nearby attention looks at a box around a place, as far as it is written. Its cost grows with the clip and not with the
#    square of it; what is farther away arrives through several blocks, one frame for each.
# 3. A memory of keys and values changes no number, or it is wrong. Two tests belong to every window: what an output depends
#    on, and that a window over everything is dense attention.
#
# ## Quiz

# %%
lab.quiz(14)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(14)

# %% [markdown]
# ## Further reading
#
# - Wu and others, [NÜWA](https://arxiv.org/abs/2111.12417), section 3: the encoder-decoder and 3D nearby attention; the
#   comparison of windows is among its ablations.
# - Esser and others, [Taming transformers](https://arxiv.org/abs/2012.09841), section 3.2: the codes of a picture written by
#   a transformer, from which all of this comes.
# - Wu and others, [GODIVA](https://arxiv.org/abs/2104.14806): the same group a few months before, with axial attention.
# - Wang, [nuwa-pytorch](https://github.com/lucidrains/nuwa-pytorch): a port to read, with windows made by `unfold`. Its
#   history is a lesson in itself.
#
# **Next:** [15 · CogVideo](15_cogvideo.ipynb) also writes tokens, but its
# pictures' transformer is frozen, and time comes in beside it.
