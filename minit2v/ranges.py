"""Ranges and types of settings and arguments: declared in an annotation, checked when a dataclass of settings is made, and
when a public function is called.

    @dataclass(frozen=True)
    class Training(Checked):
        lr: Positive = 1e-3  # peak learning rate

    Training(lr=-1)   UserError: lr: expected a number above 0, found lr -1

    @public
    def wilson(right: Count, n: Size): ...

    wilson("1", 2)    UserError: right: expected a whole number, 0 or more, found '1'

So a setting has one range, whether it comes from a file, a command line or a program. Functions that only the library calls
check nothing.
"""

import inspect
import math
import os
import re
from collections import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, update_wrapper
from numbers import Integral, Real
from pathlib import Path
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

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
        if not whole and not _is_float(value):
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


@dataclass(frozen=True)
class Array:
    """Axes of an array or a tensor of numbers, none empty: a letter for any length, a number for that one, "…" at the end
    for any more; its dtype, if only one will do; and whether all of it must be finite."""

    axes: str
    dtype: str | None = None
    finite: bool = False

    def holds(self, value: Any) -> bool:
        """Whether it has these axes and that dtype."""
        axes, shape = self.axes.split(), getattr(value, "shape", ())
        more = axes[-1] == "…" and bool(axes.pop())
        if len(shape) < len(axes) or len(shape) > len(axes) and not more or 0 in shape:
            return False
        if getattr(value.dtype, "kind", "f") not in "buif":  # of numpy: a truth, a number; torch has no texts
            return False
        if not all(axis.isalpha() or length == int(axis) for axis, length in zip(axes, shape)):
            return False
        fits = self.dtype in (None, str(value.dtype).removeprefix("torch."))
        return fits and not (self.finite and not float(abs(value * 1.0).max()) < math.inf)

    def wanted(self, kind: str) -> str:
        """As in "uint8 (f, H, W, 3)"."""
        return f"{self.dtype or kind + ' of finite numbers' * self.finite} ({', '.join(self.axes.split())})"


@dataclass(frozen=True)
class FileName:
    """A path whose parts are not longer than file systems allow, neither empty nor with a zero in it."""

    def holds(self, value: Any) -> bool:
        text = os.fspath(value)
        lengths = [len(part.encode(errors="replace")) for part in re.split(r"[/\\]", text)]
        return bool(text) and "\0" not in text and sum(lengths) < 4096 and max(lengths) < 256


Positive = Annotated[float, Range(0, math.inf, above=True, below=True)]
Weight = Annotated[float, Range(0, math.inf, below=True)]  # 0 is off
Share = Annotated[float, Range(0, 1)]
Variance = Annotated[float, Range(0, 1, above=True, below=True)]
Decay = Annotated[float, Range(0, 1, below=True)]
Count = Annotated[int, Range(0, 2**31)]  # 0 is none
Size = Annotated[int, Range(1, 2**20)]  # items, pixels, frames
Width = Annotated[int, Range(1, 2**16)]  # channels, heads, groups
Depth = Annotated[int, Range(1, 256)]  # layers
Levels = Annotated[tuple[Width, ...], Length(1, 16)]
Number = Annotated[float, Range(-math.inf, math.inf, above=True, below=True)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Place = Annotated[str | Path, FileName()]


class Checked:
    """Base of a dataclass of settings: raises UserError for a value out of the range of its field."""

    def __post_init__(self):
        for name, kind in _annotations(type(self)).items():
            value = getattr(self, name)
            if wanted := next(_broken(kind, value), None):
                raise UserError(f"{name}: expected {wanted}, found {name} {_short(value)}")


def public(function: Callable) -> Callable:
    """A function, method or generator for callers from outside: each argument is held against its annotation at the call.
    Raises UserError that names it; a wrong number or name of arguments is Python's TypeError."""
    signature, kinds = inspect.signature(function), []

    def check(arguments, options):
        try:
            given = signature.bind(*arguments, **options).arguments
        except TypeError:
            return  # the call itself says it better
        if not kinds:
            kinds.append(_annotations(function))  # now that all names in them are known
        for name, value in given.items():
            if name in kinds[0] and signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                if wanted := next(_broken(kinds[0][name], value), None):
                    raise UserError(f"{name}: expected {wanted}, found {shown(value)}")

    def checked(*arguments, **options):
        check(arguments, options)
        return function(*arguments, **options)

    # in the namespace of its own module, where doctest and pickle look for it
    checked = FunctionType(checked.__code__, function.__globals__, function.__name__, None, checked.__closure__)
    return update_wrapper(checked, function)


@cache
def _annotations(of: Any) -> dict[str, Any]:
    return get_type_hints(of, include_extras=True)


NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", Path: "a path", list: "a list",
         tuple: "a tuple", dict: "a dictionary", abc.Sequence: "a list", abc.Iterable: "a list", abc.Callable: "a function",
         NoneType: "None"}  # fmt: skip
