# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 18 · Make-A-Video
#
# **Nobody has to describe a video for this model. It learns from captioned pictures how things look and what they are
# called, and from videos without any words how things move. You find out what that can teach, and what it never can.**
#
# **You will**
# - prove, from the data alone, that the model cannot know "left", and count what it gets right all the same
# - write the pseudo-3D block, in which a picture model begins as a video model without forgetting anything
# - tell a network which frames it is given and which it is to make
# - paint all frames of a clip with one noise, and see what that does to a thing that moves
# - find a bug in layers that were meant to change nothing
# - watch the trained system: its key frames, what it puts between them, and its sense of direction
#
# **You need** [08](08_teaching_it_time.ipynb) for temporal layers, [10](10_steering.ipynb) for guidance,
# [13](13_is_it_any_good.ipynb) for the judge.
#
# **Time** reading 15 minutes · running 1 minute (fast mode 20 to 60 seconds) · exercises 52 minutes

# %%
from minit2v import lab

ctx = lab.setup(18)

# %% [markdown]
# ## 1 · Two teachers
#
# In 2022 there were billions of captioned pictures, and far fewer captioned videos. There were plenty of videos without
# captions. Make-A-Video (Singer and others) takes both as they are. Here they are at our size:

# %%
from minit2v.datasets.moving_things import MovingThings

pictures = MovingThings("train", images=True).batch(range(6))
lab.sheet([frames[0] for frames in pictures.frames], pictures.captions,
          alt="Six pictures of single things, each below its caption, such as a small red ring.")

# %%
videos = MovingThings("train").batch(range(3)).frames
lab.strip({f"video {i}": frames for i, frames in enumerate(videos)},
          alt="Three rows of frames: things that move across a dark background, without any caption.")

# %% [markdown]
# The model is a chain of four networks,
#
# $$y = S \circ F \circ D \circ P\,(x) \qquad (18.1)$$
#
# | | network | makes | has learnt from |
# | --- | --- | --- | --- |
# | $P$ | `prior` | CLIP's embedding of a picture, from CLIP's embedding of the prompt $x$ | pictures and captions |
# | $D$ | `unet` | key frames of a clip to which such a picture could belong | pictures, then videos |
# | $F$ | `between` | the frames between them | videos |
# | $S$ | `upscale` | the same frames at twice the size | videos |
#
# Why a prior? CLIP lays texts and pictures into one space, and yet the embedding of a caption is not the embedding of
# a picture: it knows less. So a small diffusion model draws one of the picture embeddings that may go with it. Only
# $P$ reads words. The other three are told an image embedding, and while they learn, it is that of a frame of the
# video itself. Now and then it is replaced by zeros, so that $D$ can be guided (10); zeros also stand in where there is no
# prompt.
#
# *Departures.* The paper's $D$ makes 16 frames of 64 pixels, five apart, $F$ fills them up to 76, and two networks enlarge
# them to 768 pixels. Ours makes 4 frames of 32 pixels, five apart, which $F$ fills up to 16, and one network enlarges them to
# 64. Blocks of pixels are channels. The paper's prior reads the tokens of the prompt as well; ours is an MLP. What our
# diffusion systems share (v-prediction, the condition in the timestep embedding) is in this one, too; the noise schedule is
# shifted further, as pixels need. But $P$, $F$ and $S$ answer with $x_0$. The layers of $F$ and $S$ are too narrow to say,
# beside what they are given, which noise lies on each pixel. All three video networks are told frame numbers. $D$ and $F$ look
# along time at both levels, $S$ only by its convolutions. $D$ has the scene prior, and its sampler draws fresh noise in each
# step (06, $\eta = 1$).
#
# In training the videos come in through this class:

# %%
from minit2v.training import makeavideo

lab.show_source(makeavideo.Unlabelled)

# %% [markdown]
# What to see: it hands out frames. There is no way to ask it for a caption, and a test holds it to that.
#
# ## 2 · What silent videos cannot teach
#
# Imagine a country where everybody says "left" for right and "right" for left. Its people make the same videos, and write
# captions below the same pictures. Let us make its data set.

# %%
OTHER = {"left": "right", "leftwards": "rightwards"}
OTHER |= {there: here for here, there in OTHER.items()}


def there(caption):
    """The caption as that country would write it."""
    return " ".join(OTHER.get(word, word) for word in caption.split())


def changed(captions):
    return sum(there(caption) != caption for caption in captions)


tiny = {"size": 8}  # only the words matter here
clips, stills = MovingThings("train", **tiny, frames=1), MovingThings("train", **tiny, images=True)
print(f"captions of pictures that differ: {changed(stills.batch(range(1000)).captions)} of 1000")
print(f"captions of videos that differ:   {changed(clips.batch(range(1000)).captions)} of 1000")

