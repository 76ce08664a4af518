# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 19 · Seven systems, one protocol
#
# **A table in a paper puts seven systems in an order. Here all seven learn from the same data on the same machine, are asked
# the same prompts, and meet the same judge. You write the statistics that say which of the differences are more than
# chance.**
#
# **You will**
# - read the published table, and write down your own order before you see ours
# - say what each paper claimed, and which figure would show it
# - write McNemar's exact test, which compares two systems prompt by prompt
# - correct it for many comparisons, and say what a rank correlation of so few systems is worth
# - find a bug that makes two systems look alike
# - read our table with places that have an interval, and ask about minutes, steps and seconds
# - vote on clips without knowing who made them
#
# **You need** [13](13_is_it_any_good.ipynb) for the metrics and Wilson's interval. The systems themselves are in
# [08](08_teaching_it_time.ipynb) and in [14](14_nuwa.ipynb) to [18](18_make_a_video.ipynb).
#
# **Time** reading 22 minutes · running 1 to 3 minutes (fast mode 10 to 50 seconds) · exercises 48 minutes

# %%
from minit2v import lab

ctx = lab.setup(19)

# %% [markdown]
# ## 1 · The published table
#
# This is the table of ModelScopeT2V ([arXiv 2308.06571](https://arxiv.org/abs/2308.06571), section 4), on MSR-VTT, with
# what is known of how each figure came about. For FID-vid and FVD lower is better, for CLIPSIM higher.

# %%
import numpy as np

from minit2v.evaluation.full_scale.published import TABLE

SYSTEMS = {"nuwa": "NÜWA", "cogvideo-zh": "CogVideo (Chinese)", "cogvideo": "CogVideo (English)",
           "magicvideo": "MagicVideo", "videoldm": "Video LDM", "makeavideo": "Make-A-Video",
           "modelscope": "ModelScopeT2V"}  # shipped name -> its row
COLUMNS = ("FID-vid", "FVD", "CLIPSIM")
published = {row.system: row for row in TABLE}
print(f"{'':20}" + "".join(f"{column:>10}" for column in COLUMNS))
for system in SYSTEMS.values():
    figures = published[system].figures()
    print(f"{system:20}" + "".join(f"{figures[column]:10g}" if column in figures else f"{'-':>10}" for column in COLUMNS))
    print(f"    {published[system].protocol}")
for column in COLUMNS:
    known = sum(column in published[system].figures() for system in SYSTEMS.values())
    print(f"{column}: {known} of {len(SYSTEMS)} systems, so {known * (known - 1) // 2} of the 21 pairs")

# %% [markdown]
# Read the second line of each row. One model was trained further on MSR-VTT, five say that they never saw it (zero-shot).
# Some were measured with all captions, others with one for each clip. Sizes and frame rates differ. For some figures we could
# not verify which network or which paper they come from. The rows also differ in training data, size of the model and amount
# of computing. So a difference between two rows has many possible reasons, and the idea of the paper is only one of them.
#
# Here each system is one file of [minit2v/systems](../minit2v/systems), small enough for a laptop. All learn from what one
# program draws, and all answer the same prompts. [docs/systems.md](../docs/systems.md) says what they share.
#
# Which order do you expect? Commit yourself.

# %%
lab.predict("19.a")

# %% [markdown]
# Now the whole order. Change the list before you go on, with the best system first. What stands there is the published
# table from bottom to top. Section 8 compares your order with ours.

# %%
MY_ORDER = ["modelscope", "makeavideo", "videoldm", "magicvideo", "cogvideo", "cogvideo-zh", "nuwa"]
assert sorted(MY_ORDER) == sorted(SYSTEMS), "each of the seven once"

# %% [markdown]
# ## 2 · What each claimed
#
# A paper is more than its row. Each made a claim, and a table helps only if one of its figures can show that claim to be
# wrong. Here is each claim in a sentence, and after it the figure of our table that would show it.
#
# - **[NÜWA](14_nuwa.ipynb)**: text, pictures and videos are grids of tokens, and it is enough to attend to a window around
#   each token.
#   *Would show it:* all right on seen prompts no less often than CogVideo, whose key frames see all earlier ones.
# - **[CogVideo](15_cogvideo.ipynb)**: a trained picture transformer that stays frozen hands its knowledge on to videos.
#   *Would show it:* all right more often than NÜWA where a thing is known from pictures only.
#   In the paper the Chinese row is the same system, asked in another language. Ours is a second training, on the same clips
#   with Chinese captions. No claim goes with it: a difference here shows how far apart two trainings of one design can lie.
# - **[MagicVideo](16_magicvideo.ipynb)**: a scale and a shift for each frame, in a latent space, make clips at a fraction of
#   the computing.
#   *Would show it:* fewer seconds a clip than Video LDM and ModelScopeT2V.
# - **[Video LDM](17_video_ldm.ipynb)**: new layers along time make a video model of a frozen image model, and nothing of
#   that is lost.
#   *Would show it:* an FID-vid level with that of its image model, frame by frame; and all right no less often than
#   ModelScopeT2V where a thing is known from pictures only.
# - **[Make-A-Video](18_make_a_video.ipynb)**: captioned videos are not needed. Looks come from captioned pictures, motion
#   from videos without text.
#   *Would show it:* shape and colour right no less often than in ModelScopeT2V. The direction should be right less often, as
#   the paper itself says.
# - **[ModelScopeT2V](08_teaching_it_time.ipynb)**: blocks in space and time, trained jointly on pictures and videos, are
#   better than the others.
#   *Would show it:* all right on seen prompts more often than each of the six.
#
# Look at the words. Some say *more*, and a test can find that. Others say *no less*, and no test can find that: it can only
# fail to find a difference, and a small test fails easily. We come back to this in section 11.
#
# A table of whole systems also has limits of its own. Our NÜWA and our CogVideo differ in much more than the window. If NÜWA
# is worse, the window need not be the reason. What one part is worth, you learn by changing that part alone, as notebooks
# 14 to 18 do.
#
# ## 3 · Two systems, the same prompts
#
# Some prompts are easy and some are hard, for every system. Here are the verdicts of two made-up systems on 200 prompts. A
# is a little better than B.

