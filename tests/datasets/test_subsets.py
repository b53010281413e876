"""HardCF and HardEdit as their authors' code reads them, and as people keep them: one file, or one for each model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editsafety import datasets
from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.errors import DataError, UnknownNameError
from tests.datasets.conftest import Write
from tests.datasets.test_layouts import ORIGINAL

# The fields that mass_edit.py of Collapse-in-Model-Editing takes out of each row of a list; no case_id is asked for.
ROW = {
    "prompt": "Mirel works as a",
    "target_new": "baker",
    "subject": "Mirel",
    "rephrase_prompt": "By trade, Mirel is a",
    "locality_prompt": "Toren works as a",
    "locality_ground_truth": "farmer",
}
OTHER = {**ROW, "prompt": "Toren speaks", "subject": "Toren", "target_new": "Tarnic"}
# single_case_edit.py keeps the same in parallel lists, as the Python interface takes them.
PARALLEL = {
    "prompts": ["Mirel works as a", "Toren speaks"],
    "ground_truth": ["farmer", "Velish"],
    "target_new": ["baker", "Tarnic"],
    "subject": ["Mirel", "Toren"],
    "rephrase_prompts": ["By trade, Mirel is a", "At home, Toren speaks"],
    "locality_inputs": {"neighborhood": {"prompt": ["a", "b"], "ground_truth": ["c", "d"]}},
}
MIREL = EditRequest(
    id="hardcf-0001",
    prompt="{} works as a",
    subject="Mirel",
    target_new="baker",
    rephrasings=("By trade, Mirel is a",),
    neighbours=(Neighbour("Toren works as a", "farmer"),),
)


def facts(spec: str) -> list[tuple[str, str, str]]:
    return [(request.id, request.filled, request.target_new) for request in datasets.requests(spec)]


@pytest.mark.parametrize("name", ["HardCF.json", "HardCF.jsonl"])
def test_the_rows_that_the_authors_code_reads(write: Write, name: str) -> None:
    first, second = datasets.requests(f"hardcf:{write(ROW, OTHER, name=name)}")
    assert first == MIREL
    assert second.id == "hardcf-0002"


def test_the_lists_of_the_python_interface(write: Write) -> None:
    path = write(data=json.dumps(PARALLEL, indent=1).encode(), name="HardEdit.json")
    first, second = datasets.requests(f"hardedit:{path}")
    assert first == EditRequest(
        "hardedit-0001", "{} works as a", "Mirel", "baker", "farmer",
        rephrasings=("By trade, Mirel is a",), neighbours=(Neighbour("a", "c"),),
    )  # fmt: skip
    assert (second.id, second.target_true) == ("hardedit-0002", "Velish")


def test_lists_where_there_may_be_several_and_kinds_of_locality(write: Write) -> None:
    row = {
        **ROW, "target_new": ["baker", "weaver"], "ground_truth": ["farmer"], "rephrase_prompt": ["a", "b"],
        "locality": {"Relation": [{"prompt": "x", "ground_truth": ["y"]}]},
    }  # fmt: skip
    (request,) = datasets.requests(f"hardcf:{write(row)}")
    assert (request.target_new, request.target_true, request.rephrasings) == ("baker", "farmer", ("a", "b"))
    assert request.neighbours == (Neighbour("Toren works as a", "farmer"), Neighbour("x", "y"))


@pytest.fixture
def by_model(write: Write) -> Path:
    """One object with the cases of each model; one case is in both."""
    body = {"gpt2-xl": [ROW, OTHER], "gpt-j": [ROW, ORIGINAL]}
    return write(data=json.dumps(body).encode(), name="HardCF.json")


def test_subsets_for_each_model_come_together_and_a_case_that_is_in_two_comes_once(by_model: Path) -> None:
    assert facts(f"hardcf:{by_model}") == [
        ("hardcf-gpt2-xl-0001", "Mirel works as a", "baker"),
        ("hardcf-gpt2-xl-0002", "Toren speaks", "Tarnic"),
        ("hardcf-gpt-j-173", "The mother tongue of Mirel is", "Tarnic"),
    ]


def test_one_subset_can_be_taken(by_model: Path) -> None:
    assert [fact[0] for fact in facts(f"hardcf:{by_model}#gpt-j")] == ["hardcf-gpt-j-0001", "hardcf-gpt-j-173"]
    with pytest.raises(UnknownNameError, match=r"no subset of HardCF.json named 'gpt2'; did you mean 'gpt2-xl'"):
        datasets.requests(f"hardcf:{by_model}#gpt2")


def test_a_folder_has_a_subset_in_each_file(tmp_path: Path) -> None:
    folder = tmp_path / "HardCF"
    folder.mkdir()
    (folder / "gpt-j.json").write_text(json.dumps([ROW]))
    (folder / "gpt2-xl.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(OTHER) + "\n")
    (folder / "README.md").write_text("about")
    assert [fact[0] for fact in facts(f"hardcf:{folder}")] == ["hardcf-gpt-j-0001", "hardcf-gpt2-xl-0002"]
    assert len(facts(f"hardcf:{folder}#gpt2-xl")) == 2


def test_a_file_that_is_really_called_so_comes_before_a_subset(write: Write) -> None:
    assert len(facts(f"hardcf:{write(ROW, name='cases#1.jsonl')}")) == 1


def test_a_folder_without_cases_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder without any"):
        datasets.requests(f"hardcf:{tmp_path}")
    with pytest.raises(DataError, match="there is no such file"):
        datasets.requests(f"hardcf:{tmp_path}/nowhere.json")


def test_the_same_case_twice_in_a_plain_file_is_still_refused(write: Write) -> None:
    row = {**ROW, "case_id": 7}
    with pytest.raises(DataError, match="the id 'hardcf-7' is already that of"):
        datasets.requests(f"hardcf:{write(row, row)}")


def test_hardedit_without_a_file_is_the_shipped_set() -> None:
    assert datasets.requests("hardedit")[0].id == "hardedit-0001"
    assert "hardedit" in datasets.names()
