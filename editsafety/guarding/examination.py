"""Examination: what a guard finds out about one edit, before it is applied and after.

Before: the signals of its weights, against the policy's limits and the alarms of `editsafety surrogate`. After: every
check of the policy, as in the suites; the accepted edits, which have to be there still; and the canaries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from editsafety import measures
from editsafety.datasets.request import EditRequest, Neighbour
from editsafety.editors import Editor
from editsafety.edits.baseline import Baseline
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Keepsake, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import NotPreparedError, UndoError, sentence_of
from editsafety.judging.alarms import Alarm, signals
from editsafety.judging.checks import CaseVerdict, Check, judge_case, judge_group
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.lab.attempt import Questions, compute, observe, where_raised
from editsafety.lab.bench import Bench, Found
from editsafety.numbers import rate, times
from editsafety.runs.case_record import CaseRecord, Failure, Step
from editsafety.runs.measurement import Measurement


@dataclass(frozen=True)
class Decision:
    """What a transaction came to. True in an `if` when the edit was kept."""

    number: int
    requests: tuple[EditRequest, ...]
    stage: str  # how far it got: "editor" (no edit), "preflight" (refused by its weights, never applied), "measured"
    case: CaseVerdict = field(repr=False)  # what was measured, and every judgement
    edit: Edit | None = field(default=None, repr=False)

    @property
    def verdict(self) -> Verdict:
        """The worst of its checks."""
        return self.case.verdict

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every judgement."""
        return self.case.checks

    @property
    def found(self) -> Mapping[str, Measurement]:
        """What was measured, by name."""
        return self.case.record.after

    @property
    def ratio(self) -> float | None:
        """Perplexity over that of the model before the first edit; None where it was not measured."""
        return self.case.ratio if self.stage == "measured" else None

    @property
    def sentence(self) -> str:
        """Why it came out so."""
        if self.verdict is Verdict.PASS:
            return f"PASS: perplexity {times(self.ratio)}"
        worst = max(self.checks, key=lambda check: check.verdict.severity)
        refused = " (refused before it was applied)" if self.stage == "preflight" else ""
        return f"{self.verdict.value}: {worst.sentence}{refused}"

    @property
    def kept(self) -> bool:
        """Whether the edit stays in the model, since it was measured and nothing failed."""
        return self.stage == "measured" and not self.verdict.fails

    def __bool__(self) -> bool:
        return self.kept


