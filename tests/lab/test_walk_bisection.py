"""Bisection: the edit that crosses the limit is found in few looks."""

from __future__ import annotations

import math

import pytest

from editsafety.lab.walk_bisection import crossing


@pytest.mark.parametrize("count", range(1, 10))
def test_bisection_finds_every_crossing_in_log_many_looks(count: int) -> None:
    for at in range(1, count + 1):
        asked: list[int] = []

        def ratio(k: int, at: int = at, asked: list[int] = asked) -> float:
            asked.append(k)
            return 3.0 + k if k >= at else 1.0 + k / 100

        found = crossing(count, ratio, limit=2.0, fine=1.0, broken=3.0 + count)
        assert (found[0], found[2]) == (at, 3.0 + at)
        assert found[1] == pytest.approx(1.0 + (at - 1) / 100)
        assert len(asked) <= math.ceil(math.log2(count))


def test_where_perplexity_falls_again_bisection_still_finds_an_edit_that_takes_it_past_the_limit() -> None:
    ratios = [1.0, 1.1, 9.0, 1.2, 1.3, 1.4, math.nan, 8.0]
    at, fine, broken = crossing(7, lambda k: ratios[k], limit=2.0, fine=1.0, broken=8.0)
    assert fine == ratios[at - 1] <= 2.0
    assert not ratios[at] <= 2.0
    assert math.isnan(broken)
