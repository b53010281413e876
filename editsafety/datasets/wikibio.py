"""WikiBio, as KnowEdit has it (arXiv 2401.01286): the beginning of a passage about somebody, and its next sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"case_id", "text", "concept", "labels", *_fields.SHARED})


class WikiBio(PublishedRows):
    """Rows: text (the prompt), concept (the subject, in whatever capitals), labels (what shall follow), locality."""

    name: ClassVar[str] = "wikibio"
    fields: ClassVar[str] = "text, concept and labels"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """KnowEdit's names for a passage and its continuation."""
        return "concept" in values and "labels" in values

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by its number from 1."""
        row.leave(READ)
        prompt, subject = _fields.templated(row, "text", "concept")
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.label('case_id')}",
                    prompt=prompt,
                    subject=subject,
                    target_new=_fields.needed(row, "labels"),
                    rephrasings=_fields.rephrasings(row),
                    neighbours=_fields.neighbours(row),
                    source=row.where,
                )
            ),
        )


LOADER = WikiBio()
