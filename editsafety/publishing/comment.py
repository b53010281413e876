"""Comment: one page of Markdown for a pull request, made to be found again and brought up to date.

Its first line is an HTML comment that is the same for every run of the same editors on the same models: whoever posts
it looks for that line among the comments that are there, and edits the one that has it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from editsafety.escaping import markdown as safe
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.publishing.fitting import Section, fit
from editsafety.reporting import ReportPlace, against, as_markdown, story
from editsafety.tensor_files import write_atomically

MOST = 65_536  # what GitHub takes; GitLab takes a million
HEAD = "<!-- editsafety-report"
_ALERTS = {Verdict.PASS: "NOTE", Verdict.WARN: "WARNING"}


def comment(report: RunReport, *, suites: str = ReportPlace().suites) -> str:
    """The page. `suites` is where the suites are, for the replay command."""
    many = sum(len(group.findings) for group in report.groups)
    sections = (
        Section("the marker", marker(report)),
        Section("the verdict", _alert(report)),
        Section("the table", as_markdown.verdict_table(report, narrow=True)),
        Section("the comparison with the baseline", _under(as_markdown.against_baseline(report), "###")),
        _folded("the reasons", f"Why: {many} finding{'' if many == 1 else 's'}", as_markdown.reasons(report)),
        _folded("the courses", "Courses of edits", as_markdown.walked(report, steps=False)),
        _folded("the abilities", "Abilities", as_markdown.what_it_can_do(report)),
        _folded("the controls", "Controls", as_markdown.controls(report)),
        _folded("the worst cases", "Worst cases", as_markdown.worst_cases(report)),
        _folded("the replay command", "Replay the worst case", as_markdown.replay(report, suites)),
        _folded("what was run", "What was run", as_markdown.provenance(report)),
    )
    return fit(sections, MOST, called="a comment", where="report.md of the run")


def marker(report: RunReport) -> str:
    """The first line, by which the comment is found: of two jobs on other models or editors each has its own."""
    settings = report.plan.settings
    asked = json.dumps([sorted(settings.models), sorted(settings.editors)])
    return f"{HEAD} {hashlib.sha256(asked.encode()).hexdigest()[:12]} -->"


def write(report: RunReport, path: Path, *, suites: str = ReportPlace().suites) -> None:
    """Write the page into a file, whole or not at all. Raises OSError."""
    write_atomically(path, comment(report, suites=suites).encode("utf-8", "backslashreplace"))


def _alert(report: RunReport) -> str:
    """The verdict in GitHub's block of that colour, why, and what to do."""
    kind = _ALERTS.get(report.verdict, "CAUTION") if report.verdict is not None else "CAUTION"
    said = [f"**{safe(story.verdict_line(report), 1000)}**", safe(_about(report), 1000)]
    worst = story.looked_at_first(report)
    cause = report.cause(worst) if worst is not None else None
    said += [f"Likely cause of the worst case: {safe(cause, 1000)}"] if cause else []
    changed = against.changed(report.against) if report.verdict is Verdict.REGRESSED else ""
    said += [safe(changed, 1000)] if changed else []
    said += [as_markdown.next_step(report)] if story.advice(report) else []
    return f"> [!{kind}]\n" + "\n>\n".join(f"> {one}" for one in said)


def _about(report: RunReport) -> str:
    """How much was judged, and the first reason of what is worst."""
    part = next((one for one in report.parts if one.verdict is report.verdict and one.sentences), None)
    first = f" {part.sentences[0]}" if part is not None else ""
    if report.only_costs:
        return f"{story.ONLY_COSTS.capitalize()}.{first}"
    return f"{story.amount(report)} judged by policy {report.policy.name}.{first}"


def _folded(title: str, heading: str, text: str) -> Section:
    return Section(title, _under(text, ""), heading)


def _under(text: str, level: str) -> str:
    """The text of a part of the report with another level of heading, or without one."""
    first, _, rest = text.partition("\n\n")
    if not first.startswith("## "):
        return text
    return f"{level} {first.removeprefix('## ')}\n\n{rest}" if level else rest
