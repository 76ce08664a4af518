# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Video is a tensor
#
# **Clips are a block of numbers with five axes. Here you cut it, fold it and measure it.**
#
# **You will**
# - read the shape `b c f h w` at sight, and recognise numbers of the wrong range by their look
# - make captioned clips in code, and read a clip back without a neural network
# - fold clips for layers that look within a frame and for layers that look along time, and unfold them again
# - measure change, flicker and motion, and say what each measure cannot see
# - find a bug that mixes two videos although every shape is right
#
# **You need** [00 · Take-off](00_take_off.ipynb), and arrays: indexing, slices, `reshape`. No neural networks.
#
# **Time** reading 14 minutes · running 5 to 60 seconds (fast mode the same) · exercises 28 minutes

# %%
from minit2v import lab

ctx = lab.setup(1)

# %% [markdown]
# ## 1 · What does a computer hold when it holds a video?
#
# We begin with a clip about which we know everything, because a program draws it from its caption: `parse` reads the
# caption, `render` draws what it says, `Clip` keeps the frames together with their speed.

# %%
import numpy as np
import torch
from einops import rearrange

from minit2v.datasets.moving_things import MovingThings, caption, parse
from minit2v.datasets.moving_things.scenes import render
from minit2v.video import Clip


def draw(text, place=(0.5, 0.5, 0.0)):
    """The clip that a caption describes; place, 0 to 1 each, says where in the picture its path lies."""
    return Clip(render([parse(text)], np.array([place]), size=64, frames=16)[0], fps=8)


clip = draw("a large red circle moves quickly left")
print(clip)
lab.play(clip, alt="A red disc on a dark grey ground moves from the right edge to the left edge, again and again.")

# %% [markdown]
# What to see: sixteen still pictures, again and again. There is no motion in any of them. Your eye makes it from the
# *differences* between them, and this notebook will do the same with numbers.

# %%
pixels = clip.pixels
print("shape (f, H, W, c):", pixels.shape, "· type:", pixels.dtype)
print("frame 8, row 32, column 20:", pixels[8, 32, 20], "· top left corner:", pixels[8, 0, 0])
lab.predict("How many numbers does this clip hold?", 16 * 64 * 64 * 3)

# %% [markdown]
# Four axes: 16 frames (`f`), 64 rows (`H`), 64 columns (`W`), and three numbers a pixel for red, green and blue (`c`,
# channels), each from 0 to 255. That is all there is in a video. No object, no motion, no caption.
#
# The product is 196,608. Seven words have to become that many numbers; with 256 x 256 pixels it would be three million.
# How many of them are free to vary? Section 6 comes back to that.
#
# A block can be cut in more than one direction. Let us take row 32 of *every* frame and put these rows under one
# another. Downwards is now time.

# %%
captions = ("a large red circle moves quickly left", "a large red circle moves slowly left",
            "a large red circle moves quickly up", "a large red circle stays still")  # fmt: skip
slices = [draw(text).pixels[:, 32] for text in captions]  # (f, H, W, c) -> (f, W, c)
lab.sheet(
    [np.repeat(one, 4, axis=0) for one in slices],  # every row four times, so that the pictures are square
    ["quickly left", "slowly left", "quickly up", "stays still"],
    columns=4,
    alt="Four pictures with time running down: a red band slanted to the left, one half as slanted, a red patch in the "
    "middle that begins and ends, and an upright red band.",
)

# %% [markdown]
# What to see: motion has become *shape*. Twice the speed is twice the slant, and what stays is upright. The circle that
# moves up enters our row and leaves it. A network that is to understand motion has to see such slants.
#
# ### Two orders of the same numbers
#
# Files, screens and numpy keep the three colours of a pixel side by side, `f H W c`. Networks in PyTorch want channels
# first, and clips come in batches. This is the order of the whole course:
#
# $$x_{b\,c\,f\,h\,w}\qquad\text{clip, channel, frame, row, column}$$
#
# `rearrange`, of the library *einops*, goes by names. Read its pattern as a sentence: "what lies as f H W c is to lie
# as c f H W, in a batch of 1".

