"""Yardstick: forward passes that are timed beside edits, and leave no trace."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from editsafety.edits.seal import Seal
from editsafety.lab import yardstick
from tests import tiny


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_a_pass_takes_time_and_changes_nothing(family):
    handle = tiny.handle(family)
    before, state = Seal.of(handle), torch.random.get_rng_state()
    seconds = yardstick.reading(handle)
    assert seconds is not None
    assert 0 < seconds < 60
    assert before.changed(Seal.of(handle)) == ()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_pass_of_a_larger_model_takes_longer():
    """Six layers of a model are at least a little slower than one: the least of many readings says so."""
    small, large = (
        min(yardstick.reading(handle) for _ in range(15))
        for handle in (tiny.handle("gpt2", layers=1), tiny.handle("gpt2", layers=12))
    )
    assert large > small


def test_a_model_that_cannot_be_run_gives_no_reading(monkeypatch):
    handle = tiny.handle("gpt2")

    def full(*args, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(handle.model, "forward", full)
    assert yardstick.reading(handle) is None


def test_the_machine_is_its_processor_and_how_many_threads_are_in_use():
    said = yardstick.machine(tiny.handle("gpt2"))
    assert f"{torch.get_num_threads()} of " in said
    assert said.endswith(" threads")


@pytest.mark.parametrize(("size", "readings"), [(1, 1), (31, 31), (63, 63), (64, 32), (144, 36), (1000, 33)])
def test_a_large_block_is_timed_beside_one_edit_in_so_many_all_along(size, readings):
    places = [place for place in range(size) if yardstick.is_due(place, size)]
    assert len(places) == readings
    assert places[0] == 0
    assert len({later - place for place, later in pairwise(places)}) <= 1


def test_a_course_is_timed_each_time():
    assert all(yardstick.is_due(place, 0) for place in range(5))
