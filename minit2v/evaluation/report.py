"""How good the clips of a model are, with what bounds them from above and below in the same tables.

    real clips           the ceiling of the judge, and the floor of      ^  the model
                         every distance                                  |  should be
    autoencoder          real clips through the latents: the             |  up here
                         ceiling of every model in these latents
    MODEL                clips sampled from the prompts
    frozen first frame   the model's first frame throughout: what a model of pictures achieves
    empty prompt         the model without its text: chance, for clips that look right

Any data set can be measured. Where its specs say what each clip shows, a judge compares pixels with them: each of its
shares has Wilson's 95 % interval, and with 512 prompts two models differ if they are some 4 points apart. `mini.scores`
adds the metrics of the literature at this scale, all of them for Moving Things, for other data sets those that need no
specs.

Reference: classifier-free guidance, arXiv 2207.12598, equation 6.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minit2v.datasets import Batch, Dataset, VideoText, find_data
from minit2v.datasets.base import Judge
from minit2v.errors import UserError
from minit2v.evaluation.clip_sources import KeptSampler, fingerprint_of, name_of, read_folder
from minit2v.evaluation.estimates import mean_estimate, wilson
from minit2v.evaluation.judge import agrees, read, readable
from minit2v.evaluation.kept import kept_in
from minit2v.evaluation.mini.scores import REFERENCE_CLIPS, DrawnReference, Reference, psnr, redrawn
from minit2v.evaluation.motion import LEAST_FRAMES
from minit2v.evaluation.sensitivity import CaptionedLoss, caption_sensitivity
from minit2v.evaluation.table import markdown
from minit2v.files import atomic, check_writable, data_dir, refuse_folder, say
from minit2v.pixels import evenly
from minit2v.ranges import Number, Place, Seed, Size, public
from minit2v.ranks import alone, processes, rank, require_one, several, this_process
from minit2v.systems import TextToVideo

KINDS = ("real clips", "autoencoder", "frozen first frame", "empty prompt")  # rows beside the model's
DIVERSE = 16, 4  # prompts, and clips of each, for the diversity
LONG_RUN = 50  # steps of a clip whose seconds and memory are reported too, as the release takes so many
ENOUGH = 2  # clips of a split at least: fewer have no distribution
PART = 64  # real clips of train in memory at once; clips whose caption sensitivity is measured


@public
def evaluate(model: Place = "mini", data: Place | Dataset = "moving-things", splits: Sequence[str] | None = None,
             n: Size = 512, out: Place | None = None, seed: Seed = 0, steps: Size | None = None,
             guidance: Number | None = None, sampler: str = "ddim", batch: Size = 16, dtype: str = "auto",
             pipe: TextToVideo | None = None, options: dict[str, int | str] | None = None) -> dict:  # fmt: skip
    """Samples a clip for each of the first n prompts of each split, measures them and prints the tables.

    Args:
        model: shipped name, folder or hub id. With `pipe`, a loaded TextToVideo, only its name in the table.
        data: name of a data set, folder of captioned videos, or a `Dataset`.
        splits: of the data set, None for all its test splits; the floors are measured on the first.
        n: prompts a split, from 2; all of it if it has fewer.
        out: a .json file for the report; the tables go beside it as .md, and each batch of clips into a folder
            beside it, so that an interrupted evaluation goes on (not with `pipe`: its weights have no name).
        seed: prompt number i starts from noise number seed + i, in every split.
        steps, guidance: None means the model's own.
        batch: clips at a time. Another number rounds sums otherwise, by a grey level here and there, and draws other
            noise for the caption sensitivity: compare reports of one batch.
        dtype: of the networks, as `minit2v.load` has it.
        options: of the data set of that name or folder, by name, as it was opened for training: {"fit": "pad"}.

    Several processes share the sampling, and the first makes the report; `out` is then needed, as the clips meet there.

    Returns the report, a dict as in the .json; {} in a process that is not the first. Raises UserError, before any
    work, for an argument out of range.
    """
    import minit2v

    whole_numbers(1, batch=batch)
    whole_numbers(ENOUGH, n=n)
    out = checked_place(out, keeps=pipe is None)
    given, pipe = pipe, pipe or minit2v.load(model, dtype=dtype)
    preset, name = pipe.preset, _row_name(model)
    if preset.frames < LEAST_FRAMES:
        raise UserError(f"{name}: expected a model of {LEAST_FRAMES} frames or more, found {preset.frames}; a picture "
                        "has no motion to measure")  # fmt: skip
    data = chosen_data(data, preset.fps, options)
    views = opened_splits(data, splits, preset)
    weights = None if given else fingerprint_of(model, pipe.dtype)
    settings = {
        "model": name, "data": described(data, options), "weights": weights,
        "dtype": str(pipe.dtype).removeprefix("torch."), "seed": seed, "sampler": sampler,
        "steps": preset.steps if steps is None else steps,
        "guidance": preset.guidance if guidance is None else guidance,
    }  # fmt: skip
    sample = KeptSampler(pipe, settings, out.with_suffix("") if out and weights else None)
    prompt = _first_caption(views)
    pipe.checked([prompt], sample.options | {"seed": seed})
    with kept_in(sample.folder):
        if several() and not _sampled_together(sample, data, views, n, batch):
            return {}
        rows = _model_rows(sample, data, views, n, batch, name)
        return publish(settings | _costs(pipe, settings, prompt, model if weights else None) | {
            "n": n, "frames": preset.frames, "height": preset.height, "width": preset.width, "rows": rows,
        }, out)  # fmt: skip


@public
def evaluate_folder(folder: Place, captions: Place, out: Place | None = None, seed: Seed = 0, size: Size = 64,
                    frames: Size = 16) -> dict:
    """The same report for videos that another program made; see `clip_sources.read_folder` for what it reads.

    size: pixels to which they are reduced. Returns the report. Raises UserError.
    """
    out, name = checked_place(out), _row_name(folder)
    whole_numbers(1, size=size)
    whole_numbers(LEAST_FRAMES, frames=frames)
    clips, texts, specs = read_folder(folder, captions, size, frames)
    real = redrawn(specs, size, frames, seed + 1)  # the reference is drawn with `seed`
    sets = {"real clips": real, name: clips, "frozen first frame": _frozen(clips)}
    rows = _rows(sets, "captions", specs, _read_agrees, DrawnReference(texts, specs, real, seed))
    return publish({"model": name, "n": len(clips), "seed": seed, "frames": frames, "width": size, "rows": rows}, out)


def score(verdicts: list[dict[str, bool]]) -> dict:
    """Verdicts of a judge -> {"n": n, "shape": {"right", "percent", "low", "high"}, ...}, the last three in %."""
    result = {"n": len(verdicts)}
    for key in verdicts[0]:
        right = sum(verdict[key] for verdict in verdicts)
        low, high = wilson(right, len(verdicts))
        result[key] = {"right": right, "percent": 100 * right / len(verdicts), "low": 100 * low, "high": 100 * high}
    return result


def _row_name(place: str | Path) -> str:
    """The name of a model or a folder, distinct from those of the other rows."""
    name = name_of(place)
    return f"{name} (model)" if name in KINDS else name


def chosen_data(data: str | Path | Dataset, fps: float, options: dict[str, int | str] | None) -> Dataset:
    """The data set of a name or folder, with its options. Raises UserError for options of one that is open already."""
    if not isinstance(data, Dataset):
        return find_data(data, fps, **options or {})
    if options:
        raise UserError(f"options: expected with the name of a data set, found {', '.join(options)} with an open one")
    return data


def described(data: Dataset, options: dict[str, int | str] | None) -> str:
    """What a report calls its data: the name, and the options that it was opened with.

    >>> from minit2v.datasets import find_data
    >>> described(find_data("moving-things", level="R"), {"level": "R"})
    'moving-things, level=R'
    """
    return ", ".join([name_of(data.name), *(f"{name}={value}" for name, value in (options or {}).items())])


def opened_splits(data: Dataset, splits, preset) -> dict[str, VideoText]:
    """The splits to be measured, at the model's size. Raises UserError for one that is unknown or too small."""
    splits = tuple(data.test_splits if splits is None else splits)
    if not splits:
        raise UserError(f"{data.name}: expected videos in a split test, found none; add some (of three or more without "
                        "splits one is for test), or name another split")  # fmt: skip
    views = {split: data.open(split, preset.frames, preset.height, preset.width) for split in splits}
    for split, view in views.items():
        _require_enough(data, split, len(view))
    return views


