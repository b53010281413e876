"""Free answers: what a model says greedily behind a prompt, until it stops by itself, ends a line or runs out of room.

The prompt and the answer so far go through the model anew for every token: with a sidecar on it, or windows of
attention, a cache of keys would not be what the model does. What makes up for it: the expected answer is put behind
the prompt and read off in one pass as far as the model would have said just that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from editsafety.abilities import Item, Scores
from editsafety.abilities._prompts import fit_prompt
from editsafety.model.generation import end_ids, has_hooks
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import by_length

Grade = Callable[[Item, str], Mapping[str, float]]
SPARE = 6  # tokens behind the longest answer: what shows that the answer ended there


@dataclass(slots=True)
class _Reply:
    """An answer on its way."""

    # Ids of the prompt.
    prompt: list[int]
    # The prompt as text.
    head: str
    # Ids of a probable answer.
    draft: list[int]
    # How many tokens it may have.
    budget: int
    # Where it ends.
    until: tuple[str, ...]
    # Its ids so far; None once the logits were not finite.
    said: list[int] | None = field(default_factory=list)
    # Whether it has ended.
    done: bool = False

    @property
    def guess(self) -> list[int]:
        """What of the draft is still to come: nothing once the answer has left it."""
        said = self.said or []
        return self.draft[len(said) : self.budget - 1] if self.draft[: len(said)] == said else []


def score(handle: ModelHandle, items: Sequence[Item], batch_size: int, grade: Grade) -> Scores:
    """Ask every item and grade what was said: `grade` gives the score as "" and further figures by name."""
    said = answers(handle, items, batch_size)
    graded = [None if text is None else grade(item, text) for item, text in zip(items, said, strict=True)]
    keys = list(next((row for row in graded if row is not None), {"": 0.0}))
    columns = {key: [math.nan if row is None else row[key] for row in graded] for key in keys}
    return Scores(columns.pop(""), [text or "" for text in said], columns)


@torch.no_grad()
def answers(handle: ModelHandle, items: Sequence[Item], batch_size: int = 64) -> list[str | None]:
    """What the model says to each item, without what comes behind its `until`; None where logits are not finite."""
    rows = [_prepare(handle, item) for item in items]
    stops = end_ids(handle)
    while waiting := {
        i: len(row.prompt) + len(row.said or ()) + len(row.guess) for i, row in enumerate(rows) if not row.done
    }:
        for chosen in by_length(waiting, batch_size):
            batch = [rows[i] for i in chosen]
            guesses = [row.guess for row in batch]
            fed = [[*row.prompt, *(row.said or ()), *guess] for row, guess in zip(batch, guesses, strict=True)]
            peaks, best = handle.logits(handle.batch(fed)).max(-1)  # NaN and +inf show in the maximum
            finite, tokens = torch.isfinite(peaks).tolist(), best.tolist()
            for k, (row, guess) in enumerate(zip(batch, guesses, strict=True)):
                first = len(fed[k]) - len(guess) - 1
                _accept(row, guess, tokens[k][first:], finite[k][first:], stops)
                row.done = row.done or _has_ended(_behind(handle, row), row.until)
    return [None if row.said is None else _cut(_behind(handle, row), row.until) for row in rows]


def _prepare(handle: ModelHandle, item: Item) -> _Reply:
    targets = [handle.target_ids(answer, item.prompt) for answer in _drafts(item)]
    longest = max(map(len, targets), default=0)
    budget = max(item.tokens, longest + SPARE)
    prompt = fit_prompt(handle, item.prompt, budget, item)
    draft = [] if has_hooks(handle.model) or not targets else targets[0]
    return _Reply(prompt, handle.text(prompt), draft, budget, item.until)


def _drafts(item: Item) -> tuple[str, ...]:
    """Texts that the answer may well be; only their lengths and the first one matter, and that only for speed."""
    return (", ".join(item.answers), *item.answers) if len(item.answers) > 1 else item.answers


def _accept(row: _Reply, guess: list[int], best: Sequence[int], finite: Sequence[bool], stops: frozenset[int]) -> None:
    """Append the greedy tokens that a pass has settled."""
    said = row.said if row.said is not None else []
    for place in range(len(guess) + 1):
        if not finite[place]:
            row.said, row.done = None, True
            return
        if best[place] in stops:
            row.done = True
            return
        said.append(best[place])
        if len(said) >= row.budget:
            row.done = True
            return
        if place < len(guess) and best[place] != guess[place]:
            return


def _behind(handle: ModelHandle, row: _Reply) -> str:
    """The text behind the prompt. Decoded together with it: alone, SentencePiece would lose the space in between."""
    whole = handle.text([*row.prompt, *(row.said or ())])
    return whole[len(row.head) :] if whole.startswith(row.head) else handle.text(row.said or ())


def _has_ended(text: str, until: Sequence[str]) -> bool:
    return any(stop in text.lstrip() for stop in until)


def _cut(text: str, until: Sequence[str]) -> str:
    """Up to the first stop behind a visible character; an empty first line is not the answer yet."""
    text = text.lstrip()
    for stop in until:
        text = text.partition(stop)[0] or text
    return text.rstrip()
