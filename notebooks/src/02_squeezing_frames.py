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
# - find the axes along which latents keep their colours, and turn a yellow ring blue
# - find a bug that switches off an encoder without an error
#
# **You need** [01 · Video is a tensor](01_video_is_a_tensor.ipynb): folds, and the range [-1, 1]. From PyTorch:
# `requires_grad`, `backward`, and what a convolution does.
#
# **Time** reading 22 minutes · running 5 to 60 seconds (fast mode the same) · exercises 45 minutes

# %%
from minit2v import lab

ctx = lab.setup(2)

# %% [markdown]
# ## 1 · How much of a frame is worth keeping?
#
# A frame of our little world has 64 × 64 pixels of three colours: 12,288 numbers. Nearly all of them say "dark, like
# my neighbour". To describe the frame over the telephone, you would need a dozen words. A diffusion model has to predict
# every number of its input, for sixteen frames at once, and it does so again at each of a dozen or fifty steps. If its
# input is pixels, it spends nearly all its effort on saying "dark" correctly.
#
# So the first thing that a *latent* diffusion model does is to get rid of what it can do without. Let us take some
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
# Here is the simplest way to squeeze a frame: average each block of 8 × 8 pixels into one, and blow the result up again.
# This keeps 8 · 8 · 3 = 192 numbers of a frame.
#
# To compare ways of squeezing we need one number for the damage. The usual one is the **PSNR**, the peak signal-to-noise
# ratio. It compares the whole range of a pixel with the typical error, on a logarithmic scale, in decibels (dB). If every
# pixel is wrong by a tenth of the range, the PSNR is 20 dB. If it is wrong by a hundredth, the PSNR is 40 dB. Ten decibels
# more mean a tenth of the squared error. Below 25 dB you see the damage at once, and beyond 35 dB you have to look for it.

# %%
def psnr(x, y):
    """Peak signal-to-noise ratio of two tensors in [-1, 1], in decibels; the range has length 2, its square is 4."""
    return 10 * torch.log10(4 / F.mse_loss(x, y.clamp(-1, 1))).item()


blocks = F.avg_pool2d(frames, 8)  # (n, 3, H, W) -> (n, 3, 8, 8)
averaged = F.interpolate(blocks, scale_factor=8.0, mode="bilinear")
print(f"192 numbers a frame by averaging: {psnr(frames, averaged):.0f} dB")

# %% [markdown]
# Now the shipped autoencoder. It consists of two networks: an *encoder* makes a small grid of numbers out of a frame, and
# a *decoder* makes a frame out of such a grid. The grid has 8 × 8 places here, like the averages. We call a place a
# **cell**. A cell has four numbers instead of three, so there are 256 numbers for a frame, the **latents**. The four
# numbers are not colours. Nobody said what they should mean: training chose them so that the decoder can draw the frame.

# %%
autoencoder = ctx.pipe.autoencoder.cpu()  # small enough to stay where the frames are
with torch.no_grad():
    latents = autoencoder.encode(frames)
    decoded = autoencoder.decode(latents)
print("frames", tuple(frames.shape), "-> latents (n, c, h, w)", tuple(latents.shape), "-> frames", tuple(decoded.shape))
print(f"256 numbers a frame by the autoencoder: {psnr(frames, decoded):.0f} dB")

# %%
from minit2v.lab.course.drawings.bottleneck import hourglass

hourglass(frames[4], latents[4], decoded[4], cell=(1, 4),
          alt="A frame with a ring, an arrow to its four small channels of 8 by 8 cells, and an arrow to the decoded frame. "
              "One cell is marked: it is 8 by 8 pixels of the frame and one square in each channel. Below: 12,288 numbers, "
              "256 numbers, 12,288 numbers.")  # fmt: skip

# %% [markdown]
# Read the drawing from left to right. Everything that the decoder knows of this frame passes through the narrow middle. The
# orange square marks one cell: 64 pixels of three colours on the left become one square in each of the four channels. White is
# 0, orange is above it and violet below. Every channel shows where the ring is, and none of them looks cyan: the colour is in
# the four numbers together (section 7).
#
# Here are four of the sixteen frames, squeezed both ways.

# %%
some = slice(1, 5)  # four of the sixteen
lab.strip(
    {"frames": frames[some], "192 averages": averaged[some], "256 latents": decoded[some]},
    n=4,
    alt="Three rows of four frames: shapes; coloured fog in their places; and the shapes again, hardly changed.",
)

