"""How questions are put and answers are read: the part that efficacy, generalisation and locality share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editsafety.errors import DataError
from editsafety.measures.answers import says
from editsafety.measures.questions import Question, ask, expecting
from editsafety.model.handle import Batch, ModelHandle
from editsafety.model.scoring import continuations
from tests import tiny
from tests.measures.conftest import Script

PROMPTS = (
    "Ashurn works as a",
    "The mother tongue of Mirel is",
    "Toren",
    "The capital of Dorvan is Kelmar. The capital of",
)


@pytest.mark.parametrize(
    ("answer", "right"), [("farmer.", True), (" farmer", True), ("farmers", False), ("a farmer", False)]
)
def test_where_no_gap_is_due_an_answer_may_begin_with_the_target(answer: str, right: bool) -> None:
    assert says(answer, "farmer", "") is right


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        (" farmer", "farmer"),
        (" farmer in the", "farmer"),
        (" farmer.", "farmer"),
        (" farmer's", "farmer"),
        (" New York,", "New York"),
        (" C++ code", "C++"),
        ("\nfarmer", "farmer"),
        (" farmer", " farmer "),
        (" 東京は", "東京"),
        (" ミュンヘンで", "ミュンヘン"),
        (" กรุงเทพมหานคร", "กรุงเทพ"),
        (" القاهرة،", "القاهرة"),
        (" 🙂🙂", "🙂"),
    ],
)
def test_an_answer_that_begins_with_the_target_counts(answer: str, target: str) -> None:
    assert says(answer, target)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        (" farmers", "farmer"),
        (" farm", "farmer"),
        (" Farmer", "farmer"),
        (" a farmer", "farmer"),
        ("farmer", "farmer"),
        ("", "farmer"),
        (" ", "farmer"),
        (" 1234", "123"),
        (" x_y", "x"),
        (" cafe\u0301", "cafe"),
        (" القاهرةي", "القاهرة"),
    ],
)
def test_an_answer_that_only_resembles_the_target_does_not(answer: str, target: str) -> None:
    assert not says(answer, target)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neo"])
@pytest.mark.parametrize("good", [True, False])
def test_a_draft_never_changes_an_answer(family: str, good: bool) -> None:
    handle = tiny.handle(family)
    prompts = [handle.ids(prompt) for prompt in PROMPTS]
    plain = continuations(handle, prompts, [6] * len(prompts))
    drafts = [tuple(row) if good else (*row[:2], 7, 9, 11) for row in plain]
    asked = [Question(prompt, 6, draft) for prompt, draft in zip(PROMPTS, drafts, strict=True)]
    texts = [handle.text([*ids, *row])[len(prompt) :] for prompt, ids, row in zip(PROMPTS, prompts, plain, strict=True)]
    assert ask(handle, asked) == ask(handle, [Question(prompt, 6) for prompt in PROMPTS]) == texts
    assert ask(handle, asked, batch_size=1) == texts


def test_an_answer_that_was_expected_takes_one_pass(handle: ModelHandle, script: Script) -> None:
    script(handle, {"Ashurn works as a": " teacher in the northern valley"})
    passes = counted(handle)
    assert ask(handle, [expecting(handle, "Ashurn works as a", "teacher in the northern", "here")]) != [None]
    assert len(passes) == 1


def test_no_draft_is_shown_to_a_model_that_something_runs_beside(handle: ModelHandle, script: Script) -> None:
    script(handle, {"Ashurn works as a": " teacher in the northern valley"})
    passes = counted(handle)
    hook = handle.model.register_forward_hook(lambda module, args, output: None)
    question = expecting(handle, "Ashurn works as a", "teacher in the northern", "here")
    ask(handle, [question])
    hook.remove()
    assert [ids.shape[1] for ids in passes] == [
        len(handle.ids("Ashurn works as a")) + n for n in range(question.tokens)
    ]


def counted(handle: ModelHandle) -> list[torch.Tensor]:
    whole, passes = handle.logits, []

    def logits(batch: Batch) -> torch.Tensor:
        passes.append(batch.ids)
        return whole(batch)

    handle.logits = logits  # type: ignore[method-assign]
    return passes


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_give_no_answer(handle: ModelHandle, bad: float) -> None:
    whole = handle.logits
    dead = handle.ids(PROMPTS[1])

    def logits(batch: Batch) -> torch.Tensor:
        scores = whole(batch)
        for row, ids in enumerate(batch.ids.tolist()):
            if ids[: len(dead)] == dead:
                scores[row, len(dead) - 1, 5] = bad
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    answers = ask(handle, [Question(prompt, 3) for prompt in PROMPTS])
    assert [answer is None for answer in answers] == [False, True, False, False]


def test_words_that_a_model_forbids_itself_are_no_defect(handle: ModelHandle) -> None:
    whole = handle.logits

    def logits(batch: Batch) -> torch.Tensor:
        scores = whole(batch)
        scores[..., 3] = -torch.inf
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    assert None not in ask(handle, [Question(prompt, 3) for prompt in PROMPTS])


def test_an_answer_that_stops_inside_a_character_goes_on_until_it_is_whole(handle: ModelHandle, script: Script) -> None:
    script(handle, {"Ashurn works as a": " farmer\N{RIGHT SINGLE QUOTATION MARK}s"})  # three bytes, three tokens
    question = expecting(handle, "Ashurn works as a", "farmer", "here")
    (half,) = ask(handle, [replace(question, whole_characters=False)])
    (whole,) = ask(handle, [question])
    assert half == " farmer\ufffd"
    assert str(whole).startswith(" farmer\N{RIGHT SINGLE QUOTATION MARK}")


def test_a_letter_of_several_bytes_continues_the_word(handle: ModelHandle, script: Script) -> None:
    script(handle, {"Ashurn works as a": " farmeré"})
    (answer,) = ask(handle, [expecting(handle, "Ashurn works as a", "farmer", "here")])
    assert answer is not None
    assert not says(answer, "farmer")


def test_a_prompt_past_the_context_is_refused_with_its_name(handle: ModelHandle) -> None:
    with pytest.raises(DataError, match=rf"request 'long'.*takes {handle.context}"):
        ask(handle, [Question("x " * handle.context, 3, where="request 'long'")])


@pytest.mark.parametrize("kind", ["bytes", "bytes_bos", "metaspace_bos", "words"])
def test_the_space_before_an_answer_survives_every_tokenizer(kind: str, script: Script) -> None:
    handle = script(tiny.handle("gpt2", spelling=kind), {})
    prompt, target = "Ashurn works as a", "teacher"
    line = [*handle.ids(prompt), *handle.target_ids(target)]

    def logits(batch: Batch) -> torch.Tensor:
        scores = torch.zeros(*batch.ids.shape, handle.model.config.vocab_size)
        for at in range(batch.ids.shape[1]):
            scores[:, at, line[at + 1] if at + 1 < len(line) else 0] = 9.0
        return scores

    handle.logits = logits  # type: ignore[method-assign]
    (answer,) = ask(handle, [expecting(handle, prompt, target, "here")])
    assert answer is not None
    assert says(answer, target)
