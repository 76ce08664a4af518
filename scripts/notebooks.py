"""Build the notebooks from their sources: python scripts/notebooks.py build 05 06

    notebooks/src/05_name.py   what people edit (jupytext's percent format)
        build      runs it       -> notebooks/05_name.ipynb            with outputs, the same bytes each time
                                 -> site/live/05_name.json             what its widgets show, for pages without a kernel
        student    no kernel     -> notebooks/student/05_name.ipynb    stubs instead of solutions, no outputs; a copy
                                                                       that somebody has worked in stays as it is
        solutions  no kernel     -> notebooks/solutions/05_name.ipynb  the built notebook without the markers
        nbgrader   no kernel     -> nbgrader/source/05/05_name.ipynb   an assignment for nbgrader, which makes the
                                                                       students' copies; likewise never overwritten
        hosted     no kernel     -> notebooks/hosted/05_name.ipynb     student copies for Colab, Kaggle and wheels, and
                                                                       the page that opens them
        times      runs them     -> docs/times.json                    seconds, on a quiet machine
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
import platform
import re
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import jupytext
import nbformat

from minit2v.checkpoints.shipped import IN_REPOSITORY
from minit2v.errors import UserError
from minit2v.evaluation.table import markdown_table
from minit2v.files import atomic, write_json
from minit2v.lab.course.checks import PACKED
from minit2v.lab.course.exercises import get
from minit2v.lab.course.handout import HANDED_OUT, INSTALL_CELL, MODELS, hand_out

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

from links import relinked  # noqa: E402

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
NOT_SHOWN = re.compile(r"_|layout$|tabbable$|tooltip$")  # traits that every widget has, and its code
MINUTES = 20  # that a cell may take
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$\n?", re.M | re.S)
STUDENT = re.compile(r"^([ \t]*)### BEGIN STUDENT\n(.*?)^[ \t]*### END STUDENT$\n?", re.M | re.S)
MARKER = re.compile(r"^[ \t]*### (BEGIN|END) SOLUTION$\n?", re.M)
TOLD = re.compile(r"<!-- BEGIN SOLUTION -->.*?<!-- END SOLUTION -->\n*", re.S)
HEADING = re.compile(r"^#+ (?:Exercise|Bug hunt) (\d+\.\w+)", re.M)
CHECK = re.compile(r'\s*lab\.check\("(\d+\.\w+)", \w+\)\s*')
SETUP = re.compile(r"^ctx = lab\.setup\(\d+\)$", re.M)
SHIPPED = ("minit2v", "data", "docs", "notebooks/hosted", "scripts/links.py", "scripts/wheel_readme.py", "pyproject.toml",
           "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")  # pip needs what pyproject.toml names
CHECKS = re.compile(r"minit2v/lab/course/checks/nb\d\d\.py")
NBGRADER_CONFIG = "nbgrader_config.py"
FOR_LECTURERS = ("docs/course.txt",)  # the text of the course shows the solutions
INSTALL = '%pip install -q "minit2v[lab]"'
CLONE = """# {models}: in the repository, not in the package
!git clone -q --depth 1 {address} repository
%pip install -q -e "repository[lab]"
import sys

sys.path.insert(0, "repository")"""
RULE = "=" * 100
COURSE_HEAD = """minit2v: the course as one text

The notebooks with their code, indented, and what it prints, after a bar; pictures are left out.
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


HOSTED_HEAD = """# The notebooks on machines of others

Nothing to install on yours. On Colab and Kaggle the first cell of a notebook installs the library; a
[Codespace]({codespaces}) is ready when it opens. Solutions and outputs are left out. Made by `make notebooks`.
"""


def sources(folder, numbers=()):
    """The sources below a folder of notebooks, in order; those of some numbers. UserError for a number without one."""
    found = {path.name[:2]: path for path in sorted((folder / "src").glob("[0-9][0-9]_*.py"))}
    if unknown := [number for number in numbers if number not in found]:
        raise UserError(f"expected the numbers of notebooks ({' '.join(found)}), found {unknown[0]!r}")
    return [found[number] for number in numbers or found]


def finished(folder):
    """The sources whose notebook has been built: those of the course."""
    return [source for source in sources(folder) if (folder / f"{source.stem}.ipynb").exists()]


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
        unfinished.write_bytes(as_file(nb))
    return path


def as_file(nb):
    """The notebook as the bytes of a file."""
    return nbformat.writes(nb).encode() + b"\n"