# %% [markdown]
# What to see: averaging leaves coloured fog. The autoencoder keeps the edges, with only a third more numbers. Where did
# the edges come from? Not from the numbers alone. The *decoder* knows what edges look like, and the latents say only which
# edge is where. That is the trade: knowledge moves out of the data and into the weights. A decoder that has learnt our
# world needs few numbers for each frame of it, and it would need many more for a photograph of a street.
#
# ## 2 · What does one number of a latent do?
#
# Before you touch the widget, a guess.

# %%
lab.predict("2.a")

# %%
lab.LatentPeek(autoencoder, pixels[4], name="latent-peek")

# %% [markdown]
# The drawing showed numbers in orange and violet; the widget shows them in orange and blue. White is 0 in both, and orange is
# above it. Choose a cell with the arrow keys, on the edge of the ring for a start, and change its number with + and −. Try
# other channels too. (For every change this widget asks the network, so it needs a running kernel. Without one you see one
# recorded edit, the one that changes most.)
#
# What to see: the change is strongest around the cell, it covers more than the cell's own pixels, and it glows faintly
# along the whole outline. In channel 1 (top right), raise the cell that was selected at the start to +9. The ring breaks
# open there, and its two ends turn white. The rest of the ring keeps its colour and its place, and nearly all of the ground
# stays dark.
#
# Now we measure it, for all sixteen frames. In each frame we take the cell that is least like the background, add 1 to its
# first number, decode, and ask how far away from the cell the change is.

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
# Most of the change is in 3 × 3 cells, a seventh of the picture. The rest thins out with the distance. Nothing in the network
# *forces* the change to stay near: the decoder's nine convolutions of 3 × 3 at the smallest size together reach across the
# frame, and its normalisations average over the whole of it. Training made it so.
#
# And if a thing moves? A convolution does the same at every place. So if a thing moves by 8 pixels, its latents should
# move by one cell. We shift every frame 8 pixels to the right, encode it, and compare the result with the old latents,
# shifted by one cell and not shifted. The number is the mean squared difference, in percent of the variance of the latents:
# 0 % means equal.

# %%
with torch.no_grad():
    moved = autoencoder.encode(frames.roll(8, dims=3))  # every frame 8 pixels to the right
for name, guess in (("the old ones, shifted by one cell", latents.roll(1, dims=3)), ("the old ones as they were", latents)):
    error = (moved - guess).square().mean() / latents.var()
    print(f"the new latents differ from {name:33} by {error:6.1%} of the variance")

# %% [markdown]
# Remember this, the whole course rests on it: *left* in the latents is *left* in the picture, and what moves in the
# video moves in the latents as well. A latent is a small picture. That is why a UNet, a network for pictures, can work
# on latents and need never see a pixel.
#
# ### The two halves
#
# The encoder halves the picture three times, so 64 becomes 8. At every size, residual blocks (a few layers whose result is
# added to their input) look at the neighbourhood of each place. The decoder goes the same way back, with one block more at
# each size. Each of the two is a dozen lines:

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
# Diffusion adds noise of standard deviation 1 (we say *deviation* for short). How much that hurts depends on how large the
# latents are. The noise drowns latents of size 0.1, and it hardly touches latents of size 10. So the models of this family
# multiply their latents by a constant that brings their deviation to 1:
#
# $$s = \frac{1}{\mathrm{std}(z)} \qquad (2.1)$$
#
# In Stable Diffusion, and in ModelScopeT2V which took over its autoencoder, it is the famous **0.18215**. The number
# has no deeper meaning: somebody measured it once, on one batch of latents. But from then on it belongs to the weights,
# because all later networks were trained on latents of that size.
#
# Open-Sora once took another autoencoder, whose factor is 0.13025, and forgot to change the 0.18215 that was written
# into many places of its code ([issue 493](https://github.com/hpcaitech/Open-Sora/issues/493)). Nothing crashed. The
# next network was trained on latents that were 40 % too large. When the mistake was found, the authors gave this advice:
# whoever uses those weights must keep the wrong number. The weights have got used to it.
#
# What does noise do to our latents? We add noise of growing size, decode, and measure the damage.

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
print(f"deviation of the latents themselves: {latents.std():.1f}")
print(f"without noise {psnr(frames, decoded):.0f} dB; noise of 0.05 costs {psnr(frames, decoded) - damage[1]:.1f} dB; "
      f"noise of 1 leaves {damage[5]:.0f} dB")  # fmt: skip
