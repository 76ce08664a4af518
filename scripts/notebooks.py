"""Build the notebooks from their sources: python scripts/notebooks.py build 05 06

    notebooks/src/05_name.py   what people edit (jupytext's percent format)
        build      runs it       -> notebooks/05_name.ipynb            with outputs, the same bytes each time
        student    no kernel     -> notebooks/student/05_name.ipynb    stubs instead of solutions, no outputs; a copy
                                                                       that somebody has worked in stays as it is
        solutions  no kernel     -> notebooks/solutions/05_name.ipynb  the built notebook without the markers
        zip        no kernel     -> dist/minit2v-lab.zip               student copies and the library, for a room
                                                                       whose files show no solution
        text       no kernel     -> docs/course.txt                    the built notebooks as one text, without pictures
        table      no kernel     -> the screen                         words, lines and cells of the built notebooks

An exercise is a cell tagged "exercise". Between `### BEGIN SOLUTION` and `### END SOLUTION` is what students write
(nbgrader's markers); they get `raise NotImplementedError` instead, or, of a bug hunt, the commented lines between
`### BEGIN STUDENT` and `### END STUDENT`, uncommented. In text, `<!-- BEGIN SOLUTION -->` … `<!-- END SOLUTION -->`
is left out of their copies.
"""

import argparse
import hashlib
import html
import io
import json
import os
import re
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import jupytext
import nbformat

from minit2v.errors import UserError
from minit2v.files import atomic, read_json, sha256
from minit2v.lab.course.checks import PACKED

