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
# - measure change and flicker, and write an instrument that reads from pixels where a thing goes and how fast
# - say what each measure cannot see
# - find a bug that mixes two videos although every shape is right
#
# **You need** [00 · Take-off](00_take_off.ipynb), and arrays: indexing, slices, `reshape`. No neural networks.
#
# **Time** reading 21 minutes · running 5 to 60 seconds (fast mode the same) · exercises 48 minutes

# %%
from minit2v import lab

ctx = lab.setup(1)

# %% [markdown]
# ## 1 · What does a computer hold when it holds a video?
#
# We begin with a clip about which we know everything, because a program draws it from its caption. `parse` reads the
# caption, `render` draws what the caption says, and `Clip` keeps the frames together with their speed.

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
lab.play(clip, alt="A red disc on a dark grey ground moves from the right edge to the left edge.")

# %% [markdown]
# Open *play* below the picture to see the clip move. What to see: sixteen still pictures, shown again and again; the row above
# has eight of them. There is no motion in any of them. Your eye makes the motion from the *differences* between the pictures,
# and this notebook will do the same with numbers. But first: how many numbers are there? Take the same clip at 256 × 256
# pixels.

# %%
lab.predict("1.a")

# %%
pixels = clip.pixels
print("shape (f, H, W, c):", pixels.shape, "· type:", pixels.dtype, f"· numbers: {pixels.size:,}")
print(f"at 256 x 256 pixels: {16 * 256 * 256 * 3:,} numbers")
print("frame 8, row 32, column 20:", pixels[8, 32, 20], "· top left corner:", pixels[8, 0, 0])

# %% [markdown]
# The clip has four axes: 16 frames (`f`), 64 rows (`H`), 64 columns (`W`), and three numbers for each pixel (`c`, the
# channels), one for red, one for green and one for blue. Each number is a byte, a whole number from 0 to 255. That is all
# there is in a video. No object is in it, no motion, no caption.
#
# The product of the four sizes is 196,608. So seven words have to become that many numbers. At 256 × 256 pixels there are
# sixteen times as many, three million. How many of them are free to vary? Section 6 comes back to that.
#
# ### The block, cut open
#
# Put the frames behind one another, and the clip becomes a solid block: columns run to the right, rows downwards, and time
# into the depth. On its front you see frame 0. Now cut the block open at row 32. On the upper face of what is left
# lies row 32 of *every* frame.

# %%
from minit2v.lab.course.drawings.clip_blocks import cut_apart, cut_open

cut_open(
    clip,
    {"the clip, frame 0 in front": 0, "cut open at row 32": 32},
    alt="Two blocks whose axes are row, column and frame. On the front of the whole block is a red disc on a dark ground. "
    "The other block is cut through the disc, and on its upper face the disc has left a red band that runs into the "
    "depth, slanted to the left of the block's edges.",
)

# %% [markdown]
# What to see: on the cut, the disc has become a band. Frame by frame it lies further to the left, so the band leans
# away from the edges of the block. Look at such a cut straight from above, with time running downwards, and compare four
# clips.

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
# What to see: motion has become *shape*. Twice the speed is twice the slant, and a thing that stays is an upright band. The
# circle that moves up enters our row and leaves it again. A network that is to understand motion has to see such slants,
# and no single frame shows one.
#
# ### Two orders of the same numbers
#
# Files, screens and numpy keep the three colours of a pixel side by side, in the order `f H W c`. Networks in PyTorch want
# the channels before the rows and columns, and they work on several clips at once, a *batch* (`b`). This is the order of
# the whole course:
#
# $$x_{b\,c\,f\,h\,w}\qquad\text{clip, channel, frame, row, column}$$
#
# To go from one order to the other we use `rearrange` of the library *einops*. It goes by names. Read its pattern as a
# sentence: "what lies as f H W c is to lie as c f H W, in a batch of 1".

# %%
x = rearrange(torch.from_numpy(pixels), "f H W c -> 1 c f H W")
print("b c f H W =", tuple(x.shape))
print("the same number in both orders:", int(x[0, 0, 8, 32, 20]), "=", int(pixels[8, 32, 20, 0]))

