# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 16 · MagicVideo
#
# **A model for pictures becomes a model for video, and next to nothing is added: a scale and a shift for each frame, and
# attention that looks back. You write both, prove that no frame hears of what comes later, and find the leak that a perfect mask
# does not close.**
#
# **You will**
# - make a thing move with a table of numbers, and see what such a table can never know
# - write the frame adaptor, directed attention, and the block that holds both
# - find out what the paper's equation 6 does if it is computed as it is printed
# - prove causality twice: by gradients, and by cutting a clip short
# - find a bug that shows in neither shapes nor attention maps
# - read the adaptors of a trained model, and ask it for other frame rates
#
# **You need** [07](07_a_unet_for_pictures.ipynb) for the picture model, [08](08_teaching_it_time.ipynb) for the layers
# that ModelScopeT2V adds to it.
#
# **Time** reading 15 minutes · running 1 minute (fast mode 30 seconds) · exercises 55 minutes

# %%
from minit2v import lab

ctx = lab.setup(16)

# %% [markdown]
# ## 1 · How little is enough?
#
# Notebook 08 gave every block of a picture model a temporal convolution and a temporal transformer. Nine months earlier, in
# November 2022, the authors of MagicVideo asked a thriftier question. Frames of a clip hardly differ. So the convolutions of
# a picture model already do nearly the right thing for each of them. What is the *least* that must be added?
#
# ```
# frame i ──► convolutions ──► · S[i] + B[i] ──┬─► attention within the frame, and to the text ─┐
#                                              └─► directed attention: to earlier frames ──────► + ──►
# ```
#
# Their answer has four parts: numbers that tell frames apart, attention that looks back, the frame rate as an input, and a
# decoder that sees time. No temporal convolution at all.

# %%
lab.predict("16.a")

# %%
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from minit2v.networks.unet import ImageUNet, UNet
from minit2v.presets import UNetConfig, get
from minit2v.systems import find_preset, magicvideo, video_decoder


def size(parts):
    return sum(p.numel() for part in parts for p in part.parameters())


config = find_preset("magicvideo").unet
ours, theirs = magicvideo.MagicVideoUNet(config), UNet(get("modelscope").unet)
of_kind = lambda kind: [module for module in ours.modules() if isinstance(module, kind)]
adaptors, attentions = of_kind(magicvideo.FrameAdaptor), of_kind(video_decoder.DirectedAttention)
print(f"the picture model of both   {size([ImageUNet(config)]):9,} weights")
print(f"MagicVideo: adaptors        {size(adaptors):9,}\n            attention       {size(attentions):9,}")
print(f"ModelScopeT2V, for time     {sum(p.numel() for p in theirs.temporal_parameters()):9,}")

# %% [markdown]
# That is our reduced size, where both begin with the same picture model. (Clips have 16 frames, as in the paper. Four things
# are ours, and ModelScopeT2V of this size has them too: the network answers $v$, the timestep embedding hears the words for
# looks and the number of the frame, and the scene prior of [docs/training.md](../docs/training.md) is added at the start.)
#
# ## 2 · A scale and a shift
#
# After each residual block comes a **frame adaptor**. It has two tables, a row for each frame and a column for each channel:
#
# $$z_i = S_i \odot \text{Conv2D}(z_i) + B_i \qquad (16.1)$$
#
# $i$ is the number of the frame. $S$ begins as ones and $B$ as zeros, so a new adaptor is not there at all. (The paper puts
# one after each convolution, ours one after the two of a residual block.)
#
# Can a table of numbers make anything *move*? It can, if the convolutions help. Here is a convolution with eight channels.
# Each shows the picture it is given, shifted to the right by 0, 4, 8, … pixels. Let frame $i$ see channel $i$ alone:

# %%
from minit2v.datasets.moving_things import MovingThings
from minit2v.pixels import to_signed

view, STEPS, STRIDE = MovingThings("val"), 8, 4
reach = STRIDE * (STEPS - 1)
kernels = torch.zeros(STEPS, 1, 1, 2 * reach + 1)
for k in range(STEPS):
    kernels[k, 0, 0, reach - STRIDE * k] = 1  # a single 1 left of the middle: the picture moves to the right

table = magicvideo.FrameAdaptor(STEPS, STEPS)
with torch.no_grad():
    table.scale.copy_(torch.eye(STEPS))  # frame i, channel i


def moved(picture, adaptor):
    """One picture (H, W, 3) -> a clip: a convolution that all frames share, an adaptor, and a sum over channels."""
    frame = to_signed(torch.from_numpy(picture)[None])[0][:, None]  # 3 1 H W: each colour is a clip of its own
    background = frame[:, :, :1, :1]
    shared = F.conv2d(frame - background, kernels, padding=(0, reach))  # the same for every frame: 3 c H W
    frames = adaptor(shared.repeat_interleave(STEPS, dim=0), STEPS).sum(1)  # ((b f) c H W) -> ((b f) H W)
    return (rearrange(frames, "(b f) h w -> f b h w", f=STEPS) + background.transpose(0, 1)).clamp(-1, 1)


