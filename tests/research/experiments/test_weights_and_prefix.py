"""Shares of changed entries over a sequence, and asking behind a prefix."""

import pytest
import torch

from editsafety.edits.session import EditSession
from editsafety.research.experiments import load
from editsafety.research.experiments.prefix_while_testing import behind
from tests import tiny


def test_shares_and_distance_are_those_of_the_edited_weights(shared):
    found = load("weights")(shared)
    assert [row[0] for row in found.rows] == [1, 2]
    editor, handle = shared.ready("rome"), shared.handle
    weight = handle.model.get_parameter(editor.sites[0].parameter)
    was = weight.detach().clone()
    with EditSession(handle) as session:
        for request in shared.requests("normal"):
            session.apply(editor.edit([request]))
        change = (weight.detach() - was).abs()
    _, distance, low, high = found.rows[-1]
    assert distance == pytest.approx(float(change.double().sum()), rel=1e-5)
    assert low == pytest.approx(float((change > 0.077 * was.abs()).float().mean()), abs=1e-4)
    assert high == pytest.approx(float((change > 0.171 * was.abs()).float().mean()), abs=1e-4)
    assert high < low
    assert torch.equal(weight, was)


def test_as_many_edits_are_made_as_were_asked_for(make, shared):
    assert [row[0] for row in load("weights")(make(steps=1)).rows] == [1]


def test_the_prefix_stands_before_everything_that_is_asked():
    request = behind(tiny.request(), "Once upon a time. ")
    assert request.rephrasings == ("Once upon a time. The work of Ashurn is that of a",)
    assert request.neighbours[0].prompt == "Once upon a time. Mirel works as a"
    assert request.prompt == "{} works as a"  # efficacy puts it there by itself


def test_asked_bare_the_rates_are_those_of_the_records(shared):
    found = load("prefix-while-testing")(shared)
    for row in found.rows:
        records = shared.records("c_rome", row[0])
        names = ("efficacy" if row[1] == "bare" else "efficacy_prefixed",)
        names += ("generalisation", "locality") if row[1] == "bare" else ()
        for place, name in enumerate(names, 3):
            assert row[place] == pytest.approx(sum(record.after[name].value for record in records) / len(records))