# %%
x = rearrange(torch.from_numpy(pixels), "f H W c -> 1 c f H W")
print("b c f H W =", tuple(x.shape))
print("the same number in both orders:", int(x[0, 0, 8, 32, 20]), "=", int(pixels[8, 32, 20, 0]))

# %% [markdown]
# Nothing was computed; every number only has a new address. Capital `H W` are always pixels. Small `h w` are the eight
# times smaller latents, or frames of any kind, as in the exercises below.
#
# ## 2 · Which numbers? The trap of the range
#
# A byte holds 0 to 255. Networks prefer numbers around zero, so pixels are mapped to $[-1, 1]$ and back:
#
# $$x = \frac{p}{127.5} - 1 \quad (1.1)\qquad\qquad p = 255\,\Big(\frac{x}{2} + \frac12\Big) \quad (1.2)$$
#
# Nothing in a tensor tells its range. Three are in use: 0 to 255, 0 to 1 and −1 to 1. A function that is given the
# wrong one does not complain, so it is worth knowing what each mistake *looks* like.

# %%
from minit2v.pixels import to_signed

lab.show_source(to_signed)
frame = pixels[8].astype(np.float32)  # 0..255
signed = frame / 127.5 - 1  # -1..1
to_bytes = lambda unit: (unit.clip(0, 1) * 255).astype(np.uint8)
lab.sheet(
    [to_bytes(signed / 2 + 0.5), to_bytes(signed), to_bytes(frame / 255 / 2 + 0.5), to_bytes(frame / 255 / 255)],
    ["right", "-1..1 taken for 0..1", "0..1 taken for -1..1", "0..1 taken for 0..255"],
    columns=4,
    alt="The same frame four times: right; with a pure black ground; pale, as if behind fog; and all black.",
)

# %% [markdown]
# What to see: the second loses its darker half to black. The third lies in fog, because its black, 0, is the middle of
# −1 to 1. The fourth is black, since 1 is almost nothing in 255 (the other way round, all is white). When a video model
# shows you fog, suspect the range before you suspect the weights.
#
# There is a smaller trap in (1.2). The released model cuts fractions off instead of rounding, and our pipeline does as
# the release does: it calls the next function with `rounded=False`. How many of the 256 levels survive the way there
# and back?

# %%
from minit2v.pixels import to_pixels

lab.show_source(to_pixels)
levels = np.arange(256, dtype=np.uint8)
there = levels.astype(np.float32) / np.float32(127.5) - 1  # float32, as a network computes
back = (there / 2 + 0.5).clip(0, 1) * 255
changed = np.flatnonzero(back.astype(np.uint8) != levels)
print("changed when cut off:", len(changed), "of 256, the levels", changed.min(), "to", changed.max())
print("changed when rounded:", int((back.round().astype(np.uint8) != levels).sum()), "of 256")

# %% [markdown]
# All levels below a quarter, but 0, come back one step darker. Near −1, float32 has too few digits to tell 24 from
# 23.999999, and that is cut down to 23. Nobody sees one step. But it adds up if a model is fed its own output again and
# again.
#
# ## 3 · How fast? Frames are not seconds
#
# Speed on the screen is distance *per frame* times frames *per second*, and only the first is in the numbers. What
# happens if we keep every second frame? We ask a *judge*, a program that reads a thing's attributes from pixels;
# section 8 opens it.

# %%
from minit2v.evaluation import judge

slow = draw("a large red circle moves slowly left").pixels
print("all 16 frames of a slow clip: ", judge.read(slow).speed)
print("every second frame of it:     ", judge.read(slow[::2]).speed)

# %% [markdown]
# The judge sees frames, not seconds, and so does every network in this course. Train on videos of 24 frames a second
# mixed with videos of 8, and "slowly" means two different things. Data sets are therefore brought to one rate first.
# (For the screen, a `Clip` carries its rate: `Clip(pixels, fps=16)` plays the same numbers in one second.)
#
# ## 4 · Captioned clips without a camera
#
# Training needs pairs of a clip and a sentence about it. Captions found on the internet are often vague or about
# something else. Ours come from a program, so the truth is known exactly. In the middle stands a *spec*, a small
# record: a caption says it, a clip shows it.

