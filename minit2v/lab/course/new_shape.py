"""A shape that Moving Things does not have, the square ring, for an adapter to learn: drawn, said, written into a folder.

Its name is made of words that mini knows, as its text tower has no others. It stands in a `Spec` as a square.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minit2v.datasets.moving_things import MovingThings, Spec, Thing, caption
from minit2v.datasets.moving_things.dataset import FOUR, IMAGE_ONLY
from minit2v.datasets.moving_things.render import COLOURS, outline, signed_distance
from minit2v.datasets.moving_things.scenes import RADIUS, SPEED, render
from minit2v.files import atomic
from minit2v.systems import TextToVideo
from minit2v.video import Clip

NEW, LIKE = "square ring", "square"  # what it is called; the shape that stands for it in a Spec
HOLE = 0.5  # side of the hole over that of the square
BATCH, FPS = 16, 8  # clips that the model makes at a time; frames a second
TEXELS = 33  # of its picture, about as many as pixels of a large one
COLOURS_SHOWN = tuple(colour for colour in COLOURS if colour not in IMAGE_ONLY)


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


def write(folder: Path, n: int, old: int = 0, pipe: TextToVideo | None = None, seed: int = 0) -> None:
    """n clips as mp4 with metadata.jsonl, and as many as `old` that `pipe` makes of captions of Moving Things: what an
    adapter is to leave as it is. One of all is kept for val when an adapter is trained."""
    folder.mkdir(parents=True, exist_ok=True)
    shown, view = specs(n, seed), MovingThings("train")
    named = [(said(spec), pixels) for spec, pixels in zip(shown, drawn(shown, seed))]
    for i in tqdm(range(0, old, BATCH), desc="old shapes", disable=None):
        captions = [view.text(j)[0] for j in range(i, min(i + BATCH, old))]
        named += [(text, clip.pixels) for text, clip in zip(captions, pipe(captions, seed=i))]
    for i, (_, pixels) in enumerate(named):
        Clip(pixels, FPS).save(folder / f"{i:03d}.mp4")
    lines = [json.dumps({"file_name": f"{i:03d}.mp4", "text": text, "split": "train"}) for i, (text, _) in enumerate(named)]
    with atomic(folder / "metadata.jsonl") as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
