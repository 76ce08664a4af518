# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Words into vectors: CLIP's text encoder
#
# **How a sentence becomes the twenty vectors that steer every step of the denoising, and what gets lost on the way.**
#
# **You will**
# - split words into byte pairs, by hand and with the real vocabulary
# - write causal attention, and prove with one changed word what it hides
# - rebuild the whole text encoder from its parts and compare every number
# - find out which words the model hears loudly and which it hardly hears
# - find a bug that was shipped in a serving engine, and that nobody heard
#
# **You need** [00 · Take-off](00_take_off.ipynb). Softmax and matrix products should be old friends; attention need
# not be.
#
# **Time** reading 15 minutes · running 5 to 40 seconds (fast mode the same) · exercises 32 minutes

# %%
from minit2v import lab

ctx = lab.setup(4)

# %% [markdown]
# ## 1 · What does the UNet get to read?
#
# The UNet cannot read. In every one of its attention layers it can look at a small table: one row for each *token* of
# the prompt, each row a vector. That table is called the **context**, and its shape is (b, n, d): b prompts, n
# tokens, d numbers a token. Everything the UNet will ever know of your sentence is in there.

# %%
encoder = ctx.pipe.text
prompt = "a large red circle moves left"
context = encoder.encode([prompt])
print("context (b, n, d):", tuple(context.shape))
print("words in the prompt:", len(prompt.split()))

# %% [markdown]
# Six words, but twenty rows. Which row belongs to which word, and what are the others? The next widget answers it.
# Select a token with the arrow keys or the mouse: you see its number in the vocabulary and which tokens it can see. On
# the right stands how alike the prompts are as a whole.

# %%
others = ["a large red circle moves right", "a large blue circle moves left", "a small red circle moves left", ""]
prompts = [prompt, *others]
lab.TokenLens(encoder, prompts, name="token-lens")

# %% [markdown]
# What to see: the first token of every prompt is a *start* mark, then come the words, then an *end* mark, and the
# rest is padding. The triangle is the causal mask; we shall come to it. The last prompt is empty: it has a start, an
# end, and padding. That is no special case but an important input: it is what guidance compares your prompt with. On
# the right, 1 means the same and 0 unrelated; look at the prompts 1 and 2, which differ in one word. (*Whitened* is
# explained in section 5.)
#
# ## 2 · From letters to tokens
#
# Why not simply number all words? Because there are too many, and tomorrow there is a new one. Why not number
# letters? Because then "circle" takes six rows, and the network has to learn spelling before meaning. CLIP uses what
# lies between: **byte-pair encoding**. Frequent words get a token of their own; rare ones are put together from
# pieces.

# %%
from minit2v.networks.text import Tokenizer

full = Tokenizer(context_length=77)  # the vocabulary of CLIP, as open_clip ships it
for text in ("a panda skateboarding", "a pandalike skateboardist"):
    print([full.bpe.decoder[i] for i in full.bpe.encode(text)])
print("tokens in the vocabulary:", len(full.rows))

# %% [markdown]
# What to see: "skateboarding" is common enough on the internet to have a token of its own, while the made-up words
# fall into pieces. `</w>` marks the end of a word, so that the "art" of "smart" is not the "art" of the museum.
#
# How does one get such a vocabulary? Start with single letters, count which two neighbours occur together most often,
# and make the pair a new token. CLIP did so 48,894 times. To *encode* a
# word, replay the merges in the order in which they were learnt. One merge is three lines:

# %%
pieces, pair = ["c", "i", "r", "c", "l", "e</w>"], ("l", "e</w>")
i = next(i for i in range(len(pieces) - 1) if (pieces[i], pieces[i + 1]) == pair)
print(pieces, "->", pieces[:i] + ["".join(pair)] + pieces[i + 2 :])