lab.strip(
    {f"noise {size:g}": noisy[size][some] for size in (0.05, 0.2, 0.5, 1.0)},
    n=4,
    alt="Four rows with more and more noise: unharmed shapes; a disc with corners; a disc that turns purple; dented "
    "things on a littered ground.",
)

# %% [markdown]
# What to see: a little noise does no harm. At 0.2 the blue disc gets corners, at 0.5 it is dented and half purple, and at 1 it
# is pink, and the ground is no longer clean.
#
# Diffusion needs both ends of the curve, and more: noise that leaves almost nothing of the frame, for the first step of
# sampling, and noise that hardly matters, for the last. The schedule of the released model goes from noise 15 times as large
# as the latents down to 0.03 times, *if* their deviation is 1.
#
# ### Exercise 2.1 · the scale factor
#
# Difficulty 1/5 · importance 4/5 · 6 minutes
#
# Write `rescaled(latents, per_channel=False)` for latents (n, c, h, w). By default *one* factor brings all numbers
# together to deviation 1, and nothing is subtracted: so does the 0.18215 of the released model. With
# `per_channel=True` every channel gets mean 0 and deviation 1 of its own: so does `mini`. The result has the shape and the
# type of the latents, and the latents themselves stay as they are.
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
# Does it matter which of the two is used? Our latents are in order already, so we spoil them: we make the first channel
# four times as large, the second twice, and the last half as large. Then we repair them both ways.

# %%
repair = lab.yours("2.1")
spoilt = latents * torch.tensor([4.0, 2.0, 1.0, 0.5])[:, None, None]
for name, z in (("spoilt", spoilt), ("one factor", repair(spoilt)), ("per channel", repair(spoilt, per_channel=True))):
    deviations = " ".join(f"{one:.1f}" for one in z.std((0, 2, 3)).tolist())
    print(f"{name:11} deviation of all numbers {z.std():.1f}, of the four channels {deviations}")

# %% [markdown]
# One constant leaves the differences between channels alone. The last channel is still about an eighth of the first.
#
# *What if?* If noise of deviation 1 is added to the latents with one factor, which channel does it destroy first? Keep
# your answer for notebook 05.
#
# The configuration of `mini` says that its factor is 1. Where is its normalisation, then? In the weights. The last
# layer before the latents is linear, so it can swallow "subtract the mean, divide by the deviation". The first layer
# behind them swallows the inverse. So no reconstruction changes:

# %%
from minit2v.training.autoencoder import AutoencoderTask

lab.show_source(AutoencoderTask.normalise)

# %% [markdown]
# ## 4 · The first bottleneck: a small cloud instead of a point
#
# Squeezing is one half of the job. The other half: latents must be a *pleasant place* for diffusion. A diffusion model
# never hits a latent exactly. It lands nearby, and if the decoder has never seen a point there, nobody knows what it
# draws. So there must be no gaps between the latents that the decoder knows.
#
# The released weights prepare for that with a **Gaussian** bottleneck. The encoder answers with two tensors, a mean $\mu$ and
# the logarithm of a variance $\sigma^2$. (The logarithm, because it may be any number, while a variance must be positive.) In
# training the decoder gets a sample from that small cloud around the mean:
#
# $$z = \mu + \sigma\,\varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, 1) \qquad (2.2)$$
#
# A decoder that must cope with every point of the cloud learns a smooth map. But the encoder could cheat, and make
# $\sigma$ zero. A second term of the loss, the KL divergence, works against it. It measures how far each cloud is from the
# standard normal distribution, and vanishes where the mean is 0 and the deviation is 1:
#
# $$\mathrm{KL} = \tfrac12\left(\mu^2 + \sigma^2 - 1 - \log \sigma^2\right) \qquad (2.3)$$
#
# If $\sigma$ goes to zero, $-\log \sigma^2$ grows without end. So a cloud can be small, but it cannot vanish.

# %%
with torch.no_grad():
    moments = autoencoder.features(frames)
    mean, logvar = moments.chunk(2, dim=1)
    sigma = (0.5 * logvar).exp()
    sampled = autoencoder.decode(mean + sigma * noise)
