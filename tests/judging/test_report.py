"""RunReport: what a run came to. Nothing missing, broken or failed is ever lost in an average or a default."""

import math

import pytest

from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from tests import builders
from tests.builders import failed, record, report

DEFAULT = Policy.read("default")


def test_a_healthy_run_passes():
    made = report([record("rome", stream, i) for stream in ("hard", "normal") for i in range(3)])
    assert (made.verdict, made.exit_code, made.sound, made.judged, made.planned) == (Verdict.PASS, 0, True, 6, 6)
    assert made.groups[0].sentences == ()


def test_zero_cases_are_no_pass():
    for made in (report([]), report([], lacking=[builders.case_of("rome", "hard", 0)])):
        assert (made.verdict, made.exit_code, made.sound, made.worst) == (None, 14, False, None)


def test_one_collapse_among_fifty_is_not_hidden_by_any_mean():
    made = report([record("rome", "normal", i, ratio=1e6 if i == 31 else 1.0) for i in range(50)])
    assert (made.verdict, made.exit_code) == (Verdict.COLLAPSE, 10)
    assert made.worst.record.case == "pocket-neo-rome-normal-0031"
    assert made.groups[0].sentences == (
        "normal: COLLAPSE in 1 of 50 cases, pocket-neo-rome-normal-0031: "
        "perplexity 1e6x (51.2 before, 5.12e7 after), expected at most 1.25x",
    )


def test_an_editor_that_collapses_on_hard_cases_only_reads_so():
    records = [record("rome", "hard", i, ratio=40.0 + i if i < 4 else 1.0) for i in range(10)]
    records += [record("rome", "normal", i, ratio=1.02) for i in range(20)]
    (group,) = report(records).groups
    assert (group.verdict_on("hard"), group.verdict_on("normal")) == (Verdict.COLLAPSE, Verdict.PASS)
    assert group.sentences == (
        "hard: COLLAPSE in 4 of 10 cases, worst pocket-neo-rome-hardcf-0003: "
        "perplexity 43x (51.2 before, 2202 after), expected at most 1.25x",
        "normal: PASS in all 20 cases, perplexity at most 1.02x",
    )


def test_findings_come_worst_first_with_the_cases_they_rest_on():
    records = [record("rome", "hard", i, ratio=1.5, takes=0.0) for i in range(3)] + [failed("rome", "hard", 3)]
    (group,) = report(records).groups
    assert [f.check for f in group.findings][:2] == ["editor", "locality"]  # a failed case keeps no neighbour
    severities = [f.verdict.severity for f in group.findings]
    assert severities == sorted(severities, reverse=True)
    perplexity = next(f for f in group.findings if f.check == "perplexity")
    assert perplexity.cases == tuple(f"pocket-neo-rome-hardcf-000{i}" for i in range(3))


def test_a_missing_case_makes_the_run_incomplete_and_is_named():
    made = report([record("rome", "hard", 0)], lacking=[builders.case_of("rome", "hard", i) for i in (1, 2)])
    assert (made.verdict, made.exit_code, made.sound) == (Verdict.INCOMPLETE, 13, False)
    said = "INCOMPLETE: no result for 2 of 3 planned cases, first pocket-neo-rome-hardcf-0001"
    assert made.groups[0].sentences == (said,)
    assert made.groups[0].verdict_on("hard") is Verdict.INCOMPLETE


def test_an_editor_without_any_result_is_incomplete_beside_one_that_passes():
    made = report([record("ft", "hard", 0)], lacking=[builders.case_of("rome", "hard", 0)])
    assert {group.editor: group.verdict for group in made.groups} == {"ft": Verdict.PASS, "rome": Verdict.INCOMPLETE}
    assert made.exit_code == 13


def test_an_interrupted_run_is_incomplete_however_well_it_went():
    made = report([record("rome", "hard", 0)], interrupted=True)
    assert (made.verdict, made.exit_code) == (Verdict.INCOMPLETE, 13)


def test_where_every_case_failed_the_verdict_is_error_and_the_reason_is_told_once():
    made = report([failed("rome", "hard", i) for i in range(5)])
    assert (made.verdict, made.exit_code) == (Verdict.ERROR, 13)
    assert made.groups[0].sentences == (
        "hard: ERROR in 5 of 5 cases, worst pocket-neo-rome-hardcf-0000: rome failed: ValueError: no such layer",
    )


def test_an_infinite_ratio_is_the_worst_of_all():
    made = report([record("rome", "hard", i, ratio=r) for i, r in enumerate((1e300, math.inf, 3.0))])
    assert made.worst.record.case == "pocket-neo-rome-hardcf-0001"
    assert made.groups[0].ratios()[1] == math.inf


CONTROLS = {
    "rome": [record("rome", "hard", 0, ratio=50.0)],
    "c_rome": [record("c_rome", "hard", 0, ratio=1.3)],
    "noop": [record("noop", "hard", 0, changed=())],
}


def controlled(**other):
    return report([record("ft", "hard", 0)], controls=[r for rs in {**CONTROLS, **other}.values() for r in rs])


def test_controls_that_come_out_as_expected_change_nothing():
    made = controlled()
    assert made.verdict is Verdict.PASS
    assert [control.sentence for control in made.controls] == [
        "rome on 1 hard case of pocket-neo: 1 COLLAPSE (50x), as expected",
        "c_rome on 1 hard case of pocket-neo: 1 WARN (1.30x), as expected",
        "noop on 1 hard case of pocket-neo: 1 NO-OP (1.00x), as expected",
    ]


