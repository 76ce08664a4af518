"""Reading files of weights that somebody else made, without running anything in them.

    .safetensors             numbers and names only
    .bin .pth .pt .ckpt      a zip of numbers and a pickle that says how they belong together

A pickle is a program: reading it the usual way runs it. Here it may build tensors and plain containers, by PyTorch's
own `weights_only` reader; a whole training checkpoint, which that reader refuses, is read by an unpickler of our own
(see `inert`). Tensors are mapped from the file: nothing is in memory until it is used.
"""

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from minit2v.checkpoints.inert import InertPickle
from minit2v.errors import UserError
from minit2v.files import read_json as read_dictionary
from minit2v.files import refuse_pointer, sha256
from minit2v.ranges import Place, public

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
KNOWN = {  # file name -> size in bytes -> how its sha256 begins, where it has been published
    "VQGAN_autoencoder.pth": {5_214_865_159: "88ecb782", 2_607_657_443: "930e9865"},
}
LARGEST = 1 << 40  # numbers: no network is larger, and a broken file may claim anything
# keys under which training programs keep weights beside other things; averages of the weights are the better ones
AVERAGED = ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "params")

DIGEST = "sha256"  # key of a safetensors file's metadata, for the `digest` of what it holds

Get = Callable[[str], Tensor]


class Tensors(Mapping):
    """The tensors of one or several files: names and shapes at once, a tensor when it is asked for, mapped from disk.

    Pages of a mapped file count as memory from their first use until the last tensor of the mapping is gone. `forget`
    drops the mapping; the next tensor comes from a new one.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], get: Get, path: Path,
                 forget: Callable[[], None] = lambda: None):  # fmt: skip
        self.shapes, self.get_tensor, self.path, self.forget = shapes, get, path, forget

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        with torch.device("cpu"):  # whatever torch's default device is
            return self.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def under(self, names: dict[str, str]) -> "Tensors":
        """Tensors under other names: new name -> name here. All others are left out."""
        shapes = {new: self.shapes[name] for new, name in names.items()}
        return Tensors(shapes, lambda new: self.get_tensor(names[new]), self.path, self.forget)

    def renamed(self, rename: Callable[[str], str | None]) -> "Tensors":
        """All tensors under other names, except those whose new name is None."""
        return self.under({new: name for name in self.shapes if (new := rename(name)) is not None})

    def cut(self, name: str, rows: int) -> "Tensors":
        """The same tensors, of which one keeps only its first rows."""
        shapes = self.shapes | {name: (rows, *self.shapes[name][1:])}
        get = lambda asked: self.get_tensor(asked)[:rows] if asked == name else self.get_tensor(asked)
        return Tensors(shapes, get, self.path, self.forget)


@public
def read(path: Place) -> Tensors:
    """The tensors of a file, or of all the files that an index (`….index.json`, `….index.fp16.json`) names.

    Raises UserError in one line for a file that is missing, damaged, cut short, larger inside than outside, a pointer
    to another file, or that holds anything but tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".json" and ".index." in path.name:
            return _sharded(path)
        if not path.is_file():
            raise UserError(f"{path} does not exist; expected a file of weights there")
        refuse_pointer(path)
        _check_known(path)
        if path.suffix == ".safetensors":
            return _mapped(path, _safetensors)
        if path.suffix in SUFFIXES:
            return _mapped(path, _pickled)
    except UserError:
        raise
    except Exception as error:  # a broken file can make any reader raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(f"{path} is damaged or no file of weights ({reason}); get it again") from None
    raise UserError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}, found {path.suffix or 'none'}")


def _mapped(path: Path, open_file: Callable[[Path], tuple[dict[str, tuple[int, ...]], Get]]) -> Tensors:
    """Tensors of a file that is opened once, and again only after `forget`."""
    shapes, get = open_file(path)
    opened = [get]

    def get_tensor(name: str) -> Tensor:
        if not opened:
            opened.append(open_file(path)[1])
        return opened[0](name)

    return Tensors(shapes, get_tensor, path, opened.clear)


def _safetensors(path: Path) -> tuple[dict[str, tuple[int, ...]], Get]:
    from safetensors import safe_open

    file = safe_open(path, "pt")  # checks that every tensor lies inside the file
    status, declared = path.stat(), (file.metadata() or {}).get(DIGEST)
    if declared is not None and declared != _digest(path, status.st_size, status.st_mtime):
        raise UserError(f"{path} is damaged: its numbers are not those that were written; get it again")
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, file.get_tensor