# %% [markdown]
# Nothing was computed; every number only has a new address. Capital `H W` always count pixels. Small `h w` count cells of
# any kind: pixels, as in the exercises below, or the eight times smaller *latents* of notebook 02.
#
# ## 2 · Which numbers? The trap of the range
#
# A byte holds 0 to 255. Networks learn best from numbers around zero, so pixels are mapped to $[-1, 1]$ and back:
#
# $$x = \frac{p}{127.5} - 1 \quad (1.1)\qquad\qquad p = 255\,\Big(\frac{x}{2} + \frac12\Big) \quad (1.2)$$
#
# Nothing in a tensor tells its range. Three ranges are in use: 0 to 255, 0 to 1 and −1 to 1. A function that is given the
# wrong one does not complain, so it is worth knowing what each mistake *looks* like. We take one frame and let a function
# that expects one range show it although it has another.

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
# What to see: the second picture has lost its darker half, because all numbers below 0 became black. The third lies in fog.
# Its black was 0, and 0 is the middle grey of −1 to 1. The fourth is black, since 1 is almost nothing in 255 (the
# other way round, all is white). When a video model shows you fog, suspect the range before you suspect the weights.
#
# There is a smaller trap in (1.2). The result has fractions, and a byte has none. The obvious thing is to round. The
# released model cuts fractions off instead, and our pipeline does as the release does: it calls the library's `to_pixels`
# with `rounded=False`. All 256 levels go to $[-1, 1]$ and come back. What happens to them?

# %%
lab.predict("1.b")

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
# Most levels survive. But those in the lowest quarter, except 0 itself, come back one step darker. The reason is the
# number format: close to −1, float32 has too few digits to tell 24 from 23.999999, and the latter is cut down to 23. Nobody
# sees one step. But it adds up if a model is fed its own output again and again.
#
# ## 3 · How fast? Frames are not seconds
#
# Speed on the screen is distance *per frame* times frames *per second*, and only the first of the two is in the numbers.
# What happens if we keep every second frame of a slow clip? We ask a *judge*, a program that looks at the pixels and names
# colour, shape, direction and speed of the thing. In section 8 you will write the part that reads the motion.

# %%
from minit2v.evaluation import judge

slow = draw("a large red circle moves slowly left").pixels
print("all 16 frames of a slow clip: ", judge.read(slow).speed)
print("every second frame of it:     ", judge.read(slow[::2]).speed)

# %% [markdown]
# The same circle on the same path, and the judge calls it quick. It sees frames, not seconds, and so does every network in
# this course. If you train on videos of 24 frames a second mixed with videos of 8, "slowly" means two different things. Data
# sets are therefore brought to one rate first. (For the screen, a `Clip` carries its rate: `Clip(pixels, fps=16)` plays the
# same numbers in one second.)
#
# ## 4 · Captioned clips without a camera
#
# Training needs pairs of a clip and a sentence about it. Captions found on the internet are often vague or about
# something else. Ours come from a program, so the truth is known exactly. Between the caption and the clip stands a
# *spec*, a small record of what is to be seen. A caption says it, a clip shows it.

# %%
spec = parse("a small blue ring slides rapidly upwards")
print(spec.things[0])
print(*(caption(spec, style=style) for style in (0, 3, 7)), caption(spec, "zh"), sep="\n")
said = {caption(spec, language, style=style) for language in ("en", "zh") for style in range(200)}
print(f"{len(said)} different captions of this spec, read back, give {len({parse(text) for text in said})} spec")
samples = [MovingThings("train")[i] for i in (1, 3, 4)]
lab.strip(
    {sample.caption: sample.frames for sample in samples},
    alt="Three rows of eight frames, each row a coloured shape that moves as the caption above it says.",
)

