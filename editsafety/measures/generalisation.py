"""Generalisation: does the edited model say the new target when asked in other words?"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from editsafety.measures import Inputs
from editsafety.measures.answers import grade, with_gaps
from editsafety.measures.questions import Question, ask, expecting, old_answer
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Column, Measurement


class Generalisation:
    """The exact match of `efficacy` on rephrasings: mean over a request's rephrasings, then over requests.

    Items: one per request (`None` without rephrasings); answers: one per rephrasing, in order. CounterFact's paraphrase
    score compares two probabilities instead and comes out higher.
    """

    name: ClassVar[str] = "generalisation"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    gives: ClassVar[tuple[str, ...]] = ("generalisation",)
    columns: ClassVar[tuple[Column, ...]] = (Column("generalisation", "rephrased", "success", "re-\nphr.", order=22),)

    def questions(self, handle: ModelHandle, inputs: Inputs) -> tuple[Question, ...]:
        """Everything that is asked."""
        return tuple(
            expecting(
                handle,
                text,
                request.target_new,
                f"request {request.id!r}, rephrasing {number}",
                guess=old_answer(request, inputs),
            )
            for request in inputs.requests
            for number, text in enumerate(request.rephrasings, 1)
        )

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """One figure, over all rephrasings."""
        answers = ask(handle, self.questions(handle, inputs), batch_size=inputs.batch_size)
        left = iter(answers)
        items: list[float | None] = []
        for request in inputs.requests:
            marks = [grade(next(left), request.target_new, handle.gap(text)) for text in request.rephrasings]
            items.append(math.fsum(marks) / len(marks) if marks else None)
        return (with_gaps(self.name, "rate", items, "no request has rephrasings", answers=answers),)


MEASURE = Generalisation()
