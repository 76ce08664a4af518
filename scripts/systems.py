"""The seven systems of the paper's table under one protocol: make systems

    each model ── evaluate, N prompts a split ──► docs/systems/NAME.json      kept: only what changed is sampled again
               ── verdicts, prompt by prompt ──► McNemar's test against ModelScopeT2V
               ── summary ──► docs/systems.json ── write_docs ──► docs/systems.md, README.md
               ── eight prompts, the same seeds ──► docs/systems.png

The floors come from the image model that Video LDM holds: its pictures one by one, its first picture throughout, and
without a prompt. A model that is not there yet is left out, and said so.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from torch import nn  # noqa: E402

import minit2v  # noqa: E402
from minit2v.datasets import find_data  # noqa: E402
from minit2v.datasets.moving_things import MovingThings  # noqa: E402
from minit2v.errors import UserError  # noqa: E402
from minit2v.evaluation.clip_sources import KeptSampler, fingerprint_of  # noqa: E402
from minit2v.evaluation.full_scale.published import MARK, TABLE  # noqa: E402
from minit2v.evaluation.judge import agrees, read  # noqa: E402
from minit2v.evaluation.paired import discordant, kendall, mcnemar  # noqa: E402
from minit2v.evaluation.report import evaluate  # noqa: E402
from minit2v.evaluation.table import cell, markdown_table  # noqa: E402
from minit2v.files import atomic, data_dir, say  # noqa: E402
from minit2v.pixels import evenly  # noqa: E402

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
SPLITS = {"test_seen": "seen", "test_heldout": "held out", "test_imageonly": "pictures only"}
METRICS = ("FID-vid", "FVD-mini", "CLIPSIM / real")
PUBLISHED = {"FID-vid": "fid_vid", "FVD": "fvd", "CLIPSIM": "clipsim"}
SHOWN, FRAMES = 8, 6  # prompts and frames of the picture


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


def measured(name: str, n: int, splits, folder: Path) -> dict:
    """The report of a shipped model, with the verdict on each prompt; kept, as long as the weights are the same."""
    path, weights = folder / f"{name}.json", fingerprint_of(name, minit2v.load(name).dtype)
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if (report.get("weights"), report.get("n"), "verdicts" in report) != (weights, n, True):
        report = evaluate(name, data_of(name), splits, n, path)
        report["verdicts"] = {split: verdicts(name, report, split, path) for split in splits}
        with atomic(path) as unfinished:
            unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def verdicts(name: str, report: dict, split: str, path: Path, batch: int = 16) -> list[bool]:
    """Whether all is right in each clip that the evaluation has kept."""
    pipe, found = minit2v.load(name), []
    sample = KeptSampler(pipe, report, path.with_suffix(""))
    view = find_data(data_of(name)).open(split, pipe.preset.frames, pipe.preset.height, pipe.preset.width)
    for start in range(0, report["n"], batch):
        items = view.batch(range(start, min(start + batch, report["n"])))
        clips = sample(items.captions, split, start)
        found += [agrees(read(clip), spec)["all"] for clip, spec in zip(clips, items.specs)]
    return found


def floors(n: int, folder: Path) -> dict:
    """The report of Video LDM's image model, frame by frame; kept likewise."""
    path, pipe = folder / "floors.json", minit2v.load("videoldm")
    weights = fingerprint_of("videoldm", pipe.dtype)
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if (report.get("of"), report.get("n")) != (weights, n):
        pipe.unet = FrameByFrame(pipe.unet)
        report = evaluate(PICTURES, "moving-things", ["test_seen"], n, path, pipe=pipe) | {"of": weights}
        with atomic(path) as unfinished:
            unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


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


def training(name: str, kept: dict) -> dict:
    """Steps and minutes of each part, from the logs of runs/NAME; what was kept before, where they are gone."""
    found = {}
    for log in sorted((ROOT / "runs" / name).glob("*/log.jsonl")):
        last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        found[log.parent.name] = {"steps": last["step"], "minutes": round(last["seconds"] / 60, 1)}
    return found or kept.get(name, {})


