"""What is known about an edit and about those beside it, and what a cause is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True, slots=True)
class Usual:
    """The sizes of a figure of the edits that stay: the smallest, the median, the largest."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        """The smallest and the largest to two digits, or one where both read the same."""
        low, high = exact(self.low, 2), exact(self.high, 2)
        return low if low == high else f"{low} to {high}"


class Beside:
    """The edits that stay, by notes and measurements: of each figure that is asked for what is usual, found once.

    All collapses of a group are compared with the same edits, so it takes time as these do, and not as their product.
    """

    def __init__(self, edits: Iterable[tuple[Mapping[str, object], Mapping[str, Measurement]]] = ()) -> None:
        self._edits = tuple(edits)
        self._known: dict[str, Usual | None] = {}

    def usual(self, name: str) -> Usual | None:
        """Of those that have the figure; None where none has."""
        if name not in self._known:
            sizes = [x for notes, found in self._edits if (x := signal(notes, found, name)) is not None]
            self._known[name] = Usual(min(sizes), statistics.median(sizes), max(sizes)) if sizes else None
        return self._known[name]


@dataclass(frozen=True)
class Evidence:
    """What is known about the edit in question, and about those of its group that stay."""

    notes: Mapping[str, object]
    found: Mapping[str, Measurement]
    stays: Beside
    changed: bool = True

    def own(self, name: str) -> float | None:
        """The size of a figure of this edit, or None."""
        return signal(self.notes, self.found, name)

    def usual(self, name: str) -> Usual | None:
        """The sizes of a figure of the edits that stay; None where none of them has it."""
        return self.stays.usual(name)

    def contrast(self, name: str) -> float | None:
        """How many times the usual figure this one is (1 = as usual); None where there is nothing to compare."""
        own, usual = self.own(name), self.usual(name)
        return own / usual.middle if own is not None and usual is not None and usual.middle > 0 else None

    def figures(self, *names: str) -> Figures:
        """The named figures, those of the first one also of the edits that stay."""
        told = {name: own for name in names if (own := self.own(name)) is not None}
        usual = self.usual(names[0])
        return told if usual is None else {**told, "usual_low": usual.low, "usual_high": usual.high}

    def beside(self, name: str) -> str:
        """`0.003 where edits that stay have 1.1 to 1.6`; without the latter where none stays.

        An edit that stays may have as little as this one has (a hard request that did no harm): then their median
        shows what sets this one apart.
        """
        own, usual = self.own(name), self.usual(name)
        said = "-" if own is None else exact(own, 2)
        if usual is None:
            return said
        within = own is not None and usual.low <= own <= usual.high and usual.low < usual.high
        theirs = f"a median of {exact(usual.middle, 2)} ({usual})" if within else f"{usual}"
        return f"{said} where edits that stay have {theirs}"

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


def decades(factor: float) -> float:
    """Decimal logarithm of a factor; 9 for an infinite one, 0 for none."""
    if math.isinf(factor):
        return 9.0
    return math.log10(factor) if factor > 0 else 0.0


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Those figures that are finite."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}
