"""The docstrings of the library as reStructuredText, for the pages of its functions and classes.

They are written to be read in the source: paragraphs, lists, `names` between backticks, and everything that is indented,
such as a drawing, stays as it is. `Args:` lists names, each with what it is. Fields of a dataclass are read, with their
comments, from its source.
"""

import inspect
import re
import textwrap
from dataclasses import is_dataclass

SPECIAL = re.compile(r"([\\*|]|(?<=\w)_(?!\w)|`)")
NAMED = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)", re.S)
FIELD = re.compile(r"^    (\w+): (.+?)  # (.+)$", re.M)
ART = re.compile(r"[─│┌└►▼]|-->|\.--")  # a drawing may have colons, too
FENCED = re.compile(r"^```\n(.*?)^```$", re.M | re.S)
LIST = re.compile(r"([-*] |\d+\. )")


def to_rst(app, what, name, obj, options, lines):
    """Replace the lines of a docstring; the handler of autodoc's event `autodoc-process-docstring`."""
    text = FENCED.sub(lambda match: textwrap.indent(match[1], "    "), "\n".join(lines))
    lines[:] = "\n\n".join([*map(_block, _blocks(text)), *_fields(what, obj)]).split("\n") + [""]


def _blocks(text):
    """Paragraphs, and what is indented; indented blocks in a row are one."""
    found, after_blank = [], True
    for line in text.strip("\n").split("\n"):
        indented = line.startswith("    ")
        if not line.strip():
            after_blank = True
            continue
        if found and indented == found[-1].startswith("    ") and (indented or not after_blank):
            found[-1] += ("\n\n" if after_blank else "\n") + line
        else:
            found.append(line)
        after_blank = False
    return found


def _block(block):
    if block.startswith("    "):
        entries = re.split(r"\n(?=\S)", textwrap.dedent(block))
        if all(NAMED.match(entry) for entry in entries) and not ART.search(block):
            return "\n".join(f"* ``{name}``: {_inline(' '.join(rest.split()))}" for name, rest in
                             (NAMED.match(entry).groups() for entry in entries))  # fmt: skip
        return "::\n\n" + block
    if block.startswith(">>> "):
        return block
    if LIST.match(block):
        return "\n".join(_inline(" ".join(item.split()), LIST.match(item)[0]) for item in re.split(r"\n(?=[-*] |\d+\. )", block))
    return _inline("\n".join(map(str.strip, block.splitlines())))


def _inline(text, mark=""):
    """A paragraph: code between backticks stays as it is, whatever else means something to reStructuredText does not."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text.removeprefix(mark), flags=re.S)
    return mark + "".join(_code(part) if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))


def _code(span):
    """Backticks, which must not touch a word."""
    return rf"\ ``{span.strip('`').strip()}``\ "


def _fields(what, obj):
    """The fields of a dataclass, with what the comments behind them say."""
    if what != "class" or not is_dataclass(obj):
        return
    found = [(name, comment) for name, _, comment in FIELD.findall(inspect.getsource(obj)) if name in obj.__dataclass_fields__]
    if found:
        yield "\n".join(f"* ``{name}``: {_inline(comment)}" for name, comment in found)

