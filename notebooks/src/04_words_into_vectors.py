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
# - see by which ways a text enters the UNet, and measure which way carries which word
# - find out which words are loud in the features, and how many swaps it takes to be sure
# - learn a vocabulary of your own from captions, and see whose words it cuts into pieces
# - find a bug that was shipped in a serving engine
#
# **You need** [00 · Take-off](00_take_off.ipynb). You should know softmax and matrix products. You need not know
# attention.
#
# **Time** reading 25 minutes · running 10 to 60 seconds (fast mode the same) · exercises 52 minutes

# %%
from minit2v import lab

ctx = lab.setup(4)

# %% [markdown]
# ## 1 · What does the UNet get to read?
#
# The UNet cannot read. It works with numbers, so somebody has to turn the sentence into numbers first. That is the job
# of the **text encoder**. It makes a small table: one row for each *token* of the prompt, and each row is a vector. The
# table is called the **context**, and its shape is (b, n, d): b prompts, n tokens, d numbers a token. Everything that
# the UNet will ever know of your sentence is in there.

# %%
encoder = ctx.pipe.text
prompt = "a large red circle moves left"
context = encoder.encode([prompt])
print("context (b, n, d):", tuple(context.shape))
print("words in the prompt:", len(prompt.split()))

# %% [markdown]
# Six words, but twenty rows. Before you see which row belongs to which word, make a guess. It does not matter if it is
# wrong.

# %%
lab.predict("4.a")

# %% [markdown]
# Now look at the tokens. In the next widget you select one with the arrow keys or the mouse. It shows the number of the
# token in the vocabulary, and on the left, as dark cells, which tokens it can see. On the right stands how alike whole
# prompts are.

# %%
prompts = [prompt, "a large red circle moves right", "a large red circle", "moves left", ""]
lab.TokenLens(encoder, prompts, name="token-lens")

# %% [markdown]
# What to see: the first token of every prompt is a *start* mark. Then come the words, then an *end* mark, and the rest is
# *padding*, which fills the table up to twenty rows. (The widget shows the first twelve rows; the other eight are padding too.)
# The triangle is the causal mask; section 3 explains it.
#
# The last prompt is empty: it has a start, an end and padding. It looks like a special case, but it is an important
# input. Guidance (notebook 10) compares the answer for your prompt with the answer for the empty one.
#
# In the tables on the right, 1 means the same and 0 means unrelated. Look at the prompts 1 and 2. For us "left" and
# "right" are opposites; for the encoder the two prompts are near neighbours. Section 6 asks what that means, and it
# explains the word *whitened*.
#
# ## 2 · From letters to tokens
#
# Why not simply number all words? Because there are too many, and tomorrow there is a new one. Why not number
# letters? Because then "circle" takes six rows, and the network has to learn spelling before meaning. CLIP uses
# something in between: **byte-pair encoding**. A frequent word has a token of its own. A rare word is put together from
# smaller pieces.

# %%
from minit2v.networks.text import Tokenizer

full = Tokenizer(context_length=77)  # the vocabulary of CLIP, as open_clip ships it
for text in ("a panda skateboarding", "a pandalike skateboardist"):
    print([full.bpe.decoder[i] for i in full.bpe.encode(text)])
print("tokens in the vocabulary:", len(full.rows))

