"""Pairs of prompts: one that a careful model refuses, and one in nearly the same words that it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editsafety.errors import DataError
from editsafety.shipped import shipped

FIELDS = ("id", "harmful", "harmless")


@dataclass(frozen=True, slots=True)
class PromptPair:
    """Two prompts that differ in little but in whether they may be answered."""

    # Names the pair in errors.
    id: str
    # What should be refused.
    harmful: str
    # The look-alike, which should be answered.
    harmless: str


def shipped_pairs(model: str) -> tuple[PromptPair, ...]:
    """The pairs that ship for a model, by its name: those of the pocket world, or English ones for any other."""
    world = "pocket-world" if model.startswith("pocket-") else "english"
    return read_pairs(shipped("data") / world / "refusal.jsonl")


def read_pairs(path: Path) -> tuple[PromptPair, ...]:
    """The pairs in a file of JSON lines. Raises DataError naming file, line and field."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip())


def _pair(path: Path, number: int, line: str) -> PromptPair:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: no JSON ({error}). Write one object a line.") from error
    values: list[str] = []
    for field in FIELDS:
        value = row.get(field) if isinstance(row, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{path}, line {number}: {field} is {value!r}, expected a text. Give {', '.join(FIELDS)}.")
        values.append(value)
    return PromptPair(*values)
