"""Progress: a bar for people, lines for logs, nothing when quiet."""

import io
import re

import pytest

from editsafety import progress as module
from editsafety.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that goes by three seconds a look."""
    now = iter(range(0, 10_000, 3))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))


def test_quiet_prints_nothing_but_counts():
    out = io.StringIO()
    with Progress(out, "quiet").task("rome", 3) as task:
        task.step("a")
    assert (out.getvalue(), task.done) == ("", 1)


def test_no_work_prints_nothing():
    out = Terminal()
    with Progress(out).task("rome", 0):
        pass
    assert out.getvalue() == ""


def test_lines_tell_how_far_how_fast_how_long_still_and_the_note(clock):
    out = io.StringIO()
    with Progress(out).task("rome on m", 10) as task:
        for i in range(10):
            task.step(f"case {i}")
    lines = out.getvalue().splitlines()
    assert lines[0] == "rome on m: 0 of 10"
    assert lines[1] == "rome on m: 4 of 10, 0.3/s, 18 s left, case 3"
    assert lines[-1] == "rome on m: 10 of 10, 0.3/s, case 9"
    assert len(lines) == 4


def test_several_steps_at_once_or_none_are_told_and_slow_ones_by_what_each_takes(clock):
    out = io.StringIO()
    with Progress(out).task("facts", 4) as task:
        for count in (0, 0, 0, 0, 1, 0, 0, 0, 3):
            task.step("asked", count)
    assert out.getvalue().splitlines() == [
        "facts: 0 of 4",
        "facts: 0 of 4, asked",
        "facts: 1 of 4, 24 s each, 72 s left, asked",
        "facts: 4 of 4, 7 s each, asked",
    ]


def test_a_terminal_gets_a_bar_with_rate_and_note_as_they_are():
    out = Terminal()
    with Progress(out).task("rome [red]on m", 3) as task:
        for i in range(3):
            task.step(f"[bold]case {i}")
    assert task.done == 3
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "rome [red]on m" in shown
    assert "3/3" in shown
    assert "left" in shown


def test_a_narrow_terminal_still_shows_the_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    with Progress(out).task("text that small-llama writes itself", 240) as task:
        for _ in range(100):
            task.step()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"left \d:\d\d:\d\d", shown)


def test_an_error_inside_is_not_swallowed_and_ends_the_bar():
    out = Terminal()
    with pytest.raises(ValueError, match="oh"), Progress(out).task("rome", 3):
        raise ValueError("oh")
