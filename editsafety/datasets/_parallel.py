"""Parallel lists, as EasyEdit's Python interface takes them: prompts, subject, target_new, locality_inputs, ..."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from editsafety.datasets.rows import DataRow

PARALLEL = {
    "prompts": "prompt",
    "subject": "subject",
    "target_new": "target_new",
    "ground_truth": "ground_truth",
    "rephrase_prompts": "rephrase_prompt",
}
LOCALITY, PORTABILITY = "locality_inputs", "portability_inputs"


def rows_of(whole: DataRow) -> Iterator[DataRow]:
    """Rows from the parallel lists of one object; a text alone stands for a list of one."""
    prompts = whole.values["prompts"]
    count = len(prompts) if isinstance(prompts, list) else 1
    columns = {ours: _column(whole, field, whole.values.get(field), count) for field, ours in PARALLEL.items()}
    kinds = {
        kind: [_column(pairs, name, pairs.values.get(name), count) for name in ("prompt", "ground_truth")]
        for kind, pairs in _kinds(whole)
    }
    follows = _following(whole, count)
    read = (*PARALLEL, LOCALITY, *([PORTABILITY] if follows else []))
    unused = {key: value for key, value in whole.values.items() if key not in read}
    for i in range(count):
        values: dict[str, Any] = {field: column[i] for field, column in columns.items() if column[i] is not None}
        values["locality"] = {
            kind: {"prompt": asked[i], "ground_truth": told[i]}
            for kind, (asked, told) in kinds.items()
            if asked[i] is not None
        }
        if follows:
            values["portability"] = {
                kind: {name: told[i] for name, told in lists.items()} for kind, lists in follows.items()
            }
        yield DataRow(f"{whole.where}: prompts[{i}]", i + 1, {**unused, **values})


def _kinds(row: DataRow) -> Iterator[tuple[str, DataRow]]:
    if row.values.get(LOCALITY) is None:
        return
    inputs = row.inner(LOCALITY)
    for kind in inputs.values:
        yield kind, inputs.inner(kind)


def _following(whole: DataRow, count: int) -> dict[str, dict[str, list[Any]]]:
    """By kind the prompts about what follows, and their answers; nothing where they are not an entry for each prompt.

    A field that decides nothing is not a reason to refuse a file.
    """
    given = whole.values.get(PORTABILITY)
    kinds = given if isinstance(given, dict) else {}
    lists = {
        kind: {name: pairs.get(name) for name in ("prompt", "ground_truth")}
        for kind, pairs in kinds.items()
        if isinstance(pairs, dict)
    }
    whole_lists = all(isinstance(one, list) and len(one) == count for pairs in lists.values() for one in pairs.values())
    return lists if whole_lists and len(lists) == len(kinds) else {}  # type: ignore[return-value]


def _column(row: DataRow, field: str, value: Any, count: int) -> list[Any]:
    """A list with an entry for each prompt; nothing at all is a list of nothing."""
    if value is None:
        return [None] * count
    entries = value if isinstance(value, list) else [value]
    if len(entries) != count:
        row.refuse(field, f"has {len(entries)} entries for {count} in 'prompts'")
    return entries