# %%
from minit2v.evaluation.estimates import wilson

rng = np.random.default_rng(0)
hard = rng.uniform(size=200)  # how hard each prompt is
a, b = (hard + rng.normal(0, 0.08, 200) < skill for skill in (0.76, 0.69))
for name, right in (("A", a), ("B", b)):
    low, high = wilson(int(right.sum()), len(right))
    print(f"{name} is right in {right.mean():.1%}, interval {low:.1%} to {high:.1%}")
print(f"\nboth right {(a & b).sum():4}   only A  {(a & ~b).sum():4}\nonly B     {(b & ~a).sum():4}   neither "
      f"{(~a & ~b).sum():4}")

# %% [markdown]
# The intervals overlap widely. But each of them answers another question: how would this share change with *other
# prompts*? A set of easier prompts would lift both. What we want to know is whether A is better than B on the same ones.
#
# Look at the four counts. Where both are right or both are wrong, the prompt says nothing about the difference. What
# remains are the prompts that exactly one of them gets right.

# %%
lab.predict("19.b")

# %% [markdown]
# Suppose that A and B are equally good. Then each prompt of the remaining ones is a fair coin: heads for A, tails for B. Let
# $n_A$ be the prompts that only A gets right, and $n_B$ those that only B does. How often would $n_A + n_B$ coins fall at
# least as unevenly, in one direction or the other?
#
# $$p = \min\Big(1,\; 2 \sum_{k=0}^{\min(n_A,\,n_B)} \binom{n_A+n_B}{k}\, 2^{-(n_A+n_B)}\Big) \qquad (19.1)$$
#
# This is McNemar's test in its exact form. The 2 stands for the two directions: before you looked, either system could have
# been the better one.
#
# ### Exercise 19.1 · mcnemar
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# `first` and `second` are arrays (n,) of bool: whether each clip is right, for the same prompts in the same order. Return
# three numbers: how many prompts only the first gets right, how many only the second, and p. There may be thousands of
# prompts. If the two never differ, p is 1.
#
# <details><summary>Hint 1</summary>For arrays of bool, <code>first &amp; ~second</code> is true where only the first is
# right. Its sum counts them; make an <code>int</code> of it.</details>
# <details><summary>Hint 2</summary><code>math.comb(n, k)</code> is a whole number of any size. Add them up first and divide
# by <code>2**n</code> last: the quotient of two huge whole numbers is exact enough, but as floats they would be too
# large. <code>range(fewer + 1)</code> includes <code>fewer</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
# n, fewer = only_first + only_second, min(only_first, only_second)
# return only_first, only_second, min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)
# ```
# </details>
# <!-- END SOLUTION -->

# %%
import itertools
import math


# %% tags=["exercise"]
def mcnemar(first, second):
    """Verdicts (n,) bool on the same prompts -> prompts that only the first gets right, only the second, two-sided p."""
    ### BEGIN SOLUTION
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    return only_first, only_second, min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)
    ### END SOLUTION


# %%
lab.check("19.1", mcnemar)

# %% [markdown]
# Your test on A and B. And the same coins, thrown by a machine:

# %%
test = lab.yours("19.1")
only_a, only_b, p = test(a, b)
heads = rng.binomial(only_a + only_b, 0.5, size=200_000)
uneven = abs(2 * heads - (only_a + only_b)) >= abs(only_a - only_b)
print(f"only A {only_a}, only B {only_b}: p = {p:.4f}; of 200,000 throws {uneven.mean():.4f} are at least as uneven")
strangers = test(a, rng.permutation(b))
print("the prompts of B in another order: only A {}, only B {}, p = {:.4f}".format(*strangers))

# %% [markdown]
# What to see: p is small, though the intervals overlap. In the last line B's verdicts belong to other prompts than A's.
# Both shares are as before. But now the two differ on many more prompts, for reasons that have nothing to do with them, and
# the same difference drowns in that. Remember the last line; a bug hunt is coming.
#
# *What if?* The same prompts are one half of a pair, and the same seed is the other. Three of our systems begin with noise
# of one shape, so a seed is the same noise for them. For a system that draws tokens it is only a number. Pairing still
# helps, for what is hard in a prompt is much the same for all.
#
# ## 4 · Six questions at once
#
# Six systems are compared with ModelScopeT2V. Say that we call a difference *found* where p is below 0.05. Where nothing
# differs, this happens up to 5 times in 100: a **false alarm**.

# %%
lab.predict("19.c")

# %%
luck = rng.uniform(size=(4000, 6))  # p of six tests, 4,000 times, where nothing differs and prompts are many
print(f"at least one of six below 0.05: {(luck.min(1) < 0.05).mean():.1%} of the times")

