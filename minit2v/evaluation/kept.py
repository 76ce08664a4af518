"""Arrays that an evaluation keeps in files, so that an interrupted one goes on.

A file is a numpy archive without pickles, whose checksums numpy tests. What is damaged, or is another array than the one
that was kept, can be computed again, so it is.
"""

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from minit2v.files import atomic, refuse_folder

WIDEST = 1 << 16  # numbers of a last axis whose length only the kept array tells


def read_kept(path: Path | None, kind: type, shape: tuple[int | None, ...]) -> np.ndarray | None:
    """The array that `keep` wrote; None where there is none, and with a warning where it is damaged or another one.

    kind: what its numbers are (np.uint8, np.floating). shape: its last axis is None if only the kept array tells how long
    it is. Raises UserError for a folder in its place.
    """
    if path is None:
        return None
    refuse_folder(path)
    if not path.is_file():
        return None
    try:
        _check_header(path, kind, shape)
        with np.load(path, allow_pickle=False) as file:
            values = file["values"]
        if not np.isfinite(values).all():
            raise ValueError("numbers that are not finite")
        return values
    except Exception as error:  # a damaged archive fails in a dozen ways
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        warnings.warn(f"{path} is damaged ({reason}); it is computed again", stacklevel=3)
        return None


def _check_header(path: Path, kind: type, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError for another array, before its numbers take memory."""
    with zipfile.ZipFile(path) as archive, archive.open("values.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):  # later versions have headers of any length, and `keep` writes none
            raise ValueError("another version of the format")
        found, _, dtype = np.lib.format.read_array_header_1_0(file)
    fits = lambda n, expected: n == expected if expected is not None else 0 < n <= WIDEST
    if not (np.issubdtype(dtype, kind) and len(found) == len(shape) and all(map(fits, found, shape))):
        expected = str(shape).replace("None", "d")
        raise ValueError(f"expected {kind.__name__} {expected}, found {dtype} {found}")


def keep(path: Path | None, values: np.ndarray) -> None:
    """Write an array for `read_kept`; without a path it is not kept."""
    if path is not None:
        with atomic(path) as unfinished:
            np.savez_compressed(unfinished, values=values)


@contextmanager
def kept_in(folder: str | Path | None) -> Iterator[None]:
    """Where the block keeps arrays, whoever stops it is told how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if folder is None or not Path(folder).is_dir():
            raise
        raise KeyboardInterrupt(f"what is done is kept in {folder}; the same command goes on from there") from None
