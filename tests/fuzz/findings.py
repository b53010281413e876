"""What fuzzing once found: tried first, every time."""

from __future__ import annotations

from tests.fuzz.targets import Files


def of(target: str) -> tuple[Files, ...]:
    """The findings of a target."""
    return FOUND.get(target, ())


FOUND: dict[str, tuple[Files, ...]] = {}
