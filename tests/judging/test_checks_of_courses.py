"""Courses judged: the running maximum, what is forgotten, what ability is lost. What is unfinished never passes."""

import math
from dataclasses import replace

import pytest

from editsafety.datasets.request import EditRequest
from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.verdict import Verdict
from editsafety.runs.case_record import Breaking, Failure, Step
from editsafety.runs.measurement import Measurement
from tests import builders
from tests.builders import BASE, course, measured, probe, step

DEFAULT = Policy.read("default")
UNEDITED = (probe("reasoning", 90), probe("nli", 100))


def check(name, *steps, **more):
    return judge_case(DEFAULT, course(*steps, **more)).check(name)


def test_a_healthy_course_passes_every_check():
    judged = judge_case(DEFAULT, course(step(10), step(20), step(30)))
    assert judged.verdict is Verdict.PASS
    assert judged.sentences == ()
    assert [one.name for one in judged.checks] == ["changes_something", *DEFAULT.course]


def test_a_model_that_recovers_after_a_collapse_has_still_collapsed():
    found = check("perplexity", step(10), step(20, ratio=800.0), step(30, ratio=1.1))
    assert found.verdict is Verdict.COLLAPSE
    assert found.sentence == "perplexity 800x at worst, after 20 edits, expected at most 1.25x"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_perplexity_that_is_no_number_at_any_step_is_a_collapse(value):
    found = check("perplexity", step(10), step(20, ratio=value), step(30))
    assert (found.verdict, found.figure) == (Verdict.COLLAPSE, math.inf)


def test_forgetting_is_judged_at_the_end_and_what_takes_on_average_over_all_edits():
    steps = (step(10, recent=1.0, kept=1.0, size=10), step(20, recent=0.5, kept=0.3, size=10))
    assert check("kept", *steps).verdict is Verdict.DAMAGED
    assert check("kept", *steps).figure == 0.3
    assert check("recent", *steps).figure == 0.75  # (10 x 1.0 + 10 x 0.5) / 20
    assert check("recent", *steps).verdict is Verdict.WARN
    uneven = (step(10, recent=1.0, size=10), step(15, recent=0.4, size=5))
    assert check("recent", *uneven).figure == pytest.approx(0.8)  # (10 x 1.0 + 5 x 0.4) / 15


def test_a_step_without_a_measurement_is_an_error_and_not_left_out():
    whole = step(20)
    bare = Step(20, whole.block, {name: one for name, one in whole.found.items() if name != "kept"})
    found = check("kept", step(10), bare)
    assert found.verdict is Verdict.ERROR
    assert "was not measured" in found.sentence


def test_a_course_under_way_is_incomplete_and_one_that_failed_an_error_whatever_came_before():
    assert judge_case(DEFAULT, course(step(10), ended="")).verdict is Verdict.INCOMPLETE
    failed = course(step(10), ended="failed", failure=Failure("editor", "rome failed: out of ideas"))
    judged = judge_case(DEFAULT, failed)
    assert judged.verdict is Verdict.ERROR
    assert judged.sentences[0].startswith("hard sequential: ERROR: the course stopped after 10 of 30 requests")
    assert judge_case(DEFAULT, course(ended="")).verdict is Verdict.INCOMPLETE


@pytest.mark.parametrize(
    ("left", "verdict"), [(90, "PASS"), (95, "PASS"), (88, "PASS"), (87, "WARN"), (85, "WARN"), (84, "DAMAGED")]
)
def test_an_ability_may_lose_two_noise_floors_and_warns_up_to_five_points(left, verdict):
    found = check("abilities", step(10, reasoning=left, nli=100), abilities=UNEDITED)
    assert found.verdict is Verdict(verdict)


def test_the_ability_that_lost_most_at_any_step_decides_and_is_named():
    found = check("abilities", step(10, reasoning=60, nli=99), step(20, reasoning=90, nli=100), abilities=UNEDITED)
    assert found.sentence == (
        "2 abilities, the greatest loss is reasoning by 30.0 points (0.90 to 0.60, 30 noise floors) after 10 edits, "
        "expected at most 2 noise floors"
    )


