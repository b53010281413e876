"""Neighbours from the requests themselves."""

from __future__ import annotations

from editsafety import datasets
from editsafety.datasets.alike import with_neighbours
from editsafety.datasets.request import Neighbour
from tests import builders, tiny


def test_requests_without_neighbours_get_facts_of_their_relation_the_same_answer_first() -> None:
    told = [("A", "r", "x"), ("B", "r", "y"), ("C", "s", "x"), ("D", "r", "x"), ("A", "r", "z"), ("E", "", "x")]
    rows = [
        tiny.request(subject, prompt="{} is", subject=subject, relation=relation, target_true=true, neighbours=[])
        for subject, relation, true in told
    ]
    found = [[(one.prompt, one.answer) for one in row.neighbours] for row in with_neighbours(rows)]
    assert found == [
        [("D is", "x"), ("B is", "y")],
        [("D is", "x"), ("A is", "z"), ("A is", "x")],
        [],
        [("A is", "x"), ("A is", "z"), ("B is", "y")],
        [("B is", "y"), ("D is", "x")],
        [],
    ]


def test_requests_that_have_neighbours_are_left_as_they_are() -> None:
    rows = (builders.request("normal", 1), tiny.request(neighbours=[{"prompt": "Mirel works as a", "answer": "baker"}]))
    assert with_neighbours(rows) == rows
    assert rows[1].neighbours == (Neighbour("Mirel works as a", "baker"),)


def test_every_request_of_the_english_pool_has_a_neighbour_of_another_subject() -> None:
    for row in with_neighbours(datasets.requests("english/pool")):
        assert row.neighbours
        assert all(row.subject not in one.prompt for one in row.neighbours)