# %% [markdown]
# Captions of videos do differ. But Make-A-Video is not given those. Of what it *is* given, pictures, their captions
# and videos, nothing differs. So the same training gives **the same model in both countries**, weight for weight.
# Asked for "a red circle that moves left", it makes the same clips here and there, and each of them is right in one
# country at most. A larger model or a longer training does not change that: what tells the countries apart is not in
# the data.
#
# The paper says so itself, in its discussion: what can be learnt only from a captioned video, such as whether somebody
# waves from left to right or from right to left, is out of reach.
#
# So the direction is right by luck. How much is luck?

# %%
lab.predict("18.a")

# %% [markdown]
# There are four directions, so a quarter? Let us count how the things of the training videos move.

# %%
from collections import Counter, defaultdict

ways = defaultdict(Counter)
for spec in clips.batch(range(4000)).specs:
    ways[spec.things[0].shape][spec.things[0].motion] += 1
SHAPES, DIRECTIONS = sorted(ways), ("left", "right", "up", "down")
lab.matrix([[100 * ways[shape][way] / ways[shape].total() for way in DIRECTIONS] for shape in SHAPES], SHAPES, DIRECTIONS,
           alt="In what percentage of the training videos each shape moves in each direction: for five of six shapes one of "
           "the four numbers is 0, and the others are near a third.")

# %% [markdown]
# What to see: the zeros. These are percentages of a row. Moving Things holds combinations back for its test of
# composition, so no training video shows a circle that moves down. The model cannot read "down", but it can see that
# circles never do it. Such a model, asked about the splits of the test:


# %%
def by_luck(split):
    """Share of right directions if each thing moves as some training video of its shape does."""
    things = [spec.things[0] for spec in MovingThings(split, **tiny, frames=1).batch(range(512)).specs]
    return sum(ways[thing.shape][thing.motion] / ways[thing.shape].total() for thing in things) / len(things)


print(f"combinations of training: {by_luck('test_seen'):.0%}, combinations held back: {by_luck('test_heldout'):.0%}, "
      f"a blind guess: {1 / 4:.0%}")

# %% [markdown]
# The better it has learnt from its videos, the further it is from a quarter, above on one split and below on the
# other, and it still does not know a single direction word. **Chance is what a model scores that knows everything but
# the answer.** Compute it before you compare with it. There is also a test that no odds can help with: the same
# thing, the same seed, all four directions. Here is the system, small and untrained, which is enough for this:

# %%
import warnings
from dataclasses import replace

import torch
from torch import nn

from minit2v.systems import build, find_preset
from minit2v.systems.makeavideo import MakeAVideo


