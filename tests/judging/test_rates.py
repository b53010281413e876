"""Checks of a group of edits: rates, whose cases count for them, and when there is none."""

import math
from dataclasses import replace

import pytest

from editsafety.judging.checks import counted, judge_group, lacking
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.verdict import Verdict
from editsafety.runs.measurement import Measurement
from tests import builders

DEFAULT = Policy.read("default")


def rates(records):
    return {check.name: check for check in judge_group(DEFAULT, records)}


def test_why_cases_make_up_no_rate_is_said_in_the_words_of_most_of_them():
    def having(number, found):
        record = builders.record("rome", "hard", number)
        return replace(record, steps=(replace(record.step, found={"kept": found}),))

    beside = Measurement.inapplicable("kept", 1, "rate", "no checkpoint holds it")
    untaken = Measurement.inapplicable("kept", 1, "rate", "the edit did not take")
    assert lacking([having(0, beside), having(1, beside)], "kept") == "no checkpoint holds it"
    mixed = [having(0, untaken), having(1, beside), having(2, beside)]
    assert lacking(mixed, "kept") == "no checkpoint holds it (2 of 3 cases)"
    assert lacking([builders.record("rome", "hard", 0)], "kept") == "no case has data for it"


def test_rates_are_told_with_their_number_and_interval():
    records = [builders.record("c_rome", "hard", i, takes=float(i < 20)) for i in range(84)]
    check = rates(records)["efficacy"]
    assert check.verdict is Verdict.INEFFECTIVE
    assert check.sentence == "efficacy 0.23 over 84 cases (95% interval 0.16 to 0.34), expected at least 0.9"


def test_a_case_whose_editor_failed_or_whose_model_broke_counts_as_a_miss():
    records = [builders.record("rome", "hard", 0), builders.failed("rome", "hard", 1)]
    records += [builders.record("rome", "hard", 2, takes=math.nan)]
    assert rates(records)["efficacy"].figure == pytest.approx(1 / 3)


def test_a_measure_that_the_data_does_not_allow_is_left_out():
    records = [builders.record("rome", "hard", i, rephrased=None) for i in range(3)]
    assert "generalisation" not in rates(records)
    assert "generalisation" not in rates([*records, builders.failed("rome", "hard", 3)])
    assert counted(records, "generalisation") == []


def test_a_measure_that_was_never_tried_is_an_error():
    record = builders.record("rome", "hard", 0)
    lacking = builders.stepped(record, found={"me_ppl": record.after["me_ppl"]})
    assert rates([lacking])["efficacy"].verdict is Verdict.ERROR


def test_nothing_is_said_about_a_group_in_which_every_case_failed():
    assert rates([builders.failed("rome", "hard", i) for i in range(3)]) == {}
    assert rates([]) == {}


def test_a_mean_of_something_that_is_no_rate_is_refused_since_it_would_hide_a_collapse():
    limits = {"ppl": Threshold(measure="me_ppl", figure="after", pass_at_most=100, fails_as=Verdict.DAMAGED, why="")}
    policy = Policy(name="p", case=DEFAULT.case, group=limits)
    (check,) = judge_group(policy, [builders.record("rome", "hard", 0)])
    assert check.verdict is Verdict.ERROR


def test_the_interval_of_a_rate_is_that_of_its_count():
    """0.29 x 100 is 28.999999999999996 in floating point, which is 29 of 100."""
    records = [builders.record("rome", "hard", i, takes=float(i < 29)) for i in range(100)]
    found = next(check for check in judge_group(DEFAULT, records) if check.name == "efficacy")
    low, high = 0.2101, 0.3854  # Wilson's formula for 29 of 100, worked out by hand; 28 of 100: 0.2014 to 0.3749
    assert f"95% interval {low:.2f} to {high:.2f}" in found.sentence
    assert found.figure == pytest.approx(0.29)


def test_a_rate_that_nobody_measured_or_that_is_no_rate_is_never_a_pass():
    bare = [builders.stepped(builders.record("rome", "hard", 0), found={})]
    assert [(one.name, one.verdict.value, one.sentence) for one in judge_group(DEFAULT, bare)] == [
        (name, limit.unjudged.value, f"{name}: {limit.measure} was not measured on any case")
        for name, limit in DEFAULT.group.items()
    ]
    for value in (-0.1, 1.1):
        check = rates([builders.record("rome", "hard", 0, takes=value)])["efficacy"]
        assert (check.verdict, check.sentence) == (
            Verdict.ERROR, "efficacy: efficacy is no rate, so it has no mean to judge",
        )  # fmt: skip
    for value in (0.0, 1.0):
        assert rates([builders.record("rome", "hard", 0, takes=value)])["efficacy"].figure == value
