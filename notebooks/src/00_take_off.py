# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Take-off
#
# **One sentence goes in, two seconds of video come out: here you watch everything that happens in between, once, from
# the outside.**
#
# **You will**
# - make a video from a prompt with a model that was trained on two CPU cores
# - name the four parts of a text-to-video model and the shape of what passes between them
# - repeat the model's work by hand, in eight lines, and get the same pixels
# - watch noise turn into a video, and say when the subject appears
# - write a program that reads from the pixels which way a thing moves, and test the model with it
# - find a bug that makes one prompt change the video of another
# - find out by which ways words get into the model, and which of them says what
#
# **You need** Python and the idea of an array with a shape. No GPU, no download, no account.
#
# **Time** reading 22 minutes · running 30 to 120 seconds (fast mode the same) · exercises 45 minutes

# %%
from minit2v import lab

ctx = lab.setup(0)

# %% [markdown]
# The line above is all the set-up there is in any notebook of this course. It prints the mode (the end of this notebook
# explains it), the device, and the seed from which everything random starts. If it printed, your installation works.
#
# ## 1 · What does a text-to-video model do?
#
# Let us see it before we take it apart. `ctx.pipe` is the model that comes with this repository. It is called `mini`.
# It was trained from nothing, within a few hours, on two CPU cores. It knows one kind of scene: a coloured shape that
# moves over a dark ground. That world is small on purpose. In it a model can be trained in an afternoon, and a program
# can check whether a video shows what the prompt says.

# %%
clip = ctx.pipe("a large red circle moves left quickly", seed=0)
lab.play(clip, alt="A large red disc on a dark ground that moves to the left; sixteen frames, two seconds.")

# %% [markdown]
# What to see: a red disc that travels to the left for two seconds and starts again. There are sixteen frames of 64 × 64
# pixels, enlarged for your eyes. Nobody drew this disc. The model was given two things: the sentence, and an array of
# random numbers. It turned the random numbers into the video.
#
# So far this is an impression. What have we got in numbers?

# %%
print(clip)
print("pixels:", clip.pixels.shape, clip.pixels.dtype)
print("a clip is", clip.pixels.size, "numbers")

# %% [markdown]
# Read the shape from left to right: 16 frames, 64 rows, 64 columns, 3 colours. Each number lies between 0 and 255. There
# are nearly two hundred thousand of them, and the prompt has seven words. Where do the numbers come from?
#
# ## 2 · The whole pipeline in one picture
#
# There are four parts. Three are neural networks, and one is a short loop.
#
# 1. The **text encoder** turns the prompt into a list of vectors. The prompt is cut into *tokens* (here, words), and
#    each token gets one vector.
# 2. The **UNet** looks at a noisy video and at those vectors, and says which part of what it sees is noise. What is left is
#    its guess of the clean video.
# 3. The **sampler** is the loop. It starts with pure noise, asks the UNet, removes a little of the noise, and asks
#    again.
# 4. The **autoencoder** turns what is left into pixels. What is left is a small *latent* video: a short code for the
#    video, which only the autoencoder can read.
#
# Click on a box, or move with the arrow keys. You see its shapes, how many numbers it has learnt, the file it lives in,
# and the notebook about it.

# %%
lab.PipelineMap(ctx.pipe, name="pipeline-map")

# %% [markdown]
# What to see: the text enters from the left, the noise comes from below and reaches the UNet by way of the sampler; the UNet
# is by far the largest part. The autoencoder works only once, at the very end.
#
# This is the plan of ModelScopeT2V, a text-to-video model with 1.7 billion parameters that was published in 2023
# ([arXiv 2308.06571](https://arxiv.org/abs/2308.06571)). The classes that make the little red disc are the classes
# that run the large model. Only the settings differ. The two lines below compare the UNets; the numbers are counted
# from the settings, not copied from the paper.

# %%
from minit2v import presets
from minit2v.checkpoints.inspect import inspect

for name in ("mini", "modelscope-1.7b"):
    preset = presets.get(name)
    unet_line = " ".join(inspect(name).splitlines()[0].split())
    print(f"{name:16}{unet_line} parameters · {preset.height} pixels · {preset.frames} frames")

# %% [markdown]
# The large UNet has hundreds of times more parameters than the small one. Yet the same few files build both. A handful of
# settings do more than change a size: they help a small model to learn from few examples, and the large one does without them.
# Section 8 shows those that concern words.
#
# Before we go on, a guess. The UNet never sees the 196,608 numbers of the clip. It works on the latent video, in which
# one cell stands for 8 × 8 pixels. A pixel has three numbers, its colours. A cell has four.

# %%
lab.predict("0.a")

# %%
latent_shape = (1, 4, 16, 8, 8)
product = 1
for size in latent_shape:
    product *= size
