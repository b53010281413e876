"""The search: layers first, then one number after the other, each on what was found before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editsafety.datasets.request import EditRequest
from editsafety.progress import Progress, Task
from editsafety.research.calibration.trials import Outcome, Trials, Values
from editsafety.research.calibration.where import Layers

# The numbers that depend on the model, in the order in which they are sought, and the factors by which they are tried.
FACTORS: Mapping[str, tuple[float, ...]] = {
    "clamp_norm_factor": (0.5, 2),
    "v_lr": (0.5, 2),
    "v_num_grad_steps": (0.5, 2),
    "v_weight_decay": (0.1, 10),
    "kl_factor": (0.25, 4),
    "mom2_update_weight": (0.25, 4),
}
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
    layers: Sequence[Layers],
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
    choices = choices_of(trials.start, layers)
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


def choices_of(start: Values, layers: Sequence[Layers]) -> dict[str, tuple[Any, ...]]:
    """What is tried of each number, in that order, what it is first."""
    scaled = {name: _scaled(start[name], factors) for name, factors in FACTORS.items() if start.get(name)}
    return {"layers": tuple(layers), **scaled}


def _scaled(value: float, factors: Sequence[float]) -> tuple[float, ...]:
    kind: Callable[[float], float] = round if isinstance(value, int) else lambda x: float(f"{x:.6g}")
    return (value, *(kind(value * factor) for factor in factors))


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
