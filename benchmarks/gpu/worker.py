"""A process that measures cases, so that a crash, a hang or a broken card loses one case and not the rest.

    supervisor ── name of a case ──► worker
               ◄── Row, Row, …, None or the last line of an error
"""

import multiprocessing
import time
import traceback
from collections.abc import Iterator

import torch

from benchmarks.gpu.card import Row, Setting, free_memory


class Lost(Exception):
    """Why a case has no more rows."""


def serve(connection, setting: Setting) -> None:
    """The main loop of the worker."""
    from benchmarks.gpu.cases import CASES

    for name in iter(connection.recv, None):
        try:
            for row in CASES[name].measure(setting):
                connection.send(row)
            connection.send(None)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines()
            connection.send(f"{type(error).__name__}: {lines[0] if lines else ''}")
        torch.compiler.reset()
        try:
            free_memory(setting.device)
        except RuntimeError:  # the card is broken for this process; the supervisor starts another one
            return


class Worker:
    """A process of `serve`; it is started when it is needed. Use it in a with statement."""

    def __init__(self, setting: Setting):
        self.setting, self.process, self.connection = setting, None, None

    def rows(self, name: str, seconds: float) -> Iterator[Row]:
        """The rows of a case, each when it is measured. Raises Lost, after which the next case has a new process."""
        end = time.monotonic() + seconds
        self.start()
        try:
            self.connection.send(name)
            while True:
                if not self.connection.poll(max(0.0, end - time.monotonic())):
                    raise Lost(f"stopped after {seconds:.0f} s")
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

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.stop()
