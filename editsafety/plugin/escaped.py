"""What pytest itself prints of a safety run, with every character that is no plain text spelled out.

An exception of an editor, what it printed and what it warned of are somebody else's text; pytest shows all three.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest

from editsafety.escaping import lines


def clean_report(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Escape the failure of a report, or why it was skipped, and everything that was captured."""
    report.longrepr = _cleaned(report.longrepr)
    report.sections = [(lines(title), lines(text)) for title, text in report.sections]


def clean_warning(found: warnings.WarningMessage) -> None:
    """Escape the text of a warning."""
    text = str(found.message)
    if lines(text) != text:
        found.message = found.category(lines(text)) if isinstance(found.message, Warning) else lines(text)


def _cleaned(value: Any) -> Any:
    """The same with every text in it escaped; the parts of pytest's own representations are changed in place."""
    if isinstance(value, str):
        return lines(value)
    if isinstance(value, tuple | list):
        return type(value)(map(_cleaned, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            setattr(value, field.name, _cleaned(getattr(value, field.name)))
        for name in ("reprcrash", "reprtraceback"):  # of a chain, which takes them from its last link
            if hasattr(value, name):
                setattr(value, name, _cleaned(getattr(value, name)))
    return value
