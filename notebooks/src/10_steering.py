# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · Steering: guidance, seeds, steps
#
# **A trained model is not the end of the choices. Which clip you get also depends on how you ask: how hard you push
# towards the prompt, which noise you begin with, and how many steps you take.**
#
# **You will**
# - derive guidance, and watch what it does to a world where everything is known
# - write guidance in one call of the network, rescaled guidance, and a solver of second order
# - compare five guiders over 52 clips each: how true to the prompt, and how different from one another
# - find where a sampler with few steps breaks down
# - turn the model into one of flow matching, and sample it along a straight way
# - find a bug that makes a model do the opposite of what it is asked
#
# **You need** [06 · Un-destroying it](06_un_destroying_it.ipynb): the ring, the perfect denoiser, DDIM.
#
# **Time** reading 24 minutes · running 1 to 2 minutes (fast mode 20 to 60 seconds) · exercises 45 minutes

# %%
from minit2v import lab

ctx = lab.setup(10)

# %% [markdown]
# ## 1 · How much say has the prompt?
#
# Notebook 06 used guidance without a reason: ask the network twice, with the prompt and without, and exaggerate the
# difference $s$ times. Here is one seed with six values of $s$.

# %%
PROMPT = "a large yellow square moves right"
STEPS = ctx.pick(fast=2, default=12)
clips = {f"scale {s:g}": ctx.pipe(PROMPT, guidance=s, seed=3, steps=STEPS) for s in (0, 1, 1.5, 3, 12, 30)}
lab.strip(clips, n=6, alt="Six rows of frames from one seed, a row for each guidance scale from 0 to 30.")

# %% [markdown]
# What to see: in the first row the prompt has no say, and the model shows something else, which changes its shape and
# its colour on the way. In the second it answers the prompt, without exaggeration. Further down the prompt is
# exaggerated more and more, until the clip itself suffers: at 12 the outline has dents, and at 30 little more than
# fragments is left.
#
# So $s$ must not be very large, and section 5 will show what there is to gain above 1. Why does a model need to be pushed
# at all, and why does pushing hurt? The clips cannot tell us. The ring can.
#
# ## 2 · Where guidance comes from
#
# We go back to the plane of notebook 06: six blobs on a ring, and a denoiser that is perfect. This time it has
# prompts. "Right" means the three blobs on the right, and the empty prompt means all six.

# %%
import math

import torch

from minit2v.diffusion import flow, guiders, samplers
from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import SAMPLERS
from minit2v.presets import DiffusionConfig

angles = torch.arange(6, dtype=torch.float64) * 2 * math.pi / 6
RING = 1.35 * torch.stack([angles.cos(), angles.sin()], dim=1)  # (6, 2); blob 0 is on the right
diffusion = Diffusion(DiffusionConfig(schedule="cosine", prediction="x0", spacing="trailing"))
alpha_bar = diffusion.alpha_bar  # (1000,), falling
noise = torch.randn(2000, 2, generator=ctx.generator(1), dtype=torch.float64)


def posterior_mean(x, a, blobs, spread=0.25):
    """The mean of all x0 of these blobs that could be behind x (n, 2), if alpha_bar is a: (n, 2). As in 06."""
    variance = a * spread**2 + 1 - a
    distance = ((x[:, None] - a**0.5 * RING[blobs]) ** 2).sum(-1)
    middle = torch.softmax(-distance / (2 * variance), dim=1) @ RING[blobs]
    return middle + a**0.5 * spread**2 / variance * (x - a**0.5 * middle)


def oracle(blobs, spread=0.25):
    """A perfect network for a world of these blobs: a model (x, t) -> x0."""
    return lambda x, t: posterior_mean(x, alpha_bar[t].item(), blobs, spread)


EVERY, RIGHT = [0, 1, 2, 3, 4, 5], [5, 0, 1]
without, with_prompt = oracle(EVERY), oracle(RIGHT)


def ends(model, steps=50, begin=noise):
    """Where DDIM takes noises (n, 2), by default our two thousand: (n, 2)."""
    *_, last = SAMPLERS["ddim"](model, begin, diffusion, steps)
    return last.x0


# %% [markdown]
# What is the difference between the two answers? Suppose you had no prompt in the network, but a judge beside it who
# looks at a noisy $x$ and says how likely it is to become something on the right: $p(c \mid x)$. You could make any
# model follow the prompt by nudging $x$ uphill, to where the judge is more sure. Bayes' rule says that this is what a
# model with a prompt does already:
#
# $$\log p(x \mid c) = \log p(x) + \log p(c \mid x) + \text{const}, \qquad
# x_0^{\text{with}} - x_0^{\text{without}} = \frac{1-\bar\alpha}{\sqrt{\bar\alpha}}\,\nabla_x \log p(c \mid x).$$
#
# The second equation holds because a perfect denoiser's $x_0$ is $(x + (1-\bar\alpha)\,\nabla\log p(x)) /
# \sqrt{\bar\alpha}$. In the plane we know the judge: with what belief is $x$ from the three blobs? We compare the
# slope of its logarithm with the difference of the answers.

# %%
t = 600
a = alpha_bar[t].item()
place = noise[:200].clone().requires_grad_()
distance = ((place[:, None] - a**0.5 * RING) ** 2).sum(-1)
belief = torch.softmax(-distance / (2 * (a * 0.25**2 + 1 - a)), dim=1)  # in each of the six blobs
belief[:, RIGHT].sum(1).log().sum().backward()
slope = (1 - a) / a**0.5 * place.grad
difference = with_prompt(noise[:200], t) - without(noise[:200], t)
print(f"size of the difference {difference.norm(dim=1).mean():.2f}, "
      f"of its distance from the slope {(difference - slope).norm(dim=1).max():.6f}")