# %% [markdown]
# What to see: "skateboarding" is common enough on the internet to have a token of its own, while the made-up words
# fall into pieces. `</w>` marks the end of a word, so that the "art" at the end of "smart" and the "art" in "artist" are
# two different tokens.
#
# How does one get such a vocabulary? Start with single letters, count which two neighbours occur together most often,
# and make this pair a new token. Then count again. CLIP did so 48,894 times, and in section 7 you will do it too. To
# *encode* a word, one replays the merges in the order in which they were learnt. One merge is three lines:

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
# occurrences, from left to right: "aaa" and the pair (a, a) give "aa" and "a". Return the list of pieces. The check
# tries made-up tables first, then CLIP's own on real words.
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
# *What if?* The ranks of the real tokenizer are in `full.bpe.bpe_ranks`. Encode your own name, in lower case and without
# accents: CLIP lower-cases a text, and cuts its bytes, of which "é" has two. How many pieces does it take?
#
# Our small model, `mini`, was trained on captions with very few different words. CLIP has a table with one row for each
# token. `mini` keeps only the rows that its words need, so that the weights in the repository stay small. This has a
# price: it cannot read any other word. The library says so in one line instead of drawing something wrong:

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
# The number of a token selects a vector from a table. A second vector, which says at which place the token stands, is
# added to it. So far no word knows of any other: the vector of "red" is the same whether a circle follows or a ring. To
# mean something together, words must look at one another. They do this by **attention**. Each token asks a question
# (its query q). Each token also offers a label (its key k) and a content (its value v). A token then takes an average
# of all contents, weighted by how well their labels fit its question.
#
# $$\mathrm{attention}(q, k, v) = \mathrm{softmax}\!\left(\frac{q k^\top}{\sqrt{d}}\right) v$$
#
# CLIP's text encoder adds one restriction: a token may look at itself and at the tokens *before* it, never at those
# after it. This is called a **causal mask**. In a matrix of scores (row: who looks, column: at whom) everything above
# the diagonal is forbidden. Forbidden means minus infinity before the softmax, because e to the minus infinity is 0.

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
# What to see: all scores are equal here, so each token takes the plain mean of the tokens that it may see. The start
# token sees only itself. The end token is the first that sees the whole prompt.
#
# So the start token cannot know the prompt, in any layer. This sounds obvious, and is easily forgotten: a well-known paper had
# it wrong, and a reader had to point at the mask ([Attend-and-Excite, issue
# 9](https://github.com/yuval-alaluf/Attend-and-Excite/issues/9)).
#
# We need not argue, we can measure. Here are two prompts that differ only in their last word. Which rows differ? (We ask
# the encoder itself. Section 5 tells what `mini` does with the first row afterwards.)

# %%
with torch.no_grad():
    two = encoder(encoder.tokens(["a large red circle moves left", "a large red circle moves right"]).to(ctx.device))
changed = (two[0] - two[1]).abs().amax(dim=-1) > 1e-4  # (n, d) -> (n,)
print("".join("x" if different else "." for different in changed), "  x: the row differs")
print(int(changed.sum()), "of", len(changed), "rows differ")

# %% [markdown]
# What to see: the first six rows, start, "a", "large", "red", "circle" and "moves", are the same in both. The word
# itself differs, and the end token differs. So does *all the padding behind it*, because padding comes after the words
# and looks back at them.
#
# Many people expect that padding is masked, that is, hidden from the UNet. In this model it is not. The UNet attends to
# all twenty rows, and the padded ones know the sentence too. A program that pads with another token, or masks the
# padding, gives the UNet an input that it was not trained with.
#
# ### Exercise 4.2 · causal attention
#
# Difficulty 2/5 · importance 5/5 · 8 minutes
#
# Write `causal_attention(q, k, v)` for tensors (n, d): n tokens, d numbers each, with a single head (networks run several such
# attentions side by side). Return (n, d). The check compares it with PyTorch's own, tries whether a later token leaks into an
# earlier result, and looks for NaN.
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
# block takes part in that comparison. So the last block has no reason to keep what the other tokens say: it may move
# everything into the end token. That is good for comparing, and bad for us, because we want to know what each *word*
# says. Text-to-video models of this family therefore skip the last block, and apply the final normalisation to the
# output of the block before it. This output is the *penultimate layer*.
#
# The encoder's parts are plain attributes. `encoder.blocks` no longer contains the last block of CLIP. Let us begin to
# run the parts by hand.

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
# encoder itself. The encoder that your function is given decides all sizes: the check has several with random weights,
# with five words and with the full vocabulary, and compares every number.
#
# <details><summary>Hint 1</summary>The line above that makes <code>x</code> is the beginning; <code>tokens</code> are given.</details>
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
# And this is how the library does it. Look for `triu(1)`, and for the place of the normalisation:

# %%
lab.show_source(type(encoder).forward)

# %% [markdown]
# *What if?* Leave out the positions, and encode "a red circle moves left" and "red a moves circle left". Are the features of
# "left" still different? (They are. "Left" sees the same four words before it in both. But each of these four has itself seen
# other words before it, so the causal mask alone gives the order away.)
#
# ## 5 · By which ways does the text enter?
#
# The table is finished. Now the UNet has to use it. In the paper on ModelScopeT2V there is one way in: **cross-attention**. In
# many places of the UNet each cell of the picture looks at the rows of the table, as words look at one another above.
#
# `mini` is small and was trained for hours, not for weeks, so it needs more help. It *departs* from the paper: each
# departure is a setting that is off in the released model. Three of them concern the text.
#
# **The looks come first.** The start token sees only itself, so its row is the same for every prompt: a row that says
# nothing. `encoder.encode` writes something useful there. It runs the encoder once more, on the words before the first
# one that tells of motion. This is the *noun phrase*: "a large red circle". The mean of its rows replaces the row of the
# start token. The other 19 rows stay as they are.


