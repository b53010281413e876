"""Entity F1: which names a model lists, against those in the sentence, each counted once, kinds not asked for.

A sentence without names is right when the model says so ("none"), else wrong. The score is a mean over sentences, so
that it has an error; the published figure pools the entities of all sentences.
"""

from __future__ import annotations

import re

from editsafety.abilities import Item
from editsafety.abilities._words import abstains, readings, squeezed

_BETWEEN = re.compile(r"[,;\n]|(?:^|\s)and\s")
_BULLET = re.compile(r"^\s*([-*•]|\d+[.)])\s+")


def grade(item: Item, said: str) -> dict[str, float]:
    """F1 of the names in the best reading."""
    texts = readings(said)
    gold = {squeezed(answer) for answer in item.answers if not abstains(answer)}
    if not gold:
        return {"": float(any(abstains(text) for text in texts))}
    return {"": max(_f1(listed(text, item.answers), gold) for text in texts)}


def listed(text: str, known: tuple[str, ...] = ()) -> set[str]:
    """The names in a list, normalised. `known` ones are not taken apart at a comma or an "and" that they hold."""
    for name in sorted(known, key=len, reverse=True):
        if len(_BETWEEN.split(name)) > 1:
            text = re.sub(re.escape(name), squeezed(name), text, flags=re.IGNORECASE)
    pieces = (_BULLET.sub("", piece) for piece in _BETWEEN.split(text))
    return {name for name in map(squeezed, pieces) if name}


def _f1(found: set[str], gold: set[str]) -> float:
    return 2 * len(found & gold) / (len(found) + len(gold)) if found else 0.0
