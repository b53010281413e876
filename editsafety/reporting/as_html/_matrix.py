"""The matrix: every editor on every model, by the checks that were made of it, in each stream and along each course."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from editsafety.judging.checks import ABILITIES, WALKED, CaseVerdict, Check
from editsafety.judging.group import WHOLE, Group
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.numbers import exact, rate, times
from editsafety.reporting import courses

OTHERS = "other checks"  # the column of those that are fine everywhere


@dataclass(frozen=True, slots=True)
class Cell:
    """What one check says of one row; `cases` counts those that it concerns."""

    verdict: str
    figure: str
    said: str
    cases: int = 0


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """Cases of one editor on one model that belong together. Without a `stream` it is the head of an editor's rows."""

    editor: str
    model: str
    stream: str
    name: str
    count: str
    verdict: str
    cells: tuple[Cell | None, ...] = ()

    @property
    def heads(self) -> bool:
        """Whether it is about the editor as a whole."""
        return not self.name


@dataclass(frozen=True, slots=True)
class Matrix:
    """The columns as they are called and the check that each is of, and the rows, an editor's head first."""

    columns: tuple[str, ...]
    checks: tuple[str, ...]
    rows: tuple[MatrixRow, ...]


Found = dict[str, list[Check]]


def matrix(report: RunReport) -> Matrix:
    """Everything that was judged, worst editors first."""
    lines: list[tuple[MatrixRow, Found]] = []
    for model, editor, verdict in report.standing:
        lines.append((MatrixRow(editor, model, "", "", "", verdict.value), {}))
        for group in (one for one in report.groups if (one.model, one.editor) == (model, editor)):
            lines += _of_group(group)
        for course in (
            one for one in courses.ordered(report) if (one.record.model, one.record.editor) == (model, editor)
        ):
            lines.append(_of_course(course))
    names = _names(report, [found for _, found in lines])
    shown = [name for name in names if _tells(report, name, [found for _, found in lines])]
    rest = [name for name in names if name not in shown]
    columns = (*shown, *([OTHERS] if rest else []))
    rows = []
    for row, found in lines:
        cells = [_cell(found.get(name, [])) for name in shown]
        if rest:
            cells.append(_cell([check for name in rest for check in found.get(name, [])]))
        rows.append(MatrixRow(row.editor, row.model, row.stream, row.name, row.count, row.verdict, tuple(cells)))
    return Matrix(tuple(name.replace("_", " ") for name in columns), columns, tuple(rows))


def _of_group(group: Group) -> Iterable[tuple[MatrixRow, Found]]:
    for stream, planned in group.planned.items():
        cases = group.cases_of(stream)
        found: Found = {}
        for case in cases:
            for check in case.checks:
                found.setdefault(check.name, []).append(check)
        for check in group.checks.get(stream, ()):
            found.setdefault(check.name, []).append(check)
        count = str(planned) if len(cases) == planned else f"{len(cases)} of {planned}"
        yield (
            MatrixRow(group.editor, group.model, stream, f"{stream} cases", count, group.verdict_on(stream).value),
            found,
        )
    whole = [check for check in group.checks.get(WHOLE, ()) if check.verdict is not Verdict.PASS]
    if whole:
        worst = Verdict.worst(check.verdict for check in whole)
        yield (
            MatrixRow(group.editor, group.model, "", "the whole", "", worst.value),
            {check.name: [check] for check in whole},
        )


def _of_course(course: CaseVerdict) -> tuple[MatrixRow, Found]:
    record = course.record
    found: Found = {}
    for check in course.checks:
        found.setdefault(check.name, []).append(check)
    name = f"{record.schedule.kind}, {record.stream}"
    return MatrixRow(record.editor, record.model, record.stream, name, str(record.planned), course.verdict.value), found


def _names(report: RunReport, found: Sequence[Found]) -> list[str]:
    """The checks in the order of the policy; then what belongs to no limit."""
    policy = report.policy
    wanted = [*policy.case, *policy.group, *policy.course, ABILITIES]
    there = dict.fromkeys(name for one in found for name in one)
    return [name for name in dict.fromkeys([*wanted, *there]) if name in there]


def _tells(report: RunReport, name: str, found: Sequence[Found]) -> bool:
    """Whether a check gets a column: limits that editors differ by do, others where something is wrong."""
    usual = {"perplexity", *report.policy.group, "recent", "kept", ABILITIES} - {WALKED}
    return name in usual or any(check.verdict is not Verdict.PASS for one in found for check in one.get(name, []))


def _cell(checks: Sequence[Check]) -> Cell | None:
    """The worst of the checks: of a single one its figure, of many how many do not pass."""
    if not checks:
        return None
    worst = max(checks, key=lambda check: (check.verdict.severity, check.figure if check.figure is not None else 0.0))
    bad = sum(check.verdict is not Verdict.PASS for check in checks)
    if len(checks) == 1:
        return Cell(worst.verdict.value, _figure(worst), worst.sentence, 1)
    said = f"{bad} of {len(checks)} do not pass, the worst: {worst.sentence}" if bad else f"all {len(checks)} pass"
    return Cell(worst.verdict.value, f"{bad} of {len(checks)}" if bad else f"all {len(checks)}", said, len(checks))


def _figure(check: Check) -> str:
    if check.figure is None:
        return ""
    if check.name == "perplexity" or not math.isfinite(check.figure):
        return times(check.figure)
    if check.name == ABILITIES:
        return f"−{100 * check.figure:.0f} points" if check.figure > 0 else "no loss"
    return rate(check.figure) if 0 <= check.figure <= 1 else exact(check.figure, 3)