# %% [markdown]
# `parse` undoes `caption`: whichever words a caption chose, all that it says comes back. That sounds small. It means that a
# program can ask whether a clip shows what its caption says, and ask it thousands of times.
#
# What to see: three clips of a million. `MovingThings("train")[i]` draws number i when you ask for it, and draws the same
# on every computer. Some captions leave out the size or the speed, on purpose: people do so too.
#
# ### What the training set leaves out
#
# Has a model that draws a red circle understood *red* and *circle*, or has it seen that very picture before? To tell the
# two apart, some combinations must never be in the training set. Let us find out which ones, by counting.

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
# What to see: a 2 is a pair of shape and colour that the training set has in clips, a 1 is one that it has in still
# pictures only, and a 0 is one that it never has. There is no yellow circle, but there are yellow things and there are
# circles. A model that draws a yellow circle has put together what it knows. Heart and star, purple and orange are a
# harder test: they are known from pictures and never move. Large models are trained on pictures *and* clips in the hope
# that this works; the [README](../README.md) says how far our small one gets.
#
# ## 5 · Folds: look at a frame, look along time
#
# A network that treats all five axes at once is expensive. Ours takes turns. One layer looks *within* frames and takes
# each frame for a picture of its own. The next looks *along time* and takes each pixel for a sequence of its own.
#
# How do you tell a layer which axes to look at? You do not. A layer treats the first axis as a batch, a list of things
# that have nothing to do with one another, and looks along the others. So you put the axes that it should *not* look at
# into the batch:
#
# $$\text{within a frame: } (b\,f)\;c\;h\;w \qquad\qquad \text{along time: } (b\,h\,w)\;f\;c$$
#
# A bracket means that these axes become one. This is called a *fold*, and to undo it is called to *unfold*. Here are two
# small clips of four frames, two rows and three columns. A small block is one pixel of one frame, with all its channels.

# %%
cut_apart(
    2, 4, 2, 3,
    alt="Two small clips, one blue and one orange, each a block of four frames, two rows and three columns, paler towards "
    "the last frame. First both blocks are whole. Then each is cut into four plates, its frames. Then each is cut into six "
    "rods of four small blocks, which run from the first frame to the last.",
)  # fmt: skip

# %% [markdown]
# What to see: the numbers stay what they are, and only the cuts differ. A layer within frames gets eight plates, each with
# a single lightness, so it cannot mix frames. A layer along time gets twelve rods, each with all four lightnesses: one
# pixel through the whole of time. And no plate and no rod has two colours. The members of a batch do not meet.
#
# One question is left: in which order do the plates and the rods lie in the new axis? In a bracket the *last* name runs
# fastest. In `(b f)` come all frames of clip 0, then all frames of clip 1. In `(b h w)` come the pixels of the first row of
# clip 0, then those of its second row. The widget shows two clips of three frames, each two by two pixels with two
# channels. Its buttons choose the fold. Choose an element (arrow keys work too), and follow it.

# %%
lab.FoldViz(
    (2, 2, 3, 2, 2),
    ["b c f h w -> (b f) c h w", "b c f h w -> (b h w) f c"],
    colour=("b", "f"),
    name="folds-of-a-clip",
)

# %% [markdown]
# What to see: the hue tells the clip and the lightness the frame; here the last frame is the darkest, in the drawing it was
# the palest. Frame $t$ of clip $i$ has become number $i f + t$ of the batch. Let us check that with numbers, in sizes that are
# all different, so that no axis can be taken for another.

# %%
b, c, f, h, w = 2, 3, 5, 4, 6
clips = torch.arange(b * c * f * h * w).reshape(b, c, f, h, w)
frames = rearrange(clips, "b c f h w -> (b f) c h w")
i, t = 1, 3  # clip 1, frame 3
print("clips", tuple(clips.shape), "· frames", tuple(frames.shape))
apart = [int((frames[n] != clips[i, :, t]).sum()) for n in range(b * f)]
print("numbers in which each of the frames differs from frame 3 of clip 1:", *apart)
print("i * f + t =", i * f + t)

# %% [markdown]
# ### Exercise 1.1 · to_time
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write `to_time(frames, f)`: frames `((b f) c h w)` become rows `((b h w) f c)`, as a layer along time wants them. Use
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
# *What if?* Leave the permute out. The shape is right and the numbers are in the wrong places. This happened in the
# attention of a published video autoencoder ([Open-Sora-Plan, issue
# 171](https://github.com/PKU-YuanGroup/Open-Sora-Plan/issues/171)).
#
# ### A bug hunt
#
# A colleague wrote the way back, from frames to clips, and tested it: one clip in, the same clip out. Then they unfolded two
# clips at once.

# %%
def broken_unfold(frames, f):
    """Frames ((b f) c h w) as clips (b c f h w)."""
    clips = frames.reshape(f, -1, *frames.shape[1:])
    return clips.permute(1, 2, 0, 3, 4)


