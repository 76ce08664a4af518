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
# - scrub through a denoising run and say at which step the subject appears
# - find a bug that makes one prompt change the video of another
#
# **You need** Python and the idea of an array with a shape. No GPU, no download, no account.
#
# **Time** reading 15 minutes · running 10 to 60 seconds (fast mode the same) · exercises 25 minutes

# %%
from minit2v import lab

ctx = lab.setup(0)

# %% [markdown]
# The line above is all the set-up there is in any notebook of this course. It tells you the mode (more about that at
# the end), the device, and the seed from which everything random starts. If it printed, your installation works.
#
# ## 1 · What does a text-to-video model do?
#
# Let us see it before we take it apart. `ctx.pipe` is the model that comes with this repository. It is called `mini`;
# it was trained from nothing, within a few hours, on two CPU cores. It knows one kind of scene: a coloured shape that
# moves over a dark ground. That world is small on purpose: in it a model can be trained in an afternoon, and a program
# can check whether a video shows what the prompt says.

# %%
clip = ctx.pipe("a large red circle moves left quickly", seed=0)
lab.play(clip, alt="A large red disc on a dark ground that moves to the left; sixteen frames, two seconds, looping.")

# %% [markdown]
# What to see: a red disc that travels to the left, for two seconds, and starts again. Sixteen frames, 64 pixels wide,
# enlarged for your eyes. Nobody drew it. The model started from noise, and besides the sentence the noise was all it
# was given.
#
# What have we got, in numbers instead of impressions?

# %%
print(clip)
print("pixels:", clip.pixels.shape, clip.pixels.dtype)
print("a clip is", clip.pixels.size, "numbers")

# %% [markdown]
# Nearly two hundred thousand numbers, each between 0 and 255. The prompt has seven words. Where do the numbers
# come from?
#
# ## 2 · The whole pipeline in one picture
#
# There are four parts. Three are neural networks, and one is a short loop.
#
# 1. The **text encoder** turns the prompt into a list of vectors, one for each token.
# 2. The **UNet** looks at a noisy video and at those vectors, and says which part of what it sees is noise.
# 3. The **sampler** is the loop. It starts with pure noise, asks the UNet, removes a little of the noise, and asks
#    again.
# 4. The **autoencoder** turns what is left, a small *latent* video, into pixels.
#
# Click on a box, or move with the arrow keys: you see its shapes, how many numbers it has learnt, the file it lives in,
# and the notebook about it.

# %%
lab.PipelineMap(ctx.pipe, name="pipeline-map")

# %% [markdown]
# What to see: the text enters from the left, the noise from below, and both meet in the UNet, which is by far the
# largest part. The autoencoder works only once, at the very end.
#
# This is the plan of ModelScopeT2V, a text-to-video model with 1.7 billion parameters that was published in 2023
# ([arXiv 2308.06571](https://arxiv.org/abs/2308.06571)). The classes that make the little red disc are the classes
# that run the large model. Only the settings differ, and the two lines below are made by counting, not by quoting.

# %%
from minit2v import presets
from minit2v.checkpoints.inspect import inspect

for name in ("mini", "modelscope-1.7b"):
    preset = presets.get(name)
    unet_line = " ".join(inspect(name).splitlines()[0].split())
    print(f"{name:16}{unet_line} parameters · {preset.height} pixels · {preset.frames} frames")

# %% [markdown]
# The large UNet has hundreds of times more parameters than the small one. Yet both are built by the same few files.
#
# Before we go on, a guess. The video has 196,608 numbers. The UNet never sees them: it works on the latent video. How
# many numbers does that one have? Eight by eight cells a frame, four numbers a cell.

# %%
lab.predict("How many numbers are in the latent video of 16 frames?", 4 * 16 * 8 * 8)

# %%
latent_shape = (1, 4, 16, 8, 8)
product = 1
for size in latent_shape:
    product *= size
