"""Feature networks of the metrics: small, trained on Moving Things by ``minit2v train metrics``, shipped.

    clips uint8 (n f H W 3) ─ resize ─> (n 3 f 32 32) ─ ClipNet ──> (n 64)     "motion" (FVD-mini), "content"
                                                       ─ FrameNet ─> (n f 64)  "frame" (FID-vid)
    four stages of 16, 32, 48 and 64 channels, each halves height and width, the last two halve time as well
    (2+1)D:  3x3 within a frame ─> norm, ReLU ─> 3 taps along time, instead of one 3x3x3 convolution

A Fréchet distance sees what its features see. "motion" was trained to predict shape, colour, size, direction and speed,
and how severely a clip was damaged: its pictures (noise, blur, ...) and its time (frozen, shuffled, ...; see
`minit2v.evaluation.mini.damage`). "content" was trained on shape and colour of undamaged clips only: it shows what a
metric misses whose features never had to see time (the content bias of FVD, arXiv 2404.12391). Neither sees a reversal:
a straight motion played backwards is another valid clip, so the distribution is the same. The judge and `similarity`
compare each clip with its text.

References: R(2+1)D, arXiv 1711.11248, sections 3.1 and 3.5 (middle width); residual blocks, arXiv 1512.03385; FVD,
arXiv 1812.01717; FID, arXiv 1706.08500.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minit2v.checkpoints.folder import load_into
from minit2v.datasets.moving_things.dataset import FOUR
from minit2v.datasets.moving_things.render import COLOURS, SHAPES
from minit2v.datasets.moving_things.scenes import RADIUS, SPEED
from minit2v.errors import UserError
from minit2v.files import data_dir
from minit2v.networks.blocks import clip_view, frame_view
from minit2v.pixels import to_signed

SIZE = 32  # height and width that the networks see, pixels
CHANNELS = (16, 32, 48, 64)  # of the four stages
TIME_STRIDES = (1, 1, 2, 2)  # by how much each stage shortens a clip
WIDTH = CHANNELS[-1]  # of the features
BATCH = 64  # clips at a time
MOVE = 10.0  # distance that the features move, at least, under the greatest damage

VALUES = {  # attribute -> its values, in the order of the logits
    "shape": SHAPES, "colour": tuple(COLOURS), "size": tuple(RADIUS),
    "motion": FOUR, "speed": tuple(SPEED),
}  # fmt: skip
TO_PICTURES = ("noise", "blur", "colour", "occlusion", "warp")  # damage of each frame alone
TO_TIME = ("flicker", "freeze", "shuffle", "jitter", "drop", "shake", "wobble", "switch")  # damage from frame to frame
HEADS = {  # network -> attributes and kinds of damage that it predicts
    "motion": (tuple(VALUES), TO_PICTURES + TO_TIME),
    "content": (("shape", "colour"), ()),
    "frame": (("shape", "colour", "size"), TO_PICTURES),
}


class FactoredConv(nn.Module):
    """A 3x3x3 convolution as 3x3 within a frame, norm, ReLU, and 3 taps along time: ``(b f, c_in, h, w), f -> ...``.

    The middle width gives both together as many weights as the one has (arXiv 1711.11248, section 3.5). Without
    `time_stride` it is the 3x3 convolution alone.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, time_stride: int | None):
        super().__init__()
        middle = 27 * c_in * c_out // (9 * c_in + 3 * c_out) if time_stride else c_out
        self.space = nn.Conv2d(c_in, middle, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(middle)
        self.time = self.time_norm = None
        if time_stride:  # kernel (3, 1) over (f, h w) is a Conv3d of kernel (3, 1, 1), and fast; see `blocks`
            self.time = nn.Conv2d(middle, c_out, (3, 1), (time_stride, 1), padding=(1, 0), bias=False)
            self.time_norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor, f: int) -> tuple[Tensor, int]:
        """Convolved frames, without a ReLU at the end, and the number of frames a clip has now."""
        x = self.norm(self.space(x))
        if self.time is None:
            return x, f
        h = self.time_norm(self.time(clip_view(F.relu(x), f)))  # ((b f) c h w) -> (b c f (h w))
        return frame_view(h, x), h.shape[2]


