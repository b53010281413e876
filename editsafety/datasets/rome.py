"""The list of requests that the functions of ROME, MEMIT and AlphaEdit take, as people save it.

Each is a rewrite without COUNTERFACT's frame: {"prompt": "{} plays", "subject": "...", "target_new": {"str": "..."}}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"case_id", "prompt", "subject", "target_new", *_fields.TRUTHS, *_fields.SHARED})


class RomeRequests(PublishedRows):
    """Rows: prompt with {} (or filled), subject, target_new {str}; perhaps target_true {str}, relation_id, case_id."""

    name: ClassVar[str] = "rome"
    fields: ClassVar[str] = "prompt, subject and target_new {str}, without requested_rewrite"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """A new target that is an object, beside its prompt."""
        return isinstance(values.get("target_new"), dict) and "requested_rewrite" not in values

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by `case_id` or its number."""
        row.leave(READ)
        prompt, subject = _fields.templated(row, "prompt", "subject")
        true = _fields.truth(row)
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.label('case_id')}",
                    prompt=prompt,
                    subject=subject,
                    target_new=_fields.needed(row, "target_new"),
                    target_true=true,
                    relation=row.maybe("relation_id"),
                    rephrasings=_fields.rephrasings(row),
                    neighbours=_fields.neighbours(row, true or ""),
                    source=row.where,
                )
            ),
        )


LOADER = RomeRequests()
