"""Points for notebooks that students hand in: `python -m minit2v.lab grade smith_05.ipynb --csv points.csv`.

    points of an exercise = its difficulty x its importance, both 1 to 5, from where the exercise is declared
    all of them if its check passes, the same check that `lab.check` runs; none otherwise

Nothing that is stored in the file as an output counts. The cells that define an exercise are run, in order, together with
the cells that the student added and the imports, functions and classes of all others; after each of them the check runs
on what it has defined. What `lab.rescue` defines scores nothing.

This runs code that other people wrote: in a process of its own that starts in an empty temporary folder and has a time
limit for each cell. It is no sandbox: that process may read and write what you may. Grade on a machine, or in a container
or an account, that has nothing to lose.
"""

import ast
import csv
import logging
import os
import re
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minit2v.errors import UserError
from minit2v.files import atomic
from minit2v.lab.course.exercises import Exercise, checks, get, is_the_librarys, of, run
from minit2v.lab.packages import needed

SECONDS = 60  # that a cell may take
START = 300  # seconds for the process to start and to import PyTorch, which is nobody's fault
LARGEST = 1 << 26  # bytes of a notebook
COLUMNS = ("file", "notebook", "exercise", "name", "points", "possible", "message")
SETUP = re.compile(r"^[^#\n]*\blab\.setup\(\s*(\d+)\s*\)", re.M)
COURSE_CELL = re.compile(r"cell-\d+$")  # the ids of the course's own cells; Jupyter gives others to those that are added
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Grade:
    """What one exercise of one file has earned."""

    file: str
    exercise: Exercise
    passed: bool
    message: str  # one line, of the check

    @property
    def points(self):
        return self.exercise.points if self.passed else 0

    def row(self):
        """The values of `COLUMNS`."""
        one = self.exercise
        return (self.file, one.number.partition(".")[0], one.number, one.name, self.points, one.points, self.message)


@dataclass(frozen=True)
class Step:
    """Code to run; with the number of an exercise, it is the check of that."""

    code: str
    check: str | None = None


def grade(path, seconds=SECONDS):
    """The `Grade` of each exercise of a notebook, in order.

    Args:
        path: an .ipynb file made from a notebook of the course; its code is run.
        seconds: that each cell and each check may take.
    Raises UserError for a file that is not a notebook of the course.
    """
    nb, number = _read(path)
    try:
        exercises = of(number)
        steps = steps_of(nb, number, exercises)
        results = _executed(steps, seconds)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return [Grade(str(path), one, *_verdict(one, steps, results)) for one in exercises]


def write_csv(path, grades):
    """The grades as a table with a row for each exercise, for a spreadsheet."""
    with atomic(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(one.row() for one in grades)


def judge(number, namespace):
    """Run in the student's process: (passed, message) of what `namespace` has under the name of an exercise."""
    one = get(number)
    label = f"✗ {number} {one.name}: "
    if one.name not in namespace:
        return False, f"{label}expected a definition of {one.name}, found none"
    if is_the_librarys(one, namespace[one.name]):
        return False, f"{label}this is the library's, from lab.rescue or lab.yours"
    try:
        outcome = run(number, namespace[one.name])
    except BaseException as error:  # SystemExit, for one: the student's code may raise anything
        return False, f"{label}expected a result, found {type(error).__name__}"
    return outcome.passed, outcome.message


def _read(path):
    nbformat, path = needed("nbformat"), Path(path)
    try:
        size = path.stat().st_size
        nb = nbformat.read(path, 4) if size <= LARGEST else nbformat.v4.new_notebook()
        cells = [(cell.cell_type, cell.source) for cell in nb.cells]
    except OSError as error:
        raise UserError(f"{path}: expected a notebook (.ipynb), found none ({error.strerror or error})") from None
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError, nbformat.ValidationError) as error:
        found = str(error).strip().partition("\n")[0][:80]
        raise UserError(f"{path}: expected a notebook (.ipynb), found something else ({found}); hand it in again") from None
    if size > LARGEST:
        raise UserError(f"{path}: expected a notebook of at most {LARGEST:,} bytes, found {size:,}; clear its outputs")
    numbers = [match[1] for kind, source in cells if kind == "code" for match in SETUP.finditer(source)]
    if not numbers:
        raise UserError(f"{path}: expected a notebook of the course, which calls lab.setup with its number, found none")
    return nb, int(numbers[0])


def steps_of(nb, number, exercises):
    """What is run: the setup, then each cell as far as it matters, and the checks of what it defines."""
    steps = [Step(f"from minit2v import lab\nctx = lab.setup({number})\nimport {checks(number).__name__}")]
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        defined = [one for one in exercises if _defines(cell.source, one.name)]
        whole = defined or not COURSE_CELL.match(cell.get("id", ""))
        if code := cell.source if whole else _definitions(cell.source):
            steps.append(Step(code))
        for one in defined:
            call = f'__import__("{__name__}", fromlist=["judge"]).judge("{one.number}", globals())'
            steps.append(Step(call, one.number))
    return steps