print("moments (n, 2c, h, w):", tuple(moments.shape), "-> mean and log-variance", tuple(mean.shape))
print(f"mean deviation of a cloud: {sigma.mean():.2f}, of the latents: {latents.std():.2f}")
print(f"decoding a sample instead of the mean costs {psnr(frames, decoded) - psnr(frames, sampled):.2f} dB")
kl = (0.5 * (mean**2 + sigma**2 - 1 - logvar)).mean()
print(f"KL of a latent number by (2.3): {kl:.1f}, by the library: {autoencoder.bottleneck.kl(moments).mean():.1f}")
lab.show_source(type(autoencoder.bottleneck).forward)

# %% [markdown]
# The clouds are small, because the KL term has a very small weight here, as in the released model. A cloud is hardly more
# than a point with a soft edge. This construction is called a "variational autoencoder". The name sounds as if one could
# draw latents from the standard normal distribution and decode pictures. Can one?

# %%
lab.predict("2.b")

# %%
with torch.no_grad():
    dreams = autoencoder.decode(torch.randn(6, 4, 8, 8, generator=ctx.generator()))
lab.strip(dreams, n=6, alt="Six dark frames, full of scattered coloured crumbs, without any whole shape.")

# %% [markdown]
# What to see: crumbs in bright colours, and not one thing. The decoder does know its colours. But each cell was drawn without
# regard to the others, and 64 such cells have not agreed on any thing. To make them agree is the work of the diffusion model.
# Note that there is no *snow*, neither here nor above. Noise on latents looks like wrong things, because the decoder can draw
# nothing else.
#
# ## 5 · The second bottleneck: a codebook
#
# The paper calls its autoencoder a **VQGAN**. VQ is vector quantisation: there is a book of K *codes*, vectors of four
# numbers, and the latent vector $e$ of every cell is replaced by its nearest code $q$:
#
# $$q = c_k, \qquad k = \mathrm{argmin}_j\,\lVert e - c_j\rVert \qquad (2.4)$$
#
# A frame is then 64 entries of a book, and the entry of a cell is a whole number below K. It takes $\log_2 K$ bits: 3 bits
# for 8 codes, 9 bits for 512. (The weights that were released have no codebook. A paper and its weights are two different
# things, and this library says so where it matters.)
#
# Our autoencoder was trained without one, but nothing keeps us from *laying* a codebook over its latents. `Codebook`
# moves each code towards the mean of the vectors that chose it, and this takes no gradient. To be honest about quality, we
# lay the book over frames of the training set and judge it on our sixteen. We do it for books of four sizes.

# %%
lab.predict("2.c")

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
for codes, decibels in zip(books, quality):
    bits = codes.bit_length() - 1
    print(f"{codes:3} codes: {bits} bits a cell, {64 * bits:3} bits a frame, {decibels:.1f} dB")
print(f"without a codebook: {256 * 32:,} bits in float32, {psnr(frames, decoded):.1f} dB · pixels: {12_288 * 8:,} bits")
lab.strip(
    {f"{codes} codes": through[codes][some] for codes in books},
    n=4,
    alt="Four rows. With 8 codes dented things in the right places, the yellow ones in green; with 512 codes the "
    "right shapes and colours, with slightly uneven edges.",
)  # fmt: skip

# %% [markdown]
# What to see: four times as many codes cost two bits more in each cell, and these two bits buy less and less. From 8 to 32
# codes they buy about seven decibels, from 128 to 512 little more than two. In the pictures, the *place* survives even
# eight codes. Colours and outlines are what the further bits are spent on. With 512 codes a frame is 576 bits, 170 times
# fewer than its pixels, and you recognise every shape. Nothing is free in compression; one only chooses what to pay with.

# %%
lab.CodebookPicker(books[32], latents[some], decode=autoencoder.decode, name="codebook-picker")

# %% [markdown]
# Walk over the frame with the arrow keys and watch the list of nearest codes. (The plane shows two of four dimensions;
# the distances in the list are those of all four, so the two sometimes disagree.)
#
# What to see: a handful of codes share the dark ground, and most of the book is for the few cells with a thing in them. The
# bars below are as unequal as the frequencies of words. Notebook 03 makes a number of that, *perplexity*, and shows how a book
# collapses to a few codes.
#
# ### Exercise 2.2 · nearest code
#
# Difficulty 2/5 · importance 4/5 · 6 minutes
#
# Write `nearest(vectors, codes)`: vectors (m, c), codes (K, c), result (m,), the index of the nearest code of each
# vector, a whole number. No loop over vectors. Ties go to the lower index.
#
# <details><summary>Hint 1</summary>You need all m × K distances. Squared distances have the same winner.</details>
# <details><summary>Hint 2</summary><code>(vectors[:, None] - codes[None]).pow(2).sum(-1)</code> has the shape (m, K);
# then <code>argmin(dim=1)</code>. The library avoids the large tensor by |v − c|² = |v|² − 2 v·c + |c|², in which |v|² is the
# same for all codes.</details>
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
# *What if?* Take the code with the largest dot product, in place of the smallest distance. If all codes have the same
# length, that is the same choice. Ours do not. How often does it matter for the cells of our frames?

