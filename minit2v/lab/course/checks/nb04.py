"""Checks of notebook 04, Words into vectors: byte pairs and how they are learnt, causal attention, the encoder from parts.

A cause is named only where the mistake gives exactly what the reader's function gives, on every one of several inputs.
"""

import copy
import math
from collections import Counter
from unittest.mock import patch

import numpy as np
import torch

from minit2v.lab.course.comparing import called, normal, recognised, same_dtype
from minit2v.lab.course.exercises import Failed, close, counted, exercise, same_shape
from minit2v.lab.course.questions import Question
from minit2v.networks.text import TextEncoder
from minit2v.presets import TextConfig, get

PENULTIMATE = "tests/test_text.py::test_equals_transformers_run_to_the_block_before_the_last"
EQUATIONS = {
    "4.1": ("a token sees itself and those before it", "tests/test_text.py::test_a_token_sees_only_those_before_it"),
    "4.2": ("penultimate layer, then the final norm", PENULTIMATE),
    "4.3": ("attention", "tests/test_unet.py::test_both_forms_of_attention_agree"),
}

QUIZ = [
    (
        "In \"a small blue ring moves up\" you change \"blue\" to \"red\". How many of the 20 rows of mini's context change?",
        ["1", "17", "18"],
        2,
        "Start, \"a\" and \"small\" stand before the word, so 17 rows change by themselves. But mini has put the looks into "
        "the row of the start token, and the looks change as well.",
    ),
    (
        "Why is the last block of CLIP's text tower skipped?",
        ["To save time", "It gathers everything in the end token", "It was never trained"],
        1,
        "CLIP's loss looks at the end token only, so the last block has no reason to keep what single words say.",
    ),
    (
        "Somebody pads prompts with the end token instead of with 0. What happens?",
        ["Nothing, padding is masked", "An error", "Other features in the padded rows, and another video"],
        2,
        "Padding is not masked in this family of models. Some checkpoints know one kind, some the other.",
    ),
]

PREDICTIONS = {
    "4.a": Question("In \"a large red circle moves left\" you change the last word to \"right\". How many of the 20 rows of "
                    "the table change?", "14: its own and all behind it",
                    ["1: its own", "2: its own and the end mark's", "14: its own and all behind it", "all 20"]),
    "4.b": Question("The scene prior was built for words such as \"left\". A caption's \"left\" becomes \"right\", first for "
                    "cross-attention alone, then for the scene prior alone. How large is the second change of the UNet's "
                    "answer, compared with the first?", "less than a hundredth of it",
                    ["larger", "about as large", "about a tenth of it", "less than a hundredth of it"]),
    "4.c": Question("You exchange one word of a caption. Which word moves the mean of the 20 rows furthest, on average?",
                    "the size", ["the shape", "the colour", "the size", "the direction of motion"]),
    "4.d": Question("The captions of Moving Things are full of circles, squares and triangles that move, slide and travel, "
                    "slowly or quickly. Which pair of neighbours is the most frequent?", "l and y, at the end of a word",
                    ["r and e", "l and e, at the end of a word", "l and y, at the end of a word", "t and h"]),
}  # fmt: skip


# --- 4.1


def encode_word(word, ranks):
    """The byte-pair pieces of a word, as a list of texts; ranks {(piece, piece): order of the merge}."""
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


def _joined(pieces, pair, *, backwards=False, most=math.inf):
    """The pieces with a pair merged wherever it stands, from the left or from the right, at most so many times."""
    order = -1 if backwards else 1
    left, merged = list(pieces)[::order], []
    while left:
        found = tuple(left[:2][::order]) == pair and len(left) > 1 and most > 0
        merged.append("".join(pair) if found else left[0])
        left, most = left[2 if found else 1 :], most - found
    return merged[::order]


def _cut(word, ranks, *, letters=None, choose=None, backwards=False, once=False, one=False, rounds=math.inf):
    """Byte pairs with one thing done otherwise; once: each pair in one place; one: one place before it looks again."""
    pieces, used = letters or [*word[:-1], word[-1] + "</w>"], set()
    choose = choose or (lambda pairs: min(pairs, key=ranks.get))
    while rounds > 0:
        pairs = [pair for pair in zip(pieces, pieces[1:]) if pair in ranks and pair not in used]
        if not pairs:
            break
        best = choose(pairs)
        pieces = _joined(pieces, best, backwards=backwards, most=1 if once or one else math.inf)
        rounds -= 1
        used |= {best} if once else set()
    return pieces


