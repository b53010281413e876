"""What each published layout becomes."""

from __future__ import annotations

import pytest

from editsafety import datasets
from editsafety.datasets.request import EditRequest, Neighbour
from tests.datasets.conftest import Write

ORIGINAL = {
    "case_id": 173,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "subject": "Mirel",
        "target_new": {"str": "Tarnic", "id": "Q1"},
        "target_true": {"str": "Velish", "id": "Q2"},
    },
    "paraphrase_prompts": ["Nothing more was said. Mirel spoke", "Mirel, a native"],
    "neighborhood_prompts": ["The mother tongue of Toren is", "Toren spoke"],
    "attribute_prompts": ["x"],
    "generation_prompts": ["y"],
}
FLAT = {
    "case_id": 173,
    "prompt": "The mother tongue of Mirel is",
    "subject": "Mirel",
    "target_new": "Tarnic",
    "ground_truth": "Velish",
    "rephrase_prompt": "Nothing more was said. Mirel spoke",
    "locality_prompt": "The mother tongue of Toren is",
    "locality_ground_truth": "Velish",
}


@pytest.mark.parametrize("loader", ["counterfact", "hardcf", "hardedit"])
def test_the_original_layout(loader: str, write: Write) -> None:
    (request,) = datasets.requests(f"{loader}:{write(ORIGINAL, name='file.json')}")
    assert request == EditRequest(
        id=f"{loader}-173",
        prompt="The mother tongue of {} is",
        subject="Mirel",
        target_new="Tarnic",
        target_true="Velish",
        relation="P103",
        rephrasings=("Nothing more was said. Mirel spoke", "Mirel, a native"),
        neighbours=(Neighbour("The mother tongue of Toren is", "Velish"), Neighbour("Toren spoke", "Velish")),
    )
    assert request.source == "file.json[0]"


@pytest.mark.parametrize("loader", ["counterfact", "hardcf", "hardedit"])
def test_the_flat_layout(loader: str, write: Write) -> None:
    (request,) = datasets.requests(f"{loader}:{write(FLAT)}")
    assert request == EditRequest(
        id=f"{loader}-173",
        prompt="The mother tongue of {} is",
        subject="Mirel",
        target_new="Tarnic",
        target_true="Velish",
        rephrasings=("Nothing more was said. Mirel spoke",),
        neighbours=(Neighbour("The mother tongue of Toren is", "Velish"),),
    )


def test_flat_fields_may_be_lists_or_absent(write: Write) -> None:
    lists = {**FLAT, "rephrase_prompt": ["a", "b"], "locality_prompt": ["c", "d"], "locality_ground_truth": ["e", "f"]}
    bare = {"prompt": "Mirel is", "subject": "Mirel", "target_new": "x"}
    first, second = datasets.requests(f"counterfact:{write(lists, bare)}")
    assert first.rephrasings == ("a", "b")
    assert first.neighbours == (Neighbour("c", "e"), Neighbour("d", "f"))
    assert second == EditRequest("counterfact-0002", "{} is", "Mirel", "x")


def test_neighbours_without_answers_are_kept(write: Write) -> None:
    row = {key: value for key, value in FLAT.items() if key != "locality_ground_truth"}
    (request,) = datasets.requests(f"counterfact:{write(row)}")
    assert request.neighbours == (Neighbour("The mother tongue of Toren is"),)


@pytest.mark.parametrize(
    ("prompt", "subject", "template"),
    [
        ("Mirel and Mirel speak", "Mirel", "{} and Mirel speak"),
        ("Mirella knows Mirel well", "Mirel", "Mirella knows {} well"),
        ("if i want to be with you", "i", "if {} want to be with you"),
        ("Mirella speaks", "Mirel", "{}la speaks"),
        ("The Mirel's tongue", "Mirel", "The {}'s tongue"),
        ("Who is C++?", "C++", "Who is {}?"),
        ("Who is (a|b)?", "(a|b)", "Who is {}?"),
        ("{} speaks", "Mirel", "{} speaks"),
        ("東京は首都", "東京", "{}は首都"),
    ],
)
def test_one_occurrence_of_the_subject_becomes_the_slot(prompt: str, subject: str, template: str, write: Write) -> None:
    (request,) = datasets.requests(f"counterfact:{write({**FLAT, 'prompt': prompt, 'subject': subject})}")
    assert request.prompt == template


def test_zsre_questions(write: Write) -> None:
    row = {
        "subject": "Dorvan", "src": "Where is Dorvan?", "pred": "x", "rephrase": "Dorvan is where?", "alt": "Velland ",
        "answers": ["Ostrin", "Old Ostrin"], "loc": "nq question: who is he", "loc_ans": "Toren", "cond": "y",
    }  # fmt: skip
    (request,) = datasets.requests(f"zsre:{write(row)}")
    assert request == EditRequest(
        id="zsre-0001",
        prompt="Where is {}?",
        subject="Dorvan",
        target_new="Velland",
        target_true="Ostrin",
        rephrasings=("Dorvan is where?",),
        neighbours=(Neighbour("nq question: who is he", "Toren"),),
    )


def test_zsre_in_the_flat_layout(write: Write) -> None:
    (request,) = datasets.requests(f"zsre:{write(FLAT)}")
    assert (request.id, request.target_new) == ("zsre-173", "Tarnic")


def test_qaedit_questions(write: Write) -> None:
    row = {
        "id": 12, "source": "NQ", "prompt": "who is Toren", "subject": "Toren", "target": "a baker",
        "rephrase": "Toren?", "locality": [{"loc": "who is Mirel", "loc_ans": "a farmer"}, {"loc": "and Ashurn"}],
    }  # fmt: skip
    (request,) = datasets.requests(f"qaedit:{write(row)}")
    assert request == EditRequest(
        id="qaedit-NQ-12",
        prompt="who is {}",
        subject="Toren",
        target_new="a baker",
        rephrasings=("Toren?",),
        neighbours=(Neighbour("who is Mirel", "a farmer"), Neighbour("and Ashurn")),
    )
