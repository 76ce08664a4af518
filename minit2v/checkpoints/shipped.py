"""Which names of models are known, found out without PyTorch: a mistyped one costs no seconds."""

import os
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from minit2v.errors import UserError
from minit2v.files import data_dir

# shipped with the repository, not with a wheel (tests/test_project.py)
IN_REPOSITORY = ("cogvideo", "cogvideo-zh", "magicvideo", "makeavideo", "mini-fast", "modelscope", "nuwa", "videoldm")


def check_name(name: str) -> None:
    """Raises UserError for what can only be a shipped name, and is none here. Paths and hub ids are left to who reads them."""
    is_path = "/" in name or os.sep in name or os.path.exists(name)
    if not (is_path or os.path.exists(data_dir() / name)):
        raise unknown(name)


def unknown(name: str | Path) -> UserError:
    """What to say of a name that is no model here."""
    if str(name) in IN_REPOSITORY:
        return UserError(f"{str(name)!r} is in the repository, not in this package: git clone {repository()} minit2v, then "
                         "pip install -e minit2v")  # fmt: skip
    shipped = ", ".join(sorted(path.parent.name for path in data_dir().glob("*/config.json"))) or "none"
    return UserError(f"unknown model {str(name)!r}; shipped are {shipped}; else name a model's folder")


def repository() -> str:
    """The address of the repository, as pyproject.toml says it; a word for it where minit2v is not installed."""
    try:
        urls = dict(url.split(", ", 1) for url in metadata("minit2v").get_all("Project-URL", []))
    except PackageNotFoundError:
        return "ADDRESS"
    return urls.get("Repository", "ADDRESS")