# %% [markdown]
# ### Exercise 4.1 · byte pairs
#
# Difficulty 3/5 · importance 3/5 · 10 minutes
#
# Write `encode_word(word, ranks)`. `ranks` is a dictionary from a pair of pieces, such as `("l", "e</w>")`, to a
# number: the lower, the earlier the merge was learnt. Start with the letters of the word, the last one with `</w>`
# behind it. As long as some neighbouring pair is in `ranks`, take the pair of *lowest rank* and merge *all* its
# occurrences, from left to right. Return the list of pieces. The check compares you with CLIP's own tokenizer on real
# words.
#
# <details><summary>Hint 1</summary><code>pairs = list(zip(pieces, pieces[1:]))</code>, and then <code>min(pairs,
# key=lambda pair: ranks.get(pair, float("inf")))</code>.</details>
# <details><summary>Hint 2</summary>Merge with a <code>while</code> loop over the positions: where the pair starts,
# append the joined piece and jump two; elsewhere append the piece and go on by one.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# pieces = [*word[:-1], word[-1] + "</w>"]
# while len(pieces) > 1:
#     best = min(zip(pieces, pieces[1:]), key=lambda pair: ranks.get(pair, float("inf")))
#     if best not in ranks:
#         break
#     merged, i = [], 0
#     while i < len(pieces):
#         found = tuple(pieces[i : i + 2]) == best
#         merged.append("".join(best) if found else pieces[i])
#         i += 2 if found else 1
#     pieces = merged
# return pieces
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def encode_word(word, ranks):
    """The byte-pair pieces of a word, as a list of texts; ranks {(piece, piece): order of the merge}."""
    ### BEGIN SOLUTION
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        best = min(zip(pieces, pieces[1:]), key=lambda pair: ranks.get(pair, float("inf")))
        if best not in ranks:
            break
        merged, i = [], 0
        while i < len(pieces):
            found = tuple(pieces[i : i + 2]) == best
            merged.append("".join(best) if found else pieces[i])
            i += 2 if found else 1
        pieces = merged
    return pieces
    ### END SOLUTION


# %%
lab.check("4.1", encode_word)

# %% [markdown]
# *What if?* The ranks of the real tokenizer are in `full.bpe.bpe_ranks`. Encode your own name. How many pieces is it
# worth?
#
# Our little model was trained on captions of very few different words. Of the rows that CLIP has in its table, one
# for each token, it keeps only those that these words need, so that the weights in the repository stay small. That
# has a price, and the library tells it in one line instead of drawing something wrong:

# %%
from minit2v.errors import UserError

print("words:", len(encoder.config.words), "· rows that mini keeps:", len(encoder.tokens.rows), "of", len(full.rows))
try:
    encoder.encode(["a large red cirkle moves left"])
except UserError as error:
    print(error)

# %% [markdown]
# ## 3 · Who may look at whom?
#
# A token number becomes a vector by looking it up in a table, and a second vector says at which place it stands. So
# far, no word knows of any other. To mean something together, words must look at one another. They do that by
# **attention**: each token asks a question (query q), each offers a label (key k) and a content (value v), and each
# takes the average of all contents, weighted by how well the labels fit the question.
#
# $$\mathrm{attention}(q, k, v) = \mathrm{softmax}\!\left(\frac{q k^\top}{\sqrt{d}}\right) v$$
#
# CLIP's text encoder adds one restriction: a token may look at itself and at what stands *before* it, never at what
# comes after. In a matrix of scores (row: who looks, column: at whom) everything above the diagonal is forbidden.
# Forbidden means minus infinity before the softmax, because e to the minus infinity is 0.

# %%
import torch

n = 5
mask = torch.full((n, n), float("-inf")).triu(1)
weights = torch.softmax(torch.zeros(n, n) + mask, dim=-1)
lab.matrix(
    weights,
    rows=["start", "a", "red", "ring", "end"],
    columns=["start", "a", "red", "ring", "end"],
    alt="A lower triangle of weights: row one has a single 1, row two twice 0.5, and so on; nothing above it.",
)

# %% [markdown]
# What to see: all scores are equal here, so each token takes the plain mean of what it may see. The start token sees
# only itself. The end token sees the whole prompt.
#
# Before you go on: the features of which token can depend on *every* word of the prompt? Do not be ashamed of a wrong
# guess. A well-known paper had it wrong too, until a reader pointed at the mask
# ([Attend-and-Excite, issue 9](https://github.com/yuval-alaluf/Attend-and-Excite/issues/9)).

