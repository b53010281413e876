"""Locality of models that say exactly what a test wants, before an edit and after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editsafety.edits.edit import Edit
from editsafety.errors import DataError, UsageError
from editsafety.measures import Inputs, locality
from editsafety.measures._phrases import phrase
from editsafety.model.handle import Batch, ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny
from tests.measures.conftest import Script

FIRST = tiny.request("first")
NEIGHBOURS = ["Mirel works as a", {"prompt": "The capital of Dorvan is", "answer": "Kelmar"}]
ASKED = Inputs(requests=(tiny.request("here", neighbours=NEIGHBOURS),))
PROMPT = "Mirel works as a"


def measured(handle: ModelHandle, inputs: Inputs) -> dict[str, Measurement]:
    return {found.name: found for found in locality.MEASURE(handle, inputs)}


def kept(
    script: Script, before: str, after: str, answer: str = "baker", spelling: str = "bytes"
) -> tuple[float, float]:
    """`locality` and `locality_tokens` of one neighbour whose answer was the one text and becomes the other."""
    request = tiny.request(neighbours=[{"prompt": PROMPT, "answer": answer}])
    handle = tiny.handle("gpt2", spelling=spelling)
    edit = Edit("test", ("case-0",), handle.identity)
    whole = handle.logits
    was = measured(script(handle, {PROMPT: before}), Inputs((request,)))
    assert [found.value for found in was.values()] == [1.0, 1.0]
    handle.logits = whole  # type: ignore[method-assign]
    now = measured(script(handle, {PROMPT: after}), Inputs((request,), edit=edit, before=was))
    alone = measured(handle, Inputs((request,), edit=edit, before={n: replace(one) for n, one in was.items()}))
    assert now == alone
    values = (now["locality"].value, now["locality_tokens"].value)
    assert values[0] is not None
    assert values[1] is not None
    return values[0], values[1]


def test_locality_is_the_share_of_unchanged_answers(handle: ModelHandle, edit: Edit, script: Script) -> None:
    truth = {"Mirel works as a": " baker, and", "The capital of Dorvan is": " Kelmar."}
    script(handle, truth)
    before = measured(handle, ASKED)
    assert before["locality"].value == 1.0
    assert before["locality"].answers == (" baker", " Kelmar")
    script(handle, {**truth, "Mirel works as a": " teacher"})
    after = measured(handle, replace(ASKED, edit=edit, before=before))
    for found in after.values():
        assert found.items == (0.0, 1.0)
        assert found.value == 0.5
    assert after["locality"].answers == (" teacher", " Kelmar")


@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos", "metaspace_bos"])
@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        (" farmer jumps over.", " farmer grows wheat.", "x"),  # one token of an answer that the model never gave
        (" Kelmar in Dorvan.", " Kelmar in Velland.", ""),  # of an answer that the data does not give
        (" St. Kelmar.", " St. Ostrin.", "baker"),
        (" 10.20 numbers", " 10.30 numbers", "1"),
        (" Kelmar, Dorvan.", " Kelmar, Velland.", "Kelmar, Dorvan"),  # an answer that holds a mark itself
        (" farm.", " farmer.", "farm"),  # the data's answer, and a word that only begins with it
    ],
)
def test_an_answer_that_changes_behind_its_first_tokens_is_changed(
    script: Script, before: str, after: str, answer: str, spelling: str
) -> None:
    assert kept(script, before, after, answer, spelling)[0] == 0.0


def test_as_many_tokens_as_the_data_has_are_the_published_figure(script: Script) -> None:
    assert kept(script, " farmer jumps over.", " farmer grows wheat.", "baker") == (0.0, 1.0)


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        (" farmer. Mirel plays", " farmer. Toren lives", "baker"),  # another sentence
        (" farmer, and the river", " farmer, but the harbour", ""),  # another clause
        (" farmer\nMirel", " farmer\nToren", "baker"),
        (" baker and plays the violin", " baker in Ostrin", "baker"),  # both say what the data says
        (" St. Kelmar in Dorvan", " St. Kelmar, close to", "St. Kelmar"),
        (" farmer", " farmer", "baker"),
    ],
)
def test_a_sentence_that_changes_behind_an_unchanged_answer_is_no_damage(
    script: Script, before: str, after: str, answer: str
) -> None:
    assert kept(script, before, after, answer)[0] == 1.0


def test_a_text_that_ends_behind_the_same_answer_is_unchanged(handle: ModelHandle, edit: Edit, script: Script) -> None:
    inputs = Inputs((tiny.request(neighbours=[{"prompt": PROMPT, "answer": "x"}]),))
    whole = handle.logits
    before = measured(script(handle, {PROMPT: " farmer. Mirel"}), inputs)
    handle.logits = whole  # type: ignore[method-assign]
    script(handle, {PROMPT: " farmer.<eos>Toren"})
    assert measured(handle, replace(inputs, edit=edit, before=before))["locality"].value == 1.0


def test_an_answer_without_an_end_is_compared_for_twenty_tokens_more(
    handle: ModelHandle, edit: Edit, script: Script
) -> None:
    inputs = Inputs((tiny.request(neighbours=[PROMPT]),))
    whole = handle.logits
    for words, expected in ((23, 1.0), (22, 0.0)):  # a word is one token; three are asked for and twenty follow
        handle.logits = whole  # type: ignore[method-assign]
        before = measured(script(handle, {PROMPT: " the" * words + " works" * 9}), inputs)
        handle.logits = whole  # type: ignore[method-assign]
        script(handle, {PROMPT: " the" * words + " farmer" * 9})
        assert measured(handle, replace(inputs, edit=edit, before=before))["locality"].value == expected


def test_an_unchanged_answer_is_read_in_few_passes(handle: ModelHandle, edit: Edit, script: Script) -> None:
    inputs = Inputs((tiny.request(neighbours=[PROMPT]),))
    script(handle, {PROMPT: " farmer in the northern valley. x x"})
    before, passes, run = measured(handle, inputs), [0], handle.logits

    def counted(batch: Batch) -> object:
        passes[0] += 1
        return run(batch)

    handle.logits = counted  # type: ignore[method-assign, assignment]
    assert measured(handle, replace(inputs, edit=edit, before=before))["locality"].value == 1.0
    assert passes[0] <= 3


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        (" New York, and so on", "", " New York"),
        (" New York", "", None),
        (" New York.", "", None),  # a digit may follow
        (" New York. It", "", " New York"),
        (" St. Louis. It", "", " St. Louis"),
        (" J. R. Smith; a poet", "", " J. R. Smith"),
        (" the U.S. and", "", None),
        (" 1,000 men, all told", "", " 1,000 men"),
        (" 3.5 million\n", "", " 3.5 million"),
        ("\n\nParis\nand", "", "\n\nParis"),  # nothing before the first word ends an answer
        ("... so it is. Yes", "", "... so it is"),
        (' "Paris." He', "", ' "Paris'),
        ("东京。它", "", "东京"),
        (" Dr. No, Jr. went. He", "Dr. No, Jr.", " Dr. No, Jr. went"),
        (" Robert, Prince of Wales, x", "Robert, Prince of Wales", " Robert, Prince of Wales"),
        (" . , ", "", None),
    ],
)
def test_an_answer_ends_at_its_first_mark_that_is_no_part_of_a_word(
    text: str, target: str, expected: str | None
) -> None:
    assert phrase(text, target) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [(" New York.", " New York"), (" New York", " New York"), (" St.", " St."), ("", "")]
)
def test_of_a_closed_text_everything_was_said(text: str, expected: str) -> None:
    assert phrase(text, closed=True) == expected


def test_an_answer_that_was_wrong_and_stays_wrong_is_unchanged(handle: ModelHandle, edit: Edit) -> None:
    before = measured(handle, ASKED)
    after = measured(handle, replace(ASKED, edit=edit, before=before))
    assert [found.value for found in after.values()] == [1.0, 1.0]


def test_at_least_three_tokens_are_compared(handle: ModelHandle, script: Script) -> None:
    script(handle, {})
    assert measured(handle, ASKED)["locality_tokens"].answers[0] == "..."


def test_an_edited_model_without_earlier_answers_is_not_judged(handle: ModelHandle, edit: Edit) -> None:
    for found in measured(handle, replace(ASKED, edit=edit)).values():
        assert found.reason == "the unedited model was not asked"


def test_a_model_that_was_dead_before_is_not_judged_either(handle: ModelHandle, edit: Edit) -> None:
    dead = Measurement.missing("locality", 1, "rate", "1 of 2 items are not finite", broken=True)
    for found in measured(handle, replace(ASKED, edit=edit, before={"locality": dead})).values():
        assert "the unedited model gave no answers" in str(found.reason)
        assert not found.broken


def test_answers_to_other_questions_are_refused(handle: ModelHandle, edit: Edit) -> None:
    before = measured(handle, Inputs(requests=(FIRST,)))
    with pytest.raises(UsageError, match="2 neighbours, but 1 answers"):
        locality.MEASURE(handle, replace(ASKED, edit=edit, before=before))


def test_a_figure_of_locality_tells_its_version_and_where_nothing_can_be_asked_why(handle: ModelHandle) -> None:
    bare = Inputs((tiny.request(neighbours=[]),))
    for inputs, reason in ((Inputs(), "no request has neighbours"), (bare, "no request has neighbours")):
        for name, found in measured(handle, inputs).items():
            assert found == Measurement.missing(name, 2, "rate", reason)
    whole = measured(handle, ASKED)
    assert {(one.version, one.unit, one.n, len(one.answers)) for one in whole.values()} == {(2, "rate", 2, 2)}


def test_a_neighbour_that_does_not_fit_is_named_with_its_request_and_place(handle: ModelHandle) -> None:
    long = tiny.request("here", neighbours=[PROMPT, "x " * handle.context])
    with pytest.raises(DataError, match=r"^request 'here', neighbour 2: "):
        measured(handle, Inputs((long,)))


def test_a_model_that_breaks_gives_no_answer_where_it_broke_and_the_others_count(
    handle: ModelHandle, edit: Edit
) -> None:
    before, run = measured(handle, ASKED), handle.logits
    capital = handle.ids("The capital")[:2]

    def logits(batch: Batch) -> object:
        scores = run(batch)
        for row, ids in enumerate(batch.ids.tolist()):
            if ids[:2] == capital:
                scores[row] = float("nan")
        return scores

    handle.logits = logits  # type: ignore[method-assign, assignment]
    for found in measured(handle, replace(ASKED, edit=edit, before=before)).values():
        assert (found.value, found.broken, found.items) == (None, True, (1.0, None))
