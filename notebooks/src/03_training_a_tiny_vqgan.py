# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Training a tiny VQGAN
#
# **An encoder, a codebook and a decoder know nothing at first. Here you choose what they are rewarded for, train
# them, and watch how many of 128 codes come into use.**
#
# **You will**
# - scrub through a recorded training and see what a network learns first, and what last
# - find out why a plain pixel loss ends in blur, or in an empty frame, and what a pyramid of edges changes
# - meet the critic that asks for sharpness, and see what happens when it comes too early
# - train a codebook: commitment, moving averages, usage and perplexity
# - bring a collapsed codebook back to life
#
# **You need** [02 · Squeezing frames](02_squeezing_frames.ipynb): encoder, decoder, latents, the nearest code and the
# straight-through gradient. How an optimiser uses a gradient should be familiar.
#
# **Time** reading 15 minutes · running 5 to 60 seconds (fast mode the same) · exercises 30 minutes

# %%
from minit2v import lab

ctx = lab.setup(3)

# %% [markdown]
# ## 1 · What does learning look like?
#
# We train `nano`, the smallest autoencoder of this library, with a codebook of 128 codes. Frames have 32 x 32
# pixels, latents 8 x 8 cells, and each cell holds one of the codes.

# %%
import torch

from minit2v.lab.course.trainings import task_of, training, unseen_frames
from minit2v.recording.run import TrainingRun

task = task_of("late")  # networks, losses and data; the name will make sense in section 5
frames = unseen_frames()  # (64, 3, 32, 32) in [-1, 1], none of them is trained on
latents = task.autoencoder.encode(frames)
print("frames", tuple(frames.shape), "-> latents", tuple(latents.shape))
print("parameters:", f"{sum(p.numel() for p in task.autoencoder.parameters()):,}")

# %%
lab.predict("A frame has 32 x 32 x 3 bytes. Its latent is 8 x 8 codes of 7 bits. How many times fewer bits are that?",
            55, tolerance=2)

# %% [markdown]
# 24,576 bits become 448, fifty-five times fewer. Each cell has seven bits in which to say what its sixteen pixels
# need. Can that be learnt? Here is a training of 1,500 steps, recorded once on one core of a CPU
# (`scripts/record_vqgan.py`). Drag the slider, or press the space bar. Choose other curves; those that begin with
# *unseen* were measured on frames that the network was never trained on.

# %%
late = TrainingRun.load("nano-vqgan-late")
lab.RunReplay(late, name="replay-late", curve="unseen: psnr")

# %% [markdown]
# What to see: at step 0 there is only texture. Within 60 steps it is gone, and the frames are clean, dark, and
# *empty*. For a good hundred steps more there is nothing in them. Then a blob appears where the thing is, then an
# outline, and last the right colour.
#
# Mark the flat stretch at the beginning of the curve. In notebook 02 everything below 20 dB was visible damage; a
# frame with nothing in it already has 16.
#
# ## 2 · What should be rewarded?
#
# The obvious reward is to be close, pixel by pixel: L1, the mean absolute difference. Why did that lead to empty
# frames first? Because an early network does not know yet *where* the thing is. Put yourself in its place. You know
# that there is a ring, and the ring may be in any of 25 neighbouring places, or anywhere at all. You have to paint
# one picture, and you pay the mean loss over all the places. What do you paint?

# %%
ring = frames[13:14]
near = torch.cat([ring.roll((y, x), (2, 3)) for y in range(-4, 5, 2) for x in range(-4, 5, 2)])
anywhere = torch.cat([ring.roll((y, x), (2, 3)) for y in range(0, 32, 2) for x in range(0, 32, 2)])
answers = {"a sharp guess": ring[0], "mean of 25": near.mean(0), "median of 25": near.median(0).values,
           "median of all": anywhere.median(0).values}
l1 = {name: (near - answer).abs().mean().item() for name, answer in answers.items()}
l2 = {name: (near - answer).square().mean().item() for name, answer in answers.items()}
print("cheapest of 25 places, squared error:", min(l2, key=l2.get))
print("cheapest of 25 places, L1:", min(l1, key=l1.get))
print("the sharp guess is dearer than an empty frame:", l1["a sharp guess"] > l1["median of all"])
lab.sheet(list(answers.values()), list(answers), columns=4, alt="Four answers: a sharp ring, a grey smear, a small "
          "bright blob, and an empty frame.")

