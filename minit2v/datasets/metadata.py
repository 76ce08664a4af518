"""Which file shows what: the captions of a folder of videos and pictures, in any of three layouts.

    metadata.jsonl    {"file_name": "walks/dog.mp4", "text": "a dog walks on grass", "split": "train"}
    metadata.csv      file_name,text,split            the header; a line a file follows
    captions.tsv      walks/dog.mp4<tab>a dog walks on grass

`split` may be left out. A file with several captions has a line for each. Text is UTF-8 or UTF-16.

References: VideoFolder and ImageFolder, https://huggingface.co/docs/datasets/video_dataset.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from minit2v.errors import UserError
from minit2v.files import read_text

NAMES = ("metadata.jsonl", "metadata.csv", "captions.tsv")
SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}  # as written -> as `open` calls it
LISTED = 3  # files that a message names


class Item(NamedTuple):
    """One line of the captions."""

    name: str  # path of the file below its folder, with slashes
    caption: str
    split: str | None = None  # "train", "val" or "test"


def read_items(folder: Path) -> list[Item]:
    """The captions of a folder, or those of its folders train, val or validation, and test.

    Without a column `split`, files in such a folder belong to its split. Raises UserError for a folder without
    captions, for two files of captions, and for splits that not all files have.
    """
    if not folder.is_dir():
        raise UserError(f"expected a folder of videos with captions, found no folder {folder}; check the path")
    if path := _find(folder):
        rows = read_rows(path)
    else:
        parts = [(top, path) for top in SPLITS if (path := _find(folder / top))]
        rows = [row._replace(name=f"{top}/{row.name}") for top, path in parts for row in read_rows(path)]
    if not rows:
        raise UserError(f"expected captions in {folder}, a file {' or '.join(NAMES)}, found none; write one with a "
                        "line for each video or picture: its name and what it shows")  # fmt: skip
    items = [row._replace(split=row.split or SPLITS.get(row.name.split("/")[0])) for row in rows]
    split_of: dict[str, str | None] = {}
    for item in items:
        if split_of.setdefault(item.name, item.split) != item.split:
            raise UserError(f"{folder}: expected one split for {item.name}, found two; give all its captions the same")
    unsaid = [name for name, split in split_of.items() if split is None]
    if 0 < len(unsaid) < len(split_of):
        raise UserError(f"{folder}: expected a split for every file or for none, found none for {listed(unsaid)}")
    return items


def read_captions(path: str | Path) -> list[tuple[str, str]]:
    """(file, caption) of each line of a file of captions. Raises UserError as `read_rows` does."""
    return [(row.name, row.caption) for row in read_rows(Path(path))]


def read_rows(path: Path) -> list[Item]:
    """The lines of a .jsonl or .csv, or of a text file of FILE<tab>CAPTION.

    Raises UserError for a missing file, another layout, and the name of a file that is not below the folder.
    """
    if not path.is_file():
        raise UserError(f"expected a file of captions, lines of FILE<tab>CAPTION, found no {path}; name one")
    read = {".jsonl": _json_rows, ".csv": _csv_rows}.get(path.suffix.lower(), _tab_rows)
    rows = [_item(row, f"line {number} of {path}") for number, row in read(path)]
    if not rows:
        raise UserError(f"expected captions in {path}, found none; write a line for each file")
    return rows


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are.

    >>> listed(["a.mp4"]), listed(list("abcde"))
    ('a.mp4', 'a, b, c and 2 more')
    """
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _find(folder: Path) -> Path | None:
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise UserError(f"expected one file of captions in {folder}, found {names}; keep one of them")
    return found[0] if found else None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers; only line feeds and carriage returns end one."""
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), 1):
        if line.strip():
            yield number, line.rstrip("\n")


def _json_rows(path: Path) -> Iterator[tuple[int, object]]:
    for number, line in _lines(path):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"expected JSON in line {number} of {path}, found {line[:80]!r} ({error})") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, object]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True, skipinitialspace=True)
    try:
        names = reader.fieldnames or []
        if missing := [name for name in ("file_name", "text") if name not in names]:
            raise UserError(f"expected the columns file_name and text in {path}, separated by commas, found no "
                            f"{' and no '.join(missing)} in {', '.join(names)[:80]!r}")  # fmt: skip
        for row in reader:
            if None in row:
                raise UserError(f"expected {len(reader.fieldnames)} values in line {reader.line_num} of {path}, found "
                                "more; put quotes around a text with commas")  # fmt: skip
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"expected comma-separated values in {path}, found another text ({error})") from error


def _tab_rows(path: Path) -> Iterator[tuple[int, object]]:
    for number, line in _lines(path):
        parts = line.split("\t")
        if len(parts) != 2:
            raise UserError(f"expected FILE<tab>CAPTION in line {number} of {path}, found {line[:80]!r}; write it so")
        yield number, {"file_name": parts[0], "text": parts[1]}


def _item(row: object, where: str) -> Item:
    values = row if isinstance(row, dict) else {}
    name, caption = (_text(values.get(key)) for key in ("file_name", "text"))
    split = values.get("split") or None
    if not (name and caption):
        found = ", ".join(f"{key} {value!r}" for key, value in values.items()) if values else repr(row)
        raise UserError(f"expected a file_name and a text in {where}, found {found[:80]}; write both")
    place = Path(name)
    if place.anchor or ".." in place.parts:  # a stranger's captions may name any file of the machine
        raise UserError(f"expected a file below the folder of the captions in {where}, found {name[:80]!r}; move it "
                        "there")  # fmt: skip
    if split and str(split) not in SPLITS:
        raise UserError(f"expected a split of {', '.join(SPLITS)} in {where}, found {str(split)[:80]!r}")
    return Item(place.as_posix(), " ".join(caption.split()), SPLITS[split] if split else None)


def _text(value: object) -> str:
    """A string without space around it; "" for another type. JSON can hold halves of characters: these are left out."""
    return value.encode("utf-8", "ignore").decode().strip() if isinstance(value, str) else ""
