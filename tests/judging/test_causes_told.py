"""Causes wholly as they are told: kind, advice, figures and strength, and where each begins to apply."""

import math

import pytest

from editsafety.judging import causes
from editsafety.runs.measurement import Measurement
from tests.builders import measured, record, stepped
from tests.judging.collapses import NORMAL, kinds, stays, weighed

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
