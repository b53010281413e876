"""Causes: what a collapse is put down to, from records made by hand. Figures are those the papers or real runs give."""

import math

import pytest

from editsafety.judging import causes
from editsafety.runs.measurement import Measurement
from tests.builders import measured, record, report, stepped


def stays(editor="rome", n=4, **notes):
    """Edits that stay; every note rises a little from one to the next."""
    made = [{k: v * (1 + i / 10) if isinstance(v, float) else v for k, v in notes.items()} for i in range(n)]
    return [record(editor, "normal", i, notes=one, norm=110.0 + i) for i, one in enumerate(made)]


def weighed(one, **figures):
    """The record with other weight figures."""
    found = {name: measured(name, value, unit="ratio") for name, value in figures.items()}
    return stepped(one, found={**one.after, **found})


def kinds(one, others=()):
    return [cause.kind for cause in causes.of_case(one, others)]


# The figures of GPT-2 XL in "The Fall of ROME", table 1: numerator 168.55 over 0.04 where normal edits have 79.91 over
# 9.60.
FALL = {"denominator": 0.04, "numerator": 168.55, "update_norm": 4213.75, "first_token": True, "keys": "mixed"}
NORMAL = {"denominator": 9.60, "numerator": 79.91, "update_norm": 8.32, "first_token": False, "keys": "mixed"}


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


