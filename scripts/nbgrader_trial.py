"""The way of an assignment through nbgrader, tried: python scripts/nbgrader_trial.py 01 02 05

    make nbgrader ──> source ──generate_assignment──> release ──┬─ as it is ───────────┬─ autograde ──> 0 points
                                                                └─ solutions pasted in ─┘             ──> all of them

Needs nbgrader beside minit2v (`make nbgrader-trial` makes an environment for it), works in a temporary folder, prints a
line for each submission, and ends with status 1 if one of them has other points. Feedback is written for both.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from minit2v.lab.course.exercises import of
from notebooks import MARKER, NBGRADER_CONFIG, ROOT, assignment, read, sources, write


def nbgrader(course, *arguments):
    """Run a command of nbgrader in the folder of a course. Exits with what it said if it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it starts alembic by its name
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=course, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"nbgrader {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")


def solved(release, source):
    """The notebook that students get, with the solutions of its source pasted into its cells."""
    nb, answers = nbformat.read(release, 4), {cell.id: MARKER.sub("", cell.source) for cell in source.cells}
    for cell in nb.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = answers[cell.id]
    return nb


def points(course, student, number):
    """(points, points there are) of a submission in the gradebook."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db", "minit2v") as book:
        found = book.find_submission(number, student)
        return found.score, found.max_score


def tried(course, source):
    """Whether an assignment gives no points for nothing and all for everything."""
    number, nb, right = source.stem[:2], assignment(read(source)), True
    write(nb, course / f"source/{number}/{source.stem}.ipynb")
    nbgrader(course, "generate_assignment", number)
    release = course / f"release/{number}/{source.stem}.ipynb"
    for student, copy in (("untouched", nbformat.read(release, 4)), ("solved", solved(release, nb))):
        write(copy, course / f"submitted/{student}/{number}/{source.stem}.ipynb")
        nbgrader(course, "autograde", number, "--student", student)
        nbgrader(course, "generate_feedback", number, "--student", student)
        feedback = course / f"feedback/{student}/{number}/{source.stem}.html"
        all_of_them = sum(one.points for one in of(number))
        found = points(course, student, number)
        right &= found == (all_of_them if student == "solved" else 0, all_of_them) and feedback.exists()
        print(f"{number} {student}: {found[0]:g} of {found[1]:g} points, feedback of "
              f"{feedback.stat().st_size / 1e3:.0f} kB", flush=True)  # fmt: skip
    return right


def main():
    """Try the assignments of some notebooks; the exit status is 1 if one of them gives wrong points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", default=["01", "02", "05"], metavar="NN", help="of notebooks (01 02 05)")
    chosen = sources(ROOT / "notebooks", parser.parse_args().numbers)
    with tempfile.TemporaryDirectory(prefix="minit2v-nbgrader-") as folder:
        course = Path(folder)
        (course / NBGRADER_CONFIG).write_bytes((ROOT / "notebooks" / NBGRADER_CONFIG).read_bytes())
        return 0 if all([tried(course, source) for source in chosen]) else 1


if __name__ == "__main__":
    sys.exit(main())
