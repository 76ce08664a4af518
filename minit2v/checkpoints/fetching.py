"""Fetching one file from a place that the user names, and proving that it is the file that was meant.

    URL ── in pieces of 1 MB ──>  beside FILE, unfinished  ── sha256 as asked? ──>  FILE
                                                            └─ otherwise nothing is left

The digest is the user's: whoever publishes a file of weights says it, or `sha256sum` does on a machine that is trusted.
A digest that is right proves the contents, so the way there (a mirror, plain http) need not be trusted.

Reference: SHA-256, FIPS 180-4.
"""

import hashlib
import re
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from minit2v.errors import UserError
from minit2v.files import atomic

SCHEMES = ("https", "http", "file")
PIECE = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


def sha256(path: str | Path) -> str:
    """The digest of a file, 64 hexadecimal digits.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as empty:
    ...     sha256(empty.name)[:16]
    'e3b0c44298fc1c14'
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def verified(path: str | Path | None, expected: str | None, what: str) -> Path:
    """The path of a file whose sha256 is `expected`. Raises UserError for no file, no digest, or another digest."""
    if path is None or not Path(path).is_file():
        raise UserError(f"{what}: expected an existing file, found {path}; get it with minit2v fetch URL FILE")
    if expected is None:
        raise UserError(f"{what}: expected the sha256 of {path} beside it, found none; a file of weights can be a "
                        "program, so give the digest that its publisher states")  # fmt: skip
    if (found := sha256(path)) != _digest(expected):
        raise UserError(f"{what}: expected {path} with sha256 {expected}, found {found}; get the file again")
    return Path(path)


def fetch(url: str, path: str | Path, digest: str) -> Path:
    """Downloads `url` to `path` if its sha256 is `digest`, with a progress bar, and returns the path.

    A file that is there with that digest is left as it is. Raises UserError for another file of that name, a place
    that cannot be reached, and contents of another digest; then nothing is left behind.
    """
    path, digest = Path(path), _digest(digest)
    if path.exists():
        return verified(path, digest, "fetch")
    if url.partition("://")[0] not in SCHEMES:
        raise UserError(f"fetch: expected an address that begins with {', '.join(SCHEMES)} and ://, found {url!r}")
    pieces = _pieces(url)
    first = next(pieces, b"")  # opens the address before anything is made on this side
    with atomic(path) as unfinished:
        found = hashlib.sha256()
        with open(unfinished, "wb") as file:
            while first:
                file.write(first)
                found.update(first)
                first = next(pieces, b"")
        if found.hexdigest() != digest:
            raise UserError(f"fetch: expected sha256 {digest}, found {found.hexdigest()} at {url}; nothing was kept, "
                            "check the address and the digest")  # fmt: skip
    return path


def _pieces(url: str) -> Iterator[bytes]:
    from tqdm.auto import tqdm

    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            size = answer.headers.get("Content-Length")
            settings = {"unit": "B", "unit_scale": True, "desc": "fetching", "disable": None}
            with tqdm(total=size and int(size), **settings) as bar:
                while piece := answer.read(PIECE):
                    bar.update(len(piece))
                    yield piece
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"fetch: could not read {url} ({error}); check the address and the network") from error


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text := text.strip().lower()):
        raise UserError(f"sha256: expected 64 hexadecimal digits, found {text!r}; copy the whole digest")
    return text
