"""Our own layout of requests: one JSON object per line, its fields those of `EditRequest` (see `data/SOURCES.md`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, _published, _requests, reading, rows
from editsafety.datasets.reading import Sifted
from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError


class JsonLines:
    """Unknown fields are refused: a misspelt one would be lost in silence."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request; its own `id` is kept."""
        return self.sift(path).requests

    def sift(self, path: Path, *, skip: bool = False) -> Sifted:
        """What became of the rows; with `skip` those that cannot be used are left out."""
        return reading.gather((("", row) for row in rows.entries(path)), self._requests_of, skip=skip)

    def _requests_of(self, row: rows.DataRow, _: str) -> Iterable[EditRequest]:
        try:
            return (_requests.own(row),)
        except DataError as error:
            raise DataError(f"{error}{self._hint(row)}") from error

    def _hint(self, row: rows.DataRow) -> str:
        """Which loader a row is for that has no id of ours and the fields of a published layout."""
        layouts = () if "id" in row.values else self._layouts
        ways = " or ".join(f"{one.name}:FILE" for one in layouts if one.tells(row.values))
        return f" The row is in a published layout: give {ways}." if ways else ""

    @cached_property
    def _layouts(self) -> tuple[_published.PublishedRows, ...]:
        return _published.known_layouts()


LOADER = JsonLines()
