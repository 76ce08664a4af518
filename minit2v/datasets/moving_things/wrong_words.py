"""A spec with one word wrong: what caption sensitivity compares with (see `unet`)."""

from dataclasses import replace

from minit2v.datasets.moving_things import Spec

PAIRS = (("left", "right"), ("up", "down"), ("small", "large"), ("slowly", "quickly"))
OPPOSITE = dict(PAIRS) | {b: a for a, b in PAIRS}
OTHERS = {"shape": ("circle", "cross"), "colour": ("red", "blue")}


def with_wrong(spec: Spec, name: str) -> Spec:
    """The spec with one attribute of its thing changed: to the opposite, or to another shape or colour."""
    thing = spec.things[0]
    value = getattr(thing, name)
    wrong = OPPOSITE.get(value) or next(other for other in OTHERS[name] if other != value)
    return replace(spec, things=(replace(thing, **{name: wrong}),))