def _longest_first(word, ranks):
    """The longest known piece from the left, as other tokenizers do it."""
    known, left, pieces = {"".join(pair) for pair in ranks}, [*word[:-1], word[-1] + "</w>"], []
    while left:
        n = next((n for n in range(len(left), 1, -1) if "".join(left[:n]) in known), 1)
        pieces, left = [*pieces, "".join(left[:n])], left[n:]
    return pieces


def _once_each(word, ranks, join=None):
    """Each merge once, in the order of the ranks."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    for pair in sorted(ranks, key=ranks.get):
        pieces = (join or _joined)(pieces, pair)
    return pieces


def _in_text(pieces, pair):
    """A merge by a replacement in a text, which also finds the pair at the edges of longer pieces."""
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" ")


CUT_MISTAKES = {
    "the last letter carries </w> from the start": lambda word, ranks: _cut(word, ranks, letters=list(word)),
    "</w> is no piece of its own; the last letter carries it from the start":
        lambda word, ranks: _cut(word, ranks, letters=[*word, "</w>"]),
    "it stops after one merge; go on as long as some pair is in ranks": lambda word, ranks: _cut(word, ranks, rounds=1),
    "where occurrences overlap, the left one is merged": lambda word, ranks: _cut(word, ranks, backwards=True),
    "merge all occurrences": lambda word, ranks: _cut(word, ranks, once=True),
    "merge all occurrences before you look for the next pair; here only the first was merged before the ranks were asked again":
        lambda word, ranks: _cut(word, ranks, one=True),
    "the pair of lowest rank is merged first, wherever it stands":
        lambda word, ranks: _cut(word, ranks, choose=lambda pairs: pairs[0]),
    "the last pair of the word was merged first; it is the one of lowest rank":
        lambda word, ranks: _cut(word, ranks, choose=lambda pairs: pairs[-1]),
    "the pair of highest rank was merged first":
        lambda word, ranks: _cut(word, ranks, choose=lambda pairs: max(pairs, key=ranks.get)),
    "a rank is the number in the table, not the place there":
        lambda word, ranks: _cut(word, ranks, choose=lambda pairs: min(pairs, key=list(ranks).index)),
    "this takes the longest piece that is known, from the left; merges are replayed in their order": _longest_first,
    "after a merge, one of lower rank may have become possible; each merge was tried only once": _once_each,
    "a replacement in a text also finds the pair at the edges of longer pieces":
        lambda word, ranks: _once_each(word, ranks, _in_text),
    "stop as soon as no pair is in ranks": lambda word, ranks: [word + "</w>"],
    "nothing is merged": lambda word, ranks: [*word[:-1], word[-1] + "</w>"],
}  # fmt: skip


_TABLES = {  # what a table is called in a message: (the table, words to cut with it)
    "(b, c) before (a, b) before (bc, d</w>)": ({("b", "c"): 0, ("a", "b"): 1, ("bc", "d</w>"): 2}, ("abcd",)),
    "the merge (a, b)": ({("a", "b"): 0}, ("abab",)),
    "(ab, a) before (a, b)": ({("ab", "a"): 0, ("a", "b"): 1}, ("ababc", "cabab")),
    "the merge (a, n)": ({("a", "n"): 0}, ("ananas",)),
    "the merge (a, a)": ({("a", "a"): 0}, ("aaab",)),
    "merges in no order": (
        {("B", "c"): 7, ("bc", "a"): 2, ("ab", "c"): 0, ("a", "b"): 10**6, ("a", "a"): 4, ("aa", "aa"): 6, ("s", "s"): 1,
         ("ab", "ab</w>"): 3},
        ("abcabc", "aaaaaaa", "Bcaaasss", "mnopqrstuvw", "sss", "a", "aabc", "abab", "abcd", "é2-s")),
}  # fmt: skip


def _cuts():
    """(what the table is called, word, ranks): small tables, one in no order, and some that were learnt."""
    cases = [(told, word, ranks) for told, (ranks, words) in _TABLES.items() for word in words]
    for seed in range(4):
        counts = _words(seed)
        ranks = {pair: 3 * i for i, pair in enumerate(learn_merges(counts, 6 + 4 * seed))}
        cases += [(str(ranks), word, ranks) for word in (*counts, *_words(seed + 10))]
    return cases


@exercise("4.1", name="encode_word", solution=encode_word, minutes=10, difficulty=3, importance=3)
def check_encode_word(student):
    """On made-up tables in which order matters, on learnt ones, then on real words against open_clip's tokenizer."""
    for told, word, ranks in _cuts():
        _same_pieces(student, word, ranks, encode_word(word, ranks), f"{word} with {told}")
    from open_clip.tokenizer import SimpleTokenizer

    bpe, words = SimpleTokenizer(), ("circle", "leftwards", "modelscope", "x", "antidisestablishmentarianism", "mississippi")
    for word in words:
        _same_pieces(student, word, bpe.bpe_ranks, bpe.bpe(word).split(), f"{word!r} with CLIP's ranks")
    return f"CLIP's own pieces of {len(words)} words"