still = {"a red moon": view[13].frames[0], "a blue square": view[28].frames[0]}
with torch.no_grad():
    shown = {name: moved(picture, table) for name, picture in still.items()}
lab.strip(shown, n=STEPS, alt="Two rows of frames: in each a still thing goes to the right by the same steps.")

# %%
lab.matrix(table.scale, rows=range(1, STEPS + 1), columns=range(1, STEPS + 1), ylabel="frame", xlabel="channel",
           alt="The table of scales, frames against channels: ones on the diagonal, zeros elsewhere.")

# %% [markdown]
# What to see: two pictures, and the same motion. The convolution knows nothing of time, and the adaptor nothing of
# pictures. Together they move whatever they are given. A trained adaptor is not so tidy, but this is the trick.
#
# ### Exercise 16.1 · FrameAdaptor
#
# Difficulty 2/5 · importance 4/5 · 12 minutes
#
# Write the module. `forward(x, f)`: x is ((b f), c, h, w), frames of a clip beside one another. A clip of f frames has the
# first f rows of the tables; f is never more than `frames` here.
#
# | name | what |
# | --- | --- |
# | `scale` | `nn.Parameter`, (frames, c), at first ones |
# | `shift` | `nn.Parameter`, (frames, c), at first zeros |
#
# <details><summary>Hint 1</summary>Fold x to <code>b f c h w</code> and the first f rows to <code>f c 1 1</code>: the rest
# is broadcasting.</details>
# <details><summary>Hint 2</summary><code>x.unflatten(0, (-1, f))</code> folds, <code>table[:f, :, None, None]</code> are
# the rows, <code>.flatten(0, 1)</code> folds back.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# self.scale = nn.Parameter(torch.ones(frames, c))
# self.shift = nn.Parameter(torch.zeros(frames, c))
# ```
#
# ```python
# clips = x.unflatten(0, (-1, f))
# return (self.scale[:f, :, None, None] * clips + self.shift[:f, :, None, None]).flatten(0, 1)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
class FrameAdaptor(nn.Module):
    """x ((b f), c, h, w), f -> same."""

    def __init__(self, c, frames):
        ### BEGIN SOLUTION
        super().__init__()
        self.scale = nn.Parameter(torch.ones(frames, c))
        self.shift = nn.Parameter(torch.zeros(frames, c))
        ### END SOLUTION

    def forward(self, x, f):
        ### BEGIN SOLUTION
        clips = x.unflatten(0, (-1, f))
        return (self.scale[:f, :, None, None] * clips + self.shift[:f, :, None, None]).flatten(0, 1)
        ### END SOLUTION


# %%
lab.check("16.1", FrameAdaptor)

# %%
mine = lab.yours("16.1")(STEPS, STEPS)
mine.load_state_dict(table.state_dict())
same = all(torch.equal(moved(picture, mine), moved(picture, table)) for picture in still.values())
print("the same clips with your adaptor:", same)
lab.show_source(magicvideo.FrameAdaptor)

# %% [markdown]
# The library's adaptor can also be told which frames it has. Early in training a clip is four frames, four apart, and their
# numbers are, for instance, 2, 6, 10 and 14. Then these are the rows that are used and that learn. Without the numbers, the
# first four rows would learn what to do through two seconds, and have to learn it anew when clips become dense.
#
# *What if?* Ask for 24 frames. A table of 16 rows has no row 17, so the library stretches it along time. It is the price of
# the idea: the model knows how long its clips are. The temporal layers of 08 do not.
#
# ## 3 · Attention that looks back
#
# An adaptor knows *which* frame it has before it. It does not know what the other frames look like. Put noise in the place of
# frame 3, and the adaptors of frame 4 do what they always do. If the thing is to be the same thing in all frames, they must
# see one another. So the block has attention along time, with a direction: **each place looks at itself in this frame
# and in earlier ones.**
#
# Three steps. Each frame is normalised on its own (16.2). Queries, keys and values are linear functions of that. And the
# weights are
#
# $$A = \text{softmax}\Big(\frac{Q K^\top}{\sqrt d} + M\Big), \qquad
# M_{ij} = \begin{cases} 0 & j \le i \\ -\infty & j > i \end{cases} \qquad (16.3)$$
#
# The paper's equation 6 reads otherwise. There the mask, ones and zeros, *multiplies* the softmax:
#
# $$A = \text{softmax}\Big(\frac{Q K^\top}{\sqrt d}\Big) \odot M, \qquad
# M_{ij} = \begin{cases} 1 & j \le i \\ 0 & j > i \end{cases} \qquad \text{(6), as printed}$$
#
# Both are zero above the diagonal. Is it the same?

