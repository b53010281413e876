"""WikiBigEdit (arXiv 2503.05683): changes of Wikidata as questions, as published or in EasyEdit's layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields, _requests
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"case_id", "subject", "update", "ans", "ground_truth", *_fields.SHARED})


class WikiBigEdit(PublishedRows):
    """Rows: subject, update (the question), ans, rephrase, loc and loc_ans. The target is true and new."""

    name: ClassVar[str] = "wikibigedit"
    fields: ClassVar[str] = "subject, update and ans"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """The published names for a question and its answer."""
        return "update" in values and "ans" in values

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by its number from 1."""
        name = f"{prefix}-{row.label('case_id')}"
        if not row.values.keys() & {"update", "ans"}:
            return (_requests.flat(row, name),)
        row.leave(READ)
        prompt, subject = _fields.templated(row, "update", "subject")
        return (
            tidied(
                EditRequest(
                    id=name,
                    prompt=prompt,
                    subject=subject,
                    target_new=_fields.needed(row, "ans"),
                    target_true=_fields.truth(row),
                    rephrasings=_fields.rephrasings(row),
                    neighbours=_fields.neighbours(row),
                    source=row.where,
                )
            ),
        )


LOADER = WikiBigEdit()
