# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Squeezing frames: the autoencoder
#
# **Why diffusion never sees a pixel: a frame becomes a tiny picture of numbers, and comes back nearly unharmed.**
#
# **You will**
# - take a frame to its latents and back, and measure the damage in decibels
# - change one number of a latent and watch which pixels answer
# - compute the scale factor that every model of this family carries around
# - build a codebook: nearest code, straight-through gradient, and the price of a code
# - find a missing `detach` that switches off an encoder without an error
#
# **You need** [01 · Video is a tensor](01_video_is_a_tensor.ipynb): folds, and the range [-1, 1]. From PyTorch:
# `requires_grad`, `backward`, and what a convolution does.
#
# **Time** reading 15 minutes · running 5 to 60 seconds (fast mode the same) · exercises 25 minutes

# %%
from minit2v import lab

ctx = lab.setup(2)

# %% [markdown]
# ## 1 · How much of a frame is worth keeping?
#
# A frame of our little world has 64 × 64 pixels of three colours: 12,288 numbers. Nearly all of them say "dark, like
# my neighbour". To describe the frame over the telephone, you would need a dozen words. A network that must predict
# 12,288 numbers sixteen times per video, twelve or fifty times in a row, spends nearly all its effort on saying
# "dark" correctly.
#
# So the first thing that a *latent* diffusion model does is to get rid of what can be got rid of. Let us take some
# frames that no network was trained on, one from the middle of each of sixteen clips.

# %%
import torch
import torch.nn.functional as F

from minit2v.datasets.moving_things import MovingThings
from minit2v.pixels import to_signed

pixels = MovingThings("val").batch(range(16))[0][:, 8]  # uint8 (n, H, W, 3)
frames = to_signed(torch.from_numpy(pixels))  # (n, H, W, 3) -> (n, 3, H, W) in [-1, 1]
print("frames (n, 3, H, W):", tuple(frames.shape), f"from {frames.min():.2f} to {frames.max():.2f}")
lab.sheet(pixels[:12], columns=6, alt="Twelve frames: each has one coloured shape on a dark ground.")

# %% [markdown]
# What to see: one thing in each frame, and a lot of nothing.
#
# Here is the simplest way to squeeze: average blocks of 8 × 8 pixels into one, and blow the result up again. It keeps
# 8 · 8 · 3 = 192 numbers a frame.
#
# To compare ways of squeezing we need one number for the damage. The usual one is the **PSNR**, in decibels: how much
# larger the whole range of a pixel is than the typical error, on a logarithmic scale. Ten decibels more mean a tenth of
# the squared error. Below 20 you see the damage at once; beyond 35 you have to look for it.

# %%
def psnr(x, y):
    """Peak signal-to-noise ratio of two tensors in [-1, 1], in decibels; the range has length 2, its square is 4."""
    return 10 * torch.log10(4 / F.mse_loss(x, y.clamp(-1, 1))).item()


blocks = F.avg_pool2d(frames, 8)  # (n, 3, H, W) -> (n, 3, 8, 8)
averaged = F.interpolate(blocks, scale_factor=8.0, mode="bilinear")
print(f"192 numbers a frame by averaging: {psnr(frames, averaged):.0f} dB")

# %% [markdown]
# And this is what the shipped autoencoder makes of it. It also has a grid of 8 × 8 cells, with four numbers in each
# instead of three: 256 numbers a frame, called **latents**. The four are not colours. Training chose them so that a
# *decoder* can draw the frame from them.

# %%
autoencoder = ctx.pipe.autoencoder.cpu()  # small enough to stay where the frames are
with torch.no_grad():
    latents = autoencoder.encode(frames)
    decoded = autoencoder.decode(latents)
print("frames", tuple(frames.shape), "-> latents (n, c, h, w)", tuple(latents.shape), "-> frames", tuple(decoded.shape))
print("numbers a frame:", frames[0].numel(), "->", latents[0].numel())
print(f"256 numbers a frame by the autoencoder: {psnr(frames, decoded):.0f} dB")

