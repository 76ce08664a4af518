# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 15 · CogVideo
#
# **A transformer that paints pictures, token after token, is frozen. Beside each of its attentions a second one is put that
# sees other frames. First it writes five frames far apart, and then those between them, again and again.**
#
# **You will**
# - put a second channel of attention beside a frozen one, and show that it begins as the picture model
# - draw who sees whom in both stages
# - write the mask of the frames between, and find the leak that it must not have
# - plan how 5 frames become 9 and 17
# - see what has to change for captions in Chinese: the size of the tables of words
# - find a bug in a loop, with a perfect painter
#
# **You need** [02](02_squeezing_frames.ipynb) for codes, [04](04_words_into_vectors.ipynb) for causal attention,
# [08](08_teaching_it_time.ipynb) for how a picture model becomes one of videos.
#
# **Time** reading 15 minutes · running 1 to 2 minutes (fast mode 20 to 60 seconds) · exercises 55 minutes

# %%
from minit2v import lab

ctx = lab.setup(15)

# %% [markdown]
# ## 1 · A picture is a sentence
#
# Notebook 02 made codes of a frame: numbers from a book, one for each cell. So a picture is a text in another alphabet, and
# a model of texts can write it. CogView2, the picture model inside CogVideo, puts the words of the caption and the tokens of
# the picture into one sequence. Each place sees what is before it, and says what comes next. There is no text encoder.
#
# Here is such a transformer, very small and with random weights: what follows is true of any weights.

# %%
import torch
from torch import nn

from minit2v.systems import cogvideo
from minit2v.systems.cogvideo import ChannelConfig, PictureTransformer, TemporalChannel

SIZES = ChannelConfig(codes=30, words=12, length=3, places=4, width=32, heads=4, layers=3)


def stirred(module, seed):
    """The module in float64, with numbers in every weight."""
    for p in module.double().parameters():
        nn.init.normal_(p, std=0.3, generator=ctx.generator(seed))
    return module


image = stirred(PictureTransformer(SIZES), 1)
words = torch.randint(12, (1, 3), generator=ctx.generator(2))  # a caption of three words
clip = torch.randint(30, (1, 5, 2, 2), generator=ctx.generator(3))  # five frames of 2 x 2 tokens
with torch.no_grad():
    print("what may come at each place of a picture:", tuple(image(words, clip[:, :1]).shape), "(b, f, h, w, codes)")
at = cogvideo.places(words=1 + 3, frames=[0], size=4, given=[False])
print("the sequence: frame", at.frame.tolist(), "\n              place", at.index.tolist())

# %% [markdown]
# `-1` is the caption: a token that section 3 explains, and three words. Then comes the frame, with a token that begins
# it and four of its own.
#
# The paper's transformer, CogView2, has 48 layers of width 3,072, a frame has 20 × 20 tokens, and a caption up to 64. Ours has
# 6 layers of width 128, and frames of 8 × 8. Three things differ in the picture model: plain layer norms, where CogView2 has
# "sandwich" norms; a token that begins every frame; and a learnt bias for each distance between two tokens.
#
# ## 2 · A second channel
#
# Now frames. The picture model has cost a fortune, so its weights are to stay. CogVideo's idea: beside every attention,
# `Base`, put another, `Plus`. Base sees the words and its own frame, as ever. Plus sees the words and *other frames* too.
# What they say is mixed, with a share for each channel of the vector:
#
# $$\text{out} = \alpha \cdot \text{Base}(h) + (1 - \alpha) \cdot \text{Plus}(h), \qquad
# \alpha = \text{sigmoid}(\text{mix}) \qquad (15.1)$$
#
# `mix` starts at 0, so $\alpha$ starts at a half. Plus starts as a copy of Base. Plus and `mix` are trained. Base is frozen,
# and so is the feed-forward layer after it, which both share.
#
# ### Exercise 15.1 · DualChannel
#
# Difficulty 3/5 · importance 5/5 · 15 minutes
#
# Write the module. `DualChannel(base)` gets the attention of a block, of the library's class `MaskedAttention`. It is
# called as `base(h, seen)`: h is (b, n, d), and `seen` is bool (n, n), True where place i sees place j.
# `forward(h, own, along)` gets two such masks, for the two channels, and returns (b, n, d).
#
# | name | what |
# | --- | --- |
# | `base` | the attention that was given, without gradient |
# | `extra` | a copy of it, with weights of its own that learn |
# | `mix` | an `nn.Parameter` (d,), zeros |
#
# <details><summary>Hint 1</summary><code>copy.deepcopy</code> makes the copy. It copies also whether a weight asks for a
# gradient: what is copied from frozen weights is frozen.</details>
# <details><summary>Hint 2</summary><code>module.requires_grad_(False)</code> freezes, with True it thaws. The width d is
# <code>base.to_out.out_features</code>. In forward, <code>share = self.mix.sigmoid()</code>, then (15.1) as it stands.
# Without gradient does not mean under <code>no_grad</code>: blocks before this one learn through it.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# super().__init__()
# self.base = base.requires_grad_(False)
# self.extra = copy.deepcopy(base).requires_grad_(True)
# self.mix = nn.Parameter(torch.zeros(base.to_out.out_features))
# ```
#
# ```python
# share = self.mix.sigmoid()
# return share * self.base(h, own) + (1 - share) * self.extra(h, along)
# ```
# </details>
# <!-- END SOLUTION -->

