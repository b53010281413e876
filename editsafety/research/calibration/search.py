"""The search: layers first, then one number after the other, each on what was found before it.

Which numbers those are, and by which factors they are tried, is said by the editor's hyperparameters (`sought`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from editsafety.datasets.request import EditRequest
from editsafety.hyperparameters import Hparams
from editsafety.progress import Progress, Task
from editsafety.research.calibration.trials import Outcome, Trials, Values

GAIN = 0.01  # of the score: less is no reason to leave what a number was


@dataclass(frozen=True, slots=True)
class Tried:
    """A value of a number, and what edits with it came to."""

    value: Any
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Sought:
    """A number that was sought: what was tried, in that order, and what was taken."""

    name: str
    tried: tuple[Tried, ...]
    taken: Any
    # Values that there was no time for.
    left: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    sought: tuple[Sought, ...]
    # On requests that the search has not seen: what it began with, and what it found; the same where that is the same.
    before: Outcome
    after: Outcome

    @property
    def is_better(self) -> bool:
        """Whether what was found is better on those requests, too."""
        return self.after.score > self.before.score

    @property
    def values(self) -> dict[str, Any]:
        """The numbers to be used, by name: those found, or those of the beginning where these are no better."""
        return {one.name: one.taken if self.is_better else one.tried[0].value for one in self.sought}


def seek(
    trials: Trials,
    layers: Sequence[Any],
    requests: Sequence[EditRequest],
    others: Sequence[EditRequest],
    *,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """Seek every number on `requests` and compare with the beginning on `others`; says beforehand how long it takes.

    After so many `minutes` no further value is tried.
    """
    progress = progress or Progress.quiet()
    choices = choices_of(trials.kind, trials.start, layers)
    tries = 1 + sum(len(values) - 1 for values in choices.values())
    with progress.task(f"one edit of {trials.handle.name} by {trials.editor}", 1) as task:
        trials.outcome({}, requests[:1], task)
    edits = tries * len(requests) + 2 * len(others)
    told = f"{tries} sets of numbers, {edits} edits of {trials.seconds[0]:.1f} s"
    progress.say(f"{told}: at most {max(1, round(edits * trials.seconds[0] / 60))} min")
    until = None if minutes is None else time.monotonic() + 60 * minutes
    with progress.task(f"calibrating {trials.editor} on {trials.handle.name}", edits) as task:
        sought = _seek_each(trials, choices, requests, until, task)
        taken = {one.name: one.taken for one in sought}
        before = trials.outcome({}, others, task)
        after = trials.outcome(taken, others, task)
    return Found(tuple(sought), before, after)


def layer_name(kind: type[Hparams], start: Values) -> str | None:
    """The number that says which layers are edited; None where there is none, or where it stands for all of them."""
    return next((name for name in kind.layer_numbers if start[name] != ()), None)


def choices_of(kind: type[Hparams], start: Values, layers: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    """What is tried of each number, in that order, what it is first. A number that is off, or 0, is left so."""
    scaled = {name: _scaled(kind, start, name, factors) for name, factors in kind.sought.items() if start.get(name)}
    where = layer_name(kind, start)
    return {**({where: tuple(layers)} if where else {}), **scaled}


def _scaled(kind: type[Hparams], start: Values, name: str, factors: Sequence[float]) -> tuple[float, ...]:
    value = start[name]
    whole = isinstance(value, int)
    others = [round(value * factor) if whole else float(f"{value * factor:.6g}") for factor in factors]
    return (value, *(other for other in others if _is_possible(kind, {**start, name: other})))


def _is_possible(kind: type[Hparams], values: Values) -> bool:
    """Whether the editor takes these numbers: a share may not grow beyond 1."""
    try:
        kind.model_validate(dict(values))
    except ValidationError:
        return False
    return True


def _seek_each(
    trials: Trials,
    choices: Mapping[str, Sequence[Any]],
    requests: Sequence[EditRequest],
    until: float | None,
    task: Task,
) -> list[Sought]:
    taken: dict[str, Any] = {}
    best = trials.outcome({}, requests, task)
    sought: list[Sought] = []
    for name, (value, *others) in choices.items():
        tried, left = [Tried(value, best)], []
        taken[name] = value
        for other in others:
            if until is not None and time.monotonic() > until:
                left.append(other)
                continue
            tried.append(Tried(other, trials.outcome({**taken, name: other}, requests, task)))
            if tried[-1].outcome.score > best.score + GAIN:
                taken[name], best = other, tried[-1].outcome
        sought.append(Sought(name, tuple(tried), taken[name], tuple(left)))
    return sought
