# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Full weights on a GPU, or a recorded run
#
# **The model runs. With a GPU it is the released one, 1.7 billion parameters large; without one you look at a run that
# was recorded, and every cell says which model it came from.**
#
# **You will**
# - load the released weights, sample, and record the run, all in a few lines
# - scrub through a run step by step, and put two runs side by side
# - decode a clip in parts, exactly, with as little memory as you like
# - find out what makes memory grow, and how long a clip your card can hold
# - study what a word does to a clip, with a protocol that keeps you honest
# - find the bug that makes two clips of one seed
#
# **You need** [11](11_the_real_thing.ipynb) for memory, [06](06_un_destroying_it.ipynb) for the sampler.
#
# **Time** reading 18 minutes · running 1 to 2 minutes (fast mode 30 to 60 seconds), on a GPU some minutes and a
# download of 3.7 GB · exercises 53 minutes

# %%
from minit2v import lab

ctx = lab.setup(12)

# %% [markdown]
# ## 1 · Which model is here?
#
# The cells below run the released model if one of two things is true: you have started the notebook in full mode
# (`MINIT2V_FULL=1`) on a machine with a GPU, or you have named a folder with such a model in `MINIT2V_MODEL`. Then
# they load it from the folder, or from the hub, where it is found as `ali-vilab/text-to-video-ms-1.7b`. The weights
# are under the licence CC BY-NC 4.0: you may study them, and not sell what they make.
#
# Else nothing is downloaded, and nothing pretends. The model is `mini`, which comes with this library, and you see
# runs that it recorded.

# %%
import os

import torch

import minit2v
from minit2v.memory.card import find_card

MODEL = os.environ.get("MINIT2V_MODEL", "ali-vilab/text-to-video-ms-1.7b")
full = ctx.device == "cuda" or "MINIT2V_MODEL" in os.environ
pipe = minit2v.load(MODEL, device=ctx.device) if full else ctx.pipe
card = find_card() if full else None
weights = sum(p.numel() for network in pipe.networks.values() for p in network.parameters())
print("card:       ", card.line() if card else "none is used")
print("model:      ", pipe.preset.name if full else f"{pipe.preset.name}, in the place of the released one")
print("parameters: ", f"{weights:,}")
print("a clip:     ", f"{pipe.preset.frames} frames of {pipe.preset.width} x {pipe.preset.height}, "
      f"{pipe.preset.steps} steps, guidance {pipe.preset.guidance:g}")

# %% [markdown]
# Notebook 11 has told what `load` does: it reads names and shapes, builds empty networks, and lets the tensors of the
# files become their weights, in half precision on a GPU. It also looks at the memory that is free on the card, and
# takes the fastest way to sample that fits.
#
# Why is a GPU needed at all?

# %%
lab.predict("12.a")

# %% [markdown]
# Each of these looks takes about $5 \cdot 10^{12}$ operations ([docs/planning.md](../docs/planning.md) counts them). A
# laptop's CPU does some $10^{11}$ in a second, and a GPU a hundred times as many or more. So it is a matter of an hour,
# or of less than a minute; and in float32 the CPU needs nine gigabytes of memory. It works, by the way:
# `minit2v sample "a panda" --model MODEL --device cpu`.
#
# ## 2 · One run
#
# With full weights the next cell samples a clip and records the run. Without, it opens a recording.

# %%
from minit2v.recording.recording import Recording

if full:
    settings = {"steps": ctx.pick(fast=4, default=None)}
    run = lab.record(pipe, "a panda eating bamboo on a rock", seed=0, **settings)
    if card:
        print(f"peak on the card: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB of tensors and weights")
else:
    run = Recording.load("left")
print(f"made by {run.model}: “{run.prompt}”, {len(run.timesteps)} steps, seed {run.settings['seed']}")
lab.LatentScrubber(run, name="run-12", view="decoded")

