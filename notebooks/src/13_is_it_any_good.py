# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 13 · Is it any good, and should it exist?
#
# **A table of metrics decides which model is called the best. Here you write two of these metrics, make a still image
# win, read the paper's table with other eyes, and fill in the card that should come with every model.**
#
# **You will**
# - vote on clips without knowing who made them, and say how much your votes prove
# - write frame consistency and the Fréchet distance, and check them against the library
# - fool a metric: your clips get a better score, and a judge of pixels calls them wrong
# - see why a distance to real clips is never zero, and what that does to comparisons
# - measure `mini` by the names of the paper's table
# - find a bug that makes a report look far more certain than it is
# - write a model card with data, licence, figures, failures and limits
#
# **You need** [01](01_video_is_a_tensor.ipynb) for frames and flicker, [04](04_words_into_vectors.ipynb) for CLIP,
# [06](06_un_destroying_it.ipynb) for seeds.
#
# **Time** reading 24 minutes · running 1 to 3 minutes (fast mode 1 to 3 minutes) · exercises 64 minutes

# %%
from minit2v import lab

ctx = lab.setup(13)

# %% [markdown]
# ## 1 · Look first
#
# Before you count anything, look. Below are pairs of clips. Both answer the same prompt; one was drawn by the program
# that made the training data, the other was made by `mini`. Nothing tells you which is which, and the sides are
# random. Vote on at least ten pairs, with the buttons or the arrow keys, then ask for the result.
#
# The clips of `mini` were kept as they came: prompts 0 to 47 of the test split, seeds 0 to 47, none chosen.

# %%
import numpy as np

from minit2v.datasets.moving_things import MovingThings
from minit2v.recording.clip_set import ClipSet

made = ClipSet.load("mini-test")  # scripts/record_clips.py
real, captions, specs = MovingThings("test_seen").batch(range(len(made.captions)))
assert captions == made.captions
print("clips of mini:", made.pixels.shape, "· real clips of the same prompts:", real.shape)
lab.BlindABTest({"real": real[:24], "mini": made.pixels[:24]}, captions[:24], "Which clip is real, and not made by mini?",
                name="blind-13")

# %% [markdown]
# You were right, say, 8 times of 10. Does that prove that you can tell them apart? A person who tosses a coin gets 8 or
# more of 10 right once in 18 trials. So a share needs an interval.

# %%
lab.predict("13.a")

# %% [markdown]
# The interval that most people remember is $\hat p \pm 1.96\sqrt{\hat p(1-\hat p)/n}$. Look what it says of somebody who
# was right 10 times of 10.

# %%
from minit2v.evaluation.estimates import wilson


def naive(right, n):
    p = right / n
    half = 1.96 * (p * (1 - p) / n) ** 0.5
    return p - half, p + half


print("right    naive interval   Wilson's interval")
for right, n in ((10, 10), (8, 10), (14, 20), (15, 20), (80, 100)):
    cells = ["{:3.0f} to {:3.0f} %".format(*(100 * end for end in function(right, n))) for function in (naive, wilson)]
    print(f"{right:3} of {n:3} {cells[0]:>15} {cells[1]:>18}")

# %% [markdown]
# Ten of ten, and the naive interval is a point: it claims that this person is *never* wrong. In the second line it
# allows a share of more than 100 %. Wilson's interval asks
# another question. Which true shares $p$ would make the observed $\hat p$ no surprise? Solve
# $|\hat p - p| \le z\sqrt{p(1-p)/n}$ for $p$, with $z = 1.96$:
#
# $$\frac{\hat p + \frac{z^2}{2n} \pm z\sqrt{\frac{\hat p(1-\hat p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}} \qquad (13.1)$$
#
# Every share in this course comes with it. The widget above uses it too.
#
# People are the best judges that we have, but they are slow, expensive, and never quite of one opinion. So papers
# measure as well. You will meet three kinds of figures. Do the frames hold together? Do the clips look real? Do they show
# what was asked for?
#
# ## 2 · Do the frames hold together?
#
# Hand every frame to a network that turns pictures into vectors, here the picture tower of a small CLIP. If a frame
# and the next show the same thing, their vectors point in the same direction. The mean cosine of neighbours is called
# **frame consistency**:
#
# $$\frac{1}{f-1}\sum_{i=1}^{f-1} \cos(v_i, v_{i+1}) \qquad (13.2)$$
#
# ### Exercise 13.1 · consistency
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# `features`: a numpy array (n, f, d), n clips of f frames with d numbers each. Return (n,), one figure for each clip.
#
# <details><summary>Hint 1</summary>A cosine is the dot product of two vectors of length 1. So divide each vector by its
# length first; <code>keepdims=True</code> keeps the axis to divide by.</details>
# <details><summary>Hint 2</summary>All frames but the first are <code>unit[:, 1:]</code>, all but the last
# <code>unit[:, :-1]</code>. Multiply, add up over d, average over the frames.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# unit = features / np.sqrt((features**2).sum(-1, keepdims=True))
# return (unit[:, 1:] * unit[:, :-1]).sum(-1).mean(1)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def consistency(features):
    """Features of frames (n, f, d) -> mean cosine between a frame and the next, (n,)."""
    ### BEGIN SOLUTION
    unit = features / np.sqrt((features**2).sum(-1, keepdims=True))
    return (unit[:, 1:] * unit[:, :-1]).sum(-1).mean(1)
    ### END SOLUTION


# %%
lab.check("13.1", consistency)

# %% [markdown]
# *What if?* Compare each frame with the first one and not with the next. Then a slow drift from a circle to a square,
# which no neighbour notices, is seen. VBench averages both.
#
# Now measure. Beside the real clips and those of `mini` there are three that took no model at all: real clips with
# their frames shuffled, real clips that jump to another clip half-way, and the first frame of a real clip, sixteen
# times.