def test_an_ability_on_which_the_model_gives_no_numbers_is_lost():
    broken = step(10, nli=100)
    found = {
        **broken.found,
        "reasoning": Measurement.missing("reasoning", 1, "rate", "NaN", broken=True, n=100, items=(None,) * 100),
    }
    judged = check("abilities", Step(10, broken.block, found), abilities=UNEDITED)
    assert judged.verdict is Verdict.DAMAGED


def test_an_ability_that_was_measured_before_and_not_after_is_an_error():
    found = check("abilities", step(10, reasoning=90, nli=100), step(20, nli=100), abilities=UNEDITED)
    assert found.verdict is Verdict.ERROR
    assert "reasoning: was not measured after 20 edits" in found.sentence


def test_an_ability_asked_on_other_items_than_before_is_an_error():
    found = step(10, nli=100).found | {"reasoning": probe("reasoning", 45, of=50)}
    judged = check("abilities", Step(10, ("r10",), found), abilities=UNEDITED)
    assert judged.verdict is Verdict.ERROR
    assert "ask the same items" in judged.sentence


def test_rates_of_the_requests_are_no_abilities():
    record = course(step(10, reasoning=90, nli=100, kept=0.5), abilities=UNEDITED)
    record = replace(record, before={**record.before, "kept": measured("kept", 1.0)})
    found = judge_case(DEFAULT, record).check("abilities")
    assert found.verdict is Verdict.PASS
    assert found.sentence.startswith("2 abilities, ")


def test_without_abilities_there_is_no_check_of_them_and_a_limit_that_is_not_there_is_no_answer():
    judged = judge_case(DEFAULT, course(step(10)))
    assert judged.check("abilities") is None
    assert judged.check("whatever") is None


def test_a_course_that_stopped_answers_with_that_what_was_not_judged():
    failed = course(step(10), ended="failed", failure=Failure("oom", "rome failed: out of memory"))
    judged = judge_case(DEFAULT, failed)
    assert judged.check("perplexity").verdict is Verdict.PASS, "what was found before it failed is judged, too"
    assert judged.check("abilities").name == "walked"
    nothing = judge_case(DEFAULT, replace(failed, steps=()))
    assert nothing.check("perplexity").sentence == "the course stopped: rome failed: out of memory"


def test_an_unedited_model_that_has_no_perplexity_is_an_error_and_hides_nothing():
    for broken in (measured("me_ppl", math.nan, unit="perplexity"), measured("me_ppl", 0.0, unit="perplexity")):
        record = replace(course(step(10)), before={"me_ppl": broken})
        assert judge_case(DEFAULT, record).check("perplexity").verdict is Verdict.ERROR


def test_facts_in_one_batch_are_told_as_such():
    found = check("perplexity", step(1), step(10, ratio=9.0), kind="batch")
    assert found.sentence == "perplexity 9x at worst, after a batch of 10 edits, expected at most 1.25x"


def test_the_edit_that_broke_the_model_is_told_right_behind_the_worst_finding():
    request = EditRequest(id="hardcf-0017", prompt="{} works as a", subject="Ashurn", target_new="baker")
    broken = Breaking(17, (request,), ratio=512.0, ratio_before=1.03, alone=498.0)
    record = course(step(10), step(20, ratio=600.0), ended="collapsed", breaking=broken)
    first, second, third, *_ = judge_case(DEFAULT, record).sentences
    assert first.startswith("hard sequential: COLLAPSE: perplexity 600x")
    said = "hard sequential: edit 17 (hardcf-0017) broke the model: perplexity 1.03x before, 512x after, 498x alone"
    assert second == said
    assert third.startswith("hard sequential: likely cause: ")


def test_the_limit_past_which_a_course_stops_is_the_policys_own():
    assert DEFAULT.collapse == 2.0
    strict = {"measure": "me_ppl", "figure": "ratio", "pass_at_most": 1.5, "fails_as": "COLLAPSE", "why": "strict"}
    case = {"perplexity": strict}
    assert Policy(name="strict", case=case, group={}).collapse == 1.5
    assert Policy(name="none", case={"x": {**strict, "measure": "nll_per_token"}}, group={}).collapse == 2.0


