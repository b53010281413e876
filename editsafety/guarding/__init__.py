"""Guard: every edit of a model in use is a transaction: measured, judged, and kept or taken back bit for bit.

    with editsafety.guard("rome", handle=handle, audit="audit.jsonl") as guarded:
        decision = guarded.edit(request)
        if not decision.kept:
            print(decision.sentence)

The policy is the one of the suites. Perplexity is compared with the model as it was before the *first* edit, so that
many small losses cannot creep past; what the policy asks of a group of cases it asks here of each transaction. Leaving
the block keeps the accepted edits in the model; an exception or Ctrl-C in it takes all of them back.

What is served from the model while an edit is being tried sees it half done: hold `guarded.lock` around other uses.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from editsafety import abilities, datasets, editors
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.baseline import Baseline
from editsafety.edits.seal import Seal
from editsafety.edits.session import EditSession, Mark
from editsafety.errors import UndoError, UsageError, masked
from editsafety.guarding.audit import AuditLog
from editsafety.guarding.examination import Decision, Examiner
from editsafety.judging.alarms import Alarm
from editsafety.judging.group import Group
from editsafety.judging.measurable import refuse_unmeasured
from editsafety.judging.policy import Policy
from editsafety.judging.report import RunReport
from editsafety.lab.tools import artifacts_for
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import model_folder
from editsafety.runs.plan import text_source
from editsafety.runs.settings import Settings

TEXTS = 50  # as in a run
UNOPENED, CLOSED = "it is not open; use it in a with-block, or call open()", "it has been closed"


@dataclass(frozen=True)
class _State:
    """A state of the model to come back to, and what goes with it."""

    mark: Mark
    seal: Seal
    fingerprint: str
    carry: Mapping[str, Tensor] | None


class Guard:
    """Made by `guard`.

    `accepted` are the decisions of the edits that are in the model now, `tried` those of all edits, oldest first.
    """

    def __init__(self, examiner: Examiner, audit: AuditLog, *, keep: bool = True) -> None:
        self.handle, self.editor = examiner.handle, examiner.editor
        self.accepted: list[Decision] = []
        self.tried: list[Decision] = []
        self.lock = threading.RLock()
        self.id = uuid.uuid4().hex[:12]
        self._examiner, self._audit, self._keep = examiner, audit, keep
        self._number = 0
        self._busy = False
        self._trouble = UNOPENED
        self._before: list[_State] = []  # each accepted edit

    def open(self) -> Self:
        """Measure the model as it is: what every edit is compared with. Raises NotPreparedError or UsageError."""
        if self._trouble != UNOPENED:
            raise UsageError(f"a guard of {self.handle.name} is opened once; make a new one.")
        examiner = self._examiner
        examiner.open()
        session = EditSession(self.handle, prove="never").__enter__()  # open for long; what is around it is not ours
        self._session = session
        self._now = _State(session.mark(), Seal.of(self.handle), self.handle.fingerprint(), None)
        self._log(
            "opened",
            model=self.handle.name,
            fingerprint=self._now.fingerprint,
            editor=self.editor.name,
            hparams=self.editor.hparams.model_dump(mode="json"),
            policy=examiner.policy.name,
            policy_digest=examiner.policy.digest(),
            alarms=[str(alarm) for alarm in examiner.alarms],
            me_ppl=examiner.base["me_ppl"].value,
        )
        self._trouble = ""
        return self

    def __enter__(self) -> Self:
        return self.open()

    def edit(self, requests: EditRequest | Sequence[EditRequest]) -> Decision:
        """Try an edit on top of those that were kept, and keep it or take it back.

        Raises UsageError for requests that the editor cannot take, or a model that was changed behind the guard's back;
        UndoError when the model cannot be brought back; StoreError when the audit cannot be written. Then, and on
        Ctrl-C, the edit is taken back first.
        """
        wanted = (requests,) if isinstance(requests, EditRequest) else tuple(requests)
        with self._alone():
            self._refuse(wanted)
            self._number += 1
            before = self._now
            baseline = Baseline.of(self.handle)
            self._log("begun", number=self._number, requests=[one.as_json() for one in wanted])
            try:
                earlier = [request for decision in self.accepted for request in decision.requests]
                decision = self._examiner.examine(self._session, self._number, wanted, before.carry, earlier, baseline)
                self.tried.append(decision)
                if decision.kept and decision.edit is not None:
                    self._accept(decision, decision.edit.carry, before)
                    return decision
            except BaseException as error:
                self._back(before, baseline)
                self._log("rolled back", number=self._number, error=masked(f"{type(error).__name__}: {error}"))
                raise
            self._back(before, baseline)
            self._log("rolled back", **_told(decision, before, before))
            return decision

    def report(self) -> RunReport:
        """Every edit that was tried, kept or not, judged as in a run: the same verdict, exit code and formats."""
        bench = self._examiner.bench
        cases = tuple(decision.case for decision in self.tried)
        group = Group(self.handle.name, self.editor.name, cases, {}, (), {"guarded": len(cases)})
        return RunReport.alone(self._examiner.policy, group, *bench.facts())

    def undo(self, count: int = 1) -> None:
        """Take back the last accepted edits, bit for bit. Raises UsageError when there are not as many."""
        with self._alone():
            if not 1 <= count <= len(self._before):
                raise UsageError(f"{count} edit(s) to undo, but {len(self._before)} are kept in {self.handle.name}.")
            gone = [decision.number for decision in self.accepted[-count:]]
            self._back(self._before[-count])
            del self._before[-count:], self.accepted[-count:]
            self._log("undone", numbers=gone, fingerprint=self._now.fingerprint)

    def undo_all(self) -> None:
        """Take back every accepted edit."""
        if self._before:
            self.undo(len(self._before))

    def close(self, *, keep: bool | None = None) -> None:
        """Leave the accepted edits in the model for good, or (`keep` False) take all of them back.

        What is kept becomes the model: sidecars stay beside it, and its handle goes by the new weights' fingerprint, so
        that editors have to be made and prepared anew. Raises UsageError for a model that was changed otherwise.
        """
        keep = self._keep if keep is None else keep
        with self._alone():
            if keep and self._before:
                self._refuse_changed()
                self._session.commit()
            self._leave(None, None, None, kept=keep)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._trouble == CLOSED:
            return
        if error is None and not self._trouble:
            self.close()
        else:
            self._leave(kind, error, trace, kept=False)

    def _accept(self, decision: Decision, carry: Mapping[str, Tensor] | None, before: _State) -> None:
        """The audit has it first: if that cannot be written the edit is not kept."""
        after = _State(self._session.mark(), Seal.of(self.handle), self.handle.fingerprint(), carry)
        self._log("kept", **_told(decision, before, after))
        self._now = after
        self._before.append(before)
        self.accepted.append(decision)

    def _leave(self, kind: Any, error: BaseException | None, trace: Any, *, kept: bool) -> None:
        self._trouble = CLOSED
        self._before.clear()
        self._session.__exit__(kind, error, trace)
        about = {} if error is None else {"error": masked(f"{type(error).__name__}: {error}")}
        numbers = [decision.number for decision in self.accepted] if kept else []
        self._log("closed", kept=numbers, fingerprint=self.handle.fingerprint(), **about)

    def _back(self, state: _State, baseline: Baseline | None = None) -> None:
        """Bring the model back to an earlier state, and make sure of it, by what it did there too. Raises UndoError."""
        self._session.back_to(state.mark)
        different = [f"{name} differs" for name in state.seal.changed(Seal.of(self.handle))]
        if baseline is not None and not different:
            baseline.put_back()
            different += baseline.differences(self.handle)
        if different:
            self._trouble = "its model could not be brought back; load it again"
            raise UndoError(different)
        self._now = state

    def _refuse(self, requests: tuple[EditRequest, ...]) -> None:
        traits, name = self.editor.traits, self.editor.name
        if not requests:
            raise UsageError(f"{name} was given no request to edit.")
        if len(requests) > 1 and not traits.batch:
            raise UsageError(f"{name} edits one fact at a time; give its {len(requests)} requests one by one.")
        if self.accepted and not traits.sequential:
            raise UsageError(f"{name} cannot be applied on top of itself; undo the edit that is kept first.")
        self._refuse_changed()

    def _refuse_changed(self) -> None:
        changed = self._now.seal.changed(Seal.of(self.handle))
        if changed:
            raise UsageError(
                f"{self.handle.name} was changed behind the guard's back ({', '.join(changed[:3])}), so nothing can be "
                "compared with what it was. Put that back, or open a new guard on the model as it is."
            )

    def _log(self, what: str, **more: Any) -> None:
        self._audit.write(what, guard=self.id, **more)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time; other threads wait."""
        with self.lock:
            if self._trouble:
                raise UsageError(f"this guard of {self.handle.name} cannot be used: {self._trouble}.")
            if self._busy:
                raise UsageError("an edit is being tried; an editor or a measure must not call the guard itself.")
            self._busy = True
            try:
                yield
            finally:
                self._busy = False