# %% [markdown]
# The simplest cure is Bonferroni's: multiply each p by the number of tests, $m$. The chance that at least one of $m$ tests
# raises a false alarm is at most the sum of their chances, whether they depend on one another or not. (Ours do: the same
# ModelScopeT2V is in all six.)
#
# Holm saw in 1979 that this gives something away. Sort the p's, $p_{(1)} \le \dots \le p_{(m)}$. Multiply the least by $m$,
# the next by $m - 1$, and so on. Where one fails, all that follow fail too, so take the largest so far:
#
# $$\tilde p_{(i)} = \max_{j \le i}\; \min\big(1,\; (m - j + 1)\, p_{(j)}\big) \qquad (19.2)$$
#
# Why is that enough? Suppose that nothing differs in $k$ of the $m$ tests. Before the first of these comes up, at most
# $m - k$ others have gone, so its factor is still $k$ or more. That is Bonferroni's correction for $k$ tests, and only these
# $k$ can raise a false alarm.
#
# ### Exercise 19.2 · holm
#
# Difficulty 3/5 · importance 5/5 · 10 minutes
#
# `p` is an array (m,) of p-values in any order. Return the corrected ones, (m,), in the same order.
#
# <details><summary>Hint 1</summary><code>order = np.argsort(p)</code> gives the places of the smallest, the next, and so
# on; <code>p[order]</code> is sorted. <code>np.maximum.accumulate</code> gives the largest so far.</details>
# <details><summary>Hint 2</summary>The way back: make an empty array, and <code>adjusted[order] = …</code> puts each number
# where it came from.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# order = np.argsort(p)
# stepped = (len(p) - np.arange(len(p))) * p[order]
# adjusted = np.empty(len(p))
# adjusted[order] = np.maximum.accumulate(stepped).clip(max=1)
# return adjusted
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def holm(p):
    """p-values (m,) in any order -> Holm's, (m,), in the same order."""
    ### BEGIN SOLUTION
    order = np.argsort(p)
    stepped = (len(p) - np.arange(len(p))) * p[order]
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(stepped).clip(max=1)
    return adjusted
    ### END SOLUTION


# %%
lab.check("19.2", holm)

# %%
correct = lab.yours("19.2")
some = luck.copy()
some[:, :3] **= 6  # in the first three something differs now: their p's are mostly small
WAYS = {"as they are": lambda each: each, "Bonferroni": lambda each: 6 * each, "Holm": correct}
print(f"{'':14}differences found, of 3   at least one false alarm")
for name, way in WAYS.items():
    corrected = np.stack([way(each) for each in some])
    print(f"{name:14}{(corrected[:, :3] < 0.05).sum(1).mean():17.2f} {(corrected[:, 3:] < 0.05).any(1).mean():22.1%}")

# %% [markdown]
# What to see: uncorrected p's find most, and raise far more false alarms than one in twenty. Both corrections keep their
# promise. Holm finds a little more than Bonferroni, and never less. So there is no reason to use Bonferroni.
#
# *What if?* Six comparisons are a choice. Somebody who compares all seven with one another makes 21, and the same p is
# multiplied by more. Decide before you look which questions you ask. A question that the table has suggested is one of very
# many that it could have suggested.
#
# ## 5 · Two orders
#
# Does our order agree with the published one? A **rank correlation** looks at pairs of systems. A pair agrees if the same
# one of the two is ahead in both tables. Kendall's tau counts the pairs that agree, minus those that do not, over all
# pairs: 1 for the same order, -1 for the reverse. With sgn for the sign, which is 0 for a tie,
#
# $$\tau = \frac{\sum_{i<j} \operatorname{sgn}(x_i - x_j)\, \operatorname{sgn}(y_i - y_j)}
# {\sqrt{\sum_{i<j} \operatorname{sgn}(x_i - x_j)^2 \; \sum_{i<j} \operatorname{sgn}(y_i - y_j)^2}} \qquad (19.3)$$
#
# The root is the number of pairs if nothing is tied. It is less with ties, since a tied pair cannot agree.

# %%
lab.predict("19.d")

# %% [markdown]
# How surprising is a tau? Suppose that the order in one table has nothing to do with that in the other. Then each of the
# $n!$ orders of $y$ is equally likely, and for so few systems we can try them all:
#
# $$p = \frac{1}{n!}\; \#\big\{\text{orders } \pi :\; |\tau(x, y_\pi)| \ge |\tau(x, y)|\big\} \qquad (19.4)$$
#
# ### Exercise 19.3 · kendall
#
# Difficulty 4/5 · importance 4/5 · 20 minutes
#
# `x` and `y` are arrays (n,), the figures of the same n systems in two tables, n from 2 to 7. Either may have ties, but not
# all figures of a list are equal. Return two numbers: tau, and p. The order that is there is one of the $n!$.
#
# <details><summary>Hint 1</summary><code>np.sign(x[:, None] - x)</code> is a table (n, n) of the signs of all pairs. Each
# pair stands in it twice. This doubles the sum above the fraction line and the root below it, so you may sum over the whole
# table.</details>
# <details><summary>Hint 2</summary>The root is the same for all orders, since they have the same ties. So p needs the sum
# above the line only, and that is a whole number: compare it without rounding.
# <code>itertools.permutations(range(n))</code> gives the orders, as tuples; <code>y[list(order)]</code> is y in one of
# them.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# x_signs, y_signs = (np.sign(v[:, None] - v) for v in (x, y))
# orders = np.array(list(itertools.permutations(range(len(x)))))  # (n!, n), the first is 0, 1, 2, …
# agreements = (x_signs * y_signs[orders[:, :, None], orders[:, None]]).sum((1, 2))
# tau = agreements[0] / np.sqrt(np.square(x_signs).sum() * np.square(y_signs).sum())
# return tau, np.mean(abs(agreements) >= abs(agreements[0]))
# ```
#
# A loop over the orders is as good.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def kendall(x, y):
    """Figures (n,) of the same n <= 7 systems -> Kendall's tau with ties, and its two-sided p by all n! orders of y."""
    ### BEGIN SOLUTION
    x_signs, y_signs = (np.sign(v[:, None] - v) for v in (x, y))
    orders = np.array(list(itertools.permutations(range(len(x)))))  # (n!, n), the first is 0, 1, 2, …
    agreements = (x_signs * y_signs[orders[:, :, None], orders[:, None]]).sum((1, 2))
    tau = agreements[0] / np.sqrt(np.square(x_signs).sum() * np.square(y_signs).sum())
    return tau, np.mean(abs(agreements) >= abs(agreements[0]))
    ### END SOLUTION


