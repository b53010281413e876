"""Escaping: text from data is shown, never obeyed."""

import xml.etree.ElementTree as ET

import pytest

from editsafety.escaping import fenced, line, markdown, xml
from tests.reporting import hostile


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_a_line_is_one_line_of_visible_characters(text):
    shown = line(text)
    assert shown.isprintable()
    assert "::" not in shown
    assert "##[" not in shown
    assert "##vso" not in shown
    shown.encode("utf-8")


def test_a_line_says_what_was_there():
    assert line("a\x1b[31m\nb\ttab \u202e") == "a\\u001b[31m\\nb\\ttab \\u202e"
    assert line("::::a std::vector") == ": : : :a std: :vector"
    assert line("漢字 é ☃ العربية") == "漢字 é ☃ العربية"


def test_a_long_text_is_cut_with_a_sign_and_without_reading_all_of_it():
    assert line("x" * 10_000_000, 10) == "xxxxxxxxx…"
    assert line("\x00" * 10, 10) == "\\u0000\\u0…"
    assert line("x" * 10, 10) == "x" * 10


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_markdown_keeps_no_character_with_a_meaning(text):
    shown = markdown(text)
    assert "\n" not in shown
    assert not set(shown) & set("<>|`*[]@~$\\")
    assert "://" not in shown
    assert "www." not in shown


def test_markdown_leaves_ordinary_names_readable():
    assert markdown("c_rome on pocket-neo-rome-hardcf-0017: 1.25x (at most 2)") == (
        "c_rome on pocket-neo-rome-hardcf-0017: 1.25x (at most 2)"
    )
    assert markdown("__init__") == "&#95;&#95;init&#95;&#95;"
    assert markdown("&lt;") == "&#38;lt;"


def test_a_fence_is_longer_than_what_is_inside():
    assert fenced("a ```` b", "sh").startswith("`````sh\na ```` b\n`````")
    assert fenced("") == "```\n\n```"


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_xml_text_can_be_written_and_read_again(text):
    element = ET.Element("property", value=xml(text))
    element.text = xml(text)
    again = ET.fromstring(ET.tostring(element, encoding="utf-8"))
    assert again.text.replace("\r\n", "\n").replace("\r", "\n") == xml(text).replace("\r\n", "\n").replace("\r", "\n")


def test_xml_keeps_what_is_legal():
    assert xml("a\x00\x1b\ud800\ufffe\tb\n漢😀") == "a\tb\n漢😀"
