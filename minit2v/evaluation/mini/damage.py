"""Damage to clips, each kind with a severity from 0 (none) to 1: the metrics' networks learn to see it.

    which frame is shown  switch, freeze, shuffle, jitter, drop      ─┐
    where a pixel lies    warp (all frames alike), shake, wobble      ├─> clip, damaged in this order
    what it looks like    blur, colour, flicker, occlusion, noise    ─┘

This is for training: on tensors, many kinds in one batch. The metrics are validated with other code, in
`validity.corruptions`, so that no network is tested on the very damage that it was trained on.

References: the content bias that makes damage of time necessary, arXiv 2404.12391, section 3; elastic warps, Simard,
Steinkraus and Platt, ICDAR 2003, section 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS_DRAWN = (0.7, 0.4)  # chance of a first and of a second kind of damage in a clip
NOISE = 0.3  # standard deviation at severity 1, of 2 between black and white
BLUR = 0.06  # likewise, in picture widths
COLOUR = 0.5  # likewise, of the matrix that mixes the channels
FLICKER = 0.5  # likewise, of the brightness of a frame
COVERED = 0.5  # side of the occluding square at severity 1, picture widths
SHIFT = 0.15  # standard deviation of the shifts of warps and shakes at severity 1, of 2 between the borders
KNOTS = 4  # along each side of the grid on which a warp is drawn
JITTER = 4.0  # standard deviation of the time of a jittered frame at severity 1, frames


def draw_severities(n: int, kinds: tuple[str, ...], generator: torch.Generator) -> dict[str, Tensor]:
    """Draws severities for n clips: {kind: (n,) in 0..1}, mostly 0; one kind for most clips, two for some."""
    severity = torch.zeros(n, len(kinds))
    for chance in KINDS_DRAWN:
        kind = torch.randint(len(kinds), (n, 1), generator=generator)
        drawn = (torch.rand(n, 1, generator=generator) < chance) * torch.rand(n, 1, generator=generator)
        severity.scatter_reduce_(1, kind, drawn, "amax")
    return dict(zip(kinds, severity.unbind(1)))


def damage(clips: Tensor, severity: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Damaged copies of clips (b, 3, f, H, W) in [-1, 1]; severity: {kind: (b,) in 0..1}."""
    clips, others = clips.clone(), clips.roll(1, 0)
    if "switch" in severity:
        clips = _switched(clips, others, severity["switch"])
    for kinds, apply in ((TIMES, _at_times), (SHIFTS, _shifted), (LOOKS, lambda x, s, look, g: look(x, s, g))):
        for kind, how in kinds.items():
            some = severity[kind].nonzero()[:, 0] if kind in severity else []
            if len(some):
                clips[some] = apply(clips[some], severity[kind][some], how, generator)
    return clips.clamp(-1, 1)


def _switched(clips: Tensor, others: Tensor, severity: Tensor) -> Tensor:
    """Replaces the end of a clip, at most half of it, by that of another clip."""
    f = clips.shape[2]
    now = torch.arange(f) >= ((1 - severity / 2) * f)[:, None]
    return torch.where(now[:, None, :, None, None], others, clips)


def _at_times(clips: Tensor, severity: Tensor, times, generator: torch.Generator) -> Tensor:
    b, _, f = clips.shape[:3]
    shown = times(torch.arange(f).expand(b, f), severity[:, None], generator).clamp(0, f - 1)
    return clips.gather(2, shown[:, None, :, None, None].expand_as(clips))


def freeze(t: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Time stops; the greater the severity, the earlier."""
    return torch.minimum(t, ((1 - severity) * (t.shape[1] - 1)).round().long())


def shuffle(t: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Frames are sorted by their times plus noise, so they change places within a range."""
    return (t + severity * t.shape[1] * torch.rand(t.shape, generator=generator)).argsort(1)


def jitter(t: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Each frame is taken from a time somewhat earlier or later."""
    return (t + severity * JITTER * torch.randn(t.shape, generator=generator)).round().long()


def drop(t: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Frames are missing, and the one before is shown instead."""
    kept = torch.rand(t.shape, generator=generator) >= severity
    return torch.where(kept, t, 0).cummax(1).values


def _shifted(clips: Tensor, severity: Tensor, shape: tuple, generator: torch.Generator) -> Tensor:
    """Shifts every pixel by a smooth random field; shape: a row of SHIFTS."""
    b, c, f, H, W = clips.shape
    frames, knots = f if shape[0] else 1, shape[1]
    shift = torch.randn(b * frames, 2, knots, knots, generator=generator)
    shift = F.interpolate(shift, (H, W), mode="bicubic", align_corners=True).unflatten(0, (b, frames))
    shift = (SHIFT * severity[:, None, None, None, None] * shift).expand(b, f, 2, H, W).flatten(0, 1)
    unshifted = F.affine_grid(torch.eye(2, 3).expand(b * f, 2, 3), (b * f, c, H, W), align_corners=False)
    grid = unshifted + shift.permute(0, 2, 3, 1)  # (n 2 H W) -> (n H W 2)
    moved = F.grid_sample(clips.transpose(1, 2).flatten(0, 1), grid, padding_mode="border", align_corners=False)
    return moved.unflatten(0, (b, f)).transpose(1, 2)  # ((b f) c H W) -> (b c f H W)


def blur(x: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    pixel = torch.arange(x.shape[-1])
    width = (BLUR * x.shape[-1] * severity)[:, None, None] + 1e-3
    kernel = torch.exp(-((pixel[:, None] - pixel) ** 2) / (2 * width**2))
    kernel = (kernel / kernel.sum(-1, keepdim=True))[:, None, None]  # (b H H) -> (b 1 1 H H)
    return kernel @ x @ kernel.mT


def colour(x: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    mix = torch.eye(3) + COLOUR * severity[:, None, None] * torch.randn(len(x), 3, 3, generator=generator)
    return torch.einsum("bij,bjfhw->bifhw", mix, x + 1) - 1  # on light, which is 0 for black


def flicker(x: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    bright = torch.randn(len(x), 1, x.shape[2], 1, 1, generator=generator)
    return (x + 1) * (FLICKER * severity[:, None, None, None, None] * bright).exp() - 1


def occlusion(x: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """A resting square hides part of the scene: of any colour in half of the clips, else of the corner's."""
    side = (COVERED * severity)[:, None]
    corner = torch.rand(len(x), 2, generator=generator) * (1 - side)
    place = (torch.arange(x.shape[-1]) + 0.5) / x.shape[-1]
    down, across = ((place > corner[:, i, None]) & (place < corner[:, i, None] + side) for i in (0, 1))
    covered = (down[:, :, None] & across[:, None, :])[:, None, None]  # (b H W) -> (b 1 1 H W)
    shade = 2 * torch.rand(len(x), 3, 1, 1, 1, generator=generator) - 1
    plain = torch.rand(len(x), 1, 1, 1, 1, generator=generator) < 0.5
    shade = torch.where(plain, x[:, :, :1, :1, :1], shade)
    return torch.where(covered, shade, x)


def noise(x: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    return x + NOISE * severity[:, None, None, None, None] * torch.randn(x.shape, generator=generator)


TIMES = {"freeze": freeze, "shuffle": shuffle, "jitter": jitter, "drop": drop}
SHIFTS = {"warp": (False, KNOTS), "shake": (True, 1), "wobble": (True, KNOTS)}  # one field a frame?, knots a side
LOOKS = {"blur": blur, "colour": colour, "flicker": flicker, "occlusion": occlusion, "noise": noise}
