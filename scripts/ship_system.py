"""Puts what a training of a system has made into data/: python scripts/ship_system.py videoldm magicvideo

    runs/NAME/*.safetensors ──► data/NAME/       the networks of the system, in float16; shared.json names those that
    runs/NAME/*/checkpoint.pt ► trained.json     another shipped model has, byte for byte
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from minit2v.checkpoints.folder import read_preset, save_tensors
from minit2v.checkpoints.reading import read
from minit2v.errors import UserError
from minit2v.files import data_dir, say, write_json
from minit2v.recipes import recipe_of
from minit2v.systems import system_of
from minit2v.training.checkpoint import read_checkpoint

ROOT = Path(__file__).parent.parent


def ship(name: str) -> None:
    """Raises UserError where a network is missing."""
    run, out, shared = ROOT / "runs" / name, data_dir() / name, {}
    files = [run / f"{network}.safetensors" for network in system_of(read_preset(run)).networks]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f"expected {', '.join(missing)} in {run}, found none; train them first")
    out.mkdir(exist_ok=True)
    for file in files:
        own = out / file.name
        if not (owner := owner_of(file, name)):
            save_tensors(halved(read(file)), own)
            owner = owner_of(own, name)
        if owner:
            own.unlink(missing_ok=True)  # also one of an earlier shipping, which would be read first
            shared[file.stem] = owner
    shutil.copyfile(run / "config.json", out / "config.json")
    write_json(out / "shared.json", shared)
    write_json(out / "trained.json", trained(name, run))
    say(f"{name}: {sum(path.stat().st_size for path in out.glob('*.safetensors')) / 1e6:.1f} MB; shared: {shared or 'nothing'}")


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In float16, as the networks of all shipped systems are."""
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}


def owner_of(file: Path, name: str) -> str | None:
    """The shipped model, other than `name`, that holds this very file."""
    same = (path.parent.name for path in sorted(data_dir().glob(f"*/{file.name}")) if path.read_bytes() == file.read_bytes())
    return next((owner for owner in same if owner != name), None)


def trained(name: str, run: Path) -> dict[str, dict]:
    """Steps and minutes of each training of a recipe that was not taken over, {part: {"steps", "minutes"}}."""
    found = {}
    for step in recipe_of(name):
        if (path := run / step.name / "checkpoint.pt").is_file():
            state = read_checkpoint(path)
            found[step.name] = {"steps": state["step"], "minutes": round(state["elapsed"] / 60, 1)}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a preset, trained in runs/NAME")
    for name in parser.parse_args().names:
        ship(name)