# %%
from minit2v.evaluation import motion
from minit2v.evaluation.mini.similarity import Similarity

similarity = Similarity.load()
rng = np.random.default_rng(0)
order = np.stack([rng.permutation(16) for _ in real])
TRICKS = {
    "frames shuffled": lambda clips: np.stack([clip[o] for clip, o in zip(clips, order)]),
    "cut in the middle": lambda clips: np.concatenate([clips[:, :8], np.roll(clips, 1, axis=0)[:, 8:]], axis=1),
    "still image": lambda clips: np.repeat(clips[:, :1], clips.shape[1], axis=1),
}
sets = {"real": real, "mini": made.pixels} | {name: trick(real) for name, trick in TRICKS.items()}
vectors = {name: similarity.frame_features(sets[name]) for name in ("real", "mini")}
vectors |= {name: trick(vectors["real"]) for name, trick in TRICKS.items()}  # frame by frame, so the order is all
print(f"{'':20} frame consistency   motion amplitude")
for name, clips in sets.items():
    moves = motion.measure(clips)["motion amplitude"].mean()
    print(f"{name:20} {motion.consistency(vectors[name]).mean():12.3f} {moves:19.2f}")

# %% [markdown]
# What to see: the metric finds shuffled frames, and it notices the cut. But the winner of the table is the **still
# image**, with the best figure that there can be, ahead of every real clip. Of course: nothing agrees with a frame as
# well as itself. A model that moves less scores more.
#
# So a figure of consistency never stands alone. Put a figure of motion beside it, as above, and compare both with
# *real* clips: too little motion is as wrong as too much. VBench reports a "dynamic degree" for that reason.
#
# ## 3 · Do the clips look real?
#
# There is no right answer to "a red circle moves left": a thousand different clips are right. So do not compare a
# clip with a clip. Compare the *set* of clips with a set of real ones: in both, the same kinds of pictures should be
# equally frequent.
#
# How far apart are two sets? Begin with sets of plain numbers. Comparing means is not enough:

# %%
rng = np.random.default_rng(0)
narrow, wide = rng.normal(3, 0.5, 200_000), rng.normal(3, 2.0, 200_000)
print(f"difference of the means: {abs(narrow.mean() - wide.mean()):.1f}")
work = np.square(np.sort(narrow) - np.sort(wide)).mean()
print(f"mean squared way from one set to the other: {work:.2f}")

# %% [markdown]
# The second figure is **transport**: carry the numbers of one set to the places of the other, each as short a way as
# possible. On a line the best plan is to sort both: the smallest goes to the smallest. The mean squared way is a
# distance between sets, and for two bell curves it has a formula,
# $(\mu_1-\mu_2)^2 + (\sigma_1-\sigma_2)^2$. Here it is $(0.5 - 2)^2 = 2.25$, as you see.
#
# Multiply out: $\sigma_1^2 + \sigma_2^2 - 2\sigma_1\sigma_2$. In d dimensions variances become covariance matrices and
# the formula keeps its look:
#
# $$|\mu_1 - \mu_2|^2 + \operatorname{tr}\left(C_1 + C_2 - 2\,(C_1 C_2)^{1/2}\right) \qquad (13.3)$$
#
# It is called the **Fréchet distance** of two Gaussians. Take features of an Inception network for pictures and it is
# FID; take features of frames and it is FID-vid; take features of whole clips by a video network, I3D, and it is FVD.
# Only the network differs.
#
# ### Exercise 13.2 · frechet
#
# Difficulty 4/5 · importance 5/5 · 20 minutes
#
# `x` (n, d) and `y` (m, d) are features of two sets, n and m may differ. Return the distance (13.3), one number.
# Compute in float64. Covariances divide by n - 1.
#
# The last trace needs thought. $C_1C_2$ is not symmetric, and with fewer clips than features it is singular: general
# matrix roots then return complex numbers or NaN. But its eigenvalues are those of the *symmetric* matrix
# $C_1^{1/2} C_2\, C_1^{1/2}$, and the trace of a root is the sum of the roots of the eigenvalues.
#
# <details><summary>Hint 1</summary><code>np.cov</code> takes features in rows, so <code>np.cov(x.T)</code>; for d = 1 it
# returns a single number, and <code>.reshape(d, d)</code> makes a matrix of it. The root of a symmetric matrix:
# <code>values, axes = np.linalg.eigh(c1)</code>, then <code>(axes * np.sqrt(values)) @ axes.T</code>.</details>
# <details><summary>Hint 2</summary>Rounding makes eigenvalues of 0 a hair negative: <code>values.clip(0)</code> before
# each root. At the end <code>np.linalg.eigvalsh(root @ c2 @ root)</code> gives the eigenvalues whose roots you add
# up.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
# d = x.shape[1]
# c1, c2 = np.cov(x.T).reshape(d, d), np.cov(y.T).reshape(d, d)
# values, axes = np.linalg.eigh(c1)
# root = (axes * np.sqrt(values.clip(0))) @ axes.T
# overlap = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
# return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c1) + np.trace(c2) - 2 * overlap
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def frechet(x, y):
    """Features (n, d) and (m, d) -> Fréchet distance of the Gaussians that fit them."""
    ### BEGIN SOLUTION
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    d = x.shape[1]
    c1, c2 = np.cov(x.T).reshape(d, d), np.cov(y.T).reshape(d, d)
    values, axes = np.linalg.eigh(c1)
    root = (axes * np.sqrt(values.clip(0))) @ axes.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c1) + np.trace(c2) - 2 * overlap
    ### END SOLUTION


# %%
lab.check("13.2", frechet)