# %% [markdown]
# What to see: go through the steps with the arrow keys, in the view *clip x0* and in *decoded*. At the first step
# `mini` believes in an average of many clips: an upright smear, in the right colour and already on its way, without an
# outline. After three steps it is nearly round, and the others work on the outline. In *cross-attention* click a word
# and see where the model looks for it; in *temporal attention* see which frames look at which.
#
# The same widget shows a run of `mini` and one of the released model, because both are written in the same format. So
# you can look at the run of a colleague who has a GPU. They type
#
# ```
# minit2v sample "a panda eating bamboo" --model ali-vilab/text-to-video-ms-1.7b --record run
# ```
#
# and send you the file `run/recording.npz`; you open it by `Recording.load("recording.npz")`. It tells who made it:

# %%
from minit2v.files import data_dir

for path in sorted((data_dir() / "recordings").glob("*.npz")):
    found = Recording.load(path)
    print(f"{path.stem:16} {found.model:5} guidance {found.settings['guidance']:<4g} “{found.prompt}”")

# %% [markdown]
# Two runs side by side, from the same noise. They move together: which step is the first in which you can tell them
# apart, by the latents *x* and by the decoded clip?

# %%
lab.linked(lab.LatentScrubber(Recording.load("left"), name="left-12", view="decoded"),
           lab.LatentScrubber(Recording.load("right"), name="right-12", view="decoded"), name="pair-12")

# %% [markdown]
# What to see: the decoded clips differ from the first step on. The smear of the one run begins at the right edge, that
# of the other at the left one: the prompt decides the direction at once. The height is settled later. Both smears begin
# at half the height; in the end one circle runs above the middle, the other one below it. The latents *x* part slowly,
# because for a long time nearly all of *x* is the noise that both runs share. After the first step they differ by 2 %
# of their size, in the middle of the run by a third.
#
# ## 3 · A run in three megabytes
#
# What does a recording hold? After each of 50 steps the released model has latents of 4 × 16 × 32 × 32 numbers, and
# besides them the noise and the clip that the UNet saw in them.

# %%
numbers = 50 * 3 * 4 * 16 * 32 * 32
print(f"50 steps, three tensors each: {numbers:,} numbers, {4 * numbers / 1e6:.0f} MB in float32")

# %% [markdown]
# That is too much for a file to be sent around, and more than eyes need. The way out is to store a *byte* for each
# number. For each step remember the least number and the greatest; 0 stands for the one, 255 for the other, and what
# lies between is rounded:
#
# $$\hat x = x_{\min} + q\,\frac{x_{\max} - x_{\min}}{255}, \qquad q \in \{0, \dots, 255\} \qquad (12.1)$$
#
# How wrong can $\hat x$ be? At most half a step of the scale. Try it on latents of the model that is here.

# %%
steps = list(pipe.stream("a large red circle moves left", seed=0, steps=4))
for i in (0, 3):
    x = steps[i].x.float()
    low, high = x.min(), x.max()
    q = ((x - low) / (high - low) * 255).round().to(torch.uint8)
    back = low + q * ((high - low) / 255)
    half_a_step = (high - low) / 510
    print(f"step {i + 1}: the largest error is {(back - x).abs().max() / half_a_step:.1f} times half a step of the scale")

# %% [markdown]
# It is reached, and never passed. In terms of the clip that is invisible: a 255th of the range is far less than the
# noise that the last steps take away. What else is left out of a long run: every other frame, every other step, until
# the file has three megabytes. The norms are kept of all steps. And no code: a recording is a numpy archive that is
# read without pickles (notebook 11 says why).
#
# *What if?* Take one range for all steps instead of one each. Then the widest step decides, and the others have fewer
# values left than a byte can tell.
#
# ## 4 · Decode in parts
#
# The last thing in a run is the decoder, and on many cards it is where the memory ends: its widest tensors have 128
# channels at the full size of the picture. But it works on single frames, so
#
# $$D(z_1, \dots, z_f) = \big(D(z_1), \dots, D(z_f)\big), \qquad (12.2)$$
#
# and we may cut the row of frames where we like.

