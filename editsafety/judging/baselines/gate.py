"""Gate: a baseline that a run was asked to be held against. No torch here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.comparison import compare
from editsafety.judging.baselines.costs import CostLimit
from editsafety.judging.baselines.meaning import CONDITIONS
from editsafety.judging.report import RunReport


@dataclass(frozen=True)
class Gate:
    """What was accepted, where that is written, and which conditions may be others now."""

    accepted: AcceptedBaseline
    source: str
    allow: frozenset[str] = frozenset()
    limits: tuple[CostLimit, ...] = ()

    @classmethod
    def read(cls, path: Path, allow: Collection[str] | None = None, fail_over: Collection[str] | None = None) -> Self:
        """From a file, with the limits on costs as they were typed.

        Raises UsageError for another kind of file, and for limits where it has no costs, UnknownNameError for an
        unknown condition or cost.
        """
        limits = tuple(CostLimit.parse(text) for text in fail_over or ())
        for name in allow or ():
            if name not in CONDITIONS:
                raise UnknownNameError("condition", name, tuple(CONDITIONS))
        accepted = AcceptedBaseline.read(path)
        if limits and not any(block.costs or block.repeated for block in accepted.blocks):
            raise UsageError(
                f"{path}: holds no costs, so --fail-over has nothing to compare with. Accept the run once more with "
                "`editsafety baseline accept --costs`."
            )
        return cls(accepted, path.name, frozenset(allow or ()), limits)

    @classmethod
    def asked(cls, path: Path | None, allow: Collection[str] | None, fail_over: Collection[str] | None) -> Self | None:
        """The gate that options ask for; None without a baseline. Raises UsageError for limits without one."""
        if path is None and fail_over:
            raise UsageError(f"--fail-over {next(iter(fail_over))} needs what it is compared with: give --baseline.")
        return None if path is None else cls.read(path, allow, fail_over)

    def judged(self, report: RunReport) -> RunReport:
        """The report with how it stands to what was accepted."""
        found = compare(
            self.accepted, report, report.policy.baseline, source=self.source, allow=self.allow, limits=self.limits
        )
        return replace(report, against=found)
