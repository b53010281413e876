"""A prompt inside a chat template: as transformers renders it, with its line break, and the same on every day."""

from __future__ import annotations

import pytest

from editsafety.editing.subject import locate_text
from editsafety.errors import ModelError
from editsafety.model.chat import ChatTemplate
from tests import chats, tiny

PROMPT, SUBJECT = "The mother tongue of {} is", "Toren"
every_style = pytest.mark.parametrize("style", chats.TEMPLATES)


@every_style
@pytest.mark.parametrize("message", ["Where does Toren live?", "a\nb", "Toren", "{ 'role': 1 }"])
def test_a_prompt_is_written_as_transformers_renders_it(style: str, message: str) -> None:
    made = chats.handle(style)
    assert made.chat is not None
    assert made.chat.around(message) == chats.rendered(made, message)
    assert made.chat.around(made.chat.around(message)) == chats.rendered(made, message)


def test_white_space_around_a_message_is_what_the_template_makes_of_it() -> None:
    for style in chats.TEMPLATES:
        made = chats.handle(style)
        assert made.chat is not None
        assert made.chat.around(" Toren lives in ") == chats.rendered(made, " Toren lives in ")


@every_style
def test_the_end_of_a_template_belongs_to_the_prompt_and_the_answer_follows_it_directly(style: str) -> None:
    """Expected: the ids of the rendered text with its answer written behind it by hand."""
    made = chats.handle(style)
    assert made.chat is not None
    prompt = made.chat.around("Where does Toren live?")
    written = prompt + (" Ostrin" if style == "mistral" else "Ostrin")
    assert prompt.endswith("\n") or style == "mistral"
    assert made.gap(prompt) == ("" if prompt.endswith("\n") else " ")
    assert made.text([*made.ids(prompt), *made.target_ids("Ostrin", prompt)]) == made.text(made.ids(written))


@every_style
@pytest.mark.parametrize("spelling", ["bytes", "bytes_bos", "metaspace_bos"])
@pytest.mark.parametrize("context", ["{}", "Rain falls on the bank. {}"])
def test_the_subjects_last_token_is_found_inside_the_template(style: str, spelling: str, context: str) -> None:
    """By the alignment of the tokenizers library: the token that holds the character before " is"."""
    if style in ("llama3", "mistral") and spelling == "bytes":
        pytest.skip("their template writes a BOS, which this tokenizer has none of")
    made = chats.handle(style, spelling=spelling)
    assert made.chat is not None
    found = locate_text(made, made.chat.around(PROMPT), SUBJECT, context)
    text = chats.rendered(made, context.replace("{}", PROMPT.replace("{}", SUBJECT)))
    assert list(found.ids) == made.ids(text)
    inner = made.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    last = text.index("Toren is") + len(SUBJECT) - 1
    expected = [at for at, (first, behind) in enumerate(inner.offsets) if first <= last < behind][-1]
    assert found.subject - (len(found.ids) - len(inner.ids)) == expected


@every_style
def test_a_bos_is_there_once(style: str) -> None:
    made = chats.handle(style)
    assert made.chat is not None
    assert made.ids(made.chat.around("Toren")).count(made.tokenizer.bos_token_id) == 1


def test_a_text_before_a_prompt_comes_into_the_users_turn_and_before_a_plain_one_as_always() -> None:
    made = chats.handle("smollm2")
    assert made.chat is not None
    inside = made.chat.around("Toren lives")
    assert made.write_before("Rain falls. ", inside) == made.chat.around("Rain falls. Toren lives")
    assert made.write_before("Rain falls. ", "Toren lives") == "Rain falls. Toren lives"


def test_a_template_that_writes_the_date_writes_the_same_one_every_day() -> None:
    dated = "{{ 'Today is ' + strftime_now('%d %b %Y') + '. ' }}" + chats.TURNS
    named = "{% if not date_string is defined %}{% set date_string = strftime_now('%d') %}{% endif %}{{ date_string }}"
    for style, said in ((dated, "Today is 26 Jul 2024. "), (named + chats.TURNS, "26 Jul 2024")):
        assert str(ChatTemplate.of(chats.tokenizer(style), "x")).startswith(said)


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("", "has no chat template, so nothing can be asked through it. Leave --chat out"),
        ("{{ raise_exception('a system prompt is needed') }}", r"takes no message of a user alone \(.*system prompt"),
        ("{{ messages[0]['content'] | upper }}", "does more than write something before and behind a message"),
        ("{{ messages[0]['content'] * 2 }}", "does more than write something"),
        ("{{ messages | length }}", "does more than write something"),
        ("{{ '{}' + messages[0]['content'] }}", "does more than write something"),
        ("{% for %}", "takes no message of a user alone"),
    ],
)
def test_what_cannot_be_asked_through_is_refused_in_a_sentence(style: str, said: str) -> None:
    made = chats.tokenizer("smollm2")
    made.chat_template = style or None
    with pytest.raises(ModelError, match=said):
        ChatTemplate.of(made, "tiny")


def test_without_the_option_a_template_is_not_looked_at() -> None:
    assert chats.plainly(chats.handle()).chat is None
    assert tiny.handle("gpt2").chat is None
