"""Locality: does the edited model answer the neighbours as it did before?"""

from __future__ import annotations

from typing import ClassVar, Literal

from editsafety.errors import UsageError
from editsafety.measures import Inputs
from editsafety.measures.answers import Question, ask, with_gaps
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Column, Measurement

UNKNOWN = 3  # tokens compared where the data does not say what the answer is


class Locality:
    """Share of neighbour prompts whose greedy answer is, as text, the same as before the edit.

    As many tokens are compared as the neighbour's own answer has (three where the data gives none): a changed sentence
    behind an unchanged answer is no damage to the fact. Whether the answer is *true* plays no part. EasyEdit compares
    the same positions, but teacher-forced.

    Items and answers: one per neighbour, in order. On the unedited model (no `edit`, no `before`) it records the
    answers, with value 1. Raises UsageError when `before` belongs to other neighbours.
    """

    name: ClassVar[str] = "locality"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    columns: ClassVar[tuple[Column, ...]] = (Column("locality", "neighbours", "kept", "neigh-\nbours", order=30),)

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """One figure, over all neighbours."""
        asked = [
            _question(handle, neighbour.prompt, neighbour.answer, f"request {request.id!r}, neighbour {number}")
            for request in inputs.requests
            for number, neighbour in enumerate(request.neighbours, 1)
        ]
        if not asked:
            return (Measurement.missing(self.name, self.version, "rate", "no request has neighbours"),)
        earlier = inputs.before.get(self.name)
        if earlier is None and inputs.edit is not None:
            return (Measurement.missing(self.name, self.version, "rate", "the unedited model was not asked"),)
        if earlier is not None and earlier.value is None:
            reason = f"the unedited model gave no answers ({earlier.reason})"
            return (Measurement.missing(self.name, self.version, "rate", reason),)
        if earlier is not None and len(earlier.answers) != len(asked):
            raise UsageError(
                f"locality: {len(asked)} neighbours, but {len(earlier.answers)} answers of the unedited model. "
                "Measure the unedited model on the same requests."
            )
        answers = ask(handle, asked, batch_size=inputs.batch_size)
        known: list[str | None] = list(earlier.answers) if earlier is not None else answers
        items = [float("nan") if now is None else float(now == was) for now, was in zip(answers, known, strict=True)]
        return (with_gaps(self.name, "rate", items, "no answers", answers=answers),)


def _question(handle: ModelHandle, prompt: str, answer: str, where: str) -> Question:
    ids = handle.target_ids(answer, prompt) if answer.strip() else []
    return Question(prompt, len(ids) or UNKNOWN, tuple(ids), where)


MEASURE = Locality()
