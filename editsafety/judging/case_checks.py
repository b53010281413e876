"""Checks: measurements judged against a policy, case by case and group by group. No torch here.

Line, table, JSON, JUnit and exit code all come from the values made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editsafety.errors import UnknownNameError
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.verdict import Verdict
from editsafety.numbers import counting, exact, rate
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.measurement import Measurement, wilson


@dataclass(frozen=True, slots=True)
class Check:
    """One judgement: the figure, its verdict, and the sentence that says both."""

    name: str
    verdict: Verdict
    sentence: str
    figure: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values; a figure that is not finite is null, and `not_finite` is true."""
        finite = self.figure is not None and math.isfinite(self.figure)
        return {
            "check": self.name,
            "verdict": self.verdict.value,
            "figure": self.figure if finite else None,
            "not_finite": self.figure is not None and not finite,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, slots=True)
class CaseVerdict:
    """A judged case."""

    record: CaseRecord
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks. PASS without any: then the case was only asked about together with its group."""
        return Verdict.worst(check.verdict for check in self.checks) if self.checks else Verdict.PASS

    @property
    def ratio(self) -> float | None:
        """Perplexity after / before; infinite when the model gave no finite number; None when it was not measured."""
        return ratio(self.record)

    def check(self, name: str) -> Check:
        """One check by name; a case that failed early answers every question with its failure.

        Raises UnknownNameError: an answer to another question must not pass for this one.
        """
        if self.record.failure is not None:
            return self.checks[0]
        for check in self.checks:
            if check.name == name:
                return check
        raise UnknownNameError("check", name, [check.name for check in self.checks])

    def detail(self, check: Check) -> str:
        """The sentence of a check without the case's name in front."""
        return check.sentence.removeprefix(f"{self.record.case}: ")


def judge_case(policy: Policy, record: CaseRecord) -> CaseVerdict:
    """Every per-case check of a policy, the structural ones (restore, undeclared changes, no-op) first."""
    if record.failure is not None:
        sentence = f"{record.case}: {record.failure.message}"
        return CaseVerdict(record, (Check(record.failure.kind, Verdict.ERROR, sentence),))
    checks = [*_structure(record)]
    checks += [_against(name, threshold, record) for name, threshold in policy.case.items()]
    return CaseVerdict(record, tuple(checks))


def judge_group(policy: Policy, records: Sequence[CaseRecord]) -> tuple[Check, ...]:
    """Every per-group check over the cases of one editor on one model and stream.

    Rates are shown with n and a Wilson interval. A measurement that no case can have (no rephrasings in the data) is
    left out; one that was not even tried is an error.
    """
    checks = []
    for name, threshold in policy.group.items():
        values = counted(records, threshold.measure)
        tried = [record for record in records if record.failure is None]
        if tried and not any(threshold.measure in record.after for record in tried):
            checks.append(
                Check(name, _unjudged(threshold), f"{name}: {threshold.measure} was not measured on any case")
            )
        elif any(not 0.0 <= value <= 1.0 for value in values):
            checks.append(
                Check(name, Verdict.ERROR, f"{name}: {threshold.measure} is no rate, so it has no mean to judge")
            )
        elif values:
            checks.append(_rated(name, threshold, values))
    return tuple(checks)


def counted(records: Sequence[CaseRecord], measure: str) -> list[float]:
    """The values that make up a group's rate.

    A case whose editor failed or whose model broke counts as 0; one that has no data for the measure does not count.
    Nothing when no case has a result: then there is no rate.
    """
    found = [record.after.get(measure) for record in records]
    if not any(m is not None and (m.value is not None or m.broken) for m in found):
        return []
    return [
        0.0 if m is None or m.value is None else m.value for m in found if m is None or m.value is not None or m.broken
    ]


def ratio(record: CaseRecord) -> float | None:
    """Perplexity after / before of a case; infinite when the edited model broke; None when not measured."""
    return _figure("ratio", record.before.get("me_ppl"), record.after.get("me_ppl"))


