"""Shared progress: how far workers are, whose own progress nobody sees, read off the store of their run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

from editsafety.errors import StoreError
from editsafety.progress import Progress, Task
from editsafety.runs.facts import OrderFacts, Wanted
from editsafety.runs.store import Store

LOOK = 1.0  # seconds between two looks


class SharedProgress:
    """While it is entered, shows how much of what workers were asked for is in a store: cases, and what comes then.

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
            self._show("cases", len(asked.cases), store.count)
            # A few cases of every editor are computed anew, one by one: with a large model that takes minutes.
            self._show("whether the order of edits matters, editors", asked.orders, lambda: store.noted(OrderFacts))

    def _show(self, label: str, total: int, count: Callable[[], int]) -> None:
        with self._progress.task(label, total) as task:
            while task.done < total and (further := self._further(task, count)) is not None:
                task.step(count=further)

    def _further(self, task: Task, count: Callable[[], int]) -> int | None:
        """How many more are in the store; None if there are none and nobody is at work any more."""
        while not (further := min(count(), task.total) - task.done):
            if self._ended.wait(LOOK):
                return min(count(), task.total) - task.done or None
        return further