def shaken(network, seed=1):
    """The network with noise on all its weights, as if it were trained: nothing may depend on a layer that is zero."""
    generator = ctx.generator(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return network


torch.manual_seed(0)
preset = find_preset("makeavideo")
small = {"channels": (16, 32), "head_dim": 8, "norm_groups": 8}
preset = replace(preset, height=32, width=32, steps=2, fill_steps=1,
                 **{name: replace(getattr(preset, name), **small) for name in ("unet", "between", "upscale")})
untrained = MakeAVideo(preset, **{name: shaken(network) for name, network in build(preset).items()})


def made(prompt, model=untrained):
    """Pixels (1, 3, f, H, W) that a model makes of a prompt, always from the same noise."""
    *_, last = model.stream(prompt, seed=1)
    return last.x


with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    four = [made(f"a red circle moves {way}") for way in DIRECTIONS]
print("it says:", told[0].message)
print("left, right, up and down are the same clip, bit for bit:", all(torch.equal(four[0], clip) for clip in four))
print("and a ring is another:", not torch.equal(four[0], made("a red ring")))

# %% [markdown]
# One clip for four prompts: at most one of the four can be right. That is 25 % at best, whatever was trained.
#
# **A labelled departure would close the gap.** Tell $D$ the caption as well, beside the image embedding, while it learns from
# videos that *have* captions. Then the two countries have different data, and "left" can be learnt. But that is another
# model with another claim: it needs what Make-A-Video does without. You know it. Text to each block, and captioned videos
# beside pictures: it is ModelScopeT2V. Section 7 puts the two side by side.
#
# ## 3 · Pictures learn to move
#
# $D$ is first trained as a model of pictures. How does it become one of videos? Notebook 08 added branches that end in zero.
# Make-A-Video goes another way with its convolutions. Each convolution within the frame (in ours, each of a residual block) is
# followed by one along time, **in the path itself**, and attention within the frame by attention along time, which is added:
#
# $$\text{Conv}_{P3D}(h) = \text{Conv}_{1D}\big(\text{Conv}_{2D}(h)\big) \quad (18.2), \qquad
# \text{Attn}_{P3D}(h) = h' + \text{Attn}_{1D}(h'),\;\; h' = \text{Attn}_{2D}(h) \quad (18.3)$$
#
# Two small kernels, 1 x 3 x 3 and 3 x 1 x 1, in the place of one of 3 x 3 x 3: hence *pseudo*-3D.

# %%
lab.predict("18.b")

# %% [markdown]
# What lies in the path must begin by passing everything on, so the convolution along time begins as the **identity**:
#
# $$W_{ij\tau} = \begin{cases} 1 & i = j \text{ and } \tau \text{ is the middle tap}\\ 0 & \text{else}\end{cases}, \qquad
# b = 0 \qquad (18.4)$$
#
# PyTorch calls it `nn.init.dirac_`, after the impulse that leaves a signal as it is.
#
# ### Exercise 18.1 · PseudoResBlock
#
# Difficulty 4/5 · importance 5/5 · 20 minutes
#
# Write both modules. `AlongTime(c)`: x ((b f), c, h, w), f -> the same shape; a 3-tap convolution along time.
#
# | name | layer |
# | --- | --- |
# | `conv` | `nn.Conv2d(c, c, (3, 1), padding=(1, 0))` over the view `b c f (h w)`, as in 8.1; starts as (18.4) |
#
# `PseudoResBlock` is the residual block of 07 with one of these after each of its two convolutions. The block itself
# is there: `conv1`, `norm1`, `embedding`, `norm2`, `dropout`, `conv2`, `skip` and `scale_shift` come from
# `blocks.ResBlock`, whose `forward` is printed below. Add:
#
# | name | layer |
# | --- | --- |
# | `time1`, `time2` | `AlongTime(c_out)`, directly after `conv1` and after `conv2` |
#
# `forward(x, emb, f=0)`: with f = 0 it is the block for pictures, and no layer along time runs.

# %%
from einops import rearrange
from torch.nn import functional as F

from minit2v.networks import blocks

lab.show_source(blocks.ResBlock.forward)

# %% [markdown]
# <details><summary>Hint 1</summary><code>AlongTime.forward</code>: fold with <code>rearrange(x, "(b f) c h w -> b c f (h
# w)", f=f)</code>, convolve, fold back with <code>h=x.shape[2]</code>. Nothing is added to x: it is the path.</details>
# <details><summary>Hint 2</summary>Copy the library's <code>forward</code>. After the line with <code>conv1</code> comes
# <code>h = self.time1(h, f) if f else h</code>. The last line adds the skip to what comes out of
# <code>time2</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# self.conv = nn.Conv2d(c, c, (3, 1), padding=(1, 0))
# nn.init.dirac_(self.conv.weight)
# nn.init.zeros_(self.conv.bias)
# ```
#
# ```python
# h = self.conv(rearrange(x, "(b f) c h w -> b c f (h w)", f=f))
# return rearrange(h, "b c f (h w) -> (b f) c h w", h=x.shape[2])
# ```
#
# ```python
# super().__init__(c_in, c_out, embedding_dim, groups, dropout, scale_shift)
# self.time1, self.time2 = AlongTime(c_out), AlongTime(c_out)
# ```
#
# ```python
# h = self.conv1(F.silu(self.norm1(x)))
# h = self.time1(h, f) if f else h
# emb = self.embedding(F.silu(emb))[:, :, None, None]
# if self.scale_shift:
#     scale, shift = emb.chunk(2, dim=1)
#     h = self.norm2(h) * (1 + scale) + shift
# else:
#     h = self.norm2(h + emb)
# h = self.conv2(self.dropout(F.silu(h)))
# return self.skip(x) + (self.time2(h, f) if f else h)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
class AlongTime(nn.Module):
    """x ((b f), c, h, w), f -> same."""

    def __init__(self, c):
        ### BEGIN SOLUTION
        super().__init__()
        self.conv = nn.Conv2d(c, c, (3, 1), padding=(1, 0))
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        ### END SOLUTION

    def forward(self, x, f):
        ### BEGIN SOLUTION
        h = self.conv(rearrange(x, "(b f) c h w -> b c f (h w)", f=f))
        return rearrange(h, "b c f (h w) -> (b f) c h w", h=x.shape[2])
        ### END SOLUTION


class PseudoResBlock(blocks.ResBlock):
    """x ((b f), c_in, h, w), emb ((b f), e), f -> ((b f), c_out, h, w); with f = 0 frames are independent."""

    def __init__(self, c_in, c_out, embedding_dim, groups, dropout, scale_shift):
        ### BEGIN SOLUTION
        super().__init__(c_in, c_out, embedding_dim, groups, dropout, scale_shift)
        self.time1, self.time2 = AlongTime(c_out), AlongTime(c_out)
        ### END SOLUTION

    def forward(self, x, emb, f=0):
        ### BEGIN SOLUTION
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.time1(h, f) if f else h
        emb = self.embedding(F.silu(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + emb)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.skip(x) + (self.time2(h, f) if f else h)
        ### END SOLUTION


# %%
lab.check("18.1", PseudoResBlock)

# %%
reference = made("a red ring")
with lab.swap(untrained, PseudoResBlock=lab.yours("18.1")) as swapped:
    same = torch.allclose(made("a red ring", swapped), reference, atol=1e-5)
print("your block, in all three networks, makes the same clip:", same)

# %% [markdown]
# *What if?* Begin with one third in each tap. Then each frame is the mean of three, after every convolution again, and the
# first thing that the model has to learn is to take its own smear back.
#
# Now the claim that all this is for. A network of pictures, with weights at random instead of trained ones; a video
# network that takes over all of them; six frames of noise. **At step 0 the clip is six independent pictures.**

# %%
from minit2v.networks.unet import ImageUNet
from minit2v.systems.makeavideo import MakeAVideoUNet


def first_answer(config):
    """What a new video network, which begins as a network of pictures, and that network itself say of one noisy clip."""
    torch.manual_seed(2)
    image, video = shaken(ImageUNet(config)), MakeAVideoUNet(config)
    video.load_state_dict(image.state_dict(), strict=False)  # layers along time are not among the image's weights
    x, t = torch.randn(1, config.in_channels, 6, 8, 8, generator=ctx.generator(3)), torch.tensor([500])
    context = torch.randn(1, 1, config.context_dim, generator=ctx.generator(4))
    with torch.no_grad():
        one_by_one = torch.cat([image(frame, t, context) for frame in x.split(1, dim=2)], dim=2)
        return video(x, t, context), one_by_one


paper = replace(preset.unet, frame_positions=False, scene_prior=False)  # without our shared departures
for name, config in {"the paper's": paper, "with our departures": preset.unet}.items():
    clip, independent = first_answer(config)
    print(f"{name}: the clip is six independent pictures: {torch.allclose(clip, independent, atol=1e-4)}")

# %% [markdown]
# The second line is the price of a departure. Ours are told the number of each frame from the first step on, by two
# layers that pictures never used and that are still random, so they begin as pictures that differ in their frame number.
#
# Zero and the identity differ in one more thing: who can learn. A branch that ends in zero grows from its end (08). With
# the identity, in a picture model that is trained, gradients pass through at once:

# %%
torch.manual_seed(0)
block = blocks.SpatioTemporalBlock(16, 16, True, preset.unet)
pseudo = lab.yours("18.1")(16, 16, 64, 8, 0.0, True)
shaken(block.res), nn.init.normal_(pseudo.conv2.weight, std=0.1)  # a trained picture model; a new conv2 is zero
x, emb, context = torch.randn(6, 16, 8, 8), torch.randn(6, 64), torch.randn(1, 1, preset.unet.context_dim)
(block(x, emb, context, 6).square().mean() + pseudo(x, emb, 6).square().mean()).backward()
for name, layers in {"08, four convolutions in a branch": block.temporal_conv.convs,
                     "18, two in the path": (pseudo.time1.conv, pseudo.time2.conv)}.items():
    learning = sum(bool(conv.weight.grad.abs().max() > 0) for conv in layers)
    print(f"{name}: {learning} of {len(layers)} learn in the first step")

# %% [markdown]
# ## 4 · In between
#
# $D$ makes four frames out of sixteen. $F$ makes the others. It is a diffusion model of whole clips, which is told what is
# known already, in channels beside the noisy clip: the known frames, zeros where nothing is known, and a **mask**,
#
# $$\text{known} = m \odot \text{frames}, \qquad \text{input} = [\,x_t,\; \text{known},\; m\,] \qquad (18.5)$$
#
# with $m_f = 1$ for a frame that is given and 0 for one that is to be made.

# %%
lab.predict("18.c")

# %% [markdown]
# ### Exercise 18.2 · conditioned
#
# Difficulty 2/5 · importance 4/5 · 12 minutes
#
# `keys` (b, c, k, h, w) are the key frames, `apart` is the number of frames from one to the next. Return the channels
# that stand beside the noisy clip, (b, c + 1, f, h, w): the known frames first, the mask last. The clip begins with
# the first key frame and ends with the last one.
#
# <details><summary>Hint 1</summary>f = apart · (k - 1) + 1: four frames, five apart, are the frames 0, 5, 10 and 15 of
# sixteen.</details>
# <details><summary>Hint 2</summary>Begin with <code>keys.new_zeros(b, c + 1, f, h, w)</code> and write into every
# <code>apart</code>-th frame.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# b, c, k, h, w = keys.shape
# known = keys.new_zeros(b, c + 1, apart * (k - 1) + 1, h, w)
# known[:, :c, ::apart] = keys
# known[:, c:, ::apart] = 1
# return known
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def conditioned(keys, apart):
    """Key frames (b, c, k, h, w), `apart` frames from one to the next -> (b, c + 1, apart (k - 1) + 1, h, w)."""
    ### BEGIN SOLUTION
    b, c, k, h, w = keys.shape
    known = keys.new_zeros(b, c + 1, apart * (k - 1) + 1, h, w)
    known[:, :c, ::apart] = keys
    known[:, c:, ::apart] = 1
    return known
    ### END SOLUTION


# %%
lab.check("18.2", conditioned)

# %%
from minit2v.pixels import to_signed

QUICK = 26  # a clip of test_seen in which a thing moves quickly
clip = MovingThings("test_seen")[QUICK].frames
keys = to_signed(clip[::5]).transpose(0, 1)[None]  # (f 3 H W) -> (1 3 f H W)
given = lab.yours("18.2")(keys, 5)[0].transpose(0, 1)  # (f c H W)
lab.strip({"the clip": clip, "known": given[:, :3], "mask": 1.5 * given[:, 3:].expand(-1, 3, -1, -1) - 1}, n=16,
          alt="Three rows of sixteen frames: a clip in which a thing moves; the same with all but every fifth frame grey; "
          "and a mask that is pale at every fifth frame and black elsewhere.")

# %% [markdown]
# What to see: the grey of the second row. It is the number 0, and 0 is a colour, too. The mask says that here it is not.
#
# *What if?* The mask need not be every fifth frame. `between` was trained on several, so that one network fills in, goes on,
# and animates a picture. Here is what it may be given:

# %%
frames = torch.arange(16)
tasks = {"between, five apart": frames % 5 == 0, "between, four apart": frames % 4 == 0,
         "between, two apart": frames % 2 == 0, "what comes next": frames < 6, "a picture that moves": frames < 1}
lab.matrix(torch.stack(list(tasks.values())).float(), list(tasks), range(16), xlabel="frame",
           alt="Five masks of sixteen frames: every fifth is given, every fourth, every second, the first six, and the first "
           "alone.")

# %% [markdown]
# On the command line these are `minit2v extend clip.mp4 --between 4` and `--after 8`.
#
# ## 5 · The same noise
#
# $S$ invents detail. Invented anew in every frame, it flickers. The paper enlarges twice. Its first network sees time, like
# $D$. The second one works on 768 pixels and cannot afford to: it enlarges each frame alone, **from the same noise**. A
# sampler without noise of its own (DDIM) is a function, so frames that are nearly equal come out nearly equal.
#
# ### Exercise 18.3 · upscaled
#
# Difficulty 3/5 · importance 3/5 · 12 minutes
#
# `model(x, noise)` enlarges pictures: x (n, c, h, w) and noise (n, c, 2h, 2w) give (n, c, 2h, 2w). `clip` is (b, c,
# f, h, w), and `generators` is a list of b generators, one for each clip. Return the enlarged clips, (b, c, f, 2h,
# 2w). The library's `gaussian(shape, generators)` draws noise whose i-th part comes from the i-th generator.
#
# <details><summary>Hint 1</summary>Draw (b, c, 2h, 2w), once. Fold the clip to ((b f), c, h, w) and give the model all
# frames at once, or one frame of all clips after the other.</details>
# <details><summary>Hint 2</summary>In ((b f) …) the frames of a clip lie beside one another: a a a b b b. Which of
# <code>noise.repeat(f, 1, 1, 1)</code> and <code>noise.repeat_interleave(f, dim=0)</code> is laid out like that?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# b, c, f, h, w = clip.shape
# noise = gaussian((b, c, 2 * h, 2 * w), generators).to(clip)
# made = model(rearrange(clip, "b c f h w -> (b f) c h w"), noise.repeat_interleave(f, dim=0))
# return rearrange(made, "(b f) c h w -> b c f h w", f=f)
# ```
# </details>
# <!-- END SOLUTION -->

# %%
from minit2v.diffusion.samplers import SAMPLERS, gaussian


# %% tags=["exercise"]
def upscaled(model, clip, generators):
    """model (x (n, c, h, w), noise (n, c, 2h, 2w)) -> (n, c, 2h, 2w); clip (b, c, f, h, w) -> (b, c, f, 2h, 2w)."""
    ### BEGIN SOLUTION
    b, c, f, h, w = clip.shape
    noise = gaussian((b, c, 2 * h, 2 * w), generators).to(clip)
    made = model(rearrange(clip, "b c f h w -> (b f) c h w"), noise.repeat_interleave(f, dim=0))
    return rearrange(made, "(b f) c h w -> b c f h w", f=f)
    ### END SOLUTION


# %%
lab.check("18.3", upscaled)

# %% [markdown]
# To see it without a trained network, take a world in which fine detail is nothing but grain. Then the perfect
# network is a formula: of what differs within a block of 2 x 2 pixels it keeps the share that is signal, and the rest
# of the picture it reads off the small one.

# %%
from minit2v.diffusion.process import Diffusion
from minit2v.systems.makeavideo import enlarged, halved

diffusion, GRAIN = Diffusion(replace(preset.diffusion, prediction="x0")), 0.4


def painter(x, noise):
    """The perfect enlargement in a world of grain, by DDIM: x (n, c, h, w), noise (n, c, 2h, 2w) -> (n, c, 2h, 2w)."""
    coarse = enlarged(x[:, :, None])

    def network(noisy, t):
        a = diffusion.alpha_bar[t].item()
        detail = noisy - enlarged(halved(noisy))
        return coarse + a**0.5 * GRAIN**2 / (a * GRAIN**2 + 1 - a) * detail

    *_, last = SAMPLERS["ddim"](network, noise[:, :, None], diffusion, 12)
    return last.x[:, :, 0]


one_noise = lab.yours("18.3")


def own_noise(model, clip, seed):
    """Each frame of a clip (1, c, f, h, w) from a noise of its own."""
    return torch.cat([one_noise(model, frame, [ctx.generator(seed + i)]) for i, frame in enumerate(clip.split(1, dim=2))], 2)


short = to_signed(MovingThings("test_seen", size=32, frames=8)[QUICK].frames).transpose(0, 1)[None]
still = short[:, :, :1].expand(-1, -1, 8, -1, -1)
painted = {name: {"own noise": own_noise(painter, one, 1), "the same noise": one_noise(painter, one, [ctx.generator(1)])}
           for name, one in {"a still": still, "a clip": short}.items()}
for name, of in painted.items():
    for noise, one in of.items():
        print(f"{name}, {noise}: {127.5 * one.diff(dim=2).abs().mean():.1f} grey levels from frame to frame")

# %%
lab.play({noise: one[0].transpose(0, 1) for noise, one in painted["a clip"].items()},
         alt="Two clips, a thing that moves over a grainy ground: with a noise for each frame the grain "
         "flickers, with the same noise it stands still on the screen.")

# %% [markdown]
# What to see: the flicker on the left, and its absence on the right. Now look at the thing on the right. It moves,
# and its grain does not move along: the detail is glued to the screen, like a dirty window before the scene. The same
# noise makes still things still. It does not make detail travel.
#
# *What if?* One can mix: noise that is partly shared by all frames and partly each frame's own. Later papers did that
# also for the key frames themselves.
#
# *Departure.* Our system has no second enlargement. Its `upscale` is like the paper's first: layers along time, and a
# noise for each frame.
#
# ## 6 · A bug hunt
#
# Somebody puts such layers into a picture model. The convolutions along time are to begin as the identity, and the attention
# as zero. Here is how, on one block of our network:

# %%
def ported(conv, project):
    """conv lies in the path; project ends a branch. Both are to begin so that nothing changes."""
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)
    nn.init.zeros_(project.weight)


def first_change(start, seed):
    """What new layers along time change in a block for some features: (f, c, h, w)."""
    torch.manual_seed(0)
    block = shaken(MakeAVideoUNet(preset.unet).down[1].blocks[0])
    block.temporal.proj_out.reset_parameters()
    for conv in (block.res.time1.conv, block.res.time2.conv):
        conv.reset_parameters()
        start(conv, block.temporal.proj_out)
    x, emb = torch.randn(6, 16, 8, 8, generator=ctx.generator(seed)), torch.randn(6, 64, generator=ctx.generator(8))
    with torch.no_grad():
        told = torch.zeros(1, 1, preset.unet.context_dim)
        return block(x, emb, told, 6) - block(x, emb, told, 6, temporal=False)


change = first_change(ported, 5)
print(f"largest change: {change.abs().max():.2f}; how much it differs")
for axis, name in enumerate(("frame", "channel", "row", "column")):
    print(f"  from {name} to {name}: {change.std(axis).max():.2f}")
print(f"  from clip to clip: {(first_change(ported, 6) - change).abs().max():.2f}")

# %% [markdown]
# The layers along time should change nothing, and they do. Read the table first. What would the change look like if
# the convolution mixed frames? If the attention looked at anything? What is the same for all frames, all places and
# all clips?
#
# ### Exercise 18.B · begun
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# Mend it. `conv` is a convolution along time with an odd number of taps, `project` a linear layer. Change their numbers in
# place. Both must be able to learn afterwards.
#
# <details><summary>Hint 1</summary>What a layer adds to every input alike does not come from its input.</details>
# <details><summary>Hint 2</summary>PyTorch draws the bias of a linear layer at random, too.
# <code>blocks.zeroed</code> from notebook 08 knows.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# nn.init.dirac_(conv.weight)
# nn.init.zeros_(conv.bias)
# nn.init.zeros_(project.weight)
# nn.init.zeros_(project.bias)
# ```
#
# The weight was zero and the bias was not. The branch ignored its input and added one random vector everywhere.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def begun(conv, project):
    """conv (in the path) and project (the end of a branch) so that they change nothing, in place."""
    ### BEGIN SOLUTION
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)
    nn.init.zeros_(project.weight)
    nn.init.zeros_(project.bias)
    ### END SOLUTION
    ### BEGIN STUDENT
    # nn.init.dirac_(conv.weight)
    # nn.init.zeros_(conv.bias)
    # nn.init.zeros_(project.weight)
    ### END STUDENT


