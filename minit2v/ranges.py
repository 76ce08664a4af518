"""Ranges of settings: declared in the annotation of a field, checked when a dataclass of settings is made.

    @dataclass(frozen=True)
    class Training(Checked):
        lr: Positive = 1e-3  # peak learning rate

    Training(lr=-1)   UserError: lr: expected a number above 0, found lr -1

So a setting has one range, whether it comes from a file, a command line or a program.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from minit2v.errors import UserError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `above` and `below` leave the ends themselves out."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: Any, whole: bool) -> bool:
        """Whether it is a number in the range, and a whole one if it must be; no bool or NaN is."""
        if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
            return False
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def wanted(self, whole: bool) -> str:
        """As in "a number above 0", "a whole number from 1 to 1,024"."""
        kind = "a whole number" if whole else "a number"
        start = f"above {self.low:,g}" if self.above else f"from {self.low:,g}"
        if self.high == math.inf:
            return f"{kind} {start}" if self.above else f"{kind}, {self.low:,g} or more"
        end = f"below {self.high:,g}" if self.below else f"{self.high:,}" if whole else f"{self.high:,g}"
        return f"{kind} {start} to {end}"


@dataclass(frozen=True)
class Length:
    """How many items a tuple may have."""

    low: int
    high: int


Positive = Annotated[float, Range(0, math.inf, above=True, below=True)]
Weight = Annotated[float, Range(0, math.inf, below=True)]  # 0 is off
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, below=True)]
Count = Annotated[int, Range(0, 2**31)]  # 0 is none
Size = Annotated[int, Range(1, 2**20)]  # items, pixels, frames
Width = Annotated[int, Range(1, 2**16)]  # channels, heads, groups
Depth = Annotated[int, Range(1, 256)]  # layers
Levels = Annotated[tuple[Width, ...], Length(1, 16)]


class Checked:
    """Base of a dataclass of settings: raises UserError for a value out of the range of its field."""

    def __post_init__(self):
        for name, kind in _annotations(type(self)).items():
            value = getattr(self, name)
            if wanted := next(_broken(kind, value), None):
                raise UserError(f"{name}: expected {wanted}, found {name} {_short(value)}")


@cache
def _annotations(settings: type) -> dict[str, Any]:
    return get_type_hints(settings, include_extras=True)


def _broken(kind: Any, value: Any) -> Iterator[str]:
    """What an annotation wants, for each range or length that the value does not keep."""
    if get_origin(kind) is UnionType:
        kinds = [option for option in get_args(kind) if option is not type(None)]
        kind = kinds[0] if len(kinds) == 1 and value is not None else object
    marks = []
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
    for mark in marks:
        if isinstance(mark, Range) and not mark.holds(value, kind is int):
            yield mark.wanted(kind is int)
        if isinstance(mark, Length) and not (isinstance(value, tuple) and mark.low <= len(value) <= mark.high):
            yield f"{mark.low} to {mark.high} values"
    if get_origin(kind) is tuple and isinstance(value, tuple):
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        elif len(kinds) != len(value):
            yield f"{len(kinds)} values"
        for each, item in zip(kinds, value):
            yield from _broken(each, item)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:60]}… ({len(text):,} characters)"
