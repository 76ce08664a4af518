"""Mistakes of the caller, each in one line."""


class UserError(ValueError):
    """What was expected, what was found, what to do, in one line.

    The command line prints it and exits with status 2.
    """
