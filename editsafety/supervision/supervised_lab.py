"""SupervisedLab: a lab in a process of its own, so that an editor which hangs, crashes or ends it takes no run with it.

Records go through the store; what is asked and answered is only that they are there. Whatever stops the process becomes
the record of the case that it was at, and a new process goes on with the next one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from editsafety.datasets.request import EditRequest
from editsafety.errors import DataError, EditorError, EditSafetyError, ModelError, StoreError, UsageError
from editsafety.lab.watch import Sign
from editsafety.names import label, slug
from editsafety.progress import Progress, Task
from editsafety.runs.case import Block, Case
from editsafety.runs.case_record import CaseRecord, Failure
from editsafety.runs.facts import BlockKey, OrderFacts, Pace, Problem
from editsafety.runs.plan import RunPlan
from editsafety.runs.store import Store
from editsafety.supervision.deaths import Death
from editsafety.supervision.laid_out import as_message
from editsafety.supervision.limits import Limits
from editsafety.supervision.process import LabProcess, Message, ProcessDied

KILLS = 3  # so often it may be killed from outside at one thing before that counts as the editor's doing
IN_A_ROW = 3  # cases of a block that end a process, one after the other, before the rest of the block is not run

_RAISED = {kind.__name__: kind for kind in (UsageError, DataError, ModelError, StoreError, EditorError)}


class SupervisedLab:
    """Asks a lab in another process for the cases of a plan; the process is started when it is first needed.

    `wanted` are the cases of this session and `live` those whose edits are asked for beside them, as for `Lab`;
    `workers` share the store. What editors print goes to the file `log`.
    """

    def __init__(
        self,
        plan: RunPlan,
        store: Store,
        progress: Progress,
        *,
        wanted: Sequence[Case],
        live: Sequence[Case] = (),
        workers: int = 1,
        log: Path,
    ) -> None:
        self._plan, self._store, self._progress, self._log = plan, store, progress, log
        self._begin = {
            "plan": as_message(plan),
            "digest": plan.digest(),
            "folder": str(store.path.parent),
            "wanted": [case.id for case in wanted],
            "probed": [case.id for case in wanted if case.probed],
            "live": [case.id for case in live],
            "workers": workers,
        }
        self._limits = Limits(plan.settings.timeout)
        self._process: LabProcess | None = None
        self._keys: dict[Block, BlockKey] = {}
        self._refused: dict[Block, EditSafetyError] = {}
        self._broken: StoreError | None = None
        self._sign, self._since = Sign(), 0.0
        self._kills = 0
        self._fallen: Counter[Block] = Counter()  # cases in a row that ended their process
        self._last = Death("died", "", False)
        self._shown, self._task = ExitStack(), Task(0)

    def record(self, case: Case, beside: Sequence[Case] | None = None) -> CaseRecord:
        """The whole record of a case, as `Lab.record`; of one that hung or took its process with it, that."""
        key = self.key_of(case.block).of(case)
        names = None if beside is None else [one.id for one in beside]
        while (record := self._store.record(key)) is None or not record.ended:
            if self._fallen[case.block] < IN_A_ROW:
                self._ask({"ask": "record", "case": case.id, "probed": case.probed, "beside": names}, case.block)
            elif self._store.claim([key], 1):
                self._fail(key, case, self._last, f"was not run, as the {IN_A_ROW} cases before ended so")
            else:
                time.sleep(0.05)  # another worker is at it
        return record

    def same_in_any_order(self, model: str, editor: str) -> OrderFacts:
        """Whether results depend on the order of edits, as `Lab.same_in_any_order`."""
        block = (model, editor)
        shared = self.key_of(block)
        while True:
            facts = self._store.fact(OrderFacts, f"{shared.model}:{shared.editor}")
            if facts is not None and facts.key == shared.single:
                return facts
            self._ask({"ask": "order", "block": block}, block)

    def refusal(self, case: Case) -> str | None:
        """Why an editor cannot go along a case's schedule; None when it can."""
        question = {"ask": "refusal", "case": case.id, "probed": case.probed}
        while (answer := self._ask(question, case.block)) is None:
            pass
        return str(answer) or None

    def knows(self, model: str, requests: Sequence[EditRequest]) -> list[bool]:
        """Whether the unedited model gives the true answer of each request, as `Lab.knows`."""
        question = {"ask": "known", "model": model, "requests": [request.as_json() for request in requests]}
        block = next(
            block for block in self._plan.blocks if block[0] == model
        )  # what is not run where it cannot be asked
        while (answer := self._ask(question, block)) is None:
            pass
        return list(map(bool, answer))

    def make_ready(self, block: Block) -> None:
        """Load a model, measure it unedited and prepare an editor, as `Lab.make_ready`."""
        self._ask({"ask": "ready", "block": block}, block)

    def verify(self, model: str) -> str:
        """Look whether a model that is in memory is what it was, as `Lab.verify`."""
        block = next((one for one in self._plan.blocks if one[0] == model and one not in self._refused), None)
        if self._process is None or block is None:
            return ""  # a new process loads it, and of a model that cannot be used nothing is run
        return str(self._ask({"ask": "verify", "model": model}, block) or "")

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def key_of(self, block: Block) -> BlockKey:
        """What the keys of a block share, as the lab works it out: the model's weights have been looked at for it."""
        while block not in self._keys:
            answer = self._ask({"ask": "key", "block": block}, block)
            if answer is not None:
                self._keys[block] = BlockKey(**answer)
        return self._keys[block]

    def _ask(self, question: Message, block: Block) -> Any:
        """The answer to a question, None where the process ended over it. Raises what the lab raised there."""
        if self._broken is not None or block in self._refused:
            raise self._broken or self._refused[block]
        try:
            if self._process is None:
                self._sign = Sign()
                self._process = LabProcess(self._log)
                self._process.tell(self._begin)
            self._process.tell(question)
            answer = self._heard(self._process)
        except ProcessDied as end:
            self._bury(end.death, question, block)
            return None
        except BaseException:  # Ctrl-C
            self._abandon()
            raise
        if answer.get("spoilt"):
            self._replace(block, answer["spoilt"])
        if "error" in answer:
            error = _RAISED.get(answer["error"], EditorError)(answer["said"])
            if isinstance(error, StoreError):
                self._broken = error
                with suppress(StoreError):  # where this process can still write, the report says why nothing follows
                    self._store.note(Problem(slug(block[0]), label(block[1]), str(error)))
            raise error
        return answer.get("answer")

    def _replace(self, block: Block, spoilt: str) -> None:
        """End a process that can judge nothing any more; an editor that spoils one after the other is given up."""
        self.close()
        self._kills += 1
        if self._kills >= KILLS:
            self._refuse(block, f"{label(block[1])} on {slug(block[0])} cannot be run: {spoilt}")

    def _refuse(self, block: Block, sentence: str) -> None:
        self._refused[block] = EditorError(sentence)
        self._store.note(Problem(slug(block[0]), label(block[1]), sentence))

    def _heard(self, process: LabProcess) -> Message:
        """The answer; until it comes, signs and progress are taken in, and nothing may take too long."""
        self._since = time.monotonic()
        while True:
            limit = self._limits.of(self._sign, self._per_text(self._sign.model))
            left = None if limit is None else max(0.0, limit - (time.monotonic() - self._since))
            message = process.hear(left)
            if message is None:
                assert limit is not None
                raise ProcessDied(process.stop_late(limit))
            if "sign" in message:
                self._take(Sign(**message["sign"]))
                if self._sign.doing == "spoilt":
                    process.kill()
                    raise ProcessDied(Death("died", "its process was spoilt", from_outside=True))
            elif "say" in message:
                self._progress.say(message["say"])
            elif "task" in message:
                self._task = self._shown.enter_context(self._progress.task(*message["task"]))
            elif "step" in message:
                self._task.step(*message["step"])
                self._since = time.monotonic() if self._sign.doing == "preparing" else self._since
            elif "done" in message:
                self._shown.close()
            else:
                return message

    def _take(self, sign: Sign) -> None:
        now = time.monotonic()
        if self._sign.doing == "running":  # and came to an end of some kind
            self._limits.learn(self._sign, now - self._since)
            self._fallen[self._sign.model, self._sign.editor] = 0
            self._kills = 0
        self._sign, self._since = sign, now

    def _per_text(self, model: str) -> float:
        """Seconds that a text took when the unedited model was measured, in whichever process that was."""
        timed = model and self._sign.doing in ("making", "running")
        pace = self._store.fact(Pace, slug(model)) if timed else None
        return 0.0 if pace is None else pace.seconds_per_text

    def _bury(self, death: Death, question: Message, block: Block) -> None:
        """Note what a process came to its end at; the next question starts another."""
        process, self._process, self._last = self._process, None, death
        self._shown.close()
        sign = self._sign
        self._kills += 1
        if death.from_outside and self._kills < KILLS:
            return
        self._kills = 0
        if sign.doing == "running" and sign.key:
            self._fallen[block] += 1
            self._fail(sign.key, self._case(sign), death)
        elif sign.doing == "running":
            shared = self._keys[block]
            trouble = f"{sign.case}, computed once more by a new editor: {_at(death)}"
            self._store.note(OrderFacts(shared.model, shared.editor, 1, (), shared.single, trouble))
        else:
            assert process is not None
            doing = {"making": "the editor was made", "preparing": "the editor was prepared"}
            when = doing.get(sign.doing, f"{slug(block[0])} was loaded")
            words = "" if death.stack or not (said := process.last_words()) else f"; its last words: {said}"
            sentence = f"{label(block[1])} on {slug(block[0])} cannot be run: while {when}, {_at(death)}{words}"
            self._refuse(block, sentence)

    def _fail(self, key: str, case: Case, death: Death, instead: str = "") -> None:
        known = self._store.record(key) or CaseRecord.begun(case, slug(case.model), label(case.editor))
        said = f" after edit {known.steps[-1].edits}" if known.steps else ""
        said = f"{instead}: {death.sentence}" if instead else f"failed{said}: {death.sentence}"
        message = f"{label(case.editor)} {said}"
        where, stack = ("", ()) if instead else (death.where, death.stack)
        self._store.put(key, replace(known, failure=Failure(death.kind, message, where, stack=stack), ended="failed"))

    def _case(self, sign: Sign) -> Case:
        return next(case for case in self._plan.every if case.id == sign.case)

    def _abandon(self) -> None:
        """Stop at once, in good order: the case that was run counts as never started."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        self._shown.close()
        if self._sign.key:
            self._store.leave(self._sign.key)


def _at(death: Death) -> str:
    return f"{death.sentence} at {death.where}" if death.where else death.sentence