# %%
lab.predict("16.b")

# %% [markdown]
# ### Exercise 16.2 · directed_weights
#
# Difficulty 3/5 · importance 5/5 · 15 minutes
#
# Write both. `q` and `k` are (n, heads, f, d); return the weights (n, heads, f, f), a row for each frame that looks. By
# default they are (16.3), with `printed=True` equation 6. The numbers are float64, so that zero can mean zero.
#
# <details><summary>Hint 1</summary><code>torch.ones(f, f, dtype=torch.bool).triu(1)</code> is True for the later frames of
# each row, and <code>masked_fill</code> puts a number there.</details>
# <details><summary>Hint 2</summary>Which number, and before or after the softmax? Before it, what must a score be so that
# its weight is exactly 0? A 0 would be a score like any other.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# f, d = q.shape[-2:]
# scores = q @ k.transpose(-1, -2) / d**0.5
# later = torch.ones(f, f, dtype=torch.bool, device=q.device).triu(1)
# if printed:
#     return scores.softmax(-1).masked_fill(later, 0)
# return scores.masked_fill(later, -torch.inf).softmax(-1)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def directed_weights(q, k, printed=False):
    """q, k (n, heads, f, d) -> weights (n, heads, f, f), 0 for later frames; printed: as equation 6 has it."""
    ### BEGIN SOLUTION
    f, d = q.shape[-2:]
    scores = q @ k.transpose(-1, -2) / d**0.5
    later = torch.ones(f, f, dtype=torch.bool, device=q.device).triu(1)
    if printed:
        return scores.softmax(-1).masked_fill(later, 0)
    return scores.masked_fill(later, -torch.inf).softmax(-1)
    ### END SOLUTION


# %%
lab.check("16.2", directed_weights)

# %% [markdown]
# Now the difference. First the sums of the rows. Then a harder question: does the weight that a frame gives to *itself*
# depend on later frames? The gradient says so.

# %%
looking = lab.yours("16.2")
q = torch.randn(1, 1, 6, 8, generator=ctx.generator(1), dtype=torch.float64)
k = torch.randn(1, 1, 6, 8, generator=ctx.generator(2), dtype=torch.float64).requires_grad_()
leaks = {}
for name, printed in (("before the softmax", False), ("as printed, after it", True)):
    weights = looking(q, k, printed)[0, 0]
    print(f"mask {name:20} rows add up to", [round(total, 2) for total in weights.sum(-1).tolist()])
    own = [torch.autograd.grad(weights[i, i], k, retain_graph=True)[0][0, 0].norm(dim=-1) for i in range(6)]
    leaks[name] = torch.stack(own)  # frame that looks, frame that it depends on
    print(f"{'':25} the largest gradient from a later frame is exactly 0: {leaks[name].triu(1).max().item() == 0}")

# %%
numbers = range(1, 7)
lab.matrix(leaks["as printed, after it"], rows=numbers, columns=numbers, ylabel="frame that looks", xlabel="frame",
           alt="As printed: how much the weight that each of six frames gives itself depends on every frame's key. The "
           "cells above the diagonal are not zero.")

