"""Dealing: which worker gets which cases next, how many, and what is left after a worker died.

All cases of one request are dealt together, so that what its editors share is computed once. A worker keeps to the
model that it has in memory. How many requests make a portion follows from how long those before took.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from editsafety.cluster.work import Inquiry, KeyQuestion, OrderCheck, Portion, Work
from editsafety.runs.case import Case
from editsafety.runs.store import DEATHS

TARGET = 300.0  # seconds that a portion is to take: what a worker that dies has worked in vain

Bundle = tuple[Case, ...]  # the cases of one request on one model
Dealt = TypeVar("Dealt", bound=Work)
Single = TypeVar("Single", bound=Inquiry | KeyQuestion | OrderCheck)


class Dealer(Protocol[Dealt]):
    """Deals work out until none is left."""

    @property
    def left(self) -> int:
        """How much has not been dealt out; what comes back of lost work is counted again."""

    def deal(self, worker: str) -> Dealt | None:
        """What a worker does next; None where there is nothing for it."""

    def took(self, work: Dealt, seconds: float) -> None:
        """Work was done in so many seconds."""

    def lost(self, work: Dealt) -> None:
        """A worker died over this work, of which nothing came."""


class CaseDealer:
    """Deals cases. `workers` is how many there are going to be."""

    def __init__(self, cases: Iterable[Case], workers: int) -> None:
        self._bundles = {model: deque(bundles) for model, bundles in bundled(cases).items()}
        self._alone: deque[Portion] = deque()
        self._workers = workers
        self._models: dict[str, str] = {}  # what each worker has in memory
        self._seconds: dict[str, float] = defaultdict(float)  # by model, spent on so many requests
        self._requests: Counter[str] = Counter()

    @property
    def left(self) -> int:
        """How many portions of one request could be dealt yet."""
        return len(self._alone) + sum(map(len, self._bundles.values()))

    def deal(self, worker: str) -> Portion | None:
        """The next portion for a worker: cases that are tried alone first, then requests of its own model."""
        if self._alone:
            portion = self._alone.popleft()
        else:
            waiting = {model: bundles for model, bundles in self._bundles.items() if bundles}
            if not waiting:
                return None
            model = self._models.get(worker, "")
            model = model if model in waiting else self._least_served(waiting)
            some = [waiting[model].popleft() for _ in range(self._size(model, len(waiting[model])))]
            portion = Portion(model, tuple(case for bundle in some for case in bundle))
        self._models[worker] = portion.model
        return portion

    def took(self, work: Portion, seconds: float) -> None:
        """Learn how long the requests of a model take."""
        if not work.deaths:
            self._seconds[work.model] += seconds
            self._requests[work.model] += len({case.request.id for case in work.cases})

    def lost(self, work: Portion) -> None:
        """Of several cases each is tried alone from now on; of one, this was a death.

        It is dealt once more after the last death: the lab then gives it up, and says so in its record.
        """
        if len(work.cases) == 1:
            self._alone.append(Portion(work.model, work.cases, min(work.deaths + 1, DEATHS)))
        else:
            self._alone += [Portion(work.model, (case,)) for case in work.cases]

    def _size(self, model: str, left: int) -> int:
        """How many requests of a model: one as long as nothing is known, never more than leaves all workers busy."""
        if not self._requests[model]:
            return 1
        pace = self._seconds[model] / self._requests[model]
        share = math.ceil(left / (2 * self._workers))
        return share if share * pace <= TARGET else max(1, int(TARGET / pace))

    def _least_served(self, waiting: Mapping[str, deque[Bundle]]) -> str:
        """The model with the most requests for each worker that has it already."""
        served = Counter(self._models.values())
        return max(waiting, key=lambda model: len(waiting[model]) / (1 + served[model]))


class QueueDealer(Generic[Single]):
    """Deals single pieces of work in their order; `given_up` are those of which workers died again and again."""

    def __init__(self, works: Iterable[Single]) -> None:
        self._works = tuple(works)
        self._waiting = deque(self._works)
        self._models: dict[str, str] = {}
        self._deaths: Counter[int] = Counter()  # by place in the queue
        self.given_up: list[Single] = []

    @property
    def left(self) -> int:
        """How many have not been dealt out."""
        return len(self._waiting)

    def deal(self, worker: str) -> Single | None:
        """The next one for a worker, of the model that it has in memory if there is any."""
        if not self._waiting:
            return None
        own = next((one for one in self._waiting if one.model == self._models.get(worker)), self._waiting[0])
        self._waiting.remove(own)
        self._models[worker] = own.model
        return own

    def took(self, work: Single, seconds: float) -> None:
        """Nothing is learned from it."""

    def lost(self, work: Single) -> None:
        """It is tried again, up to some number of times."""
        place = next(place for place, one in enumerate(self._works) if one is work)
        self._deaths[place] += 1
        if self._deaths[place] < DEATHS:
            self._waiting.append(work)
        else:
            self.given_up.append(work)


def bundled(cases: Iterable[Case]) -> dict[str, list[Bundle]]:
    """The cases of each model, those of one request together; models and requests in the order of their first case."""
    found: dict[str, dict[str, list[Case]]] = {}
    for case in cases:
        found.setdefault(case.model, {}).setdefault(case.request.digest(), []).append(case)
    return {model: [tuple(bundle) for bundle in of_requests.values()] for model, of_requests in found.items()}