# %%
spec = parse("a small blue ring slides rapidly upwards")
print(spec.things[0])
print(*(caption(spec, style=style) for style in (0, 3, 7)), caption(spec, "zh"), sep="\n")
said = {caption(spec, language, style=style) for language in ("en", "zh") for style in range(200)}
print(len(said), "different captions, all read back as the same spec:", all(parse(text) == spec for text in said))
samples = [MovingThings("train")[i] for i in (1, 3, 4)]
lab.strip(
    {sample.caption: sample.frames for sample in samples},
    alt="Three rows of eight frames, each row a coloured shape that moves as the caption above it says.",
)

# %% [markdown]
# `parse` is the exact inverse of `caption`. That sounds small. It means that a program can ask whether a clip shows
# what its caption says, and ask it thousands of times.
#
# What to see: three clips of a million. `MovingThings("train")[i]` draws number i when you ask for it, the same on
# every computer. Some captions leave out the size or the speed, on purpose: people do so too.
#
# ### What the training set leaves out
#
# Has a model that draws a red circle understood *red* and *circle*, or has it seen that picture before? To tell, some
# combinations must never be in the training set. Let us find out which, by counting.

# %%
from minit2v.datasets.moving_things.render import COLOURS, SHAPES

looks = {}
for images in (False, True):  # clips, then still pictures
    data = MovingThings("train", images=images)
    specs = [data.text(i)[1] for i in range(ctx.pick(fast=2500, default=6000))]
    looks[images] = {(spec.things[0].shape, spec.things[0].colour) for spec in specs}
seen = [[2 * ((s, c) in looks[False]) or int((s, c) in looks[True]) for c in COLOURS] for s in SHAPES]
print("never:", ", ".join(f"{c} {s}" for s, row in zip(SHAPES, seen) for c, how in zip(COLOURS, row) if not how))
lab.matrix(
    seen, rows=SHAPES, columns=COLOURS,
    alt="Shapes against colours. Most pairs are seen in clips; all with heart, star, purple or orange in still "
    "pictures only; seven pairs, such as a yellow circle, never.",
)  # fmt: skip

# %% [markdown]
# What to see: 2 is a pair that the training set has in clips, 1 in still pictures only, 0 not at all. There is no
# yellow circle, but there are yellow things and circles: a model that draws one has put together what it knows. Heart
# and star, purple and orange are a harder test. They are known from pictures and never move. Large models are trained
# on pictures *and* clips in the hope that this works; the [README](../README.md) says how far our small one gets.
#
# ## 5 · Folds: look at a frame, look along time
#
# A network that treats all five axes at once is expensive. Ours takes turns. One layer looks *within* frames and takes
# each frame for a picture of its own; the next looks *along time* and takes each pixel for a sequence of its own. For
# that, the axes that a layer does not look at are folded into the batch:
#
# $$\text{within a frame: } (b\,f)\;c\;h\;w \qquad\qquad \text{along time: } (b\,h\,w)\;f\;c$$
#
# A bracket means: these axes become one, and the *last* name in it runs fastest. In `(b f)` come all frames of clip 0,
# then all frames of clip 1. The widget shows two clips of three frames, each two by two pixels with two channels. Its
# buttons choose the fold. Choose an element (arrow keys work too), and follow it.

# %%
lab.FoldViz(
    (2, 2, 3, 2, 2),
    ["b c f h w -> (b f) c h w", "b c f h w -> (b h w) f c"],
    colour=("b", "f"),
    name="folds-of-a-clip",
)

# %% [markdown]
# What to see: the hue tells the clip, the lightness the frame. In `(b f) c h w` every picture has a single shade, so a
# layer cannot mix frames. In `(b h w) f c` every block has all shades of one hue: one pixel through the whole of time.
# No block has two hues: the members of a batch do not meet.
#
# Two kinds of layers look along time; we call them *temporal*. *Attention* compares all frames of a pixel and wants
# `(b h w) f c`. A *convolution* mixes each frame with its neighbours and wants `b c f (h w)`, where `(h w)` is one axis
# because it does not matter where a pixel lies. The library goes from frames to that order and back by two functions,
# (1.3) and (1.4). The first is given `f`, because `b f` alone does not say how many clips there are.