def _words(seed, n=12, letters="abcé"):
    """{word: how often it occurs} of n words at most, the same each time."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(letters), rng.integers(1, 8))) for _ in range(n)]
    return {word: int(rng.integers(1, 10)) for word in words}


def _same_pieces(student, word, ranks, expected, told):
    """Raise Failed unless the student cuts the word into these pieces and leaves ranks alone; told: both, for the message."""
    given = dict(ranks)
    found = student(word, given)
    _is_a_list(found, expected, told)
    if found != expected:
        cases = [(word, ranks) for _, word, ranks in _cuts()]
        raise Failed(f"{expected} for {_shortened(told)}", _shortened(found), _cause(student, CUT_MISTAKES, cases, word, ranks))
    if given != ranks:
        raise Failed("ranks as they were", "they were changed", "ranks is a table to look things up in")


def _is_a_list(found, expected, told):
    if not isinstance(found, list):
        cause = "the function does not return its result" if found is None else ""
        raise Failed(f"the list {_shortened(expected)} for {_shortened(told)}", f"{type(found).__name__} {_shortened(found)}",
                     cause)


def _shortened(value, most=230):
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _cause(student, mistakes, cases, *first):
    """The first mistake that gives what the student's function gives for `first` and in all cases, or nothing."""
    same = lambda wrong, given: _answer(wrong, *given) == _answer(student, *given)  # noqa: E731
    possible = [cause for cause, wrong in mistakes.items() if same(wrong, first)]
    return next((cause for cause in possible if all(same(mistakes[cause], given) for given in cases)), "")


def _answer(function, *given):
    """What it returns, or the type of what it raises: a mistake need not fit every input."""
    try:
        return function(*copy.deepcopy(given))
    except Exception as error:
        return type(error)


# --- 4.2


def causal_attention(q, k, v):
    """Single-head attention in which token i sees tokens 0..i: q, k, v (n, d) -> (n, d)."""
    n, d = q.shape
    mask = torch.full((n, n), float("-inf")).triu(1)
    return torch.softmax(q @ k.T / d**0.5 + mask, dim=-1) @ v


@exercise("4.2", name="causal_attention", solution=causal_attention, minutes=8, difficulty=2, importance=5)
def check_causal_attention(student):
    """A leak test first, which names the mistake, then PyTorch's own."""
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(6, 8, generator=generator) for _ in range(3))
    found = called(student, q, k, v)
    same_shape("the result", found, (6, 8))
    if not torch.isfinite(found).all():
        first_only = found[0].isnan().all() and torch.isfinite(found[1:]).all()
        raise Failed("finite numbers", "NaN",
                     "triu(0) forbids the diagonal as well: the first token sees nothing" if first_only else "")  # fmt: skip
    later = v.clone()
    later[4] += 10
    leaked = ((called(student, q, k, later) - found).abs() > 1e-6).any(dim=1)
    if leaked[:4].any():
        row = int(leaked.nonzero()[0])
        raise Failed("rows 0 to 3 unchanged when value 4 changes", f"row {row} changed", _cause_in_attention(q, k, v, found))
    _as_pytorch(q, k, v, found, _cause_in_attention(q, k, v, found))
    # large scores, too: what is forbidden stays so, and no exponential overflows; and more tokens than CLIP reads
    for n, d, size in ((6, 8, 10), (9, 3, 1), (4, 5, 0.1), (1, 2, 1), (100, 4, 1), (6, 5, 100)):
        q, k, v = (size * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(3))
        _as_pytorch(q, k, v, called(student, q, k, v))
    return "equal to PyTorch's, no leak, no NaN"


def _as_pytorch(q, k, v, found, cause=""):
    """Raise Failed unless that is PyTorch's own causal attention. With large scores different mistakes look alike, so there no
    cause is given."""
    n, d = q.shape
    expected = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    what = f"the result for {counted(n, 'token')} of width {d}"
    same_dtype(what, found, q.dtype)
    same_shape(what, found, (n, d))
    tolerance = 1e-5 if q.dtype == torch.float32 else 1e-9  # of float64: a float32 step on the way costs more
    close(what, found, expected, tolerance, cause)


