"""Measurement: a number, or the reason why there is none. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, Self

# What is said to be expected.
KINDS: Mapping[type, str] = {str: "text", int: "an integer", bool: "True or False", float: "a number of Python's own"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a measure found. Exactly one of `value` and `reason` is set.

    `items` are the per-item values in data order (`None` where an item has none), so that mean, median, worst and
    weighted figures can be recomputed; `answers` are the texts behind them where a model was asked something.
    `of` and `between` are of a measurement that stopped as soon as enough was known: how many items there are, of which
    `n` were used, and between which values the one over all of them lies then.
    `broken` says that the *model* gave non-finite numbers: a finding that judges as collapse, not a failed measurement.
    `applies` is false where this model has nothing to measure (it never could what an edit may cost): a limit on that
    has nothing to judge, as the reason says.
    """

    name: str
    version: int
    unit: str
    value: float | None
    reason: str | None = None
    n: int = 0
    stderr: float | None = None
    broken: bool = False
    items: tuple[float | None, ...] = ()
    answers: tuple[str, ...] = ()
    applies: bool = True
    of: int = 0
    between: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"measurement {self.name!r} needs a value or a reason, and not both")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(
                f"measurement {self.name!r}: {self.value} is no value; give None, a reason and broken=True"
            )
        finite = _are_finite(self.items) and _are_finite(self.between or ())
        if not finite or not (self.stderr is None or math.isfinite(self.stderr)):
            raise ValueError(f"measurement {self.name!r}: an item or the error is not finite; give None instead")
        if not self.applies and (self.value is not None or self.broken):
            raise ValueError(f"measurement {self.name!r} applies: it has a value, or found a broken model")

    @classmethod
    def missing(
        cls, name: str, version: int, unit: str, reason: str, *, broken: bool = False, n: int = 0, **more: Any
    ) -> Self:
        """A measurement without a value. `broken` when the model's own numbers are the reason."""
        return cls(name, version, unit, None, reason, n=n, broken=broken, **more)

    @classmethod
    def inapplicable(cls, name: str, version: int, unit: str, reason: str, *, n: int = 0) -> Self:
        """A measurement that this model has nothing for: no failure, and no value either."""
        return cls(name, version, unit, None, reason, n=n, applies=False)

    @classmethod
    def mean_of(
        cls, name: str, version: int, unit: str, items: Sequence[float], *, answers: Sequence[str] = ()
    ) -> Self:
        """Mean and standard error of per-item values; no items is a reason, not 0."""
        if not items:
            return cls.missing(name, version, unit, "no items to measure")
        n = len(items)
        mean = _mean(items)
        if not math.isfinite(mean):
            kept = tuple(x if math.isfinite(x) else None for x in items)
            bad = sum(x is None for x in kept)
            reason = f"{bad} of {n} items are not finite" if bad else "the mean overflows"
            return cls.missing(name, version, unit, reason, broken=True, n=n, items=kept, answers=tuple(answers))
        spread = _stderr(items, mean) if n > 1 else None
        return cls(name, version, unit, mean, n=n, stderr=spread, items=tuple(items), answers=tuple(answers))

    def strange(self) -> str:
        """The first field that holds something that cannot be kept or compared, in words; "" where none does.

        Not looked at where one is made: that is done far more often than somebody else's are taken in.
        """
        for field, held, expected in (
            *((each, (getattr(self, each),), str) for each in ("name", "unit")),
            *((each, (getattr(self, each),), int) for each in ("version", "n", "of")),
            *((each, (getattr(self, each),), bool) for each in ("broken", "applies")),
            ("reason", () if self.reason is None else (self.reason,), str),
            *((each, (getattr(self, each),), float) for each in ("value", "stderr")),
            *((each, getattr(self, each) or (), float) for each in ("items", "between")),
            ("answers", self.answers, str),
        ):
            for one in held:
                if not _is(expected, one):
                    return f"{field} of {self.name!r} is {one!r:.40} ({type(one).__name__}), expected {KINDS[expected]}"
        return ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, every number finite; defaults are left out."""
        row = ((name, getattr(self, name), default) for name, default in _defaults().items())
        return {name: value for name, value, default in row if name == "value" or value != default}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`."""
        values = dict(row)
        values["items"] = tuple(values.get("items", ()))
        values["answers"] = tuple(values.get("answers", ()))
        if "between" in values:
            values["between"] = tuple(values["between"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Column:
    """How a measurement shows in the tables of a report; a measure lists its own as `columns`."""

    measurement: str
    heading: str
    title: str = ""  # written above the headings of this and the following columns
    short: str = ""  # the heading where there is little room; a line break where it may be folded
    over: Literal["rate", "median"] = "rate"  # how cases come together: failed and broken ones count as 0, or a median
    order: int = 50  # from left to right; the built-in ones have 10 to 40
    dispensable: bool = False  # whether it is left out where there is very little room


def inapplicable(found: Sequence[Measurement | None]) -> str | None:
    """Why a figure does not apply, where all of these say so; None where one has it, or says nothing of the kind."""
    reasons = [one.reason for one in found if one is not None and not one.applies]
    return reasons[0] if reasons and len(reasons) == len(found) else None


def _is(expected: type, value: object) -> bool:
    """Whether a value is of Python's own kind; where a number may be missing, None is one."""
    if expected is float:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


@cache
def _defaults() -> dict[str, Any]:
    """Every field of a measurement, and what it is where nothing is said."""
    return {each.name: each.default for each in fields(Measurement)}


def _are_finite(numbers: Sequence[float | None]) -> bool:
    for number in numbers:  # noqa: SIM110 (no generator: most have one number or none, and a report makes millions)
        if number is not None and not math.isfinite(number):
            return False
    return True


def _mean(items: Sequence[float]) -> float:
    try:
        return math.fsum(items) / len(items)
    except (OverflowError, ValueError):  # the sum is too large, or holds infinities of both signs
        return math.nan


def _stderr(items: Sequence[float], mean: float) -> float | None:
    """Standard error of the mean; scaled, since the square of a collapsed model's perplexity may overflow."""
    scale = max(abs(x - mean) for x in items)
    if not 0.0 < scale < math.inf:
        return 0.0 if scale == 0.0 else None
    n = len(items)
    return scale * math.sqrt(math.fsum(((x - mean) / scale) ** 2 for x in items) / (n - 1) / n)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a rate (Wilson 1927); (0, 1) when nothing was counted."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} cannot be")
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
