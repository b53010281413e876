"""The file of cases: of a large run every single edit, one JSON object a line, beside a report.json that has the worst.

A line is a row of `groups[].cases` of report.json, with the names of model and editor in front. Editors stand in the
order of the report, of each the worst cases first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from editsafety.errors import UsageError
from editsafety.escaping import json_text
from editsafety.judging.report import RunReport
from editsafety.reporting import CASES_FILE
from editsafety.reporting.case_rows import case_row
from editsafety.tensor_files import write_lines_atomically


def write(report: RunReport, folder: Path) -> None:
    """Write the file where the run is large; where it is not there is none, nor that of an earlier one. Raises OSError.

    Raises StoreError where the store of the run cannot be read any more.
    """
    path = folder / CASES_FILE
    if report.is_large:
        write_lines_atomically(path, lines(report))
    else:
        path.unlink(missing_ok=True)


def lines(report: RunReport) -> Iterator[bytes]:
    """Every single edit of a report as a line; one record at a time is in memory."""
    for group in report.worst_groups:
        names = {"model": group.model, "editor": group.editor}
        for case in group.worst_first():
            body = None if report.stored is None else report.stored.body(case.record.case)
            yield _line(names | case_row(report, group, case, body))


def each_case(place: Path) -> Iterator[dict[str, Any]]:
    """Every single edit of a written report, large or not, as the rows of the file: the one way to read all of them.

    `place` is the folder of the run, or its report.json. Raises UsageError for what is no report, and where the file
    of cases is missing.
    """
    path = place / "report.json" if place.is_dir() else place
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        beside = body.get("cases_file")
        if beside is None:
            for group in body["groups"]:
                names = {"model": group["model"], "editor": group["editor"]}
                yield from ({**names, **row} for row in group["cases"])
            return
        with (path.parent / Path(beside).name).open(encoding="utf-8") as rows:
            yield from map(json.loads, rows)
    except OSError as error:
        where = error.filename or path
        raise UsageError(f"{where}: cannot be read ({error.strerror}). Write the report again.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: is no report of cases ({error}). Write it again.") from error


def _line(row: dict[str, Any]) -> bytes:
    try:
        text = to_json(row, inf_nan_mode="null").decode()
    except PydanticSerializationError:  # half a surrogate pair, which JSON may name and UTF-8 cannot hold
        text = json.dumps(row, ensure_ascii=True, allow_nan=False)
    return json_text(text).encode() + b"\n"
