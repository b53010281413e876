"""Stop signals: SIGTERM and SIGHUP mean what Ctrl-C means: a report of what was finished, to be gone on with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # no HUP on Windows


@contextmanager
def stopping_like_ctrl_c() -> Iterator[None]:
    """Within the block these signals raise KeyboardInterrupt, where nobody has said otherwise (`nohup` has)."""
    mine = threading.current_thread() is threading.main_thread()  # others may not, and do not get them
    changed = [one for one in STOPPING if mine and signal.getsignal(one) is signal.SIG_DFL]
    for one in changed:
        signal.signal(one, signal.default_int_handler)
    try:
        yield
    finally:
        for one in changed:
            signal.signal(one, signal.SIG_DFL)
