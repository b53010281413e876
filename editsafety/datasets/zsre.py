"""zsRE (Levy et al. 2017, in the layout of MEND and EasyEdit): questions about a subject, with a false new answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._consequences import FOLLOWS, consequences
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"case_id", "subject", "src", "alt", "answers", FOLLOWS, *_fields.SHARED})


class ZsRE(PublishedRows):
    """Rows: subject, src (the question), alt (the new answer), answers (true ones), rephrase, loc and loc_ans.

    The neighbour is an unrelated Natural Questions query; its "nq question: " marker is part of the published prompt
    and is kept. Rows in EasyEdit's layout (prompt, target_new, locality ...) are read as such.
    """

    name: ClassVar[str] = "zsre"
    fields: ClassVar[str] = "subject, src and alt"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """MEND's names for a question and its new answer."""
        return "src" in values and "alt" in values

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by `case_id` or its number from 1."""
        row.leave(READ)
        prompt, subject = _fields.templated(row, "src", "subject")
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.label('case_id')}",
                    prompt=prompt,
                    subject=subject,
                    target_new=_fields.needed(row, "alt"),
                    target_true=_fields.first(row, "answers") or None,
                    relation=row.maybe("relation_id"),
                    rephrasings=_fields.rephrasings(row),
                    neighbours=_fields.neighbours(row),
                    portability=consequences(row),
                    source=row.where,
                )
            ),
        )


LOADER = ZsRE()
