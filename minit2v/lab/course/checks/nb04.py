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
    found = student("abcd", ranks)
    if found != ["a", "bcd</w>"]:
        expected = "['a', 'bcd</w>'] for abcd with (b, c) before (a, b) before (bc, d</w>)"
        raise Failed(expected, found, _cause_for_abcd(found))
    found = student("abab", {("a", "b"): 0})
    if found != ["ab", "a", "b</w>"]:
        raise Failed("['ab', 'a', 'b</w>'] for abab with the merge (a, b)", found, "b and b</w> are different pieces")
    found = student("ananas", {("a", "n"): 0})
    if found != ["an", "an", "a", "s</w>"]:
        raise Failed("['an', 'an', 'a', 's</w>'] for ananas with the merge (a, n)", found, "merge all occurrences")
    unsorted = {("B", "c"): 7, ("bc", "a"): 2, ("ab", "c"): 0, ("a", "b"): 9, ("a", "a"): 4, ("aa", "aa"): 6, ("s", "s"): 1}
    for word in ("abcabc", "aaaaaaa", "Bcaaasss", "mnopqrstuvw", "sss", "a"):
        given = dict(unsorted)
        expected, found = encode_word(word, unsorted), student(word, given)
        if found != expected:
            cause = "of all pairs that are in ranks, merge the one of lowest rank, all occurrences, from left to right"
            raise Failed(f"{expected} for {word} with {unsorted}", found, cause)
        if given != unsorted:
            raise Failed("ranks as they were", "they were changed", "ranks is a table to look things up in")
    from open_clip.tokenizer import SimpleTokenizer

    bpe, words = SimpleTokenizer(), ("circle", "leftwards", "modelscope", "x", "antidisestablishment", "mississippi")
    for word in words:
        expected = bpe.bpe(word).split()
        if (found := list(student(word, bpe.bpe_ranks))) != expected:
            raise Failed(f"{expected} for {word!r} with CLIP's ranks", found, "stop only when no pair is in ranks")
    return f"CLIP's own pieces of {len(words)} words"


def _cause_for_abcd(found):
    if not isinstance(found, list):
        return "the result is a list of texts"
    if "</w>" in found:
        return "</w> is no piece of its own; the last letter carries it from the start"
    known = {
        ("a", "bc", "d"): "the last letter carries </w> from the start",
        ("a", "bc", "d</w>"): "go on as long as some pair is in ranks",
        ("abcd</w>",): "stop as soon as no pair is in ranks",
    }
    return known.get(tuple(found), "the pair of lowest rank is merged first, wherever it stands")


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
        cause = "triu(0) forbids the diagonal as well: the first token sees nothing" if found[0].isnan().all() else ""
        raise Failed("finite numbers", "NaN", cause)
    later = v.clone()
    later[4] += 10
    leaked = ((called(student, q, k, later) - found).abs() > 1e-6).any(dim=1)
    if leaked[:4].any():
        row = int(leaked.nonzero()[0])
        cause = "no mask, a transposed one, or 0 instead of -inf"
        cause = "triu(2) lets a token see the next one" if row == 3 else cause
        raise Failed("rows 0 to 3 unchanged when value 4 changes", f"row {row} changed", cause)
    _as_pytorch(q, k, v, found)
    for n, d, size in ((6, 8, 10), (9, 3, 1), (4, 5, 0.1), (1, 2, 1)):  # large scores, too: what is forbidden stays so
        q, k, v = (size * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(3))
        _as_pytorch(q, k, v, called(student, q, k, v))
    return "equal to PyTorch's, no leak, no NaN"


def _as_pytorch(q, k, v, found):
    """Raise Failed unless that is PyTorch's own causal attention."""
    n, d = q.shape
    expected = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    what = f"the result for {n} tokens of width {d}"
    same_shape(what, found, (n, d), "the result has one row for each query, as wide as a value")
    cause = "divide by the square root of d; softmax over keys"
    if torch.allclose(found.to(q), torch.softmax(q @ k.T / d**0.5, dim=-1).tril() @ v, atol=1e-5):
        cause = "mask the scores, before the softmax; weights masked after it no longer add up to 1"
    close(what, found, expected, 1e-5, cause)
    same_dtype(what, found, q.dtype)


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
        encoder = TextEncoder(config).eval()
        tokens = encoder.tokens(prompts)
        with torch.no_grad():
            for weight in encoder.parameters():  # a new norm multiplies by 1 and adds 0, and could be left out
                weight += 0.4 * torch.randn_like(weight)
            expected = encoder(tokens)
            with patch.object(TextEncoder, "forward", _refuse):
                found = called(lambda ids: student(encoder, ids), tokens, what="features")
            mistakes = _mistaken(encoder, tokens)
        causes = [cause for cause, wrong in mistakes.items()
                  if getattr(found, "shape", None) == wrong.shape and torch.allclose(found, wrong, atol=1e-4)]
        causes += ["positions first, then every block with the mask, then ln_final once"]
        close("features", found, expected, 1e-4, causes[0])
        same_dtype("features", found, torch.float32)
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

    def with_mask(diagonal):
        def run(encoder, tokens):
            x = encoder.token_embedding(tokens) + encoder.positional_embedding
            mask = torch.full((x.shape[1],) * 2, float("-inf")).triu(diagonal)
            for block in encoder.blocks:
                x = block(x, attn_mask=mask)
            return encoder.ln_final(x)

        return run

    def first_knows_all(encoder, tokens):
        x = with_mask(1)(encoder, tokens)
        known = x.mean(dim=1)
        x[:, 0] += 0.1 * (known - known.mean(dim=1, keepdim=True))  # their sum is 0
        return x

    def refused(*_):
        raise Failed("two prompts compared", "a call of the encoder itself", "use the function that is given")

    encoder.forward = refused
    cases = {
        "an encoder with the right mask": (with_mask(1), True, "only rows before the changed word are equal"),
        "an encoder without a mask": (with_mask(99), False, "compare the rows before the changed word"),
        "one in which each token sees the next": (with_mask(2), False, "compare the row right before the change too"),
        "one with the right mask and other features": (lambda *given: with_mask(1)(*given).roll(1, 2) / 2, True,
                                                       "compare two prompts, not with what the library's makes of them"),
        "one whose first row alone hears every word": (first_knows_all, False, "compare all rows before the changed word"),
        "one that answers NaN": (lambda *given: with_mask(1)(*given) * torch.nan, False, "NaN - NaN is not small"),
    }
    for what, (broken, expected, cause) in cases.items():
        found = student(broken, encoder)
        if not isinstance(found, (bool, np.bool_)):
            raise Failed("True or False", found, "return a bool: bool(…) makes one of a tensor")
        if found != expected:
            raise Failed(f"{expected} for {what}", found, cause)
    return "tells the right encoder from three broken ones"
