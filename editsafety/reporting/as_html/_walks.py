"""Courses and abilities as charts: what happens edit by edit, and what the model can still do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from editsafety.judging.checks import CaseVerdict
from editsafety.judging.report import RunReport
from editsafety.numbers import rate, times
from editsafety.reporting import courses, curves
from editsafety.reporting.as_html import _plot as plot
from editsafety.reporting.as_html._plot import Label, Plot, PlotFrame, PlotMark, Scale, Stroke, Tick
from editsafety.reporting.as_html._singles import limit_rule
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.measurement import Measurement, wilson

MOST = 8  # cases whose abilities are drawn; all of them are in the table


def walks(report: RunReport) -> list[Plot]:
    """Perplexity and what is kept, a pair of charts for every model, schedule and stream; one line per editor."""
    panels: dict[tuple[str, str, str], list[CaseVerdict]] = {}
    for course in courses.ordered(report):
        if course.record.steps:
            record = course.record
            panels.setdefault((record.model, record.schedule.kind, record.stream), []).append(course)
    several = len({model for model, _, _ in panels}) > 1
    looks = {name: plot.look(i) for i, name in enumerate(dict.fromkeys(c.record.editor for c in report.courses))}
    ratios = [one for course in report.courses for _, one in curves.points(course.record)]
    frame = PlotFrame()
    scale = plot.ratio_scale(ratios, frame.bottom - 4, frame.top + 4)
    found = []
    for (model, kind, stream), inside in panels.items():
        title = f"{kind}, {stream}{f', {model}' if several else ''}"
        found.append(_perplexity(report, title, inside, looks, frame, scale))
        if any(_kept(course.record) for course in inside):
            found.append(_share_kept(title, inside, looks, frame))
    return found


def _across(inside: Sequence[CaseVerdict], frame: PlotFrame) -> Scale:
    last = max(step.edits for course in inside for step in course.record.steps)
    first = 0 if inside[0].record.schedule.cumulative else min(s.edits for c in inside for s in c.record.steps)
    return Scale(first, max(last, first + 1), frame.left + 6, frame.right - 8)


def _perplexity(
    report: RunReport,
    title: str,
    inside: Sequence[CaseVerdict],
    looks: Mapping[str, str],
    frame: PlotFrame,
    scale: Scale,
) -> Plot:
    across = _across(inside, frame)
    strokes, marks, labels, said = [], [], [], []
    for course in inside:
        record, name = course.record, looks[course.record.editor]
        points = [(across.at(x), scale.at(y)) for x, y in curves.points(record)]
        strokes.append(Stroke(plot.path(points), f"line {name}"))
        steps = [(x, y) for x, y in curves.points(record) if x in {step.edits for step in record.steps}]
        marks += [
            PlotMark(across.at(x), scale.at(y), "dot", name, f"{record.editor}, {record.schedule.said(x)}: {times(y)}")
            for x, y in steps
        ]
        broke = course.breaks_at
        end = times(record.worst)
        said.append(
            f"{record.editor} {course.verdict.value}, worst {end}" + (f", broken by edit {broke}" if broke else "")
        )
        if record.breaking is not None:
            at = across.at(record.breaking.edits), scale.at(record.breaking.ratio)
            marks.append(
                PlotMark(*at, "cross", name, f"edit {record.breaking.edits} broke the model of {record.editor}")
            )
            side = "end" if at[0] > (frame.left + frame.right) / 2 else "start"
            labels.append(
                Label(at[0] + (-9 if side == "end" else 9), at[1] + 4, f"edit {record.breaking.edits}", "value", side)
            )
    return Plot(
        title=title,
        said="; ".join(said),
        frame=frame,
        xs=across.ticks(),
        ys=plot.ratio_ticks(scale),
        x_name=inside[0].record.schedule.axis,
        y_name="perplexity / unedited",
        rules=(limit_rule(report, scale),),
        strokes=tuple(strokes),
        marks=tuple(marks),
        labels=tuple(labels),
        keys=_keys(inside, looks),
    )


def _keys(inside: Sequence[CaseVerdict], looks: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The editors of a chart, in the same order in all of them."""
    there = {course.record.editor for course in inside}
    return tuple((look, name) for name, look in looks.items() if name in there)


def _kept(record: CaseRecord) -> list[tuple[int, float]]:
    values = [(step.edits, _value(step, "kept")) for step in record.steps]
    return [(edits, value) for edits, value in values if value is not None]


def _share_kept(title: str, inside: Sequence[CaseVerdict], looks: Mapping[str, str], frame: PlotFrame) -> Plot:
    across, up = _across(inside, frame), Scale(0, 1, frame.bottom - 4, frame.top + 4)
    strokes, marks, said = [], [], []
    for course in inside:
        name, values = looks[course.record.editor], _kept(course.record)
        points = [(across.at(x), up.at(y)) for x, y in values]
        strokes.append(Stroke(plot.path(points), f"line {name}"))
        marks += [
            PlotMark(*at, "dot", name, f"{course.record.editor}, {course.record.schedule.said(x)}: {rate(y)}")
            for at, (x, y) in zip(points, values, strict=True)
        ]
        if values:
            said.append(f"{course.record.editor} {rate(values[-1][1])} at the end")
    return Plot(
        title=f"{title}: facts kept",
        said="; ".join(said),
        frame=frame,
        xs=across.ticks(),
        ys=up.ticks(),
        x_name=inside[0].record.schedule.axis,
        y_name="share of facts still said",
        strokes=tuple(strokes),
        marks=tuple(marks),
        keys=_keys(inside, looks),
    )