print("b c f h w =", latent_shape, "->", product, "numbers,", clip.pixels.size // product, "times fewer than pixels")

# %% [markdown]
# A cell replaces 64 pixels of three numbers each by four numbers: 192 become 4. That factor of 48 is the main reason why
# this runs on a laptop. Notebooks 02 and 03 are about where it comes from and what it costs.
#
# The five letters will stay with us: **b** for the clips of a batch, **c** for channels (the numbers of a cell), **f**
# for frames, **h** and **w** for the height and width of a frame of latents. Every shape in this course is spelled with
# them. Capital **H** and **W** are the height and width in pixels.
#
# ## 3 · By hand: the pipeline in eight lines
#
# A function that is called once and returns a video explains nothing. Let us do what it does, one part at a time.
# First the words.

# %%
import torch

context = ctx.pipe.text.encode(["a large red circle moves left quickly"])
nothing = ctx.pipe.text.encode([""])
print("context (b, n, d):", tuple(context.shape))

# %% [markdown]
# Here **n** counts the tokens and **d** the numbers of a token's vector: twenty tokens, 128 numbers each. The sentence
# has only seven words. The list is always filled up to the same length, and notebook 04 shows with what.
#
# We encode the empty prompt as well. The sampler will ask the UNet twice at each step, once with the prompt and once
# without. Then it goes a little further in the direction in which the two answers differ. That is *guidance*. Notebook
# 06 has its formula; here it is one argument.
#
# Next the noise: a latent video in which every number is drawn from the normal distribution. It is drawn on the CPU
# from a seeded generator, so that seed 0 means the same noise on your machine and on mine.

# %%
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided

noise = gaussian(latent_shape, torch.Generator().manual_seed(0))
print("noise (b, c, f, h, w):", tuple(noise.shape))
print(f"its numbers have the mean {abs(noise.mean()):.1f} and the standard deviation {noise.std():.1f}")

# %% [markdown]
# Then the loop. One turn of it is called a *step*, and this is what happens in a step:

# %%
from minit2v.lab.course.drawings.take_off import drawn_loop, drawn_ways

drawn_loop(ctx.pipe.preset.steps, alt="The loop: noise becomes the first x; the UNet looks at x, the timestep t and the "
           "words, and gives its belief x0; belief and some of the old noise are mixed to an x with less noise, from which "
           "the next step starts. After the last step the decoder makes pixels, once.")

# %% [markdown]
# The UNet cannot see the finished video in the noise at once, but it can guess. The sampler does not trust the first
# guess. It moves `x` only a part of the way towards it, and keeps some of the old noise. Then the UNet gets to see the
# new `x`, which is a little less noisy, and guesses again, a little better.
#
# In the code, `guided` makes one function of the UNet, the prompt and the empty prompt. It takes a noisy video and a
# *timestep* `t`, a number that says how much noise to expect. `SAMPLERS` is a table of the ways to take a step; we use its row
# `"ddim"`, which draws no new noise (notebook 06). We call it with that function, the noise, the noise schedule (how much
# noise belongs to each timestep; notebook 05) and a number of steps. It returns a *generator*, which yields one `Step` after
# another. You can stop it, look into it, or write your own (notebook 06).

# %%
preset = ctx.pipe.preset
model = guided(ctx.pipe.unet, context, nothing, preset.guidance)
with torch.inference_mode():
    for step in SAMPLERS["ddim"](model, noise.to(ctx.device), ctx.pipe.diffusion, preset.steps):
        print(f"step {step.index:2}  t = {step.t:3}  x {tuple(step.x.shape)}  x0 {tuple(step.x0.shape)}")

# %% [markdown]
# What to see: `t` falls from 999 to 82. At 999 the UNet has to expect nothing but noise, near 0 almost none. The shape
# never changes. Denoising does not *build* a video piece by piece. The whole video is there from the first step to the
# last, and it becomes less and less wrong.
#
# A `Step` carries two videos. `x` is the noisy video after the step. `x0` is the UNet's current *belief* about the
# clean one: what it would answer if it had to stop now. Keep the two apart; the rest of the course depends on it.
#
# What remains is decoding: four channels of 8 × 8 become three colours of 64 × 64.

# %%
by_hand = ctx.pipe.decode(step.x)[0]
print("pixels (f, H, W, colour):", by_hand.shape, by_hand.dtype)
difference = abs(by_hand.astype(int) - clip.pixels.astype(int)).max()
print(f"largest difference to the pipeline's pixels: {difference} of 255")

# %% [markdown]
# The two clips are not just similar: all 196,608 numbers are the same. You have just run a text-to-video model without its
# pipeline.
#
# Is that really how the library does it? Do not believe a tutorial that retells its library; read the source. We shall do
# that together at the end of section 7, when you have written your own version and have something to compare.
#
# ### Exercise 0.1 · shapes
#
# Difficulty 1/5 · importance 5/5 · 6 minutes
#
# Knowing the shape of everything that passes between the parts is half of reading such a model. So write them down.
#
# Write `shapes(preset, b, frames, height, width)` for b clips of that many frames; height and width are in pixels. It
# returns a dictionary with four tuples of whole numbers:
#
# - `"context"` (b, n, d), the encoded prompts;
# - `"noise"` (b, c, f, h, w), what the sampler starts from;
# - `"latent frames"` (n, c, h, w), what the autoencoder is given. It wants the frames of all clips in one row, so its n
#   counts frames;
# - `"pixels"` (b, f, H, W, 3).
#
# Everything else you need is in the preset: `preset.text.context_length`, `preset.text.width`,
# `preset.autoencoder.latent_channels`, and `preset.autoencoder.factor`, the number of pixels along one side of a cell.
#
# <details><summary>Hint 1</summary>Only height and width are divided by the factor. Frames are not: this autoencoder
# works frame by frame.</details>
# <details><summary>Hint 2</summary>The autoencoder does not know clips. b clips of f frames are b·f pictures to
# it.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# c, h, w = preset.autoencoder.latent_channels, height // preset.autoencoder.factor, width // preset.autoencoder.factor
# return {"context": (b, preset.text.context_length, preset.text.width), "noise": (b, c, frames, h, w),
#         "latent frames": (b * frames, c, h, w), "pixels": (b, frames, height, width, 3)}
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def shapes(preset, b, frames, height, width):
    """The shapes that pass between the parts of the pipeline, as a dictionary of tuples."""
    ### BEGIN SOLUTION
    factor, c = preset.autoencoder.factor, preset.autoencoder.latent_channels
    h, w = height // factor, width // factor
    return {
        "context": (b, preset.text.context_length, preset.text.width),
        "noise": (b, c, frames, h, w),
        "latent frames": (b * frames, c, h, w),
        "pixels": (b, frames, height, width, 3),
    }
    ### END SOLUTION


# %%
lab.check("0.1", shapes)

# %% [markdown]
# *What if?* Ask your function about `modelscope-1.7b` with 16 frames of 256 × 256: `shapes(presets.get("modelscope-1.7b"), 1,
# 16, 256, 256)`. Its latents are 32 × 32: the large model has the same factor of 8 a side, with more pixels, more tokens and
# longer vectors.
#
# ## 4 · Watching it happen
#
# Now look into the loop. The library can keep a run as a *recording*: `x` and `x0` of every step, in at most three
# megabytes. So a run on a computer with a large GPU can be watched on yours. Here we record the clip of section 1.

# %%
recording = lab.record(ctx.pipe, "a large red circle moves left quickly", seed=0)
print("steps, frames, H, W, colours of the decoded beliefs:", recording.preview.shape)

# %% [markdown]
# Answer a question before you look. The run has 12 steps, 0 to 11. In step 0 the UNet is shown nothing but noise. At which
# step does its belief `x0` first show *something red*? Let a pixel count as red if its red is at least 80 above its
# green, and a frame if it has one such pixel. We ask for the first step in which most frames have something red.

# %%
lab.predict("0.b")

# %%
pixels = recording.preview.astype(int)  # (s, f, H, W, colour)
red = pixels[..., 0] - pixels[..., 1] >= 80
frames_with_red = red.any(axis=(2, 3)).mean(axis=1)  # (s,): a share of the frames
print("something red in most frames, first in step", int((frames_with_red > 0.5).argmax()))
lab.LatentScrubber(recording, name="take-off-scrubber")

# %% [markdown]
# What to see: on the left the belief `x0`, decoded to pixels; on the right whatever you choose above it. There are two
# sliders, one for the denoising step (it counts from 1) and one for the frame. Click on one and move it with the arrow
# keys; the space bar plays. The views:
#
# - **latent channels**: the four channels of `x` after the step, as numbers. It begins as television snow. It never
#   turns into a picture; it turns into a *code* for one. **latent as colour** mixes them to colours.
# - **clip x0** and **noise**: the two parts into which the UNet took the noisy video apart, as latents.
# - **decoded**: the belief in pixels, all sixteen frames at once.
# - **cross-attention**: choose a word, and see which parts of the frame listen to it. This small model has four by
#   four cells there, and words also get in without it (section 8). Take the maps as hints, not as explanations.
# - **temporal attention**: which frame looks at which.
#
# Without a kernel (on GitHub, or in print) you see a few of the steps instead: above `x`, below `x0`. Here are six steps
# of `x0` in more detail.

# %%
shown = [0, 1, 3, 5, 8, 11]
lab.sheet(
    [recording.preview[step, frame] for frame in (2, 13) for step in shown],
    [f"step {step}" for step in shown] * 2,
    alt="The belief at six steps, from left to right, an early frame above, a late one below: "
    "red from the beginning, a disc at the end.",
)

# %% [markdown]
# What to see: the red is there in step 0, made from nothing but noise. It is already in different places in the early frame
# and in the late one. So the model knows *something red moves left* from the words alone. But it is a tall bar. By step
# 3 it has the height of a disc, and the round outline comes last. Is that the order in other runs too? Notebook 06 measures it.
#
# Now in numbers. How far is the belief of each step from the last one? We take the mean difference of their latents,
# and for comparison that of the noisy `x`.

# %%
beliefs, noisy = recording.latents("x0"), recording.latents("x")  # (s, f, c, h, w) each
final = beliefs[-1]
gaps = {name: [float(abs(one - final).mean()) for one in video] for name, video in (("x0", beliefs), ("x", noisy))}
steps = list(range(len(beliefs)))
nearer = sum(a < b / 2 for a, b in zip(gaps["x0"][:-1], gaps["x"][:-1]))
print(f"of the first {len(steps) - 1} steps, x0 is less than half as far from the end as x in {nearer}")
lab.curves(
    {"belief x0": (steps, gaps["x0"]), "noisy video x": (steps, gaps["x"])},
    xlabel="denoising step",
    ylabel="distance to the final latents",
    alt="Two curves. The noisy video stays far from the end for most steps and falls to zero in the last ones; "
    "the belief is much nearer to it from the first step on.",
)

# %% [markdown]
# What to see: the upper curve falls slowly at first, and steeply in the last third. To the eye, `x` is snow almost to
# the end. The lower curve starts far below it. The model has a rough idea of its video at a time when you see nothing
# at all in `x`. The lower curve need not fall evenly, for a belief may be revised.
#
# ### Exercise 0.2 · when does the subject appear?
#
# Difficulty 2/5 · importance 3/5 · 6 minutes
#
# "Red in most frames" was a measure for one prompt. Here is one for any prompt: when has the belief come close to the
# final one, for good?
#
# Write `first_close(videos, share)`. `videos` is a numpy array (s, f, H, W, 3) of decoded beliefs, uint8, one for each
# step; `share` is a number between 0 and 1. The *difference* of two beliefs is the mean of the absolute differences of
# all their numbers. Return the index of the first step from which on *all* beliefs differ from the last one by at most
# `share` times as much as step 0 does. (If nothing changes at all, the answer is 0.)
#
# <details><summary>Hint 1</summary>Pixels are uint8: 3 − 5 is 254 there. Convert to float before you
# subtract.</details>
# <details><summary>Hint 2</summary>Compute all distances first. Then walk from the end to the front as long as they
# are small enough.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# videos = videos.astype(float)
# distance = abs(videos - videos[-1]).reshape(len(videos), -1).mean(axis=1)
# first = len(videos) - 1
# while first > 0 and distance[first - 1] <= share * distance[0]:
#     first -= 1
# return first
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def first_close(videos, share):
    """Index of the first step from which on all beliefs (s, f, H, W, 3) are close to the last one."""
    ### BEGIN SOLUTION
    videos = videos.astype(float)
    distance = abs(videos - videos[-1]).reshape(len(videos), -1).mean(axis=1)
    first = len(videos) - 1
    while first > 0 and distance[first - 1] <= share * distance[0]:
        first -= 1
    return first
    ### END SOLUTION


# %%
lab.check("0.2", first_close)

# %% [markdown]
# *What if?* Try it on the recording: `first_close(recording.preview, 0.5)`. How many steps after the first red is it? Then
# record another prompt and another seed. What comes first: the colour, the path or the shape?
#
# ## 5 · Two prompts, one noise
#
# The model is given two things, noise and words. If the noise of two videos is the same and the prompt is not, then
# whatever differs comes from the words. So we record a second prompt with the same seed and link the scrubbers: one
# slider moves both.

# %%
other = lab.record(ctx.pipe, "a large red circle moves right quickly", seed=0)
lab.linked(
    lab.LatentScrubber(recording, name="left-run"), lab.LatentScrubber(other, name="right-run"), name="left-and-right"
)

# %% [markdown]
# What to see: in *latent channels*, both begin as the same snow; after the first step you can hardly tell them apart. One word
# is different, and so is the first belief: in the early frames the red is on the other side. Move the frame slider and watch
# the decoded clips on the left: the two pass each other.
#
# ### Exercise 0.3 · your own pipeline
#
# Difficulty 3/5 · importance 5/5 · 8 minutes
#
# You have seen all the pieces in section 3. Put them together to a pipeline of your own, with which you can make any
# video that this model can make.
#
# Write `generate(pipe, prompt, seed)`: it returns the pixels of one clip, a uint8 array (f, H, W, 3), without calling
# `pipe(…)` or `pipe.stream(…)`. The check has prompts, seeds and settings of its own, and wants the very pixels that the
# library makes.
#
# <details><summary>Hint 1</summary>Eight lines are enough: two encodings, one noise, one model, one loop, one
# decoding.</details>
# <details><summary>Hint 2</summary>A loop whose body is <code>pass</code> leaves the last step in its variable.
# Guidance and the number of steps are in <code>pipe.preset</code>; <code>pipe.decode</code> returns a batch, you want
# its only clip.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# context, nothing = pipe.text.encode([prompt]), pipe.text.encode([""])
# noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(seed)).to(pipe.device)
# model = guided(pipe.unet, context, nothing, pipe.preset.guidance)
# with torch.inference_mode():
#     for step in SAMPLERS["ddim"](model, noise, pipe.diffusion, pipe.preset.steps):
#         pass
# return pipe.decode(step.x)[0]
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def generate(pipe, prompt, seed):
    """The pixels (f, H, W, 3), uint8, of the pipeline's clip for a prompt and a seed."""
    ### BEGIN SOLUTION
    context, nothing = pipe.text.encode([prompt]), pipe.text.encode([""])
    noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(seed)).to(pipe.device)
    model = guided(pipe.unet, context, nothing, pipe.preset.guidance)
    with torch.inference_mode():
        for step in SAMPLERS["ddim"](model, noise, pipe.diffusion, pipe.preset.steps):
            pass
    return pipe.decode(step.x)[0]
    ### END SOLUTION


