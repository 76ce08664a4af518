# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · Training text-to-video on a CPU
#
# **The model is built and the samplers run. Now it learns: you derive its loss, write its training step, and find out
# what the first minutes of training buy.**
#
# **You will**
# - follow the loss from "make the data likely" down to a plain squared error, and check each step with numbers
# - write the training step, and train a network until it is as good as an oracle that knows everything
# - average weights, drop captions, and see what both are for
# - make a text-to-video model learn one clip by heart, then start to train it on all of them, live
# - read in a recorded training which words a model hears first, and what still pictures add to videos
# - kill a training and resume it, equal to the last bit
#
# **You need** [05](05_destroying_a_video.ipynb) for noise and the three predictions, [06](06_un_destroying_it.ipynb)
# for the ring and its oracle, [08](08_teaching_it_time.ipynb) for the network.
#
# **Time** reading 25 minutes · running 1 to 4 minutes (fast mode 15 to 60 seconds) · exercises 46 minutes

# %%
from minit2v import lab

ctx = lab.setup(9)

# %% [markdown]
# ## 1 · What should be made small?
#
# (This section is the hardest of the notebook. You may go straight to the sentence in bold after (9.1); nothing later
# needs the way to it.)
#
# We want a model under which the clips of the world are likely. "Likely" has a number: the probability $p(x_0)$ that
# the model gives to a clip $x_0$. So the loss should be $-\log p(x_0)$.
#
# That number cannot be computed. The model makes a clip in a thousand steps, $x_T \to \dots \to x_1 \to x_0$, and
# $p(x_0)$ is an integral over all ways that end in $x_0$. But we know ways that do: add noise to $x_0$ yourself, and
# read the way backwards. Jensen's inequality says that the ways that *we* draw, from $q$, give an upper bound:
#
# $$-\log p(x_0) \;\le\; \mathbb E_q\left[-\log \frac{p(x_0, x_1, \dots, x_T)}{q(x_1, \dots, x_T \mid x_0)}\right].$$
#
# Both are products over the steps, so the logarithm is a sum. Sort it by steps. Each term compares two bells for the
# same thing, $x_{t-1}$. One is the posterior of notebook 06, (6.1) and (6.2), which is told the true $x_0$. The other
# is the step that the model takes, and that is the same formula with the network's guess $\hat x_0$ in it. (Two terms
# are left over. In the noisiest there is nothing to learn, and the cleanest is about the last grain of noise.) The
# comparison is the **Kullback–Leibler divergence**, KL, which says how far one bell is from another:
#
# $$\mathrm{KL}\big(\,q(x_{t-1} \mid x_t, x_0)\;\|\;q(x_{t-1} \mid x_t, \hat x_0)\,\big).$$
#
# Both bells have the same width $\sigma$, and so their divergence is the squared distance of their middles over
# $2\sigma^2$. Do you believe that? Here it is for one step, by brute force on a grid.

# %%
import math

import torch

a_before, a, x, x0, guess = 0.55, 0.35, 0.9, -0.6, 0.2  # alpha_bar before and after the noise of one step
beta = 1 - a / a_before
sigma = (beta * (1 - a_before) / (1 - a)) ** 0.5  # (6.2)
middle = lambda z: (a_before**0.5 * beta * z + (1 - beta) ** 0.5 * (1 - a_before) * x) / (1 - a)  # (6.1)

grid = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
q, p = (torch.softmax(-((grid - middle(z)) ** 2) / (2 * sigma**2), 0) for z in (x0, guess))
keep = q > 1e-300  # far away a bell is zero in floating point
print(f"divergence on the grid:             {(q * (q / p).log())[keep].sum():.4f}")
print(f"distance of the middles, over width: {(middle(x0) - middle(guess)) ** 2 / (2 * sigma**2):.4f}")

# %% [markdown]
# The two middles differ only in the part that $x_0$ has in them, so their distance is $(x_0 - \hat x_0)$ times a
# factor. Square the factor and divide by $2\sigma^2$, and nearly everything cancels. What is left is a difference of
# signal-to-noise ratios, $\mathrm{SNR}_t = \bar\alpha_t / (1 - \bar\alpha_t)$:
#
# $$\mathrm{KL}_t = w_t\,(x_0 - \hat x_0)^2, \qquad w_t = \tfrac12\big(\mathrm{SNR}_{t-1} - \mathrm{SNR}_t\big) \qquad (9.1)$$

# %%
snr = lambda a: a / (1 - a)
weight = (snr(a_before) - snr(a)) / 2
print(f"half of what the SNR gains, times the squared error of x0: {weight * (x0 - guess) ** 2:.4f}")

# %% [markdown]
# Read it like this: **training is predicting $x_0$, at every noise level, with a squared error; a step counts by how
# much it makes the clip clearer.** No probability is left in it.
#
# DDPM (2020) took one more liberty. It let the network predict the noise, gave every timestep the same weight, and
# found that samples look *better* so. This is the **simple loss**, $(\varepsilon - \hat\varepsilon)^2$, which is (5.9).
# Is it another loss? Since $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon$, an error in the noise
# is an error in the clip, seen through a factor:
#
# $$(\varepsilon - \hat\varepsilon)^2 = \mathrm{SNR}_t\,(x_0 - \hat x_0)^2, \qquad (v - \hat v)^2 = (\mathrm{SNR}_t + 1)\,(x_0 - \hat x_0)^2 .$$
#
# So it is the same loss with other weights. Here they are, for the cosine schedule.

