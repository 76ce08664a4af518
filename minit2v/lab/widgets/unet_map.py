"""UNetMap: the UNet of ModelScopeT2V as a U of boxes, at every size; a box shows its shapes, parameters and source.

    conv in          head          every skip is a level line: what the block on the left gives
    down 0 ─ ─ ─ ─ > up 1          is put beside what comes up on the right
      down 1 ─ ─ > up 0
           middle

Shapes are measured, not derived: a twin without memory (torch's meta device) runs once with hooks, so the map of the
1.4-billion-parameter network takes seconds and no memory.

References: ModelScopeT2V, arXiv 2308.06571, section 3.3; https://docs.pytorch.org/docs/stable/meta.html.
"""

import re

import torch

from minit2v.errors import UserError
from minit2v.lab.widgets.boxes import Box, BoxMap, count, parts_of, shape_text
from minit2v.networks.unet import UNet
from minit2v.presets import Preset, UNetConfig

WIDTH, ROW, HEIGHT, BOX, INDENT = 584, 33, 26, 184, 13  # screen pixels


def twin(unet: UNet | Preset | UNetConfig) -> UNet:
    """A UNet of the same settings on the meta device: shapes, no numbers."""
    config = getattr(unet, "unet", unet)
    config = getattr(config, "config", config)
    if not isinstance(config, UNetConfig):
        found = f"system {unet.system}" if isinstance(unet, Preset) else type(unet).__name__
        raise UserError(f"UNetMap: expected a networks.unet.UNet, its settings or a preset that has them, "
                        f"found {found}; it draws no other network")  # fmt: skip
    with torch.device("meta"):
        return (type(unet)(config, unet.block) if isinstance(unet, UNet) else UNet(config)).eval()


def shapes(unet: UNet, size: tuple[int, int, int], tokens: int) -> dict[str, tuple[tuple, tuple]]:
    """Module name -> shapes of its first input and its output, for one clip (f, h, w); `unet` is a `twin`."""
    found, hooks = {}, []
    for name, module in unet.named_modules():
        def note(_, inputs, output, name=name):
            found[name] = tuple(inputs[0].shape), tuple(output.shape)

        hooks.append(module.register_forward_hook(note))
    config = unet.config
    x = torch.empty(1, config.in_channels, *size, device="meta")
    with torch.no_grad():
        unet(x, torch.zeros(1, device="meta"), torch.empty(1, tokens, config.context_dim, device="meta"))
    for hook in hooks:
        hook.remove()
    return found