# %%
lab.check("18.B", begun)

# %% [markdown]
# It is a small bug, and the model trains all the same. The promise can be broken more loudly: by a convolution along time that
# begins at random, or by a branch that does not begin as zero. No loss curve tells you. The test of section 3 does, in a
# second: **does the clip equal independent pictures?**
#
# ## 7 · The trained system
#
# From here on the system is the trained one. First the prior. It makes an image embedding of each prompt; which
# prompt does it fit best? Rows are what was asked for, columns what it is compared with.

# %%
import minit2v

pipe = minit2v.load("makeavideo", device=ctx.device)
LOOKS = ["a large red circle", "a large red ring", "a small red circle", "a large blue circle", "a small blue ring",
         "a large white cross"]
with torch.inference_mode():
    words = pipe.text.embed(LOOKS).to(pipe.device)
    images = pipe.embedded(words.to(pipe.dtype), [ctx.generator(i) for i in range(len(LOOKS))])
    fit = words.float() @ images.float().T

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the numbers are those of whatever weights are shipped
lab.matrix(fit.T, LOOKS, LOOKS, ylabel="made for", xlabel="compared with",
           alt="Cosines between image embeddings that the prior has made for six captions, and the text embeddings of the "
           "same six captions.")

# %% [markdown]
# How to read it: a row's largest number should stand on the diagonal. Where a row has another that is nearly as
# large, look which word the two captions do not share: the prior passes that word on least. And look at how large the
# numbers are at all. If a text and its picture were one vector, the diagonal would be 1, and nobody would need a prior.
#
# Now a clip, stage by stage.

