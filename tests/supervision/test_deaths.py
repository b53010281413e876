"""What the end of a process means."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from editsafety.supervision.deaths import Death, innermost_first


def test_an_exit_is_the_editors_doing_whatever_its_status() -> None:
    for status in (0, 1, 13):
        death = Death.of(status, "")
        assert (death.kind, death.from_outside, death.where) == ("died", False, "")
        assert f"exit status {status}" in death.sentence


@pytest.mark.parametrize(
    ("name", "outside"),
    [("SIGSEGV", False), ("SIGABRT", False), ("SIGBUS", False), ("SIGKILL", True), ("SIGTERM", True)],
)
def test_a_crash_is_the_editors_doing_and_a_kill_is_somebody_elses(name: str, outside: bool) -> None:
    death = Death.of(-getattr(signal, name), "")
    assert death.from_outside is outside
    assert name in death.sentence


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert "signal 40" in Death.of(-40, "").sentence


def test_a_crash_says_where_by_the_innermost_call_that_is_no_librarys(tmp_path) -> None:
    script = tmp_path / "mine.py"
    script.write_text("import ctypes\n\n\ndef crash():\n    ctypes.string_at(0)\n\n\ncrash()\n")
    done = subprocess.run([sys.executable, "-X", "faulthandler", script], capture_output=True, text=True, check=False)
    death = Death.of(done.returncode, done.stderr)
    assert death.where == "mine.py:5"
    assert death.stack[0].endswith(" in string_at")
    assert death.stack[-2:] == (f"{script}:5 in crash", f"{script}:8 in <module>")


def test_of_several_threads_the_main_one_is_taken_and_what_called_the_lab_is_left_out() -> None:
    dump = """\
Thread 0x01 (most recent call first):
  File "/lib/threading.py", line 1 in wait

Current thread 0x02 (most recent call first):
  File "/mine, or "yours"/editor.py", line 7 in edit
  File "/x/editsafety/lab/attempt.py", line 62 in compute
  File "/x/editsafety/supervision/child.py", line 140 in _answer
  File "<string>", line 1 in <module>
"""
    assert innermost_first(dump) == (
        '/mine, or "yours"/editor.py:7 in edit',
        "/x/editsafety/lab/attempt.py:62 in compute",
    )
    assert Death.late(2.5, dump).where == "editor.py:7"
    assert "2.5 s" in Death.late(2.5, dump).sentence


def test_without_a_stack_nothing_is_said_of_where() -> None:
    assert innermost_first("") == ()
    assert Death.late(1, "not a stack").where == ""
