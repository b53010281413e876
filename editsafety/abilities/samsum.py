"""SAMSum (arXiv 1911.12237): chats and their summaries; mean of ROUGE-1, ROUGE-2 and ROUGE-L.

Rows are `{"id", "dialogue", "summary"}`. 818 rows: the validation set.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import one_line, read

TOKENS = 40  # 25 as published cut most summaries off


class SamSum:
    """The summary is asked for in one line."""

    family: ClassVar[str] = "summarisation"
    scorer: ClassVar[str] = "rouge"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every chat."""
        return tuple(
            Item(
                f"samsum-{row.label('id')}",
                f"{_lines(row.text('dialogue'))}\n\nThis chat in one sentence:",
                answers=(one_line(row.text("summary")),),
                tokens=TOKENS,
                source=row.where,
            )
            for row in read(path)
        )


def _lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


READER = SamSum()