# %% [markdown]
# What to see: under doubt, the cheapest picture for squared error is the mean of all possibilities, a smear. For L1 it
# is their median. With 25 places that is a small blob; when the doubt is large it is *nothing*, because every single
# pixel is background in most of the cases. A sharp ring in the wrong place costs more than no ring. Empty frames are
# what this loss asks for.
#
# The library changes the question in two ways. First, a thing of 3 % of the frame must not be outvoted by 97 %
# background, so pixels on and around a thing count up to nine times as much as the others (`pixel_weights`). Second,
# edges are compared as edges. Halve a picture and double it again: what got lost is its finest edges.

# %%
import torch.nn.functional as F

levels, rest = [], ring
for _ in range(3):
    coarse = F.avg_pool2d(rest, 2)  # (1 3 h w) -> (1 3 h/2 w/2)
    levels.append(rest - F.interpolate(coarse, scale_factor=2.0))
    rest = coarse
shown = [F.interpolate(level, size=32)[0] for level in [ring, *levels, rest]]
lab.sheet(shown, ["frame", "edges of 1 pixel", "of 2 pixels", "of 4 pixels", "what is left"], columns=5,
          alt="A ring, its fine, middle and coarse edges on grey, and a rest of four by four squares.")

# %% [markdown]
# What to see: grey means 0, no edge. A sharp ring has strong edges at every size; a blurred one would have hardly any
# of the finest. This is a Laplacian pyramid, and the loss is the L1 distance of two pyramids, level by level. How does
# it judge two mistakes that are *equal* for L1: a blurred ring, and a sharp one in a slightly wrong shade?

# %%
from minit2v.training.autoencoder import pixel_weights, pyramid_loss

blurred = F.avg_pool2d(ring, 5, stride=1, padding=2, count_include_pad=False)
shaded = ring + (blurred - ring).abs().mean()
for name, picture in (("blurred", blurred), ("wrong shade", shaded)):
    print(f"{name}: L1 {(ring - picture).abs().mean():.3f}, pyramid {pyramid_loss(ring, picture, 3):.3f}")
lab.show_source(pyramid_loss, lines=(7, 12))
weights = pixel_weights(anywhere, 8.0)
both = {name: (weights * (anywhere - answer).abs()).mean() + pyramid_loss(anywhere, answer.expand_as(anywhere), 3)
        for name, answer in answers.items()}
print("a ring anywhere, weights and pyramid; the cheapest answer is still:", min(both, key=both.get))

# %% [markdown]
# For L1 the two are alike. The pyramid makes the blur cost more, and our eyes agree. The recording was made with both
# changes and began with empty frames all the same. The last line says why: as long as the place is unknown, neither
# helps. As soon as it is roughly known, both do. (The papers use a *perceptual* loss here, LPIPS, which compares what a
# large network sees that was trained on photographs. It is a download of half a gigabyte.)
#
# ## 3 · How a codebook learns
#
# On to the middle of the network. In notebook 02 each latent vector was replaced by its nearest code, and the
# gradient went straight through. But who moves the codes? Three things have to happen.
#
# **Vectors come to their codes.** The *commitment loss* draws each vector towards the code that it got, so that the
# encoder does not wander off:
#
# $$\beta\,\lVert e - \mathrm{sg}(q)\rVert^2 \qquad (3.1)$$
#
# The letters are those of notebook 02: $e$ is the encoder's vector, $q$ its code, sg *stop gradient*. For this term the
# code is constant. $\beta$ says how much the term counts.
#
# ### Exercise 3.1 · commitment_loss
#
# Difficulty 2/5 · importance 4/5 · 6 minutes
#
# Write `commitment_loss(features, codes, beta)`. Both tensors are (n, c, h, w); `codes` holds for each vector the
# code that it got. Return `beta` times the mean squared difference, so that its gradient reaches the features and not
# the codes. The check tests both.
#
# <details><summary>Hint 1</summary>The mean runs over all four axes; the result is one number.</details>
# <details><summary>Hint 2</summary><code>tensor.detach()</code> is PyTorch's sg. Which of the two must be
# detached?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary><code>return beta * ((features - codes.detach()) ** 2).mean()</code></details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def commitment_loss(features, codes, beta=0.25):
    """beta times the mean squared distance of features to their codes, (n c h w) each -> a scalar."""
    ### BEGIN SOLUTION
    return beta * ((features - codes.detach()) ** 2).mean()
    ### END SOLUTION