# %% tags=["exercise"]
import copy


class DualChannel(nn.Module):
    """h (b, n, d), own and along bool (n, n) -> (b, n, d)."""

    def __init__(self, base):
        ### BEGIN SOLUTION
        super().__init__()
        self.base = base.requires_grad_(False)
        self.extra = copy.deepcopy(base).requires_grad_(True)
        self.mix = nn.Parameter(torch.zeros(base.to_out.out_features))
        ### END SOLUTION

    def forward(self, h, own, along):
        ### BEGIN SOLUTION
        share = self.mix.sigmoid()
        return share * self.base(h, own) + (1 - share) * self.extra(h, along)
        ### END SOLUTION


# %%
lab.check("15.1", DualChannel)

# %%
lab.show_source(TemporalChannel.mixed)

# %% [markdown]
# The library keeps all second attentions of a model in one `TemporalChannel`, beside the picture transformer, so that two
# stages can have one each and share the frozen weights. And it tells the second channel, by a table that starts at zero, which
# frame a token belongs to. Both channels also add a learnt `bias` to their scores, one number for each head and distance, as
# NÜWA does (14). That of the second channel has rows for other frames too, which begin at zero.
#
# Two things are ours, and both begin without effect. The temporal channel adds something to each word, and beside each frozen
# feed-forward layer it has a small one of its own. The paper's picture model is large and has read captions of every kind.
# Ours has read captions of still pictures, so its frozen layers have never heard "left", and cannot work out what it means for
# a place.
#
# Does the whole model, with all its blocks, begin as the picture model?

# %%
lab.predict("15.a")

# %%
channel = TemporalChannel(SIZES).double().copy(image)
with torch.no_grad():
    alone = image(words, clip)  # no second channel: five pictures
    together = image(words, clip, channel)  # five frames
    one = image(words, clip[:, :1], channel)  # a clip of one frame
print("a clip of one frame is the picture model's:", torch.allclose(one, alone[:, :1], atol=1e-12))
print("the frames of five that are:", [torch.allclose(together[:, i], alone[:, i], atol=1e-12) for i in range(5)])

# %% [markdown]
# A single frame sees the same in both channels, so both say the same, and mixing changes nothing. It is exactly the picture
# model. The first of five frames is alone as well: nothing stands before it. The others have earlier frames in sight. Their
# second channel says something else from the first step on, with the eyes of a picture model.
#
# Compare with notebook 08. There a new branch starts at zero, and *every* frame begins as the picture model's. Both are ways
# to begin with something that works. Now the weights: who learns?

# %%
image.requires_grad_(False)
image(words, clip, channel).square().mean().backward()
learning = lambda module: sum(p.numel() for p in module.parameters() if p.grad is not None and p.grad.abs().max() > 0)
print("weights with a gradient: picture transformer", learning(image), "· temporal channel", f"{learning(channel):,}")

from minit2v.systems import build, find_preset

with torch.device("meta"):
    networks = build(find_preset("cogvideo"))
