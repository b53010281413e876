"""Our own layout, that of the built-in probes: JSON lines `{"id", "prompt", "options", "gold"}` for a choice, or
`{"id", "prompt", "answers"}` for a free answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.datasets import rows

FIELDS = ("id", "prompt", "options", "gold", "answers")


class Plain:
    """An answer ends with its sentence, unless one of the answers holds a full stop itself. Other fields are refused:
    a misspelt one would be lost in silence.
    """

    family: ClassVar[str] = ""  # that of the file's name
    scorer: ClassVar[str] = ""

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every row as an item; its own `id` is kept."""
        return tuple(_item(row) for row in rows.read(path))


def _item(row: rows.DataRow) -> Item:
    for unknown in row.values.keys() - set(FIELDS):
        row.refuse(unknown, f"is not known (known: {', '.join(FIELDS)})")
    options, answers = row.several("options"), row.several("answers")
    gold = row.values.get("gold")
    if options and (not isinstance(gold, int) or isinstance(gold, bool)):
        row.refuse("gold", f"is {gold!r}, expected the index of the right option, from 0")
    if bool(options) == bool(answers):
        row.refuse("options", "must be there, or 'answers', and not both")
    stops = any("." in answer.strip().removesuffix(".") for answer in answers)
    return Item(
        id=row.label("id"),
        prompt=row.text("prompt"),
        options=tuple(option.strip() for option in options),
        gold=gold if options else None,
        answers=tuple(answer.strip() for answer in answers),
        until=("\n",) if stops else ("\n", "."),
        source=row.where,
    )


READER = Plain()