def _require_enough(data: Dataset, split: str, n: int) -> None:
    if n < ENOUGH:
        raise UserError(f"{data.name}: expected {ENOUGH} clips or more in the split {split}, found {n}; add some, or "
                        "choose another split")  # fmt: skip


def _first_caption(views: dict[str, VideoText]) -> str:
    return next(iter(views.values())).batch([0]).captions[0]


def _model_rows(sample: KeptSampler, data: Dataset, views: dict[str, VideoText], n: int, batch: int, name: str):
    """A row for each kind of clips and each split, in the order of the table."""
    from tqdm.auto import tqdm

    counts = {split: min(n, len(view)) for split, view in views.items()}
    first = next(iter(counts))
    with tqdm(total=sum(counts.values()) + counts[first], desc="sampling", unit="clip", disable=None) as bar:
        rows = [
            row
            for split, view in views.items()
            for row in _split_rows(sample, data, split, view.batch(range(counts[split])), batch, name,
                                   floors=split == first, advance=bar.update)
        ]  # fmt: skip
    kinds = list(dict.fromkeys(row["clips"] for row in rows))
    return sorted(rows, key=lambda row: kinds.index(row["clips"]))


def _split_rows(sample: KeptSampler, data: Dataset, split: str, items: Batch, batch: int, name: str, floors: bool,
                advance: Callable) -> list[dict]:  # fmt: skip
    """The rows of one split; `advance` is called with each number of sampled clips."""
    real, prompts, specs = items
    reference, judge, pipe = _reference(data, items, sample.seed), judge_of(data, specs), sample.pipe

    def sampled(label: str, empty: bool = False) -> np.ndarray:
        clips = []
        for request in _requests(prompts, batch, label, empty):
            clips.append(sample(*request))
            advance(len(clips[-1]))
        return np.concatenate(clips)

    decoded = np.concatenate([pipe.decode(pipe.encode(real[i : i + batch])) for i in range(0, len(real), batch)])
    sets = {"real clips": real, "autoencoder": decoded, name: sampled(split)}
    if floors:
        sets |= {"frozen first frame": _frozen(sets[name]), "empty prompt": sampled("empty", empty=True)}
    rows = _rows(sets, split, specs, judge, reference)
    by_kind = {row["clips"]: row for row in rows}
    if isinstance(reference, DrawnReference):
        _add_diversity({kind: by_kind[kind] for kind in ("real clips", name)}, reference, sample, split)
    else:
        by_kind["autoencoder"]["metrics"]["PSNR"] = asdict(mean_estimate(psnr(decoded, real)))
        _add_sensitivity(by_kind[name], items, pipe, batch, sample.seed)
    return rows


