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
# **One sentence goes in, two seconds of video come out: here you watch everything that happens in between, once, from the outside.**
#
# **You will**
# - make a video from a prompt with a model that was trained on a laptop
# - name the four parts of a text-to-video model and the shape of what passes between them
# - repeat the model's work by hand, in eight lines, and get the same pixels
# - scrub through a denoising run and say at which step the subject appears
# - find a bug that makes one prompt change the video of another
#
# **You need** Python and the idea of an array with a shape. No GPU, no download, no account. Nothing from other notebooks.
#
# **Time** reading 12 minutes · running TIME_DEFAULT (fast mode TIME_FAST) · exercises 20 minutes

# %%
from minit2v import lab

ctx = lab.setup(0)

# %% [markdown]
# The line above is all the set-up there is in any notebook of this course. It tells you the mode you are in (more about
# that at the end), the device, and the seed from which everything random starts. If it printed, your installation works.
#
# ## 1 · What does a text-to-video model do?
#
# Let us see it before we take it apart. `ctx.pipe` is the model that comes with this repository. It is called `mini`; it
# was trained from nothing, in two or three hours, on two CPU cores. It knows one kind of scene: a coloured shape that moves over a
# dark ground. That is a small world, and it is small on purpose: in a small world you can train a model over lunch,
# and a program can check whether a video shows what the prompt says.

# %%
clip = ctx.pipe("a large red circle moves left quickly", seed=0)
lab.play(clip, alt="A large red disc on a dark ground that moves to the left; sixteen frames, two seconds, looping.")

# %% [markdown]
# What to see: a red disc that travels to the left, for two seconds, and starts again. Sixteen frames, 64 pixels wide,
# enlarged for your eyes. Nobody drew it. The model started from noise, and the noise was all there was besides the
# sentence.
#
# Let us ask what we have got, in numbers instead of impressions.

# %%
print(clip)
print("pixels:", clip.pixels.shape, clip.pixels.dtype)
print("a clip is", clip.pixels.size, "numbers")

# %% [markdown]
# A hundred and ninety-six thousand numbers, each between 0 and 255. The prompt has seven words. Where do the numbers
# come from?
#
# ## 2 · The whole pipeline in one picture
#
# There are four parts. Three are neural networks, and one is a short loop.
#
# 1. The **text encoder** turns the prompt into a list of vectors, one for each token.
# 2. The **UNet** looks at a noisy video and at those vectors, and says which part of what it sees is noise.
# 3. The **sampler** is the loop. It starts with pure noise, asks the UNet, removes a little of the noise, and asks again.
# 4. The **autoencoder** turns what is left, a small *latent* video, into pixels.
#
# Click on a box, or move with the arrow keys: you see the shapes that go in and come out, how many numbers the part has
# learnt, the file it lives in, and the notebook that builds it.

# %%
lab.PipelineMap(ctx.pipe, name="pipeline-map")

# %% [markdown]
# What to see: the text enters from the left, the noise from below, and both meet in the UNet, which is by far the
# largest box. The autoencoder works only once, at the very end.
#
# This is the plan of ModelScopeT2V, a text-to-video model with 1.7 billion parameters that was published in 2023
# ([arXiv 2308.06571](https://arxiv.org/abs/2308.06571)). The classes that make the little red disc are the classes that run the
# large model. Only the settings differ, and the table below is made by counting, not by quoting.

# %%
from minit2v import presets, weights

for name in ("mini", "modelscope-1.7b"):
    unet_line = weights.inspect(name).splitlines()[0]
    preset = presets.get(name)
    print(f"{name:16}", " ".join(unet_line.split()), "parameters ·", preset.height, "pixels ·", preset.frames, "frames")

# %% [markdown]
# A factor of three hundred lies between the two. Yet both are built by the same twelve hundred lines, and you will have read
# every one of them at the end of the course.
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
# That factor of 48 is the reason why any of this runs on a laptop. Notebooks 02 and 03 are about where it comes from and
# what it costs.
#
# The five letters will stay with us: **b** for the clips of a batch, **c** for channels, **f** for frames, **h** and **w**
# for the height and width of a frame of latents. Learn them once; every shape in this course is spelled with them.
#
# ## 3 · By hand: the pipeline in eight lines
#
# A function that is called once and returns a video explains nothing. Let us do what it does, one part at a time, and
# look at each result. First the words.