# %%
lab.check("19.3", kendall)

# %% [markdown]
# First a question that needs no table of ours. Two columns of the published table measure the same systems. Do they agree
# on the order? (A low FID-vid is good, so its sign is turned.)

# %%
agreement = lab.yours("19.3")
with_both = [row for row in map(published.get, SYSTEMS.values()) if row.fid_vid is not None and row.clipsim is not None]
tau, p = agreement(np.array([-row.fid_vid for row in with_both]), np.array([row.clipsim for row in with_both]))
best = min(with_both, key=lambda row: row.fid_vid).system, max(with_both, key=lambda row: row.clipsim).system
print(f"{len(with_both)} systems: tau {tau:+.2f}, p = {p:.3f}; the best by FID-vid: {best[0]}, by CLIPSIM: {best[1]}")
print("the least p that full agreement can have: " + ", ".join(
    f"{2 / math.factorial(n):.2g} for {n} systems" for n in range(2, 8)))

# %% [markdown]
# What to see: the two columns agree on nearly every pair, but not on who is first. And with five systems even such an
# agreement is not beyond chance at 5 %. The second line says how little an order of few systems can prove: with fewer than
# five, nothing at that level.
#
# *What if?* A p for tau asks whether there is *any* relation. It does not ask whether the orders are the same. Seven systems
# can have a tau with a tiny p and another winner.
#
# ## 6 · A bug hunt
#
# A colleague has compared two systems. Each has written a log: a line for each clip, with the prompt, the seed, and whether
# the judge called it right. Her script reads line i of one log and line i of the other.


# %%
def logs(n, dice):
    """Two logs of n prompts with two seeds each, [(prompt, seed, right), …]; the second system is the better one."""
    prompts = [f"prompt {i}" for i in range(n)]
    hard = dice.uniform(size=(n, 1)) + dice.normal(0, 0.05, (n, 3))  # of each prompt and seed
    one, other = (hard + dice.normal(0, 0.05, hard.shape) < skill for skill in (0.70, 0.76))
    first = [(prompts[i], s, bool(one[i, s])) for s in (0, 1) for i in range(n)]
    second = [(prompts[i], s, bool(other[i, s])) for s in (1, 2) for i in range(n)]  # somebody began with --seed 1
    return first, [second[i] for i in dice.permutation(len(second))]  # several processes wrote it, each when it was ready


def by_line(first, second):
    """Her script."""
    return [line[2] for line in first], [line[2] for line in second]


def told(name, verdicts):
    one, other = map(np.array, verdicts)
    only_first, only_second, p = test(one, other)
    chance = (one.mean() * (1 - other.mean()) + other.mean() * (1 - one.mean())) * len(one)
    print(f"{name}: {one.mean():.1%} and {other.mean():.1%} right; only the first {only_first}, only the second "
          f"{only_second}, p = {p:.3f}")
    print(f"  they differ on {only_first + only_second} of {len(one)} lines; two strangers would differ on {chance:.0f}")


first, second = logs(200, np.random.default_rng(0))
told("by line", by_line(first, second))

# %% [markdown]
# She writes: no difference that could not be chance. The shares are right, for a share does not care about the order of
# lines. But look at the last line. Two systems that are asked the same things should agree on the easy and on the hard ones.
# These two differ as often as strangers.
#
# ### Exercise 19.B · paired
#
# Difficulty 3/5 · importance 5/5 · 10 minutes
#
# Mend it. `first` and `second` are lists of (prompt, seed, right). A pair is one line of each, with the same prompt *and*
# the same seed. Return two lists of bool of one length: the verdicts of the first and of the second, pair by pair, in the
# order of the first log. A line without its twin is left out. No log has a line twice.
#
# <details><summary>Hint 1</summary>What does line i of the second log belong to? Print the first three lines of
# both.</details>
# <details><summary>Hint 2</summary>A dictionary finds a line by what it is about:
# <code>{(prompt, seed): right for prompt, seed, right in second}</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# other = {(prompt, seed): right for prompt, seed, right in second}
# both = [(right, other[prompt, seed]) for prompt, seed, right in first if (prompt, seed) in other]
# return [one for one, _ in both], [one for _, one in both]
# ```
#
# Half of the lines are lost, because one seed is all that the two runs have in common. They would have been of use if
# somebody had fixed the seeds before.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def paired(first, second):
    """Logs [(prompt, seed, right), …] -> the verdicts of both on what both have done, in the order of the first."""
    ### BEGIN SOLUTION
    other = {(prompt, seed): right for prompt, seed, right in second}
    both = [(right, other[prompt, seed]) for prompt, seed, right in first if (prompt, seed) in other]
    return [one for one, _ in both], [one for _, one in both]
    ### END SOLUTION
    ### BEGIN STUDENT
    # return [line[2] for line in first], [line[2] for line in second]
    ### END STUDENT


# %%
lab.check("19.B", paired)

# %%
told("by line", by_line(first, second))
told("in pairs", lab.yours("19.B")(first, second))