# %%
def context_of(features, text):
    """What the UNet reads of a text, (1, n, d), for a function features(tokens (1, n)) -> (1, n, d)."""
    whole, looks = (features(encoder.tokens([part]).to(ctx.device)) for part in (text, encoder.looks(text)))
    whole[:, 0] = looks.mean(dim=1)
    return whole


with torch.no_grad():
    by_hand = context_of(encoder, prompt)
print("the looks in the prompt:", encoder.looks(prompt))
print(f"largest difference to the library's context: {(by_hand - encoder.encode([prompt])).abs().max():.4f}")

# %% [markdown]
# **The timestep embedding hears them.** The UNet is told how noisy its input is by a vector, the *timestep embedding*,
# which every residual block receives. `mini` adds row 0 of the table to it, after a linear layer. So the residual blocks
# hear the noun phrase, *what* moves, and not a word about *where to*.
#
# **A scene prior reads the mean.** A small network turns the mean of all 20 rows, the number of the frame, the row and
# the column of a cell into features, which are added after the first convolution. It was built for words such as
# "left": a thing that moves left is in the right half early and in the left half late.
#
# So there are three ways, and they do not read the same:

# %%
from minit2v.lab.course.drawings.text import ways_in

ways_in(prompt.split(), encoder.looks(prompt).split(), context.shape[1],
        alt="Two readings of one prompt fill a table of 20 rows: its noun phrase fills row 0, the whole caption the other "
            "19. The timestep embedding reads row 0 alone. Cross-attention and the scene prior read all rows. Only "
            "cross-attention is in the paper as well.")

# %% [markdown]
# Read it from left to right. Orange is the noun phrase, blue is the whole caption. The darker a blue row, the more words
# of the caption it has heard. Dashed boxes are what `mini` adds. Cross-attention reads everything, row 0 included; the
# scene prior reads everything too, but mixed into one mean; the timestep embedding reads the noun phrase alone.
#
# Which way does the trained model really use, and for which words? We can find out: give one way another caption than the
# other two.

# %%
lab.predict("4.b")

# %%
from unittest.mock import patch

unet = ctx.pipe.unet


def answer(x, t, attention, embedding, prior):
    """The UNet's answer with a context (b, n, d) of its own for each of the three ways."""
    heard = patch.object(unet, "heard", lambda _: embedding[:, 0])
    drawn = patch.object(unet, "prior", lambda _, *places: unet.layout(prior, *places))
    with heard, drawn:
        return unet(x, t, attention)


captions = ["a large red circle moves left", "a small blue ring moves right", "a large white moon moves up",
            "a small green square moves down"]
exchanges = {
    "direction": {"left": "right", "right": "left", "up": "down", "down": "up"},
    "colour": {"red": "cyan", "blue": "yellow", "white": "blue", "green": "red"},
}


# %%
def exchanged(text, words):
    return " ".join(words.get(word, word) for word in text.split())


right = encoder.encode(captions)
x, t = torch.randn(4, 4, 16, 8, 8, generator=ctx.generator()).to(ctx.device), torch.full((4,), 999, device=ctx.device)
effects = []
with torch.inference_mode():
    whole = answer(x, t, right, right, right)
    for name, words in exchanges.items():
        other = encoder.encode([exchanged(text, words) for text in captions])
        print(f"{name:10} largest change of row 0: {(other - right)[:, 0].abs().max():.1f}")
        one_way = (other, right, right), (right, other, right), (right, right, other)
        effects.append([((answer(x, t, *ways) - whole).std() / whole.std()).item() for ways in one_way])
lab.matrix(effects, list(exchanges), ["cross-attention", "timestep embedding", "scene prior"],
           alt="How much the UNet's answer changes when one way is given another caption. Another direction: much by "
               "cross-attention, nothing by the timestep embedding. Another colour: little by cross-attention, much by the "
               "timestep embedding. The scene prior changes hardly anything.")