count = {name: sum(p.numel() for p in networks[name].parameters()) for name in ("image", "keyframes", "between")}
print({name: f"{n:,}" for name, n in count.items()}, f"· {count['keyframes'] / (count['image'] + count['keyframes']):.0%} "
      "of a stage is trained with videos")

# %% [markdown]
# In the paper it is 1.7 of 7.7 billion for each of two stages. What the picture model knows about looks cannot be unlearnt
# by videos, for its weights cannot change. What it *says* can: $\alpha$ may leave Base no share.
#
# *What if?* Take fresh random weights for Plus instead of the copy. Half of what each attention adds is then noise, and the
# model has to unlearn it first. In the paper's ablation a start from random weights throughout had the worst figure of all
# variants.
#
# ## 3 · Key frames, and a token for the rate
#
# A transformer that writes token after token can write only so many. CogVideo writes five frames, and wants to see a whole
# action in them. So it takes frames far apart, and says how far: the first token of the sequence is the **frame rate**.
# In training the lowest rate is chosen at which the video still gives five frames. So the five always span it.
#
# $$\underbrace{\text{rate}}_{\text{token}}\ \text{words}\ \ \text{frame}_0\ \ \text{frame}_1\ \cdots\ \text{frame}_4
# \qquad (15.2)$$

# %%
for rate, apart in enumerate(cogvideo.SPACINGS):
    frames = [i * apart for i in range(cogvideo.KEYS)]
    print(f"rate {rate}: frames {apart} apart, {frames} of {cogvideo.LENGTH}")
lab.show_source(PictureTransformer.caption)

# %% [markdown]
# Ours has three rates: all clips of Moving Things are equally long, so key frames are always 4 apart. The other two rates
# are for the frames between. A rate is a vector that is added to the first token, and it belongs to the temporal channel.
# The picture model has never heard of it.
#
# In this first stage, the second channel sees everything that stands earlier: words, whole earlier frames, and its own as
# far as it is written. A picture of both masks, for a caption of four tokens and five frames:

# %%
def who_sees_whom(masks, at, alt):
    """Masks bool (n, n) as pictures: the row looks; the seen is blue if it is of the own frame or a word, else orange."""
    n, size = len(at.frame), 8
    colours = torch.tensor([[240, 240, 240], [0, 114, 178], [230, 159, 0]])
    near = (at.frame[:, None] == at.frame[None]) | (at.frame[None] < 0)
    borders = size * (at.frame.diff().nonzero().flatten() + 1)
    pictures = []
    for mask in masks.values():
        tile = colours[mask * (2 - near.long())].byte().repeat_interleave(size, 0).repeat_interleave(size, 1)
        tile[borders], tile[:, borders] = 0, 0
        pictures.append(tile.numpy())
    return lab.sheet(pictures, list(masks), columns=3, alt=alt)


keys = cogvideo.places(words=4, frames=[0, 1, 2, 3, 4], size=4, given=[False] * 5)
own, along = keys.sees(keys)
who_sees_whom({"Base": own, "Plus, stage 1": along}, keys, "Two square masks with lines between the caption and five frames. "
              "Base: a triangle in each frame, and the caption. Plus: the same, and all of every earlier frame.")

