"""Any published layout, told row by row from its fields. A `.json` file that is given without a loader is read so."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NoReturn

from editsafety.datasets import _published
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.reading import Entry
from editsafety.datasets.rows import DataRow
from editsafety.errors import DataError


class AnyLayout(PublishedRows):
    """Ids begin with the name of the layout that was found."""

    name: ClassVar[str] = "published"

    def entries(self, path: Path) -> Iterable[Entry]:
        """The rows of a file, to be named after their layouts."""
        return (("", row) for row in _published.rows_of(path))

    def requests_of(self, row: DataRow, prefix: str) -> NoReturn:
        """Nothing: this row is of no layout. Raises DataError with the fields that are here and the known layouts."""
        here = ", ".join(sorted(row.values)) or "none"
        raise DataError(
            f"{row.where}: is in no layout that is known here (fields here: {here}). Known: {self._known}; "
            "`editsafety data list` says by which fields each is told. Or write FILE.jsonl in the project's own layout."
        )

    @cached_property
    def _known(self) -> str:
        return ", ".join(one.name for one in _published.known_layouts())


LOADER = AnyLayout()
