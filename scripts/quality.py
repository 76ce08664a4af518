"""Quality against time: each sampler with 1 to 50 steps of the mini model: `make quality`

All samplers get the same prompts (the first of split `val`), seeds and initial noise. There are two parts, so that
seconds can be measured while the machine does nothing else:

    python scripts/quality.py                  both parts, then docs/quality.json and docs/quality.png
    python scripts/quality.py --part quality   clips, judged: hours; continues where it was stopped
    python scripts/quality.py --part seconds   a few clips each, one at a time: minutes
    python scripts/quality.py --part report    summary and picture of the rows that are finished

`--samplers ddim` leaves the others out, which takes a third of the time. Each finished row is a line of
runs/quality.jsonl with everything that it depends on: the fingerprints of the weights and of the network whose features
are compared, and every setting. `make quality` then copies the table to
docs/quality.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import quality_report
from tqdm.auto import tqdm

import minit2v
from minit2v.checkpoints.find import find_model, fingerprint
from minit2v.datasets.moving_things import MovingThings
from minit2v.evaluation import motion
from minit2v.evaluation.frechet import frechet_estimate
from minit2v.evaluation.judge import agrees, read
from minit2v.files import data_dir, say, sha256
from minit2v.presets import Preset

SAMPLERS = ("ddim", "dpm++", "ddpm")
STEPS = (1, 2, 4, 8, 12, 20, 50)
FAST = "mini-fast"
FAST_STEPS = (1, 2, 4, 8)  # of the model of few steps, by DDIM
SWEEP = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  # guidance, at SWEEP_STEPS of DDIM
SWEEP_STEPS = 12
BATCH = 16  # clips at a time
SEEDS = 4  # clips of one prompt, whose distances are its diversity; measured on n / 16 prompts
TIMED = 5  # clips whose median time is reported
REFERENCE = "test_seen"  # split of the real clips that generated ones are compared with
PROMPT = "a large red circle moves left slowly"


@dataclass(frozen=True)
class Setting:
    """One row."""

    model: str  # name in its preset
    sampler: str
    steps: int
    guidance: float

    @property
    def options(self) -> dict:
        """What the model is called with."""
        return {"sampler": self.sampler, "steps": self.steps, "guidance": self.guidance}

    @property
    def evaluations(self) -> int:
        """Network evaluations for a clip: two a step with guidance, one where its scale is 0 or 1."""
        return self.steps * (1 if self.guidance in (0, 1) else 2)


def settings(preset: Preset, fast: Preset | None, chosen: argparse.Namespace) -> list[Setting]:
    """The rows, cheap ones first: every sampler with every number of steps, then DDIM with every guidance scale; before
    them the model of few steps, if there is one."""
    rows = [Setting(fast.name, "ddim", n, fast.guidance) for n in FAST_STEPS] if fast else []
    rows += [Setting(preset.name, name, n, preset.guidance) for n, name in product(chosen.steps, chosen.samplers)]
    return list(dict.fromkeys([*rows, *(Setting(preset.name, "ddim", SWEEP_STEPS, scale) for scale in chosen.sweep)]))


class Rows:
    """The finished rows, in a file with one line of JSON each. `base` is what all rows of this run depend on, `weights`
    the fingerprint of each model."""

    def __init__(self, path: Path, base: dict, weights: dict[str, str]):
        self.path, self.base, self.weights = path, base, weights
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rows = [json.loads(line) for line in lines if line.endswith("}")]  # skips a line that was cut short

    def find(self, part: str, setting: Setting, **more) -> dict | None:
        """The newest row of this setting; None if there is none."""
        key = self.key(part, setting, more)
        return next((row for row in reversed(self.rows) if all(row.get(name) == key[name] for name in key)), None)

    def add(self, part: str, setting: Setting, figures: dict, **more) -> None:
        """Append a row to the list and to the file."""
        self.rows.append(self.key(part, setting, more) | figures)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")

    def key(self, part: str, setting: Setting, more: dict) -> dict:
        """What a row depends on."""
        return self.base | asdict(setting) | more | {"part": part, "weights": self.weights[setting.model]}


def clips_of(pipe, setting: Setting, prompts: list[str], seed: int) -> Iterator[np.ndarray]:
    """Clips uint8 (b, f, H, W, 3) of the prompts, one batch at a time; prompt number i has seed + i."""
    for start in range(0, len(prompts), BATCH):
        clips = pipe(prompts[start : start + BATCH], seed=seed + start, **setting.options)
        yield np.stack([clip.pixels for clip in clips])


def figures(pipe, setting: Setting, n: int, seed: int, features: Callable, real: tuple[np.ndarray, np.ndarray]) -> dict:
    """The figures of a row. `real`: features of the reference clips, and of the real clips of the same prompts."""
    data = MovingThings("val", size=pipe.preset.width, frames=pipe.preset.frames)
    texts = [data.text(i) for i in range(n)]
    clips = np.concatenate(list(clips_of(pipe, setting, [caption for caption, _ in texts], seed)))
    verdicts = [agrees(read(clip), spec) for clip, (_, spec) in zip(clips, texts)]
    several = [caption for caption, _ in texts[: max(1, n // 16)] for _ in range(SEEDS)]
    again = np.concatenate(list(clips_of(pipe, setting, several, seed + 10**6)))
    reference, own = real
    return {
        "all": [verdict["all"] for verdict in verdicts],
        "direction": [verdict["motion"] for verdict in verdicts],
        "motion amplitude": motion.measure(clips)["motion amplitude"].tolist(),
        "FVD-mini": asdict(frechet_estimate(features(clips), reference, own, seed)),
        "diversity": motion.diversity(features(again).reshape(-1, SEEDS, reference.shape[-1])).tolist(),
    }


def measure_quality(pipes: dict, rows: Rows, chosen: list[Setting], n: int, seed: int, features: Callable) -> None:
    """Measure the rows that are missing. `pipes`: each model by its name, all of one size."""
    missing = [setting for setting in chosen if not rows.find("quality", setting, n=n, seed=seed)]
    if not missing:
        return
    preset = pipes[missing[0].model].preset
    size, frames = preset.width, preset.frames
    reference, own = (
        MovingThings(split, size=size, frames=frames).batch(range(m))[0] for split, m in ((REFERENCE, 512), ("val", n))
    )
    real = features(reference), features(own)
    with tqdm(total=sum(s.evaluations for s in missing) * n, desc="sampling", disable=None) as bar:
        for setting in missing:
            bar.set_postfix_str(f"{setting.model}, {setting.sampler}, {setting.steps} steps, guidance {setting.guidance:g}")
            rows.add("quality", setting, figures(pipes[setting.model], setting, n, seed, features, real), n=n, seed=seed)
            bar.update(setting.evaluations * n)


def measure_seconds(pipes: dict, rows: Rows, chosen: list[Setting], threads: int) -> None:
    """Time on the clock for one clip, from prompt to pixels: medians of rounds over all settings, after a warm-up."""
    missing = [setting for setting in chosen if not rows.find("seconds", setting, threads=threads)]
    times = {setting: [] for setting in missing}
    for pipe in pipes.values():
        pipe(PROMPT, steps=1)
    for _ in range(TIMED):
        for setting in tqdm(missing, desc="timing", disable=None):
            start = time.perf_counter()
            pipes[setting.model](PROMPT, **setting.options)
            times[setting].append(time.perf_counter() - start)
    for setting, seconds in times.items():
        rows.add("seconds", setting, {"seconds": statistics.median(seconds), "rounds": TIMED}, threads=threads)


def joined(rows: Rows, chosen: list[Setting], n: int, seed: int, threads: int) -> list[dict]:
    """The rows with a measured quality, and their seconds (None: not measured)."""
    found = []
    for setting in chosen:
        row = rows.find("quality", setting, n=n, seed=seed)
        clock = rows.find("seconds", setting, threads=threads) or {"seconds": None}
        if row:
            found.append(row | {"seconds": clock["seconds"], "evaluations": setting.evaluations})
    return found


def main(arguments: list[str] | None = None) -> None:
    import torch

    from minit2v.evaluation.mini import networks
    from minit2v.evaluation.mini.features import features

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="shipped name or folder")
    shipped = FAST if (data_dir() / FAST).is_dir() else ""
    parser.add_argument("--fast", default=shipped, help=f"a model of few steps likewise ({FAST}, if it is shipped)")
    parser.add_argument("--part", choices=("all", "quality", "seconds", "report"), default="all")
    parser.add_argument("--n", type=int, default=128, help="number of prompts")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--sweep", type=float, nargs="*", default=SWEEP, help=f"guidance, with {SWEEP_STEPS} steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rows", type=Path, default=Path("runs/quality.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/quality.json"), help="the picture goes beside it")
    chosen = parser.parse_args(arguments)
    pipe, *fast = (minit2v.load(model, dtype=chosen.dtype) for model in filter(None, (chosen.model, chosen.fast)))
    pipes = {each.preset.name: each for each in (pipe, *fast)}
    weights = {name: fingerprint(find_model(model)) for name, model in zip(pipes, (chosen.model, chosen.fast))}
    wanted = settings(pipe.preset, fast[0].preset if fast else None, chosen)
    threads = torch.get_num_threads()
    rows = Rows(chosen.rows, {"dtype": chosen.dtype, "network": sha256(networks.weights_of("motion"))[:12]}, weights)
    if chosen.part in ("all", "quality"):
        measure_quality(pipes, rows, wanted, chosen.n, chosen.seed, features("motion"))
    if chosen.part in ("all", "seconds"):
        measure_seconds(pipes, rows, wanted, threads)
    found = joined(rows, wanted, chosen.n, chosen.seed, threads)
    models = ", ".join(f"{name} ({digest})" for name, digest in weights.items())
    how = f"{models}, {chosen.dtype}, seed {chosen.seed}, {threads} threads"
    kept = quality_report.summary(found, pipe.preset.name, pipe.preset.guidance, how)
    quality_report.write(kept, chosen.out)
    say(quality_report.table(kept))


if __name__ == "__main__":
    main()
