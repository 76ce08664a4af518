"""What the words of a prompt and the frames of a clip look at, in one denoising step: attention maps on request.

    "a red ring"   cells of a frame         frames
     ─────────     look at each word        look at frames
     a    red   ring
    ▒▒▒  ░░░░  ░▓▓░                         █▒░░      cross: SpatialTransformer, attn2
    ▒▒▒  ░▓▓░  ▓░░▓                         ▒█▒░      temporal: TemporalTransformer, attn1
    ▒▒▒  ░░░░  ░▓▓░                         ░▒█▒

Maps come from the highest resolution that has attention, as the mean over its blocks on both sides of the UNet. Under
guidance they are those of the half that is given the prompt. Some runs have none: with guidance 0 (nothing reads the
prompt), with a window that slides over the frames (each frame has several maps), with networks that have no such
attention, and with a system whose UNet reads no words.

References: Hertz et al., arXiv 2208.01626, section 3 (cross-attention of a word); ModelScopeT2V, arXiv 2308.06571,
section 3.3.
"""

import copy
import warnings

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v.networks.text import Tokenizer
from minit2v.networks.unet import UNet
from minit2v.systems import TextToVideo
from minit2v.systems.modelscope import ModelScopeT2V
from minit2v.systems.settings import SamplingSettings


def words(tokens: Tokenizer, prompt: str) -> list[tuple[str, list[int]]]:
    """The words that the network reads of a prompt, in lower case, and the places of their byte pairs among its tokens.

    Start, end and padding are left out, and so are words that a long prompt loses.

    >>> from minit2v.networks.text import Tokenizer
    >>> words(Tokenizer(9), "a red thingamabob")
    [('a', [1]), ('red', [2]), ('thingamabob', [3, 4, 5, 6])]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever encoded the prompt was told that it is cut
        ids = tokens.rows[tokens([prompt])[0]].tolist()
    found, places = [], []
    end = ids.index(tokens.bpe.eot_token_id)
    for place in range(1, end):
        places.append(place)
        if tokens.bpe.decoder[ids[place]].endswith("</w>") or place == end - 1:
            found.append((tokens.bpe.decode([ids[i] for i in places]).strip(), places))
            places = []
    return found


def apart(pipe: TextToVideo) -> TextToVideo:
    """The same model, whose UNet has modules of its own: what one call asks of its layers is no other call's business,
    also in other threads. The parameters are the same memory."""
    own = copy.copy(pipe)
    if isinstance(unet := getattr(pipe, "unet", None), nn.Module):
        own.unet = copy.deepcopy(unet, {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())})
    return own


class AttentionMaps:
    """Asks the attention of a pipeline's UNet for its maps while the pipeline samples latents (b, c, f, h, w).

    Attributes: `words`, for each clip, the words that `take` has maps of; empty lists without maps.
    """

    def __init__(self, pipe: TextToVideo, prompts: list[str], settings: SamplingSettings, shape: tuple[int, ...]):
        self.shape, self.level = shape, 0
        self.cross, self.temporal, self.places = [], [], [[] for _ in prompts]
        windowed = 0 < settings.window < settings.frames
        if isinstance(pipe, ModelScopeT2V) and not windowed and settings.guidance != 0:
            try:
                self.level, self.cross, self.temporal = attention_of(pipe.unet)
                self.places = [words(pipe.text.tokens, prompt) for prompt in prompts]
            except (AttributeError, IndexError, ValueError):
                self.cross, self.temporal = [], []  # other blocks of a system that goes on from it, or a user's class
        self.words = [[word for word, _ in clip] if self.cross else [] for clip in self.places]

    def ask(self, wanted: bool) -> None:
        """Switch the maps of the following calls on or off."""
        b, (rows, columns) = self.shape[0], self._cells()
        for layer in self.cross:
            layer.keep, layer.map = b * wanted, None
        for layer in self.temporal:
            layer.keep, layer.map = b * rows * columns * wanted, None

    def take(self) -> tuple[list[Tensor], Tensor] | None:
        """The maps of the last call: for each clip (k, f, h, w), k as many as its words; and (b, f, f). On the CPU.

        Shares of attention, 0..1; a word's is the sum of its byte pairs'. None if there are no maps.
        """
        layers = self.cross + self.temporal
        if not layers or any(getattr(layer, "map", None) is None for layer in layers):
            return None
        b, _, f, h, w = self.shape
        rows, columns = self._cells()
        tokens = sum(layer.map.float() for layer in self.cross) / len(self.cross)
        tokens = rearrange(tokens, "b (f h w) m -> b m f h w", f=f, h=rows, w=columns)
        tokens = F.interpolate(tokens, size=(f, h, w), mode="nearest").cpu()
        cross = [
            torch.stack([clip[places].sum(dim=0) for _, places in found]) for clip, found in zip(tokens, self.places)
        ]
        temporal = sum(rearrange(layer.map.float(), "(b s) i j -> b s i j", b=b).mean(dim=1) for layer in self.temporal)
        return cross, (temporal / len(self.temporal)).cpu()

    def _cells(self) -> tuple[int, int]:
        h, w = self.shape[-2:]
        for _ in range(self.level):
            h, w = -(-h // 2), -(-w // 2)  # what a convolution of stride 2 leaves
        return h, w


def attention_of(unet: UNet) -> tuple[int, list, list]:
    """The level of the highest resolution that has attention, its cross-attentions and its temporal attentions."""
    level = unet.config.attention.index(True)
    blocks = [*unet.down[level].blocks, *unet.up[len(unet.up) - 1 - level].blocks]
    return level, [block.spatial.block.attn2 for block in blocks], [block.temporal.block.attn1 for block in blocks]