# %%
some = slice(1, 5)  # four of the sixteen
lab.strip(
    {"frames": frames[some], "192 averages": averaged[some], "256 latents": decoded[some]},
    n=4,
    alt="Three rows of four frames: shapes; coloured fog in their places; and the shapes again, hardly changed.",
)

# %% [markdown]
# What to see: averaging leaves coloured fog. The autoencoder keeps the edges, with a third more numbers. Where did the
# edges come from? Not from the numbers alone. The *decoder* knows what edges look like, and the numbers say only where
# and which. That is the trade: knowledge moves out of the data and into the weights.
#
# ## 2 · What does one number of a latent do?
#
# Before you touch the widget, a guess. A latent cell stands where 8 × 8 pixels stand. You change one of its four
# numbers a little.

# %%
lab.predict(
    "Where in the decoded frame is most of the change?",
    "3 x 3 cells around",
    choices=["its 8 x 8 pixels", "3 x 3 cells around", "the whole frame"],
)

# %%
lab.LatentPeek(autoencoder, pixels[4], name="latent-peek")

# %% [markdown]
# Choose a cell with the arrow keys, on the edge of the ring for a start, and change its number with + and −. Try other
# channels too. (For every change this widget asks the network, so it needs a running kernel. Without one you see one
# recorded edit, the one that changes most.)
#
# What to see: a change is strongest around the cell, on more than its own pixels, and glows faintly along the whole
# outline. In channel 1 (top right), raise the cell that was selected at the start to +9: the ring breaks open there, and
# its two ends turn white. The rest of the ring keeps its colour and its place, and nearly all of the ground stays dark.
#
# Now with numbers, and for all sixteen frames. In each we add 1 to one number of the cell that is least like the
# background, decode, and ask how far away the change is.

# %%
background = latents.flatten(2).median(dim=2).values[:, :, None, None]  # (n, c, 1, 1)
cell = (latents - background).abs().sum(dim=1).flatten(1).argmax(dim=1)  # (n,), the cell least like it
row, column = cell // 8, cell % 8
edited = latents.clone()
edited[torch.arange(16), 0, row, column] += 1.0
with torch.no_grad():
    change = (autoencoder.decode(edited) - decoded).abs().sum(dim=1)  # (n, H, W)

place = torch.arange(64) // 8  # the row, or column, of cells in which a pixel lies
away = torch.maximum((place[:, None] - row[:, None, None]).abs(), (place - column[:, None, None]).abs())  # (n, H, W)
for cells in range(4):
    near = away <= cells
    print(f"up to {cells} cells away: {change[near].sum() / change.sum():.0%} of the change "
          f"in {near.float().mean():.0%} of the picture")  # fmt: skip

# %% [markdown]
# Most of the change is in 3 × 3 cells, a seventh of the picture. The rest is spread thinly over all of it. Nothing in
# the network *forces* the change to stay near: the decoder's nine convolutions of 3 × 3 at the smallest size together
# reach across the frame, and its normalisations average over the whole of it. Training made it so.
#
# And if a thing moves? Convolutions treat every place alike. So a thing that moves 8 pixels should move one cell.

# %%
with torch.no_grad():
    moved = autoencoder.encode(frames.roll(8, dims=3))  # every frame 8 pixels to the right
for name, guess in (("moved latents", latents.roll(1, dims=3)), ("unmoved latents", latents)):
    error = (moved - guess).square().mean() / latents.var()
    print(f"latents of moved frames against {name}: within 5 % of the variance:", error.item() < 0.05)

# %% [markdown]
# Remember this, the whole course rests on it: *left* in the latents is *left* in the picture, and what moves in the
# video moves in the latents as well. A latent is a small picture. That is why a UNet, a network for pictures, can work
# on latents and need never see a pixel.
#
# ### The two halves
#
# The encoder halves the picture three times, so 64 becomes 8. At every size residual blocks look at a neighbourhood.
# The decoder is the same way back, with one block more at each size. Both are a dozen lines:

