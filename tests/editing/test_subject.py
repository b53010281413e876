"""Where the subject's last token is."""

import pytest

from editsafety.editing.subject import is_first, locate, locate_text
from editsafety.errors import DataError, EditorError
from editsafety.model.handle import ModelHandle
from tests import tiny


def spelled_to(handle: ModelHandle, prompt: str, subject: str, context: str = "{}") -> tuple[str, str]:
    """Text up to and including the located token, and text before it."""
    found = locate_text(handle, prompt, subject, context)
    return handle.text(found.ids[: found.subject + 1]), handle.text(found.ids[: found.subject])


@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos"])
@pytest.mark.parametrize(
    ("prompt", "subject", "context"),
    [
        ("{} works as a", "Ashurn", "{}"),
        ("The mother tongue of {} is", "Ashurn", "{}"),
        ("The mother tongue of {} is", "Mirel of Kelmar", "Toren plays. {}"),
        ("{} works as a", "Élodie Marchetti", "{}"),
        ("The letters {} are read", "x{y}z", "Some text. {}"),
        ("What is the name of {}", "Toren", "{}"),
    ],
)
def test_the_located_token_ends_the_subject(spelling: str, prompt: str, subject: str, context: str) -> None:
    handle = tiny.handle("gpt2", spelling=spelling)
    reached, before = spelled_to(handle, prompt, subject, context)
    whole = context.replace("{}", prompt, 1).split("{}")[0] + subject
    assert reached == whole
    assert len(before) < len(whole)


def test_the_ids_are_those_of_the_filled_prompt_in_its_context() -> None:
    handle = tiny.handle("gpt2", spelling="bytes_bos")
    found = locate(handle, tiny.request(), "A baker bakes bread. {}")
    assert list(found.ids) == handle.ids("A baker bakes bread. Ashurn works as a")


def test_a_bos_is_counted() -> None:
    plain = locate(tiny.handle("gpt2", spelling="bytes"), tiny.request())
    behind_bos = locate(tiny.handle("gpt2", spelling="bytes_bos"), tiny.request())
    assert behind_bos.subject == plain.subject + 1


def test_a_subject_of_one_token_in_first_place_is_first_with_or_without_bos() -> None:
    for spelling in ("bytes", "bytes_bos"):
        handle = tiny.handle("gpt2", spelling=spelling)
        assert is_first(handle, locate_text(handle, "{} is a letter", "x"))
        assert not is_first(handle, locate_text(handle, "{} is a letter", "x and y"))
        assert not is_first(handle, locate_text(handle, "The letter {} is", "x"))


def test_a_subject_that_merges_with_the_text_behind_it_is_refused_by_name() -> None:
    handle = tiny.handle("gpt2")
    word = handle.ids("Toren")
    assert len(handle.ids("Tor")) >= len(word), "the tokenizer must join the word for this test to mean anything"
    with pytest.raises(EditorError, match="last token of subject 'Tor' cannot be located in 'Toren lives'"):
        locate_text(handle, "{}en lives", "Tor")


@pytest.mark.parametrize("prompt", ["no place", "{} and {}"])
def test_a_prompt_without_exactly_one_place_is_refused(prompt: str) -> None:
    with pytest.raises(DataError, match="exactly one"):
        locate_text(tiny.handle("gpt2"), prompt, "Toren")
