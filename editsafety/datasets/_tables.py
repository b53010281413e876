"""One object that stands for many rows: parallel lists, a table by columns, a list or a map of rows inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from editsafety.datasets import _parallel
from editsafety.datasets.rows import DataRow
from editsafety.errors import DataError

# Whether the fields of an object are those of a row.
IsRow = Callable[[Mapping[str, Any]], bool]


def rows_in(whole: DataRow, is_row: IsRow) -> Iterable[DataRow]:
    """The rows that an object stands for; the object itself where it is a row, or nothing that is known.

    Raises DataError where several lists in it are of rows.
    """
    if "prompts" in whole.values:
        return _parallel.rows_of(whole)
    columns = list(_by_columns(whole))
    if columns and is_row(columns[0].values):
        return columns
    if is_row(whole.values):
        return (whole,)
    lists = [name for name, value in whole.values.items() if _is_list_of_rows(value, is_row)]
    if len(lists) > 1:
        raise DataError(
            f"{whole.where}: holds several lists of rows ({', '.join(lists)}). Save the one that is meant by itself."
        )
    if lists:
        return whole.records(lists[0])
    if _is_list_of_rows([*whole.values.values()], is_row):
        return [
            DataRow(f"{whole.where}: {name}", i, values) for i, (name, values) in enumerate(whole.values.items(), 1)
        ]
    return (whole,)


def _by_columns(whole: DataRow) -> Iterator[DataRow]:
    """The rows of a table that is kept by its columns: lists of one length, or objects with the same keys."""
    columns = list(whole.values.values())
    if columns and all(isinstance(one, list) for one in columns) and len({len(one) for one in columns}) == 1:
        keys: list[Any] = list(range(len(columns[0])))
    elif columns and all(isinstance(one, dict) and one.keys() == columns[0].keys() for one in columns):
        keys = list(columns[0])
    else:
        return
    for number, key in enumerate(keys, 1):
        values = {name: column[key] for name, column in whole.values.items()}
        yield DataRow(f"{whole.where}: row {key}", number, values)


def _is_list_of_rows(value: Any, is_row: IsRow) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value) and any(is_row(one) for one in value)