ROOT = Path(__file__).parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"
MINUTES = 20  # that a cell may take
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$\n?", re.M | re.S)
STUDENT = re.compile(r"^([ \t]*)### BEGIN STUDENT\n(.*?)^[ \t]*### END STUDENT$\n?", re.M | re.S)
MARKER = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION$\n?", re.M)
TOLD = re.compile(r"<!-- BEGIN SOLUTION -->.*?<!-- END SOLUTION -->\n*", re.S)
HEADING = re.compile(r"^#+ (?:Exercise|Bug hunt) (\d+\.\w+)", re.M)
LINK = re.compile(r"""((?<!["'])\]\(|src="|href=")(?!https?:|mailto:|#|attachment:|data:)([^)"\s]+)""")
SHIPPED = ("minit2v", "data", "docs", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
CHECKS = re.compile(r"minit2v/lab/course/checks/nb\d\d\.py")
HANDED_OUT = ".handed-out.json"
FOR_LECTURERS = ("docs/course.txt",)  # the text of the course shows the solutions
RULE = "=" * 100
COURSE_HEAD = """minit2v: the course as one text

The notebooks 00 to 13 with their code, indented, and what it prints, after a bar; pictures are left out.
Made by `make course-text` from notebooks/*.ipynb."""
START = """# minit2v: notebooks for a lab

Once, with a network and Python 3.10 or newer, in this folder:

    python3 -m venv .venv
    .venv/bin/pip install -e ".[lab]"

That takes some minutes and, on Linux, 6 GB of disk, most of them for PyTorch. From then on nothing needs a network.
Is this machine ready?

    .venv/bin/minit2v doctor --lab A

Start with

    .venv/bin/jupyter lab notebooks

and open the notebook that your teacher names. On Windows, `.venv\\Scripts` takes the place of `.venv/bin`.
Your work stays in this folder: unpack a newer zip into another one.
notebooks/README.md tells the order.
"""


def sources(folder, numbers=()):
    """The sources below a folder of notebooks, in order; those of some numbers. UserError for a number without one."""
    found = {path.name[:2]: path for path in sorted((folder / "src").glob("[0-9][0-9]_*.py"))}
    if unknown := [number for number in numbers if number not in found]:
        raise UserError(f"expected the numbers of notebooks ({' '.join(found)}), found {unknown[0]!r}")
    return [found[number] for number in numbers or found]


def read(source):
    """The notebook that a source file describes: unrun, with stable cell ids and no metadata but tags."""
    nb = nbformat.v4.new_notebook(metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    })
    for i, cell in enumerate(jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent").cells):
        new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        tags = cell.metadata.get("tags")
        nb.cells.append(new(cell.source, id=f"cell-{i:02}", metadata={"tags": tags} if tags else {}))
    return nb


def write(nb, path):
    """The notebook as a file, whole or not at all."""
    with atomic(path) as unfinished:
        unfinished.write_text(nbformat.writes(nb) + "\n", encoding="utf-8")
    return path


def build(source, folder):
    """Run a source in default mode and write the notebook with its outputs. UserError for a cell that raises."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    for name in ("MINIT2V_FAST", "MINIT2V_FULL"):
        os.environ.pop(name, None)
    os.environ["TQDM_DISABLE"] = "1"  # a progress bar is never the same twice
    nb, path = read(source), folder / f"{source.stem}.ipynb"
    client = NotebookClient(nb, timeout=60 * MINUTES, kernel_name="python3", record_timing=False, coalesce_streams=True,
                            resources={"metadata": {"path": str(folder)}})
    try:
        client.execute()
    except CellExecutionError as error:
        kinds = [{output.output_type for output in cell.get("outputs", ())} for cell in nb.cells]
        place = max(i for i, found in enumerate(kinds) if "error" in found)  # earlier ones may be meant
        found = f"cell {place} raised {error.ename}: {error.evalue}"
        raise UserError(f"{source.name}: {found}; nothing was written") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise UserError(f"{source.name}: {str(error).splitlines()[0]}; nothing was written") from None
    return write(stripped(nb), path)


def stripped(nb):
    """The notebook without what differs from build to build: the state and the live views of widgets."""
    nb.metadata.pop("widgets", None)
    nb.metadata.language_info = {"name": "python"}  # the kernel adds its version
    for cell in nb.cells:
        for output in cell.get("outputs", ()):
            if len(output.get("data", ())) > 1:  # its picture and text remain, which show before the notebook is run
                output.data.pop(VIEW, None)
    return nb


def student(nb):
    """The copy of a notebook that students get: stubs, no solutions, no outputs."""
    nb, number = nbformat.from_dict(nb), "?"
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            number = (HEADING.findall(cell.source) or [number])[-1]
            cell.source = TOLD.sub("", cell.source)
        else:
            cell.source, cell.outputs, cell.execution_count = stub(cell.source, number), [], None
    return nb


def hand_out(nb, path):
    """Write a student's copy unless somebody has worked in the one that is there. Returns what happened, in a line, or None.

    HANDED_OUT beside the copies knows each as it was written: a copy that has changed since belongs to who changed it.
    """
    record = path.with_name(HANDED_OUT)
    known = read_json(record, "delete it; no copy will be overwritten") if record.exists() else {}
    new = hashlib.sha256(content := nbformat.writes(nb).encode() + b"\n").hexdigest()
    there = sha256(path) if path.exists() else None
    if there == new:
        return None
    if there not in (None, known.get(path.name)):
        newer = known.get(path.name) != new
        return f"{path}  yours, kept; for the newer one of the course, rename yours and try again" if newer else None
    with atomic(path) as unfinished:
        unfinished.write_bytes(content)
    with atomic(record) as unfinished:
        unfinished.write_text(json.dumps(known | {path.name: new}, indent=1), encoding="utf-8")
    return f"{path}  {'new' if there is None else 'renewed'}"


def stub(code, number):
    """The code of an exercise as students get it."""
    if not STUDENT.search(code):
        return SOLUTION.sub(rf'\1raise NotImplementedError("exercise {number}: your code here")\n', code).rstrip("\n")
    return STUDENT.sub(_uncommented, SOLUTION.sub("", code)).rstrip("\n")


def _uncommented(match):
    lines = textwrap.dedent(match[2]).splitlines()
    return textwrap.indent("\n".join(line.removeprefix("# ").removeprefix("#") for line in lines), match[1]) + "\n"


def solution(nb):
    """The copy of a built notebook that lecturers get: outputs, and no markers."""
    nb = nbformat.from_dict(nb)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.source = MARKER.sub("", STUDENT.sub("", cell.source)).rstrip("\n")
    return nb


def deeper(nb):
    """The notebook with its links made for a folder one level down, beside which no repository lies."""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(lambda m: m[0] if m[2].endswith(".ipynb") and "/" not in m[2] else
                                   f"{m[1]}../{m[2]}", cell.source)
    return nb


def archive(folder, target):
    """The zip for a room: student copies, the library with its weights, how to start. Returns its path.

    No file in it shows a solution: the checks, which hold them all, are one packed file (`minit2v.lab.course.checks`), and
    what is written for lecturers is left out.
    """
    files = {"START.md": START.encode(), "notebooks/README.md": for_students(folder / "README.md").encode()}
    for source in sources(folder):
        text = nbformat.writes(student(read(source))) + "\n"
        files[f"notebooks/{source.stem}.ipynb"] = text.encode()
    for name in SHIPPED:
        for path in sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]:
            place = path.relative_to(ROOT)
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in place.parts):
                files[place.as_posix()] = path.read_bytes()
    answers = [name for name in files if CHECKS.fullmatch(name)]
    packed = zipped({name.rpartition("/")[2]: files[name] for name in answers})
    files = {name: data for name, data in files.items() if name not in (*answers, *FOR_LECTURERS)}
    files[f"minit2v/lab/course/checks/{PACKED}"] = packed
    with atomic(target) as unfinished:
        unfinished.write_bytes(zipped({f"minit2v-lab/{name}": data for name, data in files.items()}))
    return target


def zipped(files):
    """Files {name: bytes} as a zip archive, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980: reproducible
            entry.external_attr = 0o644 << 16  # whoever unpacks it for a room, all may read it
            out.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def for_students(readme):
    """The page of the notebooks up to what it says to authors and lecturers."""
    return re.split(r"^## For (?:authors|lecturers)$", readme.read_text(encoding="utf-8"), maxsplit=1, flags=re.M)[0]


def course_text(folder):
    """The built notebooks as one text: prose, code (indented) and printed outputs (after a bar), without pictures."""
    parts = [COURSE_HEAD]
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        parts.append(f"{RULE}\n{path.name}\n{RULE}")
        for cell in solution(nbformat.read(path, 4)).cells:
            if cell.cell_type == "markdown":
                parts.append(plain(cell.source))
            else:
                parts.append(textwrap.indent(cell.source, "    "))
                parts += filter(None, map(printed, cell.outputs))
    lines = "\n\n".join(part.strip("\n") for part in parts).splitlines()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)) + "\n"


