"""Terminal: what failed, by how much, where, and what to do, at a glance; in any width, with or without colour."""

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.reporting import ReportPlace, as_terminal
from editsafety.runs.case import Case
from editsafety.runs.schedule import Schedule
from tests import builders
from tests.builders import failed, record, report
from tests.reporting import hostile, whole

FOLDER = Path("reports/a-run")


def rendered(made, width=100, **more):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, color_system=None)
    as_terminal.render(made, console, ReportPlace(**{"suites": "suites", "folder": FOLDER, "seconds": 41.2, **more}))
    return out.getvalue()


def rows_of(text):
    """The rows of the table as lists of words."""
    lines = text.splitlines()
    start = next(i for i, row in enumerate(lines) if row.startswith("editor ")) + 1
    return [row.split() for row in lines[start : lines.index("", start)]]


def test_the_example_says_everything_in_its_place():
    text = rendered(builders.example())
    lines = [row.rstrip() for row in text.splitlines()]
    assert lines[1].startswith(
        "editsafety 0.1.0 · pocket-neo (2.9 M parameters, float32, cpu) · policy default · 756 cases"
    )
    assert [" ".join(row) for row in rows_of(text)] == [
        "rome COLLAPSE 526x 1.02x 0.11 0.92 1.00 1.00 0.94 0.11 3.1",
        "hard 84 COLLAPSE 526x 1.01x 0.11 0.78 1.00 1.00 0.82 0.11 -",
        "normal 168 PASS 1.05x 1.03x 0.11 1.00 1.00 1.00 1.00 0.11 -",
        "c_rome INEFFECTIVE 1.00x 1.00x 0.11 0.73 1.00 1.00 1.00 0.11 3.1",
        "hard 84 INEFFECTIVE 1.00x 1.00x 0.11 0.23 1.00 1.00 1.00 0.11 -",
        "normal 168 PASS 1.00x 1.00x 0.11 0.97 1.00 1.00 1.00 0.11 -",
        "ft PASS 1.03x 1.03x 8e-4 1.00 1.00 1.00 0.96 0.11 3.1",
    ]
    assert "control   rome on 3 hard cases of pocket-neo: 3 COLLAPSE (175x to 526x), as expected" in lines
    assert "cause     denominator 0.003 where edits that stay have 1.1 to 1.6" in text
    assert lines[-1] == "verdict   COLLAPSE · rome COLLAPSE, c_rome INEFFECTIVE, ft PASS · exit code 10"


def test_of_a_long_prompt_the_line_on_the_worst_case_has_the_beginning_and_the_end():
    asked = builders.request("hard", 0, prompt="The mill stands by the river. " * 30 + "In it {} works as a")
    made = report([record("rome", "hard", 0, ratio=526.0, request=asked), record("rome", "hard", 1)])
    said = " ".join(rendered(made).split())
    start, _, rest = said.partition('"The mill stands by the river. The mill')
    asking, _, behind = rest.partition('In it Ashurn works as a" -> farmer perplexity 526x')
    assert start.endswith("worst pocket-neo-rome-hardcf-0000 ")
    assert "…" in asking
    assert len(asking) < 120
    assert behind.startswith(" (1 of 2 rome cases fails by itself)")


def test_what_is_copied_stands_on_one_line_however_narrow_it_is():
    lines = rendered(builders.example(), width=40).splitlines()
    command = (
        "pytest suites/collapse -k pocket-neo-rome-hardcf-0000 --editsafety-model pocket-neo --editsafety-editor rome"
    )
    assert f"replay    {command}" in lines
    assert "report    reports/a-run/report.md" in lines


@pytest.mark.parametrize("made", [builders.example, whole.compared, lambda: many_courses()])
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_line_is_wider_than_the_terminal_but_for_what_is_copied(width, made):
    lines = rendered(made(), width=width).splitlines()
    assert all(len(row) <= width or row.startswith(("replay", "report", "page")) for row in lines)
    assert "…" not in "".join(lines)


def many_courses():
    """Long schedules, verdicts, figures and abilities, as a real run has them."""
    names = ("reasoning", "closed_qa", "summarisation", "sentiment", "open_qa", "dialogue", "nli", "ner")
    abilities = [builders.probe(name, 90) for name in names]
    scores = dict.fromkeys(names, 88)
    schedule = Schedule("batch-sequential", sizes=(10,), every=10)
    one = builders.course(
        builders.step(10, ratio=1.02, recent=0.2, kept=0.25, **scores), abilities=abilities, editor="memit"
    )
    one = replace(one, schedule=schedule, case="pocket-neo-memit-hard-batch-sequential")
    case = Case(one.model, one.editor, one.stream, one.requests, schedule)
    return RunReport.of(builders.plan([case]), Policy.read("default"), {case.id: one}, builders.FACTS, planned=[case])


def test_at_80_columns_every_figure_of_a_course_and_every_ability_is_whole():
    lines = rendered(many_courses(), width=80).splitlines()
    (row,) = (line.split() for line in lines if line.startswith("  memit "))
    assert row == ["memit", "DAMAGED", "-", "10", "1.02x", "1.02x", "0.20", "0.25"]
    start = next(i for i, line in enumerate(lines) if line.startswith("unedited"))
    assert lines[start].split() == ["unedited", *["0.90"] * 8]
    ends = [found.end() for found in re.finditer(r"0\.90", lines[start])]
    heads = ["".join(line[end - 5 : end].strip() for line in lines[start - 3 : start]) for end in ends]
    assert heads == ["reasoning", "closed_qa", "summarisation", "sentiment", "open_qa", "dialogue", "nli", "ner"]


