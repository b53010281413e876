"""Rows as EasyEdit and the code built on it (Collapse-in-Model-Editing) keep them; see `easyedit.py` for the fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editsafety.datasets import _layouts, rows
from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.datasets.rows import DataRow

NOTHING_KNOWN = "<|endoftext|>"
PARALLEL = {
    "prompts": "prompt",
    "subject": "subject",
    "target_new": "target_new",
    "ground_truth": "ground_truth",
    "rephrase_prompts": "rephrase_prompt",
}
PARALLEL_INPUTS = {"locality_inputs": "locality", "portability_inputs": "portability"}


def rows_of(path: Path) -> Sequence[DataRow]:
    """The rows of a file: one each in a list or in JSON lines, or those of one object's parallel lists."""
    whole = rows.whole(path)
    if whole is None:
        return rows.read(path)
    return list(parallel(whole)) if "prompts" in whole.values else [whole]


def request(row: DataRow, name: str) -> EditRequest:
    """One row as a request named `name-<case_id, or number from 1>`. Raises DataError."""
    truth = _first(row, "ground_truth", row.values.get("ground_truth"))
    asked = (*row.several("rephrase_prompt"), *row.several("rephrase"))
    prompts, answers = row.several("locality_prompt"), row.several("locality_ground_truth")
    if answers and len(answers) != len(prompts):
        row.refuse("locality_ground_truth", f"has {len(answers)} texts for {len(prompts)} in 'locality_prompt'")
    flat = [Neighbour(prompt, answers[i] if answers else "") for i, prompt in enumerate(prompts)]
    list(_questions(row, "portability"))  # what is wrong in it is wrong, used or not
    target = _first(row, "target_new", row.values.get("target_new"))
    return rows.tidied(
        EditRequest(
            id=f"{name}-{row.label('case_id')}",
            prompt=_layouts.templated(row, "prompt", "subject"),
            subject=row.text("subject"),
            target_new=target if target.strip() else row.text("target_new"),
            target_true=None if truth == NOTHING_KNOWN else truth or None,
            relation=row.maybe("relation_id"),
            rephrasings=tuple(text for text in asked if text.strip()),
            neighbours=(*flat, *_questions(row, "locality")),
            source=row.where,
        )
    )


def _questions(row: DataRow, field: str) -> Iterator[Neighbour]:
    """The questions of every kind under a field, with their (first) answers."""
    kinds = row.values.get(field)
    if kinds is None:
        return
    if not isinstance(kinds, dict):
        row.refuse(field, f"is {type(kinds).__name__}, expected an object with lists of {{prompt, ground_truth}}")
    for kind, given in kinds.items():
        for i, entry in enumerate(given if isinstance(given, list) else [given]):
            if not isinstance(entry, dict):
                row.refuse(field, f"holds {entry!r:.60} under {kind!r}, expected {{prompt, ground_truth}}")
            yield from _asked(DataRow(f"{row.where}: {field}.{kind}[{i}]", i + 1, entry))


def _asked(pair: DataRow) -> Iterator[Neighbour]:
    """One question with its answers, or a list of questions with those of each."""
    asked, told = pair.values.get("prompt"), pair.values.get("ground_truth")
    if not isinstance(asked, list):
        yield Neighbour(pair.text("prompt"), _first(pair, "ground_truth", told))
        return
    answers = [None] * len(asked) if told is None else told
    if not isinstance(answers, list) or len(answers) != len(asked):
        pair.refuse("ground_truth", f"must hold one answer for each of the {len(asked)} in 'prompt'")
    for prompt, answer in zip(pair.several("prompt"), answers, strict=True):
        yield Neighbour(prompt, _first(pair, "ground_truth", answer))


def parallel(whole: DataRow) -> Iterator[DataRow]:
    """Rows from the parallel lists of one object (`prompts`, `subject`, ...); a text alone stands for a list of one."""
    prompts = whole.values["prompts"]
    count = len(prompts) if isinstance(prompts, list) else 1
    columns = {ours: _column(whole, field, whole.values.get(field), count) for field, ours in PARALLEL.items()}
    inputs = {
        ours: {
            kind: [_column(pairs, name, pairs.values.get(name), count) for name in ("prompt", "ground_truth")]
            for kind, pairs in _kinds(whole, field)
        }
        for field, ours in PARALLEL_INPUTS.items()
    }
    for i in range(count):
        values: dict[str, Any] = {field: column[i] for field, column in columns.items() if column[i] is not None}
        for field, kinds in inputs.items():
            values[field] = {
                kind: {"prompt": asked[i], "ground_truth": told[i]}
                for kind, (asked, told) in kinds.items()
                if asked[i] is not None
            }
        yield DataRow(f"{whole.where}: prompts[{i}]", i + 1, values)


def _kinds(row: DataRow, field: str) -> Iterator[tuple[str, DataRow]]:
    if row.values.get(field) is None:
        return
    inputs = row.inner(field)
    for kind in inputs.values:
        yield kind, inputs.inner(kind)


def _column(row: DataRow, field: str, value: Any, count: int) -> list[Any]:
    """A list with an entry for each prompt; nothing at all is a list of nothing."""
    if value is None:
        return [None] * count
    entries = value if isinstance(value, list) else [value]
    if len(entries) != count:
        row.refuse(field, f"has {len(entries)} entries for {count} in 'prompts'")
    return entries


def _first(row: DataRow, field: str, value: Any) -> str:
    """A text, or the first of a list, however deep; "" for nothing."""
    while isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, Mapping):
        row.refuse(field, "is an object, expected a text or a list of texts")
    return "" if value is None else row.checked(field, value)
