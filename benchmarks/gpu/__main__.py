"""Proves and measures the full-size path on a GPU: `make gpu`, or python -m benchmarks.gpu --out docs/gpu.json

Needs no network and no weights but the shipped ones: networks of the released size are drawn on the card. Cases run in
order of worth until the time is up; each row is written at once, so a stop at any moment loses one. Cases whose packages
are missing fall away and say so (`scripts/gpu_wheels.sh` collects those packages). Nothing is set on the card. Cases that
are not measured again stay as they were, also those that the time does not reach. `--tiny` runs a case of each kind at
the smallest sizes, also on a CPU; it saves only to an --out that is named.

Exit status: 1 if a row is wrong or a case was lost, 2 for a mistake of the caller, 130 stopped with Ctrl-C.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpu.card import NotBegun, Row, Setting
from benchmarks.gpu.cases import CASES, kinds
from benchmarks.gpu.worker import Lost, Stopped, Worker
from minit2v.errors import UserError
from minit2v.evaluation.table import markdown_table
from minit2v.files import atomic, read_text, say
from minit2v.video import check_output

HEADINGS = ("what", "found", "beside", "ratio", "right")  # fields of card.Row
JUDGED = {True: "yes", False: "**no**", None: ""}
NOT_YET = "Not yet run on a card."  # the table of no rows


def table(kept: dict[str, dict]) -> str:
    """Markdown of the saved cases {name: {"rows": [fields of Row], "machine"}}, in the order of `CASES`."""
    if not kept:
        return NOT_YET
    rows = [Row(**row) for name in filter(kept.get, CASES) for row in kept[name]["rows"]]
    cells = [[row.what, row.found, row.beside, row.ratio, JUDGED[row.right]] for row in rows]
    return "\n\n".join([markdown_table(HEADINGS, cells), *dict.fromkeys(case["machine"] for case in kept.values())])


def measured(worker: Worker, name: str, seconds: float) -> Iterator[Row]:
    """The rows of a case; the last one says why, if it is lost. Raises NotBegun."""
    case = CASES[name]
    if seconds <= 0:
        raise NotBegun("not reached: the time was up")
    if case.alone and not worker.setting.tiny:  # seconds that say nothing at the smallest sizes
        worker.stop()
    try:
        yield from worker.rows(name, min(seconds, case.seconds))
    except Stopped as reason:  # no fault of the case where all of the time was up
        yield Row(name, f"lost: {reason}", right=None if seconds < case.seconds else False)
    except Lost as reason:
        yield Row(name, f"lost: {reason}", right=False)


def run(setting: Setting, names: list[str], minutes: float, out: Path | None) -> dict[str, dict]:
    """Measure cases one after the other; writes `out` after every row and returns what it holds."""
    kept = earlier(out) if out else {}
    end = time.monotonic() + 60 * minutes
    with Worker(setting) as worker:
        for name in names:
            rows = []
            try:
                for row in measured(worker, name, end - time.monotonic()):
                    show(name, row)
                    rows.append(asdict(row))
                    kept[name] = {"rows": rows, "machine": worker.machine}
                    save(kept, out)
            except NotBegun as reason:
                show(name, row := Row(name, str(reason)))
                kept.setdefault(name, {"rows": [asdict(row)], "machine": worker.machine})  # an earlier one is worth more
                save(kept, out)
    return kept


def show(name: str, row: Row) -> None:
    """Say a row of a case."""
    said = f"{name}: {row.what}: {row.found} {row.beside} {row.ratio} {JUDGED[row.right]}".rstrip()
    print(said, file=sys.stderr, flush=True)


def save(kept: dict[str, dict], out: Path | None) -> None:
    """Write all rows, if there is a file for them."""
    if out:
        with atomic(out) as unfinished:
            unfinished.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def earlier(out: Path) -> dict[str, dict]:
    """The rows of an earlier run, if there are any. Raises UserError for another file, and where none can be written."""
    check_output(out, (".json",))
    if not out.is_file():
        return {}
    try:
        kept = json.loads(read_text(out))
        table(kept)
        return kept
    except (ValueError, TypeError, KeyError, AttributeError):  # no JSON, or another one
        raise UserError(f"--out: expected rows of `make gpu` in {out}, found something else; name another file") from None


def find_setting(tiny: bool) -> Setting:
    """A card if there is one. Raises UserError for the full size without one."""
    if torch.cuda.is_available():
        return Setting(torch.device("cuda"), tiny)
    if not tiny:
        raise UserError("expected a CUDA device, found none; --tiny runs every case at the smallest sizes on the CPU")
    return Setting(torch.device("cpu"), tiny)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CASES,
                        help=f"cases (all; with --tiny one of each kind): {', '.join(CASES)}")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=8.0, help="no case begins or goes on after this time (8)")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to see that all cases run")
    parser.add_argument("--out", type=Path, help="file of the rows (docs/gpu.json; none with --tiny)")
    chosen = parser.parse_args(arguments)
    names = chosen.only or (kinds() if chosen.tiny else list(CASES))
    out = chosen.out or (None if chosen.tiny else Path("docs/gpu.json"))
    try:
        if not chosen.minutes > 0:
            raise UserError(f"--minutes: expected a number above 0, found {chosen.minutes:g}")
        kept = run(find_setting(chosen.tiny), names, chosen.minutes, out)
    except UserError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"gpu: stopped; {out} has the rows so far" if out else "gpu: stopped", file=sys.stderr)
        return 130
    say(table(kept))
    return int(any(row["right"] is False for name in names if name in kept for row in kept[name]["rows"]))


if __name__ == "__main__":
    sys.exit(main())