# %%
with torch.inference_mode():
    run = {step.index: step.x[0].transpose(0, 1) for step in pipe.stream(LOOKS[0], seed=3)}
steps, fill = pipe.preset.steps, pipe.preset.fill_steps
stages = {"key frames": run[steps - 1], "and between": run[steps + fill - 1], "twice as large": run[steps + 2 * fill - 1]}
lab.strip(stages, n=16, alt="Three rows of sixteen frames: the key frames of the first stage, each held; the clip with the "
          "frames between them; and the same at twice the size.")

# %% [markdown]
# How to read it: in the first row only four pictures differ. Each is held for four columns; in the second row they stand at 0,
# 5, 10 and 15. Does the thing stay itself from one to the next, and does it move? That is $D$'s work. In the second row look
# at the frames between: $F$ knows where the thing was and where it will be. The third adds edges.
#
# What does $F$ add to the simplest ways to fill a gap? Here are the key frames of a real clip, so that we know the truth.

# %%
whole = MovingThings("test_seen")[QUICK].frames
place = torch.arange(16) / 5
before, after, part = place.floor().long(), place.ceil().long(), (place - place.floor())[:, None, None, None]
known = torch.from_numpy(whole[::5].copy()).float()
faded = ((1 - part) * known[before] + part * known[after]).round().byte().numpy()
filled = {"filled in": pipe.interpolated(whole[::5], 4), "faded": faded, "held": whole[::5].repeat(5, 0)[:16],
          "the truth": whole}