# %%
choices = ["the start token", "the first word", "the end token"]
lab.predict("Which token can know the whole prompt?", "the end token", choices=choices)

# %% [markdown]
# We need not argue, we can measure. Two prompts that differ in their last word only: which rows of the context differ?

# %%
a, b = encoder.encode(["a large red circle moves left", "a large red circle moves right"])
changed = (a - b).abs().amax(dim=-1) > 1e-4  # (n, d) -> (n,)
print("".join("x" if different else "." for different in changed), "  x: row differs")

# %% [markdown]
# What to see: the first six rows, start, "a", "large", "red", "circle" and "moves", are the same in both. The word
# itself differs, the end token differs, and so does *all the padding behind it*, because padding comes after the
# words and looks back at them. Padding is not masked in this model: the UNet attends to all twenty rows, and the
# padded ones know the sentence too. A program that pads with something else, or masks the padding out, gives the UNet
# another input than it was trained with.
#
# And this is how the library does it. Look for `triu(1)`.

# %%
lab.show_source(type(encoder).forward)

# %% [markdown]
# ### Exercise 4.2 · causal attention
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write `causal_attention(q, k, v)` for tensors (n, d): n tokens, d numbers each, one head. Return (n, d). The check
# compares it with PyTorch's own, tries whether a later token leaks into an earlier result, and looks for NaN.
#
# <details><summary>Hint 1</summary>Scores are (n, n): <code>q @ k.T</code>, divided by the square root of d.</details>
# <details><summary>Hint 2</summary><code>torch.full((n, n), float("-inf")).triu(1)</code> is zero on and below the
# diagonal. With <code>triu(0)</code> a token may not even see itself; the first row is then a softmax over nothing,
# which is NaN. With <code>triu(2)</code> each token sees the next one.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# n, d = q.shape
# mask = torch.full((n, n), float("-inf")).triu(1)
# return torch.softmax(q @ k.T / d**0.5 + mask, dim=-1) @ v
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def causal_attention(q, k, v):
    """Single-head attention in which token i sees tokens 0..i: q, k, v (n, d) -> (n, d)."""
    ### BEGIN SOLUTION
    n, d = q.shape
    mask = torch.full((n, n), float("-inf")).triu(1)
    return torch.softmax(q @ k.T / d**0.5 + mask, dim=-1) @ v
    ### END SOLUTION


# %%
lab.check("4.2", causal_attention)

# %% [markdown]
# *What if?* CLIP has no need to predict the next word, so why is it causal at all? Its authors say: to be able to
# start from a language model, or to add language modelling later ([CLIP](https://arxiv.org/abs/2103.00020), section
# 2.4). They left both for the future, and many image and video models live with the mask to this day. Take it out of
# your function: what does the check notice first?
#
# ## 4 · Penultimate: one floor below the top
#
# CLIP was trained to put a picture and its caption at the same place of one space. Only the end token of the *last*
# block takes part in that comparison, so the block has no reason to keep what the other tokens say. Good for
# comparing, bad for us: we want to know what each *word* says. So text-to-video models of this family skip the last
# block, and apply the final normalisation to what the block before has made. "Penultimate layer" is all there is to
# it.
#
# The encoder's parts are plain attributes. Let us begin to run them by hand.

# %%
tokens = encoder.tokens([prompt]).to(ctx.device)  # (b, n), whole numbers
x = encoder.token_embedding(tokens) + encoder.positional_embedding  # (b, n) -> (b, n, d)
print("after the two tables:", tuple(x.shape))
print("blocks that are run:", len(encoder.blocks), "of", encoder.config.layers)