class Request(NamedTuple):
    """What a KeptSampler is called with."""

    prompts: list[str]
    name: str
    first: int
    empty: bool = False


def _requests(prompts: list[str], batch: int, label: str, empty: bool = False) -> list[Request]:
    return [Request(prompts[i : i + batch], label, i, empty) for i in range(0, len(prompts), batch)]


def _diverse_requests(captions: list[str], split: str) -> list[Request]:
    """Several clips of each of a few prompts."""
    count, seeds = DIVERSE
    return [Request([caption] * seeds, f"{split}-diverse", 10_000 + i * seeds)
            for i, caption in enumerate(captions[:count])]  # fmt: skip


def _sampled_together(sample: KeptSampler, data: Dataset, views: dict[str, VideoText], n: int, batch: int) -> bool:
    """Sample this process' share of all clips of a report, and wait for the others; whether this is the first one,
    which finds them all. Raises UserError where clips are not kept."""
    if sample.folder is None:
        require_one("evaluate without --out", "name a file, beside which the processes find each other's clips")
    requests = []
    for split, view in views.items():
        items = view.batch(range(min(n, len(view))))
        requests += _requests(items.captions, batch, split)
        if split == next(iter(views)):  # the floors are measured on the first
            requests += _requests(items.captions, batch, "empty", empty=True)
        if _are_readable(items.specs):
            requests += _diverse_requests(items.captions, split)
    for request in requests[rank() :: processes()]:
        sample(*request)
    this_process().wait_for_everyone()
    return rank() == 0


def _reference(data: Dataset, items: Batch, seed: int) -> Reference:
    """Real clips to measure distances from: drawn from the prompts where they can be, else clips of the train split."""
    if _are_readable(items.specs):
        return DrawnReference(items.captions, items.specs, items.frames, seed)
    _, frames, height, width, _ = items.frames.shape
    train = data.open("train", frames, height, width)
    numbers = evenly(len(train), REFERENCE_CLIPS * len(items.captions))
    _require_enough(data, "train", len(train))
    parts = (train.batch(numbers[i : i + PART]).frames for i in range(0, len(numbers), PART))
    return Reference(items.frames, parts, seed)


def judge_of(data: Dataset, specs: list | None) -> Callable | None:
    """A function from clip and spec to verdicts: the data set's own, or ours for what it can read; None without."""
    if specs is not None and isinstance(data, Judge):
        return data.judge
    return _read_agrees if _are_readable(specs) else None


def _are_readable(specs: list | None) -> bool:
    return specs is not None and all(map(readable, specs))


def _read_agrees(clip: np.ndarray, spec) -> dict[str, bool]:
    return agrees(read(clip), spec)


def _rows(sets: dict[str, np.ndarray], split: str, specs: list | None, judge: Callable | None, reference: Reference):
    """What is measured of each set of clips, {name: (n, f, H, W, 3) uint8}."""
    from tqdm.auto import tqdm

    rows = []
    for name, clips in sets.items():
        scores = {"n": len(clips)}
        if judge:
            bar = tqdm(clips, desc=f"judging {name}", unit="clip", leave=False, disable=None)
            scores = score([judge(clip, spec) for clip, spec in zip(bar, specs)])
        metrics = {metric: asdict(estimate) for metric, estimate in reference.measure(clips).items()}
        rows.append({"clips": name, "split": split} | scores | {"metrics": metrics})
    return rows