# %%
lab.show_source(type(autoencoder.encoder))

# %%
factor = autoencoder.config.factor
print("pixels per latent cell along a side:", factor, "= 2 **", len(autoencoder.config.multipliers) - 1)
print("mini:", f"{sum(p.numel() for p in autoencoder.parameters()):,}", "parameters")

# %% [markdown]
# The autoencoder of the released model has 83,653,863 parameters and is the same class. It turns 256 × 256 pixels into
# 32 × 32 cells: the same factor of 8, the same four channels. And it works on one frame at a time. A clip
# (b, c, f, H, W) is folded to ((b f), c, H, W) before and unfolded after, as you did by hand in notebook 01. Nothing in
# it knows that time exists.
#
# ## 3 · The scale factor
#
# Diffusion adds noise of deviation 1. How much that hurts depends on how large the latents are: it drowns latents of
# size 0.1, and hardly touches latents of size 10. So the models of this family multiply their latents by a constant
# that brings their deviation to 1:
#
# $$s = \frac{1}{\mathrm{std}(z)} \qquad (2.1)$$
#
# In Stable Diffusion, and in ModelScopeT2V which took over its autoencoder, it is the famous **0.18215**. The number
# has no deeper meaning: somebody measured it once, on one batch of latents. But from then on it belongs to the weights.
#
# Open-Sora once took another autoencoder, whose factor is 0.13025, and forgot to change the 0.18215 that was written
# into many places of its code ([issue 493](https://github.com/hpcaitech/Open-Sora/issues/493)). Nothing crashed. The
# next network was trained on latents that were 40 % too large. The authors' advice when it was found: whoever uses
# those weights must keep the wrong number. The weights have got used to it.
#
# What does noise do to our latents? We add it in growing size, decode, and measure.

# %%
sizes = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
noise = torch.randn(latents.shape, generator=ctx.generator())
with torch.no_grad():
    noisy = {size: autoencoder.decode(latents + size * noise) for size in sizes}
damage = [psnr(frames, noisy[size]) for size in sizes]
lab.curves(
    {"decoded from noisy latents": (sizes, damage)}, xlabel="deviation of the noise", ylabel="PSNR in dB", logx=True,
    alt="A falling curve: noise of a twentieth of the latents' deviation costs little, noise of their own size leaves "
    "about 20 decibels.",
)  # fmt: skip

# %%
print("the latents' own deviation is about 1:", 0.8 < latents.std().item() < 1.3)
print("noise of 0.05 costs less than 2 dB:", psnr(frames, decoded) - damage[1] < 2)
print("noise of 1 leaves less than 25 dB:", damage[5] < 25)
lab.strip(
    {f"noise {size:g}": noisy[size][some] for size in (0.05, 0.2, 0.5, 1.0)},
    n=4,
    alt="Four rows with more and more noise: unharmed shapes; a disc with corners; a disc that turns purple, and "
    "first crumbs; dented things and crumbs everywhere.",
)

