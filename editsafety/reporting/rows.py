"""Rows: the figures of the table, one row per editor and model, and per stream where that tells more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from editsafety.judging.group import Group
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.numbers import number, rate, times

RATES = {"bare": "efficacy", "prefixed": "efficacy_prefixed", "rephrased": "generalisation", "local": "locality"}


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one editor on one model; over one stream, or over all when `stream` is empty.

    Ratios and norms are infinite where a model broke, and None where nothing was measured; `relative` is the median of
    ||dW|| / ||W||, the only norm that can be compared between models.
    """

    model: str
    editor: str
    stream: str
    verdict: Verdict
    cases: int
    worst: float | None
    median: float | None
    norm: float | None
    relative: float | None
    rates: dict[str, float | None]
    seconds: float | None
    peak_bytes: int | None

    @property
    def cells(self) -> tuple[str, ...]:
        """worst, median, relative norm, the four rates, s/edit, MiB: as text."""
        mib = "-" if self.peak_bytes is None else f"{self.peak_bytes / 2**20:.1f}"
        rates = tuple(rate(value) for value in self.rates.values())
        return _ratio(self.worst), _ratio(self.median), number(self.relative), *rates, number(self.seconds), mib

    def as_json(self) -> dict[str, Any]:
        """Plain values. What is not finite is null and named in `not_finite`."""
        figures = {
            "worst_ratio": self.worst,
            "median_ratio": self.median,
            "median_update_norm": self.norm,
            "median_relative_norm": self.relative,
        }
        return {
            "stream": self.stream or "all",
            "verdict": self.verdict.value,
            "cases": self.cases,
            **{name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()},
            "not_finite": [name for name, value in figures.items() if value is not None and not math.isfinite(value)],
            **{RATES[name]: value for name, value in self.rates.items()},
            "median_seconds_per_edit": self.seconds,
            "peak_bytes": self.peak_bytes,
        }


def rows(report: RunReport) -> Iterator[Row]:
    """Worst first. A row per stream follows where an editor does not pass and has been tried on several."""
    for group in report.worst_groups:
        yield row(group)
        if group.verdict is not Verdict.PASS and len(group.planned) > 1:
            yield from (row(group, stream) for stream in group.planned)


def row(group: Group, stream: str | None = None) -> Row:
    """The figures of a group, or of one of its streams."""
    ratios = group.ratios(stream)
    norms = group.values("delta_norm", stream) or _noted(group, stream)
    relative = group.values("delta_relative", stream)
    return Row(
        model=group.model,
        editor=group.editor,
        stream=stream or "",
        verdict=group.verdict_on(stream),
        cases=len(group.cases_of(stream)),
        worst=max(ratios, default=None),
        median=statistics.median(ratios) if ratios else None,
        norm=statistics.median(norms) if norms else None,
        relative=statistics.median(relative) if relative else None,
        rates={name: group.rate(measure, stream) for name, measure in RATES.items()},
        seconds=group.median_cost("edit", stream),
        peak_bytes=group.peak_bytes if stream is None else None,
    )


def _ratio(value: float | None) -> str:
    return "inf" if value is not None and not math.isfinite(value) else times(value)


def _noted(group: Group, stream: str | None) -> list[float]:
    """The update norms that an editor noted itself."""
    notes = [case.record.notes.get("update_norm") for case in group.cases_of(stream)]
    return [float(note) for note in notes if isinstance(note, int | float) and not isinstance(note, bool)]