# %%
lab.check("3.1", commitment_loss)

# %% [markdown]
# *What if?* The original VQ-VAE has a second term with the detach on the other side, which moves the codes, and beta
# belongs to yours only. In the code of the first VQGAN beta stands at the *wrong* one of the two. It was noticed when
# models had been released, so the mistake stayed the default, `legacy=True`
# ([quantize.py](https://github.com/CompVis/taming-transformers/blob/master/taming/modules/vqvae/quantize.py)). Which
# of the two is too weak then? (The one that moves the codes.)
#
# **Codes come to their vectors.** A code is to be the mean of the vectors that chose it. A batch is too small for a
# good mean, so the codebook keeps a running one (3.2): each step keeps 99 % of the old and takes 1 % of the new. No
# gradient is needed.

# %%
book = task.autoencoder.bottleneck
vectors = torch.randn(1000, 4, generator=ctx.generator())
index = book.nearest(vectors)
share = torch.bincount(index, minlength=128) / 1000  # of the vectors that chose each code
total = torch.zeros(128, 4).index_add(0, index, vectors) / 1000  # and their sum
usage = 0.99 * torch.zeros(128) + 0.01 * share  # these lines are the whole of it, here for the first step:
sums = 0.99 * torch.zeros(128, 4) + 0.01 * total
codes = sums / usage[:, None]
used = share > 0
means = torch.stack([vectors[index == i].mean(dim=0) for i in used.nonzero()[:, 0]])
print("codes in use are the means of their vectors:", torch.allclose(codes[used], means, atol=1e-5))
print("the others:", codes[~used][0].tolist())

# %% [markdown]
# NaN: a code that nobody chose is nothing divided by nothing. Who looks after such codes is the question of the bug
# hunt.
#
# **We have to count.** *Usage* is the share of codes that are chosen at all. It has a weakness: a code that
# is chosen once counts as much as one that is chosen always. *Perplexity* is finer. Take the shares $p_i$ with which
# the codes are chosen, and compute $\exp(-\sum_i p_i \log p_i)$ (3.3). If k codes are used alike, it is k; if one code
# takes everything, 1. It is the number of codes that are in use *in effect*.
#
# ### Exercise 3.2 · perplexity
#
# Difficulty 2/5 · importance 4/5 · 6 minutes
#
# Write `perplexity(share)`: shares (k,) that add up to 1 in, a number between 1 and k out. Some of the shares will be
# 0.
#
# <details><summary>Hint 1</summary><code>-(share * share.log()).sum()</code> is the entropy, if no share is
# 0.</details>
# <details><summary>Hint 2</summary>log 0 is minus infinity, and 0 times that is NaN. Leave the zeros out first, or use
# <code>torch.special.entr</code>, which knows that 0 log 0 counts as 0.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# used = share[share > 0]
# return (-(used * used.log()).sum()).exp()
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def perplexity(share):
    """exp of the entropy of shares (k,), which add up to 1: between 1 and k."""
    ### BEGIN SOLUTION
    used = share[share > 0]
    return (-(used * used.log()).sum()).exp()
    ### END SOLUTION


# %%
lab.check("3.2", perplexity)

