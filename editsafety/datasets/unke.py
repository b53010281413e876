"""UnKE (arXiv 2405.15349): questions whose answer is a passage; EditEverything (arXiv 2502.05628) has the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import SLOT, EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"id", "question", "para_question", "answer", "subject", *_fields.SHARED})


class UnKE(PublishedRows):
    """Rows: id, question, answer (a passage), para_question (a rephrasing); parts of the answer are set aside.

    Rows name no subject, and UnKE edits at the question's last token: the subject is the whole question.
    """

    name: ClassVar[str] = "unke"
    fields: ClassVar[str] = "question and answer, without prompt"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """A question with its answer, and neither prompt nor rewrite."""
        return "question" in values and "answer" in values and not values.keys() & {"prompt", "requested_rewrite"}

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by its `id`."""
        row.leave(READ)
        template, subject = (
            _fields.templated(row, "question", "subject")
            if row.values.get("subject")
            else (SLOT, row.text("question").strip())
        )
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.label('id')}",
                    prompt=template,
                    subject=subject,
                    target_new=_fields.needed(row, "answer"),
                    rephrasings=(*row.several("para_question"), *_fields.rephrasings(row)),
                    neighbours=_fields.neighbours(row),
                    source=row.where,
                )
            ),
        )


LOADER = UnKE()
