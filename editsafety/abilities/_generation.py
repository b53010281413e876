"""Free answers: what a model says greedily behind a prompt, until it stops by itself, ends a line or runs out of room.

The expected answer is put behind the prompt and read off in one pass as far as the model would have said just that
(`engine/continuing`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from editsafety.abilities import Item, Scores
from editsafety.abilities._prompts import fit_prompt
from editsafety.engine.continuing import Continuation, Wish, continue_greedily
from editsafety.model.generation import end_ids
from editsafety.model.handle import ModelHandle

Grade = Callable[[Item, str], Mapping[str, float]]
SPARE = 6  # tokens behind the longest answer: what shows that the answer ended there


@dataclass(frozen=True)
class _Awaited:
    """An answer that is waited for."""

    handle: ModelHandle
    # Ids of the prompt.
    prompt: tuple[int, ...]
    # Ids of a probable answer.
    draft: tuple[int, ...]
    # How many tokens it may have.
    budget: int
    # Where it ends.
    until: tuple[str, ...]
    # The tokens that end a text.
    ends: frozenset[int]

    def wants(self, said: Sequence[int]) -> int:
        """All of the budget until it has ended."""
        ended = len(self._spoken(said)) < len(said) or _has_ended(self._behind(said), self.until)
        return 0 if ended else self.budget

    def text(self, continuation: Continuation) -> str | None:
        """What was said, without what comes behind `until`; None where the model broke before that."""
        if continuation.broken and self.wants(continuation.said) > len(continuation.said):
            return None
        return _cut(self._behind(continuation.said), self.until)

    def _behind(self, said: Sequence[int]) -> str:
        """The text behind the prompt. Decoded together with it: alone, SentencePiece would lose the space between."""
        head, spoken = self._head, self._spoken(said)
        whole = self.handle.text([*self.prompt, *spoken])
        return whole[len(head) :] if whole.startswith(head) else self.handle.text(spoken)

    def _spoken(self, said: Sequence[int]) -> Sequence[int]:
        return said[: next((at for at, token in enumerate(said) if token in self.ends), self.budget)]

    @cached_property
    def _head(self) -> str:
        return self.handle.text(self.prompt)


def score(handle: ModelHandle, items: Sequence[Item], batch_size: int, grade: Grade) -> Scores:
    """Ask every item and grade what was said: `grade` gives the score as "" and further figures by name."""
    said = answers(handle, items, batch_size)
    graded = [None if text is None else grade(item, text) for item, text in zip(items, said, strict=True)]
    keys = list(next((row for row in graded if row is not None), {"": 0.0}))
    columns = {key: [math.nan if row is None else row[key] for row in graded] for key in keys}
    return Scores(columns.pop(""), [text or "" for text in said], columns)


def answers(handle: ModelHandle, items: Sequence[Item], batch_size: int = 64) -> list[str | None]:
    """What the model says to each item, without what comes behind its `until`; None where logits are not finite."""
    ends = end_ids(handle)
    awaited = [_await(handle, item, ends) for item in items]
    wishes = [Wish(one.prompt, one.wants, one.draft) for one in awaited]
    said = continue_greedily(handle, wishes, batch_size=batch_size)
    return [one.text(continuation) for one, continuation in zip(awaited, said, strict=True)]


def _await(handle: ModelHandle, item: Item, ends: frozenset[int]) -> _Awaited:
    targets = [handle.target_ids(answer, item.prompt) for answer in _drafts(item)]
    longest = max(map(len, targets), default=0)
    budget = max(item.tokens, longest + SPARE)
    prompt = fit_prompt(handle, item.prompt, budget, item)
    return _Awaited(handle, tuple(prompt), tuple(targets[0] if targets else ()), budget, item.until, ends)


def _drafts(item: Item) -> tuple[str, ...]:
    """Texts that the answer may well be; only their lengths and the first one matter, and that only for speed."""
    return (", ".join(item.answers), *item.answers) if len(item.answers) > 1 else item.answers


def _has_ended(text: str, until: Sequence[str]) -> bool:
    return any(stop in text.lstrip() for stop in until)


def _cut(text: str, until: Sequence[str]) -> str:
    """Up to the first stop behind a visible character; an empty first line is not the answer yet."""
    text = text.lstrip()
    for stop in until:
        text = text.partition(stop)[0] or text
    return text.rstrip()
