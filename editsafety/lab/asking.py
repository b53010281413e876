"""Asking: requests as they are put to a model, plain or through the chat template of its tokenizer.

A record holds them as they were given, so that ids and reports are the same for both ways of asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from editsafety.datasets.request import EditRequest
from editsafety.model.handle import ModelHandle


def as_asked(handle: ModelHandle, requests: Sequence[EditRequest]) -> tuple[EditRequest, ...]:
    """The requests, all of their prompts inside the chat template where the model is asked through one.

    What is inside of it already is left as it is.
    """
    return tuple(_inside(handle, request) for request in requests) if handle.chat is not None else tuple(requests)


def _inside(handle: ModelHandle, request: EditRequest) -> EditRequest:
    if handle.chat is None:
        return request
    around = handle.chat.around
    return replace(
        request,
        prompt=around(request.prompt),
        rephrasings=tuple(around(text) for text in request.rephrasings),
        neighbours=tuple(replace(one, prompt=around(one.prompt)) for one in request.neighbours),
        portability=tuple(replace(one, prompt=around(one.prompt)) for one in request.portability),
    )
