"""Calibration against figures worked out on paper; and that a model which becomes too sure is found out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from editsafety.abilities import Probe
from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.measures import Inputs
from editsafety.measures._calibrated import Item, brier, calibration_error
from editsafety.measures.calibration import MEASURE
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests.measures.conftest import CHOICES


def test_the_error_is_the_gap_between_sureness_and_being_right_in_each_bin() -> None:
    # Two in the bin of .8 (.8 and .75), one of them right; one in that of .6, right: (|1.55 - 1| + |.6 - 1|) / 3.
    items: list[Item] = [((0.8, 0.2), 0), ((0.25, 0.75), 0), ((0.6, 0.4), 0)]
    assert calibration_error(items) == pytest.approx((0.55 + 0.4) / 3)
    assert calibration_error([((1.0, 0.0), 0)] * 3) == 0.0
    assert calibration_error([((1.0, 0.0), 1)] * 3) == 1.0
    assert calibration_error([((0.5, 0.5), 0)] * 4) == 0.0, "of two alike, either is half right"
    assert math.isnan(calibration_error([((math.nan, math.nan), 0)]))
    with pytest.raises(ValueError, match="no items"):
        calibration_error([])


def test_a_confidence_at_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    low, high = ((9 / 15, 6 / 15), 1), ((9 / 15 + 1e-9, 6 / 15 - 1e-9), 0)
    assert calibration_error([low, high]) == pytest.approx((0.6 + 0.4) / 2)  # in one bin they would cancel out to .1


def test_brier_is_the_squared_distance_from_the_truth() -> None:
    assert brier(((0.8, 0.2), 0)) == pytest.approx(0.08)
    assert brier(((0.0, 1.0), 0)) == pytest.approx(2.0)


def asking(handle: ModelHandle, *probes: Probe) -> Inputs:
    inputs = Inputs(probes=probes, batch_size=8)
    return replace(inputs, references={"calibration": MEASURE.refer(handle, inputs)})


def measured(handle: ModelHandle, inputs: Inputs) -> Mapping[str, Measurement]:
    return {one.name: one for one in MEASURE(handle, inputs)}


PROBE = Probe("where", "where", "choice", 0.5, CHOICES)
FREE = Probe("free", "free", "exact", 0.0, ())


def test_an_unchanged_model_has_gained_exactly_nothing_and_free_answers_do_not_count(handle: ModelHandle) -> None:
    found = measured(handle, asking(handle, PROBE, FREE))
    assert found["calibration_ece_added"].value == found["calibration_brier_added"].value == 0.0
    assert found["calibration_ece"].n == len(CHOICES)
    shares = PROBE.option_shares(handle)
    assert shares is not None
    assert found["calibration_brier"].value == pytest.approx(sum(map(brier, shares)) / len(shares))
    assert all(sum(row) == pytest.approx(1.0) for row, _ in shares)


def test_an_edit_that_makes_a_model_too_sure_is_found(handle: ModelHandle) -> None:
    inputs = asking(handle, PROBE)
    scale = handle.model.get_parameter("transformer.ln_f.weight").detach()
    louder = Edit("louder", (), handle.identity, (Replace("transformer.ln_f.weight", scale * 30),))
    with EditSession(handle, prove="never") as session:
        session.apply(louder)
        found = measured(handle, inputs)
    assert (found["calibration_ece_added"].value or 0) > 0.1
    assert (found["calibration_brier_added"].value or 0) > 0.1


def test_without_a_choice_it_does_not_apply_and_a_dead_model_is_broken(handle: ModelHandle) -> None:
    for one in measured(handle, asking(handle, FREE)).values():
        assert not one.applies
        assert one.reason is not None
        assert one.reason.startswith("no multiple-choice ability")
    with torch.no_grad():
        handle.model.get_parameter("transformer.ln_f.bias").fill_(math.nan)
    dead = measured(handle, asking(handle, PROBE))
    assert all(one.broken for one in dead.values())


def test_likelihoods_are_found_once_for_all_who_ask_and_anew_for_another_model(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> object:
        return PROBE.option_shares(handle, 8)

    with EditSession(handle, prove="never") as session:
        before = found()
        with monkeypatch.context() as patched:
            patched.setattr(ModelHandle, "logits", None)
            assert found() == before
        weight = handle.model.get_parameter("transformer.ln_f.weight").detach()
        session.apply(Edit("x", (), handle.identity, (Replace("transformer.ln_f.weight", weight * 2),)))
        assert found() != before
    assert found() == before
