# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 20 · Your own adapter
#
# **A trained model is large and your data is small. An adapter puts what is new into a pair of small matrices for each layer
# and leaves the model as it is: it is made in minutes, sent in an e-mail, made weaker, combined, and taken off again.**
#
# **You will**
# - see what `mini` does with a shape that it has never seen
# - write a low-rank change of a layer, and that of a convolution along time
# - find out why one of its two matrices has to start at zero, and the other must not
# - teach `mini` a new shape from 20 clips, and measure what became of the old ones
# - count how many ranks the adapter really used
# - read the adapters of other programs, and know when not to
#
# **You need** [08 · Teaching it time](08_teaching_it_time.ipynb): linear layers and convolutions along time;
# [09 · Training text-to-video on a CPU](09_training_text_to_video.ipynb): the loss and its training step.
#
# **Time** reading 18 minutes · running 1 to 2 minutes (fast mode 20 to 60 seconds) · exercises 30 minutes

# %%
from minit2v import lab

ctx = lab.setup(20)

# %% [markdown]
# ## 1 · Something that the model does not know
#
# Moving Things has squares and rings. It has no *square rings*. Here are three, drawn by a program, and what `mini` makes
# of such a caption. (The name has to be made of words that its text tower knows.)

# %%
from minit2v.lab.course import new_shape

pipe = ctx.pipe
steps = ctx.pick(fast=2, default=12)
shown = new_shape.specs(3, seed=5)
print(*map(new_shape.said, shown), sep="\n")
lab.strip(dict(zip(("drawn", "drawn ", "drawn  "), new_shape.drawn(shown, seed=5))), n=6,
          alt="Three rows of frames: square rings, thick frames of one colour, that move over a dark background.")

# %%
PROMPT = "a large red square ring moves right"
lab.strip({f"seed {seed}": pipe(PROMPT, seed=seed, steps=steps) for seed in (0, 1, 2)}, n=6,
          alt="Three rows of frames by the model without an adapter: squares or rings, but hardly a square ring.")

# %% [markdown]
# What to see: the words pull in two directions, and the model draws something that it knows. To teach it the new thing we
# could train it further on clips of square rings. That changes all of its 4.5 million weights, makes a second file as
# large as the first, and with 20 clips it may well forget the old shapes on the way.
#
# ## 2 · A change of low rank
#
# Training a layer further turns its weight $W$ into $W + \Delta W$. The idea of LoRA (Hu and others, 2021) is that $\Delta W$
# need not be an arbitrary matrix. What is new, "the inside of *this* is dark", concerns a few directions in the features of a
# layer, not all of them. So write
#
# $$W' = W + s\,B A, \qquad A: r \times \text{in}, \quad B: \text{out} \times r \qquad (20.1)$$
#
# with a small rank $r$. $A$ looks for $r$ things in the input of the layer, and $B$ says what each of them adds to its
# output. $W$ is frozen.

# %%
lab.predict("20.a")

# %% [markdown]
# The scale is written as
#
# $$s = \alpha / r \qquad (20.2)$$
#
# so that the change stays about as large when you try another rank with the same $\alpha$.
#
# ### Exercise 20.1 · changed
#
# Difficulty 1/5 · importance 5/5 · 5 minutes
#
# The weight with its change, by (20.1) and (20.2). The rank is in the shapes.
#
# <details><summary>Hint 1</summary><code>B @ A</code> has the shape of <code>W</code>.</details>
# <details><summary>Hint 2</summary>r is <code>len(A)</code>, the number of rows of A.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return W + alpha / len(A) * (B @ A)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def changed(W, A, B, alpha):
    """W (out, in), A (r, in), B (out, r), alpha a number -> the weight with its change, (out, in)."""
    ### BEGIN SOLUTION
    return W + alpha / len(A) * (B @ A)
    ### END SOLUTION


# %%
lab.check("20.1", changed)

# %% [markdown]
# *What if?* Give each of the r directions a number of its own, $B\,\mathrm{diag}(d)\,A$. Nothing is gained in what can be
# written, as $d$ can be put into $B$. But then one can see which directions matter, and cut those that do not.
#
# The library has the same line. `attach` makes a layer read its weight through it:

# %%
from minit2v.networks import lora

lab.show_source(lora.LowRank)
lab.show_source(lora.attach)