# %% [markdown]
# What to see: the triangle above the diagonal is full. The values of later frames are multiplied by zero, and still they have
# a say: their *scores* stand in the sum that the softmax divides by. So equation 6 as printed fails twice. Early frames get
# little of anything, and the model is not causal.
#
# We do not know what the authors ran, for their code was never published. The library puts the mask first, as transformers
# of text do. To have it last is an easy slip: the EVA models of `timm` had, until somebody
# [mended it](https://github.com/huggingface/pytorch-image-models/pull/2236).
#
# *What if?* Divide the rows of equation 6 by their sums. Then the late scores cancel, and what is left is (16.3). But if a
# late score is much larger than the others, all weights before it are too small for half precision, and the division is 0 / 0.
#
# ## 4 · Side by side
#
# The blocks of 08 look within the frame, then along time. MagicVideo's two branches look at the *same* features, and what
# they find is added:
#
# $$z' = \text{S-Attn}(z) + \text{T-Attn}(z) \qquad (16.4)$$
#
# In our version the spatial branch is the picture model's transformer with its shortcut, so it gives z plus what it finds.
# (The paper's is two attentions, one within the frame and one to the text.) The temporal one is a single attention that ends
# in zeros, and gives only what it finds. So a new block is the picture model's block. (In the paper both branches stand where
# its picture model has attention, at three of four resolutions. Our picture model has attention at the coarse one of two
# resolutions. Frames would not see one another at the fine one, so directed attention stands there too, without a partner.)
#
# ### Exercise 16.3 · MagicVideoBlock
#
# Difficulty 3/5 · importance 5/5 · 20 minutes
#
# | name | layer |
# | --- | --- |
# | `res` | `blocks.ResBlock(c_in, c_out, 4 * config.channels[0], config.norm_groups, config.dropout, config.scale_shift)` |
# | `adaptor` | `magicvideo.FrameAdaptor(c_out, config.frames)` |
# | `spatial` | `blocks.SpatialTransformer(c_out, config.head_dim, config.context_dim, config.norm_groups)`, or None |
# | `directed` | `video_decoder.DirectedAttention(c_out, config.norm_groups, config.head_dim)` |
#
# `spatial` is None if `attention` is False. `forward(x, emb, context, f, temporal=True)`: `emb` ends in the number of the
# frame, and `split_numbers(emb, f)` gives the embedding and the numbers. The residual block takes `x, emb`, the adaptor `x, f,
# numbers`, the spatial transformer `x, context`. There are two ways to call directed attention: `directed(x, f)` returns x plus
# what it finds, `directed.branch(x, f)` only what it finds. With `temporal=False` it is the
# block of a picture model. `temporal_layers()` lists the layers that a picture model does not have, in the order of the table.
#
# <details><summary>Hint 1</summary>Residual block, then the adaptor if <code>temporal</code>. Where there is no spatial
# attention, the features themselves stand in its place.</details>
# <details><summary>Hint 2</summary>Keep the features in one variable, and let both branches read it. Count how often x is in
# the sum: once.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# groups, head_dim = config.norm_groups, config.head_dim
# self.res = blocks.ResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
# self.adaptor = magicvideo.FrameAdaptor(c_out, config.frames)
# self.spatial = blocks.SpatialTransformer(c_out, head_dim, config.context_dim, groups) if attention else None
# self.directed = video_decoder.DirectedAttention(c_out, groups, head_dim)
# ```
#
# ```python
# return [self.adaptor, self.directed]
# ```
#
# ```python
# emb, numbers = split_numbers(emb, f)
# x = self.res(x, emb)
# if temporal:
#     x = self.adaptor(x, f, numbers)
# within = x if self.spatial is None else self.spatial(x, context)
# return within + self.directed.branch(x, f) if temporal else within
# ```
# </details>
# <!-- END SOLUTION -->

# %%
from minit2v.networks import blocks
from minit2v.networks.unet import split_numbers


# %% tags=["exercise"]
class MagicVideoBlock(nn.Module):
    """x ((b f), c_in, h, w), emb ((b f), e + 1), context (b, n, d), f -> ((b f), c_out, h, w)."""

    def __init__(self, c_in, c_out, attention, config):
        ### BEGIN SOLUTION
        super().__init__()
        groups, head_dim = config.norm_groups, config.head_dim
        self.res = blocks.ResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
        self.adaptor = magicvideo.FrameAdaptor(c_out, config.frames)
        self.spatial = blocks.SpatialTransformer(c_out, head_dim, config.context_dim, groups) if attention else None
        self.directed = video_decoder.DirectedAttention(c_out, groups, head_dim)
        ### END SOLUTION

    def temporal_layers(self):
        ### BEGIN SOLUTION
        return [self.adaptor, self.directed]
        ### END SOLUTION

    def forward(self, x, emb, context, f, temporal=True):
        ### BEGIN SOLUTION
        emb, numbers = split_numbers(emb, f)
        x = self.res(x, emb)
        if temporal:
            x = self.adaptor(x, f, numbers)
        within = x if self.spatial is None else self.spatial(x, context)
        return within + self.directed.branch(x, f) if temporal else within
        ### END SOLUTION


# %%
lab.check("16.3", MagicVideoBlock)

# %% [markdown]
# *What if?* Stack them, as 08 does. Then directed attention can look at what the text has changed already. Side by side
# it cannot, in this block; it has to wait for the next one. In return both branches can run at the same time, and each can
# be left out without a change to what the other is given.
#
# ## 5 · The whole network, and two proofs
#
# Build a small UNet out of your block, in float64. First with new temporal layers: it must be the picture model, frame by
# frame.

# %%
SMALL = dict(channels=(8, 16), attention=(False, True), layers_per_level=1, head_dim=4, context_dim=8, norm_groups=4, dropout=0.0,
             first_temporal_heads=0)
settings = magicvideo.MagicVideoConfig(**SMALL, frames=16)


def shaken(network):
    """All weights at random, also those that begin as zero: what holds now does not hold because of zeros."""
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network.double().eval()


