"""Files: where those are that come with the library, and writing so that nothing is ever half-written.

`say` writes to the terminal, or to where a shell redirects it, in any encoding.
"""

import codecs
import hashlib
import os
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from minit2v.errors import UserError


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

    There is the old file or the new one, never half of one. Makes the folder if it is missing. Raises UserError where
    the system could not write it.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        with written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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
    Raises UserError for other encodings."""
    data = path.read_bytes()
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise UserError(f"expected text in UTF-8 or UTF-16 in {path}, found {error.reason} at byte {error.start}; save "
                        "it as UTF-8") from error  # fmt: skip
    if "\0" in text:
        raise UserError(f"expected text in UTF-8 or UTF-16 in {path}, found zeros, as in UTF-32; save it as UTF-8")
    return text


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
    print(str(text).encode(encoding, "minit2v.plain").decode(encoding), file=stream)


def _plain(error: UnicodeEncodeError) -> tuple[str, int]:
    """ASCII for characters that an encoding lacks: an equivalent, a letter without its accent, or a question mark."""
    bare = lambda char: unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() if char.isalpha() else ""
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(char) or bare(char) or "?" for char in missing), error.end


codecs.register_error("minit2v.plain", _plain)