# %% [markdown]
# *What if?* The number depends on how many vectors you count; a batch has 1,024 and may miss a rare code ([a good
# discussion](https://github.com/bshall/VectorQuantizedVAE/issues/3)). And more than four in five of our cells show
# nothing but background. If they all shared one code, and the others were used alike, the perplexity would be about 4.
# The recording ends at 52. What does that say about its background cells?
#
# ## 4 · A critic for sharpness
#
# Back to the loss. The pyramid still cannot do one thing. Where the network is in doubt about an edge, the median of
# all possible edges is a soft one, at every level. No loss that measures a *distance to one picture* can ask for
# "some sharp edge, I do not mind which". For that we need somebody who looks at the picture alone and says whether it
# could be real.
#
# That is the **discriminator**: a small network which gets frames and reconstructions, and is trained to tell them
# apart. (Two networks against each other are a *generative adversarial network*, the GAN in VQGAN.) It gives a
# picture a grid of scores, and each score sees a window of 38 pixels only. In the papers' frames of 256
# pixels that is a patch: it judges texture and edges, and leaves the content to L1. In our tiny frames it is nearly
# everything.
#
# Two losses pull in opposite directions. The discriminator wants scores above 1 for frames and below -1 for
# reconstructions. What is beyond these marks costs nothing: that is the *hinge*. The decoder wants high scores for
# what it has made.
#
# $$\mathcal{L}_D = \mathrm{E}\left[\max(0, 1 - D(x))\right] + \mathrm{E}\left[\max(0, 1 + D(\hat x))\right] \quad (3.5)
# \qquad\qquad \mathcal{L}_{adv} = -\,\mathrm{E}\left[D(\hat x)\right] \quad (3.6)$$

# %%
print("frames", tuple(frames.shape), "-> scores", tuple(task.discriminator(frames).shape))
score = torch.linspace(-3, 3, 61)
lines = {"D: for a frame": (score, F.relu(1 - score)), "D: for a reconstruction": (score, F.relu(1 + score)),
         "decoder": (score, -score)}
lab.curves(lines, "score", "loss", alt="The loss for frames falls to zero at score 1, that for reconstructions rises "
           "from zero at score -1, the decoder's falls all the way.")

# %% [markdown]
# What to see: beyond its mark each of the discriminator's lines is flat, and what it is sure of teaches it nothing
# more. A discriminator that cannot tell anything apart gives 0 to everything and pays 2. Keep the number 2 in mind for
# the curve *hinge*.
#
# In the library one optimiser trains both networks on one sum. That works because each term reaches only one of them.
# Look for what is detached:

# %%
from minit2v.training.autoencoder import AutoencoderTask

lab.show_source(AutoencoderTask.adversarial)
lab.show_source(AutoencoderTask.hinge)

# %% [markdown]
# ## 5 · Why the critic has to wait
#
# When should it start? In the code of the first VQGAN this is a number of steps, and people have asked ever since how
# to choose it ([issue 129](https://github.com/CompVis/taming-transformers/issues/129): should it not be a *share* of
# the training? In our library it is, 0.7). Others saw good reconstructions ruined when the critic came in ([issue
# 44](https://github.com/CompVis/taming-transformers/issues/44)). Let us look. Three trainings, alike in all but the
# critic: it starts at 70 % of the steps, at once, or never. (In all recordings its weight is ten times the library's
# default, so that 1,500 steps are enough to see its effect.)

# %%
early, never = TrainingRun.load("nano-vqgan-early"), TrainingRun.load("nano-vqgan-never")
for run in (late, early, never):
    last = {name: f"{run.curves[f'unseen: {name}'][1][-1]:.2f}" for name in ("psnr", "sharpness")}
    print(f"{run.name:6}", last)
lab.RunReplay([late, early, never], name="replay-start", curve="unseen: psnr")

# %% [markdown]
# What to see: until step 1,050 `late` and `never` are the same training. Then the critic makes the edges of `late` a
# tenth stronger, and PSNR does not mind. (*Sharpness* is the mean size of the finest edges, in units of those of the
# true frames: below 1 is soft, above 1 is more than there should be, and here both are above.) Choose the curve
# *hinge*: for `late` it stays close to 2, so the critic can hardly tell reconstructions from frames. Our world hardly
# needs it: a flat shape on a plain ground leaves little doubt. In photographs, with hair and grass, doubt is
# everywhere.
#
# `early` never gets anywhere. Play it: the frames turn green, black, green, red. It looks like a chase. About the
# output of an untrained network the critic can say something quite simple, "this colour is a fake"; the decoder changes
# the colour, and the critic follows. Neither has to attend to the frame. A critic can teach edges only when edges are
# all that is wrong.
#
# ### Exercise 3.3 · warm_up
#
# Difficulty 1/5 · importance 3/5 · 5 minutes
#
# The critic of `late` does not enter at full strength either. Write `warm_up(progress, start, ramp)`, the factor on
# the adversarial term. `progress` is the share of the training that is done. The factor is 0 until `start`, then
# rises in a straight line, reaches 1 at `start + ramp` and stays there (3.7).
#
# <details><summary>Hint 1</summary>Which share of the ramp is done? It may come out below 0 or above 1.</details>
# <details><summary>Hint 2</summary><code>min</code> with 1 and <code>max</code> with 0.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary><code>return min(1.0, max(0.0, (progress - start) / ramp))</code></details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def warm_up(progress, start=0.7, ramp=0.1):
    """Factor on the adversarial term, 0 to 1; progress, start and ramp are shares of the training."""
    ### BEGIN SOLUTION
    return min(1.0, max(0.0, (progress - start) / ramp))
    ### END SOLUTION