def _cause_in_attention(q, k, v, found):
    """The mistake that gives what was found, or nothing."""
    n, d = q.shape
    scores, hidden = q @ k.T / d**0.5, torch.full((n, n), float("-inf"), dtype=q.dtype)
    causal, right = hidden.triu(1), causal_attention(q, k, v)
    mistaken = {
        "there is no mask": scores,
        "the mask is transposed": scores + hidden.tril(-1),
        "0 stands where -inf should": scores.tril(),
        "triu(2) lets a token see the next one": scores + hidden.triu(2),
        "divide the scores by the square root of d": d**0.5 * scores + causal,
        "divide the scores by the square root of d, not by d": scores / d**0.5 + causal,
        "the root is that of the number of tokens, not of d": scores * (d / n) ** 0.5 + causal,
        "queries and keys are exchanged": scores.T + causal,
        "-1 stands where -inf should": scores - torch.ones_like(hidden).triu(1),
    }
    mistakes = {cause: torch.softmax(wrong, dim=-1) @ v for cause, wrong in mistaken.items()}
    mistakes |= {
        "softmax over keys, which is the last axis": torch.softmax(scores + causal, dim=0) @ v,
        "mask the scores, before the softmax; weights masked after it no longer add up to 1":
            torch.softmax(scores, dim=-1).tril() @ v,
        "there is no softmax": scores.tril() @ v,
        "the weighted mean is one of keys, not of values": torch.softmax(scores + causal, dim=-1) @ k,
        "v is added to what attention finds": v + torch.softmax(scores + causal, dim=-1) @ v,
    }  # fmt: skip
    alike = lambda one, other: torch.allclose(one.to(other), other, rtol=0, atol=1e-5)  # noqa: E731
    return next((cause for cause, wrong in mistakes.items() if alike(found, wrong) and not alike(right, wrong)), "")


# --- 4.3


def encode(encoder, tokens):
    """Ids (b, n) -> features (b, n, d) of the penultimate layer, after the final norm."""
    x = encoder.token_embedding(tokens) + encoder.positional_embedding
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
    for block in encoder.blocks:
        x = block(x, attn_mask=mask)
    return encoder.ln_final(x)


def _encoded(encoder, tokens, *, place=True, again=False, mask=lambda hidden: hidden.triu(1), blocks=list, each=lambda x: x,
             end=None):  # fmt: skip
    """The encoder from its parts with one thing wrong."""
    n, x = tokens.shape[1], encoder.token_embedding(tokens)
    hidden = mask(torch.full((n, n), float("-inf"), dtype=x.dtype))
    x = x + encoder.positional_embedding if place else x
    for i, block in enumerate(blocks(encoder.blocks)):
        x = x + encoder.positional_embedding if again and i else x
        x = each(block(x, attn_mask=hidden))
    return (end or encoder.ln_final)(x)


ENCODE_MISTAKES = {
    "a mask of True and False is added as 1 and 0; use -inf and 0":
        lambda e, ids: _encoded(e, ids, mask=lambda hidden: (hidden.triu(1) < 0).to(hidden)),
    "the blocks ran without the mask": lambda e, ids: _encoded(e, ids, mask=lambda hidden: None),
    "the mask is transposed: it hides earlier tokens": lambda e, ids: _encoded(e, ids, mask=lambda hidden: hidden.tril(-1)),
    "the mask is off by one: each token sees the next": lambda e, ids: _encoded(e, ids, mask=lambda hidden: hidden.triu(2)),
    "the mask hides each token from itself": lambda e, ids: _encoded(e, ids, mask=lambda hidden: hidden.triu(0)),
    "only the first block got the mask": lambda e, ids: e.ln_final(_all_see_after_the_first(e, ids)),
    "the positions were left out": lambda e, ids: _encoded(e, ids, place=False),
    "the positions are added once, before the first block": lambda e, ids: _encoded(e, ids, again=True),
    "ln_final was left out": lambda e, ids: _encoded(e, ids, end=lambda x: x),
    "ln_final comes once, after the last block, and not after each": lambda e, ids: _encoded(
        e, ids, each=e.ln_final, end=lambda x: x),
    "ln_final comes once, after the last block, and not after each block as well": lambda e, ids: _encoded(
        e, ids, each=e.ln_final),
    "ln_final comes once, after the last block, and not before each": lambda e, ids: _normed_each(e, ids, lambda x: x),
    "ln_final comes once, after the last block, and not before each block as well": lambda e, ids: _normed_each(
        e, ids, e.ln_final),
    "ln_final comes once": lambda e, ids: _encoded(e, ids, end=lambda x: e.ln_final(e.ln_final(x))),
    "ln_final comes after the blocks, not before them": lambda e, ids: _normed_first(e, ids),
    "the blocks did not run": lambda e, ids: _encoded(e, ids, blocks=lambda blocks: []),
    "the last of encoder.blocks was skipped; encoder.blocks is already without CLIP's last one":
        lambda e, ids: _encoded(e, ids, blocks=lambda blocks: list(blocks)[:-1]),
    "only the first block ran": lambda e, ids: _encoded(e, ids, blocks=lambda blocks: list(blocks)[:1]),
    "the blocks ran backwards": lambda e, ids: _encoded(e, ids, blocks=lambda blocks: list(blocks)[::-1]),
    "what a block returns already holds what it was given; it is not added to it": lambda e, ids: _added(e, ids),
}  # fmt: skip