# %%
import torch

context = ctx.pipe.text.encode(["a large red circle moves left quickly"])
nothing = ctx.pipe.text.encode([""])
print("context (b, n, d):", tuple(context.shape))

# %% [markdown]
# Twenty tokens, 128 numbers each. Twenty, although the sentence has seven words: the list is always filled up to the
# same length (notebook 04 shows with what). We encode the empty prompt as well. The sampler will ask the UNet
# twice at each step, once with the prompt and once without, and follow the difference. That is *guidance*, the
# subject of notebook 10; here it is one argument.
#
# Next the noise: a latent video in which every number is drawn from the normal distribution. It is drawn on the CPU
# from a seeded generator, so that seed 0 means the same noise on your machine and on mine.

# %%
from minit2v.samplers import gaussian, guided, SAMPLERS

noise = gaussian((1, 4, 16, 8, 8), torch.Generator().manual_seed(0))
print("noise (b, c, f, h, w):", tuple(noise.shape))
print("mean about 0:", abs(noise.mean().item()) < 0.05, "· deviation about 1:", abs(noise.std().item() - 1) < 0.05)

# %% [markdown]
# Then the loop. `guided` makes a function of the UNet, the prompt and the empty prompt: it takes a noisy
# video and a timestep, and answers. The sampler, here DDIM, is a *generator*: it yields one `Step` after the other,
# and you can stop it, look into it, or write your own (notebook 06).

# %%
preset = ctx.pipe.preset
model = guided(ctx.pipe.unet, context, nothing, preset.guidance)
with torch.inference_mode():
    for step in SAMPLERS["ddim"](model, noise, ctx.pipe.diffusion, preset.steps):
        print(f"step {step.index:2}  t = {step.t:3}  x {tuple(step.x.shape)}  x0 {tuple(step.x0.shape)}")

# %% [markdown]
# What to see: `t` falls from 999 to 83. It counts how much noise is in the video: at 999 nothing but noise, at 0 none. The
# shape never changes. Denoising does not *build* a video piece by piece; the whole video is there from the first
# step to the last, and becomes less and less wrong.
#
# A `Step` carries two videos. `x` is the noisy video after the step. `x0` is the UNet's current belief about the
# clean one: what it would answer if it had to stop now. Keep the two apart, the rest of the course depends on it.
#
# The last line of the loop's work is decoding: four channels of 8 × 8 become three colours of 64 × 64.

# %%
by_hand = ctx.pipe.decode(step.x)[0]
print("pixels (f, H, W, colour):", by_hand.shape, by_hand.dtype)
print("the same pixels as the pipeline's:", bool((by_hand == clip.pixels).all()))

# %% [markdown]
# Not similar: the same, all 196,608 of them. You have just run a text-to-video model without its pipeline.
#
# Is that really how the library does it? Never believe a tutorial that retells its library; read the source. The
# next cell shows it, from the file that is installed on your machine.

# %%
lab.show_source(ctx.pipe._steps)

# %% [markdown]
# You will recognise `guided`, the generators, and the line that hands everything to a sampler. The rest takes care of
# options that we did not use: a window for long videos, a clip to start from.
#
# ### Exercise 0.1 · shapes
#
# Difficulty 1/5 · importance 5/5 · 6 minutes
#
# Write `shapes(preset, b, frames, height, width)`. It returns a dictionary with four tuples: `"context"` (b, n, d),
# `"noise"` (b, c, f, h, w), `"latent frames"` as the autoencoder wants them (n, c, h, w) with all frames of all clips in one
# row, and `"pixels"` (b, f, H, W, 3). Everything you need is in the preset: `preset.text.context_length`, `preset.text.width`,
# `preset.autoencoder.latent_channels` and `preset.autoencoder.factor`, the pixels per latent cell along one side.
#
# <details><summary>Hint 1</summary>Only height and width are divided by the factor. Frames are not: this autoencoder works
# frame by frame.</details>
# <details><summary>Hint 2</summary>The autoencoder does not know clips. b clips of f frames are b·f pictures to it.</details>
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
# *What if?* Ask your function about `modelscope-1.7b` with 16 frames of 256 × 256: `shapes(presets.get("modelscope-1.7b"), 1, 16, 256,
# 256)`. Its latents are 32 × 32. The large model compresses each frame by the same factor of 8 a side; it simply has more of
# everything.
#
# ## 4 · Watching it happen
#
# The library can keep everything that a run computes: a *flight recording*. It is small (a few hundred kilobytes), so a
# recording from a computer with a large GPU can be watched on yours.

