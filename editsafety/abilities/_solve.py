"""Solve rate: the number that a model gives as its answer equals the known one.

"18", "$18", "18.00", "eighteen", "The answer is 18." and "16 - 3 - 4 = 9, 9 * 2 = 18" are 18, "1,234" is 1234.
Published code looks for the answer's digits anywhere in the text, where "180" solves a problem whose answer is 18.
"""

from __future__ import annotations

import re
from decimal import Decimal

from editsafety.abilities import Item

_NUMBER = re.compile(r"([-−])?\s?[$€£]?\s?(\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(\.\d+)?", re.ASCII)
_MARK = re.compile(r"####|\banswer(?:\s+is|\s*:)", re.IGNORECASE)
_END = re.compile(r"[.!?](?=\s|$)|\n")
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)


def grade(item: Item, said: str) -> dict[str, float]:
    """1 when the number that was given is one of the answers."""
    given = number(said)
    return {"": float(given is not None and any(number(answer) == given for answer in item.answers))}


def number(text: str) -> Decimal | None:
    """The number that a text gives: in the sentence behind "####" or "the answer is", else anywhere in it. There, the
    result of the last sum, else the first number. None where there is no number at all.
    """
    for mark in _MARK.finditer(text):
        found = _result(_END.split(text[mark.end() :].lstrip(), maxsplit=1)[0])
        if found is not None:
            return found
    return _result(text)


def _result(text: str) -> Decimal | None:
    behind = text.rpartition("=")[2]
    found = _first(behind)
    return found if found is not None else _first(text)


def _first(text: str) -> Decimal | None:
    for found in re.finditer(r"[^\W\d_]+|[-−$€£\d.]\S*", text):
        piece = found.group()
        if piece.casefold() in WORDS:
            return Decimal(WORDS.index(piece.casefold()))
        if (value := _value(text, found.start())) is not None:
            return value
    return None


def _value(text: str, start: int) -> Decimal | None:
    found = _NUMBER.match(text, start)
    if found is None or not (found[2] or found[3]):
        return None
    return Decimal(("-" if found[1] else "") + (found[2] or "0").replace(",", "") + (found[3] or ""))