def _all_see_after_the_first(encoder, tokens):
    n, x = tokens.shape[1], encoder.token_embedding(tokens) + encoder.positional_embedding
    for i, block in enumerate(encoder.blocks):
        x = block(x, attn_mask=None if i else torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1))
    return x


def _normed_first(encoder, tokens):
    n, x = tokens.shape[1], encoder.ln_final(encoder.token_embedding(tokens) + encoder.positional_embedding)
    for block in encoder.blocks:
        x = block(x, attn_mask=torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1))
    return x


def _normed_each(encoder, tokens, end):
    n, x = tokens.shape[1], encoder.token_embedding(tokens) + encoder.positional_embedding
    for block in encoder.blocks:
        x = block(encoder.ln_final(x), attn_mask=torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1))
    return end(x)


def _added(encoder, tokens):
    n, x = tokens.shape[1], encoder.token_embedding(tokens) + encoder.positional_embedding
    for block in encoder.blocks:
        x = x + block(x, attn_mask=torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1))
    return encoder.ln_final(x)


@exercise("4.3", name="encode", solution=encode, minutes=8, difficulty=2, importance=4)
def check_encode(student):
    """Against the encoder itself, which must not be called: one of mini's kind and one with the whole vocabulary."""
    torch.manual_seed(4)
    words, prompts = ("a", "red", "ring", "moves", "left"), ["a red ring moves left", "", "left a ring"]
    small = TextConfig(context_length=12, width=32, heads=2, layers=4, embed_dim=32, words=words)
    whole = TextConfig(context_length=16, width=24, heads=3, layers=3, embed_dim=32)
    for config, told in ((small, prompts), (whole, prompts[:2]), (small, prompts[:1])):
        encoder = TextEncoder(config).eval().double()
        tokens = encoder.tokens(told)
        with torch.no_grad():
            for weight in encoder.parameters():  # a new norm multiplies by 1 and adds 0, and could be left out
                weight += 0.4 * torch.randn_like(weight)
            for block in encoder.blocks:  # loud scores, through which every number but -inf can be heard
                block.attn.in_proj_weight *= 4
            expected = encoder(tokens)
            with patch.object(TextEncoder, "forward", _refuse):
                found = called(lambda ids: student(encoder, ids), tokens, what="features")
            if not torch.equal(encoder(tokens), expected):
                raise Failed("the encoder as it was", "it was changed", "an operation in place on one of its parts")
            same_dtype("the features", found, torch.float64)
            mistakes = {cause: (lambda one=one: one(encoder, tokens)) for cause, one in ENCODE_MISTAKES.items()}
            recognised("the features", found, expected, mistakes, tolerance=1e-8)
    return "every number, for two vocabularies"


def _refuse(*_):
    raise Failed("the encoder's parts", "a call of the encoder itself", "use token_embedding, blocks and ln_final")


# --- 4.4


def learn_merges(counts, n):
    """The n first merges of byte-pair encoding, a list of pairs, from words and how often each occurs, {word: count}."""
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


def _apart(pairs):
    """Pairs of one word, of which those that overlap with one before them are left out: "aaa" has (a, a) once."""
    chosen, free = [], 0
    for i, pair in enumerate(pairs):
        if i >= free or pair != chosen[-1]:
            chosen.append(pair)
            free = i + 2
    return chosen


def _learnt(counts, n, *, letters=lambda word: [*word[:-1], word[-1] + "</w>"], weigh=lambda count: count, of_word=list,
            pick=lambda often: min(often, key=lambda pair: (-often[pair], pair)), recount=True, one_text=False,
            least=1, join=_joined, **how):  # fmt: skip
    """The merges with one thing done otherwise."""
    words, merges, often = {word: letters(word) for word in counts}, [], Counter()
    if one_text:
        words = {"": [piece for word, count in counts.items() for piece in count * letters(word)]}
    while len(merges) < n:
        if recount or not merges:
            often = Counter()
            for word, pieces in words.items():
                for pair in of_word(zip(pieces, pieces[1:])):
                    often[pair] += 1 if one_text else weigh(counts[word])
        else:
            del often[merges[-1]]
        if not often or max(often.values()) < least:
            break
        merges.append(pick(often))
        words = {word: join(pieces, merges[-1], **how) for word, pieces in words.items()}
    return merges


