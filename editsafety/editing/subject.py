"""Where the subject's last token is in a filled prompt.

The tokenizer says which characters each token stands for, and the last token that stands for the subject's last
character is the one. Nothing is counted from another text, so it is right with and without a BOS, behind chat templates
and under normalisers that change lengths; what stands elsewhere, or shares its token with another word, is refused and
never guessed. The index counts from the left: rows must be padded on the right (`ModelHandle.batch` does).

A tokenizer that does not tell its characters is asked for the text up to the subject as well: the ids of both must
agree up to the index (convention B of the published code). The other convention there (text and subject tokenised
apart) is one off behind a BOS.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from editsafety.datasets.request import SLOT, EditRequest
from editsafety.engine.spelling import spelled_once
from editsafety.errors import DataError, EditorError
from editsafety.model.handle import ModelHandle
from editsafety.model.tokens import Spelled

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
    head = handle.write_before(left, before)
    text = head + subject + after + right
    spelled = spelled_once(handle, ("spelled out", text), lambda: handle.spell_out(text))
    index = _by_characters(text, spelled, len(head), len(head) + len(subject))
    if index is None:
        index = _by_prefix(spelled.ids, handle.ids(head + subject))
    if index < 0:
        raise EditorError(
            f"the last token of subject {subject!r} cannot be located in {text!r}: the tokenizer of {handle.name} "
            "joins it with the text around it. Put a space or punctuation behind it."
        )
    return Located(spelled.ids, index)


def is_first(handle: ModelHandle, located: Located) -> bool:
    """Whether nothing but special tokens (a BOS) stands before the subject's last token."""
    special = set(handle.tokenizer.all_special_ids)
    return all(token in special for token in located.ids[: located.subject])


def _by_characters(text: str, spelled: Spelled, start: int, end: int) -> int | None:
    """Index of the last token of the characters `start` to `end`; -1 where it is another word's as well.

    None where no token stands for them: then the tokenizer's word on characters is worth nothing.
    """
    spans = spelled.spans or ()
    holding = [at for at, (first, behind) in enumerate(spans) if first < end <= behind]
    if not holding:
        return None
    first, behind = spans[holding[-1]]
    shared = text[first:start] + text[end:behind]
    return -1 if any(unicodedata.category(character)[0] in "LMN" for character in shared) else holding[-1]


def _by_prefix(ids: Sequence[int], head: Sequence[int]) -> int:
    """Index of the last of the ids of the text up to the subject; -1 where the whole text does not begin with them."""
    return len(head) - 1 if list(ids[: len(head)]) == list(head) else -1


def _halves(what: str, text: str) -> tuple[str, str]:
    parts = text.split(SLOT)
    if len(parts) != 2:
        raise DataError(f"{what} {text!r} must hold exactly one {{}}, found {len(parts) - 1}.")
    return parts[0], parts[1]