# %% [markdown]
# *What if?* Leave out everything beside the diagonals of the covariances. The formula then needs no matrix root and
# runs in no time; but two sets in which red things move left, or red things move right, look the same to it whenever
# red and left are equally frequent in both.
#
# Your distance, on real features. `features` gives the library's networks: "motion" sees whole clips and was trained to
# notice damage in time; we call the distance through it *FVD-mini*. "frame" sees single frames and gives *FID-vid*. As
# the reference we draw 96 more real clips of the same prompts, at other places.

# %%
from minit2v.evaluation.frechet import frechet_distance, frechet_estimate
from minit2v.evaluation.mini.features import features
from minit2v.evaluation.mini.scores import redrawn

N = 48  # clips of each set from here on
reference = redrawn(specs[:N] * 2, 64, 16, seed=1)  # (96, 16, 64, 64, 3)
networks = {"FVD-mini": features("motion"), "FID-vid": features("frame")}
of_reference = {metric: network(reference) for metric, network in networks.items()}
of_real, of_mini = (networks["FVD-mini"](clips[:N]) for clips in (real, made.pixels))
distance = lab.yours("13.2")
print("features of the reference:", {metric: found.shape for metric, found in of_reference.items()})
for name, found in (("real", of_real), ("mini", of_mini)):
    own, theirs = distance(found, of_reference["FVD-mini"]), frechet_distance(found, of_reference["FVD-mini"])
    print(f"FVD-mini of {name}: {theirs:.2f}, the two functions differ by less than 0.0001: {abs(own - theirs) < 1e-4}")

# %% [markdown]
# ## 4 · A distance that is never zero
#
# The real clips are not at 0, though they come from the very same program as the reference, and the clips of `mini` are
# even a little nearer to it. What does a distance tell us whose zero is not zero? Leave networks aside and take two
# sets of points from *one and the same* bell curve, so that the true distance is exactly 0.

# %%
lab.predict("13.c")

# %%
def same_source(n, d=16, repeats=20):
    """The mean distance of two sets of n points in d dimensions, both from one standard normal distribution."""
    rng = np.random.default_rng(n)
    return np.mean([frechet_distance(*rng.normal(size=(2, n, d))) for _ in range(repeats)])


sizes = np.array([50, 100, 200, 400, 800, 1600])
biased = np.array([same_source(n) for n in sizes])
print("clips in each set ", *(f"{n:6}" for n in sizes))
print("distance          ", *(f"{value:6.2f}" for value in biased))
print("clips x distance  ", *(f"{n * value:6.0f}" for n, value in zip(sizes, biased)))

# %% [markdown]
# Clips times distance is nearly a constant. The estimate is too large by about a constant over n: twice as many clips,
# half the excess, and no number of clips brings it to 0. The reason: 16 directions leave a lot of room in which two
# finite sets differ by chance, and a distance counts every difference as a distance. I3D has 400 directions.
#
# That has a use. Measure with several n, draw a line over 1/n, and read it off at 1/n = 0, where n would be infinite:
#
# $$\hat d_n \approx d_\infty + \frac{c}{n} \qquad (13.4)$$

# %%
slope, limit = np.polyfit(1 / sizes, biased, 1)
print(f"with 1,600 points {biased[-1]:.2f}, at 1/n = 0 the line is at {limit:.2f}")
lab.curves({"distance of two sets from one source": (1 / sizes, biased),
            "line through them": (np.array([0, 1 / 50]), limit + slope * np.array([0, 1 / 50]))}, "1 / n", "distance",
           alt="The distance against one over the number of clips: points on a line that meets zero at the left end.")

# %% [markdown]
# What to see: a line that goes through zero at the left. The library gives every distance four companions: a 95 %
# interval, the *floor* (real against real, with as many clips), the limit of that line, and n.

# %%
others = networks["FVD-mini"](redrawn(specs[:N], 64, 16, seed=2))
estimate = frechet_estimate(of_mini, of_reference["FVD-mini"], others)
print(f"FVD-mini of mini, n = {estimate.n}: {estimate.value:.1f}, interval {estimate.low:.1f} to {estimate.high:.1f}, "
      f"floor {estimate.floor:.1f}, limit {estimate.limit:.1f}")

# %% [markdown]
# Read it like this: the part of the value that lies above the floor is the model's; the rest is the price of having few
# clips. Here nothing lies above it, and the interval holds the floor: with 48 clips the distance cannot tell `mini`
# from real clips. That does not mean that there is no difference; section 8 asks with 512. A limit below zero, which no
# distance can have, is a warning too: the line (13.4) needs many more clips than the 64 features that we have here. And
# never compare two distances with different n: the model that was sampled *less* looks worse, however good it is.
#
# ## 5 · Do the clips show what was asked?
#
# A Fréchet distance has never heard of the prompt. Shuffle the captions and it stays as it was. **CLIPSIM** asks about
# the words: the mean over the frames of the cosine between the frame's vector $v_i$ and the caption's $w$, where one
# CLIP made both:
#
# $$\frac1f \sum_{i=1}^f \cos(v_i, w) \qquad (13.5)$$

# %%
import torch

with torch.inference_mode():
    words = similarity.towers.texts(similarity.tokens(captions)).double().numpy()  # (n, d), unit vectors
by_hand = (vectors["real"] * words[:, None]).sum(-1).mean(1)  # (n, f, d) * (n, 1, d) -> (n,)
print(f"CLIPSIM of the real clips, by hand {by_hand.mean():.3f}, by the library {similarity.frame(real, captions).mean():.3f}")

# %%
lab.predict("13.b")

# %%
def clipsim(frames, texts=words):
    return (frames * texts[:, None]).sum(-1).mean()


