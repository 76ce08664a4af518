"""The figures of `quality` as a summary, a table and a picture, each row against DDIM with 50 steps, prompt by prompt.

    rows with a verdict for every prompt  ── summary ──►  docs/quality.json  ── table ──►  docs/quality.md
                                                                             ── draw ───►  docs/quality.png
"""

import math
import statistics
from dataclasses import asdict
from pathlib import Path

from minit2v.errors import UserError
from minit2v.evaluation.estimates import NORMAL, mean_estimate, share_estimate
from minit2v.evaluation.paired import discordant, mcnemar
from minit2v.evaluation.table import markdown_table
from minit2v.files import write_json

NAMES = {"ddim": "DDIM", "dpm++": "DPM-Solver++", "ddpm": "DDPM"}
COLOURS = {"ddim": "tab:blue", "dpm++": "tab:red", "ddpm": "tab:green"}
BASELINE = {"sampler": "ddim", "steps": 50}  # of the slow model, with its own guidance
HEADINGS = ("model", "sampler", "steps", "guidance", "network evaluations", "seconds a clip", "N", "all right, %",
            "minus the baseline", "McNemar's p", "direction right, %", "FVD-mini", "floor", "diversity",
            "motion amplitude")  # fmt: skip
FAST_COLOUR = "tab:orange"  # the model of few steps, by DDIM
FIGURES = ("all right, %", "FVD-mini", "diversity", "motion amplitude")  # that are drawn


def difference(n: int, only_a: int, only_b: int, z: float = NORMAL) -> tuple[float, float, float]:
    """(a's share minus b's, the ends of its 95 % interval) of n pairs.

    Agresti and Min, Statistics in Medicine 24 (2005) 729-740: Wald's interval after half a pair is added to each of the
    four cells, so that the interval has a width even if no pair differs.

    >>> [round(x, 3) for x in difference(100, 10, 4)]
    [0.06, -0.015, 0.132]
    """
    total, gap = n + 2, only_a - only_b
    half = z * math.sqrt(only_a + only_b + 1 - gap**2 / total) / total
    return gap / n, gap / total - half, gap / total + half


def find_baseline(rows: list[dict], model: str, guidance: float) -> dict:
    """The row of the model with DDIM, 50 steps and this guidance. Raises UserError if it was not measured."""
    for row in rows:
        if {"model": model, "guidance": guidance, **BASELINE}.items() <= row.items():
            return row
    sampler, steps = BASELINE.values()
    raise UserError(f"expected a row of {sampler} with {steps} steps, found none; measure it: --part quality")


def summarized(row: dict, baseline: dict) -> dict:
    """The figures of a row, with a 95 % interval each, under the names of HEADINGS where they have a column."""
    n, only_a, only_b = discordant(row["all"], baseline["all"])
    value, low, high = (100 * x for x in difference(n, only_a, only_b))
    return {name: row[name] for name in ("model", "sampler", "steps", "guidance", "evaluations", "seconds", "n")} | {
        "all right, %": asdict(share_estimate(row["all"])),
        "minus the baseline": None if row is baseline else {"value": value, "low": low, "high": high},
        "McNemar's p": None if row is baseline else mcnemar(only_a, only_b),
        "direction right, %": asdict(share_estimate(row["direction"])),
        "FVD-mini": row["FVD-mini"],
        "diversity": asdict(mean_estimate(row["diversity"])),
        "motion amplitude": asdict(mean_estimate(row["motion amplitude"])),
    }


def summary(rows: list[dict], model: str, guidance: float, how: str) -> dict:
    """What is saved and shown of all rows: {"how", "model", "guidance", "rows"}. `model` and `guidance`: of the rows to
    which all are compared."""
    baseline = find_baseline(rows, model, guidance)
    return {"how": how, "model": model, "guidance": guidance, "rows": [summarized(row, baseline) for row in rows]}


def matches(row: dict, baseline: dict) -> bool:
    """Is a summarized row as good as the baseline, as far as can be told? The interval of the difference in accuracy
    reaches 0, and FVD-mini is not larger beyond both intervals."""
    gap = row["minus the baseline"]
    return (not gap or gap["high"] >= 0) and row["FVD-mini"]["low"] <= baseline["FVD-mini"]["high"]


def fewest(kept: dict, sampler: str) -> int | None:
    """The smallest number of steps from which on every row with as many prompts as the baseline matches it."""
    baseline = find_baseline(kept["rows"], kept["model"], kept["guidance"])
    same = {"sampler": sampler, "model": kept["model"], "guidance": kept["guidance"], "n": baseline["n"]}.items()
    found = None
    for row in sorted((row for row in kept["rows"] if same <= row.items()), key=lambda row: -row["steps"]):
        if not matches(row, baseline):
            break
        found = row["steps"]
    return found


def cells(row: dict) -> list[str]:
    """A summarized row as text, under HEADINGS."""
    show = lambda name, form, to="–": "{value:{0}} ({low:{0}}{1}{high:{0}})".format(form, to, **row[name])
    baseline = row["minus the baseline"] is None
    return [
        row["model"], NAMES[row["sampler"]], str(row["steps"]), f"{row['guidance']:g}", str(row["evaluations"]),
        "–" if row["seconds"] is None else f"{row['seconds']:.2f}", str(row["n"]), show("all right, %", ".1f"),
        "–" if baseline else show("minus the baseline", "+.1f", " to "),
        "–" if baseline else format(row["McNemar's p"], ".2g"), show("direction right, %", ".1f"),
        show("FVD-mini", ".3g"), f"{row['FVD-mini']['floor']:.3g}", f"{row['diversity']['value']:.3g}",
        show("motion amplitude", ".3f"),
    ]  # fmt: skip