# %%
flight = lab.record(ctx.pipe, "a large red circle moves left quickly", seed=0)
lab.LatentScrubber(flight, name="take-off-scrubber")

# %% [markdown]
# Click into the widget and use the arrow keys: left and right move through the denoising steps, up and down through the
# frames, and the space bar plays. The menu changes what you see:
#
# - **latent channels**: the four channels of `x`. At step 0 you see television snow. It never turns into a picture, it turns
#   into a *code* for one.
# - **clip x0**: the UNet's belief, decoded. This is the view to look at first.
# - **noise**: what the UNet wants to remove.
# - **cross-attention**: choose a word, and see which cells of the frame listen to it.
# - **temporal attention**: which frame looks at which.
#
# Without Jupyter (on GitHub, or in print) you see a still selection of steps and frames instead.
#
# Now a question to which you should commit yourself before you scroll. The run has 12 steps. At which of them does
# the belief `x0` first show *something round and red*? Most people say "towards the end".

# %%
lab.predict("At which step (0 to 11) does the red disc first appear in x0?", 0, tolerance=1)

# %% [markdown]
# Let us not argue about taste, and measure. We have the belief at every step and the video at the end. How far are
# they apart? We take the mean difference of their latents, and for comparison that of the noisy `x`.

# %%
beliefs, noisy = flight.latents("x0"), flight.latents("x")  # (s, f, c, h, w) each
final = beliefs[-1]
gap = lambda video: [float(abs(one - final).mean()) for one in video]
steps = list(range(len(beliefs)))
lab.curves(
    {"belief x0": (steps, gap(beliefs)), "noisy video x": (steps, gap(noisy))},
    xlabel="denoising step",
    ylabel="distance to the final latents",
    alt="Two falling curves. The distance of the belief x0 starts far below that of the noisy video and falls early; "
    "the noisy video's distance falls steadily to zero.",
)

# %% [markdown]
# What to see: the belief is close to its final value long before the noise is gone. The two curves are the two faces of
# diffusion. Most of the *decisions* (what, where, which way) are made in the first steps, in what looks like pure
# noise; the later steps work on edges and colours.

# %%
nearer = [a <= b for a, b in zip(gap(beliefs), gap(noisy))]
print("x0 is nearer to the end than x, at every step but the last:", all(nearer[:-1]))
print("steps recorded:", len(flight.t), "· first and last t:", int(flight.t[0]), int(flight.t[-1]))

# %% [markdown]
# ### Exercise 0.2 · when does the subject appear?
#
# Difficulty 2/5 · importance 3/5 · 6 minutes
#
# Write `first_close(videos, share)`. `videos` is a numpy array (s, f, H, W, 3) of decoded beliefs, one for each step; `share` is a
# number between 0 and 1. Return the index of the first step from which on *all* beliefs differ from the last one by at most `share`
# of what step 0 differs from it. Difference means: mean absolute difference of all numbers. (If step 0 is equal to the last, the
# answer is 0.)
#
# <details><summary>Hint 1</summary>Pixels are uint8: 3 − 5 is 254 there. Convert to float before you subtract.</details>
# <details><summary>Hint 2</summary>Compute all distances first. Then walk from the end to the front as long as they are small
# enough.</details>
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
# *What if?* Try it on the recording: `first_close(flight.preview, 0.5)`. Then record another prompt. Which appears
# first, the colour, the place or the shape? Diffusion models decide coarse things first; here you can see it with your own eyes,
# and notebook 05 explains it.
#
# ## 5 · Two prompts, one noise
#
# If the noise is the same and the prompt is not, whatever differs in the two videos comes from the words. So we give two
# prompts the same seed, record both, and link the scrubbers: one slider moves both.