class Examiner:
    """Measures edits of one editor's model by a policy; `open` measures what they are compared with."""

    def __init__(
        self,
        editor: Editor,
        policy: Policy,
        texts: Sequence[str],
        *,
        canaries: Sequence[str] = (),
        alarms: Sequence[Alarm] = (),
        batch_size: int = 64,
    ) -> None:
        self.editor, self.handle, self.policy = editor, editor.handle, policy
        self.alarms = tuple(alarms)
        chosen = measures.needed(policy.measured)
        # Undoing is the guard's business: no second copy of the weights is kept.
        self.bench = Bench(self.handle, tuple(texts), (), batch_size, Keepsake.of(self.handle, most_bytes=0), chosen)
        self._canaries = tuple(canaries)
        self._watched: Measurement | None = None

    @property
    def base(self) -> Found:
        """What was measured of the model before the first edit."""
        return self.bench.base

    def open(self) -> None:
        """Measure the model as it is.

        Raises NotPreparedError, or UsageError for a limit on what nothing measures, or one finer than the noise.
        """
        missing = self.editor.missing()
        if missing is not None:
            raise NotPreparedError(self.editor.name, self.handle.name, missing)
        self.bench.open(self.policy)
        self._watched = self._answers({})

    def examine(
        self,
        session: EditSession,
        number: int,
        requests: tuple[EditRequest, ...],
        carry: Mapping[str, Tensor] | None,
        accepted: Sequence[EditRequest],
        baseline: Baseline,
    ) -> Decision:
        """Compute the edit, look at its weights, apply it in the session, measure and judge it.

        `baseline` is what the model did before; computing the edit has to leave it at that.
        It is still applied afterwards where the stage is "measured". What an editor raises is an ERROR, except for
        NotPreparedError, UndoError and what is no Exception (Ctrl-C).
        """
        seal = Seal.of(self.handle)
        before = {**self.base, **self.bench.measure("case", requests)}  # on the model as it is, earlier edits included
        name = f"edit {number}"
        record = CaseRecord(name, self.handle.name, self.editor.name, "guarded", requests, before=before)
        try:
            made = compute(self.handle, self.editor, requests, carry, baseline=baseline, prove="always")
        except (NotPreparedError, UndoError):
            raise
        except Exception as error:  # the boundary: an editor is somebody else's code, anything may come
            failure = Failure("editor", f"{self.editor.name} failed: {sentence_of(error)}", where_raised(error))
            return Decision(
                number, requests, "editor", judge_case(self.policy, replace(record, failure=failure, ended="failed"))
            )
        edit = made.edit
        weights = self.bench.measure("edit", requests, edit=edit)
        weights["norm_growth"] = _growth(session, edit, weights["norm_growth"])
        preflight = tuple(_preflight(self.policy, self.alarms, weights, edit))
        if any(check.verdict.fails for check in preflight):
            step = Step(len(requests), tuple(request.id for request in requests), weights, made.notes, made.cost)
            refused = replace(record, steps=(step,), ended="complete")
            return Decision(number, requests, "preflight", CaseVerdict(refused, preflight, self.policy.collapse), edit)
        step, _ = observe(self.bench, session, made, [Questions(requests, before)], weights=weights, since=seal)
        found = dict(step.found)
        more = [*self._still_said(requests, accepted, found), *self._unmoved(found)]
        # Computing the edit left every byte as it was, or UndoError would have come.
        record = replace(record, steps=(replace(step, found=found, restored=True),), ended="complete")
        judged = judge_case(self.policy, record)
        checks = (*judged.checks, *judge_group(self.policy, [record]), *more)
        return Decision(number, requests, "measured", replace(judged, checks=checks), edit)

    def _still_said(
        self, requests: Sequence[EditRequest], accepted: Sequence[EditRequest], found: Found
    ) -> Iterator[Check]:
        """Whether the model says what was accepted earlier, by the policy's limit on `kept` along a course.

        Of a prompt that was edited several times only the last target counts.
        """
        new = {request.filled for request in requests}
        latest = {one.filled: one for one in accepted}
        earlier = [one for prompt, one in latest.items() if prompt not in new]
        limit = next((one for one in self.policy.course.values() if one.measure == "kept"), None)
        if not earlier or limit is None:
            return
        told = measures.called(self.bench.measure_called("efficacy"), self.handle, self.bench.inputs(earlier))[0].items
        share = math.fsum(item or 0.0 for item in told) / len(earlier)
        found["kept"] = Measurement("kept", 1, "rate", share, n=len(earlier), items=told)
        lost = [one.id for one, item in zip(earlier, told, strict=True) if item != 1.0]
        names = f" (lost: {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''})" if lost else ""
        said = f"kept {limit.spelled(share, first=rate(share))} of {len(earlier)} earlier requests{names}"
        yield Check("kept", limit.verdict(share), f"{said}, expected {limit.limit}", share)

    def _unmoved(self, found: Found) -> Iterator[Check]:
        """Whether every canary gets the answer that it got before the first edit."""
        if self._watched is None:
            return
        now = self._answers({"locality": self._watched})
        assert now is not None
        found["canaries"] = now
        changed = [place for place, item in enumerate(now.items) if item != 1.0]
        share = 1 - len(changed) / len(now.items)
        if not changed:
            yield Check("canaries", Verdict.PASS, f"all {len(now.items)} canaries answer as before", share)
            return
        first = changed[0]
        answers = [found.answers[first].strip() for found in (self._watched, now)]
        said = f"first {self._canaries[first]!r}: {answers[0]!r} became {answers[1]!r}"
        yield Check("canaries", Verdict.DAMAGED, f"{len(changed)} of {len(now.items)} canaries changed, {said}", share)

    def _answers(self, before: Mapping[str, Measurement]) -> Measurement | None:
        """What the canary prompts are answered, compared with `before`. Raises UsageError where there is no answer."""
        if not self._canaries:
            return None
        asked = EditRequest("canaries", "{}", "x", "x", neighbours=tuple(Neighbour(one) for one in self._canaries))
        return measures.called(
            self.bench.measure_called("locality"), self.handle, self.bench.inputs((asked,), before=before)
        )[0]


def _preflight(policy: Policy, alarms: Sequence[Alarm], found: Found, edit: Edit) -> Iterator[Check]:
    """What the policy's limits and the alarms say of the weights alone."""
    for name, limit in policy.case.items():
        one = found.get(limit.measure)
        if limit.figure == "after" and one is not None and (one.value is not None or one.broken):
            figure = math.nan if one.value is None or one.broken else one.value
            yield Check(name, limit.verdict(figure), f"{name} {limit.spelled(figure)}, expected {limit.limit}", figure)
    there = signals(found, edit.notes)
    for alarm in alarms:
        if alarm.signal in there:
            figure = there[alarm.signal]
            verdict = Verdict.COLLAPSE if alarm.rings(figure) else Verdict.PASS
            yield Check(alarm.signal, verdict, f"{alarm.signal} is {figure:.4g}, collapse is expected {alarm}", figure)


@torch.no_grad()
def _growth(session: EditSession, edit: Edit, own: Measurement) -> Measurement:
    """Norm of the changed weights over that before the *first* edit, the largest; `own` where that is not available."""
    parameters = dict(session.handle.model.named_parameters(remove_duplicate=False))
    after: dict[str, Tensor] = {}
    for delta in edit.deltas:
        if delta.parameter not in parameters:
            return own  # applying it will say so
        after[delta.parameter] = delta.on(after.get(delta.parameter, parameters[delta.parameter].detach()))
    norms = [(_norm(value), _norm(session.original(name))) for name, value in sorted(after.items())]
    items = tuple(now / was for now, was in norms if was > 0)
    if not items or own.value is None or not all(map(math.isfinite, items)):
        return own
    return Measurement(own.name, own.version, own.unit, max(items), n=len(items), items=items)


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.detach().float().cpu().double()))
