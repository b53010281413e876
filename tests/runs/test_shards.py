"""Shards: every case is in exactly one part, and which one follows from the plan alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editsafety.errors import UsageError
from editsafety.runs.shards import WHOLE, Shard
from tests import builders

CASES = [
    builders.case_of(editor, stream, number)
    for editor in ("rome", "ft")
    for stream, count in (("hard", 5), ("normal", 3))
    for number in range(count)
]


def parts(count: int) -> list[Shard]:
    return [Shard(number, count) for number in range(1, count + 1)]


@given(st.integers(1, 20))
def test_every_edit_and_every_other_thing_is_in_exactly_one_part(count: int) -> None:
    edits = [case for shard in parts(count) for case in shard.edits(CASES)]
    assert len(edits) == len(CASES)
    assert set(edits) == set(CASES)
    things = [thing for shard in parts(count) for thing in shard.share(range(7))]
    assert sorted(things) == list(range(7))


@given(st.integers(1, 20))
def test_all_editors_of_a_request_are_in_the_same_part(count: int) -> None:
    for shard in parts(count):
        of = {e: [c.request.id for c in shard.edits(CASES) if c.editor == e] for e in ("rome", "ft")}
        assert of["rome"] == of["ft"]


def test_parts_are_of_equal_size_up_to_one_request_and_keep_the_order_of_the_plan() -> None:
    assert [len(shard.edits(CASES)) for shard in parts(3)] == [6, 6, 4]
    first = Shard(1, 3).edits(CASES)
    assert first == [case for case in CASES if case in first]


def test_the_whole_run_leaves_nothing_to_others() -> None:
    assert Shard.parse(None) == WHOLE == Shard.parse("1/1")
    assert WHOLE.edits(CASES) == CASES
    assert WHOLE.is_whole
    assert not Shard.parse(" 2/3 ").is_whole
    assert str(Shard.parse("2/3")) == "2/3"


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/0", "2", "a/b", "1/3/5", "-1/3", "1.5/3", "²/3"])
def test_what_is_no_part_of_anything_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a part of the run"):
        Shard.parse(text)
