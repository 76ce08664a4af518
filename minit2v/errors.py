"""Mistakes of the caller, each in one line; and signals, which stop the program."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class UserError(ValueError):
    """What was expected, what was found, what to do, in one line.

    The command line prints it and exits with status 2.
    """


def one_line(message: object, most: int = 1000) -> str:
    """A message for a terminal: one line without control characters, which may come from a stranger's file, and not endless.

    >>> one_line("found a\\n b\\x1b[2J")
    'found a b?[2J'
    """
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(message).split()))
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


@contextmanager
def listening(handler: Callable, *names: str) -> Iterator[None]:
    """Within the block, signals of these names call the handler. `nohup` has the program ignore SIGHUP, so it stays ignored."""
    before = {}
    with suppress(ValueError):  # not the main thread, which alone may listen
        for name in names:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(*_) -> None:
    """A handler that stops the program as Ctrl-C does."""
    raise KeyboardInterrupt
