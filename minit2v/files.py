"""Files: where those are that come with the library, and writing so that nothing is ever half-written.

`say` writes to the terminal, or to where a shell redirects it, in any encoding.
"""

import codecs
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from minit2v.errors import UserError

POINTER = b"version https://git-lfs"  # how the file begins that git-lfs keeps in the place of a large one
LARGEST_TEXT = 1 << 27  # bytes: MSR-VTT's annotations are a fifth of it; JSON takes ten times as much memory
ABANDONED = 3600  # seconds after which an unfinished file belongs to nobody who is still writing


@contextmanager
def written(path: str | Path):
    """Raises UserError where the block could not write `path`: a full disk, for one."""
    try:
        yield
    except OSError as error:
        raise UserError(f"could not write {path} ({error.strerror or error}); nothing was left there, "
                        "free some space or choose another place") from error  # fmt: skip


@contextmanager
def atomic(path: str | Path):
    """A name beside `path` to write to: moved to `path` when the block ends, removed when it fails.

    There is the old file or the new one, never half of one. Makes the folder if it is missing. The name is new for each
    call, and an empty file of this process waits there, so that nobody can put a link in its place. What killed processes
    have left of the same file is removed. Raises UserError where the system could not write it.
    """
    path = Path(path)
    refuse_folder(path)
    unfinished = beside(path)
    try:
        with written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            open(unfinished, "xb").close()
            yield unfinished
            os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # what went wrong before is what the caller needs to know
            unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: str | Path):
    """The same for a folder that is empty or not there yet: a name beside it to fill, whose files move there at the end."""
    folder = Path(folder).absolute()
    unfinished = beside(folder)
    try:
        with written(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            unfinished.mkdir()
            yield unfinished
            folder.mkdir(exist_ok=True)
            for path in unfinished.iterdir():
                os.replace(path, folder / path.name)
    except UserError as error:  # of a file in it; nobody knows that name
        raise UserError(str(error).replace(str(unfinished), str(folder))) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_json(path: str | Path, content: object, indent: int | None = 1) -> None:
    """Write a JSON file as `atomic` does; `indent` None puts everything on one line."""
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def check_writable(path: str | Path, shown: str = "") -> None:
    """Raises UserError unless `atomic` can write that file, in a folder that is there: to be called before the work.
    `shown` is what the message calls it, if not by its path."""
    probe = beside(Path(path))
    try:
        open(probe, "xb").close()
        probe.unlink()
    except OSError as error:  # surer than reading permission bits, and names can be too long
        raise UserError(f"cannot write {shown or path} ({error.strerror or error}); choose another place") from None


def refuse_folder(path: str | Path) -> None:
    """Raises UserError where a folder is in the place of a file that is to be read and written."""
    if os.path.isdir(path):
        raise UserError(f"expected a file or nothing at {path}, found a folder; remove it, or choose another place")


def check_creatable(path: str | Path, shown: str = "") -> None:
    """`check_writable` for a file or folder in a folder that may have to be made."""
    path = Path(path).absolute()
    check_writable(next(place for place in path.parents if os.path.exists(place)) / path.name, shown or str(path))


def beside(path: Path) -> Path:
    """A new name in the same folder, with the same suffix."""
    return path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")


def _remove_abandoned(path: Path) -> None:
    """Remove the names of `beside` that nobody has written to for a while."""
    ours = re.compile(rf"\.{re.escape(path.stem)}-[0-9a-f]{{8}}{re.escape(path.suffix)}")
    with suppress(OSError):  # another process may be quicker, and a folder need not be readable
        for other in path.parent.iterdir():
            if ours.fullmatch(other.name) and time.time() - other.stat().st_mtime > ABANDONED:
                shutil.rmtree(other) if other.is_dir() else other.unlink()


def sha256(*paths: str | Path) -> str:
    """SHA-256 (FIPS 180-4) of the contents of files, one after the other: 64 hexadecimal digits.

    >>> sha256(os.devnull)[:16]
    'e3b0c44298fc1c14'
    """
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):  # files of weights do not fit into memory everywhere
                digest.update(piece)
    return digest.hexdigest()


