"""Exercises: what a student writes, the check that says how far it is, and the way out.

    lab/course/checks/nb05.py    @exercise("5.1", name="q_sample", solution=…)    registers check and solution
    a notebook                   lab.check("5.1", q_sample)                       prints one line, never raises
                                 lab.rescue("5.1")                                q_sample becomes the library's
                                 lab.yours("5.1")                                 theirs if it passes, or the library's

A check is a function of what the student defined (a function, a class, a number). It raises `Failed`, most often
through `close` or `same_shape`, with what was expected, what was found and a likely cause; or it returns in a few words
what it has verified. A module of checks is imported when one of its exercises is asked for.
"""

import linecache
import re
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minit2v.errors import UserError
from minit2v.files import say
from minit2v.lab.packages import needed

LONGEST = 200  # letters of something found that are shown
STUB = re.compile(r"exercise (\d+\.\w+): your code here")  # what a student's copy raises
_FOREIGN = (str(Path(__file__).parents[2]), sysconfig.get_paths()["stdlib"])  # where no student writes


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook."""

    number: str  # "5.1"; bug hunts are "5.B"
    name: str  # what the student defines
    solution: Any  # the library's version of it
    check: Callable[[Any], str | None]  # raises Failed, or says what it verified
    minutes: int  # that it takes most people
    difficulty: int  # 1 to 5
    importance: int  # 1 to 5

    @property
    def points(self):
        """What it is worth where work is graded: difficulty x importance, 1 to 25."""
        return self.difficulty * self.importance


@dataclass(frozen=True)
class Outcome:
    """The result of a check."""

    passed: bool
    message: str  # one line
    points: int = 0  # where work is graded: the exercise's, if it passed and is not the library's from `rescue`

    def _ipython_display_(self):
        """Show nothing: a cell that ends in `lab.check(…)` has printed the message."""


class Failed(Exception):
    """What a check expected, what it found, and a likely cause: three short texts without a full stop."""

    def __init__(self, expected, found, cause=""):
        self.expected, self.found, self.cause = expected, found, cause
        super().__init__(f"expected {expected}, found {found}." + (f" Likely cause: {cause}" if cause else ""))


_REGISTRY: dict[str, Exercise] = {}


def exercise(number, *, name, solution, minutes, difficulty, importance):
    """Decorator that registers a check; the arguments are the fields of `Exercise`."""

    def register(check):
        _REGISTRY[number] = Exercise(number, name, solution, check, minutes, difficulty, importance)
        return check

    return register


def checks(notebook):
    """The module of checks of a notebook's number, imported. Raises UserError if it has none."""
    module = f"minit2v.lab.course.checks.nb{int(notebook):02}"
    if find_spec(module) is None:
        raise UserError(f"expected a notebook with exercises, found {notebook!r}; there is no {module}")
    return import_module(module)


def of(notebook):
    """The exercises of a notebook's number, in order."""
    checks(notebook)
    own = [number for number in _REGISTRY if number.split(".")[0] == str(int(notebook))]
    return [_REGISTRY[number] for number in sorted(own, key=lambda number: (len(number), number))]


def get(number):
    """The exercise of that number ("5.1"). Raises UserError that lists those of its notebook."""
    notebook, dot, _ = str(number).partition(".")
    if not (isinstance(number, str) and dot and notebook.isdecimal()):
        raise UserError(f'expected the number of an exercise as a text, "5.1", found {number!r}')
    known = {one.number: one for one in of(notebook)}
    if number not in known:
        raise UserError(f"notebook {notebook} has the exercises {', '.join(known)}, found {number!r}")
    return known[number]


def run(number, student):
    """Check what the student defined and return the `Outcome`; what the student's code raises is reported in it."""
    one = get(number)
    label = f"{number} {one.name}"
    try:
        praise = one.check(student)
        points = 0 if is_the_librarys(one, student) else one.points
        return Outcome(True, f"✓ {label}: {praise or 'right'}", points)
    except Failed as failed:
        return Outcome(False, f"✗ {label}: {' '.join(str(failed).split())}")  # a tensor's repr has many lines
    except Exception as error:  # the student's code may raise anything, and so may a check that is given nonsense
        if _is_a_stub(error):
            return Outcome(False, f"✗ {label}: {_not_written(one, error)}")
        return Outcome(False, f"✗ {label}: {_raised(error)}")


def is_the_librarys(one, found):
    """Whether what a notebook defines for an exercise came from `rescue` or `yours`: it passes and earns no points."""
    home = getattr(one.solution, "__module__", None) or ""
    return callable(one.solution) and home.startswith("minit2v.") and found is one.solution


def check(number, student):
    """Print what the check of an exercise finds in `student`, and return the `Outcome`; never stops the notebook."""
    outcome = run(number, student)
    say(outcome.message)
    return outcome


