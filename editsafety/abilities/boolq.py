"""BoolQ (arXiv 1905.10044): a question on a passage, answered by yes or no; a choice by plain likelihood.

Rows are the original `{"question", "passage", "answer"}`, or the instruction layout without a passage
`{"instruction", "answer"}`, where the model has to know it. The file that "Model Editing Harms General Abilities"
publishes has 3,267 of the 3,270 rows of the development set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import YES_NO, DataRow, instructed, read, truth

LAYOUT = re.compile(
    r"Please answer the following question with true or false, question: (?P<question>.*)\?"
    r"\n\nAnswer format: true/false",
    re.DOTALL,
)


class BoolQ:
    """The answer true is "yes"."""

    family: ClassVar[str] = "closed_qa"
    scorer: ClassVar[str] = "choice"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every question."""
        return tuple(_item(row) for row in read(path))


def _item(row: DataRow) -> Item:
    row = instructed(row, LAYOUT) if "instruction" in row.values else row
    passage = row.maybe("passage").strip()
    question = row.text("question").strip().removesuffix("?")
    prompt = f"Question: {question}?\nAnswer (yes or no):"
    return Item(
        f"boolq-{row.number:04d}",
        f"Passage: {passage}\n{prompt}" if passage else prompt,
        YES_NO,
        truth(row, "answer"),
        source=row.where,
    )


READER = BoolQ()
