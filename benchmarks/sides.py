"""Two programs side by side: each in a process of its own, in rounds that alternate, so that both see the same machine.

    ours        ▓▓      ▓▓         ▓▓      ▓▓          one works while the others wait;
    diffusers      ▓▓▓     ▓▓▓  ▓▓▓    ▓▓▓             the order turns round every round

A process of its own because memory is one: what an allocator keeps for one side would serve the other, and the peak of
one would hide that of the other. The first call of each side warms up and is not counted; its results are compared.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minit2v.memory.measured import peak

LEAST, MOST = 3, 15  # rounds


@dataclass(frozen=True)
class Run:
    """One call of a side."""

    seconds: float
    output: np.ndarray  # float32
    peak: int  # bytes that its process has held at most so far


def serve(connection, threads: int, setup: Callable, arguments: tuple) -> None:
    """The process of a side: ``setup(*arguments)`` gives what is called, with what comes in, until None comes."""
    torch.set_num_threads(threads)
    try:
        call = setup(*arguments)
        for question in iter(connection.recv, None):
            start = time.perf_counter()
            output = call(*question)
            seconds = time.perf_counter() - start
            output = output.detach().float().numpy() if isinstance(output, Tensor) else np.asarray(output, np.float32)
            connection.send(Run(seconds, output, peak()))
    except Exception:
        connection.send(traceback.format_exc())


class Side:
    """A process that has one side of a comparison; to be used in a with statement."""

    def __init__(self, threads: int, setup: Callable, *arguments):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, threads, setup, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, *question) -> Run:
        """One call. Raises RuntimeError with the traceback of the process."""
        self.connection.send(question)
        answer = self.connection.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_) -> None:
        if self.process.is_alive():
            self.connection.send(None)
        self.process.join()


def race(sides: dict[str, Side], question: tuple = (), tolerance: float = 1e-3, rounds: int | None = None,
         limit: float = 100.0) -> dict[str, list[float]]:  # fmt: skip
    """{name: seconds of each round}, after a call each to warm up, whose results must agree.

    `rounds`: how many; else as many as take `limit` seconds, at least LEAST, at most MOST. Raises AssertionError if
    "ours" and "diffusers" are further apart than `tolerance`, relative.
    """
    warm = {name: side(*question) for name, side in sides.items()}
    same(warm["ours"], warm["diffusers"], tolerance)
    rounds = rounds or min(MOST, max(LEAST, int(limit / sum(run.seconds for run in warm.values()))))
    seconds = {name: [] for name in sides}
    for i in range(rounds):
        for name in list(sides)[:: 1 if i % 2 else -1]:
            seconds[name].append(sides[name](*question).seconds)
    return seconds


def same(ours: Run, theirs: Run, tolerance: float) -> None:
    """Raises AssertionError unless both have computed the same, and something."""
    size, difference = np.linalg.norm(theirs.output), np.linalg.norm(ours.output - theirs.output)
    assert np.isfinite(size) and size > 0, f"expected numbers, found a norm of {size}"
    assert difference <= tolerance * size, f"both sides differ by {difference / size:.1e}, allowed is {tolerance:.0e}"
