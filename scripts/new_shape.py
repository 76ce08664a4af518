"""A shape that Moving Things does not have, the square ring: clips of it to train an adapter on, and what the adapter knows.

    python scripts/new_shape.py write my-rings                       20 clips, 60 of mini's own, and their captions
    minit2v train unet --from mini --lora 8 --data my-rings --out runs/ring --budget 10m
    python scripts/new_shape.py judge runs/ring                      tables, and runs/ring/judged.json

`minit2v.lab.course.new_shape` draws it; without the adapter mini draws a square or a ring. `judge` samples the same prompts
and seeds with and without the adapter: 128 of the split test_seen, which the judge of `minit2v evaluate` reads, and 128 of
square rings. There the judge reads colour, direction and speed; shape and size are those of the template that correlates
best, among the shapes of Moving Things and the new one, by the judge's threshold. Drawn square rings, and the same through
the autoencoder, bound it from above.
"""

import argparse
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minit2v
from minit2v.datasets.moving_things import MovingThings, Spec, Thing
from minit2v.datasets.moving_things.render import SHAPES
from minit2v.datasets.moving_things.scenes import RADIUS, render
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.finding import locate, mean_look, median_colour, pooled
from minit2v.evaluation.judge import CORRELATION, agrees, read
from minit2v.evaluation.table import markdown_table
from minit2v.files import say, write_json
from minit2v.lab.course.new_shape import LIKE, NEW, drawn, said, specs, write

ATTRIBUTES = ("shape", "colour", "size", "motion", "speed", "all")


def look(clip: np.ndarray) -> np.ndarray | None:
    """How the one thing of a clip looks, moved to the middle, with mean 0 and length 1; None where there is none."""
    difference = pooled(clip)
    difference -= median_colour(difference)
    weight, centre, present = locate(difference)
    if not present.any():
        return None
    mean = difference[present][weight[present] > 0.6 * weight[present].max((1, 2), keepdims=True)].mean(0)
    found = mean_look(difference[present] @ (mean / (np.sqrt(mean @ mean) + 1e-6)), centre[present])
    found -= found.mean()
    return found / (np.sqrt(found @ found) + 1e-6)


@lru_cache
def templates() -> tuple[list[tuple[str, str]], np.ndarray]:
    """Shapes and sizes, the new one's too, and how each looks, from a clip of it that moves."""
    names, looks = [], []
    for size in RADIUS:
        for shape in (*SHAPES, NEW):
            spec = Spec((Thing(LIKE if shape == NEW else shape, "white", size, "right", "slowly"),))
            clip = drawn([spec], 0) if shape == NEW else render([spec], np.full((1, 3), 0.5), 64, 16)
            names.append((shape, size))
            looks.append(look(clip[0]))
    return names, np.stack(looks)


def judged(clip: np.ndarray, spec: Spec) -> dict[str, bool]:
    """Which attributes of a clip of a square ring are right, and whether all are."""
    names, known = templates()
    seen = look(clip)
    correlation = np.zeros(1) if seen is None else known @ seen
    shape, size = names[correlation.argmax()] if correlation.max() >= CORRELATION else (None, None)
    reading = replace(read(clip), shape=LIKE if shape == NEW else None, size=size)
    return agrees(reading, spec)


def counted(right: list[dict[str, bool]]) -> dict[str, list]:
    """{attribute: [share, its 95 % interval], in %}."""
    share = lambda found: [100 * sum(found) / len(found), *(100 * bound for bound in wilson(sum(found), len(found)))]
    return {name: [round(number, 1) for number in share([one[name] for one in right])] for name in ATTRIBUTES}


def judge(adapter: Path, model: str, n: int, strength: float, batch: int = 16) -> dict:
    """The figures with and without an adapter, and those of drawn clips."""
    shown = specs(n, seed=1)
    known = MovingThings("test_seen").batch(range(n))
    base, adapted = (minit2v.load(model, device="cpu", lora=lora) for lora in (None, {adapter: strength}))
    real = drawn(shown, seed=1)
    decoded = np.concatenate([base.decode(base.encode(real[i : i + batch])) for i in range(0, n, batch)])
    rows = {
        f"{NEW}: drawn": [judged(clip, spec) for clip, spec in zip(real, shown)],
        f"{NEW}: drawn, through the autoencoder": [judged(clip, spec) for clip, spec in zip(decoded, shown)],
    }
    for name, pipe in ((model, base), (f"{model} with the adapter", adapted)):
        new, old = [], []
        for i in tqdm(range(0, n, batch), desc=name, disable=None):
            part = slice(i, i + batch)
            made = pipe([said(spec) for spec in shown[part]], seed=i)
            new += [judged(clip.pixels, spec) for clip, spec in zip(made, shown[part])]
            made = pipe(known.captions[part], seed=i)
            old += [agrees(read(clip.pixels), spec) for clip, spec in zip(made, known.specs[part])]
        rows |= {f"{NEW}: {name}": new, f"known shapes: {name}": old}
    return {"n": n, "strength": strength, "rows": {name: counted(right) for name, right in rows.items()}}


def table(report: dict) -> str:
    """The report as Markdown: shares in % with their 95 % intervals; of {}, that there is none."""
    if not report:
        return "*(No figures yet: `make adapter` trains an adapter and judges it, then `make docs` fills in this table.)*"
    cell = lambda share, low, high: f"{share:.1f} ({low:.1f} to {high:.1f})"
    rows = [[name, *(cell(*row[key]) for key in ATTRIBUTES)] for name, row in report["rows"].items()]
    return markdown_table([f"{report['n']} clips each", *ATTRIBUTES], rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "judge"))
    parser.add_argument("folder", type=Path, help="of the clips, or of the adapter")
    parser.add_argument("--clips", type=int, default=20, help="of square rings, to write (20)")
    parser.add_argument("--old", type=int, default=60, help="that the model makes of old shapes, to be kept (60)")
    parser.add_argument("--model", default="mini", help="that the adapter belongs to (mini)")
    parser.add_argument("--n", type=int, default=128, help="prompts of each kind (128)")
    parser.add_argument("--strength", type=float, default=1.0, help="of the adapter (1)")
    chosen = parser.parse_args(arguments)
    if chosen.action == "write":
        write(chosen.folder, chosen.clips, chosen.old, minit2v.load(chosen.model, device="cpu") if chosen.old else None)
        return
    report = judge(chosen.folder, chosen.model, chosen.n, chosen.strength)
    write_json(chosen.folder / "judged.json", report)
    say(table(report))


if __name__ == "__main__":
    main()
