"""Format: does the edited model still write JSON where it is asked to, and did before?

Twenty-four prompts with a worked example each, so that a model need not have been trained on instructions. An answer
counts when it begins with a whole JSON object or list, whatever it says: form is lost separately from content, and a
program that reads answers breaks on it first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from editsafety import datasets
from editsafety.measures import Inputs
from editsafety.measures._json_answers import opens_with_json
from editsafety.measures._prompts import is_pocket
from editsafety.measures.answers import with_gaps
from editsafety.measures.questions import Question, hear_out
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement

SOURCE = "english/json"
TOKENS = 60  # the longest of the expected answers has 40 for SmolLM2's tokenizer
UNITS = {"format": "rate", "format_kept": "rate"}


@dataclass(frozen=True, slots=True)
class _JsonPrompts:
    """What the unedited model makes of the prompts."""

    prompts: tuple[str, ...]
    # Whether each is answered by JSON.
    valid: tuple[bool, ...]


class JsonFormat:
    """Per prompt, then the mean over prompts:

    - `format`: 1 for an answer that is JSON; answers: the texts
    - `format_kept`: the same over those prompts alone that the unedited model answered by JSON

    Neither applies to a model that answers no prompt by JSON before any edit; the pocket world knows none, so pocket
    models are not asked.
    """

    name: ClassVar[str] = "format"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "model"
    default: ClassVar[bool] = False
    gives: ClassVar[tuple[str, ...]] = ("format", "format_kept")

    def refer(self, handle: ModelHandle, inputs: Inputs) -> object:
        """Which of the prompts are answered by JSON."""
        if is_pocket(handle):
            return _JsonPrompts((), ())
        chat = getattr(handle, "chat", None)
        prompts = tuple(text if chat is None else chat.around(text) for text in datasets.texts(SOURCE))
        return _JsonPrompts(prompts, tuple(opens_with_json(text or "") for text in _answers(handle, prompts, inputs)))

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """Both figures."""
        before = inputs.references.get(self.name)
        if not isinstance(before, _JsonPrompts):
            reason = "the unedited model was not asked"
            return tuple(Measurement.missing(name, self.version, unit, reason) for name, unit in UNITS.items())
        if not any(before.valid):
            reason = "the unedited model answers nothing by JSON" if before.prompts else "the pocket world has no JSON"
            found = (Measurement.inapplicable(name, self.version, unit, reason) for name, unit in UNITS.items())
            return tuple(replace(one, n=len(before.prompts)) for one in found)
        texts = _answers(handle, before.prompts, inputs)
        marks = [math.nan if text is None else float(opens_with_json(text)) for text in texts]
        kept = [mark if was else None for mark, was in zip(marks, before.valid, strict=True)]
        return (
            with_gaps("format", "rate", marks, "no prompts", answers=texts),
            replace(with_gaps("format_kept", "rate", kept, "no prompts"), n=sum(before.valid)),
        )


def _answers(handle: ModelHandle, prompts: Sequence[str], inputs: Inputs) -> list[str | None]:
    """What is said to each prompt until it is JSON, or sixty tokens long; None where the logits are not finite."""
    asked = [
        Question(text, 1, where=f"{SOURCE}, prompt {number}", most=TOKENS, until=_until_whole)
        for number, text in enumerate(prompts, 1)
    ]
    return [answer.whole for answer in hear_out(handle, asked, batch_size=inputs.batch_size)]


def _until_whole(text: str, target: str) -> str | None:
    """The answer as soon as it holds a whole value; it is heard on as long as it does not."""
    return text if opens_with_json(text) else None


MEASURE = JsonFormat()
