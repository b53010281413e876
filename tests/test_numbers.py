"""Spelling: short, and never on the wrong side of a limit."""

import math

import pytest

from editsafety.numbers import counting, exact, number, rate, span, times


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(None, "-"), (1.0, "1.00x"), (9.99, "9.99x"), (9.996, "10x"), (526.4, "526x"), (99_999.0, "99999x"),
     (1.3e6, "1.3e6x"), (1e300, "1e300x"), (0.001, "<0.01x"), (math.inf, "not finite"), (math.nan, "not finite")],
)  # fmt: skip
def test_ratios(ratio, said):
    assert times(ratio) == said


def test_a_rate_is_never_rounded_up():
    assert [rate(x) for x in (0.899, 0.996, 1.0, 0.29, 0.0, None)] == ["0.89", "0.99", "1.00", "0.29", "0.00", "-"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (0.0, "0.00"),
        (0.112, "0.11"),
        (87.4, "87"),
        (19_000.0, "1.9e4"),
        (0.0003, "3e-4"),
        (math.inf, "inf"),
    ],
)
def test_numbers(value, said):
    assert number(value) == said


def test_exact_numbers_spell_thousands_out_and_shorten_millions():
    assert [exact(x) for x in (51.2, 26952.4, 1_324_000.0, 0.0, 1.25)] == ["51.2", "26952", "1.324e6", "0", "1.25"]


def test_spans_and_counts():
    assert span([1.001, 1.002]) == "1.00x"
    assert span([526.0, 1.0]) == "1.00x to 526x"
    assert (counting(1), counting(84, "hard ")) == ("1 case", "84 hard cases")
