"""From an equation of the course to its paper, to the line that computes it, to the test that proves it.

    variance = …  # eq (6.2) · DDIM (16)          a tag at the end of a line of the library: number, paper
    EQUATIONS = {"6.2": (title, test id)}         in the chapter's module of checks, minit2v/lab/course/checks/nb06.py

The tables in the notebooks are made from these two; a test fails when a tag or a test goes missing.
"""

import html
import re
from dataclasses import dataclass
from pathlib import Path

from minit2v.errors import UserError
from minit2v.lab.course.exercises import checks

PACKAGE = Path(__file__).parents[2]
TAG = re.compile(r"^(?P<code>.*\S)\s+# eq \((?P<number>\d+\.\d+)\) · (?P<paper>.+?)\s*$")
LIKE_A_TAG = re.compile(r"#\s*eq\b")


@dataclass(frozen=True)
class Tag:
    """One tagged line."""

    number: str  # "6.2": chapter and running number
    paper: str  # "DDIM (16)"
    path: str  # relative to the repository
    line: int  # counted from 1
    code: str  # the line without its tag


def tags(folder=PACKAGE):
    """All tags below a folder of Python files, by file and line. Raises UserError for one that is not well-formed."""
    found = []
    for path in sorted(Path(folder).rglob("*.py")):
        name = path.relative_to(Path(folder).parent).as_posix()
        if "/lab/" in name:  # the lab has tags in its texts
            continue
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := TAG.match(line):
                found.append(Tag(match["number"], match["paper"], name, i, match["code"].strip()))
            elif LIKE_A_TAG.search(line) and "# eq:" not in line:
                raise UserError(f"{name}:{i}: expected '# eq (5.4) · DDIM (12)' after code, found {line.strip()!r}")
    return found


class EquationTable:
    """The equations of one chapter, as a table. Attribute `rows`: (number, title, paper, place, code, test)."""

    def __init__(self, titles, found):
        self.rows = []
        for number in sorted(titles, key=lambda number: [int(part) for part in number.split(".")]):
            title, test = titles[number]
            own = [tag for tag in found if tag.number == number]
            if len(own) != 1:
                found_at = " and ".join(f"{tag.path}:{tag.line}" for tag in own) or "none"
                raise UserError(f"equation {number}, {title}: expected one line of the library tagged "
                                f"'# eq ({number}) · paper (number)', found {found_at}")
            self.rows += [(number, title, tag.paper, f"{tag.path}:{tag.line}", tag.code, test) for tag in own]

    def __repr__(self):
        return "\n".join(" | ".join(row) for row in self.rows)

    def _repr_html_(self):
        head = "".join(f"<th>{name}</th>" for name in ("", "equation", "paper", "computed in", "by", "tested by"))
        rows = "\n".join("<tr>" + "".join(map(_cell, enumerate(row))) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>"


def _cell(numbered):
    i, text = numbered
    text = html.escape(text)
    if i < 3:
        return f'<td style="text-align: left">{text}</td>'
    wrapped = "text-align: left; max-width: 20em; overflow-wrap: anywhere"  # names of tests are long
    return f'<td style="{wrapped}"><code>{text}</code></td>'


def equations(notebook):
    """The table of the equations of a notebook's number. Raises UserError where one has no line."""
    return EquationTable(checks(notebook).EQUATIONS, tags())
