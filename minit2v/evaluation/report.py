"""How well a model does what its prompts say, with what bounds it from above and below in the same table.

    real clips           the judge's own ceiling                      ^  the model
    autoencoder          real clips through the latents: the          |  should be
                         ceiling of every model in these latents      |  up here
    MODEL                clips sampled from the prompts
    frozen first frame   the model's first frame throughout: what a model of pictures gets
    empty prompt         the model without its text: chance, for clips that look right

Every percentage has Wilson's 95 % interval: with 512 prompts two models differ if they are some 4 points apart.

References: E. B. Wilson, Probable inference, JASA 22 (1927), 209-212; classifier-free guidance, arXiv 2207.12598,
equation 6.
"""

import json
import math
import statistics
import time
import zlib
from pathlib import Path

import numpy as np

from minit2v.datasets import MovingThings
from minit2v.errors import UserError
from minit2v.evaluation.judge import ATTRIBUTES, agrees, read
from minit2v.files import atomic

COLUMNS = {name: name for name in (*ATTRIBUTES, "all")} | {"motion": "direction"}  # key of `agrees` -> heading
SPLITS = ("test_seen", "test_heldout", "test_imageonly")


def evaluate(model: str = "mini", splits=SPLITS, n: int = 512, out=None, seed: int = 0, steps: int | None = None,
             guidance: float | None = None, sampler: str = "ddim", batch: int = 16, dtype: str = "auto",
             pipe=None) -> dict:  # fmt: skip
    """Samples a clip for each of the first n prompts of each split, judges them and prints the table.

    Args:
        model: shipped name or folder. With `pipe`, a loaded TextToVideo, only its name in the table.
        splits: of MovingThings; the floors are measured on the first. n: prompts a split, all of it if it has fewer.
        out: a .json file for the report; the table goes beside it as .md, and each batch of clips into a folder
            beside it, so that an interrupted evaluation goes on (not with `pipe`: its weights have no name).
        seed: prompt number i starts from noise number seed + i, in every split.
        steps, guidance: None means the model's own. batch: clips at a time; it does not change the result.
        dtype: of the networks, as `minit2v.load` has it.

    Returns the report, a dict as in the .json. Raises UserError, before any work, for an argument out of range.
    """
    import torch

    import minit2v
    from minit2v import weights
    from minit2v.video import check_output

    out = None if out is None else check_output(out, (".json",))
    splits = tuple(splits)
    if not splits:
        raise UserError("splits: expected at least one, found none; try test_seen")
    for name, value in (("n", n), ("batch", batch)):
        if not (isinstance(value, int) and value >= 1):
            raise UserError(f"{name}: expected a whole number from 1, found {value!r}")
    counts = {split: min(n, len(MovingThings(split))) for split in splits}
    given, pipe = pipe, pipe or minit2v.load(model, dtype=dtype)
    digest = None if given else weights.fingerprint(weights.find_model(model))
    preset, name = pipe.preset, Path(model).name
    settings = {
        "model": name, "weights": digest, "dtype": str(pipe.dtype).removeprefix("torch."), "seed": seed,
        "sampler": sampler,
        "steps": preset.steps if steps is None else steps,
        "guidance": preset.guidance if guidance is None else guidance,
    }  # fmt: skip
    sample = _Sampler(pipe, settings, out.with_suffix("") if out and digest else None)
    rows = _judged(pipe, sample, counts, batch, name)
    report = settings | {
        "n": n, "seconds_per_clip": _seconds(pipe, settings), "seconds_with_50_steps": _seconds(pipe, settings, 50),
        "peak_memory_gb": digest and _peak_memory(model),
        "frames": preset.frames, "height": preset.height, "width": preset.width,
        "device": str(pipe.device), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "rows": [{"clips": clips, "split": split} | score(verdicts) for (clips, split), verdicts in rows.items()],
    }  # fmt: skip
    table = markdown(report)
    print(table)
    if out:
        for path, text in ((out, json.dumps(report, indent=1) + "\n"), (out.with_suffix(".md"), table)):
            with atomic(path) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
    return report


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a share of which `right` of n were seen; z = 1.96 gives 95 %.

    (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z sqrt(p (1 - p)/n) it is right at 0 and 1 too.

    >>> [round(bound, 4) for bound in wilson(512, 512)]
    [0.9926, 1.0]
    """
    p, spread = right / n, z * z / n
    middle, half = p + spread / 2, z * math.sqrt(p * (1 - p) / n + spread / (4 * n))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def score(verdicts: list[dict[str, bool]]) -> dict:
    """Verdicts of `agrees` -> {"n": n, "shape": {"right", "percent", "low", "high"}, ...}, the last three in %."""
    result = {"n": len(verdicts)}
    for key in COLUMNS:
        right = sum(verdict[key] for verdict in verdicts)
        low, high = wilson(right, len(verdicts))
        result[key] = {"right": right, "percent": 100 * right / len(verdicts), "low": 100 * low, "high": 100 * high}
    return result


def markdown(report: dict) -> str:
    """The report as a Markdown table with a line about how it was made."""
    lines = [["clips", "prompts", "N", *COLUMNS.values()], ["---"] * (3 + len(COLUMNS))]
    for row in report["rows"]:
        cells = ("{percent:.1f} ({low:.1f}–{high:.1f})".format(**row[key]) for key in COLUMNS)
        lines.append([row["clips"], row["split"], str(row["n"]), *cells])
    short = [f"{row['split']} has {row['n']}" for row in report["rows"] if row["n"] < report["n"]]
    note = (
        "% right (95 % interval). {model}, {sampler}, {steps} steps, guidance {guidance:g}, seed {seed}; "
        "one clip takes {seconds_per_clip:.1f} s, with 50 steps {seconds_with_50_steps:.1f} s, in {dtype} on {device} "
        "with {threads} threads, torch {torch}."
    ).format(**report)
    if report["peak_memory_gb"]:
        note += f" `minit2v sample` with 50 steps takes {report['peak_memory_gb']:.2f} GB of memory at most."
    if short:
        note += f" Asked for {report['n']} prompts a split: {', '.join(dict.fromkeys(short))}."
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def _judged(pipe, sample: "_Sampler", counts: dict[str, int], batch: int, name: str) -> dict:
    """{(clips, split): [verdict of each clip]}, in the order of the table."""
    from tqdm.auto import tqdm

    preset, floors = pipe.preset, next(iter(counts))
    kinds = ["real clips", "autoencoder", name, "frozen first frame", "empty prompt"]
    rows = {(kind, split): [] for i, kind in enumerate(kinds) for split in counts if i < 3 or split == floors}
    with tqdm(total=sum(counts.values()), desc="judging", unit="clip", disable=None) as bar:
        for split, count in counts.items():
            data = MovingThings(split, size=preset.width, frames=preset.frames)
            for start in range(0, count, batch):
                part = range(start, min(start + batch, count))
                real, prompts, specs = data.batch(part)
                made = sample(prompts, split, part)
                clips = [real, pipe.decode(pipe.encode(real)), made]
                if split == floors:
                    frozen = np.repeat(made[:, :1], made.shape[1], axis=1)
                    clips += [frozen, sample(prompts, "empty", part, guidance=0.0)]
                for kind, several in zip(kinds, clips):
                    rows[kind, split] += [agrees(read(clip), spec) for clip, spec in zip(several, specs)]
                bar.update(len(part))
    return rows


class _Sampler:
    """Clips of prompts; kept in a folder, if there is one, under a name that says all that they depend on."""

    def __init__(self, pipe, settings: dict, folder: Path | None):
        self.pipe, self.folder = pipe, folder
        self.options = {key: settings[key] for key in ("steps", "guidance", "sampler")}
        self.seed = settings["seed"]
        self.label = "-".join(str(settings[key]) for key in ("weights", "dtype", *self.options, "seed"))

    def __call__(self, prompts: list[str], name: str, part: range, guidance: float | None = None) -> np.ndarray:
        """(b, f, H, W, 3) uint8. Guidance 0 is the empty prompt: u + 0 (c - u) = u, whatever the prompt says."""
        words = zlib.crc32("\n".join(prompts).encode())
        path = self.folder and self.folder / f"{name}-{part.start}-{part.stop}-{self.label}-{words:08x}.npz"
        if path and path.is_file():
            return np.load(path)["clips"]
        options = self.options | ({} if guidance is None else {"guidance": guidance})
        clips = np.stack([clip.pixels for clip in self.pipe(prompts, seed=self.seed + part.start, **options)])
        if path:
            with atomic(path) as unfinished:
                np.savez_compressed(unfinished, clips=clips)
        return clips


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
    import subprocess
    import sys
    import tempfile

    code = "import sys; from minit2v import cli, memory; cli.main(sys.argv[1:]); print(memory.peak())"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["a red circle moves left", "--model", str(model), "--steps", "50", "--out", f"{folder}/clip.mp4"]
        command = [sys.executable, "-c", code, "sample", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1e9
