"""Causes: what a collapse is put down to, from records made by hand. Figures are those the papers or real runs give."""

import math

import pytest

from editsafety.judging import causes
from editsafety.runs.measurement import Measurement
from tests.builders import measured, record, report, stepped
from tests.judging.collapses import FALL, NORMAL, kinds, stays, weighed


def test_the_published_collapse_is_put_down_to_its_denominator_and_c_rome_is_named():
    (cause,) = causes.of_case(record("rome", "hard", 0, ratio=379.0, notes=FALL), stays(**NORMAL))
    assert cause.kind == "denominator"
    assert cause.sentence == (
        "denominator 0.04 where edits that stay have 9.6 to 12: the subject is one token in first place"
    )
    assert cause.advice == "keys from prefixed contexts (c_rome, r_rome) avoid it (The Fall of ROME, arXiv 2406.11263)"
    assert cause.text == f"{cause.sentence}; {cause.advice}"
    assert cause.figures["usual_low"] == 9.6
    assert cause.figures["numerator"] == 168.55


def test_where_an_edit_that_stays_has_as_little_the_median_shows_what_is_apart():
    """A hard request that did no harm has 0.02 here, less than the one that collapsed; the others have 9.6 to 12.48."""
    harmless = record("rome", "hard", 9, ratio=1.0, notes={**NORMAL, "denominator": 0.02})
    (cause,) = causes.of_case(record("rome", "hard", 0, ratio=379.0, notes=FALL), [*stays(**NORMAL), harmless])
    assert cause.sentence.startswith(
        "denominator 0.04 where edits that stay have a median of 11 (0.02 to 12): the subject"
    )


def test_the_sign_of_a_denominator_is_no_cause():
    one = record("rome", "hard", 0, ratio=3.0, notes={**NORMAL, "denominator": -9.6})
    assert kinds(one, stays(**NORMAL)) == ["unknown"]


@pytest.mark.parametrize(("denominator", "kind"), [(0.11 * 11.04, "unknown"), (0.09 * 11.04, "denominator")])
def test_a_denominator_is_tiny_below_a_tenth_of_the_usual_one(denominator, kind):
    """The median of the edits that stay is 9.6 x 1.15."""
    one = record("rome", "hard", 0, ratio=3.0, notes={**NORMAL, "denominator": denominator})
    assert kinds(one, stays(**NORMAL)) == [kind]


def test_c_rome_is_no_advice_to_an_editor_whose_keys_are_not_mixed():
    notes = {**FALL, "keys": "prefixed"}
    (cause,) = causes.of_case(record("c_rome", "hard", 0, ratio=9.0, notes=notes), stays("c_rome", **NORMAL))
    assert (cause.kind, cause.advice) == ("denominator", "")


def test_where_nothing_stays_keys_that_are_apart_are_the_evidence():
    notes = {**FALL, "key_agreement": 0.08}
    (cause,) = causes.of_case(record("rome", "hard", 0, ratio=9.0, notes=notes), ())
    assert cause.kind == "denominator"
    assert "(cosine 0.08): the subject is one token in first place" in cause.sentence
    assert kinds(record("rome", "hard", 0, ratio=9.0, notes={**FALL, "key_agreement": 0.95}), ()) == ["unknown"]


def test_a_value_far_from_the_old_one_overshoots():
    one = record("rome", "hard", 0, ratio=9.0, notes={**NORMAL, "numerator": 900.0, "update_norm": 94.0})
    (cause,) = causes.of_case(one, stays(**NORMAL))
    assert cause.kind == "overshoot"
    assert cause.sentence == "the new value overshoots: ||v* - v0|| is 900 where edits that stay have 80 to 104"


