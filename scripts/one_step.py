"""How one step fails, and which metric sees it: python scripts/one_step.py mini-fast mini docs/one-step

A model of few steps makes the first clips of each test split in one step. Every clip that the judge calls wrong is filed
under the first attribute that it misses, and measured. OUT.json keeps the means of each kind beside those of the clips that
are right; OUT.png shows the first clips of each kind above what four steps, and the model that it was made from, make of the
same prompt and noise.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from judging import made

import minit2v
from minit2v.checkpoints.find import find_model, fingerprint
from minit2v.evaluation import motion
from minit2v.evaluation.estimates import mean_estimate
from minit2v.evaluation.judge import ATTRIBUTES, agrees, read
from minit2v.evaluation.table import HEADINGS, cell, markdown_table
from minit2v.files import write_json

SPLITS = ("test_seen", "test_heldout", "test_imageonly")
EACH = 128  # clips of a split
SHOWN = 2  # clips of a kind in the picture
MEASURES = ("identity drift", "flicker", "motion amplitude")
NONE = "nothing"


def filed(pipe, split: str) -> list[dict]:
    """The first clips of a split in one step: caption, seed, kind (the first attribute that is wrong) and measures."""
    found = []
    for seed, (caption, spec, clip) in enumerate(made(pipe, split, EACH, steps=1)):
        verdict, measured = agrees(read(clip.pixels), spec), motion.measure(clip.pixels[None])
        kind = next((name for name in ATTRIBUTES if not verdict[name]), NONE)
        found.append({"caption": caption, "seed": seed, "kind": kind, "clip": clip.pixels}
                     | {name: float(measured[name][0]) for name in MEASURES})  # fmt: skip
    return found


def summary(found: list[dict]) -> list[dict]:
    """A row for each kind: how many clips, and the mean of each measure if they are several."""
    summarized = []
    for kind in (NONE, *ATTRIBUTES):
        if rows := [row for row in found if row["kind"] == kind]:
            means = {name: asdict(mean_estimate([row[name] for row in rows])) for name in MEASURES if len(rows) > 1}
            summarized.append({"kind": kind, "clips": len(rows)} | means)
    return summarized


def table(kept: dict) -> str:
    """Markdown of a summary that was kept."""
    cells = [[HEADINGS.get(row["kind"], row["kind"]), row["clips"], *(cell(row.get(name)) for name in MEASURES)]
             for row in kept["rows"]]  # fmt: skip
    return f"{markdown_table(['first wrong', 'clips', *MEASURES], cells)}\n\n{kept['how']}"


def draw(found: list[dict], fast, slow, path: Path) -> None:
    """The first clips of each kind of failure: in one step, in four, and by the slow model."""
    import matplotlib.pyplot as plt
    from sample_sheet import strip  # draws without a window from then on

    kinds = [kind for kind in ATTRIBUTES if any(row["kind"] == kind for row in found)]
    chosen = {kind: [row for row in found if row["kind"] == kind][:SHOWN] for kind in kinds}
    figure, axes = plt.subplots(3 * len(kinds), SHOWN, figsize=(15, 3.6 * len(kinds)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (kind, rows) in enumerate(chosen.items()):
        for j, row in enumerate(rows):
            again = {"one step": row["clip"], "four steps": fast(row["caption"], seed=row["seed"], steps=4).pixels,
                     slow.preset.name: slow(row["caption"], seed=row["seed"]).pixels}  # fmt: skip
            for axis, (name, clip) in zip(axes[3 * i : 3 * i + 3, j], again.items()):
                axis.imshow(strip(clip))
                axis.text(-0.01, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=8)
            figures = ", ".join(f"{name} {row[name]:.2f}" for name in MEASURES)
            title = f"{row['caption']}  [wrong: {HEADINGS.get(kind, kind)}]\n{figures}"
            axes[3 * i, j].set_title(title, fontsize=8.5, loc="left")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(fast: str, slow: str, out: str) -> None:
    models = [minit2v.load(name, dtype="float32") for name in (fast, slow)]
    found = [row for split in SPLITS for row in filed(models[0], split)]
    how = (f"{models[0].preset.name} ({fingerprint(find_model(fast))}), one step, the first {EACH} prompts of each test "
           "split, prompt number i with seed i, float32. Means (95 % interval).")  # fmt: skip
    kept = {"how": how, "rows": summary(found)}
    draw(found, *models, Path(f"{out}.png"))
    write_json(Path(f"{out}.json"), kept)
    print(table(kept))


if __name__ == "__main__":
    main(*sys.argv[1:4])
