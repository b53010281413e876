"""Spelling: what a tokenizer makes of a text, asked once for all edits of a model.

Every edit of a request asks the same things: where its subject is in some twenty texts (twice, for its keys and for
v*), what its prompts and targets are as tokens. Which weights the model has does not matter for that. It is remembered
inside of sessions only, where somebody sees to it that the tokenizer comes back as it was; one that was replaced, or
has more or fewer words than then, is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from editsafety.model.handle import ModelHandle

MOST = 20_000  # texts; a tenth of a kilobyte each, and when there are more, all are forgotten

Value = TypeVar("Value")


@dataclass(slots=True, eq=False)
class _Spellings:
    """What one tokenizer made of texts, while it had so many words."""

    tokenizer: Any
    words: int
    known: dict[Hashable, Any] = field(default_factory=dict)


def spelled_once(handle: ModelHandle, text: Hashable, make: Callable[[], Value]) -> Value:
    """What `make` gives, which must follow from the tokenizer and from `text` alone, and must not be written into."""
    engine, tokenizer = handle.engine, handle.tokenizer
    if engine.plain or engine.touched is None:
        return make()
    words = len(tokenizer)
    spellings = engine.kept.get(_Spellings)
    if spellings is None or spellings.tokenizer is not tokenizer or spellings.words != words:
        spellings = engine.kept[_Spellings] = _Spellings(tokenizer, words)
    if text not in spellings.known:
        if len(spellings.known) >= MOST:
            spellings.known.clear()
        spellings.known[text] = make()
    value: Value = spellings.known[text]
    return value