pictures, clips = shaken(ImageUNet(settings)), magicvideo.MagicVideoUNet(settings, lab.yours("16.3")).double().eval()
clips.load_state_dict(pictures.state_dict(), strict=False)  # its temporal layers stay new
noisy = torch.randn(1, 4, 6, 4, 4, generator=ctx.generator(3), dtype=torch.float64)
t, words = torch.tensor([400]), torch.randn(1, 3, 8, generator=ctx.generator(4), dtype=torch.float64)
with torch.no_grad():
    alone = torch.cat([pictures(frame, t, words) for frame in noisy.split(1, dim=2)], dim=2)
    print("a new MagicVideo is its picture model:", torch.allclose(clips(noisy, t, words), alone, atol=1e-12))

# %%
lab.predict("16.c")

# %% [markdown]
# Now with random weights everywhere. **The first proof** asks autograd: how much of frame $i$ of the answer comes from frame
# $j$ of the input?

# %%
shaken(clips)


def hears(network, x):
    """How much each frame of the answer (a row) depends on each frame of x (a column); the most of a row is 1."""
    x = x.clone().requires_grad_()
    answer = network(x, t, words)
    rows = [torch.autograd.grad(answer[:, :, i].sum(), x, retain_graph=True)[0].abs().sum((0, 1, 3, 4))
            for i in range(x.shape[2])]
    return torch.stack([row / row.max() for row in rows])


found = hears(clips, noisy)
print("a later frame is heard:", bool(found.triu(1).any()), "· earlier frames are heard:", bool((found.tril() > 0).sum() == 21))
lab.matrix(found, rows=numbers, columns=numbers, ylabel="frame of the answer", xlabel="frame of the input",
           alt="How much each frame of the answer depends on each frame of the input: nothing above the diagonal.")

# %% [markdown]
# **The second proof** needs no gradient, and works on models that you cannot look into. Give the network a clip, and then
# the same clip without its last frames. What comes later must not change what came before.

# %%
def cut_short(network, x):
    """The largest difference in the frames that are left, for 1 to f - 1 of them."""
    with torch.no_grad():
        whole = network(x, t, words)
        return max((network(x[:, :, :n], t, words) - whole[:, :, :n]).abs().max().item() for n in range(1, x.shape[2]))


both_ways = shaken(UNet(UNetConfig(**SMALL)))  # the block of 08
print(f"MagicVideo:    a clip that is cut short changes by less than 1e-10: {cut_short(clips, noisy) < 1e-10}")
print(f"ModelScopeT2V: a clip that is cut short changes by less than 1e-10: {cut_short(both_ways, noisy) < 1e-10}")

# %% [markdown]
# What is it good for? A causal model can stream: earlier frames can be finished and shown before later ones are begun, and a
# clip can be made longer without a change to what it shows already. What does it cost? Frame 1 has nobody to look at. It must
# be right on its own, under the strongest noise, while frame 16 may look at fifteen others. Section 8 measures that on
# the trained model.
#
# ## 6 · The frame rate, and a decoder that sees time
#
# A clip at 4 frames a second shows the same motion in half the frames, so from frame to frame things move twice as
# far. If a model is trained on clips of several rates and is not told, it has to average. So it is told. Our UNet hears how
# far apart its frames are, in units of the training's frame rate,
#
# $$\text{apart} = \frac{\text{fps in training}}{\text{fps that is asked for}} \qquad (16.5)$$
#
# as a sinusoid and a linear layer that joins the timestep embedding. (The paper embeds the rate itself, in two layers, and
# adds it to the features.) The layer begins as zero, like everything here:

# %%
lab.show_source(magicvideo.MagicVideo.apart)
rated = magicvideo.MagicVideoUNet(magicvideo.MagicVideoConfig(**SMALL, frames=16, rate_embedding=True))
new = {name: p.detach().clone().double() for name, p in rated.rate_embedding.named_parameters()}
shaken(rated)
for module in rated.modules():
    if isinstance(module, magicvideo.FrameAdaptor):  # it is told the numbers too; neutral, it says nothing of them
        nn.init.ones_(module.scale)
        nn.init.zeros_(module.shift)
own = {name: p.detach().clone() for name, p in rated.rate_embedding.named_parameters()}
with torch.no_grad():
    for name, weights in {"new": new, "random": own}.items():
        rated.rate_embedding.load_state_dict(weights)
        one, two = (rated(noisy, t, words, positions=apart * torch.arange(6)[None]) for apart in (1, 2))
        print(f"{name:6} rate embedding: frames twice as far apart change the answer: {not torch.equal(one, two)}")

# %% [markdown]
# The last part is the decoder. Latents leave something open, such as the exact place of an edge, and a decoder of
# pictures fills that in for each frame anew, so edges tremble. The paper calls it dithering. MagicVideo's decoder has directed attention after its middle
# and after each level but the last. It too begins as the decoder of pictures. Here it has `mini`'s weights, and new attention:

