"""Comparison: what a gate says of a run against what was accepted."""

import re
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.comparison import Comparison, Difference, Shift, compare
from editsafety.judging.baselines.tolerance import Tolerance
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.facts import EditorFacts, RunFacts
from tests.builders import FACTS, record, report

TOLERANCES = {
    "perplexity_ratio": Tolerance(better="lower", absolute=0.05, relative=0.05, each=True, why="of the test"),
    "efficacy": Tolerance(better="higher", absolute=0.02, why="of the test"),
    "locality": Tolerance(better="higher", absolute=0.02, tier="warning", why="of the test"),
}


def rows(n: int = 60, **of_the_last: Any) -> list[CaseRecord]:
    """Sixty good cases; `count` of them, the last ones, have other values."""
    count = of_the_last.pop("count", 0)
    return [record("rome", "normal", i, **(of_the_last if i >= n - count else {})) for i in range(n)]


def held(now: RunReport, then: RunReport | None = None, **more: Any) -> Comparison:
    accepted = AcceptedBaseline.of(report(rows()) if then is None else then)
    return compare(accepted, now, TOLERANCES, source="base.json", **more)


def test_the_same_run_again_differs_in_nothing():
    found = held(report(rows()))
    assert (found.differences, found.refused, found.compared) == ((), (), 60)


def test_ten_points_of_efficacy_lost_over_sixty_cases_regress_with_the_cases_named():
    found = held(report(rows(count=6, takes=0.0)))
    (one,) = [each for each in found.regressed if each.figure == "efficacy"]
    assert one.sentence.startswith(
        "normal: efficacy 1.00 before, 0.90 now over 60 cases (6 lost, 0 gained, McNemar p = 0.031)"
    )
    assert one.cases == tuple(f"pocket-neo-rome-normal-{i:04d}" for i in range(54, 60))


def test_a_loss_that_so_few_cases_cannot_show_is_called_that_and_stops_nothing():
    found = held(report(rows(count=5, takes=0.0)))
    (one,) = found.differences
    assert (one.shift, one.blocks, found.regressed) == (Shift.UNSHOWN, False, ())
    assert one.sentence.endswith("worse, but so few cases cannot show it")


def test_a_single_case_that_collapses_now_is_enough():
    found = held(report(rows(count=1, ratio=300.0)))
    assert [one.figure for one in found.regressed] == ["verdict", "perplexity_ratio"]
    assert found.regressed[0].sentence == "1 case PASS before, COLLAPSE now: pocket-neo-rome-normal-0059"


def test_a_model_that_gives_no_number_any_more_regresses():
    found = held(report(rows(count=1, ratio=float("inf"))))
    (one,) = [each for each in found.regressed if each.figure == "perplexity_ratio"]
    assert one.sentence.endswith("pocket-neo-rome-normal-0059 1 before, not finite now")


def test_perplexity_within_its_tolerance_is_the_same():
    assert held(report(rows(count=60, ratio=1.04))).differences == ()
    assert held(report(rows(count=1, ratio=1.06))).regressed[0].figure == "perplexity_ratio"


def test_no_tolerance_is_below_the_noise_that_was_measured():
    model = replace(FACTS.models["pocket-neo"], noise=0.2)
    noisy = replace(FACTS, models={"pocket-neo": model})
    now = report(rows(count=1, ratio=1.15), facts=noisy)
    assert compare(AcceptedBaseline.of(report(rows(), facts=noisy)), now, TOLERANCES, source="b").differences == ()


def test_a_tier_says_whether_a_loss_stops_the_gate():
    found = held(report(rows(count=30, local=0.5)))
    (one,) = [each for each in found.of(Shift.REGRESSED) if each.figure == "locality"]
    assert (one.tier, one.blocks, found.regressed) == ("warning", False, ())


def test_a_gain_is_told_and_stops_nothing():
    then = report(rows(count=30, takes=0.0))
    found = held(report(rows()), then)
    assert (found.of(Shift.IMPROVED)[0].figure, found.regressed) == ("efficacy", ())


def test_cases_that_are_new_or_gone_are_told():
    found = held(report(rows(50)), report(rows(55)))
    assert [(one.shift, len(one.cases)) for one in found.differences] == [(Shift.GONE, 5)]
    found = held(report(rows(55)), report(rows(50)))
    assert [(one.shift, len(one.cases)) for one in found.differences] == [(Shift.NEW, 5)]


def test_a_case_that_is_asked_something_else_is_another_case():
    changed = rows()
    other = replace(changed[0].requests[0], target_new="fisher")
    changed[0] = record("rome", "normal", 0, request=other)
    assert {one.shift for one in held(report(changed)).differences} == {Shift.NEW, Shift.GONE}


