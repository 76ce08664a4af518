"""RunReplay: the curves of a training under a cursor, and the network's reconstructions of some frames at that step.

    l1 │╲                 frames     ▣ ▣ ▣ ▣
       │ ╲___|___         late       ▣ ▣ ▣ ▣     several runs: a line and a row each, under one slider
       └─────┴───         early      ▣ ▣ ▣ ▣
    step ────●───

A training in progress can draw its points over the recorded ones: `append`.
"""

import numpy as np
import traitlets

from minit2v.errors import UserError
from minit2v.lab.pictures import stack
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files, pack
from minit2v.lab.widgets.pictures import enlarge, sheet
from minit2v.pixels import evenly
from minit2v.recording.run import TrainingRun
from minit2v.recording.sheets import atlas

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # as in drawing.js
COLUMNS, TILES, TILE = 7, 4, 64  # of the static picture: steps, rows of frames, pixels
STRIP_COLUMNS, STRIPS, STRIP = 3, 8, 256  # the same where a tile is a strip of frames


class RunReplay(LabWidget):
    """Recorded trainings: choose a curve, move the cursor over the steps, and see the reconstructed frames.

    Args:
        runs: a `TrainingRun`, or several with the same frames and steps of pictures.
        name: see `LabWidget`.
        traits: where it begins: at, curve.

    Synced: `at` 0..p-1, the number of a picture; `curve` a name. Raises UserError for no runs, for runs that do not
    fit together, and for a value outside of these.
    """

    _esm = files("lab.js", "drawing.js", "replay.js")
    _css = files("lab.css", "panels.css")
    at = traitlets.Int(0).tag(sync=True)
    curve = traitlets.Unicode().tag(sync=True)
    live = traitlets.Dict().tag(sync=True)  # curve -> [steps, values]
    info = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    numbers_layout = traitlets.Dict().tag(sync=True)
    tiles = traitlets.Bytes().tag(sync=True)
    tiles_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, runs, name=None, **traits):
        self.runs = [runs] if isinstance(runs, TrainingRun) else list(runs)
        if not self.runs or not all(isinstance(run, TrainingRun) for run in self.runs):
            raise UserError(f"RunReplay: expected a TrainingRun or several, found {runs!r:.80}")
        first = self.runs[0]
        self.steps, self.frames = first.steps, first.frames
        for run in self.runs[1:]:
            if not (np.array_equal(run.steps, self.steps) and np.array_equal(run.frames, self.frames)):
                raise UserError(f"RunReplay: expected the frames and steps of {first.name!r} in all runs, "
                                f"found others in {run.name!r}")
        self.curves = list(dict.fromkeys(key for run in self.runs for key in run.curves))
        arrays = {f"{i} {key}": np.stack(pair) for i, run in enumerate(self.runs) for key, pair in run.curves.items()}
        numbers, numbers_layout = pack(**arrays)
        pictures = np.concatenate([run.pictures.reshape(-1, *self.frames.shape[1:]) for run in self.runs])
        tiles, tiles_layout = atlas(np.concatenate([self.frames, pictures]))
        info = {"runs": [run.name for run in self.runs], "curves": self.curves, "steps": self.steps.tolist(),
                "frames": len(self.frames)}
        traits = {"at": len(self.steps) - 1, "curve": self.curves[0]} | traits
        self.pictured = traits["curve"]
        super().__init__(name, info=info, numbers=numbers, numbers_layout=numbers_layout, tiles=tiles,
                         tiles_layout=tiles_layout, **traits)

    @traitlets.validate("at")
    def _within(self, proposal):
        if not 0 <= proposal.value < len(self.steps):
            raise UserError(f"at: expected 0 to {len(self.steps) - 1}, found {proposal.value}")
        return proposal.value

    @traitlets.validate("curve")
    def _known(self, proposal):
        if proposal.value not in self.curves:
            raise UserError(f"curve: expected one of {', '.join(self.curves)}, found {proposal.value!r}")
        return proposal.value

    def append(self, step, report):
        """Draw over the recorded lines what a step of a running training reported, {curve: value}."""
        live = {key: [[*steps], [*values]] for key, (steps, values) in self.live.items()}
        for key, value in report.items():
            steps, values = live.setdefault(key, [[], []])
            steps.append(int(step))
            values.append(float(value))
        self.live = live

    def describe(self):
        return f"{', '.join(run.name for run in self.runs)}, {len(self.steps)} of {self.steps[-1]} steps"

    def alt(self):
        names = ", ".join(run.name for run in self.runs)
        return (f"The curve {self.pictured} over the steps of training ({names}); below, what the network gave back "
                "of some frames or captions, from the first steps on the left to the last, and the frames themselves.")

    def picture(self):
        wide = self.frames.shape[2] >= 2 * self.frames.shape[1]
        columns, most, side, kind = (STRIP_COLUMNS, STRIPS, STRIP, "clip") if wide else (COLUMNS, TILES, TILE, "frame")
        chosen = evenly(len(self.steps), columns)
        top = [*(f"step {step}" for step in self.steps[chosen]), kind]
        rows, left = [], []
        for run in self.runs:
            for k in range(min(len(self.frames), max(1, most // len(self.runs)))):
                rows.append([enlarge(tile, side) for tile in (*run.pictures[chosen, k], self.frames[k])])
                left.append(run.name if k == 0 else "")
        return stack([self._chart(), sheet(rows, top, left)])

    def _chart(self, width=400, height=180):
        """The curve of every run that the widget began with, uint8 (H, W, 3)."""
        left, right, top, bottom = 44, width - 10, 24, height - 24
        known = [(i, run) for i, run in enumerate(self.runs) if self.pictured in run.curves]
        lines = [(i, run.name, *run.curves[self.pictured]) for i, run in known]
        low, high = (f([f(y) for *_, y in lines]) for f in (np.min, np.max))
        last = self.steps[-1]
        figure, axes = figures.diagram(width, height)
        figures.text(axes, left, 10, self.pictured, weight="bold")
        figures.box(axes, left, top, right - left, bottom - top)
        for value, y in ((high, top), (low, bottom)):
            figures.text(axes, left - 4, y, f"{value:.3g}", 11, figures.FAINT, "right")
        for value, x, align in ((0, left, "left"), (last, right, "right")):
            figures.text(axes, x, bottom + 12, f"step {value:.0f}", 11, figures.FAINT, align)
        end = right
        for i, name, x, y in reversed(lines):
            across = left + x / last * (right - left)
            down = bottom - (y - low) / max(high - low, 1e-12) * (bottom - top)
            axes.plot(across, down, color=PALETTE[i % len(PALETTE)], linewidth=1.2)
            figures.text(axes, end, 10, name, 11, PALETTE[i % len(PALETTE)], "right")
            end -= 6 * len(name) + 12
        return figures.pixels(figure)
