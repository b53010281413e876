"""Verdicts: what a report says becomes tests of its own, and the exit status of pytest is never better than it.

Some things only the report knows: weights that changed outside of any edit, cases without a result, an interrupted run,
a limit that no suite names. So when a session ends, each part of the verdict is reported as one more test, which JUnit,
the terminal and everybody else who listens to pytest count like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

from editsafety.escaping import line
from editsafety.judging.report import RunReport
from editsafety.plugin import MARKED
from editsafety.reporting import junit

if TYPE_CHECKING:
    from editsafety.plugin.session import SafetySession

FILE = "editsafety-verdict"  # what stands in a test's id before `::`, where others have their file
_PHASES: tuple[Literal["setup", "call", "teardown"], ...] = ("setup", "call", "teardown")
_LONGEST = 2000  # characters of one sentence


class Verdicts:
    """A pytest plugin for the process that writes the report: it hears of every test, of its workers' as well."""

    def __init__(self, safety: SafetySession) -> None:
        self._safety = safety
        self._ran = False  # whether any of our tests came to be run, and was not skipped
        self._about = False  # whether there were any
        self._failed: dict[str, str] = {}  # tests of the suites that failed, and how

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test has ended."""
        if not getattr(report, MARKED, False):
            return
        self._about = True
        self._ran |= report.when == "call" and not report.skipped
        if report.failed and "editsafety" in report.keywords:
            self._failed[report.nodeid] = _last_line(report)

    def conclude(self, session: pytest.Session, status: int) -> None:
        """Write the report, tell what it says, and settle the status of the session, which would be `status`."""
        stopped = status == pytest.ExitCode.INTERRUPTED
        interrupted = stopped or status == pytest.ExitCode.INTERNAL_ERROR
        self._safety.write_report(interrupted=interrupted, stopped=stopped, failed=self._failed)
        report = self._safety.report
        if report is not None:
            session.testscollected += len(report.parts)
            for told in as_tests(report):
                session.config.hook.pytest_runtest_logreport(report=told)
        session.exitstatus = self._status(session.exitstatus, report)

    def _status(self, status: int, report: RunReport | None) -> int:
        """Pytest's own status, unless the verdict says worse; nothing judged is never a pass."""
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return status
        if report is not None and report.verdict is not None and report.verdict.fails:
            return pytest.ExitCode.TESTS_FAILED
        nothing = report is not None and report.verdict is None
        return pytest.ExitCode.NO_TESTS_COLLECTED if nothing or (self._about and not self._ran) else status


def as_tests(report: RunReport) -> Iterator[pytest.TestReport]:
    """Every part of a verdict as the report of a test: green or red, with its sentences, its verdict as a property."""
    for part in report.parts:
        said = "\n".join(line(sentence, _LONGEST) for sentence in part.said.splitlines())
        for phase in _PHASES:
            red = phase == "call" and part.verdict.fails
            yield pytest.TestReport(
                nodeid=f"{FILE}::{part.name}",
                location=(FILE, None, part.name),
                keywords={"editsafety": 1},
                outcome="failed" if red else "passed",
                longrepr=said if red else None,
                when=phase,
                user_properties=list(junit.of_part(report, part)),
            )


def _last_line(report: pytest.TestReport) -> str:
    """What a failure comes to: pytest tells it last, or says nothing else."""
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else report.longrepr).strip()
    return line(text.splitlines()[0] if text else "it failed without a word", _LONGEST)