lab.TimeSwitch(filled, name="switch-18")

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the numbers are those of whatever weights are shipped
import numpy as np

new = np.arange(16) % 5 > 0
for name, one in filled.items():
    print(f"{name:10} {abs(one[new].astype(float) - whole[new]).mean():5.2f} grey levels from the truth, between key frames")

# %% [markdown]
# How to read it: press play and go from one to the next. *Held* stands and jumps. *Faded* has two half things at two
# places, and none between them: the mean of two pictures is no picture of the middle. In *filled in* there should be
# one thing, on its way. The numbers say how near each is to what happened. Key frames are given, so all four agree
# there.
#
# Next, detail. Your function of 18.3 runs the trained network frame by frame, without its layers along time and its frame
# numbers. Beside it is the library's way, all frames at once.

# %%
from minit2v.systems.makeavideo import FOLD_WHOLE, folded, unfolded


def trained_painter(x, noise):
    """The trained `upscale` on single pictures: x (n, 3, h, w), noise (n, 3, 2h, 2w) -> (n, 3, 2h, 2w)."""
    options = {"condition": folded(enlarged(x[:, :, None]), FOLD_WHOLE).to(pipe.dtype), "temporal": False}
    told = pipe.nothing.expand(len(x), -1, -1)

    def network(noisy, t):
        times = torch.full((len(x),), t, device=pipe.device)
        return pipe.upscale(noisy.to(pipe.dtype), times, told, **options).float()

    start = folded(noise[:, :, None], FOLD_WHOLE)
    *_, last = SAMPLERS["ddim"](network, start, pipe.later_diffusion, pipe.preset.fill_steps)
    return unfolded(last.x, FOLD_WHOLE)[:, :, 0].clamp(-1, 1)