def data_dir() -> Path:
    """Where shipped weights and images are: inside an installed wheel, or in the clone."""
    inside = Path(__file__).parent / "_data"
    return inside if inside.exists() else Path(__file__).parent.parent / "data"


def stamps(paths: Sequence[Path]) -> str:
    """A text that changes when one of the files does; what is computed from them is kept under it."""
    return repr([(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths])


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it has a byte order mark or any ASCII character, such as a line feed.
    Raises UserError for other encodings, and for a file too large to be text that people wrote."""
    if (size := path.stat().st_size) > LARGEST_TEXT:
        raise UserError(f"expected text of at most {LARGEST_TEXT:,} bytes in {path}, found {size:,}; divide it")
    data = path.read_bytes()
    _refuse_pointer(path, data)
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise UserError(f"expected text in UTF-8 or UTF-16 in {path}, found {error.reason} at byte {error.start}; save "
                        "it as UTF-8") from error  # fmt: skip
    if "\0" in text:
        raise UserError(f"expected text in UTF-8 or UTF-16 in {path}, found zeros, as in UTF-32; save it as UTF-8")
    return text


def refuse_pointer(path: Path) -> None:
    """Raises UserError for what git-lfs keeps in the place of a large file."""
    if path.stat().st_size < 1024:
        _refuse_pointer(path, path.read_bytes())


def _refuse_pointer(path: Path, data: bytes) -> None:
    if len(data) < 1024 and data.startswith(POINTER):
        raise UserError(f"{path} is a pointer of git-lfs, {len(data)} bytes, not the file; run git lfs pull")


def read_json(path: Path, todo: str = "get it again") -> dict:
    """The JSON dictionary in a file. Raises UserError for anything else, with what to do then."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({str(error)[:80]}); {todo}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: expected settings by name, found {type(content).__name__}; {todo}")
    return content


def _encoding(data: bytes) -> str:
    """UTF-8 has no zeros; in UTF-16 an ASCII character has one, second if the lower byte comes first."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" not in data:
        return "utf-8-sig"
    return "utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be"


def find_recording(path: str | Path, what: str) -> Path:
    """The .npz file at `path`, or the shipped one of that name in data/`what`s. Raises UserError that lists those."""
    folder = data_dir() / f"{what}s"
    found = next((place for place in (folder / f"{path}.npz", Path(path)) if place.is_file()), None)
    if found is None:
        shipped = ", ".join(sorted(place.stem for place in folder.glob("*.npz")))
        raise UserError(f"expected an existing {what} (.npz) or one of {shipped}, found {path}")
    return found


PLAIN = {"→": "->", "←": "<-", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "±": "+-", "≤": "<=", "≥": ">=",
         "✓": "ok", "✔": "ok", "✗": "no", "✘": "no", "“": '"', "”": '"', "‘": "'", "’": "'", "…": "..."}  # fmt: skip


def say(text: object = "", stream=None) -> None:
    """Print a line to `stream` (standard output), whatever its encoding: what that lacks becomes ASCII, or "?".

    >>> from io import BytesIO, TextIOWrapper
    >>> console = TextIOWrapper(BytesIO(), "ascii", newline="\\n")
    >>> say("Fréchet → 1 日", console)
    >>> console.seek(0), console.read()
    (0, 'Frechet -> 1 ?\\n')
    """
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = str(text).encode(encoding, "minit2v.plain").decode(encoding)
    try:
        print(f"{line}\n", end="", file=stream, flush=True)  # at once: lines of several processes stay whole
    except BrokenPipeError:  # nobody reads on; the work does not stop for that
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def _plain(error: UnicodeEncodeError) -> tuple[str, int]:
    """ASCII for characters that an encoding lacks: an equivalent, a letter without its accent, or a question mark."""
    bare = lambda char: unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() if char.isalpha() else ""
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(char) or bare(char) or "?" for char in missing), error.end


codecs.register_error("minit2v.plain", _plain)
