"""LAMBADA (arXiv 1606.06031): passages whose last word can only be guessed from the whole.

Rows are `{"text"}`, as OpenAI and EleutherAI pass the test set around; the last word is what stands behind the last
white space. The model has to go on with it greedily, in however many tokens. 5,153 rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import read


class Lambada:
    """The passage without its last word is the prompt."""

    family: ClassVar[str] = "lambada"
    scorer: ClassVar[str] = "last_word"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every passage."""
        found = []
        for row in read(path):
            before, *word = row.text("text").rstrip().rsplit(None, 1)
            if not word:
                row.refuse("text", "has one word only")
            found.append(Item(f"lambada-{row.number:04d}", before, answers=tuple(word), source=row.where))
        return tuple(found)


READER = Lambada()