with torch.inference_mode():
    half = halved(to_signed(whole).transpose(0, 1)[None]).to(pipe.device)
    alone = {"own noise": own_noise(trained_painter, half, 1),
             "the same noise": one_noise(trained_painter, half, [ctx.generator(1)])}
    at_once = to_signed(pipe.whole(half, 1)).transpose(0, 1)[None]

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the numbers are those of whatever weights are shipped
truth = to_signed(whole).transpose(0, 1)[None]
for name, one in (alone | {"all frames at once": at_once}).items():
    error = one.cpu() - truth
    print(f"{name:18} {127.5 * error.abs().mean():5.2f} grey levels from the truth; the error changes by "
          f"{127.5 * error.diff(dim=2).abs().mean():5.2f} from frame to frame")

# %% [markdown]
# How to read it: the first number is the error of a frame, the second its flicker. Compare the first two rows: it is the
# same network, asked the same question with other noise. In the third row it has its layers along time and its frame numbers.
# It was trained with them, so the first two rows show what is lost when they are taken away, not what a network without them would have
# learnt (08). And our things are plain. There is little detail to invent, so do not expect the differences of section 5.
#
# Last, direction. Both models make the same four prompts of each look, with one seed: Make-A-Video, and `mini`, a ModelScopeT2V, which
# has heard captions of videos. The judge reads which way the thing goes.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many clips are made depends on the mode
from minit2v.evaluation import judge

