"""A text is spelled once for all edits of a model, and again where that is not known to be right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from editsafety.datasets.request import EditRequest
from editsafety.editing.subject import locate
from editsafety.edits.session import EditSession
from editsafety.engine import spelling
from editsafety.engine.spelling import spelled_once
from editsafety.model.handle import ModelHandle
from tests import tiny

REQUEST = EditRequest("a", "{} is the king of", "Loriso", "France")


def spelled(handle: ModelHandle, text: str, seen: list[str]) -> list[int]:
    def spell() -> list[int]:
        seen.append(text)
        return handle.ids(text)

    return spelled_once(handle, text, spell)


def in_session(handle: ModelHandle, work: Callable[[], object]) -> None:
    with EditSession(handle, prove="never"):
        work()


def test_in_sessions_of_one_model_a_text_is_spelled_once() -> None:
    handle, seen = tiny.handle("gpt2"), list[str]()
    for _ in range(3):
        in_session(handle, lambda: spelled(handle, "a text", seen))
        in_session(handle, lambda: spelled(handle, "another", seen))
    assert seen == ["a text", "another"]


@pytest.mark.parametrize("why", ["plain", "no session", "forgotten", "afresh"])
def test_otherwise_it_is_spelled_again(why: str) -> None:
    handle, seen = tiny.handle("gpt2"), list[str]()
    handle.engine.plain = why == "plain"
    for _ in range(2):
        if why == "no session":
            spelled(handle, "a text", seen)
        elif why == "afresh":
            with handle.engine.afresh():
                in_session(handle, lambda: spelled(handle, "a text", seen))
        else:
            in_session(handle, lambda: spelled(handle, "a text", seen))
        if why == "forgotten":
            handle.engine.forget()
    assert seen == ["a text"] * 2


def test_a_tokenizer_that_learns_a_word_or_is_replaced_is_asked_again() -> None:
    handle, seen = tiny.handle("gpt2"), list[str]()
    with EditSession(handle, prove="never"):
        before = spelled(handle, "a wordle", seen)
        own = handle.tokenizer
        handle.tokenizer = tiny.handle("gpt2").tokenizer
        handle.tokenizer.add_tokens(["wordle"])
        after = spelled(handle, "a wordle", seen)
        assert after == handle.ids("a wordle") != before
        handle.tokenizer.add_tokens(["wordles"])
        spelled(handle, "a wordle", seen)
        handle.tokenizer = own
        assert spelled(handle, "a wordle", seen) == before
    assert seen == ["a wordle"] * 4


def test_when_there_are_too_many_texts_all_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "MOST", 3)
    handle, seen = tiny.handle("gpt2"), list[str]()
    with EditSession(handle, prove="never"):
        for text in ("a", "b", "c", "a", "d", "a"):
            spelled(handle, text, seen)
    assert seen == ["a", "b", "c", "d", "a"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_subject_is_where_it_is_plainly(family: str) -> None:
    handle = tiny.handle(family)
    contexts = ("{}", "Some words. {}", "{} and more")
    plain = [locate(handle, REQUEST, context) for context in contexts]
    for _ in range(2):
        with EditSession(handle, prove="never"):
            assert [locate(handle, REQUEST, context) for context in contexts] == plain
