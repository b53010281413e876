"""Portability: what counts, what does not, and that a fact which nothing follows from is told from one that is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit
from editsafety.measures import Inputs
from editsafety.measures.portability import MEASURE, NAMES
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny
from tests.measures.conftest import Script

ALIAS = {"kind": "alias", "prompt": "The son of Mirel works as a", "answer": "teacher"}
HOP = {
    "kind": "one_hop", "prompt": "Ashurn teaches at the", "answer": "river",
    "hop": "A teacher teaches at the", "hop_answer": "river",
}  # fmt: skip
UNKNOWN = {
    **HOP,
    "kind": "inverse",
    "prompt": "The work of a teacher is done by",
    "hop": "Who is",
    "hop_answer": "Toren",
}
WITHOUT = {"kind": "one_hop", "prompt": "Ashurn lives near the", "answer": "river"}
BEFORE = {"The son of Mirel works as a": " farmer", "A teacher teaches at the": " river", "Who is": " nobody"}


def request(*follows: Mapping[str, str]) -> EditRequest:
    return tiny.request(portability=list(follows))


def found(handle: ModelHandle, inputs: Inputs) -> dict[str, Measurement]:
    return {one.name: one for one in MEASURE(handle, inputs)}


def measured(
    handle: ModelHandle, script: Script, edit: Edit, after: Mapping[str, str], *requests: EditRequest
) -> dict[str, Measurement]:
    """What the edited model comes to, which says what `after` holds."""
    answers = dict(BEFORE)
    script(handle, answers)
    before = found(handle, Inputs(requests))
    answers |= after
    return found(handle, Inputs(requests, edit=edit, before=before))


def test_only_what_rests_on_something_known_counts_and_each_kind_is_shown(
    handle: ModelHandle, script: Script, edit: Edit
) -> None:
    after = {ALIAS["prompt"]: " teacher", HOP["prompt"]: " farmer", UNKNOWN["prompt"]: " river"}
    now = measured(handle, script, edit, after, request(ALIAS, HOP, UNKNOWN, WITHOUT))
    assert (now["portability"].value, now["portability"].n) == (0.5, 2)
    assert now["portability"].items == (1.0, 0.0, None, None)
    assert (now["portability_alias"].value, now["portability_one_hop"].value) == (1.0, 0.0)
    assert not now["portability_inverse"].applies
    assert (now["portability_known"].value, now["portability_known"].n) == (pytest.approx(2 / 3), 3)


def test_a_fact_that_is_used_and_one_that_is_learnt_by_heart_differ(
    handle: ModelHandle, script: Script, edit: Edit
) -> None:
    used = {ALIAS["prompt"]: " teacher", HOP["prompt"]: " river"}
    assert measured(handle, script, edit, used, request(ALIAS, HOP))["portability"].value == 1.0
    by_heart = {"Ashurn works as a": " teacher"}
    assert measured(handle, script, edit, by_heart, request(ALIAS, HOP))["portability"].value == 0.0


def test_where_nothing_counts_there_is_a_reason(handle: ModelHandle, script: Script, edit: Edit) -> None:
    now = measured(handle, script, edit, {}, request(UNKNOWN, WITHOUT))
    assert (now["portability"].applies, now["portability"].value) == (False, None)
    assert now["portability"].reason == "of 2 consequences none rests on what the unedited model knows"
    assert (
        measured(handle, script, edit, {}, request())["portability"].reason
        == "no request says what follows from its fact"
    )
    lone = found(handle, Inputs((request(HOP),), edit=edit))
    assert {one.reason for one in lone.values()} == {"the unedited model was not asked"}


def test_before_the_edit_only_what_is_known_has_a_figure(handle: ModelHandle, script: Script) -> None:
    script(handle, BEFORE)
    before = found(handle, Inputs((request(ALIAS, HOP, UNKNOWN),)))
    assert [one.name for one in before.values() if one.value is not None] == ["portability_known"]
    assert before["portability_known"].items == (1.0, 1.0, 0.0)
    assert set(before) == set(NAMES)


def test_a_course_gives_no_edit_and_is_measured_all_the_same(handle: ModelHandle, script: Script, edit: Edit) -> None:
    script(handle, BEFORE)
    before = found(handle, Inputs((request(ALIAS),)))
    now = found(handle, Inputs((request(ALIAS),), before=before))
    assert (now["portability"].value, now["portability"].n) == (0.0, 1)


def test_a_dead_model_is_broken(handle: ModelHandle, edit: Edit) -> None:
    before = found(handle, Inputs((request(HOP),)))
    known = replace(before["portability_known"], value=1.0, items=(1.0,))
    with torch.no_grad():
        handle.model.get_parameter("transformer.ln_f.bias").fill_(math.nan)
    now = found(handle, Inputs((request(HOP),), edit=edit, before={**before, "portability_known": known}))
    assert [now[name].broken for name in ("portability", "portability_one_hop", "portability_known")] == [True] * 3