def table(kept: dict) -> str:
    """A summary in Markdown: all rows, how they were made, and the fewest steps that match the baseline."""
    baseline = find_baseline(kept["rows"], kept["model"], kept["guidance"])
    measured = {row["sampler"] for row in kept["rows"] if row["model"] == kept["model"]}
    found = {NAMES[sampler]: fewest(kept, sampler) for sampler in ("dpm++", "ddim", "ddpm") if sampler in measured}
    matching = [f"{name} {f'from {n} steps on' if n else 'at no number of steps'}" for name, n in found.items()]
    return (
        f"{markdown_table(HEADINGS, map(cells, kept['rows']))}\n\n{kept['how']}. Intervals are 95 %. All rows use the "
        "first N prompts of split val and the same initial noise. FVD-mini compares with 512 real clips, and grows as "
        "N falls: compare rows of equal N, and with the floor, which is real clips instead of generated ones.\n\n"
        f"As good as {kept['model']} by {NAMES[BASELINE['sampler']]} with {BASELINE['steps']} steps, as far as "
        f"{baseline['n']} prompts can tell (the interval of the difference reaches 0, and FVD-mini is "
        "not larger beyond both intervals): "
        f"{', '.join(matching)}."
    )


def line(axis, rows: list[dict], name: str, x: str, most: int, **style) -> None:
    """Draw a figure with its intervals against `x`. Points with fewer than `most` prompts are hollow; FVD-mini omits
    them, because it grows as N falls."""
    comparable = lambda row: row[x] is not None and (name != "FVD-mini" or row["n"] == most)
    rows = sorted(filter(comparable, rows), key=lambda row: row[x])
    places, figures = [row[x] for row in rows], [row[name] for row in rows]
    bars = [[max(0.0, f["value"] - f["low"]) for f in figures], [max(0.0, f["high"] - f["value"]) for f in figures]]
    drawn = axis.errorbar(places, [f["value"] for f in figures], bars, fmt="-", capsize=2, linewidth=1.2, **style)
    colour = drawn[0].get_color()
    for place, figure, row in zip(places, figures, rows):
        filled = colour if row["n"] == most else "white"
        axis.plot(place, figure["value"], "o", color=colour, markerfacecolor=filled, markersize=5)
    axis.set_ylabel(name)
    axis.grid(alpha=0.3)


def draw(kept: dict, path: Path) -> None:
    """Draw all figures against network evaluations; accuracy and FVD-mini also against seconds and guidance."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = kept["rows"]
    figure, axes = plt.subplots(2, 4, figsize=(15, 7), constrained_layout=True)
    most, fewest_prompts = (pick(row["n"] for row in rows) for pick in (max, min))
    usual = [row for row in rows if row["model"] == kept["model"] and row["guidance"] == kept["guidance"]]
    fast = [row for row in rows if row["model"] != kept["model"]]
    ticks = sorted({row["evaluations"] for row in (*usual, *fast)})
    against = [(axis, name, "evaluations") for axis, name in zip(axes[0], FIGURES)]
    for axis, name, x in (*against, (axes[1, 0], FIGURES[0], "seconds"), (axes[1, 1], FIGURES[1], "seconds")):
        for sampler, label in NAMES.items():
            if of_sampler := [row for row in usual if row["sampler"] == sampler]:
                line(axis, of_sampler, name, x, most, color=COLOURS[sampler], label=label)
        if fast:
            line(axis, fast, name, x, most, color=FAST_COLOUR, label=fast[0]["model"])
        axis.set(xscale="log", xlabel="network evaluations a clip" if x == "evaluations" else "seconds a clip")
        if x == "evaluations":
            axis.set(xticks=ticks, xticklabels=ticks)
            axis.minorticks_off()
    axes[0, 0].legend(fontsize=8)
    ddim = [row for row in rows if row["sampler"] == "ddim" and row["model"] == kept["model"]]
    same = statistics.multimode([row["steps"] for row in ddim])[0]
    for axis, name in zip(axes[1, 2:], FIGURES):
        line(axis, [row for row in ddim if row["steps"] == same], name, "guidance", most, color=COLOURS["ddim"])
        axis.set(xlabel=f"guidance, DDIM with {same} steps")
    floor = next(row["FVD-mini"]["floor"] for row in usual if row["n"] == most)
    for axis in (axes[0, 1], axes[1, 1], axes[1, 3]):
        axis.set_yscale("log")
        axis.axhline(floor, color="0.5", linestyle="--", linewidth=1)
        place = {"xy": (0.02, floor), "xycoords": ("axes fraction", "data"), "va": "bottom"}
        axis.annotate(f"real clips, N = {most}", **place, fontsize=8, color="0.4")
    hollow = f"; hollow: N = {fewest_prompts}" if fewest_prompts < most else ""
    figure.suptitle(f"{most} prompts, 95 % intervals{hollow}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(kept: dict, out: Path) -> None:
    """Save a summary as JSON in `out`, and draw the picture beside it."""
    write_json(out, kept)
    draw(kept, out.with_suffix(".png"))
