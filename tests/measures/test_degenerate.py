"""Which texts have degenerated, and that a model which runs in circles is found out."""

from __future__ import annotations

import zlib

import pytest

from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.measures import Inputs, degenerate
from editsafety.measures._degeneration import compression, degeneration
from editsafety.measures.degenerate import MEASURE
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

SOUND = (
    "The harbour was quiet that morning. Two fishermen mended a net, and a third one slept on a coil of rope. "
    "Nobody saw the ship come in; it was simply there when the fog rose, with its lamps still lit and no one on deck."
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SOUND, None),
        (SOUND * 2, None),  # each sentence twice
        (SOUND * 3, "one sentence 3 times: 'the harbour was quiet that morning'"),
        ("No. No. No. No.", None),  # short ones may come again
        ("a" * 14, None),
        ("wait" + "!" * 15, "one character 15 times in a row: '!'"),
        (" of the" * 7, None),
        ("first of the" + " of the" * 8, "the same 4 times in a row"),  # in stretches of two
        ("one two three four, " * 4, "the same 4 times in a row: 'one two three four, '"),
        ("one two three four, " * 3, None),
        ("abcabdacbadc" * 3 + "bcadbcadcbadbacdcabdbcabcdacbadcbdacbdabcadbcadbcadcbdacbadbcadbcdab", "fewer than 8"),
        ("", "it says nothing"),
        (" \n", "it says nothing"),
    ],
)
def test_a_text_has_degenerated_by_a_rule_that_is_named(text: str, said: str | None) -> None:
    found = degeneration(text)
    assert found == said or (found is not None and said is not None and found.startswith(said))


def test_compression_is_that_of_zlib_and_a_text_without_a_byte_has_none() -> None:
    assert compression("ab" * 200) == 400 / len(zlib.compress(b"ab" * 200, 9))
    assert 1.0 < (compression(SOUND) or 0) < 2.0 < 10.0 < (compression("of the " * 60) or 0)
    assert compression("") is None


@pytest.fixture
def in_circles(handle: ModelHandle) -> Edit:
    """An edit after which one token follows every other: the last norm gives one vector, whatever comes in."""
    weight = handle.model.get_parameter("transformer.ln_f.weight")
    bias = handle.model.get_parameter("transformer.ln_f.bias")
    token = handle.ids("a", special=False)[0]
    direction = handle.model.get_input_embeddings().weight[token].detach().clone() * 100
    deltas = (
        Replace("transformer.ln_f.weight", weight.detach() * 0),
        Replace("transformer.ln_f.bias", direction.to(bias.dtype)),
    )
    return Edit("circles", (), handle.identity, deltas)


def measured(handle: ModelHandle, references: object) -> dict[str, Measurement]:
    return {one.name: one for one in MEASURE(handle, Inputs(references={"degenerate": references}))}


def test_an_edit_that_makes_a_model_run_in_circles_is_found_and_an_unchanged_model_is_not(
    handle: ModelHandle, in_circles: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(degenerate, "TOKENS", 40)
    # What the untrained model says is no text either; here its answers count as sound ones.
    said = tuple(degenerate._FreeText(one.prompt, one.ids, SOUND) for one in MEASURE.refer(handle, Inputs()))  # type: ignore[attr-defined]
    with EditSession(handle, prove="never") as session:
        session.apply(in_circles)
        after = measured(handle, said)
    assert after["degenerate"].value == after["degenerate_added"].value == 1.0
    assert after["degenerate_added"].n == len(said) == 3
    assert after["compression"].value is not None
    assert after["compression"].value > 2.4


def test_what_was_broken_before_does_not_count_as_added(handle: ModelHandle) -> None:
    asked = MEASURE.refer(handle, Inputs())
    before = tuple(degenerate._FreeText(one.prompt, one.ids, "") for one in asked)  # type: ignore[attr-defined]
    found = measured(handle, before)["degenerate_added"]
    assert not found.applies
    assert found.reason == "the unedited model answers 0 of 3 prompts soundly, too few to lose any"


def test_the_answers_of_an_unchanged_model_are_the_same_whether_they_are_drafted_or_not(handle: ModelHandle) -> None:
    first = MEASURE.refer(handle, Inputs())
    plain = tuple(degenerate._FreeText(one.prompt) for one in first)  # type: ignore[attr-defined]
    drafted = measured(handle, first)["degenerate"].answers
    assert drafted == measured(handle, plain)["degenerate"].answers
