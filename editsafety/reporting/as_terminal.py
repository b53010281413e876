"""Terminal: the report as a person reads it when a run ends. The worst comes first; colour only repeats the words."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import ClassVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from editsafety import escaping
from editsafety.escaping import line
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.numbers import rate
from editsafety.reporting import ReportPlace, against, courses, story
from editsafety.reporting.rows import Row, headings, rows
from editsafety.runs.measurement import Column

NARROW = 91  # columns below which courses are shown without their curves
MOST = 5  # reasons per editor; the rest is in the report
_COLOURS = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.INCOMPLETE: "magenta", Verdict.ERROR: "bold magenta"}


def render(
    report: RunReport,
    console: Console,
    place: ReportPlace = ReportPlace(),  # noqa: B008
) -> None:
    """Print the report."""
    console.print()
    for text in _folded(story.headline(report, place.seconds), console.width):
        console.print(Text(_safe(console, text), style="bold"), overflow="fold")
    for text in (*story.set_aside(report), *story.unread(report, MOST)):
        console.print(Text(_safe(console, text), style="dim"), overflow="fold")
    console.print()
    if report.groups:
        console.print(_table(report, console))
        console.print()
    for table in (_courses(report, console), _abilities(report, console)):
        if table.row_count:
            console.print(table)
            console.print()
    for text in story.skipped(report):
        console.print(Text(_safe(console, text), style="dim"), overflow="fold")
    reasons = _reasons(report, console)
    if reasons.row_count:
        console.print(reasons)
        console.print()
    console.print(_evidence(report, console))
    compared = _against(report, console)
    if compared.row_count:
        console.print(compared)
    command = story.replay(report, place.suites)
    files = {"report": "report.md", "page": "report.html"} if place.folder is not None else {}
    written = [(name, (place.folder / file).as_posix()) for name, file in files.items() if place.folder is not None]
    for name, copied in (("replay", command), *written):
        if copied:  # never folded: it would not work when pasted
            console.print(Text.assemble((f"{name:<10}", "dim"), _safe(console, copied, 10_000)), soft_wrap=True)
    console.print(_closing(report, console))


class AsTerminal:
    """What a run prints, as plain text 110 columns wide."""

    file: ClassVar[str] = ""

    def __call__(self, report: RunReport, place: ReportPlace) -> str:
        """Without colours."""
        page = StringIO()
        render(report, escaping.console(page, width=110), place)
        return page.getvalue()


def _table(report: RunReport, console: Console) -> Table:
    """The figures; what does not fit is shortened first, then the columns that can be spared are left out."""
    lines, columns = list(rows(report)), headings(report)
    several = len({row.model for row in lines}) > 1
    names = [_safe(console, f"  {row.stream} {row.cases}" if row.stream else row.editor) for row in lines]
    models = ["" if row.stream else _safe(console, row.model) for row in lines]
    # Names are what rows are found by: they get their room before the figures do.
    editor = min(28, max(8, *map(len, names)))
    model = min(24, max(map(len, models))) if several else 0
    verdict = max(len("verdict"), *(len(row.verdict.value) for row in lines))

    def fits(roomy: bool) -> bool:
        cells = [[_heading(columns, i, roomy), *(row.cells[i] for row in lines)] for i in range(len(columns))]
        widths = [max(len(part) for cell in column for part in cell.split("\n")) for column in cells]
        gap = 2 if roomy else 1
        parts = (editor, *([model] if several else []), verdict, *widths)
        return sum(parts) + gap * (len(parts) - 1) <= console.width

    roomy, narrow = fits(True), not fits(False)
    shown = [i for i, column in enumerate(columns) if not (narrow and column.dispensable)]
    table = Table(box=None, padding=(0, 2 if roomy else 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("\neditor", overflow="fold", min_width=8 if narrow else editor, max_width=28)
    if several:
        table.add_column("\nmodel", overflow="fold", min_width=8 if narrow else model, max_width=24)
    table.add_column("\nverdict", no_wrap=True, min_width=4)
    for i in shown:
        table.add_column(_heading(columns, i, roomy), justify="right", no_wrap=True)
    for row, name, of in zip(lines, names, models, strict=True):
        style = "dim" if row.stream and row.verdict is Verdict.PASS else ""
        between = [Text(of)] if several else []
        table.add_row(Text(name), *between, _verdict(row), *(Text(row.cells[i]) for i in shown), style=style)
    return table


def _heading(columns: Sequence[Column], i: int, roomy: bool) -> str:
    """Two lines: the title, once for all columns that have it, and the heading; the short one where room is scarce."""
    column = columns[i]
    if not roomy and "\n" in column.short:
        return column.short
    title = column.title if i == 0 or columns[i - 1].title != column.title else ""
    return f"{title}\n{column.heading if roomy or not column.short else column.short}"


def _courses(report: RunReport, console: Console) -> Table:
    """One line per course under its schedule and stream; among editors the one that broke first comes first."""
    several = len({course.record.model for course in report.courses}) > 1
    found = list(courses.rows(report))
    shown = [name for name in courses.HEADINGS if console.width >= NARROW or name not in ("growth", "perplexity")]
    wide = [max(len(name), *(len(row.cells[i]) for row in found)) for i, name in enumerate(shown)] if found else []
    names = [len(_where(row, several)) for row in found] + [len(row.course.record.editor) + 2 for row in found]
    verdicts = [len("verdict"), *(len(row.course.verdict.value) for row in found)]
    roomy = max([0, *names]) + max(verdicts) + sum(wide) + 2 * (len(wide) + 1) <= console.width
    table = Table(box=None, padding=(0, 2 if roomy else 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("courses", overflow="fold")  # names give way before figures do
    table.add_column("verdict", no_wrap=True)
    for heading in shown:
        table.add_column(heading, justify="left" if heading == "perplexity" else "right", no_wrap=True)
    title = ""
    for row in found:
        record, where = row.course.record, _where(row, several)
        if where != title:
            table.add_row(Text(_safe(console, where), style="dim"))
            title = where
        verdict = Text(row.course.verdict.value, style=_colour(row.course.verdict))
        cells = [Text(_safe(console, cell)) for cell in row.cells[: len(shown)]]
        table.add_row(Text(f"  {_safe(console, record.editor)}"), verdict, *cells)
    return table


def _where(row: courses.CourseRow, several: bool) -> str:
    """`sequential, hard`, and on which model where there are several."""
    record = row.course.record
    return f"{record.schedule.kind}, {record.stream}{f', {record.model}' if several else ''}"


def _abilities(report: RunReport, console: Console) -> Table:
    """Scores at the step of each course where they are lowest, below those of the unedited model."""
    found = courses.ability_rows(report)
    names = list(dict.fromkeys(name for row in found for name in row.before))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("abilities", overflow="fold")
    for name in names:
        wide = max(5, (console.width - 40) // len(names) - 1)
        heading = _safe(console, name)
        lines = [heading[i : i + wide] for i in range(0, len(heading), wide)]
        table.add_column(Text("\n".join(lines)), justify="right", no_wrap=True)
    shown: dict[str, float | None] = {}
    for row in found:
        if row.before != shown:
            shown = dict(row.before)
            table.add_row(Text("unedited", style="dim"), *(Text(rate(shown.get(name))) for name in names))
        table.add_row(Text(_safe(console, row.case)), *(Text(rate(row.lowest.get(name))) for name in names))
    return table


def _verdict(row: Row) -> Text:
    return Text(row.verdict.value, style=_colour(row.verdict))


def _reasons(report: RunReport, console: Console) -> Table:
    """Per editor that does not pass: why, by how much and where."""
    several = len({group.model for group in report.groups}) > 1
    grid = _grid()
    for group in report.worst_groups:
        if group.verdict is Verdict.PASS:
            continue
        name = f"{group.editor} on {group.model}" if several else group.editor
        said = list(group.sentences)
        if len(said) > MOST:
            said = [*said[:MOST], f"and {len(said) - MOST} more, in the report"]
        for number, sentence in enumerate(said):
            head = Text(_safe(console, name), style=_colour(group.verdict)) if number == 0 else Text("")
            grid.add_row(head, Text(_safe(console, sentence, 600)))
    for course in courses.failing(report):
        head = Text(_safe(console, course.record.editor), style=_colour(course.verdict))
        for sentence in course.sentences[:MOST]:
            grid.add_row(head, Text(_safe(console, sentence, 600)))
            head = Text("")
    for gap in report.gaps:
        _say(grid, console, "", gap)
    for number, test in enumerate(report.facts.unexplained):
        _say(grid, console, "" if number else "test", test)
    return grid


def _evidence(report: RunReport, console: Console) -> Table:
    """The controls, the worst case and its likely cause."""
    grid = _grid()
    for control in report.controls:
        name = "control" if control is report.controls[0] else ""
        _say(grid, console, name, control.sentence, "" if control.behaved else "bold magenta")
    if not report.controls and not report.unplanned:
        _say(grid, console, "control", story.NO_CONTROL)
    worst = story.looked_at_first(report)
    cause = report.cause(worst) if worst is not None else None
    if worst is not None:
        _say(grid, console, "worst", story.worst_line(report, worst))
    if cause:
        _say(grid, console, "cause", cause)
    return grid


def _against(report: RunReport, console: Console) -> Table:
    """What is not as it was accepted."""
    grid = _grid()
    name = "baseline"
    for sentence in against.sentences(report.against, MOST * 2):
        _say(grid, console, name, sentence)
        name = ""
    return grid


def _closing(report: RunReport, console: Console) -> Table:
    """What to do next, and the verdict: the last line is the one that is read."""
    grid = _grid()
    advice = story.advice(report)
    if advice:
        _say(grid, console, "next", advice)
    for note in story.footnotes(report):
        _say(grid, console, "note", note)
    style = f"bold {_colour(report.verdict)}" if report.verdict is not None else "bold magenta"
    _say(grid, console, "verdict", story.verdict_line(report), style)
    return grid


def _say(grid: Table, console: Console, name: str, text: str, style: str = "") -> None:
    grid.add_row(Text(name, style="dim"), Text(_safe(console, text, 1000), style=style))


def _folded(parts: Sequence[str], width: int) -> list[str]:
    """The parts joined by dots, on as many lines as they need."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=8, max_width=28, overflow="fold")
    grid.add_column(overflow="fold")
    return grid


def _colour(verdict: Verdict) -> str:
    return _COLOURS.get(verdict, "red")


def _safe(console: Console, text: str, longest: int = 300) -> str:
    """Text that cannot steer the terminal or the CI, in characters that the terminal's encoding has."""
    shown = line(text, longest)
    return shown.encode(console.encoding, "backslashreplace").decode(console.encoding)


REPORT = AsTerminal()
