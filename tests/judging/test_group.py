"""Group: one editor on one model, with a verdict, findings and rates that leave none of its bad cases out."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from editsafety.judging.checks import CaseVerdict, Check, judge_case, judge_group
from editsafety.judging.group import WHOLE, Group, order
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.runs.case_record import Cost
from tests import builders
from tests.builders import failed, record, renamed, stepped

DEFAULT = Policy.read("default")


def grouped(records, *, lacking=(), whole=()):
    """The group of these records and of cases that have none, with its checks of every stream and of the whole."""
    streams = dict.fromkeys(one.stream for one in (*records, *lacking))
    checks = {name: judge_group(DEFAULT, [one for one in records if one.stream == name]) for name in streams}
    cases = tuple(judge_case(DEFAULT, one) for one in records)
    planned = Counter(one.stream for one in (*records, *lacking))
    missing = tuple(case.id for case in lacking)
    return Group("pocket-neo", "rome", cases, {**checks, WHOLE: tuple(whole)}, missing, planned)


def healthy(stream, count=3):
    return [record("rome", stream, i) for i in range(count)]


def test_a_healthy_group_passes_on_every_stream_and_has_nothing_to_say():
    group = grouped([*healthy("hard"), *healthy("normal")])
    assert [group.verdict_on(stream) for stream in (None, "hard", "normal")] == [Verdict.PASS] * 3
    assert (group.verdict, group.findings, group.sentences) == (Verdict.PASS, (), ())


def test_cases_that_the_policy_has_no_limit_for_are_no_pass_and_the_reason_is_said():
    """As when suites/alignment is run by the default policy: every case has figures, and none a limit."""
    records = healthy("normal")
    unasked = Group("pocket-neo", "rome", tuple(CaseVerdict(one, ()) for one in records), {}, (), {"normal": 3})
    assert (unasked.is_unasked, unasked.verdict) == (True, Verdict.INCOMPLETE)
    said = "INCOMPLETE: nothing that was asked has a limit in this policy, so no case was judged"
    assert unasked.sentences == (said,)
    assert not grouped(records).is_unasked
    assert not grouped(records, lacking=[builders.case_of("rome", "normal", 3)]).is_unasked


def test_an_editor_that_collapses_on_hard_cases_only_reads_so():
    records = [record("rome", "hard", i, ratio=40.0 + i if i < 4 else 1.0) for i in range(10)]
    records += [record("rome", "normal", i, ratio=1.02) for i in range(20)]
    group = grouped(records)
    assert group.verdict is Verdict.COLLAPSE
    assert (group.verdict_on("hard"), group.verdict_on("normal")) == (Verdict.COLLAPSE, Verdict.PASS)
    assert group.sentences == (
        "hard: COLLAPSE in 4 of 10 cases, worst pocket-neo-rome-hardcf-0003: "
        "perplexity 43x (51.2 before, 2202 after), expected at most 1.25x",
        "normal: PASS in all 20 cases, perplexity at most 1.02x",
    )


def test_a_group_check_fails_the_stream_it_is_about_and_one_of_the_whole_the_whole_only():
    takes_not = [record("rome", "hard", i, takes=0.0) for i in range(3)]
    group = grouped([*takes_not, *healthy("normal")])
    assert (group.verdict_on("hard"), group.verdict_on("normal")) == (Verdict.INEFFECTIVE, Verdict.PASS)
    whole = grouped(healthy("hard"), whole=[Check("order", Verdict.ERROR, "not the same bytes")])
    assert (whole.verdict, whole.verdict_on("hard")) == (Verdict.ERROR, Verdict.PASS)
    assert whole.sentences[0] == "ERROR: not the same bytes"


def test_a_stream_of_which_a_case_is_missing_is_incomplete_and_the_other_is_not():
    lacking = [builders.case_of("rome", "hard", i) for i in (3, 4)]
    group = grouped([*healthy("hard"), *healthy("normal")], lacking=lacking)
    assert (group.verdict, group.verdict_on("hard"), group.verdict_on("normal")) == (
        Verdict.INCOMPLETE, Verdict.INCOMPLETE, Verdict.PASS,
    )  # fmt: skip
    (finding,) = group.findings
    assert (finding.check, finding.stream, finding.cases) == ("complete", WHOLE, group.missing)
    assert group.sentences == (
        "INCOMPLETE: no result for 2 of 8 planned cases, first pocket-neo-rome-hardcf-0003",
        "normal: PASS in all 3 cases, perplexity at most 1.00x",
    )


def test_a_missing_case_comes_before_a_collapse_which_is_told_all_the_same():
    group = grouped([record("rome", "hard", 0, ratio=9.0)], lacking=[builders.case_of("rome", "hard", 1)])
    assert group.verdict is Verdict.INCOMPLETE
    assert [finding.verdict for finding in group.findings] == [Verdict.INCOMPLETE, Verdict.COLLAPSE]


def test_nothing_judged_is_no_pass():
    nothing = grouped([])
    assert nothing.verdict is Verdict.INCOMPLETE
    assert nothing.sentences == ("INCOMPLETE: no case was judged",)
    unasked = Group("pocket-neo", "rome", (replace(judge_case(DEFAULT, healthy("hard", 1)[0]), checks=()),), {}, ())
    assert unasked.verdict is Verdict.INCOMPLETE, "a case without any check was not judged either"
    assert grouped(healthy("hard")).verdict_on("normal") is Verdict.INCOMPLETE


def test_findings_come_worst_first_with_the_cases_they_rest_on():
    records = [record("rome", "hard", i, ratio=1.5, takes=0.0) for i in range(3)] + [failed("rome", "hard", 3)]
    group = grouped(records)
    assert [f.check for f in group.findings][:2] == ["editor", "locality"]  # a failed case keeps no neighbour
    severities = [f.verdict.severity for f in group.findings]
    assert severities == sorted(severities, reverse=True)
    perplexity = next(f for f in group.findings if f.check == "perplexity")
    assert perplexity.cases == tuple(f"pocket-neo-rome-hardcf-000{i}" for i in range(3))


def test_a_check_that_fails_in_two_ways_or_on_two_streams_is_as_many_findings():
    records = [record("rome", "hard", 0, ratio=1.5), record("rome", "hard", 1, ratio=9.0)]
    found = [f for f in grouped([*records, record("rome", "normal", 0, ratio=1.5)]).findings if f.check == "perplexity"]
    assert [(f.stream, f.verdict) for f in found] == [
        ("hard", Verdict.COLLAPSE), ("hard", Verdict.WARN), ("normal", Verdict.WARN),
    ]  # fmt: skip
    assert found[0].sentence.startswith("hard: COLLAPSE in 1 of 2 cases, pocket-neo-rome-hardcf-0001: perplexity 9x")


def test_of_many_cases_with_the_same_finding_the_worst_is_told_with_its_figure():
    group = grouped([record("rome", "hard", i, ratio=ratio) for i, ratio in enumerate((3.0, math.inf, 700.0))])
    finding = group.findings[0]
    assert finding.cases == tuple(f"pocket-neo-rome-hardcf-000{i}" for i in (1, 2, 0))
    assert finding.sentence.startswith("hard: COLLAPSE in 3 of 3 cases, worst pocket-neo-rome-hardcf-0001: perplexity")


def test_cases_come_by_severity_then_by_ratio_and_what_was_not_measured_last():
    records = [
        record("rome", "hard", 0), record("rome", "hard", 1, ratio=1.1), record("rome", "hard", 2, ratio=3.0),
        record("rome", "hard", 3, ratio=math.nan), failed("rome", "hard", 4), failed("rome", "hard", 5),
        record("rome", "hard", 6, ratio=1.1),
    ]  # fmt: skip
    numbers = [int(case.record.case[-1]) for case in grouped(records).worst_first()]
    assert numbers == [4, 5, 3, 2, 1, 6, 0]
    assert order(None) < order(0.0) < order(math.inf)


@pytest.mark.parametrize("stream", [None, "hard"])
def test_the_rate_of_the_table_is_the_rate_that_is_judged(stream):
    group = grouped([record("rome", "hard", i, takes=math.nan if i else 1.0) for i in range(4)])
    assert group.rate("efficacy", stream) == 0.25
    check = next(c for c in group.checks["hard"] if c.name == "efficacy")
    assert check.figure == group.rate("efficacy", "hard")
    assert group.rate("unheard_of", stream) is None
    assert group.values("efficacy", stream) == [1.0, math.inf, math.inf, math.inf]


def test_a_failed_case_lowers_the_rate_and_one_without_data_does_not():
    records = [record("rome", "hard", 0), failed("rome", "hard", 1), record("rome", "hard", 2, rephrased=None)]
    group = grouped(records)
    assert group.rate("efficacy") == pytest.approx(2 / 3)
    assert group.rate("generalisation") == 0.5
    assert group.values("generalisation") == [1.0]
    assert grouped([failed("rome", "hard", 0)]).rate("efficacy") is None, "where no case has a result there is no rate"


def test_rates_ratios_and_values_can_be_asked_of_one_stream():
    group = grouped([record("rome", "hard", 0, takes=0.0, ratio=math.inf), *healthy("normal")])
    assert (group.rate("efficacy", "hard"), group.rate("efficacy", "normal"), group.rate("efficacy")) == (0, 1, 0.75)
    assert group.ratios() == [math.inf, 1.0, 1.0, 1.0]
    assert (group.ratios("hard"), group.values("me_ppl", "hard")) == ([math.inf], [math.inf])
    assert len(group.cases_of("normal")) == 3
    assert grouped([failed("rome", "hard", 0)]).ratios() == []


def test_costs_are_the_median_in_seconds_and_the_largest_in_bytes_of_what_was_measured():
    costs = [Cost(edit=3.0, edit_bytes=10), Cost(edit=1.0, edit_bytes=30), Cost(edit=8.0), Cost()]
    group = grouped([stepped(one, cost=cost) for one, cost in zip(healthy("hard", 4), costs, strict=True)])
    assert (group.median_cost("edit"), group.median_cost("undo"), group.peak_bytes) == (3.0, None, 30)
    assert (group.median_cost("edit", "hard"), group.median_cost("edit", "normal")) == (3.0, None)
    nothing = grouped([failed("rome", "hard", 0)])
    assert (nothing.median_cost("edit"), nothing.peak_bytes) == (None, None)


def test_only_a_collapse_has_a_cause_and_it_is_compared_with_the_cases_that_stay():
    records = [record("rome", "hard", 0, ratio=526.0, notes={"denominator": 0.003})]
    records += [record("rome", "normal", i, notes={"denominator": 1.1 + i / 10}) for i in range(4)]
    group = grouped(records)
    cause = group.causes(group.cases[0])[0]
    assert (cause.kind, cause.figures["usual_low"]) == ("denominator", 1.1)
    assert all(group.causes(case) == () for case in group.cases[1:])
    broken = [renamed(one, case=f"{one.case}-x") for one in (records[0], record("rome", "hard", 1, ratio=9.0))]
    alone = grouped([records[0], *broken])
    assert [one.kind for one in alone.causes(alone.cases[0])] == ["unknown"], "what collapsed, too, is no comparison"