@dataclass(frozen=True, slots=True)
class _AtLowest:
    """A case at the step where its abilities are lowest."""

    record: CaseRecord
    step: Step
    before: float
    after: float | None  # None where no ability could be measured any more

    @property
    def change(self) -> float:
        """Of the mean; a model that gives no numbers has lost all."""
        return (self.after or 0.0) - self.before


def losses(report: RunReport) -> list[Plot]:
    """Abilities before and after with 95 % intervals: every course, and of single edits the worst of each editor."""
    found = list(_lowest(report))
    singles: dict[tuple[str, str], _AtLowest] = {}
    for one in sorted((one for one in found if not one.record.is_course), key=lambda one: one.change):
        singles.setdefault((one.record.model, one.record.editor), one)
    chosen = [*singles.values(), *(one for one in found if one.record.is_course)]
    chosen.sort(key=lambda one: one.change)
    return [_dumbbells(one) for one in chosen[:MOST]]


def _lowest(report: RunReport) -> Iterator[_AtLowest]:
    singles = [case for group in report.worst_groups for case in group.cases]
    for case in (*singles, *courses.ordered(report)):
        record, step = case.record, courses.lowest_step(case.record)
        before = _mean(record.before, record.abilities)
        if step is not None and before is not None:
            yield _AtLowest(record, step, before, _mean(step.found, record.abilities))


def _dumbbells(one: _AtLowest) -> Plot:
    names = one.record.abilities
    frame = PlotFrame(left=110, top=8, right=344, bottom=8 + 24 * len(names))
    across = Scale(0, 1, frame.left, frame.right)
    ticks, strokes, marks = [], [], []
    for place, name in enumerate(names):
        at = frame.top + 24 * (place + 0.5)
        ticks.append(Tick(at, name))
        for found, dy, shape, look, when in (
            (one.record.before.get(name), -4, "ring", "was", "before"),
            (one.step.found.get(name), 4, "dot", "now", "after"),
        ):
            if found is None or found.value is None:
                continue
            low, high = interval(found)
            strokes.append(Stroke(plot.path([(across.at(low), at + dy), (across.at(high), at + dy)]), f"span {look}"))
            said = f"{name} {when}: {rate(found.value)} ({low:.2f} to {high:.2f}, {found.n} items)"
            marks.append(PlotMark(across.at(found.value), at + dy, shape, look, said))
    record = one.record
    kind = f" {record.schedule.kind}" if record.is_course else ""
    title = f"{record.editor}, {record.stream}{kind}: {record.schedule.said(one.step.edits)}"
    return Plot(
        title=title,
        said=f"{record.case}: mean score {rate(one.before)} before, {rate(one.after)} after",
        frame=frame,
        xs=across.ticks(),
        ys=tuple(ticks),
        x_name="score, with its 95% interval",
        strokes=tuple(strokes),
        marks=tuple(marks),
        keys=(("was", "before"), ("now", "after")),
    )


def interval(found: Measurement) -> tuple[float, float]:
    """Of 95 %: Wilson's where a score is a share of items, else that of its standard error."""
    value = found.value or 0.0
    if found.n and 0 <= value <= 1 and all(item in (None, 0.0, 1.0) for item in found.items):
        return wilson(round(value * found.n), found.n)
    half = 1.96 * (found.stderr or 0.0)
    return value - half, value + half


def against_perplexity(report: RunReport) -> list[Plot]:
    """The mean of the abilities against perplexity, a chart for every model with both; one point per edited model."""
    points: dict[str, list[tuple[str, str, float, float]]] = {}
    unedited: dict[str, float] = {}
    singles = [case for group in report.groups for case in group.cases]
    for record in (case.record for case in (*singles, *report.courses)):
        for step, ratio in zip(record.steps, record.ratios, strict=True):
            mean = _mean(step.found, record.abilities)
            if mean is not None and ratio is not None:
                what = f"{record.case} after {record.schedule.said(step.edits)}"
                points.setdefault(record.model, []).append((record.editor, what, ratio, mean))
        base = _mean(record.before, record.abilities)
        if base is not None:
            unedited.setdefault(record.model, base)
    return [_surrogate(model, found, unedited.get(model)) for model, found in points.items() if len(found) > 1]


def _surrogate(model: str, found: Sequence[tuple[str, str, float, float]], base: float | None) -> Plot:
    frame = PlotFrame()
    scale = plot.ratio_scale([ratio for _, _, ratio, _ in found], frame.left + 6, frame.right - 8)
    up = Scale(0, 1, frame.bottom - 4, frame.top + 4)
    looks = {name: plot.look(i) for i, name in enumerate(dict.fromkeys(editor for editor, *_ in found))}
    return Plot(
        title=f"what {model} can do, against its perplexity",
        said=f"{len(found)} edited models",
        frame=frame,
        xs=plot.ratio_ticks(scale),
        ys=up.ticks(),
        x_name="perplexity / unedited",
        y_name="mean of the abilities",
        rules=() if base is None else (Label(0, up.at(base), "unedited", "base"),),
        marks=tuple(
            PlotMark(
                scale.at(ratio), up.at(mean), "dot", looks[editor], f"{what}: {times(ratio)}, mean score {rate(mean)}"
            )
            for editor, what, ratio, mean in found
        ),
        keys=tuple((look, name) for name, look in looks.items()),
    )


def _mean(found: Mapping[str, Measurement], names: Sequence[str]) -> float | None:
    values = [one.value for name in names if (one := found.get(name)) is not None and one.value is not None]
    return math.fsum(values) / len(values) if values else None


def _value(step: Step, name: str) -> float | None:
    found = step.found.get(name)
    return None if found is None else found.value