# %%
lab.predict("12.b")

# %% [markdown]
# ### Exercise 12.1 · decode_in_parts
#
# Difficulty 3/5 · importance 5/5 · 20 minutes
#
# | argument | what it is |
# | --- | --- |
# | `decode` | a function (n, c, h, w) → (n, 3, H, W), floats in [-1, 1] |
# | `latents` | (b, c, f, h, w), of b clips |
# | `chunk` | how many frames go through `decode` at a time |
#
# Return uint8 pixels (b, f, H, W, 3). No call may get more than `chunk` frames, and no frame may be decoded twice. Only
# the last part, or the last one of each clip, may be smaller. The check also counts bytes: floats of a
# decoded frame take four times as much as its pixels, so do not keep them. `to_pixels(frames)` takes (n, 3, H, W) to
# uint8 (n, H, W, 3).
#
# <details><summary>Hint 1</summary>Make one row of all frames of all clips, (b f) c h w, and let
# <code>.split(chunk)</code> cut it. Only then loop.</details>
# <details><summary>Hint 2</summary>Append <code>to_pixels(decode(part))</code> to a list: no name keeps the floats.
# At the end <code>torch.cat</code>, and give it back its first two axes:
# <code>.unflatten(0, (len(latents), -1))</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# frames, parts = latents.transpose(1, 2).flatten(0, 1), []  # (b c f h w) -> ((b f) c h w)
# for part in frames.split(chunk):
#     parts.append(to_pixels(decode(part)))
# return torch.cat(parts).unflatten(0, (len(latents), -1))
# ```
# </details>
# <!-- END SOLUTION -->

# %%
from minit2v.pixels import to_pixels


# %% tags=["exercise"]
def decode_in_parts(decode, latents, chunk):
    """decode: (n, c, h, w) -> (n, 3, H, W) in [-1, 1]; latents (b, c, f, h, w) -> uint8 (b, f, H, W, 3)."""
    ### BEGIN SOLUTION
    frames, parts = latents.transpose(1, 2).flatten(0, 1), []  # (b c f h w) -> ((b f) c h w)
    for part in frames.split(chunk):
        parts.append(to_pixels(decode(part)))
    return torch.cat(parts).unflatten(0, (len(latents), -1))
    ### END SOLUTION


# %%
lab.check("12.1", decode_in_parts)

# %% [markdown]
# And on a real decoder, with the bytes counted as in notebook 11: `Live` adds up all tensors that are alive.

# %%
from minit2v.memory.plan import Live

in_parts, latents = lab.yours("12.1"), steps[-1].x
dtype = next(pipe.autoencoder.parameters()).dtype


def decode(z):
    """Latents of frames -> frames, as the pipeline calls it."""
    return pipe.autoencoder.decode((z / pipe.preset.scale_factor).to(pipe.device, dtype))


pixels = {}
with torch.inference_mode(), pipe.working(pipe.autoencoder):
    for chunk in (latents.shape[2], 4, 1):
        with Live(pipe.autoencoder) as live:
            pixels[chunk] = in_parts(decode, latents, chunk).cpu().int()
        print(f"{chunk:2} frames at a time: {live.peak / 1e6:6.1f} MB of tensors")
whole, *others = pixels.values()
print("numbers that differ by more than one grey level:", [((other - whole).abs() > 1).sum().item() for other in others])

# %% [markdown]
# The same clip, for a fraction of the memory. (Single numbers may differ by one level: for another number of frames
# a convolution may add up in another order.) The library does the same, with four frames at a time, or with one where
# memory is short.
#
# *What if?* Cut the *UNet* in the same way, four frames at a time. It runs, and you get four clips that know nothing
# of one another. (12.2) holds for a network without temporal layers, and for no other.
#
# ## 5 · What makes memory grow?
#
# You have a card, and it is full. What do you turn down? Sampling steps are the first thing people try. Notebook 11 said
# why that does not help: a step leaves nothing behind but its latents. Unless somebody keeps them.

