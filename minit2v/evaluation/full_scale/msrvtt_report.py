"""The paper's kind of table: FVD (and KVD), FID-vid and CLIPSIM on MSR-VTT, beside what was published.

    captions of MSR-VTT ─ any model, or videos of another program ─> clips ─┐
    real clips of MSR-VTT ──────────────────────────────────────────────────┴─ full_scale.measure ─> table

The published rows were measured in ways that differ from one another and from this one; each row says so.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from minit2v.datasets.metadata import read_captions
from minit2v.datasets.msrvtt import MSRVTT, Protocol
from minit2v.evaluation.clip_sources import fingerprint_of, name_of
from minit2v.evaluation.full_scale import metrics as full_scale
from minit2v.evaluation.full_scale import published
from minit2v.evaluation.full_scale.backbones import checked_self_test
from minit2v.evaluation.full_scale.extraction import Videos
from minit2v.evaluation.full_scale.settings import FullScaleSettings
from minit2v.evaluation.report import checked_place, publish
from minit2v.evaluation.table import markdown_table

METRICS = ("FID-vid", "FID-vid (CLIP)", "FVD", "KVD", "CLIPSIM", "CLIPSIM / real")
ABOUT = ("commit", "weights", "seed", "dtype", "steps", "guidance", "sampler", "i3d_self_test", "floor")  # in the note


class Sampled(Sequence):
    """Clips of prompts, sampled on demand: `sampled[i:j]` is a list of uint8 (f, H, W, 3).

    weights: fingerprint of the model. Prompt i starts from noise number seed + i.
    """

    def __init__(self, pipe, weights: str, prompts: list[str], seed: int, options: dict):
        self.pipe, self.prompts, self.seed, self.options = pipe, prompts, seed, options
        self.label = f"{weights} {pipe.dtype} {seed} {options} {prompts}"

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, part: slice) -> list[np.ndarray]:
        start = range(len(self))[part].start
        return [clip.pixels for clip in self.pipe(self.prompts[part], seed=self.seed + start, **self.options)]


def evaluate_model(
    model: str, folder, protocol: Protocol, settings: FullScaleSettings, out=None, seed: int = 0,
    steps: int | None = None, guidance: float | None = None, sampler: str = "ddim", dtype: str = "auto",
) -> dict:  # fmt: skip
    """Samples a clip for each prompt that the protocol draws from MSR-VTT in `folder`, and measures them.

    Returns the report and writes it to `out` (.json, and .md beside it). Raises UserError before anything is sampled,
    also for an I3D that fails its self-test.
    """
    import minit2v

    out, real = checked_place(out), MSRVTT(folder, protocol)
    tested = _tested(settings)
    pipe = minit2v.load(model, dtype=dtype)
    chosen = {
        "steps": pipe.preset.steps if steps is None else steps,
        "guidance": pipe.preset.guidance if guidance is None else guidance,
        "sampler": sampler,
    }
    weights, dtype = fingerprint_of(model, pipe.dtype), str(pipe.dtype).removeprefix("torch.")
    made = Sampled(pipe, weights, real.prompts, seed, chosen | {"frames": settings.frames})
    about = {"model": model, "weights": weights, "seed": seed, "dtype": dtype} | chosen | tested
    return _measured(made, real.prompts, real, settings, about, out)


def evaluate_videos(folder, captions, msrvtt, protocol: Protocol, settings: FullScaleSettings, out=None) -> dict:
    """The same for videos of another program; `captions` has a line FILE<tab>CAPTION for each.

    The prompts that the protocol draws are `MSRVTT(folder, protocol).prompts`.
    """
    out, named = checked_place(out), read_captions(captions)
    made, real = Videos([Path(folder) / name for name, _ in named]), MSRVTT(msrvtt, protocol)
    about = {"model": name_of(folder)} | _tested(settings)
    return _measured(made, [text for _, text in named], real, settings, about, out)


def _tested(settings: FullScaleSettings) -> dict:
    """{"i3d_self_test": its result}, or {} without I3D. Opens all files, so that a wrong one is found before hours of
    work."""
    networks = full_scale.load(settings)
    if "i3d" not in networks or not settings.self_test:
        return {}
    return {"i3d_self_test": round(checked_self_test(networks["i3d"]), 2)}


def _measured(made, captions, real: MSRVTT, settings: FullScaleSettings, about: dict, out) -> dict:
    further = real.further(len(made))
    figures = full_scale.measure(made, captions, real, settings, real.captions, further)
    if further is not None:
        about |= {"floor": f"{len(made)} other real clips against the {len(real)} that the protocol chose"}
    elif any(estimate.floor is not None for estimate in figures.values()):
        about |= {"floor": f"one half of the {len(real)} real clips against the other, as there are no {len(made)} "
                           "others; about twice that of all of them against as many"}  # fmt: skip
    return publish(about | {
        "n": len(made), "data": real.reported(), "settings": settings.reported(),
        "metrics": {name: asdict(estimate) for name, estimate in figures.items()},
        "published": [asdict(row) for row in published.TABLE],
    }, out, markdown)  # fmt: skip


def markdown(report: dict) -> str:
    """The measured row above the published ones, and a note on how it was measured.

    A figure has its 95 % interval; a distance also its floor, real against real, and its limit for n -> infinity.
    """
    cells = [_cell(report["metrics"].get(name)) for name in METRICS]
    rows = [[report["model"], *cells, f"measured, {report['n']} clips, {report['data']['name']}"]]
    for row in published.TABLE:
        figures = row.figures()
        cells = [f"{figures[name]:g}" if name in figures else "" for name in METRICS]
        rows.append([row.system, *cells, f"{published.MARK}: {row.source}; {row.protocol}"])
    about = {key: report[key] for key in ABOUT if key in report}
    note = [f"{key} {value}" for key, value in (about | report["data"] | report["settings"]).items() if value != []]
    return markdown_table(["system", *METRICS, "how"], rows) + f"\n\n{'; '.join(note)}\n"


def _cell(estimate: dict | None) -> str:
    if estimate is None:
        return ""
    text = "{value:.4g} ({low:.4g}–{high:.4g})".format(**estimate)
    return text + "".join(f", {name} {estimate[name]:.4g}" for name in ("floor", "limit") if estimate[name] is not None)
