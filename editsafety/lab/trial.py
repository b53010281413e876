"""One trial: compute an edit, apply it, measure, undo. What comes out is a record, whatever the editor did.

A `Bench` is a model made ready for trials: its texts, its unedited measurements, and a keepsake of every byte for
the day when an editor writes where it should not.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from editsafety import measures
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Keepsake
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError, NotPreparedError, UndoError, told
from editsafety.measures import Inputs, Measure, Probe
from editsafety.model.handle import ModelHandle
from editsafety.model.meter import metered
from editsafety.runs.case_record import CaseRecord, Cost, Failure
from editsafety.runs.measurement import Measurement
from editsafety.runs.plan import Case

Found = dict[str, Measurement]
NOISE_TEXTS = 20


@dataclass
class Bench:
    """A loaded model with what is measured on it unedited. `base` is filled by `measure_base`."""

    handle: ModelHandle
    texts: Sequence[str]
    prefixes: Sequence[str]
    batch_size: int
    keepsake: Keepsake
    measures: Sequence[Measure] = field(default_factory=measures.needed)
    base: Found = field(default_factory=dict)
    noise: float = 0.0
    _unedited: dict[str, Found] = field(default_factory=dict)
    _probed: dict[str, Measurement] = field(default_factory=dict)

    def inputs(self, request: EditRequest | None, **more: Any) -> Inputs:
        """What measures may look at. The prefix of a request is drawn by the request alone, in any order the same."""
        requests = () if request is None else (request,)
        prefixes = [self.prefixes[int(r.digest()[:8], 16) % len(self.prefixes)] for r in requests if self.prefixes]
        return Inputs(requests, self.texts, prefixes, batch_size=self.batch_size, **more)

    def measure_base(self) -> None:
        """Measure the unedited model, and some texts once more one by one: what differs is the noise floor."""
        self.base = measure(self.measures, self.handle, self.inputs(None), "model")
        few = Inputs(texts=self.texts[:NOISE_TEXTS], batch_size=1)
        again = measure(self.measures, self.handle, few, "model")["me_ppl"].items
        pairs = [(a, b) for a, b in zip(self.base["me_ppl"].items, again, strict=False) if a and b]
        self.noise = max((abs(a - b) / a for a, b in pairs), default=0.0)

    def unedited(self, request: EditRequest) -> Found:
        """The measurements of a request on the unedited model, taken once whatever the number of editors."""
        key = request.digest()
        if key not in self._unedited:
            self._unedited[key] = measure(self.measures, self.handle, self.inputs(request), "case")
        return self._unedited[key]

    def probed(self, probe: Probe) -> Measurement:
        """What a probe finds on the unedited model, taken once whatever the number of courses."""
        key = repr(probe)
        if key not in self._probed:
            self._probed[key] = probe(self.handle, self.batch_size)
        return self._probed[key]

    def repair(self) -> None:
        """Bring back every byte after an editor did not. Raises UndoError when that is not enough."""
        self.keepsake.restore(self.handle)
        if self.handle.fingerprint() != self.handle.identity:
            raise UndoError([f"{self.handle.name} cannot be brought back; load it again"])


def measure(chosen: Sequence[Measure], handle: ModelHandle, inputs: Inputs, scope: str) -> Found:
    """What those of the chosen measures find that have this scope ("model", "case" or "edit")."""
    return {found.name: found for one in chosen if one.scope == scope for found in one(handle, inputs)}


def run(bench: Bench, editor: Editor, case: Case) -> CaseRecord:
    """The record of one case. The model is afterwards what it was; NotPreparedError and Ctrl-C pass through."""
    about: dict[str, Any] = {"case": case.id, "model": bench.handle.name, "editor": editor.name, "stream": case.stream}
    record = CaseRecord(**about, requests=(case.request,))
    try:
        # Per-text figures of the unedited model are kept once, with the run, not with every case.
        before = {n: replace(m, items=()) for n, m in bench.base.items()} | bench.unedited(case.request)
        edit, cost, leftovers = compute(bench.handle, editor, (case.request,))
        return _measured(bench, case, record, edit, before, cost, leftovers)
    except NotPreparedError:
        raise
    except (Exception, SystemExit) as error:  # the boundary: an editor is somebody else's code, anything may come
        undeclared = error.findings if isinstance(error, UndoError) else ()
        failure = failure_of(bench, editor.name, error)
        return CaseRecord(**about, requests=(case.request,), failure=failure, undeclared=undeclared)


def failure_of(bench: Bench, editor: str, error: BaseException) -> Failure:
    """What came out of an editor, in words; weights that it changed by itself are brought back.

    Raises UndoError when they cannot be.
    """
    kind = "contract" if isinstance(error, EditorError) else "editor"
    if isinstance(error, UndoError):
        bench.repair()
        kind = "undeclared"
    elif isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        kind = "oom"
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    said = told(error)
    return Failure(kind, f"{editor} failed: {said}", where)


def compute(
    handle: ModelHandle, editor: Editor, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None
) -> tuple[Edit, Cost, tuple[str, ...]]:
    """Let an editor compute its edit, inside a session that puts back and names whatever it leaves behind.

    Raises EditorError when it returns something else than an Edit, UndoError when it changed weights by itself.
    """
    with EditSession(handle) as guard, metered(handle.device, memory=True) as reading:
        edit = editor.edit(requests) if carry is None else editor.edit(requests, carry)
    if not isinstance(edit, Edit):
        raise EditorError(f"{editor.name}.edit() returned {type(edit).__name__}, expected an editsafety Edit.")
    return edit, Cost(edit=reading.seconds, edit_bytes=reading.peak_bytes), guard.leftovers


def _measured(
    bench: Bench, case: Case, record: CaseRecord, edit: Edit, before: Found, cost: Cost, leftovers: tuple[str, ...]
) -> CaseRecord:
    handle = bench.handle
    after = measure(bench.measures, handle, bench.inputs(case.request, edit=edit), "edit")
    session = EditSession(handle)
    with session:
        with metered(handle.device) as applying:
            session.apply(edit)
        declared, changed = session.declared(), session.changed()
        with metered(handle.device) as measuring:
            after |= measure(bench.measures, handle, bench.inputs(None), "model")
            after |= measure(bench.measures, handle, bench.inputs(case.request, before=before, edit=edit), "case")
    return CaseRecord(
        case=record.case,
        model=record.model,
        editor=record.editor,
        stream=record.stream,
        requests=record.requests,
        before=before,
        after=after,
        edit_id=edit.id,
        notes={**edit.notes, **({"sidecars": True} if edit.sidecars else {})},
        declared=declared,
        changed=changed,
        undeclared=tuple(name for name in changed if name not in declared),
        leftovers=leftovers + session.leftovers,
        restored=True,  # leaving the session compared every tensor; a difference would have raised
        cost=Cost(cost.edit, applying.seconds, session.undo_seconds, measuring.seconds, cost.edit_bytes),
    )


def given_up(bench: Bench, editor: Editor, case: Case, deaths: int) -> CaseRecord:
    """The record of a case that is not tried again, because the process that ran it died each time."""
    about: dict[str, Any] = {"case": case.id, "model": bench.handle.name, "editor": editor.name, "stream": case.stream}
    said = f"the process that ran this case died {deaths} times (killed, crashed or out of memory); not tried again"
    return CaseRecord(**about, requests=(case.request,), failure=Failure("died", said))