# %% [markdown]
# ### Exercise 4.3 · the encoder from its parts
#
# Difficulty 2/5 · importance 4/5 · 8 minutes
#
# Write `encode(encoder, tokens)`: ids (b, n) in, features (b, n, d) out, from `token_embedding`,
# `positional_embedding`, `blocks` (each is called as `block(x, attn_mask=mask)`) and `ln_final`, without calling the
# encoder itself. The check compares every number, on two small encoders of random weights: one with five words, one
# with the full vocabulary.
#
# <details><summary>Hint 1</summary>The two lines above are the beginning.</details>
# <details><summary>Hint 2</summary>The mask is (n, n) and the same for all blocks. Normalise once, after the last
# block that is run.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# x = encoder.token_embedding(tokens) + encoder.positional_embedding
# mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
# for block in encoder.blocks:
#     x = block(x, attn_mask=mask)
# return encoder.ln_final(x)
# ```
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def encode(encoder, tokens):
    """Ids (b, n) -> features (b, n, d) of the penultimate layer, after the final norm."""
    ### BEGIN SOLUTION
    x = encoder.token_embedding(tokens) + encoder.positional_embedding
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
    for block in encoder.blocks:
        x = block(x, attn_mask=mask)
    return encoder.ln_final(x)
    ### END SOLUTION


# %%
lab.check("4.3", encode)

# %% [markdown]
# *What if?* Leave out the positions, and encode "a red circle moves left" and "red a moves circle left". Are the
# features of "left" still different? (They are. The causal mask alone gives the order away: each word has seen other
# words before it.)
#
# `mini` adds one thing that the released model does not have. The start token sees only itself, so its row is the
# same for every prompt. `encoder.encode` writes something useful there. It runs the encoder once more, on the words
# before the first one that tells of motion, and puts the mean of all 20 rows into the first. The UNet's timestep
# embedding hears this row alone, so that *what* moves can be told apart from *where to*. The other 19 rows stay.


# %%
def context_of(features, text):
    """What the UNet reads of a text, (1, n, d), for a function features(tokens (1, n)) -> (1, n, d)."""
    whole, looks = (features(encoder.tokens([part]).to(ctx.device)) for part in (text, encoder.looks(text)))
    whole[:, 0] = looks.mean(dim=1)
    return whole


with torch.no_grad():
    by_hand = context_of(encoder, prompt)
print("the looks in the prompt:", encoder.looks(prompt))
print("as the library does it:", torch.allclose(by_hand, encoder.encode([prompt]), atol=1e-5))

# %% [markdown]
# ## 5 · Which words are loud?
#
# The encoder was trained by a simple game. Here are 128 pictures and 128 captions: say which belong together. (Half of
# the pictures are storyboards, four moments of a clip in one picture; else nobody would need the words for motion.)
# Nothing in that game asks for *fair* features. A word that helps much to tell captions apart gets loud, and a word
# that helps little stays quiet. How loud is each attribute in our context? Take a sentence, change one word, and see
# how far the mean of the rows moves.

# %%
from minit2v.datasets.moving_things import Spec, Thing, caption

plain = Thing("circle", "red", "large", "left", "quickly")
turned = {"shape": "square", "colour": "blue", "size": "small", "motion": "right", "speed": "slowly"}
fields = ["shape", "colour", "size", "motion", "speed"]
base = encoder.encode([caption(Spec((plain,)))]).mean(dim=1)
moved = {}
for field in fields:
    changed = Thing(*[turned[field] if f == field else getattr(plain, f) for f in fields])
    moved[field] = (encoder.encode([caption(Spec((changed,)))]).mean(dim=1) - base).norm().item()
lab.matrix(
    [list(moved.values())], rows=["distance"], columns=fields,
    alt="How far the mean feature moves when one word changes: one number for each of the five attributes.",
)

# %%
print("the loudest word moves the mean more than twice as far as the quietest:",
      max(moved.values()) > 2 * min(moved.values()))