print("b c f h w =", latent_shape, "->", product, "numbers,", clip.pixels.size // product, "times fewer than pixels")

# %% [markdown]
# That factor of 48 is the main reason why this runs on a laptop. Notebooks 02 and 03 are about where it comes from and
# what it costs.
#
# The five letters will stay with us: **b** for the clips of a batch, **c** for channels, **f** for frames, **h** and
# **w** for the height and width of a frame of latents. Every shape in this course is spelled with them.
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
# Twenty tokens, 128 numbers each. Twenty, although the sentence has seven words: the list is always filled up to the
# same length (notebook 04 shows with what). We encode the empty prompt as well. The sampler will ask the UNet
# twice at each step, once with the prompt and once without, and go a little further in the direction in which the
# two answers differ. That is *guidance*; notebook 06 has its formula, and here it is one argument.
#
# Next the noise: a latent video in which every number is drawn from the normal distribution. It is drawn on the CPU
# from a seeded generator, so that seed 0 means the same noise on your machine and on mine.

# %%
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided

noise = gaussian(latent_shape, torch.Generator().manual_seed(0))
print("noise (b, c, f, h, w):", tuple(noise.shape))
print("mean about 0:", abs(noise.mean().item()) < 0.05, "· deviation about 1:", abs(noise.std().item() - 1) < 0.05)

# %% [markdown]
# Then the loop. `guided` makes a function of the UNet, the prompt and the empty prompt: it takes a noisy
# video and a timestep, and answers. `SAMPLERS` is a table of the ways to remove noise, with a row for each; we take the
# row of DDIM. Called with that function, the noise, the noise schedule and a number of steps, it is a *generator*: it
# yields one `Step` after the other, and you can stop it, look into it, or write your own (notebook 06).

# %%
preset = ctx.pipe.preset
model = guided(ctx.pipe.unet, context, nothing, preset.guidance)
with torch.inference_mode():
    for step in SAMPLERS["ddim"](model, noise.to(ctx.device), ctx.pipe.diffusion, preset.steps):
        print(f"step {step.index:2}  t = {step.t:3}  x {tuple(step.x.shape)}  x0 {tuple(step.x0.shape)}")

# %% [markdown]
# What to see: `t` falls from 999 to 82. It tells how much noise the UNet has to expect in what it is shown: at 999
# nothing but noise, near 0 almost none. The shape never changes. Denoising does not *build* a video piece by piece:
# the whole video is there from the first step to the last, and becomes less and less wrong.
#
# A `Step` carries two videos. `x` is the noisy video after the step. `x0` is the UNet's current *belief* about the
# clean one: what it would answer if it had to stop now. Keep the two apart; the rest of the course depends on it.
#
# What remains is decoding: four channels of 8 × 8 become three colours of 64 × 64.

# %%
by_hand = ctx.pipe.decode(step.x)[0]
print("pixels (f, H, W, colour):", by_hand.shape, by_hand.dtype)
print("the same pixels as the pipeline's:", bool((by_hand == clip.pixels).all()))

# %% [markdown]
# Not similar: the same, all 196,608 numbers. You have just run a text-to-video model without its pipeline.
#
# Is that really how the library does it? Never believe a tutorial that retells its library; read the source. The
# next cell shows it, from the file that is installed on your machine: what `pipe(…)` runs after it has checked what you
# ask for and encoded the words.

# %%
lab.show_source(ctx.pipe.steps)

# %% [markdown]
# You will recognise `guided`, the seeded generators, `gaussian`, and the line that hands everything to a sampler. The
# rest is for options that we did not use: a window for long videos, a clip to start from.
#
# ### Exercise 0.1 · shapes
#
# Difficulty 1/5 · importance 5/5 · 6 minutes
#
# Write `shapes(preset, b, frames, height, width)`. It returns a dictionary with four tuples: `"context"` (b, n, d),
# `"noise"` (b, c, f, h, w), `"latent frames"` as the autoencoder wants them (n, c, h, w) with all frames of all clips
# in one row, and `"pixels"` (b, f, H, W, 3). Everything you need is in the preset: `preset.text.context_length`,
# `preset.text.width`, `preset.autoencoder.latent_channels` and `preset.autoencoder.factor`, the pixels per latent
# cell along one side.
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
# *What if?* Ask your function about `modelscope-1.7b` with 16 frames of 256 × 256:
# `shapes(presets.get("modelscope-1.7b"), 1, 16, 256, 256)`. Its latents are 32 × 32: the large model has the same
# factor of 8 a side, and simply more of everything.
#
# ## 4 · Watching it happen
#
# The library can keep a run as a *recording* of at most three megabytes, so a run on a computer with a large GPU can be
# watched on yours. Here is one of our clip.

# %%
recording = lab.record(ctx.pipe, "a large red circle moves left quickly", seed=0)
lab.LatentScrubber(recording, name="take-off-scrubber")

# %% [markdown]
# What to see: on the left the belief `x0`, decoded to pixels; on the right whatever you choose above it. There are two
# sliders, one for the denoising step and one for the frame. Click on one and move it with the arrow keys; the space
# bar plays. The views:
#
# - **latent channels**: the four channels of `x` after the step, as numbers. It begins as television snow. It never
#   turns into a picture; it turns into a *code* for one. **latent as colour** mixes them to colours.
# - **clip x0** and **noise**: the two parts into which the UNet took the noisy video apart, as latents.
# - **decoded**: the belief in pixels, all sixteen frames at once.
# - **cross-attention**: choose a word, and see which parts of the frame listen to it. This small model has four by
#   four cells there; take the maps as hints, not as explanations.
# - **temporal attention**: which frame looks at which.
#
# Without a kernel (on GitHub, or in print) you see a few of the steps instead: above `x`, below `x0`.
#
# A question to answer before you scrub. The run has 12 steps, 0 to 11 (the slider says 1 to 12). At which of them
# does the belief `x0` first show *something red* in most of the frames? A pixel counts as red if its red is at least
# 80 above its green, and a frame if it has one.

# %%
pixels = recording.preview.astype(int)  # (s, f, H, W, colour): the belief of every step, decoded
red = pixels[..., 0] - pixels[..., 1] >= 80
frames_with_red = red.any(axis=(2, 3)).mean(axis=1)  # (s,): a share of the frames
first = int((frames_with_red > 0.5).argmax())
lab.predict("At which step (0 to 11) is there first something red in most frames of x0?", first)

# %%
shown = [0, 1, 3, 5, 8, 11]
lab.sheet(
    [recording.preview[step, frame] for frame in (2, 13) for step in shown],
    [f"step {step}" for step in shown] * 2,
    alt="The belief at six steps, from left to right, an early frame above, a late one below: "
    "red from the beginning, a disc at the end.",
)

# %% [markdown]
# What to see: the red is there at once, in what was nothing but noise, and it is already in different places in the
# early frame and in the late one: the model knows *something red moves left* from the words alone. But it is a tall bar.
# By step 3 it has the height of a disc, and the round outline comes last. Coarse things first, fine things later: this
# is typical of diffusion models, and notebook 06 comes back to it.
#
# Now in numbers. How far is the belief of each step from the last one? We take the mean difference of their latents,
# and for comparison that of the noisy `x`.

# %%
beliefs, noisy = recording.latents("x0"), recording.latents("x")  # (s, f, c, h, w) each
final = beliefs[-1]
gaps = {name: [float(abs(one - final).mean()) for one in video] for name, video in (("x0", beliefs), ("x", noisy))}
steps = list(range(len(beliefs)))
nearer = [a < b / 2 for a, b in zip(gaps["x0"], gaps["x"])]
print("x0 is less than half as far from the end as x, at every step but the last:", all(nearer[:-1]))
lab.curves(
    {"belief x0": (steps, gaps["x0"]), "noisy video x": (steps, gaps["x"])},
    xlabel="denoising step",
    ylabel="distance to the final latents",
    alt="Two curves. The noisy video stays far from the end for most steps and falls to zero in the last ones; "
    "the belief is much nearer to it from the first step on.",
)

# %% [markdown]
# What to see: the upper curve falls slowly at first, and steeply in the last third. To the eye, `x` is snow almost to
# the end. The lower curve starts far below it: the model has a rough idea of its video at a time when you see nothing
# at all. It need not fall evenly; a belief may be revised.
#
# ### Exercise 0.2 · when does the subject appear?
#
# Difficulty 2/5 · importance 3/5 · 6 minutes
#
# Write `first_close(videos, share)`. `videos` is a numpy array (s, f, H, W, 3) of decoded beliefs, one for each step;
# `share` is a number between 0 and 1. Return the index of the first step from which on *all* beliefs differ from the
# last one by at most `share` of what step 0 differs from it. Difference means: mean absolute difference of all
# numbers. (If step 0 is equal to the last, the answer is 0.)
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
# *What if?* Try it on the recording: `first_close(recording.preview, 0.5)`. Is it earlier or later than the first red?
# Then record another prompt and another seed. What comes first: the colour, the path or the shape?
#
# ## 5 · Two prompts, one noise
#
# If the noise is the same and the prompt is not, whatever differs in the two videos comes from the words. So we record
# a second prompt with the same seed and link the scrubbers: one slider moves both.

# %%
other = lab.record(ctx.pipe, "a large red circle moves right quickly", seed=0)
lab.linked(
    lab.LatentScrubber(recording, name="left-run"), lab.LatentScrubber(other, name="right-run"), name="left-and-right"
)

# %% [markdown]
# What to see: in *latent channels*, both begin as the same snow; after the first step you can hardly tell them apart.
# One word is different, and so is the first belief: in the early frames the red is on the other side. Choose
# *decoded* and move the frame slider: the two pass each other.
#
# Can we be sure that the videos do what the prompts say? We could look, and looking at a hundred videos is a tedious
# way to fool oneself. In our small world a program can look for us. The *judge* reads shape, colour, size, direction
# and speed from the pixels, with no learning in it.

# %%
from minit2v.evaluation import judge

for run in (recording, other):
    print(run.prompt)
    print("   ", judge.read(run.preview[-1]))

# %% [markdown]
# The judge is not told the prompt. Compare its readings with the words, one by one. Two clips prove little: the
# [results](../docs/results.md) of hundreds of prompts have error bars, and show clips in which this little model got
# something wrong.
#
# ### Exercise 0.3 · your own pipeline
#
# Difficulty 3/5 · importance 5/5 · 8 minutes
#
# Write `generate(pipe, prompt, seed)`: it returns the pixels of one clip, a uint8 array (f, H, W, 3), without calling
# `pipe(…)` or `pipe.stream(…)`. Use the pieces of section 3. The check has a prompt and a seed of its own, and wants
# the very pixels that the library makes.
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
# noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(seed))
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
    noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(seed))
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
# ## 6 · A bug hunt
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
print("the ring's noise is the same, alone and in company:", bool((alone[0] == together[1]).all()))

