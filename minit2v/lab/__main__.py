"""`python -m minit2v.lab grade`: points for the notebooks that students hand in."""

import argparse
import sys

from minit2v.errors import UserError
from minit2v.files import check_writable, say
from minit2v.lab.course import grading

EXAMPLES = """examples:
  python -m minit2v.lab grade submissions/*.ipynb --csv points.csv
  python -m minit2v.lab grade smith_05.ipynb --limit 20          seconds that each cell and each check may take

This runs the code in the notebooks, in a process and a temporary folder of its own. That is no sandbox: grade on a
machine, or in a container or an account, that has nothing to lose.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")


def _parser():
    parser = _Parser(prog="python -m minit2v.lab", description="The side of the lecturer.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("grade", help="points for notebooks", description=grading.__doc__, epilog=EXAMPLES,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="an .ipynb file that a student hands in")
    one.add_argument("--csv", metavar="FILE", help="write a table with a row for each exercise, too")
    one.add_argument("--limit", type=int, default=grading.SECONDS, metavar="SECONDS",
                     help=f"that each cell and each check may take ({grading.SECONDS})")
    return parser


def _grade(args):
    if not args.limit > 0:
        raise UserError(f"--limit: expected whole seconds above 0, found {args.limit}")
    if args.csv:
        check_writable(args.csv)
    grades, status = [], 0
    for path in args.notebooks:
        try:
            own = grading.grade(path, args.limit)
        except UserError as error:  # the others are graded all the same
            status = _complain(error)
            continue
        say(f"{path}  {sum(one.points for one in own)} of {sum(one.exercise.points for one in own)} points")
        for one in own:
            say(f"  {one.points:>2} of {one.exercise.points:>2}  {one.message}")
        grades += own
        if args.csv:  # after each notebook, so that nothing is lost if the next one ends it all
            grading.write_csv(args.csv, grades)
    return status


def _complain(error):
    say(f"minit2v.lab: {' '.join(str(error).split())}", sys.stderr)
    return 2


def main(argv=None):
    """Run the command line and return the exit status: 2 for a mistake, reported in one line."""
    try:
        return _grade(_parser().parse_args(argv))
    except UserError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
