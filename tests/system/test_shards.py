"""A run in parts: killed, gone on with and merged, it is the run that one machine would have made."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.system.commands import given, kill, report, start, without_times

SLEEPY = '''

class Sleepy(Nudge):
    """Sleeps at one case, the first time."""

    def edit(self, requests, carry=None):
        import time
        from pathlib import Path
        slept = Path(__file__).parent / "slept"
        if requests[0].id == "hard-1" and not slept.exists():
            slept.touch()
            time.sleep(60)
        return super().edit(requests)
'''


@pytest.mark.slow
def test_three_parts_of_which_one_was_killed_come_to_the_report_of_one_run(paths, command, tmp_path):
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + SLEEPY)
    words = ["run", *given(paths, "Sleepy", "noop")]
    running = start(*words, "--shard", "2/3", "--out", "b", cwd=tmp_path)
    killed = kill(running, when=(tmp_path / "slept").exists)
    assert killed.code == -signal.SIGKILL
    assert command("merge", "b", "-o", "whole").code == 4, "two parts are missing"
    for part, folder in (("1/3", "a"), ("2/3", "b"), ("3/3", "c")):
        assert command(*words, "--shard", part, "--out", folder).code == 11
    merged = command("merge", "c", "a", "b", "-o", "whole")
    straight = command(*words, "--out", "straight")
    assert merged.code == straight.code == 11
    assert without_times(report("whole")) == without_times(report("straight"))
    assert command("report", "whole").code == 11


def test_a_part_cannot_be_held_against_a_baseline(paths, command, tmp_path):
    (tmp_path / "accepted.json").write_text("{}")
    done = command("run", *given(paths, "noop"), "--shard", "1/2", "--baseline", tmp_path / "accepted.json")
    assert done.code == 4
    assert "give it to `editsafety merge`" in done.err
