# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · Teaching it time
#
# **A model for pictures becomes a model for video by two layers, put after those it has. Here you write both, put
# them into the trained model, and measure what each of them is good for.**
#
# **You will**
# - switch off a model's sense of time, and say in numbers what is lost
# - write the temporal convolution and temporal attention, and the block that holds them
# - run the trained model on your own block and get the same clip
# - show that one of the two layers knows the order of frames, and the other does not
# - train four small denoisers, with one layer, the other, both and none, and compare them
# - find a bug that is invisible with one clip and ruins two
#
# **You need** [07](07_a_unet_for_pictures.ipynb) for residual blocks and attention, [01](01_video_is_a_tensor.ipynb)
# for folds.
#
# **Time** reading 22 minutes · running 1 to 4 minutes (fast mode 20 to 60 seconds) · exercises 56 minutes

# %%
from minit2v import lab

ctx = lab.setup(8)

# %% [markdown]
# ## 1 · A switch for time
#
# Notebook 07 ended with a model for pictures. Give it sixteen noises, and it makes sixteen pictures of the prompt,
# which have nothing to do with one another. What must be added, so that they become one video?
#
# ModelScopeT2V adds two layers to every block. After the residual block comes a **temporal convolution**, and after
# the spatial transformer a **temporal transformer**. Both add something to what is there, so both can be left out.
# That gives us a switch. Here are four models with the same weights; in three of them one or both kinds of layers
# return what they are given. Each starts from the same noise.

# %%
PROMPTS = ["a large red circle moves left", "a small blue ring moves up", "a large yellow square moves right",
           "a small green star moves down"]
SWITCHED = {"all on": (), "no convolution": ("convolution",), "no attention": ("attention",),
            "both off": ("convolution", "attention")}
chosen = PROMPTS[: ctx.pick(fast=1, default=4)] * ctx.pick(fast=1, default=2, full=12)  # two seeds of each

clips = {}
for name, kinds in SWITCHED.items():
    with lab.silenced(ctx.pipe, *kinds) as model:
        clips[name] = model(chosen, seed=0)
lab.TimeSwitch({name: made[0] for name, made in clips.items()}, name="switch-08")

# %% [markdown]
# Play the clip and go from one button to the next. What to look for:
#
# - **Flicker.** The curve tells how much of the change from frame to frame no motion can explain. A thing that moves
#   has none.
# - **Identity.** Is it the same thing in the first frame and in the last: its colour, its outline, its size?
# - **Amplitude.** How far does it go? The figure below is the length of its path, in picture widths a second.
# - **Direction.** Does it still go where the prompt says?
#
# One seed is an anecdote. Here are the same figures over all seeds that we sampled, with the judge's reading of the
# direction. (`mini` tells every block the number of its frame; the paper's model does not. So with both layers off,
# `mini` still knows *when* a frame is. What it does not know is what the other frames look like.)

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of seeds depends on the mode
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from minit2v.datasets.moving_things import parse
from minit2v.evaluation import judge, motion
from minit2v.networks import blocks

wanted = [parse(prompt).things[0].motion for prompt in chosen]
print(f"{'':16} flicker   identity drift   motion amplitude   right direction")
for name, made in clips.items():
    found = motion.measure(np.stack([clip.pixels for clip in made]))
    right = [judge.read(clip.pixels).motion == direction for clip, direction in zip(made, wanted)]
    means = [f"{found[key].mean():8.2f}" for key in ("flicker", "identity drift", "motion amplitude")]
    print(f"{name:16}{means[0]}   {means[1]:>14}   {means[2]:>16}   {sum(right):>8} of {len(right)}")

# %% [markdown]
# Keep these numbers. They tell what a trained model loses when a layer is taken away, which is not the same as what
# it would have learnt without: the other layers were trained to rely on it. Section 7 asks that second question.
#
# ## 2 · Folds: one tensor, two views
#
# A clip is `b c f h w`. A layer for pictures wants `n c h w`, and does not care which frame is of which clip. So
# frames travel as `(b f) c h w`, all frames of all clips in one row, the frames of one clip beside one another. That
# is the *spatial* view.
#
# A layer for time wants each pixel's history: for every place, the f vectors that it had. The *temporal* view is the
# same numbers, folded the other way.