# %%
from minit2v.diffusion.process import Diffusion, bound_weights
from minit2v.presets import DiffusionConfig

worlds = {name: Diffusion(DiffusionConfig(schedule="cosine", prediction=name, spacing="trailing"))
          for name in ("eps", "x0", "v")}
alpha_bar = worlds["v"].alpha_bar
t = torch.arange(20, 980)
ratio = snr(alpha_bar)[t]
weights = {"the bound, times T": bound_weights(alpha_bar)[t] * 1000, "eps": ratio, "x0": ratio**0, "v": ratio + 1}
lab.curves({name: (t, w) for name, w in weights.items()}, "t", "weight of the squared error of x0", logy=True,
           alt="Four curves of weights over t. The bound, eps and v start high and fall. v levels off at 1, where x0 "
           "is; eps and the bound go on falling towards zero.")

# %% [markdown]
# What to see: on the left, where there is little noise, eps and v ask for great precision, and the bound for still
# more. That is where grain and edges are decided. On the right there is hardly any signal. The bound and eps ask for
# nothing there; v asks for as much as x0 does. But on the right it is decided *what* the clip shows and which way it
# goes. `mini` predicts $v$, the released model predicts $\varepsilon$.
#
# ## 2 · A training step, where the right answer is known
#
# Before a network is trained on clips, train one where you can tell whether it worked. Notebook 06 had such a world:
# points on a ring, and an oracle that answers as well as anybody can. Any loss that we reach can be compared with the
# oracle's.

# %%
angles = torch.arange(6) * 2 * math.pi / 6
CENTRES, SPREAD = 1.35 * torch.stack([angles.cos(), angles.sin()], dim=1), 0.25


def draw(n, generator):
    """n points of the world (n, 2)."""
    return CENTRES[torch.randint(6, (n,), generator=generator)] + SPREAD * torch.randn(n, 2, generator=generator)


def oracle(x, t, diffusion):
    """What a perfect network answers at x (n, 2) and t (n,), in the terms of `diffusion`."""
    a = diffusion.alpha_bar[t].float()[:, None]
    variance = a * SPREAD**2 + 1 - a
    distance = (x[:, None] - a[:, None] ** 0.5 * CENTRES).square().sum(-1)
    middle = torch.softmax(-distance / (2 * variance), dim=1) @ CENTRES
    x0 = middle + a**0.5 * SPREAD**2 / variance * (x - a**0.5 * middle)
    return diffusion.target(x0, (x - a**0.5 * x0) / (1 - a) ** 0.5, t)  # eps belongs to x0, so the target does too


# %%
lab.predict("9.a")

# %%
from minit2v.diffusion.process import split

points = draw(40_000, ctx.generator(99))
when = torch.randint(1000, (len(points),), generator=ctx.generator(98))
noise = torch.randn(points.shape, generator=ctx.generator(97))
noisy = worlds["v"].add_noise(points, noise, when)
best = {name: world.loss(oracle(noisy, when, world), points, noise, when).item() for name, world in worlds.items()}
print("the loss of the oracle:", {name: round(loss, 2) for name, loss in best.items()})

# %% [markdown]
# Not zero. A noisy point could have come from many places, and nobody can know from which. This floor is in *every*
# loss of a diffusion model. A loss that "stands still at 0.4" may belong to a perfect model, or to one that has learnt
# nothing of what you care about. Keep that in mind for clips, where we have no oracle.
#
# ### Exercise 9.1 · train_step
#
# Difficulty 3/5 · importance 5/5 · 20 minutes
#
# Write one step of training. The same function will train the small network here and the video model below, so it must
# work for any shape.
#
# | argument | what it is |
# | --- | --- |
# | `network` | called as `network(x, t, told)`: noisy data, timesteps (b,), and what it is told of them |
# | `optimizer` | of the network's weights |
# | `diffusion` | a `Diffusion`: `alpha_bar` (T,), `add_noise(x0, noise, t)`, `loss(output, x0, noise, t)` |
# | `x0` | a batch (b, …) of any shape and dtype |
# | `told` | captions, or None; handed on |
# | `generator` | all that is random: first `t`, 0 to T - 1, one for each item; then normal noise, shape and dtype of `x0` |
#
# Return the loss of this batch as a number.
#
# <details><summary>Hint 1</summary>Six things, in this order: draw t, draw noise, make the noisy batch, ask the network,
# compute the loss, let the optimizer do its three calls.</details>
# <details><summary>Hint 2</summary><code>t = torch.randint(len(diffusion.alpha_bar), (len(x0),), generator=generator)</code>,
# then noise by <code>torch.randn</code> with the shape and the dtype of <code>x0</code>. The three calls are
# <code>optimizer.zero_grad()</code>, <code>loss.backward()</code> and <code>optimizer.step()</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# t = torch.randint(len(diffusion.alpha_bar), (len(x0),), generator=generator)
# noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
# output = network(diffusion.add_noise(x0, noise, t), t, told)
# loss = diffusion.loss(output, x0, noise, t)
# optimizer.zero_grad()
# loss.backward()
# optimizer.step()
# return loss.item()
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def train_step(network, optimizer, diffusion, x0, told, generator):
    """One step on a batch x0 (b, …) and what is told of it; returns the loss, a number."""
    ### BEGIN SOLUTION
    t = torch.randint(len(diffusion.alpha_bar), (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    output = network(diffusion.add_noise(x0, noise, t), t, told)
    loss = diffusion.loss(output, x0, noise, t)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %%
lab.check("9.1", train_step)

# %% [markdown]
# *What if?* Draw one timestep for the whole batch. On average over many steps nothing changes, but each step would
# learn about one noise level only and disturb what is known about the others.
#
# Now a network, a small one: three layers that see the point, and sines of the timestep. The learning rate falls along
# half a cosine, as in the library.

# %%
from torch import nn


class Small(nn.Module):
    """x (b, 2), t (b,) -> (b, 2)."""

    def __init__(self, width=64):
        super().__init__()
        sizes = [10, width, width, width]
        layers = [layer for pair in zip(sizes, sizes[1:]) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x, t, told=None):
        angle = t[:, None] / 1000 * math.pi / 2 * 2.0 ** torch.arange(4)
        return self.layers(torch.cat([x, angle.sin(), angle.cos()], dim=1))


step = lab.yours("9.1")


def train_small(diffusion, steps, seed=0, rate=5e-3):
    """A network trained on the ring."""
    torch.manual_seed(seed)
    network, generator = Small(), ctx.generator(seed)
    optimizer = torch.optim.Adam(network.parameters())
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * i / steps)) / 2
        step(network, optimizer, diffusion, draw(256, generator), None, generator)
    return network


# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of steps depends on the mode
STEPS = ctx.pick(fast=30, default=1200)
small = {name: train_small(world, STEPS) for name, world in worlds.items()}
with torch.no_grad():
    said = {name: network(noisy, when) for name, network in small.items()}
    for name, world in worlds.items():
        loss = world.loss(said[name], points, noise, when).item()
        print(f"{name:3} loss {loss:.3f}, of the oracle {best[name]:.3f}: {100 * (loss / best[name] - 1):.1f} % above")

# %% [markdown]
# In default mode all three end within 5 % of the oracle, after 1,200 steps and some seconds. A network that has never
# been told of blobs or of Bayes answers as Bayes would. So the step is right, and so is the loss.
#
# The three differ in what they spend their precision on. To compare them, turn every answer into an $\hat x_0$ and see
# how far it is from the oracle's, which all three should give.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of steps depends on the mode
def as_x0(output, name):
    signal = alpha_bar[when].float()[:, None]
    return split(name, output, noisy, signal**0.5, (1 - signal) ** 0.5)[0]


truth = as_x0(oracle(noisy, when, worlds["x0"]), "x0")
bins = [(low, low + 125) for low in range(0, 1000, 125)]
beside = {}
for name in worlds:
    error = (as_x0(said[name], name) - truth).square().mean(1)
    beside[name] = [error[(when >= low) & (when < high)].mean().sqrt() for low, high in bins]
lab.curves({name: ([sum(one) / 2 for one in bins], values) for name, values in beside.items()}, "t",
           "distance of x0 from the oracle's", logy=True,
           alt="The distance of three trained networks from the oracle's x0, over t, on a logarithmic axis.")

# %% [markdown]
# What to see: on the right the network that predicts eps is far off, because its small errors are divided by a tiny
# $\sqrt{\bar\alpha}$. On the left the one that predicts x0 is the worst. v does well on both sides, which is why it was
# made. The picture of the weights said so in advance.
#
# And does it sample? Nothing but the trained network and the sampler of notebook 06:

# %%
from minit2v.diffusion.samplers import SAMPLERS


def ring_of(network, n=1500, steps=30):
    """Points that a network which predicts v makes by DDIM: (n, 2)."""
    start = torch.randn(n, 2, generator=ctx.generator(5))
    with torch.no_grad():
        *_, last = SAMPLERS["ddim"](lambda x, t: network(x, torch.full((n,), int(t))), start, worlds["v"], steps)
    return last.x0


untrained = train_small(worlds["v"], 0)
lab.points({"true points": points[:1500], "untrained": ring_of(untrained), "trained": ring_of(small["v"])}, apart=True,
           alt="Three clouds: the true six blobs on a ring, what the untrained network makes, and what the trained one "
           "makes.")