# %%
lab.predict("12.c")

# %%
everything = torch.nn.ModuleList(pipe.networks.values())


def peak(steps, keep):
    """Bytes of live tensors of a run, at the widest moment; with `keep` every step is kept in a list."""
    with Live(everything) as live:
        kept = [step if keep else None for step in pipe.stream("a large red circle moves left", seed=0, steps=steps)]
    return live.peak


peak(1, False)  # the first run also fills tables that stay
for count, keep in ((2, False), (8, False), (8, True)):
    print(f"{count} steps{', all of them kept' if keep else '':20} {peak(count, keep) / 1e6:5.1f} MB")

# %% [markdown]
# What to see: the number of steps makes no difference, for each leaves only its latents behind. What does make one is
# *keeping* them, as our list did: `list(pipe.stream(…))` is convenient for small models, and a habit to lose.
#
# Frames are another matter. Here are the counts for `mini`, of the two networks that work, at four lengths. (They were
# counted as in notebook 11, by `python scripts/memory_figures.py`.)

# %%
from minit2v.memory.figures import recorded

counts = {one.frames: one for one in recorded() if (one.model, one.dtype) == ("mini", "float32")}
counts = dict(sorted(counts.items()))
lines = {"UNet": {f: one.unet["batched"] for f, one in counts.items()},
         "decoder, all frames at once": {f: one.decoder[str(f)] for f, one in counts.items()},
         "decoder, frame by frame": {f: one.decoder["1"] for f, one in counts.items()}}
lab.curves({name: (list(sizes), [size / 1e6 for size in sizes.values()]) for name, sizes in lines.items()}, "frames",
           "MB of tensors", alt="Tensors against frames: UNet and a decoder that gets all frames rise along straight "
           "lines; a decoder that gets one frame at a time stays at the bottom.")

# %% [markdown]
# What to see: straight lines. Attention along time grows with the square of the frames, but it is so small a part that
# one does not see it. So the whole peak is a line, too: weights and program, which are there whatever you sample, and
# a fixed amount for every frame.
#
# ### Exercise 12.2 · most_frames
#
# Difficulty 2/5 · importance 4/5 · 10 minutes
#
# `sizes` is {frames: bytes of the peak} for two lengths or more; `memory` is what the card has, in bytes. Return the
# greatest whole number of frames that fits, by the straight line through the sizes; with more than two of them, the
# one with the least squared error. 0 if not even one frame fits. A card that is full to the byte fits: mind floating
# point.
#
# <details><summary>Hint 1</summary><code>numpy.polyfit(x, y, 1)</code> gives slope and start of that line; or write it
# out, with means.</details>
# <details><summary>Hint 2</summary>Solve start + slope · frames ≤ memory for the frames, round down, and mind what is
# below zero. Add 1e-9 before you round: a quotient that should be 20 may come out as 19.999999999.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# each, start = np.polyfit(list(sizes), list(sizes.values()), 1)
# return max(0, math.floor((memory - start) / each + 1e-9))
# ```
# </details>
# <!-- END SOLUTION -->

# %%
import math

import numpy as np


# %% tags=["exercise"]
def most_frames(sizes, memory):
    """{frames: bytes of the peak}, bytes of the card -> the greatest number of frames that fits."""
    ### BEGIN SOLUTION
    each, start = np.polyfit(list(sizes), list(sizes.values()), 1)
    return max(0, math.floor((memory - start) / each + 1e-9))
    ### END SOLUTION


# %%
lab.check("12.2", most_frames)

# %% [markdown]
# Now for the released model, in half precision, from the counts that come with the library.

