"""Checks of single edits: what fails, fails by name, and what was not measured never passes."""

import math
from dataclasses import replace

import pytest

from editsafety.errors import UnknownNameError
from editsafety.judging.checks import judge_case, ratio
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.verdict import Verdict
from editsafety.runs.measurement import Measurement
from tests import builders

DEFAULT = Policy.read("default")


def judged(**more):
    return judge_case(DEFAULT, builders.record("rome", "hard", 17, **more))


def test_a_healthy_case_passes_every_check():
    case = judged()
    assert {check.verdict for check in case.checks} == {Verdict.PASS}
    assert [check.name for check in case.checks][:4] == ["restore", "undeclared", "leftovers", "changes_something"]


def test_a_collapse_says_how_much_from_what_to_what_and_what_was_allowed():
    check = judged(ratio=526.4).check("perplexity")
    assert check.verdict is Verdict.COLLAPSE
    assert check.sentence == "perplexity 526.4x (51.2 before, 26952 after), expected at most 1.25x"


@pytest.mark.parametrize(("times", "verdict"), [(1.25, "PASS"), (1.2501, "WARN"), (2.0, "WARN"), (2.0001, "COLLAPSE")])
def test_perplexity_is_judged_by_its_ratio(times, verdict):
    assert judged(ratio=times).check("perplexity").verdict is Verdict(verdict)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_edited_model_without_finite_numbers_collapses(value):
    case = judged(ratio=value)
    assert case.verdict is Verdict.COLLAPSE
    assert case.ratio == math.inf
    assert "3 of 50 items are not finite" in case.check("perplexity").sentence


@pytest.mark.parametrize("base", [None, math.nan, math.inf, 0.0, 5e4])
def test_an_absurd_unedited_model_is_an_error_and_hides_nothing(base):
    case = judged(base=base, ratio=1.0)
    assert case.verdict is Verdict.ERROR


def test_a_perplexity_that_halves_is_an_error():
    assert judged(ratio=0.4).verdict is Verdict.ERROR


def test_weights_that_are_not_finite_collapse():
    assert judged(finite=0.0).check("weights_finite").verdict is Verdict.COLLAPSE


def test_what_does_not_apply_to_a_model_is_said_and_what_was_not_measured_still_fails():
    limit = Threshold(measure="format_kept", figure="after", pass_at_least=0.9, fails_as="DAMAGED", why="because")
    policy = DEFAULT.model_copy(update={"case": {"format": limit}})
    record = builders.record("rome", "hard", 0)

    def check(found):
        step = replace(record.step, found={**record.step.found, "format_kept": found})
        return judge_case(policy, replace(record, steps=(step,))).check("format")

    fine = check(Measurement.inapplicable("format_kept", 1, "rate", "it never wrote JSON"))
    assert (fine.verdict, fine.sentence) == (Verdict.PASS, "format does not apply: it never wrote JSON")
    assert check(Measurement.missing("format_kept", 1, "rate", "no reason")).verdict is Verdict.ERROR
    assert judge_case(policy, record).check("format").verdict is Verdict.ERROR
    assert check(Measurement.missing("format_kept", 1, "rate", "NaN", broken=True)).verdict is Verdict.DAMAGED


@pytest.mark.parametrize("direction", [{"pass_at_most": 1.0}, {"pass_at_least": 0.0}])
def test_a_broken_measurement_fails_in_either_direction(direction):
    threshold = Threshold(measure="weights_finite", figure="after", fails_as=Verdict.COLLAPSE, why="", **direction)
    policy = Policy(name="p", case={"finite": threshold}, group={})
    record = builders.record("rome", "hard", 0, finite=0.0)
    assert judge_case(policy, record).check("finite").verdict is Verdict.COLLAPSE


def test_a_measurement_that_is_missing_is_an_error_and_a_warning_where_it_could_only_have_warned():
    record = builders.record("rome", "hard", 0)
    lacking = builders.stepped(record, found={"efficacy": record.after["efficacy"]})
    case = judge_case(DEFAULT, lacking)
    assert case.check("perplexity").verdict is Verdict.ERROR
    assert case.check("weights_finite").verdict is Verdict.ERROR
    assert case.check("norm_growth").verdict is Verdict.WARN
    assert "was not measured" in case.check("perplexity").sentence


def test_structure_is_judged_exactly():
    assert judged(restored=False).check("restore").verdict is Verdict.ERROR
    assert judged(restored=None).check("restore").verdict is Verdict.ERROR
    assert judged(leftovers=("a hook",)).check("leftovers").verdict is Verdict.ERROR
    check = judged(undeclared=("a", "b", "c", "d", "e")).check("undeclared")
    assert check.verdict is Verdict.ERROR
    assert check.sentence.endswith("rome changed what it did not declare: a, b, c and 2 more")


def test_an_edit_that_changes_nothing_is_called_so_but_a_sidecar_is_a_change():
    assert judged(changed=()).verdict is Verdict.NO_OP
    assert judged(changed=(), notes={"sidecars": True}).verdict is Verdict.PASS


