"""CogVideo: a transformer that paints pictures, frozen, learns to paint clips through a second channel of attention.

    rate, words, frame 0, frame 1, …                          a frame: a token that begins it, then h w tokens
          │
          ▼ each block    a · attention(words, own frame)     frozen, of the picture transformer
                    + (1 - a) · attention(words, frames)      the temporal channel: it begins as a copy of the other

    5 key frames, 4 apart ──► between neighbours ──► 2 apart ──► between neighbours ──► 17 frames

The key frames are written one after the other; then a second temporal channel writes the frame in the middle of two, and
again. A token tells the rate: how far apart frames are. Words are tokens of the same sequence: there is no text encoder,
so the Chinese model differs from the English one in its vocabulary alone.

Departures from the paper: plain layer norms instead of sandwich norms; a token that begins each frame; no window in the second
stage; a learnt bias for each distance in the sequence, within a frame and between frames (T5, arXiv 1910.10683, section
2.1); guidance against no words instead of the word "video". And two, because the frozen layers have seen no motion, nor a word
of it: a temporal channel adds something to each word, and has small feed-forward layers of its own.

Reference: CogVideo, arXiv 2205.15868, section 3.1 (multi-frame-rate training) and 3.2 (dual-channel attention).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from minit2v import presets
from minit2v.datasets.moving_things.phrases import words
from minit2v.diffusion.samplers import Step
from minit2v.errors import UserError
from minit2v.networks.autoregressive import MaskedAttention, Memory, feed_forward
from minit2v.networks.blocks import zeroed
from minit2v.networks.layers import Linear
from minit2v.networks.text import is_punctuation
from minit2v.ranges import Checked, Depth, Size, Width
from minit2v.systems.settings import SamplingSettings
from minit2v.systems.tokens import TokenPreset, TokensToVideo

KEYS = 5  # frames that are written at a time
SPACINGS = (4, 2, 1)  # frames from one to the next: of the key frames, then of each round between them
LENGTH = SPACINGS[0] * (KEYS - 1) + 1  # frames of a whole clip: 17


@dataclass(frozen=True)
class WordsConfig(Checked):
    """What a caption may say."""

    words: tuple[str, ...] = ()  # known words or, where none are put between spaces, phrases
    length: Size = 64  # of a caption, in tokens; paper 64


@dataclass(frozen=True)
class ChannelConfig(Checked):
    """Sizes of the picture transformer and of both temporal channels; figures of the paper in the comments."""

    codes: Size = 20_000  # kinds of tokens of a frame
    words: Size = 150_000  # kinds of tokens of a caption, with the one for nothing
    length: Size = 64  # tokens of a caption
    places: Size = 400  # tokens of a frame; paper 20 x 20
    width: Width = 3072  # of a token's vector; paper 3,072
    heads: Width = 48  # paper 48
    layers: Depth = 48  # paper 48


@dataclass(frozen=True)
class CogVideoPreset(TokenPreset):
    """CogVideo: an autoencoder with a codebook, a picture transformer, and a temporal channel for each stage."""

    system: str = "cogvideo"
    text: WordsConfig = WordsConfig()
    image: ChannelConfig = ChannelConfig()
    keyframes: ChannelConfig = ChannelConfig()
    between: ChannelConfig = ChannelConfig()


def _cogvideo(name: str, language: str) -> CogVideoPreset:
    mini, codes, known = presets.get("mini"), 1024, words(1, language)
    sizes = ChannelConfig(codes, words=len(known) + 1, length=20, places=64, width=128, heads=4, layers=6)
    return CogVideoPreset(
        name=name,
        height=64,
        width=64,
        steps=LENGTH,
        guidance=1.6,
        temperature=0.5,
        autoencoder=replace(mini.autoencoder, bottleneck="codebook", codes=codes, latent_channels=8, thrift=1.0),
        text=WordsConfig(tuple(known), 20),
        image=sizes,
        keyframes=sizes,
        between=sizes,
    )


COGVIDEO_PRESETS = {"cogvideo": lambda: _cogvideo("cogvideo", "en"), "cogvideo-zh": lambda: _cogvideo("cogvideo-zh", "zh")}


class Words(nn.Module):
    """A caption as the numbers of its words; 0 fills it up. It has no weights."""

    def __init__(self, config: WordsConfig):
        super().__init__()
        self.config, self.numbers = config, {word: i + 1 for i, word in enumerate(config.words)}
        self.longest = max(map(len, config.words), default=0)
        self.spaced = all(word.isascii() for word in config.words)

    def encode(self, captions: list[str]) -> Tensor:
        """Numbers (b, n). Raises UserError that names an unknown word, or a caption that is too long."""
        found = torch.zeros(len(captions), self.config.length, dtype=torch.long, device="cpu")
        for row, caption in zip(found, captions):
            numbers = self.split(caption)
            if len(numbers) > len(row):
                raise UserError(f"expected at most {len(row)} words, found {len(numbers)} in {caption!r}; shorten it")
            row[: len(numbers)] = torch.tensor(numbers, dtype=torch.long, device="cpu")
        return found

    def split(self, caption: str) -> list[int]:
        """The numbers of the words; without spaces, of the longest known phrases from left to right."""
        pieces = "".join(" " if is_punctuation(character) else character for character in caption.lower()).split()
        if not self.spaced:
            pieces = [piece for text in pieces for piece in self.phrases(text)]
        for piece in pieces:
            if piece not in self.numbers:
                raise UserError(f"the model does not know {piece!r} in {caption!r}; it knows: {' '.join(self.config.words)}")
        return [self.numbers[piece] for piece in pieces]

    def phrases(self, text: str) -> Iterator[str]:
        while text:
            known = (text[:size] for size in range(self.longest, 0, -1) if text[:size] in self.numbers)
            yield (found := next(known, text))
            text = text[len(found) :]


class Places(NamedTuple):
    """Where the elements of a sequence stand, each (m,): `frame` is -1 for words, `index` is the place within the words or
    the frame, `given` says that the frame is given and not written."""

    frame: Tensor
    index: Tensor
    given: Tensor

    def part(self, which: slice) -> "Places":
        return Places(*(values[which] for values in self))

    def sees(self, others: "Places") -> tuple[Tensor, Tensor]:
        """Which of the others each element sees (m, n): in the channel of pictures, and in the temporal one.

        Frames that are given see one another whole; a frame that is written sees those, and what was written before.
        """
        (frame, index, given), (other, place, stands) = (tuple(v[:, None] for v in self), tuple(v[None] for v in others))
        words, before = other == -1, (other == frame) & (place <= index)
        inside = before | words & (frame >= 0)
        written = ~given & ~stands & (other < frame) & ~words
        return inside, inside | (frame >= 0) & (stands | written)  # eq (15.3) · CogVideo, code of stage 2

    def apart(self, others: "Places", size: int) -> tuple[Tensor, Tensor]:
        """How far the others are from each element (m, n), as rows of the tables of bias: in the channel of pictures, and
        in the temporal one. `size` is that of a frame; row 0 is for words."""
        frames, places = ((a[:, None] - b[None]) for a, b in zip(self[:2], others[:2]))
        words = (self.frame < 0)[:, None] | (others.frame < 0)
        inside, along = 1 + size + places, 1 + size + places + (frames + KEYS - 1) * (2 * size + 1)
        return inside.masked_fill(words, 0), along.masked_fill(words, 0)


def places(words: int, frames: list[int], size: int, given: list[bool], device=None) -> Places:
    """The places of a caption and of frames with these numbers, each of `size` tokens and the one that begins it."""
    one = lambda *values: torch.tensor(values, device=device)
    frame = torch.cat([one(-1).repeat(words), one(*frames).repeat_interleave(size + 1)]).long()
    index = torch.cat([torch.arange(words, device=device), torch.arange(size + 1, device=device).repeat(len(frames))])
    stands = torch.cat([one(False).repeat(words), one(*given).repeat_interleave(size + 1)]).bool()
    return Places(frame, index, stands)


class Block(nn.Module):
    """A block of the picture transformer: attention, feed-forward, each after a LayerNorm, each added."""

    def __init__(self, config: ChannelConfig):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = MaskedAttention(config.width, config.heads)
        self.bias = nn.Parameter(torch.zeros(config.heads, 2 * config.places + 2))
        self.feed_forward = feed_forward(config.width)


class PictureTransformer(nn.Module):
    """CogView: words and the tokens of a picture in one sequence. With a temporal channel it paints the frames of a clip.

    ``image(words (b, n), tokens (b, f, h, w), …) -> logits (b, f, h, w, codes)``, of each token given those before it.
    """

    def __init__(self, config: ChannelConfig = ChannelConfig()):
        super().__init__()
        self.config, d = config, config.width
        self.tokens = nn.Embedding(config.codes + 1, d)  # the last one begins every frame
        self.words = nn.Embedding(config.words, d)
        self.rate = nn.Parameter(0.02 * torch.randn(1, d))  # that of a picture
        self.word_places = nn.Parameter(0.02 * torch.randn(config.length + 1, d))
        self.places = nn.Parameter(0.02 * torch.randn(config.places + 1, d))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(d), Linear(d, config.codes)
        for table in (self.tokens, self.words):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, words: Tensor, tokens: Tensor, channel: "TemporalChannel | None" = None, rate: int = 0,
                given: list[bool] | None = None) -> Tensor:  # fmt: skip
        """`channel` joins the frames, whose `rate` is a row of its table; frames that are `given` are not written."""
        b, f, h, w = tokens.shape
        at = places(words.shape[1] + 1, list(range(f)), h * w, given or [False] * f, tokens.device)
        begun = torch.cat([self.begin(b * f, tokens), rearrange(tokens, "b f h w -> (b f) (h w)")], dim=1)
        frames = rearrange(self.tokens(begun) + self.places[: h * w + 1], "(b f) n d -> b (f n) d", f=f)
        x = self.run(torch.cat([self.caption(words, channel, rate), frames], dim=1), at, at, channel)
        x = x[:, words.shape[1] + 1 :].unflatten(1, (f, -1))[:, :, :-1]  # the last of a frame says nothing of it
        return self.head(self.norm(x)).unflatten(2, (h, w))

    def begin(self, n: int, like: Tensor) -> Tensor:
        """The token that begins a frame, (n, 1)."""
        return like.new_full((n, 1), self.config.codes)

    def caption(self, words: Tensor, channel: "TemporalChannel | None", rate: int) -> Tensor:
        """The rate and the words (b, n) as vectors (b, 1 + n, d)."""
        first, text = self.rate, self.words(words)
        if channel is not None:
            first, text = first + channel.rates[rate], text + channel.words[words]  # eq (15.2) · CogVideo, section 3.1
        text = torch.cat([first.expand(len(words), 1, -1), text], dim=1)
        return text + self.word_places[: text.shape[1]]

    def run(self, x: Tensor, at: Places, others: Places, channel: "TemporalChannel | None",
            memory: list[tuple[Memory, Memory]] | None = None) -> Tensor:  # fmt: skip
        """All blocks, for vectors (b, m, d) that stand `at` their places and see `others`, themselves included. The memory
        of pictures holds only what one of them sees."""
        (own, along), (near, apart) = at.sees(others), at.apart(others, self.config.places)
        if memory:
            near, own = near[:, own.any(dim=0)], own[:, own.any(dim=0)]
        for i, block in enumerate(self.blocks):
            h, kept = block.norm1(x), memory[i] if memory else (None, None)
            out = block.attention(h, own, kept[0], block.bias[:, near])
            if channel is not None:
                out = channel.mixed(i, out, h, at.frame, along, apart, kept[1])
            x = x + out
            h = block.norm2(x)
            x = x + block.feed_forward(h)
            if channel is not None:
                x = x + channel.feed_forwards[i](h)
        return x


class TemporalChannel(nn.Module):
    """The second channel of attention, one for each block of a picture transformer, and what mixes both.

    Its small feed-forward layers stand beside the frozen ones, at first without effect.
    """

    def __init__(self, config: ChannelConfig = ChannelConfig()):
        super().__init__()
        self.attentions = nn.ModuleList(MaskedAttention(config.width, config.heads) for _ in range(config.layers))
        self.bias = nn.Parameter(torch.zeros(config.layers, config.heads, 1 + (2 * KEYS - 1) * (2 * config.places + 1)))
        self.mix = nn.Parameter(torch.zeros(config.layers, config.width))  # sigmoid: half of each channel
        self.frames = nn.Parameter(torch.zeros(KEYS, config.width))  # which frame a token is of
        self.rates = nn.Parameter(torch.zeros(len(SPACINGS), config.width))
        self.words = nn.Parameter(torch.zeros(config.words, config.width))  # pictures have taught no words of motion
        self.feed_forwards = nn.ModuleList(feed_forward(config.width, wider=2) for _ in range(config.layers))
        for layers in self.feed_forwards:
            zeroed(layers[-1])

    def temporal_layers(self) -> list[nn.Module]:
        """All of it: what the picture transformer does not have."""
        return [self]

    def mixed(self, i: int, out: Tensor, h: Tensor, frame: Tensor, seen: Tensor, apart: Tensor,
              memory: Memory | None) -> Tensor:  # fmt: skip
        """Block i: what the channel of pictures gives (b, m, d), mixed with what this one makes of its input h."""
        h = h + torch.where(frame[:, None] >= 0, self.frames[frame.clamp(min=0)], 0.0)
        share = self.mix[i].sigmoid()
        return share * out + (1 - share) * self.attentions[i](h, seen, memory, self.bias[i][:, apart])  # eq (15.1) · CogVideo, section 3.2

    @torch.no_grad()
    def copy(self, image: PictureTransformer) -> "TemporalChannel":
        """Begin as the channel of pictures; returns itself."""
        for attention, bias, block in zip(self.attentions, self.bias, image.blocks):
            attention.load_state_dict(block.attention.state_dict())
            begin, many = 1 + (KEYS - 1) * (2 * image.config.places + 1), 2 * image.config.places + 1
            bias[:, 0], bias[:, begin : begin + many] = block.bias[:, 0], block.bias[:, 1:]
        return self


class CogVideo(TokensToVideo):
    """`image`, `keyframes`, `between` and `autoencoder`; see `TextToVideo`. Raises UserError for channels of other sizes
    than the picture transformer."""

    def __init__(self, preset: CogVideoPreset, **networks):
        for name in ("keyframes", "between"):
            if (found := getattr(preset, name)) != preset.image:
                raise UserError(f"{name}: expected the sizes of image, {preset.image}, found {found}")
        super().__init__(preset, **networks)
        self.text = Words(preset.text)

    def checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], SamplingSettings]:
        """See `TextToVideo.checked`; the size is that which the tables of places are for."""
        prompts, found = super().checked(prompt, settings)
        if found.frames > LENGTH:
            raise UserError(f"frames: expected at most {LENGTH} with {self.preset.name}, found {found.frames}")
        if (size := (found.height, found.width)) != (self.preset.height, self.preset.width):
            raise UserError(f"height and width: expected {self.preset.height} and {self.preset.width}, found {size}")
        return prompts, replace(found, steps=LENGTH)

    def encode_text(self, prompts: list[str], settings: SamplingSettings) -> tuple[Tensor, Tensor | None]:
        words = self.text.encode(prompts).to(self.device)
        return words, None if settings.guidance == 1 else self.text.encode([settings.negative]).to(words).expand_as(words)

    @torch.inference_mode()
    def steps(self, context: Tensor, unconditional: Tensor | None, settings: SamplingSettings) -> Iterator[Step]:
        b, grid = len(context), (settings.height // self.preset.factor, settings.width // self.preset.factor)
        tokens = torch.zeros(b, LENGTH, *grid, dtype=torch.long, device=self.device)
        done, generators = [], [torch.Generator("cpu").manual_seed(settings.seed + i) for i in range(b)]
        for frames in self.written(context, unconditional, tokens, generators, settings.guidance):
            done += frames
            x = torch.zeros_like(latents := self.to_latents(tokens))
            x[:, :, done] = latents[:, :, done]
            for frame in frames:
                index = done.index(frame)
                yield Step(index, LENGTH - 1 - index, x[:, :, : settings.frames])

    def written(self, context: Tensor, unconditional: Tensor | None, tokens: Tensor, generators: list,
                guidance: float) -> Iterator[list[int]]:  # fmt: skip
        """Write the tokens (b, 17, h, w) of clips; yields the numbers of the frames that are new."""
        keys = list(range(0, LENGTH, SPACINGS[0]))
        part, given = tokens[:, keys], [False] * KEYS
        with self.working(self.image), self.working(self.keyframes):
            for i in self.fill(context, unconditional, part, given, self.keyframes, 0, generators, guidance):
                tokens[:, keys[i]] = part[:, i]
                yield [keys[i]]
        with self.working(self.image), self.working(self.between):
            for rate, spacing in enumerate(SPACINGS[1:], start=1):
                yield from self.halve(context, unconditional, tokens, spacing, rate, generators, guidance)

    def halve(self, context: Tensor, unconditional: Tensor | None, tokens: Tensor, spacing: int, rate: int,
              generators: list, guidance: float) -> Iterator[list[int]]:  # fmt: skip
        """Write the frame between each two that stand 2 `spacing` apart, in runs of five frames that share their ends."""
        span = spacing * (KEYS - 1)  # eq (15.5) · CogVideo, section 3.1
        starts = torch.arange(0, LENGTH - 1, span, device="cpu")
        runs = starts[:, None] + torch.arange(0, span + 1, spacing, device="cpu")
        part = rearrange(tokens[:, runs], "b r f h w -> (b r) f h w")
        alike = lambda values: None if values is None else values.repeat_interleave(len(runs), dim=0)
        many = [one for one in generators for _ in runs]
        given = [i % 2 == 0 for i in range(KEYS)]
        for i in self.fill(alike(context), alike(unconditional), part, given, self.between, rate, many, guidance):
            tokens[:, runs[:, i]] = rearrange(part[:, i], "(b r) h w -> b r h w", r=len(runs))
            yield runs[:, i].tolist()

    def fill(self, context: Tensor, unconditional: Tensor | None, tokens: Tensor, given: list[bool],
             channel: TemporalChannel, rate: int, generators: list, guidance: float) -> Iterator[int]:  # fmt: skip
        """Write the frames of tokens (b, f, h, w) that are not given, in place; yields the number of each."""
        model, (b, f, h, w) = self.image, tokens.shape
        words = context if unconditional is None else torch.cat([unconditional, context])
        copies, flat = len(words) // b, tokens.flatten(2).clone()
        todo = [i for i in range(f) if not given[i]]
        order = [i for i in range(f) if given[i]] + todo
        at = places(words.shape[1] + 1, order, h * w, [given[i] for i in order], tokens.device)
        memory = [(Memory(), Memory()) for _ in model.blocks]
        stands = torch.cat([model.begin(b * (f - len(todo)), flat).view(b, -1, 1), flat[:, order[: f - len(todo)]]], dim=2)
        known = (model.tokens(stands) + model.places[: h * w + 1]).flatten(1, 2)
        x = torch.cat([model.caption(words, channel, rate), known.repeat(copies, 1, 1)], dim=1)
        model.run(x, at.part(slice(x.shape[1])), at.part(slice(x.shape[1])), channel, memory)
        end = x.shape[1]
        for frame in todo:
            for pictures, _ in memory:
                pictures.cut(words.shape[1] + 1)  # a frame sees no other one there
            token = model.begin(b, flat)
            for place in range(h * w + 1):
                x = (model.tokens(token) + model.places[place]).repeat(copies, 1, 1)
                x = model.run(x, at.part(slice(end, end + 1)), at.part(slice(end + 1)), channel, memory)
                end += 1
                if place == h * w:  # the frame is whole; later ones have to see its last token
                    break
                logits = model.head(model.norm(x[:, 0])).float()
                u, c = (None, logits) if unconditional is None else logits.chunk(2)
                token = self.drawn(c, u, guidance, generators)[:, None]
                flat[:, frame, place] = token[:, 0]
            tokens[:, frame] = flat[:, frame].view(b, h, w)
            yield frame
