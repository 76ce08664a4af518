"""The rows of `quality` as a table and a picture, each sampler against DDIM with 50 steps on the same prompts."""

import math
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from minit2v.errors import UserError
from minit2v.evaluation.estimates import NORMAL, mean_estimate, share_estimate
from minit2v.files import atomic

NAMES = {"ddim": "DDIM", "dpm++": "DPM-Solver++", "ddpm": "DDPM"}
COLOURS = {"ddim": "tab:blue", "dpm++": "tab:red", "ddpm": "tab:green"}
BASELINE = "ddim", 50
HEADINGS = ("sampler", "steps", "guidance", "network evaluations", "seconds a clip", "N", "all right, %",
            "less that of the baseline", "McNemar's p", "direction right, %", "FVD-mini", "floor", "diversity",
            "motion amplitude")  # fmt: skip


def discordant(a: list[bool], b: list[bool]) -> tuple[int, int, int]:
    """(pairs, of them right in a alone, right in b alone); the first prompts that both have."""
    pairs = [(bool(x), bool(y)) for x, y in zip(a, b)]
    return len(pairs), sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test: how likely so uneven a split is if both are equally often right alone.

    >>> mcnemar(5, 5), round(mcnemar(0, 6), 5)
    (1.0, 0.03125)
    """
    n, least = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)


def difference(n: int, only_a: int, only_b: int, z: float = NORMAL) -> tuple[float, float, float]:
    """(a's share less b's, its 95 % interval) of n pairs; Agresti and Min, Statistics in Medicine 24 (2005) 729-740:
    Wald's interval after half a pair was added to each of the four cells, so that it has a width even without any.

    >>> [round(x, 3) for x in difference(100, 10, 4)]
    [0.06, -0.015, 0.132]
    """
    total, gap = n + 2, only_a - only_b
    half = z * math.sqrt(only_a + only_b + 1 - gap**2 / total) / total
    return gap / n, gap / total - half, gap / total + half


def matches(row: dict, baseline: dict) -> bool:
    """Is the row as good as the baseline, as far as can be told? The interval of the difference in accuracy holds 0 or
    lies above it, and FVD-mini is not larger beyond both intervals."""
    _, _, high = difference(*discordant(row["all"], baseline["all"]))
    return high >= 0 and row["FVD-mini"]["low"] <= baseline["FVD-mini"]["high"]


def fewest(rows: list[dict], baseline: dict, sampler: str) -> int | None:
    """The least number of steps from which on all that were measured with as many prompts match the baseline."""
    alike = [row for row in rows if row["sampler"] == sampler and row["n"] == baseline["n"]]
    found = None
    for row in sorted(alike, key=lambda row: -row["steps"]):
        if not matches(row, baseline):
            break
        found = row["steps"]
    return found


def find_baseline(rows: list[dict], guidance: float) -> dict:
    """DDIM with 50 steps and the model's guidance. Raises UserError if it was not measured."""
    for row in rows:
        if (row["sampler"], row["steps"], row["guidance"]) == (*BASELINE, guidance):
            return row
    raise UserError(f"expected a row of {BASELINE[0]} with {BASELINE[1]} steps, found none; measure it: --part quality")


def percent(right: list[bool]) -> str:
    share = share_estimate(right)
    return f"{share.value:.1f} ({share.low:.1f}–{share.high:.1f})"


def cells(row: dict, baseline: dict) -> list[str]:
    """A row of the table, under HEADINGS."""
    n, only_a, only_b = discordant(row["all"], baseline["all"])
    gap, low, high = (100 * x for x in difference(n, only_a, only_b))
    fvd, amplitude = row["FVD-mini"], mean_estimate(row["motion amplitude"])
    itself = row is baseline
    return [
        NAMES[row["sampler"]], str(row["steps"]), f"{row['guidance']:g}", str(row["evaluations"]),
        "–" if row["seconds"] is None else f"{row['seconds']:.2f}", str(row["n"]), percent(row["all"]),
        "–" if itself else f"{gap:+.1f} ({low:+.1f} to {high:+.1f})",
        "–" if itself else f"{mcnemar(only_a, only_b):.2g}", percent(row["direction"]),
        f"{fvd['value']:.3g} ({fvd['low']:.3g}–{fvd['high']:.3g})", f"{fvd['floor']:.3g}",
        f"{statistics.mean(row['diversity']):.3g}",
        f"{amplitude.value:.3f} ({amplitude.low:.3f}–{amplitude.high:.3f})",
    ]  # fmt: skip


