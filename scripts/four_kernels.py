"""A lab on one machine for several people: python scripts/four_kernels.py B

    person 1   notebook 01 ──► 08 ──► 11     each notebook in a kernel of its own, from top to bottom, with solutions;
    person 2   notebook 01 ──► 08 ──► 11     all people at the same time
    …

Prints the most memory that each kernel has held (its peak resident set) and how long it took. The exit status is 1 if a
cell raises, or a kernel holds more than MOST.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import new_code_cell

from minit2v.lab.course.room import LABS
from notebooks import ROOT, read, solution, sources

MOST = 1.5e9  # bytes of a kernel
PEAK = """
import re, resource
from pathlib import Path
status = Path("/proc/self/status")  # ru_maxrss of Linux begins with that of the process that started this one
found = re.search(r"^VmHWM:\\s+(\\d+) kB", status.read_text(), re.M) if status.exists() else None
print(1024 * int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS counts bytes
"""
HOUR = 3600  # seconds that a cell may take, with so much company


def run(person, source):
    """Run a notebook with its solutions. Returns whether it came to its end with no more memory than MOST; prints a line."""
    nb, start = solution(read(source)), time.monotonic()
    nb.cells.append(new_code_cell(PEAK))
    client = NotebookClient(nb, timeout=HOUR, kernel_name="python3", startup_timeout=HOUR, store_widget_state=False,
                            resources={"metadata": {"path": str(ROOT / "notebooks")}})  # fmt: skip
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raised = isinstance(error, CellExecutionError)
        said = f"{error.ename}: {error.evalue}" if raised else " ".join(str(error).split())
        print(f"person {person}  {source.stem}  stopped: {said}", flush=True)
        return False
    peak = int(nb.cells[-1].outputs[0].text)
    print(f"person {person}  {source.stem}  {peak / 1e9:.2f} GB  {time.monotonic() - start:.0f} s", flush=True)
    return peak <= MOST


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab", nargs="?", default="B", choices=LABS, help="A to D (B)")
    parser.add_argument("--people", type=int, default=4, help="at the same time (4)")
    args = parser.parse_args()
    chosen = sources(ROOT / "notebooks", [f"{number:02}" for number in LABS[args.lab].notebooks])
    with ThreadPoolExecutor(args.people) as room:
        done = list(room.map(lambda person: [run(person, one) for one in chosen], range(1, args.people + 1)))
    return 0 if all(map(all, done)) else 1


if __name__ == "__main__":
    sys.exit(main())
