"""RunReport: what a run came to. Nothing missing, broken or failed is ever lost in an average or a default."""

import math
from dataclasses import replace

import pytest

from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.runs.case import Case
from editsafety.runs.facts import Drifted, JudgedCheck, NotApplicable, OrderFacts, Problem, RunFacts
from editsafety.runs.schedule import Schedule
from tests import builders
from tests.builders import course, failed, record, report, step

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


def test_an_editor_passes_no_check_that_an_interrupted_run_did_not_come_to():
    """The rates of an editor are asked for behind all of its cases: a run that was stopped there never judged them."""
    idle = [record("rome", "hard", i, takes=0.0) for i in range(4)]
    begun = report(idle, facts=facts(JudgedCheck("perplexity")), interrupted=True)
    assert begun.groups[0].verdict is Verdict.INCOMPLETE
    said = "INCOMPLETE: the run was stopped before every check was made; all cases have results"
    assert begun.groups[0].sentences == (said,)
    asked = facts(*map(JudgedCheck, (*DEFAULT.case, *DEFAULT.group)))
    assert report(idle, facts=asked, interrupted=True).groups[0].verdict is Verdict.INEFFECTIVE
    assert report([record("rome", "hard", 0)], facts=asked, interrupted=True).groups[0].verdict is Verdict.PASS


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


def facts(*found):
    return RunFacts.of(found)


def test_only_the_checks_that_were_asked_for_are_judged():
    records = [record("rome", "hard", i, ratio=3.0, takes=0.0) for i in range(3)]
    assert report(records, facts=facts(JudgedCheck("perplexity"))).verdict is Verdict.COLLAPSE
    efficacy = report(records, facts=facts(JudgedCheck("efficacy")))
    assert (efficacy.verdict, efficacy.judged) == (Verdict.INEFFECTIVE, 3)
    assert report(records, facts=facts(JudgedCheck("restore"))).verdict is Verdict.PASS
    assert report(records, facts=facts(JudgedCheck("nothing"))).verdict is Verdict.INCOMPLETE
    assert report([failed("rome", "hard", 0)], facts=facts(JudgedCheck("efficacy"))).verdict is Verdict.ERROR


def test_what_holds_for_the_whole_is_judged_with_it():
    order = facts(OrderFacts("pocket-neo", "rome", 2, ("pocket-neo-rome-hardcf-0000",), "key"))
    made = report([record("rome", "hard", 0)], facts=order)
    assert made.verdict is Verdict.ERROR
    assert made.groups[0].sentences[0].startswith("ERROR: not the same bytes when computed alone in another order")
    same = facts(OrderFacts("pocket-neo", "rome", 2, (), "key"))
    assert report([record("rome", "hard", 0)], facts=same).verdict is Verdict.PASS
    uncompared = facts(OrderFacts("pocket-neo", "rome", 0, (), "key"))
    assert report([record("rome", "hard", 0)], facts=uncompared).groups[0].checks["all"] == ()
    drifted = facts(Drifted("pocket-neo", "rome"))
    assert report([record("rome", "hard", 0)], facts=drifted).verdict is Verdict.ERROR


def test_an_editor_that_was_not_prepared_is_an_error_until_its_cases_are_there():
    found = facts(Problem("pocket-neo", "rome", "rome on pocket-neo needs a covariance. Run: editsafety prepare"))
    lacking = [builders.case_of("rome", "hard", 1)]
    made = report([record("rome", "hard", 0)], lacking=lacking, facts=found)
    assert made.verdict is Verdict.ERROR
    assert made.groups[0].sentences[0].endswith("Run: editsafety prepare")
    assert report([record("rome", "hard", 0)], facts=found).verdict is Verdict.PASS


COURSES = [Case("pocket-neo", "rome", "hard", course().requests, Schedule(kind)) for kind in ("sequential", "batch")]


def walked(*found, planned=COURSES, **more):
    """A report on courses, of which these were walked."""
    kept = {case.id: replace(one, case=case.id) for case, one in zip(planned, found, strict=False)}
    return RunReport.of(builders.plan([]), DEFAULT, kept, facts(*more.get("facts", ())), planned=planned)


def test_courses_are_judged_beside_the_single_edits_and_never_counted_among_them():
    made = walked(course(step(30)), course(step(10, ratio=9.0), ended="collapsed"))
    assert (made.verdict, made.exit_code, made.judged, made.groups) == (Verdict.COLLAPSE, 10, 0, ())
    assert [one.verdict for one in made.courses] == [Verdict.PASS, Verdict.COLLAPSE]
    assert made.standing == [("pocket-neo", "rome", Verdict.COLLAPSE)]
    case = builders.case_of("ft", "hard", 0)
    both = RunReport.of(
        builders.plan([case]), DEFAULT, {case.id: record("ft", "hard", 0), COURSES[0].id: course(step(30))},
        RunFacts(), planned=[case, COURSES[0]],
    )  # fmt: skip
    assert (both.verdict, both.judged, both.planned, len(both.courses)) == (Verdict.PASS, 1, 1, 1)


