"""WeightTree: every number of a model as area, and every tensor by its three names.

    ┌──────── unet ─────────────┐┌─ text ─┐     area = parameters; blue: within a frame, orange: along time
    │ down 2    │ up 1    │ …   ││        │     pick a layer: its tensors, their shapes, and what each layout calls them
    └───────────────────────────┘└────────┘

Built on the meta device: shapes, no numbers. Rectangles are squarified (Bruls, Huizing and van Wijk, "Squarified
treemaps", 2000): rows of rectangles, each row closed when one more would make its worst one longer and thinner.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import traitlets
from torch import nn

from minit2v.checkpoints.export import DEPARTURES, axes
from minit2v.checkpoints.names import LAYOUTS, names
from minit2v.errors import UserError
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, deflated, files
from minit2v.presets import ModelScopePreset, Preset
from minit2v.systems import build, find_preset

COLOURS = {"within": "#0072b2", "along": "#e69f00", "other": "#8a8f98"}  # the first two as in boxes.js
WIDTH, HEIGHT, HEAD, GAP = 664, 400, 15, 1.5  # screen pixels: the map, the title of a group, between rectangles
LAYER = re.compile(  # of a tensor's name: its group, and its layer
    r"(?P<group>(?:down|up)\.\d+|middle|(?:encoder|decoder)\.(?:levels\.\d+|middle)|blocks)"
    r"\.(?P<layer>(?:blocks\.\d+|first|last)(?:\.(?:res|temporal_conv|spatial|temporal))?|resample|\d+)"
)


@dataclass
class Layer:
    """A rectangle of the map."""

    network: str
    group: str  # "down 2"
    name: str  # "down.2.blocks.0.spatial"
    kind: str  # "within", "along" or "other"
    rows: list[dict] = field(default_factory=list)  # its tensors: name and shape in each layout
    parameters: int = 0
    place: tuple[float, float, float, float] = (0, 0, 0, 0)  # x, y, width, height


def squarified(sizes: Sequence[float], x: float, y: float, width: float, height: float) -> list[tuple]:
    """Rectangles (x, y, width, height) whose areas are in the ratio of the sizes, in their order; they fill the given
    one. Sizes fall and are above 0.

    >>> squarified([2, 1, 1], 0, 0, 4, 2)
    [(0, 0.0, 2.0, 2.0), (2.0, 0.0, 2.0, 1.0), (2.0, 1.0, 2.0, 1.0)]
    """
    scale, places, rest = width * height / sum(sizes), [], list(sizes)
    while rest:
        side = min(width, height)
        areas, count = [scale * size for size in rest], 1

        def worst(row):  # how much longer than wide the worst rectangle of a row of these areas is
            across = [(side / sum(row)) ** 2 * area for area in row]
            return max(max(ratio, 1 / ratio) for ratio in across)

        while count < len(rest) and worst(areas[: count + 1]) <= worst(areas[:count]):
            count += 1
        thick, along = sum(areas[:count]) / side, 0.0
        for long in (area / thick for area in areas[:count]):
            upright = width >= height
            places.append((x, y + along, thick, long) if upright else (x + along, y, long, thick))
            along += long
        x, y = (x + thick, y) if width >= height else (x, y + thick)
        width, height = (width - thick, height) if width >= height else (width, height - thick)
        rest = rest[count:]
    return places


class WeightTree(LabWidget):
    """All weights of a model as a treemap: pick a layer for its tensors, with their names and shapes in each layout.

    Args:
        model: a preset of the system modelscope, or its name.
        name: see `LabWidget`.

    Synced: `selected`, the number of a layer; `layout_shown`, "minit2v", "diffusers" or "modelscope", where the model
    has these names. Raises UserError for another system, and for values outside of these.
    """

    _esm = files("lab.js", "picking.js", "weight_tree.js")
    _css = files("lab.css")
    selected = traitlets.Int(0).tag(sync=True)
    layout_shown = traitlets.Unicode("minit2v").tag(sync=True)
    facts = traitlets.Bytes().tag(sync=True)  # deflated JSON: a model has thousands of names
    picture_width = WIDTH

    def __init__(self, model: str | Preset = "modelscope-1.7b", name: str | None = None, **traits):
        preset = model if isinstance(model, Preset) else find_preset(model)
        if preset.system != ModelScopePreset.system:
            raise UserError(f"WeightTree: expected a model of {ModelScopePreset.system}, found one of {preset.system}")
        departs = any(getattr(preset.unet, departure, False) for departure in DEPARTURES)
        self.layouts = LAYOUTS[:1] if departs else LAYOUTS
        with torch.device("meta"):
            networks = build(preset)
        self.layers = [layer for name, network in networks.items() for layer in layers_of(name, network, self.layouts)]
        self.groups = placed(self.layers)
        self.total = sum(layer.parameters for layer in self.layers)
        own = [layer for layer in self.layers if layer.network == "unet"]
        unet, along = (sum(one.parameters for one in some) for some in (own, [x for x in own if x.kind == "along"]))
        self.title = f"{preset.name}: {self.total:,} parameters in {sum(len(one.rows) for one in self.layers):,} tensors"
        self.legend = {"within": "within a frame", "along": f"along time ({100 * along / unet:.1f} % of the UNet)",
                       "other": "no frames"}  # fmt: skip
        facts = {"layers": [vars(layer) for layer in self.layers], "groups": self.groups, "title": self.title,
                 "legend": self.legend, "layouts": self.layouts, "size": (WIDTH, HEIGHT)}  # fmt: skip
        super().__init__(name, facts=deflated(facts), **traits)

    @traitlets.validate("selected")
    def _within(self, proposal):
        if not 0 <= proposal.value < len(self.layers):
            raise UserError(f"selected: expected 0 to {len(self.layers) - 1}, found {proposal.value}")
        return proposal.value

    @traitlets.validate("layout_shown")
    def _known(self, proposal):
        if proposal.value not in self.layouts:
            raise UserError(f"layout_shown: expected one of {', '.join(self.layouts)}, found {proposal.value!r}")
        return proposal.value

    def describe(self):
        return self.title

    def alt(self):
        return (f"Rectangles whose area is a number of parameters. {self.title}. Blue are layers within a frame, orange "
                f"those {self.legend['along']}; the text tower and the autoencoder stand beside it.")  # fmt: skip

    def picture(self):
        figure, axes_ = figures.diagram(WIDTH, HEIGHT + 44)
        figures.text(axes_, 2, 10, self.title, 11, weight="bold")
        for x, (kind, words) in zip((4, 124, 334), self.legend.items()):
            figures.box(axes_, x, 24, 14, 10, COLOURS[kind])
            figures.text(axes_, x + 19, 29, words, 11, figures.FAINT)
        for layer in self.layers:
            x, y, width, height = layer.place
            figures.box(axes_, x, y + 44, width, height, COLOURS[layer.kind], "#ffffff", 0.5)
        for group in self.groups:
            if group["titled"]:
                x, y, *_ = group["place"]
                weight = "normal" if group["level"] else "bold"
                figures.text(axes_, x + 3, y + 44 + HEAD / 2, group["name"], 11, weight=weight)
        return figures.pixels(figure)


def layers_of(network: str, module: nn.Module, layouts: Iterable[str]) -> list[Layer]:
    """The layers of a network with their tensors, the largest first; `module` may be on the meta device."""
    state, tables = module.state_dict(), {layout: names(network, module, layout) for layout in layouts}
    along = getattr(module, "temporal_layers", list)()
    temporal = {name for name, one in module.named_modules() if any(one is layer for layer in along)}
    found: dict[str, Layer] = {}
    for key, value in state.items():
        match = LAYER.match(key)
        name = match[0] if match else key.rpartition(".")[0] or key
        group = match["group"] if match else "embedding" if "embedding" in key else "in and out"
        kind = "other" if network == "text" or name.startswith("time_embedding") else "within"
        kind = "along" if any(key.startswith(f"{one}.") for one in temporal) else kind
        layer = found.setdefault(name, Layer(network, group.replace(".", " "), name, kind))
        layer.parameters += value.numel()
        row = {}
        for layout, table in tables.items():
            parts = table[key]
            shape = [*value.shape, *[1] * (axes(network, key, layout, value.ndim) - value.ndim)]
            shape = [shape[0] // len(parts), *shape[1:]] if shape else shape
            row[layout] = [", ".join(parts), " × ".join(map(str, shape)) or "1"]
        layer.rows.append(row)
    return sorted(found.values(), key=lambda layer: -layer.parameters)


def placed(layers: list[Layer]) -> list[dict]:
    """Give every layer its place; returns the frames of networks (level 0) and of groups in them (level 1)."""
    frames: list[dict] = []
    networks = nested(layers, lambda layer: layer.network)
    for (name, own), place in fitted(networks, (0, 0, WIDTH, HEIGHT)):
        frames.append(frame(name, 0, place))
        for (group, inner), where in fitted(nested(own, lambda layer: layer.group), below(place)):
            frames.append(frame(group, 1, where))
            for (_, [layer]), at in fitted([(one.name, [one]) for one in inner], below(where)):
                x, y, width, height = at
                layer.place = (x, y, max(width - GAP, 0.5), max(height - GAP, 0.5))
    return frames


def nested(layers: Iterable[Layer], key) -> list[tuple[str, list[Layer]]]:
    """Layers by a key, the largest group first."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        found.setdefault(key(layer), []).append(layer)
    return sorted(found.items(), key=lambda item: -sum(one.parameters for one in item[1]))


def fitted(groups: list[tuple[str, list[Layer]]], place: tuple) -> list[tuple]:
    """(group, its rectangle within the place)."""
    return list(zip(groups, squarified([sum(one.parameters for one in own) for _, own in groups], *place)))


def frame(name: str, level: int, place: tuple) -> dict:
    """A frame, and whether there is room for its title."""
    titled = place[3] > 2.5 * HEAD and place[2] > 7 * len(name)
    return {"name": name, "level": level, "place": place, "titled": titled}


def below(place: tuple) -> tuple[float, float, float, float]:
    """The room within a frame, below its title if it is high enough for one."""
    x, y, width, height = place
    head = HEAD if height > 2.5 * HEAD else 0
    return x + GAP, y + head, max(width - 2 * GAP, 1), max(height - head - GAP, 1)