# %%
lab.check("0.3", generate)

# %% [markdown]
# *What if?* Replace the noise by zeros. Nothing is random any more, and there is no noise to remove either. What does
# the model make of a video that is perfectly smooth already?
#
# Now use it. (`lab.yours` gives your function if it passes its check, and the library's until then.) Change the prompt and
# the seed and run the cell again. The model knows the shapes circle, square, triangle, ring, cross, star, heart and moon,
# and it knows directions and colours that you can guess.

# %%
own_pipeline = lab.yours("0.3")
mine = own_pipeline(ctx.pipe, "a small blue ring moves up", seed=1)
lab.play(mine, fps=8, alt="A small blue ring on a dark ground that moves up; sixteen frames.")

# %% [markdown]
# ## 6 · Does it do what the prompt says?
#
# We could look at each video and nod. But looking at a hundred videos is a tedious way to fool oneself. In our small
# world a program can look for us, and the first such program can be yours.
#
# How does a program see motion? It does not know what a circle is. But it can find out which pixels are unlike the ground,
# and where their centre is. If that centre goes from the right to the left, the thing has moved left.
#
# ### Exercise 0.4 · which way does it go?
#
# Difficulty 3/5 · importance 4/5 · 20 minutes
#
# Write `which_way(pixels, least)`. `pixels` is one clip (f, H, W, 3), uint8, and `least` is a number. Take four steps:
#
# 1. **The ground.** For each of the three colours, take the median over all pixels of all frames. The thing is small, so
#    the median is a number of the ground.
# 2. **How unlike the ground is each pixel?** Take the absolute differences from the ground and add those of the three
#    colours: an array (f, H, W). Where the sum is smaller than `least`, put 0. So small differences of the ground do not
#    count.
# 3. **The centres.** The centre of a frame is the weighted mean of the places of its pixels, x and y; the weights are the
#    numbers of step 2. x counts columns from the left, y counts rows from the top, both from 0. Where all weights of a
#    frame are 0 there is nothing to see, and x and y are `nan`.
# 4. **The word.** Go from the first centre that is not `nan` to the last one. If that is less than one pixel both in x and
#    in y, or if there are fewer than two centres, the word is `None`. Else the larger of the two ways decides: `"left"`,
#    `"right"`, `"up"` or `"down"`.
#
# Return both, `centres, word`: a float array (f, 2) with x before y, and the word.
#
# <details><summary>Hint 1</summary>Convert to float first. Steps 1 and 2 are one line each, for all frames at once:
# <code>np.median</code> takes several axes. Step 3 may be a loop over frames. Begin it with an array full of
# <code>np.nan</code>, and fill the rows of frames that show something.</details>
# <details><summary>Hint 2</summary>For x only the sum of each column matters: add up the weights over the rows, then
# <code>np.average(np.arange(W), weights=…)</code>. For y it is the other way round. In step 4 mind that rows are counted
# from the top: what goes up has a y that falls.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# pixels = pixels.astype(float)
# ground = np.median(pixels, axis=(0, 1, 2))
# weights = abs(pixels - ground).sum(axis=-1)
# weights[weights < least] = 0
# f, H, W = weights.shape
# centres = np.full((f, 2), np.nan)
# for i in range(f):
#     if weights[i].sum() > 0:
#         centres[i, 0] = np.average(np.arange(W), weights=weights[i].sum(axis=0))
#         centres[i, 1] = np.average(np.arange(H), weights=weights[i].sum(axis=1))
# seen = centres[~np.isnan(centres).any(axis=1)]
# x, y = seen[-1] - seen[0] if len(seen) > 1 else (0, 0)
# if abs(x) < 1 and abs(y) < 1:
#     return centres, None
# if abs(x) > abs(y):
#     return centres, "left" if x < 0 else "right"
# return centres, "up" if y < 0 else "down"
# ```
# </details>
# <!-- END SOLUTION -->

