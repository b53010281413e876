"""SST-2 (GLUE): is a line from a film review positive or negative? A choice by plain likelihood.

The layout is GLUE's table with the columns sentence and label (872 rows: the development set).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import picked, table


class Sst2:
    """Label 1 is positive."""

    family: ClassVar[str] = "sentiment"
    scorer: ClassVar[str] = "choice"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every line."""
        return tuple(
            Item(
                f"sst2-{row.label('index')}",
                f"Review: {row.text('sentence').strip()}\nIs this review positive or negative?\nAnswer:",
                ("negative", "positive"),
                picked(row, "label", {"0": 0, "1": 1}),
                source=row.where,
            )
            for row in table(path, ("sentence", "label"))
        )


READER = Sst2()