# %%
longest = lab.yours("12.2")
released = [one for one in recorded() if (one.model, one.dtype, one.width) == ("modelscope-1.7b", "float16", 256)]
for offload in (False, True):
    for at_once in (True, False):
        sizes = {one.frames: sum(one.peak("cuda", False, offload, one.frames if at_once else 1).values())
                 for one in released}
        told = ", ".join(f"{longest(sizes, gb * 1e9):4} on {gb} GB" for gb in (4, 6, 8, 12, 24))
        print(f"{'offload, ' * offload + ('all decoded at once' if at_once else 'frame by frame'):28} frames: {told}")

# %% [markdown]
# So memory allows far longer clips than the model can make *well*. It was trained with 16 frames, and nothing in its
# weights says how to go on after them. More frames cost time as well, and the clip falls apart in its own way: try
# `ctx.pipe(prompt, frames=48)`. `window=16` lets overlapping windows see 16 frames each, which bounds the memory too.
#
# *What if?* Count the peak at only two lengths, 2 and 4 frames, and go from there to 200. The line is the same, but a
# small error of its slope grows with every frame: measure near where you want to know.
#
# ## 6 · A study of prompts
#
# You type a prompt, look at a clip, change a word, and look again. After an evening of that most people know many
# things about a model that are not true. A clip changes with the seed, too; and one sees what one expects. A small
# protocol helps, in four steps, and the order is the point:
#
# | step | what you do | why in this order |
# | --- | --- | --- |
# | **Predict** | write down what the word will change, and what it will not | later you would have known it all along |
# | **Describe** | look, and write what is there, in words that do not come from the prompt | the prompt tells you what to see |
# | **Compare** | count over seeds; compare with what a change of the *seed* does | a single clip is an anecdote |
# | **Name** | give the effect a name, one that could be wrong | a name that fits everything explains nothing |
#
# The study here is about `mini`, also where the full weights are, for its clips can be *read* by a program: the judge
# that you know from notebook 08. To save time it takes six steps a clip instead of twelve. One word of a prompt is
# changed at a time: the shape, the colour, the size, the direction.

# %%
BASE = "a large red circle moves left"
CHANGED = {"shape": "a large red square moves left", "colour": "a large blue circle moves left",
           "size": "a small red circle moves left", "motion": "a large red circle moves up"}
notes = {"predict": "the colour word changes the colour and nothing else; the others …", "describe": "", "name": ""}
for step, note in notes.items():
    print(f"{step}: {note or '(yours)'}")

# %%
seeds, mini = ctx.pick(fast=1, default=6, full=60), ctx.pipe
clips = {name: mini([prompt] * seeds, seed=0, steps=6) for name, prompt in {"the prompt": BASE, **CHANGED}.items()}
clips["the seed"] = mini([BASE] * seeds, seed=1000, steps=6)
lab.strip({name if name == "the prompt" else f"{name} changed": made[0] for name, made in clips.items()}, n=6,
          alt="Six rows of frames from one seed: the prompt itself, then the same with another shape, colour, size, "
          "direction; last, the prompt with another seed.")

