"""Markdown tables: the one function that writes them, and the tables of a report.

A report has accuracies of a judge, distances to real clips, text and motion, as far as they were measured, and a note
that says how they were made.
"""

from collections.abc import Iterable, Sequence

from minit2v.evaluation.full_scale.published import MARK, MODELSCOPE
from minit2v.evaluation.mini.features import DISTANCES

HEADINGS = {"motion": "direction"}  # of attributes, where the heading differs from the name
TEXT = ("CLIPSIM", "CLIPSIM / real", "video similarity", "direction gap", "R-precision", "caption sensitivity")
PIXELS = ("PSNR", "motion amplitude", "identity drift", "flicker", "colour changes", "shape breaks", "diversity")
ACCURACY_NOTE = "% right (95 % interval)."
DISTANCE_NOTE = (
    "Fréchet distances, lower is better: value (95 % interval) → extrapolation to infinitely many clips. The row of "
    "real clips is the floor"
)
DRAWN_FLOOR = ", other clips of the same prompts."
OTHER_FLOOR = (
    ": their distance from clips of the split train, from which all rows are measured. The networks know Moving Things "
    "only, so compare these figures with each other and with no other data set's."
)
SIMILARITY_NOTE = (
    "Means (95 % interval). CLIPSIM and video similarity are cosines of caption and clip in the metrics' own CLIP; "
    "direction gap is how much video similarity drops when the caption has the opposite direction; R-precision in %, "
    "chance 3.1."
)
SENSITIVITY_NOTE = (
    "Ratio of means (95 % interval) over at most 64 real clips. Caption sensitivity is how much the model's loss rises, in %, "
    "when a clip gets the caption of another one; 0 means that the model does not use its text."
)
PIXELS_NOTE = "Means (95 % interval); compare them with the row of real clips."
UNSTEADY_NOTE = " Colour changes and shape breaks are % of the clips in which some frame shows another colour or shape."
PSNR_NOTE = " PSNR, in dB, is that of the autoencoder's reconstructions."


def markdown_table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Rows of cells under their headings as Markdown, without a line break at the end.

    >>> print(markdown_table(["clips", "N"], [["real", 8]]))
    | clips | N |
    | --- | --- |
    | real | 8 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def markdown(report: dict) -> str:
    """All tables of a report, and its note."""
    measured = {name for row in report["rows"] for name in row.get("metrics", {})}
    drawn = "CLIPSIM" in measured  # real clips were drawn from the very prompts, as those of Moving Things can be
    parts = [
        judged(report),
        _metrics(report, measured, DISTANCES, DISTANCE_NOTE + (DRAWN_FLOOR if drawn else OTHER_FLOOR)),
        _metrics(report, measured, TEXT, SIMILARITY_NOTE if drawn else SENSITIVITY_NOTE),
        _metrics(report, measured, PIXELS, PIXELS_NOTE + PSNR_NOTE * ("PSNR" in measured)
                 + UNSTEADY_NOTE * ("shape breaks" in measured)),
        _published() if drawn else "",
        note(report),
    ]
    return "\n".join(part for part in parts if part)


def judged(report: dict) -> str:
    """The accuracies of each kind of clips in each split; "" for a data set without a judge."""
    attributes = [name for name, value in report["rows"][0].items() if isinstance(value, dict) and "percent" in value]
    cell = "{percent:.1f} ({low:.1f}–{high:.1f})"
    cells = [[cell.format(**row[name]) for name in attributes] for row in report["rows"]]
    headings = [HEADINGS.get(name, name) for name in attributes]
    return _table(report["rows"], headings, cells) + f"\n{ACCURACY_NOTE}\n" if attributes else ""


def note(report: dict) -> str:
    """How the clips were made, in one paragraph."""
    system = "{model} on {data}" if "data" in report else "{model}"
    if "sampler" in report:
        steps = "{steps} steps" if report["steps"] > 1 else "one step"
        text = system + ", {sampler}, " + steps + ", guidance {guidance:g}, seed {seed}; "
        text += "one clip takes {seconds_per_clip:.2g} s, "
        text += "with 50 steps {seconds_with_50_steps:.2g} s, " if report["seconds_with_50_steps"] else ""
        text += "in {dtype} on {device} with " + ("{threads} threads" if report["threads"] > 1 else "one thread") + ", torch {torch}"
    else:
        text = system + ", {n} clips of a folder, seed {seed}"
    text = text.format(**report) + f", minit2v {report['commit']}."
    if report.get("peak_memory_gb"):
        steps = " with 50 steps" if report["seconds_with_50_steps"] else ""
        text += f" `minit2v sample`{steps} needs at most {report['peak_memory_gb']:.2f} GB of memory."
    short = [f"{row['split']} has {row['n']}" for row in report["rows"] if row["n"] < report["n"]]
    if short:
        text += f" Of {report['n']} prompts a split that were requested, {', '.join(dict.fromkeys(short))}."
    return text + "\n"


def _published() -> str:
    figures = ", ".join(f"{name} {value:g}" for name, value in MODELSCOPE.figures().items())
    return (f"ModelScopeT2V ({MARK}; {MODELSCOPE.source}): {figures}. The same names, but on MSR-VTT and with "
            "other networks: not comparable with the figures above.\n")  # fmt: skip


def _metrics(report: dict, measured: set[str], names: Iterable[str], explained: str) -> str:
    """The table of those metrics and rows that were measured; "" if none was."""
    names = [name for name in names if name in measured]
    rows = [row for row in report["rows"] if any(name in row.get("metrics", ()) for name in names)]
    cells = [[cell(row["metrics"].get(name)) for name in names] for row in rows]
    return _table(rows, names, cells) + f"\n{explained}\n" if rows else ""


def cell(estimate: dict | None) -> str:
    """An estimate with its interval and limit, as far as it has them."""
    if estimate is None:
        return ""
    digits = 1 if estimate["value"] >= 10 else 2 if estimate["value"] >= 1 else 3
    text = "{value:.{d}f} ({low:.{d}f}–{high:.{d}f})".format(**estimate, d=digits)
    return text if estimate.get("limit") is None else text + " → {limit:.{d}f}".format(**estimate, d=digits)


def _table(rows: list[dict], headings: list[str], cells: list[list[str]]) -> str:
    lines = [[row["clips"], row["split"], row["n"], *texts] for row, texts in zip(rows, cells)]
    return markdown_table(["clips", "prompts", "N", *headings], lines) + "\n"
