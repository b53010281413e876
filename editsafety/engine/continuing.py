"""Continuing: what a model says greedily behind prompts, many of them together.

A model is run once over every prompt with a draft behind it. As far as the draft agrees with the most probable tokens
it *is* the greedy continuation, and the pass also gives the token behind it: exactly, because a causal model does not
see ahead. What is to go on then goes on token by token, all rows in one batch, with keys and values kept.

Plainly, the whole text is run for every token; so it is wherever keys and values are of no use (`cannot_keep`). What
runs beside a model may look at the whole input, so nothing is drafted then. The tokens are the same in any case: where
two are equally probable but for rounding, which depends on what else is in a batch and on what was kept, the text
decides, run by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from editsafety.engine.reading import FedRow, KeptRows, Unfinished, cannot_keep, deal, run_rows
from editsafety.model.generation import has_hooks
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import TOKENS_PER_ROW, log_likelihoods

Value = TypeVar("Value")
Ids = tuple[int, ...]
# How many tokens are wanted in all, given those that were said so far.
Wants = Callable[[Sequence[int]], int]
# Logits that are nearer to each other than this share of them (than this much, where they are below 1) may come out in
# either order, as the batch will have it; measured: 1.3e-5 of 20. Types of 16 bits are coarser than that themselves:
# with them the batch may tip the balance.
CLOSE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A prompt that is to be continued as far as somebody wants it; the draft saves passes and changes nothing."""

    prompt: Ids
    wants: Wants
    draft: Ids = ()


@dataclass(frozen=True, slots=True)
class TargetIds:
    """Tokens behind a prompt whose probabilities are wanted, each behind the *right* tokens before it."""

    prompt: Ids
    ids: Ids


@dataclass(frozen=True, slots=True)
class Forced:
    """A target behind its prompt, teacher-forced: mean nats per token, share of tokens that are the most probable."""

    nll: float
    hits: float


@dataclass(eq=False)
class Continuation:
    """What a model says behind a prompt, as far as that is known."""

    prompt: Ids
    said: list[int] = field(default_factory=list)
    # The logits behind that are not finite: there is no next token.
    broken: bool = False

    @property
    def text(self) -> Ids:
        """Prompt and answer."""
        return (*self.prompt, *self.said)


@dataclass(frozen=True, eq=False)
class Heard:
    """What a model has said by now, since it was last changed."""

    # `engine.changes` then.
    changes: int
    continuations: dict[Ids, Continuation] = field(default_factory=dict)
    forced: dict[TargetIds, Forced] = field(default_factory=dict)
    made: dict[Hashable, Any] = field(default_factory=dict)


def continue_greedily(handle: ModelHandle, wishes: Sequence[Wish], *, batch_size: int = 64) -> list[Continuation]:
    """The continuation of every prompt, at least as long as is wanted, unless it broke before."""
    heard = _heard(handle)
    _hear(handle, heard, wishes, (), batch_size)
    return [heard.continuations[wish.prompt] for wish in wishes]


def force(handle: ModelHandle, targets: Sequence[TargetIds], *, batch_size: int = 64) -> list[Forced]:
    """How probable each target is; NaN where logits are not finite."""
    heard = _heard(handle)
    _hear(handle, heard, (), targets, batch_size)
    return [heard.forced[target] for target in targets]


def announce(
    handle: ModelHandle, wishes: Sequence[Wish], targets: Sequence[TargetIds], *, batch_size: int = 64
) -> None:
    """Find all of this out at once. A plain engine waits until it is asked."""
    if handle.engine.heard is not None:
        _hear(handle, _heard(handle), wishes, targets, batch_size)


@contextmanager
def unchanged(handle: ModelHandle) -> Iterator[None]:
    """Inside the block nothing has to be found out twice, unless a session changes the model: then all of it has."""
    before = handle.engine.heard
    try:
        handle.engine.heard = None if handle.engine.plain else Heard(handle.engine.changes)
        yield
    finally:
        handle.engine.heard = before


def made_once(handle: ModelHandle, key: Hashable, make: Callable[[], Value]) -> Value:
    """What `make` gives, made once while the model does not change."""
    heard = _heard(handle)
    if key not in heard.made:
        heard.made[key] = make()
    value: Value = heard.made[key]
    return value