def _rated(name: str, threshold: Threshold, values: Sequence[float]) -> Check:
    share = math.fsum(values) / len(values)
    low, high = wilson(round(share * len(values)), len(values))
    interval = f"95% interval {low:.2f} to {high:.2f}"
    said = f"{name} {threshold.spelled(share, first=rate(share))} over {counting(len(values))} ({interval})"
    return Check(name, threshold.verdict(share), f"{said}, expected {threshold.limit}", share)


def _unjudged(threshold: Threshold) -> Verdict:
    """What it comes to when there is nothing to judge: an error, unless the limit could only have warned."""
    return Verdict.WARN if threshold.fails_as is Verdict.WARN else Verdict.ERROR


def _structure(record: CaseRecord) -> list[Check]:
    def exact(name: str, good: bool, said: str, failed: str) -> Check:
        return Check(name, Verdict.PASS if good else Verdict.ERROR, f"{record.case}: {said if good else failed}")

    nothing = not record.changed and not record.notes.get("sidecars")
    return [
        exact("restore", record.restored is True, "every byte came back", "the model was not restored bit for bit"),
        exact(
            "undeclared", not record.undeclared, "only declared tensors changed",
            f"{record.editor} changed what it did not declare: {_listed(record.undeclared)}",
        ),
        exact("leftovers", not record.leftovers, "nothing left behind", f"left behind: {_listed(record.leftovers)}"),
        Check(
            "changes_something", Verdict.NO_OP if nothing else Verdict.PASS,
            f"{record.case}: {'the edit changes nothing' if nothing else f'changed {_listed(record.changed)}'}",
        ),
    ]  # fmt: skip


def _against(name: str, threshold: Threshold, record: CaseRecord) -> Check:
    before, after = record.before.get(threshold.measure), record.after.get(threshold.measure)
    if threshold.figure != "after" and (before is None or before.value is None):
        reason = (before and before.reason) or "was not measured"
        return Check(name, Verdict.ERROR, f"{record.case}: {threshold.measure} of the unedited model: {reason}")
    if threshold.figure == "ratio" and before is not None and before.value is not None and not before.value > 0:
        said = f"{threshold.measure} of the unedited model is {before.value:g}, so nothing can be compared with it"
        return Check(name, Verdict.ERROR, f"{record.case}: {said}")
    if threshold.figure != "before" and (after is None or (after.value is None and not after.broken)):
        reason = (after and after.reason) or "was not measured"
        return Check(name, _unjudged(threshold), f"{record.case}: {threshold.measure} of the edited model: {reason}")
    figure = _figure(threshold.figure, before, after)
    finite = figure is not None and math.isfinite(figure)
    unit = "x" if threshold.figure == "ratio" else ""
    values = ""
    if threshold.figure == "ratio" and before is not None and before.value is not None and after is not None:
        new = f"{exact(after.value)} after" if after.value is not None else f"after the edit: {after.reason}"
        values = f" ({exact(before.value)} before, {new})"
    elif not finite and after is not None and after.reason:
        values = f" ({after.reason})"
    said = f"{name} {threshold.spelled(figure)}{unit if finite else ''}{values}"
    return Check(name, threshold.verdict(figure), f"{record.case}: {said}, expected {threshold.limit}{unit}", figure)


def _figure(kind: str, before: Measurement | None, after: Measurement | None) -> float | None:
    was, now = (before.value if before else None), (after.value if after else None)
    if after is not None and after.broken and kind != "before":
        return math.inf if kind == "ratio" else math.nan  # NaN fails in either direction
    if kind == "before":
        return was
    if now is None or (kind != "after" and was is None):
        return None
    if kind == "after":
        return now
    assert was is not None
    return was - now if kind == "drop" else now / was if was > 0 else math.inf


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
