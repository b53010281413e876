"""Texts as a reader sees them: what takes no room aside, and any white space, capitals and ways to write an accent."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_SPACES = re.compile(r"\s+")


def seen_alike(text: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Begin and end of every place in `text` that shows `wanted`, from left to right."""
    begins, ends, seen = {}, {}, ""
    for begin, end, form in _forms(text):
        begins[len(seen)] = begin
        seen += form
        ends[len(seen)] = end
    sought = "".join(form for _, _, form in _forms(trimmed(wanted)))
    for place in re.finditer(re.escape(sought), seen) if sought else ():
        if place.start() in begins and place.end() in ends:
            yield begins[place.start()], ends[place.end()]


def trimmed(text: str) -> str:
    """The text without white space and without what does not show at its edges."""
    begin, end = 0, len(text)
    while begin < end and _takes_no_room(text[begin]):
        begin += 1
    while begin < end and _takes_no_room(text[end - 1]):
        end -= 1
    return text[begin:end]


def _forms(text: str) -> Iterator[tuple[int, int, str]]:
    """Begin, end and form of everything that shows: a letter with its accents, or a stretch of white space."""
    at = 0
    while at < len(text):
        space = _SPACES.match(text, at)
        end = space.end() if space else at + 1
        while not space and end < len(text) and unicodedata.combining(text[end]):
            end += 1
        if not _is_hidden(text[at]):
            yield at, end, " " if space else unicodedata.normalize("NFC", text[at:end].casefold())
        at = end


def _takes_no_room(character: str) -> bool:
    return character.isspace() or _is_hidden(character)


def _is_hidden(character: str) -> bool:
    """Whether a character takes no room: marks of direction, of byte order, of a place to break a line."""
    return unicodedata.category(character) == "Cf"
