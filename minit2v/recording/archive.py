"""The arrays of a recording's file, read as if a stranger had written it."""

import zipfile
from pathlib import Path

import numpy as np


def arrays_of(path: Path, most: int) -> dict[str, np.ndarray]:
    """The arrays in an .npz file. Executes nothing that is in it: no pickles.

    Raises ValueError, before anything is unpacked, for a file that has or unpacks to more than `most` bytes.
    """
    with zipfile.ZipFile(path) as archive:
        size = max(path.stat().st_size, sum(member.file_size for member in archive.infolist()))
    if size > most:
        raise ValueError(f"it has, or would unpack to, {size:,} bytes, expected at most {most:,}")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
