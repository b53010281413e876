"""Costs of `suites/speed`: rounds of one edit, beside those of the cases of a run or without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from editsafety.errors import UsageError
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.comparison import Shift
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import story
from editsafety.runs.facts import RepeatedCost
from tests.builders import FACTS, report
from tests.judging.baselines.test_costs import LAPTOP, gate, run


def speed(seconds: Sequence[float], *, passes: Sequence[float] = (0.01,) * 8, request: str = "a" * 16) -> RunReport:
    """A run of suites/speed alone, with so many rounds."""
    names = ("pocket-neo", "rome")
    found = (
        RepeatedCost(*names, "latency", request, tuple(seconds), tuple(passes), LAPTOP),
        RepeatedCost(*names, "memory", request, (4e6,) * len(seconds)),
    )
    return report([], facts=replace(FACTS, repeated=found))


def test_rounds_of_one_edit_are_compared_without_any_case_and_said_to_be_all_that_was_asked():
    same = gate(speed([0.2, 0.21] * 4), "latency:20%", "throughput:20%", "memory:10%").judged(speed([0.21, 0.2] * 4))
    assert (same.verdict, same.exit_code) == (Verdict.PASS, 0)
    assert story.verdict_line(same) == (
        "PASS · nothing was asked but what edits cost · no worse against base.json · exit code 0"
    )
    assert [one.split(" of ")[0] for one in same.against.costs] == ["latency", "throughput", "memory"]
    slower = gate(speed([0.2, 0.21] * 4), "latency:20%").judged(speed([0.3, 0.31] * 4))
    assert (slower.verdict, slower.exit_code) == (Verdict.REGRESSED, 12)
    assert "one edit again and again: 20.5 forward passes before, 30.5 now" in slower.against.regressed[0].sentence


def test_rounds_are_counted_in_the_forward_passes_between_them():
    fast = speed([0.1, 0.105] * 4, passes=(0.005,) * 8)
    assert gate(speed([0.2, 0.21] * 4), "latency:20%").judged(fast).exit_code == 0
    slow_for_a_fast_machine = speed([0.2, 0.21] * 4, passes=(0.005,) * 8)
    assert gate(speed([0.2, 0.21] * 4), "latency:20%").judged(slow_for_a_fast_machine).exit_code == 12


def test_five_rounds_are_too_few():
    found = gate(speed([0.2] * 5), "latency:20%").judged(speed([0.9] * 5))
    assert found.against.of(Shift.UNSHOWN)[0].sentence.endswith("; worse, but at least 6 rounds are needed")
    assert (found.verdict, found.exit_code) == (Verdict.PASS, 0)


def test_rounds_of_another_request_cannot_be_compared():
    found = gate(speed([0.2] * 8), "latency:20%").judged(speed([0.2] * 8, request="b" * 16))
    assert (found.verdict, found.exit_code) == (Verdict.ERROR, 13)


def both(seconds: float) -> RunReport:
    """A run of cases, always as fast, and of suites/speed."""
    cases = run([0.2] * 20)
    return replace(cases, facts=replace(cases.facts, repeated=speed([seconds] * 8).facts.repeated))


def test_a_limit_has_to_hold_for_cases_and_for_rounds():
    assert gate(both(0.2), "latency:20%").judged(both(0.2)).exit_code == 0
    found = gate(both(0.2), "latency:20%").judged(both(0.4))
    assert found.exit_code == 12
    assert ["one edit again and again" in one.sentence for one in found.against.regressed] == [True]


def test_a_baseline_with_cases_and_a_run_of_costs_alone_are_compared_by_what_both_have():
    assert gate(run([0.2] * 20), "latency:20%").judged(speed([0.2] * 8)).exit_code == 13
    found = gate(both(0.2), "latency:20%").judged(speed([0.2] * 8))
    assert (found.exit_code, found.against.differences) == (0, ())


def test_costs_alone_are_accepted_only_as_such_and_judge_nothing_by_themselves():
    alone = speed([0.2] * 8)
    assert (alone.verdict, alone.exit_code) == (None, 14)
    assert "nothing was asked but what edits cost, which a baseline judges" in story.verdict_line(alone)
    with pytest.raises(UsageError, match="accept it with --costs"):
        AcceptedBaseline.of(alone)
    whole = AcceptedBaseline.of(alone, costs=True)
    assert AcceptedBaseline.from_text(whole.to_text(), "here") == whole
