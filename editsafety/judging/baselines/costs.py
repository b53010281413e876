"""Costs: what edits cost in a run, case by case, as a part of a baseline, and how much dearer they may become.

Seconds of two machines cannot be compared; seconds counted in plain forward passes of the same model, which were timed
between the edits, can. So a limit is on that number, and on bare seconds only where it is asked for by name, on one
kind of machine. No torch here.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.report import RunReport
from editsafety.runs.case_record import CaseRecord, Cost, Step
from editsafety.runs.facts import RepeatedCost

DIGITS = 5  # kept of each cost; clocks do not give more
ABSOLUTE = "absolute-"  # before a name: in seconds, and not in forward passes


@dataclass(frozen=True, slots=True)
class CostFigure:
    """Something that an edit costs."""

    name: str
    words: str
    better: Literal["lower", "higher"]
    timed: bool  # whether it is of a clock, so that it is counted in forward passes

    def of(self, step: Step) -> float | None:
        """From a measured step; None where it was not measured."""
        cost: Cost = step.cost
        if self.name == "memory":
            return None if cost.edit_bytes is None else float(cost.edit_bytes)
        if self.name == "measuring":
            return cost.measure
        return cost.edit


FIGURES: Mapping[str, CostFigure] = {
    one.name: one
    for one in (
        CostFigure("latency", "seconds per edit", "lower", timed=True),
        CostFigure("throughput", "edits per second", "higher", timed=True),
        CostFigure("measuring", "seconds to measure an edited model", "lower", timed=True),
        CostFigure("memory", "peak bytes above the model's own", "lower", timed=False),
    )
}
KEPT = ("latency", "measuring", "memory")  # throughput is the other side of latency
REPEATED = "repeated"  # the kind of what was timed again and again, beside those of schedules


@dataclass(frozen=True, slots=True)
class CostLimit:
    """By which share a cost may be worse than the accepted one."""

    figure: CostFigure
    share: float
    absolute: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `latency:20%`, or `absolute-latency:20%`. Raises UsageError, UnknownNameError for another cost."""
        name, _, amount = text.partition(":")
        plain = name.removeprefix(ABSOLUTE)
        known = [*FIGURES, *(f"{ABSOLUTE}{one.name}" for one in FIGURES.values() if one.timed)]
        if name not in known:
            raise UnknownNameError("cost", name, known, "Write it like --fail-over latency:20%.")
        number = re.fullmatch(r"(\d+(?:\.\d+)?)%", amount.strip())
        share = float(number[1]) / 100 if number else math.nan
        if not 0 < share <= (0.99 if FIGURES[plain].better == "higher" else math.inf):
            most = " below 100%" if FIGURES[plain].better == "higher" else ""
            raise UsageError(f"--fail-over is {text!r}; expected a cost and a share above 0%{most}, like latency:20%.")
        return cls(FIGURES[plain], share, name.startswith(ABSOLUTE))

    @property
    def name(self) -> str:
        """As it was typed."""
        return f"{ABSOLUTE if self.absolute else ''}{self.figure.name}"

    @property
    def end(self) -> float:
        """The ratio to the accepted cost past which it is too much."""
        return 1 + self.share if self.figure.better == "lower" else 1 - self.share

    def past(self, ratio: float) -> bool:
        """Whether a ratio to the accepted cost is too much."""
        return ratio > self.end if self.figure.better == "lower" else ratio < self.end


@dataclass(frozen=True, slots=True)
class AcceptedCosts:
    """Of an editor on a model: its costs by kind of schedule, figure and step, and what they can be compared by.

    What was timed again and again is apart from a run's own cases, with the forward passes of its own moment.
    """

    machine: str  # empty where no forward pass was timed
    yardstick: tuple[float, ...]  # seconds of plain forward passes
    figures: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, report: RunReport, model: str, editor: str, records: Iterable[CaseRecord]) -> Self:
        """From the records of a block; a step whose cost was not measured has none."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for record in records:
            for step in record.steps:
                key = f"{record.case}#{step.edits}" if record.is_course else record.case
                for name in KEPT:
                    value = FIGURES[name].of(step)
                    if value is not None and math.isfinite(value):
                        found.setdefault(record.schedule.kind, {}).setdefault(name, {})[key] = _short(value)
        timed = report.facts.yardsticks.get((model, editor))
        seconds = () if timed is None else tuple(map(_short, timed.seconds))
        return cls("" if timed is None else timed.machine, seconds, found)

    @classmethod
    def of_repeated(cls, report: RunReport, model: str, editor: str) -> Self | None:
        """From what `suites/speed` found of a block, round by round; None where it was not run."""
        mine = [one for one in report.facts.repeated if (one.model, one.editor) == (model, editor)]
        if not mine:
            return None
        machine = next((one.machine for one in mine if one.machine), "")
        passes = tuple(_short(seconds) for one in mine for seconds in one.passes)
        figures = {one.figure: _rounds(one) for one in mine if one.values}
        return cls(machine, passes, {REPEATED: figures})

    @property
    def passes(self) -> float | None:
        """Seconds of one forward pass, the median; None where none was timed."""
        return statistics.median(self.yardstick) if self.yardstick else None

    def values(self, kind: str, figure: CostFigure) -> Mapping[str, float]:
        """A figure of every step of that kind of schedule, by its name."""
        kept = self.figures.get(kind, {}).get("latency" if figure.name == "throughput" else figure.name, {})
        if figure.name != "throughput":
            return kept
        return {name: 1 / value for name, value in kept.items() if value > 0}

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        figures = {
            f"{kind} {name}": dict(sorted(values.items()))
            for kind, named in self.figures.items()
            for name, values in named.items()
        }
        return {"machine": self.machine, "yardstick": list(self.yardstick), **figures}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`. Raises ValueError for what is no positive number."""
        figures: dict[str, dict[str, dict[str, float]]] = {}
        for name, values in row.items():
            if name not in ("machine", "yardstick"):
                kind, _, figure = name.partition(" ")
                known = {str(key): _number(value, f"{name} of {key}") for key, value in dict(values).items()}
                figures.setdefault(kind, {})[figure] = known
        yardstick = tuple(_number(value, "the yardstick") for value in row["yardstick"])
        if not all(yardstick):
            raise ValueError("the yardstick is 0; expected seconds")
        return cls(str(row["machine"]), yardstick, figures)


def _rounds(found: RepeatedCost) -> dict[str, float]:
    """Values by request and round."""
    return {f"{found.request}#{number:02d}": _short(value) for number, value in enumerate(found.values, 1)}


def _number(value: Any, of: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{of} is {value!r}; expected a number of at least 0")
    return float(value)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
