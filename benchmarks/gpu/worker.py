"""A process that measures cases, so that a crash, a hang or a broken card loses one case and not the rest.

    supervisor ── name of a case ──► worker
               ◄── Row, Row, …, None or why there are no more

The supervisor itself asks the card for nothing, since that would take memory there, and imports none of the packages that
cases need, since that would take seconds.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import torch

from benchmarks.gpu.card import NotBegun, Row, Setting, free_memory, machine
from minit2v.errors import UserError

START = 120.0  # seconds that a new process may take until it has looked at the card


class Lost(Exception):
    """Why a case has no more rows."""


class Stopped(Lost):
    """It outran its time."""


def serve(connection, setting: Setting) -> None:
    """The main loop of the worker."""
    from benchmarks.gpu.cases import CASES

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    supervisor = multiprocessing.parent_process()
    threading.Thread(target=lambda: (supervisor.join(), os._exit(1)), daemon=True).start()  # killed: leave the card
    connection.send(machine(setting))
    for name in iter(connection.recv, None):
        try:
            for row in CASES[name].rows(setting):
                connection.send(row)
            if "torch._dynamo" in sys.modules:
                torch.compiler.reset()  # the next case compiles afresh
            free_memory(setting.device)  # waits for the card: what this case broke there is not the next one's fault
            connection.send(None)
        except NotBegun as reason:
            connection.send(reason)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines()
            connection.send(Lost(f"{type(error).__name__}: {lines[0] if lines else ''}"))


class Worker:
    """A process of `serve`. Use it in a with statement, in which `machine` is a line about hardware and packages; raises
    UserError there if the device cannot be used."""

    def __init__(self, setting: Setting):
        self.setting, self.process, self.connection, self.machine = setting, None, None, ""

    def rows(self, name: str, seconds: float) -> Iterator[Row]:
        """The rows of a case, each when it is measured. Raises NotBegun, or Lost, after which the next case has a new
        process."""
        end = time.monotonic() + seconds
        try:
            self.start(seconds)
            self.connection.send(name)
            while True:
                found = self.answer(end - time.monotonic(), f"stopped after {seconds:.0f} s")
                if found is None:
                    return
                if isinstance(found, Exception):
                    raise found
                yield found
        except (EOFError, OSError):
            self.stop()
            raise Lost("its process died") from None
        except Lost:
            self.stop()
            raise

    def answer(self, seconds: float, otherwise: str):
        """What the process sends next. Raises Stopped if nothing comes in time."""
        if not self.connection.poll(max(0.0, seconds)):
            raise Stopped(otherwise)
        return self.connection.recv()

    def start(self, seconds: float) -> None:
        if self.process is not None and self.process.is_alive():
            return
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.setting), daemon=True)
        self.process.start()
        theirs.close()
        self.machine = self.answer(seconds, f"no process that sees the card within {seconds:.0f} s")

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None

    def __enter__(self) -> "Worker":
        try:
            self.start(START)
        except (EOFError, OSError, Stopped):
            self.stop()
            raise UserError(f"expected a {self.setting.device.type} device that works, found one on which no process "
                            "starts; its own message is above, if it had one") from None  # fmt: skip
        return self

    def __exit__(self, *_) -> None:
        self.stop()
