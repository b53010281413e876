"""GitHub Actions: a summary within its limit, at most ten annotations, and no command but those."""

from __future__ import annotations

import io
import re

import pytest

from editsafety.escaping import CleanStream, workflow_command
from editsafety.publishing import github
from tests import builders
from tests.builders import record, report
from tests.publishing.injections import TEXTS
from tests.reporting import hostile

MIB = 1_048_576


def obeyed(log: str) -> list[tuple[str, dict[str, str], str]]:
    """What the runner makes of a log: commands, their properties and their texts, decoded as it decodes them."""
    found = []
    for line in re.split(r"\r\n|\r|\n", log):
        if not line.lstrip().startswith("::"):
            assert "##[" not in line
            continue
        name, _, told = line.lstrip()[2:].partition("::")
        name, _, given = name.partition(" ")
        properties = dict(one.split("=", 1) for one in given.split(",") if one)
        found.append((name, {key: decoded(one) for key, one in properties.items()}, decoded(told)))
    return found


def decoded(text: str) -> str:
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


@pytest.fixture
def on_github(monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


def shown(made):
    stream = io.StringIO()
    github.annotate(made, CleanStream(stream))
    return stream.getvalue()


def test_every_reason_is_an_annotation_the_most_severe_first(on_github):
    found = obeyed(shown(builders.example()))
    assert [name for name, _, _ in found] == ["error", "error", "warning", "warning"]
    assert found[0][1] == {"title": "editsafety: COLLAPSE pocket-neo-rome"}
    assert found[0][2].startswith(
        "hard: COLLAPSE in 18 of 84 cases, worst pocket-neo-rome-hardcf-0000: perplexity 526.4x (51.2 before,"
    )
    assert found[1][1] == {"title": "editsafety: INEFFECTIVE pocket-neo-c_rome"}
    assert found[-1][1] == {"title": "editsafety: WARN pocket-neo-rome"}


def test_a_warning_is_a_warning_a_pass_is_silent_and_nothing_judged_an_error(on_github):
    assert [name for name, *_ in obeyed(shown(report([record("ft", "hard", 0, ratio=1.5)])))] == ["warning"]
    assert shown(report([record("ft", "hard", 0)])) == ""
    (nothing,) = obeyed(shown(report([])))
    assert (nothing[0], nothing[1]["title"]) == ("error", "editsafety: NOTHING JUDGED")


def test_of_many_there_are_ten_and_the_last_one_counts_the_others(on_github):
    found = obeyed(shown(report([record(f"e{i}", "hard", 0, ratio=99.0, local=0.0) for i in range(12)])))
    assert len(found) == 10
    assert re.match(r"1[0-9] more findings are in the report\. COLLAPSE · ", found[-1][2])


def test_nothing_is_written_anywhere_else(monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert shown(builders.example()) == ""
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert shown(builders.example()) == ""


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_gives_no_command_of_its_own_and_no_property(text, on_github):
    found = obeyed(shown(hostile.report(text)))
    assert found
    assert len(found) <= 10
    assert {name for name, _, _ in found} <= {"error", "warning"}
    assert {tuple(properties) for _, properties, _ in found} == {("title",)}
    assert all(one.isprintable() for _, properties, told in found for one in (*properties.values(), told))


@pytest.mark.parametrize("text", TEXTS)
def test_a_command_is_one_line_that_decodes_to_visible_text(text):
    ((name, properties, told),) = obeyed(workflow_command("error", text, title=text))
    assert (name, list(properties)) == ("error", ["title"])
    assert told.isprintable()
    assert properties["title"] == told


def test_percent_signs_and_separators_come_back_as_they_were():
    written = workflow_command("error", "100 % of a:b, c", title="a: 5%, b")
    assert written == "::error title=a%3A 5%25%2C b::100 %25 of a:b, c"
    assert obeyed(written) == [("error", {"title": "a: 5%, b"}, "100 % of a:b, c")]


def test_what_a_stream_cannot_spell_is_spelled_out(on_github):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    github.annotate(report([record("漢", "hard", 0, ratio=9.0)]), CleanStream(stream))
    assert raw.getvalue().startswith(b"::error title=editsafety%3A COLLAPSE pocket-neo-\\u6f22::")


def test_the_summary_stays_below_the_limit_of_the_step_that_others_write_to_as_well(tmp_path, monkeypatch):
    place = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    many = report([record(f"editor{n}", "hard", i, ratio=400.0) for n in range(150) for i in range(2)])
    place.write_text("x" * (MIB - 20_000))
    github.append_summary(many)
    written = place.read_text()
    assert MIB - 12_000 < len(written.encode()) <= MIB
    assert "### COLLAPSE" in written
    assert re.search(r"\*Left out, because a step summary holds no more: \d+ lines of the report\.", written)
    place.write_text("x" * (MIB - 100))
    github.append_summary(many)
    assert place.stat().st_size == MIB - 100


def test_a_summary_of_an_ordinary_run_is_whole():
    assert "Left out" not in github.summary(builders.example())
    assert github.summary(builders.example()).endswith("\n")


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_in_the_summary_is_shown_and_not_obeyed(text):
    page = github.summary(hostile.report(text))
    page.encode("utf-8")
    assert "<" not in page
    assert not re.search(r"\]\(|!\[|://|www\.", page)
    assert not any(line.strip().startswith(("::", "##[", "##vso")) for line in page.splitlines())