# Wholly as they are told: the case, the edits that stay, and (kind, advice, figures, strength), logarithms by hand.
DENOMINATOR_0 = record("rome", "hard", 0, ratio=9.0, notes={"denominator": 0.0, "update_norm": 4.0})
PREFIXED = "keys from prefixed contexts (c_rome, r_rome) avoid it (The Fall of ROME, arXiv 2406.11263)"
OF_CASES = {
    "a denominator of 0 is infinitely far from the usual one": (
        DENOMINATOR_0, stays(**NORMAL),
        ("denominator", PREFIXED, {"denominator": 0.0, "update_norm": 4.0, "first_token": False, "usual_low": 9.6,
                                   "usual_high": 9.6 * 1.3}, 9.0),
    ),
    "keys that are apart count as ten times": (
        stepped(DENOMINATOR_0, notes={"denominator": 0.5, "key_agreement": 0.49}), (),
        ("denominator", PREFIXED, {"denominator": 0.5, "key_agreement": 0.49, "first_token": False}, 1.0),
    ),
    "a value that a sidecar holds": (
        record("grace", "hard", 0, ratio=9.0, notes={"value_norm": 90.0, "update_norm": 2.0}), stays(value_norm=7.0),
        ("overshoot", "", {"value_norm": 90.0, "update_norm": 2.0, "usual_low": 7.0, "usual_high": 7.0 * 1.3},
         math.log10(90 / 8.05)),
    ),
    "weights that are not finite": (
        record("ft", "hard", 0, ratio=1.0, finite=0.0, norm=math.nan), (),
        ("non_finite", "float32 has more room than 16 bits; where it happens in float32, the edit itself diverged",
         {"weights_finite": 0.0}, 1.5),
    ),
    "logits that are not finite": (
        record("ft", "hard", 0, ratio=math.inf), (),
        ("non_finite", "what is finite in float32 may overflow in 16 bits", {"weights_finite": 1.0}, 0.3),
    ),
    "logits that are not finite, and nobody looked at the weights": (
        record("ft", "hard", 0, after={"me_ppl": measured("me_ppl", math.nan)}), (),
        ("non_finite", "what is finite in float32 may overflow in 16 bits", {}, 0.3),
    ),
    "weights that are all gone": (
        weighed(record("kn", "hard", 0, ratio=9.0), norm_growth=0.0, delta_large_share=1.0), (),
        ("emptied", "fewer neurons, or a method that adds instead of erasing",
         {"norm_growth": 0.0, "delta_large_share": 1.0}, 10.0),
    ),
    "neurons with an update 100 times the usual one": (
        record("kn", "hard", 0, ratio=9.0, notes={"neurons": 2, "layers": 1, "update_norm": 115.0, "value_norm": 3.0}),
        stays("kn", update_norm=1.0),
        ("neurons", "a higher adaptive_threshold takes fewer; one KN edit is known to take all abilities to about 0 "
         "(arXiv 2401.04700)", {"neurons": 2.0, "layers": 1.0, "update_norm": 115.0, "value_norm": 3.0,
                                "usual_low": 1.0, "usual_high": 1.3}, 2.5),
    ),
    "neurons with a small update": (
        record("kn", "hard", 0, ratio=9.0, notes={"neurons": 2, "update_norm": 0.1}), stays("kn", update_norm=1.0),
        ("neurons", "a higher adaptive_threshold takes fewer; one KN edit is known to take all abilities to about 0 "
         "(arXiv 2401.04700)", {"neurons": 2.0, "update_norm": 0.1, "usual_low": 1.0, "usual_high": 1.3}, 0.5),
    ),
    "a sidecar": (
        record("grace", "hard", 0, ratio=9.0, changed=(), local=0.33, notes={"sidecars": True, "epsilon": 9.0}), (),
        ("sidecar", "a smaller radius or scope keeps it quiet (GRACE eps, WISE act_margin)",
         {"epsilon": 9.0, "locality": 0.33}, 1.0),
    ),
    "training that diverged": (
        record("ft", "hard", 0, ratio=9.0, notes={"loss_at_stop": "nan", "update_norm": 2.0, "steps": 25}), (),
        ("learning", "a lower learning rate or fewer steps avoid it",
         {"update_norm": 2.0, "delta_relative": 0.11, "steps": 25.0}, 2.0),
    ),
    "an update 200 times as large as the weight": (
        weighed(record("ft", "hard", 0, ratio=9.0, notes={"nll_before": 3.0, "update_norm": 2.0}), delta_relative=200),
        stays("ft", update_norm=1.0),
        ("learning", "fewer steps, a lower learning rate or a norm constraint keep it smaller",
         {"update_norm": 2.0, "delta_relative": 200.0, "usual_low": 1.0, "usual_high": 1.3}, math.log10(200)),
    ),
    "an update three times the usual one": (
        record("ft", "hard", 0, ratio=9.0, notes={"nll_before": 3.0, "update_norm": 3.45}),
        stays("ft", update_norm=1.0),
        ("learning", "fewer steps, a lower learning rate or a norm constraint keep it smaller",
         {"update_norm": 3.45, "delta_relative": 0.11, "usual_low": 1.0, "usual_high": 1.3}, math.log10(3)),
    ),
    "an update as large as the weight, of an editor that tells nothing": (
        weighed(record("mine", "hard", 0, ratio=9.0, notes={"update_norm": 5.0}), delta_relative=10.0), (),
        ("norm", "RECT keeps only its largest entries, PRUNE restrains its singular values",
         {"delta_relative": 10.0, "update_norm": 5.0}, 1.0),
    ),
    "an update three times the usual one, of which only the norm is known": (
        record("mine", "hard", 0, notes={"update_norm": 3.45}, after={}), stays(update_norm=1.0),
        ("norm", "RECT keeps only its largest entries, PRUNE restrains its singular values",
         {"update_norm": 3.45, "usual_low": 1.0, "usual_high": 1.3}, math.log10(3)),
    ),
    "nothing that stands out": (
        weighed(record("rome", "hard", 0, ratio=9.0, notes={"denominator": 9.6, "keys": "mixed"}), delta_relative=0.5),
        (),
        ("unknown", "", {"denominator": 9.6, "delta_relative": 0.5, "norm_growth": 1.0}, 0.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_CASES)
def test_a_cause_has_its_advice_its_figures_and_how_far_they_are_from_the_usual(name):
    one, others, (kind, advice, figures, strength) = OF_CASES[name]
    cause = causes.of_case(one, others)[0]
    assert (cause.kind, cause.advice, cause.strength) == (kind, advice, pytest.approx(strength))
    assert cause.figures == pytest.approx(figures)


def test_a_cause_names_only_what_is_known():
    neurons = record("kn", "hard", 0, ratio=9.0, notes={"neurons": 2, "layers": 1, "update_norm": 115.0})
    said = "2 neurons in 1 layer are rewritten for every text that fires them, by an update of 115"
    assert causes.of_case(neurons, ())[0].sentence == said
    assert causes.of_case(stepped(neurons, notes={"neurons": 2}), ())[0].sentence == (
        "2 neurons are rewritten for every text that fires them, by an update of -"
    )
    sidecar = record("grace", "hard", 0, changed=(), notes={"sidecars": True}, after={})
    said = "no weight changed: the sidecar speaks on texts that the edit is not about"
    assert [(one.sentence, one.figures) for one in causes.of_case(sidecar, ())] == [(said, {})]
    beside = record("wise", "hard", 0, ratio=9.0, notes={"sidecars": True})
    assert kinds(beside) == ["unknown"]  # it changed weights as well
    over = weighed(record("ft", "hard", 0, ratio=9.0, notes={"loss_at_stop": 0.0123, "update_norm": 9.0}))
    assert causes.of_case(over, stays(update_norm=1.0))[0].sentence == (
        "learnt too hard down to a loss of 0.012: the update is 9 where edits that stay have 1 to 1.3, "
        "0.11 of the weight's own norm"
    )


@pytest.mark.parametrize(
    ("notes", "kind"),
    [
        ({"numerator": 3.0}, "overshoot"), ({"numerator": 2.99}, "unknown"), ({"value_norm": 3.0}, "overshoot"),
        ({"numerator": 3.0, "neurons": 1}, "neurons"), ({"neurons": 0}, "unknown"),
        ({"nll_before": 1.0, "update_norm": 3.0}, "learning"), ({"nll_before": 1.0, "update_norm": 2.99}, "unknown"),
    ],
)  # fmt: skip
def test_three_times_the_usual_is_out_of_the_ordinary(notes, kind):
    usual = [record("mine", "normal", 1, notes={"numerator": 1.0, "value_norm": 1.0, "update_norm": 1.0})]
    assert kinds(record("mine", "hard", 0, ratio=9.0, notes=notes), usual) == [kind]


@pytest.mark.parametrize(("agreement", "kind"), [(0.49, "denominator"), (0.5, "unknown")])
def test_keys_are_apart_below_a_cosine_of_a_half_and_only_of_mixed_keys(agreement, kind):
    notes = {"denominator": 0.5, "key_agreement": agreement}
    assert kinds(record("rome", "hard", 0, ratio=9.0, notes=notes)) == [kind]
    assert kinds(record("rome", "hard", 0, ratio=9.0, notes={**notes, "keys": "prefixed"})) == ["unknown"]


@pytest.mark.parametrize(("growth", "kind"), [(0.69, "emptied"), (0.7, "unknown")])
def test_a_weight_is_emptied_below_seven_tenths_of_its_norm(growth, kind):
    assert kinds(weighed(record("kn", "hard", 0, ratio=9.0), norm_growth=growth)) == [kind]
    listed = Measurement("norm_growth", 1, "ratio", 1.0, n=2, items=(None, growth, 1.0))
    one = record("kn", "hard", 0, ratio=9.0)
    assert kinds(stepped(one, found={**one.after, "norm_growth": listed})) == [kind]


def test_a_loss_that_was_not_noted_is_not_told():
    one = record("lora", "hard", 0, ratio=9.0, notes={"nll_before": 3.0, "update_norm": 9.0})
    (cause,) = causes.of_case(one, stays(update_norm=1.0))
    assert cause.sentence == (
        "learnt too hard: the update is 9 where edits that stay have 1 to 1.3, 0.11 of the weight's own norm"
    )