# %% [markdown]
# What to see: half as many lines, and a p that is far smaller. The difference was there all the time. Such a bug raises no
# error, and it errs on the modest side, so nobody looks for it. One figure gives it away: the number of prompts on which two
# systems differ, beside what strangers would have.
#
# *What if?* The reverse mistake is to pair what is no pair and to count it as many: the eight seeds of one prompt are no
# eight prompts (13).
#
# ## 7 · Our table
#
# Now ours. Every system was asked the first prompts of three splits: *seen* combinations, combinations that were *held
# out*, and things known from *pictures only*. Prompt number i began with seed i. The judge of notebook 13 read each clip.
# Of each clip one verdict is kept: whether *all* is right. (The Chinese CogVideo was asked for the same clips in Chinese.)

# %%
import json

from minit2v.evaluation.table import cell
from minit2v.files import data_dir

kept = json.loads((data_dir() / "systems.json").read_text(encoding="utf-8"))
rows = {name: kept["rows"][name] for name in SYSTEMS if name in kept["rows"]}
SPLITS = {"test_seen": "seen", "test_heldout": "held out", "test_imageonly": "pictures only"}
right = {name: {split: np.array(list(row["verdicts"][split])) == "1" for split in SPLITS} for name, row in rows.items()}
SHARE = "{percent:.1f} ({low:.1f}–{high:.1f})"
print(f"{'% of clips':28}" + "".join(f"{f'all right, {told}':>26}" for told in SPLITS.values()) + f"{'direction, seen':>22}")
for name, row in rows.items():
    shares = "".join(f"{SHARE.format(**row['report'][split]['all']):>26}" for split in SPLITS)
    print(f"{SYSTEMS[name]:28}{shares}{SHARE.format(**row['report']['test_seen']['motion']):>22}")
for label, row in kept["bounds"].items():
    print(f"{label:36}{SHARE.format(**row['all']):>18}{'':52}{SHARE.format(**row['motion']):>22}")
as_reported = all(right[name][split].sum() == row["report"][split]["all"]["right"]
                  for name, row in rows.items() for split in SPLITS)
print(f"\n{len(rows)} of 7 systems; prompts of each split:", *sorted({row["n"] for row in rows.values()}))
print("the verdicts add up to the shares:", as_reported)

# %%
OURS = {"FID-vid": "FID-vid", "FVD": "FVD-mini", "CLIPSIM": "CLIPSIM"}  # the published name -> ours
print(f"{'seen prompts':36}" + "".join(f"{metric:>22}" for metric in OURS.values()) + f"{'seconds a clip':>18}")
lines = {SYSTEMS[name]: (row["report"]["test_seen"], f"{row['seconds_per_clip']:.2f}") for name, row in rows.items()}
for label, (row, seconds) in (lines | {label: (row, "") for label, row in kept["bounds"].items()}).items():
    cells = [cell(row["metrics"][metric] | {"limit": None}) for metric in OURS.values()]
    print(f"{label:36}" + "".join(f"{text:>22}" for text in cells) + f"{seconds:>18}")

# %% [markdown]
# How to read it. Begin with the rows at the end, the bounds. *Real clips* are the ceiling of the judge and the floor of the
# distances; a system that is beyond them is there by chance. Real clips that are *decoded* from latents or from tokens are the
# ceiling of the systems that make these. (MagicVideo and Video LDM have a decoder of their own, Make-A-Video has none.) The
# *image model, frame by frame* makes pictures that know nothing of one another. *Its first frame throughout* is
# a still: which of the columns does it win? *Without a prompt* shows how often a clip is right by luck. A row whose *all
# right* is not clearly above these last three has not learnt to make a clip from a sentence.
#
# Then go along a row. The gap from *seen* to *held out* says whether a system can put together what it never saw together.
# The gap to *pictures only* says whether it can move what it knows from pictures alone. A system may lose much in one of
# them and nothing in the other.
#
# Then compare the columns. If the distances put the systems in another order than the judge does, that is no contradiction.
# They ask whether the set of clips looks like real ones, and the judge asks whether each clip does what was said (13).
#
# ## 8 · The order, and how sure it is
#
# Each pair of systems now gets your test. With 21 pairs, or as many as there are here, your correction is needed. A place in
# an order has an interval, too: at best a system stands directly behind those that are *surely* ahead of it, at worst
# directly before those that are surely behind.

# %%
def pairs_of(split):
    """Every pair of systems on the prompts of a split: {(one, other): (only the one, only the other, p, Holm's p)}."""
    pairs = list(itertools.combinations(rows, 2))
    found = [test(right[one][split], right[other][split]) for one, other in pairs]
    return {pair: (*each, p) for pair, each, p in zip(pairs, found, correct(np.array([each[2] for each in found])))}


def surely(split):
    """{(one, other), …}: the first is ahead of the second by more than chance."""
    sure = [(pair, each) for pair, each in pairs_of(split).items() if each[3] < 0.05]
    return {pair if each[0] > each[1] else pair[::-1] for pair, each in sure}


for split, said in SPLITS.items():
    sure = surely(split)
    print(f"all right, {said}")
    for name in sorted(rows, key=lambda name: -right[name][split].mean()):
        first = 1 + sum(pair[1] == name for pair in sure)
        last = len(rows) - sum(pair[0] == name for pair in sure)
        place = f"place {first}" if first == last else f"place {first} to {last}"
        print(f"    {SYSTEMS[name]:20} {SHARE.format(**rows[name]['report'][split]['all']):>20} %   {place}")

