"""Curves: what happens to a model edit by edit, drawn. Needs matplotlib (the extra `maps`); no torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from editsafety.errors import UsageError
from editsafety.judging.policy import COLLAPSE
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.schedule import KINDS, Kind

# Okabe and Ito's colours, which the colour-blind can tell apart; markers for those who print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
CEILING = 1e6  # what is higher, or no number, is drawn here
FIGURES = {
    "ratio": "perplexity / unedited",
    "kept": "share of edits still said",
    "drift_growth": "||W|| / ||W unedited||",
}


def draw(records: Sequence[CaseRecord], path: Path, *, figure: str = "ratio", limit: float = COLLAPSE) -> Path:
    """One panel per schedule and stream, one line per editor; written to `path` (.svg, .png or .pdf).

    `figure` is "ratio" (logarithmic, with the limit dashed) or the name of anything measured at the steps ("kept",
    "drift_growth", "reasoning"). A cross marks the edit that broke the model. Raises UsageError without matplotlib, or
    when there is nothing to draw.
    """
    plots = _plots()
    shown = [one for one in records if any(_of(step, one, figure) is not None for step in one.steps)]
    panels = sorted({_place(one) for one in shown}, key=lambda at: (at[0], KINDS.index(at[1]), at[2]))
    if not panels:
        known = sorted({name for one in records for step in one.steps for name in step.found})
        raise UsageError(f"no course of this run measured {figure!r}. Measured: {', '.join(['ratio', *known])}.")
    editors = list(dict.fromkeys(one.editor for one in shown))
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    size = (6.2 * across, 3.2 * down)
    canvas, axes = plots.subplots(down, across, figsize=size, squeeze=False, sharey=True, layout="constrained")
    for place, panel in zip(axes.flat, panels, strict=False):
        _panel(place, panel, [one for one in shown if _place(one) == panel], editors, figure)
        place.xaxis.get_major_locator().set_params(integer=True)
        if figure == "ratio":
            place.set_yscale("log")
            place.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
            place.yaxis.set_minor_formatter(partial(_between, place))
            place.axhline(limit, color="#666666", linewidth=0.8, linestyle="--")
    for place in list(axes.flat)[len(panels) :]:
        place.set_visible(False)
    _legend(canvas, axes, editors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with plots.rc_context({"svg.hashsalt": "editsafety"}):  # equal curves, equal files
        canvas.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    plots.close(canvas)
    return path


def _between(place: Any, value: float, _: int | None = None) -> str:
    """The label between two decades, at twice, three and five times: where the axis has no more than one of them."""
    low, high = place.get_ylim()
    return f"{value:g}x" if high < 30 * low and f"{value:e}"[0] in "235" else ""


def points(record: CaseRecord, figure: str = "ratio") -> list[tuple[int, float]]:
    """Edits and the figure, step by step.

    Of the perplexity ratio also where it began, and what bisection has measured around the edit that broke the model;
    one that is past the ceiling, or no number, is at the ceiling.
    """
    steps = [(step.edits, _of(step, record, figure)) for step in record.steps]
    known = [(x, _drawn(y)) for x, y in steps if y is not None]
    if figure == "ratio" and record.schedule.cumulative:
        known = sorted({(0, 1.0), *known, *_found(record)})
    return known


def _panel(
    place: Any, panel: tuple[str, Kind, str], records: Sequence[CaseRecord], editors: list[str], figure: str
) -> None:
    model, schedule, stream = panel
    for record in records:
        number = editors.index(record.editor)
        known = points(record, figure)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 3.5}
        place.plot([x for x, _ in known], [y for _, y in known], linewidth=1.4, **style)
        if figure == "ratio" and record.breaking is not None:
            at = (record.breaking.edits, _drawn(record.breaking.ratio))
            place.plot(*at, marker="x", markersize=9, markeredgewidth=2, color=style["color"])
    place.set_title(f"{model}: {schedule}, {stream} requests", fontsize=10)
    place.set_xlabel(records[0].schedule.axis)
    place.set_ylabel(FIGURES.get(figure, figure))
    place.grid(visible=True, which="major", alpha=0.25)


def _place(record: CaseRecord) -> tuple[str, Kind, str]:
    return record.model, record.schedule.kind, record.stream


def _found(record: CaseRecord) -> list[tuple[int, float]]:
    """What bisection has measured between the steps: just before the model broke, and just behind."""
    broke = record.breaking
    if broke is None:
        return []
    return [(broke.edits - len(broke.requests), _drawn(broke.ratio_before)), (broke.edits, _drawn(broke.ratio))]


def _legend(canvas: Any, axes: Any, editors: Sequence[str]) -> None:
    """One legend for all panels, beside them."""
    first = axes.flat[0]
    handles = [
        first.plot([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], label=name)[0]
        for i, name in enumerate(editors)
    ]
    canvas.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)


def _of(step: Step, record: CaseRecord, figure: str) -> float | None:
    if figure == "ratio":
        return step.ratio(record.before)
    found = step.found.get(figure)
    return None if found is None else found.value


def _drawn(value: float) -> float:
    return min(value, CEILING) if value == value else CEILING


def _plots() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("curves are drawn by matplotlib. Install it: pip install 'editsafety[maps]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
