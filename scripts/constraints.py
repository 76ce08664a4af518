"""The installed releases of everything that minit2v needs, as constraints of pip: make constraints

    python scripts/constraints.py                               prints them, one a line
    python scripts/constraints.py --against constraints.txt     how this environment differs from one that was tested

Follows the requirements of the library and of its extras, and theirs, through what is installed. A release holds only for
the Pythons that it supports: an older Python takes the newest release that it can. Exit status 1 if `--against` finds
a difference.
"""

import argparse
import importlib.metadata as metadata
import platform
import sys
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

EXTRAS = ("lab", "train", "metrics", "test")


def installed(name: str, extras: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """Every installed distribution that a distribution needs with these extras, at any depth; without itself."""
    found, waiting = {}, [(name, extra) for extra in ("", *extras)]
    seen = set(waiting)
    while waiting:
        owner, extra = waiting.pop()
        for line in metadata.requires(owner) or ():
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate(default_environment() | {"extra": extra}):
                continue
            needed = canonicalize_name(requirement.name)
            try:
                found[needed] = metadata.distribution(needed)
            except metadata.PackageNotFoundError:
                raise SystemExit(f"{owner} needs {requirement}, which is not installed; run make env") from None
            new = {(needed, each) for each in ("", *requirement.extras)} - seen
            seen |= new
            waiting += new
    return dict(sorted(found.items()))


def line(name: str, distribution: metadata.Distribution) -> str:
    """As in ``numpy==2.4.6 ; python_full_version >= "3.11"``; without a marker where each Python of minit2v will do."""
    pin = f"{name}=={Version(distribution.version).public}"  # without a build's label, as in 2.7.0+cpu
    least = oldest(distribution)
    return pin if least <= oldest(metadata.distribution("minit2v")) else f'{pin} ; python_full_version >= "{least}"'


def oldest(distribution: metadata.Distribution) -> Version:
    """The oldest Python that a release supports, as in 3.11."""
    bounds = SpecifierSet(distribution.metadata["Requires-Python"] or "")
    return max((Version(each.version) for each in bounds if each.operator == ">="), default=Version("3"))


def differences(lines: list[str], path: Path) -> list[str]:
    """As in ``numpy: tested with 2.4.6, here 2.5.5``."""
    versions = lambda lines: dict(each.split(" ;")[0].split("==") for each in lines)
    tested = versions(each for each in path.read_text().splitlines() if not each.startswith("#"))
    here = versions(lines)
    return [f"{name}: tested with {tested.get(name, 'none')}, here {here.get(name, 'none')}"
            for name in sorted(tested | here) if tested.get(name) != here.get(name)]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FILE", help="constraints to compare with")
    asked = parser.parse_args()
    lines = [line(name, each) for name, each in installed("minit2v", EXTRAS).items()]
    if asked.against:
        found = differences(lines, asked.against)
        print("\n".join(found) or f"all as in {asked.against}")
        return int(bool(found))
    where = f"Python {platform.python_version()} on {platform.system()}"
    print("\n".join([f"# releases that the tests passed with, {where}: make constraints", *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
