"""Where the subject's last token is in a filled prompt.

Convention B of the published code: the index is the number of ids of the text up to and including the subject, minus
one, special tokens included. It is right with and without a BOS, and counts from the left: rows must be padded on the
right (`ModelHandle.batch` does). The other convention (text and subject tokenised apart) is one off behind a BOS.
"""

from __future__ import annotations

from dataclasses import dataclass

from editsafety.datasets.request import SLOT, EditRequest
from editsafety.errors import DataError, EditorError
from editsafety.model.handle import ModelHandle

BARE = SLOT


@dataclass(frozen=True, slots=True)
class Located:
    """Ids of a filled prompt, special tokens included, and the index of the subject's last token in them."""

    ids: tuple[int, ...]
    subject: int


def locate(handle: ModelHandle, request: EditRequest, context: str = BARE) -> Located:
    """The request's prompt inside a context (a text with one `{}`), its subject filled in and found."""
    return locate_text(handle, request.prompt, request.subject, context)


def locate_text(handle: ModelHandle, prompt: str, subject: str, context: str = BARE) -> Located:
    """Fill `context` with `prompt` and `prompt` with `subject`; find the subject's last token.

    Texts are split at `{}`, never formatted: braces in a subject are text.

    Raises:
        DataError: prompt or context does not hold exactly one `{}`.
        EditorError: the subject has no token of its own (its end is swallowed by a token that starts before it or
            that the text behind it changes).
    """
    before, after = _halves("prompt", prompt)
    left, right = _halves("context", context)
    head = handle.ids(left + before + subject)
    ids = handle.ids(left + before + subject + after + right)
    index = len(head) - 1
    if index < 0 or index >= len(ids) or ids[:index] != head[:index]:
        raise EditorError(
            f"the last token of subject {subject!r} cannot be located in {left + before + subject + after + right!r}: "
            f"the tokenizer of {handle.name} joins it with the text around it. Put a space or punctuation behind it."
        )
    return Located(tuple(ids), index)


def is_first(handle: ModelHandle, located: Located) -> bool:
    """Whether nothing but special tokens (a BOS) stands before the subject's last token."""
    special = set(handle.tokenizer.all_special_ids)
    return all(token in special for token in located.ids[: located.subject])


def _halves(what: str, text: str) -> tuple[str, str]:
    parts = text.split(SLOT)
    if len(parts) != 2:
        raise DataError(f"{what} {text!r} must hold exactly one {{}}, found {len(parts) - 1}.")
    return parts[0], parts[1]