# %% [markdown]
# So the difference of the two answers already is such a judge, and no second network is needed. *Classifier-free
# guidance* (Ho and Salimans) makes the judge louder. The model with the prompt has the difference once; take it $s$
# times.
#
# $$\text{answer} = \text{worse} + s\,(\text{better} - \text{worse}) \qquad (10.1)$$
#
# Here "better" is the answer with the prompt, and "worse" the one without. (This is (6.6) with other names; we shall
# need them.) With $s > 1$ one would expect samples of $p(x)\,p(c \mid x)^s$: the same world, but whatever is not clearly
# on the right becomes rarer. Within each of the three blobs the judge is sure, so all three should stay as they are.
#
# ## 3 · What it does instead

# %%
lab.predict("10.a")

# %%
guided = {s: ends(guiders.extrapolated(with_prompt, without, s)) for s in (1, 2, 4, 8)}
lab.points({f"scale {s}": x for s, x in guided.items()}, apart=True, alt="Scale 1 fills the three blobs on the right; "
           "with larger scales the points gather in the middle one of the three and move outwards, off the ring.")

# %%
def tell(name, x, blob=0):
    """Share of points nearest to a blob; how far out they are; how wide that blob is."""
    near = torch.cdist(x, RING).argmin(1) == blob
    print(f"{name:28} near blob {blob}: {100 * near.double().mean():3.0f} % · distance from the middle "
          f"{x.norm(dim=1).mean():.2f} · spread of the blob {x[near].std(0).mean():.2f}")


for s, x in guided.items():
    tell(f"scale {s}", x)

# %% [markdown]
# What to see: three things happen, and nobody asked for them.
#
# - **Diversity is lost.** One point in three was near the middle blob; with scale 8 it is nearly all.
# - **Points leave the data.** The ring has radius 1.35. Guided points overshoot it. This is over-saturation: more of
#   what the prompt says than any real clip has.
# - **Blobs shrink.** Within a blob the points are more alike than the data.
#
# Why? While there is much noise, the middle blob is what "right" looks like most clearly: it is farthest from the blobs
# on the left. There the judge's slope leads to the middle for all three. If the guided model were followed exactly, it
# would still not sample $p(x)\,p(c \mid x)^s$, because the noisy version of a sharpened world is not the sharpened
# version of a noisy world. Formula (10.1) takes the second for the first.
#
# And mind that this denoiser was *perfect*, so guidance could only do harm. Real networks are not perfect. They spread
# some probability between the things that they have learnt, and a push away from "anything" is a push out of there.
# That is why guidance pays: it trades diversity for fidelity, and the weaker a network is, the more it needs the
# trade.
#
# ## 4 · Guidance in one call
#
# The network is asked twice in each step. A GPU answers two clips in one batch nearly as fast as one, so everybody
# puts both questions into one call. Then it matters which half is which.
#
# ### Exercise 10.1 · in_one_call
#
# Difficulty 2/5 · importance 5/5 · 10 minutes
#
# Return a model `(x, t) -> answer` by (10.1) that calls `unet(x, t, context)` once in each step. `words` and `nothing`
# are (b, n, d), the prompt of each clip and the empty prompt; `x` is (b, c, f, h, w), and `t` is an int. The UNet wants
# a timestep for each clip of its batch: a tensor (2b,).
#
# <details><summary>Hint 1</summary>Four lines: a batch of <code>x</code> twice, the times, the texts, and after the
# call <code>.chunk(2)</code>. Put the clips beside the texts of the same order.</details>
# <details><summary>Hint 2</summary><code>torch.cat([x, x])</code> goes with
# <code>torch.cat([nothing, words])</code>; then the first half of the answer is the one without the prompt.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# def model(x, t):
#     times = torch.full((2 * len(x),), t)
#     u, c = unet(torch.cat([x, x]), times, torch.cat([nothing, words])).chunk(2)
#     return u + scale * (c - u)
#
# return model
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def in_one_call(unet, words, nothing, scale):
    """unet (x, t, context) -> output; words and nothing (b, n, d) -> a model (x, t) -> answer, one call of the unet."""
    ### BEGIN SOLUTION

    def model(x, t):
        times = torch.full((2 * len(x),), t)
        u, c = unet(torch.cat([x, x]), times, torch.cat([nothing, words])).chunk(2)
        return u + scale * (c - u)

    return model
    ### END SOLUTION


# %%
lab.check("10.1", in_one_call)

# %%
from minit2v.video import Clip

pipe = ctx.pipe
words, nothing = pipe.text.encode([PROMPT]), pipe.text.encode([""])  # (1, n, d) each
start = samplers.gaussian((1, 4, 16, 8, 8), ctx.generator(3))


@torch.inference_mode()
def clip_of(model, x=start, sampler="ddim", steps=4):
    """The clip that a sampler makes of noise x (1, c, f, h, w) with a model."""
    *_, last = SAMPLERS[sampler](model, x, pipe.diffusion, steps)
    return Clip(pipe.decode(last.x)[0], pipe.preset.fps)


mine = clip_of(lab.yours("10.1")(pipe.unet, words, nothing, 3.0))
theirs = pipe(PROMPT, guidance=3.0, seed=3, steps=4)
apart = abs(mine.pixels.astype(int) - theirs.pixels.astype(int))
print(f"numbers of {apart.size:,} that differ from the pipeline's by more than one grey level: {(apart > 1).sum()}")

