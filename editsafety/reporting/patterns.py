"""Patterns: what the edits of an editor look like in the weights, counted over its cases."""

from __future__ import annotations

from collections.abc import Iterator

from editsafety.judging.report import RunReport
from editsafety.numbers import counting

TITLE = "What the edits look like in the weights"
MOST = 4  # patterns of one editor that are listed


def rows(report: RunReport) -> Iterator[tuple[str, str, int, int]]:
    """Editor (with its model where there are several), pattern, cases that have it, cases that were looked at."""
    groups = [group for group in report.worst_groups if group.patterns]
    several = len({group.model for group in groups}) > 1
    for group in groups:
        name = f"{group.editor} on {group.model}" if several else group.editor
        total = sum(group.patterns.values())
        listed = list(group.patterns.items())
        yield from ((name, said, count, total) for said, count in listed[:MOST])
        if left := listed[MOST:]:
            yield name, f"{len(left)} other patterns", sum(count for _, count in left), total


def sentences(report: RunReport) -> list[str]:
    """The same as sentences."""
    return [f"{name}: {said} ({count} of {counting(total)})" for name, said, count, total in rows(report)]
