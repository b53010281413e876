"""Controls: what the editors whose verdict is known say of a run, and of a judge who has none."""

from dataclasses import replace

import pytest

from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import story
from editsafety.runs.facts import Problem, RunFacts, Unexplained
from tests import builders
from tests.builders import failed, record, report
from tests.judging.test_report import DEFAULT, facts, told

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


def untried(facts=None, **other):
    """A report on a model of which nobody knows what ROME and C-ROME come to."""
    found = {**CONTROLS, **other}
    plan = controlled().plan
    controls = tuple(replace(case, tentative=case.editor != "noop") for case in plan.controls)
    plan = replace(plan, controls=controls)
    records = {r.case: r for r in (record("ft", "hard", 0), *[r for rs in found.values() for r in rs])}
    return RunReport.of(plan, DEFAULT, records, facts or RunFacts())


def test_a_control_of_which_nobody_knows_what_it_comes_to_is_evidence_and_no_check():
    made = untried(rome=[record("rome", "hard", 0)], c_rome=[record("c_rome", "hard", 0, ratio=9.0)])
    assert (made.verdict, made.sound) == (Verdict.PASS, True)
    assert [(control.behaved, control.shows) for control in made.controls] == [
        (True, False),
        (True, False),
        (True, True),
    ]
    assert [control.sentence for control in made.controls[:2]] == [
        "rome on 1 hard case of pocket-neo: 1 PASS (1.00x), where COLLAPSE is what is known of other models; "
        "a collapse was not provoked, so nothing shows that one would be seen",
        "c_rome on 1 hard case of pocket-neo: 1 COLLAPSE (9.00x), where PASS is what is known of other models",
    ]
    (rome, *_) = untried().controls
    assert rome.sentence == "rome on 1 hard case of pocket-neo: 1 COLLAPSE (50x), as on the models where that is known"


def test_such_a_control_that_cannot_be_run_shows_nothing_and_is_no_error():
    problem = Problem("pocket-neo", "rome", "rome on pocket-neo needs a second moment.")
    made = untried(rome=[], facts=facts(problem))
    assert (made.verdict, made.controls[0].found, made.controls[0].behaved) == (Verdict.PASS, (), True)
    said = "rome on pocket-neo was not run, so it shows nothing: rome on pocket-neo needs a second moment."
    assert made.controls[0].sentence == said


def test_what_stands_in_the_way_of_everything_is_told_once():
    """A model that cannot be loaded: neither the editor nor any control has a result."""
    problem = "cannot load 'nobody/nothing'."
    stopped = facts(*(Problem("pocket-neo", name, problem) for name in ("ft", "rome", "c_rome", "noop")))
    plan = untried().plan
    plan = replace(plan, settings=replace(plan.settings, editors=("ft",)))
    made = RunReport.of(plan, DEFAULT, {}, stopped, planned=[*plan.cases, *plan.controls])
    same = "the same stands in its way as in that of ft"
    assert [control.sentence for control in made.controls] == [
        f"rome on pocket-neo was not run, so it shows nothing: {same}",
        f"c_rome on pocket-neo was not run, so it shows nothing: {same}",
        f"noop on pocket-neo was not run, so no other verdict can be trusted: {same}",
    ]
    assert [(control.behaved, control.ran) for control in made.controls] == [
        (True, False),
        (True, False),
        (False, False),
    ]
    assert story.verdict_line(made) == "ERROR · a control was not run · ft ERROR · exit code 13"
    alone = RunReport.of(plan, DEFAULT, {}, facts(Problem("pocket-neo", "noop", problem)), planned=plan.controls)
    assert alone.controls[-1].sentence.endswith(f"so no other verdict can be trusted: {problem}")


def test_such_a_control_that_fails_while_it_runs_is_an_error_as_any():
    assert untried(rome=[failed("rome", "hard", 0)]).verdict is Verdict.ERROR


def test_a_control_without_a_result_is_an_error_only_where_it_was_to_run():
    made = controlled(noop=[])
    cases = [*made.plan.cases, *made.plan.controls, builders.case_of("noop", "hard", 0, control="NO-OP")]
    plan = builders.plan(made.plan.cases, cases[1:])
    kept = {r.case: r for r in (record("ft", "hard", 0), *CONTROLS["rome"], *CONTROLS["c_rome"])}
    assert RunReport.of(plan, DEFAULT, kept, RunFacts()).verdict is Verdict.PASS
    planned = RunReport.of(plan, DEFAULT, kept, RunFacts(), planned=cases)
    assert planned.verdict is Verdict.ERROR
    assert planned.controls[-1].found == (Verdict.INCOMPLETE,)


def test_what_concerns_the_run_itself_is_a_part_of_its_own():
    made = controlled(c_rome=[record("c_rome", "hard", 0, ratio=3.0)])
    assert told(made) == [("pocket-neo-ft", Verdict.PASS), ("run", Verdict.ERROR)]
    assert made.parts[1].sentences[0].startswith("ERROR: c_rome on 1 hard case of pocket-neo: 1 COLLAPSE")
    stopped = report([record("ft", "hard", 0)], interrupted=True)
    assert told(stopped)[1] == ("run", Verdict.INCOMPLETE)
    failing = report([record("ft", "hard", 0)], facts=facts(Unexplained(("test_it[a]: OSError: disk full",))))
    assert told(failing)[1] == ("run", Verdict.ERROR)
    assert "test_it[a]: OSError: disk full" in failing.parts[1].said


def test_controls_alone_are_a_verdict_on_the_run():
    made = report([], controls=[one for found in CONTROLS.values() for one in found])
    assert (told(made), made.exit_code) == ([("run", Verdict.PASS)], 0)


def test_a_model_without_a_control_is_named_and_required_to_have_one_where_that_is_asked():
    both = [record("ft", "hard", 0), record("ft", "hard", 0, model="a/gpt2-xl")]
    some = report(both, controls=CONTROLS["noop"])
    assert (report(both).uncontrolled, some.uncontrolled) == (("pocket-neo", "gpt2-xl"), ("gpt2-xl",))
    assert (some.verdict, controlled().uncontrolled) == (Verdict.PASS, ())
    plan = replace(some.plan, settings=replace(some.plan.settings, require_controls=True))
    required = replace(some, plan=plan)
    assert (required.verdict, required.exit_code, required.sound) == (Verdict.ERROR, 13, False)
    assert required.parts[-1].sentences == (
        "ERROR: no control was run on gpt2-xl, and controls are required (--require-controls)",
    )
    held = controlled()
    assert replace(held, plan=replace(held.plan, settings=plan.settings)).verdict is Verdict.PASS


def test_a_control_that_is_no_part_of_the_session_hides_no_later_one():
    made = controlled(rome=[])
    plan = controlled().plan
    kept = {r.case: r for r in (record("ft", "hard", 0), *CONTROLS["c_rome"], *CONTROLS["noop"])}
    assert [one.editor for one in RunReport.of(plan, DEFAULT, kept, RunFacts()).controls] == ["c_rome", "noop"]
    problem = Problem("pocket-neo", "rome", "rome needs a second moment.")
    tried = untried(rome=[], facts=facts(problem))
    assert [one.editor for one in tried.controls] == ["rome", "c_rome", "noop"]
    assert [one.editor for one in made.controls] == ["c_rome", "noop"]