def test_a_narrow_terminal_keeps_names_verdicts_and_ratios():
    first = rows_of(rendered(builders.example(), width=60))[0]
    assert " ".join(first) == "rome COLLAPSE 526x 1.02x 0.92 1.00 1.00 0.94"


def test_colour_is_only_a_repetition():
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False, force_terminal=True, color_system="truecolor")
    as_terminal.render(builders.example(), console, ReportPlace("suites", FOLDER, 41.2))
    assert "\x1b[" in out.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()) == rendered(builders.example())


def test_models_have_a_column_of_their_own_only_when_there_are_several():
    one = rendered(report([record("rome", "hard", 0)]))
    assert "model" not in one.splitlines()[4]
    two = report([record("rome", "hard", 0), record("rome", "hard", 0, model="a/gpt2-xl", ratio=7.0)])
    text = rendered(two)
    assert [row[:3] for row in rows_of(text)] == [["rome", "gpt2-xl", "COLLAPSE"], ["rome", "pocket-neo", "PASS"]]
    assert "rome on gpt2-xl COLLAPSE, rome on pocket-neo PASS" in text
    assert "--editsafety-model a/gpt2-xl" in text


def test_an_editor_that_passes_has_one_row_and_no_reasons():
    text = rendered(report([record("ft", stream, i) for stream in ("hard", "normal") for i in range(2)]))
    assert len(rows_of(text)) == 1
    assert "expected at" not in text
    assert "replay" not in text
    assert "verdict   PASS · ft: every check passes · no control was run · exit code 0" in text
    assert "control   no control was run, so this run did not prove that it can detect a collapse" in text


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("text", hostile.TEXTS)
def test_hostile_text_is_shown_and_not_obeyed(text, width):
    shown = rendered(hostile.report(text), width=width)
    assert all(row.isprintable() for row in shown.splitlines())
    assert not any(row.strip().startswith(("::", "##[", "##vso")) for row in shown.splitlines())
    if text.startswith("[red]"):
        assert "[red]markup[/red]" in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_knows_few_letters_gets_the_report_all_the_same(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    made = report([record("rome", "hard", 0, ratio=9.0, request=builders.request("hard", 0, subject="漢字 é"))])
    as_terminal.render(
        made, Console(file=stream, width=100, highlight=False), ReportPlace(folder=Path("reports/é"), seconds=1.0)
    )
    stream.flush()
    assert "exit code 10" in " ".join(raw.getvalue().decode(encoding).split())


def test_numbers_that_are_not_finite_are_said_to_be():
    text = rendered(report([record("rome", "hard", i, ratio=math.inf, norm=math.inf) for i in range(2)]))
    assert rows_of(text)[0][:5] == ["rome", "COLLAPSE", "inf", "inf", "inf"]
    assert "perplexity is not finite (51.2 before, after the edit: 3 of 50 items are not finite)" in " ".join(
        text.split()
    )


def test_nothing_judged_is_told_loudly():
    text = rendered(report([]), seconds=None, folder=None)
    assert "NOTHING JUDGED · no planned case has a result, and that is no pass · exit code 14" in text
    text = rendered(report([], lacking=[builders.case_of("rome", "hard", 0)]))
    assert rows_of(text) == [["rome", "INCOMPLETE", *"-" * 9]]
    assert "0 of 1 cases" in text


def test_failed_cases_give_a_row_of_dashes_and_the_reason():
    text = rendered(report([failed("mine", "hard", i) for i in range(3)]))
    assert rows_of(text) == [["mine", "ERROR", *"-" * 9]]
    assert "ERROR in 3 of 3 cases" in text
    assert "mine failed: ValueError: no such layer" in " ".join(text.split())


def test_a_group_that_fails_as_a_whole_is_replayed_as_a_whole():
    text = rendered(
        report([record("c_rome", "hard", i, takes=0.0) for i in range(3)]), suites="--pyargs editsafety.suites"
    )
    assert "replay    pytest --pyargs editsafety.suites.efficacy -k pocket-neo-c_rome-hard --editsafety-model" in text


def test_a_replay_has_the_options_of_the_run_and_quotes_them():
    made = report(
        [record("rome", "hard", 0, ratio=9.0)], dtype="bfloat16", offline=True, seed=3, hard="my data.jsonl", limit=5
    )
    assert (
        "--editsafety-hard 'my data.jsonl' --editsafety-dtype bfloat16 --editsafety-offline --editsafety-seed 3"
        in rendered(made)
    )
    assert "limit" not in rendered(made)


def test_many_reasons_are_counted_not_listed():
    lost = {"ratio": 9.0, "takes": 0.0, "local": 0.0, "prefixed": 0.0, "rephrased": 0.0, "undeclared": ("wte",)}
    records = [record("rome", stream, i, **lost) for stream in ("hard", "normal") for i in range(3)]
    assert "and 7 more, in the report" in rendered(report(records))


def test_of_many_rows_that_were_left_out_a_few_are_shown():
    made = builders.example()
    lines = ("30 of 40 rows cannot be used and were left out", *(f"rows.json[{i}]: is no row." for i in range(30)))
    text = rendered(replace(made, plan=replace(made.plan, unread={"m hard": lines})))
    assert "data m hard: 30 of 40 rows cannot be used and were left out" in text
    assert text.count("is no row.") == as_terminal.MOST - 1
    assert "data m hard: 26 more lines in the report" in text