circle, square = draw("a large red circle moves quickly left"), draw("a large blue square moves slowly down")
both = rearrange(torch.from_numpy(np.stack([circle.pixels, square.pixels])), "b f H W c -> (b f) c H W")
for frames in (both[:16], both):
    clips = broken_unfold(frames, f=16)
    right = sum(torch.equal(clips[0, :, t], both[t]) for t in range(16))
    print("clips", tuple(clips.shape), "· frames of clip 0 in their right places:", right, "of 16")
lab.strip(
    {f"clip {i} of two, as unfolded": rearrange(clips[i], "c f H W -> f H W c") for i in range(2)},
    alt="Two rows of eight frames. In both, a red circle moves left in the first four frames, and a blue square moves "
    "down in the last four.",
)

# %% [markdown]
# What to see: both clips begin with the circle and end with the square, and everything is twice as fast. There is no error
# message, and the test with one clip stays green. In the middle of a network nobody would see more than "quality drops
# with larger batches".
#
# ### Exercise 1.B · unfold
#
# Difficulty 2/5 · importance 5/5 · 5 minutes
#
# Mend `unfold(frames, f)`: frames `((b f) c h w)` become clips `(b c f h w)`, for any number of clips.
#
# <details><summary>Hint 1</summary>Which name is the fastest in (b f)? And which is the faster one of the two axes that the
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
# Here are both orders side by side. The two patterns give the same shape. Look at the hues: in the second pattern, the wrong
# one, every clip has both. The lesson is worth more than the fix: **test folds with sizes that are all different, and none of
# them 1.**
#
# Such a bug has been shipped. A widely used implementation of Stable Video Diffusion laid a tensor out as `(h w b)` where
# the layer expected `(b h w)`: right for one video, wrong for two ([diffusers, pull request
# 7268](https://github.com/huggingface/diffusers/pull/7268)).

# %%
lab.FoldViz(
    {"b": 2, "f": 4, "c": 1, "h": 2, "w": 2},
    ["(b f) c h w -> b c f h w", "(f b) c h w -> b c f h w"],
    colour=("b", "f"),
    name="right-and-wrong-unfold",
)

# %% [markdown]
# ### What a fold costs: views and copies
#
# Two kinds of layers look along time; we call them *temporal*. *Attention* compares all frames of a pixel and wants
# `(b h w) f c`, as in exercise 1.1. A *convolution* mixes each frame with its neighbours and wants `b c f (h w)`. There
# `(h w)` is one axis, because it does not matter to this layer where a pixel lies. The library goes from frames to that
# order and back by two functions, (1.3) and (1.4). The first is given `f`, because `(b f)` alone does not say how many
# clips there are; the second is given the frames that it has to look like.

# %%
from minit2v.networks.blocks import clip_view, frame_view

lab.show_source(clip_view)
lab.show_source(frame_view)

# %% [markdown]
# A network folds and unfolds hundreds of times for each clip that it makes. Does it move all numbers about each time?

# %%
lab.predict("1.c")

# %% [markdown]
# Memory has no axes. It is one long row of numbers, and a tensor is that row with a *stride* for each axis: how far to go
# for the next element. A `permute` only exchanges strides, so it is free. A fold is free if its axes lie one behind the
# other in memory. If they do not, `reshape` makes a copy, and says nothing. You find out by asking where the first number
# of a tensor lies in memory.

# %%
copied = lambda old, new: 0 if old.data_ptr() == new.data_ptr() else new.numel()
x = torch.randn(2 * 5, 3, 4, 6)  # (b f) c h w
turned, rows = x.permute(0, 2, 3, 1), rearrange(x, "(b f) c h w -> (b h w) f c", f=5)
print("(b f) c h w:  strides", x.stride())
print("(b f) h w c:  strides", turned.stride(), "· numbers copied:", copied(x, turned))
print("(b h w) f c:  strides", rows.stride(), "· numbers copied:", copied(x, rows))
for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
    ordered = x.contiguous(memory_format=layout)
    view = clip_view(ordered, 5)
    print(f"b c f (h w) of {name} frames:  strides {view.stride()} · numbers copied: {copied(ordered, view)}")