backwards = vectors["real"][:, ::-1]
rows = {"real": vectors["real"], "real, shuffled": vectors["frames shuffled"], "real, backwards": backwards,
        "real, still image": vectors["still image"], "mini": vectors["mini"]}
for name, found in rows.items():
    print(f"{name:20} CLIPSIM {clipsim(found):6.3f}")
print(f"{'real, wrong captions':20} CLIPSIM {clipsim(vectors['real'], np.roll(words, 1, axis=0)):6.3f}")
gap = similarity.swap_gap(real, specs).mean()
print(f"drop when the caption says the opposite direction: frame by frame "
      f"{abs(similarity.swap_gap(real, specs, of_frames=True).mean()):.2f}, with four frames as one picture {gap:.2f}")

# %% [markdown]
# What to see. Wrong captions cost everything, so the metric does read colour and shape. But shuffled, reversed: the
# same, and a still image is hardly worse. A mean over frames knows no order, so *moves left* and *moves right* are
# nearly one to it. And nothing makes real clips the best: a score above that of real clips is possible and means
# nothing. The inventors of CLIPSIM ([arXiv 2104.14806](https://arxiv.org/abs/2104.14806)) saw this and divided by the
# score of real clips; most tables since then do not.
#
# ### Exercise 13.3 · fool
#
# Difficulty 3/5 · importance 5/5 · 15 minutes
#
# Fool it. `fool(clips, captions)` gets real clips, uint8 (n, f, H, W, 3), and their captions, and returns as many
# clips of the same size. Two conditions, both checked on clips that you have not seen:
#
# - the mean CLIPSIM must *rise* by 0.03 or more;
# - the judge, which reads shape, colour, size, direction and speed from pixels, must call at most a quarter of the
#   clips right. It calls all of the real ones right.
#
# You may use the metric itself: `Similarity.load().frame(clips, captions)` gives (n,). That is what training on a
# metric does, only with gradients.
#
# <details><summary>Hint 1</summary>CLIPSIM is a mean over frames. Some frames of a clip score more than others. Which
# clip has the greatest mean, if you may only use frames of this clip?</details>
# <details><summary>Hint 2</summary><code>similarity.frame(clips[:, [i]], captions)</code> is the score of frame i alone.
# Find each clip's best frame, and repeat it f times.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# similarity = Similarity.load()
# scores = [similarity.frame(clips[:, [i]], captions) for i in range(clips.shape[1])]  # of each frame alone: (f, n)
# best = np.argmax(scores, axis=0)
# return np.stack([np.repeat(clip[[i]], len(clip), axis=0) for clip, i in zip(clips, best)])
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def fool(clips, captions):
    """Clips uint8 (n, f, H, W, 3), n captions -> clips with a higher CLIPSIM that are wrong."""
    ### BEGIN SOLUTION
    similarity = Similarity.load()
    scores = [similarity.frame(clips[:, [i]], captions) for i in range(clips.shape[1])]  # of each frame alone: (f, n)
    best = np.argmax(scores, axis=0)
    return np.stack([np.repeat(clip[[i]], len(clip), axis=0) for clip, i in zip(clips, best)])
    ### END SOLUTION


# %%
lab.check("13.3", fool)

# %% [markdown]
# *What if?* Do not freeze, but add a little noise and play the clip backwards. The small CLIP never saw noise in
# training, and a little of it makes clips resemble their captions *more* ([validity.md](../docs/validity.md), reason
# j). Blind spots of a network are tricks that nobody has to invent.
#
# ## 6 · Six tricks, five metrics
#
# Now all of it in one table. Every row but the first two is a "model" that needs no training. *Opposite prompts* are
# real clips that go the wrong way. The last one is the boldest: it ignores the prompt and hands out clips that it has
# memorised, here from the reference itself.

# %%
from minit2v.datasets.moving_things.wrong_words import with_wrong
from minit2v.evaluation.validity.corruptions import CORRUPTIONS

best = lab.yours("13.3")(real[:N], captions[:N])
memorised = reference[:N][np.random.default_rng(3).permutation(N)]  # real clips, handed out to the wrong prompts
opposite = redrawn([with_wrong(spec, "motion") for spec in specs[:N]], 64, 16, seed=3)
played = {
    "real": real[:N], "mini": made.pixels[:N], "blurred": CORRUPTIONS["blur"](real[:N], 0.5, 0),
    "still image": real[:N, :1].repeat(16, axis=1), "best frame, still": best, "first half twice": np.concatenate(
        [real[:N, :8], real[:N, :8]], axis=1), "backwards": real[:N, ::-1].copy(), "opposite prompts": opposite,
    "memorised": memorised,
}


# %%
from minit2v.evaluation import judge


def measure(clips):
    """The five figures of N clips: two distances, consistency, CLIPSIM, and the share that the judge calls right, in %."""
    found = {metric: frechet_distance(network(clips), of_reference[metric]) for metric, network in networks.items()}
    frames = similarity.frame_features(clips)
    found |= {"consistency": motion.consistency(frames).mean(), "CLIPSIM": clipsim(frames, words[:N])}
    return found | {"judge": 100 * np.mean([judge.agrees(judge.read(c), s)["all"] for c, s in zip(clips, specs)])}


table = {name: measure(clips) for name, clips in played.items()}
print(f"{'':18} FVD-mini   FID-vid   consistency   CLIPSIM   judge, %")
for name, found in table.items():
    print(f"{name:18} {found['FVD-mini']:8.1f} {found['FID-vid']:9.1f} {found['consistency']:13.3f} {found['CLIPSIM']:9.3f}"
          f" {found['judge']:10.0f}")

