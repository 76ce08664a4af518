"""SamplerStepper: samplers step by step, from noise to points of the plane, or to the latents of a clip.

    x ──> network ──> noise, x0 ──> sampler ──> x' ──> …       each under the step slider

The runs are made beforehand and sent to the browser, so stepping and changing from run to run need no kernel. Steps
without noise or x0, of a system that has none, are shown without.

References: DDPM, Ho et al. 2020 (arXiv:2006.11239), section 3.2; DDIM, Song et al. 2021 (arXiv:2010.02502), section 4.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import traitlets

from minit2v.diffusion.process import Diffusion
from minit2v.diffusion.samplers import Step
from minit2v.errors import UserError
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files, pack
from minit2v.lab.widgets.pictures import channels, enlarge, sheet
from minit2v.pixels import evenly
from minit2v.recording.sheets import atlas

MOST_STEPS, MOST_POINTS, MOST_DATA = 100, 300, 600  # that are kept of a run, of its points, of the data
KINDS = ("before", "noise", "x0", "after")  # the first and the last are in every run
COLUMNS, TILE, PANEL, GAP = 5, 64, 150, 10  # the static picture: steps, pixels of a tile, a plane, between planes


class SamplerStepper(LabWidget):
    """Runs of samplers, step by step: x, the noise and the clip x0 that the network predicts, and the next x.

    In the plane a click on a point follows it: its path and its numbers, to be checked by hand.

        noise = torch.randn(200, 2)
        runs = {("0", "10"): samplers.SAMPLERS["ddim"](oracle, noise, diffusion, 10),
                ("1", "10"): samplers.SAMPLERS["ddim"](oracle, noise, diffusion, 10, 1.0, generator), …}
        lab.SamplerStepper(diffusion, noise, runs, axes=("eta", "steps"), data=points)

    Args:
        diffusion: the `Diffusion` of the runs, for its alpha_bar; None for a system without one.
        start: where all runs start: points (n, 2), the first 300 are shown, or latents (1, c, f, h, w).
        runs: {key: the steps of a sampler}; a key is a text, or as many of them as there are axes. Of a run of more
            than 100 steps 100 are shown.
        axes: what the texts of a key mean.
        data: points (m, 2) of the data set, shown in grey.
        decode: latents (b, c, f, h, w) -> pixels uint8 (b, f, H, W, 3), as `pipe.decode`: shows x0 or x as a clip.
        name: see `LabWidget`.
        traits: where it begins: step, run, frame, point, fps of the play button.

    Synced: `run` the texts of a key, as a list; `step` 0..s-1 of the run; `frame` 0..f-1; `point` 0..n-1, which is
    followed. Raises UserError for another start, for no runs, keys that do not fit the axes, and values outside.
    """

    _esm = files("lab.js", "drawing.js", "latents.js", "stepper.js")
    _css = files("lab.css", "panels.css")
    run = traitlets.List(traitlets.Unicode()).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    point = traitlets.Int(0).tag(sync=True)
    fps = traitlets.Float(8).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    numbers_layout = traitlets.Dict().tag(sync=True)
    pictures = traitlets.Bytes().tag(sync=True)
    pictures_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, diffusion: Diffusion | None, start: torch.Tensor, runs: dict, axes: tuple[str, ...] = ("run",),
                 data=None, decode: Callable | None = None, name: str | None = None, **traits):  # fmt: skip
        self.plane = _plane(start)
        keys = [(key,) if isinstance(key, str) else tuple(map(str, key)) for key in runs]
        if not keys or any(len(key) != len(axes) for key in keys):
            raise UserError(f"runs: expected keys of {len(axes)} texts ({', '.join(axes)}), found {keys}")
        self.runs = {key: SamplingRun(diffusion, start, steps, self.plane) for key, steps in zip(keys, runs.values())}
        self.kinds = [kind for kind in KINDS if all(getattr(run, kind) is not None for run in self.runs.values())]
        self.decoded = "x0" if "x0" in self.kinds else "after"
        self.data = None if data is None else np.asarray(data, np.float32)[:MOST_DATA]
        clouds = [run.before[0] for run in self.runs.values()] + ([] if self.data is None else [self.data])
        self.reach = 1.05 * max(float(np.abs(cloud).max()) for cloud in clouds)  # of the plane's axes
        clips = [] if decode is None or self.plane else [
            _decoded(decode, getattr(run, self.decoded)) for run in self.runs.values()
        ]  # fmt: skip
        self.clips = dict(zip(keys, clips))
        numbers, numbers_layout, ranges = self._packed()
        info = {"plane": self.plane, "axes": list(axes), "decoded": self.decoded if clips else "", "reach": self.reach,
                "kinds": self.kinds,
                "runs": [{"key": key, "t": run.t, "alphaBar": run.alpha_bar, "total": run.total, "kept": run.kept,
                          "ranges": ranges[i]} for i, (key, run) in enumerate(self.runs.items())]}  # fmt: skip
        pictures, pictures_layout = b"", {}
        if clips:
            pictures, pictures_layout = atlas(np.concatenate(clips).reshape(-1, *clips[0].shape[-3:]))
        self.first = tuple(traits.setdefault("run", list(keys[0])))  # the run of the static picture
        super().__init__(name, info=info, numbers=numbers, numbers_layout=numbers_layout, pictures=pictures,
                         pictures_layout=pictures_layout, **traits)

    def _packed(self):
        """All numbers as one buffer: uint16 for points, which are read off, uint8 for latents, which are coloured."""
        arrays, ranges, kind = {}, [], np.uint16 if self.plane else np.uint8
        for i, run in enumerate(self.runs.values()):
            ranges.append({})
            for name in self.kinds:
                arrays[f"{i}.{name}"], ranges[i][name] = _scaled(getattr(run, name), kind)
        if self.data is not None:
            arrays["data"] = self.data
        return *pack(**arrays), ranges

    @traitlets.validate("run")
    def _known(self, proposal):
        if tuple(proposal.value) not in self.runs:
            known = "; ".join(", ".join(key) for key in self.runs)
            raise UserError(f"run: expected one of {known}, found {', '.join(proposal.value)}")
        return proposal.value

    @traitlets.validate("step", "frame", "point")
    def _within(self, proposal):
        name, shape = proposal.trait.name, next(iter(self.runs.values())).before.shape
        count = max(len(run.t) for run in self.runs.values()) if name == "step" else shape[1]
        if not 0 <= proposal.value < count:
            raise UserError(f"{name}: expected 0 to {count - 1}, found {proposal.value}")
        return proposal.value

    def describe(self):
        shape = next(iter(self.runs.values())).before.shape
        what = f"{shape[1]} points" if self.plane else f"latents of {shape[1]} frames"
        return f"{what}, {len(self.runs)} run{'s' * (len(self.runs) > 1)}"

    def alt(self):
        what = "points that gather on the data" if self.plane else "latents that lose their noise"
        return f"From left to right, steps of a sampling run: {what}."

    @property
    def picture_width(self):
        return COLUMNS * (PANEL + GAP) if self.plane else None

    def picture(self):
        key, run = self.first, self.runs[self.first]
        steps = evenly(len(run.t), COLUMNS)
        if self.plane:
            return _planes(run, steps, self.data, self.reach)
        middle = run.before.shape[1] // 2
        rows = {"x": run.before[steps, middle]}
        if "x0" in self.kinds:
            rows["x0"] = run.x0[steps, middle]
        rows = {name: np.stack([enlarge(channels(latents), TILE) for latents in row]) for name, row in rows.items()}
        if self.clips:
            rows["decoded"] = enlarge(self.clips[key][steps, middle], TILE)
        return sheet(list(rows.values()), [f"t {run.t[i]}" for i in steps], list(rows))


class SamplingRun:
    """The shown part of a run, each (s, n, 2) or (s, f, c, h, w) float32: x before and after each step, noise and x0.

    Noise, x0 and alpha_bar are None where the system has none.
    """

    def __init__(self, diffusion: Diffusion | None, start: torch.Tensor, steps: Iterable[Step], plane: bool):
        steps = list(steps)
        if not steps:
            raise UserError("runs: expected steps, found a run without any; a sampler gives its steps only once")
        self.total, self.kept = len(steps), evenly(len(steps), MOST_STEPS)
        states = [start, *(step.x for step in steps)]
        shown = [steps[i] for i in self.kept]
        self.t = [int(step.t) for step in shown]
        self.alpha_bar = None if diffusion is None else [float(diffusion.alpha_bar[t]) for t in self.t]
        self.before = _numbers([states[i] for i in self.kept], plane)
        self.after = _numbers([step.x for step in shown], plane)
        self.noise = _numbers([step.eps for step in shown], plane)
        self.x0 = _numbers([step.x0 for step in shown], plane)
        for kind in KINDS:
            if (values := getattr(self, kind)) is not None and not np.isfinite(values).all():
                raise UserError("runs: expected finite numbers, found NaN or inf in a step")  # no browser can read NaN


def _plane(start):
    """Are these points (n, 2), or latents?"""
    shape = tuple(getattr(start, "shape", ()))
    if not (len(shape) == 2 and shape[1] == 2) and not (len(shape) == 5 and shape[0] == 1):
        raise UserError(f"start: expected points (n, 2) or latents of one clip (1, c, f, h, w), found {shape}")
    return len(shape) == 2


def _numbers(states: list, plane: bool) -> np.ndarray | None:
    if any(state is None for state in states):
        return None
    stacked = torch.stack([state.detach().float().cpu() for state in states])
    if plane:
        return stacked[:, :MOST_POINTS].numpy()
    return stacked[:, 0].transpose(1, 2).contiguous().numpy()  # (s 1 c f h w) -> (s f c h w)


def _decoded(decode: Callable, latents: np.ndarray) -> np.ndarray:
    """Latents (s, f, c, h, w) of every step as pixels: uint8 (s, f, H, W, 3)."""
    return np.concatenate([decode(torch.from_numpy(one).transpose(0, 1)[None]) for one in latents])


def _scaled(values, kind):
    """Numbers as unsigned integers, and what the least and the greatest of these stand for."""
    low, high, top = float(values.min()), float(values.max()), np.iinfo(kind).max
    return ((values - low) / max(high - low, 1e-12) * top).round().astype(kind), [low, high]


def _planes(run, steps, data, reach):
    figure, axes = figures.diagram(len(steps) * (PANEL + GAP), PANEL + 26)
    for i, step in enumerate(steps):
        left = i * (PANEL + GAP)
        figures.box(axes, left, 22, PANEL, PANEL)
        figures.text(axes, left, 10, f"t {run.t[step]}" + (", after it" if step == len(run.t) - 1 else ""))
        points = run.after[step] if step == len(run.t) - 1 else run.before[step]
        for cloud, colour, size in ((data, "#bbbbbb", 2), (points, "#0072B2", 4)):
            if cloud is not None:
                at = cloud[(np.abs(cloud) <= reach).all(axis=1)] / (2 * reach) + 0.5
                axes.scatter(left + at[:, 0] * PANEL, 22 + (1 - at[:, 1]) * PANEL, s=size, c=colour, linewidths=0)
    axes.set(xlim=(0, len(steps) * (PANEL + GAP)), ylim=(PANEL + 26, 0))
    return figures.pixels(figure)
