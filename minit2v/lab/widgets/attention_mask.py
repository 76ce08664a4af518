"""AttentionMask: which tokens of a clip a token sees through a mask, in one block of a transformer and through several.

    mask ( nearby ) ( axial ) ( all before )      one grid for each frame
    blocks ──●──     token ──●──  ▶               ░░░░  ░▒▒▒  ░░░░     framed: the token that looks
                                                  ░░░░  ░▒▣·  ····     the darker, the fewer blocks it takes
                                                  ░░░░  ····  ····     a dot: not written yet

A block adds what it finds to what a token has, so what one token has heard the next block can hand on.

References: 3D nearby attention: NÜWA, arXiv 2111.12417, section 3.2; axial attention: GODIVA, arXiv 2104.14806.
"""

from collections.abc import Mapping

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files, pack

MOST_NUMBERS = 2**22  # of all masks together, a byte each
WIDTH, GAP, SMALLEST = 740, 12, 6  # pixels of all frames beside one another, between two of them, and of a token
BLUE = np.array([0x00, 0x72, 0xB2])


def blocks_between(seen: np.ndarray, most: int) -> np.ndarray:
    """How many blocks it takes until output i can depend on input j: uint8 (n, n), 0 where `most` are not enough.

    >>> blocks_between(np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], bool), 2)
    array([[1, 0, 0],
           [1, 1, 0],
           [2, 1, 1]], dtype=uint8)
    """
    one = seen.astype(np.float32)
    taken, reached = seen.astype(np.uint8), one
    for count in range(2, most + 1):
        reached = np.minimum(one @ reached, 1)
        taken[(reached > 0) & (taken == 0)] = count
    return taken


