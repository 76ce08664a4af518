"""TokenLens: what the text encoder reads of a prompt, and how near two prompts are.

    "a red ring"  ->  start  a  red  ring  end  0  0  …     pieces of the byte-pair tokenizer, with their ids
                      ██                                    causal mask: a token sees itself and those before
                      ████                                  or the attention of a layer, averaged over its heads
                      ██████
    prompts x prompts: cosine of the mean tokens, as they are, and whitened

Whitened: the mean of a reference is taken off and every direction divided by its standard deviation there. Without
it the few directions in which mean tokens vary most (colour, shape) drown the others (left or right).

References: CLIP, arXiv 2103.00020, section 2.4; whitening of sentence vectors: Su et al. 2021, arXiv 2103.15316.
"""

import numpy as np
import torch
import traitlets
from torch import Tensor

from minit2v.datasets.moving_things import MovingThings, words
from minit2v.errors import UserError
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files, pack
from minit2v.networks.text import TextEncoder

FLOOR = 3e-4  # of the largest variance, added to all: directions of mere noise stay small, as in training/unet.py
MOST_SHOWN = 32  # tokens of the matrices; the padding beyond is only counted


def pieces(encoder: TextEncoder, prompt: str) -> list[dict]:
    """Every token of a prompt: its text, id in the model, id in CLIP's vocabulary, and kind.

    kind is "start", "word" (the piece ends a word), "part" (it does not), "end" or "padding".
    """
    tokens = encoder.tokens
    start, end = tokens.bpe.all_special_ids[:2]
    result, ended = [], False
    for number in tokens([prompt])[0].tolist():
        original = int(tokens.rows[number])
        text = tokens.bpe.decoder[original]
        kind = "word" if text.endswith("</w>") else "part"
        if original in (start, end):
            kind = text = "start" if original == start else "end"
        if ended:
            kind, text = "padding", "·"
        ended = ended or original == end
        result.append({"text": text.removesuffix("</w>"), "id": number, "original": original, "kind": kind})
    return result


def causal_mask(n: int) -> np.ndarray:
    """(n, n), True where the token of the row sees the token of the column: itself and those before it."""
    return np.tri(n, dtype=bool)


