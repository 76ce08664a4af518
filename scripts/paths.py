"""Why the judge misses the direction in clips of a system: python scripts/paths.py cogvideo --every 4

Reads the clips of seen prompts that `make systems` has kept in runs/systems, and makes those that are not there. Prints of
the clips whose direction is not the one that was asked for where they move on the whole, and what keeps the judge from
saying so. With --every also what it says of every n-th frame alone: CogVideo writes every fourth one first.
"""

import argparse
from collections import Counter

import systems

import minit2v
from minit2v.datasets import find_data
from minit2v.evaluation.clip_sources import KeptSampler
from minit2v.evaluation.judge import agrees, path, read
from minit2v.files import say

SPLIT, BATCH = "test_seen", 16


def missed(name, n):
    """Clips (f, H, W, 3) whose direction the judge finds wrong or not at all, each with the one that was asked for."""
    report, pipe = systems.measured(name, n), minit2v.load(name, dtype=systems.DTYPE)
    sample = KeptSampler(pipe, report, systems.WORK / name)
    view = find_data(systems.data_of(name)).open(SPLIT, pipe.preset.frames, pipe.preset.height, pipe.preset.width)
    for start in range(0, n, BATCH):
        items = view.batch(range(start, min(start + BATCH, n)))
        for clip, spec in zip(sample(items.captions, SPLIT, start), items.specs):
            if not agrees(read(clip), spec)["motion"]:
                yield clip, spec.things[0].motion


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=systems.ROWS)
    parser.add_argument("--n", type=int, default=512, help="prompts")
    parser.add_argument("--every", type=int, help="also look at every n-th frame alone")
    asked = parser.parse_args()
    found, faults, sparse = Counter(), Counter(), 0
    for clip, wanted in missed(asked.name, asked.n):
        direction, reasons = path(clip)
        found["as asked" if direction == wanted else "elsewhere" if direction else "nowhere"] += 1
        faults.update(reasons)
        sparse += bool(asked.every and path(clip[:: asked.every])[1])
    say(f"{asked.name}: the direction is missed in {found.total()} of {asked.n}; on the whole they move "
        + ", ".join(f"{way} in {count}" for way, count in found.most_common()))  # fmt: skip
    say("what the judge objects to: " + "; ".join(f"{names} in {count}" for names, count in faults.most_common()))
    if asked.every:
        say(f"and to every {asked.every}th frame alone in {sparse}")


if __name__ == "__main__":
    main()