# %% [markdown]
# *What if?* Leave out guidance in every second step. The network then answers three questions where it answered four.
# How would you find out what that does to the clips? Section 8 measures a relative of this idea.
#
# ## 5 · Too much of it, in numbers
#
# Back to the clips. The file `data/guiders.npz` holds what `scripts/record_guiders.py` measured with the shipped
# weights: 52 clips, 13 seeds for each of four prompts, with several guiders and scales. Take plain guidance first.
# *Fidelity* is how much of what the prompt says (shape, colour, size, direction) the judge reads in a clip; *diversity*
# is the mean distance of two clips of one prompt, in the features of the network behind FVD-mini
# ([docs/metrics.md](../docs/metrics.md)). *Spread* is the standard deviation of the latents, which grows with the
# contrast of a clip, and *flicker* the change from frame to frame that no motion explains. The last line has the spread
# and flicker of real clips.

# %%
from minit2v.datasets.moving_things import MovingThings
from minit2v.evaluation import motion
from minit2v.lab.course.guiding import GuiderGrid

grid = GuiderGrid.load()
real = MovingThings("val").batch(range(16))[0]
print("scale   fidelity, %           diversity   spread   flicker")
for j, s in enumerate(grid.scales):
    one = grid.fidelity[0][j]
    print(f"{s:5g}   {one.value:5.1f} ({one.low:4.1f} to {min(one.high, 100):5.1f})   {grid.diversity[0, j]:9.2f}"
          f"   {grid.spread[0, j].mean():6.2f}   {grid.flicker[0, j].mean():7.2f}")
latents = pipe.encode(real)
print(f"real                                      {latents.flatten(1).std(1).mean():6.2f}   "
      f"{motion.measure(real)['flicker'].mean():7.2f}")

# %% [markdown]
# What to see: from scale 1 to 3 fidelity rises and diversity falls. At 12 look at the last two columns: spread and
# flicker are far from those of real clips, so the clips are no longer of this world, like the points beyond the ring.
# Their diversity is large again, for clips that broke differ from one another. (Fewer steps than usual were taken, six,
# to make so many clips affordable.)
#
# ## 6 · Keep the size of the answer
#
# One harm has a simple cause. When the difference is exaggerated, the answer as a whole grows: its numbers have a
# larger standard deviation than any answer that the network gives. Lin and others (2023) bring it back. Let $g$ be the
# guided answer and $b$ the better one; then
#
# $$g' = \varphi\,\frac{\operatorname{std}(b)}{\operatorname{std}(g)}\,g + (1-\varphi)\,g \qquad (10.2)$$
#
# with one standard deviation for each clip, over all its numbers. At $\varphi = 1$ the answer has the spread of $b$; as
# that looks a little dull, they take $\varphi = 0.7$.
#
# ### Exercise 10.2 · rescale
#
# Difficulty 2/5 · importance 4/5 · 10 minutes
#
# `guided` and `plain` are (b, …) with any axes after the first; `share` is $\varphi$. Each clip of the batch has its
# own ratio. `torch.Tensor.std` takes several axes and `keepdim=True`.
#
# <details><summary>Hint 1</summary>All axes but the first: <code>tuple(range(1, guided.ndim))</code>.</details>
# <details><summary>Hint 2</summary>Compute the ratio first, with <code>keepdim=True</code> in both, so that it can be
# multiplied with the clips. Then mix the rescaled answer and the guided one.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# axes = tuple(range(1, guided.ndim))
# ratio = plain.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
# return share * (ratio * guided) + (1 - share) * guided
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def rescale(guided, plain, share):
    """guided, plain (b, …): two answers; share 0 to 1 -> guided, brought back to plain's spread by that share."""
    ### BEGIN SOLUTION
    axes = tuple(range(1, guided.ndim))
    ratio = plain.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return share * (ratio * guided) + (1 - share) * guided
    ### END SOLUTION


# %%
lab.check("10.2", rescale)

# %%
shrink = lab.yours("10.2")
better, worse = samplers.guided(pipe.unet, words), samplers.guided(pipe.unet, nothing)
strong = guiders.extrapolated(better, worse, 12.0)
few = ctx.pick(fast=2, default=8)
compared = {f"scale 12, share {share:g}": clip_of(lambda x, t, share=share: shrink(strong(x, t), better(x, t), share),
                                                  steps=few) for share in (0, 0.7, 1)}
lab.strip({"no guidance": clip_of(better, steps=few)} | compared, n=6, alt="Four rows of frames: no guidance, then "
          "guidance with scale 12, rescaled not at all, by seven tenths and wholly.")

# %% [markdown]
# What to see: compare the strength of the colours in the third and fourth row with the first, and look whether what
# broke in the second row is whole again. Rescaling mends the size of an answer and not its direction, so what was
# decided too early stays decided. Section 8 measures what it is worth.
#
# *What if?* Rescale each channel, or each frame, for itself. A frame in which little should happen would then be blown
# up to the spread of the others.
#
# ## 7 · Five guiders, two answers
#
# Look at (10.1) again. It never says that "worse" means "without the prompt". Any model will do that is worse in
# *the* respect in which you want to be better. The library has the line once, and two ways to change it:

# %%
lab.show_source(guiders.extrapolated)
lab.show_source(guiders.within)
lab.show_source(guiders.rescaled)

# %% [markdown]
# | guider | better | worse | and |
# | --- | --- | --- | --- |
# | classifier-free | the prompt | the empty prompt | |
# | negative prompt | the prompt | the prompt of what is unwanted | |
# | interval | the prompt | the empty prompt | only while the noise is neither strong nor weak |
# | autoguidance | the prompt | *the same prompt*, asked of a weaker model | |
# | rescaled | the prompt | the empty prompt | (10.2) |
#
# The two that are new deserve a look in the plane.
#
# **Negative prompt.** Ask for "right", and do not want the middle blob. How hard may one push?

