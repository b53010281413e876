"""Measurement: a value or a reason, never both, never a stand-in number."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import pytest

from editsafety.runs.measurement import Measurement, wilson

NAN, INF = math.nan, math.inf


def test_a_measurement_has_a_value_or_a_reason_and_not_both() -> None:
    Measurement("m", 1, "nats", 0.0)
    Measurement("m", 1, "nats", None, "no items")
    for value, reason in ((None, None), (1.0, "but")):
        with pytest.raises(ValueError, match="needs a value or a reason, and not both"):
            Measurement("m", 1, "nats", value, reason)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_value_that_is_not_finite_is_no_value(value: float) -> None:
    with pytest.raises(ValueError, match="is no value; give None, a reason and broken=True"):
        Measurement("m", 1, "nats", value)
    with pytest.raises(ValueError, match="not finite"):
        Measurement("m", 1, "nats", 1.0, items=(1.0, value))
    with pytest.raises(ValueError, match="not finite"):
        Measurement("m", 1, "nats", 1.0, stderr=value)


def test_mean_and_standard_error_are_those_of_the_items() -> None:
    """Expected: statistics.mean and stdev / sqrt(n) of the standard library."""
    items = [1.0, 2.5, 2.5, 7.25]
    found = Measurement.mean_of("m", 1, "nats", items, answers=["a", "b", "c", "d"])
    assert found.value == statistics.mean(items)
    assert found.stderr == pytest.approx(statistics.stdev(items) / 2)
    assert (found.n, found.items, found.answers) == (4, tuple(items), ("a", "b", "c", "d"))
    assert not found.broken


def test_one_item_has_a_mean_and_no_standard_error() -> None:
    found = Measurement.mean_of("m", 1, "nats", [3.0])
    assert (found.value, found.stderr, found.n) == (3.0, None, 1)


def test_no_items_are_a_reason_and_not_zero() -> None:
    found = Measurement.mean_of("m", 1, "nats", [])
    assert found.value is None
    assert found.reason == "no items to measure"
    assert not found.broken


@pytest.mark.parametrize("bad", [[NAN], [INF], [-INF], [INF, -INF], [NAN, INF]])
def test_items_that_are_not_finite_break_the_measurement_and_are_counted(bad: list[float]) -> None:
    found = Measurement.mean_of("m", 1, "nats", [1.0, *bad, 2.0])
    assert found.value is None
    assert found.broken
    assert found.reason == f"{len(bad)} of {len(bad) + 2} items are not finite"
    assert found.items == (1.0, *[None] * len(bad), 2.0)
    assert found.n == len(bad) + 2


def test_a_mean_that_overflows_is_broken_too() -> None:
    found = Measurement.mean_of("m", 1, "ppl", [1e308, 1e308, 1e308])
    assert (found.value, found.reason, found.broken) == (None, "the mean overflows", True)


def test_the_spread_of_a_collapsed_models_perplexities_does_not_overflow() -> None:
    """The squares of 1e200 do; expected by hand: two items a and b have the standard error |a - b| / 2."""
    found = Measurement.mean_of("m", 1, "ppl", [1e200, 3e200])
    assert found.value == 2e200
    assert found.stderr == pytest.approx(1e200)
    assert Measurement.mean_of("m", 1, "ppl", [5.0, 5.0]).stderr == 0.0
    assert Measurement.mean_of("m", 1, "ppl", [1e-200, 3e-200]).stderr == pytest.approx(1e-200)


@pytest.mark.parametrize(
    "found",
    [
        Measurement("m", 3, "nats", 0.0, n=2, stderr=0.0, items=(0.0, 0.0), answers=("", "x")),
        Measurement("m", 0, "", 1.5),
        Measurement.missing("m", 1, "nats", "why", broken=True, n=3, items=(None, 1.0, None)),
        Measurement.mean_of("m", 1, "nats", [1.0, NAN]),
        Measurement.mean_of("m", 1, "nats", []),
    ],
)
def test_a_measurement_survives_json_without_nan(found: Measurement) -> None:
    row: dict[str, Any] = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert Measurement.from_json(row) == found
    assert "value" in row


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson score without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_agree_with_newcombes_table(successes: int, n: int, low: float, high: float) -> None:
    found = wilson(successes, n, z=1.959964)
    assert found == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(n - successes, n, z=1.959964)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_of_nothing_is_everything_and_of_nonsense_an_error() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    for successes, n in ((-1, 5), (6, 5), (1, 0)):
        with pytest.raises(ValueError, match="cannot be"):
            wilson(successes, n)
