"""Exact match: the answer equals one of the known ones after SQuAD's normalisation (arXiv 1606.05250).

More forgiving than the official script in what cannot be wrong: spaces inside ("Ice-T" is "Ice - T"), punctuation of
other scripts, a lead-in ("The answer is"), and sentences behind the answer.
"""

from __future__ import annotations

from editsafety.abilities import Item
from editsafety.abilities._words import readings, same


def grade(item: Item, said: str) -> dict[str, float]:
    """1 when a reading of what was said is one of the answers."""
    return {"": float(any(same(text, answer) for text in readings(said) for answer in item.answers))}
