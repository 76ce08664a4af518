# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Destroying a video
#
# **One formula turns any video into noise, and no network is in it: here you take it apart until every symbol has a
# reason.**
#
# **You will**
# - noise a clip to any timestep in one line, and show that this equals a thousand small steps
# - say why the formula has square roots, and measure what happens without them
# - compare noise schedules by the one number that matters, the signal-to-noise ratio
# - find the timestep at which any schedule reaches a given ratio, and compare schedules for two resolutions with it
# - read a movement out of what looks like pure noise, and learn from it how noise for videos must be drawn
# - find a bug that no finished picture shows
#
# **You need** [01](01_video_is_a_tensor.ipynb) for `b c f h w` and ranges, [02](02_squeezing_frames.ipynb) for
# latents; the mean and the variance of random numbers.
#
# **Time** reading 22 minutes · running 10 seconds to 2 minutes (fast mode 5 to 60 seconds) · exercises 47 minutes

# %%
from minit2v import lab

ctx = lab.setup(5)

# %% [markdown]
# ## 1 · A dial from clip to noise
#
# We want a network that makes a video out of noise. To train it we need examples, pairs of a noise and a video, and
# nobody has such pairs. But everybody can make them in the other direction: take a video, destroy it, and keep both.
# The task of the network is then to undo what you did. Undoing is hard, and it is the subject of the next notebook.
# Destroying is easy, but it has to be done *well*: a network learns only what the noise forces it to learn. At the end
# of this notebook you will see how literally that is meant.
#
# Here is our victim. We shift and stretch its numbers so that their mean is 0 and their variance is 1. The noise comes
# from the standard normal distribution, which has the same mean and the same variance. So clip and noise start as
# equals, and "half and half" means something. (Latents need no such step. The scale factor of notebook 02 gives the
# latents of all clips together the variance 1.)

# %%
import torch

from minit2v.datasets.moving_things import MovingThings


def standardised(frames):
    """Pixels uint8 (b, f, H, W, 3) -> (b, 3, f, H, W) with mean 0 and variance 1."""
    x = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float()  # (b f H W c) -> (b c f H W)
    return (x - x.mean()) / x.std()


data = MovingThings("test_seen")
sample = data[25]
x0 = standardised(sample.frames[None])
print(sample.caption, "· b c f H W =", tuple(x0.shape), f"· mean {x0.mean().abs():.2f}, variance {x0.var():.2f}")
lab.play({"the victim": sample.frames}, alt="A large yellow square moves quickly to the right over a dark ground.")

# %% [markdown]
# Now turn the dial. It has two knobs. The *timestep* `t` is a whole number from 0 (almost the clip) to 999 (noise). The
# *schedule* says how fast the clip disappears on the way.

# %%
from dataclasses import replace

from minit2v.diffusion.process import Diffusion
from minit2v.presets import DiffusionConfig

config = DiffusionConfig()  # every default is the released model's
released = Diffusion(config)
schedules = {name: Diffusion(replace(config, schedule=name)) for name in ("scaled_linear", "linear", "cosine")}
lab.NoiseDial(x0, schedules, name="dial")

# %% [markdown]
# What to see: the square can be seen for a long time, although the snow grows from the first step. Go to `t = 999` with
# *scaled_linear*, the schedule of the released model, and look closely. Is anything left? Keep your answer until
# section 5.
#
# What does the dial compute? It adds the clip and the noise, each multiplied by a factor. Both factors come from one
# number, `alpha_bar[t]`, written $\bar\alpha_t$: **the share of the clip's variance that is left at t**. The noise gets
# the rest, $1 - \bar\alpha_t$. So these are shares of the variance, and the factors are their square roots:
#
# $$x_t = \sqrt{\bar\alpha_t}\; x_0 + \sqrt{1 - \bar\alpha_t}\; \varepsilon \qquad (5.1)$$
#
# Here $x_0$ is the clip, $\varepsilon$ is the noise, and $x_t$ is the noisy clip. That is the whole *forward process*.
# (Why roots? Section 3 is about them.) Here it is by hand for one timestep, compared with the library.

# %%
t = 100
a = released.alpha_bar[t].float()
noise = torch.randn(x0.shape, generator=ctx.generator())
x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise

print(f"alpha_bar = {a:.2f}: the clip times {a.sqrt():.2f} plus the noise times {(1 - a).sqrt():.2f}")
difference = (x_t - released.add_noise(x0, noise, torch.tensor([t]))).abs().max()
print(f"largest difference to what the library computes: {difference:.4f}")

