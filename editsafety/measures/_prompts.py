"""Prompts that have nothing to do with any edit: what an edited model must answer as it did."""

from __future__ import annotations

from editsafety import datasets
from editsafety.model.handle import ModelHandle

ENGLISH, POCKET = "english/prompts", "pocket-world/prompts"


def neutral_prompts(handle: ModelHandle) -> tuple[str, ...]:
    """The shipped prompts in the language of the model, as it is asked: inside its chat template if the run says so.

    A pocket model knows its own world only, every other one is taken to read English.
    """
    texts = datasets.texts(POCKET if is_pocket(handle) else ENGLISH)
    chat = getattr(handle, "chat", None)
    return texts if chat is None else tuple(chat.around(text) for text in texts)


def is_pocket(handle: ModelHandle) -> bool:
    """Whether a model lives in the pocket world."""
    return handle.spec.name.startswith("pocket-")
