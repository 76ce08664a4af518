"""Specifications become frames: paths, groups of things, backgrounds.

    +--------- picture ---------+
    |   +-- box of a path --+   |      The box around the path of a group lies anywhere in the picture with
    |   | o . . . . . . > o |   |      equal chance, all of it inside: a place of 0..1 says where in the
    |   +-------------------+   |      free room.
    +---------------------------+

Lengths are picture widths, times are frames (8 a second); x runs right and y runs down.
"""

from functools import lru_cache
from typing import Annotated

import numpy as np

from minit2v.datasets.moving_things.captions import Spec
from minit2v.datasets.moving_things.render import COLOURS, SHAPES, paint
from minit2v.errors import UserError
from minit2v.ranges import Array, Size, public

RADIUS = {"small": 0.13, "large": 0.20}  # picture widths; of a thing that grows or shrinks, the largest
SPEED = {"slowly": 0.019, "quickly": 0.038}  # picture widths a frame
# Large and quick just fits into 16 frames, 2 * 0.20 + 15 * 0.038 < 1, and large and slow into 32.
CROWD_RADIUS, CROWD_SPEED = 0.5, 0.75  # factors on them where there are several things, so that these fit too
GAP = 0.02  # between two things of a group
CIRCLE = 15 * SPEED["quickly"] / (2 * np.pi)  # radius of a circular path: quickly is one turn in 15 steps
BOUNCE = 15 * SPEED["quickly"] / 4  # height of a bounce: quickly is two bounces in 15 steps
BLINK, DIM = 2, 0.3  # a blinking thing has its full colour for 2 frames, then 0.3 of it for 2
BACKGROUND, STRIPE = 24, 56  # grey levels
BANDS = 8  # stripes or squares along the picture

_D = 0.5**0.5
DIRECTIONS = {
    "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1),
    "up-left": (-_D, -_D), "up-right": (_D, -_D), "down-left": (-_D, _D), "down-right": (_D, _D),
}  # fmt: skip
SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
CHUNK = 32  # frames drawn at once: more do not fit into the processor's cache and take twice the time each


