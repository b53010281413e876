"""A crew whose workers are in this process: real workers, one at a time, that die when a test says so."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path

from editsafety.cluster.crew import CrewNews
from editsafety.cluster.work import Brief, Parcel, Work
from editsafety.cluster.worker import Worker

Dies = Callable[[Work], bool]


class InlineCrew:
    """`dies` tells of each piece of work whether the worker that has it dies of it."""

    def __init__(self, place: Path, size: int = 2, dies: Dies = lambda work: False) -> None:
        self.size, self.given, self.hired = size, [], 0
        self._place, self._dies = place, dies
        self._workers: dict[str, Worker] = {}
        self._begun: set[str] = set()
        self._waiting: deque[tuple[str, Work | None]] = deque()

    @property
    def staff(self) -> int:
        return len(self._workers)

    @property
    def idle(self) -> list[str]:
        return sorted(self._begun - {worker for worker, _ in self._waiting})

    def hire(self, brief: Brief) -> None:
        self.hired += 1
        name = f"worker-{self.hired}"
        self._workers[name] = Worker(brief, self._place / name)
        self._waiting.append((name, None))

    def give(self, worker: str, work: Work) -> None:
        self.given.append((worker, work))
        self._waiting.append((worker, work))

    def hear(self) -> CrewNews | None:
        worker, work = self._waiting.popleft()
        if work is None:
            self._begun.add(worker)
            return CrewNews(worker, Parcel({}, ()))
        if self._dies(work):
            self._let_go(worker)
            return CrewNews(worker, None, "the test says so")
        return CrewNews(worker, self._workers[worker].do(work))

    def dismiss(self) -> None:
        for worker in [*self._workers]:
            self._let_go(worker)
        self._waiting.clear()

    def _let_go(self, worker: str) -> None:
        self._workers.pop(worker).close()
        self._begun.discard(worker)
        shutil.rmtree(self._place / worker)
