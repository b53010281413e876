"""Our own layout of requests: one JSON object per line, its fields those of `EditRequest` (see `data/SOURCES.md`)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.datasets import Holds, rows
from editsafety.datasets.request import EditRequest


class JsonLines:
    """Unknown fields are refused: a misspelt one would be lost in silence."""

    holds: ClassVar[Holds] = "requests"

    def read(self, path: Path) -> tuple[EditRequest, ...]:
        """Every row as a request; its own `id` is kept."""
        return tuple(_request(row) for row in rows.read(path))


def _request(row: rows.DataRow) -> EditRequest:
    for field, value in row.values.items():
        if isinstance(value, str):
            row.checked(field, value)
    request = EditRequest.from_json(row.values, row.where)
    for text in (*request.rephrasings, *(part for n in request.neighbours for part in (n.prompt, n.answer))):
        row.checked("rephrasings or neighbours", text)
    return rows.tidied(request)


LOADER = JsonLines()
