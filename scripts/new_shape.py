"""A shape that Moving Things does not have, the square ring: clips of it to train an adapter on, and what the adapter knows.

    python scripts/new_shape.py write my-rings                       20 clips and their captions
    minit2v train unet --from mini --lora 8 --data my-rings --out runs/ring --budget 10m
    python scripts/new_shape.py judge runs/ring                      tables, and runs/ring/judged.json

The name is made of words that mini knows, as its text tower has no others; without the adapter it draws a square or a ring.
`judge` samples the same prompts and seeds with and without the adapter: 128 of the split test_seen, which the judge of
`minit2v evaluate` reads, and 128 of square rings. There the judge reads colour, direction and speed; shape and size are
those of the template that correlates best, among the shapes of Moving Things and the new one, by the judge's threshold.
Drawn square rings, and the same through the autoencoder, bound it from above.
"""

import argparse
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minit2v
from minit2v.datasets.moving_things import MovingThings, Spec, Thing, caption
from minit2v.datasets.moving_things.dataset import FOUR, IMAGE_ONLY
from minit2v.datasets.moving_things.render import COLOURS, SHAPES, outline, signed_distance
from minit2v.datasets.moving_things.scenes import RADIUS, SPEED, render
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.finding import locate, mean_look, median_colour, pooled
from minit2v.evaluation.judge import CORRELATION, agrees, read
from minit2v.evaluation.table import markdown_table
from minit2v.files import atomic, say
from minit2v.video import Clip

NEW, LIKE = "square ring", "square"  # what it is called; the shape that stands for it in a Spec
HOLE = 0.5  # side of the hole over that of the square
TEXELS = 33  # of its picture, about as many as pixels of a large one
COLOURS_SHOWN = tuple(colour for colour in COLOURS if colour not in IMAGE_ONLY)
ATTRIBUTES = ("shape", "colour", "size", "motion", "speed", "all")


@lru_cache
def picture() -> np.ndarray:
    """The square ring as light (TEXELS, TEXELS), 0..1, in the square from -1 to 1."""
    axis = np.linspace(-1, 1, TEXELS)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    (square,) = outline(LIKE)
    distance = signed_distance(points, [square, HOLE * square])
    return np.clip(0.5 - distance * (TEXELS - 1) / 2, 0, 1).reshape(TEXELS, TEXELS).astype(np.float32)


def specs(n: int, seed: int) -> list[Spec]:
    """n square rings, each value as likely as the others."""
    rng = np.random.default_rng(seed)
    pick = lambda options: tuple(options)[rng.integers(len(options))]
    return [Spec((Thing(LIKE, pick(COLOURS_SHOWN), pick(RADIUS), pick(FOUR), pick(SPEED)),)) for _ in range(n)]


def said(spec: Spec) -> str:
    return caption(spec).replace(LIKE, NEW)


def drawn(specs: list[Spec], seed: int, size: int = 64, frames: int = 16) -> np.ndarray:
    """Clips (b, f, H, W, 3) uint8 of square rings."""
    places = np.random.default_rng(seed).uniform(size=(len(specs), 3))
    return render(specs, places, size, frames, photos=np.repeat(picture()[None], len(specs), axis=0))


def write(folder: Path, n: int, seed: int = 0) -> None:
    """n clips as mp4 with metadata.jsonl; one of them is kept for val when an adapter is trained."""
    folder.mkdir(parents=True, exist_ok=True)
    shown, lines = specs(n, seed), []
    for i, (pixels, spec) in enumerate(zip(drawn(shown, seed), shown)):
        Clip(pixels, 8).save(folder / f"{i:02d}.mp4")
        lines.append(json.dumps({"file_name": f"{i:02d}.mp4", "text": said(spec), "split": "train"}))
    with atomic(folder / "metadata.jsonl") as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")


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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "judge"))
    parser.add_argument("folder", type=Path, help="of the clips, or of the adapter")
    parser.add_argument("--clips", type=int, default=20, help="to write (20)")
    parser.add_argument("--model", default="mini", help="that the adapter belongs to (mini)")
    parser.add_argument("--n", type=int, default=128, help="prompts of each kind (128)")
    parser.add_argument("--strength", type=float, default=1.0, help="of the adapter (1)")
    chosen = parser.parse_args(arguments)
    if chosen.action == "write":
        write(chosen.folder, chosen.clips)
        return
    report = judge(chosen.folder, chosen.model, chosen.n, chosen.strength)
    with atomic(chosen.folder / "judged.json") as unfinished:
        unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    cell = lambda share, low, high: f"{share:.1f} ({low:.1f}–{high:.1f})"
    say(markdown_table(["clips", *ATTRIBUTES], [[name, *(cell(*row[key]) for key in ATTRIBUTES)]
                                               for name, row in report["rows"].items()]))  # fmt: skip


if __name__ == "__main__":
    main()