def test_a_policy_without_limits_on_courses_says_so_and_passes_none():
    bare = DEFAULT.model_copy(update={"course": {}, "abilities": None, "name": "bare"})
    (check,) = judge_case(bare, course()).checks
    assert check.verdict is Verdict.ERROR
    assert "policy bare has no limit on courses" in check.sentence


def test_a_course_along_which_nothing_was_written_is_a_no_op_and_one_edit_is_enough_to_be_none():
    idle = [replace(step(edits), changed=()) for edits in (10, 20)]
    found = judge_case(DEFAULT, course(*idle))
    assert (found.verdict, found.sentences) == (
        Verdict.NO_OP,
        ("hard sequential: NO-OP: none of the edits changes anything",),
    )
    assert check("changes_something", idle[0], step(20)).verdict is Verdict.PASS
    beside = replace(idle[1], notes={"sidecars": True})
    assert check("changes_something", idle[0], beside).sentence == "runs beside the model"
    rounded = replace(idle[1], rounded=("w",))
    assert check("changes_something", rounded).sentence.endswith("but the precision of w")


def test_a_course_of_a_policy_without_limits_on_courses_is_an_error_although_something_was_written():
    lenient = DEFAULT.model_copy(update={"course": {}, "abilities": None})
    found = judge_case(lenient, course(step(10)))
    assert (found.verdict, found.check("walked").verdict) == (Verdict.ERROR, Verdict.ERROR)


@pytest.mark.parametrize("over", ["worst", "last", "mean"])
@pytest.mark.parametrize("limit", [{"pass_at_most": 9.0}, {"pass_at_least": 0.0}])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_number_that_is_none_at_any_step_is_worse_than_every_number(over, limit, place):
    """The largest and the smallest figure stand beside it, so that it is found whatever is looked for."""
    threshold = Threshold(measure="kept", figure="after", over=over, fails_as=Verdict.DAMAGED, why="", **limit)
    policy = DEFAULT.model_copy(update={"course": {"mine": threshold}})
    values = [0.1, 0.9, 0.5]
    values[place] = math.nan
    record = course(*(step(10 * (i + 1), kept=value) for i, value in enumerate(values)))
    found = judge_case(policy, record).check("mine")
    if over == "last" and place != 2:
        assert (found.verdict, found.figure) == (Verdict.PASS, 0.5)
    else:
        assert found.verdict is Verdict.DAMAGED
        assert math.isnan(found.figure)


def test_a_mean_counts_a_step_as_often_as_it_has_edits():
    """One edit that failed among a hundred that took, and the other way round."""
    few = (step(100, recent=1.0, size=100), step(101, recent=0.0, size=1))
    assert check("recent", *few).figure == pytest.approx(100 / 101)
    many = (step(1, recent=1.0, size=1), step(101, recent=0.0, size=100))
    assert check("recent", *many).figure == pytest.approx(1 / 101)
    assert check("recent", *many).verdict is Verdict.INEFFECTIVE


@pytest.mark.parametrize("names", [("reasoning", "nli"), ("nli", "reasoning")])
def test_an_ability_that_gives_no_numbers_is_worse_than_one_that_lost_all(names):
    """Of the same severity, so that only the order of figures can tell them apart."""
    unedited = tuple(one for name in names for one in UNEDITED if one.name == name)
    whole = step(10, reasoning=0, nli=100)
    broken = {**whole.found, "nli": Measurement.missing("nli", 1, "rate", "not finite", broken=True, n=100)}
    found = check("abilities", Step(10, whole.block, broken), abilities=unedited)
    assert found.verdict is Verdict.DAMAGED
    assert math.isnan(found.figure)
    assert "the greatest loss is nli: the model gives no finite numbers after 10 edits" in found.sentence


@pytest.mark.parametrize(("even", "verdict"), [(BASE * 1.01, "ERROR"), (BASE * 1.99, "ERROR"), (BASE * 2.01, "PASS")])
def test_a_course_of_a_model_that_was_broken_before_is_an_error(even, verdict):
    before = {one.name: one for one in (measured("me_ppl", BASE), measured("ppl_even", even))}
    judged = judge_case(DEFAULT, course(step(10), step(20), before=before))
    assert judged.verdict is Verdict(verdict)
    assert bool(judged.sentences) == (verdict == "ERROR")
    assert all("base_perplexity 51.2 (a model that guesses evenly has" in said for said in judged.sentences)