# %%
ahead = [[100 * (right[one]["test_seen"].mean() - right[other]["test_seen"].mean()) for other in rows] for one in rows]
called = [SYSTEMS[name] for name in rows]
lab.matrix(np.array(ahead), called, called, ylabel="ahead, in points", xlabel="compared with", diverging=True,
           alt="A table of all pairs of systems: by how many percentage points the system of the row makes more clips "
           "right, on seen prompts, than the system of the column.")

# %%
BASE = "modelscope"
six = [name for name in rows if name != BASE]
found = [test(right[BASE]["test_seen"], right[name]["test_seen"]) for name in six]
every = pairs_of("test_seen")
print("seen prompts, ModelScopeT2V against     only it   only the other        p   Holm of six   Holm of all pairs")
for name, (only_base, only_other, p), of_six in zip(six, found, correct(np.array([p for *_, p in found]))):
    of_all = next(each[3] for pair, each in every.items() if set(pair) == {BASE, name})
    print(f"{SYSTEMS[name]:40}{only_base:7} {only_other:16} {p:8.2g} {of_six:13.2g} {of_all:19.2g}")

# %%
shares = {name: row["report"]["test_seen"]["all"] for name, row in rows.items()}
apart, sure, strangers = [], [], []
for (one, other), (only_one, only_other, _, p) in every.items():
    (low, high), (other_low, other_high) = ((shares[name]["low"], shares[name]["high"]) for name in (one, other))
    apart.append(low > other_high or other_low > high)
    sure.append(p < 0.05)
    x, y = right[one]["test_seen"], right[other]["test_seen"]
    by_chance = len(x) * (x.mean() * (1 - y.mean()) + y.mean() * (1 - x.mean()))
    strangers.append((only_one + only_other) / by_chance if by_chance else 0.0)
unseen = sum(p and not gap for gap, p in zip(apart, sure))
print(f"{len(sure)} pairs, seen prompts: the intervals are apart in {sum(apart)}, Holm's p is below 0.05 in {sum(sure)};")
print(f"it is below 0.05 although the intervals overlap in {unseen}")
print(f"prompts on which two differ, of what strangers would have: {min(strangers):.0%} to {max(strangers):.0%}")

# %% [markdown]
# How to read it. In the list, a single place is sure as far as these prompts go. Systems whose places overlap are not known
# to be equal: so many prompts could not tell them apart. Small differences need many prompts, and twice the prompts narrow
# an interval by less than a third. In the picture an orange row is ahead of many, and a violet one is behind.
#
# In the table of six look along a row. From left to right p stands for one question, for six and for all pairs, and it never
# falls. Is there a system that counts as different in one column and not in the next? Then the answer depends on how many
# questions were asked, and an honest report says how many.
#
# The last line is the test of section 6, on our own file. If the prompts did not belong together, every pair would be near
# 100 %. A single pair can be near it for another reason: a system that is hardly ever right differs from a good one nearly
# wherever the good one is right.
#
# One thing no test of this notebook can see. Each system was trained **once**. These p's speak about these weights, on
# prompts like these. Another training of the same system, from another random start, might stand elsewhere. To compare
# *systems* and not weights one trains each several times, and the unit is then the training, not the clip.
#
# And the published order?

# %%
def compared(what, ours, theirs):
    """A line of the table below, of figures of the same systems; nothing where there is no order to speak of."""
    if min(len(set(ours)), len(set(theirs))) > 1:
        tau, p = agreement(np.array(ours), np.array(theirs))
        print(f"{what:44} {len(ours):7} {tau:+8.2f} {p:7.3f} {2 / math.factorial(len(ours)):9.3f}")


print("our figure on seen prompts                   systems      tau       p   least p")
for column, metric in OURS.items():
    known = {name: published[SYSTEMS[name]].figures().get(column) for name in rows}
    known = {name: figure for name, figure in known.items() if figure is not None}
    theirs, turned = list(known.values()), 1 if column == "CLIPSIM" else -1
    found = [rows[name]["report"]["test_seen"]["metrics"][metric]["value"] for name in known]
    compared(f"{metric}, against the published {column}", found, theirs)
    shares_known = [turned * right[name]["test_seen"].mean() for name in known]
    compared(f"all right, against the published {column}", shares_known, theirs)
shares_seen = [right[name]["test_seen"].mean() for name in rows]
compared("all right, against your order", shares_seen, [-MY_ORDER.index(name) for name in rows])

# %% [markdown]
# How to read it: a positive tau means that our order leans towards the published one (FID-vid and FVD, where lower is
# better, are turned for *all right*), a negative one that it leans away. Then look at p, and at how small it could have been
# at all. A column of three systems can say nothing, whatever its tau is.
#
# If the orders agree, the ideas may be what counts, or something else that our systems have in common with the papers'. If
# they do not, that is no reproach to any paper. Their rows differ in data, size and protocol; ours have one data set, one
# protocol and small networks. So either the ideas alone do not make the published order, or at this size they do not make
# the same one, or, with so few systems trained once each, chance has made the difference.
#
# ## 9 · Minutes, steps and seconds
#
# "The same training" has two meanings. The same *number of steps* sounds fair, but a step of one system costs more than a
# step of another. The same *number of minutes* is what somebody with one machine has. Our recipes count steps, so that they
# give the same on every machine; the minutes that they took on one machine stand here. What several systems share, such as
# the latents, was trained once, and the column *with shared* counts it for each. What was there before these systems (the
# latents, the words and the image model) is counted with the minutes of its recipe, which are of another, slower machine.

# %%
from minit2v.recipes import recipe_of

FROM = {"videoldm": "modelscope", "magicvideo": "modelscope", "nuwa": "modelscope", "cogvideo": "nuwa",
        "cogvideo-zh": "nuwa"}  # where it found what they share
