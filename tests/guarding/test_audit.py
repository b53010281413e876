"""The audit file: lines that are there for good, whatever kills the process."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from editsafety.errors import DataError, StoreError
from editsafety.guarding.audit import AuditLog, read, unfinished


def test_lines_are_appended_and_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.jsonl"
    AuditLog(path).write("opened", guard="a", ratio=math.inf)
    AuditLog(path).write("begun", guard="a", number=1, checks=({"figure": math.nan},))
    first, second = read(path)
    assert (first["what"], first["ratio"], second["checks"]) == ("opened", "inf", [{"figure": "nan"}])
    assert first["time"] <= second["time"]
    assert path.read_text().count("\n") == 2


def test_half_a_line_is_closed_by_the_next_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write("begun", guard="a", number=1)
    path.write_text(path.read_text() + '{"what": "kep')
    log.write("begun", guard="a", number=2)
    assert [row["number"] for row in read(path)] == [1, 2]


def test_what_was_begun_and_never_ended_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for guard, number, end in (("a", 1, "kept"), ("a", 2, "rolled back"), ("b", 1, ""), ("b", 2, "kept")):
        log.write("begun", guard=guard, number=number)
        if end:
            log.write(end, guard=guard, number=number)
    assert [(row["guard"], row["number"]) for row in unfinished(read(path))] == [("b", 1)]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    with pytest.raises(DataError, match=r"notes\.txt:1: no line of an audit: 'hello'"):
        read(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(DataError, match="no line of an audit"):
        read(path)
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the audit cannot be written"):
        AuditLog(tmp_path / "file" / "audit.jsonl").write("opened")


def test_without_a_path_nothing_is_kept() -> None:
    AuditLog(None).write("opened", what_ever=object())
