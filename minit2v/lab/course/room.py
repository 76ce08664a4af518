"""Is this machine ready for a lab? `minit2v doctor --lab A` says so; run it on every machine of a room."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import minit2v
from minit2v.errors import UserError
from minit2v.files import say
from minit2v.lab.course.exercises import of
from minit2v.lab.packages import INSTALL

LABS = {  # name: its title, the numbers of its notebooks
    "A": ("From noise to motion", (5, 6)),
    "C": ("Latents", (2, 3, 4)),
}
PACKAGES = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "matplotlib")


def examine(name):
    """Print one line if the machine can run the lab, else one for each thing that it lacks; return the exit status.

    Raises UserError for an unknown lab.
    """
    if name.upper() not in LABS:
        raise UserError(f"lab: expected one of {', '.join(LABS)}, found {name!r}")
    title, numbers = LABS[name.upper()]
    os.environ["HF_HUB_OFFLINE"] = "1"  # what is not on this machine must fail here, not in the lesson
    found, wrong = [], []
    for check in (_packages, _kernel, lambda: _notebooks(numbers), lambda: _exercises(numbers), _model):
        try:
            found.append(check())
        except Exception as error:  # a broken package may raise anything: name it and go on
            wrong.append(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
    if not wrong:
        say(f"OK  lab {name.upper()}, {title}: {', '.join(found)}")
    for problem in wrong:
        say(f"NOT READY  lab {name.upper()}: {problem}")
    return 1 if wrong else 0


def notebooks_folder():
    """The folder of the notebooks: the working folder, `notebooks` in it, or the clone's. None if there is none."""
    here = Path.cwd()
    for folder in (here, here / "notebooks", Path(__file__).parents[3] / "notebooks"):
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


def _exercises(numbers):
    return f"{sum(len(of(number)) for number in numbers)} exercises"


def _model():
    pixels = minit2v.load("mini", device="cpu")("a red circle moves left", steps=1).pixels
    return f"a clip of {len(pixels)} frames from the shipped weights, no network needed"
