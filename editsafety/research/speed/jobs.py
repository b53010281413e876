"""What `editsafety bench` times: jobs of a run, each against the published work or against `--plain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import torch

from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit, LowRank
from editsafety.edits.session import EditSession
from editsafety.errors import UsageError
from editsafety.lab.attempt import Questions, attempt, compute
from editsafety.lab.bench import Found
from editsafety.model.handle import ModelHandle
from editsafety.research.speed import Pair
from editsafety.research.speed.naive import Naive, Updates
from editsafety.research.speed.workplace import Workplace

Result = TypeVar("Result")
Pairs = Callable[[Workplace, int], Iterator[Pair]]


@dataclass(frozen=True, eq=False)
class Job:
    """One row of the table."""

    name: str
    what: str
    # The slow way: the published algorithm's work, or ours without shortcuts.
    against: Literal["published", "plain"]
    # How many times as fast it should be.
    target: float
    # On which model, when none is given.
    model: str
    pairs: Pairs


def edits(name: str, count: int) -> Pairs:
    """One edit of so many requests, as published and as it is here."""

    def pairs(place: Workplace, number: int) -> Iterator[Pair]:
        editor = place.editor(name)
        published = Naive.of(editor)
        for requests in _blocks(place.requests, count, number):
            yield Pair(
                partial(published.edit, requests),
                partial(editor.edit, requests),
                _updates_apart,
            )

    return pairs


def singles(name: str, count: int) -> Pairs:
    """So many single edits, one after the other."""

    def pairs(place: Workplace, number: int) -> Iterator[Pair]:
        editor = place.editor(name)
        published = Naive.of(editor)
        for requests in _blocks(place.requests, count, number):
            yield Pair(
                partial(_each, published.edit, requests),
                partial(_each, editor.edit, requests),
                lambda slow, fast: max(map(_updates_apart, slow, fast)),
            )

    return pairs


def family(first: str, second: str) -> Pairs:
    """A whole case of an editor, after another one of its family has had the same request; as a run has it (`Lab`)."""

    def pairs(place: Workplace, number: int) -> Iterator[Pair]:
        one, other = place.editor(first), place.editor(second)
        bench, handle = place.bench, place.handle

        def case(requests: Sequence[EditRequest], *, plain: bool) -> Edit:
            with _with_shortcuts(handle, not plain), handle.engine.in_a_row():
                made = compute(handle, other, requests, baseline=bench.baseline, prove="in doubt")
                attempt(bench, made, [Questions(tuple(requests), {**bench.base, **bench.unedited(requests)})])
            return made.edit

        def before(requests: Sequence[EditRequest]) -> None:
            bench.unedited(requests)
            compute(handle, one, requests, baseline=bench.baseline, prove="in doubt")

        for requests in _blocks(place.requests, 1, number):
            yield Pair(
                partial(case, requests, plain=True),
                partial(case, requests, plain=False),
                lambda slow, fast: _updates_apart(_matrices(slow), fast),
                ready_fast=partial(before, requests),
            )

    return pairs


def questions(place: Workplace, number: int) -> Iterator[Pair]:
    """Efficacy, rephrasings, locality and all free answers of an edited model."""
    bench, handle = place.bench, place.handle
    for i, requests in enumerate(_blocks(place.requests, 1, number)):
        edit = place.nudge(handle.layers // 3, torch.Generator().manual_seed(i))
        before = {**bench.base, **bench.unedited(requests)}

        def ask(asked: Sequence[EditRequest], edit: Edit, before: Found, *, plain: bool) -> Found:
            with _with_shortcuts(handle, not plain):
                return bench.measure("case", asked, before=before, edit=edit)

        with EditSession(handle, prove="never") as session:  # around the pair: what sealing takes is no part of asking
            session.apply(edit)
            yield Pair(
                partial(ask, requests, edit, before, plain=True),
                partial(ask, requests, edit, before, plain=False),
                _found_apart,
            )


def perplexity(depth: float) -> Pairs:
    """Perplexity of a model that was edited at this share of its depth; its texts have been read before."""

    def pairs(place: Workplace, number: int) -> Iterator[Pair]:
        bench, handle = place.bench, place.handle
        layer = int(depth * handle.layers)
        generator = torch.Generator().manual_seed(place.seed)

        def read(edit: Edit, *, plain: bool) -> Found:
            with EditSession(handle, baseline=bench.baseline) as session, _with_shortcuts(handle, not plain):
                session.apply(edit)
                return bench.measure("model")

        for _ in range(2):  # the second reading keeps what the later ones find
            read(place.nudge(layer, generator), plain=False)
        for _ in range(number):
            edit = place.nudge(layer, generator)
            yield Pair(
                partial(read, edit, plain=True),
                partial(read, edit, plain=False),
                _found_apart,
            )

    return pairs


MOST = 10_000  # requests of a job
GPT2, POCKET = "random:gpt2", "pocket-neo"
JOBS: Mapping[str, Job] = {
    job.name: job
    for job in (
        Job("rome", "one edit of rome", "published", 3.5, GPT2, edits("rome", 1)),
        Job("rome-8", "eight edits of rome, each by itself", "published", 4.5, GPT2, singles("rome", 8)),
        Job("memit-32", "one edit of memit with 32 requests", "published", 4.5, POCKET, edits("memit", 32)),
        Job("alphaedit-32", "one edit of alphaedit with 32 requests", "published", 4.5, POCKET, edits("alphaedit", 32)),
        Job("c_rome-case", "a case of c_rome, after rome", "plain", 2.0, POCKET, family("rome", "c_rome")),
        Job("alphaedit-case", "a case of alphaedit, after memit", "plain", 2.0, POCKET, family("memit", "alphaedit")),
        Job("questions", "all questions of a case", "plain", 3.0, POCKET, questions),
        Job("ppl-first", "perplexity, edited in the first layer", "plain", 1.15, POCKET, perplexity(0.0)),
        Job("ppl-third", "perplexity, edited at a third of the depth", "plain", 1.4, POCKET, perplexity(1 / 3)),
    )
}


def chosen(names: Sequence[str], model: str = "") -> tuple[Job, ...]:
    """The jobs of these names, all of them when none is named; on another model if one is given.

    Beside those of `JOBS` there are "memit-N" and "alphaedit-N", one edit of N requests, and "rome-N", N edits of one
    each. Raises UsageError for a name that there is not.
    """
    found = [JOBS.get(name) or _of_size(name) for name in names or JOBS]
    return tuple(replace(job, model=model) if model else job for job in found)


def _of_size(name: str) -> Job:
    editor, _, count = name.rpartition("-")
    if not (count.isdecimal() and 0 < int(count) <= MOST and editor in ("rome", "memit", "alphaedit")):
        raise UsageError(f"there is no job {name!r} to time. There are: {', '.join(JOBS)}, and others of their sizes.")
    like = JOBS["rome-8" if editor == "rome" else f"{editor}-32"]
    pairs = singles(editor, int(count)) if editor == "rome" else edits(editor, int(count))
    return replace(like, name=name, what=f"{editor}, {count} requests", pairs=pairs)


def _each(edit: Callable[[Sequence[EditRequest]], Result], requests: Sequence[EditRequest]) -> list[Result]:
    return [edit([request]) for request in requests]


def _with_shortcuts(handle: ModelHandle, taken: bool) -> AbstractContextManager[None]:
    return nullcontext() if taken else handle.engine.switched_off()


def _blocks(requests: Sequence[EditRequest], size: int, number: int) -> Iterator[Sequence[EditRequest]]:
    """So many blocks of requests, from the beginning again where there are too few for all."""
    for block in range(number):
        yield [requests[(block * size + i) % len(requests)] for i in range(size)]


def _updates_apart(slow: Updates, fast: Edit) -> float:
    """The largest relative distance (Frobenius) of the updates of a module."""
    found = _matrices(fast)
    if found.keys() != slow.keys():
        return float("inf")
    return max(float((slow[name] - found[name]).norm() / found[name].norm()) for name in found)


def _matrices(edit: Edit) -> Updates:
    return {delta.site.module: delta.matrix() for delta in edit.deltas if isinstance(delta, LowRank)}


def _found_apart(slow: Found, fast: Found) -> float:
    """The largest relative distance of two figures; a figure that only one of the ways has is infinitely far away."""
    pairs = [(slow[name].value, fast[name].value) for name in slow.keys() | fast.keys()]
    return max((_apart(one, other) for one, other in pairs), default=0.0)


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else float("inf")
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0