def plain(markdown):
    """Markdown without HTML."""
    text = re.sub(r"</?code>", "`", markdown.replace("</summary>", ": "))
    return html.unescape(re.sub(r"<!--.*?-->|</?[a-z]+\b[^>]*>", "", text, flags=re.S))


def printed(output):
    """What an output of a cell says, without its picture; empty where it says nothing."""
    if output.output_type == "error":
        said = f"{output.ename}: {output.evalue}"
    elif output.output_type == "stream":
        said = output.text
    else:
        said = output.data.get("text/plain", "")
        said = f"[picture: {said}]" if any(kind.startswith("image/") for kind in output.data) else said
    return textwrap.indent(said.rstrip("\n"), "    | ", predicate=lambda line: True) if said.strip() else ""


def code_lines(code):
    """The lines of a cell that are code or comment, the markers of exercises left out."""
    return [line for line in MARKER.sub("", STUDENT.sub("", code)).splitlines() if line.strip()]


def words(text):
    """The words of a markdown cell that are prose: no code, no addresses, no marks."""
    text = re.sub(r"```.*?```|<[^>]+>|\]\([^)]*\)|`[^`]*`|\$[^$]*\$", " ", text, flags=re.S)
    return re.findall(r"[^\W\d_][\w’'-]*", text)


def table(folder):
    """A markdown table of the built notebooks; of the cells with outputs, how many nbval compares."""
    heads = ("notebook", "words", "code lines", "cells", "exercises", "outputs compared", "not compared")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        nb = nbformat.read(path, 4)
        code = [cell for cell in nb.cells if cell.cell_type == "code"]
        text = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        shown = [not {"nbval-ignore-output", "nbval-skip"} & set(c.metadata.get("tags", ())) for c in code if c.outputs]
        read, written = sum(len(words(one)) for one in text), sum(len(code_lines(cell.source)) for cell in code)
        exercises = sum(len(HEADING.findall(one)) for one in text)
        counts = (read, written, len(nb.cells), exercises, sum(shown), len(shown) - sum(shown))
        lines.append(f"| {path.stem} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def main(argv=None):
    """Run the command line; the exit status is 2 for a mistake, reported in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("build", "student", "solutions", "zip", "text", "table"))
    parser.add_argument("numbers", nargs="*", metavar="NN", help="of the notebooks (all)")
    parser.add_argument("--folder", type=Path, default=ROOT / "notebooks", help="where src/ is (notebooks)")
    args = parser.parse_args(argv)
    folder = args.folder
    try:
        if args.command == "zip":
            path = archive(folder, ROOT / "dist/minit2v-lab.zip")
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
            return 0
        if args.command == "text":
            path = ROOT / "docs/course.txt"
            with atomic(path) as unfinished:
                unfinished.write_text(course_text(folder), encoding="utf-8")
            print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
            return 0
        if args.command == "table":
            print(table(folder))
            return 0
        for source in sources(folder, args.numbers):
            start, built = time.monotonic(), folder / f"{source.stem}.ipynb"
            if args.command == "build":
                path = build(source, folder)
            elif args.command == "student":
                if told := hand_out(deeper(student(read(source))), folder / "student" / built.name):
                    print(told, flush=True)
                continue
            elif not built.exists():
                raise UserError(f"expected {built}, found none; build {source.stem[:2]} first")
            else:
                path = write(deeper(solution(nbformat.read(built, 4))), folder / "solutions" / built.name)
            print(f"{path}  {path.stat().st_size / 1e6:.2f} MB  {time.monotonic() - start:.0f} s", flush=True)
    except UserError as error:
        print(f"notebooks: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
