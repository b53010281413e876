"""The facts that are traced: those that a model knows, as tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from editsafety.datasets.request import SLOT, EditRequest
from editsafety.editing import subject
from editsafety.errors import DataError
from editsafety.lab.truths import gives_true_answers
from editsafety.model.handle import ModelHandle

CLASSES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first later token",
    "further tokens",
    "last token",
)
LAST_OF_SUBJECT = CLASSES[2]
ASKED = 32  # requests that are asked at once whether the model knows them


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A fact whose answer the model gives."""

    # Of the request.
    id: str
    # The filled prompt, special tokens included.
    ids: tuple[int, ...]
    # Index of the subject's first token, and of its last one.
    subject: tuple[int, int]
    # The first token of the answer.
    answer: int

    @property
    def places(self) -> range:
        """The tokens that noise on the subject can reach."""
        return range(self.subject[0], len(self.ids))

    def class_of(self, position: int) -> str:
        """Where a token from the subject on stands."""
        first, last = self.subject
        if position <= last:
            return CLASSES[2] if position == last else CLASSES[0] if position == first else CLASSES[1]
        end = len(self.ids) - 1
        return CLASSES[5] if position == end else CLASSES[3] if position == last + 1 else CLASSES[4]


def known_facts(handle: ModelHandle, requests: Sequence[EditRequest], most: int) -> tuple[KnownFact, ...]:
    """The first `most` facts whose true answer the model gives, by the rule of `--known`.

    Raises DataError when it gives none.
    """
    asked = [request for request in requests if request.target_true]
    known = tuple(_fact(handle, request) for request in islice(known_requests(handle, asked), most))
    if not known:
        raise DataError(
            f"{handle.name} gives the true answer of none of {len(asked)} requests that have one, so there is no fact "
            "to trace. Give requests with target_true that it knows."
        )
    return known


def known_requests(handle: ModelHandle, requests: Sequence[EditRequest]) -> Iterator[EditRequest]:
    """Those whose true answer the model gives, in their order; as many are asked as are taken, and some more."""
    for start in range(0, len(requests), ASKED):
        chosen = requests[start : start + ASKED]
        yield from (one for one, gives in zip(chosen, gives_true_answers(handle, chosen), strict=True) if gives)


def _fact(handle: ModelHandle, request: EditRequest) -> KnownFact:
    found = subject.locate(handle, request)
    answer = handle.target_ids(str(request.target_true), request.filled)[0]
    return KnownFact(request.id, found.ids, (_first(handle, request), found.subject), answer)


def _first(handle: ModelHandle, request: EditRequest) -> int:
    """Index of the subject's first token in the filled prompt."""
    head = request.prompt.split(SLOT)[0]
    spans = handle.spell_out(request.filled).spans
    if spans is None:
        return len(handle.ids(head))
    return next(at for at, (_, behind) in enumerate(spans) if behind > len(head))
