"""JSON: everything that was found, for machines. Described in docs/report-schema.md.

A number that is not finite is `null`, and a flag beside it (`not_finite`, `broken`, `ratio_not_finite`) says so: a
report is valid JSON, and a reader that overlooks the flag sees a missing number, never a harmless one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

from editsafety import __version__
from editsafety.escaping import json_text
from editsafety.judging.controls import Control
from editsafety.judging.group import Group
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.reporting import CASES_FILE, ReportPlace, against, courses, story
from editsafety.reporting.case_rows import case_row, plain_json
from editsafety.reporting.rows import row
from editsafety.runs.facts import RunFacts

SCHEMA = 2
WORST = 200  # of a large run: cases of an editor that are in the document, 17 kB each
NAMED = 1000  # ids of cases that one list of a large run has at most


def document(report: RunReport, *, suites: str = ReportPlace().suites) -> dict[str, Any]:
    """The whole report as JSON values, groups and cases worst first. Equal runs give equal documents but for costs.

    `suites` is where the suites are, for the replay command.
    """
    worst = report.worst
    body = {
        "schema": SCHEMA,
        "editsafety": __version__,
        "verdict": report.verdict.value if report.verdict is not None else None,
        "exit_code": report.exit_code,
        "line": story.verdict_line(report),
        "advice": story.advice(report),
        "footnotes": story.footnotes(report),
        "sound": report.sound,
        "interrupted": report.interrupted,
        "counts": _counts(report),
        "groups": [_group(report, group) for group in report.worst_groups],
        "courses": [courses.as_json(course) for course in report.courses],
        "courses_missing": list(report.missing_courses),
        "controls": [_control(control) for control in report.controls],
        "worst": None if worst is None else {"case": worst.record.case, "cause": report.cause(worst)},
        "replay": story.replay(report, suites),
        "baseline": None if report.against is None else against.as_json(report.against),
        "plan": report.plan.about(),
        "policy": {**report.policy.model_dump(mode="json"), "digest": report.policy.digest()},
        **_facts(report.facts),
        **report.more,
    }
    if report.is_large:
        body |= {"cases_file": CASES_FILE, "asked": _shortened(body["asked"])}
    found: dict[str, Any] = plain_json(body)
    return found


class AsJson:
    """The document as text."""

    file: ClassVar[str] = "report.json"

    def __call__(self, report: RunReport, place: ReportPlace) -> str:
        """Valid JSON, with every number finite."""
        body = document(report, suites=place.suites)
        return json_text(json.dumps(body, allow_nan=False, ensure_ascii=False, indent=1)) + "\n"


def _counts(report: RunReport) -> dict[str, Any]:
    cases = [case.verdict for group in report.groups for case in group.cases]
    return {
        "planned": report.planned,
        "judged": report.judged,
        "missing": report.planned - report.judged,
        "verdicts": {verdict.value: cases.count(verdict) for verdict in Verdict if verdict in cases},
    }


def _group(report: RunReport, group: Group) -> dict[str, Any]:
    cases = group.worst_first()
    shown = cases[:WORST] if report.is_large else cases
    columns = report.facts.columns
    row_of = partial(case_row, report, group)
    found: dict[str, Any] = {
        "model": group.model,
        "editor": group.editor,
        "verdict": group.verdict.value,
        "sentences": list(group.sentences),
        "findings": [{**asdict(one), "verdict": one.verdict.value} for one in group.findings],
        "planned": dict(group.planned),
        "figures": [row(group, columns, stream).as_json() for stream in (None, *group.planned)],
        "checks": {stream: [check.as_json() for check in checks] for stream, checks in group.checks.items()},
        "missing": list(group.missing),
        "patterns": dict(group.patterns),
        "cases": [row_of(case) for case in shown],
    }
    if report.is_large:
        findings = [_shortened(one) for one in found["findings"]]
        verdicts = {verdict.value: count for verdict, count in group.verdicts().items()}
        found |= {"findings": findings, "verdicts": verdicts, "missing": list(group.missing[:NAMED])}
        found |= {"cases_left_out": len(cases) - len(shown)}
    return found


def _shortened(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose list of cases is long: the first of them, and how many there are."""
    return {**row, "cases": list(row["cases"][:NAMED]), "count": len(row["cases"])}


def _control(control: Control) -> dict[str, Any]:
    return {
        "model": control.model,
        "editor": control.editor,
        "expected": control.expected.value,
        "found": [verdict.value for verdict in control.found],
        "tentative": control.tentative,
        "behaved": control.behaved,
        "sentence": control.sentence,
    }


def _facts(facts: RunFacts) -> dict[str, Any]:
    """What is known of models and editors, and what the session was about."""
    return {
        "models": {name: asdict(model) for name, model in facts.models.items()},
        "editors": {":".join(block): asdict(editor) for block, editor in facts.editors.items()},
        "unedited": {name: asdict(unedited) for name, unedited in facts.unedited.items()},
        "software": dict(facts.software),
        "asked": {"cases": list(facts.asked.cases), "probed": list(facts.asked.probed), "checks": sorted(facts.judged)},
        "unexplained": list(facts.unexplained),
        "not_applicable": dict(facts.not_applicable),
        "orders": {":".join(block): asdict(order) for block, order in facts.orders.items()},
        "yardsticks": {":".join(block): asdict(yardstick) for block, yardstick in facts.yardsticks.items()},
        "repeated": [asdict(one) for one in facts.repeated],
        "problems": {":".join(block): sentence for block, sentence in facts.problems.items()},
    }


REPORT = AsJson()
