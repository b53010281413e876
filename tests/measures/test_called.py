"""A measure is held to what it says that it gives, whoever wrote it, and its columns stand in their order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from editsafety import measures
from editsafety.errors import MeasureError
from editsafety.measures import Inputs, Measure
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Column, Measurement
from tests import tiny

SURE = Measurement("sureness", 1, "rate", 1.0, n=1)
CALM = Measurement("calm", 1, "rate", 0.5, n=1)


class Theirs:
    """A measure of somebody else, which returns what a test wants."""

    name, version, scope = "theirs", 1, "case"

    def __init__(self, *found: Any, **more: Any) -> None:
        self.found = found
        self.__dict__.update(more)

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Any, ...]:
        self.seen = handle, inputs
        return self.found


def test_a_measure_is_given_the_model_and_the_inputs_and_its_measurements_come_back() -> None:
    one, handle, inputs = Theirs(SURE, CALM), tiny.handle("gpt2"), Inputs(batch_size=3)
    assert measures.called(one, handle, inputs) == (SURE, CALM)
    assert one.seen == (handle, inputs)
    assert measures.called(Theirs(SURE, gives=("calm", "sureness")), handle, inputs) == (SURE,)
    assert measures.called(Theirs(), handle, inputs) == ()


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (Theirs(SURE, 0.5), "measure theirs returned float, expected a tuple of Measurement."),
        (Theirs(None, SURE), "measure theirs returned NoneType, expected a tuple of Measurement."),
        (Theirs(SURE, CALM, SURE), "measure theirs returned 'sureness' twice; a figure has one value."),
        (
            Theirs(SURE, gives=("calm", "rest")),
            "measure theirs returned 'sureness', but in `gives` it says: calm, rest.",
        ),
        (Theirs(SURE, gives=()), "measure theirs returned 'sureness', but in `gives` it says: nothing."),
    ],
)
def test_what_a_measure_does_not_say_that_it_gives_is_refused(one: Measure, said: str) -> None:
    with pytest.raises(MeasureError) as caught:
        measures.called(one, tiny.handle("gpt2"), Inputs())
    assert str(caught.value) == said


def strange(**more: Any) -> Measurement:
    """A measurement that holds what none should: Python does not look at the kinds."""
    return Measurement(**{"name": "sureness", "version": 1, "unit": "rate", "value": 0.5, "n": 1, **more})


STRANGE = {
    "a bool": (strange(value=True), "value of 'sureness' is True (bool), expected a number of Python's own"),
    "numpy": (strange(value=np.float32(0.5)), "(float32), expected a number of Python's own"),
    "a tensor": (strange(value=torch.tensor(0.5)), "is tensor(0.5000) (Tensor), expected a number of Python's own"),
    "an error": (strange(stderr=np.float32(0.5)), "stderr of 'sureness' is "),
    "an item": (strange(items=(0.5, np.float32(0.5))), "items of 'sureness' is "),
    "between": (strange(between=(False, 1.0)), "between of 'sureness' is False (bool), expected a number"),
    "a count": (strange(n="many"), "n of 'sureness' is 'many' (str), expected an integer"),
    "a version": (strange(version=True), "version of 'sureness' is True (bool), expected an integer"),
    "a unit": (strange(unit=None), "unit of 'sureness' is None (NoneType), expected text"),
    "a reason": (strange(value=None, reason=3), "reason of 'sureness' is 3 (int), expected text"),
    "an answer": (strange(answers=(1,)), "answers of 'sureness' is 1 (int), expected text"),
    "a flag": (strange(broken=0), "broken of 'sureness' is 0 (int), expected True or False"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_cannot_be_kept_is_said_of_the_measure_or_ability_and_not_of_an_editor(kind: str) -> None:
    found, said = STRANGE[kind]
    handle = tiny.handle("gpt2")
    with pytest.raises(MeasureError) as caught:
        measures.called(Theirs(found), handle, Inputs())
    assert str(caught.value).startswith("measure theirs: ")
    assert said in str(caught.value)
    with pytest.raises(MeasureError, match="ability sums: "):
        measures.probed(Answers("sums", found), handle, 1)


class Answers:
    """An ability of somebody else."""

    def __init__(self, name: str, found: Any) -> None:
        self.name, self.found = name, found

    def __call__(self, handle: ModelHandle, batch_size: int) -> Any:
        return self.found


def test_what_is_plain_is_taken_as_it_is_and_what_no_measurement_is_is_said() -> None:
    handle = tiny.handle("gpt2")
    plain = strange(value=np.float64(0.5), items=(1, None, 0.5), stderr=None, between=(0.0, 1.0), answers=("a",))
    assert measures.called(Theirs(plain), handle, Inputs()) == (plain,)
    assert measures.probed(Answers("sums", plain), handle, 1) == plain
    with pytest.raises(MeasureError, match=r"ability sums: float is no Measurement\."):
        measures.probed(Answers("sums", 0.5), handle, 1)


def test_columns_stand_from_left_to_right_by_their_order_whoever_has_them() -> None:
    third, first, second = (Column(name, name, order=order) for name, order in (("c", 30), ("a", 10), ("b", 20)))
    chosen = [Theirs(columns=(third, first)), SimpleNamespace(name="none"), Theirs(columns=(second,))]
    assert measures.columns(chosen) == (first, second, third)


def test_a_measure_that_is_not_run_by_default_is_run_for_any_of_its_figures() -> None:
    usual = [one.name for one in measures.needed()]
    assert usual == ["efficacy", "generalisation", "locality", "perplexity", "weights"]
    for figure, owner in (("fluency", "generation"), ("longest_run", "generation"), ("survives_int8", "survives_int8")):
        assert [one.name for one in measures.needed(["efficacy", figure])] == sorted([*usual, owner])
    assert [one.name for one in measures.needed(["efficacy", "kept"])] == usual