MOTION = {"nuwa": ["transformer"], "cogvideo": ["keyframes", "between"], "cogvideo-zh": ["keyframes", "between"],
          "makeavideo": ["unet", "between"]}  # the parts that learn motion, where they are not the UNet alone


def training(name, part):
    """Steps and minutes of a part: of the system's own training, of the one that it was taken over from, or of the recipe."""
    if found := rows.get(name, {}).get("training", {}).get(part):
        return np.array([found["steps"], found["minutes"]])
    if name in FROM:
        return training(FROM[name], part)
    return next(np.array([step.steps, step.minutes]) for step in recipe_of(name) if step.name == part)


print(f"{'':20} parameters   along time   minutes, own   with shared   of motion: steps   minutes   seconds each")
for name, row in rows.items():
    steps, minutes = sum(training(name, part) for part in MOTION.get(name, ["unet"]))
    own = sum(one["minutes"] for one in row["training"].values())
    whole = sum(training(name, step.name)[1] for step in recipe_of(name))
    along_time = f"{row['temporal'] / row['parameters']:.0%}" if row["temporal"] else "–"
    print(f"{SYSTEMS[name]:20} {row['parameters'] / 1e6:8.2f} M {along_time:>12} {own:14.0f} {whole:13.0f} "
          f"{steps:18,.0f} {minutes:9.0f} {60 * minutes / steps:14.2f}")
print("\nafter equal steps of motion, seen prompts (%):        all right             direction")
for name, row in kept["equal steps"].items():
    print(f"{SYSTEMS[name]:44}{SHARE.format(**row['all']):>20}{SHARE.format(**row['motion']):>22}")

# %% [markdown]
# How to read it: the lower table is the other protocol. In section 7 each system was trained for as many steps as it needs;
# here all have taken the same number. Compare with the order of section 8: which systems lose most, those at the top or those
# at the bottom?
#
# Look at the minutes of motion, too. Where two systems lie far apart there, the one that was given more has had an advantage,
# and their places in section 8 should be read with that in mind.
#
# *Along time* is the share of the parameters in layers that a picture model does not have. A dash means that none are
# counted as such; in NÜWA, for one, the same attention looks at space and time. Batches differ, too, so equal steps are not
# even equal clips ([docs/systems.md](../docs/systems.md) has them).
#
# The other bill comes later, with every clip.

# %%
seconds = {name: row["seconds_per_clip"] for name, row in rows.items()}
lab.bars({SYSTEMS[name]: one for name, one in seconds.items()}, "seconds a clip, with its own number of steps",
         alt="A bar for each system: how many seconds it takes to make one clip.")

# %%
sure = surely("test_seen")
for name in rows:
    by = [SYSTEMS[other] for other in rows if (other, name) in sure and seconds[other] < seconds[name]]
    print(f"{SYSTEMS[name]:20} " + (f"slower and surely worse than {', '.join(by)}" if by else
                                    "no other is both quicker and surely better"))
print("threads:", sorted({row["threads"] for row in rows.values()}))

# %% [markdown]
# How to read it: a system that no other beats in both is a choice that somebody can defend, for its quality or for its
# speed. The seconds are the median of three clips on one machine, with so many threads, and have no interval. On another
# machine the bars have other lengths, and not all by the same factor: a system that writes one token after another has less
# to do at once than one that computes a whole clip.
#
# ## 10 · Without names
#
# Figures leave out what nobody thought of measuring. So vote: the same prompts and seeds, two of the seven systems, no
# names. Vote on at least ten pairs, then ask for the result.

# %% tags=["nbval-ignore-output"]
# not compared by the tests: how many pairs there are depends on the mode
import minit2v
from minit2v.datasets.moving_things import MovingThings

makers = {"ModelScopeT2V": minit2v.load("modelscope", device=ctx.device),
          "Video LDM": minit2v.load("videoldm", device=ctx.device)}
count = ctx.pick(fast=2, default=12, full=24)
asked = [MovingThings("test_seen").text(i)[0] for i in range(count)]
clips = {name: pipe(asked, seed=0, steps=ctx.pick(fast=2, default=pipe.preset.steps)) for name, pipe in makers.items()}
lab.BlindABTest(clips, asked, "Which clip shows better what the prompt says?", least=min(10, count), name="blind-19")

# %% [markdown]
# Then compare. What does your interval say, and what did the judge's verdicts say about these two in section 8? You vote on
# a dozen prompts or two, and the judge had many more. So you may well see no difference where it has found one. The reverse
# is more interesting. If you surely prefer one and the judge sees nothing, what did you see? Say it in words, and think of a
# metric that would have seen it too.
#
# *What if?* Ask three people, and you have three votes on each pair. They are not three independent votes: a clip that is
# bad is bad for all three. The pair is the unit, as the prompt was in section 3.
#
# ## 11 · What was claimed, and what came out
#
# Back to section 2. First the claims that a paired test can answer. The p's are corrected for all of them together.

