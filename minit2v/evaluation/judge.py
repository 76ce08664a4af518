"""Reads shape, colour, size, direction and speed of one moving thing from pixels, without learning.

    clip ─> background ─> where it is ─> its colour ─> centroids ─────────────> line fit ───> direction, speed
            (median)      (threshold,    (cosine to        │
                           window)        palette)         └──> align, average ─> template ─> shape, size

A learnt judge is blind to what its training never showed, and a generator can be trained to please it; this one can be
read line by line. It abstains (None, which counts as wrong) rather than guess: when the picture is empty or noise, when
it shows more than one thing, and when a thing changes or does not move steadily:

* colour, shape and size are read in the first, middle and last third separately, and must agree;
* the velocities of the two halves must agree, so a thing that stops half-way does not "move".

It reads level 1 of Moving Things; `finding` has the steps up to the centroids. Lengths are in picture widths, so that
one set of constants serves every picture size.

References: text-to-video models tested on drawn shapes, whose truth is known: TFGAN, Balaji et al., Conditional GAN
with Discriminative Filter Generation, IJCAI 2019.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product

import numpy as np

from minit2v.datasets.moving_things.captions import Spec, Thing
from minit2v.datasets.moving_things.dataset import FOUR
from minit2v.datasets.moving_things.render import COLOURS, SHAPES
from minit2v.datasets.moving_things.scenes import RADIUS, SPEED, render
from minit2v.errors import UserError
from minit2v.evaluation.finding import locate, mean_look, median_colour, pooled
from minit2v.pixels import Frames
from minit2v.ranges import public

PRESENT = 7 / 8  # least share of frames that show one thing: 14 of 16
COLOUR_COSINE = 0.95  # least cosine to the nearest colour of the palette
COLOUR_PURITY = 0.85  # least length of the mean colour over the mean length: 1 where there is one colour only
CORRELATION = 0.80  # least correlation with the nearest template
RESIDUAL = 0.10  # greatest root mean square distance from the line, in units of the distance travelled
HALVES = 0.40  # greatest difference between the velocities of the halves, in units of the speed
SIDEWAYS = 0.50  # greatest speed across the direction, in units of that along it: 27 degrees
BLURS = (0.0, 0.022, 0.038)  # of the templates, standard deviation in widths: 0, 0.7 and 1.2 pixels of 32


@dataclass(frozen=True)
class Reading:
    """What the judge reads from a clip; None where it abstains."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    motion: str | None = None  # left, right, up or down
    speed: str | None = None  # slowly or quickly


ATTRIBUTES = tuple(field.name for field in fields(Reading))


@public
def read(frames: Frames) -> Reading:
    """Reads the attributes of the one thing in a clip, frames (f, H, W, 3) uint8.

    Raises UserError for an array of another shape or type.

    >>> read(np.zeros((16, 64, 64, 3), np.uint8))
    Reading(shape=None, colour=None, size=None, motion=None, speed=None)
    """
    scene = _Scene(frames)
    if len(scene.times) < PRESENT * len(frames):
        return Reading()
    shapes, colours, sizes = zip(*map(scene.looks, np.array_split(scene.times, min(3, len(scene.times)))))
    motion, speed = _motion(scene.times, scene.centre[scene.times] / scene.width)
    return Reading(_agreed(shapes), _agreed(colours), _agreed(sizes), motion, speed)


@public
def unsteady(frames: Frames) -> dict[str, bool]:
    """Whether the thing of a clip (f, H, W, 3) uint8 looks otherwise in some frame than in another: {"colour changes",
    "shape breaks"}, the latter also where a frame shows no known shape. A clip in which nothing is found is steady."""
    scene = _Scene(frames)
    looks = [scene.looks(scene.times[i : i + 1]) for i in range(len(scene.times))]
    shapes, colours = ({look[i] for look in looks} for i in (0, 1))
    return {"colour changes": len(colours) > 1, "shape breaks": len(shapes) > 1 or shapes == {None}}


def path(frames: Frames) -> tuple[str | None, tuple[str, ...]]:
    """Where the thing of a clip (f, H, W, 3) uint8 moves on the whole (left, right, up or down), and what keeps the judge from
    saying so: "hidden" in some frames, "slow", "scattered" about the line, "uneven" (one half of the way is quicker, or goes
    elsewhere), "oblique"."""
    scene = _Scene(frames)
    hidden = ("hidden",) if len(scene.times) < PRESENT * len(frames) else ()
    if len(scene.times) < 4:
        return None, hidden
    found = scene.times, scene.centre[scene.times] / scene.width
    return _direction(_line(*found)[0]), hidden + _faults(*found)


class _Scene:
    """Where the one thing of a clip (f, H, W, 3) uint8 is, and how it looks."""

    def __init__(self, frames: Frames):
        clip = pooled(frames)
        self.background = median_colour(clip)
        self.difference, self.width = clip - self.background, clip.shape[2]
        self.weight, self.centre, present = locate(self.difference)
        self.times = np.flatnonzero(present)  # frames that show it

    def looks(self, times: np.ndarray) -> tuple[str | None, str | None, str | None]:
        """Shape, colour and size in these frames together; None where the judge abstains."""
        direction, purity = _colour(self.difference[times], self.weight[times])
        shape, size = _form(_aligned(self.difference[times] @ direction, self.centre[times]))
        return shape, _colour_name(direction, self.background) if purity >= COLOUR_PURITY else None, size