def test_a_course_without_a_record_is_missing_unless_its_editor_cannot_be_run_on_it():
    made = walked(course(step(30)))
    assert (made.verdict, made.missing_courses) == (Verdict.INCOMPLETE, (COURSES[1].id,))
    told = walked(course(step(30)), facts=[NotApplicable(COURSES[1].id, "rome takes no batch")])
    assert (told.verdict, told.missing_courses) == (Verdict.PASS, ())


def test_only_the_checks_of_courses_that_were_asked_for_are_judged_and_the_end_of_one_always():
    damaged = course(step(30, kept=0.1))
    assert walked(damaged, planned=COURSES[:1], facts=[JudgedCheck("course kept")]).verdict is Verdict.DAMAGED
    for name in ("kept", "course perplexity"):
        found = [JudgedCheck(name), JudgedCheck("course recent")]
        assert walked(damaged, planned=COURSES[:1], facts=found).verdict is Verdict.PASS
    half = walked(course(step(10), ended=""), planned=COURSES[:1], facts=[JudgedCheck("course recent")])
    assert half.verdict is Verdict.INCOMPLETE


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


def told(made):
    """Name and verdict of every part."""
    return [(part.name, part.verdict) for part in made.parts]


def test_the_parts_of_a_verdict_are_every_editor_and_the_run_itself():
    made = report([record("ft", "hard", 0), record("rect(memit)", "hard", 0, ratio=50.0)])
    assert told(made) == [
        ("pocket-neo-ft", Verdict.PASS), ("pocket-neo-rect.memit", Verdict.COLLAPSE), ("run", Verdict.PASS),
    ]  # fmt: skip
    assert made.parts[1].said.splitlines()[0] == "COLLAPSE pocket-neo-rect.memit: an edited model stops working"
    assert made.parts[1].sentences == made.groups[1].sentences


def test_single_edits_and_courses_of_an_editor_are_one_part_and_the_worse_of_them_counts():
    case = builders.case_of("rome", "hard", 0)
    kept = {case.id: record("rome", "hard", 0), COURSES[0].id: replace(course(step(10, ratio=9.0)), case=COURSES[0].id)}
    made = RunReport.of(builders.plan([case]), DEFAULT, kept, RunFacts(), planned=[case, COURSES[0]])
    assert told(made) == [("pocket-neo-rome", Verdict.COLLAPSE), ("run", Verdict.PASS)]


def test_a_missing_course_belongs_to_its_editor():
    plan = replace(builders.plan([]), courses=tuple(COURSES))
    kept = {COURSES[0].id: replace(course(step(30)), case=COURSES[0].id)}
    made = RunReport.of(plan, DEFAULT, kept, RunFacts(), planned=COURSES)
    assert told(made) == [("pocket-neo-rome", Verdict.INCOMPLETE), ("run", Verdict.PASS)]
    assert made.parts[0].sentences == (f"{COURSES[1].id}: INCOMPLETE: no result",)


def test_nothing_judged_has_no_parts():
    assert report([]).parts == report([], lacking=[builders.case_of("rome", "hard", 0)]).parts == ()


def test_an_edit_that_changes_nothing_is_a_no_op_whatever_was_asked():
    idle = record("rome", "hard", 0, changed=())
    for asked in ("perplexity", "restore", "efficacy", "locality"):
        made = report([idle], facts=facts(JudgedCheck(asked)))
        assert (made.verdict, made.exit_code) == (Verdict.NO_OP, 11)
        assert made.groups[0].sentences == (
            "hard: NO-OP in 1 of 1 case, pocket-neo-rome-hardcf-0000: the edit changes nothing",
        )


def test_where_something_else_than_the_cases_fails_no_stream_is_praised():
    made = report(
        [record("rome", s, i) for s in ("hard", "normal") for i in (0, 1)], facts=facts(Drifted(builders.MODEL, "rome"))
    )
    assert (made.verdict, len(made.groups[0].sentences)) == (Verdict.ERROR, 1)
    assert "PASS" not in made.groups[0].sentences[0]


@pytest.mark.parametrize("editors", [("rome", "rome"), ("rome", "ft"), ("ft", "rome")])
def test_the_worst_case_is_the_most_severe_and_not_the_one_of_the_largest_ratio(editors):
    """An editor that writes what it does not declare is worse than a collapse; its perplexity may be as before."""
    loud, quiet = record(editors[0], "hard", 0, ratio=800.0), record(editors[1], "hard", 1, undeclared=("wte.weight",))
    made = report([loud, quiet])
    assert made.verdict is Verdict.ERROR
    assert made.worst.record == quiet
    for group in made.groups:
        assert group.worst_first()[0].verdict is group.verdict
    assert made.worst_groups[0].worst_first()[0].record == quiet