def test_a_base_that_passes_makes_no_course_pass_that_has_no_limits():
    policy = DEFAULT.model_copy(update={"course": {}, "abilities": None})
    assert judge_case(policy, course(step(10))).verdict is Verdict.ERROR


def test_what_an_editor_leaves_behind_at_any_step_is_an_error_and_named_once():
    steps = [replace(step(10), leftovers=("b", "a")), step(20), replace(step(30), leftovers=("a", "c", "d"))]
    found = judge_case(DEFAULT, course(*steps)).check("leftovers")
    assert (found.verdict, found.sentence) == (Verdict.ERROR, "left behind: b, a, c and 1 more")
    assert judge_case(DEFAULT, course(step(10))).check("leftovers") is None


def test_a_healthy_course_is_told_with_every_figure_where_it_was_and_what_it_was_held_against():
    steps = step(10, size=10), step(20, ratio=1.1, kept=0.9, growth=1.5, recent=0.96, size=20)
    record = course(*steps, abilities=[UNEDITED[1]])
    record = replace(record, steps=tuple(replace(one, found={**one.found, "nli": UNEDITED[1]}) for one in steps))
    assert [(one.figure, one.sentence) for one in judge_case(DEFAULT, record).checks] == [
        (None, "changed transformer.h.3.mlp.c_proj.weight"),
        (pytest.approx(1.1), "perplexity 1.1x at worst, after 20 edits, expected at most 1.25x"),
        (1.5, "norm_growth 1.5 at worst, after 20 edits, expected at most 2"),
        (pytest.approx(29.2 / 30), "recent 0.97 on average over 20 edits, expected at least 0.9"),
        (0.9, "kept 0.90 after 20 edits, expected at least 0.8"),
        (0.0, "nli by 0.0 points (1.00 to 1.00, 0 noise floors) after 10 edits, expected at most 2 noise floors"),
    ]


def test_where_several_steps_lack_a_measurement_they_are_counted():
    bare = [replace(one, found={n: m for n, m in one.found.items() if n != "kept"}) for one in (step(10), step(20))]
    assert check("kept", *bare).sentence == "kept: kept of 2 steps: was not measured"
    assert check("kept", *bare).verdict is DEFAULT.course["kept"].unjudged


def test_how_far_a_course_came_is_told():
    under_way = judge_case(DEFAULT, course(step(10), ended=""))
    assert under_way.check("walked").sentence == "10 of 30 requests were written; run it again"
    (bare,) = judge_case(DEFAULT, course(ended="")).checks
    assert bare.sentence == "0 of 30 requests were written; run it again"
    failure = Failure("editor", "rome failed: out of ideas")
    stopped = judge_case(DEFAULT, course(step(10), ended="failed", failure=failure))
    assert stopped.check("walked").sentence == "the course stopped after 10 of 30 requests: rome failed: out of ideas"


def test_several_edits_that_broke_a_model_are_named_and_what_they_do_alone_only_where_it_is_known():
    requests = tuple(builders.request("hard", i) for i in range(4))
    broken = Breaking(17, requests, ratio=math.inf, ratio_before=1.03)
    second = judge_case(DEFAULT, course(step(20, ratio=600.0), ended="collapsed", breaking=broken)).sentences[1]
    names = "hardcf-0000, hardcf-0001, hardcf-0002 and 1 more"
    assert second == f"hard sequential: edit 17 ({names}) broke the model: perplexity 1.03x before, not finite after"


def test_what_does_not_pass_is_told_the_most_severe_first():
    found = judge_case(DEFAULT, course(step(10, kept=0.1, growth=9.0, ratio=1.5)))
    assert found.verdict is Verdict.DAMAGED
    assert [one.split(": ")[1] for one in found.sentences] == ["DAMAGED", "WARN", "WARN"]
    assert found.breaks_at is None
    assert judge_case(DEFAULT, course(step(10), step(20, ratio=2.1))).breaks_at == 20
    assert judge_case(DEFAULT, course(step(10), step(20, ratio=2.0))).breaks_at is None
