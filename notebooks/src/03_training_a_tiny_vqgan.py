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
# - write the training step of two networks that work against each other, and see what the critic is good for
# - see what happens when the critic comes too early
# - train a codebook: commitment, moving averages, usage and perplexity
# - bring a collapsed codebook back to life
#
# **You need** [02 · Squeezing frames](02_squeezing_frames.ipynb): encoder, decoder, latents, the nearest code and the
# straight-through gradient. How an optimiser uses a gradient should be familiar.
#
# **Time** reading 20 minutes · running 15 to 90 seconds (fast mode the same) · exercises 49 minutes

# %%
from minit2v import lab

ctx = lab.setup(3)

# %% [markdown]
# ## 1 · What does learning look like?
#
# We train `nano`, the smallest autoencoder of this library, with a codebook of 128 codes. Frames have 32 x 32 pixels, latents
# 8 x 8 cells, and each cell holds one of the codes. An encoder, a decoder, a critic (section 4) and a table of codes have to
# learn, and each is moved by something else. Here they stand in a row, with what moves them below:

# %%
from minit2v.lab.course.drawings.loss_map import loss_map

loss_map(["frame", "encoder", "codebook", "decoder", "picture", "critic"],
         {"L1 and pyramid (3.1)": ["encoder", "decoder"], "commitment (3.2)": ["encoder"],
          "running means (3.3), no gradient": ["codebook"], "hinge (3.5)": ["critic"],
          "adversarial (3.6)": ["encoder", "decoder"]},
         alt="Frame, encoder, codebook, decoder, picture and critic in a row. L1 and pyramid move encoder and decoder, the "
         "commitment moves the encoder, running means the codebook, the hinge the critic, and the adversarial term encoder "
         "and decoder.")

# %% [markdown]
# Read it by rows. The first loss compares the picture with the frame, and reaches the encoder because the gradient passes the
# codebook straight through (notebook 02). No row moves everything, and no loss moves the codes by a gradient. Sections 2 to 4
# explain the rows: come back to the drawing when you have lost track of who learns from what.
#
# First the networks and the data:

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
lab.predict("3.a")

# %% [markdown]
# 24,576 bits become 448, fifty-five times fewer. Each cell has seven bits in which to say what its sixteen pixels need. Can
# that be learnt? Here is a training of 1,500 steps, recorded once on one core of a CPU (`scripts/record_vqgan.py` in the
# repository). Drag the slider, or press the space bar. You can choose other curves. Those that begin with *unseen* were
# measured on frames that the network was never trained on. PSNR is the measure of notebook 02, in decibels.

# %%
late = TrainingRun.load("nano-vqgan-late")
lab.RunReplay(late, name="replay-late", curve="unseen: psnr")

# %% [markdown]
# What to see: at step 0 there is only texture. Within 60 steps it is gone, and the frames are clean, dark, and
# *empty*. They stay so for a good hundred steps more. Then a blob appears where the thing is, then an
# outline, and last the right colour.
#
# Find the flat stretch at the beginning of the curve. In notebook 02, 22 dB was coloured fog. A frame with nothing in it
# already has 16: most of its pixels are background, and those are right.
#
# ## 2 · What should be rewarded?
#
# The obvious reward is to be close, pixel by pixel: L1, the mean absolute difference. Why did that lead to empty
# frames first? An early network does not know yet *where* the thing is. Put yourself in its place. You know
# that there is a ring, and that it may be in any of 25 neighbouring places. You have to paint
# one picture, and you pay the mean loss over all the places. What do you paint?

# %%
lab.predict("3.b")

# %%
ring = frames[13:14]
near = torch.cat([ring.roll((y, x), (2, 3)) for y in range(-4, 5, 2) for x in range(-4, 5, 2)])
anywhere = torch.cat([ring.roll((y, x), (2, 3)) for y in range(0, 32, 2) for x in range(0, 32, 2)])
answers = {"a sharp guess": ring[0], "mean of 25": near.mean(0), "median of 25": near.median(0).values,
           "median of all": anywhere.median(0).values}
for name, answer in answers.items():
    l1, squared = (near - answer).abs().mean().item(), (near - answer).square().mean().item()
    print(f"{name:14} mean over the 25 places: L1 {l1:.3f}, squared error {squared:.3f}")
