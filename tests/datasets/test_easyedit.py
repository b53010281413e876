"""What EasyEdit's users have: rows of JSON, KnowEdit's nested lists, and the parallel lists of the Python interface."""

from __future__ import annotations

import json
from typing import Any

import pytest

from editsafety import datasets
from editsafety.datasets.request import Consequence, EditRequest, Neighbour
from editsafety.errors import DataError
from tests.datasets.conftest import Write

FLAT = {
    "case_id": 3, "prompt": "The mother tongue of Mirel is", "subject": "Mirel", "target_new": "Tarnic",
    "ground_truth": ["Velish"], "rephrase_prompt": "Mirel, a native", "locality_prompt": "Toren speaks",
    "locality_ground_truth": "Velish",
}  # fmt: skip
KNOWEDIT = {
    "subject": "Mirel",
    "prompt": "The mother tongue of Mirel is",
    "target_new": ["Tarnic", "Old Tarnic"],
    "ground_truth": [["Velish", "Old Velish"]],
    "rephrase": ["Mirel, a native", "Mirel spoke"],
    "portability": {"Reasoning": [{"prompt": "Mirel comes from", "ground_truth": [["Dorvan"]]}]},
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The home of Mirel is", "ground_truth": [["Kelmar", "Ostrin"]]},
            {"prompt": "Mirel works as a", "ground_truth": "baker"},
        ],
        "Forgetfulness": [{"prompt": "Another tongue of Mirel is", "ground_truth": []}],
    },
}
PARALLEL: dict[str, Any] = {
    "prompts": ["The mother tongue of Mirel is", "{} works as a"],
    "subject": ["Mirel", "Ashurn"],
    "target_new": ["Tarnic", "farmer"],
    "ground_truth": ["Velish", "<|endoftext|>"],
    "rephrase_prompts": ["Mirel, a native", ["Ashurn is a", "The work of Ashurn:"]],
    "locality_inputs": {
        "neighborhood": {"prompt": ["Toren speaks", "Mirel works as a"], "ground_truth": ["Velish", "baker"]},
        "distracting": {"prompt": [["a b", "c d"], None], "ground_truth": [["e", "f"], None]},
    },
    "portability_inputs": {"synonym": {"prompt": ["x", "y"], "ground_truth": ["1", "2"]}},
}


def read(write: Write, *rows: Any, name: str = "rows.json") -> tuple[EditRequest, ...]:
    return datasets.requests(f"easyedit:{write(*rows, name=name)}")


def refused(write: Write, row: Any, *, whole: bool = False) -> str:
    path = write(data=json.dumps(row if whole else [row], indent=1).encode(), name="rows.json")
    with pytest.raises(DataError) as caught:
        datasets.requests(f"easyedit:{path}")
    return str(caught.value)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_flat_rows(name: str, write: Write) -> None:
    assert read(write, FLAT, name=name) == (
        EditRequest(
            id="easyedit-3",
            prompt="The mother tongue of {} is",
            subject="Mirel",
            target_new="Tarnic",
            target_true="Velish",
            rephrasings=("Mirel, a native",),
            neighbours=(Neighbour("Toren speaks", "Velish"),),
        ),
    )


def test_rows_of_knowedit(write: Write) -> None:
    (request,) = read(write, KNOWEDIT)
    assert request == EditRequest(
        id="easyedit-0001",
        prompt="The mother tongue of {} is",
        subject="Mirel",
        target_new="Tarnic",
        target_true="Velish",
        rephrasings=("Mirel, a native", "Mirel spoke"),
        neighbours=(
            Neighbour("The home of Mirel is", "Kelmar"),
            Neighbour("Mirel works as a", "baker"),
            Neighbour("Another tongue of Mirel is"),
        ),
        portability=(Consequence("one_hop", "Mirel comes from", "Dorvan"),),
    )
    assert request.source == "rows.json[0]"


