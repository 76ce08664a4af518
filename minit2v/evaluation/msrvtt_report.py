"""The paper's kind of table: FVD, FID-vid and CLIPSIM on MSR-VTT, beside what was published.

    captions of MSR-VTT ─ any model, or videos of another program ─> clips ─┐
    real clips of MSR-VTT ──────────────────────────────────────────────────┴─ full_scale.measure ─> table

The published rows were measured in ways that differ from one another and from this one, so each says that it was.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from minit2v.evaluation import full_scale, published
from minit2v.evaluation.extraction import Videos
from minit2v.evaluation.clip_sources import read_captions
from minit2v.evaluation.msrvtt import MSRVTT, Protocol
from minit2v.evaluation.report import checked, written

METRICS = ("FID-vid", "FID-vid (CLIP)", "FVD", "CLIPSIM", "CLIPSIM / real")


class Sampled(Sequence):
    """Clips of prompts, made when they are asked for: `sampled[i:j]` is a list of uint8 (f, H, W, 3).

    label says all that they depend on; prompt i starts from noise number seed + i.
    """

    def __init__(self, pipe, prompts: list[str], label: str, seed: int, options: dict):
        self.pipe, self.prompts, self.seed, self.options = pipe, prompts, seed, options
        self.label = f"{label} {seed} {options} {prompts}"

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, part: slice) -> list[np.ndarray]:
        start = range(len(self))[part].start
        return [clip.pixels for clip in self.pipe(self.prompts[part], seed=self.seed + start, **self.options)]


def evaluate_model(
    model: str, folder, protocol: Protocol, settings: full_scale.Settings, out=None, seed: int = 0,
    steps: int | None = None, guidance: float | None = None, sampler: str = "ddim", dtype: str = "auto",
) -> dict:  # fmt: skip
    """Samples a clip for each prompt that the protocol draws of MSR-VTT in `folder`, and measures them.

    Returns the report and writes it to `out` (.json, and .md beside it). Raises UserError before anything is sampled.
    """
    import minit2v

    out, real = checked(out), MSRVTT(folder, protocol)
    full_scale.load(settings)  # a wrong file shall be known before anything takes hours
    pipe = minit2v.load(model, dtype=dtype)
    chosen = {
        "steps": pipe.preset.steps if steps is None else steps,
        "guidance": pipe.preset.guidance if guidance is None else guidance,
        "sampler": sampler,
    }
    dtype = str(pipe.dtype).removeprefix("torch.")
    made = Sampled(pipe, real.prompts, f"{model} {dtype}", seed, chosen | {"frames": settings.frames})
    about = {"model": model, "seed": seed, "dtype": dtype} | chosen
    return _measured(made, real.prompts, real, settings, about, out)


def evaluate_videos(folder, captions, msrvtt, protocol: Protocol, settings: full_scale.Settings, out=None) -> dict:
    """The same for videos that another program made; `captions` has a line FILE<tab>CAPTION for each.

    Which prompts the protocol draws is `MSRVTT(folder, protocol).prompts`.
    """
    named = read_captions(captions)
    made = Videos([Path(folder) / name for name, _ in named])
    about = {"model": Path(folder).name}
    return _measured(made, [text for _, text in named], MSRVTT(msrvtt, protocol), settings, about, checked(out))


def _measured(made, captions, real: MSRVTT, settings: full_scale.Settings, about: dict, out) -> dict:
    figures = full_scale.measure(made, captions, real, settings, real.captions)
    return written(about | {
        "n": len(made), "data": real.record(), "settings": settings.record(),
        "metrics": {name: asdict(estimate) for name, estimate in figures.items()},
        "published": [asdict(row) for row in published.TABLE],
    }, out, markdown)  # fmt: skip


def markdown(report: dict) -> str:
    """The measured row, the published ones, and how the measured one came about."""
    lines = [["system", *METRICS, "how"], ["---"] * (2 + len(METRICS))]
    cells = [_cell(report["metrics"].get(name)) for name in METRICS]
    lines.append([report["model"], *cells, f"measured, {report['n']} clips, {report['data']['name']}"])
    for row in published.TABLE:
        figures = row.figures()
        cells = [f"{figures[name]:g}" if name in figures else "" for name in METRICS]
        lines.append([row.system, *cells, f"{published.MARK}: {row.source}; {row.protocol}"])
    made = {key: report[key] for key in ("commit", "seed", "dtype", "steps", "guidance", "sampler") if key in report}
    note = [f"{key} {value}" for key, value in (made | report["data"] | report["settings"]).items() if value != []]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{'; '.join(note)}\n"


def _cell(estimate: dict | None) -> str:
    if estimate is None:
        return ""
    text = "{value:.4g} ({low:.4g}–{high:.4g})".format(**estimate)
    return text if estimate["limit"] is None else text + f", limit {estimate['limit']:.4g}"
