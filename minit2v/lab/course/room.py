"""Is this machine ready for a lab? `minit2v doctor --lab A` says so; run it on every machine of a room."""

import json
import os
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import minit2v
from minit2v.errors import UserError
from minit2v.files import data_dir, read_text, say
from minit2v.lab.course.exercises import get, of
from minit2v.lab.packages import INSTALL


@dataclass(frozen=True)
class Lab:
    """Two hours in a room; its sheet is notebooks/labs/NAME.md."""

    title: str
    notebooks: tuple[int, ...]  # their numbers
    exercises: tuple[str, ...]  # that people solve in it; the last one is for those ahead of time
    data: tuple[str, ...] = ()  # files of the shipped data that its notebooks show, besides the model


LABS = {
    "A": Lab("From noise to motion", (0, 5, 6, 10), ("5.1", "5.2", "6.1", "6.2", "5.B"), ("guiders.npz",)),
    "B": Lab("Teaching a UNet about time", (1, 8, 11), ("1.1", "8.1", "8.2", "8.B"), ("released_manifest.json",)),
    "C": Lab("Latents", (2, 3, 4), ("2.1", "2.2", "2.3", "3.1", "3.2", "4.2", "2.B"),
             ("runs/nano-vqgan-late.npz", "runs/nano-vqgan-early.npz", "runs/nano-vqgan-never.npz",
              "runs/nano-vqgan-collapsed.npz")),
    "D": Lab("Loading someone else's model", (11, 12), ("11.1", "11.2", "11.3", "12.1", "11.B"),
             ("released_manifest.json", "memory_figures.json", "recordings/left.npz", "recordings/right.npz")),
}  # fmt: skip
PACKAGES = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "matplotlib")


def examine(name):
    """Print one line if the machine can run the lab, else one for each thing that it lacks; return the exit status.

    Raises UserError for an unknown lab.
    """
    if name.upper() not in LABS:
        raise UserError(f"lab: expected one of {', '.join(LABS)}, found {name!r}")
    lab = LABS[name.upper()]
    os.environ["HF_HUB_OFFLINE"] = "1"  # what is not on this machine must fail here, not in the lesson
    found, wrong = [], []
    for check in (_packages, _kernel, lambda: _notebooks(lab.notebooks), lambda: _exercises(lab), lambda: _data(lab.data),
                  _model):
        try:
            found.append(check())
        except Exception as error:  # a broken package may raise anything: name it and go on
            missing = isinstance(error, ModuleNotFoundError)
            wrong.append(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}" + missing * f"; {INSTALL}")
    if not wrong:
        say(f"OK  lab {name.upper()}, {lab.title}: {', '.join(found)}")
    for problem in wrong:
        say(f"NOT READY  lab {name.upper()}: {problem}")
    return 1 if wrong else 0


def notebooks_folder():
    """The folder of the notebooks: the working folder, `notebooks` or `minit2v-lab` in it, or the clone's. None if there is none."""
    here = Path.cwd()
    for folder in (here, here / "notebooks", here / "minit2v-lab", Path(__file__).parents[3] / "notebooks"):
        if list(folder.glob("[0-9][0-9]_*.ipynb")):
            return folder
    return None


def _packages():
    missing = []
    for package in PACKAGES:
        try:
            version(package)
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        raise UserError(f"expected the packages {', '.join(PACKAGES)}, found no {', '.join(missing)}; "
                        f"{INSTALL} while there is a network")
    return f"JupyterLab {version('jupyterlab')}"


def _kernel():
    from jupyter_client.kernelspec import KernelSpecManager

    KernelSpecManager().get_kernel_spec("python3")
    return "Python kernel"


def _notebooks(numbers):
    folder = notebooks_folder()
    names = [f"{number:02}" for number in numbers]
    missing = [name for name in names if folder is None or not list(folder.glob(f"{name}_*.ipynb"))]
    if missing:
        raise UserError(f"expected the notebooks {', '.join(names)}, found no {', '.join(missing)} in "
                        f"{folder or Path.cwd()}; go into the folder of the lab and try again")
    return f"notebooks {' '.join(names)}"


def _exercises(lab):
    for number in lab.notebooks:
        of(number)  # the checks of a notebook can be imported
    return f"{len([get(number) for number in lab.exercises])} exercises"


def _data(names):
    """The files are there and can be read."""
    for name in names:
        path = data_dir() / name
        try:
            if path.suffix == ".json":
                json.loads(read_text(path))
            else:
                with zipfile.ZipFile(path) as arrays:  # .npz
                    if (damaged := arrays.testzip()) is not None:
                        raise zipfile.BadZipFile(damaged)
        except (OSError, ValueError, zipfile.BadZipFile):
            raise UserError(f"expected {name} in {data_dir()}, found none that is whole; unpack the lab again") from None
    return f"data files: {len(names)}"


def _model():
    pixels = minit2v.load("mini", device="cpu")("a red circle moves left", steps=1).pixels
    return f"a clip of {len(pixels)} frames from the shipped weights, no network needed"
