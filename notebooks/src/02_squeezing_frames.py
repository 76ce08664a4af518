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
# **You need** [01 · Video is a tensor](01_video_is_a_tensor.ipynb): folds, and the range [-1, 1].
#
# **Time** reading 15 minutes · running TIME_DEFAULT (fast mode TIME_FAST) · exercises 30 minutes

# %%
import torch
import torch.nn.functional as F

from minit2v import lab

ctx = lab.setup(2)

# %% [markdown]
# ## 1 · How much of a frame is worth keeping?
#
# A frame of our little world has 64 × 64 pixels of three colours: 12,288 numbers. Nearly all of them say "dark, like my neighbour". If you
# described the frame over the telephone, you would need a dozen words. A network that must predict 12,288 numbers sixteen times per video,
# twelve or fifty times in a row, spends nearly all its effort on saying "dark" correctly.
#
# So the first thing that a *latent* diffusion model does is to get rid of what can be got rid of. Let us take some frames that no network has been trained on.

# %%
from minit2v.datasets import MovingThings

pixels = MovingThings("val").batch(range(16))[0][:, ::4]  # (16 clips, 4 frames, H, W, 3)
pixels = pixels.reshape(-1, 64, 64, 3)
frames = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1  # (n, H, W, 3) -> (n, 3, H, W) in [-1, 1]
print("frames (n, 3, H, W):", tuple(frames.shape), "from", frames.min().item(), "to", frames.max().item())
lab.sheet(pixels[:12:2], columns=6, alt="Six frames of the validation clips: coloured shapes on a dark ground.")

# %% [markdown]
# Here is the simplest way to squeeze: average blocks of 8 × 8 pixels into one, and blow the result up again. It keeps
# 8 · 8 · 3 = 192 numbers a frame.
#
# To compare ways of squeezing we need one number for the damage. The usual one is the **PSNR**, in decibels: how much larger the whole range of a pixel is than the typical error,
# on a logarithmic scale. Ten decibels more means a tenth of the squared error. Below 20 you see the damage at once; beyond 35 you have to look for it.

# %%
def psnr(x, y):
    """Peak signal-to-noise ratio of two tensors in [-1, 1], in decibels; the range has length 2, its square is 4."""
    return 10 * torch.log10(4 / F.mse_loss(x, y.clamp(-1, 1))).item()


blocks = F.avg_pool2d(frames, 8)  # (n, 3, H, W) -> (n, 3, 8, 8)
averaged = F.interpolate(blocks, scale_factor=8.0, mode="bilinear")
print(f"192 numbers a frame by averaging: {psnr(frames, averaged):.0f} dB")

# %% [markdown]
# And this is what the shipped autoencoder makes of it. It also has an 8 × 8 grid, with four numbers in each cell instead of three: 256 numbers a frame. These four are not colours. They were chosen by training, so
# that a decoder can draw the frame from them.

# %%
autoencoder = ctx.pipe.autoencoder
with torch.no_grad():
    latents = autoencoder.encode(frames)
    decoded = autoencoder.decode(latents)
print("frames", tuple(frames.shape), "-> latents (n, c, h, w)", tuple(latents.shape), "-> frames", tuple(decoded.shape))
print("numbers a frame:", frames[0].numel(), "->", latents[0].numel())
print("decibels more than by averaging, at least 10:", psnr(frames, decoded) > psnr(frames, averaged) + 10)

# %%
show = [0, 6, 10, 18]
rows = [frames[show], averaged[show], decoded[show]]
lab.sheet(
    [frame.clamp(-1, 1) for row in rows for frame in row],
    [f"{name} {i}" for name in ("frame", "averaged", "autoencoder") for i in range(1, 5)],
    columns=4,
    alt="Three rows: four frames, the same averaged to coloured fog, and the same through the autoencoder, hardly different from the first.",
)

