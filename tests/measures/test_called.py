"""A measure is held to what it says that it gives, whoever wrote it, and its columns stand in their order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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