# %% [markdown]
# What to see: each number is the size of the change, in units of the answer's own size. We asked at the noisiest timestep,
# where the text decides most, for four captions. The news of another *direction* arrives by cross-attention. The timestep
# embedding cannot bring it, since row 0 does not change at all. The news of another *colour* arrives by the timestep
# embedding, although cross-attention could have brought it too.
#
# And the scene prior? It hardly matters here, although it was built for directions. It matters early: after eight minutes of
# training, a model without it cares less about direction words ([docs/training.md](../docs/training.md) has the table). In the
# finished model, at this timestep, cross-attention has taken over. A part that helps to *learn* something need not be the part
# that *does* it in the end.
#
# Keep this in mind when you see attention maps of `mini` in notebook 07: a colour can be heard without any cell looking
# at the word. Notebook 07 shows the code of all three ways, and
# [docs/training.md](../docs/training.md#departures-from-the-paper) lists all departures.
#
# ## 6 · Which words are loud?
#
# `mini`'s text encoder was trained by the same game as CLIP. Here are 128 pictures and 128 captions: say which belong
# together. (Half of the pictures are storyboards, four moments of a clip in one picture; otherwise nothing would need the
# words for motion.) Nothing in this game asks for *fair* features. A word that helps much to tell captions apart moves the
# features far. A word that helps little moves them little. We call the first *loud* and the second *quiet*.
#
# How loud is each attribute? Take a caption, change one word, and measure how far the mean of the 20 rows moves. First
# your guess.

# %%
lab.predict("4.c")

# %% [markdown]
# Six shapes, six colours, two sizes, four directions and two speeds make 576 captions. We encode them all, once.

# %%
from itertools import product

from minit2v.datasets.moving_things import Spec, Thing, caption
from minit2v.datasets.moving_things.dataset import FOUR

VALUES = {
    "shape": ("circle", "square", "triangle", "cross", "ring", "moon"),
    "colour": ("red", "green", "blue", "yellow", "cyan", "white"),
    "size": ("small", "large"), "motion": FOUR, "speed": ("slowly", "quickly"),
}
every = list(product(*VALUES.values()))
means = encoder.encode([caption(Spec((Thing(*one),))) for one in every]).mean(dim=1).cpu()
print("captions:", len(every), "· mean features:", tuple(means.shape), "· one of them:", caption(Spec((Thing(*every[7]),))))

# %% [markdown]
# One swap is not enough: whether "circle" becomes "square" or "moon", in a caption with "small" or with "large", changes
# the distance. So we draw 100 captions at random, and in each of them we swap every attribute once, for another value
# that is drawn too. For each attribute we report the mean of the 100 distances, and how sure we can be of it: the 95 %
# interval, 1.96 standard errors to each side. (If we drew 100 captions again and again, about 95 of 100 such intervals
# would contain the mean over all possible swaps.)

# %%
from minit2v.lab.course.drawings.text import swaps


def swapped(thing, field, generator):
    """The thing with another value of one attribute, drawn at random."""
    i = list(VALUES).index(field)
    others = [value for value in VALUES[field] if value != thing[i]]
    return (*thing[:i], others[torch.randint(len(others), (1,), generator=generator).item()], *thing[i + 1 :])


n, generator = 100, ctx.generator(4)
chosen = [every[i] for i in torch.randint(len(every), (n,), generator=generator)]
partners = {field: [swapped(thing, field, generator) for thing in chosen] for field in VALUES}
number = {thing: i for i, thing in enumerate(every)}


def distances(features):
    """How far each swap moves the features (576, d): {attribute: n distances}."""
    before = features[[number[thing] for thing in chosen]]
    return {field: (features[[number[thing] for thing in others]] - before).norm(dim=1) for field, others in partners.items()}


# %%
moved = distances(means)
for field, d in moved.items():
    print(f"{field:7} {d.mean():4.1f} ± {1.96 * d.std() / n**0.5:.1f}")
louder = int((moved["motion"] > moved["shape"]).sum())
print(f"captions in which the swap of the motion moved further than that of the shape: {louder} of {n}")
swaps(moved, "how far a swap moves the mean feature",
      alt="A row of dots for each attribute, a dot for each of 100 swaps, with the mean and its 95 % interval. The dots of "
          "one row spread widely. The mean of the size is the largest, that of the motion the smallest.")

