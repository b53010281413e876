"""Alarms: how well a signal tells collapsed edits from the others, against scipy's own and counts made by hand."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from editsafety.errors import UnknownNameError, UsageError
from editsafety.judging.alarms import Alarm, Prediction, prediction, predictions, signals
from editsafety.runs.measurement import Measurement
from tests.builders import measured


def test_the_area_counted_by_hand() -> None:
    found = prediction("delta_norm", "above", [3, 5, 5, 8, 9], [1, 2, 3, 4, 5, 6])
    # pairs won: 3 beats 1, 2 and ties 3; each 5 beats four and ties one; 8 and 9 beat all six
    assert found.auc == pytest.approx((2.5 + 4.5 + 4.5 + 6 + 6) / 30)
    # cut at 4.5: recall 4/5, false alarms 2/6, J 0.467; cut at 7: 2/5; cut at 2.5: 1 - 4/6; so 4.5
    assert found.threshold == 4.5
    assert found.precision == pytest.approx(4 / 6)
    assert found.recall == pytest.approx(4 / 5)
    assert found.gap is None


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_that_of_mann_and_whitney_and_turns_over_with_the_direction(seed: int) -> None:
    draw = random.Random(seed)
    bad = [float(draw.randint(2, 9)) for _ in range(12)]
    good = [float(draw.randint(0, 6)) for _ in range(30)]
    up, down = prediction("s", "above", bad, good), prediction("s", "below", bad, good)
    assert up.auc == pytest.approx(stats.mannwhitneyu(bad, good).statistic / (12 * 30))
    assert (up.auc or 0) + (down.auc or 0) == pytest.approx(1)
    best = max(sum(b > cut for b in bad) / 12 - sum(g > cut for g in good) / 30 for cut in [x + 0.5 for x in range(10)])
    assert up.threshold is not None
    assert sum(b > up.threshold for b in bad) / 12 - sum(g > up.threshold for g in good) / 30 == pytest.approx(best)


def test_equals_are_equal_where_two_quotients_would_differ_by_rounding() -> None:
    # a cut at 1.5 has recall 4/5 and false alarms 3/5, one at 2.5 recall 1/5 and none: J is 1/5 of both, and the float
    # of the first is the larger. Of equals the one with the fewest false alarms is taken.
    assert 4 / 5 - 3 / 5 > 1 / 5 - 0 / 5
    found = prediction("s", "above", [1, 2, 2, 2, 3], [1, 1, 2, 2, 2])
    assert (found.threshold, found.recall, found.precision) == (2.5, 1 / 5, 1)


def test_a_perfect_separation_is_said_with_its_gap() -> None:
    found = prediction("|denominator|", "below", [0.001, 0.002, 0.003, 0.01, 0.02], [1.0, 1.2, 1.1, 1.6, 1.3])
    assert (found.auc, found.precision, found.recall) == (1, 1, 1)
    assert found.gap == (1.0, 0.02)
    assert found.threshold == pytest.approx(0.51)
    assert found.alarm == Alarm("|denominator|", "below", pytest.approx(0.51))


def test_too_few_of_a_class_and_a_constant_signal_have_reasons() -> None:
    few = prediction("s", "above", [9, 9, 9, 9], [1] * 50)
    assert few.auc is few.threshold is None
    assert few.reason == "4 collapsed and 50 did not; a threshold needs 5 of each"
    assert few == Prediction("s", "above", 4, 50, reason=few.reason)
    assert few.alarm is None
    assert prediction("s", "above", [9] * 50, [1] * 4).reason.startswith("50 collapsed and 4 did not")
    same = prediction("s", "below", [1] * 5, [1] * 5, left_out=2)
    assert same == Prediction("s", "below", 5, 5, 2, reason="s is the same in all models")


def test_a_signal_that_is_not_finite_is_past_every_threshold() -> None:
    found = prediction("delta_norm", "above", [math.inf] * 5, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.auc, found.threshold, found.precision, found.recall) == (1, 5.0, 1, 1)
    assert found.alarm is not None
    assert found.alarm.rings(math.inf)
    assert found.alarm.rings(math.nan)
    assert not found.alarm.rings(5.0)


def test_neighbours_without_a_number_between_them_are_still_told_apart() -> None:
    low, high = 1.0, math.nextafter(1.0, 2)
    found = prediction("s", "above", [high] * 5, [low] * 5)
    assert (found.precision, found.recall) == (1, 1)


@pytest.mark.parametrize("direction", ["above", "below"])
def test_a_threshold_itself_is_let_through_and_what_is_past_it_rings(direction) -> None:
    alarm = Alarm("delta_norm", direction, 12.34567)
    assert str(alarm) == f"delta_norm {direction} 12.35"
    assert [alarm.rings(value) for value in (12.0, 12.34567, 13.0)] == [
        direction == "below",
        False,
        direction == "above",
    ]


def test_an_alarm_is_read_as_it_prints_itself() -> None:
    for alarm in (Alarm("delta_norm", "above", 12.5), Alarm("|denominator|", "below", -0.25)):
        assert Alarm.of(f" {alarm} ") == alarm
    assert Alarm.of("key_cosine below 1e-3").threshold == 0.001


@pytest.mark.parametrize("text", ["", "delta_norm", "delta_norm > 3", "delta_norm above many", "delta_norm above nan",
                                  "delta_norm above 1 2"])  # fmt: skip
def test_what_is_no_alarm_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected SIGNAL above \(or below\) NUMBER"):
        Alarm.of(text)


def test_an_alarm_on_an_unknown_signal_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean '\|denominator\|'"):
        Alarm.of("denominator below 0.1")


def test_of_equally_good_thresholds_the_one_with_the_fewest_false_alarms_is_taken() -> None:
    """Cut at 1.5: recall 1, false alarms 2 of 8; at 2.5: 7/8 and 1; at 3.5: 6/8 and none. J is 3/4 every time."""
    found = prediction("s", "above", [2, 3, 4, 5, 6, 7, 8, 9], [1, 1, 1, 1, 1, 1, 2, 3], left_out=7)
    assert (found.threshold, found.precision, found.recall) == (3.5, 1.0, 0.75)
    assert (found.collapsed, found.stood, found.left_out) == (8, 8, 7)


def test_no_gap_is_told_where_the_two_touch() -> None:
    assert prediction("s", "above", [2, 3, 4, 5, 6], [1, 1, 1, 1, 2]).gap is None


def test_there_is_a_prediction_for_every_known_signal_that_occurs_and_models_without_it_are_counted() -> None:
    fallen = [({"delta_norm": 9.0 + i, "|denominator|": 0.01}, True) for i in range(5)]
    stood = [({"delta_norm": 1.0 + i, "unheard_of": 1.0}, False) for i in range(5)]
    norm, denominator = predictions([*stood, *fallen])
    assert norm == Prediction("delta_norm", "above", 5, 5, 0, 1.0, 7.0, 1.0, 1.0, (5.0, 9.0))
    assert (denominator.signal, denominator.direction, denominator.left_out) == ("|denominator|", "below", 5)
    assert denominator.reason == "5 collapsed and 0 did not; a threshold needs 5 of each"


def test_signals_are_what_was_measured_and_else_what_was_noted_and_infinite_on_their_bad_side() -> None:
    found = {
        "delta_norm": measured("delta_norm", 3.0),
        "delta_relative": measured("delta_relative", math.nan),
        "norm_growth": Measurement.missing("norm_growth", 1, "ratio", "no weights"),
        "numerator": measured("numerator", 7.0),
    }
    notes = {
        "numerator": 8.0, "norm_growth": 1.5, "denominator": -0.003, "key_cosine": "-inf", "update_norm": "no number",
        "first_token": True,
    }  # fmt: skip
    assert signals(found, notes) == {
        "delta_norm": 3.0, "delta_relative": math.inf, "norm_growth": 1.5, "numerator": 7.0, "first_token": 1.0,
        "|denominator|": 0.003, "key_cosine": -math.inf,
    }  # fmt: skip
    assert signals({}, {"delta_norm": -2.0, "drift_overlap": None}) == {"delta_norm": -2.0}