lab.sheet(list(answers.values()), list(answers), columns=4, alt="Four answers: a sharp ring, a grey smear, a small "
          "bright blob, and an empty frame.")

# %% [markdown]
# What to see: find the smallest number in each column. For squared error the cheapest picture is the mean of all
# possibilities, a smear. For L1 it is their median, here a small blob. And the sharp ring, the only picture of the four that
# could be a frame, is the dearest in both columns: in 24 of 25 cases it is wrong twice, where it is and where the true ring
# is.
#
# It is easiest to understand with a single pixel. Say that it is bright (1) in three cases of ten and dark (0) in the
# others. You paint it with some number between 0 and 1. What does each choice cost on average?

# %%
painted = torch.linspace(0, 1, 101)
costs = {"L1": 0.3 * (1 - painted) + 0.7 * painted, "squared error": 0.3 * (1 - painted) ** 2 + 0.7 * painted**2}
print("cheapest to paint:", {name: f"{painted[cost.argmin()]:.1f}" for name, cost in costs.items()})
lab.curves({name: (painted, cost) for name, cost in costs.items()}, "what is painted", "mean cost", marks=[0.3],
           alt="Two costs over what is painted: that of L1 is a straight line with its lowest point at 0, that of squared "
           "error a curve with its lowest point at 0.3.")

# %% [markdown]
# What to see: the line of L1 has its lowest point at one end. L1 sides with the majority, and the majority says dark.
# The curve of squared error has it at 0.3, which is the mean: a grey that is right in no case.
#
# Now think of a small thing that may be anywhere in the frame. Every single pixel is background in most of the cases, so
# L1 paints background everywhere: the fourth picture. Empty frames are what this loss asks for, as long as the network
# does not know the place.
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
# of the finest. This is a Laplacian pyramid, and the loss (3.1) is the L1 distance of two pyramids, level by level. How does
# it judge two mistakes that are *equal* for L1, a blurred ring and a sharp one in a slightly wrong shade?

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
# For L1 the two are alike. The pyramid makes the blur cost more, and our eyes agree. Yet the recording was made with both
# changes and began with empty frames all the same. The last line says why: as long as the place is unknown, the empty
# frame is the cheapest answer for the weighted sum as well. As soon as the place is roughly known, both changes help. (The
# papers use a *perceptual* loss here, LPIPS. It compares what a large network sees that was trained on photographs, and
# that network is a download of half a gigabyte.)
#
# ## 3 · How a codebook learns
#
# On to the middle of the network. In notebook 02 each latent vector was replaced by its nearest code, and the
# gradient went straight through. But who moves the codes? Three things have to happen: vectors come to their codes, codes
# come to their vectors, and somebody has to count.
#
# **Vectors come to their codes.** The *commitment loss* draws each vector towards the code that it got, so that the
# encoder does not wander off:
#
# $$\beta\,\lVert e - \mathrm{sg}(q)\rVert^2 \qquad (3.2)$$
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
# good mean, so the codebook keeps a running one: each step keeps 99 % of the old and takes 1 % of the new. Let $s_k$ be the
# share of the vectors of the batch that chose code $k$, and $t_k$ their sum, divided by the number of all vectors. Then
#
# $$n_k \leftarrow 0.99\,n_k + 0.01\,s_k, \qquad m_k \leftarrow 0.99\,m_k + 0.01\,t_k, \qquad c_k = m_k / n_k . \qquad (3.3)$$
#
# No gradient is needed. Here is the first such step, with vectors drawn at random:

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
print(f"{used.sum()} codes are in use; the farthest is {(codes[used] - means).abs().max():.4f} from the mean of its vectors")
print(f"{(~used).sum()} codes have no vector; the first of them is now", codes[~used][0].tolist())