# %%
autoencoder = ctx.pipe.autoencoder
decoder = video_decoder.VideoDecoder(video_decoder.sized_as(ctx.pipe.preset.autoencoder, "attention")).eval()
decoder.decoder.load_state_dict(autoencoder.decoder.state_dict())
decoder.post_quant_conv.load_state_dict(autoencoder.post_quant_conv.state_dict())
sample = view[13]
latents = ctx.pipe.encode(sample.frames[None, ::4]).cpu() / ctx.pipe.preset.scale_factor
with torch.inference_mode():
    alone = torch.stack([autoencoder.to("cpu").decode(frames) for frames in latents.unbind(2)], dim=2)
    print("a new video decoder is the decoder of pictures:", torch.allclose(decoder(latents), alone, atol=1e-4))
autoencoder.to(ctx.device)
lab.show_source(video_decoder.VideoDecoder.forward)

# %% [markdown]
# ## 7 · A bug hunt
#
# Somebody writes directed attention. She has read 08, and avoids every mistake that it warns of. The mask stands before the
# softmax, and the attention maps are perfect triangles. She trains, and the clips are fine. Then she streams: she writes a
# frame, shows it, writes the next. And what she has already shown changes behind her back.

# %%
class Ported(video_decoder.DirectedAttention):
    def branch(self, x, f):
        normed = self.norm(rearrange(x, "(b f) c h w -> b c f h w", f=f))
        sequences = rearrange(normed, "b c f h w -> (b h w) f c")
        found = self.weights(sequences) @ self.of_heads(self.to_v(sequences))
        return rearrange(self.to_out(rearrange(found, "n k f c -> n f (k c)")), "(b h w) f c -> (b f) c h w",
                         h=x.shape[2], w=x.shape[3])


features = torch.randn(6, 8, 3, 5, generator=ctx.generator(5), dtype=torch.float64)
for name, kind in (("the library's", video_decoder.DirectedAttention), ("hers", Ported)):
    torch.manual_seed(0)
    layer = shaken(kind(8, 4, 4))
    with torch.no_grad():
        above = layer.weights(torch.randn(15, 6, 8, dtype=torch.float64)).triu(1).max().item()
        whole = layer(features, 6)
        moves = [(layer(features[:n], n) - whole[:n]).abs().max().item() for n in range(1, 6)]
    print(f"{name:14} weights above the diagonal: {above:g} · cut to 1 … 5 frames it moves by at most {max(moves):.2f}")

# %% [markdown]
# What to see: in the map nothing leaks, and yet the frames that are left move. So the leak is not in the attention.
#
# This one was not invented. The autoencoder of HunyuanVideo, a later model, is called causal. In
# [issue 219](https://github.com/Tencent-Hunyuan/HunyuanVideo/issues/219) somebody asks whether three frames, encoded, begin as the
# first two alone do. Others try it, and they do not. The explanation there is three words long; read it after the exercise.
# (We know of no public code of MagicVideo itself, so no port of it can have the bug.)
#
# ### Exercise 16.B · histories
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Here is the step before the attention. `norm` is a `nn.GroupNorm`, x is ((b f), c, h, w). Mend it: return the history of
# each place, ((b h w), f, c), in which nothing of a later frame is left.
#
# <details><summary>Hint 1</summary>Make the last frame a hundred times as large. What happens to the first one, and in which
# line?</details>
# <details><summary>Hint 2</summary>GroupNorm takes one mean for everything after the second axis. Which axes may that
# be?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return rearrange(norm(x), "(b f) c h w -> (b h w) f c", f=f)
# ```
#
# While frames are folded as (b f), a GroupNorm sees each alone (16.2). She had one mean and one variance for all of them,
# and later frames are in both.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def histories(norm, x, f):
    """norm a GroupNorm, x ((b f), c, h, w) -> the normalised history of each place, ((b h w), f, c)."""
    ### BEGIN STUDENT
    # normed = norm(rearrange(x, "(b f) c h w -> b c f h w", f=f))
    # return rearrange(normed, "b c f h w -> (b h w) f c")
    ### END STUDENT
    ### BEGIN SOLUTION
    return rearrange(norm(x), "(b f) c h w -> (b h w) f c", f=f)
    ### END SOLUTION


# %%
lab.check("16.B", histories)

