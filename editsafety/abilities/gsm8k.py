"""GSM8K (arXiv 2110.14168): word problems; the solve rate of the number that the model gives at once.

Rows are the original `{"question", "answer": "... #### 18"}` or the instruction layout `{"instruction", "answer":
"18.0"}` (its field "output" contradicts the answer in places and is not used). The published code of "Model Editing
Harms General Abilities" writes the worked solution of the very problem into the prompt, which explains rates of 0.9;
here there is only the problem, so that small models score next to nothing. With steps in between, use the task of
lm-evaluation-harness. 1,319 rows: the test set.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import DataRow, read
from editsafety.abilities._solve import number

TOKENS = 16


class Gsm8k:
    """The answer is what stands behind "####"."""

    family: ClassVar[str] = "reasoning"
    scorer: ClassVar[str] = "solve"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every problem."""
        return tuple(_item(row) for row in read(path))


def _item(row: DataRow) -> Item:
    plain = "instruction" in row.values
    question = row.text("instruction" if plain else "question").strip()
    rationale, mark, answer = row.text("answer").rpartition("#### ")
    if not plain and not (mark and rationale):
        row.refuse("answer", "has no '#### ' before its result")
    if number(answer) is None:
        row.refuse("answer", f"does not end with a number: {answer!r:.40}")
    prompt = f"Question: {question}\nGive only the number.\nAnswer:"
    return Item(f"gsm8k-{row.number:04d}", prompt, answers=(answer.strip(),), tokens=TOKENS, source=row.where)


READER = Gsm8k()
