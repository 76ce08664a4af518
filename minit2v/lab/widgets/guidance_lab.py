"""GuidanceLab: two guided clips of one seed side by side, and how true and how different such clips are.

    [guider ▾] ( 1 )( 1.5 )( 3 )( 6 )   [guider ▾] ( 1 )( 1.5 )( 3 )( 6 )     fidelity
    ┌────────┐                          ┌────────┐                              │   ╭─○──○
    │  clip  │                          │  clip  │                              │  ○     ╲   a line for each guider,
    └────────┘                          └────────┘                              │ ╱       ○  a dot for each scale
    fidelity  ▮▮▮▮▮▯                     fidelity  ▮▮▮▮▮▯                       └──────────── diversity
    diversity ▮▮▯▯▯▯                     diversity ▮▮▮▯▯▯

Everything was measured beforehand (`lab.course.guiding.GuiderGrid`), so the widget answers without the kernel.
"""

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.course.guiding import GuiderGrid
from minit2v.lab.pictures import stack
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files
from minit2v.lab.widgets.pictures import enlarge, sheet
from minit2v.recording.sheets import atlas

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # as in drawing.js
TILE = 64  # pixels, of the static picture
SIDES = ("left", "right")


class GuidanceLab(LabWidget):
    """Two recorded clips of one seed: choose guider and scale of each, and compare fidelity and diversity.

    Args:
        grid: what was measured; by default the shipped `GuiderGrid`.
        name: see `LabWidget`.
        traits: where it begins.

    Synced: `left_guider`, `right_guider` names; `left_scale`, `right_scale` texts, "1.5"; `clip` 0..k-1, `frame` 0..f-1.
    Raises UserError for a value outside of these.
    """

    _esm = files("lab.js", "drawing.js", "latents.js", "guidance_lab.js")
    _css = files("lab.css", "panels.css")
    left_guider = traitlets.Unicode().tag(sync=True)
    right_guider = traitlets.Unicode().tag(sync=True)
    left_scale = traitlets.Unicode().tag(sync=True)
    right_scale = traitlets.Unicode().tag(sync=True)
    clip = traitlets.Int(0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    tiles = traitlets.Bytes().tag(sync=True)
    tiles_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, grid: GuiderGrid | None = None, name: str | None = None, **traits):
        self.grid = grid = GuiderGrid.load() if grid is None else grid
        self.scales = [f"{scale:g}" for scale in grid.scales]
        self.shares = np.array([[(one.value, one.low, min(100, one.high)) for one in row] for row in grid.fidelity])
        tiles, tiles_layout = atlas(grid.clips.reshape(-1, *grid.clips.shape[4:]))  # ((g s k f) H W 3)
        info = {"guiders": grid.guiders, "scales": self.scales, "prompts": grid.prompts[: grid.clips.shape[2]],
                "frames": grid.clips.shape[3], "seeds": len(grid.prompts), "fidelity": self.shares.round(1).tolist(),
                "diversity": grid.diversity.astype(float).round(3).tolist()}  # fmt: skip
        begin = {"left_guider": grid.guiders[0], "right_guider": grid.guiders[-1], "left_scale": self.scales[-1],
                 "right_scale": self.scales[-1]}  # fmt: skip
        super().__init__(name, info=info, tiles=tiles, tiles_layout=tiles_layout, **(begin | traits))

    @traitlets.validate("left_guider", "right_guider", "left_scale", "right_scale")
    def _known(self, proposal):
        known = self.grid.guiders if proposal.trait.name.endswith("guider") else self.scales
        if proposal.value not in known:
            raise UserError(f"{proposal.trait.name}: expected one of {', '.join(known)}, found {proposal.value!r}")
        return proposal.value

    @traitlets.validate("clip", "frame")
    def _within(self, proposal):
        last = self.grid.clips.shape[2 if proposal.trait.name == "clip" else 3] - 1
        if not 0 <= proposal.value <= last:
            raise UserError(f"{proposal.trait.name}: expected 0 to {last}, found {proposal.value}")
        return proposal.value

    def describe(self):
        return f"{', '.join(self.grid.guiders)}; scales {', '.join(self.scales)}; {len(self.grid.prompts)} seeds"

    def alt(self):
        return (f'A frame of "{self.grid.prompts[0]}" for each guider, a row each, with scales {", ".join(self.scales)} from '
                "left to right. Beside them fidelity against diversity: a line for each guider, a dot for each scale, all "
                "from the common point of scale 1.")  # fmt: skip

    def picture(self):
        middle = self.grid.clips.shape[3] // 2
        rows = [[enlarge(clips[0, middle], TILE) for clips in of_guider] for of_guider in self.grid.clips]
        return stack([sheet(rows, [f"scale {scale}" for scale in self.scales], self.grid.guiders), self._map()])

    def _map(self, width: int = 520, height: int = 300) -> np.ndarray:
        """Fidelity against diversity, a line for each guider, uint8 (H, W, 3)."""
        figure, axes = figures.diagram(width, height)
        left, right, top, bottom = 44, width - 160, 24, height - 42
        low, high = self.shares[..., 1].min() - 2, 100
        most = float(self.grid.diversity.max()) * 1.1
        figures.text(axes, left, 10, f"fidelity, %: what the judge reads of the prompt, {len(self.grid.prompts)} seeds",
                     weight="bold")  # fmt: skip
        figures.box(axes, left, top, right - left, bottom - top)
        across = lambda value: left + value / most * (right - left)  # noqa: E731
        up = lambda value: bottom - (value - low) / (high - low) * (bottom - top)  # noqa: E731
        for value in (low, (low + high) / 2, high):
            figures.text(axes, left - 4, up(value), f"{value:.0f}", 11, figures.FAINT, "right")
        for value in (0, most / 2, most):
            figures.text(axes, across(value), bottom + 11, f"{value:.1f}", 11, figures.FAINT, "center")
        figures.text(axes, (left + right) / 2, bottom + 28, "diversity: distance of two clips of a prompt", 11,
                     figures.FAINT, "center")  # fmt: skip
        for i, name in enumerate(self.grid.guiders):
            x, y = across(self.grid.diversity[i]), up(self.shares[i, :, 0])
            axes.plot(x, y, color=PALETTE[i], linewidth=1.4)
            for j in range(len(self.scales)):
                axes.plot([x[j]] * 2, up(self.shares[i, j, 1:]), color=PALETTE[i], linewidth=0.6, alpha=0.6)
                axes.plot([x[j]], [y[j]], "o", color=PALETTE[i], markersize=2.5 + 1.5 * j)
            figures.text(axes, right + 8, top + 8 + 18 * i, name, 11, PALETTE[i])
        figures.text(axes, right + 8, top + 18 + 18 * len(self.grid.guiders), "larger dot: larger scale", 11, figures.FAINT)
        return figures.pixels(figure)