@torch.no_grad()
def features_and_attention(encoder: TextEncoder, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Features (b, n, d) of the whole prompts, as `encoder.features` gives them, and attention (layers, b, n, n), the mean of
    the heads."""
    ids = encoder.tokens(prompts).to(encoder.positional_embedding.device)
    x = encoder.token_embedding(ids) + encoder.positional_embedding
    n, maps = ids.shape[1], []
    causal = torch.full((n, n), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
    for block in encoder.blocks:
        y = block.ln_1(x)
        maps.append(block.attn(y, y, y, attn_mask=causal, need_weights=True, average_attn_weights=True)[1])
        x = block(x, attn_mask=causal)
    return encoder.ln_final(x), torch.stack(maps)


def similarity(features: Tensor, reference: Tensor | None = None) -> np.ndarray:
    """Cosines (b, b) of the mean tokens of features (b, n, d); whitened by a reference (m, n, d) if there is one."""
    x = features.double().mean(dim=1)
    if reference is not None:
        known = reference.double().mean(dim=1)
        variances, axes = torch.linalg.eigh(torch.cov(known.T))
        x = (x - known.mean(dim=0)) @ axes / (variances.clamp(min=0) + FLOOR * variances.max() + 1e-12).sqrt()
    x = torch.nn.functional.normalize(x, dim=1)
    return (x @ x.T).cpu().numpy().round(3) + 0.0  # no -0.0


def centred(features: Tensor) -> np.ndarray:
    """Cosines (b, b) of the mean tokens after the mean of these prompts is taken off."""
    return similarity(features - features.mean(dim=(0, 1)))


def familiar_captions(encoder: TextEncoder, n: int = 256) -> list[str] | None:
    """Captions of Moving Things, on which the shipped models were trained; None where a compact vocabulary lacks their
    words, and for the whole one."""
    known, data = encoder.config.words, MovingThings("train")
    if known is None or not set(words(data.level)) <= set(known):
        return None
    return [data.text(i)[0] for i in range(n)]


class TokenLens(LabWidget):
    """Prompts as the text encoder reads them: tokens with ids, the causal mask, attention, similarity of prompts.

    Args:
        encoder: a `minit2v.networks.text.TextEncoder`; its weights may be random.
        prompts: 1 to 12 texts.
        reference: prompts whose mean tokens define the whitening; at least 32. By default 256 captions of Moving
            Things, for an encoder with their vocabulary; else only the prompts' own mean is taken off.

    Synced: `prompt`, `token`, `layer` (0: the mask). UserError for no prompts, and for words outside the vocabulary.
    """

    _esm = files("lab.js", "picking.js", "tokens.js")
    _css = files("lab.css")
    prompt = traitlets.Int(0).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)
    maps = traitlets.Bytes().tag(sync=True)
    layout_of_maps = traitlets.Dict().tag(sync=True)

    def __init__(self, encoder: TextEncoder, prompts: list[str], reference: list[str] | None = None,
                 name: str | None = None):  # fmt: skip
        if isinstance(prompts, str) or not 1 <= len(prompts) <= 12:
            raise UserError(f"prompts: expected a list of 1 to 12 texts, found {prompts!r}")
        if reference is not None and len(reference) < 32:
            raise UserError(f"reference: expected at least 32 prompts to whiten with, found {len(reference)}")
        reference = familiar_captions(encoder) if reference is None else reference
        self.prompts, self.tokens = list(prompts), [pieces(encoder, prompt) for prompt in prompts]
        features, attention = features_and_attention(encoder, self.prompts)
        self.plain = similarity(features)
        self.whitened = centred(features) if reference is None else similarity(features, features_and_attention(encoder, reference)[0])
        self.measure = "own mean taken off" if reference is None else f"whitened by {len(reference)} captions"
        longest = max(sum(token["kind"] != "padding" for token in tokens) for tokens in self.tokens)
        self.shown = shown = min(len(self.tokens[0]), max(longest + 3, 12), MOST_SHOWN)
        maps = (attention[..., :shown, :shown].float().cpu().numpy() * 255).round().astype(np.uint8)
        data, layout = pack(attention=maps, mask=causal_mask(shown).astype(np.uint8) * 255)
        facts = {
            "prompts": self.prompts, "tokens": [tokens[:shown] for tokens in self.tokens], "n": len(self.tokens[0]),
            "shown": shown, "layers": len(attention), "compact": encoder.tokens.words is not None,
            "plain": self.plain.tolist(), "whitened": self.whitened.tolist(),
            "measure": self.measure,
        }  # fmt: skip
        self.first = min(max(i for i, token in enumerate(self.tokens[0]) if token["kind"] != "padding"), shown) - 1
        super().__init__(name, facts=facts, maps=data, layout_of_maps=layout, token=self.first)

    def describe(self):
        return f"{len(self.prompts)} prompts, {len(self.tokens[0])} tokens each"

    def alt(self):
        return ("the tokens of the prompts with their ids, the causal mask as a triangle, and how alike the prompts "
                "are, as they are and whitened")  # fmt: skip

    def picture(self):
        self.picture_width, cell, tokens = 900, 264 / self.shown, self.tokens[0][: self.shown]
        figure, axes = figures.diagram(self.picture_width, 400 + 16 * max(0, len(self.prompts[:7]) - 5))
        figures.text(axes, 12, 14, f"tokens of “{self.prompts[0]}”, and their ids", weight="bold")
        width = min(66, 876 / self.shown)
        for i, token in enumerate(tokens):
            seen, x = i <= self.first, 12 + width * i
            edge = "black" if i == self.first else "#999999"
            figures.box(axes, x, 30, width - 3, 40, "#d6e6f2" if seen else "#f2f2f2", edge)
            for text, y, size, ink in ((token["text"], 42, 11, figures.INK), (str(token["id"]), 58, 9, figures.FAINT)):
                size = min(size, 1.5 * width / len(text))
                figures.text(axes, x + width / 2 - 1.5, y, text, size, ink, "center")
        figures.text(axes, 12, 92, "causal mask: the row sees the dark columns", weight="bold")
        for i, token in enumerate(tokens):
            y = 120 + cell * i
            figures.text(axes, 70, y + cell / 2, token["text"], min(11, cell), figures.INK, "right")
            figures.box(axes, 76, y, cell * (i + 1), cell, "#0072b2" if i == self.first else "#88a", "white", 0.3)
        figures.box(axes, 76, 120, cell * self.shown, cell * self.shown)
        figures.text(axes, 390, 92, "how alike the prompts are (cosine)", weight="bold")
        side = 170 / len(self.prompts)
        for x, title, matrix in ((410, "as they are", self.plain), (640, self.measure, self.whitened)):
            figures.text(axes, x, 112, title, 11, figures.FAINT)
            figures.image(axes, matrix, x, 138, 170, 170, cmap=figures.diverging(), vmin=-1, vmax=1)
            for (i, j), value in np.ndenumerate(matrix):
                ink, middle = "white" if abs(value) > 0.7 else "black", (x + side * (j + 0.5), 138 + side * (i + 0.5))
                figures.text(axes, *middle, f"{round(value, 2) + 0.0:.2f}", min(10, side / 3), ink, "center")
            for i in range(len(self.prompts)):
                figures.text(axes, x - 9, 138 + side * (i + 0.5), i + 1, 10, align="center")
                figures.text(axes, x + side * (i + 0.5), 129, i + 1, 10, align="center")
        for i, prompt in enumerate(self.prompts[:7]):
            figures.text(axes, 410, 324 + 16 * i, f"{i + 1}  {prompt or '(empty)'}", 11, clip_on=True)
        return figures.pixels(figure)
