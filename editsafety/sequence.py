"""Edits on top of each other: how many does a model stand?

Each edit is computed on the model as the earlier ones left it, with what the last one carries. Every few edits the
model is measured: perplexity against the unedited model, and how many of all facts written so far it still says. What
is judged is the worst figure seen: perplexity can fall again after a collapse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from editsafety import measures
from editsafety.editors import Editor
from editsafety.errors import UsageError
from editsafety.measures import Inputs
from editsafety.names import slug
from editsafety.request import EditRequest
from editsafety.session import EditSession
from editsafety.trial import Bench, compute, measure


@dataclass(frozen=True, slots=True)
class Step:
    """The model after `edits` edits.

    `ratio` is perplexity over that of the unedited model (infinite when it is not finite any more), `recent` the share
    of the last block of edits that the model says (exact match), `kept` that of all edits so far, `seconds` the mean
    time of one edit in the block.
    """

    edits: int
    ratio: float
    recent: float
    kept: float
    seconds: float

    def broken(self, limit: float) -> bool:
        """Whether perplexity is past the limit; what is not a number always is."""
        return not self.ratio <= limit


@dataclass(frozen=True, slots=True)
class Walk:
    """What a sequence of one editor on one model came to: the measured steps, and why it ended early, if it did."""

    model: str
    editor: str
    steps: tuple[Step, ...]
    trouble: str = ""

    def breaks_at(self, limit: float) -> int | None:
        """The first measured number of edits whose perplexity is past the limit; None if there is none."""
        return next((step.edits for step in self.steps if step.broken(limit)), None)


def walk(
    bench: Bench,
    editor: Editor,
    requests: Sequence[EditRequest],
    *,
    every: int = 10,
    size: int = 1,
    stop: float = math.inf,
) -> Iterator[Step]:
    """Apply edits of `size` requests one on top of the other; yield a step every `every` requests and at the end.

    Ends early once perplexity is past `stop` times that of the unedited model. The model is put back when the iterator
    ends or is closed. `bench` has been measured unedited. Raises UsageError when the editor's traits do not allow it.
    """
    traits = editor.traits
    if size > 1 and not traits.batch:
        raise UsageError(f"{editor.name} edits one fact at a time; a batch of {size} cannot be given to it.")
    if len(requests) > size and not traits.sequential:
        raise UsageError(f"{editor.name} cannot be applied on top of itself; give at most {size} request(s).")
    base = bench.base["me_ppl"].value
    if base is None:
        raise UsageError(f"{slug(bench.handle.spec.name)} has no finite perplexity before any edit.")
    carry: Mapping[str, Tensor] | None = None
    done: list[EditRequest] = []
    block: list[float] = []
    measured = 0
    with EditSession(bench.handle) as session:
        for start in range(0, len(requests), size):
            batch = requests[start : start + size]
            edit, cost, _ = compute(bench.handle, editor, batch, carry)
            session.apply(edit)
            carry = edit.carry
            done += batch
            block.append(cost.edit or 0.0)
            if len(done) - measured >= every or len(done) == len(requests):
                step = _step(bench, done, measured, base, sum(block) / len(block))
                measured, block = len(done), []
                yield step
                if step.broken(stop):
                    return


def _step(bench: Bench, done: Sequence[EditRequest], measured: int, base: float, seconds: float) -> Step:
    found = measure(bench.measures, bench.handle, bench.inputs(None), "model")["me_ppl"]
    told = measures.load("efficacy")(bench.handle, Inputs(tuple(done), batch_size=bench.batch_size))[0].items
    said = [item or 0.0 for item in told]
    ratio = math.inf if found.value is None else found.value / base
    recent = said[measured:]
    return Step(len(done), ratio, sum(recent) / len(recent), sum(said) / len(said), seconds)