# %%
lab.FoldViz((2, 1, 3, 2, 2), ["b c f h w -> (b f) c h w", "b c f h w -> (b h w) f c"], name="folds-08")

# %% [markdown]
# Why not look at everything at once, every cell of every frame at every other? Because of what it costs. Attention
# computes one score for each pair.

# %%
lab.predict("8.c")

# %%
f, cells = 16, 32 * 32  # the finest level of the released model
scores = {"all with all": (f * cells) ** 2, "within frames": f * cells**2, "along time": cells * f**2}
for name, count in scores.items():
    print(f"{name:14} {count:12,} scores in each head")

# %% [markdown]
# To look within frames and then along time is called *factorised*. A cell reaches every other cell of every frame in
# two steps instead of one: first to its own place in that frame, then across it. Time itself costs next to nothing.
# What is expensive in video is that there are sixteen pictures.
#
# ## 3 · The temporal convolution
#
# A 3-tap convolution along time: each frame's numbers are mixed with those of the frame before and the frame after,
# at the same place. Four such stages (8.1) follow one another, each with a norm and a SiLU before it:
#
# ```
# x ((b f), c, h, w) ─ as b c f (h w) ─ [norm ─ SiLU ─ 3 taps] × 4 ─(+)─ same shape
#         └──────────────────────────────────────────────────────────┘
# ```

# %%
lab.predict("8.b")

# %%
def reached(layer, frame=8):
    """The frames of the input that one frame of the result depends on."""
    x = torch.randn(16, 8, 4, 5, generator=ctx.generator()).requires_grad_()
    layer(x, f=16)[frame].sum().backward()
    return x.grad.abs().amax((1, 2, 3)).nonzero().flatten().tolist()


torch.manual_seed(0)
layer = blocks.TemporalConv(8, 4, 0.0)
layer.convs[3].reset_parameters()  # a new layer would be the identity
print("frame 8 depends on the frames", reached(layer))
layer.norms = nn.ModuleList([nn.Identity()] * 4)
print("without its norms, on", reached(layer))

# %% [markdown]
# The convolutions alone reach nine frames, four to either side. The whole layer reaches all sixteen. How does a frame
# far away get in? Through the **norm**. Its mean and variance are taken over the *whole clip* (8.2): all frames, all
# rows, all columns. So every frame depends a little on the brightness of every other.
#
# This is the detail that ports of this model get wrong most often. The spatial layers normalise each frame on its
# own, and nothing stops you from doing the same here: the shapes fit, the weights load, single frames look fine. What
# is lost? Take a clip that does nothing but fade from dark to bright.

# %%
fade = torch.linspace(-1, 1, 8)[None, None, :, None].expand(1, 4, 8, 6) + 0.1 * torch.randn(1, 4, 8, 6)  # b c f (h w)
whole = F.group_norm(fade, 2)
own = rearrange(F.group_norm(rearrange(fade, "b c f s -> (b f) c s"), 2), "(b f) c s -> b c f s", f=8)
print("brightness of the frames: ", [round(v, 1) for v in fade.mean((0, 1, 3)).tolist()])
print("norm of the whole clip:   ", [round(v, 1) for v in whole.mean((0, 1, 3)).tolist()])
print("norm of each frame alone: ", [round(abs(v), 1) for v in own.mean((0, 1, 3)).tolist()])

