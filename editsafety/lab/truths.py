"""Truths: which facts the unedited model knows, so that edits may be kept to those."""

from __future__ import annotations

from collections.abc import Sequence

from editsafety.datasets.request import EditRequest
from editsafety.errors import ModelError
from editsafety.lab.asking import as_asked
from editsafety.measures.answers import says
from editsafety.measures.questions import Question, ask, expecting
from editsafety.model.handle import ModelHandle


def gives_true_answers(handle: ModelHandle, requests: Sequence[EditRequest], batch_size: int = 64) -> list[bool]:
    """Whether the greedy continuation of each filled prompt says the true target, by the rule of efficacy.

    False where the model's logits are not finite, and for a request without a true target, or with one that the
    tokenizer cannot write. Raises DataError for a prompt that does not fit into the model's context.
    """
    requests = as_asked(handle, requests)
    questions = [_question(handle, request) for request in requests]
    answers = iter(ask(handle, [one for one in questions if one is not None], batch_size=batch_size))
    found = [None if question is None else next(answers) for question in questions]
    return [
        said is not None and says(said, request.target_true or "", handle.gap(request.filled))
        for said, request in zip(found, requests, strict=True)
    ]


def _question(handle: ModelHandle, request: EditRequest) -> Question | None:
    if request.target_true is None:
        return None
    try:
        return expecting(handle, request.filled, request.target_true, request.source or f"request {request.id!r}")
    except ModelError:  # its tokenizer has no way to write this answer, so the model cannot give it
        return None