# %% [markdown]
# What to see: averaging leaves coloured fog. The autoencoder keeps the edges, with hardly more numbers. An edge is not in the
# numbers; the *decoder* knows what edges look like, and the numbers only say where and which. That is the trade: knowledge moves from the data into
# the weights.
#
# ## 2 · What does one number of a latent do?
#
# Before you touch the widget, a guess. You change one of the 256 numbers a little. Which pixels change?

# %%
lab.predict("What changes?", "a patch around the cell", choices=["one pixel", "a patch around the cell", "the whole frame"])

# %%
lab.LatentPeek(autoencoder, pixels[0], name="latent-peek")

# %% [markdown]
# Move with the arrow keys to a cell on the edge of the shape and change its number with + and −. (This widget asks the network for every change, so
# it needs a running kernel; the picture that stands here without one shows a recorded edit.)
#
# What to see: the difference is a blob, a few cells wide, around the one that you changed. The autoencoder is made of convolutions, and a latent cell talks to its
# surroundings only. That is worth a lot: *left* in the latents is *left* in the picture, and a thing that moves in the video moves in the latents as well. The UNet can be a network for
# pictures, though it never sees one.
#
# We can say it with a number. How far from the cell does the decoded frame change at all?

# %%
with torch.no_grad():
    edited = latents[:1].clone()
    edited[0, 0, 4, 4] += 1.0
    change = (autoencoder.decode(edited) - decoded[:1]).abs().amax(dim=1)[0]  # (H, W)
far = change.clone()
far[8:64, 8:64] = 0  # everything within three and a half cells of cell (4, 4), whose pixels are 32..39
print("share of the change within that window, over 95 %:", (1 - far.sum() / change.sum()).item() > 0.95)

# %% [markdown]
# ### The two halves
#
# The encoder halves the picture three times, so 64 becomes 8; at each size a residual block or two look at a neighbourhood. The decoder is
# the same way back, with one block more per size, because drawing is harder than looking. Both are a dozen lines:

# %%
lab.show_source(type(autoencoder.encoder))

# %%
factor = autoencoder.config.factor
print("pixels per latent cell along a side:", factor, "= 2 **", len(autoencoder.config.multipliers) - 1)
print("mini:", f"{sum(p.numel() for p in autoencoder.parameters()):,}", "parameters")

# %% [markdown]
# The autoencoder of the released model has 83,653,863 parameters and the same class. It turns 256 × 256 pixels into 32 × 32 cells: the same factor of 8, the same four channels. And it works on one frame at a
# time. A clip (b, c, f, H, W) is folded to ((b f), c, H, W) before and unfolded after, as you did by hand in notebook 01. Nothing in it knows that time exists.
#
# ## 3 · The scale factor
#
# Diffusion adds noise of deviation 1. How much that hurts depends on how large the latents are: noise of size 1 drowns latents of size 0.1, and hardly touches latents of size 10. So every model of this family multiplies its latents
# by a constant which brings their deviation to 1. In Stable Diffusion, and in ModelScopeT2V which took over its autoencoder, it is the famous **0.18215**.
#
# $$s = \frac{1}{\mathrm{std}(z)}$$
#
# The number has no deeper meaning. It was measured on one batch of latents. But it must travel with the weights. Open-Sora once changed its autoencoder and forgot to change the 0.18215 that was written into many places of its code
# ([issue 493](https://github.com/hpcaitech/Open-Sora/issues/493)): training went on, nothing crashed, and the latents were too large by 40 %.
#
# In the next cell we damage latents with noise of growing size, decode, and measure.

# %%
sizes = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
noise = torch.randn(latents.shape, generator=ctx.generator())
with torch.no_grad():
    damage = [psnr(frames, autoencoder.decode(latents + size * noise)) for size in sizes]
lab.curves(
    {"decoded from noisy latents": (sizes, damage)}, xlabel="deviation of the noise", ylabel="PSNR in dB", logx=True,
    alt="A falling curve: noise of a twentieth of the latents' deviation costs little, noise of their own size leaves 20 decibels or less.",
)

