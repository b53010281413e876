"""Threads: what somebody else's code started and did not end. It can write to the model at any time."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

GRACE = 1.0  # seconds in which a thread that was started may come to its end by itself
HARMLESS = ("tqdm", "rich", "_pytest", "pytest_timeout", "execnet", "debugpy", "_pydevd", "IPython", "ipykernel")


@dataclass(frozen=True)
class Threads:
    """The threads that ran Python code, by their identifiers, and the child processes."""

    known: frozenset[int]
    children: frozenset[int]

    @classmethod
    def now(cls) -> Threads:
        """Remember them."""
        return cls(frozenset(sys._current_frames()), frozenset(_children()))

    def left_running(self) -> tuple[str, ...]:
        """One sentence for each that is new and goes on; waits a moment for those that are about to end."""
        end = time.monotonic() + GRACE
        while (new := self._new()) and time.monotonic() < end:
            time.sleep(0.005)
        children = self._new_children()
        while children and time.monotonic() < end:
            time.sleep(0.005)
            children = self._new_children()
        return (*new, *(f"the child process {name} goes on" for name in children))

    def _new_children(self) -> list[str]:
        return [name for number, name in _children().items() if number not in self.children]

    def _new(self) -> list[str]:
        found = []
        for ident, frame in sys._current_frames().items():
            thread = threading._active.get(ident)  # type: ignore[attr-defined]  # `enumerate` would wait for a lock
            ended = thread is not None and not thread.is_alive()
            if ident in self.known or ended or type(thread).__module__.startswith(HARMLESS):
                continue
            name = repr(thread.name) if thread is not None else str(ident)
            found.append(f"the thread {name} goes on ({_place(frame)})")
        return found


def _place(frame: FrameType) -> str:
    """Where the function is that a thread was started with."""
    frames = [frame]
    while (outer := frames[-1].f_back) is not None:
        frames.append(outer)
    own = [one for one in frames if one.f_code.co_filename != threading.__file__] or frames
    code = own[-1].f_code
    return f"{code.co_name} in {code.co_filename.rpartition('/')[2]}, line {own[-1].f_lineno}"


def _children() -> dict[int, str]:
    """Processes that were started by multiprocessing, where that is in use, and other copies of this one (os.fork)."""
    multiprocessing = sys.modules.get("multiprocessing")
    known = [] if multiprocessing is None else multiprocessing.active_children()
    return {**_copies(), **{child.pid or 0: child.name for child in known}}


def _copies() -> dict[int, str]:
    """Children that go by the very words by which this process was started, where the system tells of them.

    They hold what it holds: the model, files that are open, an end of every connection. A program that was started has
    words of its own.
    """
    found = {}
    with suppress(OSError):
        words = Path("/proc/self/cmdline").read_bytes()
        for listed in Path("/proc/self/task").glob("*/children"):
            for number in listed.read_text().split():
                with suppress(OSError):  # it has ended since
                    if Path(f"/proc/{number}/cmdline").read_bytes() == words:
                        found[int(number)] = "(a copy of this one, made by os.fork)"
    return found
