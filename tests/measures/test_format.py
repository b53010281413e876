"""What counts as JSON, and that a model which forgets how to write it is found out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from editsafety import datasets
from editsafety.measures import Inputs, format
from editsafety.measures._json_answers import opens_with_json
from editsafety.measures.format import MEASURE
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny
from tests.measures.conftest import Script


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (' {"name": "Nora", "age": 34}', True),
        ('["apple", "pear"]\n\nSentence: and so on', True),
        ('```json\n{"a": [1, {"b": null}]}\n```', True),
        ("{}", True),
        ('{"name": "Nora", "age": }', False),
        ('{"name": "Nora"', False),
        ("{'name': 'Nora'}", False),
        ('{"a": NaN}', False),
        ('Here it is: {"a": 1}', False),
        ("34", False),  # a value of JSON, but nothing that was asked for
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_json_is_a_whole_object_or_list_at_the_beginning(text: str, valid: bool) -> None:
    assert opens_with_json(text) is valid


PROMPTS = tuple(datasets.texts(format.SOURCE)[:4])


@pytest.fixture
def answering(handle: ModelHandle, script: Script, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the model says to each prompt, to be changed as a test likes."""
    monkeypatch.setattr(datasets, "texts", lambda _source: PROMPTS)
    monkeypatch.setattr(format, "TOKENS", 30)
    answers = dict.fromkeys(PROMPTS, ' ["a"]')
    script(handle, answers)
    return answers


def measured(handle: ModelHandle, references: object) -> Mapping[str, Measurement]:
    return {one.name: one for one in MEASURE(handle, Inputs(references={"format": references}))}


def test_a_model_that_forgets_json_is_found_and_only_what_it_could_do_counts(
    handle: ModelHandle, answering: dict[str, str]
) -> None:
    answering[PROMPTS[0]] = " a list"
    before = MEASURE.refer(handle, Inputs())
    kept = measured(handle, before)
    assert (kept["format"].value, kept["format_kept"].value) == (0.75, 1.0)
    answering |= {PROMPTS[0]: ' ["a"]', PROMPTS[1]: ' ["a', PROMPTS[2]: " a"}
    found = measured(handle, before)
    assert found["format"].value == 0.5
    assert found["format_kept"].value == pytest.approx(1 / 3)
    assert found["format_kept"].n == 3
    assert found["format_kept"].items == (None, 0.0, 0.0, 1.0)


def test_it_does_not_apply_to_a_model_that_never_wrote_json_nor_to_the_pocket_world(
    handle: ModelHandle, answering: dict[str, str]
) -> None:
    answering |= dict.fromkeys(PROMPTS, " a list")
    for one in measured(handle, MEASURE.refer(handle, Inputs())).values():
        assert (one.applies, one.reason) == (False, "the unedited model answers nothing by JSON")
    pocket = tiny.handle("gpt2")
    pocket.spec = ModelHandle.of(pocket.model, pocket.tokenizer, name="pocket-mine").spec
    for one in measured(pocket, MEASURE.refer(pocket, Inputs())).values():
        assert (one.applies, one.reason) == (False, "the pocket world has no JSON")