def summary(reports: dict[str, dict], floor: dict, kept: dict) -> dict:
    """What docs/systems.json holds."""
    rows = {}
    for name, report in reports.items():
        row = {"report": {split: row_of(report, report["model"], split) for split in report["verdicts"]}}
        row |= {key: report[key] for key in ("n", "steps", "guidance", "seconds_per_clip", "threads", "commit", "weights")}
        row |= facts(name) | {"training": training(name, {k: v.get("training", {}) for k, v in kept.get("rows", {}).items()})}
        if BASE in reports and name != BASE:
            row["against"] = {}
            for split, right in report["verdicts"].items():
                _, base, own = discordant(reports[BASE]["verdicts"][split], right)
                row["against"][split] = {"only base": base, "only this": own, "p": mcnemar(base, own)}
        rows[name] = row
    bounds = {}
    if floor:
        kinds = {"real clips": "real clips", "autoencoder": "autoencoder", PICTURES: PICTURES,
                 "frozen first frame": "its first frame throughout", "empty prompt": "without a prompt"}  # fmt: skip
        bounds = {label: row_of(floor, kind, "test_seen") for kind, label in kinds.items()}
    return {"rows": rows, "bounds": bounds, "ranks": ranks(rows)}


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


def table(report: dict) -> str:
    """docs/systems.json as Markdown: ours, with floors and ceilings, and the published figures beside."""
    published = {row.system: row for row in TABLE}
    head = ["system", *(f"all right, {split}, %" for split in SPLITS.values()), "direction, seen, %", *METRICS,
            "seconds a clip", f"FID-vid / FVD / CLIPSIM, {MARK}"]  # fmt: skip
    lines = []
    for name, row in report["rows"].items():
        of = row["report"]
        figures = published.get(ROWS.get(name))
        said = " / ".join("–" if (value := getattr(figures, field)) is None else f"{value:g}"
                          for field in PUBLISHED.values()) if figures else ""  # fmt: skip
        lines.append([(ROWS | MORE)[name], *(share(of[split], "all") if split in of else "" for split in SPLITS),
                      share(of["test_seen"], "motion"), *(cell(of["test_seen"]["metrics"].get(metric)) for metric in METRICS),
                      f"{row['seconds_per_clip']:.2f}", said])  # fmt: skip
    for label, row in report["bounds"].items():
        lines.append([f"*{label}*", share(row, "all"), "", "", share(row, "motion"),
                      *(cell(row["metrics"].get(metric)) for metric in METRICS), "", ""])  # fmt: skip
    return markdown_table(head, lines)


def costs(report: dict) -> str:
    """What each model is and what its training took."""
    lines = []
    for name, row in report["rows"].items():
        steps = ", ".join(f"{part} {one['steps']:,} ({one['minutes']:.0f} min)" for part, one in row["training"].items())
        share = f"{row['temporal'] / row['parameters']:.0%}" if row["temporal"] else "–"
        evaluations = row["steps"] * (1 if row["guidance"] == 1 else 2)
        lines.append([(ROWS | MORE)[name], f"{row['parameters'] / 1e6:.1f} M", share, f"{row['bytes'] / 1e6:.1f} MB",
                      row["steps"], evaluations, steps])  # fmt: skip
    return markdown_table(["system", "parameters", "of these temporal", "own files", "steps", "evaluations", "trained, steps"],
                          lines)  # fmt: skip


def pairs(report: dict) -> str:
    """Each system against ModelScopeT2V, on the prompts where only one of both is right."""
    lines = [[(ROWS | MORE)[name], *("{only base} / {only this}, p = {p:.2g}".format(**row["against"][split])
                                     if split in row.get("against", ()) else "" for split in SPLITS)]
             for name, row in report["rows"].items() if row.get("against")]  # fmt: skip
    return markdown_table(["against ModelScopeT2V: right in it only / in this only", *SPLITS.values()], lines)


def order(report: dict) -> str:
    """Our order against the published one."""
    lines = [[metric, f"{one['same']} of {one['pairs']}", f"{one['tau']:+.2f}", f"{one['p']:.2f}"]
             for metric, one in report["ranks"].items()]  # fmt: skip
    return markdown_table(["metric", "pairs of systems in the published order", "Kendall's tau", "p, by all orders"], lines)


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
    asked, folder = parser.parse_args(), ROOT / "docs/systems"
    names = [name for name in asked.only if there(name)]
    if not names:
        raise UserError(f"expected a shipped model of {', '.join(asked.only)}, found none in {data_dir()}")
    if missing := [name for name in asked.only if name not in names]:
        say(f"not there yet, left out: {', '.join(missing)}")
    folder.mkdir(exist_ok=True)
    reports = {name: measured(name, asked.n, list(SPLITS), folder) for name in names}
    path = ROOT / "docs/systems.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = summary(reports, floors(asked.n, folder) if there("videoldm") else {}, kept)
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    say("\n\n".join(part(found) for part in (table, pairs, order, costs)))
    draw(names, ROOT / "docs/systems.png")


if __name__ == "__main__":
    main()