# %% [markdown]
# What to see: each dot is one swap, each diamond a mean with its interval. The size is the loudest attribute, and the
# direction of motion is the quietest: their intervals touch no other. Shape and colour lie so near to each other that a
# hundred swaps cannot tell which of the two is louder.
#
# Look at the spread of the dots, too. The rows of motion and shape overlap, and the printed line counts the captions in which
# motion was the louder of the two. Whoever tries a single swap, and happens to pick such a caption, reports the opposite of
# the truth.
#
# Which word is loud depends on the game and on its data, not on what matters to us. And it has consequences, because a network
# learns first from what is loud. Trained on features as they are, a video model learns early *what* to draw and late *which
# way* it moves (`scripts/ablate_scene_prior.py` in the repository measures it). The released model of 1.7 billion parameters
# has trouble with directions too: in an independent test things moved as asked 30.5 % of the time, where guessing gives 25 %
# ([VideoDirectorGPT](https://arxiv.org/abs/2309.15091), table 1). The test does not say whether its text encoder is to blame.
#
# One remedy is a layer that begins *whitened*: it turns up the quiet directions of feature space and turns down the loud
# ones. The text layer of `mini`'s scene prior begins like this. Here is such a layer, made for our 576 captions, and the
# same swaps once more:

# %%
from minit2v.training.unet import whiten_input

torch.manual_seed(0)  # the weights of the layer are drawn
layer = torch.nn.Linear(means.shape[1], 256)
whiten_input(layer, means)
with torch.no_grad():
    whitened = distances(layer(means))
for name, one in (("as the encoder gives them:", moved), ("whitened:", whitened)):
    share = one["motion"].mean() / max(d.mean() for d in one.values())
    print(f"{name:27} a swap of the motion moves {share:.2f} times as far as the loudest swap")
swaps(whitened, "how far a swap moves the whitened mean",
      alt="The same 100 swaps of each attribute in whitened features. The means of the five rows are now much closer to one "
          "another; those of motion and speed are still below the others.")

# %% [markdown]
# What to see: the five means are now much closer to one another. Motion and speed are still below the others. No information
# was added: a change of coordinates can be undone. But a network learns from large differences first, and the difference
# between "left" and "right" is no longer a small one.
#
# The library uses this function once, when the training of the UNet starts:

# %%
lab.show_source(whiten_input)

# %% [markdown]
# ## 7 · Whose words stay whole?
#
# The features depend on what was in the training data. So does the vocabulary before them. In section 2 you replayed
# merges that CLIP had learnt; now learn your own. The recipe is so simple that it hides what it does: it looks at
# nothing but *how often* letters stand beside one another.

# %%
lab.predict("4.d")

# %% [markdown]
# ### Exercise 4.4 · learning the merges
#
# Difficulty 4/5 · importance 3/5 · 20 minutes
#
# Write `learn_merges(counts, n)`. `counts` is a dictionary from a word to how often it occurs, for instance
# `{"aab": 2, "ab": 1}`; `n` is the number of merges to learn. Return the merges as a list of pairs, in the order in
# which they are learnt.
#
# 1. Every word begins as the list of its letters, the last one with `</w>` behind it, as in exercise 4.1.
# 2. Count all pairs of neighbours. A pair counts once for *each place* where it stands, times the count of the word.
#    Places may overlap: the pieces a, a, a hold the pair (a, a) twice. Pairs never reach from one word into the next.
# 3. Take the most frequent pair. If several are equally frequent, take the first in the alphabet, which is the least
#    of the tuples as Python compares them. Note it as the next merge.
# 4. Merge it in all words, everywhere and from left to right, and go on with step 2.
#
# Stop after n merges, or earlier if every word has become a single piece. Leave `counts` unchanged. For the example
# above, the merges are `("a", "b</w>")`, which occurs three times, and then `("a", "ab</w>")`.
#
# <details><summary>Hint 1</summary>Keep a dictionary from each word to its present list of pieces, and a second one that
# is counted afresh in each round: <code>collections.Counter()</code>. The neighbours of a list are
# <code>zip(pieces, pieces[1:])</code>.</details>
# <details><summary>Hint 2</summary>"Most frequent, and then first in the alphabet" is one <code>min</code> with a key
# that is a tuple: <code>(-often[pair], pair)</code>. The merging is the inner loop of 4.1.</details>
# <!-- BEGIN SOLUTION -->
# <details><summary>Solution</summary>
#
# ```python
# words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
# merges = []
# while len(merges) < n:
#     often = Counter()
#     for word, pieces in words.items():
#         for pair in zip(pieces, pieces[1:]):
#             often[pair] += counts[word]
#     if not often:
#         break
#     best = min(often, key=lambda pair: (-often[pair], pair))
#     merges.append(best)
#     for word, pieces in words.items():
#         merged, i = [], 0
#         while i < len(pieces):
#             found = tuple(pieces[i : i + 2]) == best
#             merged.append("".join(best) if found else pieces[i])
#             i += 2 if found else 1
#         words[word] = merged
# return merges
# ```
# </details>
# <!-- END SOLUTION -->

