"""Data sets: captioned clips and pictures, and the table of their names.

    find_data("moving-things")              a row of DATASETS
    find_data("my-videos", fit="pad")       a folder of videos and pictures with captions

`base` says what a data set is.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path

from minit2v.datasets.base import Batch, Dataset, Probe, VideoText
from minit2v.datasets.moving_things import MovingThingsData
from minit2v.errors import UserError
from minit2v.ranges import Place, Positive, public

__all__ = ["DATASETS", "Batch", "Dataset", "Probe", "VideoText", "find_data", "options_of"]

# what `--data` calls it: what makes it when called without arguments
DATASETS: dict[str, Callable[..., Dataset]] = {
    "moving-things": MovingThingsData,
    "moving-things-zh": partial(MovingThingsData, language="zh"),
}


@public
def find_data(name_or_folder: Place, fps: Positive = 8, **options) -> Dataset:
    """The data set of a name of DATASETS, else of a folder (see `folder.FolderData`).

    fps is the frame rate to which the videos of a folder are resampled. `options` are arguments of the data set, such
    as fit="pad" of a folder; one that is None counts as not given.

    Raises UserError for neither a name nor a folder, and for an option that the data set does not have.

    >>> find_data("moving-things").name
    'moving-things'
    """
    options, known = {name: value for name, value in options.items() if value is not None}, options_of(name_or_folder)
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"{name_or_folder}: expected options of {', '.join(known) or 'none'}, found {unknown[0]}")
    make = DATASETS.get(str(name_or_folder))
    return make(**options) if make else _folder(name_or_folder)(name_or_folder, fps, **options)


@public
def options_of(name_or_folder: Place) -> list[str]:
    """The names of the options of a data set. Raises UserError for neither a name nor a folder.

    >>> options_of("moving-things")
    ['level']
    """
    make = DATASETS.get(str(name_or_folder)) or _folder(name_or_folder)
    return [name for name in signature(make).parameters if name not in ("folder", "fps", "language")]


def check_folder(name_or_folder: str | Path) -> None:
    """Raises UserError for what is no folder, nor a name of DATASETS."""
    if not Path(name_or_folder).is_dir():
        raise UserError(f"expected a data set of {', '.join(DATASETS)} or a folder of videos with captions, "
                        f"found {str(name_or_folder)!r}")  # fmt: skip


def _folder(name_or_folder: str | Path) -> type[Dataset]:
    check_folder(name_or_folder)
    from minit2v.datasets.folder import FolderData  # imports torch, which takes a second

    return FolderData