# %% [markdown]
# What to see: a little noise does no harm. At 0.2 the blue disc gets corners, at 0.5 it is dented and half purple, and
# at 1 it is pink and the ground is full of crumbs of things. Note that no frame shows *snow*. Noise on latents looks
# like wrong things, because the decoder can draw nothing else.
#
# Diffusion needs both ends of the curve, and more: a first step at which almost nothing of the frame is left, and a
# last step that hardly matters. The schedule of the released model goes from noise 15 times as large as the latents
# down to 0.03 times, *if* their deviation is 1.
#
# ### Exercise 2.1 · the scale factor
#
# Difficulty 1/5 · importance 4/5 · 6 minutes
#
# Write `rescaled(latents, per_channel=False)` for latents (n, c, h, w). By default *one* factor brings all numbers
# together to deviation 1, and nothing is subtracted: so does the 0.18215 of the released model. With
# `per_channel=True` every channel gets mean 0 and deviation 1 of its own: so does `mini`.
#
# <details><summary>Hint 1</summary><code>latents.std()</code> looks at all numbers together.</details>
# <details><summary>Hint 2</summary>For the channels, take mean and deviation over the axes 0, 2 and 3, with
# <code>keepdim=True</code> so that they broadcast.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# if not per_channel:
#     return latents * (1 / latents.std())
# mean, std = latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)
# return (latents - mean) / std
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def rescaled(latents, per_channel=False):
    """Latents (n, c, h, w) brought to deviation 1 by one factor, or every channel to mean 0 and deviation 1."""
    ### BEGIN SOLUTION
    if not per_channel:
        return latents * (1 / latents.std())
    mean, std = latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)
    return (latents - mean) / std
    ### END SOLUTION


# %%
lab.check("2.1", rescaled)

# %% [markdown]
# *What if?* One constant leaves the differences between channels alone. If one channel is twice as large as another,
# which of the two does noise destroy first? Keep your answer for notebook 05.
#
# The configuration of `mini` says that its factor is 1. Where is its normalisation, then? In the weights. The last
# layer before the latents is linear, so it can swallow "subtract the mean, divide by the deviation". The first layer
# behind them swallows the inverse. No reconstruction changes:

# %%
from minit2v.training.autoencoder import AutoencoderTask

lab.show_source(AutoencoderTask.normalise)

# %% [markdown]
# ## 4 · The first bottleneck: a small cloud instead of a point
#
# Squeezing is one half of the job. The other half: latents must be a *pleasant place* for diffusion, without gaps in
# which the decoder has never been. Diffusion will never hit a latent exactly. The released weights prepare for that
# with a **Gaussian** bottleneck. The encoder answers with two tensors, a mean $\mu$ and the logarithm of a variance
# $\sigma^2$, and in training the decoder gets a sample from that small cloud:
#
# $$z = \mu + \sigma\,\varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, 1) \qquad (2.2)$$
#
# A decoder that must cope with every point of the cloud learns a smooth map. But the encoder could cheat, and make
# $\sigma$ zero. A second term of the loss, the KL divergence, pulls each cloud gently towards mean 0 and deviation 1,
# where it vanishes:
#
# $$\mathrm{KL} = \tfrac12\left(\mu^2 + \sigma^2 - 1 - \log \sigma^2\right) \qquad (2.3)$$

# %%
with torch.no_grad():
    moments = autoencoder.features(frames)
    mean, logvar = moments.chunk(2, dim=1)
    sigma = (0.5 * logvar).exp()
    sampled = autoencoder.decode(mean + sigma * noise)
print("moments (n, 2c, h, w):", tuple(moments.shape), "-> mean and log-variance", tuple(mean.shape))
print("the clouds are small, mean sigma below 0.1:", sigma.mean().item() < 0.1)
print("decoding a sample instead of the mean costs less than 1 dB:", psnr(frames, decoded) - psnr(frames, sampled) < 1)
kl = (0.5 * (mean**2 + sigma**2 - 1 - logvar)).mean()
print("our KL is the library's:", torch.allclose(kl, autoencoder.bottleneck.kl(moments).mean(), rtol=1e-4))
lab.show_source(type(autoencoder.bottleneck).forward)

# %% [markdown]
# The clouds are small. The pull of the KL term is weak here, as in the released model, and a cloud is hardly more than
# a point with a soft edge. "Variational autoencoder", the name of this construction, sounds as if one could draw
# latents from the standard normal distribution and decode pictures. Try it:

# %%
with torch.no_grad():
    dreams = autoencoder.decode(torch.randn(6, 4, 8, 8, generator=ctx.generator()))
lab.strip(dreams, n=6, alt="Six dark frames, full of scattered coloured crumbs, without any whole shape.")

