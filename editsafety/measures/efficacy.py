"""Efficacy: does the edited model say the new target?

The gate is the exact match of a greedy, free-running continuation. CounterFact's P(new) > P(true) (ROME, arXiv
2202.05262) is reported for comparison only: a dead model scores 50 to 68 % there. EasyEdit's teacher-forced token
accuracy is not computed: it gives credit for tokens behind a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from editsafety.errors import UsageError
from editsafety.measurement import Measurement
from editsafety.measures import Inputs
from editsafety.measures._asking import ask, expecting, grade, with_gaps
from editsafety.models import ModelHandle
from editsafety.request import EditRequest
from editsafety.scoring import target_nll


class Efficacy:
    """Per request, then the mean over requests:

    - `efficacy`: 1 when the greedy continuation of the filled prompt begins with `target_new` and its last word ends
      there. One token more than the target's own is generated, so that "farmer" is not taken for "farm"; a target
      that the model spells in more tokens than the tokenizer would does not count.
    - `efficacy_prefixed`: the same with the request's own `prefixes[i]` written before the prompt.
    - `efficacy_pairwise`: 1 when the target's mean log-probability per token beats the old target's; ties lose.
    - `target_probability`: geometric mean of the target's token probabilities, exp(-mean nll), teacher-forced.

    Raises UsageError when there are prefixes but not one per request.
    """

    name: ClassVar[str] = "efficacy"
    version: ClassVar[int] = 1
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The four figures of the requests."""
        requests = inputs.requests
        if inputs.prefixes and len(inputs.prefixes) != len(requests):
            raise UsageError(f"{len(inputs.prefixes)} prefixes for {len(requests)} requests; give one each, or none.")
        prefixed = [prefix + request.filled for prefix, request in zip(inputs.prefixes, requests, strict=False)]
        prompts = [request.filled for request in requests]
        size = inputs.batch_size
        # First, because asking also checks that every prompt fits into the model.
        bare = _match(handle, "efficacy", requests, prompts, size, "no requests")
        behind = _match(handle, "efficacy_prefixed", requests, prefixed, size, "no prefixes were given")
        new = _nll(handle, requests, [request.target_new for request in requests], size)
        old = _nll(handle, requests, [request.target_true for request in requests], size)
        pairs = [_beats(n, o) for n, o in zip(new, old, strict=True)]
        return (
            bare,
            behind,
            with_gaps("efficacy_pairwise", "rate", pairs, "no request has a target_true"),
            with_gaps("target_probability", "probability", [_probability(nll) for nll in new], "no requests"),
        )


def _match(
    handle: ModelHandle,
    name: str,
    requests: Sequence[EditRequest],
    prompts: Sequence[str],
    batch_size: int,
    reason: str,
) -> Measurement:
    asked = [
        expecting(handle, prompt, request.target_new, f"request {request.id!r}")
        for prompt, request in zip(prompts, requests, strict=False)
    ]
    answers = ask(handle, asked, batch_size=batch_size, whole_characters=True)
    items = [grade(answer, request.target_new) for answer, request in zip(answers, requests, strict=False)]
    return with_gaps(name, "rate", items, reason, answers=answers)


def _nll(
    handle: ModelHandle, requests: Sequence[EditRequest], targets: Sequence[str | None], batch_size: int
) -> list[float | None]:
    """Mean nats per target token behind the filled prompt; None where there is no target."""
    there = [(i, handle.target_ids(target)) for i, target in enumerate(targets) if target and target.strip()]
    prompts = [handle.ids(requests[i].filled) for i, _ in there]
    found: list[float | None] = [None] * len(targets)
    scored = target_nll(handle, prompts, [ids for _, ids in there], batch_size=batch_size)
    for (i, _), values in zip(there, scored, strict=True):
        found[i] = float(values.double().mean())
    return found


def _beats(new: float | None, old: float | None) -> float | None:
    if new is None or old is None:
        return None
    return math.nan if math.isnan(new) or math.isnan(old) else float(new < old)


def _probability(nll: float | None) -> float | None:
    return None if nll is None else math.exp(-nll)


MEASURE = Efficacy()
