"""Group: one editor on one model, with everything that was judged about it, and why it does not pass. No torch here."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from editsafety.judging import causes
from editsafety.judging.causes import Cause
from editsafety.judging.checks import CaseVerdict, Check, counted
from editsafety.judging.verdict import Verdict
from editsafety.numbers import counting, times

Figure = TypeVar("Figure")
WHOLE = "all"  # the name under which checks over all streams are kept


@dataclass(frozen=True, slots=True)
class Finding:
    """Why an editor does not pass: one check, where, how often, by how much, and on which cases (the worst first)."""

    verdict: Verdict
    check: str
    stream: str
    sentence: str
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """One editor on one model: its judged cases, its group checks by stream ("all" for the whole), and what is missing.

    `planned` counts the planned cases of each stream. `cut_short`: the run was stopped before every check of the policy
    was made, so what was not found yet says nothing.
    """

    model: str
    editor: str
    cases: tuple[CaseVerdict, ...]
    checks: Mapping[str, tuple[Check, ...]]
    missing: tuple[str, ...]
    planned: Mapping[str, int] = field(default_factory=dict)
    cut_short: bool = False

    @cached_property
    def verdict(self) -> Verdict:
        """The worst of cases, group checks and completeness; INCOMPLETE when nothing was judged."""
        return self.verdict_on(None)

    @property
    def is_unasked(self) -> bool:
        """Whether every case has a result, and none of them any check: the policy has no limit on what was asked."""
        judged = any(case.checks for case in self.cases) or any(self.checks.values())
        return bool(self.cases) and not self.missing and not judged

    def verdict_on(self, stream: str | None) -> Verdict:
        """The verdict over one stream alone ("hard", "normal"), or over everything."""
        cases = self.cases_of(stream)
        found = [case.verdict for case in cases if case.checks]
        found += [c.verdict for name, checks in self.checks.items() for c in checks if stream in (None, name)]
        lacking = bool(self.missing) if stream is None else len(cases) < self.planned.get(stream, 0)
        incomplete = lacking or self.cut_short or not cases or not found
        return Verdict.worst([*found, *([Verdict.INCOMPLETE] if incomplete else [])])

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that does not pass, the most severe first."""
        found = list(self._gaps())
        for stream, checks in self.checks.items():
            where = "" if stream == WHOLE else f"{stream}: "
            bad = [check for check in checks if check.verdict is not Verdict.PASS]
            found += [Finding(c.verdict, c.name, stream, f"{where}{c.verdict.value}: {c.sentence}") for c in bad]
        return tuple(sorted([*found, *self._case_findings()], key=lambda one: -one.verdict.severity))

    @property
    def sentences(self) -> tuple[str, ...]:
        """Why the verdict is what it is, the most severe first; then which stream is fine where another is not."""
        said = [finding.sentence for finding in self.findings]
        whole = any(one.stream == WHOLE and one.check != "complete" for one in self.findings)  # no stream is fine then
        fine = [stream for stream in self.planned if said and not whole and self.verdict_on(stream) is Verdict.PASS]
        for stream in fine:
            worst = max(self.ratios(stream), default=None)
            stays = f", perplexity at most {times(worst)}" if worst is not None else ""
            said.append(f"{stream}: PASS in all {counting(self.planned[stream])}{stays}")
        return tuple(said)

    def cases_of(self, stream: str | None) -> list[CaseVerdict]:
        """The judged cases of a stream, or all."""
        return list(self.cases if stream is None else self._streams.get(stream, ()))

    @cached_property
    def _streams(self) -> Mapping[str, Sequence[CaseVerdict]]:
        found: dict[str, list[CaseVerdict]] = {}
        for case in self.cases:
            found.setdefault(case.record.stream, []).append(case)
        return found

    def worst_first(self) -> list[CaseVerdict]:
        """Cases by severity, then by perplexity ratio, both descending."""
        return list(self._worst_first)

    @cached_property
    def _worst_first(self) -> list[CaseVerdict]:
        return sorted(self.cases, key=lambda c: (-c.verdict.severity, -order(c.ratio), c.record.case))

    def verdicts(self) -> dict[Verdict, int]:
        """How many cases came to each verdict that there is, mildest first."""
        found = Counter(case.verdict for case in self.cases)
        return {verdict: found[verdict] for verdict in Verdict if verdict in found}

    def _gaps(self) -> Iterator[Finding]:
        verdict = Verdict.INCOMPLETE
        if self.missing:
            total = counting(len(self.missing) + len(self.cases), "planned ")
            said = f"{verdict.value}: no result for {len(self.missing)} of {total}, first {self.missing[0]}"
            yield Finding(verdict, "complete", WHOLE, said, self.missing)
        elif not self.cases:
            yield Finding(verdict, "complete", WHOLE, f"{verdict.value}: no case was judged")
        elif self.is_unasked:
            said = f"{verdict.value}: nothing that was asked has a limit in this policy, so no case was judged"
            yield Finding(verdict, "complete", WHOLE, said)
        elif self.cut_short:
            said = f"{verdict.value}: the run was stopped before every check was made; all cases have results"
            yield Finding(verdict, "complete", WHOLE, said)

    def _case_findings(self) -> Iterator[Finding]:
        places: dict[tuple[str, str, Verdict], list[tuple[CaseVerdict, Check]]] = {}
        for case in self._worst_first:
            if case.checks and case.verdict is Verdict.PASS:
                continue
            for check in case.checks:
                if check.verdict is not Verdict.PASS:
                    places.setdefault((case.record.stream, check.name, check.verdict), []).append((case, check))
        for (stream, name, verdict), hits in places.items():
            worst, check = hits[0]
            total = counting(len(self.cases_of(stream)))
            of = f"worst {worst.record.case}" if len(hits) > 1 else worst.record.case
            said = f"{stream}: {verdict.value} in {len(hits)} of {total}, {of}: {check.sentence}"
            yield Finding(verdict, name, stream, said, tuple(case.record.case for case, _ in hits))

    def causes(self, case: CaseVerdict) -> tuple[Cause, ...]:
        """The likely causes of a collapse, the strongest first, from how it differs from the cases that stay.

        None for a case that did not collapse.
        """
        return self._causes.get(case.record.case, ())

    @cached_property
    def _causes(self) -> dict[str, tuple[Cause, ...]]:
        """Of every case that collapsed, by its id: each format asks for all of them."""
        stays = [case.record for case in self.cases if case.verdict is not Verdict.COLLAPSE]
        fallen = [case.record for case in self.cases if case.verdict is Verdict.COLLAPSE]
        beside = causes.those_that_stay(stays)
        return {record.case: causes.of_case(record, beside) for record in fallen}

    @cached_property
    def patterns(self) -> Mapping[str, int]:
        """In how many of its cases the edit looks like what in the weights, the most frequent first."""
        looks = Counter(case.record.step.look.pattern for case in self.cases)
        return {said: count for said, count in sorted(looks.items(), key=lambda one: (-one[1], one[0])) if said}

    def ratios(self, stream: str | None = None) -> list[float]:
        """Perplexity ratios of the judged cases, infinite for broken models."""
        return [c.ratio for c in self.cases_of(stream) if c.ratio is not None]

    def rate(self, measure: str, stream: str | None = None) -> float | None:
        """The rate that is judged: failed and broken cases count as 0. None when no case has the measure."""

        def work_out() -> float | None:
            values = counted([case.record for case in self.cases_of(stream)], measure)
            return math.fsum(values) / len(values) if values else None

        return self._once(("rate", measure, stream), work_out)

    def values(self, measure: str, stream: str | None = None) -> list[float]:
        """The values of a measure after the edit, where there are any; infinite where the model broke."""

        def look_up() -> list[float]:
            found = [case.record.after.get(measure) for case in self.cases_of(stream)]
            return [
                math.inf if m.value is None else m.value
                for m in found
                if m is not None and (m.broken or m.value is not None)
            ]

        return list(self._once(("values", measure, stream), look_up))

    def median_cost(self, step: str, stream: str | None = None) -> float | None:
        """Median seconds of a step ("edit", "apply", "undo", "measure")."""

        def work_out() -> float | None:
            values = [v for c in self.cases_of(stream) if (v := getattr(c.record.step.cost, step)) is not None]
            return statistics.median(values) if values else None

        return self._once(("median cost", step, stream), work_out)

    def _once(self, name: tuple[str, str, str | None], work_out: Callable[[], Figure]) -> Figure:
        """A figure over many cases, which every format asks for, worked out when the first one does."""
        if name not in self._known:
            self._known[name] = work_out()
        found: Figure = self._known[name]
        return found

    @cached_property
    def _known(self) -> dict[tuple[str, str, str | None], Any]:
        return {}

    @property
    def peak_bytes(self) -> int | None:
        """The largest memory above the model's own while an edit was computed."""
        peaks = [case.record.step.cost.edit_bytes for case in self.cases]
        return max((peak for peak in peaks if peak is not None), default=None)


def order(ratio: float | None) -> float:
    """What to sort ratios by: one that was not measured comes last."""
    return -1.0 if ratio is None else ratio