def rescue(number):
    """Define the library's version of an exercise, or of a notebook's, under the names that students use.

    Args:
        number: of one exercise, "5.1", or of a notebook, 5.
    """
    chosen = of(number) if isinstance(number, int) else [get(number)]
    if (shell := needed("IPython").get_ipython()) is None:
        raise UserError("rescue: expected a notebook to put the solutions into, found none; it works in Jupyter only")
    shell.push({one.name: one.solution for one in chosen})
    names = ", ".join(f"{one.name} ({one.number})" for one in chosen)
    say(f"from here on these are the library's: {names}; run the check cells again")


def yours(number):
    """Return what the notebook defines for an exercise if it passes the check, else the library's version; print which.

    For cells that use a student's work: they run to the end whether it is finished or not.
    """
    one, shell = get(number), needed("IPython").get_ipython()
    if shell is None:
        raise UserError("yours: expected a notebook to look for your work in, found none; it works in Jupyter only")
    own = shell.user_ns.get(one.name)
    passed = run(number, own).passed
    say(f"{one.name} ({number}): " + ("yours" if passed else "the library's, until yours passes its check"))
    return own if passed else one.solution


def close(what, found, expected, tolerance, cause=""):
    """Raise Failed unless `found` is within `tolerance` of `expected`.

    Args:
        what: the name of the quantity.
        found, expected: numbers, arrays or tensors of the same shape.
        tolerance: the largest absolute difference of any element.
        cause: the mistake that most often leads here.
    """
    wanted = _array(what, expected, cause)
    same_shape(what, found, wanted.shape, cause)
    values = _array(what, found, cause)
    wrong = ~(abs(values - wanted) <= tolerance)  # so that NaN is wrong as well
    if not wrong.any():
        return
    where = tuple(int(indices[0]) for indices in wrong.nonzero()) if values.ndim else ()
    right, found = _told_apart(wanted[where], values[where])
    precise = f" (± {tolerance:.2g})" if tolerance else ""
    if values.ndim == 0:
        raise Failed(f"{what} = {right}{precise}", found, cause)
    place, many = ", ".join(map(str, where)), wrong.sum()
    raise Failed(f"{right}{precise} at [{place}] of {what}",
                 f"{found}; {many:,} of {counted(wrong.size, 'number')} {'differs' if many == 1 else 'differ'}", cause)


def same_shape(what, found, expected, cause=""):
    """Raise Failed unless `found` is a number, array or tensor of the shape `expected`."""
    shape = tuple(_array(what, found, cause).shape)
    if shape != tuple(expected):
        raise Failed(f"{what} of shape {tuple(expected)}", f"{shape}", cause)


def counted(n, noun):
    """A number with its noun: "1 step", "2 steps"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _told_apart(one, other):
    """Two different numbers as texts, with as many digits as it takes to see that they differ."""
    for digits in range(4, 18):
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _array(what, value, cause):
    import numpy as np

    if value is None:
        raise Failed(what, "None", "the function does not return its result")
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if np.iscomplexobj(array):
            raise Failed(f"{what} as real numbers", "complex ones", "the root of a negative number")
        if array.dtype.kind in "US":  # numpy would read "0.5" as a number
            raise TypeError
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise Failed(f"{what} as numbers", f"{_short(value)}", cause) from None


def _short(value):
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _is_a_stub(error):
    """torch raises NotImplementedError as well, for a dtype that it cannot compute with: that is no stub."""
    return isinstance(error, NotImplementedError) and "not implemented for" not in str(error)


def _not_written(one, error):
    """What is to be done about a stub: the exercise's own, or that of another exercise that the student's code calls."""
    if stub := STUB.search(str(error)):
        number = stub[1]
    else:  # nbgrader's stubs have no number
        last = traceback.extract_tb(error.__traceback__)[-1].name
        number = next((other.number for other in of(one.number.split(".")[0]) if other.name == last), one.number)
    if number == one.number:
        return "not written yet; hint 1 is above"
    return f'your {one.name} calls exercise {number}, which is not written yet; lab.rescue("{number}") lends you the library\'s'


def _first_part(text):
    """The sentences of a text that fit, or its beginning with a mark."""
    text = " ".join(text.split())
    if len(text) <= LONGEST:
        return text
    end = text.rfind(". ", 0, LONGEST)
    return text[: end + 1] if end > 0 else f"{text[:LONGEST].rsplit(' ', 1)[0]} …"


def _raised(error):
    """The error, and the line of the student's that it comes from: the last one outside this library and Python's."""
    line, place = "", error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        if not code.co_filename.startswith(_FOREIGN) and "site-packages" not in code.co_filename:
            line = linecache.getline(code.co_filename, place.tb_lineno).strip() or line
        place = place.tb_next
    found = f"{type(error).__name__}: {_first_part(str(error))}"
    return f"expected a result, found {found}" + (f"; it comes from the line: {line}" if line else "")