MERGE_MISTAKES = {
    "a pair counts as often as its word does; here each word counted once": lambda c, n: _learnt(c, n, weigh=lambda count: 1),
    "the last letter carries </w> from the start": lambda c, n: _learnt(c, n, letters=list),
    "</w> is no piece of its own; the last letter carries it from the start":
        lambda c, n: _learnt(c, n, letters=lambda word: [*word, "</w>"]),
    "of pairs that are equally frequent, the first in the alphabet is taken; here it was the last":
        lambda c, n: _learnt(c, n, pick=lambda often: max(often, key=lambda pair: (often[pair], pair))),
    "of pairs that are equally frequent, the first in the alphabet is taken; here it was the one met first":
        lambda c, n: _learnt(c, n, pick=lambda often: max(often, key=often.get)),
    "alphabetical is meant of the pairs, tuples as Python compares them, and not of the joined text":
        lambda c, n: _learnt(c, n, pick=lambda often: min(often, key=lambda pair: (-often[pair], "".join(pair)))),
    "a pair that occurs once is a merge too; stop only where no pair is left": lambda c, n: _learnt(c, n, least=2),
    "a replacement in a text also finds the pair at the edges of longer pieces": lambda c, n: _learnt(c, n, join=_in_text),
    "the rarest pair was taken":
        lambda c, n: _learnt(c, n, pick=lambda often: min(often, key=lambda pair: (often[pair], pair))),
    "the pairs were counted once; after each merge there are others": lambda c, n: _learnt(c, n, recount=False),
    "a pair counts at each place of a word where it stands; here once a word": lambda c, n: _learnt(c, n, of_word=set),
    "places that overlap count too: aaaa has the pair (a, a) twice": lambda c, n: _learnt(c, n, of_word=_apart),
    "where occurrences overlap, the left one is merged": lambda c, n: _learnt(c, n, backwards=True),
    "merge all occurrences in a word": lambda c, n: _learnt(c, n, most=1),
    "one merge too many": lambda c, n: _learnt(c, n + 1),
    "n is not heard: these are all merges that there are": lambda c, n: _learnt(c, math.inf),
    "the last merge is missing": lambda c, n: learn_merges(c, n)[:-1],
    "the merges are in reverse order": lambda c, n: learn_merges(c, n)[::-1],
    "pairs were counted across the ends of words": lambda c, n: _learnt(c, n, one_text=True),
    "a merge is the pair of pieces, not the text that they become":
        lambda c, n: ["".join(pair) for pair in learn_merges(c, n)],
    "a merge is a tuple of two texts": lambda c, n: [list(pair) for pair in learn_merges(c, n)],
    "the words are not merged, so the same pair comes again": lambda c, n: learn_merges(c, 1) * n,
}  # fmt: skip


_SMALL = ({"aab": 2, "ab": 1}, {"ba": 1, "dc": 1, "ab": 1, "cd": 1}, {"xy": 10, "abc": 1, "abd": 1, "abe": 3},
          {"aaaa": 2, "bbc": 3}, {"aaab": 3, "aab": 1}, {"a": 7, "b": 2}, {}, {"abab": 4, "cab": 1, "é2-é": 5})  # fmt: skip


def _countings():
    """(counts, n): small tables for one question each, then random ones."""
    cases = [(counts, n) for counts in _SMALL for n in (0, 1, 2, 3, 100)]
    for seed in range(12):
        counts = _words(seed, n=2 + seed, letters="abcé"[: 2 + seed % 3])
        cases += [(counts, n) for n in (1, 2, 5, 9, 40)]
    return cases


@exercise("4.4", name="learn_merges", solution=learn_merges, minutes=20, difficulty=4, importance=3)
def check_learn_merges(student):
    """Small tables, then random ones: ties, overlaps, words of one letter, every n."""
    for counts, n in _countings():
        _same_merges(student, counts, n)
    return "tables with ties, overlaps and words of one letter, for n from 0 to more than there are"


