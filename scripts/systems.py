"""The seven systems of the paper's table under one protocol: make systems

    each model ── evaluate, N prompts a split ──► docs/systems/NAME.json     kept: only what changed is sampled again
               ── verdicts, prompt by prompt ──► McNemar's test against ModelScopeT2V
               ── summary ──► data/systems.json ── write_docs ──► docs/systems.md, README.md, the model cards
               ── eight prompts, the same seeds ──► docs/systems.png
               ── one clip, in turn ──► seconds

The floors come from the image model that Video LDM holds: its pictures one by one, its first picture throughout, and
without a prompt. A model that is not there yet is left out, and said so. Clips are kept in runs/systems.

The second table compares at equal steps: what teaches motion has taken 4,000 of them. For a shipped model that was trained
for more stands one of the same preset in runs/equal/NAME: a copy of its run without what learns motion, then for instance

    minit2v train unet --preset videoldm --out runs/equal/videoldm --set train_steps=4000
    minit2v train unet --preset makeavideo --out runs/equal/makeavideo --set train_steps=3000
    minit2v train between --preset makeavideo --out runs/equal/makeavideo --set train_steps=1000
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

import minit2v  # noqa: E402
from minit2v.checkpoints.find import preset_of  # noqa: E402
from minit2v.datasets import find_data  # noqa: E402
from minit2v.datasets.moving_things import MovingThings  # noqa: E402
from minit2v.errors import UserError  # noqa: E402
from minit2v.evaluation.clip_sources import KeptSampler, fingerprint_of  # noqa: E402
from minit2v.evaluation.full_scale.published import MARK, TABLE  # noqa: E402
from minit2v.evaluation.judge import agrees, read  # noqa: E402
from minit2v.evaluation.paired import discordant, kendall, mcnemar  # noqa: E402
from minit2v.evaluation.report import evaluate  # noqa: E402
from minit2v.evaluation.table import cell, judged, markdown_table  # noqa: E402
from minit2v.evaluation.table import note as table_note  # noqa: E402
from minit2v.files import data_dir, read_json, say, write_json  # noqa: E402
from minit2v.pixels import evenly  # noqa: E402
from minit2v.recipes import recipe_of  # noqa: E402
from minit2v.systems import TextToVideo, build  # noqa: E402
from minit2v.systems.modelscope import ModelScopeT2V  # noqa: E402
from minit2v.training.checkpoint import read_checkpoint  # noqa: E402

ROOT = Path(__file__).parent.parent
ROWS = {  # shipped name -> its row in the paper's table
    "nuwa": "NÜWA",
    "cogvideo-zh": "CogVideo (Chinese)",
    "cogvideo": "CogVideo (English)",
    "magicvideo": "MagicVideo",
    "videoldm": "Video LDM",
    "makeavideo": "Make-A-Video",
    "modelscope": "ModelScopeT2V",
}
MORE = {"mini": "ModelScopeT2V, mini"}  # shipped, trained for longer
BASE = "modelscope"  # the others are compared with it
PICTURES = "image model, frame by frame"
FLOORS = "floors"
BOUNDS = [  # (label, in whose report, the row there)
    ("real clips", FLOORS, "real clips"),
    ("latents of the autoencoder, decoded", BASE, "autoencoder"),
    ("tokens of the codebook, decoded", "nuwa", "autoencoder"),
    (PICTURES, FLOORS, PICTURES),
    ("its first frame throughout", FLOORS, "frozen first frame"),
    ("without a prompt", FLOORS, "empty prompt"),
]
SPLITS = {"test_seen": "seen", "test_heldout": "held out", "test_imageonly": "pictures only"}
METRICS = ("FID-vid", "FVD-mini", "CLIPSIM / real")
PUBLISHED = {"FID-vid": "fid_vid", "FVD": "fvd", "CLIPSIM": "clipsim"}
FIGURES = f"{' / '.join(PUBLISHED)}, {MARK}"
FROM_REPORT = ("n", "steps", "guidance", "commit", "weights", "peak_memory_gb", "verdicts")
SHOWN, FRAMES = 8, 6  # prompts and frames of the picture
DTYPE = "float32"  # the same on every machine
REPORTS, WORK = ROOT / "docs/systems", ROOT / "runs/systems"
CLIPS = 3  # timed of each system
CODERS = ("text", "autoencoder", "decoder")  # networks that work once for a clip
EQUAL, STEPS = ROOT / "runs/equal", 4000
STILL = ("autoencoder", "text", "prior", "image", "decoder", "upscale")  # steps of recipes that teach nothing of motion
RUN = "runs/modelscope"  # a run, as its image model is not shipped
SHARE = {"modelscope": "mini", "videoldm": RUN, "magicvideo": RUN, "nuwa": "mini", "cogvideo": "nuwa", "cogvideo-zh": "nuwa",
         "makeavideo": None}  # what each takes parts of: a shipped name, or a run  # fmt: skip
MACHINE = "one core of an AMD EPYC with AVX-512, in bfloat16, while its other core trained another model"


class FrameByFrame(nn.Module):
    """The image model inside a UNet, called as the UNet is."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet, self.config = unet, unet.config

    def forward(self, x, t, context, **options):
        return self.unet(x, t, context, temporal=False, **options)