# %% [markdown]
# What to see: rows look, columns are seen; first the caption, then frame 0 to frame 4. The small triangles are frames that
# see themselves as far as they are written. The first blue columns are the words. What is orange only Plus sees: all that
# makes a clip of five pictures.
#
# ## 4 · Frames between
#
# Five frames are not yet a video. The second stage has another temporal channel on the same frozen model. It gets five frames
# again, of which every second is **given**, and writes the two between:
#
# ```
# given 0    written 1    given 2    written 3    given 4
# ```
#
# What may see what? Words are as in the picture model: they see the words before them, and no frame. What *stands* before the
# writing begins may be seen by all frames. What is *written* may be seen only by what is written after it. This is the mask of
# Plus, (15.3):
#
# - **words** see the words up to and including themselves, and no frame
# - a **given** frame sees all words and all given frames, itself among them, whole: also frames that come later in the clip
# - a **written** frame sees all words, all given frames whole, all *earlier written* frames whole, and itself up to and
#   including the place that looks
# - nothing else is seen: a given frame sees no written one, a written frame no later written one
#
# ### Exercise 15.2 · sees
#
# Difficulty 4/5 · importance 5/5 · 20 minutes
#
# Write the mask. Each element of the sequence has a number in three lists: `frame` (n,) is -1 for words, else the number of
# its frame in the clip; `index` (n,) is its place within the words or the frame; `given` (n,) is True for elements of given
# frames. Return bool (n, n): does element i see element j? Two warnings: any frames may be given, or none; and the elements
# may stand in any order, for instance given frames first. So compare frames and indices, never where in the lists they are.
#
# <details><summary>Hint 1</summary><code>frame[:, None]</code> is the frame of the row that looks, <code>frame[None]</code>
# that of the column that is seen. A comparison of the two is (n, n). Make one mask for each reason to see something, and
# join them with <code>|</code>.</details>
# <details><summary>Hint 2</summary>Four reasons. The same frame (or words both) and an index that is not larger. A frame
# that looks at a word. A frame that looks at something given. Neither of the two given, the seen one no word, and its frame
# earlier.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# row, column = frame[:, None], frame[None]
# before = (row == column) & (index[None] <= index[:, None])
# words = (row >= 0) & (column < 0)
# stands = (row >= 0) & given[None]
# written = ~given[:, None] & ~given[None] & (column >= 0) & (column < row)
# return before | words | stands | written
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def sees(frame, index, given):
    """frame, index (n,) long, given (n,) bool -> bool (n, n): does element i see element j in the temporal channel?"""
    ### BEGIN SOLUTION
    row, column = frame[:, None], frame[None]
    before = (row == column) & (index[None] <= index[:, None])
    words = (row >= 0) & (column < 0)
    stands = (row >= 0) & given[None]
    written = ~given[:, None] & ~given[None] & (column >= 0) & (column < row)
    return before | words | stands | written
    ### END SOLUTION


# %%
lab.check("15.2", sees)

# %%
mask = lab.yours("15.2")
between = cogvideo.places(words=4, frames=[0, 1, 2, 3, 4], size=4, given=[True, False, True, False, True])
first = cogvideo.places(words=4, frames=[0, 2, 4, 1, 3], size=4, given=[True, True, True, False, False])
who_sees_whom({"stage 1": along, "stage 2, clip order": mask(*between), "stage 2, given first": mask(*first)}, between,
              "Three square masks. Stage 1 is filled below its diagonal. Stage 2 in the order of the clip has full squares "
              "where given frames see one another. With given frames first, it is filled below the diagonal, with a full "
              "block of given frames.")

# %% [markdown]
# What to see: in the middle, the order of the clip. Full squares are given frames that see one another, also backwards in
# time. The triangles are the two written frames. On the right the same mask with the elements sorted, given frames first.
# Now nothing is seen above the diagonal but within the block that stands. So it can be written from left to right, and what
# was computed for an element never changes: its keys and values are kept in a *memory*, and each is computed once. Here is
# the library's line of (15.3):

# %%
lab.show_source(cogvideo.Places.sees)

# %% [markdown]
# The paper's second stage looks less far: Plus sees a window of 10 × 10 places of other frames, shifted in every second
# layer. Our frames have 64 tokens, so we need no window.
#
# ### Why a given frame must not look
#
# "A given frame has nothing to predict," says a colleague, "so let it look at everything." A place of a written frame still
# sees nothing that comes later. Is there any harm?

# %%
lab.predict("15.b")

# %%
def told(seen, blocks):
    """Which elements can have reached which, after so many blocks, bool (n, n)."""
    reach = seen.double()
    for _ in range(blocks - 1):
        reach = (reach @ seen.double()).clamp(max=1)
    return reach > 0


def knows_its_answer(seen, blocks, at):
    """Of the written tokens, how many can be known already to the place that is to predict them."""
    asked = [i for i in range(len(at.frame)) if at.frame[i] >= 0 and not at.given[i] and at.index[i] < 4]
    reach = told(seen, blocks)
    return f"{sum(bool(reach[i, i + 1]) for i in asked)} of {len(asked)}"  # what i predicts stands at the next place


right = mask(*between)
curious = right | between.given[:, None]  # given frames see everything
for blocks in (1, 2, 3):
    print(f"{blocks} block{'s' * (blocks > 1)}: known answers {knows_its_answer(right, blocks, between)}; "
          f"with curious given frames {knows_its_answer(curious, blocks, between)}")

