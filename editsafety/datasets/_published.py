"""Published rows: every layout of the field is told by its fields, row by row, under whatever name a file is given.

A layout is one loader file. It says which rows are its own (`tells`) and what they become (`requests_of`). The name
that a file is given under (`zsre:FILE`) begins the ids, and decides between layouts that a row could be of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from editsafety import discovery
from editsafety.datasets import _tables, reading, rows
from editsafety.datasets.reading import Entry, Sifted
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow
from editsafety.errors import DataError


class PublishedRows(ABC):
    """A published layout of requests."""

    holds: ClassVar[Literal["requests", "texts"]] = "requests"
    name: ClassVar[str]  # of the loader; ids begin with it
    fields: ClassVar[str] = ""  # by which its rows are told, in words; "" for a set of rows in other layouts

    def tells(self, values: Mapping[str, Any]) -> bool:
        """Whether the fields of a row are those of this layout."""
        return False

    @abstractmethod
    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """What a row becomes: requests whose ids are `prefix-...`. Raises DataError naming row and field."""

    def entries(self, path: Path) -> Iterable[Entry]:
        """The rows of a file: one each in a list or in JSON lines, or those of one object's parallel lists."""
        return ((self.name, row) for row in rows_of(path))

    def same(self, prefix: str, request: EditRequest) -> Hashable | None:
        """By what a case is recognised that may be given twice; None where every row counts."""
        return None

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request named `<name>-<case_id, or number from 1>`. Raises DataError, naming rows."""
        return self.sift(path).requests

    def sift(self, path: Path, *, skip: bool = False) -> Sifted:
        """What became of the rows; with `skip` those that cannot be used are left out."""
        return reading.gather(self.entries(path), _Layouts(self).parse, skip=skip, same=self.same)


class _Layouts:
    """All layouts there are, for the rows of a file that was given under one name."""

    def __init__(self, asked: PublishedRows) -> None:
        self._asked = asked

    @cached_property
    def _known(self) -> tuple[PublishedRows, ...]:
        return known_layouts()

    def parse(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """The requests of a row, read in the layout that its fields are of."""
        if self._asked.tells(row.values):
            layout = self._asked
        else:
            found = [one for one in self._known if one.tells(row.values)]
            if len(found) > 1:
                ways = " or ".join(f"{one.name}:FILE" for one in found)
                raise DataError(f"{row.where}: could be in the layout of {_named(found)}. Say which: {ways}.")
            layout = found[0] if found else self._asked
        return layout.requests_of(row, prefix or layout.name)


def known_layouts() -> tuple[PublishedRows, ...]:
    """Every layout that is told by its fields, plug-ins included."""
    return tuple(one for one in discovery.load_all("datasets") if isinstance(one, PublishedRows) and one.fields)


def rows_of(path: Path) -> Iterator[DataRow | DataError]:
    """One row each in a list or in JSON lines, or the rows that one object stands for (`_tables`)."""
    whole = rows.whole(path)
    if whole is None:
        return rows.entries(path)
    known = known_layouts()
    return iter(_tables.rows_in(whole, lambda values: any(one.tells(values) for one in known)))


def _named(found: Iterable[PublishedRows]) -> str:
    return " or of ".join(f"{one.name} ({one.fields})" for one in found)