@pytest.mark.parametrize("asked", ["efficacy", "perplexity"])
def test_a_base_that_was_broken_before_is_an_error_whatever_was_asked_for(asked):
    before = {one: builders.measured(one, 500.0) for one in ("me_ppl", "ppl_even")}
    broken = record("rome", "hard", 0, before=before, ratio=500.0 / builders.BASE)
    facts = RunFacts.of([JudgedCheck(asked), JudgedCheck(f"course {asked}")])
    assert report([broken], facts=facts).verdict is Verdict.ERROR
    assert report([record("rome", "hard", 0)], facts=facts).verdict is Verdict.PASS


def test_what_stands_in_the_way_of_an_editor_as_a_whole_is_told_under_its_name():
    found = facts(Drifted("pocket-neo", "rome"), Problem("pocket-neo", "rome", "rome needs a covariance."))
    made = report([record("rome", "hard", 0)], lacking=[builders.case_of("rome", "hard", 1)], facts=found)
    assert [(one.name, one.verdict, one.sentence) for one in made.groups[0].checks["all"]] == [
        ("restore", Verdict.ERROR, "the model's fingerprint had changed after the last case"),
        ("prepared", Verdict.ERROR, "rome needs a covariance."),
    ]
    order = facts(OrderFacts("pocket-neo", "rome", 2, (), "key"))
    (check,) = report([record("rome", "hard", 0)], facts=order).groups[0].checks["all"]
    assert (check.name, check.verdict) == ("order", Verdict.PASS)


def test_editors_stand_worst_first_over_cases_and_courses_together():
    cases = [builders.case_of(editor, "hard", 0) for editor in ("ft", "memit")]
    kept = {case.id: record(case.editor, "hard", 0, ratio=1.5 if case.editor == "memit" else 1.0) for case in cases}
    kept[COURSES[0].id] = replace(course(step(10, ratio=9.0)), case=COURSES[0].id)
    made = RunReport.of(builders.plan(cases), DEFAULT, kept, RunFacts(), planned=[*cases, COURSES[0]])
    assert made.standing == [
        ("pocket-neo", "rome", Verdict.COLLAPSE),
        ("pocket-neo", "memit", Verdict.WARN),
        ("pocket-neo", "ft", Verdict.PASS),
    ]
    assert made.blocks == (("pocket-neo", "ft"), ("pocket-neo", "memit"), ("pocket-neo", "rome"))


def test_a_report_on_one_group_alone_has_its_model_its_editor_and_no_command_for_a_case():
    group = report([record("rome", "hard", 0), record("rome", "hard", 1, ratio=9.0)]).groups[0]
    model = replace(builders.FACTS.models["pocket-neo"], source="some/folder")
    made = RunReport.alone(DEFAULT, group, model, builders.FACTS)
    assert (made.groups, made.controls, made.courses, made.policy) == ((group,), (), (), DEFAULT)
    assert (made.plan.settings.models, made.plan.settings.editors) == (("some/folder",), ("rome",))
    assert made.facts.models == {"pocket-neo": model}
    assert made.commands == {"pocket-neo-rome-hardcf-0000": "", "pocket-neo-rome-hardcf-0001": ""}
    assert (made.verdict, made.worst.record.case) == (Verdict.COLLAPSE, "pocket-neo-rome-hardcf-0001")


def test_an_interruption_exits_with_2_only_where_the_run_was_stopped_on_purpose():
    made = report([record("rome", "hard", 0)], interrupted=True)
    stopped = replace(made, facts=replace(made.facts, ended=replace(made.facts.ended, stopped=True)))
    assert (made.exit_code, stopped.exit_code, replace(stopped, interrupted=False).exit_code) == (13, 2, 0)
    assert made.parts[-1].sentences == ("INCOMPLETE: the run was interrupted",)


def test_a_course_that_could_not_be_walked_is_told_with_its_reason():
    plan = replace(builders.plan([]), courses=tuple(COURSES))
    kept = {COURSES[0].id: replace(course(step(30)), case=COURSES[0].id)}
    found = facts(Problem("pocket-neo", "rome", "rome needs a covariance."))
    made = RunReport.of(plan, DEFAULT, kept, found, planned=COURSES)
    assert made.gaps == (f"{COURSES[1].id}: ERROR: rome needs a covariance.",)
    assert told(made) == [("pocket-neo-rome", Verdict.ERROR), ("run", Verdict.PASS)]
