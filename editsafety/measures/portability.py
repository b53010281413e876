"""Portability: does what follows from the new fact change along with it?

A fact that was written is worth little where only its own sentence knows it: not under another name of the subject
(alias), not read backwards (inverse), not as a step on the way to another fact (one hop). Whether an edit fails at that
can be told only where the rest of the way is known. So a question counts where the unedited model has what it rests on,
as in RippleEdits (arXiv 2307.12976), and how many those are is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from editsafety.datasets.request import Consequence, EditRequest
from editsafety.measures import Inputs
from editsafety.measures.answers import grade, with_gaps
from editsafety.measures.questions import Question, ask, expecting
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

KINDS = ("alias", "inverse", "one_hop")
NAMES = ("portability", "portability_alias", "portability_inverse", "portability_one_hop", "portability_known")
ALL = "no request says what follows from its fact"


class Portability:
    """Per consequence of a request, then the mean over all that count:

    - `portability`: 1 when the edited model gives the consequence's answer (the exact match of `efficacy`); for each of
      three kinds alone `portability_alias`, `portability_inverse`, `portability_one_hop`
    - `portability_known`: 1 when the *unedited* model has what a consequence rests on: its `hop`; of an alias without
      one the old answer under that name. Of others without one it is not known, so they do not count.

    `n` is how many count. None of the first four applies where none does, or before the fact is written.
    """

    name: ClassVar[str] = "portability"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = (
        "portability", "portability_alias", "portability_inverse", "portability_one_hop", "portability_known",
    )  # fmt: skip

    def questions(self, handle: ModelHandle, inputs: Inputs) -> tuple[Question, ...]:
        """Of the unedited model what the consequences rest on, of the edited one the consequences that count."""
        return tuple(one for one in self._asked(handle, inputs) if one is not None)

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The five figures."""
        following = _following(inputs.requests)
        earlier = inputs.before.get("portability_known")
        if not following or (earlier is None and inputs.edit is not None):
            reason = "the unedited model was not asked" if following else ALL
            return tuple(Measurement.missing(name, self.version, "rate", reason) for name in NAMES)
        asked = self._asked(handle, inputs)
        left = iter(ask(handle, [one for one in asked if one is not None], batch_size=inputs.batch_size))
        said = [None if one is None else (next(left), one) for one in asked]
        marks = [None if one is None else grade(one[0], one[1].target, handle.gap(one[1].prompt)) for one in said]
        answers = [one[0] for one in said if one is not None]
        if earlier is None:
            reason = f"none of {len(following)} consequences says what it rests on"
            known = with_gaps("portability_known", "rate", marks, reason, answers=answers)
            early = [
                Measurement.inapplicable(name, self.version, "rate", "nothing is written yet") for name in NAMES[:-1]
            ]
            return (*early, known)
        if any(mark is not None and math.isnan(mark) for mark in marks):
            earlier = replace(earlier, value=None, reason="some answers are not finite", broken=True, stderr=None)
        kinds = [one.consequence.kind for one in following]
        return (
            self._over("portability", marks, answers=answers),
            *(self._over(f"portability_{kind}", _of_kind(marks, kinds, kind)) for kind in KINDS),
            replace(earlier, answers=()),
        )

    def _asked(self, handle: ModelHandle, inputs: Inputs) -> list[Question | None]:
        """What is asked about each consequence, if anything."""
        following = _following(inputs.requests)
        earlier = inputs.before.get("portability_known")
        if earlier is None and inputs.edit is None:
            return [None if one.hop is None else expecting(handle, *one.hop, one.where) for one in following]
        known = () if earlier is None else earlier.items
        if len(known) != len(following):
            return [None for _ in following]
        return [
            expecting(handle, one.consequence.prompt, one.consequence.answer, one.where) if was == 1.0 else None
            for one, was in zip(following, known, strict=True)
        ]

    def _over(self, name: str, marks: Sequence[float | None], answers: Sequence[str | None] = ()) -> Measurement:
        counted = sum(mark is not None for mark in marks)
        if not counted:
            reason = f"of {len(marks)} consequences none rests on what the unedited model knows"
            return Measurement.inapplicable(name, self.version, "rate", reason)
        return with_gaps(name, "rate", marks, ALL, answers=answers)


@dataclass(frozen=True, slots=True)
class _Following:
    """A consequence of a request."""

    consequence: Consequence
    # What it rests on, a prompt and its answer; None where the data does not say.
    hop: tuple[str, str] | None
    # Names it in errors.
    where: str


def _following(requests: Sequence[EditRequest]) -> list[_Following]:
    return [
        _Following(one, _hop(request, one), f"request {request.id!r}, consequence {number}")
        for request in requests
        for number, one in enumerate(request.portability, 1)
    ]


def _hop(request: EditRequest, consequence: Consequence) -> tuple[str, str] | None:
    if consequence.hop:
        return consequence.hop, consequence.hop_answer
    old = (request.target_true or "").strip()
    return (consequence.prompt, old) if consequence.kind == "alias" and old else None


def _of_kind(marks: Sequence[float | None], kinds: Sequence[str], kind: str) -> list[float | None]:
    return [mark for mark, one in zip(marks, kinds, strict=True) if one == kind]


MEASURE = Portability()