# %%
import numpy as np


# %% tags=["exercise"]
def which_way(pixels, least):
    """pixels (f, H, W, 3), uint8 -> centres (f, 2), x and y, nan where nothing shows; and a word, or None."""
    ### BEGIN SOLUTION
    pixels = pixels.astype(float)
    ground = np.median(pixels, axis=(0, 1, 2))
    weights = abs(pixels - ground).sum(axis=-1)
    weights[weights < least] = 0
    f, H, W = weights.shape
    centres = np.full((f, 2), np.nan)
    for i in range(f):
        if weights[i].sum() > 0:
            centres[i, 0] = np.average(np.arange(W), weights=weights[i].sum(axis=0))
            centres[i, 1] = np.average(np.arange(H), weights=weights[i].sum(axis=1))
    seen = centres[~np.isnan(centres).any(axis=1)]
    x, y = seen[-1] - seen[0] if len(seen) > 1 else (0, 0)
    if abs(x) < 1 and abs(y) < 1:
        return centres, None
    if abs(x) > abs(y):
        return centres, "left" if x < 0 else "right"
    return centres, "up" if y < 0 else "down"
    ### END SOLUTION


# %%
lab.check("0.4", which_way)

# %% [markdown]
# *What if?* Make `least` larger and larger for one clip. At which value does the thing get lost? Then add noise to the clip,
# `np.clip(pixels + np.random.normal(0, 18, pixels.shape), 0, 255).astype(np.uint8)`, and set `least` to 0: why does the centre
# of a small thing move so little now?
#
# Now let it work. We make two clips of each of four prompts, with half as many steps to save time, and read all eight.
# Beside your word stands that of the library's *judge*. The judge reads shape, colour, size, direction and speed from the
# pixels, with no learning in it, and it is not told the prompt either.

