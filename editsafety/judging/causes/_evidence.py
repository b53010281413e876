"""What is known about an edit and about those beside it, and what a cause is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from editsafety.numbers import exact
from editsafety.runs.measurement import Measurement

Figures = Mapping[str, float | str | bool]


@dataclass(frozen=True, slots=True)
class Cause:
    """A likely cause: its kind, what the evidence says, what would avoid it ("" where nothing is known to), figures.

    Kinds: denominator, overshoot, norm, non_finite, learning, neurons, emptied, sidecar, accumulation, hard_case,
    batch, unknown. Figures are finite; `usual_low` and `usual_high` are those of the edits that stay.
    """

    kind: str
    sentence: str
    advice: str = ""
    figures: Figures = field(default_factory=dict)
    strength: float = 0.0

    @property
    def text(self) -> str:
        """The sentence and the advice in one line."""
        return f"{self.sentence}; {self.advice}" if self.advice else self.sentence


@dataclass(frozen=True)
class Evidence:
    """What is known about the edit in question, and about those of its group that stay."""

    notes: Mapping[str, object]
    found: Mapping[str, Measurement]
    stays: tuple[tuple[Mapping[str, object], Mapping[str, Measurement]], ...]
    changed: bool = True

    def own(self, name: str) -> float | None:
        """The size of a figure of this edit, or None."""
        return signal(self.notes, self.found, name)

    def usual(self, name: str) -> list[float]:
        """The sizes of a figure of the edits that stay, where they have it."""
        return [x for notes, found in self.stays if (x := signal(notes, found, name)) is not None]

    def contrast(self, name: str) -> float | None:
        """How many times the usual figure this one is (1 = as usual); None where there is nothing to compare."""
        own, usual = self.own(name), self.usual(name)
        middle = statistics.median(usual) if usual else 0.0
        return own / middle if own is not None and middle > 0 else None

    def figures(self, *names: str) -> Figures:
        """The named figures, those of the first one also of the edits that stay."""
        told = {name: own for name in names if (own := self.own(name)) is not None}
        usual = self.usual(names[0])
        return {**told, **({"usual_low": min(usual), "usual_high": max(usual)} if usual else {})}

    def beside(self, name: str) -> str:
        """`0.003 where edits that stay have 1.1 to 1.6`; without the latter where none stays."""
        own, usual = self.own(name), self.usual(name)
        said = "-" if own is None else exact(own, 2)
        return f"{said} where edits that stay have {ranged(usual)}" if usual else said

    def true(self, name: str) -> bool:
        """Whether something was noted to be so."""
        return self.notes.get(name) is True


def signal(notes: Mapping[str, object], found: Mapping[str, Measurement], name: str) -> float | None:
    """The size of a figure: as noted by the editor, else as measured. Notes are somebody else's and may be anything."""
    note = notes.get(name)
    if isinstance(note, int | float) and not isinstance(note, bool):
        return abs(float(note)) if math.isfinite(note) else None
    measured = found.get(name)
    return abs(measured.value) if measured is not None and measured.value is not None else None


def ranged(values: Sequence[float]) -> str:
    """The smallest and the largest to two digits, or one where both read the same."""
    low, high = exact(min(values), 2), exact(max(values), 2)
    return low if low == high else f"{low} to {high}"


def decades(factor: float) -> float:
    """Decimal logarithm of a factor; 9 for an infinite one, 0 for none."""
    if math.isinf(factor):
        return 9.0
    return math.log10(factor) if factor > 0 else 0.0


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Those figures that are finite."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}