# %% [markdown]
# Read the table by columns, and look for rows that beat the real clips, or come near them.
#
# | metric | is fooled by | why |
# | --- | --- | --- |
# | consistency | still images, blur | it rewards that nothing changes, and blur hides what does |
# | CLIPSIM | your trick; backwards makes no difference | a mean over single frames |
# | FID-vid | backwards, repetition, nearly by still images | every frame is a frame of a real clip |
# | FVD-mini | memorised clips | a copy of the reference is the perfect set, whatever was asked |
# | the judge | blur; memorised clips of the *right* prompts | it averages before it looks, and never asks whether a clip is new |
#
# *Backwards* has no business to be as near as it is by FVD-mini. Compare it with *opposite prompts*, which are perfect
# clips: the same figure. To a distance between sets, a clip that runs backwards is a fine clip of another prompt, and
# only the mix of directions differs. By FID-vid and CLIPSIM, *opposite prompts* are even better than the real clips:
# both look at single frames, and no frame says which way a thing goes.
#
# Two things follow. First, **no metric is enough, but the tricks of one are caught by another**: report several that
# look at different things, and look at clips. Second, a metric is only as good as its network, and somebody has to
# test it like any other instrument. `make validity` damages clips in 15 ways, six strengths each, and shows which of 12
# metrics notices which damage: [validity.md](../docs/validity.md).
#
# ### What FVD looks at
#
# The FVD of the literature has a famous blind spot. Its I3D was trained to name actions, and most actions can be told
# from a single frame. So its features are mostly about content. Ge and co-authors damaged clips in two ways, a
# medium blur of the picture against a small one with time torn to pieces, and FVD preferred the *second*: 310.52
# against 317.10 ([arXiv 2404.12391](https://arxiv.org/abs/2404.12391)). Our twin of that network is "content", the same
# layers as "motion", trained on shape and colour alone.

# %%
content = features("content")
blurred = CORRUPTIONS["blur"](real[:N], 0.5, 0)
torn = CORRUPTIONS["shuffle 16"](CORRUPTIONS["blur"](real[:N], 0.4, 0), 1.0, 0)
seen_by = {"FVD-content": (content, content(real[:N])), "FVD-mini": (networks["FVD-mini"], of_real)}
print("distance from the same clips undamaged   more blur, time in order   less blur, frames shuffled")
for name, (network, undamaged) in seen_by.items():
    pair = [frechet_distance(network(clips), undamaged) for clips in (blurred, torn)]
    print(f"{name:38} {pair[0]:19.0f} {pair[1]:28.0f}")

# %% [markdown]
# FVD-content prefers the clips whose frames are shuffled; FVD-mini does not. The formula is the same. The network
# decides what counts as different.
#
# ### One set of clips, five figures
#
# And the same network gives another figure when anything around it changes. Here are *real* clips, never a model, all
# measured against the same reference:

# %%
halved = real[:N, :, ::2, ::2]  # every second pixel, without averaging
few = 32 * (real[:N] // 32) + 16  # eight levels of each colour, like a gif with a small palette
variants = {"as they are": real[:N], "half of the prompts": real[: N // 2],
            "every second frame": real[:N, ::2].repeat(2, axis=1),
            "twice as quick": np.concatenate([real[:N, ::2], real[:N, -1:].repeat(8, axis=1)], axis=1),
            "every second pixel": halved, "few colours": few}
for name, clips in variants.items():
    print(f"{name:20} FVD-mini {frechet_distance(networks['FVD-mini'](clips), of_reference['FVD-mini']):6.1f}")

# %% [markdown]
# These are *perfect* clips. Half of the prompts, another speed or a small palette, as of a gif, multiply their distance,
# by more than models differ. Every second frame shown twice, or every second pixel, cost nothing: our network averages
# pixels to 32 across before it looks, and it does not see what happens between two neighbouring frames. Other networks
# are blind to other things. So frame rate, resizing, compression and the choice of prompts are part of a figure. Keep
# that in mind for section 8.
#
# ## 7 · Seeds, and what was not shown
#
# A paper shows eight clips. From how many were they chosen? `mini-open` holds eight prompts, eight seeds each, as they
# came. We play the author who shows the best of k, best by the similarity of caption and clip.

# %%
open_set = ClipSet.load("mini-open")
shown = open_set.pixels.reshape(8, 8, *open_set.pixels.shape[1:])  # (prompts, seeds, f, H, W, 3)
score = similarity.video(open_set.pixels, open_set.captions).reshape(8, 8)
rng = np.random.default_rng(0)
draws = np.stack([rng.permuted(score, axis=1) for _ in range(2000)])  # (draws, prompts, seeds)
for k in (1, 2, 4, 8):
    print(f"best of {k}: mean score {draws[:, :, :k].max(2).mean():.3f}")
p = int(np.argmax(score.max(1) - score.min(1)))
ranked = np.argsort(score[p])
lab.strip({f"seed {i + 8 * p}, {'worst' if i == ranked[0] else 'best'} of 8": shown[p, i] for i in ranked[[0, -1]]},
          n=8, alt="The worst and the best clip of one prompt by a score: eight frames of each.")

# %% [markdown]
# What to see: one prompt and one model, and two seeds. In the upper row the upper edge cuts the triangle off; in the
# lower one it is whole and in the middle. Whoever shows the lower row alone hides the other. The score rises with k,
# and the weights are the same. That is no fraud if it is told: *best of eight* is a fine way to use a model. It is a
# bad way to compare one. The rule costs nothing: **fix prompts and seeds before you look, and show them all**, or say
# how you chose.
#
# ### A bug hunt: a report that is too sure
#
# A group evaluates its model and reports the share of clips that a judge calls right, with Wilson's interval. Each line of
# the tool's log has the number of a clip and the judge's verdict. In this story we know the truth: 70 % of what the model
# makes is right.

# %%
from minit2v.lab.course.evaluation_log import evaluated

clip, right = evaluated(seed=7)
print(f"{len(right):,} lines, among them:", ", ".join(f"clip {clip[i]} {right[i]}" for i in (0, 1, 2, 2046, 2047)))
print("reported: {:.0f} %, interval {:.0f} to {:.0f} %".format(
    100 * right.mean(), *(100 * end for end in wilson(int(right.sum()), len(right)))))
again = [100 * evaluated(seed)[1].mean() for seed in range(1000)]
low, high = np.quantile(again, (0.025, 0.975))
print(f"evaluated again with a thousand other seeds: 95 % of the shares lie between {low:.0f} and {high:.0f} %")

# %% [markdown]
# The interval of the report is a few points wide, and the truth is far outside. Run the evaluation again with other seeds,
# and the share jumps by far more than the interval allows. Look into `clip` and `right` before you read on: the formula is
# right, so what is wrong with what it is given?
#
# ### Exercise 13.B · share_of_clips
#
# Difficulty 2/5 · importance 4/5 · 6 minutes
#
# Mend the report. `right` (m,) bool: the verdict of each line; `clip` (m,) int: the number of its clip. The lines stand in
# any order, and the numbers may have gaps. Return the share, and the lower and upper end of Wilson's interval, in 0 to 1.
#
# <details><summary>Hint 1</summary>How many independent observations are there: lines, or clips?</details>
# <details><summary>Hint 2</summary><code>np.unique(clip, return_index=True)</code> also gives, for each clip, the place
# of its first line.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# _, first = np.unique(clip, return_index=True)
# right = right[first]
# return right.mean(), *wilson(int(right.sum()), len(right))
# ```
#
# The frames of one clip are no independent observations either: `frechet_estimate` resamples clips, not frames.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def share_of_clips(right, clip):
    """right (m,) bool and clip (m,) int, a line each -> share of the clips that are right, low, high."""
    ### BEGIN STUDENT
    # return right.mean(), *wilson(int(right.sum()), len(right))
    ### END STUDENT
    ### BEGIN SOLUTION
    _, first = np.unique(clip, return_index=True)
    right = right[first]
    return right.mean(), *wilson(int(right.sum()), len(right))
    ### END SOLUTION


# %%
lab.check("13.B", share_of_clips)

# %% [markdown]
# The model is slow, so the group made 40 clips. The tool wanted 2,048, and quietly filled up with repetitions of what it
# found. The share was off as well, because some clips were repeated more often than others. (A public FVD tool fills up like
# this when it finds fewer files than it was told to expect.)
#
# ## 8 · The paper's table
#
# Here is the table of ModelScopeT2V ([arXiv 2308.06571](https://arxiv.org/abs/2308.06571), section 4), on MSR-VTT,
# with what is known of how each figure came about. The last row was measured later by another group, with the same
# weights.

# %%
lab.predict("13.d")

# %%
from minit2v.evaluation.full_scale.published import TABLE

print(f"{'':30} FID-vid     FVD   CLIPSIM")
for row in TABLE:
    cells = [f"{value:{width}.{digits}f}" if value is not None else " " * (width - 1) + "-"
             for value, width, digits in ((row.fid_vid, 7, 2), (row.fvd, 7, 0), (row.clipsim, 9, 4))]
    print(f"{row.system:30} {' '.join(cells)}")
    if row.system != "ModelScopeT2V, measured again":
        print(f"    {row.protocol}")

# %% [markdown]
# Think about it for two minutes: which two rows may be compared, and in which column? One model was trained further on
# MSR-VTT, the others never saw it. Some used every caption, others one for each clip. Frames came at 2.5, 3 or 30 a
# second. One column is called FID-vid and was FID in another paper. Which CLIP was it?

# %%
first, again = (next(row for row in TABLE if row.system == name) for name in
                ("ModelScopeT2V", "ModelScopeT2V, measured again"))
for metric, value in first.figures().items():
    other = again.figures()[metric]
    print(f"{metric:8} {value:8.4g} and {other:8.4g}: they differ by {abs(other / value - 1):.1%}")
print("by", again.source, "·", again.protocol)

# %% [markdown]
# The same weights, two careful groups, and an FVD that differs by more than most rivals in the table do. For CLIPSIM the
# gap is small, but so are the gaps between systems: Video LDM and ModelScopeT2V are 0.0001 apart. Nobody cheated. The
# protocol is a part of the figure, and a figure without it is half a figure. The sentence "superior on three metrics"
# was true of that table, and it says less than it seems to.
#
# How would *you* do it? [docs/metrics.md](../docs/metrics.md) has the commands for full-scale FVD, FID-vid and CLIPSIM on
# MSR-VTT, with three protocols by name, for whoever has the videos and the networks. Here we go the same way at the size
# of a laptop. The names are those of the paper, the networks are small, and the figures can be compared with each other
# and with nothing else. They come from the report of the shipped model, 512 prompts a row.

# %%
import json

from minit2v.evaluation.table import cell
from minit2v.files import data_dir

report = json.loads((data_dir() / "mini/report.json").read_text(encoding="utf-8"))
print(f"{report['model']}, {report['steps']} steps, guidance {report['guidance']}, seed {report['seed']}\n")
NAMES = ("FVD-mini", "FID-vid", "CLIPSIM")
print(f"{'':20} {'prompts':15}" + "".join(f"{name:>24}" for name in NAMES) + f"{'judge: all right, %':>24}")
for row in report["rows"]:
    figures = [cell(row["metrics"][name] | {"limit": None}) for name in NAMES]
    figures.append("{percent:.1f} ({low:.1f}–{high:.1f})".format(**row["all"]))
    print(f"{row['clips']:20} {row['split']:15}" + "".join(f"{text:>24}" for text in figures))

# %% [markdown]
# How to read it. *Real clips* are the floor of the distances and the ceiling of the judge. *Autoencoder* is the ceiling
# of every model in these latents. *Frozen first frame* is the model's first frame throughout, and *empty prompt* is the
# model without its text. Look at the frozen row: by CLIPSIM it is about as good as the model; FVD-mini and the judge
# throw it out. Look at the floors, too: with 512 clips they are far lower than with the 48 of section 4.
#
# Then look at the three splits of the model: combinations that it knows, combinations that were held out, and things
# known from pictures only. For the first two no distance tells the model from the autoencoder, for the intervals
# overlap. For the third FVD-mini is about ten times that of the autoencoder, and the judge calls one clip in twelve
# wrong. CLIPSIM and FID-vid notice nothing of it. One figure for "the model" would hide the three splits, and one
# metric would hide the difference.
#
# ## 9 · Should it exist?
#
# A model is made of data, and the data are somebody's. The released ModelScopeT2V was trained, says its card, on
# LAION-5B, ImageNet and WebVid. Here is what is publicly known about two of them.
#
# **WebVid-10M** is ten million preview videos of stock footage sites with their captions. Most previews carry the
# watermark of Shutterstock, which tells everybody that nobody has paid for them yet. After a cease-and-desist request of
# that company its authors no longer distribute it; they also warn of "unintended societal, gender, racial and other
# biases" ([m-bain/webvid](https://github.com/m-bain/webvid)). **LAION-5B** is a list of links to 5.85 billion pictures.
# In December 2023 the Stanford Internet Observatory found links to images of child sexual abuse in it. LAION took the
# list down and published a cleaned one in 2024. Models that were trained before were trained on the old one.
#
# The watermark came back. Users of the released model report it in every clip
# ([modelscope#325](https://github.com/modelscope/modelscope/issues/325)), also with the negative prompt "watermark"
# ([sd-webui-text2video#24](https://github.com/kabachuha/sd-webui-text2video/issues/24)): the model has learnt that a
# video *is* something with that word on it. And the metric? Suppose that the real clips of an
# evaluation bear the mark. We stamp one on the reference, a pale ring and a bar, and measure clips with and without it.

# %%
rows, columns = np.mgrid[:64, :64] - 31.5
radius = np.hypot(rows, columns)
mark = ((radius > 9) & (radius < 13)) | ((abs(rows) < 2) & (abs(columns) > 13) & (abs(columns) < 24))
stamped = lambda clips: np.where(mark[..., None], 0.75 * clips + 0.25 * 255, clips).round().astype(np.uint8)
of_stamped = {metric: network(stamped(reference)) for metric, network in networks.items()}
for name, clips in (("clean", real[:N]), ("stamped", stamped(real[:N]))):
    found = {metric: frechet_distance(network(clips), of_stamped[metric]) for metric, network in networks.items()}
    print(f"real clips, {name:8} " + " · ".join(f"{metric} {value:6.1f}" for metric, value in found.items()))
lab.strip({"clean": real[0], "stamped": stamped(real[:1])[0]}, n=6, alt="Frames of a clip without and with a pale ring "
          "and bar in the middle.")

# %% [markdown]
# The mark wins: clips that bear it are near the floor, clean ones are far away. A distance to data cannot know that
# a watermark is not meant to be there. It says how much a set is *like the data*, and whether that is a good thing is a
# question for people.
#
# **Licences.** The code of ModelScope is Apache-2.0. The released weights are CC BY-NC 4.0, so not for commercial use.
# [Their card on the hub](https://huggingface.co/ali-vilab/text-to-video-ms-1.7b) says "cc-by-nc-4.0" in its head and
# "CC-BY-NC-ND" in its text; the ND would also forbid you to share a fine-tuned version. If you need to know, you have to
# ask. And the licence of the weights says nothing about the rights in the data.
#
# **Bias** is what a model fills in when you say nothing. For people that is age, skin and sex, for jobs, for places; to
# measure it one counts, over many seeds, what was not asked for. We can do that here, and we know the truth: the prompts
# of `mini-open` say neither size nor speed. How often the training clips of such prompts are large, or quick, follows
# from the rules of the data set: all four combinations are equally frequent, except that red things are never large and
# slow, and cyan things never small and quick.

# %%
from dataclasses import replace

from minit2v.datasets.moving_things import parse
from minit2v.datasets.moving_things.dataset import held_out


def in_the_data(attribute, value):
    """The share of the training clips of the open prompts that have this value, mean over the prompts."""
    shares = []
    for spec in map(parse, open_set.captions):
        kinds = [replace(spec.things[0], size=size, speed=speed) for size in ("small", "large")
                 for speed in ("slowly", "quickly")]
        kinds = [thing for thing in kinds if not held_out(replace(spec, things=(thing,)))]
        shares.append(np.mean([getattr(thing, attribute) == value for thing in kinds]))
    return np.mean(shares)


readings = [judge.read(pixels) for pixels in open_set.pixels]
for attribute, value in (("size", "large"), ("speed", "quickly")):
    known = [getattr(reading, attribute) for reading in readings if getattr(reading, attribute)]
    hits = sum(one == value for one in known)
    low, high = wilson(hits, len(known))
    print(f"{value}: {hits} of {len(known)} clips that the judge can read, {hits / len(known):.0%}, "
          f"interval {low:.0%} to {high:.0%}; in the data {in_the_data(attribute, value):.0%}")

# %% [markdown]
# Does each interval hold the share of the data? If one does not, you have found a bias of `mini` that nobody put there
# on purpose. Clips that the judge cannot read are not counted, so ask whether they could be of one kind. With people in
# the place of circles, nobody would know the true share, and nobody would agree on what it ought to be.
#
# **Misuse.** The card of the released model has a section on misuse: it forbids content that demeans people, that is
# violent or pornographic, and that spreads false information. A line of text forbids; it does not prevent. Before you
# release a model, ask: whom could a clip harm if it is believed? Who would notice? Can a clip be traced back to the
# model, by a mark that you chose? What will you do in the week after, when somebody writes to you?
#
# That is no reason to make nothing. The model that you took apart in this course draws circles, and it taught you how
# large ones work, so that you can ask such questions of them. It is a reason to write down what you made.
#
# ## 10 · A card
#
# A model card ([arXiv 1810.03993](https://arxiv.org/abs/1810.03993)) is the page that a stranger reads before using a
# model. Write the one of `mini`, as you now know it.
#
# ### Exercise 13.4 · model_card
#
# Difficulty 2/5 · importance 5/5 · 15 minutes
#
# `figures` are those of the report: for each split a dictionary with "percent" (of the clips, right in every attribute),
# "low", "high" (95 % interval, in percent) and "n". Return a dictionary with these headings and a text for each, eight
# words or more:
#
# | heading | what it tells |
# | --- | --- |
# | `"model"` | its name, what it makes, height and frames of a clip |
# | `"data"` | the name of its data set, and how the clips came about |
# | `"licence"` | of the weights, and of the data: see [the model card](../data/mini/README.md) and [the data card](../data/DATA_CARD.md) |
# | `"measured"` | the share for `test_seen` with its interval and the number of prompts |
# | `"fails"` | where it fails, with the share for `test_heldout` or `test_imageonly` |
# | `"people"` | who may be affected, and how |
# | `"not for"` | uses that you advise against |
# | `"contact"` | where to report a problem, and what to send along |
#
# The check finds gaps and wrong figures. Whether your card is *honest*, your neighbour decides: exchange cards and look
# for the sentence that a seller would have written.
#
# <details><summary>Hint 1</summary>Begin with the numbers: <code>seen = figures["test_seen"]</code>, and an f-string with
# <code>seen["percent"]:.1f</code>. Figures that are typed by hand are wrong after the next training.</details>
# <details><summary>Hint 2</summary>Licences: the weights are Apache-2.0, the drawn clips CC0. It fails most often
# where shape or colour was known from pictures only, see the table of section 8.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# One of many.
#
# ```python
# seen, other = figures["test_seen"], figures["test_imageonly"]
# return {
#     "model": "mini, a small text-to-video diffusion model: 16 frames of 64 x 64 pixels from one sentence.",
#     "measured": f"{seen['percent']:.1f} % of {seen['n']} prompts … ({seen['low']:.1f} to {seen['high']:.1f})",
#     …
# }
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def model_card(figures):
    """figures {split: {"percent", "low", "high", "n"}} -> {heading: text}."""
    ### BEGIN SOLUTION
    seen, other = figures["test_seen"], figures["test_imageonly"]
    return {
        "model": "mini, a small text-to-video diffusion model: 16 frames of 64 x 64 pixels from one sentence.",
        "data": "Clips and pictures of Moving Things, drawn by a program: no people, no scraped videos, no watermarks.",
        "licence": "Weights and code are Apache-2.0; the drawn clips and their captions are CC0.",
        "measured": f"{seen['percent']:.1f} % of {seen['n']} prompts with known combinations are right in every attribute "
                    f"(95 % interval {seen['low']:.1f} to {seen['high']:.1f}), one clip each.",
        "fails": f"Only {other['percent']:.1f} % are right where shape or colour was known from pictures alone.",
        "people": "It shows no people. Learners may take its scores for those of real models, measured otherwise.",
        "not for": "Any use beyond learning and measuring: it cannot draw the world, only shapes that move.",
        "contact": "The issue tracker of the repository: send the prompt, the seed and the version along.",
    }
    ### END SOLUTION


# %%
lab.check("13.4", model_card)

# %% [markdown]
# *What if?* Write the same card for the released model. How many of the eight headings can you fill in from what was
# published, and which of your sentences would begin with "unknown"?
#
# ## Takeaways
#
# 1. A metric measures what its formula and its network see, and nothing else. Test it with a trick before you trust it:
#    a still image, a shuffled clip, a memorised set.
# 2. A figure needs its protocol, its number of clips, its interval and the figure of real clips. Distances from few
#    clips are too large, repeated clips are no clips, and the best of eight seeds is not the model.
# 3. No metric asks whether the data were anybody's to take, or whom a clip could harm. Those questions have a place, the
#    model card, and somebody has to fill it in.
#
# ## Quiz

# %%
lab.quiz(13)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(13)

# %% [markdown]
# ## Further reading
#
# - Ge and others, [On the content bias in Fréchet video distance](https://arxiv.org/abs/2404.12391): how one finds out
#   what a metric looks at, and what to use instead.
# - Chong and Forsyth, [Effectively unbiased FID and Inception Score](https://arxiv.org/abs/1911.07023): the line over
#   1/n, and what happens to rankings without it.
# - Huang and others, [VBench](https://arxiv.org/abs/2311.17982): sixteen questions in the place of one figure, each
#   compared with people's votes.
# - Mitchell and others, [Model cards for model reporting](https://arxiv.org/abs/1810.03993): the paper behind section 10.
#
# **Next:** you have come from a tensor to a model, and from a model to what may be said about it. What to do now? Change
# a setting of the recipe and see whether *your* `mini` is better, with an interval:
# [docs/training.md](../docs/training.md) and [docs/speedrun.md](../docs/speedrun.md) say how. Or meet the other systems of the
# paper's table, each small enough to train: [14 · NÜWA](14_nuwa.ipynb) is the first.