def build(source, folder):
    """Run a source in default mode and write the notebook with its outputs. UserError for a cell that raises."""
    nb = run(source, folder)
    keep_live(live(nb), folder.parent / f"site/live/{source.stem}.json")
    return write(stripped(nb), folder / f"{source.stem}.ipynb")


def run(source, folder):
    """The notebook of a source, with outputs and the state of its widgets. UserError for a cell that raises."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    for name in ("MINIT2V_FAST", "MINIT2V_FULL"):
        os.environ.pop(name, None)
    os.environ["TQDM_DISABLE"] = "1"  # a progress bar is never the same twice
    nb = read(source)
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
    return nb


def measure(folder, numbers):
    """Run notebooks and keep how many seconds each took, in docs/times.json; nothing else is written."""
    path = ROOT / "docs/times.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"seconds": {}}
    for source in sources(folder, numbers):
        start = time.monotonic()
        run(source, folder)
        kept["seconds"][source.stem[:2]] = round(time.monotonic() - start)
        print(source.stem, kept["seconds"][source.stem[:2]], "s", flush=True)
        kept |= {"cores": os.cpu_count(), "machine": platform.machine()}
        write_json(path, kept)


def live(nb):
    """What the lab's widgets of a notebook that has just been run show: {"views": …, "widgets": …, "bytes": …}.

    `views` has, for each cell that shows widgets, [name, digest of its picture] of each; `widgets` has for each name its
    class, its traits, and the digests of those that are bytes; `bytes` has these once, in base64.
    """
    views, widgets, shared = {}, {}, {}
    for cell in nb.cells:
        for output in cell.get("outputs", ()):
            if VIEW in (data := output.get("data", {})) and "image/png" in data:
                views.setdefault(cell.id, []).append([data[VIEW]["model_id"], digest(data["image/png"])])
    for name, model in nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {}).items():
        if kind := model["state"].get("_anywidget_id"):
            traits = {key: value for key, value in sorted(model["state"].items()) if not NOT_SHOWN.match(key)}
            buffers = {buffer["path"][0]: buffer["data"].strip() for buffer in model.get("buffers", ())}
            widgets[name] = {"class": kind, "traits": {key: traits[key] for key in traits if key not in buffers},
                             "bytes": {key: digest(buffers[key]) for key in sorted(buffers)}}
            shared |= {digest(data): data for data in buffers.values()}
    return {"views": views, "widgets": dict(sorted(widgets.items())), "bytes": dict(sorted(shared.items()))}


def digest(data):
    """A short name of data in base64, such as a picture of a notebook: other data have another."""
    return hashlib.sha256("".join(data.split()).encode()).hexdigest()[:16]


def keep_live(shown, path):
    """Write what widgets show, or nothing, and no file, where there are none."""
    if not shown["views"]:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, shown)


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


def assignment(nb):
    """A notebook as a source of nbgrader: each exercise a solution cell, each check a locked test cell with its points.

    A test is visible, and tagged so that an exercise that is not solved yet does not stop "Run All". The setup is locked
    too. nbgrader cuts out what is between its markers; of a bug hunt, whose stub is code, it takes `stub` of the cell's
    metadata (notebooks/nbgrader_config.py).
    """
    nb, number = nbformat.from_dict(nb), "?"
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            number = (HEADING.findall(cell.source) or [number])[-1]
            cell.source = alone(TOLD.sub("", cell.source))
        elif "exercise" in cell.metadata.get("tags", ()):
            if STUDENT.search(cell.source):
                cell.metadata["stub"] = stub(cell.source, number)
            cell.source = STUDENT.sub("", cell.source).rstrip("\n")
            cell.metadata["nbgrader"] = graded("exercise", number, solution=True)
        elif match := CHECK.fullmatch(cell.source):
            cell.source = f'assert {cell.source.strip()}.points, "not solved yet, or solved by lab.rescue"'
            cell.metadata["tags"] = ["raises-exception"]
            points = get(match[1]).points
            cell.metadata["nbgrader"] = graded("check", match[1], grade=True, locked=True, points=points)
        elif SETUP.search(cell.source):
            cell.metadata["nbgrader"] = graded("setup", number, locked=True)
    return nb


def graded(kind, number, **marks):
    """nbgrader's metadata of a cell; its id is the same in every version of the course."""
    plain = {"schema_version": 3, "solution": False, "grade": False, "locked": False, "task": False}
    return plain | marks | {"grade_id": f"{kind}-{number}".replace(".", "-").removesuffix("-?")}