# %% [markdown]
# The first line says: one step along w is 1 in memory, one along h is 6 (a row), one along c is 24 (a channel), and the
# next frame is 72 further on. The fold for temporal attention has to copy, because in memory the channels and frames lie
# between `b` and `h`. The view for temporal convolutions is free.
#
# A free view can still be slow, because the next layer has to work in the order that it finds. Convolutions on a
# CPU are fast if the channels of a pixel lie side by side, with stride 1 for `c`. PyTorch calls that `channels_last`. Compare
# the second stride in the last two lines. On a CPU our network keeps its frames in `channels_last` from end to end, and so
# the view for time has the right order at once.
#
# ## 6 · What changes?
#
# Now to the differences between frames, from which the eye makes motion. How much of a clip changes at all?

# %%
lab.predict("1.d")

# %% [markdown]
# The *temporal difference* $d_t = x_{t+1} - x_t$ is positive where a pixel gets brighter and negative where it gets darker.
# Sixteen frames have fifteen differences. We compute them twice: with the bytes as they are, and with floats.

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
# What to see: the last picture is grey where nothing changes. At its left edge the circle arrives (light), at its right edge
# it leaves (dark), so it moves left. The third picture is the classic accident. Bytes know no negative numbers: 24 − 235 wraps
# around to 45, and a loss looks like a gain.
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
# Back to the question of section 1. Two hundred thousand numbers: how many of them are news? The simplest guess about the
# next frame is that it is the same as this one. We count where this guess is exactly right. Then we ask how good it is over
# longer times, in a number that you may know from statistics: the share of the variance that a guess explains.

# %%
def explained(truth, guess):
    """Share of the variance of frames that a guess explains: 1 is perfect, 0 is no better than their mean."""
    truth, guess = truth.astype(float), guess.astype(float)
    return 1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()


difference = lab.yours("1.2")(rearrange(torch.from_numpy(pixels), "f H W c -> 1 c f H W"))
print(f"numbers that are the same one frame later: {(difference == 0).double().mean():.0%}")
lags, speeds = range(9), {"slow": slow, "quick": pixels}
lab.curves(
    {name: (lags, [explained(p[lag:], p[: len(p) - lag]) for lag in lags]) for name, p in speeds.items()},
    xlabel="frames between the guess and the truth",
    ylabel="variance explained",
    alt="Two curves that start at 1 and fall: the slow clip's gently, the quick one's twice as fast and below zero.",
)

