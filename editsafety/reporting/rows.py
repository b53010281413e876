"""Rows: the figures of the table, one row per editor and model, and per stream where that tells more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from editsafety.judging.group import Group
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.numbers import number, rate, times
from editsafety.runs.measurement import Column


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one editor on one model. Infinite where a model broke, None where nothing was measured."""

    model: str
    editor: str
    stream: str  # empty: over all of them
    verdict: Verdict
    cases: int
    worst: float | None  # perplexity ratio
    median: float | None  # perplexity ratio
    norm: float | None  # median of ||dW||
    figures: tuple[tuple[Column, float | None], ...]  # of the measures' own columns
    seconds: float | None  # median of one edit
    peak_bytes: int | None  # only over all streams

    @property
    def cells(self) -> tuple[str, ...]:
        """As text, one for each of `headings`."""
        mib = "-" if self.peak_bytes is None else f"{self.peak_bytes / 2**20:.1f}"
        own = (rate(value) if column.over == "rate" else number(value) for column, value in self.figures)
        return _ratio(self.worst), _ratio(self.median), *own, number(self.seconds), mib

    def as_json(self) -> dict[str, Any]:
        """Plain values. What is not finite is null and named in `not_finite`."""
        figures = {
            "worst_ratio": self.worst,
            "median_ratio": self.median,
            "median_update_norm": self.norm,
            **{f"median_{column.measurement}": value for column, value in self.figures if column.over == "median"},
        }
        return {
            "stream": self.stream or "all",
            "verdict": self.verdict.value,
            "cases": self.cases,
            **{name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()},
            "not_finite": [name for name, value in figures.items() if value is not None and not math.isfinite(value)],
            **{column.measurement: value for column, value in self.figures if column.over == "rate"},
            "median_seconds_per_edit": self.seconds,
            "peak_bytes": self.peak_bytes,
        }


def headings(report: RunReport) -> tuple[Column, ...]:
    """The columns of the table, those of the measures between perplexity and cost."""
    first = Column("", "worst", "perplexity", "ppl\nworst"), Column("", "median", "perplexity", "\nmedian")
    last = Column("", "s/edit", "cost", dispensable=True), Column("", "MiB", "cost", dispensable=True)
    return (*first, *report.facts.columns, *last)


def rows(report: RunReport) -> Iterator[Row]:
    """Worst first. A row per stream follows where an editor does not pass and has been tried on several."""
    columns = report.facts.columns
    for group in report.worst_groups:
        yield row(group, columns)
        if group.verdict is not Verdict.PASS and len(group.planned) > 1:
            yield from (row(group, columns, stream) for stream in group.planned)


def row(group: Group, columns: Sequence[Column], stream: str | None = None) -> Row:
    """The figures of a group, or of one of its streams."""
    ratios = group.ratios(stream)
    norms = group.values("delta_norm", stream) or _noted(group, stream)
    return Row(
        model=group.model,
        editor=group.editor,
        stream=stream or "",
        verdict=group.verdict_on(stream),
        cases=len(group.cases_of(stream)),
        worst=max(ratios, default=None),
        median=statistics.median(ratios) if ratios else None,
        norm=statistics.median(norms) if norms else None,
        figures=tuple((column, _figure(group, column, stream)) for column in columns),
        seconds=group.median_cost("edit", stream),
        peak_bytes=group.peak_bytes if stream is None else None,
    )


def _figure(group: Group, column: Column, stream: str | None) -> float | None:
    if column.over == "rate":
        return group.rate(column.measurement, stream)
    values = group.values(column.measurement, stream)
    return statistics.median(values) if values else None


def _ratio(value: float | None) -> str:
    return "inf" if value is not None and not math.isfinite(value) else times(value)


def _noted(group: Group, stream: str | None) -> list[float]:
    """The update norms that an editor noted itself."""
    notes = [case.record.notes.get("update_norm") for case in group.cases_of(stream)]
    return [float(note) for note in notes if isinstance(note, int | float) and not isinstance(note, bool)]
