"""Requests of the kinds of rows that several loaders share: flat ones, rewrites as COUNTERFACT's, and our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editsafety.datasets import _fields
from editsafety.datasets._consequences import FOLLOWS, consequences
from editsafety.datasets.request import FIELDS, SLOT, EditRequest
from editsafety.datasets.rows import DataRow, tidied

ASKED = frozenset({"prompt", "subject", "target_new", *_fields.TRUTHS})
BESIDE = frozenset({"case_id", FOLLOWS, *_fields.SHARED})


def is_own(values: Mapping[str, Any]) -> bool:
    """Whether a row is in the project's own layout: with an id and a slot, and no field of another."""
    named = isinstance(values.get("id"), str) and values.keys() <= FIELDS
    return named and isinstance(values.get("prompt"), str) and SLOT in values["prompt"]


def own(row: DataRow) -> EditRequest:
    """A row of the project's own layout; its own `id` is kept. Raises DataError."""
    for field, value in row.values.items():
        if isinstance(value, str):
            row.checked(field, value)
    request = EditRequest.from_json(row.values, row.where)
    beside = [text for one in request.neighbours for text in (one.prompt, one.answer)]
    beside += [text for one in request.portability for text in (one.prompt, one.answer)]
    for text in (*request.rephrasings, *beside):
        row.checked("rephrasings, neighbours or portability", text)
    return tidied(request)


def flat(row: DataRow, name: str) -> EditRequest:
    """A row of EasyEdit's: prompt (filled, or with one `{}`), subject, target_new, ground_truth. Raises DataError."""
    row.leave(ASKED | BESIDE)
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
    """A rewrite {prompt with {} (or filled), subject, target_new {str} (or plain), ...}, and what stands beside it.

    Prompts may stand beside it in `row` (COUNTERFACT) or in it (EasyEdit's results). Its own `question`, where it has
    one, is the first rephrasing. The neighbours' own answer is the old target: COUNTERFACT chose them to share it.
    Raises DataError.
    """
    asked.leave(ASKED | BESIDE | {"question"})
    question, true = asked.maybe("question"), _fields.truth(asked)
    slotted = asked.text("prompt").count(SLOT) == 1
    prompt, subject = (
        (asked.text("prompt"), asked.word("subject")) if slotted else _fields.templated(asked, "prompt", "subject")
    )
    return tidied(
        EditRequest(
            id=name,
            prompt=prompt,
            subject=subject,
            target_new=_fields.needed(asked, "target_new"),
            target_true=true,
            relation=asked.maybe("relation_id"),
            rephrasings=(
                *((question,) if question.strip() else ()),
                *_fields.rephrasings(asked),
                *_fields.rephrasings(row),
            ),
            neighbours=(*_fields.neighbours(asked, true or ""), *_fields.neighbours(row, true or "")),
            portability=(*consequences(asked), *consequences(row)),
            source=row.where,
        )
    )


def either(row: DataRow, name: str) -> EditRequest:
    """A row with a rewrite in it, or a flat one."""
    if "requested_rewrite" not in row.values:
        return flat(row, name)
    row.leave(BESIDE | {"requested_rewrite"})
    return rewrite(row.inner("requested_rewrite"), row, name)
