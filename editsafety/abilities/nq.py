"""Natural Questions, open (arXiv 1906.00300): a question without a passage; exact match of the greedy answer.

Rows are `{"question", "answer": [...]}`; other fields are not looked at. The published code of "Model Editing Harms
General Abilities" writes a passage that holds the answer (the field "output") into its open-domain prompt; here there
is only the question. 3,610 rows: the test set.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import one_line, read

TOKENS = 20  # as published


class NaturalQuestions:
    """Any of the answers is right."""

    family: ClassVar[str] = "open_qa"
    scorer: ClassVar[str] = "exact"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every question."""
        found = []
        for row in read(path):
            answers = tuple(text for text in map(one_line, row.several("answer")) if text)
            if not answers:
                row.refuse("answer", "holds no answer")
            prompt = f"Question: {row.text('question').strip().removesuffix('?')}?\nAnswer:"
            found.append(Item(f"nq-{row.number:04d}", prompt, answers=answers, tokens=TOKENS, source=row.where))
        return tuple(found)


READER = NaturalQuestions()