# %%
from minit2v.evaluation import judge

reader = lab.yours("0.4")
PROMPTS = ["a large red circle moves left", "a blue square moves right", "a yellow triangle moves up",
           "a green ring moves down"]
for seed in (0, 10):
    clips = ctx.pipe(PROMPTS, seed=seed, steps=6)
    read = {prompt: reader(one.pixels, 90) for prompt, one in zip(PROMPTS, clips)}
    for i, (prompt, (_, word)) in enumerate(read.items()):
        print(f"{prompt:30} seed {seed + i:2} · read: {word!s:6} · by the judge: {judge.read(clips[i].pixels).motion}")

# %%
ways = {prompt: (centres[:, 0], 63 - centres[:, 1]) for prompt, (centres, _) in read.items()}
lab.curves(ways, "x, pixels from the left", "pixels from the bottom", alt="The ways of four things over the picture, one to "
           "the left, one to the right, one up and one down.")

# %% [markdown]
# What to see: compare the words with the prompts, one by one. The picture shows the centres of the last four clips. They
# lie on nearly straight lines, although nobody told the model what a straight line is. It has seen videos in which things
# move like that, and no others.
#
# And the two recordings of section 5? The judge reads more than the direction:

# %%
for run in (recording, other):
    print(run.prompt)
    print("   ", judge.read(run.preview[-1]))

