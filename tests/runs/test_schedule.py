"""Schedules: which requests make up each edit, and where is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from editsafety.errors import UsageError
from editsafety.runs.schedule import Course, Kind, Schedule
from tests import tiny

REQUESTS = tuple(tiny.request(f"case-{i}") for i in range(7))


def portions(schedule: Schedule, requests: int) -> list[list[int]]:
    return [list(portion) for portion in schedule.portions(requests)]


def test_single_and_sequential_deal_one_by_one() -> None:
    for kind in ("single", "sequential"):
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


def test_a_course_has_a_readable_id_and_another_key_for_everything_that_makes_it_another() -> None:
    course = Course("org/Pocket-Neo", "rect(memit)", "hard", Schedule("sequential"), REQUESTS)
    assert course.id == "pocket-neo-rect.memit-hard-sequential"
    assert course.block == ("org/Pocket-Neo", "rect(memit)")
    others = [
        replace(course, requests=REQUESTS[::-1]),
        replace(course, requests=REQUESTS[:-1]),
        replace(course, schedule=Schedule("sequential", every=2)),
        replace(course, stream="normal"),
        replace(course, editor="memit"),
    ]
    keys = {one.key("shared") for one in (course, *others)}
    assert len(keys) == 6
    assert course.key("shared") == replace(course).key("shared") != course.key("other")