# %%
other = lab.record(ctx.pipe, "a large red circle moves right quickly", seed=0)
lab.linked(
    lab.LatentScrubber(flight, name="left-run"), lab.LatentScrubber(other, name="right-run"), name="left-and-right"
)

# %% [markdown]
# What to see: at step 0 both start from exactly the same snow. One word is different, and the first belief already is
# too: the disc sits on the other side. Move the frame slider and they cross.
#
# Can we be sure that the videos do what the prompts say? We could look, and looking at a hundred videos is a tedious
# way to fool oneself. In our small world a program can look for us. The *judge* reads shape, colour, size and motion from the
# pixels, with no learning in it.

# %%
from minit2v.evaluation import judge

for prompt in ("a large red circle moves left quickly", "a large red circle moves right quickly"):
    print(prompt, "->", judge.read(ctx.pipe(prompt, seed=0).pixels))

# %% [markdown]
# The judge is not told the prompt. It agrees anyway. In the README you find how often it does, for hundreds of prompts,
# with error bars; there are prompts at which this little model fails, and the README says which.
#
# ### Exercise 0.3 · your own pipeline
#
# Difficulty 3/5 · importance 5/5 · 8 minutes
#
# Write `generate(pipe, prompt, seed)`: it returns the pixels of one clip, a uint8 array (f, H, W, 3), without calling `pipe(…)`
# or `pipe.stream(…)`. Use the pieces of section 3. The check asks for prompts and seeds of its own, and wants the very pixels that the
# library makes.
#
# <details><summary>Hint 1</summary>Eight lines are enough: two encodings, one noise, one model, one loop, one decoding.</details>
# <details><summary>Hint 2</summary>A loop whose body is `pass` leaves the last step in its variable. Guidance and the number of
# steps are in `pipe.preset`; `pipe.decode` returns a batch, you want its only clip.</details>
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
    """The pixels (f, H, W, 3), uint8, of the clip that the pipeline makes of a prompt and a seed."""
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
# *What if?* Replace the noise by zeros. There is nothing random any more, and there is nothing to denoise either: what does
# the model make of a video that is already perfectly smooth?
#
# ## 6 · A bug hunt
#
# Every notebook has one bug hunt, and every bug in it is of a kind that somebody really shipped. This one was met by many who
# made several videos at once. Here is their function.