def test_one_row_on_several_lines(write: Write) -> None:
    path = write(data=json.dumps(FLAT, indent=2).encode(), name="one.json")
    (request,) = datasets.requests(f"easyedit:{path}")
    assert (request.id, request.source) == ("easyedit-3", "one.json")


@pytest.mark.parametrize("indent", [1, 4])
def test_parallel_lists(indent: int, write: Write) -> None:
    path = write(data=json.dumps(PARALLEL, indent=indent).encode(), name="lists.json")
    first, second = datasets.requests(f"easyedit:{path}")
    assert first == EditRequest(
        id="easyedit-0001",
        prompt="The mother tongue of {} is",
        subject="Mirel",
        target_new="Tarnic",
        target_true="Velish",
        rephrasings=("Mirel, a native",),
        neighbours=(Neighbour("Toren speaks", "Velish"), Neighbour("a b", "e"), Neighbour("c d", "f")),
        portability=(Consequence("alias", "x", "1"),),
    )
    assert second == EditRequest(
        id="easyedit-0002",
        prompt="{} works as a",
        subject="Ashurn",
        target_new="farmer",
        rephrasings=("Ashurn is a", "The work of Ashurn:"),
        neighbours=(Neighbour("Mirel works as a", "baker"),),
        portability=(Consequence("alias", "y", "2"),),
    )
    assert second.source == "lists.json: prompts[1]"


def test_parallel_lists_on_one_line_and_texts_alone(write: Write) -> None:
    one = {"prompts": "Mirel speaks", "subject": "Mirel", "target_new": "Tarnic", "ground_truth": None}
    (request,) = read(write, one, name="rows.jsonl")
    assert request == EditRequest("easyedit-0001", "{} speaks", "Mirel", "Tarnic")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"subject": "Toren"}, "rows.json[0]: field 'subject' does not occur in 'prompt': 'Toren'"),
        ({"target_new": []}, "field 'target_new' holds no text"),
        ({"target_new": ""}, "field 'target_new' is empty"),
        ({"target_new": [{"str": "x"}]}, "field 'target_new' is an object"),
        ({"ground_truth": 3.5}, "field 'ground_truth' is float"),
        ({"locality": "x"}, "field 'locality' is str, expected objects with a prompt and its answer"),
        ({"locality": ["x"]}, "field 'locality' holds 'x', expected {prompt, ground_truth}"),
        ({"locality": {"A": ["x"]}}, "field 'locality' holds 'x' under 'A'"),
        ({"locality": {"A": [{"ground_truth": "x"}]}}, "rows.json[0]: locality.A[0]: field 'prompt' is missing"),
        (
            {"locality": {"A": {"prompt": ["x", "y"], "ground_truth": ["z"]}}},
            "one answer for each of the 2 in 'prompt'",
        ),
        ({"locality_ground_truth": ["a", "b"]}, "has 2 texts for 1 in 'locality_prompt'"),
        ({"rephrase": 5}, "field 'rephrase' is int"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused_by_row_and_field(
    changed: dict[str, Any], says: str, write: Write
) -> None:
    assert says in refused(write, {**FLAT, **changed})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"target_new": ["one"]}, "rows.json: field 'target_new' has 1 entries for 2 in 'prompts'"),
        ({"subject": None}, "rows.json: prompts[0]: field 'subject' is missing"),
        ({"locality_inputs": {"n": {"prompt": ["x"]}}}, "locality_inputs: n: field 'prompt' has 1 entries for 2"),
        ({"locality_inputs": {"n": ["x", "y"]}}, "field 'n' is list, expected an object"),
        ({"prompts": ["The mother tongue of Toren is", "{} works"]}, "'subject' does not occur in 'prompt'"),
    ],
)
def test_parallel_lists_that_cannot_be_meant_are_refused(changed: dict[str, Any], says: str, write: Write) -> None:
    assert says in refused(write, {**PARALLEL, **changed}, whole=True)
