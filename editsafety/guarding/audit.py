"""Audit: a file of JSON lines that only grows, each on the disk before the next thing happens. No torch here."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from editsafety.errors import DataError, StoreError

ENDS = ("kept", "rolled back")  # what a transaction that was begun comes to


class AuditLog:
    """`path` None keeps nothing. Raises StoreError when the file cannot be written."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def write(self, what: str, **more: Any) -> None:
        """Append one line and wait until the disk has it. A half line that a kill left behind is closed first."""
        if self.path is None:
            return
        row = {"what": what, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **more}
        line = json.dumps(_plain(row), allow_nan=False) + "\n"
        try:
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.tell() and not _ends_line(file):
                    line = "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            if new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"{self.path}: the audit cannot be written ({error.strerror}). Nothing is edited without it; "
                "mend this, or give another file."
            ) from error


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of an audit, oldest first; half a line, which a kill leaves, is left out.

    Raises DataError for a file that is no audit.
    """
    found: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the audit cannot be read ({error.strerror}).") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            if line.startswith("{"):
                continue
            row = None
        if line and not (isinstance(row, dict) and "what" in row):
            raise DataError(f"{path}:{number}: no line of an audit: {line[:60]!r}. Give the file that the guard wrote.")
        if row:
            found.append(row)
    return found


def unfinished(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Transactions that were begun and came to no end: the process died in them, and its model with it."""
    ended = {(row.get("guard"), row.get("number")) for row in rows if row["what"] in ENDS}
    return [row for row in rows if row["what"] == "begun" and (row.get("guard"), row.get("number")) not in ended]


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    last: bytes = file.read(1)
    return last == b"\n"


def _sync_folder(folder: Path) -> None:
    """A new file is safe once its folder is; some systems cannot open folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    """JSON has no infinity: what is not finite is written by name."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
