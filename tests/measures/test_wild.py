"""The strictest and the most lenient figure of the same answers: WILD beside teacher forcing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editsafety.measures import Inputs, efficacy
from editsafety.measures.answers import until_stop
from editsafety.measures.questions import ask, expecting, hear_out
from editsafety.model.handle import Batch, ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny
from tests.measures.conftest import Script

ONE = tiny.request("one")
PROMPT, TARGET = ONE.filled, "teacher"


def measured(handle: ModelHandle, **more: str) -> dict[str, Measurement]:
    found = efficacy.MEASURE(handle, Inputs(requests=(replace(ONE, **more),)))
    return {one.name: one for one in found}


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        (" teacher. And", "teacher", " teacher"),
        (" teacher\nAnd.", "teacher", " teacher"),
        (" St. Louis. It", "St. Louis", " St. Louis"),
        (" St. Louis", "St. Louis", None),
        (" St. Paul. It", "St. Louis", " St"),
        (" Apple Inc. It", "Apple Inc.", None),
        (".", "teacher", ""),
        (" teacher, who", "teacher", None),
        ("", "teacher", None),
    ],
)
def test_an_answer_ends_at_a_period_or_a_line_break_behind_the_target(
    text: str, target: str, expected: str | None
) -> None:
    assert until_stop(text, target) == expected


@pytest.mark.parametrize(
    ("said", "begins", "whole", "stopped"),
    [
        (" teacher.", 1.0, 1.0, 1.0),
        (" teacher\nThe", 1.0, 1.0, 1.0),
        (" teacher in Ostrin.", 1.0, 0.0, 1.0),
        (" teacher " + "x " * 40, 1.0, 0.0, 0.0),
        (" farmer.", 0.0, 0.0, 1.0),
        (".", 0.0, 0.0, 1.0),
    ],
)
def test_only_a_whole_answer_counts(
    handle: ModelHandle, script: Script, said: str, begins: float, whole: float, stopped: float
) -> None:
    found = measured(script(handle, {PROMPT: said}))
    assert found["efficacy"].value == begins
    assert found["efficacy_wild"].value == whole
    assert found["wild_stopped"].value == stopped


def test_an_answer_that_never_stops_is_cut_off_and_kept(handle: ModelHandle, script: Script) -> None:
    script(handle, {PROMPT: " teacher" + "x" * 100})
    tokens = len(handle.target_ids(TARGET)) + 1 + efficacy.WILD_TOKENS
    (answer,) = measured(handle)["efficacy_wild"].answers
    assert len(handle.ids(answer, special=False)) == tokens


def test_the_token_that_ends_a_text_stops_an_answer(handle: ModelHandle, script: Script) -> None:
    scripted = script(handle, {PROMPT: " teacher"}).logits
    end, behind = handle.tokenizer.eos_token_id, len(handle.ids(PROMPT)) + len(handle.target_ids(TARGET))

    def logits(batch: Batch) -> torch.Tensor:
        scores = scripted(batch)
        scores[:, behind - 1 :, end] = 20.0
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    found = measured(handle)
    assert found["efficacy_wild"].value == found["wild_stopped"].value == 1.0
    assert found["efficacy_wild"].answers == (" teacher",)


def test_an_expected_answer_that_stops_at_once_is_heard_out_in_one_pass(handle: ModelHandle, script: Script) -> None:
    scripted, passes = script(handle, {PROMPT: " teacher."}).logits, []

    def logits(batch: Batch) -> torch.Tensor:
        passes.append(batch.ids.shape)
        return scripted(batch)

    handle.logits = logits  # type: ignore[method-assign]
    (answer,) = hear_out(handle, [expecting(handle, PROMPT, TARGET, "here", most=20)])
    assert (answer.begun, answer.whole, answer.stopped) == (" teacher.", " teacher", True)
    assert len(passes) == 1


def test_hearing_out_does_not_change_how_an_answer_begins(handle: ModelHandle) -> None:
    requests = (ONE, tiny.request("two", subject="Mirel", target_new="farmer"))
    asked = [expecting(handle, one.filled, one.target_new, one.id, most=20) for one in requests]
    heard = hear_out(handle, asked)
    assert [one.begun for one in heard] == ask(handle, asked)


def test_the_end_of_the_context_is_the_end_of_an_answer(handle: ModelHandle, script: Script) -> None:
    prompt = "x" * 200
    while len(handle.ids(prompt)) + len(handle.target_ids(TARGET)) + 1 + 3 < handle.context:
        prompt += "x"
    script(handle, {prompt: " teacher" + "z" * 20})
    request = tiny.request("long", prompt=prompt.replace("x", "{}", 1), subject="x")
    found = {one.name: one for one in efficacy.MEASURE(handle, Inputs(requests=(request,)))}
    assert found["wild_stopped"].value == 0.0
    assert found["efficacy_wild"].answers[0].startswith(" teacherzz")


def test_the_teacher_gives_credit_for_tokens_behind_a_wrong_one(handle: ModelHandle) -> None:
    """The gap of "The Mirage of Model Editing": every token but the first is right once the first one is given."""
    target = handle.target_ids("teacher in the northern valley")
    prompt = handle.ids(PROMPT)
    line = [*prompt, *target]

    def logits(batch: Batch) -> torch.Tensor:
        scores = torch.zeros(*batch.ids.shape, handle.model.config.vocab_size)
        for row, ids in enumerate(batch.ids.tolist()):
            for at in range(len(ids)):
                right = line[at + 1] if ids[: at + 1] == line[: at + 1] and at + 1 < len(line) else 0
                scores[row, at, right if at != len(prompt) - 1 else 9] = 10.0
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    found = measured(handle, target_new="teacher in the northern valley")
    assert found["efficacy"].value == found["efficacy_wild"].value == 0.0
    assert found["efficacy_teacher_forced"].value == pytest.approx(1 - 1 / len(target))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_teacher_forced_accuracy_is_that_of_one_pass_over_prompt_and_target(family: str) -> None:
    handle = tiny.handle(family)
    requests = [tiny.request(f"r{i}", target_new=t) for i, t in enumerate(("teacher", "a baker in Kelmar", "farmer"))]
    found = {one.name: one for one in efficacy.MEASURE(handle, Inputs(requests=requests))}
    for request, item in zip(requests, found["efficacy_teacher_forced"].items, strict=True):
        ids = handle.ids(f"{request.filled} {request.target_new}")
        size = len(handle.target_ids(request.target_new))
        with torch.no_grad():
            best = handle.model(input_ids=torch.tensor([ids])).logits[0].argmax(-1)[:-1]
        assert item == pytest.approx(float((best == torch.tensor(ids[1:]))[-size:].float().mean()))


def test_logits_that_break_behind_the_beginning_leave_no_whole_answer(handle: ModelHandle, script: Script) -> None:
    scripted = script(handle, {PROMPT: " teacher x" + "x" * 40}).logits
    behind = len(handle.ids(PROMPT)) + len(handle.target_ids(TARGET)) + 4

    def logits(batch: Batch) -> torch.Tensor:
        scores = scripted(batch)
        scores[:, behind:] = torch.nan
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    found = measured(handle)
    assert found["efficacy"].value == 1.0
    assert found["efficacy_wild"].broken
    assert found["wild_stopped"].broken
