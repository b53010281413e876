"""GitHub Actions: the step summary, and annotations beside the code, for whoever has just pushed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from editsafety.escaping import below, workflow_command
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.names import tag
from editsafety.publishing.fitting import LEAST, Section, fit
from editsafety.reporting import as_markdown, story

SUMMARY = 1_048_576  # bytes of a step's summary; past that GitHub drops all of it
ANNOTATIONS = 10  # of one kind in one step; GitHub shows no more
_LONGEST = 1000  # characters of one annotation


def append_summary(report: RunReport) -> None:
    """Append the short form to the step summary, where there is one, as far as it has room. Raises OSError."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    place = Path(name)
    room = SUMMARY - (place.stat().st_size if place.exists() else 0)
    if room < LEAST:
        return
    with open(place, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(summary(report, room))


def summary(report: RunReport, most: int = SUMMARY) -> str:
    """The short form of the report, in at most so many bytes."""
    parts = as_markdown.step_summary(report).split("\n\n")
    head, rest = Section("the verdict", parts[0]), Section("the report", "\n\n".join(parts[1:]).rstrip("\n"))
    return fit((head, rest), most, called="a step summary", where="report.md of the run")


def commands(report: RunReport) -> Iterator[str]:
    """Commands to the runner: one for each reason of what does not pass, the most severe first; the last one counts."""
    if report.verdict is None:
        yield workflow_command("error", story.verdict_line(report), _LONGEST, title="editsafety: NOTHING JUDGED")
        return
    told = sorted(_findings(report), key=lambda one: -one[0].severity)
    for verdict, name, said in told[: ANNOTATIONS - 1] if len(told) > ANNOTATIONS else told:
        yield workflow_command(_kind(verdict), said, _LONGEST, title=f"editsafety: {verdict.value} {name}")
    if len(told) > ANNOTATIONS:
        left = f"{len(told) - ANNOTATIONS + 1} more findings are in the report. {story.verdict_line(report)}"
        yield workflow_command(_kind(report.verdict), left, _LONGEST, title="editsafety")


def annotate(report: RunReport, stream: TextIO) -> None:
    """Write the annotations where GitHub Actions reads them, and nothing anywhere else."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    # Past the stream that breaks commands up: these are ours, and every text in them has been escaped.
    plain = below(stream)
    text = "".join(f"{one}\n" for one in commands(report))
    encoding = plain.encoding or "utf-8"
    plain.write(text.encode(encoding, "backslashreplace").decode(encoding))
    plain.flush()


def _findings(report: RunReport) -> Iterator[tuple[Verdict, str, str]]:
    """Verdict, part and sentence of everything that does not pass."""
    findings = {f"{group.model}-{tag(group.editor)}": group.findings for group in report.groups}
    fine = {said for group in report.groups for said in group.sentences}  # those of findings, and of streams that pass
    for part in report.parts:
        if part.verdict is Verdict.PASS:
            continue
        each = [(one.verdict, one.sentence) for one in findings.get(part.name, ())]
        each += [(part.verdict, said) for said in part.sentences if said not in fine]
        yield from ((verdict, part.name, said) for verdict, said in each or [(part.verdict, part.verdict.meaning)])


def _kind(verdict: Verdict) -> str:
    return "error" if verdict.fails else "warning"
