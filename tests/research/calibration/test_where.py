"""Which layers are tried."""

from __future__ import annotations

from editsafety.research.calibration.where import choices_like, layer_choices
from editsafety.research.tracing.effects import AverageEffects
from editsafety.research.tracing.facts import LAST_OF_SUBJECT


def effects(layers: int, peak: int) -> AverageEffects:
    mean = tuple(0.5 if layer == peak else 0.1 for layer in range(layers))
    return AverageEffects("mlp", LAST_OF_SUBJECT, 20, mean, (0.0,) * layers)


def test_a_single_layer_is_tried_where_the_effect_is_largest_and_two_on_either_side_in_thirty() -> None:
    assert layer_choices((5,), effects(30, 9)) == ((5,), (9,), (7,), (11,))


def test_several_layers_end_there() -> None:
    assert layer_choices((4, 5, 6), effects(30, 9)) == ((4, 5, 6), (7, 8, 9), (5, 6, 7), (9, 10, 11))


def test_layers_stay_inside_of_the_model_and_none_is_tried_twice() -> None:
    assert layer_choices((0, 1), effects(6, 0)) == ((0, 1),)
    assert layer_choices((0,), effects(6, 5)) == ((0,), (5,), (4,))


def test_an_editor_that_names_its_one_layer_as_a_number_is_given_numbers() -> None:
    assert choices_like(27, effects(30, 9)) == (27, 9, 7, 11)
    assert choices_like((27,), effects(30, 9)) == ((27,), (9,), (7,), (11,))
