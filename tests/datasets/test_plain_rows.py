"""Rows that say less than their layout allows: plain targets, filled prompts, nothing where some may be missing."""

from __future__ import annotations

from typing import Any

import pytest

from editsafety import datasets
from editsafety.datasets.request import Neighbour
from editsafety.errors import DataError
from tests.datasets.conftest import Write

FLAT = {"prompt": "Mirel speaks", "subject": "Mirel", "target_new": "Tarnic"}


PLAIN_REWRITE = {"prompt": "{} speaks", "subject": "Mirel", "target_new": "Tarnic", "target_true": "Velish"}


@pytest.mark.parametrize("target", ["Tarnic", ["Tarnic"], {"str": "Tarnic"}])
@pytest.mark.parametrize("true", ["Velish", {"str": "Velish"}])
@pytest.mark.parametrize("prompt", ["{} speaks", "Mirel speaks"])
@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("given", ["counterfact", "easyedit", "mquake", "published"])
def test_a_rewrite_is_read_however_plain_it_is_written(
    target: Any, true: Any, prompt: str, several: bool, given: str, write: Write
) -> None:
    asked = {**PLAIN_REWRITE, "prompt": prompt, "target_new": target, "target_true": true}
    row = {
        "requested_rewrite": [asked] if several else asked,
        "paraphrase_prompts": ["The tongue of Mirel is"],
        "neighborhood_prompts": ["Toren speaks"],
    }
    found = datasets.read_requests(f"{given}:{write(row)}")
    (request,) = found.requests
    assert (request.filled, request.target_new, request.target_true) == ("Mirel speaks", "Tarnic", "Velish")
    assert request.rephrasings == ("The tongue of Mirel is",)
    assert request.neighbours == (Neighbour("Toren speaks", "Velish"),)
    assert found.aside == {}


@pytest.mark.parametrize("nothing", [None, "", {"str": None}, {"str": ""}, [], [None], "<|endoftext|>"])
def test_a_truth_that_is_not_known_may_be_written_in_any_way(nothing: Any, write: Write) -> None:
    asked = {"requested_rewrite": {**PLAIN_REWRITE, "target_true": nothing}}
    for row in (asked, {**FLAT, "ground_truth": nothing, "case_id": None}):
        (request,) = datasets.requests(str(write(row, name="rows.json")))
        assert request.target_true is None


def test_what_is_null_among_prompts_and_neighbours_is_nothing(write: Write) -> None:
    row = {**FLAT, "rephrase_prompt": ["The tongue of Mirel is", None], "locality": {"A": None, "B": [], "C": {}}}
    (request,) = datasets.requests(f"easyedit:{write(row)}")
    assert request.rephrasings == ("The tongue of Mirel is",)
    assert request.neighbours == ()


@pytest.mark.parametrize(
    ("target", "said"), [(None, "'target_new' is NoneType, expected text"), (True, "'target_new' is bool")]
)
def test_a_row_with_all_its_fields_is_of_a_known_layout_whatever_they_hold(
    target: Any, said: str, write: Write
) -> None:
    for row in ({**FLAT, "target_new": target}, {"requested_rewrite": {**FLAT, "target_new": target}}):
        with pytest.raises(DataError, match=said):
            datasets.requests(str(write(row, name="rows.json")))