class Stage(nn.Module):
    """A convolution of stride 2, then a residual one: ``(b f, c_in, h, w), f -> (b f', c_out, h / 2, w / 2), f'``."""

    def __init__(self, c_in: int, c_out: int, time_stride: int | None):
        super().__init__()
        self.halve = FactoredConv(c_in, c_out, 2, time_stride)
        self.refine = FactoredConv(c_out, c_out, 1, time_stride and 1)

    def forward(self, x: Tensor, f: int) -> tuple[Tensor, int]:
        x, f = self.halve(x, f)
        x = F.relu(x)
        h, f = self.refine(x, f)
        return F.relu(x + h), f


class _Network(nn.Module):
    """Four stages, and linear heads on the mean of their output."""

    def __init__(self, attributes: tuple[str, ...], damages: tuple[str, ...], in_time: bool):
        super().__init__()
        strides = TIME_STRIDES if in_time else (None,) * 4
        widths = (3, *CHANNELS)
        self.stages = nn.ModuleList(Stage(*sizes) for sizes in zip(widths, CHANNELS, strides))
        self.linear = nn.ModuleDict({name: nn.Linear(WIDTH, len(VALUES[name])) for name in attributes})
        self.damages = damages
        self.damage = nn.Linear(WIDTH, len(damages)) if damages else None

    def heads(self, features: Tensor) -> dict[str, Tensor]:
        """Predicts from features (n, 64): logits (n, values) of each attribute, in the order of VALUES, and the
        severity (n,) of each kind of damage as "damage: kind", near 0 for none and near 1 for the greatest.

        A severity is the features' coordinate along a unit vector, in units of MOVE. With a free scale the network
        could learn large weights and barely move its features: a Fréchet distance would not notice the damage.
        """
        logits = {name: linear(features) for name, linear in self.linear.items()}
        if self.damages:
            severity = F.linear(features, F.normalize(self.damage.weight) / MOVE, self.damage.bias)
            logits |= zip((f"damage: {kind}" for kind in self.damages), severity.unbind(1))
        return logits

    def _frames(self, frames: Tensor, f: int) -> tuple[Tensor, int]:
        """Mean over the pixels after the last stage: (b f, 3, H, W) -> (b f', 64), f'."""
        x = frames.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x, f = stage(x, f)
        return x.mean((2, 3)), f


class ClipNet(_Network):
    """R(2+1)D of 0.35 million parameters: clips (b, 3, f, H, W) in [-1, 1] -> features (b, 64).

    >>> net = ClipNet(("shape", "motion"), ("noise",)).eval()
    >>> features = net(torch.zeros(2, 3, 16, 32, 32))
    >>> features.shape, {name: tuple(logits.shape) for name, logits in net.heads(features).items()}
    (torch.Size([2, 64]), {'shape': (2, 8), 'motion': (2, 4), 'damage: noise': (2,)})
    """

    def __init__(self, attributes: tuple[str, ...], damages: tuple[str, ...] = ()):
        super().__init__(attributes, damages, in_time=True)

    def forward(self, clips: Tensor) -> Tensor:
        b, _, f = clips.shape[:3]
        x, f = self._frames(clips.transpose(1, 2).flatten(0, 1), f)  # (b 3 f H W) -> ((b f) 3 H W)
        return x.unflatten(0, (b, f)).mean(1)  # ((b f) c) -> (b c)


class FrameNet(_Network):
    """The same network without time, 0.12 million parameters: frames (n, 3, H, W) in [-1, 1] -> features (n, 64)."""

    def __init__(self, attributes: tuple[str, ...], damages: tuple[str, ...] = ()):
        super().__init__(attributes, damages, in_time=False)

    def forward(self, frames: Tensor) -> Tensor:
        return self._frames(frames, 1)[0]


def build(name: str) -> ClipNet | FrameNet:
    """A freshly initialised network, by its name in HEADS."""
    return (FrameNet if name == "frame" else ClipNet)(*HEADS[name])


