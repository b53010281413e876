"""Markdown: the report for a pull request, an issue or a CI summary (GitHub's dialect)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from editsafety import __version__
from editsafety.escaping import fenced
from editsafety.escaping import markdown as safe
from editsafety.judging.checks import CaseVerdict
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.names import slug
from editsafety.numbers import counting, rate, times
from editsafety.reporting import CASES_FILE, ReportPlace, against, courses, patterns, story
from editsafety.reporting.rows import headings, rows
from editsafety.runs.measurement import Measurement

WORST = 10  # cases shown one by one
SUMMARY = 3  # reasons per editor in the short form


def text(report: RunReport, *, suites: str = ReportPlace().suites) -> str:
    """The whole report. `suites` is where the suites are, for the replay command."""
    parts = [
        f"# {safe(story.verdict_line(report), 1000)}",
        safe(" · ".join(story.headline(report)), 2000),
        next_step(report),
        footnotes(report),
        verdict_table(report),
        "*perplexity*: of ordinary texts after the edit / before. *success*: share of edits that the model repeats on "
        "the prompt, with other text in front of it, and on rephrasings. *kept*: share of neighbouring answers "
        "unchanged.",
        reasons(report),
        against_baseline(report),
        walked(report),
        what_it_can_do(report),
        controls(report),
        in_the_weights(report),
        worst_cases(report),
        replay(report, suites),
        provenance(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


class AsMarkdown:
    """The whole report."""

    file: ClassVar[str] = "report.md"

    def __call__(self, report: RunReport, place: ReportPlace) -> str:
        """GitHub's dialect."""
        return text(report, suites=place.suites)