# %% [markdown]
# ## 3 · Convolutions along time
#
# The weight of a temporal convolution has axes (out, in, taps, 1). An adapter of it is again two layers: $A$ is a
# convolution with the same taps to $r$ channels, and $B$ mixes these channels to the outputs, at each place for itself.
# One after the other they are one convolution. With which weight?
#
# ### Exercise 20.2 · conv_change
#
# Difficulty 2/5 · importance 3/5 · 10 minutes
#
# `A` is (r, in, taps, 1), `B` is (out, r, 1, 1). Return the weight (out, in, taps, 1) of the one convolution that does what
# A's and then B's do.
#
# <details><summary>Hint 1</summary>A convolution is linear in each of its inputs: view it as the matrix of its taps,
# (out, in * taps).</details>
# <details><summary>Hint 2</summary><code>A.flatten(1)</code> is (r, in * taps), <code>B.flatten(1)</code> is (out, r).
# Cut the product into the shape of a weight with <code>view</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return (B.flatten(1) @ A.flatten(1)).view(len(B), *A.shape[1:])
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def conv_change(A, B):
    """A (r, in, taps, 1), B (out, r, 1, 1) -> the change of the convolution's weight, (out, in, taps, 1)."""
    ### BEGIN SOLUTION
    return (B.flatten(1) @ A.flatten(1)).view(len(B), *A.shape[1:])
    ### END SOLUTION


# %%
lab.check("20.2", conv_change)

# %% [markdown]
# *What if?* Let $B$ have the taps and $A$ have one. The product has the same shape and the same number of ranks, but a
# rank then reads one moment and writes to several, instead of reading several and writing to one.
#
# ## 4 · How it starts
#
# An adapter on every linear layer and every convolution along time of `mini`:

# %%
import torch

unet, ranks = pipe.unet, (1, 8, 64)
total = sum(p.numel() for p in unet.parameters())
for rank in ranks:
    numbers = sum(p.numel() for p in lora.fresh(unet, rank).parameters())
    print(f"rank {rank:2}: {numbers:9,} numbers, {100 * numbers / total:5.1f} % of the UNet's {total:,}")

# %% [markdown]
# What to see: the numbers grow with the rank. In a layer of 96 × 96, rank 64 takes 64 · 192 = 12,288 numbers, more than the
# layer's own 9,216. Low rank pays only if it is low.
#
# At first the change must be nothing, or the model would be damaged before it learns. So $BA = 0$. What about the
# gradients? With $G = \partial L / \partial W'$ they are
#
# $$\frac{\partial L}{\partial B} = s\,G A^\top, \qquad \frac{\partial L}{\partial A} = s\,B^\top G .$$

# %%
lab.predict("20.b")

# %% [markdown]
# ### Exercise 20.B · start
#
# Difficulty 1/5 · importance 5/5 · 5 minutes
#
# A bug hunt. A colleague has trained an adapter for a night. The loss went up and down and never got better, nothing was
# reported as wrong, and the file that she sends holds only zeros. She starts so:
#
# ```python
# A, B = torch.zeros(r, into), torch.zeros(out, r)
# ```
#
# Mend it.
#
# <details><summary>Hint 1</summary>Put her start into the two gradients above.</details>
# <details><summary>Hint 2</summary>One of the two is enough to make the product zero.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return torch.randn(r, into) / into**0.5, torch.zeros(out, r)
# ```
#
# With both at zero both gradients are zero, and stay so. With A random only the gradient of A is zero, and only in the
# first step.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def start(out, into, r):
    """-> A (r, in), B (out, r) of an adapter that changes nothing yet, and can learn."""
    ### BEGIN SOLUTION
    return torch.randn(r, into) / into**0.5, torch.zeros(out, r)
    ### END SOLUTION
    ### BEGIN STUDENT
    # return torch.zeros(r, into), torch.zeros(out, r)
    ### END STUDENT


# %%
lab.check("20.B", start)

# %% [markdown]
# ## 5 · Train one
#
# The task is that of notebook 09, word for word: noise, a timestep, the squared error. Only the numbers that may change are
# different. On the command line it is
#
# ```
# python scripts/new_shape.py write my-rings
# minit2v train unet --from mini --lora 8 --data my-rings --out runs/ring --budget 10m
# ```
#
# The first line writes 20 drawn clips, and beside them 60 clips of old shapes that `mini` makes itself. These say what is
# to stay: with the new clips alone nothing would tell the adapter that a circle is *not* a square ring. (The idea is
# that of DreamBooth's *prior preservation*.) Ten minutes are too long for a lesson, so we take the first few steps here,
# on the new clips alone, and look at what has changed.