# %%
print("latents' own deviation, about 1:", 0.8 < latents.std().item() < 1.3)
print("noise of 0.05 costs less than 2 dB:", psnr(frames, decoded) - damage[1] < 2)
print("noise of 1 leaves less than 20 dB:", damage[5] < 20)

# %% [markdown]
# What to see: a little noise does no harm, and noise as large as the latents themselves destroys the frame. Diffusion needs both ends: a first step at which almost
# nothing is left, and a last step that hardly matters. Unit variance puts our latents in the middle between them.
#
# ### Exercise 2.1 · the scale factor
#
# Difficulty 1/5 · importance 4/5 · 6 minutes
#
# Write `rescaled(latents, per_channel=False)` for latents (n, c, h, w). By default *one* factor brings all numbers together to deviation 1, and nothing is subtracted: that is the 0.18215 of the released model. With `per_channel=True` every channel
# gets mean 0 and deviation 1 of its own: that is what `mini` does.
#
# <details><summary>Hint 1</summary>`latents.std()` looks at all numbers together.</details>
# <details><summary>Hint 2</summary>For the channels, take mean and deviation over the axes 0, 2 and 3, with `keepdim=True` so that they broadcast.</details>
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
# *What if?* A constant for all channels leaves differences between channels alone. Is that a problem for diffusion? Look at the deviations of the four channels of a real model some day; then read section 3 of notebook 05 again.
#
# Where does `mini`'s normalisation live, if its factor is 1? In the weights: the last layer before the latents is linear, so it can swallow "subtract the mean, divide by the deviation", and the first layer behind them
# can swallow the inverse. No reconstruction changes.

# %%
from minit2v.training.vqgan import VQGANTask

lab.show_source(VQGANTask.normalise)

# %% [markdown]
# ## 4 · The first bottleneck: a small cloud instead of a point
#
# Squeezing is one half of the job. The other half is that the latents must be a *pleasant place* for diffusion, without holes in which the decoder has never been. The released weights do that with a **Gaussian** bottleneck. The encoder answers with two tensors, a mean and the
# logarithm of a variance. In training the decoder gets a sample from that small cloud:
#
# $$z = \mu + \sigma\,\epsilon, \qquad \epsilon \sim \mathcal{N}(0, 1)$$
#
# A decoder that must cope with every point of the cloud learns a smooth map. A second term, the KL divergence, pulls each cloud towards the standard normal distribution, very gently:
#
# $$\mathrm{KL} = \tfrac12\left(\mu^2 + \sigma^2 - 1 - \log \sigma^2\right)$$

# %%
with torch.no_grad():
    moments = autoencoder.features(frames)
    mean, logvar = autoencoder.bottleneck.split(moments)
print("moments (n, 2c, h, w):", tuple(moments.shape), "-> mean", tuple(mean.shape), "and log-variance", tuple(logvar.shape))
print("the clouds are small, mean sigma below 0.2:", (0.5 * logvar).exp().mean().item() < 0.2)

# %% [markdown]
# What to see: sigma is small. The pull of the KL term is weak here, as in the released model, and the cloud is hardly more than a point with a soft edge. "Variational autoencoder" sounds as if one could draw a random latent and decode a picture. With such small
# clouds one cannot; that is what the diffusion model is for.
#
# ## 5 · The second bottleneck: a codebook
#
# The paper calls its autoencoder a **VQGAN**. VQ is vector quantisation: there is a book of K *codes*, vectors with four numbers each, and every latent vector is replaced by the nearest one. A frame is then 64 entries from a book.
# (The weights that were released have no codebook. A paper and its weights are two different things, and the library says so where it matters.)
#
# Our autoencoder was trained without one, but nothing keeps us from *laying* a codebook over its latents. `Codebook` learns by moving each code to the mean of the vectors that chose it. No gradient is needed for that.

# %%
from minit2v.bottleneck import Codebook


def learnt_codebook(codes, steps=60):
    """A codebook of that many codes, moved onto the latents above."""
    torch.manual_seed(0)
    codebook = Codebook(codes, 4).train()
    for _ in range(steps):
        codebook(latents)
    return codebook.eval()


