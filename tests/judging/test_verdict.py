"""Verdict: the worst one wins, and the exit code says which."""

import pytest

from editsafety.judging.verdict import NOTHING_JUDGED, Verdict


def test_the_worst_of_several_wins_wherever_it_stands():
    assert Verdict.worst([Verdict.PASS, Verdict.COLLAPSE, Verdict.WARN]) is Verdict.COLLAPSE
    assert Verdict.worst([Verdict.ERROR, Verdict.COLLAPSE]) is Verdict.ERROR


def test_the_worst_of_nothing_is_no_pass():
    with pytest.raises(ValueError, match="empty"):
        Verdict.worst([])


def test_a_gate_stops_at_everything_past_a_warning():
    assert [v for v in Verdict if not v.fails] == [Verdict.PASS, Verdict.WARN]


def test_exit_codes_are_those_that_are_documented():
    codes = {verdict.value: verdict.exit_code for verdict in Verdict}
    assert codes == {
        "PASS": 0, "WARN": 0, "NO-OP": 11, "INEFFECTIVE": 11, "DAMAGED": 11, "COLLAPSE": 10, "REGRESSED": 12,
        "INCOMPLETE": 13, "ERROR": 13,
    }  # fmt: skip
    assert NOTHING_JUDGED == 14
    assert all((verdict.exit_code != 0) == verdict.fails for verdict in Verdict)


def test_every_verdict_says_what_it_means_and_every_failure_what_to_do():
    assert all(verdict.meaning for verdict in Verdict)
    assert all(verdict.advice for verdict in Verdict if verdict.fails)


def test_only_a_pass_needs_no_advice():
    assert {verdict: verdict.advice for verdict in Verdict if not verdict.advice} == {Verdict.PASS: ""}
