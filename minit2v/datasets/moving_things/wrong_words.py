"""A spec with one wrong value: caption sensitivity compares its caption with the right one."""

from dataclasses import replace

from minit2v.datasets.moving_things.captions import Spec
from minit2v.datasets.moving_things.sprites import CLASSES

PAIRS = (("left", "right"), ("up", "down"), ("small", "large"), ("slowly", "quickly"))  # all of level 1
OPPOSITE = dict(PAIRS) | {b: a for a, b in PAIRS}
FURTHER = (("up-left", "down-right"), ("up-right", "down-left"), ("clockwise", "counter-clockwise"),
           ("stays", "bounces"))  # fmt: skip
OPPOSITE_MOTION = dict(FURTHER) | {b: a for a, b in FURTHER}  # of levels 2 and 3
OTHERS = {"shape": ("circle", "cross"), "colour": ("red", "blue"), "speed": ("slowly",)}  # "stays" has no speed
OTHER_PHOTOS = ("sneaker", "dress")


def with_wrong(spec: Spec, name: str) -> Spec:
    """The spec with one attribute of its first thing changed: to the opposite, or to another shape or colour."""
    value = getattr(spec.things[0], name)
    others = OTHER_PHOTOS if value in CLASSES else OTHERS.get(name, ())
    return with_value(spec, name, (OPPOSITE | OPPOSITE_MOTION).get(value) or next(o for o in others if o != value))


def with_value(spec: Spec, name: str, value: str) -> Spec:
    """The spec with another value of an attribute of its first thing; of all things for motion and speed, as they move
    together."""
    first, *rest = (replace(thing, **{name: value}) for thing in spec.things)
    return replace(spec, things=(first, *(rest if name in ("motion", "speed") else spec.things[1:])))