def test_of_two_causes_the_one_farther_from_the_usual_comes_first():
    small = record("rome", "hard", 0, ratio=9.0, notes={**NORMAL, "numerator": 400.0, "denominator": 0.096})
    large = record("rome", "hard", 0, ratio=9.0, notes={**NORMAL, "numerator": 80_000.0, "denominator": 0.8})
    assert kinds(small, stays(**NORMAL)) == ["denominator", "overshoot"]  # 115 and 4.4 times
    assert kinds(large, stays(**NORMAL)) == ["overshoot", "denominator"]  # 870 and 14 times


def test_an_update_that_is_too_large_is_the_cause_where_nothing_says_why():
    usual = [weighed(one, delta_relative=0.3) for one in stays("mine")]
    one = weighed(record("mine", "hard", 0, ratio=9.0), delta_relative=3.0)
    (cause,) = causes.of_case(one, usual)
    assert cause.sentence == "the update is too large: ||dW|| / ||W|| is 3 where edits that stay have 0.3"
    assert kinds(weighed(one, delta_relative=0.8), usual) == ["unknown"]
    assert kinds(one) == ["norm"]  # as large as the weight: no comparison is needed
    assert kinds(weighed(one, delta_relative=0.8)) == ["unknown"]


def test_a_tiny_denominator_makes_the_size_of_the_update_no_second_cause():
    one = weighed(record("rome", "hard", 0, ratio=379.0, notes=FALL), delta_relative=99.8)
    assert kinds(one, stays(**NORMAL)) == ["denominator"]


def test_weights_that_are_not_finite_are_named_before_anything_weaker():
    one = record("ft", "hard", 0, ratio=math.inf, finite=0.0, norm=math.inf)
    cause = causes.of_case(one, stays("ft"))[0]
    assert cause.kind == "non_finite"
    assert cause.sentence == "the edit leaves weights that are not finite (3 of 50 items are not finite)"


def test_a_denominator_explains_weights_that_are_not_finite():
    one = record("rome", "hard", 0, ratio=math.inf, finite=0.0, notes=FALL)
    assert kinds(one, stays(**NORMAL)) == ["denominator", "non_finite"]


def test_logits_that_are_not_finite_are_told_from_weights_and_from_an_overflowing_perplexity():
    one = record("ft", "hard", 0, ratio=math.inf)
    (cause,) = causes.of_case(one, ())
    assert cause.sentence == "the weights are finite, the logits are not: 3 of 50 items are not finite"
    over = stepped(one, found={**one.after, "nll_per_token": measured("nll_per_token", 800.0, unit="nat")})
    assert kinds(over) == ["unknown"]


def test_training_that_diverged_or_went_too_far_was_learning_too_hard():
    usual = [weighed(one, delta_relative=0.1) for one in stays("ft", loss_at_stop=0.01, update_norm=2.1)]
    far = record("ft", "hard", 0, ratio=4.0, notes={"loss_at_stop": 1e-6, "update_norm": 40.0})
    (cause,) = causes.of_case(weighed(far, delta_relative=1.9), usual)
    assert cause.sentence == (
        "learnt too hard down to a loss of 1e-6: the update is 40 where edits that stay have 2.1 to 2.7, "
        "1.9 of the weight's own norm"
    )
    lost = record("ft", "hard", 0, ratio=4.0, notes={"loss_at_stop": "nan", "update_norm": 2.0})
    assert causes.of_case(lost, usual)[0].sentence == "the training diverged: its loss was nan at the end"


def test_knowledge_neurons_are_rewritten_for_every_text():
    notes = {"neurons": 16, "layers": 3, "value_norm": 6.3, "update_norm": 25.2}
    usual = stays("kn", neurons=15, value_norm=2.5, update_norm=9.6)
    (cause,) = causes.of_case(record("kn", "hard", 0, ratio=40.0, notes=notes), usual)
    assert cause.kind == "neurons"
    assert cause.sentence.startswith("16 neurons in 3 layers are rewritten for every text that fires them")
    assert "2401.04700" in cause.advice


