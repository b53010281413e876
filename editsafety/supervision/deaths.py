"""Deaths: what it means that the process of a lab has ended, and what it was doing then."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# Who sends these is somebody else: a user, a scheduler, the system when memory runs out. Anything else is one's own.
_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT")
_LIBRARIES = ("/site-packages/", f"/python{sys.version_info.major}.{sys.version_info.minor}/")
_DEEPEST = 20  # calls of a stack that are kept


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended before it was told to, or why it was stopped."""

    # "timeout" or "died", as a failure is called.
    kind: str
    # In words: "its process crashed (SIGSEGV)".
    sentence: str
    # Whether trying again may end otherwise.
    from_outside: bool
    # Where it was: the innermost call first.
    stack: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """File and line of the innermost call that is not Python's own or a library's; empty where none is known."""
        own = [call for call in self.stack if not any(place in call for place in _LIBRARIES)]
        return next((_place(call) for call in (*own, *self.stack)), "")

    @classmethod
    def of(cls, status: int, dump: str) -> Death:
        """From what a process returned, and what `faulthandler` wrote at its end."""
        stack = innermost_first(dump)
        if status >= 0:
            return cls("died", f"its process was ended by exit status {status} (os._exit, or from C)", False, stack)
        number = -status
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        if name in _FROM_OUTSIDE:
            why = ", by somebody or because memory ran out" if name == "SIGKILL" else ""
            return cls("died", f"its process was killed ({name}{why})", True, stack)
        return cls("died", f"its process crashed ({name})", False, stack)

    @classmethod
    def late(cls, limit: float, dump: str) -> Death:
        """It was stopped after its time limit."""
        return cls("timeout", f"it did not end within {limit:g} s and was stopped", False, innermost_first(dump))


def innermost_first(dump: str) -> tuple[str, ...]:
    """The calls of the main thread, as `faulthandler` writes them: `/a/b.py:12 in name`.

    The main thread is the one that is written last. What calls the lab is left out.
    """
    calls: list[str] = []
    for line in dump.splitlines():
        if line.endswith("(most recent call first):"):
            calls.clear()
        if line.startswith('  File "'):
            file, _, rest = line.removeprefix('  File "').rpartition('", line ')
            number, _, name = rest.partition(" in ")
            calls.append(f"{file}:{number} in {name}")
    return tuple(_ours_cut(calls)[:_DEEPEST])


def _ours_cut(calls: Sequence[str]) -> list[str]:
    own = next((i for i, call in enumerate(calls) if "/editsafety/supervision/child.py:" in call), len(calls))
    return list(calls[:own])


def _place(call: str) -> str:
    return call.rpartition(" in ")[0].rpartition("/")[2]
