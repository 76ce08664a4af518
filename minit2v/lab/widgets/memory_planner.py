"""MemoryPlanner: what a clip takes on a card, and what to change if it does not fit.

    model [ modelscope-1.7b ]  clip [ 16 frames of 256 × 256 ]  ( float32 ) ( half )     each choice moves the bar
    ▓▓ program ▓▓▓▓▓ weights ▓▓ tensors ▓ frames │ 8 GB                                  and the line is the card

Nothing is estimated in the browser: all peaks are those of `memory.plan.moment` for the counts that
`memory.figures` recorded, and are sent once.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.widgets import figures as drawing
from minit2v.lab.widgets.base import LabWidget, deflated, files
from minit2v.memory.figures import Figures, recorded
from minit2v.memory.plan import beside, busiest, gigabytes

CARDS = (1, 2, 4, 6, 8, 10, 12, 16, 24, 32, 48, 80, 141)  # memory of GPUs, in units of 10^9 bytes
COLOURS = {"program": "#8a8f98", "weights": "#0072b2", "tensors": "#e69f00", "frames": "#009e73", "allocator": "#cc79a7"}
DEVICES = {"cuda": "GPU", "cpu": "CPU"}
PRECISIONS = {"float32": "float32", "float16": "half"}
WIDTH, ROW, LEFT = 664, 26, 210  # screen pixels of the static picture


def ways(figures: Figures, device: str) -> list[dict]:
    """Every way to sample on a device, the fastest first: batched, offload, chunk, its parts, the network at the peak."""
    result = []
    chunks = sorted(map(int, figures.decoder), reverse=True)
    for offload, batched, chunk in product((False, True), (True, False), chunks):
        if device == "cpu" and offload:
            continue
        parts = figures.peak(device, batched, offload, chunk)
        at = busiest(figures.weights, figures.tensors(batched, chunk), offload)
        held = beside(figures.weights, offload) if device == "cuda" else 0
        result.append({"batched": batched, "offload": offload, "chunk": chunk, "parts": parts,
                       "peak": sum(parts.values()), "at": at, "beside": held})  # fmt: skip
    return result


class MemoryPlanner(LabWidget):
    """What a clip takes on a card: choose model, clip, precision and options, and see what fits.

    Args:
        figures: counted ones; by default those that come with the library.
        name: see `LabWidget`.
        traits: where it begins: the synced ones below.

    Synced: `model`, `clip` (in words), `dtype` "float32" or "float16", `device` "cuda" or "cpu", `batched`, `offload`,
    `chunk`, frames decoded at a time, and `memory`, one of CARDS. Raises UserError for what was not counted.
    """

    _esm = files("lab.js", "picking.js", "memory_planner.js")
    _css = files("lab.css")
    model = traitlets.Unicode().tag(sync=True)
    clip = traitlets.Unicode().tag(sync=True)
    dtype = traitlets.Unicode("float16").tag(sync=True)
    device = traitlets.Unicode("cuda").tag(sync=True)
    batched = traitlets.Bool(True).tag(sync=True)
    offload = traitlets.Bool(False).tag(sync=True)
    chunk = traitlets.Int(4).tag(sync=True)
    memory = traitlets.Int(8).tag(sync=True)
    facts = traitlets.Bytes().tag(sync=True)
    picture_width = WIDTH

    def __init__(self, figures: Sequence[Figures] | None = None, name: str | None = None, **traits):
        self.figures = list(recorded() if figures is None else figures)
        if not self.figures:
            raise UserError("MemoryPlanner: expected figures, found none")
        largest = max(self.figures, key=lambda one: sum(one.weights.values()))
        start = next(one for one in self.figures if one.model == largest.model)
        rows = [{"model": one.model, "clip": one.clip, "dtype": one.dtype, "weights": one.weights,
                 "ways": {device: ways(one, device) for device in DEVICES}} for one in self.figures]  # fmt: skip
        facts = {"rows": rows, "cards": CARDS, "colours": COLOURS, "devices": DEVICES, "precisions": PRECISIONS}
        self.start, self.at_first = start, {"memory": 8} | traits
        super().__init__(name, facts=deflated(facts),
                         **({"model": start.model, "clip": start.clip} | traits))  # fmt: skip

    @traitlets.validate("model", "clip", "dtype", "device", "memory")
    def _counted(self, proposal):
        known = {"device": DEVICES, "memory": CARDS}.get(proposal.trait.name)
        known = known or {getattr(one, proposal.trait.name) for one in self.figures}
        if proposal.value not in known:
            raise UserError(f"{proposal.trait.name}: expected one of {', '.join(sorted(map(str, known)))}, found "
                            f"{proposal.value!r}")  # fmt: skip
        return proposal.value

    def describe(self):
        models = ", ".join(dict.fromkeys(one.model for one in self.figures))
        return f"{models}; {len(self.figures)} counts"

    def alt(self):
        return (f"Bars of what {self.start.model} takes for {self.start.clip} on a GPU, in float32 and in half precision, "
                "with and without offload: program, weights, tensors and frames; a line at the memory of a card.")  # fmt: skip

    def picture(self) -> np.ndarray:
        memory, bars = self.at_first["memory"] * 1e9, []
        for one in (own for own in self.figures if (own.model, own.clip) == (self.start.model, self.start.clip)):
            for way in ways(one, "cuda"):
                if way["chunk"] in (1, 4) and way["batched"] == (way["chunk"] != 1):
                    options = ["guidance in turn"] * (not way["batched"]) + ["offload"] * way["offload"]
                    bars.append((f"{PRECISIONS[one.dtype]}{', ' * bool(options)}{', '.join(options)}", way))
        most = 1.02 * max(memory, *(way["peak"] for _, way in bars))
        figure, axes = drawing.diagram(WIDTH, ROW * len(bars) + 76)
        drawing.text(axes, 4, 12, f"{self.start.model} on a GPU, {self.start.clip}", weight="bold")
        across = (WIDTH - LEFT - 76) / most
        for i, (title, way) in enumerate(bars):
            x, y = LEFT, 30 + ROW * i
            drawing.text(axes, LEFT - 8, y + ROW / 2 - 3, title, 11, align="right")
            for part, size in way["parts"].items():
                drawing.box(axes, x, y, size * across, ROW - 8, COLOURS[part], "none")
                x += size * across
            drawing.text(axes, WIDTH - 6, y + ROW / 2 - 3, gigabytes(way["peak"]), 11, align="right")
        low, edge = 30 + ROW * len(bars), LEFT + memory * across
        axes.plot([edge, edge], [26, low], color=drawing.INK, linewidth=1.2, linestyle="--")
        drawing.text(axes, edge, low + 8, f"a card of {self.at_first['memory']} GB", 11, align="center")
        for i, part in enumerate(("program", "weights", "tensors", "frames")):
            drawing.box(axes, 8 + 110 * i, low + 24, 14, 10, COLOURS[part], "none")
            drawing.text(axes, 27 + 110 * i, low + 29, part, 11, drawing.FAINT)
        return drawing.pixels(figure)