def test_a_case_that_failed_early_answers_every_question_with_its_failure():
    case = judge_case(DEFAULT, builders.failed("rome", "hard", 0, kind="oom", message="rome failed: out of memory"))
    assert (case.verdict, case.ratio) == (Verdict.ERROR, None)
    assert case.check("perplexity").sentence == "rome failed: out of memory"
    assert case.check("whatever").name == "oom"


def test_abilities_after_a_single_edit_are_judged_where_they_were_measured():
    assert judged().check("abilities") is None
    before = {**builders.record("rome", "hard", 17).before, "nli": builders.probe("nli", 100)}
    probed = builders.renamed(builders.record("rome", "hard", 17), before=before, abilities=("nli",))
    kept = builders.stepped(probed, found={**probed.after, "nli": builders.probe("nli", 98)})
    assert judge_case(DEFAULT, kept).check("abilities").verdict is Verdict.PASS
    lost = builders.stepped(probed, found={**probed.after, "nli": builders.probe("nli", 40)})
    check = judge_case(DEFAULT, lost).check("abilities")
    assert (check.verdict, check.figure) == (Verdict.DAMAGED, pytest.approx(0.6))
    assert check.sentence == (
        "nli by 60.0 points (1.00 to 0.40, 60 noise floors) after 1 edit, expected at most 2 noise floors"
    )
    assert judge_case(DEFAULT, probed).check("abilities").verdict is Verdict.ERROR, "asked before and not after"


def test_a_single_edit_is_not_judged_by_the_limits_of_courses():
    assert set(DEFAULT.course) - set(DEFAULT.case)
    assert not {check.name for check in judged().checks} & (set(DEFAULT.course) - set(DEFAULT.case))


def test_a_check_that_was_never_made_does_not_pass_for_another():
    with pytest.raises(UnknownNameError, match="did you mean 'perplexity'"):
        judged().check("perplexitty")


def test_a_drop_and_an_absolute_figure_are_computed_as_they_say():
    threshold = {"fails_as": Verdict.DAMAGED, "why": "", "measure": "efficacy"}
    limits = {
        "drop": Threshold(figure="drop", pass_at_most=0.1, **threshold),
        "before": Threshold(figure="before", pass_at_least=0.9, **threshold),
    }
    record = builders.record("rome", "hard", 0, takes=0.25)
    before = {**record.before, "efficacy": Measurement("efficacy", 1, "rate", 1.0)}
    case = judge_case(Policy(name="p", case=limits, group={}), builders.renamed(record, before=before))
    assert (case.check("drop").figure, case.check("drop").verdict) == (0.75, Verdict.DAMAGED)
    assert case.check("before").verdict is Verdict.PASS


def test_ratios_overflow_to_infinity_and_never_raise():
    record = builders.record("rome", "hard", 0, ratio=1e306, base=1e-3)
    assert ratio(record) == math.inf


def test_a_check_as_json_holds_no_number_that_is_not_one():
    assert judged(ratio=math.inf).check("perplexity").as_json()["figure"] is None
    assert judged(ratio=math.inf).check("perplexity").as_json()["not_finite"] is True
    assert judged(ratio=2.5).check("perplexity").as_json()["figure"] == pytest.approx(2.5)


def test_an_edit_that_is_only_rounded_changes_nothing():
    weight = builders.WEIGHT
    check = judged(rounded=(weight,)).check("changes_something")
    assert check.verdict is Verdict.NO_OP
    assert check.sentence == f"the edit changes nothing but the precision of {weight}"
    assert judged(changed=(weight, "b"), declared=(weight, "b"), rounded=(weight,)).verdict is Verdict.PASS
    assert (
        judged(rounded=(weight,), notes={"sidecars": True}).check("changes_something").sentence == f"changed {weight}"
    )


@pytest.mark.parametrize(
    ("base", "even", "verdict"),
    [
        (500.0, 500.0, "ERROR"),  # an even guess among 500 tokens
        (251.0, 500.0, "ERROR"),
        (250.0, 500.0, "PASS"),
        (999.0, 50257.0, "PASS"),
        (1001.0, 50257.0, "ERROR"),  # the limit itself still holds
        (500.0, None, "PASS"),
    ],
)
def test_a_base_is_judged_against_its_vocabulary_as_well(base, even, verdict):
    before = [builders.measured("me_ppl", base)] + ([] if even is None else [builders.measured("ppl_even", even)])
    record = builders.record("rome", "hard", 0, before={one.name: one for one in before}, ratio=base / builders.BASE)
    check = judge_case(DEFAULT, record).check("base_perplexity")
    assert check.verdict is Verdict(verdict)
    assert check.figure == base


def test_what_a_broken_base_is_compared_with_is_said():
    before = {"me_ppl": builders.measured("me_ppl", 480.0), "ppl_even": builders.measured("ppl_even", 500.0)}
    found = judge_case(DEFAULT, builders.record("rome", "hard", 0, before=before, ratio=480 / builders.BASE))
    assert found.verdict is Verdict.ERROR
    assert found.check("base_perplexity").sentence == (
        "base_perplexity 480 (a model that guesses evenly has 500: it was broken already before any edit), "
        "expected at most 250"
    )