def there(name: str) -> bool:
    return (data_dir() / name / "config.json").is_file()


def data_of(name: str) -> str:
    """The data set in the language of a model."""
    return "moving-things-zh" if name.endswith("-zh") else "moving-things"


def kept(path: Path, **expected) -> dict | None:
    """What a file says, {} without one; None where it does not say that of all that is `expected`, or is damaged."""
    try:
        found = read_json(path) if path.is_file() else {}
    except UserError as error:
        say(f"{error}: passed over")
        return None
    return found if all(found.get(key) == value for key, value in expected.items()) else None


def keep(path: Path, report: dict) -> dict:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    return report


def identity(name: str, pipe: TextToVideo, n: int) -> dict:
    """What a report of a shipped model depends on, as the report says it."""
    return {"weights": fingerprint_of(name, pipe.dtype), "dtype": DTYPE, "n": n, "steps": pipe.preset.steps,
            "guidance": pipe.preset.guidance}  # fmt: skip


def measured(name: str, n: int, folder: Path | None = None) -> dict:
    """The report of a shipped model, with the verdict on each prompt; kept, as long as nothing changes. Of one in a `folder`
    only the seen prompts."""
    model, splits, file = (folder, ["test_seen"], f"equal/{name}.json") if folder else (name, list(SPLITS), f"{name}.json")
    pipe, path, work = minit2v.load(model, dtype=DTYPE), REPORTS / file, WORK / file
    if "verdicts" in (report := kept(path, **identity(model, pipe, n)) or {}):
        return report
    work.parent.mkdir(parents=True, exist_ok=True)
    report = evaluate(model, data_of(name), splits, n, work, dtype=DTYPE)
    report["verdicts"] = {split: verdicts(pipe, report, split, work.with_suffix("")) for split in splits}
    return keep(path, report)


def at_equal_steps(reports: dict[str, dict], n: int) -> dict[str, dict]:
    """The rows of seen prompts after STEPS steps that teach motion; of shipped models that took as many, and of runs."""
    found = {}
    for name, report in reports.items():
        steps = sum(one["steps"] for part, one in training(name).items() if part not in STILL)
        if steps != STEPS and (EQUAL / name / "config.json").is_file():
            if (steps := steps_of(EQUAL / name)) != STEPS:
                raise UserError(f"{EQUAL / name}: expected {STEPS} steps of what teaches motion, found {steps}; train it further")
            report = measured(name, n, EQUAL / name)
        if steps == STEPS:
            found[name] = row_of(report, name, "test_seen")
    return found


def steps_of(run: Path) -> int:
    """How many steps of a run have taught motion."""
    paths = (path for path in run.glob("*/checkpoint.pt") if path.parent.name not in STILL)
    return sum(read_checkpoint(path)["step"] for path in paths)


def verdicts(pipe: TextToVideo, report: dict, split: str, clips: Path, batch: int = 16) -> str:
    """Whether all is right in each clip that the evaluation has kept, as a row of 0 and 1."""
    sample, found = KeptSampler(pipe, report, clips), ""
    view = find_data(data_of(report["model"])).open(split, pipe.preset.frames, pipe.preset.height, pipe.preset.width)
    for start in range(0, report["n"], batch):
        items = view.batch(range(start, min(start + batch, report["n"])))
        made = sample(items.captions, split, start)
        found += "".join("01"[agrees(read(clip), spec)["all"]] for clip, spec in zip(made, items.specs))
    return found