class AttentionMask(LabWidget):
    """Which tokens of a clip a token sees: choose a mask, a token and the number of blocks.

    Args:
        masks: {name: bool (n, n)}: does token i see token j, in raster order (frame, row, column)?
        shape: (f, h, w) of the clip, n tokens together.
        blocks: the most that can be chosen.
        token: where it begins; by default in the middle of the last frame but one.
        name: see `LabWidget`.

    Synced: `mask` a name, `blocks` 1..most, `token` 0..n-1. Raises UserError for masks that are none of this clip.
    """

    _esm = files("lab.js", "drawing.js", "picking.js", "attention_mask.js")
    _css = files("lab.css", "panels.css")
    mask = traitlets.Unicode().tag(sync=True)
    blocks = traitlets.Int(1).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    numbers_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, masks: Mapping[str, np.ndarray], shape: tuple[int, int, int], blocks: int = 6,
                 token: int | None = None, name: str | None = None):  # fmt: skip
        self.shape, self.most, n = tuple(shape), blocks, int(np.prod(shape))
        seen = {str(key): np.asarray(mask) for key, mask in dict(masks).items()}
        _check(seen, self.shape, blocks)
        self.taken = {key: blocks_between(mask, blocks) for key, mask in seen.items()}
        f, h, w = self.shape
        self.begin = token if token is not None else (max(f - 2, 0) * h + h // 2) * w + w // 2
        rows = -(-f // max(1, WIDTH // (SMALLEST * w + GAP)))
        self.beside = -(-f // rows)  # frames in each row, as many in one as in another
        self.cell = max(SMALLEST, min(18, (WIDTH // self.beside - GAP) // w))
        numbers, layout = pack(**{str(i): taken for i, taken in enumerate(self.taken.values())})
        info = {"masks": list(seen), "shape": list(self.shape), "most": blocks, "cell": self.cell, "gap": GAP,
                "beside": self.beside}  # fmt: skip
        if not 0 <= self.begin < n:
            raise UserError(f"token: expected 0 to {n - 1}, found {self.begin}")
        super().__init__(name, info=info, numbers=numbers, numbers_layout=layout, mask=info["masks"][0], token=self.begin)

    @traitlets.validate("mask")
    def _known(self, proposal):
        if proposal.value not in self.taken:
            raise UserError(f"mask: expected one of {', '.join(self.taken)}, found {proposal.value!r}")
        return proposal.value

    @traitlets.validate("blocks", "token")
    def _within(self, proposal):
        low, high = (1, self.most) if proposal.trait.name == "blocks" else (0, int(np.prod(self.shape)) - 1)
        if not low <= proposal.value <= high:
            raise UserError(f"{proposal.trait.name}: expected {low} to {high}, found {proposal.value}")
        return proposal.value

    def describe(self):
        return f"{', '.join(self.taken)}; {' x '.join(map(str, self.shape))} tokens"

    def alt(self):
        f, h, w = self.shape
        place = f"frame {self.begin // (h * w) + 1}, row {self.begin // w % h + 1}, column {self.begin % w + 1}"
        counts = ", ".join(f"{key} {(taken[self.begin] == 1).sum()} in one block and {(taken[self.begin] > 0).sum()} in "
                           f"{self.most}" for key, taken in self.taken.items())  # fmt: skip
        return f"Frames as grids of tokens, and what the token in {place} sees: {counts}."

    def picture(self):
        f, h, w = self.shape
        width, high = w * self.cell + GAP, h * self.cell + GAP
        rows = -(-f // self.beside)
        whole = 24 + rows * high
        self.picture_width = max(self.beside * width + GAP, 420)
        figure, axes = figures.diagram(self.picture_width, len(self.taken) * whole + 24)
        for i, (key, taken) in enumerate(self.taken.items()):
            figures.text(axes, GAP, 14 + i * whole, key, 12, weight="bold")
            for frame in range(f):
                corner = GAP + frame % self.beside * width, 26 + i * whole + frame // self.beside * high
                self._draw_frame(axes, taken[self.begin], frame, *corner)
        legend = f"framed: the token · dark: seen in one block · paler: through 2 to {self.most} · dot: not written yet"
        figures.text(axes, GAP, len(self.taken) * whole + 12, legend, 11, figures.FAINT)
        return figures.pixels(figure)

    def _draw_frame(self, axes, taken, frame, left, top):
        _, h, w = self.shape
        for y, x in np.ndindex(h, w):
            j, cell = (frame * h + y) * w + x, self.cell
            if j > self.begin and not taken[j]:
                figures.box(axes, left + (x + 0.44) * cell, top + (y + 0.44) * cell, cell / 8, cell / 8, figures.LINE, "none")
                continue
            shade = 0.25 + 0.75 * (self.most - taken[j]) / max(self.most - 1, 1) if taken[j] else 0
            colour = "#%02x%02x%02x" % tuple((255 + shade * (BLUE - 255)).round().astype(int))
            figures.box(axes, left + x * cell, top + y * cell, cell - 1, cell - 1, colour, figures.LINE, 0.4)
            if j == self.begin:
                figures.box(axes, left + x * cell, top + y * cell, cell - 1, cell - 1, "none", "#d55e00", 2.4)


def _check(seen: dict[str, np.ndarray], shape: tuple[int, ...], blocks: int) -> None:
    """Raises UserError for masks, a shape or a number of blocks that do not fit together."""
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"shape: expected (frames, rows, columns), found {shape}")
    n = int(np.prod(shape))
    found = {key: (mask.dtype.name, mask.shape) for key, mask in seen.items()}
    if not found or any(one != ("bool", (n, n)) for one in found.values()):
        raise UserError(f"masks: expected {{name: bool ({n}, {n})}} for a clip {shape}, found {found}")
    if len(found) * n**2 > MOST_NUMBERS:
        raise UserError(f"masks: expected at most {MOST_NUMBERS:,} numbers, found {len(found) * n**2:,}; show fewer tokens")
    if not 1 <= blocks <= 255:
        raise UserError(f"blocks: expected 1 to 255, found {blocks}")