# %%
closest = lab.yours("2.2")
vectors = latents.movedim(1, -1).flatten(0, 2)  # (n, c, h, w) -> (m, c)
by_distance, by_product = closest(vectors, books[32].codes), (vectors @ books[32].codes.T).argmax(dim=1)
print(f"another code in {(by_distance != by_product).float().mean():.0%} of the cells")
for name, choice in (("distance", by_distance), ("dot product", by_product)):
    print(f"codes in use by the {name}: {len(choice.unique())} of 32")
lab.show_source(Codebook.nearest)

# %% [markdown]
# A few long codes win nearly everything, also where they are far away. And the library's version? It needs the product too,
# but subtracts it twice from the squared length of the code, and so a long code pays for its length.
#
# ## 6 · A gradient through a choice
#
# Our book was laid over a finished autoencoder. If encoder and book are to be trained together, the encoder needs a
# gradient: it asks how the loss would change if it moved its vector a little. Let us move one and look. Here are three
# codes on a line, and a vector that walks past them.

# %%
on_a_line = torch.tensor([[0.0], [1.0], [2.2]])
walk = torch.linspace(-0.5, 2.7, 321)[:, None]
reached = on_a_line[torch.cdist(walk, on_a_line).argmin(dim=1)]
moves = reached.diff(dim=0).ne(0)
print(f"of {len(moves)} small movements of the vector, {moves.sum()} changed what the decoder gets")
lab.curves(
    {"the chosen code": (walk[:, 0], reached[:, 0]), "the vector itself": (walk[:, 0], walk[:, 0])},
    xlabel="where the vector is", ylabel="what the decoder gets",
    alt="A staircase with three level steps and two jumps between them, and a straight line that rises through it.",
)  # fmt: skip

# %% [markdown]
# What to see: a staircase. On a step the chosen code stays the same, so the derivative is zero. At an edge it jumps, and
# there is no derivative. An encoder that is trained with this derivative learns nothing.
#
# The way out is as bold as it is short. In the forward pass, use the code. In the backward pass, pretend that nothing
# happened: take the dashed line for the staircase, and hand the decoder's gradient to the encoder as it is. This is the
# **straight-through** estimator:
#
# $$z = e + \mathrm{sg}(q - e) \qquad (2.5)$$
#
# Here sg means *stop gradient*: its value is what stands in the bracket, and its derivative is zero. Forwards, $e$ cancels
# and $q$ is left. Backwards, the bracket is a constant, and $e$ is left. In the plane it looks like this:

# %%
from minit2v.lab.course.drawings.bottleneck import straight_through

straight_through(
    vectors=torch.tensor([[-0.45, 1.35], [0.85, 0.35], [-0.35, -1.2], [-1.5, 0.1]]),
    codes=torch.tensor([[-1.2, 0.9], [0.5, 1.1], [1.3, -0.2], [0.1, -0.5], [-1.1, -0.9]]),
    gradients=torch.tensor([[0.0, -0.6], [0.4, 0.4], [0.6, 0.1], [0.55, -0.25]]),
    alt="Twice a plane with five codes, each in a region of its own colour, and four vectors. On the left, forwards, an arrow "
    "leads from each vector to the code of its region. On the right, backwards, an arrow at the code, the gradient, stands "
    "once more at the vector, with the same length and direction.",
)

# %% [markdown]
# Read it like this. Left, forwards: each region belongs to one code, and every vector in it becomes that code. Right,
# backwards: the decoder has seen the code and answers with a gradient there, and the vector is given the same arrow. It is
# not the true gradient, but near the code it is a good guess: what is better for the code is probably better for a vector
# close to it. Two vectors of one code may get different arrows, because they belong to different places of the frame.
#
# ### Exercise 2.3 · straight through
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write `quantise(features, codes)`: features (m, c) with a gradient, codes (K, c). Return a tensor (m, c) whose
# *values* are the nearest codes and whose *gradient* with respect to the features is the identity. The codes get no
# gradient. In PyTorch, `detach()` is the stop gradient. The check compares with autograd. (If you call your `nearest` and it
# is not finished, `lab.rescue("2.2")` in a new cell lends you the library's.)
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

