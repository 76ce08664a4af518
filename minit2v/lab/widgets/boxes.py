"""Maps of networks: boxes with shapes, parameters and source, and the lines between them.

    Box       a part of a network: its place, what goes in and out, its parameters, its source
    BoxMap    the widget that shows boxes; `UNetMap` and `PipelineMap` say which
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field

import traitlets
from torch import nn

from minit2v.lab.course.source import Source
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files


@dataclass
class Box:
    """A part of a network. Lengths are screen pixels, y downwards."""

    name: str  # how the code calls it: "unet.down[0].blocks[1]"
    title: str  # on the box
    x: float
    y: float
    width: float
    height: float
    note: str = ""  # on the box, to the right; a box of 60 pixels of height has room for its parameters as well
    facts: list[tuple[str, str]] = field(default_factory=list)  # label, text: shapes and the like
    parameters: int = 0
    temporal: int = 0  # those of layers along time
    parts: list[tuple[str, int, int]] = field(default_factory=list)  # name and class, parameters, temporal ones
    source: str = ""  # "minit2v/networks/blocks.py, lines 216–236"
    code: str = ""

    def with_source(self, obj) -> "Box":
        """The same box with the source of a class or function of the library."""
        source = Source(obj)
        self.source, self.code = source.title, "\n".join(source.lines)
        return self


def count(modules: Iterable[nn.Module | None], along_time: Collection[nn.Module] = ()) -> tuple[int, int]:
    """Parameters of modules, all and those of their layers along time (`UNet.temporal_layers`)."""
    every = [module for module in modules if module is not None]
    layers = [layer for module in every for layer in module.modules() if layer in along_time]
    total, temporal = (sum(p.numel() for m in group for p in m.parameters()) for group in (every, layers))
    return total, temporal


def parts_of(module: nn.Module, along_time: Collection[nn.Module] = ()) -> list[tuple[str, int, int]]:
    """Where a module has its parameters, in itself or its children: (name and class, parameters, temporal ones)."""
    result = [(name, parameter.numel(), 0) for name, parameter in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        total, temporal = count([child], along_time)
        if total:
            temporal = total if module in along_time else temporal
            result.append((f"{name} · {type(child).__name__}", total, temporal))
    return result


def shape_text(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape))


class BoxMap(LabWidget):
    """Boxes to click or to walk through with the arrow keys, and all about the selected one.

    Synced: `selected`, the number of a box.
    """

    _esm = files("lab.js", "picking.js", "boxes.js")
    _css = files("lab.css")
    selected = traitlets.Int(0).tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)

    def __init__(self, boxes: list[Box], lines: list[dict], title: str, selected: int = 0, name: str | None = None):
        """lines: {"points": [[x, y], …], "skip": dashed or not}; an arrow is drawn at the last point."""
        self.boxes, self.lines, self.title = boxes, lines, title
        self.size = [max(box.x + box.width for box in boxes) + 8, max(box.y + box.height for box in boxes) + 8]
        facts = {"boxes": [asdict(box) for box in boxes], "lines": lines, "size": self.size, "title": title}
        super().__init__(name, facts=facts, selected=selected)

    def alt(self):
        return f"{self.title}: " + ", ".join(dict.fromkeys(box.title for box in self.boxes))

    def picture(self):
        width, height = self.size
        self.picture_width = round(width)
        figure, axes = figures.diagram(round(width), round(height + 46))
        figures.text(axes, 8, 14, self.title, 12, weight="bold")
        keys = (8, "#0072b2", "parameters of layers within a frame"), (250, "#e69f00", "of layers along time")
        for x, colour, words in keys:
            figures.box(axes, x, 29, 12, 8, colour, "none")
            figures.text(axes, x + 18, 33, words, 10, figures.FAINT)
        most = max(box.parameters for box in self.boxes)
        for line in self.lines:
            points = [(x, y + 42) for x, y in line["points"]]
            style = {"linestyle": (0, (3, 2))} if line["skip"] else {}
            axes.plot(*zip(*points), color=figures.FAINT, linewidth=0.9, **style)
            (x0, y0), (x, y) = points[-2:]
            turn = math.degrees(math.atan2(y - y0, x - x0))
            tip = x - 2 * math.cos(math.radians(turn)), y - 2 * math.sin(math.radians(turn))
            axes.plot(*tip, marker=(3, 0, -90 - turn), color=figures.FAINT, markersize=4)
        for box in self.boxes:
            y = box.y + 42
            figures.box(axes, box.x, y, box.width, box.height, "#f4f4f4", figures.FAINT)
            figures.text(axes, box.x + 6, y + box.height / 2 - 3, box.title, 11)
            if box.height >= 60:
                learnt = f"{box.parameters:,} parameters"
                figures.text(axes, box.x + 6, y + box.height / 2 + 14, learnt, 10, figures.FAINT)
            figures.text(axes, box.x + box.width - 5, y + box.height / 2 - 3, box.note, 9.5, figures.FAINT, "right")
            full = (box.width - 8) * box.parameters / most
            share = full * box.temporal / max(box.parameters, 1)
            figures.box(axes, box.x + 4, y + box.height - 6, full - share, 4, "#0072b2", "none")
            figures.box(axes, box.x + 4 + full - share, y + box.height - 6, share, 4, "#e69f00", "none")
        return figures.pixels(figure)
