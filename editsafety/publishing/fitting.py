"""Fitting: Markdown that has to stay below a number of bytes, cut between lines, with a sentence on what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LEAST = 512  # bytes: with fewer there is no room for a verdict and the sentence, so nothing is said at all
_RESERVED = 2000  # bytes for the sentence on what is missing
_LISTED = 12  # sections that it names


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: its text may lose lines from its end, and is left out where none would stay.

    `folded` is the heading of a part that is shown when it is clicked on; it must be harmless Markdown already.
    """

    title: str  # for the sentence on what is missing, harmless as well
    text: str
    folded: str = ""

    @property
    def whole(self) -> str:
        """All of it."""
        return self.cut(len(self.lines))

    @property
    def lines(self) -> list[str]:
        """The lines of the text."""
        return self.text.split("\n")

    @property
    def least(self) -> int:
        """Lines without which the rest says nothing: the head of a table and its ruler, and one row."""
        head = next((place for place, row in enumerate(self.lines) if row.startswith("| ")), None)
        return 1 if head is None else min(head + 3, len(self.lines))

    def cut(self, lines: int) -> str:
        """The first lines of it, as a part of a page of its own."""
        body = "\n".join(self.lines[:lines]).rstrip()
        return f"<details><summary>{self.folded}</summary>\n\n{body}\n\n</details>" if self.folded else body


def fit(sections: Sequence[Section], most: int, *, called: str, where: str) -> str:
    """The sections one below the other, in at most so many bytes of UTF-8 (no fewer than characters).

    Args:
        sections: the most important first; those without text are passed over.
        most: bytes.
        called: what the page is: "a comment".
        where: where all of it is: "report.md of the run".
    """
    given = [one for one in sections if one.text]
    page = _joined(one.whole for one in given)
    if _size(page) <= most:
        return page
    kept: list[str] = []
    missing: list[str] = []
    left = most - min(_RESERVED, most // 2)
    for one in given:
        lines = _most_lines(one, left - 2)
        if lines:
            kept.append(one.cut(lines))
            left -= _size(kept[-1]) + 2
        if lines < len(one.lines):
            missing.append(f"{len(one.lines) - lines} lines of {one.title}" if lines else one.title)
    more = [f"{len(missing) - _LISTED} other parts"] if len(missing) > _LISTED else []
    told = ", ".join([*missing[:_LISTED], *more])
    return _joined([*kept, f"*Left out, because {called} holds no more: {told}. All of it is in {where}.*"])


def _most_lines(one: Section, room: int) -> int:
    """How many lines of a section there is room for; 0 where it would say nothing."""
    if _size(one.whole) <= room:
        return len(one.lines)
    used, lines = _size(one.cut(0)) + 2, 0
    for row in one.lines:
        used += _size(row) + 1
        if used > room:
            break
        lines += 1
    return lines if lines >= one.least else 0


def _joined(parts: Sequence[str] | Iterator[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))