# %% [markdown]
# The quotient of two running sums is the mean, after the first step already. And NaN: a code that nobody chose is nothing
# divided by nothing, because both sums begin at zero here.
#
# **We have to count.** *Usage* is the share of codes that are chosen at all. It has a weakness: a code that
# is chosen once counts as much as one that is chosen always. *Perplexity* is finer. Take the shares $p_i$ with which
# the codes are chosen, and compute $\exp(-\sum_i p_i \log p_i)$ (3.4). If k codes are used alike, it is k; if one code
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
# *What if?* Count fewer vectors, and the perplexity falls, for a rare code is missed: a batch has only 1,024 ([a good
# discussion](https://github.com/bshall/VectorQuantizedVAE/issues/3)). And more than four in five of our cells show nothing but
# background. If they all shared one code, and the others were used alike, the perplexity would be about 4. The recording ends
# at 52. So its background cells do not share one code: the network spends many of its codes on cells in which there is nothing
# to see. A higher perplexity is not always a better codebook.
#
# ## 4 · A critic for sharpness
#
# Back to the loss. Sections 1 and 2 were about an early network, which can still learn where the thing is. But some doubt
# never goes away. A cell has seven bits. What its code does not say, the decoder cannot know, however long it is trained.
# What does it paint then?
#
# The smallest example: sixteen frames with a bright line, one for each column, and a codebook of *four* codes. A code can
# only say in which four columns the line is. The decoder is the simplest there is: it has a picture for each code, and each
# of its pixels can be learnt freely.

# %%
from torch import nn

columns = torch.arange(16)
lines = -torch.ones(16, 1, 8, 16)  # sixteen frames n c h w, dark
lines[columns, 0, :, columns] = 1  # frame i has a bright line in column i
quarter = columns // 4  # the code of each frame, 0 to 3


def new_decoder():
    """Codes (n,) -> pictures (n 1 8 16); its numbers begin at random, close to grey."""
    torch.manual_seed(0)
    table = nn.Embedding(4, 8 * 16)
    nn.init.normal_(table.weight, std=0.1)
    return nn.Sequential(table, nn.Unflatten(1, (1, 8, 16)))


def adam(network, rate):
    return torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.9))


def edges(pictures):
    """How strong the edges of pictures are; 1 is as strong as those of the frames."""
    size = lambda x: x.clamp(-1, 1).diff(dim=-1).abs().mean()  # from each pixel to the one on its right
    return (size(pictures) / size(lines)).item()


# %%
lab.predict("3.c")

# %%
losses = {"squared error": lambda x, y: (x - y).square().mean(), "L1": lambda x, y: (x - y).abs().mean(),
          "L1 and pyramid": lambda x, y: (x - y).abs().mean() + pyramid_loss(x, y, 2)}