def floors(n: int) -> dict:
    """The report of Video LDM's image model and its decoder of pictures, frame by frame; kept likewise."""
    path, pipe = REPORTS / "floors.json", minit2v.load("videoldm", dtype=DTYPE)
    of = identity("videoldm", pipe, n)
    if report := kept(path, of=of):
        return report
    pictures = ModelScopeT2V(pipe.preset, pipe.text, FrameByFrame(pipe.unet), pipe.autoencoder)
    return keep(path, evaluate(PICTURES, "moving-things", ["test_seen"], n, pipe=pictures) | {"of": of})


def row_of(report: dict, clips: str, split: str) -> dict:
    return next(row for row in report["rows"] if (row["clips"], row["split"]) == (clips, split))


def facts(name: str) -> dict:
    """Parameters of a shipped model that a clip passes through, and the share of them that knows time."""
    pipe = minit2v.load(name)
    count = lambda modules: sum(p.numel() for module in modules for p in module.parameters())
    temporal = [layer for network in pipe.networks.values() for layer in getattr(network, "temporal_layers", list)()]
    total = count(pipe.networks.values())
    bytes_ = sum(path.stat().st_size for path in (data_dir() / name).glob("*.safetensors"))
    return {"parameters": total, "temporal": count(temporal), "bytes": bytes_}


def training(name: str) -> dict:
    """Steps and minutes of each part, as the shipped weights took them."""
    path = data_dir() / name / "trained.json"
    return read_json(path) if path.is_file() else {}


def evaluations(pipe: TextToVideo, prompt: str) -> int:
    """How often the networks that make a clip compute: once a step or a token, twice where there is guidance."""
    found = []
    networks = [getattr(network, "head", network) for part, network in pipe.networks.items() if part not in CODERS]
    hooks = [network.register_forward_hook(lambda module, given, made: found.append(len(made))) for network in networks]
    pipe(prompt, seed=0)
    for hook in hooks:
        hook.remove()
    return sum(found)


def clip_costs(names: list[str]) -> dict[str, dict]:
    """What a clip takes: evaluations of networks, and seconds, the median of a few; all systems in one run, in turn, as
    machines differ from day to day."""
    pipes, prompts, computed = {name: minit2v.load(name, dtype=DTYPE) for name in names}, {}, {}
    for name, pipe in pipes.items():
        prompts[name] = find_data(data_of(name)).open("test_seen", pipe.preset.frames, pipe.preset.height,
                                                      pipe.preset.width).batch([0]).captions[0]  # fmt: skip
        computed[name] = evaluations(pipe, prompts[name])  # a first clip also finds out how to compute
    took = {name: [] for name in names}
    for seed in range(CLIPS):
        for name, pipe in pipes.items():
            start = time.perf_counter()
            pipe(prompts[name], seed=seed)
            took[name].append(time.perf_counter() - start)
    return {name: {"seconds_per_clip": statistics.median(took[name]), "evaluations": computed[name]} for name in names}


def summary(reports: dict[str, dict], floor: dict, equal: dict) -> dict:
    """What data/systems.json holds."""
    rows, costs = {}, clip_costs(list(reports))
    for name, report in reports.items():
        row = {"report": {split: row_of(report, report["model"], split) for split in report["verdicts"]}}
        row |= {key: report[key] for key in FROM_REPORT} | facts(name) | {"training": training(name)}
        row |= costs[name] | {"threads": torch.get_num_threads()}
        if BASE in reports and name != BASE:
            row["against"] = {}
            for split, right in report["verdicts"].items():
                _, base, own = discordant(*(np.array(list(one)) == "1" for one in (reports[BASE]["verdicts"][split], right)))
                row["against"][split] = {"only base": base, "only this": own, "p": mcnemar(base, own)}
        rows[name] = row
    found = reports | {FLOORS: floor}
    bounds = {label: row_of(found[of], clips, "test_seen") for label, of, clips in BOUNDS if found.get(of)}
    return {"rows": rows, "bounds": bounds, "ranks": ranks(rows), "equal steps": equal}


def ranks(rows: dict[str, dict]) -> dict:
    """Kendall's tau of our order with the published one, for each metric that both have."""
    published, found = {row.system: row for row in TABLE}, {}
    names = {"FID-vid": "FID-vid", "FVD": "FVD-mini", "CLIPSIM": "CLIPSIM"}
    for metric, field in PUBLISHED.items():
        pairs = [(getattr(published[ROWS[name]], field), row["report"]["test_seen"]["metrics"][names[metric]]["value"])
                 for name, row in rows.items() if name in ROWS]  # fmt: skip
        pairs = [pair for pair in pairs if pair[0] is not None]
        compared = list(combinations(pairs, 2))
        if compared:
            same = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in compared)
            tau, p = kendall(*zip(*pairs))
            found[metric] = {"pairs": len(compared), "same": same, "tau": tau, "p": p}
    return found


