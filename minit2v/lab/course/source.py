"""The library's own source in a notebook, with the path and the line numbers that an editor will show."""

import html
import inspect
from pathlib import Path

from minit2v.errors import UserError
from minit2v.lab.packages import needed

PACKAGE = Path(__file__).resolve().parents[2]  # as a source file is resolved: a home may be a link
COLOURS = "friendly"  # Pygments' style; on a background of its own it is readable in a dark notebook as well


class Source:
    """A piece of the library's source that a notebook displays.

    Attributes: `path` relative to the repository; `first`, the number of its first line; `lines`, its text.
    """

    def __init__(self, obj, lines=None):
        obj = inspect.unwrap(obj) if callable(obj) else obj
        try:
            path = Path(inspect.getsourcefile(obj)).resolve()
            text, first = inspect.getsourcelines(obj)
        except (TypeError, OSError):
            raise UserError(f"show_source: expected a function, class or module of minit2v, "
                            f"found {str(obj).partition(chr(10))[0]:.80}") from None
        if not path.is_relative_to(PACKAGE):
            name = getattr(obj, "__name__", repr(obj))
            raise UserError(f"show_source: expected something of minit2v, found {name}, which is not part of it")
        start, stop = lines or (1, len(text))
        if not 1 <= start <= stop <= len(text):
            raise UserError(f"lines: expected (first, last) within 1 and {len(text)}, counted from the start of the "
                            f"object, found {lines}")
        self.path = path.relative_to(PACKAGE.parent).as_posix()
        self.first = max(first, 1) + start - 1  # a module starts at 0
        self.lines = [line.rstrip("\n") for line in text[start - 1 : stop]]

    @property
    def title(self):
        return f"{self.path}, lines {self.first}–{self.first + len(self.lines) - 1}"

    def __repr__(self):
        return "\n".join([self.title, *map("{} │ {}".format, self._numbers(), self.lines)])

    def _repr_html_(self):
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        formatter = HtmlFormatter(nowrap=True, noclasses=True, style=COLOURS)
        coloured = highlight("\n".join(self.lines), PythonLexer(stripnl=False, stripall=False), formatter).split("\n")
        number = '<span style="color: #666; user-select: none">{} │ </span>{}'.format
        rows = "\n".join(map(number, self._numbers(), coloured))
        box = "background: #f7f7f7; color: #222; padding: 0.6em; line-height: 1.35; overflow-x: auto; white-space: pre"
        box += "; font-family: monospace"  # outside JupyterLab nothing else says so
        return f"<div><b>{html.escape(self.title)}</b>\n<pre style=\"{box}\">{rows}</pre></div>"

    def _numbers(self):
        last = self.first + len(self.lines) - 1
        return [f"{number:>{len(str(last))}}" for number in range(self.first, last + 1)]


def show_source(obj, lines=None):
    """Display the source of a function, class, method or module of the library.

    Args:
        obj: what to show.
        lines: (first, last) to show only a part, counted from 1 at the first line of the object.

    Raises UserError for something that is not the library's.
    """
    needed("IPython.display").display(Source(obj, lines))
