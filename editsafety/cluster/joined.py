"""Joined: what the workers of one sweep know beside their records, put together as the parts of a run are merged."""

from __future__ import annotations

from editsafety.errors import StoreError
from editsafety.runs.fact import RunFact
from editsafety.runs.facts import Drifted, OrderFacts, Problem
from editsafety.runs.merging import KEPT, join_facts
from editsafety.runs.store import Store

LATEST: frozenset[type[RunFact]] = frozenset({Drifted, OrderFacts, Problem})  # whoever says it last


class JoinedFacts:
    """The facts of this sweep, kept in the store; those of an earlier session are replaced by what is found now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[tuple[str, str], tuple[RunFact, str]] = {}  # with who said so

    def take(self, worker: str, fact: RunFact) -> bool:
        """Keep what a worker found; whether nobody had said anything about that before.

        Raises StoreError where two workers compute under different conditions: other weights, versions, devices.
        """
        place = fact.kind, fact.name
        before = self._found.get(place)
        who = worker
        if before is not None and type(fact) not in LATEST:
            known, who = before
            try:
                same = type(fact) in KEPT and who == worker  # it goes on where it was: more readings of the same
                fact = fact if same else join_facts(known, who, fact, worker)
            except StoreError as error:
                raise StoreError(
                    f"{error} Give all machines the same weights, packages and kind of device. The rest is kept."
                ) from error
        self._found[place] = fact, who
        self._store.note(fact)
        return before is None
