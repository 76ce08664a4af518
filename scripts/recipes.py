"""Trainings that differ in one thing, judged on the same prompts with the same noise: make recipes, make questions

    python scripts/recipes.py                    what settings add to nano's recipe, at equal steps: hours
    python scripts/recipes.py --experiment questions --minutes 8 --n 512     the paper's three questions, at equal minutes
    python scripts/recipes.py --preset mini --steps 4000 --seeds 0 --only "the recipe" "looks heard apart"

All go on after a stop. Each variant trains the parts that it changes, and the UNet, with each seed; parts that are the
same are trained once, with seed 0. The clips of the first n prompts of each split are judged. A row of the table has the
share of clips in which all is right (95 % interval, seeds together), and for a variant those of the first row's and of
its own clips on prompts where just one of the two is right, with McNemar's exact test. Interval and test speak of these
trainings and other prompts, not of a training with another seed. A finished run is kept in runs/recipes/PRESET-…, with
its verdicts; the figures of all variants of nano are written to docs/recipes.json or questions.json.

Equal minutes count training steps alone, on the machine at hand, on which nothing else may run.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from judging import verdicts

import minit2v
from minit2v.checkpoints.folder import load_into, read_preset
from minit2v.datasets.moving_things import MovingThingsData
from minit2v.datasets.moving_things.phrases import motion_words
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.paired import discordant, mcnemar
from minit2v.evaluation.table import markdown_table
from minit2v.files import say, write_json
from minit2v.networks.autoencoder import VQGAN
from minit2v.networks.text import TextEncoder
from minit2v.networks.unet import ImageUNet
from minit2v.systems.modelscope import ModelScopeT2V
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
JOINT = {"image_stage": 0.0, "from_image": True, "image_share": 1 / 8}
asked_of = lambda **settings: {"unet": JOINT | settings}
ALONE = "1: the image model, frame by frame"
QUESTIONS = {  # the number of the paper's question, and the answer that the variant tries
    "trained jointly, as the paper's": asked_of(),
    ALONE: {},
    "1: temporal layers added, the image model frozen": asked_of(frozen_image=True, image_share=0.0),
    "2: videos alone": asked_of(image_share=0.0),
    "2: a quarter of the batches pictures": asked_of(image_share=1 / 4),
    "2: half of the batches pictures": asked_of(image_share=1 / 2),
    "2: always 16 frames": asked_of(sparse_until=0.0),
    "3: without temporal convolutions": asked_of(**{"unet.temporal_convs": 0}),
    "3: two temporal convolutions instead of four": asked_of(**{"unet.temporal_convs": 2}),
    "3: without temporal attention": asked_of(**{"unet.temporal_attention": False, "unet.first_temporal_heads": 0}),
    "3: without both": asked_of(**{"unet.temporal_convs": 0, "unet.temporal_attention": False,
                                   "unet.first_temporal_heads": 0}),
}
SETS = {"recipes": (VARIANTS, ("autoencoder", "text")), "questions": (QUESTIONS, ("autoencoder", "text", "image"))}


def trained(folder: Path, preset: str, part: str, rule: dict, settings: dict, seed: int) -> Path:
    """A part, trained in its own folder unless it is there already; returns the folder. `rule` says how long."""
    if not (folder / f"{part}.safetensors").is_file():
        chosen = {"seed": seed, "bfloat16": False, "sample_every": 1e9} | rule | settings
        if part not in ("unet", "image"):
            del chosen["bfloat16"]
        run(part, preset, folder, resume=(folder / part / "checkpoint.pt").is_file(), settings=chosen)
    return folder


def model(out: Path, preset: str, name: str, changed: dict, needed: tuple[str, ...], rules: dict, seed: int) -> Path:
    """The folder of a variant's model, trained as far as it is not."""
    folder = out / f"{name}, seed {seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(needed):
        if not (folder / f"{part}.safetensors").is_file():
            source = out / (f"{part} of {name}" if part in changed else part)
            source.mkdir(exist_ok=True)
            for before in needed[:i]:
                if not (source / f"{before}.safetensors").is_file():
                    merge(folder, source, before)
            merge(trained(source, preset, part, rules[part], changed.get(part, {}), 0), folder, part)
    return folder if name == ALONE else trained(folder, preset, "unet", rules["unet"], changed.get("unet", {}), seed)


