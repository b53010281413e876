"""HTML: one page to look at, in one file that needs no network. The verdict comes first, and the charts are SVG.

Everything that the page shows passes `escaping.lines` and Jinja's autoescape on its way into it; what the script shows
is JSON, and becomes text nodes only. The page allows itself no other script and no other source (its policy says so).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from editsafety import __version__, escaping
from editsafety.judging.checks import CaseVerdict
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.numbers import number, rate, times
from editsafety.reporting import ReportPlace, against, courses, patterns, story
from editsafety.reporting.as_html import _cases, _matrix, _singles, _walks

PARTS = Path(__file__).parent / "page"


class AsHtml:
    """One self-contained page."""

    file: ClassVar[str] = "report.html"

    def __call__(self, report: RunReport, place: ReportPlace) -> str:
        """The page; it loads nothing, and no text of a run can become a part of it."""
        style, script = (_part(name) for name in ("page.css", "page.js"))
        return (
            _environment()
            .get_template("page.html")
            .render(
                _content(report, place),
                style=Markup(style),
                script=Markup(script),
                style_digest=_digest(style),
                script_digest=_digest(script),
                data=Markup(_cases.as_data(report, place.suites)),
            )
            + "\n"
        )


def _content(report: RunReport, place: ReportPlace) -> dict[str, Any]:
    """What the template shows, by name."""
    cases = [case for group in report.worst_groups for case in group.cases]
    controls, abilities = report.controls, courses.ability_rows(report)
    return {
        "report": report,
        "version": __version__,
        "verdict": report.verdict.value if report.verdict is not None else "NOTHING JUDGED",
        "line": story.verdict_line(report),
        "summary": story.summary(report),
        "advice": story.advice(report),
        "headline": story.headline(report, place.seconds),
        "notes": [*story.set_aside(report), *story.unread(report)],
        "gaps": [*report.gaps, *story.skipped(report)],
        "replay": story.replay(report, place.suites),
        "outcome_counts": _outcomes(report, [*cases, *report.courses]),
        "controls": controls,
        "controlled": story.controlled(report),
        "footnotes": story.footnotes(report),
        "matrix": _matrix.matrix(report),
        "groups": [group for group in report.worst_groups if group.verdict is not Verdict.PASS],
        "scatters": _singles.scatters(report, _cases.places(report)),
        "walks": _walks.walks(report),
        "walked": [(course, _walked(report, course, place)) for course in courses.failing(report)],
        "several_models": len({model for model, _, _ in report.standing}) > 1,
        "step_headings": courses.STEPS,
        "course_headings": courses.HEADINGS[:-1],
        "course_rows": list(courses.rows(report)),
        "losses": _walks.losses(report),
        "ability_rows": abilities,
        "ability_names": list(dict.fromkeys(name for row in abilities for name in row.before)),
        "surrogates": _walks.against_perplexity(report),
        "warned": _singles.warned(report),
        "warned_headings": _singles.HEADINGS,
        "cost_plot": _singles.cost_plot(report),
        "cost_rows": _singles.cost_rows(report),
        "costs": _singles.COSTS,
        "pattern_rows": list(patterns.rows(report)),
        "pattern_title": patterns.TITLE,
        "standing": against.standing(report.against) if report.against is not None else "",
        "against": against.sentences(report.against),
        "samples": _cases.samples(report, place.suites),
        "count": len(cases),
        "shortened": _cases.shortened(report),
        "provenance": _provenance(report),
    }


def _outcomes(report: RunReport, cases: list[CaseVerdict]) -> list[tuple[str, int]]:
    """How many cases came to each verdict, worst first; nothing where all pass and the run does not."""
    found = [case.verdict for case in cases]
    if report.verdict is not None and report.verdict.fails and set(found) <= {Verdict.PASS}:
        return []
    return [(verdict.value, found.count(verdict)) for verdict in reversed(Verdict) if verdict in found]


def _walked(report: RunReport, course: CaseVerdict, place: ReportPlace) -> dict[str, Any]:
    """What is shown of a course that does not pass."""
    return {"replay": story.replay_case(report, course, place.suites), "steps": courses.table(course.record)}


def _provenance(report: RunReport) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was run, in titled lists of names and values."""
    about = report.plan.about()
    settings = {name: value for name, value in about["settings"].items() if value not in (None, "", (), [])}
    run = {
        "policy": f"{report.policy.name}, sha256 {report.policy.digest()[:12]}",
        "cases": f"{report.planned} planned, {report.judged} judged",
        "plan": about["digest"][:12],
        **{f"data {name}": spec for name, spec in sorted(about["data"].items())},
    }
    parts: list[tuple[str, dict[str, Any]]] = [
        ("software and plug-ins", {"editsafety": __version__, **report.facts.software}),
        ("run", run),
        ("settings", settings),
    ]
    parts += [(f"model {name}", asdict(model)) for name, model in report.facts.models.items()]
    for (model, editor), made in sorted(report.facts.editors.items()):
        parts.append((f"editor {editor} on {model}", {k: v for k, v in asdict(made).items() if k != "set_aside"}))
    return [
        (title, [(name, _told(value)) for name, value in known.items() if value not in (None, "", (), {})])
        for title, known in parts
    ]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(entry)}" for name, entry in value.items())
    return ", ".join(map(_told, value)) if isinstance(value, list | tuple) else str(value)


@cache
def _environment() -> Environment:
    """Escapes every value by itself, and refuses a name that is not there."""
    made = Environment(
        loader=FileSystemLoader(PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"rate": rate, "times": times, "number": number}
    made.globals |= {"glyphs": {verdict.value: glyph for verdict, glyph in _cases.GLYPHS.items()}}
    return made


def _shown(value: Any) -> Any:
    """Characters that steer, turn or hide text are spelled out; numbers, and what is safe already, stay."""
    return value if isinstance(value, Markup | int | float) else escaping.lines(value)


@cache
def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy takes it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


REPORT = AsHtml()
