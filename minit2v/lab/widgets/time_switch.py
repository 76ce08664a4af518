"""TimeSwitch: clips of one seed with temporal layers on and off, in the same place, and how much each flickers.

    ┌────────┐   ( on ) ( no convolution ) ( no attention ) ( off )      one frame at a time, one switch
    │ frame  │   change from this frame to the next, grey levels
    └────────┘    │╲_╱╲╱‾‾   a line for each clip                        only change that no motion explains
    frame ──●──   └───────

Everything is computed beforehand, so the switch answers at once and without the kernel. `silenced` makes a model whose
temporal layers of some kinds are the identity; its weights are those of the model it is given.

References: flicker as in `minit2v.evaluation.motion`; temporal layers skipped as for pictures: ModelScopeT2V,
arXiv 2308.06571, section 3.3.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import traitlets
from torch import Tensor

from minit2v.errors import UserError
from minit2v.evaluation import finding, motion
from minit2v.lab.course.swapping import swap
from minit2v.lab.pictures import stack
from minit2v.lab.widgets import figures
from minit2v.lab.widgets.base import LabWidget, files, pack
from minit2v.lab.widgets.pictures import enlarge, sheet
from minit2v.networks import blocks
from minit2v.pixels import evenly
from minit2v.recording.sheets import atlas
from minit2v.systems.pipeline import TextToVideo
from minit2v.video import Clip

KINDS = {"convolution": "TemporalConv", "attention": "TemporalTransformer"}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # as in drawing.js
COLUMNS, TILE = 8, 64  # of the static picture: frames, pixels


@contextmanager
def silenced(pipe: TextToVideo, *kinds: str) -> Iterator[TextToVideo]:
    """A model like `pipe` whose temporal layers of the given kinds ("convolution", "attention") return their input.

    Use it within the block. Raises UserError for another kind.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"silenced: expected kinds of {', '.join(KINDS)}, found {unknown[0]!r}")
    with swap(pipe, **{KINDS[kind]: _silent(getattr(blocks, KINDS[kind])) for kind in kinds}) as swapped:
        yield swapped


def _silent(layer: type) -> type:
    class Silent(layer):
        def forward(self, x: Tensor, f: int) -> Tensor:
            return x

    Silent.__name__ = layer.__name__
    return Silent


def flickering(pixels: np.ndarray) -> np.ndarray:
    """Change from each frame to the next that no motion explains, grey levels: uint8 (f, H, W, 3) -> (f - 1,).

    Its mean is the "flicker" of `evaluation.motion`.
    """
    clip = finding.pooled(pixels)
    return np.array([motion.flicker(clip[i : i + 2]) for i in range(len(clip) - 1)])


class TimeSwitch(LabWidget):
    """Clips of one seed in the same place: switch between them, and compare how much they flicker.

    Args:
        clips: {name: a `Clip` or uint8 (f, H, W, 3)}, 2 to 6 of one size with at least 3 frames; the first is the
            whole model's.
        fps: frames a second of the play button.
        name: see `LabWidget`.
        traits: where it begins: shown, frame.

    Synced: `shown` a name, `frame` 0..f-1. Raises UserError for other clips, and for a value outside of these.
    """

    _esm = files("lab.js", "drawing.js", "latents.js", "time_switch.js")
    _css = files("lab.css", "panels.css")
    shown = traitlets.Unicode().tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    tiles = traitlets.Bytes().tag(sync=True)
    tiles_layout = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    numbers_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, clips: Mapping, fps: float = 8, name: str | None = None, **traits):
        self.clips = _clips(clips)
        self.flicker = {key: flickering(pixels) for key, pixels in self.clips.items()}
        pixels = np.stack(list(self.clips.values()))
        measured = motion.measure(pixels)
        self.figures = {key: {figure: float(values[i]) for figure, values in measured.items()}
                        for i, key in enumerate(self.clips)}  # fmt: skip
        tiles, tiles_layout = atlas(pixels.reshape(-1, *pixels.shape[2:]))  # (n f H W 3) -> ((n f) H W 3)
        numbers, numbers_layout = pack(flicker=np.stack(list(self.flicker.values())).astype(np.float32))
        info = {"names": list(self.clips), "frames": pixels.shape[1], "fps": float(fps), "figures": self.figures}
        super().__init__(name, info=info, tiles=tiles, tiles_layout=tiles_layout, numbers=numbers,
                         numbers_layout=numbers_layout, **({"shown": info["names"][0]} | traits))

    @traitlets.validate("shown")
    def _known(self, proposal):
        if proposal.value not in self.clips:
            raise UserError(f"shown: expected one of {', '.join(self.clips)}, found {proposal.value!r}")
        return proposal.value

    @traitlets.validate("frame")
    def _within(self, proposal):
        last = len(next(iter(self.clips.values()))) - 1
        if not 0 <= proposal.value <= last:
            raise UserError(f"frame: expected 0 to {last}, found {proposal.value}")
        return proposal.value

    def describe(self):
        return f"{', '.join(self.clips)}; {len(next(iter(self.clips.values())))} frames"

    def alt(self):
        return (f"Frames of one seed from left to right, a row each: {', '.join(self.clips)}. Below, how much each clip "
                "changes from frame to frame in a way that no motion explains.")  # fmt: skip

    def picture(self):
        frames = len(next(iter(self.clips.values())))
        chosen = evenly(frames, COLUMNS)
        rows = [[enlarge(pixels[i], TILE) for i in chosen] for pixels in self.clips.values()]
        return stack([sheet(rows, [f"frame {i + 1}" for i in chosen], list(self.clips)), self._chart()])

    def _chart(self, width: int = 520, height: int = 170) -> np.ndarray:
        """Flicker from frame to frame, a line for each clip, uint8 (H, W, 3)."""
        figure, axes = figures.diagram(width, height)
        left, right, top, bottom = 44, width - 180, 24, height - 22
        most = max(float(values.max()) for values in self.flicker.values()) or 1.0
        figures.text(axes, left, 10, "flicker from frame to frame, grey levels", weight="bold")
        figures.box(axes, left, top, right - left, bottom - top)
        for value, y in ((most, top), (0, bottom)):
            figures.text(axes, left - 4, y, f"{value:.2g}", 11, figures.FAINT, "right")
        for i, (name, values) in enumerate(self.flicker.items()):
            across = np.linspace(left, right, len(values))
            axes.plot(across, bottom - values / most * (bottom - top), color=PALETTE[i], linewidth=1.4)
            told = f"{name}: {self.figures[name]['flicker']:.2g}"
            figures.text(axes, right + 8, top + 8 + 18 * i, told, 11, PALETTE[i])
        figures.text(axes, (left + right) / 2, bottom + 12, "frame", 11, figures.FAINT, "center")
        return figures.pixels(figure)


def _clips(clips: Mapping) -> dict[str, np.ndarray]:
    """The pixels of each clip by name. Raises UserError for what cannot be compared."""
    found = {str(name): np.asarray(clip.pixels if isinstance(clip, Clip) else clip) for name, clip in dict(clips).items()}
    shapes = {pixels.shape for pixels in found.values()}
    fits = len(shapes) == 1 and all(pixels.dtype == np.uint8 for pixels in found.values())
    shape = next(iter(shapes), ())
    if not (2 <= len(found) <= len(PALETTE) and fits and len(shape) == 4 and shape[0] >= 3 and shape[-1] == 3):
        raise UserError(f"TimeSwitch: expected 2 to {len(PALETTE)} clips of one size, uint8 (f, H, W, 3) with 3 frames or "
                        f"more, found {len(found)} of {sorted(shapes)}")  # fmt: skip
    return found