def share(row: dict, name: str) -> str:
    return "{percent:.1f} ({low:.1f}–{high:.1f})".format(**row[name])


def published(name: str) -> str:
    """The figures in the paper's table; empty for a model that is none of its rows."""
    row = next((row for row in TABLE if row.system == ROWS.get(name)), None)
    figures = (getattr(row, field) for field in PUBLISHED.values()) if row else ()
    return " / ".join("–" if figure is None else f"{figure:g}" for figure in figures)


def table(report: dict) -> str:
    """data/systems.json as Markdown: ours, with floors and ceilings, and the published figures beside."""
    head = ["system", *(f"all right, {split}, %" for split in SPLITS.values()), "direction, seen, %", *METRICS,
            "seconds a clip", FIGURES]  # fmt: skip
    lines = []
    for name, row in report["rows"].items():
        of = row["report"]
        lines.append([(ROWS | MORE)[name], *(share(of[split], "all") if split in of else "" for split in SPLITS),
                      share(of["test_seen"], "motion"), *(cell(of["test_seen"]["metrics"].get(metric)) for metric in METRICS),
                      f"{row['seconds_per_clip']:.2f}", published(name)])  # fmt: skip
    for label, row in report["bounds"].items():
        lines.append([f"*{label}*", share(row, "all"), "", "", share(row, "motion"),
                      *(cell(row["metrics"].get(metric)) for metric in METRICS), "", ""])  # fmt: skip
    return markdown_table(head, lines)


def in_short(report: dict) -> str:
    """The rows for the README."""
    lines = []
    for name in filter(report["rows"].get, [*MORE, *ROWS]):
        of = report["rows"][name]["report"]
        lines.append([(MORE | ROWS)[name], *(f"{of[split]['all']['percent']:.1f}" for split in SPLITS),
                      f"{of['test_seen']['motion']['percent']:.1f}", published(name)])  # fmt: skip
    return markdown_table(["system", *(f"all right: {split}" for split in SPLITS.values()), "direction, seen", FIGURES], lines)


def costs(report: dict) -> str:
    """What each model is and what its training took."""
    lines = []
    for name, row in report["rows"].items():
        batch = {step.name: step.settings["batch"] for step in recipe_of(name)}
        steps = ", ".join(f"{part} {one['steps']:,} × {batch[part]} ({one['minutes']:.0f} min)"
                          for part, one in row["training"].items())  # fmt: skip
        share = f"{row['temporal'] / row['parameters']:.0%}" if row["temporal"] else "–"
        lines.append([(ROWS | MORE)[name], f"{row['parameters'] / 1e6:.1f} M", share, f"{row['bytes'] / 1e6:.1f} MB",
                      row["steps"], row["evaluations"], f"{row['peak_memory_gb']:.2f} GB", steps])  # fmt: skip
    return markdown_table(["system", "parameters", "of these temporal", "own files", "steps", "evaluations", "peak memory",
                           "trained, steps × batch"], lines)  # fmt: skip


def command(name: str) -> str:
    """How a system is trained."""
    parts = [f"minit2v train all --preset {name} --out runs/{name}", f"--from {SHARE[name]}" if SHARE[name] else "",
             f"--data {data_of(name)}" if name.endswith("-zh") else ""]  # fmt: skip
    return " ".join(filter(None, parts))


def commands(names: Sequence[str] = tuple(SHARE)) -> str:
    """How systems are trained, in order."""
    return "```\n" + "\n".join(map(command, names)) + "\n```"


def made_by(name: str) -> str:
    """The command of a system, after that of the run which it takes parts of."""
    return commands((BASE, name) if SHARE[name] == RUN else (name,))


