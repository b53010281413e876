"""Alarms: which signals of the weights, known before any text is run, tell collapsed edits from the others, and where.

Thresholds are those of one model: what is a large update for one is a small one for another. No torch here.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from editsafety.errors import UnknownNameError, UsageError
from editsafety.runs.measurement import Measurement
from editsafety.runs.signals import EVERY, Direction

FEWEST_OF_A_CLASS = 5  # a threshold between fewer is an accident
SIGNALS = {str(signal): signal for signal in EVERY}
_WRITTEN = re.compile(rf"\s*(\S+)\s+({'|'.join(get_args(Direction))})\s+(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal goes off past a threshold: strictly above, or strictly below it."""

    signal: str
    direction: Direction
    threshold: float

    @classmethod
    def of(cls, text: str) -> Alarm:
        """The alarm that is written so: "delta_norm above 12.5", "|denominator| below 0.1", as it prints itself.

        Raises UsageError for another form or a threshold that is no number, UnknownNameError for no known signal.
        """
        form = f"alarm {text!r}: expected SIGNAL above (or below) NUMBER, like 'delta_norm above 12.5'."
        parts = _WRITTEN.fullmatch(text)
        if parts is None:
            raise UsageError(form)
        signal, number = parts[1], parts[3]
        direction: Direction = "above" if parts[2] == "above" else "below"
        if signal not in SIGNALS:
            raise UnknownNameError("signal", signal, SIGNALS)
        try:
            threshold = float(number)
        except ValueError:
            raise UsageError(form) from None
        if math.isnan(threshold):
            raise UsageError(form)
        return cls(signal, direction, threshold)

    def rings(self, value: float) -> bool:
        """Whether a value is past the threshold; what is not a number always is."""
        return not (value <= self.threshold if self.direction == "above" else value >= self.threshold)

    def __str__(self) -> str:
        return f"{self.signal} {self.direction} {self.threshold:.4g}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """How a signal predicts collapse, in its own `direction`.

    `auc` is the probability that a collapsed model's signal is worse than another's, ties half (Mann and Whitney): 0.5
    says nothing, below 0.5 it points the other way. The threshold maximises Youden's J, midway between its neighbours,
    the one with the fewest false alarms among equals; `precision` and `recall` are on the same data. `gap` holds the
    worst value of a model that stood and the mildest of one that collapsed where the threshold separates them all.
    """

    signal: str
    direction: Direction
    collapsed: int
    stood: int
    left_out: int = 0
    auc: float | None = None
    threshold: float | None = None
    precision: float | None = None
    recall: float | None = None
    gap: tuple[float, float] | None = None
    reason: str = ""

    @property
    def alarm(self) -> Alarm | None:
        """The recommended threshold as something that can be asked; None where there is none."""
        return None if self.threshold is None else Alarm(self.signal, self.direction, self.threshold)


def predictions(pairs: Sequence[tuple[Mapping[str, float], bool]]) -> tuple[Prediction, ...]:
    """One for every known signal that occurs: signals of each edited model, and whether it collapsed."""
    there = {name for signals, _ in pairs for name in signals}
    found = []
    for name in (name for name in SIGNALS if name in there):
        values = [(signals[name], fallen) for signals, fallen in pairs if name in signals]
        bad, good = ([value for value, fallen in values if fallen is wanted] for wanted in (True, False))
        found.append(prediction(name, SIGNALS[name].collapse, bad, good, len(pairs) - len(values)))
    return tuple(found)


def prediction(
    signal: str, direction: Direction, collapsed: Sequence[float], stood: Sequence[float], left_out: int = 0
) -> Prediction:
    """From a signal's values on the models that collapsed and on those that did not. NaN is not allowed."""
    about = (signal, direction, len(collapsed), len(stood), left_out)
    if min(len(collapsed), len(stood)) < FEWEST_OF_A_CLASS:
        said = f"{len(collapsed)} collapsed and {len(stood)} did not; a threshold needs {FEWEST_OF_A_CLASS} of each"
        return Prediction(*about, reason=said)
    sign = 1.0 if direction == "above" else -1.0
    bad, good = sorted(sign * value for value in collapsed), sorted(sign * value for value in stood)
    values = sorted({*bad, *good})
    if len(values) == 1:
        return Prediction(*about, reason=f"{signal} is the same in all models")
    best = max(range(len(values) - 1), key=lambda at: (_youden(bad, good, values[at]), at))
    cut = _midway(values[best], values[best + 1])
    hits, alarms = _above(bad, cut), _above(good, cut)
    gap = (sign * good[-1], sign * bad[0]) if good[-1] < bad[0] else None
    precision = hits / (hits + alarms) if hits + alarms else None
    return Prediction(*about, _auc(bad, good), sign * cut, precision, hits / len(bad), gap)


def signals(found: Mapping[str, Measurement], notes: Mapping[str, float | str | bool]) -> dict[str, float]:
    """The weight signals among measurements, then among what an editor noted, by name.

    One that is not finite is infinite on its bad side.
    """
    values: dict[str, float] = {}
    for signal in EVERY:
        measurement = found.get(signal.name)
        if measurement is not None and (measurement.value is not None or measurement.broken):
            value = math.nan if measurement.value is None else measurement.value
        elif (noted := _number(notes.get(signal.name))) is not None:
            value = noted
        else:
            continue
        value = abs(value) if signal.by_size else value
        worst = math.inf if signal.collapse == "above" else -math.inf
        values[str(signal)] = value if math.isfinite(value) else worst
    return values


def _number(note: object) -> float | None:
    """A note as a number, None for what is none; what is not finite is kept by its name."""
    try:
        return float(note)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _auc(bad: Sequence[float], good: Sequence[float]) -> float:
    """The share of pairs in which the bad one is above, ties half; both are in order."""
    twice = sum(bisect_left(good, value) + bisect_right(good, value) for value in bad)
    return twice / (2 * len(bad) * len(good))


def _youden(bad: Sequence[float], good: Sequence[float], cut: float) -> int:
    """Recall plus specificity - 1 where everything above `cut` is called a collapse, times how many there are of both.

    In whole numbers, so that equals are equal: of two quotients rounding may make one the larger.
    """
    return _above(bad, cut) * len(good) - _above(good, cut) * len(bad)


def _above(ordered: Sequence[float], cut: float) -> int:
    """How many of the values, which are in order, are above."""
    return len(ordered) - bisect_right(ordered, cut)


def _midway(low: float, high: float) -> float:
    """Between two neighbours; of an infinite one there is no middle, so the finite one is the last that is let through.

    Never the upper one itself, whatever rounding does: it would be let through.
    """
    middle = low / 2 + high / 2
    return middle if low <= middle < high else low
