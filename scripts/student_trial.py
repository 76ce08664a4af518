"""The zip for a room, tried as its readers use it: python scripts/student_trial.py 01 02 05

    make student-zip ──> unpacked ──> student copies ── solutions pasted in ──> strict nbval ── the built notebooks' outputs

The library, its weights and the packed checks are those of the zip. Works in a temporary folder and ends with nbval's
status: 1 if a cell prints something else than in the built notebook.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat

from minit2v.errors import UserError
from notebooks import ROOT, archive, finished, solution, sources, write


def solved(copy, built):
    """A student copy in which the exercises are solved and each cell has the outputs of the built notebook."""
    answers = {cell.id: cell for cell in solution(built).cells}
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = answers[cell.id].outputs, answers[cell.id].execution_count
            if "exercise" in cell.metadata.get("tags", ()):
                cell.source = answers[cell.id].source
    return copy


def main():
    """Try the notebooks with these numbers, all without any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="of notebooks (all)")
    built = finished(ROOT / "notebooks")
    chosen = [source for source in sources(ROOT / "notebooks", parser.parse_args().numbers) if source in built]
    if not chosen:
        raise UserError("expected a notebook that has been built, found none; make notebooks builds them")
    with tempfile.TemporaryDirectory(prefix="minit2v-room-") as folder:
        zipfile.ZipFile(archive(ROOT / "notebooks", Path(folder) / "lab.zip")).extractall(folder)
        room, paths = Path(folder) / "minit2v-lab", []
        for source in chosen:
            paths.append(write(solved(nbformat.read(path := room / f"notebooks/{source.stem}.ipynb", 4),
                                      nbformat.read(ROOT / f"notebooks/{source.stem}.ipynb", 4)), path))  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-q", "--rootdir", room, "-p", "no:cacheprovider", "--nbval",
                   "--nbval-current-env", "--nbval-cell-timeout=600", "--nbval-sanitize-with", ROOT / "tests/nbval.cfg"]  # fmt: skip
        here = {"PYTHONPATH": str(room), "MINIT2V_FAST": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.run([*command, *paths], cwd=room, env=os.environ | here).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"student_trial: {error}", file=sys.stderr)
        sys.exit(2)
