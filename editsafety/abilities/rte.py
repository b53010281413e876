"""RTE (GLUE): does a statement follow from a text? A choice between yes and no by plain likelihood.

The layout is GLUE's table with the columns sentence1, sentence2 and label. The file that "Model Editing Harms General
Abilities" publishes as its test set holds 2,489 of the 2,490 rows of GLUE's training set.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import YES_NO, picked, table

LABELS = {"entailment": 0, "not_entailment": 1}


class Rte:
    """Entailment is "yes"."""

    family: ClassVar[str] = "nli"
    scorer: ClassVar[str] = "choice"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every pair of sentences."""
        return tuple(
            Item(
                f"rte-{row.label('index')}",
                f"Text: {row.text('sentence1').strip()}\nStatement: {row.text('sentence2').strip()}\n"
                "Does the statement follow from the text, yes or no?\nAnswer:",
                YES_NO,
                picked(row, "label", LABELS),
                source=row.where,
            )
            for row in table(path, ("sentence1", "sentence2", "label"))
        )


READER = Rte()