# %%
from minit2v.networks.blocks import clip_view, frame_view

b, c, f, h, w = 2, 3, 5, 4, 6  # all different, so that no axis can be taken for another
clips = torch.arange(b * c * f * h * w).reshape(b, c, f, h, w)
frames = rearrange(clips, "b c f h w -> (b f) c h w")
i, t = 1, 3  # clip 1, frame 3
print("frame number i * f + t =", i * f + t, "· is it the right one:", torch.equal(frames[i * f + t], clips[i, :, t]))
lab.show_source(clip_view)
lab.show_source(frame_view)

# %% [markdown]
# ### What it costs: views and copies
#
# Memory has no axes. It is one long row of numbers, and a tensor is that row with a *stride* for each axis: how far to
# go for the next element. A `permute` only exchanges strides, so it is free. A fold is free if its axes lie one behind
# the other in memory. If they do not, `reshape` makes a copy, and says nothing.

# %%
same_memory = lambda a, b: a.data_ptr() == b.data_ptr()
x = torch.randn(2 * 5, 3, 4, 6)  # (b f) c h w
turned, rows = x.permute(0, 2, 3, 1), rearrange(x, "(b f) c h w -> (b h w) f c", f=5)
print("(b f) c h w:    strides", x.stride())
print("permuted:       strides", turned.stride(), "· free:", same_memory(x, turned))
print("(b h w) f c:    strides", rows.stride(), "· free:", same_memory(x, rows))
for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
    ordered = x.contiguous(memory_format=layout)
    view = clip_view(ordered, 5)
    ready = view.is_contiguous(memory_format=torch.channels_last)
    print(f"b c f (h w) of {name} frames · free: {same_memory(ordered, view)} · channels_last: {ready}")

