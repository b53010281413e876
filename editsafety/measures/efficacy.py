"""Efficacy: does the edited model say the new target?

The gate is the exact match of a greedy, free-running continuation. Beside it stand, for comparison only, the strictest
and the two most lenient figures in use: the whole answer of a model that stops by itself (WILD, "The Mirage of Model
Editing", arXiv 2502.11177), EasyEdit's teacher-forced token accuracy, which gives credit for tokens behind a wrong one,
and CounterFact's P(new) > P(true) (ROME, arXiv 2202.05262), where a dead model scores 50 to 68 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from editsafety.datasets.request import EditRequest
from editsafety.engine.continuing import Forced
from editsafety.errors import UsageError
from editsafety.measures import Inputs
from editsafety.measures.answers import Answer, grade, with_gaps
from editsafety.measures.questions import Asked, Question, ScoredTarget, ask, expecting, hear_out, old_answer, score
from editsafety.model.handle import ModelHandle
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

    def questions(self, handle: ModelHandle, inputs: Inputs) -> tuple[Asked, ...]:
        """Everything that is asked."""
        targets = (*_new_targets(inputs), *_old_targets(inputs))
        return (*_bare(handle, inputs), *_behind_prefixes(handle, inputs), *(one for one in targets if one))

    def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
        """The figures of the requests."""
        requests, size = inputs.requests, inputs.batch_size
        # First, because asking also checks that every prompt fits into the model.
        heard = hear_out(handle, _bare(handle, inputs), batch_size=size)
        prefixed = _behind_prefixes(handle, inputs)
        behind = ask(handle, prefixed, batch_size=size)
        new = score(handle, _new_targets(inputs), batch_size=size)
        old = score(handle, _old_targets(inputs), batch_size=size)
        wins = [_beats(n, o) for n, o in zip(new, old, strict=True)]
        hits = [None if forced is None else forced.hits for forced in new]
        told = [grade(answer, one.target, handle.gap(one.prompt)) for answer, one in zip(behind, prefixed, strict=True)]
        return (
            *_whole(handle, requests, heard),
            _rate("efficacy_prefixed", told, "no prefixes were given", behind),
            _rate("efficacy_teacher_forced", hits, "no requests"),
            _rate("efficacy_pairwise", wins, "no request has a target_true"),
            with_gaps(
                "target_probability", "probability", [_probability(one) for one in new], "no requests", version=VERSION
            ),
        )


def _rate(name: str, items: Sequence[float | None], reason: str, answers: Sequence[str | None] = ()) -> Measurement:
    return with_gaps(name, "rate", items, reason, answers=answers, version=VERSION)


def _bare(handle: ModelHandle, inputs: Inputs) -> list[Question]:
    return [
        expecting(handle, one.filled, one.target_new, _name_of(one), most=WILD_TOKENS, guess=old_answer(one, inputs))
        for one in inputs.requests
    ]


def _behind_prefixes(handle: ModelHandle, inputs: Inputs) -> list[Question]:
    requests = inputs.requests
    if inputs.prefixes and len(inputs.prefixes) != len(requests):
        raise UsageError(f"{len(inputs.prefixes)} prefixes for {len(requests)} requests; give one each, or none.")
    return [
        expecting(
            handle,
            handle.write_before(prefix, one.filled),
            one.target_new,
            _name_of(one),
            guess=old_answer(one, inputs),
        )
        for prefix, one in zip(inputs.prefixes, requests, strict=False)
    ]


def _new_targets(inputs: Inputs) -> list[ScoredTarget | None]:
    return [_scored(request.filled, request.target_new) for request in inputs.requests]


def _old_targets(inputs: Inputs) -> list[ScoredTarget | None]:
    return [_scored(request.filled, request.target_true) for request in inputs.requests]


def _scored(prompt: str, target: str | None) -> ScoredTarget | None:
    return ScoredTarget(prompt, target) if target and target.strip() else None


def _whole(handle: ModelHandle, requests: Sequence[EditRequest], heard: Sequence[Answer]) -> tuple[Measurement, ...]:
    """What is asked without a prefix: the beginning of an answer and all of it come from one generation."""
    targets, gaps = [one.target_new for one in requests], [handle.gap(one.filled) for one in requests]
    begun = [grade(*one) for one in zip([answer.begun for answer in heard], targets, gaps, strict=True)]
    wild = [_exact(answer, target) for answer, target in zip(heard, targets, strict=True)]
    stopped = [math.nan if answer.whole is None else float(answer.stopped) for answer in heard]
    return (
        _rate("efficacy", begun, "no requests", [answer.begun for answer in heard]),
        _rate("efficacy_wild", wild, "no requests", [answer.whole for answer in heard]),
        _rate("wild_stopped", stopped, "no requests"),
    )


def _name_of(request: EditRequest) -> str:
    return f"request {request.id!r}"


def _exact(answer: Answer, target: str) -> float:
    """1 when the whole answer is the target, NaN when the model gave none."""
    return math.nan if answer.whole is None else float(answer.whole.strip() == target.strip())


def _beats(new: Forced | None, old: Forced | None) -> float | None:
    if new is None or old is None:
        return None
    return math.nan if math.isnan(new.nll) or math.isnan(old.nll) else float(new.nll < old.nll)


def _probability(forced: Forced | None) -> float | None:
    return None if forced is None else math.exp(-forced.nll)


MEASURE = Efficacy()