def _heard(handle: ModelHandle) -> Heard:
    engine = handle.engine
    heard: Heard | None = engine.heard
    if heard is None:
        return Heard(engine.changes)
    if heard.changes != engine.changes:
        heard = engine.heard = Heard(engine.changes)
    return heard


class _Prompt:
    """A prompt on its way, for all who wish it."""

    def __init__(self, continuation: Continuation) -> None:
        self.continuation = continuation
        self.wishes: list[Wish] = []

    @property
    def wanted(self) -> int:
        """How many tokens more."""
        said = self.continuation.said
        return 0 if self.continuation.broken else max(wish.wants(said) for wish in self.wishes) - len(said)

    def guess(self) -> Ids:
        """The longest of what is still to come of a draft, if it is wanted: nothing once the answer has left it."""
        said, most = self.continuation.said, max(0, self.wanted - 1)
        left = [wish.draft[len(said) :][:most] for wish in self.wishes if list(wish.draft[: len(said)]) == said]
        return max(left, key=len, default=())

    def accept(self, handle: ModelHandle, guess: Ids, choices: _Choices) -> None:
        """Append the tokens that a pass over the guess has settled."""
        for place in range(len(guess) + 1):
            if not choices.finite[place]:
                self.continuation.broken = True
                return
            token = _alone(handle, self.continuation.text) if choices.close[place] else choices.best[place]
            self.continuation.said.append(token)
            if place < len(guess) and token != guess[place]:
                return


@dataclass(frozen=True, slots=True)
class _Choices:
    """At each place the most probable token, whether its logit is finite, and whether the next one is too close."""

    best: Sequence[int]
    finite: Sequence[bool]
    close: Sequence[bool]

    @classmethod
    def of(cls, handle: ModelHandle, logits: Tensor) -> _Choices:
        """From logits `[places, vocab]`."""
        peaks, best = logits.max(-1)  # NaN and +inf show in the maximum
        finite, close = torch.isfinite(peaks), torch.zeros_like(best, dtype=torch.bool)
        if handle.model.dtype.itemsize >= 4:
            second = logits.scatter(-1, best[:, None], -torch.inf).amax(-1)
            close = peaks - second <= CLOSE * peaks.abs().clamp(min=1.0)
        return cls(*torch.stack([best, finite, close]).tolist())

    def part(self, start: int, stop: int) -> _Choices:
        """Those of some places."""
        return _Choices(self.best[start:stop], self.finite[start:stop], self.close[start:stop])


@dataclass(frozen=True, slots=True, eq=False)
class _Fed(FedRow):
    """What is run for a row (an answer so far, with a guess behind it), for targets, or for both."""

    row: _Prompt | None = None
    guess: Ids = ()
    targets: tuple[TargetIds, ...] = ()

    def settle(self, handle: ModelHandle, heard: Heard, logits: Tensor, choices: _Choices) -> None:
        """Take what the pass gave from place `first` on: logits `[places, vocab]`."""
        for target in self.targets:
            places = slice(start := len(target.prompt) - 1 - self.first, start + len(target.ids))
            heard.forced[target] = _forced(target, logits[places], choices.best[places])
        if self.row is not None:
            count = len(choices.best)
            self.row.accept(handle, self.guess, choices.part(count - len(self.guess) - 1, count))


def _feed(rows: Sequence[_Prompt], targets: Sequence[TargetIds] = ()) -> list[_Fed]:
    """What is run for rows and targets; a target that a row begins with anyhow is read off with it."""
    left = dict.fromkeys(targets)
    fed = []
    for row in rows:
        guess, prompt = row.guess(), row.continuation.prompt
        ids = (*row.continuation.text, *guess)
        mine = tuple(
            one for one in left if one.prompt == prompt and ids[len(prompt) :][: len(one.ids) - 1] == one.ids[:-1]
        )
        for one in mine:
            del left[one]
        first = len(prompt) if mine else len(row.continuation.text)
        fed.append(_Fed(ids, first - 1, row, guess, mine))
    return [*fed, *(_Fed((*one.prompt, *one.ids[:-1]), len(one.prompt) - 1, targets=(one,)) for one in left)]


