"""Reports of a training while it runs: a line of numbers every few seconds, a picture now and then, a progress bar."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minit2v.files import atomic, refuse_folder, written


class Log:
    """log.jsonl, picture.png and a progress bar with the time left; silent on all ranks but the first."""

    def __init__(self, out: Path, active: bool, step: int, every: float = 5.0):
        from tqdm import tqdm

        self.out, self.active, self.every = out, active, every
        self.sums, self.last = {}, None
        self.bar = tqdm(total=100.0, disable=None if active else True, bar_format="{l_bar}{bar}| {postfix}")
        if active:
            self.trim(step)

    def trim(self, step: int) -> None:
        """Forget lines written after the checkpoint that is resumed."""
        path = self.out / "log.jsonl"
        refuse_folder(path)
        lines = path.read_text(errors="replace").splitlines() if path.exists() and step else []
        with atomic(path) as unfinished:
            unfinished.write_text("".join(line + "\n" for line in lines if step_of(line) <= step))

    def __call__(self, step: int, elapsed: float, progress: float, metrics: dict[str, float]) -> None:
        for key, value in metrics.items():
            total, n = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + value, n + 1)
        if not self.active or (self.last is not None and elapsed - self.last < self.every):
            return
        means = {key: round(total / n, 5) for key, (total, n) in self.sums.items()}
        path = self.out / "log.jsonl"
        with written(path), open(path, "a") as file:
            file.write(json.dumps({"step": step, "seconds": round(elapsed, 1), **means}) + "\n")
        left = elapsed / max(progress, 1e-6) - elapsed
        self.bar.n = round(100 * progress, 1)
        self.bar.set_postfix_str(f"step {step}, loss {means['loss']:.4f}, {left / 60:.1f} min left")
        self.sums, self.last = {}, elapsed

    def picture(self, pixels) -> None:
        if self.active and pixels is not None:
            from PIL import Image

            with atomic(self.out / "picture.png") as path:
                Image.fromarray(pixels).save(path)

    def close(self) -> None:
        self.bar.close()


def step_of(line: str) -> float:
    """The step of a line; infinity for one that is damaged, as a kill leaves half of it."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return float("inf")


@contextmanager
def gathered() -> Iterator[list[str]]:
    """Keeps back the warnings of the block: a list of their messages, filled when it ends."""
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    messages += [str(warning.message) for warning in caught]


def warn_of_first(messages: list[str]) -> None:
    """One line for many warnings of one kind: the first, and how many more there are."""
    if messages:
        others = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        warnings.warn(f"{messages[0]}{others}", stacklevel=3)
