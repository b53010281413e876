"""Any layout, told row by row from its fields. A `.json` file that is given without a loader is read so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from editsafety.datasets import _published, _requests
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.reading import Entry
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow
from editsafety.errors import DataError


class AnyLayout(PublishedRows):
    """Ids begin with the name of the layout that was found; rows of our own layout keep theirs."""

    name: ClassVar[str] = "published"

    def entries(self, path: Path) -> Iterable[Entry]:
        """The rows of a file, to be named after their layouts."""
        return (("", row) for row in _published.rows_of(path))

    def tells(self, values: Mapping[str, Any]) -> bool:
        """A row of our own, which is read here because a file need not be of JSON lines."""
        return _requests.is_own(values)

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request of our own. Any other row is of no layout: raises DataError with its fields and the layouts."""
        if self.tells(row.values):
            return (_requests.own(row),)
        here = ", ".join(sorted(row.values)) or "none"
        raise DataError(
            f"{row.where}: is in no layout that is known here (fields here: {here}). Known: {self._known}; "
            "`editsafety data list` says by which fields each is told. Or write FILE.jsonl in the project's own layout."
        )

    @cached_property
    def _known(self) -> str:
        return ", ".join(one.name for one in _published.known_layouts())


LOADER = AnyLayout()