# %% [markdown]
# The symptom: you find a beautiful ring with seed 7 and write the seed down. The next day you put a second prompt in
# front of it, and your ring is another one. Nothing crashed and no shape is wrong. Look at both:

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
# The library does it this way, and draws on the CPU even when the model runs on a GPU: the two have different random
# number generators, and a seed that means one thing here and another there is the same bug in a larger room.

# %%
lab.show_source(gaussian)

# %% [markdown]
# ## 7 · How to use this course
#
# **Order.** 01 is about what a video is to a program, 02 to 04 about the networks at the two ends, 05 and 06 about
# diffusion: destroying a video, and un-destroying it.
#
# **Exercises.** A check says what it expected, what it found, and a likely cause. Open a hint before you open the
# solution. If you are stuck, type `lab.rescue("0.1")`: the library's version takes the place of yours. No later cell
# depends on your own functions, so nothing breaks behind you.
#
# **Modes.** The same text runs at three speeds. By default everything is made for a CPU and takes minutes at most.
# With `MINIT2V_FAST=1` in the environment trainings are cut short; so the notebooks are tested, and what they print
# still has to agree with what you see here. `MINIT2V_FULL=1` is for those with more time or a GPU. A cell that
# depends on the mode says so: `ctx.pick(fast=40, default=600)`.
#
# **Swapping.** You can run your own code *inside* the real model: `lab.swap` puts a class or function of yours in the
# place of the library's, and keeps the trained weights. Here is a taste. The function `attend` computes attention
# everywhere in the UNet. We replace it by one that pays no attention and takes the plain average of all values. Before
# you look: will there still be a disc?