# %%
from collections import Counter


# %% tags=["exercise"]
def learn_merges(counts, n):
    """The first n merges of byte-pair encoding: counts {word: how often it occurs} -> list of pairs of pieces."""
    ### BEGIN SOLUTION
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    merges = []
    while len(merges) < n:
        often = Counter()
        for word, pieces in words.items():
            for pair in zip(pieces, pieces[1:]):
                often[pair] += counts[word]
        if not often:
            break
        best = min(often, key=lambda pair: (-often[pair], pair))
        merges.append(best)
        for word, pieces in words.items():
            merged, i = [], 0
            while i < len(pieces):
                found = tuple(pieces[i : i + 2]) == best
                merged.append("".join(best) if found else pieces[i])
                i += 2 if found else 1
            words[word] = merged
    return merges
    ### END SOLUTION


# %%
lab.check("4.4", learn_merges)

# %% [markdown]
# Now let it read the captions of a thousand clips of Moving Things, until every word that occurs there is one piece. With
# your two functions together you have a tokenizer: 4.4 learns it, 4.1 applies it.

# %%
from minit2v.datasets.moving_things import MovingThings

data = MovingThings("train")
counts = Counter(word for i in range(1000) for word in data.text(i)[0].split())
merges, cut = lab.yours("4.4")(counts, 10_000), lab.yours("4.1")
print("different words:", len(counts), "· merges until each is one piece:", len(merges))
print("the first five:", *merges[:5])
ranks = {pair: i for i, pair in enumerate(merges)}
for word in ("circle", "purple", "cirkle", "skateboarding"):
    print(f"{word:14} seen {counts[word]:3} times: {' '.join(cut(word, ranks))}")

# %%
sizes = range(len(merges) + 1)
lines = {word: (sizes, [len(cut(word, dict(list(ranks.items())[:k]))) for k in sizes])
         for word in ("moves", "circle", "purple")}
lab.curves(lines, "merges learnt", "pieces of the word",
           alt="How many pieces three words have, against the number of merges. Moves and circle fall to one piece, moves the "
               "earlier. Purple was not in the captions and stays in five pieces.")

# %% [markdown]
# What to see: the first merge has nothing to do with shapes or colours. "Slowly", "quickly", "gently" and "rapidly" all end in
# *ly*, and no other pair is as frequent as that. Frequent words become whole early. "Purple" occurs in none of these captions:
# in Moving Things it is a colour of still pictures only. It stays in pieces, however many merges are learnt. A misspelt word
# is no error any more, but it is made of pieces that have never stood together.
#
# The same happens in the real vocabulary. CLIP learnt its merges from captions that are mostly English. Here is one
# sentence in eight languages, cut by CLIP's own tokenizer:

# %%
sentences = {
    "English": "a red circle moves to the left",
    "French": "un cercle rouge se déplace vers la gauche",
    "German": "ein roter Kreis bewegt sich nach links",
    "Finnish": "punainen ympyrä liikkuu vasemmalle",
    "Turkish": "kırmızı bir daire sola doğru hareket ediyor",
    "Chinese": "一个红色圆形向左移动",
    "Russian": "красный круг движется влево",
    "Greek": "ένας κόκκινος κύκλος κινείται προς τα αριστερά",
}
tokens_of = {language: len(full.bpe.encode(sentence)) for language, sentence in sentences.items()}
print("room for a prompt, without start and end:", full.bpe.context_length - 2, "tokens")
print(" · ".join(f"{language} {number}" for language, number in tokens_of.items()))
lab.bars(tokens_of, "tokens of the same sentence",
         alt="A bar for each of eight languages: the same sentence takes the fewest tokens in English and by far the most in "
             "Greek.")