@torch.no_grad()
def _hear(
    handle: ModelHandle, heard: Heard, wishes: Sequence[Wish], targets: Sequence[TargetIds], batch_size: int
) -> None:
    """Lengthen continuations as far as is wished, and score the targets that were not."""
    left = [target for target in targets if target not in heard.forced]
    rows: dict[Ids, _Prompt] = {}
    for wish in wishes:
        continuation = heard.continuations.setdefault(wish.prompt, Continuation(wish.prompt))
        if not continuation.broken and wish.wants(continuation.said) > len(continuation.said):
            rows.setdefault(wish.prompt, _Prompt(continuation)).wishes.append(wish)
    if not rows and not left:
        return
    if has_hooks(handle.model):
        for row in rows.values():
            row.wishes = [replace(wish, draft=()) for wish in row.wishes]
    follow = _continue_cached if cannot_keep(handle) is None else _continue_whole
    for group in _groups(_feed(list(rows.values()), left), batch_size):
        follow(handle, heard, group)


def _groups(fed: Sequence[_Fed], batch_size: int) -> Iterator[list[_Fed]]:
    """Rows that go on together, of similar length: no more, and no more tokens, than a full batch may have."""
    group: list[_Fed] = []
    for one in sorted(fed, key=len):
        if group and (len(group) == batch_size or (len(group) + 1) * len(one) > batch_size * TOKENS_PER_ROW):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _continue_whole(handle: ModelHandle, heard: Heard, fed: Sequence[_Fed]) -> None:
    """Run the whole text for every token."""
    while fed:
        _settle(handle, heard, fed, run_rows(handle, fed, keep=False).logits)
        fed = _feed([one.row for one in fed if one.row is not None and one.row.wanted > 0])


def _continue_cached(handle: ModelHandle, heard: Heard, fed: Sequence[_Fed]) -> None:
    """Run prompts and drafts once, and then, token by token, what is to go on."""
    parts, going = list[Unfinished](), list[_Prompt]()
    for numbers in deal(handle, fed):
        chosen = [fed[i] for i in numbers]
        ran = run_rows(handle, chosen, keep=True)
        _settle(handle, heard, chosen, ran.logits)
        rows = {i: one.row for i, one in enumerate(chosen) if one.row is not None and one.row.wanted > 0}
        if rows and ran.cache is None:  # a model may take a cache and leave it empty
            _continue_whole(handle, heard, _feed(list(rows.values())))
        elif rows:
            lengths = [len(row.continuation.text) - 1 for row in rows.values()]  # the last token is still to be run
            parts.append(Unfinished(ran.cache, list(rows), lengths))
            going += rows.values()
    if not parts:
        return
    kept = KeptRows(handle, parts)
    parts.clear()
    while going:
        choices = _Choices.of(handle, kept.follow([row.continuation.said[-1] for row in going]))
        for place, row in enumerate(going):
            row.accept(handle, (), choices.part(place, place + 1))
        on = [place for place, row in enumerate(going) if row.wanted > 0]
        if on and len(on) < len(going):
            kept.only(on)
        going = [going[place] for place in on]


def _settle(handle: ModelHandle, heard: Heard, fed: Sequence[_Fed], logits: Tensor) -> None:
    """Share out what a pass gave, row after row."""
    choices, start = _Choices.of(handle, logits), 0
    for one in fed:
        stop = start + len(one) - one.first
        one.settle(handle, heard, logits[start:stop], choices.part(start, stop))
        start = stop


def _forced(target: TargetIds, logits: Tensor, best: Sequence[int]) -> Forced:
    nll = -log_likelihoods(logits, torch.tensor(target.ids)).mean()
    hits = sum(one == other for one, other in zip(best, target.ids, strict=True)) / len(target.ids)
    return Forced(float(nll), float("nan") if nll.isnan() else hits)


def _alone(handle: ModelHandle, text: Ids) -> int:
    """The most probable token behind a text that is run by itself; of several the first."""
    return int(handle.logits(handle.batch([text]))[0, -1].argmax())
