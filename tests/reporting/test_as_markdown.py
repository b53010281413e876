"""Markdown: a report that GitHub shows as it was meant, whatever the data holds."""

import html
import re
from dataclasses import replace

import pytest

from editsafety.reporting import as_markdown
from tests import builders
from tests.builders import failed, record, report
from tests.reporting import hostile


def cells(row):
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def tables(text):
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]


def test_the_report_has_every_part():
    text = as_markdown.text(builders.example(), suites="suites")
    lines = text.splitlines()
    assert lines[0] == "# COLLAPSE · rome COLLAPSE, c_rome INEFFECTIVE, ft PASS · exit code 10"
    assert [row for row in lines if row.startswith("## ")] == [
        "## Why", "## Controls", "## Worst cases", "## Replay", "## What was run",
    ]  # fmt: skip
    table, worst = tables(text)
    assert cells(table[2])[:5] == ["rome", "252", "**COLLAPSE**", "526x", "1.02x"]
    assert cells(table[3])[:3] == ["&nbsp;&nbsp;hard", "84", "COLLAPSE"]
    assert len(worst) == 2 + 10
    assert cells(worst[2]) == [
        "pocket-neo-rome-hardcf-0000", "COLLAPSE", "526x", "“Ashurn works as a” → farmer", "baker", "the the the the",
    ]  # fmt: skip
    assert "```sh\npytest suites/collapse -k pocket-neo-rome-hardcf-0000" in text
    for said in ("trust_remote_code false", "fingerprint ffff", "dtype float32", "device cpu", "arXiv 2202.05262"):
        assert said in text
    assert '"v_num_grad_steps": 20' in text
    assert "data pocket-neo hard: pocket-neo/hardcf" in text


def test_a_healthy_run_has_no_reasons_and_nothing_to_replay():
    text = as_markdown.text(report([record("ft", "hard", 0)]))
    assert text.startswith("# PASS · ft: every check passes · no control was run · exit code 0\n")
    assert "## Why" not in text
    assert "## Replay" not in text
    assert "no control was run, so this run did not prove that it can detect a collapse" in text


def test_nothing_judged_is_said_first():
    assert as_markdown.text(report([])).startswith("# NOTHING JUDGED · ")
    assert as_markdown.step_summary(report([])).startswith("### NOTHING JUDGED · ")


def test_a_failure_is_shown_where_the_answer_would_be():
    worst = tables(as_markdown.text(report([failed("mine", "hard", 0)])))[1]
    assert cells(worst[2])[-1] == "mine failed: ValueError: no such layer (rome.py:42)"


def test_the_step_summary_is_short_and_has_the_verdict_the_table_and_the_reasons():
    text = as_markdown.step_summary(builders.example())
    assert text.startswith("### COLLAPSE · ")
    assert "COLLAPSE in 18 of 84 cases" in text
    assert "and 1 more, in the report" in text
    assert len(text) < 3000


def test_a_control_that_misbehaves_is_in_the_step_summary():
    made = report([record("ft", "hard", 0)], controls=[record("rome", "hard", 0)])
    assert "1 PASS (1.00x), but COLLAPSE was expected" in as_markdown.step_summary(made)


@pytest.mark.parametrize("render", [as_markdown.text, as_markdown.step_summary])
@pytest.mark.parametrize("text", hostile.TEXTS)
def test_hostile_text_becomes_no_table_no_html_no_link_and_no_command(text, render):
    shown = render(hostile.report(text))
    shown.encode("utf-8")
    outside = re.sub(r"^(`{3,})sh\n.*?^\1$", "", shown, flags=re.DOTALL | re.MULTILINE)
    assert "<" not in outside
    assert "`" not in outside
    assert not re.search(r"\]\(|!\[|://|www\.", outside)
    assert all(line.isprintable() for line in shown.splitlines())
    assert not any(line.strip().startswith(("::", "##[", "##vso")) for line in shown.splitlines())
    for table in tables(shown):
        assert len({len(cells(row)) for row in table}) == 1


def test_rows_that_were_left_out_and_fields_that_were_set_aside_are_said():
    made = builders.example()
    lines = (
        "set aside, because a request has no place for it: cond (2 rows)",
        "rows.json[1]: field 'subject' is empty.",
    )
    made = replace(made, plan=replace(made.plan, unread={"pocket-neo normal": lines}))
    text = html.unescape(as_markdown.text(made))
    assert all(f"data pocket-neo normal: {line}" in text for line in lines)