# %% [markdown]
# What to see: one block is harmless, and a test with one block passes. In the first block a given frame reads the whole
# written frame. In the second the written place reads the given frame, and the answer is there. In training the tokens that
# are to be predicted stand in the sequence, so the loss becomes wonderfully small. In sampling they do not, and the model has
# never learnt to do without. Whenever a loss is too good, count paths, not edges.
#
# *What if?* Give every element a number, the time at which it comes to be: words, then all that is given, then one written
# frame after the other. The whole mask of 15.2 is then one rule: nobody sees what comes to be later. Along such a rule no path
# leads back, however many blocks there are. The curious frames break it.
#
# One more thing belongs to what is given. The loss counts the tokens of written frames alone,
#
# $$L = -\frac{1}{|W|} \sum_{p \in W} \log p(x_p \mid \text{what } p \text{ sees}), \qquad W \text{: tokens that are written}
# \qquad (15.4)$$
#
# for a given frame sees itself whole, and there is nothing to learn from predicting what it sees.
#
# ## 5 · And again
#
# The second stage doubles the number of frames, and it can do so again with what it has written. Key frames are
# 4 apart; one round makes them 2 apart, the next one 1. But the model writes five frames at a time, of which three are
# given. So a longer clip is cut into **runs** of five, which share their ends:
#
# $$\text{run}_k = \big(4k a,\ 4ka + a,\ 4ka + 2a,\ 4ka + 3a,\ 4(k+1)a\big), \qquad a = \text{frames apart} \qquad (15.5)$$

# %%
lab.predict("15.c")

# %% [markdown]
# ### Exercise 15.3 · rounds
#
# Difficulty 3/5 · importance 4/5 · 12 minutes
#
# Plan the rounds. `keys` is how many frames a run has (an odd number, 5 for us), and `spacing` how far apart the key frames
# are (a power of two, 4 for us). The clip ends with the last key frame. Return a list with a pair for each round: `(apart,
# runs)`. `apart` is the distance of neighbours in a run of this round. `runs` is a list of lists: the frames of each run,
# numbered as in the clip. Every second of them is written, beginning with the second. The last round has `apart` 1; key frames
# that are 1 apart need no round.
#
# <details><summary>Hint 1</summary>Halve <code>spacing</code> until it is 1. A run spans <code>apart * (keys - 1)</code>,
# and the next one begins where it ends.</details>
# <details><summary>Hint 2</summary>Key frames span <code>spacing * (keys - 1)</code>: this is the last frame. Runs begin at
# <code>range(0, last, span)</code>, and a run is <code>range(first, first + span + 1, apart)</code>.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# length, found = spacing * (keys - 1) + 1, []
# while spacing > 1:
#     spacing //= 2
#     span = spacing * (keys - 1)
#     runs = [list(range(first, first + span + 1, spacing)) for first in range(0, length - 1, span)]
#     found.append((spacing, runs))
# return found
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def rounds(keys, spacing):
    """keys of a run, odd; spacing of the key frames, a power of two -> [(apart, [frames of a run, …]), …]."""
    ### BEGIN SOLUTION
    length, found = spacing * (keys - 1) + 1, []
    while spacing > 1:
        spacing //= 2
        span = spacing * (keys - 1)
        runs = [list(range(first, first + span + 1, spacing)) for first in range(0, length - 1, span)]
        found.append((spacing, runs))
    return found
    ### END SOLUTION


# %%
lab.check("15.3", rounds)

# %%
plan = lab.yours("15.3")(cogvideo.KEYS, cogvideo.SPACINGS[0])
stages = torch.zeros(1 + len(plan), cogvideo.LENGTH)
stages[:, :: cogvideo.SPACINGS[0]] = 1
stages[0] *= 2  # the key frames are written in stage 1
for i, (apart, runs) in enumerate(plan, start=1):
    print(f"{apart} apart: " + ", ".join(map(str, runs)))
    for run in runs:
        stages[i, run[::2]], stages[i, run[1::2]] = 1, 2
print("frames after each stage:", [int((row > 0).sum()) for row in stages])
lab.matrix(stages, ["stage 1", *(f"{apart} apart" for apart, _ in plan)], list(range(cogvideo.LENGTH)), xlabel="frame",
           alt="Three rows for 17 frames: 2 where a frame is written, 1 where it is given, 0 where it is missing. Five are "
           "written first, then four between them, then eight.")

