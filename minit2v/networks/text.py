"""CLIP text conditioning: a prompt becomes one feature vector per token, which the UNet attends to.

    "a red ring"                                      blocks 1 … layers - 1 of CLIP's text tower
         │ open_clip's byte-pair tokenizer             ┌──────────────────────────┐
         ▼                                             │  x += attention(ln(x))   │  causal: a token sees
    start a red ring end  0  0 …  (n ids) ─ embed ─ +  │  x += mlp(ln(x))         │  itself and earlier ones
                                            positions  └────────────┬─────────────┘
                                                                    ▼ the last block is skipped
                                                                 ln_final  ->  features (n d)

The layer before the last ("penultimate") keeps the meaning of each word; the last one collects everything in the end
token for CLIP's contrastive loss. Padding (id 0 in the release) is *not* masked: the UNet attends to padded positions.

Two things of a prompt are told apart by the departure `looks_first`: how things look, and how they move. The start token
has heard no word, so its features are the same for every prompt; they give way to the mean over the prompt's beginning,
"a red ring" of "a red ring moves left", encoded by itself. A UNet that takes the looks from there cannot mistake a ring
that it has seen moving for one that it has not.

A small model keeps a *compact vocabulary*: only the rows of the embedding that its words use, in their original
order, so that padding stays the lowest id and the end token the highest (open_clip finds the end token by argmax).

References: ModelScopeT2V, arXiv 2308.06571, section 3.2; CLIP, arXiv 2103.00020, section 2.4; OpenCLIP ViT-H-14.
"""

import re
import unicodedata
import warnings
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from minit2v.errors import UserError
from minit2v.presets import TextConfig

CLIP_TOKENS = 49_408  # of CLIP's vocabulary, the last two being start and end


class Tokenizer:
    """open_clip's tokenizer, with compact ids for a model that knows only some words.

    Args:
        context_length: tokens n of every prompt, with start, end and padding.
        words: the words to keep; None keeps the whole vocabulary and every id.
        pad_token: id in the whole vocabulary that fills a prompt up to `context_length`.
        added_tokens: texts that are one token each, with the ids after CLIP's; only with the whole vocabulary.

    >>> tokenizer = Tokenizer(8, words=("a", "red", "ring"))
    >>> tokenizer(["a red ring", ""])
    tensor([[4, 1, 2, 3, 5, 0, 0, 0],
            [4, 5, 0, 0, 0, 0, 0, 0]])
    """

    def __init__(self, context_length: int, words: tuple[str, ...] | None = None, pad_token: int = 0,
                 added_tokens: tuple[str, ...] = ()):  # fmt: skip
        with torch.device("cpu"):  # its import makes tensors, real ones also while a model is built on meta
            from open_clip.tokenizer import SimpleTokenizer  # takes seconds to import

        self.bpe, self.pad_token = SimpleTokenizer(context_length=context_length), pad_token
        self.words = None if words is None else {piece for word in words for piece in self.pieces(word)}
        self.added = {text.lower(): CLIP_TOKENS + i for i, text in enumerate(added_tokens)}
        for text, i in self.added.items():  # so that its ids are decoded like all others
            self.bpe.decoder[i] = "".join(self.bpe.byte_encoder[byte] for byte in text.encode()) + "</w>"
        if pad_token >= (known := CLIP_TOKENS + len(self.added)):
            raise UserError(f"pad_token: expected an id below {known:,}, found {pad_token}")
        if words is None:
            rows = range(known)
        else:
            used = (i for word in self.words for i in self.bpe.encode(word))
            rows = sorted({pad_token, *self.bpe.all_special_ids, *used})
        self.rows = torch.tensor(rows, device="cpu")  # compact id -> original id, increasing

    def __call__(self, prompts: list[str]) -> Tensor:
        """Ids (b, n) of prompts: start, words, end, padding.

        A prompt that is too long is cut before the end token, with a warning that says what was left out. Raises
        UserError for words outside the vocabulary, naming the nearest known ones.
        """
        start, end = self.bpe.all_special_ids[:2]
        ids = torch.full((len(prompts), self.bpe.context_length), self.pad_token, dtype=torch.long, device="cpu")
        for row, prompt in zip(ids, prompts):
            known = [start, *self._cut(self.encode(self._checked(prompt))), end]
            row[: len(known)] = torch.tensor(known, device="cpu")
        return torch.searchsorted(self.rows, ids)

    def encode(self, text: str) -> list[int]:
        """Ids of a text in the whole vocabulary, without start and end."""
        if not self.added:
            return self.bpe.encode(text)
        pieces = re.split(f"({'|'.join(map(re.escape, self.added))})", text, flags=re.IGNORECASE)
        return [i for piece in pieces for i in ([self.added[piece.lower()]] if piece.lower() in self.added
                                                else self.bpe.encode(piece))]  # fmt: skip

    def pieces(self, text: str) -> list[str]:
        """Words, digits and runs of punctuation, in lower case: the pieces within which open_clip merges byte pairs."""
        return self.bpe.pat.findall(self.bpe.clean_fn(text))

    def unknown(self, text: str) -> list[str]:
        """The words that the vocabulary lacks, each once; punctuation is no word."""
        if self.words is None:
            return []
        return list(dict.fromkeys(piece for piece in self.pieces(text) if piece not in self.words and not is_punctuation(piece)))

    def known(self, text: str) -> str:
        """The text without what the vocabulary lacks."""
        return text if self.words is None else " ".join(piece for piece in self.pieces(text) if piece in self.words)

    def _checked(self, prompt: str) -> str:
        """The prompt if all its words are known. A compact vocabulary has no punctuation, so there it is left out."""
        if unknown := self.unknown(prompt):
            raise UserError(_unknown_words(prompt, unknown, sorted(self.words)))
        return self.known(prompt)

    def _cut(self, ids: list[int]) -> list[int]:
        """The ids that fit between start and end. Warns of those that do not."""
        room = self.bpe.context_length - 2
        if len(ids) > room:
            warnings.warn(
                f"the prompt has {len(ids)} tokens and the model reads {room}: left out "
                f"{self.bpe.decode(ids[room:]).strip()!r} at its end; shorten the prompt to keep them",
                stacklevel=4,
            )
        return ids[:room]


