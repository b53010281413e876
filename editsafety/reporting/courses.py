"""Courses as rows: how far each editor got along its schedules, and what the model could still do there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editsafety.judging.checks import CaseVerdict
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.numbers import number, rate, times
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import KINDS

BARS = "▁▂▃▄▅▆▇█"
SCALE = 4.0  # powers of ten from an unchanged perplexity to a full bar
STEPS = ("edits", "perplexity", "takes", "kept", "growth")
HEADINGS = ("breaks by", "edits", "worst", "last", "takes", "kept", "growth", "perplexity")


@dataclass(frozen=True, slots=True)
class CourseRow:
    """The figures of one course. `breaks` is the edit that broke the model, where bisection found one."""

    course: CaseVerdict
    breaks: int | None
    edits: int
    worst: float | None
    last: float | None
    recent: float | None
    kept: float | None
    growth: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """As text, in the order of `HEADINGS`; the last one is the curve of the perplexity."""
        breaks = "-" if self.breaks is None else str(self.breaks)
        rates = (rate(self.recent), rate(self.kept), number(self.growth))
        return breaks, str(self.edits), _ratio(self.worst), _ratio(self.last), *rates, curve(self.course.record.ratios)


def rows(report: RunReport) -> Iterator[CourseRow]:
    """One row per course, in plan order: editors side by side under each stream and schedule."""
    yield from (row(course) for course in ordered(report))


def ordered(report: RunReport) -> list[CaseVerdict]:
    """By model, schedule and stream; among editors the one that broke first comes first."""

    def place(course: CaseVerdict) -> tuple[Any, ...]:
        record, broke = course.record, course.breaks_at
        where = (record.model, KINDS.index(record.schedule.kind), record.stream)
        return (*where, math.inf if broke is None else broke, -(record.worst or 0.0), record.editor)

    return sorted(report.courses, key=place)


def row(course: CaseVerdict) -> CourseRow:
    """The figures of a course."""
    record = course.record
    steps = record.steps
    recent = [(v, len(step.block)) for step in steps if (v := _value(step, "recent")) is not None]
    growth = [v for step in steps if (v := _value(step, "drift_growth")) is not None]
    return CourseRow(
        course=course,
        breaks=course.breaks_at,
        edits=max((step.edits for step in steps), default=0),
        worst=record.worst,
        last=record.ratios[-1] if steps else None,
        recent=math.fsum(v * w for v, w in recent) / sum(w for _, w in recent) if recent else None,
        kept=_value(steps[-1], "kept") if steps else None,
        growth=max(growth, default=None),
    )


def curve(ratios: Sequence[float | None], most: int = 16) -> str:
    """Perplexity over the steps as bars, on a logarithmic scale from 1x to 10,000x; at most so many, evenly chosen."""
    count = min(most, len(ratios))
    chosen = [ratios[(i + 1) * len(ratios) // count - 1] for i in range(count)]
    return "".join(_bar(ratio) for ratio in chosen)


def _bar(ratio: float | None) -> str:
    if ratio is None:
        return "?"
    if not math.isfinite(ratio):
        return BARS[-1]
    height = math.log10(max(ratio, 1.0)) / SCALE
    # A model past 2x never looks like an unchanged one.
    return BARS[min(len(BARS) - 1, max(math.ceil(height * (len(BARS) - 1) - 0.35), 0))]


@dataclass(frozen=True, slots=True)
class AbilityRow:
    """Scores of one case: unedited, and at the step where their mean is lowest."""

    case: str
    before: Mapping[str, float | None]
    lowest: Mapping[str, float | None]
    edits: int


def ability_rows(report: RunReport) -> list[AbilityRow]:
    """One row per case whose abilities were measured: single edits first, then courses."""
    found = []
    singles = [case for group in report.worst_groups for case in group.cases]
    for case in (*singles, *ordered(report)):
        record, lowest = case.record, lowest_step(case.record)
        if lowest is not None:
            before = {name: record.before[name].value for name in record.abilities}
            after = {name: _value(lowest, name) for name in record.abilities}
            found.append(AbilityRow(record.case, before, after, lowest.edits))
    return found


def lowest_step(record: CaseRecord) -> Step | None:
    """The step at which the mean of the abilities is lowest; one that has no score counts as 0. None without any."""
    names = record.abilities
    if not names or not record.steps:
        return None
    return min(record.steps, key=lambda step: math.fsum(_value(step, name) or 0.0 for name in names))


def as_json(course: CaseVerdict) -> dict[str, Any]:
    """Everything about a course; figures that are not finite are made null by the caller, with a flag beside them."""
    record, figures = course.record, row(course)
    breaking = record.breaking
    return {
        "case": record.case,
        "model": record.model,
        "editor": record.editor,
        "stream": record.stream,
        "schedule": record.schedule.as_json(),
        "verdict": course.verdict.value,
        "sentences": list(course.sentences),
        "checks": [check.as_json() for check in course.checks],
        "planned": record.planned,
        "ended": record.ended,
        "breaks_at": figures.breaks,
        "worst_ratio": figures.worst,
        "worst_ratio_not_finite": figures.worst is not None and not math.isfinite(figures.worst),
        "before": {name: found.as_json() for name, found in record.before.items()},
        "steps": [_step(step, ratio) for step, ratio in zip(record.steps, record.ratios, strict=True)],
        "breaking": None
        if breaking is None
        else {
            "edits": breaking.edits,
            "requests": [request.as_json() for request in breaking.requests],
            "ratio": breaking.ratio,
            "ratio_before": breaking.ratio_before,
            "ratio_alone": breaking.alone,
            "edit_id": breaking.edit_id,
            "delta": breaking.delta,
            "notes": dict(breaking.notes),
        },
        "failure": None if record.failure is None else {"kind": record.failure.kind, "message": record.failure.message},
    }


def _step(step: Step, ratio: float | None) -> dict[str, Any]:
    return {
        "edits": step.edits,
        "block": list(step.block),
        "ratio": ratio,
        "ratio_not_finite": ratio is not None and not math.isfinite(ratio),
        "found": {name: found.as_json() for name, found in step.found.items()},
        "seconds": step.cost.edit,
        "peak_bytes": step.cost.edit_bytes,
    }


def table(record: CaseRecord, more: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The steps of a course as cells, in the order of `STEPS`; then whatever else was measured under these names."""
    names = ("recent", "kept", "drift_growth", *more)
    return [
        (str(step.edits), _ratio(ratio), *(number(_value(step, name)) for name in names))
        for step, ratio in zip(record.steps, record.ratios, strict=True)
    ]


def failing(report: RunReport) -> list[CaseVerdict]:
    """The courses that do not pass, the most severe first."""
    bad = [course for course in ordered(report) if course.verdict is not Verdict.PASS]
    return sorted(bad, key=lambda course: -course.verdict.severity)


def _value(step: Step, name: str) -> float | None:
    found: Measurement | None = step.found.get(name)
    return None if found is None else found.value


def _ratio(value: float | None) -> str:
    return "inf" if value is not None and not math.isfinite(value) else times(value)
