"""Outlets: everywhere that a finished run is written to."""

from __future__ import annotations

from pathlib import Path

from editsafety import reporting
from editsafety.judging.report import RunReport
from editsafety.publishing import comment, github
from editsafety.reporting import ReportPlace
from editsafety.runs import folders


def write(report: RunReport, folder: Path, comment_to: Path | None = None) -> None:
    """Into the folder of the run, the file for a pull request if one is named, and GitHub's step summary.

    Raises OSError.
    """
    suites = folders.suites()
    reporting.write(report, folder, ReportPlace(suites))
    if comment_to is not None:
        comment.write(report, comment_to, suites=suites)
    github.append_summary(report)