@pytest.mark.parametrize(
    ("editor", "found"),
    [
        ("rome", [record("rome", "hard", 0), record("rome", "hard", 1, ratio=1.3)]),
        ("rome", [record("rome", "hard", 0, ratio=50.0), failed("rome", "hard", 1)]),
        ("c_rome", [record("c_rome", "hard", 0, ratio=3.0)]),
        ("noop", [record("noop", "hard", 0)]),
    ],
)
def test_a_control_that_misbehaves_makes_the_whole_run_an_error(editor, found):
    made = controlled(**{editor: found})
    assert (made.verdict, made.exit_code, made.sound) == (Verdict.ERROR, 13, False)
    sentence = next(control.sentence for control in made.controls if not control.behaved)
    assert "was expected, so no other verdict can be trusted" in sentence


def test_a_control_that_collapses_in_some_of_its_cases_shows_what_it_is_for():
    rome = [record("rome", "hard", 0, ratio=50.0), record("rome", "hard", 1, ratio=1.0)]
    made = controlled(rome=rome)
    assert made.verdict is Verdict.PASS
    said = "rome on 2 hard cases of pocket-neo: 1 PASS, 1 COLLAPSE (1.00x to 50x), as expected"
    assert made.controls[0].sentence == said


def test_a_control_without_a_result_is_an_error_only_where_it_was_to_run():
    made = controlled(noop=[])
    cases = [*made.plan.cases, *made.plan.controls, builders.case_of("noop", "hard", 0, control="NO-OP")]
    plan = builders.plan(made.plan.cases, cases[1:])
    kept = {r.case: r for r in (record("ft", "hard", 0), *CONTROLS["rome"], *CONTROLS["c_rome"])}
    assert RunReport.of(plan, DEFAULT, kept, {}).verdict is Verdict.PASS
    planned = RunReport.of(plan, DEFAULT, kept, {}, planned=cases)
    assert planned.verdict is Verdict.ERROR
    assert planned.controls[-1].found == (Verdict.INCOMPLETE,)


def test_only_the_checks_that_were_asked_for_are_judged():
    records = [record("rome", "hard", i, ratio=3.0, takes=0.0) for i in range(3)]
    assert report(records, facts={"judged:perplexity": True}).verdict is Verdict.COLLAPSE
    efficacy = report(records, facts={"judged:efficacy": True})
    assert (efficacy.verdict, efficacy.judged) == (Verdict.INEFFECTIVE, 3)
    assert report(records, facts={"judged:restore": True}).verdict is Verdict.PASS
    assert report(records, facts={"judged:nothing": True}).verdict is Verdict.INCOMPLETE
    assert report([failed("rome", "hard", 0)], facts={"judged:efficacy": True}).verdict is Verdict.ERROR


def test_what_holds_for_the_whole_is_judged_with_it():
    order = {"order:pocket-neo:rome": {"compared": 2, "different": ["pocket-neo-rome-hardcf-0000"]}}
    made = report([record("rome", "hard", 0)], facts=order)
    assert made.verdict is Verdict.ERROR
    assert made.groups[0].sentences[0].startswith("ERROR: not the same bytes when computed alone in another order")
    same = {"order:pocket-neo:rome": {"compared": 2, "different": []}}
    assert report([record("rome", "hard", 0)], facts=same).verdict is Verdict.PASS
    assert report([record("rome", "hard", 0)], facts={"drift:pocket-neo:rome": True}).verdict is Verdict.ERROR


def test_an_editor_that_was_not_prepared_is_an_error_until_its_cases_are_there():
    facts = {"problem:pocket-neo:rome": "rome on pocket-neo needs a covariance. Run: editsafety prepare"}
    lacking = [builders.case_of("rome", "hard", 1)]
    made = report([record("rome", "hard", 0)], lacking=lacking, facts=facts)
    assert made.verdict is Verdict.ERROR
    assert made.groups[0].sentences[0].endswith("Run: editsafety prepare")
    assert report([record("rome", "hard", 0)], facts=facts).verdict is Verdict.PASS


def test_a_cause_is_named_from_the_evidence():
    made = builders.example()
    assert made.cause(made.worst) == (
        "denominator 0.003 where edits that stay have 1.1 to 1.6: the subject is one token in first place; "
        "keys from prefixed contexts (c_rome, r_rome) avoid it (The Fall of ROME, arXiv 2406.11263)"
    )


@pytest.mark.parametrize("note", ["0.003", math.nan, True, None, [1], "<script>"])
def test_odd_notes_give_no_invented_cause_and_no_crash(note):
    records = [record("rome", "hard", 0, ratio=9.0, notes={"denominator": note})]
    records += [record("rome", "hard", i, notes={"denominator": n}) for i, n in ((1, 1.1), (2, "x"), (3, math.inf))]
    made = report(records)
    assert made.cause(made.worst).startswith("no cause found")


def test_groups_come_worst_first_and_then_by_ratio():
    records = [record("a", "hard", 0), record("b", "hard", 0, ratio=5.0), record("c", "hard", 0, ratio=50.0)]
    records += [failed("d", "hard", 0)]
    assert [group.editor for group in report(records).worst_groups] == ["d", "c", "b", "a"]


def test_the_rate_of_the_table_is_the_rate_that_is_judged():
    records = [record("rome", "hard", i, takes=math.nan if i else 1.0) for i in range(4)]
    (group,) = report(records).groups
    assert group.rate("efficacy") == 0.25
    check = next(c for c in group.checks["hard"] if c.name == "efficacy")
    assert check.figure == group.rate("efficacy", "hard")
    assert group.rate("unheard_of") is None
    assert group.values("efficacy") == [1.0, math.inf, math.inf, math.inf]