# %% [markdown]
# In training, each clip of a batch gets a timestep of its own. So each clip also has its own level, and there are as
# many levels as clips.
#
# ### Exercise 5.1 · q_sample
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write it yourself, for a batch. `x0` and `noise` are `(b, c, f, h, w)`; `alpha_bar_t` is `(b,)`, one level for each
# clip. (Papers call this *sampling from q*, hence the name.) Use tensor operations, no loop.
#
# <details><summary>Hint 1</summary>Equation (5.1), with <code>.sqrt()</code>. The only difficulty is the shape of
# the level.</details>
# <details><summary>Hint 2</summary>Broadcasting lines shapes up from the right, so a level (b,) would meet the axis
# w. Give it the shape (b, 1, 1, 1, 1): <code>alpha_bar_t[:, None, None, None, None]</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# a = alpha_bar_t[:, None, None, None, None]
# return a.sqrt() * x0 + (1 - a).sqrt() * noise
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def q_sample(x0, noise, alpha_bar_t):
    """x0 (b, c, f, h, w), noise alike, alpha_bar_t (b,) -> x_t (b, c, f, h, w)."""
    ### BEGIN SOLUTION
    a = alpha_bar_t[:, None, None, None, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise
    ### END SOLUTION


# %%
lab.check("5.1", q_sample)

# %% [markdown]
# *What if?* Give all clips of a batch the same `t`. Nothing breaks, but each training step then sees one noise level
# only, and the loss jumps about from step to step.
#
# The library's version, for comparison. `_levels` looks up the level of each clip and gives it the axes that it lacks.

# %%
lab.show_source(Diffusion.add_noise)

# %% [markdown]
# ## 2 · Where does alpha-bar come from?
#
# Papers tell the story in small steps. Step `t` takes away a little of what is there and adds a little noise, and
# $\beta_t$ says how little:
#
# $$x_t = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; \varepsilon_t$$
#
# Let us walk that way. One number of a clip is enough for this, but we take it 20,000 times, so that we can see a
# distribution. Then we do the same in one jump, with equation (5.1). Both are random, so no two numbers will agree. Their
# distributions should.

# %%
from minit2v.diffusion.process import betas

beta = betas(config)  # float64 (1000,)
number = torch.full((20_000,), 2.0, dtype=torch.float64)
x, generator, walked = number, ctx.generator(), {}
for t in range(700):
    x = (1 - beta[t]).sqrt() * x + beta[t].sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    if t in (49, 149, 699):
        walked[t] = x

edges, lines = torch.linspace(-4, 4, 41, dtype=torch.float64), {}
for t in walked:
    a, fresh = released.alpha_bar[t], torch.randn(number.shape, generator=generator, dtype=number.dtype)
    jumped = a.sqrt() * number + (1 - a).sqrt() * fresh
    for how, values in (("walked", walked[t]), ("jumped", jumped)):
        print(f"t = {t}, {how}: mean {values.mean():.2f}, standard deviation {values.std():.2f}")
        lines[f"t = {t}, {how}"] = ((edges[1:] + edges[:-1]) / 2, torch.histogram(values, edges)[0])
print(f"beta grows from {beta[0]:.5f} to {beta[-1]:.5f}")
lab.curves(lines, "value of the number that was 2", "how often", alt="Three pairs of bell curves that move from 2 towards 0 "
           "and widen as t grows; in each pair, walked and jumped lie on one another.")

# %% [markdown]
# What to see: these are six curves, but you can count only three. The hill slides from 2 towards 0 and widens. The two
# ways have the same mean and the same standard deviation, up to a hundredth or two of chance.
#
# **Why they agree** takes three lines. Write $\alpha_t = 1 - \beta_t$, and put the first step into the second:
#
# $$x_2 = \sqrt{\alpha_2}\left(\sqrt{\alpha_1}\,x_0 + \sqrt{1 - \alpha_1}\,\varepsilon_1\right) +
# \sqrt{1 - \alpha_2}\,\varepsilon_2 = \sqrt{\alpha_2\alpha_1}\,x_0 +
# \underbrace{\sqrt{\alpha_2(1 - \alpha_1)}\,\varepsilon_1 + \sqrt{1 - \alpha_2}\,\varepsilon_2}_{\text{noise}}$$
#
# A sum of independent normal numbers is normal again, and its variance is the sum of their variances:
#
# $$\alpha_2(1 - \alpha_1) + (1 - \alpha_2) = 1 - \alpha_2\alpha_1$$
#
# So two steps are one step with $\alpha_2\alpha_1$ in the place of $\alpha_1$. Repeat the argument, and `t` steps
# are one jump with the *product* of all the alphas. The bar says "all of them so far":
#
# $$\bar\alpha_t = \alpha_1\,\alpha_2 \cdots \alpha_t \qquad (5.2)$$
#
# (A trap: papers count steps from 1, and $x_0$ is the clip. Code counts from 0, and `t = 0` is the clip *after* the
# first step.)
#
# Training asks for one timestep of one clip at a time. Then only the distribution at `t` matters, and a jump costs
# one line instead of a thousand steps. Before you compute the product yourself, take a guess.

# %%
lab.predict("5.a")

# %% [markdown]
# ### Exercise 5.2 · alpha-bar from beta
#
# Difficulty 1/5 · importance 5/5 · 6 minutes
#
# `betas` is `(T,)`. Return `alpha_bar`, also `(T,)`: entry `t` is the share of the clip's variance that is left
# *after* step `t`, so entry 0 is already a little below 1. Keep the dtype.
#
# <details><summary>Hint 1</summary>What does one step leave of the variance? What do three steps leave?</details>
# <details><summary>Hint 2</summary>A running product: <code>torch.cumprod</code> along axis 0.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return torch.cumprod(1 - betas, 0)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def alpha_bar_from(betas):
    """betas (T,) -> alpha_bar (T,): the share of the clip's variance that is left after each step."""
    ### BEGIN SOLUTION
    return torch.cumprod(1 - betas, 0)
    ### END SOLUTION


# %%
lab.check("5.2", alpha_bar_from)

# %% [markdown]
# *What if?* Subtract what each step takes: 1 minus the sum of the betas. For the first steps that is nearly right. What
# does it give at the end, and can a share be that?
#
# ## 3 · Why the square root?
#
# The roots look like decoration. What happens if we leave them out? Here are three recipes for a step. We walk a thousand
# steps with each of them, now with the latents of our clip, and watch the variance.

# %%
z = ctx.pipe.encode(sample.frames[None])
z = z / z.std()  # the scale factor gives all clips together the variance 1, this one a larger one
recipes = {
    "√(1-β) x + √β ε": lambda b: ((1 - b) ** 0.5, b**0.5),
    "(1-β) x + β ε": lambda b: (1 - b, b),
    "x + √β ε": lambda b: (1, b**0.5),
}
lines = {}
for name, factors in recipes.items():
    x, variances, generator = z, [], ctx.generator()
    for b in beta.tolist():
        keep, add = factors(b)
        x = keep * x + add * torch.randn(x.shape, generator=generator)
        variances.append(x.var().item())
    lines[name] = (range(1000), variances)
print("latents b c f h w =", tuple(z.shape))
lab.curves(lines, "step", "variance of x", logy=True, alt="Variance along a walk: it stays at 1 with both roots, "
           "falls far below 0.1 without roots, and grows above 5 if the clip is not scaled down.")

# %% [markdown]
# What to see: the first recipe stays at 1. The second dies away: the numbers become so small that there is neither clip nor
# noise. The third grows without end.
#
# The reason is one rule. If $x$ and $\varepsilon$ are independent, **variances add, and a factor counts squared**:
#
# $$\mathrm{Var}(p\,x + q\,\varepsilon) = p^2\,\mathrm{Var}(x) + q^2\,\mathrm{Var}(\varepsilon)$$
#
# If both variances are 1, the sum is 1 exactly where $p^2 + q^2 = 1$. So the shares of the *variance* have to add up to
# one, and the factors are their roots. The drawing shows both: the shares on the left, the factors on the right.

# %%
from minit2v.lab.course.drawings.noise import clock_hand, in_palette, shares_and_factors

marks = (100, 300, 500, 900)
shares_and_factors(released.alpha_bar, marks, alt="Left, the shares of the variance against t: that of the clip falls, that of "
                   "the noise fills the rest. Right, the two factors as points on a quarter circle, from the clip's axis up to "
                   "the noise's as t grows; without roots the points would lie on the straight line below it.")

# %% [markdown]
# What to see: on the left, clip and noise always fill the whole height. On the right, each point has the factor of the
# clip as its one coordinate and that of the noise as its other. Pythagoras says that the square of its distance from the
# corner is $p^2 + q^2$, the variance of $x_t$. With roots this distance is always 1, and the point walks along a quarter
# circle. Without roots the factors themselves add up to 1, and the point takes the short cut. Half-way it is nearer to
# the corner, and half of the variance is missing.
#
# A process that stays on the circle is called *variance preserving*. Why care? One network has to serve all thousand
# levels, and a network works best on numbers of one size. (The third recipe is in use too, and is called *variance
# exploding*. There the numbers have to be divided before they reach the network.)
#
# ### Exercise 5.3 · measure it
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# Do not believe it, measure it. Write an instrument for *any* noising function `add_noise(x0, noise, t)`, where `x0` is
# `(b, c, f, h, w)` and `t` is `(b,)`. For each timestep of the list `ts`, draw fresh standard normal noise from
# `generator`, let the function noise all clips of `x0` to that timestep, and measure the variance of `x_t`. It is one
# variance of all numbers of all clips, so the result has the shape `(len(ts),)`.
#
# <details><summary>Hint 1</summary>A loop over <code>ts</code>: draw, call, measure, collect.</details>
# <details><summary>Hint 2</summary><code>torch.randn(x0.shape, generator=generator)</code>,
# <code>torch.full((len(x0),), t)</code>, <code>.var()</code>, <code>torch.stack</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# found = []
# for t in ts:
#     noise = torch.randn(x0.shape, generator=generator)
#     found.append(add_noise(x0, noise, torch.full((len(x0),), t)).var())
# return torch.stack(found)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def variance_along(add_noise, x0, ts, generator):
    """The variance of x_t over everything in it, for each t of a list: (len(ts),)."""
    ### BEGIN SOLUTION
    found = []
    for t in ts:
        noise = torch.randn(x0.shape, generator=generator)
        found.append(add_noise(x0, noise, torch.full((len(x0),), t)).var())
    return torch.stack(found)
    ### END SOLUTION


# %%
lab.check("5.3", variance_along)

# %% [markdown]
# *What if?* Give it clips of variance 4. The result starts at 4 and falls to 1. This is what a wrong scale factor looks
# like. In a picture you would hardly see it: the clip just survives longer than it should.
#
# ## 4 · Three schedules, one ratio
#
# A schedule is a list of betas. The library knows three. In *linear*, the betas lie on a straight line. In
# *scaled_linear*, their square roots do. And *cosine* prescribes $\bar\alpha$ and computes the betas from it.
#
# How can we compare them? Not by their betas. What matters is what a network meets: how much clip there is for how much noise.
# Measure both as variances: their ratio is the **signal-to-noise ratio**, $\mathrm{SNR}_t = \bar\alpha_t / (1 -
# \bar\alpha_t)$. At SNR 1, clip and noise are equally strong. (The dial shows it in decibels, which are ten times its
# logarithm to base 10: 0 dB is SNR 1.) Now you can also answer the question of notebook 02, which of two channels noise
# destroys first. It is the smaller one, because half the size is a quarter of the SNR.

# %%
lab.show_source(betas)
snr = {name: process.alpha_bar / (1 - process.alpha_bar) for name, process in schedules.items()}
for name, ratio in snr.items():
    print(f"{name}: t = {(ratio >= 1).sum()} is the first timestep with more noise than clip")
lab.curves({name: (range(999), ratio[:999]) for name, ratio in snr.items()}, "t", "SNR", logy=True,
           alt="SNR against t: cosine is highest until shortly before the end, linear is below scaled_linear.")

# %% [markdown]
# And here is what the three do to our clip. All rows have the same noise; only the schedule differs. (`in_palette` limits
# the number of colours, because pictures of noise make large files.)


# %%
def picture(x):
    """One clip (c, f, H, W) of variance 1 -> frames (f, c, H, W) in [-1, 1], for the eye."""
    return (0.3 * x - 0.5).clamp(-1, 1).transpose(0, 1)


shown = torch.linspace(0, 999, 6).round().long()
six = [one.expand(6, -1, -1, -1, -1) for one in (x0, noise)]  # the same clip and the same noise at six timesteps


def descent(process):
    """The middle frame of the clip at six timesteps from 0 to 999: (6, c, H, W)."""
    return torch.stack([picture(x_t)[8] for x_t in process.add_noise(*six, shown)])


in_palette(lab.strip({name: descent(process) for name, process in schedules.items()}, n=6,
                     alt="A yellow square at six timesteps: with cosine it is clear the longest, and gone at the end."))

# %% [markdown]
# What to see: *cosine* keeps the most, and shortly before the end it drops to almost nothing. In the other two the SNR stays
# above 0.001. At the same `t` the three rows are destroyed to different degrees. So "t = 500" says nothing until you know the
# schedule. *linear* was the choice of DDPM, with another first and last β. It spends many steps where hardly anything is left.
# *cosine* was made to spread the work evenly. *scaled_linear* lies between them. Stable Diffusion took it, and ModelScopeT2V
# after it.
#
# Look at the last column from a little distance. In the first row a shadow of the square is left.
#
# ## 5 · The last seven per cent
#
# At `t = 999` the released schedule has $\bar\alpha = 0.0047$. Half a per cent of the variance sounds like nothing. But the
# *factor* is its root, 0.068: **nearly seven per cent of the clip is left.** The noise is fifteen times as strong. Can anybody
# see through that? In a single number, nobody can. In the *mean* of a clip it is easy: the average of 196,608 independent
# noises is almost zero, and the average of the clip is not.
#
# So we take clips of all brightnesses, from night to day, and look at the mean of `x_999`.

# %%
n = ctx.pick(fast=12, default=48)
frames, _, specs = data.batch(range(n))
many = standardised(frames)
lit = many + torch.linspace(-1, 1, n)[:, None, None, None, None]
noises = torch.randn(lit.shape, generator=ctx.generator())
zero = Diffusion(replace(config, prediction="v", zero_terminal_snr=True))  # why v: section 8
means = {
    "x_999, released": released.add_noise(lit, noises, torch.full((n,), 999)).mean((1, 2, 3, 4)),
    "x_999, zero terminal SNR": zero.add_noise(lit, noises, torch.full((n,), 999)).mean((1, 2, 3, 4)),
    "pure noise, where sampling starts": noises.mean((1, 2, 3, 4)),
}
true, read = lit.mean((1, 2, 3, 4)), means["x_999, released"]
slope = (read * true).sum() / (true**2).sum()  # least squares: how to read the brightness from the mean
print(f"the clips' brightness goes from {true.min():.0f} to {true.max():.0f}, and {slope:.0%} of it is in the mean of x_999")
print(f"largest error of a brightness that is read from x_999: {(read / slope - true).abs().max():.1f}")
print(f"brightness that is read from pure noise: at most {(noises.mean((1, 2, 3, 4)) / slope).abs().max():.1f}")
lab.curves({name: (true.sort()[0], mean[true.argsort()]) for name, mean in means.items()}, "brightness of the clip",
           "mean of x", alt="Mean against brightness: a rising line for x_999 of the released schedule, flat lines "
           "near 0 for zero terminal SNR and for pure noise.")

# %% [markdown]
# What to see: with the released schedule, the "noise" at the end announces how bright the clip is. A network is sure
# to notice this, as it lowers the loss. But sampling starts from real noise, with mean zero. What does that announce?
# Always "medium, please". This is why models with this schedule hardly make night or snow. [Lin et al.
# (2023)](https://arxiv.org/abs/2305.08891) found it. They mended it by stretching the schedule until its last value is
# exactly zero, which is called *zero terminal SNR*; the source is below. (The two flat lines are one: with zero terminal
# SNR, `x_999` *is* the noise.)
#
# > **Think!** *Two minutes alone, five in pairs.* At `t = 999`, now with nothing of the clip left, a perfect network
# > is asked for the clip. What is its best answer? Could one step be enough to make a video?
#
# Measured by the squared error, the best answer to "I know nothing" is the average of all clips that there could be. Here is
# the average of ours. The more clips are averaged, the nearer it is to fog.

# %%
from minit2v.diffusion.process import shift_snr, split, zero_terminal_snr

lab.show_source(zero_terminal_snr)
lab.strip({"three times as bright": picture(3 * many.mean(0))}, n=4,
          alt="Four frames of dim fog, brightest in the middle, in which faint shapes of every colour lie on one another.")

# %% [markdown]
# What to see: something like fog, in which single shapes still show, because our clips are few. The fog is the right answer and
# a useless video. A prompt makes the average narrower, but it is still an average. One step is not enough, and not because
# networks are weak: the question has no single answer yet. Notebook 06 takes many small steps, each of which makes the next
# question easier.
#
# ## 6 · A clip repeats itself
#
# Everything so far holds for photographs too. What is different in a video? Here are four frames of another clip at
# `t = 999`, with the released schedule. The module of checks has drawn the clip, so that this notebook does not tell you
# what it shows.

# %%
from minit2v.lab.course.checks import nb05

unknown = nb05.mystery()
mystery = standardised(unknown.frames[None])
hidden = released.add_noise(mystery, torch.randn(mystery.shape, generator=ctx.generator(3)), torch.tensor([999]))
in_palette(lab.strip(picture(hidden[0]), n=4, alt="Four frames that look like coloured noise."))

# %%
lab.predict("5.b")

# %% [markdown]
# Was your answer a guess? It need not be. The noise of every frame is drawn on its own, but the clip is almost the same in all
# of them. So we average the first eight frames, then the last eight frames, and blur both averages, which averages over
# neighbouring pixels too. Noise shrinks with the root of the number of values that are averaged. The clip stays.

# %%
import torch.nn.functional as F


def halves(x, n=8):
    """Grey averages of the first and of the last n frames, blurred: (b, c, f, h, w) -> (b, 2, h, w)."""
    grey, side = x.mean(1), x.shape[-1] // 8 * 2 + 1
    ends = torch.stack([grey[:, :n].mean(1), grey[:, -n:].mean(1)], 1)
    return F.avg_pool2d(ends, side, 1, side // 2)


def directions(ends):
    """From the brightest to the darkest place of the difference of two pictures, (b, 2, h, w): b words."""
    width, difference = ends.shape[-1], (ends[:, 0] - ends[:, 1]).flatten(1)
    start, end = difference.argmax(1), difference.argmin(1)
    across, down = (end % width - start % width).tolist(), (end // width - start // width).tolist()
    return [("left", "right")[x > 0] if abs(x) >= abs(y) else ("up", "down")[y > 0] for x, y in zip(across, down)]


first, later = halves(hidden)[0]
print("read from noise:", *directions(halves(hidden)), "· the caption:", unknown.caption)
lab.sheet([first, later, first - later], ["first 8 frames", "last 8 frames", "their difference"], columns=3,
          alt="A bright spot at the upper left; one further down, below the middle; their difference, bright above and dark "
              "below.")

# %% [markdown]
# What to see: there it is, a bright spot near the top, and later one further down. The last picture is all that it takes to
# read a motion: go from its brightest place to its darkest, and you have the direction. It needs no network and has learnt
# nothing.
#
# Up to which `t` does it work? We compare it with the judge of notebook 00, which looks at one frame after the other. And
# we ask one more question: what if the noise were *shared*, that is, the same in all 16 frames of a clip? (The dial has a
# switch for it.)

# %%
from minit2v.evaluation import judge

ts = ctx.pick(fast=[0, 600, 999], default=[0, 200, 400, 600, 700, 800, 900, 950, 999])
shared = noises[:, :, :1].expand_as(noises)
right = {name: [] for name in ("the judge", "averages, own noise", "averages, shared noise")}


def score(answers, specs):
    """The share of right answers."""
    return sum(answer == spec.things[0].motion for answer, spec in zip(answers, specs)) / len(answers)


for t in ts:
    x_t = released.add_noise(many, noises, torch.full((n,), t))
    visible = (picture(x / released.alpha_bar[t].sqrt().float()).permute(0, 2, 3, 1) * 127.5 + 127.5 for x in x_t)
    right["the judge"].append(score([judge.read(clip.byte().numpy()).motion for clip in visible], specs))
    right["averages, own noise"].append(score(directions(halves(x_t)), specs))
    x_t = released.add_noise(many, shared, torch.full((n,), t))
    right["averages, shared noise"].append(score(directions(halves(x_t)), specs))
print("share of right answers at t = 999:", {name: f"{scores[-1]:.1f}" for name, scores in right.items()})
lab.curves({name: (ts, scores) for name, scores in right.items()}, "t", "directions read correctly",
           alt="The judge falls to 0, averages with own noise stay above 0.75, averages with shared noise stay at 1.")

# %% [markdown]
# What to see: the judge gives up first, in the default mode at about `t = 800`. (Guessing would be right in a quarter of the
# cases; the judge does not guess, and says that it sees nothing.) The averages read nearly every direction, out of what the
# schedule calls noise. With shared noise they are *never* wrong. Why never? Subtract the mean of all frames, and see what
# becomes of the noise.

# %%
x_own, x_shared = (released.add_noise(mystery, one, torch.tensor([900]))[0] for one in (noises[:1], shared[:1]))
spread = {name: f"{one.mean(2).std():.2f}" for name, one in (("own", noises), ("shared", shared))}
print("standard deviation of the noise after averaging 16 frames:", spread)
in_palette(lab.strip({
    "own noise in each frame, t = 900": picture(x_own),
    "own noise, minus the mean of all frames": picture(x_own - x_own.mean(1, keepdim=True)),
    "shared noise, t = 900": picture(x_shared),
    "shared noise, minus the mean of all frames": picture(8 * (x_shared - x_shared.mean(1, keepdim=True))),
}, n=6, alt="Four rows of frames: noise; noise; noise that is the same in each frame; and, without any noise, a "
            "white moon that moves down over the dark trace of its path."))

# %% [markdown]
# What to see: in the last row there is no noise at all. The mean of the frames contains the shared noise whole, so
# subtracting it takes all of it away. This is a trade.
#
# - **Shared noise** gives away all that moves. The network never has to find movement in noise, and does not learn
#   to. But it hides what stays, because averaging frames does not help.
# - **Own noise in each frame** hides movement better. But what stays can be averaged out of it. Over 16 equal frames
#   the standard deviation of the noise falls to a quarter, so the SNR is 16 times what the schedule says.
#
# ModelScopeT2V, this library and most video models draw noise for each frame. Two papers mix both kinds, since a
# video is partly one picture: VideoFusion, two of whose authors then made ModelScopeT2V, and PYoCo (*further
# reading*). Whichever kind you train with, sample with the same.
#
# ## 7 · One schedule, many sizes
#
# Our reader averages over pixels too. So at the same `t` a larger picture is *easier* to read, although each of its
# numbers has the same SNR. How much easier? Say it with a number before you read on.

# %%
lab.predict("5.c")

# %% [markdown]
# Make a clip of 8 pixels out of one of 32: each pixel of the small clip is the mean of 4 x 4 pixels of the large one. In
# such a square the thing hardly changes, so the signal stays. The noise is averaged over 16 numbers: its standard
# deviation falls to a quarter, its variance to a sixteenth. So inside the large clip there is a small one with 16 times
# the SNR, and whoever reads the large clip may look at that.
#
# [Hoogeboom et al. (2023)](https://arxiv.org/abs/2301.11093) draw the consequence: for pictures `s` times as wide,
# divide the SNR by `s²`. The library calls `s` the `snr_shift`. If they are right, clips of 32 pixels with shift 4 are as
# hard to read as clips of 8 pixels without a shift. Let us measure it.


# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many clips are read, and at which timesteps, depends on the mode
def readable(size, shift):
    """The share of directions that averages read at each of ts, in clips of size x size pixels."""
    process, generator = Diffusion(replace(config, snr_shift=shift)), ctx.generator(4)
    frames, _, specs = MovingThings("test_seen", size=size).batch(range(ctx.pick(fast=16, default=128)))
    x = standardised(frames)
    noisy = (process.add_noise(x, torch.randn(x.shape, generator=generator), torch.full((len(x),), t)) for t in ts)
    return [score(directions(halves(x_t)), specs) for x_t in noisy]


cases = (32, 1), (16, 1), (8, 1), (32, 4)
lines = {f"{size} pixels, shift {shift}": (ts, readable(size, shift)) for size, shift in cases}
small = lines["8 pixels, shift 1"][1]
for name in ("32 pixels, shift 1", "32 pixels, shift 4"):
    apart = sum(abs(x - y) for x, y in zip(lines[name][1], small)) / len(small)
    print(f"{name}: {apart:.2f} away from 8 pixels, shift 1, on average over t")
lab.curves(lines, "t", "directions read correctly", alt="The smaller the clip, the earlier its curve falls; "
           "that of 32 pixels with shift 4 lies close to that of 8 pixels.")

# %% [markdown]
# What to see: a staircase from 32 pixels to 8. In the default mode, the fourth curve lies on top of the third, up to chance:
# the rule holds. (In fast mode there are too few clips to see it.)
#
# What does a shift do to a schedule? It makes no noise that is different in kind: an SNR of 1 looks the same in every
# schedule. It only comes at another `t`. So a schedule is a clock, and to compare two clocks you need a way to ask each
# of them at what time it reaches a given SNR.
#
# ### Exercise 5.4 · the timestep of an SNR
#
# Difficulty 4/5 · importance 4/5 · 20 minutes
#
# Write that way: at which timestep does a schedule reach a given SNR?
#
# - `alpha_bar` is the table of a schedule, `(T,)`, with T at least 2. It falls from entry to entry and stays between 0 and
#   1 without reaching either.
# - `shift` is a number. Before anything is looked up, every SNR of the table is divided by its square.
# - `snr` has the SNRs to look up. It has any shape, and the dtype of `alpha_bar`.
# - Return the timesteps, in that shape and dtype.
#
# A table has whole timesteps only, and most SNRs lie between two of its entries. Draw the SNR against `t`, on a logarithmic
# axis, as in section 4, and join neighbouring entries by straight lines: the result is the place where this line has the given
# SNR. An SNR above the first entry gives 0, and one below the last entry gives T - 1.
#
# Find the two neighbours by *bisection*. Keep two fences: `low`, where the SNR is still high enough, and `high`, where it
# is too low. Look at the timestep in the middle, and move one of the fences there, until no timestep is left between
# them. A thousand timesteps take ten looks. Move the fences of all SNRs at once. (The check compares results only, so
# another way to find the neighbours passes too.)
#
# <details><summary>Hint 1</summary>Take logarithms first, of the shifted table and of what you look up. Clamp the
# latter to the two ends of the table, then no case is special. <code>low</code> and <code>high</code> are tensors of
# whole numbers in the shape of <code>snr</code>; they begin as 0 and T - 1.</details>
# <details><summary>Hint 2</summary>Where <code>table[middle] >= wanted</code>, the lower fence moves, elsewhere the
# upper one: <code>torch.where</code> chooses for all at once. In the end, ask how far <code>wanted</code> is on the way
# from <code>table[low]</code> to <code>table[high]</code>, as a share of that way.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# table = (alpha_bar / (1 - alpha_bar) / shift**2).log()
# wanted = snr.log().clamp(table[-1], table[0])
# low = torch.zeros_like(wanted, dtype=torch.long)
# high = torch.full_like(low, len(table) - 1)
# while (high - low).max() > 1:
#     middle = (low + high) // 2
#     enough = table[middle] >= wanted
#     low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
# return low + (table[low] - wanted) / (table[low] - table[high])
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def timestep_at(alpha_bar, snr, shift=1.0):
    """alpha_bar (T,) falling, snr of any shape -> the timesteps at which the SNR, divided by shift², is snr."""
    ### BEGIN SOLUTION
    table = (alpha_bar / (1 - alpha_bar) / shift**2).log()
    wanted = snr.log().clamp(table[-1], table[0])
    low = torch.zeros_like(wanted, dtype=torch.long)
    high = torch.full_like(low, len(table) - 1)
    while (high - low).max() > 1:
        middle = (low + high) // 2
        enough = table[middle] >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low + (table[low] - wanted) / (table[low] - table[high])
    ### END SOLUTION


# %%
lab.check("5.4", timestep_at)

# %% [markdown]
# *What if?* Join the entries by straight lines in the SNR itself, without a logarithm. In a table of 1000 entries you
# would hardly notice, because neighbours are nearly alike. Between the first two entries you would.
#
# Programs that sample from released models contain this function. `sigma_to_t` of
# [k-diffusion](https://github.com/crowsonkb/k-diffusion/blob/master/k_diffusion/external.py) translates the noise levels of
# a sampler into the timesteps that the network was trained with. (It looks up $\sigma = 1/\sqrt{\mathrm{SNR}}$. The logarithm
# of $\sigma$ is $-\tfrac{1}{2}$ times that of the SNR, so the straight lines are the same.)
#
# Now ask the clocks. First the three schedules without a shift, then the released one with the shift for pictures twice
# and four times as wide.

# %%
look_up = lab.yours("5.4")
asked = torch.tensor([10.0, 1.0, 0.1, 0.01], dtype=torch.float64)
clocks = {name: (process.alpha_bar, 1) for name, process in schedules.items()}
clocks |= {f"scaled_linear, shift {shift}": (released.alpha_bar, shift) for shift in (2, 4)}
print(f"{'SNR':22}" + "".join(f"{one:8g}" for one in asked.tolist()))
for name, (table, shift) in clocks.items():
    print(f"{name:22}" + "".join(f"{t:8.0f}" for t in look_up(table, asked, shift).tolist()))

# %%
every = snr["scaled_linear"]  # of all timesteps of the unshifted schedule
lines = {f"shift {shift}": (range(1000), look_up(released.alpha_bar, every, shift)) for shift in (1, 2, 4)}
for shift in (2, 4):
    new = 999 - lines[f"shift {shift}"][1][-1]
    print(f"shift {shift}: the last {new:.0f} timesteps are noisier than anything without a shift")
lab.curves(lines, "t without a shift", "t with the same SNR", alt="For every timestep without a shift the timestep at which a "
           "shifted schedule has the same SNR: a straight line for shift 1; below it shift 2, and below that shift 4.")

# %% [markdown]
# What to see: go up from `t = 600` to the line of shift 4. It says at which timestep the shifted schedule has the noise
# that the unshifted one has at 600, and that is much earlier. So the light noise, in which a large picture can be read at
# a glance, is over sooner. The timesteps that become free go to noise that the unshifted schedule never had: the line
# ends below 999. Training draws every `t` with the same chance. So a shift decides which noise training spends its time on.
#
# Here is the library's line. It divides the SNR without ever computing it.

# %%
lab.show_source(shift_snr)

# %% [markdown]
# And our `mini`? Its latents are 8 x 8. By size alone it would need *less* noise than a large model. Yet its preset
# has `snr_shift=2`, which means more. The reason is section 6. Each of its clips shows one flat shape on flat ground,
# sixteen times over, so its frames are far more alike than those of real videos. To measure it we read directions again,
# now from latents: average the halves, decode, compare.


# %%
def readable_latents(z, shift):
    """The same for latents (b, c, f, h, w): the two averages are decoded before they are compared."""
    process, generator, found = Diffusion(replace(config, snr_shift=shift)), ctx.generator(5), []
    for t in ts:
        x_t = process.add_noise(z, torch.randn(z.shape, generator=generator), torch.full((n,), t))
        ends = torch.stack([x_t[:, :, :8].mean(2), x_t[:, :, 8:].mean(2)], 2) / process.alpha_bar[t].sqrt().float()
        pixels = torch.from_numpy(ctx.pipe.decode(ends)).permute(0, 4, 1, 2, 3).float()  # (b 2 H W c) -> (b c 2 H W)
        found.append(score(directions(halves(pixels, 1)), specs))
    return found


lines = {f"shift {shift}": (ts, readable_latents(ctx.pipe.encode(frames), shift)) for shift in (1, 2)}
print("shift of mini:", ctx.pipe.preset.diffusion.snr_shift)
lab.curves(lines, "t", "directions read correctly", alt="Both curves fall from 1; that of shift 2 falls earlier.")

# %% [markdown]
# What to see: without a shift, a simple average reads the direction at most timesteps. There a network hardly needs the words
# "moves left", and the loss does not make it learn them. With shift 2, more of the training is spent where such an average
# fails and the prompt helps. **A schedule decides what a network must get from the text.**
#
# ## 8 · Noise, clip, or v: one thing from three sides
#
# What should the network answer? Given `x_t` and the two factors, the clip follows from the noise, and the noise from the
# clip. So a network may answer with either, and the loss is the mean squared error of its answer.
#
# There is a third choice. As $p^2 + q^2 = 1$ (section 3), the factors are the cosine and the sine of an angle $\varphi$,
# and $x_t = \cos\varphi\,x_0 + \sin\varphi\,\varepsilon$ turns from clip to noise like the hand of a clock. The velocity
# of its tip is
#
# $$v = \frac{dx_t}{d\varphi} = \cos\varphi\,\varepsilon - \sin\varphi\,x_0 \qquad (5.6)$$

# %%
clock_hand(released.alpha_bar, marks, alt="The quarter circle of section 3 with a hand from its centre for each of four "
           "timesteps. At the tip of each hand stands an arrow, v: at little noise it points along the axis of the noise, at "
           "much noise against the axis of the clip.")

# %% [markdown]
# What to see: the less noise, the more nearly the arrow points straight up: where there is no noise, `v` is the noise that is
# about to come. The more noise, the more nearly it points to the left: at pure noise `v` is the clip with the opposite sign.
# In between it is a mixture.
#
# The library's `split` turns any of the three into clip and noise. None of them contains more information than another.
# But *errors* do not cost the same. Let a network be wrong by 0.1 everywhere, and ask how wrong the clip is that its
# answer stands for.

# %%
lab.show_source(split)
lines, steps, one_noise = {}, range(0, 1000, 37), torch.randn(z.shape, generator=ctx.generator())
for prediction in ("eps", "x0", "v"):
    process, errors = Diffusion(replace(config, prediction=prediction)), []
    for t in steps:
        x_t = process.add_noise(z, one_noise, t)
        clip, _ = process.to_x0_eps(process.target(z, one_noise, t) + 0.1, x_t, t)
        errors.append((clip - z).abs().mean().item())
    lines[f"{prediction} wrong by 0.1"] = (steps, errors)
lab.curves(lines, "t", "error of the clip", logy=True, alt="Error of the clip against t: for eps it grows from "
           "below 0.01 to above 1, for x0 it is 0.1 throughout, for v it grows from below 0.01 to 0.1.")

# %% [markdown]
# What to see: with `eps`, the error is multiplied by the factor of the noise and divided by that of the clip. At the end the
# clip is fifteen times as wrong as the answer. With zero terminal SNR this would be a division by zero, and the library
# refuses the combination. `v` is as good as `eps` at little noise and as good as `x0` at much noise. So `mini` predicts `v`.
# The release predicts `eps`, and lives with its seven per cent.
#
# ## 9 · A bug hunt
#
# A well-known annotated implementation computed its two factors like this (rewritten here, with the same bug):


# %%
def broken_levels(alpha_bar):
    """alpha_bar (T,) -> the factor of the clip and the factor of the noise, both (T,)."""
    signal = alpha_bar**0.5
    sigma = alpha_bar**0.5
    return signal, sigma


class Broken(Diffusion):
    def add_noise(self, x0, noise, t):
        signal, sigma = broken_levels(self.alpha_bar[t].float().reshape(-1, 1, 1, 1, 1))
        return signal * x0 + sigma * noise


processes = {"right": released, "broken": Broken(config)}
in_palette(lab.strip({name: descent(process) for name, process in processes.items()}, n=6, alt="Right: the square sinks into "
                     "noise. Broken: full of snow at once, then square and noise fade together into flat grey."))

# %% [markdown]
# The symptom: at `t = 0`, where hardly anything should have happened, the clip is full of snow. At `t = 999`, where all should
# be snow, it is almost flat grey.
#
# Why did nobody see it? Training needs this function, but a sampler takes over weights that were trained elsewhere, with the
# right factors. Sampling from a prompt starts from noise and never calls it. Only sampling from a *clip* does. And even then
# the network repairs what it is given. Your instrument from 5.3 is harder to please:

# %%
import copy

measure = lab.yours("5.3")
for name, process in processes.items():
    variances = measure(process.add_noise, x0, [0, 500, 999], ctx.generator())
    print(f"{name}: variance at t = 0, 500, 999:", *(f"{variance:.1f}" for variance in variances))
crippled = copy.copy(ctx.pipe)
crippled.diffusion = Broken(ctx.pipe.preset.diffusion)
results = {name: pipe(sample.caption, init=sample.frames, strength=0.5, seed=0)
           for name, pipe in (("half destroyed and restored, right", ctx.pipe), ("the same, broken", crippled))}
lab.strip(results, n=6, alt="Two rows of six frames that look almost alike: a yellow square that moves to the right.")

# %% [markdown]
# What to see: in the pictures, nothing. A trained network is a good hiding place for bugs. That is why this library tests its
# equations, and not only its pictures.
#
# ### Exercise 5.B · two factors
#
# Difficulty 1/5 · importance 3/5 · 5 minutes
#
# Mend it. Before you do, explain the printed line: why is the variance 2 at the start, and why 0 at the end?
#
# <details><summary>Hint 1</summary>If both factors are alike, the variance of x_t is twice alpha_bar.</details>
# <details><summary>Hint 2</summary>Which equation says what the noise is multiplied by? Hold the second line against
# it.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# return alpha_bar**0.5, (1 - alpha_bar) ** 0.5
# ```
#
# The variance of x_t was alpha_bar + alpha_bar: 2 where nothing is destroyed, 0 where everything is.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def levels(alpha_bar):
    """alpha_bar (T,) -> the factor of the clip and the factor of the noise, both (T,)."""
    ### BEGIN STUDENT
    # signal = alpha_bar**0.5
    # sigma = alpha_bar**0.5
    # return signal, sigma
    ### END STUDENT
    ### BEGIN SOLUTION
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    ### END SOLUTION


# %%
lab.check("5.B", levels)

# %% [markdown]
# The original is [labml, issue
# 152](https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/152): a reader found it, and
# one line mended it two weeks later.
#
# ## Takeaways
#
# 1. The forward process is one line, $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\varepsilon$. The
#   squares of its factors add up to one, so the variance stays.
# 2. A timestep means nothing without its schedule. What counts is the SNR *and* how often a clip repeats itself, in
#   frames and in pixels. Averages see through noise that neither eyes nor the judge can see through.
# 3. What the noise gives away, a network uses, and does not learn from the prompt. So look at the last timestep, at
#   how noise is shared, and at the variance.
#
# ## Quiz

# %%
lab.quiz(5)

# %% [markdown]
# ## Equations, code and tests
#
# Each equation, the paper it comes from, the line of the library that computes it, and the test, in the repository, that
# would fail if that line were wrong.

# %%
lab.equations(5)

# %% [markdown]
# ## Further reading
#
# - [Denoising Diffusion Probabilistic Models](https://arxiv.org/abs/2006.11239), section 2: equations (2) to (4) are
#   sections 1 to 3 of this notebook, in half a page.
# - [Common Diffusion Noise Schedules and Sample Steps are Flawed](https://arxiv.org/abs/2305.08891): section 5
#   again, with night and snow. Short, and a fine example of finding a bug in everybody's code.
# - [VideoFusion](https://arxiv.org/abs/2303.08320) and [Preserve Your Own
#   Correlation](https://arxiv.org/abs/2305.10474): two ways to share some of the noise between frames, and what each
#   gains.
#
# **Next:** [06 · Un-destroying it](06_un_destroying_it.ipynb), where the arrow turns round.
