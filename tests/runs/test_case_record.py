"""CaseRecord: what is kept is what was found."""

import json
import math
from dataclasses import replace

import pytest

from editsafety.runs.case_record import CaseRecord, Failure
from tests import builders


def test_a_record_comes_back_as_it_was():
    record = builders.record("rome", "hard", 3, ratio=526.0, leftovers=("a hook",), undeclared=("wte",))
    assert CaseRecord.from_text(record.to_text()) == replace(record, requests=(replace(record.requests[0], source=""),))


def test_a_failure_comes_back_with_its_place():
    record = builders.failed("rome", "hard", 3, kind="oom", message="rome failed: out of memory")
    assert CaseRecord.from_text(record.to_text()).failure == Failure("oom", "rome failed: out of memory", "rome.py:42")


def test_a_broken_measurement_comes_back_broken():
    found = CaseRecord.from_text(builders.record("rome", "hard", 0, ratio=math.inf).to_text()).after["me_ppl"]
    assert (found.value, found.broken, found.reason) == (None, True, "3 of 50 items are not finite")


def test_notes_that_are_not_finite_are_kept_by_name_and_odd_ones_as_text():
    notes = {"loss": math.inf, "other": math.nan, "less": -math.inf, "layer": 3, "first_token": True, "list": [1, {2}]}
    text = builders.record("rome", "hard", 0, notes=notes).to_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert CaseRecord.from_text(text).notes == {
        "loss": "inf", "other": "nan", "less": "-inf", "layer": 3, "first_token": True, "list": "[1, {2}]"
    }  # fmt: skip


def test_any_text_survives_even_half_a_surrogate_pair():
    record = builders.record("rome", "hard", 0, answer="\ud800 \x1b[31m ☃ 漢\x00")
    text = record.to_text()
    assert text.isascii()
    assert CaseRecord.from_text(text).after["efficacy"].answers == ("\ud800 \x1b[31m ☃ 漢\x00",)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "case": "a"}'])
def test_what_is_no_whole_record_is_refused(text):
    with pytest.raises(ValueError, match=r"record|Expecting"):
        CaseRecord.from_text(text)


def test_an_unknown_field_is_refused():
    body = json.loads(builders.record("rome", "hard", 0).to_text())
    with pytest.raises(ValueError, match="not a whole record"):
        CaseRecord.from_text(json.dumps({**body, "mood": "good"}))
