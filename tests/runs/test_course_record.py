"""CourseRecord: what was found along a course, and that nothing of it is lost or made to look better in the store."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from editsafety.runs.case_record import Failure
from editsafety.runs.course_record import Breaking, CourseRecord, Step
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Schedule
from tests import tiny


def perplexity(value: float | None) -> dict[str, Measurement]:
    if value is None:
        return {"me_ppl": Measurement.missing("me_ppl", 1, "perplexity", "not finite", broken=True, n=2)}
    return {"me_ppl": Measurement("me_ppl", 1, "perplexity", value, n=2, stderr=0.5, items=(value, None))}


def record(*values: float | None, **more: object) -> CourseRecord:
    steps = tuple(
        Step(i, (f"case-{i}",), perplexity(value), {"steps": 3.0, "size": math.inf, "first": True}, 0.1, 5)
        for i, value in enumerate(values, 1)
    )
    whole = CourseRecord("id", "m", "e", "hard", Schedule("sequential"), 9, perplexity(10.0), steps)
    return replace(whole, **more)  # type: ignore[arg-type]


BREAKING = Breaking(
    2, (tiny.request(),), math.inf, 1.1, None, "ab", "breaking/x", {"denominator": 0.001, "nll": math.nan}
)


def test_ratios_are_those_to_the_unedited_model_and_the_worst_is_the_running_maximum() -> None:
    found = record(11.0, 50.0, 12.0)
    assert found.ratios == pytest.approx((1.1, 5.0, 1.2))
    assert found.worst == 5.0
    assert (found.breaks_at(2.0), found.breaks_at(1.0), found.breaks_at(9.0)) == (2, 1, None)


def test_what_is_not_a_number_is_broken_and_what_was_not_measured_never_stands() -> None:
    found = record(11.0, None, 12.0)
    assert found.ratios[1] == math.inf
    assert (found.worst, found.breaks_at(1e300)) == (math.inf, 2)
    unmeasured = replace(found, steps=(replace(found.steps[0], found={}), found.steps[2]))
    assert unmeasured.ratios[0] is None
    assert unmeasured.ratios[1] == pytest.approx(1.2)
    assert unmeasured.breaks_at(2.0) == 1
    assert record().worst is None
    assert record(11.0, before={}).ratios == (None,)
    assert record(11.0, before=perplexity(0.0)).ratios == (math.inf,)


def test_a_record_comes_back_from_its_text_and_every_number_in_it_is_finite() -> None:
    failed = Failure("editor", "e failed", "x.py:3")
    found = record(11.0, None, breaking=BREAKING, failure=failed, ended="failed", remarks=("begun again",))
    text = found.to_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    back = CourseRecord.from_text(text)
    assert back.to_text() == text
    assert back.steps[0].found == found.steps[0].found
    assert back.steps[0].notes == {"steps": 3.0, "size": "inf", "first": True}
    assert back.breaking is not None
    assert (back.breaking.ratio, back.breaking.ratio_before, back.breaking.alone) == (math.inf, 1.1, None)
    assert back.breaking.requests == BREAKING.requests
    assert (back.failure, back.ended, back.remarks) == (failed, "failed", ("begun again",))


def test_a_record_of_an_earlier_writer_without_remarks_is_read() -> None:
    body = json.loads(record(11.0).to_text())
    del body["remarks"]
    assert CourseRecord.from_text(json.dumps(body)) == CourseRecord.from_text(record(11.0).to_text())


@pytest.mark.parametrize("harm", ["[]", "{}", "schema", "steps", "schedule", "stranger"])
def test_anything_else_is_refused(harm: str) -> None:
    body = json.loads(record(11.0, breaking=BREAKING).to_text())
    if harm == "schema":
        body["schema"] = 99
    elif harm == "stranger":
        body["stranger"] = 1
    elif harm == "schedule":
        body["schedule"]["kind"] = "parallel"
    elif harm == "steps":
        del body["steps"][0]["found"]
    with pytest.raises(ValueError, match="record"):
        CourseRecord.from_text(harm if harm in ("[]", "{}") else json.dumps(body))


def test_a_record_can_be_taken_back_to_an_earlier_step() -> None:
    found = record(11.0, 50.0, 12.0, breaking=BREAKING, ended="complete")
    assert found.up_to(2).breaking == BREAKING
    assert (found.up_to(1).breaking, found.up_to(1).ended, len(found.up_to(1).steps)) == (None, "", 1)
    assert found.up_to(0).steps == ()
    assert found.plus(found.steps[0]).steps[-1] == found.steps[0]
    assert found.remarked("a", "b", "a").remarked("b").remarks == ("a", "b")