# %% [markdown]
# In 08 the statistics of the whole clip were right and those of single frames a bug. Here it is the other way round. No rule
# about norms decides it, but what the layer promises: there, that brightness over time is kept; here, that later frames
# are unheard. (Wan's autoencoder, a later one, has no GroupNorm left, "to preserve temporal causality", as
# [its report](https://github.com/Wan-Video/Wan2.1/issues/294) says.)
#
# ## 8 · What a trained one has learnt
#
# Everything so far holds for any weights. The rest asks our trained model. It began as the picture model, and was then trained
# on clips of several frame rates and on pictures. New layers learn ten times as fast as those of the picture model, as in the
# paper. (Weight matrices are the exception. They have an optimiser of their own, Muon, which changes all of them by the same
# share; see [docs/training.md](../docs/training.md).)
#
# First the adaptors: the table of one layer, a row for each channel and a column for each frame, sorted by how much the
# scale changes from the first frame to the last.

# %%
import minit2v

pipe = minit2v.load("magicvideo", device=ctx.device)
layers = {name.removesuffix(".adaptor"): module for name, module in pipe.unet.named_modules()
          if isinstance(module, magicvideo.FrameAdaptor)}
table = layers["down.1.blocks.0"]
order = (table.scale[-1] - table.scale[0]).argsort()
columns = range(1, len(table.scale) + 1)
lab.matrix((table.scale - 1).T[order], columns=columns, ylabel="channel, sorted", xlabel="frame", diverging=True,
           alt="A heat map of an adaptor: how far the scale of each channel is from 1, in each frame.")

# %%
lab.matrix(table.shift.T[order], columns=columns, ylabel="channel, in the same order", xlabel="frame", diverging=True,
           alt="A heat map of the same adaptor: the shift of each channel in each frame.")

# %% [markdown]
# How to read it: white is "not there". A row that has one colour throughout is a correction of the picture model that is the
# same in all frames and says nothing of time. A row that changes colour from left to right marks the channel with the time.
# Neighbouring columns that look alike mean that neighbouring frames are treated alike, which nobody has asked for. How much
# of each layer's table is about time?

# %%
print(f"{'layer':18} scale: the same in all frames, from frame to frame    shift: the same, from frame to frame")
for name, layer in layers.items():
    shares = []
    for table, neutral in ((layer.scale, 1), (layer.shift, 0)):
        mean = table.detach().mean(0)
        shares += [(mean - neutral).square().mean().sqrt().item(), (table.detach() - mean).square().mean().sqrt().item()]
    print(f"{name:18} {shares[0]:31.3f} {shares[1]:21.3f} {shares[2]:19.3f} {shares[3]:20.3f}")

# %% [markdown]
# What to see: where in the network the columns "from frame to frame" are largest. There the model counts its frames. (Ours
# has the scene prior and the timestep embedding besides, which know the frame's number too. So its adaptors need not carry the
# whole motion, as the table of section 2 did.)
#
# Next, who looks at whom. The widget shows every directed attention for a clip of the data set under much noise, at timestep
# 400 of 1,000. Pick a cell that the thing crosses, then one of the background.

# %%
latents, told = pipe.encode(sample.frames[None]), pipe.text.encode([sample.caption])
noise = torch.randn(latents.shape, generator=ctx.generator(2)).to(latents)
half_noise = pipe.diffusion.add_noise(latents, noise, torch.tensor([400]))
lab.FrameAttention(lab.frame_maps(pipe.unet, half_noise, 400, told), sample.frames, name="frame-attention-16")

# %% [markdown]
# What to see: the first row is always a single cell, as it must be. Compare the rows further down with even ones: where a row
# is level, the layer takes the mean of what came before, where it is steep it looks for something. The layer is told no
# positions. What it knows of the order of frames, the adaptors and the timestep embedding have marked.
#
# Does it cost the early frames something to see so little? Here is the error of the answer for each frame, over clips of the
# validation set, beside that of `mini`, whose frames see one another both ways. (The two models differ in size and training,
# so only the *shape* of the lines can be compared: each is divided by its own mean.)

# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many clips are measured depends on the mode
batch = MovingThings("val").batch(range(ctx.pick(fast=4, default=16)))
lines = {}
for name, model in (("MagicVideo", pipe), ("mini", ctx.pipe)):
    x0 = model.encode(batch.frames)
    eps = torch.randn(x0.shape, generator=ctx.generator(6)).to(x0)
    level = torch.full((len(x0),), 700, device=x0.device)
    with torch.inference_mode():
        answer = model.unet(model.diffusion.add_noise(x0, eps, level), level, model.text.encode(batch.captions))
    error = (answer - model.diffusion.target(x0, eps, level)).square().mean((0, 1, 3, 4)).cpu()
    lines[name] = (range(1, 17), error / error.mean())
lines["all alike"] = (range(1, 17), [1.0] * 16)
lab.curves(lines, "frame", "error over its mean", alt="The error of each frame of the answers of MagicVideo and of mini, over "
           "the mean of all frames, and a level line at 1.")