def _defines(code, name):
    return re.search(rf"^(?:(?:async\s+)?def|class)\s+{name}\b|^{name}\s*(?::[^=\n]+)?=(?!=)", code, re.M)


def _definitions(code):
    """The imports, functions and classes of a cell; nothing of a cell that is not plain Python."""
    try:
        return "\n".join(ast.unparse(node) for node in ast.parse(code).body if isinstance(node, DEFINITIONS))
    except (SyntaxError, ValueError):
        return ""


def _executed(steps, seconds):
    """For each step its outputs, or a text that says why it has none. Raises UserError if not even the first one works.

    A step that takes too long, or that ends the process, is left out, and the others start again without it.
    """
    broken, results = {}, []
    while len(results) < len(steps):
        try:
            results = _attempt(steps, seconds, broken)
        except RuntimeError as error:  # of jupyter_client: the process ended before it answered
            raise UserError(f"expected a kernel that starts, found none ({error}); try minit2v doctor --lab A") from None
        if 0 in broken or _trouble(results[0]):
            why = broken.get(0) or _trouble(results[0])
            raise UserError(f"expected a kernel that imports minit2v.lab, found that the import {why}; try minit2v doctor")
    return results


def _attempt(steps, seconds, broken):
    """The results of the steps up to the first that breaks, which is added to `broken`: {index: why}."""
    nbformat, nbclient, results = needed("nbformat"), needed("nbclient"), []
    exceptions = needed("nbclient.exceptions")
    quiet = logging.getLogger("minit2v.grading")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False  # what goes wrong is told by the result
    with tempfile.TemporaryDirectory(prefix="minit2v-grade-", ignore_cleanup_errors=True) as folder:
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(step.code) for step in steps])
        limits = {cell.id: seconds for cell in nb.cells} | {nb.cells[0].id: START}
        client = nbclient.NotebookClient(nb, timeout_func=lambda cell: limits[cell.id], kernel_name="python3",
                                         allow_errors=True, log=quiet, startup_timeout=START,
                                         shutdown_kernel="immediate", store_widget_state=False,
                                         resources={"metadata": {"path": folder}})
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with client.setup_kernel(env=_environment(folder), **nowhere):
            for i, cell in enumerate(nb.cells):
                try:
                    if i not in broken:
                        client.execute_cell(cell, i)
                except exceptions.CellTimeoutError:
                    broken[i] = f"took longer than {limits[cell.id]} s"
                    break
                except exceptions.DeadKernelError:
                    broken[i] = "ended its process"
                    break
                results.append(broken.get(i, cell.outputs))
    return results


def _environment(folder):
    """Seconds instead of minutes, no network of the hub's, this library, and nothing of the lecturer's own IPython."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH"))))
    plain = {name: value for name, value in os.environ.items() if name != "MINIT2V_FULL"}
    return plain | {"MINIT2V_FAST": "1", "HF_HUB_OFFLINE": "1", "IPYTHONDIR": f"{folder}/.ipython", "PYTHONPATH": path}


def _verdict(one, steps, results):
    """(passed, message) of an exercise: the first check that passes, or else the first one."""
    verdicts = []
    for i, step in enumerate(steps):
        if step.check != one.number:
            continue
        cell = next(j for j in range(i - 1, -1, -1) if steps[j].check is None)  # the one that is to define it
        passed, message = _told(results[i])
        if not passed and (trouble := _trouble(results[cell])):
            message = f"its cell {trouble}"
        verdicts.append((passed, message if message[:1] in "✓✗" else f"✗ {one.number} {one.name}: {message}"))
    if not verdicts:
        return False, f"✗ {one.number} {one.name}: expected a cell that defines {one.name}, found none"
    return next((verdict for verdict in verdicts if verdict[0]), verdicts[0])


def _told(outputs):
    """(passed, message) that a check returned, or why it returned nothing."""
    if isinstance(outputs, str):
        return False, f"its check {outputs}"
    with suppress(ValueError, SyntaxError, StopIteration):  # the student's code can change how results are shown
        return ast.literal_eval(next(o.data["text/plain"] for o in outputs if o.output_type == "execute_result"))
    return False, "its check " + (_trouble(outputs) or "returned nothing")


def _trouble(outputs):
    """What went wrong in a cell, in a few words; empty if nothing did."""
    if isinstance(outputs, str):
        return outputs
    errors = [output for output in outputs if output.output_type == "error"]
    return f"raised {errors[0].ename}: {' '.join(errors[0].evalue.split())[:200]}" if errors else ""
