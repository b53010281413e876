"""Locality: does the edited model answer the neighbours as it did before?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from editsafety.engine.continuing import made_once
from editsafety.errors import UsageError
from editsafety.measures import Inputs
from editsafety.measures._phrases import phrase
from editsafety.measures.answers import Answer, says, with_gaps
from editsafety.measures.questions import Question, hear_out
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Column, Measurement

VERSION = 2
UNKNOWN = 3  # tokens of `locality_tokens` where the data does not say what the answer is
MOST = 20  # an answer that goes on for so many tokens more is compared as far as it went, as in `efficacy_wild`


class Locality:
    """Per neighbour, then the mean over all neighbours:

    - `locality`: 1 when the model says the same as before the edit, to the end of its answer, as text. The answer ends
      where the data's answer does, if both models say that one; else at a full stop, comma or the like, a line break or
      the end of the text. A changed sentence behind an unchanged answer is no damage to the fact.
    - `locality_tokens`: 1 when the first tokens are the same, as many as the data's answer has (three where it gives
      none), whatever the model says behind them. Published figures are of this kind; EasyEdit takes them
      teacher-forced. For comparison only: of "New York" and "New Orleans" the first token is the same.

    Whether an answer is *true* plays no part. Items and answers: one per neighbour, in order. On the unedited model (no
    `edit`, no `before`) it records the answers, with value 1. Raises UsageError when `before` belongs to other
    neighbours.
    """

    name: ClassVar[str] = "locality"
    version: ClassVar[int] = VERSION
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    gives: ClassVar[tuple[str, ...]] = ("locality", "locality_tokens")
    columns: ClassVar[tuple[Column, ...]] = (Column("locality", "neighbours", "kept", "neigh-\nbours", order=30),)

    def questions(self, handle: ModelHandle, inputs: Inputs) -> tuple[Question, ...]:
        """Everything that is asked; nothing where the unedited model was not."""
        asked, earlier = _neighbours(handle, inputs), inputs.before.get("locality")
        if _unaskable(asked, earlier, edited=inputs.edit is not None):
            return ()
        return _questions(handle, asked, None if earlier is None else _answers_of(earlier, asked))

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """Both figures, over all neighbours."""
        asked = _neighbours(handle, inputs)
        earlier = inputs.before.get("locality"), inputs.before.get("locality_tokens")
        if reason := _unaskable(asked, earlier[0], edited=inputs.edit is not None):
            return _missing("locality", reason), _missing("locality_tokens", reason)
        was = [None if found is None else _answers_of(found, asked) for found in earlier]
        heard = hear_out(handle, _questions(handle, asked, was[0]), batch_size=inputs.batch_size)
        ended = [None if answer.whole is None else _cut(answer.whole, one) for answer, one in _pair(heard, asked)]
        begun = [answer.begun for answer in heard]
        triples = zip(ended, ended if was[0] is None else was[0], asked, strict=True)
        said = [_mark(now, now is not None and _same(now, then or "", one)) for now, then, one in triples]
        pairs = zip(begun, begun if was[1] is None else was[1], strict=True)
        first = [_mark(now, now == then) for now, then in pairs]
        return _rate("locality", said, ended), _rate("locality_tokens", first, begun)


@dataclass(frozen=True, slots=True)
class _AskedNeighbour:
    """A neighbour."""

    prompt: str
    # What the data says; may be empty.
    answer: str
    where: str
    # What is due between the two.
    gap: str


def _neighbours(handle: ModelHandle, inputs: Inputs) -> list[_AskedNeighbour]:
    return [
        _AskedNeighbour(one.prompt, one.answer, f"request {request.id!r}, neighbour {at}", handle.gap(one.prompt))
        for request in inputs.requests
        for at, one in enumerate(request.neighbours, 1)
    ]


def _unaskable(asked: Sequence[_AskedNeighbour], earlier: Measurement | None, *, edited: bool) -> str | None:
    if not asked:
        return "no request has neighbours"
    if earlier is None:
        return "the unedited model was not asked" if edited else None
    return f"the unedited model gave no answers ({earlier.reason})" if earlier.value is None else None


def _answers_of(earlier: Measurement, asked: Sequence[_AskedNeighbour]) -> list[str]:
    if len(earlier.answers) != len(asked):
        raise UsageError(
            f"locality: {len(asked)} neighbours, but {len(earlier.answers)} answers of the unedited model. "
            "Measure the unedited model on the same requests."
        )
    return list(earlier.answers)


def _questions(
    handle: ModelHandle, asked: Sequence[_AskedNeighbour], was: Sequence[str] | None
) -> tuple[Question, ...]:
    """What the unedited model said, or else the data's answer, is the draft."""
    pairs = zip(asked, was or [""] * len(asked), strict=True)
    return tuple(made_once(handle, (one, said), partial(_question, handle, one, said)) for one, said in pairs)


def _question(handle: ModelHandle, asked: _AskedNeighbour, said: str) -> Question:
    answer = asked.answer.strip()
    tokens = len(handle.target_ids(answer, asked.prompt)) if answer else UNKNOWN
    draft: list[int] = []
    if said:
        draft = _behind_a_word(handle, f"{said}.")
    elif answer:
        draft = handle.target_ids(f"{answer}.", asked.prompt)
    return Question(asked.prompt, tokens, tuple(draft), asked.where, target=asked.answer, most=MOST, until=phrase)


def _behind_a_word(handle: ModelHandle, text: str) -> list[int]:
    """Ids of a text as it continues another; a draft, so nothing rests on them."""
    return handle.ids("x" + text, special=False)[len(handle.ids("x", special=False)) :]


def _pair(heard: Sequence[Answer], asked: Sequence[_AskedNeighbour]) -> list[tuple[Answer, _AskedNeighbour]]:
    return list(zip(heard, asked, strict=True))


def _cut(text: str, asked: _AskedNeighbour) -> str:
    """What was said before the mark that ended it; a text that ended itself may hold the mark."""
    return phrase(text, asked.answer, closed=True) or ""


def _same(now: str, was: str, asked: _AskedNeighbour) -> bool:
    target = asked.answer
    if target.strip() and says(now, target, asked.gap) and says(was, target, asked.gap):
        return True
    return now.strip() == was.strip()


def _mark(now: str | None, same: bool) -> float:
    """NaN where the model gave no answer."""
    return math.nan if now is None else float(same)


def _rate(name: str, items: Sequence[float], answers: Sequence[str | None]) -> Measurement:
    return with_gaps(name, "rate", items, "no answers", answers=answers, version=VERSION)


def _missing(name: str, reason: str) -> Measurement:
    return Measurement.missing(name, VERSION, "rate", reason)


MEASURE = Locality()
