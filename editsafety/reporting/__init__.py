"""Reports: a RunReport in, text out; one format per file. Nothing is judged here, so that every format says the same.

A file `as_<name>.py` here or an entry point `as_<name>` in group `editsafety.reporting`; it ends in
`REPORT = TheClass()`. Files that do not are what formats share. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from editsafety import discovery
from editsafety.errors import UnknownNameError
from editsafety.judging.report import RunReport
from editsafety.runs.stored_records import reading_many
from editsafety.tensor_files import write_atomically

HEAD = "as_"
CASES_FILE = "cases.jsonl"  # of a large run, beside its report: every single edit, one a line


@dataclass(frozen=True, slots=True)
class ReportPlace:
    """Where a report is shown: what a format may say besides the report itself."""

    suites: str = "--pyargs editsafety.suites"  # how pytest is told where the suites are, for the replay command
    folder: Path | None = None  # of the run
    seconds: float | None = None  # that the session took


class Format(Protocol):
    """One way to write a report down."""

    file: ClassVar[str]  # what it is called in the folder of a run; empty: it is only written when asked for

    def __call__(self, report: RunReport, place: ReportPlace) -> str:
        """The whole report as text."""
        ...


def names() -> list[str]:
    """Every format; imports none."""
    return [name.removeprefix(HEAD) for name in discovery.names("reporting")]


def load(name: str) -> Format:
    """The format behind a name. Raises UnknownNameError."""
    if name not in names():
        raise UnknownNameError("format", name, names())
    found: Format = discovery.load("reporting", f"{HEAD}{name}")
    return found


@reading_many()
def write(report: RunReport, folder: Path, place: ReportPlace) -> None:
    """Write every format that has a file into the folder of a run, each whole or not at all. Raises OSError.

    Of a large run the table of all cases goes beside them.
    """
    from editsafety.reporting import cases_file  # it is made of a format, and formats of this

    folder.mkdir(parents=True, exist_ok=True)
    for form in map(load, names()):
        if form.file:
            text = form(report, place)
            # JSON's own escape for half a surrogate pair, which UTF-8 cannot hold, is what backslashreplace writes.
            write_atomically(folder / form.file, text.encode("utf-8", "backslashreplace"))
    cases_file.write(report, folder)
