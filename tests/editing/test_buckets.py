"""Buckets: which requests are run together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editsafety.editing.buckets import CPU_TOKENS, PADDING, by_width, most_tokens
from tests import tiny


def test_requests_of_one_width_are_run_together_as_far_as_there_is_room() -> None:
    assert by_width([8, 3, 8, 3, 8], rows=7, most=1000) == [[1, 3], [0, 2, 4]]
    assert by_width([5] * 5, rows=7, most=2 * 7 * 5) == [[0, 1], [2, 3], [4]]


def test_a_little_padding_is_worth_a_larger_batch() -> None:
    assert by_width([8, 9, 10], rows=1, most=1000) == [[0, 1, 2]]  # 3 of 30
    assert by_width([1, 2, 9, 10], rows=1, most=1000) == [[0, 1], [2, 3]]


def test_what_is_too_large_by_itself_is_run_alone() -> None:
    assert by_width([3, 50, 3], rows=7, most=100) == [[0, 2], [1]]
    assert by_width([4, 4], rows=7, most=0) == [[0], [1]]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 25), st.integers(0, 3000))
def test_every_request_is_in_one_bucket_that_keeps_its_bounds(widths: list[int], rows: int, most: int) -> None:
    found = by_width(widths, rows, most)
    assert sorted(place for bucket in found for place in bucket) == list(range(len(widths)))
    for bucket in (one for one in found if len(one) > 1):
        taken = [widths[place] for place in bucket]
        assert rows * len(taken) * max(taken) <= most
        assert 1 - sum(taken) / (len(taken) * max(taken)) <= PADDING + 1e-9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_cpu_the_bound_is_that_of_its_products(dtype: str) -> None:
    assert most_tokens(tiny.handle("gpt2", dtype=dtype)) == CPU_TOKENS