# %%
def inattentive(q, k, v):
    """(n, k, s, d) queries, (n, k, m, d) keys and values -> (n, k, s, d): the mean of all values."""
    return v.mean(dim=-2, keepdim=True).expand_as(q)


with lab.swap(ctx.pipe, attend=inattentive) as swapped:
    dull = swapped("a large red circle moves left quickly", seed=0)
lab.strip(
    {"the library's attention": clip, "a plain average": dull},
    n=6,
    alt="Six frames each of two clips, with the library's attention above, with a plain average in its place below.",
)

# %% [markdown]
# What to see: same weights, same seed, same prompt; one short function was different. Ask for each word of the prompt
# whether the lower row still obeys it. That is what all these notebooks are about: not how large a model is, but what
# each of its lines is for.
#
# ## Takeaways
#
# 1. A text-to-video model is four parts: a text encoder, a UNet, a sampler (a loop) and an autoencoder. You can run
#    them by hand and get the same pixels.
# 2. The whole video is there at every step, as latents (b, c, f, h, w), 48 times smaller than the pixels. Denoising
#    makes it less wrong: the belief is coarse at first and fine at last.
# 3. One seed, one noise, one video. Whatever breaks this is a bug, even if nothing crashes.
#
# ## Quiz

# %%
lab.quiz(0)

# %% [markdown]
# ## Equations, code and tests
#
# This notebook has no equations; the others end with a table like this one, of notebook 01. The number of an equation
# stands beside the line of the library that computes it, and a test fails if the line gets lost. Some have worked for
# you already: (1.2) is the end of `decode`, and the judge uses (1.5) and (1.6).

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