def test_an_editor_that_was_not_accepted_is_new_and_one_that_did_not_run_is_gone():
    both = [*rows(), *(record("ft", "normal", i) for i in range(3))]
    assert [one.shift for one in held(report(both)).differences] == [Shift.NEW]
    assert [one.shift for one in held(report(rows()), report(both)).differences] == [Shift.GONE]


def test_a_run_that_has_no_case_in_common_with_what_was_accepted_is_no_pass():
    other = [record("mine", "normal", i) for i in range(3)]
    apart = held(report(other))
    assert apart.incomparable == (
        "it is of rome on pocket-neo, and this run of mine on pocket-neo: give the same --editor and --model",
    )
    elsewhere = held(report([record("rome", "hard", i) for i in range(3)]))
    assert elsewhere.incomparable == (
        "no case of it is in this run, of rome on pocket-neo: give the same requests and -k",
    )
    judged = replace(report(other), against=apart)
    assert (judged.verdict, judged.exit_code) == (Verdict.ERROR, 13)
    assert held(report([*rows(), *other])).incomparable == ()


@pytest.mark.parametrize(("field", "value"), [("fingerprint", "e" * 64), ("dtype", "bfloat16"), ("attention", "sdpa")])
def test_another_condition_is_refused_by_name_unless_it_is_allowed(field: str, value: str) -> None:
    name = {"fingerprint": "weights"}.get(field, field)
    model = replace(FACTS.models["pocket-neo"], **{field: value})
    now = report(rows(count=30, takes=0.0), facts=replace(FACTS, models={"pocket-neo": model}))
    found = held(now)
    assert (found.differences, found.compared, len(found.refused)) == ((), 0, 1)
    assert f"rome on pocket-neo: {name} (" in found.refused[0]
    found = held(now, allow=(name,))
    assert (found.refused, len(found.allowed), found.compared) == ((), 1, 60)
    assert found.regressed


def test_other_numbers_of_the_editor_are_what_is_under_test_and_are_told():
    facts = list(FACTS.editors.values())
    made = EditorFacts("pocket-neo", "rome", {**facts[0].hparams, "v_num_grad_steps": 5}, "d" * 64)
    now: RunFacts = replace(FACTS, editors={("pocket-neo", "rome"): made})
    said = [one.sentence for one in held(report(rows(), facts=now)).of(Shift.CHANGED)]
    assert said == [
        "its code is not that of then",
        "hparams.v_num_grad_steps 20 before, 5 now",
    ]


def test_an_unchanged_editor_run_again_a_hundred_times_never_regresses():
    """With the churn of another machine: perplexity moves by up to 1e-3, and one case in a hundred tips either way."""
    generator = Random(3)

    def again() -> RunReport:
        takes = [float(generator.random() >= 0.01) for _ in range(60)]
        ratios = [1.0 + generator.uniform(-1e-3, 1e-3) for _ in range(60)]
        return report([record("rome", "normal", i, takes=takes[i], ratio=ratios[i]) for i in range(60)])

    then = again()
    assert [found.regressed for _ in range(100) if (found := held(again(), then)).regressed] == []


def numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"pocket-neo-rome-normal-{i:04d}" for i in range(first, last))


def test_every_difference_is_told_whole_the_blocking_ones_first():
    """Thirty cases half as bad again, the last one worst; two were not run, one is new."""
    changed = rows(60, count=30, ratio=1.5, local=0.5)[:58]
    now = report([*changed[:57], record("rome", "normal", 57, ratio=1.75, local=0.5), record("rome", "normal", 60)])
    each, whole, kept, new, gone = held(now).differences
    told = {"model": "pocket-neo", "editor": "rome"}
    blocking, worse = {"tier": "blocking", **told}, numbers(30, 57)
    worst = numbers(57, 58)[0]
    assert each == Difference(
        Shift.REGRESSED, sentence=f"perplexity_ratio of 28 of 58 cases worse, {worst} 1 before, 1.75 now",
        figure="perplexity_ratio", cases=(worst, *worse), **blocking,
    )  # fmt: skip
    assert re.fullmatch(
        r"normal: perplexity_ratio 1 before, 1.246 now over 58 cases \(95% interval of the loss 0\.1\d to 0\.3\d\): "
        rf"{worst}, {worse[0]}, {worse[1]} and 25 more",
        whole.sentence,
    )
    assert replace(whole, sentence="") == Difference(
        Shift.REGRESSED, sentence="", figure="perplexity_ratio", cases=(worst, *worse), **blocking
    )
    assert (kept.shift, kept.tier, kept.figure, kept.cases) == (
        Shift.REGRESSED, "warning", "locality", (*worse, worst),
    )  # fmt: skip
    said = f"2 cases of the baseline not run: {', '.join(numbers(58, 60))}"
    assert gone == Difference(Shift.GONE, "warning", sentence=said, cases=numbers(58, 60), **told)
    said = f"1 case not in the baseline: {numbers(60, 61)[0]}"
    assert new == Difference(Shift.NEW, "informative", sentence=said, cases=numbers(60, 61), **told)


