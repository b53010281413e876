"""What a trained editor practises on: a request, another wording of it, and what must stay as it is.

For a pocket model lessons are drawn from the small world, facts of the test files left out. For any other model they
come from a file of requests with rephrasings and neighbours. A lesson depends on the seed and its number alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.errors import DataError

if TYPE_CHECKING:
    from editsafety.pocket.practice import Practice

KEPT_BACK = 10  # one fact in so many is for validation


@dataclass(frozen=True)
class Lesson:
    """One request to learn from."""

    # The fact to write.
    request: EditRequest
    # Should be continued by the request's target.
    rephrasing: str
    # Should be continued by their own answers.
    neighbours: tuple[Neighbour, ...]
    # Should be read as before.
    texts: tuple[str, ...] = ()


class Lessons(Protocol):
    """A source of lessons; `name` says which, for artifact keys, and `told` for people."""

    name: str
    told: str

    def draw(self, seed: str, *, validation: bool = False) -> Lesson:
        """The lesson of a seed; those for validation are about other facts."""
        ...


class FileLessons:
    """Lessons from requests, one neighbour each (the published proportion of locality samples to edits)."""

    def __init__(self, requests: Sequence[EditRequest], spec: str = "a file") -> None:
        usable = [request for request in requests if request.rephrasings and request.neighbours]
        if len(usable) < 2:
            raise DataError(
                f"training needs at least two requests with rephrasings and neighbours; {len(usable)} of the "
                f"{len(requests)} given have both. Give a data set that has them, such as counterfact:FILE."
            )
        digest = hashlib.sha256("".join(request.digest() for request in requests).encode()).hexdigest()
        self.name = f"requests {digest}"
        self.told = f"{len(usable)} requests of {spec}"
        self._kept_back = usable[::KEPT_BACK]
        self._trained = [request for i, request in enumerate(usable) if i % KEPT_BACK]

    def draw(self, seed: str, *, validation: bool = False) -> Lesson:
        """A request, one of its rephrasings and one of its neighbours."""
        rng = random.Random(seed)
        request = rng.choice(self._kept_back if validation else self._trained)
        return Lesson(request, rng.choice(request.rephrasings), (rng.choice(request.neighbours),))


class PocketLessons:
    """Lessons from the small world, with an ordinary text each."""

    def __init__(self) -> None:
        from editsafety.pocket.practice import Practice

        self.name = Practice.NAME
        self.told = "edits of the small world that no test asks for"
        self._practice: Practice = Practice(KEPT_BACK)

    def draw(self, seed: str, *, validation: bool = False) -> Lesson:
        """An exercise about any fact that is in no data file."""
        found = self._practice.draw(random.Random(seed), kept_back=validation)
        return Lesson(found.request, found.request.rephrasings[0], found.request.neighbours, (found.text,))
