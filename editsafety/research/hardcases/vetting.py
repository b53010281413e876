"""Vetting: what is wrong with requests before a model sees them. Every finding names file, row and field.

`requests` are the rules for any file: no fact twice, a target that is new, no answer given away by the prompt. HardEdit
(arXiv 2402.09656) has more of them: the subject is a single word in first place, the new target is of the same type as
the true one, and there is something to ask beside the prompt. No torch here.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from editsafety import datasets
from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError, UnknownNameError

Kind = Literal["requests", "hardedit"]
SAID_BEFORE = "says what"  # how the finding begins for a row that is there already
FEWEST = 2  # rephrasings, and neighbours, of a HardEdit request


@dataclass(frozen=True, slots=True)
class Objection:
    """One thing that is wrong."""

    # File and row.
    where: str
    # In which field; "" for the row as a whole.
    field: str
    # What is wrong.
    said: str

    def __str__(self) -> str:
        return f"{self.where}: field {self.field!r} {self.said}" if self.field else f"{self.where}: {self.said}"


def kind_of(name: str) -> Kind:
    """The kind that a user named. Raises UnknownNameError."""
    for kind in get_args(Kind):
        if kind == name:
            return kind  # type: ignore[no-any-return]
    raise UnknownNameError("kind of request file", name, get_args(Kind))


def vet(
    requests: Sequence[EditRequest], kind: Kind = "requests", *, beside: Sequence[EditRequest] = ()
) -> tuple[Objection, ...]:
    """What is wrong with the requests, row by row.

    `beside` are rows that are there already: none of them may be said again, and their answers are known, so that a
    target of their relation is of the right type.
    """
    seen: dict[tuple[str, ...], str] = {}
    answers = answers_of((*beside, *requests))
    for request in beside:
        list(_said_before(request, kind, seen))
    found: list[Objection] = []
    for request in requests:
        wrong = [*_said_before(request, kind, seen), *_for_any(request)]
        wrong += _for_hardedit(request, answers[request.relation]) if kind == "hardedit" else ()
        found += [Objection(_where(request), field, said) for field, said in wrong]
    return tuple(found)


def vet_file(spec: str, kind: Kind = "requests") -> tuple[Objection, ...]:
    """What is wrong in a file, or in a data set by name (`spec` as for `datasets.requests`).

    A row that cannot be read at all is one finding; the others are looked at.
    """
    try:
        found = datasets.read_requests(spec, skip_bad_rows=True)
    except DataError as error:
        return (Objection(spec, "", f"cannot be read: {error}"),)
    bad = (Objection(spec, "", f"cannot be read: {sentence}") for sentence in found.left_out)
    return (*bad, *vet(found.requests, kind))


def vet_folder(folder: Path) -> tuple[Objection, ...]:
    """What is wrong in the request files (.jsonl) below a folder; those called hardedit are held to its rules."""
    return tuple(
        finding
        for path in sorted(folder.rglob("*.jsonl"))
        if _holds_requests(path)
        for finding in vet_file(str(path), "hardedit" if path.stem == "hardedit" else "requests")
    )


def answers_of(requests: Sequence[EditRequest]) -> Mapping[str, Set[str]]:
    """By relation, every answer that is known to be of its type: the true ones, and those of neighbours."""
    answers: dict[str, set[str]] = defaultdict(set)
    for request in requests:
        known = [request.target_true or "", *(neighbour.answer for neighbour in request.neighbours)]
        answers[request.relation] |= {answer.casefold() for answer in known if answer}
    return answers


Wrong = Iterator[tuple[str, str]]


def _said_before(request: EditRequest, kind: Kind, seen: dict[tuple[str, ...], str]) -> Wrong:
    """Whether a row before this one has its prompt, or (HardEdit) its subject in the same relation."""
    keys = [("prompt", request.filled)]
    keys += [("subject", f"{request.subject} as to {request.relation}")] if kind == "hardedit" else []
    for field, said in keys:
        first = seen.setdefault((field, said.casefold()), _where(request))
        if first != _where(request):
            yield field, f"{SAID_BEFORE} {first} does: {said!r}"
            return


def _for_any(request: EditRequest) -> Wrong:
    if request.target_true is not None and request.target_new.casefold() == request.target_true.casefold():
        yield "target_new", f"is the true target {request.target_true!r}, so there is nothing to edit"
    for name, target in (("new", request.target_new), ("true", request.target_true)):
        if target is not None and holds(request.filled, target):
            yield "prompt", f"gives away the {name} target {target!r}: {request.filled!r}"
    for i, text in enumerate(request.rephrasings):
        if text == request.filled:
            yield "rephrasings", f"holds the prompt itself: {text!r}"
        elif text in request.rephrasings[:i]:
            yield "rephrasings", f"holds {text!r} twice"
        if holds(text, request.target_new):
            yield "rephrasings", f"gives away the new target {request.target_new!r}: {text!r}"
    for i, neighbour in enumerate(request.neighbours):
        if neighbour.prompt == request.filled:
            yield "neighbours", f"holds the prompt itself: {neighbour.prompt!r}"
        elif neighbour in request.neighbours[:i]:
            yield "neighbours", f"holds {neighbour.prompt!r} twice"
    for one in request.portability:
        if holds(one.prompt, one.answer):
            yield "portability", f"gives away its answer {one.answer!r}: {one.prompt!r}"
        if holds(one.hop, one.hop_answer):
            yield "portability", f"gives away what it rests on, {one.hop_answer!r}: {one.hop!r}"


def _for_hardedit(request: EditRequest, answers: Set[str]) -> Wrong:
    if not request.subject_first:
        yield "prompt", f"does not begin with the subject: {request.prompt!r}"
    if len(request.subject.split()) != 1:
        yield "subject", f"is not a single word: {request.subject!r}"
    if not request.relation:
        yield "relation", "is missing, so the type of the targets cannot be told"
    if request.target_true is None:
        yield "target_true", "is missing: what is counterfactual has to contradict a fact"
    if request.relation and request.target_new.casefold() not in answers:
        yield "target_new", f"is of another type than the answers to {request.relation!r}: {request.target_new!r}"
    for field, count in (("rephrasings", len(request.rephrasings)), ("neighbours", len(request.neighbours))):
        if count < FEWEST:
            yield field, f"has {count} entries, expected at least {FEWEST}"
    for text in request.rephrasings:
        if not holds(text, request.subject):
            yield "rephrasings", f"does not name the subject {request.subject!r}: {text!r}"
    for neighbour in request.neighbours:
        if holds(neighbour.prompt, request.subject):
            yield "neighbours", f"names the subject {request.subject!r}: {neighbour.prompt!r}"
        if neighbour.answer != (request.target_true or ""):
            yield "neighbours", f"has another answer than the true target: {neighbour.answer!r} to {neighbour.prompt!r}"
        elif holds(neighbour.prompt, neighbour.answer):
            yield "neighbours", f"gives away its answer {neighbour.answer!r}: {neighbour.prompt!r}"


def holds(text: str, words: str) -> bool:
    """Whether a text holds these words as words: `Rome` is in "Rome's", not in "Romeo"; case does not matter."""
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def _where(request: EditRequest) -> str:
    return request.source or f"request {request.id!r}"


def _holds_requests(path: Path) -> bool:
    """Whether the first row of a file is a request: other files beside them hold texts, or questions."""
    try:
        with path.open(encoding="utf-8") as file:
            row = json.loads(next((line for line in file if line.strip()), "null"))
    except (OSError, ValueError):
        return False
    return isinstance(row, dict) and "target_new" in row