def merge(source: Path, folder: Path, part: str) -> None:
    """Copy a trained part into the folder of a model, with its settings."""
    shutil.copyfile(source / f"{part}.safetensors", folder / f"{part}.safetensors")
    ours, theirs = (json.loads(path.read_text()) if path.is_file() else None
                    for path in (folder / "config.json", source / "config.json"))  # fmt: skip
    write_json(folder / "config.json", (ours or theirs) | ({part: theirs[part]} if part in theirs else {}))


def pipeline(folder: Path):
    """The model of a folder; of one without a UNet, its image model, to which frames are independent."""
    if (folder / "unet.safetensors").is_file():
        return minit2v.load(folder, device="cpu", dtype="float32")
    preset = read_preset(folder)
    networks = {"unet": ImageUNet(preset.unet), "autoencoder": VQGAN(preset.autoencoder), "text": TextEncoder(preset.text)}
    files = {"unet": "image", "autoencoder": "autoencoder", "text": "text"}
    networks = {name: load_into(network, folder / f"{files[name]}.safetensors") for name, network in networks.items()}
    return ModelScopeT2V(preset, **networks)


def judged(folder: Path, n: int) -> dict[str, list[list[bool]]]:
    """For each split and each of its first n prompts: whether all is right, and whether the clip is unsteady."""
    path = folder / f"verdicts-{n}.json"
    if path.is_file():
        return json.loads(path.read_text())
    pipe = pipeline(folder)
    found = {split: [[each["all"], each["colour changes"] or each["shape breaks"]] for each in verdicts(pipe, split, n)]
             for split in MovingThingsData.test_splits}  # fmt: skip
    write_json(path, found, indent=None)
    return found


def summary(rows: dict[str, list[dict]]) -> list[dict]:
    """{variant: verdicts of each seed} -> the rows of the report."""
    report, base = [], rows.get(next(iter(VARIANTS))) or rows.get(next(iter(QUESTIONS)))
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
                cell |= {"only first": better, "only variant": worse, "p": mcnemar(better, worse)}
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
    parser.add_argument("--experiment", choices=SETS, default="recipes")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--steps", type=int, default=2000, help="of the UNet")
    parser.add_argument("--minutes", type=float, help="of the UNet's training steps, instead of --steps")
    parser.add_argument("--steps-before", type=int, nargs=3, default=(800, 800, 800),
                        help="of the autoencoder, the text tower, the image model")  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--n", type=int, default=256, help="prompts a split")
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, *QUESTIONS])
    asked = parser.parse_args()
    variants, needed = SETS[asked.experiment]
    chosen = {name: changed for name, changed in variants.items() if not asked.only or name in asked.only}
    long = {"budget": 60 * asked.minutes} if asked.minutes else {"train_steps": asked.steps}
    rules = {part: {"train_steps": steps} for part, steps in zip(("autoencoder", "text", "image"), asked.steps_before)}
    rules["unet"] = long
    length = f"{asked.minutes:g}min" if asked.minutes else str(asked.steps)
    if list(asked.steps_before) != list(parser.get_default("steps_before")):
        length += "-after-" + "-".join(map(str, asked.steps_before))
    out = ROOT / "runs/recipes" / f"{asked.preset}-{length}"
    rows, began = {}, time.monotonic()
    todo = [(seed, name) for seed in asked.seeds for name in chosen]
    if asked.minutes:
        say(f"{len(todo)} trainings of {asked.minutes:g} minutes each, and as many judgements: some "
            f"{len(todo) * asked.minutes / 30:.0f} hours in all, less what is done")  # fmt: skip
    for i, (seed, name) in enumerate(todo, start=1):
        torch.manual_seed(0)
        folder = model(out, asked.preset, name, chosen[name], needed, rules, seed)
        rows.setdefault(name, []).append(judged(folder, asked.n))
        report = {"preset": asked.preset, "rules": rules, "n": asked.n, "rows": summary(rows)}
        say(f"\n{table(report)}\n\n{i} of {len(todo)} after {(time.monotonic() - began) / 60:.0f} minutes\n")
    if list(chosen) == list(variants) and asked.preset == parser.get_default("preset"):
        write_json(ROOT / f"docs/{asked.experiment}.json", report)
    else:
        say(f"docs/{asked.experiment}.json stays as it is: it holds all variants of {parser.get_default('preset')}")


if __name__ == "__main__":
    main()
