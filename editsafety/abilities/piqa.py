"""PIQA (arXiv 1911.11641): which of two ways leads to a goal? A choice by likelihood per character (acc_norm).

Rows are the original `{"goal", "sol1", "sol2"}`, with their "label" (0 or 1) or, as published, with the labels in a
file beside it (`valid.jsonl`, `valid-labels.lst`); or the instruction layout `{"instruction", "answer": "solution1"}`.
1,838 rows: the validation set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import DataRow, instructed, picked, read, text_of
from editsafety.errors import DataError

LAYOUT = re.compile(
    r"Please choose the correct solution to the question: (?P<goal>.*)\n\nSolution1: (?P<sol1>.*)"
    r"\n\nSolution2: (?P<sol2>.*)\n\nAnswer format: solution1/solution2",
    re.DOTALL,
)


class Piqa:
    """The two solutions are the options."""

    family: ClassVar[str] = "piqa"
    scorer: ClassVar[str] = "choice_norm"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every goal."""
        rows = read(path)
        if "instruction" in rows[0].values:
            return tuple(_item(instructed(row, LAYOUT), "answer", {"solution1": 0, "solution2": 1}) for row in rows)
        if "label" not in rows[0].values:
            rows = _labelled(path, rows)
        return tuple(_item(row, "label", {"0": 0, "1": 1}) for row in rows)


def _item(row: DataRow, field: str, labels: dict[str, int]) -> Item:
    solutions = (row.text("sol1").strip(), row.text("sol2").strip())
    prompt = f"Question: {row.text('goal').strip()}\nAnswer:"
    return Item(f"piqa-{row.number:04d}", prompt, solutions, picked(row, field, labels), source=row.where)


def _labelled(path: Path, rows: Sequence[DataRow]) -> list[DataRow]:
    place = path.with_name(f"{path.stem}-labels.lst")
    if not place.is_file():
        raise DataError(f"{path}: its rows have no 'label', and there is no {place.name} beside it. Put it there.")
    labels = text_of(place).split()
    if len(labels) != len(rows):
        raise DataError(f"{place}: {len(labels)} labels for {len(rows)} rows of {path.name}.")
    return [
        DataRow(row.where, row.number, {**row.values, "label": label}) for row, label in zip(rows, labels, strict=True)
    ]


READER = Piqa()
