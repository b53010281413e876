"""CaseRecord: what is kept is what was found, step by step, and nothing of it is made to look better in the store."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from editsafety.runs.case import Case
from editsafety.runs.case_record import Breaking, CaseRecord, Cost, Failure, Step
from editsafety.runs.measurement import Measurement
from editsafety.runs.schedule import Schedule
from tests import builders, tiny


def perplexity(value: float | None) -> dict[str, Measurement]:
    if value is None:
        return {"me_ppl": Measurement.missing("me_ppl", 1, "perplexity", "not finite", broken=True, n=2)}
    return {"me_ppl": Measurement("me_ppl", 1, "perplexity", value, n=2, stderr=0.5, items=(value, None))}


def course(*values: float | None, **more: Any) -> CaseRecord:
    """A course of nine requests, measured after each of the first ones."""
    notes: dict[str, float | str | bool] = {"steps": 3.0, "size": math.inf, "first": True}
    steps = tuple(
        Step(i, (f"case-{i}",), perplexity(value), notes, Cost(edit=0.1, edit_bytes=5))
        for i, value in enumerate(values, 1)
    )
    requests = tuple(tiny.request(f"case-{i}") for i in range(1, 10))
    case = Case("m", "e", "hard", requests, Schedule("sequential"))
    return CaseRecord.begun(case, "m", "e", **{"before": perplexity(10.0), "steps": steps, **more})


BREAKING = Breaking(
    2, (tiny.request(),), math.inf, 1.1, None, "ab", "breaking/x", {"denominator": 0.001, "nll": math.nan}
)


def test_a_record_comes_back_as_it_was() -> None:
    record = builders.record("rome", "hard", 3, ratio=526.0, leftovers=("a hook",), undeclared=("wte",))
    assert CaseRecord.from_text(record.to_text()) == replace(record, requests=(replace(record.requests[0], source=""),))


def test_a_course_comes_back_from_its_text_and_every_number_in_it_is_finite() -> None:
    failed = Failure("editor", "e failed", "x.py:3")
    more = {"abilities": ("nli",), "remarks": ("begun again",)}
    found = course(11.0, None, breaking=BREAKING, failure=failed, ended="failed", **more)
    text = found.to_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    back = CaseRecord.from_text(text)
    assert back.to_text() == text
    assert back.steps[0].found == found.steps[0].found
    assert back.steps[0].notes == {"steps": 3.0, "size": "inf", "first": True}
    assert back.steps[0].cost == Cost(edit=0.1, edit_bytes=5)
    assert (back.schedule, back.planned, back.abilities) == (Schedule("sequential"), 9, ("nli",))
    assert back.breaking is not None
    assert (back.breaking.ratio, back.breaking.ratio_before, back.breaking.alone) == (math.inf, 1.1, None)
    assert back.breaking.requests == BREAKING.requests
    assert (back.failure, back.ended, back.remarks) == (failed, "failed", ("begun again",))


def test_a_failure_comes_back_with_its_place_and_with_what_was_changed_unsaid() -> None:
    record = builders.failed("rome", "hard", 3, kind="oom", message="rome failed: out of memory")
    assert CaseRecord.from_text(record.to_text()).failure == Failure("oom", "rome failed: out of memory", "rome.py:42")
    failure = Failure("undeclared", "rome changed wte", undeclared=("wte",))
    back = CaseRecord.from_text(replace(record, failure=failure).to_text())
    assert (back.failure, back.undeclared) == (failure, ("wte",))


def test_a_broken_measurement_comes_back_broken() -> None:
    found = CaseRecord.from_text(builders.record("rome", "hard", 0, ratio=math.inf).to_text()).after["me_ppl"]
    assert (found.value, found.broken, found.reason) == (None, True, "3 of 50 items are not finite")


def test_notes_that_are_not_finite_are_kept_by_name_and_odd_ones_as_text() -> None:
    notes = {"loss": math.inf, "other": math.nan, "less": -math.inf, "layer": 3, "first_token": True, "list": [1, {2}]}
    text = builders.record("rome", "hard", 0, notes=notes).to_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert CaseRecord.from_text(text).notes == {
        "loss": "inf", "other": "nan", "less": "-inf", "layer": 3, "first_token": True, "list": "[1, {2}]"
    }  # fmt: skip


def test_any_text_survives_even_half_a_surrogate_pair() -> None:
    record = builders.record("rome", "hard", 0, answer="\ud800 \x1b[31m ☃ 漢\x00")
    text = record.to_text()
    assert text.isascii()
    assert CaseRecord.from_text(text).after["efficacy"].answers == ("\ud800 \x1b[31m ☃ 漢\x00",)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 2}', '{"schema": 2, "case": "a"}'])
def test_what_is_no_whole_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"record|Expecting"):
        CaseRecord.from_text(text)


@pytest.mark.parametrize(
    "harm", ["schema", "earlier schema", "stranger", "schedule", "found", "stranger in a step", "remarks", "requests"]
)
def test_a_record_that_was_tampered_with_is_refused(harm: str) -> None:
    body = json.loads(course(11.0, breaking=BREAKING).to_text())
    match harm:
        case "schema":
            body["schema"] = 99
        case "earlier schema":
            body["schema"] = 1
        case "stranger":
            body["mood"] = "good"
        case "stranger in a step":
            body["steps"][0]["mood"] = "good"
        case "schedule":
            body["schedule"]["kind"] = "parallel"
        case "found":
            del body["steps"][0]["found"]
        case "remarks":
            del body["remarks"]
        case "requests":
            body["requests"][0] = {"id": "case-1"}
    with pytest.raises(ValueError, match="record"):
        CaseRecord.from_text(json.dumps(body))


def test_ratios_are_those_to_the_unedited_model_and_the_worst_is_the_running_maximum() -> None:
    found = course(11.0, 50.0, 12.0)
    assert found.ratios == pytest.approx((1.1, 5.0, 1.2))
    assert found.worst == 5.0
    assert (found.breaks_at(2.0), found.breaks_at(1.0), found.breaks_at(9.0)) == (2, 1, None)


def test_what_bisection_saw_between_the_steps_counts_for_worst_and_for_where_it_broke() -> None:
    found = course(11.0, 50.0, 12.0, breaking=replace(BREAKING, edits=1, ratio=80.0))
    assert (found.worst, found.breaks_at(2.0)) == (80.0, 1)


def test_what_is_not_a_number_is_broken_and_what_was_not_measured_never_stands() -> None:
    found = course(11.0, None, 12.0)
    assert found.ratios[1] == math.inf
    assert (found.worst, found.breaks_at(1e300)) == (math.inf, 2)
    unmeasured = replace(found, steps=(replace(found.steps[0], found={}), found.steps[2]))
    assert unmeasured.ratios[0] is None
    assert unmeasured.ratios[1] == pytest.approx(1.2)
    assert unmeasured.breaks_at(2.0) == 1
    assert course().worst is None
    assert course(11.0, before={}).ratios == (None,)
    assert course(11.0, before=perplexity(0.0)).ratios == (math.inf,)


def test_what_is_said_of_a_record_is_said_of_its_last_step() -> None:
    found = course(11.0, 50.0)
    last = replace(found.steps[1], notes={"layer": 3.0}, changed=("a", "b"), declared=("a",))
    found = replace(found, steps=(found.steps[0], last))
    assert found.step == last
    assert (found.after, found.notes, found.undeclared) == (perplexity(50.0), {"layer": 3.0}, ("b",))


def test_a_record_that_was_only_begun_knows_its_case_and_has_found_nothing() -> None:
    case = Case("org/Pocket-Neo", "rect(memit)", "normal", (tiny.request("case-1"),))
    record = CaseRecord.begun(case, "pocket-neo", "rect(memit)")
    assert (record.case, record.stream, record.requests) == (case.id, "normal", case.requests)
    assert (record.schedule, record.is_course, record.planned) == (case.schedule, False, 1)
    assert (record.step.edits, record.after, record.notes, record.undeclared, record.ended) == (0, {}, {}, (), "")
    assert CaseRecord.from_text(record.to_text()).case == case.id


def test_a_record_can_be_taken_back_to_an_earlier_step() -> None:
    found = course(11.0, 50.0, 12.0, breaking=BREAKING, ended="complete")
    assert found.is_course
    assert found.up_to(2).breaking == BREAKING
    assert (found.up_to(1).breaking, found.up_to(1).ended, len(found.up_to(1).steps)) == (None, "", 1)
    assert found.up_to(0).steps == ()
    assert found.plus(found.steps[0]).steps[-1] == found.steps[0]
    assert found.remarked("a", "b", "a").remarked("b").remarks == ("a", "b")