# %% [markdown]
# What to see: one frame later the guess still explains most of what a frame shows. But it gets worse with every frame, and for
# the quick clip it is no better than a uniform grey after four frames, and worse after that (below 0). The redundancy is why a
# video can be squeezed into latents. And the few numbers that change are what the video is *about*. A model that repeats its
# first frame is right almost everywhere, and shows nothing of "moves left".
#
# ## 7 · Flicker
#
# Generated videos often look nervous: things shimmer, the ground breathes. How can that be measured? Often the mean size of
# the differences is taken ([VBench](https://arxiv.org/abs/2311.17982) does so, on scenes where nothing should move).
# But this number cannot tell flicker from motion: a quick circle counts as more nervous than a slow one.
#
# Think of one pixel. Where a thing passes, the pixel changes and *stays* changed for a while. Where it flickers, the next
# frame takes the change back. So let us count only what is taken back. If a pixel gets brighter by 5 and then darker by
# 2, then 2 have been taken back; if it gets brighter twice, nothing has. In a formula, with the mean over all
# channels, rows, columns and pairs of neighbouring differences:
#
# $$\text{flicker} = \operatorname{mean}\; \begin{cases}\min(|d_t|, |d_{t+1}|) & \text{if } d_t\, d_{t+1} < 0\\ 0 & \text{otherwise}\end{cases}$$
#
# ### Exercise 1.3 · flicker
#
# Difficulty 3/5 · importance 4/5 · 10 minutes
#
# Write `flicker(clips)`: clips `(b c f h w)`, float, with at least three frames, give one number for each clip, `(b,)`. For
# one clip `x` this is what is meant:
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
# Differences say *that* something moves. Where does it go, and how fast? For one thing on a plain ground this can be read
# from the pixels without any learning. First find where the thing is in each frame. Give each pixel a weight $m$: how
# unlike the ground it is. The *centroid* is the mean position of all pixels, each counted by its weight. It has a
# column $\bar x_t$ and, with $y$ in the place of $x$, a row $\bar y_t$. Then lay the best straight line through the
# centroids. Its slope $v$ is the velocity:
#
# $$\bar x_t = \frac{\sum_{y,x} m_t(y,x)\,x}{\sum_{y,x} m_t(y,x)} \quad (1.5)\qquad\qquad
# v = \frac{\sum_t (t - \bar t)\,\bar x_t}{\sum_t (t - \bar t)^2} \quad (1.6)$$
#
# By hand, for a "video" of four frames with a single row of six pixels:
#
# | $t$ | weights of the pixels 0 to 5 | centroid | $t - \bar t$ |
# | --- | --- | --- | --- |
# | 0 | 0 3 1 0 0 0 | (3 · 1 + 1 · 2) / 4 = 1.25 | −4/3 |
# | 1 | 0 0 3 1 0 0 | (3 · 2 + 1 · 3) / 4 = 2.25 | −1/3 |
# | 2 | 0 0 0 0 0 0 | 0 / 0: nothing is shown | |
# | 3 | 0 0 0 0 3 1 | (3 · 4 + 1 · 5) / 4 = 4.25 | 5/3 |
#
# Frame 2 has no centroid, so it has no part in the line, and $\bar t$ is the mean of 0, 1 and 3, which is 4/3. The sum
# above the line of (1.6) is 14/3, and so is the sum below it: $v = 1$, one pixel a frame. Why a line, and not just the
# last place minus the first? Because the places are never exact in a real clip, and the line makes use of all of them.
#
# In a real clip, two more things have to be decided. What is the *ground*? The colour of a corner will not do, since a thing
# may lie there, and neither will the mean colour, since a large thing pulls it away. The *median* does. Sort all
# numbers of a channel: most of them are ground, so the one in the middle is ground. And what about noise? Thousands of
# pixels that differ from the ground a little outweigh a small thing. So weights below a *threshold* become zero.
#
# ### Exercise 1.4 · velocities
#
# Difficulty 3/5 · importance 4/5 · 20 minutes
#
# Exercise 0.4 followed one clip and gave a word. Now write the whole instrument, for many clips at once and in numbers.
# `velocities(clips, threshold=60)`: clips `(b c f h w)`, uint8, with any number of channels, give
# `(b, 2)`, float: the x and the y of each clip's velocity, in pixels a frame. Columns are counted from the left and
# rows from the top, so what moves down has a positive y. The steps, with the shapes of what they give:
#
# 1. **Ground** `(b c)`: for each clip and each channel the median over all its frames, rows and columns.
# 2. **Weights** `(b f h w)`: the sizes of the differences from the ground, added up over the channels. A weight below
#    `threshold` becomes 0; one that equals it stays.
# 3. **Centroids** `(b f)`, once for x and once for y: equation (1.5).
# 4. **Velocity** `(b 2)`: equation (1.6), through those frames alone in which some weight is left; $t$ is the
#    number of such a frame in the clip.
# 5. The instrument **abstains** where fewer than two frames show anything: x and y are then NaN, "not a number".
#
# <details><summary>Hint 1</summary>Steps 1 to 3 need no loop. Bytes have to become floats first. Flatten the last three
# axes for the median, and give the ground three new axes before you subtract it. For the column of the centroid add the
# weights up over the rows, then weigh what is left with 0, 1, 2, … In step 4 a loop over the clips is simplest, because each
# clip leaves out different frames.</details>
# <details><summary>Hint 2</summary><code>clips.flatten(2).median(dim=2).values</code> is step 1. With
# <code>mass = weight.sum(dim=(2, 3))</code> the frames of clip i that show something are <code>mass[i] &gt; 0</code>, and a
# mask like this also selects: <code>torch.arange(f)[mask]</code>, <code>x[i, mask]</code>. A division 0 / 0 gives NaN without
# a complaint: what is t minus its mean if there is one frame?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# b, c, f, h, w = clips.shape
# clips = clips.float()
# ground = clips.flatten(2).median(dim=2).values  # b c
# weight = (clips - ground[:, :, None, None, None]).abs().sum(dim=1)  # b f h w
# weight = weight * (weight >= threshold)
# mass = weight.sum(dim=(2, 3))  # b f
# x = weight.sum(dim=2) @ torch.arange(w).float() / mass  # rows added up: b f w; then b f
# y = weight.sum(dim=3) @ torch.arange(h).float() / mass
# found = []
# for place, shown in zip(torch.stack([x, y], dim=-1), mass > 0):  # of each clip: f 2, and f
#     t = torch.arange(f)[shown].float()
#     t = t - t.mean()
#     found.append(t @ place[shown] / (t @ t))  # 0 / 0 is NaN
# return torch.stack(found)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def velocities(clips, threshold=60):
    """Clips (b c f h w) uint8 -> (b, 2): x and y in pixels a frame, NaN where fewer than two frames show a thing."""
    ### BEGIN SOLUTION
    b, c, f, h, w = clips.shape
    clips = clips.float()
    ground = clips.flatten(2).median(dim=2).values  # b c
    weight = (clips - ground[:, :, None, None, None]).abs().sum(dim=1)  # b f h w
    weight = weight * (weight >= threshold)
    mass = weight.sum(dim=(2, 3))  # b f
    x = weight.sum(dim=2) @ torch.arange(w).float() / mass  # rows added up: b f w; then b f
    y = weight.sum(dim=3) @ torch.arange(h).float() / mass
    found = []
    for place, shown in zip(torch.stack([x, y], dim=-1), mass > 0):  # of each clip: f 2, and f
        t = torch.arange(f)[shown].float()
        t = t - t.mean()
        found.append(t @ place[shown] / (t @ t))  # 0 / 0 is NaN
    return torch.stack(found)
    ### END SOLUTION


