"""Foreign: somebody else's code while it runs. An editor may raise anything; only a real signal ends the run.

`sys.exit()`, `pytest.skip()`, a KeyboardInterrupt that nobody pressed: none of these is an Exception, so every boundary
that catches errors would let them through, and a case, or the whole run, would be gone without a word.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from editsafety.errors import EditorError, EditSafetyError, sentence_of

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # those that there are here: Windows knows no SIGHUP


class contained:  # noqa: N801 (it reads as the statement that it is: `with contained("rome"):`)
    """What is raised inside comes out as an Exception: an EditorError in place of what would end a program or a test.

    `error` is another class for it; what is of `others` comes out as it is, for a block around this one to contain.

    A signal is not the editor's doing. What its handler raises (Ctrl-C: KeyboardInterrupt) passes through, also where
    the code inside swallowed it.

    A copy of the process (os.fork) that comes out here ends here: what follows is for the one that went in.
    """

    def __init__(
        self,
        whose: str,
        error: type[EditSafetyError] = EditorError,
        *,
        others: Callable[[BaseException], bool] = lambda error: False,
    ) -> None:
        self._whose, self._error, self._others = whose, error, others
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._delivered: list[BaseException] = []

    def __enter__(self) -> None:
        self._process = os.getpid()
        if threading.current_thread() is not threading.main_thread():
            return  # no handler ever runs here
        for number in (getattr(signal, name) for name in _ENDING if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._deliver)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._process:
            if error is not None:
                traceback.print_exception(error)
            sys.stderr.flush()
            os._exit(1 if error is not None else 0)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._delivered:
            if error is not self._delivered[0]:
                raise self._delivered[0] from error
        elif error is not None and not isinstance(error, Exception) and not self._others(error):
            said = f"{self._whose} raised {sentence_of(error)}, which ends a program or a test and is no error"
            raise self._error(said).with_traceback(trace) from error

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            self._delivered.append(error)
            raise
