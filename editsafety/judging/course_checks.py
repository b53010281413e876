"""Courses judged against a policy: perplexity, what took, what is kept, and every ability, over all steps. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from editsafety.errors import UsageError
from editsafety.judging import causes
from editsafety.judging.case_checks import Check
from editsafety.judging.drop import drop
from editsafety.judging.policy import COLLAPSE, AbilityLimit, CourseThreshold, Policy
from editsafety.judging.verdict import Verdict
from editsafety.numbers import exact, rate, times
from editsafety.runs.course_record import CourseRecord, Step
from editsafety.runs.measurement import Measurement

ABILITIES = "abilities"


@dataclass(frozen=True)
class CourseVerdict:
    """A judged course; past `limit` times its unedited perplexity the model counts as broken."""

    record: CourseRecord
    checks: tuple[Check, ...]
    limit: float = COLLAPSE

    @cached_property
    def verdict(self) -> Verdict:
        """The worst of the checks; INCOMPLETE without any: nothing judged is not a pass."""
        return Verdict.worst(check.verdict for check in self.checks) if self.checks else Verdict.INCOMPLETE

    def check(self, name: str) -> Check | None:
        """One check by name; what stopped the course answers every question. None for one that was not judged."""
        found = {check.name: check for check in self.checks}
        return found.get(name) or found.get("walked")

    @property
    def sentences(self) -> tuple[str, ...]:
        """Why it does not pass, the most severe first, which edit broke the model, and likely why."""
        bad = sorted((c for c in self.checks if c.verdict is not Verdict.PASS), key=lambda c: -c.verdict.severity)
        said = [f"{check.verdict.value}: {check.sentence}" for check in bad]
        broken = [_broke(self.record)] if self.record.breaking else []
        likely = causes.of_course(self.record, limit=self.limit)[:1] if self.verdict is Verdict.COLLAPSE else ()
        broken += [f"likely cause: {cause.text}" for cause in likely]
        where = f"{self.record.stream} {self.record.schedule.kind}"
        return tuple(f"{where}: {sentence}" for sentence in (*said[:1], *broken, *said[1:]))


def judge_course(policy: Policy, record: CourseRecord) -> CourseVerdict:
    """Every check of a policy on a course. One that failed or is unfinished says so; what it did find is judged too."""
    checks = [*_walked(record)]
    if record.steps:
        checks += [_judged(name, limit, record) for name, limit in policy.course.items()]
        if policy.abilities is not None:
            checks += list(_abilities(policy.abilities, record))
    return CourseVerdict(record, tuple(checks), policy.collapse)


def probes_of(record: CourseRecord) -> tuple[str, ...]:
    """The abilities that were measured before the first edit."""
    known = [name for name, found in record.before.items() if found.unit == "rate"]
    return tuple(name for name in known if any(name in step.found for step in record.steps))


def _walked(record: CourseRecord) -> Iterator[Check]:
    if record.failure is not None:
        done = f" after {record.steps[-1].edits} of {record.planned} requests" if record.steps else ""
        yield Check("walked", Verdict.ERROR, f"the course stopped{done}: {record.failure.message}")
    elif not record.ended:
        written = record.steps[-1].edits if record.steps else 0
        yield Check("walked", Verdict.INCOMPLETE, f"{written} of {record.planned} requests were written; run it again")


def _judged(name: str, limit: CourseThreshold, record: CourseRecord) -> Check:
    figures = [_figure(limit, record, step) for step in record.steps]
    missing = [reason for figure, reason in figures if figure is None]
    if missing:
        verdict = Verdict.WARN if limit.fails_as is Verdict.WARN else Verdict.ERROR
        return Check(name, verdict, f"{name}: {limit.measure} of {len(missing)} steps: {missing[0]}")
    values = [figure for figure, _ in figures if figure is not None]
    figure, step = _over(limit, values, record.steps)
    where = {"worst": "at worst, after", "last": "after", "mean": "on average over"}[limit.over]
    unit = "x" if limit.figure == "ratio" else ""
    spelled = limit.spelled(figure, first=rate(figure) if not unit and 0 <= figure <= 1 else "")
    said = f"{name} {spelled}{unit if math.isfinite(figure) else ''} {where} {_edits(step, record)}"
    return Check(name, limit.verdict(figure), f"{said}, expected {limit.limit}{unit}", figure)


def _over(limit: CourseThreshold, values: Sequence[float], steps: Sequence[Step]) -> tuple[float, Step]:
    """The figure that is judged, and the step that it is from. NaN is worse than any number."""
    if limit.over == "last":
        return values[-1], steps[-1]
    if limit.over == "mean":
        weights = [len(step.block) for step in steps]
        return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / max(1, sum(weights)), steps[-1]
    sign = 1.0 if limit.pass_at_most is not None else -1.0
    place = max(range(len(values)), key=lambda i: math.inf if math.isnan(values[i]) else sign * values[i])
    return values[place], steps[place]


def _figure(limit: CourseThreshold, record: CourseRecord, step: Step) -> tuple[float | None, str]:
    """The figure of a step, NaN or infinite where the model broke; None with the reason where there is none."""
    before, after = record.before.get(limit.measure), step.found.get(limit.measure)
    if after is not None and after.broken and limit.figure != "before":
        return (math.inf if limit.figure == "ratio" else math.nan), ""
    now = _value(after)
    was = _value(before)
    if limit.figure == "after":
        return now, _reason(after)
    if limit.figure == "before":
        return was, _reason(before)
    if was is None or now is None:
        return None, _reason(before) if was is None else _reason(after)
    if limit.figure == "drop":
        return was - now, ""
    return (now / was if was > 0 else math.inf), ""


def _abilities(limit: AbilityLimit, record: CourseRecord) -> Iterator[Check]:
    """One check over all abilities: the one that lost most decides."""
    lost: list[tuple[Verdict, float, str]] = []
    names = probes_of(record)
    for name in names:
        for step in record.steps:
            lost.append(_loss(limit, name, record, step))
    if lost:
        verdict, drop, said = max(lost, key=lambda one: (one[0].severity, math.inf if math.isnan(one[1]) else one[1]))
        many = f"{len(names)} abilities, the greatest loss is " if len(names) > 1 else ""
        expected = f"at most {limit.pass_at_most_floors:g} noise floors"
        yield Check(ABILITIES, verdict, f"{many}{said}, expected {expected}", drop)


def _loss(limit: AbilityLimit, name: str, record: CourseRecord, step: Step) -> tuple[Verdict, float, str]:
    before, after = record.before[name], step.found.get(name)
    try:
        found = drop(before, after) if after is not None else None
    except UsageError as error:  # other items than before: nothing that could be compared
        return Verdict.ERROR, math.nan, f"{error} after {_edits(step, record)}"
    if after is None or found is None or found.drop is None:
        if found is not None and found.broken:
            return limit.fails_as, math.nan, f"{name}: the model gives no finite numbers after {_edits(step, record)}"
        return Verdict.ERROR, math.nan, f"{name}: {_reason(after)} after {_edits(step, record)}"
    verdict = limit.verdict(found.drop, found.floor)
    floors = found.drop / found.floor
    figures = f"{rate(before.value)} to {rate(after.value)}, {floors:.0f} noise floors"
    return verdict, found.drop, f"{name} by {100 * found.drop:.1f} points ({figures}) after {_edits(step, record)}"


def _edits(step: Step, record: CourseRecord) -> str:
    if record.schedule.kind == "single":
        return f"{', '.join(step.block)} alone" if record.steps[-1] is not step else f"{len(record.steps)} single edits"
    kind = {"batch": "a batch of ", "batch-sequential": "", "sequential": ""}[record.schedule.kind]
    return f"{kind}{step.edits} edit{'' if step.edits == 1 else 's'}"


def _broke(record: CourseRecord) -> str:
    """`edit 17 (hardcf-0017) broke the model: perplexity 1.03x before, 512x after, 498x alone`"""
    breaking = record.breaking
    assert breaking is not None
    names = ", ".join(request.id for request in breaking.requests[:3]) + (" ..." if len(breaking.requests) > 3 else "")
    alone = "" if breaking.alone is None else f", {times(breaking.alone)} alone"
    ratios = f"{times(breaking.ratio_before)} before, {times(breaking.ratio)} after{alone}"
    return f"edit {exact(breaking.edits)} ({names}) broke the model: perplexity {ratios}"


def _value(found: Measurement | None) -> float | None:
    return None if found is None else found.value


def _reason(found: Measurement | None) -> str:
    return (found and found.reason) or "was not measured"
