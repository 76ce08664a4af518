"""Checks an entry of the speed run (docs/speedrun.md): make speedrun ENTRY=runs/mini

The entry is the folder of a training: a model, and of each part the log and the checkpoint that `minit2v train` keeps.
Prints what it took and how well the model follows its prompts, and whether it enters. --record NAME adds it to
docs/speedrun.json, from which `make docs` writes the table of the page.
"""

import argparse
import datetime
import json
import sys
from pathlib import Path

from judging import verdicts

import minit2v
from minit2v.checkpoints.find import fingerprint
from minit2v.datasets.moving_things import MovingThingsData
from minit2v.errors import UserError
from minit2v.evaluation.estimates import share_estimate
from minit2v.evaluation.table import markdown_table
from minit2v.files import say, write_json
from minit2v.training.checkpoint import read_checkpoint

ROOT = Path(__file__).parent.parent
BARS = {"test_seen": 90.0, "test_heldout": 75.0}  # % of the prompts in which all is right
N = 512  # prompts a split


def effort(entry: Path) -> dict[str, dict[str, float]]:
    """Steps and minutes of each part of a training, from its checkpoint. Raises UserError for a folder without any, or a
    part that was trained on other data."""
    parts, wanted = {}, MovingThingsData().identity()
    for path in sorted(entry.glob("*/checkpoint.pt")):
        state = read_checkpoint(path)
        if (found := state["settings"].get("data")) != wanted:
            raise UserError(f"{path.parent}: expected a training on {wanted!r}, found {found!r}")
        parts[path.parent.name] = {"steps": state["step"], "minutes": round(state["elapsed"] / 60, 1)}
    if not parts:
        raise UserError(f"{entry}: expected PART/checkpoint.pt of a training, found none; name the folder of `minit2v train`")
    return parts


def measured(entry: Path, n: int) -> dict[str, dict]:
    """The share of the prompts of each split in which all is right, in %."""
    pipe = minit2v.load(entry, device="cpu")
    shares = {split: share_estimate([each["all"] for each in verdicts(pipe, split, n)]) for split in BARS}
    return {split: {"percent": share.value, "low": share.low, "high": share.high} for split, share in shares.items()}


def table(entries: list[dict]) -> str:
    """The entries as Markdown, the shortest first."""
    if not entries:
        return "No entry yet."
    share = lambda cell: "{percent:.1f} ({low:.1f}–{high:.1f})".format(**cell)
    cells = [[one["name"], one["date"], f"{one['minutes']:g}", f"{one['steps']:,}",
              *(share(one["shares"][split]) for split in BARS)]
             for one in sorted(entries, key=lambda one: one["minutes"])]  # fmt: skip
    return markdown_table(["entry", "date", "minutes", "steps", "seen, % right", "held out, % right"], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", type=Path)
    parser.add_argument("--n", type=int, default=N, help=f"prompts a split; an entry is measured on {N}")
    parser.add_argument("--record", metavar="NAME", help="who, or what was new")
    asked = parser.parse_args()
    parts = effort(asked.entry)
    minutes, steps = (sum(part[what] for part in parts.values()) for what in ("minutes", "steps"))
    shares = measured(asked.entry, asked.n)
    enters = asked.n >= N and all(shares[split]["percent"] >= bar for split, bar in BARS.items())
    for split, share in shares.items():
        say(f"{split}: {share['percent']:.1f} % ({share['low']:.1f}–{share['high']:.1f}), bar {BARS[split]:g}")
    say(f"{minutes:.1f} minutes, {steps:,} steps: " + ", ".join(
        f"{name} {part['minutes']:g} min, {part['steps']:,} steps" for name, part in parts.items()))  # fmt: skip
    say("enters" if enters else f"does not enter: expected both bars with {N} prompts a split")
    if asked.record and enters:
        path = ROOT / "docs/speedrun.json"
        rows = json.loads(path.read_text()) if path.is_file() else []
        rows.append({"name": asked.record, "date": datetime.date.today().isoformat(), "weights": fingerprint(asked.entry),
                     "minutes": round(minutes, 1), "steps": steps, "parts": parts, "n": asked.n, "shares": shares})  # fmt: skip
        write_json(path, rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"speedrun: {error}", file=sys.stderr)
        sys.exit(2)
