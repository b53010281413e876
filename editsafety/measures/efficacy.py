"""Efficacy: does the edited model say the new target?

The gate is the exact match of a greedy, free-running continuation. Beside it stand, for comparison only, the strictest
and the two most lenient figures in use: the whole answer of a model that stops by itself (WILD, "The Mirage of Model
Editing", arXiv 2502.11177), EasyEdit's teacher-forced token accuracy, which gives credit for tokens behind a wrong one,
and CounterFact's P(new) > P(true) (ROME, arXiv 2202.05262), where a dead model scores 50 to 68 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from editsafety.datasets.request import EditRequest
from editsafety.errors import UsageError
from editsafety.measures import Inputs
from editsafety.measures.answers import Answer, ask, expecting, grade, hear_out, with_gaps
from editsafety.model.handle import ModelHandle
from editsafety.model.scoring import by_length, log_likelihoods
from editsafety.runs.measurement import Column, Measurement

VERSION = 2
WILD_TOKENS = 20  # an answer that goes on for so many more than its target has tokens has not stopped by itself


class Efficacy:
    """Per request, then the mean over requests:

    - `efficacy`: 1 when the greedy continuation of the filled prompt begins with `target_new` and its last word ends
      there. One token more than the target's own is generated, so that "farmer" is not taken for "farm"; a target
      that the model spells in more tokens than the tokenizer would does not count.
    - `efficacy_wild`: 1 when the *whole* answer is the target: what the model says until it ends the text, the sentence
      (a period that the target does not hold itself) or the line, spaces around it removed. Of an answer that has not
      stopped 20 tokens behind the length of its target (or at the end of the context) everything said is compared.
    - `wild_stopped`: 1 when that answer stopped by itself.
    - `efficacy_teacher_forced`: share of the target's tokens that are the most probable ones behind the prompt and the
      *right* tokens before them. Never to be gated on: what it has more than `efficacy_wild` is the teacher's help.
    - `efficacy_prefixed`: `efficacy` with the request's own `prefixes[i]` written before the prompt.
    - `efficacy_pairwise`: 1 when the target's mean log-probability per token beats the old target's; ties lose.
    - `target_probability`: geometric mean of the target's token probabilities, exp(-mean nll), teacher-forced.

    Raises UsageError when there are prefixes but not one per request.
    """

    name: ClassVar[str] = "efficacy"
    version: ClassVar[int] = VERSION
    scope: ClassVar[Literal["model", "case", "edit"]] = "case"
    gives: ClassVar[tuple[str, ...]] = (
        "efficacy", "efficacy_wild", "wild_stopped", "efficacy_prefixed", "efficacy_teacher_forced",
        "efficacy_pairwise", "target_probability",
    )  # fmt: skip
    columns: ClassVar[tuple[Column, ...]] = (
        Column("efficacy", "prompt", "success", "suc-\ncess", order=20),
        Column("efficacy_prefixed", "+prefix", "success", "+pre-\nfix", order=21),
    )

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The figures of the requests."""
        requests = inputs.requests
        if inputs.prefixes and len(inputs.prefixes) != len(requests):
            raise UsageError(f"{len(inputs.prefixes)} prefixes for {len(requests)} requests; give one each, or none.")
        pairs = zip(inputs.prefixes, requests, strict=False)
        prefixed = [handle.write_before(prefix, request.filled) for prefix, request in pairs]
        size = inputs.batch_size
        # First, because asking also checks that every prompt fits into the model.
        bare = _bare(handle, requests, size)
        behind = _behind_prefixes(handle, requests, prefixed, size)
        new = _score_targets(handle, requests, [request.target_new for request in requests], size)
        old = _score_targets(handle, requests, [request.target_true for request in requests], size)
        wins = [_beats(n, o) for n, o in zip(new, old, strict=True)]
        hits = [None if forced is None else forced.hits for forced in new]
        return (
            *bare,
            behind,
            _rate("efficacy_teacher_forced", hits, "no requests"),
            _rate("efficacy_pairwise", wins, "no request has a target_true"),
            with_gaps(
                "target_probability", "probability", [_probability(one) for one in new], "no requests", version=VERSION
            ),
        )


