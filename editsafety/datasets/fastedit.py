"""FastEdit (github.com/hiyouga/FastEdit): a template, a subject, a target, and questions that try the edit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"prompt", "subject", "target", "queries", *_fields.SHARED})


class FastEdit(PublishedRows):
    """Rows: prompt with {}, subject, target; `queries`, other prompts for the same fact, become rephrasings."""

    name: ClassVar[str] = "fastedit"
    fields: ClassVar[str] = "prompt, subject and target, without source or locality"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """A plain `target`, and nothing that only QAEdit has."""
        return "target" in values and "prompt" in values and not values.keys() & {"source", "locality", "rephrase"}

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by its number from 1."""
        row.leave(READ)
        prompt, subject = _fields.templated(row, "prompt", "subject")
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.label('case_id')}",
                    prompt=prompt,
                    subject=subject,
                    target_new=_fields.needed(row, "target"),
                    rephrasings=(*row.several("queries"), *_fields.rephrasings(row)),
                    neighbours=_fields.neighbours(row),
                    source=row.where,
                )
            ),
        )


LOADER = FastEdit()
