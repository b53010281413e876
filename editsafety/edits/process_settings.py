"""Settings of the process: what is around a model beside torch, and decides what the next editor may do."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from editsafety.edits.setting import Setting

ITEMS = ("pytest",)  # environment variables that start so belong to whoever runs the tests


def of_process() -> list[Setting]:
    """All of them."""
    return [
        Setting("the working directory", os.getcwd, os.chdir),
        Setting("the environment", _environment, _set_environment, _which),
        Setting("Python's search path", lambda: list(sys.path), _set_path, _places),
        Setting("Python's recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        Setting("Python's garbage collection", gc.isenabled, lambda was: gc.enable() if was else gc.disable()),
        Setting("Python's standard output", lambda: sys.stdout, lambda was: setattr(sys, "stdout", was)),
        Setting("Python's standard error", lambda: sys.stderr, lambda was: setattr(sys, "stderr", was)),
        Setting("whether Python's standard streams are closed", _closed),
        Setting("where the standard streams lead to", _streams, tell=lambda was, now: ""),
        Setting("the level at which logging is off", lambda: logging.root.manager.disable, logging.disable),
        Setting("the level of the root logger", lambda: logging.root.level, logging.root.setLevel),
        Setting("which warnings Python raises as errors", _raised, _set_raised, lambda was, now: ""),
        Setting("Python's hook for uncaught errors", lambda: sys.excepthook, _set_excepthook),
        Setting("numpy's answers to floating-point errors", _of_numpy, _set_numpy, _which),
        Setting("the permissions that new files do not get", _umask, os.umask),
        Setting("limits of the system", _limits, _set_limits, _which),
        Setting("signal handlers", _handlers, _set_handlers, _which),
        Setting("an alarm of the system's clock", _armed, _set_alarm, lambda was, now: " (it is still set)"),
    ]


def _closed() -> tuple[bool, ...]:
    """An object that is closed cannot be opened again, and whoever prints next would fail."""
    return tuple(bool(getattr(stream, "closed", False)) for stream in (sys.stdout, sys.stderr))


def _streams() -> list[tuple[int, int] | None]:
    """The files behind the descriptors 0, 1 and 2, which Python's own streams and every program write to."""
    found: list[tuple[int, int] | None] = []
    for descriptor in range(3):
        try:
            about = os.fstat(descriptor)
        except OSError:
            found.append(None)
        else:
            found.append((about.st_dev, about.st_ino))
    return found


def _limits() -> dict[str, tuple[int, int]]:
    import resource  # Windows has none

    names = [name for name in vars(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in sorted(names)}


def _set_limits(was: Mapping[str, tuple[int, int]]) -> None:
    import resource

    for name, limit in was.items():
        resource.setrlimit(getattr(resource, name), limit)


def _raised() -> list[Any]:
    """Other filters come with many an import; these decide what the next editor may do."""
    return [one for one in warnings.filters if one[0] == "error"]


def _set_raised(was: list[Any]) -> None:
    kept = [one for one in warnings.filters if one[0] != "error" or one in was]
    gone = [one for one in was if one not in kept]
    warnings.resetwarnings()  # beside emptying the list, it makes Python forget what it has decided by it
    cast(list[Any], warnings.filters).extend((*gone, *kept))


def _of_numpy() -> dict[str, str]:
    return dict(sys.modules["numpy"].geterr())


def _set_numpy(was: dict[str, str]) -> None:
    sys.modules["numpy"].seterr(**was)


def _set_excepthook(was: Any) -> None:
    sys.excepthook = was


def _umask() -> int:
    with suppress(OSError, StopIteration):  # no such file, or an older kernel that does not tell
        told = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1], 8) for line in told if line.startswith("Umask:"))
    # Elsewhere it can only be read by setting it; another thread may make a file meanwhile that only we can read.
    os.umask(mask := os.umask(0o077))
    return mask


def _set_path(was: list[str]) -> None:
    sys.path[:] = was


def _places(was: list[str], now: list[str]) -> str:
    other = [*(place for place in now if place not in was), *(place for place in was if place not in now)]
    return f": {', '.join(other)}" if other else " in its order"


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.lower().startswith(ITEMS)}


def _set_environment(was: Mapping[str, str]) -> None:
    for key in _environment().keys() - was.keys():
        del os.environ[key]
    os.environ.update({key: value for key, value in was.items() if os.environ.get(key) != value})


def _which(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names only: values of the environment may be secrets."""
    return f": {', '.join(sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key)))}"


def _handlers() -> dict[str, Any]:
    return {one.name: signal.getsignal(one) for one in signal.Signals}


def _set_handlers(was: Mapping[str, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for name, handler in was.items():
        if handler is not None and signal.getsignal(signal.Signals[name]) is not handler:
            signal.signal(signal.Signals[name], handler)


def _armed() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _set_alarm(was: bool) -> None:
    if not was:
        signal.setitimer(signal.ITIMER_REAL, 0)
