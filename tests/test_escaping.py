"""Escaping: text from data is shown, never obeyed."""

import io
import json
import random
import xml.etree.ElementTree as ET

import pytest
from rich.table import Table
from rich.text import Text

from editsafety import escaping
from editsafety.escaping import CleanStream, console, fenced, json_text, line, lines, markdown, xml
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


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_lines_are_visible_and_give_no_command_at_their_start(text):
    shown = lines(text)
    assert all(row.replace("\t", " ").isprintable() for row in shown.split("\n"))
    assert not any(row.lstrip().startswith("::") for row in shown.split("\n"))
    assert "##[" not in shown
    assert "##vso" not in shown
    assert lines(shown) == shown


def test_lines_leave_code_and_ids_as_they_are():
    text = "suites/a.py::test_b[c]\n\tx[::2]  # ## no command\nfoo::bar"
    assert lines(text) == text
    assert lines("a\r\nb\rc") == "a\nb\nc"  # a line that is written over another one is a line of its own


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_json_for_a_page_is_the_same_value_and_holds_nothing_that_a_page_or_a_log_obeys(text):
    document = json_text(json.dumps({text: [text, 1.5, None]}, ensure_ascii=False, indent=1))
    assert json.loads(document) == {text: [text, 1.5, None]}
    assert not set(document) & set("<>&\u2028\u2029\u202e\x7f\x9b")
    assert "::" not in document
    assert "##" not in document


def test_json_that_holds_no_mark_is_told_by_a_quick_look_and_what_holds_one_is_spelled_as_by_the_whole_search():
    draw = random.Random(0)
    plain = [*'az 09:#{}",', "é", "漢", "\u2019", "\U0001f600", "\ud83d"]
    marks = [*"<>&\x7f\x80\x9f\u061c\u200e\u200f\u2028\u202e\u2066\u2069", "::", ":::", "##"]
    for _ in range(3000):
        pieces = draw.choices(plain, k=draw.randint(0, 12))
        if draw.random() < 0.3:
            pieces.insert(draw.randint(0, len(pieces)), draw.choice(marks))
        text = "".join(pieces)
        assert json_text(text) == escaping._IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    text = "".join(plain)
    assert json_text(text) is text


@pytest.mark.parametrize(
    "pieces", [["::error::x"], [":", ":error::x"], ["  ", ":", ":", "error"], ["#", "#[x]"], ["a\n:", ":b"]]
)
def test_a_command_in_pieces_is_none_either(pieces):
    below = io.StringIO()
    stream = CleanStream(below)
    for piece in pieces:
        assert stream.write(piece) == len(piece)
    assert lines(below.getvalue()) == below.getvalue()
    assert below.getvalue().replace(" ", "") == "".join(pieces).replace(" ", "")


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_whatever_is_written_to_a_clean_stream_arrives_as_lines(text):
    below = io.StringIO()
    print(text, text, file=CleanStream(below), sep="\n")
    assert below.getvalue() == lines(f"{text}\n{text}\n")


def test_a_clean_stream_spells_out_what_its_encoding_does_not_have():
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    CleanStream(below).write("\xb7 \ud800\n")
    below.flush()
    assert below.buffer.getvalue() == b"\\xb7 \\ud800\n"


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_a_console_shows_every_text_as_lines_and_keeps_its_own_colours(text):
    plain, coloured = io.StringIO(), io.StringIO()
    table = Table("name", title=Text(text))
    table.add_row(Text(text))
    console(plain, width=200).print(table, Text(text), text, markup=False)
    assert lines(plain.getvalue()) == plain.getvalue()
    red = "\x1b[31mred\x1b[0m"
    terminal = console(coloured, width=200, force_terminal=True, color_system="standard")
    terminal.print(Text("red", style="red"), Text(text))
    assert coloured.getvalue().startswith(red)
    assert lines(coloured.getvalue().removeprefix(red)) == coloured.getvalue().removeprefix(red)


def test_a_console_draws_past_a_clean_stream():
    below = io.StringIO()
    console(CleanStream(below), force_terminal=True, color_system="standard").print(Text("red", style="red"))
    assert below.getvalue() == "\x1b[31mred\x1b[0m\n"