# %% [markdown]
# What to see: 2 is written, 1 is given, 0 is not there yet. A frame that is written in one row is given in the next.
#
# Runs of one round do not see each other. That has two sides. They can be written side by side, as a batch: one waits for
# 5 + 2 + 2 frames instead of 17. But frames 3 and 5, both next to the given frame 4, have never seen each other, so whatever
# frame 4 does not settle they may settle differently. And what a round gets wrong the next takes as given. The paper repeats
# rounds until it has its frame rate; ours ends at 17 frames, of which 16 are shown.

# %%
lab.show_source(cogvideo.CogVideo.halve)

# %% [markdown]
# *What if?* With 33 frames and key frames 8 apart there is one round more, and the wait is 11 frames: each doubling costs
# two frames. But the rate token would have to be trained for it, and the key frames would have to leap further.
#
# ## 6 · 一个小的绿色圆形
#
# The table in the paper of ModelScopeT2V (13) has CogVideo twice: asked in Chinese, its own language, and asked in English.
# Here we train it twice, on the same clips, with captions that say the same. What differs between the two models?

# %%
from minit2v.datasets.moving_things import caption, parse

PROMPT = "a small green circle moves quickly left"
twins = {"cogvideo": PROMPT, "cogvideo-zh": caption(parse(PROMPT), "zh")}
sizes = {}
for name, text in twins.items():
    preset = find_preset(name)
    print(f"{name:12} {text}  ->  {cogvideo.Words(preset.text).encode([text])[0].tolist()}")
    with torch.device("meta"):
        sizes[name] = {f"{part}.{key}": tuple(p.shape) for part, network in build(preset).items()
                       for key, p in network.named_parameters()}
english, chinese = sizes.values()
print("weights of another size:", {key: (english[key], chinese[key]) for key in english if english[key] != chinese[key]})

# %% [markdown]
# Only some tables have another size, those with a row for each word that captions use, and one row for nothing. The picture
# model has one such table, and each temporal channel has one of what it adds to the words. (The channels need theirs because
# captions of pictures have no words of motion.) Chinese puts no spaces
# between words, so `Words` takes the longest phrase that it knows, again and again. The rest of the model has no idea that it
# is Chinese. (A word is a token here because the captions use so few of them. The paper has icetk, one vocabulary of pieces of
# words and of pictures.)
#
# All other sizes are the same, but the *values* are not. The transformer and its channels are trained anew, for the picture
# model reads captions, too. Only the autoencoder, which has seen no words, is the same.
#
# ## 7 · A bug hunt
#
# The trained second stage works in every test. The loss is fine, and the mask is right. A colleague writes the loop that
# fills in frames. Her clips stutter: a thing waits, and then leaps.
#
# To look at the loop alone, take a perfect painter in place of the network. It is asked for a frame and told all frames that
# are known. If those on both sides are among them, it paints exactly what lies between. With one side alone it cannot know
# where things go, so it repeats the nearest.

# %%
import numpy as np

from minit2v.datasets.moving_things import MovingThings

frames, texts, _ = MovingThings("test_seen").batch([0])
truth = list(frames[0][:14:2])
print(texts[0])


def painter(number, known):
    """A perfect one: known is {number: frame}."""
    if number - 1 in known and number + 1 in known:
        return truth[number]
    return known[min(known, key=lambda one: abs(one - number))]


def broken(ask, frames):
    """ask (number, known) -> a frame; frames: a list, None where one is missing -> the whole list."""
    known = {}
    for number, frame in enumerate(frames):
        known[number] = ask(number, dict(known)) if frame is None else frame
    return [known[number] for number in range(len(frames))]


given = [frame if i % 2 == 0 else None for i, frame in enumerate(truth)]
lab.strip({"the clip": np.stack(truth), "every second given, the others written": np.stack(broken(painter, given))}, n=7,
          alt="Two rows of seven frames. In the upper one a thing moves evenly. In the lower one every second frame repeats "
          "the frame before it.")