def step_summary(report: RunReport) -> str:
    """The short form, for GITHUB_STEP_SUMMARY: the verdict, the table, and why."""
    parts = [
        f"### {safe(story.verdict_line(report), 1000)}",
        verdict_table(report),
        reasons(report, SUMMARY),
        against_baseline(report),
    ]
    broken = [control.sentence for control in report.controls if not control.behaved]
    parts += [bullets(broken), next_step(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def next_step(report: RunReport) -> str:
    """What to do next; empty when all is well."""
    said = story.advice(report)
    return f"**Next:** {safe(said)}." if said else ""


def footnotes(report: RunReport) -> str:
    """What the verdict has to be read with; empty where there is nothing."""
    return bullets(f"{note[:1].upper()}{note[1:]}." for note in story.footnotes(report))


def verdict_table(report: RunReport, *, narrow: bool = False) -> str:
    """The figures of every editor, worst first; empty where no single edit was judged.

    A narrow one leaves the columns out that can be spared.
    """
    if not report.groups:
        return ""
    several = len({group.model for group in report.groups}) > 1
    first = ["editor", *(["model"] if several else []), "cases", "verdict"]
    shown = [i for i, column in enumerate(headings(report)) if not (narrow and column.dispensable)]
    columns = [headings(report)[i] for i in shown]
    lines = []
    for row in rows(report):
        name = safe(row.editor) if not row.stream else f"&nbsp;&nbsp;{safe(row.stream)}"
        verdict = row.verdict.value if row.stream else f"**{row.verdict.value}**"
        model = [safe(row.model)] if several else []
        lines.append([name, *model, str(row.cases), verdict, *(safe(row.cells[i]) for i in shown)])
    names = [f"{column.title} {column.heading}".strip() for column in columns]
    ruler = ["---"] * (len(first) - 2) + ["--:", "---"] + ["--:"] * len(columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([*first, *map(safe, names)], ruler, *lines))


def reasons(report: RunReport, most: int | None = None) -> str:
    """Why editors do not pass, `most` sentences of each; then the tests that failed by no check."""
    blocks = []
    for group in report.worst_groups:
        if group.verdict is Verdict.PASS:
            continue
        title = f"{safe(group.editor)} on {safe(group.model)}: {group.verdict.value}, {group.verdict.meaning}"
        left = len(group.sentences) - len(group.sentences[:most])
        more = [f"and {left} more, in the report"] if left else []
        blocks.append(f"**{title}**\n\n{bullets([*group.sentences[:most], *more])}")
    if report.facts.unexplained:
        blocks.append(f"**Tests that failed by no check**\n\n{bullets(report.facts.unexplained)}")
    return "\n\n".join(["## Why", *blocks] if blocks else [])


def against_baseline(report: RunReport) -> str:
    """What is not as it was accepted; empty without a baseline."""
    said = against.sentences(report.against)
    return f"## Against the baseline\n\n{bullets(said)}" if said else ""


def walked(report: RunReport, *, steps: bool = True) -> str:
    """A table of all courses, then why they do not pass, and every measured step of those that broke the model.

    Without `steps` those are left out.
    """
    if not report.courses:
        return bullets([*report.gaps, *story.skipped(report)])
    head = ("course", "verdict", *courses.HEADINGS)
    lines = [head, ("---", "---", *["--:"] * (len(head) - 3), "---")]
    lines += [
        (safe(row.course.record.case), f"**{row.course.verdict.value}**", *map(safe, row.cells))
        for row in courses.rows(report)
    ]
    parts = ["## Courses", _rows(lines)]
    parts.append(
        "*breaks by*: the edit that broke the model. *takes*: share of edits that the model says right after they were "
        "written. *kept*: share of all edits so far that it still says at the end. *perplexity*: over the steps, from "
        "1x to 10,000x on a logarithmic scale."
    )
    parts += [
        f"**{safe(course.record.case)}: {course.verdict.value}**\n\n{bullets(course.sentences)}"
        for course in courses.failing(report)
    ]
    parts.append(bullets([*report.gaps, *story.skipped(report)]))
    for course in courses.failing(report) if steps else ():
        if course.record.breaking and len(course.record.steps) > 1:
            each = [courses.STEPS, ("--:",) * len(courses.STEPS), *courses.table(course.record)]
            parts.append(f"<details><summary>{safe(course.record.case)}</summary>\n\n{_rows(each)}\n\n</details>")
    return "\n\n".join(part for part in parts if part)


def what_it_can_do(report: RunReport) -> str:
    """Scores at the step of each course where they are lowest, below those of the unedited model."""
    found = courses.ability_rows(report)
    if not found:
        return ""
    names = list(dict.fromkeys(name for row in found for name in row.before))
    lines = [("course", "edits", *map(safe, names)), ("---", *["--:"] * (len(names) + 1))]
    shown: dict[str, float | None] = {}
    for row in found:
        if row.before != shown:
            shown = dict(row.before)
            lines.append(("unedited", "0", *(rate(shown.get(name)) for name in names)))
        lines.append((safe(row.case), str(row.edits), *(rate(row.lowest.get(name)) for name in names)))
    return f"## Abilities\n\n{_rows(lines)}"


def _rows(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def controls(report: RunReport) -> str:
    """What came of the control editors; empty where there are none by design."""
    if report.unplanned:
        return ""
    said = [control.sentence for control in report.controls]
    return f"## Controls\n\n{bullets(said) or story.NO_CONTROL}"


def in_the_weights(report: RunReport) -> str:
    """What sort of changes the editors make."""
    said = bullets(patterns.sentences(report))
    return f"## {patterns.TITLE}\n\n{said}" if said else ""


def worst_cases(report: RunReport) -> str:
    """The worst cases with what was written and what the model said, and the causes of their collapses.

    Those that are worse than the baseline come first.
    """
    lost = {name: place for place, name in enumerate(story.lost_cases(report))}
    every = (case for group in report.groups for case in group.cases)
    cases = sorted(every, key=lambda case: (lost.get(case.record.case, len(lost)), *_order(case)))[:WORST]
    if not cases:
        return ""
    head = ("case", "verdict", "perplexity", "written", "before the edit", "after the edit")
    rows = [head, ("---", "---", "--:", "---", "---", "---"), *(_case(report.whole(case)) for case in cases)]
    causes = bullets(_causes(report))
    told = [f"Likely causes of the collapses:\n\n{causes}"] if causes else []
    if report.is_large:
        told.append(f"{len(cases)} of {counting(report.judged)}; all of them are in {CASES_FILE}.")
    return "\n\n".join(["## Worst cases", "\n".join(f"| {' | '.join(row)} |" for row in rows), *told])


def _causes(report: RunReport) -> Iterator[str]:
    """Every kind of cause: in how many of an editor's collapses it is the likeliest, told of the worst of them."""
    for group in report.worst_groups:
        found = [(case, told[0]) for case in group.worst_first() if (told := group.causes(case))]
        for kind in dict.fromkeys(cause.kind for _, cause in found):
            alike = [(case, cause) for case, cause in found if cause.kind == kind]
            (worst, cause), of = alike[0], f"{group.editor} on {group.model}, {len(alike)} of {len(found)} collapses"
            yield f"{of}, worst {worst.record.case}: {cause.text}"


def _case(case: CaseVerdict) -> Sequence[str]:
    record = case.record
    written = "; ".join(f"“{request.filled}” → {request.target_new}" for request in record.requests)
    if record.failure is not None:
        where = f" ({record.failure.where})" if record.failure.where else ""
        after = f"{record.failure.message}{where}"
    else:
        after = _answer(record.after.get("efficacy"))
    before = _answer(record.before.get("efficacy"))
    cells = (record.case, case.verdict.value, times(case.ratio), written, before, after)
    return [safe(cell, 200) for cell in cells]


def _answer(found: Measurement | None) -> str:
    if found is None:
        return "-"
    return " / ".join(found.answers) or found.reason or "-"


def _order(case: CaseVerdict) -> tuple[float, float, str]:
    return -case.verdict.severity, -(case.ratio if case.ratio is not None else -1.0), case.record.case


def replay(report: RunReport, suites: str) -> str:
    """The command that judges the worst case again; empty where there is none."""
    command = story.replay(report, suites)
    return f"## Replay\n\n{fenced(command, 'sh')}" if command else ""


def provenance(report: RunReport) -> str:
    """What was run, with what."""
    about = report.plan.about()
    made_with = {**(report.facts.software or {"editsafety": __version__}), "plan": about["digest"][:12]}
    lines = [f"- {_facts(made_with)}"]
    lines += [f"- policy {safe(report.policy.name)}, sha256 {report.policy.digest()[:12]}"]
    lines += [f"- cases: {report.planned} planned, {report.judged} judged"]
    for model in dict.fromkeys(report.plan.settings.models):
        loaded = report.facts.models.get(slug(model))
        lines.append(f"- model {safe(model)}: {_facts(asdict(loaded)) if loaded else 'never loaded'}")
    for (model, editor), made in sorted(report.facts.editors.items()):
        told = {name: value for name, value in asdict(made).items() if name != "set_aside"}
        lines.append(f"- editor {safe(editor)} on {safe(model)}: {_facts(told)}")
    lines += [f"- {safe(line)}" for line in story.set_aside(report)]
    lines += [f"- data {safe(name)}: {safe(spec)}" for name, spec in sorted(about["data"].items())]
    lines += [f"- {safe(line)}" for line in story.unread(report)]
    settings = {name: value for name, value in about["settings"].items() if value not in (None, "", (), [])}
    lines.append(f"- settings: {_facts(settings)}")
    return "\n".join(["## What was run", "", *lines])


def _facts(facts: dict[str, Any]) -> str:
    """`name value` pairs; nested values as JSON."""
    known = {name: value for name, value in facts.items() if value is not None and value != ""}
    told = (
        f"{name} {value if isinstance(value, str) else json.dumps(value, default=str)}" for name, value in known.items()
    )
    return safe(", ".join(told), 2000)


def bullets(sentences: Iterable[str]) -> str:
    """Sentences as a list."""
    return "\n".join(f"- {safe(sentence, 600)}" for sentence in sentences)


REPORT = AsMarkdown()