looks = ["a large red circle", "a small blue ring"][: ctx.pick(fast=1, default=2)]
for name, (model, options) in {"Make-A-Video": (pipe, {}), "mini": (ctx.pipe, {"steps": 6})}.items():
    right = 0
    for look in looks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Make-A-Video leaves the words of motion out, and says so
            read = [judge.read(model(f"{look} moves {way}", seed=5, **options).pixels).motion for way in DIRECTIONS]
        right += sum(found == way for found, way in zip(read, DIRECTIONS))
        print(f"{name:12} {look}: {', '.join(f'{way} -> {found}' for way, found in zip(DIRECTIONS, read))}")
    print(f"{name:12} right: {right} of {4 * len(looks)}\n")

# %% [markdown]
# How to read it: in the rows of Make-A-Video all four answers are the same word, for it is one clip. At most one in four can
# be right, as section 2 has proved; none is if the judge can read no direction at all. In the rows of `mini` the answer should
# follow the question. The two models differ in more than captions, so this shows *that* there is a gap; section 2 has proved
# why. But look also at what Make-A-Video did without captions of videos: is it the right thing, in the right colour, and does
# it move?
#
# ## Takeaways
#
# 1. What a model cannot tell apart in its data it cannot know. Two worlds that differ in what "left" means give
#    Make-A-Video the same data. And chance is not one in four, but what a model scores that knows everything else.
# 2. New layers must change nothing at first: the identity in the path, zero at the end of a branch, and their biases
#    too. Test it: the clip equals independent pictures.
# 3. Interpolation, extrapolation and animation are one network with another mask. The same noise for all frames stops
#    flicker, and it glues detail to the screen.
#
# ## Quiz

# %%
lab.quiz(18)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(18)

# %% [markdown]
# ## Further reading
#
# - Singer and others, [Make-A-Video](https://arxiv.org/abs/2209.14792), section 3: the chain (18.1), the pseudo-3D
#   layers, and frame interpolation; section 5 says what it cannot learn.
# - Ramesh and others, [Hierarchical text-conditional image generation](https://arxiv.org/abs/2204.06125), section 5.1:
#   the prior, and what comes out without one.
# - Ge and others, [Preserve your own correlation](https://arxiv.org/abs/2305.10474): noise that is partly shared by
#   all frames.
#
# **Next:** [19 · Seven systems](19_seven_systems.ipynb) lets all of them answer the same prompts.
# [docs/systems.md](../docs/systems.md) has the figures.
