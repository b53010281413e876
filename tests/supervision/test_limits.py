"""How long a supervised lab may take."""

from __future__ import annotations

import pytest

from editsafety.lab.watch import Sign
from editsafety.outside.program import PATIENCE
from editsafety.supervision.limits import FLOOR, PREPARING, PROGRAM, Limits

CASE = Sign("running", "m", "e", "m-e-1", "k")
COURSE = Sign("running", "m", "e", "m-e-hard-sequential", "k", requests=10)


def test_before_its_first_case_an_editor_may_take_as_long_as_measuring_5000_texts() -> None:
    assert Limits(None).of(CASE, per_text=0.05) == 250.0
    assert Limits(None).of(Sign("making", "m", "e"), per_text=0.05) == 250.0


def test_afterwards_20_times_its_slowest_case_and_never_less_than_a_minute() -> None:
    limits = Limits(None)
    limits.learn(CASE, 5.0)
    limits.learn(CASE, 3.0)
    assert limits.of(CASE, per_text=2.0) == 100.0
    assert limits.of(Sign("running", "m", "other", "m-other-1", "k"), per_text=0.001) == FLOOR == 60.0


def test_a_step_of_a_course_counts_for_its_requests_and_is_no_measure_for_single_edits() -> None:
    limits = Limits(None)
    limits.learn(COURSE, 50.0)
    assert limits.of(COURSE, per_text=0.0) == 20 * 5.0 * 10
    assert limits.of(CASE, per_text=0.0) == FLOOR


def test_an_edit_for_no_record_is_not_learned_from() -> None:
    limits = Limits(None)
    limits.learn(Sign("running", "m", "e", "m-e-1"), 50.0)
    assert limits.of(CASE, per_text=0.0) == FLOOR


@pytest.mark.parametrize("sign", [Sign(), Sign("loading", "m")])
def test_waiting_and_loading_have_no_limit(sign: Sign) -> None:
    assert Limits(1.0).of(sign, per_text=0.0) is None


def test_what_was_given_holds_as_it_is_and_0_is_no_limit() -> None:
    assert Limits(1.5).of(CASE, per_text=9.0) == 1.5
    assert Limits(1.5).of(COURSE, per_text=9.0) == 1.5
    assert Limits(1.5).of(Sign("preparing", "m", "e"), per_text=9.0) == PREPARING
    for doing in ("making", "preparing", "running"):
        assert Limits(0).of(Sign(doing, "m", "e"), per_text=9.0) is None


def test_a_program_is_given_longer_than_it_takes_before_it_stops_itself() -> None:
    name = "command: python edit.py {model} {requests} {out}"
    for editor in (name, f"rect({name})"):
        assert Limits(None).of(Sign("running", "m", editor, "c", "k"), per_text=0.0) == PROGRAM > PATIENCE
        assert Limits(None).of(Sign("running", "m", editor, "c", "k", requests=10), per_text=0.0) == 10 * PROGRAM
    assert Limits(30.0).of(Sign("running", "m", name, "c", "k"), per_text=0.0) == 30.0
