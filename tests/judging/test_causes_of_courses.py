"""Causes: what the end of a course is put down to, from records made by hand."""

import math
from dataclasses import replace

import pytest

from editsafety.judging import causes
from editsafety.runs.case_record import Breaking, Step
from editsafety.runs.schedule import Schedule
from tests import builders
from tests.builders import measured, record
from tests.judging.test_causes import FALL, NORMAL, stays, weighed


def walked(ratios, *, breaking=None, drift=(), notes=(), kept=(), finite=True):
    """A course measured at every edit."""
    steps = []
    for i, ratio in enumerate(ratios):
        found = {"me_ppl": measured("me_ppl", builders.BASE * ratio, unit="perplexity")}
        found |= {name: measured(name, values[i], unit="ratio") for name, values in drift}
        found |= {"kept": measured("kept", kept[i])} if kept else {}
        found |= {} if finite else {"drift_relative": measured("drift_relative", math.nan)}
        steps.append(Step(i + 1, (f"normal-{i:04d}",), found, notes[i] if notes else {}))
    return builders.course(*steps, editor="memit", ended="collapsed", breaking=breaking)


def of_course(record):
    return causes.of_course(record, limit=2.0)


def broke(edits, alone, **more):
    return Breaking(edits, (builders.request("normal", edits),), 9.0, 1.8, alone, **more)


def test_a_course_that_did_not_break_has_no_cause():
    assert of_course(walked([1.0, 1.1, 2.0])) == ()


def test_edits_that_are_harmless_alone_add_up():
    drift = [
        ("drift_relative", [0.3, 2.0, 5.2]),
        ("drift_condition", [1.0, 2.0, 200.0]),
        ("drift_growth", [1.0, 1.0, 1.1]),
    ]
    record_ = walked([1.0, 1.8, 9.0], breaking=broke(3, 1.01), drift=drift, kept=[1.0, 0.9, 0.31])
    (cause,) = of_course(record_)
    assert cause.kind == "accumulation"
    assert cause.sentence == (
        "edit 3 is harmless alone (1.01x) and takes the model from 1.80x to 9.00x: the edits add up (cond(W) / "
        "cond(W0) from 1 to 200, ||W - W0|| / ||W0|| from 0.3 to 5.2); 0.31 of all edits are still said"
    )
    assert "AlphaEdit, RECT or PRUNE" in cause.advice
    assert cause.figures["drift_relative_last"] == 5.2


def test_a_hard_case_inside_a_sequence_is_told_from_an_accumulation():
    drift = [("drift_relative", [0.3, 0.5, 90.0])]
    notes = [NORMAL, {**NORMAL, "denominator": 10.0}, FALL]
    record_ = walked([1.0, 1.0, 379.0], breaking=broke(3, 379.0, notes=FALL), drift=drift, notes=notes)
    found = of_course(record_)
    assert [cause.kind for cause in found] == ["hard_case", "denominator"]
    assert found[0].sentence == "edit 3 (normal-0003) breaks the unedited model as well (379x): a hard case"
    assert "denominator 0.04 where edits that stay have 9.6 to 10" in found[1].sentence


def test_a_batch_that_is_too_large_is_no_hard_case():
    requests = tuple(builders.request("normal", i) for i in range(50))
    record_ = replace(
        walked([1.0, 1.3, 40.0], breaking=Breaking(50, requests, 40.0, 1.0, 40.0)),
        schedule=Schedule("batch", (1, 2, 50)),
    )
    assert of_course(record_)[0].sentence == ("a batch of 50 breaks the unedited model (40x); batches of up to 2 stay")


def test_a_course_without_a_bisection_is_explained_by_what_grew():
    record_ = walked([1.0, 9.0], drift=[("drift_relative", [0.3, 5.2])])
    (cause,) = of_course(record_)
    assert cause.sentence.startswith(
        "the model is broken after 2 edits: the edits add up (||W - W0|| / ||W0|| from 0.3"
    )
    (nothing,) = of_course(walked([1.0, 9.0]))
    assert nothing.kind == "unknown"


def test_edits_that_are_made_apart_do_not_add_up():
    record_ = replace(walked([1.0, 9.0], drift=[("drift_relative", [0.3, 5.2])]), schedule=Schedule("batch", (1, 50)))
    assert [cause.kind for cause in of_course(record_)] == ["unknown"]


def test_a_course_whose_weights_are_no_numbers_says_so():
    found = of_course(walked([1.0, math.inf], finite=False))
    assert found[0].kind == "non_finite"


GROWN = [("drift_relative", [0.3, 0.4, 3.0]), ("drift_spectral", [1.0, 1.2, 1.49]), ("drift_growth", [1.1, 1.2, 1.5])]


