"""Signals: one list for whatever measures, asks or lists them."""

from __future__ import annotations

from editsafety.judging import alarms
from editsafety.lab import walk_drift
from editsafety.measures import Inputs, weights
from editsafety.research.hardcases import mining
from editsafety.runs.signals import DELTA, DRIFT, EVERY, NOTED
from tests import tiny


def test_no_two_signals_share_a_name() -> None:
    assert len({signal.name for signal in EVERY}) == len(EVERY)


def test_a_signal_without_a_meaningful_sign_is_written_as_its_size() -> None:
    assert [str(signal) for signal in EVERY if str(signal) != signal.name] == ["|denominator|"]


def test_what_is_measured_of_an_edit_is_what_the_list_says() -> None:
    measured = {found.name: found.unit for found in weights.MEASURE(tiny.handle("gpt2"), Inputs())}
    listed = {signal.name: signal.unit for signal in (*DELTA, *NOTED) if signal.measured}
    # How many directions there are tells what sort of change it is, and nothing of how large it is.
    assert measured == {**listed, weights.FINITE: "bool", "delta_rank": "rank"}


def test_a_walk_measures_the_drift_signals_and_reports_the_worst_matrix() -> None:
    assert list(walk_drift.FIGURES) == [signal.name for signal in DRIFT]
    assert {name for name, worst in walk_drift.FIGURES.items() if worst([1.0, 2.0]) == 1.0} == {"drift_overlap"}


def test_alarms_know_every_signal_and_mining_lists_some_of_an_edit_s() -> None:
    assert list(alarms.SIGNALS) == [str(signal) for signal in EVERY]
    assert set(mining.SIGNALS) < {signal.name for signal in (*DELTA, *NOTED)}
