"""Compares this library with diffusers on this machine: `make bench`, or python -m benchmarks.bench --only sample

Both sides have the same weights, inputs, precision and threads, and each runs in its own process (see `sides`).
Seconds are medians of rounds that alternate between the sides; a ratio is the ratio of two medians, followed by the
smallest and the largest ratio within a round. The outputs of both sides are compared before anything is timed. Seconds
belong to this machine: only ratios carry over to another. Prints a Markdown table and saves its rows in
docs/bench.json; rows that are not measured again stay as they were. `make bench` then copies the table to
docs/speed.md.
"""

import argparse
import json
import os
import platform
import re
import sys
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import rows
from benchmarks.pairs import FULL, MINI, WIDE, small
from minit2v import presets
from minit2v.evaluation.table import markdown_table
from minit2v.files import atomic, say
from minit2v.memory.measured import available
from minit2v.presets import AutoencoderConfig

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
RELEASED = presets.get("modelscope-1.7b")
HEADINGS = ("what", "ours (s)", "diffusers (s)", "ratio (of one round)", "rounds")  # fields of rows.Row
LOAD = r", load [\d.]+ when it began"  # of the machine, saved with a row; the table does without
CASES = {  # name -> (GB of memory, rows)
    "forward-mini": (1, partial(rows.forward, "mini", MINI, (2, 16, 8, 8), FLOAT32)),
    "forward-mini-bf16": (1, partial(rows.forward, "mini", MINI, (2, 16, 8, 8), BFLOAT16)),
    "forward-wide": (2, partial(rows.forward, "320 wide, one level", WIDE, (1, 16, 16, 16), FLOAT32)),
    "forward-full": (15, partial(rows.forward, "full size", FULL, (1, 16, 32, 32), FLOAT32, share=True)),
    "forward-full-bf16": (9, partial(rows.forward, "full size", FULL, (1, 16, 32, 32), BFLOAT16, share=True)),
    "training-mini": (2, partial(rows.training, "mini", MINI, (8, 16, 8, 8), FLOAT32)),
    "training-mini-bf16": (2, partial(rows.training, "mini", MINI, (8, 16, 8, 8), BFLOAT16)),
    "training-wide": (4, partial(rows.training, "320 wide, one level", WIDE, (1, 8, 16, 16), FLOAT32)),
    "training-full-bf16": (15, partial(rows.training, "full size", FULL, (1, 4, 32, 32), BFLOAT16, light=True)),
    "decode-mini": (1, partial(rows.decode, "mini", presets.get("mini").autoencoder, (4, 8, 8))),
    "decode-released": (3, partial(rows.decode, "released", AutoencoderConfig(), (4, 32, 32))),
    "sample": (2, rows.sample),
    "memory-small": (1, partial(rows.memory, "small", small(), (16, 64, 1))),
    "memory-full": (16, partial(rows.memory, "full size", RELEASED, (16, 256, 1))),
    "scaling": (4, rows.growth),
}


def machine(threads: int) -> str:
    """One line about the hardware and the packages."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")] or [platform.machine()]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    load = f", load {os.getloadavg()[0]:.1f} when it began" if hasattr(os, "getloadavg") else ""  # see LOAD
    return f"{names[0]}, {os.cpu_count()} cores{load}; {threads} threads a side; {packages}."


def table(kept: dict[str, dict]) -> str:
    """Markdown of the saved cases {name: {"rows": [{what, ours, theirs, ratio, rounds}], "machine"}}.

    Rows are in the order of `CASES`; the machines that they were measured on follow, without their load.
    """
    cells = [list(row.values()) for name in filter(kept.get, CASES) for row in kept[name]["rows"]]
    machines = dict.fromkeys(re.sub(LOAD, "", case["machine"]) for case in kept.values())
    return "\n\n".join([markdown_table(HEADINGS, cells), *machines])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CASES, default=list(CASES),
                        help=f"rows: {', '.join(CASES)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds of each row (as many as take a minute or two)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of each side")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to see that all rows run; saves nothing")
    parser.add_argument("--picture", type=Path, default=Path("docs/scaling.png"), help="picture of the row scaling")
    parser.add_argument("--out", type=Path, default=Path("docs/bench.json"), help="file of the rows")
    chosen = parser.parse_args(arguments)
    options = rows.Options(chosen.rounds, chosen.threads, chosen.tiny, chosen.picture)
    path = None if chosen.tiny else chosen.out
    kept = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
    note = machine(chosen.threads)
    for name in chosen.only:
        needs, measure = CASES[name]
        if not options.tiny and (available("cpu") or 1e12) < needs * 1e9:
            print(f"{name}: skipped, needs {needs} GB of memory", file=sys.stderr)
            continue
        print(name, file=sys.stderr)
        kept[name] = {"rows": [asdict(row) for row in measure(options=options)], "machine": note}
        if path:
            with atomic(path) as unfinished:
                unfinished.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    say(table(kept))


if __name__ == "__main__":
    main()
