"""Requests of the two kinds of rows that several layouts share: flat ones, and rewrites as COUNTERFACT has them."""

from __future__ import annotations

from editsafety.datasets import _fields
from editsafety.datasets._consequences import FOLLOWS, consequences
from editsafety.datasets.request import EditRequest
from editsafety.datasets.rows import DataRow, tidied

FLAT = frozenset({"case_id", "prompt", "subject", "target_new", "ground_truth", FOLLOWS, *_fields.SHARED})
FRAME = frozenset({"case_id", "requested_rewrite", FOLLOWS, *_fields.SHARED})
REWRITE = frozenset({"prompt", "subject", "target_new", "target_true", "relation_id", "question"})


def flat(row: DataRow, name: str) -> EditRequest:
    """A row of EasyEdit's: prompt (filled, or with one `{}`), subject, target_new, ground_truth. Raises DataError."""
    row.leave(FLAT)
    prompt, subject = _fields.templated(row, "prompt", "subject")
    return tidied(
        EditRequest(
            id=name,
            prompt=prompt,
            subject=subject,
            target_new=_fields.needed(row, "target_new"),
            target_true=_fields.truth(row),
            relation=row.maybe("relation_id"),
            rephrasings=_fields.rephrasings(row),
            neighbours=_fields.neighbours(row),
            portability=consequences(row),
            source=row.where,
        )
    )


def rewrite(asked: DataRow, row: DataRow, name: str) -> EditRequest:
    """A rewrite {prompt with {}, subject, target_new {str}, ...} with the prompts that stand beside it in `row`.

    Its own `question`, where it has one, is the first rephrasing. The neighbours' own answer is the old target:
    COUNTERFACT chose them to share it. Raises DataError.
    """
    asked.leave(REWRITE)
    question = asked.maybe("question")
    true = asked.inner("target_true").text("str") if asked.values.get("target_true") is not None else ""
    return tidied(
        EditRequest(
            id=name,
            prompt=asked.text("prompt"),
            subject=asked.text("subject"),
            target_new=asked.inner("target_new").text("str"),
            target_true=true or None,
            relation=asked.maybe("relation_id"),
            rephrasings=(*((question,) if question.strip() else ()), *_fields.rephrasings(row)),
            neighbours=_fields.neighbours(row, true),
            portability=consequences(row),
            source=row.where,
        )
    )


def either(row: DataRow, name: str) -> EditRequest:
    """A row with a rewrite in it, or a flat one."""
    if "requested_rewrite" not in row.values:
        return flat(row, name)
    row.leave(FRAME)
    return rewrite(row.inner("requested_rewrite"), row, name)
