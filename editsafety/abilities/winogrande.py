"""WinoGrande (arXiv 1907.10641): which of two names fills the blank? By the likelihood of what comes behind it.

The sentence up to and with each name is a context of its own, what follows the blank is scored behind both (Trinh and
Le, arXiv 1806.02847; so does lm-evaluation-harness). Rows are the original `{"sentence", "option1", "option2",
"answer": "1"}` or the instruction layout `{"instruction", "answer": "option1"}` (1,267 rows: the validation set).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import DataRow, instructed, picked, read

LAYOUT = re.compile(
    r"Please choose the correct answer to fill in the blank to complete the given sentence: (?P<sentence>.*)"
    r"\n\nOption1: (?P<option1>.*) Option2: (?P<option2>.*) Answer format: option1/option2",
    re.DOTALL,
)


class WinoGrande:
    """The rest of the sentence is the option of both contexts."""

    family: ClassVar[str] = "reasoning"
    scorer: ClassVar[str] = "choice"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every sentence."""
        return tuple(_item(row) for row in read(path))


def _item(row: DataRow) -> Item:
    row = instructed(row, LAYOUT) if "instruction" in row.values else row
    sentence = row.text("sentence").strip()
    before, blank, behind = sentence.partition("_")
    if not blank or not behind.strip():
        row.refuse("sentence", f"has no blank (_) with something behind it: {sentence!r:.80}")
    contexts = tuple(f"{before}{row.text(field).strip()}" for field in ("option1", "option2"))
    gold = picked(row, "answer", {"1": 0, "2": 1, "option1": 0, "option2": 1})
    rest = (behind.strip(), behind.strip())
    return Item(f"winogrande-{row.number:04d}", sentence, rest, gold, contexts=contexts, source=row.where)


READER = WinoGrande()