painted = {"frames": lines[1::4]}  # one frame of each code
for name, loss_of in losses.items():
    decoder = new_decoder()
    optimizer = adam(decoder, 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss_of(lines, decoder(quarter)).backward()
        optimizer.step()
    painted[name] = decoder(torch.arange(4)).detach()
    error = (lines - painted[name][quarter]).abs().mean()
    print(f"{name:15} edges {edges(painted[name]):.1f} of the frames', mean error {error:.2f}")


def enlarged(pictures):
    """Pictures (4 1 h w) as four tiles in colour, three times as large."""
    return list(F.interpolate(pictures, scale_factor=3.0).expand(-1, 3, -1, -1))


def titles(rows):
    """The names of rows of four pictures, each above the first one."""
    return [title for name in rows for title in (name, " ", " ", " ")]


lab.sheet(sum(map(enlarged, painted.values()), []), titles(painted), columns=4,
          alt="Four frames with a thin bright line each. Below, what three decoders have for the four codes: grey bands of "
          "four columns for squared error, nothing for L1, and grey bands again for L1 with the pyramid.")

# %% [markdown]
# What to see: squared error smears the line over its four columns. L1 leaves it out, since every column is dark in three
# cases of four. The pyramid brings the grey band back, and not the line. None of the three is in error: each decoder has the
# cheapest picture that its loss knows. A loss that measures the *distance to one picture* cannot ask for "some sharp line,
# I do not mind which". For that we need somebody who looks at the picture alone and says whether it could be real.
#
# That is the **discriminator**, the critic: a small network which gets frames and reconstructions, and is trained to tell them
# apart. (Two networks against each other are a *generative adversarial network*, the GAN in VQGAN.) It gives a picture a grid
# of scores, high ones for what looks like a frame. In the training of section 1 each score sees a window of 38 pixels a side.
# In the papers' frames of 256 pixels that is a patch, so the critic judges texture and edges, and leaves the content to L1. In
# our tiny frames it is nearly everything.
#
# Two losses pull in opposite directions. The critic wants scores above 1 for frames and below -1 for
# reconstructions. What is beyond these marks costs nothing: that is the *hinge*. The decoder wants high scores for
# what it has made.
#
# $$\mathcal{L}_D = \mathrm{E}\left[\max(0, 1 - D(x))\right] + \mathrm{E}\left[\max(0, 1 + D(\hat x))\right] \quad (3.5)
# \qquad\qquad \mathcal{L}_{adv} = -\,\mathrm{E}\left[D(\hat x)\right] \quad (3.6)$$
#
# $x$ is a frame, $\hat x$ its reconstruction, $D$ the critic, and E the mean over pictures and scores.

# %%
print("frames", tuple(frames.shape), "-> scores", tuple(task.discriminator(frames).shape))
score = torch.linspace(-3, 3, 61)
costs = {"critic, for a frame": (score, F.relu(1 - score)), "critic, for a reconstruction": (score, F.relu(1 + score)),
         "decoder": (score, -score)}
lab.curves(costs, "score", "loss", alt="The loss for frames falls to zero at score 1, that for reconstructions rises "
           "from zero at score -1, the decoder's falls all the way.")

# %% [markdown]
# What to see: beyond its mark each of the critic's lines is flat, and what it is sure of teaches it nothing
# more. A critic that cannot tell anything apart gives 0 to everything and pays 2. Keep the number 2 in mind for
# the curve *hinge*.
#
# ### Exercise 3.3 · adversarial_step
#
# Difficulty 4/5 · importance 5/5 · 20 minutes
#
# Write one training step of both networks, `adversarial_step(decoder, critic, optimizers, codes, frames, weight)`:
#
# | given | what it is |
# | --- | --- |
# | `decoder` | `decoder(codes)` gives pictures (n, c, h, w) |
# | `critic` | `critic(pictures)` gives scores (n, 1, h', w') |
# | `optimizers` | two of them, the decoder's and the critic's |
# | `codes`, `frames` | (n,) and (n, c, h, w): the frames that the decoder should return for the codes |
# | `weight` | how much the adversarial term counts |
#
# First the decoder moves. Its loss is the L1 distance from the frames (a mean over all numbers) plus `weight` times (3.6).
# Then the critic moves, by (3.5). It is shown the reconstructions that the decoder was judged by, those from before the
# decoder's move. Each network learns from its own loss only, and its gradient begins at zero in each step. With a weight of
# 0 the critic learns all the same. Return the decoder's loss and the critic's, as two floats.
#
# Most mistakes raise no error here: both networks still move, and only later somebody wonders why the pictures stay bad. So
# the check looks at the weights of both networks after every step.
#
# <details><summary>Hint 1</summary>A turn has the lines that you know: a loss, <code>zero_grad()</code>,
# <code>backward()</code>, <code>step()</code>. You need two turns, and the pictures <code>made = decoder(codes)</code> in both
# of them. In the critic's turn no gradient may run back into the decoder.</details>
# <details><summary>Hint 2</summary>The decoder's loss runs through the critic, so its <code>backward()</code> leaves a
# gradient in the critic's weights as well. Clear it after the decoder's turn, and before the critic's own
# <code>backward()</code>. The hinge is <code>F.relu</code> of one minus, or one plus, a score.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# of_decoder, of_critic = optimizers
# made = decoder(codes)
# loss = (frames - made).abs().mean() - weight * critic(made).mean()
# of_decoder.zero_grad()
# loss.backward()
# of_decoder.step()
# hinge = F.relu(1 - critic(frames)).mean() + F.relu(1 + critic(made.detach())).mean()
# of_critic.zero_grad()
# hinge.backward()
# of_critic.step()
# return loss.item(), hinge.item()
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def adversarial_step(decoder, critic, optimizers, codes, frames, weight):
    """One step of both networks: codes (n,), frames (n c h w) -> the decoder's loss and the critic's, floats."""
    ### BEGIN SOLUTION
    of_decoder, of_critic = optimizers
    made = decoder(codes)
    loss = (frames - made).abs().mean() - weight * critic(made).mean()
    of_decoder.zero_grad()
    loss.backward()
    of_decoder.step()
    hinge = F.relu(1 - critic(frames)).mean() + F.relu(1 + critic(made.detach())).mean()
    of_critic.zero_grad()  # of what the decoder's turn has left there
    hinge.backward()
    of_critic.step()
    return loss.item(), hinge.item()
    ### END SOLUTION


# %%
lab.check("3.3", adversarial_step)

# %% [markdown]
# Now let it work on the sixteen lines. The critic has three convolutions, and each of its scores sees a window of 5 x 9
# pixels. It knows nothing of codes. This training takes a few seconds; the text below it was made with the library's
# step.

# %% tags=["nbval-ignore-output"]
# not compared: two networks that chase each other end at slightly other numbers on another machine
step = lab.yours("3.3")
decoder = new_decoder()
critic = nn.Sequential(nn.Conv2d(1, 16, (3, 5)), nn.LeakyReLU(0.2), nn.Conv2d(16, 16, (3, 5)), nn.LeakyReLU(0.2),
                       nn.Conv2d(16, 1, 1))
optimizers, shown = (adam(decoder, 0.02), adam(critic, 0.002)), {"frames": lines[1::4]}
for i in range(1, 601):
    loss, hinge = step(decoder, critic, optimizers, quarter, lines, weight=0.5)
    if i in (50, 150, 600):
        shown[f"step {i}"] = decoder(torch.arange(4)).detach()
        print(f"step {i:3}: hinge {hinge:.1f}, edges {edges(shown[f'step {i}']):.1f} of the frames', mean error "
              f"{(lines - shown[f'step {i}'][quarter]).abs().mean():.2f}")
shown["the last less the frame"] = (shown["step 600"] - lines[1::4]) / 2
lab.sheet(sum(map(enlarged, shown.values()), []), titles(shown), columns=4,
          alt="Four frames with a line each, and the decoder's pictures after 50, 150 and 600 steps with a critic: spots "
          "become lines. In the end each picture has one sharp line, mostly in another column than the frame. The last "
          "row, the difference, has a pale line and a dark one beside it.")

# %% [markdown]
# What to see: with the critic each code gets *one* sharp line, in one of its four columns. L1 keeps it in the right quarter,
# since a line anywhere else is dearer; the critic makes it sharp. Chance decided at the beginning which of the four columns it
# is, and may decide otherwise on your machine. The edges are about as strong as those of the frames, where L1 alone had none.
#
# And look at the last row, grey where the picture is right. In most cases the line is in the wrong column and is paid twice,
# once where it is and once where it is missing. So the mean error is *larger* than with L1 alone (0.13). A critic does not
# know more than the decoder. It makes the decoder choose, and a choice under doubt is mostly wrong. Whoever measures PSNR will
# say that the critic did harm; whoever looks at hair and grass in photographs would rather have sharp hair in a slightly wrong
# place than a smear.
#
# *What if?* Set the weight to 0.05 in the cell above. Then the decoder prefers what L1 wants, and there is hardly a line.
# The weight decides who wins. The first VQGAN sets it in each step, by the ratio of two gradients.
#
# Now the library's version. There, one optimiser trains both networks on one sum, in a single turn. That works because each
# term reaches only one of them. Look for what is detached:

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
# 44](https://github.com/CompVis/taming-transformers/issues/44)). Let us look. Three trainings of the whole autoencoder are
# alike in all but the critic: it starts at 70 % of the steps, at once, or never. (In all recordings its weight is ten times
# the library's default, so that 1,500 steps are enough to see its effect.)

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
# *hinge*: for `late` it stays close to 2, so the critic can hardly tell reconstructions from frames.
#
# `early` never gets anywhere. Play it: the frames turn green, black, green, red. It looks like a chase. About the
# output of an untrained network the critic can say something quite simple, "this colour is a fake". The decoder changes
# the colour, and the critic follows. Neither has to attend to the frame.
#
# Curves are means over many frames. Where in the frame are the errors? Below are the last reconstructions less their frames:
# grey is right, brighter is too bright, darker is too dark.

# %%
def errors(run):
    """Reconstructions less frames at the end of a recording, twice as strong: (k H W 3) in [-1, 1], 0 is grey."""
    return (2 * (run.pictures[-1].astype(float) - run.frames) / 255).clip(-1, 1)


rows = {"frame": late.frames / 127.5 - 1, **{f"{run.name}: error": errors(run) for run in (never, late, early)}}
for run in (never, late, early):
    size = abs(run.pictures[-1].astype(float) - run.frames).mean(axis=(1, 2, 3))
    print(f"{run.name:6} mean error of the four frames, of 255 grey levels:", ", ".join(f"{one:.1f}" for one in size))
lab.sheet([picture for row in rows.values() for picture in row], titles(rows), columns=4,
          alt="Four frames with things; below, the errors of three trainings. Without a critic and with a late one the ground "
          "is grey and the things show as coloured outlines, the cross also inside; with an early one all is wrong.")

# %% [markdown]
# What to see: the rows of `never` and `late` are much alike. The ground is right, the outlines of things are wrong, and
# the cross and the ring have not quite the right colour. The late critic has not made these errors smaller; the numbers say
# that they are even a little larger. That is what the sixteen lines have told us to expect. It also says something about our
# world: a flat shape on a plain ground leaves little doubt, so a critic finds hardly anything to decide, and our world hardly
# needs it. In photographs doubt is everywhere. In the row of `early` all is wrong, the ground as well.
#
# Why could the critic of section 4 begin at the first step? One difference is plain: that decoder had nothing else to learn.
# Here everything is wrong at first, and the decoder gains most by mending whatever gives it away to the critic. A critic can
# teach edges only when edges are all that is wrong.
#
# ### Exercise 3.4 · warm_up
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
lab.check("3.4", warm_up)

# %% [markdown]
# *What if?* The ramp is for the decoder's term only. The critic learns at full rate from `start` on, as yours did with a
# weight of 0. So it has learnt something before it counts for much. What would the decoder learn from a critic who knows
# nothing yet? (To follow its random taste.)
#
# ## 6 · Train it
#
# Now all of it together: encoder, codebook, decoder, and all the losses of the drawing. A training step by hand is in the
# next cell. The loop of the lab, below it, adds a learning rate that rises and falls, and a limit for the length of the
# gradient.

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
print(f"L1 of the last five steps: {sum(live[-5:]) / sum(live[:5]):.1f} times that of the first five")
recorded = late.curves["l1"][1][: STEPS // 5]  # a point for every five steps
own = torch.tensor(live).view(-1, 5).mean(dim=1)
near = ((own - torch.from_numpy(recorded)).abs() < 0.1 * own).sum()
print(f"points that are within 10 % of the recording: {near} of {len(own)}")

# %%
with torch.no_grad():
    given_back = task.autoencoder.decode(task.autoencoder.encode(frames))
lab.sheet([*frames[[13, 3, 2, 5]], *given_back[[13, 3, 2, 5]]], columns=4,
          alt="Four frames with things above; below, what the network gives back after 60 steps: dark frames with "
          "hardly anything in them.")

# %% [markdown]
# What to see: your sixty steps lie on the recorded line, and end where the recording was at that step, with empty
# frames. Nothing is wrong: the network does not know yet where things are, and L1 pays it for painting none. If you have
# some minutes, go all the way:

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
# about the same size. Nobody has told the encoder so. The recording kept the standard deviation of its latents:

# %%
std = late.curves["unseen: std of latents"][1]
print(f"standard deviation: {std[0]:.2f} at first, {std[-1]:.2f} at the end -> scale factor {1 / std[-1]:.1f}")
factor = task.normalise()
own = task.autoencoder.encode(frames).std().item()
print(f"standard deviation of latents after your sixty steps, times their own factor: {factor * own:.1f}")

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
lab.predict("3.d")

# %%
collapsed = TrainingRun.load("nano-vqgan-collapsed")
for step in (900, 1500):
    for run in (late, collapsed):
        at = list(run.steps).index(step)
        psnr, codes, effect = (run.curves[f"unseen: {name}"][1][at] for name in ("psnr", "codes in use", "perplexity"))
        print(f"step {step:4}, {run.name:9}: {psnr:.1f} dB, {codes:.0f} codes in use, perplexity {effect:.0f}")
lab.RunReplay([late, collapsed], name="replay-collapsed", curve="unseen: codes in use")

# %%
rows = {"frame": late.frames / 127.5 - 1, "late: error": errors(late), "collapsed: error": errors(collapsed)}
lab.sheet([picture for row in rows.values() for picture in row], titles(rows), columns=4,
          alt="Four frames with things, and the errors of the healthy and of the collapsed training at the end: coloured "
          "outlines in both, and in the collapsed one the triangle is wrong inside as well.")

# %% [markdown]
# What to see: for nine hundred steps the collapsed network is level with the healthy one, even a little ahead. Then it falls
# behind and ends three decibels lower. It has 21 codes at the end, and in effect nine: three bits in each cell ($2^3 = 8$),
# where the healthy one has nearly six. On these four frames its errors are about as large as those of the healthy one; only
# the triangle is wrong inside as well. The three decibels are those of all 64 unseen frames. Nothing crashed, and the curve of
# L1 fell as it should. Whoever logs only losses sees a training that works, with a somewhat poor result.
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
# What to see: a few lines lead into the cloud, and all other codes are still at the origin. Why have they not moved in 600
# steps? Follow one code through `broken_update` that no vector takes in the first step, before you read on.
#
# ### Exercise 3.B · update
#
# Difficulty 4/5 · importance 5/5 · 12 minutes
#
# Mend `update`, which is `broken_update` under another name. `usage` (k,) is the running share of every code, `sums` (k, c)
# the running sum of its vectors, and a code is their quotient. A code is *dead* if its running usage, after this
# batch, is below 0.01 / k, a hundredth of a fair share. Every dead code begins again on a vector of the batch, drawn at random,
# with the usage 1 / k. All other codes go on as before, also those that only this batch has missed. Draw random numbers from
# `generator`, and leave what is given as it is: return new tensors. The check begins in the tiny cube, and later moves all
# vectors somewhere else, as a learning encoder does.
#
# <details><summary>Hint 1</summary><code>dead = usage * k &lt; 0.01</code> is a mask, and <code>usage[dead] = …</code> sets
# the dead codes alone. <code>usage</code> is a new tensor by then, so this changes nothing that was given.</details>
# <details><summary>Hint 2</summary>Vectors for n dead codes:
# <code>vectors[torch.randint(len(vectors), (n,), generator=generator)]</code>. A code is the quotient of its sum and its
# usage, so both must be set: which sum gives the vector, if the usage is 1 / k?</details>
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
    # ## your code here
    ### END STUDENT
    return sums / usage[:, None], usage, sums


# %%
lab.check("3.B", update)

# %% [markdown]
# The next cell uses your `update` once it passes, and the library's until then. The source above the picture is that of the
# library.

# %%
from minit2v.networks.bottleneck import Codebook

lab.show_source(Codebook.update)
ways = learn(lab.yours("3.B"))
taken = torch.cdist(data, ways[-1]).argmin(dim=1).unique()
print(f"codes that are taken after 600 steps, rounded down to tens: {len(taken) // 10 * 10} of {ways.shape[1]}")
lab.points({"two of four numbers": data[::4, :2]}, apart=True, paths={"two of four numbers": ways[-1:, :, :2]},
           alt="The same cloud of vectors; now codes lie all over it.")

# %% [markdown]
# Seen from the vectors, the codes in the tiny cube are all at the same place. Those that stand out a little in the right
# direction are chosen, move into the cloud, and from then on are the nearest for everything around them. The others are never
# chosen. A code that is not chosen does not move, and because it does not move it will not be chosen.
#
# The library does what you did, with two refinements. A dead code is put on a vector that is *badly served* by the
# present codes, with a probability in proportion to its squared error. And the random choice is seeded by the number of
# updates, so that a resumed training repeats it. `usage` begins at zero, so the first batch replaces all codes. Where a
# codebook begins hardly matters when the dead are brought back.
#
# ## Takeaways
#
# 1. Under doubt, a loss that measures the distance to one picture asks for blur, or for nothing at all. A pyramid makes
#    lost edges dearer. A critic makes the decoder choose one sharp answer, at the price of a larger error, and it has to wait
#    until edges are all that is wrong. Where there is no doubt, it has nothing to give.
# 2. A codebook learns without a gradient: vectors commit to codes, codes follow their vectors by a running mean, and
#    the dead are restarted.
# 3. A good reconstruction proves nothing about the codebook. Log usage and perplexity from the first step.
#
# ## Quiz

# %%
lab.quiz(3)

# %% [markdown]
# ## Equations, code and tests
#
# Each equation, the paper it comes from, the line of the library that computes it, and the test, in the repository, that
# would fail if that line were wrong.

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