# %% [markdown]
# What to see: it is a ring, with more points on the six places than between them. Nobody had told the network of
# either. But it is not yet as clean as the truth, although its loss is only a percent or two above the best possible
# one. *The last percents of a loss are what you see.*
#
# ## 3 · An average of weights
#
# Training is noisy: each step follows the few items of one batch, and the weights jitter. At the end of a run the
# learning rate falls and they settle. In the middle of it they do not. The cure is short: keep a second set of weights
# that follows the first slowly, the **exponential moving average** (EMA),
#
# $$\bar\theta_{n+1} = d_n\,\bar\theta_n + (1 - d_n)\,\theta_{n+1}, \qquad d_n = \min\!\Big(d,\; \frac{1 + n}{10 + n}\Big) \qquad (9.2)$$
#
# and sample from $\bar\theta$. With $d = 0.99$ it is roughly an average over the last hundred steps.
#
# ### Exercise 9.2 · ema_step
#
# Difficulty 2/5 · importance 4/5 · 10 minutes
#
# Move the average by one step, in place. `average` and `network` are two modules of the same kind, `decay` is a number,
# $d_n$. Parameters are averaged. Buffers (counts, statistics) are copied. The network stays as it is, no graph is
# built, and the average keeps its own memory. Return nothing.
#
# <details><summary>Hint 1</summary>Everything under <code>torch.no_grad()</code>. <code>zip(average.parameters(),
# network.parameters())</code> gives the pairs.</details>
# <details><summary>Hint 2</summary>A tensor is changed in place by <code>mul_</code> and <code>add_</code>, or by
# <code>lerp_(end, weight)</code>, which moves it towards <code>end</code> by that share. Buffers:
# <code>copy_</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# with torch.no_grad():
#     for mean, now in zip(average.parameters(), network.parameters()):
#         mean.lerp_(now, 1 - decay)
#     for mean, now in zip(average.buffers(), network.buffers()):
#         mean.copy_(now)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def ema_step(average, network, decay):
    """Move the weights of `average` towards the network's, in place: decay of the old, 1 - decay of the new."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        for mean, now in zip(average.parameters(), network.parameters()):
            mean.lerp_(now, 1 - decay)
        for mean, now in zip(average.buffers(), network.buffers()):
            mean.copy_(now)
    ### END SOLUTION


# %%
lab.check("9.2", ema_step)

# %% [markdown]
# *What if?* Average the buffers too. For the running means of a batch norm that would do little harm. For a counter of
# steps, a whole number, it is nonsense.
#
# What does it buy? We go on with the trained network at a *constant* rate, as in the middle of a long run. Every few
# steps we measure both sets of weights on the same points.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of steps depends on the mode
import copy

network, generator = copy.deepcopy(small["v"]), ctx.generator(1)
average, world = copy.deepcopy(network), worlds["v"]
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
follow = lab.yours("9.2")
measured, few = [], slice(0, 4000)
for i in range(ctx.pick(fast=12, default=240)):
    step(network, optimizer, world, draw(256, generator), None, generator)
    follow(average, network, min(0.98, (1 + i) / (10 + i)))
    if i % 4 == 3:
        with torch.no_grad():
            said_now = [one(noisy[few], when[few]) for one in (network, average)]
        losses = [world.loss(output, points[few], noise[few], when[few]).item() for output in said_now]
        measured.append((i + 1, *losses))
at, raw, smooth = zip(*measured)
half = len(raw) // 2
print(f"the jitter of the loss, its standard deviation: {torch.tensor(raw[half:]).std():.4f} of the weights, "
      f"{torch.tensor(smooth[half:]).std():.4f} of their average")
lab.curves({"the weights of each step": (at, raw), "their average": (at, smooth)}, "step", "loss on the same points",
           alt="Two losses over steps: that of the weights jumps up and down, that of their average is smooth and lower.")

# %% [markdown]
# What to see: both lines belong to the same training. One jumps with every batch. The other does not, and it lies
# lower: where weights jitter around a good place, their mean is nearer to it than they are. That is why models are
# sampled from the average.
#
# ## 4 · From points to clips: learn one by heart
#
# Your step knows nothing of points. Give it latent clips, captions and a UNet, and it trains a text-to-video model. The
# UNet is that of `nano`, the smallest preset. The latents and the features of the captions come from `mini`, whose
# autoencoder and text tower are trained already and stay as they are: the paper does the same.

# %%
from dataclasses import replace

import minit2v
from minit2v.datasets.moving_things import MovingThings
from minit2v.networks.unet import UNet
from minit2v.presets import get
from minit2v.systems.modelscope import ModelScopeT2V

pipe = minit2v.load("mini", device="cpu")  # here everything is trained on the CPU, in every mode
clips = MovingThings("train").batch(range(ctx.pick(fast=6, default=48, full=2048)))
latents = pipe.encode(clips.frames).clone()  # inference mode made them, and they are to be trained on: a copy
told = pipe.text.encode(list(clips.captions)).clone()
nothing = pipe.text.encode([""])[0].clone()


def new_unet(seed=0):
    """An untrained UNet of nano's size for mini's captions."""
    torch.manual_seed(seed)
    config = replace(get("nano").unet, context_dim=told.shape[-1])
    return UNet(config).to(memory_format=torch.channels_last)


print("latents", tuple(latents.shape[1:]), "· captions", tuple(told.shape[1:]), "· empty prompt", tuple(nothing.shape))
print("parameters to be trained:", f"{sum(p.numel() for p in new_unet().parameters()):,}")

# %% [markdown]
# Before a model is trained on a million clips, it should learn **one**. If it cannot repeat a single clip, there is a
# bug, and you find out in half a minute instead of tomorrow. No oracle is needed either. If there is only one clip in
# the world, every noisy clip comes from it, and the loss of a perfect model is exactly zero.
#
# We take four frames of the first clip, four copies in a batch, each with its own noise and timestep.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the bar shows seconds, and the number of steps depends on the mode
one = latents[:1, :, ::5].expand(4, -1, -1, -1, -1).contiguous()  # frames 0, 5, 10 and 15
unet, generator = new_unet(), ctx.generator()
optimizer = torch.optim.Adam(unet.parameters(), betas=(0.9, 0.99))
steps, losses = ctx.pick(fast=2, default=100), []
bar = lab.Live(steps)
for i in range(steps):
    optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (i + 1) / 10) * (1 - i / steps)
    losses.append(step(unet, optimizer, pipe.diffusion, one, told[:1].expand(4, -1, -1), generator))
    bar(f"loss {losses[-1]:.2f}")

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the number of steps depends on the mode
each = max(1, len(losses) // 12)
means = [sum(losses[i : i + each]) / each for i in range(0, len(losses) - each + 1, each)]
lab.curves({"mean of some steps": (range(each, each * len(means) + 1, each), means)}, "step", "loss",
           alt="The loss over the steps of training on one clip: it falls from above 1 to about 0.2, with small rises.")

# %%
own = ModelScopeT2V(pipe.preset, pipe.text, unet.eval(), pipe.autoencoder)
repeated = own(clips.captions[0], frames=4, seed=3, guidance=1)
print("caption:", clips.captions[0])
lab.strip({"the clip": clips.frames[0, ::5], "from noise, after training": repeated}, n=4,
          alt="Four frames of the clip of the data set, and four frames that the trained network makes of noise.")

# %% [markdown]
# What to see: the second row was made from a noise that the network has never met. In default mode the thing is there,
# in its colour, and in every frame at its place. Its arms are still crooked, and there are faint crumbs around it. So
# the pieces fit together: data, autoencoder, captions, UNet, loss, step and sampler. What is missing from here on is
# training.
#
# ## 5 · Sometimes without a caption
#
# Guidance (6.6) asks the network twice, with the prompt and with the empty prompt. So it must know what to do without a
# caption, and it learns that like everything else, by examples: in a share $p$ of all cases the caption is replaced,
#
# $$\text{caption}_i \leftarrow \text{“”} \quad\text{where}\quad u_i < p, \quad u_i \text{ uniform in } [0, 1) \qquad (9.3)$$
#
# with $p = 0.1$ in the released training. Two things go wrong here in practice. Some people draw *once for the batch*,
# and then whole batches have no caption. And some put **zeros** where the caption was. But when it samples, the network
# is not shown zeros. It is shown what the text tower says of the empty prompt.

# %%
print("the empty prompt: mean size of its numbers", f"{nothing.abs().mean():.1f}", "· of a caption's",
      f"{told.abs().mean():.1f}", "· of zeros 0.0")
print("its tokens differ from one another:", f"{nothing.std(0).mean():.1f}")

# %% [markdown]
# ### Exercise 9.3 · drop_captions
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# `told` is (b, n, d), `nothing` (n, d), the tokens of the empty prompt. Return (b, n, d), in which a `share` of the
# captions are replaced, each as a whole. Draw b uniform numbers from `generator` by `torch.rand`; a caption is dropped
# where its number is below `share`. Leave the inputs as they are.
#
# <details><summary>Hint 1</summary>One number for each item: <code>torch.rand(len(told), generator=generator)</code>.
# Compare, and you have b truth values.</details>
# <details><summary>Hint 2</summary><code>torch.where(condition, nothing, told)</code> does the rest, once the
# condition has two more axes of size 1.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# dropped = torch.rand(len(told), generator=generator) < share
# return torch.where(dropped[:, None, None], nothing, told)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def drop_captions(told, nothing, share, generator):
    """Captions (b, n, d) -> the same, a share of them replaced by the empty prompt, nothing (n, d)."""
    ### BEGIN SOLUTION
    dropped = torch.rand(len(told), generator=generator) < share
    return torch.where(dropped[:, None, None], nothing, told)
    ### END SOLUTION


# %%
lab.check("9.3", drop_captions)

# %% [markdown]
# *What if?* Take a share of 1. That is a model of video without text. With a share of 0 the model listens to every
# caption but has never met the empty prompt, and guidance pushes away from an answer that means nothing.
#
# ## 6 · Live: the first minute
#
# Now all clips, all sixteen frames, captions that are dropped, and an average that follows. The bar shows the time that
# is left. Below it you see, now and then, what the model makes of one caption. In default mode this takes about half a
# minute. With `MINIT2V_FULL=1` it goes on for 1,500 steps, the better part of an hour.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the bar shows seconds, and the number of steps depends on the mode
drop = lab.yours("9.3")
steps, each = ctx.pick(fast=2, default=40, full=1500), ctx.pick(fast=2, default=2, full=4)
unet, generator = new_unet(1), ctx.generator(1)
averaged = copy.deepcopy(unet)
own = ModelScopeT2V(pipe.preset, pipe.text, averaged.eval(), pipe.autoencoder)
optimizer, losses, bar = torch.optim.Adam(unet.parameters(), betas=(0.9, 0.99)), [], lab.Live(steps)
for i in range(steps):
    optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (i + 1) / 20) * (1 - i / steps)
    chosen = torch.randint(len(latents), (each,), generator=generator)
    words = drop(told[chosen], nothing, 0.1, generator)
    losses.append(step(unet, optimizer, pipe.diffusion, latents[chosen], words, generator))
    follow(averaged, unet, min(0.995, (1 + i) / (10 + i)))
    bar(f"loss {losses[-1]:.2f}")
    if i in (0, steps // 2, steps - 1):
        sample = own(clips.captions[0], seed=0, guidance=1)
        title = f"after step {i + 1}: {clips.captions[0]}"
        bar.show(lab.strip({title: sample}, alt="What the model makes of one caption now."))

# %% [markdown]
# What to see: not much. In default mode forty steps have taught the network that most of a frame is dark and that
# something coloured lies on it. The spots have many colours and no shape, and they change from frame to frame. What is
# easy is learnt first. The loss beside the bar does not tell that: it is the loss of two clips at two noise levels, and
# it jumps. Let the first minute of a training neither discourage nor reassure you.
#
# ## 7 · What each minute buys: a recorded training
#
# So here is a longer one, recorded: `nano` with its own autoencoder and text tower, 32 x 32 pixels, 600 steps of four
# clips, by the library's loop (`scripts/record_nano.py`). Below the curve are samples of four captions, four frames of
# each, and above them the clips of the data set that belong to these captions. Move the cursor.

# %%
from minit2v.lab.course.video_trainings import SHOWN, judged_clips
from minit2v.recording.run import TrainingRun

with_pictures = TrainingRun.load("nano-video-with-pictures")
for number, (split, i) in enumerate(SHOWN, 1):
    print(f"clip {number}: {MovingThings(split).text(i)[0]}")
lab.RunReplay(with_pictures, name="replay-09", curve="clip loss")

# %% [markdown]
# What to see: the loss jitters, for each batch asks other questions. It falls from about 0.8 to 0.3 through the first
# sixty percent of the run, and then stays there. Has the model learnt all that? Not all: the *questions* became easier,
# too. In the first half, the recipe shows few frames
# of a clip, far apart, and more of the noisiest timesteps; in the second half it shows whole clips, and all timesteps
# alike. So a loss can be compared with itself only while the questions stay the same.
#
# Then look at the samples: first faint specks, then blobs. The two large things appear before the two small ones. The
# cyan heart gets cyan blobs; the yellow square gets white ones. Their shapes still change from frame to frame. Some
# words are heard, then, and others are not. We need a figure that says so.
#
# **Caption sensitivity** asks the question that matters: does the model use the caption? Take clips that it does not
# know, and compute the loss twice with the same noise. Give it the right caption first, then one with a wrong word,
# "left" for "right", say. If captions are ignored, both losses are equal:
#
# $$s = \frac{L(\text{wrong caption})}{L(\text{right caption})} - 1 \qquad (9.4)$$
#
# First by hand, for the trained `mini`:

# %% tags=["nbval-ignore-output"]
# not compared by the tests: the last digits depend on the number of threads
from minit2v.datasets.moving_things import MovingThingsData

data, unknown = MovingThingsData(), MovingThings("val").batch(range(ctx.pick(fast=2, default=6, full=64)))
right = [data.right(spec) for spec in unknown.specs]
base = pipe.caption_losses(unknown.frames, right).mean()
print("for example:", right[0])
for attribute in data.attributes:
    wrong = [data.wrong(spec, attribute) for spec in unknown.specs]
    cost = pipe.caption_losses(unknown.frames, wrong).mean() / base - 1
    print(f"  a wrong {attribute:7} costs {100 * cost:5.1f} %     {wrong[0]}")

# %% [markdown]
# What to see: each word has its price. In default mode colour is the dearest, for a wrong colour is wrong in every cell
# of the thing, in every frame, and shape and speed are the cheapest. A wrong shape changes only the outline of the thing. A wrong speed
# moves the thing by a cell or two, and only towards the ends of the clip. A word can cost little because little hangs
# on it, or because the model does not hear it. Only the *growth* of the figure during a training can tell you which.
#
# The recording has this figure for each kind of word and three noise levels, measured every hundred steps. At
# $t = 0.999\,T$ there is nothing but noise to be seen, and all that the model knows comes from the caption. But the loss has a
# high floor there, and the percentages are small. So compare words at one level, not one word at several.

# %%
lab.predict("9.c")

# %%
heard = {name: with_pictures.curves[f"wrong {name} t=0.8"] for name in ("shape", "colour", "size", "motion", "speed")}
lab.curves({f"a wrong {name}": (at, 100 * values) for name, (at, values) in heard.items()}, "step",
           "costs, % of the loss", alt="What a wrong word costs, over the steps of the recorded training, one line for "
           "each of shape, colour, size, motion and speed.")

# %% [markdown]
# What to see: a line at zero is a kind of word that the model does not hear. (Two or three percent below zero mean the
# same.) Only colour and size leave zero in this run. They change many cells, and every single frame shows them. Shape
# changes few cells, and the blobs have none. Which way a thing moves, and how fast, no single frame shows; in a run as
# short as this one these words are not heard at all. Go back to the samples and look for the same order. A model that
# cannot hear "left" cannot be made to go left by any guidance.
#
# ## 8 · What do pictures add?
#
# The paper trains on video-text *and* image-text pairs, and its second question is what the pictures are for. There are
# far more captioned pictures than captioned clips in the world, and they show more kinds of things.
#
# Moving Things is made to ask this. Hearts and stars, purple and orange occur in its pictures, but in none of its
# clips. Can a model set in motion what it knows from pictures only? Here are two trainings that are alike but for one
# thing. In the first, a fifth of the batches are pictures; in the second, none. The last two captions have such a look.

# %%
without = TrainingRun.load("nano-video-without-pictures")
lab.RunReplay([with_pictures, without], name="replay-pictures-09", curve="wrong new look t=0.8")

# %%
from minit2v.datasets.moving_things.dataset import IMAGE_ONLY
from minit2v.evaluation.estimates import share_estimate

looks = MovingThings("test_imageonly", size=32)
for variant, splits in judged_clips().items():
    unseen, seen = splits["test_imageonly"], splits["test_seen"]
    things = [looks.text(i)[1].things[0] for i in range(len(unseen))]
    new = [[name for name in ("shape", "colour") if getattr(thing, name) in IMAGE_ONLY] for thing in things]
    both = zip(unseen, new)
    rows = {"looks of pictures only: the new look": [all(one[name] for name in names) for one, names in both],
            "looks of pictures only: everything": [one["all"] for one in unseen],
            "looks of clips: the colour": [one["colour"] for one in seen],
            "looks of clips: everything": [one["all"] for one in seen]}
    for name, right in rows.items():
        share = share_estimate(right)
        interval = f"(95 %: {share.low:4.1f} to {share.high:4.1f})"
        print(f"{variant:16} {name:36} right in {share.value:5.1f} % {interval}, N = {share.n}")

# %% [markdown]
# How to read it. The judge is a program that reads shape, colour and direction from the pixels. It is strict: a clip
# that it cannot read counts as wrong. Each share has its interval, and two shares differ by more than chance if their
# intervals lie apart. If they overlap, or if all of them are near zero, then the honest answer is that *these trainings
# cannot tell*: they are too short, or the clips too few. (That the rows of both trainings agree to the digit is chance:
# the clips differ.) A paper would not print such a table. It would train for
# longer.
#
# Two more cautions. There is one training of each kind, and the interval is over clips, not over trainings: another
# seed gives other figures. And the text tower has seen the new words with pictures in *both*. `scripts/recipes.py` asks
# the same question with more steps and two seeds.
#
# What do hours of training say? The shipped `mini` was trained with pictures, and its report is at hand. If its clips
# of looks that no clip has shown are right far more often than never, then a look that is known from pictures can be
# set in motion.

# %%
import json

from minit2v.files import data_dir

for row in json.loads((data_dir() / "mini/report.json").read_text())["rows"]:
    if row["clips"] == pipe.preset.name:
        share = row["all"]
        print(f"mini, {row['split']:14} all right in {share['percent']:5.1f} % "
              f"(95 %: {share['low']:4.1f} to {share['high']:4.1f}), N = {row['n']}")

# %% [markdown]
# Read the row of `test_imageonly` beside that of `test_seen`. The second tells what clips have taught: nearly every
# clip is right. In the first, shape or colour is known from pictures only, and still nine in ten are right in
# everything, the motion included. So `mini` sets in motion what it knows from pictures. A small gap is left, and the
# intervals say that it is no chance. That is the use of pictures for video: there are far more of them, and they bring
# words that no clip explains.
#
# ## 9 · Killed and resumed
#
# A training of hours is killed sooner or later: by a battery, a time limit, an update. What must be in the file, so
# that it goes on as if nothing had happened? Try it on the ring. We train forty steps at once. Then we train twenty,
# write a file, and begin again from the file. And then the same once more, with the optimizer's state left out.

# %%
import tempfile
from pathlib import Path

from minit2v.training.trainer import step_generator


def trained_until(stop, file=None, forgotten=()):
    """State after step `stop` of a training that begins anew, or with what a file holds."""
    torch.manual_seed(0)
    network = Small()
    parts = {"network": network, "average": copy.deepcopy(network), "optimizer": torch.optim.Adam(network.parameters())}
    saved = torch.load(file, weights_only=True) if file else {"step": 0}
    for name in saved.keys() - {"step", *forgotten}:
        parts[name].load_state_dict(saved[name])
    for i in range(saved["step"], stop):
        generator = step_generator(0, i)  # all that is random in step i
        step(network, parts["optimizer"], worlds["v"], draw(64, generator), None, generator)
        follow(parts["average"], network, (1 + i) / (10 + i))
    return {name: part.state_dict() for name, part in parts.items()} | {"step": stop}


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "checkpoint.pt"
    whole = trained_until(40)
    torch.save(trained_until(20), file)
    ends = {"everything kept": trained_until(40, file), "without the optimizer": trained_until(40, file, ["optimizer"])}
for name, end in ends.items():
    for part in ("network", "average"):
        differ = sum((end[part][key] != whole[part][key]).sum().item() for key in whole[part])
        print(f"{name:22} numbers of the {part:7} that differ: {'many' if differ else 0}")

# %% [markdown]
# Equal to the last bit, if everything is there: weights, average, the optimizer's means, the number of steps. And the
# *randomness*: step i draws from a generator that is seeded by i. So step 20 is the same whoever computes it, and there
# is no state of a generator that could be lost. Adam without its means takes steps as large as at the very beginning.
#
# The library's loop does this, and three things more. It writes a new file beside the old one and then renames it, so
# that a kill *while writing* loses nothing. It checks that the settings are those of the run. And its learning rate can
# follow the clock, so that you say how long a training may take:
#
# ```
# minit2v train all --preset nano --out runs/mine --budget 20m          stop it when you like, Ctrl-C or kill -9
# minit2v train all --preset nano --out runs/mine --budget 20m --resume
# ```
#
# ## 10 · Bug hunt: the average that knows nothing
#
# A colleague read that everybody averages with a decay of 0.9999, so she does. Her loss is fine. Her samples are made
# from the average, as they should be, and look as if nothing had been trained. "EMA does not work for me," she says.
# Here is her rule, on the ring.

# %%
def broken_decay_at(n, decay):
    """The decay of the average's update number n = 0, 1, 2, …"""
    return decay


