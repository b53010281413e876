"""Courses in reports: order, curve, tables and JSON say what the records hold, and nothing that is not a number."""

import json
import math
from dataclasses import replace

from editsafety.judging.checks import judge_case
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import as_json, as_markdown, as_terminal, courses, story
from editsafety.runs.case import Case
from editsafety.runs.facts import RunFacts
from editsafety.runs.plan import RunPlan
from editsafety.runs.schedule import Schedule
from editsafety.runs.settings import Settings
from tests.builders import course, probe, step

DEFAULT = Policy.read("default")
UNEDITED = (probe("reasoning", 90), probe("nli", 100))
PLAN = RunPlan(Settings(("pocket-neo",), ("rome",)), (), (), {})
COURSE = Case("pocket-neo", "rome", "hard", course().requests, Schedule("sequential", every=10))


def report(*records, missing=()):
    """A report on these courses, and on courses of other editors that have no record."""
    planned = [Case(one.model, one.editor, one.stream, one.requests, one.schedule) for one in records]
    planned += [replace(COURSE, editor=editor) for editor in missing]
    found = {case.id: record for case, record in zip(planned, records, strict=False)}
    assert len(found) == len(records)
    return RunReport.of(PLAN, DEFAULT, found, RunFacts(), planned=planned)


def shown(made):
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    as_terminal.render(made, Console(file=out, width=120, highlight=False))
    return out.getvalue()


BROKEN = course(step(10, ratio=1.1), step(20, ratio=math.inf, kept=0.1), ended="collapsed")


def test_courses_alone_make_a_verdict():
    assert report(course(step(30))).verdict is Verdict.PASS
    assert (report(BROKEN).verdict, report(BROKEN).exit_code) == (Verdict.COLLAPSE, 10)
    assert report().verdict is None


def test_a_planned_course_without_a_record_is_incomplete_and_named():
    made = report(course(step(30)), missing=["memit"])
    assert made.verdict is Verdict.INCOMPLETE
    assert "pocket-neo-memit-hard-sequential" in as_markdown.text(made)
    assert as_json.document(made)["courses_missing"] == ["pocket-neo-memit-hard-sequential"]


def test_a_curve_is_flat_for_an_unchanged_model_and_full_for_one_that_gives_no_numbers():
    assert courses.curve([1.0, 1.0]) == "▁▁"
    assert courses.curve([1.0, math.inf]) == "▁█"
    assert courses.curve([None]) == "?"
    assert courses.curve([2.5])[0] > "▁"  # past the limit never looks like unchanged


def test_a_long_curve_is_shortened_and_ends_with_the_last_step():
    curve = courses.curve([1.0] * 99 + [1e9])
    assert len(curve) == 16
    assert curve[-1] == "█"


def test_among_editors_the_one_that_broke_first_comes_first():
    late = course(step(10), step(20, ratio=9.0), ended="collapsed", editor="memit")
    early = course(step(10, ratio=5.0), ended="collapsed")
    rows = list(courses.rows(report(course(step(30), editor="ft"), late, early)))
    assert [(row.course.record.editor, row.breaks) for row in rows] == [("rome", 10), ("memit", 20), ("ft", None)]


def test_the_terminal_shows_schedule_verdict_breaking_point_and_why():
    text = shown(report(BROKEN))
    assert "sequential, hard" in text
    assert "COLLAPSE" in text
    assert "perplexity is not finite at worst, after 20 edits" in " ".join(text.split())


def test_abilities_are_shown_where_they_are_lowest_below_those_of_the_unedited_model():
    made = report(course(step(10, reasoning=40, nli=100), step(20, reasoning=80, nli=100), abilities=UNEDITED))
    (row,) = courses.ability_rows(made)
    assert (row.before, row.lowest, row.edits) == (
        {"reasoning": 0.9, "nli": 1.0}, {"reasoning": 0.4, "nli": 1.0}, 10,
    )  # fmt: skip
    assert "unedited" in shown(made)
    assert "| unedited | 0 | 0.90 | 1.00 |" in as_markdown.text(made)


def test_the_json_document_is_valid_and_flags_what_is_not_finite():
    body = json.loads(json.dumps(as_json.document(report(BROKEN)), allow_nan=False))
    (found,) = body["courses"]
    assert (found["verdict"], found["worst_ratio"], found["worst_ratio_not_finite"]) == ("COLLAPSE", None, True)
    assert [one["ratio_not_finite"] for one in found["steps"]] == [False, True]


def test_the_replay_command_names_the_suite_and_the_course():
    command = story.replay(report(BROKEN), "suites")
    assert command == (
        "pytest suites/sequential -k pocket-neo-rome-hard-sequential "
        "--editsafety-model pocket-neo --editsafety-editor rome"
    )


def test_a_judged_course_and_its_row_agree_on_where_it_broke():
    row = courses.row(judge_case(DEFAULT, BROKEN))
    assert (row.breaks, row.worst) == (20, math.inf)


def test_what_bisection_saw_between_the_steps_counts_for_the_worst():
    from editsafety.datasets.request import EditRequest
    from editsafety.runs.case_record import Breaking

    request = EditRequest(id="r1", prompt="{} works as a", subject="Ashurn", target_new="baker")
    found = course(step(10, ratio=29.0), breaking=Breaking(1, (request,), ratio=3.6e16, ratio_before=1.0))
    assert courses.row(judge_case(DEFAULT, found)).worst == 3.6e16