# %%
def broken_noises(prompts, seed):
    """Starting noise (b, 4, 16, 8, 8) for several prompts."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(1, 4, 16, 8, 8, generator=generator) for _ in prompts])


alone = broken_noises(["a small blue ring moves up"], seed=7)
together = broken_noises(["a green square moves down", "a small blue ring moves up"], seed=7)
print("the ring's noise is the same, alone and in company:", bool((alone[0] == together[1]).all()))

# %% [markdown]
# The symptom: somebody finds a beautiful blue ring with seed 7 and writes the seed down. The next day they put a second prompt
# in front of it, and the ring is gone. Nothing crashed and no shape is wrong. Look at both rings:

# %%
ring = "a small blue ring moves up"
pair = [ctx.pipe(ring, noise=noise[None]).pixels for noise in (alone[0], together[1])]
lab.sheet(
    [one[frame] for one in pair for frame in (0, 8, 15)],
    ["alone, frame 0", "frame 8", "frame 15", "in company, frame 0", "frame 8", "frame 15"],
    columns=3,
    alt="Two rows of three frames of a small blue ring that moves up: the ring of the second row is in another place.",
)

# %% [markdown]
# What to see: both rows obey the prompt, but they are two different videos. "Seed 7" has lost its meaning.
#
# ### Exercise 0.B · one seed, one video
#
# Difficulty 2/5 · importance 4/5 · 5 minutes
#
# Mend it: write `noises(prompts, seed)` so that the noise of prompt number i depends on `seed + i` and on nothing else. Then a
# clip can be made again from its own number, whatever stood around it in the list.
#
# <details><summary>Hint 1</summary>How many generators are there in the broken version? How many should there be?</details>
# <details><summary>Hint 2</summary>Give each prompt a generator of its own, seeded with `seed + i`.</details>
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
# **Order.** The notebooks are numbered. 01 is about what a video is to a program. 02 to 04 build the two networks at the ends:
# autoencoder and text encoder. 05 and 06 are diffusion: destroying a video, and un-destroying it. Each says what it needs.
#
# **Exercises.** A check never only says "wrong": it says what it expected, what it found, and what people usually did when they
# found that. Open a hint before you open the solution. If your lecturer says `lab.rescue("0.1")`, type it: the library's
# version takes the place of yours, and you go on with the rest of the room. No later cell depends on your own functions,
# so nothing breaks behind you.
#
# **Modes.** The same text runs at three speeds. By default everything is made for a CPU and takes a minute or a few. With
# `MINIT2V_FAST=1` in the environment every loop is short; that is how the notebooks are tested, and their outputs still have
# to agree with what you see here. `MINIT2V_FULL=1` is for those with more time or a GPU. In code it looks like this:

# %%
print("steps of a demonstration in fast, default and full mode: 4, 12, 50")
print("in this mode a whole number of them:", ctx.pick(fast=4, default=12, full=50) in (4, 12, 50))

# %% [markdown]
# **Swapping.** From notebook 07 on you will write parts of the network, and run them *inside* the real model:
# `with lab.swap(ctx.pipe, TemporalConv=Mine) as pipe:`. Here is a taste. The function `attend` computes attention everywhere in
# the UNet. We replace it by one that pays no attention to anything, and takes the plain average of all values.

# %%
def inattentive(q, k, v):
    """(n, k, s, d) queries, (n, k, m, d) keys and values -> (n, k, s, d): the mean of all values."""
    return v.mean(dim=-2, keepdim=True).expand_as(q)


with lab.swap(ctx.pipe, attend=inattentive) as swapped:
    dull = swapped("a large red circle moves left quickly", seed=0)
lab.strip(dull, n=8, alt="Eight frames of the clip that the model makes when attention is replaced by an average.")

# %% [markdown]
# What to see: compare it with the clip at the top. Same weights, same seed, same prompt; one function of five lines
# was different. That is what all these notebooks are about: not how large a model is, but what each of its lines is for.
#
# ## Takeaways
#
# 1. A text-to-video model is four parts: a text encoder, a UNet, a sampler (a loop) and an autoencoder. You can run
#    them by hand and get the same pixels.
# 2. The whole video is there at every step, as latents (b, c, f, h, w), 48 times smaller than the pixels. Denoising makes it less
#    wrong; what and where are decided early, when it still looks like snow.
# 3. One seed, one noise, one video. Whatever breaks this is a bug, even if nothing crashes.
#
# ## Quiz

# %%
lab.quiz(0)

# %% [markdown]
# ## Equations, code and tests
#
# Equations in this course have numbers, and each number stands beside the line of the library that computes it. The table
# is made from those lines; a test fails if one gets lost.

# %%
lab.equations(0)

# %% [markdown]
# ## Further reading
#
# - [ModelScope Text-to-Video Technical Report](https://arxiv.org/abs/2308.06571), sections 1 to 3: the model of this course, in nine
#   pages. Read it now, and again after notebook 08; it will have become much longer.
# - [High-Resolution Image Synthesis with Latent Diffusion Models](https://arxiv.org/abs/2112.10752), section 3: why to work on
#   latents, by those who made it popular.
# - [Diffusion Explainer](https://poloclub.github.io/diffusion-explainer/): the same idea as our scrubber, for Stable Diffusion, in the
#   browser. Compare what the two choose to show.
#
# **Next:** [01 · Video is a tensor](01_video_is_a_tensor.ipynb), in which you take a video apart with nothing but shapes.