@public
def render(
    specs: list[Spec], places: Annotated[np.ndarray, Array("b 3", finite=True)], size: Size, frames: Size,
    photos: np.ndarray | None = None,
) -> np.ndarray:
    """The clips (b, frames, size, size, 3) uint8 of complete specs.

    places (b, 3), 0..1: where the path lies (x, y), and where on a circle or in a bounce it begins.
    photos (b, k, k), 0..1: drawn instead of the shapes. Raises UserError for a spec without shape, size or speed.

    >>> from minit2v.datasets.moving_things import parse
    >>> spec = parse("a small red circle moves slowly left")
    >>> render([spec], np.array([[0.5, 0.5, 0]]), size=32, frames=8).shape
    (1, 8, 32, 32, 3)
    """
    for thing in (thing for spec in specs for thing in spec.things):
        moving = thing.motion not in (None, "stays")
        if thing.shape is None or thing.size is None or moving and thing.speed is None:
            raise UserError(f"expected a shape, a size and, in motion, a speed, found {thing}: say all")
    clips = np.empty((len(specs), frames, size, size, 3), np.uint8)
    for clip, spec in zip(clips, specs, strict=True):
        clip[:] = background(spec.background, size)
    at_once = max(1, CHUNK // frames)
    for start in range(0, len(specs), at_once):
        part = slice(start, start + at_once)
        _paint(clips[part], specs[part], places[part], None if photos is None else photos[part])
    return clips


def _paint(clips: np.ndarray, specs: list[Spec], places: np.ndarray, photos: np.ndarray | None) -> None:
    frames, size = clips.shape[1:3]
    scenes = [scene(spec, place, frames) for spec, place in zip(specs, places, strict=True)]
    for layer in range(max(len(centre) for centre, _, _ in scenes)):  # later things lie over earlier ones
        has = [i for i, (centre, _, _) in enumerate(scenes) if layer < len(centre)]
        things = [specs[i].things[min(layer, len(specs[i].things) - 1)] for i in has]
        under = clips if len(has) == len(clips) else clips[has]
        paint(
            under,
            shape=np.array([SHAPES.index(thing.shape) if photos is None else 0 for thing in things]),
            colour=np.array([COLOURS[thing.colour or "white"] for thing in things]),
            centre=np.stack([scenes[i][0][layer] for i in has]),
            radius=np.stack([scenes[i][1][layer] for i in has]),
            opacity=np.stack([scenes[i][2] for i in has]),
            photos=photos,
        )
        if under is not clips:
            clips[has] = under


def scene(spec: Spec, place: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The n things of a spec in each frame: centres (n, frames, 2), radii (n, frames), opacity (frames,)."""
    first = spec.things[0]
    crowd = len(spec.things) > 1 or spec.count > 1
    smaller, slower = (CROWD_RADIUS, CROWD_SPEED) if crowd else (1, 1)
    radius = smaller * np.array([RADIUS[thing.size] for thing in spec.things] * spec.count)
    speed = slower * SPEED.get(first.speed, 0)
    offset = arrange(spec, radius)
    moved = path(first.motion, spec.then, speed, frames, place[2])
    low = (offset - radius[:, None]).min(0) + moved.min(0)
    high = (offset + radius[:, None]).max(0) + moved.max(0)
    origin = -low + place[:2] * (1 - (high - low))
    scale, opacity = changed(first.change, frames)
    return origin + offset[:, None] + moved, radius[:, None] * scale, opacity


def path(motion: str | None, then: str | None, speed: float, frames: int, phase: float) -> np.ndarray:
    """Displacement from an arbitrary origin in each frame, (frames, 2)."""
    time = np.arange(frames)
    if motion in DIRECTIONS:
        turn = (frames - 1) / 2 if then else frames
        leg = np.multiply.outer(np.minimum(time, turn), DIRECTIONS[motion])
        if then:
            leg = leg + np.multiply.outer(np.maximum(time - turn, 0), DIRECTIONS[then])
        return speed * leg
    if motion in ("clockwise", "counter-clockwise"):
        sign = 1 if motion == "clockwise" else -1  # y runs down, so a growing angle turns clockwise
        angle = 2 * np.pi * phase + sign * speed / CIRCLE * time
        return CIRCLE * np.stack([np.cos(angle), np.sin(angle)], -1)
    if motion == "bounces":
        height = BOUNCE * np.abs(np.sin(np.pi * (phase + speed / (2 * BOUNCE) * time)))
        return np.stack([np.zeros(frames), -height], -1)
    return np.zeros((frames, 2))


def arrange(spec: Spec, radius: np.ndarray) -> np.ndarray:
    """Where the things of a group lie, (n, 2): in their relation, or in a row across the motion."""
    if spec.relation:
        apart = radius.sum() + GAP
        return np.array([SIDES[spec.relation], (0, 0)]) * apart
    places = np.arange(spec.count) * (2 * radius[0] + GAP)
    return np.multiply.outer(places, (0, 1) if spec.things[0].motion in ("left", "right") else (1, 0))


def changed(change: str | None, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Factor on the radius and opacity in each frame, both (frames,)."""
    scale, opacity = np.ones(frames), np.ones(frames)
    if change == "grows":
        scale = np.linspace(0.5, 1, frames)
    elif change == "shrinks":
        scale = np.linspace(1, 0.5, frames)
    elif change == "blinks":
        opacity = np.where(np.arange(frames) // BLINK % 2, DIM, 1.0)
    return scale, opacity


@lru_cache
def background(name: str | None, size: int) -> np.ndarray:
    """A picture (size, size, 3) uint8 to draw on: dark (also for None), striped or checkered."""
    band = np.arange(size) * BANDS // size
    light = {"striped": band % 2 + 0 * band[:, None], "checkered": (band + band[:, None]) % 2}.get(name, 0)
    grey = np.where(light, STRIPE, BACKGROUND) * np.ones((size, size))
    return np.repeat(grey[..., None].astype(np.uint8), 3, axis=-1)
