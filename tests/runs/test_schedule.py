"""Schedules: which requests make up each edit, and where is measured."""

from __future__ import annotations

from typing import Any

import pytest

from editsafety.errors import UsageError
from editsafety.runs.schedule import Kind, Schedule


def portions(schedule: Schedule, requests: int) -> list[list[int]]:
    return [list(portion) for portion in schedule.portions(requests)]


@pytest.mark.parametrize("kind", ["single", "sequential"])
def test_single_and_sequential_deal_one_by_one(kind: Kind) -> None:
    assert portions(Schedule(kind), 3) == [[0], [1], [2]]


def test_batches_begin_at_the_first_request_and_one_that_is_too_large_takes_all_once() -> None:
    assert portions(Schedule("batch", (1, 3, 10, 20)), 5) == [[0], [0, 1, 2], [0, 1, 2, 3, 4]]
    assert portions(Schedule("batch-sequential", (3,)), 7) == [[0, 1, 2], [3, 4, 5], [6]]
    assert portions(Schedule("batch", (4,)), 0) == []


def test_a_course_is_measured_every_so_many_requests_and_at_its_end() -> None:
    def measured(schedule: Schedule, requests: int) -> list[int]:
        last, found = 0, []
        for portion in schedule.portions(requests):
            if schedule.is_measured(portion.stop, last, requests):
                last = portion.stop
                found.append(last)
        return found

    assert measured(Schedule("sequential", every=3), 7) == [3, 6, 7]
    assert measured(Schedule("batch-sequential", (4,), every=6), 13) == [8, 13]
    assert measured(Schedule("batch", (1, 5), every=100), 7) == [1, 5]
    assert measured(Schedule("single", every=100), 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("parallel", {}, "there is no schedule 'parallel'"),
        ("sequential", {"every": 0}, "must be at least 1"),
        ("batch", {"sizes": ()}, "must be at least 1"),
        ("batch", {"sizes": (3, 0)}, "must be at least 1"),
        ("sequential", {"sizes": (2,)}, "writes one request an edit"),
        ("batch-sequential", {"sizes": (2, 3)}, "takes one size of batch"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Schedule(kind, **more)


@pytest.mark.parametrize("kind", ["single", "sequential", "batch", "batch-sequential"])
def test_a_schedule_comes_back_from_json(kind: Kind) -> None:
    schedule = Schedule(kind, (4,) if kind.startswith("batch") else (1,), 5)
    assert Schedule.from_json(schedule.as_json()) == schedule
    assert schedule.cumulative == kind.endswith("sequential")


def test_only_edits_that_do_not_build_on_others_go_into_the_unedited_model() -> None:
    assert list(Schedule("single").on_unedited(1)) == [range(1)]
    assert list(Schedule("batch", (1, 3)).on_unedited(5)) == [range(1), range(3)]
    assert list(Schedule("sequential").on_unedited(5)) == [range(1)]
    assert list(Schedule("batch-sequential", (3,)).on_unedited(5)) == [range(3)]


@pytest.mark.parametrize(
    ("kind", "suite", "one", "ten"),
    [
        ("single", "collapse", "1 edit", "10 edits"),
        ("sequential", "sequential", "1 edit", "10 edits"),
        ("batch", "batch", "a batch of 1 edit", "a batch of 10 edits"),
        ("batch-sequential", "batch", "1 edit", "10 edits"),
    ],
)
def test_a_schedule_says_its_edits_in_words_and_which_suite_judges_it(
    kind: Kind, suite: str, one: str, ten: str
) -> None:
    schedule = Schedule(kind)
    assert (schedule.suite, schedule.said(1), schedule.said(10)) == (suite, one, ten)
    assert schedule.axis == ("edits so far" if schedule.cumulative else "facts in one edit")