@public
def agrees(reading: Reading, spec: Spec) -> dict[str, bool]:
    """Compares a reading with a spec: {attribute: whether it is right, "all": whether every one is}.

    An attribute that the spec leaves None counts as right. Raises UserError for a spec of more than one thing.

    >>> from minit2v.datasets.moving_things import parse
    >>> agrees(Reading("circle", "red", motion="left"), parse("a red circle moves up"))
    {'shape': True, 'colour': True, 'size': True, 'motion': False, 'speed': True, 'all': False}
    """
    if len(spec.things) != 1 or spec.count != 1:
        raise UserError("expected a spec of one thing (level 1), found more: the judge reads one thing")
    wanted = {name: getattr(spec.things[0], name) for name in ATTRIBUTES}
    right = {name: value is None or getattr(reading, name) == value for name, value in wanted.items()}
    return {**right, "all": all(right.values())}


def readable(spec: object) -> bool:
    """Whether the judge can read what a spec says: one thing with a shape that moves straight, on the plain background.

    >>> from minit2v.datasets.moving_things import parse
    >>> readable(parse("a red circle moves up")), readable(parse("a red circle bounces")), readable("a dog")
    (True, False, False)
    """
    if not isinstance(spec, Spec) or spec != Spec(spec.things[:1]):  # has a relation, a background, …
        return False
    thing = spec.things[0]
    return thing.shape in SHAPES and thing.motion in FOUR and thing.change is None


def _agreed(names) -> str | None:
    """The name that all parts of the clip agree on, if they do."""
    first, *rest = names
    return first if all(name == first for name in rest) else None


def _colour(difference: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Unit vector (3,) from the background's colour to the thing's, and its purity: 1 for one colour, less for two.

    A mixture with the background, at an edge or by blur, lies on the line between the two colours and changes only the
    length.
    """
    core = difference[weight > 0.6 * weight.max((1, 2), keepdims=True)]  # (pixels, 3)
    mean = core.mean(0)
    length = np.sqrt(mean @ mean) + 1e-6
    return mean / length, length / np.sqrt(np.square(core).sum(-1)).mean()


def _colour_name(direction: np.ndarray, background: np.ndarray) -> str | None:
    palette = np.array(list(COLOURS.values())) - background
    cosine = palette @ direction / np.sqrt(np.square(palette).sum(-1))
    return list(COLOURS)[cosine.argmax()] if cosine.max() >= COLOUR_COSINE else None


def _aligned(cover: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Mean look of the thing, normalised to mean 0 and length 1: (f, h, w), (f, 2) -> (GRID²,)."""
    look = mean_look(cover, centre)
    look -= look.mean()
    return look / (np.sqrt(look @ look) + 1e-6)


def _form(look: np.ndarray) -> tuple[str | None, str | None]:
    """Shape and size of the template that correlates best with an aligned thing."""
    names, known = templates()
    correlation = known @ look
    return names[correlation.argmax()] if correlation.max() >= CORRELATION else (None, None)


@lru_cache
def templates() -> tuple[list[tuple[str, str]], np.ndarray]:
    """All shapes and sizes, blurred by each of BLURS and aligned: [(shape, size)], (n, GRID²) float32.

    The data set's own renderer draws them at 32 pixels and the judge's own functions align them, so a template is
    distorted exactly as a thing is.
    """
    size, names, templates = 32, [], []
    places = np.random.default_rng(0).uniform(0.3, 0.7, (8, 3))  # at different offsets within a pixel
    pixel = np.arange(size)
    for shape, name in product(SHAPES, RADIUS):
        still = [Spec((Thing(shape, "white", name),))] * 8
        clip = render(still, places, size, frames=1)[:, 0, :, :, 0]  # (b 1 h w 3) -> (b h w)
        for blur in BLURS:
            kernel = np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * (blur * size) ** 2 + 1e-6))
            kernel /= kernel.sum(1, keepdims=True)
            cover = (kernel @ (clip - np.median(clip)) @ kernel.T).astype(np.float32)
            _, centre, _ = locate(np.repeat(cover[..., None], 3, axis=-1))
            names.append((shape, name))
            templates.append(_aligned(cover, centre))
    return names, np.stack(templates)


def _motion(times: np.ndarray, centre: np.ndarray) -> tuple[str | None, str | None]:
    """Direction and speed of centroids (n, 2), in widths, at frames `times` (n,); None unless straight and steady."""
    if len(times) < 4 or _faults(times, centre):
        return None, None
    velocity, _ = _line(times, centre)
    return _direction(velocity), "slowly" if np.hypot(*velocity) < np.sqrt(SPEED["slowly"] * SPEED["quickly"]) else "quickly"


def _faults(times: np.ndarray, centre: np.ndarray) -> tuple[str, ...]:
    """What keeps centroids (n, 2), four or more, from moving straight and steadily; see `path`."""
    velocity, residual = _line(times, centre)
    speed = np.hypot(*velocity)
    first, second = (_line(*half)[0] for half in zip(np.array_split(times, 2), np.array_split(centre, 2)))
    found = {
        "slow": speed < SPEED["slowly"] / 2,
        "scattered": residual > RESIDUAL * speed * (times[-1] - times[0]),
        "uneven": np.hypot(*(first - second)) > HALVES * speed,
        "oblique": min(abs(velocity)) > SIDEWAYS * max(abs(velocity)),
    }
    return tuple(name for name, fault in found.items() if fault)


def _direction(velocity: np.ndarray) -> str:
    axis = int(np.argmax(abs(velocity)))
    return FOUR[2 * axis + int(velocity[axis] > 0)]


def _line(times: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, float]:
    """Line by least squares: velocity (2,) in widths a frame, root mean square distance from the line in widths."""
    t = times - times.mean()
    velocity = t @ centre / (t @ t)  # eq (1.6) · least squares
    rest = centre - centre.mean(0) - t[:, None] * velocity
    return velocity, float(np.sqrt(np.square(rest).sum(-1).mean()))
