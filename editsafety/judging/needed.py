"""Needed: which measurements of a single edit anything is judged by, compared by or shown in a table by. No torch."""

from __future__ import annotations

from collections.abc import Iterable

from editsafety.judging import causes
from editsafety.judging.policy import Policy
from editsafety.judging.report import MOST_IN_FULL
from editsafety.runs.measurement import Column
from editsafety.runs.signals import EVERY
from editsafety.runs.stored_records import ReadOf


def needed_of_many(policy: Policy, columns: Iterable[Column], cases: int) -> ReadOf | None:
    """The measurements that are read of so many single edits; None for all of them, as long as that is a small run."""
    return needed_measurements(policy, columns) if cases > MOST_IN_FULL else None


def needed_measurements(policy: Policy, columns: Iterable[Column]) -> ReadOf:
    """Their names: what a lean record of a large run has to hold. Abilities are kept whatever is named here."""
    compared = {limit.measure for limit in policy.case.values() if limit.figure != "after"}
    after = frozenset(
        {
            *("me_ppl", "ppl_even"),
            *policy.measured,
            *policy.baseline,
            *causes.READ,
            *(signal.name for signal in EVERY),
            *(column.measurement for column in columns),
        }
    )
    return ReadOf(frozenset({"me_ppl", "ppl_even", *compared}), after)
