"""A report as Markdown: accuracies of the judge, distances to real clips, text and motion, and how they were made."""

from collections.abc import Iterable, Sequence

from minit2v.evaluation.full_scale.published import MARK, MODELSCOPE
from minit2v.evaluation.judge import ATTRIBUTES
from minit2v.evaluation.mini.scores import DISTANCES

COLUMNS = {name: name for name in (*ATTRIBUTES, "all")} | {"motion": "direction"}  # key of `agrees` -> heading
TEXT = ("CLIPSIM", "CLIPSIM / real", "video similarity", "direction gap", "R-precision")
MOTION = ("motion amplitude", "identity drift", "flicker", "diversity")
WHOLE = "% right (95 % interval)."
APART = (
    "Fréchet distances, less is better: value (95 % interval) → its extrapolation to infinitely many clips. The row of "
    "real clips is the floor, other clips of the same prompts."
)
ALIKE = (
    "Means (95 % interval). CLIPSIM and video similarity are cosines of caption and clip by the metrics' own CLIP; "
    "direction gap is how much the latter falls with the opposite direction in the caption; R-precision in %, chance 3.1."
)


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
    """The whole report."""
    tables = [judged(report)]
    if any(row.get("metrics") for row in report["rows"]):
        tables += [_metrics(report, list(DISTANCES), APART), _metrics(report, TEXT, ALIKE)]
        tables += [_metrics(report, MOTION, "Means (95 % interval); read them beside the row of real clips.")]
        figures = ", ".join(f"{name} {value:g}" for name, value in MODELSCOPE.figures().items())
        tables.append(f"ModelScopeT2V ({MARK}; {MODELSCOPE.source}): {figures}. Same names, but on MSR-VTT and through "
                      "other networks: not to be compared with the figures above.\n")
    return "\n".join(tables) + "\n" + note(report)


def judged(report: dict) -> str:
    """The accuracies, of each kind of clips and each split."""
    cell = "{percent:.1f} ({low:.1f}–{high:.1f})"
    rows = [[cell.format(**row[key]) for key in COLUMNS] for row in report["rows"]]
    return _table(report, list(COLUMNS.values()), rows) + f"\n{WHOLE}\n"


def note(report: dict) -> str:
    """How the clips were made, in one paragraph."""
    made = "{model}, {sampler}, {steps} steps, guidance {guidance:g}, seed {seed}; one clip takes {seconds_per_clip:.1f} s, "
    made += "with 50 steps {seconds_with_50_steps:.1f} s, in {dtype} on {device} with {threads} threads, torch {torch}"
    text = (made if "sampler" in report else "{model}, {n} clips of a folder, seed {seed}").format(**report)
    text += f", minit2v {report['commit']}."
    if report.get("peak_memory_gb"):
        text += f" `minit2v sample` with 50 steps takes {report['peak_memory_gb']:.2f} GB of memory at most."
    short = [f"{row['split']} has {row['n']}" for row in report["rows"] if row["n"] < report["n"]]
    if short:
        text += f" Asked for {report['n']} prompts a split: {', '.join(dict.fromkeys(short))}."
    return text + "\n"


def _metrics(report: dict, names, explained: str) -> str:
    rows = [[_cell(row["metrics"].get(name)) for name in names] for row in report["rows"]]
    return _table(report, list(names), rows) + f"\n{explained}\n"


def _cell(estimate: dict | None) -> str:
    if estimate is None:
        return ""
    digits = 1 if estimate["value"] >= 10 else 2 if estimate["value"] >= 1 else 3
    text = "{value:.{d}f} ({low:.{d}f}–{high:.{d}f})".format(**estimate, d=digits)
    return text if estimate.get("limit") is None else text + " → {limit:.{d}f}".format(**estimate, d=digits)


def _table(report: dict, headings: list[str], cells: list[list[str]]) -> str:
    rows = [[row["clips"], row["split"], row["n"], *texts] for row, texts in zip(report["rows"], cells)]
    return markdown_table(["clips", "prompts", "N", *headings], rows) + "\n"