# %% [markdown]
# What to see: in English each word is one token. In Greek every letter of it is cut in two, because a Greek letter is two
# bytes, and these merges were hardly ever learnt. The sentence does not even fit into the 75 tokens that CLIP leaves for a
# prompt; its end would be cut off. Nobody decided that. It follows from counting, and from what was counted.
#
# *What if?* Learn the merges from a text in your own language, and encode the English sentence with them.
#
# ## 8 · A bug hunt
#
# In December 2025 a fast serving engine repaired its CLIP text encoder ([SGLang, pull request
# 14364](https://github.com/sgl-project/sglang/pull/14364)). Such an error does not stop a program. Here it is in our setting.


# %%
def broken_encode(encoder, tokens):
    """Features (b, n, d), as that engine computed them."""
    x = encoder.token_embedding(tokens) + encoder.positional_embedding
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_final(x)


with torch.no_grad():
    good, bad = encoder(tokens), broken_encode(encoder, tokens)
print("shapes:", tuple(good.shape), "and", tuple(bad.shape), "· numbers that are not finite:", int((~bad.isfinite()).sum()))
print(f"cosine of the two mean features: {torch.cosine_similarity(good.mean(1), bad.mean(1)).item():.1f}")

# %% [markdown]
# The symptom: the shape is right and every number is finite, so a test that asks only for these two things passes. But
# the features point elsewhere: a cosine of 1 would mean the same direction. What does the model do with such a context?
# We let it sample with the right one and with the wrong one, from the same noise.

# %%
from minit2v.diffusion.samplers import SAMPLERS, gaussian, guided

clips = {}
for name, how in (("right", encoder), ("as that engine", lambda ids: broken_encode(encoder, ids))):
    with torch.inference_mode():
        model = guided(ctx.pipe.unet, context_of(how, prompt), context_of(how, ""), ctx.pipe.preset.guidance)
        noise = gaussian((1, 4, 16, 8, 8), ctx.generator()).to(ctx.device)
        for step in SAMPLERS["ddim"](model, noise, ctx.pipe.diffusion, ctx.pipe.preset.steps):
            pass
    clips[name] = ctx.pipe.decode(step.x)[0]
lab.strip(
    clips, n=6,
    alt="Two rows of six frames. With the right features a red disc moves left; with that engine's a blob with flat sides does.",
)

# %% [markdown]
# What to see: the lower row comes from vectors that the UNet has never met in training. Compare outline, size and place with
# the upper row. It is another clip, but it is a clip. If you had only this one, you might think that the model had drawn a bad
# seed. That is what makes such a bug hard to find: a wrong result that looks only slightly worse is blamed on the model or on
# the seed, and the bug stays. What does `broken_encode` do otherwise than the library's `forward` in section 4? Find it before
# you read on.
#
# ### Exercise 4.B · a test that finds it
#
# Difficulty 3/5 · importance 5/5 · 6 minutes
#
# Write `is_causal(encode, encoder)`: it returns True if `encode(encoder, tokens)` hides later tokens from earlier
# ones, and False if it does not. Use two prompts of your choice that differ in a *late* word only, so that there are many
# rows before it. Do *not* compare with the library's result. The check hands you encoders that are right, and broken ones:
# without a mask, with a mask that is off by one, with a small leak in a single number, and one that answers NaN. Allow for
# rounding: a right encoder may give numbers that differ by a millionth.
#
# <details><summary>Hint 1</summary>Section 3 did it already: change a late word and look at the early rows.</details>
# <details><summary>Hint 2</summary>A mask that is off by one lets a token see one further in each block, so compare all
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
# Good tests in this library follow this pattern. They do not ask "is the output what it was yesterday?". They ask for a
# *property* that follows from what the thing is for. Your test would have found the bug on the day it was written.
#
# ## Takeaways
#
# 1. A prompt becomes a table (b, n, d): start, byte-pair pieces, end, padding. The encoder is causal, so early rows know
#    nothing of later words, and padding knows them all. One changed word proves it.
# 2. In the paper the text enters the UNet by cross-attention alone. `mini` has two more ways: the timestep embedding
#    hears the noun phrase, the scene prior hears the mean of everything.
# 3. Neither features nor vocabulary are fair. Both are learnt from what was frequent or useful in the data. A single
#    swap can say the opposite of the average: measure many, and report how sure you are.
#
# ## Quiz

# %%
lab.quiz(4)

# %% [markdown]
# ## Equations, code and tests
#
# Each equation, the paper it comes from, the line of the library that computes it, and the test, in the repository, that
# would fail if that line were wrong.

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
