"""How good the clips of a model are, with what bounds them from above and below in the same tables.

    real clips           the ceiling of the judge, and the floor of      ^  the model
                         every distance                                  |  should be
    autoencoder          real clips through the latents: the             |  up here
                         ceiling of every model in these latents
    MODEL                clips sampled from the prompts
    frozen first frame   the model's first frame throughout: what a model of pictures gets
    empty prompt         the model without its text: chance, for clips that look right

The judge reads attributes from pixels; every share of it has Wilson's 95 % interval: with 512 prompts two models
differ if they are some 4 points apart. `scores` adds the metrics of the literature at this scale.

Reference: classifier-free guidance, arXiv 2207.12598, equation 6.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from minit2v.datasets.moving_things import MovingThings
from minit2v.errors import UserError
from minit2v.evaluation.clip_sources import Sampler, fingerprint_of, read_folder
from minit2v.evaluation.estimates import wilson
from minit2v.evaluation.judge import agrees, read
from minit2v.evaluation.mini.scores import Reference, redrawn
from minit2v.evaluation.table import COLUMNS, markdown
from minit2v.files import atomic, data_dir

SPLITS = ("test_seen", "test_heldout", "test_imageonly")
DIVERSE = 16, 4  # prompts, and clips of each, for the diversity


def evaluate(model: str = "mini", splits=SPLITS, n: int = 512, out=None, seed: int = 0, steps: int | None = None,
             guidance: float | None = None, sampler: str = "ddim", batch: int = 16, dtype: str = "auto",
             pipe=None) -> dict:  # fmt: skip
    """Samples a clip for each of the first n prompts of each split, measures them and prints the tables.

    Args:
        model: shipped name, folder or hub id. With `pipe`, a loaded TextToVideo, only its name in the table.
        splits: of MovingThings; the floors are measured on the first. n: prompts a split, all of it if it has fewer.
        out: a .json file for the report; the tables go beside it as .md, and each batch of clips into a folder
            beside it, so that an interrupted evaluation goes on (not with `pipe`: its weights have no name).
        seed: prompt number i starts from noise number seed + i, in every split.
        steps, guidance: None means the model's own. batch: clips at a time; it does not change the result.
        dtype: of the networks, as `minit2v.load` has it.

    Returns the report, a dict as in the .json. Raises UserError, before any work, for an argument out of range.
    """
    import torch

    import minit2v

    splits = tuple(splits)
    if not splits:
        raise UserError("splits: expected at least one, found none; try test_seen")
    _whole_numbers(n=n, batch=batch)
    out = checked(out)
    counts = {split: min(n, len(MovingThings(split))) for split in splits}
    given, pipe = pipe, pipe or minit2v.load(model, dtype=dtype)
    digest = None if given else fingerprint_of(model, pipe.dtype)
    preset, name = pipe.preset, Path(model).name
    settings = {
        "model": name, "weights": digest, "dtype": str(pipe.dtype).removeprefix("torch."), "seed": seed,
        "sampler": sampler,
        "steps": preset.steps if steps is None else steps,
        "guidance": preset.guidance if guidance is None else guidance,
    }  # fmt: skip
    sample = Sampler(pipe, settings, out.with_suffix("") if out and digest else None)
    rows = _model_rows(pipe, sample, counts, batch, name)
    return written(settings | {
        "n": n, "seconds_per_clip": _seconds(pipe, settings), "seconds_with_50_steps": _seconds(pipe, settings, 50),
        "peak_memory_gb": digest and _peak_memory(model),
        "frames": preset.frames, "height": preset.height, "width": preset.width,
        "device": str(pipe.device), "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows,
    }, out)  # fmt: skip


def evaluate_folder(folder, captions, out=None, seed: int = 0, size: int = 64, frames: int = 16) -> dict:
    """The same report for videos that another program made; see `clip_sources.read_folder` for what it reads.

    size: pixels to which they are reduced. Returns the report. Raises UserError.
    """
    out, name = checked(out), Path(folder).name
    _whole_numbers(size=size, frames=frames)
    clips, texts, specs = read_folder(folder, captions, size, frames)
    real = redrawn(specs, size, frames, seed + 1)  # the reference is drawn with `seed`
    sets = {"real clips": real, name: clips, "frozen first frame": _frozen(clips)}
    rows = _rows(sets, "captions", Reference(texts, specs, real, seed))
    return written({"model": name, "n": len(clips), "seed": seed, "frames": frames, "width": size, "rows": rows}, out)


def score(verdicts: list[dict[str, bool]]) -> dict:
    """Verdicts of `agrees` -> {"n": n, "shape": {"right", "percent", "low", "high"}, ...}, the last three in %."""
    result = {"n": len(verdicts)}
    for key in COLUMNS:
        right = sum(verdict[key] for verdict in verdicts)
        low, high = wilson(right, len(verdicts))
        result[key] = {"right": right, "percent": 100 * right / len(verdicts), "low": 100 * low, "high": 100 * high}
    return result


def _model_rows(pipe, sample: Sampler, counts: dict[str, int], batch: int, name: str) -> list[dict]:
    """A row for each kind of clips and each split, in the order of the table."""
    from tqdm.auto import tqdm

    first = next(iter(counts))
    with tqdm(total=sum(counts.values()) + counts[first], desc="sampling", unit="clip", disable=None) as bar:
        rows = [
            row
            for split, count in counts.items()
            for row in _split_rows(pipe, sample, split, count, batch, name, floors=split == first, advance=bar.update)
        ]
    kinds = list(dict.fromkeys(row["clips"] for row in rows))
    return sorted(rows, key=lambda row: kinds.index(row["clips"]))


def _split_rows(pipe, sample: Sampler, split: str, n: int, batch: int, name: str, floors: bool, advance) -> list[dict]:
    """The rows of one split; `advance` is told how many clips were sampled."""
    real, prompts, specs = MovingThings(split, size=pipe.preset.width, frames=pipe.preset.frames).batch(range(n))
    parts = [slice(i, min(i + batch, n)) for i in range(0, n, batch)]

    def sampled(label: str, **options) -> np.ndarray:
        clips = []
        for part in parts:
            clips.append(sample(prompts[part], label, part.start, **options))
            advance(len(clips[-1]))
        return np.concatenate(clips)

    again = np.concatenate([pipe.decode(pipe.encode(real[part])) for part in parts])
    sets = {"real clips": real, "autoencoder": again, name: sampled(split)}
    if floors:
        sets |= {"frozen first frame": _frozen(sets[name]), "empty prompt": sampled("empty", guidance=0.0)}
    reference = Reference(prompts, specs, real, sample.seed)
    rows = _rows(sets, split, reference)
    of = {row["clips"]: row for row in rows}
    _add_diversity({kind: of[kind] for kind in ("real clips", name)}, reference, sample, split)
    return rows


def _rows(sets: dict[str, np.ndarray], split: str, reference: Reference) -> list[dict]:
    """What is measured of each set of clips, {name: (n, f, H, W, 3) uint8}."""
    from tqdm.auto import tqdm

    rows = []
    for name, clips in sets.items():
        bar = tqdm(clips, desc=f"judging {name}", unit="clip", leave=False, disable=None)
        verdicts = [agrees(read(clip), spec) for clip, spec in zip(bar, reference.specs)]
        metrics = {metric: asdict(estimate) for metric, estimate in reference.measure(clips).items()}
        rows.append({"clips": name, "split": split} | score(verdicts) | {"metrics": metrics})
    return rows


def _add_diversity(rows: dict[str, dict], reference: Reference, sample: Sampler, split: str) -> None:
    """Of a few prompts several clips each: drawn ones for the row of real clips, sampled ones for the other."""
    count, seeds = min(DIVERSE[0], len(reference.specs)), DIVERSE[1]
    made = [
        sample([prompt] * seeds, f"{split}-diverse", 10_000 + i * seeds)
        for i, prompt in enumerate(reference.captions[:count])
    ]
    made = np.stack(made)  # (prompts seeds f H W c)
    specs = [spec for spec in reference.specs[:count] for _ in range(seeds)]
    drawn = redrawn(specs, made.shape[3], made.shape[2], sample.seed + 1)
    for name, row in rows.items():
        clips = drawn.reshape(made.shape) if name == "real clips" else made
        row["metrics"]["diversity"] = asdict(reference.diversity(clips))


def _frozen(clips: np.ndarray) -> np.ndarray:
    return np.repeat(clips[:, :1], clips.shape[1], axis=1)


def written(report: dict, out: Path | None, table=markdown) -> dict:
    """Print a report and, if `out` is a file, keep it there and as Markdown beside it."""
    report = {"commit": _commit()} | report
    text = table(report)
    print(text)
    if out:
        for path, content in ((out, json.dumps(report, indent=1) + "\n"), (out.with_suffix(".md"), text)):
            with atomic(path) as unfinished:
                unfinished.write_text(content, encoding="utf-8")
    return report


def _commit() -> str:
    """The state of the library: the commit of the clone it runs from, with + if files were changed, or its version."""
    import minit2v

    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:  # an installed wheel may lie in somebody else's clone
        found = "" if data_dir().name == "_data" else subprocess.run(git, capture_output=True, text=True).stdout
    except OSError:  # no git
        found = ""
    return found.strip() or minit2v.__version__


def checked(out) -> Path | None:
    """The place of a report, to be called before the work. Raises UserError if it is no .json that can be written."""
    from minit2v.video import check_output

    return None if out is None else check_output(out, (".json",))


def _whole_numbers(**values) -> None:
    for name, value in values.items():
        if not (isinstance(value, int) and value >= 1):
            raise UserError(f"{name}: expected a whole number from 1, found {value!r}")


def _seconds(pipe, settings: dict, steps: int | None = None) -> float:
    """Wall time of one clip alone, from prompt to pixels: the median of three."""
    options = {key: settings[key] for key in ("steps", "guidance", "sampler")} | ({"steps": steps} if steps else {})
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pipe("a red circle moves left", seed=settings["seed"], **options)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peak_memory(model: str) -> float:
    """Largest resident memory, in units of 10^9 bytes, of a process of its own that samples one clip."""
    import tempfile

    code = "import sys; from minit2v import cli, memory; cli.main(sys.argv[1:]); print(memory.peak())"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["a red circle moves left", "--model", str(model), "--steps", "50", "--out", f"{folder}/clip.mp4"]
        command = [sys.executable, "-c", code, "sample", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1e9