def _pickled(path: Path) -> tuple[dict[str, tuple[int, ...]], Get]:
    _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:  # it names a class that PyTorch does not trust
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=False, pickle_module=InertPickle)
    if isinstance(content, list):  # of tensors without names, as some adapters are
        content = {str(i): value for i, value in enumerate(content)}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dictionary of tensors, found {type(content).__name__}; is it a model?")
    tensors, averaged = _unwrapped(content)
    if not tensors:
        raise UserError(f"{path}: expected a dictionary of tensors, found none in it; is it a model?")
    if averaged:
        warnings.warn(f"{path} holds averaged weights ({averaged!r}): they are used, not the last ones", stacklevel=5)
    for name, value in tensors.items():
        plain = not value.is_meta and value.layout == torch.strided and value.numel() <= LARGEST
        if not plain or value.nbytes > value.untyped_storage().nbytes():  # one number can stand for thousands
            raise UserError(f"{path} is damaged: {name} is no plain tensor; get it again")
    return {name: tuple(value.shape) for name, value in tensors.items()}, tensors.__getitem__


def _unwrapped(content: object) -> tuple[dict[str, Tensor], str | None]:
    """(weights by name, the key of averaged ones if these are averaged) of what a pickle holds."""
    if not isinstance(content, dict):
        return {}, None
    plain = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for key in WRAPPERS:
        found, averaged = _unwrapped(content.get(key))
        if found:
            plain = found
            break
    else:
        averaged = None
    for key in AVERAGED:
        found, _ = _unwrapped(content.get(key))
        if 2 * len(found) > len(plain):  # else they are something about the averages, as how many steps they span
            return found, key
    return plain, averaged


def _check_zip(path: Path) -> None:
    """A file of PyTorch's is a zip that compresses nothing: what claims to hold more than its size is a bomb."""
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is damaged, or older than PyTorch 1.6: expected a zip; get it again, or save it with a newer one"
        )
    with zipfile.ZipFile(path) as file:
        entries, size = file.infolist(), path.stat().st_size
        compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if compressed or sum(entry.file_size for entry in entries) > size:
            claim = f"it claims to hold more than its {size:,} bytes"
            raise UserError(f"{path} is no file of PyTorch's: {claim}; get it again")
        if any(b"bytearray" in file.read(entry) for entry in entries if entry.filename.endswith("data.pkl")):
            raise UserError(f"{path} holds a bytearray, which PyTorch makes of any length; no network has one")


def _sharded(path: Path) -> Tensors:
    """The files that an index names, each in the index's own folder."""
    weight_map = read_dictionary(path)["weight_map"]
    for name in set(weight_map.values()):
        if Path(name).name != name or "\\" in name or Path(name).suffix not in SUFFIXES:
            raise UserError(f"{path} is damaged: expected files in its own folder, found {name!r}; get it again")
    parts = {name: read(inside(path.parent, path.parent / name)) for name in sorted(set(weight_map.values()))}
    for key, name in weight_map.items():
        if key not in parts[name]:
            raise UserError(f"{path} is damaged: {name} does not hold {key}; get both again")
    shapes = {key: parts[name].shapes[key] for key, name in weight_map.items()}

    def forget() -> None:
        for tensors in parts.values():
            tensors.forget()

    return Tensors(shapes, lambda key: parts[weight_map[key]][key], path, forget)


def inside(folder: Path, path: Path) -> Path:
    """The path, if it lies in the folder also after its links are followed.

    The hub's cache is the exception: its snapshots link to the blobs beside them. Raises UserError else.
    """
    home = folder.resolve()
    cached = next((parent.parent for parent in (home, *home.parents) if parent.name == "snapshots"), None)
    target = path.resolve()
    if not target.is_relative_to(home) and not (cached and target.is_relative_to(cached)):
        raise UserError(f"{path} leads out of its folder, to {target}; expected a file, copy it there")
    return path


def read_json(path: Path) -> dict:
    """The dictionary in a file that came with weights. Raises UserError for anything else."""
    refuse_pointer(path)
    return read_dictionary(path)


def _check_known(path: Path) -> None:
    """Compare a file with its published checksum, where there is one. Raises UserError if it differs."""
    status = path.stat()
    published = KNOWN.get(path.name, {}).get(status.st_size)
    if published:
        found = _sha256(path, status.st_size, status.st_mtime)
        if not found.startswith(published):
            raise UserError(f"{path} is damaged: its sha256 is {found[:8]}…, published is {published}…; get it again")


def declared_digest(path: Path) -> str | None:
    """The digest in the header of a safetensors file; None if it has none, or is another kind of file."""
    return metadata(path).get(DIGEST)


def metadata(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors; nothing of another kind of file."""
    from safetensors import safe_open

    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def digest(path: Path) -> str:
    """SHA-256 over what a safetensors file holds: its header without the metadata, and all numbers. Reads the file piece
    by piece, as mapped pages would count as memory."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


@cache
def _digest(path: Path, size: int, changed: float) -> str:
    """Of a file; computed again only if it has changed."""
    return digest(path)


@cache
def _sha256(path: Path, size: int, changed: float) -> str:
    """Of a file; read again only if it has changed."""
    return sha256(path)
