"""LatentPeek: change one number of a latent and see which pixels answer.

    frame -> encode -> latents (4 h w), four tiles
                         │ one number changed            in the browser: an entry of `edits`
                         v
                       decode -> frame, and how it differs from the frame decoded without the change

Decoding needs the network, hence the kernel: the browser writes `edits`, the kernel answers with two pictures. A few
edits of one cell are decoded beforehand, so that this cell answers even where no kernel runs.

References: latent diffusion, Rombach et al. 2022 (arXiv:2112.10752), section 3.1.
"""

from contextlib import nullcontext

import numpy as np
import torch
import traitlets

from minit2v.errors import UserError
from minit2v.lab.packages import needed
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files
from minit2v.networks.autoencoder import VQGAN
from minit2v.pixels import evenly, to_pixels, to_signed
from minit2v.recording.sheets import atlas

STOPS = 81  # of the slider; odd, so that 0 is one
SMALL = 64 * 64  # pixels of a frame that has many recorded edits


def key(channel: int, row: int, column: int) -> str:
    """How an edited number is named in `edits`."""
    return f"{channel},{row},{column}"


def heat(difference: np.ndarray) -> np.ndarray:
    """Differences of pixels, uint8 (H W 3), as a picture: black none, pale yellow 128 or more in some channel."""
    amount = np.minimum(difference.max(axis=-1) / 128, 1)
    return (needed("matplotlib").colormaps["inferno"](amount)[..., :3] * 255).astype(np.uint8)


class Peek:
    """The latents of a frame, and its decoded frames after some of their numbers were changed.

    Args:
        autoencoder: a `minit2v.networks.autoencoder.VQGAN`.
        pixels: uint8 (H, W, 3).
        scale: latents are shown and edited times this number; by default the model's own scale factor.
    """

    @torch.no_grad()
    def __init__(self, autoencoder: VQGAN, pixels: np.ndarray, scale: float | None = None):
        if getattr(pixels, "ndim", 0) != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {getattr(pixels, 'shape', '')}"
            raise UserError(f"pixels: expected one frame, uint8 (H, W, 3), found {found}; try clip.pixels[0]")
        self.autoencoder, self.pixels = autoencoder, pixels
        self.scale = autoencoder.config.scale_factor if scale is None else scale
        self.weight = next(autoencoder.parameters())
        frame = to_signed(np.array(pixels))[None]  # (H W 3) -> (1 3 H W)
        self.latents = autoencoder.encode(frame.to(self.weight))[0]  # unscaled, (c h w)
        self.plain = self.decode([{}])[0]

    @torch.no_grad()
    def decode(self, many: list[dict[str, float]]) -> np.ndarray:
        """Frames uint8 (n, H, W, 3) of n sets of edits {"channel,row,column": number}."""
        latents = self.latents.repeat(len(many), 1, 1, 1)
        for one, edits in zip(latents, many):
            for place, value in edits.items():
                one[self.place(place)] = value / self.scale
        one_by_one = latents.split(1)  # a batch may round otherwise, and no change must be no difference
        frames = torch.cat([self.autoencoder.decode(part).float().cpu() for part in one_by_one])
        return to_pixels(frames).numpy()

    def place(self, name: str) -> tuple[int, ...]:
        """(channel, row, column) of its name. UserError for a place that the latents do not have."""
        try:
            place = tuple(int(part) for part in name.split(","))
        except ValueError:
            place = ()
        shape = tuple(self.latents.shape)
        if len(place) != 3 or not all(0 <= i < n for i, n in zip(place, shape)):
            raise UserError(f'edits: expected "channel,row,column" within {shape}, found {name!r}')
        return place

    def pictures(self, many: list[dict[str, float]]) -> np.ndarray:
        """For each set of edits two tiles, the decoded frame and its difference: uint8 (2 n, H, W, 3)."""
        tiles = []
        for frame in self.decode(many):
            tiles += [frame, heat(np.abs(frame.astype(int) - self.plain))]
        return np.stack(tiles)