# %% [markdown]
# The first line says: one step along w is 1 in memory, along h it is 6 (a row), along c 24 (a channel), and 72 to the
# next frame. The fold for temporal attention has to copy, because in memory frames and channels lie between `b` and
# `h`. The view for temporal convolutions is free, but a view can be in an order that the next layer cannot use.
# Convolutions on a CPU are fast if the channels of a pixel lie side by side, which PyTorch calls `channels_last`. So on
# a CPU our network keeps its frames that way from end to end, and the view for time has the right order at once.
#
# ### Exercise 1.1 · to_time
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write `to_time(frames, f)`: frames `((b f) c h w)` become rows `((b h w) f c)`, as temporal attention wants them. Use
# `reshape` and `permute`, no einops and no loop. This is what is meant:
#
# ```python
# for i in range(b):
#     for t in range(f):
#         for y in range(h):
#             for x in range(w):
#                 rows[(i * h + y) * w + x, t] = frames[i * f + t, :, y, x]
# ```
#
# <details><summary>Hint 1</summary>Three steps: cut the axis (b f) in two, bring the five axes into the new order, join
# three of them. Write the names of the axes behind each line.</details>
# <details><summary>Hint 2</summary>After the first step you have b f c h w, and you want b h w f c. A reshape keeps the
# order in which the numbers are read; only permute changes it.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# n, c, h, w = frames.shape
# clips = frames.reshape(n // f, f, c, h, w)  # b f c h w
# return clips.permute(0, 3, 4, 1, 2).reshape(-1, f, c)  # b h w f c, then (b h w) f c
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def to_time(frames, f):
    """Frames ((b f) c h w) -> a batch of pixels ((b h w) f c)."""
    ### BEGIN SOLUTION
    n, c, h, w = frames.shape
    clips = frames.reshape(n // f, f, c, h, w)  # b f c h w
    return clips.permute(0, 3, 4, 1, 2).reshape(-1, f, c)  # b h w f c, then (b h w) f c
    ### END SOLUTION


# %%
lab.check("1.1", to_time)

# %% [markdown]
# *What if?* Leave the permute out: right shape, wrong numbers. This happened in the attention of a published video
# autoencoder ([Open-Sora-Plan, issue 171](https://github.com/PKU-YuanGroup/Open-Sora-Plan/issues/171)).
#
# ### A bug hunt
#
# A colleague wrote the way back and tested it: one clip in, the same clip out. Then they unfolded two clips at once.

# %%
def broken_unfold(frames, f):
    """Frames ((b f) c h w) as clips (b c f h w)."""
    clips = frames.reshape(f, -1, *frames.shape[1:])
    return clips.permute(1, 2, 0, 3, 4)


circle, square = draw("a large red circle moves quickly left"), draw("a large blue square moves slowly down")
both = rearrange(torch.from_numpy(np.stack([circle.pixels, square.pixels])), "b f H W c -> (b f) c H W")
for frames in (both[:16], both):
    clips = broken_unfold(frames, f=16)
    print("clips", tuple(clips.shape), "· clip 0 is right:", torch.equal(clips[0], both[:16].transpose(0, 1)))
lab.strip(
    {f"clip {i} of two, as unfolded": rearrange(clips[i], "c f H W -> f H W c") for i in range(2)},
    alt="Two rows of eight frames. In both, a red circle moves left in the first four frames, and a blue square moves "
    "down in the last four.",
)

# %% [markdown]
# What to see: both clips begin with the circle and end with the square, and everything is twice as fast. No error, and
# the test with one clip stays green. In the middle of a network nobody would see more than "quality drops with larger
# batches".
#
# It was shipped, too. A widely used implementation of Stable Video Diffusion laid a tensor out as `(h w b)` where the
# layer expected `(b h w)`: right for one video, wrong for two ([diffusers, pull request
# 7268](https://github.com/huggingface/diffusers/pull/7268)).
#
# ### Exercise 1.B · unfold
#
# Difficulty 2/5 · importance 5/5 · 5 minutes
#
# Mend `unfold(frames, f)`: frames `((b f) c h w)` become clips `(b c f h w)`, for any number of clips.
#
# <details><summary>Hint 1</summary>Which is the fastest name in (b f)? And which is the faster of the two axes that the
# reshape makes?</details>
# <details><summary>Hint 2</summary>Cut the axis as (b, f): first the clips, then their frames. The permutation then
# starts from b f c h w.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# clips = frames.reshape(-1, f, *frames.shape[1:])  # b f c h w
# return clips.permute(0, 2, 1, 3, 4)  # b c f h w
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def unfold(frames, f):
    """Frames ((b f) c h w) as clips (b c f h w)."""
    ### BEGIN SOLUTION
    clips = frames.reshape(-1, f, *frames.shape[1:])  # b f c h w
    return clips.permute(0, 2, 1, 3, 4)  # b c f h w
    ### END SOLUTION
    ### BEGIN STUDENT
    # clips = frames.reshape(f, -1, *frames.shape[1:])
    # return clips.permute(1, 2, 0, 3, 4)
    ### END STUDENT


# %%
lab.check("1.B", unfold)

# %% [markdown]
# *What if* both orders stand side by side? The two patterns below give the same shape; look at the hues (the second one
# is the wrong one). The lesson is worth more than the fix: **test folds with sizes that are all different, and none of
# them 1.**

# %%
lab.FoldViz(
    {"b": 2, "f": 4, "c": 1, "h": 2, "w": 2},
    ["(b f) c h w -> b c f h w", "(f b) c h w -> b c f h w"],
    colour=("b", "f"),
    name="right-and-wrong-unfold",
)

# %% [markdown]
# ## 6 · What changes?
#
# Now to the differences. The *temporal difference* $d_t = x_{t+1} - x_t$ is positive where it gets brighter and
# negative where it gets darker. Sixteen frames have fifteen.

# %%
wrong = pixels[1:] - pixels[:-1]  # bytes
right = pixels[1:].astype(np.float32) - pixels[:-1]
print("least and greatest change:", right.min(), right.max(), "· as bytes:", wrong.min(), wrong.max())
lab.sheet(
    [pixels[7], pixels[8], wrong[7], right[7].mean(-1)],
    ["frame 7", "frame 8", "difference as bytes", "difference"],
    columns=4,
    alt="Two frames of a red circle; their difference as bytes, with glaring coloured crescents; their difference in "
    "grey, with a light crescent at the left edge of the circle and a dark one at its right.",
)

# %% [markdown]
# What to see: in the last picture the circle gains ground at its left edge (light) and loses some at its right (dark),
# so it moves left. The third picture is the classic accident. Bytes know no negative numbers: 24 − 235 wraps around to
# 45, and a loss looks like a gain.
#
# ### Exercise 1.2 · temporal_difference
#
# Difficulty 1/5 · importance 4/5 · 5 minutes
#
# Write `temporal_difference(clips)`: clips `(b c f h w)`, uint8 or float, give differences `(b c f-1 h w)`, float.
#
# ```python
# for t in range(f - 1):
#     result[:, :, t] = clips[:, :, t + 1] - clips[:, :, t]
# ```
#
# <details><summary>Hint 1</summary>All frames but the first, minus all frames but the last.</details>
# <details><summary>Hint 2</summary>Convert before you subtract, not after. Frames are axis 2, so a slice of them is
# written <code>clips[:, :, 1:]</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# clips = clips.float()
# return clips[:, :, 1:] - clips[:, :, :-1]
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def temporal_difference(clips):
    """Clips (b c f h w), uint8 or float -> frame t + 1 minus frame t, (b c f-1 h w) float."""
    ### BEGIN SOLUTION
    clips = clips.float()
    return clips[:, :, 1:] - clips[:, :, :-1]
    ### END SOLUTION


# %%
lab.check("1.2", temporal_difference)

# %% [markdown]
# *What if?* Take the difference of the differences. For a steady motion, where is it zero?
#
# ### How redundant is a clip?
#
# Back to the question of section 1. Two hundred thousand numbers: how many of them are news?

# %%
unchanged = float((right == 0).mean())
lab.predict("Which percentage of the numbers is exactly the same one frame later?", round(100 * unchanged), tolerance=4)

# %%
def explained(truth, guess):
    """Share of the variance of frames that a guess explains: 1 is perfect, 0 is no better than their mean."""
    truth, guess = truth.astype(float), guess.astype(float)
    return 1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()


print(f"unchanged one frame later: {unchanged:.0%}")
lags, speeds = range(9), {"slow": slow, "quick": pixels}
lab.curves(
    {name: (lags, [explained(p[lag:], p[: len(p) - lag]) for lag in lags]) for name, p in speeds.items()},
    xlabel="frames between the guess and the truth",
    ylabel="variance explained",
    alt="Two curves that start at 1 and fall: the slow clip's gently, the quick one's twice as fast and below zero.",
)

# %% [markdown]
# What to see: the simplest guess about the next frame is that nothing happens. It gets more than nine numbers in ten
# exactly right. But it gets worse with every frame, and for the quick clip, from the fifth on, it is worse than a
# uniform grey. The redundancy is why a video can be squeezed into latents. And the few numbers that change are what the
# video is *about*: a model that repeats its first frame is right almost everywhere, and shows nothing of "moves left".
#
# ## 7 · Flicker
#
# Generated videos often look nervous: things shimmer, the ground breathes. How to measure that? Often the mean size of
# the differences is taken ([VBench](https://arxiv.org/abs/2311.17982) does so, on scenes where nothing should move).
# But it cannot tell flicker from motion: a quick circle counts as more nervous than a slow one.
#
# Think of one pixel. Where a thing passes, it changes and *stays* changed for a while. Where it flickers, the next
# frame takes the change back. So let us count only what is taken back:
#
# $$\text{flicker} = \operatorname{mean}\; \begin{cases}\min(|d_t|, |d_{t+1}|) & \text{if } d_t\, d_{t+1} < 0\\ 0 & \text{otherwise}\end{cases}$$
#
# ### Exercise 1.3 · flicker
#
# Difficulty 3/5 · importance 4/5 · 10 minutes
#
# Write `flicker(clips)`: clips `(b c f h w)`, float, with at least three frames, give one number a clip, `(b,)`.
#
# ```python
# for t in range(1, f - 1):  # for every clip, channel, row and column
#     a, d = x[t] - x[t - 1], x[t + 1] - x[t]
#     if a * d < 0:
#         total += min(abs(a), abs(d))
# flicker = total / (c * (f - 2) * h * w)
# ```
#
# <details><summary>Hint 1</summary>First all differences. Then two slices of them: all but the last, and all but the
# first.</details>
# <details><summary>Hint 2</summary>An <code>if</code> over a whole tensor is a product with truth values:
# <code>value * (a * d &lt; 0)</code>. The smaller of two tensors is <code>torch.minimum</code>; <code>mean</code> takes
# a tuple of axes.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# difference = clips[:, :, 1:] - clips[:, :, :-1]
# a, d = difference[:, :, :-1], difference[:, :, 1:]
# taken_back = torch.minimum(a.abs(), d.abs()) * (a * d < 0)
# return taken_back.mean(dim=(1, 2, 3, 4))
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def flicker(clips):
    """Clips (b c f h w) float -> (b,): the mean of what the next frame takes back."""
    ### BEGIN SOLUTION
    difference = clips[:, :, 1:] - clips[:, :, :-1]
    a, d = difference[:, :, :-1], difference[:, :, 1:]
    taken_back = torch.minimum(a.abs(), d.abs()) * (a * d < 0)
    return taken_back.mean(dim=(1, 2, 3, 4))
    ### END SOLUTION


# %%
lab.check("1.3", flicker)

# %% [markdown]
# *What if?* A thing that "blinks" (`draw("a large red circle stays still and blinks")`) is bright for two frames and
# dim for two. What does your measure say, and do you agree?
#
# ## 8 · Reading motion from pixels
#
# Differences say *that* something moves. Where to? The *centroid* is the mean position of all pixels, each weighted by
# how much it differs from the ground. And the best straight line through the centroids has the slope $v$, the velocity:
#
# $$\bar x_t = \frac{\sum_{y,x} m_t(y,x)\,x}{\sum_{y,x} m_t(y,x)} \quad (1.5)\qquad\qquad
# v = \frac{\sum_t (t - \bar t)\,\bar x_t}{\sum_t (t - \bar t)^2} \quad (1.6)$$

# %%
def centroid(pixels):
    """Where the thing is in each frame: pixels (f, H, W, c) -> x and y, (f,) each, in pixels."""
    weight = abs(pixels.astype(float) - pixels[0, 0, 0]).sum(-1)  # how unlike the corner; (f, H, W, c) -> (f, H, W)
    mass, place = weight.sum((1, 2)), np.arange(pixels.shape[1])
    return weight.sum(1) @ place / mass, weight.sum(2) @ place / mass


lab.show_source(judge._line)  # the library's; below, by hand
t = np.arange(16) - 7.5
moving = {text.removeprefix("a large red circle "): centroid(draw(text).pixels)[0] for text in captions}
for text, x in moving.items():
    print(f"{text:20} v = {round(t @ x / (t @ t), 2) + 0.0:+.2f} pixels a frame")  # + 0.0 makes -0.0 to 0.0
lab.curves(
    {text: (range(16), x) for text, x in moving.items()},
    xlabel="frame",
    ylabel="x of the centroid, pixels",
    alt="Horizontal position over time: two straight lines that fall, one twice as steep, and two level lines.",
)

# %% [markdown]
# What to see: the slants of section 1, now as numbers. The program that drew the quick clip had 0.038 picture widths a
# frame in mind, and 0.038 × 64 = 2.43. Three lines have read it back. (A circle that moves up does not move sideways;
# for it take y.)
#
# The library's judge does the same with more care. It finds the ground, forgets specks far from the thing, fits the
# line, and *abstains* when the centroids do not follow it: no answer is better than a guess if you want to trust a
# thousand answers.
#
# ## 9 · Shuffle, freeze, reverse
#
# An instrument should be tested before it is believed. So we damage the clip in ways that we understand. Think before
# you scroll: which damage does the mean difference overlook? Which does the flicker, which does the judge?

# %%
rng = np.random.default_rng(0)
lamp = np.where(np.arange(16) % 2, 0.8, 1.0)[:, None, None, None]  # every second frame is darker
damaged = {
    "as drawn": pixels,
    "frozen": pixels[:1].repeat(16, axis=0),
    "reversed": pixels[::-1].copy(),
    "shuffled": rng.permutation(pixels),
    "bad lamp": (pixels * lamp).astype(np.uint8),
    "noisy": np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8),
}
lab.play(damaged, alt="Six versions of the clip: as drawn, standing still, backwards, jumping, pulsing, and noisy.")

