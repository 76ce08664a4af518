"""Measure the guiders of notebook 10 again with the model in data/mini: data/guiders.npz. Twenty minutes of one core.

    python scripts/record_guiders.py [--seeds 52] [--only "autoguidance rescaled"]

Every guider with every scale makes a clip from each seed (`minit2v.lab.course.guiding` says with which prompts). A finished
pair of guider and scale is kept in runs/guiders/ under the fingerprint of the weights, so that the script continues where it
was stopped; `--only` measures some guiders, and the file is written when all are there.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

import minit2v
from minit2v.checkpoints.find import find_model, fingerprint
from minit2v.evaluation.mini.features import features
from minit2v.files import atomic, data_dir, say
from minit2v.lab.course import guiding
from minit2v.lab.course.guiding import PROMPTS, SCALES, SHOWN, UNWANTED, GuiderGrid

BATCH = SHOWN * 4  # clips at a time
RUNS = Path("runs/guiders")


def measure(pipe, weak, guider: str, scale: float, seeds: int, network) -> dict[str, np.ndarray]:
    """The figures of one guider with one scale."""
    prompts = [PROMPTS[seed % len(PROMPTS)] for seed in range(seeds)]
    clips, spread = [], []
    for start in range(0, seeds, BATCH):
        texts = prompts[start : start + BATCH]
        model = guiding.ways_to_guide(pipe, texts, [UNWANTED[text] for text in texts], weak)[guider](scale)
        made, width = guiding.sampled(pipe, model, list(range(start, start + len(texts))))
        clips.append(made), spread.append(width)
    return guiding.measured(np.concatenate(clips), prompts, network) | {"spread": np.concatenate(spread)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="shipped name or folder")
    parser.add_argument("--seeds", type=int, default=guiding.SEEDS, help=f"a multiple of {len(PROMPTS)}")
    parser.add_argument("--only", help="names of guiders")
    parser.add_argument("--out", type=Path, default=data_dir() / "guiders.npz")
    chosen = parser.parse_args(arguments)
    pipe, network = minit2v.load(chosen.model, device="cpu"), features("motion")
    weights = fingerprint(find_model(chosen.model))
    weak = guiding.weakened(pipe.unet)
    names = list(guiding.ways_to_guide(pipe, [""], [""], weak))
    place = lambda guider, scale: RUNS / f"{weights}-{chosen.seeds}-{guider.replace(' ', '-')}-{scale:g}.npz"
    pairs = [(names[0], 1.0)] + [(guider, scale) for scale in SCALES if scale != 1 for guider in names]
    for guider, scale in tqdm(pairs, disable=None):  # with scale 1 all guiders are the model alone
        if not place(guider, scale).exists() and guider in (chosen.only or " ".join(names)):
            with atomic(place(guider, scale)) as unfinished:
                np.savez_compressed(unfinished, **measure(pipe, weak, guider, scale, chosen.seeds, network))
    if missing := [pair for pair in pairs if not place(*pair).exists()]:
        say(f"{len(missing)} of {len(pairs)} are not measured yet; nothing was written")
        return
    rows = [[dict(np.load(place(*((guider, scale) if scale != 1 else pairs[0])))) for scale in SCALES] for guider in names]
    arrays = {name: np.array([[one[name] for one in row] for row in rows]) for name in rows[0][0]}
    prompts = [PROMPTS[seed % len(PROMPTS)] for seed in range(chosen.seeds)]
    path = GuiderGrid(weights, names, list(SCALES), prompts, **arrays).save(chosen.out)
    say(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