# %%
for s in (1, 1.25, 1.5, 2):
    x = ends(guiders.extrapolated(with_prompt, oracle([0]), s))
    inside = torch.cdist(x, RING).min(1).values < 0.75
    print(f"scale {s:4}: near the unwanted blob {100 * (torch.cdist(x, RING).argmin(1) == 0).double().mean():3.0f} % · "
          f"in any blob at all {100 * inside.double().mean():3.0f} %")

# %% [markdown]
# What to see: the unwanted blob empties, and then the points run off the map. "Not this" is no place to go to. Away
# from *anything* leads towards the prompt; away from *one thing* leads towards nothing in particular. So a negative
# prompt wants a smaller scale, or words that stand beside the prompt's and share most of it.
#
# In the model: ask for a circle without naming its colour. See which colour the model likes best, put *that* into the
# negative prompt, and count again.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of seeds depends on the mode
from collections import Counter

from minit2v.evaluation import judge

vague = ["a large circle moves left"] * ctx.pick(fast=2, default=8, full=48)


def colours(**options):
    clips = pipe(vague, guidance=2, steps=ctx.pick(fast=2, default=6), seed=0, **options)
    return Counter(judge.read(clip.pixels).colour or "none that the judge knows" for clip in clips)


usual = colours()
favourite = next((colour for colour, _ in usual.most_common() if " " not in colour), "red")
print("colours of", vague[0] + ":", dict(usual))
print(f"with the negative prompt a large {favourite} circle moves left:",
      dict(colours(negative=f"a large {favourite} circle moves left")))

# %% [markdown]
# **Interval** (Kynkäänniemi and others, 2024). Diversity was lost while there was much noise, and where there is little
# noise nothing is left to decide. So guide only in between:
#
# $$s(x_t) = s \;\text{ if }\; \ell < 1-\bar\alpha_t \le h, \quad\text{else } 1 \qquad (10.3)$$

# %%
for s in (4, 8):
    everywhere = guiders.extrapolated(with_prompt, without, s)
    tell(f"scale {s}, always", ends(everywhere))
    tell(f"scale {s}, noise 0.2 to 0.8", ends(guiders.within(everywhere, with_prompt, alpha_bar, 0.2, 0.8)))

# %% [markdown]
# What to see: with the same scale more of the three blobs is left, and the points overshoot less. It saves calls, too:
# outside of the interval the network is asked once.
#
# **Autoguidance** (Karras and others, 2024). The oracle was perfect, so let us spoil it. A network that was trained too
# little blurs what it knows: it believes in wide blobs. Take one whose blobs have a spread of 0.4 instead of 0.25, and
# a still worse one with 0.6. The second makes the same mistake, only more of it. So go from the second to the first,
# *and on*.

# %%
blurred, worse_still = oracle(RIGHT, spread=0.4), oracle(RIGHT, spread=0.6)
for s in (1, 1.5, 2, 2.5):
    tell(f"away from the worse, scale {s}", ends(guiders.extrapolated(blurred, worse_still, s)))

# %% [markdown]
# What to see: the spread of the blob comes down to the truth, 0.25, although neither model knows it, and the share of
# the middle blob stays at one third. Guidance by the empty prompt would have bought sharpness with diversity. Here
# the two have come apart, and that is the point of the paper.
#
# The condition is in the words "the same mistake". The paper takes an early snapshot of the training, or a smaller
# network. None is shipped with `mini`, so for the comparison below we take a copy of `mini` with noise of a tenth of
# their spread on its weights (`guiding.weakened`). That is a stand-in, and not the paper's method: a snapshot is
# wrong where training has not yet arrived, our copy where the noise happens to hit.
#
# ## 8 · All five, measured
#
# This is how the five are made from the model. Nothing else was changed between them: the same prompts, seeds, sampler
# and steps.

# %%
from minit2v.lab.course import guiding

lab.show_source(guiding.ways_to_guide)
low, high = guiding.INTERVAL
visited = samplers.timesteps(pipe.diffusion, guiding.STEPS)
inside = sum(low < 1 - pipe.diffusion.alpha_bar[t].item() <= high for t in visited)
print(f"the interval, {low} to {high} of noise, holds {inside} of the {guiding.STEPS} steps")

# %%
print(f"{'':17}" + "".join(f"scale {s:<16g}" for s in grid.scales))
for name, row, of in zip(grid.guiders, grid.fidelity, grid.diversity):
    told = [f"{one.value:3.0f} ± {one.value - one.low:1.0f} % · {d:4.2f}" for one, d in zip(row, of)]
    print(f"{name:17}" + "".join(f"{text:22}" for text in told))
print(f"fidelity with its 95 % interval, and diversity; {len(grid.prompts)} clips each")

# %%
lab.GuidanceLab(grid, name="guidance-10")

