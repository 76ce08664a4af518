"""A process that measures cases, so that a crash, a hang or a broken card loses one case and not the rest.

    supervisor ── name of a case ──► worker
               ◄── Row, Row, …, None or the first line of an error

The supervisor itself asks the card for nothing, since that would take memory there.
"""

import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator

import torch

from benchmarks.gpu.card import Row, Setting, free_memory, machine


class Lost(Exception):
    """Why a case has no more rows."""


class Stopped(Lost):
    """It outran its time."""


def serve(connection, setting: Setting) -> None:
    """The main loop of the worker."""
    from benchmarks.gpu.cases import CASES

    connection.send(machine(setting.device))
    for name in iter(connection.recv, None):
        try:
            for row in CASES[name].measure(setting):
                connection.send(row)
            connection.send(None)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines()
            connection.send(f"{type(error).__name__}: {lines[0] if lines else ''}")
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()  # the next case compiles afresh
        try:
            free_memory(setting.device)
        except RuntimeError:  # the card is broken for this process; the supervisor starts another one
            return


class Worker:
    """A process of `serve`. Use it in a with statement, in which `machine` is a line about hardware and packages."""

    def __init__(self, setting: Setting):
        self.setting, self.process, self.connection, self.machine = setting, None, None, ""

    def rows(self, name: str, seconds: float) -> Iterator[Row]:
        """The rows of a case, each when it is measured. Raises Lost, after which the next case has a new process."""
        end = time.monotonic() + seconds
        try:
            self.start()
            self.connection.send(name)
            while True:
                if not self.connection.poll(max(0.0, end - time.monotonic())):
                    raise Stopped(f"stopped after {seconds:.0f} s")
                found = self.connection.recv()
                if found is None:
                    return
                if isinstance(found, str):
                    raise Lost(found)
                yield found
        except (EOFError, OSError):
            self.stop()
            raise Lost("its process died") from None
        except Lost:
            self.stop()
            raise

    def start(self) -> None:
        if self.process is not None and self.process.is_alive():
            return
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.setting), daemon=True)
        self.process.start()
        theirs.close()
        self.machine = self.connection.recv()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None

    def __enter__(self) -> "Worker":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()
