"""Efficacy and generalisation of models that say exactly what a test wants."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from editsafety.errors import DataError, UsageError
from editsafety.measures import Inputs, efficacy, generalisation
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny
from tests.measures.conftest import Script

FIRST = tiny.request("first", rephrasings=["The work of Ashurn is", "Ashurn is a"])
SECOND = tiny.request("second", subject="Mirel", target_new="farmer", target_true=None, rephrasings=[], neighbours=[])
THIRD = tiny.request("third", subject="Toren", target_new="baker", rephrasings=["Toren is a"])
ALL = Inputs(requests=(FIRST, SECOND, THIRD))


def by_name(found: tuple[Measurement, ...]) -> dict[str, Measurement]:
    return {entry.name: entry for entry in found}


def test_a_model_that_always_answers_right_scores_one(handle: ModelHandle, script: Script) -> None:
    right = {request.filled: f" {request.target_new}" for request in ALL.requests}
    prefixes = tuple(f"{word} bread. " for word in ("A", "The", "x"))
    right |= {prefix + r.filled: f" {r.target_new}" for prefix, r in zip(prefixes, ALL.requests, strict=True)}
    right |= {text: f" {request.target_new}" for request in ALL.requests for text in request.rephrasings}
    script(handle, right)
    found = by_name(efficacy.MEASURE(handle, replace(ALL, prefixes=prefixes)))
    assert found["efficacy"].value == found["efficacy_prefixed"].value == found["efficacy_pairwise"].value == 1.0
    assert found["efficacy"].items == (1.0, 1.0, 1.0)
    assert [answer.strip()[:5] for answer in found["efficacy"].answers] == ["teach", "farme", "baker"]
    assert (found["target_probability"].value or 0.0) > 0.97
    (general,) = generalisation.MEASURE(handle, ALL)
    assert general.value == 1.0


def test_one_wrong_answer_of_three_gives_two_thirds(handle: ModelHandle, script: Script) -> None:
    script(handle, {FIRST.filled: " teacher.", SECOND.filled: " farmers", THIRD.filled: " baker"})
    found = by_name(efficacy.MEASURE(handle, ALL))["efficacy"]
    assert found.items == (1.0, 0.0, 1.0)
    assert found.value == pytest.approx(2 / 3)
    assert found.answers[1].startswith(" far")


def test_the_pairwise_score_can_be_right_while_the_answer_is_wrong(handle: ModelHandle, script: Script) -> None:
    script(handle, {})  # says "." behind every prompt
    found = by_name(efficacy.MEASURE(handle, Inputs(requests=(FIRST,))))
    assert found["efficacy"].value == 0.0
    assert found["efficacy_pairwise"].value == 0.0  # a tie loses


def test_the_pairwise_score_leaves_out_requests_without_an_old_target(handle: ModelHandle) -> None:
    found = by_name(efficacy.MEASURE(handle, ALL))["efficacy_pairwise"]
    assert found.n == 2
    assert found.items[1] is None
    none = by_name(efficacy.MEASURE(handle, Inputs(requests=(SECOND,))))["efficacy_pairwise"]
    assert none.reason == "no request has a target_true"


@pytest.mark.parametrize(
    ("family", "tokenizer"), [("gpt2", "bytes"), ("llama", "bytes_bos"), ("gemma2", "metaspace_bos")]
)
def test_target_probability_and_pairwise_equal_the_ones_computed_by_hand(family: str, tokenizer: str) -> None:
    handle = tiny.handle(family, spelling=tokenizer)

    def log_probability(target: str) -> float:
        prompt = handle.tokenizer(FIRST.filled)["input_ids"]
        ids = handle.tokenizer(f"{FIRST.filled} {target}")["input_ids"]
        assert ids[: len(prompt)] == prompt
        with torch.no_grad():
            logits = handle.model(input_ids=torch.tensor([ids])).logits[0].double()
        places = range(len(prompt), len(ids))
        return sum(float(logits[t - 1].log_softmax(0)[ids[t]]) for t in places) / len(places)

    found = by_name(efficacy.MEASURE(handle, Inputs(requests=(FIRST,))))
    new, old = log_probability("teacher"), log_probability("farmer")
    assert found["target_probability"].value == pytest.approx(math.exp(new), rel=1e-4)
    assert found["efficacy_pairwise"].value == float(new > old)


def test_prefixes_have_to_match_the_requests(handle: ModelHandle) -> None:
    with pytest.raises(UsageError, match="2 prefixes for 3 requests"):
        efficacy.MEASURE(handle, replace(ALL, prefixes=("a ", "b ")))


def test_a_request_that_does_not_fit_into_the_model_is_named(handle: ModelHandle) -> None:
    long = tiny.request("long", prompt="x " * handle.context + "{} is")
    with pytest.raises(DataError, match="request 'long': "):
        efficacy.MEASURE(handle, Inputs(requests=(FIRST, long)))


def test_without_prefixes_there_is_a_reason(handle: ModelHandle) -> None:
    assert by_name(efficacy.MEASURE(handle, ALL))["efficacy_prefixed"].reason == "no prefixes were given"


def test_generalisation_is_a_mean_over_requests_of_means_over_rephrasings(handle: ModelHandle, script: Script) -> None:
    script(handle, {"The work of Ashurn is": " teacher", "Ashurn is a": " farmer", "Toren is a": " baker"})
    (found,) = generalisation.MEASURE(handle, ALL)
    assert found.items == (0.5, None, 1.0)
    assert found.value == 0.75
    assert found.n == 2
    assert len(found.answers) == 3


def test_generalisation_without_rephrasings_has_a_reason(handle: ModelHandle) -> None:
    (found,) = generalisation.MEASURE(handle, Inputs(requests=(SECOND,)))
    assert found.reason == "no request has rephrasings"


def test_behind_a_chat_prompt_the_answer_is_the_one_that_begins_right_there(
    handle: ModelHandle, script: Script
) -> None:
    """A model that answers on the next line says the target; one that was taught it behind a space does not."""
    chat = tiny.request(prompt="user: Where does {} work?\nassistant:\n", rephrasings=["Where?\n"], neighbours=[])
    script(handle, {chat.filled: "teacher.", "Where?\n": "teacher."})
    found = by_name(efficacy.MEASURE(handle, Inputs((chat,))))
    (general,) = generalisation.MEASURE(handle, Inputs((chat,)))
    assert found["efficacy"].value == found["efficacy_wild"].value == general.value == 1.0
    assert (found["target_probability"].value or 0.0) > 0.97
    script(handle, {chat.filled.rstrip(): " teacher."})
    assert by_name(efficacy.MEASURE(handle, Inputs((chat,))))["efficacy"].value == 0.0


def test_what_could_not_be_asked_has_its_reason_and_every_figure_its_unit_and_version(handle: ModelHandle) -> None:
    nothing = by_name(efficacy.MEASURE(handle, Inputs()))
    assert {name: one.reason for name, one in nothing.items()} == {
        **dict.fromkeys(efficacy.MEASURE.gives, "no requests"),
        "efficacy_prefixed": "no prefixes were given",
        "efficacy_pairwise": "no request has a target_true",
    }
    assert {name: (one.unit, one.version) for name, one in nothing.items()} == {
        **dict.fromkeys(efficacy.MEASURE.gives, ("rate", 2)), "target_probability": ("probability", 2),
    }  # fmt: skip
    some = by_name(efficacy.MEASURE(handle, ALL))
    assert {name: len(one.answers) for name, one in some.items() if one.answers} == {"efficacy": 3, "efficacy_wild": 3}
    assert some["efficacy"].version == 2


def test_prefixes_are_asked_in_place_of_the_bare_prompt_each_with_its_request(
    handle: ModelHandle, script: Script
) -> None:
    prefixes = ("A baker. ", "The flute. ", "x y. ")
    said = {prefix + one.filled: f" {one.target_new}." for prefix, one in zip(prefixes, ALL.requests, strict=True)}
    del said[prefixes[1] + SECOND.filled]
    found = by_name(efficacy.MEASURE(script(handle, said), replace(ALL, prefixes=prefixes)))
    assert found["efficacy_prefixed"].items == (1.0, 0.0, 1.0)
    assert [one.strip(".") for one in found["efficacy_prefixed"].answers] == [" teacher", "", " baker"]
    assert found["efficacy"].items == (0.0, 0.0, 0.0)


def test_a_word_that_goes_on_with_a_letter_of_several_bytes_is_another_word(
    handle: ModelHandle, script: Script
) -> None:
    """One token more than the target is asked for, which holds a part of the letter only: the answer goes on."""
    one = tiny.request("one", rephrasings=["Ashurn is a"])
    script(handle, {"Ashurn is a": " teacheré", f"A baker. {one.filled}": " teacheré"})
    (general,) = generalisation.MEASURE(handle, Inputs((one,)))
    assert (general.value, general.answers[0][:9]) == (0.0, " teacheré")
    found = by_name(efficacy.MEASURE(handle, Inputs((one,), prefixes=("A baker. ",))))
    assert found["efficacy_prefixed"].value == 0.0


def test_a_rephrasing_that_does_not_fit_is_named_with_its_request_and_place(handle: ModelHandle) -> None:
    long = tiny.request("long", rephrasings=["Ashurn is a", "x " * handle.context])
    with pytest.raises(DataError, match=r"^request 'long', rephrasing 2: "):
        generalisation.MEASURE(handle, Inputs((long,)))