books = {codes: learnt_codebook(codes) for codes in (8, 32, 128, 512)}
with torch.no_grad():
    quality = [psnr(frames, autoencoder.decode(book.snap(latents))) for book in books.values()]
lab.curves(
    {"through a codebook": (list(books), quality), "without": (list(books), [psnr(frames, decoded)] * 4)},
    xlabel="codes in the book", ylabel="PSNR in dB", logx=True,
    alt="A rising curve of quality over the number of codes, below a horizontal line for the autoencoder without a codebook.",
)

# %%
print("more codes are better each time:", all(a < b for a, b in zip(quality, quality[1:])))
print("bits a frame:", {codes: 64 * (codes.bit_length() - 1) for codes in books}, "· without:", 256 * 32, "as float32")

# %% [markdown]
# What to see: quality grows with the logarithm of the size of the book. With 512 codes a frame is 64 numbers of nine bits: 576 bits instead of 393,216 bits of pixels, and you would recognise every shape. Each further decibel costs many more codes. Nothing is free in
# compression; one only chooses what to pay with.
#
# Pick cells with the arrow keys, and look for one whose nearest code is *not* the one that seems nearest on the plane. (The plane shows two of four dimensions.)

# %%
lab.CodebookPicker(books[32], latents[:4], decode=autoencoder.decode, name="codebook-picker")

# %% [markdown]
# What to see: one code holds nearly all of the background, and a few share the shapes. The usage bars are as unequal as words in a language. Notebook 03 makes a number of that (perplexity), and shows what happens when the book collapses to a few codes.
#
# ### Exercise 2.2 · nearest code
#
# Difficulty 2/5 · importance 4/5 · 6 minutes
#
# Write `nearest(vectors, codes)`: vectors (m, c), codes (K, c), result (m,), the index of the nearest code of each vector. No loop over vectors. Ties go to the lower index.
#
# <details><summary>Hint 1</summary>You need all m × K distances. Squared distances have the same winner.</details>
# <details><summary>Hint 2</summary>`(vectors[:, None] - codes[None]).pow(2).sum(-1)` has the shape (m, K); `argmin(dim=1)`. The library avoids the large tensor by
# |v − e|² = |v|² − 2 v·e + |e|², in which |v|² is the same for all codes.</details>
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
# ## 6 · A gradient through a choice
#
# Training needs a gradient for the encoder. But `argmin` has none: move a vector a little, and the chosen code stays the same, so the derivative is zero; move it over the border, and the code jumps. The way out is as bold as it is short. In the forward pass use the code. In the
# backward pass pretend that nothing happened, and hand the decoder's gradient to the encoder as it is. This is the **straight-through** estimator:
#
# $$z = e + \mathrm{sg}(q - e)$$
#
# where e are the encoder's features, q the codes that they chose, and sg (stop gradient) is `detach` in PyTorch. Forwards, e cancels and q is left. Backwards, the bracket is a constant.

# %%
features = torch.tensor([0.9, -0.2], requires_grad=True)
code = torch.tensor([1.0, 0.0])
quantised = features + (code - features).detach()
(3 * quantised[0] - quantised[1]).backward()
print("forwards:", quantised.tolist(), "· backwards:", features.grad.tolist())

# %% [markdown]
# Forwards the code, backwards the gradient (3, −1), as if the choice were not there. In the library it is one line of the codebook's training pass:

# %%
lab.show_source(Codebook.forward)