# %%
lab.check("3.3", warm_up)

# %% [markdown]
# *What if?* The ramp is for the decoder's term only; the discriminator learns at full rate from `start` on. So it
# has learnt something before it counts for much. What would the decoder learn from a critic who knows nothing yet?
#
# ## 6 · Train it
#
# A training step by hand is in the next cell; the loop of the lab, below it, adds a learning rate that rises and falls,
# and a limit for the length of the gradient.

# %%
optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
loss, report = task(task.draw(ctx.generator(), 16))  # 16 frames -> L1 + pyramid + commitment (+ adversarial + hinge)
optimizer.zero_grad()
loss.backward()
optimizer.step()
print({name: f"{value:.1f}" for name, value in report.items() if name in ("l1", "pyramid")})
lab.show_source(training)

# %% [markdown]
# Run the next two cells, and look at the widget while the second one works: the dark line is yours.

# %%
replay = lab.RunReplay(late, name="replay-live", curve="l1", at=4)
replay

# %%
task, STEPS = task_of("late"), 60  # a fresh one: the same weights and the same batches as in the recording
live = []
for step, report in training(task, steps=1500, stop=STEPS):
    replay.append(step, report)
    live.append(report["l1"])
print("loss fell:", sum(live[-5:]) < 0.6 * sum(live[:5]))
recorded = late.curves["l1"][1][: STEPS // 5]  # a point for every five steps
own = torch.tensor(live).view(-1, 5).mean(dim=1)
print("the recording, within 10 %:", bool(((own - torch.from_numpy(recorded)).abs() < 0.1 * own).all()))

# %%
with torch.no_grad():
    given_back = task.autoencoder.decode(task.autoencoder.encode(frames))
lab.sheet([*frames[[13, 3, 2, 5]], *given_back[[13, 3, 2, 5]]], columns=4,
          alt="Four frames with things above; below, what the network gives back after 60 steps: dark frames with "
          "hardly anything in them.")

# %% [markdown]
# What to see: your sixty steps lie on the recorded line, and end where the recording was at that step: in front of
# empty frames. Nothing is wrong. If you have some minutes, go all the way:

# %%
RUN = False  # True: 1,500 steps, two to three minutes on an idle core, more on a busy one
if RUN:
    from minit2v.lab.course.trainings import record_training

    mine = record_training(task_of("late"), 1500, "mine", late.steps.tolist())
else:
    mine = late
print(f"{mine.curves['unseen: codes in use'][1][-1]:.0f} codes in use, perplexity "
      f"{mine.curves['unseen: perplexity'][1][-1]:.0f}, {mine.curves['unseen: psnr'][1][-1]:.1f} dB")

# %% [markdown]
# What to see: nearly all codes are in use, and the latents say in 448 bits where a thing is, which shape it has
# and which colour. Not everything fits. Go back to the first widget and look at the star: its points are two pixels
# wide, and it comes back as a pentagon. The cross was green, then blue, and is not quite cyan at the end.
#
# ## 7 · What comes out, and at which size?
#
# The diffusion model of the later notebooks adds noise of standard deviation 1 to latents, and expects latents of
# about the same size. Nobody has told the encoder. The recording kept the standard deviation of its latents:

# %%
std = late.curves["unseen: std of latents"][1]
print(f"standard deviation: {std[0]:.2f} at first, {std[-1]:.2f} at the end -> scale factor {1 / std[-1]:.1f}")
factor = task.normalise()
print("times the factor, the latents of your sixty steps have std 1:",
      abs(factor * task.autoencoder.encode(frames).std().item() - 1) < 0.15)

# %% [markdown]
# So `normalise`, which you met in notebook 02, comes after the training. In `mini`, with its Gaussian bottleneck,
# every channel was brought to deviation 1 inside the weights. With a codebook that would change the network: stretch
# one channel, and another code may be the nearest. So the codes stay as they are, and one factor travels beside them.
#
# ## 8 · Bug hunt: the codebook that will not be used
#
# "I tried training my own module, but the quantization stage always collapsed into trivial solution, i.e. all
# features are indexed to the same entry." So begins [issue
# 191](https://github.com/CompVis/taming-transformers/issues/191) of the first VQGAN, and there are many like it. In
# that code the codes begin as random numbers between -1/K and 1/K, K being their number. Here is our network, trained
# in the same way but with such a start, and with one more thing left out. Before you look:

# %%
lab.predict("After 900 of 1,500 steps, whose reconstructions of unseen frames have the higher PSNR?",
            "the collapsed one's",
            choices=["the healthy one's, by far", "the healthy one's, by a little", "the collapsed one's"])

# %%
collapsed = TrainingRun.load("nano-vqgan-collapsed")
for step in (900, 1500):
    for run in (late, collapsed):
        at = list(run.steps).index(step)
        psnr, codes, effect = (run.curves[f"unseen: {name}"][1][at] for name in ("psnr", "codes in use", "perplexity"))
        print(f"step {step:4}, {run.name:9}: {psnr:.1f} dB, {codes:.0f} codes in use, perplexity {effect:.0f}")
lab.RunReplay([late, collapsed], name="replay-collapsed", curve="unseen: codes in use")

# %% [markdown]
# What to see: for nine hundred steps the collapsed network is level with the healthy one, even a little ahead. Then it
# falls behind and ends three decibels lower. It has 21 codes at the end, and in effect nine: three bits in each cell
# ($2^3 = 8$), where the healthy one has nearly six. Nothing crashed, and the curve of L1 fell as it should.
# Whoever logs only losses sees a training that works, with a somewhat poor result.
#
# To find the cause we can keep the encoder still. Take the vectors that an untrained one makes of our frames, and let
# only the codebook learn. This is its step, all of it:

# %%
with torch.no_grad():
    data = task_of("late").autoencoder.features(frames)
data = data.permute(0, 2, 3, 1).flatten(0, 2)  # (n c h w) -> ((n h w) c)


def broken_update(codes, usage, sums, vectors, generator):
    k = len(codes)
    index = torch.cdist(vectors, codes).argmin(dim=1)
    share = torch.bincount(index, minlength=k) / len(vectors)
    usage = 0.99 * usage + 0.01 * share
    sums = 0.99 * sums + 0.01 * torch.zeros_like(sums).index_add(0, index, vectors) / len(vectors)
    return sums / usage[:, None], usage, sums


def learn(step, k=128):
    """The ways (s k 4) of k codes that begin in the tiny cube, over 600 steps."""
    generator = ctx.generator(3)
    codes = (2 * torch.rand(k, 4, generator=generator) - 1) / k
    state, ways = (codes, torch.full((k,), 1 / k), codes / k), [codes]
    for _ in range(600):
        state = step(*state, data, generator)
        ways.append(state[0])
    return torch.stack(ways)


# %%
ways = learn(broken_update)
taken = torch.cdist(data, ways[-1]).argmin(dim=1).unique()
print("codes that are taken after 600 steps:", len(taken), "of", ways.shape[1])
lab.points({"two of four numbers": data[::4, :2]}, apart=True, paths={"two of four numbers": ways[::20, :, :2]},
           alt="A grey cloud of vectors beside the origin. All codes begin at the origin; few lines lead into the "
           "cloud, and the other codes have stayed.")

# %% [markdown]
# What to see: seen from the vectors, the codes in the cube are all at the same place. Those that stand out a little
# in the right direction are chosen, move into the cloud, and from then on are the nearest for everything around them.
# The others are never chosen. A code that is not chosen does not move; and because it does not move it will not be
# chosen.
#
# ### Bug hunt 3.B · update
#
# Difficulty 4/5 · importance 5/5 · 12 minutes
#
# Mend `update`, which is `broken_update` under another name. `usage` (k,) is the running share of every code, `sums`
# (k, c) the running sum of its vectors, and a code is their quotient. The start in the tiny cube must stay as it is.
# The check begins in such a cube, and later moves all vectors somewhere else, as a learning encoder does. Codes in use
# must not be touched, nor those that only this batch has missed. Draw random numbers from `generator`.
#
# <details><summary>Hint 1</summary>Which codes are dead? A fair share is 1 / k. A code whose running usage has sunk
# below a hundredth of that has not been chosen for a long time.</details>
# <details><summary>Hint 2</summary>Put every dead code on a vector of the batch:
# <code>vectors[torch.randint(len(vectors), (n,), generator=generator)]</code>. A code is a quotient, so both of its
# parts must be set; give it a fair usage, or it is dead again in the next step.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# dead = usage * k < 0.01
# picks = torch.randint(len(vectors), (int(dead.sum()),), generator=generator)
# usage[dead], sums[dead] = 1 / k, vectors[picks] / k
# ```
# before the last line.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def update(codes, usage, sums, vectors, generator):
    """Codes (k c), usage (k,) and sums (k c) after a batch of vectors (m c)."""
    k = len(codes)
    index = torch.cdist(vectors, codes).argmin(dim=1)
    share = torch.bincount(index, minlength=k) / len(vectors)
    usage = 0.99 * usage + 0.01 * share
    sums = 0.99 * sums + 0.01 * torch.zeros_like(sums).index_add(0, index, vectors) / len(vectors)
    ### BEGIN SOLUTION
    dead = usage * k < 0.01
    picks = torch.randint(len(vectors), (int(dead.sum()),), generator=generator)
    usage[dead], sums[dead] = 1 / k, vectors[picks] / k
    ### END SOLUTION
    ### BEGIN STUDENT
    # ## what becomes of a code that nobody chose?
    ### END STUDENT
    return sums / usage[:, None], usage, sums


# %%
lab.check("3.B", update)

# %% [markdown]
# The next cell uses your `update` once it passes, and the library's until then. Above the picture stands the
# library's.

# %%
from minit2v.networks.bottleneck import Codebook

lab.show_source(Codebook.update)
ways = learn(lab.yours("3.B"))
taken = torch.cdist(data, ways[-1]).argmin(dim=1).unique()
print("more than 100 of 128 codes are taken:", len(taken) > 100)
lab.points({"two of four numbers": data[::4, :2]}, apart=True, paths={"two of four numbers": ways[-1:, :, :2]},
           alt="The same cloud of vectors; now codes lie all over it.")

# %% [markdown]
# The library does what you did, with two refinements. A dead code is put on a vector that is *badly served* by the
# present codes, with a probability in proportion to its squared error. And the random choice is seeded by the number of
# updates, so that a resumed training repeats it. `usage` begins at zero, so the first batch replaces all codes. Where a
# codebook begins hardly matters when the dead are brought back.
#
# ## Takeaways
#
# 1. Under doubt, a loss that measures the distance to one picture asks for blur, or for nothing at all. Edges need a
#    term of their own, and sharpness under doubt needs a critic, which has to wait until only edges are wrong.
# 2. A codebook learns without a gradient: vectors commit to codes, codes follow their vectors by a running mean, and
#    the dead are restarted.
# 3. A good reconstruction proves nothing about the codebook. Log usage and perplexity from the first step.
#
# ## Quiz

# %%
lab.quiz(3)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(3)

# %% [markdown]
# ## Further reading
#
# - [VQGAN](https://arxiv.org/abs/2012.09841), section 3.1: its adversarial term has a weight that adapts to the
#   gradients; compare it with our plain ramp.
# - [VQ-VAE](https://arxiv.org/abs/1711.00937), section 3.2 and appendix A.1: the three terms, and the moving averages.
# - [VideoGPT, issue 18](https://github.com/wilson1yan/VideoGPT/issues/18): an author on which
#   of two remedies keeps a codebook alive.
#
# **Next:** [04 · Words into vectors](04_words_into_vectors.ipynb): the same for sentences.
