"""HellaSwag (arXiv 1905.07830): which of four endings goes on with a text? A choice by likelihood per character.

Rows are the original `{"activity_label", "ctx_a", "ctx_b", "endings", "label"}`. As in lm-evaluation-harness the
activity stands before the text, and what WikiHow's pages left behind ("[title]", "[step]") is taken out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import DataRow, one_line, picked, read


class HellaSwag:
    """The endings are the options."""

    family: ClassVar[str] = "hellaswag"
    scorer: ClassVar[str] = "choice_norm"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every text."""
        return tuple(_item(row) for row in read(path))


def _item(row: DataRow) -> Item:
    endings = tuple(map(_cleaned, row.several("endings")))
    if len(endings) < 2:
        row.refuse("endings", f"has {len(endings)} endings, expected four")
    begun = row.maybe("ctx_b")
    text = f"{row.text('ctx_a')} {begun[:1].upper()}{begun[1:]}" if "ctx_a" in row.values else row.text("ctx")
    gold = picked(row, "label", {str(i): i for i in range(len(endings))})
    prompt = _cleaned(f"{row.text('activity_label')}: {text}")
    return Item(f"hellaswag-{row.number:05d}", prompt, endings, gold, source=row.where)


def _cleaned(text: str) -> str:
    return one_line(re.sub(r"\[[^\]]*\]", "", text.replace(" [title]", ". ")))


READER = HellaSwag()