# %% [markdown]
# The fade is gone. A layer whose only business is what changes over time would be given a clip in which nothing
# changes.
#
# ### Exercise 8.1 · TemporalConv
#
# Difficulty 3/5 · importance 5/5 · 20 minutes
#
# Write the module. `forward(x, f)`: x is ((b f), c, h, w), the result has the same shape.
#
# | name | layer |
# | --- | --- |
# | `norms` | `nn.ModuleList` of 4 GroupNorms, `groups` groups, `c` channels |
# | `convs` | `nn.ModuleList` of 4 convolutions `nn.Conv2d(c, c, (3, 1), padding=(1, 0))`; the last one starts as zero |
# | `dropout` | dropout with probability `dropout`, before each convolution but the first |
#
# Why a Conv2d, when the paper has kernels of 3 × 1 × 1 in three dimensions? If rows and columns are one axis, a clip
# is the picture `b c f (h w)`, as high as it has frames, and a kernel of 3 × 1 slides along its height. The numbers
# are the same.
#
# <details><summary>Hint 1</summary>Begin with <code>h = rearrange(x, "(b f) c h w -> b c f (h w)", f=f)</code>.
# GroupNorm averages over everything after the second axis: in this view, over the whole clip.</details>
# <details><summary>Hint 2</summary>In the loop: <code>h = F.silu(norm(h))</code>, dropout if it is not the first,
# then
# <code>conv(h)</code>. At the end fold back, with <code>h=x.shape[2]</code>, and add x.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# self.norms = nn.ModuleList(nn.GroupNorm(groups, c) for _ in range(4))
# self.convs = nn.ModuleList(nn.Conv2d(c, c, (3, 1), padding=(1, 0)) for _ in range(4))
# self.dropout = nn.Dropout(dropout)
# blocks.zeroed(self.convs[-1])
# ```
#
# ```python
# h = rearrange(x, "(b f) c h w -> b c f (h w)", f=f)
# for i, (norm, conv) in enumerate(zip(self.norms, self.convs)):
#     h = F.silu(norm(h))
#     h = conv(self.dropout(h) if i else h)
# return x + rearrange(h, "b c f (h w) -> (b f) c h w", h=x.shape[2])
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
class TemporalConv(nn.Module):
    """x ((b f), c, h, w), f -> same."""

    def __init__(self, c, groups, dropout):
        ### BEGIN SOLUTION
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(groups, c) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(c, c, (3, 1), padding=(1, 0)) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        blocks.zeroed(self.convs[-1])
        ### END SOLUTION

    def forward(self, x, f):
        ### BEGIN SOLUTION
        h = rearrange(x, "(b f) c h w -> b c f (h w)", f=f)
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs)):
            h = F.silu(norm(h))
            h = conv(self.dropout(h) if i else h)
        return x + rearrange(h, "b c f (h w) -> (b f) c h w", h=x.shape[2])
        ### END SOLUTION


# %%
lab.check("8.1", TemporalConv)

# %%
PROMPT = {"prompt": PROMPTS[0], "seed": 0, "steps": 4}
reference = ctx.pipe(**PROMPT)


def compare(clip):
    """How far a clip is from the reference, in grey levels."""
    difference = abs(clip.pixels.astype(int) - reference.pixels.astype(int))
    print(f"numbers of {difference.size:,} that differ by more than one grey level: {(difference > 1).sum()}")


with lab.swap(ctx.pipe, TemporalConv=lab.yours("8.1")) as swapped:
    compare(swapped(**PROMPT))
lab.show_source(blocks.TemporalConv.forward)

# %% [markdown]
# And what does the wrong norm do to the real model? Put a version with statistics of single frames in the place of
# the right one. The weights are the same; only the averages differ.

# %%
class OwnNorm(blocks.TemporalConv):
    """The library's temporal convolution with the statistics of single frames."""

    def forward(self, x, f):
        h = x
        for norm, conv in zip(self.norms, self.convs):
            h = rearrange(F.silu(norm(h)), "(b f) c h w -> b c f (h w)", f=f)  # the norm sees frames, not clips
            h = rearrange(conv(h), "b c f (h w) -> (b f) c h w", h=x.shape[2])
        return x + h


def answer(model, seed=0):
    """What a model's UNet says about one noisy clip."""
    noisy = torch.randn(1, 4, 16, 8, 8, generator=ctx.generator(seed))
    with torch.inference_mode():
        return model.unet(noisy, torch.tensor([500]), model.text.encode(PROMPTS[:1]))


right = answer(ctx.pipe)
with lab.swap(ctx.pipe, TemporalConv=OwnNorm) as swapped:
    wrong = answer(swapped)
print(f"the wrong norm changes the answer by {(wrong - right).std() / right.std():.0%} of its size")

# %% [markdown]
# *What if?* Take one tap instead of three. The layer then has no sense of time but for its norm. Take a kernel that
# sees only earlier frames, and you have a *causal* model, which can go on for ever, frame by frame. Newer models for
# long videos do that.
#
# ## 4 · Temporal attention
#
# The convolution sees one frame to each side. A thing that is hidden for half a second is out of its sight. Attention
# has no such limit: each place is a sequence of f tokens (8.3), its own history, and each token may look at all of them.
#
# But attention sees a *set*. Shuffle the tokens, and the results are shuffled alike; nothing in it says which frame
# came first. Text encoders add positions for that reason. ModelScopeT2V adds none here. Is its attention blind to
# order, then? Ask the trained layers. We reverse the frames, run a layer, and reverse the result back.