class UNetMap(BoxMap):
    """The UNet as boxes: pick one for the shapes of its input and output, its parameters and its source.

    Args:
        unet: a `minit2v.networks.unet.UNet`, a preset, or a `UNetConfig`.
        size: (f, h, w) of the latents. By default 16 frames and what makes the lowest level 4 x 4.
        tokens: of the text; 77 in the released model.

    Synced: `selected`, the number of a box. UserError for anything else, such as the network of another system.
    """

    def __init__(self, unet: UNet | Preset | UNetConfig, size: tuple[int, int, int] | None = None, tokens: int = 77,
                 name: str | None = None):  # fmt: skip
        self.unet = twin(unet)
        side = 2 ** (len(self.unet.config.channels) + 1)
        self.latents = tuple(size or (16, side, side))
        self.shapes = shapes(self.unet, self.latents, tokens)
        self.along_time = set(self.unet.temporal_layers())
        self.parameters, self.temporal = count([self.unet], self.along_time)
        boxes, lines = self._draw()
        part = f"{100 * self.temporal / self.parameters:.1f} % of them along time"
        super().__init__(boxes, lines, f"UNet, {self.parameters:,} parameters, {part}", name=name)

    def describe(self):
        return f"{self.parameters:,} parameters, latents {shape_text(self.latents)}"

    def box(self, name: str, title: str, x: float, y: float, others: tuple[str, ...] = ()) -> Box:
        """The box of a module and of those that belong to it."""
        modules = {one: self.unet.get_submodule(one) for one in (name, *others)}
        total, temporal = count(modules.values(), self.along_time)
        first, last = ("time_embedding.0", "time_embedding.2") if name == "time_embedding" else (name, name)
        before, after = self.shapes[first][0], self.shapes["conv_out" if "conv_out" in others else last][1]
        facts = [("input", shape_text(before)), ("output", shape_text(after))]
        main = modules[name]
        parts = parts_of(main, self.along_time) if not others and len(list(main.children())) > 1 else [
            (f"{one} · {type(module).__name__}", *count([module], self.along_time)) for one, module in modules.items()
        ]  # fmt: skip
        code = UNet.embed if name == "time_embedding" else UNet.forward
        if type(main).__module__.startswith("minit2v"):
            code = type(main)
        note = "×".join(map(str, after[1:]))  # of one frame
        named = "unet." + re.sub(r"\.(\d+)", r"[\1]", name)  # unet.down[0].blocks[1]
        return Box(named, title, x, y, BOX, HEIGHT, note, facts, total, temporal, parts).with_source(code)

    def _draw(self) -> tuple[list[Box], list[dict]]:
        """Boxes in the order of the flow, and the lines between them."""
        unet, boxes, lines = self.unet, [], []
        left = lambda level: 8 + INDENT * level  # noqa: E731
        right = lambda level: WIDTH - 8 - BOX - INDENT * level  # noqa: E731
        middle, y = (WIDTH - BOX) / 2, 8
        extra = tuple(n for n in ("frame_embedding", "text_embedding") if getattr(unet, n) is not None)
        boxes.append(self.box("time_embedding", "timestep", middle, y, extra))
        boxes.append(self.box("conv_in", "conv in", left(0), y))
        if unet.layout is not None:
            y += ROW
            boxes.append(self.box("layout", "scene prior", left(0), y))
        y += ROW
        boxes.append(self.box("first_temporal", "first temporal", left(0), y))
        skips = [boxes[-1]]  # in the order in which they are made
        for i, level in enumerate(unet.down):
            for j, _ in enumerate(level.blocks):
                y += ROW
                boxes.append(self.box(f"down.{i}.blocks.{j}", f"down {i} · block {j}", left(i), y))
                skips.append(boxes[-1])
            if level.resample is not None:
                y += 2 * ROW  # beside the gap, the up-sampler
                boxes.append(self.box(f"down.{i}.resample", "halve", left(i + 1), y))
                skips.append(boxes[-1])
        for j, part in enumerate(("first", "last")):
            boxes.append(self.box(f"middle.{part}", f"middle · {part}", middle, y + (j + 1.3) * ROW))
        for k, level in enumerate(unet.up):
            depth = len(unet.up) - 1 - k
            for j, _ in enumerate(level.blocks):
                skip = skips.pop()
                box = self.box(f"up.{k}.blocks.{j}", f"up {k} · block {j}", right(depth), skip.y)
                box.facts += [("by skip", f"{skip.title}: {skip.facts[1][1]}")]
                skip.facts += [("also goes to", box.title)]
                edge = skip.y + HEIGHT / 2
                lines.append({"points": [[skip.x + BOX, edge], [box.x, edge]], "skip": True})
                boxes.append(box)
            if level.resample is not None:
                boxes.append(self.box(f"up.{k}.resample", "double", right(depth), boxes[-1].y - ROW))
        boxes.append(self.box("norm_out", "head", right(0), 8, ("conv_out",)))
        flow = boxes[1:]
        lines += [{"points": path(a, b), "skip": False} for a, b in zip(flow, flow[1:])]
        return boxes, lines


def path(a: Box, b: Box) -> list[list[float]]:
    """From the edge of a box to the edge of the next: straight where one stands over the other, else with a corner."""
    ax, ay, bx, by = a.x + a.width / 2, a.y + a.height / 2, b.x + b.width / 2, b.y + b.height / 2
    down = b.y > a.y
    if abs(ax - bx) < 2 * INDENT:
        x = max(ax, bx)
        return [[x, a.y + a.height if down else a.y], [x, b.y if down else b.y + b.height]]
    if down:  # to the middle: down, then sideways
        return [[ax, a.y + a.height], [ax, by], [b.x, by]]
    return [[a.x + a.width, ay], [bx, ay], [bx, b.y + b.height]]