# %%
lab.check("1.4", velocities)

# %% [markdown]
# Now let it read. First the four clips of section 1.

# %%
read = lab.yours("1.4")
batch = lambda *some: rearrange(torch.from_numpy(np.stack(some)), "b f H W c -> b c f H W")
for text, v in zip(captions, read(batch(*(draw(text).pixels for text in captions)))):
    x, y = (round(number, 2) + 0.0 for number in v.tolist())  # + 0.0 makes -0.0 to 0.0
    print(f"{text:38} x {x:+.2f}, y {y:+.2f} pixels a frame")

# %% [markdown]
# These are the slants of section 1, now as numbers. The program that drew the quick clip had 0.038 picture widths a frame
# in mind, and 0.038 × 64 = 2.43. A few lines of sums have read it back. Do they also read clips that nobody has chosen
# for them? Here are the first 64 of a set that no model was trained on, with several shapes, colours and sizes.

# %%
shown, _, specs = MovingThings("val").batch(range(64))
found = read(batch(*shown)).numpy()
way = [("left", "right")[int(x > 0)] if abs(x) > abs(y) else ("up", "down")[int(y > 0)] for x, y in found]
agreed = sum(one == spec.things[0].motion for one, spec in zip(way, specs))
print(f"direction as the caption says: {agreed} of {len(specs)} clips")
ends = found * [1, -1]  # so that up is up
lab.points({"velocities": ends}, apart=True, paths={"velocities": np.stack([0 * ends, ends])},
           alt="A cross of lines from the middle to the velocities of 64 clips, in pixels a frame. On each of its four "
               "arms are two dots, one near the middle and one twice as far out.")  # fmt: skip

# %% [markdown]
# What to see: each line leads from the middle, which is rest, to the velocity of one clip. There are sixty-four, and they
# end in only eight places. Four directions and two speeds are all that this set knows, and the instrument finds them
# without being told.
#
# *What if?* Let the ground be striped: then no single colour fills most of the picture. See what becomes of the quick clip,
# and what the threshold has to do with it.

# %%
striped = batch(draw("a large red circle moves quickly left on a striped background").pixels)
for threshold in (30, 60, 200):
    x = round(read(striped, threshold)[0, 0].item(), 2)
    print(f"striped ground, threshold {threshold:3}: x {x:5.2f} pixels a frame")

# %% [markdown]
# With a low threshold the stripes count as part of the thing. They stand still, so they pull every centroid towards their
# own middle, and the velocity seems smaller than it is. With a high one nothing is left of the thing either, and the
# instrument abstains. No single number is right for all clips: every instrument has a setting that somebody chose.
#
# The library's judge does the same with more care. It forgets specks that lie far from the thing, and it fits the
# line as you did. But it also keeps what the line leaves over, and *abstains* when the centroids do not follow the line:
# no answer is better than a guess, if you want to trust a thousand answers.

