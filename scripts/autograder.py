"""Points of a submission as results.json, the form of Gradescope: python scripts/autograder.py submission --expect 05

    submission/   the notebooks that somebody hands in, by any names      ──►  results.json: a test for each exercise,
    --expect      the notebooks that they were to hand in (those found)        its points, and what its check says

The points are those of `python -m minit2v.lab grade`. A notebook that is missing, damaged or there twice is 0 points and a
line that says so, and the file is always written, because a grader that finds none tells students nothing. This runs the
code of the submission and is no sandbox: run it in the container or the account that your course has for that.
"""

import argparse
import sys
from pathlib import Path

from minit2v.errors import UserError
from minit2v.files import check_writable, say, write_json
from minit2v.lab.course.exercises import of
from minit2v.lab.course.grading import SECONDS, Grade, grade


def graded(folder, expected, seconds):
    """(grades, complaints) of the notebooks in a folder; every exercise of the expected numbers has a grade."""
    found, complaints = {}, []
    for path in sorted(folder.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        try:
            own = grade(path, seconds)
        except UserError as error:
            complaints.append(" ".join(str(error).split()))
            continue
        found.setdefault(int(own[0].exercise.number.partition(".")[0]), []).append(own)
    grades = []
    for number in expected or sorted(found):
        copies = found.get(number, [])
        if len(copies) == 1:
            grades += copies[0]
            continue
        complaints.append(f"expected one notebook {number:02}, found {', '.join(own[0].file for own in copies) or 'none'}")
        grades += [Grade("", one, False, f"✗ {one.number} {one.name}: {complaints[-1]}") for one in of(number)]
    return grades, complaints


def results(grades, complaints):
    """The content of results.json."""
    tests = [
        {"number": one.exercise.number, "name": one.exercise.name, "score": one.points, "max_score": one.exercise.points,
         "status": "passed" if one.passed else "failed", "output": one.message} for one in grades
    ]  # fmt: skip
    return {"score": sum(one.points for one in grades), "output": "\n".join(complaints), "tests": tests}


def main(argv=None):
    """Run the command line; the exit status is 2 for a mistake of the caller, 0 whatever the submission is worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submission", type=Path, help="a folder")
    parser.add_argument("--expect", type=int, nargs="+", default=[], metavar="NN", help="numbers of notebooks")
    parser.add_argument("--results", type=Path, default=Path("results.json"), metavar="FILE", help="results.json")
    parser.add_argument("--limit", type=int, default=SECONDS, metavar="SECONDS", help=f"of a cell ({SECONDS})")
    args = parser.parse_args(argv)
    try:
        if not args.submission.is_dir():
            raise UserError(f"expected a folder with notebooks, found no {args.submission}")
        if args.limit < 1:
            raise UserError(f"--limit: expected whole seconds above 0, found {args.limit}")
        for number in args.expect:
            of(number)
        check_writable(args.results)
        content = results(*graded(args.submission, args.expect, args.limit))
        write_json(args.results, content)
    except UserError as error:
        say(f"autograder: {' '.join(str(error).split())}", sys.stderr)
        return 2
    say(f"{args.results}  {content['score']} of {sum(test['max_score'] for test in content['tests'])} points")
    return 0


if __name__ == "__main__":
    sys.exit(main())