class LatentPeek(LabWidget):
    """Change a number of a frame's latent, and see the decoded frame and its difference.

    Args:
        autoencoder, pixels, scale: see `Peek`; pixels may be a clip (f, H, W, 3); its first frame is taken.
        recorded: values that are decoded beforehand for each channel of one cell; by default 9 for small frames, 3
            for others; 0 for none.

    Synced: `edits`, {"channel,row,column": number}; `channel`, `row`, `column`, the selected number. Needs the kernel
    for all but the recorded edits. UserError for other pixels and for a place outside the latents.
    """

    _esm = files("lab.js", "picking.js", "peek.js")
    _css = files("lab.css")
    edits = traitlets.Dict().tag(sync=True)
    channel = traitlets.Int(0).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    column = traitlets.Int(0).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)
    recordings = traitlets.Bytes().tag(sync=True)
    answer = traitlets.Bytes().tag(sync=True)
    answered = traitlets.Dict().tag(sync=True)  # tiles: the layout of `answer`; edits: what it answers

    def __init__(self, autoencoder: VQGAN, pixels: np.ndarray, scale: float | None = None,
                 recorded: int | None = None, name: str | None = None):  # fmt: skip
        self.peek = peek = Peek(autoencoder, pixels[0] if getattr(pixels, "ndim", 0) == 4 else pixels, scale)
        numbers = (peek.latents.float().cpu() * peek.scale).numpy()
        c, h, w = numbers.shape
        strange = np.abs(numbers - np.median(numbers, axis=(1, 2), keepdims=True)).sum(axis=0)
        row, column = divmod(int(strange.argmax()), w)  # what is least like the background
        limit = float(np.ceil(1.5 * np.abs(numbers).max()))
        values = np.linspace(-limit, limit, STOPS)
        if recorded is None:
            recorded = 9 if pixels.shape[-3] * pixels.shape[-2] <= SMALL else 3
        chosen = evenly(STOPS, recorded)
        self.recorded = [{}] + [{key(i, row, column): float(values[stop])} for i in range(c) for stop in chosen]
        self.tiles = peek.pictures(self.recorded)
        recordings, tiles = atlas(np.concatenate([peek.pixels[None], self.tiles]))
        facts = {
            "shape": [c, h, w], "latents": [round(float(x), 4) for x in numbers.ravel()], "scale": peek.scale,
            "values": [round(float(x), 4) for x in values], "limit": limit, "tiles": tiles,
            "recorded": [[place, value] for edits in self.recorded for place, value in edits.items()],
        }  # fmt: skip
        super().__init__(name, facts=facts, recordings=recordings, row=row, column=column)
        self.numbers, self.cell = numbers, (row, column)

    @traitlets.validate("edits")
    def _possible(self, proposal):
        for place, value in proposal.value.items():
            self.peek.place(place)
            if not isinstance(value, (int, float)):
                raise UserError(f"edits: expected a number for {place}, found {value!r}")
        return proposal.value

    @traitlets.observe("edits")
    def _decode(self, change):
        data, tiles = atlas(self.peek.pictures([change.new]))
        with getattr(self, "hold_sync", nullcontext)():  # both in one message
            self.answer = data
            self.answered = {"tiles": tiles, "edits": change.new}

    def describe(self):
        c, h, w = self.numbers.shape
        return f"{self.peek.pixels.shape[1]}x{self.peek.pixels.shape[0]} pixels, latents {c}x{h}x{w}"

    def alt(self):
        return ("the four channels of a frame's latent; the frame decoded as it is, and after one number was changed; "
                "the difference, bright where pixels changed")  # fmt: skip

    def picture(self):
        c, h, w = self.numbers.shape
        H, W = self.peek.pixels.shape[:2]
        side, x, tile = 170, 12, 82
        self.picture_width, limit = 4 * (side + 16) + 8, np.abs(self.numbers).max()
        figure, axes = figures.diagram(self.picture_width, 222)
        figures.text(axes, x, 14, f"latent, {c} channels", weight="bold")
        for i, number in enumerate(self.numbers[:4]):
            left, top, colours = x + 88 * (i % 2), 28 + 88 * (i // 2), figures.diverging()
            figures.image(axes, number, left, top, tile, tile * h / w, cmap=colours, vmin=-limit, vmax=limit)
        changed = int(np.argmax([self.tiles[i].sum() for i in range(1, len(self.tiles), 2)]))  # changes the most
        pictures = self.tiles[0], self.tiles[2 * changed], self.tiles[2 * changed + 1]
        place, value = next(iter(self.recorded[changed].items()), ("0,0,0", 0.0))
        figures.text(axes, x, 208, f"channel,row,column {place}: {self.numbers[self.peek.place(place)]:+.2f} before, "
                     f"{value:+.2f} after", 11, figures.FAINT)  # fmt: skip
        for title, picture in zip(("decoded", "one number changed", "difference"), pictures):
            x += side + 16
            figures.text(axes, x, 14, title, weight="bold")
            figures.image(axes, picture, x, 28, side, side * H / W)
            row, column, height, width = self.cell[0] / h * H, self.cell[1] / w, side / h * H / W, side / w
            figures.box(axes, x + side * column, 28 + side / W * row, width, height, edge="white", thickness=1.2)
        return figures.pixels(figure)