# %%
lab.show_source(judge._line)

# %% [markdown]
# ## 9 · Shuffle, freeze, reverse
#
# An instrument should be tested before it is believed. So we damage the clip in ways that we understand: it stands still,
# runs backwards, has its frames in a random order, is lit by a lamp that weakens in every third frame, or is noisy.

# %%
lab.predict("1.e")

# %%
rng = np.random.default_rng(0)
lamp = np.where(np.arange(16) % 3 == 2, 0.8, 1.0)[:, None, None, None]  # every third frame is darker
damaged = {
    "as drawn": pixels,
    "frozen": pixels[:1].repeat(16, axis=0),
    "reversed": pixels[::-1].copy(),
    "shuffled": rng.permutation(pixels),
    "bad lamp": (pixels * lamp).astype(np.uint8),
    "noisy": np.clip(pixels + rng.normal(0, 18, pixels.shape), 0, 255).astype(np.uint8),
}
lab.play(damaged, alt="Six versions of the clip: as drawn, standing still, backwards, jumping, with some darker frames, "
                      "and noisy.")  # fmt: skip

# %%
change, nervous = lab.yours("1.2"), lab.yours("1.3")
print(f"{'':10} {'difference':>10} {'flicker':>8} {'velocity x':>11}   judge")
for name, p in damaged.items():
    one, reading = batch(p), judge.read(p)
    numbers = change(one).abs().mean().item(), nervous(one.float()).item(), round(read(one)[0, 0].item(), 1) + 0.0
    seen = f"{reading.colour} {reading.shape}, {reading.motion}, {reading.speed}"
    print(f"{name:10} {numbers[0]:10.1f} {numbers[1]:8.1f} {numbers[2]:+11.1f}   {seen}")

# %% [markdown]
# - **Frozen**: taken as scores, where less is better, difference and flicker call it perfect. The velocity and the judge say
#   what it lacks: motion. (The judge says None both when nothing moves and when it is not sure.)
# - **Reversed**: difference and flicker do not know the direction of time. Velocity and judge do.
# - **Shuffled**: every single frame is perfect, so a measure that looks at frames one by one cannot see the damage. The
#   flicker can. The velocity is a number without a meaning here, for a line can be laid through any points. The judge
#   looks at what the line leaves over, and abstains.
# - **Bad lamp** and **noisy**: the flicker jumps up, and the judge is not disturbed at all. It was built to read through such
#   things, so it is no measure of how a clip *looks*. The velocity of the noisy clip is too small: many specks of noise
#   pass the threshold, and they do not move along.
#
# Every measure is blind to something. Use two that are blind to different things, and try them on a frozen clip first.
#
# ## 10 · The same instruments on a generated clip
#
# Now let the model make the clip that we have drawn. Does it move as it should, and does it flicker? Below the clips you see
# their changes from frame to frame, enlarged forty times.

# %%
made = ctx.pipe("a large red circle moves quickly left", seed=0).pixels
enlarged = lambda p: (40 * abs(p[1:].astype(float) - p[:-1])).clip(0, 255).astype(np.uint8)
print("the judge:", judge.read(made))
for name, p in {"drawn": pixels, "generated": made, "shuffled": damaged["shuffled"]}.items():
    x, y = (round(number, 1) + 0.0 for number in read(batch(p))[0].tolist())
    print(f"{name:10} velocity x {x:+.1f}, y {y:+.1f} · flicker {nervous(batch(p).float()).item():.2f}")
lab.strip(
    {"drawn": pixels, "its change": enlarged(pixels), "generated": made, "change of the generated": enlarged(made)},
    alt="A drawn and a generated clip of a red circle that moves left, each above its changes. The drawn one changes "
    "at the edge of the circle only; in the generated one the inside and the ground change a little as well.",
)

# %% [markdown]
# The generated circle goes left as fast as the drawn one. It flickers far less than a clip of shuffled frames, and many times
# as much as the drawn clip.
#
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
#
# Each equation, the paper it comes from, the line of the library that computes it, and the test, in the repository, that
# would fail if that line were wrong.

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
