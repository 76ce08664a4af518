"""NoiseDial: a clip and its noise under two knobs, timestep and schedule.

    x_t = √ᾱ_t · x0 + √(1 - ᾱ_t) · noise            eq. DDPM (4)

The browser computes this line itself, from the clip, one fixed noise and the schedules' alpha_bar, so the dial turns
smoothly through all timesteps: the noise grows, it does not change.

References: DDPM, Ho et al. 2020 (arXiv:2006.11239), section 2; signal-to-noise ratio: Kingma et al. 2021
(arXiv:2107.00630), section 3.1; noise shared by the frames: Ge et al. 2023 (arXiv:2305.10474), section 3.
"""

import numpy as np
import torch
import traitlets

from minit2v.diffusion.process import Diffusion
from minit2v.errors import UserError
from minit2v.lab.widgets.base import LabWidget, files, pack, to_uint8
from minit2v.lab.widgets.pictures import LIMIT, channels, enlarge, sheet
from minit2v.pixels import evenly, to_signed
from minit2v.video import Clip

COLUMNS, TILES, TILE = 6, 12, 96  # of the static picture: noise does not compress, so there are few tiles


class NoiseDial(LabWidget):
    """x_t of a clip for every timestep t and several schedules, with its signal-to-noise ratio in decibels.

    Args:
        clip: a `Clip` or uint8 (f, H, W, 3), taken as [-1, 1]; or float (c, f, h, w) or (1, c, f, h, w): pixels if
            c is 3, else latents.
        diffusions: {name: `Diffusion`} with the same number of timesteps, or one `Diffusion`.
        seed: of the noise.
        name: see `LabWidget`.
        traits: where it begins: t, schedule, frame, shared, fps of the play button.

    Synced: `t` 0..T-1, `schedule` a name, `frame` 0..f-1, `shared`: one noise for all frames, instead of one each.
    Raises UserError for another clip, for no diffusions, and for a value outside of these.
    """

    _esm = files("lab.js", "drawing.js", "latents.js", "dial.js")
    _css = files("lab.css", "panels.css")
    t = traitlets.Int(0).tag(sync=True)
    schedule = traitlets.Unicode().tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    shared = traitlets.Bool(False).tag(sync=True)
    fps = traitlets.Float(8).tag(sync=True)
    info = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)
    numbers_layout = traitlets.Dict().tag(sync=True)

    def __init__(self, clip, diffusions, name=None, seed=0, **traits):
        self.x0 = centred(clip)  # (f, c, h, w)
        diffusions = {"schedule": diffusions} if isinstance(diffusions, Diffusion) else dict(diffusions)
        lengths = {len(diffusion.alpha_bar) for diffusion in diffusions.values()}
        if len(lengths) != 1:
            raise UserError(f"diffusions: expected some, of one number of timesteps, found {sorted(lengths) or 'none'}")
        self.alpha_bar = {key: diffusion.alpha_bar.numpy() for key, diffusion in diffusions.items()}
        self.noise = torch.randn(self.x0.shape, generator=torch.Generator().manual_seed(seed)).numpy()
        self.limits = self._limits(clip)
        arrays, ranges = {}, {}
        for key in ("x0", "noise"):
            arrays[key], *ranges[key] = to_uint8(getattr(self, key))
        arrays["alpha_bar"] = np.stack(list(self.alpha_bar.values())).astype(np.float32)
        numbers, layout = pack(**arrays)
        info = {"schedules": list(diffusions), "T": lengths.pop(), "ranges": ranges, "limits": self.limits}
        traits = {"schedule": info["schedules"][0]} | traits
        super().__init__(name, info=info, numbers=numbers, numbers_layout=layout, **traits)

    def _limits(self, clip):
        """The numbers shown as black and as white, the same for every t."""
        if self.x0.shape[1] != 3:
            return [-LIMIT, LIMIT]
        if getattr(getattr(clip, "pixels", clip), "dtype", None) == np.uint8:
            return [-1.0, 1.0]  # the clip is shown as it is
        return [min(-2.0, float(self.x0.min())), max(2.0, float(self.x0.max()))]

    @traitlets.validate("t", "frame")
    def _within(self, proposal):
        count = len(self.x0) if proposal.trait.name == "frame" else len(next(iter(self.alpha_bar.values())))
        if not 0 <= proposal.value < count:
            raise UserError(f"{proposal.trait.name}: expected 0 to {count - 1}, found {proposal.value}")
        return proposal.value

    @traitlets.validate("schedule")
    def _known(self, proposal):
        if proposal.value not in self.alpha_bar:
            raise UserError(f"schedule: expected one of {', '.join(self.alpha_bar)}, found {proposal.value!r}")
        return proposal.value

    def x_t(self, t, schedule, shared=False):
        """The noisy clip that the dial shows: float32 (f, c, h, w). eq: DDPM (4)"""
        a = self.alpha_bar[schedule][t]
        noise = self.noise[:1] if shared else self.noise
        return (a**0.5 * self.x0 + (1 - a) ** 0.5 * noise).astype(np.float32)

    def describe(self):
        f, c, h, w = self.x0.shape
        return f"{f} frames of {c} x {h} x {w}, {', '.join(self.alpha_bar)}"

    def alt(self):
        return f"A frame under more and more noise, from left to right; from top to bottom {', '.join(self.alpha_bar)}."

    def picture(self):
        names, middle = list(self.alpha_bar)[:COLUMNS], len(self.x0) // 2
        times = evenly(len(self.alpha_bar[names[0]]), min(COLUMNS, TILES // len(names)))
        tiles = [[self._tile(self.x_t(t, name)[middle]) for t in times] for name in names]
        return sheet(tiles, [f"t {t}" for t in times], names)

    def _tile(self, values):
        if len(values) != 3:
            return enlarge(channels(values), TILE)
        return enlarge(np.moveaxis(to_uint8(values, *self.limits)[0], 0, -1), TILE)


def centred(clip):
    """A clip as float32 (f, c, h, w): pixels become [-1, 1], tensors (…, c, f, h, w) keep their numbers."""
    if isinstance(clip, Clip):
        clip = clip.pixels
    if isinstance(clip, np.ndarray) and clip.dtype == np.uint8 and clip.ndim == 4 and clip.shape[3] == 3:
        return to_signed(clip).numpy()
    if isinstance(clip, torch.Tensor) and clip.ndim == 5 and len(clip) == 1:
        clip = clip[0]
    if not (isinstance(clip, torch.Tensor) and clip.ndim == 4 and clip.is_floating_point() and clip.numel()):
        raise UserError("clip: expected a Clip, uint8 (f, H, W, 3) or a float tensor (c, f, h, w), found "
                        f"{type(clip).__name__} {tuple(getattr(clip, 'shape', ()))}")
    return clip.detach().float().cpu().transpose(0, 1).contiguous().numpy()  # (c f h w) -> (f c h w)