# %% [markdown]
# What to see: five single words, and very different distances, from 1.9 for the shape to 9.2 for the size. Which word
# is loud is an accident of the game, not a matter of meaning: "left" and "right" are opposites for us, and near
# neighbours in this space.
#
# That is not a curiosity. A network learns first from what is loud. Trained on features as they are, a video model
# learns early *what* to draw and late *where to* it moves (`scripts/ablate_scene_prior.py` in the repository measures it).
# The released model of 1.7 billion parameters has trouble with directions too: in an independent test things moved as
# asked 30.5 % of the time, where guessing gives 25 % ([VideoDirectorGPT](https://arxiv.org/abs/2309.15091), table 1).
# Whether its text encoder is to blame, the test does not say. In `mini`, what helps is a layer that begins *whitened*:
# it turns up the quiet directions of feature space and turns down the loud ones.
#
# Here it is, on the means of the 576 captions that six shapes, six colours, two sizes, four directions and two speeds
# make:

# %%
from itertools import product

from minit2v.datasets.moving_things.dataset import FOUR
from minit2v.training.unet import whiten_input

shapes = ("circle", "square", "triangle", "cross", "ring", "moon")
colours = ("red", "green", "blue", "yellow", "cyan", "white")
every = product(shapes, colours, ("small", "large"), FOUR, ("slowly", "quickly"))
specs = [Spec((Thing(*values),)) for values in every]
means = encoder.encode([caption(spec) for spec in specs]).mean(dim=1).cpu()
print("captions:", len(specs), "· mean features:", tuple(means.shape))


def loudness(features):
    """Variance of the class means of features (n, d), for each attribute, as shares that add up to 1."""
    shares = []
    for field in fields:
        values = [getattr(spec.things[0], field) for spec in specs]
        centres = [features[[value == one for one in values]].mean(0) for value in sorted(set(values))]
        shares.append(torch.stack(centres).var(dim=0, correction=0).sum().item())
    return [share / sum(shares) for share in shares]


# %%
layer = torch.nn.Linear(means.shape[1], 256)
whiten_input(layer, means)
with torch.no_grad():
    before, after = loudness(means), loudness(layer(means))
lab.matrix(
    [before, after], rows=["as CLIP gives it", "whitened"], columns=fields,
    alt="Loudness of the five attributes as shares that add up to 1, before whitening above and after it below.",
)

# %%
motion = fields.index("motion")
print("the direction of motion is at least twice as loud as before:", after[motion] > 2 * before[motion])

# %% [markdown]
# What to see: each row shares out 1. In the upper one, 0.03 of it is motion's; in the lower one it is 0.18.
# (Whitening makes each *direction* of feature space equally loud, so an attribute of six values, which needs five
# directions, gets more than one of two.) No information was added; a change of coordinates can be undone. But a
# network learns from large differences first, and now "left" and "right" are a large difference.
#
# The function is the library's, used once, when the training of the UNet starts:

# %%
lab.show_source(whiten_input)

# %% [markdown]
# ## 6 · A bug hunt
#
# In December 2025 a fast serving engine repaired its CLIP text encoder: among other things, the causal mask had been
# left out ([sglang, pull request 14364](https://github.com/sgl-project/sglang/pull/14364)). That is not an error that
# stops a program. Here it is in our setting.


# %%
def broken_encode(encoder, tokens):
    """Features (b, n, d), a little too generous about who may look at whom."""
    x = encoder.token_embedding(tokens) + encoder.positional_embedding
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_final(x)


with torch.no_grad():
    right, wrong = encoder(tokens), broken_encode(encoder, tokens)
print("shape alike:", right.shape == wrong.shape, "· finite:", bool(wrong.isfinite().all()))
similar = torch.cosine_similarity(right.mean(1), wrong.mean(1)).item()
print("but the mean features point elsewhere, cosine below 0.95:", similar < 0.95)

# %% [markdown]
# The symptom: every shape is right, nothing is infinite, and a test that asks only for these two passes. What does
# the model make of such a context? We let it sample with the right and with the wrong one, from the same noise.

# %%
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided

clips = {}
for name, how in (("with the mask", encoder), ("without", lambda ids: broken_encode(encoder, ids))):
    with torch.inference_mode():
        model = guided(ctx.pipe.unet, context_of(how, prompt), context_of(how, ""), ctx.pipe.preset.guidance)
        noise = gaussian((1, 4, 16, 8, 8), ctx.generator()).to(ctx.device)
        for step in SAMPLERS["ddim"](model, noise, ctx.pipe.diffusion, ctx.pipe.preset.steps):
            pass
    clips[name] = ctx.pipe.decode(step.x)[0]
lab.strip(
    clips, n=6,
    alt="Two rows of six frames from the same noise and prompt: with the causal mask above, without it below.",
)

# %% [markdown]
# What to see: the lower row comes from vectors that the UNet has never met in training. Compare outline, size and
# place with the upper row: it is another clip, but it is a clip, and if you had only this one you might take it for a
# bad day of the model. That is what makes the bug so quiet. A wrong result that looks like a slightly worse one is
# blamed on the model, on the seed, on the weather, and lives for years.
#
# ### Exercise 4.B · a test that finds it
#
# Difficulty 3/5 · importance 5/5 · 6 minutes
#
# Write `is_causal(encode, encoder)`: it returns True if `encode(encoder, tokens)` hides later tokens from earlier
# ones, and False if it does not. Use two prompts of your choice; do *not* compare with the library's result. The
# check hands you a right encoder and three broken ones: without a mask, with a mask that is off by one, and one that
# answers NaN.
#
# <details><summary>Hint 1</summary>Section 3 did it already: change a late word and look at the early rows.</details>
# <details><summary>Hint 2</summary>A mask that is off by one lets a token see only its next neighbour, so compare all
# rows before the changed word, including the one right before it. And comparisons with NaN are always False; make
# sure that your function then says False too.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# tokens = encoder.tokens(["a large red circle moves left", "a large red circle moves right"])
# with torch.no_grad():
#     one, other = encode(encoder, tokens)
# return bool(((one[:6] - other[:6]).abs() < 1e-5).all())
# ```
# Row 6 is the changed word: start is row 0. NaN < 1e-5 is False, so NaN counts as broken.
# </details>
# <!-- END SOLUTION -->


# %% tags=["exercise"]
def is_causal(encode, encoder):
    """Whether encode(encoder, tokens (b, n)) -> (b, n, d) hides later tokens from earlier ones."""
    ### BEGIN SOLUTION
    tokens = encoder.tokens(["a large red circle moves left", "a large red circle moves right"])
    with torch.no_grad():
        one, other = encode(encoder, tokens)
    return bool(((one[:6] - other[:6]).abs() < 1e-5).all())
    ### END SOLUTION


# %%
lab.check("4.B", is_causal)

# %% [markdown]
# This is the pattern of all good tests in this library: not "is the output what it was yesterday", but a *property*
# that follows from what the thing is for. Yours would have found the
# bug on the day it was written.
#
# ## Takeaways
#
# 1. A prompt becomes a table (b, n, d): start, byte-pair pieces, end, padding. The UNet attends to all rows, padding
#    included.
# 2. The encoder is causal: early rows know nothing of later words. One changed word is enough to prove or to disprove
#    it.
# 3. Features are not fair. What the contrastive game did not need stays quiet, and a quiet word is one that the video
#    model may never learn to hear.
#
# ## Quiz

# %%
lab.quiz(4)

# %% [markdown]
# ## Equations, code and tests

# %%
lab.equations(4)

# %% [markdown]
# ## Further reading
#
# - [CLIP](https://arxiv.org/abs/2103.00020), sections 2.3 to 2.5: the contrastive game, and figure 3 with the whole
#   training in a dozen lines of pseudocode.
# - [Neural Machine Translation of Rare Words with Subword Units](https://arxiv.org/abs/1508.07909), section 3.2:
#   byte-pair encoding, by those who brought it to language.
# - [openai/CLIP, issue 183](https://github.com/openai/CLIP/issues/183): "Attention is not masked on padding tokens". A
#   good question, and a short answer by one of the authors: for CLIP itself the padding does not matter. Say why.
#
# **Next:** [05 · Destroying a video](05_destroying_a_video.ipynb). The two ends of the pipeline are built; now for
# its middle.
