"""What settings would add to a recipe: trainings of equal steps, judged on the same prompts with the same noise: make recipes

    python scripts/recipes.py                                        all variants of nano's recipe: hours; goes on after a stop
    python scripts/recipes.py --preset mini --steps 4000 --seeds 0 --only "the recipe" "looks heard apart"

Each variant trains the parts that it changes, and the UNet, with each seed; parts that are the same are trained once, with
seed 0. The clips of the first n prompts of each split are judged. A row of the table has the share of clips in which
all is right (95 % interval, seeds together), and for a variant that of the recipe's and of its own clips on prompts where
just one of the two is right, with McNemar's exact test. A finished run is kept in runs/recipes/PRESET-STEPS, with its
verdicts; the figures of the table are written to docs/recipes.json.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from judging import verdicts
from quality_report import discordant, mcnemar

import minit2v
from minit2v.datasets.moving_things import MovingThingsData
from minit2v.datasets.moving_things.phrases import motion_words
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.table import markdown_table
from minit2v.files import atomic, say
from minit2v.training.run import run

ROOT = Path(__file__).parent.parent
LOOKS = {"text.looks_first": True, "text.motion_words": tuple(motion_words(1))}
VARIANTS = {  # name -> settings of each part that it trains otherwise; the UNet is always trained
    "the recipe": {},
    "latents that keep colours apart": {"autoencoder": {"readout": 0.9, "latent_noise": 0.1}},
    "looks heard apart": {"text": LOOKS, "unet": {"unet.looks_first": True}},
    "half of the pictures of what no clip shows": {"unet": {"new_share": 0.5}},
    "four wordings": {"unet": {"wordings": 4}},
    "no pictures": {"unet": {"image_stage": 0.0, "image_share": 0.0}},
    "frozen clips": {"unet": {"image_share": 0.3, "frozen_clips": 0.8}},
    "all of these": {
        "autoencoder": {"readout": 0.9, "latent_noise": 0.1},
        "text": LOOKS,
        "unet": {"unet.looks_first": True, "new_share": 0.5, "wordings": 4, "image_share": 0.3, "frozen_clips": 0.8},
    },
}
NEEDED = ("autoencoder", "text")


def trained(folder: Path, preset: str, part: str, steps: int, settings: dict, seed: int) -> Path:
    """A part, trained in its own folder unless it is there already; returns the folder."""
    if not (folder / f"{part}.safetensors").is_file():
        chosen = {"seed": seed, "train_steps": steps, "bfloat16": False, "sample_every": 1e9} | settings
        if part != "unet":
            del chosen["bfloat16"]
        run(part, preset, folder, resume=(folder / part / "checkpoint.pt").is_file(), settings=chosen)
    return folder


def model(out: Path, preset: str, name: str, steps: dict[str, int], seed: int) -> Path:
    """The folder of a variant's model, trained as far as it is not."""
    changed, folder = VARIANTS[name], out / f"{name}, seed {seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for part in NEEDED:
        if not (folder / f"{part}.safetensors").is_file():
            own = part in changed
            source = trained(out / (f"{part} of {name}" if own else part), preset, part, steps[part],
                             changed.get(part, {}), 0)  # fmt: skip
            merge(source, folder, part)
    return trained(folder, preset, "unet", steps["unet"], changed.get("unet", {}), seed)


def merge(source: Path, folder: Path, part: str) -> None:
    """Copy a trained part into the folder of a model, with its settings."""
    shutil.copyfile(source / f"{part}.safetensors", folder / f"{part}.safetensors")
    ours, theirs = (json.loads(path.read_text()) if path.is_file() else None
                    for path in (folder / "config.json", source / "config.json"))  # fmt: skip
    with atomic(folder / "config.json") as path:
        path.write_text(json.dumps((ours or theirs) | {part: theirs[part]}, indent=1) + "\n")


def judged(folder: Path, n: int) -> dict[str, list[list[bool]]]:
    """For each split and each of its first n prompts: whether all is right, and whether the clip is unsteady."""
    path = folder / f"verdicts-{n}.json"
    if path.is_file():
        return json.loads(path.read_text())
    pipe = minit2v.load(folder, device="cpu", dtype="float32")
    found = {split: [[each["all"], each["colour changes"] or each["shape breaks"]] for each in verdicts(pipe, split, n)]
             for split in MovingThingsData.test_splits}  # fmt: skip
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps(found))
    return found


def summary(rows: dict[str, list[dict]]) -> list[dict]:
    """{variant: verdicts of each seed} -> the rows of the report."""
    report, base = [], rows.get("the recipe")
    for name, runs in rows.items():
        row = {"variant": name, "seeds": len(runs), "splits": {}}
        for split in runs[0]:
            right = np.concatenate([np.array(run[split])[:, 0] for run in runs])
            shaky = np.concatenate([np.array(run[split])[:, 1] for run in runs])
            low, high = wilson(int(right.sum()), len(right))
            cell = {"percent": 100 * float(right.mean()), "low": 100 * low, "high": 100 * high, "n": len(right),
                    "unsteady": 100 * float(shaky.mean())}  # fmt: skip
            if base and runs is not base and len(runs) == len(base):
                _, better, worse = discordant([item[0] for run in base for item in run[split]], right)
                cell |= {"only recipe": better, "only variant": worse, "p": mcnemar(better, worse)}
            row["splits"][split] = cell
        report.append(row)
    return report


def table(report: dict) -> str:
    """The report as Markdown."""
    splits = list(report["rows"][0]["splits"])
    shown = lambda cell: "{percent:.1f} ({low:.1f}–{high:.1f})".format(**cell) + (
        ", p = {p:.2g}".format(**cell) if "p" in cell else "") + ", unsteady {unsteady:.1f}".format(**cell)  # fmt: skip
    rows = [[row["variant"], row["seeds"], *(shown(row["splits"][split]) for split in splits)] for row in report["rows"]]
    return markdown_table(["variant", "seeds", *(split.removeprefix("test_") for split in splits)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--steps", type=int, default=2000, help="of the UNet")
    parser.add_argument("--steps-before", type=int, nargs=2, default=(800, 800), help="of the autoencoder, the text tower")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--n", type=int, default=256, help="prompts a split")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    asked = parser.parse_args()
    out = ROOT / "runs/recipes" / f"{asked.preset}-{asked.steps}"
    steps = dict(zip(NEEDED, asked.steps_before)) | {"unet": asked.steps}
    rows = {}
    for seed in asked.seeds:
        for name in asked.only:
            torch.manual_seed(0)
            rows.setdefault(name, []).append(judged(model(out, asked.preset, name, steps, seed), asked.n))
            report = {"preset": asked.preset, "steps": steps, "n": asked.n, "rows": summary(rows)}
            say(f"\n{table(report)}\n")
    with atomic(ROOT / "docs/recipes.json") as path:
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
