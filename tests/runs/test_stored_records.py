"""Records of very many cases: what is in memory once, and what is done with the garbage collector meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from editsafety.judging.needed import needed_measurements
from editsafety.judging.policy import Policy
from editsafety.runs.case_record import CaseRecord, Step
from editsafety.runs.stored_records import LeanReader, reading_many
from editsafety.runs.weights_look import TensorLook, WeightsLook
from tests import builders


class Kept:
    """Something that the garbage collector looks after."""


@pytest.fixture(autouse=True)
def nothing_apart() -> Iterator[None]:
    """All tests together keep what they imported from the collector; here it begins as in any other process."""
    gc.unfreeze()
    yield
    gc.enable()
    gc.freeze()


def young() -> list[Kept]:
    return [one for one in gc.get_objects(generation=0) if type(one) is Kept]


def test_what_was_read_is_old_to_the_collector_at_once_and_is_let_go_as_anything_is() -> None:
    gc.collect()
    with reading_many():
        assert not gc.isenabled()
        kept = [Kept() for _ in range(10)]
        with reading_many():  # a report is made and written inside of a command that does both
            pass
        assert not gc.isenabled()
        assert len(young()) == 10
    assert gc.isenabled()
    assert young() == []
    assert [one for one in gc.get_objects(generation=2) if type(one) is Kept] == kept
    assert gc.get_freeze_count() == 0


def test_what_somebody_keeps_from_the_collector_is_kept_from_it_afterwards() -> None:
    gc.freeze()
    apart = gc.get_freeze_count()
    with reading_many():
        pass
    assert gc.get_freeze_count() >= apart - 1000  # some of it is no more
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with reading_many():
        pass
    assert not gc.isenabled()


def lean(reader: LeanReader, record: CaseRecord) -> CaseRecord:
    return reader.read(record.to_text(), builders._case(record))


def test_a_look_that_many_edits_share_is_in_memory_once_and_without_its_tensors() -> None:
    reader = LeanReader(needed_measurements(Policy.read("default"), ()))
    steps: list[Step] = []
    for i, pattern in enumerate(("rank 1", "rank 1", "whole")):
        made = builders.record("rome", "normal", i)
        look = WeightsLook(pattern, (TensorLook("a.weight", 1.0, 1),))
        (step,) = lean(reader, replace(made, steps=(replace(made.step, look=look),))).steps
        steps.append(step)
    assert [step.look for step in steps] == [WeightsLook("rank 1"), WeightsLook("rank 1"), WeightsLook("whole")]
    assert steps[0].look is steps[1].look
