"""Case: what it is called, and what its result is found by."""

from __future__ import annotations

from dataclasses import replace

from editsafety.runs.case import Case
from editsafety.runs.schedule import Schedule
from tests import tiny

REQUESTS = tuple(tiny.request(f"case-{i}") for i in range(7))
SINGLE = Case("org/Pocket-Neo", "rect(memit)", "hard", REQUESTS[:1])
COURSE = Case("org/Pocket-Neo", "rect(memit)", "hard", REQUESTS, Schedule("sequential"))


def test_a_single_edit_is_called_after_its_request_and_a_course_after_its_schedule() -> None:
    assert SINGLE.id == "pocket-neo-rect.memit-case-0"
    assert COURSE.id == "pocket-neo-rect.memit-hard-sequential"
    assert replace(COURSE, schedule=Schedule("batch", (3,))).id == "pocket-neo-rect.memit-hard-batch"


def test_an_id_can_be_a_test_id_and_a_file_name_whatever_the_request_is_called() -> None:
    odd = replace(SINGLE, editor="some/file.py:Mine", requests=(replace(REQUESTS[0], id="Who? / where::1 ☃"),))
    assert odd.id.startswith("pocket-neo-Mine-")
    assert not set(odd.id) & set("/:? ☃")


def test_the_id_does_not_tell_controls_and_probed_cases_from_the_others() -> None:
    assert replace(SINGLE, control="COLLAPSE").id == replace(SINGLE, probed=True).id == SINGLE.id


def test_only_one_request_on_the_unedited_model_is_no_course() -> None:
    assert not SINGLE.is_course
    assert COURSE.is_course
    assert replace(COURSE, requests=REQUESTS[:1]).is_course, "a course of one request is one still"
    assert (SINGLE.request, COURSE.request) == (REQUESTS[0], REQUESTS[0])
    assert SINGLE.block == COURSE.block == ("org/Pocket-Neo", "rect(memit)")


def test_a_case_has_another_digest_for_other_requests_another_order_or_another_schedule() -> None:
    others = [
        replace(COURSE, requests=REQUESTS[::-1]),
        replace(COURSE, requests=REQUESTS[:-1]),
        replace(COURSE, requests=(replace(REQUESTS[0], target_new="guard"), *REQUESTS[1:])),
        replace(COURSE, schedule=Schedule("sequential", every=2)),
        replace(COURSE, schedule=Schedule("batch-sequential", (1,))),
    ]
    assert len({case.digest() for case in (COURSE, *others)}) == 6
    assert replace(COURSE, stream="normal", control="PASS").digest() == COURSE.digest()


def test_a_case_has_another_key_for_everything_that_makes_it_another() -> None:
    others = [
        replace(COURSE, requests=REQUESTS[::-1]),
        replace(COURSE, requests=REQUESTS[:-1]),
        replace(COURSE, schedule=Schedule("sequential", every=2)),
        replace(COURSE, stream="normal"),
        replace(COURSE, editor="memit"),
        replace(COURSE, model="pocket-qwen"),
        SINGLE,
    ]
    assert len({case.key("shared") for case in (COURSE, *others)}) == 8
    assert COURSE.key("shared") == replace(COURSE).key("shared") != COURSE.key("other")


def test_where_a_request_was_read_from_does_not_make_it_another_case() -> None:
    moved = replace(SINGLE, requests=(replace(REQUESTS[0], source="elsewhere.jsonl:9"),))
    assert (moved.id, moved.digest(), moved.key("shared")) == (SINGLE.id, SINGLE.digest(), SINGLE.key("shared"))