# %% [markdown]
# ### Exercise 2.3 · straight through
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write `quantise(features, codes)`: features (m, c) with a gradient, codes (K, c). Return a tensor (m, c) whose *values* are the nearest codes and whose *gradient* with respect to the features is the identity. The codes get no gradient. The check uses autograd to compare.
#
# <details><summary>Hint 1</summary>You may use your own `nearest`: `codes[nearest(features, codes)]`.</details>
# <details><summary>Hint 2</summary>What must be constant for the backward pass: the code, or the *difference* between code and feature?</details>
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
# *What if?* Return `chosen` without any trick and call `backward` on it. What does PyTorch say? Then imagine the same in a large network in which *other* paths do have a gradient: it would say nothing.
#
# ## 7 · A bug hunt
#
# From a published repository ([EfficientFi, issue 4](https://github.com/NTU-AIoT-Lab/EfficientFi/issues/4)), in our words. The author knew about straight-through and wrote nearly the right line. We train a tiny encoder for a few steps: it shall find features so that its codes come near a target.


# %%
def broken_quantise(features, codes):
    """Codes forwards; and backwards?"""
    chosen = codes[(features[:, None] - codes[None]).pow(2).sum(-1).argmin(dim=1)]
    return features + (chosen - features)


def losses(quantiser, steps=40):
    """The reconstruction loss of a linear encoder that is trained through a quantiser."""
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
from minit2v.lab.checks.nb02 import quantise as library_quantise

curves = {"straight through": losses(library_quantise), "broken": losses(broken_quantise)}
lab.curves(
    {name: (range(len(curve)), curve) for name, curve in curves.items()}, xlabel="step", ylabel="loss",
    alt="Two curves of the loss: the right one falls within a few steps, the broken one is a horizontal line.",
)

# %%
features = torch.randn(5, 2, generator=ctx.generator()).requires_grad_()
codes = torch.randn(16, 2, generator=ctx.generator())
same = torch.allclose(broken_quantise(features, codes), library_quantise(features, codes), atol=1e-6)
print("forwards, broken and right agree:", same)

# %% [markdown]
# The symptom: the forward pass is right to the last digit, so every test of *values* passes. The loss of the broken version does not move. In a real VQGAN it does move, because the decoder still learns, and reconstructions get better for a while; only the encoder stays what it was on the first day.
#
# ### Exercise 2.B · one word
#
# Difficulty 2/5 · importance 5/5 · 5 minutes
#
# Before you mend it: what is the gradient of `features + (chosen - features)` with respect to the features? Write `encoder_gradient(quantiser)`, a test that would have found the bug: it returns True if the gradient of `quantiser(features, codes).sum()` with respect to the
# features is 1 everywhere, and False otherwise, also if there is no gradient at all.
#
# <details><summary>Hint 1</summary>The derivative of e + (q − e) with respect to e is 1 − 1. Zero is a gradient too: PyTorch does not complain.</details>
# <details><summary>Hint 2</summary>`torch.autograd.grad(out.sum(), features, allow_unused=True)` gives a tuple with a tensor or None. If the output needs no gradient, it raises; ask `out.requires_grad` first.</details>
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
# The moral is not "never forget `detach`". It is that a function has two halves, values and gradients, and that a test of one says nothing about the other.
#
# ## Takeaways
#
# 1. The autoencoder turns 12,288 pixel values into 256 latent numbers, frame by frame. The decoder's weights know what edges look like; the latents say where.
# 2. Latents are a small picture: cells keep their place, so a UNet can work on them. They are brought to unit variance by a factor that belongs to the weights.
# 3. Two bottlenecks make latents a pleasant place: a small Gaussian cloud (released weights) or a codebook with straight-through gradients (the paper's name for it).
#
# ## Quiz

# %%
lab.quiz(2)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(2)

# %% [markdown]
# ## Further reading
#
# - [Latent Diffusion](https://arxiv.org/abs/2112.10752), section 3.1 and appendix G: both bottlenecks, and the sentence from which the scale factor comes.
# - [Neural Discrete Representation Learning](https://arxiv.org/abs/1711.00937), sections 3.1 and 3.2: the codebook and the straight-through trick, on two pages.
# - [Taming Transformers](https://arxiv.org/abs/2012.09841), section 3.1: why a discriminator joins in; that is the next notebook.
#
# **Next:** [03 · Training a tiny VQGAN](03_training_a_tiny_vqgan.ipynb), where you train one yourself.