def test_three_cases_are_named_and_the_others_counted():
    found = held(report(rows(count=3, ratio=300.0))).regressed[0]
    assert found.sentence == f"3 cases PASS before, COLLAPSE now: {', '.join(numbers(57, 60))}"
    found = held(report(rows(count=4, ratio=300.0))).regressed[0]
    assert found.sentence == f"4 cases PASS before, COLLAPSE now: {', '.join(numbers(56, 59))} and 1 more"
    assert (found.tier, found.figure, found.cases) == ("blocking", "verdict", numbers(56, 60))


def test_a_verdict_that_became_milder_is_an_improvement_and_a_warning_no_regression():
    then = report(rows(count=1, ratio=300.0))
    (one, *_) = held(report(rows()), then).of(Shift.IMPROVED)
    assert one.sentence == f"1 case COLLAPSE before, PASS now: {numbers(59, 60)[0]}"
    (found,) = held(report(rows(count=1, ratio=1.3))).differences
    assert (found.figure, found.shift) == ("perplexity_ratio", Shift.REGRESSED)


def test_what_improved_is_told_with_both_figures_and_names_no_case():
    then = report(rows(count=30, local=0.5))
    (one,) = held(report(rows()), then).differences
    assert re.fullmatch(
        r"normal: locality 0\.75 before, 1\.00 now over 60 cases \(95% interval of the loss -0\.3\d? to -0\.1\d\)",
        one.sentence,
    )
    assert (one.shift, one.tier, one.cases) == (Shift.IMPROVED, "warning", ())


def test_an_interval_needs_six_cases():
    """Five of the six lose a half: their interval is past 0; five alone are too few, whatever they lose."""
    then, now = report(rows(5)), report(rows(5, count=5, local=0.5))
    (few,) = held(now, then).of(Shift.UNSHOWN)
    assert few.sentence == (
        "normal: locality 1.00 before, 0.50 now over 5 cases (5 cases, at least 6 needed); worse, but so few cases "
        "cannot show it"
    )
    six = held(report(rows(6, count=6, local=0.5)), report(rows(6))).of(Shift.REGRESSED)
    assert six[0].sentence.startswith(
        "normal: locality 1.00 before, 0.50 now over 6 cases (95% interval of the loss 0.5 to 0.5): "
    )


def test_an_interval_that_holds_0_shows_nothing():
    now = [record("rome", "normal", i, local=0.0 if i < 1 else 0.9 if i < 2 else 1.0) for i in range(20)]
    (one,) = held(report(now), report(rows(20))).differences
    assert (one.shift, one.figure) == (Shift.UNSHOWN, "locality")
    assert "95% interval of the loss 0 to 0.1" in one.sentence


def test_a_broken_rate_counts_as_nothing_and_a_broken_perplexity_is_left_to_its_case():
    now = rows(count=6, ratio=float("inf"), takes=float("nan"))
    found = held(report(now))
    assert [one.figure for one in found.regressed] == ["verdict", "perplexity_ratio", "efficacy"]
    assert "efficacy 1.00 before, 0.90 now over 60 cases (6 lost, 0 gained" in found.regressed[-1].sentence


def test_an_editor_that_was_not_accepted_or_not_run_is_told_by_its_name_and_the_others_are_compared():
    both = [*rows(), *(record("ft", "normal", i) for i in range(3))]
    (new,) = held(report(both)).differences
    assert new == Difference(Shift.NEW, "informative", "pocket-neo", "ft", "ft on pocket-neo is not in the baseline")
    found = held(report(rows()), report(both))
    said = "ft on pocket-neo was accepted and was not run"
    assert found.differences == (Difference(Shift.GONE, "warning", "pocket-neo", "ft", said),)
    assert (found.compared, found.held, found.source) == (60, True, "base.json")


def test_a_long_condition_is_told_by_its_beginning():
    model = replace(FACTS.models["pocket-neo"], fingerprint="e" * 64)
    found = held(report(rows(), facts=replace(FACTS, models={"pocket-neo": model})))
    assert found.refused == (
        "rome on pocket-neo: weights (fingerprint of the unedited model's weights) ffffffffffff... in the baseline, "
        "eeeeeeeeeeee... now",
    )
    assert not found.held


def test_a_relative_tolerance_is_of_the_accepted_figure():
    """A twentieth of 10 is a half; of the noise of 1e-7 it would be nothing."""
    then = report([record("rome", "normal", i, ratio=10.0) for i in range(9)])
    assert held(report([record("rome", "normal", i, ratio=10.4) for i in range(9)]), then).differences == ()
    found = held(report([record("rome", "normal", i, ratio=10.6) for i in range(9)]), then)
    assert [one.figure for one in found.regressed] == ["perplexity_ratio", "perplexity_ratio"]
