"""What the scorers share about prompts: a prompt that does not fit is cut on its left."""

from __future__ import annotations

from editsafety.abilities import Item
from editsafety.errors import DataError
from editsafety.model.handle import ModelHandle


def fit_prompt(handle: ModelHandle, prompt: str, room: int, item: Item) -> list[int]:
    """Ids of the prompt such that `room` more tokens fit into the model's context.

    As in lm-evaluation-harness the end of a prompt that is too long is kept, where the question stands; so are the
    special tokens that the tokenizer puts before a text. Raises DataError when there is no place for any prompt.
    """
    ids = handle.ids(prompt)
    if not ids:
        raise DataError(f"{item.source or item.id}: the tokenizer of {handle.name} makes no token of the prompt.")
    keep = handle.context - room
    if len(ids) <= keep:
        return ids
    head = handle.ids("")
    head = head if ids[: len(head)] == head else []
    if keep <= len(head):
        raise DataError(f"{item.source or item.id}: an answer of {room} tokens; {handle.name} takes {handle.context}.")
    return [*head, *ids[len(ids) - (keep - len(head)) :]]