# %%
import tempfile
from pathlib import Path

from minit2v.training.adapter import train_adapter

place = Path(tempfile.mkdtemp())
new_shape.write(place / "my-rings", 20)
few = {"train_steps": str(ctx.pick(fast=2, default=10)), "batch": "2", "rank": "8", "bfloat16": "false"}
train_adapter("mini", place / "ring", settings=few, data=place / "my-rings")
for path in sorted((place / "ring").glob("adapter*")):
    print(path.name)

# %%
from minit2v.checkpoints.adapters import read_adapter

begun = read_adapter(place / "ring", unet)
moved = sum(bool(part.B.any()) for _, part in begun.items())
print(f"layers with an adapter: {len(begun.names)} · of them changed: {moved}")
x = torch.randn(1, 4, 16, 8, 8, generator=ctx.generator(1)).to(ctx.device, pipe.dtype)
t = torch.tensor([500], device=ctx.device)
with torch.inference_mode():
    words = pipe.text.encode([PROMPT])
    before = unet(x, t, words)
    lora.attach(unet, begun)
    adapted = unet(x, t, words)
    lora.detach(unet)
    after = unet(x, t, words)
print(f"attached, it changes the answer: {not torch.equal(adapted, before)}; taken off, the answer is the old one: "
      f"{torch.equal(after, before)}")

# %% [markdown]
# ## 6 · What ten minutes buy
#
# `data/adapters/square-ring` holds an adapter that was trained so. Here is one seed with more and more of it.

# %%
from minit2v.files import data_dir

ready = read_adapter(data_dir() / "adapters/square-ring", unet)
rows = {}
for strength in (0, 0.5, 1, 1.5):
    lora.merge(unet, ready, strength)
    rows[f"strength {strength:g}"] = pipe(PROMPT, seed=0, steps=steps)
    lora.unmerge(unet, ready, strength)
lab.strip(rows, n=6, alt="Four rows of frames of one seed, with strengths 0, 0.5, 1 and 1.5 of the adapter.")

# %% [markdown]
# `merge` adds the change to the weights, so sampling costs nothing more; `unmerge` subtracts it again. In float32 that is
# not bit for bit what it was, as $(w + d) - d$ is rounded twice. `attach` and `detach` never touch $W$.
#
# Did it forget? `scripts/new_shape.py judge` sampled 128 prompts of the old shapes and 128 of the new one, with and
# without the adapter, from the same seeds:

# %%
import json

judged = json.loads((data_dir() / "adapters/square-ring/judged.json").read_text(encoding="utf-8"))
print(f"{'% of ' + str(judged['n']) + ' clips':44}" + "".join(f"{name:>16}" for name in ("shape", "colour", "motion", "all")))
for name, row in judged["rows"].items():
    told = [f"{row[key][0]:.0f} ({row[key][1]:.0f} to {row[key][2]:.0f})" for key in ("shape", "colour", "motion", "all")]
    print(f"{name:44}" + "".join(f"{text:>16}" for text in told))

# %% [markdown]
# How to read it: the two rows of drawn clips are what the judge finds in clips that are right, and in the same after the
# autoencoder: no model in these latents can do better. Compare the rows with and without the adapter, for the new shape
# and for the old ones, and look at the intervals before you call a difference one.
#
# ## 7 · How many ranks did it use?
#
# We have asked for rank 8. Was that too little, or more than needed? Every matrix is a sum of matrices of rank 1, each a
# column of length 1 times a row of length 1, orthogonal to the others', times a number $\sigma_i \ge 0$. These numbers are its
# **singular values**, and the sum of their squares is that of all its entries. The best approximation of a matrix by one of
# rank $r$ keeps its $r$ largest singular values (Eckart and Young), and the share of the matrix that it keeps is the share of
# their squares.
#
# ### Exercise 20.3 · ranks_needed
#
# Difficulty 3/5 · importance 4/5 · 10 minutes
#
# The least $r$ for which a matrix of rank $r$ can keep at least the `share` of `D`, measured by squares.
#
# <details><summary>Hint 1</summary><code>torch.linalg.svdvals(D)</code> gives the singular values, the largest
# first.</details>
# <details><summary>Hint 2</summary>Square them, <code>cumsum</code>, divide by the sum. How many of these numbers are
# still below the share?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# energy = torch.linalg.svdvals(D) ** 2
# kept = energy.cumsum(0) / energy.sum()
# return int((kept < share).sum()) + 1
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def ranks_needed(D, share):
    """D (out, in), share above 0 and below 1 -> the least r for which a matrix of rank r can keep that share of D."""
    ### BEGIN SOLUTION
    energy = torch.linalg.svdvals(D) ** 2
    kept = energy.cumsum(0) / energy.sum()
    return int((kept < share).sum()) + 1
    ### END SOLUTION