# %% [markdown]
# What to see: the painter is perfect, and every written frame repeats the one before it. So it is the loop.
#
# ### Exercise 15.B · filled
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# Mend it. Any frames may be given. Missing ones are asked for in the order of the clip.
#
# <details><summary>Hint 1</summary>What is known when frame 1 is asked for? What should be?</details>
# <details><summary>Hint 2</summary>The order of the clip is not the order of writing. Which frames stand before the loop
# begins?</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# known = {number: frame for number, frame in enumerate(frames) if frame is not None}
# for number, frame in enumerate(frames):
#     if frame is None:
#         known[number] = ask(number, dict(known))
# return [known[number] for number in range(len(frames))]
# ```
#
# She went through the clip once, and a given frame became known when its turn came. With a network and its memory the same
# loop does two kinds of harm: written frames are blind to the given frame after them, and given frames enter the memory
# after written ones.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def filled(ask, frames):
    """ask (number, known {number: frame}) -> a frame; frames: a list with None where one is missing -> the whole list."""
    ### BEGIN SOLUTION
    known = {number: frame for number, frame in enumerate(frames) if frame is not None}
    for number, frame in enumerate(frames):
        if frame is None:
            known[number] = ask(number, dict(known))
    return [known[number] for number in range(len(frames))]
    ### END SOLUTION
    ### BEGIN STUDENT
    # known = {}
    # for number, frame in enumerate(frames):
    #     known[number] = ask(number, dict(known)) if frame is None else frame
    # return [known[number] for number in range(len(frames))]
    ### END STUDENT


# %%
lab.check("15.B", filled)

# %%
mended = lab.yours("15.B")(painter, given)
print("written frames that are those of the clip:", sum(bool((mended[i] == truth[i]).all()) for i in range(1, 7, 2)), "of 3")

# %% [markdown]
# *What if?* Ask for the missing frames from the end to the beginning. With the painter nothing changes. With the network it
# would: a written frame sees *earlier* written ones, because it was trained so. What is computed at once in training and what
# is written one after the other in sampling must be the same thing, down to the order.
#
# ## 8 · Trained
#
# `cogvideo` was trained in three stages (the autoencoder with its codebook is that of `nuwa`): the picture transformer, then a
# temporal channel for key frames and another for frames between, both on the frozen transformer. A step of its sampler is a
# frame, in the order of your plan. Tokens are drawn from the 32 most likely, at a temperature of 0.5 (14), and guidance pushes
# logits, as (10.1) pushes clips, away from what an empty caption would make likely. (The paper draws from 12, pushes away from
# the caption "video", and ends with a network that makes 480 × 480 pixels of 160 × 160.)

# %%
import minit2v

pipe = minit2v.load("cogvideo", device=ctx.device)
steps = list(pipe.stream(PROMPT, seed=3))
last = pipe.decode(steps[-1].x)[0]
order = [*range(0, cogvideo.LENGTH, cogvideo.SPACINGS[0]), *(
    run[i] for _, runs in plan for i in range(1, cogvideo.KEYS, 2) for run in runs)]
rows = {}
for title, n in {"stage 1": 5, "2 apart": 9, "1 apart": 17}.items():
    standing = np.full_like(last, 255)
    for frame in order[:n]:
        if frame < len(last):  # the last of 17 is not shown
            standing[frame] = last[frame]
    rows[title] = standing
lab.strip(rows, n=16, alt="Three rows of sixteen places. In the first every fourth frame stands, in the second every second, "
          "in the third all.")

# %% [markdown]
# How to read it: go down a column. All rows are cut from the finished clip, for tokens once written never change. First look
# at the key frames alone: do they tell the whole action that the prompt asks for, and is it one and the same thing in all of
# them? Then look at what the second stage made of it. A frame between may be where it should be; or nearer to one of its
# neighbours; or a mixture of both, a ghost. Errors of the second row are given to the third.
#
# How much does each block use its second channel? $\alpha$ is the share of Base, $1 - \alpha$ that of Plus.

