"""Every layout in which the field passes requests around is read, told by its fields under whatever name it comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editsafety import datasets
from editsafety.datasets.request import Consequence, EditRequest, Neighbour
from editsafety.errors import DataError
from tests.datasets.conftest import Write

FLAT = {"prompt": "Mirel speaks", "subject": "Mirel", "target_new": "Tarnic"}
KNOWEDIT = {
    **FLAT,
    "rephrase_prompt": "The tongue of Mirel is",
    "cond": "x >> y",
    "locality": {"Relation_Specificity": [{"prompt": "Mirel works as a", "ground_truth": [["baker"], ["cook"]]}]},
    "portability": {"Reasoning": [{"prompt": "Mirel comes from", "ground_truth": "Dorvan"}]},
}


def query(prompt: str, subject: str, relation: str, *answers: str) -> dict[str, Any]:
    return {
        "prompt": prompt, "answers": [{"value": answer, "aliases": []} for answer in answers], "query_type": "regular",
        "subject_id": subject, "relation": relation, "target_ids": ["Q9"] * len(answers), "phrase": None,
    }  # fmt: skip


def asking(*queries: dict[str, Any]) -> dict[str, Any]:
    return {"test_queries": list(queries), "test_condition": "OR", "condition_queries": []}


RIPPLE = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the home of Mirel of Old Dorvan is Kelmar.", "subject_id": "Q1", "relation": "HOME",
        "target_id": "Q2",
        "original_fact": {
            "prompt": "The name of the home of Mirel of Old Dorvan is Ostrin.", "subject_id": "Q1", "relation": "HOME",
            "target_id": "Q3",
        },
    },
    "Relation_Specificity": [
        asking(query("The name of the mother of Mirel of Old Dorvan is", "Q1", "MOTHER", "Ashurn", "Toren")),
        asking(query("The occupation of Mirel of Old Dorvan is", "Q1", "TRADE", "baker")),
    ],
    "Forgetfulness": [asking(query("The home of Mirel of Old Dorvan which is not Kelmar is", "Q1", "HOME"))],
    "Logical_Generalization": [asking(query("The name of the head of Kelmar is", "Q2", "HEAD", "Toren"))],
    "Subject_Aliasing": [],
    "Compositionality_I": [{
        **asking(query("The sea at the home of Mirel of Old Dorvan is", "Q1", "SEA", "Velsee")),
        "condition_queries": [query("The sea at Kelmar is", "Q2", "SEA", "Velsee")],
    }],
    "Compositionality_II": [],
}  # fmt: skip

LAYOUTS: dict[str, tuple[dict[str, Any], list[EditRequest], dict[str, int]]] = {
    "rome": (
        {"case_id": 7, "prompt": "{} is known for", "subject": "Mirel", "target_new": {"str": "running", "id": "Q1"},
         "target_true": {"str": "baking", "id": "Q2"}, "relation_id": "P641", "seen": True},
        [EditRequest("rome-7", "{} is known for", "Mirel", "running", "baking", "P641")],
        {"seen": 1},
    ),
    "mquake": (
        {"case_id": 5, "questions": ["Which town is the head of Mirel's land from?"], "answer": "Ostrin",
         "new_answer": "Kelmar", "requested_rewrite": [
             {"prompt": "{} is a citizen of", "relation_id": "P27", "subject": "Mirel", "fact_new": "x",
              "target_new": {"str": "Dorvan"}, "target_true": {"str": "Velland"}, "question": "Whose is Mirel?"},
             {"prompt": "The capital of {} is", "subject": "Dorvan", "target_new": {"str": "Kelmar"}}]},
        [EditRequest("mquake-5-0", "{} is a citizen of", "Mirel", "Dorvan", "Velland", "P27",
                     ("Whose is Mirel?",)),
         EditRequest("mquake-5-1", "The capital of {} is", "Dorvan", "Kelmar")],
        {"answer": 1, "fact_new": 1, "new_answer": 1, "questions": 1},
    ),
    "easyedit": (
        KNOWEDIT,
        [EditRequest("easyedit-0001", "{} speaks", "Mirel", "Tarnic", None, "", ("The tongue of Mirel is",),
                     (Neighbour("Mirel works as a", "baker"),),
                     (Consequence("one_hop", "Mirel comes from", "Dorvan"),))],
        {"cond": 1, "ground_truth but the first": 1},
    ),
    "easyedit, its results": (
        {"case_id": 4, "requested_rewrite": {**FLAT, "ground_truth": "Velish", "portability": {"a": 1},
                                             "locality": {"n": {"prompt": "Toren speaks", "ground_truth": "Velish"}}},
         "time": 1.5, "pre": {"rewrite_acc": [0.0]}, "post": {"rewrite_acc": [1.0]}},
        [EditRequest("easyedit-4", "{} speaks", "Mirel", "Tarnic", "Velish", "", (),
                     (Neighbour("Toren speaks", "Velish"),))],
        {"portability": 1, "post": 1, "pre": 1, "time": 1},
    ),
    "easyedit, one hop": (
        {**FLAT, "portability": {"Recalled Relation": "(Tarnic, spoken in, Dorvan)", "New Question": "Where?"}},
        [EditRequest("easyedit-0001", "{} speaks", "Mirel", "Tarnic")],
        {"portability": 1},
    ),
    "easyedit, one hop and its answer": (
        {**FLAT, "portability": {"Recalled Relation": "(Tarnic, is spoken in, Dorvan)", "New Question": "Where?",
                                 "New Answer": "Dorvan"}},
        [EditRequest("easyedit-0001", "{} speaks", "Mirel", "Tarnic",
                     portability=(Consequence("one_hop", "Where?", "Dorvan", "Tarnic is spoken in", "Dorvan"),))],
        {},
    ),
    "wikibio": (
        {"text": "A passage about Mirel of Dorvan.", "concept": "mirel of dorvan", "labels": "She bakes.",
         "locality": {"Relation_Specificity": [{"prompt": "The trade of Mirel is", "ground_truth": ["baker"]}]}},
        [EditRequest("wikibio-0001", "A passage about {}.", "Mirel of Dorvan", "She bakes.", None, "", (),
                     (Neighbour("The trade of Mirel is", "baker"),))],
        {},
    ),
    "cknowedit": (
        {"prompt": "请解释如下成语：一石二鸟", "target_old": "错", "target_new": "一举两得",
         "rephrase": ["一石二鸟是什么意思？"], "portability": [{"prompt": "甲", "answer": "乙"}],
         "locality": [{"prompt": "请解释画蛇添足", "answer": "多此一举"}, {}]},
        [EditRequest("cknowedit-0001", "请解释如下成语：{}", "一石二鸟", "一举两得", "错", "",
                     ("一石二鸟是什么意思？",), (Neighbour("请解释画蛇添足", "多此一举"),))],
        {"locality without a prompt": 1, "portability": 1},
    ),
    "cknowedit, no instruction": (
        {"prompt": "谁写了这首诗？", "target_old": "", "target_new": "李白", "rephrase": None, "locality": None},
        [EditRequest("cknowedit-0001", "{}", "谁写了这首诗？", "李白")],
        {},
    ),
    "unke": (
        {"id": 3, "question": "What does Mirel do?", "para_question": "What is Mirel's trade?", "answer": "She bakes.",
         "sub_question": ["Who?"], "sub_answer": ["Mirel"]},
        [EditRequest("unke-3", "{}", "What does Mirel do?", "She bakes.", None, "", ("What is Mirel's trade?",))],
        {"sub_answer": 1, "sub_question": 1},
    ),
    "fastedit": (
        {"prompt": "The head of {} is", "subject": "Dorvan", "target": "Mirel", "queries": ["Who leads Dorvan?"]},
        [EditRequest("fastedit-0001", "The head of {} is", "Dorvan", "Mirel", None, "", ("Who leads Dorvan?",))],
        {},
    ),
    "wikibigedit": (
        {"subject": "Mirel", "update": "Where does Mirel live?", "ans": "Kelmar", "rephrase": "Mirel's home?",
         "loc": "Who bakes?", "loc_ans": "Toren", "mhop": "x", "tag": "new"},
        [EditRequest("wikibigedit-0001", "Where does {} live?", "Mirel", "Kelmar", None, "", ("Mirel's home?",),
                     (Neighbour("Who bakes?", "Toren"),))],
        {"mhop": 1, "tag": 1},
    ),
    "ripple_edits": (
        RIPPLE,
        [EditRequest("ripple_edits-0001", "The name of the home of {} is", "Mirel of Old Dorvan", "Kelmar", "Ostrin",
                     "HOME", (), (Neighbour("The name of the mother of Mirel of Old Dorvan is", "Ashurn"),
                                  Neighbour("The occupation of Mirel of Old Dorvan is", "baker"),
                                  Neighbour("The home of Mirel of Old Dorvan which is not Kelmar is")),
                     (Consequence("logical", "The name of the head of Kelmar is", "Toren"),
                      Consequence("one_hop", "The sea at the home of Mirel of Old Dorvan is", "Velsee",
                                  "The sea at Kelmar is", "Velsee")))],
        {"Relation_Specificity: answers but the first": 1, "example_type": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("file", ["rows.json", "rows.jsonl"])
def test_rows_become_requests_and_what_is_set_aside_is_counted(case: str, file: str, write: Write) -> None:
    row, expected, aside = LAYOUTS[case]
    name = case.partition(",")[0]
    found = datasets.read_requests(f"{name}:{write(row, name=file)}")
    assert list(found.requests) == expected
    assert found.aside == aside
    assert found.left_out == ()


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("given", ["counterfact", "hardcf", "zsre", "qaedit", "easyedit", "unke", "published"])
def test_a_layout_is_told_by_its_fields_and_the_name_begins_the_ids(case: str, given: str, write: Write) -> None:
    row, expected, aside = LAYOUTS[case]
    found = datasets.read_requests(f"{given}:{write(row)}")
    prefix = case.partition(",")[0] if given == "published" else given
    assert [request.id.partition("-")[0] for request in found.requests] == [prefix] * len(expected)
    assert [(r.filled, r.target_new, r.neighbours, r.portability) for r in found.requests] == [
        (r.filled, r.target_new, r.neighbours, r.portability) for r in expected
    ]
    assert found.aside == aside


def test_a_json_file_without_a_loader_is_read_by_its_fields(write: Write) -> None:
    path = write(LAYOUTS["unke"][0], LAYOUTS["fastedit"][0], name="mine.json")
    assert [request.id for request in datasets.requests(str(path))] == ["unke-3", "fastedit-0002"]


def test_a_row_of_two_layouts_is_refused_with_both_unless_the_name_says_which(write: Write) -> None:
    row = {"prompt": "what is Mirel", "subject": "Mirel", "target": "a baker"}
    with pytest.raises(DataError, match=r"could be in the layout of fastedit \(.*\) or of qaedit \(.*\)\. Say which"):
        datasets.requests(str(write(row, name="rows.json")))
    assert datasets.requests(f"fastedit:{write(row)}")[0].id == "fastedit-0001"
    assert datasets.requests(f"qaedit:{write({**row, 'source': 'NQ'})}")[0].id == "qaedit-NQ-0001"


def test_a_row_of_no_layout_is_refused_with_its_fields_and_those_that_are_known(write: Write) -> None:
    with pytest.raises(DataError) as caught:
        datasets.requests(str(write({"fact": "x", "who": "y"}, name="rows.json")))
    message = str(caught.value)
    assert message.startswith("rows.json[0]: is in no layout that is known here (fields here: fact, who).")
    assert all(name in message for name in ("easyedit", "mquake", "unke", "ripple_edits", "wikibio"))


def test_a_published_row_in_a_file_of_our_own_layout_names_the_loader(write: Write) -> None:
    with pytest.raises(DataError, match=r"unknown field .* The row is in a published layout: give mquake:FILE\."):
        datasets.requests(str(write(LAYOUTS["mquake"][0])))


@pytest.mark.parametrize("portability", [7, "x", ["x"], {"A": 3}, {"A": [{"prompt": 7}]}, [[{"no": None}]]])
@pytest.mark.parametrize("given", ["easyedit", "counterfact", "zsre"])
def test_a_field_that_is_not_used_never_decides_whether_a_row_is_read(
    portability: Any, given: str, write: Write
) -> None:
    found = datasets.read_requests(f"{given}:{write({**FLAT, 'portability': portability, 'extra': portability})}")
    assert len(found.requests) == 1
    assert found.aside == {"extra": 1, "portability": 1}


@pytest.mark.parametrize(
    ("portability", "expected"),
    [
        ({"Subject_Aliasing": [{"prompt": "M. speaks", "ground_truth": [["Tarnic", "x"]]}]},
         [Consequence("alias", "M. speaks", "Tarnic")]),
        ({"inverse_relation": {"prompt": "Tarnic is spoken by", "ground_truth": "Mirel"}},
         [Consequence("inverse", "Tarnic is spoken by", "Mirel")]),
        ({"one_hop": {"prompt": ["a", "b"], "ground_truth": ["c", ["d", "e"]]}},
         [Consequence("one_hop", "a", "c"), Consequence("one_hop", "b", "d")]),
        ({"Some kind": [{"prompt": "a", "answer": "b"}], "other": []}, [Consequence("some_kind", "a", "b")]),
        ({"New Question": "a", "New Answer": ["b"], "Recalled Relation": "none"}, [Consequence("one_hop", "a", "b")]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("given", ["easyedit", "counterfact", "zsre"])
def test_what_follows_from_a_fact_is_read_whatever_it_is_called(
    portability: Any, expected: list[Consequence], given: str, write: Write
) -> None:
    found = datasets.read_requests(f"{given}:{write({**FLAT, 'portability': portability})}")
    assert list(found.requests[0].portability) == expected
    assert found.aside == {}


def test_of_what_follows_only_what_cannot_be_read_is_set_aside(write: Write) -> None:
    half = {"Reasoning": [{"prompt": "a", "ground_truth": "b"}, {"prompt": "", "ground_truth": "c"}, 7]}
    found = datasets.read_requests(f"easyedit:{write({**FLAT, 'portability': half})}")
    assert found.requests[0].portability == (Consequence("one_hop", "a", "b"),)
    assert found.aside == {"portability": 1}


@pytest.mark.parametrize(
    ("fields", "neighbour"),
    [
        ({"locality_prompt": "Toren speaks", "locality_ground_truth": "Velish"}, Neighbour("Toren speaks", "Velish")),
        ({"locality_prompt": ["Toren speaks"], "locality_answer": ["Velish"]}, Neighbour("Toren speaks", "Velish")),
        ({"loc": "Toren speaks", "loc_ans": "Velish"}, Neighbour("Toren speaks", "Velish")),
        ({"locality": [{"loc": "Toren speaks", "loc_ans": "Velish"}]}, Neighbour("Toren speaks", "Velish")),
        ({"locality": [{"prompt": "Toren speaks", "answer": "Velish"}]}, Neighbour("Toren speaks", "Velish")),
        ({"locality": {"A": {"prompt": ["Toren speaks"], "ground_truth": [["Velish"]]}}},
         Neighbour("Toren speaks", "Velish")),
        ({"neighborhood_prompts": ["Toren speaks"]}, Neighbour("Toren speaks")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("given", ["easyedit", "counterfact", "zsre", "wikibigedit", "hardcf", "published"])
def test_no_neighbour_is_lost_whatever_it_is_called(
    fields: dict[str, Any], neighbour: Neighbour, given: str, write: Write
) -> None:
    (request,) = datasets.requests(f"{given}:{write({**FLAT, **fields})}")
    assert request.neighbours == (neighbour,)


def test_empty_fields_are_not_said_to_be_lost(write: Write) -> None:
    row = {**FLAT, "portability": {}, "cond": "", "pre": None, "post": []}
    assert datasets.read_requests(f"easyedit:{write(row)}").aside == {}


@pytest.mark.parametrize(
    ("edit", "tests", "prompt", "subject", "target"),
    [
        ({"prompt": "The name of the hut of Mirel is Kelmar."}, {}, "The name of the hut of {} is", "Mirel", "Kelmar"),
        (
            {"prompt": "The name of the land which Mirel is tied to is Dorvan.", "subject_id": "Q1"},
            {"Relation_Specificity": [asking(query("The name of the trade of Mirel is", "Q1", "T", "x"))],
             "Logical_Generalization": [asking(query("The name of the head of Dorvan is", "Q2", "H", "x"))]},
            "The name of the land which {} is tied to is", "Mirel", "Dorvan",
        ),
        (
            {"prompt": "The names of the siblings of Mirel are Toren.", "subject": "Mirel"}, {},
            "The names of the siblings of {} are", "Mirel", "Toren",
        ),
    ],
)  # fmt: skip
def test_a_sentence_of_ripple_edits_is_divided_into_subject_and_target(
    edit: dict[str, Any], tests: dict[str, Any], prompt: str, subject: str, target: str, write: Write
) -> None:
    (request,) = datasets.requests(f"ripple_edits:{write({'edit': {'target_id': 'Q2', **edit}, **tests})}")
    assert (request.prompt, request.subject, request.target_new) == (prompt, subject, target)


def test_a_sentence_that_does_not_show_its_subject_is_refused(write: Write) -> None:
    row = {"edit": {"prompt": "Mirel lives where the baker is Toren.", "subject": "Ashurn"}}
    with pytest.raises(DataError, match="edit: field 'prompt' does not show which name is the subject"):
        datasets.requests(f"ripple_edits:{write(row)}")


USERS = Path(__file__).resolve().parents[2].parent / "shared" / "cases" / "users"


@pytest.mark.skipif(not USERS.is_dir(), reason="the collected inputs of users are not here")
@pytest.mark.parametrize("folder", ["H07", "H08", "H09", "H15", "H17", "H18"])
def test_the_collected_inputs_are_read_without_a_loader(folder: str) -> None:
    (file,) = USERS.glob(f"{folder}-*/*.json")
    assert len(datasets.requests(str(file))) == len(json.loads(file.read_text()))