def guard(
    editor: Editor | str,
    policy: Policy | str | Path = "default",
    *,
    handle: ModelHandle | None = None,
    texts: str | Sequence[str] = "",
    audit: Path | str | None = None,
    canaries: Sequence[EditRequest | str] = (),
    alarms: Sequence[Alarm | str] = (),
    keep: bool = True,
    batch_size: int = 64,
) -> Guard:
    """A guard around a model in use; to be entered by `with`, or opened and closed by `open` and `close`.

    Args:
        editor: one that was made for the model, or the name of one (then with `handle`).
        policy: name or file of a policy of the suites, or the policy itself.
        handle: the model, for an editor by name; `ModelHandle.of(model, tokenizer, name=...)` for one in memory.
        texts: for perplexity: a data set as on the command line, or the texts. By default those of a run.
        audit: a file of JSON lines that grows: every edit with its figures, and why it was kept or not.
        canaries: prompts whose answers no edit may change, or requests whose filled prompts are taken.
        alarms: thresholds on weight signals past which an edit is refused unapplied, like "delta_norm above 12.5"
            (`editsafety surrogate` finds them).
        keep: whether leaving the block leaves the accepted edits in the model.
        batch_size: rows of a forward pass while measuring.

    Raises UsageError for an editor without a model, or of another one, and for an alarm that says nothing.
    """
    thresholds = [one if isinstance(one, Alarm) else Alarm.of(one) for one in alarms]
    if isinstance(editor, str):
        if handle is None:
            raise UsageError(
                f"guard({editor!r}) needs the model: give handle=ModelHandle.of(model, tokenizer, name=...)"
            )
        editor = editors.make(editor, handle, artifacts_for(handle))
        if model_folder(handle.spec.name) is not None and editor.missing() is not None:
            editor.prepare()  # of a shipped model the texts are here, and it takes seconds
    if handle is not None and editor.handle is not handle:
        raise UsageError(f"{editor.name} was made for another handle than that of {handle.name}; give one of the two.")
    if isinstance(texts, str):
        model = editor.handle.spec.name
        source = texts or text_source(Settings((model,), ()), model)
        texts = datasets.texts(source, limit=None if texts else TEXTS)
    prompts = [one if isinstance(one, str) else one.filled for one in canaries]
    limits = policy if isinstance(policy, Policy) else Policy.read(policy)
    refuse_unmeasured(limits, map(abilities.measurement_of, abilities.names()))
    examiner = Examiner(editor, limits, texts, canaries=prompts, alarms=thresholds, batch_size=batch_size)
    return Guard(examiner, AuditLog(None if audit is None else Path(audit)), keep=keep)


def _told(decision: Decision, before: _State, after: _State) -> dict[str, Any]:
    """A decision as the audit has it."""
    return {
        "number": decision.number,
        "verdict": decision.verdict.value,
        "sentence": decision.sentence,
        "stage": decision.stage,
        "ratio": decision.ratio,
        "edit": None if decision.edit is None else decision.edit.id,
        "checks": [check.as_json() for check in decision.checks],
        "figures": {name: one.value if one.value is not None else one.reason for name, one in decision.found.items()},
        "notes": {} if decision.edit is None else dict(decision.edit.notes),
        "fingerprint_before": before.fingerprint,
        "fingerprint_after": after.fingerprint,
    }