# %%
blocks, lines = list(range(1, pipe.preset.image.layers + 1)), {}
for name, network in {"key frames": pipe.keyframes, "frames between": pipe.between}.items():
    alpha = network.mix.detach().float().cpu().sigmoid()  # (layers, width): the share of the picture channel
    low, high = alpha.quantile(0.1, dim=1), alpha.quantile(0.9, dim=1)
    lines[name] = (blocks, alpha.mean(1))
    print(f"{name:14} " + ", ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(low, high)))
lab.curves(lines | {"at the start": (blocks, [0.5] * len(blocks))}, "block", "alpha, mean over the vector",
           alt="The mean share alpha of the picture channel in each block, a line for each stage, and a level one at a half.")

# %% [markdown]
# How to read it: above the level line a block trusts the picture model more than at the start, below it less. The ranges
# above hold eight tenths of the numbers of each block, because a mean of a half may also be a quarter here and three quarters
# there. Which blocks have moved, and do both stages agree? Be careful with small movements. $\alpha$ is not the only way to
# change the mixture: Plus can also make its own output larger.
#
# A surer way to see what a part does is to take it away (08). With $\alpha = 1$ everywhere, without the rate, and without what
# the channel adds to the words and to the feed-forward layers, nothing is left but the frozen picture model. It paints five
# pictures of the prompt. It is asked without the words of motion, which it has never read.

# %%
from contextlib import contextmanager
from itertools import islice


@contextmanager
def switched_off(channel):
    """Within the block alpha is 1, and the channel adds nothing to the rate, to the words and to the feed-forward layers."""
    kept = copy.deepcopy(channel.state_dict())
    with torch.no_grad():
        channel.mix.fill_(torch.inf)  # sigmoid(inf) = 1
        for parameter in (channel.rates, channel.words, *channel.feed_forwards.parameters()):
            parameter.zero_()
    try:
        yield
    finally:
        channel.load_state_dict(kept)


def key_frames(model, prompt, seed=3):
    """The frames of stage 1 that are shown, uint8 (4, H, W, 3)."""
    *_, step = islice(model.stream(prompt, seed=seed), cogvideo.KEYS)
    return model.decode(step.x)[0][:: cogvideo.SPACINGS[0]]


with switched_off(pipe.keyframes):
    pictures = key_frames(pipe, "a small green circle")
lab.strip({"both channels": last[:: cogvideo.SPACINGS[0]], "the picture channel alone": pictures}, n=4,
          alt="Two rows of four key frames of one seed: with both channels and the whole prompt, and with the picture channel "
          "alone, asked without the words of motion.")

# %% [markdown]
# What to see: the first frames may be alike or not. Nothing stands before either, but only the model of the upper row has
# learnt "left", which tells where a path begins. In the lower row each frame is a picture of its own. Compare looks: colour,
# shape, size. They are the picture model's business in both rows. Then compare places: only the upper row can have a path.
#
# And the twin, asked for the same thing in Chinese. It has other weights, so the same seed says nothing here. Ask of both
# rows the same question: does it show what the caption says?

# %%
chinese_pipe = minit2v.load("cogvideo-zh", device=ctx.device)
lab.strip({"English": last[:: cogvideo.SPACINGS[0]], "Chinese": key_frames(chinese_pipe, twins["cogvideo-zh"])}, n=4,
          alt="Two rows of four key frames: of the English model, and of the Chinese one with the same caption in Chinese.")

# %% [markdown]
# One clip is an anecdote. [19 · Seven systems](19_seven_systems.ipynb) compares both with the other systems, on the same
# prompts and seeds.
#
# ## Takeaways
#
# 1. A frozen picture model and a second channel that begins as its copy: at the start a single frame is exactly the picture
#    model's. Its weights stay as they are, but the mixture may come to use them less.
# 2. What stands may be seen by all frames, what is written only by what comes later in the *writing*. A mask is right if no path
#    through several blocks leads from an answer to its question.
# 3. Key frames first, then halves: 5, 9, 17. Runs are written side by side, and errors are handed down.
#
# ## Quiz

# %%
lab.quiz(15)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(15)

# %% [markdown]
# ## Further reading
#
# - Hong and others, [CogVideo](https://arxiv.org/abs/2205.15868), section 3: five pages, and figure 2 is section 5 of this
#   notebook.
# - Ding and others, [CogView2](https://arxiv.org/abs/2204.14217), section 3: the picture model that was frozen.
# - Blattmann and others, [Align your latents](https://arxiv.org/abs/2304.08818), section 3.1: the same idea for diffusion,
#   with an $\alpha$ for each layer.
#
# **Next:** [16 · MagicVideo](16_magicvideo.ipynb) goes back to diffusion, and adds next to nothing to a picture model.
