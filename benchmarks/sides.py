"""Runs two programs side by side, each in its own process, in alternating rounds, so that both see the same machine.

    ours        ▓▓         ▓▓      ▓▓         ▓▓       one runs while the other waits;
    diffusers      ▓▓▓  ▓▓▓           ▓▓▓  ▓▓▓         every round reverses the order

Separate processes keep memory apart: in one process, memory that the allocator keeps for one side would serve the
other, and the higher peak would hide the lower. The first call of each side is a warm-up: it is compared, not timed.
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

MIN_ROUNDS, MAX_ROUNDS = 3, 15


@dataclass(frozen=True)
class Measurement:
    """One call of a side."""

    seconds: float
    output: np.ndarray  # float32
    peak: int  # bytes, peak memory of its process so far


def serve(connection, threads: int, setup: Callable, arguments: tuple) -> None:
    """The main loop of a side's process: calls what ``setup(*arguments)`` returns, once for each question, until None
    arrives."""
    torch.set_num_threads(threads)
    try:
        call = setup(*arguments)
        for question in iter(connection.recv, None):
            start = time.perf_counter()
            output = call(*question)
            seconds = time.perf_counter() - start
            output = output.detach().float().numpy() if isinstance(output, Tensor) else np.asarray(output, np.float32)
            connection.send(Measurement(seconds, output, peak()))
    except Exception:
        connection.send(traceback.format_exc())


class Side:
    """A process that runs one side of a comparison; use it in a with statement."""

    def __init__(self, threads: int, setup: Callable, *arguments):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, threads, setup, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, *question) -> Measurement:
        """Make one call. Raises RuntimeError with the process's traceback."""
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
    """Time the sides in alternating rounds, after one warm-up call each: {name: seconds of each round}.

    `rounds` defaults to what fits into `limit` seconds, between MIN_ROUNDS and MAX_ROUNDS. Raises AssertionError if the
    outputs of "ours" and "diffusers" differ by more than `tolerance`, relative.
    """
    warm = {name: side(*question) for name, side in sides.items()}
    same(warm["ours"], warm["diffusers"], tolerance)
    rounds = rounds or min(MAX_ROUNDS, max(MIN_ROUNDS, int(limit / sum(run.seconds for run in warm.values()))))
    seconds = {name: [] for name in sides}
    for i in range(rounds):
        for name in list(sides)[:: 1 if i % 2 else -1]:
            seconds[name].append(sides[name](*question).seconds)
    return seconds


def same(ours: Measurement, theirs: Measurement, tolerance: float) -> None:
    """Raises AssertionError unless both outputs are finite, nonzero and equal within `tolerance`."""
    size, difference = np.linalg.norm(theirs.output), np.linalg.norm(ours.output - theirs.output)
    assert np.isfinite(size) and size > 0, f"expected a finite nonzero output, found a norm of {size}"
    assert difference <= tolerance * size, f"the sides differ by {difference / size:.1e}, allowed are {tolerance:.0e}"
