"""Checks of notebook 04, Words into vectors: byte pairs, causal attention, the encoder from parts, a test for it."""

from unittest.mock import patch

import numpy as np
import torch

from minit2v.lab.course.comparing import called, same_dtype
from minit2v.lab.course.exercises import Failed, close, exercise, same_shape
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
        "\"a large red circle moves left\" gives mini a context of 20 rows. How many of them can depend on \"left\"?",
        ["1", "2", "14"],
        2,
        "The word itself, the end token, and all padding behind it: the looks and five words are six rows, 20 - 6 = 14.",
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


@exercise("4.1", name="encode_word", solution=encode_word, minutes=10, difficulty=3, importance=3)
def check_encode_word(student):
    """On a made-up table in which order matters, then on real words against open_clip's tokenizer."""
    ranks = {("b", "c"): 0, ("a", "b"): 1, ("bc", "d</w>"): 2}
    told = "abcd with (b, c) before (a, b) before (bc, d</w>)"
    _same_pieces(student, "abcd", ranks, ["a", "bcd</w>"], told, _cause_for_abcd)
    _same_pieces(student, "abab", {("a", "b"): 0}, ["ab", "a", "b</w>"], "abab with the merge (a, b)",
                 {"ab ab</w>": "b and b</w> are different pieces"}.get)  # fmt: skip
    _same_pieces(student, "ananas", {("a", "n"): 0}, ["an", "an", "a", "s</w>"], "ananas with the merge (a, n)",
                 {"an a n a s</w>": "merge all occurrences"}.get)  # fmt: skip
    unsorted = {("B", "c"): 7, ("bc", "a"): 2, ("ab", "c"): 0, ("a", "b"): 10**6, ("a", "a"): 4, ("aa", "aa"): 6,
                ("s", "s"): 1, ("ab", "ab</w>"): 3}  # fmt: skip
    for word in ("abcabc", "aaaaaaa", "Bcaaasss", "mnopqrstuvw", "sss", "a", "aabc", "abab", "abcd", "é2-s"):
        _same_pieces(student, word, unsorted, encode_word(word, unsorted), f"{word} with {unsorted}")
    from open_clip.tokenizer import SimpleTokenizer

    bpe, words = SimpleTokenizer(), ("circle", "leftwards", "modelscope", "x", "antidisestablishmentarianism", "mississippi")
    for word in words:
        _same_pieces(student, word, bpe.bpe_ranks, bpe.bpe(word).split(), f"{word!r} with CLIP's ranks")
    return f"CLIP's own pieces of {len(words)} words"


def _same_pieces(student, word, ranks, expected, told, cause_of=None):
    """Raise Failed unless the student cuts the word into these pieces and leaves ranks alone.

    Args:
        told: the word and its ranks, for the message.
        cause_of: the mistake behind some found pieces, which are given as one text.
    """
    given = dict(ranks)
    found = student(word, given)
    if not isinstance(found, list):
        cause = "the function does not return its result" if found is None else "the result is a list of texts"
        raise Failed(f"{expected} for {told}", f"{type(found).__name__} {found}", cause)
    if found != expected:
        cause = "of all pairs that are in ranks, merge the one of lowest rank, all occurrences, from left to right"
        if any(pair in ranks for pair in zip(found, found[1:])):
            cause = "go on as long as some pair is in ranks"
        if cause_of:
            cause = cause_of(" ".join(map(str, found))) or ""
        raise Failed(f"{expected} for {told}", found, cause)
    if given != ranks:
        raise Failed("ranks as they were", "they were changed", "ranks is a table to look things up in")


def _cause_for_abcd(found):
    if found.endswith(" </w>"):
        return "</w> is no piece of its own; the last letter carries it from the start"
    known = {
        "a bc d": "the last letter carries </w> from the start",
        "a bc d</w>": "go on as long as some pair is in ranks",
        "abcd</w>": "stop as soon as no pair is in ranks",
        "ab c d</w>": "the pair of lowest rank is merged first, wherever it stands",
    }
    return known.get(found)


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
    same_shape("the result", found, (6, 8), "the result has one row for each query, as wide as a value")
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
    _as_pytorch(q, k, v, found)
    # large scores, too: what is forbidden stays so, and no exponential overflows; and more tokens than CLIP reads
    for n, d, size in ((6, 8, 10), (9, 3, 1), (4, 5, 0.1), (1, 2, 1), (100, 4, 1), (6, 5, 100)):
        q, k, v = (size * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(3))
        _as_pytorch(q, k, v, called(student, q, k, v))
    return "equal to PyTorch's, no leak, no NaN"


def _as_pytorch(q, k, v, found):
    """Raise Failed unless that is PyTorch's own causal attention."""
    n, d = q.shape
    expected = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    what = f"the result for {n} tokens of width {d}"
    same_dtype(what, found, q.dtype)
    same_shape(what, found, (n, d), "the result has one row for each query, as wide as a value")
    tolerance = 1e-5 if q.dtype == torch.float32 else 1e-9  # of float64: a float32 step on the way costs more
    close(what, found, expected, tolerance, _cause_in_attention(q, k, v, found))