def averaged_ring(rule, steps, decay=0.9999):
    """The network and its average after a training on the ring."""
    torch.manual_seed(0)
    network, generator = Small(), ctx.generator()
    average, optimizer = copy.deepcopy(network), torch.optim.Adam(network.parameters())
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 + math.cos(math.pi * i / steps)) / 2
        step(network, optimizer, worlds["v"], draw(256, generator), None, generator)
        follow(average, network, rule(i, decay))
    return network, average


network, average = averaged_ring(broken_decay_at, ctx.pick(fast=10, default=700))
lab.points({"from the weights": ring_of(network), "from their average": ring_of(average)}, apart=True,
           alt="Two clouds of points: made from the weights, and made from their average.")

# %% [markdown]
# ### Exercise 9.B · decay_at
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# Mend the rule. `decay_at(n, decay)` is the decay of update n = 0, 1, 2, …, for any `decay`, 0.9 or 0.9999. After some
# hundred updates hardly anything of the start may be left in the average, no single moment may make up most of it, and
# in the end the decay is the one that was asked for. The check accepts every rule that does this.
#
# <details><summary>Hint 1</summary>With a fixed decay, how much of the start is left after 300 updates? It is multiplied
# by 0.9999 each time.</details>
# <details><summary>Hint 2</summary>An average over the last 1,000 steps makes no sense at step 50. Let the memory grow with n:
# at update n, a decay of 1 − 9/(n + 10), and never more than what was asked for.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return min(decay, (1 + n) / (10 + n))
# ```
#
# After 300 updates with 0.9999 there would be 97 % of the untrained start in the average. With this rule the start is
# gone after ten.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def decay_at(n, decay):
    """The decay of the average's update number n = 0, 1, 2, …"""
    ### BEGIN STUDENT
    # return decay
    ### END STUDENT
    ### BEGIN SOLUTION
    return min(decay, (1 + n) / (10 + n))
    ### END SOLUTION


