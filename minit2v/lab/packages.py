"""Packages that only the lab needs, which an installation of the library alone does not have."""

from importlib import import_module
from types import ModuleType

from minit2v.errors import UserError

INSTALL = 'pip install "minit2v[lab]"'  # pip asks the installed minit2v, from a wheel or a clone, what its lab needs


def needed(module: str) -> ModuleType:
    """The module of that name, imported. Raises UserError that says what to install where a package is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        if package == "minit2v":
            raise
        raise UserError(f"the lab needs the package {package}, found none; {INSTALL}") from None