# %% [markdown]
# How to read the map. All lines begin at the same dot, scale 1, where every guider is the model alone. A line that
# goes up has gained fidelity, one that goes left has lost diversity; the best place is at the top on the right. Where a
# line turns down, you have pushed too hard. Compare guiders at *equal fidelity*, not at equal scale: a scale of 3 is
# not the same push for all of them. And look at the intervals before you name a winner: two dots whose intervals
# overlap have not been told apart by 52 clips. At scale 3 the interval keeps more diversity than classifier-free
# guidance, 3.1 against 2.4, at a fidelity that the seeds do not tell apart, as on the ring. At 12 it breaks more of the
# clips: its fidelity is 28 %, against 52 %. (Its upper end is 0.97 and not 0.8 as on the ring: `mini` takes half of its
# six steps above 0.97, and 0.8 would leave only two to guide.) The negative prompt only loses: its fidelity falls from
# 88 % to 80, 66 and 48 %. It is the ring once more: away from *one thing* leads towards nothing in particular.
#
# Then choose two guiders at the largest scale and play their clips. Numbers say that something broke; the clips say
# what.
#
# ## 9 · Seeds
#
# DDIM makes the noise an address (06). What lies between two addresses? Go from one noise to another. The obvious way
# is a straight line, and its middle is the mean of the two.

# %%
lab.predict("10.b")

# %%
def circle(one, two, share):
    """On the circle through two noises, 0 (one) to 1 (two): the squares of their weights add up to 1."""
    angle = share * math.pi / 2
    return math.cos(angle) * one + math.sin(angle) * two


other = torch.randn(2000, 2, generator=ctx.generator(2), dtype=torch.float64)
for name, begin in {"one noise": noise, "the mean of two": (noise + other) / 2,
                    "halfway on the circle": circle(noise, other, 0.5)}.items():
    print(f"variance {begin.var():.2f}", end=" · ")
    tell(name, ends(without, begin=begin))

# %% [markdown]
# What to see: the mean is no noise that the model has ever been shown, for half of its variance is missing. DDIM keeps
# the noise that it sees, so what is missing at the start is missing at the end: the points lie too near to the middle
# of the ring, and the blobs are too narrow. Halfway on the circle the variance is 1, and the points are as they should
# be. (For many axes people call this *slerp*.) The same two places for two clips of the model, "a small blue ring moves
# up", without guidance, because guidance would make them more alike:

# %%
one, two = (samplers.gaussian((1, 4, 16, 8, 8), ctx.generator(seed)) for seed in (7, 9))
model = samplers.guided(pipe.unet, pipe.text.encode(["a small blue ring moves up"]))
places = {"seed 7": one, "the mean": (one + two) / 2, "halfway on the circle": circle(one, two, 0.5), "seed 9": two}
lab.strip({name: clip_of(model, x, steps=few) for name, x in places.items()}, n=6,
          alt="Four rows of frames: the clips of two seeds and, between them, those of the mean of their noises and of a "
          "place halfway on the circle.")

# %% [markdown]
# What to see: what the two in the middle have taken from the first seed and from the last, in place and path. A single
# clip may hide what is missing in the mean; the plane could not.
#
# Seeds are also a temptation. Whoever shows the best of several has not shown the model. With the share of clips in
# which everything was right, from the recorded grid:

# %%
p = grid.right[0, 0].all(1).mean()
print(f"without guidance, all of the prompt is right in {100 * p:.0f} % of {len(grid.prompts)} clips")
for n in (1, 2, 4, 8):
    print(f"  the best of {n}: in {100 * (1 - (1 - p) ** n):.0f} % of the cases at least one is right")

# %% [markdown]
# ## 10 · Steps
#
# Each step costs time. How few will do? The next picture is recorded (`make quality` writes `docs/quality.json`), with an
# earlier `mini` that did not follow its prompts as well as today's. For each number of steps up to 50 it tells in how many
# clips the judge reads everything that the prompt says.

# %%
import json
from pathlib import Path

import minit2v

recorded = Path(minit2v.__file__).parents[1] / "docs/quality.json"
rows = json.loads(recorded.read_text(encoding="utf-8"))["rows"]
usual = [row for row in rows if row["model"] == "mini" and row["guidance"] == pipe.preset.guidance and row["steps"] <= 50]
lines = {}
for name in ("ddim", "dpm++", "ddpm"):
    own = [row for row in usual if row["sampler"] == name]
    lines[name] = ([row["steps"] for row in own], [row["all right, %"]["value"] for row in own])
lab.curves(lines, "steps", "clips in which all is right, %", logx=True, alt="The share of right clips against the number "
           "of steps, a line for each of three samplers: nearly level down to a few steps, then a cliff to zero at one.")

# %% [markdown]
# What to see: not a slope but a cliff. From 50 steps down to a handful hardly anything is lost, and then everything.
# All three samplers fall at the same place. So it is not the solver that fails, but what it is given: a step that is
# longer than the road is straight. Here is one seed of today's model on the way down. It bears two steps, and falls with one:

# %%
counts = ctx.pick(fast=(4, 2, 1), default=(12, 4, 2, 1))
lab.strip({f"steps {n}" if n > 1 else "one step": pipe(PROMPT, seed=3, steps=n) for n in counts}, n=6,
          alt="Rows of frames of one seed with fewer and fewer steps; the last row, one step, is a smear.")

# %% [markdown]
# One step is the smear of 06: the average of everything that the prompt allows. No solver can do better with one step,
# since it gets one answer. Between, a better solver may help, and you are about to write the one that most people use.
#
# **DPM-Solver++.** DDIM holds $x_0$ fixed during a step. Divide its step by the noise, with $\alpha =
# \sqrt{\bar\alpha}$, $\sigma = \sqrt{1-\bar\alpha}$:
#
# $$\frac{x'}{\sigma'} - \frac{x}{\sigma} = \left(\frac{\alpha'}{\sigma'} - \frac{\alpha}{\sigma}\right) x_0.$$
#
# So if we measure progress by $\lambda = \log(\alpha/\sigma)$, half the logarithm of the signal-to-noise ratio, then
# $x/\sigma$ grows by $\int e^\lambda\, x_0(\lambda)\, d\lambda$. That is exact. The only guess is how $x_0$ behaves
# within the step of length $h = \lambda' - \lambda$. If it is constant, the integral gives
#
# $$x' = \frac{\sigma'}{\sigma}\,x - \alpha'\,(e^{-h} - 1)\,x_0 ,$$
#
# which must be DDIM:

# %%
def half_log_snr(a):
    return 0.5 * math.log(a / (1 - a)) if a < 1 else math.inf


a, after = 0.3, 0.6
x, x0 = noise[:5], posterior_mean(noise[:5], a, EVERY)
eps = (x - a**0.5 * x0) / (1 - a) ** 0.5
ddim = after**0.5 * x0 + (1 - after) ** 0.5 * eps
h = half_log_snr(after) - half_log_snr(a)
first_order = ((1 - after) / (1 - a)) ** 0.5 * x - after**0.5 * math.expm1(-h) * x0
print(f"DDIM and the formula differ by {(ddim - first_order).abs().max():.9f}")

# %% [markdown]
# Now the second order. We remember $x_0$ of the step before, which was $h_{\text{last}}$ long. So we know how fast it
# changes: $(x_0 - x_0^{\text{last}})/h_{\text{last}}$. Take for the whole step the value that it will have *halfway*:
#
# $$\hat x_0 = x_0 + \frac{h}{2\,h_{\text{last}}}\,(x_0 - x_0^{\text{last}}) \qquad (6.5)$$
#
# There are two exceptions. The first step remembers nothing. And the last one ends at $\bar\alpha = 1$, where $\lambda$
# is infinite and no step has a middle. Both are of first order.
#
# ### Exercise 10.3 · dpm_sample
#
# Difficulty 4/5 · importance 4/5 · 20 minutes
#
# Write the whole sampler. `ask(x, a)` gives $x_0$ at $\bar\alpha$ = `a`. `alphas` is a rising list of numbers, the
# levels in order: step `i` goes from `alphas[i]` to `alphas[i + 1]`, and the last may be 1. Return x after the last
# step. The last step is of first order wherever it ends. Do not change the list.
#
# <details><summary>Hint 1</summary>Loop over <code>zip(alphas, alphas[1:])</code>, and keep <code>last_x0</code> and
# <code>last_h</code>, both None at first. What is remembered is the network's answer, not the extrapolated
# guess.</details>
# <details><summary>Hint 2</summary>Only <code>guess</code> differs from the cell above: <code>x0</code> in the first
# and the last step, else (6.5). <code>half_log_snr</code> is defined above; for a = 1 it gives infinity, and
# <code>math.expm1(-math.inf)</code> is -1, as it should be.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# last_x0 = last_h = None
# for i, (a, after) in enumerate(zip(alphas, alphas[1:])):
#     x0, h = ask(x, a), half_log_snr(after) - half_log_snr(a)
#     guess = x0
#     if last_x0 is not None and i < len(alphas) - 2:
#         guess = x0 + h / (2 * last_h) * (x0 - last_x0)
#     x = ((1 - after) / (1 - a)) ** 0.5 * x - after**0.5 * math.expm1(-h) * guess
#     last_x0, last_h = x0, h
# return x
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def dpm_sample(ask, x, alphas):
    """ask (x, a) -> x0; x of any shape, as noisy as alphas[0]; alphas rising, the last may be 1 -> x after the last."""
    ### BEGIN SOLUTION

    def half_log_snr(a):
        return 0.5 * math.log(a / (1 - a)) if a < 1 else math.inf

    last_x0 = last_h = None
    for i, (a, after) in enumerate(zip(alphas, alphas[1:])):
        x0, h = ask(x, a), half_log_snr(after) - half_log_snr(a)
        guess = x0
        if last_x0 is not None and i < len(alphas) - 2:
            guess = x0 + h / (2 * last_h) * (x0 - last_x0)
        x = ((1 - after) / (1 - a)) ** 0.5 * x - after**0.5 * math.expm1(-h) * guess
        last_x0, last_h = x0, h
    return x
    ### END SOLUTION


# %%
lab.check("10.3", dpm_sample)

# %% [markdown]
# *What if?* Remember two steps and fit a parabola: third order. It needs more steps before it pays, and with guidance
# it tends to blow up, because a guided $x_0$ changes fast. Second order is where most people stop.
#
# On the ring we know where the exact way leads, so we can say how far each solver misses it.

# %%
solve = lab.yours("10.3")
exact = ends(without, steps=1000)  # a thousand steps of DDIM; twice the steps would halve an error that is small already
print("steps    DDIM   DPM-Solver++")
for n in (4, 8, 16, 32):
    levels = [*alpha_bar[samplers.timesteps(diffusion, n)].clamp(min=2**-24).tolist(), 1.0]
    ours = solve(lambda x, a: posterior_mean(x, a, EVERY), noise, levels)
    miss = [(x - exact).square().sum(1).mean().sqrt().item() for x in (ends(without, n), ours)]
    print(f"{n:5}  {miss[0]:6.3f}  {miss[1]:6.3f}")