def check_clips(clips: np.ndarray, frames: int = 1) -> np.ndarray:
    """Returns clips (n, f, H, W, 3) uint8 unchanged. Raises UserError for another layout and for f below `frames`."""
    layout = getattr(clips, "ndim", 0) == 5 and clips.shape[-1] == 3 and clips.dtype == np.uint8
    if not layout or 0 in clips.shape or clips.shape[1] < frames:
        wanted = "clips (n, f, H, W, 3) of uint8" + (f" with f of {frames} or more" if frames > 1 else "")
        found = f"{clips.shape} of {clips.dtype}" if isinstance(clips, np.ndarray) else type(clips).__name__
        raise UserError(f"expected {wanted}, found {found}; stack and convert them")
    return clips


def resize(clips: np.ndarray, size: int = SIZE) -> Tensor:
    """Area average of clips uint8 (n, f, H, W, 3): float32 (n, 3, f, size, size), 0 to 255.

    A new pixel is the mean over exactly the area that it covers, so no detail turns into a false pattern, whatever the
    sizes. All networks of this scale see real and sampled clips through this function, as FID changes with the method
    of resizing (arXiv 2104.11222). The judge and `motion` average whole blocks of pixels instead, and `full_scale`
    resizes as the literature does.

    >>> resize(np.arange(48, dtype=np.uint8).reshape(1, 1, 4, 4, 3), 2)[0, 0, 0]
    tensor([[ 7.5000, 13.5000],
            [31.5000, 37.5000]])
    """
    x = check_clips(clips).transpose(0, 4, 1, 2, 3)  # (n f H W 3) -> (n 3 f H W)
    return shrink(torch.from_numpy(np.ascontiguousarray(x)).float(), size)


def shrink(x: Tensor, size: int = SIZE) -> Tensor:
    """The same area average for floats (..., H, W)."""
    H, W = x.shape[-2:]
    return x if (H, W) == (size, size) else _shares(size, H) @ x @ _shares(size, W).T


def _shares(new: int, old: int) -> Tensor:
    """(new, old): the share of the new pixel i that comes from the old pixel j, by the length of their overlap."""
    edge = torch.arange(new + 1, dtype=torch.float64) * old / new
    pixel = torch.arange(old, dtype=torch.float64)
    overlap = torch.minimum(edge[1:, None], pixel + 1) - torch.maximum(edge[:-1, None], pixel)
    return (overlap.clamp(min=0) * new / old).float()


def signed(resized: Tensor) -> Tensor:
    """Clips (n, 3, f, H, W) from 0..255 to [-1, 1]."""
    return to_signed(resized.movedim(1, -1)).transpose(1, 2)  # (n f H W 3) -> (n f 3 H W) -> (n 3 f H W)


def weights_of(name: str) -> Path:
    """Path of the shipped weights of a metric's network. Raises UserError if they are missing."""
    path = data_dir() / "metrics" / f"{name}.safetensors"
    if not path.is_file():
        todo = f"run minit2v train metrics --out {path.parent}"
        raise UserError(f"expected the weights of a metric, found no {path}; {todo}")
    return path


@lru_cache
def load(name: str) -> ClipNet | FrameNet:
    """The shipped network of a name in HEADS, in evaluation mode.

    Raises UserError for another name or missing weights.
    """
    if name not in HEADS:
        raise UserError(f"unknown network {name!r}; known are {', '.join(HEADS)}")
    return load_into(build(name), weights_of(name)).eval()


@torch.inference_mode()
def extract(network: ClipNet | FrameNet, clips: np.ndarray) -> np.ndarray:
    """Features of clips uint8 (n, f, H, W, 3) by a network in evaluation mode, float64: (n, 64), or (n, f, 64) of a
    FrameNet. Raises UserError for anything but clips."""
    parts = []
    for start in range(0, len(check_clips(clips)), BATCH):
        x = signed(resize(clips[start : start + BATCH]))
        if isinstance(network, FrameNet):
            b, f = len(x), x.shape[2]
            parts.append(network(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, f)))  # (b 3 f H W) -> (b f 64)
        else:
            parts.append(network(x))
    return torch.cat(parts).double().numpy()