# %% [markdown]
# *Describe* first: what is there, in each row? Where does it begin, how large is it, where does it go, does it keep
# its outline? Then count. For every seed there is a pair of clips, and for each pair and attribute one question: did
# the judge read something else?
#
# A share from a few pairs is uncertain, and one should say how much. With $k$ changes among $n$ pairs, $p = k/n$ and
# $z = 1.96$, the interval that Wilson found in 1927 is
#
# $$\frac{p + \frac{z^2}{2n} \pm z\sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}} . \qquad (12.3)$$
#
# Unlike the plain $p \pm z\sqrt{p(1-p)/n}$ it does not claim certainty when nothing has changed in three pairs.
#
# ### Exercise 12.3 · changed_share
#
# Difficulty 3/5 · importance 4/5 · 15 minutes
#
# `before` and `after` are lists of n readings, seed by seed. A reading is a dictionary, {attribute: text}, or None
# where the judge abstains. Return {attribute: (share, low, high)}: the share of pairs whose readings differ, and
# Wilson's interval. None beside a text counts as a change, None beside None does not.
#
# <details><summary>Hint 1</summary><code>zip(before, after)</code> gives the pairs. Python's <code>!=</code> treats
# None as the rule above wants it.</details>
# <details><summary>Hint 2</summary>Compute the middle <code>(p + z**2 / (2 * n)) / (1 + z**2 / n)</code> and the half
# width <code>z * math.sqrt(…) / (1 + z**2 / n)</code>, with z = 1.96.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# result, n, z = {}, len(before), 1.96
# for name in before[0]:
#     p = sum(one[name] != other[name] for one, other in zip(before, after)) / n
#     middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
#     half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
#     result[name] = (p, middle - half, middle + half)
# return result
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def changed_share(before, after):
    """Readings of n clips and of their partners, [{attribute: text or None}] -> {attribute: (share, low, high)}."""
    ### BEGIN SOLUTION
    result, n, z = {}, len(before), 1.96
    for name in before[0]:
        p = sum(one[name] != other[name] for one, other in zip(before, after)) / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        result[name] = (p, middle - half, middle + half)
    return result
    ### END SOLUTION


# %%
lab.check("12.3", changed_share)

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of seeds depends on the mode
from dataclasses import asdict

from minit2v.evaluation import judge

share, readings = lab.yours("12.3"), {}
for name, made in clips.items():
    found = [asdict(judge.read(clip.pixels)) for clip in made]
    readings[name] = [{key: one[key] for key in CHANGED} for one in found]
study = {name: share(readings["the prompt"], readings[name]) for name in (*CHANGED, "the seed")}
print(f"{seeds} pairs; percent of them that changed, and the interval")
for name, found in study.items():
    cells = [f"{100 * p:4.0f} ({100 * max(low, 0):.0f} to {100 * min(high, 1):.0f})" for p, low, high in found.values()]
    print(f"{name + ' changed':17}" + "".join(f"{cell:>18}" for cell in cells))
print(f"{'':17}" + "".join(f"{name:>18}" for name in CHANGED))

# %%
table = np.array([[found[name][0] for name in CHANGED] for found in study.values()])
lab.matrix(table, [f"{name} changed" for name in study], list(CHANGED), xlabel="share that the judge reads differently",
           alt="A table of shares: rows are what was changed in the prompt, columns what the judge read differently.")

# %% [markdown]
# How to read it. A model that obeys each word and nothing else has 1 on the diagonal of the first four rows, and 0
# beside it. Whatever else stands beside it is *leakage*: a word that changes what it does not speak of. The last row is
# the measure for that: it tells what a new seed changes, with the prompt as it was. What a word changes *less* than a
# seed does, you have not shown to be the work of the word. And None counts: a reading that failed is not "the same".
#
# In default mode the table has 1 on the diagonal and 0 elsewhere. Does that prove that nothing leaks? First look at the
# intervals: 0 of 6 goes with 0 to 39 %, so a leak in one clip of three may have been missed. Then look at the picture
# again. In the row *colour changed* the circle is blue, and it also runs along a lower line. The table has no column
# for the place, so it cannot tell. And the last row warns you: another seed moves the circle, too.
#
# Now *name* what you found, in a sentence that could be wrong. "The colour word moves the place" is one: it says what
# would refute it. Count the height over seeds, and compare with what the seed does. Then choose another base prompt,
# with a purple heart, say, which `mini` knows from pictures only, and try to refute your sentence there.
#
# *What if?* Let each pair have two *different* seeds. Then every row holds the change of the seed as well, and no word
# can be told from it: the same seed in both clips of a pair is what makes the comparison fair.
#
# The released model has no judge that reads its clips. There you describe by eye, or with the metrics of notebook 13.
# The protocol is the same, and the seeds are needed more, not less.
#
# ## 7 · A bug hunt
#
# A colleague ports the model and tests it in float64, as notebook 11 advised: then rounding cannot hide anything. Same
# weights, same prompt, same seed as the clip in float32; and her clip is another one. Each can be repeated as often as
# she likes. Somebody else reports the same from a GPU. She suspects her port and begins to compare layers. They all
# agree. Here is how she draws the noise:


# %%
def their_noise(shape, seed, dtype, device):
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), dtype=dtype, device=device)


shape, prompt, single = (1, 4, 16, 8, 8), "a small blue ring moves up", torch.float32
noises = {"float32": their_noise(shape, 3, single, "cpu"),
          "float32, then rounded to half": their_noise(shape, 3, single, "cpu").half().float(),
          "float64": their_noise(shape, 3, torch.float64, "cpu").float()}
if card:
    noises["float32 on the GPU"] = their_noise(shape, 3, single, "cuda").cpu()
made = {name: mini(prompt, noise=noise, steps=6) for name, noise in noises.items()}
for name in list(noises)[1:]:
    away = abs(made[name].pixels.astype(int) - made["float32"].pixels).mean()
    print(f"{name:30} the clip is {'less' if away < 1 else 'more'} than one grey level away, on average")
lab.strip(made, n=6, alt="Frames of clips of one seed: rounded noise gives the same clip; noise drawn in float64 gives "
          "another one.")

# %% [markdown]
# Rounding is innocent: noise with three digits makes the same clip. Think before you read on: what is it, then, that
# depends on the precision, where nothing has been computed yet?
#
# ### Exercise 12.B · start_noise
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Mend it: a seed must mean the numbers that float32 draws on the CPU, up to rounding, in every precision and on every
# device. Leave the random numbers of others alone: no `torch.manual_seed`.
#
# <details><summary>Hint 1</summary>A generator makes a stream of random bits. How many of them does a number in float32
# use up, and how many one in float64? And a generator on a GPU is another algorithm altogether.</details>
# <details><summary>Hint 2</summary>Draw where everybody draws the same, and only then go to another place and
# precision.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# generator = torch.Generator("cpu").manual_seed(seed)
# return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(device, dtype)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def start_noise(shape, seed, dtype, device):
    """Standard normal noise of that shape, the same numbers for a seed in every dtype and on every device."""
    ### BEGIN STUDENT
    # return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), dtype=dtype, device=device)
    ### END STUDENT
    ### BEGIN SOLUTION
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(device, dtype)
    ### END SOLUTION


# %%
lab.check("12.B", start_noise)

# %% [markdown]
# The library draws every noise in float32 on the CPU, whatever the model computes in. So a seed that you write down is
# worth something, on every machine. (In which precisions a draw differs depends on the version of PyTorch. That is one
# more reason not to rely on it.)
#
# ## Takeaways
#
# 1. Frames are independent in the decoder and in nothing else: decoding in parts is exact, and it is the cheapest way to
#    save memory. Steps take no memory at all; frames take a fixed amount each.
# 2. A recording holds a run of any model in three megabytes, with a byte for each number, and says which model made it.
# 3. One clip is an anecdote. Predict before you look, describe before you count, compare with what a seed does, and
#    name what could be wrong.
#
# ## Quiz

# %%
lab.quiz(12)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(12)

# %% [markdown]
# ## Further reading
#
# - Wang and others, [ModelScope text-to-video technical report](https://arxiv.org/abs/2308.06571), sections 3 and 4: the
#   model, and how its authors sample.
# - Jacob and others, [Integer-arithmetic-only inference](https://arxiv.org/abs/1712.05877), section 2: the byte of (12.1),
#   in which whole networks can compute.
# - White and Gunstone, *Probing Understanding* (1992), on predict, observe, explain: the protocol from which ours
#   descends.
#
# **Next:** [13 · Is it any good, and should it exist?](13_is_it_any_good.ipynb): what a figure sees, and what it does not.