# %% [markdown]
# What to see: the first column halves from row to row. The second is smaller in every row, but until 16 steps it falls
# no faster than the first; from 16 to 32 it falls to a quarter, as second order should. With only four steps the two
# are close, for two of the four are of first order.
#
# ## 11 · A straight way: flow matching
#
# Newer video models are trained with *flow matching* (Lipman and others; Liu and others call it rectified flow). After
# the ring that is no new world. It is one more answer to "what shall the network predict?", on another way from clip to
# noise. Our way, in 05, ran on a circle: $\cos\varphi\,x_0 + \sin\varphi\,\varepsilon$, and $v$ was its velocity. Now take
# the shortest way:
#
# $$x = (1-\tau)\,x_0 + \tau\,\varepsilon \quad (10.4), \qquad u = \frac{dx}{d\tau} = \varepsilon - x_0 \quad (10.5)$$
#
# The loss is the mean squared error between the network's answer and $u$. As with $\varepsilon$, $x_0$ and $v$, one answer
# gives the others:
#
# $$x_0 = x - \tau u, \qquad \varepsilon = x + (1-\tau)\,u \qquad (10.6)$$
#
# | prediction | the network answers | an error of size 1 in $x_0$ is one in the answer of |
# | --- | --- | --- |
# | `eps` | $\varepsilon$ | $\alpha/\sigma$ |
# | `x0` | $x_0$ | 1 |
# | `v` | $\alpha\,\varepsilon - \sigma\,x_0$ | $1/\sigma$ |
# | flow | $\varepsilon - x_0$ | $1/\tau$ |
#
# The last column is all that the losses differ in: they weigh the noise levels differently, and ask for the same thing.
# Check the last two rows by making $x_0$ wrong by 1 in each number:

# %%
from minit2v.diffusion.process import split

for tau in (0.25, 0.5, 0.9):
    x0, eps = noise[:5], noise[5:10]
    x, signal, sigma = flow.straight(x0, eps, tau), (1 - tau) / flow.length(tau), tau / flow.length(tau)
    wrong_x0, wrong_eps = x0 + 1, (x - (1 - tau) * (x0 + 1)) / tau  # what fits to x
    in_u = (flow.velocity(wrong_x0, wrong_eps) - flow.velocity(x0, eps)).abs().mean()
    in_v = (signal * (wrong_eps - eps) - sigma * (wrong_x0 - x0)).abs().mean()
    print(f"tau {tau}: u is wrong by {in_u:.3f} (1/tau = {1 / tau:.3f}), v by {in_v:.3f} (1/sigma = {1 / sigma:.3f})")

# %% [markdown]
# ### From a model of the circle to one of the straight way
#
# A point of the straight way is $x = (1-\tau)x_0 + \tau\varepsilon$. Its signal-to-noise ratio is $(1-\tau)^2/\tau^2$.
# Somewhere on the circle the ratio is the same, at
#
# $$\tau = \frac{\sigma}{\alpha + \sigma} \qquad (10.7)$$
#
# and there the point looks the same but for its size. So divide by the size, ask the old network, take its $x_0$ and
# $\varepsilon$, and subtract. No training is needed: **every diffusion model is a flow matching model**, and the other
# way round.

# %%
lab.show_source(flow.as_flow)

# %% [markdown]
# To sample, follow the velocity from $\tau = 1$ down to 0. The simplest way is Euler's: straight ahead, look again.
#
# $$x' = x + (\tau' - \tau)\,u \qquad (10.8)$$

# %%
lab.predict("10.c")

# %%
lab.show_source(flow.euler)


def field(x, tau):
    """The velocity that a perfect network of flow matching answers in the plane."""
    a = ((1 - tau) / flow.length(tau)) ** 2
    x0 = posterior_mean(x / flow.length(tau), a, EVERY)
    return (x - x0) / tau


def straight_ends(n):
    return list(flow.euler(field, noise, torch.linspace(1, 0, n + 1).tolist()))


COUNTS = [1, 2, 4, 8, 16, 32, 64]
misses = {"flow, Euler": [straight_ends(n)[-1] for n in COUNTS], "DDIM": [ends(without, n) for n in COUNTS]}
misses = {name: [(x - exact).square().sum(1).mean().sqrt().item() for x in xs] for name, xs in misses.items()}
lab.curves({name: (COUNTS, miss) for name, miss in misses.items()}, "steps", "distance from the exact end", logx=True,
           logy=True, alt="The errors of Euler's method on the straight way and of DDIM on the circle fall along nearly "
           "the same line.")

# %% [markdown]
# What to see: two lines, one on the other. Is the straight way not better? Here are the ways of four points, as both
# methods go them.

# %%
radius = noise.norm(dim=1)
far = ((radius > 1.8) & (radius < 2.6)).nonzero()[:4, 0]  # four that have a way to go
round_about = torch.stack([noise, *(step.x for step in SAMPLERS["ddim"](without, noise, diffusion, 64))])
ahead = torch.stack([noise, *straight_ends(64)])
lab.points({"on the circle": round_about[-1], "on the straight way": ahead[-1]}, apart=True,
           paths={"on the circle": round_about[:, far], "on the straight way": ahead[:, far]},
           alt="The ways of four points into the blobs: on the circle they go there directly, on the straight way they "
           "first run past their end, towards the middle of the ring, and turn back.")

# %% [markdown]
# What to see: the straight way is not straight; it even has a hook at its end. (10.4) is straight for *one* clip and
# *one* noise. The network does not know which clip it will be, so it answers with the mean of all velocities, and that
# mean turns as $x$ makes up its mind. It is the lesson of 06 once more: in a world of one point one step is enough,
# and in a world of six blobs it lands in the middle of the ring.
#
# There is an even closer kinship. Put (10.6) into (10.8): $x' = (1-\tau')\,x_0 + \tau'\,\varepsilon$. Euler's step
# keeps the clip and the noise that the network believes in and mixes them anew. That is (6.3) with $\eta = 0$. So at the
# same noise levels Euler's method *is* DDIM:

