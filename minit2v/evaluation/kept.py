"""Arrays that an evaluation keeps in files, so that an interrupted one goes on.

A file is a numpy archive without pickles, whose checksums numpy tests. What is damaged can be computed again, so it is.
"""

import warnings
from pathlib import Path

import numpy as np

from minit2v.files import atomic


def read_kept(path: Path | None) -> np.ndarray | None:
    """The array that `keep` wrote; None where there is none, and with a warning where it is damaged."""
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["values"]
    except Exception as error:  # a damaged archive fails in a dozen ways
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        warnings.warn(f"{path} is damaged ({reason}); it is computed again", stacklevel=3)
        return None


def keep(path: Path | None, values: np.ndarray) -> None:
    """Write an array for `read_kept`; without a path it is not kept."""
    if path is not None:
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, values=values)
