"""FrameAttention: which frames a cell of a clip looks at, in every temporal attention of a UNet.

    ┌────────┐  layer ( first ) ( down 1 · block 0 ) …        ┌──────────┐  row: the frame that looks
    │   ▣    │  pick a cell here, a frame below                │ ▒█▒░     │  column: the frame that it looks at
    └────────┘                                                 └──────────┘
    frame ──●──   this frame looks at   ▁▂▇█▃▁▁▁

A map is softmax(q kᵀ / √d) of one attention, the mean over its heads: each of its rows adds up to 1. A temporal
transformer has two of them, MagicVideo's directed attention has one.

References: ModelScopeT2V, arXiv 2308.06571, section 3.3; MagicVideo, arXiv 2211.11018, section 3.2.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from einops import rearrange
from torch import Tensor

from minit2v.errors import UserError
from minit2v.lab.packages import needed
from minit2v.lab.pictures import row, stack, titled
from minit2v.lab.widgets.base import LabWidget, files, pack
from minit2v.lab.widgets.pictures import enlarge
from minit2v.networks.blocks import TemporalTransformer
from minit2v.networks.unet import UNet
from minit2v.recording.sheets import atlas
from minit2v.systems.video_decoder import DirectedAttention
from minit2v.video import Clip

MOST_NUMBERS = 2**22  # of all maps together, a byte each


@torch.inference_mode()
def frame_maps(unet: UNet, x: Tensor, t: int, context: Tensor) -> dict[str, np.ndarray]:
    """The maps of every attention along time in one call of a UNet: {layer: float32 (n, h, w, f, f)}, n of 1 or 2.

    Args:
        unet: a UNet whose temporal layers are the library's, transformers (n = 2) or directed attention (n = 1).
        x: latents of one clip (1, c, f, h, w); t: a timestep; context: (1, n, d) of its text.
    """
    of_kind = lambda kind: {name: module for name, module in unet.named_modules() if isinstance(module, kind)}
    transformers, directed = of_kind(TemporalTransformer), of_kind(DirectedAttention)
    sizes, normed = {}, {}  # directed attention is not called as a module, but its norm is, with ((b f), c, h, w)
    hooks = [layer.register_forward_pre_hook(lambda _, inputs, name=name: sizes.update({name: inputs[0].shape[2:]}))
             for name, layer in transformers.items()]
    hooks += [layer.norm.register_forward_hook(lambda _, inputs, out, name=name: normed.update({name: out}))
              for name, layer in directed.items()]  # fmt: skip
    attentions = {name: (layer.block.attn1, layer.block.attn2) for name, layer in transformers.items()}
    kept = [(one, one.keep) for pair in attentions.values() for one in pair]
    try:
        for one, _ in kept:
            one.keep = x.shape[-2] * x.shape[-1]  # of a coarser level there are fewer: all of them
        unet(x, torch.full((1,), t, device=x.device), context)
        maps = {name: [_of_cells(one.map, sizes[name]) for one in pair] for name, pair in attentions.items()}
        for name, frames in normed.items():
            own = directed[name].weights(rearrange(frames, "f c h w -> (h w) f c")).mean(dim=1)
            maps[name] = [_of_cells(own, frames.shape[2:])]
        return {title(name): np.stack(own) for name, own in maps.items()}
    finally:
        for hook in hooks:
            hook.remove()
        for one, keep in kept:
            one.keep, one.map = keep, None


def _of_cells(maps: Tensor, size: Sequence[int]) -> np.ndarray:
    """Maps ((h w), f, f) as float32 (h, w, f, f)."""
    return maps.float().cpu().numpy().reshape(*size, *maps.shape[-2:])


def title(name: str) -> str:
    """How a reader calls a layer.

    >>> title("up.0.blocks.1.temporal"), title("first_temporal"), title("middle.first.directed")
    ('up 0 · block 1', 'first temporal', 'middle · first')
    """
    name = name.removesuffix(".temporal").removesuffix(".directed").replace(".blocks.", " · block ")
    return name.replace("middle.", "middle · ").replace(".", " ").replace("_", " ")


class FrameAttention(LabWidget):
    """Which frames a cell looks at: choose a layer, a cell of the picture and a frame.

    Args:
        maps: {layer: float (n, h, w, f, f)} as of `frame_maps`; layers may differ in n (1 or 2), h and w, not in f.
        clip: a `Clip` or uint8 (f, H, W, 3), the same clip for the eye.
        name: see `LabWidget`.
        traits: where it begins: layer, second, frame, row, column (in cells of the finest layer).

    Synced: `layer` a name, `second` whether the block's second attention is shown (where it has one), `frame` 0..f-1,
    `row`, `column`.
    Raises UserError for other maps or another clip, and for a value outside of these.
    """

    _esm = files("lab.js", "drawing.js", "picking.js", "latents.js", "frame_attention.js")
    _css = files("lab.css", "panels.css")
    layer = traitlets.Unicode().tag(sync=True)
    second = traitlets.Bool(False).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    column = traitlets.Int(0).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    tiles = traitlets.Bytes().tag(sync=True)
    tiles_layout = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    numbers_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, maps: Mapping[str, np.ndarray], clip: Clip | np.ndarray, name: str | None = None, **traits):
        self.maps = {str(key): np.asarray(values, np.float32) for key, values in dict(maps).items()}
        self.pixels = np.asarray(clip.pixels if isinstance(clip, Clip) else clip)
        _check(self.maps, self.pixels)
        self.rows = max(values.shape[1] for values in self.maps.values())
        self.columns = max(values.shape[2] for values in self.maps.values())
        self.place = _moving_cell(self.pixels, self.rows, self.columns)
        tiles, tiles_layout = atlas(self.pixels)
        whole = [(values * 255).round().clip(0, 255).astype(np.uint8) for values in self.maps.values()]
        numbers, numbers_layout = pack(**{str(i): values for i, values in enumerate(whole)})
        info = {"layers": list(self.maps), "frames": len(self.pixels), "rows": self.rows, "columns": self.columns}
        begin = {"layer": info["layers"][0], "frame": len(self.pixels) // 2, "row": self.place[0], "column": self.place[1]}
        super().__init__(name, info=info, tiles=tiles, tiles_layout=tiles_layout, numbers=numbers,
                         numbers_layout=numbers_layout, **(begin | traits))

    @traitlets.validate("layer")
    def _known(self, proposal):
        if proposal.value not in self.maps:
            raise UserError(f"layer: expected one of {', '.join(self.maps)}, found {proposal.value!r}")
        return proposal.value

    @traitlets.validate("frame", "row", "column")
    def _within(self, proposal):
        name = proposal.trait.name
        most = {"frame": len(self.pixels), "row": self.rows, "column": self.columns}[name] - 1
        if not 0 <= proposal.value <= most:
            raise UserError(f"{name}: expected 0 to {most}, found {proposal.value}")
        return proposal.value

    def map_of(self, layer: str, row: int, column: int, second: bool = False) -> np.ndarray:
        """The map (f, f) of a layer at the place that the widget's row and column (of the finest layer) fall on."""
        h, w = self.maps[layer].shape[1:3]
        return self.maps[layer][-1 if second else 0, row * h // self.rows, column * w // self.columns]

    def describe(self):
        return f"{len(self.maps)} layers, {len(self.pixels)} frames"

    def alt(self):
        return ("The middle frame of a clip with one cell framed; beside it a map for each layer: the row is the frame "
                "that looks, the column the frame that it looks at, and pale is much.")  # fmt: skip

    def picture(self):
        side = 128
        frame = enlarge(self.pixels[len(self.pixels) // 2], side).copy()
        H, W = frame.shape[:2]
        top, left = self.place[0] * H // self.rows, self.place[1] * W // self.columns
        bottom, right = top + H // self.rows - 1, left + W // self.columns - 1
        for y in (top, bottom - 1):
            frame[y : y + 2, left : right + 1] = 255
        for x in (left, right - 1):
            frame[top : bottom + 1, x : x + 2] = 255
        shown = [titled(_heat(self.map_of(key, *self.place), side), key) for key in self.maps]
        tiles = [titled(frame, "frame, cell"), *shown]
        return stack([row(tiles[i : i + 4]) for i in range(0, len(tiles), 4)])


def _heat(values: np.ndarray, side: int) -> np.ndarray:
    """A map (f, f) from 0 (black) to its largest number (pale), uint8 (H, W, 3), enlarged to about `side` pixels."""
    colours = needed("matplotlib").colormaps["inferno"](values / max(values.max(), 1e-12))[..., :3]
    return enlarge((colours * 255).round().astype(np.uint8), side)


def _moving_cell(pixels: np.ndarray, rows: int, columns: int) -> tuple[int, int]:
    """The cell whose pixels change most over the clip."""
    change = pixels.astype(np.float32).std(axis=0).mean(axis=-1)
    H, W = change.shape
    cells = [[change[i * H // rows : (i + 1) * H // rows, j * W // columns : (j + 1) * W // columns].mean()
              for j in range(columns)] for i in range(rows)]  # fmt: skip
    place = int(np.argmax(cells))
    return place // columns, place % columns


def _check(maps: dict[str, np.ndarray], pixels: np.ndarray) -> None:
    """Raises UserError for maps or a clip that do not fit together."""
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise UserError(f"clip: expected a Clip or uint8 (f, H, W, 3), found {pixels.dtype} {pixels.shape}")
    f = len(pixels)
    shapes = {key: values.shape for key, values in maps.items()}
    if not maps or any(len(s) != 5 or s[0] > 2 or s[3:] != (f, f) or 0 in s for s in shapes.values()):
        raise UserError(f"maps: expected one or two for each layer, (2, h, w, {f}, {f}) for a clip of {f} frames, found {shapes}")
    if sum(values.size for values in maps.values()) > MOST_NUMBERS:
        raise UserError(f"maps: expected at most {MOST_NUMBERS:,} numbers, found more; show fewer layers")
