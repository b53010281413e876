"""Gate: a baseline that a run was asked to be held against. No torch here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from editsafety.errors import UnknownNameError
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.comparison import compare
from editsafety.judging.baselines.meaning import CONDITIONS
from editsafety.judging.report import RunReport


@dataclass(frozen=True)
class Gate:
    """What was accepted, where that is written, and which conditions may be others now."""

    accepted: AcceptedBaseline
    source: str
    allow: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: Path, allow: Collection[str] | None = None) -> Self:
        """From a file. Raises UsageError for another kind of file, UnknownNameError for an unknown condition."""
        for name in allow or ():
            if name not in CONDITIONS:
                raise UnknownNameError("condition", name, tuple(CONDITIONS))
        return cls(AcceptedBaseline.read(path), path.name, frozenset(allow or ()))

    def judged(self, report: RunReport) -> RunReport:
        """The report with how it stands to what was accepted."""
        tolerances = report.policy.baseline
        return replace(report, against=compare(self.accepted, report, tolerances, source=self.source, allow=self.allow))
