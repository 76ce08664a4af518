"""The command line, the same as `python -m minit2v`:

    minit2v sample | demo | train | distill | evaluate | fetch | weights | push | lab | serve | doctor | …

`parser` says what can be asked for; `commands` does it.

Exit status: 0 done; 2 a mistake of the caller, in one line that says what was expected, what was found
and what to do; 1 a fault (`--debug` shows where); 130 stopped with Ctrl-C, SIGTERM or SIGHUP (a training saves first
and is 2).
"""

import sys
import warnings

from minit2v.cli.parser import parser
from minit2v.errors import UserError, listening, one_line, stop


def main(argv=None):
    """Run the command line `argv` (default: the program's own) and return the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):  # a code page may lack a letter of a file's name: print a substitute
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    warnings.formatwarning = lambda message, *place, **more: f"minit2v: {one_line(message)}\n"
    try:
        with listening(stop, "SIGTERM", "SIGHUP"):
            args = parser().parse_args(argv)
            return args.run(args) or 0
    except KeyboardInterrupt as stopped:
        return _complain(f"stopped; {stopped}" if str(stopped) else "stopped", 130)
    except Exception as error:
        if "--debug" in argv:
            raise
        if isinstance(error, UserError):
            return _complain(error, 2)
        return _complain(f"fault: {type(error).__name__}: {error} (--debug shows where)", 1)


def _complain(message, status):
    print(f"minit2v: {one_line(message)}", file=sys.stderr)
    return status