def is_punctuation(piece: str) -> bool:
    """Whether all its characters are of Unicode's kind P."""
    return all(unicodedata.category(character).startswith("P") for character in piece)


def _unknown_words(prompt: str, unknown: list[str], known: list[str]) -> str:
    near = {word: get_close_matches(word, known, n=3, cutoff=0.5) for word in unknown}
    named = ", ".join(f"{word!r} (nearest: {', '.join(near[word])})" if near[word] else repr(word) for word in unknown)
    vocabulary = "" if all(near.values()) else f"; it knows: {' '.join(known)}"
    return f"the model does not know {named} in the prompt {prompt!r}; use words that it knows{vocabulary}"


class TextEncoder(nn.Module):
    """The part of CLIP's text tower that a text-to-video model runs (ViT-H-14: 340,387,840 parameters).

    Args:
        config: sizes and vocabulary.
        clip: an ``open_clip.model.CLIP`` of these sizes. Its parameters are then *shared*: training it trains this
            encoder. None creates new parameters with open_clip's initialisation.
    """

    def __init__(self, config: TextConfig, clip: nn.Module | None = None):
        super().__init__()
        self.config = config
        self.tokens = Tokenizer(config.context_length, config.words, config.pad_token, config.added_tokens)
        blocks = config.layers - config.skip_last
        tower = clip or _text_tower(config, blocks, len(self.tokens.rows))
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding  # (n d)
        self.blocks = nn.ModuleList(tower.transformer.resblocks[:blocks])
        self.ln_final = tower.ln_final

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (b, n, d) of ids (b, n): the penultimate layer, then the final norm."""
        x = self.token_embedding(tokens) + self.positional_embedding  # (b n) -> (b n d)
        n = tokens.shape[1]
        causal = torch.full((n, n), float("-inf"), dtype=x.dtype, device=x.device).triu(1)  # eq (4.1) · CLIP 2.4
        for block in self.blocks:
            x = block(x, attn_mask=causal)
        return self.ln_final(x)  # eq (4.2) · ModelScopeT2V section 3.2

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """Features (b, n, d) of b prompts, in the dtype and on the device of the weights. "" is the unconditional one.

        With `looks_first` the first of the n says the looks. Raises UserError for words outside the vocabulary. Warns
        of a prompt that is too long and says what was cut.
        """
        device = self.positional_embedding.device
        tokens, looks = self.tokens(prompts), None
        if self.config.looks_first:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a prompt was cut has been said above
                looks = self.tokens([self.looks(prompt) for prompt in prompts]).to(device)
        return self.features(tokens.to(device), looks)

    def features(self, tokens: Tensor, looks: Tensor | None = None) -> Tensor:
        """Features (b, n, d) of ids (b, n); the first of the n says the looks where their ids (b, n) are given."""
        features = self(tokens)
        if looks is None:
            return features
        first = self(looks).mean(dim=1, keepdim=True)  # padding too has heard every word
        return torch.cat([first, features[:, 1:]], dim=1)

    def looks(self, prompt: str) -> str:
        """The prompt before its first motion word, or the whole one if it has none, or begins with one.

        >>> TextEncoder(TextConfig(width=8, heads=1, layers=2, motion_words=("moves",))).looks("a red ring moves left")
        'a red ring'
        """
        words = self.config.motion_words
        found = words and re.search(rf"\b({'|'.join(map(re.escape, words))})\b", prompt, re.IGNORECASE)
        return found and prompt[: found.start()].strip() or prompt


def _text_tower(config: TextConfig, blocks: int, vocabulary: int) -> nn.Module:
    """open_clip's text tower with that many blocks, without the projection to the space shared with pictures."""
    with torch.device("cpu"):  # see `Tokenizer`
        from open_clip.transformer import QuickGELU, TextTransformer

    activations = {"gelu": nn.GELU, "quick_gelu": QuickGELU}
    if config.activation not in activations:
        raise UserError(f"activation: expected one of {', '.join(activations)}, found {config.activation!r}")
    return TextTransformer(
        context_length=config.context_length, vocab_size=vocabulary, width=config.width, heads=config.heads,
        layers=blocks, proj_type="none", act_layer=activations[config.activation],
    )
