"""Attempt: compute an edit, apply it, measure, undo. The one place where an edit is measured.

A run, a check of a model that was handed over, a guard and `editsafety edit` all go through here.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.baseline import Baseline
from editsafety.edits.edit import Edit
from editsafety.edits.fit import refuse_unfit
from editsafety.edits.rounding import is_only_rounded
from editsafety.edits.seal import Seal
from editsafety.edits.session import EditSession, Proof
from editsafety.errors import EditorError, EditorTimeoutError, EditSafetyError, MeasureError, UndoError, sentence_of
from editsafety.foreign import contained
from editsafety.lab.asking import as_asked
from editsafety.lab.bench import Bench, Found
from editsafety.lab.weights_look import look_at, thin_changes
from editsafety.measures import AbilityProbe, probed
from editsafety.model.handle import ModelHandle
from editsafety.model.lost_device import lost_device
from editsafety.model.meter import metered
from editsafety.runs.case_record import Cost, Failure, Notes, Step


@dataclass(frozen=True, eq=False)
class Made:
    """An edit as an editor made it."""

    edit: Edit
    requests: tuple[EditRequest, ...]
    cost: Cost = field(default_factory=Cost)
    leftovers: tuple[str, ...] = ()  # what the editor left behind while it computed; it was put back

    @property
    def notes(self) -> Notes:
        """The editor's notes, and whether the edit acts by sidecars."""
        return {**self.edit.notes, **({"sidecars": True} if self.edit.sidecars else {})}


@dataclass(frozen=True, eq=False)
class Questions:
    """Requests that are asked together, and what they came to on the unedited model."""

    requests: tuple[EditRequest, ...]
    before: Found


def compute(
    handle: ModelHandle,
    editor: Editor,
    requests: Sequence[EditRequest],
    carry: Mapping[str, Tensor] | None = None,
    *,
    baseline: Baseline | None = None,
    prove: Proof | None = None,
) -> Made:
    """Let an editor compute its edit, inside a session that puts back and names whatever it leaves behind.

    `baseline` and `prove` are the session's. Raises EditorError when it returns something else than an Edit, UndoError
    when it changed weights by itself.
    """
    # Copies: whatever it does to them, what is measured stays what was asked for.
    asked = copy.deepcopy(as_asked(handle, requests))
    session = EditSession(handle, baseline=baseline, prove=prove)
    reading = metered(*handle.devices, memory=True)
    # Contained inside the session: it must find an error to report, and not an end of the program.
    with session as guard, contained(editor.name), reading as effort, handle.engine.charging(effort):
        edit = editor.edit(asked) if carry is None else editor.edit(asked, carry)
    if not isinstance(edit, Edit):
        raise EditorError(f"{editor.name}.edit() returned {type(edit).__name__}, expected an editsafety Edit.")
    ids = tuple(request.id for request in requests)
    if tuple(edit.request_ids) != ids:
        raise EditorError(
            f"{editor.name}.edit() returned an edit of {_listed(edit.request_ids)}, and was asked for one of "
            f"{_listed(ids)}. Give the edit the ids of the requests that it was made of, in their order."
        )
    cost = Cost(edit=effort.seconds, edit_bytes=effort.peak_bytes, reused=effort.charged)
    return Made(edit, tuple(requests), cost, guard.leftovers)


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (" ..." if len(ids) > 3 else "") if ids else "no request"


def attempt(
    bench: Bench,
    made: Made,
    questions: Sequence[Questions] = (),
    *,
    probes: Sequence[AbilityProbe] = (),
    look: Callable[[EditSession], None] = lambda session: None,
) -> tuple[Step, list[Found]]:
    """Apply an edit, measure, undo. The step, and what each question came to; the step has all of that, too.

    `look` may inspect the edited model before anything is measured; what it raises passes through, as UndoError does.
    """
    session = EditSession(bench.handle, baseline=bench.baseline)
    with session, contained(f"a sidecar of {made.edit.editor}"):
        step, answers = observe(bench, session, made, questions, probes=probes, look=look)
    leftovers = made.leftovers + session.leftovers
    cost = replace(step.cost, undo=session.undo_seconds)
    # Leaving the session compared every tensor; a difference would have raised.
    return replace(step, restored=True, leftovers=leftovers, cost=cost), answers


