"""A program in both doors: what it does wrong is its case's, with its own last words, and the run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doors.both import Doors, Given, agree
from tests.outside.programs import command

BODY = """
if rows[0]["case_id"].endswith("hard-0"):
    print("no such layer")
    sys.exit(3)
checkpoint({WEIGHT: written(0.0001)})
"""


@pytest.mark.thorough
def test_a_program_that_fails_once_fails_one_case_in_both_doors(doors: Doors, tmp_path: Path) -> None:
    line = command(tmp_path, BODY)
    found = doors.both(Given((), ("collapse",), options=("controls=0",), lines=(line,)))
    agree(*found)
    for said in found:
        assert said.report is not None
        (group,) = said.report["groups"]
        failed = [case for case in group["cases"] if case["verdict"] == "ERROR"]
        assert [case["failure"]["message"] for case in failed] == [
            "edit-py failed: the program ended with exit status 3; its last lines: no such layer"
        ]
        others = [case for case in group["cases"] if case["verdict"] != "ERROR"]
        assert len(others) == 2
        assert {case["verdict"] for case in others} == {"PASS"}
