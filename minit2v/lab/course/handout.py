"""The learner's own copy of the notebooks: `minit2v lab`.

    notebooks/hosted/*.ipynb, in a wheel _notebooks  ──►  minit2v-lab/*.ipynb  ──►  JupyterLab
    stubs, no outputs; a first cell that installs         without that cell

A copy in which somebody has worked is never overwritten.
"""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from minit2v.checkpoints.shipped import repository
from minit2v.errors import UserError
from minit2v.files import atomic, data_dir, read_json, sha256, write_json
from minit2v.lab.packages import INSTALL

PACKAGE = Path(__file__).parents[2]
HANDED_OUT = ".handed-out.json"
INSTALL_CELL = "install"  # id of the cell for machines on which nothing is installed
MODELS = "minit2v_models"  # metadata of a notebook: shipped models that it needs and a wheel has not


def hosted() -> Path:
    """The folder of the notebooks for machines on which nothing is installed: inside an installed wheel, or in the clone."""
    inside = PACKAGE / "_notebooks"
    return inside if inside.exists() else PACKAGE.parent / "notebooks/hosted"


def hand_out_all(folder: str | Path) -> list[str]:
    """Write a copy of every notebook into a folder. Returns what happened, a line for each that is new or was kept, or
    that needs a model which is not here.

    Raises UserError for a folder that cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"expected a folder to write notebooks to, found {folder} ({error.strerror}); name another") from None
    told = []
    for path in sorted(hosted().glob("[0-9][0-9]_*.ipynb")):
        nb = json.loads(path.read_text(encoding="utf-8"))
        if missing := [model for model in nb["metadata"].pop(MODELS, []) if not (data_dir() / model).is_dir()]:
            told.append(f"{path.name}  left out: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} in the repository only, "
                        f"{repository()}")
            continue
        nb["cells"] = [cell for cell in nb["cells"] if cell["id"] != INSTALL_CELL]
        told.append(hand_out(json.dumps(nb, ensure_ascii=False, indent=1).encode() + b"\n", Path(folder) / path.name))
    return [line for line in told if line]


def hand_out(content: bytes, path: Path, record: Path | None = None) -> str | None:
    """Write a copy unless somebody has worked in the one that is there. Returns what happened, in a line, or None.

    `record`, HANDED_OUT beside the copies, knows each as it was written: a copy that has changed since belongs to who
    changed it.
    """
    record = record or path.with_name(HANDED_OUT)
    known = read_json(record, "delete it; no copy will be overwritten") if record.exists() else {}
    new = hashlib.sha256(content).hexdigest()
    there = sha256(path) if path.exists() else None
    if there == new:
        return None
    if there not in (None, known.get(path.name)):
        newer = known.get(path.name) != new
        return f"{path}  yours, kept; for the newer one of the course, rename yours and try again" if newer else None
    with atomic(path) as unfinished:
        unfinished.write_bytes(content)
    write_json(record, known | {path.name: new})
    return f"{path}  {'new' if there is None else 'renewed'}"


def require_jupyter():
    """Raises UserError where a package is missing that the notebooks need."""
    missing = [name for name in ("jupyterlab", "ipywidgets", "anywidget", "matplotlib") if find_spec(name) is None]
    if missing:
        raise UserError(f"the lab needs the packages jupyterlab, ipywidgets, anywidget, matplotlib, found no "
                        f"{', '.join(missing)}; {INSTALL}")  # fmt: skip
