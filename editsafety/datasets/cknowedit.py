"""CKnowEdit (arXiv 2409.05806): Chinese questions that models answer wrongly, with the right answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from editsafety.datasets import _fields
from editsafety.datasets._published import PublishedRows
from editsafety.datasets.request import SLOT, EditRequest
from editsafety.datasets.rows import DataRow, tidied

READ = frozenset({"case_id", "prompt", "subject", "target_new", "target_old", *_fields.SHARED})
COLONS = ("：", ":")


class CKnowEdit(PublishedRows):
    """Rows: prompt, target_old (what the model said), target_new, rephrase, locality (list of prompt and answer).

    Rows name no subject. It is what stands behind the colon of an instruction, as in EasyEdit's code for this set, and
    the whole prompt where there is none. `target_old` is what a model said, and not known to be true.
    """

    name: ClassVar[str] = "cknowedit"
    fields: ClassVar[str] = "prompt, target_old and target_new"

    def tells(self, values: Mapping[str, Any]) -> bool:
        """An old target beside the new one."""
        return "target_old" in values and "prompt" in values

    def requests_of(self, row: DataRow, prefix: str) -> Iterable[EditRequest]:
        """One request, named by its number from 1."""
        row.leave(READ)
        template, subject = (
            _fields.templated(row, "prompt", "subject") if row.values.get("subject") else _behind_the_colon(row)
        )
        return (
            tidied(
                EditRequest(
                    id=f"{prefix}-{row.label('case_id')}",
                    prompt=template,
                    subject=subject,
                    target_new=_fields.needed(row, "target_new"),
                    target_true=_fields.first(row, "target_old") or None,
                    rephrasings=_fields.rephrasings(row),
                    neighbours=_fields.neighbours(row),
                    source=row.where,
                )
            ),
        )


def _behind_the_colon(row: DataRow) -> tuple[str, str]:
    prompt = row.text("prompt")
    places = [place for place in (prompt.find(colon) for colon in COLONS) if place >= 0]
    start = min(places) + 1 if places else 0
    subject = prompt[start:].strip() or prompt.strip()
    start = prompt.index(subject, start if prompt[start:].strip() else 0)
    return prompt[:start] + SLOT + prompt[start + len(subject) :], subject


LOADER = CKnowEdit()