@pytest.mark.parametrize(("alone", "said"), [(1.25, "harmless"), (1.26, "no collapse"), (2.0, "no collapse")])
def test_an_accumulation_is_told_with_all_that_grew_by_half(alone, said):
    (cause,) = of_course(walked([1.0, 1.8, 9.0], breaking=broke(3, alone), drift=GROWN))
    assert cause.sentence == (
        f"edit 3 is {said} alone ({alone:.2f}x) and takes the model from 1.80x to 9.00x: the edits add up "
        "(||W - W0|| / ||W0|| from 0.3 to 3, ||W|| / ||W0|| from 1 to 1.5)"
    )
    assert cause.advice == "fewer edits, larger batches, or AlphaEdit, RECT or PRUNE, which restrain what adds up"
    assert cause.strength == pytest.approx(2.0)  # ten times the first distance
    assert cause.figures == {
        "drift_relative_first": 0.3, "drift_relative_last": 3.0, "drift_growth_first": 1.0, "drift_growth_last": 1.5,
        "alone": alone, "ratio": 9.0,
    }  # fmt: skip


def test_an_accumulation_of_which_only_the_bisection_is_known_and_one_of_alphaedit():
    (cause,) = of_course(walked([1.0, 9.0], breaking=broke(2, 1.0)))
    assert (
        cause.sentence == "edit 2 is harmless alone (1.00x) and takes the model from 1.80x to 9.00x: the edits add up"
    )
    assert (cause.strength, cause.figures) == (1.0, {"alone": 1.0, "ratio": 9.0})
    (cause,) = of_course(replace(walked([1.0, 9.0], breaking=broke(2, 1.0)), editor="alphaedit"))
    assert cause.advice == "fewer edits, larger batches, or RECT or PRUNE, which restrain what adds up"


def test_the_advice_on_a_hard_case_names_c_rome_only_to_rome():
    record_ = walked([1.0, 379.0], breaking=broke(2, math.inf))
    (cause,) = of_course(record_)
    assert (cause.kind, cause.strength, cause.figures) == ("hard_case", 9.0, {"edits": 2.0, "ratio": 9.0})
    assert cause.advice == "leave it out, or use a method that stands it"
    (cause,) = of_course(replace(record_, editor="rome"))
    assert cause.advice.endswith("a method that stands it (c_rome, for a subject in first place)")


def test_a_batch_is_told_with_its_figures_and_without_sizes_that_stay_where_none_does():
    requests = tuple(builders.request("normal", i) for i in range(50))
    breaking = Breaking(50, requests, 40.0, 1.0, 100.0)
    batches = replace(walked([3.0, 3.0, 40.0], breaking=breaking), schedule=Schedule("batch", (1, 2, 50)))
    (cause,) = of_course(batches)
    assert cause.sentence == "a batch of 50 breaks the unedited model (100x)"
    assert (cause.advice, cause.strength) == ("smaller batches on top of each other (batch-sequential)", 2.0)
    assert cause.figures == {"edits": 50.0, "alone": 100.0, "ratio": 40.0}
    on_top = replace(walked([1.0, 1.3, 40.0], breaking=breaking), schedule=Schedule("sequential", every=10))
    assert of_course(on_top)[0].sentence == "a batch of 50 breaks the unedited model (100x)"
    one = replace(walked([1.0, 40.0], breaking=broke(1, 9.0)), schedule=Schedule("batch", (1, 50)))
    assert [cause.kind for cause in of_course(one)] == ["unknown"]


def test_a_course_that_broke_between_two_steps_is_explained_by_the_edit_that_broke_it():
    """The measured steps stand; only the bisection between them found it."""
    record_ = walked([1.0, 1.1], breaking=broke(2, 1.0, notes=FALL), notes=[NORMAL, NORMAL])
    accumulated, denominator = of_course(record_)[::-1]
    assert (accumulated.kind, denominator.kind) == ("accumulation", "denominator")
    assert "denominator 0.04 where edits that stay have 9.6" in denominator.sentence


def test_where_nothing_is_known_of_an_edit_its_place_holds_a_question_mark_or_a_dash():
    unnamed = Breaking(2, (), 9.0, 1.8, 9.0)
    (cause,) = of_course(walked([1.0, 9.0], breaking=unnamed))
    assert cause.sentence == "edit 2 (?) breaks the unedited model as well (9.00x): a hard case"
    held = record("grace", "hard", 0, ratio=9.0, notes={"value_norm": 90.0})
    (cause,) = causes.of_case(held, stays(value_norm=7.0))
    assert cause.sentence == "the new value overshoots: ||v|| is 90 where edits that stay have 7 to 9.1"
    gone = weighed(record("kn", "hard", 0, ratio=9.0, notes={"neurons": 2}), delta_large_share=0.5)
    assert causes.of_case(gone, ())[0].figures == {"neurons": 2.0, "delta_large_share": 0.5}
