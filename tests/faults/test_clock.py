"""A clock that is set back and forward while a run goes on."""

from __future__ import annotations

import pytest

from tests.system.commands import ended, given, report, start, without_times

JUMPS = """
import random, time
real, draw = time.time, random.Random(0)
time.time = lambda: real() + draw.uniform(-1e9, 1e9)
time.time_ns = lambda: int(time.time() * 1e9)
from editsafety.cli import main
main()
"""


@pytest.mark.thorough
def test_a_clock_that_jumps_changes_nothing(paths, tmp_path):
    words = ["run", *given(paths, "Nudge", "Raises", controls=0)]
    jumping = ended(start(*words, "--out", "jumping", cwd=tmp_path, program=("-c", JUMPS)))
    steady = ended(start(*words, "--out", "steady", cwd=tmp_path))
    assert jumping.code == steady.code == 13, jumping.out + jumping.err
    assert without_times(report(tmp_path / "jumping")) == without_times(report(tmp_path / "steady"))
    for group in report(tmp_path / "jumping")["groups"]:
        for case in group["cases"]:
            assert all(0 <= seconds < 60 for name, seconds in case["cost"].items() if seconds and "bytes" not in name)