# %% [markdown]
# How to read it: if frames are better off the more others they see, the line of a model that looks both ways is about the same
# at both ends, and level or lower between them. That of a directed one begins high and falls. Look at the first two or three
# frames: that is where a causal model pays.
#
# ### Other frame rates
#
# The same two seconds in 16, 8 and 4 frames: the model is asked for 8, 4 and 2 frames a second. And, to compare, 8 frames at 8
# a second: the first second only. (A row of our adaptors belongs to a *time*: at half the rate, frame 5 has row 10. In the
# paper it belongs to the frame's number in the clip, and the rate embedding alone says what time that is.)

# %%
PROMPT = "a large yellow square moves right"
asked = {"16 frames, 8 fps": (16, 8), "8 frames, 4 fps": (8, 4), "4 frames, 2 fps": (4, 2), "8 frames, 8 fps": (8, 8)}
made = {name: pipe(PROMPT, seed=3, frames=frames, fps=fps) for name, (frames, fps) in asked.items()}
lab.strip(made, n=8, alt="Four rows of frames of one prompt and seed: at 8, 4 and 2 frames a second over two seconds, and at 8 "
          "frames a second over one.")

# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many clips are made depends on the mode
import numpy as np

from minit2v.evaluation import motion

prompts = MovingThings("val").batch(range(ctx.pick(fast=1, default=12))).captions
print(f"{'':18} pixels from frame to frame    over the whole clip")
for name, (frames, fps) in asked.items():
    clips = pipe(prompts, seed=0, frames=frames, fps=fps)
    path = motion.measure(np.stack([clip.pixels for clip in clips]))["motion amplitude"].mean()
    step = path * pipe.preset.width / motion.FPS  # it is given in picture widths, for 8 frames
    print(f"{name:18} {step:26.2f} {step * (frames - 1):22.1f}")

# %% [markdown]
# What to see: in the first three rows the path from frame to frame should double from row to row, and the path over the whole
# clip shrink only as 15 : 14 : 12, for that is the time from the first frame to the last. The last row should have the step of
# the first and half of its path. If instead the second and the last row are alike, the model does not listen to the rate. (A
# dozen clips tells large differences only, and where things leave the picture their path is cut.)
#
# ### Decoded one by one, and together
#
# Last the decoder. We decode real clips from their latents, once frame by frame with the autoencoder, and once with the
# decoder that sees time.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many clips are decoded depends on the mode
real = batch.frames[: ctx.pick(fast=2, default=6)]
latents = pipe.encode(real)
decoded = {"frame by frame": minit2v.systems.TextToVideo.decode(pipe, latents), "together": pipe.decode(latents)}
print(f"{'':16} error, grey levels    flicker    flicker of the real clips")
for name, clips in decoded.items():
    error = abs(clips.astype(int) - real).mean()
    flicker = [motion.measure(each)["flicker"].mean() for each in (clips, real)]
    print(f"{name:16} {error:18.2f} {flicker[0]:10.2f} {flicker[1]:18.2f}")
lab.strip({"real": real[0]} | {name: clips[0] for name, clips in decoded.items()}, n=8,
          alt="Three rows of frames: a real clip, its latents decoded frame by frame, and decoded together.")

# %% [markdown]
# How to read it: two figures, because one can be cheated. A decoder that blurs everything does not flicker, and its error is
# large. Better is a decoder with a smaller error whose flicker is nearer to that of the real clips. Ours makes the smaller
# error, and flickers no less than the one of pictures. How much there was to gain, the first row says: our clips are clean
# drawings and our autoencoder was trained on nothing else. On films of the real world the dithering is what you see first.
#
# ## Takeaways
#
# 1. A picture model's convolutions can serve all frames. A scale and a shift for each frame say *when* it is; what other
#    frames look like, only attention can say.
# 2. Causal means that what comes later changes nothing of what came before. Prove it with gradients in float64, or cut a
#    clip short. A perfect mask proves nothing: scores leak through a softmax, and frames through a norm.
# 3. Begin neutral: ones, zeros and a last layer of zeros. Then the clip model is the picture model, and training can only
#    add to it.
#
# ## Quiz

# %%
lab.quiz(16)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(16)

# %% [markdown]
# ## Further reading
#
# - Zhou and others, [MagicVideo](https://arxiv.org/abs/2211.11018), sections 3.2 to 3.4: the adaptor, directed attention and
#   the decoder, in two pages.
# - Blattmann and others, [Align your latents](https://arxiv.org/abs/2304.08818), section 3.1: the same start with a picture
#   model, which is then frozen.
# - Houlsby and others, [Parameter-efficient transfer learning](https://arxiv.org/abs/1902.00751), section 2: where the word
#   adapter comes from, and why to begin neutral.
#
# **Next:** [17 · Video LDM](17_video_ldm.ipynb) freezes the picture model altogether.
