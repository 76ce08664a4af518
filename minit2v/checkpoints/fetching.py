"""Fetching one file from an address that the user names, and proving that it is the right file.

    URL ── in pieces of 1 MB ──>  beside FILE, unfinished  ── sha256 as expected? ──>  FILE
                                                            └─ otherwise nothing is kept

The user gives the digest: the publisher of a file of weights states it, or `sha256sum` prints it on a trusted machine.
A matching digest proves the contents, so the way there (a mirror, plain http) need not be trusted.

Reference: SHA-256, FIPS 180-4.
"""

import re
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from minit2v.errors import UserError
from minit2v.files import atomic, sha256
from minit2v.ranges import Place, public

SCHEMES = ("https", "http", "file")
PIECE = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte


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


@public
def fetch(url: str, path: Place, digest: str) -> Path:
    """Download `url` to `path` if its sha256 is `digest`, with a progress bar; returns the path.

    An existing file with that digest is left as it is. Raises UserError for another file of that name, an address that
    cannot be reached, and contents with another digest; then nothing is left behind.
    """
    path, digest = Path(path), _digest(digest)
    if path.is_dir():
        raise UserError(f"fetch: expected the name of a file, found the folder {path}; name a file in it")
    if path.exists():
        return verified(path, digest, "fetch")
    if url.partition("://")[0] not in SCHEMES:
        raise UserError(f"fetch: expected an address that begins with {', '.join(SCHEMES)} and ://, found {url!r}")
    pieces = _pieces(url)
    piece = next(pieces, b"")  # opens the address before anything is written
    with atomic(path) as unfinished:
        with open(unfinished, "wb") as file:
            while piece:
                file.write(piece)
                piece = next(pieces, b"")
        if (found := sha256(unfinished)) != digest:
            raise UserError(f"fetch: expected sha256 {digest}, found {found} at {url}; nothing was kept, "
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
