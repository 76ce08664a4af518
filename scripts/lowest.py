"""The oldest releases that pyproject.toml allows, one requirement a line: python scripts/lowest.py lab train test

Prints ``name==bound`` for every ``name>=bound`` of the dependencies and of the extras that are named; `make lowest`
installs them and runs the tests with them, so that the bounds stay true.
"""

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings it
    import tomli as tomllib

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(project: dict, extras: list[str]) -> list[str]:
    """Exact requirements at the lower bounds. Raises ValueError for a requirement without one.

    >>> lowest({"dependencies": ["numpy>=1.26"], "optional-dependencies": {"lab": ["nbclient>=0.7.3"]}}, ["lab"])
    ['nbclient==0.7.3', 'numpy==1.26']
    """
    wanted = sum((project["optional-dependencies"][extra] for extra in extras), project["dependencies"])
    pins = set()
    for requirement in wanted:
        parts = re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement)
        if not parts:
            raise ValueError(f"expected NAME>=BOUND, found {requirement!r}")
        pins.add("==".join(parts.groups()))
    return sorted(pins)


if __name__ == "__main__":
    print("\n".join(lowest(tomllib.loads(PYPROJECT.read_text())["project"], sys.argv[1:])))
