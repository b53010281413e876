"""Where an answer ends that nobody has given: "New York" in " New York, and so on", "St. Louis" in " St. Louis. It"."""

from __future__ import annotations

import re

ABBREVIATED = ("Capt", "Col", "Dr", "Ft", "Gen", "Gov", "Jr", "Lt", "Mr", "Mrs", "Ms", "Mt", "No", "Prof", "Sr", "St")
# A period behind these, or behind a single letter, ends no sentence.
_ABBREVIATED = re.compile(rf"(?:^|[\W_])(?:[^\W\d_]|{'|'.join(ABBREVIATED)})$")
# The comma of "1,000" and the period of "3.5" are part of a word: they end nothing in front of a letter or digit.
_END = re.compile(r"[\n。、，；：！？]|[.,;:!?](?!\w)")
_WORD = re.compile(r"\w")


def phrase(text: str, target: str = "", *, closed: bool = False) -> str | None:
    """What an answer says before its first full stop, comma or the like, or line break; None where it goes on.

    Nothing in front of its first word ends it, and nothing inside a target that it begins with. `closed` says that
    nothing follows the text: then a mark at its very end counts, and a text without a mark is all that is said.
    """
    first = _WORD.search(text)
    if first is not None:
        start, body, target = first.start(), text.lstrip(), target.strip()
        if target and body.startswith(target):
            start = len(text) - len(body) + len(target)
        for mark in _END.finditer(text, start):
            waits = mark.group() in ".," and mark.end() == len(text) and not closed
            if not waits and not (mark.group() == "." and _ABBREVIATED.search(text[: mark.start()])):
                return text[: mark.start()]
    return text if closed else None
