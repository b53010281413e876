"""Spelling: numbers for people. Never so short that a figure seems to be on the other side of its limit. No torch."""

from __future__ import annotations

import math


def times(ratio: float | None) -> str:
    """A perplexity ratio: 1.02x, 526x, 1.3e6x, or what is the matter."""
    if ratio is None:
        return "-"
    if not math.isfinite(ratio):
        return "not finite"
    if ratio < 9.995:
        return f"{ratio:.2f}x" if ratio >= 0.005 else "<0.01x"
    return f"{ratio:.0f}x" if ratio < 99_999.5 else f"{_short(ratio, 1)}x"


def span(ratios: list[float]) -> str:
    """The smallest and the largest ratio: `1.00x to 526x`, or one where both read the same."""
    low, high = times(min(ratios)), times(max(ratios))
    return low if low == high else f"{low} to {high}"


def rate(value: float | None) -> str:
    """A rate to two places, rounded down: 0.899 must not look like 0.90, nor 0.996 like all."""
    return "-" if value is None else f"{math.floor(value * 100 + 1e-9) / 100:.2f}"


def number(value: float | None, digits: int = 2) -> str:
    """A positive number in a few characters: 0.11, 87, 1.9e4."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "inf"
    if value == 0 or 0.01 <= abs(value) < 999.5:
        return f"{value:.{digits}f}" if abs(value) < 9.995 else f"{value:.{digits - 2}f}"
    return _short(value, digits - 1)


def exact(value: float, digits: int = 4) -> str:
    """A number to so many significant digits: 51.2, 26952, 1.32e6."""
    if value != 0 and not 1e-4 <= abs(value) < 10.0**6:
        return _short(value, digits - 1)
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def counting(count: int, kind: str = "") -> str:
    """A number of cases: 1 case, 84 hard cases."""
    return many(count, f"{kind}case")


def many(count: int, thing: str) -> str:
    """So many of a thing: 1 core, 2 cores."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def in_bytes(size: float) -> str:
    """A number of bytes: 12 MiB, 1.5 GiB."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def duration(seconds: float) -> str:
    """How long something takes: 18 s, 12 min, 3.5 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def pace(rate: float) -> str:
    """How fast steps are done, `rate` a second: 12.3/s, or 41 s each where one takes long."""
    return f"{rate:.1f}/s" if rate >= 0.15 else f"{duration(1 / rate)} each"


def _short(value: float, places: int) -> str:
    mantissa, exponent = f"{value:.{places}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
