"""Telling: a judged figure in words, with what is behind it. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from editsafety.judging.policy import Threshold
from editsafety.judging.verdict import Verdict
from editsafety.numbers import exact, rate
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.measurement import Measurement

COUNTED = "tokens"  # the unit of what counts things and names each of them in its answers


def tell_figure(name: str, threshold: Threshold, value: float, record: CaseRecord, step: Step) -> str:
    """What a limit is held against: `refusal 0x (0.9333 before, 0 after)`, `kept 0.62 after 20 edits`.

    `step` is the one that decides; of a course its place is told, of a single edit the figures behind.
    """
    ratio, is_course = threshold.figure == "ratio", record.is_course
    share = rate(value) if is_course and not ratio and 0 <= value <= 1 else ""
    spelled = threshold.spelled(value, first=share)
    if threshold.figure == "drop" and math.isfinite(value):
        spelled = f"rose by {spelled.removeprefix('-')}" if value < 0 else f"fell by {spelled}"
    said = f"{name} {spelled}{'x' if ratio and math.isfinite(value) else ''}"
    if threshold.figure == "before":
        return said
    if is_course:
        head = {"worst": "at worst, after", "last": "after", "mean": "on average over"}[threshold.over]
        return f"{said} {head} {record.schedule.said(step.edits)}"
    return said + _evidence(threshold, record.before.get(threshold.measure), step.found.get(threshold.measure))


def with_meaning(sentence: str, threshold: Threshold, verdict: Verdict) -> str:
    """A sentence about a figure that does not pass, with what that means for whoever uses the model."""
    return f"{sentence}: {threshold.means}" if threshold.means and verdict is not Verdict.PASS else sentence


def spell(value: float | None) -> str:
    """A value, or a dash where there is none."""
    return "-" if value is None else exact(value)


def list_some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _evidence(threshold: Threshold, before: Measurement | None, after: Measurement | None) -> str:
    """The two figures that are compared; what was counted, by name; or why a figure is not finite."""
    if after is None:
        return ""
    compared = threshold.figure in ("ratio", "drop") and (threshold.figure == "ratio" or after.value is not None)
    if compared and before is not None:
        new = f"{exact(after.value)} after" if after.value is not None else f"after the edit: {after.reason}"
        return f" ({spell(before.value)} before, {new})"
    if after.unit == COUNTED and after.answers:
        return f" ({list_some(after.answers)})"
    return f" ({after.reason})" if after.reason else ""