# %% [markdown]
# What to see: crumbs in bright colours, and not one thing. The decoder does know its colours, but 64 cells drawn one by
# one have not agreed on anything. To make them agree is the work of the diffusion model.
#
# ## 5 · The second bottleneck: a codebook
#
# The paper calls its autoencoder a **VQGAN**. VQ is vector quantisation: there is a book of K *codes*, vectors of four
# numbers, and every latent vector $e$ is replaced by its nearest code $q$:
#
# $$q = c_k, \qquad k = \mathrm{argmin}_j\,\lVert e - c_j\rVert \qquad (2.4)$$
#
# A frame is then 64 entries of a book. (The weights that were released have no codebook. A paper and its weights are
# two different things, and this library says so where it matters.)
#
# Our autoencoder was trained without one, but nothing keeps us from *laying* a codebook over its latents. `Codebook`
# moves each code towards the mean of the vectors that chose it, which takes no gradient. To be honest about quality, we
# lay the book over frames of the training set and judge it on our sixteen.

# %%
from minit2v.networks.bottleneck import Codebook

others = torch.from_numpy(MovingThings("train").batch(range(32))[0][:, ::4]).flatten(0, 1)  # 32 clips, 4 frames each
with torch.no_grad():
    others = autoencoder.encode(to_signed(others))  # (128, c, h, w)
books, through = {}, {}
for codes in (8, 32, 128, 512):
    torch.manual_seed(0)
    books[codes] = Codebook(codes, 4)
    books[codes].decay = 0.9  # every step sees the same vectors, so a short memory is enough
    for _ in range(60):
        books[codes](others)
    with torch.no_grad():
        through[codes] = autoencoder.decode(books[codes].quantize(latents))
quality = [psnr(frames, through[codes]) for codes in books]
lab.curves(
    {"with a codebook": (list(books), quality), "without": (list(books), [psnr(frames, decoded)] * 4)},
    xlabel="codes in the book", ylabel="PSNR in dB", logx=True,
    alt="A curve of quality over the logarithm of the number of codes that rises less and less, below a level line for "
    "the autoencoder without a codebook.",
)  # fmt: skip

# %%
print("bits a frame:", {codes: 64 * (codes.bit_length() - 1) for codes in books})
print("without a codebook, float32:", 256 * 32, "· pixels, one byte a colour:", 12_288 * 8)
print("each of these books is better than the one before:", all(a < b for a, b in zip(quality, quality[1:])))
lab.strip(
    {f"{codes} codes": through[codes][some] for codes in books},
    n=4,
    alt="Four rows. With 8 codes dented things in the right places, the yellow ones in green; with 512 codes the "
    "right shapes and colours, with slightly uneven edges.",
)  # fmt: skip

# %% [markdown]
# What to see: twice as many codes cost one bit more in each cell, and buy less and less: between 8 and 32 codes nearly
# four decibels, between 128 and 512 little more than one. In the pictures, the *place* survives even eight codes.
# Colours and outlines are what the further bits are spent on. With 512 codes a frame is 576 bits, 170 times fewer than
# its pixels, and you recognise every shape. Nothing is free in compression; one only chooses what to pay with.

# %%
lab.CodebookPicker(books[32], latents[some], decode=autoencoder.decode, name="codebook-picker")

