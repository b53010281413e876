"""Single edits as charts: perplexity of every case, what warned of a collapse, and what an edit costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from editsafety.judging.alarms import Prediction, predictions, signals
from editsafety.judging.group import Group
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.numbers import counting, number, rate, times
from editsafety.reporting.as_html import _plot as plot
from editsafety.reporting.as_html._cases import shown_of
from editsafety.reporting.as_html._plot import Cloud, Label, Plot, PlotBar, PlotFrame, Scale, Stroke, Tick

GAP = 14  # between the cases of one stream and those of the next
DENSE = 2000  # points of a curve up to which all are drawn
DRAWN = 4  # signals whose curves are drawn; all of them are in the table


def scatters(report: RunReport, places: Mapping[str, int]) -> list[Plot]:
    """Perplexity after / before of every single edit, a chart for each editor and model, all with the same axis.

    Hard and normal cases stand apart; `places` says where a case stands in the table of cases.
    """
    ratios = [case.ratio for group in report.groups for case in group.cases]
    if all(ratio is None for ratio in ratios):
        return []
    frame = PlotFrame(bottom=194)
    scale = plot.ratio_scale(ratios, frame.bottom - 12, frame.top + 4)
    return [_scatter(report, group, places, frame, scale) for group in report.worst_groups if group.cases]


def _scatter(report: RunReport, group: Group, places: Mapping[str, int], frame: PlotFrame, scale: Scale) -> Plot:
    streams = list(dict.fromkeys(case.record.stream for case in group.cases))
    streams.sort(key=[*group.planned, *streams].index)
    room = frame.right - frame.left - 12 - GAP * (len(streams) - 1)
    start = frame.left + 6.0
    clouds: list[Cloud] = []
    labels: list[Label] = []
    strokes: list[Stroke] = []
    shown = {stream: shown_of(report, group, stream) for stream in streams}
    drawn = sum(map(len, shown.values()))
    for place, (stream, cases) in enumerate(shown.items()):
        wide = room * len(cases) / drawn
        if place:
            between = start - GAP / 2
            strokes.append(Stroke(plot.path([(between, frame.top), (between, frame.bottom)]), "apart"))
        points = [
            (
                round(start + wide * (i + 0.5) / len(cases), 1),
                frame.bottom - 3 if case.ratio is None else scale.at(case.ratio),
            )
            for i, case in enumerate(cases)
        ]
        clouds.append(Cloud(plot.dots(points), f"cloud {plot.look(place)}", places[cases[0].record.case]))
        labels.append(
            Label(
                round(start + wide / 2, 1),
                frame.bottom + 16,
                f"{stream} ({_amount(group, stream, len(cases))})",
                "axis",
                "middle",
            )
        )
        start += wide + GAP
    lost = sum(case.ratio is None for cases in shown.values() for case in cases)
    if lost:
        labels.append(Label(frame.left + 5, frame.bottom - 9, f"at the bottom: {lost} without a figure"))
    past = sum(case.verdict is Verdict.COLLAPSE for case in group.cases)
    name = named(report, group)
    return Plot(
        title=name,
        said=f"{name}: {past} of {counting(len(group.cases))} collapse, worst perplexity "
        f"{times(max(group.ratios(), default=None))}",
        frame=frame,
        ys=plot.ratio_ticks(scale),
        y_name="perplexity after / before",
        rules=(limit_rule(report, scale),),
        clouds=tuple(clouds),
        labels=tuple(labels),
        strokes=tuple(strokes),
        verdict=group.verdict.value,
    )


def _amount(group: Group, stream: str, drawn: int) -> str:
    """How many cases are drawn, and of how many where that is not all."""
    every = len(group.cases_of(stream))
    return str(drawn) if drawn == every else f"{drawn} of {every}"


def named(report: RunReport, group: Group) -> str:
    """The editor, with its model where there are several."""
    several = len({one.model for one in report.groups}) > 1
    return f"{group.editor} on {group.model}" if several else group.editor


def limit_rule(report: RunReport, scale: Scale) -> Label:
    """The line past which a model counts as collapsed."""
    limit = report.policy.collapse
    return Label(0, scale.at(limit), f"collapse above {limit:g}x")


@dataclass(frozen=True, slots=True)
class Warned:
    """How well what was known before any text was run would have told collapsed edits from the others."""

    model: str
    plot: Plot
    rows: tuple[tuple[str, ...], ...]  # signal, auc, threshold, precision, recall


HEADINGS = ("signal", "AUC", "warn when", "precision", "recall")


def warned(report: RunReport) -> list[Warned]:
    """One for each model with enough edits that collapsed and enough that did not."""
    found = []
    for model in dict.fromkeys(group.model for group in report.groups):
        pairs = [
            (signals(case.record.after, case.record.notes), not case.ratio <= case.limit)
            for group in report.groups
            if group.model == model
            for case in group.cases
            if case.record.failure is None and case.ratio is not None
        ]
        told = [one for one in predictions(pairs) if one.auc is not None]
        if told:
            told.sort(key=lambda one: (-(one.auc or 0.0), one.signal))
            found.append(Warned(model, _curves(model, told[:DRAWN], pairs), tuple(map(_row, told))))
    return found


def _row(one: Prediction) -> tuple[str, ...]:
    alarm = "-" if one.threshold is None else f"{one.direction} {one.threshold:.4g}"
    return one.signal, rate(one.auc), alarm, rate(one.precision), rate(one.recall)


def _curves(model: str, told: Sequence[Prediction], pairs: Sequence[tuple[Mapping[str, float], bool]]) -> Plot:
    frame = PlotFrame()
    across, up = Scale(0, 1, frame.left, frame.right), Scale(0, 1, frame.bottom, frame.top)
    strokes = [Stroke(plot.path([(frame.left, frame.bottom), (frame.right, frame.top)]), "even")]
    keys = []
    for place, one in enumerate(told):
        points = _apart([(across.at(x), up.at(y)) for x, y in _roc(one, pairs)])
        strokes.append(Stroke(plot.path(points), f"line {plot.look(place)}"))
        keys.append((plot.look(place), f"{one.signal} ({rate(one.auc)})"))
    return Plot(
        title=f"warned in time, {model}",
        said=", ".join(f"{one.signal}: area under the curve {rate(one.auc)}" for one in told),
        frame=frame,
        xs=across.ticks(),
        ys=up.ticks(),
        x_name="share of sound edits called out",
        y_name="share of collapses called out",
        strokes=tuple(strokes),
        keys=tuple(keys),
    )


def _roc(one: Prediction, pairs: Sequence[tuple[Mapping[str, float], bool]]) -> list[tuple[float, float]]:
    """Shares of the edits that stay and of those that collapse past every threshold, the strictest first."""
    sign = 1.0 if one.direction == "above" else -1.0
    values = [(sign * found[one.signal], fallen) for found, fallen in pairs if one.signal in found]
    points = [(0.0, 0.0)]
    hits = alarms = 0
    values.sort(key=lambda pair: -pair[0])
    for place, (value, fallen) in enumerate(values):
        hits, alarms = hits + fallen, alarms + (not fallen)
        if place + 1 == len(values) or values[place + 1][0] != value:
            points.append((alarms / one.stood, hits / one.collapsed))
    return points


def _apart(points: Sequence[tuple[float, float]], least: float = 0.2) -> list[tuple[float, float]]:
    """Of more points than can be told apart those that are so far from the one before, and the last."""
    if len(points) <= DENSE:
        return list(points)
    kept = [points[0]]
    for x, y in points[1:-1]:
        if max(abs(x - kept[-1][0]), abs(y - kept[-1][1])) >= least:
            kept.append((x, y))
    return [*kept, points[-1]]


COSTS = ("edit", "apply", "undo", "measure")


def cost_rows(report: RunReport) -> list[tuple[str, ...]]:
    """Editor, median seconds of each of `COSTS`, and the peak memory of an edit in MiB."""
    rows = []
    for group in report.worst_groups:
        peak = "-" if group.peak_bytes is None else f"{group.peak_bytes / 2**20:.1f}"
        rows.append((named(report, group), *(number(group.median_cost(step)) for step in COSTS), peak))
    return rows


def cost_plot(report: RunReport) -> Plot | None:
    """Median seconds of an edit as bars; None where no time was taken."""
    taken = [(named(report, group), value) for group in report.worst_groups if (value := group.median_cost("edit"))]
    if not taken:
        return None
    frame = PlotFrame(left=104, top=8, bottom=8 + 26 * len(taken))
    scale = Scale(0, max(value for _, value in taken) * 1.18, frame.left, frame.right)
    rows = [(name, value, frame.top + 26 * (i + 0.5)) for i, (name, value) in enumerate(taken)]
    return Plot(
        title="seconds an edit takes (median)",
        said=", ".join(f"{name}: {number(value)} s" for name, value in taken),
        frame=frame,
        xs=scale.ticks(),
        ys=tuple(Tick(at, name) for name, _, at in rows),
        x_name="seconds",
        bars=tuple(
            PlotBar(
                frame.left,
                at - 8,
                max(1.0, round(scale.at(value) - frame.left, 1)),
                16,
                "s0",
                f"{name}: {number(value)} s",
            )
            for name, value, at in rows
        ),
        labels=tuple(Label(scale.at(value) + 4, at + 4, number(value), "value") for _, value, at in rows),
    )