# %%
lab.check("20.3", ranks_needed)

# %%
count = lab.yours("20.3")
with torch.no_grad():
    products = {name: part.B @ part.A for name, part in ready.items()}
used = {name: count(D, 0.9) for name, D in products.items()}
for r in range(1, 9):
    print(f"{sum(one == r for one in used.values()):3} of {len(used)} layers need {r} of 8 ranks for nine tenths of their change")

# %% [markdown]
# What to see: where most layers need few of their ranks, a smaller one would have done, and where they need all, more
# might help. Which layers changed most?

# %%
sizes = {name: D.norm().item() / unet.get_submodule(name).weight.norm().item() for name, D in products.items()}
for name in sorted(sizes, key=sizes.get)[-5:][::-1]:
    print(f"{name:52} change {100 * sizes[name]:5.1f} % of the weight")

# %% [markdown]
# *What if?* Train with rank 64 and cut each product to the ranks that it needs. The result is smaller than rank 8 in some
# layers and larger in others. Methods that choose ranks while they train (AdaLoRA) do this on the way.
#
# ## 8 · Other people's adapters
#
# Adapters travel as small files, and every program names their tensors in its own way: `lora_A`, `lora_down`, `lora.down`,
# `to_q_lora`, with dots or with `_`, or with numbers alone. [docs/adapters.md](../docs/adapters.md) has the table. Three
# things go wrong when such a file is read, and none of them raises an error by itself:
#
# - `alpha` is not read, and the change is $r/\alpha$ times what it should be: with $\alpha = 4$ and $r = 8$ twice as strong;
# - a part of the file is passed over: the text tower's half, or a kind of layer that the reader does not know;
# - the file belongs to another model of the same sizes.
#
# The library reads `alpha`, and refuses what it cannot add as it was trained. The third mistake it cannot see: read in the
# card which model the adapter is for.

# %%
from safetensors.torch import save_file

from minit2v.errors import UserError

name = "lora_unet_down_blocks_1_attentions_0_proj_in"
good = {f"{name}.lora_down.weight": torch.ones(2, 96), f"{name}.lora_up.weight": torch.ones(96, 2)}
strange = {
    "for the text tower too": {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 8)},
    "another kind": {f"{name}.dora_scale": torch.ones(96)},
    "of another size": {f"{name}.lora_down.weight": torch.ones(2, 320)},
}
for title, tensors in strange.items():
    save_file(good | tensors, place / "strange.safetensors")
    try:
        read_adapter(place / "strange.safetensors", unet)
    except UserError as error:
        print(f"{title}: {str(error).partition(': ')[2] or error}".replace(str(place), "…"))

# %% [markdown]
# And a licence is not in the matrices. An adapter is made of somebody's model and somebody's clips; who publishes one
# says both. `minit2v push` asks for a licence, and writes base model and data sets into the card.
#
# ## Takeaways
#
# 1. A change of low rank, $W + \frac{\alpha}{r} BA$, holds what is new in less than a tenth of the numbers (rank 8). A
#    convolution is the matrix of its taps.
# 2. One of the two matrices starts at zero, so that nothing is damaged; the other must not, or nothing is learnt.
# 3. Measure the old along with the new, with intervals. Take the adapter off, and what it made the model forget is back; a
#    model that was trained further has no way back.
#
# ## Quiz

# %%
lab.quiz(20)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(20)

# %% [markdown]
# ## Further reading
#
# - Hu and others, [LoRA](https://arxiv.org/abs/2106.09685), section 4: the idea, and section 7: which layers, which rank.
# - Kalajdzievski, [rsLoRA](https://arxiv.org/abs/2312.03732): why the scale should be $\alpha/\sqrt r$ for large ranks.
# - Aghajanyan and others, [Intrinsic dimensionality](https://arxiv.org/abs/2012.13255), section 3: how few directions a
#   fine-tuning needs.
# - Guo and others, [AnimateDiff](https://arxiv.org/abs/2307.04725), section 4.3: adapters of temporal layers alone, which
#   teach a camera motion.
#
# **Next:** your own clips. [docs/adapters.md](../docs/adapters.md) has the commands, from a folder of videos to the hub.