# %%
MORE, LEVEL = ("as claimed", "cannot be told", "the opposite"), ("even better", "no difference found", "not as claimed")
CLAIMS = [  # (claim, of whom, compared with, prompts, what to say: it is ahead, nothing is sure, it is behind)
    ("a window is enough", "nuwa", "cogvideo", "test_seen", LEVEL),
    ("pictures are handed on", "cogvideo", "nuwa", "test_imageonly", MORE),
    ("in either language", "cogvideo-zh", "cogvideo", "test_seen", ("a difference", "no difference found", "a difference")),
    ("nothing is lost", "videoldm", "modelscope", "test_imageonly", LEVEL),
    *[("joint training is better", "modelscope", other, "test_seen", MORE) for other in six],
]
CLAIMS = [one for one in CLAIMS if {one[1], one[2]} <= rows.keys()]
found = [test(right[one][split], right[other][split]) for _, one, other, split, _ in CLAIMS]
print(f"{'claim':26}{'system':20}{'compared with':20}{'prompts':15}{'only it / other':>15}{'p, Holm':>9}   outcome")
for (claim, one, other, split, words), (ours, theirs, _), p in zip(CLAIMS, found, correct(np.array([p for *_, p in found]))):
    outcome = words[1] if p >= 0.05 else words[0] if ours > theirs else words[2]
    print(f"{claim:26}{SYSTEMS[one]:20}{SYSTEMS[other]:20}{SPLITS[split]:15}{f'{ours} / {theirs}':>15}{p:9.2g}   {outcome}")

# %% [markdown]
# Then the claims about single attributes, whose verdicts were not kept prompt by prompt, and about FID-vid, which has none.
# Here two intervals are compared, which is the blunter tool.

# %%
def interval(name, *path):
    """A share of the judge or a metric of a row, on seen prompts: (value, low, high)."""
    row = rows[name]["report"]["test_seen"] if name in rows else kept["bounds"][name]
    for key in path:
        row = row[key]
    return row.get("percent", row.get("value")), row["low"], row["high"]


PICTURES = "image model, frame by frame"
CHECKS = [("looks without captioned videos", "makeavideo", BASE, ("shape",)), ("the same", "makeavideo", BASE, ("colour",)),
          ("but no direction", "makeavideo", BASE, ("motion",)),
          ("pictures as before", "videoldm", PICTURES, ("metrics", "FID-vid"))]
for claim, one, other, path in CHECKS:
    if one in rows and (other in rows or other in kept["bounds"]):
        (x, *ours), (y, *theirs) = interval(one, *path), interval(other, *path)
        outcome = "higher" if ours[0] > theirs[1] else "lower" if ours[1] < theirs[0] else "the intervals overlap"
        texts = ["{:.1f} ({:.1f}–{:.1f})".format(*each) for each in ((x, *ours), (y, *theirs))]
        print(f"{claim:32}{path[-1]:9}{SYSTEMS[one]:14}{texts[0]:20}{SYSTEMS.get(other, other):29}{texts[1]:20}{outcome}")
for other in ("videoldm", BASE):
    if {"magicvideo", other} <= rows.keys():
        share = rows["magicvideo"]["seconds_per_clip"] / rows[other]["seconds_per_clip"]
        print(f"{'a fraction of the computing':32}{'seconds':9}MagicVideo takes {share:.0%} of the time of {SYSTEMS[other]}")

# %% [markdown]
# How to read it. *As claimed*, *the opposite*, *not as claimed*, *even better* and *a difference* are findings, about our
# small systems on our clips. *Cannot be told* is none: the claim may be right or wrong. *No difference found* is the best that
# most claims of *no less* get, and it is cheap, for a test with ten prompts finds nothing either. How small a difference could
# have been found here? With as many prompts as two systems differ on, (19.1) gives the least uneven split that counts.
#
# For the direction of Make-A-Video *lower* is what the paper itself expects, and 18 has shown why. For FID-vid *higher*
# means that the layers along time have cost some of the pictures. *Lower* can happen too: the frames of one clip help one
# another. The share of the time has no interval; do not make much of a few percent.
#
# Whatever stands there: these are seven systems at the size of a laptop, in a world of moving shapes. A claim that fails
# here may hold for large models and real videos, and one that holds here may fail there. What this table can do, and the
# published one cannot, is to take the *idea* out of the data and the protocol that came with it.
#
# ## Takeaways
#
# 1. A row of a table is a system *with* its data, its size and its protocol. Only where these are the same does a
#    difference speak for the idea.
# 2. The same prompts make pairs. Count the prompts that exactly one of two systems gets right, correct for the number of
#    questions, and give places with their intervals. Not told apart is not equal.
# 3. An order of few systems proves little, a single training of each is one sample, and a claim about a part needs an
#    experiment that changes that part alone.
#
# ## Quiz

# %%
lab.quiz(19)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(19)

# %% [markdown]
# ## Further reading
#
# - The papers of the rows: Wu and others, [NÜWA](https://arxiv.org/abs/2111.12417); Hong and others,
#   [CogVideo](https://arxiv.org/abs/2205.15868); Zhou and others, [MagicVideo](https://arxiv.org/abs/2211.11018); Blattmann
#   and others, [Video LDM](https://arxiv.org/abs/2304.08818); Singer and others,
#   [Make-A-Video](https://arxiv.org/abs/2209.14792), which also measured CogVideo's two rows; Wang and others,
#   [ModelScopeT2V](https://arxiv.org/abs/2308.06571). Read the table of each first, and look for its protocol.
# - Lin and others, [VideoDirectorGPT](https://arxiv.org/abs/2309.15091), whose authors measured ModelScopeT2V again: the
#   last row of the table in [13](13_is_it_any_good.ipynb).
# - McNemar, [Note on the sampling error of the difference between correlated
#   proportions](https://doi.org/10.1007/BF02295996), Psychometrika 12 (1947): five pages. The exact form is the sign test of
#   the pairs that differ.
# - Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979): why the
#   promise is kept for tests that depend on one another.
# - Kendall, [A new measure of rank correlation](https://doi.org/10.1093/biomet/30.1-2.81), Biometrika 30 (1938): tau, and
#   its distribution by counting orders. The form for ties followed in 1945.
#
# **Next:** [21](21_one_step.ipynb) teaches a network to paint a clip in one step.
