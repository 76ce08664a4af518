"""FoldViz: what `einops.rearrange` does, element by element.

    b c f h w                     (b f) c h w             every cell is one element; its number says where it lay in
    ┌──┬──┬──┐ f ->               ┌──┐ 0                  memory before, its colour which clip and frame it came from
  b │01│45│89│         ──>        │01│ 1                  (hue: first coloured axis, lightness: second)
    │23│67│..│                    │45│ 2
    └──┴──┴──┘                    └──┘ …                  select one: its place in the result, with the arithmetic

`picking.js`, put after lab.js, has what diagrams share: SVG nodes, arrow keys, text that is read out.

References: einops, https://einops.rocks; Rogozhnikov 2022, "Einops: Clear and Reliable Tensor Manipulations".
"""

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files
from minit2v.lab.widgets.fold_arithmetic import (
    Axes,
    arithmetic,
    axis_lengths,
    axis_sizes,
    drawing,
    elements,
    name_of,
    order,
    parse,
)

HUES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")  # Okabe and Ito: safe for colour-blind eyes

def colours(sizes: dict[str, int], left: Axes, by: tuple[str, ...] | None) -> list[str]:
    """One colour for each element number: hue by the first axis of `by`, lightness by the second."""
    by = by or tuple(name for name in sizes if sizes[name] > 1)[:2] or tuple(sizes)[:1]
    if unknown := [name for name in by if name not in sizes]:
        raise UserError(f"colour: expected one or two of the axes {', '.join(sizes)}, found {unknown[0]!r}")
    index, numbers = elements(sizes, left)
    hue = np.array([[int(h[i : i + 2], 16) for i in (1, 3, 5)] for h in HUES])[index[by[0]] % len(HUES)]
    last = max(1, sizes[by[1]] - 1) if len(by) > 1 else 1
    light = 1 - index[by[1]] / last if len(by) > 1 else np.zeros(len(hue))
    rgb = np.empty((len(hue), 3), dtype=int)
    rgb[numbers] = (hue * 0.85 + (250 - hue * 0.85) * 0.75 * light[:, None]).round()
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb]


def rearranged(pattern: str, sizes: dict[str, int]) -> dict:
    """Everything that is shown of one pattern: both drawings, shapes, and for each element the lines that place it."""
    left, right = parse(pattern)
    index, numbers = elements(sizes, left)
    result = order(sizes, left, right)
    after = np.empty(result.size, dtype=int)
    after[result.ravel()] = np.arange(result.size)
    lines = [[]] * result.size
    for i, number in enumerate(numbers):
        own = {name: int(values[i]) for name, values in index.items()}
        memory = f"place in memory: {number} before, {after[number]} after"
        lines[number] = [" ".join(f"{name}={value}" for name, value in own.items()),
                         *(arithmetic(axis, sizes, own) for axis in right), memory]  # fmt: skip
    moved = int((after != np.arange(after.size)).sum())
    sides = [" ".join(map(name_of, side)) for side in (left, right)]
    return {
        "pattern": pattern, "names": sides, "shapes": [axis_lengths(left, sizes), result.shape], "lines": lines,
        "before": drawing(left, sizes, np.arange(result.size).reshape(axis_lengths(left, sizes))),
        "after": drawing(right, sizes, result),
        "note": f"{moved} of {after.size} elements move in memory" if moved else "nothing moves in memory",
        "order": result.ravel().tolist(),
    }  # fmt: skip


class FoldViz(LabWidget):
    """An einops rearrangement, element by element; several patterns to step through.

    Colours and numbers are those of the first pattern's left side: a second left side of the same shape, "(f b) c"
    after "(b f) c", shows what a wrong name does to the same memory.

    Args:
        shape: sizes in the order of the left side's names, or {name: size}; at most 384 elements together.
        pattern: "b c f h w -> (b f) c h w", or a list of patterns with the same axes.
        colour: one or two axes: the hue follows the first, the lightness the second. By default the first two of a
            size above 1.

    Synced: `current`, which pattern; `selected`, the number of an element. UserError for a pattern that is not a
    plain rearrangement, or too many elements.
    """

    _esm = files("lab.js", "picking.js", "folds.js")
    _css = files("lab.css")
    current = traitlets.Int(0).tag(sync=True)
    selected = traitlets.Int(0).tag(sync=True)
    patterns = traitlets.List().tag(sync=True)
    colours = traitlets.List().tag(sync=True)

    def __init__(self, shape, pattern: str | list[str], colour: tuple[str, ...] | None = None, name: str | None = None):
        given = [pattern] if isinstance(pattern, str) else list(pattern)
        left = parse(given[0])[0]
        self.sizes = axis_sizes(shape, left)
        for other in given[1:]:
            if set(sum(parse(other)[0], ())) != set(self.sizes):
                raise UserError(f"pattern: expected the axes {', '.join(self.sizes)} in each, found {other!r}")
        shown = [rearranged(one, self.sizes) for one in given]
        for i, one in enumerate(shown):
            for earlier in shown[:i]:
                if earlier["shapes"] == one["shapes"]:
                    differ = sum(a != b for a, b in zip(earlier["order"], one["order"]))
                    one["note"] = f"same shapes as {earlier['pattern']}, but {differ} elements lie elsewhere"
        super().__init__(name, patterns=shown, colours=colours(self.sizes, left, colour))

    def describe(self):
        return "; ".join(one["pattern"] for one in self.patterns)

    def alt(self):
        return "coloured cells before and after " + ", and after ".join(one["pattern"] for one in self.patterns)

    def picture(self):
        drawings = [(self.patterns[0], 0), *((one, 1) for one in self.patterns)]
        cell, top, left = 18, 58, 46
        widths = [max(150, left + 24 + cell * (one[("before", "after")[i]]["xs"][-1] + 1)) for one, i in drawings]
        rows = max(one[("before", "after")[i]]["ys"][-1] + 1 for one, i in drawings)
        self.picture_width = round(sum(widths))
        figure, axes = figures.diagram(self.picture_width, round(top + cell * rows + 12))
        x = 0
        for (one, i), width in zip(drawings, widths):
            title = ("before: " if i == 0 else "after: ") + one["names"][i]
            figures.text(axes, x + 10, 14, title, 12, weight="bold")
            figures.text(axes, x + 10, 31, "shape " + " × ".join(map(str, one["shapes"][i])), 11, figures.FAINT)
            self._draw(axes, one[("before", "after")[i]], x + left, top, cell)
            x += width
        return figures.pixels(figure)

    def _draw(self, axes, drawn, x0, y0, cell):
        for row, y in zip(drawn["grid"], drawn["ys"]):
            for number, x in zip(row, drawn["xs"]):
                colour = self.colours[number]
                figures.box(axes, x0 + cell * x, y0 + cell * y, cell, cell, colour, "white", 0.5)
                ink = "black" if sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) > 380 else "white"
                figures.text(axes, x0 + cell * (x + 0.5), y0 + cell * (y + 0.5), number, 9, ink, "center")
        for axis, at in (("y", lambda v: (x0 - 14, y0 + cell * v)), ("x", lambda v: (x0 + cell * v, y0 - 9))):
            for i, middle in enumerate(drawn[axis + "_labels"]):
                figures.text(axes, *at(middle), i, 10, figures.FAINT, "center")
            if drawn[axis + "_names"]:
                x, y = (x0 - 34, y0 + cell * drawn["ys"][-1] / 2) if axis == "y" else (x0 - 30, y0 - 9)
                rotation = 90 if axis == "y" else 0
                figures.text(axes, x, y, drawn[axis + "_names"][0], 10, figures.FAINT, "center", rotation=rotation)