# %%
levels = samplers.timesteps(diffusion, 8)
taus = [*(flow.tau_of(alpha_bar[t]).item() for t in levels), 0.0]
*_, euler = flow.euler(flow.as_flow(without, diffusion), noise * flow.length(taus[0]), taus)
print(f"in the plane, 8 steps: they differ by {(euler - ends(without, 8)).abs().max():.9f}")

model, n = samplers.guided(pipe.unet, words), ctx.pick(fast=2, default=8)
taus = [*(flow.tau_of(pipe.diffusion.alpha_bar[t]).item() for t in samplers.timesteps(pipe.diffusion, n)), 0.0]
with torch.inference_mode():
    *_, latents = flow.euler(flow.as_flow(model, pipe.diffusion), start * flow.length(taus[0]), taus)
    mixed = Clip(pipe.decode(latents)[0], pipe.preset.fps)
apart = abs(mixed.pixels.astype(int) - clip_of(model, steps=n).pixels.astype(int))
print(f"mini as a flow: numbers of {apart.size:,} that differ from DDIM's by more than one grey level: {(apart > 1).sum()}")

# %% [markdown]
# `mini` was trained with $v$ on a circle, and has just been sampled as a model of flow matching. What then does flow
# matching change? Three settings: how the loss weighs the noise levels, where the steps are put, and how short the
# derivation is. In practice the first two matter, and both can be chosen for any prediction.
#
# ## 12 · A bug hunt
#
# A colleague wrote guidance in one call. The shapes are right, nothing is slow, and the clips look like clips. But
# whatever she asks for, she gets something else, and a larger scale makes it worse. She sends you three rows.

# %%
def broken(output, scale):
    """output ((2 b), …), both answers of one call -> (10.1)."""
    c, u = output.chunk(2)
    return u + scale * (c - u)


def batched(combine, scale):
    """Guidance in one call, with somebody's way to combine the two halves."""
    texts = torch.cat([nothing, words])
    return lambda x, t: combine(pipe.unet(torch.cat([x, x]), torch.full((2 * len(x),), t), texts), scale)


lab.strip({f"her scale {s:g}": clip_of(batched(broken, s), steps=few) for s in (0, 1, 2)}, n=6,
          alt="Three rows of frames, with her scale 0, 1 and 2.")

# %% [markdown]
# What to see: which of the rows follows the prompt, "a large yellow square moves right"? At scale 0 the prompt should have
# no say.
#
# ### Exercise 10.B · combined
#
# Difficulty 1/5 · importance 5/5 · 5 minutes
#
# Mend it. `output` is ((2 b), …), the answers to what `batched` asks.
#
# <details><summary>Hint 1</summary>Work out by hand what <code>broken</code> returns at scale 0, and at scale
# 1.</details>
# <details><summary>Hint 2</summary>Which half of the batch has the prompt, and which half is called
# <code>c</code>?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# u, c = output.chunk(2)
# return u + scale * (c - u)
# ```
#
# The names were swapped, so her scale $s$ was the right one's $1 - s$: 0 gave the prompt, 1 gave anything, and 2 gave
# *away from the prompt*.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def combined(output, scale):
    """output ((2 b), …), the answers to what `batched` asks -> the guided answers (b, …)."""
    ### BEGIN SOLUTION
    u, c = output.chunk(2)
    return u + scale * (c - u)
    ### END SOLUTION
    ### BEGIN STUDENT
    # c, u = output.chunk(2)
    # return u + scale * (c - u)
    ### END STUDENT


# %%
lab.check("10.B", combined)

# %% [markdown]
# *What if?* Nothing in a shape can tell the two halves apart, so only a value can. A test with scale 0 and one with
# scale 1 is enough: the library's is `test_guidance` in `tests/test_samplers.py`.
#
# ## Takeaways
#
# 1. Guidance goes from a worse answer to a better one and beyond. What "worse" lacks is what you get more of: without
#    the prompt, with unwanted words, or from a weaker model. It buys fidelity with diversity, and too much of it leaves
#    the data.
# 2. Few steps cost little until the road bends within a step; then there is a cliff. A solver of second order
#    remembers the step before. The noise decides the clip, and its variance must be 1.
# 3. Flow matching is one more prediction on one more way. At equal noise levels its Euler step is DDIM's.
#
# ## Quiz

# %%
lab.quiz(10)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(10)

# %% [markdown]
# ## Further reading
#
# - Ho and Salimans, [Classifier-free diffusion guidance](https://arxiv.org/abs/2207.12598), section 3: the derivation,
#   and the first curves of fidelity against diversity.
# - Karras and others, [Guiding a diffusion model with a bad version of itself](https://arxiv.org/abs/2406.02507),
#   section 3: a toy like our ring, with pictures of what guidance does to it; and
#   [Kynkäänniemi and others](https://arxiv.org/abs/2404.07724), section 3, for the interval.
# - Lin and others, [Common diffusion noise schedules and sample steps are flawed](https://arxiv.org/abs/2305.08891),
#   section 3.4: rescaled guidance, in half a page.
# - Lu and others, [DPM-Solver++](https://arxiv.org/abs/2211.01095), section 4: why to extrapolate $x_0$ and not
#   $\varepsilon$ when guidance is strong.
# - Lipman and others, [Flow matching](https://arxiv.org/abs/2210.02747), section 4, and Liu and others,
#   [Rectified flow](https://arxiv.org/abs/2209.03003), section 2, whose second idea makes the ways really straight.
#
# **Next:** everything so far ran on a model that fits into your pocket. The same steps, samplers and guiders drive the
# released model with 1.7 billion parameters: [11 · The real thing](11_the_real_thing.ipynb).