def alone(text):
    """Text whose links work in a folder of one notebook: others are in folders beside it, the repository is not there."""
    def mended(match):
        label, place = match.groups()
        return f"[{label}](../{place[:2]}/{place})" if re.match(r"\d\d_\w+\.ipynb", place) else label

    return re.sub(r"""(?<![!\w\])])\[([^\]]+)(?<!["'])\]\((?!https?:|mailto:|#)([^)\s]+)\)""", mended, text)


def hosted(nb):
    """A student's copy for a machine of somebody else, on which nothing is installed: its first cell does that."""
    nb = student(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            published = lambda place: f"{address()}/blob/main/{place[3:]}" if place.startswith("../") else place
            cell.source = relinked(cell.source, published)
    beyond = models_beyond_the_package(nb)
    first = CLONE.format(models=" and ".join(beyond), address=address()) if beyond else INSTALL
    nb.cells.insert(0, nbformat.v4.new_code_cell(first, id=INSTALL_CELL))
    if beyond:
        nb.metadata[MODELS] = beyond
    return nb


def models_beyond_the_package(nb):
    """Shipped models that a notebook loads and a wheel has not."""
    code = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "code")
    return sorted(set(IN_REPOSITORY) & set(re.findall(r'\bload\("([\w-]+)"', code)))


def address():
    """Where the repository is published, which pyproject.toml alone says."""
    return re.search(r'^Repository = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def hosted_page(folder):
    """The page of the notebooks that open elsewhere."""
    place = address().removeprefix("https://github.com/")
    rows = []
    for source in finished(folder):
        title = re.search(r"^# (.+)$", read(source).cells[0].source, re.M)[1]
        at = f"{place}/blob/main/notebooks/hosted/{source.stem}.ipynb"
        rows.append((title, f"[Colab](https://colab.research.google.com/github/{at})",
                     f"[Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/{at})"))  # fmt: skip
    table = markdown_table(("notebook", "on Colab", "on Kaggle"), rows)
    return f"{HOSTED_HEAD.format(codespaces=f'https://codespaces.new/{place}')}\n{table}\n"


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
            beside = lambda place: place.endswith(".ipynb") and "/" not in place
            cell.source = relinked(cell.source, lambda place: place if beside(place) else f"../{place}")
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
    rows = []
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        nb = nbformat.read(path, 4)
        code = [cell for cell in nb.cells if cell.cell_type == "code"]
        text = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        shown = [not {"nbval-ignore-output", "nbval-skip"} & set(c.metadata.get("tags", ())) for c in code if c.outputs]
        read, written = sum(len(words(one)) for one in text), sum(len(code_lines(cell.source)) for cell in code)
        exercises = sum(len(HEADING.findall(one)) for one in text)
        rows.append((path.stem, read, written, len(nb.cells), exercises, sum(shown), len(shown) - sum(shown)))
    return markdown_table(heads, rows)


def main(argv=None):
    """Run the command line; the exit status is 2 for a mistake, reported in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("build", "student", "solutions", "nbgrader", "hosted", "times", "zip", "text", "table"))
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
        if args.command == "times":
            measure(folder, args.numbers)
            return 0
        if args.command == "hosted":
            for source in finished(folder):
                write(hosted(read(source)), folder / "hosted" / f"{source.stem}.ipynb")
            with atomic(folder / "hosted/README.md") as unfinished:
                unfinished.write_text(hosted_page(folder), encoding="utf-8")
            return 0
        if args.command == "table":
            print(table(folder))
            return 0
        for source in sources(folder, args.numbers):
            start, built = time.monotonic(), folder / f"{source.stem}.ipynb"
            if args.command == "build":
                path = build(source, folder)
            elif args.command == "student":
                if told := hand_out(as_file(deeper(student(read(source)))), folder / "student" / built.name):
                    print(told, flush=True)
                continue
            elif args.command == "nbgrader":
                course = folder.parent / "nbgrader"
                path = course / "source" / source.stem[:2] / built.name
                if told := hand_out(as_file(assignment(read(source))), path, course / "source" / HANDED_OUT):
                    print(told, flush=True)
                if not (config := course / NBGRADER_CONFIG).exists():
                    config.write_bytes((ROOT / "notebooks" / NBGRADER_CONFIG).read_bytes())
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