def card(name: str) -> str:
    """The middle of a model card: files, training, and the judge's table, as far as it has been measured."""
    folder = data_dir() / name
    shared, preset = kept(folder / "shared.json") or {}, preset_of(name)
    with torch.device("meta"):
        networks = build(preset)
    count = lambda network: f"{sum(p.numel() for p in network.parameters()):,}"
    files = [[f"`{part}.safetensors`" + (f" of [`{shared[part]}`](../{shared[part]})" if part in shared else ""), count(network)]
             for part, network in networks.items()]  # fmt: skip
    took, steps = training(name), {step.name: step for step in recipe_of(name)}
    rows = [[part, f"{one['steps']:,}", f"{one['minutes']:.0f}", " ".join(f"`{key}={value}`" for key, value in
             steps[part].settings.items())] for part, one in took.items()]  # fmt: skip
    report = kept(REPORTS / f"{name}.json") or {}
    return "\n\n".join([
        markdown_table(["file", "parameters"], files),
        "## How it was made",
        made_by(name),
        markdown_table(["step", "optimizer steps", "minutes", "settings"], rows),
        f"The minutes are those of {MACHINE}. What two models have in common is trained once and taken over.",
        *(["## How good it is", judged(report), table_note(report)] if "rows" in report else []),
    ])  # fmt: skip


def pairs(report: dict) -> str:
    """Each system against ModelScopeT2V, on the prompts where only one of both is right."""
    lines = [[(ROWS | MORE)[name], *("{only base} / {only this}, p = {p:.2g}".format(**row["against"][split])
                                     if split in row.get("against", ()) else "" for split in SPLITS)]
             for name, row in report["rows"].items() if row.get("against")]  # fmt: skip
    return markdown_table(["against ModelScopeT2V: right in it only / in this only", *SPLITS.values()], lines)


def equal(report: dict) -> str:
    """The systems after the same number of steps."""
    lines = [[ROWS[name], share(row, "all"), share(row, "motion"), *(cell(row["metrics"].get(metric)) for metric in METRICS)]
             for name, row in report["equal steps"].items()]  # fmt: skip
    return markdown_table([f"after {STEPS:,} steps", "all right, seen, %", "direction, seen, %", *METRICS], lines)


def order(report: dict) -> str:
    """Our order against the published one."""
    lines = [[metric, f"{one['same']} of {one['pairs']}", f"{one['tau']:+.2f}", f"{one['p']:.2f}"]
             for metric, one in report["ranks"].items()]  # fmt: skip
    return markdown_table(["metric", "pairs of systems in the published order", "Kendall's tau", "p, by all orders"], lines)


TABLES = {"": table, ", equal steps": equal, ", pairs": pairs, ", order": order, ", costs": costs, ", in short": in_short}


def block(part: str) -> str:
    """A part of data/systems.json as Markdown, for the documents; nothing before the first evaluation."""
    report = kept(data_dir() / "systems.json")
    return TABLES[part](report) if report else ""


def draw(names: list[str], out: Path) -> None:
    """Strips of the same prompts and seeds for all systems."""
    view = MovingThings("test_seen", size=64, frames=16)
    prompts = [view.text(i)[0] for i in range(SHOWN)]
    figure, axes = plt.subplots(len(names), SHOWN, figsize=(2.6 * SHOWN, 0.62 * len(names)), squeeze=False)
    for row, name in zip(axes, names):
        pipe = minit2v.load(name)
        texts = MovingThings("test_seen", size=64, frames=16, language="zh") if name.endswith("-zh") else view
        for i, axis in enumerate(row):
            pixels = pipe(texts.text(i)[0], seed=i).pixels
            axis.imshow(np.concatenate([pixels[j] for j in evenly(len(pixels), FRAMES)], axis=1))
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel((ROWS | MORE)[name], rotation=0, ha="right", va="center", fontsize=8)
    for axis, prompt in zip(axes[0], prompts):
        axis.set_title(prompt, fontsize=6)
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=512, help="prompts a split")
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *MORE], default=[*ROWS, *MORE])
    asked = parser.parse_args()
    names = [name for name in asked.only if there(name)]
    if not names:
        raise UserError(f"expected a shipped model of {', '.join(asked.only)}, found none in {data_dir()}")
    if missing := [name for name in asked.only if name not in names]:
        say(f"not there yet, left out: {', '.join(missing)}")
    reports = {name: measured(name, asked.n) for name in names}
    same = at_equal_steps({name: report for name, report in reports.items() if name in ROWS}, asked.n)
    found = keep(data_dir() / "systems.json", summary(reports, floors(asked.n) if there("videoldm") else {}, same))
    say("\n\n".join(part(found) for part in (table, equal, pairs, order, costs)))
    draw(names, ROOT / "docs/systems.png")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"systems: {error}")
