"""MuTual (arXiv 2004.04494): which of four replies goes on with a talk? Recall4@1, by likelihood per character.

Replies differ in length; plain likelihood is kept beside it. The layout is the published one: a
.tar.gz (or a folder) of files that hold one object `{"id", "article", "options", "answers": "A"}` each. An archive is
read in memory and never unpacked. 886 talks: the development set.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import DataRow, picked
from editsafety.errors import DataError

LETTERS = {"A": 0, "B": 1, "C": 2, "D": 3}
LARGEST = 1_000_000  # bytes of one talk; an archive may claim anything


class MuTual:
    """Talks in the order of their names: dev_2 before dev_10."""

    family: ClassVar[str] = "dialogue"
    scorer: ClassVar[str] = "choice_norm"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every talk of the archive or folder."""
        if path.is_dir():
            texts = {file.name: file.read_bytes() for file in path.iterdir() if file.suffix in (".txt", ".json")}
        else:
            texts = dict(_members(path))
        return tuple(_item(path, name, texts[name]) for name in sorted(texts, key=lambda name: (len(name), name)))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                if member.issym() or member.islnk() or place.is_absolute() or ".." in place.parts:
                    said = f"member {member.name!r} is a link, or leads out of the archive"
                    raise DataError(f"{path}: {said}. Give the published .tar.gz.")
                file = archive.extractfile(member) if member.isfile() else None
                if file is None:
                    continue
                if member.size > LARGEST:
                    raise DataError(f"{path}: member {member.name!r} has {member.size} bytes; talks are small.")
                yield member.name, file.read(LARGEST)
    except (OSError, tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a tar archive ({error}). Give the published .tar.gz.") from error


def _item(path: Path, name: str, body: bytes) -> Item:
    where = f"{path.name}: {name}"
    try:
        values = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON object ({error}).") from error
    if not isinstance(values, dict):
        raise DataError(f"{where}: is {type(values).__name__}, expected an object.")
    row = DataRow(where, 1, values)
    options = row.several("options")
    if len(options) != len(LETTERS):
        row.refuse("options", f"has {len(options)} replies, expected {len(LETTERS)}")
    gold = picked(row, "answers", LETTERS)
    return Item(f"mutual-{row.text('id')}", row.text("article").strip(), options, gold, source=where)


READER = MuTual()