# %% [markdown]
# Walk over the frame with the arrow keys and watch the list of nearest codes. (The plane shows two of four dimensions;
# the distances in the list are those of all four, so the two sometimes disagree.)
#
# What to see: a handful of codes share the dark ground, and most of the book is for the few cells with a thing in them.
# The bars below are as unequal as words in a language. Notebook 03 makes a number of that, *perplexity*, and shows how
# a book collapses to a few codes.
#
# ### Exercise 2.2 · nearest code
#
# Difficulty 2/5 · importance 4/5 · 6 minutes
#
# Write `nearest(vectors, codes)`: vectors (m, c), codes (K, c), result (m,), the index of the nearest code of each
# vector. No loop over vectors. Ties go to the lower index.
#
# <details><summary>Hint 1</summary>You need all m × K distances. Squared distances have the same winner.</details>
# <details><summary>Hint 2</summary><code>(vectors[:, None] - codes[None]).pow(2).sum(-1)</code> has the shape (m, K);
# then <code>argmin(dim=1)</code>. The library avoids the large tensor by |v − e|² = |v|² − 2 v·e + |e|², in which |v|²
# is the same for all codes.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return (vectors[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def nearest(vectors, codes):
    """Index of the nearest code: vectors (m, c), codes (K, c) -> (m,)."""
    ### BEGIN SOLUTION
    return (vectors[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)
    ### END SOLUTION


# %%
lab.check("2.2", nearest)

# %% [markdown]
# *What if?* Take the largest dot product instead of the smallest distance. For codes of one length that is the same
# thing. For ours, a few long codes would win nearly everything.
#
# ## 6 · A gradient through a choice
#
# Our book was laid over a finished autoencoder. If encoder and book are to be trained together, the encoder needs a
# gradient, and `argmin` has none to give. Move a vector a little, and the chosen code stays the same: the derivative is
# zero. Move it over a border, and the code jumps. The way out is as bold as it is short. In the forward pass, use the
# code. In the backward pass, pretend that nothing happened, and hand the decoder's gradient to the encoder as it is.
# This is the **straight-through** estimator:
#
# $$z = e + \mathrm{sg}(q - e) \qquad (2.5)$$
#
# Here sg means stop gradient, which is `detach` in PyTorch. Forwards, $e$ cancels and $q$ is left. Backwards, the
# bracket is a constant, and $e$ is left.

# %%
features = torch.tensor([0.75, -0.25], requires_grad=True)
code = torch.tensor([1.0, 0.0])
quantised = features + (code - features).detach()
(3 * quantised[0] - quantised[1]).backward()
print("forwards:", quantised.tolist(), "· backwards:", features.grad.tolist())

# %% [markdown]
# Forwards the code, backwards the gradient (3, −1), as if there had been no choice. In the library it is one line of
# the codebook's training pass, the one tagged (2.5). (The commitment loss above it belongs to notebook 03.)

# %%
lab.show_source(Codebook.forward)

# %% [markdown]
# ### Exercise 2.3 · straight through
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write `quantise(features, codes)`: features (m, c) with a gradient, codes (K, c). Return a tensor (m, c) whose
# *values* are the nearest codes and whose *gradient* with respect to the features is the identity. The codes get no
# gradient. The check compares with autograd.
#
# <details><summary>Hint 1</summary>You may use your own <code>nearest</code>:
# <code>codes[nearest(features, codes)]</code>.</details>
# <details><summary>Hint 2</summary>What must be constant for the backward pass: the code, or the <em>difference</em>
# between code and feature?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# chosen = codes[(features[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)]
# return features + (chosen - features).detach()
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def quantise(features, codes):
    """The nearest codes (m, c) of features (m, c), with the gradient of the identity."""
    ### BEGIN SOLUTION
    chosen = codes[(features[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)]
    return features + (chosen - features).detach()
    ### END SOLUTION


# %%
lab.check("2.3", quantise)

# %% [markdown]
# *What if?* Return the chosen codes without any trick and call `backward` on their sum. What does PyTorch say? Then
# imagine the same in a large network in which *other* paths have a gradient: it would say nothing.
#
# ## 7 · Reconstructed perfectly, and still hard to model
#
# A good reconstruction is not all that one wants of a latent space. The first autoencoder that we trained for `mini`
# reconstructed so well that nobody could tell its frames from the drawn ones. A diffusion model on its latents still
# mixed up colours, and colours changed within a clip. What it made of our sixteen frames is recorded. How well does each
# reconstruct them, and where does it keep its colours?
#
# For the colours there is a large square in each of the eight, on the ground of the frames. We encode the squares and take
# the latent in the middle of each: four numbers for each colour. (Those of the first autoencoder are recorded, too.)

# %%
import numpy as np

from minit2v.files import data_dir

with np.load(data_dir() / "runs/first-autoencoder.npz") as kept:
    first = {name: torch.from_numpy(kept[name]) for name in kept.files}
with torch.no_grad():
    latents_of = {"first": first["latents"], "shipped": autoencoder.encode(to_signed(first["squares"]))}
quality_of = {"first": psnr(frames, to_signed(first["frames"])), "shipped": psnr(frames, decoded)}
for name, z in latents_of.items():
    middle = z[:, :, 4, 4]
    variances = torch.linalg.eigvalsh(torch.cov(middle.T))
    print(f"{name:8} {quality_of[name]:.0f} dB · {variances[-1] / variances.sum():6.1%} of what tells colours apart "
          "lies on one axis")  # fmt: skip

# %% [markdown]
# What to see: both are beyond 35 dB. But the first one wrote all colours onto one line, as if they were degrees of
# brightness; the shipped one uses other axes too. One line is no mistake for a decoder, which can tell 1.0 from 1.2
# very well. It is one for a diffusion model, whose latents are never quite right. Make every latent a fifth smaller, or a
# quarter larger, and look:

# %%
rows = {f"first, times {factor}": to_signed(first[f"decoded, times {factor}"]) for factor in (0.8, 1.0, 1.25)}
with torch.no_grad():
    for factor in (0.8, 1.0, 1.25):
        rows[f"shipped, times {factor}"] = autoencoder.decode(factor * latents_of["shipped"])
lab.strip(rows, n=8, alt="Six rows of eight squares. The first autoencoder: scaled by 0.8 or by 1.25, most "
          "squares change their colour. The shipped one: all keep their colour.")

# %% [markdown]
# What to see: with the first autoencoder an error of *size* is another *colour*. The shipped one was trained with two
# additions that have nothing to do with reconstruction: the mean colour of a patch must be readable from its latent by a
# single linear layer, and the decoder must bear a little noise. Both draw good frames, but only the latents of the shipped
# one forgive small errors.
#
# The library measures it before a UNet is trained on latents: `minit2v evaluate --part autoencoder`.
#
# ## 8 · A bug hunt
#
# A published repository has this line in its quantiser (rewritten here, with the same bug). The author knew about
# straight-through and wrote nearly the right thing. To see what it does, we train a tiny linear encoder for forty
# steps, so that the codes of its features come near a target.


# %%
def broken_quantise(features, codes):
    """Codes forwards; and backwards?"""
    chosen = codes[(features[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)]
    return features + (chosen - features)


def losses(quantiser, steps=40):
    """The loss of a linear encoder that is trained through a quantiser."""
    generator = torch.Generator().manual_seed(2)
    inputs, codes = torch.randn(64, 3, generator=generator), torch.randn(16, 2, generator=generator)
    target = inputs[:, :2]
    weight = torch.zeros(3, 2, requires_grad=True)
    curve = []
    for _ in range(steps):
        loss = F.mse_loss(quantiser(inputs @ weight, codes), target)
        weight.grad = None
        loss.backward()
        with torch.no_grad():
            weight -= 0.3 * weight.grad
        curve.append(loss.item())
    return curve


# %%
from minit2v.lab.course.checks.nb02 import quantise as right_quantise

curves = {"straight through": losses(right_quantise), "broken": losses(broken_quantise)}
lab.curves(
    {name: (range(len(curve)), curve) for name, curve in curves.items()}, xlabel="step", ylabel="loss",
    alt="Two curves of the loss: with straight through it falls to a quarter within five steps and then creeps up; "
    "the broken one is level.",
)  # fmt: skip

# %%
features = torch.randn(5, 2, generator=ctx.generator()).requires_grad_()
codes = torch.randn(16, 2, generator=ctx.generator())
same = torch.equal(broken_quantise(features, codes), right_quantise(features, codes))
print("forwards, broken and right agree:", same)

# %% [markdown]
# What to see: the broken version learns nothing at all, although its forward pass is right to the last digit and every
# test of *values* passes. In a whole VQGAN the loss does fall, because the decoder still learns, and reconstructions
# get better for a while. Only the encoder never hears how they turned out.
#
# (And why does the right one creep up again after step 5? Nothing ties the features to their codes, and they drift
# away. Notebook 03 adds the tie and calls it commitment.)
#
# ### Exercise 2.B · a test that would have found it
#
# Difficulty 2/5 · importance 5/5 · 5 minutes
#
# You see which word is missing. But what *is* the gradient of `features + (chosen - features)` with respect to the
# features? Write `encoder_gradient(quantiser)`, a test for any quantiser. It makes features and codes of its own, and
# returns True if the gradient of `quantiser(features, codes).sum()` with respect to the features is 1 everywhere, and
# False otherwise, also if there is no gradient at all.
#
# <details><summary>Hint 1</summary>The derivative of e + (q − e) with respect to e is 1 − 1. Zero is a gradient too:
# PyTorch does not complain.</details>
# <details><summary>Hint 2</summary><code>torch.autograd.grad(out.sum(), features, allow_unused=True)</code> gives a
# tuple with a tensor or None. If the output needs no gradient, it raises; ask <code>out.requires_grad</code>
# first.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# features = torch.randn(7, 3).requires_grad_()
# out = quantiser(features, torch.randn(5, 3))
# if not out.requires_grad:
#     return False
# (gradient,) = torch.autograd.grad(out.sum(), features, allow_unused=True)
# return gradient is not None and bool(torch.allclose(gradient, torch.ones_like(gradient)))
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def encoder_gradient(quantiser):
    """Whether quantiser(features, codes) hands its gradient to the features unchanged."""
    ### BEGIN SOLUTION
    features = torch.randn(7, 3).requires_grad_()
    out = quantiser(features, torch.randn(5, 3))
    if not out.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(out.sum(), features, allow_unused=True)
    return gradient is not None and bool(torch.allclose(gradient, torch.ones_like(gradient)))
    ### END SOLUTION


# %%
lab.check("2.B", encoder_gradient)

# %% [markdown]
# The original is [EfficientFi, issue 4](https://github.com/NTU-AIoT-Lab/EfficientFi/issues/4), found by a reader. The
# moral is not "never forget `detach`". It is that a function has two halves, values and gradients, and that a test of
# one says nothing about the other.
#
# ## Takeaways
#
# 1. The autoencoder turns 12,288 pixel values into 256 latent numbers, frame by frame. The decoder's weights know what
#   edges look like; the latents say where.
# 2. Latents are a small picture: cells keep their place, so a UNet can work on them. They are brought to deviation 1 by
#   a factor that belongs to the weights.
# 3. Two bottlenecks make latents a pleasant place: a small Gaussian cloud, as in the released weights, or a codebook
#   with straight-through gradients, as in the paper.
#
# ## Quiz

# %%
lab.quiz(2)

# %% [markdown]
# ## Equations, code and tests
#
# Each equation, the paper it comes from, the line of the library that computes it, and the test that would fail if that
# line were wrong.

# %%
lab.equations(2)

# %% [markdown]
# ## Further reading
#
# - [Latent Diffusion](https://arxiv.org/abs/2112.10752), section 3.1 and appendix G: both bottlenecks, and the sentence
#   from which the scale factor comes.
# - [Neural Discrete Representation Learning](https://arxiv.org/abs/1711.00937), sections 3.1 and 3.2: the codebook and
#   the straight-through trick, on two pages.
# - [Taming Transformers](https://arxiv.org/abs/2012.09841), section 3.1: why a discriminator joins in; that is the next
#   notebook.
#
# **Next:** [03 · Training a tiny VQGAN](03_training_a_tiny_vqgan.ipynb), where you train one yourself.