def _same_merges(student, counts, n):
    """Raise Failed unless the student learns these merges and leaves the counts alone."""
    given, expected, told = dict(counts), learn_merges(counts, n), f"{counts} and n = {n}"
    found = student(given, n)
    _is_a_list(found, expected, told)
    if found != expected:
        cause = _cause(student, MERGE_MISTAKES, _countings(), counts, n)
        i = next((i for i, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), None)
        if i is None:
            many = [counted(len(merges), "merge") for merges in (expected, found)]
            raise Failed(f"{many[0]} for {_shortened(told)}", many[1], cause)
        raise Failed(f"merge {i + 1} to be {expected[i]} for {_shortened(told)}", _shortened(found[i]), cause)
    if list(given.items()) != list(counts.items()):
        raise Failed("counts as they were", "they were changed", "the pieces of a word need a table of their own")


# --- 4.B


def is_causal(encode, encoder):
    """Whether encode(encoder, tokens (b, n)) -> (b, n, d) hides later tokens from earlier ones."""
    tokens = encoder.tokens(["a large red circle moves left", "a large red circle moves right"])
    with torch.no_grad():
        one, other = encode(encoder, tokens)
    return bool(((one[:6] - other[:6]).abs() < 1e-5).all())


def _with_masks(*diagonals):
    """The encoder with a mask from that diagonal on in each of its blocks."""
    def run(encoder, tokens):
        x = encoder.token_embedding(tokens) + encoder.positional_embedding
        for block, diagonal in zip(encoder.blocks, diagonals, strict=True):
            x = block(x, attn_mask=torch.full((x.shape[1],) * 2, float("-inf")).triu(diagonal))
        return encoder.ln_final(x)

    return run


_right = _with_masks(1, 1, 1)


def _one_number_hears_all(row, size):
    """The right encoder, but for one number of a row, which depends on all words."""
    def run(encoder, tokens):
        x = _right(encoder, tokens)
        x[:, row, 70] += size * tokens.sum(dim=1).sin()
        return x

    return run


def _rounds_otherwise(encoder, tokens):
    """The right encoder, whose numbers differ by a millionth for different prompts, two of them at edges of coarser numbers."""
    x = _right(encoder, tokens)
    x[:, 0, :2] = torch.tensor([0.125, 1 + 2.0**-8])
    return x + 1e-6 * tokens.sum(dim=1).sin().sign()[:, None, None]


def _two_rows_hear_all(encoder, tokens):
    """The right encoder, but for two rows that hear all words, one as much more as the other less."""
    x, heard = _right(encoder, tokens), 0.01 * tokens.sum(dim=1).sin()
    x[:, 1, 30] += heard
    x[:, 2, 30] -= heard
    return x


def _one_number_is_nan(encoder, tokens):
    x = _right(encoder, tokens)
    x[:, 1, 40] = torch.nan
    return x


ENCODERS = {  # what: (an encoder, whether it is causal)
    "an encoder with the right mask": (_right, True),
    "an encoder without a mask": (_with_masks(99, 99, 99), False),
    "an encoder in which each token sees the next": (_with_masks(2, 2, 2), False),
    "an encoder whose last block lets each token see the next": (_with_masks(1, 1, 2), False),
    "an encoder with the right mask and other features": (lambda *given: _right(*given).roll(1, 2) / 2, True),
    "a right encoder whose numbers differ by a millionth for another prompt, as rounding does": (_rounds_otherwise, True),
    "an encoder that answers NaN": (lambda *given: _right(*given) * torch.nan, False),
    "an encoder that answers NaN in one number of row 1": (_one_number_is_nan, False),
    "an encoder in which rows 1 and 2 hear every word, and cancel on average": (_two_rows_hear_all, False),
    "an encoder in which one number of row 0 hears every word": (_one_number_hears_all(0, 0.01), False),
    "an encoder in which one number of row 1 hears every word": (_one_number_hears_all(1, -0.01), False),
    "an encoder in which one number of row 2 hears every word": (_one_number_hears_all(2, 0.01), False),
}
_PROBES = (  # encoders that tell mistakes apart, and that no answer has to judge
    lambda encoder, tokens: torch.zeros(*tokens.shape, encoder.config.width),
    lambda encoder, tokens: torch.full((*tokens.shape, encoder.config.width), torch.nan),
    lambda encoder, tokens: normal(*tokens.shape, encoder.config.width).float(),  # differs for equal prompts
    lambda encoder, tokens: 0.015 * torch.arange(len(tokens)).view(-1, 1, 1).expand(*tokens.shape, encoder.config.width),
)


def _judged(verdict, changed=("left", "right")):
    """A test that compares the features of two prompts otherwise."""
    def test(encode, encoder):
        tokens = encoder.tokens([f"a large red circle moves {word}" for word in changed])
        with torch.no_grad():
            return bool(verdict(*encode(encoder, tokens)))

    return test