@dataclass(frozen=True, slots=True)
class Forced:
    """A target behind its prompt, teacher-forced: mean nats per token, share of tokens that are the most probable."""

    nll: float
    hits: float


def _rate(name: str, items: Sequence[float | None], reason: str, answers: Sequence[str | None] = ()) -> Measurement:
    return with_gaps(name, "rate", items, reason, answers=answers, version=VERSION)


def _bare(handle: ModelHandle, requests: Sequence[EditRequest], batch_size: int) -> tuple[Measurement, ...]:
    """What is asked without a prefix: the beginning of an answer and all of it come from one generation."""
    targets = [request.target_new for request in requests]
    asked = [expecting(handle, request.filled, request.target_new, _name_of(request)) for request in requests]
    heard = hear_out(handle, asked, targets, most=WILD_TOKENS, batch_size=batch_size)
    gaps = [handle.gap(request.filled) for request in requests]
    begun = [grade(*one) for one in zip([answer.begun for answer in heard], targets, gaps, strict=True)]
    wild = [_exact(answer, target) for answer, target in zip(heard, targets, strict=True)]
    stopped = [math.nan if answer.whole is None else float(answer.stopped) for answer in heard]
    return (
        _rate("efficacy", begun, "no requests", [answer.begun for answer in heard]),
        _rate("efficacy_wild", wild, "no requests", [answer.whole for answer in heard]),
        _rate("wild_stopped", stopped, "no requests"),
    )


def _behind_prefixes(
    handle: ModelHandle, requests: Sequence[EditRequest], prompts: Sequence[str], batch_size: int
) -> Measurement:
    pairs = list(zip(prompts, requests, strict=False))
    asked = [expecting(handle, prompt, request.target_new, _name_of(request)) for prompt, request in pairs]
    answers = ask(handle, asked, batch_size=batch_size, whole_characters=True)
    told = zip(answers, pairs, strict=True)
    items = [grade(answer, one.target_new, handle.gap(prompt)) for answer, (prompt, one) in told]
    return _rate("efficacy_prefixed", items, "no prefixes were given", answers)


def _name_of(request: EditRequest) -> str:
    return f"request {request.id!r}"


def _exact(answer: Answer, target: str) -> float:
    """1 when the whole answer is the target, NaN when the model gave none."""
    return math.nan if answer.whole is None else float(answer.whole.strip() == target.strip())


@torch.no_grad()
def _score_targets(
    handle: ModelHandle, requests: Sequence[EditRequest], targets: Sequence[str | None], batch_size: int
) -> list[Forced | None]:
    """Both teacher-forced figures of every target from one pass; None where there is no target, NaN where it broke."""
    asked = [(i, request.filled, target) for i, (request, target) in enumerate(zip(requests, targets, strict=True))]
    ids = {i: handle.target_ids(target, prompt) for i, prompt, target in asked if target and target.strip()}
    rows = {i: [*handle.ids(requests[i].filled), *target] for i, target in ids.items()}
    scored: list[Forced | None] = [None] * len(targets)
    for chosen in by_length({i: len(row) for i, row in rows.items()}, batch_size):
        logits = handle.logits(handle.batch([rows[i] for i in chosen]))
        for k, i in enumerate(chosen):
            places = slice(len(rows[i]) - len(ids[i]) - 1, len(rows[i]) - 1)
            wanted, scores = torch.tensor(ids[i]), logits[k, places]
            nll = -float(log_likelihoods(scores, wanted).mean())
            hits = float((scores.argmax(-1).cpu() == wanted).double().mean())
            scored[i] = Forced(nll, math.nan if math.isnan(nll) else hits)
    return scored


def _beats(new: Forced | None, old: Forced | None) -> float | None:
    if new is None or old is None:
        return None
    return math.nan if math.isnan(new.nll) or math.isnan(old.nll) else float(new.nll < old.nll)


def _probability(forced: Forced | None) -> float | None:
    return None if forced is None else math.exp(-forced.nll)


MEASURE = Efficacy()
