"""What the readers share: rows of tables, and errors that name file, row and field.

JSON files are read by `datasets.rows`, so that both families refuse the same things in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from editsafety.datasets.rows import DataRow, read, text_of
from editsafety.errors import DataError

YES_NO = ("yes", "no")


def table(path: Path, fields: Sequence[str]) -> tuple[DataRow, ...]:
    """Rows of a file of tab-separated values whose first line names the columns; quotes mean nothing in it.

    Raises DataError for a file without these columns, or a row that has another number of them.
    """
    lines = text_of(path).replace("\r\n", "\n").split("\n")
    names = lines[0].split("\t")
    if lacking := [name for name in fields if name not in names]:
        raise DataError(f"{path.name}:1: no column {lacking[0]!r} (columns here: {', '.join(names)}).")
    found: list[DataRow] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        values = line.split("\t")
        where = f"{path.name}:{number}"
        if len(values) != len(names):
            raise DataError(f"{where}: {len(values)} columns, expected {len(names)} ({', '.join(names)}).")
        found.append(DataRow(where, len(found) + 1, dict(zip(names, values, strict=True))))
    return tuple(found)


def picked(row: DataRow, field: str, known: Mapping[str, int]) -> int:
    """The index that a label stands for. Raises DataError for any other label."""
    value = row.values.get(field)
    if not isinstance(value, str | int | bool) or str(value).strip() not in known:
        row.refuse(field, f"is {value!r}, expected one of {', '.join(known)}")
    return known[str(value).strip()]


def truth(row: DataRow, field: str) -> int:
    """0 for true, 1 for false: an index into `YES_NO`."""
    return picked(row, field, {"True": 0, "true": 0, "1": 0, "False": 1, "false": 1, "0": 1})


def instructed(row: DataRow, layout: re.Pattern[str]) -> DataRow:
    """The named parts of a row in the instruction layout `{"instruction", "input", "output", "answer"}`.

    Its wrapping ("Please choose ... Answer format: ...") is taken off. Raises DataError when it is another one.
    """
    text = row.text("instruction")
    found = layout.fullmatch(text)
    if found is None:
        row.refuse("instruction", f"is not in the layout of this data set: {text!r:.80}")
    return DataRow(row.where, row.number, {**found.groupdict(), "answer": row.text("answer")})


def one_line(text: str) -> str:
    """The text with every run of white space as one space: an answer is a line."""
    return " ".join(text.split())


__all__ = ["YES_NO", "DataRow", "instructed", "one_line", "picked", "read", "table", "text_of", "truth"]
