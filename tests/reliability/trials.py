"""Trials: what was tried, one JSON line each, and what it comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True)
class Trials:
    """The trials of one figure, in a file that grows."""

    path: Path

    def made(self) -> list[Result]:
        """Those that are there, in order; half a line at the end is left out."""
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def make(self, count: int, trial: Callable[[int], Result]) -> list[Result]:
        """Make those that are missing up to `count`; all of them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(len(self.made()), count):
            line = json.dumps({"trial": number, **trial(number)}, allow_nan=False)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        return self.made()[:count]