# %%
unet = ctx.pipe.unet
features = torch.randn(16, unet.config.channels[0], 8, 8, generator=ctx.generator(1))
block = unet.down[0].blocks[0]
with torch.inference_mode():
    for name, layer in (("temporal attention", unet.first_temporal), ("temporal convolution", block.temporal_conv)):
        there, back = layer(features, 16), layer(features.flip(0), 16).flip(0)
        print(f"{name:21} changed by the reversal: {(there - back).std() / (there - features).std():.0%} of what it adds")

# %% [markdown]
# The attention cannot tell a clip from its reverse; the convolution can. In the paper's model the order of frames
# comes from the convolutions alone: from their three taps, which need not be symmetric, and from the zeros that pad
# the ends, which say "here the clip begins". That has a pleasant side: no weight knows how long a clip is, so you can
# ask for 24 frames. (`mini` departs: it is told the frame numbers. The table in
# [docs/training.md](../docs/training.md) shows that they bring little.)
#
# ### Exercise 8.2 · TemporalTransformer
#
# Difficulty 4/5 · importance 5/5 · 18 minutes
#
# Write it around the library's `blocks.TransformerBlock(width, head_dim, None)`. You know its parts from 07:
# self-attention, in the place of cross-attention *self-attention once more* (that is what None means), feed-forward.
# Call it as `block(h)`: h is (n, s, width), n sequences of s tokens, and so is the result.
#
# | name | layer |
# | --- | --- |
# | `norm` | GroupNorm, `groups` groups, `c` channels, `eps=1e-6`; statistics of the whole clip |
# | `proj_in` | linear, `c` to `inner` (`c`, if it is None) |
# | `block` | `TransformerBlock`, width `inner` |
# | `proj_out` | linear, `inner` to `c`; starts as zero |
#
# A sequence is one place of one clip in all its frames. `forward(x, f)` returns x plus the branch.
#
# <details><summary>Hint 1</summary>Norm in the view <code>b c f (h w)</code>, as in 8.1. Then make every place a
# sequence:
# <code>"b c f s -> (b s) f c"</code>, with c last, as linear layers want it.</details>
# <details><summary>Hint 2</summary>Back in one step: <code>rearrange(h, "(b h w) f c -> (b f) c h w", b=b,
# h=x.shape[2])</code>, where
# <code>b = len(x) // f</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# inner = inner or c
# self.norm = nn.GroupNorm(groups, c, eps=1e-6)
# self.proj_in = nn.Linear(c, inner)
# self.block = blocks.TransformerBlock(inner, head_dim, None)
# self.proj_out = blocks.zeroed(nn.Linear(inner, c))
# ```
#
# ```python
# h = self.norm(rearrange(x, "(b f) c h w -> b c f (h w)", f=f))
# h = rearrange(h, "b c f s -> (b s) f c")
# h = self.proj_out(self.block(self.proj_in(h)))
# return x + rearrange(h, "(b h w) f c -> (b f) c h w", b=len(x) // f, h=x.shape[2])
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
class TemporalTransformer(nn.Module):
    """x ((b f), c, h, w), f -> same."""

    def __init__(self, c, head_dim, groups, inner=None):
        ### BEGIN SOLUTION
        super().__init__()
        inner = inner or c
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.proj_in = nn.Linear(c, inner)
        self.block = blocks.TransformerBlock(inner, head_dim, None)
        self.proj_out = blocks.zeroed(nn.Linear(inner, c))
        ### END SOLUTION

    def forward(self, x, f):
        ### BEGIN SOLUTION
        h = self.norm(rearrange(x, "(b f) c h w -> b c f (h w)", f=f))
        h = rearrange(h, "b c f s -> (b s) f c")
        h = self.proj_out(self.block(self.proj_in(h)))
        return x + rearrange(h, "(b h w) f c -> (b f) c h w", b=len(x) // f, h=x.shape[2])
        ### END SOLUTION


# %%
lab.check("8.2", TemporalTransformer)

# %%
with lab.swap(ctx.pipe, TemporalTransformer=lab.yours("8.2")) as swapped:
    compare(swapped(**PROMPT))
lab.show_source(blocks.TemporalTransformer.forward)

# %% [markdown]
# *What if?* Add a position to each token, and train. The model then knows how long its clips are, and falters at
# other lengths.
#
# What do the frames look at? Here is a clip of the data set, made half noise, and the maps of every temporal
# attention of `mini` for it. Pick a cell: one that the thing crosses, then one of the background. A row of the map is
# the frame that looks, a column the frame that it looks at. (A map of all equal numbers is an average over frames,
# the best that can be done about noise where nothing moves.)

# %%
from minit2v.datasets.moving_things import MovingThings

sample = MovingThings("test_seen")[25]
latents, told = ctx.pipe.encode(sample.frames[None]), ctx.pipe.text.encode([sample.caption])
noisy = ctx.pipe.diffusion.add_noise(latents, torch.randn(latents.shape, generator=ctx.generator(2)), [400])
maps = lab.frame_maps(unet, noisy, 400, told)
lab.FrameAttention(maps, sample.frames, name="frame-attention-08")

# %%
average = {name: one.mean((0, 1, 2)) for name, one in maps.items()}  # over both attentions and all cells
f = latents.shape[2]
distance = abs(np.arange(f)[:, None] - np.arange(f))
lines = {name: (range(f), [one[distance == d].mean() for d in range(f)]) for name, one in average.items()}
lines["all alike"] = (range(f), [1 / f] * f)
lab.curves(lines, "frames between", "share of attention", alt="The share of attention against the distance of two "
           "frames, a line for each layer, and a level line where all frames are alike.")

# %% [markdown]
# What to see: a line that falls looks at near frames more than at far ones, a line that rises the other way round, a
# level line does not care. Remember that the layer has no positions: if it prefers some frames, it does so because of
# how they *look*, or because the convolution before it, or the frame numbers of `mini`, left a mark in them.
#
# ## 5 · The block
#
# Now everything is there. The order is residual block, temporal convolution, spatial transformer, temporal
# transformer: a look within the frame, then one along time, twice. The transformers are left out at levels without
# attention.
#
# ### Exercise 8.3 · SpatioTemporalBlock
#
# Difficulty 3/5 · importance 5/5 · 12 minutes
#
# | name | layer |
# | --- | --- |
# | `res` | `blocks.ResBlock(c_in, c_out, 4 * config.channels[0], config.norm_groups, config.dropout, config.scale_shift)` |
# | `temporal_conv` | `blocks.TemporalConv(c_out, config.norm_groups, config.dropout)` |
# | `spatial` | `blocks.SpatialTransformer(c_out, config.head_dim, config.context_dim, config.norm_groups)`, or None |
# | `temporal` | `blocks.TemporalTransformer(c_out, config.head_dim, config.norm_groups)`, or None |
#
# The last two are None if `attention` is False. `forward(x, emb, context, f, temporal=True)`: the residual block
# takes `x, emb`, the temporal layers `x, f`, the spatial transformer `x, context`. With `temporal=False` it is the
# block of a picture model. `temporal_layers()` returns the list of the layers that a picture model does not have,
# without None.
#
# Write `blocks.…` and not the names of your own classes: then `lab.swap` can put yours there.
#
# <details><summary>Hint 1</summary>Four steps, two of them behind <code>if temporal</code>, two behind
# <code>if self.spatial is not None</code>.</details>
# <details><summary>Hint 2</summary>The temporal transformer is behind both conditions.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# groups, head_dim = config.norm_groups, config.head_dim
# self.res = blocks.ResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
# self.temporal_conv = blocks.TemporalConv(c_out, groups, config.dropout)
# self.spatial = self.temporal = None
# if attention:
#     self.spatial = blocks.SpatialTransformer(c_out, head_dim, config.context_dim, groups)
#     self.temporal = blocks.TemporalTransformer(c_out, head_dim, groups)
# ```
#
# ```python
# return [self.temporal_conv] + ([self.temporal] if self.temporal is not None else [])
# ```
#
# ```python
# x = self.res(x, emb)
# if temporal:
#     x = self.temporal_conv(x, f)
# if self.spatial is not None:
#     x = self.spatial(x, context)
#     if temporal:
#         x = self.temporal(x, f)
# return x
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
class SpatioTemporalBlock(nn.Module):
    """x ((b f), c_in, h, w), emb ((b f), e), context (b, n, d), f -> ((b f), c_out, h, w)."""

    def __init__(self, c_in, c_out, attention, config):
        ### BEGIN SOLUTION
        super().__init__()
        groups, head_dim = config.norm_groups, config.head_dim
        self.res = blocks.ResBlock(c_in, c_out, 4 * config.channels[0], groups, config.dropout, config.scale_shift)
        self.temporal_conv = blocks.TemporalConv(c_out, groups, config.dropout)
        self.spatial = self.temporal = None
        if attention:
            self.spatial = blocks.SpatialTransformer(c_out, head_dim, config.context_dim, groups)
            self.temporal = blocks.TemporalTransformer(c_out, head_dim, groups)
        ### END SOLUTION

    def temporal_layers(self):
        ### BEGIN SOLUTION
        return [self.temporal_conv] + ([self.temporal] if self.temporal is not None else [])
        ### END SOLUTION

    def forward(self, x, emb, context, f, temporal=True):
        ### BEGIN SOLUTION
        x = self.res(x, emb)
        if temporal:
            x = self.temporal_conv(x, f)
        if self.spatial is not None:
            x = self.spatial(x, context)
            if temporal:
                x = self.temporal(x, f)
        return x
        ### END SOLUTION


# %%
lab.check("8.3", SpatioTemporalBlock)

# %% [markdown]
# *What if?* Exchange the two transformers. Every layer still fits, the check fails, and a model trained in that order
# might be just as good. An architecture is a convention that a checkpoint was trained with.
#
# Now all three of yours at once, in the trained model.

# %%
mine = {name: lab.yours(number) for name, number in
        (("TemporalConv", "8.1"), ("TemporalTransformer", "8.2"), ("SpatioTemporalBlock", "8.3"))}
with lab.swap(ctx.pipe, **mine) as swapped:
    compare(swapped(**PROMPT))

# %% [markdown]
# ## 6 · The first step of a video model
#
# The released model was not trained from nothing. It took the weights of Stable Diffusion, put new temporal layers
# behind every block, and went on with videos. New layers start with random numbers. Would they not ruin what the
# picture model knows?
#
# Try it: take `mini`'s weights for all spatial layers, and *new* temporal ones. Compare with the picture model, which
# has none.

# %%
import copy

from minit2v.networks.unet import UNet

torch.manual_seed(0)
new = copy.deepcopy(unet)
kept = {id(p) for p in new.temporal_parameters()}
fresh = UNet(unet.config).state_dict()
with torch.no_grad():
    for name, p in new.named_parameters():
        if id(p) in kept:
            p.copy_(fresh[name])
    with_new, pictures = new(noisy, torch.tensor([400]), told), unet(noisy, torch.tensor([400]), told, temporal=False)
print("parameters that are new:", f"{sum(p.numel() for p in new.temporal_parameters()):,}")
print("they change the answer by more than 0.00001:", ((with_new - pictures).abs() > 1e-5).sum().item(), "numbers")

# %% [markdown]
# Not one number. The last layer of each branch starts as zero, so at first the video model *is* the picture model,
# and nothing that it knows is lost. But if the output of a branch is zero, can it ever learn? Look at the gradients
# of the first training step.

# %%
branch = new.down[0].blocks[0].temporal_conv
new.requires_grad_(True)  # a loaded model does not ask for gradients; what it made in inference mode is copied
loss = F.mse_loss(new(noisy.clone(), torch.tensor([400]), told.clone()), latents.clone())
loss.backward()
for i, conv in enumerate(branch.convs):
    print(f"stage {i + 1}: weights of size {conv.weight.abs().mean():.3f}, "
          f"gradient {'zero' if conv.weight.grad.abs().max() == 0 else 'not zero'}")

# %% [markdown]
# Only the last stage learns in the first step: its gradient needs its *input*, which is not zero. From the second
# step on its weights are not zero either, and the stages before it follow. A branch grows from its end.
#
# ## 7 · What is each of them good for?
#
# The paper's third question. Section 1 answered for a trained model with parts removed. To answer for a model that
# was trained *without* them, one has to train. We make the task as small as it goes: latents of clips, much noise on
# them, and a network of two residual blocks that must find the clip; between the two there is a temporal convolution,
# temporal attention, both, or nothing.

# %%
frames, _, _ = MovingThings("train").batch(range(ctx.pick(fast=16, default=80)))
pool = ctx.pipe.encode(frames[:, ::2])  # every second frame: b c 8 8 8
pool = pool / pool.std()
A = 0.15  # the share of the clip that is left, at one noise level for all


class Denoiser(nn.Module):
    """Noisy latents (b, c, f, h, w) -> the clip, with the given layers along time between two residual blocks."""

    def __init__(self, *layers, c=32):
        super().__init__()
        self.enter, self.leave = nn.Conv2d(4, c, 3, padding=1), nn.Conv2d(c, 4, 3, padding=1)
        self.before, self.after = (blocks.ResBlock(c, c, 8, 4, 0.0, False) for _ in range(2))
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        f, emb = x.shape[2], x.new_zeros(len(x) * x.shape[2], 8)
        h = self.before(self.enter(rearrange(x, "b c f h w -> (b f) c h w")), emb)
        for layer in self.layers:
            h = layer(h, f)
        return rearrange(self.leave(self.after(h, emb)), "(b f) c h w -> b c f h w", f=f)


def train(make, steps, seed=0):
    """The loss on clips that were not trained on, after every tenth of the training."""
    torch.manual_seed(seed)
    network, generator = Denoiser(*make()), ctx.generator(seed)
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=3e-3), []
    held, known = pool[: len(pool) // 5], pool[len(pool) // 5:]
    hidden = A**0.5 * held + (1 - A) ** 0.5 * torch.randn(held.shape, generator=ctx.generator(9))
    for step in range(steps):
        x0 = known[torch.randint(len(known), (8,), generator=generator)]
        x = A**0.5 * x0 + (1 - A) ** 0.5 * torch.randn(x0.shape, generator=generator)
        optimizer.zero_grad()
        F.mse_loss(network(x), x0).backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            with torch.no_grad():
                losses.append((step + 1, F.mse_loss(network(hidden), held).item()))
    return losses


# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of steps depends on the mode
kinds = {"none": lambda: [], "convolution": lambda: [blocks.TemporalConv(32, 4, 0.0)],
         "attention": lambda: [blocks.TemporalTransformer(32, 16, 4)],
         "both": lambda: [blocks.TemporalConv(32, 4, 0.0), blocks.TemporalTransformer(32, 16, 4)]}
histories = {name: train(make, ctx.pick(fast=3, default=150, full=1000)) for name, make in kinds.items()}
for name, history in histories.items():
    print(f"{name:12} loss {history[-1][1]:.3f}, {history[-1][1] / histories['none'][-1][1]:.0%} of the loss of none")

# %%
lab.curves({name: tuple(zip(*history)) for name, history in histories.items()}, "step", "loss on other clips",
           alt="The loss on unseen clips against the training steps, for none, convolution, attention and both.")

# %% [markdown]
# How to read it. A frame alone can only smooth over neighbouring cells; with other frames there are more views of the
# same thing to average. Attention is able to average over all frames where nothing moves, but it has to find by
# *likeness* where a thing went, and under strong noise nothing looks alike. The convolution cannot look far, but it
# knows which frame is next: a shift by one cell is one weight. So the two do not replace each other. How much each
# brings in your run is in the lines above; how the pair compares with the better of the two depends on how long you
# train, so give it more steps before you believe the order of the last two.
#
# Compare with section 1. There a layer was taken from a model that had learnt to rely on it; here the model never had
# it. When papers write "without X, quality falls by so much", ask which of the two they did.
#
# ## 8 · How much of the released model knows time?

# %%
lab.predict("8.a")

# %%
from minit2v.presets import get

with torch.device("meta"):
    released = UNet(get("modelscope-1.7b").unet)


def size(*kinds):
    return sum(p.numel() for m in released.modules() if isinstance(m, kinds) for p in m.parameters())


total = sum(p.numel() for p in released.parameters())
for name, kind in (("temporal convolutions", blocks.TemporalConv), ("temporal transformers", blocks.TemporalTransformer)):
    print(f"{name:22} {size(kind):13,} {100 * size(kind) / total:5.1f} %")
print(f"{'of':22} {total:13,}")

# %% [markdown]
# What remains is, number for number, the picture model it came from.
#
# ## 9 · A bug hunt
#
# Somebody ported the temporal convolution. All shapes are right. They tested it with one clip, and it passed: identical to
# the last bit. Then they switched on guidance.


# %%
class Ported(blocks.TemporalConv):
    def forward(self, x, f):
        h = rearrange(x, "(f b) c h w -> b c f (h w)", f=f)
        for norm, conv in zip(self.norms, self.convs):
            h = conv(F.silu(norm(h)))
        return x + rearrange(h, "b c f (h w) -> (f b) c h w", h=x.shape[2])


results = {}
with lab.swap(ctx.pipe, TemporalConv=Ported) as ported:
    for guidance in (1, ctx.pipe.preset.guidance):
        options = {"prompt": PROMPTS[0], "seed": 0, "steps": 6, "guidance": guidance}
        for name, model in (("right", ctx.pipe), ("ported", ported)):
            results[f"guidance {guidance}, {name}"] = model(**options)
different = {name: (abs(clip.pixels.astype(int) - results[name.replace("ported", "right")].pixels) > 1).sum()
             for name, clip in results.items() if "ported" in name}
print("numbers that differ from the right clip:", {name: "many" if n else "none" for name, n in different.items()})
lab.strip(results, n=6, alt="Four rows of frames: with guidance 1 both versions are alike; with guidance the ported one "
          "differs from the right one.")

# %% [markdown]
# Guidance asks the network for two clips at once, one with the prompt and one without. Why does that matter to a layer
# that works along time? Find the cause before you read on.
#
# ### Exercise 8.B · to_clips
#
# Difficulty 1/5 · importance 5/5 · 6 minutes
#
# Mend the line at fault, here as a function of its own: frames come as ((b f), c, h, w), and (b, c, f, h, w) is returned.
#
# <details><summary>Hint 1</summary>With b = 2 and f = 3 the batch holds the frames a0 a1 a2 b0 b1 b2. What does the
# pattern make of them? The last letter in the brackets runs fastest.</details>
# <details><summary>Hint 2</summary>Which frames does the layer believe to be neighbours? One pair of letters is in the
# wrong order.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return rearrange(x, "(b f) c h w -> b c f h w", f=f)
# ```
#
# With (f b) and two clips, the layer read a0 a2 b1 as one clip and a1 b0 b2 as the other.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def to_clips(x, f):
    """Frames ((b f), c, h, w) -> clips (b, c, f, h, w)."""
    ### BEGIN STUDENT
    # return rearrange(x, "(f b) c h w -> b c f h w", f=f)
    ### END STUDENT
    ### BEGIN SOLUTION
    return rearrange(x, "(b f) c h w -> b c f h w", f=f)
    ### END SOLUTION


# %%
lab.check("8.B", to_clips)

# %% [markdown]
# The port folded the frames as `(f b)`, in both directions. With one clip that is the same as `(b f)`; with two, every
# frame got neighbours from the other clip. A test with one clip, one frame, a square picture or as many clips as frames
# hides such bugs. That is why every
# check in this course uses sizes that are all different.
#
# ## Takeaways
#
# 1. A picture model becomes a video model by residual layers along time whose last layer starts as zero: at first it
#    is the picture model, and then it learns what frames have to do with one another.
# 2. The convolution knows the order of frames and sees its neighbours; attention sees all frames and knows no order.
#    Both take their statistics from the whole clip.
# 3. "Without X" has two meanings: taken from a trained model, and trained without. Ask which one you are told about.
#
# ## Quiz

# %%
lab.quiz(8)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(8)

# %% [markdown]
# ## Further reading
#
# - Wang and others, [ModelScope text-to-video technical report](https://arxiv.org/abs/2308.06571), section 3.3: the
#   block that you built, in one figure.
# - Ho and others, [Video diffusion models](https://arxiv.org/abs/2204.03458), section 3: the factorised UNet, and
#   training on pictures and videos together.
# - Blattmann and others, [Align your latents](https://arxiv.org/abs/2304.08818), section 3.1: another way to put time
#   into a picture model, where a learnt number says how much of each layer to use.
#
# **Next:** [09 · Training text to video](09_training_text_to_video.ipynb). You have built every layer of the model; now it
# learns, from noise and captions.