def _add_diversity(rows: dict[str, dict], reference: DrawnReference, sample: KeptSampler, split: str) -> None:
    """Of a few prompts several clips each: drawn ones for the row of real clips, sampled ones for the other."""
    count, seeds = DIVERSE
    sampled = np.stack([sample(*request) for request in _diverse_requests(reference.captions, split)])
    specs = [spec for spec in reference.specs[:count] for _ in range(seeds)]  # as `sampled`: (prompts seeds f H W c)
    drawn = redrawn(specs, sampled.shape[3], sampled.shape[2], sample.seed + 1)
    for name, row in rows.items():
        clips = drawn.reshape(sampled.shape) if name == "real clips" else sampled
        row["metrics"]["diversity"] = asdict(reference.diversity(clips))


def _add_sensitivity(row: dict, items: Batch, pipe, batch: int, seed: int) -> None:
    """Of the first PART clips, for the model's row, if its system has a loss."""
    if isinstance(pipe, CaptionedLoss):
        some = items.frames[:PART], items.captions[:PART]
        if (estimate := caption_sensitivity(pipe, *some, batch, seed)) is not None:
            row["metrics"]["caption sensitivity"] = asdict(estimate)


def _frozen(clips: np.ndarray) -> np.ndarray:
    return np.repeat(clips[:, :1], clips.shape[1], axis=1)


def publish(report: dict, out: Path | None, table: Callable[[dict], str] = markdown) -> dict:
    """Writes a report to `out`, if it is a file, and as Markdown beside it; then prints it.

    Returns it with the commit. Of several processes only the first writes and prints.
    """
    report = {"commit": _commit()} | report
    if rank() > 0:
        return report
    text = table(report)
    if out:
        for path, content in ((out, json.dumps(report, indent=1) + "\n"), (out.with_suffix(".md"), text)):
            with atomic(path) as unfinished:
                unfinished.write_text(content, encoding="utf-8")
    say(text)
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


def checked_place(out, keeps: bool = False) -> Path | None:
    """The place of a report, to be called before the work; with `keeps`, clips are kept in a folder beside it. Raises
    UserError if it is no .json that can be written, or if something is in the way of the other places."""
    from minit2v.video import check_output

    if out is None:
        return None
    out = check_output(out, (".json",))
    refuse_folder(out.with_suffix(".md"))
    folder = out.with_suffix("")
    if keeps and os.path.lexists(folder):
        if not folder.is_dir():
            raise UserError(f"expected a folder or nothing at {folder}, where the clips of {out.name} are kept, found "
                            "something else; move it, or choose another --out")  # fmt: skip
        check_writable(folder / "clips.npz", str(folder))
    return out


def whole_numbers(least: int, **values) -> None:
    for name, value in values.items():
        if not (isinstance(value, int) and value >= least):
            raise UserError(f"{name}: expected a whole number from {least}, found {value!r}")


def _costs(pipe, settings: dict, prompt: str, model: str | None) -> dict:
    """Seconds of one clip alone, with the model's own steps and with LONG_RUN, memory of the latter, and the machine.

    Seconds with LONG_RUN steps are None for a model that takes fewer; its memory is that of its own steps.
    """
    import torch

    long = LONG_RUN if LONG_RUN <= pipe.preset.timesteps else None
    return {
        "seconds_per_clip": _seconds(pipe, settings, prompt, settings["steps"]),
        "seconds_with_50_steps": long and _seconds(pipe, settings, prompt, long),
        "peak_memory_gb": model and peak_memory(model, prompt, long or settings["steps"]),
        "device": str(pipe.device), "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


def _seconds(pipe, settings: dict, prompt: str, steps: int) -> float:
    """Wall time of one clip alone, from prompt to pixels: the median of three."""
    options = {key: settings[key] for key in ("guidance", "sampler", "seed")}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pipe(prompt, steps=steps, **options)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory(model: str, prompt: str, steps: int) -> float | None:
    """Largest resident memory, in units of 10^9 bytes, of a process of its own that samples one clip; None where it
    cannot, as it knows no system but the package's. It imports nothing from the folder that it is called in."""
    import tempfile

    code = "import sys; sys.path[:] = filter(None, sys.path); from minit2v import cli; from minit2v.memory.measured import peak; "
    code += "sys.exit(cli.main(sys.argv[1:]) or print(peak()))"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--model", str(model), "--steps", str(steps), "--out", f"{folder}/clip.mp4", "--", prompt]
        command = [sys.executable, "-c", code, "sample", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=alone())
    return None if done.returncode else int(done.stdout.split()[-1]) / 1e9
