"""Shared progress: how far workers are, whose own progress nobody sees, read off the store of their run."""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

from editsafety.errors import StoreError
from editsafety.progress import Progress
from editsafety.runs.facts import Wanted
from editsafety.runs.store import Store

LOOK = 1.0  # seconds between two looks


class SharedProgress:
    """While it is entered, shows how many of the cases that workers were asked for are in a store.

    A thread looks, with a connection of its own: pytest hears of workers only when one of them has done a test, and the
    first one may have to wait for several cases.
    """

    def __init__(self, store: Path, progress: Progress) -> None:
        self._path, self._progress = store, progress
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        """Look until the end, and once more then; what is wrong with the store is said by whoever judges."""
        with suppress(StoreError), closing(Store(self._path)) as store:
            asked = store.fact(Wanted) or Wanted()
            with self._progress.task("cases", len(asked.cases)) as task:
                while not self._ended.is_set() or task.done < min(store.count(), task.total):
                    if further := min(store.count(), task.total) - task.done:
                        task.step(count=further)
                    self._ended.wait(LOOK)
