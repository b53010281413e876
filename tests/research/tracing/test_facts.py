"""The facts that a model knows, as tokens, and where each token stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editsafety import datasets
from editsafety.errors import DataError
from editsafety.model.handle import ModelHandle
from editsafety.research.tracing.facts import CLASSES, KnownFact, known_facts
from tests import tiny


@pytest.mark.parametrize(
    ("subject", "places"),
    [
        ((1, 4), {1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 4, 7: 5}),
        ((0, 0), {0: 2, 1: 3, 2: 4, 7: 5}),  # one token is the last one
        ((2, 6), {6: 2, 7: 5}),  # the token behind the subject ends the prompt
        ((2, 7), {2: 0, 6: 1, 7: 2}),  # the subject does
    ],
)
def test_tokens_are_told_apart_by_where_they_stand(subject: tuple[int, int], places: dict[int, int]) -> None:
    fact = KnownFact("a", tuple(range(8)), subject, 0)
    assert {place: CLASSES.index(fact.class_of(place)) for place in places} == places
    assert list(fact.places) == list(range(subject[0], 8))


def test_known_are_the_first_facts_whose_true_answer_the_model_gives() -> None:
    handle = ModelHandle.load("pocket-neo")
    rows = datasets.requests("pocket-world/normal", limit=6)
    made_up = [replace(row, id=f"{row.id}-new", target_true=row.target_new) for row in rows]
    found = known_facts(handle, [*made_up, *rows], 4)
    assert [fact.id for fact in found] == [row.id for row in rows[:4]]  # it knows its world
    for fact, row in zip(found, rows, strict=False):
        first, last = fact.subject
        assert handle.text(fact.ids[first : last + 1]).strip() == row.subject
        assert handle.text([fact.answer]).strip()
        assert str(row.target_true).startswith(handle.text([fact.answer]).strip())


def test_a_model_that_knows_none_of_them_is_said_to() -> None:
    with pytest.raises(DataError, match="gives the true answer of none of 0 requests"):
        known_facts(tiny.handle("gpt2"), [tiny.request(target_true=None)], 5)
