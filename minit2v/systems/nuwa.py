"""NÜWA: a text is a grid of one dimension, a picture one of two, a video one of three; one transformer writes all.

    text ──► encoder ──────────────┐ cross-attention
    tokens, shifted by one ──► decoder blocks with 3D nearby attention ──► logits of each token

*3D nearby attention* looks only at a window around a place: of a window of 3 x 3 x 3, the 13 places that come before it
in raster order (frame, row, column), and itself. So the cost grows with the number of frames, not with its square; what is
farther away arrives through several blocks.

Departures from the paper: the text comes from the small CLIP of `mini`; guidance (the paper has none and
keeps the best of many by CLIP); a thrifty codebook; one task a batch; a learnt bias for each place of the window (T5, arXiv
1910.10683, section 2.1).

Reference: NÜWA, arXiv 2111.12417, section 3 (3D nearby attention: equations 3 to 6; three tasks: section 3.4).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minit2v import presets
from minit2v.diffusion.samplers import Step
from minit2v.errors import UserError
from minit2v.networks.autoregressive import feed_forward, masked_attention
from minit2v.networks.blocks import Attention
from minit2v.networks.layers import Linear
from minit2v.pixels import Frames
from minit2v.presets import TextConfig
from minit2v.ranges import Checked, Depth, Length, Range, Seed, Size, Width, public
from minit2v.systems.settings import New, SamplingSettings
from minit2v.systems.tokens import TokenPreset, TokensToVideo

Extent = Annotated[tuple[Annotated[int, Range(1, 31)], ...], Length(3, 3)]


@dataclass(frozen=True)
class NuwaConfig(Checked):
    """The encoder-decoder; figures of the paper in the comments."""

    codes: Size = 12_288  # kinds of tokens; the codebook's; paper 12,288
    frames: Size = 10  # most frames of a clip; paper 10
    rows: Size = 21  # most rows of tokens; paper 21
    columns: Size = 21  # most columns of tokens; paper 21
    width: Width = 1280  # of a token's vector; paper 1,280
    heads: Width = 20  # paper 20
    encoder_layers: Depth = 12  # paper 12
    layers: Depth = 24  # of the decoder; paper 24
    extent: Extent = (3, 3, 3)  # of the window: frames, rows, columns, odd numbers; paper 3, 3, 3
    context_dim: Width = 1280  # width of a text token


@dataclass(frozen=True)
class NuwaPreset(TokenPreset):
    """NÜWA: an autoencoder with a codebook, a text tower and a transformer."""

    system: str = "nuwa"
    text: TextConfig = TextConfig()
    transformer: NuwaConfig = NuwaConfig()


def _nuwa() -> NuwaPreset:
    mini, codes = presets.get("mini"), 1024
    return NuwaPreset(
        name="nuwa",
        height=64,
        width=64,
        steps=16,
        guidance=2.0,
        temperature=0.5,
        autoencoder=replace(mini.autoencoder, bottleneck="codebook", codes=codes, latent_channels=8, thrift=1.0),
        text=mini.text,
        transformer=NuwaConfig(codes, frames=16, rows=8, columns=8, width=128, heads=4, encoder_layers=2, layers=6,
                               context_dim=mini.text.width),
    )  # fmt: skip


NUWA_PRESETS = {"nuwa": _nuwa}


class NearbyAttention(nn.Module):
    """3D nearby attention: each place attends to the window around it, as far as that does not come later.

    Each head has a `bias` for each place of the window, added to the logits; at first 0. The layer costs as much as attention to
    all places of the frames that the window reaches.

    ``x (b, f, h, w, d) -> same``. Raises UserError for an extent that is even.
    """

    def __init__(self, d: int, heads: int, extent: tuple[int, int, int]):
        super().__init__()
        if not all(side % 2 for side in extent):
            raise UserError(f"extent: expected three odd numbers, found {extent}")
        self.heads, self.reach = heads, tuple(side // 2 for side in extent)
        frames, rows, columns = self.reach
        self.window = list(product(range(-frames, 1), range(-rows, rows + 1), range(-columns, columns + 1)))
        self.to_q, self.to_k, self.to_v = (Linear(d, d, bias=False) for _ in range(3))
        self.to_out = Linear(d, d)
        self.bias = nn.Parameter(torch.zeros(heads, len(self.window)))

    def forward(self, x: Tensor) -> Tensor:
        b, f, h, w, _ = x.shape
        q, k, v = (rearrange(y, "b f h w (n c) -> b n f (h w) c", n=self.heads)
                   for y in (self.to_q(x), self.to_k(x), self.to_v(x)))  # fmt: skip
        # a frame beside those that its window reaches, as one row of places: faster than a window for each place
        k, v = (torch.cat([F.pad(y, (0, 0, 0, 0, back, 0))[:, :, :f] for back in range(self.reach[0], -1, -1)], dim=3)
                for y in (k, v))  # fmt: skip
        bias = self.bias[:, self.offsets((h, w), x.device)][:, None]
        out = masked_attention(q, k, v, self.seen((f, h, w), x.device), bias)  # eq (14.3) · NÜWA, section 3.2
        return self.to_out(rearrange(out, "b n f (h w) c -> b f h w (n c)", h=h))

    def seen(self, shape: tuple[int, int, int], device: torch.device) -> Tensor:
        """Of each place of each frame, which places it sees of the r frames that its window reaches (f, h w, r h w)."""
        number, row, column = (torch.arange(size, device=device) for size in shape)
        t = torch.arange(-self.reach[0], 1, device=device)[:, None, None]  # offsets, over (h w t y x)
        y, x = (row - row[:, None])[:, None, None, :, None], (column - column[:, None])[:, None, None]
        earlier = (t < 0) | (y < 0) | (y == 0) & (x <= 0)  # eq (14.2) · NÜWA, section 3.2
        near = (y.abs() <= self.reach[1]) & (x.abs() <= self.reach[2]) & (number.view(-1, 1, 1, 1, 1, 1) + t >= 0)
        return rearrange(earlier & near, "f h w t y x -> f (h w) (t y x)")

    def offsets(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        """Which row of `window` leads from each place of a frame to each place of the frames that it reaches (h w, r h w)."""
        sides = [2 * reach + 1 for reach in self.reach[1:]]
        rows, columns = (torch.arange(size, device=device) for size in shape)
        y, x = ((at - at[:, None] + reach).clamp(0, 2 * reach) for at, reach in zip((rows, columns), self.reach[1:]))
        t = torch.arange(self.reach[0] + 1, device=device)
        index = (t[:, None, None] * sides[0] + y[:, None, None, :, None]) * sides[1] + x[:, None, None]
        return rearrange(index, "h w t y x -> (h w) (t y x)")

    def padded(self, y: Tensor) -> Tensor:
        """(b, f, h, w, n, c) with room around it for every window."""
        frames, rows, columns = self.reach
        return F.pad(y, (0, 0, 0, 0, columns, columns, rows, rows, frames, 0))

    def inside(self, offset: tuple[int, int, int], shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Whether the place at an offset from each is one of the clip, (f, h, w)."""
        axes = [(torch.arange(size, device=device) + step) for size, step in zip(shape, offset)]
        f, h, w = ((axis >= 0) & (axis < size) for axis, size in zip(axes, shape))
        return f[:, None, None] & h[:, None] & w

    def memory(self, b: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Room for keys and values of all places, and which places of its window each may see (f, h, w, o)."""
        like = self.to_q.weight
        empty = like.new_zeros(b, *shape, self.heads, like.shape[0] // self.heads)
        none = torch.zeros(shape, dtype=torch.bool, device=like.device)
        seen = [self.inside(offset, shape, like.device) if offset <= (0, 0, 0) else none for offset in self.window]
        return self.padded(empty), self.padded(empty), torch.stack(seen, dim=-1)

    def step(self, x: Tensor, place: tuple[int, int, int], memory: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The output (b, d) of one place from its input x (b, d), after all places before it."""
        keys, values, seen = memory
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.to_q(x), self.to_k(x), self.to_v(x)))
        room = (slice(None), *(at + reach for at, reach in zip(place, self.reach)))
        keys[room], values[room] = k, v
        sides = self.reach[0] + 1, 2 * self.reach[1] + 1, 2 * self.reach[2] + 1
        window = (slice(None), *(slice(at, at + side) for at, side in zip(place, sides)))
        near, held = (rearrange(part[window], "b f h w n c -> b n (f h w) c") for part in (keys, values))
        out = masked_attention(q[:, :, None], near, held, seen[place], self.bias[:, None])
        return self.to_out(out.flatten(1))