# %%
straight = lab.yours("2.3")
feature = torch.tensor([[0.75, -0.25]], requires_grad=True)
out = straight(feature, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
(3 * out[0, 0] - out[0, 1]).backward()
print("forwards:", out[0].tolist(), "· backwards:", feature.grad[0].tolist())
lab.show_source(Codebook.forward)

# %% [markdown]
# Forwards it is the code (1, 0). Backwards it is (3, −1), the gradient of the expression that `backward` was called on, as if
# there had been no choice. In the library it is one line of the codebook's training pass, the one tagged (2.5). (The
# commitment loss above it belongs to notebook 03.)
#
# *What if?* Return the chosen codes without any trick and call `backward` on their sum. What does PyTorch say? Then
# imagine the same in a large network in which *other* paths have a gradient: it would say nothing.
#
# ## 7 · Reconstructed perfectly, and still hard to model
#
# A good reconstruction is not all that one wants of a latent space. The first autoencoder that we trained for `mini`
# reconstructed so well that nobody could tell its frames from the drawn ones. A diffusion model on its latents still mixed up
# colours, and colours changed within a clip. What that autoencoder made of our sixteen frames is recorded. How well do it and
# the shipped one reconstruct them, and where do they keep their colours?
#
# For the colours, we draw one large square in each of the eight colours. We encode the squares and take the latent in the
# middle of each: four numbers for each colour, a point in a space of four dimensions. (Those of the first autoencoder are
# recorded, too.) Then we ask along how many axes these eight points differ.

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
# ### Turning a colour
#
# So the shipped autoencoder keeps its colours on several axes. Which ones? If we know them, we can take hold of a colour:
# move the latents of a yellow ring along these axes, decode, and out comes a ring of another colour. It is the same ring,
# in the same place, because nothing else of it was touched.
#
# First we need latents of things whose colour we know. Data that a program draws come with the truth. We take cells that a
# thing covers whole, so that the cell shows its colour and no edge.

# %%
from minit2v.datasets.moving_things.render import COLOURS


def covered(frames):
    """The share of each cell that a thing covers: frames (n, 3, H, W) -> (n, h, w)."""
    ground = frames.flatten(2).median(dim=2).values[:, :, None, None]  # most pixels are ground
    thing = (frames - ground).abs().amax(dim=1, keepdim=True) > 0.4
    return F.avg_pool2d(thing.float(), 8)[:, 0]


names, train = list(COLOURS), MovingThings("train")
samples = [train[i] for i in range(64)]
shown = to_signed(torch.from_numpy(np.concatenate([sample.frames[::8] for sample in samples])))  # two of each clip
numbers = torch.tensor([names.index(sample.spec.things[0].colour) for sample in samples]).repeat_interleave(2)
whole = covered(shown) == 1  # (n, h, w)
with torch.no_grad():
    of_things = autoencoder.encode(shown).movedim(1, -1)[whole]  # (m, c)
colours = numbers[:, None, None].expand_as(whole)[whole]  # (m,)
print("latents", tuple(of_things.shape), "· colours", tuple(colours.shape))
print("cells:", {names[number]: (colours == number).sum().item() for number in colours.unique()})

# %% [markdown]
# Six colours occur in clips, and by chance there are far more white cells than red ones. How do we find the axes? By
# *principal component analysis* of the colours' means:
#
# 1. Take the mean latent of each colour, a vector $\mu_i$. What differs between cells of one colour is averaged away.
# 2. Subtract from these the mean of all of them, $\bar\mu$. Each colour counts once, however many cells it has.
# 3. The matrix $\sum_i (\mu_i - \bar\mu)(\mu_i - \bar\mu)^\top$, four by four, says how the colours are spread. Its
#    eigenvectors are axes at right angles to one another. Its eigenvalues say how much of the spread lies on each.
#
# To turn a colour, take the way from the mean of the old colour to the mean of the new one. Keep only that part of it which
# lies on the first k axes, and add it to the cells of the thing.

# %%
lab.predict("2.d")

# %% [markdown]
# ### Exercise 2.4 · the axes of the colours
#
# Difficulty 3/5 · importance 4/5 · 20 minutes
#
# Write the class. `ColourAxes(latents, colours)` is given latents (n, c) and the number of the colour of each, (n,). These are
# whole numbers with gaps: 0, 3, 5, say. It keeps three tensors, of the type of the latents, as attributes:
#
# | name | what |
# | --- | --- |
# | `means` | (m, c), the mean latent of each of the m colours that occur, in the order of their numbers |
# | `axes` | (c, c), in each row an axis of length 1; the first row is the axis on which the means differ most, and so on |
# | `shares` | (c,), how much of the variance of the means lies on each axis; they add up to 1 |
#
# (An axis has no sign: the check takes it in both directions.) The method `turned(z, share, old, new, k)` is given latents z
# (n, c, h, w) and the share (n, h, w) of each cell that the thing covers. `old` and `new` are whole numbers, the rows of
# `means` to start from and to arrive at. It returns latents (n, c, h, w): each cell is moved by its share of the way from
# `old` to `new`, as far as the way lies on the first k axes. With k = 0 nothing moves, and with k = c each cell goes its share
# of the whole way.
#
# <details><summary>Hint 1</summary><code>colours.unique()</code> is sorted, and <code>latents[colours == number]</code>
# are the latents of one colour. <code>torch.linalg.eigh</code> gives eigenvalues in ascending order, and the eigenvectors
# as <em>columns</em>. <code>flip</code> turns an order round.</details>
# <details><summary>Hint 2</summary>The part of a vector that lies on some axes: multiply it with the axes, which gives one
# number for each axis, then multiply these numbers with the axes again and add up. With the axes as rows of A and the
# vector w it is <code>w @ A.T @ A</code>. The movement is (c,), a share (n, h, w): give each the axes that it lacks.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# self.means = torch.stack([latents[colours == number].mean(dim=0) for number in colours.unique()])
# centred = self.means - self.means.mean(dim=0)
# variances, columns = torch.linalg.eigh(centred.T @ centred)  # in ascending order
# self.axes = columns.flip(1).T
# self.shares = (variances / variances.sum()).flip(0)
# ```
#
# ```python
# way = self.means[new] - self.means[old]
# seen = way @ self.axes[:k].T @ self.axes[:k]
# return z + share[:, None] * seen[:, None, None]
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
class ColourAxes:
    """Where latents keep their colours: the mean latent of each colour, and the axes along which these differ."""

    def __init__(self, latents, colours):
        """latents (n, c), colours (n,) whole numbers -> means (m, c), axes (c, c) in rows, shares (c,)."""
        ### BEGIN SOLUTION
        self.means = torch.stack([latents[colours == number].mean(dim=0) for number in colours.unique()])
        centred = self.means - self.means.mean(dim=0)
        variances, columns = torch.linalg.eigh(centred.T @ centred)  # in ascending order
        self.axes = columns.flip(1).T
        self.shares = (variances / variances.sum()).flip(0)
        ### END SOLUTION

    def turned(self, z, share, old, new, k):
        """z (n, c, h, w) moved from colour old to colour new along the first k axes, each cell by its share (n, h, w)."""
        ### BEGIN SOLUTION
        way = self.means[new] - self.means[old]
        seen = way @ self.axes[:k].T @ self.axes[:k]
        return z + share[:, None] * seen[:, None, None]
        ### END SOLUTION


# %%
lab.check("2.4", ColourAxes)

# %% [markdown]
# Now turn four things of our validation frames blue, along more and more axes. For each number of axes the cell prints how
# far the pixels of the things are from the true blue, on average, in grey levels of 255.

# %%
found = lab.yours("2.4")(of_things, colours)
print("share of the axes:", " ".join(f"{share:.0%}" for share in found.shares.tolist()))
chosen, blue = [1, 4, 5, 6], names.index("blue")
old = [names.index(MovingThings("val")[i].spec.things[0].colour) for i in chosen]  # the first six all occur: a row each
share, turned = covered(frames[chosen]), {}
inside = F.interpolate((share == 1).float()[:, None], scale_factor=8.0)  # pixels of cells that the things cover whole
target = to_signed(torch.tensor(COLOURS["blue"], dtype=torch.uint8)[None, None, None])  # (1, 3, 1, 1)
for k in range(5):
    with torch.no_grad():
        z = torch.cat([found.turned(latents[[i]], share[[j]], old[j], blue, k) for j, i in enumerate(chosen)])
        turned[f"k = {k}"] = autoencoder.decode(z)
    off = 127.5 * ((turned[f"k = {k}"] - target).abs() * inside).sum() / inside.sum() / 3
    print(f"k = {k}: {off:.0f} grey levels from blue")
lab.strip(turned, n=4, alt="Five rows of four things: a yellow ring, a cyan ring, a yellow square and a white moon. Along one "
          "and two axes they take other colours, such as pink; along three, and along four, all are blue and have "
          "kept their shapes.")

# %% [markdown]
# What to see: along the first axis alone the cyan ring gets nearly blue, the yellow things turn pink, and the white moon
# stays white. Cyan differs from blue mostly along this axis, and white hardly at all. The second axis moves everything, but
# not always closer to blue: a step towards the right latent need not look like a step towards the right colour. Along three
# axes all four things are blue, and have kept shape and place. The fourth axis adds nothing that one could see.
#
# Three axes: as many as a colour has numbers. That is no accident. In training a single linear layer had to read red, green
# and blue off each latent, and three independent numbers cannot be read off fewer than three axes. The first autoencoder was
# free to choose, and wrote all of them onto one.
#
# *What if?* Use `(share > 0).float()` in place of `share`, so that every cell with a bit of the thing in it moves the whole
# way. What happens to the edges? A cell that is half ring and half ground stands between two points of the latent space.
# Its share says how far it has to move.
#
# ## 8 · A bug hunt
#
# A published repository has this line in its quantiser (rewritten here, with the same bug). The author knew about
# straight-through and wrote nearly the right thing. To see what it does, we train a tiny linear encoder for forty
# steps, so that the codes of its features come near a target.


# %%
def broken_quantise(features, codes):
    """features (m, c), codes (k, c) -> the nearest code of each feature, (m, c)."""
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
curves = {"straight through": losses(straight), "broken": losses(broken_quantise)}
lab.curves(
    {name: (range(len(curve)), curve) for name, curve in curves.items()}, xlabel="step", ylabel="loss",
    alt="Two curves of the loss: with straight through it falls to a quarter within five steps and then creeps up; "
    "the broken one is level.",
)  # fmt: skip

# %%
features = torch.randn(5, 2, generator=ctx.generator()).requires_grad_()
codes = torch.randn(16, 2, generator=ctx.generator())
difference = (broken_quantise(features, codes) - straight(features, codes)).abs().max()
print(f"forwards, broken and right differ by at most {difference:.4f}")

# %% [markdown]
# What to see: the broken version learns nothing at all, although its forward pass is right and every test of *values*
# passes. In a whole VQGAN the loss does fall, because the decoder still learns, and reconstructions get better for a while.
# Only the encoder never hears how they turned out.
#
# (And why does the right one creep up again after step 5? Nothing ties the features to their codes, and they drift
# away. Notebook 03 adds the tie and calls it commitment.)
#
# ### Exercise 2.B · a test that would have found it
#
# Difficulty 2/5 · importance 5/5 · 5 minutes
#
# You see which word is missing. But what *is* the gradient of `features + (chosen - features)` with respect to the
# features? Write `encoder_gradient(quantiser)`, a test for any quantiser. It makes features (m, c) and codes (K, c) of its
# own, with several rows and columns. It returns True if the gradient of `quantiser(features, codes).sum()` with respect to
# the features is 1 everywhere, and False otherwise, also if there is no gradient at all.
#
# The check tries your test on many quantisers. Some are broken at a single place only.
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
# *What if?* A quantiser hands each feature the gradient of its neighbour. Your test adds up all numbers of the output, so
# it cannot see that: the gradient is 1 everywhere all the same. Multiply the output with random numbers before you add
# up, and compare with these. Exercise 2.3 was checked in that way.
#
# ## Takeaways
#
# 1. The autoencoder turns 12,288 pixel values into 256 latent numbers, frame by frame. The decoder's weights know what
#   edges look like; the latents say where.
# 2. Latents are a small picture: cells keep their place, so a UNet can work on them. They are brought to deviation 1 by
#   a factor that belongs to the weights.
# 3. Two bottlenecks make latents a pleasant place: a small Gaussian cloud, as in the released weights, or a codebook
#   with straight-through gradients, as in the paper. A reconstruction does not show whether a latent
#   forgives small errors: look where it keeps its colours.
#
# ## Quiz

# %%
lab.quiz(2)

# %% [markdown]
# ## Equations, code and tests
#
# Each equation, the paper it comes from, the line of the library that computes it, and the test, in the repository, that
# would fail if that line were wrong.

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