# %%
lab.check("9.B", decay_at)

# %%
lab.predict("9.b")

# %%
from minit2v.training import trainer

rules = {"fixed": broken_decay_at, "mended": lab.yours("9.B")}
for steps in (50, 300, 3000):
    left = {name: math.prod(rule(n, 0.999) for n in range(steps)) for name, rule in rules.items()}
    print(f"of the start, after {steps:4} updates:", {name: f"{share:.1%}" for name, share in left.items()})
lab.show_source(trainer.moving_average)

# %% [markdown]
# Nobody sees this bug in a long training: after ten thousand steps it has healed by itself. It hits those who train for
# a short time, on a laptop, with settings from a paper. It has a mirror image, an average that *begins late*: then the
# moment at which it begins is what it keeps.
#
# ## Takeaways
#
# 1. The loss of a diffusion model is the squared error of a guess, weighted by noise level. eps, x0 and v are the same guess
#    under three weights.
# 2. A loss has a floor that no training can break, and it moves when the questions change. Compare with an oracle where
#    you have one. Where you have not, let the model learn one clip by heart, and measure what a wrong word costs.
# 3. Small things decide: a timestep for each item, the empty prompt and not zeros, an average that forgets its start, a
#    checkpoint with everything in it.
#
# ## Quiz

# %%
lab.quiz(9)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(9)

# %% [markdown]
# ## Further reading
#
# - Ho, Jain and Abbeel, [Denoising diffusion probabilistic models](https://arxiv.org/abs/2006.11239), section 3: from
#   the bound to the simple loss, as in section 1.
# - Kingma and others, [Variational diffusion models](https://arxiv.org/abs/2107.00630), sections 4 and 5: why the
#   schedule disappears from the bound, and only the signal-to-noise ratio is left.
# - Wang and others, [ModelScope text-to-video technical report](https://arxiv.org/abs/2308.06571), section 4.1: training
#   on pictures and clips together, eight cards to one and eight frames to one.
#
# **Next:** [10 · Steering](10_steering.ipynb). The model has learnt to hear its caption, a little; there it listens harder
# while it samples. [docs/training.md](../docs/training.md) tells the whole recipe of this notebook's training.