# %%
from minit2v.lab.course.checks import nb01  # the library's solutions: this works before you have solved anything

batch = lambda p: rearrange(torch.from_numpy(p).float(), "f H W c -> 1 c f H W")
print(f"{'':12} {'difference':>10} {'flicker':>8}   judge")
for name, p in damaged.items():
    change, nervous = nb01.temporal_difference(batch(p)).abs().mean().item(), nb01.flicker(batch(p)).item()
    reading = judge.read(p)
    seen = f"{reading.colour} {reading.shape}, {reading.motion}, {reading.speed}"
    print(f"{name:12} {change:10.1f} {nervous:8.1f}   {seen}")

# %% [markdown]
# - **Frozen**: no clip can do better in either measure. Only the judge finds no motion in it. (It says None both when
#   nothing moves and when it is not sure.)
# - **Reversed**: difference and flicker do not know the direction of time. The judge reads "right".
# - **Shuffled**: every single frame is perfect, so a measure that looks at frames one by one cannot see it. The flicker
#   can, and the judge abstains from motion.
# - **Bad lamp** and **noisy**: the flicker jumps up, and the judge is not disturbed at all. It was built to read
#   through such things, so it is no measure of how a clip *looks*.
#
# Every measure is blind to something. Use two that are blind to different things, and try them on a frozen clip first.
#
# ## 10 · The same instruments on a generated clip
#
# Now let the model make the clip that we have drawn, and look at both through their changes, enlarged forty times.