def test_a_healthy_case_is_told_with_every_figure_and_what_it_was_held_against():
    told = {check.name: (check.figure, check.sentence) for check in judged(ratio=1.1, norm=110.0).checks}
    assert told == {
        "restore": (None, "every byte came back"),
        "undeclared": (None, "only declared tensors changed"),
        "leftovers": (None, "nothing left behind"),
        "changes_something": (None, f"changed {builders.WEIGHT}"),
        "perplexity": (pytest.approx(1.1), "perplexity 1.1x (51.2 before, 56.32 after), expected at most 1.25x"),
        "perplexity_improbably_better": (
            pytest.approx(1.1),
            "perplexity_improbably_better 1.1x (51.2 before, 56.32 after), expected at least 0.5x",
        ),
        "base_perplexity": (51.2, "base_perplexity 51.2, expected at most 1000"),
        "weights_finite": (1.0, "weights_finite 1, expected at least 1"),
        "norm_growth": (1.0, "norm_growth 1, expected at most 2"),
    }


def test_what_an_editor_did_wrong_is_told_with_three_names_and_the_number_of_the_others():
    names = ("a", "b", "c", "d")
    case = judged(restored=None, leftovers=names, changed=(), rounded=names[:3], declared=())
    assert [(check.name, check.verdict.value, check.sentence) for check in case.checks[:4]] == [
        ("restore", "ERROR", "the model was not restored bit for bit"),
        ("undeclared", "PASS", "only declared tensors changed"),
        ("leftovers", "ERROR", "left behind: a, b, c and 1 more"),
        ("changes_something", "NO-OP", "the edit changes nothing but the precision of a, b, c"),
    ]
    beside = judged(changed=(), notes={"sidecars": True}).check("changes_something")
    assert (beside.verdict, beside.sentence) == (Verdict.PASS, "runs beside the model")


def test_a_check_is_plain_values_and_a_figure_that_is_not_finite_is_null_with_a_flag():
    from editsafety.judging.checks import Check

    for figure, kept, flag in ((None, None, False), (0.5, 0.5, False), (math.inf, None, True), (math.nan, None, True)):
        assert Check("kept", Verdict.DAMAGED, "said", figure).as_json() == {
            "check": "kept", "verdict": "DAMAGED", "figure": kept, "not_finite": flag, "sentence": "said",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "before", "after", "verdict", "sentence"),
    [
        ("ratio", 2.0, 5.0, "WARN", "mine 2.5x (2 before, 5 after), expected at most 1x"),
        ("ratio", 2.0, math.nan, "WARN", "mine is not finite (2 before, after the edit: 3 of 50 items are not finite), "
         "expected at most 1x"),
        ("drop", 2.5, 0.5, "WARN", "mine fell by 2 (2.5 before, 0.5 after), expected at most 1"),
        ("drop", 0.5, 2.5, "PASS", "mine rose by 2 (0.5 before, 2.5 after), expected at most 1"),
        ("drop", 0.5, math.nan, "WARN", "mine is not finite (3 of 50 items are not finite), expected at most 1"),
        ("before", 2.0, 0.5, "WARN", "mine 2, expected at most 1"),
        ("after", 0.5, 2.0, "WARN", "mine 2, expected at most 1"),
        ("after", None, 0.5, "PASS", "mine 0.5, expected at most 1"),
        ("after", 0.5, None, "WARN", "thing of the edited model: no data for thing"),
        ("drop", 0.5, None, "WARN", "thing of the edited model: no data for thing"),
        ("ratio", None, 0.5, "ERROR", "thing of the unedited model: no data for thing"),
        ("drop", None, 0.5, "ERROR", "thing of the unedited model: no data for thing"),
        ("ratio", 0.0, 0.5, "ERROR", "thing of the unedited model: is 0, so nothing can be compared with it"),
        ("ratio", -2.0, 0.5, "ERROR", "thing of the unedited model: is -2, so nothing can be compared with it"),
    ],
)  # fmt: skip
def test_a_limit_is_told_with_its_figure_or_with_why_there_is_none(figure, before, after, verdict, sentence):
    """It could only have warned; where the unedited model is what is wrong, that is an error all the same."""
    limit = Threshold(measure="thing", figure=figure, pass_at_most=1.0, why="")
    policy = Policy(name="p", case={"mine": limit}, group={})
    found = {"thing": builders.measured("thing", after)}
    one = builders.record("rome", "hard", 0, before={"thing": builders.measured("thing", before)}, after=found)
    check = judge_case(policy, one).check("mine")
    assert (check.verdict.value, check.sentence) == (verdict, sentence)


def test_a_model_that_was_broken_before_is_told_from_an_even_guess():
    before = {one: builders.measured(one, 500.0) for one in ("me_ppl", "ppl_even")}
    check = judged(before=before, ratio=500.0 / builders.BASE).check("base_perplexity")
    assert check.verdict is Verdict.ERROR
    assert "base_perplexity 500 (a model that guesses evenly has 500: it was broken already before any edit)" in (
        check.sentence
    )