def test_a_neuron_that_writes_a_massive_activation_is_named():
    """The figures of SmolLM2-135M, whose neuron 1229 of layer 11 writes 16,000 where the rest adds 10 or so."""
    notes = {
        "neurons": 4,
        "layers": 2,
        "update_norm": 12.9,
        "loudest": 1600.0,
        "loudest_neuron": "neuron 1229 of layer 11",
    }
    usual = stays("kn", neurons=6, update_norm=12.0, loudest=0.5)
    (cause,) = causes.of_case(record("kn", "hard", 0, ratio=143.0, notes=notes), usual)
    assert cause.kind == "neurons"
    assert cause.sentence == (
        "neuron 1229 of layer 11 is rewritten, which every text is read around (a massive activation, "
        "arXiv 2402.17762): at one token it writes 1600 times what its MLP does, where edits that stay have 0.5 to 0.65"
    )
    assert cause.figures["loudest"] == 1600.0
    quiet = {**notes, "loudest": 9.9}
    (cause,) = causes.of_case(record("kn", "normal", 0, ratio=143.0, notes=quiet), ())
    assert cause.sentence.startswith("4 neurons in 2 layers are rewritten for every text that fires them")


def test_weights_taken_away_wholesale_are_the_cause():
    one = record("kn", "hard", 0, ratio=40.0)
    growth = Measurement("norm_growth", 1, "ratio", 1.0, n=2, items=(1.0, 0.1))
    emptied = weighed(stepped(one, found={**one.after, "norm_growth": growth}), delta_large_share=0.99)
    cause = causes.of_case(emptied, ())[0]
    assert cause.kind == "emptied"
    assert "||W + dW|| is 0.1 of ||W||; 99 % of the touched entries" in cause.sentence


def test_a_sidecar_that_breaks_a_model_speaks_where_it_was_not_asked():
    one = record("grace", "hard", 0, ratio=40.0, changed=(), local=0.33, notes={"sidecars": True, "epsilon": 9.0})
    cause = causes.of_case(one, ())[0]
    assert cause.kind == "sidecar"
    assert "(neighbours keep 0.33 of their answers), epsilon 9" in cause.sentence


def test_where_no_signal_stands_out_that_is_said_with_the_figures():
    one = record("rome", "hard", 0, ratio=9.0, notes=NORMAL)
    (cause,) = causes.of_case(one, stays(**NORMAL))
    assert cause.kind == "unknown"
    assert cause.sentence.startswith("no cause found: no signal stands out (denominator 9.6 where edits that stay")
    (alone,) = causes.of_case(one, [one])  # nothing but itself: no comparison
    assert alone.sentence.startswith(
        "no cause found, and no edit stays that it could be compared with: denominator 9.6"
    )
    bare = stepped(one, notes={}, found={"me_ppl": one.after["me_ppl"]})
    assert causes.of_case(bare, ())[0].sentence == (
        "no cause found: the edit tells nothing about itself that could be compared"
    )


@pytest.mark.parametrize("note", ["0.003", math.nan, math.inf, True, None, [1], "<script>"])
def test_notes_that_are_no_numbers_prove_nothing(note):
    odd = dict.fromkeys(("denominator", "numerator", "update_norm", "neurons", "epsilon", "value_norm"), note)
    assert kinds(record("rome", "hard", 0, ratio=9.0, notes=odd), stays(**NORMAL)) == ["unknown"]
    ordinary = record("rome", "hard", 0, ratio=9.0, notes=NORMAL)
    assert kinds(ordinary, [record("rome", "normal", 1, notes=odd)]) == ["unknown"]


def test_every_figure_of_every_cause_is_finite_and_every_collapse_has_one():
    made = report([record("rome", "hard", i, ratio=r, notes=FALL) for i, r in enumerate((9.0, math.inf, math.nan))])
    (group,) = made.groups
    for case in group.cases:
        (cause,) = group.causes(case)
        assert all(math.isfinite(x) for x in cause.figures.values())
    fine = report([record("rome", "hard", 0)])
    assert fine.groups[0].causes(fine.worst) == ()