def _cause_in_attention(q, k, v, found):
    """The mistake that gives what was found, or nothing."""
    n, d = q.shape
    scores, hidden = q @ k.T / d**0.5, torch.full((n, n), float("-inf"), dtype=q.dtype)
    mistaken = {
        "there is no mask": scores,
        "the mask is transposed": scores + hidden.tril(-1),
        "0 stands where -inf should": scores.tril(),
        "triu(2) lets a token see the next one": scores + hidden.triu(2),
        "divide the scores by the square root of d": d**0.5 * scores + hidden.triu(1),
        "divide the scores by the square root of d, not by d": scores / d**0.5 + hidden.triu(1),
    }
    mistakes = {cause: torch.softmax(wrong, dim=-1) @ v for cause, wrong in mistaken.items()}
    mistakes |= {
        "softmax over keys, which is the last axis": torch.softmax(scores + hidden.triu(1), dim=0) @ v,
        "mask the scores, before the softmax; weights masked after it no longer add up to 1":
            torch.softmax(scores, dim=-1).tril() @ v,
    }  # fmt: skip
    return next((cause for cause, wrong in mistakes.items() if torch.allclose(found.to(q), wrong, atol=1e-5)), "")


def encode(encoder, tokens):
    """Ids (b, n) -> features (b, n, d) of the penultimate layer, after the final norm."""
    x = encoder.token_embedding(tokens) + encoder.positional_embedding
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
    for block in encoder.blocks:
        x = block(x, attn_mask=mask)
    return encoder.ln_final(x)


@exercise("4.3", name="encode", solution=encode, minutes=8, difficulty=2, importance=4)
def check_encode(student):
    """Against the encoder itself, which must not be called: one of mini's kind and one with the whole vocabulary."""
    torch.manual_seed(4)
    words, prompts = ("a", "red", "ring", "moves", "left"), ["a red ring moves left", ""]
    small = TextConfig(context_length=12, width=32, heads=2, layers=4, embed_dim=32, words=words)
    whole = TextConfig(context_length=16, width=32, heads=2, layers=2, embed_dim=32)
    for config in (small, whole):
        encoder = TextEncoder(config).eval().double()
        tokens = encoder.tokens(prompts)
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
            mistakes = _mistaken(encoder, tokens)
        same_dtype("features", found, torch.float64)
        causes = [cause for cause, wrong in mistakes.items()
                  if found.shape == wrong.shape and torch.allclose(found, wrong, rtol=0, atol=1e-8)]
        causes += ["positions first, then every block with the mask, then ln_final once"]
        close("features", found, expected, 1e-8, causes[0])
    return "every number, for two vocabularies"


def _mistaken(encoder, tokens):
    """What the usual mistakes give, by their names."""

    def through(x, mask):
        for block in encoder.blocks:
            x = block(x, attn_mask=mask)
        return x

    words, n = encoder.token_embedding(tokens), tokens.shape[1]
    placed, mask = words + encoder.positional_embedding, torch.full((n, n), float("-inf")).triu(1)
    return {
        "a mask of True and False is added as 1 and 0; use -inf and 0": encoder.ln_final(through(placed, mask < 0)),
        "the blocks ran without the mask": encoder.ln_final(through(placed, None)),
        "the positions were left out": encoder.ln_final(through(words, mask)),
        "ln_final was left out": through(placed, mask),
    }


def _refuse(*_):
    raise Failed("the encoder's parts", "a call of the encoder itself", "use token_embedding, blocks and ln_final")


def is_causal(encode, encoder):
    """Whether encode(encoder, tokens (b, n)) -> (b, n, d) hides later tokens from earlier ones."""
    tokens = encoder.tokens(["a large red circle moves left", "a large red circle moves right"])
    with torch.no_grad():
        one, other = encode(encoder, tokens)
    return bool(((one[:6] - other[:6]).abs() < 1e-5).all())


@exercise("4.B", name="is_causal", solution=is_causal, minutes=6, difficulty=3, importance=5)
def check_is_causal(student):
    """On encoders of random weights with the right mask, none, one that is off by one, and with NaN."""
    torch.manual_seed(4)
    encoder = TextEncoder(get("mini").text).eval()

    def with_masks(*diagonals):
        def run(encoder, tokens):
            x = encoder.token_embedding(tokens) + encoder.positional_embedding
            for block, diagonal in zip(encoder.blocks, diagonals, strict=True):
                x = block(x, attn_mask=torch.full((x.shape[1],) * 2, float("-inf")).triu(diagonal))
            return encoder.ln_final(x)

        return run

    right = with_masks(1, 1, 1)

    def one_row_hears_all(row, size):
        def run(encoder, tokens):
            x = right(encoder, tokens)
            x[:, row, 70] += size * tokens.sum(dim=1).sin()
            return x

        return run

    def refused(*_):
        raise Failed("two prompts compared", "a call of the encoder itself", "use the function that is given")

    encoder.forward = refused
    cases = {
        "an encoder with the right mask": (right, True, "only rows before the changed word are equal"),
        "an encoder without a mask": (with_masks(99, 99, 99), False, "compare the rows before the changed word"),
        "one in which each token sees the next": (with_masks(2, 2, 2), False, "compare the row right before the change too"),
        "one whose last block lets each token see the next": (with_masks(1, 1, 2), False,
                                                             "compare the row right before the change too"),
        "one with the right mask and other features": (lambda *given: right(*given).roll(1, 2) / 2, True,
                                                       "compare two prompts, not with what the library's makes of them"),
        "one that answers NaN": (lambda *given: right(*given) * torch.nan, False, "NaN - NaN is not small"),
    }  # fmt: skip
    for row, size in enumerate((0.01, -0.01, 0.01)):
        cause = "change a late word, and compare every number of all rows before it, to a thousandth or closer"
        cases[f"one of whose rows one number, in row {row}, hears every word"] = one_row_hears_all(row, size), False, cause
    for what, (broken, expected, cause) in cases.items():
        found = student(broken, encoder)
        if not isinstance(found, (bool, np.bool_)):
            raise Failed("True or False", found, "return a bool: bool(…) makes one of a tensor")
        if found != expected:
            raise Failed(f"{expected} for {what}", found, cause)
    return "tells the right encoder from three broken ones"