SAME = {"ndarray": "an array", "Tensor": "a tensor", "Generator": "a torch.Generator"}  # classes of packages


def _name(kind: type) -> str:
    return NAMES.get(kind) or SAME.get(kind.__name__) or f"a {kind.__name__}"


def _is(kind: Any, value: Any) -> bool:
    """Whether a value is of a class, as numbers, texts and paths are told apart by those who call."""
    if kind in (int, float):
        number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool) and value == value
        return number and (kind is int or _is_float(value))
    if kind is Path:
        return isinstance(value, os.PathLike)
    if kind is bool:
        return type(value).__name__ in ("bool", "bool_")  # numpy's too
    if kind in (abc.Sequence, abc.Iterable) and isinstance(value, (str, bytes, abc.Mapping)):
        return False  # its letters are not what was meant, nor its keys
    if kind is abc.Sequence:
        return hasattr(value, "__getitem__") and hasattr(value, "__len__")  # an array, or a class of its own, is one
    if kind is Any or getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        return True  # nothing can tell
    return not isinstance(kind, type) or isinstance(value, kind)


def _is_float(value: Real) -> bool:
    """Whether a number can be a float: whole ones may have too many digits."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _broken(kind: Any, value: Any) -> Iterator[str]:
    """What an annotation wants, for each type, range, length or shape that the value does not keep."""
    kind, *marks = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    plain = get_origin(kind) or kind
    if plain in (UnionType, Union):
        options = [option for option in get_args(kind) if option is not NoneType]
        if value is None and len(options) < len(get_args(kind)):
            return
        complaints = [next(_broken(option, value), None) for option in options]
        if None not in complaints:
            yield " or ".join(dict.fromkeys(complaints))
            return
    elif not _is(plain, value):
        says = next((mark.wanted(_name(plain)) for mark in marks if isinstance(mark, Array)), None)
        says = says or next((mark.wanted(kind is int) for mark in marks if isinstance(mark, Range)), None)
        yield says or _name(plain)
        return
    for mark in marks:
        if isinstance(mark, Range) and not mark.holds(value, kind is int):
            yield mark.wanted(kind is int)
        if isinstance(mark, Array) and not mark.holds(value):
            yield mark.wanted(_name(plain))
        if isinstance(mark, Length) and not mark.low <= len(value) <= mark.high:
            yield f"{mark.low} values" if mark.low == mark.high else f"{mark.low} to {mark.high} values"
        if isinstance(mark, FileName) and not mark.holds(value):
            yield "a name that a file can have"
    yield from _broken_items(plain, get_args(kind), value)


def _broken_items(plain: Any, kinds: tuple, value: Any) -> Iterator[str]:
    """The same for what is in a tuple, or in a list that can be looked through more than once."""
    if not kinds or plain not in (tuple, list, abc.Sequence, abc.Iterable) or not isinstance(value, (tuple, list)):
        return
    if plain is not tuple or kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    elif len(kinds) != len(value):
        yield f"{len(kinds)} values"
    for each, item in zip(kinds, value):
        yield from _broken(each, item)


def _short(value: Any) -> str:
    text = shown(value) if hasattr(value, "shape") else _printed(value, str)
    return text if len(text) < 80 else f"{text[:60]}… ({len(text):,} characters)"


def shown(value: Any) -> str:
    """A value of any kind, in a few words."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}"
    text = " ".join(_printed(value, repr).split())
    return text if len(text) < 80 else f"{text[:60]}… ({type(value).__name__})"


def _printed(value: Any, how: Callable[[Any], str]) -> str:
    try:
        return how(value)
    except Exception:  # a whole number of thousands of digits; an object that cannot say what it is
        return f"a {type(value).__name__} that cannot be printed"