def table(rows: list[dict], guidance: float, how: str) -> str:
    """All rows in Markdown, what they were made with, and the fewest steps that match the baseline."""
    baseline = find_baseline(rows, guidance)
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(cells(row, baseline) for row in rows)]
    told = []
    for sampler in ("dpm++", "ddim", "ddpm"):
        steps = fewest([row for row in rows if row["guidance"] == guidance], baseline, sampler)
        told.append(f"{NAMES[sampler]} {'with no number of steps' if steps is None else f'from {steps} steps on'}")
    name = f"{NAMES[BASELINE[0]]} with {BASELINE[1]} steps"
    note = (
        f"{how}. Intervals are 95 %. The first N prompts of split val, the same initial noise for all; FVD-mini is "
        f"against 512 real clips, and larger the fewer clips there are: compare rows of equal N, and with the floor, "
        f"which is real clips in their place.\n\nAs good as {name}, as far as {baseline['n']} prompts can tell (the "
        f"interval of the difference reaches 0, FVD-mini is not larger beyond both intervals): {', '.join(told)}."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def bars(values: list[tuple[float, float, float]]) -> list[list[float]]:
    """(value, low, high) of each -> how far down and up its bar reaches."""
    return [[max(0.0, v - low) for v, low, _ in values], [max(0.0, high - v) for v, _, high in values]]


def interval(estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


FIGURES = {
    "all right, %": lambda row: interval(share_estimate(row["all"])),
    "FVD-mini": lambda row: tuple(row["FVD-mini"][name] for name in ("value", "low", "high")),
    "diversity": lambda row: interval(mean_estimate(row["diversity"])),
    "motion amplitude": lambda row: interval(mean_estimate(row["motion amplitude"])),
}


def line(axis, rows: list[dict], figure: str, x: str, most: int, **style) -> None:
    """A figure with its intervals against `x`; hollow where there are fewer prompts than in the most, but for FVD-mini,
    which is larger the fewer clips there are."""
    fair = lambda row: row[x] is not None and (figure != "FVD-mini" or row["n"] == most)
    rows = sorted(filter(fair, rows), key=lambda row: row[x])
    values, places = [FIGURES[figure](row) for row in rows], [row[x] for row in rows]
    drawn = axis.errorbar(places, [v for v, _, _ in values], bars(values), fmt="-", capsize=2, linewidth=1.2, **style)
    for place, (value, _, _), row in zip(places, values, rows):
        filled = drawn[0].get_color() if row["n"] == most else "white"
        axis.plot(place, value, "o", color=drawn[0].get_color(), markerfacecolor=filled, markersize=5)
    axis.set_ylabel(figure)
    axis.grid(alpha=0.3)


def draw(rows: list[dict], guidance: float, path: Path) -> None:
    """All figures against network evaluations; accuracy and FVD-mini against seconds, and against guidance."""
    figure, axes = plt.subplots(2, 4, figsize=(15, 7), constrained_layout=True)
    most = max(row["n"] for row in rows)
    usual = [row for row in rows if row["guidance"] == guidance]
    ticks = sorted({row["evaluations"] for row in usual})
    against = [(axis, name, "evaluations") for axis, name in zip(axes[0], FIGURES)]
    for axis, name, x in (*against, (axes[1, 0], "all right, %", "seconds"), (axes[1, 1], "FVD-mini", "seconds")):
        for sampler, label in NAMES.items():
            of_sampler = [row for row in usual if row["sampler"] == sampler]
            line(axis, of_sampler, name, x, most, color=COLOURS[sampler], label=label)
        axis.set(xscale="log", xlabel="network evaluations a clip" if x == "evaluations" else "seconds a clip")
        if x == "evaluations":
            axis.set(xticks=ticks, xticklabels=ticks)
            axis.minorticks_off()
    axes[0, 0].legend(fontsize=8)
    ddim = [row for row in rows if row["sampler"] == "ddim"]
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
    least = min(row["n"] for row in rows)
    figure.suptitle(f"{most} prompts, 95 % intervals" + (f"; hollow: N = {least}" if least < most else ""), fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(rows: list[dict], guidance: float, how: str, out: Path) -> None:
    """Print the table, write it to `out` and the picture beside it."""
    text = table(rows, guidance, how)
    print(text)
    with atomic(out) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    draw(rows, guidance, out.with_suffix(".png"))
