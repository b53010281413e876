"""QAEdit ("The Mirage of Model Editing", arXiv 2502.11177): questions that models get wrong, with the right answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"id", "source", "prompt", "subject", "target", *_fields.SHARED})


class QAEdit(PublishedRows):
    """Rows: id, source (NQ, TQA, SQA), prompt, subject, target, rephrase, locality (list of loc and loc_ans).

    The target is true and there is no old one, so the pairwise score has nothing to compare.
    """

    name: ClassVar[str] = "qaedit"
    fields: ClassVar[str] = "prompt, subject and target, without queries"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """A plain `target`, and not FastEdit's questions."""
        return "target" in values and "prompt" in values and "queries" not in values

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named `<source>-<id>`: the ids alone occur several times."""
        row.leave(READ)
        prompt, subject = _fields.templated(row, "prompt", "subject")
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.text('source')}-{row.label('id')}",
                    prompt=prompt,
                    subject=subject,
                    target_new=_fields.needed(row, "target"),
                    rephrasings=_fields.rephrasings(row),
                    neighbours=_fields.neighbours(row),
                    source=row.where,
                )
            ),
        )


LOADER = QAEdit()