# %% [markdown]
# Ten clips prove little. The [results](../docs/results.md) of hundreds of prompts have error bars, and they show clips in
# which this little model got something wrong.
#
# ## 7 · A bug hunt
#
# Every notebook has one bug hunt, and every bug is of a kind that somebody really met. This one puzzles people who
# make several pictures at once: *which seed do I use to get the third one back?*
# ([diffusers, issue 6233](https://github.com/huggingface/diffusers/issues/6233)). Here it is in our setting.

# %%
def broken_noises(prompts, seed):
    """Starting noise (b, 4, 16, 8, 8) for b prompts."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(1, 4, 16, 8, 8, generator=generator) for _ in prompts])


alone = broken_noises(["a ring moves"], seed=7)
together = broken_noises(["a square moves", "a ring moves"], seed=7)
equal = int((alone[0] == together[1]).sum())
print(f"the ring's noise alone and in company: {equal} of its {alone[0].numel()} numbers are the same")

# %% [markdown]
# The symptom: you find a beautiful ring with seed 7 and write the seed down. The next day you put a second prompt in
# front of it, and your ring is another one. Nothing crashed, and no shape is wrong. Look at both:

# %%
pair = [ctx.pipe("a ring moves", noise=one[None]).pixels for one in (alone[0], together[1])]
lab.sheet(
    [one[frame] for one in pair for frame in (0, 8, 15)],
    ["alone, frame 0", "frame 8", "frame 15", "in company, frame 0", "frame 8", "frame 15"],
    columns=3,
    alt="Two rows of three frames for the prompt “a ring moves”: the second row is another clip than the first.",
)

# %% [markdown]
# What to see: one prompt, one seed, and two different videos; compare place and path. "Seed 7" has lost its meaning.
#
# ### Exercise 0.B · one seed, one video
#
# Difficulty 2/5 · importance 4/5 · 5 minutes
#
# Mend it: write `noises(prompts, seed)` so that the noise of prompt number i depends on `seed + i` and on nothing
# else. Then a clip can be made again from its own number, whatever stood around it in the list.
#
# <details><summary>Hint 1</summary>How many generators are there in the broken version? How many should there
# be?</details>
# <details><summary>Hint 2</summary>Give each prompt a generator of its own, seeded with <code>seed +
# i</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
# return torch.cat([torch.randn(1, 4, 16, 8, 8, generator=one) for one in generators])
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def noises(prompts, seed):
    """Starting noise (b, 4, 16, 8, 8); that of prompt i depends on seed + i alone."""
    ### BEGIN SOLUTION
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return torch.cat([torch.randn(1, 4, 16, 8, 8, generator=one) for one in generators])
    ### END SOLUTION


# %%
lab.check("0.B", noises)

# %% [markdown]
# The library does it this way too. It draws on the CPU even when the model runs on a GPU. The two have different random number
# generators, and a seed that means one thing here and another there is the same bug again.

# %%
lab.show_source(gaussian)

# %% [markdown]
# Now the promise of section 3. The next cell shows what `pipe(…)` runs after it has checked what you ask for and encoded
# the words. It comes from the file that is installed on your machine.

# %%
lab.show_source(ctx.pipe.steps)

# %% [markdown]
# You will recognise `guided`, a generator for each clip, `gaussian`, and the line that hands everything to a sampler. The
# rest is for options that we did not use: a window for long videos, a clip to start from.
#
# ## 8 · How do the words get in?
#
# One arrow of the map in section 2 hides a question. The words enter the UNet: but where? A UNet is a row of layers, and
# somewhere in them the vectors of the prompt must meet the numbers of the video. In the released model there is one such
# place, *cross-attention*. In `mini` there are three:

# %%
drawn_ways(alt="The layers of mini's UNet in a row, with three ways from the vectors of the prompt: the scene prior leads to "
           "the first layer, the embedding to all blocks at both resolutions, cross-attention to the blocks at 4 by 4 cells.")

# %% [markdown]
# - **Cross-attention** is in both models. Each cell compares itself with all tokens and takes something from those that
#   fit. So different cells can take different things from one prompt.
# - **The embedding** is a vector that every block gets. It says how noisy the video is. In `mini` one vector of the prompt
#   is added to it, the same for all cells of all frames.
# - **The scene prior** is a small network in `mini` alone. It takes the mean of all tokens, the number of the frame and
#   the place of the cell, and its result is added to the first layer's.
#
# The last two are *departures* from the paper. They are switched on by settings, `text_in_embedding` and `scene_prior`,
# because a small model with little time did not learn all its words through cross-attention alone.
# [docs/training.md](../docs/training.md) has the measurements, and notebook 07 has all departures.
#
# We can close two of the ways and leave one open. `told_by` gives the UNet the prompt by the ways that you name, and the
# empty prompt by the others. Think about the embedding first: one vector, the same for all cells.

# %%
lab.predict("0.c")

# %%
from minit2v.lab.course.ways_in import WAYS, told_by


def clip_told_by(ways):
    """Pixels of the prompt of section 3, which reaches the UNet by these ways only."""
    model = guided(told_by(ctx.pipe.unet, nothing, ways), context, nothing, preset.guidance)
    with torch.inference_mode():
        for step in SAMPLERS["ddim"](model, noise.to(ctx.device), ctx.pipe.diffusion, preset.steps):
            pass
    return ctx.pipe.decode(step.x)[0]


def told(pixels):
    """What the judge says of a clip of "a large red circle moves left quickly"."""
    found = judge.read(pixels)
    looks, motion = (found.size, found.colour, found.shape), (found.motion, found.speed)
    looks, motion = looks == ("large", "red", "circle"), motion == ("left", "quickly")
    answer = {True: "as the prompt says", False: "otherwise"}
    return f"looks {answer[looks]:18} · motion {answer[motion]}"


rows = {"all three ways": by_hand} | {f"{way} alone": clip_told_by([way]) for way in WAYS}
for name, one in rows.items():
    print(f"{name:21} {told(one)}")
lab.strip(rows, n=6, alt="Four rows of six frames. All three ways: a large red disc that moves left. Cross-attention alone: "
          "another thing that moves left. The embedding alone: a large red disc that moves otherwise. The scene prior alone: "
          "a small thing that moves otherwise.")

# %% [markdown]
# What to see: the ways share the work. Through the embedding comes how the thing looks. Through cross-attention comes how it
# moves; what moves is another thing. The scene prior alone gets neither right; of the looks, only the red came through. (That
# does not make it useless. Trained without it, the model cares less about "left" and "right".)
#
# Why do they share the work like this? The vector that joins the embedding is made from the beginning of the prompt, *a
# large red circle*. No word of motion is in it. So the looks came by this way in every step of the training, and
# cross-attention had little reason to learn them. That is a habit of this model. In the released model all words have to
# come by cross-attention, and there it carries everything. Keep this in mind when you look at attention maps of `mini`.
#
# ### Your own code in the model
#
# Such questions can be asked of every line, for you can run your own code *inside* the real model. `lab.swap` puts a
# class or function of yours in the place of the library's, and keeps the trained weights. Here is a taste.
#
# The function `attend` computes attention everywhere in the UNet: cells look at the cells of their frame, cells look at
# words (cross-attention), and frames look at frames. In each case it decides who listens to whom. We replace it by a
# function that does not decide: it takes the plain average of all values. This switches off less than you may think.
# The embedding and the scene prior contain no attention, so words still come in there. Even cross-attention still hands
# over something: the average of all tokens, the same for every cell. The text encoder has attention of its own and
# stays as it is. Before you look: will it still be a red disc? And will it move left?

# %%
def inattentive(q, k, v):
    """(n, k, s, d) queries, (n, k, m, d) keys and values -> (n, k, s, d): the mean of all values."""
    return v.mean(dim=-2, keepdim=True).expand_as(q)


with lab.swap(ctx.pipe, attend=inattentive) as swapped:
    dull = swapped("a large red circle moves left quickly", seed=0)
print(f"a plain average       {told(dull.pixels)}")
lab.strip(
    {"the library's attention": clip, "a plain average": dull},
    n=6,
    alt="Six frames each of two clips: with the library's attention a large red disc that moves left, with a plain average "
    "in its place a large red disc that hardly moves.",
)

# %% [markdown]
# What to see: same weights, same seed, same prompt; one short function was different. The looks survive, for they come
# through the embedding. The motion does not. From this picture alone you cannot say which of the three kinds of attention
# it needed. With the plain average no cell chooses among words, no cell among cells, and no frame among frames; only the
# convolutions still tell a neighbour from the rest. An experiment that changes three things at once answers no finer
# question. Notebooks 07 and 08 take them one by one.
#
# That is what all these notebooks are about: not how large a model is, but what each of its lines is for.
#
# ## 9 · How to use this course
#
# **Order.** 01 is about what a video is to a program, 02 to 04 about the networks at the two ends, 05 and 06 about
# diffusion: destroying a video, and un-destroying it. 07 to 09 build the UNet and train it.
#
# **Predictions.** Make a guess before you go on, even a poor one. A wrong guess is the best reason to remember the answer.
#
# **Exercises.** A check says what it expected and what it found. It names a cause only if it has recognised one. Open a
# hint before you open the solution. If you are stuck, type `lab.rescue("0.1")`: the library's version takes the place of
# yours. Cells that use your work ask for it with `lab.yours("0.1")`, which gives the library's version until yours passes.
# So nothing breaks behind you.
#
# **Modes.** The same text runs at three speeds. By default everything is made for a CPU and takes minutes at most.
# With `MINIT2V_FAST=1` in the environment trainings are cut short. The notebooks are tested in this mode, and what they
# print still has to agree with what you see here. `MINIT2V_FULL=1` is for those with more time or a GPU. A cell that
# depends on the mode says so: `ctx.pick(fast=40, default=600)`.
#
# ## Takeaways
#
# 1. A text-to-video model is four parts: a text encoder, a UNet, a sampler (a loop) and an autoencoder. You can run
#    them by hand and get the same pixels.
# 2. The whole video is there at every step, as latents (b, c, f, h, w), 48 times smaller than the pixels. Denoising
#    makes it less wrong, step by step.
# 3. One seed, one noise, one video. Whatever breaks this is a bug, even if nothing crashes.
#
# ## Quiz

# %%
lab.quiz(0)

# %% [markdown]
# ## Equations, code and tests
#
# This notebook has no equations; the others end with a table like this one, of notebook 01. The number of an equation stands
# beside the line of the library that computes it, and a test in the repository fails if the line gets lost. Some have worked
# for you already: (1.2) is the end of `decode`, your centres in exercise 0.4 are (1.5), and the judge uses (1.5) and (1.6).

# %%
lab.equations(1)

# %% [markdown]
# ## Further reading
#
# - [ModelScope Text-to-Video Technical Report](https://arxiv.org/abs/2308.06571), sections 1 to 3: the model of this
#   course. Read it now, and again after notebook 06; you will find much more in it.
# - [High-Resolution Image Synthesis with Latent Diffusion Models](https://arxiv.org/abs/2112.10752), section 3: why
#   to work on latents, by those who made it popular.
# - [Diffusion Explainer](https://poloclub.github.io/diffusion-explainer/): an interactive picture of Stable Diffusion,
#   in the browser. Compare what it and our scrubber choose to show.
#
# **Next:** [01 · Video is a tensor](01_video_is_a_tensor.ipynb), in which you take a video apart with nothing but
# shapes.
