"""Mistakes of the caller, each in one line."""


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
