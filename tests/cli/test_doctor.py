"""`editsafety doctor` as a user gives it."""

from __future__ import annotations

from pathlib import Path

from tests.system.commands import Command


def test_it_ends_with_0_where_nothing_is_missing_and_says_so(command: Command, tmp_path: Path) -> None:
    done = command("doctor", "--model", "pocket-neo", "--editor", "rome", "--out", tmp_path)
    assert done.code == 0, done.out
    assert "nothing is missing" in done.out
    assert "rome for pocket-neo" in done.out


def test_it_ends_with_1_and_names_what_is_missing_in_its_last_line(command: Command) -> None:
    done = command("doctor", "--model", "pocket-neo", "--editor", "romme")
    assert done.code == 1
    assert done.out.splitlines()[-1] == "missing: romme for pocket-neo"