def observe(
    bench: Bench,
    session: EditSession,
    made: Made,
    questions: Sequence[Questions],
    *,
    weights: Found | None = None,
    probes: Sequence[AbilityProbe] = (),
    since: Seal | None = None,
    look: Callable[[EditSession], None] = lambda session: None,
) -> tuple[Step, list[Found]]:
    """Apply an edit in an open session and measure the model, which is left as it is then.

    `weights` is what measures of the edit alone found, where that is known already. What changed is told from the
    beginning of the session (which has to be left before that counts), or from `since`.
    """
    edit = made.edit
    asked = [request for question in questions for request in question.requests]
    refuse_unfit(bench.handle, edit)  # before a measure stumbles over it: whose edit it is has to answer for it
    found = dict(bench.measure("edit", asked, edit=edit) if weights is None else weights)
    thin = thin_changes(bench.handle, edit, found)
    with metered(*bench.handle.devices) as applying:
        session.apply(edit)
    look(session)
    with metered(*bench.handle.devices) as measuring:
        found |= bench.measure("model", before=bench.base, enough=bench.enough)
        answers = [bench.measure("case", one.requests, before=one.before, edit=edit) for one in questions]
        found |= {probe.name: probed(probe, bench.handle, bench.batch_size) for probe in probes}
    for answer in answers:
        found |= answer
    # A sidecar writes when it is run.
    changed = session.changed_elsewhere() if since is None else since.changed(Seal.of(bench.handle))
    rounded = only_rounded(session)
    step = Step(
        edits=len(made.requests),
        block=tuple(request.id for request in made.requests),
        found=found,
        notes=made.notes,
        cost=replace(made.cost, apply=applying.seconds, measure=measuring.seconds),
        edit_id=edit.id,
        declared=session.declared(),
        changed=changed,
        rounded=tuple(name for name in rounded if name in changed),
        look=look_at(session, edit, found, thin, rounded),
        leftovers=made.leftovers,
    )
    return step, answers


def only_rounded(session: EditSession) -> tuple[str, ...]:
    """Those declared parameters that hold the numbers from before the session, rounded to a narrower type at most."""
    parameters = dict(session.handle.model.named_parameters(remove_duplicate=False))
    return tuple(name for name in session.declared() if _is_rounded(session.original(name), parameters[name].detach()))


def _is_rounded(before: Tensor, after: Tensor) -> bool:
    alike = (before.shape, before.dtype) == (after.shape, after.dtype)
    return alike and is_only_rounded(before, after)


def failure_of(bench: Bench, editor: str, error: BaseException) -> Failure:
    """What came out of an editor, in words; what it changed by itself is brought back.

    Where that cannot be the bench is `broken` afterwards, and nothing may be measured on it any more.
    """
    late = isinstance(error, EditorTimeoutError)
    kind = "timeout" if late else "contract" if isinstance(error, EditorError) else "editor"
    if isinstance(error, UndoError) and lost_device(error) is None:
        _repair(bench, error)
        raised = f"; it had raised {sentence_of(error.__cause__)}" if error.__cause__ is not None else ""
        said, where = f"{editor} failed: {sentence_of(error)}{raised}", where_raised(error.__cause__ or error)
        return Failure("undeclared", said, where, tuple(error.findings))
    if (lost := lost_device(error)) is not None:
        kind, bench.broken = "device", f"the GPU answers nothing any more in this process: {sentence_of(lost)}"
    elif isinstance(error, torch.OutOfMemoryError | MemoryError):
        torch.cuda.empty_cache()
        kind = "oom"
        _bring_back(bench)  # it may have been the session that found no room, on its way out
    elif isinstance(error, MeasureError):
        return Failure("measure", sentence_of(error), where_raised(error))
    elif isinstance(error, EditSafetyError) and error.raised_by:
        return Failure("measure", f"{error.raised_by} failed: {sentence_of(error)}", where_raised(error))
    return Failure(kind, f"{editor} failed: {sentence_of(error)}", where_raised(error))


def _repair(bench: Bench, error: UndoError) -> None:
    _bring_back(bench)
    if error.lasting:
        bench.broken = bench.spoilt = f"this process cannot be trusted any more: {'; '.join(error.lasting)}"
    elif error.running:
        bench.broken = f"what an editor started goes on: {'; '.join(error.running)}"


def _bring_back(bench: Bench) -> None:
    try:
        bench.repair()
    except UndoError as worse:
        bench.broken = str(worse)


def where_raised(error: BaseException) -> str:
    """File and line where an error was raised; empty where that is not known."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
