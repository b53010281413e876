"""Plot: a chart as plain values, in the units of its own view box. The template draws any of them; no script is needed.

A chart is 360 units wide and is shown about as wide in pixels, on a phone as on a desk: several stand side by side
where there is room, so that no text ever shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 360
CEILING = 1e6  # perplexity ratios above it, or no number, are drawn here
FLOOR = 0.1
LOOKS = 8  # series that can be told apart: by colour, and by shape or dash


@dataclass(frozen=True, slots=True)
class Tick:
    """A number of an axis, and where it stands."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line; `look` is its class in the style sheet."""

    path: str
    look: str


@dataclass(frozen=True, slots=True)
class Cloud:
    """Points as one path, each of them a case: the first one's place in the table of cases, the rest follow."""

    path: str
    look: str
    first: int


@dataclass(frozen=True, slots=True)
class PlotMark:
    """A single point, with what is said of it."""

    x: float
    y: float
    shape: str  # "dot", "ring", "cross", "square"
    look: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A word inside of the chart."""

    x: float
    y: float
    text: str
    look: str = "note"
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class PlotBar:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    look: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class PlotFrame:
    """The place of the data inside a chart."""

    left: float = 46
    top: float = 24
    right: float = 348
    bottom: float = 188


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart."""

    title: str
    said: str  # the chart in a sentence, for those who cannot see it
    frame: PlotFrame
    xs: tuple[Tick, ...] = ()
    ys: tuple[Tick, ...] = ()
    x_name: str = ""
    y_name: str = ""
    rules: tuple[Label, ...] = ()  # horizontal lines across the frame, with their names
    bars: tuple[PlotBar, ...] = ()
    strokes: tuple[Stroke, ...] = ()
    clouds: tuple[Cloud, ...] = ()
    marks: tuple[PlotMark, ...] = ()
    labels: tuple[Label, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()  # look and name of every series
    verdict: str = ""

    @property
    def height(self) -> float:
        """Of the view box."""
        below = any(label.y > self.frame.bottom for label in self.labels)
        return self.frame.bottom + (38 if self.x_name else 24 if self.xs or below else 10)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value stands; what is outside stands at the edge."""
        kept = min(max(value, self.low), self.high) if value == value else self.high
        low, high, here = (math.log10(one) for one in (self.low, self.high, kept)) if self.log else (
            self.low, self.high, kept
        )  # fmt: skip
        share = (here - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, text: str = "{:g}") -> tuple[Tick, ...]:
        """A few round numbers: powers of ten, or steps of 1, 2 or 5 of them."""
        return tuple(Tick(self.at(value), text.format(value)) for value in self._round_numbers())

    def _round_numbers(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first + 1) / 7))
            return [10.0**power for power in range(first, last + 1, step)]
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = 10 ** math.floor(math.log10(span / 4))
        step = next(size * rough for size in (1, 2, 5, 10) if span / (size * rough) <= 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 10) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def ratio_scale(ratios: Iterable[float | None], start: float, end: float) -> Scale:
    """Logarithmic, wide enough for these perplexity ratios and never narrower than 1x to 10x."""
    known = [min(max(one, FLOOR), CEILING) if one == one else CEILING for one in ratios if one is not None]
    high = 10.0 ** math.ceil(math.log10(max([10.0, *known])) - 1e-9)
    low = min([0.9, *known])
    return Scale(0.9 if low > 0.8 else max(FLOOR, low * 0.9), high * 1.25, start, end, log=True)


def ratio_text(value: float) -> str:
    """The number of an axis of perplexity ratios: 1x, 1,000x, 1e6x."""
    return f"{value:,.0f}x" if 1 <= value < 1e5 else f"{value:g}x".replace("e+0", "e")


def ratio_ticks(scale: Scale) -> tuple[Tick, ...]:
    """The numbers of such an axis."""
    return tuple(Tick(tick.at, ratio_text(float(tick.text))) for tick in scale.ticks())


def path(points: Sequence[tuple[float, float]]) -> str:
    """A line through points."""
    return "".join(f"{'L' if number else 'M'}{x:g} {y:g}" for number, (x, y) in enumerate(points))


def dots(points: Iterable[tuple[float, float]]) -> str:
    """Points as strokes of no length, which round or square caps make visible: ten bytes each."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)


def look(number: int) -> str:
    """The class of a series."""
    return f"s{number % LOOKS}"
