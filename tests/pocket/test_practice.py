"""Edits to practise on."""

import random

from editsafety import datasets
from editsafety.pocket.practice import Practice


def test_what_is_tested_is_never_practised() -> None:
    practice, tested = Practice(10), set()
    for name in ("pocket-world/normal", "pocket-world/pool", "pocket-neo/hardcf"):
        tested |= {(request.subject, request.relation) for request in datasets.requests(name)}
    kept_back = {(fact.subject.name, fact.relation.name) for fact in practice.kept_back}
    trained = {(fact.subject.name, fact.relation.name) for fact in practice.facts}
    assert len(tested) == 420
    assert not trained & tested
    assert not kept_back & (tested | trained)
    rng = random.Random(0)
    for _ in range(200):
        exercise = practice.draw(rng)
        assert (exercise.request.subject, exercise.request.relation) in trained
        assert exercise.request.subject in exercise.request.rephrasings[0]
        assert exercise.request.subject not in exercise.text