# %%
made = ctx.pipe("a large red circle moves quickly left", seed=0).pixels
enlarged = lambda p: (40 * abs(p[1:].astype(float) - p[:-1])).clip(0, 255).astype(np.uint8)
nervous = {name: nb01.flicker(batch(p)).item() for name, p in {**damaged, "generated": made}.items()}
print("generated:", judge.read(made))
print("it flickers more than ten times as much as the drawn one:", nervous["generated"] > 10 * nervous["as drawn"])
print("and less than a tenth of the shuffled one:", nervous["generated"] < nervous["shuffled"] / 10)
lab.strip(
    {"drawn": pixels, "its change": enlarged(pixels), "generated": made, "change of the generated": enlarged(made)},
    alt="A drawn and a generated clip of a red circle that moves left, each above its changes. The drawn one changes "
    "at the edge of the circle only; in the generated one the inside and the ground change a little as well.",
)

# %% [markdown]
# What to see: in the drawn clip two crescents change and all else is still. In the generated one the edge wobbles, and
# around it lies a shimmer that your eye, without the enlargement, forgives: the model paints every frame a little
# differently. It has learnt that the circle moves left and almost, but not quite, that a ground stays what it is.
# To hold the frames together is the work of its temporal layers.
#
# ## Takeaways
#
# 1. A batch of clips is `b c f h w`. Nothing in it tells the range or the frame rate; you have to know both.
# 2. A layer looks along some axes and takes the others for a batch: `(b f) c h w` within frames, `(b h w) f c` along
#    time. The order of the names in a bracket matters, and a batch of one hides it.
# 3. Frames are almost copies of each other, and the small rest is the motion. Every measure of it is blind to
#    something: try it on frozen, reversed and shuffled clips.
#
# ## Quiz

# %%
lab.quiz(1)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(1)

# %% [markdown]
# ## Further reading
#
# - [Einops: Clear and Reliable Tensor Manipulations](https://openreview.net/forum?id=oapKSVM2bcj), Alex Rogozhnikov:
#   why names in a pattern beat numbers in a `permute`.
# - [Video Diffusion Models](https://arxiv.org/abs/2204.03458), section 3: half a page on how a network for pictures
#   becomes one for video by folding axes into the batch. After this notebook it reads like prose.
# - [Tensor Puzzles](https://github.com/srush/Tensor-Puzzles), Sasha Rush: if you liked exercises with loops, here are
#   twenty-one more.
#
# **Next:** [02 · Squeezing frames](02_squeezing_frames.ipynb): 48 of these numbers become one, and the picture
# survives.