def _compares_with_the_parts(run, encoder):
    tokens = encoder.tokens(["a large red circle moves left"])
    with torch.no_grad():
        return torch.allclose(run(encoder, tokens), encode(encoder, tokens), atol=1e-5)


TEST_MISTAKES = {
    "True and False are exchanged": lambda *given: not is_causal(*given),
    "the changed word and all behind it may differ; only the rows before it must agree": _judged(
        lambda a, b: ((a - b).abs() < 1e-5).all()),
    "the row right before the changed word is left out": _judged(lambda a, b: ((a[:5] - b[:5]).abs() < 1e-5).all()),
    "rows are compared on average, and one number in them is not noticed": _judged(
        lambda a, b: (a[:6] - b[:6]).abs().mean() < 1e-3),
    "the mean of the rows is compared, where differences cancel": _judged(
        lambda a, b: torch.allclose(a[:6].mean(0), b[:6].mean(0), atol=1e-5)),
    "numbers that differ by a millionth count as different here": _judged(lambda a, b: torch.equal(a[:6], b[:6])),
    "a difference has two signs, and only one of them is noticed": _judged(lambda a, b: ((a - b)[:6] < 1e-5).all()),
    "the tolerance is so wide that a small leak passes": _judged(lambda a, b: ((a[:6] - b[:6]).abs() < 0.1).all()),
    "no comparison with NaN is true, so NaN passes where you look for a large difference": _judged(
        lambda a, b: not ((a[:6] - b[:6]).abs() > 1e-5).any()),
    "two prompts are to be compared, and not one with the library's features": _compares_with_the_parts,
    "both prompts are the same, so nothing can differ": _judged(
        lambda a, b: ((a[:6] - b[:6]).abs() < 1e-5).all(), ("left", "left")),
    "finite numbers of the right shape are no sign of a mask": _judged(lambda a, b: a.isfinite().all()),
    "it says True for every encoder": lambda *_: True,
    "it says False for every encoder": lambda *_: False,
}  # fmt: skip


@exercise("4.B", name="is_causal", solution=is_causal, minutes=6, difficulty=3, importance=5)
def check_is_causal(student):
    """On encoders of random weights with the right mask, none, one that is off by one, small leaks, and NaN."""
    torch.manual_seed(4)
    encoder = TextEncoder(get("mini").text).eval()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}

    def refused(*_):
        raise Failed("two prompts compared", "a call of the encoder itself", "use the function that is given")

    encoder.forward = refused
    for what, (run, expected) in ENCODERS.items():
        found = student(run, encoder)
        if not isinstance(found, (bool, np.bool_)):
            raise Failed("True or False", f"{type(found).__name__} {_shortened(found)}")
        if found != expected:
            early = _early(student, run, encoder) if found else ""
            raise Failed(f"{expected} for {what}", found, early or _cause_in_test(student, encoder))
    if any(not torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items()):
        raise Failed("the encoder as it was", "its weights were changed", "an operation in place on one of its parts")
    return f"tells {len(ENCODERS)} encoders apart, right and broken ones"


def _cause_in_test(student, encoder):
    """The mistake that judges all encoders as the student's test does, or nothing."""
    runs = [*(run for run, _ in ENCODERS.values()), *_PROBES]
    verdicts = lambda test: [_verdict(test, run, encoder) for run in runs]  # noqa: E731
    found = verdicts(student)
    return next((cause for cause, wrong in TEST_MISTAKES.items() if verdicts(wrong) == found), "")


def _early(student, run, encoder):
    """The cause of an encoder that passes though it leaks, if the student's prompts cannot show the leak; else nothing."""
    prompts = []

    def watched(encoder, tokens):
        prompts.extend(tokens)
        return run(encoder, tokens)

    _verdict(student, watched, encoder)
    shared = {(i, j): int((prompts[i] != prompts[j]).nonzero()[0]) for i in range(len(prompts)) for j in range(i)
              if (prompts[i] != prompts[j]).any()}  # fmt: skip
    if not shared or max(shared.values()) == 0:
        return ""
    with torch.no_grad():
        features = run(encoder, torch.stack(prompts))
    if any(not ((features[i, :n] - features[j, :n]).abs() < 1e-5).all() for (i, j), n in shared.items()):
        return ""
    last = max(shared.values()) - 1
    compared = ("row 0 alone is", "rows 0 and 1 alone are")[last] if last < 2 else f"rows 0 to {last} alone are"
    return (f"your prompts differ from row {last + 1} on, so {compared} compared, where this encoder is right; change a later "
            "word")


def _verdict(test, run, encoder):
    try:
        return bool(test(run, encoder))
    except Exception:  # a student's test may raise anything
        return None
