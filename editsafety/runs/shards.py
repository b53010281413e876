"""Shard: a part of a run's cases, so that several machines can share a run that is merged afterwards. No torch here.

Which cases a part holds follows from the plan alone. Single edits are dealt by request: all editors of one request are
in the same part, so that what they have in common is computed once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from editsafety.errors import UsageError
from editsafety.runs.case import Block, Case

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, counted from 1; the one of one is the whole run."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """From "2/3"; without any text the whole run. Raises UsageError for what is no part of anything."""
        if text is None:
            return cls()
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"shard is {text!r}; expected a part of the run: 1/3, 2/3 or 3/3 for one of three.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to others."""
        return self.count == 1

    def edits(self, cases: Sequence[Case]) -> list[Case]:
        """Those of the single edits of a plan, in its order, that are in this part."""
        before: Counter[Block] = Counter()
        held = []
        for case in cases:
            if self._takes(before[case.block]):
                held.append(case)
            before[case.block] += 1
        return held

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every so-manieth of whatever else there is: courses, controls, blocks."""
        return [item for place, item in enumerate(items) if self._takes(place)]

    def _takes(self, place: int) -> bool:
        return place % self.count == self.number - 1


WHOLE = Shard()