class Block(nn.Module):
    """Nearby attention, attention to the text, feed-forward: each after a LayerNorm, each added."""

    def __init__(self, config: NuwaConfig):
        super().__init__()
        d = config.width
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.nearby = NearbyAttention(d, config.heads, config.extent)
        self.cross = Attention(d, d // config.heads, d)
        self.feed_forward = feed_forward(d)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """x (b, f, h, w, d), text (b, n, d) -> as x."""
        return self.rest(x + self.nearby(self.norm1(x)), text)

    def step(self, x: Tensor, text: Tensor, place: tuple[int, int, int], memory) -> Tensor:
        """The same for one place, x (b, d)."""
        return self.rest(x + self.nearby.step(self.norm1(x), place, memory), text)

    def rest(self, x: Tensor, text: Tensor) -> Tensor:
        flat = x.reshape(len(x), -1, x.shape[-1])
        flat = flat + self.cross(self.norm2(flat), text)
        return (flat + self.feed_forward(self.norm3(flat))).view(x.shape)


class Nuwa(nn.Module):
    """``transformer(tokens (b, f, h, w), context (b, n, e)) -> logits (b, f, h, w, codes)``, of each token given those
    before it in raster order, and the text. A picture has f = 1."""

    def __init__(self, config: NuwaConfig = NuwaConfig()):
        super().__init__()
        self.config, d = config, config.width
        self.tokens = nn.Embedding(config.codes + 1, d)  # the last one begins every clip
        sizes = config.frames, config.rows, config.columns
        self.places = nn.ParameterList(nn.Parameter(0.02 * torch.randn(size, d)) for size in sizes)
        self.text = nn.Linear(config.context_dim, d)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(d, config.heads, 4 * d, 0.0, F.gelu, batch_first=True, norm_first=True),
            config.encoder_layers, nn.LayerNorm(d), enable_nested_tensor=False)  # fmt: skip
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(d), Linear(d, config.codes)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        before = F.pad(tokens.flatten(1)[:, :-1], (1, 0), value=self.config.codes).view(tokens.shape)
        frames, rows, columns = (table[:size] for table, size in zip(self.places, tokens.shape[1:]))
        x, text = self.tokens(before) + (frames[:, None, None] + rows[:, None] + columns), self.encode(context)
        for block in self.blocks:
            x = block(x, text)
        return self.head(self.norm(x))

    def encode(self, context: Tensor) -> Tensor:
        """The text as the decoder attends to it: (b, n, e) -> (b, n, d)."""
        return self.encoder(self.text(context))

    def memory(self, b: int, shape: tuple[int, int, int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each block, for `step` on clips of a shape (f, h, w)."""
        return [block.nearby.memory(b, shape) for block in self.blocks]

    def step(self, before: Tensor, text: Tensor, place: tuple[int, int, int], memory: list) -> Tensor:
        """Logits (b, codes) of the token at a place, from the token `before` it (b,)."""
        x = self.tokens(before) + sum(table[at] for table, at in zip(self.places, place))
        for block, kept in zip(self.blocks, memory):
            x = block.step(x, text, place, kept)
        return self.head(self.norm(x))


class NuwaT2V(TokensToVideo):
    """`text`, `transformer` and `autoencoder`; see `TextToVideo`."""

    def checked(self, prompt: str | list[str], settings: dict) -> tuple[list[str], SamplingSettings]:
        """See `TextToVideo.checked`; no clip is larger than the tables of places."""
        prompts, found = super().checked(prompt, settings)
        config, factor = self.preset.transformer, self.preset.factor
        for name, most in {"frames": config.frames, "height": config.rows * factor, "width": config.columns * factor}.items():
            if getattr(found, name) > most:
                raise UserError(f"{name}: expected at most {most} with {self.preset.name}, found {getattr(found, name)}")
        return prompts, found

    @torch.inference_mode()
    def steps(self, context: Tensor, unconditional: Tensor | None, settings: SamplingSettings) -> Iterator[Step]:
        shape = settings.frames, settings.height // self.preset.factor, settings.width // self.preset.factor
        yield from self.written(context, unconditional, settings, shape, given=None)

    @torch.inference_mode()
    @public
    def continued(self, pixels: Frames, n: New, seed: Seed = 0) -> np.ndarray:
        """A clip uint8 (f, H, W, 3) and n frames that may come after it, (f + n, H, W, 3): NÜWA's video prediction.

        It is seen from its last frames, half as many as a clip has. Raises UserError for another size than training's.
        """
        self.check_continued(self.preset, pixels, n)
        most = self.preset.transformer.frames
        nothing, made = self.text.encode([""]).to(self.device, self.dtype), pixels
        while (missing := len(pixels) + n - len(made)) > 0:
            given = self.to_tokens(self.encode(made[None, -(most // 2) :]))
            shape = min(most, given.shape[1] + missing), *given.shape[2:]
            settings = SamplingSettings(frames=shape[0], guidance=1.0, seed=seed + len(made))
            *_, last = self.written(nothing, None, settings, shape, given)
            made = np.concatenate([made, self.decode(last.x)[0, given.shape[1] :]])
        return made

    @staticmethod
    def check_continued(preset: NuwaPreset, pixels: np.ndarray, n: int) -> None:
        """Raises UserError for what `continued` refuses; needs no networks."""
        if preset.transformer.frames < 2:
            raise UserError(f"after: expected a model of clips, found {preset.name}, which writes one frame")
        (height, width), size = pixels.shape[1:3], (preset.height, preset.width)
        if (height, width) != size:
            raise UserError(f"after: expected a clip of {size[1]}x{size[0]} pixels, found {width}x{height}")

    def written(self, context: Tensor, unconditional: Tensor | None, settings: SamplingSettings,
                shape: tuple[int, int, int], given: Tensor | None) -> Iterator[Step]:  # fmt: skip
        """A step for each frame of clips (f, h, w); the first frames may be `given`, tokens (b, g, h, w): then the clip
        goes on from them, NÜWA's task of video prediction."""
        b, model = len(context), self.transformer
        tokens = torch.zeros(b, *shape, dtype=torch.long, device=self.device)
        generators = [torch.Generator("cpu").manual_seed(settings.seed + i) for i in range(b)]
        both = context if unconditional is None else torch.cat([unconditional, context])
        with self.working(model):
            text, memory = model.encode(both), model.memory(len(both), shape)
            before = torch.full((b,), model.config.codes, device=self.device)
            for frame in range(shape[0]):
                for place in product((frame,), range(shape[1]), range(shape[2])):
                    of_all = (slice(None), *place)
                    logits = model.step(before.repeat(len(both) // b), text, place, memory).float()
                    if given is not None and frame < given.shape[1]:
                        before = given[of_all]
                    else:
                        u, c = (None, logits) if unconditional is None else logits.chunk(2)
                        before = self.drawn(c, u, settings.guidance, generators)
                    tokens[of_all] = before
                x = self.to_latents(tokens)
                x[:, :, frame + 1 :] = 0
                yield Step(frame, shape[0] - 1 - frame, x)
